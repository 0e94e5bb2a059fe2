"""Evidence for gate C: choose in sample, run the corners out of sample, run the placebos."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from research.experiments import TrialFacts
from research.gates.backtests import (
    RunBacktests,
    RunOutput,
    RunSpec,
    flipped,
    run_all,
)
from research.gates.evidence import BacktestEvidence, GridPoint, SessionRun, daily
from research.gates.placebo import shifted_time, shuffled_days
from research.gates.selection import choose, purge
from research.gates.thresholds import GateCThresholds
from research.registry import AlphaManifest


@dataclass(frozen=True, slots=True)
class CollectedEvidence:
    """Gate C's evidence, and what later steps take from the same runs.

    `promise` is what the canary holds the alpha to: the base corner out of sample, by session.
    """

    evidence: BacktestEvidence
    promise: dict[str, Any]
    displayed_share: tuple[float, ...]


def corner_name(cell: str, queue_model: str) -> str:
    """Name of a corner, for instance ``sampled/risk_adverse``."""
    return f"{cell}/{queue_model}"


def collect(
    manifest: AlphaManifest,
    thresholds: GateCThresholds,
    backtest: RunBacktests,
    *,
    in_sample: int,
    out_of_sample: int,
    trial_count: int,
    trials: TrialFacts | None = None,
    map_sessions: Callable[..., Any] = map,
) -> CollectedEvidence:
    """Run everything gate C judges.

    Parameters
    ----------
    manifest : AlphaManifest
        Grid, queue model and weight.
    thresholds : GateCThresholds
        Corners.
    backtest : RunBacktests
        Runs specs of one session; session indices count in-sample sessions first.
    in_sample, out_of_sample : int
        Numbers of sessions by role.
    trial_count : int
        Trials in the ledger.
    trials : TrialFacts, optional
        What these amount to; without it they count as independent ones.
    map_sessions : callable, optional
        Order-keeping map over sessions.

    Returns
    -------
    CollectedEvidence

    Notes
    -----
    Every setting is run on every judged session at the base corner: in-sample sessions choose,
    the whole matrix goes into cross-validation, into the test of the family and into the comparison
    of costs with edge. The choice is made before anything out of sample is looked at, from sessions
    of no trading day that is out of sample too or within the embargo before it.
    """
    first_cell = next(iter(thresholds.latency_cells))
    base = (first_cell, manifest.queue_model)
    corner = thresholds.latency_cells[first_cell]
    points = manifest.grid()
    judged = in_sample + out_of_sample
    runs = run_all(
        [RunSpec(s, p, corner, manifest.queue_model) for p in points for s in range(judged)],
        backtest,
        map_sessions=map_sessions,
    )
    by_point = [runs[i * judged : (i + 1) * judged] for i in range(len(points))]
    grid = tuple(
        GridPoint(point, _runs(made[:in_sample]), _runs(made[in_sample:]))
        for point, made in zip(points, by_point, strict=True)
    )
    embargo = thresholds.embargo_days
    chosen = choose(
        [
            (point.parameters, purge(point.in_sample, point.out_of_sample, embargo_days=embargo))
            for point in grid
        ],
        trips_min=thresholds.selection_round_trips_min,
    )
    outside = range(in_sample, judged)
    base_outputs = by_point[chosen][in_sample:]
    corners: dict[str, tuple[SessionRun, ...]] = {}
    for cell, quantile in thresholds.latency_cells.items():
        for queue_model in thresholds.queue_models:
            made = base_outputs
            if (cell, queue_model) != base:
                specs = [RunSpec(s, points[chosen], quantile, queue_model) for s in outside]
                made = run_all(specs, backtest, map_sessions=map_sessions)
            corners[corner_name(cell, queue_model)] = _runs(made)
    flips = run_all(
        [flipped(RunSpec(s, points[chosen], corner, manifest.queue_model)) for s in outside],
        backtest,
        map_sessions=map_sessions,
    )
    moved = {
        "days_shuffled": shuffled_days(base_outputs, seed=thresholds.placebo_seed),
        "time_shifted": shifted_time(base_outputs),
    }
    placebos = {"sign_flipped": daily((o.run.trading_day, o.run.net) for o in flips)} | {
        name: daily((o.run.trading_day, p) for o, p in zip(base_outputs, profits, strict=True))
        for name, profits in moved.items()
    }
    return CollectedEvidence(
        evidence=BacktestEvidence(grid, chosen, corners, placebos, trial_count, trials),
        promise=promise_of(base_outputs, weight_ppm=manifest.gate_weight_ppm),
        displayed_share=tuple(s for o in base_outputs for s in o.run.displayed_share),
    )


def promise_of(outputs: Sequence[RunOutput], *, weight_ppm: int) -> dict[str, Any]:
    """What the runtime's sessions will be held to.

    Parameters
    ----------
    outputs : sequence of RunOutput
        The chosen setting out of sample, at the base corner.
    weight_ppm : int
        Weight it was run with.

    Returns
    -------
    dict
        Mean and sample deviation of a session's net, their number, the weight, and mean slippage
        over fills in ticks; None where it does not exist.
    """
    nets = [output.run.net for output in outputs]
    count = len(nets)
    mean = math.fsum(nets) / count if count else None
    deviation = None
    if mean is not None and count > 1:
        deviation = math.sqrt(math.fsum((n - mean) ** 2 for n in nets) / (count - 1))
    slips = [(o.run.fill_count, o.slippage_ticks) for o in outputs if o.slippage_ticks is not None]
    fills = sum(n for n, _ in slips)
    slippage = math.fsum(n * value for n, value in slips) / fills if fills else None
    return {
        "mean_net": mean,
        "std_net": deviation,
        "session_count": count,
        "weight_ppm": weight_ppm,
        "slippage_ticks": slippage,
    }


def _runs(outputs: Sequence[RunOutput]) -> tuple[SessionRun, ...]:
    return tuple(output.run for output in outputs)
