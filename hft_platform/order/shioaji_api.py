"""What is asked of the broker's SDK: every call that this platform makes, and nothing else.

Why: the adapter depends on these signatures only. A test holds each against the SDK's own, and the
tests' stand-in has the same ones.

Invariants:
1. A call that is not here is not made.
2. Objects of the SDK are `Any` here and nowhere behind the adapter.

It imports no SDK. Operator's page: `docs/shioaji.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class ContractTable(Protocol):
    """The SDK's contracts, namespace v2."""

    def get(
        self,
        code: str,
        region: Any = None,
        security_type: Any = None,
        exchange: Any = None,
    ) -> Any:  # Any: a contract of the SDK
        """A contract by its code, or None."""

    def info(self, base: Any) -> Any:  # Any: objects of the SDK
        """Terms of a contract."""

    def preload(
        self,
        security_types: Any = None,
        regions: Any = None,
        info: bool = False,
        timeout: int = 30000,
        cb: Any = None,
    ) -> Any:
        """Load contracts, and with `info` their terms."""

    def reload(
        self,
        security_types: Any = None,
        regions: Any = None,
        info: bool = False,
        timeout: int = 30000,
        cb: Any = None,
    ) -> Any:
        """Load them again, as of a new trading day."""


class ShioajiApi(Protocol):
    """An open session of the SDK; only `shioaji_session` makes one."""

    @property
    def contracts(self) -> ContractTable:
        """Contracts of the day."""

    def logout(self) -> None:
        """End the session."""

    def usage(self, timeout: int = 30000, cb: Any = None) -> Any:
        """Connections and traffic of the day."""

    def subscribe_trade(self, account: Any, timeout: int = 30000) -> bool:
        """Ask for the events of an account's orders."""

    def get_ca_expiretime(self, person_id: str) -> Any:
        """When the certificate ends."""

    def subscribe(
        self,
        contract: Any,
        quote_type: Any = None,
        intraday_odd: bool = False,
        version: Any = None,
        *,
        ranking: Any = None,
        projection: Any = None,
    ) -> None:
        """Ask for quotes."""

    def unsubscribe(
        self,
        contract: Any,
        quote_type: Any = None,
        intraday_odd: bool = False,
        version: Any = None,
        *,
        ranking: Any = None,
        projection: Any = None,
    ) -> None:
        """Ask for no more quotes."""

    def snapshots(self, contracts: list[Any], timeout: int = 30000, cb: Any = None) -> Any:
        """Last price and best prices of contracts."""

    def place_order(self, contract: Any, order: Any, timeout: int = 30000, cb: Any = None) -> Any:
        """Send an order."""

    def update_order(
        self,
        trade: Any,
        price: float | None = None,
        qty: int | None = None,
        timeout: int = 30000,
        cb: Any = None,
    ) -> Any:
        """Change the price of an order, or take `qty` lots from it."""

    def cancel_order(self, trade: Any, timeout: int = 30000, cb: Any = None) -> Any:
        """Cancel the rest of an order."""

    def update_status(
        self, account: Any = None, *, trade: Any = None, timeout: int = 30000, cb: Any = None
    ) -> None:
        """Fetch the orders of an account; `list_trades` has them."""

    def list_trades(self) -> Any:
        """Orders as of the last fetch."""

    def order_deal_records(self, account: Any = None, timeout: int = 30000, cb: Any = None) -> Any:
        """Events of the day once more."""

    def list_positions(
        self, account: Any = None, unit: Any = None, timeout: int = 30000, cb: Any = None
    ) -> Any:
        """Positions of an account."""

    def margin(self, account: Any = None, timeout: int = 30000, cb: Any = None) -> Any:
        """Margin of a futures account."""

    def account_balance(self, account: Any = None, timeout: int = 30000, cb: Any = None) -> Any:
        """Cash of a stock account."""

    def settlements(self, account: Any = None, timeout: int = 30000, cb: Any = None) -> Any:
        """What a stock account pays and gets in the next days."""

    def trading_limits(self, account: Any = None, timeout: int = 30000, cb: Any = None) -> Any:
        """Credit of a stock account."""

    def set_order_callback(self, callback: Callable[..., None]) -> None:
        """Who takes order and deal events."""

    def set_event_callback(self, callback: Callable[..., None]) -> None:
        """Who takes connection events."""

    def set_session_down_callback(self, callback: Callable[..., None]) -> None:
        """Who is told that the session is down."""

    def set_on_tick_fop_v1_callback(
        self, callback: Callable[..., None], bind: bool = False
    ) -> None:
        """Who takes prints of futures and options."""

    def set_on_bidask_fop_v1_callback(
        self, callback: Callable[..., None], bind: bool = False
    ) -> None:
        """Who takes books of futures and options."""

    def set_on_tick_stk_v1_callback(
        self, callback: Callable[..., None], bind: bool = False
    ) -> None:
        """Who takes prints of stocks."""

    def set_on_bidask_stk_v1_callback(
        self, callback: Callable[..., None], bind: bool = False
    ) -> None:
        """Who takes books of stocks."""
