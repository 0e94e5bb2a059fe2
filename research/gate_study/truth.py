"""The truth about a planted alpha: its Sharpe ratio over thousands of sessions.

Why: a power curve over strengths in ticks says nothing; over true Sharpe ratios it does.

Invariants:
1. Truth comes from markets that no verdict sees, at the same costs, latency and session length.
2. Every setting is known at every latency cell, so an alpha is held to the one it chose, at the
   corner that judges it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from research import stats
from research.gate_study.backtests import MarketBacktests
from research.gate_study.markets import generated
from research.gate_study.programs import planted_alpha
from research.gate_study.settings import StudySettings
from research.gates.backtests import RunSpec
from research.gates.thresholds import GateCThresholds
from research.stats.sharpe import sharpe_variance_factor


def true_nets(
    settings: StudySettings, t: GateCThresholds, *, strength_ticks: float, seed: int
) -> dict[str, Any]:
    """Net profits of every setting at every latency cell in one market.

    Parameters
    ----------
    settings : StudySettings
        Session length and chunk.
    t : GateCThresholds
        Latency cells.
    strength_ticks : float
        What is planted.
    seed : int
        Of the market.

    Returns
    -------
    dict
        ``cell`` to ``entry`` to one net profit a session.
    """
    market = generated(
        seed=seed,
        count=settings.truth_chunk,
        seconds=settings.session_seconds,
        strength_ticks=strength_ticks,
        horizon_s=settings.horizon_s,
    )
    manifest = planted_alpha(symbol=market.instrument.symbol)
    backtest = MarketBacktests(manifest, market)
    nets: dict[str, Any] = {}
    for cell, quantile in t.latency_cells.items():
        nets[cell] = {}
        for point in manifest.grid():
            nets[cell][repr(point["entry"])] = [
                backtest(i, [RunSpec(i, point, quantile, manifest.queue_model)])[0].run.net
                for i in range(settings.truth_chunk)
            ]
    return nets


@dataclass(frozen=True, slots=True)
class Truth:
    """True moments of a setting's daily profit."""

    sharpe: float
    skewness: float
    kurtosis: float
    sessions: int

    def standard_error(self, days: int) -> float:
        """Standard error of a Sharpe ratio estimated from `days` days."""
        factor = sharpe_variance_factor(self.sharpe, self.skewness, self.kurtosis)
        return math.sqrt(factor / (days - 1))


def truth_of(nets: Sequence[float]) -> Truth:
    """Moments over all sessions."""
    moments = stats.moments_of([float(v) for v in nets])
    if moments is None:
        return Truth(0.0, 0.0, 3.0, len(nets))
    return Truth(moments.sharpe, moments.skewness, moments.kurtosis, len(nets))


def required_sharpe(
    t: GateCThresholds, *, days: int, trials: int, skewness: float, kurtosis: float
) -> float:
    """Smallest daily Sharpe ratio that meets the thresholds on its size.

    Parameters
    ----------
    t : GateCThresholds
        Deflated Sharpe ratio and t value asked for.
    days : int
        Out-of-sample days.
    trials : int
        Trials counted; their variance is that of trials without skill, 1 over days.
    skewness, kurtosis : float
        Of a day's profit.

    Returns
    -------
    float
        The larger of what the deflated Sharpe ratio and the t value ask for.
    """
    low, high = 0.0, 5.0
    for _ in range(60):
        middle = (low + high) / 2.0
        deflated, _ = stats.deflated_sharpe(
            middle,
            count=days,
            trials=trials,
            trial_variance=1.0 / days,
            skewness=skewness,
            kurtosis=kurtosis,
        )
        if deflated is not None and deflated >= t.deflated_sharpe_min:
            high = middle
        else:
            low = middle
    return max(high, t.newey_west_t_min / math.sqrt(days))
