"""Canary: decide from signed sessions whether a promise is kept; more size, hold, or roll back.

Why: an edge that died must lose its size without a person, and one that lives must earn it.

Invariants:
1. `decide` is pure: the same sessions, thresholds and promise give the same decision, however
   often and whenever it is asked.
2. A metric that is missing fails; nothing defaults to a good value.
3. An alpha that keeps its promise is rolled back by the edge test with probability at most
   `edge_error_rate` over its whole life, looked at after every session.
4. Weight goes up one stage at a time and only on sessions run at the current weight.

The edge test: with promised mean and deviation, z = net / deviation and the promise p = mean less
standard errors, each session multiplies the evidence against the promise, for each bet b, by
exp(b (p - z) - v (exp(b c) - 1 - b c) / c^2), the shortfall p - z cut at c. By Bennett's
inequality this has mean at most 1 while the true mean is at least p and the variance at most v,
for any distribution; by Ville's inequality the mixture passes 1 / edge_error_rate with
probability at most edge_error_rate, ever. (Waudby-Smith and Ramdas (2024), JRSS B 86(1);
Howard et al. (2021), Annals of Statistics 49(2).)

It signs nothing and reads no file. Operator's page: `docs/canary.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from hft_platform.errors import ReasonCode, code_name


class Action(StrEnum):
    """What becomes of a canary after a session."""

    HOLD = "hold"
    STEP_UP = "step_up"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True)
class CanaryThresholds:
    """Content of canary.yaml; the packaged file explains each field."""

    weight_stages_ppm: tuple[int, ...]
    sessions_per_stage: int
    step_up_share: float
    edge_error_rate: float
    promise_standard_errors: float
    variance_factor: float
    shortfall_std_max: float
    bets: tuple[float, ...]
    loss_budget_std: float
    reject_rate_max: float
    reject_orders_min: int
    slippage_band_ticks: float
    slippage_fills_min: int


@dataclass(frozen=True, slots=True)
class Promise:
    """What gate C measured out of sample, by session, at the weight it judged.

    Attributes
    ----------
    mean_net, std_net : float
        Net result of a session, scaled money.
    session_count : int
        Sessions behind mean and deviation.
    weight_ppm : int
        Weight of those backtests.
    slippage_ticks : float or None
        Mean cost of a fill against the mid at its decision; None when it was not measured.
    """

    mean_net: float
    std_net: float
    session_count: int
    weight_ppm: int
    slippage_ticks: float | None


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """One canary session; None means the metric is missing.

    Attributes
    ----------
    session_id : str
        Which session; a session counts once.
    weight_ppm : int
        Weight it ran at.
    net : int or None
        Net result, scaled money.
    parity_identical, parity_total : int or None
        Decisions that a replay of its log reproduced, and all of them.
    approved, broker_rejects, fills : int or None
        Counts.
    slippage_ticks : float or None
        Mean slippage; may be None only without fills.
    halted_by : int
        Reason code of a halt, 0 if none.
    shed_count : int
        Market records that its log lacks for want of space.
    problem : str
        Why the session could not be read at all; empty if it could.
    """

    session_id: str
    weight_ppm: int
    net: int | None
    parity_identical: int | None
    parity_total: int | None
    approved: int | None
    broker_rejects: int | None
    fills: int | None
    slippage_ticks: float | None
    halted_by: int
    problem: str = ""
    shed_count: int = 0

    @classmethod
    def unreadable(cls, session_id: str, problem: str) -> SessionFacts:
        """A session whose summary is missing or does not verify."""
        return cls(session_id, 0, None, None, None, None, None, None, None, 0, problem)


@dataclass(frozen=True, slots=True)
class CanaryReason:
    """Why: code, sentence, what was measured, what was allowed."""

    code: int
    text: str
    observed: float | str | None
    limit: float | str | None

    def as_dict(self) -> dict[str, Any]:
        """JSON content."""
        return asdict(self) | {"name": code_name(self.code)}


@dataclass(frozen=True, slots=True)
class CanaryDecision:
    """What to do, why, and the numbers behind it."""

    action: Action
    weight_ppm: int
    reasons: tuple[CanaryReason, ...]
    facts: dict[str, float | int | None]

    def as_dict(self) -> dict[str, Any]:
        """JSON content, the same for equal inputs."""
        return {
            "action": str(self.action),
            "weight_ppm": self.weight_ppm,
            "reasons": [reason.as_dict() for reason in self.reasons],
            "facts": self.facts,
        }


def decide(
    history: Sequence[SessionFacts],
    thresholds: CanaryThresholds,
    promise: Promise,
    *,
    weight_ppm: int,
) -> CanaryDecision:
    """Decide about a canary from all of its sessions.

    Parameters
    ----------
    history : sequence of SessionFacts
        Every session since the canary's first config, in order.
    thresholds : CanaryThresholds
        Limits and error rates.
    promise : Promise
        What gate C measured.
    weight_ppm : int
        Weight signed now.

    Returns
    -------
    CanaryDecision
        Hold (same weight), step up (next stage), or roll back (weight 0) with every reason.
    """
    missing = _missing(history, promise)
    if missing:
        return CanaryDecision(Action.ROLL_BACK, 0, missing, {"sessions": len(history)})
    sessions = _once(history)
    facts: dict[str, float | int | None] = {
        "sessions": len(sessions),
        "edge_log_evidence": edge_log_evidence(sessions, thresholds, promise),
        "net_std": _net_std(sessions, promise),
        "reject_rate": _reject_rate(sessions),
        "slippage_ticks": _slippage(sessions),
        "sessions_at_weight": len(_at_weight(sessions, weight_ppm)),
        "share_at_weight": _share(_at_weight(sessions, weight_ppm), promise),
    }
    reasons = tuple(
        reason
        for _, check in _CHECKS
        if (reason := check(history, facts, thresholds, promise)) is not None
    )
    if reasons:
        return CanaryDecision(Action.ROLL_BACK, 0, reasons, facts)
    return _climb(facts, thresholds, weight_ppm)


def edge_log_evidence(
    sessions: Sequence[SessionFacts], thresholds: CanaryThresholds, promise: Promise
) -> float:
    """Largest log evidence against the promise after any session so far.

    Parameters
    ----------
    sessions : sequence of SessionFacts
        In order; every `net` is there.
    thresholds : CanaryThresholds
        Bets, cut and variance factor.
    promise : Promise
        Mean and deviation.

    Returns
    -------
    float
        Natural logarithm; the promise is rejected from -log(edge_error_rate) on. 0 without
        sessions.
    """
    promised = promised_std(promise, thresholds)
    cut, variance = thresholds.shortfall_std_max, thresholds.variance_factor
    logs = [0.0] * len(thresholds.bets)
    largest = 0.0
    for session in sessions:
        shortfall = min(promised - _z(session, promise), cut)
        for index, bet in enumerate(thresholds.bets):
            price = variance * (math.exp(bet * cut) - 1.0 - bet * cut) / (cut * cut)
            logs[index] += bet * shortfall - price
        top = max(logs)
        mixture = top + math.log(sum(math.exp(x - top) for x in logs) / len(logs))
        largest = max(largest, mixture)
    return largest


def promised_std(promise: Promise, thresholds: CanaryThresholds) -> float:
    """Mean a canary is held to, in session standard deviations."""
    error = thresholds.promise_standard_errors / math.sqrt(promise.session_count)
    return promise.mean_net / promise.std_net - error


def first_weight(thresholds: CanaryThresholds, gate_weight_ppm: int) -> int:
    """Weight of a new canary: the first stage, never above what the gates judged."""
    return min(thresholds.weight_stages_ppm[0], gate_weight_ppm)


def _missing(history: Sequence[SessionFacts], promise: Promise) -> tuple[CanaryReason, ...]:
    reasons = []
    measured = promise.std_net > 0 and promise.mean_net > 0 and promise.weight_ppm > 0
    if not measured or promise.session_count < 2:
        reasons.append(
            _reason(
                ReasonCode.CANARY_METRIC_MISSING,
                "gate C left no promise to test: mean, deviation and session count are needed",
                promise.mean_net,
                0,
            )
        )
    for session in history:
        names = [
            name
            for name in ("net", "parity_identical", "parity_total", "approved", "broker_rejects")
            if getattr(session, name) is None
        ]
        if session.fills is None or (session.fills > 0 and session.slippage_ticks is None):
            names.append("fills" if session.fills is None else "slippage_ticks")
        if session.slippage_ticks is not None and not math.isfinite(session.slippage_ticks):
            names.append("slippage_ticks")
        if session.problem or names:
            text = session.problem or f"{', '.join(names)} missing"
            reasons.append(
                _reason(
                    ReasonCode.CANARY_METRIC_MISSING,
                    f"session {session.session_id}: {text}",
                    None,
                    "every metric",
                )
            )
    return tuple(reasons)


_Check = Callable[
    [Sequence[SessionFacts], dict[str, "float | int | None"], CanaryThresholds, Promise],
    "CanaryReason | None",
]


def _parity(history: Sequence[SessionFacts], _f: Any, _t: Any, _p: Any) -> CanaryReason | None:
    for session in history:
        if session.parity_identical != session.parity_total:
            return _reason(
                ReasonCode.CANARY_PARITY_BROKEN,
                f"session {session.session_id}: a replay did not decide the same",
                session.parity_identical,
                session.parity_total,
            )
    return None


def _whole(history: Sequence[SessionFacts], _f: Any, _t: Any, _p: Any) -> CanaryReason | None:
    for session in history:
        if session.shed_count:
            return _reason(
                ReasonCode.SESSION_SHED,
                f"session {session.session_id}: its log lacks market records, so nothing shows"
                " that it decided the same",
                session.shed_count,
                0,
            )
    return None


def _rejects(
    history: Sequence[SessionFacts], facts: Any, limits: CanaryThresholds, _p: Any
) -> CanaryReason | None:
    orders = sum(session.approved or 0 for session in history)
    rate = facts["reject_rate"]
    if orders < limits.reject_orders_min or rate is None or rate <= limits.reject_rate_max:
        return None
    return _reason(
        ReasonCode.CANARY_EXECUTION_DEGRADED,
        f"share of refused orders over {orders} orders",
        rate,
        limits.reject_rate_max,
    )


def _slips(
    history: Sequence[SessionFacts], facts: Any, limits: CanaryThresholds, promise: Promise
) -> CanaryReason | None:
    fills = sum(session.fills or 0 for session in history)
    slippage = facts["slippage_ticks"]
    if fills < limits.slippage_fills_min or slippage is None:
        return None
    if promise.slippage_ticks is None:
        return _reason(
            ReasonCode.CANARY_METRIC_MISSING,
            "gate C measured no slippage to compare with",
            slippage,
            None,
        )
    allowed = promise.slippage_ticks + limits.slippage_band_ticks
    if slippage <= allowed:
        return None
    return _reason(
        ReasonCode.CANARY_EXECUTION_DEGRADED,
        f"mean slippage in ticks over {fills} fills",
        slippage,
        allowed,
    )


def _loss(_h: Any, facts: Any, limits: CanaryThresholds, _p: Any) -> CanaryReason | None:
    if facts["net_std"] >= -limits.loss_budget_std:
        return None
    return _reason(
        ReasonCode.CANARY_LOSS_BUDGET,
        "net result in promised session deviations",
        facts["net_std"],
        -limits.loss_budget_std,
    )


def _edge(_h: Any, facts: Any, limits: CanaryThresholds, _p: Any) -> CanaryReason | None:
    limit = -math.log(limits.edge_error_rate)
    if facts["edge_log_evidence"] < limit:
        return None
    return _reason(
        ReasonCode.CANARY_EDGE_LOST,
        f"log evidence against the promised edge after {facts['sessions']} sessions",
        facts["edge_log_evidence"],
        limit,
    )


_CHECKS: tuple[tuple[str, _Check], ...] = (
    ("every decision replays", _parity),
    ("every log is whole", _whole),
    ("orders are accepted", _rejects),
    ("fills cost what the backtest says", _slips),
    ("losses stay in the budget", _loss),
    ("the promised edge is there", _edge),
)
"""All are evaluated; any of them rolls back."""


def _climb(
    facts: dict[str, float | int | None], limits: CanaryThresholds, weight_ppm: int
) -> CanaryDecision:
    higher = [stage for stage in limits.weight_stages_ppm if stage > weight_ppm]
    sessions, share = facts["sessions_at_weight"] or 0, facts["share_at_weight"]
    if (
        not higher
        or sessions < limits.sessions_per_stage
        or share is None
        or share < limits.step_up_share
    ):
        return CanaryDecision(Action.HOLD, weight_ppm, (), facts)
    return CanaryDecision(Action.STEP_UP, higher[0], (), facts)


def _once(history: Sequence[SessionFacts]) -> list[SessionFacts]:
    # The same session run again is no new evidence; the first run counts.
    seen: dict[str, SessionFacts] = {}
    for session in history:
        seen.setdefault(session.session_id, session)
    return list(seen.values())


def _at_weight(sessions: Sequence[SessionFacts], weight_ppm: int) -> list[SessionFacts]:
    return [
        session
        for session in sessions
        if session.weight_ppm == weight_ppm and session.halted_by == 0 and session.parity_total
    ]


def _z(session: SessionFacts, promise: Promise) -> float:
    if session.weight_ppm == 0:
        return 0.0  # nothing could be traded: no evidence either way beyond a flat session
    return (session.net or 0) / promise.std_net * promise.weight_ppm / session.weight_ppm


def _net_std(sessions: Sequence[SessionFacts], promise: Promise) -> float:
    return math.fsum(_z(session, promise) for session in sessions)


def _share(sessions: Sequence[SessionFacts], promise: Promise) -> float | None:
    if not sessions:
        return None
    promised = len(sessions) * promise.mean_net / promise.std_net
    return math.fsum(_z(session, promise) for session in sessions) / promised


def _reject_rate(sessions: Sequence[SessionFacts]) -> float | None:
    orders = sum(session.approved or 0 for session in sessions)
    if orders == 0:
        return None
    return sum(session.broker_rejects or 0 for session in sessions) / orders


def _slippage(sessions: Sequence[SessionFacts]) -> float | None:
    fills = sum(session.fills or 0 for session in sessions)
    if fills == 0:
        return None
    total = math.fsum(
        (session.slippage_ticks or 0.0) * (session.fills or 0) for session in sessions
    )
    return total / fills


def _reason(
    code: int, text: str, observed: float | str | None, limit: float | str | None
) -> CanaryReason:
    return CanaryReason(int(code), text, observed, limit)
