"""Catalog: open what was ingested, and look at it through SQL.

Why: gates, reports and notebooks find datasets by what they hold, never by a folder's name.

Invariants:
1. Only complete datasets are seen; a folder without its `dataset.json` does not exist.
2. A dataset whose content hash does not follow from its `dataset.json` is refused.
3. The SQL lens reads; it holds no data of its own.

It ingests nothing. Operator's page: `docs/recordings.md`.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.feed.recording import FILES, RecordedSession, dataset_folders, records_table
from hft_platform.feed.recording import load_tape as _load_tape
from hft_platform.records import empty
from research.data import quality
from research.data.datasets import Dataset, SessionRef, content_sha256

__all__ = [
    "Dataset",
    "SessionRef",
    "connect",
    "dataset_of",
    "datasets",
    "description",
    "load_tape",
    "quality_report",
    "quality_rows",
    "session_of_tape",
    "tapes_kept",
]

GET_DATA = (
    "make demo makes generated markets, in the workspace build/demo/generator; recordings: "
    "HFT_WORKSPACE=FOLDER HFT_SOURCE=RECORDINGS dagster asset materialize "
    "-m dagster_project.definitions --select recordings,datasets,alpha_registry "
    "(docs/driving-the-loop.md)"
)
"""How a workspace comes by data: no command of `hft-research` ingests."""
TAPE_BYTES_KEPT_MAX = 256 << 20
"""Bytes of tapes held for one purpose: a dozen full sessions."""


class _KeptTapes:
    """Verified tapes by session folder and hash, the least recently used dropped first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tapes: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._bytes = 0

    def load(self, session: RecordedSession) -> bytes:
        key = (str(session.path), session.tape_sha256)
        with self._lock:
            if key in self._tapes:
                self._tapes.move_to_end(key)
                return self._tapes[key]
        tape = _load_tape(session)
        with self._lock:
            if key not in self._tapes and len(tape) <= TAPE_BYTES_KEPT_MAX:
                self._tapes[key] = tape
                self._bytes += len(tape)
            while self._bytes > TAPE_BYTES_KEPT_MAX:
                self._bytes -= len(self._tapes.popitem(last=False)[1])
        return tape


_KEPT: list[_KeptTapes] = []


@contextlib.contextmanager
def tapes_kept() -> Iterator[None]:
    """Read and verify each tape once for everything inside, in whatever thread it is asked for."""
    kept = _KEPT[-1] if _KEPT else _KeptTapes()
    _KEPT.append(kept)
    try:
        yield
    finally:
        _KEPT.pop()


def load_tape(session: RecordedSession) -> bytes:
    """Records of a session as one tape, verified against the dataset.

    Parameters
    ----------
    session : RecordedSession
        From a dataset.

    Returns
    -------
    bytes
        Books and trades in the order of their receive time.

    Raises
    ------
    PlatformError
        FILE_DAMAGED when a file is missing, unreadable or of another form, or when the tape is
        not the one the dataset was made with.
    """
    return _KEPT[-1].load(session) if _KEPT else _load_tape(session)


def datasets(ws: Path) -> list[Dataset]:
    """Complete datasets of a workspace, by id."""
    return [_open(folder) for folder in dataset_folders(ws)]


def dataset_of(ws: Path, symbols: Iterable[str]) -> Dataset:
    """The one dataset that holds any of some symbols.

    Raises
    ------
    PlatformError
        UNKNOWN_INSTRUMENT when none or several do.
    """
    wanted = set(symbols)
    found = [dataset for dataset in datasets(ws) if wanted & set(dataset.symbols)]
    if len(found) == 1:
        return found[0]
    names = ": " + ", ".join(dataset.dataset_id for dataset in found) if found else ""
    raise PlatformError(
        ReasonCode.UNKNOWN_INSTRUMENT,
        f"{'several datasets' if found else 'no dataset'} in {ws} "
        f"{'hold' if found else 'holds'} {', '.join(sorted(wanted))}{names}",
        next_step="name the dataset" if found else GET_DATA,
        why="an alpha is judged by the sessions of one dataset of its workspace",
    )


def session_of_tape(ws: Path, tape_sha256: str) -> SessionRef:
    """Recorded session with a tape hash.

    Raises
    ------
    PlatformError
        VERDICT_STALE when no dataset holds it.
    """
    for dataset in datasets(ws):
        for session in dataset.sessions:
            if session.tape_sha256 == tape_sha256:
                return session
    raise PlatformError(
        ReasonCode.VERDICT_STALE,
        f"no dataset in {ws} holds a session with tape hash {tape_sha256[:12]}",
        next_step="ingest the recording again",
    )


def description(dataset: Dataset) -> dict[str, Any]:
    """Content of a dataset's `dataset.json`: what was read, how, and what came out."""
    return _json(dataset.path / "dataset.json")


def quality_report(dataset: Dataset) -> dict[str, Any]:
    """Content of a dataset's `quality.json`."""
    return _json(dataset.path / "quality.json")


def quality_rows(dataset: Dataset) -> list[dict[str, Any]]:
    """Quality report as flat rows for a table, one a session."""
    return quality.table_rows(quality_report(dataset))


def connect(ws: Path) -> duckdb.DuckDBPyConnection:
    """Open an SQL lens over the datasets of a workspace.

    Parameters
    ----------
    ws : Path
        Workspace folder.

    Returns
    -------
    DuckDBPyConnection
        In memory, with the table `sessions` and the views `books` and `trades` (columns of the
        records, behind `dataset_id`, `symbol`, `session_id`; prices and quantities are integers
        at 1e-8). Close it after use.
    """
    rows = [
        {
            "dataset_id": dataset.dataset_id,
            "symbol": session.symbol,
            "session_id": session.session_id,
            "trading_day": session.trading_day,
            "start_ns": session.start_ns,
            "end_ns": session.end_ns,
            "record_count": session.record_count,
            "tape_sha256": session.tape_sha256,
            "folder": str(session.path),
        }
        for dataset in datasets(ws)
        for session in dataset.sessions
    ]
    connection = duckdb.connect(":memory:")
    schema = pa.schema(
        [(name, pa.string()) for name in ("dataset_id", "symbol", "session_id")]
        + [(name, pa.int64()) for name in ("trading_day", "start_ns", "end_ns", "record_count")]
        + [(name, pa.string()) for name in ("tape_sha256", "folder")]
    )
    connection.register("sessions_table", pa.Table.from_pylist(rows, schema=schema))
    connection.execute("CREATE TABLE sessions AS SELECT * FROM sessions_table")
    connection.unregister("sessions_table")
    for view, name in (("books", "Book"), ("trades", "Trade")):
        _create_view(connection, view, name, [f"{row['folder']}/{FILES[name]}" for row in rows])
    return connection


def _create_view(
    connection: duckdb.DuckDBPyConnection, view: str, name: str, files: list[str]
) -> None:
    if not files:
        connection.register(f"{view}_empty", records_table(empty(name, 0), name))
        connection.execute(
            f"CREATE TABLE {view} AS SELECT s.dataset_id, s.symbol, s.session_id, r.* "  # noqa: S608
            f"FROM {view}_empty r, sessions s"
        )
        return
    listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    connection.execute(
        f"CREATE VIEW {view} AS SELECT s.dataset_id, s.symbol, s.session_id, "  # noqa: S608
        f"r.* EXCLUDE (filename) FROM read_parquet([{listed}], filename = true) r "
        f"JOIN sessions s ON r.filename = s.folder || '/{FILES[name]}'"
    )


def _open(folder: Path) -> Dataset:
    content = _json(folder / "dataset.json")
    sha256 = str(content.get("sha256", ""))
    if not sha256 or not folder.name.endswith(f"-{sha256[:12]}"):
        raise PlatformError(
            ReasonCode.FILE_DAMAGED,
            f"{folder}: folder name does not end with the content hash, {sha256[:12] or 'missing'}",
            next_step="remove the folder and ingest again",
        )
    dataset = Dataset.of_folder(folder, sha256)
    if content_sha256(content) != sha256:
        raise PlatformError(
            ReasonCode.FILE_DAMAGED,
            f"{folder}: dataset.json is not what its hash {sha256[:12]} was made of",
            next_step="remove the folder and ingest again; find out who changed it",
        )
    return dataset


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PlatformError(
            ReasonCode.FILE_DAMAGED,
            f"{path}: cannot be read: {error}",
            next_step="remove the dataset and ingest again",
        ) from error
    if not isinstance(content, dict):
        raise PlatformError(ReasonCode.FILE_DAMAGED, f"{path}: is no JSON object")
    return content
