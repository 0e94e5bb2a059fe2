"""HFTSystem: the one live process, its threads, its start and its stop.

Why: everything that trades is stepped and owns no thread. Somebody must run it, notice when a part
of it fails, and stop it so that nothing is left unexplained.

Invariants:
1. Nothing is dispatched before the broker was asked and everything it said was taken in; what
   cannot be settled in time starts reduce-only, and says why.
2. A part that raises ends the process: no thread dies alone. The logs are enough to start again.
3. A stop before the session's end opens nothing more, lets exits finish, takes back what is left,
   and waits a bounded time for the answers.
4. A second signal ends at once, without sealing: crash-only.
5. How time passes is the `Pace`'s alone: threads and a clock in live, virtual time in a rehearsal
   at full speed. The order of what happens is the same.

It decides nothing about orders. Operator's page: `docs/live.md`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import structlog

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.input_records import CommandKind
from hft_platform.market.instruments import Instrument
from hft_platform.market.sessions import SECOND_NS, Session
from hft_platform.order.broker import BrokerIds
from hft_platform.services.broker_probe import ProbedBroker, SystemListener
from hft_platform.services.live_control import STEP_NS, LiveControl
from hft_platform.services.live_status import write_status
from hft_platform.services.session_governor import SessionGovernor

STEP_S = STEP_NS / 1e9
STARTUP_S = 60.0
"""Longest wait for the broker's first answers: above the quarantine of an unknown order."""
RECONCILE_S = 0.1
UPKEEP_S = 1.0
SETTLE_S = 2.0
"""Behind the session's end, for the last fills; what comes later is found by asking."""
STATUS_NS = SECOND_NS
MARKET_S = 0.002
WAIT_MIN_S = 0.005
JOIN_S = 10.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)
RESTRICTED = "restricted"
"""Marks a session folder whose alpha this process, and no operator, made reduce-only."""
CRASH_EXIT = 70
"""Exit code of a second signal."""

log = structlog.get_logger()


class StopCause(StrEnum):
    """Why a session ends."""

    SESSION_END = "session_end"
    SIGNAL = "signal"
    FAILURE = "failure"


class LiveSession(Protocol):
    """What is needed of the core's `LiveSession`."""

    def next_request(self, timeout_ms: int) -> Any:  # Any: the core's OrderRequest, or None
        """Take the next approved request."""

    def push(self, tape: bytes) -> int:
        """Take records."""

    def orders(self) -> list[dict[str, Any]]:
        """Open orders."""

    def positions(self) -> list[dict[str, Any]]:
        """Positions of the alphas."""

    def state(self) -> dict[str, Any]:
        """Counters and latches."""

    def latency(self) -> dict[str, Any]:
        """Histograms."""


class Dispatcher(Protocol):
    """What is needed of the OrderAdapter."""

    def execute(self, request: Any) -> Any:  # Any: the core's OrderRequest
        """Send one request."""

    def step(self, now_ns: int | None = None) -> None:
        """Send cancels that had to wait."""

    def run(self, stop: threading.Event) -> None:
        """Send requests until stopped."""


class Reconciler(Protocol):
    """What is needed of the ReconciliationService."""

    def startup(self, now_ns: int | None = None) -> Any:  # Any: Readiness
        """Do what is due before trading."""

    def step(self, now_ns: int | None = None) -> None:
        """Do what is due."""

    def report(self) -> Any:  # Any: ReconciliationReport
        """Where it stood behind its last step; any thread may ask."""

    def counters(self) -> dict[str, int]:
        """What was asked."""


class Pace(Protocol):
    """How time passes."""

    is_virtual: bool

    def start(self, system: HFTSystem) -> None:
        """Let dispatcher and reconciler run from here on."""

    def wait(self, system: HFTSystem, seconds: float) -> None:
        """Let time pass."""

    def stop(self) -> None:
        """End what `start` began; nothing is dispatched behind this."""


@dataclass(frozen=True, slots=True)
class SystemParts:
    """What a live process is made of; `services/bootstrap.py` puts it together.

    Attributes
    ----------
    ids_of : callable
        The broker's ids of an order of ours, None while it has said none.
    external_qty : callable
        What an operator adopted of an instrument, by its id.
    heartbeat : callable
        Told once a step that the process lives; the lease's, where there is one.
    reports_step : callable
        Told the time once a step: reports that waited too long for their order are external.
    """

    session: LiveSession
    broker: ProbedBroker
    listener: SystemListener
    dispatcher: Dispatcher
    reconciler: Reconciler
    control: LiveControl
    governor: SessionGovernor
    traded: Session
    instruments: Mapping[int, Instrument]
    ids_of: Callable[[int], BrokerIds | None]
    clock_ns: Callable[[], int]
    session_dir: Path
    mode: str
    stop_wait_s: float
    external_qty: Callable[[int], int] = field(default=lambda _instrument_id: 0)
    heartbeat: Callable[[], None] = field(default=lambda: None)
    reports_step: Callable[[int], None] = field(default=lambda _now_ns: None)


class HFTSystem:
    """Runs one session.

    Parameters
    ----------
    parts : SystemParts
        Everything, connected to nothing yet.
    pace : Pace
        How time passes.
    flatten_on_stop : bool
        Whether an early stop closes the position.
    """

    def __init__(self, parts: SystemParts, pace: Pace, *, flatten_on_stop: bool) -> None:
        self.parts = parts
        parts.listener.report_failures_to(self.fail)
        self._pace = pace
        self._flatten_on_stop = flatten_on_stop
        self._stop_asked = threading.Event()
        self._failure: BaseException | None = None
        self._failed = threading.Event()
        self._status_ns = 0
        self.is_ready = False
        self.reasons: tuple[str, ...] = ("not started",)
        self.is_restricted = False

    @property
    def failure(self) -> BaseException | None:
        """What ended a part of the process."""
        return self._failure

    def fail(self, error: BaseException) -> None:
        """A part raised: the process ends. Callable from any thread; the first error stays."""
        if self._failure is None:
            self._failure = error
            code = error.code if isinstance(error, PlatformError) else ReasonCode.INVARIANT_BROKEN
            log.error("live_part_failed", reason_code=int(code), error=f"{error!r:.300}")
        self._failed.set()
        self._stop_asked.set()

    def ask_stop(self) -> None:
        """Stop as soon as it can be done in order."""
        self._stop_asked.set()

    @property
    def is_stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._stop_asked.is_set()

    def wait_any(self, seconds: float) -> None:
        """Wait for a request to stop, at most so long."""
        self._stop_asked.wait(seconds)

    def run(self) -> StopCause:
        """Start, trade until the session ends or somebody asks, and stop in order.

        Returns
        -------
        StopCause
            Never FAILURE: that is raised.

        Raises
        ------
        PlatformError
            What the broker refused at the start, or what a part raised later.
        """
        parts = self.parts
        parts.governor.look(parts.clock_ns())
        parts.broker.connect(parts.listener)
        self._reconcile_first()
        parts.broker.subscribe([row.symbol for row in parts.instruments.values()])
        self._pace.start(self)
        self.is_ready = True
        log.info("live_session_ready", run_id=parts.session_dir.name, restricted=self.is_restricted)
        cause = self._trade()
        try:
            self._wind_down(cause)
        finally:
            self._pace.stop()
        self._raise_failure()
        self.write_status(parts.clock_ns(), is_running=False)
        return cause

    def _reconcile_first(self) -> None:
        """Ask the broker until everything is known, or the time for it is over."""
        parts = self.parts
        until_ns = parts.clock_ns() + int(STARTUP_S * SECOND_NS)
        while True:
            readiness = parts.reconciler.startup()
            self.reasons = tuple(readiness.reasons)
            if readiness.is_ready:
                self._lift_stop()
                return
            if parts.clock_ns() >= until_ns or self._stop_asked.is_set():
                break
            self.write_status(parts.clock_ns(), is_running=True)
            self._wait(STEP_S)
        self._raise_failure()
        log.error(
            "live_start_restricted",
            reason_code=int(ReasonCode.SESSION_UNEXPLAINED),
            reasons=list(self.reasons)[:10],
        )
        self._reduce_only()

    def _trade(self) -> StopCause:
        while True:
            self.step(self.parts.clock_ns())
            if self._failed.is_set():
                return StopCause.FAILURE
            if self._stop_asked.is_set():
                return StopCause.SIGNAL
            if self.parts.clock_ns() >= self.parts.traded.end_ns:
                return StopCause.SESSION_END
            self._wait(STEP_S)

    def step(self, now_ns: int) -> None:
        """One look at everything that is not an order.

        Parameters
        ----------
        now_ns : int
            The session's clock.
        """
        parts = self.parts
        parts.control.measured.normaliser_failures += parts.broker.take_unreadable()
        rtt_ns, order_id = parts.broker.take_worst_rtt()
        if rtt_ns > parts.control.measured.order_rtt_ns:
            parts.control.measured.order_rtt_ns = rtt_ns
            parts.control.measured.order_id = order_id
        try:
            parts.control.step(now_ns)
            parts.reports_step(now_ns)
            # A stop restricts for good: only the next start may lift it.
            if self.is_restricted and self.is_ready and not self._stop_asked.is_set():
                self._lift_when_settled()
        except PlatformError as error:
            self.fail(error)
            return
        parts.heartbeat()
        if now_ns - self._status_ns >= STATUS_NS:
            self.write_status(now_ns, is_running=True)

    def write_status(self, now_ns: int, *, is_running: bool) -> None:
        """Say for `hft-live status` where the process stands."""
        self._status_ns = now_ns
        write_status(self, now_ns, is_running=is_running)

    def _lift_when_settled(self) -> None:
        # The reconciler steps in a thread of its own by now: its report is for any thread.
        report = self.parts.reconciler.report()
        self.reasons = tuple(report.reasons)
        if report.is_ready:
            self._lift_stop()

    def _reduce_only(self) -> None:
        """Let every alpha reduce only, without the latch that needs an operator."""
        (self.parts.session_dir / RESTRICTED).touch()
        now_ns = self.parts.clock_ns()
        code = int(ReasonCode.REDUCE_ONLY_ON)
        control = self.parts.control
        control.command(CommandKind.REDUCE_ONLY, now_ns, alpha_index=0, reason_code=code)
        self.is_restricted = True

    def _lift_stop(self) -> None:
        """Lift what a start or an earlier stop left on the alpha; an operator's latches stay."""
        self.is_restricted = False
        marker = self.parts.session_dir / RESTRICTED
        if not marker.exists():
            return
        control, now_ns = self.parts.control, self.parts.clock_ns()
        armed_seq = control.command(CommandKind.RESUME_ARM, now_ns, alpha_index=0)
        control.command(CommandKind.RESUME_CONFIRM, now_ns, alpha_index=0, argument=armed_seq)
        marker.unlink(missing_ok=True)

    # The stop

    def _wind_down(self, cause: StopCause) -> None:
        """Close-only, let exits finish, take back what is left, wait for the answers."""
        if cause == StopCause.FAILURE:
            return
        log.info("live_session_stopping", cause=str(cause), open_orders=len(self._open()))
        if cause == StopCause.SIGNAL:
            self._reduce_only()
            if self._flatten_on_stop:
                now_ns = self.parts.clock_ns()
                self.parts.control.command(CommandKind.FLATTEN, now_ns, alpha_index=0)
                self._until(lambda: self._is_flat() and not self._open(), self.parts.stop_wait_s)
            else:
                self._until(lambda: not self._open(), self.parts.stop_wait_s / 2)
        else:
            self._until(lambda: False, min(SETTLE_S, self.parts.stop_wait_s))
        # No market from here on: nothing new is wanted while the last orders are taken back.
        self.parts.listener.is_muted = True
        for row in self._open():
            self._take_back(row)
        self._until(lambda: not self._open(), self.parts.stop_wait_s)

    def _take_back(self, row: Mapping[str, Any]) -> None:
        order_id = int(row["order_id"])
        ids = self.parts.ids_of(order_id)
        if ids is None:
            return  # Never named by the broker: reconciliation asks for it.
        symbol = self.parts.instruments[int(row["instrument_id"])].symbol
        result = self.parts.broker.cancel(ids, symbol)
        log.info("order_taken_back", order_id=order_id, outcome=str(result.outcome))

    def _until(self, is_done: Callable[[], bool], seconds: float) -> bool:
        """Wait until something holds, at most so long; the control goes on meanwhile."""
        until_ns = self.parts.clock_ns() + int(seconds * SECOND_NS)
        while not is_done():
            if self.parts.clock_ns() >= until_ns or self._failed.is_set():
                return False
            # The stop was asked for already: wait without it.
            self._pace.wait(self, STEP_S)
            self.step(self.parts.clock_ns())
        return True

    def _open(self) -> list[dict[str, Any]]:
        return self.parts.session.orders()

    def _is_flat(self) -> bool:
        return not any(row["position_qty"] for row in self.parts.session.positions())

    def _wait(self, seconds: float) -> None:
        self._pace.wait(self, seconds)

    def _raise_failure(self) -> None:
        if self._failure is None:
            return
        if isinstance(self._failure, PlatformError):
            raise self._failure
        raise PlatformError(
            ReasonCode.INVARIANT_BROKEN, f"a part of the live process failed: {self._failure!r}"
        ) from self._failure


class ThreadPace:
    """Threads and the clock of the process.

    Parameters
    ----------
    market : callable, optional
        Of a rehearsal: brings the market up to now; called from a thread of its own.
    speed : float, optional
        Of a rehearsal: how much faster than the machine's clock the session's goes.
    """

    is_virtual = False

    def __init__(self, market: Callable[[], None] | None = None, *, speed: float = 1.0) -> None:
        self._market = market
        self._speed = speed
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, system: HFTSystem) -> None:
        """Start dispatcher, reconciler and, in a rehearsal, the market."""
        pause_s = max(RECONCILE_S / self._speed, WAIT_MIN_S)
        loops: list[tuple[str, Callable[[], None]]] = [
            ("dispatcher", lambda: system.parts.dispatcher.run(self._stop)),
            ("reconciler", lambda: self._repeat(system.parts.reconciler.step, pause_s)),
            # Logging in again takes long, and must keep neither a halt nor a question waiting.
            ("upkeep", lambda: self._repeat(system.parts.broker.look_after, UPKEEP_S)),
        ]
        if self._market is not None:
            loops.append(("market", lambda: self._repeat(self._market, MARKET_S)))
        for name, loop in loops:
            thread = threading.Thread(
                target=self._guarded, args=(system, loop), name=f"hft-{name}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def wait(self, system: HFTSystem, seconds: float) -> None:
        """Sleep, and say how late the waking was."""
        seconds = max(seconds / self._speed, WAIT_MIN_S)
        due = time.monotonic_ns() + int(seconds * SECOND_NS)
        if system.is_stopping:
            self._stop.wait(seconds)
        else:
            system.wait_any(seconds)
        late_ns = time.monotonic_ns() - due
        measured = system.parts.control.measured
        # Faster than the clock, how late this loop wakes says nothing about a real session.
        if self._speed <= 1.0 and late_ns > measured.loop_lag_ns:
            measured.loop_lag_ns = late_ns

    def stop(self) -> None:
        """End the threads, in a bounded time."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=JOIN_S)
            if thread.is_alive():
                log.error("thread_hangs", name=thread.name)

    def _repeat(self, call: Callable[[], None] | None, seconds: float) -> None:
        while call is not None and not self._stop.wait(seconds):
            call()

    def _guarded(self, system: HFTSystem, loop: Callable[[], None]) -> None:
        try:
            loop()
        except Exception as error:  # noqa: BLE001  # no thread dies alone
            system.fail(error)


@contextmanager
def signals_stop(system: HFTSystem) -> Iterator[None]:
    """SIGTERM and SIGINT ask for a stop; the second one ends the process without sealing.

    Parameters
    ----------
    system : HFTSystem
        Running in this, the main thread.
    """
    count = 0

    def on_signal(number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count > 1:
            os.write(2, b"second signal: ending without a seal; the logs are recovered\n")
            os._exit(CRASH_EXIT)
        log.warning("stop_asked", signal=signal.Signals(number).name)
        system.ask_stop()

    before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
