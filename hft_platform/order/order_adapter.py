"""OrderAdapter: makes the one broker call of a request, or none, and writes what came of it.

Why: this is the only place from which an order leaves. Whatever is asked for twice, too late, by a
process that lost its lease or against a broker that fails ends here, with a record that says so.

Invariants:
1. A request to place makes at most one broker call, ever: the call is noted before it is made, and
   what was called or decided in an earlier life is never called.
2. Right before the call, in this order: request, time to live, halt, budget, breaker, fence.
3. SENT is written as Route Sent, REJECTED as Rejected with its code, AMBIGUOUS as Unknown; a
   request that was not called is Rejected with REQUEST_NOT_SENT, which is definite. A cancel that
   was refused or not sent gives CancelRejected: the order goes on.
4. A process that is not the leader writes nothing: its log belongs to its successor.
5. A cancel passes a halt, and waits, bounded in number and time, for the broker's names of its
   order, for budget and for the end of a phase without cancels.
6. Nothing that a broker does ends the dispatcher. An error of our own halts trading with a code and
   leaves the order unknown if its call had begun; a log that fails ends the dispatcher.

It decides nothing and asks no questions. Operator's page: `docs/execution.md`.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.input_records import (
    ID_BYTES_MAX,
    SOURCE_RUNTIME,
    BrokerKind,
    RouteKind,
    broker_record,
    halt_record,
    is_storable,
    route_record,
)
from hft_platform.market.instruments import Instrument
from hft_platform.order.broker import (
    Broker,
    BrokerIds,
    CallResult,
    OrderTicket,
    Outcome,
    TimeInForce,
)
from hft_platform.order.call_breaker import CallBreaker
from hft_platform.order.call_budget import CallBudget, CallKind
from hft_platform.order.fence import Fence
from hft_platform.order.market_hours import Hours, MarketHours
from hft_platform.order.ticket_check import CANCEL, PLACE, VALUE_MAX, check_cancel, check_place

CANCEL_WAIT_NS = 5_000_000_000
WAITING_COUNT_MAX = 64
"""As many as an engine has open orders (`OPEN_COUNT_MAX` in rust_core/src/gateway/mod.rs)."""
POLL_MS, POLL_WAITING_MS = 100, 10
_NOT_LEADER = (ReasonCode.GATEWAY_NOT_LEADER, ReasonCode.GATEWAY_FENCED)
_TIMES_IN_FORCE = {1: TimeInForce.ROD, 2: TimeInForce.IOC, 3: TimeInForce.FOK}

log = structlog.get_logger()


class Session(Protocol):
    """What is needed of a `LiveSession`."""

    def next_request(self, timeout_ms: int) -> Any | None:  # Any: an OrderRequest of the core
        """The next request, None when none came in time."""

    def push(self, tape: bytes) -> int:
        """Take records."""

    def mark_call(self, decision_seq: int, entered_ns: int, returned_ns: int) -> None:
        """Note how long a call took."""

    def order(self, order_id: int) -> dict[str, Any] | None:
        """One order, also a recently done one."""

    def orders(self) -> list[dict[str, Any]]:
        """Open orders."""

    def positions(self) -> list[dict[str, Any]]:
        """Positions of the alphas."""

    def halted_by(self, alpha_index: int | None = None) -> int:
        """Code of what stops the session, or this alpha; 0 if nothing does."""


class OrderNames(Protocol):
    """What is needed of `OrderIds`."""

    def begin_call(self, order: Any) -> bool:  # Any: an OrderRequest of the core
        """Note a call that is about to be made; False when it must not be."""

    def end_call(self, order_id: int) -> None:
        """The call came back."""

    def learn(self, order_id: int, ids: BrokerIds) -> BrokerIds:
        """Remember names."""

    def ids_of(self, order_id: int) -> BrokerIds | None:
        """Names of an order."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A cancel that cannot be sent yet."""

    request: Any  # an OrderRequest of the core
    until_ns: int
    code: int


class OrderAdapter:
    """Carries requests to a broker; one thread calls `execute`, `step` and `run`.

    Parameters
    ----------
    session : Session
        A `LiveSession`.
    broker : Broker
        Where orders go.
    instruments : mapping of int to Instrument
        Every instrument of the engine config, by its id.
    order_ids : OrderNames
        Shared with the ExecutionGateway.
    budget : CallBudget
        Of broker calls; reconciliation takes from the same.
    breaker : CallBreaker
        Keeps openings back while the broker fails.
    fence : Fence
        Says whether this process may send.
    clock_ns : callable
        ns UTC.
    daily_limits : callable, optional
        Limit-up and limit-down of an instrument id, None where they are not known.
    wall_ns : callable, optional
        Clock of the latency figures; by default the machine's.
    cancel_wait_ns : int, optional
        How long a cancel waits for what it needs.
    """

    def __init__(
        self,
        session: Session,
        broker: Broker,
        *,
        instruments: Mapping[int, Instrument],
        order_ids: OrderNames,
        budget: CallBudget,
        breaker: CallBreaker,
        fence: Fence,
        clock_ns: Callable[[], int],
        daily_limits: Callable[[int], tuple[int, int] | None] = lambda _: None,
        wall_ns: Callable[[], int] = time.time_ns,
        cancel_wait_ns: int = CANCEL_WAIT_NS,
    ) -> None:
        self._session, self._broker, self._order_ids = session, broker, order_ids
        self._hours = MarketHours(instruments)
        self._budget, self._breaker, self._fence = budget, breaker, fence
        self._clock_ns, self._wall_ns = clock_ns, wall_ns
        self._daily_limits = daily_limits
        self._cancel_wait_ns = cancel_wait_ns
        self._waiting: deque[_Waiting] = deque()
        self._counters: Counter[str] = Counter()
        self._error: PlatformError | None = None
        self._log_error: PlatformError | None = None

    def execute(self, request: Any) -> CallResult:  # Any: an OrderRequest of the core
        """Make the call of a request, or none, and push what came of it.

        Parameters
        ----------
        request : OrderRequest
            As the session gave it.

        Returns
        -------
        CallResult
            REJECTED with its code, and REQUEST_NOT_SENT in the log, when nothing was called. A
            cancel that waits is REJECTED with CAPACITY_REACHED, BROKER_RATE_SPENT,
            CANCEL_NOT_ALLOWED or ORDER_NOT_FOUND: `step` goes on with it.

        Raises
        ------
        PlatformError
            When the session's log failed: whatever was called, it cannot be written.
        """
        try:
            if request.action == PLACE:
                return self._place(request)
            if request.action == CANCEL:
                return self._cancel(request, self._clock_ns() + self._cancel_wait_ns)
            return self._refuse(request, ReasonCode.ORDER_FIELD_INVALID, None)
        except Exception as error:  # our own fault: it halts, and nothing is silent
            if error is self._log_error:
                raise
            return self._break(request, error)

    def step(self, now_ns: int | None = None) -> None:
        """Send the cancels that waited and need wait no longer.

        Parameters
        ----------
        now_ns : int, optional
            The time, by default the clock's.

        Raises
        ------
        PlatformError
            When the session's log failed.
        """
        now_ns = self._clock_ns() if now_ns is None else now_ns
        waiting, self._waiting = self._waiting, deque()
        for row in waiting:
            if now_ns < row.until_ns:
                try:
                    self._cancel(row.request, row.until_ns)
                except Exception as error:  # as in `execute`
                    if error is self._log_error:
                        raise
                    self._break(row.request, error)
            else:
                self._counters["cancels_given_up"] += 1
                self._refuse(row.request, row.code, None)

    def run(self, stop: threading.Event) -> None:
        """Carry requests until told to stop.

        Parameters
        ----------
        stop : threading.Event
            Ends the loop within a tenth of a second.

        Raises
        ------
        PlatformError
            When the session's log failed, or INVARIANT_BROKEN; `error` holds it.
        """
        while not stop.is_set():
            try:
                timeout_ms = POLL_WAITING_MS if self._waiting else POLL_MS
                request = self._session.next_request(timeout_ms)
                if request is not None:
                    self.execute(request)
                if self._waiting:
                    self.step()
            except Exception as error:  # whatever it is, it is told before the thread ends
                found = _as_platform_error(error)
                self._error = found
                log.error("dispatcher_ended", reason_code=found.code, message=found.message)
                if found is error:
                    raise
                raise found from error

    @property
    def error(self) -> PlatformError | None:
        """What ended the dispatcher, None while it goes on."""
        return self._error

    @property
    def waiting_count(self) -> int:
        """Cancels that wait."""
        return len(self._waiting)

    def counters(self) -> dict[str, int]:
        """Calls by outcome, and requests that were not sent, by code."""
        return dict(sorted(self._counters.items()))

    # Placing

    def _place(self, request: Any) -> CallResult:
        now_ns = self._clock_ns()
        hours = self._hours.at(request.instrument_id, now_ns)
        code = check_place(request, hours, self._daily_limits(request.instrument_id))
        code = code or self._check_time_to_live(request, now_ns) or self._check_halt(request)
        if code is not None or hours is None:
            return self._refuse(request, code or ReasonCode.UNKNOWN_INSTRUMENT, hours)
        code = self._check_means(request, now_ns)
        if code is not None:
            return self._refuse(request, code, hours)
        code = self._check_fence(request)
        if code is not None:
            return self._refuse(request, code, hours)
        if not self._order_ids.begin_call(request):
            # The first call's outcome stands; a record here would contradict it.
            self._counters["second_calls_refused"] += 1
            return CallResult(Outcome.REJECTED, code=ReasonCode.DUPLICATE_INTENT)
        ticket = OrderTicket(
            order_id=request.order_id,
            tag=request.tag,
            symbol=hours.instrument.symbol,
            side=request.side,
            price=request.price,
            qty=request.qty,
            time_in_force=_TIMES_IN_FORCE[request.time_in_force],
        )
        result = self._call(request, lambda: self._broker.place(ticket))
        self._order_ids.end_call(request.order_id)
        self._write_placed(request, result, hours)
        return result

    def _write_placed(self, request: Any, result: CallResult, hours: Hours) -> None:
        if result.outcome is Outcome.REJECTED:
            code = result.code or ReasonCode.BROKER_REJECTED
            self._push(request, BrokerKind.REJECTED, code, hours)
            return
        ids = self._storable(result.ids)
        if result.outcome is Outcome.SENT or ids != BrokerIds():
            self._write(
                route_record(
                    RouteKind.SENT if result.outcome is Outcome.SENT else RouteKind.IDS,
                    order_id=request.order_id,
                    instrument_id=request.instrument_id,
                    receive_time_ns=self._clock_ns(),
                    epoch=request.epoch,
                    tag=request.tag,
                    ids=ids,
                    trading_day=hours.trading_day,
                )
            )
        if result.outcome is Outcome.AMBIGUOUS and self._is_in("pending_new", request):
            # What reports of it were faster is known by now, and needs no asking.
            self._push(
                request, BrokerKind.UNKNOWN, result.code or ReasonCode.ORDER_OUTCOME_UNKNOWN, hours
            )
        # Last: reports that waited for these names come behind the records above.
        self._order_ids.learn(request.order_id, ids)

    def _check_time_to_live(self, request: Any, now_ns: int) -> ReasonCode | None:
        # Counted from the decision: what went before is the session's own latency.
        ttl_ns = int(getattr(request, "ttl_ns", 0))
        is_over = ttl_ns > 0 and now_ns - request.decided_ns > ttl_ns
        return ReasonCode.INTENT_EXPIRED if is_over else None

    def _check_halt(self, request: Any) -> ReasonCode | None:
        # What was decided to open before a halt, be it of this alpha alone, stays in; what the
        # engine closes by it goes out.
        is_halted = bool(self._session.halted_by(request.alpha_index))
        is_kept = is_halted and not self._is_exit(request)
        return ReasonCode.KILL_SWITCH_ON if is_kept else None

    def _check_means(self, request: Any, now_ns: int) -> ReasonCode | None:
        """Budget and breaker; whether it is an exit is looked up only where it matters."""
        if not self._breaker.is_open and self._budget.take(CallKind.OPENING, now_ns):
            return None
        if self._is_exit(request):
            is_left = self._budget.take(CallKind.EXIT, now_ns)
            return None if is_left else ReasonCode.BROKER_RATE_SPENT
        if not self._breaker.is_open:
            return ReasonCode.BROKER_RATE_SPENT
        if not self._breaker.allows(now_ns):
            return ReasonCode.BROKER_BREAKER_OPEN
        is_left = self._budget.take(CallKind.OPENING, now_ns)
        return None if is_left else ReasonCode.BROKER_RATE_SPENT

    def _is_exit(self, request: Any) -> bool:
        """Whether it only reduces its alpha's position, with the other orders of that side."""
        key = (request.alpha_index, request.instrument_id)
        held = sum(
            int(row["position_qty"])
            for row in self._session.positions()
            if (row["alpha_index"], row["instrument_id"]) == key
        )
        open_qty = sum(
            int(row["qty"]) - int(row["filled_qty"])
            for row in self._session.orders()
            if (row["alpha_index"], row["instrument_id"]) == key and row["side"] == request.side
        )
        return bool(-request.side * held >= max(open_qty, request.qty))

    # Canceling

    def _cancel(self, request: Any, until_ns: int) -> CallResult:
        now_ns = self._clock_ns()
        hours = self._hours.at(request.instrument_id, now_ns)
        if hours is not None and not self._is_in("pending_cancel", request):
            # Done, or answered, while it waited: nothing is left to cancel.
            self._counters["cancels_of_done"] += 1
            return CallResult(Outcome.REJECTED, code=ReasonCode.ORDER_STATE_INVALID)
        ids = self._order_ids.ids_of(request.order_id)
        code = check_cancel(request, hours)
        if code is None and ids is None:
            code = ReasonCode.ORDER_NOT_FOUND
        if code is None and not self._budget.take(CallKind.CANCEL, now_ns):
            code = ReasonCode.BROKER_RATE_SPENT
        if code is not None or ids is None or hours is None:
            return self._wait(request, until_ns, code or ReasonCode.ORDER_NOT_FOUND)
        code = self._check_fence(request)
        if code is not None:
            return self._refuse(request, code, hours)
        symbol = hours.instrument.symbol
        result = self._call(request, lambda: self._broker.cancel(ids, symbol))
        if result.outcome is Outcome.REJECTED and self._is_in("pending_cancel", request):
            code = ReasonCode(result.code) if result.code else ReasonCode.BROKER_REJECTED
            self._push(request, BrokerKind.CANCEL_REJECTED, code, hours)
        if result.outcome is Outcome.AMBIGUOUS and self._is_in("pending_cancel", request):
            self._push(
                request, BrokerKind.UNKNOWN, result.code or ReasonCode.ORDER_OUTCOME_UNKNOWN, hours
            )
        return result

    def _wait(self, request: Any, until_ns: int, code: int) -> CallResult:
        if code == ReasonCode.UNKNOWN_INSTRUMENT:
            return self._refuse(request, code, None)
        if len(self._waiting) >= WAITING_COUNT_MAX:
            return self._refuse(request, ReasonCode.CAPACITY_REACHED, None)
        self._counters["cancels_waited"] += 1
        self._waiting.append(_Waiting(request, until_ns, code))
        return CallResult(Outcome.REJECTED, code=code, message="the cancel waits")

    # Both

    def _check_fence(self, request: Any) -> ReasonCode | None:
        try:
            self._fence.check()
        except PlatformError as error:
            is_halt = error.code == ReasonCode.KILL_SWITCH_ON
            if is_halt and (request.action == CANCEL or self._is_exit(request)):
                return None
            return ReasonCode(error.code)
        return None

    def _call(self, request: Any, call: Callable[[], CallResult]) -> CallResult:
        entered_ns = self._wall_ns()
        try:
            result = call()
        except Exception as error:  # noqa: BLE001  # a broker must not raise; nobody knows what it did
            self._counters["broker_errors"] += 1
            log.error("broker_call_raised", order_id=request.order_id, error=repr(error))
            result = CallResult(
                Outcome.AMBIGUOUS, code=ReasonCode.BROKER_ANSWER_UNREADABLE, message=repr(error)
            )
        returned_ns = self._wall_ns()
        if not isinstance(result, CallResult):
            result = CallResult(
                Outcome.AMBIGUOUS, code=ReasonCode.BROKER_ANSWER_UNREADABLE, message=repr(result)
            )
        self._session.mark_call(request.decision_seq, entered_ns, returned_ns)
        self._breaker.note(result, self._clock_ns())
        self._counters[f"{'place' if request.action == PLACE else 'cancel'}_{result.outcome}"] += 1
        if result.outcome is not Outcome.SENT:
            log.warning(
                "broker_call_not_sent",
                order_id=request.order_id,
                outcome=result.outcome.value,
                reason_code=int(result.code),
                message=result.message,
            )
        return result

    def _refuse(self, request: Any, code: int, hours: Hours | None) -> CallResult:
        """Nothing was called: say so, unless the log is another process's by now."""
        self._counters[f"not_sent_{code_name(code)}"] += 1
        log.warning("request_not_sent", order_id=request.order_id, reason_code=int(code))
        if code not in _NOT_LEADER:
            is_cancel = request.action == CANCEL
            kind = BrokerKind.CANCEL_REJECTED if is_cancel else BrokerKind.REJECTED
            if not is_cancel or self._is_in("pending_cancel", request):
                self._push(request, kind, ReasonCode.REQUEST_NOT_SENT, hours)
        return CallResult(Outcome.REJECTED, code=code)

    def _break(self, request: Any, error: Exception) -> CallResult:
        """An error of our own: halt, and hold the order unknown if its call may have been made."""
        self._counters["own_errors"] += 1
        log.error(
            "dispatcher_error",
            reason_code=int(ReasonCode.INVARIANT_BROKEN),
            order_id=getattr(request, "order_id", 0),
            exc_info=error,
        )
        self._write(halt_record(ReasonCode.INVARIANT_BROKEN, self._clock_ns()))
        order = self._session.order(int(getattr(request, "order_id", 0)))
        if order is not None and order["state"] in ("pending_new", "pending_cancel"):
            self._push(request, BrokerKind.UNKNOWN, ReasonCode.INVARIANT_BROKEN, None)
        return CallResult(Outcome.AMBIGUOUS, code=ReasonCode.INVARIANT_BROKEN, message=repr(error))

    def _write(self, tape: bytes) -> None:
        try:
            self._session.push(tape)
        except PlatformError as error:
            self._log_error = error
            raise

    def _is_in(self, state: str, request: Any) -> bool:
        order = self._session.order(request.order_id)
        return order is not None and order["state"] == state

    def _push(self, request: Any, kind: BrokerKind, code: int, hours: Hours | None) -> None:
        qty = _number(request.qty)
        remaining = qty if kind in (BrokerKind.UNKNOWN, BrokerKind.CANCEL_REJECTED) else 0
        self._write(
            broker_record(
                kind,
                order_id=request.order_id,
                instrument_id=request.instrument_id,
                receive_time_ns=self._clock_ns(),
                side=_number(request.side),
                price=_number(request.price),
                qty=qty,
                remaining_qty=remaining,
                code=code,
                trading_day=0 if hours is None else hours.trading_day,
                source_id=SOURCE_RUNTIME,
            )
        )

    def _storable(self, ids: BrokerIds) -> BrokerIds:
        names = (ids.broker_id, ids.seqno, ids.ordno)
        kept = BrokerIds(*(name if is_storable(name, ID_BYTES_MAX) else "" for name in names))
        self._counters["names_unstorable"] += kept != ids
        return kept


def _as_platform_error(error: Exception) -> PlatformError:
    if isinstance(error, PlatformError):
        return error
    return PlatformError(ReasonCode.INVARIANT_BROKEN, f"the dispatcher failed: {error!r}")


def _number(value: object) -> int:
    """A number for a record; 0 for what is none, so that a refusal can still be written."""
    return value if type(value) is int and -VALUE_MAX < value < VALUE_MAX else 0
