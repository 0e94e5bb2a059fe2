"""Reconciliation of the real session: LiveSession, OrderAdapter, ExecutionGateway, OrderIds."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.config.settings import load_settings
from hft_platform.errors import ReasonCode
from hft_platform.execution.execution_gateway import ExecutionGateway
from hft_platform.execution.order_ids import OrderIds
from hft_platform.execution.reconciliation import ReconciliationService
from hft_platform.execution.reconciliation_report import FILE_NAME, ReconciliationReport
from hft_platform.market.instruments import load_instruments
from hft_platform.order.broker import (
    CallResult,
    EventKind,
    OrderEvent,
    OrderStatus,
    OrderTicket,
    Outcome,
)
from hft_platform.order.call_breaker import CallBreaker
from hft_platform.order.call_budget import CallBudget
from hft_platform.order.order_adapter import OrderAdapter
from hft_platform.services import operator_requests
from hft_platform.services.operator_requests import RequestKind, put_into
from tests.hft_platform.execution.reconciliation_model import Clock, Gate, ScriptedBroker, settings
from tests.rust_core import engine_tapes
from tests.rust_core.market_days import DAY_OPEN_NS

CASES = int(os.environ.get("HFT_FUZZ_CASES", "8"))
SECOND = 1_000_000_000
LOT = records.SCALE
TXF = load_instruments().by_symbol("TXFD6")
PRICE = 35_000 * LOT
OPEN = {"pending_new", "working", "pending_cancel", "unknown"}


def engine_config() -> dict[str, Any]:
    """One alpha whose intents come from outside, and the packaged thresholds for drift."""
    content = engine_tapes.config("0.0 * microprice_dev", {"kind": "remote", "slippage_ticks": 1})
    alpha = content["alphas"][0]
    del alpha["expression"]
    alpha["parameters"] = {}
    alpha["instrument_id"] = content["instruments"][0]["instrument_id"] = TXF.instrument_id
    alpha["limits"] |= {"order_qty_max": 50 * LOT, "position_qty_max": 500 * LOT}
    alpha["limits"]["order_rate_max"] = 1_000
    day = {"start_ns": DAY_OPEN_NS, "end_ns": DAY_OPEN_NS + 18_000 * SECOND, "phase": "open"}
    content["session"]["phases"] = [day]
    content["account_limits"] |= {
        "reject_rate_max": 1_000, "unknown_rate_max": 1_000, "repeated_order_max": 1_000,
    }  # fmt: skip
    guard = load_settings(environment={}).storm_guard()
    content["storm_guard"] = engine_tapes.CALM | {"drift_reports": guard["drift_reports"]}
    return content


class LiveBroker(ScriptedBroker):
    """The scripted broker behind the real adapter: calls are cut and callbacks are lost at will."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.listener: Any = None
        self.how = "told"

    def place(self, ticket: OrderTicket) -> CallResult:
        how = self.how
        if how in ("told", "silent", "cut"):
            self.arrive(ticket)
        elif how.startswith("late:"):
            self.late.append((self._clock() + int(how[5:]) * SECOND, ticket))
        if how == "told":
            self.tell(ticket.tag, EventKind.WORKING)
        if how in ("told", "silent"):
            return CallResult(Outcome.SENT, self.book[ticket.tag].ids)
        return CallResult(Outcome.AMBIGUOUS, code=ReasonCode.BROKER_TIMEOUT)

    def tell(self, tag: str, kind: EventKind) -> None:
        """A callback about an order; futures do not carry the tag."""
        row = self.book[tag]
        now_ns = self._clock()
        event = OrderEvent(
            kind, row.ids, now_ns, now_ns, symbol=row.symbol, side=row.side, price=row.price,
            qty=row.qty,
        )  # fmt: skip
        self.listener.on_order(event)


class LiveWorld:
    """The order plane of one process, and what is left of it behind a kill."""

    def __init__(
        self, folder: Path, service_type: type[ReconciliationService] = ReconciliationService
    ) -> None:
        self.service_type = service_type
        self.clock = Clock()
        self.clock.now_ns = DAY_OPEN_NS + 600 * SECOND
        self.broker = LiveBroker(self.clock)
        self.gate, self.folder, self.epoch = Gate(), folder, 0
        self.external_id = 0
        self.tickets: list[int] = []
        self._open()

    def _open(self) -> None:
        self.epoch += 1
        options = {
            "wal_id": 5, "epoch": self.epoch, "process_id": 1, "opened_ns": self.clock.now_ns,
            "durable": "group", "segment_bytes": 1 << 20,
        }  # fmt: skip
        config = json.dumps(engine_config())
        self.session = _core.LiveSession(config, str(self.folder), json.dumps(options))
        self.names = OrderIds.from_session(self.session)
        instruments = {TXF.instrument_id: TXF}
        budget = CallBudget(soft_max=180, hard_max=240)
        self.gateway = ExecutionGateway(self.session, self.names, instruments, self.clock)
        self.broker.listener = self.gateway
        self.adapter = OrderAdapter(
            self.session, self.broker, instruments=instruments, order_ids=self.names,
            budget=budget, breaker=CallBreaker(failures_max=10**6, open_ns=SECOND),
            fence=self.gate, clock_ns=self.clock,
        )  # fmt: skip
        self.service = self.service_type(
            self.session, self.broker, self.names, self.gateway, settings=settings(),
            instruments=instruments, budget=budget, fence=self.gate, clock_ns=self.clock,
            folder=self.folder,
        )  # fmt: skip

    def crash(self) -> None:
        """kill -9; the next process has the folder."""
        self.session.close()
        self._open()

    def ready(self, within_s: int = 90) -> bool:
        """Start, and lift the reduce-only that a restart with unknown orders leaves."""
        for _ in range(within_s):
            if self.service.startup().is_ready:
                self.resume()
                return True
            self.tick()
        return False

    def resume(self) -> None:
        """The two steps of an operator."""
        armed = self.command(2, 0)
        self.command(3, armed)

    def command(self, kind: int, argument: int) -> int:
        """A command of the whole account."""
        row = records.empty("Command", 1)
        row["command_kind"], row["alpha_index"], row["argument"] = kind, 0xFFFF_FFFF, argument
        row["receive_time_ns"] = self.clock.now_ns
        return int(self.session.push(row.tobytes()))

    def tick(self, seconds: float = 1.0) -> int:
        """Time passes, the market quotes."""
        self.clock.now_ns += round(seconds * SECOND)
        row = records.empty("Book", 1)
        row["instrument_id"] = TXF.instrument_id
        row["receive_time_ns"] = row["exchange_time_ns"] = self.clock.now_ns
        levels = np.arange(5)
        row["bid_price"], row["ask_price"] = PRICE - levels * LOT, PRICE + (levels + 1) * LOT
        row["bid_qty"] = row["ask_qty"] = 9 * LOT
        self.cause_seq, self.cause_ns = self.session.push(row.tobytes()), self.clock.now_ns
        return self.cause_seq

    def run(self, seconds: float) -> None:
        """Step everything."""
        for _ in range(round(seconds)):
            self.tick()
            self.dispatch()
            self.service.step()
            operator_requests.obey(self.folder, put_into(self.session, self.clock))

    def dispatch(self) -> list[Any]:
        """Carry out what is decided."""
        done = []
        while (request := self.session.next_request(0)) is not None:
            self.adapter.execute(request)
            done.append(request)
        self.adapter.step()
        return done

    def place(self, how: str = "told", *, side: int = 1, qty: int = 2 * LOT) -> int:
        """An intent, decided and carried out."""
        self.tick(0.001)
        self.broker.how = how
        self.external_id += 1
        row = self._intent()
        row["action"], row["external_id"], row["side"], row["qty"] = 1, self.external_id, side, qty
        row["price"] = PRICE if side > 0 else PRICE + LOT
        self.session.push(row.tobytes())
        (request,) = (row for row in self.dispatch() if row.action == 1)
        self.tickets.append(request.order_id)
        return int(request.order_id)

    def cancel(self, order_id: int) -> None:
        """An intent to cancel; the call is refused by nobody and answered by nobody."""
        self.tick(0.001)
        row = self._intent()
        row["action"], row["order_id"], row["intent_reason"] = 2, order_id, 4
        self.session.push(row.tobytes())

    def _intent(self) -> Any:
        row = records.empty("Intent", 1)
        row["instrument_id"], row["intent_reason"], row["time_in_force"] = TXF.instrument_id, 1, 1
        row["cause_seq"], row["cause_time_ns"], row["ttl_ns"] = (
            self.cause_seq,
            self.cause_ns,
            SECOND,
        )
        row["receive_time_ns"] = self.clock.now_ns
        return row

    def tag(self, order_id: int) -> str:
        """Its name at the broker."""
        return self.names.tag_of(order_id)

    def fill(self, order_id: int, qty: int = LOT, *, is_told: bool = True) -> None:
        """An execution."""
        event = self.broker.fill(self.tag(order_id), qty)
        if is_told:
            self.gateway.on_fill(event)

    def state(self, order_id: int) -> str:
        """Where the engine holds an order."""
        row = self.session.order(order_id)
        assert row is not None
        return str(row["state"])

    @property
    def position(self) -> int:
        """As the engine counts it."""
        return sum(int(row["position_qty"]) for row in self.session.positions())

    @property
    def policy(self) -> str:
        """Where the engine's policy stands."""
        return str(self.session.state()["storm"]["policy"])

    def fill_ids(self) -> list[str]:
        """Names of all fills in the order of counting."""
        return [name for order_id in self.tickets for name in self.names.fill_ids(order_id)]

    def log_rows(self, name: str) -> Any:
        """Records of a type in the order log."""
        return records.split(_core.read_log(str(self.folder / "orders"))["tape"]).get(name, [])


@pytest.fixture
def world(tmp_path: Path) -> LiveWorld:
    """A started process."""
    world = LiveWorld(tmp_path)
    assert world.ready()
    return world


def test_a_cut_call_is_adopted_with_its_fills_and_a_lost_one_given_up(world: LiveWorld) -> None:
    cut = world.place("cut")
    world.fill(cut, is_told=False)
    assert world.state(cut) == "unknown"
    world.run(3)
    assert world.state(cut) == "working"
    assert world.position == LOT
    # Behind it: while an order is unknown nothing opens.
    lost = world.place("lost")
    assert world.state(lost) == "unknown"
    world.run(3)
    assert world.state(lost) == "unknown"
    world.run(20)
    assert world.state(lost) == "rejected"
    assert world.broker.arrived == {world.tag(cut): 1}
    assert world.policy == "NORMAL"
    world.session.finish()
    resolved = [row for row in world.log_rows("Route") if row["route_kind"] == 5]
    assert {int(r["order_id"]): int(r["argument"]) for r in resolved} == {cut: 1, lost: 2}
    ends = [row for row in world.log_rows("Broker") if row["order_id"] == lost]
    assert [int(row["reason_code"]) for row in ends] == [
        ReasonCode.BROKER_TIMEOUT, ReasonCode.INTENT_ABANDONED,
    ]  # fmt: skip


def test_a_crash_between_log_and_call_and_one_behind_the_call_are_told_apart(
    world: LiveWorld,
) -> None:
    there = world.place("silent")
    world.fill(there, is_told=False)
    world.tick(0.001)
    world.external_id += 1
    row = world._intent()
    row["action"], row["external_id"], row["side"], row["qty"] = 1, world.external_id, 1, LOT
    row["price"] = PRICE
    world.session.push(row.tobytes())
    assert world.session.pending() == 1, "decided, durable, and never sent"
    world.crash()
    orders = {row["order_id"]: row["state"] for row in world.session.orders()}
    assert set(orders.values()) == {"unknown"}
    assert len(orders) == 2
    world.resume()
    assert world.policy == "DEGRADED", "nothing opens while an outcome is unknown"
    assert world.ready()
    assert world.policy == "NORMAL"
    assert world.state(there) == "pending_cancel", "adopted, and the restart no longer wants it"
    (other,) = set(orders) - {there}
    assert world.state(other) == "rejected"
    assert (world.position, world.broker.arrived) == (LOT, {world.tag(there): 1})
    world.run(20)
    assert world.broker.canceled == ["B00000"], "by the engine's decision, through the adapter"
    assert (world.state(there), world.position) == ("canceled", LOT)


def test_a_drift_restricts_and_halts_and_an_operator_adopts_it(world: LiveWorld) -> None:
    world.run(40)
    world.broker.manual["TXFD6"] = 3 * LOT
    world.run(40)
    assert world.policy == "DEGRADED"
    world.run(80)
    assert world.policy == "HALT"
    drifts = ReconciliationReport.read(world.folder / FILE_NAME).drifts
    assert drifts == {"TXFD6": 3 * LOT}
    operator_requests.ask(
        world.folder, RequestKind.ADOPT, who="desk", why="test", since_ns=1,
        instrument_id=TXF.instrument_id, argument=3 * LOT,
    )  # fmt: skip
    world.run(40)
    assert world.session.adopted() == {TXF.instrument_id: 3 * LOT}
    assert world.service.report().findings == ()
    assert world.policy == "HALT", "a halt is lifted by a person"
    world.resume()
    assert world.policy != "HALT"
    world.crash()
    assert world.ready(), "what was adopted is in the log"
    assert world.session.adopted() == {TXF.instrument_id: 3 * LOT}


def test_a_drift_keeps_a_session_from_starting_until_it_is_adopted(tmp_path: Path) -> None:
    world = LiveWorld(tmp_path)
    world.broker.manual["TXFD6"] = -LOT
    assert not world.ready(within_s=60)
    assert world.policy == "NORMAL", "nothing trades yet"
    request = operator_requests.ask(
        tmp_path, RequestKind.ADOPT, who="desk", why="overnight", since_ns=1,
        instrument_id=TXF.instrument_id, argument=-LOT,
    )  # fmt: skip
    assert operator_requests.obey(tmp_path, put_into(world.session, world.clock)) == 1
    assert operator_requests.answer_to(tmp_path, request)["code"] == 0  # type: ignore[index]
    assert world.ready(within_s=10)


def test_reduce_only_and_flatten_reach_the_engine(world: LiveWorld) -> None:
    order_id = world.place()
    world.fill(order_id, 2 * LOT)
    for kind in (RequestKind.REDUCE_ONLY, RequestKind.FLATTEN):
        operator_requests.ask(world.folder, kind, who="desk", why="test", since_ns=1)
    operator_requests.obey(world.folder, put_into(world.session, world.clock))
    world.tick()
    (close,) = world.dispatch()
    assert (close.side, close.qty) == (-1, 2 * LOT)
    assert world.policy == "DEGRADED"


def test_money_reaches_the_engine(world: LiveWorld) -> None:
    world.run(25)
    assert world.session.state()["account"]["equity"] == world.broker.equity


class ResendsWhatIsNotFound(ReconciliationService):
    """The mistake: what is not found is sent again."""

    def _abandon(self, ours: Any, now_ns: int) -> None:
        super()._abandon(ours, now_ns)
        self._broker.place(
            OrderTicket(ours.order_id, ours.tag, ours.symbol, ours.side, ours.price, ours.qty)
        )


@pytest.mark.parametrize(
    ("service_type", "most"), [(ReconciliationService, 1), (ResendsWhatIsNotFound, 2)]
)
def test_sending_again_what_was_not_found_makes_two_orders_on_the_real_session_too(
    tmp_path: Path, service_type: type[ReconciliationService], most: int
) -> None:
    world = LiveWorld(tmp_path, service_type)
    assert world.ready()
    world.place("late:40")
    world.broker.how = "silent"
    world.run(90)
    assert max(world.broker.arrived.values()) == most
    if most == 1:
        assert world.broker.canceled == ["B00000"], "it came after all, and is taken back"
        assert world.position == world.broker.net()["TXFD6"] == 0


def live_through(generator: random.Random, world: LiveWorld) -> None:
    """A morning of losses on the real thing."""
    for _ in range(generator.randrange(8, 20)):
        dice, told = generator.random(), generator.random() < 0.5
        there = {row.tag for row in world.broker.book.values() if row.status == OrderStatus.WORKING}
        working = [row for row in world.tickets if world.tag(row) in there]
        is_sure = all(row["state"] != "unknown" for row in world.session.orders())
        may_open = world.policy == "NORMAL" and is_sure
        if dice < 0.40 and may_open:
            how = generator.choice(["told", "silent", "cut", "lost", "late:3", "late:60"])
            side, qty = generator.choice([1, -1]), generator.randrange(1, 4) * LOT
            world.place(how, side=side, qty=qty)
        elif dice < 0.65 and working:
            world.fill(generator.choice(working), is_told=told)
        elif dice < 0.75 and working:
            order_id = generator.choice(working)
            if world.state(order_id) == "working":
                world.cancel(order_id)
            status = generator.choice([OrderStatus.CANCELED, OrderStatus.EXPIRED])
            world.broker.set(world.tag(order_id), status=status)
        elif dice < 0.82:
            world.broker.failing[generator.choice(["orders", "positions"])] += 3
        elif dice < 0.88:
            world.crash()
            world.broker.failing.clear()
            assert world.ready()
        world.run(generator.choice([0, 1, 2, 7, 20]))
    world.broker.failing.clear()


@pytest.mark.parametrize("names_fills", [True, False])
def test_with_an_answering_broker_the_real_session_ends_equal_and_sure(
    tmp_path: Path,
    names_fills: bool,
) -> None:
    seen: Counter[str] = Counter()
    for seed in range(CASES):
        generator = random.Random(seed)
        world = LiveWorld(tmp_path / str(seed))
        world.broker.names_fills = names_fills
        assert world.ready()
        live_through(generator, world)
        world.run(200)
        assert [row for row in world.session.orders() if row["state"] == "unknown"] == [], seed
        assert world.position == world.broker.net()["TXFD6"], seed
        assert all(count == 1 for count in world.broker.arrived.values()), "at most one dispatch"
        there = {row.tag for row in world.broker.book.values() if row.status == OrderStatus.WORKING}
        assert {row["tag"] for row in world.session.orders()} == there
        state = world.session.state()
        assert state["broker_events"].get(ReasonCode.OVER_FILL, 0) == 0
        names, total = world.fill_ids(), world.position
        seen.update(row.outcome for row in world.service.report().resolutions)
        world.crash()
        assert world.ready()
        world.run(20)
        assert (world.fill_ids(), world.position) == (names, total), "the same after a restart"
        world.session.finish()
    assert seen["adopted"]
    assert seen["abandoned"]
