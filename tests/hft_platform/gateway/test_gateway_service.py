"""GatewayService: the order of a takeover, the fence, hung loops, status and metrics."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hft_platform import records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.gateway import wire
from hft_platform.gateway.channel import ChannelLimits, Holdings
from hft_platform.gateway.gateway_service import GatewayClocks, GatewayService, State
from hft_platform.gateway.lease import LeaderLease, LeadershipFence
from hft_platform.gateway.order_log import OrderLogFollower, each_record
from hft_platform.observability.exporter import WorkspaceCollector
from tests.hft_platform.gateway.channel_gateway import NS, RawRunner, alphas
from tests.hft_platform.gateway.engine_session import EngineSession
from tests.hft_platform.observability.test_exporter import scrape

MS = 1_000_000


class Boot:
    """CLOCK_BOOTTIME of a test."""

    def __init__(self) -> None:
        self.now_ns = 1_000 * NS

    def __call__(self) -> int:
        return self.now_ns


@dataclass
class Sent:
    """What reached the broker, by gateway epoch."""

    calls: list[tuple[int, int]]


class Plane:
    """The test session with a broker that only takes notes."""

    call_allow_ns = 6 * NS

    def __init__(self, folder: Path, epoch: int, fence: LeadershipFence, world: World) -> None:
        self.session = EngineSession(folder, epoch=epoch)
        self.session.next_request = self._next_request  # type: ignore[attr-defined]
        self.orders_dir = folder / "orders"
        self.alphas = alphas()
        self.world = world
        self._epoch = epoch
        self._fence = fence
        self._taken = 0
        world.steps.append(f"recovered {epoch}")

    def _next_request(self, timeout_ms: int) -> Any:
        if self._taken == len(self.session.requests):
            return None
        request = self.session.requests[self._taken]
        self._taken += 1
        return SimpleNamespace(decided_ns=self.session.now_ns - 3 * MS, **request)

    def startup(self) -> None:
        self.world.steps.append("reconciled")
        if self.world.startup_fails is not None:
            raise self.world.startup_fails

    def idle(self) -> None:
        """Nothing waits."""

    def execute(self, request: Any) -> None:
        self._fence.check()
        self.world.on_call()
        self.world.calls.append((self._epoch, int(request.order_id)))

    def reconcile(self, now_ns: int) -> None:
        self.world.steps.append("asked")

    def holdings(self) -> Holdings:
        return Holdings(lambda _: {}, lambda: (0, False, 0, 0))

    def report_to(self, market: Callable[[bytes], None], event: Callable[[], None]) -> None:
        self.world.steps.append("told where to report")

    def close(self, *, is_orderly: bool) -> None:
        self.session.close()
        self.world.steps.append("sealed" if is_orderly else "let go")


class World:
    """Gateways of one workspace."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.folder = workspace / "gateway"
        self.boot = Boot()
        self.steps: list[str] = []
        self.calls: list[tuple[int, int]] = []
        self.startup_fails: PlatformError | None = None
        self.on_call: Callable[[], None] = lambda: None
        self.planes: deque[Plane] = deque()

    def service(self, lease: Any = None) -> GatewayService:
        lease = lease or LeaderLease(self.folder, clock_ns=self.boot)

        def make(epoch: int, fence: LeadershipFence) -> Plane:
            self.planes.append(Plane(self.workspace / "session", epoch, fence, self))
            return self.planes[-1]

        return GatewayService(
            self.folder,
            lease,
            last_epoch=lambda: 0,
            make_plane=make,
            limits=ChannelLimits(8, NS, 5 * NS, "cancel"),
            clocks=GatewayClocks(lambda: self.planes[-1].session.now_ns, self.boot),
        )

    def leading(self) -> GatewayService:
        service = self.service()
        assert service.stand_by(0.0)
        service.take_over()
        return service

    def runner(self, service: GatewayService, alpha: int = 0) -> RawRunner:
        side = SimpleNamespace(
            folder=self.folder, now_ns=self.boot.now_ns, step=lambda n=1: steps(service, n)
        )
        runner = RawRunner(side, alpha, hello=False)  # type: ignore[arg-type]
        runner.say(wire.hello(wire.Hello(f"runner_{alpha}", bytes(range(32)), 3, 0, 0)))
        steps(service, 1)
        return runner


def steps(service: GatewayService, count: int) -> None:
    for _ in range(count):
        service.step_channel(0.0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_nothing_is_served_before_the_log_is_recovered_and_the_broker_asked(world: World) -> None:
    service = world.service()
    assert service.state is State.STANDBY
    assert service.stand_by(0.0)
    assert not (world.folder / "channel.sock").exists()
    service.take_over()
    assert world.steps == ["recovered 1", "reconciled", "told where to report"]
    assert service.state is State.SERVING
    service.close(is_orderly=True)
    assert world.steps[-1] == "sealed"


def test_a_standby_waits_and_leads_when_the_leader_lets_go(world: World) -> None:
    leader, standby = world.leading(), world.service()
    assert not standby.stand_by(0.0)
    leader.close(is_orderly=True)
    assert standby.stand_by(0.0)
    standby.take_over()
    assert standby.facts()["epoch"] == 2
    standby.close(is_orderly=True)


def test_a_gateway_that_cannot_reconcile_serves_nobody(world: World) -> None:
    world.startup_fails = PlatformError(ReasonCode.POSITION_DRIFT, "the broker holds another one")
    service = world.service()
    service.stand_by(0.0)
    with pytest.raises(PlatformError) as raised:
        service.take_over()
    assert raised.value.code == ReasonCode.POSITION_DRIFT
    assert not (world.folder / "channel.sock").exists()
    service.close(is_orderly=False)
    assert world.steps[-1] == "let go"
    assert world.service().stand_by(0.0)


def test_an_intent_goes_from_a_runner_to_the_broker_once(world: World) -> None:
    service = world.leading()
    runner = world.runner(service)
    runner.place(1)
    assert [kind.name for kind, _ in runner.heard()] == ["WELCOME", "ACK"]
    assert service.step_dispatch(0)
    assert not service.step_dispatch(0)
    assert world.calls == [(1, 1)]
    facts = service.facts()
    assert (facts["intents"], facts["acks"], facts["runners"]) == (1, 1, ["runner_0"])
    assert sum(facts["dispatch_latency"]["counts"]) == 1
    assert facts["dispatch_latency"]["sum_ns"] == 3 * MS
    service.close(is_orderly=True)


def test_a_leader_whose_lease_was_touched_sends_nothing_and_must_end(world: World) -> None:
    service = world.leading()
    runner = world.runner(service)
    runner.place(1)
    runner.heard()
    (world.folder / "leader.lease").unlink()
    with pytest.raises(PlatformError) as raised:
        service.step_dispatch(0)
    assert raised.value.code == ReasonCode.GATEWAY_FENCED
    assert world.calls == []
    status = (world.folder / "status.json").read_bytes()
    service.close(is_orderly=False)
    assert (world.folder / "status.json").read_bytes() == status, "a fenced leader says no more"


def test_what_was_not_sent_before_a_takeover_is_not_sent_after_it(world: World) -> None:
    """An intent without an end is UNKNOWN for the next leader: it asks, and never sends again."""
    service = world.leading()
    runner = world.runner(service)
    runner.place(1)
    runner.place(2)
    runner.heard()
    assert service.step_dispatch(0)
    service.close(is_orderly=False)
    following = world.leading()
    assert following.facts()["epoch"] == 2
    assert world.planes[-1].session.recovered["unknown_orders"] == 2
    again = world.runner(following)
    again.place(1)
    again.place(2)
    assert [kind.name for kind, _ in again.heard()] == ["WELCOME", "ACK", "ACK"]
    assert not following.step_dispatch(0)
    assert world.calls == [(1, 1)]
    following.close(is_orderly=True)


@pytest.mark.parametrize("loop", ["channel", "dispatcher"])
def test_a_loop_that_stands_still_stops_the_heartbeat(world: World, loop: str) -> None:
    service = world.leading()
    for _ in range(5):
        world.boot.now_ns += NS
        if loop != "channel":
            service.step_channel(0.0)
        if loop != "dispatcher":
            service.step_dispatch(0)
    assert not service.heartbeat()
    service.close(is_orderly=False)


def test_a_slow_broker_call_is_no_hung_leader_and_an_endless_one_is(world: World) -> None:
    service = world.leading()
    runner = world.runner(service)
    runner.place(1)
    runner.heard()
    beats: list[bool] = []

    def slow() -> None:
        for seconds in (5, 2):
            world.boot.now_ns += seconds * NS
            service.step_channel(0.0)
            beats.append(service.heartbeat())

    world.on_call = slow
    service.step_dispatch(0)
    assert beats == [True, False]
    assert service.heartbeat()
    service.close(is_orderly=False)


def test_a_host_without_the_last_leaders_journal_opens_nothing(world: World) -> None:
    lease = LeaderLease(world.folder, clock_ns=world.boot)
    lease.lacks_journal = True  # type: ignore[attr-defined]  # what RedisLease says of itself
    service = world.service(lease)
    service.stand_by(0.0)
    service.take_over()
    runner = world.runner(service)
    runner.place(1)
    nacks = [body for kind, body in runner.heard() if kind.name == "NACK"]
    assert [nack.code for nack in nacks] == [ReasonCode.REDUCE_ONLY_ON]
    log = OrderLogFollower(world.workspace / "session" / "orders").poll()
    commands = [
        record for code, record in each_record(log) if code == records.TYPE_CODES["Command"]
    ]
    assert len(commands) == 1
    service.close(is_orderly=True)


def test_metrics_are_those_of_the_gateway(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from hft_platform.observability import readings

    monkeypatch.setattr(readings, "boottime_ns", world.boot)
    service = world.leading()
    runner = world.runner(service)
    runner.place(1)
    runner.place(1)
    runner.place(2, qty=1 << 40)
    runner.place(3, sent_ns=0)
    runner.heard()
    runner.heard()
    service.step_dispatch(0)
    service.write_status()
    world.boot.now_ns += 7 * NS
    found = scrape(WorkspaceCollector(world.workspace, pressure_level=lambda _: 0))
    assert found["hft_gateway_leader_epoch"] == {(): 1.0}
    assert found["hft_gateway_heartbeat_age_seconds"] == {(): 7.0}
    assert found["hft_gateway_runners"] == {(): 1.0}
    assert found["hft_gateway_dedup_hits_total"] == {(): 1.0}
    assert found["hft_gateway_reject_total"] == {
        ("INTENT_EXPIRED",): 1.0, ("ORDER_QTY_ABOVE_LIMIT",): 1.0,
    }  # fmt: skip
    assert found["hft_gateway_dead_letters_total"] == {("INTENT_EXPIRED",): 1.0}
    buckets = found["hft_gateway_dispatch_latency_ns_bucket"]
    assert (buckets[("2500000",)], buckets[("5000000",)], buckets[("+Inf",)]) == (0.0, 1.0, 1.0)
    assert found["hft_gateway_dispatch_latency_ns_sum"] == {(): 3e6}
    service.close(is_orderly=True)
    found = scrape(WorkspaceCollector(world.workspace, pressure_level=lambda _: 0))
    assert "hft_gateway_heartbeat_age_seconds" not in found, "nobody leads, nobody is late"
    assert json.loads((world.folder / "status.json").read_bytes())["state"] == "ended"
