"""The paper exchange as a broker: the same exchange as in research, called from outside."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.config.canonical import canonical_json
from hft_platform.drills.market import market_session, market_tape
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.execution.faults import load_fault_profile
from hft_platform.market.latency import load_latency_profile
from hft_platform.order.broker import (
    Broker,
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
from hft_platform.order.paper_broker import PaperBroker

SCALE = records.SCALE
INSTRUMENT, SESSION = market_session()
LATENCY, _ = load_latency_profile("shioaji_live_2026_04")
MS = 1_000_000


class Listener:
    """Keeps everything, with the time at which it was told."""

    def __init__(self) -> None:
        self.market: list[bytes] = []
        self.orders: list[OrderEvent] = []
        self.fills: list[FillEvent] = []
        self.connections: list[bool] = []

    def on_market(self, tape: bytes) -> None:
        self.market.append(tape)

    def on_order(self, event: OrderEvent) -> None:
        self.orders.append(event)

    def on_fill(self, event: FillEvent) -> None:
        self.fills.append(event)

    def on_connection(self, is_up: bool, message: str) -> None:
        self.connections.append(is_up)


def paper(faults: dict[str, Any] | None = None, **options: Any) -> tuple[PaperBroker, Listener]:
    broker = PaperBroker(
        [INSTRUMENT],
        latency=LATENCY,
        queue_model="power_prob3",
        trading_day=SESSION.trading_day,
        faults=faults,
        **options,
    )
    listener = Listener()
    broker.connect(listener)
    broker.subscribe([INSTRUMENT.symbol])
    return broker, listener


def ticket(order_id: int, side: int, price: int, qty: int = 1, **fields: Any) -> OrderTicket:
    return OrderTicket(
        order_id=order_id, tag=f"{order_id:06d}", symbol=INSTRUMENT.symbol, side=side,
        price=price * SCALE, qty=qty * SCALE, **fields,
    )  # fmt: skip


def faults(**changes: Any) -> dict[str, Any]:
    drill = load_fault_profile("drill").core(SESSION.end_ns)
    off = {name: None for name in drill if name not in ("profile_id", "seed", "timeout")}
    return drill | off | changes


def drawn_script(tape: bytes, count: int, seed: int) -> np.ndarray[Any, np.dtype[np.void]]:
    """Orders and some cancels at drawn market records, as decisions of the core's script."""
    random = np.random.default_rng(seed)
    books = records.split(tape)["Book"]
    rows = records.empty("Decision", 2 * count)
    at = np.sort(random.choice(np.arange(1, books.size - 400), count, replace=False))
    made = 0
    for order_id, place in enumerate(at, start=1):
        side = int(random.choice((-1, 1)))
        best = books["ask_price" if side > 0 else "bid_price"][place, 0]
        offset = int(random.integers(-3, 2))
        for action, row in ((1, place), (2, place + int(random.integers(1, 40)))):
            if action == 2 and random.random() < 0.5:
                continue
            rows[made]["instrument_id"] = INSTRUMENT.instrument_id
            # Not at a book's own time, so that both sides take the next record.
            rows[made]["sequence_time_ns"] = books["receive_time_ns"][row]
            rows[made]["order_id"], rows[made]["action"] = order_id, action
            rows[made]["verdict"], rows[made]["side"] = 1, side
            rows[made]["price"] = best + side * offset * SCALE
            rows[made]["qty"] = int(random.integers(1, 4)) * SCALE
            rows[made]["time_in_force"] = int(random.choice((1, 1, 2, 3)))
            made += 1
    rows = rows[:made]
    return rows[np.argsort(rows["sequence_time_ns"], kind="stable")]


def play(broker: PaperBroker, script: Any) -> dict[int, BrokerIds]:
    """Send the script's requests at the records at which the core's script makes them."""
    ids: dict[int, BrokerIds] = {}
    lives = {1: TimeInForce.ROD, 2: TimeInForce.IOC, 3: TimeInForce.FOK}
    waiting = list(script)
    while broker.next_event():
        while waiting and waiting[0]["sequence_time_ns"] <= broker.now_ns:
            row = waiting.pop(0)
            order_id = int(row["order_id"])
            if row["action"] == 1:
                order = ticket(order_id, int(row["side"]), 0)
                result = broker.place(
                    OrderTicket(
                        order.order_id, order.tag, order.symbol, order.side, int(row["price"]),
                        int(row["qty"]), lives[int(row["time_in_force"])],
                    )
                )  # fmt: skip
                ids[order_id] = result.ids
            elif ids.get(order_id, BrokerIds()).seqno:
                broker.cancel(ids[order_id], INSTRUMENT.symbol)
    assert not waiting
    return ids


def test_it_is_the_exchange_of_the_backtest_record_by_record() -> None:
    tape = market_tape(5, book_count=3_000)
    script = drawn_script(tape, 120, seed=11)
    options = canonical_json({"queue_model": "power_prob3"}).decode()
    latency = canonical_json(LATENCY).decode()
    backtest = _core.run_script(
        tape, script.tobytes(),
        [(INSTRUMENT.instrument_id, INSTRUMENT.tick_size, INSTRUMENT.lot_size)],
        latency, options,
    )  # fmt: skip
    broker, listener = paper()
    broker.feed(tape)
    play(broker, script)

    told = records.split(backtest["broker"])["Broker"]
    fills = told[told["event_kind"] == 3]
    assert fills.size > 30
    assert [(f.price, f.qty, f.exchange_time_ns, f.receive_time_ns) for f in listener.fills] == [
        tuple(int(row[name]) for name in ("price", "qty", "exchange_time_ns", "receive_time_ns"))
        for row in fills
    ]
    others = told[told["event_kind"] != 3]
    kinds = {1: "working", 2: "rejected", 4: "canceled", 5: "cancel_rejected", 6: "expired"}
    heard = [(e.kind, e.tag, e.exchange_time_ns, e.receive_time_ns) for e in listener.orders]
    assert heard == [
        (
            kinds[int(row["event_kind"])], f"{int(row['order_id']):06d}",
            int(row["exchange_time_ns"]), int(row["receive_time_ns"]),
        )
        for row in others
    ]  # fmt: skip
    assert b"".join(listener.market) != tape, "stamped with the sequence in which they came"
    assert len(listener.market) == sum(len(rows) for rows in records.split(tape).values())
    signed = sum(fill.side * fill.qty for fill in listener.fills)
    assert broker.truth() == ({INSTRUMENT.symbol: signed} if signed else {})


def test_what_the_broker_says_when_asked_is_the_truth_whatever_was_lost() -> None:
    tape = market_tape(6, book_count=3_000)
    script = drawn_script(tape, 200, seed=12)
    profile = load_fault_profile("drill").core(SESSION.end_ns)
    profile |= {"lost_request": {"rate_ppm": 100_000}, "lost_reply": {"rate_ppm": 100_000}}
    broker, listener = paper(profile)
    broker.feed(tape)
    play(broker, script)

    asked = failed = 0
    orders = None
    while orders is None:
        asked += 1
        try:
            orders = broker.orders()
        except PlatformError as error:
            assert error.code == ReasonCode.BROKER_QUERY_FAILED
            failed += 1
    truth = {(order.ids.ordno, fill.fill_id): fill for order in orders for fill in order.fills}
    assert sum(order.side * order.filled_qty for order in orders) == sum(broker.truth().values())
    told = {(fill.ids.ordno, fill.fill_id) for fill in listener.fills}
    assert told < set(truth), "some fills were lost and are found by asking"
    assert len(listener.fills) > len(told), "some were told twice, under one id"
    for fill in listener.fills:
        same = truth[fill.ids.ordno, fill.fill_id]
        assert (fill.price, fill.qty, fill.side) == (same.price, same.qty, same.side)
    for order in orders:
        assert order.filled_qty == sum(fill.qty for fill in order.fills) <= order.qty
        assert (order.status is OrderStatus.FILLED) == (order.filled_qty == order.qty)
    assert {order.status for order in orders} <= {
        OrderStatus.FILLED, OrderStatus.CANCELED, OrderStatus.EXPIRED, OrderStatus.REJECTED,
    }  # fmt: skip
    counts = broker.finish()["faults"]
    assert counts["lost_requests"] > 0
    assert counts["lost_replies"] > 0
    assert counts["timeouts"] == counts["resolved"] == 0, "nothing resolves itself"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_same_seed_tells_the_same_day(seed: int) -> None:
    tape = market_tape(seed, book_count=800)
    days = []
    for _ in range(2):
        broker, listener = paper(load_fault_profile("drill").core(SESSION.end_ns))
        broker.feed(tape)
        play(broker, drawn_script(tape, 60, seed=seed))
        days.append((listener.orders, listener.fills, listener.market))
    assert days[0] == days[1]


def test_a_lost_place_is_ambiguous_and_is_found_by_its_tag_or_not_at_all() -> None:
    tape = market_tape(5, book_count=400)
    for lost, is_found in (("lost_request", False), ("lost_reply", True)):
        broker, listener = paper(faults(**{lost: {"rate_ppm": 1_000_000}}))
        broker.feed(tape)
        broker.next_event()
        outcomes = [broker.place(ticket(number, 1, 19_000)) for number in range(1, 21)]
        ambiguous = [result for result in outcomes if result.outcome is Outcome.AMBIGUOUS]
        assert len(ambiguous) == 20 if lost == "lost_request" else 4 <= len(ambiguous) <= 16
        assert all(result.ids == BrokerIds() for result in ambiguous)
        assert all(result.code == ReasonCode.BROKER_TIMEOUT for result in ambiguous)
        broker.step(broker.now_ns + 20_000 * MS)
        assert listener.orders == []
        with pytest.raises(PlatformError, match="was not answered"):
            broker.orders()
        assert bool(broker._core.truth()) is False
        while broker.next_event():
            pass
        canceled = [event for event in listener.orders if event.kind is EventKind.CANCELED]
        # What works is canceled when the market ends, and that is no reply: it is told.
        assert {event.tag for event in canceled} == (
            {f"{number:06d}" for number in range(1, 21)} if is_found else set()
        )


def test_bad_tickets_and_unknown_names_are_refused_by_field() -> None:
    broker, _ = paper()
    refused = broker.place(ticket(1, 1, 20_000))
    assert (refused.outcome, refused.code) == (Outcome.REJECTED, ReasonCode.SESSION_NOT_OPEN)
    broker.feed(market_tape(5, book_count=50))
    broker.next_event()
    for bad, field in (
        (ticket(1, 0, 20_000), "side"),
        (ticket(1, 1, 0), "price"),
        (ticket(1, 1, 20_000, 0), "qty"),
        (ticket(1, 1, 20_000, price_type=PriceType.MKT), "price_type"),
        (OrderTicket(1, "000001", INSTRUMENT.symbol, 1, 20_000 * SCALE, SCALE // 2), "qty"),
        (OrderTicket(1, "000001", "TXFZ9", 1, 20_000 * SCALE, SCALE), "contract 'TXFZ9'"),
    ):
        result = broker.place(bad)
        assert result.outcome is Outcome.REJECTED
        assert field in result.message
    assert broker.orders() == []
    gone = broker.cancel(BrokerIds(seqno="000077"), INSTRUMENT.symbol)
    assert gone.code == ReasonCode.ORDER_NOT_FOUND
    amended = broker.amend(BrokerIds(), INSTRUMENT.symbol, price=1, qty=None)
    assert amended.outcome is Outcome.REJECTED
    with pytest.raises(PlatformError) as error:
        broker.subscribe(["TXFZ9"])
    assert error.value.code == ReasonCode.CONTRACT_UNKNOWN
    off_grid = OrderTicket(2, "000002", INSTRUMENT.symbol, 1, 20_000 * SCALE + 1, SCALE)
    assert broker.place(off_grid).outcome is Outcome.SENT, "the exchange itself refuses it, later"
    while broker.next_event():
        pass
    [order] = broker.orders()
    assert (order.status, order.code) == (OrderStatus.REJECTED, ReasonCode.ORDER_PRICE_OFF_TICK)


def test_an_order_that_is_sent_twice_fills_twice() -> None:
    broker, listener = paper()
    broker.feed(market_tape(5, book_count=100))
    broker.next_event()
    assert [broker.place(ticket(9, 1, 21_000)).outcome for _ in range(2)] == [Outcome.SENT] * 2
    while broker.next_event():
        pass
    assert [fill.tag for fill in listener.fills] == ["000009"] * 2
    assert len({fill.ids.seqno for fill in listener.fills}) == 2
    assert broker.truth() == {INSTRUMENT.symbol: 2 * SCALE}


def test_a_paced_market_comes_in_pieces_and_a_call_may_come_from_another_thread() -> None:
    tape = market_tape(5, book_count=100)
    size = records.DTYPES["Book"].itemsize
    first = bytes(tape[: tape.index(b"", size)]) or tape[:size]
    broker, listener = paper()
    broker.feed(first[:size], more=True)
    start_ns = int(np.frombuffer(first[:size], records.DTYPES["Book"])[0]["receive_time_ns"])
    broker.step(start_ns + 50 * MS)
    results: list[Any] = []
    caller = threading.Thread(target=lambda: results.append(broker.place(ticket(1, 1, 21_000))))
    caller.start()
    caller.join()
    assert results[0].outcome is Outcome.SENT
    broker.feed(tape[size:])
    now_ns = start_ns
    while not broker.is_done:
        now_ns += 200 * MS
        broker.step(now_ns)
    [fill] = listener.fills
    assert fill.exchange_time_ns >= start_ns + 50 * MS + 200 * MS
    assert broker.truth() == {INSTRUMENT.symbol: SCALE}


def test_it_says_nothing_of_what_was_not_subscribed_and_nothing_after_its_close() -> None:
    broker, listener = paper()
    broker._subscribed.clear()
    broker.feed(market_tape(5, book_count=10))
    while broker.next_event():
        pass
    assert listener.market == []
    assert listener.connections == [True]
    account = broker.account()
    assert (account.equity, account.free_margin) == (None, None)
    broker.close()
    broker.close()


def test_it_is_a_broker() -> None:
    broker, _ = paper()
    as_protocol: Broker = broker
    for name in vars(Broker):
        if not name.startswith("_"):
            assert hasattr(as_protocol, name), name
