"""Turns the SDK's order and deal events into the platform's, or says why it cannot.

Why: an event names a futures contract by its root only, its order in three ways, and comes as a
mapping that is no `dict`. Each of these once cost somebody a fill.

Invariants:
1. An event is read as a whole or refused as a whole, with a code; unknown words are refused.
2. A fill is named by its order's id and the exchange's sequence number: the same text each time.
3. Symbols are contracts (``TXFD6``), never product roots.
4. Events of accounts that are not traded here are not published.

It keeps no orders and matches nothing: deals before their orders, doubles and orphans are the
business of whoever listens. Operator's page: `docs/shioaji.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hft_platform.errors import ReasonCode
from hft_platform.market.instruments import Instrument
from hft_platform.market.taiwan import ODD_LOT_SUFFIX
from hft_platform.order.broker import BrokerIds, EventKind, FillEvent, OrderEvent
from hft_platform.order.shioaji_orders import ORDNO_LENGTH
from hft_platform.order.shioaji_values import (
    UnreadableError,
    field,
    lots,
    message,
    plain,
    scaled,
    section,
    text,
    time_ns,
    word,
)
from hft_platform.records import SCALE

STATES = {
    "FORDER": ("future", "order"),
    "FDEAL": ("future", "deal"),
    "SORDER": ("stock", "order"),
    "SDEAL": ("stock", "deal"),
}
"""The SDK's kinds of events, by the value of its enum."""
SIDES = {"Buy": 1, "Sell": -1}
OPERATIONS = {name: name for name in ("New", "Cancel", "UpdatePrice", "UpdateQty", "Reject")}
PRICE_TYPES = {
    "future": {
        name: name
        for name in ("LMT", "MKT", "MKP", "UPD", "UPL", "UPM", "UPP", "CXL", "CXP", "CXQ")
    },
    "stock": {name: name for name in ("LMT", "MKT", "MKP")},
}
TIMES_IN_FORCE = {name: name for name in ("ROD", "IOC", "FOK")}
ORDER_LOTS = {
    "Common": False,
    "BlockTrade": False,
    "Fixing": False,
    "Odd": True,
    "IntradayOdd": True,
}
"""Lots of a stock order, and whether they count shares."""
STOCK_LOT = 1_000 * SCALE
"""Shares of a round lot, for a stock that no instruments file names."""
DONE = "00"
"""The broker's code of an operation that was carried out."""


def account_key(broker_id: str, account_id: str) -> str:
    """An account as the settings name it."""
    return f"{broker_id}-{account_id}"


def fill_id(trade_id: str, exchange_seq: str) -> str:
    """Name of an execution, at most 32 characters."""
    return f"{trade_id}/{exchange_seq}"


class EventReader:
    """Reads events for the instruments and accounts of this process.

    Parameters
    ----------
    instruments : iterable of Instrument
        What is traded; events of other contracts are read as well.
    accounts : iterable of str
        ``BROKER-ACCOUNT``, those that are traded.
    tag_of : callable
        Tag of an order id, or an empty text.
    """

    def __init__(
        self,
        instruments: Iterable[Instrument],
        *,
        accounts: Iterable[str],
        tag_of: Callable[[str], str],
    ) -> None:
        self._instruments = {row.symbol: row for row in instruments}
        self._accounts = frozenset(accounts)
        self._tag_of = tag_of

    def read(
        self,
        state: object,
        event: Any,  # Any: an `OrderEventDict` of the SDK, or what stands in for one
        receive_time_ns: int,
    ) -> OrderEvent | FillEvent:
        """The platform's event for one of the SDK's.

        Parameters
        ----------
        state : object
            The SDK's ``OrderState``, or its value.
        event : object
            Anything like a mapping.
        receive_time_ns : int
            When the callback was entered.

        Returns
        -------
        OrderEvent or FillEvent
            Complete.

        Raises
        ------
        UnreadableError
            With a code; nothing of it may be used.
        """
        market, kind = word(state, "state", STATES)
        content = plain(event)
        if kind == "deal":
            return self._fill(market, content, receive_time_ns)
        return self._order(market, content, receive_time_ns)

    def lot_size(self, symbol: str, *, is_stock_market: bool) -> int:
        """Scaled quantity of one lot of a symbol, known or not."""
        known = self._instruments.get(symbol)
        if known is not None:
            return known.lot_size
        if not is_stock_market or symbol.endswith(ODD_LOT_SUFFIX):
            return SCALE
        return STOCK_LOT

    def stock_symbol(self, code: str, is_odd: bool) -> str:
        """Symbol of a stock order; an odd-lot one has a book and an instrument of its own."""
        odd = code + ODD_LOT_SUFFIX
        return odd if is_odd else code

    def is_known(self, symbol: str) -> bool:
        """Whether an instrument of this process has the symbol."""
        return symbol in self._instruments

    def check_account(self, broker_id: object, account_id: object) -> None:
        """Refuse what belongs to an account that is not traded here."""
        key = account_key(
            text(broker_id, "broker_id", length_max=12),
            text(account_id, "account_id", length_max=16),
        )
        if key not in self._accounts:
            raise UnreadableError(ReasonCode.ACCOUNT_NOT_ALLOWED, "of an account not traded here")

    def _fill(self, market: str, content: Mapping[str, Any], receive_time_ns: int) -> FillEvent:
        self.check_account(field(content, "broker_id"), field(content, "account_id"))
        if market == "stock":
            code = text(field(content, "code"), "code", length_max=24, is_required=True)
            is_odd = word(field(content, "order_lot"), "order_lot", ORDER_LOTS)
            symbol = self.stock_symbol(code, is_odd)
            tag = _tag(content.get("custom_field"))
        else:
            # `code` is the product root; the contract is in `full_code`.
            name = field(content, "full_code")
            symbol, tag = text(name, "full_code", length_max=24, is_required=True), ""
        trade_id = text(field(content, "trade_id"), "trade_id", length_max=16, is_required=True)
        exchange_seq = text(
            field(content, "exchange_seq"), "exchange_seq", length_max=15, is_required=True
        )
        lot_size = self.lot_size(symbol, is_stock_market=market == "stock")
        return FillEvent(
            ids=BrokerIds(
                trade_id,
                text(field(content, "seqno"), "seqno", length_max=16),
                text(field(content, "ordno"), "ordno", length_max=16)[:ORDNO_LENGTH],
            ),
            fill_id=fill_id(trade_id, exchange_seq),
            symbol=symbol,
            side=word(field(content, "action"), "action", SIDES),
            price=scaled(field(content, "price"), "price"),
            qty=lots(field(content, "quantity"), "quantity") * lot_size,
            exchange_time_ns=time_ns(field(content, "ts"), "ts"),
            receive_time_ns=receive_time_ns,
            tag=tag or self._tag_of(trade_id),
        )

    def _order(self, market: str, content: Mapping[str, Any], receive_time_ns: int) -> OrderEvent:
        operation, order = section(content, "operation"), section(content, "order")
        status, contract = section(content, "status"), section(content, "contract")
        account = section(order, "account")
        self.check_account(field(account, "broker_id"), field(account, "account_id"))
        name = word(field(operation, "op_type"), "op_type", OPERATIONS)
        op_code = text(field(operation, "op_code"), "op_code", length_max=16)
        kind, code = _kind(name, is_done=op_code == DONE)
        word(field(order, "price_type"), "price_type", PRICE_TYPES[market])
        word(field(order, "time_in_force"), "time_in_force", TIMES_IN_FORCE)
        symbol = self._symbol(market, order, contract)
        lot_size = self.lot_size(symbol, is_stock_market=market == "stock")
        order_id = text(field(order, "id"), "id", length_max=16, is_required=True)
        is_new = kind is EventKind.WORKING and name == "New"
        ordered = lots(field(order, "quantity"), "quantity", is_zero_allowed=not is_new)
        left = ordered - lots(
            field(status, "cancel_quantity"), "cancel_quantity", is_zero_allowed=True
        )
        if left < 0:
            raise UnreadableError(
                ReasonCode.VALUE_OUT_OF_RANGE,
                f"cancel_quantity was {ordered - left} of {ordered} lots",
            )
        modified = scaled(field(status, "modified_price"), "modified_price", is_zero_allowed=True)
        price = scaled(field(order, "price"), "price", is_zero_allowed=True)
        is_amended = kind is EventKind.AMENDED
        said = message(operation.get("op_msg"))
        return OrderEvent(
            kind=kind,
            ids=BrokerIds(
                order_id,
                text(field(order, "seqno"), "seqno", length_max=16),
                text(field(order, "ordno"), "ordno", length_max=16)[:ORDNO_LENGTH],
            ),
            exchange_time_ns=time_ns(
                field(status, "exchange_ts"), "exchange_ts", otherwise_ns=receive_time_ns
            ),
            receive_time_ns=receive_time_ns,
            tag=_tag(order.get("custom_field")) or self._tag_of(order_id),
            symbol=symbol,
            side=word(field(order, "action"), "action", SIDES),
            price=modified if is_amended and modified else price,
            qty=(left if is_amended else ordered) * lot_size,
            remaining_qty=ordered * lot_size if is_new else 0,
            code=code,
            message=f"{name} {op_code} {said}".strip() if code else said,
        )

    def _symbol(self, market: str, order: Mapping[str, Any], contract: Mapping[str, Any]) -> str:
        if market == "stock":
            code = text(field(contract, "code"), "code", length_max=24, is_required=True)
            return self.stock_symbol(code, word(field(order, "order_lot"), "order_lot", ORDER_LOTS))
        name = field(contract, "full_code")
        return text(name, "full_code", length_max=24, is_required=True)


def _tag(value: object) -> str:
    """A note that may be a tag of ours; another program's note is none."""
    found = text(value, "custom_field", length_max=64)
    return found if len(found) == 6 and found.isalnum() else ""


def _kind(name: str, *, is_done: bool) -> tuple[EventKind, int]:
    """What an operation and its success make of the order."""
    if name == "Reject" or (name == "New" and not is_done):
        return EventKind.REJECTED, ReasonCode.BROKER_REJECTED
    if name == "New":
        return EventKind.WORKING, ReasonCode.UNSET
    if name == "Cancel":
        return (
            (EventKind.CANCELED, ReasonCode.UNSET)
            if is_done
            else (EventKind.CANCEL_REJECTED, ReasonCode.BROKER_REJECTED)
        )
    if is_done:
        return EventKind.AMENDED, ReasonCode.UNSET
    # An amendment that was refused leaves the order as it was: working.
    return EventKind.WORKING, ReasonCode.BROKER_REJECTED
