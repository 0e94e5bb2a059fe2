"""hft-live at the terminal: what it prints, what it refuses, and with which exit code.

0 done, 1 failed, 2 usage, 3 refused with a reason code.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hft_platform import _core
from hft_platform.cli import main
from hft_platform.config.canonical import atomic_write
from hft_platform.config.keys import signing_key
from hft_platform.config.promotion_folder import promotions_root, withdrawn_path
from hft_platform.errors import ReasonCode
from tests.hft_platform.services.live_workspace import (
    ALPHA_ID,
    DAYS,
    SESSIONS,
    SYMBOL,
    Live,
    make_live,
    open_ns,
)

FAR_NS = 9_000_000_000_000_000_000


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Live:
    """The ingested market; nobody runs in it."""
    return make_live(tmp_path_factory.mktemp("market"))


@pytest.fixture
def live(market: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Live:
    """A workspace of one's own, and a working folder without config."""
    shutil.copytree(market.ws / "datasets", tmp_path / "ws" / "datasets")
    for name in ("HFT_LIVE_ENABLED", "SHIOAJI_API_KEY_FILE", "SHIOAJI_SECRET_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return Live(tmp_path / "ws")


class Terminal:
    """Runs hft-live in this process and keeps what it said."""

    def __init__(self, live: Live, capsys: pytest.CaptureFixture[str]) -> None:
        self._live = live
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        command, *rest = arguments
        try:
            code = main([command, "--workspace", str(self._live.ws), *rest])
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def json(self, *arguments: str) -> tuple[int, Any]:
        """Exit code and the last line as JSON."""
        code, out, _ = self(*arguments, "--json")
        return code, json.loads(out.strip().splitlines()[-1])


@pytest.fixture
def hft_live(live: Live, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """The command."""
    return Terminal(live, capsys)


def paper(*more: str, session: str = SESSIONS[0]) -> tuple[str, ...]:
    """Arguments of a quick paper run."""
    return ("run", "--mode", "paper", "--speed", "max", "--session", session, *more)


def refused(terminal: Terminal, *arguments: str) -> dict[str, Any]:
    """The error of a refusal, which must say what, why and what next."""
    code, content = terminal.json(*arguments)
    assert code == 3, content
    text_code, _, err = terminal(*arguments)
    assert text_code == 3
    assert err.startswith(f"error {content['error']} ({content['code']}): ")
    assert [line.split()[0] for line in err.splitlines()] == ["error", "why:", "next:"]
    assert content["next"]
    return dict(content)


def test_run_replay_explain_and_status_tell_one_story(live: Live, hft_live: Terminal) -> None:
    live.issue()
    code, out, _ = hft_live(*paper("--alpha", ALPHA_ID, session=SESSIONS[0]))
    assert code == 0
    assert "decisions identical" in out
    run_id = out.split()[1]
    code, report = hft_live.json("replay", run_id)
    assert (code, report["is_identical"], report["summary_agrees"]) == (0, True, True)
    code, out, _ = hft_live("replay", run_id)
    assert f"parity {report['total']} of {report['total']} decisions identical (100.00%)" in out
    code, orders = hft_live.json("explain", "--session", run_id)
    assert code == 0
    order_id = str(orders[0]["order_id"])
    code, found = hft_live.json("explain", order_id, "--session", run_id)
    assert (code, found["alpha_id"]) == (0, ALPHA_ID)
    code, out, _ = hft_live("explain", order_id, "--session", run_id)
    assert out.startswith(f"order {order_id} of {ALPHA_ID} on {SYMBOL}\n")
    code, out, _ = hft_live("explain", order_id, "--session", run_id, "--checks")
    shown = sum(line.startswith("    check ") for line in out.splitlines())
    assert (code, shown) == (0, len(found["traces"][0]["checks"]))
    code, refusals = hft_live.json("explain", "--session", run_id, "--refused")
    assert {row["verdict"] for row in refusals} == {"refused"}
    intent_id = str(refusals[0]["intent_id"])
    code, out, _ = hft_live("explain", "--session", run_id, "--refused")
    assert out.startswith(f"{intent_id} entry ")
    code, out, _ = hft_live("explain", intent_id, "--session", run_id)
    assert (code, out.split(" of ")[0]) == (0, f"refused intent {intent_id}")
    code, out, _ = hft_live("explain", "--session", run_id)
    assert len(out.splitlines()) == len(orders)
    code, status = hft_live.json("status")
    assert [row["run_id"] for row in status["sessions"]] == [run_id]
    code, out, _ = hft_live("status")
    assert code == 0
    assert "not halted" in out
    assert f"{ALPHA_ID}: shadow weight 50 % seq 1" in out


def test_several_sessions_run_in_order(live: Live, hft_live: Terminal) -> None:
    head = live.issue()
    code, rows = hft_live.json(
        "run", "--mode", "sim", "--config", str(head), "--session", *SESSIONS
    )
    assert code == 0
    assert [row["session_id"] for row in rows] == list(SESSIONS)
    assert {row["mode"] for row in rows} == {"sim"}


def test_a_config_with_one_byte_changed_is_refused(live: Live, hft_live: Terminal) -> None:
    head = live.issue()
    whole = head.read_bytes()
    seen = set()
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        changed = bytearray(whole)
        changed[place] ^= 1
        head.write_bytes(changed)
        code, content = hft_live.json(*paper("--config", str(head)))
        assert code == 3, f"byte {place}"
        assert 501 <= content["code"] <= 508, content
        seen.add(content["error"])
    assert "CONFIG_SIGNATURE_INVALID" in seen
    assert not (live.ws / "sessions").exists()
    head.write_bytes(whole)
    assert hft_live.json(*paper("--config", str(head)))[0] == 0


def test_a_changed_symbol_is_called_a_broken_signature_and_not_a_missing_session(
    live: Live, hft_live: Terminal
) -> None:
    """The session was once looked up by the symbols of a config that nobody had verified."""
    head = live.issue()
    head.write_bytes(head.read_bytes().replace(b"SIM_EDGE", b"SIM_NULL"))
    content = refused(hft_live, *paper("--config", str(head)))
    assert content["code"] == ReasonCode.CONFIG_SIGNATURE_INVALID


def test_an_unsigned_config_is_refused(live: Live, hft_live: Terminal) -> None:
    head = live.issue()
    text = head.read_text()
    start = text.index("signature:")
    end = text.index("stage:")
    head.write_text(text[:start] + text[end:])
    assert refused(hft_live, *paper("--config", str(head)))["code"] == ReasonCode.CONFIG_UNSIGNED


def test_a_config_of_another_workspace_is_refused(
    live: Live, hft_live: Terminal, tmp_path: Path
) -> None:
    head = live.issue(signing_key(tmp_path / "other", "promotion"))
    signing_key(live.ws, "promotion")
    assert refused(hft_live, *paper("--config", str(head)))["code"] == ReasonCode.CONFIG_KEY_UNKNOWN


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"expires_ns": open_ns(DAYS[0])}, ReasonCode.CONFIG_EXPIRED),
        (
            {"not_before_ns": open_ns(DAYS[0]) + 1, "expires_ns": FAR_NS},
            ReasonCode.CONFIG_NOT_YET_VALID,
        ),
        ({"code_sha256": "0" * 64}, ReasonCode.CONFIG_EVIDENCE_MISMATCH),
    ],
)
def test_a_config_outside_its_time_or_of_other_code_is_refused(
    live: Live, hft_live: Terminal, changes: dict[str, Any], code: int
) -> None:
    head = live.issue(**changes)
    assert refused(hft_live, *paper("--config", str(head)))["code"] == code
    assert not list((live.ws / "sessions").glob("*"))


def test_an_older_sequence_put_back_is_refused(live: Live, hft_live: Terminal) -> None:
    old = live.issue(promotion_seq=1).read_bytes()
    head = live.issue(promotion_seq=2)
    assert hft_live(*paper("--alpha", ALPHA_ID))[0] == 0
    head.write_bytes(old)
    content = refused(hft_live, *paper("--alpha", ALPHA_ID))
    assert content["code"] == ReasonCode.CONFIG_REPLAYED


def test_a_withdrawn_config_is_refused(live: Live, hft_live: Terminal) -> None:
    live.issue()
    atomic_write(withdrawn_path(promotions_root(live.ws), ALPHA_ID, 1), b"{}")
    content = refused(hft_live, *paper("--alpha", ALPHA_ID))
    assert content["code"] == ReasonCode.CONFIG_WITHDRAWN


def test_a_session_of_another_instrument_is_refused(live: Live, hft_live: Terminal) -> None:
    head = live.issue(instruments=[{"symbol": "SIM_NULL", "product_root": "SIM"}])
    content = refused(hft_live, *paper("--config", str(head), "--symbol", SYMBOL))
    assert content["code"] == ReasonCode.CONFIG_WRONG_INSTRUMENT
    content = refused(hft_live, *paper("--config", str(head)))
    assert content["code"] == ReasonCode.CONFIG_NOT_FOUND, "there is no such recording at all"


@pytest.mark.parametrize("argument", ["--alpha", "--config"])
def test_what_was_never_promoted_is_not_found(hft_live: Terminal, argument: str) -> None:
    assert refused(hft_live, *paper(argument, "no_such"))["code"] == ReasonCode.CONFIG_NOT_FOUND


def test_a_session_that_was_not_recorded_is_refused_and_the_recorded_ones_are_named(
    live: Live, hft_live: Terminal
) -> None:
    head = live.issue()
    content = refused(hft_live, *paper("--config", str(head), session="2026-02-02/day"))
    assert content["code"] == ReasonCode.CONFIG_NOT_FOUND
    assert SESSIONS[0] in content["message"]
    content = refused(hft_live, "run", "--mode", "sim", "--config", str(head))
    assert "--session" in content["next"]


def test_a_halt_refuses_every_mode_and_is_lifted_in_two_steps(
    live: Live, hft_live: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = live.issue()
    code, out, _ = hft_live("halt", "--why", "checking the feed")
    assert code == 0
    assert "hft-live resume" in out
    monkeypatch.setenv("HFT_LIVE_ENABLED", "1")
    for mode in ("sim", "paper", "live"):
        recorded = () if mode == "live" else ("--session", SESSIONS[0])
        content = refused(hft_live, "run", "--mode", mode, "--config", str(head), *recorded)
        assert content["code"] == ReasonCode.KILL_SWITCH_ON
        assert "checking the feed" in content["message"]
    assert "HALTED by" in hft_live("status")[1]
    code, first = hft_live.json("resume")
    assert code == 0
    assert refused(hft_live, "resume", "--confirm", "12345678")["code"] == ReasonCode.KILL_SWITCH_ON
    assert hft_live("resume", "--confirm", first["token"])[0] == 0
    assert hft_live.json("resume") == (0, {"halted": False})
    assert hft_live(*paper("--config", str(head)))[0] == 0


def test_a_replay_that_differs_or_logs_of_another_session_exit_1(
    live: Live, hft_live: Terminal
) -> None:
    live.issue()
    _, (evidence,) = hft_live.json(*paper("--alpha", ALPHA_ID))
    session_dir = live.ws / "sessions" / evidence["run_id"]
    engine = session_dir / "engine.json"
    whole = engine.read_bytes()
    engine.write_bytes(whole.replace(b'"entry_ticks":2.5', b'"entry_ticks":2.0'))
    code, report = hft_live.json("replay", evidence["run_id"])
    assert (code, report["is_identical"]) == (1, False)
    code, out, _ = hft_live("replay", str(session_dir))
    assert code == 1
    assert "decided otherwise: " in out or "only in the replay" in out
    engine.write_bytes(whole)
    other = hft_live.json(*paper("--alpha", ALPHA_ID, session=SESSIONS[1]))[1][0]["run_id"]
    for kind in ("market", "orders"):
        shutil.rmtree(session_dir / kind)
        shutil.copytree(live.ws / "sessions" / other / kind, session_dir / kind)
    shutil.copy(live.ws / "sessions" / other / "engine.json", engine)
    code, report = hft_live.json("replay", evidence["run_id"])
    assert (code, report["is_identical"], report["summary_agrees"]) == (1, True, False)


def test_wal_verify_exits_1_on_damage_and_0_without(live: Live, hft_live: Terminal) -> None:
    live.issue()
    _, (evidence,) = hft_live.json(*paper("--alpha", ALPHA_ID))
    run_id = evidence["run_id"]
    for action in ("inspect", "verify", "recover"):
        code, report = hft_live.json("wal", action, run_id)
        assert (code, report["is_sound"], len(report["rows"])) == (0, True, 2)
    segment = live.ws / "sessions" / run_id / "market" / "00000001.seg"
    segment.write_bytes(segment.read_bytes()[:5_000])
    for action in ("inspect", "verify", "recover"):
        code, out, _ = hft_live("wal", action, run_id)
        assert code == 1
        assert "problem WAL_SEGMENT_MISMATCH (603)" in out
    content = refused(hft_live, "replay", run_id)
    assert content["code"] == ReasonCode.WAL_SEGMENT_MISMATCH
    assert refused(hft_live, "wal", "verify", "nothing")["code"] == ReasonCode.CONFIG_NOT_FOUND


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("fly",),
        ("run",),
        ("run", "--mode", "paper"),
        ("run", "--mode", "yolo", "--alpha", "a"),
        ("run", "--mode", "paper", "--alpha", "a", "--config", "b"),
        ("run", "--mode", "paper", "--alpha", "a", "--speed", "0"),
        ("run", "--mode", "paper", "--alpha", "a", "--speed", "nan"),
        ("run", "--mode", "paper", "--alpha", "a", "--speed", "fast"),
        ("replay",),
        ("explain", "7"),
        ("explain", "seven", "--session", "s"),
        ("halt",),
        ("wal", "eat"),
    ],
)
def test_wrong_usage_exits_2_and_shows_the_usage(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    assert "usage: hft-live" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [("replay", "none"), ("explain", "--session", "none"), ("explain", "5", "--session", "none")],
)
def test_reading_a_session_that_is_not_there_is_refused(
    hft_live: Terminal, arguments: tuple[str, ...]
) -> None:
    content = refused(hft_live, *arguments)
    assert content["code"] == ReasonCode.CONFIG_NOT_FOUND
    assert content["next"] == "hft-live status"


@pytest.mark.parametrize(
    "command", [["status"], ["wal", "load"], ["halt", "--why", "x"], ["resume"]]
)
def test_a_workspace_that_is_a_file_is_refused_without_a_traceback(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main([*command, "--workspace", str(tmp_path / "file"), "--json"]) == 3
    content = json.loads(capsys.readouterr().out)
    assert content["code"] == ReasonCode.WAL_READ_FAILED
    assert str(tmp_path / "file") in content["message"]


@pytest.mark.parametrize(
    ("action", "option"),
    [
        ("verify", ["--follow"]),
        ("inspect", ["--check"]),
        ("load", ["--target", "x"]),
        ("recover", ["--swap-in", "x"]),
        ("follow", ["--check"]),
    ],
)
def test_an_option_of_another_wal_action_is_refused_not_passed_over(
    action: str, option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["wal", action, *option, "--workspace", str(tmp_path)]) == 3
    assert f"{option[0]} belongs to wal" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_the_installed_command_exits_as_the_function_does(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "hft_platform.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run("status", "--workspace", str(tmp_path)).returncode == 0
    assert run("replay", "none", "--workspace", str(tmp_path)).returncode == 3
    bad = run("fly")
    assert bad.returncode == 2
    assert "Traceback" not in bad.stderr


def test_a_core_that_raises_is_a_refusal_and_no_traceback(live: Live, hft_live: Terminal) -> None:
    """Errors of the core have their own classes; none of them may reach an operator raw."""
    live.issue()
    _, (evidence,) = hft_live.json(*paper("--alpha", ALPHA_ID))
    session_dir = live.ws / "sessions" / evidence["run_id"]
    (session_dir / "engine.json").write_bytes(b"{}")
    assert refused(hft_live, "replay", evidence["run_id"])["code"] == ReasonCode.CONFIG_MALFORMED
    with pytest.raises(_core.ConfigError):
        _core.replay("{}", b"")
