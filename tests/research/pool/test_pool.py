"""The pool: published weights, exact identities, and what counts as the same idea."""

import math

import numpy as np
import pytest

from research import pool

HRP_2016 = [7.00, 7.59, 10.84, 19.03, 9.72, 10.19, 6.62, 9.10, 7.12, 12.79]
IVP_2016 = [10.36, 10.28, 10.36, 10.25, 10.31, 9.74, 9.80, 9.65, 9.64, 9.61]


def paper_data() -> np.ndarray:
    """Data of the 2016 paper's snippet: five Normals and five noisy copies, legacy seed."""
    np.random.seed(12345)  # noqa: NPY002  # the published numbers were made with it
    base = np.random.normal(0, 1, size=(10000, 5))  # noqa: NPY002
    copies = base[:, [2, 0, 4, 1, 1]] + np.random.normal(0, 0.25, size=(10000, 5))  # noqa: NPY002
    return np.append(base, copies, axis=1)


def test_hrp_weights_are_those_of_the_2016_paper():
    assert [round(100 * w, 2) for w in pool.hrp_weights(paper_data())] == HRP_2016


def test_inverse_variance_weights_are_those_of_the_2016_paper():
    assert [round(100 * w, 2) for w in pool.inverse_variance_weights(paper_data())] == IVP_2016


def test_weights_sum_to_one_and_one_alpha_gets_all():
    assert sum(pool.hrp_weights(paper_data()[:100])) == pytest.approx(1.0)
    assert pool.hrp_weights([[1.0], [2.0], [0.5]]) == [1.0]


def test_a_series_that_never_changes_has_no_weight_and_no_correlation():
    assert pool.hrp_weights([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]) is None
    assert pool.correlation([1.0, 2.0, 3.0], [5.0, 5.0, 5.0]) is None


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
