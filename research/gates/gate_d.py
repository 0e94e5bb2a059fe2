"""Gate D: does it add something to what already trades, and is there room for it?

Why: the same edge bought twice is twice the risk, and an order larger than what is displayed was
never backtested honestly.

Invariants:
1. Profits come from verified gate C verdicts, by trading day; nothing is typed in.
2. Too few shared days with a pool member is missing evidence, not independence.

Operator's page: `docs/gates.md`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hft_platform.errors import ReasonCode
from research import pool
from research.gates.checks import Check, at_least, at_most, finding
from research.gates.thresholds import GateDThresholds
from research.gates.verdict import Finding, GateVerdict, reason


@dataclass(frozen=True, slots=True)
class PoolEvidence:
    """Everything gate D decides from.

    Attributes
    ----------
    daily_net : dict of int to int
        Out-of-sample profit by trading day at the worst corner of gate C.
    members : dict of str to dict of int to int
        The same of every alpha that is promoted, by key.
    displayed_share : tuple of float
        Per fill: quantity over the displayed quantity, at the size the gates ran with.
    gate_weight_ppm : int
        That size, as parts per million of full size.
    """

    daily_net: dict[int, int]
    members: dict[str, dict[int, int]]
    displayed_share: tuple[float, ...]
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
    rows, short = _correlations(evidence, t)
    if short:
        return Finding(
            GateVerdict.INSUFFICIENT_EVIDENCE,
            tuple(
                reason(
                    ReasonCode.GATE_INSUFFICIENT_EVIDENCE,
                    f"shares {row['shared_days']} trading days with {row['alpha']} of the pool; "
                    f"{t.shared_days_min - row['shared_days']} more would decide",
                    observed=row["shared_days"],
                    limit=t.shared_days_min,
                )
                for row in short
            ),
            {"correlations": rows, "checks": []},
        )
    marginal = pool.marginal(evidence.daily_net, list(evidence.members.values()))
    capacity = _capacity(evidence.displayed_share, evidence.gate_weight_ppm, t)
    checks: list[Check] = [
        at_most(
            "pool_size", len(evidence.members), t.pool_size_max, "number of alphas in the pool"
        ),
        *(
            at_most(
                f"correlation_{row['alpha']}",
                abs(row["correlation"]) if row["correlation"] is not None else None,
                t.correlation_max,
                f"correlation of daily profit with {row['alpha']}",
                code=ReasonCode.CORRELATION_ABOVE_LIMIT,
            )
            for row in rows
        ),
        at_least(
            "marginal_t", marginal.t_value, t.marginal_t_min, "t value of the profit the pool lacks"
        ),
        at_most(
            "participation",
            capacity["participation"],
            t.participation_max,
            f"order over displayed quantity ({t.participation_quantile:.0%} of fills)",
        ),
    ]
    results = {
        "correlations": rows,
        "marginal": marginal.as_dict(),
        "capacity": capacity,
        "weights": _weights(evidence),
    }
    return finding(checks, results)


def _correlations(
    evidence: PoolEvidence, t: GateDThresholds
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    for key, days in sorted(evidence.members.items()):
        shared = sorted(set(days) & set(evidence.daily_net))
        value = pool.correlation(
            [float(evidence.daily_net[d]) for d in shared], [float(days[d]) for d in shared]
        )
        rows.append({"alpha": key, "shared_days": len(shared), "correlation": value})
    return rows, [row for row in rows if row["shared_days"] < t.shared_days_min]


def _capacity(shares: Sequence[float], weight_ppm: int, t: GateDThresholds) -> dict[str, Any]:
    """Size at which the stated quantile of fills would reach the allowed participation."""
    if not shares:
        return {"fills": 0, "participation": None, "weight_ppm_max": None}
    ordered = sorted(shares)
    index = min(len(ordered) - 1, math.ceil(t.participation_quantile * len(ordered)) - 1)
    participation = ordered[index]
    return {
        "fills": len(ordered),
        "participation": participation,
        "weight_ppm_max": int(weight_ppm * t.participation_max / participation),
    }


def _weights(evidence: PoolEvidence) -> dict[str, float]:
    """Hierarchical risk parity weights of the pool with this alpha in it (named ``self``)."""
    series = {"self": evidence.daily_net} | evidence.members
    shared = sorted(set.intersection(*(set(days) for days in series.values())))
    names = sorted(series)
    rows = [[float(series[name][day]) for name in names] for day in shared]
    weights = pool.hrp_weights(rows)
    return dict(zip(names, weights, strict=True)) if weights is not None else {}
