"""Tidy Parquet recordings: one book file and one trades file a symbol and day.

Why: the format in which recordings are kept and exchanged; columns are checked before a row is
believed, and prices become integers on the tick grid exactly.

Invariants:
1. A missing column or a wrong type is SCHEMA_MISMATCH, a file that cannot be read to its end is
   FILE_DAMAGED; both name the file, and nothing of the recording is used.
2. A float price becomes the tick that it stands for, or a counted fault; nothing is truncated.
3. Columns that are not used are named in the notes.

It judges no rows (see `checks`). Operator's page: `docs/recordings.md`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from hft_platform import records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.feed.recording import LEVEL_COUNT, Records
from hft_platform.market.instruments import Instrument
from hft_platform.records import SCALE
from research.data.rows import (
    EXCHANGE_TIME_MISSING,
    RECEIVE_TIME_SYNTHETIC,
    SIDE_UNKNOWN,
    SIMULATED_MATCH,
    SOURCE_RECORDING,
    Faults,
    Mask,
    Rows,
    mark,
)

VALUE_MAX = 10_000_000_000
GRID_TOLERANCE = 1e-9
"""Distance from the grid, in steps, that float noise may cause."""
FLOAT_ULPS = 4
"""Roundings on the way from a decimal text to a float in steps."""

_TIME = "int64 nanoseconds"
_NUMBER = "integers or float64"
_DEEPER_LEVEL = re.compile(r"(bid|ask)_(px|qty)_\d{1,3}")
_OPTIONAL = ("ts_recv", "session", "kind")
BOOK_MATCH_KINDS = ("MARKET",)
"""Values of a trade's `kind` that are matches of orders; null is one too."""


def read_parquet_pair(
    book_path: Path, trades_path: Path | None, instrument: Instrument
) -> tuple[Rows, dict[str, Any]]:
    """Read a recording of one symbol and day.

    Parameters
    ----------
    book_path, trades_path : Path
        The two files; a recording may have no trades.
    instrument : Instrument
        Gives tick and lot size.

    Returns
    -------
    rows : Rows
        In the order of `seq` in each file, with the faults of numbers that do not fit.
    notes : dict
        Ignored columns and rows whose `seq` went back.

    Raises
    ------
    PlatformError
        SCHEMA_MISMATCH or FILE_DAMAGED, naming file and column.
    """
    notes: dict[str, Any] = {}
    books, book_fault = _read_books(book_path, instrument, notes)
    trades, trade_fault = (
        _read_trades(trades_path, instrument, notes)
        if trades_path is not None
        else (records.empty("Trade", 0), np.zeros(0, dtype=np.uint16))
    )
    rows = Rows(books, trades, book_fault, trade_fault)
    _drop_copied_receive_times(rows)
    return rows, notes


def _read_books(
    path: Path, instrument: Instrument, notes: dict[str, Any]
) -> tuple[Records, Faults]:
    sides = ("bid", "ask")
    numbers = [
        f"{side}_{what}_{level}"
        for side in sides
        for what in ("px", "qty")
        for level in range(1, LEVEL_COUNT + 1)
    ]
    frame = _read(path, numbers, notes)
    rows, faults = _head("Book", frame, notes, path)
    for side in sides:
        for level in range(LEVEL_COUNT):
            price_name, qty_name = f"{side}_px_{level + 1}", f"{side}_qty_{level + 1}"
            price = _scaled(frame[price_name], instrument.tick_size, faults, is_price=True)
            qty = _scaled(frame[qty_name], instrument.lot_size, faults, is_price=False)
            qty[_is_missing(frame[price_name])] = 0  # a level without a price is no level
            rows[f"{side}_price"][:, level] = price
            rows[f"{side}_qty"][:, level] = qty
    return rows, faults


def _read_trades(
    path: Path, instrument: Instrument, notes: dict[str, Any]
) -> tuple[Records, Faults]:
    frame = _read(path, ["px", "qty", "side"], notes)
    rows, faults = _head("Trade", frame, notes, path)
    if "kind" in frame.columns:
        kind = frame["kind"].cast(pl.String)
        off_book = (kind.is_not_null() & ~kind.is_in(BOOK_MATCH_KINDS)).to_numpy()
        mark(faults, off_book, ReasonCode.NOT_BOOK_MATCH)
    rows["price"] = _scaled(frame["px"], instrument.tick_size, faults, is_price=True)
    rows["qty"] = _scaled(frame["qty"], instrument.lot_size, faults, is_price=False)
    side = frame["side"].fill_null(0).cast(pl.Int64).to_numpy()
    rows["aggressor_side"] = side
    rows["flags"][side == 0] |= SIDE_UNKNOWN
    return rows, faults


def _read(path: Path, numbers: list[str], notes: dict[str, Any]) -> pl.DataFrame:
    """Columns of a file after their types were checked, in the order of `seq`."""
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            wanted = _checked_columns(path, schema, numbers)
            table = file.read(columns=wanted)
    except (OSError, pa.ArrowException) as error:
        raise PlatformError(
            ReasonCode.FILE_DAMAGED,
            f"{path}: cannot be read as Parquet: {error}",
            next_step="fetch the file again; nothing of this source was written",
            facts={"file": str(path)},
        ) from error
    ignored = _summarized(set(schema.names) - set(wanted))
    if ignored:
        notes.setdefault("ignored_columns", {})[path.name] = ignored
    frame = pl.from_arrow(table)
    if not isinstance(frame, pl.DataFrame):  # a table is always a frame
        raise TypeError(f"{path} was not read as a table")
    seq = frame["seq"]
    if seq.null_count():
        raise _mismatch(path, "seq", "column with nulls", "integers without nulls")
    if not seq.is_sorted():
        back = int((seq.diff() < 0).sum())
        notes["reordered_rows"] = notes.get("reordered_rows", 0) + back
        frame = frame.sort("seq", maintain_order=True)
    return frame


def _summarized(names: set[str]) -> list[str]:
    deeper = {name for name in names if _DEEPER_LEVEL.fullmatch(name)}
    levels = sorted({int(name.rpartition("_")[2]) for name in deeper})
    text = [f"levels {levels[0]} to {levels[-1]}"] if levels else []
    return sorted(names - deeper) + text


def _checked_columns(path: Path, schema: pa.Schema, numbers: list[str]) -> list[str]:
    required = ["ts", "seq", *numbers]
    missing = [name for name in required if name not in schema.names]
    if missing:
        known = {*required, *_OPTIONAL}
        unknown = [name for name in schema.names if name not in known]
        raise PlatformError(
            ReasonCode.SCHEMA_MISMATCH,
            f"{path}: column{'s' if len(missing) > 1 else ''} {', '.join(missing)} missing;"
            f" not expected: {', '.join(unknown) or 'none'}",
            facts={"file": str(path), "missing": missing, "unknown": unknown},
        )
    optional = [name for name in _OPTIONAL if name in schema.names]
    for name in (*required, *optional):
        kind = schema.field(name).type
        if name in ("ts", "ts_recv"):
            fits, allowed = kind == pa.int64(), _TIME
        elif name in ("seq", "side"):
            fits, allowed = pa.types.is_integer(kind), "integers"
        elif name in ("session", "kind"):
            inner = kind.value_type if pa.types.is_dictionary(kind) else kind
            fits = pa.types.is_string(inner) or pa.types.is_large_string(inner)
            fits, allowed = fits or pa.types.is_string_view(inner), "text"
        else:
            fits, allowed = pa.types.is_integer(kind) or kind == pa.float64(), _NUMBER
        if not fits:
            raise _mismatch(path, name, str(kind), allowed)
    return [*required, *optional]


def _mismatch(path: Path, column: str, was: str, allowed: str) -> PlatformError:
    return PlatformError(
        ReasonCode.SCHEMA_MISMATCH,
        f"{path}: column {column} was {was}, allowed is {allowed}",
        facts={"file": str(path), "column": column},
    )


def _head(
    name: str, frame: pl.DataFrame, notes: dict[str, Any], path: Path
) -> tuple[Records, Faults]:
    rows = records.empty(name, frame.height)
    faults = np.zeros(frame.height, dtype=np.uint16)
    rows["source_id"] = SOURCE_RECORDING
    seq = frame["seq"].cast(pl.Int64, strict=False).fill_null(-1).to_numpy()
    mark(faults, seq < 0, ReasonCode.VALUE_OUT_OF_RANGE)
    rows["source_seq"] = np.maximum(seq, 0).astype(np.uint64)
    rows["exchange_time_ns"] = frame["ts"].fill_null(0).to_numpy()
    rows["flags"][frame["ts"].is_null().to_numpy()] |= EXCHANGE_TIME_MISSING
    if "ts_recv" in frame.columns:
        rows["receive_time_ns"] = frame["ts_recv"].fill_null(0).to_numpy()
        rows["flags"][frame["ts_recv"].is_null().to_numpy()] |= RECEIVE_TIME_SYNTHETIC
    else:
        rows["flags"] |= RECEIVE_TIME_SYNTHETIC
    if "session" in frame.columns:
        label = frame["session"].cast(pl.String)
        rows["flags"][(label == "off").fill_null(False).to_numpy()] |= SIMULATED_MATCH
    both = RECEIVE_TIME_SYNTHETIC | EXCHANGE_TIME_MISSING
    timeless = (rows["flags"] & both) == both
    if timeless.any():
        mark(faults, timeless, ReasonCode.VALUE_OUT_OF_RANGE)
        notes.setdefault("rows_without_time", {})[path.name] = int(timeless.sum())
    return rows, faults


def _is_missing(column: pl.Series) -> Mask:
    missing = column.is_null()
    if column.dtype == pl.Float64:
        missing |= column.is_nan().fill_null(False)
    mask: Mask = missing.to_numpy()
    return mask


def _scaled(
    column: pl.Series, step: int, faults: Faults, *, is_price: bool
) -> npt.NDArray[np.int64]:
    """Column as integers at 1e-8 on the grid of `step`; what does not fit becomes a fault and 0."""
    off_grid = ReasonCode.PRICE_OFF_TICK_GRID if is_price else ReasonCode.QTY_OFF_LOT_GRID
    if column.dtype != pl.Float64:
        whole = column.cast(pl.Int64, strict=False)
        overflow = (whole.is_null() & column.is_not_null()).to_numpy()
        integers = whole.fill_null(0).to_numpy()
        too_large = overflow | (integers >= VALUE_MAX) | (integers <= -VALUE_MAX)
        mark(faults, too_large, ReasonCode.VALUE_OUT_OF_RANGE)
        return np.where(too_large, 0, integers) * SCALE
    values = column.fill_null(0.0).to_numpy()
    values = np.where(np.isnan(values), 0.0, values)
    too_large = ~(np.abs(values) < VALUE_MAX)
    mark(faults, too_large, ReasonCode.VALUE_OUT_OF_RANGE)
    values = np.where(too_large, 0.0, values)
    steps = values * (SCALE / step)
    nearest = np.rint(steps)
    noise = GRID_TOLERANCE + FLOAT_ULPS * np.finfo(np.float64).eps * np.abs(steps)
    mark(faults, np.abs(steps - nearest) > noise, off_grid)
    return nearest.astype(np.int64) * step


def _drop_copied_receive_times(rows: Rows) -> None:
    """Treat receive times that only repeat the exchange times as missing."""
    for stream, _ in rows.streams():
        given = (stream["flags"] & RECEIVE_TIME_SYNTHETIC) == 0
        if bool((given & (stream["receive_time_ns"] != stream["exchange_time_ns"])).any()):
            return
    for stream, _ in rows.streams():
        copied = stream["exchange_time_ns"] != 0
        stream["flags"][copied] |= RECEIVE_TIME_SYNTHETIC
        stream["receive_time_ns"][copied] = 0
