"""A session in the store as a source of market data.

Why: what was recorded and loaded must be usable for research again, through the same checks as any
recording, and come out as the same records.

Invariants:
1. The market log of one session is read back byte for byte (see `recorder.session_records`); its
   books and trades are taken, as from the log itself.
2. Its provenance is the hash of that tape, not the store's name or the time of the query.

It opens no store. Operator's page: `docs/recordings.md`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hft_platform import records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import InstrumentTable
from hft_platform.recorder.session_records import session_tape
from research.data.rows import Batch
from research.data.tape_source import split_market

if TYPE_CHECKING:
    from hft_platform.recorder.store import Store


@dataclass(slots=True)
class StoredSession:
    """One session of a store.

    Attributes
    ----------
    store : Store
        Open store.
    run_id : str
        Session folder's name.
    skipped : list of dict
        Always empty.
    """

    store: Store
    run_id: str
    skipped: list[dict[str, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What the dataset is called after."""
        plain = re.sub(r"[^a-z0-9_]+", "_", self.run_id.lower()).strip("_")
        return f"store_{plain}"[:32]

    @property
    def batch_count(self) -> int:
        """A session is read at once."""
        return 1

    def batches(self, instruments: InstrumentTable) -> Iterator[Batch]:
        """Read the market log back; per symbol."""
        tape = session_tape(self.store, self.run_id, "market")
        if not tape:
            raise PlatformError(
                ReasonCode.FILE_DAMAGED,
                f"the store holds no market records of session {self.run_id}",
                next_step="hft-live wal load, then try again",
            )
        described = [{"name": "market", "bytes": len(tape), "sha256": records.tape_sha256(tape)}]
        for symbol, rows in split_market(tape, instruments):
            yield Batch(symbol, self.run_id, "store", rows, described)
