"""hft-live wal load: once, with the contract, and following what is sealed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hft_platform import cli
from hft_platform.drills.loading import write_runs
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder import store as store_module
from hft_platform.services import wal_load
from tests.hft_platform.services.live_workspace import Live


class _EnoughError(Exception):
    """Ends a test's wait."""


class _Clock:
    """Time that passes only by sleeping."""

    def __init__(self, sleeps: int) -> None:
        self.now = 0.0
        self.left = sleeps

    def sleep(self, seconds: float) -> None:
        """Let time pass, and end the test when it was enough."""
        self.left -= 1
        if self.left < 0:
            raise _EnoughError
        self.now += seconds

    def time(self) -> float:
        """What time it is."""
        return self.now


def test_load_reports_segments_and_the_contract(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    appended = write_runs(tmp_path, runs=1, segments=3, records_each=50, seed=4)
    waiting = wal_load.backlog(tmp_path)
    assert (waiting.segments, waiting.bytes > 0) == (4, True)
    code = cli.main(["wal", "load", "--check", "--json", "--workspace", str(tmp_path)])
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert code == 0
    assert row["rows_inserted"] == appended.records
    assert sorted(part["segment"] for part in row["segments"]) == [
        "drill-4-1/market/1", "drill-4-1/market/2", "drill-4-1/market/3", "drill-4-1/orders/1",
    ]  # fmt: skip
    assert row["contract"] == {
        "holds": True, "segments": 4, "rows": appended.records, "violations": [],
    }  # fmt: skip
    assert wal_load.backlog(tmp_path).segments == 0


def test_follow_loads_what_is_sealed_later_and_leaves_the_store_alone_in_between(
    tmp_path: Path,
) -> None:
    write_runs(tmp_path, runs=1, segments=1, records_each=20, seed=5)
    clock = _Clock(sleeps=3)
    passes = wal_load.follow(tmp_path, sleep=clock.sleep, clock=clock.time)
    assert next(passes).rows[0]["segments_loaded"] == 2
    write_runs(tmp_path, runs=1, segments=1, records_each=20, seed=6)
    second = next(passes).rows[0]
    assert (second["segments_loaded"], second["segments_known"]) == (2, 2)
    with pytest.raises(_EnoughError):
        next(passes)


def test_follow_looks_at_a_refused_segment_again_after_a_minute(tmp_path: Path) -> None:
    write_runs(tmp_path, runs=1, segments=1, records_each=20, seed=7)
    (market,) = tmp_path.glob("sessions/*/market/00000001.seg")
    sound = market.read_bytes()
    market.chmod(0o644)
    market.write_bytes(sound[:-9])
    clock = _Clock(sleeps=100)
    passes = wal_load.follow(tmp_path, sleep=clock.sleep, clock=clock.time)
    assert not next(passes).is_sound
    assert not next(passes).is_sound
    assert clock.now > wal_load.AGAIN_SECONDS
    market.write_bytes(sound)
    assert next(passes).rows[0]["segments_loaded"] == 1


def test_follow_waits_longer_each_time_the_store_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_arguments: object, **_keywords: object) -> None:
        raise PlatformError(ReasonCode.STORE_UNREACHABLE, "it is down")

    monkeypatch.setattr(store_module, "open_configured_store", failing)
    clock = _Clock(sleeps=7)
    passes = wal_load.follow(tmp_path, sleep=clock.sleep, clock=clock.time)
    waits = [next(passes).rows[0]["tried_again_in_s"] for _ in range(7)]
    assert waits == [1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize("arguments", [["inspect", "x", "--follow"], ["load", "some-run"]])
def test_options_that_mean_nothing_are_refused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["wal", *arguments, "--workspace", str(tmp_path)]) == cli.REFUSED
    assert "SETTINGS_INVALID" in capsys.readouterr().err


def test_the_contract_holds_of_a_real_session(copied: tuple[Live, Path]) -> None:
    live, session_dir = copied
    report = wal_load.load_once(live.ws, is_checked=True)
    assert report.problems == []
    assert f"{session_dir.name}/market/1" in [row["segment"] for row in report.rows[0]["segments"]]
