"""What the forked processes of the gateway drill do: broker, gateway, runner.

Why: what is killed must be the real thing: a live session with its logs on disk, the intent
channel, the lease, the adapter with its calls over a socket.

Invariants:
1. A role keeps nothing but what is in its folder; killed at any moment and forked again it goes on.
2. A runner's intents have prices that no other intent of the run has.
3. A role ends by itself only when it was told to finish and nothing is open, and then says what it
   holds.

Operator's page: `docs/drills/gateway-chaos.md`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from hft_platform import records
from hft_platform.config.canonical import atomic_write
from hft_platform.drills import order_life
from hft_platform.drills.broker_book import BrokerFaults
from hft_platform.drills.broker_client import DrillBroker
from hft_platform.drills.broker_process import BrokerServer
from hft_platform.drills.order_life import MID, MS, SCALE, SECOND, Want
from hft_platform.errors import PlatformError
from hft_platform.gateway import wire
from hft_platform.gateway.channel import (
    SOCKET_FILE,
    ChannelLimits,
    ChannelServer,
    Holdings,
    RemoteAlpha,
)
from hft_platform.gateway.channel_client import new_hello
from hft_platform.gateway.dead_letters import DeadLetters
from hft_platform.gateway.intent_channel import LocalIntentChannel
from hft_platform.gateway.lease import LeaderLease, boottime_ns
from hft_platform.gateway.order_log import OrderLogFollower
from hft_platform.order.broker import Broker
from hft_platform.order.gateway_broker import GatewayBroker

RUNNERS = 3
WANTS = 6
"""Intents of one runner."""
CALL_SECONDS = 0.12
RECONCILE_S = 0.04
LIFE_SECONDS = 60.0
_SHA = bytes(32)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run happens.

    Attributes
    ----------
    folder : Path
        Of the run.
    shift_ns : int
        What makes wall time the session's time, the same for all.
    seed : int
        Of the run.
    """

    folder: Path
    shift_ns: int
    seed: int

    def clock_ns(self) -> int:
        """Wall time within the session."""
        return time.time_ns() + self.shift_ns

    @property
    def broker_socket(self) -> Path:
        """Where the broker listens."""
        return self.folder / "b.sock"

    @property
    def journal(self) -> Path:
        """The broker's."""
        return self.folder / "broker.jsonl"

    @property
    def channel(self) -> Path:
        """Where the leading gateway listens."""
        return self.folder / SOCKET_FILE

    def result(self, name: str) -> Path:
        """What a role says at its end."""
        return self.folder / f"{name}.json"

    def is_told(self, word: str) -> bool:
        """True when the run told its roles so."""
        return (self.folder / word).exists()

    def tell(self, word: str) -> None:
        """Tell the roles."""
        (self.folder / word).touch()


def broker_role(place: Place, faults: BrokerFaults) -> None:
    """Serve until killed."""
    server = BrokerServer(
        place.broker_socket, place.journal, seed=place.seed, faults=faults, clock_ns=place.clock_ns
    )
    server.serve(until=time.monotonic() + LIFE_SECONDS)


class Stand:
    """Session and order plane of one process, with its dispatcher thread."""

    def __init__(
        self,
        place: Place,
        name: str,
        *,
        epoch: int,
        config: str,
        broker: Broker,
        fence: Any,  # Any: a Fence
    ) -> None:
        self.place = place
        self.name = name
        self.folder = place.folder / name
        self.parts = order_life.Parts(
            self.folder,
            epoch=epoch,
            config=config,
            broker=broker,
            fence=fence,
            clock_ns=place.clock_ns,
            settings=order_life.quick_reconciliation(),
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._dispatch, name="dispatcher", daemon=True)

    def begin(self) -> None:
        """Connect, reconcile as often as it takes, and let requests out."""
        deadline = time.monotonic() + LIFE_SECONDS
        while time.monotonic() < deadline:
            try:
                self.parts.broker.connect(self.parts.gateway)
                break
            except PlatformError:
                time.sleep(RECONCILE_S)
        while not self.parts.reconciliation.startup().is_ready and time.monotonic() < deadline:
            time.sleep(RECONCILE_S / 2)
        self._thread.start()

    def _dispatch(self) -> None:
        self.parts.adapter.run(self._stop)

    def is_quiet(self) -> bool:
        """True when nothing is open."""
        return not self.parts.session.orders()

    def say(self, **facts: Any) -> None:
        """Say what is held, and end."""
        self._stop.set()
        self._thread.join(2.0)
        session = self.parts.session
        positions: dict[str, int] = {}
        for row in session.positions():
            key = str(row["alpha_index"])
            positions[key] = positions.get(key, 0) + int(row["position_qty"])
        content = {"positions": positions, "epoch": self.parts.epoch, **facts}
        session.finish()
        (self.folder / "engine.json").write_text(self.parts.config)
        atomic_write(self.place.result(self.name), json.dumps(content).encode())


def gateway_role(place: Place, name: str) -> None:
    """Stand by, lead, and serve until killed or finished."""
    lease = LeaderLease(place.folder / "lease", hung_after_ns=150 * MS)
    while lease.try_acquire(lambda: 0) is None:
        if place.is_told("finish-gateway"):
            return
        lease.wait(0.01)
    pulse = lease.watch("channel", 400 * MS)
    stopped = threading.Event()
    beat = threading.Thread(target=_beat, args=(lease, stopped), daemon=True)
    beat.start()
    broker = DrillBroker(place.broker_socket, clock_ns=place.clock_ns, call_seconds=CALL_SECONDS)
    stand = Stand(
        place, "gateway", epoch=lease.epoch, config=order_life.engine_config(RUNNERS),
        broker=broker, fence=lease.fence(),
    )  # fmt: skip
    pulse.beat(5 * SECOND)
    session = stand.parts.session
    local = LocalIntentChannel(
        session, OrderLogFollower(stand.folder / "orders"), clock_ns=place.clock_ns
    )
    local.refresh()
    server = ChannelServer(
        place.channel,
        local,
        {f"runner_{index}": _remote(index) for index in range(RUNNERS)},
        limits=ChannelLimits(64, SECOND, 30 * SECOND, "keep"),
        holdings=Holdings(lambda alpha: _held(session, alpha), lambda: (1, True, 0, 0)),
        dead_letters=DeadLetters(stand.folder),
        epoch=lease.epoch,
        session_key=place.seed + 1,
        clock_ns=boottime_ns,
    )
    stand.begin()
    next_look = 0.0
    while True:
        pulse.beat()
        if time.monotonic() >= next_look:
            next_look = time.monotonic() + RECONCILE_S
            order_life.push_quote(session, place.clock_ns())
            pulse.beat(SECOND)
            stand.parts.reconcile(place.clock_ns())
            if place.is_told("finish-gateway") and stand.is_quiet():
                break
        server.step(0.005)
    stopped.set()
    server.close()
    stand.say(lease=lease.epoch)
    lease.release()


def _beat(lease: LeaderLease, stopped: threading.Event) -> None:
    while not stopped.wait(0.03):
        lease.heartbeat()


def _remote(index: int) -> RemoteAlpha:
    ids = frozenset(order_life.instruments())
    return RemoteAlpha(f"runner_{index}", index, ids, _SHA, 0, 60 * SECOND)


def _held(session: Any, alpha_index: int) -> dict[int, int]:  # Any: a LiveSession
    held: dict[int, int] = {}
    for row in session.positions():
        if row["alpha_index"] == alpha_index:
            number = int(row["instrument_id"])
            held[number] = held.get(number, 0) + int(row["position_qty"])
    return held


def runner_role(place: Place, index: int, life: int) -> None:
    """Want what the seed says, again after every death, until all is said and done."""
    name = f"runner-{index}"
    symbols = {number: row.symbol for number, row in order_life.instruments().items()}
    broker = GatewayBroker(
        place.channel,
        new_hello(f"runner_{index}", _SHA, 0),
        symbols,
        intent_ttl_ns=20 * SECOND,
        answer_s=0.15,
        connect_s=0.2,
        clock_ns=place.clock_ns,
    )
    stand = Stand(
        place, name, epoch=life, config=order_life.engine_config(1, first=index), broker=broker,
        fence=order_life.NoFence(),
    )  # fmt: skip
    stand.begin()
    session = stand.parts.session
    draw = Random(place.seed * 1_000 + index * 100 + life)  # noqa: S311  # a drill's dice
    wanted = place.folder / f"{name}.wanted"
    count = len(wanted.read_text()) if wanted.exists() else 0
    if count:
        # Nobody knows whether the last one was said before it died: said again, with its number.
        stand.parts.submit(want_of(place.seed, index, count - 1), place.clock_ns())
    next_want = next_look = 0.0
    while True:
        now = time.monotonic()
        if count < WANTS and now >= next_want and not place.is_told("finish"):
            next_want = now + draw.uniform(0.02, 0.15)
            with wanted.open("a") as file:
                file.write("x")
            order_life.push_quote(session, place.clock_ns())
            stand.parts.submit(want_of(place.seed, index, count), place.clock_ns())
            count += 1
        if now >= next_look:
            next_look = now + RECONCILE_S
            stand.parts.reconcile(place.clock_ns())
            if place.is_told("finish") and stand.is_quiet():
                break
        time.sleep(0.005)
    stand.say(wants=count)


def want_of(seed: int, runner: int, number: int) -> Want:
    """The intent of a runner under this number: the same whoever asks."""
    draw = Random((seed * 31 + runner) * 1_009 + number)  # noqa: S311  # a drill's dice
    return Want(
        runner=0,
        external_id=number + 1,
        rank=runner * WANTS + number,
        side=draw.choice((1, -1)),
        lots=draw.randint(1, 3),
        time_in_force=draw.choice((1, 1, 2)),
    )


Work = Callable[[], None]
__all__ = [
    "LIFE_SECONDS", "MID", "RUNNERS", "SCALE", "WANTS", "Place", "broker_role", "gateway_role",
    "records", "runner_role", "want_of", "wire",
]  # fmt: skip
