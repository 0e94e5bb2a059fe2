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

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from hft_platform.config.canonical import atomic_write
from hft_platform.drills import order_life
from hft_platform.drills.broker_book import BrokerFaults
from hft_platform.drills.broker_client import DrillBroker
from hft_platform.drills.broker_process import BrokerServer
from hft_platform.drills.order_life import SECOND, Want
from hft_platform.errors import PlatformError
from hft_platform.gateway.channel import SOCKET_FILE, ChannelLimits, Holdings, RemoteAlpha
from hft_platform.gateway.channel_client import new_hello
from hft_platform.gateway.gateway_service import GatewayClocks, GatewayService, PlaneSession
from hft_platform.gateway.lease import LeaderLease, LeadershipFence, boottime_ns
from hft_platform.gateway.process import GatewayProcess
from hft_platform.order.broker import Outcome
from hft_platform.order.gateway_broker import GatewayBroker

RUNNERS = 3
WANTS = 6
"""Intents of one runner."""
CALL_SECONDS = 0.12
COMPLAIN_S = 6.0
FORGETTING_S = 0.1
GROUP_COMMIT_MS = 5
HUNG_NS = 250_000_000
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
    control : {"", "forgets", "resends"}
        What is broken on purpose: nobody remembers over a death, or what was abandoned is sent
        again.
    """

    folder: Path
    shift_ns: int
    seed: int
    control: str = ""

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
        return self.folder / "service" / SOCKET_FILE

    def session(self, name: str, life: int) -> Path:
        """Session folder of a role; the control that forgets has a new one for each life."""
        return self.folder / (f"{name}-{life}" if self.control == "forgets" else name)

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


class Plane:
    """What a leading gateway leads: the order plane of the drill (`gateway_service.OrderPlane`).

    Parameters
    ----------
    place : Place
        Of the run.
    epoch : int
        The lease's.
    fence : LeadershipFence
        Stands before every call.
    """

    call_allow_ns: int = 2 * SECOND

    def __init__(self, place: Place, epoch: int, fence: LeadershipFence) -> None:
        self._place = place
        self.broker = DrillBroker(
            place.broker_socket, clock_ns=place.clock_ns, call_seconds=CALL_SECONDS
        )
        self.parts = order_life.Parts(
            place.session("gateway", epoch),
            epoch=epoch,
            config=order_life.engine_config(RUNNERS),
            broker=self.broker,
            fence=fence,
            clock_ns=place.clock_ns,
            settings=order_life.quick_reconciliation(),
            group_commit_ms=GROUP_COMMIT_MS,
        )
        self.session: PlaneSession = self.parts.session
        self.orders_dir = self.parts.folder / "orders"
        self.alphas: Mapping[str, RemoteAlpha] = {
            f"runner_{index}": _remote(index) for index in range(RUNNERS)
        }
        self._told: Callable[[], None] = _nothing
        self._ambiguous: list[Any] = []  # Any: the session's requests

    def startup(self) -> None:
        """Connect the broker and reconcile."""
        _begin(self._place, self.parts)
        order_life.push_quote(self.session, self._place.clock_ns())

    def execute(self, request: Any) -> None:  # Any: the session's request
        """Send one request, once."""
        result = self.parts.adapter.execute(request)
        if result.outcome == Outcome.AMBIGUOUS and request.action == 1:
            self._ambiguous.append(request)
        self._told()

    def reconcile(self, now_ns: int) -> None:
        """Ask the broker for what is in doubt; a fresh book for the engine's checks."""
        order_life.push_quote(self.session, now_ns)
        self.parts.reconcile(now_ns)
        if self._place.control == "resends":
            self._resend()
        self._told()

    def _resend(self) -> None:
        """The control that must be found out."""
        for request in list(self._ambiguous):
            order = self.parts.session.order(request.order_id)
            if order is not None and order["state"] == "rejected":
                self._ambiguous.remove(request)
                self.broker.place(order_life.ticket_of(request))

    def holdings(self) -> Holdings:
        """Positions as the engine holds them."""
        return Holdings(self._held, lambda: (self._place.clock_ns(), True, 0, 0))

    def report_to(self, market: Callable[[bytes], None], event: Callable[[], None]) -> None:
        """Tell that something happened; runners of the drill make their own quotes."""
        self._told = event

    def close(self, *, is_orderly: bool) -> None:
        """Let go as a crash does, or seal and say what is held."""
        if self._place.control == "resends":
            self._resend()
        self.broker.close()
        if is_orderly:
            _say(self._place, "gateway", self.parts)
        else:
            self.parts.session.close()

    def _held(self, alpha_index: int) -> dict[int, int]:
        held: dict[int, int] = {}
        for row in self.parts.session.positions():
            if row["alpha_index"] == alpha_index:
                number = int(row["instrument_id"])
                held[number] = held.get(number, 0) + int(row["position_qty"])
        return held


def gateway_role(place: Place) -> None:
    """Stand by, lead, and serve until killed or finished."""
    planes: list[Plane] = []

    def make_plane(epoch: int, fence: LeadershipFence) -> Plane:
        planes.append(Plane(place, epoch, fence))
        return planes[-1]

    service = GatewayService(
        place.channel.parent,
        LeaderLease(place.folder / "lease", hung_after_ns=HUNG_NS),
        # The lease file of a run is never lost, and knows the last epoch.
        last_epoch=lambda: 0,
        make_plane=make_plane,
        limits=ChannelLimits(64, SECOND, 30 * SECOND, "keep"),
        clocks=GatewayClocks(place.clock_ns, boottime_ns),
    )
    stop = threading.Event()
    watcher = threading.Thread(target=_stop_when_told, args=(place, planes, stop), daemon=True)
    watcher.start()
    process = GatewayProcess(service)
    if not process.run(stop):
        raise RuntimeError(f"the gateway ended: {process.failure!r}")


def _stop_when_told(place: Place, planes: list[Plane], stop: threading.Event) -> None:
    """End in order once the run is over and nothing is open."""
    while not stop.wait(RECONCILE_S):
        if place.is_told("finish-gateway") and not (planes and planes[-1].parts.session.orders()):
            stop.set()


def _nothing() -> None:
    """Nobody is told."""


def _remote(index: int) -> RemoteAlpha:
    ids = frozenset(order_life.instruments())
    return RemoteAlpha(f"runner_{index}", index, ids, _SHA, 0, 60 * SECOND)


def _begin(place: Place, parts: order_life.Parts) -> None:
    """Connect and reconcile as often as it takes.

    Who forgets never reconciles: the broker holds orders and positions that it knows nothing of.
    The control begins all the same, or there would be nothing to be found out.
    """
    patience = FORGETTING_S if place.control == "forgets" else LIFE_SECONDS
    deadline = time.monotonic() + patience
    is_connected = False
    while time.monotonic() < deadline:
        with contextlib.suppress(PlatformError):
            if not is_connected:
                parts.broker.connect(parts.gateway)
                is_connected = True
            if parts.reconciliation.startup().is_ready:
                return
        time.sleep(RECONCILE_S / 2)


def _say(place: Place, name: str, parts: order_life.Parts, **facts: Any) -> None:
    """Seal the logs, and say what is held."""
    positions: dict[str, int] = {}
    for row in parts.session.positions():
        key = str(row["alpha_index"])
        positions[key] = positions.get(key, 0) + int(row["position_qty"])
    parts.session.finish()
    (parts.folder / "engine.json").write_text(parts.config)
    content = {"positions": positions, "epoch": parts.epoch, **facts}
    atomic_write(place.result(name), json.dumps(content).encode())


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
    parts = order_life.Parts(
        place.session(name, life),
        epoch=life,
        config=order_life.engine_config(1, first=index),
        broker=broker,
        fence=order_life.NoFence(),
        clock_ns=place.clock_ns,
        settings=order_life.quick_reconciliation(),
        group_commit_ms=GROUP_COMMIT_MS,
    )
    _begin(place, parts)
    stop = threading.Event()
    dispatcher = threading.Thread(target=parts.adapter.run, args=(stop,), daemon=True)
    dispatcher.start()
    _want_until_done(place, index, life, parts)
    stop.set()
    dispatcher.join(2.0)
    broker.close()
    _say(place, name, parts)


def _want_until_done(place: Place, index: int, life: int, parts: order_life.Parts) -> None:
    draw = Random(place.seed * 1_000 + index * 100 + life)  # noqa: S311  # a drill's dice
    wanted = place.folder / f"runner-{index}.wanted"
    is_new = place.control == "forgets" or not wanted.exists()
    count = 0 if is_new else len(wanted.read_text())
    if count:
        # Nobody knows whether the last one was said before it died: said again, with its number.
        order_life.push_quote(parts.session, place.clock_ns())
        parts.submit(want_of(place.seed, index, count - 1), place.clock_ns())
    next_want = next_look = told = 0.0
    while True:
        now = time.monotonic()
        if count < WANTS and now >= next_want and not place.is_told("finish"):
            next_want = now + draw.uniform(0.02, 0.15)
            with wanted.open("a") as file:
                file.write("x")
            order_life.push_quote(parts.session, place.clock_ns())
            parts.submit(want_of(place.seed, index, count), place.clock_ns())
            count += 1
        if now >= next_look:
            next_look = now + RECONCILE_S
            parts.reconcile(place.clock_ns())
            if place.is_told("finish"):
                if not parts.session.orders():
                    return
                _complain(parts, told := told or now, now)
        time.sleep(0.005)


def _complain(parts: order_life.Parts, since: float, now: float) -> None:
    """Say what is open some seconds after everything should be at rest."""
    if COMPLAIN_S < now - since < COMPLAIN_S + 2 * RECONCILE_S:
        text = [str(order) for order in parts.session.orders()]
        text += [parts.reconciliation.report().render(), str(parts.gateway.counters())]
        sys.stderr.write("\n".join(text) + "\n")


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
