"""Whole sessions under disk pressure: thinned, halted, refused, and never evidence."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hft_platform import records
from hft_platform.cli import main
from hft_platform.config.keys import public_key
from hft_platform.config.settings import load_settings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder import disk_monitor
from hft_platform.recorder.disk_monitor import Level, bounds_of
from hft_platform.services import disk_guard, latch, session_runner
from hft_platform.services.parity import read_session, replay_session
from hft_platform.services.session_summary import verify_summary
from tests.hft_platform.services.live_workspace import MAKER, Live
from tests.hft_platform.services.test_session_runner import at_share

CANCEL, APPROVED, POLICY_CHANGE, HALTED = 2, 1, 17, 2


class Disk:
    """Free space as a test says it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        settings = load_settings(tmp_path / "no-config", environment={}).disk_pressure
        bounds = bounds_of(settings)
        self._free = {Level.OK: 1 << 50}
        self._free |= {level: bound.free_bytes_in - 1 for level, bound in bounds.items()}
        self.level = Level.OK
        monkeypatch.setattr(disk_monitor, "free_bytes", lambda _: self._free[self.level])
        monkeypatch.setattr(disk_guard, "LOOK_SECONDS", 0.0)
        monkeypatch.setattr(session_runner, "STEP_RECORDS", 100)

    def at(self, *turns: tuple[float, Level]) -> Any:
        """A progress callback that changes the level at shares of the recording."""

        def to(level: Level) -> Any:
            return lambda: setattr(self, "level", level)

        calls = [at_share(share, to(level)) for share, level in turns]
        return lambda state: [call(state) for call in calls]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Disk:
    """A disk with room."""
    return Disk(monkeypatch, tmp_path)


def decisions_of(session_dir: Path) -> np.ndarray:
    return np.frombuffer(read_session(session_dir).decisions, dtype=records.DTYPES["Decision"])


def test_a_warning_leaves_the_session_as_it_is(live: Live, disk: Disk) -> None:
    outcome = live.run(live.issue(), progress=disk.at((0.3, Level.WARN)))
    evidence = outcome.summary["evidence"]
    assert (evidence["shed_count"], evidence["shed"], evidence["not_replayable"]) == (0, [], 0)
    assert outcome.parity.is_identical
    assert latch.read(live.ws) is None


def test_a_session_at_critical_is_thinned_says_so_and_is_not_halted(
    live: Live, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = disk.at((0.3, Level.CRITICAL), (0.6, Level.OK))
    outcome = live.run(live.issue(), progress=progress)
    evidence = verify_summary(
        outcome.session_dir / "summary.json", key=public_key(live.ws, "session")
    )
    assert evidence.halted_by == 0
    assert latch.read(live.ws) is None
    logs = read_session(outcome.session_dir)
    assert {one.topic for one in logs.shed} == {"depth"}
    assert evidence.shed_count == sum(one.count for one in logs.shed) > 0
    assert outcome.parity.is_identical
    assert evidence.parity is not None
    assert 0 < evidence.parity.total < decisions_of(outcome.session_dir).size
    again = replay_session(outcome.session_dir, write=False)
    assert again.shed == logs.shed
    main(["replay", outcome.session_dir.name, "--workspace", str(live.ws)])
    assert "cannot be replayed" in capsys.readouterr().out


def test_a_full_disk_halts_on_record_takes_back_what_rests_and_latches(
    live: Live, disk: Disk
) -> None:
    config = live.issue(template=MAKER)
    outcome = live.run(config, progress=disk.at((0.5, Level.HALT)))
    evidence = outcome.summary["evidence"]
    assert evidence["halted_by"] == ReasonCode.DISK_SPACE_HALT
    content = latch.read(live.ws)
    assert content is not None
    assert content["code"] == ReasonCode.DISK_SPACE_HALT
    logs = read_session(outcome.session_dir)
    assert {one.topic for one in logs.shed} == {"books", "trades"}
    made = decisions_of(outcome.session_dir)
    halts = made[(made["action"] == POLICY_CHANGE) & (made["intent_reason"] == HALTED)]
    assert int(halts["reason_code"][0]) == ReasonCode.DISK_SPACE_HALT
    halt_seq = int(halts["input_seq"][0])
    assert halt_seq < min(one.first_seq for one in logs.shed)
    cancels = made[(made["action"] == CANCEL) & (made["verdict"] == APPROVED)]
    assert (cancels["input_seq"] >= halt_seq).any()
    with pytest.raises(PlatformError) as caught:
        live.run(config)
    assert caught.value.code == ReasonCode.KILL_SWITCH_ON


def test_no_session_is_opened_on_a_full_disk(live: Live, disk: Disk) -> None:
    disk.level = Level.HALT
    with pytest.raises(PlatformError) as caught:
        live.run(live.issue())
    assert caught.value.code == ReasonCode.DISK_SPACE_HALT
    assert not (live.ws / "sessions").exists()


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_halt_that_could_not_be_latched_is_found_in_the_order_log(
    live: Live, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = live.issue()
    with monkeypatch.context() as patched, pytest.raises(PlatformError) as caught:
        patched.setattr(latch, "write_once", full)
        live.run(config, progress=disk.at((0.5, Level.HALT)))
    assert caught.value.code == ReasonCode.DISK_SPACE_HALT
    (session_dir,) = (live.ws / "sessions").iterdir()
    assert not (session_dir / "summary.json").exists()
    assert latch.read(live.ws) is None
    disk.level = Level.OK
    with pytest.raises(PlatformError) as caught:
        live.run(config)
    assert caught.value.code == ReasonCode.KILL_SWITCH_ON
    content = latch.read(live.ws)
    assert content is not None
    assert content["code"] == ReasonCode.DISK_SPACE_HALT


def test_a_summary_for_which_there_is_no_room_is_a_refusal_with_a_code(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = live.issue()
    monkeypatch.setattr(session_runner.session_summary, "write_summary", full)
    with pytest.raises(PlatformError) as caught:
        live.run(config)
    assert caught.value.code == ReasonCode.DISK_SPACE_HALT
