"""The whole live process over a recorded session: start, trade, crash, go on, stop, explained."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hft_platform.config.keys import public_key
from hft_platform.errors import ReasonCode
from hft_platform.observability.exporter import WorkspaceCollector, exposition
from hft_platform.services import latch
from hft_platform.services.hft_system import CRASH_EXIT
from hft_platform.services.parity import replay_session
from hft_platform.services.rehearsal import JOURNAL_FILE
from hft_platform.services.session_summary import verify_summary
from hft_platform.services.status import workspace_status
from tests.hft_platform.services.live_process import LiveProcess
from tests.hft_platform.services.live_workspace import SESSIONS, Live

REHEARSAL = ("--broker", "paper", "--session", SESSIONS[0])
WAIT_S = 60.0
LOT = 100_000_000


def placed(folder: Path) -> list[dict[str, Any]]:
    """Orders that reached the exchange, in order."""
    path = folder / JOURNAL_FILE
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line["ticket"] for line in lines if line["kind"] == "place"]


class Running:
    """`hft-live run` in a process of its own."""

    def __init__(self, live: Live, head: Path, *more: str) -> None:
        self.ws = live.ws
        command = [
            *(sys.executable, "-m", "hft_platform.cli", "run", "--workspace", str(live.ws)),
            *("--mode", "live", "--config", str(head), "--json", *REHEARSAL, *more),
        ]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    @property
    def folder(self) -> Path | None:
        """Folder of its session."""
        return next(iter((self.ws / "rehearsals").glob("*")), None)

    def until_placed(self, count: int) -> Path:
        """Wait until so many orders are at the exchange."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            folder = self.folder
            if folder is not None and len(placed(folder)) >= count:
                return folder
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.01)
        raise AssertionError(f"not {count} orders within {WAIT_S} s")

    def ended(self) -> tuple[int, Any]:
        """Exit code and what it printed."""
        out, err = self.process.communicate(timeout=WAIT_S)
        lines = out.strip().splitlines()
        return self.process.returncode, json.loads(lines[-1]) if lines else err


def assert_explained(ws: Path, folder: Path, content: Any) -> None:
    """Flat, explained, signed, and no order twice."""
    assert content["report"]["is_flat"], content
    assert content["report"]["is_explained"], content
    assert max(Counter(row["tag"] for row in placed(folder)).values()) == 1
    evidence = verify_summary(folder / "summary.json", key=public_key(ws, "session"))
    assert evidence.mode == "rehearsal"
    assert evidence.account is not None
    report = replay_session(folder, write=False)
    assert report.is_identical, report.differences
    assert report.total > 5


def assert_scraped(folder: Path, scratch: Path) -> None:
    """The exporter shows what the process last said; of a rehearsal only where it trades."""
    ws = scratch / "scraped"
    shutil.copytree(folder, ws / "sessions" / folder.name)
    text = exposition(WorkspaceCollector(ws, pressure_level=lambda _: 0))
    rows = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    said = {name: float(value) for name, value in rows}
    label = f'{{run_id="{folder.name}"}}'
    assert said["hft_live_connected" + label] == 1
    assert said["hft_live_status_age_seconds" + label] < WAIT_S
    assert said["hft_live_unknown_orders" + label] == 0
    steps = re.findall(r'hft_live_latency_ns\{quantile="0.99",run_id="[^"]+",step="(\w+)"', text)
    assert {"decide", "durable", "to_call"} <= set(steps)


def test_at_full_speed_it_ends_flat_explained_and_signed(process: LiveProcess) -> None:
    head = process.issue(stage="shadow")
    code, content = process.run(head, *REHEARSAL, "--speed", "max")
    assert code == 0, content
    (folder,) = (process.live.ws / "rehearsals").iterdir()
    assert_explained(process.live.ws, folder, content)
    # The weight is in every order: half of two lots.
    assert {row["qty"] for row in placed(folder)} == {LOT}
    # Where gates and canaries look there is nothing.
    assert not (process.live.ws / "sessions").exists()
    assert workspace_status(process.live.ws)["live"] == []


def test_the_weight_in_force_is_in_every_order(process: LiveProcess) -> None:
    head = process.issue(stage="shadow", weight_ppm=1_000_000)
    assert process.run(head, *REHEARSAL, "--speed", "max")[0] == 0
    (folder,) = (process.live.ws / "rehearsals").iterdir()
    opening = placed(folder)[0]
    assert opening["qty"] == 2 * LOT


@pytest.mark.timeout(180)
def test_a_process_killed_in_the_middle_goes_on_and_ends_explained(
    process: LiveProcess, tmp_path: Path
) -> None:
    head = process.issue(stage="shadow")
    running = Running(process.live, head, "--speed", "20")
    folder = running.until_placed(5)
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.communicate()
    assert not (folder / "summary.json").exists()
    (row,) = workspace_status(process.live.ws, now_ns=1 << 62)["live"]
    assert row["process"] == "hung or dead"
    assert_scraped(folder, tmp_path)
    code, content = Running(process.live, head, "--speed", "max").ended()
    assert code == 0, content
    assert list((process.live.ws / "rehearsals").iterdir()) == [folder]
    assert content["counts"]["orders"] >= 5
    assert_explained(process.live.ws, folder, content)


@pytest.mark.timeout(180)
def test_sigterm_stops_in_order_and_the_session_goes_on(process: LiveProcess) -> None:
    head = process.issue(stage="shadow")
    running = Running(process.live, head, "--speed", "20", "--flatten-on-stop")
    folder = running.until_placed(8)
    running.process.send_signal(signal.SIGTERM)
    code, content = running.ended()
    assert code == 0, content
    assert content["stopped_early"]
    assert content["report"]["cause"] == "signal"
    assert content["report"]["is_explained"]
    assert content["report"]["is_flat"], "it was to be closed"
    assert (folder / "stopped.json").exists()
    assert not (folder / "summary.json").exists()
    before = len(placed(folder))
    code, content = Running(process.live, head, "--speed", "max").ended()
    assert code == 0, content
    assert not content["stopped_early"]
    assert len(placed(folder)) > before, "what the stop restricted was lifted"
    assert_explained(process.live.ws, folder, content)


@pytest.mark.timeout(180)
def test_a_second_signal_ends_at_once_and_a_second_process_is_refused(
    process: LiveProcess,
) -> None:
    head = process.issue(stage="shadow")
    running = Running(process.live, head, "--speed", "1")
    deadline = time.monotonic() + WAIT_S
    while running.folder is None or not (running.folder / "status.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    code, content = process.run(head, *REHEARSAL, "--speed", "max")
    assert (code, content["code"]) == (3, ReasonCode.WORKSPACE_BUSY)
    time.sleep(0.3)
    running.process.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    running.process.send_signal(signal.SIGTERM)
    running.process.communicate(timeout=WAIT_S)
    assert running.process.returncode in (CRASH_EXIT, 0)


def test_a_halted_workspace_starts_nothing(process: LiveProcess) -> None:
    head = process.issue(stage="shadow")
    latch.halt(process.live.ws, who="test", why="drill")
    code, content = process.run(head, *REHEARSAL, "--speed", "max")
    assert (code, content["code"]) == (3, ReasonCode.KILL_SWITCH_ON)
    assert not (process.live.ws / "rehearsals").exists()
