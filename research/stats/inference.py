"""Tests of a mean under dependence, and of many hypotheses at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

RESAMPLE_CELLS_MAX = 1 << 20
"""Blocks drawn at a time, so that many long resamples need no more memory than one."""


def newey_west_lag(count: int) -> int:
    """Bandwidth ``floor(4 (n / 100)^(2/9))`` of Newey and West (1994) for daily series.

    Parameters
    ----------
    count : int
        Number of observations.

    Returns
    -------
    int
        At least 1 when there is more than one observation.
    """
    lag = math.floor(4.0 * math.pow(count / 100.0, 2.0 / 9.0))
    return min(max(1, lag), max(count - 1, 0))


def newey_west_t(values: Sequence[float], *, lag: int | None = None) -> float | None:
    """t value of a mean with a heteroskedasticity and autocorrelation consistent variance.

    Parameters
    ----------
    values : sequence of float
        One value per period, in time order.
    lag : int, optional
        Last autocovariance used, at least horizon - 1 for overlapping labels; by default
        `newey_west_lag`.

    Returns
    -------
    float or None
        None for fewer than three values or a variance that is not positive.

    Notes
    -----
    Bartlett weights ``1 - j/(L + 1)``: Newey and West, Econometrica 55(3) 1987. Autocovariances
    have divisor n, as in the usual HAC output without small-sample correction.
    """
    count = len(values)
    if count < 3:
        return None
    used = newey_west_lag(count) if lag is None else lag
    mean = math.fsum(values) / count
    centered = [value - mean for value in values]
    long_run = math.fsum(c * c for c in centered) / count
    for j in range(1, min(used, count - 1) + 1):
        covariance = math.fsum(centered[i] * centered[i - j] for i in range(j, count)) / count
        long_run += 2.0 * (1.0 - j / (used + 1.0)) * covariance
    if long_run <= 1e-18 * mean * mean or long_run <= 0.0:
        return None
    return mean / math.sqrt(long_run / count)


def benjamini_hochberg(p_values: Sequence[float], *, level: float) -> list[bool]:
    """Reject hypotheses with a bound on the false discovery rate.

    Parameters
    ----------
    p_values : sequence of float
        One p value per hypothesis: one per alpha over the whole family, not per test of one alpha.
    level : float
        False discovery rate q.

    Returns
    -------
    list of bool
        True where the hypothesis is rejected, in the order given.

    Notes
    -----
    Benjamini and Hochberg, J. R. Statist. Soc. B 57(1) 1995: reject ``p_(1..k)``,
    ``k = max{i : p_(i) <= i q / m}``. Their 15 p values at q = .05 give four rejections.
    """
    count = len(p_values)
    order = sorted(range(count), key=lambda i: (p_values[i], i))
    last = max(
        (rank for rank, i in enumerate(order, 1) if p_values[i] <= rank * level / count), default=0
    )
    rejected = [False] * count
    for i in order[:last]:
        rejected[i] = True
    return rejected


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Quantile interval of a bootstrapped mean; `lower` and `upper` are both one-sided bounds."""

    lower: float
    upper: float
    draws: int
    block_length: int


def block_bootstrap_mean(
    values: Sequence[float],
    *,
    level: float,
    draws: int,
    seed: int,
    block_length: int = 1,
) -> Bootstrap | None:
    """Bound a mean from below and from above by a circular block bootstrap.

    Parameters
    ----------
    values : sequence of float
        One value per period (a trading day, or a round trip), in time order.
    level : float
        One-sided confidence of each bound, for instance 0.95.
    draws : int
        Number of resamples.
    seed : int
        Seed of the generator (Philox, so the same bits on every machine).
    block_length : int
        Consecutive values drawn together; 1 resamples single periods.

    Returns
    -------
    Bootstrap or None
        None for fewer than two values.

    Notes
    -----
    Percentile method; circular blocks of Politis and Romano (1992).
    """
    count = len(values)
    if count < 2:
        return None
    length = max(1, min(block_length, count))
    series = np.asarray(values, dtype=np.float64)
    wrapped = np.concatenate([series, series[: length - 1]])
    sums = np.concatenate([[0.0], np.cumsum(wrapped)])
    block_sums: npt.NDArray[np.float64] = sums[length:] - sums[:-length]
    blocks = -(-count // length)
    generator = np.random.Generator(np.random.Philox(seed))
    means = np.empty(draws)
    rows = max(1, RESAMPLE_CELLS_MAX // blocks)
    for first in range(0, draws, rows):
        starts = generator.integers(0, count, size=(min(rows, draws - first), blocks))
        means[first : first + rows] = block_sums[starts].sum(axis=1) / (blocks * length)
    means.sort()
    below = math.floor((1.0 - level) * draws)
    return Bootstrap(
        lower=float(means[below]),
        upper=float(means[draws - 1 - below]),
        draws=draws,
        block_length=length,
    )


def student_upper_bound(values: Sequence[float], *, level: float) -> float | None:
    """Bound a mean from above by Student's t, which stays honest for few values.

    Parameters
    ----------
    values : sequence of float
        Independent values.
    level : float
        One-sided confidence, for instance 0.95.

    Returns
    -------
    float or None
        None for fewer than two values.
    """
    count = len(values)
    if count < 2:
        return None
    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return mean + float(special.stdtrit(count - 1, level)) * math.sqrt(variance / count)
