"""Tapes for the log's tests, and the error they expect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hft_platform import _core, records

FIRST_TIME_NS = 1_775_000_000_000_000_000


def trades(first: int, count: int) -> bytes:
    """Trades whose `input_seq` runs from `first` on."""
    rows = records.empty("Trade", count)
    rows["input_seq"] = np.arange(first, first + count)
    rows["sequence_time_ns"] = FIRST_TIME_NS + rows["input_seq"].astype(np.int64)
    rows["price"] = rows["input_seq"].astype(np.int64) * records.SCALE
    rows["qty"] = records.SCALE
    return rows.tobytes()


def refused(call: Callable[..., Any], *arguments: object) -> tuple[int, str]:
    """Code and message of the `WalError` that `call` raises."""
    with pytest.raises(_core.WalError) as caught:
        call(*arguments)
    code, message = caught.value.args
    return code, message
