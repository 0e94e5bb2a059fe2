"""Sessions: the exchange's day, weekends, holidays, the last trading day, phases."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hft_platform.errors import PlatformError
from hft_platform.market.instruments import Instrument, load_instruments
from hft_platform.market.sessions import (
    assign_sessions,
    session_of,
    sessions_for,
    third_wednesday,
)

TAIPEI = dt.timezone(dt.timedelta(hours=8))
NOWHERE = Path("no-such-folder")


def taipei(*parts: int) -> int:
    return int(dt.datetime(*parts, tzinfo=TAIPEI).timestamp()) * 1_000_000_000


@pytest.fixture(scope="module")
def txf() -> Instrument:
    return load_instruments(NOWHERE).by_symbol("TXFD6")


@pytest.fixture(scope="module")
def btc() -> Instrument:
    return load_instruments(NOWHERE).by_symbol("BTCUSDT.USDM")


@pytest.mark.parametrize(
    ("moment", "session_id"),
    [
        ((2026, 4, 9, 8, 44, 59), None),
        ((2026, 4, 9, 8, 45), "2026-04-09/day"),
        ((2026, 4, 9, 13, 44, 59), "2026-04-09/day"),
        ((2026, 4, 9, 13, 45), None),
        ((2026, 4, 9, 15, 0), "2026-04-10/night"),
        ((2026, 4, 10, 4, 59, 59), "2026-04-10/night"),
        ((2026, 4, 10, 5, 0), None),
        ((2026, 4, 10, 23, 0), "2026-04-13/night"),
        ((2026, 4, 11, 3, 0), "2026-04-13/night"),
        ((2026, 4, 11, 9, 0), None),
        ((2026, 4, 11, 16, 0), None),
        ((2026, 4, 12, 23, 0), None),
        ((2026, 4, 2, 16, 0), "2026-04-07/night"),
        ((2026, 4, 3, 9, 0), None),
    ],
)
def test_a_moment_belongs_to_the_exchanges_day(
    txf: Instrument, moment: tuple[int, ...], session_id: str | None
) -> None:
    found = session_of(txf, taipei(*moment))
    assert (found.session_id if found else None) == session_id


def test_a_friday_night_is_part_of_mondays_trading_day(txf: Instrument) -> None:
    found = session_of(txf, taipei(2026, 4, 10, 20, 0))
    assert found is not None
    assert found.trading_day == 20260413


def test_the_last_trading_day_ends_early_and_has_no_night(txf: Instrument) -> None:
    found = sessions_for(txf, taipei(2026, 4, 14, 14, 0), taipei(2026, 4, 20, 0, 0))
    assert [session.session_id for session in found] == ["2026-04-15/night", "2026-04-15/day"]
    assert found[1].end_ns == taipei(2026, 4, 15, 13, 30)


def test_an_evening_on_the_override_list_has_no_night_session(txf: Instrument) -> None:
    rule = dataclasses.replace(txf.calendar_rule, without_night=frozenset({20260409}))
    changed = dataclasses.replace(txf, calendar_rule=rule)
    assert session_of(changed, taipei(2026, 4, 9, 16, 0)) is None
    assert session_of(changed, taipei(2026, 4, 10, 9, 0)) is not None


def test_phases_cover_a_session_in_order(txf: Instrument, btc: Instrument) -> None:
    for instrument, moment in ((txf, (2026, 4, 9, 9, 0)), (btc, (2026, 4, 9, 9, 0))):
        session = session_of(instrument, taipei(*moment))
        assert session is not None
        assert [phase.phase for phase in session.phases] == ["open", "close_only", "force_flat"]
        edges = [phase.start_ns for phase in session.phases] + [session.phases[-1].end_ns]
        assert edges[0] == session.start_ns
        assert edges[-1] == session.end_ns
        assert edges == sorted(edges)
        assert [phase.end_ns for phase in session.phases] == edges[1:]


def test_the_governor_windows_of_txf_are_five_minutes_and_one(txf: Instrument) -> None:
    session = session_of(txf, taipei(2026, 4, 9, 9, 0))
    assert session is not None
    assert session.phases[1].start_ns == taipei(2026, 4, 9, 13, 40)
    assert session.phases[2].start_ns == taipei(2026, 4, 9, 13, 44)


def test_before_the_open_there_is_a_window_without_orders_and_one_without_cancels(
    txf: Instrument, btc: Instrument
) -> None:
    day = session_of(txf, taipei(2026, 4, 9, 9, 0))
    block = session_of(btc, taipei(2026, 4, 9, 9, 0))
    assert day is not None
    assert block is not None
    assert [(p.start_ns, p.end_ns, p.phase) for p in day.preopen_phases] == [
        (taipei(2026, 4, 9, 8, 30), taipei(2026, 4, 9, 8, 43), "pre_open"),
        (taipei(2026, 4, 9, 8, 43), taipei(2026, 4, 9, 8, 45), "no_cancel"),
    ]
    assert block.preopen_phases == ()


def test_a_continuous_venue_is_cut_into_blocks_of_utc(btc: Instrument) -> None:
    moment = int(dt.datetime(2023, 4, 4, 23, 59, tzinfo=dt.UTC).timestamp()) * 1_000_000_000
    session = session_of(btc, moment)
    assert session is not None
    assert (session.session_id, session.trading_day) == ("2023-04-04/T2358", 20230404)
    assert session.end_ns - session.start_ns == 120_000_000_000


def test_a_sim_trading_day_has_one_session_of_ten_minutes() -> None:
    sim = load_instruments(NOWHERE).by_symbol("SIM_EDGE")
    found = sessions_for(sim, taipei(2026, 4, 10, 0, 0), taipei(2026, 4, 13, 23, 0))
    assert [session.session_id for session in found] == ["2026-04-10/day", "2026-04-13/day"]
    assert found[0].end_ns - found[0].start_ns == 600_000_000_000
    flat = found[0].phases[2]
    assert flat.end_ns - flat.start_ns == 10_000_000_000


def test_preopen_rows_are_assigned_to_the_session_that_follows(txf: Instrument) -> None:
    times = np.array(
        [
            taipei(2026, 4, 9, 8, 31),
            taipei(2026, 4, 9, 9, 0),
            taipei(2026, 4, 9, 14, 55),
            taipei(2026, 4, 9, 14, 0),
        ],
        dtype=np.int64,
    )
    sessions, index, preopen = assign_sessions(txf, times)
    names = [sessions[i].session_id if i >= 0 else None for i in index]
    assert names == ["2026-04-09/day", "2026-04-09/day", "2026-04-10/night", None]
    assert preopen.tolist() == [True, False, True, False]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1_600_000_000, 1_900_000_000), min_size=1, max_size=20))
def test_invariant_1_many_moments_get_the_session_that_one_gets(seconds: list[int]) -> None:
    table = load_instruments(NOWHERE)
    times = np.array(seconds, dtype=np.int64) * 1_000_000_000
    for symbol in ("TXFD6", "BTCUSDT.SPOT"):
        instrument = dataclasses.replace(table.by_symbol(symbol), last_trading_day=0)
        sessions, index, preopen = assign_sessions(instrument, times)
        for time_ns, place, early in zip(times.tolist(), index.tolist(), preopen, strict=True):
            alone = session_of(instrument, time_ns)
            assert (sessions[place] if place >= 0 and not early else None) == alone
        for before, after in itertools.pairwise(sessions):
            assert before.end_ns <= after.preopen_ns


def test_a_range_that_ends_before_it_starts_is_refused(txf: Instrument) -> None:
    with pytest.raises(PlatformError, match="before it starts"):
        sessions_for(txf, 2, 1)


def test_the_third_wednesday_is_found() -> None:
    assert third_wednesday(2026, 4) == dt.date(2026, 4, 15)
    assert third_wednesday(2026, 6) == dt.date(2026, 6, 17)
    assert third_wednesday(2023, 1) == dt.date(2023, 1, 18)
