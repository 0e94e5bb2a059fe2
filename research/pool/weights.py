"""Weights of a pool: hierarchical risk parity, equal risk, minimum variance.

Why: no one of them is right; three that agree are evidence, three that do not are a warning.

Invariants:
1. Weights are at least 0 and sum to 1; where a method has no unique answer it has none.
2. Each is a function of a covariance matrix alone: no forecast of profit goes into a size.
3. Every loop is bounded, and a result that did not converge is no result.

It reads no file. Operator's page: `docs/gates.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import linkage
from scipy.optimize import nnls

Matrix = npt.NDArray[np.float64]

EQUAL_RISK_ROUNDS_MAX = 10_000
EQUAL_RISK_TOLERANCE = 1e-10
"""Largest difference between two shares of risk at which they count as equal."""
CONDITION_MAX = 1e12
"""Beyond this two alphas are the same one, and how to split a weight between them is no fact."""


def covariance_of(profits: Sequence[Sequence[float]]) -> Matrix | None:
    """Sample covariance of daily profits.

    Parameters
    ----------
    profits : sequence of rows, shape (days, alphas)
        Daily profits.

    Returns
    -------
    ndarray or None
        Shape (alphas, alphas); None for fewer than three days or a series that never changes.
    """
    matrix = np.asarray(profits, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] < 3 or matrix.shape[1] < 1:
        return None
    covariance = np.atleast_2d(np.asarray(np.cov(matrix, rowvar=False, ddof=1), dtype=np.float64))
    return covariance if (np.diag(covariance) > 0.0).all() else None


def hrp_weights(profits: Sequence[Sequence[float]]) -> list[float] | None:
    """Hierarchical risk parity weights.

    Parameters
    ----------
    profits : sequence of rows, shape (days, alphas)
        Daily profits.

    Returns
    -------
    list of float or None
        Sum to 1; None without a covariance.

    Notes
    -----
    Lopez de Prado, Building Diversified Portfolios that Outperform Out of Sample, Journal of
    Portfolio Management 42(4) 2016, as its code snippets are: single linkage over the Euclidean
    distance between rows of the distance matrix ``sqrt((1 - rho) / 2)``, quasi-diagonal order,
    bisection of the ordered list into halves, inverse-variance risk of each half.
    """
    covariance = covariance_of(profits)
    return None if covariance is None else _plain(hierarchical_risk_parity(covariance))


def equal_risk_weights(profits: Sequence[Sequence[float]]) -> list[float] | None:
    """Weights at which every alpha carries the same share of the pool's variance.

    Parameters
    ----------
    profits : sequence of rows, shape (days, alphas)
        Daily profits.

    Returns
    -------
    list of float or None
        Sum to 1; None without a covariance, or when no such weights were found.
    """
    covariance = covariance_of(profits)
    found = None if covariance is None else equal_risk_contribution(covariance)
    return None if found is None else _plain(found)


def minimum_variance_weights(profits: Sequence[Sequence[float]]) -> list[float] | None:
    """Weights of the smallest variance, none of them below 0.

    Parameters
    ----------
    profits : sequence of rows, shape (days, alphas)
        Daily profits.

    Returns
    -------
    list of float or None
        Sum to 1; None without a covariance, or when it is so near singular that many are smallest.
    """
    covariance = covariance_of(profits)
    found = None if covariance is None else minimum_variance(covariance)
    return None if found is None else _plain(found)


METHODS: Mapping[str, Callable[[Sequence[Sequence[float]]], list[float] | None]] = {
    "hrp": hrp_weights,
    "equal_risk": equal_risk_weights,
    "minimum_variance": minimum_variance_weights,
}
"""The three methods that gate D and `hft-research pool` show side by side."""


def hierarchical_risk_parity(covariance: Matrix) -> Matrix:
    """Hierarchical risk parity of a covariance matrix; see `hrp_weights`."""
    count = covariance.shape[0]
    weights = np.ones(count)
    if count == 1:
        return weights
    deviation = np.sqrt(np.diag(covariance))
    rho = covariance / np.outer(deviation, deviation)
    distance = np.sqrt(np.clip((1.0 - rho) / 2.0, 0.0, None))
    clusters = [_quasi_diagonal(_single_linkage(distance), count)]
    while clusters:
        halves = [
            half
            for cluster in clusters
            if len(cluster) > 1
            for half in (cluster[: len(cluster) // 2], cluster[len(cluster) // 2 :])
        ]
        for left, right in zip(halves[::2], halves[1::2], strict=True):
            risk_left = _cluster_risk(covariance, left)
            risk_right = _cluster_risk(covariance, right)
            share = 1.0 - risk_left / (risk_left + risk_right)
            weights[left] *= share
            weights[right] *= 1.0 - share
        clusters = halves
    return weights


def equal_risk_contribution(covariance: Matrix) -> Matrix | None:
    """Equal risk contribution of a covariance matrix, or None when it did not converge.

    Notes
    -----
    Maillard, Roncalli, Teiletche, The Properties of Equally Weighted Risk Contribution Portfolios,
    Journal of Portfolio Management 36(4) 2010; solved by the cyclical coordinate descent of
    Griveau-Billion, Richard, Roncalli (2013) on ``x' S x / 2 - sum(ln x) / n``, whose minimum is
    unique and has equal ``x_i (S x)_i``.
    """
    count = covariance.shape[0]
    deviation = np.sqrt(np.diag(covariance))
    # On correlations: the weights of the covariance are these over the deviations.
    rho = covariance / np.outer(deviation, deviation)
    x = np.full(count, 1.0 / math.sqrt(count))
    budget = 1.0 / count
    for _ in range(EQUAL_RISK_ROUNDS_MAX):
        for i in range(count):
            others = float(rho[i] @ x) - x[i]
            x[i] = (-others + math.sqrt(others * others + 4.0 * budget)) / 2.0
        shares = x * (rho @ x)
        total = float(shares.sum())
        if total > 0.0 and float(np.ptp(shares)) / total <= EQUAL_RISK_TOLERANCE:
            weights = x / deviation
            return np.asarray(weights / weights.sum(), dtype=np.float64)
    return None


def minimum_variance(covariance: Matrix) -> Matrix | None:
    """Minimum variance without short positions, or None when the matrix is near singular.

    Notes
    -----
    ``min x'Sx - 2 sum(x), x >= 0`` has the same conditions as the problem with the budget, up to
    the scale of x, and is a non-negative least squares problem in the Cholesky factor of S; the
    active-set method of Lawson and Hanson (1974) solves it exactly in finitely many steps.
    """
    deviation = np.sqrt(np.diag(covariance))
    rho = covariance / np.outer(deviation, deviation)
    if np.linalg.cond(rho) > CONDITION_MAX:
        return None
    scaled = covariance / float(np.mean(np.diag(covariance)))
    try:
        factor = np.linalg.cholesky(scaled)
    except np.linalg.LinAlgError:
        return None
    target = np.linalg.solve(factor, np.ones(scaled.shape[0]))
    x, _ = nnls(factor.T, target)
    total = float(x.sum())
    return np.asarray(x / total, dtype=np.float64) if total > 0.0 else None


def risk_shares(covariance: Matrix, weights: Sequence[float]) -> list[float]:
    """Share of the pool's variance that each alpha carries; they sum to 1."""
    w = np.asarray(weights, dtype=np.float64)
    parts = w * (covariance @ w)
    return _plain(parts / parts.sum())


def _single_linkage(distance: Matrix) -> Matrix:
    # The paper's snippet hands the square matrix itself to `linkage`, which reads its rows as
    # points: the distance between two alphas is that between their rows of distances.
    rows = distance[:, None, :] - distance[None, :, :]
    between = np.sqrt((rows * rows).sum(axis=2))
    upper = np.triu_indices(distance.shape[0], 1)
    return np.asarray(linkage(between[upper], "single"), dtype=np.float64)


def _quasi_diagonal(links: Matrix, count: int) -> list[int]:
    stack, found = [2 * count - 2], []
    while stack:
        item = stack.pop()
        if item < count:
            found.append(item)
        else:
            left, right = int(links[item - count, 0]), int(links[item - count, 1])
            stack.extend((right, left))
    return found


def _inverse_variance(covariance: Matrix) -> Matrix:
    inverse = 1.0 / np.diag(covariance)
    return np.asarray(inverse / inverse.sum(), dtype=np.float64)


def _cluster_risk(covariance: Matrix, members: list[int]) -> float:
    part = covariance[np.ix_(members, members)]
    weights = _inverse_variance(part)
    return float(weights @ part @ weights)


def _plain(values: Matrix) -> list[float]:
    return [float(value) for value in values]
