"""The guard: what a level of disk pressure puts into a session, in which order, and how often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hft_platform.config.settings import DiskPressure, load_settings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.input_records import ALL_ALPHAS, CommandKind
from hft_platform.recorder import disk_monitor
from hft_platform.recorder.disk_monitor import Level, bounds_of
from hft_platform.services.disk_guard import DiskGuard, require_space

CRITICAL, FULL = int(ReasonCode.DISK_SPACE_CRITICAL), int(ReasonCode.DISK_SPACE_HALT)


class Paper:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.shedding_count = 0
        self.space_ahead = True

    def logs(self) -> dict[str, Any]:
        """As the core gives it."""
        counts = {"depth": 0, "books": 0, "trades": 0}
        return {
            "market_bytes": 0,
            "orders_bytes": 0,
            "shed": counts,
            "shedding_count": self.shedding_count,
            "space_ahead": self.space_ahead,
        }

    def command(self, kind: int, alpha_index: int, argument: int, reason: int) -> int:
        """Note it."""
        self.calls.append(("command", kind, alpha_index, argument, reason))
        return len(self.calls)

    def shed(self, up_to: str | None, level: int, reason: int) -> None:
        """Note it."""
        self.shedding_count = int(up_to is not None)
        self.calls.append(("shed", up_to, level, reason))


class Disk:
    """A disk with a level, a session on it, and a second that passes at every look."""

    def __init__(self, settings: DiskPressure) -> None:
        self.paper = Paper()
        self.level = Level.OK
        self.now_s = 0.0
        bounds = bounds_of(settings)
        self.free = {Level.OK: 1 << 50} | {lv: b.free_bytes_in - 1 for lv, b in bounds.items()}
        self.guard = DiskGuard(
            self.paper,
            settings,
            Path(),
            run_id="run",
            monotonic=lambda: self.now_s,
            is_paced=False,
            free=lambda _: self.free[self.level],
        )

    def look(self, level: Level, *, is_halted: bool = False) -> tuple[bool, list[tuple[Any, ...]]]:
        """Look at a disk of this level: whether it halted, and what it called."""
        self.level = level
        self.now_s += 1.0
        before = len(self.paper.calls)
        return self.guard.look(is_halted=is_halted), self.paper.calls[before:]


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """A disk with room, thresholds as packaged."""
    return Disk(load_settings(tmp_path, environment={}).disk_pressure)


def test_a_warning_changes_nothing_in_the_session(disk: Disk) -> None:
    assert disk.look(Level.WARN) == (False, [])
    assert disk.guard.level == Level.WARN
    assert disk.guard.level_changes == 1


def test_critical_sheds_once_and_ends_with_the_level(disk: Disk) -> None:
    assert disk.look(Level.CRITICAL) == (False, [("shed", "depth", 2, CRITICAL)])
    assert disk.look(Level.CRITICAL) == (False, [])
    assert disk.look(Level.OK) == (False, [("shed", None, 0, CRITICAL)])
    assert disk.look(Level.OK) == (False, [])


def test_a_full_disk_halts_before_it_sheds_and_only_once(disk: Disk) -> None:
    halted, calls = disk.look(Level.HALT)
    assert halted
    assert calls == [
        ("command", CommandKind.HALT, ALL_ALPHAS, 0, FULL),
        ("shed", "trades", 3, FULL),
    ]
    assert disk.look(Level.HALT, is_halted=True) == (False, [])


def test_a_segment_that_could_not_be_reserved_halts_whatever_the_disk_says(disk: Disk) -> None:
    disk.look(Level.OK)
    disk.paper.space_ahead = False
    disk.now_s -= 1.0  # It does not wait for the next second.
    halted, calls = disk.look(Level.OK)
    assert halted
    assert [call[0] for call in calls] == ["command", "shed"]


def test_a_resume_while_the_disk_is_full_halts_again(disk: Disk) -> None:
    disk.look(Level.HALT)
    disk.paper.shedding_count = 0  # A resume ends what is left out.
    assert disk.look(Level.HALT) == (
        True,
        [("command", CommandKind.HALT, ALL_ALPHAS, 0, FULL), ("shed", "trades", 3, FULL)],
    )


def test_a_session_that_is_halted_already_is_thinned_without_a_second_halt(disk: Disk) -> None:
    assert disk.look(Level.HALT, is_halted=True) == (False, [("shed", "trades", 3, FULL)])


def test_it_looks_once_a_second(disk: Disk) -> None:
    disk.look(Level.OK)
    disk.level = Level.HALT
    disk.now_s += 0.9
    assert disk.guard.look(is_halted=False) is False
    assert disk.paper.calls == []
    disk.now_s += 0.1
    assert disk.guard.look(is_halted=False) is True


def test_no_session_starts_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(tmp_path, environment={}).disk_pressure
    require_space(settings, tmp_path)
    monkeypatch.setattr(disk_monitor, "free_bytes", lambda _: settings.halt.free_bytes_in - 1)
    with pytest.raises(PlatformError) as caught:
        require_space(settings, tmp_path)
    assert caught.value.code == ReasonCode.DISK_SPACE_HALT
