"""The market model against worked examples of the exchanges' public rules.

Every row is a rule's own arithmetic or a published figure: ticks, daily limits, taxes, fees,
contract ends, sessions across midnight and holidays, contract aliases.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import exchange_calendars
import pytest

from hft_platform import _core
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.costs import trade_cost
from hft_platform.market.instruments import (
    Instrument,
    InstrumentTable,
    front_days,
    load_instruments,
    roll_day,
)
from hft_platform.market.sessions import ExchangeCalendar, session_of, third_wednesday, yyyymmdd
from hft_platform.records import SCALE

TAIPEI = dt.timezone(dt.timedelta(hours=8))
CONTRACTS = [
    # symbol, instrument id, product, last trading day
    ("TXFE6", 1011, "TXF", 20260520),
    ("TXFF6", 1012, "TXF", 20260617),
    ("MXFD6", 1021, "MXF", 20260415),
    ("TMFD6", 1031, "TMF", 20260415),
    ("EXFD6", 1041, "EXF", 20260415),
    ("FXFD6", 1051, "FXF", 20260415),
    ("CDFD6", 1061, "CDF", 20260415),
    ("TXO35000D6", 1071, "TXO", 20260415),
    ("TXFA3", 1081, "TXF", 20230130),
    ("HELD", 5101, "TWSE_STOCK", 0),
]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> InstrumentTable:
    """Packaged instruments and the contracts above."""
    folder = tmp_path_factory.mktemp("config")
    (folder / "instruments").mkdir()
    text = "schema: 1\ninstruments:\n" + "".join(
        f"  {symbol}: {{instrument_id: {number}, product: {product}, last_trading_day: {last},"
        f' recording_names: ["{symbol}_*"]}}\n'
        for symbol, number, product, last in CONTRACTS
    )
    (folder / "instruments" / "contracts.yaml").write_text(text, encoding="utf-8")
    return load_instruments(folder)


def scaled(value: float) -> int:
    """A price of at most two decimals at 1e-8."""
    return round(value * 100) * (SCALE // 100)


TICKS = [
    # symbol, price, the next price up, the next one down
    ("TXFD6", 35_572, 35_573, 35_571),
    ("EXFD6", 1_800, 1_800.05, 1_799.95),
    ("FXFD6", 2_000, 2_000.2, 1_999.8),
    ("2330", 9.99, 10, 9.98),
    ("2330", 10, 10.05, 9.99),
    ("2330", 49.95, 50, 49.9),
    ("2330", 50, 50.1, 49.95),
    ("2330", 99.9, 100, 99.8),
    ("2330", 100, 100.5, 99.9),
    ("2330", 499.5, 500, 499),
    ("2330", 500, 501, 499.5),
    ("2330", 999, 1_000, 998),
    ("2330", 1_000, 1_005, 999),
    ("2330", 2_220, 2_225, 2_215),
    ("0050", 49.99, 50, 49.98),
    ("0050", 50, 50.05, 49.99),
    ("TXO35000D6", 9.9, 10, 9.8),
    ("TXO35000D6", 10, 10.5, 9.9),
    ("TXO35000D6", 50, 51, 49.5),
    ("TXO35000D6", 500, 505, 499),
    ("TXO35000D6", 1_000, 1_010, 995),
    ("CDFD6", 998, 999, 997),
]


@pytest.mark.parametrize(("symbol", "price", "up", "down"), TICKS)
def test_the_next_price_on_either_side(
    table: InstrumentTable, symbol: str, price: float, up: float, down: float
) -> None:
    ladder = table.by_symbol(symbol).ticks
    assert ladder.is_on_grid(scaled(price))
    assert ladder.step(scaled(price), 1) == scaled(up)
    assert ladder.step(scaled(price), -1) == scaled(down)


OFF_THE_LADDER = [
    ("TXFD6", 35_572.5),
    ("2330", 10.01),
    ("2330", 100.1),
    ("2330", 1_001),
    ("0050", 50.01),
]


@pytest.mark.parametrize(("symbol", "price"), OFF_THE_LADDER)
def test_a_price_between_two_steps_is_none(
    table: InstrumentTable, symbol: str, price: float
) -> None:
    assert not table.by_symbol(symbol).ticks.is_on_grid(scaled(price))


LIMITS = [
    # symbol, reference, limit-up, limit-down as published for the contract or stock
    ("TXFD6", 41_636, 45_799, 37_473),
    ("TXFD6", 40_124, 44_136, 36_112),
    ("TXFD6", 14_765, 16_241, 13_289),
    ("2330", 2_220, 2_440, 2_000),
    # A tenth either way, inward to the step of the price where the limit lies.
    ("2330", 95, 104.5, 85.5),
    ("2330", 10.05, 11.05, 9.05),
    ("0050", 47.3, 52, 42.57),
]


@pytest.mark.parametrize(("symbol", "reference", "up", "down"), LIMITS)
def test_daily_limits(
    table: InstrumentTable, symbol: str, reference: float, up: float, down: float
) -> None:
    limits = table.by_symbol(symbol).daily_limits(scaled(reference))
    assert limits == (scaled(up), scaled(down))


COSTS = [
    # symbol, price, quantity, side, whole dollars
    ("TXFD6", 23_000, 1, 1, 92 + 60),
    ("TXFD6", 35_000, 1, -1, 140 + 60),
    ("TXFD6", 37_600, 1, 1, 150 + 60),
    ("MXFD6", 35_000, 1, 1, 35 + 30),
    ("TMFD6", 35_000, 1, -1, 7 + 13),
    # 7.53 is 8 for each of three contracts: 24, not 22.59.
    ("TMFD6", 37_650, 3, 1, 24 + 39),
    # 7.4 is 7.
    ("TMFD6", 37_000, 2, -1, 14 + 26),
    ("EXFD6", 1_800, 1, 1, 144 + 60),
    ("FXFD6", 2_000, 1, 1, 40 + 60),
    ("CDFD6", 900, 1, 1, 36 + 20),
    # 0.1 % of the premium, at least 1.
    ("TXO35000D6", 85, 1, 1, 4 + 20),
    ("TXO35000D6", 2, 1, -1, 1 + 20),
    ("TXO35000D6", 500, 2, -1, 50 + 40),
    # A fee of 0.1425 % on both sides, 0.15 % of tax on a sale within a day, 0.3 % otherwise.
    ("2330", 100, 1_000, 1, 142),
    ("2330", 100, 1_000, -1, 142 + 150),
    ("HELD", 100, 1_000, -1, 142 + 300),
    ("HELD", 10, 1_000, 1, 20),
    ("0050", 50, 2_000, -1, 142 + 100),
    ("0050", 50, 2_000, 1, 142),
]


@pytest.mark.parametrize(("symbol", "price", "qty", "side", "money"), COSTS)
def test_what_a_trade_costs(
    table: InstrumentTable, symbol: str, price: int, qty: int, side: int, money: int
) -> None:
    instrument = table.by_symbol(symbol)
    cost = trade_cost(
        instrument.costs, price=price * SCALE, qty=qty * SCALE, multiplier=instrument.multiplier,
        side=side, is_maker=False,
    )  # fmt: skip
    assert cost == money * SCALE


def test_the_tax_a_broker_charged_lies_within_what_rounding_allows(table: InstrumentTable) -> None:
    """798 dollars over 106 fills of one TMF contract, prices near 37,650."""
    tmf = table.by_symbol("TMFD6")

    def tax(price: int) -> int:
        cost = trade_cost(
            tmf.costs, price=price * SCALE, qty=SCALE, multiplier=tmf.multiplier, side=1,
            is_maker=False,
        )  # fmt: skip
        return cost // SCALE - 13

    low, high = tax(37_000), tax(38_000)
    assert (low, high) == (7, 8)
    assert 106 * low <= 798 <= 106 * high
    # A tax of 2 bps on sales only is outside.
    assert 53 * round(2e-4 * 37_650 * 10) > 106 * high


ENDS = [
    # symbol, third Wednesday of its month, last trading day of the contract
    ("TXFD6", (2026, 4), dt.date(2026, 4, 15), 20260415),
    ("TXFE6", (2026, 5), dt.date(2026, 5, 20), 20260520),
    ("TXFF6", (2026, 6), dt.date(2026, 6, 17), 20260617),
    # New Year's holidays moved this one by twelve days.
    ("TXFA3", (2023, 1), dt.date(2023, 1, 18), 20230130),
]


@pytest.mark.parametrize(("symbol", "month", "usual", "last"), ENDS)
def test_contract_ends(
    table: InstrumentTable, symbol: str, month: tuple[int, int], usual: dt.date, last: int
) -> None:
    assert third_wednesday(*month) == usual
    assert table.by_symbol(symbol).last_trading_day == last


ALIASES = [
    # alias, trading day, contract: R moves on the day after the end, C a trading day before it
    ("TXFR1", 20260413, "TXFD6"),
    ("TXFR1", 20260415, "TXFD6"),
    ("TXFR1", 20260416, "TXFE6"),
    ("TXFR2", 20260415, "TXFE6"),
    ("TXFR2", 20260416, "TXFF6"),
    ("TXFC0", 20260414, "TXFD6"),
    ("TXFC0", 20260415, "TXFE6"),
    ("TXFC1", 20260414, "TXFE6"),
    ("TXFC1", 20260415, "TXFF6"),
    ("TXFD6", 20260415, "TXFD6"),
]


@pytest.mark.parametrize(("alias", "trading_day", "symbol"), ALIASES)
def test_aliases(table: InstrumentTable, alias: str, trading_day: int, symbol: str) -> None:
    assert table.contract(alias, trading_day).symbol == symbol


@pytest.mark.parametrize(
    ("name", "trading_day", "code"),
    [
        ("TXFD6", 20260416, ReasonCode.ROLL_NOT_PERMITTED),
        ("TXFR2", 20260617, ReasonCode.UNKNOWN_INSTRUMENT),
        ("ABCR1", 20260413, ReasonCode.UNKNOWN_INSTRUMENT),
        ("TXFR3", 20260413, ReasonCode.UNKNOWN_INSTRUMENT),
    ],
)
def test_a_contract_that_is_over_or_unknown_is_refused(
    table: InstrumentTable, name: str, trading_day: int, code: ReasonCode
) -> None:
    with pytest.raises(PlatformError) as refused:
        table.contract(name, trading_day)
    assert refused.value.code == code


def test_the_roll_day_crosses_a_weekend_and_a_holiday(table: InstrumentTable) -> None:
    # The trading day before Monday 2023-01-30 was Friday: the calendar knows no holidays of 2023.
    assert roll_day(table.by_symbol("TXFA3")) == 20230127
    assert roll_day(table.by_symbol("TXFD6")) == 20260414


def test_a_contract_is_in_front_from_the_day_after_the_roll_of_the_one_before(
    table: InstrumentTable,
) -> None:
    # The third Wednesday of March 2026 was the 18th, of May the 20th.
    d6 = table.by_symbol("TXFD6")
    assert front_days(d6) == (20260318, 20260414)
    earlier = replace(d6, symbol="TXFX", last_trading_day=20260325)
    assert front_days(d6, [earlier, d6]) == (20260325, 20260414)
    assert front_days(d6, [replace(earlier, product_root="MXF")]) == (20260318, 20260414)
    assert front_days(table.by_symbol("TXFA3"))[1] == 20230127
    endless = load_instruments(Path("no-such-folder")).by_symbol("SIM_EDGE")
    assert front_days(endless) == (0, 0)


SESSIONS = [
    # symbol, Taipei time, session, phase
    ("TXFD6", "2026-04-10 08:44:59", "2026-04-10/day", None),
    ("TXFD6", "2026-04-10 08:45:00", "2026-04-10/day", "open"),
    ("TXFD6", "2026-04-10 13:39:59", "2026-04-10/day", "open"),
    ("TXFD6", "2026-04-10 13:40:00", "2026-04-10/day", "close_only"),
    ("TXFD6", "2026-04-10 13:44:00", "2026-04-10/day", "force_flat"),
    ("TXFD6", "2026-04-10 13:45:00", None, None),
    ("TXFD6", "2026-04-10 14:49:59", None, None),
    # Friday night belongs to Monday, also behind midnight.
    ("TXFD6", "2026-04-10 15:00:00", "2026-04-13/night", "open"),
    ("TXFD6", "2026-04-11 00:00:00", "2026-04-13/night", "open"),
    ("TXFD6", "2026-04-11 04:55:00", "2026-04-13/night", "close_only"),
    ("TXFD6", "2026-04-11 04:59:59", "2026-04-13/night", "force_flat"),
    ("TXFD6", "2026-04-11 05:00:00", None, None),
    ("TXFD6", "2026-04-11 10:00:00", None, None),
    # A night before holidays belongs to the day after them: Friday and Monday are closed.
    ("TXFD6", "2026-04-02 16:00:00", "2026-04-07/night", "open"),
    ("TXFD6", "2026-04-03 10:00:00", None, None),
    ("TXFD6", "2026-04-03 16:00:00", None, None),
    ("TXFD6", "2026-04-07 09:00:00", "2026-04-07/day", "open"),
    # The Lunar New Year: the last night before it is that of the first day after it.
    ("TXFD6", "2026-02-11 16:00:00", "2026-02-23/night", "open"),
    ("TXFD6", "2026-02-16 10:00:00", None, None),
    # On its last day a contract ends at 13:30 and has no night.
    ("TXFD6", "2026-04-14 16:00:00", "2026-04-15/night", "open"),
    ("TXFD6", "2026-04-15 13:29:59", "2026-04-15/day", "force_flat"),
    ("TXFD6", "2026-04-15 13:30:00", None, None),
    ("TXFD6", "2026-04-15 16:00:00", None, None),
    ("TXFE6", "2026-04-15 16:00:00", "2026-04-16/night", "open"),
    # Futures on a stock have no night.
    ("CDFD6", "2026-04-10 16:00:00", None, None),
    # Stocks: continuous until 13:25, then the closing call.
    ("2330", "2026-04-10 08:59:59", "2026-04-10/day", None),
    ("2330", "2026-04-10 09:00:00", "2026-04-10/day", "open"),
    ("2330", "2026-04-10 13:19:59", "2026-04-10/day", "open"),
    ("2330", "2026-04-10 13:20:00", "2026-04-10/day", "close_only"),
    ("2330", "2026-04-10 13:24:57", "2026-04-10/day", "force_flat"),
    ("2330", "2026-04-10 13:25:00", "2026-04-10/day", "close_auction"),
    ("2330", "2026-04-10 13:30:00", None, None),
    # A typhoon day.
    ("2330", "2024-07-24 10:00:00", None, None),
    ("2330", "2024-07-26 10:00:00", "2024-07-26/day", "open"),
    # A venue that never closes.
    ("BTCUSDT.USDM", "2026-04-11 10:00:00", "2026-04-11/T0200", "open"),
]


@pytest.mark.parametrize(("symbol", "text", "session_id", "phase"), SESSIONS)
def test_the_session_and_phase_of_a_moment(
    table: InstrumentTable, symbol: str, text: str, session_id: str | None, phase: str | None
) -> None:
    moment = dt.datetime.fromisoformat(text).replace(tzinfo=TAIPEI)
    time_ns = int(moment.timestamp()) * 10**9
    instrument = table.by_symbol(symbol)
    found = session_of(instrument, time_ns)
    if phase is None:
        assert found is None
        return
    assert found is not None
    assert found.session_id == session_id
    assert [p.phase for p in found.phases if p.start_ns <= time_ns < p.end_ns] == [phase]


@pytest.mark.filterwarnings("ignore:Series.values returning")
def test_holidays_are_those_of_a_second_source(table: InstrumentTable) -> None:
    theirs = exchange_calendars.get_calendar("XTAI", start="2023-12-01", end="2026-12-31")
    for symbol in ("TXFD6", "CDFD6", "2330"):
        calendar = table.by_symbol(symbol).calendar_rule
        assert isinstance(calendar, ExchangeCalendar)
        day, differs = dt.date(2024, 1, 1), []
        while day <= dt.date(2026, 12, 31):
            if calendar.is_trading_day(day) != theirs.is_session(day.isoformat()):
                differs.append(day.isoformat())
            day += dt.timedelta(days=1)
        assert differs == [], calendar.name


CHANGES = """
schema: 1
calendars:
  half:
    kind: exchange
    utc_offset: "+08:00"
    sessions:
      day: {open: "09:00", close: "13:30", trading_day: same, close_only_s: 300, force_flat_s: 60,
            preopen_s: 0, no_cancel_s: 0, close_auction_s: 0}
    last_day_close: null
    holidays: []
    without_night: []
    extra_days: [20260411]
    early_closes: {20260410: "11:00"}
products:
  STK:
    venue: TWSE
    kind: stock
    currency: TWD
    tick_size: 1
    lot_size: 1000
    multiplier: 1
    calendar: half
    costs: {kind: value_bps, maker_bps: 1.0, taker_bps: 1.0}
    price_limit_bps: 700
    order_lots_max: 10
    banding_bps: 100
    eligibility: full
    roll_rule: {kind: none, trading_days_before: 0}
    gap_ms: 5000
    changes:
      - {from_day: 20260401, price_limit_bps: 1000, tick_size: [[0, "0.5"], [100, 1]]}
      - {from_day: 20260601, order_lots_max: null, lot_size: 100, banding_bps: null}
instruments:
  STK1:
    instrument_id: 7001
    product: STK
    last_trading_day: 0
    recording_names: ["STK1_*"]
    changes: [{from_day: 20260415, eligibility: disposition, order_lots_max: 5}]
"""


@pytest.fixture
def changing(tmp_path: Path) -> Instrument:
    """A stock whose rules change."""
    (tmp_path / "instruments").mkdir()
    (tmp_path / "instruments" / "local.yaml").write_text(CHANGES, encoding="utf-8")
    return load_instruments(tmp_path).by_symbol("STK1")


def test_rules_hold_from_their_day_on(changing: Instrument) -> None:
    def rules(day: int) -> tuple[object, ...]:
        row = changing.on(day)
        return (
            row.price_limit_bps, row.tick_size, row.order_qty_max, row.banding_bps, row.eligibility
        )  # fmt: skip

    lot = 1_000 * SCALE
    assert rules(20260331) == (700, SCALE, 10 * lot, 100, "full")
    assert rules(20260401) == (1000, SCALE // 2, 10 * lot, 100, "full")
    assert rules(20260415) == (1000, SCALE // 2, 5 * lot, 100, "disposition")
    assert rules(20260601) == (1000, SCALE // 2, None, None, "disposition")
    assert changing.on(20260601).lot_size == 100 * SCALE
    # A change of rules is a change of content.
    assert changing.as_dict()["changes"][0]["price_limit_bps"] == 1000


def test_half_days_and_extra_days(changing: Instrument) -> None:
    def at(text: str) -> str | None:
        moment = dt.datetime.fromisoformat(text).replace(tzinfo=TAIPEI)
        found = session_of(changing, int(moment.timestamp()) * 10**9)
        return found and found.session_id

    assert at("2026-04-10 10:59:59") == "2026-04-10/day"
    assert at("2026-04-10 11:00:00") is None
    assert at("2026-04-11 10:00:00") == "2026-04-11/day"
    assert at("2026-04-12 10:00:00") is None


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('[100, 1]', '[100, "0.5"]', "tick_size"),
        ('[100, 1]', '["100.3", 1]', "tick_size"),
        ("from_day: 20260601", "from_day: 20260401", "changes"),
        ("from_day: 20260401, price_limit_bps: 1000, tick_size: [[0, \"0.5\"], [100, 1]]",
         "from_day: 20260401", "from_day"),
        ("from_day: 20260401", "from_day: 20260431", "from_day"),
        ("close_auction_s: 0", "close_auction_s: 16000", "close_only_s"),
        ('20260410: "11:00"', '20260410: "25:00"', "early_closes"),
    ],
)  # fmt: skip
def test_rules_that_do_not_hold_together_are_refused_by_name(
    tmp_path: Path, old: str, new: str, field: str
) -> None:
    (tmp_path / "instruments").mkdir()
    assert old in CHANGES
    text = CHANGES.replace(old, new, 1)
    (tmp_path / "instruments" / "local.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(PlatformError) as refused:
        load_instruments(tmp_path)
    assert refused.value.code == ReasonCode.SETTINGS_INVALID
    assert field in refused.value.message


def test_the_table_has_the_rows_it_promises() -> None:
    rows = [TICKS, OFF_THE_LADDER, LIMITS, COSTS, ENDS, ALIASES, SESSIONS]
    assert sum(map(len, rows)) >= 60
    assert yyyymmdd(third_wednesday(2026, 12)) == 20261216
    assert _core.TickLadder([(0, SCALE)]).daily_limits(0, 1000) is None
