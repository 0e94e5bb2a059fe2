"""The gateway as a broker: calls, answers, doubts, and gateways that die and come back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.gateway import channel_client, wire
from hft_platform.gateway.channel_client import new_hello
from hft_platform.gateway.channel_socket import SOCKET_FILE
from hft_platform.order.broker import (
    BrokerIds,
    EventKind,
    FillEvent,
    OrderEvent,
    OrderStatus,
    OrderTicket,
    Outcome,
    PriceType,
    TimeInForce,
)
from hft_platform.order.gateway_broker import GatewayBroker
from tests.hft_platform.gateway.channel_gateway import NS, SHA, Gateway, intent, until
from tests.rust_core.market_days import SCALE, TXF_ID

SYMBOL = "TXFD6"
WORKING, REJECTED, FILL, CANCELED, UNKNOWN = 1, 2, 3, 4, 7


class Heard:
    """What a broker told."""

    def __init__(self) -> None:
        self.orders: list[OrderEvent] = []
        self.fills: list[FillEvent] = []
        self.market: list[bytes] = []
        self.connection: list[bool] = []

    def on_market(self, tape: bytes) -> None:
        self.market.append(tape)

    def on_order(self, event: OrderEvent) -> None:
        self.orders.append(event)

    def on_fill(self, event: FillEvent) -> None:
        self.fills.append(event)

    def on_connection(self, is_up: bool, message: str) -> None:
        self.connection.append(is_up)


class World:
    """Gateways in one folder, and brokers of runners."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.closing: list[Callable[[], None]] = []

    def gateway(self, *, epoch: int = 1, serving: bool = True, **limits: Any) -> Gateway:
        made = Gateway(self.folder, epoch=epoch, **limits)
        if serving:
            made.serve()
        self.closing.append(made.close)
        return made

    def broker(self, alpha: int = 0, *, answer_s: float = 5.0) -> GatewayBroker:
        made = GatewayBroker(
            self.folder / SOCKET_FILE, new_hello(f"runner_{alpha}", SHA, 3), {TXF_ID: SYMBOL},
            intent_ttl_ns=NS, answer_s=answer_s, connect_s=5.0, clock_ns=lambda: 12_345,
        )  # fmt: skip
        self.closing.append(made.close)
        return made


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    # The gateway's clock stands in these tests, so the runner's does too.
    monkeypatch.setattr(channel_client, "boottime_ns", lambda: 1_000 * NS)
    made = World(tmp_path)
    yield made
    for close in reversed(made.closing):
        close()


def ticket(order_id: int, **fields: Any) -> OrderTicket:
    values: dict[str, Any] = {
        "order_id": order_id, "tag": wire.tag_text(1_000 + order_id), "symbol": SYMBOL,
        "side": 1, "price": 29_990 * SCALE, "qty": SCALE,
    }  # fmt: skip
    return OrderTicket(**(values | fields))


def test_an_order_is_placed_works_and_fills(world: World) -> None:
    gateway, broker, heard = world.gateway(), world.broker(), Heard()
    broker.connect(heard)
    result = broker.place(ticket(1))
    assert result.outcome is Outcome.SENT
    assert result.ids == BrokerIds("0000000000000001")
    gateway.session.broker(1, WORKING, remaining_qty=SCALE, qty=SCALE, broker_seq=1)
    gateway.session.broker(1, FILL, side=1, price=29_989 * SCALE, qty=SCALE, broker_seq=2)
    gateway.server.wake()
    until(lambda: len(heard.fills) == 1, "the fill")
    assert [event.kind for event in heard.orders] == [EventKind.WORKING]
    fill = heard.fills[0]
    assert (fill.tag, fill.ids, fill.fill_id) == ("0000G9", result.ids, "0000000000000001.2")
    assert (fill.price, fill.qty, fill.symbol) == (29_989 * SCALE, SCALE, SYMBOL)
    orders = broker.orders()
    assert [(order.tag, order.status, order.fills) for order in orders] == [
        ("0000G9", OrderStatus.FILLED, (fill,))
    ]
    assert orders[0].tag == ticket(1).tag
    assert [(row.symbol, row.net_qty) for row in broker.positions()] == [(SYMBOL, SCALE)]
    assert (broker.account().equity, broker.account().free_margin) == (10 * SCALE, 4 * SCALE)


def test_what_the_gateway_refuses_is_rejected_with_its_code(world: World) -> None:
    gateway, broker = world.gateway(), world.broker()
    broker.connect(Heard())
    result = broker.place(ticket(1, qty=500 * SCALE))
    assert result.outcome is Outcome.REJECTED
    assert result.code == ReasonCode.ORDER_QTY_ABOVE_LIMIT
    assert gateway.session.requests == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"price_type": PriceType.MKT}, ReasonCode.ORDER_FIELD_INVALID),
        ({"order_id": 1 << 48}, ReasonCode.ORDER_FIELD_INVALID),
        ({"order_id": 0}, ReasonCode.ORDER_FIELD_INVALID),
    ],
)
def test_what_the_channel_cannot_carry_is_not_sent(
    world: World, changes: dict[str, Any], code: ReasonCode
) -> None:
    gateway, broker = world.gateway(), world.broker()
    broker.connect(Heard())
    pushed = gateway.session.pushed
    result = broker.place(ticket(1, **changes) if "order_id" not in changes else ticket(**changes))
    assert (result.outcome, result.code) == (Outcome.REJECTED, code)
    assert broker.amend(BrokerIds("1"), SYMBOL, price=1, qty=None).outcome is Outcome.REJECTED
    assert broker.cancel(BrokerIds("not hex"), SYMBOL).outcome is Outcome.REJECTED
    assert gateway.session.pushed == pushed


def test_a_cancel_goes_through_and_its_end_comes_back(world: World) -> None:
    gateway, broker, heard = world.gateway(), world.broker(), Heard()
    broker.connect(heard)
    ids = broker.place(ticket(1, time_in_force=TimeInForce.ROD)).ids
    gateway.session.broker(1, WORKING, remaining_qty=SCALE, broker_seq=1)
    assert broker.cancel(ids, SYMBOL).outcome is Outcome.SENT
    assert [row["action"] for row in gateway.session.requests] == [1, 2]
    gateway.session.broker(1, CANCELED, broker_seq=2)
    until(lambda: len(heard.orders) == 2, "the cancel's end")
    assert [event.kind for event in heard.orders] == [EventKind.WORKING, EventKind.CANCELED]


def test_without_a_gateway_nothing_is_sent_and_connecting_fails(world: World) -> None:
    broker = world.broker()
    broker._connect_s = 0.05
    with pytest.raises(PlatformError) as raised:
        broker.connect(Heard())
    assert raised.value.code == ReasonCode.CHANNEL_UNREACHABLE
    result = broker.place(ticket(1))
    assert (result.outcome, result.code) == (Outcome.REJECTED, ReasonCode.CHANNEL_UNREACHABLE)
    with pytest.raises(PlatformError) as raised:
        broker.orders()
    assert raised.value.code == ReasonCode.BROKER_QUERY_FAILED


def test_a_gateway_that_does_not_want_the_runner_says_why(world: World) -> None:
    world.gateway()
    broker = world.broker(7)
    broker._connect_s = 0.2
    with pytest.raises(PlatformError) as raised:
        broker.connect(Heard())
    assert raised.value.code == ReasonCode.CONFIG_NOT_FOUND


def test_an_intent_that_is_not_answered_is_ambiguous_and_found_by_asking(world: World) -> None:
    gateway = world.gateway(serving=False)
    broker = world.broker(answer_s=0.2)
    serving = threading.Event()

    def welcome_only() -> None:
        while not serving.is_set():
            gateway.server.step(0.01)

    thread = threading.Thread(target=welcome_only)
    thread.start()
    broker.connect(Heard())
    serving.set()
    thread.join()
    result = broker.place(ticket(1))
    assert (result.outcome, result.code) == (Outcome.AMBIGUOUS, ReasonCode.BROKER_TIMEOUT)
    gateway.serve()
    until(lambda: len(gateway.session.requests) == 1, "the gateway to decide")
    assert [order.tag for order in broker.orders()] == [ticket(1).tag]


def test_a_runner_finds_the_next_gateway_and_misses_nothing(world: World) -> None:
    first, broker, heard = world.gateway(), world.broker(), Heard()
    broker.connect(heard)
    broker.place(ticket(1))
    broker.place(ticket(2))
    first.session.broker(1, WORKING, remaining_qty=SCALE, broker_seq=1)
    until(lambda: len(heard.orders) == 1, "the first event")
    first.close()
    until(lambda: heard.connection == [True, False], "the loss to be noticed")
    assert broker.place(ticket(3)).code == ReasonCode.CHANNEL_UNREACHABLE
    second = world.gateway(epoch=2, serving=False)
    # The broker spoke while no runner was connected.
    second.session.broker(1, FILL, side=1, price=29_989 * SCALE, qty=SCALE, broker_seq=2)
    second.session.broker(2, REJECTED, reason_code=int(ReasonCode.INTENT_ABANDONED))
    second.serve()
    until(lambda: len(heard.fills) == 1 and len(heard.orders) == 2, "what was missed")
    assert heard.connection == [True, False, True]
    assert heard.orders[1].code == ReasonCode.INTENT_ABANDONED
    assert {order.tag: order.status for order in broker.orders()} == {
        ticket(1).tag: OrderStatus.FILLED, ticket(2).tag: OrderStatus.REJECTED,
    }  # fmt: skip
    assert len(second.session.requests) == 0


def test_a_runner_that_starts_over_hears_everything_again_under_the_same_names(
    world: World,
) -> None:
    gateway, broker, heard = world.gateway(), world.broker(), Heard()
    broker.connect(heard)
    broker.place(ticket(1))
    gateway.session.broker(1, FILL, side=1, price=29_989 * SCALE, qty=SCALE, broker_seq=1)
    until(lambda: len(heard.fills) == 1, "the fill")
    broker.close()
    until(lambda: not gateway.server.connected, "the gateway to notice")
    again, later = world.broker(), Heard()
    again.connect(later)
    until(lambda: len(later.fills) == 1, "the fill again")
    assert later.fills == heard.fills


def test_an_unknown_outcome_at_the_gateway_is_no_event_and_a_pending_order(world: World) -> None:
    gateway, broker, heard = world.gateway(), world.broker(), Heard()
    broker.connect(heard)
    broker.place(ticket(1))
    gateway.session.broker(1, UNKNOWN)
    until(lambda: broker.orders()[0].code == ReasonCode.ORDER_OUTCOME_UNKNOWN, "the doubt")
    assert broker.orders()[0].status is OrderStatus.PENDING
    assert heard.orders == []


def test_market_records_come_through(world: World) -> None:
    gateway, broker, heard = world.gateway(), world.broker(), Heard()
    broker.connect(heard)
    broker.subscribe([SYMBOL])
    until(lambda: any(r.wanted for r in gateway.server._runners.values()), "the subscription")
    gateway.server.publish(intent(0, 1) * 2)
    until(lambda: bool(heard.market), "market records")
    assert heard.market == [intent(0, 1) * 2]


@pytest.mark.parametrize("number", [1, 61, 62, 1 << 35, 62**6 - 1])
def test_a_tag_spells_its_number(number: int) -> None:
    assert len(wire.tag_text(number)) == 6
    assert wire.tag_number(wire.tag_text(number)) == number


@pytest.mark.parametrize("tag", ["", "12345", "1234567", "12 456", "12345é"])
def test_what_is_no_tag_is_refused(tag: str) -> None:
    with pytest.raises(PlatformError) as raised:
        wire.tag_number(tag)
    assert raised.value.code == ReasonCode.CHANNEL_PROTOCOL
