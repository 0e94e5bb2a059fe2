"""The drills' broker: every fault does what it says, and its journal counts every call."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hft_platform import records
from hft_platform.drills import broker_wire as wire
from hft_platform.drills.broker_book import MS, BrokerBook, BrokerFaults
from hft_platform.drills.broker_client import DrillBroker
from hft_platform.drills.broker_process import BrokerProcess
from hft_platform.drills.sim_broker import SimBroker
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.order.broker import (
    EventKind,
    FillEvent,
    OrderEvent,
    OrderStatus,
    OrderTicket,
    Outcome,
    TimeInForce,
)

SCALE = records.SCALE
QUOTE = {
    "instrument_id": 1001, "symbol": "TXFD6", "bid": 34_999 * SCALE, "ask": 35_000 * SCALE,
    "tick": SCALE, "trading_day": 20260410,
}  # fmt: skip


class Ear:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.orders: list[OrderEvent] = []
        self.fills: list[FillEvent] = []
        self.tapes: list[bytes] = []
        self.connections: list[bool] = []

    def on_market(self, tape: bytes) -> None:
        self.tapes.append(tape)

    def on_order(self, event: OrderEvent) -> None:
        self.orders.append(event)

    def on_fill(self, event: FillEvent) -> None:
        self.fills.append(event)

    def on_connection(self, is_up: bool, message: str) -> None:
        self.connections.append(is_up)


def ticket(number: int, lots: int = 1, **changes: Any) -> OrderTicket:
    facts: dict[str, Any] = {
        "order_id": number, "tag": f"T{number:05d}", "symbol": "TXFD6", "side": 1,
        "price": (35_000 + number) * SCALE, "qty": lots * SCALE,
    }  # fmt: skip
    return OrderTicket(**facts | changes)


def wait(is_so: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@pytest.fixture
def process() -> Iterator[BrokerProcess]:
    # The path of a socket is short.
    folder = Path(tempfile.mkdtemp(prefix="hft-"))
    with BrokerProcess(folder, seed=3, quotes=[QUOTE]) as started:
        yield started
    shutil.rmtree(folder)


@pytest.fixture
def broker(process: BrokerProcess) -> Iterator[DrillBroker]:
    client = DrillBroker(process.socket_path, call_seconds=1.0)
    yield client
    client.close()


def test_an_order_is_placed_reported_filled_and_found(
    process: BrokerProcess, broker: DrillBroker
) -> None:
    ear = Ear()
    broker.connect(ear)
    broker.subscribe(["TXFD6"])
    wait(lambda: bool(ear.tapes))
    (book,) = records.split(ear.tapes[0])["Book"]
    assert book["bid_price"][0] == QUOTE["bid"]
    result = broker.place(ticket(1, 2))
    assert result.outcome == Outcome.SENT
    wait(lambda: bool(ear.fills))
    assert ear.orders[0].kind == EventKind.WORKING
    assert ear.fills[0].ids == result.ids
    assert ear.fills[0].tag == "", "the events of futures carry no tag"
    (order,) = broker.orders()
    assert (order.tag, order.status, order.filled_qty) == ("T00001", OrderStatus.FILLED, 2 * SCALE)
    assert [fill.fill_id for fill in order.fills] == [fill.fill_id for fill in ear.fills]
    assert [row.net_qty for row in broker.positions()] == [2 * SCALE]
    (call,) = process.calls()
    assert (call.tag, call.fate, call.order_id) == ("T00001", "accepted", 1)
    assert ear.connections[0] is True


def test_a_second_call_with_the_same_tag_is_a_second_order(
    process: BrokerProcess, broker: DrillBroker
) -> None:
    """Or nobody who sends twice would ever be found out."""
    first, second = broker.place(ticket(1)), broker.place(ticket(1))
    assert first.ids != second.ids
    assert [call.tag for call in process.calls()] == ["T00001", "T00001"]
    wait(lambda: [row.net_qty for row in broker.positions()] == [2 * SCALE])


@pytest.mark.parametrize(
    ("fault", "is_there"), [("request_lost", False), ("reply_lost", True), ("cut", True)]
)
def test_a_call_that_was_cut_short_is_ambiguous_whatever_came_of_it(
    process: BrokerProcess, broker: DrillBroker, fault: str, is_there: bool
) -> None:
    broker.control("faults", faults={fault: 1.0})
    assert broker.place(ticket(1)).outcome == Outcome.AMBIGUOUS
    assert len(process.calls()) == 1, "the journal has it either way"
    broker.control("faults", faults={})
    assert [order.tag for order in broker.orders()] == (["T00001"] if is_there else [])


def test_a_late_request_arrives_after_its_caller_gave_up(
    process: BrokerProcess, broker: DrillBroker
) -> None:
    broker.control("faults", faults={"request_late": 1.0, "late_ms": 100})
    hasty = DrillBroker(process.socket_path, call_seconds=0.05)
    assert hasty.place(ticket(1)).outcome == Outcome.AMBIGUOUS
    hasty.close()
    broker.control("faults", faults={})
    wait(lambda: len(broker.orders()) == 1)


def test_a_late_reply_is_not_taken_for_another_call_s(
    process: BrokerProcess, broker: DrillBroker
) -> None:
    hasty = DrillBroker(process.socket_path, call_seconds=0.15)
    broker.control("faults", faults={"reply_late": 1.0, "late_ms": 400})
    results = [hasty.place(ticket(number)) for number in range(1, 6)]
    broker.control("faults", faults={})
    results.append(hasty.place(ticket(9)))
    hasty.close()
    tags = {order.ids: order.tag for order in broker.orders()}
    for number, result in zip([1, 2, 3, 4, 5, 9], results, strict=True):
        if result.outcome == Outcome.SENT:
            assert tags[result.ids] == f"T{number:05d}"
    assert any(result.outcome == Outcome.AMBIGUOUS for result in results)
    assert results[-1].outcome == Outcome.SENT


def test_a_refusal_is_definite_and_a_question_that_failed_is_no_empty_answer(
    broker: DrillBroker,
) -> None:
    broker.control("faults", faults={"refused": 1.0, "query_fails": 1.0})
    assert broker.place(ticket(1)).outcome == Outcome.REJECTED
    for question in (broker.orders, broker.positions, broker.account):
        with pytest.raises(PlatformError) as failed:
            question()
        assert failed.value.code == ReasonCode.BROKER_QUERY_FAILED


def test_a_stalled_broker_is_ambiguous_and_comes_back(broker: DrillBroker) -> None:
    hasty = DrillBroker(broker._path, call_seconds=0.1)
    broker.control("faults", faults={"stall": 1.0, "stall_ms": 300})
    first = hasty.place(ticket(1))
    second = hasty.place(ticket(2))
    assert Outcome.AMBIGUOUS in (first.outcome, second.outcome)
    hasty.close()
    broker.control("faults", faults={})
    wait(lambda: len(broker.orders()) >= 1)


def test_a_gateway_that_finds_no_broker_was_refused_for_certain(tmp_path: Path) -> None:
    client = DrillBroker(tmp_path / "none.sock")
    result = client.place(ticket(1))
    assert (result.outcome, result.code) == (Outcome.REJECTED, ReasonCode.BROKER_UNREACHABLE)
    with pytest.raises(PlatformError) as unreachable:
        client.connect(Ear())
    assert unreachable.value.code == ReasonCode.BROKER_UNREACHABLE
    with pytest.raises(PlatformError) as failed:
        client.orders()
    assert failed.value.code == ReasonCode.BROKER_QUERY_FAILED


def test_nonsense_is_refused_and_hurts_nobody(process: BrokerProcess, broker: DrillBroker) -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.connect(str(process.socket_path))
        link.sendall(b'[1]\nnot json\n{"op":"buy"}\n')
        link.settimeout(2.0)
        heard = b""
        while heard.count(b"\n") < 3:
            heard += link.recv(4096)
    assert heard.count(b'"error"') == 3
    assert broker.place(ticket(1)).outcome == Outcome.SENT


def test_a_lost_connection_is_reported_and_made_again(process: BrokerProcess) -> None:
    ear = Ear()
    threads = threading.active_count()
    client = DrillBroker(process.socket_path)
    client.connect(ear)
    client._reports.close()
    wait(lambda: ear.connections == [True, False, True])
    client.place(ticket(1))
    wait(lambda: bool(ear.fills))
    client.close()
    wait(lambda: threading.active_count() <= threads)


def test_everything_crosses_the_socket_as_it_was() -> None:
    book = BrokerBook(1, BrokerFaults(partial=1.0, carries_tags=True))
    result = book.place(ticket(1, 3), 0).result
    reports = book.advance(10_000 * MS)
    assert wire.read_ticket(wire.write(ticket(1, time_in_force=TimeInForce.FOK))) == ticket(
        1, time_in_force=TimeInForce.FOK
    )
    assert wire.read_result(wire.write(result)) == result
    assert [wire.read_report(wire.message(wire.line(wire.write_report(r)))) for r in reports] == (
        reports
    )
    orders = [wire.message(wire.line(wire.write(order))) for order in book.orders()]
    assert [wire.read_order(order) for order in orders] == book.orders()


def test_equal_seeds_give_equal_books() -> None:
    def run(seed: int) -> list[Any]:
        book = BrokerBook(seed, BrokerFaults(
            refused=0.1, request_lost=0.1, request_late=0.1, reply_lost=0.1, event_double=0.3,
            event_late=0.3, event_lost=0.1, deal_first=0.3, partial=0.5, rests=0.2,
        ))  # fmt: skip
        reports: list[Any] = []
        for number in range(1, 60):
            book.place(ticket(number, 3), number * 10 * MS)
            reports += book.advance(number * 10 * MS)
        return [reports, book.orders(), book.positions(), book.calls, book.hits]

    assert run(5) == run(5)
    assert run(5) != run(6)


def test_the_book_s_reports_come_double_late_and_in_the_wrong_order() -> None:
    book = BrokerBook(2, BrokerFaults(event_double=0.5, event_late=0.5, deal_first=0.5, partial=1))
    ear, now = Ear(), [0]
    sim = SimBroker(book, lambda: now[0])
    sim.connect(ear)
    for number in range(1, 40):
        assert sim.place(ticket(number, 4)).outcome == Outcome.SENT
    now[0] = 20_000 * MS
    sim.deliver()
    ids = [fill.fill_id for fill in ear.fills]
    assert len(ids) > len(set(ids)), "some came twice"
    first_fill = {fill.ids: fill.receive_time_ns for fill in reversed(ear.fills)}
    working = {event.ids: event.receive_time_ns for event in reversed(ear.orders)}
    assert any(first_fill[key] < working[key] for key in first_fill), "some before the order"
    total = sum(order.filled_qty for order in sim.orders())
    assert [row.net_qty for row in sim.positions()] == [total]
    unique = {fill.fill_id: fill.qty for fill in ear.fills}
    assert sum(unique.values()) == total, "counted once, they are what the broker holds"


def test_what_is_reported_while_nobody_listens_is_lost_and_still_found() -> None:
    book = BrokerBook(2, BrokerFaults())
    now = [0]
    sim = SimBroker(book, lambda: now[0])
    sim.place(ticket(1))
    now[0] = 1_000 * MS
    assert sim.deliver() > 0
    assert sim.orders()[0].status == OrderStatus.FILLED


def test_a_fault_that_is_no_fault_is_refused() -> None:
    with pytest.raises(PlatformError):
        BrokerFaults.from_dict({"typo": 1.0})
