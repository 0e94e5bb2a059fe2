"""A drill: a session with faults that is replayed, counted, and no evidence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hft_platform import records
from hft_platform.cli import main
from hft_platform.config.settings import load_settings
from hft_platform.errors import ReasonCode
from hft_platform.execution.faults import load_fault_profile
from hft_platform.execution.position_store import fills_of
from hft_platform.market.instruments import load_instruments
from hft_platform.services.parity import read_session, replay_session
from hft_platform.services.session_runner import run_session
from hft_platform.services.status import workspace_status
from tests.hft_platform.services.live_workspace import ALPHA_ID, SESSIONS, Live, make_live


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Live:
    """The ingested market; nobody runs in it."""
    return make_live(tmp_path_factory.mktemp("market"))


@pytest.fixture
def live(market: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Live:
    """A workspace of one's own."""
    shutil.copytree(market.ws / "datasets", tmp_path / "ws" / "datasets")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return Live(tmp_path / "ws")


def test_a_drill_lies_apart_replays_completely_and_leaves_no_summary(live: Live) -> None:
    # Two clips of two lots: something to fill in parts.
    config = live.issue(weight_ppm=1_000_000)
    outcome = run_session(
        live.request(config, faults=load_fault_profile("drill")),
        instruments=load_instruments(),
        settings=load_settings(live.ws / "no-config", environment={}),
    )
    assert outcome.session_dir.parent == live.ws / "drills"
    assert not (live.ws / "sessions").exists()
    assert not (outcome.session_dir / "summary.json").exists()
    assert outcome.parity.is_identical
    assert outcome.parity.total > 50
    assert replay_session(outcome.session_dir, write=False).is_identical
    drill = json.loads((outcome.session_dir / "drill.json").read_bytes())
    found = drill["faults"]
    assert found["partial_fills"] > 0
    assert found["unresolved"] == 0
    broker = records.split(read_session(outcome.session_dir).inputs)["Broker"]
    fills = fills_of(broker)
    position = int((fills["side"] * fills["qty"]).sum())
    assert found["positions"] == {
        str(load_instruments().by_symbol("SIM_EDGE").instrument_id): position
    }
    assert drill["evidence"]["account"]["position_qty"] == position
    assert workspace_status(live.ws)["sessions"] == []


def test_the_command_runs_a_drill_says_so_and_refuses_one_for_live(
    live: Live, capsys: pytest.CaptureFixture[str]
) -> None:
    live.issue()
    place = ["--workspace", str(live.ws), "--alpha", ALPHA_ID]
    run = ["run", *place, "--mode", "sim", "--session", SESSIONS[0], "--faults"]
    assert main([*run, "drill"]) == 0
    text = capsys.readouterr().out
    assert "drill:" in text
    assert "no evidence" in text
    assert main([*run, "drill", "--json"]) == 0
    (evidence,) = json.loads(capsys.readouterr().out)
    assert evidence["parity"]["identical"] == evidence["parity"]["total"]
    assert "timeouts" in evidence["faults"]
    (first, _) = sorted((live.ws / "drills").iterdir())
    assert main(["replay", "--workspace", str(live.ws), first.name]) == 0
    capsys.readouterr()
    assert main([*run, "missing.yaml", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["code"] == ReasonCode.SETTINGS_INVALID
    assert main(["run", *place, "--mode", "live", "--faults", "drill"]) == 3
    assert "sim or paper" in capsys.readouterr().err
