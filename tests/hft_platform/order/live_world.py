"""A real live session on TXF, and a broker that does as it is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from hft_platform import _core, records
from hft_platform.config.engine_config import AlphaSpec, build_engine_config, engine_config_json
from hft_platform.execution.execution_gateway import ExecutionGateway
from hft_platform.execution.order_ids import OrderIds
from hft_platform.market.instruments import Instrument, load_instruments
from hft_platform.market.sessions import Session, sessions_for
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
)
from hft_platform.order.call_breaker import CallBreaker
from hft_platform.order.call_budget import CallBudget
from hft_platform.order.fence import Fences
from hft_platform.order.order_adapter import OrderAdapter

LOT = records.SCALE
MS, SECOND = 1_000_000, 1_000_000_000
MID = 20_000
TXF: Instrument = load_instruments().by_symbol("TXFD6")
# 2026-04-10 01:00 UTC is 09:00 in Taipei, within the day session.
SESSION: Session = sessions_for(TXF, 1_775_782_800 * SECOND, 1_775_782_800 * SECOND)[0]
START_NS = SESSION.start_ns + 60 * SECOND
WIDE = 10**17
NAMELESS = BrokerIds()
METERS = (
    "drawdown_bps", "feed_gap_ns", "loop_lag_ns", "order_rtt_ns", "reject_count", "drift_reports",
    "feature_failures", "normaliser_failures",
)  # fmt: skip
ALPHAS = 2


@cache
def engine_config() -> str:
    """Remote alphas on TXF whose limits never bind."""
    alphas = [
        AlphaSpec(
            alpha_id=f"runner_{index}",
            symbol=TXF.symbol,
            expression="",
            parameters={},
            template={"kind": "remote", "slippage_ticks": 1},
            order_qty=LOT,
            ttl_ns=60 * SECOND,
            limits={
                "order_qty_max": 100 * LOT, "position_qty_max": 10_000 * LOT,
                "daily_loss_max": WIDE, "drawdown_max": WIDE, "loss_speed_max": WIDE,
                "order_rate_max": 1_000,
            },
            on_withdrawal={"action": "reduce_only", "deadline_ns": 0},
        )
        for index in range(ALPHAS)
    ]  # fmt: skip
    never = dict.fromkeys(("warm_in", "warm_out", "storm_in", "storm_out", "halt_in", "halt_out"))
    limits: dict[str, int | None] = {
        "gross_notional_max": 10**18, "net_notional_max": 10**18, "position_lots_max": 10_000,
        "daily_loss_max": WIDE, "drawdown_max": WIDE, "loss_speed_max": WIDE,
        "free_margin_min": None, "account_age_ns_max": 60 * SECOND, "order_rate_max": 1_000,
        "cancel_reserve": 100, "order_to_trade_max": 1_000, "reject_rate_max": 1_000,
        "unknown_rate_max": 1_000, "one_side_fill_max": 1_000, "price_collar_bps": 5_000,
        "exit_collar_bps": 5_000, "quote_age_ns_max": 5 * SECOND, "clock_skew_ns_max": None,
        "repeated_order_max": 1_000,
    }  # fmt: skip
    storm = dict.fromkeys(METERS, never) | {
        "risk_capital": WIDE, "open_grace_ns": 60 * SECOND, "failure_window_ns": 60 * SECOND,
        "clears": 5, "cool_down_warm_ns": SECOND, "cool_down_storm_ns": SECOND,
        "hold_warm_ns": SECOND, "hold_storm_ns": SECOND, "resume_window_ns": 60 * SECOND,
    }  # fmt: skip
    return engine_config_json(
        build_engine_config(
            alphas,
            instruments=[TXF],
            session=SESSION,
            account_limits=limits,
            storm_guard=storm,
        )
    )


class ToldBroker:
    """Answers each call with what it was told, and keeps every call."""

    name = "told"

    def __init__(self) -> None:
        self.placed: list[OrderTicket] = []
        self.canceled: list[BrokerIds] = []
        self.answers: list[CallResult | Exception] = []
        self.during: Callable[[], None] = lambda: None

    def connect(self, listener: BrokerListener) -> None:
        """Nothing to connect to."""
        listener.on_connection(True, "")

    def subscribe(self, symbols: list[str]) -> None:
        """Nothing to subscribe."""

    def place(self, ticket: OrderTicket) -> CallResult:
        """Keep the ticket."""
        self.placed.append(ticket)
        number = len(self.placed)
        return self._answer(CallResult(Outcome.SENT, BrokerIds(f"B{number}", f"S{number}", "")))

    def cancel(self, ids: BrokerIds, symbol: str) -> CallResult:
        """Keep the ids."""
        self.canceled.append(ids)
        return self._answer(CallResult(Outcome.SENT, ids))

    def amend(
        self, ids: BrokerIds, symbol: str, *, price: int | None, qty: int | None
    ) -> CallResult:
        """Nobody amends here."""
        raise AssertionError("amend")

    def orders(self) -> list[BrokerOrder]:
        """Nobody asks here."""
        return []

    def positions(self) -> list[BrokerPosition]:
        """Nobody asks here."""
        return []

    def account(self) -> AccountState:
        """Nobody asks here."""
        return AccountState(0)

    def close(self) -> None:
        """Nothing to close."""

    def _answer(self, usual: CallResult) -> CallResult:
        during, self.during = self.during, lambda: None
        during()
        answer = self.answers.pop(0) if self.answers else usual
        if isinstance(answer, Exception):
            raise answer
        return answer


class World:
    """A life of a live process around one session folder; `again` is the next one after a crash."""

    def __init__(
        self, folder: Path, *, epoch: int = 1, now_ns: int = START_NS, **parts: Any
    ) -> None:
        self.folder, self.epoch, self.now_ns = folder, epoch, now_ns
        options = {
            "wal_id": 7, "epoch": epoch, "process_id": 1, "opened_ns": now_ns,
            "durable": "group", "segment_bytes": 1 << 16,
            "contracts": {str(TXF.instrument_id): {
                "product_root": TXF.product_root, "last_trading_day": TXF.last_trading_day,
            }},
        }  # fmt: skip
        self.session = _core.LiveSession(engine_config(), str(folder), json.dumps(options))
        self.broker = parts.pop("broker", None) or ToldBroker()
        self.order_ids = OrderIds.from_session(self.session)
        clock = lambda: self.now_ns  # noqa: E731  # the one clock
        instruments = {TXF.instrument_id: TXF}
        self.gateway = ExecutionGateway(self.session, self.order_ids, instruments, clock)
        self.budget = parts.pop("budget", None) or CallBudget(soft_max=180, hard_max=240)
        failures_max = parts.pop("failures_max", 3)
        self.breaker = CallBreaker(failures_max=failures_max, open_ns=10 * SECOND)
        self.adapter = OrderAdapter(
            self.session,
            self.broker,
            instruments=parts.pop("instruments", instruments),
            order_ids=self.order_ids,
            budget=self.budget,
            breaker=self.breaker,
            fence=parts.pop("fence", None) or Fences([]),
            clock_ns=clock,
            **parts,
        )
        self.external = [0] * ALPHAS
        self.quote()

    def again(self) -> World:
        """Crash, and start over on the same folder."""
        self.session.close()
        return World(self.folder, epoch=self.epoch + 1, now_ns=self.now_ns + SECOND)

    def quote(self) -> None:
        """A fresh book, or no order passes."""
        self.now_ns += MS
        row = records.empty("Book", 1)
        row["instrument_id"], row["source_id"] = TXF.instrument_id, 4
        row["receive_time_ns"] = row["exchange_time_ns"] = self.now_ns
        row["trading_day"] = SESSION.trading_day
        for level in range(5):
            row["bid_price"][0, level] = (MID - level) * LOT
            row["ask_price"][0, level] = (MID + 1 + level) * LOT
            row["bid_qty"][0, level] = row["ask_qty"][0, level] = 10 * LOT
        self.session.push(row.tobytes())

    def want(self, side: int = 1, lots: int = 1, price: int = MID, *, alpha: int = 0) -> Any:
        """A runner wants an order; gives the request that the engine made of it."""
        self.external[alpha] = max(self.external[alpha] + 1, self.epoch << 16)
        self._intent(alpha, 1, side, lots, price, self.external[alpha], 0)
        request = self.session.next_request(0)
        assert request is not None, self.session.state()
        return request

    def want_cancel(self, order_id: int, *, alpha: int = 0) -> Any:
        """A runner wants an order canceled; gives the request."""
        self._intent(alpha, 2, 1, 0, 0, 0, order_id)
        request = self.session.next_request(0)
        assert request is not None, self.session.state()
        return request

    def _intent(
        self, alpha: int, action: int, side: int, lots: int, price: int, number: int, order_id: int
    ) -> None:
        self.quote()
        row = records.empty("Intent", 1)
        row["instrument_id"], row["source_id"] = TXF.instrument_id, 7
        row["receive_time_ns"] = row["cause_time_ns"] = self.now_ns
        row["trading_day"], row["alpha_index"] = SESSION.trading_day, alpha
        row["action"], row["intent_reason"] = action, 1 if action == 1 else 4
        row["time_in_force"], row["external_id"], row["order_id"] = 1, number, order_id
        row["side"], row["price"], row["qty"] = side, price * LOT, lots * LOT
        row["cause_seq"], row["ttl_ns"] = 1, 60 * SECOND
        self.session.push(row.tobytes())

    def decision_of_last_intent(self) -> dict[str, Any]:
        """What the engine made of it, for a test that waits for its order in vain."""
        asked = self.written("Intent")[-1]
        made = [row for row in self.written("Decision") if row["input_seq"] == asked["input_seq"]]
        return {"state": self.session.state(), "asked": asked, "made": made}

    def place(self, side: int = 1, lots: int = 1, price: int = MID, *, alpha: int = 0) -> Any:
        """Want and carry out."""
        request = self.want(side, lots, price, alpha=alpha)
        self.adapter.execute(request)
        return request

    def event(self, kind: EventKind, ids: BrokerIds = NAMELESS, **fields: Any) -> None:
        """The broker says something."""
        self.now_ns += MS
        self.gateway.on_order(OrderEvent(kind, ids, self.now_ns, self.now_ns, **fields))

    def fill(
        self, ids: BrokerIds, fill_id: str, lots: int = 1, side: int = 1, price: int = MID,
        **fields: Any,
    ) -> None:  # fmt: skip
        """The broker reports an execution."""
        self.now_ns += MS
        self.gateway.on_fill(
            FillEvent(
                ids, fill_id, TXF.symbol, side, price * LOT, lots * LOT, self.now_ns, self.now_ns,
                **fields,
            )
        )  # fmt: skip

    def state(self, order_id: int) -> str:
        """Where the engine holds an order."""
        order = self.session.order(order_id)
        return "forgotten" if order is None else str(order["state"])

    @property
    def position(self) -> int:
        """Lots, over all alphas."""
        return sum(int(row["position_qty"]) for row in self.session.positions()) // LOT

    def written(self, name: str) -> list[dict[str, Any]]:
        """Records of a type in the order log, in their order."""
        tape = _core.read_log(str(self.folder / "orders"))["tape"]
        rows = records.split(tape).get(name)
        if rows is None:
            return []
        return [{key: row[key].item() for key in rows.dtype.names} for row in rows]
