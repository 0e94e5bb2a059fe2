"""Correlation of profits and of positions, and what a new alpha adds to what trades.

Why: a second alpha that is the first one again doubles the risk and adds nothing, and a regression
over the days it was fitted on flatters whatever is regressed.

Invariants:
1. What a new alpha adds is measured on days that no weight was fitted on.
2. A new alpha's share in the mix is never negative: it is not bought in order to be sold short.
3. A number that does not exist for these days is None, never 0.

Pure functions over series; files and verdicts are in `research.gates`, weights in `weights`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from research.pool.weights import hrp_weights
from research.stats import newey_west_lag, newey_west_t

FOLDS_MIN = 2


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


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """What a new alpha adds to a pool on days that were not fitted on.

    Attributes
    ----------
    days, folds : int
        Days used, and into how many blocks of consecutive days they were cut.
    intercept : float or None
        Mean over all days of the profit that the pool, with the loading of the other folds, does
        not explain.
    t_value : float or None
        Newey-West t of that mean.
    sharpe_pool, sharpe_together : float or None
        Daily Sharpe ratio of the pool at the other folds' weights, and with the new alpha in it at
        the other folds' best share.
    marginal_sharpe : float or None
        Their difference; without a pool the alpha's own Sharpe ratio.
    share : float or None
        Mean over folds of the new alpha's share of the mix's risk, 0 where the other folds would
        not have bought it.
    """

    days: int
    folds: int
    intercept: float | None
    t_value: float | None
    sharpe_pool: float | None
    sharpe_together: float | None
    marginal_sharpe: float | None
    share: float | None

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def out_of_fold(
    days: Mapping[int, int], members: Sequence[Mapping[int, int]], *, folds: int
) -> OutOfFold:
    """Measure what an alpha adds to a pool on days that no weight was fitted on.

    Parameters
    ----------
    days : mapping of int to int
        Profit of the new alpha by trading day.
    members : sequence of mapping
        The same of each alpha in the pool. May be empty.
    folds : int
        Number of blocks of consecutive days, at least 2.

    Returns
    -------
    OutOfFold

    Notes
    -----
    For each block, from the days outside it: hierarchical risk parity weights of the members, the
    new alpha's loading b on that pool, and its share in the best mix, proportional to
    ``intercept / sigma^2`` (Treynor and Black 1973), at least 0. On the block's own days:
    ``y - b x`` goes into the intercept, ``x`` and ``x + g (y - b x)`` into the Sharpe ratios, each
    scaled by the other folds' risk so that no block weighs more than another.
    """
    if folds < FOLDS_MIN:
        raise ValueError(f"folds was {folds}; at least {FOLDS_MIN} are needed")
    shared = sorted(set(days).intersection(*members)) if members else sorted(days)
    y = [float(days[day]) for day in shared]
    if not members:
        alone, mean = _sharpe(y), math.fsum(y) / len(y) if y else None
        share = 1.0 if alone is not None else None
        return OutOfFold(len(y), 1, mean, newey_west_t(y), None, alone, alone, share)
    if not shared:
        return OutOfFold(0, folds, *([None] * 6))
    rows = [[float(member[day]) for member in members] for day in shared]
    residuals: list[float] = []
    before: list[float] = []
    after: list[float] = []
    shares: list[float] = []
    for first, last in _blocks(len(shared), folds):
        fit = _fit_mix(y[:first] + y[last:], rows[:first] + rows[last:])
        if fit is None:
            return OutOfFold(len(y), folds, *([None] * 6))
        for index in range(first, last):
            pool_profit = math.fsum(w * v for w, v in zip(fit.weights, rows[index], strict=True))
            residual = y[index] - fit.beta * pool_profit
            residuals.append(residual)
            before.append(pool_profit / fit.pool_risk)
            after.append((pool_profit + fit.gain * residual) / fit.mix_risk)
        shares.append(fit.share)
    pool_sharpe, together = _sharpe(before), _sharpe(after)
    added = None if pool_sharpe is None or together is None else together - pool_sharpe
    return OutOfFold(
        days=len(y),
        folds=folds,
        intercept=math.fsum(residuals) / len(residuals),
        t_value=newey_west_t(residuals),
        sharpe_pool=pool_sharpe,
        sharpe_together=together,
        marginal_sharpe=added,
        share=math.fsum(shares) / len(shares),
    )


@dataclass(frozen=True, slots=True)
class _Mix:
    """Weights of the members, the new alpha's loading, and how much of its rest to add."""

    weights: list[float]
    beta: float
    gain: float
    pool_risk: float
    mix_risk: float

    @property
    def share(self) -> float:
        return 1.0 - (self.pool_risk / self.mix_risk) ** 2


def _fit_mix(y: Sequence[float], rows: Sequence[Sequence[float]]) -> _Mix | None:
    weights = hrp_weights(rows)
    if weights is None:
        return None
    x = [math.fsum(w * v for w, v in zip(weights, row, strict=True)) for row in rows]
    fit = _regress(y, x)
    pool_sharpe, pool_risk = _sharpe(x), _deviation(x)
    if fit is None or pool_sharpe is None:
        return None
    beta, intercept, _, sigma = fit
    pool_mean = math.fsum(x) / len(x)
    gain = 0.0
    # A copy leaves a rest of rounding noise: nothing to add, however its tiny mean looks. A pool
    # that loses has no best share of itself, so a rest that earns goes in at the pool's own risk.
    if sigma > 1e-9 * pool_risk and intercept > 0.0:
        gain = pool_risk / sigma
        if pool_mean > 0.0:
            gain = intercept / sigma**2 * pool_risk**2 / pool_mean
    return _Mix(weights, beta, gain, pool_risk, math.hypot(pool_risk, gain * sigma))


def _blocks(count: int, folds: int) -> list[tuple[int, int]]:
    edges = [count * k // folds for k in range(folds + 1)]
    return [(low, high) for low, high in pairwise(edges) if low < high]


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


def _sharpe(values: Sequence[float]) -> float | None:
    if len(values) < 3:
        return None
    deviation = _deviation(values)
    return math.fsum(values) / len(values) / deviation if deviation > 0.0 else None


def _deviation(values: Sequence[float]) -> float:
    return math.sqrt(math.fsum(c * c for c in _centered(values)) / len(values))


def _centered(values: Sequence[float]) -> list[float]:
    mean = math.fsum(values) / len(values)
    return [value - mean for value in values]
