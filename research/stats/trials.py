"""How many independent trials a ledger of related ones amounts to, and how far they spread.

Why: ten settings of one idea are not ten ideas; counting them as ten, or as one, are both wrong.

Invariants:
1. The same series in the same order give the same number, which is at most their count.
2. Whatever cannot be compared counts as independent: missing evidence never lowers a hurdle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from research.stats.sharpe import expected_max_z, normal_quantile

CORRELATION_MIN = 0.5
"""Trials of one cluster are all correlated at least this much, pair by pair."""
CHANCE = 0.01
"""Allowed chance that independent trials look that much alike somewhere in the ledger."""
CLUSTERED_MAX = 4_000
"""Of one group; clustering is quadratic in memory, so later trials count as independent."""

WINNERS_BOUND = 2.0
"""Largest gain that tells of luck, as a multiple of the best of so many skill-less trials."""


@dataclass(frozen=True, slots=True)
class EffectiveTrials:
    """Trials that a set of related ones amounts to; `clusters` is how many groups they form."""

    effective: float
    clusters: int
    count: int


def effective_trials(series: Sequence[Mapping[int, float]]) -> EffectiveTrials:
    """Cluster trials by the correlation of their daily profits and count each cluster.

    Parameters
    ----------
    series : sequence of mapping of int to float
        Profit by trading day, one mapping per trial. Only trials over the same days are compared.

    Returns
    -------
    EffectiveTrials

    Notes
    -----
    Distance ``sqrt((1 - rho) / 2)``, complete linkage, cut at `CORRELATION_MIN` or, for few days,
    at the correlation that independent trials would show by chance. A cluster of n trials with
    mean correlation r counts as ``r + (1 - r) n``: Bailey and Lopez de Prado, The Deflated Sharpe
    Ratio, JPM 40(5) 2014, appendix on the number of trials. Identical copies count once,
    independent trials as many.
    """
    groups: dict[tuple[int, ...], dict[tuple[float, ...], int]] = {}
    for trial in series:
        days = tuple(sorted(trial))
        values = tuple(float(trial[day]) for day in days)
        copies = groups.setdefault(days, {})
        copies[values] = copies.get(values, 0) + 1
    effective, clusters = 0.0, 0
    for copies in groups.values():
        made = _clusters(np.array(list(copies), dtype=np.float64))
        effective += math.fsum(made)
        clusters += len(made)
    return EffectiveTrials(effective, clusters, len(series))


def _clusters(rows: npt.NDArray[np.float64]) -> list[float]:
    """Effective number of each cluster of distinct trials over the same days."""
    trials, days = rows.shape
    if trials == 1:
        return [1.0]
    alone = [1.0] * max(0, trials - CLUSTERED_MAX)
    rows = rows[:CLUSTERED_MAX]
    trials = len(rows)
    deviations = rows.std(axis=1)
    is_flat = deviations <= 1e-12 * np.maximum(np.abs(rows.mean(axis=1)), 1e-300)
    alone += [1.0] * int(is_flat.sum())
    rows = rows[~is_flat]
    trials = len(rows)
    if trials < 2 or days < 4:
        return alone + [1.0] * trials
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    correlation = np.clip(np.corrcoef(rows), -1.0, 1.0)
    distance = np.sqrt((1.0 - correlation) / 2.0)
    np.fill_diagonal(distance, 0.0)
    cut = math.sqrt((1.0 - _least_correlation(trials, days)) / 2.0)
    tree = linkage(squareform(distance, checks=False), method="complete")
    labels = fcluster(tree, t=cut, criterion="distance")
    counts = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        size = members.size
        if size == 1:
            counts.append(1.0)
            continue
        inside = correlation[np.ix_(members, members)]
        mean = (float(inside.sum()) - size) / (size * (size - 1))
        counts.append(mean + (1.0 - mean) * size)
    return alone + counts


def _least_correlation(trials: int, days: int) -> float:
    """Correlation from which two of so many trials belong together, by Fisher's transform."""
    pairs = trials * (trials - 1) / 2.0
    by_chance = math.tanh(normal_quantile(1.0 - CHANCE / pairs) / math.sqrt(days - 3))
    return max(CORRELATION_MIN, by_chance)


def standardized_variance(ratios: Sequence[tuple[float, int]], *, trials: float) -> float:
    """Variance of Sharpe ratios across trials, in units of the variance without skill.

    Parameters
    ----------
    ratios : sequence of (float, int)
        Per-period Sharpe ratio and number of periods of each trial.
    trials : float
        Number of trials.

    Returns
    -------
    float
        At least 1. Divided by a number of periods it is V of the deflated Sharpe ratio for a trial
        of that length.

    Notes
    -----
    ``SR sqrt(T)`` has variance 1 without skill whatever T is, so trials over different numbers of
    days can be pooled. Settings of one alpha resemble each other and would understate the spread:
    hence the floor. What is beyond luck does not tell how far luck spreads: a trial can lose
    without bound by paying costs, so a loss counts at most as the worst of `trials` skill-less
    ones; and a gain counts at most as twice the best of them, so that one strong alpha does not
    close the door to all that come after it.
    """
    if len(ratios) < 2:
        return 1.0
    luck = max(expected_max_z(trials), 1.0)
    values = [
        min(max(ratio * math.sqrt(count), -luck), WINNERS_BOUND * luck) for ratio, count in ratios
    ]
    mean = math.fsum(values) / len(values)
    return max(1.0, math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
