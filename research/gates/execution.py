"""Execution quality of a backtest, by the same functions that the runtime's summaries use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hft_platform import records
from hft_platform.services.session_facts import (
    MARKOUT_NS,
    markout_ticks,
    order_latency_ms,
    slippage_ticks,
)
from research.gates.gate_e import ExecutionQuality

if TYPE_CHECKING:
    from hft_platform.market.instruments import Instrument
    from research.backtest.runner import SessionResult


def slippage_of(result: SessionResult, instrument: Instrument) -> float | None:
    """Mean cost of a fill against the mid at its decision, in ticks; positive is worse."""
    decisions = np.frombuffer(result.decisions, dtype=records.DTYPES["Decision"])
    return slippage_ticks(result.fills, decisions, instrument.tick_size)


def quality_of(result: SessionResult, instrument: Instrument) -> ExecutionQuality:
    """Slippage, markout and order latency of a backtested session."""
    parts = records.split(result.inputs)
    books = parts["Book"]
    decisions = np.frombuffer(result.decisions, dtype=records.DTYPES["Decision"])
    return ExecutionQuality(
        fills=result.fill_count,
        slippage_ticks=slippage_of(result, instrument),
        markout_ticks={
            name: markout_ticks(result.fills, books, horizon, instrument.tick_size)
            for name, horizon in MARKOUT_NS.items()
        },
        order_latency_ms=order_latency_ms(decisions, parts["Broker"]),
    )
