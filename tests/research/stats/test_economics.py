"""Turnover, and the size at which impact takes half of an edge."""

import math

import pytest

from research import stats
from research.gates.foresight_c import half_life


@pytest.mark.parametrize(("edge", "volatility", "volume"), [(5.5, 48.0, 75.0), (0.3, 200.0, 1e5)])
def test_at_capacity_impact_in_and_out_takes_half_the_net_edge(edge, volatility, volume):
    size = stats.capacity(edge, volatility=volatility, volume=volume)
    impact = stats.square_root_impact(size, volatility=volatility, volume=volume)
    assert 2.0 * impact == pytest.approx(edge / 2.0)


def test_twice_the_edge_has_room_for_four_times_the_size():
    one = stats.capacity(1.0, volatility=50.0, volume=1e4)
    assert stats.capacity(2.0, volatility=50.0, volume=1e4) == pytest.approx(4.0 * one)
    assert stats.capacity(1.0, volatility=50.0, volume=2e4) == pytest.approx(2.0 * one)


@pytest.mark.parametrize(("edge", "volatility", "volume"), [(-1, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_no_edge_or_no_market_has_no_capacity(edge, volatility, volume):
    assert stats.capacity(edge, volatility=volatility, volume=volume) is None


def test_turnover_is_a_mean_per_period():
    assert stats.turnover(30.0, periods=4) == 7.5
    assert stats.turnover(0.0, periods=0) is None


def test_half_life_is_the_first_horizon_after_the_peak_with_half_of_it():
    horizons = (1.0, 2.0, 5.0, 10.0)
    assert half_life(horizons, (0.1, 0.3, 0.2, 0.1)) == 10.0
    assert half_life(horizons, (-0.1, -0.3, -0.1, 0.1)) == 5.0
    assert half_life(horizons, (0.1, 0.2, 0.3, 0.4)) is None
    assert half_life(horizons, (math.nan,) * 4) is None
