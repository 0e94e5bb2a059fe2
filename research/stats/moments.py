"""The four sample moments that the Sharpe ratio statistics need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MIN_COUNT = 3
"""Fewer observations have no skewness to speak of."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Sample moments of a profit series.

    Attributes
    ----------
    count : int
        Number of periods.
    mean, sd : float
        Mean and sample standard deviation (divisor n - 1), in the unit of the series.
    sharpe : float
        Mean over standard deviation, per period.
    skewness, kurtosis : float
        Third and fourth standardized moment (divisor n); kurtosis is raw, 3 for a Normal.
    """

    count: int
    mean: float
    sd: float
    sharpe: float
    skewness: float
    kurtosis: float


def moments_of(values: Sequence[float]) -> Moments | None:
    """Compute the moments of a series.

    Parameters
    ----------
    values : sequence of float
        One profit per period.

    Returns
    -------
    Moments or None
        None when there are fewer than three values or all are equal: no Sharpe ratio exists.

    Notes
    -----
    Sums are exact (`math.fsum`), so the result does not depend on the order of the values.
    """
    count = len(values)
    if count < MIN_COUNT:
        return None
    mean = math.fsum(values) / count
    centered = [value - mean for value in values]
    second = math.fsum(c * c for c in centered) / count
    sd = math.sqrt(second * count / (count - 1))
    if sd <= abs(mean) * 1e-12:
        return None
    root = math.sqrt(second)
    return Moments(
        count=count,
        mean=mean,
        sd=sd,
        sharpe=mean / sd,
        skewness=math.fsum(c**3 for c in centered) / count / root**3,
        kurtosis=math.fsum(c**4 for c in centered) / count / root**4,
    )
