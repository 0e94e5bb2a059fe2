"""Idempotency across a kill -9: real processes that write an order log and die."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.errors import ReasonCode
from tests.rust_core import engine_tapes as tapes
from tests.rust_core.engine_tapes import SCALE, SECOND, START

ALL_ALPHAS = 0xFFFF_FFFF
LIVES = 12
"""Kills, each at another place."""

TRADE_AND_DIE = """
import os, signal, sys
from pathlib import Path
import numpy as np
from hft_platform import _core, records

log_dir, config, tape_path, stop_after, halts = sys.argv[1:]
engine = _core.Engine(config)
writer = _core.WalWriter(log_dir, 7, "orders", group_commit_ms=0)
tape, offset, orders, seq = Path(tape_path).read_bytes(), 0, 0, 0

def feed(record, is_order_record):
    global seq
    seq += 1
    row = bytearray(record)
    row[8:16] = seq.to_bytes(8, "little")
    time_ns = max(int.from_bytes(row[32:40], "little"), feed.last + 1)
    feed.last = time_ns
    row[40:48] = time_ns.to_bytes(8, "little")
    decisions = engine.on_tape(bytes(row))
    # Journal first: input and decisions are durable before anybody hears of them.
    log = (bytes(row) if is_order_record else b"") + decisions
    if log:
        writer.append_durable(log)
    return np.frombuffer(decisions, dtype=records.DTYPES["Decision"])

feed.last = 0
while offset < len(tape):
    size = int.from_bytes(tape[offset : offset + 2], "little")
    waiting = list(feed(tape[offset : offset + size], False))
    while waiting:
        decision = waiting.pop(0)
        if decision["verdict"] != 1 or decision["action"] != 1:
            continue
        orders += 1
        print(int(decision["intent_id"]), int(decision["order_id"]), flush=True)
        if orders == int(stop_after):
            if halts == "halt":
                command = records.empty("Command", 1)
                command["receive_time_ns"] = feed.last
                command["command_kind"], command["alpha_index"] = 1, 0xFFFF_FFFF
                command["reason_code"] = 201
                feed(command.tobytes(), True)
            os.kill(os.getpid(), signal.SIGKILL)
        fill = records.empty("Broker", 1)
        fill["receive_time_ns"] = feed.last
        fill["event_kind"], fill["order_id"] = 3, decision["order_id"]
        fill["side"], fill["price"], fill["qty"] = (
            decision["side"], decision["price"], decision["qty"]
        )
        fill["broker_seq"] = orders
        waiting += list(feed(fill.tobytes(), True))
    offset += size
raise SystemExit("the tape ended before the kill")
"""


def config() -> str:
    """A taker that trades often and is never stopped by a limit."""
    content = tapes.config("k * imbalance_l1", tapes.TAKER | {"hold_ns": SECOND // 10})
    content["alphas"][0]["limits"]["daily_loss_max"] = 10**17
    content["alphas"][0]["limits"]["drawdown_max"] = 10**17
    content["account_limits"]["order_rate_max"] = 1_000
    content["alphas"][0]["limits"]["order_rate_max"] = 1_000
    return tapes.text(content)


def live_and_die(folder: Path, orders: int, *, halts: bool) -> tuple[list[list[int]], bytes]:
    """Intents and orders that a process had sent when it was killed, and its order log."""
    tape_path = folder / "day.tape"
    tape_path.write_bytes(tapes.day(2_500))
    how = "halt" if halts else "go"
    arguments = [str(folder / "orders"), config(), str(tape_path), str(orders), how]
    done = subprocess.run(
        [sys.executable, "-c", TRADE_AND_DIE, *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    sent = [[int(word) for word in line.split()] for line in done.stdout.splitlines()]
    assert len(sent) == orders
    return sent, _core.read_log(str(folder / "orders"))["tape"]


def next_orders(engine: _core.Engine, last_seq: int, last_ns: int, count: int) -> np.ndarray:
    """What an engine decides on a day that goes on behind a restart."""
    rows = tapes.books(count, seed=99)
    rows["receive_time_ns"] += last_ns - START + SECOND
    rows["input_seq"] = last_seq + 1 + np.arange(count)
    rows["sequence_time_ns"] = rows["receive_time_ns"]
    return np.frombuffer(engine.on_tape(rows.tobytes()), dtype=records.DTYPES["Decision"])


@pytest.mark.parametrize("life", range(LIVES))
def test_no_intent_is_sent_twice_whenever_the_process_is_killed(tmp_path: Path, life: int) -> None:
    sent, log = live_and_die(tmp_path, 2 + 3 * life, halts=False)
    decisions = records.split(log)["Decision"]
    last_ns = int(decisions["sequence_time_ns"].max())
    engine = _core.Engine(config())
    found = engine.recover(log)
    assert found["odd_records"] == 0
    assert found["unknown_orders"] == 1, "the last order had no answer"
    assert found["halted_by"] == 0
    assert engine.counters()["open_orders"] == 1
    fills = records.split(log)["Broker"]
    assert engine.counters()["alphas"][0]["position_qty"] == (fills["side"] * fills["qty"]).sum()

    # Nothing opens while the outcome is unknown.
    later = next_orders(engine, 1_000_000, last_ns, 40)
    opening = later[(later["verdict"] == 1) & (later["action"] == 1)]
    assert (opening["side"] * opening["position_qty"] < 0).all()
    # It never was at the exchange: resolved, and resumed in two steps.
    resolved = records.empty("Broker", 1)
    resolved["event_kind"], resolved["order_id"], resolved["side"] = 6, sent[-1][1], 1
    steps = [resolved.tobytes()]
    for kind, argument in ((2, 0), (3, 1_000_042)):
        command = records.empty("Command", 1)
        command["command_kind"], command["alpha_index"] = kind, ALL_ALPHAS
        command["argument"] = argument
        steps.append(command.tobytes())
    decided = b""
    for seq, step in enumerate(steps, start=1_000_041):
        row = bytearray(step)
        row[8:16] = seq.to_bytes(8, "little")
        row[40:48] = (last_ns + 60 * SECOND + seq).to_bytes(8, "little")
        decided += engine.on_tape(bytes(row))
    assert engine.counters()["storm"]["policy"] == "NORMAL"
    decided += next_orders(engine, 1_000_050, last_ns + 61 * SECOND, 200).tobytes()
    fresh = np.frombuffer(decided, dtype=records.DTYPES["Decision"])
    placed = fresh[(fresh["verdict"] == 1) & (fresh["action"] == 1)]
    assert placed.size > 0
    intents, orders = ({row[place] for row in sent} for place in (0, 1))
    assert not intents & set(placed["intent_id"].tolist())
    assert not orders & set(placed["order_id"].tolist())


def test_a_dedup_that_lives_in_memory_only_sends_the_same_intent_again(tmp_path: Path) -> None:
    """Negative control: the same restart without the order log."""
    sent, log = live_and_die(tmp_path, 5, halts=False)
    last_ns = int(records.split(log)["Decision"]["sequence_time_ns"].max())
    forgetful = _core.Engine(config())
    again = next_orders(forgetful, 1_000_000, last_ns, 200)
    placed = again[(again["verdict"] == 1) & (again["action"] == 1)]
    assert {row[0] for row in sent} & set(placed["intent_id"].tolist())
    assert {row[1] for row in sent} & set(placed["order_id"].tolist())


def test_a_process_killed_right_behind_a_halt_comes_up_halted(tmp_path: Path) -> None:
    _, log = live_and_die(tmp_path, 6, halts=True)
    engine = _core.Engine(config())
    assert engine.recover(log)["halted_by"] == ReasonCode.KILL_SWITCH_ON
    storm = engine.counters()["storm"]
    assert (storm["policy"], storm["policy_code"]) == ("HALT", ReasonCode.KILL_SWITCH_ON)
    last_ns = int(records.split(log)["Decision"]["sequence_time_ns"].max())
    later = next_orders(engine, 1_000_000, last_ns, 60)
    placed = later[(later["verdict"] == 1) & (later["action"] == 1)]
    assert (placed["side"] * placed["position_qty"] < 0).all(), "only what reduces"
    assert engine.counters()["halted_by"] == ReasonCode.KILL_SWITCH_ON


def test_a_log_that_is_no_tape_or_comes_late_is_refused(tmp_path: Path) -> None:
    _, log = live_and_die(tmp_path, 3, halts=False)
    with pytest.raises(_core.TapeError) as caught:
        _core.Engine(config()).recover(log[:-1])
    assert caught.value.args[0] == ReasonCode.FILE_DAMAGED
    engine = _core.Engine(config())
    engine.on_tape(tapes.books(3).tobytes())
    with pytest.raises(_core.TapeError) as caught:
        engine.recover(log)
    assert caught.value.args[0] == ReasonCode.LOG_SEQUENCE_GAP


def test_thresholds_that_make_no_sense_are_refused() -> None:
    good = tapes.config("k")
    band = tapes.NEVER | {"storm_in": 10, "storm_out": 10}
    for damage in (
        {"feed_gap_ns": band},
        {"feed_gap_ns": tapes.NEVER | {"warm_in": 10}},
        {"feed_gap_ns": tapes.NEVER | {"warm_out": 10}},
        {"feed_gap_ns": tapes.NEVER | {"warm_in": 9, "warm_out": 1, "halt_in": 8, "halt_out": 1}},
        {"reject_count": tapes.NEVER | {"storm_in": 5_000, "storm_out": 1}},
        {"risk_capital": 0},
        {"clears": 0},
        {"resume_window_ns": 0},
        {"surplus": 1},
        {"loop_lag_ns": {"warm_in": 1, "warm_out": 0}},
    ):
        content = good | {"storm_guard": tapes.CALM | damage}
        with pytest.raises(_core.ConfigError) as caught:
            _core.Engine(tapes.text(content))
        assert caught.value.args[0] == ReasonCode.CONFIG_MALFORMED
    assert SCALE == records.SCALE
