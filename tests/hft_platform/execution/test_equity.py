"""Equity marked by stretches of one position is what marking book by book gives."""

import numpy as np
import pytest

from hft_platform.execution.position_store import _equity, _value
from hft_platform.records import SCALE


def book_by_book(cash, position, step, mids, multiplier):
    return [
        int(cash[at]) + _value(int(mid), int(position[at]), multiplier)
        for at, mid in zip(step, mids, strict=True)
    ]


@pytest.mark.parametrize("lot", [SCALE, SCALE // 1000 + 7, 1], ids=["lots", "odd", "one"])
@pytest.mark.parametrize("multiplier", [SCALE, 200 * SCALE, 50 * SCALE + 1], ids=str)
def test_it_is_equal_to_the_last_unit(lot, multiplier):
    rng = np.random.default_rng(7)
    for fills in (1, 2, 40):
        position = np.concatenate([[0], np.cumsum(rng.integers(-3, 4, fills)) * lot])
        cash = np.array([0, *map(int, rng.integers(-(10**15), 10**15, fills))], dtype=object)
        step = np.sort(rng.integers(0, fills + 1, 500))
        mids = rng.integers(1, 40_000 * SCALE, 500)
        found = _equity(cash, position.astype(np.int64), step, mids, multiplier)
        assert found.tolist() == book_by_book(cash, position, step, mids, multiplier)


def test_there_are_positions_that_64_bits_cannot_multiply():
    """The slow way is taken where it has to be: otherwise this overflows."""
    step, mids = np.array([1, 1]), np.array([40_000 * SCALE + 1, 39_999 * SCALE + 3])
    cash = np.array([0, 5], dtype=object)
    position = np.array([0, SCALE + 1], dtype=np.int64)
    assert (SCALE + 1) * (200 * SCALE + 1) * int(mids[0]) > 2**63
    found = _equity(cash, position, step, mids, 200 * SCALE + 1)
    assert found.tolist() == book_by_book(cash, position, step, mids, 200 * SCALE + 1)


def test_without_books_there_is_no_equity():
    none = np.zeros(0, dtype=np.int64)
    assert _equity(np.array([0], dtype=object), np.zeros(1, np.int64), none, none, SCALE).size == 0
