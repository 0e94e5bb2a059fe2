"""Stand-ins for what the SDK makes only behind a login; their fields are held to the SDK's own.

`Session` answers like an open session and keeps what it was asked. What an order call does next is
a list of answers: an exception to raise, or a status. `test_shioaji_surface.py` compares every
field and signature here with the SDK's classes and its stub.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["RUST_BACKTRACE"] = "0"
os.environ.setdefault("SJ_LOG_PATH", os.devnull)

import shioaji as sj

from hft_platform.config.settings import BrokerSettings, load_settings
from hft_platform.market.instruments import Instrument
from hft_platform.order.broker import FillEvent, OrderEvent
from hft_platform.order.shioaji_broker import ShioajiBroker
from hft_platform.services.shioaji_factory import make_shioaji
from tests.hft_platform.feed.shioaji_quotes import NOW_NS, instruments_in

SCALE = 100_000_000
SECOND_NS = 1_000_000_000
TAIPEI = dt.timezone(dt.timedelta(hours=8))
KEY = "secret-api-key"
SECRET = "secret-secret-key"
CA_PASSWORD = "secret-ca-password"


class Struct:
    """An object with the given fields, readable as attributes."""

    FIELDS: tuple[str, ...] = ()

    def __init__(self, **fields: Any) -> None:
        assert set(fields) == set(self.FIELDS), set(fields) ^ set(self.FIELDS)
        self.__dict__.update(fields)


class Trade(Struct):
    FIELDS = ("contract", "order", "status")


class OrderResult(Struct):
    FIELDS = (
        "account", "action", "ca", "custom_field", "daytrade_short", "id", "octype", "order_cond",
        "order_lot", "order_type", "ordno", "price", "price_type", "quantity", "seqno",
        "time_in_force",
    )  # fmt: skip


class OrderStatusInfo(Struct):
    FIELDS = (
        "cancel_quantity", "deal_quantity", "deals", "id", "modified_price", "modified_time", "msg",
        "order_datetime", "order_quantity", "status", "status_code", "web_id",
    )  # fmt: skip


class Deal(Struct):
    FIELDS = ("datetime", "price", "quantity", "seq", "ts")


class Margin(Struct):
    FIELDS = (
        "available_margin", "collateral_amount", "deposit_withdrawal", "equity", "equity_amount",
        "fee", "future_open_position", "future_settle_profitloss", "initial_margin",
        "maintenance_margin", "margin_call", "option_open_position", "option_openbuy_market_value",
        "option_opensell_market_value", "option_settle_profitloss", "order_margin_premium",
        "plus_margin", "plus_margin_indicator", "risk_indicator", "royalty_revenue_expenditure",
        "security_collateral_amount", "status", "tax", "today_balance",
        "today_future_open_position", "yesterday_balance",
    )  # fmt: skip


class FuturePosition(Struct):
    FIELDS = ("code", "direction", "id", "last_price", "pnl", "price", "quantity")


class StockPosition(Struct):
    FIELDS = (
        "code", "collateral", "cond", "direction", "id", "interest", "last_price",
        "margin_purchase_amount", "pnl", "price", "quantity", "short_sale_margin", "yd_quantity",
    )  # fmt: skip


class AccountBalance(Struct):
    FIELDS = ("acc_balance", "date", "errmsg", "status")


class SettlementV1(Struct):
    FIELDS = ("T", "amount", "date")


class TradingLimits(Struct):
    FIELDS = (
        "margin_available", "margin_limit", "margin_used", "short_available", "short_limit",
        "short_used", "status", "trading_available", "trading_limit", "trading_used",
    )  # fmt: skip


class UsageOut(Struct):
    FIELDS = ("bytes", "connections", "limit_bytes", "remaining_bytes")


class Snapshot(Struct):
    FIELDS = (
        "amount", "average_price", "buy_price", "buy_volume", "change_price", "change_rate",
        "change_type", "close", "code", "exchange", "high", "low", "open", "sell_price",
        "sell_volume", "tick_type", "total_amount", "total_volume", "ts", "volume", "volume_ratio",
        "yesterday_volume",
    )  # fmt: skip


class FuturesInfo(Struct):
    FIELDS = (
        "security_type", "region", "exchange", "code", "target_code", "base", "name", "root",
        "delivery_month", "delivery_date", "last_trading_date", "begin_date", "underlying_kind",
        "underlying_code", "multiplier", "contract_size", "size_unit", "quote_ccy", "tick_basis",
        "tick_rule", "tick", "tick_value", "spec_kind", "decimal_locator", "dynamic_banding",
        "flow_group", "reference", "limit_up", "limit_down", "limit_up_2", "limit_down_2",
        "limit_up_3", "limit_down_3", "update_date",
    )  # fmt: skip


class StockInfo(Struct):
    FIELDS = (
        "security_type", "region", "exchange", "code", "target_code", "base", "name", "category",
        "currency", "unit", "day_trade", "reference", "limit_up", "limit_down",
        "margin_trading_balance", "short_selling_balance", "trading_suspended",
        "margin_loan_ratio", "margin_quota_lots", "short_margin_ratio", "short_quota_lots",
        "margin_shortable", "sbl_shortable", "below_ref_shortable", "disposition_level",
        "attention_flag", "etf_constituent", "settlement_type", "disposition_match_interval_min",
        "disposition_max_lots_single_order", "disposition_max_lots_total_orders",
        "disposition_prepay_ratio", "update_date",
    )  # fmt: skip


STRUCTS = (
    Trade, OrderResult, OrderStatusInfo, Deal, Margin, FuturePosition, StockPosition,
    AccountBalance, SettlementV1, TradingLimits, UsageOut, Snapshot,
)  # fmt: skip
INFOS = (FuturesInfo, StockInfo)


class Event:
    """Like the SDK's `OrderEventDict`: a mapping by behaviour, no `dict` and no `Mapping`."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content

    def __getitem__(self, key: str) -> Any:
        return self._content[key]

    def __contains__(self, key: str) -> bool:
        return key in self._content

    def __len__(self) -> int:
        return len(self._content)

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def get(self, key: str, default: Any = None) -> Any:
        return self._content.get(key, default)

    def keys(self) -> list[str]:
        return list(self._content)

    def values(self) -> list[Any]:
        return list(self._content.values())

    def items(self) -> list[tuple[str, Any]]:
        return list(self._content.items())


FUTURES = sj.Account(
    account_type=sj.AccountType.Future, person_id="A100000001", broker_id="F002000",
    account_id="1234567", signed=True, username="x",
)  # fmt: skip
STOCK = sj.Account(
    account_type=sj.AccountType.Stock, person_id="A100000001", broker_id="9A95",
    account_id="7654321", signed=True, username="x",
)  # fmt: skip
FUTURES_KEY, STOCK_KEY = "F002000-1234567", "9A95-7654321"


def account_dict(is_stock: bool = False) -> dict[str, Any]:
    """An account inside an event."""
    row = STOCK if is_stock else FUTURES
    return {
        "account_type": "S" if is_stock else "F",
        "person_id": row.person_id,
        "broker_id": row.broker_id,
        "account_id": row.account_id,
        "signed": True,
        "username": "",
    }


def futures_order_event(op_type: str = "New", op_code: str = "00", **order: Any) -> dict[str, Any]:
    """Content of an FORDER event; keyword arguments change its order."""
    return {
        "event_id": "e1",
        "operation": {"op_type": op_type, "op_code": op_code, "op_msg": "" if op_code == "00" else "x"},  # noqa: E501
        "order": {
            "id": "7c4e6e46", "seqno": "269866", "ordno": "tA0de", "account": account_dict(),
            "action": "Buy", "price": 20000.0, "quantity": 2, "time_in_force": "ROD",
            "order_type": "ROD", "price_type": "LMT", "market_type": "Day", "oc_type": "Auto",
            "subaccount": "", "combo": False,
        } | order,
        "status": {
            "id": "7c4e6e46", "exchange_ts": 1775787072.345, "modified_price": 0.0,
            "cancel_quantity": 0, "order_quantity": 2, "web_id": "Z",
        },
        "contract": {
            "security_type": "FUT", "code": "TXF", "exchange": "TIM", "delivery_month": "202604",
            "full_code": "TXFD6", "delivery_date": "", "strike_price": 0.0, "option_right": "Future",  # noqa: E501
        },
    }  # fmt: skip


def futures_deal_event(**changes: Any) -> dict[str, Any]:
    """Content of an FDEAL event."""
    return {
        "event_id": "e2", "trade_id": "7c4e6e46", "seqno": "269866", "ordno": "tA0deX1O",
        "exchange_seq": "j5006396", "broker_id": "F002000", "account_id": "1234567",
        "action": "Buy", "code": "TXF", "full_code": "TXFD6", "price": 20000.0, "quantity": 1,
        "subaccount": "", "security_type": "FUT", "delivery_month": "202604", "strike_price": 0.0,
        "option_right": "Future", "market_type": "Day", "combo": False, "ts": 1775787073.5,
    } | changes  # fmt: skip


def stock_order_event(op_type: str = "New", op_code: str = "00", **order: Any) -> dict[str, Any]:
    """Content of an SORDER event."""
    return {
        "event_id": "e3",
        "operation": {"op_type": op_type, "op_code": op_code, "op_msg": ""},
        "order": {
            "id": "97b63e2f", "seqno": "267677", "ordno": "IM394", "account": account_dict(True),
            "action": "Sell", "price": 2220.0, "quantity": 3, "time_in_force": "ROD",
            "order_type": "ROD", "price_type": "LMT", "order_cond": "Cash", "order_lot": "Common",
            "custom_field": "0a1B2c",
        } | order,
        "status": {
            "id": "97b63e2f", "exchange_ts": 1775787074.038, "modified_price": 0.0,
            "cancel_quantity": 0, "order_quantity": 3, "web_id": "137",
        },
        "contract": {
            "security_type": "STK", "exchange": "TSE", "code": "2330", "symbol": "", "name": "",
            "currency": "TWD",
        },
    }  # fmt: skip


def stock_deal_event(**changes: Any) -> dict[str, Any]:
    """Content of an SDEAL event."""
    return {
        "event_id": "e4", "trade_id": "97b63e2f", "seqno": "267677", "ordno": "IM394",
        "exchange_seq": "669915", "broker_id": "9A95", "account_id": "7654321", "action": "Sell",
        "code": "2330", "order_cond": "Cash", "order_lot": "Common", "price": 2220.0, "quantity": 1,
        "web_id": "137", "custom_field": "0a1B2c", "ts": 1775787076.354,
    } | changes  # fmt: skip


def futures_info(**changes: Any) -> FuturesInfo:
    """Terms of TXFD6 that fit its instrument, with changes."""
    content: dict[str, Any] = dict.fromkeys(FuturesInfo.FIELDS)
    content |= {
        "security_type": "FUT", "region": "TW", "exchange": "TAIFEX", "code": "TXFD6",
        "root": "TXF", "last_trading_date": dt.date(2026, 4, 15), "multiplier": 200.0, "tick": 1.0,
        "reference": 20000.0, "limit_up": 22000.0, "limit_down": 18000.0,
    }  # fmt: skip
    return FuturesInfo(**(content | changes))


def stock_info(**changes: Any) -> StockInfo:
    """Terms of 2330 that fit its instrument, with changes."""
    content: dict[str, Any] = dict.fromkeys(StockInfo.FIELDS)
    content |= {
        "security_type": "STK", "region": "TW", "exchange": "TSE", "code": "2330", "unit": 1000.0,
        "reference": 2220.0, "limit_up": 2440.0, "limit_down": 2000.0,
    }  # fmt: skip
    return StockInfo(**(content | changes))


class ContractTable:
    """The SDK's contracts, as `ContractsApi` answers."""

    def __init__(self) -> None:
        self.infos: dict[str, Any] = {"TXFD6": futures_info(), "2330": stock_info()}
        self.loads: list[tuple[str, Any]] = []

    def get(
        self, code: Any, region: Any = None, security_type: Any = None, exchange: Any = None
    ) -> Any:
        if code not in self.infos:
            return None
        return sj.BaseContract(security_type, "TAIFEX" if security_type == "FUT" else "TSE", code)

    def info(self, base: Any) -> Any:
        return self.infos[base.code]

    def preload(
        self,
        security_types: Any = None,
        regions: Any = None,
        info: bool = False,
        timeout: int = 30000,
        cb: Any = None,
    ) -> None:
        self.loads.append(("preload", security_types))

    def reload(
        self,
        security_types: Any = None,
        regions: Any = None,
        info: bool = False,
        timeout: int = 30000,
        cb: Any = None,
    ) -> None:
        self.loads.append(("reload", security_types))


def trade_of(
    contract: Any, order: Any, status: str, *, order_id: str = "7c4e6e46", **changes: Any
) -> Trade:
    """What an order call answers; `order` is a real order of the SDK."""
    is_stock = isinstance(order, sj.StockOrder)
    result = {
        "account": order.account, "action": order.action, "ca": "", "custom_field": order.custom_field,  # noqa: E501
        "daytrade_short": None, "id": order_id, "octype": None if is_stock else order.octype,
        "order_cond": order.order_cond if is_stock else None,
        "order_lot": order.order_lot if is_stock else None, "order_type": order.order_type,
        "ordno": "tA0de", "price": order.price, "price_type": order.price_type,
        "quantity": order.quantity, "seqno": "269866", "time_in_force": order.time_in_force,
    }  # fmt: skip
    info = {
        "cancel_quantity": 0, "deal_quantity": 0, "deals": [], "id": order_id, "modified_price": 0.0,  # noqa: E501
        "modified_time": None, "msg": "", "order_datetime": None, "order_quantity": order.quantity,
        "status": sj.OrderStatus(status), "status_code": "00", "web_id": "Z",
    }  # fmt: skip
    for name, value in changes.items():
        target = result if name in result and name != "id" else info
        assert name in target, name
        target[name] = value
    return Trade(contract=contract, order=OrderResult(**result), status=OrderStatusInfo(**info))


class Session:
    """An open session: keeps what it was asked, answers what it was told to."""

    def __init__(self) -> None:
        self.contracts = ContractTable()
        self.calls: list[str] = []
        self.accounts: list[Any] = [FUTURES, STOCK]
        self.certificate_end: Any = dt.datetime(2027, 1, 1, tzinfo=TAIPEI)
        self.is_ca_active: Any = True
        self.answers: list[Any] = []
        self.failures: dict[str, BaseException] = {}
        self.returns: dict[str, Any] = {}
        self.trades: list[Any] = []
        self.records: list[tuple[Any, Any]] = []
        self.callbacks: dict[str, Callable[..., None]] = {}
        self.placed: list[tuple[Any, Any, int, Any]] = []
        self.updates: list[dict[str, Any]] = []
        self.subscribed: list[tuple[str, str, bool]] = []
        self.unsubscribed: list[tuple[str, str, bool]] = []
        self.credentials: tuple[str, ...] = ()
        self.remaining_bytes = 1_000_000

    def _asked(self, name: str, default: Any = None) -> Any:
        self.calls.append(name)
        if name in self.failures:
            raise self.failures[name]
        return self.returns.get(name, default)

    def login(
        self,
        api_key: Any,
        secret_key: Any,
        subscribe_trade: bool = True,
        receive_window: int = 30000,
        force_refresh: bool = False,
    ) -> Any:
        assert not subscribe_trade, "orders would be reported before anybody listens"
        self.credentials = (api_key, secret_key)
        return self._asked("login", self.accounts)

    def activate_ca(self, ca_path: Any, ca_passwd: Any, person_id: Any = None) -> Any:
        self.credentials += (ca_path, ca_passwd, person_id)
        return self._asked("activate_ca", self.is_ca_active)

    def get_ca_expiretime(self, person_id: Any) -> Any:
        return self._asked("get_ca_expiretime", self.certificate_end)

    def logout(self) -> None:
        self._asked("logout")

    def usage(self, timeout: int = 30000, cb: Any = None) -> Any:
        return self._asked(
            "usage",
            UsageOut(bytes=5, connections=1, limit_bytes=10, remaining_bytes=self.remaining_bytes),
        )

    def subscribe_trade(self, account: Any, timeout: int = 30000) -> Any:
        return self._asked("subscribe_trade", True)

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
        self._asked("subscribe")
        assert version == sj.QuoteVersion.v1
        self.subscribed.append((contract.code, quote_type.value, intraday_odd))

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
        self._asked("unsubscribe")
        self.unsubscribed.append((contract.code, quote_type.value, intraday_odd))

    def snapshots(self, contracts: Any, timeout: int = 30000, cb: Any = None) -> Any:
        rows = [snapshot(contract.code) for contract in contracts]
        return self._asked("snapshots", rows)

    def place_order(self, contract: Any, order: Any, timeout: int = 30000, cb: Any = None) -> Any:
        self._asked("place_order")
        self.placed.append((contract, order, timeout, cb))
        answer = self.answers.pop(0) if self.answers else "PendingSubmit"
        if isinstance(answer, BaseException):
            raise answer
        if not isinstance(answer, str):
            return answer
        trade = trade_of(contract, order, answer)
        if timeout == 0:
            trade = trade_of(
                contract, order, "Inactive", order_id="", seqno="", ordno="", status_code=""
            )
        else:
            self.trades.append(trade)
        return trade

    def update_order(
        self,
        trade: Any,
        price: Any = None,
        qty: Any = None,
        timeout: int = 30000,
        cb: Any = None,
    ) -> Any:
        self._asked("update_order")
        self.updates.append({"price": price, "qty": qty, "timeout": timeout})
        return trade

    def cancel_order(self, trade: Any, timeout: int = 30000, cb: Any = None) -> Any:
        self._asked("cancel_order")
        answer = self.answers.pop(0) if self.answers else trade
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def update_status(
        self, account: Any = None, *, trade: Any = None, timeout: int = 30000, cb: Any = None
    ) -> None:
        self._asked("update_status")

    def list_trades(self) -> Any:
        return self._asked("list_trades", list(self.trades))

    def order_deal_records(self, account: Any = None, timeout: int = 30000, cb: Any = None) -> Any:
        kind = account.account_type.value
        rows = [(state, event) for state, event in self.records if state.value.startswith(kind)]
        return self._asked("order_deal_records", rows)

    def list_positions(
        self, account: Any = None, unit: Any = None, timeout: int = 30000, cb: Any = None
    ) -> Any:
        assert (unit == sj.Unit.Share) == (account.account_type.value == "S")
        return self._asked("list_positions", [])

    def margin(self, account: Any = None, timeout: int = 30000, cb: Any = None) -> Any:
        return self._asked("margin", margin())

    def account_balance(self, account: Any = None, timeout: int = 30000, cb: Any = None) -> Any:
        return self._asked(
            "account_balance",
            AccountBalance(
                acc_balance=12345.0, date="2026-04-10", errmsg="", status=sj.FetchStatus.Fetched
            ),
        )

    def settlements(self, account: Any = None, timeout: int = 30000, cb: Any = None) -> Any:
        rows = [SettlementV1(T=1, amount=-1000.0, date=dt.date(2026, 4, 13))]
        return self._asked("settlements", rows)

    def trading_limits(self, account: Any = None, timeout: int = 30000, cb: Any = None) -> Any:
        content = dict.fromkeys(TradingLimits.FIELDS, 7) | {"status": sj.FetchStatus.Fetched}
        return self._asked("trading_limits", TradingLimits(**content))

    def set_order_callback(self, callback: Any) -> None:
        self.callbacks["order"] = callback

    def set_event_callback(self, callback: Any) -> None:
        self.callbacks["event"] = callback

    def set_session_down_callback(self, callback: Any) -> None:
        self.callbacks["down"] = callback

    def set_on_tick_fop_v1_callback(self, callback: Any, bind: bool = False) -> None:
        self.callbacks["tick_fop"] = callback

    def set_on_bidask_fop_v1_callback(self, callback: Any, bind: bool = False) -> None:
        self.callbacks["bidask_fop"] = callback

    def set_on_tick_stk_v1_callback(self, callback: Any, bind: bool = False) -> None:
        self.callbacks["tick_stk"] = callback

    def set_on_bidask_stk_v1_callback(self, callback: Any, bind: bool = False) -> None:
        self.callbacks["bidask_stk"] = callback


def margin(**changes: Any) -> Margin:
    """Margin of a futures account."""
    content: dict[str, Any] = dict.fromkeys(Margin.FIELDS, 0.0)
    content |= {
        "equity": 1_000_000.0,
        "available_margin": 600_000.5,
        "status": sj.FetchStatus.Fetched,
    }
    return Margin(**(content | changes))


def snapshot(code: str, **changes: Any) -> Snapshot:
    """What a snapshot shows."""
    content: dict[str, Any] = dict.fromkeys(Snapshot.FIELDS, 0)
    content |= {
        "code": code, "close": 20001.0, "buy_price": 20000.0, "sell_price": 20002.0,
        "total_volume": 55,
    }  # fmt: skip
    return Snapshot(**(content | changes))


class Clock:
    """A wall clock that a test sets."""

    def __init__(self, now_ns: int = NOW_NS) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns


class Listener:
    """Keeps what a broker reports; raises what it is told to."""

    def __init__(self) -> None:
        self.tapes: list[bytes] = []
        self.orders: list[OrderEvent] = []
        self.fills: list[FillEvent] = []
        self.connections: list[tuple[bool, str]] = []
        self.error: BaseException | None = None

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    def on_market(self, tape: bytes) -> None:
        self._check()
        self.tapes.append(tape)

    def on_order(self, event: OrderEvent) -> None:
        self._check()
        self.orders.append(event)

    def on_fill(self, event: FillEvent) -> None:
        self._check()
        self.fills.append(event)

    def on_connection(self, is_up: bool, message: str) -> None:
        self._check()
        self.connections.append((is_up, message))


def broker_settings(**changes: Any) -> BrokerSettings:
    """The packaged settings with both accounts allowed, and changes."""
    packaged = load_settings(Path("no such folder"), environment={}).broker
    return packaged.model_copy(update={"accounts": [FUTURES_KEY, STOCK_KEY]} | changes)


def write_secrets(folder: Path) -> dict[str, str]:
    """Files of keys and certificate as the environment names them."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "SHIOAJI_API_KEY_FILE": KEY,
        "SHIOAJI_SECRET_KEY_FILE": SECRET,
        "SHIOAJI_CA_FILE": "not a certificate",
        "SHIOAJI_CA_PASSWORD_FILE": CA_PASSWORD,
    }
    environment = {}
    for name, content in contents.items():
        path = folder / name.lower()
        path.write_text(content + "\n")
        path.chmod(0o600)
        environment[name] = str(path)
    return environment


class Desk:
    """A broker on a stand-in session, with everything a test looks at."""

    def __init__(
        self, folder: Path, *, symbols: tuple[str, ...] = ("TXFD6", "2330"), **changes: Any
    ) -> None:
        table = instruments_in(folder / "config")
        self.instruments: list[Instrument] = [table.by_symbol(symbol) for symbol in symbols]
        self.clock = Clock()
        self.listener = Listener()
        self.settings = broker_settings(**changes)
        self.sessions: list[Session] = []
        self.prepare: Callable[[Session], None] = lambda session: None
        self.broker: ShioajiBroker = make_shioaji(
            self.settings,
            instruments=self.instruments,
            workspace=folder / "workspace",
            environment=write_secrets(folder / "secrets"),
            clock_ns=self.clock,
            seed=1,
            is_live_enabled=True,
            make_api=self._make,
        )

    def _make(self, _sdk: Any, is_simulation: bool) -> Session:
        assert is_simulation == self.settings.is_simulation
        session = Session()
        self.prepare(session)
        self.sessions.append(session)
        return session

    def connect(self) -> Session:
        """Connect and give the session."""
        self.broker.connect(self.listener)
        return self.sessions[-1]

    @property
    def counts(self) -> dict[int, int]:
        """What the broker counted, by code."""
        counts: dict[int, int] = self.broker.state()["counts"]
        return counts
