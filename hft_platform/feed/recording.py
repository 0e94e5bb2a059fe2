"""Recorded sessions of a workspace's datasets: find one, and load it as a verified tape.

Why: backtest, paper session and replay must read the same bytes, or parity means nothing.

Invariants:
1. A tape that comes out has the SHA-256 that its dataset was made with, or nothing comes out.
2. Records come in the order of `receive_time_ns`, which is unique within a session.
3. Nothing is written; a dataset is immutable.

It ingests nothing (see `research/data`). Operator's page: `docs/recordings.md`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hft_platform import _core, records
from hft_platform.config.yaml_files import read_yaml
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import Instrument
from hft_platform.market.sessions import Session, sessions_for

DATASET_SCHEMA = 1
LEVEL_FIELDS = ("bid_price", "bid_qty", "ask_price", "ask_qty")
HEADER_FIELDS = (
    "instrument_id",
    "source_seq",
    "exchange_time_ns",
    "receive_time_ns",
    "flags",
    "source_id",
    "trading_day",
)
TRADE_FIELDS = ("price", "qty", "trade_id", "aggressor_side")
LEVEL_COUNT = 5
FILES = {"Book": "book.parquet", "Trade": "trade.parquet"}

Records = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class RecordedSession:
    """One session of one symbol in a dataset.

    Attributes
    ----------
    symbol, session_id : str
        ``TXFD6``, ``2026-04-10/day``.
    trading_day : int
        yyyymmdd.
    start_ns, end_ns : int
        Bounds of the session, UTC; end outside.
    path : Path
        Folder with its Parquet files.
    tape_sha256 : str
        Content hash of its tape.
    record_count : int
        Records in the tape.
    """

    symbol: str
    session_id: str
    trading_day: int
    start_ns: int
    end_ns: int
    path: Path
    tape_sha256: str
    record_count: int

    def session_of(self, instrument: Instrument) -> Session:
        """Session with its phases, by the instrument's calendar of today.

        Raises
        ------
        PlatformError
            VERDICT_STALE when the calendar no longer has this session as it was recorded.
        """
        for session in sessions_for(instrument, self.start_ns, self.end_ns - 1):
            if (session.session_id, session.start_ns, session.end_ns) == (
                self.session_id,
                self.start_ns,
                self.end_ns,
            ):
                return session
        raise PlatformError(
            ReasonCode.VERDICT_STALE,
            f"calendar {instrument.calendar} has no session {self.session_id} from {self.start_ns}"
            f" to {self.end_ns}; the dataset was made with another calendar",
            next_step="ingest the recordings again",
        )


def sessions_in(dataset_folder: Path) -> list[RecordedSession]:
    """Sessions of a dataset folder, in time order.

    Raises
    ------
    PlatformError
        FILE_DAMAGED when `dataset.json` is missing or not what a dataset holds.
    """
    path = dataset_folder / "dataset.json"
    try:
        content = json.loads(path.read_bytes())
        if content["schema"] != DATASET_SCHEMA:
            raise ValueError(f"schema was {content['schema']}, expected {DATASET_SCHEMA}")
        return [_session(dataset_folder, row) for row in content["sessions"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PlatformError(
            ReasonCode.FILE_DAMAGED,
            f"{path}: is not a dataset: {type(error).__name__} {error}",
            next_step="remove the folder and ingest again",
        ) from error


def dataset_folders(workspace: Path) -> list[Path]:
    """Folders of complete datasets in a workspace, by name."""
    return sorted(path.parent for path in (workspace / "datasets").glob("[!.]*/dataset.json"))


def find_session(
    workspace: Path, name: str, *, config_path: Path | None = None, symbol: str | None = None
) -> RecordedSession:
    """Find a recorded session by its name.

    Parameters
    ----------
    workspace : Path
        Workspace folder.
    name : str
        ``2026-04-10/day``, or ``<dataset_id>:2026-04-10/day`` when several datasets have it.
    config_path : Path, optional
        Promoted config; only its instruments' symbols are read here, it is verified later.
    symbol : str, optional
        Takes the place of the config's symbols.

    Returns
    -------
    RecordedSession
        The only one that fits; equal tapes in two datasets count as one.

    Raises
    ------
    PlatformError
        CONFIG_NOT_FOUND when none fits or several differ; lists what there is.
    """
    wanted = {symbol} if symbol else _config_symbols(config_path)
    dataset_id, _, session_id = name.rpartition(":")
    held = [
        (folder.name, session)
        for folder in dataset_folders(workspace)
        if dataset_id in ("", folder.name)
        for session in sessions_in(folder)
        if not wanted or session.symbol in wanted
    ]
    found = [(folder, session) for folder, session in held if session.session_id == session_id]
    if len({(session.symbol, session.tape_sha256) for _, session in found}) == 1:
        return found[0][1]
    traded = ", ".join(sorted(wanted)) or "any symbol"
    if found:
        raise PlatformError(
            ReasonCode.CONFIG_NOT_FOUND,
            f"session {name} of {traded} is in several places: "
            + ", ".join(f"{folder} ({session.symbol})" for folder, session in found),
            next_step=f"name the dataset: --session {found[0][0]}:{session_id}",
        )
    names = sorted({session.session_id for _, session in held})
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    raise PlatformError(
        ReasonCode.CONFIG_NOT_FOUND,
        f"no recorded session {name} of {traded}; there are: {shown or 'none'}",
        next_step="choose one of these, or ingest a recording that holds it",
    )


def load_tape(session: RecordedSession) -> bytes:
    """Records of a session as one tape.

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
    tape = tape_of(read_records(session.path, "Book"), read_records(session.path, "Trade"))
    found = records.tape_sha256(tape)
    if found != session.tape_sha256:
        raise PlatformError(
            ReasonCode.FILE_DAMAGED,
            f"{session.path}: tape hash was {found[:12]}, the dataset says"
            f" {session.tape_sha256[:12]}",
            next_step="remove the dataset and ingest again; its files were changed",
        )
    return tape


def tape_of(books: Records, trades: Records) -> bytes:
    """One tape from books and trades, in the order of (`receive_time_ns`, `source_seq`)."""
    return bytes(_core.merge_tapes([books.tobytes(), trades.tobytes()]))


def read_records(folder: Path, name: str) -> Records:
    """Books (``Book``) or trades (``Trade``) of a session folder as a structured array.

    Raises
    ------
    PlatformError
        FILE_DAMAGED when the file is missing, unreadable or of another form.
    """
    path = folder / FILES[name]
    try:
        table = pq.read_table(path)
        rows = records.empty(name, table.num_rows)
        for field in (*HEADER_FIELDS, *(TRADE_FIELDS if name == "Trade" else ())):
            rows[field] = _column(table, field)
        if name == "Book":
            for field in LEVEL_FIELDS:
                for level in range(LEVEL_COUNT):
                    rows[field][:, level] = _column(table, f"{field}_{level + 1}")
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise PlatformError(
            ReasonCode.FILE_DAMAGED,
            f"{path}: cannot be read: {error}",
            next_step="remove the dataset and ingest again",
        ) from error
    return rows


def records_table(rows: Records, name: str) -> pa.Table:
    """Records as the Arrow table that a dataset stores; the inverse of `read_records`."""
    columns = {
        field: np.ascontiguousarray(rows[field])
        for field in (*HEADER_FIELDS, *(TRADE_FIELDS if name == "Trade" else ()))
    }
    if name == "Book":
        for field in LEVEL_FIELDS:
            for level in range(LEVEL_COUNT):
                columns[f"{field}_{level + 1}"] = np.ascontiguousarray(rows[field][:, level])
    return pa.table(columns)


def _column(table: pa.Table, name: str) -> npt.NDArray[Any]:  # Any: each column's own dtype
    column = table.column(name)
    if column.null_count:
        raise ValueError(f"column {name} has nulls")
    array: npt.NDArray[Any] = column.to_numpy()
    return array


def _session(folder: Path, row: dict[str, Any]) -> RecordedSession:  # Any: JSON of a dataset
    return RecordedSession(
        symbol=str(row["symbol"]),
        session_id=str(row["session_id"]),
        trading_day=int(row["trading_day"]),
        start_ns=int(row["start_ns"]),
        end_ns=int(row["end_ns"]),
        path=folder / str(row["path"]),
        tape_sha256=str(row["tape_sha256"]),
        record_count=int(row["record_count"]),
    )


def _config_symbols(config_path: Path | None) -> set[str]:
    if config_path is None:
        return set()
    content = read_yaml(config_path, code=ReasonCode.CONFIG_MALFORMED)
    rows: Iterable[Any] = content.get("instruments") or []  # Any: not verified yet
    return {str(row["symbol"]) for row in rows if isinstance(row, dict) and "symbol" in row}
