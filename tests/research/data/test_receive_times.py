"""Receive times: properties of the order, the jitter and the clock correction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hft_platform import records
from research.data.checks import _longest_in_order, check_order
from research.data.receive_times import LATENCY_FLOOR_NS, _jitter, clock_offset, order_rows
from research.data.rows import RECEIVE_TIME_SYNTHETIC, Rows


def rows_of(book_times: list[tuple[int, int]], trade_times: list[tuple[int, int]]) -> Rows:
    """Rows with (exchange, receive) times; a receive time of 0 is missing."""
    streams = []
    for name, times in (("Book", book_times), ("Trade", trade_times)):
        stream = records.empty(name, len(times))
        stream["source_seq"] = np.arange(len(times))
        stream["exchange_time_ns"] = [time for time, _ in times]
        stream["receive_time_ns"] = [receive for _, receive in times]
        stream["flags"][stream["receive_time_ns"] == 0] = RECEIVE_TIME_SYNTHETIC
        streams.append(stream)
    return Rows.of(*streams)


BASE = 1_700_000_000_000_000_000
TIMES = st.lists(
    st.tuples(
        st.integers(BASE, BASE + 10**7), st.just(0) | st.integers(BASE - 10**7, BASE + 10**8)
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(TIMES, TIMES)
def test_invariant_1_receive_times_increase_and_follow_exchange_times(
    books: list[tuple[int, int]], trades: list[tuple[int, int]]
) -> None:
    rows = rows_of(books, trades)
    ordered = order_rows(rows, symbol="X", session_id="s", seed=1)
    assert sorted(ordered.order.tolist()) == list(range(len(rows)))
    assert (np.diff(ordered.receive_time_ns) > 0).all()
    exchange = np.concatenate([rows.books["exchange_time_ns"], rows.trades["exchange_time_ns"]])
    assert (ordered.receive_time_ns - exchange[ordered.order] >= LATENCY_FLOOR_NS).all()


def test_the_jitter_is_splitmix64_and_stays_in_its_range() -> None:
    """First outputs of splitmix64 for the seed that the key hashes to, from a plain loop."""
    import hashlib

    state = int.from_bytes(hashlib.sha256(b"1|X|s").digest()[:8], "little")
    expected, mask = [], (1 << 64) - 1
    for _ in range(5):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        expected.append((z ^ (z >> 31)) % 2_000_000)
    assert _jitter(5, "1|X|s").tolist() == expected
    many = _jitter(50_000, "1|X|s")
    assert many.min() >= 0
    assert many.max() < 2_000_000
    assert many.mean() == pytest.approx(1_000_000, rel=0.01)


def test_one_wild_row_does_not_move_the_clock() -> None:
    latency = np.full(1000, 2_000_000, dtype=np.int64)
    assert clock_offset(latency) == 0
    latency[17] = -9_000_000_000
    assert clock_offset(latency) == 0
    assert clock_offset(latency - 1_300_000_000) == 1_298_500_000
    assert clock_offset(np.array([], dtype=np.int64)) == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=12))
def test_invariant_3_of_checks_the_fewest_rows_are_dropped(times: list[int]) -> None:
    kept = _longest_in_order(np.array(times, dtype=np.int64))
    values = [times[place] for place in kept]
    assert values == sorted(values)
    best = max(
        bin(mask).count("1")
        for mask in range(1 << len(times))
        if (picked := [t for i, t in enumerate(times) if mask >> i & 1]) == sorted(picked)
    )
    assert len(kept) == best


def test_order_is_checked_among_kept_rows_only() -> None:
    rows = rows_of([(5, 0), (99, 0), (6, 0), (7, 0)], [])
    rows.book_fault[1] = 101
    check_order(rows.books, rows.book_fault)
    assert rows.book_fault.tolist() == [0, 101, 0, 0]
