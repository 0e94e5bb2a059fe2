"""Weights of a pool against published tables, closed forms and the conditions of an optimum."""

import numpy as np
import pytest

from research.pool import weights as pool_weights

HRP_2016 = [7.00, 7.59, 10.84, 19.03, 9.72, 10.19, 6.62, 9.10, 7.12, 12.79]
VOLATILITY_2010 = np.array([0.10, 0.20, 0.30, 0.40])
CORRELATION_2010 = np.array(
    [[1.0, 0.8, 0.0, 0.0], [0.8, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -0.5], [0.0, 0.0, -0.5, 1.0]]
)
COVARIANCE_2010 = CORRELATION_2010 * np.outer(VOLATILITY_2010, VOLATILITY_2010)


def paper_data() -> np.ndarray:
    """Data of the 2016 paper's snippet: five Normals and five noisy copies, legacy seed."""
    np.random.seed(12345)  # noqa: NPY002  # the published numbers were made with it
    base = np.random.normal(0, 1, size=(10000, 5))  # noqa: NPY002
    copies = base[:, [2, 0, 4, 1, 1]] + np.random.normal(0, 0.25, size=(10000, 5))  # noqa: NPY002
    return np.append(base, copies, axis=1)


def random_covariance(rng, count: int) -> np.ndarray:
    root = rng.normal(size=(count, count + 3)) * rng.uniform(0.5, 20.0, size=(count, 1))
    return root @ root.T


def test_hrp_weights_are_those_of_the_2016_paper():
    assert [round(100 * w, 2) for w in pool_weights.hrp_weights(paper_data())] == HRP_2016


def test_equal_risk_weights_are_those_of_the_2010_paper():
    """Maillard, Roncalli, Teiletche: four assets, weights 38.4, 19.2, 24.3 and 18.2 %."""
    found = pool_weights.equal_risk_contribution(COVARIANCE_2010)
    assert [round(100 * w, 1) for w in found] == [38.4, 19.2, 24.3, 18.2]


def test_minimum_variance_weights_are_those_of_the_2010_paper():
    """The same four assets: 74.5, 0, 15.2 and 10.3 %; the second one would be sold short."""
    found = pool_weights.minimum_variance(COVARIANCE_2010)
    assert [round(100 * w, 1) for w in found] == [74.5, 0.0, 15.2, 10.3]


@pytest.mark.parametrize("rho", [-0.9, -0.3, 0.0, 0.5, 0.99])
def test_two_alphas_share_equal_risk_by_their_deviations_whatever_their_correlation(rho):
    deviation = np.array([3.0, 7.0])
    covariance = np.outer(deviation, deviation) * np.array([[1.0, rho], [rho, 1.0]])
    found = pool_weights.equal_risk_contribution(covariance)
    assert found == pytest.approx([0.7, 0.3], abs=1e-9)


@pytest.mark.parametrize("rho", [-0.15, 0.0, 0.4, 0.95])
def test_equal_correlation_gives_equal_risk_by_the_inverse_of_deviations(rho):
    deviation = np.array([1.0, 2.0, 5.0, 10.0, 0.2])
    covariance = np.outer(deviation, deviation) * np.where(np.eye(5) > 0, 1.0, rho)
    expected = (1 / deviation) / (1 / deviation).sum()
    assert pool_weights.equal_risk_contribution(covariance) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("count", [1, 2, 5, 20, 50])
def test_every_alpha_carries_the_same_share_of_risk(count):
    covariance = random_covariance(np.random.default_rng(count), count)
    weights = pool_weights.equal_risk_contribution(covariance)
    assert weights.sum() == pytest.approx(1.0)
    assert (weights > 0).all()
    shares = pool_weights.risk_shares(covariance, weights)
    assert shares == pytest.approx([1 / count] * count, abs=1e-8)


def test_minimum_variance_of_two_is_the_closed_form_until_one_would_be_short():
    a, b, rho = 2.0, 3.0, 0.4
    covariance = np.array([[a * a, rho * a * b], [rho * a * b, b * b]])
    share = (b * b - rho * a * b) / (a * a + b * b - 2 * rho * a * b)
    assert pool_weights.minimum_variance(covariance) == pytest.approx([share, 1 - share])
    covariance[0, 1] = covariance[1, 0] = 0.8 * a * b
    assert pool_weights.minimum_variance(covariance) == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize("seed", range(12))
def test_minimum_variance_meets_the_conditions_of_an_optimum(seed):
    """Karush-Kuhn-Tucker: equal marginal risk where held, no smaller one where not."""
    count = 3 + 4 * seed
    covariance = random_covariance(np.random.default_rng(seed), count)
    weights = pool_weights.minimum_variance(covariance)
    assert weights.sum() == pytest.approx(1.0)
    assert (weights >= 0).all()
    slope = covariance @ weights
    variance = float(weights @ slope)
    assert slope[weights > 0] == pytest.approx(variance, rel=1e-6)
    assert (slope[weights == 0] >= variance * (1 - 1e-6)).all()


def test_minimum_variance_without_a_binding_bound_is_the_inverse_of_the_matrix():
    covariance = np.diag([1.0, 4.0, 9.0]) + 0.2
    solved = np.linalg.solve(covariance, np.ones(3))
    assert (solved > 0).all()
    assert pool_weights.minimum_variance(covariance) == pytest.approx(solved / solved.sum())


@pytest.mark.parametrize("method", pool_weights.METHODS)
def test_every_method_gives_all_to_one_alpha_and_sums_to_one(method):
    weigh = pool_weights.METHODS[method]
    assert weigh([[1.0], [2.0], [0.5]]) == [1.0]
    found = weigh(paper_data()[:200])
    assert sum(found) == pytest.approx(1.0)
    assert min(found) >= 0.0


@pytest.mark.parametrize("method", pool_weights.METHODS)
def test_a_series_that_never_changes_or_is_too_short_has_no_weight(method):
    weigh = pool_weights.METHODS[method]
    assert weigh([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]) is None
    assert weigh([[1.0, 2.0], [2.0, 0.0]]) is None


def test_two_copies_have_no_single_smallest_variance_but_share_equal_risk():
    values = np.random.default_rng(1).normal(size=(50, 1))
    doubled = np.hstack([values, 2 * values]).tolist()
    assert pool_weights.minimum_variance_weights(doubled) is None
    assert pool_weights.equal_risk_weights(doubled) == pytest.approx([2 / 3, 1 / 3])


@pytest.mark.parametrize("method", pool_weights.METHODS)
def test_weights_do_not_depend_on_the_unit_of_profit(method):
    rows = np.random.default_rng(2).normal(size=(80, 6)) * [1, 2, 3, 4, 5, 6]
    scaled = pool_weights.METHODS[method]((rows * 1e8).tolist())
    assert scaled == pytest.approx(pool_weights.METHODS[method](rows.tolist()), rel=1e-6)
