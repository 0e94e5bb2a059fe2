"""Gate E: does the runtime do in its paper sessions what the backtest said it would?

Why: the last difference between a backtest and money is the program that trades.

Invariants:
1. Evidence is the runtime's own signed session summaries; a bad signature is no session.
2. Only sessions of this alpha, this code and this latency profile count, and each session once.
3. A metric that is missing is missed.
4. A session of ours that shed records, or whose parity or account is missing, is not left out: it
   fails the others.
5. Sessions of one kind of day are evidence about that kind: several volatility regimes are asked
   for, and every part of the day (day, night) that gate C judged.

Operator's page: `docs/gates.md`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hft_platform.errors import ReasonCode
from hft_platform.services.session_facts import MARKOUT_NS
from research.gates.checks import Check, at_least, at_most, finding
from research.gates.thresholds import GateEThresholds
from research.gates.verdict import Finding, reason

LATENCY_QUANTILES = ("p50", "p95")


@dataclass(frozen=True, slots=True)
class ExecutionQuality:
    """How one session's orders were executed; slippage against us is positive.

    Latency is from a decision to the broker's first report, by quantile.

    A value is None when the session has no fill to measure it on.
    """

    fills: int
    slippage_ticks: float | None
    markout_ticks: dict[str, float | None]
    order_latency_ms: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class ShadowSession:
    """One verified summary of a shadow session, beside the backtest of the same records.

    `regime` is the tercile of in-sample volatility that the session's own falls into, None where
    it could not be measured; `part_of_day` is ``day`` or ``night``.
    """

    session_id: str
    trading_day: int
    summary_sha256: str
    parity_identical: int
    parity_total: int
    orders: int
    rejects: int
    unknown: int
    halted_by: int
    session: ExecutionQuality
    backtest: ExecutionQuality
    net: int
    backtest_net: int
    volatility: float | None
    regime: str | None
    part_of_day: str


@dataclass(frozen=True, slots=True)
class ShadowEvidence:
    """Everything gate E decides from.

    Attributes
    ----------
    sessions : tuple of ShadowSession
        Verified ones, by session.
    refused : dict of str to int
        Number of summaries that were not counted, by why.
    parts_of_day : tuple of str
        Those that gate C judged.
    latency_profile_sha256 : str
        The one profile of gate C, of every session counted and of their backtests.
    unsound : int
        Sessions of this very config that cannot be judged, so that nothing can be judged well.
    """

    sessions: tuple[ShadowSession, ...]
    refused: dict[str, int]
    parts_of_day: tuple[str, ...]
    latency_profile_sha256: str
    unsound: int = 0


def evaluate(evidence: ShadowEvidence, thresholds: GateEThresholds) -> Finding:
    """Judge shadow sessions.

    Parameters
    ----------
    evidence : ShadowEvidence
        See its fields.
    thresholds : GateEThresholds
        See the packaged gates.yaml.

    Returns
    -------
    Finding
    """
    t, sessions = thresholds, evidence.sessions
    days = sorted({s.trading_day for s in sessions})
    results = _results(evidence, days)
    broken = _parity(sessions, t)
    if broken.observed is not None and not broken.passed:
        return finding([broken], results)
    orders = sum(s.orders for s in sessions)
    checks = [
        broken,
        at_most(
            "reject_share",
            _share(sessions, "rejects", orders),
            t.reject_share_max,
            "share of orders refused",
        ),
        at_most(
            "unknown_share",
            _share(sessions, "unknown", orders),
            t.unknown_share_max,
            "share of orders whose outcome is unknown",
        ),
        at_most(
            "halted_sessions",
            sum(s.halted_by != 0 for s in sessions),
            0,
            "number of sessions that halted",
        ),
        at_most(
            "unsound_sessions",
            evidence.unsound,
            0,
            "number of sessions that shed records or have no parity or account",
        ),
        *(
            at_most(
                f"latency_ratio_{quantile}",
                _ratio(sessions, quantile),
                t.latency_ratio_max,
                f"{quantile} of the time to the first report, over the backtest's",
                code=ReasonCode.CANARY_EXECUTION_DEGRADED,
            )
            for quantile in LATENCY_QUANTILES
        ),
        at_most(
            "slippage_difference",
            _difference(sessions, "slippage"),
            t.slippage_ticks_difference_max,
            "slippage against the backtest in ticks",
            code=ReasonCode.CANARY_EXECUTION_DEGRADED,
        ),
        *(
            at_most(
                f"markout_difference_{horizon}",
                _difference(sessions, horizon),
                t.markout_ticks_difference_max,
                f"markout after {horizon} against the backtest in ticks",
                code=ReasonCode.CANARY_EXECUTION_DEGRADED,
            )
            for horizon in MARKOUT_NS
        ),
    ]
    return finding(checks, results, missing=_missing(evidence, days, t))


def _parity(sessions: Sequence[ShadowSession], t: GateEThresholds) -> Check:
    total = sum(s.parity_total for s in sessions)
    identical = sum(s.parity_identical for s in sessions)
    share = identical / total if total else None
    return at_least(
        "parity_share",
        share,
        t.parity_share_min,
        f"share of {total} decisions that replayed identically",
        code=ReasonCode.PARITY_BROKEN,
    )


def _missing(
    evidence: ShadowEvidence, days: Sequence[int], t: GateEThresholds
) -> list[dict[str, Any]]:
    sessions = evidence.sessions
    few, missing = ReasonCode.SHADOW_SESSIONS_TOO_FEW, ReasonCode.GATE_INSUFFICIENT_EVIDENCE
    fills = sum(s.session.fills for s in sessions)
    regimes = len({s.regime for s in sessions} - {None})
    wanted = (
        (len(sessions), t.sessions_min, "signed shadow sessions", few),
        (len(days), t.days_min, "trading days in shadow", few),
        (fills, t.fills_min, "fills in shadow", missing),
        (regimes, t.volatility_regimes_min, "volatility regimes in shadow", missing),
    )
    found = [
        reason(
            code,
            f"{have} {what}; {limit - have} more would decide",
            observed=have,
            limit=limit,
        )
        for have, limit, what, code in wanted
        if have < limit
    ]
    seen = {s.part_of_day for s in sessions}
    found += [
        reason(
            missing,
            f"no {part} session in shadow, and gate C judged {part} sessions; one would decide",
            observed=0,
            limit=1,
        )
        for part in evidence.parts_of_day
        if part not in seen
    ]
    return found


def _share(sessions: Sequence[ShadowSession], name: str, orders: int) -> float | None:
    return sum(getattr(s, name) for s in sessions) / orders if orders else None


def _difference(sessions: Sequence[ShadowSession], name: str) -> float | None:
    """Fill-weighted mean difference between session and backtest, absolute, in ticks."""
    ours, theirs = (
        _weighted([getattr(s, side) for s in sessions], name) for side in ("session", "backtest")
    )
    return abs(ours - theirs) if ours is not None and theirs is not None else None


def _ratio(sessions: Sequence[ShadowSession], quantile: str) -> float | None:
    """Order-weighted mean of a latency quantile, over the same of the backtests."""
    pairs = [
        (
            s.orders,
            s.session.order_latency_ms.get(quantile),
            s.backtest.order_latency_ms.get(quantile),
        )
        for s in sessions
        if s.orders
    ]
    if not pairs or any(ours is None or theirs is None for _, ours, theirs in pairs):
        return None
    theirs = math.fsum(n * (value or 0.0) for n, _, value in pairs)
    return math.fsum(n * (value or 0.0) for n, value, _ in pairs) / theirs if theirs else None


def _weighted(rows: Sequence[ExecutionQuality], name: str) -> float | None:
    pairs = [
        (row.fills, row.slippage_ticks if name == "slippage" else row.markout_ticks.get(name))
        for row in rows
        if row.fills
    ]
    if not pairs or any(value is None for _, value in pairs):
        return None
    total = sum(fills for fills, _ in pairs)
    return math.fsum(fills * value for fills, value in pairs if value is not None) / total


def _counts(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _results(evidence: ShadowEvidence, days: Sequence[int]) -> dict[str, Any]:
    return {
        "session_count": len(evidence.sessions),
        "trading_days": list(days),
        "refused": evidence.refused,
        "unsound": evidence.unsound,
        "latency_profile_sha256": evidence.latency_profile_sha256,
        "regimes": _counts(s.regime for s in evidence.sessions if s.regime is not None),
        "parts_of_day": _counts(s.part_of_day for s in evidence.sessions),
        "sessions": [
            {
                "session_id": s.session_id,
                "trading_day": s.trading_day,
                "summary_sha256": s.summary_sha256,
                "parity_identical": s.parity_identical,
                "parity_total": s.parity_total,
                "orders": s.orders,
                "rejects": s.rejects,
                "unknown": s.unknown,
                "fills": s.session.fills,
                "backtest_fills": s.backtest.fills,
                "net": s.net,
                "backtest_net": s.backtest_net,
                "slippage_ticks": s.session.slippage_ticks,
                "backtest_slippage_ticks": s.backtest.slippage_ticks,
                "markout_ticks": s.session.markout_ticks,
                "backtest_markout_ticks": s.backtest.markout_ticks,
                "order_latency_ms": s.session.order_latency_ms,
                "backtest_order_latency_ms": s.backtest.order_latency_ms,
                "volatility": s.volatility,
                "regime": s.regime,
                "part_of_day": s.part_of_day,
            }
            for s in evidence.sessions
        ],
    }
