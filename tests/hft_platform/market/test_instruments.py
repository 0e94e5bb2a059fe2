"""Instruments: packaged defaults, overrides, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from hft_platform import _core
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.costs import trade_cost
from hft_platform.market.instruments import InstrumentTable, load_instruments
from hft_platform.records import SCALE


@pytest.fixture
def table(tmp_path: Path) -> InstrumentTable:
    return load_instruments(tmp_path)


def write(folder: Path, text: str) -> Path:
    path = folder / "instruments" / "local.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_packaged_instruments_have_the_contract_ids_and_grids(table: InstrumentTable) -> None:
    txf = table.by_symbol("TXFD6")
    assert (txf.instrument_id, txf.tick_size, txf.lot_size) == (1001, SCALE, SCALE)
    assert (txf.multiplier, txf.last_trading_day, txf.currency) == (200 * SCALE, 20260415, "TWD")
    assert table.by_symbol("BTCUSDT.USDM").tick_size == SCALE // 10
    assert table.by_symbol("BTCUSDT.SPOT").lot_size == 1000
    ids = {row.symbol: row.instrument_id for row in table}
    assert ids == {
        "0050": 5003,
        "2330": 5001,
        "BTCUSDT.SPOT": 2003,
        "BTCUSDT.USDM": 2001,
        "ETHUSDT.USDM": 2002,
        "SIM_DYING": 9003,
        "SIM_EDGE": 9001,
        "SIM_NULL": 9002,
        "TXFD6": 1001,
    }


def test_daily_limits_match_published_contracts(table: InstrumentTable) -> None:
    """Reference prices and limits of TXF contracts from the broker's own examples."""
    txf = table.by_symbol("TXFD6")
    published = ((41636, 45799, 37473), (40124, 44136, 36112), (14765, 16241, 13289))
    for reference, up, down in published:
        assert txf.daily_limits(reference * SCALE) == (up * SCALE, down * SCALE)


def test_a_round_trip_costs_what_the_cost_table_says(table: InstrumentTable) -> None:
    txf = table.by_symbol("TXFD6")
    for index, round_trip in ((23_000, 304), (35_000, 400), (37_600, 420)):
        cost = sum(
            trade_cost(
                txf.costs,
                price=index * SCALE,
                qty=SCALE,
                multiplier=txf.multiplier,
                side=side,
                is_maker=False,
            )
            for side in (1, -1)
        )
        assert cost == round_trip * SCALE


def test_a_cost_out_of_range_is_a_typed_error(table: InstrumentTable) -> None:
    for price in (0, 1 << 70):
        with pytest.raises(PlatformError) as caught:
            trade_cost(
                table.by_symbol("TXFD6").costs,
                price=price,
                qty=SCALE,
                multiplier=SCALE,
                side=1,
                is_maker=False,
            )
        assert caught.value.code == ReasonCode.ARITHMETIC_OVERFLOW


def test_every_cost_model_is_what_the_core_parses(table: InstrumentTable) -> None:
    for row in table:
        text = json.dumps(row.costs_json())
        assert _core.trade_cost(text, 100 * SCALE, SCALE, SCALE, 1, True) >= 0


def test_recording_names_resolve_to_symbols(table: InstrumentTable) -> None:
    for name, symbol in (
        ("TXFD6_2026-04-09_book.parquet", "TXFD6"),
        ("usdm_btcusdt_20230404_book.parquet", "BTCUSDT.USDM"),
        ("usdm__btcusdt_20240718.gz", "BTCUSDT.USDM"),
        ("usdm_ethusdt_20240718_trades.parquet", "ETHUSDT.USDM"),
        ("spot__btcusdt_20240808.gz", "BTCUSDT.SPOT"),
    ):
        assert table.by_recording_name(name).symbol == symbol


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("TMFE6_2026-05-04_book.parquet", "TMFE6"),
        ("NEWX_2026-05-04_book.parquet", "NEWX"),
        ("usdm_solusdt_20240718_book.parquet", "SOLUSDT.USDM"),
        ("spot__dogeusdt_20240718.gz", "DOGEUSDT.SPOT"),
    ],
)
def test_the_advice_for_an_unknown_recording_works_when_it_is_followed(
    tmp_path: Path, table: InstrumentTable, name: str, symbol: str
) -> None:
    with pytest.raises(PlatformError) as caught:
        table.by_recording_name(name)
    assert caught.value.code == ReasonCode.UNKNOWN_INSTRUMENT
    assert name in caught.value.message
    assert "TXFD6" in caught.value.message
    write(tmp_path, caught.value.facts["yaml"])
    assert load_instruments(tmp_path).by_recording_name(name).symbol == symbol


def test_an_unknown_symbol_and_an_unknown_id_are_typed_errors(table: InstrumentTable) -> None:
    with pytest.raises(PlatformError) as caught:
        table.by_symbol("TXFE6")
    assert caught.value.code == ReasonCode.UNKNOWN_INSTRUMENT
    assert "product: TXF" in caught.value.next_step
    assert "last_trading_day: 20260520" in caught.value.next_step
    with pytest.raises(PlatformError) as caught:
        table.by_id(4711)
    assert "instrument_id: 4711" in caught.value.next_step


def test_a_local_product_replaces_the_packaged_one_as_a_whole(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        (
            "schema: 1\nproducts:\n  TXF:\n    venue: TAIFEX\n    kind: future\n    currency: TWD\n"
            "    tick_size: 1\n    lot_size: 1\n    multiplier: 200\n    calendar: taifex_index\n"
            "    costs: {kind: taifex_future, tax_rate_ppb: 20000, tax_round: true,"
            " commission_per_lot: '17.5'}\n    price_limit_bps: 1000\n"
            "    order_lots_max: 50\n    banding_bps: 200\n    eligibility: disposition\n"
            "    roll_rule: {kind: none, trading_days_before: 0}\n    gap_ms: 900\n"
        ),
    )
    txf = load_instruments(tmp_path).by_symbol("TXFD6")
    assert txf.costs_json()["commission_per_lot"] == 1_750_000_000
    assert (txf.gap_ns, txf.roll_rule.kind) == (900_000_000, "none")
    assert (txf.order_qty_max, txf.banding_bps) == (5_000_000_000, 200)
    assert txf.eligibility == "disposition"
    path.unlink()
    assert load_instruments(tmp_path).by_symbol("TXFD6").gap_ns == 5_000_000_000


INSTRUMENT = {
    "instrument_id": 1002,
    "product": "TMF",
    "last_trading_day": 20260415,
    "recording_names": ["TMFD6_*"],
}


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"product": "ABC"}, "product", "allowed is BTCUSDT.SPOT"),
        ({"instrument_id": 1001}, "instrument_id", "TMFD6"),
        ({"instrument_id": 0}, "instrument_id", "greater than 0"),
        ({"instrument_id": "7"}, "instrument_id", "valid integer"),
        ({"last_trading_day": 20260431}, "last_trading_day", "yyyymmdd"),
        ({"last_trading_day": 0}, "last_trading_day", "yyyymmdd"),
        ({"last_trading_day": 20260515}, "last_trading_day", "third Wednesday"),
        ({"last_trading_day": 20250415}, "last_trading_day", "third Wednesday"),
        ({"multiplier": 10}, "multiplier", "not known"),
    ],
)
def test_a_wrong_instrument_is_refused_with_file_field_and_what_is_allowed(
    tmp_path: Path, change: dict, field: str, said: str
) -> None:
    path = write(
        tmp_path, yaml.safe_dump({"schema": 1, "instruments": {"TMFD6": INSTRUMENT | change}})
    )
    with pytest.raises(PlatformError) as caught:
        load_instruments(tmp_path)
    assert caught.value.code == ReasonCode.SETTINGS_INVALID
    assert field in caught.value.message
    assert said in caught.value.message
    assert path.name in caught.value.message or field == "instrument_id"


def test_a_correct_instrument_is_taken(tmp_path: Path) -> None:
    write(tmp_path, yaml.safe_dump({"schema": 1, "instruments": {"TMFD6": INSTRUMENT}}))
    assert load_instruments(tmp_path).by_symbol("TMFD6").multiplier == 10 * SCALE


@pytest.mark.parametrize(
    ("tick", "is_taken"),
    [
        ("1", True),
        ("0.00000001", True),
        ("0.000000001", False),
        ("0", False),
        ("-1", False),
        (".nan", False),
        ("1e11", False),
        ("true", False),
        ("[1]", False),
    ],
)
def test_a_tick_is_an_exact_positive_multiple_of_the_scale(
    tmp_path: Path, tick: str, is_taken: bool
) -> None:
    write(
        tmp_path,
        (
            "schema: 1\nproducts:\n  NEW:\n    venue: TAIFEX\n"
            "    kind: future\n    currency: TWD\n"
            f"    tick_size: {tick}\n    lot_size: 1\n    multiplier: 200\n"
            "    calendar: taifex_index\n"
            "    costs: {kind: value_bps, maker_bps: 1.0, taker_bps: 1.0}\n"
            "    price_limit_bps: null\n"
            "    order_lots_max: null\n    banding_bps: null\n    eligibility: full\n"
            "    roll_rule: {kind: none, trading_days_before: 0}\n    gap_ms: 5000\n"
        ),
    )
    if is_taken:
        load_instruments(tmp_path)
        return
    with pytest.raises(PlatformError) as caught:
        load_instruments(tmp_path)
    assert "products.NEW.tick_size" in caught.value.message


CALENDAR = (
    "schema: 1\ncalendars:\n  local:\n    kind: exchange\n    utc_offset: '+08:00'\n"
    "    sessions:\n      day: {{open: '08:45', close: '{close}', trading_day: same,"
    " close_only_s: {close_only}, force_flat_s: 60, preopen_s: 900,"
    " no_cancel_s: {no_cancel}, close_auction_s: 0}}\n"
    "      night: {{open: '15:00', close: '05:00', trading_day: next, close_only_s: 300,"
    " force_flat_s: 60, preopen_s: 600, no_cancel_s: 0, close_auction_s: 0}}\n"
    "    last_day_close: null\n    holidays: [{holiday}]\n    without_night: []\n"
    "    extra_days: []\n    early_closes: {{}}\n"
)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"close": "14:55"}, "pre-open begins"),
        ({"close": "25:00"}, "HH:MM"),
        ({"close_only": 30}, "force_flat_s <= close_only_s"),
        ({"holiday": 20260230}, "yyyymmdd"),
        ({"no_cancel": 901}, "no_cancel_s <= preopen_s"),
    ],
)
def test_a_wrong_calendar_is_refused(tmp_path: Path, values: dict, said: str) -> None:
    good = {"close": "13:45", "close_only": 300, "no_cancel": 120, "holiday": 20260101}
    write(tmp_path, CALENDAR.format(**good))
    load_instruments(tmp_path)
    write(tmp_path, CALENDAR.format(**(good | values)))
    with pytest.raises(PlatformError) as caught:
        load_instruments(tmp_path)
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("schema: 1\nschema: 1\n", "appears twice"),
        ("schema: 2\n", "schema"),
        ("[]\n", "a mapping is expected"),
        ("", "empty"),
        ("schema: 1\nproduct: {}\n", "product is not known"),
        ("a: &x {b: 1}\nc: *x\n", "aliases"),
        ("schema: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("schema: [1\n", "line"),
        ("x: " + "y" * (1 << 20), "larger than"),
    ],
)
def test_yaml_that_is_not_plain_and_complete_is_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    write(tmp_path, text)
    with pytest.raises(PlatformError) as caught:
        load_instruments(tmp_path)
    assert caught.value.code == ReasonCode.SETTINGS_INVALID
    assert said in caught.value.message


def test_yaml_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "schema: 1\n").write_bytes(b"schema: \xff\n")
    with pytest.raises(PlatformError, match="not UTF-8"):
        load_instruments(tmp_path)
