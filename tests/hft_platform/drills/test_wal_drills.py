"""The drills of the log and of the backup, at the size that every test run can afford."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hft_platform import cli
from hft_platform.drills.drill import find_drill
from hft_platform.drills.wal import KILLS, run_lives


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a killed process keeps its page cache either way."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="hft-drill-", dir=memory))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.timeout(180)
def test_two_hundred_killed_writers_lose_no_acknowledged_record(memory_folder: Path) -> None:
    report = find_drill("wal-kill").run(memory_folder, 1, 1)
    assert report.passed, report.render()
    assert report.facts["kills_with_acks"] >= KILLS == 200
    assert report.facts["acked_records"] > 1_000


def test_a_writer_that_acknowledges_early_is_caught_by_the_same_kills(memory_folder: Path) -> None:
    facts, _ = run_lives(memory_folder, 1, 60, acks_early=True)
    assert facts["lost"] > 0


def test_a_backup_taken_while_a_session_writes_is_restored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["drill", "backup-restore", "--json", "--folder", str(tmp_path)]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["passed"]
    assert report["facts"]["restored_records"] > 0
