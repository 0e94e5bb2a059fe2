"""What is wrong with the data an alpha is judged by: looked for in every tape and in its history.

Why: a leak in the data makes a profit out of nothing, and no test of the signal can see it.

Invariants:
1. Ingestion is not believed: every judged tape is read again, record by record.
2. Each kind of fault has a name, a reason code and the sessions it was found in; a fault is excused
   only by an entry of the operator's for that session (see research/data/exceptions.py).
3. Sessions of every role are held against the calendar: a bad day that was left out is missing
   wherever it lies.

It decides nothing (see `gate_a`). Operator's page: `docs/look-ahead.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hft_platform import _core, records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.feed.recording import DATASET_SCHEMA
from hft_platform.market.instruments import Instrument, front_days
from hft_platform.market.sessions import ExchangeCalendar, sessions_for
from research.data import catalog
from research.data.datasets import INGESTION_VERSION
from research.data.ingestions import entries, first_tapes, ingestions_of
from research.data.rows import SIMULATED_MATCH
from research.gates.data_facts import FAULTS, DataFacts

if TYPE_CHECKING:
    from hft_platform.market.sessions import Session
    from research.data.catalog import Dataset, SessionRef
    from research.data.exceptions import DataExceptions

NS_PER_S = 1_000_000_000

Found = dict[str, list[str]]


def audit_data(
    dataset: Dataset,
    judged: Sequence[SessionRef],
    instruments: Mapping[str, Instrument],
    *,
    contracts: Iterable[Instrument],
    exceptions: DataExceptions,
    delay_s_max: float,
    delayed_share_max: float,
) -> DataFacts:
    """Look for faults in a dataset.

    Parameters
    ----------
    dataset : Dataset
        With sessions of every role.
    judged : sequence of SessionRef
        Sessions whose tapes are read.
    instruments : mapping of str to Instrument
        The alpha's instruments, by symbol.
    contracts : iterable of Instrument
        Every contract that is known, for the roll rule.
    exceptions : DataExceptions
        What the operator excused.
    delay_s_max : float
        Longest time from an event to its receipt that still counts as received live.
    delayed_share_max : float
        Share of a session's records that may have taken longer, as after a reconnect.

    Returns
    -------
    DataFacts
    """
    found: Found = {name: [] for name in FAULTS}
    mine = [session for session in dataset.sessions if session.symbol in instruments]
    content = catalog.description(dataset)
    _schema(content, found)
    _provenance(content, mine, found)
    limits = (round(delay_s_max * NS_PER_S), delayed_share_max)
    for session in judged:
        _tape(session, instruments[session.symbol], limits, found)
    _calendar(mine, instruments, exceptions, found)
    _history(dataset, content, mine, exceptions, found)
    _contracts(mine, instruments, list(contracts), exceptions, found)
    return DataFacts(
        {name: tuple(sessions) for name, sessions in found.items()},
        tuple(exceptions.of(frozenset(instruments))),
    )


def name_of(session: SessionRef) -> str:
    """How a session is called in a verdict."""
    return f"{session.symbol} {session.session_id}"


def _schema(content: Mapping[str, Any], found: Found) -> None:
    expected = {
        "schema": DATASET_SCHEMA,
        "ingestion_version": INGESTION_VERSION,
        "record_schema": _core.SCHEMA_HASH,
    }
    found["data_schema"] += [
        f"{name} {content.get(name)}, expected {value}"
        for name, value in expected.items()
        if content.get(name) != value
    ]


def _provenance(content: Mapping[str, Any], mine: Sequence[SessionRef], found: Found) -> None:
    """Every symbol's inputs are named by hash, and the instrument is the one they were read as."""
    hashed = {
        str(row["symbol"])
        for row in content.get("inputs", [])
        if len(str(row.get("sha256", ""))) == 64
    }
    described = set(content.get("instruments", {}))
    found["data_provenance"] += [
        name_of(session) for session in mine if session.symbol not in hashed & described
    ]


def _tape(
    session: SessionRef, instrument: Instrument, limits: tuple[int, float], found: Found
) -> None:
    name = name_of(session)
    try:
        tape = catalog.load_tape(session)
    except PlatformError as error:
        if error.code != ReasonCode.FILE_DAMAGED:
            raise
        found["tape_hashes"].append(name)
        return
    parts = records.split(tape)
    streams = [parts["Book"], parts["Trade"]]

    def column(field: str) -> npt.NDArray[np.int64]:
        return np.concatenate([stream[field].astype(np.int64) for stream in streams])

    happened, received = column("exchange_time_ns"), column("receive_time_ns")
    foreign = (column("instrument_id") != instrument.instrument_id) | (
        column("trading_day") != session.trading_day
    )
    delay = received - happened
    delay_ns_max, share_max = limits
    delayed = int((delay > delay_ns_max).sum())
    unordered = any((np.diff(stream["receive_time_ns"]) <= 0).any() for stream in streams)
    counts = {
        "foreign_records": int(foreign.sum()),
        "simulated_matches": int(((column("flags") & SIMULATED_MATCH) != 0).sum()),
        "outside_session": int(
            ((happened < session.start_ns) | (happened >= session.end_ns)).sum()
        ),
        "receive_times": int((delay < 0).sum()) + int(unordered),
        "filled_in_later": delayed if delayed > share_max * delay.size else 0,
    }
    for kind, count in counts.items():
        if count:
            found[kind].append(f"{name} ({count})")


def _calendar(
    mine: Sequence[SessionRef],
    instruments: Mapping[str, Instrument],
    exceptions: DataExceptions,
    found: Found,
) -> None:
    for symbol, instrument in sorted(instruments.items()):
        held = {session.session_id: session for session in mine if session.symbol == symbol}
        if not held:
            continue
        kinds = {_kind(session, instrument) for session in held.values()}
        for first, last in _spans(list(held.values()), instrument):
            found["sessions_missing"] += [
                f"{symbol} {session.session_id}"
                for session in sessions_for(instrument, first, last)
                if session.session_id not in held
                and _kind(session, instrument) in kinds
                and not exceptions.excuses("not_recorded", symbol, session.session_id)
            ]


def _kind(session: Session | SessionRef, instrument: Instrument) -> str:
    """``day`` or ``night``: who records no night session at all leaves no bad one out."""
    is_exchange = isinstance(instrument.calendar_rule, ExchangeCalendar)
    return session.session_id.partition("/")[2] if is_exchange else ""


def _spans(held: Sequence[SessionRef], instrument: Instrument) -> list[tuple[int, int]]:
    """Spans of time in which every session must be there.

    On an exchange that is from the first session to the last. A venue that never closes is
    recorded in pieces, hours or months apart: there each UTC day stands for itself.
    """
    if isinstance(instrument.calendar_rule, ExchangeCalendar):
        groups = [list(held)]
    else:
        days = sorted({session.trading_day for session in held})
        groups = [[session for session in held if session.trading_day == day] for day in days]
    return [
        (min(row.start_ns for row in group), max(row.end_ns for row in group) - 1)
        for group in groups
    ]


def _history(
    dataset: Dataset,
    content: Mapping[str, Any],
    mine: Sequence[SessionRef],
    exceptions: DataExceptions,
    found: Found,
) -> None:
    first = first_tapes(entries(dataset.path.parent))
    wanted = {(session.symbol, session.session_id) for session in mine}
    found["restated"] += [
        f"{row.symbol} {row.session_id}"
        for row in ingestions_of(content)
        if (row.symbol, row.session_id) in wanted
        and first.get((row.symbol, row.session_id, row.way)) != row.tape_sha256
        and not exceptions.excuses("restated", row.symbol, row.session_id)
    ]


def _contracts(
    mine: Sequence[SessionRef],
    instruments: Mapping[str, Instrument],
    contracts: list[Instrument],
    exceptions: DataExceptions,
    found: Found,
) -> None:
    days = {symbol: front_days(row, contracts) for symbol, row in instruments.items()}
    for session in mine:
        first, last = days[session.symbol]
        is_front = first <= session.trading_day and (not last or session.trading_day <= last)
        if not is_front and not exceptions.excuses(
            "back_month", session.symbol, session.session_id
        ):
            found["front_contract"].append(name_of(session))
