"""Features against slow numpy oracles that follow the formulas word by word."""

from __future__ import annotations

import numpy as np
import pytest

from hft_platform import _core, records
from tests.rust_core import engine_tapes as tapes
from tests.rust_core.engine_tapes import SCALE, SECOND

# The engine multiplies one exponential step by step, the oracle sums exponentials directly.
TOLERANCE = 1e-9


def features_of(tape: bytes) -> tuple[dict[str, np.ndarray], np.ndarray]:
    names, values, times = _core.evaluate_features(tape, tapes.text(tapes.config("k")), 0)
    table = np.frombuffer(values, dtype="<f8").reshape(-1, len(names))
    return dict(zip(names, table.T, strict=True)), np.frombuffer(times, dtype="<i8")


def decayed(times: np.ndarray, steps: np.ndarray, at: np.ndarray, tau_s: float) -> np.ndarray:
    """Sum of `steps` with weight exp(-age / tau) at each of `at`."""
    age = (at[:, None] - times[None, :]) / (tau_s * SECOND)
    weights = np.where(age >= 0, np.exp(-np.maximum(age, 0)), 0.0)
    return np.asarray(weights @ steps)


def held_mean(times: np.ndarray, values: np.ndarray, tau_s: float) -> np.ndarray:
    """Exponential mean in which each value holds until the next one."""
    mean = np.empty_like(values)
    mean[0] = values[0]
    for row in range(1, len(values)):
        keep = np.exp(-(times[row] - times[row - 1]) / (tau_s * SECOND))
        mean[row] = values[row - 1] + (mean[row - 1] - values[row - 1]) * keep
    return mean


def flow(rows: np.ndarray, level: int) -> np.ndarray:
    """Order flow imbalance of one level, zero at the first row."""
    bid, bid_qty = rows["bid_price"][:, level], rows["bid_qty"][:, level].astype(float)
    ask, ask_qty = rows["ask_price"][:, level], rows["ask_qty"][:, level].astype(float)
    step = (
        (bid[1:] >= bid[:-1]) * bid_qty[1:]
        - (bid[1:] <= bid[:-1]) * bid_qty[:-1]
        - (ask[1:] <= ask[:-1]) * ask_qty[1:]
        + (ask[1:] >= ask[:-1]) * ask_qty[:-1]
    )
    return np.concatenate([[0.0], step])


def same(actual: np.ndarray, expected: np.ndarray, times: np.ndarray, warm_up_s: float) -> None:
    warm = times - times[0] >= warm_up_s * SECOND
    assert np.isnan(actual[~warm]).all()
    assert warm.sum() > 100
    np.testing.assert_allclose(actual[warm], expected[warm], rtol=TOLERANCE, atol=TOLERANCE)


def test_the_registry_is_complete_and_ids_are_places() -> None:
    rows = _core.feature_registry()
    assert [row["id"] for row in rows] == list(range(len(rows)))
    assert len({row["name"] for row in rows}) == len(rows)
    for row in rows:
        assert set(row) == {"id", "name", "unit", "formula", "warm_up_ns", "source", "reset"}
        assert all(row[key] for key in ("name", "unit", "formula", "source", "reset"))


def test_book_features_follow_their_formulas() -> None:
    rows = tapes.books(900)
    values, times = features_of(rows.tobytes())
    bid_qty, ask_qty = rows["bid_qty"].astype(float), rows["ask_qty"].astype(float)
    best = bid_qty[:, 0] + ask_qty[:, 0]
    imbalance = (bid_qty[:, 0] - ask_qty[:, 0]) / best
    spread = (rows["ask_price"][:, 0] - rows["bid_price"][:, 0]) / SCALE
    mid = (rows["ask_price"][:, 0] + rows["bid_price"][:, 0]) / (2 * SCALE)
    behind_bid, behind_ask = bid_qty[:, 1:].sum(axis=1), ask_qty[:, 1:].sum(axis=1)
    moves = np.concatenate([[0.0], np.diff(mid)])
    depth_l1 = held_mean(times, best / 2, 10)
    depth_l5 = held_mean(times, (bid_qty + ask_qty).sum(axis=1) / 10, 10)
    flows = [flow(rows, level) for level in range(5)]
    same(values["spread_ticks"], spread, times, 0)
    same(values["imbalance_l1"], imbalance, times, 0)
    same(
        values["imbalance_l2_5"],
        (behind_bid - behind_ask) / (behind_bid + behind_ask),
        times,
        0,
    )
    weighted = rows["ask_price"][:, 0] * bid_qty[:, 0] + rows["bid_price"][:, 0] * ask_qty[:, 0]
    same(values["microprice_dev"], weighted / best / SCALE - mid, times, 0)
    same(values["ofi_l1_1s"], decayed(times, flows[0], times, 1) / depth_l1, times, 1)
    same(values["ofi_l5_5s"], decayed(times, np.sum(flows, axis=0), times, 5) / depth_l5, times, 5)
    same(values["return_1s"], decayed(times, moves, times, 1), times, 1)
    same(values["return_10s"], mid - held_mean_of_moves(times, mid, 10), times, 10)
    same(values["volatility_10s"], np.sqrt(decayed(times, moves**2, times, 10)), times, 10)
    same(values["imbalance_ema_2s"], held_mean(times, imbalance, 2), times, 2)


def held_mean_of_moves(times: np.ndarray, mid: np.ndarray, tau_s: float) -> np.ndarray:
    """Exponential mean of the mid: the return feature is the mid's distance from it."""
    return held_mean(times, mid, tau_s)


def test_trade_features_follow_their_formulas() -> None:
    tape = tapes.day(900)
    parts = records.split(tape)
    trades = parts["Trade"]
    values, times = features_of(tape)
    qty = trades["qty"].astype(float)
    side = trades["aggressor_side"]
    when = trades["receive_time_ns"]
    for tau in (1, 5):
        bought = decayed(when, qty * (side > 0), times, tau)
        sold = decayed(when, qty * (side < 0), times, tau)
        expected = (bought - sold) / (bought + sold + SCALE)
        same(values[f"trade_imbalance_{tau}s"], expected, times, tau)
    signs = decayed(when, side.astype(float), times, 5)
    prints = decayed(when, (side != 0).astype(float), times, 5)
    same(values["trade_sign_ema_5s"], signs / (prints + 1), times, 5)


def test_a_gap_resets_and_an_invalid_book_gives_no_row() -> None:
    rows = tapes.books(900)
    rows["flags"][500] = 32
    rows["bid_price"][300] = rows["ask_price"][300]
    values, times = features_of(rows.tobytes())
    assert len(times) == 899
    gap = int(np.flatnonzero(times == rows["receive_time_ns"][500])[0])
    assert np.isfinite(values["return_10s"][gap - 1])
    assert np.isnan(values["return_10s"][gap])
    assert np.isnan(values["return_1s"][gap])
    assert np.isfinite(values["imbalance_l1"][gap])
    again = times >= times[gap] + 10 * SECOND
    assert np.isfinite(values["return_10s"][again]).all()
    alone, _ = features_of(rows[500:].tobytes())
    assert alone["return_10s"].tobytes() == values["return_10s"][gap:].tobytes()


@pytest.mark.parametrize("depth", [5, 10, 50])
def test_unit_orders_on_constant_depth_move_the_mid_by_half_the_flow_over_depth(depth: int) -> None:
    """Cont, Kukanov and Stoikov 2014: dMid = OFI / (2 D), off by less than a tick."""
    draw = np.random.default_rng(depth)
    count = 4_000
    # Every level holds `depth` lots, and unit orders come and go at the best of either side.
    bought = draw.choice([-1, 1], count).cumsum()
    sold = draw.choice([-1, 1], count).cumsum()
    is_bid = draw.integers(2, size=count).astype(bool)
    bid_lots = 30_000 * depth + np.cumsum(np.where(is_bid, np.diff(bought, prepend=0), 0))
    ask_lots = 30_000 * depth + np.cumsum(np.where(is_bid, 0, np.diff(sold, prepend=0)))
    rows = records.empty("Book", count)
    rows["instrument_id"] = tapes.INSTRUMENT_ID
    rows["receive_time_ns"] = tapes.START + np.arange(count) * 1_000
    rows["bid_price"][:, 0] = (bid_lots - 1) // depth * SCALE
    rows["bid_qty"][:, 0] = ((bid_lots - 1) % depth + 1) * SCALE
    rows["ask_price"][:, 0] = (70_000 - (ask_lots - 1) // depth) * SCALE
    rows["ask_qty"][:, 0] = ((ask_lots - 1) % depth + 1) * SCALE
    total_flow = flow(rows, 0).cumsum() / SCALE
    mid = (rows["bid_price"][:, 0] + rows["ask_price"][:, 0]) / (2 * SCALE)
    assert np.abs(mid - mid[0] - total_flow / (2 * depth)).max() < 1
    # Within 4 ms nothing decays: the feature is the plain sum over the first book's depth.
    first = rows[:1].copy()
    first["receive_time_ns"] -= 20 * SECOND
    values, _ = features_of(first.tobytes() + rows.tobytes())
    mean_depth = (rows["bid_qty"][0, 0] + rows["ask_qty"][0, 0]) / (2 * SCALE)
    np.testing.assert_allclose(
        values["ofi_l1_1s"][1:] * mean_depth, total_flow, rtol=0.02, atol=0.25
    )
