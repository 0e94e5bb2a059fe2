"""A small world to reconcile in: a scripted broker with a truth of its own, and a session's model.

The model of the session follows the engine's table of an order's life
(rust_core/src/gateway/state.rs) and keeps a log, from which it starts again after a crash as
`Engine.recover` does. `test_reconciliation_live.py` holds the service against the real session.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hft_platform import records
from hft_platform.config.settings import ReconciliationSettings, load_settings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.execution.order_ids import SYNTHETIC_PREFIX
from hft_platform.execution.reconciliation import ReconciliationService
from hft_platform.order.broker import (
    AccountState,
    BrokerIds,
    BrokerOrder,
    BrokerPosition,
    CallResult,
    EventKind,
    FillEvent,
    OrderEvent,
    OrderStatus,
    OrderTicket,
    Outcome,
)
from hft_platform.order.call_budget import CallKind

if "Route" not in records.DTYPES:
    _head = records.DTYPES["Timer"]
    _names = [n for n in _head.names if n not in ("timer_kind", "argument")]
    records.DTYPES["Route"] = np.dtype(
        {
            "names": [
                *_names,
                "route_kind",
                "epoch",
                "order_id",
                "argument",
                "tag",
                "broker_id",
                "seqno",
                "ordno",
                "fill_id",
            ],
            "formats": [
                *[_head.fields[n][0] for n in _names],
                "<u4",
                "<u4",
                "<u8",
                "<u8",
                "S8",
                "S16",
                "S16",
                "S16",
                "S32",
            ],
            "offsets": [
                *[_head.fields[n][1] for n in _names],
                64,
                68,
                72,
                80,
                88,
                96,
                112,
                128,
                144,
            ],
            "itemsize": 176,
        }
    )
    records.TYPE_CODES["Route"] = 13

LOT = records.SCALE
SECOND = 1_000_000_000
START_NS = 1_800_000_000 * SECOND
SYMBOL, INSTRUMENT_ID = "TXFD6", 7
PRICE = 20_000 * LOT
OPEN = ("pending_new", "working", "pending_cancel", "unknown")


@dataclass(frozen=True)
class Contract:
    """What the service needs of an instrument."""

    symbol: str


def settings(**changes: int) -> ReconciliationSettings:
    """Packaged settings with changes."""
    return load_settings(environment={}).reconciliation.model_copy(update=changes)


class Clock:
    """Virtual time."""

    def __init__(self) -> None:
        self.now_ns = START_NS

    def __call__(self) -> int:
        return self.now_ns


def transition(state: str, event: str) -> str:
    """Next state of an order, as the engine's table has it; unchanged where it does not fit."""
    if state not in OPEN:
        return "filled" if event == "full_fill" else state
    table = {
        "rejected": {"pending_new": "rejected", "unknown": "rejected"},
        "working": {"pending_new": "working", "unknown": "working"},
        "partial_fill": {"pending_new": "working", "unknown": "working"},
        "full_fill": dict.fromkeys(OPEN, "filled"),
        "canceled": dict.fromkeys(OPEN, "canceled"),
        "expired": dict.fromkeys(OPEN, "expired"),
        "cancel_rejected": {"pending_cancel": "working"},
        "unknown": {"pending_new": "unknown", "working": "unknown"},
        "cancel_sent": {"working": "pending_cancel"},
    }
    return table[event].get(state, state)


class ModelSession:
    """Orders and positions that follow from records, and the log of all records."""

    def __init__(self, log: list[Any] | None = None) -> None:
        self.log: list[Any] = []
        self._orders: dict[int, dict[str, Any]] = {}
        self.fill_ids: list[str] = []
        self.external = self.queued = 0
        self.odd: Counter[str] = Counter()
        for entry in log or []:
            self._take(entry)
        if log:
            for row in self._orders.values():
                if row["state"] in OPEN:
                    row["state"] = "unknown"

    # What LiveSession offers

    def push(self, tape: bytes) -> int:
        names = {code: name for name, code in records.TYPE_CODES.items()}
        at = 0
        while at < len(tape):
            size, name = int.from_bytes(tape[at : at + 2], "little"), names[tape[at + 2]]
            row = np.frombuffer(tape[at : at + size], dtype=records.DTYPES[name])[0]
            self._take((name, {key: row[key].item() for key in row.dtype.names}))
            at += size
        return len(self.log)

    def orders(self) -> list[dict[str, Any]]:
        return [dict(row) for row in self._orders.values() if row["state"] in OPEN]

    def order(self, order_id: int) -> dict[str, Any] | None:
        row = self._orders.get(order_id)
        return None if row is None else dict(row)

    def positions(self) -> list[dict[str, Any]]:
        return [{"alpha_index": 0, "instrument_id": INSTRUMENT_ID, "position_qty": self.position}]

    def pending(self) -> int:
        return self.queued

    def adopted(self) -> dict[int, int]:
        return {INSTRUMENT_ID: self.external}

    # What the tests ask and do

    @property
    def position(self) -> int:
        """Net quantity of all fills."""
        return sum(row["side"] * row["filled_qty"] for row in self._orders.values())

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Records of a type that were pushed."""
        return [row for kind, row in self.log if kind == name]

    def decide(self, order_id: int, side: int, qty: int, tag: str, now_ns: int) -> None:
        """A decision to place, durable before anything else happens."""
        row = {
            "order_id": order_id, "instrument_id": INSTRUMENT_ID, "side": side, "price": PRICE,
            "qty": qty, "filled_qty": 0, "state": "pending_new", "tag": tag, "decided_ns": now_ns,
        }  # fmt: skip
        self._take(("place", row))

    def cancel(self, order_id: int) -> None:
        """A decision to cancel."""
        self._take(("cancel", {"order_id": order_id}))

    def event(self, order_id: int, event: str, *, qty: int = 0, fill_id: str = "") -> None:
        """What the ExecutionGateway writes."""
        self._take(("event", {"order_id": order_id, "event": event, "qty": qty, "id": fill_id}))

    def _take(self, entry: Any) -> None:
        self.log.append(entry)
        name, row = entry
        if name == "place":
            self._orders[row["order_id"]] = dict(row)
        elif name == "cancel":
            self._step(row["order_id"], "cancel_sent")
        elif name == "Broker":
            kind = {2: "rejected", 7: "unknown"}[row["event_kind"]]
            self._step(row["order_id"], kind)
        elif name == "event" and row["event"] != "fill":
            self._step(row["order_id"], row["event"])
        elif name == "event":
            order = self._orders[row["order_id"]]
            remaining = order["qty"] - order["filled_qty"]
            self.odd["over_fill"] += row["qty"] > remaining
            self._step(row["order_id"], "full_fill" if row["qty"] >= remaining else "partial_fill")
            order["filled_qty"] += row["qty"]
            self.fill_ids.append(row["id"])

    def _step(self, order_id: int, event: str) -> None:
        row = self._orders[order_id]
        row["state"] = transition(row["state"], event)


class ModelNames:
    """Ids and tags of our orders, as far as they were learned."""

    def __init__(self) -> None:
        self.tags: dict[str, int] = {}
        self.ids: dict[str, int] = {}
        self.called: set[int] = set()
        self.fills: dict[str, int] = {}

    def find(self, ids: BrokerIds, tag: str) -> int | None:
        return self.tags.get(tag) if tag else self.ids.get(ids.broker_id)

    def is_called(self, order_id: int) -> bool:
        return order_id in self.called

    def has_synthetic(self, order_id: int) -> bool:
        own = [name for name, owner in self.fills.items() if owner == order_id]
        return any(name.startswith(SYNTHETIC_PREFIX) for name in own)


class ModelGateway:
    """Events and fills become the session's, each fill once."""

    def __init__(self, session: ModelSession, names: ModelNames) -> None:
        self._session, self._names = session, names
        self.strangers: list[OrderEvent] = []

    def on_order(self, event: OrderEvent) -> None:
        order_id = self._names.find(event.ids, event.tag)
        if order_id is None:
            self.strangers.append(event)
            return
        self._names.ids[event.ids.broker_id] = order_id
        self._session.event(order_id, event.kind.value)

    def on_fill(self, event: FillEvent) -> None:
        order_id = self._names.find(event.ids, event.tag)
        if order_id is None or event.fill_id in self._names.fills:
            return
        self._names.fills[event.fill_id] = order_id
        self._session.event(order_id, "fill", qty=event.qty, fill_id=event.fill_id)


class Budget:
    """As many questions as the test says."""

    def __init__(self, left: int = 10**9) -> None:
        self.left, self.spent = left, 0

    def take(self, kind: CallKind, now_ns: int) -> bool:
        if self.left == 0:
            return False
        self.left -= 1
        self.spent += 1
        return True


class Gate:
    """A fence that a test closes."""

    def __init__(self) -> None:
        self.code = 0

    def check(self) -> None:
        if self.code:
            raise PlatformError(self.code, "closed by the test")


class ScriptedBroker:
    """What really is at the broker; its answers can fail, its callbacks are the test's affair."""

    name = "scripted"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.book: dict[str, BrokerOrder] = {}
        self.manual: Counter[str] = Counter()
        self.failing: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.arrived: Counter[str] = Counter()
        self.canceled: list[str] = []
        self.names_fills = True
        self.hidden: set[str] = set()
        self.on_answer: Any = lambda name: None
        self.late: list[tuple[int, OrderTicket]] = []
        self.equity: int | None = 5_000_000 * LOT

    # The protocol, as far as reconciliation uses it

    def place(self, ticket: OrderTicket) -> CallResult:
        """Arrives at once."""
        self.arrive(ticket)
        return CallResult(Outcome.SENT, self.book[ticket.tag].ids)

    def cancel(self, ids: BrokerIds, symbol: str) -> CallResult:
        self.canceled.append(ids.broker_id)
        for tag, order in self.book.items():
            if order.ids == ids and order.status in (OrderStatus.WORKING, OrderStatus.PENDING):
                self.set(tag, status=OrderStatus.CANCELED)
        return CallResult(Outcome.SENT, ids)

    def orders(self) -> list[BrokerOrder]:
        self._ask("orders")
        rows = [row for tag, row in self.book.items() if tag not in self.hidden]
        self.on_answer("orders")
        if self.names_fills:
            return rows
        return [dataclasses.replace(row, fills=()) for row in rows]

    def positions(self) -> list[BrokerPosition]:
        self._ask("positions")
        rows = [BrokerPosition(symbol, qty) for symbol, qty in self.net().items() if qty]
        self.on_answer("positions")
        return rows

    def account(self) -> AccountState:
        self._ask("account")
        return AccountState(self._clock(), self.equity, self.equity, {SYMBOL: 200_000 * LOT})

    def _ask(self, name: str) -> None:
        self.asked[name] += 1
        self.deliver()
        if self.failing[name]:
            self.failing[name] -= 1
            raise PlatformError(ReasonCode.BROKER_QUERY_FAILED, f"{name}: the script says no")

    # The truth

    def net(self) -> Counter[str]:
        """Net positions."""
        sums = Counter(self.manual)
        for row in self.book.values():
            sums[row.symbol] += row.side * row.filled_qty
        return sums

    def deliver(self) -> None:
        """Late requests arrive when their time has come."""
        due = [row for row in self.late if row[0] <= self._clock()]
        self.late = [row for row in self.late if row[0] > self._clock()]
        for _, ticket in due:
            self.arrive(ticket)

    def arrive(self, ticket: OrderTicket) -> None:
        """A request reaches the broker; a second one of the same tag is a second order."""
        self.arrived[ticket.tag] += 1
        number = len(self.book)
        key = ticket.tag if ticket.tag not in self.book else f"{ticket.tag}#{number}"
        self.book[key] = BrokerOrder(
            ids=BrokerIds(f"B{number:05d}", f"S{number:05d}"), tag=ticket.tag,
            symbol=ticket.symbol, side=ticket.side, price=ticket.price, qty=ticket.qty,
            filled_qty=0, status=OrderStatus.WORKING,
        )  # fmt: skip

    def set(self, tag: str, **changes: Any) -> BrokerOrder:
        """Change an order."""
        self.book[tag] = dataclasses.replace(self.book[tag], **changes)
        return self.book[tag]

    def fill(self, tag: str, qty: int) -> FillEvent:
        """An execution happens; gives the callback that would tell it."""
        row = self.book[tag]
        event = FillEvent(
            ids=row.ids, fill_id=f"X{tag}-{len(row.fills)}", symbol=row.symbol, side=row.side,
            price=row.price, qty=qty, exchange_time_ns=self._clock(),
            receive_time_ns=self._clock(),
        )  # fmt: skip
        filled = row.filled_qty + qty
        status = OrderStatus.FILLED if filled == row.qty else row.status
        self.set(tag, filled_qty=filled, fills=(*row.fills, event), status=status)
        return event


@dataclass
class World:
    """Session, broker and service on one clock."""

    changes: dict[str, int] = field(default_factory=dict)
    service_type: type[ReconciliationService] = ReconciliationService
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.broker = ScriptedBroker(self.clock)
        self.session = ModelSession()
        self.names = ModelNames()
        self.budget, self.gate = Budget(), Gate()
        self.folder: Any = None
        self.count = 0
        self._begin()

    def _begin(self) -> None:
        self.gateway = ModelGateway(self.session, self.names)
        self.service = self.service_type(
            self.session, self.broker, self.names, self.gateway,  # type: ignore[arg-type]
            settings=settings(**self.changes), instruments={INSTRUMENT_ID: Contract(SYMBOL)},
            budget=self.budget, fence=self.gate, clock_ns=self.clock,
            folder=self.folder,
        )  # fmt: skip

    def crash(self) -> None:
        """The process dies; the next one has the log only."""
        external = self.session.external
        self.session = ModelSession(self.session.log)
        self.session.external = external
        called = set(self.names.called)
        names, self.names = self.names, ModelNames()
        self.names.tags, self.names.fills = dict(names.tags), dict(names.fills)
        self.names.ids, self.names.called = dict(names.ids), called
        self._begin()

    def run(self, seconds: float, *, step_s: float = 1.0) -> None:
        """Step through time."""
        for _ in range(round(seconds / step_s)):
            self.clock.now_ns += round(step_s * SECOND)
            self.service.step(self.clock.now_ns)

    def ready(self, within_s: float = 60.0) -> bool:
        """Step the startup until it is ready."""
        for _ in range(round(within_s)):
            if self.service.startup(self.clock.now_ns).is_ready:
                return True
            self.clock.now_ns += SECOND
        return False

    def decide(self, side: int = 1, qty: int = 2 * LOT) -> OrderTicket:
        """Decide to place an order; nothing is sent yet."""
        self.count += 1
        tag = f"t{self.count:05d}"
        self.session.decide(self.count, side, qty, tag, self.clock())
        self.names.tags[tag] = self.count
        return OrderTicket(self.count, tag, SYMBOL, side, PRICE, qty)

    def send(self, ticket: OrderTicket, how: str = "told") -> OrderTicket:
        """Call the broker once, as the dispatcher does.

        `told`: sent, and its callbacks come. `silent`: sent, no callback. `cut`: it arrives, the
        call fails. `lost`: it never arrives, the call fails. `late:N`: as lost, and it arrives
        after N s.
        """
        order_id = ticket.order_id
        if how in ("told", "silent", "cut"):
            self.broker.arrive(ticket)
        elif how.startswith("late:"):
            due_ns = self.clock() + round(float(how[5:]) * SECOND)
            self.broker.late.append((due_ns, ticket))
        self.names.called.add(order_id)
        if how in ("told", "silent"):
            self.names.ids[self.broker.book[ticket.tag].ids.broker_id] = order_id
        if how == "told":
            self.session.event(order_id, EventKind.WORKING.value)
        elif how != "silent":
            row = records.empty("Broker", 1)
            row["event_kind"], row["order_id"] = 7, order_id
            self.session.push(row.tobytes())
        return ticket

    def place(self, how: str = "told", **order: Any) -> OrderTicket:
        """Decide and send."""
        return self.send(self.decide(**order), how)

    def fill(self, ticket: OrderTicket, qty: int = LOT, *, is_told: bool = True) -> None:
        """An execution, with its callback or without."""
        event = self.broker.fill(ticket.tag, qty)
        if is_told:
            self.gateway.on_fill(event)

    def state(self, ticket: OrderTicket) -> str:
        """How the session holds an order."""
        row = self.session.order(ticket.order_id)
        assert row is not None
        return str(row["state"])

    def kinds(self) -> list[str]:
        """Kinds of the findings that stand."""
        return [row.kind.value for row in self.service.report().findings]

    def drifts(self) -> list[tuple[int, int]]:
        """Drift reports that the engine got: value and whether nobody could be asked."""
        return [(row["value"], row["argument"]) for row in self.session.rows("Health")]


def seeds(count: int) -> Iterator[random.Random]:
    """One generator a case."""
    for seed in range(count):
        yield random.Random(seed)
