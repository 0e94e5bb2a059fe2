"""The truth of generated markets: the planted edge has its strength, and no edge is none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from hft_platform import records
from research.data.generator import GeneratorSpec, hidden_states, spec_by_name, tapes
from research.data.stylized_facts import Ticks, ticks_of_tape

HORIZON_NS = 15 * 10**9
STRENGTH_TICKS = 14.0
PLANTED = {"kind": "planted", "strength_ticks": STRENGTH_TICKS, "horizon_s": 15.0}
LATENCY_S = 0.395
FEE_TICKS = 1.9
"""Both sides: tax of 140 and commission of 60 on a contract of 200 a tick."""


@dataclass(frozen=True)
class Windows:
    """Horizons that do not overlap."""

    session: npt.NDArray[np.int64]
    state: npt.NDArray[np.int64]
    move_ticks: npt.NDArray[np.float64]
    drift_ticks: npt.NDArray[np.float64]

    def signed(self, values: npt.NDArray[np.float64], first: int, end: int) -> tuple[float, float]:
        """Mean of state times value where the state is not 0, and its standard error."""
        chosen = (self.state != 0) & (self.session >= first) & (self.session < end)
        signed = self.state[chosen] * values[chosen]
        return float(signed.mean()), float(signed.std() / np.sqrt(signed.size))


def windows(spec: GeneratorSpec) -> Windows:
    found: list[tuple[npt.NDArray[np.float64], ...]] = []
    for index, hidden in hidden_states(spec):
        times = hidden.exchange_time_ns
        starts = np.searchsorted(times, np.arange(times[0], times[-1] - HORIZON_NS, HORIZON_NS))
        ends = np.searchsorted(times, times[starts] + HORIZON_NS)
        starts, ends = starts[ends < times.size], ends[ends < times.size]
        found.append(
            (
                np.full(starts.size, index),
                hidden.state[starts],
                hidden.mid_ticks[ends] - hidden.mid_ticks[starts],
                hidden.drift_ticks[ends] - hidden.drift_ticks[starts],
            )
        )
    return Windows(*(np.concatenate(column) for column in zip(*found, strict=True)))


@pytest.fixture(scope="module")
def planted() -> Windows:
    return windows(spec_by_name("sim_edge", session_count=120, edge=PLANTED))


@pytest.fixture(scope="module")
def null() -> Windows:
    return windows(spec_by_name("sim_null", session_count=120))


def test_the_planted_move_has_its_strength_within_the_standard_error(planted: Windows) -> None:
    mean, error = planted.signed(planted.move_ticks, 0, 120)
    assert error < 0.35
    assert abs(mean - STRENGTH_TICKS) < 3.5 * error
    for side in (-1, 1):
        moves = planted.move_ticks[planted.state == side]
        assert abs(moves.mean() - side * STRENGTH_TICKS) < 3.5 * moves.std() / np.sqrt(moves.size)


def test_the_drift_alone_has_the_strength_and_the_rest_of_the_move_has_no_mean(
    planted: Windows,
) -> None:
    mean, error = planted.signed(planted.drift_ticks, 0, 120)
    assert abs(mean - STRENGTH_TICKS) < 3.5 * error
    rest, rest_error = planted.signed(planted.move_ticks - planted.drift_ticks, 0, 120)
    assert abs(rest) < 3.5 * rest_error


def test_without_an_edge_the_state_says_nothing_about_the_move(null: Windows) -> None:
    mean, error = null.signed(null.move_ticks, 0, 120)
    assert error < 0.25
    assert abs(mean) < 3.5 * error
    assert not null.drift_ticks.any()


def test_the_measure_of_the_null_would_see_a_small_edge() -> None:
    edge = PLANTED | {"strength_ticks": 1.5}
    leaking = windows(spec_by_name("sim_null", session_count=120, edge=edge))
    mean, error = leaking.signed(leaking.move_ticks, 0, 120)
    assert mean > 3.5 * error


def test_the_state_rests_half_of_the_time(null: Windows) -> None:
    shares = [np.mean(null.state == side) for side in (-1, 0, 1)]
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.05)


def test_a_dying_edge_lives_before_its_last_day_and_not_after() -> None:
    edge = PLANTED | {"kind": "dying", "dies_at_session": 60}
    dying = windows(spec_by_name("sim_dying", session_count=120, edge=edge))
    alive, alive_error = dying.signed(dying.move_ticks, 0, 60)
    dead, dead_error = dying.signed(dying.move_ticks, 60, 120)
    assert abs(alive - STRENGTH_TICKS) < 3.5 * alive_error
    assert abs(dead) < 3.5 * dead_error
    assert not dying.drift_ticks[dying.session >= 60].any()
    assert np.abs(dying.drift_ticks[dying.session == 59]).max() > 0


@pytest.mark.parametrize(("horizon_s", "strength"), [(5.0, 6.0), (30.0, -10.0)])
def test_other_strengths_and_horizons_are_met_too(horizon_s: float, strength: float) -> None:
    edge = {"kind": "planted", "strength_ticks": strength, "horizon_s": horizon_s}
    spec = spec_by_name("sim_edge", session_count=60, edge=edge)
    moves = []
    for _, hidden in hidden_states(spec):
        times, span = hidden.exchange_time_ns, int(horizon_s * 1e9)
        starts = np.searchsorted(times, np.arange(times[0], times[-1] - span, span))
        ends = np.minimum(np.searchsorted(times, times[starts] + span), times.size - 1)
        drift = hidden.drift_ticks[ends] - hidden.drift_ticks[starts]
        moves.append((hidden.state[starts] * drift)[hidden.state[starts] != 0])
    pooled = np.concatenate(moves)
    assert abs(pooled.mean() - strength) < 3.5 * pooled.std() / np.sqrt(pooled.size)


def test_the_imbalance_shows_the_state_alike_with_and_without_an_edge() -> None:
    shown = {}
    for name, edge in (("sim_edge", PLANTED), ("sim_null", {"kind": "none"})):
        spec = spec_by_name(name, session_count=15, edge=edge)
        values: dict[int, list[float]] = {-1: [], 0: [], 1: []}
        for (_, tape), (_, hidden) in zip(tapes(spec), hidden_states(spec), strict=True):
            ratio = imbalance(ticks_of_tape(tape, records.SCALE, records.SCALE))
            for side, kept in values.items():
                kept += ratio[hidden.state == side].tolist()
        shown[name] = [float(np.mean(values[side])) for side in (-1, 0, 1)]
        assert shown[name][0] < -0.2
        assert abs(shown[name][1]) < 0.05
        assert shown[name][2] > 0.2
    np.testing.assert_allclose(shown["sim_edge"], shown["sim_null"], atol=0.08)


def test_a_taker_on_the_imbalance_earns_the_planted_edge_and_pays_for_the_null() -> None:
    edge, null = (
        np.concatenate([taker_trips(ticks) for ticks in sessions(name, kind)])
        for name, kind in (("sim_edge", PLANTED), ("sim_null", {"kind": "none"}))
    )
    assert edge.size > 200
    assert null.size > 200
    assert edge.mean() > 3.0 * edge.std() / np.sqrt(edge.size)
    assert edge.mean() > 2.0
    assert null.mean() < -4.0


def sessions(name: str, edge: dict[str, object]) -> list[Ticks]:
    spec = spec_by_name(name, session_count=25, edge=edge)
    return [ticks_of_tape(tape, records.SCALE, records.SCALE) for _, tape in tapes(spec)]


def imbalance(ticks: Ticks) -> npt.NDArray[np.float64]:
    bid, ask = ticks.bid_qty[:, 0], ticks.ask_qty[:, 0]
    return np.asarray((bid - ask) / (bid + ask))


def taker_trips(
    ticks: Ticks, *, entry: float = 0.5, hold_s: float = 15.0
) -> npt.NDArray[np.float64]:
    """Net ticks of round trips that cross the spread, each order late by the latency."""
    seconds = (ticks.book_time_ns - ticks.book_time_ns[0]) / 1e9
    ratio, signal = imbalance(ticks), np.zeros(ticks.book_time_ns.size)
    for row in range(1, signal.size):
        kept = np.exp(-(seconds[row] - seconds[row - 1]) / 2.0)
        signal[row] = ratio[row - 1] + (signal[row - 1] - ratio[row - 1]) * kept
    found, free_at = [], 2.0
    for row in np.flatnonzero(np.abs(signal) > entry):
        leave_s = seconds[row] + LATENCY_S + hold_s
        if seconds[row] < free_at or leave_s + LATENCY_S > seconds[-1]:
            continue
        enter, leave = (np.searchsorted(seconds, [seconds[row] + LATENCY_S, leave_s]) - 1).tolist()
        side = np.sign(signal[row])
        bought, sold = (enter, leave) if side > 0 else (leave, enter)
        found.append(ticks.bid_price[sold, 0] - ticks.ask_price[bought, 0] - FEE_TICKS)
        free_at = leave_s
    return np.array(found)
