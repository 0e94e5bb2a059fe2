"""What reconciliation writes, held against the real engine: restricted, halted, adopted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hft_platform import _core, records
from hft_platform.config.settings import load_settings
from hft_platform.errors import ReasonCode
from hft_platform.services.operator_requests import OperatorRequest, RequestKind
from tests.hft_platform.execution.reconciliation_model import (
    INSTRUMENT_ID,
    LOT,
    SYMBOL,
    ModelSession,
    World,
)
from tests.rust_core import engine_tapes


class TeeSession(ModelSession):
    """The model, and a real engine that gets every record that it is pushed."""

    def __init__(self, log: list[Any] | None = None) -> None:
        super().__init__(log)
        content = engine_tapes.config("0.0 * microprice_dev", engine_tapes.TAKER)
        content["alphas"][0]["instrument_id"] = INSTRUMENT_ID
        content["instruments"][0]["instrument_id"] = INSTRUMENT_ID
        guard = load_settings(environment={}).storm_guard()
        content["storm_guard"] = engine_tapes.CALM | {"drift_reports": guard["drift_reports"]}
        self.engine = _core.Engine(json.dumps(content))
        self.seq = self.time_ns = 0

    def push(self, tape: bytes) -> int:
        at = 0
        while at < len(tape):
            row = bytearray(tape[at : at + int.from_bytes(tape[at : at + 2], "little")])
            at += len(row)
            if row[2] == records.TYPE_CODES["Route"] and "Route" not in _core.record_layouts():
                continue
            self.seq += 1
            received_ns = int.from_bytes(row[32:40], "little", signed=True)
            self.time_ns = max(self.time_ns + 1, received_ns)
            row[8:16] = self.seq.to_bytes(8, "little")
            row[40:48] = self.time_ns.to_bytes(8, "little")
            self.engine.on_tape(bytes(row))
        return super().push(tape)

    @property
    def policy(self) -> str:
        """Where the engine's policy stands."""
        return str(self.engine.counters()["storm"]["policy"])


@pytest.fixture
def world() -> World:
    """A started world whose records go through a real engine."""
    world = World()
    world.session = TeeSession()
    world._begin()
    assert world.ready()
    return world


def tee(world: World) -> TeeSession:
    """Its session."""
    assert isinstance(world.session, TeeSession)
    return world.session


def dropped(world: World) -> dict[int, int]:
    """Records that the engine did not take, by code."""
    return dict(tee(world).engine.counters()["dropped"])


def test_a_drift_restricts_at_once_halts_at_the_third_report_and_not_before(world: World) -> None:
    session = tee(world)
    world.run(40)
    assert session.policy == "NORMAL"
    world.broker.manual[SYMBOL] = 3 * LOT
    seen: list[str] = []
    for _ in range(120):
        world.run(1)
        if seen[-1:] != [session.policy]:
            seen.append(session.policy)
        if session.policy == "DEGRADED":
            assert world.service.counters()["drift_reports"] < 3
    assert seen == ["NORMAL", "DEGRADED", "HALT"]
    storm = session.engine.counters()["storm"]
    assert storm["cause"] == ReasonCode.STORM_POSITION_DRIFT
    assert dropped(world) == {}, "every record was one that the engine takes"


def test_a_broker_that_cannot_be_asked_restricts_and_never_halts(world: World) -> None:
    session = tee(world)
    world.broker.failing["positions"] = 10**6
    world.run(600)
    assert session.policy == "DEGRADED"
    assert session.engine.counters()["storm"]["cause"] == ReasonCode.STORM_POSITION_DRIFT


def test_the_engine_adopts_what_the_report_says_and_nothing_else(world: World) -> None:
    session = tee(world)
    world.broker.manual[SYMBOL] = -2 * LOT
    world.run(45)
    (drift,) = world.service.report().drifts.values()
    assert drift == -2 * LOT

    def adopt(qty: int) -> None:
        request = OperatorRequest(
            "0001-adopt", RequestKind.ADOPT, "desk", "test", 1, INSTRUMENT_ID, qty
        )
        session.push(request.as_record(world.clock()))

    adopt(2 * LOT)
    assert dropped(world) == {ReasonCode.POSITION_UNRECONCILED: 1}, "another quantity"
    adopt(drift)
    adopt(drift)
    assert dropped(world) == {ReasonCode.POSITION_UNRECONCILED: 2}, "once"
    world.session.external = drift
    world.run(60)
    assert world.kinds() == []
    assert world.drifts()[-1] == (0, 0)


def test_money_and_margin_are_records_that_the_engine_takes(world: World) -> None:
    world.run(120)
    assert dropped(world) == {}
    account = tee(world).engine.counters()["account"]
    assert world.broker.equity in account.values()
