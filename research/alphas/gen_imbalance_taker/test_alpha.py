"""What the manifest claims, on books made by hand."""

from pathlib import Path

import numpy as np

from research.gates.probe import signal_of

FOLDER = Path(__file__).parent
SECONDS = 10  # books a second


def last_signal(bid: int, ask: int, seconds: int = 10) -> float:
    return float(signal_of(FOLDER, [(bid, ask)] * (seconds * SECONDS))[-1])


def test_more_quantity_to_buy_predicts_a_rise():
    assert last_signal(30, 10) > 0


def test_the_mirrored_book_gives_the_mirrored_signal():
    assert last_signal(10, 30) == -last_signal(30, 10)


def test_a_balanced_book_predicts_nothing():
    assert last_signal(20, 20) == 0.0


def test_a_constant_imbalance_gives_gain_times_imbalance():
    assert abs(last_signal(30, 10, seconds=60) - 25.0 * 0.5) < 1e-6


def test_there_is_no_signal_before_the_mean_is_warm():
    signal = signal_of(FOLDER, [(30, 10)] * 40)
    assert np.isnan(signal[0])
    assert np.isfinite(signal[-1])
