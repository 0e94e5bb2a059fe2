"""LivePlane: the live session behind a gateway, with its halts, doubts and restarts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.config.canonical import canonical_json
from hft_platform.drills import gateway_session
from hft_platform.drills.gateway_session import (
    ALPHAS,
    CALLS_FILE,
    INTENT_TTL_NS,
    PRICE,
    SCALE,
    DrillPlane,
    drill_engine_config,
    read_calls,
)
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.gateway import wire
from hft_platform.gateway.channel import ChannelLimits
from hft_platform.gateway.gateway_service import GatewayClocks, GatewayService
from hft_platform.gateway.lease import LeaderLease, boottime_ns
from hft_platform.gateway.order_log import OrderLogFollower, last_epoch
from hft_platform.input_records import CommandKind
from hft_platform.order.broker import CallResult, OrderTicket, Outcome
from hft_platform.services import latch
from tests.hft_platform.gateway.channel_gateway import RawRunner, drained, until

NS = 1_000_000_000
MS = 1_000_000


class World:
    """Gateways over one drill folder, stepped by hand, on a clock of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config, self.instrument_id, self.now_ns = drill_engine_config(folder)
        self.call: Callable[[FileCall], CallResult] = lambda call: call.through()
        self.planes: list[DrillPlane] = []
        self.services: list[GatewayService] = []

    def clock_ns(self) -> int:
        self.now_ns += 1_000
        return self.now_ns

    def lead(self, lease: Any = None) -> GatewayService:
        folder = self.folder / "gateway"

        def make(epoch: int, fence: Any) -> DrillPlane:
            plane = DrillPlane(
                self.folder, epoch, fence, config=self.config, clock_ns=self.clock_ns
            )
            place = plane._drill_broker.place
            plane._drill_broker.place = lambda ticket: self.call(FileCall(ticket, place))  # type: ignore[method-assign]
            self.planes.append(plane)
            return plane

        service = GatewayService(
            folder,
            lease or LeaderLease(folder),
            last_epoch=lambda: last_epoch(self.folder / "session" / "orders"),
            make_plane=make,
            limits=ChannelLimits(8, NS, 5 * NS, "cancel"),
            clocks=GatewayClocks(self.clock_ns, boottime_ns),
        )
        assert service.stand_by(0.0)
        service.take_over()
        self.services.append(service)
        return service

    def runner(self, service: GatewayService) -> Runner:
        return Runner(self, service)

    def settle(self, service: GatewayService) -> None:
        """Let time pass until everything in doubt was asked for twice."""
        for _ in range(12):
            self.now_ns += 200 * MS
            service.step_reconcile()

    def close(self) -> None:
        for service in self.services:
            service.close(is_orderly=False)

    def calls(self) -> list[tuple[int, int]]:
        return read_calls(self.folder / CALLS_FILE)


class FileCall:
    """A broker call that a test lets through, or not."""

    def __init__(self, ticket: OrderTicket, place: Callable[[OrderTicket], CallResult]) -> None:
        self.ticket = ticket
        self.through = lambda: place(ticket)


class Runner(RawRunner):
    """A runner of the drill's first alpha."""

    def __init__(self, world: World, service: GatewayService) -> None:
        self.world, self.service = world, service
        self._events: list[Any] = []
        self.folder = world.folder / "gateway"
        super().__init__(self, hello=False)  # type: ignore[arg-type]
        self.say(wire.hello(wire.Hello(ALPHAS[0], gateway_session.CONFIG_SHA256, 1, 0, 0)))
        self.step(3)
        assert [kind.name for kind, _ in drained(self)][:1] == ["WELCOME"]

    @property
    def now_ns(self) -> int:
        return boottime_ns()

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self.service.step_channel(0.0)

    def events(self, count: int) -> list[Any]:
        """So many events, as soon as they are durable."""
        until(lambda: self._hear() >= count, f"{count} events")
        return self._events

    def _hear(self) -> int:
        self._events += [body for kind, body in self.heard() if kind.name == "EVENT"]
        return len(self._events)

    def order(self, number: int, **fields: int) -> int:
        """Place an order; the code with which it was refused, 0 when it was taken."""
        self.place(
            number,
            instrument_id=self.world.instrument_id,
            price=PRICE,
            ttl_ns=INTENT_TTL_NS,
            **fields,
        )
        code: int | None = None
        for kind, body in self.heard():
            if kind.name == "EVENT":
                self._events.append(body)
            elif kind.name in ("ACK", "NACK"):
                code = int(getattr(body, "code", 0))
        assert code is not None, "no answer"
        return code


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def test_an_order_reaches_the_broker_and_its_end_comes_back(world: World) -> None:
    service = world.lead()
    runner = world.runner(service)
    assert runner.order(1) == 0
    assert service.step_dispatch(0)
    assert world.calls() == [(1, 1)]
    (event,) = runner.events(1)
    row = records.split(event.record)["Broker"][0]
    assert (int(row["event_kind"]), event.external_id) == (3, 1)
    assert world.planes[0].holdings().positions(0) == {world.instrument_id: SCALE}
    assert world.planes[0].holdings().positions(1) == {world.instrument_id: 0}


def test_a_doubt_counts_in_full_until_it_is_resolved_and_is_never_sent_again(world: World) -> None:
    service = world.lead()
    runner = world.runner(service)
    assert runner.order(1) == 0
    service.step_dispatch(0)
    assert runner.order(2) == 0
    world.call = lambda _: CallResult(Outcome.AMBIGUOUS, code=ReasonCode.BROKER_TIMEOUT)
    service.step_dispatch(0)
    world.call = lambda call: call.through()
    # It counts in full: a lot is held, a lot is in doubt.
    (row,) = [row for row in world.planes[0].session.orders() if row["state"] == "unknown"]
    assert row["qty"] == SCALE
    world.settle(service)
    # Not found twice: given up, never sent, and the runner is told.
    ends = [records.split(event.record)["Broker"][0] for event in runner.events(3)]
    assert int(ends[-1]["reason_code"]) == ReasonCode.INTENT_ABANDONED
    assert world.calls() == [(1, 1)]


def test_a_takeover_restricts_until_every_order_is_explained_and_then_lifts_itself(
    world: World,
) -> None:
    service = world.lead()
    runner = world.runner(service)
    assert runner.order(1) == 0
    service.step_dispatch(0)
    assert runner.order(2) == 0  # never dispatched
    service.close(is_orderly=False)
    following = world.lead()
    assert following.facts()["epoch"] == 2
    runner = world.runner(following)
    assert runner.order(3) == ReasonCode.REDUCE_ONLY_ON
    world.settle(following)
    assert runner.order(4) == 0
    while following.step_dispatch(0):
        continue
    orders = [order for _, order in world.calls()]
    assert len(orders) == len(set(orders)) == 2
    assert not any(row["state"] == "unknown" for row in world.planes[-1].session.orders())


def test_what_a_person_restricted_stays_restricted_over_a_takeover(world: World) -> None:
    service = world.lead()
    runner = world.runner(service)
    assert runner.order(1) == 0
    service.step_dispatch(0)
    assert runner.order(2) == 0
    world.planes[0]._command(CommandKind.REDUCE_ONLY, source=5)
    service.close(is_orderly=False)
    following = world.lead()
    world.settle(following)
    runner = world.runner(following)
    assert runner.order(3) == ReasonCode.REDUCE_ONLY_ON


def test_a_halt_of_the_workspace_holds_the_gateway_and_its_end_lets_go(world: World) -> None:
    service = world.lead()
    runner = world.runner(service)
    assert runner.order(1) == 0
    service.step_dispatch(0)
    assert runner.order(2) == 0
    latch.halt(world.folder, who="test", why="drill")
    # Between decision and call: the order never leaves.
    service.step_dispatch(0)
    assert world.calls() == [(1, 1)]
    service.step_reconcile()
    assert runner.order(3) == ReasonCode.KILL_SWITCH_ON
    token = latch.resume_token(world.folder)
    assert token is not None
    latch.resume(world.folder, token=token)
    service.step_reconcile()
    # The halt closes the position; that order goes its way first.
    while service.step_dispatch(0):
        continue
    assert runner.order(4) == 0


def test_a_host_without_the_journal_opens_only_after_a_person_halted_and_resumed(
    world: World,
) -> None:
    lease = LeaderLease(world.folder / "gateway")
    lease.lacks_journal = True  # type: ignore[attr-defined]  # what RedisLease says of itself
    service = world.lead(lease)
    world.settle(service)
    runner = world.runner(service)
    assert runner.order(1) == ReasonCode.REDUCE_ONLY_ON
    latch.halt(world.folder, who="person", why="the other host is looked at")
    service.step_reconcile()
    token = latch.resume_token(world.folder)
    assert token is not None
    latch.resume(world.folder, token=token)
    service.step_reconcile()
    assert runner.order(2) == 0


def test_epochs_are_in_the_log_and_an_old_one_cannot_open_it(world: World) -> None:
    service = world.lead()
    runner = world.runner(service)
    assert runner.order(1) == 0
    service.close(is_orderly=False)
    world.lead()
    tape = OrderLogFollower(world.folder / "session" / "orders").poll()
    epochs = records.split(tape)["Epoch"]["epoch"].tolist()
    assert epochs == [1, 2]
    world.services[-1].close(is_orderly=False)
    with pytest.raises(PlatformError):
        DrillPlane(
            world.folder, 2, LeaderLease(world.folder / "other"),  # type: ignore[arg-type]
            config=world.config, clock_ns=world.clock_ns,
        )  # fmt: skip


def test_the_gateways_log_is_decided_again_bit_for_bit(world: World) -> None:
    service = world.lead()
    runner = world.runner(service)
    for number in range(1, 6):
        assert runner.order(number) in (0, ReasonCode.POSITION_ABOVE_LIMIT)
        service.step_dispatch(0)
    service.close(is_orderly=True)
    inputs, decisions = _core.merge_logs(*(
        _core.read_log(str(world.folder / "session" / name))["tape"]
        for name in ("market", "orders")
    ))  # fmt: skip
    assert _core.replay(canonical_json(world.config).decode(), inputs) == decisions
    rows = np.frombuffer(decisions, dtype=records.DTYPES["Decision"])
    assert int((rows["verdict"] == 1).sum()) == 5


@pytest.mark.parametrize("source", [1, 4, 6])
def test_a_halt_that_no_person_ordered_is_latched_and_outlives_a_takeover(
    world: World, source: int
) -> None:
    service = world.lead()
    code = int(ReasonCode.ACCOUNT_DAILY_LOSS_REACHED)
    world.planes[0]._command(CommandKind.HALT, source=source, reason_code=code)
    # It dies before it could say so in the workspace.
    service.close(is_orderly=False)
    assert latch.read(world.folder) is None
    following = world.lead()
    world.settle(following)
    content = latch.read(world.folder)
    assert content is not None
    assert content["code"] == code
    assert world.planes[-1].session.state()["halted_by"] == code
    runner = world.runner(following)
    assert runner.order(1) == ReasonCode.KILL_SWITCH_ON
    token = latch.resume_token(world.folder)
    assert token is not None
    latch.resume(world.folder, token=token)
    following.step_reconcile()
    assert runner.order(2) == 0


def test_a_halt_that_cannot_be_latched_is_no_resume(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = world.lead()

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space")

    code = int(ReasonCode.ACCOUNT_DAILY_LOSS_REACHED)
    with monkeypatch.context() as patched:
        patched.setattr(latch, "halt", full)
        world.planes[0]._command(CommandKind.HALT, reason_code=code)
        world.settle(service)
        assert world.planes[0].session.state()["halted_by"] == code
    assert latch.read(world.folder) is None
    service.step_reconcile()
    assert latch.read(world.folder) is not None
