"""A broker that misbehaves by seed: orders, executions, and a journal of every call.

Why: at most once is counted where it matters, at the broker. This one takes every call for a new
order, as Shioaji does: it knows no idempotency, so whoever sends twice has two orders here.

Invariants:
1. Every call to place is in `calls` with its fate before anything comes of it, also one that is
   lost or refused.
2. Positions equal the sum of executions; an execution is reported under one id, however often.
3. Time comes in with every call; equal seeds, calls and times give equal books.

It opens no connection: `sim_broker` calls it within a process, `broker_process` puts it behind a
socket. Operator's page: `docs/drills/order-chaos.md`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from random import Random
from typing import Any

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.order.broker import (
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
    TimeInForce,
)
from hft_platform.records import SCALE

MS = 1_000_000
Report = OrderEvent | FillEvent


@dataclass(frozen=True, slots=True)
class BrokerFaults:
    """How often what goes wrong, as probabilities; nothing does by default.

    Attributes
    ----------
    refused : float
        The broker refuses the order and says so.
    request_lost, reply_lost : float
        The call is cut before or after it took effect.
    request_late : float
        The caller gives up, and the request arrives `late_ms` later.
    reply_late : float
        It took effect, and the reply comes after `late_ms`.
    ids_late : float
        The reply names no ids; events and questions do.
    event_lost, event_double, event_late : float
        A report never comes, comes twice, or comes up to `late_ms` later than its successors.
    deal_first : float
        The execution is reported before the order is.
    partial : float
        An execution leaves a rest.
    rests : float
        The order is not filled by itself.
    query_fails : float
        A question is not answered.
    cut : float
        The connection is cut instead of a reply; the call took effect.
    stall : float
        Nothing is answered for `stall_ms`.
    carries_tags : bool
        Reports of events carry the tag; Shioaji's on futures do not.
    late_ms, stall_ms, work_ms : int
        Longest delays, milliseconds; `work_ms` is that of a report in good order.
    """

    refused: float = 0.0
    request_lost: float = 0.0
    reply_lost: float = 0.0
    request_late: float = 0.0
    reply_late: float = 0.0
    ids_late: float = 0.0
    event_lost: float = 0.0
    event_double: float = 0.0
    event_late: float = 0.0
    deal_first: float = 0.0
    partial: float = 0.0
    rests: float = 0.0
    query_fails: float = 0.0
    cut: float = 0.0
    stall: float = 0.0
    carries_tags: bool = False
    late_ms: int = 4_000
    stall_ms: int = 400
    work_ms: int = 20

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> BrokerFaults:
        """Read back what `as_dict` wrote.

        Raises
        ------
        PlatformError
            SETTINGS_INVALID for a name that is no fault.
        """
        unknown = set(content) - {field.name for field in fields(cls)}
        if unknown:
            raise PlatformError(
                ReasonCode.SETTINGS_INVALID, f"faults {sorted(unknown)} are not known"
            )
        return cls(**content)


@dataclass(frozen=True, slots=True)
class PlaceCall:
    """One call to place an order, as the broker saw it.

    Attributes
    ----------
    fate : str
        ``accepted``, ``refused``, ``request_lost``, ``request_late``.
    """

    number: int
    time_ns: int
    order_id: int
    tag: str
    symbol: str
    side: int
    price: int
    qty: int
    fate: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What the caller hears: a result after a delay, or nothing at all.

    Attributes
    ----------
    result : CallResult
        What the broker says, were it heard.
    delay_ns : int or None
        After what time; None is never.
    is_cut : bool
        True when the connection is cut instead.
    """

    result: CallResult
    delay_ns: int | None = 0
    is_cut: bool = False


@dataclass(slots=True)
class _Order:
    ids: BrokerIds
    ticket: OrderTicket
    status: OrderStatus
    fills: list[FillEvent]
    filled_qty: int = 0

    @property
    def remaining_qty(self) -> int:
        return self.ticket.qty - self.filled_qty

    @property
    def is_open(self) -> bool:
        return self.status in (OrderStatus.PENDING, OrderStatus.WORKING)


@dataclass(slots=True)
class _Due:
    """Something that happens at a time: an action of the exchange, or a report."""

    run: Callable[[int], object] | None = None
    report: Report | None = None


class BrokerBook:
    """Orders and executions of one account.

    Parameters
    ----------
    seed : int
        Decides fates, executions and delays.
    faults : BrokerFaults
        How often what goes wrong; may be replaced while it runs.
    journal : callable, optional
        Told of every call to place before anything comes of it.
    """

    def __init__(
        self,
        seed: int,
        faults: BrokerFaults,
        *,
        journal: Callable[[PlaceCall], None] | None = None,
    ) -> None:
        self.faults = faults
        self.calls: list[PlaceCall] = []
        self.hits: dict[str, int] = {}
        self._draw = Random(seed)  # noqa: S311  # a drill's dice
        self._journal = journal
        self._orders: dict[str, _Order] = {}
        self._due: list[tuple[int, int, _Due]] = []
        self._counter = 0
        self._reports: list[Report] = []

    # ---------------------------------------------------------------- calls

    def place(self, ticket: OrderTicket, now_ns: int) -> Reply:
        """Take a call to place an order, whether or not it was taken before.

        Parameters
        ----------
        ticket : OrderTicket
            The order.
        now_ns : int
            Now.

        Returns
        -------
        Reply
        """
        fate = self._fate()
        self._note(ticket, now_ns, fate)
        timeout = CallResult(Outcome.AMBIGUOUS, code=ReasonCode.BROKER_TIMEOUT, message=fate)
        if fate == "refused":
            refused = CallResult(
                Outcome.REJECTED, code=ReasonCode.BROKER_REJECTED, message="refused by the drill"
            )
            return Reply(refused)
        if fate == "request_lost":
            return Reply(timeout, None)
        if fate == "request_late":
            late_ns = self._late_ns()
            self._at(now_ns + late_ns, _Due(run=lambda at_ns: self._arrive(ticket, at_ns)))
            return Reply(timeout, None)
        ids = self._arrive(ticket, now_ns)
        shown = BrokerIds() if self._hit("ids_late") else ids
        return self._reply(CallResult(Outcome.SENT, shown))

    def cancel(self, ids: BrokerIds, now_ns: int) -> Reply:
        """Take a call to cancel the rest of an order."""
        order = self._find(ids)
        if order is None:
            return Reply(
                CallResult(
                    Outcome.REJECTED, ids, ReasonCode.ORDER_NOT_FOUND, "no order has these ids"
                )
            )
        if self._hit("request_lost"):
            return Reply(CallResult(Outcome.AMBIGUOUS, ids, ReasonCode.BROKER_TIMEOUT), None)
        key = order.ids.broker_id
        self._at(now_ns + self._work_ns(), _Due(run=lambda at_ns: self._cancel(key, at_ns)))
        return self._reply(CallResult(Outcome.SENT, order.ids))

    def amend(self, ids: BrokerIds, price: int | None, qty: int | None, now_ns: int) -> Reply:
        """Take a call to change the price of an order, or to lower its quantity."""
        order = self._find(ids)
        is_known = order is not None and order.is_open
        is_lower = qty is None or (order is not None and order.filled_qty < qty <= order.ticket.qty)
        if order is None or not is_known or not is_lower:
            return Reply(
                CallResult(Outcome.REJECTED, ids, ReasonCode.BROKER_REJECTED, "not to be amended")
            )
        ticket = order.ticket
        order.ticket = replace(
            ticket,
            price=ticket.price if price is None else price,
            qty=ticket.qty if qty is None else qty,
        )
        self._tell(order, EventKind.AMENDED, now_ns)
        return self._reply(CallResult(Outcome.SENT, order.ids))

    def answers(self) -> bool:
        """Draw whether a question is answered."""
        return not self._hit("query_fails")

    def stalls(self) -> bool:
        """Draw whether everything stands still for a while."""
        return self._hit("stall")

    # ------------------------------------------------------------ questions

    def orders(self) -> list[BrokerOrder]:
        """Every order, done ones included, in the order of their arrival."""
        return [
            BrokerOrder(
                ids=order.ids,
                tag=order.ticket.tag,
                symbol=order.ticket.symbol,
                side=order.ticket.side,
                price=order.ticket.price,
                qty=order.ticket.qty,
                filled_qty=order.filled_qty,
                status=order.status,
                fills=tuple(order.fills),
            )
            for order in self._orders.values()
        ]

    def positions(self) -> list[BrokerPosition]:
        """Net positions that are not flat, by symbol."""
        nets: dict[str, int] = {}
        for order in self._orders.values():
            symbol = order.ticket.symbol
            nets[symbol] = nets.get(symbol, 0) + order.ticket.side * order.filled_qty
        return [BrokerPosition(symbol, net) for symbol, net in sorted(nets.items()) if net]

    # ----------------------------------------------------------------- time

    def advance(self, now_ns: int) -> list[Report]:
        """Let everything happen that is due, and return what is reported, in this order."""
        while self._due and self._due[0][0] <= now_ns:
            at_ns, _, due = heapq.heappop(self._due)
            if due.run is not None:
                due.run(at_ns)
            elif due.report is not None:
                self._reports.append(replace(due.report, receive_time_ns=at_ns))
        reports, self._reports = self._reports, []
        return reports

    def next_ns(self) -> int | None:
        """When something is due next; None when nothing is."""
        return self._due[0][0] if self._due else None

    def settle(self, now_ns: int) -> None:
        """From here on nothing goes wrong, and every order that rests is filled or canceled."""
        self.faults = BrokerFaults(carries_tags=self.faults.carries_tags)
        for order in list(self._orders.values()):
            if order.is_open:
                self._plan(order, now_ns)

    # -------------------------------------------------------------- private

    def _fate(self) -> str:
        for name in ("refused", "request_lost", "request_late"):
            if self._hit(name):
                return name
        return "accepted"

    def _note(self, ticket: OrderTicket, now_ns: int, fate: str) -> None:
        call = PlaceCall(
            number=len(self.calls) + 1,
            time_ns=now_ns,
            order_id=ticket.order_id,
            tag=ticket.tag,
            symbol=ticket.symbol,
            side=ticket.side,
            price=ticket.price,
            qty=ticket.qty,
            fate=fate,
        )
        if self._journal is not None:
            self._journal(call)
        self.calls.append(call)

    def _reply(self, result: CallResult) -> Reply:
        if self._hit("cut"):
            return Reply(result, None, is_cut=True)
        if self._hit("reply_lost"):
            return Reply(result, None)
        return Reply(result, self._late_ns() if self._hit("reply_late") else 0)

    def _arrive(self, ticket: OrderTicket, now_ns: int) -> BrokerIds:
        number = len(self._orders) + 1
        ids = BrokerIds(f"B{number:06d}", f"S{number:06d}", f"O{number:05d}")
        order = _Order(ids, ticket, OrderStatus.WORKING, [])
        self._orders[ids.broker_id] = order
        if self._hit("deal_first"):
            self._tell(order, EventKind.WORKING, now_ns, later_ns=self.faults.work_ms * 4 * MS)
        else:
            self._tell(order, EventKind.WORKING, now_ns)
        if not self._hit("rests"):
            self._plan(order, now_ns)
        elif ticket.time_in_force != TimeInForce.ROD:
            self._at(now_ns + self._work_ns(), self._lapse(order))
        return ids

    def _plan(self, order: _Order, now_ns: int) -> None:
        """Fill it after a while: at once, or in two parts, with or without the rest."""
        key, lots = order.ids.broker_id, order.remaining_qty // SCALE
        first_ns = now_ns + self._work_ns()
        is_split = order.ticket.time_in_force != TimeInForce.FOK and lots > 1
        if not is_split or not self._hit("partial"):
            self._at(first_ns, _Due(run=lambda at_ns: self._fill(key, lots, at_ns)))
            return
        part = self._draw.randint(1, lots - 1)
        self._at(first_ns, _Due(run=lambda at_ns: self._fill(key, part, at_ns)))
        rest_ns = first_ns + self._work_ns()
        if order.ticket.time_in_force == TimeInForce.IOC:
            self._at(rest_ns, self._lapse(order))
        elif self._draw.random() < 0.7:
            self._at(rest_ns, _Due(run=lambda at_ns: self._fill(key, lots - part, at_ns)))

    def _lapse(self, order: _Order) -> _Due:
        key = order.ids.broker_id
        return _Due(run=lambda at_ns: self._end(key, OrderStatus.EXPIRED, EventKind.EXPIRED, at_ns))

    def _fill(self, key: str, lots: int, now_ns: int) -> None:
        order = self._orders[key]
        qty = min(lots * SCALE, order.remaining_qty)
        if not order.is_open or qty <= 0:
            return
        order.filled_qty += qty
        if order.remaining_qty == 0:
            order.status = OrderStatus.FILLED
        fill = FillEvent(
            ids=order.ids,
            fill_id=f"{order.ids.ordno}-{len(order.fills) + 1}",
            symbol=order.ticket.symbol,
            side=order.ticket.side,
            price=order.ticket.price,
            qty=qty,
            exchange_time_ns=now_ns,
            receive_time_ns=now_ns,
            tag=order.ticket.tag,
        )
        order.fills.append(fill)
        self._report(fill if self.faults.carries_tags else replace(fill, tag=""), now_ns)

    def _cancel(self, key: str, now_ns: int) -> None:
        if self._orders[key].is_open:
            self._end(key, OrderStatus.CANCELED, EventKind.CANCELED, now_ns)
        else:
            self._tell(self._orders[key], EventKind.CANCEL_REJECTED, now_ns)

    def _end(self, key: str, status: OrderStatus, kind: EventKind, now_ns: int) -> None:
        order = self._orders[key]
        if order.is_open:
            order.status = status
            self._tell(order, kind, now_ns)

    def _tell(self, order: _Order, kind: EventKind, now_ns: int, *, later_ns: int = 0) -> None:
        ticket = order.ticket
        code = ReasonCode.BROKER_REJECTED if kind == EventKind.CANCEL_REJECTED else ReasonCode.UNSET
        event = OrderEvent(
            kind=kind,
            ids=order.ids,
            exchange_time_ns=now_ns,
            receive_time_ns=now_ns,
            tag=ticket.tag if self.faults.carries_tags else "",
            symbol=ticket.symbol,
            side=ticket.side,
            price=ticket.price,
            qty=ticket.qty,
            remaining_qty=order.remaining_qty,
            code=code,
        )
        self._report(event, now_ns + later_ns)

    def _report(self, report: Report, now_ns: int) -> None:
        if self._hit("event_lost"):
            return
        times = 2 if self._hit("event_double") else 1
        for _ in range(times):
            delay_ns = self._late_ns() if self._hit("event_late") else 0
            self._at(now_ns + delay_ns, _Due(report=report))

    def _find(self, ids: BrokerIds) -> _Order | None:
        if ids.broker_id:
            return self._orders.get(ids.broker_id)
        for order in self._orders.values():
            if (ids.seqno and order.ids.seqno == ids.seqno) or (
                ids.ordno and order.ids.ordno == ids.ordno
            ):
                return order
        return None

    def _at(self, time_ns: int, due: _Due) -> None:
        self._counter += 1
        heapq.heappush(self._due, (time_ns, self._counter, due))

    def _hit(self, name: str) -> bool:
        probability = float(getattr(self.faults, name))
        # No draw for a fault that is off: rules may be changed without changing what follows.
        is_hit = probability > 0.0 and self._draw.random() < probability
        if is_hit:
            self.hits[name] = self.hits.get(name, 0) + 1
        return is_hit

    def _late_ns(self) -> int:
        return self._draw.randint(1, self.faults.late_ms) * MS

    def _work_ns(self) -> int:
        return self._draw.randint(1, self.faults.work_ms) * MS
