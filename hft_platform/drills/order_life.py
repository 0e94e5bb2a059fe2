"""One life of a gateway in a simulated run: the real components around one session folder.

Why: what dies and comes back is a set of objects that share nothing with the next life but the logs
on disk and the broker.

Invariants:
1. A life is closed without sealing, as a killed process leaves it.
2. Whatever must survive is read back from the logs by the components themselves.

Operator's page: `docs/drills/order-chaos.md`.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from hft_platform import _core, records
from hft_platform.config.engine_config import AlphaSpec, build_engine_config, engine_config_json
from hft_platform.config.settings import ReconciliationSettings, load_settings
from hft_platform.drills.broker_book import BrokerBook
from hft_platform.drills.broker_process import book_record
from hft_platform.drills.market import PRODUCT, market_session
from hft_platform.drills.sim_broker import SimBroker
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.execution.execution_gateway import ExecutionGateway
from hft_platform.execution.order_ids import OrderIds
from hft_platform.execution.reconciliation import ReconciliationService
from hft_platform.order.broker import (
    Broker,
    BrokerOrder,
    CallResult,
    OrderStatus,
    OrderTicket,
    TimeInForce,
)
from hft_platform.order.call_breaker import CallBreaker
from hft_platform.order.call_budget import CallBudget
from hft_platform.order.order_adapter import OrderAdapter
from hft_platform.services.parity import ParityReport, replay_session

SCALE = records.SCALE
MS, SECOND = 1_000_000, 1_000_000_000
MID = 20_000
RUNNERS = 3
_INSTRUMENT, _SESSION = market_session()
START_NS = _SESSION.start_ns + 60 * SECOND
SEGMENT_BYTES = 64 << 10
WIDE = 10**17
CALLS_MAX, BREAKER_FAILURES = 10_000, 20
"""Neither budget nor breaker binds often: what is to be shown are calls, not their absence."""
ALL_ALPHAS = 0xFFFF_FFFF


class Death(BaseException):
    """A gateway dies here; no handler of errors stops it."""


@dataclass(slots=True)
class World:
    """What outlives every gateway.

    Attributes
    ----------
    book : BrokerBook
        The broker.
    now_ns : int
        Virtual time.
    epoch : int
        Of the leader.
    ambiguous : dict
        Requests whose call was cut short, by tag.
    """

    book: BrokerBook
    now_ns: int
    epoch: int = 0
    ambiguous: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Want:
    """An intent of a runner; its price is like no other's."""

    runner: int
    external_id: int
    rank: int
    side: int
    lots: int
    time_in_force: int
    is_answered: bool = False

    @property
    def price(self) -> int:
        """Scaled; buys lie below sells, or they would be refused as trades with ourselves."""
        return (MID - 1 - self.rank if self.side > 0 else MID + 2 + self.rank) * SCALE

    @property
    def price_text(self) -> str:
        """For the trace."""
        return str(self.price // SCALE)


class EpochFence:
    """Only the life of the world's epoch may send."""

    def __init__(self, world: World, epoch: int) -> None:
        self._world = world
        self._epoch = epoch

    def check(self) -> None:
        """Refuse a life that was replaced."""
        if self._world.epoch != self._epoch:
            raise PlatformError(
                ReasonCode.GATEWAY_FENCED,
                f"epoch was {self._epoch}, the leader's is {self._world.epoch}",
            )


class NoFence:
    """Stands before calls that need no leader."""

    def check(self) -> None:
        """Let everything pass."""


@cache
def engine_config(count: int = RUNNERS, first: int = 0) -> str:
    """Remote alphas whose limits never bind, as the core takes them.

    Parameters
    ----------
    count : int, optional
        How many.
    first : int, optional
        Number of the first one.
    """
    alphas = [
        AlphaSpec(
            alpha_id=f"runner_{first + index}",
            symbol=_INSTRUMENT.symbol,
            expression="",
            parameters={},
            template={"kind": "remote", "slippage_ticks": 1},
            order_qty=SCALE,
            ttl_ns=60 * SECOND,
            limits={
                "order_qty_max": 100 * SCALE,
                "position_qty_max": 1_000 * SCALE,
                "daily_loss_max": WIDE,
                "drawdown_max": WIDE,
                "loss_speed_max": WIDE,
                "order_rate_max": 1_000,
            },
            on_withdrawal={"action": "reduce_only", "deadline_ns": 0},
        )
        for index in range(count)
    ]
    never = dict.fromkeys(("warm_in", "warm_out", "storm_in", "storm_out", "halt_in", "halt_out"))
    limits: dict[str, int | None] = {
        "gross_notional_max": 10**18,
        "net_notional_max": 10**18,
        "position_lots_max": 10_000,
        "daily_loss_max": WIDE,
        "drawdown_max": WIDE,
        "loss_speed_max": WIDE,
        "free_margin_min": None,
        "account_age_ns_max": 60 * SECOND,
        "order_rate_max": 1_000,
        "cancel_reserve": 100,
        "order_to_trade_max": 1_000,
        "reject_rate_max": 1_000,
        "unknown_rate_max": 1_000,
        "one_side_fill_max": 1_000,
        "price_collar_bps": 5_000,
        "exit_collar_bps": 5_000,
        "quote_age_ns_max": 5 * SECOND,
        "clock_skew_ns_max": None,
        "repeated_order_max": 1_000,
    }
    gauges = (
        "drawdown_bps", "feed_gap_ns", "loop_lag_ns", "order_rtt_ns", "reject_count",
        "drift_reports", "feature_failures", "normaliser_failures",
    )  # fmt: skip
    storm: dict[str, Any] = dict.fromkeys(gauges, never) | {
        "risk_capital": WIDE, "open_grace_ns": 60 * SECOND, "failure_window_ns": 60 * SECOND,
        "clears": 5, "cool_down_warm_ns": SECOND, "cool_down_storm_ns": SECOND,
        "hold_warm_ns": SECOND, "hold_storm_ns": SECOND, "resume_window_ns": 60 * SECOND,
    }  # fmt: skip
    return engine_config_json(
        build_engine_config(
            alphas,
            instruments=[_INSTRUMENT],
            session=_SESSION,
            account_limits=limits,
            storm_guard=storm,
        )
    )


def instruments() -> dict[int, Any]:
    """What the runs trade, by id."""
    return {_INSTRUMENT.instrument_id: _INSTRUMENT}


def push_quote(session: Any, now_ns: int) -> None:  # Any: a LiveSession of the core
    """A fresh book, or no order passes."""
    quote = {
        "instrument_id": _INSTRUMENT.instrument_id, "bid": MID * SCALE, "ask": (MID + 1) * SCALE,
        "tick": SCALE, "trading_day": _SESSION.trading_day,
    }  # fmt: skip
    session.push(book_record(quote, now_ns, 0))


class Parts:
    """The order plane of one process around one session folder.

    Parameters
    ----------
    folder : Path
        Of the session, with the logs of the lives before it or without.
    epoch : int
        Above every one before.
    config : str
        Engine config.
    broker : Broker
        Where the orders go.
    fence : Fence
        Stands before every call.
    clock_ns : callable
        ns UTC.
    settings : ReconciliationSettings
        Times of the reconciliation.
    group_commit_ms : int, optional
        Longest time a record waits for its sync; 0 has none but those that something waits for.
    """

    def __init__(
        self,
        folder: Path,
        *,
        epoch: int,
        config: str,
        broker: Broker,
        fence: Any,  # Any: a Fence
        clock_ns: Callable[[], int],
        settings: ReconciliationSettings,
        group_commit_ms: int = 0,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        options = {
            "wal_id": 7,
            "epoch": epoch,
            "process_id": os.getpid(),
            "opened_ns": clock_ns(),
            "durable": "record",
            "segment_bytes": SEGMENT_BYTES,
            "group_commit_ms": group_commit_ms,
            "contracts": {str(_INSTRUMENT.instrument_id): {
                "product_root": PRODUCT, "last_trading_day": _INSTRUMENT.last_trading_day,
            }},
        }  # fmt: skip
        self.epoch = epoch
        self.config = config
        self.folder = folder
        self.broker = broker
        self.session = _core.LiveSession(config, str(folder), json.dumps(options))
        self.found: dict[str, Any] = dict(self.session.recovered())
        self.order_ids = OrderIds.from_session(self.session)
        self.budget = CallBudget(soft_max=CALLS_MAX, hard_max=2 * CALLS_MAX)
        self.gateway = ExecutionGateway(self.session, self.order_ids, instruments(), clock_ns)
        self.adapter = OrderAdapter(
            self.session,
            broker,
            instruments=instruments(),
            order_ids=self.order_ids,
            budget=self.budget,
            breaker=CallBreaker(failures_max=BREAKER_FAILURES, open_ns=SECOND),
            fence=fence,
            clock_ns=clock_ns,
        )
        self.reconciliation = ReconciliationService(
            self.session,
            broker,
            self.order_ids,
            self.gateway,
            settings=settings,
            instruments=instruments(),
            budget=self.budget,
            fence=fence,
            clock_ns=clock_ns,
        )

    def submit(self, want: Want, now_ns: int) -> None:
        """Put a runner's intent to the engine, as often as the runner asks."""
        row = _intent_row(want.runner, now_ns)
        row["action"], row["intent_reason"] = 1, 1
        row["time_in_force"], row["external_id"] = want.time_in_force, want.external_id
        row["side"], row["price"], row["qty"] = want.side, want.price, want.lots * SCALE
        self.session.push(row.tobytes())

    def cancel(self, order: dict[str, Any], now_ns: int) -> None:
        """A runner wants the rest of an order canceled."""
        row = _intent_row(int(order["alpha_index"]), now_ns)
        row["action"], row["intent_reason"], row["order_id"] = 2, 4, order["order_id"]
        row["time_in_force"] = 1
        self.session.push(row.tobytes())

    def unknown(self) -> list[dict[str, Any]]:
        """Orders of which nobody knows."""
        return [order for order in self.session.orders() if order["state"] == "unknown"]

    def reconcile(self, now_ns: int) -> None:
        """Ask the broker, and let trading go on once nothing is unknown."""
        self.gateway.step(now_ns)
        self.reconciliation.step(now_ns)
        if not self.unknown() and is_restricted(self.session):
            self._lift(now_ns)

    def _lift(self, now_ns: int) -> None:
        """An operator resumes, in two steps."""
        seq = 0
        for kind in (2, 3):
            row = records.empty("Command", 1)
            row["receive_time_ns"], row["source_id"] = now_ns, 5
            row["command_kind"], row["alpha_index"] = kind, ALL_ALPHAS
            row["argument"] = seq
            self.session.push(row.tobytes())
            seq = int(self.session.state()["last_seq"])


def _intent_row(runner: int, now_ns: int) -> Any:  # Any: one numpy row
    row = records.empty("Intent", 1)
    row["instrument_id"], row["source_id"] = _INSTRUMENT.instrument_id, 7
    row["receive_time_ns"] = row["cause_time_ns"] = now_ns
    row["trading_day"], row["alpha_index"] = _SESSION.trading_day, runner
    row["cause_seq"], row["ttl_ns"] = 1, 60 * SECOND
    return row


def ticket_of(request: Any) -> OrderTicket:  # Any: an OrderRequest of the core
    """The ticket of a request, for the controls that send again."""
    kinds = (TimeInForce.ROD, TimeInForce.IOC, TimeInForce.FOK)
    return OrderTicket(
        order_id=request.order_id,
        tag=request.tag,
        symbol=_INSTRUMENT.symbol,
        side=request.side,
        price=request.price,
        qty=request.qty,
        time_in_force=kinds[request.time_in_force - 1],
    )


class Life:
    """A simulated gateway from its start to its death.

    Parameters
    ----------
    number : int
        Which life.
    folder : Path
        Session folder, with the logs of the lives before it or without.
    world : World
        What outlives it.
    """

    def __init__(self, number: int, folder: Path, world: World) -> None:
        self.number = number
        self.dies_at = ""
        self._world = world
        self._held: Any = None  # Any: an OrderRequest of the core
        self.broker = SimBroker(world.book, self._clock_ns, interrupt=self._interrupt)
        self.parts = Parts(
            folder,
            epoch=world.epoch,
            config=engine_config(),
            broker=self.broker,
            fence=EpochFence(world, world.epoch),
            clock_ns=self._clock_ns,
            settings=reconciliation_settings(),
        )
        self.session = self.parts.session
        self.adapter = self.parts.adapter
        self.found = self.parts.found

    def _clock_ns(self) -> int:
        return self._world.now_ns

    # ---------------------------------------------------------------- steps

    def begin(self, patience: int) -> None:
        """Connect and reconcile until ready.

        Parameters
        ----------
        patience : int
            Seconds after which it goes on although it is not ready: nothing opens, and what was
            decided before is not sent.
        """
        self.broker.connect(self.parts.gateway)
        for _ in range(patience):
            if self.parts.reconciliation.startup(self._world.now_ns).is_ready:
                return
            self._world.now_ns += SECOND
            self.deliver()

    def quote(self) -> None:
        """A fresh book."""
        self._world.now_ns += MS
        push_quote(self.session, self._world.now_ns)

    def submit(self, want: Want) -> None:
        """Put a runner's intent to the engine."""
        self._world.now_ns += MS
        self.parts.submit(want, self._world.now_ns)

    def cancel_one(self, draw: Random, note: Callable[[str], None]) -> None:
        """A runner wants the rest of a working order canceled."""
        working = [order for order in self.session.orders() if order["state"] == "working"]
        if working:
            order = draw.choice(working)
            note(f"a runner cancels order {order['order_id']}")
            self.parts.cancel(order, self._world.now_ns)

    def pop(self) -> Any:  # Any: an OrderRequest of the core
        """Take the next request in hand, as the dispatcher does before its call."""
        if self._held is None:
            self._held = self.session.next_request(0)
        return self._held

    def has_requests(self) -> bool:
        """True when a request waits."""
        return self.pop() is not None

    def dispatch(self) -> tuple[Any, CallResult] | None:
        """Make the next call, if there is one."""
        request = self.pop()
        if request is None:
            return None
        self._held = None
        return request, self.adapter.execute(request)

    def resume(self) -> int:
        """Go on after a pause, with what was in hand; returns how many calls were tried."""
        request, self._held = self._held, None
        if request is None:
            return 0
        # Its logs are another one's now; what matters is that the broker is not called.
        with contextlib.suppress(PlatformError):
            self.adapter.execute(request)
        return 1

    def deliver(self) -> None:
        """Hear what the broker reports."""
        self.broker.deliver()

    def reconcile(self) -> None:
        """Ask the broker."""
        self.parts.reconcile(self._world.now_ns)

    def send_again(self, request: Any) -> None:  # Any: an OrderRequest of the core
        """The control that must be found out: the same intent, sent a second time."""
        self.broker.place(ticket_of(request))

    def close(self) -> None:
        """Die: nothing is sealed."""
        self.broker.close()
        self.session.close()

    # ------------------------------------------------------------ judgement

    def is_rejected(self, order_id: int) -> bool:
        """True when the engine holds the order for abandoned."""
        order = self.session.order(order_id)
        return order is not None and order["state"] == "rejected"

    def is_quiet(self) -> bool:
        """True when nothing is open here or there, and nothing is under way."""
        return (
            not self.has_requests()
            and not self.session.orders()
            and self._world.book.next_ns() is None
            and self._position() == self._broker_position()
            # Two that came late may cancel out in the position and still have to be heard of.
            and all(self._knows_fills(row) for row in self._world.book.orders())
        )

    def _knows_fills(self, row: BrokerOrder) -> bool:
        order_id = self.parts.order_ids.find(row.ids, row.tag)
        order = None if order_id is None else self.session.order(order_id)
        return order is not None and bool(order["filled_qty"] == row.filled_qty)

    def differences(self, wants: list[Want]) -> list[str]:
        """What is not as it must be at the end."""
        found = [
            f"order {order['order_id']} is still {order['state']}"
            for order in self.session.orders()
        ]
        if self._position() != self._broker_position():
            found.append(
                f"position is {self._position()}, the broker's is {self._broker_position()}"
            )
        called = {call.price for call in self._world.book.calls}
        strange = sorted(called - {want.price for want in wants})
        found += [f"a call at {price} that no runner wanted" for price in strange]
        there = {row.price: row for row in self._world.book.orders()}
        for tag, request in sorted(self._world.ambiguous.items()):
            found += self._unresolved(tag, request, there.get(request.price))
        found += [
            f"the broker's order {row.tag} is still open"
            for row in self._world.book.orders()
            if row.status in (OrderStatus.PENDING, OrderStatus.WORKING)
        ]
        return found

    def _unresolved(
        self,
        tag: str,
        request: Any,
        there: BrokerOrder | None,  # Any: an OrderRequest of the core
    ) -> list[str]:
        """What is wrong with the end of an order whose call was cut short."""
        name = f"order {request.order_id} ({tag})"
        order = self.session.order(request.order_id)
        if order is None:
            return [f"{name} is forgotten"]
        if there is None:
            # Given up, or refused: whatever else it is, nobody made it up.
            return (
                [] if order["state"] == "rejected" else [f"{name} is {order['state']} and nowhere"]
            )
        if order["filled_qty"] != there.filled_qty:
            return [f"{name} has {order['filled_qty']} filled, at the broker {there.filled_qty}"]
        return []

    def resolutions(self) -> Counter[str]:
        """How often what was ambiguous was adopted, abandoned, or came after it was abandoned."""
        names = {1: "adopted", 2: "abandoned"}
        resolved = self._resolved()
        counts = Counter(names.get(argument, "odd") for argument in resolved.values())
        there = {order.tag for order in self._world.book.orders()}
        for order_id, argument in resolved.items():
            order = self.session.order(order_id)
            if argument == 2 and order is not None and order["tag"] in there:
                counts["came_late"] += 1
        return counts

    def parity(self) -> ParityReport:
        """Seal, and decide every life again from the logs."""
        self.session.finish()
        self.broker.close()
        return parity_of_folder(self.parts.folder, self.parts.config)

    # -------------------------------------------------------------- private

    def _interrupt(self, where: str) -> None:
        if self.dies_at == where:
            self.dies_at = ""
            raise Death(f"it is killed {where.replace('_', ' ')}")

    def _resolved(self) -> dict[int, int]:
        rows = records.split(self.session.routes()).get("Route")
        if rows is None:
            return {}
        return {int(row["order_id"]): int(row["argument"]) for row in rows[rows["route_kind"] == 5]}

    def _position(self) -> int:
        return sum(int(row["position_qty"]) for row in self.session.positions())

    def _broker_position(self) -> int:
        return sum(row.net_qty for row in self._world.book.positions())


def parity_of_folder(folder: Path, config: str) -> ParityReport:
    """Decide a sealed session folder again, life by life.

    Parameters
    ----------
    folder : Path
        Of the session.
    config : str
        Engine config that it ran with.

    Returns
    -------
    ParityReport
    """
    (folder / "engine.json").write_text(config)
    return replay_session(folder, write=False)


def log_image(folder: Path) -> dict[Path, bytes]:
    """Content of all files of both logs."""
    paths = [path for name in ("market", "orders") for path in sorted((folder / name).glob("*"))]
    return {path: path.read_bytes() for path in paths if path.is_file()}


def tear(before: dict[Path, bytes], folder: Path, share: float) -> None:
    """Put the logs back to somewhere between what they were and what they are.

    Parameters
    ----------
    before : dict
        Content before the write (`log_image`).
    folder : Path
        Session folder.
    share : float
        Part of the write that reached the disk, of every file.
    """
    for path, after in log_image(folder).items():
        old = before.get(path)
        if old is None or old == after or len(old) > len(after):
            # A file that is new or was made smaller was made so before anything was written to it.
            continue
        old = old.ljust(len(after), b"\0")
        first = next(index for index in range(len(after)) if old[index] != after[index])
        last = next(
            index for index in range(len(after), 0, -1) if old[index - 1] != after[index - 1]
        )
        cut = first + int((last - first) * share)
        path.write_bytes(after[:cut] + old[cut:])


@cache
def reconciliation_settings() -> ReconciliationSettings:
    """The packaged times."""
    return load_settings(environment={}).reconciliation


def quick_reconciliation() -> ReconciliationSettings:
    """Times for runs of two seconds whose calls are given up after an eighth of one."""
    return ReconciliationSettings(
        quarantine_ms=350,
        not_found_gap_ms=100,
        guard_ms=60,
        in_flight_ms=60,
        question_gap_ms=20,
        orders_interval_ms=40,
        positions_interval_ms=60,
        account_interval_ms=500,
    )


def is_restricted(session: Any) -> bool:  # Any: a LiveSession of the core
    """True when nothing may open."""
    return bool(session.state()["storm"]["policy"] != "NORMAL")
