"""Gate C: is there money in it, after costs, out of sample, counted against every trial?

Why: a profit that was looked for long enough is always found.

Invariants:
1. The setting is chosen on in-sample sessions only; the verdict is taken out of sample, at every
   stated corner of latency and queue model. It passes when it passes at all of them; the corner
   that decides is the one with the worst verdict, among equals the one that earns least.
2. The unit of evidence is the trading day. The effective number of trials and their spread come
   from the ledger.
3. Missing evidence is `insufficient_evidence` with the days that would decide, never a pass.

It decides; `corner_statistics` and `selection` compute, `gate_c_checks` compares. It runs nothing
(see `collect_c`). Operator's page: `docs/gates.md`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hft_platform.errors import ReasonCode
from research import stats
from research.gates.corner_statistics import corner_statistics, cost_against_edge, trial_spread
from research.gates.evidence import BacktestEvidence, SessionRun, daily_net
from research.gates.gate_c_checks import POWER_CHECKS, checks_of
from research.gates.selection import choose, selection_statistics
from research.gates.thresholds import GateCThresholds
from research.gates.verdict import Finding, GateVerdict, reason

__all__ = ["choose", "evaluate"]

_SEVERITY = (GateVerdict.FAILED, GateVerdict.INSUFFICIENT_EVIDENCE, GateVerdict.PASSED)


def evaluate(evidence: BacktestEvidence, thresholds: GateCThresholds) -> Finding:
    """Judge backtest evidence.

    Parameters
    ----------
    evidence : BacktestEvidence
        See its fields.
    thresholds : GateCThresholds
        See the packaged gates.yaml.

    Returns
    -------
    Finding
        Reasons are in the order of the checks; the first one names what to look at.
    """
    trials = evidence.trial_facts
    spread = trial_spread(evidence.grid, trials)
    corners = {
        name: corner_statistics(runs, trials=trials, spread=spread, t=thresholds)
        for name, runs in evidence.corners.items()
    }
    costs = [cost_against_edge(point, thresholds) for point in evidence.grid]
    selection = selection_statistics(evidence, thresholds)
    placebos = {
        name: stats.newey_west_t([float(v) for v in days.values()])
        for name, days in evidence.placebos.items()
    }
    decisions = {
        name: _decide(corner, name, costs, selection, placebos, thresholds)
        for name, corner in corners.items()
    }
    worst = min(
        corners,
        key=lambda name: (
            _SEVERITY.index(decisions[name][0]),
            corners[name]["mean_daily_net"] or 0.0,
            name,
        ),
    )
    results = {
        "chosen_parameters": evidence.grid[evidence.chosen].parameters,
        "worst_corner": worst,
        "corners": corners,
        "costs": costs,
        "selection": selection,
        "placebo_t": placebos,
        "trial_count": trials.count,
        "trials": trials.as_dict() | {"spread_used": spread},
        "in_sample": [run.as_dict() for run in evidence.grid[evidence.chosen].in_sample],
        "out_of_sample": [run.as_dict() for run in evidence.corners[worst]],
        "daily_net": _by_day(evidence.corners[worst]),
    }
    verdict, reasons, decided = decisions[worst]
    return Finding(verdict, tuple(reasons), results | decided)


def _decide(
    corner: dict[str, Any],
    worst: str,
    costs: list[dict[str, Any]],
    selection: dict[str, Any],
    placebos: dict[str, float | None],
    t: GateCThresholds,
) -> tuple[GateVerdict, list[dict[str, Any]], dict[str, Any]]:
    decided: dict[str, Any] = {
        "days_needed": _days_needed(corner, selection, t),
        "days_missing": None,
        "checks": [],
    }
    killed = _cost_kill(costs)
    if killed is not None:
        return GateVerdict.FAILED, [killed], decided
    if corner["days"] < t.days_min or corner["round_trips"] < t.round_trips_min:
        return _too_little(corner, worst, decided, t)
    checks = checks_of(corner, worst, selection, placebos, t)
    decided["checks"] = [c.row() for c in checks]
    missed = [c for c in checks if not c.passed]
    if not missed:
        return GateVerdict.PASSED, [], decided
    needed = decided["days_needed"]
    lower = corner["bootstrap_lower"]
    if (
        {c.name for c in missed} <= POWER_CHECKS
        and lower is not None
        and lower > 0.0
        and needed is not None
        and corner["days"] < needed <= t.days_horizon_max
    ):
        decided["days_missing"] = needed - corner["days"]
        return GateVerdict.INSUFFICIENT_EVIDENCE, [_missing_days(corner, decided, worst)], decided
    return GateVerdict.FAILED, [c.as_reason() for c in missed], decided


def _cost_kill(costs: list[dict[str, Any]]) -> dict[str, Any] | None:
    judged = [row for row in costs if row["exceeds_edge"] is not None]
    if not judged or not all(row["exceeds_edge"] for row in judged):
        return None
    best = max(judged, key=lambda row: row["mid_edge_upper"] - row["cost_ticks"])
    return reason(
        ReasonCode.COST_EXCEEDS_EDGE,
        f"a round trip costs {best['cost_ticks']:.2f} ticks in half-spreads and fees; its edge "
        f"is {best['mid_edge_ticks']:.2f} ticks and at most {best['mid_edge_upper']:.2f} "
        f"({best['round_trips']} round trips, best of {len(judged)} settings)",
        observed=best["mid_edge_upper"],
        limit=best["cost_ticks"],
    )


def _too_little(
    corner: dict[str, Any], worst: str, decided: dict[str, Any], t: GateCThresholds
) -> tuple[GateVerdict, list[dict[str, Any]], dict[str, Any]]:
    upper = corner["bootstrap_upper"]
    if corner["days"] >= t.losing_days_min and upper is not None and upper < 0.0:
        text = (
            f"loses money: the {t.confidence:.0%} upper bound of the mean daily net is below zero "
            f"after {corner['days']} days ({worst})"
        )
        lost = reason(ReasonCode.GATE_THRESHOLD_MISSED, text, observed=upper, limit=0.0)
        return GateVerdict.FAILED, [lost], decided
    if decided["days_needed"] is not None:
        decided["days_missing"] = max(decided["days_needed"] - corner["days"], 1)
    return GateVerdict.INSUFFICIENT_EVIDENCE, [_missing_days(corner, decided, worst)], decided


def _days_needed(
    corner: dict[str, Any], selection: dict[str, Any], t: GateCThresholds
) -> int | None:
    """Days after which the present estimate would pass, or the fewest that could decide at all.

    The family's test is over all judged days; the share of them that is out of sample is kept.
    """
    rate: float = corner["round_trips_per_day"]
    if corner["days"] == 0 or rate == 0.0:
        return None
    needed = max(t.days_min, math.ceil(t.round_trips_min / rate))
    to_pass: int = corner["days_to_pass"] or 0
    for_family = 0
    if selection["spa_days_to_pass"] is not None and selection["days"]:
        share = corner["days"] / selection["days"]
        for_family = math.ceil(selection["spa_days_to_pass"] * share)
    return max(needed, to_pass, for_family)


def _missing_days(corner: dict[str, Any], decided: dict[str, Any], worst: str) -> dict[str, Any]:
    have = f"{corner['days']} out-of-sample days with {corner['round_trips']} round trips ({worst})"
    if decided["days_missing"] is None:
        text = f"{have}: it never traded, so no number of days can be named"
    else:
        text = f"{have}: {decided['days_missing']} more trading days would decide"
    return reason(
        ReasonCode.GATE_INSUFFICIENT_EVIDENCE,
        text,
        observed=corner["days"],
        limit=decided["days_needed"],
    )


def _by_day(runs: Sequence[SessionRun]) -> dict[str, int]:
    return {str(day): value for day, value in daily_net(runs).items()}
