"""What the manifest claims, on books made by hand."""

from pathlib import Path

import numpy as np

from research.gates.probe import signal_of

FOLDER = Path(__file__).parent
QUIET = [(20, 20)] * 100  # ten seconds


def test_quantity_added_to_the_bid_predicts_a_rise():
    assert signal_of(FOLDER, [*QUIET, (30, 20)])[-1] > 0


def test_quantity_added_to_the_ask_predicts_a_fall_of_the_same_size():
    up = signal_of(FOLDER, [*QUIET, (30, 20)])[-1]
    assert signal_of(FOLDER, [*QUIET, (20, 30)])[-1] == -up


def test_a_quiet_book_predicts_nothing():
    assert signal_of(FOLDER, QUIET)[-1] == 0.0


def test_the_flow_fades_after_its_second():
    signal = signal_of(FOLDER, [*QUIET, *[(30, 20)] * 50])
    assert 0 < signal[-1] < 0.05 * signal[100]


def test_there_is_no_signal_before_the_sums_are_warm():
    assert np.isnan(signal_of(FOLDER, [(30, 10)] * 20)[0])
