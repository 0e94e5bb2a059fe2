"""Rows on their way from a source to a dataset: records, and the fault of each row.

Why: every source (Parquet, raw websocket lines, log, generator) ends in the same records and is
judged by the same checks; a rejected row stays countable until the session is written.

Invariants:
1. `book_fault` and `trade_fault` have one entry a record: 0, or the first `ReasonCode` found.
2. A fault is never replaced by a later one.
3. A missing receive or exchange time is a flag on the record together with a time of 0; the flag
   stays when the time has been made.

It reads no files. Operator's page: `docs/recordings.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hft_platform import records
from hft_platform.feed.recording import Records
from hft_platform.market.instruments import InstrumentTable

SIMULATED_MATCH = 1
EXCHANGE_TIME_MISSING = 1 << 1
RECEIVE_TIME_SYNTHETIC = 1 << 2
SIDE_UNKNOWN = 1 << 3
SESSION_START = 1 << 4
GAP_BEFORE = 1 << 5

SOURCE_RECORDING = 1

Faults = npt.NDArray[np.uint16]
Mask = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Rows:
    """Books and trades of one symbol with the fault of each.

    Attributes
    ----------
    books, trades : ndarray
        Records; the header's instrument, trading day and final receive time are set later.
    book_fault, trade_fault : ndarray of uint16
        0 or a `ReasonCode`.
    """

    books: Records
    trades: Records
    book_fault: Faults
    trade_fault: Faults

    @classmethod
    def of(cls, books: Records, trades: Records) -> Rows:
        """Rows without a fault so far."""
        return cls(
            books,
            trades,
            np.zeros(len(books), dtype=np.uint16),
            np.zeros(len(trades), dtype=np.uint16),
        )

    @classmethod
    def empty(cls) -> Rows:
        """No rows."""
        return cls.of(records.empty("Book", 0), records.empty("Trade", 0))

    def __len__(self) -> int:
        return len(self.books) + len(self.trades)

    def streams(self) -> Iterator[tuple[Records, Faults]]:
        """Books, then trades."""
        yield self.books, self.book_fault
        yield self.trades, self.trade_fault

    def select(self, books: Mask, trades: Mask) -> Rows:
        """Rows under two masks."""
        return Rows(
            self.books[books], self.trades[trades], self.book_fault[books], self.trade_fault[trades]
        )


def mark(faults: Faults, mask: Mask, code: int) -> None:
    """Give rows under `mask` a fault, unless they have one."""
    faults[mask & (faults == 0)] = code


def lacks_receive_time(stream: Records) -> Mask:
    """Rows whose receive time is still to be made."""
    flagged = (stream["flags"] & RECEIVE_TIME_SYNTHETIC) != 0
    lacking: Mask = flagged & (stream["receive_time_ns"] == 0)
    return lacking


def lacks_exchange_time(stream: Records) -> Mask:
    """Rows whose exchange time is still to be made."""
    flagged = (stream["flags"] & EXCHANGE_TIME_MISSING) != 0
    lacking: Mask = flagged & (stream["exchange_time_ns"] == 0)
    return lacking


def concatenate(parts: list[Rows]) -> Rows:
    """Rows of several sources after each other; `source_seq` goes on where the last part ended."""
    if len(parts) == 1:
        return parts[0]
    seen = 0
    for part in parts:
        highest = max((int(r["source_seq"].max()) for r, _ in part.streams() if len(r)), default=0)
        for stream, _ in part.streams():
            stream["source_seq"] += np.uint64(seen)
        seen += highest + 1
    return Rows(
        np.concatenate([part.books for part in parts]),
        np.concatenate([part.trades for part in parts]),
        np.concatenate([part.book_fault for part in parts]),
        np.concatenate([part.trade_fault for part in parts]),
    )


@dataclass(slots=True)
class Batch:
    """What a source hands over at a time: rows of one symbol, and what it noticed.

    Attributes
    ----------
    symbol : str
        Instrument.
    name : str
        Source as reports call it: a file stem, a log segment range, a generator session.
    kind : str
        ``parquet``, ``binance_raw``, ``wal`` or ``generator``.
    rows : Rows
        The records.
    inputs : list of dict
        Name, bytes and SHA-256 of what was read: the provenance.
    notes : dict
        Counts of what is no row: ignored columns, malformed lines, sequence gaps.
    """

    symbol: str
    name: str
    kind: str
    rows: Rows
    inputs: list[dict[str, Any]]  # Any: JSON
    notes: dict[str, Any] = field(default_factory=dict)  # Any: JSON


class Source(Protocol):
    """A recording folder, a log or the generator."""

    @property
    def name(self) -> str:
        """What the dataset is called after."""

    @property
    def skipped(self) -> list[dict[str, str]]:
        """Files that were not used, with the reason."""

    @property
    def batch_count(self) -> int:
        """How many batches will come."""

    def batches(self, instruments: InstrumentTable) -> Iterator[Batch]:
        """Hand over the rows, per symbol in time order."""
