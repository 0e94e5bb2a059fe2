"""The choice among an alpha's settings, made on the past only, and what that choice is worth.

Why: the best of a grid always looks good on the days it was the best of.

Invariants:
1. The setting is chosen on in-sample days only, and on none that is also out of sample or within
   the embargo before it.
2. Every estimate of the choice repeats it: on each fold and split anew, from training days alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from research import stats
from research.gates.evidence import (
    BacktestEvidence,
    GridPoint,
    SessionRun,
    all_trips,
    daily_net,
    daily_trips,
)
from research.gates.thresholds import GateCThresholds
from research.stats.cross_validation import FloatArray, select


def purge(
    in_sample: Sequence[SessionRun], out_of_sample: Sequence[SessionRun], *, embargo_days: int
) -> tuple[SessionRun, ...]:
    """In-sample sessions that may choose: none of an out-of-sample day, nor in the embargo.

    Parameters
    ----------
    in_sample, out_of_sample : sequence of SessionRun
        In time order. A trading day whose night is in sample and whose day is not is one day.
    embargo_days : int
        Last in-sample trading days left out as well.

    Returns
    -------
    tuple of SessionRun
        With the embargoed days when nothing else is left; never those of an out-of-sample day, so
        it may be empty: then the first setting of the grid is taken.
    """
    judged = {run.trading_day for run in out_of_sample}
    days = sorted({run.trading_day for run in in_sample} - judged)
    kept = set(days[: max(len(days) - embargo_days, 0)] if judged else days) or set(days)
    return tuple(run for run in in_sample if run.trading_day in kept)


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
    counts = np.array([[len(all_trips(runs)) for _, runs in grid]], dtype=np.float64)
    nets = np.array([[sum(run.net for run in runs) for _, runs in grid]], dtype=np.float64)
    return int(select(nets, counts, trades_min=trips_min)[0])


def selection_statistics(evidence: BacktestEvidence, t: GateCThresholds) -> dict[str, Any]:
    """Judge the choice by repeating it: CSCV, combinatorial paths, walk-forward; and SPA.

    Parameters
    ----------
    evidence : BacktestEvidence
        Its grid at the base corner, over every judged day.
    t : GateCThresholds
        Blocks, groups, embargo, draws and seeds.

    Returns
    -------
    dict
        A statistic that cannot be computed is None.
    """
    profits, trades, days = matrices(evidence.grid)
    blocks = min(t.cscv_blocks, len(days) // 2 * 2)
    result = stats.cscv(profits, blocks=blocks) if blocks >= t.cscv_blocks else None
    why = None
    if result is None:
        why = (
            "one setting only"
            if len(evidence.grid) < 2
            else f"{len(days)} days, {t.cscv_blocks} blocks"
        )
    paths = stats.combinatorial_paths(
        profits,
        trades,
        groups=t.cpcv_groups,
        test_groups=t.cpcv_test_groups,
        embargo=t.embargo_days,
        trades_min=t.selection_round_trips_min,
    )
    spa = stats.superior_predictive_ability(
        profits, draws=t.spa_draws, seed=t.spa_seed, level=t.spa_p_max
    )
    return {
        "settings": len(evidence.grid),
        "days": len(days),
        "pbo": result.pbo if result else None,
        "oos_loss_probability": result.oos_loss_probability if result else None,
        "splits": result.split_count if result else 0,
        "not_computed": why,
        "cpcv_sharpe_quantile": paths.quantile(t.cpcv_sharpe_quantile) if paths else None,
        "cpcv_sharpe_median": paths.quantile(0.5) if paths else None,
        "cpcv_paths": len(paths.sharpe) if paths else 0,
        "cpcv_splits": paths.split_count if paths else 0,
        "cpcv_choices": paths.distinct_choices if paths else 0,
        "spa_p": spa.consistent if spa else None,
        "spa_p_lower": spa.lower if spa else None,
        "spa_p_upper": spa.upper if spa else None,
        "spa_block_days": spa.block_length if spa else None,
        "spa_days_to_pass": _days_to_pass(spa, len(days)),
        "walk_forward": _walk_forward(evidence, t),
    }


def matrices(grid: Sequence[GridPoint]) -> tuple[FloatArray, FloatArray, list[int]]:
    """Net profit and round trips of every setting (columns) on every judged day (rows)."""
    return _matrices([point.in_sample + point.out_of_sample for point in grid])


def _matrices(
    by_point: Sequence[tuple[SessionRun, ...]],
) -> tuple[FloatArray, FloatArray, list[int]]:
    nets = [daily_net(runs) for runs in by_point]
    trips = [daily_trips(runs) for runs in by_point]
    days = sorted(set().union(*nets))
    shape = (len(days), len(by_point))
    profits = np.array([[float(n.get(d, 0)) for n in nets] for d in days]).reshape(shape)
    trades = np.array([[float(n.get(d, 0)) for n in trips] for d in days]).reshape(shape)
    return profits, trades, days


def _days_to_pass(spa: stats.Spa | None, days: int) -> int | None:
    """Judged days after which the statistic would exceed its critical value, if it persists."""
    if spa is None or spa.statistic <= 0.0 or spa.critical_value <= 0.0:
        return None
    return math.ceil(days * (spa.critical_value / spa.statistic) ** 2)


def _walk_forward(evidence: BacktestEvidence, t: GateCThresholds) -> dict[str, Any] | None:
    """What choosing on the past earned in the next fold, within the in-sample days."""
    profits, trades, days = _matrices([point.in_sample for point in evidence.grid])
    made = stats.walk_forward(
        profits,
        trades,
        folds=t.walk_forward_folds,
        embargo=t.embargo_days,
        trades_min=t.selection_round_trips_min,
    )
    if made is None:
        return None
    return {
        "folds": len(made.choices),
        "days": len(made.periods),
        "first_day": days[made.periods[0]],
        "mean_daily_net": math.fsum(made.profits) / len(made.profits),
        "newey_west_t": stats.newey_west_t(made.profits),
        "choices": [evidence.grid[choice].parameters for choice in made.choices],
    }
