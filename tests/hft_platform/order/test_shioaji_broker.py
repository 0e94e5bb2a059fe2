"""Whole conversations with the broker's adapter, on a stand-in for an open session.

The session is `shioaji_fake.Session`, whose signatures and fields are held to the SDK's own by
`test_shioaji_surface.py`. Orders, enums, contracts, quotes and errors are the SDK's.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import shioaji as sj

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.order.broker import (
    Broker,
    BrokerIds,
    EventKind,
    OrderStatus,
    OrderTicket,
    Outcome,
    PriceType,
    TimeInForce,
)
from hft_platform.records import TYPE_CODES
from tests.hft_platform.feed.shioaji_quotes import parts, quote, taipei_ns
from tests.hft_platform.order.shioaji_fake import (
    CA_PASSWORD,
    FUTURES,
    KEY,
    SCALE,
    SECOND_NS,
    SECRET,
    Deal,
    Desk,
    Event,
    Session,
    futures_deal_event,
    futures_info,
    futures_order_event,
    stock_deal_event,
    stock_order_event,
    trade_of,
)

IDS = BrokerIds("7c4e6e46", "269866", "tA0de")


def ticket(**changes: Any) -> OrderTicket:
    """A valid order of two lots of TXFD6."""
    content = {
        "order_id": 1, "tag": "0a1B2c", "symbol": "TXFD6", "side": 1, "price": 20000 * SCALE,
        "qty": 2 * SCALE,
    }  # fmt: skip
    return OrderTicket(**(content | changes))  # type: ignore[arg-type]  # of a test


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A broker, not connected."""
    return Desk(tmp_path)


def code_of(call: Any, *args: Any, **kwargs: Any) -> ReasonCode:
    """Reason code of the refusal that a call raises."""
    with pytest.raises(PlatformError) as caught:
        call(*args, **kwargs)
    return ReasonCode(caught.value.code)


def test_it_is_a_broker(desk: Desk) -> None:
    broker: Broker = desk.broker
    assert broker.name == "shioaji"


def test_a_conversation_from_login_to_logout(desk: Desk) -> None:
    session = desk.connect()
    assert desk.listener.connections == [(True, "logged in")]
    assert session.calls == ["login", "subscribe_trade", "subscribe_trade"]
    assert [kind for kind, _ in session.contracts.loads] == ["preload"]

    desk.broker.subscribe(["TXFD6", "2330"])
    assert session.subscribed == [
        ("TXFD6", "tick", False), ("TXFD6", "bid_ask", False),
        ("2330", "tick", False), ("2330", "bid_ask", False),
    ]  # fmt: skip
    session.callbacks["tick_fop"](quote("TickFOPv1"))
    session.callbacks["bidask_fop"](quote("BidAskFOPv1"))
    session.callbacks["tick_stk"](quote("TickSTKv1"))
    session.callbacks["bidask_stk"](quote("BidAskSTKv1"))
    records = [part for tape in desk.listener.tapes for part in parts(tape)]
    names = {code: name for name, code in TYPE_CODES.items()}
    assert [names[int(row["record_type"])] for row in records] == ["Trade", "Book"] * 2

    placed = desk.broker.place(ticket())
    assert (placed.outcome, placed.ids) == (Outcome.SENT, IDS)
    contract, order, timeout, _ = session.placed[0]
    assert (contract.code, contract.security_type) == ("TXFD6", "FUT")
    assert (order.action, order.price, order.quantity) == (sj.Action.Buy, 20000.0, 2)
    assert (order.custom_field, order.account.account_id, timeout) == ("0a1B2c", "1234567", 5000)

    # The deal comes before its order event, and once more: the fill has one name.
    report = session.callbacks["order"]
    report(sj.OrderState.FuturesDeal, Event(futures_deal_event()))
    report(sj.OrderState.FuturesOrder, Event(futures_order_event()))
    report(sj.OrderState.FuturesDeal, Event(futures_deal_event()))
    first, second = desk.listener.fills
    assert (first.ids, first.fill_id, first.tag) == (IDS, "7c4e6e46/j5006396", "0a1B2c")
    assert (first.symbol, first.side, first.price) == ("TXFD6", 1, 20000 * SCALE)
    assert (first.qty, second) == (SCALE, first)
    (working,) = desk.listener.orders
    assert (working.kind, working.ids, working.symbol) == (EventKind.WORKING, IDS, "TXFD6")
    assert (working.tag, working.qty) == ("0a1B2c", 2 * SCALE)

    assert desk.broker.cancel(IDS, "TXFD6").outcome is Outcome.SENT
    report(sj.OrderState.FuturesOrder, Event(futures_order_event("Cancel")))
    assert desk.listener.orders[-1].kind is EventKind.CANCELED
    assert desk.counts == {}

    desk.broker.close()
    desk.broker.close()
    assert session.calls[-1] == "logout"
    assert session.calls.count("logout") == 1
    assert desk.broker.place(ticket()).code == ReasonCode.BROKER_UNREACHABLE
    report(sj.OrderState.FuturesOrder, Event(futures_order_event()))
    assert len(desk.listener.orders) == 2


@pytest.mark.parametrize(
    ("answer", "outcome", "code"),
    [
        (sj.ShioajiTimeoutError("t"), Outcome.AMBIGUOUS, ReasonCode.BROKER_TIMEOUT),
        (sj.OrderOutcomeUnknownError("u"), Outcome.AMBIGUOUS, ReasonCode.ORDER_OUTCOME_UNKNOWN),
        (sj.ShioajiConnectionError("c"), Outcome.AMBIGUOUS, ReasonCode.BROKER_UNREACHABLE),
        (sj.DecodeError("d"), Outcome.AMBIGUOUS, ReasonCode.BROKER_ANSWER_UNREADABLE),
        (sj.ServerError("s"), Outcome.AMBIGUOUS, ReasonCode.BROKER_ANSWER_UNREADABLE),
        (BaseException("panic"), Outcome.AMBIGUOUS, ReasonCode.BROKER_ANSWER_UNREADABLE),
        (sj.ValidationError("v"), Outcome.REJECTED, ReasonCode.ORDER_FIELD_INVALID),
        (sj.TokenError("t"), Outcome.REJECTED, ReasonCode.BROKER_LOGIN_FAILED),
        (sj.CaExpiredError("x"), Outcome.REJECTED, ReasonCode.CERTIFICATE_EXPIRED),
        ("Failed", Outcome.REJECTED, ReasonCode.BROKER_REJECTED),
        (object(), Outcome.AMBIGUOUS, ReasonCode.BROKER_ANSWER_UNREADABLE),
        ("Filled", Outcome.SENT, ReasonCode.UNSET),
    ],
)
def test_what_a_call_came_to_is_said_and_it_is_made_once(
    desk: Desk, answer: Any, outcome: Outcome, code: ReasonCode
) -> None:
    session = desk.connect()
    session.answers = [answer]
    result = desk.broker.place(ticket())
    assert (result.outcome, result.code) == (outcome, code)
    assert len(session.placed) == 1


def test_a_keyboard_interrupt_is_no_outcome(desk: Desk) -> None:
    session = desk.connect()
    session.answers = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        desk.broker.place(ticket())


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"symbol": "TXFE6"}, ReasonCode.CONTRACT_UNKNOWN),
        ({"symbol": None}, ReasonCode.CONTRACT_UNKNOWN),
        ({"price": 20000 * SCALE + 1}, ReasonCode.ORDER_FIELD_INVALID),
        ({"price": 22001 * SCALE}, ReasonCode.ORDER_FIELD_INVALID),
        ({"price": 17999 * SCALE}, ReasonCode.ORDER_FIELD_INVALID),
        ({"price": float("nan")}, ReasonCode.ORDER_FIELD_INVALID),
        ({"price": None}, ReasonCode.ORDER_FIELD_INVALID),
        ({"price": -SCALE}, ReasonCode.ORDER_FIELD_INVALID),
        ({"qty": 0}, ReasonCode.ORDER_FIELD_INVALID),
        ({"qty": SCALE + 1}, ReasonCode.ORDER_FIELD_INVALID),
        ({"qty": 101 * SCALE}, ReasonCode.ORDER_FIELD_INVALID),
        ({"tag": "0a1B2"}, ReasonCode.ORDER_FIELD_INVALID),
        ({"side": 0}, ReasonCode.ORDER_FIELD_INVALID),
        ({"price_type": "LIMIT"}, ReasonCode.ORDER_FIELD_INVALID),
        ({"time_in_force": "GTC"}, ReasonCode.ORDER_FIELD_INVALID),
        ({"price_type": PriceType.MKT}, ReasonCode.ORDER_FIELD_INVALID),
    ],
)
def test_a_bad_order_is_refused_before_the_broker_is_called(
    desk: Desk, changes: dict[str, Any], code: ReasonCode
) -> None:
    session = desk.connect()
    result = desk.broker.place(ticket(**changes))
    assert (result.outcome, result.code) == (Outcome.REJECTED, code), result.message
    assert session.placed == []


def test_yesterdays_limits_refuse_nothing_and_the_next_day_brings_new_ones(desk: Desk) -> None:
    session = desk.connect()
    desk.clock.now_ns = taipei_ns("2026-04-10 15:00:01")
    assert desk.broker.place(ticket(price=22100 * SCALE)).outcome is Outcome.SENT
    session.contracts.infos["TXFD6"] = futures_info(
        reference=20500.0, limit_up=22550.0, limit_down=18450.0
    )
    desk.broker.step(desk.clock.now_ns)
    assert [kind for kind, _ in session.contracts.loads] == ["preload", "reload"]
    assert desk.broker.place(ticket(price=22550 * SCALE)).outcome is Outcome.SENT
    refused = desk.broker.place(ticket(price=22551 * SCALE))
    assert refused.code == ReasonCode.ORDER_FIELD_INVALID
    desk.broker.step(desk.clock.now_ns + SECOND_NS)
    assert len(session.contracts.loads) == 2


def test_a_contract_that_no_longer_fits_on_the_next_day_is_taken_out(desk: Desk) -> None:
    session = desk.connect()
    session.contracts.infos["TXFD6"] = futures_info(multiplier=100.0)
    desk.clock.now_ns = taipei_ns("2026-04-10 15:00:01")
    desk.broker.step(desk.clock.now_ns)
    assert desk.counts == {int(ReasonCode.CONTRACT_MISMATCH): 1}
    assert desk.broker.place(ticket()).code == ReasonCode.CONTRACT_UNKNOWN
    stock = ticket(symbol="2330", price=2220 * SCALE, qty=1000 * SCALE)
    assert desk.broker.place(stock).outcome is Outcome.SENT


def test_a_stock_order_goes_to_the_stock_account_in_lots(desk: Desk) -> None:
    session = desk.connect()
    sold = ticket(symbol="2330", side=-1, price=2220 * SCALE, qty=3000 * SCALE)
    assert desk.broker.place(sold).outcome is Outcome.SENT
    _, order, _, _ = session.placed[0]
    assert isinstance(order, sj.StockOrder)
    assert (order.action, order.quantity, order.price) == (sj.Action.Sell, 3, 2220.0)
    assert (order.order_lot, order.order_cond) == (sj.StockOrderLot.Common, sj.StockOrderCond.Cash)
    assert order.account.account_id == "7654321"


def test_an_order_of_an_earlier_process_is_found_by_asking_before_it_is_canceled(
    desk: Desk,
) -> None:
    session = desk.connect()
    order = real_order()
    session.trades = [trade_of(sj.BaseContract("FUT", "TAIFEX", "TXFD6"), order, "Submitted")]
    assert desk.broker.cancel(IDS, "TXFD6").outcome is Outcome.SENT
    # Both accounts are asked, since ids do not tell whose the order is.
    assert session.calls[-4:] == ["update_status", "update_status", "list_trades", "cancel_order"]
    assert desk.broker.cancel(IDS, "TXFD6").outcome is Outcome.SENT
    assert session.calls.count("update_status") == 2

    other = desk.broker.cancel(BrokerIds("00000000"), "TXFD6")
    assert (other.outcome, other.code) == (Outcome.REJECTED, ReasonCode.ORDER_NOT_FOUND)
    nameless = desk.broker.cancel(BrokerIds(), "TXFD6")
    assert (nameless.outcome, nameless.code) == (Outcome.REJECTED, ReasonCode.ORDER_NOT_FOUND)
    session.failures["update_status"] = sj.ShioajiTimeoutError("late")
    failed = desk.broker.cancel(BrokerIds("11111111"), "TXFD6")
    assert (failed.outcome, failed.code) == (Outcome.REJECTED, ReasonCode.BROKER_QUERY_FAILED)
    assert session.calls.count("cancel_order") == 2


def test_a_cancel_whose_answer_is_lost_is_ambiguous(desk: Desk) -> None:
    session = desk.connect()
    desk.broker.place(ticket())
    session.answers = [sj.ResponseRecvError("closed")]
    result = desk.broker.cancel(IDS, "TXFD6")
    assert (result.outcome, result.ids) == (Outcome.AMBIGUOUS, IDS)
    assert desk.counts == {int(ReasonCode.BROKER_ANSWER_UNREADABLE): 1}


def test_an_amendment_names_the_lots_to_take_away(desk: Desk) -> None:
    session = desk.connect()
    desk.broker.place(ticket(qty=5 * SCALE))
    amend = desk.broker.amend
    assert amend(IDS, "TXFD6", price=None, qty=2 * SCALE).outcome is Outcome.SENT
    assert amend(IDS, "TXFD6", price=20001 * SCALE, qty=None).outcome is Outcome.SENT
    assert session.updates == [
        {"price": None, "qty": 3, "timeout": 5000},
        {"price": 20001.0, "qty": None, "timeout": 5000},
    ]
    for price, qty in (
        (None, 5 * SCALE), (None, 0), (None, None), (20001 * SCALE, SCALE),
        (20001 * SCALE + 1, None), (22001 * SCALE, None),
    ):  # fmt: skip
        result = amend(IDS, "TXFD6", price=price, qty=qty)
        assert (result.outcome, result.code) == (
            Outcome.REJECTED,
            ReasonCode.ORDER_FIELD_INVALID,
        )
    assert len(session.updates) == 2


def test_a_non_blocking_order_gets_its_ids_later_and_its_events_their_tag(tmp_path: Path) -> None:
    desk = Desk(tmp_path, is_non_blocking=True)
    session = desk.connect()
    result = desk.broker.place(ticket())
    assert (result.outcome, result.ids) == (Outcome.SENT, BrokerIds())
    contract, order, timeout, called_back = session.placed[0]
    assert timeout == 0
    # The order's event overtakes the call's answer: whose it is comes with the same event again.
    session.callbacks["order"](sj.OrderState.FuturesOrder, Event(futures_order_event()))
    assert [event.tag for event in desk.listener.orders] == [""]
    called_back(trade_of(contract, order, "PendingSubmit"))
    assert [event.tag for event in desk.listener.orders] == ["", "0a1B2c"]
    session.callbacks["order"](sj.OrderState.FuturesDeal, Event(futures_deal_event()))
    assert desk.listener.fills[0].tag == "0a1B2c"
    assert desk.broker.cancel(IDS, "TXFD6").outcome is Outcome.SENT
    # A refusal that comes by callback.
    desk.broker.place(ticket(tag="0a1B2d"))
    session.placed[1][3](trade_of(contract, order, "Failed", msg="no margin"))
    refused = desk.listener.orders[-1]
    assert (refused.kind, refused.tag, refused.code, refused.message) == (
        EventKind.REJECTED, "0a1B2d", ReasonCode.BROKER_REJECTED, "no margin",
    )  # fmt: skip
    session.placed[1][3](object())
    assert desk.counts == {int(ReasonCode.BROKER_ANSWER_UNREADABLE): 1}


def test_a_session_that_went_down_is_opened_again_after_its_back_off(desk: Desk) -> None:
    first = desk.connect()
    desk.broker.subscribe(["TXFD6"])
    first.callbacks["event"](0, 12, "host", "Reconnecting")
    assert desk.listener.connections[-1][0] is False
    assert desk.broker.place(ticket()).outcome is Outcome.SENT, "the SDK reconnects by itself"
    first.callbacks["event"](0, 13, "host", "Reconnected")
    assert desk.listener.connections[-1][0] is True

    first.callbacks["down"]()
    assert desk.listener.connections[-1] == (False, "the session is down")
    refused = desk.broker.place(ticket())
    assert (refused.outcome, refused.code) == (Outcome.REJECTED, ReasonCode.BROKER_UNREACHABLE)
    assert code_of(desk.broker.positions) == ReasonCode.BROKER_QUERY_FAILED
    start_ns = desk.clock.now_ns
    second = 0
    while len(desk.sessions) < 2 and second < 90:
        second += 1
        desk.clock.now_ns = start_ns + second * SECOND_NS
        desk.broker.step(desk.clock.now_ns)
    assert 60 <= second <= 75
    second_session = desk.sessions[1]
    assert len(desk.sessions) == 2
    assert first.calls[-1] == "logout"
    assert second_session.subscribed == [("TXFD6", "tick", False), ("TXFD6", "bid_ask", False)]
    assert desk.listener.connections[-1] == (True, "logged in again")
    assert desk.broker.place(ticket()).outcome is Outcome.SENT
    first.callbacks["down"]()
    assert desk.broker.place(ticket()).outcome is Outcome.SENT, "an old session went down, not ours"


def test_failing_logins_wait_longer_each_time_and_are_counted(desk: Desk) -> None:
    first = desk.connect()

    def fail(session: Session) -> None:
        session.failures["login"] = sj.ServerError("503 " + KEY)

    desk.prepare = fail
    first.callbacks["down"]()
    start_ns = desk.clock.now_ns
    at = []
    for second in range(0, 1200, 5):
        desk.clock.now_ns = start_ns + second * SECOND_NS
        desk.broker.step(desk.clock.now_ns)
        if len(desk.sessions) > len(at) + 1:
            at.append(second)
    gaps = [later - earlier for earlier, later in itertools.pairwise(at)]
    for gap, least in zip(gaps, (60, 120, 240, 480), strict=False):
        assert least <= gap <= least * 1.25 + 5, at
    assert len(at) == 5, at
    assert all(session.calls[-1] == "logout" for session in desk.sessions)
    assert desk.counts[int(ReasonCode.BROKER_UNREACHABLE)] == 1 + len(at)


def test_a_refused_first_login_is_raised_and_not_repeated_by_stepping(desk: Desk) -> None:
    desk.prepare = lambda session: session.failures.update(login=sj.TokenError("revoked"))
    assert code_of(desk.connect) == ReasonCode.BROKER_LOGIN_FAILED
    desk.broker.step(desk.clock.now_ns + 3600 * SECOND_NS)
    assert len(desk.sessions) == 1
    assert desk.listener.connections == []


def test_a_listener_that_fails_is_counted_and_the_sdk_never_sees_it(desk: Desk) -> None:
    session = desk.connect()
    desk.broker.subscribe(["TXFD6"])
    desk.listener.error = PlatformError(ReasonCode.WAL_WRITE_FAILED, "disk full")
    session.callbacks["tick_fop"](quote("TickFOPv1"))
    session.callbacks["order"](sj.OrderState.FuturesDeal, Event(futures_deal_event()))
    session.callbacks["event"](0, 12, "", "")
    desk.listener.error = RuntimeError("a bug")
    session.callbacks["order"](sj.OrderState.FuturesOrder, Event(futures_order_event()))
    assert desk.counts == {
        int(ReasonCode.WAL_WRITE_FAILED): 3,
        int(ReasonCode.INVARIANT_BROKEN): 1,
    }
    session.callbacks["event"]([], {}, object(), None)
    assert desk.counts[int(ReasonCode.INVARIANT_BROKEN)] == 2


def test_an_ambiguous_order_is_found_by_its_tag_when_the_broker_is_asked(desk: Desk) -> None:
    session = desk.connect()
    session.answers = [sj.ShioajiTimeoutError("late")]
    assert desk.broker.place(ticket()).outcome is Outcome.AMBIGUOUS
    contract, order, _, _ = session.placed[0]
    session.trades = [trade_of(contract, order, "PartFilled", deal_quantity=1, deals=[deal("j1")])]
    session.records = [(sj.OrderState.FuturesDeal, Event(futures_deal_event(exchange_seq="j1")))]
    (found,) = desk.broker.orders()
    assert (found.tag, found.ids, found.status) == ("0a1B2c", IDS, OrderStatus.WORKING)
    assert (found.qty, found.filled_qty) == (2 * SCALE, SCALE)
    assert [fill.fill_id for fill in found.fills] == ["7c4e6e46/j1"]
    assert found.fills[0].tag == "0a1B2c"


def test_our_own_rate_refuses_before_the_broker_would(tmp_path: Path) -> None:
    desk = Desk(tmp_path, order_calls_soft=2, order_calls_hard=3, account_calls_max=2)
    session = desk.connect()
    results = [desk.broker.place(ticket()) for _ in range(5)]
    assert [result.outcome for result in results] == [Outcome.SENT] * 3 + [Outcome.REJECTED] * 2
    assert results[-1].code == ReasonCode.BROKER_RATE_SPENT
    assert len(session.placed) == 3
    desk.clock.now_ns += 10 * SECOND_NS
    assert desk.broker.cancel(IDS, "TXFD6").outcome is Outcome.SENT
    desk.broker.account()
    desk.broker.account()
    assert code_of(desk.broker.account) == ReasonCode.BROKER_RATE_SPENT


def test_no_secret_is_in_what_is_shown_or_kept(tmp_path: Path) -> None:
    desk = Desk(tmp_path, is_simulation=False)
    desk.prepare = lambda session: session.failures.update(
        login=sj.AuthError(f"bad key {KEY} {SECRET} {CA_PASSWORD}")
    )
    with pytest.raises(PlatformError) as caught:
        desk.connect()
    shown = caught.value.render() + repr(caught.value.facts) + repr(desk.broker.state())
    shown += "".join(
        path.read_text() for path in (tmp_path / "workspace").rglob("*") if path.is_file()
    )
    assert "[secret]" in shown
    assert not any(secret in shown for secret in (KEY, SECRET, CA_PASSWORD))
    assert (
        json.loads((tmp_path / "workspace/state/broker_logins.json").read_text())["failures"] == 1
    )


def test_stock_events_carry_their_tag(desk: Desk) -> None:
    session = desk.connect()
    session.callbacks["order"](sj.OrderState.StockOrder, Event(stock_order_event()))
    session.callbacks["order"](sj.OrderState.StockDeal, Event(stock_deal_event()))
    (order,), (fill,) = desk.listener.orders, desk.listener.fills
    assert (order.symbol, order.tag, order.side, order.qty) == ("2330", "0a1B2c", -1, 3000 * SCALE)
    assert (fill.symbol, fill.tag, fill.side, fill.qty) == ("2330", "0a1B2c", -1, 1000 * SCALE)
    assert fill.exchange_time_ns == 1775787076_354_000_000


def real_order(**changes: Any) -> Any:
    """A futures order of the SDK."""
    content = {
        "action": "Buy", "price": 20000.0, "quantity": 2, "price_type": "LMT",
        "time_in_force": TimeInForce.ROD.value, "octype": "Auto", "custom_field": "0a1B2c",
        "account": FUTURES,
    }  # fmt: skip
    return sj.FuturesOrder(**(content | changes))


def deal(seq: str, quantity: int = 1, price: float = 20000.0) -> Deal:
    """A deal in the list of an order."""
    return Deal(datetime=None, price=price, quantity=quantity, seq=seq, ts=1775787073.5)


def test_what_the_runtime_asks_beside_the_protocol(desk: Desk) -> None:
    assert desk.broker.daily_limits("TXFD6") is None, "not connected"
    assert desk.broker.unreadable_quotes() == 0
    session = desk.connect()
    desk.broker.subscribe(["TXFD6"])
    limits = desk.broker.daily_limits("TXFD6")
    assert limits is not None
    up, down = limits
    assert desk.broker.place(ticket(price=up)).outcome is Outcome.SENT
    assert desk.broker.place(ticket(price=up + SCALE)).code == ReasonCode.ORDER_FIELD_INVALID
    assert 0 < down < up
    assert desk.broker.daily_limits("NONE") is None
    session.callbacks["down"]()
    for _ in range(90):
        desk.clock.now_ns += SECOND_NS
        desk.broker.look_after(desk.clock.now_ns)
    assert len(desk.sessions) == 2, "look_after opened it again"
    desk.clock.now_ns = taipei_ns("2026-04-10 15:00:01")
    assert desk.broker.daily_limits("TXFD6") is None, "these are yesterday's"
