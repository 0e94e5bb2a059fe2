"""GateEvidence of backtests: what a session's fills came to, in integers, without the tapes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from research.experiments import TrialFacts, independent_trials


@dataclass(frozen=True, slots=True)
class Trip:
    """One round trip of a session.

    Attributes
    ----------
    mid_edge_ticks : float
        Move of the mid in our direction from entry to exit: the gross edge before spread and fees.
    net_ticks : float
        What was left after spread and fees, in the same unit.
    net : int
        The same in scaled money.
    """

    mid_edge_ticks: float
    net_ticks: float
    net: int

    @property
    def cost_ticks(self) -> float:
        """Half-spreads paid (or earned) and fees."""
        return self.mid_edge_ticks - self.net_ticks


@dataclass(frozen=True, slots=True)
class SessionRun:
    """One backtested session, reduced to what statistics need.

    Money is scaled; `displayed_share` holds, for every fill, its quantity over the quantity that
    was displayed at its price's side of the book. `market_qty` is what the market traded, and
    `volatility_ticks` how far the mid moved, as the root of its squared one-minute moves.
    """

    session_id: str
    symbol: str
    trading_day: int
    gross: int
    fees: int
    fill_count: int
    traded_qty: int
    max_drawdown: int
    trips: tuple[Trip, ...]
    displayed_share: tuple[float, ...] = ()
    market_qty: int = 0
    volatility_ticks: float = 0.0

    @property
    def net(self) -> int:
        """Gross less fees."""
        return self.gross - self.fees

    def as_dict(self) -> dict[str, int | str]:
        """Row of a verdict's results."""
        return {
            "session_id": self.session_id,
            "symbol": self.symbol,
            "trading_day": self.trading_day,
            "net": self.net,
            "gross": self.gross,
            "fees": self.fees,
            "fills": self.fill_count,
            "round_trips": len(self.trips),
            "max_drawdown": self.max_drawdown,
        }


def daily(values: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Sum (trading day, value) pairs by day, days ascending."""
    days: dict[int, int] = {}
    for day, value in values:
        days[day] = days.get(day, 0) + value
    return dict(sorted(days.items()))


def daily_net(runs: Sequence[SessionRun]) -> dict[int, int]:
    """Net profit by trading day; night and day session of one trading day count as one."""
    return daily((run.trading_day, run.net) for run in runs)


def daily_trips(runs: Sequence[SessionRun]) -> dict[int, int]:
    """Round trips by trading day."""
    return daily((run.trading_day, len(run.trips)) for run in runs)


def all_trips(runs: Sequence[SessionRun]) -> list[Trip]:
    """Round trips of all sessions, in order."""
    return [trip for run in runs for trip in run.trips]


@dataclass(frozen=True, slots=True)
class GridPoint:
    """One setting of the parameters, run at the base corner over every judged session."""

    parameters: dict[str, float]
    in_sample: tuple[SessionRun, ...]
    out_of_sample: tuple[SessionRun, ...]


@dataclass(frozen=True, slots=True)
class BacktestEvidence:
    """Everything gate C decides from.

    Attributes
    ----------
    grid : tuple of GridPoint
        Every declared setting, in grid order.
    chosen : int
        Index of the setting chosen on the in-sample sessions alone.
    corners : dict of str to tuple of SessionRun
        The chosen setting out of sample, by corner (latency cell and queue model).
    placebos : dict of str to dict of int to int
        Profit by trading day of runs in which the idea is destroyed.
    trial_count : int
        Trials in the ledger.
    trials : TrialFacts, optional
        What these amount to; without it they count as independent ones.
    """

    grid: tuple[GridPoint, ...]
    chosen: int
    corners: dict[str, tuple[SessionRun, ...]]
    placebos: dict[str, dict[int, int]]
    trial_count: int
    trials: TrialFacts | None = None

    @property
    def trial_facts(self) -> TrialFacts:
        """Facts of the ledger, or of as many independent trials."""
        return self.trials if self.trials is not None else independent_trials(self.trial_count)
