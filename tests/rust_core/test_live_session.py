"""The live session from outside: durable before it comes out, once, and on again after a crash."""

from __future__ import annotations

import json
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services.parity import replay_session
from tests.rust_core.market_days import SCALE, TXF_ID, engine_config, synthetic_day

PLACE, CANCEL = 1, 2
WORKING, REJECTED, FILL, CANCELED = 1, 2, 3, 4
SENT = 1


@cache
def day() -> bytes:
    return synthetic_day(snapshots=1_500)


def open_live(folder: Path, config: dict[str, Any], *, epoch: int = 1, **options: Any) -> Any:
    facts = {
        "wal_id": 77, "epoch": epoch, "process_id": 1, "opened_ns": 1_775_781_000_000_000_000,
        "durable": "group", "segment_bytes": 1 << 20,
    }  # fmt: skip
    return _core.LiveSession(json.dumps(config), str(folder), json.dumps(facts | options))


def broker_record(request: Any, kind: int, *, now_ns: int, seq: int = 0) -> bytes:
    rows = records.empty("Broker", 1)
    row = rows[0]
    row["instrument_id"], row["source_id"], row["receive_time_ns"] = TXF_ID, 4, now_ns
    row["event_kind"], row["order_id"] = kind, request.order_id
    row["side"], row["price"], row["qty"] = request.side, request.price, request.qty
    row["broker_seq"] = seq
    return rows.tobytes()


def drive(session: Any, tape: bytes, *, places_max: int = 1 << 30) -> list[Any]:
    """Push records one by one; fill every place at once, cancel what is to be canceled."""
    requests, seq = [], 1
    for header, bytes_ in each(tape):
        session.push(bytes_)
        while (request := session.next_request(0)) is not None:
            requests.append(request)
            kind = FILL if request.action == PLACE else CANCELED
            session.push(broker_record(request, kind, now_ns=header + 1, seq=seq))
            seq += 1
        if len(requests) >= places_max:
            break
    return requests


def each(tape: bytes) -> list[tuple[int, bytes]]:
    sizes = {dtype.itemsize for dtype in records.DTYPES.values()}
    found, place = [], 0
    while place < len(tape):
        size = int.from_bytes(tape[place : place + 2], "little")
        assert size in sizes
        receive_ns = int.from_bytes(tape[place + 32 : place + 40], "little")
        found.append((receive_ns, tape[place : place + size]))
        place += size
    return found


def merged(folder: Path) -> tuple[bytes, bytes]:
    return _core.merge_logs(*(
        _core.read_log(str(folder / name))["tape"] for name in ("market", "orders")
    ))  # fmt: skip


def test_every_approved_decision_comes_out_once_in_order_and_is_in_the_log(tmp_path: Path) -> None:
    config = engine_config(day(), "taker")
    session = open_live(tmp_path, config)
    assert session.recovered()["is_new"]
    requests = drive(session, day())
    state = session.state()
    session.finish()
    inputs, decisions = merged(tmp_path)
    rows = np.frombuffer(decisions, dtype=records.DTYPES["Decision"])
    approved = rows[rows["verdict"] == 1]
    assert approved.size > 50
    assert [r.decision_seq for r in requests] == approved["decision_seq"].tolist()
    assert [r.tag for r in requests if r.action == PLACE] == [
        _core.order_tag(1, int(seq)) for seq in approved[approved["action"] == 1]["decision_seq"]
    ]
    assert state["last_seq"] == sum(part.size for part in records.split(inputs).values())
    assert _core.replay(json.dumps(config), inputs) == decisions
    steps = session.latency()
    assert steps["queue"]["count"] == len(requests)
    assert 0 < steps["decide"]["p50_ns"] <= steps["decide"]["p99_ns"] <= steps["decide"]["max_ns"]


def test_a_crash_leaves_unknown_orders_that_the_next_life_knows_by_tag(tmp_path: Path) -> None:
    config = engine_config(day(), "taker")
    first = open_live(tmp_path, config, durable="record")
    for _, record in each(day()):
        first.push(record)
        request = first.next_request(0)
        if request is not None:
            break
    route = records.empty("Route", 1)
    route["route_kind"], route["order_id"], route["tag"] = SENT, request.order_id, request.tag
    route["receive_time_ns"] = request.decided_ns + 5
    first.push(route.tobytes())
    first.close()
    with pytest.raises(PlatformError) as refused:
        open_live(tmp_path, config, epoch=1)
    assert refused.value.code == ReasonCode.SETTINGS_INVALID
    second = open_live(tmp_path, config, epoch=2)
    found = second.recovered()
    assert (found["is_new"], found["epochs"], found["unknown_orders"]) == (False, 1, 1)
    (order,) = second.orders()
    assert (order["state"], order["tag"], order["epoch"]) == ("unknown", request.tag, 1)
    assert order["order_id"] == request.order_id
    rows = np.frombuffer(second.order_decisions(), dtype=records.DTYPES["Decision"])
    assert rows["order_id"].tolist() == [request.order_id]
    routes = np.frombuffer(second.routes(), dtype=records.DTYPES["Route"])
    assert routes["tag"].tolist() == [request.tag.encode()]
    assert second.next_request(0) is None, "what an earlier life decided is never sent again"
    second.push(broker_record(request, REJECTED, now_ns=request.decided_ns + 10))
    assert second.orders() == []
    second.finish()
    merged(tmp_path)


def write_lives(folder: Path, config: dict[str, Any], *, records_a_life: int) -> int:
    """Three lives over one market, each let go of in the middle; gives the number of places."""
    places, rest = 0, each(day())[:1_500]
    for epoch in (1, 2, 3):
        session = open_live(folder, config, epoch=epoch, durable="record")
        for row in session.orders():
            known = session.order(row["order_id"])
            assert known is not None and known["state"] == "unknown"
            gone = records.empty("Broker", 1)
            gone["event_kind"], gone["order_id"] = REJECTED, row["order_id"]
            gone["instrument_id"], gone["receive_time_ns"] = TXF_ID, rest[0][0]
            gone["side"], gone["price"], gone["qty"] = row["side"], row["price"], row["qty"]
            session.push(gone.tobytes())
        for _, record in rest[:records_a_life]:
            session.push(record)
            while (request := session.next_request(0)) is not None:
                if request.action != PLACE:
                    continue
                places += 1
                # The last one of a life is left without an answer.
                if places % 7:
                    now_ns = request.decided_ns + 1
                    session.push(broker_record(request, FILL, now_ns=now_ns, seq=places))
        rest = rest[records_a_life:]
        session.close()
    return places


def test_a_session_of_three_lives_is_decided_again_bit_for_bit(tmp_path: Path) -> None:
    config = engine_config(day(), "taker")
    assert write_lives(tmp_path, config, records_a_life=400) > 5
    (tmp_path / "engine.json").write_text(json.dumps(config))
    report = replay_session(tmp_path, write=False)
    assert (report.lives, report.is_identical, report.not_replayable) == (3, True, 0)
    assert report.total > 20
    market, orders = (_core.read_log(str(tmp_path / name))["tape"] for name in ("market", "orders"))
    # Negative control: an engine that forgets at the epoch decides otherwise.
    with pytest.raises(Exception, match="input sequence"):
        _core.replay_lives(json.dumps(config), market, orders + orders)
    inputs, decisions = _core.merge_logs(market, orders)
    assert _core.replay(json.dumps(config), inputs) != decisions


def test_a_tail_that_the_market_log_lost_ends_one_life_and_not_the_next(tmp_path: Path) -> None:
    config = engine_config(day(), "taker")
    write_lives(tmp_path, config, records_a_life=400)
    market, orders = (_core.read_log(str(tmp_path / name))["tape"] for name in ("market", "orders"))
    whole = _core.replay_lives(json.dumps(config), market, orders)
    assert whole["holes"] == [] and whole["logged"] == whole["replayed"]
    epochs = records.split(orders)["Epoch"]["input_seq"]
    # The last 40 inputs of the market log before the second epoch are gone.
    kept = b"".join(
        record for _, record in each(market)
        if not epochs[1] - 40 <= int.from_bytes(record[8:16], "little") < epochs[1]
    )  # fmt: skip
    cut = _core.replay_lives(json.dumps(config), kept, orders)
    assert len(cut["holes"]) == 1 and cut["holes"][0] < epochs[1]
    assert cut["logged"] == cut["replayed"]
    width = records.DTYPES["Decision"].itemsize
    assert len(cut["logged"]) // width + cut["not_replayable"] == len(whole["logged"]) // width


def test_pushing_threads_and_one_dispatcher_lose_and_double_nothing(tmp_path: Path) -> None:
    config = engine_config(day(), "taker")
    session = open_live(tmp_path, config)
    requests: list[Any] = []
    is_over = threading.Event()

    def dispatch() -> None:
        seq = 1
        while not is_over.is_set() or session.pending():
            request = session.next_request(20)
            if request is None:
                continue
            requests.append(request)
            kind = FILL if request.action == PLACE else CANCELED
            session.push(broker_record(request, kind, now_ns=request.decided_ns + 1, seq=seq))
            seq += 1

    def timers() -> None:
        rows = records.empty("Timer", 1)
        rows["timer_kind"] = 3
        while not is_over.is_set():
            session.push(rows.tobytes())

    threads = [threading.Thread(target=dispatch), threading.Thread(target=timers)]
    for thread in threads:
        thread.start()
    for _, record in each(day()):
        session.push(record)
    is_over.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    session.finish()
    inputs, decisions = merged(tmp_path)
    rows = np.frombuffer(decisions, dtype=records.DTYPES["Decision"])
    approved = rows[rows["verdict"] == 1]["decision_seq"].tolist()
    assert [r.decision_seq for r in requests] == approved
    assert _core.replay(json.dumps(config), inputs) == decisions


def test_a_tape_with_something_else_in_it_is_refused_as_a_whole(tmp_path: Path) -> None:
    session = open_live(tmp_path, engine_config(day(), "taker"))
    before = session.state()["last_seq"]
    good = each(day())[0][1]
    for bad in (b"no record", records.empty("Decision", 1).tobytes()):
        with pytest.raises(PlatformError):
            session.push(good + bad)
    assert session.state()["last_seq"] == before
    session.close()
    with pytest.raises(PlatformError) as over:
        session.push(good)
    assert over.value.code == ReasonCode.SESSION_NOT_OPEN
    assert SCALE == records.SCALE
