"""MarketHours: trading day, phase and the day's rules of an instrument, asked at every call.

Why: the check before a call must know by which day's ladder a price is judged and whether the
exchange is open, in a microsecond and without a second calendar.

Invariants:
1. A phase is looked up once and remembered until its end.
2. A contract is expired as soon as the trading day is past its last one; a session after an early
   close of the last day is closed.

It has no clock. Operator's page: `docs/execution.md`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hft_platform.market.instruments import Instrument
from hft_platform.market.sessions import SECOND_NS, ExchangeCalendar, Session, yyyymmdd

CLOSED = "closed"
_BEFORE_OPEN = ("pre_open", "no_cancel")


@dataclass(frozen=True, slots=True)
class Hours:
    """What holds at a moment.

    Attributes
    ----------
    instrument : Instrument
        By the rules of the trading day.
    trading_day : int
        yyyymmdd; the local date while closed.
    phase : str
        As `Phase.phase`, or ``closed``.
    is_expired : bool
        Whether the contract's last trading day has passed.
    """

    instrument: Instrument
    trading_day: int
    phase: str
    is_expired: bool

    @property
    def takes_orders(self) -> bool:
        """Whether an order may be placed."""
        return self.phase != CLOSED and self.phase not in _BEFORE_OPEN

    @property
    def takes_cancels(self) -> bool:
        """Whether an order may be canceled."""
        return self.phase not in (CLOSED, "no_cancel")


class MarketHours:
    """Looks up `Hours` by instrument and time.

    Parameters
    ----------
    instruments : mapping of int to Instrument
        By id.
    """

    def __init__(self, instruments: Mapping[int, Instrument]) -> None:
        self._instruments = dict(instruments)
        self._known: dict[int, tuple[int, int, Hours]] = {}

    def at(self, instrument_id: int, now_ns: int) -> Hours | None:
        """What holds now; None for an instrument that is not known.

        Parameters
        ----------
        instrument_id : int
            From the record.
        now_ns : int
            ns UTC.
        """
        known = self._known.get(instrument_id)
        if known is not None and known[0] <= now_ns < known[1]:
            return known[2]
        instrument = self._instruments.get(instrument_id)
        if instrument is None:
            return None
        start_ns, end_ns, hours = _look_up(instrument, now_ns)
        self._known[instrument_id] = (start_ns, end_ns, hours)
        return hours


def _look_up(instrument: Instrument, now_ns: int) -> tuple[int, int, Hours]:
    last_day = instrument.last_trading_day
    session = _session_at(instrument, now_ns, last_day)
    if session is not None:
        windows = (*session.preopen_phases, *session.phases)
        window = next(one for one in windows if one.start_ns <= now_ns < one.end_ns)
        by_day = instrument.on(session.trading_day)
        hours = Hours(by_day, session.trading_day, window.phase, is_expired=False)
        return window.start_ns, window.end_ns, hours
    beyond = _session_at(instrument, now_ns, 0)
    trading_day = _local_date(instrument, now_ns) if beyond is None else beyond.trading_day
    is_expired = bool(last_day) and trading_day > last_day
    # Closed holds for this moment only: the next one may open a session.
    return now_ns, now_ns + 1, Hours(instrument.on(trading_day), trading_day, CLOSED, is_expired)


def _session_at(instrument: Instrument, now_ns: int, last_trading_day: int) -> Session | None:
    times = np.array([now_ns], dtype=np.int64)
    for session in instrument.calendar_rule.candidates(times, last_trading_day):
        if session.preopen_ns <= now_ns < session.end_ns:
            return session
    return None


def _local_date(instrument: Instrument, now_ns: int) -> int:
    calendar = instrument.calendar_rule
    offset_s = calendar.utc_offset_s if isinstance(calendar, ExchangeCalendar) else 0
    moment = dt.datetime.fromtimestamp(now_ns // SECOND_NS + offset_s, tz=dt.UTC)
    return yyyymmdd(moment.date())
