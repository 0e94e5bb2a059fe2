"""Numpy view of the binary records: one dtype table, derived from the Rust layouts."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hft_platform import _core

if TYPE_CHECKING:
    import pyarrow as pa

SCALE: int = _core.SCALE


def _dtype(name: str) -> np.dtype[np.void]:
    row = _core.record_layouts()[name]
    return np.dtype(
        {
            "names": [field[0] for field in row["fields"]],
            "formats": [field[1] for field in row["fields"]],
            "offsets": [field[2] for field in row["fields"]],
            "itemsize": row["bytes"],
        }
    )


DTYPES: dict[str, np.dtype[np.void]] = {name: _dtype(name) for name in _core.record_layouts()}
TYPE_CODES: dict[str, int] = {n: row["code"] for n, row in _core.record_layouts().items()}


def split(tape: bytes) -> dict[str, npt.NDArray[np.void]]:
    """Records of a tape by type name; each array is a read-only view of shape (n,)."""
    return {
        name: np.frombuffer(part, dtype=DTYPES[name])
        for name, part in _core.split_tape(tape).items()
    }


def empty(name: str, count: int) -> npt.NDArray[np.void]:
    """`count` zeroed records of type `name` with size, type and version filled in."""
    rows = np.zeros(count, dtype=DTYPES[name])
    rows["record_bytes"] = DTYPES[name].itemsize
    rows["record_type"] = TYPE_CODES[name]
    rows["schema_version"] = _core.SCHEMA_VERSION
    return rows


def arrow_view(rows: npt.NDArray[np.void]) -> pa.FixedSizeBinaryArray:
    """Arrow array over the same memory: one fixed-size binary value a record, nothing copied.

    Arrow's own columns must be contiguous, so a record's fields as columns are a copy by nature
    (`hft_platform.feed.recording.records_table` makes it); this view is for passing records on.

    Raises
    ------
    ValueError
        If `rows` is not contiguous.
    """
    import pyarrow as pa

    if not rows.flags.c_contiguous:
        raise ValueError("records must be contiguous to be viewed without a copy")
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(rows.dtype.itemsize), rows.size, [None, pa.py_buffer(rows)]
    )


def tape_sha256(tape: bytes) -> str:
    """Content hash of a tape."""
    return hashlib.sha256(tape).hexdigest()
