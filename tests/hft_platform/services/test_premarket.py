"""The pre-market checks at the terminal: each passes, and each has been seen to refuse."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from hft_platform import _core
from hft_platform.cli import main
from hft_platform.config.canonical import atomic_write
from hft_platform.config.keys import signing_key
from hft_platform.config.promotion_folder import promotions_root, withdrawn_path
from hft_platform.config.wall_clock import mark_path
from hft_platform.errors import ReasonCode
from hft_platform.services import latch
from hft_platform.services.workspace_lock import WorkspaceLock
from tests.hft_platform.services.live_process import BEFORE_OPEN_NS, FAR_NS, LiveProcess
from tests.hft_platform.services.live_workspace import ALPHA_ID, DAYS, SESSIONS, open_ns

NAMES = (
    *("enabled", "latch", "build", "clock", "disk", "signature", "contract", "session", "config"),
    *("roll", "weight", "latency", "credentials", "certificate", "lock"),
)
TXF = {"instruments": [{"symbol": "TXFD6", "product_root": "TXF"}]}
ROLL = {"kind": "flatten_before_last_trading_day", "trading_days_before": 1}


@pytest.fixture(autouse=True)
def _release_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "BUILD_PROFILE", "release")


def at(text: str) -> int:
    """Taipei time as ns UTC."""
    return int(dt.datetime.fromisoformat(f"{text}+08:00").timestamp()) * 10**9


def test_all_checks_pass_and_nothing_is_opened(process: LiveProcess) -> None:
    head = process.issue()
    rows = process.checks(head)
    assert tuple(rows) == NAMES
    assert all(row["passed"] for row in rows.values()), rows
    assert rows["weight"]["text"] == "50 % in force, orders of 1"
    assert rows["session"]["text"] == "2026-01-05/day, trading day 20260105"
    # A trial of the lock counts no epoch, and leaves it free.
    with WorkspaceLock(process.live.ws, pid=1) as held:
        assert held.epoch == 1


def test_the_table_says_what_refuses_and_what_to_do(
    process: LiveProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    head = process.issue()
    process.patch.delenv("HFT_LIVE_ENABLED")
    command = ["run", "--mode", "live", "--workspace", str(process.live.ws), "--config", str(head)]
    assert main([*command, "--check"]) == 3
    out = capsys.readouterr().out
    assert "LIVE_NOT_ENABLED (403)" in out
    assert "1 checks refuse" in out
    assert "enabled: enable it knowingly" in out


@pytest.mark.parametrize(
    ("changes", "check", "code"),
    [
        ({"stage": "shadow"}, "config", ReasonCode.CONFIG_WRONG_STAGE),
        ({"expires_ns": BEFORE_OPEN_NS}, "config", ReasonCode.CONFIG_EXPIRED),
        (
            {"not_before_ns": open_ns(DAYS[0]) + 1, "expires_ns": FAR_NS},
            "config",
            ReasonCode.CONFIG_NOT_YET_VALID,
        ),
        ({"code_sha256": "0" * 64}, "config", ReasonCode.CONFIG_EVIDENCE_MISMATCH),
        ({"latency_profile_sha256": "0" * 64}, "latency", ReasonCode.CONFIG_EVIDENCE_MISMATCH),
        ({"weight_ppm": 400_000}, "weight", ReasonCode.WEIGHT_BELOW_ONE_LOT),
        (
            {"instruments": [{"symbol": "SIM_EDGE", "product_root": "TXF"}]},
            "contract",
            ReasonCode.CONTRACT_MISMATCH,
        ),
    ],
)
def test_a_permit_that_does_not_hold_is_refused(
    process: LiveProcess, changes: dict[str, Any], check: str, code: int
) -> None:
    head = process.issue(**changes)
    rows = process.checks(head)
    assert {name: row["code"] for name, row in rows.items() if not row["passed"]} == {check: code}
    assert process.refusal(head)["code"] == code


def test_an_automatic_key_signs_nothing_for_live(process: LiveProcess) -> None:
    automatic = signing_key(process.live.ws, "promotion")
    head = process.live.issue(automatic, stage="canary", expires_ns=FAR_NS)
    assert process.checks(head)["config"]["code"] == ReasonCode.KEY_ROLE_FORBIDDEN


def test_a_withdrawn_or_older_issue_is_refused(process: LiveProcess) -> None:
    old = process.issue().read_bytes()
    head = process.issue(promotion_seq=2)
    assert process.checks(head)["config"]["passed"]
    head.write_bytes(old)
    assert process.checks(head)["config"]["code"] == ReasonCode.CONFIG_REPLAYED
    atomic_write(withdrawn_path(promotions_root(process.live.ws), ALPHA_ID, 2), b"{}")
    assert process.checks(head)["config"]["code"] == ReasonCode.CONFIG_WITHDRAWN


def test_a_halt_a_clock_set_back_and_a_second_process_refuse(process: LiveProcess) -> None:
    head = process.issue()
    with WorkspaceLock(process.live.ws, pid=4_711):
        assert process.checks(head)["lock"]["code"] == ReasonCode.WORKSPACE_BUSY
    process.now_ns += 10 * 10**9
    assert process.checks(head)["clock"]["passed"]
    process.now_ns -= 5 * 10**9
    assert process.refusal(head)["code"] == ReasonCode.CLOCK_WENT_BACK
    mark_path(process.live.ws).unlink()
    latch.halt(process.live.ws, who="test", why="feed")
    assert process.refusal(head)["code"] == ReasonCode.KILL_SWITCH_ON


def test_a_debug_build_is_refused(process: LiveProcess) -> None:
    process.patch.setattr(_core, "BUILD_PROFILE", "dev")
    assert process.checks(process.issue())["build"]["code"] == ReasonCode.LIVE_NOT_ENABLED


def test_a_full_disk_is_refused(process: LiveProcess) -> None:
    for level in ("warn", "critical", "halt"):
        variable = f"HFT_DISK_PRESSURE__{level.upper()}"
        process.patch.setenv(
            variable,
            '{"free_bytes_in": 1000000000000000, "free_bytes_out": 1000000000000000,'
            ' "seconds_in": 60, "seconds_out": 180}',
        )
    assert process.checks(process.issue())["disk"]["code"] == ReasonCode.DISK_SPACE_HALT


@pytest.mark.parametrize("name", ["SHIOAJI_API_KEY_FILE", "SHIOAJI_CA_PASSWORD_FILE"])
def test_a_secret_that_others_can_read_is_refused(
    process: LiveProcess, name: str, tmp_path: Path
) -> None:
    (tmp_path / name.lower()).chmod(0o640)
    rows = process.checks(process.issue())
    assert {row["code"] for row in rows.values()} == {0, ReasonCode.KEY_PERMISSIONS}


def test_the_last_days_of_a_contract_are_refused_by_the_signed_rule(process: LiveProcess) -> None:
    head = process.issue(**TXF, roll_rule=ROLL)
    process.now_ns = at("2026-04-14T08:30:00")
    assert process.checks(head)["roll"]["passed"]
    process.now_ns = at("2026-04-15T08:30:00")
    assert process.checks(head)["roll"]["code"] == ReasonCode.ROLL_NOT_PERMITTED


def test_a_rehearsal_needs_a_recording_and_no_credentials(process: LiveProcess) -> None:
    head = process.issue(stage="shadow")
    process.patch.delenv("HFT_LIVE_ENABLED")
    rehearsal = ("--broker", "paper", "--session", SESSIONS[0])
    rows = process.checks(head, *rehearsal)
    assert {name for name in NAMES if name not in rows} == {
        *("enabled", "build", "clock", "credentials", "certificate")
    }
    assert all(row["passed"] for row in rows.values())
    for wrong in (("--broker", "paper"), ("--session", SESSIONS[0])):
        assert process.refusal(head, *wrong)["code"] == ReasonCode.SETTINGS_INVALID
    content = process.refusal(head, "--faults", "drill")
    assert content["code"] == ReasonCode.SETTINGS_INVALID


@pytest.mark.parametrize("option", [("--check",), ("--broker", "paper"), ("--flatten-on-stop",)])
def test_options_of_live_are_refused_elsewhere(
    process: LiveProcess, option: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    head = process.issue()
    command = ["run", "--mode", "sim", "--config", str(head), "--session", SESSIONS[0]]
    assert main([*command, *option, "--workspace", str(process.live.ws)]) == 3
    assert f"{option[0]} belongs to run --mode live" in capsys.readouterr().err
