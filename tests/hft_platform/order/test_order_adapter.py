"""OrderAdapter on a real session: at most one call a request, and a record for every outcome."""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.input_records import (
    SOURCE_OPERATOR,
    BrokerKind,
    CommandKind,
    RouteKind,
    command_record,
    halt_record,
)
from hft_platform.order.broker import (
    BrokerIds,
    CallResult,
    EventKind,
    FillEvent,
    OrderEvent,
    Outcome,
)
from hft_platform.order.call_budget import CallBudget, CallKind
from hft_platform.order.fence import Fences, LatchFence
from hft_platform.order.order_adapter import WAITING_COUNT_MAX
from hft_platform.services import latch
from tests.hft_platform.order.live_world import LOT, MID, SECOND, SESSION, START_NS, TXF, World

DAY_NS = 86_400 * SECOND


def outcome_of(world: World, order_id: int) -> list[tuple[int, int]]:
    return [
        (row["event_kind"], row["reason_code"])
        for row in world.written("Broker")
        if row["order_id"] == order_id
    ]


def test_a_sent_order_is_written_with_the_brokers_names(tmp_path: Path) -> None:
    world = World(tmp_path)
    request = world.place(lots=2)
    (ticket,) = world.broker.placed
    assert (ticket.tag, ticket.symbol, ticket.qty) == (request.tag, "TXFD6", 2 * LOT)
    assert world.order_ids.ids_of(request.order_id) == BrokerIds("B1", "S1", "")
    assert world.order_ids.is_called(request.order_id)
    assert world.session.latency()["call"]["count"] == 1
    world.session.close()
    (route,) = world.written("Route")
    assert (route["route_kind"], route["tag"], route["broker_id"], route["epoch"]) == (
        RouteKind.SENT, request.tag.encode(), b"B1", 1,
    )  # fmt: skip
    assert outcome_of(world, request.order_id) == []


@pytest.mark.parametrize(
    ("answer", "state", "written"),
    [
        (
            CallResult(Outcome.REJECTED, code=ReasonCode.EXCHANGE_BAND_EXCEEDED),
            "rejected",
            [(BrokerKind.REJECTED, ReasonCode.EXCHANGE_BAND_EXCEEDED)],
        ),
        (
            CallResult(Outcome.REJECTED),
            "rejected",
            [(BrokerKind.REJECTED, ReasonCode.BROKER_REJECTED)],
        ),
        (
            CallResult(Outcome.AMBIGUOUS, code=ReasonCode.BROKER_TIMEOUT),
            "unknown",
            [(BrokerKind.UNKNOWN, ReasonCode.BROKER_TIMEOUT)],
        ),
        (
            RuntimeError("a broker that raises"),
            "unknown",
            [(BrokerKind.UNKNOWN, ReasonCode.BROKER_ANSWER_UNREADABLE)],
        ),
        (None, "unknown", [(BrokerKind.UNKNOWN, ReasonCode.BROKER_ANSWER_UNREADABLE)]),
    ],
)
def test_every_outcome_has_its_record(
    tmp_path: Path, answer: Any, state: str, written: list[tuple[int, int]]
) -> None:
    world = World(tmp_path)
    if answer is None:
        world.broker.place = lambda ticket: "something else"  # type: ignore[method-assign,assignment]
    else:
        world.broker.answers.append(answer)
    request = world.place()
    assert world.state(request.order_id) == state
    world.session.close()
    assert outcome_of(world, request.order_id) == written


def test_an_order_is_called_once_in_this_life_and_in_the_next(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.broker.answers.append(CallResult(Outcome.AMBIGUOUS))
    # Both are wanted before the first is called: behind it nothing opens.
    request, waiting = world.want(), world.want(price=MID - 1)
    world.adapter.execute(request)
    again = world.adapter.execute(request)
    assert (again.outcome, again.code) == (Outcome.REJECTED, ReasonCode.DUPLICATE_INTENT)
    world = world.again()
    for one in (request, waiting):
        assert world.order_ids.is_called(one.order_id)
        assert world.adapter.execute(one).code == ReasonCode.DUPLICATE_INTENT
        assert world.state(one.order_id) == "unknown", "its outcome stands"
    assert world.broker.placed == []


def test_reports_that_are_faster_than_the_call_leave_nothing_unknown(tmp_path: Path) -> None:
    world = World(tmp_path)
    request = world.want()
    ids = BrokerIds("B1")
    world.broker.answers.append(CallResult(Outcome.AMBIGUOUS, code=ReasonCode.BROKER_TIMEOUT))
    world.broker.during = lambda: world.event(EventKind.WORKING, ids, tag=request.tag)
    world.adapter.execute(request)
    assert world.state(request.order_id) == "working"
    assert world.order_ids.ids_of(request.order_id) == ids


def test_fills_without_a_tag_that_come_during_the_call_wait_for_its_names(tmp_path: Path) -> None:
    """The broker's deal comes first, with its own names only."""
    world = World(tmp_path)
    request = world.want(lots=2)
    world.broker.during = lambda: world.fill(BrokerIds("B1"), "d1")
    world.adapter.execute(request)
    assert world.position == 1
    world.session.close()
    kinds = [row["route_kind"] for row in world.written("Route")]
    assert kinds == [RouteKind.SENT, RouteKind.FILL_ID]


class _Fake(SimpleNamespace):
    """A request that the engine would never make."""


def fake(request: Any, **changes: Any) -> Any:
    names = (
        "decision_seq", "intent_id", "order_id", "action", "alpha_index", "instrument_id", "side",
        "price", "qty", "time_in_force", "tag", "epoch", "decided_ns", "ttl_ns",
    )  # fmt: skip
    return _Fake(**{name: getattr(request, name) for name in names} | changes)


BAD = [
    ({"instrument_id": 999}, ReasonCode.UNKNOWN_INSTRUMENT),
    ({"price": MID * LOT + 1}, ReasonCode.ORDER_PRICE_OFF_TICK),
    ({"price": 0}, ReasonCode.PRICE_NOT_POSITIVE),
    ({"price": -MID * LOT}, ReasonCode.PRICE_NOT_POSITIVE),
    ({"price": float("nan")}, ReasonCode.ORDER_FIELD_INVALID),
    ({"price": float(MID * LOT)}, ReasonCode.ORDER_FIELD_INVALID),
    ({"price": True}, ReasonCode.ORDER_FIELD_INVALID),
    ({"price": 10**18}, ReasonCode.VALUE_OUT_OF_RANGE),
    ({"price": 22_001 * LOT}, ReasonCode.PRICE_OUTSIDE_DAILY_LIMIT),
    ({"price": 17_999 * LOT}, ReasonCode.PRICE_OUTSIDE_DAILY_LIMIT),
    ({"qty": 0}, ReasonCode.QTY_NOT_POSITIVE),
    ({"qty": -LOT}, ReasonCode.QTY_NOT_POSITIVE),
    ({"qty": LOT // 2}, ReasonCode.QTY_OFF_LOT_GRID),
    ({"qty": 101 * LOT}, ReasonCode.ORDER_QTY_ABOVE_EXCHANGE_CAP),
    ({"side": 0}, ReasonCode.ORDER_FIELD_INVALID),
    ({"side": 2}, ReasonCode.ORDER_FIELD_INVALID),
    ({"time_in_force": 9}, ReasonCode.ORDER_FIELD_INVALID),
    ({"tag": "short"}, ReasonCode.ORDER_FIELD_INVALID),
    ({"tag": "sp ace"}, ReasonCode.ORDER_FIELD_INVALID),
    ({"action": 7}, ReasonCode.ORDER_FIELD_INVALID),
    ({"decided_ns": START_NS - 61 * SECOND}, ReasonCode.INTENT_EXPIRED),
]


@pytest.mark.parametrize(("changes", "code"), BAD)
def test_a_bad_request_is_not_sent_and_says_so(
    tmp_path: Path, changes: dict[str, Any], code: ReasonCode
) -> None:
    capped = dataclasses.replace(TXF, order_qty_max=100 * LOT)
    world = World(
        tmp_path,
        instruments={TXF.instrument_id: capped},
        daily_limits=lambda _: TXF.daily_limits(MID * LOT),
    )
    request = world.want()
    result = world.adapter.execute(fake(request, **changes))
    assert (result.outcome, result.code) == (Outcome.REJECTED, code)
    assert world.broker.placed == []
    assert world.state(request.order_id) == "rejected"
    world.session.close()
    assert outcome_of(world, request.order_id) == [
        (BrokerKind.REJECTED, ReasonCode.REQUEST_NOT_SENT)
    ]


@pytest.mark.parametrize(
    ("now_ns", "code"),
    [
        (SESSION.end_ns, ReasonCode.SESSION_NOT_OPEN),
        (SESSION.start_ns - SECOND, ReasonCode.SESSION_NOT_OPEN),
        (SESSION.end_ns + 10 * DAY_NS, ReasonCode.CONTRACT_EXPIRED),
        (SESSION.start_ns + 11 * DAY_NS + SECOND, ReasonCode.CONTRACT_EXPIRED),
    ],
)
def test_outside_the_session_and_after_the_last_day_nothing_is_sent(
    tmp_path: Path, now_ns: int, code: ReasonCode
) -> None:
    world = World(tmp_path)
    request = world.want()
    world.now_ns = now_ns
    assert world.adapter.execute(fake(request, ttl_ns=0)).code == code
    assert world.broker.placed == []


def test_the_last_day_ends_early(tmp_path: Path) -> None:
    """On 2026-04-15 TXFD6 trades until 13:30; at 13:35 others still do."""
    world = World(tmp_path)
    request = world.want()
    half_past_one = 1_776_231_000 * SECOND
    for now_ns, code in [
        (half_past_one - SECOND, ReasonCode.UNSET),
        (half_past_one + SECOND, ReasonCode.SESSION_NOT_OPEN),
        (half_past_one + 3_600 * SECOND, ReasonCode.SESSION_NOT_OPEN),
        (half_past_one + 2 * 3_600 * SECOND, ReasonCode.CONTRACT_EXPIRED),
    ]:
        world.now_ns = now_ns
        one = fake(request, ttl_ns=0, order_id=request.order_id + now_ns)
        assert world.adapter.execute(one).code == code, now_ns


def test_a_halt_keeps_orders_in_and_lets_cancels_out(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    world = World(tmp_path / "session", fence=Fences([LatchFence(workspace)]))
    first = world.place()
    world.event(EventKind.WORKING, BrokerIds("B1"))
    second = world.want(price=MID - 1)
    cancel = world.want_cancel(first.order_id)
    latch.halt(workspace, who="test", why="a test")
    assert world.adapter.execute(second).code == ReasonCode.KILL_SWITCH_ON
    assert world.adapter.execute(cancel).outcome is Outcome.SENT
    assert world.broker.canceled == [BrokerIds("B1", "S1", "")]
    assert len(world.broker.placed) == 1


def test_who_lost_the_lease_calls_nothing_and_writes_nothing(tmp_path: Path) -> None:
    class Lost:
        is_lost = False

        def check(self) -> None:
            if self.is_lost:
                raise PlatformError(ReasonCode.GATEWAY_FENCED, "another leads")

    fence = Lost()
    world = World(tmp_path, fence=fence)
    first = world.place()
    world.event(EventKind.WORKING, BrokerIds("B1"))
    second, cancel = world.want(price=MID - 1), world.want_cancel(first.order_id)
    before = world.session.state()["last_seq"]
    fence.is_lost = True
    for request in (second, cancel):
        assert world.adapter.execute(request).code == ReasonCode.GATEWAY_FENCED
    assert world.session.state()["last_seq"] == before
    assert (len(world.broker.placed), world.broker.canceled) == (1, [])


def test_openings_stop_at_the_soft_limit_exits_and_cancels_go_on(tmp_path: Path) -> None:
    world = World(tmp_path, budget=CallBudget(soft_max=2, hard_max=4))
    first = world.place(lots=1)
    world.fill(BrokerIds("B1"), "f1")
    assert world.position == 1
    resting = world.place(price=MID - 5)
    world.event(EventKind.WORKING, BrokerIds("B2"))
    opening = world.want(price=MID - 2)
    assert world.adapter.execute(opening).code == ReasonCode.BROKER_RATE_SPENT
    bigger = world.want(side=-1, lots=2, price=MID + 1)
    assert world.adapter.execute(bigger).code == ReasonCode.BROKER_RATE_SPENT, "no exit: too large"
    leaving = world.want(side=-1, lots=1, price=MID + 1)
    assert world.adapter.execute(leaving).outcome is Outcome.SENT
    assert world.adapter.execute(world.want_cancel(resting.order_id)).outcome is Outcome.SENT
    assert not world.budget.take(CallKind.CANCEL, world.now_ns)
    assert world.state(first.order_id) == "filled"


def test_an_open_breaker_keeps_openings_in_and_lets_exits_out(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.place(lots=1)
    world.fill(BrokerIds("B1"), "f1")
    world.broker.answers += [CallResult(Outcome.REJECTED, code=ReasonCode.BROKER_UNREACHABLE)] * 3
    for step in range(3):
        world.place(price=MID - 1 - step)
    opening = world.want(price=MID - 9)
    assert world.adapter.execute(opening).code == ReasonCode.BROKER_BREAKER_OPEN
    leaving = world.want(side=-1, lots=1, price=MID + 1)
    assert world.adapter.execute(leaving).outcome is Outcome.SENT
    assert not world.breaker.is_open, "its success closes it"


def test_a_cancel_waits_for_the_brokers_names(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.broker.answers.append(CallResult(Outcome.SENT))
    request = world.place()
    # Known by its tag to work, and the broker has named nothing yet.
    world.event(EventKind.WORKING, tag=request.tag)
    cancel = world.want_cancel(request.order_id)
    assert world.adapter.execute(cancel).code == ReasonCode.ORDER_NOT_FOUND
    world.adapter.step()
    assert (world.broker.canceled, world.adapter.waiting_count) == ([], 1)
    world.event(EventKind.WORKING, BrokerIds("B9", "", "N9"), tag=request.tag)
    world.adapter.step()
    assert world.broker.canceled == [BrokerIds("B9", "", "N9")]
    assert world.adapter.waiting_count == 0
    assert world.state(request.order_id) == "pending_cancel"


def test_a_cancel_that_waited_too_long_is_given_up_and_the_order_goes_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.broker.answers.append(CallResult(Outcome.SENT))
    request = world.place()
    world.event(EventKind.WORKING, tag=request.tag)
    world.adapter.execute(world.want_cancel(request.order_id))
    world.now_ns += 5 * SECOND
    world.adapter.step()
    assert (world.state(request.order_id), world.broker.canceled) == ("working", [])
    world.session.close()
    assert outcome_of(world, request.order_id)[-1] == (
        BrokerKind.CANCEL_REJECTED, ReasonCode.REQUEST_NOT_SENT,
    )  # fmt: skip


def test_a_cancel_of_an_order_that_is_done_meanwhile_is_no_call(tmp_path: Path) -> None:
    world = World(tmp_path)
    request = world.place()
    world.event(EventKind.WORKING, BrokerIds("B1"))
    cancel = world.want_cancel(request.order_id)
    world.fill(BrokerIds("B1"), "f1")
    world.adapter.execute(cancel)
    assert (world.broker.canceled, world.state(request.order_id)) == ([], "filled")


def test_a_cancel_waits_for_the_end_of_a_phase_without_cancels(tmp_path: Path) -> None:
    world = World(tmp_path)
    request = world.place()
    world.event(EventKind.WORKING, BrokerIds("B1"))
    cancel = world.want_cancel(request.order_id)
    world.now_ns = SESSION.start_ns - 2 * SECOND
    assert world.adapter.execute(cancel).code == ReasonCode.CANCEL_NOT_ALLOWED
    world.now_ns = SESSION.start_ns
    world.adapter.step()
    assert world.broker.canceled == [BrokerIds("B1", "S1", "")]


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (CallResult(Outcome.SENT), "pending_cancel"),
        (CallResult(Outcome.REJECTED, code=ReasonCode.BROKER_REJECTED), "working"),
        (CallResult(Outcome.AMBIGUOUS, code=ReasonCode.BROKER_TIMEOUT), "unknown"),
    ],
)
def test_a_cancels_outcome_is_written(tmp_path: Path, answer: CallResult, state: str) -> None:
    world = World(tmp_path)
    request = world.place()
    world.event(EventKind.WORKING, BrokerIds("B1"))
    world.broker.answers.append(answer)
    world.adapter.execute(world.want_cancel(request.order_id))
    assert world.state(request.order_id) == state


def test_the_buffer_of_waiting_cancels_is_bounded(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.broker.answers.append(CallResult(Outcome.SENT))
    request = world.place()
    world.event(EventKind.WORKING, tag=request.tag)
    cancel = world.want_cancel(request.order_id)
    codes = [world.adapter.execute(cancel).code for _ in range(WAITING_COUNT_MAX + 1)]
    assert codes[-1] == ReasonCode.CAPACITY_REACHED
    assert world.adapter.waiting_count == WAITING_COUNT_MAX


def broken(world: World, name: str, where: Callable[..., Any]) -> None:
    setattr(world.adapter, name, where)


def test_an_error_of_our_own_halts_with_a_code_and_ends_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    request = world.want()

    def bug(*_: Any) -> None:
        raise ZeroDivisionError("a bug behind the call")

    broken(world, "_write_placed", bug)
    result = world.adapter.execute(request)
    assert (result.outcome, result.code) == (Outcome.AMBIGUOUS, ReasonCode.INVARIANT_BROKEN)
    assert world.state(request.order_id) == "unknown", "it was called"
    assert world.session.state()["halted_by"] == ReasonCode.INVARIANT_BROKEN
    assert world.adapter.counters()["own_errors"] == 1


def test_an_error_before_the_call_is_no_failed_log(tmp_path: Path) -> None:
    """A calendar that ends raised what a log raises, and the dispatcher took it for its end."""

    def no_limits(_: int) -> None:
        raise PlatformError(ReasonCode.VALUE_OUT_OF_RANGE, "a reference that has no limits")

    world = World(tmp_path, daily_limits=no_limits)
    assert world.adapter.execute(world.want()).code == ReasonCode.INVARIANT_BROKEN
    assert world.session.state()["halted_by"] == ReasonCode.INVARIANT_BROKEN
    assert world.broker.placed == []


def test_a_dispatcher_that_cannot_go_on_says_so(tmp_path: Path) -> None:
    world = World(tmp_path)

    def bug(*_: Any) -> None:
        raise ZeroDivisionError("a bug in the handler of bugs")

    broken(world, "_write_placed", bug)
    broken(world, "_break", bug)
    world._intent(0, 1, 1, 1, MID, 1, 0)
    with pytest.raises(PlatformError) as ended:
        world.adapter.run(threading.Event())
    assert ended.value.code == ReasonCode.INVARIANT_BROKEN
    assert world.adapter.error is ended.value


def test_an_engine_that_halted_after_the_decision_keeps_the_order_in(tmp_path: Path) -> None:
    world = World(tmp_path)
    request = world.want()
    world.session.push(halt_record(ReasonCode.DAILY_LOSS_REACHED, world.now_ns))
    assert world.adapter.execute(request).code == ReasonCode.KILL_SWITCH_ON
    assert world.broker.placed == []


def test_a_halt_of_one_alpha_keeps_its_order_in_and_lets_the_other_s_out(tmp_path: Path) -> None:
    world = World(tmp_path)
    requests = [world.want(price=MID - alpha, alpha=alpha) for alpha in (0, 1)]
    world.session.push(
        command_record(CommandKind.HALT, world.now_ns, source_id=SOURCE_OPERATOR, alpha_index=0)
    )
    assert [world.session.halted_by(), world.session.halted_by(1)] == [0, 0]
    assert world.session.halted_by(0)
    assert world.adapter.execute(requests[0]).code == ReasonCode.KILL_SWITCH_ON
    assert world.adapter.execute(requests[1]).outcome is Outcome.SENT
    assert [ticket.order_id for ticket in world.broker.placed] == [requests[1].order_id]


def test_a_halt_keeps_openings_in_and_lets_out_what_closes_the_position(tmp_path: Path) -> None:
    """Kept in, the exit would be decided again and again, and the position would stay open."""
    workspace = tmp_path / "workspace"
    world = World(tmp_path / "session", fence=Fences([LatchFence(workspace)]))
    first = world.place()
    world.fill(BrokerIds("B1"), "f1")
    closing = world.want(side=-first.side, price=MID)
    opening = world.want(side=first.side, price=MID - 1)
    latch.halt(workspace, who="test", why="a test")
    world.session.push(halt_record(ReasonCode.DAILY_LOSS_REACHED, world.now_ns))
    assert world.adapter.execute(opening).code == ReasonCode.KILL_SWITCH_ON
    assert world.adapter.execute(closing).outcome is Outcome.SENT
    assert [ticket.side for ticket in world.broker.placed] == [first.side, -first.side]


def test_the_dispatcher_carries_requests_and_ends_when_its_log_is_gone(tmp_path: Path) -> None:
    world = World(tmp_path)
    stop = threading.Event()
    raised: list[PlatformError] = []

    def run() -> None:
        try:
            world.adapter.run(stop)
        except PlatformError as error:
            raised.append(error)

    sent = threading.Event()
    world.broker.during = sent.set
    thread = threading.Thread(target=run)
    thread.start()
    try:
        world._intent(0, 1, 1, 1, MID, 1, 0)
        assert sent.wait(10), "the request was not carried out in 10 s"
        world.broker.during = world.session.close
        world._intent(0, 1, 1, 1, MID - 1, 2, 0)
        thread.join(60)
        assert not thread.is_alive()
        assert world.adapter.error is not None
        assert raised == [world.adapter.error]
    finally:
        stop.set()
        thread.join(60)


#: `OWN_ORDER_COUNT_MAX` of the engine: an alpha with so many open orders is refused another.
OWN_ORDERS_MAX = 8


def test_callbacks_from_another_thread_and_the_dispatcher_agree(tmp_path: Path) -> None:
    """Reports without a tag, doubled, most of them before the call that made them has returned."""
    world = World(tmp_path)
    orders = 150
    reports: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def report() -> None:
        while (number := reports.get()) is not None:
            ids = BrokerIds(f"B{number}")
            for event in (
                FillEvent(ids, "1", TXF.symbol, 1, MID * LOT, LOT, 0, 0),
                OrderEvent(EventKind.WORKING, ids, 0, 0),
                FillEvent(ids, "1", TXF.symbol, 1, MID * LOT, LOT, 0, 0),
            ):
                if isinstance(event, OrderEvent):
                    world.gateway.on_order(event)
                else:
                    world.gateway.on_fill(event)

    stop = threading.Event()
    threads = [
        threading.Thread(target=world.adapter.run, args=(stop,)),
        threading.Thread(target=report),
    ]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, orders + 1):
            world.broker.during = lambda number=number: reports.put(number)
            world._intent(0, 1, 1, 1, MID - number, number, 0)
            deadline = time.monotonic() + 60
            # Room for the next one of this alpha, however slow the other thread is.
            while len(world.broker.placed) < number or world.position <= number - OWN_ORDERS_MAX:
                assert time.monotonic() < deadline, f"{number} {world.decision_of_last_intent()}"
                time.sleep(0)
        deadline = time.monotonic() + 60
        while world.position < orders:
            assert time.monotonic() < deadline, f"{world.position} of {orders} lots in 60 s"
            time.sleep(0.001)
    finally:
        stop.set()
        reports.put(None)
        for thread in threads:
            thread.join(60)
    assert (world.position, world.session.orders()) == (orders, [])
    assert world.gateway.orphan_count() == 0
    assert world.gateway.counters()["fills"] == 2 * orders
