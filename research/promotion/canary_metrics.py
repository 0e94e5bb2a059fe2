"""The canary's metrics: how each becomes a sequential test against what gate C promised.

Why: six tests that may each end a canary must say what they hold it to and how often they err.

Invariants:
1. Null of a test: the metric is at least as good as promised, less its band. A canary for which
   all of them hold is rolled back by any of them with probability at most the sum of their error
   rates, over its whole life.
2. A run of a session is the unit: fills of one session depend on each other, runs are taken as
   exchangeable; runs of one session, or of one day on several instruments, are less so. Orders
   are the unit of the two rates: each may fail with the stated probability whatever happened
   before it.
3. A session in which a metric has nothing to measure (no order, no fill) is no evidence for or
   against.

Nothing here reads a file. Operator's page: `docs/canary.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from research.promotion.canary_model import (
    CanaryThresholds,
    Promise,
    PromisedMetric,
    SessionFacts,
)
from research.promotion.canary_sequential import (
    mean_log_evidence,
    rate_log_evidence,
    ruin_bound,
)

RATE_ALTERNATIVE_MAX = 0.95
Sessions = Sequence[SessionFacts]
Evidence = Callable[[Sessions, CanaryThresholds, Promise], float]


def net_in_deviations(session: SessionFacts, promise: Promise) -> float:
    """Net result in promised deviations, as if run at the weight that was judged."""
    if session.weight_ppm == 0:
        return 0.0  # nothing could be traded: no evidence either way beyond a flat session
    return (session.net or 0) / promise.std_net * promise.weight_ppm / session.weight_ppm


def promised_std(promise: Promise, thresholds: CanaryThresholds) -> float:
    """Mean a canary is held to, in session standard deviations."""
    error = thresholds.promise_standard_errors / math.sqrt(promise.session_count)
    return promise.mean_net / promise.std_net - error


def allowed_variance(session_count: int, thresholds: CanaryThresholds) -> float:
    """Variance a canary may have, in promised variances: the factor, and the estimate's own error.

    A variance estimated from n sessions has a relative standard error of sqrt(2 / (n - 1)).
    """
    error = thresholds.promise_standard_errors * math.sqrt(2.0 / (session_count - 1))
    return thresholds.variance_factor * (1.0 + error)


def edge_log_evidence(sessions: Sessions, thresholds: CanaryThresholds, promise: Promise) -> float:
    """Log evidence that the net result of a session is below the promised one."""
    promised = promised_std(promise, thresholds)
    return mean_log_evidence(
        [promised - net_in_deviations(session, promise) for session in sessions],
        thresholds.edge_bets,
        variance=allowed_variance(promise.session_count, thresholds),
    )


def slippage_log_evidence(
    sessions: Sessions, thresholds: CanaryThresholds, promise: Promise
) -> float:
    """Log evidence that fills cost more than promised and the band."""
    rows = [(s.slippage_ticks, s.fills or 0) for s in sessions]
    return _mean_evidence(
        rows,
        promise.execution["slippage_ticks"],
        thresholds,
        sign=1.0,
        band=thresholds.slippage_band_ticks,
        floor=thresholds.slippage_std_floor_ticks,
    )


def markout_log_evidence(
    sessions: Sessions, thresholds: CanaryThresholds, promise: Promise
) -> float:
    """Log evidence that the mid goes less our way after a fill than promised."""
    horizon = thresholds.markout_horizon
    rows = [(s.markout_ticks.get(horizon), s.fills or 0) for s in sessions]
    return _mean_evidence(
        rows,
        promise.execution[f"markout_ticks_{horizon}"],
        thresholds,
        sign=-1.0,
        band=thresholds.markout_band_ticks,
        floor=thresholds.markout_std_floor_ticks,
    )


def fill_ratio_log_evidence(
    sessions: Sessions, thresholds: CanaryThresholds, promise: Promise
) -> float:
    """Log evidence that a smaller share of orders is filled than promised."""
    rows = [(s.fill_ratio, s.orders or 0) for s in sessions]
    return _mean_evidence(
        rows,
        promise.execution["fill_ratio"],
        thresholds,
        sign=-1.0,
        band=thresholds.fill_ratio_band,
        floor=thresholds.fill_ratio_std_floor,
    )


def reject_rate_log_evidence(
    sessions: Sessions, thresholds: CanaryThresholds, _promise: Promise
) -> float:
    """Log evidence that orders are refused more often than `reject_rate_max`."""
    return _rate_evidence(
        [(s.broker_rejects or 0, s.orders or 0) for s in sessions],
        thresholds.reject_rate_max,
        thresholds,
    )


def unknown_rate_log_evidence(
    sessions: Sessions, thresholds: CanaryThresholds, _promise: Promise
) -> float:
    """Log evidence that orders stay without an answer more often than `unknown_rate_max`."""
    return _rate_evidence(
        [(s.unknown or 0, s.orders or 0) for s in sessions],
        thresholds.unknown_rate_max,
        thresholds,
    )


LOG_EVIDENCE: dict[str, Evidence] = {
    "edge": edge_log_evidence,
    "slippage": slippage_log_evidence,
    "markout": markout_log_evidence,
    "fill_ratio": fill_ratio_log_evidence,
    "reject_rate": reject_rate_log_evidence,
    "unknown_rate": unknown_rate_log_evidence,
}
"""By test; each rejects from -log(its error rate) on."""


def execution_names(thresholds: CanaryThresholds) -> tuple[str, ...]:
    """What gate C has to promise for the execution tests."""
    return ("slippage_ticks", f"markout_ticks_{thresholds.markout_horizon}", "fill_ratio")


def loss_budget_error_bound(thresholds: CanaryThresholds, promise: Promise) -> float:
    """Bound on the chance that a canary that keeps its promise ever uses up the loss budget.

    The budget is a limit in money and stands outside the tests' error rates. The bound holds for a
    session that loses at most the largest cut of the edge's bets, in deviations from the promise.
    """
    return ruin_bound(
        promised_std(promise, thresholds),
        thresholds.loss_budget_std,
        variance=allowed_variance(promise.session_count, thresholds),
        shortfall_max=max(bet.cut for bet in thresholds.edge_bets),
    )


def _mean_evidence(
    rows: Sequence[tuple[float | None, int]],
    promised: PromisedMetric,
    thresholds: CanaryThresholds,
    *,
    sign: float,
    band: float,
    floor: float,
) -> float:
    deviation = max(promised.std, floor)
    error = promised.std / math.sqrt(promised.session_count)
    allowed = sign * promised.mean + thresholds.promise_standard_errors * error + band
    shortfalls = []
    for value, size in rows:
        if value is None or size == 0:
            continue
        # A mean of few fills varies more than the promised deviation says; it counts for less.
        trust = math.sqrt(min(1.0, size / promised.size_mean))
        shortfalls.append(trust * (sign * value - allowed) / deviation)
    return mean_log_evidence(
        shortfalls,
        thresholds.execution_bets,
        variance=allowed_variance(promised.session_count, thresholds),
    )


def _rate_evidence(
    counts: Sequence[tuple[int, int]], rate_max: float, thresholds: CanaryThresholds
) -> float:
    alternatives = [
        min(rate_max * factor, RATE_ALTERNATIVE_MAX) for factor in thresholds.rate_factors
    ]
    # More bad events than orders (a cancel that was refused, too) is every order bad.
    bounded = [(min(bad, orders), orders) for bad, orders in counts if orders]
    return rate_log_evidence(bounded, rate_max, alternatives)
