"""Hansen's test: its size, its power, and the traps of a naive use of the library."""

import math

import numpy as np
import pytest

from research.stats.spa import stationary_block_length, superior_predictive_ability

PERIODS, SETTINGS, DRAWS = 250, 50, 300


def family(seed: int, *, edge: float = 0.0, losers: float = -0.3) -> np.ndarray:
    """Half of the settings lose `losers` deviations a day; one may gain `edge`."""
    profits = np.random.default_rng(seed).standard_normal((PERIODS, SETTINGS))
    profits[:, : SETTINGS // 2] += losers
    profits[:, -1] += edge
    return profits


def rates(count: int, **kind: float) -> dict[str, float]:
    found = [
        superior_predictive_ability(family(s, **kind), draws=DRAWS, seed=1_000 + s, block_length=1)
        for s in range(count)
    ]
    return {
        name: float(np.mean([getattr(f, name) <= 0.10 for f in found]))
        for name in ("lower", "consistent", "upper")
    }


def test_size_is_nominal_for_the_consistent_variant_and_ordered_across_the_three():
    """10 % level, half of the models poor: published 10 % for consistent, a third of it for upper.

    Over 800 draws it is 13, 6 and (lower) 18 %; the bounds are four standard errors of 120 draws.
    """
    found = rates(120)
    assert 0.02 <= found["consistent"] <= 0.24
    assert found["upper"] < found["consistent"] <= found["lower"], "poor models weaken upper"


def test_power_against_one_good_model_among_fifty():
    """One model with +0.2 deviations a day: rejected in about 78 of 100 draws."""
    found = rates(60, edge=0.2)
    assert found["consistent"] >= 0.60
    assert found["consistent"] > rates(60)["consistent"] + 0.4


def test_a_noisy_setting_cannot_hide_a_good_one():
    """The library compares plain means; scaled by their deviations they are comparable."""
    profits = family(3, edge=0.5)
    loud = profits.copy()
    loud[:, 0] *= 1e3
    assert superior_predictive_ability(loud, draws=DRAWS, seed=1).consistent <= 0.01


def test_the_unit_of_money_does_not_matter():
    one = superior_predictive_ability(family(4), draws=DRAWS, seed=1)
    scaled = superior_predictive_ability(family(4) * 2e10, draws=DRAWS, seed=1)
    assert (one.consistent, one.block_length) == (scaled.consistent, scaled.block_length)


def test_the_same_seed_gives_the_same_p_value_and_another_seed_another():
    one = superior_predictive_ability(family(5), draws=DRAWS, seed=1)
    assert one == superior_predictive_ability(family(5), draws=DRAWS, seed=1)
    assert one != superior_predictive_ability(family(5), draws=DRAWS, seed=2)


def test_settings_that_never_trade_are_no_members_of_the_family():
    profits = family(6, edge=0.5)
    profits[:, :10] = 0.0
    found = superior_predictive_ability(profits, draws=DRAWS, seed=1)
    assert found.family == SETTINGS - 10
    assert superior_predictive_ability(np.zeros((60, 3)), draws=DRAWS, seed=1) is None
    assert superior_predictive_ability(family(6)[:9], draws=DRAWS, seed=1) is None


def test_the_statistic_exceeds_its_critical_value_exactly_when_it_is_significant():
    for seed in range(20):
        found = superior_predictive_ability(family(seed, edge=0.15), draws=DRAWS, seed=seed)
        if abs(found.consistent - 0.05) > 0.01:
            assert (found.statistic > found.critical_value) == (found.consistent < 0.05)


def test_block_length_grows_with_dependence_and_is_bounded():
    rng = np.random.default_rng(7)
    shocks, series, last = rng.standard_normal(500), [], 0.0
    for shock in shocks:
        last = 0.6 * last + shock
        series.append(last)
    persistent = stationary_block_length(np.array(series))
    assert 1 <= stationary_block_length(shocks) < persistent <= math.isqrt(500)
    assert stationary_block_length(np.ones(100)) == 1


@pytest.mark.parametrize("autocorrelation", [0.3])
def test_dependence_does_not_inflate_the_size(autocorrelation):
    """AR(.3) days, ten settings, 5 % level over 150 draws; independent blocks reject far more."""
    rng = np.random.default_rng(8)
    with_blocks, without = 0, 0
    for seed in range(150):
        shocks = rng.standard_normal((260, 10))
        series = np.empty_like(shocks)
        last = np.zeros(10)
        for i, shock in enumerate(shocks):
            last = autocorrelation * last + shock
            series[i] = last
        found = superior_predictive_ability(series, draws=200, seed=seed)
        with_blocks += found.consistent <= 0.05
        naive = superior_predictive_ability(series, draws=200, seed=seed, block_length=1)
        without += naive.consistent <= 0.05
    assert with_blocks < without
    assert with_blocks <= 27
