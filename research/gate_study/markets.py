"""Markets of the study: tapes of compressed sessions, with the truth known.

Why: the rate at which a gate is fooled can be measured only where somebody knows the answer.

Invariants:
1. A seed decides every byte; alphas of one row have markets of their own, so that their verdicts
   are independent and a binomial bound holds.
2. A session ends when its tape does: positions are closed within it, at the market's prices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from hft_platform.market.instruments import Instrument, InstrumentTable, load_instruments
from hft_platform.market.sessions import SECOND_NS, Phase, Session
from research.data.generator import session_hours, spec_by_name, tapes

CLOSE_ONLY_S = 20
FORCE_FLAT_S = 8
FIRST_DAY = 20_260_105


@dataclass(frozen=True, slots=True)
class StudySession:
    """One compressed session.

    Attributes
    ----------
    tape : bytes
        Records in order of receive time.
    session : Session
        Its hours and phases.
    trading_day : int
        Day that its profit is booked on.
    """

    tape: bytes
    session: Session
    trading_day: int


@dataclass(frozen=True, slots=True)
class Market:
    """Sessions of one instrument, in time order."""

    instrument: Instrument
    sessions: tuple[StudySession, ...]


@cache
def instruments() -> InstrumentTable:
    """Packaged instruments, read once a process."""
    return load_instruments()


def shortened(session: Session, *, start_ns: int, seconds: int, session_id: str) -> Session:
    """A part of a session as a session of its own: open, close-only, then flat.

    Parameters
    ----------
    session : Session
        Gives the trading day.
    start_ns : int
        Start of the part.
    seconds : int
        Its length.
    session_id : str
        Its name.

    Returns
    -------
    Session
    """
    end_ns = start_ns + seconds * SECOND_NS
    close_ns = end_ns - CLOSE_ONLY_S * SECOND_NS
    flat_ns = end_ns - FORCE_FLAT_S * SECOND_NS
    return Session(
        session_id=session_id,
        trading_day=session.trading_day,
        start_ns=start_ns,
        end_ns=end_ns,
        phases=(
            Phase(start_ns, close_ns, "open"),
            Phase(close_ns, flat_ns, "close_only"),
            Phase(flat_ns, end_ns, "force_flat"),
        ),
        preopen_ns=start_ns,
        no_cancel_ns=start_ns,
    )


def generated(
    *,
    seed: int,
    count: int,
    seconds: int,
    strength_ticks: float = 0.0,
    horizon_s: float = 15.0,
    is_fair: bool = False,
) -> Market:
    """Generate a market.

    Parameters
    ----------
    seed : int
        Of every draw.
    count : int
        Sessions, one a trading day.
    seconds : int
        Length of a session.
    strength_ticks, horizon_s : float
        The planted edge; strength 0 plants none.
    is_fair : bool
        Take away what queues foretell of the next move (half a tick, a tenth of a taker's costs):
        then no position has an expected profit from mid to mid.

    Returns
    -------
    Market
    """
    changes: dict[str, Any] = {
        "seed": seed,
        "session_count": count,
        "session_seconds": seconds,
        "first_day": FIRST_DAY,
        "edge": {"kind": "planted", "strength_ticks": strength_ticks, "horizon_s": horizon_s}
        if strength_ticks
        else {"kind": "none"},
    }
    spec = spec_by_name("sim_null", **changes)
    if is_fair:
        spec = spec.model_copy(
            update={"model": spec.model.model_copy(update={"queue_pressure": 0.0})}
        )
    instrument = instruments().by_symbol(spec.symbol)
    hours = session_hours(spec, instrument)
    made = zip(tapes(spec, instruments()), hours, strict=True)
    return Market(
        instrument,
        tuple(
            StudySession(
                tape=tape,
                session=shortened(
                    row, start_ns=row.start_ns, seconds=seconds, session_id=row.session_id
                ),
                trading_day=row.trading_day,
            )
            for (_, tape), row in made
        ),
    )
