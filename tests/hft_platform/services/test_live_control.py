"""What operator, signer, calendar and machine say reaches the engine as records, and in time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hft_platform import records
from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.config.code_hash import code_sha256
from hft_platform.config.engine_config import AlphaSpec, build_engine_config
from hft_platform.config.keys import trusted_keys
from hft_platform.config.promoted import PromotedConfig
from hft_platform.config.promotion_folder import promotions_root, weight_path, withdrawn_path
from hft_platform.config.settings import load_settings
from hft_platform.errors import ReasonCode
from hft_platform.feed.recording import find_session, load_tape
from hft_platform.input_records import CommandKind, HealthKind, TimerKind, halt_record
from hft_platform.market.instruments import load_instruments
from hft_platform.market.sessions import sessions_for
from hft_platform.recorder.disk_monitor import DiskPressureMonitor
from hft_platform.services import latch
from hft_platform.services.live_control import STEP_NS, ControlledBy, LiveControl
from hft_platform.services.session_governor import SessionGovernor
from tests.hft_platform.services.control_session import ControlSession
from tests.hft_platform.services.live_workspace import (
    ALPHA_ID,
    DAYS,
    SCALE,
    SESSIONS,
    SYMBOL,
    Live,
    open_ns,
)

OPEN_NS = open_ns(DAYS[0])
SECOND = 1_000_000_000
PLACE, APPROVED, FILL = 1, 1, 3


class Controlled:
    """A control over the real engine, in a workspace with a signed config."""

    def __init__(self, live: Live, **changes: Any) -> None:
        self.live = live
        self.free_bytes = 1 << 40
        settings = load_settings(live.ws / "none", environment={})
        instrument = load_instruments().by_symbol(SYMBOL)
        session = sessions_for(instrument, OPEN_NS, OPEN_NS)[0]
        self.config = self.load(live.issue(**changes))
        engine = build_engine_config(
            [AlphaSpec.from_promoted(self.config, SYMBOL)],
            instruments=[instrument],
            session=session,
            account_limits=settings.account_limits(),
            storm_guard=settings.storm_guard(),
        )
        self.session = ControlSession(engine)
        self.control = LiveControl(
            self.session,
            self.config,
            SessionGovernor([instrument]),
            ControlledBy(
                workspace=live.ws,
                session_dir=live.ws / "sessions" / "run",
                load=self.load,
                disk=DiskPressureMonitor(
                    settings.disk_pressure, live.ws, free=lambda _: self.free_bytes
                ),
            ),
            instrument_id=instrument.instrument_id,
        )

    def load(self, path: Path) -> PromotedConfig:
        """Verify as the start does."""
        return PromotedConfig.load_verified(
            path,
            workspace=self.live.ws,
            trusted_keys=trusted_keys(self.live.ws),
            mode="paper",
            now_ns=OPEN_NS,
            symbol=SYMBOL,
            code_sha256=code_sha256(),
        )

    def step(self, seconds: float) -> None:
        """One step so long after the open."""
        self.control.step(OPEN_NS + int(seconds * SECOND))

    def commands(self) -> list[tuple[int, int, int]]:
        """Kind, argument and code of every command."""
        return [
            (int(row["command_kind"]), int(row["argument"]), int(row["reason_code"]))
            for row in self.session.named("Command")
        ]

    def alpha(self) -> dict[str, Any]:
        """The engine's row of the alpha."""
        return dict(self.session.state()["alphas"][0])


@pytest.fixture
def controlled(live: Live) -> Controlled:
    """A second into the session."""
    found = Controlled(live)
    found.step(1)
    return found


def test_a_halt_acts_at_the_next_step_and_a_resume_lifts_it(controlled: Controlled) -> None:
    ws = controlled.live.ws
    latch.halt(ws, who="test", why="feed")
    controlled.step(1.2)
    assert controlled.commands() == [(CommandKind.HALT, 0, ReasonCode.KILL_SWITCH_ON)]
    assert controlled.session.state()["halted_by"] == ReasonCode.KILL_SWITCH_ON
    controlled.step(1.4)
    assert len(controlled.commands()) == 1, "a halt is passed on once"
    latch.resume(ws, token=latch.resume_token(ws) or "")
    controlled.step(1.6)
    assert [kind for kind, _, _ in controlled.commands()[1:]] == [
        CommandKind.RESUME_ARM,
        CommandKind.RESUME_CONFIRM,
    ]
    assert controlled.session.state()["halted_by"] == 0


def test_a_halt_of_the_engine_latches_the_workspace(controlled: Controlled) -> None:
    now = OPEN_NS + 2 * SECOND
    code = int(ReasonCode.STORM_REJECT_RATE)
    controlled.session.push(halt_record(code, now))
    controlled.step(2.2)
    content = latch.read(controlled.live.ws)
    assert content is not None
    assert (content["code"], content["who"]) == (code, "run")


def test_a_halt_that_cannot_be_latched_is_tried_again_and_is_no_resume(
    controlled: Controlled, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    now, code = OPEN_NS + 2 * SECOND, int(ReasonCode.STORM_REJECT_RATE)
    controlled.session.push(halt_record(code, now))
    with monkeypatch.context() as patch:
        patch.setattr(latch, "halt", full)
        controlled.step(2.2)
        controlled.step(2.4)
    assert controlled.session.state()["halted_by"] == code
    controlled.step(2.6)
    content = latch.read(controlled.live.ws)
    assert content is not None
    assert content["code"] == code


def test_a_withdrawal_and_a_smaller_weight_act_at_the_next_step(controlled: Controlled) -> None:
    root = promotions_root(controlled.live.ws)
    atomic_write(
        weight_path(root, ALPHA_ID, 1), canonical_json({"weight_ppm": 250_000}), mode=0o644
    )
    controlled.step(1.2)
    assert controlled.commands() == [(CommandKind.SET_WEIGHT, 250_000, 0)]
    assert controlled.alpha()["weight_ppm"] == 250_000
    atomic_write(withdrawn_path(root, ALPHA_ID, 1), b"{}")
    controlled.step(1.4)
    controlled.step(1.6)
    assert controlled.commands()[1:] == [(CommandKind.WITHDRAW, 0, ReasonCode.CONFIG_WITHDRAWN)]
    assert controlled.alpha()["halted_by"] == ReasonCode.CONFIG_WITHDRAWN


def test_silence_gives_a_timer_a_second_and_a_market_none(controlled: Controlled) -> None:
    for number in range(6, 60):
        controlled.step(number * STEP_NS / SECOND)
    times = [
        int(row["sequence_time_ns"])
        for row in controlled.session.named("Timer")
        if row["timer_kind"] == TimerKind.FEED_SILENT
    ]
    assert len(times) >= 9
    assert max(b - a for a, b in itertools.pairwise(times)) <= SECOND
    count = len(controlled.session.named("Timer"))
    for number in range(60, 120):
        controlled.control.last_market_ns = OPEN_NS + number * STEP_NS
        controlled.step(number * STEP_NS / SECOND)
    assert len(controlled.session.named("Timer")) == count


def test_a_change_of_phase_is_a_record_of_its_own(controlled: Controlled) -> None:
    controlled.control.last_market_ns = OPEN_NS + 569 * SECOND
    controlled.step(569)
    phases = controlled.session.named("Timer")
    controlled.control.last_market_ns = OPEN_NS + 570 * SECOND
    controlled.step(570)
    changed = controlled.session.named("Timer")[len(phases) :]
    assert [int(row["timer_kind"]) for row in changed] == [TimerKind.PHASE]


def market(live: Live) -> Iterator[bytes]:
    """Records of the recorded market, one by one."""
    tape = load_tape(find_session(live.ws, SESSIONS[0], symbol=SYMBOL))
    at = 0
    while at < len(tape):
        size = int.from_bytes(tape[at : at + 2], "little")
        yield tape[at : at + size]
        at += size


def play(controlled: Controlled, tape: Iterator[bytes], until: Callable[[], bool]) -> None:
    """Push the market, and fill every approved order at once, until something holds."""
    session = controlled.session
    for record in tape:
        seen = len(session.decisions)
        session.push(record)
        for row in session.decisions[seen:]:
            if (row["action"], row["verdict"]) == (PLACE, APPROVED):
                fill = records.empty("Broker", 1)
                for name in ("instrument_id", "order_id", "side", "price", "qty"):
                    fill[name] = row[name]
                fill["event_kind"], fill["broker_seq"] = FILL, row["order_id"]
                fill["receive_time_ns"] = row["sequence_time_ns"]
                session.push(fill.tobytes())
        if until():
            return
    raise AssertionError("the recorded market ended")


def test_a_newer_config_raises_the_weight_only_when_flat(live: Live) -> None:
    controlled, tape = Controlled(live), market(live)

    def now_ns() -> int:
        return int(controlled.session.came[-1][1]["sequence_time_ns"])

    controlled.step(0)
    play(controlled, tape, lambda: controlled.alpha()["position_qty"] != 0)
    live.issue(promotion_seq=2, weight_ppm=1_000_000)
    controlled.control.step(now_ns())
    assert len(controlled.session.named("ConfigSwitch")) == 1
    assert controlled.control.config.promotion_seq == 2
    assert abs(controlled.alpha()["position_qty"]) == SCALE, "one lot at half weight"
    assert controlled.alpha()["weight_ppm"] == 500_000, "a position is open: the rise waits"
    play(controlled, tape, lambda: controlled.alpha()["position_qty"] == 0)
    controlled.control.step(now_ns())
    assert controlled.alpha()["weight_ppm"] == 1_000_000
    opened = [row for row in controlled.session.decisions if row["action"] == PLACE][2]
    assert (opened["verdict"], opened["qty"]) == (APPROVED, 2 * SCALE), "two lots at full weight"


def test_a_newer_config_that_decides_otherwise_is_not_taken(controlled: Controlled) -> None:
    controlled.live.issue(promotion_seq=2, parameters={"k": 9.0})
    controlled.step(2.4)
    controlled.step(3.6)
    assert controlled.session.named("ConfigSwitch") == []
    assert controlled.control.config.promotion_seq == 1
    # One that does not verify is none either; a third that fits is taken.
    controlled.live.issue(promotion_seq=3, code_sha256="0" * 64)
    controlled.step(4.8)
    assert controlled.session.named("ConfigSwitch") == []
    controlled.live.issue(promotion_seq=4, weight_ppm=400_000)
    controlled.step(6)
    assert controlled.control.config.promotion_seq == 4
    assert controlled.control.weight_ppm == 400_000


def test_the_worst_of_what_was_measured_is_reported_once_a_second(controlled: Controlled) -> None:
    measured = controlled.control.measured
    measured.loop_lag_ns, measured.order_rtt_ns, measured.order_id = 7_000_000, 900_000_000, 12
    measured.normaliser_failures = 3
    controlled.step(2.2)
    controlled.step(3.4)
    rows = [
        (int(row["health_kind"]), int(row["value"]), int(row["argument"]))
        for row in controlled.session.named("Health")
    ]
    assert rows == [
        (HealthKind.LOOP_LAG, 7_000_000, 0),
        (HealthKind.ORDER_RTT, 900_000_000, 12),
        (HealthKind.NORMALISER_FAILURES, 3, 0),
    ]
    storm = controlled.session.state()["storm"]
    assert storm["state"] != 0, storm


def test_a_disk_that_runs_full_restricts_first_and_halts_then(controlled: Controlled) -> None:
    controlled.free_bytes = 400 << 20
    controlled.step(2.4)
    code = ReasonCode.DISK_SPACE_CRITICAL
    assert controlled.commands() == [(CommandKind.REDUCE_ONLY, 0, code)]
    assert latch.read(controlled.live.ws) is None
    controlled.free_bytes = 100 << 20
    controlled.step(3.6)
    assert controlled.commands()[-1] == (CommandKind.HALT, 0, ReasonCode.DISK_SPACE_HALT)
    content = latch.read(controlled.live.ws)
    assert content is not None
    assert content["code"] == ReasonCode.DISK_SPACE_HALT
