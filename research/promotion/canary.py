"""Canary: decide from signed sessions whether a promise is kept; more size, hold, or roll back.

Why: an edge that died must lose its size without a person, and one that lives must earn it.

Invariants:
1. `decide` is pure: the same sessions, thresholds and promise give the same decision, however
   often and whenever it is asked.
2. A metric that is missing fails, in a session or in the promise; nothing defaults to a good value.
3. A canary that keeps its promise is rolled back by any of the sequential tests with probability at
   most `error_rate` over its whole life, looked at after every session; each test has its share.
4. A decision that does not replay, or a log that is not whole, rolls back at once; so does a loss
   beyond the budget. These need no statistics and have no error rate.
5. Weight goes up one stage at a time and only on sessions run at the current weight, with enough
   sessions, orders and fills among them that every test had evidence.
6. At the last stage, and after graduation to live, the same tests go on.

It signs nothing and reads no file. Operator's page: `docs/canary.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from hft_platform.errors import ReasonCode
from research.promotion.canary_metrics import (
    LOG_EVIDENCE,
    edge_log_evidence,
    execution_names,
    loss_budget_error_bound,
    net_in_deviations,
    promised_std,
)
from research.promotion.canary_model import (
    Action,
    CanaryDecision,
    CanaryReason,
    CanaryThresholds,
    Facts,
    Promise,
    PromisedMetric,
    SessionFacts,
)

__all__ = [
    "Action",
    "CanaryDecision",
    "CanaryReason",
    "CanaryThresholds",
    "Promise",
    "PromisedMetric",
    "SessionFacts",
    "decide",
    "edge_log_evidence",
    "first_weight",
    "last_weight",
    "missing_quota",
    "promised_std",
]

_COUNTS = (
    "net", "parity_identical", "parity_total", "orders", "broker_rejects", "unknown", "fills",
    "filled_orders",
)  # fmt: skip


FULL_PPM = 1_000_000
"""Full size, in parts per million."""


def decide(
    history: Sequence[SessionFacts],
    thresholds: CanaryThresholds,
    promise: Promise,
    *,
    weight_ppm: int,
    capacity_ppm: int = FULL_PPM,
) -> CanaryDecision:
    """Decide about a canary from all of its sessions.

    Parameters
    ----------
    history : sequence of SessionFacts
        Every run of a session since the canary's first config, in order.
    thresholds : CanaryThresholds
        Limits and error rates.
    promise : Promise
        What gate C measured.
    weight_ppm : int
        Weight signed now.
    capacity_ppm : int, optional
        Weight that gate D found room for in the book; no stage goes beyond it.

    Returns
    -------
    CanaryDecision
        Hold (same weight), step up (next stage), or roll back (weight 0) with every reason.
    """
    missing = _missing(history, thresholds, promise)
    if missing:
        return CanaryDecision(Action.ROLL_BACK, 0, missing, {"sessions": len(history)})
    facts = _facts(history, thresholds, promise, weight_ppm=weight_ppm)
    reasons = [
        reason for _, check in _RULES if (reason := check(history, facts, thresholds)) is not None
    ]
    reasons += _rejections(facts, thresholds)
    if reasons:
        return CanaryDecision(Action.ROLL_BACK, 0, tuple(reasons), facts)
    return _climb(facts, thresholds, weight_ppm, capacity_ppm)


def first_weight(thresholds: CanaryThresholds, gate_weight_ppm: int) -> int:
    """Weight of a new canary: the first stage, never above what the gates judged."""
    return min(thresholds.weight_stages_ppm[0], gate_weight_ppm)


def last_weight(thresholds: CanaryThresholds, capacity_ppm: int) -> int:
    """Weight that a canary can reach: the last stage, as far as there is room in the book."""
    return min(thresholds.weight_stages_ppm[-1], capacity_ppm)


def missing_quota(facts: Facts, limits: CanaryThresholds) -> list[str]:
    """What the sessions at the current weight lack as evidence, in words; empty when enough.

    Parameters
    ----------
    facts : dict
        Of a decision.
    limits : CanaryThresholds
        Sessions, orders, fills and share that are asked for.

    Returns
    -------
    list of str
    """
    quota = (
        ("sessions_at_weight", limits.sessions_per_stage),
        ("orders_at_weight", limits.stage_orders_min),
        ("fills_at_weight", limits.stage_fills_min),
        ("share_at_weight", limits.step_up_share),
    )
    return [
        f"{name} {facts.get(name) or 0:.4g} of {least:g}"
        for name, least in quota
        if (facts.get(name) or 0) < least
    ]


def _missing(
    history: Sequence[SessionFacts], limits: CanaryThresholds, promise: Promise
) -> tuple[CanaryReason, ...]:
    reasons = [_missing_promise(promise, limits)]
    for session in history:
        names = _missing_names(session, limits)
        if session.problem or names:
            text = session.problem or (
                f"{', '.join(names)} missing; a summary of an older runtime lacks it, and no"
                " metric counts as good unseen"
            )
            reasons.append(
                _reason(
                    ReasonCode.CANARY_METRIC_MISSING,
                    f"session {session.name}: {text}",
                    None,
                    "every metric",
                )
            )
    return tuple(reason for reason in reasons if reason is not None)


def _missing_promise(promise: Promise, limits: CanaryThresholds) -> CanaryReason | None:
    is_measured = promise.std_net > 0 and promise.mean_net > 0 and promise.weight_ppm > 0
    if not is_measured or promise.session_count < 2:
        return _reason(
            ReasonCode.CANARY_METRIC_MISSING,
            "gate C left no promise to test: mean, deviation and session count are needed",
            promise.mean_net,
            0,
        )
    for name in execution_names(limits):
        said = promise.execution.get(name)
        if said is None or said.session_count < 2 or said.size_mean <= 0:
            return _reason(
                ReasonCode.CANARY_METRIC_MISSING,
                f"gate C measured no {name} by session to compare with; run gate C again",
                None if said is None else said.session_count,
                2,
            )
    return None


def _missing_names(session: SessionFacts, limits: CanaryThresholds) -> list[str]:
    names = [name for name in _COUNTS if getattr(session, name) is None]
    means = {
        "slippage_ticks": session.slippage_ticks,
        f"markout_ticks {limits.markout_horizon}": session.markout_ticks.get(
            limits.markout_horizon
        ),
    }
    for name, value in means.items():
        # Without fills there is nothing to measure; with one there is.
        is_unseen = bool(session.fills) and value is None
        if is_unseen or (value is not None and not math.isfinite(value)):
            names.append(name)
    return names


def _facts(
    runs: Sequence[SessionFacts],
    limits: CanaryThresholds,
    promise: Promise,
    *,
    weight_ppm: int,
) -> Facts:
    sessions = _once(runs)
    here = _at_weight(sessions, weight_ppm)
    horizon = limits.markout_horizon
    orders = sum(s.orders or 0 for s in runs)
    facts: Facts = {
        "sessions": len(sessions),
        "runs": len(runs),
        "orders": orders,
        "net_std": _net(runs, promise),
        "loss_budget_error_bound": loss_budget_error_bound(limits, promise),
        "reject_rate": _share_of(sum(s.broker_rejects or 0 for s in runs), orders),
        "unknown_rate": _share_of(sum(s.unknown or 0 for s in runs), orders),
        "fill_ratio": _share_of(sum(s.filled_orders or 0 for s in runs), orders),
        "slippage_ticks": _by_fill(runs, [s.slippage_ticks for s in runs]),
        f"markout_ticks_{horizon}": _by_fill(runs, [s.markout_ticks.get(horizon) for s in runs]),
        "sessions_at_weight": len(here),
        "orders_at_weight": sum(s.orders or 0 for s in here),
        "fills_at_weight": sum(s.fills or 0 for s in here),
        "share_at_weight": _share(here, promise),
    }
    for name, evidence in LOG_EVIDENCE.items():
        facts[f"{name}_log_evidence"] = evidence(runs, limits, promise)
    return facts


_Rule = Callable[[Sequence[SessionFacts], Facts, CanaryThresholds], "CanaryReason | None"]


def _parity(
    history: Sequence[SessionFacts], _f: Facts, _t: CanaryThresholds
) -> CanaryReason | None:
    for session in history:
        if session.parity_identical != session.parity_total:
            return _reason(
                ReasonCode.CANARY_PARITY_BROKEN,
                f"session {session.name}: a replay did not decide the same",
                session.parity_identical,
                session.parity_total,
            )
    return None


def _whole(history: Sequence[SessionFacts], _f: Facts, _t: CanaryThresholds) -> CanaryReason | None:
    for session in history:
        if session.shed_count:
            return _reason(
                ReasonCode.SESSION_SHED,
                f"session {session.name}: its log lacks market records, so nothing shows"
                " that it decided the same",
                session.shed_count,
                0,
            )
    return None


def _loss(
    _h: Sequence[SessionFacts], facts: Facts, limits: CanaryThresholds
) -> CanaryReason | None:
    net = facts["net_std"] or 0.0
    if net >= -limits.loss_budget_std:
        return None
    return _reason(
        ReasonCode.CANARY_LOSS_BUDGET,
        "net result in promised session deviations",
        net,
        -limits.loss_budget_std,
    )


_RULES: tuple[tuple[str, _Rule], ...] = (
    ("every decision replays", _parity),
    ("every log is whole", _whole),
    ("losses stay in the budget", _loss),
)
"""All are evaluated; any of them rolls back. They have no error rate."""

_SAID = {
    "edge": (ReasonCode.CANARY_EDGE_LOST, "the promised edge", "net_std"),
    "slippage": (ReasonCode.CANARY_EXECUTION_DEGRADED, "promised slippage", "slippage_ticks"),
    "markout": (ReasonCode.CANARY_EXECUTION_DEGRADED, "the promised markout", "markout"),
    "fill_ratio": (ReasonCode.CANARY_EXECUTION_DEGRADED, "the promised fill ratio", "fill_ratio"),
    "reject_rate": (
        ReasonCode.CANARY_EXECUTION_DEGRADED, "a reject rate in its limit", "reject_rate",
    ),
    "unknown_rate": (
        ReasonCode.CANARY_EXECUTION_DEGRADED, "an unknown rate in its limit", "unknown_rate",
    ),
}  # fmt: skip


def _rejections(facts: Facts, limits: CanaryThresholds) -> list[CanaryReason]:
    reasons = []
    for name, (code, what, measured) in _SAID.items():
        evidence = facts[f"{name}_log_evidence"] or 0.0
        limit = -math.log(limits.error_rates[name])
        if evidence < limit:
            continue
        key = f"markout_ticks_{limits.markout_horizon}" if measured == "markout" else measured
        value = facts[key]
        shown = "unseen" if value is None else f"{value:.4g}"
        text = f"log evidence against {what} after {facts['sessions']} sessions ({key} was {shown})"
        reasons.append(_reason(code, text, evidence, limit))
    return reasons


def _climb(
    facts: Facts, limits: CanaryThresholds, weight_ppm: int, capacity_ppm: int
) -> CanaryDecision:
    stages = [min(stage, capacity_ppm) for stage in limits.weight_stages_ppm]
    higher = [stage for stage in stages if stage > weight_ppm]
    if not higher or missing_quota(facts, limits):
        return CanaryDecision(Action.HOLD, weight_ppm, (), facts)
    return CanaryDecision(Action.STEP_UP, higher[0], (), facts)


def _once(history: Sequence[SessionFacts]) -> list[SessionFacts]:
    # The same session run again is no new evidence to climb by; the first run counts.
    seen: dict[tuple[str, str], SessionFacts] = {}
    for session in history:
        seen.setdefault((session.symbol, session.session_id), session)
    return list(seen.values())


def _net(runs: Sequence[SessionFacts], promise: Promise) -> float:
    # Running a good session once more does not earn a loss back; losing once more is a loss.
    seen: set[tuple[str, str]] = set()
    nets = []
    for run in runs:
        net, key = net_in_deviations(run, promise), (run.symbol, run.session_id)
        nets.append(min(0.0, net) if key in seen else net)
        seen.add(key)
    return math.fsum(nets)


def _at_weight(sessions: Sequence[SessionFacts], weight_ppm: int) -> list[SessionFacts]:
    return [
        session
        for session in sessions
        if session.weight_ppm == weight_ppm and session.halted_by == 0 and session.parity_total
    ]


def _share(sessions: Sequence[SessionFacts], promise: Promise) -> float | None:
    if not sessions:
        return None
    promised = len(sessions) * promise.mean_net / promise.std_net
    return math.fsum(net_in_deviations(session, promise) for session in sessions) / promised


def _share_of(count: int, orders: int) -> float | None:
    return count / orders if orders else None


def _by_fill(sessions: Sequence[SessionFacts], values: Sequence[float | None]) -> float | None:
    fills = sum(session.fills or 0 for session in sessions)
    if fills == 0:
        return None
    rows = zip(sessions, values, strict=True)
    return math.fsum((value or 0.0) * (session.fills or 0) for session, value in rows) / fills


def _reason(
    code: int, text: str, observed: float | str | None, limit: float | str | None
) -> CanaryReason:
    return CanaryReason(int(code), text, observed, limit)
