"""A live session that dies and is taken over: nothing twice, nothing forgotten, all replayed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services.explain import explain_order, list_orders
from hft_platform.services.parity import parity_of, read_session, replay_session
from tests.rust_core.live_driver import (
    CANCEL,
    FILL,
    PLACE,
    Broker,
    broker_event,
    decisions_of,
    drive,
    open_live,
    records_of,
    tapes,
)
from tests.rust_core.market_days import engine_config, synthetic_day

DAY_BOOKS = 600
APPROVED = 1


@cache
def day() -> bytes:
    return synthetic_day(snapshots=DAY_BOOKS)


@cache
def pieces() -> list[bytes]:
    """The day in four pieces."""
    rows = [record for _, record in records_of(day())]
    size = len(rows) // 4
    return [b"".join(rows[n * size : (n + 1) * size]) for n in range(4)]


def config(kind: str = "maker") -> dict[str, Any]:
    return engine_config(day(), kind)


def last_request(session: _core.LiveSession, tape: bytes, broker: Broker) -> _core.OrderRequest:
    """Drive until an order is placed, and leave that one unanswered."""
    for now_ns, record in records_of(tape):
        session.push(record)
        while (request := session.next_request(0)) is not None:
            if request.action == PLACE:
                return request
            session.push(broker.answer(request, now_ns))
    raise AssertionError("no order was placed")


def resume(session: _core.LiveSession, now_ns: int) -> None:
    """An operator's two steps."""
    for kind in (2, 3):
        row = records.empty("Command", 1)
        row["command_kind"], row["alpha_index"], row["receive_time_ns"] = kind, 0xFFFF_FFFF, now_ns
        if kind == 3:
            row["argument"] = session.state()["last_seq"]
        session.push(row.tobytes())


def test_a_session_of_three_processes_is_decided_again_bit_for_bit(tmp_path: Path) -> None:
    broker = Broker()
    first = open_live(tmp_path, config(), epoch=3)
    drive(first, pieces()[0], broker)
    unanswered = last_request(first, pieces()[1], broker)
    last_seq = first.state()["last_seq"]
    first.close()

    second = open_live(tmp_path, config(), epoch=4)
    found = second.recovered()
    assert (found["is_new"], found["last_epoch"], found["last_seq"]) == (False, 3, last_seq)
    assert found["unknown_orders"] == len(second.orders()) >= 1
    assert found["odd_records"] == 0
    unknown = {order["order_id"]: order for order in second.orders()}
    assert {order["state"] for order in unknown.values()} == {"unknown"}
    assert (
        unknown[unanswered.order_id]["tag"]
        == unanswered.tag
        == _core.order_tag(3, unanswered.decision_seq)
    )
    assert second.next_request(0) is None, "nothing that was decided before is sent again"
    assert second.state()["last_seq"] == last_seq + 2, "Epoch and Instrument; the permit is known"
    # Found at the broker: filled. The others are not there.
    now_ns = found["last_time_ns"]
    for order_id in unknown:
        is_filled = order_id == unanswered.order_id
        row = records.empty("Broker", 1)
        row["receive_time_ns"], row["order_id"], row["instrument_id"] = now_ns, order_id, 1001
        row["event_kind"] = FILL if is_filled else 4
        row["side"], row["price"] = unknown[order_id]["side"], unknown[order_id]["price"]
        row["qty"] = unknown[order_id]["qty"] - unknown[order_id]["filled_qty"]
        row["broker_seq"] = 1_000_000 + (order_id & 0xFFFF)
        second.push(row.tobytes())
    assert second.orders() == []
    resume(second, now_ns)
    drive(second, pieces()[2], broker)
    second.close()

    third = open_live(tmp_path, config(), epoch=9)
    assert third.recovered()["last_epoch"] == 4
    drive(third, pieces()[3], broker)
    third.finish()

    made = decisions_of(tapes(tmp_path)[1])
    requests = made[(made["verdict"] == APPROVED) & (made["action"] <= 2)]
    asked = sorted([r.decision_seq for r in broker.requests] + [unanswered.decision_seq])
    assert asked == requests["decision_seq"].tolist(), "every one left once, over all processes"
    assert np.all(np.diff(made["decision_seq"].astype(np.int64)) == 1)
    placed = requests[requests["action"] == PLACE]
    assert np.unique(placed["order_id"]).size == placed.size

    report = replay_session(tmp_path)
    assert report.is_identical
    assert (report.lives, report.total) == (3, made.size)
    assert (report.not_replayable, report.unlogged) == (0, 0)
    assert report.total > 30
    assert json.loads((tmp_path / "parity.json").read_bytes())["lives"] == 3

    # The negative control: another config, or a recovery left out, is no parity.
    logs = read_session(tmp_path)
    changed = config()
    changed["alphas"][0]["parameters"]["k"] = 1.5
    assert not parity_of(logs, changed).is_identical
    life = logs.lives[1]
    again = _core.replay(json.dumps(config()), life.extent.inputs)
    assert again != life.extent.decisions

    # An order of each process explains itself by that process's replay.
    for seq in (first_of_life.first_seq for first_of_life in logs.lives):
        ids = [row["order_id"] for row in list_orders(tmp_path) if row["input_seq"] > seq]
        explained = explain_order(tmp_path, ids[0])
        assert [trace.disagreement for trace in explained.traces] == [""] * len(explained.traces)


def test_an_epoch_that_is_not_above_all_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    session = open_live(tmp_path, config(), epoch=5)
    with pytest.raises(PlatformError) as busy:
        open_live(tmp_path, config(), epoch=6)
    assert busy.value.code == ReasonCode.WAL_BUSY, "the lock of a living process"
    drive(session, pieces()[0], Broker())
    session.close()
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    for epoch in (1, 4, 5):
        with pytest.raises(PlatformError) as refused:
            open_live(tmp_path, config(), epoch=epoch)
        assert refused.value.code == ReasonCode.WAL_BUSY
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == files
    session = open_live(tmp_path, config(), epoch=6)
    assert session.recovered()["last_epoch"] == 5
    session.close()


CHILD = """
import json, sys
from pathlib import Path
from tests.rust_core.live_driver import Broker, open_live, records_of
folder, epoch, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
config = json.loads((folder / "engine.json").read_text())
tape = (folder / "day.tape").read_bytes()
session = open_live(folder, config, epoch=epoch, durable="record", segment_bytes=65536)
start = session.recovered()["last_time_ns"]
broker = Broker(broker_seq=epoch * 100_000)
print("open", flush=True)
for now_ns, record in records_of(tape):
    if now_ns <= start:
        continue
    session.push(record)
    while (request := session.next_request(0)) is not None:
        print("call", request.decision_seq, request.order_id, request.action, flush=True)
        session.push(broker.answer(request, now_ns))
print("end", flush=True)
"""


@pytest.mark.parametrize("seed", range(int(os.environ.get("HFT_FUZZ_CASES", "2"))))
def test_kill_9_at_any_point_loses_no_request_that_left_and_sends_none_twice(
    tmp_path: Path, seed: int
) -> None:
    random = np.random.default_rng(seed)
    (tmp_path / "engine.json").write_text(json.dumps(config("taker")))
    (tmp_path / "day.tape").write_bytes(day())
    calls: list[int] = []
    for epoch in range(1, 6):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), str(epoch), str(seed)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        left = int(random.integers(1, 12))
        for line in child.stdout:
            words = line.split()
            if words[0] == "call":
                calls.append(int(words[1]))
            left -= 1
            if left == 0:
                child.send_signal(signal.SIGKILL)
        child.wait(timeout=30)
    session = open_live(tmp_path, config("taker"), epoch=10)
    logged = records.split(session.order_decisions())["Decision"]
    known = set(decisions_of(tapes_of(tmp_path))["decision_seq"].tolist())
    assert set(calls) <= known, "what was called is in the log"
    assert len(calls) == len(set(calls)), "no request left twice"
    assert logged.size > 0
    assert {order["state"] for order in session.orders()} <= {"unknown"}
    session.finish()
    report = parity_of(read_session(tmp_path), config("taker"))
    assert report.is_identical, report.differences
    assert report.lives == 6


def tapes_of(folder: Path) -> bytes:
    return bytes(_core.read_log(str(folder / "orders"))["tape"])


def test_a_cancel_of_a_recovered_order_goes_under_the_tag_of_its_placing(tmp_path: Path) -> None:
    broker = Broker()
    session = open_live(tmp_path, config(), epoch=1)
    request = last_request(session, pieces()[0], broker)
    session.push(broker_event(request, 1, 0))
    session.close()
    session = open_live(tmp_path, config(), epoch=2)
    session.push(broker_event(request, 1, 0))
    row = records.empty("Command", 1)
    row["command_kind"], row["alpha_index"] = 1, 0xFFFF_FFFF
    session.push(row.tobytes())
    cancel = session.next_request(0)
    assert cancel is not None
    assert (cancel.action, cancel.order_id) == (CANCEL, request.order_id)
    assert (cancel.tag, cancel.epoch) == (request.tag, 2)
    session.close()
