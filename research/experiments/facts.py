"""TrialFacts: what the trials of a ledger amount to, for the deflation of a Sharpe ratio.

Why: a hurdle follows from how many independent tries there were and how far they spread.

Invariants:
1. All declared trials count. Those without an outcome, or that failed, count as independent ones.
2. The same outcomes give the same facts, in whatever order they were recorded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from research import stats
from research.experiments.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class TrialFacts:
    """Count, effective number and spread of trials.

    Attributes
    ----------
    count : int
        Declared trials.
    effective : float
        How many independent ones they amount to.
    spread : float
        Variance of their Sharpe ratios over that of trials without skill; at least 1. Over T days,
        V of the deflated Sharpe ratio is ``spread / T``.
    evaluated, failed : int
        Trials with profits, and trials that could not be evaluated.
    clusters : int
        Groups that the evaluated ones form.
    """

    count: int
    effective: float
    spread: float
    evaluated: int = 0
    failed: int = 0
    clusters: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Part of a verdict's results."""
        return {
            "count": self.count,
            "effective": self.effective,
            "spread": self.spread,
            "evaluated": self.evaluated,
            "failed": self.failed,
            "clusters": self.clusters,
        }


def independent_trials(count: int) -> TrialFacts:
    """Facts of trials of which only the number is known: independent, without skill."""
    return TrialFacts(count=count, effective=float(max(count, 1)), spread=1.0)


def trial_facts(outcomes: Iterable[Outcome], *, declared: int) -> TrialFacts:
    """Compute the facts of a ledger.

    Parameters
    ----------
    outcomes : iterable of Outcome
        Newest outcome of each trial that has one.
    declared : int
        Trials declared, those without an outcome included.

    Returns
    -------
    TrialFacts
    """
    known = sorted(outcomes, key=lambda o: o.key)
    series = [o.daily for o in known if o.daily]
    found = stats.effective_trials(series)
    count = max(declared, len(known))
    effective = max(found.effective + count - len(series), 1.0)
    ratios = []
    for daily in series:
        moments = stats.moments_of([float(daily[day]) for day in sorted(daily)])
        ratios.append((moments.sharpe if moments else 0.0, len(daily)))
    return TrialFacts(
        count=count,
        effective=effective,
        spread=stats.standardized_variance(ratios, trials=effective),
        evaluated=len(series),
        failed=sum(o.failure is not None for o in known),
        clusters=found.clusters,
    )
