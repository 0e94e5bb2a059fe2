"""Rehearsal: the whole live process over a recorded session, with the paper exchange as its broker.

Why: what must work at 08:45 with money is worked through before without, by the same code: start,
order plane, reconciliation, crash, restart, stop.

Invariants:
1. The exchange outlives the process that trades, as a real one does: every request is in its
   journal before it is handed over, and a process that starts again finds it where it would be.
2. What the exchange reported while nobody listened is lost; it must be asked for.
3. Time is the recording's: at full speed virtual and in one thread, else paced by the machine's.

It is no evidence: it lies in `rehearsals/`. Operator's page: `docs/live.md`.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.feed.recording import RecordedSession, load_tape
from hft_platform.market.latency import load_latency_profile
from hft_platform.order.broker import (
    AccountState,
    BrokerIds,
    BrokerListener,
    BrokerOrder,
    BrokerPosition,
    CallResult,
    OrderTicket,
    PriceType,
    TimeInForce,
)
from hft_platform.order.paper_broker import PaperBroker
from hft_platform.services.hft_system import HFTSystem, ThreadPace
from hft_platform.services.venues import Venue, VenueFactory, VenueRequest

JOURNAL_FILE = "exchange.jsonl"
"""The exchange's own memory, beside the session's logs; nobody else reads it."""
SECOND_NS = 1_000_000_000


class JournaledExchange:
    """The paper exchange with a journal, as a broker.

    Parameters
    ----------
    broker : PaperBroker
        Fed with its market.
    journal : Path
        Requests so far; made when there is none.

    Raises
    ------
    PlatformError
        FILE_DAMAGED when the journal cannot be read.
    """

    def __init__(self, broker: PaperBroker, journal: Path) -> None:
        self.name = broker.name
        self._broker = broker
        self._lock = threading.RLock()
        self.resumed_ns = self._repeat(journal)
        self._file = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def _repeat(self, journal: Path) -> int:
        """Bring the exchange to where the journal ends, by the same requests at the same times."""
        try:
            lines = journal.read_text().splitlines(keepends=True)
        except FileNotFoundError:
            return 0
        last_ns = 0
        for number, line in enumerate(lines, start=1):
            if not line.endswith("\n"):
                break  # Torn: the request was never handed over.
            try:
                content = json.loads(line)
                last_ns = int(content["now_ns"])
                self._broker.step(last_ns)
                if content["kind"] == "place":
                    self._broker.place(_ticket(content["ticket"]))
                else:
                    self._broker.cancel(BrokerIds(**content["ids"]), str(content["symbol"]))
            except (ValueError, KeyError, TypeError) as error:
                raise PlatformError(
                    ReasonCode.FILE_DAMAGED,
                    f"{journal}, line {number}: {error}",
                    next_step="remove the rehearsal's folder and run it again",
                ) from error
        return last_ns

    # The market and its time.

    def advance(self, limit_ns: int) -> bool:
        """Let one record reach us, at most up to a time; False when none does."""
        with self._lock:
            return self._broker.next_event(limit_ns)

    def settle(self, now_ns: int) -> None:
        """Let everything reach us up to a time."""
        while self.advance(now_ns):
            pass
        with self._lock:
            self._broker.step(now_ns)

    @property
    def now_ns(self) -> int:
        """Time of the exchange."""
        return self._broker.now_ns

    def truth(self) -> dict[str, int]:
        """Net position by symbol as the exchange knows it."""
        return self._broker.truth()

    # The broker.

    def connect(self, listener: BrokerListener) -> None:
        """Begin to report."""
        self._broker.connect(listener)

    def subscribe(self, symbols: list[str]) -> None:
        """Report the market of these contracts."""
        self._broker.subscribe(symbols)

    def place(self, ticket: OrderTicket) -> CallResult:
        """Send a new order, once."""
        with self._lock:
            self._write({"kind": "place", "ticket": asdict(ticket)})
            return self._broker.place(ticket)

    def cancel(self, ids: BrokerIds, symbol: str) -> CallResult:
        """Ask for the rest of an order to be canceled."""
        with self._lock:
            self._write({"kind": "cancel", "ids": asdict(ids), "symbol": symbol})
            return self._broker.cancel(ids, symbol)

    def amend(
        self, ids: BrokerIds, symbol: str, *, price: int | None, qty: int | None
    ) -> CallResult:
        """Refuse, as the paper exchange does."""
        return self._broker.amend(ids, symbol, price=price, qty=qty)

    def orders(self) -> list[BrokerOrder]:
        """Every order of the trading day."""
        with self._lock:
            return self._broker.orders()

    def positions(self) -> list[BrokerPosition]:
        """Net positions."""
        with self._lock:
            return self._broker.positions()

    def account(self) -> AccountState:
        """When it was asked."""
        with self._lock:
            return self._broker.account()

    def close(self) -> None:
        """Report nothing any more; callable twice."""
        self._broker.close()
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def _write(self, content: dict[str, Any]) -> None:
        # One write a line: a killed process leaves whole lines, or a torn last one.
        line = json.dumps(content | {"now_ns": self._broker.now_ns}, sort_keys=True) + "\n"
        os.write(self._file, line.encode())


def _ticket(content: dict[str, Any]) -> OrderTicket:
    return OrderTicket(
        **content
        | {
            "time_in_force": TimeInForce(content["time_in_force"]),
            "price_type": PriceType(content["price_type"]),
        }
    )


class RehearsalClock:
    """Time of a rehearsal: what the recording's clock would say.

    Parameters
    ----------
    start_ns : int
        Where it begins.
    speed : float or None
        Times real time; None stands still until it is moved.
    """

    def __init__(self, start_ns: int, speed: float | None) -> None:
        self._now_ns = start_ns
        self._speed = speed
        self._started = time.monotonic_ns()

    def __call__(self) -> int:
        """ns UTC of the recording."""
        if self._speed is None:
            return self._now_ns
        return self._now_ns + int((time.monotonic_ns() - self._started) * self._speed)

    def move_to(self, now_ns: int) -> None:
        """Move virtual time on, never back."""
        self._now_ns = max(self._now_ns, now_ns)


class VirtualPace:
    """Virtual time in one thread: what is due happens in the order of its time.

    Parameters
    ----------
    exchange : JournaledExchange
        Brings the market.
    clock : RehearsalClock
        Moved on as time passes.
    """

    is_virtual = True

    def __init__(self, exchange: JournaledExchange, clock: RehearsalClock) -> None:
        self._exchange, self._clock = exchange, clock
        self._is_running = False

    def start(self, system: HFTSystem) -> None:
        """Dispatch from here on."""
        self._is_running = True
        self._drain(system)

    def wait(self, system: HFTSystem, seconds: float) -> None:
        """Let virtual time pass: market, requests, then whoever asks the broker."""
        until_ns = self._clock() + int(seconds * SECOND_NS)
        while self._exchange.advance(until_ns):
            self._clock.move_to(self._exchange.now_ns)
            self._drain(system)
        self._exchange.settle(until_ns)
        self._clock.move_to(until_ns)
        self._drain(system)
        if self._is_running:
            system.parts.reconciler.step(until_ns)
            self._drain(system)

    def stop(self) -> None:
        """Dispatch nothing any more."""
        self._is_running = False

    def _drain(self, system: HFTSystem) -> None:
        while self._is_running:
            request = system.parts.session.next_request(0)
            if request is None:
                return
            system.parts.dispatcher.execute(request)


def paced_market(exchange: JournaledExchange, clock: RehearsalClock) -> Callable[[], None]:
    """What brings a paced rehearsal's market up to now."""

    def bring() -> None:
        exchange.settle(clock())

    return bring


def rehearsal_venue(recorded: RecordedSession, speed: float | None) -> VenueFactory:
    """The paper exchange over a recorded session.

    Parameters
    ----------
    recorded : RecordedSession
        Plays the market.
    speed : float or None
        Times real time; None is virtual time, as fast as the machine can.

    Returns
    -------
    callable
        For `SystemBootstrapper`.
    """

    def make(request: VenueRequest) -> Venue:
        latency, _ = load_latency_profile(request.config.latency_profile)
        broker = PaperBroker(
            request.instruments.values(),
            latency=latency,
            queue_model=request.config.queue_model,
            trading_day=request.traded.trading_day,
        )
        broker.feed(load_tape(recorded))
        exchange = JournaledExchange(broker, request.session_dir / JOURNAL_FILE)
        start_ns = max(request.traded.start_ns, request.last_time_ns + 1, exchange.resumed_ns)
        exchange.settle(start_ns)
        clock = RehearsalClock(start_ns, speed)
        if speed is None:
            return Venue(exchange, clock, VirtualPace(exchange, clock))
        pace = ThreadPace(paced_market(exchange, clock), speed=speed)
        return Venue(exchange, clock, pace)

    return make
