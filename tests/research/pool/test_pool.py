"""The pool: exact identities, what counts as the same idea, and what a new alpha adds."""

import math

import numpy as np
import pytest

from research import pool


def test_correlation_of_an_alpha_with_itself_is_one_and_with_its_flip_minus_one():
    values = [3.0, -1.0, 4.0, 1.0, -5.0]
    assert pool.correlation(values, values) == pytest.approx(1.0)
    assert pool.correlation(values, [-v for v in values]) == pytest.approx(-1.0)


def test_a_copy_of_the_pool_adds_nothing():
    rng = np.random.default_rng(1)
    days = {d: int(v) for d, v in enumerate(rng.normal(50, 100, 60))}
    doubled = {d: 2 * v for d, v in days.items()}
    result = pool.marginal(days, [doubled])
    assert result.beta == pytest.approx(0.5)
    assert result.intercept == pytest.approx(0.0, abs=1e-9)
    assert result.t_value is None or abs(result.t_value) < 2.0


def test_an_independent_edge_adds_its_whole_sharpe_ratio():
    rng = np.random.default_rng(2)
    mine = {d: int(v) for d, v in enumerate(rng.normal(60, 100, 400))}
    other = {d: int(v) for d, v in enumerate(rng.normal(60, 100, 400))}
    result = pool.marginal(mine, [other])
    assert result.t_value > 5
    together = result.sharpe_together
    assert together == pytest.approx(math.hypot(result.sharpe_pool, result.sharpe_alone), rel=0.1)


def test_the_best_mix_has_the_sharpe_ratio_that_the_identity_says():
    rng = np.random.default_rng(3)
    x = rng.normal(1.0, 2.0, 250)
    y = 0.4 * x + rng.normal(0.5, 1.5, 250)
    xs = {d: round(v * 1e6) for d, v in enumerate(x)}
    ys = {d: round(v * 1e6) for d, v in enumerate(y)}
    claimed = pool.marginal(ys, [xs]).sharpe_together
    data = np.array([list(xs.values()), list(ys.values())], dtype=float)
    mean, covariance = data.mean(axis=1), np.cov(data, ddof=0)
    assert claimed == pytest.approx(math.sqrt(mean @ np.linalg.solve(covariance, mean)), rel=1e-9)


def test_without_a_pool_the_marginal_is_the_alpha_itself():
    days = dict(enumerate([5, -2, 7, 3, 1, 4]))
    result = pool.marginal(days, [])
    assert result.beta is None
    assert result.intercept == 3.0
    assert result.sharpe_together == result.sharpe_alone


def series(rng, mean: float, *, days: int = 120, base=None, loading: float = 0.0) -> dict[int, int]:
    own = rng.normal(mean, 100, days)
    if base is not None:
        own = own + loading * np.array(list(base.values()))
    return {day: int(value) for day, value in enumerate(own)}


def test_a_copy_adds_nothing_out_of_fold_and_an_independent_edge_does():
    rng = np.random.default_rng(4)
    member, second = series(rng, 40), series(rng, 40)
    copied = pool.out_of_fold({d: 3 * v for d, v in member.items()}, [member], folds=5)
    assert copied.marginal_sharpe == pytest.approx(0.0, abs=1e-9)
    assert copied.share == pytest.approx(0.0, abs=1e-9)
    added = pool.out_of_fold(second, [member], folds=5)
    assert added.t_value > 3
    assert added.marginal_sharpe > 0.05


def test_a_leveraged_member_without_own_edge_is_not_bought():
    """Beta times the pool looks like profit; it is the pool's."""
    rng = np.random.default_rng(5)
    member = series(rng, 60, days=400)
    geared = series(rng, 0, days=400, base=member, loading=1.5)
    assert pool.out_of_fold(geared, [], folds=5).t_value > 3
    found = pool.out_of_fold(geared, [member], folds=5)
    assert abs(found.t_value) < 2.5
    assert found.marginal_sharpe < 0.01


def test_out_of_fold_is_what_a_slow_reference_computes():
    rng = np.random.default_rng(6)
    one, two, mine = series(rng, 30), series(rng, 20), series(rng, 35)
    found = pool.out_of_fold(mine, [one, two], folds=4)
    y = np.array(list(mine.values()), dtype=float)
    x = np.array([list(one.values()), list(two.values())], dtype=float).T
    rest, before, after = [], [], []
    for block in np.array_split(np.arange(120), 4):
        train = np.setdiff1d(np.arange(120), block)
        variance = x[train].var(axis=0, ddof=1)
        weights = (1 / variance) / (1 / variance).sum()
        fitted, seen = x[train] @ weights, x[block] @ weights
        slope, constant = np.polyfit(fitted, y[train], 1)
        sigma = (y[train] - slope * fitted - constant).std()
        # Treynor-Black: holdings proportional to mean over variance of the two independent parts.
        holding = (constant / sigma**2) / (fitted.mean() / fitted.var())
        rest += list(y[block] - slope * seen)
        before += list(seen / fitted.std())
        mixed = fitted + holding * (y[train] - slope * fitted)
        after += list((seen + holding * (y[block] - slope * seen)) / mixed.std())
    assert found.intercept == pytest.approx(np.mean(rest))
    assert found.sharpe_pool == pytest.approx(np.mean(before) / np.std(before))
    assert found.sharpe_together == pytest.approx(np.mean(after) / np.std(after))
    assert found.marginal_sharpe == pytest.approx(found.sharpe_together - found.sharpe_pool)


def test_an_alpha_without_edge_passes_out_of_fold_no_more_often_than_chance():
    """Null rejection rate of the condition that gate D takes, with a 99.9 % binomial bound."""
    draws, passes = 400, 0
    for seed in range(draws):
        rng = np.random.default_rng(1000 + seed)
        found = pool.out_of_fold(series(rng, 0), [series(rng, 20), series(rng, 20)], folds=5)
        passes += found.t_value >= 2.0 and found.marginal_sharpe > 0.0
    # 2.3 % of a Normal lies above 2; 120 days and a Newey-West variance make it up to 3.5 %.
    assert passes <= 26, passes


def test_what_was_not_bought_and_what_is_too_short_say_so():
    rng = np.random.default_rng(7)
    losing = pool.out_of_fold(series(rng, -80), [series(rng, 20)], folds=5)
    assert losing.share == 0.0
    assert losing.marginal_sharpe == pytest.approx(0.0, abs=1e-12)
    short = pool.out_of_fold({0: 1, 1: 2, 2: 4}, [{0: 3, 1: 1, 2: 0}], folds=2)
    assert (short.t_value, short.marginal_sharpe, short.days) == (None, None, 3)
    apart = pool.out_of_fold({0: 1, 1: 2}, [{5: 3}], folds=2)
    assert (apart.days, apart.intercept, apart.share) == (0, None, None)
    with pytest.raises(ValueError, match="folds was 1"):
        pool.out_of_fold({0: 1}, [], folds=1)
