"""Datasets on disk: immutable folders named by their content, complete or absent.

Why: a verdict names the data it was made with by hash; a half-written or changed folder must
never pass for a dataset.

Invariants:
1. A dataset folder appears by one rename, after everything in it was synced.
2. Its id follows from what was read, how receive times were made, and the tapes that came out;
   it holds no clock time and no path, so the same input gives the same id.
3. Writing a dataset that is there changes nothing.
4. Every session that was written is in the workspace's book of ingestions.

It judges no rows. Operator's page: `docs/recordings.md`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow.parquet as pq

from hft_platform import _core, records
from hft_platform.config.canonical import canonical_json, canonical_sha256, sync_folder
from hft_platform.feed.recording import (
    DATASET_SCHEMA,
    FILES,
    RecordedSession,
    Records,
    records_table,
    sessions_in,
    tape_of,
)
from hft_platform.market.sessions import Session
from research.data.ingestions import enter, ingestions_of

INGESTION_VERSION = 1
"""Raised when the same input gives other records."""
COMPRESSION_LEVEL = 3

SessionRef = RecordedSession


@dataclass(frozen=True, slots=True)
class Dataset:
    """A complete dataset.

    Attributes
    ----------
    dataset_id : str
        ``<name>-<first 12 digits of sha256>``.
    sha256 : str
        Content hash.
    path : Path
        Its folder.
    symbols : tuple of str
        Sorted.
    sessions : tuple of SessionRef
        In the order of start and symbol.
    """

    dataset_id: str
    sha256: str
    path: Path
    symbols: tuple[str, ...]
    sessions: tuple[SessionRef, ...]

    @property
    def record_count(self) -> int:
        """Records in all sessions."""
        return sum(session.record_count for session in self.sessions)

    @classmethod
    def of_folder(cls, folder: Path, sha256: str) -> Dataset:
        """Dataset of a folder whose content hash is known."""
        sessions = tuple(sessions_in(folder))
        symbols = tuple(sorted({session.symbol for session in sessions}))
        return cls(folder.name, sha256, folder, symbols, sessions)


def content_sha256(content: Mapping[str, Any]) -> str:
    """Hash that a dataset is named by, from the content of its `dataset.json`.

    Parameters
    ----------
    content : mapping
        JSON content (Any: hostile when read from disk).

    Returns
    -------
    str
        Empty when a part that it is made of is missing.
    """
    fields = ("symbol", "session_id", "trading_day", "start_ns", "end_ns", "tape_sha256")
    try:
        named = {
            "schema": content["schema"],
            "ingestion_version": content["ingestion_version"],
            "record_schema": content["record_schema"],
            "receive_times": content["receive_times"]["sha256"],
            "inputs": sorted(row["sha256"] for row in content["inputs"]),
            "sessions": [[row[name] for name in fields] for row in content["sessions"]],
        }
    except (KeyError, TypeError):
        return ""
    return canonical_sha256(named)


class DatasetWriter:
    """Writes one dataset into a temporary folder and gives it its name at the end.

    Parameters
    ----------
    ws : Path
        Workspace folder.
    name : str
        First part of the dataset's id.
    """

    def __init__(self, ws: Path, name: str) -> None:
        self._home = ws / "datasets"
        self._name = name
        self._sessions: list[dict[str, Any]] = []
        self._home.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=".partial-", dir=self._home))

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def session_count(self) -> int:
        """Sessions written so far."""
        return len(self._sessions)

    def add(
        self, session: Session, symbol: str, books: Records, trades: Records, facts: dict[str, Any]
    ) -> None:
        """Write the records of one session.

        Parameters
        ----------
        session : Session
            Bounds and name.
        symbol : str
            Its symbol.
        books, trades : ndarray
            Kept records in final order.
        facts : dict
            The session's quality report, kept as `metadata.json` beside the records.
        """
        relative = Path("sessions") / symbol / session.session_id.replace("/", "_")
        folder = self._folder / relative
        folder.mkdir(parents=True)
        for name, rows in (("Book", books), ("Trade", trades)):
            pq.write_table(
                records_table(rows, name),
                folder / FILES[name],
                compression="zstd",
                compression_level=COMPRESSION_LEVEL,
                use_dictionary=["flags", "source_id", "trading_day", "instrument_id"],
            )
            _sync_file(folder / FILES[name])
        row = {
            "symbol": symbol,
            "session_id": session.session_id,
            "trading_day": session.trading_day,
            "start_ns": session.start_ns,
            "end_ns": session.end_ns,
            "path": relative.as_posix(),
            "tape_sha256": records.tape_sha256(tape_of(books, trades)),
            "record_count": len(books) + len(trades),
            "book_count": len(books),
            "trade_count": len(trades),
            "first_ns": facts["first_ns"],
            "last_ns": facts["last_ns"],
        }
        self._sessions.append(row)
        _write(folder / "metadata.json", {**facts, **row})
        sync_folder(folder)

    def finish(
        self,
        *,
        inputs: list[dict[str, Any]],
        method: dict[str, Any],
        instruments: dict[str, Any],
        quality: dict[str, Any],
    ) -> Dataset:
        """Name the dataset by its content and move it into place.

        Parameters
        ----------
        inputs : list of dict
            What was read, with hashes.
        method : dict
            How receive times were made; its hash is part of the identity.
        instruments : dict
            The instruments as they were.
        quality : dict
            Content of `quality.json`.

        Returns
        -------
        Dataset
            The new one, or the equal one that was there.
        """
        sessions = sorted(self._sessions, key=lambda row: (row["start_ns"], row["symbol"]))
        content: dict[str, Any] = {
            "schema": DATASET_SCHEMA,
            "ingestion_version": INGESTION_VERSION,
            "record_schema": _core.SCHEMA_HASH,
            "receive_times": method,
            "instruments": instruments,
            "inputs": inputs,
            "sessions": sessions,
        }
        sha256 = content_sha256(content)
        dataset_id = f"{self._name}-{sha256[:12]}"
        content |= {"dataset_id": dataset_id, "sha256": sha256}
        _write(self._folder / "quality.json", {"dataset_id": dataset_id, **quality})
        _write(self._folder / "dataset.json", content)
        for folder in (self._folder / "sessions").glob("*"):
            sync_folder(folder)
        sync_folder(self._folder / "sessions")
        sync_folder(self._folder)
        dataset = self._publish(dataset_id, sha256)
        enter(self._home, ingestions_of(content))
        return dataset

    def _publish(self, dataset_id: str, sha256: str) -> Dataset:
        target = self._home / dataset_id
        if not target.exists():
            self._folder.chmod(0o755)
            try:
                self._folder.rename(target)
            except OSError:
                if not (target / "dataset.json").exists():  # another writer was first
                    raise
            sync_folder(self._home)
        return Dataset.of_folder(target, sha256)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_bytes(canonical_json(content) + b"\n")
    _sync_file(path)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
