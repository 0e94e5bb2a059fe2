"""Evidence from backtests: run settings over sessions and reduce each run to what gates need.

Why: gates judge numbers; tapes, engine configs and exchanges stay on this side.

Invariants:
1. Results come back in the order asked for, whatever the number of workers.
2. A run is reduced at once: no tape outlives its session.

Operator's page: `docs/gates.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from hft_platform import records
from hft_platform.records import SCALE
from research.gates.evidence import SessionRun, Trip

if TYPE_CHECKING:
    from hft_platform.execution.position_store import SessionAccount
    from hft_platform.market.instruments import Instrument
    from research.backtest.runner import SessionResult


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One backtest to be run.

    Attributes
    ----------
    session_index : int
        Which of the judged sessions.
    parameters : dict of str to float
        A value for every parameter.
    latency_corner : float or None
        Quantile that fixes every delay; None samples the measured distribution.
    queue_model : str
        As the backtest names it.
    is_flipped : bool
        Trade the negative of the signal: a placebo.
    """

    session_index: int
    parameters: dict[str, float]
    latency_corner: float | None
    queue_model: str
    is_flipped: bool = False


@dataclass(frozen=True, slots=True)
class PositionPath:
    """Position steps and mids of a session, by time since its first book; for placebos."""

    step_offset_ns: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]
    mid_offset_ns: npt.NDArray[np.int64]
    mid: npt.NDArray[np.int64]
    multiplier: int


@dataclass(frozen=True, slots=True)
class RunOutput:
    """A reduced run, what a placebo needs of it, and its execution quality."""

    run: SessionRun
    path: PositionPath
    slippage_ticks: float | None


class RunBacktests(Protocol):
    """The seam between gates and the backtest: runs specs of one session, in order."""

    def __call__(self, session_index: int, specs: Sequence[RunSpec]) -> list[RunOutput]:
        """Run `specs`, all of them of session `session_index`."""
        ...


def run_all(
    specs: Sequence[RunSpec],
    backtest: RunBacktests,
    *,
    map_sessions: Callable[..., Any] = map,
) -> list[RunOutput]:
    """Run specs session by session, so that each tape is loaded once.

    Parameters
    ----------
    specs : sequence of RunSpec
        Any order.
    backtest : RunBacktests
        Runs the specs of one session.
    map_sessions : callable, optional
        ``map`` or the map of an executor; must keep order.

    Returns
    -------
    list of RunOutput
        In the order of `specs`.
    """
    by_session: dict[int, list[int]] = {}
    for position, spec in enumerate(specs):
        by_session.setdefault(spec.session_index, []).append(position)
    sessions = sorted(by_session)
    groups = [[specs[p] for p in by_session[index]] for index in sessions]
    outputs: dict[int, RunOutput] = {}
    for index, made in zip(sessions, map_sessions(backtest, sessions, groups), strict=True):
        outputs |= dict(zip(by_session[index], made, strict=True))
    return [outputs[position] for position in range(len(specs))]


def reduce_run(result: SessionResult, instrument: Instrument, *, trading_day: int) -> SessionRun:
    """Reduce a backtested session to a `SessionRun`.

    Parameters
    ----------
    result : SessionResult
        Of research.backtest.runner.
    instrument : Instrument
        The one traded.
    trading_day : int
        Exchange's day, yyyymmdd.

    Returns
    -------
    SessionRun
    """
    account = result.account
    market_qty, volatility_ticks = _market_of(result, instrument)
    return SessionRun(
        session_id=result.session_id,
        symbol=instrument.symbol,
        trading_day=trading_day,
        gross=account.gross,
        fees=account.fees,
        fill_count=account.fill_count,
        traded_qty=account.traded_qty,
        max_drawdown=account.max_drawdown,
        trips=_trips(account, instrument),
        displayed_share=_displayed_share(result),
        market_qty=market_qty,
        volatility_ticks=volatility_ticks,
    )


VOLATILITY_STEP_NS = 60_000_000_000
"""Moves over a minute: long enough that the bounce between bid and ask is not counted."""


def _market_of(result: SessionResult, instrument: Instrument) -> tuple[int, float]:
    """Quantity the market traded, and the root of the mid's squared one-minute moves in ticks."""
    from hft_platform.execution.position_store import mids_of

    kinds = records.split(result.inputs)
    trades = kinds.get("Trade")
    qty = int(trades["qty"].sum()) if trades is not None and trades.size else 0
    times, mids = mids_of(kinds["Book"])
    if times.size < 2:
        return qty, 0.0
    grid = np.arange(int(times[0]), int(times[-1]) + 1, VOLATILITY_STEP_NS)
    sampled = mids[np.searchsorted(times, grid, side="right") - 1]
    moves = np.diff(np.append(sampled, mids[-1])) / float(instrument.tick_size)
    return qty, float(np.sqrt(np.square(moves).sum()))


def _trips(account: SessionAccount, instrument: Instrument) -> tuple[Trip, ...]:
    rows = []
    for trip in account.round_trips:
        tick_money = instrument.tick_size * trip.qty * instrument.multiplier // (SCALE * SCALE)
        rows.append(Trip(trip.mid_edge_ticks, trip.net / tick_money, trip.net))
    return tuple(rows)


def _displayed_share(result: SessionResult) -> tuple[float, ...]:
    """Per fill: its quantity over the best displayed quantity of the side it took or rested on."""
    fills = result.fills
    if fills.size == 0:
        return ()
    books = records.split(result.inputs)["Book"]
    index = np.searchsorted(books["exchange_time_ns"], fills["exchange_time_ns"], side="left") - 1
    before = books[np.maximum(index, 0)]
    takes_ask = (fills["side"] > 0) != (fills["is_maker"] != 0)
    shown = np.where(takes_ask, before["ask_qty"][:, 0], before["bid_qty"][:, 0])
    # Nothing displayed counts as one unit: an order there is many times what was shown.
    return tuple(float(share) for share in fills["qty"] / np.maximum(shown, 1))


def path_of(result: SessionResult, instrument: Instrument) -> PositionPath:
    """Position steps and mids of a run."""
    from hft_platform.execution.position_store import mids_of

    times, mids = mids_of(records.split(result.inputs)["Book"])
    first = int(times[0]) if times.size else 0
    fills = result.fills
    return PositionPath(
        step_offset_ns=fills["exchange_time_ns"] - first,
        position=np.cumsum(fills["side"].astype(np.int64) * fills["qty"]),
        mid_offset_ns=times - first,
        mid=mids,
        multiplier=instrument.multiplier,
    )


def shifted_profit(path: PositionPath, market: PositionPath, *, delay_ns: int = 0) -> int:
    """Profit, mid to mid, of one session's positions in another session's market.

    Parameters
    ----------
    path : PositionPath
        Whose positions, at their times since the session's first book.
    market : PositionPath
        Whose mids.
    delay_ns : int
        Further shift of the positions.

    Returns
    -------
    int
        Scaled money; what a signal without knowledge of this market makes, on average nothing.
    """
    if path.position.size == 0 or market.mid.size == 0:
        return 0
    at = np.searchsorted(market.mid_offset_ns, path.step_offset_ns + delay_ns, side="right") - 1
    marks = [int(m) for m in market.mid[np.maximum(at, 0)]] + [int(market.mid[-1])]
    total = sum(
        int(position) * (after - before)
        for position, before, after in zip(path.position, marks, marks[1:], strict=False)
    )
    return total * market.multiplier // (SCALE * SCALE)


def flipped(spec: RunSpec) -> RunSpec:
    """The same run with the signal's sign turned."""
    return replace(spec, is_flipped=True)
