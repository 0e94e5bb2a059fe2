"""A session that leaves market records out of its log: restricted first, named exactly, replayable
up to the first hole and never claimed to be so behind it."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder.session_recovery import list_lost
from hft_platform.services.explain import explain_order, list_orders
from hft_platform.services.parity import SessionLogs, parity_of, read_session
from hft_platform.services.shed_ranges import check_sequence
from tests.rust_core.market_days import TXF_ID, engine_config
from tests.rust_core.test_simulation_session import ALL_ALPHAS, day, decisions_of, open_session
from tests.rust_core.test_storm_session import opened

PLACE, CANCEL, APPROVED, POLICY_CHANGE = 1, 2, 1, 17
HALT, RESUME_ARM, RESUME_CONFIRM, REDUCE_ONLY = 1, 2, 3, 4
CRITICAL = int(ReasonCode.DISK_SPACE_CRITICAL)


def run(folder: Path, steps: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A session with steps: a number runs so many records, a function is called with it."""
    config = engine_config(day(), "taker")
    session = open_session(folder, config)
    session.feed(day())
    for step in steps:
        if callable(step):
            step(session)
        else:
            session.run(None, step)
    while not session.run(None, 500)["done"]:
        pass
    logs = session.logs()
    return session.finish() | {"logs": logs}, config


def shed(up_to: str | None) -> Any:
    return lambda session: session.shed(up_to, 2, CRITICAL)


@pytest.fixture(scope="module")
def thinned(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """Books, then prints too, then nothing is left out."""
    folder = tmp_path_factory.mktemp("thinned")
    finished, config = run(folder, [500, shed("books"), 300, shed("trades"), 200, shed(None), 300])
    return folder, finished, config


def test_every_record_left_out_is_named_and_everything_else_is_there(
    thinned: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    folder, finished, _ = thinned
    logs = read_session(folder)
    counted = finished["logs"]["shed"]
    assert finished["halted_by"] == 0
    assert counted["books"] > 100
    assert counted["trades"] > 20
    assert counted["depth"] == 0
    assert {one.topic for one in logs.shed} == {"books", "trades"}
    for topic in ("books", "trades"):
        assert sum(one.count for one in logs.shed if one.topic == topic) == counted[topic]
    assert {one.instrument_id for one in logs.shed} == {TXF_ID}
    assert {one.reason_code for one in logs.shed} == {CRITICAL}
    parts = records.split(logs.inputs)
    held = sum(part.size for part in parts.values())
    inputs = finished["counters"]["simulation"]["inputs"]
    assert held + sum(counted.values()) == inputs


def test_reduce_only_is_in_the_log_before_the_first_hole_and_nothing_opens_behind_it(
    thinned: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    logs = read_session(thinned[0])
    commands = records.split(logs.inputs)["Command"]
    assert (commands["command_kind"] == REDUCE_ONLY).all()
    assert set(commands["instrument_id"].tolist()) == {TXF_ID}
    first_command = int(commands["input_seq"].min())
    assert first_command < min(one.first_seq for one in logs.shed)
    seqs = opened(decisions_of(logs.decisions))["input_seq"]
    assert (seqs < first_command).any()
    # Shedding ends, reduce-only stays: nobody resumed.
    assert not (seqs > first_command).any()


def test_parity_holds_up_to_the_first_hole_and_counts_the_rest_apart(
    thinned: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    folder, _, config = thinned
    logs = read_session(folder)
    report = parity_of(logs, config)
    made = decisions_of(logs.decisions)
    first = min(one.first_seq for one in logs.shed)
    assert report.is_identical
    assert report.total == int((made["input_seq"] < first).sum()) > 50
    assert report.not_replayable == made.size - report.total
    assert report.as_dict()["shed"][0]["count"] > 0
    # Negative control: parity of the prefix still compares. One bit of it, and it is broken.
    flipped = bytearray(logs.inputs)
    at = flipped.find(records.split(logs.inputs)["Book"][200].tobytes())
    flipped[at + 64 + 40] ^= 0xFF  # lowest byte of the best bid's quantity
    flipped[at + 64 + 44] ^= 0x01
    broken = SessionLogs(bytes(flipped), logs.decisions, logs.segments, logs.shed)
    assert not parity_of(broken, config).is_identical


@pytest.mark.parametrize("is_named", [True, False])
def test_a_session_that_dies_while_it_sheds_is_recovered_up_to_the_first_hole(
    tmp_path: Path, is_named: bool
) -> None:
    config = engine_config(day(), "taker")
    (tmp_path / "engine.json").write_text(json.dumps(config))
    session = open_session(tmp_path, config)
    session.feed(day())
    session.run(None, 500)
    session.shed("books", 2, CRITICAL)
    session.run(None, 300)
    if is_named:
        session.shed(None, 0, CRITICAL)
        session.run(None, 100)
    del session  # no finish: what is owed to the log stays unsaid
    tapes = []
    for name in ("market", "orders"):
        _core.recover_log(str(tmp_path / name))
        tapes.append(_core.read_log(str(tmp_path / name))["tape"])
    merged, decisions = _core.merge_logs(*tapes)
    there = np.sort(np.concatenate([p["input_seq"] for p in records.split(merged).values()]))
    assert (np.diff(there) > 1).any(), "there is a hole"
    first = int(np.argmax(np.diff(there) > 1)) + 2
    assert int(there[first - 2]) == first - 1
    content = list_lost(tmp_path)
    assert content is not None
    assert content["parity_ends_at_input_seq"] == first - 1
    assert content["lost_tail"] == (None if is_named else "shed")
    behind = decisions_of(decisions)["input_seq"] >= first
    assert content["not_replayable"]["decisions"] == int(behind.sum())
    report = parity_of(read_session(tmp_path), config)
    assert report.is_identical
    assert report.total == int((~behind).sum()) > 50
    assert (report.not_replayable, report.unlogged) == (int(behind.sum()), 0)


def test_a_finished_session_that_shed_has_lost_nothing(
    thinned: tuple[Path, dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    folder = shutil.copytree(thinned[0], tmp_path / "run")
    (folder / "summary.json").write_text("{}")
    assert list_lost(folder) is None
    assert read_session(folder).shed


def parts_of(folder: Path) -> dict[str, np.ndarray]:
    return {name: part.copy() for name, part in records.split(read_session(folder).inputs).items()}


def without(parts: dict[str, np.ndarray], name: str, place: int) -> dict[str, np.ndarray]:
    return parts | {name: np.delete(parts[name], place)}


def changed(parts: dict[str, np.ndarray], name: str, field: str, by: int) -> dict[str, np.ndarray]:
    rows = parts[name].copy()
    place = slice(None) if name == "Command" else slice(1)
    rows[field][place] = rows[field][place].astype(np.int64) + by
    return parts | {name: rows}


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        # A hole that nobody named, before, in the middle of and behind what was left out.
        (lambda p: without(p, "Book", 3), ReasonCode.LOG_SEQUENCE_GAP),
        (lambda p: without(p, "Book", p["Book"].size - 3), ReasonCode.LOG_SEQUENCE_GAP),
        (lambda p: without(p, "Trade", inside(p)), ReasonCode.SHED_INVALID),
        # A SHED record that is lost leaves its own place and its range open.
        (lambda p: without(p, "Shed", 0), ReasonCode.LOG_SEQUENCE_GAP),
        (lambda p: changed(p, "Shed", "count", 1), ReasonCode.SHED_INVALID),
        (lambda p: changed(p, "Shed", "count", -1), ReasonCode.SHED_INVALID),
        (lambda p: changed(p, "Shed", "first_seq", -1), ReasonCode.SHED_INVALID),
        (lambda p: changed(p, "Shed", "topic", 3), ReasonCode.SHED_INVALID),
        # Left out before it was restricted, or of an instrument that was not.
        (lambda p: changed(p, "Command", "instrument_id", 1), ReasonCode.SHED_INVALID),
        (lambda p: changed(p, "Command", "command_kind", 1), ReasonCode.SHED_INVALID),
    ],
)
def test_a_log_whose_holes_do_not_fit_is_refused(
    thinned: tuple[Path, dict[str, Any], dict[str, Any]], damage: Any, code: ReasonCode
) -> None:
    parts = parts_of(thinned[0])
    assert check_sequence(parts, "whole")
    with pytest.raises(PlatformError) as caught:
        check_sequence(damage(parts), "damaged")
    assert caught.value.code == code


def inside(parts: dict[str, np.ndarray]) -> int:
    """A trade in the range of books that were left out."""
    books = parts["Shed"][parts["Shed"]["topic"] == 2][0]
    is_inside = (parts["Trade"]["input_seq"] > books["first_seq"]) & (
        parts["Trade"]["input_seq"] < books["last_seq"]
    )
    return int(np.flatnonzero(is_inside)[0])


def test_an_order_behind_a_hole_is_not_explained_and_one_before_it_is(tmp_path: Path) -> None:
    config = engine_config(day(), "maker")
    session = open_session(tmp_path, config)
    session.feed(day())
    session.run(None, 600)
    session.shed("books", 2, CRITICAL)
    session.finish()
    (tmp_path / "engine.json").write_text(json.dumps(config))
    orders = list_orders(tmp_path)
    assert explain_order(tmp_path, orders[0]["order_id"]).decisions
    logs = read_session(tmp_path)
    assert logs.shed == (), "nothing came any more"
    session = open_session(tmp_path / "thin", config)
    session.feed(day())
    session.run(None, 600)
    session.shed("books", 2, CRITICAL)
    while not session.run(None, 500)["done"]:
        pass
    session.finish()
    (tmp_path / "thin" / "engine.json").write_text(json.dumps(config))
    first = min(one.first_seq for one in read_session(tmp_path / "thin").shed)
    orders = list_orders(tmp_path / "thin")
    behind = next(row for row in orders if row["input_seq"] > first)
    assert explain_order(tmp_path / "thin", orders[0]["order_id"]).decisions
    with pytest.raises(PlatformError) as caught:
        explain_order(tmp_path / "thin", behind["order_id"])
    assert caught.value.code == ReasonCode.SESSION_SHED


def test_shedding_to_the_end_is_named_at_the_end(tmp_path: Path) -> None:
    finished, config = run(tmp_path, [500, shed("trades")])
    logs = read_session(tmp_path)
    assert sum(one.count for one in logs.shed) == sum(finished["logs"]["shed"].values()) > 500
    assert parity_of(logs, config).is_identical
    kinds = [header["record_type"] for header in records.split(logs.inputs)["Shed"]]
    assert len(kinds) >= 2


def test_a_session_ended_early_names_what_it_left_out(tmp_path: Path) -> None:
    session = open_session(tmp_path, engine_config(day(), "taker"))
    session.feed(day())
    session.run(None, 500)
    session.shed("books", 3, int(ReasonCode.DISK_SPACE_HALT))
    session.run(None, 200)
    session.finish()
    assert sum(one.count for one in read_session(tmp_path).shed) > 50


def test_a_resume_ends_the_shedding_before_the_next_record(tmp_path: Path) -> None:
    counts = []

    def resume(session: Any) -> None:
        session.command(HALT, ALL_ALPHAS, 0, int(ReasonCode.KILL_SWITCH_ON))
        armed = session.command(RESUME_ARM, ALL_ALPHAS, 0, 0)
        session.command(RESUME_CONFIRM, ALL_ALPHAS, armed, 0)
        counts.append(session.logs()["shedding_count"])

    run(tmp_path, [500, shed("books"), 200, resume, 200])
    assert counts == [0]
    logs = read_session(tmp_path)
    confirm = records.split(logs.inputs)["Command"][-1]
    assert max(one.last_seq for one in logs.shed) < confirm["input_seq"]
    # What a log would look like that went on behind it.
    parts = parts_of(tmp_path)
    parts["Command"]["input_seq"][-1] = logs.shed[0].first_seq + 1
    with pytest.raises(PlatformError):
        check_sequence(parts, "resumed")


def test_when_the_market_log_fails_the_halt_and_its_cancels_still_go_to_the_order_log(
    tmp_path: Path,
) -> None:
    config = engine_config(day(), "maker")
    session = open_session(tmp_path, config, segment_bytes=64 << 10)
    session.feed(day())
    session.run(None, 400)
    # The folder goes; the next segment cannot be made. The order log has its own.
    (tmp_path / "market").rename(tmp_path / "gone")
    deadline = time.monotonic() + 30
    while not session.run(None, 10)["halted_by"] and time.monotonic() < deadline:
        time.sleep(0.001)
    finished = session.finish()
    assert finished["halted_by"] == ReasonCode.WAL_WRITE_FAILED
    assert str(tmp_path / "market") in finished["message"]
    tape = _core.read_log(str(tmp_path / "orders"))["tape"]
    parts = records.split(tape)
    halt = parts["Command"][-1]
    assert (halt["command_kind"], halt["reason_code"]) == (HALT, ReasonCode.WAL_WRITE_FAILED)
    made = parts["Decision"]
    notes = made[(made["action"] == POLICY_CHANGE) & (made["input_seq"] == halt["input_seq"])]
    assert notes["intent_reason"].tolist() == [2]
    behind = made[(made["input_seq"] > halt["input_seq"])]
    assert not opened(behind).size
    assert behind.size < 200, "no more than can be answered"
    cancels = made[(made["action"] == CANCEL) & (made["verdict"] == APPROVED)]
    assert resting(parts["Broker"], int(halt["input_seq"])) <= set(cancels["order_id"].tolist())


def resting(broker: np.ndarray, input_seq: int) -> set[int]:
    """Orders that rested at an input, by what the exchange had said until then."""
    working, fill = 1, 3
    last = {int(row["order_id"]): row for row in broker[broker["input_seq"] < input_seq]}
    return {
        order_id
        for order_id, row in last.items()
        if row["event_kind"] == working or (row["event_kind"] == fill and row["remaining_qty"])
    }


def test_an_unknown_topic_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    session = open_session(tmp_path, engine_config(day(), "taker"))
    session.feed(day())
    with pytest.raises(PlatformError) as caught:
        session.shed("timers", 2, CRITICAL)
    assert caught.value.code == ReasonCode.SETTINGS_INVALID
    assert session.logs()["shedding_count"] == 0


def test_a_session_that_sheds_nothing_is_the_same_as_ever(tmp_path: Path) -> None:
    run(tmp_path / "plain", [500])
    run(tmp_path / "asked", [500, shed(None)])
    plain, asked = (read_session(tmp_path / name) for name in ("plain", "asked"))
    assert plain.inputs == asked.inputs
    assert plain.decisions == asked.decisions
    assert plain.shed == ()
    shutil.rmtree(tmp_path / "plain")


def test_the_order_log_holds_the_shed_records() -> None:
    layout = _core.record_layouts()["Shed"]
    assert layout["code"] == 11
    assert layout["bytes"] == 104
