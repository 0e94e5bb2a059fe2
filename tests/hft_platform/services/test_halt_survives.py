"""A halt outlives the process that was halted: real processes, killed at the worst moment."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hft_platform import cli
from hft_platform.config.settings import Settings, load_settings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import load_instruments
from hft_platform.services import halt_log, latch, session_runner
from hft_platform.services.parity import replay_session
from hft_platform.services.session_runner import run_session
from hft_platform.services.status import workspace_status
from tests.hft_platform.services.live_workspace import SESSIONS, Live, fake_clock

SLOW_IS_A_HALT = (
    "{warm_in: null, warm_out: null, storm_in: null, storm_out: null,"
    " halt_in: 100000000, halt_out: 50000000}"
)
"""Any answer takes longer than 100 ms here, so the first order halts."""
VARIABLES = {"HFT_STORM_GUARD__ORDER_RTT_NS": SLOW_IS_A_HALT}

RUN_AND_DIE = """
import json, os, signal, sys
from pathlib import Path
from hft_platform.config.settings import load_settings
from hft_platform.market.instruments import load_instruments
from hft_platform.services import latch, session_runner
from tests.hft_platform.services.live_workspace import Live

ws, config, variables, session = sys.argv[1:]

def die(*args, **kwargs):
    # The engine has halted, the workspace does not know it yet: the worst moment there is.
    os.kill(os.getpid(), signal.SIGKILL)

latch.halt = die
live = Live(Path(ws))
session_runner.run_session(
    live.request(Path(config), session), instruments=load_instruments(),
    settings=load_settings(live.ws / "none", environment=json.loads(variables)),
)
"""


def settings(live: Live, **variables: str) -> Settings:
    """Packaged settings with changes."""
    return load_settings(live.ws / "none", environment=variables)


def killed_while_halted(live: Live, repository: Path) -> Path:
    """A session whose process died with SIGKILL between its HALT and the latch file."""
    config = live.issue()
    arguments = [str(live.ws), str(config), json.dumps(VARIABLES), SESSIONS[0]]
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_DIE, *arguments],
        cwd=repository, timeout=120, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not latch.latch_path(live.ws).exists(), "only the order log knows"
    (session_dir,) = (live.ws / "sessions").iterdir()
    assert not (session_dir / "summary.json").exists()
    return session_dir


def test_a_process_killed_right_behind_its_halt_leaves_a_halted_workspace(
    live: Live, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session_dir = killed_while_halted(live, repository)
    config = live.issue()

    def hft_live(*arguments: str) -> tuple[int, Any]:
        code = cli.main([*arguments, "--workspace", str(live.ws), "--json"])
        return code, json.loads(capsys.readouterr().out)

    with pytest.raises(PlatformError, match=session_dir.name) as caught:
        live.run(config, SESSIONS[1])
    assert caught.value.code == ReasonCode.KILL_SWITCH_ON

    code, status = hft_live("status")
    assert code == 0
    halt = status["halt"]
    assert (halt["who"], halt["code"]) == (session_dir.name, ReasonCode.STORM_ORDER_RTT)
    assert (halt["reason"], halt["next"]) == ("STORM_ORDER_RTT", "hft-live resume")
    assert halt["since_ns"] > 0
    (row,) = status["sessions"]
    assert row["guard"]["policy"]["state"] == "HALT"
    assert row["guard"]["storm"]["state"] == "HALT"
    assert row["guard"]["storm"]["reason"] == "STORM_ORDER_RTT"

    _, first = hft_live("resume")
    assert hft_live("resume", "--confirm", "00000000")[0] == cli.REFUSED
    assert latch.adopt(live.ws) is not None, "one step, or a wrong one, lifts nothing"
    assert hft_live("resume", "--confirm", first["token"])[0] == 0
    assert hft_live("status")[1]["halt"] is None, "the same log halts once"
    assert (session_dir / "resumed.json").exists()
    assert live.run(config, SESSIONS[1]).parity.is_identical


def test_a_workspace_that_remembers_in_memory_only_would_trade_on(
    live: Live, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: without a look into the order log the halt is forgotten."""
    killed_while_halted(live, repository)
    monkeypatch.setattr(halt_log, "unfinished", lambda _workspace: [])
    assert latch.adopt(live.ws) is None
    monkeypatch.undo()
    assert latch.adopt(live.ws) is not None


def test_an_order_log_that_cannot_be_read_halts_until_somebody_has_looked(live: Live) -> None:
    def stop(_state: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        live.run(live.issue(), progress=stop)
    assert latch.adopt(live.ws) is None, "an interrupted session that never halted"
    (session_dir,) = (live.ws / "sessions").iterdir()
    (segment,) = (session_dir / "orders").glob("*.seg")
    raw = bytearray(segment.read_bytes())
    raw[200] ^= 1
    segment.write_bytes(raw)
    content = latch.adopt(live.ws)
    assert content is not None
    assert content["code"] in (ReasonCode.WAL_SEGMENT_MISMATCH, ReasonCode.WAL_DAMAGED)
    status = workspace_status(live.ws)
    assert status["sessions"][0]["guard"]["unreadable"].startswith("WAL_")
    token = latch.resume_token(live.ws)
    assert token is not None
    latch.resume(live.ws, token=token)
    assert latch.adopt(live.ws) is None


def test_an_engine_that_halts_by_itself_halts_the_workspace_while_it_still_runs(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_runner, "STEP_RECORDS", 100)
    seen: list[int] = []

    def progress(state: dict[str, Any]) -> None:
        if state["halted_by"] and state["records_done"] < state["records_total"]:
            seen.append((latch.read(live.ws) or {}).get("code", 0))

    outcome = run_session(
        live.request(live.issue()),
        instruments=load_instruments(),
        settings=settings(live, **VARIABLES),
        progress=progress,
    )
    assert seen[0] == ReasonCode.STORM_ORDER_RTT
    assert outcome.summary["evidence"]["halted_by"] == ReasonCode.STORM_ORDER_RTT
    assert outcome.parity.is_identical, "the storm is decided again from the log"


def test_a_lifted_latch_resumes_the_running_session_in_two_records(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_runner, "STEP_RECORDS", 100)
    steps: list[str] = []

    def progress(state: dict[str, Any]) -> None:
        share = state["records_done"] / state["records_total"]
        if share > 0.3 and not steps:
            latch.halt(live.ws, who="tester", why="test")
            steps.append("halted")
        elif share > 0.5 and steps == ["halted"]:
            assert state["halted_by"]
            token = latch.resume_token(live.ws)
            assert token is not None
            latch.resume(live.ws, token=token)
            steps.append("lifted")
        elif share > 0.6 and steps[-1:] == ["lifted"]:
            assert not state["halted_by"]
            steps.append("resumed")

    outcome = live.run(live.issue(), progress=progress)
    assert steps == ["halted", "lifted", "resumed"]
    assert latch.adopt(live.ws) is None
    last = halt_log.changes(outcome.session_dir)["policy"]
    assert last is not None
    assert last["state"] == "NORMAL"
    assert outcome.summary["evidence"]["halted_by"] == 0
    assert outcome.parity.is_identical


def test_a_session_that_refuses_the_resume_halts_the_workspace_again(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_runner, "STEP_RECORDS", 100)
    lifted: list[str] = []

    def progress(state: dict[str, Any]) -> None:
        if state["halted_by"] and not lifted:
            token = latch.resume_token(live.ws)
            assert token is not None
            latch.resume(live.ws, token=token)
            lifted.append(token)

    # The slow answer counts for a minute, so the cause is still there.
    run_session(
        live.request(live.issue()),
        instruments=load_instruments(),
        settings=settings(live, **VARIABLES),
        progress=progress,
        clock=fake_clock(),
    )
    content = latch.read(live.ws)
    assert content is not None
    assert "refused the resume" in content["why"]
    assert content["code"] == ReasonCode.STORM_ORDER_RTT


def test_a_dead_sessions_log_replays_with_its_storm(live: Live, repository: Path) -> None:
    session_dir = killed_while_halted(live, repository)
    try:
        report = replay_session(session_dir, write=False)
    except PlatformError as error:
        # The market log's last group may be lost; then parity says so instead of guessing.
        assert error.code == ReasonCode.LOG_SEQUENCE_GAP
    else:
        assert report.is_identical
