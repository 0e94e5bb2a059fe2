"""Asks the broker for orders, positions, margin, cash, settlements and limits.

Why: an empty answer and no answer look alike at this broker, and whoever takes one for the other
trades with positions it does not know of.

Invariants:
1. A question is answered in full or raises BROKER_QUERY_FAILED: None, a row that cannot be read, an
   answer that is still being fetched and an answer over a spent traffic quota are no answers.
2. The fills of an order add up to what its status says is filled, or the question failed; a fill
   has the name it had in its event.
3. Only accounts that are traded here are shown.

It sends no orders. Operator's page: `docs/shioaji.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.order.broker import (
    AccountState,
    BrokerIds,
    BrokerOrder,
    BrokerPosition,
    FillEvent,
    OrderStatus,
)
from hft_platform.order.shioaji_errors import ask, attempt, describe, query_failed
from hft_platform.order.shioaji_events import (
    ORDER_LOTS,
    SIDES,
    EventReader,
    account_key,
    fill_id,
)
from hft_platform.order.shioaji_orders import STATUS, ids_of
from hft_platform.order.shioaji_rates import CallRate
from hft_platform.order.shioaji_session import Login
from hft_platform.order.shioaji_values import (
    UnreadableError,
    attribute,
    lots,
    message,
    money,
    scaled,
    text,
    time_ns,
    word,
)
from hft_platform.records import SCALE

STOCK_TYPES = {"FUT": "future", "OPT": "future", "STK": "stock", "WRT": "stock"}
"""The SDK's types of contracts, and the side of the market they are on."""
ROWS_MAX = 100_000
"""More rows than any account has in a day are damage."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """Money that a stock account gets (or pays, negative) on a day."""

    date: str
    amount: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Traffic of the day: used and left, in bytes, and open connections."""

    connections: int
    used_bytes: int
    left_bytes: int


class ShioajiAccount:
    """Questions of one open session.

    Parameters
    ----------
    opened : Login
        The session.
    sdk : object
        The SDK's module.
    reader : EventReader
        Names symbols and reads deals as it does in events.
    order_rate, account_rate : CallRate
        The broker's limits.
    timeout_ms : int
        Of each call.
    clock_ns : callable
        The wall clock.
    """

    def __init__(
        self,
        opened: Login,
        *,
        sdk: Any,  # Any: the SDK's module
        reader: EventReader,
        order_rate: CallRate,
        account_rate: CallRate,
        timeout_ms: int,
        clock_ns: Callable[[], int],
    ) -> None:
        self._api = opened.api
        self._accounts = opened.accounts
        self._keys = frozenset(opened.keys)
        self._sdk = sdk
        self._reader = reader
        self._order_rate = order_rate
        self._account_rate = account_rate
        self._timeout_ms = timeout_ms
        self._clock_ns = clock_ns

    def trades(self) -> list[Any]:  # Any: the SDK's `Trade`
        """The SDK's orders of the day, freshly fetched, of every account that is traded here."""
        for account in self._accounts.values():
            self._order_rate.take(self._clock_ns())
            done = attempt(
                lambda account=account: self._api.update_status(  # type: ignore[misc]  # bound now
                    account=account, timeout=self._timeout_ms
                )
            )
            if done.error is not None:
                raise query_failed("orders", describe(done.error)) from done.error
        found = _rows("orders", ask("orders", self._api.list_trades))
        if not found:
            self._refuse_silence("orders")
        return [trade for trade in found if self._is_ours(trade)]

    def orders(
        self,
        known_fills: Mapping[str, Iterable[FillEvent]],
        tag_of: Callable[[str], str],
    ) -> list[BrokerOrder]:
        """Orders of the day with their fills.

        Parameters
        ----------
        known_fills : mapping of str to iterable of FillEvent
            What events already told, by order id.
        tag_of : callable
            Tag of an order id, or an empty text.

        Returns
        -------
        list of BrokerOrder
            Done ones included.

        Raises
        ------
        PlatformError
            BROKER_QUERY_FAILED, BROKER_RATE_SPENT.
        """
        trades = self.trades()
        fills: dict[str, dict[str, FillEvent]] = {}
        for order_id, events in known_fills.items():
            fills.setdefault(order_id, {}).update({event.fill_id: event for event in events})
        for event in self._recorded_fills():
            fills.setdefault(event.ids.broker_id, {}).setdefault(event.fill_id, event)
        try:
            return [self._order(trade, fills, tag_of) for trade in trades]
        except UnreadableError as error:
            raise query_failed("orders", error.message) from error

    def positions(self) -> list[BrokerPosition]:
        """Net positions of every account that is traded here.

        Raises
        ------
        PlatformError
            BROKER_QUERY_FAILED, BROKER_RATE_SPENT.
        """
        net: dict[str, list[tuple[int, int]]] = {}
        for market, account in self._accounts.items():
            # Stocks in shares: in lots, what is below a lot would be missing.
            unit = {"unit": self._sdk.Unit.Share} if market == "stock" else {}
            rows = _rows("positions", self._ask("positions", "list_positions", account, **unit))
            if not rows:
                self._refuse_silence("positions")
            try:
                for row in rows:
                    symbol, qty, price = self._position(market, row)
                    net.setdefault(symbol, []).append((qty, price))
            except UnreadableError as error:
                raise query_failed("positions", error.message) from error
        return [_netted(symbol, rows) for symbol, rows in sorted(net.items())]

    def account(self) -> AccountState:
        """Equity and free margin of the futures account, or cash of the stock account.

        Raises
        ------
        PlatformError
            BROKER_QUERY_FAILED, BROKER_RATE_SPENT.
        """
        try:
            if "futures" in self._accounts:
                margin = self._ask("margin", "margin", self._accounts["futures"])
                _refuse_unfetched("margin", margin)
                return AccountState(
                    self._clock_ns(),
                    equity=money(attribute(margin, "equity"), "equity"),
                    free_margin=money(attribute(margin, "available_margin"), "available_margin"),
                )
            cash = self._ask("cash", "account_balance", self._accounts["stock"])
            _refuse_unfetched("cash", cash)
            said = message(attribute(cash, "errmsg"))
            if said:
                raise query_failed("cash", said)
            amount = money(attribute(cash, "acc_balance"), "acc_balance")
            return AccountState(self._clock_ns(), free_margin=amount)
        except UnreadableError as error:
            raise query_failed("account", error.message) from error

    def settlements(self) -> list[Settlement]:
        """What the stock account gets and pays in the next days.

        Raises
        ------
        PlatformError
            BROKER_QUERY_FAILED; ACCOUNT_NOT_ALLOWED when no stock account is traded here.
        """
        account = self._stock_account()
        try:
            return [
                Settlement(str(attribute(row, "date")), money(attribute(row, "amount"), "amount"))
                for row in _rows("settlements", self._ask("settlements", "settlements", account))
            ]
        except UnreadableError as error:
            raise query_failed("settlements", error.message) from error

    def trading_limits(self) -> dict[str, int]:
        """Credit of the stock account at 1e-8: limit, used and available of each kind.

        Raises
        ------
        PlatformError
            BROKER_QUERY_FAILED; ACCOUNT_NOT_ALLOWED when no stock account is traded here.
        """
        limits = self._ask("trading limits", "trading_limits", self._stock_account())
        try:
            _refuse_unfetched("trading limits", limits)
            names = [
                f"{kind}_{what}"
                for kind in ("trading", "margin", "short")
                for what in ("limit", "used", "available")
            ]
            return {name: money(attribute(limits, name), name) for name in names}
        except UnreadableError as error:
            raise query_failed("trading limits", error.message) from error

    def usage(self) -> Usage:
        """Traffic and connections of the day.

        Raises
        ------
        PlatformError
            BROKER_QUERY_FAILED.
        """
        self._account_rate.take(self._clock_ns())
        answer = ask("usage", lambda: self._api.usage(timeout=self._timeout_ms))
        try:
            counts = [
                _count(attribute(answer, name), name)
                for name in ("connections", "bytes", "remaining_bytes")
            ]
        except UnreadableError as error:
            raise query_failed("usage", error.message) from error
        return Usage(*counts)

    def _refuse_silence(self, what: str) -> None:
        """An empty answer counts only while the day's traffic is not spent.

        Over its traffic quota the broker answers every question with nothing.
        """
        left_bytes = self.usage().left_bytes
        if left_bytes <= 0:
            raise query_failed(what, f"nothing came, and {left_bytes} bytes of traffic are left")

    def _recorded_fills(self) -> list[FillEvent]:
        """Deals of the day, read as events are."""
        found: list[FillEvent] = []
        for account in self._accounts.values():
            self._order_rate.take(self._clock_ns())
            records = ask(
                "order events",
                lambda account=account: self._api.order_deal_records(  # type: ignore[misc]  # bound
                    account=account, timeout=self._timeout_ms
                ),
            )
            for row in _rows("order events", records):
                try:
                    state, event = row
                    read = self._reader.read(state, event, self._clock_ns())
                except UnreadableError as error:
                    if error.code == ReasonCode.ACCOUNT_NOT_ALLOWED:
                        continue
                    raise query_failed("order events", error.message) from error
                except (TypeError, ValueError) as error:
                    raise query_failed("order events", describe(error)) from error
                if isinstance(read, FillEvent):
                    found.append(read)
        return found

    def _is_ours(self, trade: Any) -> bool:  # Any: the SDK's `Trade`
        try:
            account = attribute(attribute(trade, "order"), "account")
            key = account_key(
                text(attribute(account, "broker_id"), "broker_id", length_max=12),
                text(attribute(account, "account_id"), "account_id", length_max=16),
            )
        except UnreadableError as error:
            raise query_failed("orders", error.message) from error
        return key in self._keys

    def _order(
        self,
        trade: Any,  # Any: the SDK's `Trade`
        fills: Mapping[str, Mapping[str, FillEvent]],
        tag_of: Callable[[str], str],
    ) -> BrokerOrder:
        order, status = attribute(trade, "order"), attribute(trade, "status")
        ids = ids_of(order)
        contract = attribute(trade, "contract")
        code = text(attribute(contract, "code"), "code", length_max=24, is_required=True)
        kind = word(attribute(contract, "security_type"), "security_type", STOCK_TYPES)
        is_stock_market = kind == "stock"
        if is_stock_market:
            lot = word(attribute(order, "order_lot"), "order_lot", ORDER_LOTS)
            symbol = self._reader.stock_symbol(code, lot)
        else:
            symbol = code
        lot_size = self._reader.lot_size(symbol, is_stock_market=is_stock_market)
        side = word(attribute(order, "action"), "action", SIDES)
        ordered = lots(attribute(order, "quantity"), "quantity")
        filled, canceled = (
            lots(attribute(status, name) or 0, name, is_zero_allowed=True)
            for name in ("deal_quantity", "cancel_quantity")
        )
        found = _status(
            word(attribute(status, "status"), "status", STATUS), ordered, filled, canceled
        )
        own = dict(fills.get(ids.broker_id, {}))
        told_max = ordered
        if sum(fill.qty for fill in own.values()) < filled * lot_size:
            own |= self._told_fills(status, ids.broker_id, symbol, side, lot_size)
            # Were deals numbered otherwise than events, they would be counted twice here.
            told_max = filled
        total = sum(fill.qty for fill in own.values())
        # More than the status says is a deal that came in between the two questions.
        if not filled * lot_size <= total <= told_max * lot_size:
            raise UnreadableError(
                ReasonCode.BROKER_QUERY_FAILED,
                f"order {ids.broker_id} says {filled} of {ordered} lots are filled, its deals add"
                f" up to {total / lot_size:g}",
            )
        note = text(attribute(order, "custom_field"), "custom_field", length_max=64)
        tag = note if len(note) == 6 and note.isalnum() else tag_of(ids.broker_id)
        return BrokerOrder(
            ids=ids,
            tag=tag,
            symbol=symbol,
            side=side,
            price=scaled(attribute(order, "price"), "price", is_zero_allowed=True),
            qty=(ordered - (canceled if found is OrderStatus.WORKING else 0)) * lot_size,
            filled_qty=total,
            status=OrderStatus.FILLED if total == ordered * lot_size else found,
            fills=tuple(
                sorted(
                    (replace(fill, ids=ids, tag=tag) for fill in own.values()),
                    key=lambda fill: (fill.exchange_time_ns, fill.fill_id),
                )
            ),
            code=ReasonCode.BROKER_REJECTED if found is OrderStatus.REJECTED else ReasonCode.UNSET,
            message=message(attribute(status, "msg")),
        )

    def _told_fills(
        self, status: Any, order_id: str, symbol: str, side: int, lot_size: int
    ) -> dict[str, FillEvent]:  # Any: the SDK's status of an order
        """Deals as the order itself lists them, for those whose events never came."""
        found = {}
        deals = ask("deals of an order", lambda: list(attribute(status, "deals")))
        for deal in _rows("deals of an order", deals):
            name = fill_id(
                order_id, text(attribute(deal, "seq"), "seq", length_max=15, is_required=True)
            )
            found[name] = FillEvent(
                ids=BrokerIds(order_id),
                fill_id=name,
                symbol=symbol,
                side=side,
                price=scaled(attribute(deal, "price"), "price"),
                qty=lots(attribute(deal, "quantity"), "quantity") * lot_size,
                exchange_time_ns=time_ns(attribute(deal, "ts"), "ts"),
                receive_time_ns=self._clock_ns(),
            )
        return found

    def _position(self, market: str, row: Any) -> tuple[str, int, int]:  # Any: of the SDK
        symbol = text(attribute(row, "code"), "code", length_max=24, is_required=True)
        side = word(attribute(row, "direction"), "direction", SIDES)
        count = lots(attribute(row, "quantity"), "quantity", is_zero_allowed=True)
        lot_size = (
            SCALE if market == "stock" else self._reader.lot_size(symbol, is_stock_market=False)
        )
        # An average price need not be exact at 1e-8.
        return symbol, side * count * lot_size, money(attribute(row, "price"), "price")

    def _ask(self, what: str, call: str, account: Any, **more: Any) -> Any:  # Any: of the SDK
        self._account_rate.take(self._clock_ns())
        method = getattr(self._api, call)
        return ask(what, lambda: method(account=account, timeout=self._timeout_ms, **more))

    def _stock_account(self) -> Any:  # Any: an account of the SDK
        if "stock" not in self._accounts:
            raise PlatformError(
                ReasonCode.ACCOUNT_NOT_ALLOWED, "no stock account is traded by this process"
            )
        return self._accounts["stock"]


def _netted(symbol: str, rows: list[tuple[int, int]]) -> BrokerPosition:
    """One net position of several rows; their average price when all are on one side."""
    held = [(qty, price) for qty, price in rows if qty]
    net = sum(qty for qty, _ in held)
    sides = {qty > 0 for qty, _ in held}
    average = 0
    if len(sides) == 1:
        average = sum(abs(qty) * price for qty, price in held) // abs(net)
    return BrokerPosition(symbol, net, average)


def _status(said: OrderStatus, ordered: int, filled: int, canceled: int) -> OrderStatus:
    """Where an order is; a partly filled one whose rest was canceled is said to be part-filled."""
    if said is OrderStatus.WORKING and filled + canceled >= ordered:
        return OrderStatus.CANCELED if canceled else OrderStatus.FILLED
    return said


def _rows(what: str, answer: object) -> list[Any]:  # Any: objects of the SDK
    if not isinstance(answer, list | tuple) or len(answer) > ROWS_MAX:
        raise query_failed(what, f"{type(answer).__name__} is no list of a day's rows")
    return list(answer)


def _refuse_unfetched(what: str, answer: Any) -> None:  # Any: an answer of the SDK
    status = attribute(answer, "status")
    said = status if isinstance(status, str) else attribute(status, "value")
    if said != "Fetched":
        raise query_failed(what, f"the answer is {said}")


def _count(value: object, name: str) -> int:
    if type(value) is not int:
        raise UnreadableError(
            ReasonCode.FIELD_TYPE_WRONG, f"{name} was {type(value).__name__}, allowed is a count"
        )
    return value
