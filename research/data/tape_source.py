"""Tapes as sources: the segments of a write-ahead log, and the market generator.

Why: what a session recorded, and what the generator made, goes through the same checks as any
recording, so that datasets do not differ by where they came from.

Invariants:
1. Only books and trades are taken; everything the engine or the broker said stays in the log.
2. Sequencing of an earlier session is removed; receive times, source order and marks are kept:
   they are what that session saw.

It starts no generator by itself. Operator's page: `docs/recordings.md`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hft_platform import _core, records
from hft_platform.config.canonical import canonical_sha256
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import InstrumentTable
from hft_platform.recorder.archive import whole_log
from research.data.rows import SESSION_START, Batch, Rows

if TYPE_CHECKING:
    from research.data.generator import GeneratorSpec

_MARKET_LOG = "market"


@dataclass(slots=True)
class LogFolder:
    """Segments of one log.

    Attributes
    ----------
    folder : Path
        With ``*.seg`` files.
    name : str
        What the dataset is called after.
    skipped : list of dict
        Files left out.
    """

    folder: Path
    name: str
    skipped: list[dict[str, str]] = field(default_factory=list)

    @property
    def batch_count(self) -> int:
        """A log is read at once."""
        return 1

    def batches(self, instruments: InstrumentTable) -> Iterator[Batch]:
        """Read the log, verified; per symbol."""
        try:
            with whole_log(self.folder) as folder:
                log = _core.read_log(str(folder))
                inputs = [
                    {"name": path.name, "bytes": path.stat().st_size, "sha256": _sha256(path)}
                    for path in _segments(folder)
                ]
        except _core.WalError as error:
            code, message = error.args[0], error.args[1]
            raise PlatformError(
                code, f"{self.folder}: {message}", next_step=f"hft-live wal verify {self.folder}"
            ) from error
        for symbol, rows in split_market(log["tape"], instruments):
            notes = {"segments": len(inputs), "is_torn": bool(log.get("torn"))}
            yield Batch(symbol, self.name, "wal", rows, inputs, notes)


@dataclass(slots=True)
class GeneratedTapes:
    """Sessions of the market generator.

    Attributes
    ----------
    spec : GeneratorSpec
        Seed, sessions, instrument and switches.
    skipped : list of dict
        Always empty.
    """

    spec: GeneratorSpec
    skipped: list[dict[str, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the spec."""
        return str(self.spec.name)

    @property
    def batch_count(self) -> int:
        """Number of sessions."""
        return int(self.spec.session_count)

    def batches(self, instruments: InstrumentTable) -> Iterator[Batch]:
        """Generate one session after the other."""
        from research.data.generator import tapes

        content = self.spec.model_dump(mode="json")
        described = [{"name": "spec", "bytes": 0, "sha256": canonical_sha256(content)}]
        for index, tape in tapes(self.spec, instruments):
            for symbol, rows in split_market(tape, instruments):
                yield Batch(symbol, f"session {index}", "generator", rows, described)


def log_folder(path: Path) -> LogFolder | None:
    """The log in a folder, or in the market log of a session folder; None if there is none."""
    for folder in (path / _MARKET_LOG, path):
        # All segments of a log may be archived; its manifest stays.
        if _segments(folder) or (folder / "manifest.log").exists():
            name = re.sub(r"[^a-z0-9_]+", "_", path.resolve().name.lower()).strip("_")
            return LogFolder(folder, f"log_{name}"[:32])
    return None


def _segments(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.seg"), *folder.glob("*.open")])


def split_market(tape: bytes, instruments: InstrumentTable) -> Iterable[tuple[str, Rows]]:
    """Books and trades of a tape by symbol, without the sequencing of the session they are from.

    Parameters
    ----------
    tape : bytes
        Records of any types.
    instruments : InstrumentTable
        Names the symbols.

    Yields
    ------
    (str, Rows)

    Raises
    ------
    PlatformError
        FILE_DAMAGED when the tape cannot be read.
    """
    try:
        parts = records.split(tape)
    except ValueError as error:
        raise PlatformError(ReasonCode.FILE_DAMAGED, f"tape cannot be read: {error}") from error
    books, trades = parts["Book"].copy(), parts["Trade"].copy()
    for stream in (books, trades):
        stream["input_seq"] = 0
        stream["sequence_time_ns"] = 0
        stream["flags"] &= ~np.uint32(SESSION_START)  # set again on the first kept record
    ids = np.unique(np.concatenate([books["instrument_id"], trades["instrument_id"]]))
    rows = Rows.of(books, trades)
    for instrument_id in ids.tolist():
        symbol = instruments.by_id(instrument_id).symbol
        yield (
            symbol,
            rows.select(
                books["instrument_id"] == instrument_id, trades["instrument_id"] == instrument_id
            ),
        )


def _sha256(path: Path) -> str:
    return records.tape_sha256(path.read_bytes())
