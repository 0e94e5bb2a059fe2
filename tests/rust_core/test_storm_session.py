"""The storm guard in whole sessions: on the paper exchange, on a real day, and behind a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.config.settings import load_settings
from hft_platform.errors import PlatformError, ReasonCode
from tests.rust_core.engine_tapes import CALM, NEVER, SECOND
from tests.rust_core.market_days import SCALE, TXF_ID, engine_config, txf_session
from tests.rust_core.test_simulation_session import (
    APPROVED,
    PLACE,
    backtest,
    day,
    decisions_of,
    logs,
    open_session,
)

LOOP_LAG, DRIFT = 1, 3
STORM_CHANGE, POLICY_CHANGE, NOTED = 16, 17, 3
GUARD: dict[str, Any] = CALM | {
    "loop_lag_ns": NEVER | {"storm_in": 20_000_000, "storm_out": 10_000_000},
    "drift_reports": NEVER | {"storm_in": 1, "storm_out": 0, "halt_in": 3, "halt_out": 0},
    "clears": 1,
    "cool_down_warm_ns": SECOND,
    "cool_down_storm_ns": SECOND,
}


def changes_of(decisions: np.ndarray, action: int) -> list[tuple[int, int, int]]:
    """Before, after and code of every change."""
    rows = decisions[decisions["action"] == action]
    assert (rows["verdict"] == NOTED).all()
    names = ("time_in_force", "intent_reason", "reason_code")
    return [tuple(int(row[name]) for name in names) for row in rows]  # type: ignore[misc]


def opened(decisions: np.ndarray) -> np.ndarray:
    """Approved orders that did not only reduce."""
    placed = decisions[(decisions["verdict"] == APPROVED) & (decisions["action"] == PLACE)]
    reduces = (placed["side"] * placed["position_qty"] < 0) & (
        placed["qty"] <= np.abs(placed["position_qty"])
    )
    return placed[~reduces]


@pytest.mark.parametrize("kind", ["taker", "maker"])
def test_health_reports_degrade_and_halt_a_session_that_replays_bit_for_bit(
    tmp_path: Path, kind: str
) -> None:
    config = engine_config(day(), kind) | {"storm_guard": GUARD}
    session = open_session(tmp_path, config)
    session.feed(day())
    session.run(None, 1_000)
    late = session.health(LOOP_LAG, 25_000_000)
    assert session.counters()["storm"]["policy"] == "DEGRADED"
    session.run(None, 600)
    fine = session.health(LOOP_LAG, 0)
    session.run(None, 600)
    for _ in range(3):
        halted = session.health(DRIFT, -SCALE, instrument_id=TXF_ID)
    storm = session.counters()["storm"]
    assert (storm["state"], storm["policy"]) == ("HALT", "HALT")
    assert storm["cause"] == ReasonCode.STORM_POSITION_DRIFT
    assert storm["inputs"][ReasonCode.STORM_POSITION_DRIFT] == (3, 3)
    finished = session.finish()
    assert finished["halted_by"] == ReasonCode.STORM_POSITION_DRIFT
    inputs, decisions = logs(tmp_path)
    made = decisions_of(decisions)
    seqs = opened(made)["input_seq"]
    assert ((seqs < late).any(), ((seqs > late) & (seqs < fine)).any()) == (True, False)
    assert ((seqs > fine) & (seqs < halted)).any(), "calm again"
    assert not (seqs > halted).any()
    assert changes_of(made, POLICY_CHANGE)[-1][:2] == (1, 2)
    assert len(changes_of(made, STORM_CHANGE)) >= 5
    assert len(records.split(inputs)["Health"]) == 5
    assert _core.replay(json.dumps(config), inputs) == decisions
    # The reports are what it followed from: without their values it decides otherwise.
    silent = bytearray(inputs)
    at = silent.find(records.split(inputs)["Health"][0].tobytes())
    silent[at + 72 : at + 80] = bytes(8)
    assert _core.replay(json.dumps(config), bytes(silent)) != decisions


def test_a_restart_from_a_sessions_own_log_has_its_position_and_its_result(tmp_path: Path) -> None:
    config = engine_config(day(), "taker")
    session = open_session(tmp_path, config)
    session.feed(day())
    session.run(None, 2_000)
    before = session.counters()
    finished = session.finish()
    order_log = _core.read_log(str(tmp_path / "orders"))["tape"]
    engine = _core.Engine(json.dumps(config))
    found = engine.recover(order_log)
    assert (found["odd_records"], found["unknown_orders"]) == (0, 0)
    after, whole = engine.counters(), finished["counters"]
    assert before["fills"] > 20
    for name in ("position_qty", "fees", "realised_pnl", "fill_count", "weight_ppm", "stage"):
        assert after["alphas"][0][name] == whole["alphas"][0][name], name


@pytest.mark.recordings
@pytest.mark.parametrize("kind", ["taker", "maker"])
def test_a_real_day_under_the_packaged_thresholds_replays_with_its_changes(
    recordings: Path, kind: str
) -> None:
    tape = txf_session(recordings)
    guard = load_settings(Path("none"), environment={}).storm_guard()
    config = engine_config(tape, kind) | {"storm_guard": guard}
    result = backtest(tape, config, queue_model="power_prob3", setting="drawn", package=False)
    made = decisions_of(result["decisions"])
    storms = changes_of(made, STORM_CHANGE)
    # Ordinary silence of a liquid future warms a few times and never storms.
    gaps = [change for change in storms if change[2] == ReasonCode.STORM_FEED_GAP]
    assert 0 < len(gaps) < 20
    assert max(change[1] for change in gaps) == 1
    # These alphas lose on purpose: the drawdown ends their day before it costs twice as much.
    assert storms[-1] == (1, 2, ReasonCode.STORM_DRAWDOWN)
    assert not (
        opened(made)["input_seq"] > made[made["action"] == POLICY_CHANGE][-1]["input_seq"]
    ).any()
    assert _core.replay(json.dumps(config), result["inputs"]) == result["decisions"]


HALT_AND_DIE = """
import json, os, signal, sys
from pathlib import Path
from hft_platform import _core
from tests.rust_core.market_days import TXF_ID, engine_config
from tests.rust_core.test_simulation_session import day, latency
from tests.rust_core.test_storm_session import GUARD

folder, cause = sys.argv[1:]
session = _core.PaperSession(
    json.dumps(engine_config(day(), "maker") | {"storm_guard": GUARD}),
    json.dumps(latency("drawn")), json.dumps({"queue_model": "power_prob3"}), folder,
    # Nothing is synced by time: what is there was put there at once.
    json.dumps({"wal_id": 77, "durable": "group", "group_commit_ms": 60_000}),
)
session.feed(day())
session.run(None, 900)
if cause == "command":
    session.command(1, 0xFFFF_FFFF, 0, 201)
else:
    for _ in range(3):
        session.health(3, 1, instrument_id=TXF_ID)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("cause", "code"),
    [("command", ReasonCode.KILL_SWITCH_ON), ("drift", ReasonCode.STORM_POSITION_DRIFT)],
)
def test_a_halt_is_on_disk_before_anything_else_happens(
    tmp_path: Path, repository: Path, cause: str, code: ReasonCode
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HALT_AND_DIE, str(tmp_path), cause],
        cwd=repository, timeout=60, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    log = _core.read_log(str(tmp_path / "orders"))["tape"]
    made = records.split(log)["Decision"]
    assert changes_of(made, POLICY_CHANGE)[-1][1:] == (2, code)
    config = engine_config(day(), "maker") | {"storm_guard": GUARD}
    engine = _core.Engine(json.dumps(config))
    assert engine.recover(log)["halted_by"] == code


def test_health_needs_a_recording_like_every_record(tmp_path: Path) -> None:
    session = open_session(tmp_path, engine_config(day(), "taker"))
    with pytest.raises(PlatformError, match="no recording"):
        session.health(LOOP_LAG, 1)
