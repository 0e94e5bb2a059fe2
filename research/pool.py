"""Pool: correlation of profits, what a new alpha adds, and weights.

Pure functions over profit series; everything about files and verdicts is in `research.gates`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import linkage

from research.stats import newey_west_lag, newey_west_t


def correlation(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Pearson correlation of two profit series.

    Parameters
    ----------
    left, right : sequence of float
        Profit of the same days.

    Returns
    -------
    float or None
        None for fewer than three days or a series that never changes.
    """
    count = len(left)
    if count != len(right):
        raise ValueError(f"series have {count} and {len(right)} days; they must be the same days")
    if count < 3:
        return None
    a, b = _centered(left), _centered(right)
    scale = math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))
    if scale == 0.0:
        return None
    value = math.fsum(x * y for x, y in zip(a, b, strict=True)) / scale
    return max(-1.0, min(1.0, value))


@dataclass(frozen=True, slots=True)
class Marginal:
    """What a new alpha adds to a pool.

    Attributes
    ----------
    days : int
        Days the regression used.
    beta : float or None
        Loading on the pool's profit; None without a pool.
    intercept : float or None
        Mean daily profit that the pool does not explain.
    t_value : float or None
        Newey-West t of the intercept.
    sharpe_alone, sharpe_pool, sharpe_together : float or None
        Daily Sharpe ratios: alone, the pool, and the best mix ``sqrt(SR_pool^2 + (a/s)^2)``.
    """

    days: int
    beta: float | None
    intercept: float | None
    t_value: float | None
    sharpe_alone: float | None
    sharpe_pool: float | None
    sharpe_together: float | None

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def marginal(days: Mapping[int, int], members: Sequence[Mapping[int, int]]) -> Marginal:
    """Regress an alpha's profit on the pool's.

    Parameters
    ----------
    days : mapping of int to int
        Profit of the new alpha by trading day.
    members : sequence of mapping
        The same of each alpha in the pool; the pool's profit is their sum. May be empty.

    Returns
    -------
    Marginal

    Notes
    -----
    The intercept's t value is that of ``y - b x`` (its Newey-West form with the regressor's
    influence on the mean kept), and ``SR^2 = SR_pool^2 + (intercept / sigma)^2`` is exact for the
    best mix (Gibbons, Ross, Shanken 1989).
    """
    shared = sorted(set(days).intersection(*members)) if members else sorted(days)
    y = [float(days[d]) for d in shared]
    alone = _sharpe(y)
    if not members:
        mean = math.fsum(y) / len(y) if y else None
        return Marginal(len(y), None, mean, newey_west_t(y), alone, None, alone)
    x = [math.fsum(float(member[d]) for member in members) for d in shared]
    fit = _regress(y, x)
    pool_sharpe = _sharpe(x)
    if fit is None:
        return Marginal(len(y), None, None, None, alone, pool_sharpe, None)
    beta, intercept, t_value, sigma = fit
    together = None
    if pool_sharpe is not None and sigma > 0.0:
        together = math.sqrt(pool_sharpe**2 + (intercept / sigma) ** 2)
    return Marginal(len(y), beta, intercept, t_value, alone, pool_sharpe, together)


def _regress(
    y: Sequence[float], x: Sequence[float]
) -> tuple[float, float, float | None, float] | None:
    count = len(y)
    if count < 4:
        return None
    dx, dy = _centered(x), _centered(y)
    variance = math.fsum(v * v for v in dx) / count
    if variance == 0.0:
        return None
    mean_x, mean_y = math.fsum(x) / count, math.fsum(y) / count
    beta = math.fsum(a * b for a, b in zip(dx, dy, strict=True)) / count / variance
    intercept = mean_y - beta * mean_x
    residuals = [a - beta * b for a, b in zip(dy, dx, strict=True)]
    # Influence of day i on the intercept: e_i (1 - mean_x (x_i - mean_x) / var_x).
    scores = [e * (1.0 - mean_x * b / variance) for e, b in zip(residuals, dx, strict=True)]
    long_run = math.fsum(s * s for s in scores) / count
    lag = newey_west_lag(count)
    for j in range(1, lag + 1):
        covariance = math.fsum(scores[i] * scores[i - j] for i in range(j, count)) / count
        long_run += 2.0 * (1.0 - j / (lag + 1.0)) * covariance
    floor = 1e-18 * (intercept * intercept + mean_y * mean_y)
    t_value = intercept / math.sqrt(long_run / count) if long_run > floor else None
    sigma = math.sqrt(math.fsum(e * e for e in residuals) / count)
    return beta, intercept, t_value, sigma


def inverse_variance_weights(profits: Sequence[Sequence[float]]) -> list[float]:
    """Weights by the inverse of each alpha's variance.

    Parameters
    ----------
    profits : sequence of rows, shape (days, alphas)
        Daily profits.

    Returns
    -------
    list of float
        Sum to 1.
    """
    covariance = np.cov(np.asarray(profits, dtype=np.float64), rowvar=False, ddof=1)
    return [float(w) for w in _inverse_variance(np.atleast_2d(covariance))]


def hrp_weights(profits: Sequence[Sequence[float]]) -> list[float] | None:
    """Hierarchical risk parity weights.

    Parameters
    ----------
    profits : sequence of rows, shape (days, alphas)
        Daily profits.

    Returns
    -------
    list of float or None
        Sum to 1; None when a series never changes or there are fewer than three days.

    Notes
    -----
    Lopez de Prado, Building Diversified Portfolios that Outperform Out of Sample, Journal of
    Portfolio Management 42(4) 2016, as its code snippets are: single linkage over the Euclidean
    distance between rows of the distance matrix ``sqrt((1 - rho) / 2)``, quasi-diagonal order,
    bisection of the ordered list into halves, inverse-variance risk of each half.
    """
    matrix = np.asarray(profits, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] < 3:
        return None
    count = matrix.shape[1]
    if count == 1:
        return [1.0]
    covariance = np.asarray(np.cov(matrix, rowvar=False, ddof=1), dtype=np.float64)
    if not (np.diag(covariance) > 0.0).all():
        return None
    rho = np.corrcoef(matrix, rowvar=False)
    distance = np.sqrt(np.clip((1.0 - rho) / 2.0, 0.0, None))
    order = _quasi_diagonal(_single_linkage(distance), count)
    weights = np.ones(count)
    clusters = [order]
    while clusters:
        halves = [
            half
            for cluster in clusters
            if len(cluster) > 1
            for half in (cluster[: len(cluster) // 2], cluster[len(cluster) // 2 :])
        ]
        for left, right in zip(halves[::2], halves[1::2], strict=True):
            risk_left, risk_right = (
                _cluster_risk(covariance, left),
                _cluster_risk(covariance, right),
            )
            share = 1.0 - risk_left / (risk_left + risk_right)
            weights[left] *= share
            weights[right] *= 1.0 - share
        clusters = halves
    return [float(w) for w in weights]


def _single_linkage(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    # The paper's snippet hands the square matrix itself to `linkage`, which reads its rows as
    # points: the distance between two alphas is that between their rows of distances.
    rows = distance[:, None, :] - distance[None, :, :]
    between = np.sqrt((rows * rows).sum(axis=2))
    upper = np.triu_indices(distance.shape[0], 1)
    return np.asarray(linkage(between[upper], "single"), dtype=np.float64)


def _quasi_diagonal(links: npt.NDArray[np.float64], count: int) -> list[int]:
    def leaves(node: int) -> list[int]:
        stack, found = [node], []
        while stack:
            item = stack.pop()
            if item < count:
                found.append(item)
            else:
                left, right = int(links[item - count, 0]), int(links[item - count, 1])
                stack.extend((right, left))
        return found

    return leaves(2 * count - 2)


def _inverse_variance(covariance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    inverse = 1.0 / np.diag(covariance)
    return np.asarray(inverse / inverse.sum(), dtype=np.float64)


def _cluster_risk(covariance: npt.NDArray[np.float64], members: list[int]) -> float:
    part = covariance[np.ix_(members, members)]
    weights = _inverse_variance(part)
    return float(weights @ part @ weights)


def _sharpe(values: Sequence[float]) -> float | None:
    if len(values) < 3:
        return None
    centered = _centered(values)
    variance = math.fsum(c * c for c in centered) / len(values)
    return math.fsum(values) / len(values) / math.sqrt(variance) if variance > 0.0 else None


def _centered(values: Sequence[float]) -> list[float]:
    mean = math.fsum(values) / len(values)
    return [value - mean for value in values]
