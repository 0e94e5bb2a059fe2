"""Disk and clock drills at their smallest size, and that they can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from hft_platform.drills import disk
from hft_platform.drills.drill import DrillReport, find_drill
from hft_platform.errors import PlatformError, ReasonCode

WHY_NO_MOUNT = disk.why_no_mount()


def failed(report: DrillReport) -> list[str]:
    return [f"{claim.text}: {claim.found}" for claim in report.claims if not claim.holds]


@pytest.mark.skipif(WHY_NO_MOUNT is not None, reason=f"{WHY_NO_MOUNT}")
def test_disk_full(tmp_path: Path) -> None:
    report = find_drill("disk-full").run(tmp_path, 1, 1)
    assert failed(report) == []
    assert len(report.claims) > 12
    assert report.facts["acknowledged"]["market"] > 100


def test_disk_full_says_why_it_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.shutil, "which", lambda _: None)
    with pytest.raises(PlatformError, match="unshare") as caught:
        find_drill("disk-full").run(tmp_path, 1, 1)
    assert caught.value.code == ReasonCode.SETTINGS_INVALID


def test_disk_slow(tmp_path: Path) -> None:
    report = find_drill("disk-slow").run(tmp_path, 1, 1)
    assert failed(report) == []


def test_a_disk_that_is_not_slowed_does_not_pass_as_slow(tmp_path: Path) -> None:
    """Negative control: the claims follow from the delay."""
    report = disk.slowed(tmp_path, 1, 1, sync_ms=(0, 0))
    assert not report.passed


def test_nothing_that_trades_sets_the_drills_delay(repository: Path) -> None:
    named = [
        path
        for path in (repository / "hft_platform").rglob("*.py")
        if "drill_sync_delay" in path.read_text()
    ]
    assert [path.parent.name for path in named] == ["drills"]


def test_clock_jump(tmp_path: Path) -> None:
    report = find_drill("clock-jump").run(tmp_path, 1, 1)
    assert failed(report) == []
