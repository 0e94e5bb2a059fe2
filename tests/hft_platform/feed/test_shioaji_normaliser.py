"""Broker quotes to records, on objects of the SDK's own classes: every field, every fault."""

from __future__ import annotations

import datetime as dt
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import shioaji as sj
from hypothesis import given, settings
from hypothesis import strategies as st

from hft_platform import _core
from hft_platform.config.canonical import canonical_json
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.feed import shioaji_wire
from hft_platform.feed.shioaji_normaliser import (
    NormaliserLimits,
    normaliser_config,
    open_normaliser,
)
from tests.hft_platform.feed.shioaji_quotes import (
    CLASSES,
    LIMITS,
    NOW_NS,
    SCALE,
    SECOND_NS,
    Raises,
    config_in,
    dropped,
    fields,
    instruments_in,
    lookalike,
    make_normaliser,
    parts,
    quote,
    stamp,
    taipei_ns,
)

SIMULATED, SIDE_UNKNOWN, SESSION_START, GAP_BEFORE, ODD_LOT = 1, 8, 16, 32, 64


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Config of the test instruments."""
    return config_in(tmp_path_factory.mktemp("config"))


@pytest.fixture
def normaliser(config: dict[str, Any]) -> Any:
    """A normaliser that has seen nothing."""
    return make_normaliser(config)


def only(tape: bytes | None) -> Any:
    """The one record of a tape."""
    (record,) = parts(tape)
    return record


def entry(config: dict[str, Any], code: str) -> dict[str, Any]:
    """The entry of a code that has no odd lots."""
    return next(row for row in config["instruments"] if row["code"] == code)


def refused(normaliser: Any, one: Any, now_ns: int = NOW_NS) -> ReasonCode:
    """The code under which an object is dropped, and nothing else happens."""
    before = normaliser.counters()
    assert normaliser.on_object(one, now_ns) is None
    after = normaliser.counters()
    assert after["fed"] == before["fed"] + 1
    assert after["published"] == before["published"]
    (code,) = [c for c, n in after["dropped"].items() if n != before["dropped"].get(c, 0)]
    assert after["dropped"][code] == before["dropped"].get(code, 0) + 1
    return ReasonCode(code)


# The payload builders are what they say.


@pytest.mark.parametrize("class_name", CLASSES)
def test_every_wire_field_arrives_in_the_attribute_of_its_name(class_name: str) -> None:
    wire, one = fields(class_name), quote(class_name)
    seen: dict[str, Any] = {}
    for name, value in wire.items():
        attribute = getattr(one, "pct_chg" if name == "pct_chg_x100" else name)
        if name == "pct_chg_x100":
            assert attribute == Decimal(value) / 100
        elif name in shioaji_wire.PRICES:
            assert (type(attribute), attribute) == (Decimal, Decimal(value))
        elif name in shioaji_wire.PRICE_LISTS:
            assert attribute == [Decimal(level) for level in value]
        elif name == "date":
            assert attribute == dt.date(2026, 4, 10)
        elif name == "time":
            assert attribute == dt.time(10, 11, 12, 345678)
        else:
            assert attribute == value
        seen[name] = attribute
    assert one.datetime == dt.datetime.combine(seen["date"], seen["time"])


# Values.


@pytest.mark.parametrize(
    ("class_name", "instrument_id", "lot"),
    [
        ("TickFOPv1", 1001, 1),
        ("QuoteFOPv1", 1001, 1),
        ("TickSTKv1", 5001, 1000),
        ("QuoteSTKv1", 5001, 1000),
    ],
)
def test_a_print_has_every_field_of_its_object(
    normaliser: Any, class_name: str, instrument_id: int, lot: int
) -> None:
    if class_name.startswith("Quote"):
        normaliser.on_object(quote(class_name, total_volume=4318), NOW_NS - 1000)
    one = quote(class_name)
    trade = parts(normaliser.on_object(one, NOW_NS))[0]
    assert trade["record_type"] == 2
    assert trade["price"] == int(one.close) * SCALE
    assert trade["qty"] == one.volume * lot * SCALE
    assert trade["trade_id"] == one.total_volume
    assert trade["aggressor_side"] == 1
    assert trade["instrument_id"] == instrument_id
    assert trade["trading_day"] == 20260410
    assert trade["exchange_time_ns"] == taipei_ns("2026-04-10 10:11:12.345678")
    assert trade["receive_time_ns"] == NOW_NS
    assert trade["source_seq"] == normaliser.counters()["fed"]
    assert trade["source_id"] == 4
    assert trade["flags"] == (0 if class_name.startswith("Quote") else SESSION_START)
    assert trade["input_seq"] == trade["sequence_time_ns"] == 0


@pytest.mark.parametrize(
    ("class_name", "instrument_id", "lot"),
    [
        ("BidAskFOPv1", 1001, 1),
        ("QuoteFOPv1", 1001, 1),
        ("BidAskSTKv1", 5001, 1000),
        ("QuoteSTKv1", 5001, 1000),
    ],
)
def test_a_book_has_every_level_of_its_object(
    normaliser: Any, class_name: str, instrument_id: int, lot: int
) -> None:
    one = quote(class_name)
    book = only(normaliser.on_object(one, NOW_NS))
    assert book["record_type"] == 1
    for side in ("bid", "ask"):
        prices, volumes = getattr(one, f"{side}_price"), getattr(one, f"{side}_volume")
        assert book[f"{side}_price"].tolist() == [int(price) * SCALE for price in prices]
        assert book[f"{side}_qty"].tolist() == [volume * lot * SCALE for volume in volumes]
    assert book["instrument_id"] == instrument_id
    assert book["trading_day"] == 20260410
    assert book["exchange_time_ns"] == taipei_ns("2026-04-10 10:11:12.345678")
    assert book["receive_time_ns"] == NOW_NS
    assert book["flags"] == SESSION_START


def test_a_thin_side_has_zeros_behind_its_last_level(normaliser: Any) -> None:
    thin = {"bid_price": ["20000", "19999", "0", "0", "0"], "bid_volume": [7, 8, 0, 0, 0]}
    one = quote("BidAskFOPv1", **thin, bid_total_vol=15)
    book = only(normaliser.on_object(one, NOW_NS))
    assert book["bid_price"].tolist() == [20000 * SCALE, 19999 * SCALE, 0, 0, 0]
    assert book["bid_qty"].tolist() == [7 * SCALE, 8 * SCALE, 0, 0, 0]


def test_crossed_and_one_sided_books_pass_for_the_engine_must_know_of_them(
    normaliser: Any,
) -> None:
    empty = {"ask_price": ["0"] * 5, "ask_volume": [0] * 5}
    one = quote("BidAskFOPv1", **empty, ask_total_vol=0)
    assert only(normaliser.on_object(one, NOW_NS))["ask_qty"].tolist() == [0] * 5
    crossed = quote("BidAskFOPv1", bid_price=["9999", "9998", "9997", "9996", "9995"])
    assert only(normaliser.on_object(crossed, NOW_NS))["bid_price"][0] == 9999 * SCALE


@pytest.mark.parametrize(("tick_type", "side"), [(1, 1), (2, -1), (0, 0)])
def test_the_aggressor_follows_the_tick_type(normaliser: Any, tick_type: int, side: int) -> None:
    trade = only(normaliser.on_object(quote("TickFOPv1", tick_type=tick_type), NOW_NS))
    assert trade["aggressor_side"] == side
    assert bool(trade["flags"] & SIDE_UNKNOWN) == (side == 0)


@settings(max_examples=300, deadline=None)
@given(
    st.decimals(
        min_value=Decimal("0.00000001"),
        max_value=Decimal("9999999999.99999999"),
        places=8,
        allow_nan=False,
        allow_infinity=False,
    ),
    st.sampled_from(["1", "0.00000001", "0.05", "0.25", "0.000025", "3", "0.37"]),
)
def test_any_decimal_of_eight_places_is_scaled_exactly(
    config: dict[str, Any], value: Decimal, tick: str
) -> None:
    tick_size = int(Decimal(tick).scaleb(8))
    scaled = int(value.scaleb(8))
    on_grid = scaled - scaled % tick_size
    rows = [entry(config, "TXFD6") | {"tick_size": tick_size}]
    normaliser = make_normaliser(config | {"instruments": rows})
    written = quote("TickFOPv1", close=f"{Decimal(on_grid).scaleb(-8):f}")
    if on_grid == 0:
        assert refused(normaliser, written) == ReasonCode.PRICE_NOT_POSITIVE
        return
    assert only(normaliser.on_object(written, NOW_NS))["price"] == on_grid
    if scaled != on_grid:
        off = quote("TickFOPv1", close=f"{value:f}", total_volume=4324)
        assert refused(normaliser, off) == ReasonCode.PRICE_OFF_TICK_GRID


def test_a_price_that_a_float_cannot_hold_is_kept(config: dict[str, Any]) -> None:
    rows = [entry(config, "TXFD6") | {"tick_size": 1}]
    normaliser = make_normaliser(config | {"instruments": rows})
    text = "1234567890.12345679"
    assert int(float(text) * SCALE) != 123456789012345679
    one = quote("TickFOPv1", close=text)
    assert only(normaliser.on_object(one, NOW_NS))["price"] == 123456789012345679


def test_odd_lots_go_to_their_own_instrument_in_shares(config: dict[str, Any]) -> None:
    tick, book = lookalike("TickSTKv1"), lookalike("BidAskSTKv1")
    normaliser = make_normaliser(config, tick(), book())
    common = only(normaliser.on_object(tick(), NOW_NS))
    odd = only(normaliser.on_object(tick(intraday_odd=True), NOW_NS))
    odd_book = only(normaliser.on_object(book(intraday_odd=True), NOW_NS))
    assert (common["instrument_id"], common["qty"]) == (5001, 3 * 1000 * SCALE)
    assert (odd["instrument_id"], odd["qty"]) == (5002, 3 * SCALE)
    assert (odd_book["instrument_id"], odd_book["bid_qty"][0]) == (5002, 11 * SCALE)
    assert not common["flags"] & ODD_LOT
    assert odd["flags"] & ODD_LOT
    assert odd_book["flags"] & ODD_LOT


def test_an_odd_lot_of_a_stock_without_an_odd_lot_instrument_is_unknown(tmp_path: Path) -> None:
    tick = lookalike("TickSTKv1")
    normaliser = make_normaliser(config_in(tmp_path, symbols=("2330",)), tick())
    odd = tick(intraday_odd=True)
    assert refused(normaliser, odd) == ReasonCode.UNKNOWN_INSTRUMENT


def test_a_code_of_the_other_market_is_unknown(normaliser: Any) -> None:
    assert refused(normaliser, quote("TickSTKv1", code="TXFD6")) == ReasonCode.UNKNOWN_INSTRUMENT
    assert refused(normaliser, quote("TickFOPv1", code="2330")) == ReasonCode.UNKNOWN_INSTRUMENT
    assert refused(normaliser, quote("TickFOPv1", code="TXFR1")) == ReasonCode.UNKNOWN_INSTRUMENT
    long = quote("TickFOPv1", code="TXFD6" + "X" * 100)
    assert refused(normaliser, long) == ReasonCode.UNKNOWN_INSTRUMENT


# Time and trading day.


@pytest.mark.parametrize(
    ("moment", "trading_day"),
    [
        ("2026-04-10 08:45:00.000001", 20260410),
        ("2026-04-10 13:44:59.999999", 20260410),
        ("2026-04-09 15:00:00", 20260410),
        ("2026-04-09 23:59:59.999999", 20260410),
        ("2026-04-10 00:00:00.000001", 20260410),
        ("2026-04-10 04:59:59.999999", 20260410),
        ("2026-04-10 22:30:00", 20260413),  # Friday night is Monday's
        ("2026-04-11 03:00:00", 20260413),  # and so is Saturday morning
        ("2026-04-02 20:00:00", 20260407),  # over the holidays of 3 and 6 April
        ("2026-04-03 02:00:00", 20260407),
    ],
)
def test_the_trading_day_is_the_exchanges(normaliser: Any, moment: str, trading_day: int) -> None:
    at = taipei_ns(moment)
    trade = only(normaliser.on_object(quote("TickFOPv1", **stamp(moment)), at + 1000))
    assert trade["trading_day"] == trading_day
    assert trade["exchange_time_ns"] == at


@pytest.mark.parametrize(
    "moment",
    [
        "2026-04-10 13:45:00",
        "2026-04-10 14:49:59.999999",
        "2026-04-10 05:00:00",
        "2026-04-10 08:29:59.999999",
        "2026-04-03 10:00:00",  # holiday
        "2026-04-03 22:00:00",  # and the night of it
        "2026-04-11 10:00:00",  # Saturday
        "2026-04-15 13:30:00",  # last trading day ends early
        "2026-04-15 22:00:00",  # and has no night
    ],
)
def test_a_time_outside_every_session_is_refused(normaliser: Any, moment: str) -> None:
    one = quote("TickFOPv1", **stamp(moment))
    assert refused(normaliser, one, taipei_ns(moment)) == ReasonCode.OUTSIDE_SESSION


@pytest.mark.parametrize("class_name", CLASSES)
def test_trial_matches_are_marked_by_flag_or_by_the_pre_open_window(
    config: dict[str, Any], class_name: str
) -> None:
    inside = make_normaliser(config)
    for record in parts(inside.on_object(quote(class_name, simtrade=1), NOW_NS)):
        assert record["flags"] == SIMULATED
    early = "2026-04-10 08:44:59.5"
    before = make_normaliser(config)
    one = quote(class_name, **stamp(early))
    for record in parts(before.on_object(one, taipei_ns(early))):
        assert record["flags"] == SIMULATED
        assert record["trading_day"] == 20260410
    assert before.counters()["simulated"] == 1


def test_a_session_starts_with_its_first_record_that_is_no_trial_match(normaliser: Any) -> None:
    early, later = "2026-04-10 08:44:59.5", "2026-04-10 08:45:00.125"
    trial = only(normaliser.on_object(quote("BidAskFOPv1", **stamp(early)), taipei_ns(early)))
    first = only(normaliser.on_object(quote("BidAskFOPv1", **stamp(later)), taipei_ns(later)))
    second = only(normaliser.on_object(quote("TickFOPv1", **stamp(later)), taipei_ns(later)))
    assert [row["flags"] for row in (trial, first, second)] == [SIMULATED, SESSION_START, 0]


@pytest.mark.parametrize("class_name", ["TickSTKv1", "BidAskSTKv1", "QuoteSTKv1"])
def test_a_suspended_stock_has_no_price_to_trade_on(normaliser: Any, class_name: str) -> None:
    for record in parts(normaliser.on_object(quote(class_name, suspend=1), NOW_NS)):
        assert record["flags"] & SIMULATED


def test_silence_longer_than_the_instruments_gap_is_marked(normaliser: Any) -> None:
    marks = []
    for moment in ("09:00:00", "09:00:05", "09:00:10.000001", "09:00:10.1"):
        when = f"2026-04-10 {moment}"
        one = quote("BidAskFOPv1", **stamp(when))
        marks.append(int(only(normaliser.on_object(one, taipei_ns(when)))["flags"]))
    assert marks == [SESSION_START, 0, GAP_BEFORE, 0]


def test_receive_times_grow_whatever_the_clock_does(normaliser: Any) -> None:
    times = []
    for step, now_ns in enumerate((NOW_NS, NOW_NS, NOW_NS - 500, NOW_NS + 10)):
        one = quote("TickFOPv1", total_volume=4321 + 3 * step)
        times.append(int(only(normaliser.on_object(one, now_ns))["receive_time_ns"]))
    assert times == [NOW_NS, NOW_NS + 1, NOW_NS + 2, NOW_NS + 10]
    assert normaliser.counters()["receive_time_moved"] == 2


# Order and duplicates.


def feed_totals(normaliser: Any, steps: list[tuple[int, int]]) -> list[int | ReasonCode]:
    """Flags of prints with these (volume, total volume), or the codes of those dropped."""
    seen: list[int | ReasonCode] = []
    for place, (volume, total) in enumerate(steps):
        clock = f"10:11:12.{345678 + place}"
        one = quote("TickFOPv1", volume=volume, total_volume=total, time=clock)
        before = normaliser.counters()["dropped"]
        tape = normaliser.on_object(one, NOW_NS + place)
        if tape is None:
            after = dropped(normaliser)
            seen += [ReasonCode(c) for c in after if after[c] != before.get(c, 0)]
        else:
            seen.append(int(only(tape)["flags"]))
    return seen


def test_total_volume_rises_by_the_volume_or_it_is_said_what_is_wrong(normaliser: Any) -> None:
    steps = [
        (3, 100),  # the first one sets it
        (2, 102),
        (2, 102),  # again
        (5, 110),  # 3 are missing
        (1, 105),  # late
        (9, 115),  # rose by 5 only
        (5, 115),
        (200, 150),  # more than the day's
    ]
    assert feed_totals(normaliser, steps) == [
        SESSION_START,
        0,
        ReasonCode.DUPLICATE_ROW,
        GAP_BEFORE,
        ReasonCode.OUT_OF_ORDER_ROW,
        ReasonCode.TOTAL_VOLUME_BROKEN,
        0,
        ReasonCode.TOTAL_VOLUME_BROKEN,
    ]
    counters = normaliser.counters()
    assert counters["noted"] == {int(ReasonCode.TOTAL_VOLUME_GAP): 1}
    assert counters["fed"] == counters["published"] + sum(counters["dropped"].values())


def test_a_new_session_forgets_the_total_volume(normaliser: Any) -> None:
    night = "2026-04-10 15:00:00.5"
    assert only(normaliser.on_object(quote("TickFOPv1"), NOW_NS))["flags"] == SESSION_START
    one = quote("TickFOPv1", volume=1, total_volume=1, **stamp(night))
    trade = only(normaliser.on_object(one, taipei_ns(night)))
    assert (trade["flags"], trade["trading_day"]) == (SESSION_START, 20260413)


def test_trial_matches_do_not_touch_the_total_volume(normaliser: Any) -> None:
    normaliser.on_object(quote("TickFOPv1", total_volume=100), NOW_NS)
    trial = quote("TickFOPv1", total_volume=100, simtrade=1)
    assert only(normaliser.on_object(trial, NOW_NS))["flags"] == SIMULATED
    assert only(normaliser.on_object(quote("TickFOPv1", total_volume=103), NOW_NS))["flags"] == 0


@pytest.mark.parametrize("class_name", ["BidAskFOPv1", "BidAskSTKv1", "QuoteFOPv1"])
def test_a_book_older_than_the_last_is_refused_and_one_of_the_same_time_is_not(
    normaliser: Any, class_name: str
) -> None:
    assert normaliser.on_object(quote(class_name), NOW_NS) is not None
    older = quote(class_name, time="10:11:12.345677")
    assert refused(normaliser, older) == ReasonCode.OUT_OF_ORDER_ROW
    assert normaliser.on_object(quote(class_name), NOW_NS) is not None


def test_a_session_that_is_over_does_not_come_back(config: dict[str, Any]) -> None:
    late = make_normaliser(config | {"exchange_behind_ns_max": 7_200 * SECOND_NS})
    night = "2026-04-10 15:00:00.5"
    late.on_object(quote("BidAskFOPv1", **stamp(night)), taipei_ns(night))
    day = quote("BidAskFOPv1", **stamp("2026-04-10 13:44:00"))
    assert refused(late, day, taipei_ns(night)) == ReasonCode.OUT_OF_ORDER_ROW


def test_a_combined_quote_gives_its_print_once_and_before_its_book(normaliser: Any) -> None:
    kinds = []
    for place, total in enumerate((4318, 4321, 4321, 4327, 4327)):
        one = quote("QuoteFOPv1", total_volume=total, time=f"10:11:12.{345678 + place}")
        rows = parts(normaliser.on_object(one, NOW_NS + 10 * place))
        kinds.append([(int(row["record_type"]), int(row["flags"])) for row in rows])
        assert len({int(row["receive_time_ns"]) for row in rows}) == len(rows)
    book = (1, 0)
    # What the first one shows is a print of unknown age.
    assert kinds == [
        [(1, SESSION_START)],
        [(2, 0), book],
        [book],
        [(2, GAP_BEFORE), book],
        [book],
    ]


def test_a_print_seen_in_a_combined_quote_is_not_given_again_by_its_tick(normaliser: Any) -> None:
    normaliser.on_object(quote("QuoteFOPv1", total_volume=4318), NOW_NS)
    assert len(parts(normaliser.on_object(quote("QuoteFOPv1"), NOW_NS))) == 2
    assert refused(normaliser, quote("TickFOPv1")) == ReasonCode.DUPLICATE_ROW


def test_a_combined_quote_before_the_first_print_has_only_its_book(normaliser: Any) -> None:
    idle = {"close": "0", "volume": 0, "total_volume": 0, "tick_type": 0}
    assert only(normaliser.on_object(quote("QuoteFOPv1", **idle), NOW_NS))["record_type"] == 1
    first = quote("QuoteFOPv1", volume=2, total_volume=2)
    assert [row["record_type"] for row in parts(normaliser.on_object(first, NOW_NS))] == [2, 1]


def test_a_combined_quote_whose_total_rose_without_a_print_marks_a_gap(normaliser: Any) -> None:
    normaliser.on_object(quote("QuoteFOPv1", total_volume=4318), NOW_NS)
    silent = quote("QuoteFOPv1", volume=0, total_volume=4400)
    assert only(normaliser.on_object(silent, NOW_NS))["flags"] == GAP_BEFORE
    assert normaliser.counters()["noted"] == {int(ReasonCode.TOTAL_VOLUME_GAP): 1}


# Malformed payloads, on real objects.

BOOK = "BidAskFOPv1"
TICK = "TickFOPv1"
MALFORMED: list[tuple[str, str, dict[str, Any], ReasonCode]] = [
    ("date unreadable", TICK, {"date": "not a date"}, ReasonCode.EXCHANGE_DATE_INVALID),
    ("date of another format", BOOK, {"date": "20260410"}, ReasonCode.EXCHANGE_DATE_INVALID),
    ("month 13", TICK, {"date": "2026/13/10"}, ReasonCode.EXCHANGE_DATE_INVALID),
    ("time unreadable", TICK, {"time": "xx:yy"}, ReasonCode.EXCHANGE_TIME_INVALID),
    ("time empty", BOOK, {"time": ""}, ReasonCode.EXCHANGE_TIME_INVALID),
    ("hour 25", BOOK, {"time": "25:00:00"}, ReasonCode.EXCHANGE_TIME_INVALID),
    ("tomorrow", TICK, {"date": "2026/04/13"}, ReasonCode.EXCHANGE_TIME_AHEAD),
    ("yesterday", BOOK, {"date": "2026/04/09"}, ReasonCode.EXCHANGE_TIME_BEHIND),
    ("price not a number", TICK, {"close": "abc"}, ReasonCode.PRICE_NOT_POSITIVE),
    ("price empty", TICK, {"close": ""}, ReasonCode.PRICE_NOT_POSITIVE),
    ("price NaN", TICK, {"close": "NaN"}, ReasonCode.PRICE_NOT_POSITIVE),
    ("price with exponent", TICK, {"close": "1e3"}, ReasonCode.PRICE_NOT_POSITIVE),
    ("price negative", TICK, {"close": "-20001"}, ReasonCode.PRICE_NOT_POSITIVE),
    ("price of nine decimals", TICK, {"close": "1.123456789"}, ReasonCode.PRICE_NOT_EXACT),
    ("price of 1e10", TICK, {"close": "10000000000"}, ReasonCode.VALUE_OUT_OF_RANGE),
    ("price off the grid", TICK, {"close": "20001.5"}, ReasonCode.PRICE_OFF_TICK_GRID),
    ("price a number", TICK, {"close": 20001}, ReasonCode.FIELD_UNREADABLE),
    ("volume 0", TICK, {"volume": 0}, ReasonCode.QTY_NOT_POSITIVE),
    ("volume beyond the day's", TICK, {"volume": 2**40}, ReasonCode.VALUE_OUT_OF_RANGE),
    ("volume of 1e10", TICK, {"volume": 10**10}, ReasonCode.VALUE_OUT_OF_RANGE),
    ("volume above the day's", TICK, {"volume": 9999}, ReasonCode.TOTAL_VOLUME_BROKEN),
    ("volume negative", TICK, {"volume": -300}, ReasonCode.FIELD_UNREADABLE),
    ("total negative", TICK, {"total_volume": -300}, ReasonCode.FIELD_UNREADABLE),
    ("tick type 3", TICK, {"tick_type": 3}, ReasonCode.TICK_TYPE_INVALID),
    ("code a number", TICK, {"code": 5}, ReasonCode.FIELD_UNREADABLE),
    ("code empty", TICK, {"code": ""}, ReasonCode.UNKNOWN_INSTRUMENT),
    ("another code", BOOK, {"code": "TXFE6"}, ReasonCode.UNKNOWN_INSTRUMENT),
    (
        "level without a price", BOOK,
        {"bid_price": ["20000", "abc", "19998", "19997", "19996"]},
        ReasonCode.PRICE_NOT_POSITIVE,
    ),
    (
        "level without a quantity", BOOK,
        {"ask_volume": [12, 0, 34, 45, 56], "ask_total_vol": 147},
        ReasonCode.QTY_NOT_POSITIVE,
    ),
    (
        "level missing between two", BOOK,
        {"bid_price": ["2215", "0", "2205", "2200", "2195"], "bid_volume": [1, 0, 1, 1, 1]},
        ReasonCode.LEVELS_UNORDERED,
    ),
    (
        "level twice", BOOK,
        {"ask_price": ["2220", "2220", "2230", "2235", "2240"]},
        ReasonCode.LEVELS_UNORDERED,
    ),
    (
        "levels reversed", BOOK,
        {"bid_price": ["1", "2", "3", "4", "5"]},
        ReasonCode.LEVELS_UNORDERED,
    ),
    (
        "level off the grid", BOOK,
        {"bid_price": ["2215", "2210.5", "2205", "2200", "2195"]},
        ReasonCode.PRICE_OFF_TICK_GRID,
    ),
    ("quantity of 1e10", BOOK, {"bid_volume": [10**10, 2, 3, 4, 5]}, ReasonCode.VALUE_OUT_OF_RANGE),
    ("total off by one", BOOK, {"bid_total_vol": 166}, ReasonCode.BOOK_TOTAL_MISMATCH),
    ("other total off", BOOK, {"ask_total_vol": 0}, ReasonCode.BOOK_TOTAL_MISMATCH),
]  # fmt: skip


@pytest.mark.parametrize(
    ("class_name", "changes", "code"),
    [row[1:] for row in MALFORMED],
    ids=[row[0] for row in MALFORMED],
)
def test_a_malformed_quote_is_dropped_under_its_code_and_leaves_no_trace(
    config: dict[str, Any], class_name: str, changes: dict[str, Any], code: ReasonCode
) -> None:
    hurt, clean = make_normaliser(config), make_normaliser(config)
    assert refused(hurt, quote(class_name, **changes)) == code
    # Nothing but the count of objects differs from one that never saw it.
    after, never = (parts(one.on_object(quote(class_name), NOW_NS)) for one in (hurt, clean))
    for left, right in zip(after, never, strict=True):
        left, right = left.copy(), right.copy()
        assert (left["source_seq"], right["source_seq"]) == (2, 1)
        left["source_seq"] = right["source_seq"]
        assert left.tobytes() == right.tobytes()


def test_wrong_totals_can_be_noted_instead(tmp_path: Path) -> None:
    limits = NormaliserLimits(LIMITS.exchange_ahead_ns_max, LIMITS.exchange_behind_ns_max, "note")
    normaliser = make_normaliser(config_in(tmp_path, limits=limits))
    assert normaliser.on_object(quote("BidAskFOPv1", bid_total_vol=166), NOW_NS) is not None
    assert normaliser.counters()["noted"] == {int(ReasonCode.BOOK_TOTAL_MISMATCH): 1}


def test_the_clocks_may_differ_by_their_limits_and_no_more(normaliser: Any) -> None:
    at = taipei_ns("2026-04-10 10:11:12.345678")
    ahead, behind = LIMITS.exchange_ahead_ns_max, LIMITS.exchange_behind_ns_max
    book = quote("BidAskFOPv1")
    assert normaliser.on_object(book, at - ahead) is not None
    assert refused(normaliser, book, at - ahead - 1) == ReasonCode.EXCHANGE_TIME_AHEAD
    assert normaliser.on_object(book, at + behind) is not None
    assert refused(normaliser, book, at + behind + 1) == ReasonCode.EXCHANGE_TIME_BEHIND
    for now_ns in (-(2**63), -1, 0):
        assert refused(normaliser, book, now_ns) == ReasonCode.EXCHANGE_TIME_AHEAD
    assert refused(normaliser, book, 2**63 - 1) == ReasonCode.EXCHANGE_TIME_BEHIND


def test_midnight_itself_is_the_sdks_stand_in_also_in_the_night_session(normaliser: Any) -> None:
    at = "2026-04-10 00:00:00"
    one = quote("TickFOPv1", **stamp(at))
    assert refused(normaliser, one, taipei_ns(at)) == ReasonCode.EXCHANGE_TIME_INVALID


# What only a look-alike can hold.

UNREADABLE: list[tuple[str, Any, ReasonCode]] = [
    ("close", 20001, ReasonCode.FIELD_TYPE_WRONG),
    ("close", 20001.0, ReasonCode.FIELD_TYPE_WRONG),
    ("close", "20001", ReasonCode.FIELD_TYPE_WRONG),
    ("close", None, ReasonCode.FIELD_TYPE_WRONG),
    ("close", Decimal("NaN"), ReasonCode.PRICE_NOT_EXACT),
    ("close", Decimal("-Infinity"), ReasonCode.PRICE_NOT_EXACT),
    ("close", Decimal("1E-9"), ReasonCode.PRICE_NOT_EXACT),
    ("close", Decimal("1E+30"), ReasonCode.VALUE_OUT_OF_RANGE),
    ("volume", True, ReasonCode.FIELD_TYPE_WRONG),
    ("volume", 3.0, ReasonCode.FIELD_TYPE_WRONG),
    ("volume", -3, ReasonCode.QTY_NOT_POSITIVE),
    ("volume", 2**63, ReasonCode.VALUE_OUT_OF_RANGE),
    ("volume", -(2**63), ReasonCode.VALUE_OUT_OF_RANGE),
    ("total_volume", -1, ReasonCode.QTY_NOT_POSITIVE),
    ("total_volume", 10**400, ReasonCode.VALUE_OUT_OF_RANGE),
    ("simtrade", 0, ReasonCode.FIELD_TYPE_WRONG),
    ("simtrade", None, ReasonCode.FIELD_TYPE_WRONG),
    ("code", b"TXFD6", ReasonCode.FIELD_TYPE_WRONG),
    ("code", "\ud800", ReasonCode.FIELD_TYPE_WRONG),
    ("datetime", None, ReasonCode.FIELD_TYPE_WRONG),
    ("datetime", dt.date(2026, 4, 10), ReasonCode.FIELD_TYPE_WRONG),
    (
        "datetime",
        dt.datetime(2026, 4, 10, 2, 11, 12, tzinfo=dt.UTC),
        ReasonCode.FIELD_TYPE_WRONG,
    ),
    ("datetime", dt.datetime.min, ReasonCode.EXCHANGE_TIME_INVALID),
    ("datetime", dt.datetime.max, ReasonCode.OUTSIDE_SESSION),
    ("close", Raises(RuntimeError("no")), ReasonCode.FIELD_UNREADABLE),
    ("datetime", Raises(GeneratorExit()), ReasonCode.FIELD_UNREADABLE),
    ("code", Raises(BaseException("no")), ReasonCode.FIELD_UNREADABLE),
    ("bid_price", (Decimal(1),) * 5, ReasonCode.FIELD_TYPE_WRONG),
    ("bid_price", [Decimal(1)] * 4, ReasonCode.LEVEL_COUNT_WRONG),
    ("ask_price", [], ReasonCode.LEVEL_COUNT_WRONG),
    ("ask_volume", [1] * 6, ReasonCode.LEVEL_COUNT_WRONG),
    ("bid_volume", [1, 2, -3, 4, 5], ReasonCode.QTY_NOT_POSITIVE),
    ("bid_volume", [1, 2, None, 4, 5], ReasonCode.FIELD_TYPE_WRONG),
]


@pytest.mark.parametrize(("name", "value", "code"), UNREADABLE)
def test_a_value_of_another_type_or_one_that_cannot_be_read_is_dropped(
    config: dict[str, Any], name: str, value: Any, code: ReasonCode
) -> None:
    kind = lookalike("QuoteFOPv1")
    normaliser = make_normaliser(config, kind())
    assert normaliser.schema_faults == []
    assert normaliser.on_object(kind(), NOW_NS) is not None
    assert refused(normaliser, kind(**{name: value})) == code


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_only_an_order_to_stop_comes_out(
    config: dict[str, Any], error: type[BaseException]
) -> None:
    kind = lookalike("TickFOPv1")
    normaliser = make_normaliser(config, kind())
    with pytest.raises(error):
        normaliser.on_object(kind(volume=Raises(error())), NOW_NS)
    assert normaliser.counters()["fed"] == 0


def test_objects_of_no_quote_class_are_counted_and_dropped(normaliser: Any) -> None:
    for one in (None, 5, "TickFOPv1", object(), {}, lookalike("TickFOPv1")(), sj.TickFOPv1):
        assert refused(normaliser, one) == ReasonCode.QUOTE_SCHEMA_MISMATCH


@pytest.mark.parametrize("class_name", CLASSES)
def test_each_attribute_is_read_once_and_the_benchmark_reads_the_same(
    config: dict[str, Any], class_name: str
) -> None:
    kind = lookalike(class_name)
    normaliser = make_normaliser(config, kind())
    converted, merely_read = kind(), kind()
    assert normaliser.on_object(converted, NOW_NS) is not None
    assert normaliser.read_attributes([merely_read]) == 1
    assert len(set(converted._reads)) == len(converted._reads)
    assert sorted(converted._reads) == sorted(merely_read._reads)


def test_callbacks_of_several_threads_neither_fail_nor_lose_count(config: dict[str, Any]) -> None:
    kind = lookalike("BidAskFOPv1")
    normaliser = make_normaliser(config, kind())
    errors: list[BaseException] = []

    def feed(place: int) -> None:
        try:
            for step in range(200):
                one = kind(simtrade=True)
                if step % 10 == place:
                    time.sleep(0)
                normaliser.on_object(one, NOW_NS)
        except BaseException as error:  # noqa: BLE001 - whatever comes out of a callback is shown
            errors.append(error)

    threads = [threading.Thread(target=feed, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    counters = normaliser.counters()
    assert (counters["fed"], counters["published"], counters["books"]) == (800, 800, 800)


# The schema guard.


def test_the_installed_sdk_is_the_one_the_normaliser_was_written_for(
    config: dict[str, Any],
) -> None:
    assert open_normaliser(config).schema_faults == []


def doctored(class_name: str, change: Callable[[dict[str, Any]], None]) -> Any:
    """An object of a class whose surface was changed."""
    base = lookalike(class_name)
    body = {k: v for k, v in vars(base).items() if k not in {"__dict__", "__weakref__"}}
    change(body)
    return type(class_name, (), body)()


def removed(body: dict[str, Any]) -> None:
    """An attribute less, and not one that the conversion reads."""
    del body["chg_type"]


def added(body: dict[str, Any]) -> None:
    """An attribute more."""
    body["new_field"] = 5


def retyped(body: dict[str, Any]) -> None:
    """Prices as floats."""
    body["close"] = 20001.0


def text_prices(body: dict[str, Any]) -> None:
    """Levels as text, as the SDK's own stub says."""
    body["bid_price"] = ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (removed, "chg_type is missing"),
        (added, "new_field (int) is new"),
        (retyped, "close is float, expected Decimal"),
        (text_prices, "bid_price is list of 5 str, expected list of 5 Decimal"),
    ],
)
def test_a_class_with_another_surface_is_not_admitted_and_its_objects_are_dropped(
    config: dict[str, Any], change: Callable[[dict[str, Any]], None], said: str
) -> None:
    probe = doctored("QuoteFOPv1", change)
    normaliser = make_normaliser(config, probe)
    assert normaliser.schema_faults == [f"QuoteFOPv1: {said}"]
    assert normaliser.counters()["schema_faults"] == 1
    assert refused(normaliser, probe) == ReasonCode.QUOTE_SCHEMA_MISMATCH
    # The others are what they were.
    assert normaliser.on_object(quote("TickFOPv1"), NOW_NS) is not None


@pytest.mark.parametrize("version", ["1.8.0", "2.0", "", "1.70.1"])
def test_another_line_of_the_sdk_admits_no_class(config: dict[str, Any], version: str) -> None:
    normaliser = make_normaliser(config, version=version)
    assert len(normaliser.schema_faults) == 1
    for class_name in CLASSES:
        assert refused(normaliser, quote(class_name)) == ReasonCode.QUOTE_SCHEMA_MISMATCH


class Sdk:
    """An SDK of which parts are replaced."""

    def __init__(self, **parts: Any) -> None:
        self.__version__ = sj.__version__
        for name in CLASSES:
            setattr(self, name, getattr(sj, name))
        for name, part in parts.items():
            setattr(self, name, part)


def test_opening_on_a_doctored_sdk_is_refused_and_logged(
    config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    class Decoder:
        @staticmethod
        def from_msgpack(_: bytes) -> Any:
            return doctored("TickFOPv1", retyped)

    class Panics:
        @staticmethod
        def from_msgpack(_: bytes) -> Any:
            raise BaseException("as the SDK's panics are raised")

    assert open_normaliser(config, sdk=Sdk()) is not None  # type: ignore[arg-type]
    cases: list[tuple[Any, str]] = [
        (Sdk(TickFOPv1=Decoder), "close is float"),
        (Sdk(QuoteSTKv1=None), "QuoteSTKv1: is missing"),
        (Sdk(QuoteFOPv1=Panics), "QuoteFOPv1: is missing"),
        (Sdk(BidAskFOPv1=sj.TickFOPv1), "BidAskFOPv1: is missing"),
        (Sdk(__version__="1.8.0"), "expected 1.7."),
    ]
    for sdk, said in cases:
        with pytest.raises(PlatformError) as caught:
            open_normaliser(config, sdk=sdk)
        assert caught.value.code == ReasonCode.QUOTE_SCHEMA_MISMATCH
        assert said in str(caught.value)
        assert "quote_schema_refused" in capsys.readouterr().out


def test_a_probe_twice_or_of_no_class_is_a_fault(config: dict[str, Any]) -> None:
    text = canonical_json(config).decode()
    for probes in ([quote("TickFOPv1"), quote("TickFOPv1")], [5]):
        assert len(_core.Normaliser(text, sj.__version__, probes).schema_faults) == 1


# The config.


@pytest.mark.parametrize(
    "change",
    [
        {"utc_offset_s": 90_000},
        {"exchange_ahead_ns_max": -1},
        {"exchange_behind_ns_max": 10**18},
        {"on_total_mismatch": "ignore"},
        {"instruments": []},
        {"extra": 1},
    ],
)
def test_a_wrong_config_is_refused(config: dict[str, Any], change: dict[str, Any]) -> None:
    with pytest.raises(_core.ConfigError) as caught:
        make_normaliser(config | change)
    assert caught.value.args[0] == ReasonCode.SETTINGS_INVALID


@pytest.mark.parametrize(
    "change",
    [
        {"code": ""},
        {"code": "A" * 17},
        {"code": "TX FD6"},
        {"instrument_id": 0},
        {"lot_size": 0},
        {"tick_size": 0},
        {"tick_size": 10**18},
        {"gap_ns": 0},
        {"is_odd_lot": True},
        {"sessions": []},
        {"sessions": [{"preopen_ns": 2, "start_ns": 1, "end_ns": 3, "trading_day": 20260410}]},
        {"sessions": [{"preopen_ns": 1, "start_ns": 1, "end_ns": 1, "trading_day": 20260410}]},
        {"sessions": [{"preopen_ns": 1, "start_ns": 1, "end_ns": 3, "trading_day": 26}]},
        {
            "sessions": [
                {"preopen_ns": 1, "start_ns": 1, "end_ns": 5, "trading_day": 20260410},
                {"preopen_ns": 4, "start_ns": 6, "end_ns": 9, "trading_day": 20260411},
            ]
        },
        {"unknown": 1},
    ],
)
def test_a_wrong_instrument_is_refused(config: dict[str, Any], change: dict[str, Any]) -> None:
    row = entry(config, "TXFD6")
    assert make_normaliser(config | {"instruments": [row]}).schema_faults == []
    with pytest.raises(_core.ConfigError):
        make_normaliser(config | {"instruments": [row | change]})


def test_a_code_twice_is_refused(config: dict[str, Any]) -> None:
    row = config["instruments"][0]
    with pytest.raises(_core.ConfigError, match="a code once"):
        make_normaliser(config | {"instruments": [row, row | {"instrument_id": 7}]})


def test_the_config_is_made_from_the_market_model(tmp_path: Path, config: dict[str, Any]) -> None:
    rows = {(row["code"], row["is_odd_lot"]): row for row in config["instruments"]}
    assert config["utc_offset_s"] == 8 * 3600
    assert rows["TXFD6", False]["market"] == "futures"
    assert (rows["2330", False]["lot_size"], rows["2330", True]["lot_size"]) == (
        1000 * SCALE,
        SCALE,
    )
    days = [window["trading_day"] for window in rows["TXFD6", False]["sessions"]]
    assert days == sorted(days)
    assert days[-1] == 20260415
    table = instruments_in(tmp_path)
    span = {"first_ns": NOW_NS, "last_ns": NOW_NS, "limits": LIMITS}
    for symbol, said in (("BTCUSDT.USDM", "BINANCE_USDM"), ("SIM_EDGE", "SIM")):
        with pytest.raises(PlatformError, match=said):
            normaliser_config([table.by_symbol(symbol)], **span)
    expired = {**span, "first_ns": NOW_NS + 30 * 86_400 * SECOND_NS}
    expired["last_ns"] = expired["first_ns"]
    with pytest.raises(PlatformError, match="no session"):
        normaliser_config([table.by_symbol("TXFD6")], **expired)


def test_importing_the_module_does_not_import_the_sdk() -> None:
    code = "import sys, hft_platform.feed.shioaji_normaliser; sys.exit('shioaji' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_same_quotes_give_the_same_bytes(config: dict[str, Any]) -> None:
    def tape() -> bytes:
        normaliser = make_normaliser(config)
        out = b""
        for step, class_name in itertools.product(range(5), CLASSES):
            changes: dict[str, Any] = {"time": f"10:11:1{step}.5"}
            if "total_volume" in shioaji_wire.LAYOUTS[class_name]:
                changes["total_volume"] = 4000 + 3 * step
            now_ns = taipei_ns(f"2026-04-10 10:11:1{step}.6")
            out += normaliser.on_object(quote(class_name, **changes), now_ns) or b""
        return out

    first = tape()
    assert len(parts(first)) > 20
    assert first == tape()
