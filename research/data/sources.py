"""Recording folders: which files make a recording, and which are left out with a reason.

Why: a folder is taken as it is; what is used, what is not and why must be in the report.

Invariants:
1. A file's instrument comes from its name by `recording_names`; an unknown one stops everything.
2. One recording a symbol and day: Parquet before raw lines; the other is reported as a duplicate.
3. Batches come per symbol in the order of days.

It reads names and hashes here; rows are read by the modules a format. Operator's page:
`docs/recordings.md`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import InstrumentTable
from hft_platform.market.sessions import date_of
from research.data.binance_source import read_binance_raw
from research.data.parquet_source import read_parquet_pair
from research.data.rows import Batch

FILE_COUNT_MAX = 100_000

_PARQUET = re.compile(r"(?P<stem>.+)_(?P<what>book|trades|bbo)\.parquet")
_DATE = re.compile(r"(?<!\d)(20\d{2})-?(\d{2})-?(\d{2})(?!\d)")
_BLOCK_BYTES = 1 << 20


@dataclass(slots=True)
class _Recording:
    book: Path | None = None
    trades: Path | None = None
    raw: Path | None = None


@dataclass(slots=True)
class RecordingFolder:
    """A folder of recordings, resolved.

    Attributes
    ----------
    name : str
        Name of the folder.
    recordings : dict
        By symbol and day.
    skipped : list of dict
        Files left out: ``file`` and ``reason``.
    """

    name: str
    recordings: dict[tuple[str, int], _Recording] = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)

    @property
    def batch_count(self) -> int:
        """Number of recordings that will be read."""
        return len(self.recordings)

    def batches(self, instruments: InstrumentTable) -> Iterator[Batch]:
        """Read one recording after the other, per symbol in the order of days."""
        for (symbol, _), files in sorted(self.recordings.items()):
            instrument = instruments.by_symbol(symbol)
            if files.book is not None:
                rows, notes = read_parquet_pair(files.book, files.trades, instrument)
                used, kind = [files.book, files.trades], "parquet"
            elif files.raw is not None:
                rows, notes = read_binance_raw(files.raw, instrument)
                used, kind = [files.raw], "binance_raw"
            else:
                continue
            paths = [path for path in used if path is not None]
            yield Batch(
                symbol=symbol,
                name=paths[0].name.removesuffix("_book.parquet"),
                kind=kind,
                rows=rows,
                inputs=[_described(path) for path in paths],
                notes=notes,
            )


def open_folder(folder: Path, instruments: InstrumentTable) -> RecordingFolder:
    """Resolve the recordings of a folder and of those in it.

    Parameters
    ----------
    folder : Path
        With ``<name>_book.parquet``, ``<name>_trades.parquet`` or raw ``<name>.gz`` files.
    instruments : InstrumentTable
        Resolves names.

    Returns
    -------
    RecordingFolder
        Nothing was read yet.

    Raises
    ------
    PlatformError
        UNKNOWN_INSTRUMENT with the YAML to add, SCHEMA_MISMATCH for a name that does not say what
        it is, or when there is no recording at all.
    """
    found = RecordingFolder(name=_dataset_name(folder))
    for count, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        if count >= FILE_COUNT_MAX:
            raise PlatformError(
                ReasonCode.SCHEMA_MISMATCH,
                f"{folder} holds more than {FILE_COUNT_MAX} files",
                next_step="point DATA at the folder with the recordings",
            )
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.suffix == ".parquet":
            _add_parquet(found, path, instruments)
        elif path.suffix == ".gz":
            _add_raw(found, path, instruments)
        else:
            found.skipped.append({"file": path.name, "reason": "not a recording"})
    _settle(found)
    if not found.recordings:
        raise PlatformError(
            ReasonCode.SCHEMA_MISMATCH,
            f"{folder} holds no recording; expected are <name>_book.parquet with"
            " <name>_trades.parquet, raw <name>.gz, or the segments of a log",
            next_step="point DATA at the folder with the recordings, as in docs/recordings.md",
        )
    return found


def _add_parquet(found: RecordingFolder, path: Path, instruments: InstrumentTable) -> None:
    match = _PARQUET.fullmatch(path.name)
    if match is None:
        raise PlatformError(
            ReasonCode.SCHEMA_MISMATCH,
            f"{path}: name does not end in _book.parquet, _trades.parquet or _bbo.parquet",
            next_step="rename it as docs/recordings.md says, or move it out of the folder",
        )
    if match["what"] == "bbo":
        reason = "best bid and ask only: the book file holds them"
        found.skipped.append({"file": path.name, "reason": reason})
        return
    recording = _recording_of(found, path, instruments)
    if getattr(recording, match["what"]) is not None:
        found.skipped.append({"file": path.name, "reason": "duplicate of another Parquet file"})
        return
    setattr(recording, match["what"], path)


def _add_raw(found: RecordingFolder, path: Path, instruments: InstrumentTable) -> None:
    recording = _recording_of(found, path, instruments)
    if recording.raw is not None:
        found.skipped.append({"file": path.name, "reason": "duplicate of another raw file"})
        return
    recording.raw = path


def _recording_of(found: RecordingFolder, path: Path, instruments: InstrumentTable) -> _Recording:
    symbol = instruments.by_recording_name(path.name).symbol
    return found.recordings.setdefault((symbol, _day_of(path)), _Recording())


def _day_of(path: Path) -> int:
    match = _DATE.search(path.name)
    if match is not None:
        day = int(match[1] + match[2] + match[3])
        try:
            date_of(day)
        except ValueError:
            match = None
        else:
            return day
    raise PlatformError(
        ReasonCode.SCHEMA_MISMATCH,
        f"{path}: name holds no date such as 2026-04-09 or 20260409",
        next_step="rename it as docs/recordings.md says",
    )


def _settle(found: RecordingFolder) -> None:
    for (symbol, day), files in sorted(found.recordings.items()):
        if files.book is None and files.trades is not None and files.raw is None:
            raise PlatformError(
                ReasonCode.SCHEMA_MISMATCH,
                f"{files.trades}: trades of {symbol} on {day} without their book file",
                next_step="add the _book.parquet beside it, or move it out of the folder",
            )
        if files.book is None and files.trades is not None:
            found.skipped.append(
                {"file": files.trades.name, "reason": "no book beside it; the raw file is used"}
            )
        if files.book is not None and files.raw is not None:
            reason = f"duplicate source: {files.book.name} holds the same market and day"
            found.skipped.append({"file": files.raw.name, "reason": reason})


def _dataset_name(folder: Path) -> str:
    name = re.sub(r"[^a-z0-9_]+", "_", folder.resolve().name.lower()).strip("_")
    return name[:32] or "recordings"


def _described(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": digest.hexdigest()}
