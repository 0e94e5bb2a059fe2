"""Records: one dtype table, and views that share memory."""

from __future__ import annotations

import numpy as np
import pytest

from hft_platform import _core, records


def test_every_layout_is_a_dtype_of_the_same_size_without_a_hole() -> None:
    for name, row in _core.record_layouts().items():
        dtype = records.DTYPES[name]
        assert dtype.itemsize == row["bytes"]
        assert sum(dtype[field].itemsize for field in dtype.names or ()) == dtype.itemsize


def test_records_of_a_tape_come_back_in_order_by_type() -> None:
    books, trades = records.empty("Book", 2), records.empty("Trade", 1)
    books["source_seq"] = [1, 3]
    trades["source_seq"] = 2
    tape = books[:1].tobytes() + trades.tobytes() + books[1:].tobytes()
    parts = records.split(tape)
    assert parts["Book"]["source_seq"].tolist() == [1, 3]
    assert parts["Trade"]["source_seq"].tolist() == [2]


def test_arrow_sees_the_same_memory() -> None:
    rows = records.empty("Trade", 3)
    view = records.arrow_view(rows)
    assert view.buffers()[1].address == rows.ctypes.data
    rows["price"][1] = 77
    assert np.frombuffer(view[1].as_py(), dtype=rows.dtype)["price"][0] == 77
    with pytest.raises(ValueError, match="contiguous"):
        records.arrow_view(rows[::2])


def test_a_torn_or_foreign_tape_is_refused() -> None:
    tape = records.empty("Trade", 1).tobytes()
    with pytest.raises(ValueError, match="byte 0"):
        records.split(tape[:-1])
    with pytest.raises(ValueError, match="byte 0"):
        records.split(b"\xff" * 96)
