"""What a broker is to this platform: a small protocol, and the facts that cross it.

Why: the paper exchange, Shioaji and the next broker must be exchangeable by one file, and nothing
behind this line may know which one it talks to.

Invariants:
1. A call that asks for something to be done (`place`, `cancel`, `amend`) never raises for what the
   broker did: it answers SENT, REJECTED (definitely not there) or AMBIGUOUS (nobody knows). Whoever
   cannot tell answers AMBIGUOUS.
2. A question (`orders`, `positions`, `account`) that failed raises BROKER_QUERY_FAILED; an empty
   answer means that there is nothing.
3. Prices and quantities are integers at 1e-8, times ns UTC; a broker's words stay in its adapter.
4. Events may come from any thread, before the call that caused them has returned, twice, and in any
   order; whoever takes them copes.

It sends nothing itself. Operator's page: `docs/brokers.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from hft_platform.errors import ReasonCode


class TimeInForce(StrEnum):
    """How long an order lives: the rest of the session, or not at all."""

    ROD = "ROD"
    IOC = "IOC"
    FOK = "FOK"


class PriceType(StrEnum):
    """Limit, market, or market within a range."""

    LMT = "LMT"
    MKT = "MKT"
    MKP = "MKP"


class Outcome(StrEnum):
    """What is known after a call."""

    SENT = "sent"
    REJECTED = "rejected"
    AMBIGUOUS = "ambiguous"


class OrderStatus(StrEnum):
    """Where the broker says an order is."""

    PENDING = "pending"
    WORKING = "working"
    FILLED = "filled"
    CANCELED = "canceled"
    REJECTED = "rejected"
    EXPIRED = "expired"


class EventKind(StrEnum):
    """What happened to an order; a fill is a `FillEvent`."""

    WORKING = "working"
    REJECTED = "rejected"
    CANCELED = "canceled"
    CANCEL_REJECTED = "cancel_rejected"
    AMENDED = "amended"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class BrokerIds:
    """What the broker calls an order; empty where it has not said so yet.

    Attributes
    ----------
    broker_id, seqno, ordno : str
        ASCII, at most 16 characters each.
    """

    broker_id: str = ""
    seqno: str = ""
    ordno: str = ""


@dataclass(frozen=True, slots=True)
class OrderTicket:
    """One order to place.

    Attributes
    ----------
    order_id : int
        Ours.
    tag : str
        Six letters or digits that the broker carries with the order, unique for ever: the only
        thing by which an order whose call was cut short can be found.
    symbol : str
        Contract, as the instruments file names it.
    side : int
        +1 buy, -1 sell.
    price : int
        Limit price at 1e-8; 0 for MKT and MKP.
    qty : int
        Quantity at 1e-8, positive.
    """

    order_id: int
    tag: str
    symbol: str
    side: int
    price: int
    qty: int
    time_in_force: TimeInForce = TimeInForce.ROD
    price_type: PriceType = PriceType.LMT


@dataclass(frozen=True, slots=True)
class CallResult:
    """What a call came to; `code` is 0 when it was sent."""

    outcome: Outcome
    ids: BrokerIds = BrokerIds()
    code: int = ReasonCode.UNSET
    message: str = ""


@dataclass(frozen=True, slots=True)
class OrderEvent:
    """The broker said something about an order.

    Attributes
    ----------
    ids : BrokerIds
        As far as the event names them.
    tag : str
        Empty where the event does not carry it.
    symbol : str
        Ours; empty where the event does not say.
    side, price, qty, remaining_qty : int
        As far as known, else 0.
    code : int
        Why it was refused, else 0.
    """

    kind: EventKind
    ids: BrokerIds
    exchange_time_ns: int
    receive_time_ns: int
    tag: str = ""
    symbol: str = ""
    side: int = 0
    price: int = 0
    qty: int = 0
    remaining_qty: int = 0
    code: int = ReasonCode.UNSET
    message: str = ""


@dataclass(frozen=True, slots=True)
class FillEvent:
    """One execution.

    Attributes
    ----------
    fill_id : str
        Names this execution among all of the order, at most 32 ASCII characters; the same text
        however often and by whichever way it is reported.
    is_maker : bool
        False where the broker does not say.
    """

    ids: BrokerIds
    fill_id: str
    symbol: str
    side: int
    price: int
    qty: int
    exchange_time_ns: int
    receive_time_ns: int
    tag: str = ""
    is_maker: bool = False


@dataclass(frozen=True, slots=True)
class BrokerOrder:
    """An order as the broker holds it, with all its executions."""

    ids: BrokerIds
    tag: str
    symbol: str
    side: int
    price: int
    qty: int
    filled_qty: int
    status: OrderStatus
    fills: tuple[FillEvent, ...] = ()
    code: int = ReasonCode.UNSET
    message: str = ""


@dataclass(frozen=True, slots=True)
class BrokerPosition:
    """Net position in one contract; `net_qty` is signed, `average_price` 0 where unknown."""

    symbol: str
    net_qty: int
    average_price: int = 0


@dataclass(frozen=True, slots=True)
class AccountState:
    """Money of the account at 1e-8, and when the broker said so; None is not answered."""

    answer_time_ns: int
    equity: int | None = None
    free_margin: int | None = None
    margin_per_lot: dict[str, int] | None = None


class BrokerListener(Protocol):
    """Takes what a broker reports."""

    def on_market(self, tape: bytes) -> None:
        """Market records with receive times, whole records one behind the other."""

    def on_order(self, event: OrderEvent) -> None:
        """Something about an order."""

    def on_fill(self, event: FillEvent) -> None:
        """An execution."""

    def on_connection(self, is_up: bool, message: str) -> None:
        """The connection came or went."""


class Broker(Protocol):
    """A broker, or what stands in for one."""

    name: str

    def connect(self, listener: BrokerListener) -> None:
        """Log in, load contracts and begin to report.

        Raises
        ------
        PlatformError
            BROKER_LOGIN_FAILED, BROKER_UNREACHABLE, CERTIFICATE_MISSING and their like.
        """

    def subscribe(self, symbols: list[str]) -> None:
        """Ask for the quotes of these contracts; SUBSCRIPTION_LIMIT, CONTRACT_UNKNOWN."""

    def place(self, ticket: OrderTicket) -> CallResult:
        """Send a new order, once."""

    def cancel(self, ids: BrokerIds, symbol: str) -> CallResult:
        """Ask for the rest of an order to be canceled."""

    def amend(
        self, ids: BrokerIds, symbol: str, *, price: int | None, qty: int | None
    ) -> CallResult:
        """Ask for another price, or for a smaller quantity."""

    def orders(self) -> list[BrokerOrder]:
        """Every order of the trading day, done ones included."""

    def positions(self) -> list[BrokerPosition]:
        """Net positions; a contract that is not named is flat."""

    def account(self) -> AccountState:
        """Money and margin."""

    def close(self) -> None:
        """Log out; callable twice."""


BrokerFactory = Callable[[], Broker]
