"""The governor: phases by the calendar, night sessions and half days included, and what is left."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import Instrument, load_instruments
from hft_platform.market.sessions import DAY_NS, ExchangeCalendar, sessions_for
from hft_platform.services.session_governor import (
    PERMISSIONS,
    SessionGovernor,
    session_to_run,
    standing_of,
)

INSTRUMENTS = load_instruments()
TXF = INSTRUMENTS.by_symbol("TXFD6")
SECOND = 1_000_000_000


def at(text: str) -> int:
    """Taipei time as ns UTC."""
    moment = dt.datetime.fromisoformat(f"{text}+08:00")
    return int(moment.timestamp()) * SECOND


@pytest.mark.parametrize(
    ("time", "phase", "session_id"),
    [
        ("2026-04-10T08:29:59", "closed", None),
        ("2026-04-10T08:30:00", "pre_open", "2026-04-10/day"),
        ("2026-04-10T08:43:00", "no_cancel", "2026-04-10/day"),
        ("2026-04-10T08:45:00", "open", "2026-04-10/day"),
        ("2026-04-10T13:39:59", "open", "2026-04-10/day"),
        ("2026-04-10T13:40:00", "close_only", "2026-04-10/day"),
        ("2026-04-10T13:44:00", "force_flat", "2026-04-10/day"),
        ("2026-04-10T13:45:00", "closed", None),
        # Friday's night belongs to Monday.
        ("2026-04-10T15:00:00", "open", "2026-04-13/night"),
        ("2026-04-11T04:54:59", "open", "2026-04-13/night"),
        ("2026-04-11T04:55:00", "close_only", "2026-04-13/night"),
        ("2026-04-11T04:59:00", "force_flat", "2026-04-13/night"),
        ("2026-04-11T05:00:00", "closed", None),
        ("2026-04-12T10:00:00", "closed", None),
        # The last trading day ends at 13:30 and has no night behind it.
        ("2026-04-15T13:25:00", "close_only", "2026-04-15/day"),
        ("2026-04-15T13:29:30", "force_flat", "2026-04-15/day"),
        ("2026-04-15T13:30:00", "closed", None),
        ("2026-04-15T16:00:00", "closed", None),
    ],
)
def test_phases_of_the_index_future(time: str, phase: str, session_id: str | None) -> None:
    standing = standing_of(TXF, at(time))
    found = None if standing.session is None else standing.session.session_id
    assert (standing.phase, found) == (phase, session_id)


def test_a_half_day_ends_early_and_a_holiday_has_no_session() -> None:
    rule = TXF.calendar_rule
    assert isinstance(rule, ExchangeCalendar)
    half = dataclasses.replace(
        rule,
        early_closes=((20260410, 12 * 3_600),),
        holidays=rule.holidays | {20260413},
    )
    instrument = dataclasses.replace(TXF, calendar_rule=half)
    assert standing_of(instrument, at("2026-04-10T11:55:00")).phase == "close_only"
    assert standing_of(instrument, at("2026-04-10T12:00:00")).phase == "closed"
    assert standing_of(instrument, at("2026-04-13T10:00:00")).phase == "closed"
    assert standing_of(TXF, at("2026-04-13T10:00:00")).phase == "open"


def test_every_second_of_two_weeks_has_the_phase_that_the_sessions_say() -> None:
    """Negative control of the search: a scan over all sessions finds the same."""
    first = at("2026-04-05T00:00:00")
    sessions = sessions_for(TXF, first, first + 14 * DAY_NS)
    windows = [w for session in sessions for w in (*session.preopen_phases, *session.phases)]
    for offset in range(0, 14 * 86_400, 977):
        now = first + offset * SECOND
        wanted = [window.phase for window in windows if window.start_ns <= now < window.end_ns]
        assert [standing_of(TXF, now).phase] == (wanted or ["closed"])


def test_every_phase_of_the_calendar_has_a_row_of_permissions() -> None:
    phases = {
        window.phase
        for instrument in INSTRUMENTS
        for session in sessions_for(
            instrument, at("2026-04-07T00:00:00"), at("2026-04-09T00:00:00")
        )
        for window in (*session.preopen_phases, *session.phases)
    }
    assert phases | {"closed"} == set(PERMISSIONS)
    assert [name for name, row in PERMISSIONS.items() if row.can_open] == ["open"]
    assert not any(row.can_reduce and not row.can_cancel for row in PERMISSIONS.values())


def governor(*instruments: Instrument) -> SessionGovernor:
    """Of some products."""
    return SessionGovernor(instruments)


def test_a_look_names_the_products_whose_phase_changed() -> None:
    found = governor(TXF, INSTRUMENTS.by_symbol("SIM_EDGE"))
    first = found.look(at("2026-04-10T08:44:59"))
    assert {row.symbol: row.phase for row in first} == {"SIM_EDGE": "closed", "TXFD6": "no_cancel"}
    assert found.look(at("2026-04-10T08:44:59")) == []
    opened = found.look(at("2026-04-10T08:45:00"))
    assert {row.symbol: row.phase for row in opened} == {"SIM_EDGE": "open", "TXFD6": "open"}
    assert [row.symbol for row in found.look(at("2026-04-10T08:54:40"))] == ["SIM_EDGE"]
    assert not found.is_closed()
    found.look(at("2026-04-12T12:00:00"))
    assert found.is_closed()


def test_a_position_behind_the_close_is_reported_once_and_a_flat_one_never() -> None:
    found, session = governor(TXF), sessions_for(TXF, *[at("2026-04-10T10:00:00")] * 2)[0]
    position, end = {"TXFD6": -200_000_000}, session.end_ns
    assert found.close_alarms(session, end - 1, position=position, open_count=1) == []
    assert found.close_alarms(session, end, position={"TXFD6": 0}, open_count=0) == []
    alarms = found.close_alarms(session, end, position=position, open_count=1)
    assert [alarm.code for alarm in alarms] == [
        ReasonCode.POSITION_NOT_FLAT,
        ReasonCode.SESSION_UNEXPLAINED,
    ]
    assert "TXFD6 closed with a position of -2" in alarms[0].message
    assert found.close_alarms(session, end + 1, position=position, open_count=1) == []


def test_the_session_to_run_is_the_one_that_is_on_or_begins_soon() -> None:
    for now in ("2026-04-10T08:00:00", "2026-04-10T08:44:00", "2026-04-10T13:44:59"):
        session = session_to_run(TXF, at(now), start_before_s=1_800)
        assert session.session_id == "2026-04-10/day"
    with pytest.raises(PlatformError) as caught:
        session_to_run(TXF, at("2026-04-10T07:59:59"), start_before_s=1_800)
    assert caught.value.code == ReasonCode.SESSION_NOT_OPEN
    assert "2026-04-10/day" in caught.value.message
    with pytest.raises(PlatformError) as caught:
        session_to_run(TXF, at("2026-04-15T13:30:00"), start_before_s=1_800)
    assert caught.value.code == ReasonCode.CONTRACT_EXPIRED
