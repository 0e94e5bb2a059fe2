"""The book of ingestions: which records each session had when it was first ingested.

Why: a recording that is revised afterwards knows what came later. A dataset made from it is whole
and its hashes fit; only what was first seen tells that it was restated.

Invariants:
1. Rows are only appended, one for each (symbol, session, way of ingestion, tape) that was written.
2. The first row of a session and way stays the first: a later one with another tape is a
   restatement, however often it is ingested.
3. Another way of ingestion (record schema, version, receive-time method, grid or calendar of the
   instrument) makes other records of the same rows, so it is compared with its own kind only.

It judges nothing (see research/gates/data_audit.py). Operator's page: `docs/look-ahead.md`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hft_platform.config.canonical import canonical_json, canonical_sha256, sync_folder
from hft_platform.config.file_lock import locked
from hft_platform.errors import PlatformError, ReasonCode

BOOK_FILE = "ingestions.jsonl"
"""In the folder of the datasets, which are useless without it."""
_WAY_FIELDS = ("schema", "ingestion_version", "record_schema")
_INSTRUMENT_FIELDS = (
    "instrument_id", "tick_bands", "lot_size", "last_trading_day", "calendar", "gap_ns", "changes"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ingestion:
    """One session as it was written.

    Attributes
    ----------
    symbol, session_id : str
        Which session.
    way : str
        Hash over everything but the rows that decides what records are made of them.
    tape_sha256 : str
        The records.
    """

    symbol: str
    session_id: str
    way: str
    tape_sha256: str

    def as_dict(self) -> dict[str, str]:
        """Line of the book."""
        return {
            "symbol": self.symbol,
            "session_id": self.session_id,
            "way": self.way,
            "tape_sha256": self.tape_sha256,
        }


def ingestions_of(content: Mapping[str, Any]) -> list[Ingestion]:
    """Sessions of a dataset as its `dataset.json` describes them.

    Parameters
    ----------
    content : mapping
        Content of `dataset.json`.

    Returns
    -------
    list of Ingestion
        In the order of the sessions. What a generator made is told apart by its inputs too: the
        same name with another seed is another market, not a restated one.
    """
    generated: dict[str, list[str]] = {}
    for row in content["inputs"]:
        if row["kind"] == "generator":
            generated.setdefault(row["symbol"], []).append(row["sha256"])
    ways = {}
    for symbol, instrument in content["instruments"].items():
        way = {name: content[name] for name in _WAY_FIELDS}
        way["receive_times"] = content["receive_times"]["sha256"]
        way["instrument"] = {name: instrument[name] for name in _INSTRUMENT_FIELDS}
        way["generated"] = sorted(generated.get(symbol, []))
        ways[symbol] = canonical_sha256(way)
    return [
        Ingestion(
            str(row["symbol"]),
            str(row["session_id"]),
            ways[row["symbol"]],
            str(row["tape_sha256"]),
        )
        for row in content["sessions"]
    ]


def enter(datasets_folder: Path, rows: list[Ingestion]) -> None:
    """Append what is not in the book yet, in one durable write.

    Parameters
    ----------
    datasets_folder : Path
        ``datasets`` of a workspace.
    rows : list of Ingestion
        Sessions that were written.
    """
    with locked(datasets_folder, name=".ingestions.lock"):
        known = set(entries(datasets_folder))
        new = [row for row in rows if row not in known]
        if not new:
            return
        path = datasets_folder / BOOK_FILE
        with path.open("ab") as file:
            file.write(b"".join(canonical_json(row.as_dict()) + b"\n" for row in new))
            file.flush()
            os.fsync(file.fileno())
        sync_folder(datasets_folder)


def entries(datasets_folder: Path) -> list[Ingestion]:
    """Rows of the book, oldest first; none where nothing was ingested.

    Raises
    ------
    PlatformError
        FILE_DAMAGED when a line is not what the book holds.
    """
    path = datasets_folder / BOOK_FILE
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            rows.append(Ingestion(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise PlatformError(
                ReasonCode.FILE_DAMAGED,
                f"{path}: line {number} is no ingestion",
                next_step="restore the file from a copy; it is append-only",
            ) from error
    return rows


def first_tapes(rows: list[Ingestion]) -> dict[tuple[str, str, str], str]:
    """First tape of each symbol, session and way of ingestion."""
    found: dict[tuple[str, str, str], str] = {}
    for row in rows:
        found.setdefault((row.symbol, row.session_id, row.way), row.tape_sha256)
    return found
