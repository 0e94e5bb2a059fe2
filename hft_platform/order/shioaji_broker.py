"""Shioaji as a `Broker`: puts session, contracts, orders, events, account and feed together.

Why: everything that differs from the paper exchange is behind this class, and each part of it can
be tested without a network.

Invariants:
1. `place` makes one SDK call or none; what it cannot tell is AMBIGUOUS; nothing is sent twice.
2. Without an open session, a contract that fits or a valid order nothing is sent, and that is said.
3. No callback raises into the SDK: what it could not read or pass on is counted by code.
4. A session that went down is opened again by `step`, not before the login budget allows it.

It has no thread and no clock of its own. Nothing here was exercised with a real login: see "What is
unverified" in `docs/shioaji.md`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import structlog

from hft_platform.config.settings import BrokerSettings
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
    OrderTicket,
    Outcome,
    PriceType,
)
from hft_platform.order.shioaji_account import Settlement, ShioajiAccount, Usage
from hft_platform.order.shioaji_contracts import SECURITY_TYPES, Contract, load_contract
from hft_platform.order.shioaji_errors import attempt, describe
from hft_platform.order.shioaji_events import EventReader
from hft_platform.order.shioaji_orders import (
    OrderOptions,
    build_order,
    failed_call,
    ids_of,
    is_stock,
    lots_of,
    price_float,
    read_answer,
    refused,
)
from hft_platform.order.shioaji_quotes import ShioajiQuotes
from hft_platform.order.shioaji_rates import ACCOUNT_WINDOW_NS, ORDER_WINDOW_NS, CallRate
from hft_platform.order.shioaji_session import (
    PRELOAD_TIMEOUT_MS,
    Login,
    ShioajiSession,
    check_certificate,
)
from hft_platform.order.shioaji_values import Counts, UnreadableError, attribute, lots

log = structlog.get_logger()

ORDERS_KEPT_MAX = 65_536
"""Orders of a day whose SDK objects, tags and fills are kept; older ones are asked for."""
EVENTS_WITHOUT_TAG_MAX = 4_096
"""Events kept until a non-blocking call says which order they belong to."""
RETRY_NS = 300_000_000_000
"""Pause before contracts that could not be loaded are asked for again."""
DOWN_EVENTS = frozenset({1, 2, 12})
"""Connection events: down, connect failed, reconnecting."""
USUAL_DROPS = frozenset(
    {
        ReasonCode.DUPLICATE_ROW,
        ReasonCode.OUT_OF_ORDER_ROW,
        ReasonCode.OUTSIDE_SESSION,
        ReasonCode.UNKNOWN_INSTRUMENT,
    }
)
"""Quotes that were read and are not wanted: no failure of the normaliser."""
UP_EVENTS = frozenset({0, 13})
"""Connection events: up, reconnected."""


class Feed(Protocol):
    """Quotes of the process; `feed/shioaji_feed.py` is it."""

    def on_quote(self, quote: object, receive_time_ns: int) -> None:
        """Take what a callback delivered."""

    def subscribe(self, symbols: list[str], source: ShioajiQuotes, now_ns: int) -> None:
        """Subscribe contracts."""

    def resubscribe(self, source: ShioajiQuotes, now_ns: int) -> None:
        """Subscribe everything again on a new connection."""

    def step(self, source: ShioajiQuotes, now_ns: int) -> list[str]:
        """Look for silence."""

    def counters(self) -> dict[str, object]:
        """What became of the quotes."""


@dataclass(frozen=True, slots=True)
class _Link:
    """What exists while a session is open."""

    opened: Login
    contracts: dict[str, Contract]
    account: ShioajiAccount
    quotes: ShioajiQuotes
    checked_until_ns: int


class ShioajiBroker:
    """The broker Shioaji; see `Broker` for the calls.

    Parameters
    ----------
    settings : BrokerSettings
        Section `broker`.
    session : ShioajiSession
        Opens and closes sessions.
    instruments : iterable of Instrument
        What may be traded and subscribed.
    make_feed : callable
        Makes the feed from where its records go and the time: ``make_feed(on_market, now_ns)``.
    clock_ns : callable
        The wall clock.
    """

    name = "shioaji"

    def __init__(
        self,
        settings: BrokerSettings,
        *,
        session: ShioajiSession,
        instruments: Iterable[Instrument],
        make_feed: Callable[[Callable[[bytes], None], int], Feed],
        clock_ns: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._session = session
        self._instruments = {row.symbol: row for row in instruments}
        self._make_feed = make_feed
        self._clock_ns = clock_ns
        self._options = OrderOptions(settings.futures_octype, settings.stock_condition)
        self._reader = EventReader(
            self._instruments.values(), accounts=settings.accounts, tag_of=self._tag_of
        )
        # Of the process, not of a session: the broker counts over logins.
        self._order_rate = CallRate(settings.order_calls_hard, ORDER_WINDOW_NS)
        self._account_rate = CallRate(settings.account_calls_max, ACCOUNT_WINDOW_NS)
        self._counts = Counts()
        self._lock = threading.Lock()
        self._trades: OrderedDict[str, Any] = OrderedDict()  # Any: the SDK's `Trade`
        self._tags: OrderedDict[str, str] = OrderedDict()
        self._fills: OrderedDict[str, dict[str, FillEvent]] = OrderedDict()
        self._untagged: OrderedDict[str, OrderEvent] = OrderedDict()
        self._listener: BrokerListener | None = None
        self._feed: Feed | None = None
        self._link: _Link | None = None
        self._is_up = False

    # -- session ---------------------------------------------------------------------------

    def connect(self, listener: BrokerListener) -> None:
        """Log in, check the contracts and begin to report; see `Broker.connect`."""
        now_ns = self._clock_ns()
        self._listener = listener
        if self._feed is None:
            self._feed = self._make_feed(listener.on_market, now_ns)
        try:
            self._open(now_ns)
        except BaseException:
            # `step` opens again what was open once, not what never was.
            self._listener = None
            raise
        listener.on_connection(True, "logged in")

    def step(self, now_ns: int) -> None:
        """Look after session and feed; call it about once a second.

        Opens a session that went down again when the login budget allows it, subscribes silent
        contracts again and warns of the certificate's end.
        """
        if self._listener is None or self._feed is None:
            return
        if not self._is_up:
            self._reopen(now_ns)
        link = self._link
        if link is None or not self._is_up:
            return
        for symbol in self._feed.step(link.quotes, now_ns):
            self._counts.add(ReasonCode.FEED_SILENT, "feed_was_silent", symbol=symbol)
        if now_ns >= link.checked_until_ns:
            self._check_again(link, now_ns)

    def look_after(self, now_ns: int) -> None:
        """As `step`, under the name by which the runtime asks any broker that needs it."""
        self.step(now_ns)

    def daily_limits(self, symbol: str) -> tuple[int, int] | None:
        """Limit-up and limit-down of the day, None where the broker does not state both."""
        link = self._link
        contract = None if link is None else link.contracts.get(symbol)
        if contract is None or self._clock_ns() >= contract.until_ns:
            return None  # The next day's limits are others.
        limits = (contract.limit_up, contract.limit_down)
        return limits if all(limits) else None

    def unreadable_quotes(self) -> int:
        """Quotes so far of which the feed could make no record."""
        feed = self._feed
        dropped = feed.counters().get("dropped", {}) if feed is not None else {}
        if not isinstance(dropped, dict):
            return 0
        return sum(count for code, count in dropped.items() if code not in USUAL_DROPS)

    def close(self) -> None:
        """Log out; callable twice."""
        with self._lock:
            link, self._link, self._is_up = self._link, None, False
            self._listener = None
        if link is not None:
            self._session.close(link.opened.api)

    def _open(self, now_ns: int) -> None:
        opened = self._session.open(now_ns)
        try:
            link = self._linked(opened, now_ns)
            self._listen(opened)
        except BaseException:
            self._session.close(opened.api)
            raise
        with self._lock:
            # They belong to the session before this one.
            self._trades.clear()
        self._link, self._is_up = link, True

    def _linked(self, opened: Login, now_ns: int) -> _Link:
        self._load(opened, now_ns, is_again=False)
        contracts = {
            row.symbol: load_contract(opened.api.contracts, row, now_ns)
            for row in self._instruments.values()
        }
        account = ShioajiAccount(
            opened,
            sdk=self._session.sdk,
            reader=self._reader,
            order_rate=self._order_rate,
            account_rate=self._account_rate,
            timeout_ms=self._settings.call_timeout_ms,
            clock_ns=self._clock_ns,
        )
        quotes = ShioajiQuotes(
            opened.api, self._session.sdk, contracts, timeout_ms=self._settings.call_timeout_ms
        )
        return _Link(opened, contracts, account, quotes, _checked_until_ns(contracts, now_ns))

    def _load(self, opened: Login, now_ns: int, *, is_again: bool) -> None:
        """Have the SDK load the contracts of the markets that are traded."""
        table = opened.api.contracts
        names = sorted({SECURITY_TYPES.get(row.kind, "") for row in self._instruments.values()})
        call = table.reload if is_again else table.preload
        done = attempt(
            lambda: call(
                security_types=[self._session.sdk.SecurityType(name) for name in names],
                info=True,
                timeout=PRELOAD_TIMEOUT_MS,
            )
        )
        if done.error is not None:
            raise PlatformError(
                ReasonCode.BROKER_QUERY_FAILED, f"contracts at {now_ns}: {describe(done.error)}"
            ) from done.error

    def _check_again(self, link: _Link, now_ns: int) -> None:
        """On a new trading day: other limits, perhaps an ended contract or certificate.

        A contract that no longer fits is taken out, so nothing more is sent for it.
        """
        contracts: dict[str, Contract] = {}
        try:
            self.is_certificate_ending(now_ns)
            self._load(link.opened, now_ns, is_again=True)
        except PlatformError as error:
            self._counts.add(error.code, "daily_check_failed", why=error.message)
            self._exchange(link, replace(link, checked_until_ns=now_ns + RETRY_NS))
            return
        for row in self._instruments.values():
            try:
                contracts[row.symbol] = load_contract(link.opened.api.contracts, row, now_ns)
            except PlatformError as error:
                self._counts.add(error.code, "contract_taken_out", why=error.message)
        until_ns = _checked_until_ns(contracts, now_ns)
        quotes = ShioajiQuotes(
            link.opened.api,
            self._session.sdk,
            contracts,
            timeout_ms=self._settings.call_timeout_ms,
        )
        self._exchange(
            link, replace(link, contracts=contracts, quotes=quotes, checked_until_ns=until_ns)
        )

    def _exchange(self, old: _Link, new: _Link) -> None:
        """Put a link in the place of another, unless that was closed meanwhile."""
        with self._lock:
            if self._link is old:
                self._link = new

    def _listen(self, opened: Login) -> None:
        api = opened.api

        def listen() -> bool:
            api.set_order_callback(self._on_order_event)
            api.set_event_callback(self._on_connection_event)
            api.set_session_down_callback(partial(self._on_session_down, api))
            api.set_on_tick_fop_v1_callback(self._on_quote)
            api.set_on_bidask_fop_v1_callback(self._on_quote)
            api.set_on_tick_stk_v1_callback(self._on_quote)
            api.set_on_bidask_stk_v1_callback(self._on_quote)
            # Only now: what is reported before somebody listens is lost.
            return all(api.subscribe_trade(row) is True for row in opened.accounts.values())

        done = attempt(listen)
        if done.error is not None:
            raise PlatformError(
                ReasonCode.BROKER_UNREACHABLE, f"callbacks: {describe(done.error)}"
            ) from done.error
        if not done.value:
            raise PlatformError(
                ReasonCode.BROKER_LOGIN_FAILED,
                "the broker does not report the orders of an account",
            )

    def _reopen(self, now_ns: int) -> None:
        listener, feed = self._listener, self._feed
        try:
            if listener is None or feed is None or self._session.wait_ns(now_ns):
                return
            link, self._link = self._link, None
            if link is not None:
                self._session.close(link.opened.api)
            self._open(now_ns)
            opened = self._link
            if opened is not None:
                feed.resubscribe(opened.quotes, now_ns)
        except PlatformError as error:
            self._is_up = False
            self._counts.add(error.code, "broker_login_failed", why=error.message)
            return
        listener.on_connection(True, "logged in again")

    # -- quotes ----------------------------------------------------------------------------

    def subscribe(self, symbols: list[str]) -> None:
        """Ask for quotes; see `Broker.subscribe`."""
        link = self._required("subscription")
        if self._feed is not None:
            self._feed.subscribe(symbols, link.quotes, self._clock_ns())

    # -- orders ----------------------------------------------------------------------------

    def place(self, ticket: OrderTicket) -> CallResult:
        """Send a new order, once; see `Broker.place`."""
        try:
            link, instrument, contract = self._tradable(ticket.symbol)
            order = build_order(
                self._session.sdk,
                ticket,
                instrument,
                account=self._account_for(link, instrument),
                options=self._options,
            )
            now_ns = self._clock_ns()
            if ticket.price_type is PriceType.LMT:
                contract.refuse_price(ticket.price, now_ns)
            self._order_rate.take(now_ns)
        except PlatformError as error:
            return refused(error)
        except UnreadableError as error:
            return CallResult(Outcome.REJECTED, code=error.code, message=error.message)
        is_waiting = not self._settings.is_non_blocking
        done = attempt(
            lambda: link.opened.api.place_order(
                contract.base,
                order,
                timeout=self._settings.call_timeout_ms if is_waiting else 0,
                cb=None if is_waiting else partial(self._on_placed, ticket.tag),
            )
        )
        if done.error is not None:
            self._counts.add(failed_call(done.error).code, "order_call_failed", call="place")
            return failed_call(done.error)
        result = read_answer(done.value, is_non_blocking=not is_waiting)
        if result.ids.broker_id:
            self._remember(result.ids.broker_id, done.value, ticket.tag)
        return result

    def cancel(self, ids: BrokerIds, symbol: str) -> CallResult:
        """Ask for the rest of an order to be canceled; see `Broker.cancel`."""
        return self._change(
            ids,
            symbol,
            "cancel",
            lambda api, trade: api.cancel_order(trade, timeout=self._settings.call_timeout_ms),
        )

    def amend(
        self, ids: BrokerIds, symbol: str, *, price: int | None, qty: int | None
    ) -> CallResult:
        """Ask for another price, or for a smaller quantity; see `Broker.amend`."""
        try:
            _, instrument, contract = self._tradable(symbol)
            if (price is None) == (qty is None):
                raise PlatformError(
                    ReasonCode.ORDER_FIELD_INVALID, "amend takes a price or a quantity, not both"
                )
            if price is not None:
                new_price = price_float(price, instrument)
                contract.refuse_price(price, self._clock_ns())
                return self._change(
                    ids,
                    symbol,
                    "amend price",
                    lambda api, trade: api.update_order(
                        trade, price=new_price, timeout=self._settings.call_timeout_ms
                    ),
                )
            kept = lots_of(qty if qty is not None else 0, instrument)
        except PlatformError as error:
            return refused(error)
        return self._change(
            ids,
            symbol,
            "amend quantity",
            lambda api, trade: api.update_order(
                trade, qty=_lots_to_take(trade, kept), timeout=self._settings.call_timeout_ms
            ),
            check=lambda trade: _lots_to_take(trade, kept),
        )

    def _change(
        self,
        ids: BrokerIds,
        symbol: str,
        what: str,
        call: Callable[[Any, Any], Any],  # Any: the SDK's session and `Trade`
        *,
        check: Callable[[Any], object] | None = None,
    ) -> CallResult:
        """A call about an order that the broker has."""
        try:
            link, _, _ = self._tradable(symbol)
            trade = self._trade(link, ids)
            if check is not None:
                check(trade)
            self._order_rate.take(self._clock_ns())
        except PlatformError as error:
            return refused(error)
        except UnreadableError as error:
            return CallResult(Outcome.REJECTED, ids, error.code, error.message)
        done = attempt(lambda: call(link.opened.api, trade))
        if done.error is not None:
            self._counts.add(failed_call(done.error).code, "order_call_failed", call=what)
            return replace(failed_call(done.error), ids=ids)
        result = read_answer(done.value)
        return replace(result, ids=result.ids if result.ids.broker_id else ids)

    # -- questions -------------------------------------------------------------------------

    def orders(self) -> list[BrokerOrder]:
        """Every order of the trading day; see `Broker.orders`."""
        link = self._required("orders")
        with self._lock:
            fills = {order_id: list(own.values()) for order_id, own in self._fills.items()}
        return link.account.orders(fills, self._tag_of)

    def positions(self) -> list[BrokerPosition]:
        """Net positions; see `Broker.positions`."""
        return self._required("positions").account.positions()

    def account(self) -> AccountState:
        """Money and margin; see `Broker.account`."""
        return self._required("account").account.account()

    def settlements(self) -> list[Settlement]:
        """What the stock account gets and pays in the next days."""
        return self._required("settlements").account.settlements()

    def trading_limits(self) -> dict[str, int]:
        """Credit of the stock account."""
        return self._required("trading limits").account.trading_limits()

    def usage(self) -> Usage:
        """Traffic and connections of the day."""
        return self._required("usage").account.usage()

    def is_certificate_ending(self, now_ns: int) -> bool:
        """Whether the certificate ends within the settings' days.

        Raises
        ------
        PlatformError
            CERTIFICATE_EXPIRED.
        """
        link = self._link
        if link is None or link.opened.certificate_end_ns is None:
            return False
        return check_certificate(
            link.opened.certificate_end_ns,
            now_ns,
            warning_days=self._settings.certificate_warning_days,
        )

    def state(self) -> dict[str, Any]:  # Any: JSON
        """Counters and whether the session is up, for status and metrics."""
        link = self._link
        return {
            "is_up": self._is_up,
            "counts": self._counts.as_dict(),
            "quotes": self._feed.counters() if self._feed is not None else {},
            "unchecked_terms": {
                symbol: list(contract.unchecked)
                for symbol, contract in (link.contracts if link is not None else {}).items()
                if contract.unchecked
            },
        }

    # -- callbacks: on threads of the SDK ---------------------------------------------------

    def _on_quote(self, quote: object) -> None:
        receive_time_ns = self._clock_ns()
        feed = self._feed
        if feed is None or self._listener is None:
            return
        done = attempt(lambda: feed.on_quote(quote, receive_time_ns))
        if done.error is not None:
            self._count_error("quote_not_taken", done.error)

    def _on_order_event(self, state: object, event: object) -> None:
        receive_time_ns = self._clock_ns()
        done = attempt(lambda: self._take_event(state, event, receive_time_ns))
        if done.error is not None:
            self._count_error("order_event_not_taken", done.error)

    def _take_event(self, state: object, event: object, receive_time_ns: int) -> None:
        listener = self._listener
        read = self._reader.read(state, event, receive_time_ns)
        if listener is None:
            return
        if isinstance(read, FillEvent):
            with self._lock:
                own = self._fills.setdefault(read.ids.broker_id, {})
                own[read.fill_id] = read
                _bound(self._fills, ORDERS_KEPT_MAX)
            listener.on_fill(read)
            return
        if self._settings.is_non_blocking and not read.tag:
            with self._lock:
                # Once more under the lock: the call's answer may have come just now.
                tag = self._tags.get(read.ids.broker_id, "")
                if not tag:
                    self._untagged[read.ids.broker_id] = read
                    _bound(self._untagged, EVENTS_WITHOUT_TAG_MAX)
            read = replace(read, tag=tag)
        listener.on_order(read)

    def _on_placed(self, tag: str, trade: object) -> None:
        """A non-blocking call got its answer: now the order has ids."""
        done = attempt(lambda: self._take_placed(tag, trade))
        if done.error is not None:
            self._count_error("placed_order_not_taken", done.error)

    def _take_placed(self, tag: str, trade: object) -> None:
        listener = self._listener
        result = read_answer(trade)
        if result.outcome is Outcome.AMBIGUOUS or listener is None:
            self._counts.add(result.code, "placed_order_not_read", why=result.message)
            return
        order_id = result.ids.broker_id
        now_ns = self._clock_ns()
        if result.outcome is Outcome.REJECTED:
            listener.on_order(
                OrderEvent(
                    EventKind.REJECTED,
                    result.ids,
                    now_ns,
                    now_ns,
                    tag=tag,
                    code=result.code,
                    message=result.message,
                )
            )
            return
        self._remember(order_id, trade, tag)
        with self._lock:
            earlier = self._untagged.pop(order_id, None)
        if earlier is not None:
            # It came before anybody could know whose it was: the same once more, with the tag.
            listener.on_order(replace(earlier, tag=tag))

    def _on_session_down(self, api: object) -> None:
        link = self._link
        if link is not None and link.opened.api is api:
            self._went_down("the session is down")

    def _on_connection_event(
        self, response_code: object, event_code: object, info: object, event: object
    ) -> None:
        done = attempt(
            lambda: self._take_connection(
                event_code, f"{event_code!s:.8} {event!s:.60} {info!s:.60} ({response_code!s:.8})"
            )
        )
        if done.error is not None:
            self._count_error("connection_event_not_taken", done.error)

    def _take_connection(self, event_code: object, text: str) -> None:
        """The SDK reconnects by itself; only a session that is down needs a new login."""
        if event_code in DOWN_EVENTS:
            log.warning("broker_connection_lost", connection_event=text)
            self._tell_connection(False, text)
        elif event_code in UP_EVENTS and self._is_up:
            log.info("broker_connection_up", connection_event=text)
            self._tell_connection(True, text)

    def _went_down(self, why: str) -> None:
        self._is_up = False
        self._counts.add(ReasonCode.BROKER_UNREACHABLE, "broker_session_down", why=why)
        self._tell_connection(False, why)

    def _tell_connection(self, is_up: bool, why: str) -> None:
        listener = self._listener
        if listener is None:
            return
        done = attempt(lambda: listener.on_connection(is_up, why))
        if done.error is not None:
            self._count_error("connection_not_told", done.error)

    # -- what the calls share ---------------------------------------------------------------

    def _count_error(self, event: str, error: BaseException) -> None:
        code = getattr(error, "code", None)
        known = isinstance(error, PlatformError | UnreadableError) and isinstance(code, int)
        self._counts.add(
            code if known and code is not None else ReasonCode.INVARIANT_BROKEN,
            event,
            why=describe(error),
        )

    def _required(self, what: str) -> _Link:
        link = self._link
        if link is None or not self._is_up:
            raise PlatformError(
                ReasonCode.BROKER_QUERY_FAILED, f"{what}: there is no session with the broker"
            )
        return link

    def _tradable(self, symbol: str) -> tuple[_Link, Instrument, Contract]:
        link = self._link
        if link is None or not self._is_up:
            raise PlatformError(ReasonCode.BROKER_UNREACHABLE, "there is no session")
        name = symbol if isinstance(symbol, str) else ""
        instrument, contract = self._instruments.get(name), link.contracts.get(name)
        if instrument is None or contract is None:
            raise PlatformError(
                ReasonCode.CONTRACT_UNKNOWN, f"{symbol!s:.30} is no contract of this process"
            )
        return link, instrument, contract

    def _account_for(self, link: _Link, instrument: Instrument) -> Any:  # Any: of the SDK
        market = "stock" if is_stock(instrument) else "futures"
        account = link.opened.accounts.get(market)
        if account is None:
            raise PlatformError(ReasonCode.ACCOUNT_NOT_ALLOWED, f"no {market} account is open")
        return account

    def _trade(self, link: _Link, ids: BrokerIds) -> Any:  # Any: the SDK's `Trade`
        """The SDK's object of an order, asked for when it was placed before this session."""
        if not ids.broker_id and not ids.seqno:
            raise PlatformError(ReasonCode.ORDER_NOT_FOUND, "the order has no ids yet")
        with self._lock:
            known = self._trades.get(ids.broker_id)
        if known is not None:
            return known
        for trade in link.account.trades():
            try:
                found = ids_of(attribute(trade, "order"))
            except UnreadableError as error:
                raise PlatformError(ReasonCode.BROKER_QUERY_FAILED, error.message) from error
            if ids.broker_id == found.broker_id or (not ids.broker_id and ids.seqno == found.seqno):
                self._remember(found.broker_id, trade, "")
                return trade
        raise PlatformError(
            ReasonCode.ORDER_NOT_FOUND, f"the broker lists no order {ids.broker_id or ids.seqno}"
        )

    def _remember(self, order_id: str, trade: object, tag: str) -> None:
        with self._lock:
            self._trades[order_id] = trade
            _bound(self._trades, ORDERS_KEPT_MAX)
            if tag:
                self._tags[order_id] = tag
                _bound(self._tags, ORDERS_KEPT_MAX)

    def _tag_of(self, order_id: str) -> str:
        with self._lock:
            return self._tags.get(order_id, "")


def _checked_until_ns(contracts: dict[str, Contract], now_ns: int) -> int:
    """When the contracts must be looked at again."""
    return min((row.until_ns for row in contracts.values()), default=now_ns + RETRY_NS)


def _bound(kept: OrderedDict[str, Any], count_max: int) -> None:  # Any: whatever is kept
    while len(kept) > count_max:
        kept.popitem(last=False)


def _lots_to_take(trade: Any, kept: int) -> int:  # Any: the SDK's `Trade`
    """Lots to take from an order so that `kept` are left: what the SDK's `qty` means.

    Raises
    ------
    PlatformError
        ORDER_FIELD_INVALID when the order is not larger.
    """
    ordered = lots(attribute(attribute(trade, "order"), "quantity"), "quantity")
    canceled = lots(
        attribute(attribute(trade, "status"), "cancel_quantity") or 0,
        "cancel_quantity",
        is_zero_allowed=True,
    )
    if kept >= ordered - canceled:
        raise PlatformError(
            ReasonCode.ORDER_FIELD_INVALID,
            f"qty was {kept} lots, the order has {ordered - canceled}: it can only become smaller",
        )
    return ordered - canceled - kept
