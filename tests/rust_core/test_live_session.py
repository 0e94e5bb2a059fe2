"""The live session from Python: one order of inputs, requests once and only when durable."""

from __future__ import annotations

import json
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services.parity import replay_session
from tests.rust_core.live_driver import (
    FILL,
    PLACE,
    REJECTED,
    Broker,
    broker_event,
    decisions_of,
    drive,
    open_live,
    records_of,
    tapes,
)
from tests.rust_core.market_days import TXF_ID, engine_config, synthetic_day

APPROVED = 1
HALT, ALL_ALPHAS = 1, 0xFFFF_FFFF


@cache
def day() -> bytes:
    return synthetic_day(snapshots=400)


def command(kind: int, now_ns: int = 0) -> bytes:
    row = records.empty("Command", 1)
    row["command_kind"], row["alpha_index"], row["receive_time_ns"] = kind, ALL_ALPHAS, now_ns
    return bytes(row.tobytes())


@pytest.mark.parametrize("kind", ["taker", "maker"])
def test_a_session_is_logged_and_decided_again_bit_for_bit(tmp_path: Path, kind: str) -> None:
    config = engine_config(day(), kind)
    session = open_live(tmp_path, config)
    assert session.recovered()["is_new"]
    broker = Broker()
    drive(session, day(), broker)
    state = session.state()
    finished = session.finish()
    assert finished["halted_by"] == 0
    market, orders = tapes(tmp_path)
    inputs, decisions = _core.merge_logs(market, orders)
    assert _core.replay(json.dumps(config), inputs) == decisions
    made = decisions_of(decisions)
    approved = made[(made["verdict"] == APPROVED) & (made["action"] <= 2)]
    assert [r.decision_seq for r in broker.requests] == approved["decision_seq"].tolist()
    assert len(broker.requests) > 30
    assert state["pending"] == 0
    assert state["requests"] == len(broker.requests)
    assert state["fills"] == finished["counters"]["fills"] > 10
    first = records.split(orders)
    assert first["Epoch"]["input_seq"].tolist() == [1]
    assert first["Epoch"]["epoch"].tolist() == [1]
    assert first["Epoch"]["trading_day"].tolist() == [20260410]
    assert records.split(market)["Instrument"]["input_seq"].tolist() == [2]
    assert first["Route"].size > 30


def test_a_tag_follows_from_what_is_durable_before_the_call(tmp_path: Path) -> None:
    session = open_live(tmp_path, engine_config(day(), "taker"), epoch=5)
    broker = Broker()
    drive(session, day(), broker)
    placed = [r for r in broker.requests if r.action == PLACE]
    assert all(r.tag == _core.order_tag(5, r.decision_seq) for r in placed)
    assert len({r.tag for r in placed}) == len(placed)
    routes = records.split(session.routes())["Route"]
    assert set(routes["tag"].tolist()) == {r.tag.encode() for r in placed}
    logged = decisions_of(session.order_decisions())
    assert logged["decision_seq"].tolist() == [r.decision_seq for r in placed]
    session.close()


def test_bytes_that_are_no_inputs_are_refused_as_a_whole(tmp_path: Path) -> None:
    session = open_live(tmp_path, engine_config(day(), "taker"))
    before = session.state()["last_seq"]
    book = next(record for _, record in records_of(day()))
    for bad in (
        book + book[:-1],
        book + b"\0" * 100,
        book + records.empty("Epoch", 1).tobytes(),
        book + records.empty("Decision", 1).tobytes(),
        book + records.empty("Shed", 1).tobytes(),
    ):
        with pytest.raises(PlatformError) as refused:
            session.push(bad)
        assert refused.value.code == ReasonCode.SCHEMA_MISMATCH
    assert session.state()["last_seq"] == before
    assert session.push(book + book) == before + 2
    session.close()
    for call in (lambda: session.push(book), session.orders, session.state, session.finish):
        with pytest.raises(PlatformError) as over:
            call()
        assert over.value.code == ReasonCode.SESSION_NOT_OPEN
    assert session.next_request(0) is None
    session.close()


@pytest.mark.parametrize(
    "options",
    [
        {"epoch": 0},
        {"queue_capacity": 5},
        {"unknown": 1},
        {"durable": "never"},
        {"contracts": {"1001": {"root": "TXF"}}},
    ],
)
def test_options_that_are_none_are_refused_before_a_log_is_made(
    tmp_path: Path, options: dict[str, object]
) -> None:
    with pytest.raises(PlatformError) as refused:
        open_live(tmp_path, engine_config(day(), "taker"), **options)  # type: ignore[arg-type]
    assert refused.value.code == ReasonCode.SETTINGS_INVALID
    assert not (tmp_path / "orders").exists()


def test_orders_are_listed_with_the_tag_they_went_under(tmp_path: Path) -> None:
    session = open_live(tmp_path, engine_config(day(), "maker"))
    request = None
    for _, record in records_of(day()):
        session.push(record)
        if (request := session.next_request(0)) is not None:
            break
    assert request is not None
    (order,) = [o for o in session.orders() if o["order_id"] == request.order_id]
    assert order["state"] == "pending_new"
    assert (order["tag"], order["decided_ns"]) == (request.tag, request.decided_ns)
    assert (order["price"], order["qty"], order["side"], order["instrument_id"]) == (
        request.price, request.qty, request.side, request.instrument_id,
    )  # fmt: skip
    session.push(broker_event(request, 2, 0, remaining_qty=0))
    found = session.order(request.order_id)
    assert found is not None
    assert found["state"] == "rejected"
    assert session.order(12345678) is None
    assert [p["instrument_id"] for p in session.positions()] == [1001]
    session.close()


def test_a_push_that_waits_for_the_disk_lets_other_python_threads_run(tmp_path: Path) -> None:
    """The GIL is let go before the lock is asked for: else this would stand still or not end."""
    session = open_live(
        tmp_path,
        engine_config(day(), "taker"),
        durable="record",
        drill_sync_delay={"min_ms": 60, "max_ms": 60, "seed": 1},
    )
    counted, is_over = [0], threading.Event()

    def count() -> None:
        while not is_over.is_set():
            counted[0] += 1
            time.sleep(0.001)

    def halt() -> None:
        session.push(command(HALT))

    def ask() -> None:
        for _ in range(20):
            session.state()
            session.orders()

    threads = [threading.Thread(target=work) for work in (count, halt, halt, ask, ask)]
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        thread.join(timeout=20)
        assert not thread.is_alive()
    is_over.set()
    threads[0].join()
    assert counted[0] > 20
    assert session.state()["halted_by"] != 0
    session.close()


def test_waiting_for_a_request_ends_when_one_comes_and_when_the_session_ends(
    tmp_path: Path,
) -> None:
    session = open_live(tmp_path, engine_config(day(), "taker"), durable="record")
    taken: list[_core.OrderRequest | None] = []

    def dispatch() -> None:
        while (request := session.next_request(10_000)) is not None:
            taken.append(request)
            session.mark_call(request.decision_seq, time.time_ns(), time.time_ns())
        taken.append(None)

    dispatcher = threading.Thread(target=dispatch)
    dispatcher.start()
    for _, record in records_of(day()):
        session.push(record)
    made = session.state()["requests"]
    assert made > 0
    deadline = time.monotonic() + 10
    while len(taken) < made and time.monotonic() < deadline:
        time.sleep(0.002)
    session.close()
    dispatcher.join(timeout=10)
    assert not dispatcher.is_alive()
    assert len(taken) == made + 1
    found = session.latency()
    assert found["queue"]["count"] == found["durable"]["count"] == found["call"]["count"] == made
    assert found["to_call"]["count"] == made
    assert found["decide"]["count"] > 700
    decisions = decisions_of(tapes(tmp_path)[1])
    approved = decisions[(decisions["verdict"] == APPROVED) & (decisions["action"] <= 2)]
    assert np.array_equal(
        approved["decision_seq"], [r.decision_seq for r in taken if r is not None]
    )


def write_lives(folder: Path, config: dict[str, Any], *, records_a_life: int) -> int:
    """Three lives over one market, each let go of in the middle; gives the number of places."""
    places, rest = 0, list(records_of(day()))
    for epoch in (1, 2, 3):
        session = open_live(folder, config, epoch=epoch)
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
                    session.push(
                        broker_event(request, FILL, now_ns, remaining_qty=0, broker_seq=places)
                    )
        rest = rest[records_a_life:]
        session.close()
    return places


def test_a_session_of_three_lives_is_decided_again_bit_for_bit(tmp_path: Path) -> None:
    config = engine_config(day(), "taker")
    assert write_lives(tmp_path, config, records_a_life=250) > 5
    report = replay_session(tmp_path, write=False)
    assert (report.lives, report.is_identical, report.not_replayable) == (3, True, 0)
    assert report.total > 20
    market, orders = (_core.read_log(str(tmp_path / name))["tape"] for name in ("market", "orders"))
    # Negative control: an engine that forgets at the epoch decides otherwise.
    inputs, decisions = _core.merge_logs(market, orders)
    assert _core.replay(json.dumps(config), inputs) != decisions
