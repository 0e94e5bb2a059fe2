"""Trading sessions: which session, trading day and phase a moment belongs to.

Why: the exchange's day is not the calendar's: a night session belongs to the next trading day, so
a Friday night is part of Monday. One rule serves datasets, engine and gates.

Invariants:
1. Sessions of an instrument do not overlap; start is inside, end is outside.
2. A night session's trading day is the next day that trades: weekends and holidays are skipped.
3. Phases cover a session without a gap: open, close_only, force_flat, and close_auction where
   the session ends with a call auction.
4. Local time is a fixed offset from UTC: the venues here have no daylight saving.

It reads no files (see `instruments`) and no clock. Operator's page: `docs/instruments.md`.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hft_platform.errors import PlatformError, ReasonCode

if TYPE_CHECKING:
    from hft_platform.market.instruments import Instrument

SECOND_NS = 1_000_000_000
DAY_NS = 86_400 * SECOND_NS
CLOSED_RUN_DAYS_MAX = 40
"""Longest run of closed days that a search for the next trading day crosses."""
SESSION_COUNT_MAX = 1_000_000
"""Bound on `sessions_for`: more means a corrupt time range."""
_EPOCH = dt.date(1970, 1, 1)
_SATURDAY = 5


@dataclass(frozen=True, slots=True)
class Phase:
    """A window of a session in which the engine may do certain things.

    Attributes
    ----------
    start_ns, end_ns : int
        UTC; start inside, end outside.
    phase : str
        ``open``, ``close_only``, ``force_flat`` or ``close_auction``; before the open ``pre_open``
        or ``no_cancel``.
    """

    start_ns: int
    end_ns: int
    phase: str

    def as_dict(self) -> dict[str, int | str]:
        """Fields for the engine config."""
        return {"start_ns": self.start_ns, "end_ns": self.end_ns, "phase": self.phase}


@dataclass(frozen=True, slots=True)
class Session:
    """One trading session.

    Attributes
    ----------
    session_id : str
        ``2026-04-10/day``: trading day and name; ``2023-04-04/T2358`` for continuous venues.
    trading_day : int
        yyyymmdd.
    start_ns, end_ns : int
        UTC; start inside, end outside.
    phases : tuple of Phase
        In time order, covering the session.
    preopen_ns : int
        Start of the trial-match window before the session; equals `start_ns` if there is none.
    no_cancel_ns : int
        From here to the open the exchange takes no cancel; equals `start_ns` if it always does.
    """

    session_id: str
    trading_day: int
    start_ns: int
    end_ns: int
    phases: tuple[Phase, ...]
    preopen_ns: int
    no_cancel_ns: int

    @property
    def preopen_phases(self) -> tuple[Phase, ...]:
        """Windows before the open: orders are refused in both, cancels in the second."""
        windows = (
            Phase(self.preopen_ns, self.no_cancel_ns, "pre_open"),
            Phase(self.no_cancel_ns, self.start_ns, "no_cancel"),
        )
        return tuple(window for window in windows if window.end_ns > window.start_ns)


@dataclass(frozen=True, slots=True)
class SessionHours:
    """Daily hours of one named session, in seconds of the local day.

    Attributes
    ----------
    name : str
        ``day`` or ``night``.
    open_s, close_s : int
        Seconds after local midnight; a close at or before the open is on the next local day.
    is_next_trading_day : bool
        Whether its trades belong to the next trading day.
    close_only_s, force_flat_s : int
        How long before the end these phases begin.
    preopen_s : int
        Length of the trial-match window before the open.
    no_cancel_s : int
        Length of its last part, in which no cancel is taken.
    close_auction_s : int
        Length of the call auction that ends the session; trading is continuous until it begins.
    """

    name: str
    open_s: int
    close_s: int
    is_next_trading_day: bool
    close_only_s: int
    force_flat_s: int
    preopen_s: int
    no_cancel_s: int
    close_auction_s: int


@dataclass(frozen=True, slots=True)
class ExchangeCalendar:
    """Named daily sessions on weekdays that are not holidays.

    Attributes
    ----------
    name : str
        Key in the YAML.
    utc_offset_s : int
        Local time minus UTC.
    hours : tuple of SessionHours
        In the order of their open.
    holidays : frozenset of int
        Closed weekdays, yyyymmdd.
    without_night : frozenset of int
        Local dates (yyyymmdd) whose evening has no night session.
    last_day_close_s : int or None
        Earlier close of the day session on a contract's last trading day.
    extra_days : frozenset of int
        Saturdays and Sundays on which trading is held.
    early_closes : tuple of (int, int)
        Days (yyyymmdd) whose sessions end early, and when, in seconds of the local day.
    """

    name: str
    utc_offset_s: int
    hours: tuple[SessionHours, ...]
    holidays: frozenset[int]
    without_night: frozenset[int]
    last_day_close_s: int | None
    extra_days: frozenset[int]
    early_closes: tuple[tuple[int, int], ...]

    def is_trading_day(self, day: dt.date) -> bool:
        """Whether a day session is held."""
        number = yyyymmdd(day)
        is_weekday = day.weekday() < _SATURDAY or number in self.extra_days
        return is_weekday and number not in self.holidays

    def next_trading_day(self, day: dt.date) -> dt.date:
        """First trading day after `day`."""
        return self._neighbour(day, 1)

    def previous_trading_day(self, day: dt.date) -> dt.date:
        """Last trading day before `day`."""
        return self._neighbour(day, -1)

    def _neighbour(self, start: dt.date, step_days: int) -> dt.date:
        day = start
        for _ in range(CLOSED_RUN_DAYS_MAX):
            day += dt.timedelta(days=step_days)
            if self.is_trading_day(day):
                return day
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"calendar {self.name}: no trading day within {CLOSED_RUN_DAYS_MAX} days of {start}",
            next_step="check the holidays of the calendar in config/instruments",
        )

    def sessions_opening_on(self, day: dt.date, last_trading_day: int) -> list[Session]:
        """Sessions whose open lies on the local date `day`, for a contract (0: no last day)."""
        if not self.is_trading_day(day):
            return []
        sessions = (self._session(day, hours, last_trading_day) for hours in self.hours)
        return [session for session in sessions if session is not None]

    def _session(self, day: dt.date, hours: SessionHours, last_trading_day: int) -> Session | None:
        if hours.is_next_trading_day and yyyymmdd(day) in self.without_night:
            return None
        trading_date = self.next_trading_day(day) if hours.is_next_trading_day else day
        trading_day = yyyymmdd(trading_date)
        if last_trading_day and trading_day > last_trading_day:
            return None
        close_s = hours.close_s if hours.close_s > hours.open_s else hours.close_s + 86_400
        is_last = trading_day == last_trading_day and not hours.is_next_trading_day
        if is_last and self.last_day_close_s is not None:
            close_s = min(close_s, self.last_day_close_s)
        for early_day, early_close_s in self.early_closes:
            if early_day == yyyymmdd(day) and early_close_s > hours.open_s:
                close_s = min(close_s, early_close_s)
        midnight = ((day - _EPOCH).days * 86_400 - self.utc_offset_s) * SECOND_NS
        return _make_session(
            f"{trading_date.isoformat()}/{hours.name}",
            trading_day,
            midnight + hours.open_s * SECOND_NS,
            midnight + close_s * SECOND_NS,
            hours,
        )

    def candidates(self, times: npt.NDArray[np.int64], last_trading_day: int) -> list[Session]:
        """Sessions that could hold one of `times`, in time order."""
        local_days = np.unique((times + self.utc_offset_s * SECOND_NS) // DAY_NS)
        wanted = np.unique(np.concatenate([local_days - 1, local_days]))
        found: list[Session] = []
        for index in wanted.tolist():
            found += self.sessions_opening_on(_EPOCH + dt.timedelta(days=index), last_trading_day)
        return sorted(found, key=lambda session: session.start_ns)

    def probe_times(self, first_ns: int, last_ns: int) -> npt.NDArray[np.int64]:
        """One time in each local day from `first_ns` to `last_ns`."""
        return np.append(np.arange(first_ns, last_ns, DAY_NS, dtype=np.int64), last_ns)


@dataclass(frozen=True, slots=True)
class ContinuousCalendar:
    """A venue that never closes, cut into blocks aligned to UTC midnight.

    Attributes
    ----------
    name : str
        Key in the YAML.
    session_minutes : int
        Length of a block; divides a day.
    close_only_s, force_flat_s : int
        How long before the end of a block these phases begin.
    """

    name: str
    session_minutes: int
    close_only_s: int
    force_flat_s: int

    def candidates(self, times: npt.NDArray[np.int64], last_trading_day: int) -> list[Session]:
        """Blocks that hold one of `times`, in time order."""
        block_ns = self.session_minutes * 60 * SECOND_NS
        return [
            session
            for session in (self._block(index, block_ns) for index in np.unique(times // block_ns))
            if not last_trading_day or session.trading_day <= last_trading_day
        ]

    def _block(self, index: int, block_ns: int) -> Session:
        start_ns = int(index) * block_ns
        moment = dt.datetime.fromtimestamp(start_ns // SECOND_NS, tz=dt.UTC)
        hours = SessionHours("", 0, 0, False, self.close_only_s, self.force_flat_s, 0, 0, 0)
        return _make_session(
            moment.strftime("%Y-%m-%d/T%H%M"),
            yyyymmdd(moment.date()),
            start_ns,
            start_ns + block_ns,
            hours,
        )

    def probe_times(self, first_ns: int, last_ns: int) -> npt.NDArray[np.int64]:
        """One time in each block from `first_ns` to `last_ns`."""
        step = self.session_minutes * 60 * SECOND_NS
        return np.append(np.arange(first_ns, last_ns, step, dtype=np.int64), last_ns)


Calendar = ExchangeCalendar | ContinuousCalendar


def sessions_for(instrument: Instrument, first_ns: int, last_ns: int) -> list[Session]:
    """Sessions that share a moment with the closed range from `first_ns` to `last_ns`.

    Parameters
    ----------
    instrument : Instrument
        Its calendar and last trading day decide.
    first_ns, last_ns : int
        UTC, both included.

    Returns
    -------
    list of Session
        In time order.

    Raises
    ------
    PlatformError
        VALUE_OUT_OF_RANGE for a reversed range, or one with more than `SESSION_COUNT_MAX` blocks.
    """
    if last_ns < first_ns:
        raise PlatformError(
            ReasonCode.VALUE_OUT_OF_RANGE, f"range ends at {last_ns}, before it starts: {first_ns}"
        )
    if (last_ns - first_ns) // (60 * SECOND_NS) > SESSION_COUNT_MAX:
        raise PlatformError(
            ReasonCode.VALUE_OUT_OF_RANGE,
            f"range from {first_ns} to {last_ns} is longer than {SESSION_COUNT_MAX} minutes",
            next_step="ask for a shorter range",
        )
    calendar = instrument.calendar_rule
    times = calendar.probe_times(first_ns, last_ns)
    return [
        session
        for session in calendar.candidates(times, instrument.last_trading_day)
        if session.start_ns <= last_ns and session.end_ns > first_ns
    ]


def session_of(instrument: Instrument, time_ns: int) -> Session | None:
    """Session that a moment belongs to, or None outside every session."""
    found = sessions_for(instrument, time_ns, time_ns)
    return found[0] if found else None


def assign_sessions(
    instrument: Instrument, times: npt.NDArray[np.int64]
) -> tuple[list[Session], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Session of each of many moments.

    Parameters
    ----------
    instrument : Instrument
        Its calendar and last trading day decide.
    times : ndarray of int64, shape (n,)
        UTC ns, any order.

    Returns
    -------
    sessions : list of Session
        Those that hold a moment, or whose pre-open window does, in time order.
    index : ndarray of int64, shape (n,)
        Position in `sessions`, -1 outside every session and pre-open window.
    is_preopen : ndarray of bool, shape (n,)
        Whether the moment lies in the pre-open window of its session.
    """
    nothing = np.full(times.shape, -1, dtype=np.int64)
    if times.size == 0:
        return [], nothing, np.zeros(times.shape, dtype=np.bool_)
    candidates = instrument.calendar_rule.candidates(times, instrument.last_trading_day)
    if not candidates:
        return [], nothing, np.zeros(times.shape, dtype=np.bool_)
    opens = np.array([session.preopen_ns for session in candidates], dtype=np.int64)
    starts = np.array([session.start_ns for session in candidates], dtype=np.int64)
    ends = np.array([session.end_ns for session in candidates], dtype=np.int64)
    place = np.searchsorted(opens, times, side="right") - 1
    safe = np.maximum(place, 0)
    is_inside = (place >= 0) & (times < ends[safe])
    used = np.unique(safe[is_inside])
    renumber = np.full(len(candidates), -1, dtype=np.int64)
    renumber[used] = np.arange(used.size)
    index = np.where(is_inside, renumber[safe], -1)
    return [candidates[i] for i in used.tolist()], index, is_inside & (times < starts[safe])


def yyyymmdd(day: dt.date) -> int:
    """A date as the integer that records carry."""
    return day.year * 10_000 + day.month * 100 + day.day


def date_of(value: int) -> dt.date:
    """The date of a yyyymmdd integer; ValueError when it is none."""
    return dt.date(value // 10_000, value // 100 % 100, value % 100)


def third_wednesday(year: int, month: int) -> dt.date:
    """Third Wednesday of a month: the usual last trading day of TAIFEX index futures."""
    first = dt.date(year, month, 1)
    return first + dt.timedelta(days=(2 - first.weekday()) % 7 + 14)


def _make_session(
    session_id: str, trading_day: int, start_ns: int, end_ns: int, hours: SessionHours
) -> Session:
    auction = end_ns - hours.close_auction_s * SECOND_NS
    close_only = auction - hours.close_only_s * SECOND_NS
    force_flat = auction - hours.force_flat_s * SECOND_NS
    phases = (
        Phase(start_ns, close_only, "open"),
        Phase(close_only, force_flat, "close_only"),
        Phase(force_flat, auction, "force_flat"),
        Phase(auction, end_ns, "close_auction"),
    )
    return Session(
        session_id=session_id,
        trading_day=trading_day,
        start_ns=start_ns,
        end_ns=end_ns,
        phases=tuple(phase for phase in phases if phase.end_ns > phase.start_ns),
        preopen_ns=start_ns - hours.preopen_s * SECOND_NS,
        no_cancel_ns=start_ns - hours.no_cancel_s * SECOND_NS,
    )
