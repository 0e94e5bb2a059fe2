"""How gate C's backtests executed, session by session: what a canary's execution is held to.

Why: a canary's tests need a deviation between sessions, not only a mean over fills.

Invariants:
1. The runtime's summaries and the backtests use the same functions (`session_facts`).
2. A session without orders or fills says nothing about what it lacks; a metric with fewer than two
   sessions is not promised.

Operator's page: `docs/canary.md`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hft_platform import records
from hft_platform.services.session_facts import (
    APPROVED,
    MARKOUT_NS,
    PLACE,
    filled_orders,
    markout_ticks,
    slippage_ticks,
)

if TYPE_CHECKING:
    from hft_platform.market.instruments import Instrument
    from research.backtest.runner import SessionResult
    from research.gates.backtests import RunOutput


@dataclass(frozen=True, slots=True)
class SessionExecution:
    """Execution of one session.

    Attributes
    ----------
    orders, filled_orders, fills : int
        Orders sent, those with a fill, and fills.
    slippage_ticks : float or None
        Mean cost of a fill against the mid at its decision.
    markout_ticks : mapping of str to float or None
        By horizon, mean move in our favour after a fill.
    """

    orders: int
    filled_orders: int
    fills: int
    slippage_ticks: float | None
    markout_ticks: Mapping[str, float | None]

    def values(self) -> dict[str, tuple[float | None, int]]:
        """By metric: its value, and of how many fills or orders it is the mean."""
        ratio = self.filled_orders / self.orders if self.orders else None
        return {
            "slippage_ticks": (self.slippage_ticks, self.fills),
            **{
                f"markout_ticks_{horizon}": (value, self.fills)
                for horizon, value in self.markout_ticks.items()
            },
            "fill_ratio": (ratio, self.orders),
        }


def execution_of(result: SessionResult, instrument: Instrument) -> SessionExecution:
    """Execution of a backtested session.

    Parameters
    ----------
    result : SessionResult
        Of research.backtest.runner.
    instrument : Instrument
        The one traded.

    Returns
    -------
    SessionExecution
    """
    decisions = np.frombuffer(result.decisions, dtype=records.DTYPES["Decision"])
    books = records.split(result.inputs)["Book"]
    is_placed = (decisions["action"] == PLACE) & (decisions["verdict"] == APPROVED)
    return SessionExecution(
        orders=int(is_placed.sum()),
        filled_orders=filled_orders(result.fills, decisions),
        fills=result.fill_count,
        slippage_ticks=slippage_ticks(result.fills, decisions, instrument.tick_size),
        markout_ticks={
            name: markout_ticks(result.fills, books, horizon, instrument.tick_size)
            for name, horizon in MARKOUT_NS.items()
        },
    )


def promised_execution(outputs: Sequence[RunOutput]) -> dict[str, dict[str, Any] | None]:
    """Mean and deviation of each execution metric between sessions.

    Parameters
    ----------
    outputs : sequence of RunOutput
        The chosen setting out of sample, at the base corner.

    Returns
    -------
    dict
        By metric: mean, std, session_count and size_mean; None where fewer than two sessions had
        it. Empty when the runs did not keep their execution.
    """
    return promised_metrics([o.execution for o in outputs if o.execution is not None])


def promised_metrics(
    sessions: Sequence[SessionExecution],
) -> dict[str, dict[str, Any] | None]:
    """The same from sessions alone; see `promised_execution`."""
    by_name: dict[str, list[tuple[float, int]]] = {}
    for session in sessions:
        for name, (value, size) in session.values().items():
            rows = by_name.setdefault(name, [])
            if value is not None and size > 0:
                rows.append((value, size))
    return {name: _promised(rows) for name, rows in sorted(by_name.items())}


def _promised(rows: Sequence[tuple[float, int]]) -> dict[str, Any] | None:
    count = len(rows)
    if count < 2:
        return None
    mean = math.fsum(value for value, _ in rows) / count
    variance = math.fsum((value - mean) ** 2 for value, _ in rows) / (count - 1)
    return {
        "mean": mean,
        "std": math.sqrt(variance),
        "session_count": count,
        "size_mean": sum(size for _, size in rows) / count,
    }
