"""Gate C: is there money in it, after costs, out of sample, counted against every trial?

Why: a profit that was looked for long enough is always found.

Invariants:
1. The setting is chosen on in-sample sessions only; the verdict is taken out of sample, at every
   stated corner of latency and queue model, and the worst corner decides.
2. The unit of evidence is the trading day. The number of trials comes from the ledger.
3. Missing evidence is `insufficient_evidence` with the days that would decide, never a pass.

It runs nothing (see `collect`). Operator's page: `docs/gates.md`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hft_platform.errors import ReasonCode
from research import stats
from research.gates.checks import Check, above, at_least, at_most
from research.gates.evidence import (
    BacktestEvidence,
    GridPoint,
    SessionRun,
    Trip,
    all_trips,
    daily_net,
)
from research.gates.thresholds import GateCThresholds
from research.gates.verdict import Finding, GateVerdict, reason
from research.stats.sharpe import periods_to_pass

POWER_CHECKS = frozenset({"newey_west_t", "deflated_sharpe", "min_track_record_days"})
"""Misses of these alone can mean too few days rather than no edge."""


def choose(
    grid: Sequence[tuple[dict[str, float], tuple[SessionRun, ...]]], *, trips_min: int
) -> int:
    """Choose the setting with the best mean in-sample session among those that trade.

    Parameters
    ----------
    grid : sequence of (parameters, in-sample runs)
        In grid order.
    trips_min : int
        Round trips a setting needs to be eligible; if none has them, the one that trades most is
        taken. Otherwise a setting that never trades would win among losing ones.

    Returns
    -------
    int
        Index into `grid`; ties go to the first.
    """
    counts = [len(all_trips(runs)) for _, runs in grid]
    nets = [sum(run.net for run in runs) for _, runs in grid]
    eligible = [i for i, count in enumerate(counts) if count >= trips_min]
    if not eligible:
        return max(range(len(grid)), key=lambda i: (counts[i], -i))
    return max(eligible, key=lambda i: (nets[i], -i))


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
    corners = {
        name: corner_statistics(runs, trials=evidence.trial_count, grid=evidence.grid, t=thresholds)
        for name, runs in evidence.corners.items()
    }
    costs = [cost_against_edge(point, thresholds) for point in evidence.grid]
    selection = _selection(evidence, thresholds)
    worst = min(corners, key=lambda name: (corners[name]["mean_daily_net"] or 0.0, name))
    placebos = {
        name: stats.newey_west_t([float(v) for v in days.values()])
        for name, days in evidence.placebos.items()
    }
    results = {
        "chosen_parameters": evidence.grid[evidence.chosen].parameters,
        "worst_corner": worst,
        "corners": corners,
        "costs": costs,
        "selection": selection,
        "placebo_t": placebos,
        "trial_count": evidence.trial_count,
        "in_sample": [run.as_dict() for run in evidence.grid[evidence.chosen].in_sample],
        "out_of_sample": [run.as_dict() for run in evidence.corners[worst]],
        "daily_net": _by_day(evidence.corners[worst]),
    }
    verdict, reasons, decided = _decide(
        corners[worst], worst, costs, selection, placebos, thresholds
    )
    return Finding(verdict, tuple(reasons), results | decided)


def corner_statistics(
    runs: Sequence[SessionRun],
    *,
    trials: int,
    grid: Sequence[GridPoint],
    t: GateCThresholds,
) -> dict[str, Any]:
    """Statistics of one corner's out-of-sample days.

    Parameters
    ----------
    runs : sequence of SessionRun
        The chosen setting at this corner.
    trials : int
        Trials in the ledger.
    grid : sequence of GridPoint
        All settings, for the variance of the Sharpe ratio across trials.
    t : GateCThresholds
        Levels and seeds.

    Returns
    -------
    dict
        A statistic that does not exist for these days is None.
    """
    days = [float(value) for value in daily_net(runs).values()]
    trips = all_trips(runs)
    moments = stats.moments_of(days)
    bootstrap = stats.block_bootstrap_mean(
        days, level=t.confidence, draws=t.bootstrap_draws, seed=t.bootstrap_seed
    )
    nets = [trip.net for trip in trips]
    result: dict[str, Any] = {
        "days": len(days),
        "sessions": len(runs),
        "fills": sum(run.fill_count for run in runs),
        "round_trips": len(trips),
        "round_trips_per_day": len(trips) / len(days) if days else 0.0,
        "net": sum(run.net for run in runs),
        "gross": sum(run.gross for run in runs),
        "fees": sum(run.fees for run in runs),
        "max_drawdown": max((run.max_drawdown for run in runs), default=0),
        "mean_daily_net": math.fsum(days) / len(days) if days else None,
        "newey_west_t": stats.newey_west_t(days),
        "bootstrap_lower": bootstrap.lower if bootstrap else None,
        "bootstrap_upper": bootstrap.upper if bootstrap else None,
        "net_without_best_days": stats.without_best(
            [int(v) for v in days], count=t.best_days_dropped
        ),
        "net_without_best_trips": stats.without_best_share(nets, share=t.best_trips_dropped_share),
        "net_edge_ticks": _mean([trip.net_ticks for trip in trips]),
        "mid_edge_ticks": _mean([trip.mid_edge_ticks for trip in trips]),
        "cost_ticks": _mean([trip.cost_ticks for trip in trips]),
    }
    return result | _sharpe_statistics(moments, trials=trials, grid=grid, t=t)


def _sharpe_statistics(
    moments: stats.Moments | None, *, trials: int, grid: Sequence[GridPoint], t: GateCThresholds
) -> dict[str, Any]:
    if moments is None:
        names = ("sharpe", "skewness", "kurtosis", "psr", "deflated_sharpe", "sharpe_hurdle")
        return dict.fromkeys((*names, "trial_variance", "min_track_record_days", "days_to_pass"))
    shape = {"skewness": moments.skewness, "kurtosis": moments.kurtosis}
    variance = trial_variance(grid, days=moments.count)
    deflated, hurdle = stats.deflated_sharpe(
        moments.sharpe, count=moments.count, trials=trials, trial_variance=variance, **shape
    )
    return {
        "sharpe": moments.sharpe,
        **shape,
        "psr": stats.probabilistic_sharpe(moments.sharpe, count=moments.count, **shape),
        "deflated_sharpe": deflated,
        "sharpe_hurdle": hurdle,
        "trial_variance": variance,
        "min_track_record_days": stats.min_track_record_length(
            moments.sharpe, confidence=t.confidence, **shape
        ),
        "days_to_pass": periods_to_pass(
            moments.sharpe,
            trials=trials,
            t_min=t.newey_west_t_min,
            confidence=t.deflated_sharpe_min,
            **shape,
        ),
    }


def trial_variance(grid: Sequence[GridPoint], *, days: int) -> float:
    """Variance of the daily Sharpe ratio across trials, at least that of trials without skill.

    Parameters
    ----------
    grid : sequence of GridPoint
        This alpha's settings; other alphas' results are not used, so that a verdict does not
        depend on which of them were judged before.
    days : int
        Out-of-sample days; skill-less trials have a variance of 1 over this.

    Returns
    -------
    float

    Notes
    -----
    Settings of one alpha resemble each other, so their variance alone would understate the hurdle:
    hence the floor (Bailey and Lopez de Prado 2014, with V of the null).
    """
    ratios = []
    for point in grid:
        moments = stats.moments_of([float(v) for v in daily_net(point.in_sample).values()])
        ratios.append(moments.sharpe if moments else 0.0)
    mean = math.fsum(ratios) / len(ratios)
    spread = math.fsum((r - mean) ** 2 for r in ratios) / max(len(ratios) - 1, 1)
    return max(spread, 1.0 / days)


def cost_against_edge(point: GridPoint, t: GateCThresholds) -> dict[str, Any]:
    """Compare the gross edge of a round trip with its costs, over every judged session.

    Parameters
    ----------
    point : GridPoint
        One setting. In-sample sessions are included: they can only flatter the edge.
    t : GateCThresholds
        Levels and seeds.

    Returns
    -------
    dict
        `exceeds_edge` is True when the upper bound of the mean gross edge, mid to mid (the larger
        of a block bootstrap over consecutive round trips and Student's t), is below the mean cost
        of a round trip; None when there are too few round trips to say.
    """
    trips: list[Trip] = all_trips(point.in_sample + point.out_of_sample)
    row: dict[str, Any] = {
        "parameters": point.parameters,
        "round_trips": len(trips),
        "cost_ticks": _mean([trip.cost_ticks for trip in trips]),
        "mid_edge_ticks": _mean([trip.mid_edge_ticks for trip in trips]),
        "mid_edge_upper": None,
        "exceeds_edge": None,
    }
    if len(trips) < t.cost_round_trips_min:
        return row
    edges = [trip.mid_edge_ticks for trip in trips]
    bound = stats.block_bootstrap_mean(
        edges,
        level=t.confidence,
        draws=t.bootstrap_draws,
        seed=t.bootstrap_seed,
        block_length=math.isqrt(len(trips)),
    )
    student = stats.student_upper_bound(edges, level=t.confidence)
    if bound is not None and student is not None:
        # Blocks see dependence, Student's t sees how few there are: the wider one counts.
        row["mid_edge_upper"] = max(bound.upper, student)
        row["exceeds_edge"] = row["mid_edge_upper"] < row["cost_ticks"]
    return row


def _selection(evidence: BacktestEvidence, t: GateCThresholds) -> dict[str, Any]:
    by_point = [daily_net(point.in_sample + point.out_of_sample) for point in evidence.grid]
    days = sorted(set().union(*by_point))
    matrix = np.array(
        [[float(point.get(day, 0)) for point in by_point] for day in days], dtype=np.float64
    ).reshape(len(days), len(by_point))
    blocks = min(t.cscv_blocks, len(days) // 2 * 2)
    result = stats.cscv(matrix, blocks=blocks) if blocks >= t.cscv_blocks else None
    why = None
    if result is None:
        why = (
            "one setting only" if len(by_point) < 2 else f"{len(days)} days, {t.cscv_blocks} blocks"
        )
    return {
        "settings": len(by_point),
        "days": len(days),
        "pbo": result.pbo if result else None,
        "oos_loss_probability": result.oos_loss_probability if result else None,
        "splits": result.split_count if result else 0,
        "not_computed": why,
    }


def _decide(
    corner: dict[str, Any],
    worst: str,
    costs: list[dict[str, Any]],
    selection: dict[str, Any],
    placebos: dict[str, float | None],
    t: GateCThresholds,
) -> tuple[GateVerdict, list[dict[str, Any]], dict[str, Any]]:
    decided: dict[str, Any] = {
        "days_needed": _days_needed(corner, t),
        "days_missing": None,
        "checks": [],
    }
    killed = _cost_kill(costs)
    if killed is not None:
        return GateVerdict.FAILED, [killed], decided
    if corner["days"] < t.days_min or corner["round_trips"] < t.round_trips_min:
        return _too_little(corner, worst, decided, t)
    checks = _checks(corner, worst, selection, placebos, t)
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


def _days_needed(corner: dict[str, Any], t: GateCThresholds) -> int | None:
    """Days after which the present estimate would pass, or the fewest that could decide at all."""
    rate: float = corner["round_trips_per_day"]
    if corner["days"] == 0 or rate == 0.0:
        return None
    needed = max(t.days_min, math.ceil(t.round_trips_min / rate))
    to_pass: int = corner["days_to_pass"] or 0
    return max(needed, to_pass)


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


def _checks(
    corner: dict[str, Any],
    worst: str,
    selection: dict[str, Any],
    placebos: dict[str, float | None],
    t: GateCThresholds,
) -> list[Check]:
    rows = (
        (at_least, "newey_west_t", t.newey_west_t_min, "Newey-West t of the mean daily net"),
        (at_least, "deflated_sharpe", t.deflated_sharpe_min, "deflated Sharpe ratio"),
        (at_most, "min_track_record_days", corner["days"], "minimum track record in days"),
        (above, "bootstrap_lower", 0.0, "bootstrap lower bound of the mean daily net"),
        (above, "net_without_best_days", 0, "net profit without its best day"),
        (above, "net_without_best_trips", 0, "net profit without its best trades"),
        (above, "net_edge_ticks", t.net_edge_ticks_min, "net edge of a round trip in ticks"),
        (at_most, "round_trips_per_day", t.round_trips_per_day_max, "number of round trips a day"),
    )
    checks = [
        compare(name, corner[name], limit, f"{what} ({worst})")
        for compare, name, limit, what in rows
    ]
    if selection["settings"] > 1:
        checks.append(
            at_most(
                "oos_loss_probability",
                selection["oos_loss_probability"],
                t.cscv_loss_probability_max,
                "probability that the chosen setting loses out of sample (CSCV)",
            )
        )
    for name, value in sorted(placebos.items()):
        # A placebo whose profit never changes made nothing, which is what it should make.
        checks.append(
            at_most(
                f"placebo_{name}",
                0.0 if value is None else value,
                t.placebo_t_max,
                f"t value of the placebo {name.replace('_', ' ')}",
                code=ReasonCode.PLACEBO_PASSED,
            )
        )
    return checks


def _by_day(runs: Sequence[SessionRun]) -> dict[str, int]:
    return {str(day): value for day, value in daily_net(runs).items()}


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
