"""Stands between runtime and broker: what comes is passed on, measured, and never lost in a thread.

Why: a broker's callback thread is not ours. An error raised in it ends nowhere, and the time from a
call to its first answer is seen nowhere else.

Invariants:
1. Everything is passed on unchanged and in order; only market records can be muted, for the stop.
2. What a callback raises is kept as the failure of the process, which ends for it.
3. Memory is bounded: of more than `WAITING_MAX` unanswered calls the oldest is forgotten.

It decides nothing. Operator's page: `docs/live.md`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from hft_platform.order.broker import (
    AccountState,
    Broker,
    BrokerIds,
    BrokerListener,
    BrokerOrder,
    BrokerPosition,
    CallResult,
    FillEvent,
    OrderEvent,
    OrderTicket,
    Outcome,
)

if TYPE_CHECKING:
    from hft_platform.services.live_control import LiveControl

WAITING_MAX = 1_024

log = structlog.get_logger()


class ProbedBroker:
    """A broker, and the time from each of its calls to the first answer.

    Parameters
    ----------
    broker : Broker
        The real one.
    clock_ns : callable
        ns UTC.
    """

    def __init__(self, broker: Broker, clock_ns: Callable[[], int]) -> None:
        self.name = broker.name
        self.inner = broker
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._tags: dict[str, str] = {}
        self.worst_rtt = (0, 0)
        self._unreadable = 0

    def connect(self, listener: BrokerListener) -> None:
        """Log in and begin to report."""
        self.inner.connect(listener)

    def subscribe(self, symbols: list[str]) -> None:
        """Ask for quotes."""
        self.inner.subscribe(symbols)

    def place(self, ticket: OrderTicket) -> CallResult:
        """Send a new order, once."""
        with self._lock:
            while len(self._waiting) >= WAITING_MAX:
                self._waiting.popitem(last=False)
            self._waiting[ticket.tag] = (ticket.order_id, self._clock_ns())
        result = self.inner.place(ticket)
        with self._lock:
            if result.outcome != Outcome.SENT:
                self._waiting.pop(ticket.tag, None)
            elif _name(result.ids) and ticket.tag in self._waiting:
                self._tags[_name(result.ids)] = ticket.tag
        return result

    def cancel(self, ids: BrokerIds, symbol: str) -> CallResult:
        """Ask for the rest of an order to be canceled."""
        return self.inner.cancel(ids, symbol)

    def amend(
        self, ids: BrokerIds, symbol: str, *, price: int | None, qty: int | None
    ) -> CallResult:
        """Ask for another price, or for a smaller quantity."""
        return self.inner.amend(ids, symbol, price=price, qty=qty)

    def orders(self) -> list[BrokerOrder]:
        """Every order of the trading day."""
        return self.inner.orders()

    def positions(self) -> list[BrokerPosition]:
        """Net positions."""
        return self.inner.positions()

    def account(self) -> AccountState:
        """Money and margin."""
        return self.inner.account()

    def close(self) -> None:
        """Log out."""
        self.inner.close()

    def note_answer(self, ids: BrokerIds, tag: str) -> None:
        """The broker said something about an order."""
        with self._lock:
            known = self._tags.pop(_name(ids), "")
            found = self._waiting.pop(tag or known, None)
            if found is None:
                return
            order_id, called_ns = found
            rtt_ns = max(0, self._clock_ns() - called_ns)
            if rtt_ns > self.worst_rtt[0]:
                self.worst_rtt = (rtt_ns, order_id)

    def look_after(self) -> None:
        """Let the broker look after its session and its quotes, where it has to."""
        look_after_broker(self.inner, self._clock_ns())

    def take_unreadable(self) -> int:
        """Quotes that could not be read since the last call; 0 where nobody counts them."""
        count = getattr(self.inner, "unreadable_quotes", None)
        total = self._unreadable if count is None else int(count())
        before, self._unreadable = self._unreadable, total
        return max(0, total - before)

    def daily_limits(self, symbol: str) -> tuple[int, int] | None:
        """Limit-up and limit-down as the broker says them, None where it does not."""
        return daily_limits_of(self.inner, symbol)

    def take_worst_rtt(self) -> tuple[int, int]:
        """Longest time to a first answer since the last call, and whose."""
        with self._lock:
            worst, self.worst_rtt = self.worst_rtt, (0, 0)
        return worst


def look_after_broker(broker: Broker, now_ns: int) -> None:
    """Call a broker's `look_after`, which only one with a session of its own has.

    Parameters
    ----------
    broker : Broker
        Any.
    now_ns : int
        The time.
    """
    look_after = getattr(broker, "look_after", None)
    if look_after is not None:
        look_after(now_ns)


def daily_limits_of(broker: Broker, symbol: str) -> tuple[int, int] | None:
    """Limit-up and limit-down of the day, of a broker that states them.

    Parameters
    ----------
    broker : Broker
        Any.
    symbol : str
        Ours.
    """
    limits = getattr(broker, "daily_limits", None)
    found: tuple[int, int] | None = None if limits is None else limits(symbol)
    return found


def _name(ids: BrokerIds) -> str:
    return ids.seqno or ids.broker_id


class SystemListener:
    """Takes what the broker reports, on whatever thread.

    Parameters
    ----------
    inner : BrokerListener
        The ExecutionGateway.
    probe : ProbedBroker
        Measures answers.
    control : LiveControl
        Told when a market record came.
    clock_ns : callable
        ns UTC.
    """

    def __init__(
        self,
        inner: BrokerListener,
        probe: ProbedBroker,
        control: LiveControl,
        *,
        clock_ns: Callable[[], int],
    ) -> None:
        self._inner, self._probe, self._control = inner, probe, control
        self._clock_ns = clock_ns
        self._failed: Callable[[BaseException], None] | None = None
        self.is_muted = False
        self.is_connected = False

    def report_failures_to(self, failed: Callable[[BaseException], None]) -> None:
        """Say who is told of what a callback raised; without anybody it is raised."""
        self._failed = failed

    def on_market(self, tape: bytes) -> None:
        """Market records."""
        if self.is_muted or not tape:
            return
        self._control.last_market_ns = self._clock_ns()
        self._pass(lambda: self._inner.on_market(tape))

    def on_order(self, event: OrderEvent) -> None:
        """Something about an order."""
        self._probe.note_answer(event.ids, event.tag)
        self._pass(lambda: self._inner.on_order(event))

    def on_fill(self, event: FillEvent) -> None:
        """An execution."""
        self._probe.note_answer(event.ids, event.tag)
        self._pass(lambda: self._inner.on_fill(event))

    def on_connection(self, is_up: bool, message: str) -> None:
        """The connection came or went."""
        self.is_connected = is_up
        log.log(20 if is_up else 40, "broker_connection", is_up=is_up, message=message[:200])
        self._pass(lambda: self._inner.on_connection(is_up, message))

    def _pass(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # the broker's thread would swallow it
            if self._failed is None:
                raise
            self._failed(error)
