"""Makes the SDK's order objects out of tickets, and reads what the order calls answer.

Why: the SDK takes a quantity of 0, a price of NaN and a note of any length without a word. What it
would pass on is checked here, where a refusal still means that nothing was sent.

Invariants:
1. A ticket that comes out as an order has every field valid; otherwise ORDER_FIELD_INVALID.
2. An order says exactly what its ticket says: price and quantity are read back and compared.
3. An answer is SENT only with the ids by which the order can be canceled; REJECTED only when the
   broker says that it failed; anything else is AMBIGUOUS.

It sends nothing. Operator's page: `docs/shioaji.md`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from types import ModuleType
from typing import Any

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import Instrument
from hft_platform.market.taiwan import MARKETS, ODD_LOT_SUFFIX
from hft_platform.order.broker import (
    BrokerIds,
    CallResult,
    OrderStatus,
    OrderTicket,
    Outcome,
    PriceType,
    TimeInForce,
)
from hft_platform.order.shioaji_errors import attempt, describe, meaning_of
from hft_platform.order.shioaji_values import (
    LOTS_MAX,
    UnreadableError,
    attribute,
    message,
    text,
    word,
)
from hft_platform.records import SCALE

TAG = re.compile(r"[0-9A-Za-z]{6}")
"""The broker carries six letters or digits; the SDK itself does not check."""
ORDNO_LENGTH = 5
"""The order's own number; what follows in a deal's `ordno` is the deal's."""
STATUS = {
    "Inactive": OrderStatus.PENDING,
    "PendingSubmit": OrderStatus.PENDING,
    "PreSubmitted": OrderStatus.PENDING,
    "Submitted": OrderStatus.WORKING,
    "PartFilled": OrderStatus.WORKING,
    "Filled": OrderStatus.FILLED,
    "Cancelled": OrderStatus.CANCELED,
    "Failed": OrderStatus.REJECTED,
}
"""The SDK's words for where an order is."""


@dataclass(frozen=True, slots=True)
class OrderOptions:
    """What a ticket does not say, because it is the same for every order.

    Attributes
    ----------
    futures_octype : str
        ``Auto``, ``New``, ``Cover`` or ``DayTrade``.
    stock_condition : str
        ``Cash``, ``MarginTrading``, ...
    """

    futures_octype: str
    stock_condition: str


def is_stock(instrument: Instrument) -> bool:
    """Whether the broker trades it from the stock account."""
    return MARKETS.get(instrument.venue) == "stock"


def is_odd_lot(instrument: Instrument) -> bool:
    """Whether it is the intraday odd-lot book of a stock, which counts shares."""
    return instrument.symbol.endswith(ODD_LOT_SUFFIX)


def lots_of(qty: int, instrument: Instrument) -> int:
    """A scaled quantity in the broker's lots.

    Raises
    ------
    PlatformError
        ORDER_FIELD_INVALID when it is not positive, no whole number of lots or too large.
    """
    count, rest = divmod(qty, instrument.lot_size) if type(qty) is int else (0, 0)
    if rest or not 0 < count <= LOTS_MAX:
        raise _invalid(f"qty was {qty!r}: allowed are whole lots of {instrument.lot_size} above 0")
    if instrument.order_qty_max is not None and qty > instrument.order_qty_max:
        raise _invalid(f"qty was {qty}, the exchange takes {instrument.order_qty_max} at most")
    return count


def price_float(price: int, instrument: Instrument) -> float:
    """A scaled limit price as the SDK takes it, when the float says exactly the same.

    Raises
    ------
    PlatformError
        ORDER_FIELD_INVALID when it is not positive, off the tick grid or no float.
    """
    if type(price) is not int or price <= 0 or price >= 10_000_000_000 * SCALE:
        raise _invalid(f"price was {price!r}: allowed is a price above 0 and below 1e10")
    if not instrument.ticks.is_on_grid(price):
        raise _invalid(f"price was {price}: {instrument.symbol} has no such tick")
    value = float(Decimal(price) / SCALE)
    if Decimal(repr(value)) * SCALE != price:
        raise _invalid(f"price was {price}: no float says exactly that")
    return value


def build_order(
    sdk: ModuleType,
    ticket: OrderTicket,
    instrument: Instrument,
    *,
    account: Any,  # Any: an account of the SDK
    options: OrderOptions,
) -> Any:  # Any: an order of the SDK
    """The SDK's order for a ticket.

    Parameters
    ----------
    sdk : module
        The imported SDK.
    ticket : OrderTicket
        What to place.
    instrument : Instrument
        Of the ticket's symbol.
    account : object
        The SDK's account.
    options : OrderOptions
        What is the same for every order.

    Returns
    -------
    object
        ``FuturesOrder`` or ``StockOrder``.

    Raises
    ------
    PlatformError
        ORDER_FIELD_INVALID naming the field; nothing was sent.
    """
    _check_words(ticket, instrument)
    lot_count = lots_of(ticket.qty, instrument)
    if ticket.price_type is PriceType.LMT:
        price = price_float(ticket.price, instrument)
    elif ticket.price == 0:
        price = 0.0
    else:
        raise _invalid(f"price was {ticket.price}: {ticket.price_type} orders have none")
    build = _stock_order if is_stock(instrument) else _futures_order
    done = attempt(lambda: build(sdk, ticket, instrument, price, lot_count, account, options))
    if done.error is not None:
        raise _invalid(f"the SDK takes no such order: {describe(done.error)}") from done.error
    wanted = {"price": price, "quantity": lot_count, "custom_field": ticket.tag}
    for name, value in wanted.items():
        said = attribute(done.value, name)
        if said != value:
            raise _invalid(f"the SDK made {name} {said!r:.40} of {value!r}")
    return done.value


def _check_words(ticket: OrderTicket, instrument: Instrument) -> None:
    if type(ticket.tag) is not str or TAG.fullmatch(ticket.tag) is None:
        raise _invalid(f"tag was {ticket.tag!r}: allowed are six of 0-9A-Za-z")
    if type(ticket.side) is not int or ticket.side not in (1, -1):
        raise _invalid(f"side was {ticket.side!r}: allowed are 1 and -1")
    if not isinstance(ticket.time_in_force, TimeInForce):
        raise _invalid(f"time_in_force was {ticket.time_in_force!r}: allowed are ROD, IOC, FOK")
    if not isinstance(ticket.price_type, PriceType):
        raise _invalid(f"price_type was {ticket.price_type!r}: allowed are LMT, MKT, MKP")
    if instrument.venue not in MARKETS:
        raise _invalid(f"{instrument.symbol}: this broker does not trade at {instrument.venue}")
    if is_stock(instrument) and ticket.price_type is PriceType.MKP:
        raise _invalid("price_type was MKP: stocks take LMT and MKT")
    if is_odd_lot(instrument) and (ticket.price_type, ticket.time_in_force) != (
        PriceType.LMT,
        TimeInForce.ROD,
    ):
        raise _invalid(
            f"{ticket.price_type} {ticket.time_in_force}: odd lots take limit orders for the day"
        )


def _futures_order(
    sdk: Any,  # Any: the SDK's module and objects of it
    ticket: OrderTicket,
    _instrument: Instrument,
    price: float,
    lot_count: int,
    account: Any,
    options: OrderOptions,
) -> Any:
    return sdk.FuturesOrder(
        action=sdk.Action("Buy" if ticket.side > 0 else "Sell"),
        price=price,
        quantity=lot_count,
        price_type=sdk.FuturesPriceType(ticket.price_type.value),
        time_in_force=sdk.TimeInForce(ticket.time_in_force.value),
        octype=sdk.FuturesOCType(options.futures_octype),
        custom_field=ticket.tag,
        account=account,
    )


def _stock_order(
    sdk: Any,  # Any: the SDK's module and objects of it
    ticket: OrderTicket,
    instrument: Instrument,
    price: float,
    lot_count: int,
    account: Any,
    options: OrderOptions,
) -> Any:
    return sdk.StockOrder(
        action=sdk.Action("Buy" if ticket.side > 0 else "Sell"),
        price=price,
        quantity=lot_count,
        price_type=sdk.StockPriceType(ticket.price_type.value),
        time_in_force=sdk.TimeInForce(ticket.time_in_force.value),
        order_lot=sdk.StockOrderLot("IntradayOdd" if is_odd_lot(instrument) else "Common"),
        order_cond=sdk.StockOrderCond(options.stock_condition),
        custom_field=ticket.tag,
        account=account,
    )


def failed_call(error: BaseException) -> CallResult:
    """What is known after an order call that raised."""
    meaning = meaning_of(error)
    return CallResult(meaning.outcome, code=meaning.code, message=describe(error))


def refused(error: PlatformError) -> CallResult:
    """A refusal of our own: nothing was sent."""
    return CallResult(Outcome.REJECTED, code=error.code, message=error.message)


def ids_of(order: Any, *, is_required: bool = True) -> BrokerIds:  # Any: an order of the SDK
    """The broker's names of an order.

    Raises
    ------
    UnreadableError
        When one is no short ASCII text, or `is_required` and the first is empty.
    """
    return BrokerIds(
        broker_id=text(attribute(order, "id"), "id", length_max=16, is_required=is_required),
        seqno=text(attribute(order, "seqno"), "seqno", length_max=16),
        ordno=text(attribute(order, "ordno"), "ordno", length_max=16)[:ORDNO_LENGTH],
    )


def read_answer(trade: Any, *, is_non_blocking: bool = False) -> CallResult:  # Any: of the SDK
    """What is known after an order call that answered.

    Parameters
    ----------
    trade : object
        The SDK's ``Trade``.
    is_non_blocking : bool, optional
        The call did not wait: there are no ids yet.

    Returns
    -------
    CallResult
        AMBIGUOUS whenever the answer is not understood in full.
    """
    try:
        order, status = attribute(trade, "order"), attribute(trade, "status")
        found = word(attribute(status, "status"), "status", STATUS)
        ids = ids_of(order, is_required=not is_non_blocking and found is not OrderStatus.REJECTED)
        said = message(attribute(status, "msg"))
    except UnreadableError as error:
        return CallResult(
            Outcome.AMBIGUOUS, code=ReasonCode.BROKER_ANSWER_UNREADABLE, message=error.message
        )
    if found is OrderStatus.REJECTED:
        return CallResult(Outcome.REJECTED, ids, ReasonCode.BROKER_REJECTED, said)
    return CallResult(Outcome.SENT, ids, message=said)


def _invalid(text_: str) -> PlatformError:
    return PlatformError(ReasonCode.ORDER_FIELD_INVALID, text_)
