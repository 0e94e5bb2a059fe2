"""The misbehaving broker within a process and in virtual time, behind the `Broker` protocol.

Why: ten thousand runs in a minute need a broker without a socket and a clock without waiting.

Invariants:
1. A reply that is late, lost or cut is AMBIGUOUS to the caller, whatever came of the call.
2. Reports come from `deliver` only, never within a call, and to whoever connected last.
3. `interrupt` is asked right before and right after a call took effect; what it raises, the caller
   of `place` gets: that is how a process dies in a call.

Operator's page: `docs/drills/order-chaos.md`.
"""

from __future__ import annotations

from collections.abc import Callable

from hft_platform.drills.broker_book import BrokerBook, Reply
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.order.broker import (
    AccountState,
    BrokerIds,
    BrokerListener,
    BrokerOrder,
    BrokerPosition,
    CallResult,
    FillEvent,
    OrderTicket,
    Outcome,
)


def _never(_: str) -> None:
    """No interruption."""


class SimBroker:
    """One gateway's connection to a `BrokerBook`.

    Parameters
    ----------
    book : BrokerBook
        The account; survives every gateway.
    clock_ns : callable
        Virtual time.
    interrupt : callable, optional
        Called with ``before_place``, ``after_place`` and their like; may raise.
    """

    name = "drill"

    def __init__(
        self,
        book: BrokerBook,
        clock_ns: Callable[[], int],
        *,
        interrupt: Callable[[str], None] = _never,
    ) -> None:
        self._book = book
        self._clock_ns = clock_ns
        self._interrupt = interrupt
        self._listener: BrokerListener | None = None

    def connect(self, listener: BrokerListener) -> None:
        """Report to this listener from now on."""
        self._listener = listener
        listener.on_connection(True, "")

    def subscribe(self, symbols: list[str]) -> None:
        """Quotes are the harness's business."""

    def place(self, ticket: OrderTicket) -> CallResult:
        """Send a new order."""
        self._interrupt("before_place")
        reply = self._book.place(ticket, self._clock_ns())
        self._interrupt("after_place")
        return _heard(reply)

    def cancel(self, ids: BrokerIds, symbol: str) -> CallResult:
        """Ask for the rest of an order to be canceled."""
        self._interrupt("before_cancel")
        reply = self._book.cancel(ids, self._clock_ns())
        self._interrupt("after_cancel")
        return _heard(reply)

    def amend(
        self, ids: BrokerIds, symbol: str, *, price: int | None, qty: int | None
    ) -> CallResult:
        """Ask for another price, or for a smaller quantity."""
        return _heard(self._book.amend(ids, price, qty, self._clock_ns()))

    def orders(self) -> list[BrokerOrder]:
        """Every order of the run."""
        self._answer("orders")
        return self._book.orders()

    def positions(self) -> list[BrokerPosition]:
        """Net positions."""
        self._answer("positions")
        return self._book.positions()

    def account(self) -> AccountState:
        """No money is modeled: nothing is answered but the time."""
        self._answer("account")
        return AccountState(answer_time_ns=self._clock_ns())

    def close(self) -> None:
        """Report to nobody."""
        self._listener = None

    def deliver(self) -> int:
        """Report what is due by now; what is due while nobody listens is lost.

        Returns
        -------
        int
            How many reports were due.
        """
        reports = self._book.advance(self._clock_ns())
        for report in reports:
            if self._listener is None:
                continue
            if isinstance(report, FillEvent):
                self._listener.on_fill(report)
            else:
                self._listener.on_order(report)
        return len(reports)

    def _answer(self, what: str) -> None:
        if not self._book.answers():
            raise PlatformError(
                ReasonCode.BROKER_QUERY_FAILED, f"the drill's broker did not answer about {what}"
            )


def _heard(reply: Reply) -> CallResult:
    if reply.delay_ns == 0 and not reply.is_cut:
        return reply.result
    return CallResult(Outcome.AMBIGUOUS, code=ReasonCode.BROKER_TIMEOUT, message="no reply in time")
