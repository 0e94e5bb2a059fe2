"""The gateway: waits to lead, takes over, reconciles, and serves strategy runners until it ends.

Why: several runners share one broker account, so one process decides, journals and sends for all of
them, and a second one stands ready. The seven steps (dedup, policy, exposure, risk, durable intent,
dispatch, commit) run in its engine as in every live process; only the process boundary is here.

Invariants:
1. In this order: the lease, then the order log under a new epoch, then the broker and what it says
   of every order without an end, and only then the first runner is heard.
2. Nothing is sent but through the fence, and a leader whose fence refuses ends: it never leads
   again.
3. While it takes over and while it calls the broker it says how long that may take; beyond that,
   and between, silence of any of its loops is a hung leader.
4. A host without the journal of the last leader is reduce-only until a person confirms.

It is stepped from outside and owns no thread: `gateway.process` does. Operator's page:
`docs/gateway.md`.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import structlog

from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.gateway.channel import (
    ChannelLimits,
    ChannelServer,
    Holdings,
    RemoteAlpha,
)
from hft_platform.gateway.channel_socket import SOCKET_FILE
from hft_platform.gateway.dead_letters import DeadLetters
from hft_platform.gateway.dispatch_latency import DispatchLatency
from hft_platform.gateway.intent_channel import LocalIntentChannel
from hft_platform.gateway.lease import LeadershipFence, Lease, Pulse
from hft_platform.gateway.order_log import OrderLogFollower
from hft_platform.input_records import SOURCE_OPERATOR, CommandKind, command_record

log = structlog.get_logger()

NS = 1_000_000_000
FOLDER = "gateway"
STATUS_FILE = "status.json"
STATUS_EVERY_NS = NS
LOOP_ALLOW_NS = 2 * NS
"""A loop that goes round every tenth of a second has stopped when it took so long."""
TAKEOVER_ALLOW_NS = 120 * NS
REQUEST_WAIT_MS = 100


class Request(Protocol):
    """An approved order or cancel, as the session gives it."""

    @property
    def decided_ns(self) -> int:
        """When it was decided, ns UTC."""


class PlaneSession(Protocol):
    """What the gateway needs of a live session."""

    def push(self, tape: bytes) -> int:
        """Sequence, log and decide."""

    def next_request(self, timeout_ms: int) -> Any:  # Any: a Request, or None
        """Take the next approved request; None when there was none in time."""


class OrderPlane(Protocol):
    """A live session with everything around it: what a leader leads.

    Making one recovers the order log under the lease's epoch: every order without an end is then
    UNKNOWN, and nothing has been sent.
    """

    @property
    def session(self) -> PlaneSession:
        """The live session."""

    @property
    def orders_dir(self) -> Path:
        """``orders`` of the session."""

    @property
    def alphas(self) -> Mapping[str, RemoteAlpha]:
        """Whose intents are taken, by alpha id."""

    @property
    def call_allow_ns(self) -> int:
        """Longest a broker call may take."""

    def idle(self) -> None:
        """Do what waited, between two requests."""

    def startup(self) -> None:
        """Connect the broker and reconcile; returns when orders may be sent."""

    def execute(self, request: Any) -> None:  # Any: the session's request
        """Send one request, once, through the fence."""

    def reconcile(self, now_ns: int) -> None:
        """Ask the broker for what is in doubt, when it is time."""

    def holdings(self) -> Holdings:
        """What questions of runners are answered from."""

    def report_to(self, market: Callable[[bytes], None], event: Callable[[], None]) -> None:
        """Tell of market records, and that something happened to an order."""

    def close(self, *, is_orderly: bool) -> None:
        """Seal the logs, or let go of them as a crash does."""


class State(StrEnum):
    """Where a gateway is."""

    STANDBY = "standby"
    RECOVERING = "recovering"
    RECONCILING = "reconciling"
    SERVING = "serving"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class GatewayClocks:
    """Wall clock for records, CLOCK_BOOTTIME for everything that waits."""

    now_ns: Callable[[], int]
    boottime_ns: Callable[[], int]


class GatewayService:
    """One gateway, standby or leader.

    Parameters
    ----------
    folder : Path
        ``gateway`` of the workspace.
    lease : Lease
        Decides who leads.
    last_epoch : callable
        Highest epoch in the order log.
    make_plane : callable
        Recovers the live session under an epoch and gives it with its fence in front.
    limits : ChannelLimits
        Bounds of the channel.
    clocks : GatewayClocks
        The machine's.
    """

    def __init__(
        self,
        folder: Path,
        lease: Lease,
        *,
        last_epoch: Callable[[], int],
        make_plane: Callable[[int, LeadershipFence], OrderPlane],
        limits: ChannelLimits,
        clocks: GatewayClocks,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.state = State.STANDBY
        self.latency = DispatchLatency()
        self.moments: dict[str, int] = {}
        """CLOCK_BOOTTIME at which each state was reached."""
        self._folder = folder
        self._lease = lease
        self._last_epoch = last_epoch
        self._make_plane = make_plane
        self._limits = limits
        self._clocks = clocks
        self._plane: OrderPlane | None = None
        self._fence: LeadershipFence | None = None
        self._channel: ChannelServer | None = None
        self._local: LocalIntentChannel | None = None
        self._dead_letters = DeadLetters(folder)
        self._pulses: dict[str, Pulse] = {}
        self._status_ns = 0

    def stand_by(self, wait_s: float) -> bool:
        """Try to lead, and wait a little if another one does.

        Parameters
        ----------
        wait_s : float
            Longest wait; the leader's death ends it.

        Returns
        -------
        bool
            True when this process leads.
        """
        if self._lease.try_acquire(self._last_epoch) is None:
            self._lease.wait(wait_s)
            return False
        self._enter(State.RECOVERING)
        self._pulses["takeover"] = self._lease.watch("takeover", TAKEOVER_ALLOW_NS)
        return True

    def take_over(self) -> None:
        """Recover, reconcile, and open the channel.

        Raises
        ------
        PlatformError
            When logs, broker or positions do not let it: nothing was sent.
        """
        self._fence = fence = self._lease.fence()
        self._plane = plane = self._make_plane(self._lease.epoch, fence)
        if getattr(self._lease, "lacks_journal", False):
            log.error("gateway_lacks_journal", epoch=self._lease.epoch)
            plane.session.push(self._reduce_only())
        self._enter(State.RECONCILING)
        plane.startup()
        local = LocalIntentChannel(
            plane.session, OrderLogFollower(plane.orders_dir), clock_ns=self._clocks.now_ns
        )
        local.refresh()
        channel = ChannelServer(
            self._folder / SOCKET_FILE,
            local,
            plane.alphas,
            limits=self._limits,
            holdings=plane.holdings(),
            dead_letters=self._dead_letters,
            epoch=self._lease.epoch,
            session_key=session_key(plane.orders_dir),
            clock_ns=self._clocks.boottime_ns,
        )
        plane.report_to(channel.publish, channel.wake)
        self._local, self._channel = local, channel
        for name in ("channel", "dispatcher"):
            self._pulses[name] = self._lease.watch(name, LOOP_ALLOW_NS)
        self._pulses.pop("takeover").end()
        self._enter(State.SERVING)
        self.write_status()

    def step_channel(self, timeout_s: float) -> None:
        """One round with the runners.

        Parameters
        ----------
        timeout_s : float
            Longest wait for something to do.
        """
        if self._channel is not None:
            self._channel.step(timeout_s)
            self._pulses["channel"].beat()
        if self._clocks.boottime_ns() - self._status_ns >= STATUS_EVERY_NS:
            self.write_status()

    def step_dispatch(self, timeout_ms: int = REQUEST_WAIT_MS) -> bool:
        """Send the next request, if there is one.

        Parameters
        ----------
        timeout_ms : int, optional
            Longest wait for it.

        Returns
        -------
        bool
            True when there was one.

        Raises
        ------
        PlatformError
            GATEWAY_NOT_LEADER or GATEWAY_FENCED: this process has to end.
        """
        plane, fence, pulse = self._plane, self._fence, self._pulses["dispatcher"]
        if plane is None or fence is None:
            raise PlatformError(ReasonCode.GATEWAY_NOT_LEADER, "this gateway does not lead")
        request = plane.session.next_request(timeout_ms)
        fence.check()
        if request is None:
            pulse.beat(plane.call_allow_ns)
            plane.idle()
            pulse.beat()
            return False
        self.latency.observe(self._clocks.now_ns() - int(request.decided_ns))
        pulse.beat(plane.call_allow_ns)
        plane.execute(request)
        pulse.beat()
        return True

    def step_reconcile(self) -> None:
        """Ask the broker for what is in doubt, when it is time."""
        if self._plane is not None:
            self._plane.reconcile(self._clocks.now_ns())

    def heartbeat(self) -> bool:
        """Say that this leader lives, if all its loops do."""
        return self._lease.heartbeat()

    def close(self, *, is_orderly: bool) -> None:
        """End: runners are disconnected, logs sealed or let go of, then the lease.

        Parameters
        ----------
        is_orderly : bool
            False leaves everything as a crash would.
        """
        if self._channel is not None:
            self._channel.close()
        if self._plane is not None:
            self._plane.close(is_orderly=is_orderly)
        self._enter(State.ENDED)
        self.write_status()
        self._channel, self._plane = None, None
        self._lease.release()

    def facts(self) -> dict[str, Any]:
        """What metrics and `hft-live gateway status` read."""
        channel, local = self._channel, self._local
        counts = channel.counts if channel is not None else None
        return {
            "schema": 1,
            "state": self.state.value,
            "pid": os.getpid(),
            "epoch": self._lease.epoch,
            "moments_ns": dict(self.moments),
            "lacks_journal": bool(getattr(self._lease, "lacks_journal", False)),
            "runners": channel.connected if channel is not None else [],
            "intents": counts.intents if counts is not None else 0,
            "acks": counts.acks if counts is not None else 0,
            "rejects": dict(sorted(counts.nacks.items())) if counts is not None else {},
            "unanswered": counts.unanswered if counts is not None else 0,
            "disconnects": dict(sorted(counts.disconnects.items())) if counts is not None else {},
            "market_left_out": counts.market_left_out if counts is not None else 0,
            "orders_canceled": counts.orders_canceled if counts is not None else 0,
            "dedup_hits": local.dedup_hits if local is not None else 0,
            "dead_letters": dict(sorted(self._dead_letters.counts.items())),
            "dispatch_latency": self.latency.as_dict(),
        }

    def write_status(self) -> None:
        """Write the facts beside the lease, for whoever asks."""
        self._status_ns = self._clocks.boottime_ns()
        try:
            self._lease.fence().check()
        except PlatformError:
            # The file belongs to whoever leads.
            return
        atomic_write(self._folder / STATUS_FILE, canonical_json(self.facts()) + b"\n")

    def _enter(self, state: State) -> None:
        self.state = state
        self.moments[state.value] = self._clocks.boottime_ns()
        log.info("gateway_state", state=state.value, epoch=self._lease.epoch)

    def _reduce_only(self) -> bytes:
        # The operator's: only a person lifts it.
        return command_record(
            CommandKind.REDUCE_ONLY,
            self._clocks.now_ns(),
            source_id=SOURCE_OPERATOR,
            reason_code=ReasonCode.SESSION_UNEXPLAINED,
        )


def session_key(orders_dir: Path) -> int:
    """Number that names a session to its runners: the same for every gateway that leads it.

    Parameters
    ----------
    orders_dir : Path
        ``orders`` of the session.
    """
    return (zlib.crc32(orders_dir.resolve().parent.name.encode()) << 16) | 1
