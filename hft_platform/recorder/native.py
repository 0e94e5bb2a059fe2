"""ClickHouse's Native block, encoded from numpy columns without touching a row in Python.

Why: Native takes integers as they lie in memory, so a `Decimal(18, 8)` is our int64 at 1e-8; every
other path of the client takes a number as units of 1.0 or goes through Python objects.

Invariants:
1. A block says how many rows it has, and every column holds exactly that many.
2. Bytes of a fixed-width column are little-endian copies of the array given.
3. An array whose item size is not the column's is refused before anything is sent.

It knows no table. Operator's page: `docs/store.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hft_platform.errors import PlatformError, ReasonCode

_WIDTHS = {
    "UInt8": 1, "UInt16": 2, "UInt32": 4, "UInt64": 8, "Int8": 1, "Int64": 8, "Float64": 8,
    "Decimal(18, 8)": 8, "Decimal(38, 8)": 16,
}  # fmt: skip
LOG_KIND_TYPE = "Enum8('market' = 1, 'orders' = 2)"
_LOW_CARDINALITY_VERSION = 1
# 8-bit keys, additional keys in the block, dictionary to be updated.
_LOW_CARDINALITY_FLAGS = (1 << 9) | (1 << 10)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a block: name, ClickHouse type, encoded values.

    Attributes
    ----------
    name : str
        Column of the table.
    type_name : str
        Type as ClickHouse prints it.
    data : bytes
        Encoded values.
    row_count : int
        How many values.
    """

    name: str
    type_name: str
    data: bytes
    row_count: int


def fixed(name: str, type_name: str, values: npt.NDArray[np.generic]) -> Column:
    """Encode a fixed-width column.

    Parameters
    ----------
    name : str
        Column of the table.
    type_name : str
        One of the integer, float, decimal or fixed-string types.
    values : ndarray, shape (n,)
        Items of exactly the column's width; may be strided.

    Returns
    -------
    Column
    """
    width = _width(type_name)
    if values.dtype.itemsize != width or values.ndim != 1:
        raise PlatformError(
            ReasonCode.INVARIANT_BROKEN,
            f"column {name} {type_name} takes {width} bytes a value,"
            f" was {values.dtype} of shape {values.shape}",
        )
    return Column(name, type_name, values.tobytes(), values.shape[0])


def constant(name: str, type_name: str, value: int, row_count: int) -> Column:
    """Encode one integer, repeated.

    Parameters
    ----------
    name : str
        Column of the table.
    type_name : str
        An unsigned integer type or the log kind's enum.
    value : int
        The value.
    row_count : int
        How often.

    Returns
    -------
    Column
    """
    item = value.to_bytes(_width(type_name), "little")
    return Column(name, type_name, item * row_count, row_count)


def constant_text(name: str, value: str, row_count: int) -> Column:
    """Encode one text, repeated, as `LowCardinality(String)`: a dictionary of one and n keys.

    Parameters
    ----------
    name : str
        Column of the table.
    value : str
        The text.
    row_count : int
        How often, above 0.

    Returns
    -------
    Column
    """
    head = (_LOW_CARDINALITY_VERSION, _LOW_CARDINALITY_FLAGS, 1)
    data = b"".join(
        [
            *(number.to_bytes(8, "little") for number in head),
            _text(value),
            row_count.to_bytes(8, "little"),
            bytes(row_count),
        ]
    )
    return Column(name, "LowCardinality(String)", data, row_count)


def texts(name: str, values: Sequence[str]) -> Column:
    """Encode texts one by one: for small tables (audit, ledger), never for records.

    Parameters
    ----------
    name : str
        Column of the table.
    values : sequence of str
        The texts.

    Returns
    -------
    Column
    """
    return Column(name, "String", b"".join(map(_text, values)), len(values))


def money(name: str, values: Sequence[int]) -> Column:
    """Encode money at 1e-8 as `Decimal(38, 8)`.

    Parameters
    ----------
    name : str
        Column of the table.
    values : sequence of int
        Integers at 1e-8.

    Returns
    -------
    Column
    """
    limit = 10**38
    for value in values:
        if not -limit < value < limit:
            raise PlatformError(
                ReasonCode.VALUE_OUT_OF_RANGE, f"{name} was {value}; |x| < 1e30 at 1e-8 is stored"
            )
    data = b"".join(value.to_bytes(16, "little", signed=True) for value in values)
    return Column(name, "Decimal(38, 8)", data, len(values))


def encode_block(columns: Sequence[Column]) -> bytes:
    """Put columns into one Native block.

    Parameters
    ----------
    columns : sequence of Column
        At least one, all of the same length above 0.

    Returns
    -------
    bytes
        What `FORMAT Native` takes.
    """
    counts = {column.row_count for column in columns}
    if len(counts) != 1 or 0 in counts:
        raise PlatformError(
            ReasonCode.INVARIANT_BROKEN,
            f"columns of a block have one length above 0, were {sorted(counts)}",
        )
    parts = [_varint(len(columns)), _varint(columns[0].row_count)]
    for column in columns:
        parts += [_text(column.name), _text(column.type_name), column.data]
    return b"".join(parts)


def _width(type_name: str) -> int:
    if type_name == LOG_KIND_TYPE:
        return 1
    if type_name.startswith("FixedString("):
        return int(type_name[len("FixedString(") : -1])
    return _WIDTHS[type_name]


def _text(value: str) -> bytes:
    raw = value.encode("utf-8")
    return _varint(len(raw)) + raw


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append((value & 0x7F) | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
