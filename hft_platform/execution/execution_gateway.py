"""ExecutionGateway: what a broker reports becomes records of the session, each fact once.

Why: a broker reports from any thread, twice, late, in the wrong order, and about orders that are
none of ours. What the engine may count must be written before it is counted, and what cannot be
placed must stay visible until it can.

Invariants:
1. A fill is counted once, over restarts: its name is written in the same push, right before it.
2. A report whose order is not known is kept until a name of the order is learned, and is then taken
   behind the report that named it, in the order of arrival; after `orphan_wait_ns` it is told as
   external, and still kept.
3. Nothing is dropped without a counter; a buffer that is full reports its oldest as external.
4. The same reports at the same times, with the same answers between them, give the same records.
5. What contradicts its order (contract, side, a quantity that is no number) is not taken for it:
   it stays with the external ones, and the position check finds what it was.

It asks the broker nothing and decides nothing about an order. Operator's page: `docs/execution.md`.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from hft_platform.errors import ReasonCode
from hft_platform.execution.order_ids import OrderFacts, OrderIds, fill_quantities
from hft_platform.input_records import (
    FILL_ID_BYTES_MAX,
    ID_BYTES_MAX,
    BrokerKind,
    RouteKind,
    broker_record,
    is_storable,
    route_record,
)
from hft_platform.market.instruments import Instrument
from hft_platform.order.broker import BrokerIds, EventKind, FillEvent, OrderEvent
from hft_platform.order.market_hours import MarketHours

ORPHAN_COUNT_MAX = 1_024
ORPHAN_WAIT_NS = 30_000_000_000
EXTERNAL_COUNT_MAX = 4_096
VALUE_MAX = 10**18
"""|x| < 1e10 at 1e-8."""
OPEN_STATES = ("pending_new", "working", "pending_cancel", "unknown")

log = structlog.get_logger()


class Session(Protocol):
    """What is needed of a `LiveSession`."""

    def push(self, tape: bytes) -> int:
        """Take records."""

    def order(self, order_id: int) -> dict[str, Any] | None:
        """One order, also a recently done one."""


Report = OrderEvent | FillEvent


@dataclass(slots=True)
class _Orphan:
    """A report without an order: when it came, and whether it was told as external."""

    report: Report
    since_ns: int
    is_told: bool = False


@dataclass(frozen=True, slots=True)
class ExternalOrder:
    """An order at the broker that is none of ours, as far as its reports say.

    Attributes
    ----------
    ids : BrokerIds
        The broker's names.
    tag, symbol : str
        Empty where no report said.
    since_ns : int
        When the first report of it came.
    report_count : int
        Reports so far.
    filled_qty : int
        Signed sum of its fills that were reported here.
    """

    ids: BrokerIds
    tag: str
    symbol: str
    since_ns: int
    report_count: int
    filled_qty: int


class ExecutionGateway:
    """Takes what a broker reports (`BrokerListener`) and pushes records; any thread may call.

    Parameters
    ----------
    session : Session
        A `LiveSession`.
    order_ids : OrderIds
        Shared with the adapter.
    instruments : mapping of int to Instrument
        Every instrument of the engine config, by its id.
    clock_ns : callable
        ns UTC.
    orphan_wait_ns : int, optional
        How long a report may wait for its order before it is told as external.
    """

    def __init__(
        self,
        session: Session,
        order_ids: OrderIds,
        instruments: Mapping[int, Instrument],
        clock_ns: Callable[[], int],
        *,
        orphan_wait_ns: int = ORPHAN_WAIT_NS,
    ) -> None:
        self._session, self._order_ids = session, order_ids
        self._hours = MarketHours(instruments)
        self._symbols = {key: row.symbol for key, row in instruments.items()}
        self._clock_ns = clock_ns
        self._orphan_wait_ns = orphan_wait_ns
        self._lock = threading.RLock()
        self._orphans: OrderedDict[tuple[Any, ...], _Orphan] = OrderedDict()
        self._externals: OrderedDict[tuple[str, ...], ExternalOrder] = OrderedDict()
        self._counters: Counter[str] = Counter()
        self._is_up = False
        order_ids.on_learned(self.resolve)

    # What a broker calls

    def on_market(self, tape: bytes) -> None:
        """Market records, passed on as they are.

        Parameters
        ----------
        tape : bytes
            Whole records.
        """
        self._session.push(tape)

    def on_order(self, event: OrderEvent) -> None:
        """Take a report about an order.

        Parameters
        ----------
        event : OrderEvent
            As the broker's adapter made it.
        """
        self._take(event)

    def on_fill(self, event: FillEvent) -> None:
        """Take an execution.

        Parameters
        ----------
        event : FillEvent
            As the broker's adapter made it.
        """
        self._take(event)

    def on_connection(self, is_up: bool, message: str) -> None:
        """The connection came or went.

        Parameters
        ----------
        is_up : bool
            Whether it is there.
        message : str
            The adapter's words.
        """
        with self._lock:
            self._is_up = is_up
            self._counters["connections_up" if is_up else "connections_down"] += 1
        log.info("broker_connection_changed", is_up=is_up, message=message)

    # What the runtime calls

    def step(self, now_ns: int) -> None:
        """Report what has waited too long for its order.

        Parameters
        ----------
        now_ns : int
            The time.
        """
        with self._lock:
            self._tell_late(now_ns)

    def resolve(self) -> None:
        """Take what waited and whose order is known by now, in the order of arrival."""
        with self._lock:
            for key, orphan in list(self._orphans.items()):
                order_id = self._order_ids.find(orphan.report.ids, orphan.report.tag)
                if order_id is None or key not in self._orphans:
                    continue
                if not self._fits(orphan.report, order_id):
                    continue
                del self._orphans[key]
                self._counters["orphans_resolved"] += 1
                self._counters["externals_adopted"] += orphan.is_told
                if orphan.is_told:
                    self._externals.pop(_identity(orphan.report), None)
                self._apply(order_id, orphan.report)

    @property
    def is_up(self) -> bool:
        """Whether the broker's connection was there when it was last heard of."""
        return self._is_up

    def orphan_count(self) -> int:
        """Reports that wait for their order and were not told as external."""
        with self._lock:
            return sum(not orphan.is_told for orphan in self._orphans.values())

    def externals(self) -> list[ExternalOrder]:
        """Orders that are none of ours, oldest first."""
        with self._lock:
            return list(self._externals.values())

    def counters(self) -> dict[str, int]:
        """What was taken, kept and refused so far."""
        with self._lock:
            return dict(sorted((self._counters + Counter(self._order_ids.counters())).items()))

    # Private

    def _take(self, report: Report) -> None:
        with self._lock:
            now_ns = self._clock_ns()
            self._counters["fills" if isinstance(report, FillEvent) else "events"] += 1
            order_id = self._order_ids.find(report.ids, report.tag)
            if order_id is not None and not self._fits(report, order_id):
                self._counters["reports_contradicting_their_order"] += 1
                order_id = None
            if order_id is None:
                self._keep(report, now_ns)
            else:
                self._apply(order_id, report)
            self._tell_late(now_ns)

    def _apply(self, order_id: int, report: Report) -> None:
        facts = self._order_ids.facts_of(order_id)
        if facts is None:
            # Known by a name in the log, and what was ordered is not: the position check finds it.
            self._counters["orders_without_decision"] += 1
            self._tell_external(report, self._clock_ns())
            return
        head = b""
        if self._order_ids.unknown_names(order_id, report.ids):
            tag = self._order_ids.tag_of(order_id)
            head = self._route(RouteKind.IDS, facts, tag=tag, ids=_storable(report.ids))
        if isinstance(report, FillEvent):
            body = self._fill(facts, report)
        else:
            body = self._event(facts, report)
        if head or body:
            self._session.push(head + body)
        if head:
            self._order_ids.learn(order_id, report.ids)

    def _fill(self, facts: OrderFacts, event: FillEvent) -> bytes:
        fill_id = _fill_name(event.fill_id)
        ticket = self._order_ids.take_fill(facts.order_id, fill_id, event.qty)
        if not ticket.seq and not ticket.is_new:
            self._counters["duplicate_fills"] += 1
            return b""
        if not ticket.seq:
            self._counters["fills_counted_before"] += 1
        body = b""
        if ticket.is_new:
            quantities = fill_quantities(event.qty, ticket.qty)
            body = self._route(
                RouteKind.FILL_ID, facts, ids=quantities, fill_id=fill_id, argument=ticket.seq
            )
        else:
            self._counters["fills_pushed_again"] += 1
        if ticket.seq:
            filled = self._order_ids.filled_qty(facts.order_id)
            body += self._broker(
                BrokerKind.FILL, facts, event,
                price=event.price, qty=ticket.qty, remaining_qty=max(0, facts.qty - filled),
                broker_seq=ticket.seq, is_maker=event.is_maker,
            )  # fmt: skip
        return body

    def _event(self, facts: OrderFacts, event: OrderEvent) -> bytes:
        order = self._session.order(facts.order_id)
        if order is None:
            self._counters["events_of_forgotten_orders"] += 1
            return b""
        kind = _kind_for(event.kind, str(order["state"]))
        if kind is None:
            self._counters[f"{event.kind}_without_effect"] += 1
            return b""
        code = event.code
        if event.kind in (EventKind.REJECTED, EventKind.CANCEL_REJECTED):
            code = code or ReasonCode.BROKER_REJECTED
        left = max(0, facts.qty - self._order_ids.filled_qty(facts.order_id))
        is_open = kind in (BrokerKind.WORKING, BrokerKind.CANCEL_REJECTED)
        return self._broker(
            kind, facts, event,
            price=facts.price, qty=facts.qty, remaining_qty=left if is_open else 0, code=code,
        )  # fmt: skip

    def _broker(self, kind: BrokerKind, facts: OrderFacts, report: Report, **fields: Any) -> bytes:
        now_ns = self._clock_ns()
        received_ns = report.receive_time_ns
        return broker_record(
            kind,
            order_id=facts.order_id,
            instrument_id=facts.instrument_id,
            side=facts.side,
            # A report's own time, unless its clock is ahead of ours: the session's never goes back.
            receive_time_ns=received_ns if 0 < received_ns < now_ns else now_ns,
            exchange_time_ns=max(0, report.exchange_time_ns),
            trading_day=self._trading_day(facts.instrument_id, now_ns),
            **fields,
        )

    def _route(self, kind: RouteKind, facts: OrderFacts, **fields: Any) -> bytes:
        now_ns = self._clock_ns()
        return route_record(
            kind,
            order_id=facts.order_id,
            instrument_id=facts.instrument_id,
            receive_time_ns=now_ns,
            trading_day=self._trading_day(facts.instrument_id, now_ns),
            **fields,
        )

    def _trading_day(self, instrument_id: int, now_ns: int) -> int:
        hours = self._hours.at(instrument_id, now_ns)
        return 0 if hours is None else hours.trading_day

    def _fits(self, report: Report, order_id: int) -> bool:
        """Whether a report can be about this order at all."""
        facts = self._order_ids.facts_of(order_id)
        if facts is None:
            return True
        symbol = self._symbols.get(facts.instrument_id, "")
        is_other = bool(report.symbol and report.symbol != symbol) or bool(
            report.side and report.side != facts.side
        )
        is_absurd = isinstance(report, FillEvent) and not (
            _is_number(report.qty) and _is_number(report.price) and report.side == facts.side
        )
        return not is_other and not is_absurd

    # Reports without an order

    def _keep(self, report: Report, now_ns: int) -> None:
        key = _report_key(report)
        if key in self._orphans:
            self._counters["duplicate_orphans"] += 1
            return
        self._counters["orphans"] += 1
        if len(self._orphans) >= ORPHAN_COUNT_MAX:
            _, oldest = self._orphans.popitem(last=False)
            self._counters["orphans_overflowed"] += 1
            if not oldest.is_told:
                self._tell_external(oldest.report, now_ns)
        orphan = _Orphan(report, now_ns)
        self._orphans[key] = orphan
        if _identity(report) in self._externals:
            orphan.is_told = True
            self._tell_external(report, now_ns)

    def _tell_late(self, now_ns: int) -> None:
        for orphan in self._orphans.values():
            if not orphan.is_told and now_ns - orphan.since_ns >= self._orphan_wait_ns:
                orphan.is_told = True
                self._tell_external(orphan.report, now_ns)

    def _tell_external(self, report: Report, now_ns: int) -> None:
        """Write once that the broker has an order which is none of ours, and follow its fills."""
        key = _identity(report)
        known = self._externals.get(key)
        filled = report.side * report.qty if isinstance(report, FillEvent) else 0
        is_new = known is None
        known = known or ExternalOrder(report.ids, report.tag, report.symbol, now_ns, 0, 0)
        self._externals[key] = ExternalOrder(
            known.ids, known.tag, known.symbol or report.symbol, known.since_ns,
            known.report_count + 1, known.filled_qty + filled,
        )  # fmt: skip
        self._counters["external_fills"] += isinstance(report, FillEvent)
        if not is_new:
            return
        self._counters["external_orders"] += 1
        if len(self._externals) > EXTERNAL_COUNT_MAX:
            self._externals.popitem(last=False)
            self._counters["externals_forgotten"] += 1
        self._session.push(
            route_record(
                RouteKind.EXTERNAL,
                order_id=0,
                receive_time_ns=now_ns,
                tag=report.tag if is_storable(report.tag, 8) else "",
                ids=_storable(report.ids),
            )
        )
        log.warning(
            "order_external_reported",
            reason_code=int(ReasonCode.ORDER_EXTERNAL),
            broker_id=report.ids.broker_id,
            seqno=report.ids.seqno,
            ordno=report.ids.ordno,
            symbol=report.symbol,
        )


def _kind_for(kind: EventKind, state: str) -> BrokerKind | None:
    """What the engine is told of an event, given where it holds the order; None for nothing."""
    is_open = state in OPEN_STATES
    is_new = state in ("pending_new", "unknown")
    match kind:
        case EventKind.WORKING:
            return BrokerKind.WORKING if is_new else None
        case EventKind.REJECTED:
            # Refused after it worked: its rest is gone like that of a canceled order.
            if is_open:
                return BrokerKind.REJECTED if is_new else BrokerKind.CANCELED
            return None
        case EventKind.CANCELED:
            return BrokerKind.CANCELED if is_open else None
        case EventKind.EXPIRED:
            return BrokerKind.EXPIRED if is_open else None
        case EventKind.CANCEL_REJECTED:
            return BrokerKind.CANCEL_REJECTED if state == "pending_cancel" else None
        case EventKind.AMENDED:
            # We amend nothing; somebody else did, and what is open can only be less or elsewhere.
            return None


def _identity(report: Report) -> tuple[str, ...]:
    ids = report.ids
    return (ids.broker_id or ids.seqno or ids.ordno or report.tag, report.symbol)


def _report_key(report: Report) -> tuple[Any, ...]:
    ids = (report.ids.broker_id, report.ids.seqno, report.ids.ordno, report.tag)
    if isinstance(report, FillEvent):
        return (*ids, "fill", report.fill_id, report.symbol, report.side)
    return (*ids, report.kind, report.exchange_time_ns, report.remaining_qty, report.code)


def _fill_name(fill_id: str) -> str:
    """The name as it is stored; one that breaks the protocol is replaced by its hash."""
    if fill_id and is_storable(fill_id, FILL_ID_BYTES_MAX):
        return fill_id
    return hashlib.sha256(fill_id.encode()).hexdigest()[:FILL_ID_BYTES_MAX]


def _storable(ids: BrokerIds) -> BrokerIds:
    names = (ids.broker_id, ids.seqno, ids.ordno)
    return BrokerIds(*(name if is_storable(name, ID_BYTES_MAX) else "" for name in names))


def _is_number(value: object) -> bool:
    return type(value) is int and 0 < value < VALUE_MAX
