"""Statistics of one corner's out-of-sample days, and of costs against edge.

Why: gate C decides from numbers that are each computed in one place, by pure functions.

Invariant: the unit of evidence is the trading day; a statistic that does not exist for these days
is None, never a stand-in number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hft_platform.records import SCALE
from research import stats
from research.experiments import TrialFacts
from research.gates.evidence import GridPoint, SessionRun, Trip, all_trips, daily_net
from research.gates.thresholds import GateCThresholds
from research.stats.sharpe import periods_to_pass


def corner_statistics(
    runs: Sequence[SessionRun], *, trials: TrialFacts, spread: float, t: GateCThresholds
) -> dict[str, Any]:
    """Statistics of one corner's out-of-sample days.

    Parameters
    ----------
    runs : sequence of SessionRun
        The chosen setting at this corner.
    trials : TrialFacts
        Effective number of trials of the ledger.
    spread : float
        Variance of the Sharpe ratio across trials over that of trials without skill.
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
        days,
        level=t.confidence,
        draws=t.bootstrap_draws,
        seed=t.bootstrap_seed,
        block_length=stats.stationary_block_length(np.array(days)),
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
        "bootstrap_block_days": bootstrap.block_length if bootstrap else None,
        "net_without_best_days": stats.without_best(
            [int(v) for v in days], count=t.best_days_dropped
        ),
        "net_without_best_trips": stats.without_best_share(nets, share=t.best_trips_dropped_share),
        "net_edge_ticks": _mean([trip.net_ticks for trip in trips]),
        "mid_edge_ticks": _mean([trip.mid_edge_ticks for trip in trips]),
        "cost_ticks": _mean([trip.cost_ticks for trip in trips]),
    }
    result |= _size(runs, result["net_edge_ticks"], len(days))
    return result | _sharpe_statistics(moments, trials=trials, spread=spread, t=t)


def _size(
    runs: Sequence[SessionRun], net_edge_ticks: float | None, days: int
) -> dict[str, float | None]:
    """Turnover a day and the order size that the market has room for, in lots."""
    traded = sum(run.traded_qty for run in runs) / SCALE
    market = _mean([run.market_qty / SCALE for run in runs])
    volatility = _mean([run.volatility_ticks for run in runs])
    room = None
    if net_edge_ticks is not None and market is not None and volatility is not None:
        room = stats.capacity(net_edge_ticks, volatility=volatility, volume=market)
    return {
        "turnover_lots_per_day": stats.turnover(traded, periods=days),
        "market_lots_per_session": market,
        "volatility_ticks_per_session": volatility,
        "capacity_lots": room,
    }


def _sharpe_statistics(
    moments: stats.Moments | None, *, trials: TrialFacts, spread: float, t: GateCThresholds
) -> dict[str, Any]:
    if moments is None:
        names = ("sharpe", "skewness", "kurtosis", "psr", "deflated_sharpe", "sharpe_hurdle")
        return dict.fromkeys((*names, "trial_variance", "min_track_record_days", "days_to_pass"))
    shape = {"skewness": moments.skewness, "kurtosis": moments.kurtosis}
    variance = spread / moments.count
    deflated, hurdle = stats.deflated_sharpe(
        moments.sharpe,
        count=moments.count,
        trials=trials.effective,
        trial_variance=variance,
        **shape,
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
            trials=trials.effective,
            t_min=t.newey_west_t_min,
            confidence=t.deflated_sharpe_min,
            standardized_variance=spread,
            **shape,
        ),
    }


def trial_spread(grid: Sequence[GridPoint], trials: TrialFacts) -> float:
    """Variance of Sharpe ratios across trials over that of trials without skill.

    Parameters
    ----------
    grid : sequence of GridPoint
        This alpha's settings, whose in-sample days are compared.
    trials : TrialFacts
        Spread over all trials of the ledger.

    Returns
    -------
    float
        The larger of the ledger's and the grid's, at least 1.
    """
    ratios = []
    for point in grid:
        days = [float(v) for v in daily_net(point.in_sample).values()]
        moments = stats.moments_of(days)
        ratios.append((moments.sharpe if moments else 0.0, len(days)))
    own = stats.standardized_variance(ratios, trials=trials.effective)
    return max(own, trials.spread)


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


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
