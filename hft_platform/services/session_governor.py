"""Session governor: what the market's calendar allows now, for each product.

Why: engine and broker each know whether an order may go. Somebody must know when to start, when to
stop, and whether the position really was flat when the market closed.

Invariants:
1. Phases come from the calendar (`hft_platform/market/sessions.py`) alone: night sessions, half
   days and last trading days included. They say what may be tried, never that an order may go.
2. A moment outside every session and its pre-open is `closed`: there is no other default.
3. A contract behind its last trading day has no session at all.
4. A close with a position, or with orders that are open, is reported once, with its code.

It reads no clock and checks no order: the engine does that (docs/risk.md). Operator's page:
`docs/live.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import Instrument
from hft_platform.market.sessions import SECOND_NS, Session, sessions_for

CLOSED = "closed"
AHEAD_NS_MAX = 40 * 86_400 * SECOND_NS
"""How far ahead the next session is looked for: behind the longest run of holidays."""


@dataclass(frozen=True, slots=True)
class Permission:
    """What a phase lets the runtime try."""

    can_open: bool
    can_reduce: bool
    can_cancel: bool


PERMISSIONS: Mapping[str, Permission] = {
    "closed": Permission(can_open=False, can_reduce=False, can_cancel=False),
    "pre_open": Permission(can_open=False, can_reduce=False, can_cancel=True),
    "no_cancel": Permission(can_open=False, can_reduce=False, can_cancel=False),
    "open": Permission(can_open=True, can_reduce=True, can_cancel=True),
    "close_only": Permission(can_open=False, can_reduce=True, can_cancel=True),
    "force_flat": Permission(can_open=False, can_reduce=True, can_cancel=True),
    "close_auction": Permission(can_open=False, can_reduce=True, can_cancel=True),
}
"""One row a phase; docs/live.md shows them."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one product stands.

    Attributes
    ----------
    symbol : str
        Contract.
    phase : str
        Key of `PERMISSIONS`.
    session : Session or None
        The one it is in, None while closed.
    until_ns : int
        When the phase ends; 0 where no session comes any more.
    """

    symbol: str
    phase: str
    session: Session | None
    until_ns: int

    @property
    def permission(self) -> Permission:
        """What may be tried."""
        return PERMISSIONS[self.phase]

    def as_dict(self) -> dict[str, Any]:
        """For status and logs."""
        return {
            "symbol": self.symbol,
            "phase": self.phase,
            "session_id": None if self.session is None else self.session.session_id,
            "until_ns": self.until_ns,
        }


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that somebody must act on."""

    code: int
    symbol: str
    message: str


def next_session(instrument: Instrument, now_ns: int) -> Session | None:
    """The session that a moment lies in (its pre-open included), or else the next one.

    Parameters
    ----------
    instrument : Instrument
        Calendar and last trading day decide.
    now_ns : int
        UTC.

    Returns
    -------
    Session or None
        None when the contract trades no more within `AHEAD_NS_MAX`.
    """
    ahead = sessions_for(instrument, now_ns, now_ns + AHEAD_NS_MAX)
    return ahead[0] if ahead else None


def standing_of(instrument: Instrument, now_ns: int) -> Standing:
    """Where a product stands at a moment.

    Parameters
    ----------
    instrument : Instrument
        One contract.
    now_ns : int
        UTC.

    Returns
    -------
    Standing
    """
    session = next_session(instrument, now_ns)
    if session is None:
        return Standing(instrument.symbol, CLOSED, None, 0)
    for phase in (*session.preopen_phases, *session.phases):
        if phase.start_ns <= now_ns < phase.end_ns:
            return Standing(instrument.symbol, phase.phase, session, phase.end_ns)
    return Standing(instrument.symbol, CLOSED, None, min(session.preopen_ns, session.start_ns))


class SessionGovernor:
    """Follows the phases of the products that one process trades.

    Parameters
    ----------
    instruments : iterable of Instrument
        The contracts.
    """

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self._instruments = {row.symbol: row for row in instruments}
        self._standings: dict[str, Standing] = {}
        self._reported: set[str] = set()

    def look(self, now_ns: int) -> list[Standing]:
        """Products whose phase changed since the last look; all of them at the first.

        Parameters
        ----------
        now_ns : int
            UTC, not before the last look's.

        Returns
        -------
        list of Standing
            In the order of symbols.
        """
        changed = []
        for symbol in sorted(self._instruments):
            before = self._standings.get(symbol)
            if before is not None and before.until_ns > now_ns:
                continue
            standing = standing_of(self._instruments[symbol], now_ns)
            if before is None or standing.phase != before.phase:
                changed.append(standing)
            self._standings[symbol] = standing
        return changed

    @property
    def standings(self) -> list[Standing]:
        """As the last look found them, in the order of symbols."""
        return [self._standings[symbol] for symbol in sorted(self._standings)]

    def is_closed(self) -> bool:
        """Whether no product is in a session or before one."""
        return all(standing.phase == CLOSED for standing in self._standings.values())

    def close_alarms(
        self, session: Session, now_ns: int, *, position: Mapping[str, int], open_count: int
    ) -> list[Alarm]:
        """What is left when a session is over; each product is reported once.

        Parameters
        ----------
        session : Session
            The one that was traded.
        now_ns : int
            UTC.
        position : mapping of str to int
            Net position by symbol, scaled.
        open_count : int
            Orders that are not known to be done.

        Returns
        -------
        list of Alarm
            Empty before the end, and when all is flat.
        """
        if now_ns < session.end_ns:
            return []
        alarms = []
        for symbol in sorted(self._instruments):
            quantity = position.get(symbol, 0)
            if quantity and symbol not in self._reported:
                self._reported.add(symbol)
                text = f"{symbol} closed with a position of {quantity / 1e8:g}; it was to be flat"
                alarms.append(Alarm(int(ReasonCode.POSITION_NOT_FLAT), symbol, text))
        if open_count and "" not in self._reported:
            self._reported.add("")
            text = f"{open_count} orders are not known to be done behind the close"
            alarms.append(Alarm(int(ReasonCode.SESSION_UNEXPLAINED), "", text))
        return alarms


def session_to_run(instrument: Instrument, now_ns: int, *, start_before_s: int) -> Session:
    """The session that a process started now trades.

    Parameters
    ----------
    instrument : Instrument
        The contract.
    now_ns : int
        Wall clock.
    start_before_s : int
        How long before the session (its pre-open, if it has one) a process may start.

    Returns
    -------
    Session
        The one that is on, or one that begins soon.

    Raises
    ------
    PlatformError
        CONTRACT_EXPIRED when the contract has ended, SESSION_NOT_OPEN naming the next session.
    """
    session = next_session(instrument, now_ns)
    if session is None:
        raise PlatformError(
            ReasonCode.CONTRACT_EXPIRED,
            f"{instrument.symbol} has no session any more; its last trading day was"
            f" {instrument.last_trading_day}",
        )
    first_ns = session.preopen_ns - start_before_s * SECOND_NS
    if now_ns < first_ns:
        hours = (session.start_ns - now_ns) / (3_600 * SECOND_NS)
        raise PlatformError(
            ReasonCode.SESSION_NOT_OPEN,
            f"{instrument.symbol} is closed; session {session.session_id} begins in {hours:.1f} h",
            next_step="start again within governor.start_before_s of it",
        )
    return session
