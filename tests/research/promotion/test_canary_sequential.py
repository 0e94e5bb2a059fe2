"""The e-processes: mean at most 1, Ville's bound under the worst truth, values known by hand."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from research.promotion.canary_metrics import allowed_variance
from research.promotion.canary_sequential import (
    FIRST_SHARE,
    FRESH_SHARE,
    Bet,
    mean_log_evidence,
    rate_log_evidence,
    ruin_bound,
)
from research.promotion.canary_thresholds import load_canary_thresholds

LIVES = 1_000
SESSIONS = 40
LIMITS, _ = load_canary_thresholds(Path("none"))
BETS = sorted({*LIMITS.edge_bets, *LIMITS.execution_bets}, key=lambda bet: (bet.cut, bet.stake))


def binomial_upper(rate: float, count: int) -> float:
    """Share that a true rate exceeds with probability 1 in 1,000 at most, by normal bound."""
    return rate + 3.1 * math.sqrt(rate * (1 - rate) / count) + 1 / count


def test_a_bet_pays_what_the_formula_says() -> None:
    # One shortfall of two deviations against a bet of a half cut at three: worked by hand.
    price = (math.exp(1.5) - 2.5) / 9.0
    assert Bet(0.5, 3.0).price(1.0) == pytest.approx(price)

    def half(gain: float) -> float:
        return math.log(0.5 * math.exp(gain) + 0.5)

    got = mean_log_evidence([2.0], [Bet(0.5, 3.0)], variance=1.0)
    assert got == pytest.approx(half(1.0 - price))
    cut = mean_log_evidence([9.0], [Bet(0.5, 3.0)], variance=1.0)
    assert cut == pytest.approx(half(1.5 - price))
    assert mean_log_evidence([-2.0, -2.0], [Bet(0.5, 3.0)], variance=1.0) == 0.0
    assert mean_log_evidence([], [Bet(0.5, 3.0)], variance=1.0) == 0.0


def test_a_rate_is_tested_by_its_likelihood_ratio() -> None:
    # 5 of 10 bad against 2 %, bet on 50 %: 25^5 (0.5/0.98)^5, with half of the wealth.
    ratio = 25**5 * (0.5 / 0.98) ** 5
    got = rate_log_evidence([(5, 10)], 0.02, [0.5])
    assert got == pytest.approx(math.log(0.5 * ratio + 0.5))
    # Second session: a tenth of the other half joins before it pays.
    two = rate_log_evidence([(5, 10), (5, 10)], 0.02, [0.5])
    assert two == pytest.approx(math.log((0.5 * ratio + 0.05) * ratio + 0.45))


def test_shares_of_a_fair_game_stay_a_fair_game() -> None:
    """Every path of a fair two-outcome game, exactly: the mean of the wealth is 1 at each step."""
    limit, bet = 0.2, 0.6
    for length in (1, 2, 5, 9):
        mean = 0.0
        for path in itertools.product((0, 1), repeat=length):
            chance = math.prod(limit if bad else 1 - limit for bad in path)
            wealth, reserve, share, largest = 0.0, 1.0, FIRST_SHARE, 1.0
            for bad in path:
                wealth, reserve = wealth + share * reserve, reserve * (1 - share)
                wealth *= bet / limit if bad else (1 - bet) / (1 - limit)
                share, largest = FRESH_SHARE, max(largest, wealth + reserve)
            mean += chance * (wealth + reserve)
            shown = rate_log_evidence([(bad, 1) for bad in path], limit, [bet])
            assert shown == pytest.approx(math.log(largest), abs=1e-12)
        assert mean == pytest.approx(1.0)


def test_trouble_that_begins_late_is_found_as_if_the_good_past_were_forgotten() -> None:
    bad = [(10, 100)] * 3
    alone = rate_log_evidence(bad, 0.02, [0.04, 0.1, 0.4])
    late = rate_log_evidence([(0, 100)] * 20 + bad, 0.02, [0.04, 0.1, 0.4])
    assert late > alone - 5.0
    assert late > -math.log(0.005)


@pytest.mark.parametrize("variance", [1.0, 1.58])
@pytest.mark.parametrize("bet", BETS, ids=str)
def test_no_bet_gains_in_the_mean_under_any_two_point_null(bet: Bet, variance: float) -> None:
    """Two-point laws are extremal for Bennett's inequality: mean 0, variance v, top anywhere."""
    for top in np.concatenate([np.linspace(0.05, bet.cut, 60), [2 * bet.cut, 10 * bet.cut]]):
        probability = variance / (variance + top * top)
        low = -variance / top
        gain = probability * math.exp(bet.stake * min(top, bet.cut)) + (1 - probability) * math.exp(
            bet.stake * low
        )
        assert gain * math.exp(-bet.price(variance)) <= 1 + 1e-12
    # The bound is met when the top is the cut and the variance small: it cannot be made cheaper.
    small = 1e-6
    probability = small / (small + bet.cut**2)
    gain = probability * math.exp(bet.stake * bet.cut) + (1 - probability) * math.exp(
        -bet.stake * small / bet.cut
    )
    assert math.log(gain) == pytest.approx(bet.price(small), rel=1e-3)


def test_no_rate_bet_gains_in_the_mean_up_to_the_limit() -> None:
    for limit, factor in itertools.product((0.005, 0.02), LIMITS.rate_factors):
        bet = limit * factor
        for true in np.linspace(0, limit, 11):
            mean = true * bet / limit + (1 - true) * (1 - bet) / (1 - limit)
            assert mean <= 1 + 1e-12
        beyond = 1.5 * limit
        assert beyond * bet / limit + (1 - beyond) * (1 - bet) / (1 - limit) > 1


LAWS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "student_t4": lambda rng, shape: rng.standard_t(4, shape) / math.sqrt(2),
    "rare_disasters": lambda rng, shape: np.where(
        rng.random(shape) < 0.01, math.sqrt(99), -1 / math.sqrt(99)
    ),
    "two_point_at_the_cut": lambda rng, shape: np.where(rng.random(shape) < 0.1, 3.0, -1 / 3.0),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("bets", ["edge_bets", "execution_bets"])
def test_villes_bound_holds_after_every_session_on_the_edge_of_the_null(
    law: str, bets: str
) -> None:
    """Mean exactly 0 and the variance exactly as allowed: the least favorable truth."""
    variance = allowed_variance(30, LIMITS)
    rng = np.random.default_rng(20261128)
    paths = LAWS[law](rng, (LIVES, SESSIONS)) * math.sqrt(variance)
    evidence = [mean_log_evidence(p, getattr(LIMITS, bets), variance=variance) for p in paths]
    for rate in (0.05, 0.01):
        passed = sum(value >= -math.log(rate) for value in evidence)
        assert passed / LIVES <= binomial_upper(rate, LIVES)


@pytest.mark.parametrize(("limit", "orders"), [(0.02, 50), (0.005, 400)])
def test_villes_bound_holds_for_a_rate_at_its_limit(limit: float, orders: int) -> None:
    rng = np.random.default_rng(7)
    bad = rng.binomial(orders, limit, (LIVES, SESSIONS))
    alternatives = [limit * factor for factor in LIMITS.rate_factors]
    evidence = [rate_log_evidence([(int(k), orders) for k in r], limit, alternatives) for r in bad]
    for rate in (0.05, 0.005):
        passed = sum(value >= -math.log(rate) for value in evidence)
        assert passed / LIVES <= binomial_upper(rate, LIVES)


def test_a_fixed_sample_test_looked_at_each_session_breaks_its_promise() -> None:
    """Negative control: the same looks without the correction reject five times too often."""
    rng = np.random.default_rng(3)
    paths = rng.standard_normal((LIVES, SESSIONS))
    counts = np.arange(1, SESSIONS + 1)
    peeked = (np.cumsum(paths, axis=1) / np.sqrt(counts) > 1.645).any(axis=1).mean()
    honest = np.mean([
        mean_log_evidence(path, LIMITS.edge_bets, variance=1.0) >= -math.log(0.05)
        for path in paths
    ])  # fmt: skip
    assert peeked > 0.2
    assert honest <= 0.05


def test_evidence_never_falls_and_a_worse_past_is_never_less_of_it() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        path = rng.standard_normal(20)
        grown = [mean_log_evidence(path[:n], LIMITS.edge_bets, variance=1.25) for n in range(21)]
        assert grown == sorted(grown)
        worse = mean_log_evidence(path + 0.3, LIMITS.edge_bets, variance=1.25)
        assert worse >= grown[-1]


def test_ruin_is_rarer_than_its_bound_and_certain_without_a_drift() -> None:
    # Steps of +1 and -1 with drift 0.5: ruin at L has probability (0.25 / 0.75)^L exactly.
    exact = (0.25 / 0.75) ** 3
    bound = ruin_bound(0.5, 3.0, variance=0.75, shortfall_max=1.5)
    assert exact <= bound < 0.2
    assert ruin_bound(0.0, 3.0, variance=1.0, shortfall_max=3.0) == 1.0
