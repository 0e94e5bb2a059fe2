"""The loops of one gateway process: stand by, lead, and end.

Why: `GatewayService` is stepped; a process needs threads, signals and an exit status.

Invariants:
1. The heartbeat begins before the takeover does, so a takeover that hangs is noticed.
2. Whichever loop fails ends the process as a crash would: the next start is a recovery in any case,
   and a standby need not wait.
3. SIGTERM and SIGINT end it in order: runners are told, logs sealed, the lease let go.

Operator's page: `docs/gateway.md`.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

import structlog

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.gateway.gateway_service import GatewayService
from hft_platform.gateway.lease import POLL_S

log = structlog.get_logger()

HEARTBEAT_S = 0.05
"""A tenth of the time after which a leader counts as hung."""
CHANNEL_S = 0.02
RECONCILE_S = 0.25
JOIN_S = 10.0


class GatewayProcess:
    """Runs a gateway to its end.

    Parameters
    ----------
    service : GatewayService
        Standby.
    on_state : callable, optional
        Told when it stands by, leads, serves and has ended, with the epoch.
    """

    def __init__(
        self,
        service: GatewayService,
        *,
        on_state: Callable[[str, GatewayService], None] | None = None,
    ) -> None:
        self.failure: BaseException | None = None
        """What ended it, when it did not end in order."""
        self._service = service
        self._on_state = on_state or (lambda _state, _service: None)
        self._threads: list[threading.Thread] = []

    def run(self, stop: threading.Event) -> bool:
        """Stand by, lead, serve.

        Parameters
        ----------
        stop : threading.Event
            Ends it in order.

        Returns
        -------
        bool
            True when it ended in order; else `failure` says why not.
        """
        self._on_state("standby", self._service)
        while not self._service.stand_by(POLL_S):
            if stop.is_set():
                self._service.close(is_orderly=True)
                return True
        ended = threading.Event()
        self._start("heartbeat", ended, self._beat)
        try:
            self._on_state("leads", self._service)
            self._service.take_over()
            self._start("dispatcher", ended, self._dispatch)
            self._start("reconciler", ended, self._reconcile)
            self._on_state("serving", self._service)
            while not stop.is_set() and self.failure is None:
                self._service.step_channel(CHANNEL_S)
        except Exception as error:  # noqa: BLE001  # whatever it is, this process must not lead on
            self._fail("channel", error)
        ended.set()
        for thread in self._threads:
            thread.join(JOIN_S)
        self._service.close(is_orderly=self.failure is None)
        self._on_state("ended", self._service)
        return self.failure is None

    def _start(
        self, name: str, ended: threading.Event, loop: Callable[[threading.Event], None]
    ) -> None:
        def run() -> None:
            try:
                loop(ended)
            except Exception as error:  # noqa: BLE001  # see invariant 2
                self._fail(name, error)

        thread = threading.Thread(target=run, name=f"gateway-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _beat(self, ended: threading.Event) -> None:
        while not ended.wait(HEARTBEAT_S):
            self._service.heartbeat()

    def _dispatch(self, ended: threading.Event) -> None:
        while not ended.is_set():
            self._service.step_dispatch()

    def _reconcile(self, ended: threading.Event) -> None:
        while not ended.wait(RECONCILE_S):
            self._service.step_reconcile()

    def _fail(self, name: str, error: BaseException) -> None:
        code = error.code if isinstance(error, PlatformError) else int(ReasonCode.UNSET)
        log.error("gateway_failed", loop=name, reason_code=code, error=str(error)[:500])
        if self.failure is None:
            self.failure = error


def stop_on_signals() -> threading.Event:
    """Event that SIGTERM and SIGINT set."""
    stop = threading.Event()

    def ended(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ended)
    signal.signal(signal.SIGINT, ended)
    return stop
