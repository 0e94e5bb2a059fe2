"""A search of the study: many programs without an idea on one market, of which one is shown.

Why: an alpha of three settings gains little by being chosen on the days it is judged by; the best
of hundreds does. Whoever shows only the winner hides the trials that made it.

Invariants:
1. The market is a fair game and is valued from mid to mid: no program has an edge, none pays costs.
2. The searcher sees what a gate run would give it: the engine's own runs at the base corner, where
   delays are drawn from what was measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hft_platform.config.canonical import atomic_write, canonical_json
from research.gate_study import programs
from research.gate_study.backtests import MarketBacktests, WithoutCosts
from research.gate_study.markets import Market
from research.gates.backtests import RunSpec
from research.registry import AlphaManifest


class Search:
    """Profits of many programs on one market.

    Parameters
    ----------
    seed : int
        Of every program.
    size : int
        Programs; each is tried at the middle setting of its grid.
    market : Market
        Fair game.
    kept : Path, optional
        File of profits made before, if there is one; otherwise it is written.
    """

    def __init__(self, *, seed: int, size: int, market: Market, kept: Path | None = None) -> None:
        self._market = market
        symbol = market.instrument.symbol
        seeds = np.random.SeedSequence(seed).generate_state(size, np.uint32)
        self._alphas = [programs.random_alpha(int(s), symbol=symbol) for s in seeds]
        if kept is not None and kept.exists():
            self._nets = np.array(json.loads(kept.read_bytes()), dtype=np.int64)
            return
        self._nets = np.array([self._nets_of(alpha) for alpha in self._alphas], dtype=np.int64)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(kept, canonical_json(self._nets.tolist()))

    def _nets_of(self, alpha: AlphaManifest) -> list[int]:
        grid = alpha.grid()
        point = grid[len(grid) // 2]
        backtest = WithoutCosts(MarketBacktests(alpha, self._market), self._market.instrument)
        return [
            backtest(i, [RunSpec(i, point, None, alpha.queue_model)])[0].run.net
            for i in range(len(self._market.sessions))
        ]

    @property
    def run_count(self) -> int:
        """Backtests of the search."""
        return int(self._nets.size)

    def winner(self, sessions: slice) -> AlphaManifest:
        """The program with the largest t value over some sessions.

        Parameters
        ----------
        sessions : slice
            Which of the market's sessions the searcher looks at.

        Returns
        -------
        AlphaManifest
            The first of equals; a program that never traded has no t value and never wins.
        """
        return self._alphas[int(np.argmax(t_values(self._nets[:, sessions])))]


def t_values(nets: npt.NDArray[np.int64] | Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
    """Mean over its standard error, by program.

    Parameters
    ----------
    nets : array of int64, shape (programs, sessions)
        Profit of a session.

    Returns
    -------
    array of float64, shape (programs,)
        Minus infinity where nothing was traded.
    """
    values = np.asarray(nets, dtype=np.float64)
    deviation = values.std(axis=1, ddof=1)
    means = values.mean(axis=1) * np.sqrt(values.shape[1])
    found = np.full(values.shape[0], -np.inf)
    np.divide(means, deviation, out=found, where=deviation > 0.0)
    return found
