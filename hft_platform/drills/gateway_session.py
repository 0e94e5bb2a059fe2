"""A session for gateway drills: the live one, over a broker that is a file.

Why: what a takeover costs and whether anything is sent twice shows with processes that are really
killed. So everything that trades is the real thing; market and broker are as small as can be,
because they are not what is drilled.

Invariants:
1. A broker call is one line in a file, appended by one write: it is there or not, whatever dies.
2. What the file holds is what the broker answers when it is asked, at once and completely.
3. Time is the machine's, moved into an open session.

It is no broker. Operator's page: `docs/drills/gateway-takeover.md`.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hft_platform import records
from hft_platform.config.canonical import write_once
from hft_platform.config.engine_config import AlphaSpec, build_engine_config
from hft_platform.config.settings import ReconciliationSettings, load_settings
from hft_platform.drills.market import SYMBOL, TAKER, market_session, permit
from hft_platform.errors import ReasonCode
from hft_platform.gateway.channel import RemoteAlpha
from hft_platform.gateway.lease import LeadershipFence, boottime_ns
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
)
from hft_platform.order.call_breaker import CallBreaker
from hft_platform.order.call_budget import CallBudget
from hft_platform.services.gateway_plane import LivePlane, PlaneParts

SCALE = records.SCALE
NS = 1_000_000_000
ALPHAS = ("drill_runner_0", "drill_runner_1")
CONFIG_SHA256 = b"d" * 32
PROMOTION_SEQ = 1
PRICE = 20_000 * SCALE
INTENT_TTL_NS = 2 * NS
SEGMENT_BYTES = 1 << 20
CALLS_FILE = "calls.log"
WAL_ID = 7
_BOOK_EVERY_NS = NS
CALL_TIMEOUT_NS = 200_000_000
RECONCILIATION = ReconciliationSettings(
    quarantine_ms=500,
    not_found_gap_ms=150,
    guard_ms=100,
    in_flight_ms=200,
    question_gap_ms=100,
    orders_interval_ms=300,
    positions_interval_ms=300,
    account_interval_ms=5_000,
)
"""A file answers at once and forgets nothing: doubts need not wait ten seconds."""


def drill_engine_config(folder: Path) -> tuple[dict[str, Any], int, int]:
    """Engine config with alphas that take intents, its instrument, and a time inside its session.

    Parameters
    ----------
    folder : Path
        Without settings of its own: the packaged ones count.
    """
    instrument, session = market_session()
    content = permit(session.start_ns, TAKER)
    fields = (
        "alpha_id", "expression", "parameters", "template", "order_qty", "ttl_ns", "limits",
        "on_withdrawal", "stage", "weight_ppm",
    )  # fmt: skip
    spec = AlphaSpec(symbol=SYMBOL, **{name: content[name] for name in fields})
    settings = load_settings(folder / "no-config", environment={})
    config = build_engine_config(
        [spec],
        instruments=[instrument],
        session=session,
        account_limits=settings.account_limits(),
        storm_guard=settings.storm_guard(),
    )
    (alpha,) = config["alphas"]
    del alpha["expression"]
    alpha |= {"template": {"kind": "remote", "slippage_ticks": 2}, "ttl_ns": INTENT_TTL_NS}
    alpha["limits"] |= {"order_rate_max": 1_000, "position_qty_max": 100 * SCALE}
    config["alphas"] = [
        {**alpha, "alpha_index": index, "alpha_id": alpha_id}
        for index, alpha_id in enumerate(ALPHAS)
    ]
    # Open for a day, as many orders as a drill wants, and no storm after a takeover: what holds
    # trading back is right, and would leave nothing to be killed.
    config["session"]["phases"] = [
        {"start_ns": session.start_ns, "end_ns": session.start_ns + 86_400 * NS, "phase": "open"}
    ]
    config["account_limits"] |= {
        "order_rate_max": 1_000, "repeated_order_max": 1_000,
        "order_to_trade_max": (1 << 32) - 1, "reject_rate_max": 1_000, "unknown_rate_max": 1_000,
    }  # fmt: skip
    for name, band in config["storm_guard"].items():
        if isinstance(band, dict):
            config["storm_guard"][name] = dict.fromkeys(band)
    return config, instrument.instrument_id, session.start_ns + 60 * NS


class FileBroker:
    """A broker that is a file: every call is a line, every order ends unfilled but the first.

    Parameters
    ----------
    folder : Path
        Of the file.
    epoch : int
        Of whoever calls.
    clock_ns : callable
        Record time.
    call_s : float
        How long a call takes after the order arrived.
    """

    name = "file"

    def __init__(
        self, folder: Path, epoch: int, *, clock_ns: Callable[[], int], call_s: float
    ) -> None:
        self._path = folder / CALLS_FILE
        self._epoch = epoch
        self._clock_ns = clock_ns
        self._call_s = call_s
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._calls: int | None = os.open(self._path, flags, 0o600)
        self._listener: BrokerListener | None = None

    def connect(self, listener: BrokerListener) -> None:
        """Report to this listener."""
        self._listener = listener
        listener.on_connection(True, "a file")

    def subscribe(self, symbols: list[str]) -> None:
        """Nothing: the drill makes its market itself."""

    def place(self, ticket: OrderTicket) -> CallResult:
        """Append a line; the order ends before the call returns."""
        if self._calls is None:
            return CallResult(Outcome.REJECTED, code=ReasonCode.BROKER_UNREACHABLE)
        facts = (ticket.order_id, ticket.tag, ticket.side, ticket.price, ticket.qty)
        line = " ".join(map(str, (self._epoch, *facts)))
        os.write(self._calls, line.encode() + b"\n")
        threading.Event().wait(self._call_s)
        if self._listener is not None:
            order = self._order(
                line.split(), is_first=os.fstat(self._calls).st_size == len(line) + 1
            )
            if order.fills:
                self._listener.on_fill(order.fills[0])
            else:
                self._listener.on_order(
                    OrderEvent(
                        EventKind.EXPIRED, order.ids, self._clock_ns(), self._clock_ns(),
                        tag=order.tag, symbol=order.symbol, side=order.side, price=order.price,
                        qty=order.qty,
                    )
                )  # fmt: skip
        return CallResult(Outcome.SENT, BrokerIds(broker_id=str(ticket.order_id)))

    def cancel(self, ids: BrokerIds, symbol: str) -> CallResult:
        """Too late: every order has ended."""
        return CallResult(Outcome.REJECTED, code=ReasonCode.ORDER_NOT_FOUND)

    def amend(
        self, ids: BrokerIds, symbol: str, *, price: int | None, qty: int | None
    ) -> CallResult:
        """Too late as well."""
        return CallResult(Outcome.REJECTED, code=ReasonCode.ORDER_NOT_FOUND)

    def orders(self) -> list[BrokerOrder]:
        """Every line."""
        return [
            self._order(words, is_first=place == 0)
            for place, words in enumerate(_lines(self._path))
        ]

    def positions(self) -> list[BrokerPosition]:
        """The first order's lot, once it was sent."""
        return [BrokerPosition(SYMBOL, SCALE, PRICE)] if _lines(self._path) else []

    def account(self) -> AccountState:
        """No money is known."""
        return AccountState(self._clock_ns())

    def close(self) -> None:
        """Take no more calls."""
        if self._calls is not None:
            os.close(self._calls)
            self._calls = None

    def _order(self, words: list[str], *, is_first: bool) -> BrokerOrder:
        _, order_id, tag, side, price, qty = words
        ids, now_ns = BrokerIds(broker_id=order_id), self._clock_ns()
        fill = FillEvent(
            ids, f"{order_id}.1", SYMBOL, int(side), int(price), int(qty), now_ns, now_ns, tag=tag
        )
        return BrokerOrder(
            ids, tag, SYMBOL, int(side), int(price), int(qty), int(qty) if is_first else 0,
            OrderStatus.FILLED if is_first else OrderStatus.EXPIRED, (fill,) if is_first else (),
        )  # fmt: skip


class DrillPlane(LivePlane):
    """The live session over a broker that is a file, with a market that stands still.

    Parameters
    ----------
    folder : Path
        Of the drill.
    epoch : int
        Of the lease.
    fence : LeadershipFence
        Of the lease.
    config : mapping
        Engine config, made before: a standby has it ready.
    clock_ns : callable
        Record time.
    call_s : float
        How long a broker call takes.
    is_forgetful : bool
        Negative control: send again what the last leader left without an end.
    """

    def __init__(
        self,
        folder: Path,
        epoch: int,
        fence: LeadershipFence,
        *,
        config: Mapping[str, Any],
        clock_ns: Callable[[], int],
        call_s: float = 0.0,
        is_forgetful: bool = False,
    ) -> None:
        instrument, _ = market_session()
        self._drill_broker = FileBroker(folder, epoch, clock_ns=clock_ns, call_s=call_s)
        self._book_ns = 0
        self._is_forgetful = is_forgetful
        super().__init__(
            PlaneParts(
                workspace=folder,
                session_dir=folder / "session",
                engine_config=config,
                options={"wal_id": WAL_ID, "durable": "record", "segment_bytes": SEGMENT_BYTES},
                alphas=drill_alphas(instrument.instrument_id),
                instruments={instrument.instrument_id: instrument},
                make_broker=lambda: self._drill_broker,
                reconciliation=RECONCILIATION,
                budget=lambda: CallBudget(soft_max=1_000, hard_max=2_000),
                breaker=lambda: CallBreaker(failures_max=100, open_ns=NS),
                call_timeout_ns=CALL_TIMEOUT_NS,
                clock_ns=clock_ns,
            ),
            epoch,
            fence,
        )
        self._instrument_id = instrument.instrument_id

    def startup(self) -> None:
        """A good book first, so that orders have a price to be held against."""
        if self._is_forgetful:
            for row in self.session.orders():
                self._drill_broker.place(
                    OrderTicket(
                        row["order_id"], row["tag"], SYMBOL, row["side"], row["price"], row["qty"]
                    )
                )
        super().startup()
        self._book()

    def reconcile(self, now_ns: int) -> None:
        """Ask as always, and keep the book fresh."""
        super().reconcile(now_ns)
        self._book()

    def _book(self) -> None:
        now_ns = self._clock_ns()
        if now_ns - self._book_ns < _BOOK_EVERY_NS:
            return
        self._book_ns = now_ns
        self.on_market(book_record(self._instrument_id, now_ns, PRICE))


def drill_alphas(instrument_id: int) -> dict[str, RemoteAlpha]:
    """The drill's alphas, as the channel knows them.

    Parameters
    ----------
    instrument_id : int
        That they trade.
    """
    return {
        alpha_id: RemoteAlpha(
            alpha_id, index, frozenset({instrument_id}), CONFIG_SHA256, PROMOTION_SEQ,
            INTENT_TTL_NS,
        )
        for index, alpha_id in enumerate(ALPHAS)
    }  # fmt: skip


def book_record(instrument_id: int, now_ns: int, bid: int) -> bytes:
    """A five-level book, one tick wide.

    Parameters
    ----------
    instrument_id : int
        Of the instrument.
    now_ns : int
        Its time.
    bid : int
        Best bid, scaled.
    """
    rows = records.empty("Book", 1)
    rows["instrument_id"], rows["source_id"] = instrument_id, 2
    rows["exchange_time_ns"] = rows["receive_time_ns"] = now_ns
    for level in range(5):
        rows["bid_price"][:, level] = bid - level * SCALE
        rows["ask_price"][:, level] = bid + (1 + level) * SCALE
    rows["bid_qty"] = rows["ask_qty"] = 20 * SCALE
    return rows.tobytes()


def read_calls(path: Path) -> list[tuple[int, int]]:
    """Epoch and order of every call that reached the broker, in its order."""
    return [(int(words[0]), int(words[1])) for words in _lines(path)]


def _lines(path: Path) -> list[list[str]]:
    try:
        lines = path.read_text(encoding="ascii").split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [line.split() for line in lines]


def session_clock(folder: Path, start_ns: int) -> Callable[[], int]:
    """Record time of every process of a drill: the machine's, counted from when it began.

    Parameters
    ----------
    folder : Path
        Of the drill; the first process to ask decides the beginning.
    start_ns : int
        Inside the session.
    """
    path = folder / "began"
    with contextlib.suppress(FileExistsError):
        write_once(path, f"{boottime_ns()}\n")
    began_ns = int(path.read_text(encoding="ascii"))
    return lambda: start_ns + boottime_ns() - began_ns
