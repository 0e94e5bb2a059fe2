"""Every valid ticket comes out as exactly its order of the SDK; every other one is refused."""

from __future__ import annotations

import itertools
import os
import random
from typing import Any

import pytest
import shioaji as sj

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import Instrument
from hft_platform.order.broker import OrderTicket, Outcome, PriceType, TimeInForce
from hft_platform.order.shioaji_orders import OrderOptions, build_order, read_answer
from tests.hft_platform.feed.shioaji_quotes import instruments_in
from tests.hft_platform.order.shioaji_fake import FUTURES, SCALE, STOCK, trade_of

CASES = int(os.environ.get("HFT_FUZZ_CASES", "1500"))
OPTIONS = OrderOptions("Auto", "Cash")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Instrument]:
    """Instruments of the tests."""
    found = instruments_in(tmp_path_factory.mktemp("config"))
    return {symbol: found.by_symbol(symbol) for symbol in ("TXFD6", "EXFD6", "2330", "2330.ODD")}


def build(instrument: Instrument, options: OrderOptions = OPTIONS, **changes: Any) -> Any:
    """The order of a ticket with changes."""
    content = {
        "order_id": 1, "tag": "0a1B2c", "symbol": instrument.symbol, "side": 1,
        "price": 20000 * SCALE, "qty": instrument.lot_size,
    }  # fmt: skip
    ticket = OrderTicket(**(content | changes))  # type: ignore[arg-type]  # of a test
    account = FUTURES if instrument.venue == "TAIFEX" else STOCK
    return build_order(sj, ticket, instrument, account=account, options=options)


@pytest.mark.parametrize(
    ("price_type", "time_in_force", "side"),
    list(itertools.product(PriceType, TimeInForce, (1, -1))),
)
def test_futures_orders_of_every_kind(
    table: dict[str, Instrument], price_type: PriceType, time_in_force: TimeInForce, side: int
) -> None:
    price = 20000 * SCALE if price_type is PriceType.LMT else 0
    for octype in ("Auto", "New", "Cover", "DayTrade"):
        order = build(
            table["TXFD6"],
            OrderOptions(octype, "Cash"),
            price=price,
            side=side,
            qty=7 * SCALE,
            price_type=price_type,
            time_in_force=time_in_force,
        )
        assert isinstance(order, sj.FuturesOrder)
        assert order.action == ("Buy" if side > 0 else "Sell")
        assert (order.price, order.quantity) == (price / SCALE, 7)
        assert (order.price_type, order.time_in_force) == (price_type.value, time_in_force.value)
        assert order.octype == sj.FuturesOCType(octype)
        assert order.custom_field == "0a1B2c"


@pytest.mark.parametrize("price_type", [PriceType.LMT, PriceType.MKT])
@pytest.mark.parametrize("time_in_force", list(TimeInForce))
def test_stock_orders_of_every_kind(
    table: dict[str, Instrument], price_type: PriceType, time_in_force: TimeInForce
) -> None:
    words = (
        "Cash",
        "Netting",
        "MarginTrading",
        "ShortSelling",
        "SBLShort",
        "SBLShortPriceExempt",
        "Emerging",
    )
    for condition in words:
        order = build(
            table["2330"],
            OrderOptions("Auto", condition),
            price=2220 * SCALE if price_type is PriceType.LMT else 0,
            qty=2000 * SCALE,
            price_type=price_type,
            time_in_force=time_in_force,
        )
        assert isinstance(order, sj.StockOrder)
        assert (order.quantity, order.order_lot) == (2, sj.StockOrderLot.Common)
        assert (order.order_cond, order.price_type) == (condition, price_type.value)


def test_odd_lots_count_shares_and_take_day_limit_orders_only(
    table: dict[str, Instrument],
) -> None:
    odd = table["2330.ODD"]
    order = build(odd, price=2220 * SCALE, qty=37 * SCALE)
    assert (order.quantity, order.order_lot) == (37, sj.StockOrderLot.IntradayOdd)
    for changes in (
        {"time_in_force": TimeInForce.IOC},
        {"price_type": PriceType.MKT, "price": 0},
    ):
        with pytest.raises(PlatformError) as caught:
            build(odd, **({"price": 2220 * SCALE, "qty": 37 * SCALE} | changes))
        assert caught.value.code == ReasonCode.ORDER_FIELD_INVALID


def test_a_price_below_one_is_exact(table: dict[str, Instrument]) -> None:
    order = build(table["EXFD6"], price=123_450_000_00 + 5_000_000)
    assert repr(order.price) == "123.5"
    order = build(table["EXFD6"], price=123_45 * SCALE // 100)
    assert repr(order.price) == "123.45"


@pytest.mark.parametrize(
    ("octype", "condition", "symbol"),
    [("auto", "Cash", "TXFD6"), ("", "Cash", "TXFD6"), ("Auto", "Credit", "2330")],
)
def test_an_unknown_option_is_an_error(
    table: dict[str, Instrument], octype: str, condition: str, symbol: str
) -> None:
    with pytest.raises(PlatformError) as caught:
        build(table[symbol], OrderOptions(octype, condition))
    assert caught.value.code == ReasonCode.ORDER_FIELD_INVALID


def test_stocks_take_no_range_market_orders(table: dict[str, Instrument]) -> None:
    with pytest.raises(PlatformError, match="MKP"):
        build(table["2330"], price_type=PriceType.MKP, price=0)


BAD: dict[str, tuple[Any, ...]] = {
    "tag": (None, "", "0a1B2", "0a1B2c3", "0a1B2-", "äöüabc", "0a1B2c\n", 123456, b"0a1B2c"),
    "side": (0, 2, -2, None, "Buy", 1.0, True, 10**30),
    "price": (
        None, 0, -1, 1, 20000 * SCALE + 1, 20000.0, float("nan"), float("inf"), "20000", True,
        10**18, 10**40, -(2**63),
    ),
    "qty": (None, 0, -SCALE, 1, SCALE + 1, 1.0, float("nan"), "1", 101 * SCALE, 10**40, True),
    "time_in_force": (None, "GTC", "", "ROD", 1, PriceType.LMT),
    "price_type": (None, "LIMIT", "", "LMT", 1, TimeInForce.ROD),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_each_bad_field_is_refused_with_its_name(table: dict[str, Instrument], name: str) -> None:
    for value in BAD[name]:
        with pytest.raises(PlatformError) as caught:
            build(table["TXFD6"], **{name: value})
        assert caught.value.code == ReasonCode.ORDER_FIELD_INVALID, (name, value)
        assert name in caught.value.message, (name, value)


def test_whatever_a_ticket_holds_only_valid_ones_become_orders(
    table: dict[str, Instrument],
) -> None:
    seeded = random.Random(5)
    good: dict[str, tuple[Any, ...]] = {
        "tag": ("0a1B2c", "ZZZZZZ"),
        "side": (1, -1),
        "price": (20000 * SCALE, 2220 * SCALE, 0),
        "qty": (SCALE, 5 * SCALE, 1000 * SCALE),
        "time_in_force": tuple(TimeInForce),
        "price_type": tuple(PriceType),
    }
    made = 0
    for _ in range(CASES):
        instrument = seeded.choice(list(table.values()))
        ticket = {
            name: seeded.choice(good[name] if seeded.random() < 0.9 else BAD[name]) for name in good
        }
        try:
            order = build(instrument, **ticket)
        except PlatformError as error:
            assert error.code == ReasonCode.ORDER_FIELD_INVALID
            continue
        made += 1
        assert all(ticket[name] in good[name] for name in ("tag", "side"))
        assert order.quantity * instrument.lot_size == ticket["qty"]
        assert order.price * SCALE == ticket["price"]
    assert made > CASES / 20


def test_an_answer_is_sent_only_when_it_is_understood_in_full(
    table: dict[str, Instrument],
) -> None:
    order = build(table["TXFD6"])
    contract = sj.BaseContract("FUT", "TAIFEX", "TXFD6")
    for status in (
        "PendingSubmit",
        "PreSubmitted",
        "Submitted",
        "PartFilled",
        "Filled",
        "Cancelled",
    ):
        assert read_answer(trade_of(contract, order, status)).outcome is Outcome.SENT
    failed = read_answer(trade_of(contract, order, "Failed", msg="保證金不足", ordno=""))
    assert (failed.outcome, failed.message) == (Outcome.REJECTED, "保證金不足")
    for changes in (
        {"order_id": ""}, {"order_id": None}, {"order_id": 5}, {"order_id": "x" * 17},
        {"order_id": "ä"}, {"seqno": 5}, {"ordno": b""}, {"status": "Sent"}, {"status": None},
        {"status": 3},
    ):  # fmt: skip
        given: dict[str, Any] = dict(changes)
        trade = trade_of(contract, order, "Submitted", order_id=given.pop("order_id", "7c4e6e46"))
        trade.order.__dict__.update({k: v for k, v in given.items() if k != "status"})
        trade.status.__dict__.update({k: v for k, v in given.items() if k == "status"})
        result = read_answer(trade)
        assert result.outcome is Outcome.AMBIGUOUS, changes
        assert result.code == ReasonCode.BROKER_ANSWER_UNREADABLE
    for nothing in (None, 5, "trade", object(), {}):
        assert read_answer(nothing).outcome is Outcome.AMBIGUOUS
