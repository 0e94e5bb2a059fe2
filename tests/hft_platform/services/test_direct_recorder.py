"""Recorder mode direct beside a session: the rows come, and the session never notices."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hft_platform import _core, cli
from hft_platform.config.settings import load_settings
from hft_platform.drills.direct import DRILLS
from hft_platform.drills.server_process import ServerProcess
from hft_platform.errors import ReasonCode
from hft_platform.market.instruments import load_instruments
from hft_platform.recorder import columns
from hft_platform.recorder.loader import load_sealed
from hft_platform.recorder.session_records import session_tape
from hft_platform.recorder.store import open_store
from hft_platform.services.direct_recorder import DirectRecorder, recorder_of
from hft_platform.services.session_runner import run_session
from tests.hft_platform.services.live_workspace import ALPHA_ID, SESSIONS, Live


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for the module."""
    with ServerProcess(tmp_path_factory.mktemp("server") / "store") as process:
        yield process


def _without_run(evidence: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in evidence.items() if key not in ("run_id", "recorder")}


def _is_whole(ws: Path, server: ServerProcess, run_id: str) -> None:
    """Both logs come back from the store as they were written."""
    with open_store(ws, dsn=server.dsn) as store:
        for kind in columns.LOG_KINDS:
            tape = _core.read_log(str(ws / "sessions" / run_id / kind))["tape"]
            assert session_tape(store, run_id, kind) == tape
        assert load_sealed(ws, store).rows_inserted == 0


def test_a_session_in_direct_mode_is_the_same_and_in_the_store_when_it_ends(
    live: Live,
    server: ServerProcess,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    live.issue()
    command = [
        "run", "--mode", "paper", "--speed", "max", "--alpha", ALPHA_ID, "--session", SESSIONS[0],
        "--workspace", str(live.ws), "--json",
    ]  # fmt: skip
    assert cli.main(command) == 0
    alone = json.loads(capsys.readouterr().out)[0]
    assert "recorder" not in alone
    assert not (live.ws / "ledger" / "direct_status.json").exists()
    monkeypatch.setenv("HFT_RECORDER_MODE", "direct")
    monkeypatch.setenv("HFT_STORE__DSN", server.dsn)
    assert cli.main(command) == 0
    beside = json.loads(capsys.readouterr().out)[0]
    assert _without_run(beside) == _without_run(alone)
    recorder = beside["recorder"]
    assert (recorder["mode"], recorder["is_complete"], recorder["left"]) == ("direct", True, [])
    assert recorder["last_error"] is None
    with open_store(live.ws, dsn=server.dsn) as store:
        found = store.rows(
            "SELECT sum(record_count) FROM hft.ingest_segments FINAL WHERE run_id = {run:String}",
            {"run": beside["run_id"]},
        )
        assert int(found[0][0]) == recorder["rows_written"]
        # The first session ran in wal_first: the loader brings it now.
        assert load_sealed(live.ws, store).rows_inserted > 0
    _is_whole(live.ws, server, beside["run_id"])


def test_a_store_that_is_down_is_nothing_to_a_session_and_the_loader_brings_the_rows(
    live: Live, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HFT_RECORDER_MODE", "direct")
    monkeypatch.setenv("HFT_STORE__DSN", server.dsn)
    config = live.issue()
    server.refuse(True)
    try:
        settings = load_settings(live.ws / "no-config")
        with recorder_of(settings, live.ws, drain_s=0.5) as recorder:
            outcome = run_session(
                live.request(config, SESSIONS[1]),
                instruments=load_instruments(),
                settings=settings,
                opened=recorder.opened,
            )
    finally:
        server.refuse(False)
    assert outcome.parity.is_identical
    facts = recorder.facts()["recorder"]
    assert not facts["is_complete"]
    assert "hft-live wal load" in facts["text"]
    with open_store(live.ws, dsn=server.dsn) as store:
        report = load_sealed(live.ws, store)
        assert report.problems == []
        assert report.rows_inserted > 0
    _is_whole(live.ws, server, outcome.session_dir.name)


def test_direct_without_a_server_is_refused_before_anything_is_opened(
    live: Live, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    live.issue()
    monkeypatch.setenv("HFT_RECORDER_MODE", "direct")
    monkeypatch.delenv("HFT_STORE__DSN", raising=False)
    for command in (
        ["run", "--mode", "paper", "--speed", "max", "--alpha", ALPHA_ID, "--session", SESSIONS[0]],
        ["wal", "follow"],
    ):
        assert cli.main([*command, "--workspace", str(live.ws), "--json"]) == cli.REFUSED
        said = json.loads(capsys.readouterr().out)
        assert said["code"] == ReasonCode.STORE_NEEDS_SERVER
    assert not (live.ws / "sessions").exists()


def test_a_child_that_dies_is_started_again_and_ends_with_its_parent(
    server: ServerProcess, tmp_path: Path
) -> None:
    direct = DirectRecorder(
        tmp_path, "nothing", drain_s=5.0, variables={"HFT_STORE__DSN": server.dsn}
    )
    (tmp_path / "sessions" / "nothing" / "market").mkdir(parents=True)
    direct.start()
    first = _pid(direct, other_than=0)
    os.kill(first, signal.SIGKILL)
    second = _pid(direct, other_than=first)
    outcome = direct.finish()
    assert outcome.is_complete
    assert outcome.restarts == 1
    assert outcome.status["pid"] == second
    assert outcome.status["restarts"] == 1
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)


def _pid(direct: DirectRecorder, *, other_than: int) -> int:
    deadline = time.monotonic() + 10.0
    while direct.pid in (0, other_than):
        assert time.monotonic() < deadline, "no child was started within 10 s"
        time.sleep(0.01)
    return direct.pid


def test_the_drill_of_the_mode_passes(tmp_path: Path) -> None:
    (drill,) = DRILLS
    report = drill.run(tmp_path, 1, 1)
    assert report.passed, report.render()
    assert report.facts["store_kills"] == 1
    assert report.facts["direct_writer_kills"] >= 1
