"""The picture of a signal: right on markets made by hand, blind to sessions that judge."""

from __future__ import annotations

import numpy as np

from research import signal_study
from research.gates.signals import SIGNAL_DTYPE
from research.signal_study import SessionSignal, foresight, moves_ticks

TICK = 100_000_000
SECOND = 1_000_000_000


def session(mids_ticks: np.ndarray, signal: np.ndarray, *, step_s: float = 1.0) -> SessionSignal:
    """A session with a book every `step_s` seconds."""
    rows = np.zeros(len(mids_ticks), dtype=SIGNAL_DTYPE)
    rows["receive_time_ns"] = (np.arange(len(rows)) * step_s * SECOND).astype(np.int64)
    rows["mid"] = np.asarray(mids_ticks, dtype=np.int64) * TICK
    rows["signal"] = signal
    return SessionSignal("SIM_EDGE", "2026-01-05/day", rows, TICK)


def walks(count: int) -> list[np.ndarray]:
    """Random walks of the mid, one a session."""
    rng = np.random.default_rng(7)
    return [35_000 + rng.integers(-2, 3, 400).cumsum() for _ in range(count)]


def test_the_move_is_taken_to_the_last_book_at_most_a_horizon_later() -> None:
    signal = session(np.array([10, 11, 15, 15]), np.zeros(4))
    assert moves_ticks(signal, horizon_s=1.5).tolist()[:2] == [1.0, 4.0]


def test_a_move_beyond_the_end_of_the_session_is_not_a_number() -> None:
    moves = moves_ticks(session(np.array([10, 11, 15, 15]), np.zeros(4)), horizon_s=2.0)
    assert np.isnan(moves).tolist() == [False, False, True, True]


def test_a_signal_that_is_the_next_move_has_a_rank_correlation_of_one_there_only() -> None:
    sessions = [session(mid, np.append(np.diff(mid), 0)) for mid in walks(5)]
    curve = foresight(sessions, (1.0, 10.0))
    assert curve.at(1.0)[0] > 0.999
    assert curve.at(10.0)[0] < 0.6


def test_noise_foretells_nothing_within_its_standard_error() -> None:
    rng = np.random.default_rng(11)
    curve = foresight([session(mid, rng.normal(size=mid.size)) for mid in walks(30)], (1.0,))
    mean, error = curve.at(1.0)
    assert abs(mean) < 3.0 * error
    assert 0.0 < error < 0.03


def test_sessions_that_are_too_short_or_constant_are_left_out() -> None:
    short = session(np.arange(50), np.arange(50, dtype=float))
    flat = session(np.full(400, 10), np.arange(400, dtype=float))
    curve = foresight([short, flat], (1.0,))
    assert curve.session_count == (0,)
    assert np.isnan(curve.mean[0])


def test_the_pictures_have_what_they_say() -> None:
    sessions = [session(mid, np.append(np.diff(mid), 0)) for mid in walks(3)]
    curve = foresight(sessions)
    figure = signal_study.foresight_picture({"next move": curve})
    assert figure.axes[0].get_xlabel() == "horizon, s"
    assert len(signal_study.signal_picture(sessions[0]).axes) == 2
