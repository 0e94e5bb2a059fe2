"""A session whose process died: what its two logs prove together, against the run that did not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hft_platform import _core, cli, records
from hft_platform.config.keys import public_key
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder.session_recovery import FILE_NAME, is_recovered
from hft_platform.services.explain import explain_order, list_orders
from hft_platform.services.parity import read_session, replay_session
from hft_platform.services.session_runner import SessionOutcome
from hft_platform.services.session_summary import verify_summary
from hft_platform.services.wal_tools import wal_command
from research.gates import collect_e
from research.promotion.evidence import session_summaries
from tests.hft_platform.services.live_workspace import ALPHA_ID, SESSIONS, Live

DECISION = records.DTYPES["Decision"]
RUN_UNTIL_KILLED = """
import sys
from pathlib import Path
from hft_platform.config.settings import load_settings
from hft_platform.market.instruments import load_instruments
from hft_platform.services import session_runner
from tests.hft_platform.services.live_workspace import Live

ws, config, session = sys.argv[1:]
options = session_runner._log_options
# The widest commit group there may be: what a slow disk does to the market log.
session_runner._log_options = lambda *a: options(*a) | {"group_commit_ms": 300}
session_runner.PACED_STEP_RECORDS, session_runner.STEP_SECONDS = 25, 0.02
live = Live(Path(ws))
session_runner.run_session(
    live.request(Path(config), session, speed=100.0), instruments=load_instruments(),
    settings=load_settings(live.ws / "none", environment={}),
    progress=lambda state: print(state["inputs"], state["decisions"], flush=True),
)
"""


def log(session_dir: Path, kind: str) -> dict[str, Any]:
    """A log as its reader sees it now."""
    return _core.read_log(str(session_dir / kind))


def decisions_of(tape: bytes) -> np.ndarray:
    """Decisions of an order log."""
    return records.split(tape)["Decision"]


@dataclass(frozen=True)
class Crashed:
    """A session that was killed, and the same session run to its end."""

    live: Live
    session_dir: Path
    whole: Path


@pytest.fixture(scope="module")
def killed(
    market: Live,
    finished: tuple[Live, SessionOutcome],
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Crashed:
    """A paper session killed with SIGKILL from outside while it trades."""
    ws = tmp_path_factory.mktemp("killed") / "ws"
    shutil.copytree(market.ws / "datasets", ws / "datasets")
    live = Live(ws)
    arguments = [str(ws), str(live.issue()), SESSIONS[0]]
    with subprocess.Popen(
        [sys.executable, "-c", RUN_UNTIL_KILLED, *arguments],
        cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if int(line.split()[1]) >= 30:
                    break
        finally:
            process.kill()
        assert process.stderr is not None
        error = process.stderr.read()
    assert process.returncode == -9, error
    (session_dir,) = (ws / "sessions").iterdir()
    assert not (session_dir / "summary.json").exists()
    return Crashed(live, session_dir, finished[1].session_dir)


@pytest.fixture
def crashed(killed: Crashed, tmp_path: Path) -> Crashed:
    """The killed session's workspace as one's own."""
    shutil.copytree(killed.live.ws, tmp_path / "ws")
    session_dir = tmp_path / "ws" / "sessions" / killed.session_dir.name
    return Crashed(Live(tmp_path / "ws"), session_dir, killed.whole)


def cut_power(session_dir: Path, kind: str) -> None:
    """Drop from an open segment what its last frame says was not durable when it was written."""
    (path,) = (session_dir / kind).glob("*.open")
    raw, at, frames = path.read_bytes(), 128, []
    while at + 40 <= len(raw) and (length := int.from_bytes(raw[at : at + 4], "little")):
        seq = int.from_bytes(raw[at + 8 : at + 16], "little")
        lag = int.from_bytes(raw[at + 36 : at + 40], "little")
        frames.append((at, seq, seq - lag))
        at += 40 + -(-length // 8) * 8
    durable_seq = frames[-1][2]
    with path.open("r+b") as file:
        file.truncate(next(place for place, seq, _ in frames if seq > durable_seq))


def truth(crashed: Crashed) -> tuple[int, np.ndarray]:
    """Where parity must end and what must be listed, from the run that was not killed.

    Both crashed logs are held to be prefixes of that run's first.
    """
    tapes = {kind: log(crashed.session_dir, kind)["tape"] for kind in ("market", "orders")}
    for kind, tape in tapes.items():
        assert log(crashed.whole, kind)["tape"].startswith(tape), kind
    there = {
        int(seq)
        for tape in tapes.values()
        for name, part in records.split(tape).items()
        if name != "Decision"
        for seq in part["input_seq"]
    }
    ends_at = next(n for n in range(1, max(there) + 2) if n not in there) - 1
    logged = decisions_of(tapes["orders"])
    whole = decisions_of(log(crashed.whole, "orders")["tape"])[: logged.size]
    return ends_at, whole[whole["input_seq"] > ends_at]


def recovered(crashed: Crashed) -> dict[str, Any]:
    """Recover the session as an operator does; returns ``recovery.json``."""
    report = wal_command("recover", crashed.live.ws, crashed.session_dir.name)
    assert report.is_sound, report.problems
    content = json.loads((crashed.session_dir / FILE_NAME).read_bytes())
    assert any(row.get("session") == crashed.session_dir.name for row in report.rows)
    return content


def listed(content: dict[str, Any]) -> list[tuple[int, int, int]]:
    """(decision_seq, input_seq, order_id) of every decision in a listing."""
    rows = [
        (row["decision_seq"], row["input_seq"], order["order_id"])
        for order in content["orders"]
        for row in order["decisions"]
    ]
    rows += [(row["decision_seq"], row["input_seq"], 0) for row in content["other_decisions"]]
    return sorted(rows)


def check_against_truth(crashed: Crashed) -> dict[str, Any]:
    """Recover, and hold listing and parity against the run that was not killed."""
    ends_at, lost = truth(crashed)
    content = recovered(crashed)
    assert content["parity_ends_at_input_seq"] == ends_at
    expected = [(int(r["decision_seq"]), int(r["input_seq"]), int(r["order_id"])) for r in lost]
    assert listed(content) == expected
    assert content["not_replayable"]["decisions"] == lost.size
    report = replay_session(crashed.session_dir)
    assert report.is_identical, report.differences
    assert (report.ends_at_input_seq, report.not_replayable) == (ends_at, lost.size)
    assert report.logged == content["replayable"]["decisions"] > 0
    text = report.extent_text
    assert f"not replayable from input {ends_at + 1} on: {lost.size} decisions" in text
    return content


def test_kill_9_loses_a_market_tail_and_every_decision_on_it_is_listed(crashed: Crashed) -> None:
    content = check_against_truth(crashed)
    assert content["lost_tail"] in ("market", None)


def test_a_power_cut_drops_what_was_not_synced_and_the_list_grows(crashed: Crashed) -> None:
    before, _ = truth(crashed)
    cut_power(crashed.session_dir, "market")
    content = check_against_truth(crashed)
    assert content["parity_ends_at_input_seq"] < before
    assert content["lost_tail"] == "market"
    assert content["not_replayable"]["decisions"] > 0
    assert content["not_replayable"]["approved_orders"] > 0
    assert any(order["broker_events"] for order in content["orders"])


def test_recovering_again_writes_the_same_bytes(crashed: Crashed) -> None:
    cut_power(crashed.session_dir, "market")
    recovered(crashed)
    first = (crashed.session_dir / FILE_NAME).read_bytes()
    recovered(crashed)
    assert (crashed.session_dir / FILE_NAME).read_bytes() == first


def test_a_lost_order_tail_ends_parity_where_its_next_input_was(crashed: Crashed) -> None:
    raw = log(crashed.session_dir, "orders")["tape"]
    (path,) = (crashed.session_dir / "orders").glob("*.open")
    with path.open("r+b") as file:
        # Two thirds of the frames: a frame is its record and 40 bytes.
        file.truncate(128 + len(raw) * 2 // 3)
    content = check_against_truth(crashed)
    report = replay_session(crashed.session_dir, write=False)
    assert content["lost_tail"] == "orders"
    assert report.not_replayable == 0
    assert report.replayed == report.logged


def test_before_it_is_recovered_such_a_session_is_a_gap_that_names_the_command(
    crashed: Crashed,
) -> None:
    cut_power(crashed.session_dir, "market")
    with pytest.raises(PlatformError, match="missing or doubled") as caught:
        read_session(crashed.session_dir)
    assert caught.value.code == ReasonCode.LOG_SEQUENCE_GAP
    assert f"hft-live wal recover {crashed.session_dir.name}" in caught.value.next_step


def test_what_was_decided_otherwise_is_found_in_a_recovered_session(crashed: Crashed) -> None:
    cut_power(crashed.session_dir, "market")
    recovered(crashed)
    config = json.loads((crashed.session_dir / "engine.json").read_bytes())
    config["alphas"][0]["template"]["entry_ticks"] = 4.0
    assert not replay_session(crashed.session_dir, engine_config=config, write=False).is_identical


def test_a_decision_too_few_in_the_middle_is_no_lost_tail(crashed: Crashed) -> None:
    recovered(crashed)
    folder = crashed.session_dir / "orders"
    read = log(crashed.session_dir, "orders")
    tape, size = read["tape"], DECISION.itemsize
    place = tape.index(decisions_of(tape)[3].tobytes())
    shutil.rmtree(folder)
    with _core.WalWriter(str(folder), read["segments"][0]["wal_id"], "orders") as writer:
        writer.append(tape[:place] + tape[place + size :])
    report = replay_session(crashed.session_dir, write=False)
    assert not report.is_identical
    assert report.unlogged == 0


def test_the_operators_commands_say_where_parity_ends(
    crashed: Crashed, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_power(crashed.session_dir, "market")
    name, ws = crashed.session_dir.name, str(crashed.live.ws)

    def hft_live(*words: str) -> tuple[int, str]:
        code = cli.main([*words, "--workspace", ws])
        return code, capsys.readouterr().out

    code, text = hft_live("wal", "recover", name)
    assert code == 0
    assert "parity_ends_at_input_seq" in text
    assert "order_without_cause" in text
    code, text = hft_live("replay", name)
    assert code == 0
    assert "not replayable from input" in text
    order = json.loads((crashed.session_dir / FILE_NAME).read_bytes())["orders"][-1]["order_id"]
    with pytest.raises(PlatformError, match="was decided at input") as caught:
        explain_order(crashed.session_dir, order)
    assert caught.value.code == ReasonCode.LOG_SEQUENCE_GAP
    known = list_orders(crashed.session_dir)[0]["order_id"]
    assert explain_order(crashed.session_dir, known).order_id == known


def test_a_recovered_session_is_no_evidence(
    crashed: Crashed, finished: tuple[Live, SessionOutcome]
) -> None:
    cut_power(crashed.session_dir, "market")
    recovered(crashed)
    assert not (crashed.session_dir / "summary.json").exists()
    # Not even when a summary that was true once stands beside it.
    live, outcome = finished
    assert verify_summary(outcome.session_dir / "summary.json", key=public_key(live.ws, "session"))
    shutil.copy(outcome.session_dir / "summary.json", crashed.session_dir)
    with pytest.raises(PlatformError, match=FILE_NAME) as caught:
        verify_summary(crashed.session_dir / "summary.json", key=public_key(live.ws, "session"))
    assert caught.value.code == ReasonCode.SUMMARY_TAMPERED


def test_recovering_a_session_that_ended_by_itself_writes_nothing(
    copied: tuple[Live, Path],
) -> None:
    live, session_dir = copied
    before = sorted(path.name for path in session_dir.iterdir())
    report = wal_command("recover", live.ws, session_dir.name)
    assert report.is_sound
    assert [row["action"] for row in report.rows] == ["nothing", "nothing"]
    assert sorted(path.name for path in session_dir.iterdir()) == before
    assert not is_recovered(session_dir)


def test_a_finished_session_that_lost_a_segment_since_is_no_evidence_any_more(
    copied: tuple[Live, Path],
) -> None:
    live, session_dir = copied
    read = log(session_dir, "market")
    shutil.rmtree(session_dir / "market")
    kept = records.split(read["tape"])["Book"].size
    cut = len(read["tape"]) - 40 * records.DTYPES["Book"].itemsize
    assert kept > 100
    tape = whole_records(read["tape"], cut)
    with _core.WalWriter(str(session_dir / "market"), read["segments"][0]["wal_id"], "market") as w:
        w.append(tape)
    alpha = SimpleNamespace(alpha_id=ALPHA_ID, alpha_hash="a" * 64, key=f"{ALPHA_ID}@{'a' * 16}")
    context = SimpleNamespace(
        ws=live.ws,
        alpha=alpha,
        judged=SimpleNamespace(latency_sha256="", dataset=SimpleNamespace(sessions=())),
    )
    (before,) = session_summaries(live.ws, alpha, stages=("shadow",))
    assert before.evidence is not None
    assert "SUMMARY_TAMPERED" not in collect_e.collect(context).refused
    report = wal_command("recover", live.ws, session_dir.name)
    assert report.is_sound
    assert is_recovered(session_dir)
    (after,) = session_summaries(live.ws, alpha, stages=("shadow",))
    assert after.evidence is None
    assert FILE_NAME in after.problem
    found = collect_e.collect(context)
    assert (found.sessions, found.refused) == ((), {"SUMMARY_TAMPERED": 1})


def whole_records(tape: bytes, bytes_max: int) -> bytes:
    """The records of a tape that fit."""
    at = 0
    while (end := at + int.from_bytes(tape[at : at + 2], "little")) <= bytes_max:
        at = end
    return tape[:at]


@pytest.mark.parametrize("damage", [lambda raw: raw[:200] + b"x" + raw[201:]])
def test_damage_is_a_problem_and_lists_nothing(
    crashed: Crashed, damage: Callable[[bytes], bytes]
) -> None:
    path = sorted((crashed.session_dir / "market").glob("*.open"))[0]
    path.write_bytes(damage(path.read_bytes()))
    report = wal_command("recover", crashed.live.ws, crashed.session_dir.name)
    assert not report.is_sound
    assert not is_recovered(crashed.session_dir)
