"""Gate E: does the runtime do in its paper sessions what the backtest said it would?

Why: the last difference between a backtest and money is the program that trades.

Invariants:
1. Evidence is the runtime's own signed session summaries; a bad signature is no session.
2. Only sessions of this alpha, this code and this latency profile count, and each session once.
3. A metric that is missing is missed.

Operator's page: `docs/gates.md`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hft_platform.errors import ReasonCode
from research.gates.checks import Check, at_least, at_most, finding
from research.gates.thresholds import GateEThresholds
from research.gates.verdict import Finding, GateVerdict, reason


@dataclass(frozen=True, slots=True)
class ExecutionQuality:
    """How one session's orders were executed; ticks against us are positive.

    A value is None when the session has no fill to measure it on.
    """

    fills: int
    slippage_ticks: float | None
    markout_ticks: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class ShadowSession:
    """One verified summary of a shadow session, beside the backtest of the same records."""

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


@dataclass(frozen=True, slots=True)
class ShadowEvidence:
    """Everything gate E decides from.

    Attributes
    ----------
    sessions : tuple of ShadowSession
        Verified ones, by session.
    refused : dict of str to int
        Number of summaries that were not counted, by why.
    """

    sessions: tuple[ShadowSession, ...]
    refused: dict[str, int]


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
    if not broken.passed:
        return finding([broken], results)
    missing = _missing(sessions, days, t)
    if missing:
        return Finding(GateVerdict.INSUFFICIENT_EVIDENCE, tuple(missing), results | {"checks": []})
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
            for horizon in sorted(sessions[0].session.markout_ticks)
        ),
    ]
    return finding(checks, results)


def _parity(sessions: Sequence[ShadowSession], t: GateEThresholds) -> Check:
    total = sum(s.parity_total for s in sessions)
    identical = sum(s.parity_identical for s in sessions)
    share = identical / total if total else 1.0
    return at_least(
        "parity_share",
        share,
        t.parity_share_min,
        f"share of {total} decisions that replayed identically",
        code=ReasonCode.PARITY_BROKEN,
    )


def _missing(
    sessions: Sequence[ShadowSession], days: Sequence[int], t: GateEThresholds
) -> list[dict[str, Any]]:
    fills = sum(s.session.fills for s in sessions)
    wanted = (
        (
            len(sessions),
            t.sessions_min,
            "signed shadow sessions",
            ReasonCode.SHADOW_SESSIONS_TOO_FEW,
        ),
        (len(days), t.days_min, "trading days in shadow", ReasonCode.SHADOW_SESSIONS_TOO_FEW),
        (fills, t.fills_min, "fills in shadow", ReasonCode.GATE_INSUFFICIENT_EVIDENCE),
    )
    return [
        reason(
            code,
            f"{have} {what}; {limit - have} more would decide",
            observed=have,
            limit=limit,
        )
        for have, limit, what, code in wanted
        if have < limit
    ]


def _share(sessions: Sequence[ShadowSession], name: str, orders: int) -> float | None:
    return sum(getattr(s, name) for s in sessions) / orders if orders else None


def _difference(sessions: Sequence[ShadowSession], name: str) -> float | None:
    """Fill-weighted mean difference between session and backtest, absolute, in ticks."""
    ours, theirs = (
        _weighted([getattr(s, side) for s in sessions], name) for side in ("session", "backtest")
    )
    return abs(ours - theirs) if ours is not None and theirs is not None else None


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


def _results(evidence: ShadowEvidence, days: Sequence[int]) -> dict[str, Any]:
    return {
        "session_count": len(evidence.sessions),
        "trading_days": list(days),
        "refused": evidence.refused,
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
            }
            for s in evidence.sessions
        ],
    }
