"""The gateway as a broker: what a strategy runner sends its orders to when several share one.

Why: a runner is the same live process whether it talks to a broker or to a gateway; only this
file knows the difference.

Invariants:
1. An intent is put on the channel once. What could not be put there is REJECTED, what the gateway
   refused is REJECTED with its code, and what was not answered is AMBIGUOUS: it is asked for, by
   tag.
2. A fill has the same `fill_id` however often it comes: the gateway's order and the fill's number
   in it. Events of a runner that starts over come again from the first one on.
3. An order of ours that the gateway does not name was never handed to its engine: an intent that
   waits on a connection dies with it.

One runner is one alpha, the first of its engine: the low 32 bits of an order id number its
intents. It judges nothing; the gateway's engine does, once more. Operator's page:
`docs/gateway.md`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from hft_platform import records
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.gateway import wire
from hft_platform.gateway.channel_client import ChannelClient, sent_now_ns
from hft_platform.gateway.order_views import Status
from hft_platform.input_records import BrokerKind
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

_PLACE, _CANCEL = 1, 2
_ENTRY, _REQUOTE = 1, 4
_EXTERNAL_ID_MAX = (1 << 32) - 1
_BROKER = records.DTYPES["Broker"]
_TIME_IN_FORCE = {TimeInForce.ROD: 1, TimeInForce.IOC: 2, TimeInForce.FOK: 3}
_STATUS = {
    Status.PENDING: OrderStatus.PENDING,
    Status.WORKING: OrderStatus.WORKING,
    Status.FILLED: OrderStatus.FILLED,
    Status.CANCELED: OrderStatus.CANCELED,
    Status.REJECTED: OrderStatus.REJECTED,
    Status.EXPIRED: OrderStatus.EXPIRED,
}
_EVENTS = {
    BrokerKind.WORKING: EventKind.WORKING,
    BrokerKind.REJECTED: EventKind.REJECTED,
    BrokerKind.CANCELED: EventKind.CANCELED,
    BrokerKind.CANCEL_REJECTED: EventKind.CANCEL_REJECTED,
    BrokerKind.EXPIRED: EventKind.EXPIRED,
}


class GatewayBroker:
    """A gateway's intent channel, as a broker.

    Parameters
    ----------
    socket_path : Path
        Of the channel.
    hello : Hello
        Who this runner is.
    symbols : mapping of int to str
        Symbols by instrument id.
    intent_ttl_ns : int
        Validity of an intent on the channel and before dispatch.
    answer_s : float
        Longest wait for an answer; then the outcome is ambiguous.
    connect_s : float
        Longest wait for a gateway at the start.
    clock_ns : callable
        Wall clock, ns UTC.
    """

    name = "gateway"

    def __init__(
        self,
        socket_path: Path,
        hello: wire.Hello,
        symbols: Mapping[int, str],
        *,
        intent_ttl_ns: int,
        answer_s: float,
        connect_s: float,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._path = socket_path
        self._hello = hello
        self._symbols = dict(symbols)
        self._ids = {symbol: number for number, symbol in symbols.items()}
        self._intent_ttl_ns = intent_ttl_ns
        self._answer_s = answer_s
        self._connect_s = connect_s
        self._clock_ns = clock_ns
        self._client: ChannelClient | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def connect(self, listener: BrokerListener) -> None:
        """Find the gateway and begin to report.

        Parameters
        ----------
        listener : BrokerListener
            Told from a thread of this broker's own.

        Raises
        ------
        PlatformError
            CHANNEL_UNREACHABLE when no gateway leads, or why it does not want this runner.
        """
        if self._thread is not None:
            return
        told = _Told(listener, self._symbols)
        client = ChannelClient(self._path, self._hello, told, answer_s=self._answer_s)
        self._stop.clear()
        thread = threading.Thread(
            target=client.run, args=(self._stop,), name="gateway-broker", daemon=True
        )
        self._client, self._thread = client, thread
        thread.start()
        if client.wait_welcome(self._connect_s):
            return
        refusal = client.refusal
        self.close()
        raise refusal or PlatformError(
            ReasonCode.CHANNEL_UNREACHABLE,
            f"no gateway answered at {self._path} within {self._connect_s} s",
        )

    def subscribe(self, symbols: list[str]) -> None:
        """Ask the gateway for the market records of these contracts.

        Parameters
        ----------
        symbols : list of str
            As the instruments file names them.
        """
        self._connected().subscribe([self._instrument_id(symbol) for symbol in symbols])

    def place(self, ticket: OrderTicket) -> CallResult:
        """Hand an intent to the gateway, once.

        Parameters
        ----------
        ticket : OrderTicket
            A limit order.

        Returns
        -------
        CallResult
        """
        if ticket.price_type is not PriceType.LMT:
            return _rejected(
                ReasonCode.ORDER_FIELD_INVALID, f"price type {ticket.price_type} over the channel"
            )
        if not 0 < ticket.order_id <= _EXTERNAL_ID_MAX:
            return _rejected(
                ReasonCode.ORDER_FIELD_INVALID,
                f"order {ticket.order_id}: a runner has one alpha, the first of its engine",
            )
        row = self._intent(ticket.symbol, _PLACE, _ENTRY)
        row["source_seq"] = wire.tag_number(ticket.tag)
        row["external_id"] = ticket.order_id
        row["side"], row["price"], row["qty"] = ticket.side, ticket.price, ticket.qty
        row["time_in_force"] = _TIME_IN_FORCE[ticket.time_in_force]
        return self._send(row.tobytes())

    def cancel(self, ids: BrokerIds, symbol: str) -> CallResult:
        """Ask the gateway to cancel.

        Parameters
        ----------
        ids : BrokerIds
            As `place` gave them.
        symbol : str
            Of the order.

        Returns
        -------
        CallResult
        """
        try:
            order_id = int(ids.broker_id, 16)
        except ValueError:
            return _rejected(
                ReasonCode.ORDER_UNKNOWN, f"order {ids.broker_id!r} is not a gateway's"
            )
        row = self._intent(symbol, _CANCEL, _REQUOTE)
        row["order_id"] = order_id
        return self._send(row.tobytes())

    def amend(
        self, ids: BrokerIds, symbol: str, *, price: int | None, qty: int | None
    ) -> CallResult:
        """Refuse: an amended order is a canceled and a new one here.

        Parameters
        ----------
        ids : BrokerIds
            Of the order.
        symbol : str
            Of the order.
        price, qty : int or None
            Wanted.

        Returns
        -------
        CallResult
        """
        return _rejected(
            ReasonCode.ORDER_FIELD_INVALID,
            f"order {ids.broker_id} of {symbol}: the channel amends nothing ({price}, {qty})",
        )

    def orders(self) -> list[BrokerOrder]:
        """Every order of this alpha in the gateway's session, done ones included."""
        merged: dict[int, BrokerOrder] = {}
        for row in self._ask(wire.Question.ORDERS):
            if not isinstance(row, wire.Order):
                continue
            order = self._order(row)
            known = merged.get(row.order_id)
            fills = order.fills if known is None else known.fills + order.fills
            merged[row.order_id] = BrokerOrder(
                order.ids, order.tag, order.symbol, order.side, order.price, order.qty,
                order.filled_qty, order.status, fills, order.code, order.message,
            )  # fmt: skip
        return list(merged.values())

    def positions(self) -> list[BrokerPosition]:
        """Net positions of this alpha."""
        return [
            BrokerPosition(self._symbols[row.instrument_id], row.net_qty)
            for row in self._ask(wire.Question.POSITIONS)
            if isinstance(row, wire.Position) and row.instrument_id in self._symbols
        ]

    def account(self) -> AccountState:
        """Money, as the broker last told the gateway."""
        for row in self._ask(wire.Question.ACCOUNT):
            if isinstance(row, wire.Account):
                is_known = bool(row.fields & 1)
                return AccountState(
                    row.answer_time_ns,
                    row.equity if is_known else None,
                    row.free_margin if is_known else None,
                )
        raise PlatformError(ReasonCode.BROKER_QUERY_FAILED, "the gateway told no account")

    def close(self) -> None:
        """Leave the gateway; callable twice."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(self._answer_s + 1.0)
        self._client = None

    def _connected(self) -> ChannelClient:
        if self._client is None:
            raise PlatformError(ReasonCode.CHANNEL_UNREACHABLE, "not connected to a gateway")
        return self._client

    def _instrument_id(self, symbol: str) -> int:
        try:
            return self._ids[symbol]
        except KeyError as error:
            raise PlatformError(
                ReasonCode.CONTRACT_UNKNOWN, f"{symbol} is no instrument of this runner"
            ) from error

    def _intent(self, symbol: str, action: int, reason: int):  # type: ignore[no-untyped-def]  # one numpy row
        row = records.empty("Intent", 1)
        row["instrument_id"] = self._instrument_id(symbol)
        row["action"], row["intent_reason"] = action, reason
        row["ttl_ns"] = self._intent_ttl_ns
        row["exchange_time_ns"] = self._clock_ns()
        return row

    def _send(self, record: bytes) -> CallResult:
        client = self._client
        welcome = client.welcome if client is not None else None
        if client is None or welcome is None:
            return _rejected(ReasonCode.CHANNEL_UNREACHABLE, "not connected to a gateway")
        row = records.split(record)["Intent"].copy()
        row["alpha_index"] = welcome.alpha_index
        try:
            answer, _ = client.request(
                lambda number: wire.intent(wire.Intent(number, sent_now_ns(), row.tobytes()))
            )
        except PlatformError as error:
            if error.code == ReasonCode.ORDER_OUTCOME_UNKNOWN:
                return CallResult(
                    Outcome.AMBIGUOUS, code=ReasonCode.BROKER_TIMEOUT, message=error.message
                )
            return _rejected(error.code, error.message)
        if isinstance(answer, wire.Ack):
            return CallResult(Outcome.SENT, BrokerIds(broker_id=_broker_id(answer.order_id)))
        if isinstance(answer, wire.Nack):
            text = f"the gateway refused: {code_name(answer.code)}"
            return _rejected(answer.code, f"{text}, was {answer.observed}, limit {answer.limit}")
        return CallResult(
            Outcome.AMBIGUOUS, code=ReasonCode.BROKER_ANSWER_UNREADABLE, message=repr(answer)
        )

    def _ask(self, question: wire.Question) -> list[wire.Order | wire.Position | wire.Account]:
        try:
            answer, rows = self._connected().request(lambda number: wire.ask(number, question))
        except PlatformError as error:
            raise PlatformError(ReasonCode.BROKER_QUERY_FAILED, error.message) from error
        if not isinstance(answer, wire.Answered) or answer.code:
            raise PlatformError(ReasonCode.BROKER_QUERY_FAILED, f"the gateway answered {answer!r}")
        if len({getattr(row, "order_id", at) for at, row in enumerate(rows)}) != answer.row_count:
            raise PlatformError(
                ReasonCode.BROKER_QUERY_FAILED,
                f"the gateway's answer had {len(rows)} rows, {answer.row_count} were said",
            )
        return rows

    def _order(self, row: wire.Order) -> BrokerOrder:
        size = wire.BROKER_BYTES
        fills = tuple(
            _fill(row.fills[at : at + size], row.tag_number, self._symbols)
            for at in range(0, len(row.fills), size)
        )
        return BrokerOrder(
            BrokerIds(broker_id=_broker_id(row.order_id)), wire.tag_text(row.tag_number),
            self._symbols.get(row.instrument_id, ""), row.side, row.price, row.qty, row.filled_qty,
            _STATUS[Status(row.status)], fills, row.code,
        )  # fmt: skip


class _Told:
    """Turns what the channel tells into what a broker tells."""

    def __init__(self, listener: BrokerListener, symbols: Mapping[int, str]) -> None:
        self._listener = listener
        self._symbols = symbols

    def on_event(self, event: wire.Event) -> None:
        """An order event or a fill."""
        row = records.split(event.record)["Broker"][0]
        kind = BrokerKind(int(row["event_kind"]))
        if kind is BrokerKind.FILL:
            self._listener.on_fill(_fill(event.record, event.tag_number, self._symbols))
            return
        if kind is BrokerKind.UNKNOWN:
            # The gateway asks the broker; what it finds comes as an event like any other.
            return
        self._listener.on_order(
            OrderEvent(
                _EVENTS[kind],
                BrokerIds(broker_id=_broker_id(int(row["order_id"]))),
                int(row["exchange_time_ns"]),
                int(row["receive_time_ns"]),
                tag=wire.tag_text(event.tag_number),
                symbol=self._symbols.get(int(row["instrument_id"]), ""),
                side=int(row["side"]),
                price=int(row["price"]),
                qty=int(row["qty"]),
                remaining_qty=int(row["remaining_qty"]),
                code=int(row["reason_code"]),
            )
        )

    def on_market(self, tape: bytes) -> None:
        """Market records, as they are."""
        self._listener.on_market(tape)

    def on_channel(self, is_up: bool, message: str) -> None:
        """The gateway was found, or lost."""
        self._listener.on_connection(is_up, message)


def _fill(record: bytes, tag_number: int, symbols: Mapping[int, str]) -> FillEvent:
    row = records.split(record)["Broker"][0]
    broker_id = _broker_id(int(row["order_id"]))
    return FillEvent(
        BrokerIds(broker_id=broker_id),
        f"{broker_id}.{int(row['broker_seq'])}",
        symbols.get(int(row["instrument_id"]), ""),
        int(row["side"]),
        int(row["price"]),
        int(row["qty"]),
        int(row["exchange_time_ns"]),
        int(row["receive_time_ns"]),
        tag=wire.tag_text(tag_number),
        is_maker=bool(row["is_maker"]),
    )


def _broker_id(order_id: int) -> str:
    return f"{order_id:016x}"


def _rejected(code: int, message: str) -> CallResult:
    return CallResult(Outcome.REJECTED, code=code, message=message)
