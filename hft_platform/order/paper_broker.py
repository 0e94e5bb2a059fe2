"""The paper exchange behind the `Broker` protocol: the broker of every test.

Why: the live path must be run for a whole day, with everything going wrong that can, against an
exchange whose truth can be looked up afterwards.

Invariants:
1. Matching, latency and faults are the core's (`rust_core/src/paper_broker`), the same as in
   research and paper sessions; here is only what a broker calls things.
2. Nothing happens by itself: time passes in `next_event` and `step`, in the thread that calls them,
   and reports come in that thread.
3. A call whose request or answer was lost is AMBIGUOUS; of lost answers to cancels, and of lost
   acknowledgements, half only lack a report later. Nothing of it is told by itself: it must be
   asked for.
4. One execution has one fill id, however often and by whichever way it is told.
5. Answers to questions are the exchange's truth; a question fails as often as requests and replies
   are lost together.

It takes limit orders only and no amendments: the exchange model knows neither. Operator's page:
`docs/brokers.md`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hft_platform import _core, records
from hft_platform.config.canonical import canonical_json
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import Instrument
from hft_platform.order.broker import (
    AccountState,
    BrokerIds,
    BrokerListener,
    BrokerOrder,
    BrokerPosition,
    CallResult,
    EventKind,
    FillEvent,
    OrderEvent,
    OrderStatus,
    OrderTicket,
    Outcome,
    PriceType,
    TimeInForce,
)

_TIME_IN_FORCE = {TimeInForce.ROD: 1, TimeInForce.IOC: 2, TimeInForce.FOK: 3}
_RECORD_TYPE_AT = 2
_RECEIVE_TIME_AT = slice(32, 40)
"""Of `RecordHeader` in rust_core/src/record.rs."""
_MARKET_TYPES = (records.TYPE_CODES["Book"], records.TYPE_CODES["Trade"])
_TIMER_TYPE = records.TYPE_CODES["Timer"]
_WORKING, _REJECTED, _FILL, _CANCELED, _CANCEL_REJECTED, _EXPIRED = range(1, 7)
"""`BrokerEventKind` in rust_core/src/record.rs."""
_EVENTS = {
    _WORKING: EventKind.WORKING,
    _REJECTED: EventKind.REJECTED,
    _CANCELED: EventKind.CANCELED,
    _CANCEL_REJECTED: EventKind.CANCEL_REJECTED,
    _EXPIRED: EventKind.EXPIRED,
}
_STATUSES = {
    0: OrderStatus.PENDING,
    _WORKING: OrderStatus.WORKING,
    _REJECTED: OrderStatus.REJECTED,
    _CANCELED: OrderStatus.CANCELED,
    _EXPIRED: OrderStatus.EXPIRED,
}
_TAKEN, _UNANSWERED, _REFUSED = 1, 2, 3
"""`CallAnswer` in rust_core/src/simulation/outside.rs."""


@dataclass(frozen=True, slots=True)
class _Known:
    """An order as the broker has it in its books."""

    ticket: OrderTicket
    ids: BrokerIds
    lot_size: int

    def fill_id(self, remaining_qty: int) -> str:
        # Every execution leaves less open than the one before, so this is its name.
        return f"{self.ids.ordno}-{(self.ticket.qty - remaining_qty) // self.lot_size}"


class PaperBroker:
    """The paper exchange as a broker.

    Parameters
    ----------
    instruments : iterable of Instrument
        What can be traded.
    latency : dict
        A latency profile, as `load_latency_profile` gives it.
    queue_model : str
        ``risk_adverse``, ``power_prob3`` or ``log_prob``.
    trading_day : int
        yyyymmdd, of the records made here.
    faults : dict, optional
        What goes wrong, as `FaultProfile.core` gives it; by default nothing.
    on_timer : callable, optional
        Told the timer record of every second in which nothing reached us; by default it is dropped,
        because a live runtime makes its own.
    """

    name = "paper"

    def __init__(
        self,
        instruments: Iterable[Instrument],
        *,
        latency: Mapping[str, Any],
        queue_model: str,
        trading_day: int,
        faults: Mapping[str, Any] | None = None,
        on_timer: Callable[[bytes], object] | None = None,
    ) -> None:
        self._instruments = {one.symbol: one for one in instruments}
        self._symbols = {one.instrument_id: one.symbol for one in self._instruments.values()}
        options = {
            "queue_model": queue_model,
            "trading_day": trading_day,
            "faults": None if faults is None else dict(faults),
            "instruments": [
                {
                    "instrument_id": one.instrument_id,
                    "lot_size": one.lot_size,
                    "ticks": [list(band) for band in one.tick_bands],
                }
                for one in self._instruments.values()
            ],
        }
        self._core = _core.PaperBroker(
            canonical_json(dict(latency)).decode(), canonical_json(options).decode()
        )
        self._on_timer = on_timer
        self._listener: BrokerListener | None = None
        self._subscribed: set[int] = set()
        self._known: dict[int, _Known] = {}
        self._by_seqno: dict[str, int] = {}
        self._told: dict[int, tuple[tuple[int, int], BrokerOrder]] = {}
        self._now_ns: int | None = None
        self._reached_ns = 0
        # A report may be under way in one thread while the call that caused it returns in another.
        self._lock = threading.Lock()

    # The market and its time.

    def feed(self, tape: bytes, *, more: bool = False) -> None:
        """Give the exchange its market, whole or in pieces.

        Parameters
        ----------
        tape : bytes
            Books and prints in receive order.
        more : bool
            Another piece follows; the last one, without it, may be empty.

        Raises
        ------
        PlatformError
            When the tape is refused, or the market has its last piece.
        """
        self._core.feed(tape, more=more)

    def next_event(self, limit_ns: int | None = None) -> bool:
        """Let virtual time pass until one record has reached us, and report it.

        Parameters
        ----------
        limit_ns : int, optional
            Time up to which it may pass; a market that still comes in pieces needs one.

        Returns
        -------
        bool
            False when nothing reaches us until then.
        """
        tape = self._core.next(limit_ns)
        if tape is None:
            return False
        self._report(tape)
        return True

    def step(self, now_ns: int) -> int:
        """Report what has reached us by `now_ns`; requests leave then or later from here on.

        Parameters
        ----------
        now_ns : int
            The caller's clock, on the recording's time.

        Returns
        -------
        int
            How many records it was.
        """
        count = 0
        while self.next_event(now_ns):
            count += 1
        self._now_ns = now_ns
        return count

    @property
    def now_ns(self) -> int:
        """The exchange's time; 0 before its first market record."""
        return max(self._core.now_ns, self._now_ns or 0)

    @property
    def reached_ns(self) -> int:
        """Receive time of the last record that was reported; 0 before the first."""
        return self._reached_ns

    @property
    def is_done(self) -> bool:
        """True when the market is over and every request is answered."""
        return self._core.is_done

    def truth(self) -> dict[str, int]:
        """Net position by symbol as the exchange knows it, without a question that could fail."""
        return {self._symbols[number]: qty for number, qty in self._core.truth().items() if qty}

    def finish(self) -> dict[str, Any]:
        """End the exchange and give what it counted.

        Returns
        -------
        dict
            Counters, and under ``faults`` what went wrong; empty the second time.
        """
        return self._core.finish() or {}

    def _report(self, tape: bytes) -> None:
        self._reached_ns = int.from_bytes(tape[_RECEIVE_TIME_AT], "little")
        listener = self._listener
        if listener is None:
            return
        record_type = tape[_RECORD_TYPE_AT]
        if record_type in _MARKET_TYPES:
            if int.from_bytes(tape[4:8], "little") in self._subscribed:
                listener.on_market(tape)
        elif record_type == _TIMER_TYPE:
            if self._on_timer is not None:
                self._on_timer(tape)
        else:
            self._report_order(listener, np.frombuffer(tape, records.DTYPES["Broker"])[0])

    def _report_order(self, listener: BrokerListener, row: np.void) -> None:
        with self._lock:
            known = self._known[int(row["order_id"])]
        ticket, kind = known.ticket, int(row["event_kind"])
        exchange_ns, receive_ns = int(row["exchange_time_ns"]), int(row["receive_time_ns"])
        price, qty, remaining = int(row["price"]), int(row["qty"]), int(row["remaining_qty"])
        if kind == _FILL:
            times = (exchange_ns, receive_ns)
            listener.on_fill(
                _fill(known, price, qty, remaining, times, is_maker=bool(row["is_maker"]))
            )
            return
        listener.on_order(
            OrderEvent(
                kind=_EVENTS[kind],
                ids=known.ids,
                exchange_time_ns=exchange_ns,
                receive_time_ns=receive_ns,
                tag=ticket.tag,
                symbol=ticket.symbol,
                side=ticket.side,
                price=price,
                qty=qty,
                remaining_qty=remaining,
                code=int(row["reason_code"]),
            )
        )

    # The broker.

    def connect(self, listener: BrokerListener) -> None:
        """Begin to report to `listener`."""
        self._listener = listener
        listener.on_connection(True, "paper exchange")

    def subscribe(self, symbols: list[str]) -> None:
        """Report the market of these contracts from here on.

        Raises
        ------
        PlatformError
            CONTRACT_UNKNOWN.
        """
        for symbol in symbols:
            self._subscribed.add(self._instrument(symbol).instrument_id)

    def place(self, ticket: OrderTicket) -> CallResult:
        """Send a new order, once; sent twice it is there twice."""
        try:
            instrument = self._check(ticket)
            with self._lock:
                number, answer = self._core.place(
                    ticket.order_id,
                    instrument.instrument_id,
                    side=ticket.side,
                    price=ticket.price,
                    qty=ticket.qty,
                    time_in_force=_TIME_IN_FORCE[ticket.time_in_force],
                    now_ns=self._now_ns,
                )
                nth = len(self._known) + 1
                ids = BrokerIds(f"K{nth:07d}", f"{nth:06d}", f"P{nth:05d}")
                if answer != _REFUSED:
                    self._known[number] = _Known(ticket, ids, instrument.lot_size)
                    self._by_seqno[ids.seqno] = number
        except PlatformError as error:
            return CallResult(Outcome.REJECTED, code=error.code, message=error.message)
        return _result(answer, ids)

    def cancel(self, ids: BrokerIds, symbol: str) -> CallResult:
        """Ask for the rest of an order to be canceled."""
        with self._lock:
            number = self._by_seqno.get(ids.seqno)
            if number is None:
                return CallResult(
                    Outcome.REJECTED,
                    code=ReasonCode.ORDER_NOT_FOUND,
                    message=f"the paper exchange has no order {ids.seqno!r} in {symbol}",
                )
            answer = self._core.cancel(number, now_ns=self._now_ns)
        return _result(answer, ids)

    def amend(
        self, ids: BrokerIds, symbol: str, *, price: int | None, qty: int | None
    ) -> CallResult:
        """Refuse: the exchange model keeps price and quantity of an order as they are."""
        return CallResult(
            Outcome.REJECTED,
            ids,
            code=ReasonCode.ORDER_FIELD_INVALID,
            message=f"the paper exchange amends no order ({symbol}, price {price}, qty {qty});"
            " cancel it and place another",
        )

    def orders(self) -> list[BrokerOrder]:
        """Every order that the broker knows of; one whose call was cut short once it has arrived.

        Raises
        ------
        PlatformError
            BROKER_QUERY_FAILED when the question is lost.
        """
        with self._lock:
            rows = self._core.orders()
            if rows is None:
                raise _lost("orders")
            now_ns = self.now_ns
            return [self._order(row, now_ns) for row in rows]

    def _order(self, row: dict[str, Any], now_ns: int) -> BrokerOrder:
        told = self._told.get(row["id"])
        if told is not None and told[0] == (row["status"], len(row["fills"])):
            return told[1]
        known = self._known[row["id"]]
        fills = tuple(
            _fill(known, price, qty, remaining, (time_ns, now_ns), is_maker=is_maker)
            for price, qty, remaining, time_ns, is_maker in row["fills"]
        )
        filled = sum(fill.qty for fill in fills)
        status = _STATUSES.get(row["status"])
        if status is None:
            done = filled == known.ticket.qty
            status = OrderStatus.FILLED if done else OrderStatus.WORKING
        order = BrokerOrder(
            ids=known.ids,
            tag=known.ticket.tag,
            symbol=known.ticket.symbol,
            side=known.ticket.side,
            price=known.ticket.price,
            qty=known.ticket.qty,
            filled_qty=filled,
            status=status,
            fills=fills,
            code=row["reason_code"],
        )
        # A day's orders are asked for a thousand times, and most of them are done.
        self._told[row["id"]] = ((row["status"], len(fills)), order)
        return order

    def positions(self) -> list[BrokerPosition]:
        """Net positions.

        Raises
        ------
        PlatformError
            BROKER_QUERY_FAILED when the question is lost.
        """
        rows = self._core.positions()
        if rows is None:
            raise _lost("positions")
        return [BrokerPosition(self._symbols[number], qty) for number, qty in rows.items() if qty]

    def account(self) -> AccountState:
        """Say when it was asked; the paper exchange keeps no money."""
        return AccountState(answer_time_ns=self.now_ns)

    def close(self) -> None:
        """Report nothing any more."""
        self._listener = None

    def _instrument(self, symbol: str) -> Instrument:
        instrument = self._instruments.get(symbol)
        if instrument is None:
            raise PlatformError(
                ReasonCode.CONTRACT_UNKNOWN,
                f"the paper exchange has no contract {symbol!r}; it has"
                f" {', '.join(sorted(self._instruments))}",
            )
        return instrument

    def _check(self, ticket: OrderTicket) -> Instrument:
        instrument = self._instrument(ticket.symbol)
        for field, value, allowed, holds in (
            ("price_type", ticket.price_type, "LMT", ticket.price_type is PriceType.LMT),
            ("side", ticket.side, "+1 or -1", ticket.side in (1, -1)),
            ("price", ticket.price, "above 0", ticket.price > 0),
            ("qty", ticket.qty, "whole lots, above 0", _is_lots(ticket.qty, instrument)),
        ):
            if not holds:
                raise PlatformError(
                    ReasonCode.ORDER_FIELD_INVALID,
                    f"{field} of order {ticket.order_id} was {value}, allowed is {allowed}",
                )
        return instrument


def _fill(
    known: _Known,
    price: int,
    qty: int,
    remaining: int,
    times_ns: tuple[int, int],
    *,
    is_maker: bool,
) -> FillEvent:
    return FillEvent(
        ids=known.ids,
        fill_id=known.fill_id(remaining),
        symbol=known.ticket.symbol,
        side=known.ticket.side,
        price=price,
        qty=qty,
        exchange_time_ns=times_ns[0],
        receive_time_ns=times_ns[1],
        tag=known.ticket.tag,
        is_maker=is_maker,
    )


def _is_lots(qty: int, instrument: Instrument) -> bool:
    return qty > 0 and qty % instrument.lot_size == 0


def _result(answer: int, ids: BrokerIds) -> CallResult:
    if answer == _TAKEN:
        return CallResult(Outcome.SENT, ids)
    if answer == _UNANSWERED:
        return CallResult(
            Outcome.AMBIGUOUS,
            code=ReasonCode.BROKER_TIMEOUT,
            message="the paper exchange did not answer",
        )
    return CallResult(
        Outcome.REJECTED,
        code=ReasonCode.SESSION_NOT_OPEN,
        message="the paper exchange is closed",
    )


def _lost(what: str) -> PlatformError:
    return PlatformError(
        ReasonCode.BROKER_QUERY_FAILED, f"the question for {what} was not answered"
    )
