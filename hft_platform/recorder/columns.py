"""Records as columns: which field goes into which column of which table, and back.

Why: the store holds the record's own integers. A price of 35,123.5 is 3512350000000 in the engine,
in the log and in the column; ClickHouse only shows the decimal point.

Invariants:
1. The table of columns is derived from the record layouts; a test holds the SQL to it.
2. Decimal columns take |x| < 1e10 (1e18 at the project's scale), checked for a whole segment
   before the first row of it is sent.
3. Reading back gives the record's bytes again, reserved fields included.

It sends nothing. Operator's page: `docs/store.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hft_platform import records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder import native

Records = npt.NDArray[np.void]

LOG_KINDS = {"market": 1, "orders": 2}
DECIMAL_LIMIT = 10**18
"""Decimal(18, 8) holds |x| < 1e10, which is this at the project's scale."""

TABLES: dict[str, str] = {
    "Book": "hft.market_books",
    "Trade": "hft.market_trades",
    "Timer": "hft.timers",
    "Command": "hft.commands",
    "ConfigSwitch": "hft.config_switches",
    "Broker": "hft.broker_events",
    "Instrument": "hft.instruments",
    "Account": "hft.account_answers",
    "Health": "hft.health_reports",
    "Intent": "hft.intents",
    "Shed": "hft.shed_ranges",
    "Epoch": "hft.epochs",
    "Route": "hft.order_routes",
    "Decision": "hft.decisions",
}

_DECIMAL_FIELDS: dict[str, frozenset[str]] = {
    "Book": frozenset({"bid_price", "bid_qty", "ask_price", "ask_qty"}),
    "Trade": frozenset({"price", "qty"}),
    "Broker": frozenset({"price", "qty", "remaining_qty"}),
    "Instrument": frozenset({"tick_size", "multiplier"}),
    "Account": frozenset({"net_position_qty"}),
    "Intent": frozenset({"price", "qty"}),
    "Decision": frozenset(
        {"price", "qty", "reference_price", "position_qty", "open_buy_qty", "open_sell_qty"}
    ),
}
# Known from the table, or always zero (checked); not stored.
_IMPLIED = ("record_bytes", "record_type", "reserved_a", "reserved_b")
_SCALAR_TYPES = {
    "|u1": "UInt8", "<u2": "UInt16", "<u4": "UInt32", "<u8": "UInt64", "<i8": "Int64",
    "<f8": "Float64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FieldColumn:
    """One stored column of a record field.

    Attributes
    ----------
    name : str
        Column name; levels are numbered from 1 as traders do.
    type_name : str
        ClickHouse type.
    field : str
        Record field.
    level_index : int or None
        Place inside an array field.
    """

    name: str
    type_name: str
    field: str
    level_index: int | None = None

    @property
    def is_decimal(self) -> bool:
        """True for prices and quantities."""
        return self.type_name.startswith("Decimal")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where records come from; stored with every row.

    Attributes
    ----------
    run_id : str
        Session folder.
    wal_id : int
        Id of the log.
    log_kind : str
        ``market`` or ``orders``.
    segment_id : int
        Segment of the log.
    """

    run_id: str
    wal_id: int
    log_kind: str
    segment_id: int


def _type_of(record_name: str, field: str, base: np.dtype[Any]) -> str:
    if base.kind in "SV":
        return f"FixedString({base.itemsize})"
    if field in _DECIMAL_FIELDS.get(record_name, frozenset()):
        return "Decimal(18, 8)"
    return _SCALAR_TYPES[base.str]


def _columns_of(record_name: str) -> tuple[FieldColumn, ...]:
    dtype = records.DTYPES[record_name]
    columns: list[FieldColumn] = []
    for field in dtype.names or ():
        if field in _IMPLIED:
            continue
        base, shape = dtype[field].base, dtype[field].shape
        type_name = _type_of(record_name, field, base)
        if shape:
            columns += [
                FieldColumn(f"{field}_{index + 1}", type_name, field, index)
                for index in range(shape[0])
            ]
        else:
            columns.append(FieldColumn(field, type_name, field))
    return tuple(columns)


COLUMNS: dict[str, tuple[FieldColumn, ...]] = {name: _columns_of(name) for name in TABLES}
"""Stored columns of each record type, behind the columns of `ORIGIN_COLUMNS`."""

ORIGIN_COLUMNS: tuple[tuple[str, str], ...] = (
    ("run_id", "LowCardinality(String)"),
    ("wal_id", "UInt32"),
    ("log_kind", native.LOG_KIND_TYPE),
    ("segment_id", "UInt32"),
    ("seq", "UInt64"),
)


def check_records(record_name: str, rows: Records) -> None:
    """Refuse records that the store could not give back exactly.

    Parameters
    ----------
    record_name : str
        Record type.
    rows : ndarray of the type's dtype, shape (n,)
        Records of one segment.

    Raises
    ------
    PlatformError
        VALUE_OUT_OF_RANGE naming field, value and place; WAL_SCHEMA_MISMATCH when a reserved
        field is in use, which a later schema would do.
    """
    if rows.size == 0:
        return
    for field in ("reserved_a", "reserved_b"):
        if rows[field].any():
            raise PlatformError(
                ReasonCode.WAL_SCHEMA_MISMATCH,
                f"{record_name}.{field} is not 0, so this version cannot store the record",
            )
    for field in sorted(_DECIMAL_FIELDS.get(record_name, ())):
        values = rows[field]
        if int(values.max()) < DECIMAL_LIMIT and int(values.min()) > -DECIMAL_LIMIT:
            continue
        flat = values.reshape(rows.size, -1)
        bad = np.argwhere((flat >= DECIMAL_LIMIT) | (flat <= -DECIMAL_LIMIT))[0]
        raise PlatformError(
            ReasonCode.VALUE_OUT_OF_RANGE,
            f"{record_name}.{field} was {int(flat[bad[0], bad[1]])} at input_seq"
            f" {int(rows['input_seq'][bad[0]])}; Decimal(18, 8) holds |x| < 1e10",
            facts={"field": field, "value": int(flat[bad[0], bad[1]])},
        )


def encode_records(
    record_name: str, rows: Records, *, origin: Origin, seqs: npt.NDArray[np.uint64]
) -> bytes:
    """Encode records of one type as a Native block for their table.

    Parameters
    ----------
    record_name : str
        Record type.
    rows : ndarray of the type's dtype, shape (n,)
        Records that `check_records` accepted; n above 0.
    origin : Origin
        Session, log and segment.
    seqs : ndarray of uint64, shape (n,)
        Sequence of each record in its log.

    Returns
    -------
    bytes
        One Native block.
    """
    count = rows.size
    columns = [
        native.constant_text("run_id", origin.run_id, count),
        native.constant("wal_id", "UInt32", origin.wal_id, count),
        native.constant("log_kind", native.LOG_KIND_TYPE, LOG_KINDS[origin.log_kind], count),
        native.constant("segment_id", "UInt32", origin.segment_id, count),
        native.fixed("seq", "UInt64", seqs),
    ]
    for column in COLUMNS[record_name]:
        values = rows[column.field]
        if column.level_index is not None:
            values = values[:, column.level_index]
        columns.append(native.fixed(column.name, column.type_name, values))
    return native.encode_block(columns)


def column_names(record_name: str) -> list[str]:
    """Columns that `encode_records` sends, in its order."""
    return [name for name, _ in ORIGIN_COLUMNS] + [c.name for c in COLUMNS[record_name]]


def record_select(record_name: str) -> str:
    """Build the SELECT list whose `RowBinary` output is the record's bytes followed by `seq`."""
    dtype = records.DTYPES[record_name]
    stored: dict[str, list[FieldColumn]] = {}
    for column in COLUMNS[record_name]:
        stored.setdefault(column.field, []).append(column)
    implied = {
        "record_bytes": f"toUInt16({dtype.itemsize})",
        "record_type": f"toUInt8({records.TYPE_CODES[record_name]})",
        "reserved_a": "toUInt16(0)",
        "reserved_b": "toUInt32(0)",
    }
    parts: list[str] = []
    for field in dtype.names or ():
        if field in implied:
            parts.append(implied[field])
            continue
        parts += [
            f"reinterpretAsInt64(`{c.name}`)" if c.is_decimal else f"`{c.name}`"
            for c in stored[field]
        ]
    return ", ".join([*parts, "seq"])


def decode_records(record_name: str, data: bytes) -> tuple[Records, npt.NDArray[np.uint64]]:
    """Take the `RowBinary` answer to `record_select` apart.

    Parameters
    ----------
    record_name : str
        Record type.
    data : bytes
        The answer.

    Returns
    -------
    rows : ndarray of the type's dtype, shape (n,)
    seqs : ndarray of uint64, shape (n,)
    """
    dtype = records.DTYPES[record_name]
    both = np.dtype([("record", dtype), ("seq", "<u8")])
    table = np.frombuffer(data, dtype=both)
    return np.ascontiguousarray(table["record"]), np.ascontiguousarray(table["seq"])
