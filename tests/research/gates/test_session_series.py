"""Exposure and volatility of sessions: exact on made-up paths, and blind to what they must be."""

import numpy as np
import pytest

from research.gates.backtests import PositionPath, RunOutput
from research.gates.evidence import SessionRun
from research.gates.session_series import (
    PARTS,
    aligned,
    part_of_day,
    positions_of,
    regime_of,
    tercile_bounds,
    volatility_of,
    volatility_rows,
)

SECOND = 1_000_000_000


def output(steps, positions, *, day=20260105, part="day", symbol="A", multiplier=1, mids=None):
    mid = np.full(161, 100, dtype=np.int64) if mids is None else np.asarray(mids, dtype=np.int64)
    run = SessionRun(f"{day}/{part}", symbol, day, 0, 0, len(steps), 0, 0, ())
    path = PositionPath(
        step_offset_ns=np.asarray(steps, dtype=np.int64) * SECOND,
        position=np.asarray(positions, dtype=np.int64),
        mid_offset_ns=np.arange(mid.size, dtype=np.int64) * SECOND,
        mid=mid,
        multiplier=multiplier,
    )
    return RunOutput(run, path, None)


def only(made):
    (row,) = made["sessions"].values()
    return row


def test_exposure_is_the_time_weighted_mean_of_each_part():
    # 160 s in 16 parts of 10 s: long 2 from 5 s to 30 s, short 4 from 30 s to the end.
    row = only(positions_of([output([5, 30], [2, -4])]))
    assert len(row) == PARTS
    assert row == [250, 500, 500] + [-1000] * 13


def test_a_slow_reference_gives_the_same_exposure():
    rng = np.random.default_rng(1)
    steps = np.sort(rng.integers(0, 160, 40))
    held = rng.integers(-5, 6, 40)
    grid = np.arange(0, 160, 0.001)
    at = np.searchsorted(steps, grid, side="right") - 1
    path = np.where(at >= 0, held[np.maximum(at, 0)], 0)
    expected = path.reshape(PARTS, -1).mean(axis=1) / np.abs(held).max() * 1000
    assert only(positions_of([output(steps, held)])) == pytest.approx(expected, abs=1.0)


def test_instruments_of_one_session_are_added_in_money():
    made = positions_of(
        [output([0], [1], symbol="A", multiplier=3), output([0], [-1], symbol="B", multiplier=1)]
    )
    assert only(made) == [667] * PARTS


def test_an_alpha_that_never_traded_has_no_exposure():
    assert only(positions_of([output([], [])])) == [0] * PARTS


def test_only_sessions_that_both_were_judged_on_are_laid_over_each_other():
    left = positions_of([output([0], [1], day=20260105 + d) for d in range(3)])
    right = positions_of([output([0], [-1], day=20260106 + d) for d in range(3)])
    mine, theirs = aligned(left, right)
    assert mine == [1000.0] * 2 * PARTS
    assert theirs == [-1000.0] * 2 * PARTS
    assert aligned(left, {}) == ([], [])
    assert aligned({}, {"parts": 8, "sessions": {}}) == ([], [])


def test_volatility_is_that_of_the_walk_that_made_the_mids_whatever_was_traded():
    rng = np.random.default_rng(2)
    changes = rng.normal(0, 2e-4, 20_000)
    mid = (1e9 * np.exp(np.cumsum(changes))).astype(np.int64)
    offset = np.arange(mid.size, dtype=np.int64) * SECOND
    per_hour = 2e-4 * np.sqrt(3600) * 1000
    assert volatility_of(offset, mid) == pytest.approx(per_hour, rel=0.05)
    assert volatility_of(offset[:12], mid[:12]) is None
    assert volatility_of(offset, np.zeros_like(mid)) is None
    assert volatility_of(offset[:0], mid[:0]) is None


def test_a_bounce_between_bid_and_ask_within_the_step_is_not_volatility():
    mid = np.where(np.arange(1000) % 2 == 0, 1_000_000, 1_000_100)
    offset = np.arange(1000, dtype=np.int64) * (SECOND // 2)
    assert volatility_of(offset, mid) == 0.0


def test_terciles_name_a_third_of_the_sessions_each():
    values = [float(v) for v in range(1, 10)]
    bounds = tercile_bounds(values)
    names = [regime_of(v, bounds) for v in values]
    assert names == ["calm"] * 3 + ["usual"] * 3 + ["wild"] * 3
    assert tercile_bounds([1.0, None, 2.0]) is None
    assert regime_of(None, bounds) is None
    assert regime_of(1.0, None) is None


def test_rows_keep_in_sample_apart_from_out_of_sample():
    runs = [output([0], [1], day=20260105 + d, part="night") for d in range(3)]
    rows = volatility_rows(runs, in_sample=2)
    assert list(rows["in_sample"]) == ["A 20260105 20260105/night", "A 20260106 20260106/night"]
    assert list(rows["out_of_sample"]) == ["A 20260107 20260107/night"]
    assert part_of_day(next(iter(rows["in_sample"]))) == "night"
    assert part_of_day("2026-01-05/day") == "day"
