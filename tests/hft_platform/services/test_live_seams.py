"""Where the parts of the live process meet: what one knows, the others are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hft_platform import _core, records
from hft_platform.execution.execution_gateway import ExecutionGateway
from hft_platform.input_records import CommandKind, HealthKind
from hft_platform.order.broker import BrokerPosition
from hft_platform.services import operator_requests
from hft_platform.services.broker_probe import ProbedBroker
from hft_platform.services.hft_system import HFTSystem, ThreadPace
from hft_platform.services.operator_requests import RequestKind
from hft_platform.services.rehearsal import JOURNAL_FILE, JournaledExchange
from tests.hft_platform.services.live_process import LiveProcess
from tests.hft_platform.services.live_workspace import SESSIONS, SYMBOL

REHEARSAL = ("--broker", "paper", "--session", SESSIONS[0], "--speed", "max")
LOT = 100_000_000
PLACE, ENTRY, APPROVED = 1, 1, 1


def folder_of(process: LiveProcess) -> Path:
    """The one session's."""
    (folder,) = (process.live.ws / "rehearsals").iterdir()
    return folder


def placed_count(folder: Path) -> int:
    """Orders that reached the exchange."""
    path = folder / JOURNAL_FILE
    lines = path.read_text().splitlines() if path.exists() else []
    return sum(json.loads(line)["kind"] == "place" for line in lines)


def logged(folder: Path, name: str) -> Any:
    """Records of a type in the order log."""
    return records.split(_core.read_log(str(folder / "orders"))["tape"])[name]


def at_every_step(process: LiveProcess, look: Callable[[HFTSystem], None]) -> None:
    """Look at the system before each of its steps."""
    step = HFTSystem.step

    def looked_at(self: HFTSystem, now_ns: int) -> None:
        look(self)
        step(self, now_ns)

    process.patch.setattr(HFTSystem, "step", looked_at)


def test_a_stop_restricts_until_the_next_start(process: LiveProcess) -> None:
    def stop(system: HFTSystem) -> None:
        if placed_count(system.parts.session_dir) >= 3:
            system.ask_stop()

    at_every_step(process, stop)
    code, content = process.run(process.issue(stage="shadow"), *REHEARSAL)
    assert content["stopped_early"], (code, content)
    folder = folder_of(process)
    commands = logged(folder, "Command")
    kinds = [int(kind) for kind in commands["command_kind"]]
    assert CommandKind.REDUCE_ONLY in kinds
    behind = kinds[kinds.index(CommandKind.REDUCE_ONLY) :]
    assert CommandKind.RESUME_CONFIRM not in behind, "the stop was lifted while it went on"
    restricted_seq = commands["input_seq"][kinds.index(CommandKind.REDUCE_ONLY)]
    rows = logged(folder, "Decision")
    entries = rows[
        (rows["action"] == PLACE) & (rows["intent_reason"] == ENTRY) & (rows["verdict"] == APPROVED)
    ]
    assert entries.size >= 1
    assert entries["input_seq"].max() < restricted_seq


def test_the_brokers_daily_limits_keep_orders_in(process: LiveProcess) -> None:
    asked: list[str] = []

    def limits(_: JournaledExchange, symbol: str) -> tuple[int, int]:
        asked.append(symbol)
        return LOT, LOT

    process.patch.setattr(JournaledExchange, "daily_limits", limits, raising=False)
    assert process.run(process.issue(stage="shadow"), *REHEARSAL)[0] == 0
    assert set(asked) == {SYMBOL}
    assert placed_count(folder_of(process)) == 0


def test_late_reports_are_looked_for_and_unreadable_quotes_are_told(process: LiveProcess) -> None:
    looks: list[int] = []
    step = ExecutionGateway.step

    def counted(self: ExecutionGateway, now_ns: int) -> None:
        looks.append(now_ns)
        step(self, now_ns)

    process.patch.setattr(ExecutionGateway, "step", counted)
    process.patch.setattr(
        JournaledExchange, "unreadable_quotes", lambda _: min(len(looks), 2), raising=False
    )
    assert process.run(process.issue(stage="shadow"), *REHEARSAL)[0] == 0
    assert len(looks) > 100
    told = logged(folder_of(process), "Health")
    told = told[told["health_kind"] == HealthKind.NORMALISER_FAILURES]
    assert told["value"].sum() == 2, "each of them once"


def test_what_was_adopted_is_no_drift_at_the_end(process: LiveProcess) -> None:
    positions = JournaledExchange.positions

    def with_stranger(self: JournaledExchange) -> list[BrokerPosition]:
        held = {row.symbol: row.net_qty for row in positions(self)}
        return [BrokerPosition(SYMBOL, held.get(SYMBOL, 0) + 2 * LOT)]

    process.patch.setattr(JournaledExchange, "positions", with_stranger)
    asked: list[HFTSystem] = []

    def adopt(system: HFTSystem) -> None:
        if not asked:
            asked.append(system)
            (instrument_id,) = system.parts.instruments
            operator_requests.ask(
                system.parts.session_dir, RequestKind.ADOPT, who="t", why="overnight", since_ns=1,
                instrument_id=instrument_id, argument=2 * LOT,
            )  # fmt: skip

    at_every_step(process, adopt)
    code, content = process.run(process.issue(stage="shadow"), *REHEARSAL)
    assert code == 0, content
    assert content["report"]["is_explained"]
    assert placed_count(folder_of(process)) > 3, "it was lifted when the position was explained"


def test_a_broker_with_a_session_is_looked_after(monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        name = "has a session"
        looks: list[int] = []  # noqa: RUF012  # of a test

        def look_after(self, now_ns: int) -> None:
            self.looks.append(now_ns)

    session: Any = Session()
    ProbedBroker(session, lambda: 5).look_after()
    assert session.looks == [5]
    plain: Any = type("Plain", (), {"name": "has none"})()
    ProbedBroker(plain, lambda: 5).look_after()

    monkeypatch.setattr("hft_platform.services.hft_system.UPKEEP_S", 0.005)
    parts: Any = type("Parts", (), {})()
    parts.broker = ProbedBroker(session, lambda: 7)
    parts.dispatcher = type("D", (), {"run": staticmethod(lambda stop: stop.wait())})()
    parts.reconciler = type("R", (), {"step": staticmethod(lambda: None)})()
    system: Any = type("S", (), {"parts": parts, "fail": staticmethod(pytest.fail)})()
    pace = ThreadPace()
    pace.start(system)
    pace._stop.wait(0.2)
    pace.stop()
    assert session.looks.count(7) > 1
