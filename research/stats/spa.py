"""Hansen's test of superior predictive ability: is the best of a family better than doing nothing?

Why: the best of many settings looks good by luck; this test takes the whole family into account.

Invariants:
1. The same profits, draws and seed give the same p values.
2. A setting that adds nothing (its profit never changes) is no member of the family.

The bootstrap is that of `arch`, loaded on first use: importing it takes seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PERIODS_MIN = 10
"""Fewer periods have no block length to estimate."""


@dataclass(frozen=True, slots=True)
class Spa:
    """Result of the test.

    Attributes
    ----------
    lower, consistent, upper : float
        p values of Hansen's three variants; `consistent` is the test, the others bound it.
    statistic : float
        Mean over deviation of the best setting.
    critical_value : float
        What `statistic` must exceed for a consistent p value of `level`.
    block_length : float
        Mean length of the blocks drawn.
    family : int
        Settings compared.
    """

    lower: float
    consistent: float
    upper: float
    statistic: float
    critical_value: float
    block_length: int
    family: int


def superior_predictive_ability(
    profits: npt.NDArray[np.float64],
    *,
    draws: int,
    seed: int,
    level: float = 0.05,
    block_length: int | None = None,
) -> Spa | None:
    """Test the best column against a benchmark that makes nothing.

    Parameters
    ----------
    profits : ndarray of float64, shape (periods, settings)
        Profit per period of every setting tried.
    draws : int
        Bootstrap resamples.
    seed : int
        Seed of the bootstrap.
    level : float, optional
        Level of `Spa.critical_value`.
    block_length : int, optional
        Mean block length of the stationary bootstrap; by default that of Politis and White (2004,
        corrected 2009) for the average of the settings, each over its deviation.

    Returns
    -------
    Spa or None
        None for fewer than ten periods or a family without a setting that changes.

    Notes
    -----
    Hansen, A Test for Superior Predictive Ability, JBES 23(4) 2005, with losses = -profits and a
    benchmark of zero loss. Each column is divided by its deviation first: the maximum is then over
    studentized means, and a noisy setting cannot hide a good one.
    """
    periods = profits.shape[0]
    if profits.ndim != 2 or periods < PERIODS_MIN:
        return None
    means, deviations = profits.mean(axis=0), profits.std(axis=0)
    is_alive = deviations > 1e-12 * np.maximum(np.abs(means), 1e-300)
    if not is_alive.any():
        return None
    scaled = np.ascontiguousarray(profits[:, is_alive] / deviations[is_alive])
    length = block_length or stationary_block_length(scaled.mean(axis=1))
    from arch.bootstrap import SPA  # on first use: seconds

    test = SPA(
        np.zeros(periods),
        -scaled,
        block_size=length,
        reps=draws,
        bootstrap="stationary",
        seed=seed,
    )
    test.compute()
    p_values = test.pvalues
    return Spa(
        lower=float(p_values["lower"]),
        consistent=float(p_values["consistent"]),
        upper=float(p_values["upper"]),
        statistic=float(scaled.mean(axis=0).max()),
        critical_value=float(test.critical_values(level)["consistent"]),
        block_length=length,
        family=int(is_alive.sum()),
    )


def stationary_block_length(values: npt.NDArray[np.float64]) -> int:
    """Mean block length for the stationary bootstrap of one series.

    Parameters
    ----------
    values : ndarray of float64, shape (periods,)
        In time order.

    Returns
    -------
    int
        Between 1 (independent periods) and the square root of their number.

    Notes
    -----
    Politis and White, Econometric Reviews 23(1) 2004, with the correction of 2009.
    """
    if values.size < PERIODS_MIN or np.ptp(values) == 0.0:
        return 1
    from arch.bootstrap import optimal_block_length  # on first use: seconds

    estimate = float(optimal_block_length(values)["stationary"].iloc[0])
    if not math.isfinite(estimate):
        return 1
    return max(1, min(round(estimate), math.isqrt(values.size)))
