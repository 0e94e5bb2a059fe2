"""Gate D: does it add something to what already trades, and is there room for it?

Why: the same edge bought twice is twice the risk, and an order larger than what is displayed was
never backtested honestly.

Invariants:
1. Profits come from verified gate C verdicts, by trading day; nothing is typed in.
2. Too few shared days with a pool member is missing evidence, not independence.
3. What the alpha adds is measured on days that neither the pool's weights nor its own share were
   fitted on.

Operator's page: `docs/gates.md`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hft_platform.errors import ReasonCode
from research import pool
from research.gates.checks import Check, above, at_least, at_most, finding
from research.gates.session_series import aligned
from research.gates.thresholds import GateDThresholds
from research.gates.verdict import Finding, reason
from research.pool.weights import METHODS


@dataclass(frozen=True, slots=True)
class PoolAlpha:
    """What gate D takes of one alpha, all from its verified gate C verdict.

    Attributes
    ----------
    daily_net : dict of int to int
        Out-of-sample profit by trading day at the worst corner.
    positions : dict
        Exposure through its sessions (`session_series.positions_of`).
    displayed_share : tuple of float
        Per fill: quantity over the displayed quantity, at the size the gates ran with.
    instruments : tuple of str
        Those it was judged on.
    """

    daily_net: dict[int, int]
    positions: dict[str, Any] = field(default_factory=dict)
    displayed_share: tuple[float, ...] = ()
    instruments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PoolEvidence:
    """Everything gate D decides from.

    Attributes
    ----------
    alpha : PoolAlpha
        The one that is judged.
    members : dict of str to PoolAlpha
        Every alpha that is promoted to canary or live, by key.
    gate_weight_ppm : int
        The size that the gates ran with, as parts per million of full size.
    """

    alpha: PoolAlpha
    members: dict[str, PoolAlpha]
    gate_weight_ppm: int


def evaluate(evidence: PoolEvidence, thresholds: GateDThresholds) -> Finding:
    """Judge an alpha beside the pool.

    Parameters
    ----------
    evidence : PoolEvidence
        See its fields.
    thresholds : GateDThresholds
        See the packaged gates.yaml.

    Returns
    -------
    Finding
    """
    t = thresholds
    rows = correlation_rows(evidence.alpha, evidence.members)
    profits = [member.daily_net for member in evidence.members.values()]
    added = pool.out_of_fold(evidence.alpha.daily_net, profits, folds=t.folds)
    capacity = _capacity(evidence, t)
    checks = [
        *_limit_checks(evidence, t),
        *_correlation_checks(rows, t),
        at_least(
            "marginal_t",
            added.t_value,
            t.marginal_t_min,
            "t value of the profit that the pool lacks, out of fold",
        ),
        above(
            "marginal_sharpe",
            added.marginal_sharpe,
            t.marginal_sharpe_min,
            "daily Sharpe ratio that it adds to the pool, out of fold",
        ),
        at_most(
            "participation",
            capacity["participation"],
            t.participation_max,
            f"order over displayed quantity ({t.participation_quantile:.0%} of fills)",
        ),
        at_most(
            "crowd_participation",
            capacity["crowd_participation"],
            t.crowd_participation_max,
            "the same with the orders of all members on its instruments",
        ),
    ]
    results = {
        "correlations": rows,
        "marginal": added.as_dict(),
        "marginal_in_sample": pool.marginal(evidence.alpha.daily_net, profits).as_dict(),
        "capacity": capacity,
        "weights": weights_of({"self": evidence.alpha.daily_net} | _profits(evidence.members)),
    }
    return finding(checks, results, missing=_missing(rows, t))


def _missing(rows: Sequence[dict[str, Any]], t: GateDThresholds) -> list[dict[str, Any]]:
    return [
        reason(
            ReasonCode.GATE_INSUFFICIENT_EVIDENCE,
            f"shares {row['shared_days']} trading days with {row['alpha']} of the pool; "
            f"{t.shared_days_min - row['shared_days']} more would decide",
            observed=row["shared_days"],
            limit=t.shared_days_min,
        )
        for row in rows
        if row["shared_days"] < t.shared_days_min
    ]


def correlation_rows(alpha: PoolAlpha, members: Mapping[str, PoolAlpha]) -> list[dict[str, Any]]:
    """Correlation of daily profit and of positions with each member.

    Parameters
    ----------
    alpha : PoolAlpha
        One side.
    members : mapping of str to PoolAlpha
        The other sides, by key.

    Returns
    -------
    list of dict
        By key: shared_days, correlation, shared_parts, position_correlation; None where it does
        not exist, for instance without a shared session.
    """
    rows: list[dict[str, Any]] = []
    for key, member in sorted(members.items()):
        shared = sorted(set(member.daily_net) & set(alpha.daily_net))
        mine, theirs = aligned(alpha.positions, member.positions)
        rows.append(
            {
                "alpha": key,
                "shared_days": len(shared),
                "correlation": pool.correlation(
                    [float(alpha.daily_net[d]) for d in shared],
                    [float(member.daily_net[d]) for d in shared],
                ),
                "shared_parts": len(mine),
                "position_correlation": pool.correlation(mine, theirs),
            }
        )
    return rows


def weights_of(profits: Mapping[str, Mapping[int, int]]) -> dict[str, dict[str, float]]:
    """Weights of a pool by each method, over the days that all of it shares.

    Parameters
    ----------
    profits : mapping of str to mapping of int to int
        Daily profit by alpha.

    Returns
    -------
    dict of str to dict of str to float
        By method, then alpha; a method that has no unique answer is left out.
    """
    names = sorted(profits)
    shared = sorted(set.intersection(*(set(profits[name]) for name in names))) if names else []
    rows = [[float(profits[name][day]) for name in names] for day in shared]
    found = {method: weigh(rows) for method, weigh in METHODS.items()}
    return {
        method: dict(zip(names, weights, strict=True))
        for method, weights in found.items()
        if weights is not None
    }


def _profits(members: Mapping[str, PoolAlpha]) -> dict[str, dict[int, int]]:
    return {key: member.daily_net for key, member in members.items()}


def _limit_checks(evidence: PoolEvidence, t: GateDThresholds) -> list[Check]:
    mine = evidence.alpha.instruments
    crowds = [
        sum(symbol in member.instruments for member in evidence.members.values()) for symbol in mine
    ]
    return [
        at_most(
            "pool_size", len(evidence.members), t.pool_size_max, "number of alphas in the pool"
        ),
        at_most(
            "members_per_instrument",
            max(crowds, default=0),
            t.members_per_instrument_max,
            "number of members on one of its instruments",
        ),
    ]


def _correlation_checks(rows: Sequence[dict[str, Any]], t: GateDThresholds) -> list[Check]:
    checks = [
        at_most(
            f"correlation_{row['alpha']}",
            abs(row["correlation"]) if row["correlation"] is not None else None,
            t.correlation_max,
            f"correlation of daily profit with {row['alpha']}",
            code=ReasonCode.CORRELATION_ABOVE_LIMIT,
        )
        for row in rows
    ]
    # No session in common (another market, other hours) is no shared position. Shared sessions in
    # which one of the two never held anything have no correlation: that is missed, not passed.
    checks += [
        at_most(
            f"position_correlation_{row['alpha']}",
            abs(row["position_correlation"]) if row["position_correlation"] is not None else None,
            t.position_correlation_max,
            f"correlation of positions with {row['alpha']}",
            code=ReasonCode.CORRELATION_ABOVE_LIMIT,
        )
        for row in rows
        if row["shared_parts"]
    ]
    return checks


def _capacity(evidence: PoolEvidence, t: GateDThresholds) -> dict[str, Any]:
    """Size at which the stated quantile of fills would reach the allowed participation."""
    shares = evidence.alpha.displayed_share
    participation = _quantile(shares, t.participation_quantile)
    others = [
        _quantile(member.displayed_share, t.participation_quantile)
        for member in evidence.members.values()
        if set(member.instruments) & set(evidence.alpha.instruments)
    ]
    crowd = None
    if participation is not None and None not in others:
        crowd = math.fsum([participation, *(share for share in others if share is not None)])
    weight = None
    if participation:
        weight = int(evidence.gate_weight_ppm * t.participation_max / participation)
    return {
        "fills": len(shares),
        "participation": participation,
        "crowd_participation": crowd,
        "weight_ppm_max": weight,
    }


def _quantile(shares: Sequence[float], quantile: float) -> float | None:
    if not shares:
        return None
    ordered = sorted(shares)
    return ordered[min(len(ordered) - 1, math.ceil(quantile * len(ordered)) - 1)]
