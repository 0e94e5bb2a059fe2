"""A small session for gateway drills: the real engine and order log, and a broker that is a file.

Why: what a takeover costs and whether anything is sent twice shows with processes that are really
killed. So engine, log and recovery are the ones that trade; market and broker are as small as can
be, because they are not what is drilled.

Invariants:
1. A broker call is one line in a file, appended by one write: it is there or not, whatever dies.
2. A request is queued only when its decision is durable, and never again after a restart.
3. An order without an end is looked up in the file at the start: found, it is taken back, else
   given up; nothing is sent for it.
4. Time is the machine's, moved into an open session.

It is no live session and no broker. Operator's page: `docs/drills/gateway-takeover.md`.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hft_platform import _core, records
from hft_platform.config.canonical import canonical_json, write_once
from hft_platform.config.engine_config import AlphaSpec, build_engine_config
from hft_platform.config.settings import load_settings
from hft_platform.drills.market import SYMBOL, TAKER, market_session, permit
from hft_platform.errors import ReasonCode
from hft_platform.gateway.channel import Holdings, RemoteAlpha
from hft_platform.gateway.lease import LeadershipFence, boottime_ns
from hft_platform.gateway.order_log import each_record
from hft_platform.gateway.order_views import OrderViews

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
_APPROVED = 1
_REJECTED, _FILL, _EXPIRED = 2, 3, 6
_RESUME_ARM, _RESUME_CONFIRM = 2, 3
_BOOK_EVERY_NS = NS
_RECORD = records.DTYPES["Intent"].fields or {}
_SEQ_AT, _TIME_AT = _RECORD["input_seq"][1], _RECORD["sequence_time_ns"][1]
_LOGGED = frozenset(
    code for name, code in records.TYPE_CODES.items() if name not in ("Book", "Trade", "Timer")
)


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
    alpha |= {"template": {"kind": "external", "slippage_ticks": 2}, "ttl_ns": INTENT_TTL_NS}
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


@dataclass(frozen=True, slots=True)
class DrillRequest:
    """An approved order or cancel."""

    decided_ns: int
    order_id: int
    action: int


class DrillSession:
    """Engine, order log and a queue of what was approved.

    Parameters
    ----------
    folder : Path
        Of the session; one that is there is recovered.
    epoch : int
        Of its new records.
    config : mapping
        Engine config.
    instrument_id : int
        Whose book is kept fresh.
    clock_ns : callable
        Record time.
    segment_bytes : int, optional
        Size of the order log's segments.
    """

    def __init__(
        self,
        folder: Path,
        *,
        epoch: int,
        config: Mapping[str, Any],
        instrument_id: int,
        clock_ns: Callable[[], int],
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self.orders_dir = folder / "orders"
        self.pushed = 0
        self._instrument_id = instrument_id
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._queue: deque[DrillRequest] = deque()
        self._is_queued = threading.Condition(self._lock)
        self._engine = _core.Engine(canonical_json(dict(config)).decode())
        self._log = _core.WalWriter(
            str(self.orders_dir), WAL_ID, "orders", segment_bytes, group_commit_ms=0, epoch=epoch
        )
        self.recovered = self._engine.recover(_core.read_log(str(self.orders_dir))["tape"])
        self._seq = int(self.recovered["last_seq"])
        self._last_ns = 0
        self._book_ns = 0
        self.book()

    def push(self, tape: bytes) -> int:
        """Sequence, decide, make durable, queue."""
        with self._lock:
            found: list[DrillRequest] = []
            for code, record in each_record(tape):
                found += self._one(code, bytearray(record))
            self._log.sync()
            self._queue.extend(found)
            self._is_queued.notify_all()
            return self._seq

    def next_request(self, timeout_ms: int) -> DrillRequest | None:
        """Take the next approved request, waiting at most so long."""
        with self._lock:
            if not self._queue:
                self._is_queued.wait(timeout_ms / 1000)
            return self._queue.popleft() if self._queue else None

    def book(self, bid: int = PRICE) -> None:
        """Push a good book, if the last one is getting old."""
        now_ns = self._clock_ns()
        if now_ns - self._book_ns < _BOOK_EVERY_NS:
            return
        self._book_ns = now_ns
        rows = records.empty("Book", 1)
        rows["instrument_id"], rows["source_id"] = self._instrument_id, 2
        rows["exchange_time_ns"] = rows["receive_time_ns"] = now_ns
        for level in range(5):
            rows["bid_price"][:, level] = bid - level * SCALE
            rows["ask_price"][:, level] = bid + (1 + level) * SCALE
        rows["bid_qty"] = rows["ask_qty"] = 20 * SCALE
        self.push(rows.tobytes())

    def broker(self, order_id: int, kind: int, **fields: int) -> None:
        """Push what the broker says about an order."""
        rows = records.empty("Broker", 1)
        rows["instrument_id"], rows["order_id"] = self._instrument_id, order_id
        rows["event_kind"] = kind
        rows["exchange_time_ns"] = rows["receive_time_ns"] = self._clock_ns()
        for name, value in fields.items():
            rows[name] = value
        self.push(rows.tobytes())

    def command(self, kind: int, argument: int = 0) -> int:
        """Push an operator's command; returns its sequence."""
        rows = records.empty("Command", 1)
        rows["command_kind"], rows["argument"] = kind, argument
        rows["alpha_index"] = (1 << 32) - 1
        rows["exchange_time_ns"] = rows["receive_time_ns"] = self._clock_ns()
        return self.push(rows.tobytes())

    def rotate(self) -> None:
        """Seal the log's segment and begin the next."""
        with self._lock:
            self._log.rotate()

    def close(self) -> None:
        """Let go as a crash does."""
        with self._lock:
            self._log.close()

    def _one(self, code: int, record: bytearray) -> list[DrillRequest]:
        self._seq += 1
        self.pushed += 1
        self._last_ns = max(self._last_ns + 1, self._clock_ns())
        for at, value in ((_SEQ_AT, self._seq), (_TIME_AT, self._last_ns)):
            record[at : at + 8] = value.to_bytes(8, "little")
        decisions = self._engine.on_tape(bytes(record))
        if code in _LOGGED:
            self._log.append(bytes(record))
        if not decisions:
            return []
        self._log.append(decisions)
        return [
            DrillRequest(self._last_ns, int(row["order_id"]), int(row["action"]))
            for row in records.split(decisions)["Decision"]
            if row["verdict"] == _APPROVED and row["action"] in (1, 2)
        ]


class FilePlane:
    """The session, and a broker that is a file.

    Parameters
    ----------
    folder : Path
        Of session and broker.
    epoch : int
        Of the lease.
    fence : LeadershipFence
        Before every call.
    config : mapping
        Engine config, made before: a standby has it ready.
    clock_ns : callable
        Record time.
    call_s : float
        How long a call takes after the order arrived.
    is_forgetful : bool
        Negative control: send again what the last leader left without an end.
    """

    call_allow_ns = 2 * NS

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
        self._instrument_id = int(config["instruments"][0]["instrument_id"])
        self.session = DrillSession(
            folder / "session", epoch=epoch, config=config, instrument_id=self._instrument_id,
            clock_ns=clock_ns,
        )  # fmt: skip
        self.orders_dir = self.session.orders_dir
        self.alphas = {
            alpha_id: RemoteAlpha(
                alpha_id, index, frozenset({self._instrument_id}), CONFIG_SHA256, PROMOTION_SEQ,
                INTENT_TTL_NS,
            )
            for index, alpha_id in enumerate(ALPHAS)
        }  # fmt: skip
        self._path = folder / CALLS_FILE
        self._epoch = epoch
        self._fence = fence
        self._call_s = call_s
        self._is_forgetful = is_forgetful
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._calls = os.open(self._path, flags, 0o600)
        self._wake: Callable[[], None] = lambda: None

    def startup(self) -> None:
        """Take back or give up every order without an end, then let trading go on."""
        views = OrderViews()
        views.fold(_core.read_log(str(self.orders_dir))["tape"])
        sent = {order_id for _, order_id in read_calls(self._path)}
        left = [order for view in views.alphas.values() for order in view.open_orders.values()]
        for order in left:
            if self._is_forgetful:
                self._send(order.order_id)
            if order.order_id in sent or self._is_forgetful:
                self.session.broker(order.order_id, _EXPIRED)
            else:
                code = int(ReasonCode.INTENT_ABANDONED)
                self.session.broker(order.order_id, _REJECTED, reason_code=code)
        if left:
            self.session.command(_RESUME_CONFIRM, self.session.command(_RESUME_ARM))

    def execute(self, request: Any) -> None:  # Any: the session's request
        """One line in the file; the order then ends unfilled, but for the first of all."""
        self._fence.check()
        if request.action != 1:
            return
        is_first = os.fstat(self._calls).st_size == 0
        self._send(request.order_id)
        threading.Event().wait(self._call_s)
        if is_first:
            # One fill, or the ratio of orders to trades would end a long drill.
            self.session.broker(
                request.order_id, _FILL, side=1, price=PRICE, qty=SCALE, broker_seq=1
            )
        else:
            self.session.broker(request.order_id, _EXPIRED)
        self._wake()

    def reconcile(self, now_ns: int) -> None:
        """Keep the book fresh; nothing of a file is ever in doubt."""
        self.session.book()

    def holdings(self) -> Holdings:
        """Flat, and no money known."""
        return Holdings(lambda _: {}, lambda: (0, False, 0, 0))

    def report_to(self, market: Callable[[bytes], None], event: Callable[[], None]) -> None:
        """Tell when something happened to an order."""
        self._wake = event

    def close(self, *, is_orderly: bool) -> None:
        """Let go of the log; a drill reads it afterwards."""
        self.session.close()
        os.close(self._calls)

    def _send(self, order_id: int) -> None:
        os.write(self._calls, f"{self._epoch} {order_id}\n".encode())


def read_calls(path: Path) -> list[tuple[int, int]]:
    """Epoch and order of every call that reached the broker, in its order."""
    try:
        lines = path.read_text(encoding="ascii").split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [(int(epoch), int(order)) for epoch, order in (line.split() for line in lines)]


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
