"""A gateway's channel over the test session, and a runner's side that a test steps by hand."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hft_platform import records
from hft_platform.errors import PlatformError
from hft_platform.gateway import wire
from hft_platform.gateway.channel import (
    ChannelLimits,
    ChannelServer,
    Holdings,
    RemoteAlpha,
)
from hft_platform.gateway.channel_socket import SOCKET_FILE, address_of
from hft_platform.gateway.dead_letters import DeadLetters
from hft_platform.gateway.intent_channel import LocalIntentChannel
from hft_platform.gateway.order_log import OrderLogFollower
from tests.hft_platform.gateway.engine_session import EngineSession, gateway_config
from tests.rust_core.market_days import SCALE, TXF_ID

NS = 1_000_000_000
SHA = bytes(range(32))
WAIT_S = 60.0


def alphas(count: int = 2) -> dict[str, RemoteAlpha]:
    return {
        f"runner_{index}": RemoteAlpha(
            f"runner_{index}", index, frozenset({TXF_ID}), SHA, 3, 2 * NS
        )
        for index in range(count)
    }


class Gateway:
    """Session, channel and clock; `step` does one round."""

    def __init__(
        self, folder: Path, *, epoch: int = 1, alpha_count: int = 2, **limits: Any
    ) -> None:
        self.folder = folder
        self.now_ns = 1_000 * NS
        self.session = EngineSession(folder, epoch=epoch, config=gateway_config(alpha_count))
        self.local = LocalIntentChannel(
            self.session, OrderLogFollower(folder / "orders"), clock_ns=self.session.clock_ns
        )
        self.local.refresh()
        self.dead_letters = DeadLetters(folder)
        self.holdings_fail: PlatformError | None = None
        bounds = {
            "outstanding_max": 8,
            "stall_ns": NS,
            "grace_ns": 5 * NS,
            "on_disconnect": "cancel",
        }
        self.server = ChannelServer(
            folder / SOCKET_FILE,
            self.local,
            alphas(alpha_count),
            limits=ChannelLimits(**(bounds | limits)),
            holdings=Holdings(self._positions, lambda: (5, True, 10 * SCALE, 4 * SCALE)),
            dead_letters=self.dead_letters,
            epoch=epoch,
            session_key=77,
            clock_ns=self.clock_ns,
        )
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def clock_ns(self) -> int:
        return self.now_ns

    def _positions(self, alpha_index: int) -> dict[int, int]:
        if self.holdings_fail is not None:
            raise self.holdings_fail
        return {TXF_ID: (alpha_index + 1) * SCALE}

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self.server.step(0.0)

    def serve(self) -> None:
        """Step from a thread, as the runtime does."""

        def run() -> None:
            while not self._stop.is_set():
                self.server.step(0.01)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        if self._stop.is_set():
            return
        self._stop.set()
        if self._thread is not None:
            self._thread.join(WAIT_S)
        self.server.close()
        self.session.close()


class RawRunner:
    """A runner that says exactly what a test wants it to say."""

    def __init__(
        self, gateway: Gateway, alpha: int = 0, *, hello: bool = True, cursor: int = 0
    ) -> None:
        self.gateway = gateway
        self.link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with address_of(gateway.folder / SOCKET_FILE) as address:
            self.link.connect(address)
        self.link.setblocking(False)
        self.alpha = alpha
        if hello:
            self.say(wire.hello(wire.Hello(f"runner_{alpha}", SHA, 3, 77, cursor)))
            self.gateway.step()

    def say(self, message: bytes) -> None:
        self.link.send(message)

    def heard(self) -> list[tuple[wire.Kind, Any]]:
        """Everything that was said to it, after a round of the gateway."""
        self.gateway.step(2)
        messages = []
        while True:
            try:
                message = self.link.recv(wire.MESSAGE_BYTES_MAX)
            except BlockingIOError:
                return messages
            if not message:
                return [*messages, (None, "closed")]
            messages.append(wire.unpack(message))

    def place(self, number: int, **fields: int) -> None:
        """Send an intent for order `number`."""
        sent_ns = fields.pop("sent_ns", self.gateway.now_ns)
        self.say(wire.intent(wire.Intent(number, sent_ns, intent(self.alpha, number, **fields))))


def intent(alpha: int, number: int, **fields: int) -> bytes:
    """`Intent` record of a bid of one lot far enough from the market to rest."""
    row = records.empty("Intent", 1)
    row["instrument_id"], row["alpha_index"], row["action"] = TXF_ID, alpha, 1
    row["intent_reason"], row["time_in_force"], row["external_id"] = 1, 1, number
    row["source_seq"], row["exchange_time_ns"] = 1_000 + number, 500 + number
    row["side"], row["price"], row["qty"] = 1, (29_990 - number % 10) * SCALE, SCALE
    row["ttl_ns"], row["signal"] = NS, 5.0
    for name, value in fields.items():
        row[name] = value
    return row.tobytes()


def drained(runner: RawRunner) -> list[tuple[wire.Kind, Any]]:
    """What was said to it, without a round of the gateway."""
    messages = []
    while True:
        try:
            messages.append(wire.unpack(runner.link.recv(wire.MESSAGE_BYTES_MAX)))
        except BlockingIOError:
            return messages


def until(is_so: Callable[[], bool], what: str) -> None:
    """Poll a condition with a deadline."""
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, f"waited {WAIT_S} s for: {what}"
        time.sleep(0.002)
