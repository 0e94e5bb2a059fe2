"""MarketHours: the trading day across midnight and weekends, and venues that never close."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from hft_platform.market.instruments import load_instruments
from hft_platform.order.market_hours import MarketHours
from tests.hft_platform.order.live_world import TXF

COIN = load_instruments().by_symbol("BTCUSDT.USDM")
HOURS = MarketHours({1: TXF, 2: COIN})


def taipei(text: str) -> int:
    return int(dt.datetime.fromisoformat(f"{text}+08:00").timestamp()) * 1_000_000_000


@pytest.mark.parametrize(
    ("moment", "trading_day", "phase"),
    [
        ("2026-04-10 08:44", 20260410, "no_cancel"),
        ("2026-04-10 08:45", 20260410, "open"),
        ("2026-04-10 13:45", 20260410, "closed"),
        ("2026-04-10 15:00", 20260413, "open"),
        ("2026-04-11 00:30", 20260413, "open"),
        ("2026-04-11 04:59:59", 20260413, "force_flat"),
        ("2026-04-11 05:00", 20260411, "closed"),
        ("2026-04-12 10:00", 20260412, "closed"),
        ("2026-04-15 13:29:59", 20260415, "force_flat"),
        ("2026-04-15 13:30", 20260415, "closed"),
        ("2026-04-15 15:00", 20260416, "closed"),
    ],
)
def test_the_day_and_the_phase_of_a_moment(moment: str, trading_day: int, phase: str) -> None:
    # Asked twice: the second answer comes from memory.
    for _ in range(2):
        hours = HOURS.at(1, taipei(moment))
        assert hours is not None
        assert (hours.trading_day, hours.phase) == (trading_day, phase)
        assert hours.is_expired == (trading_day > 20260415)


def test_a_venue_that_never_closes_is_open_and_an_unknown_instrument_is_none() -> None:
    hours = HOURS.at(2, taipei("2026-04-12 03:00"))
    assert hours is not None
    assert (hours.takes_orders, hours.takes_cancels, hours.is_expired) == (True, True, False)
    assert HOURS.at(3, taipei("2026-04-12 03:00")) is None


def test_the_rules_are_those_of_the_day() -> None:
    changing = dataclasses.replace(TXF, changes=((20260413, {"lot_size": 5}),))
    hours = MarketHours({1: changing})
    day, night = hours.at(1, taipei("2026-04-10 09:00")), hours.at(1, taipei("2026-04-10 16:00"))
    assert day is not None
    assert night is not None
    assert (day.instrument.lot_size, night.instrument.lot_size) == (TXF.lot_size, 5)
