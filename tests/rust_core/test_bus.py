"""The bus from Python: batches, typed overflow, bounds, and a session that publishes on it."""

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
from tests.rust_core.market_days import engine_config, synthetic_day
from tests.rust_core.test_simulation_session import logs, open_session

SLOTS = 1 << 14
READERS_MAX = 32


@cache
def day() -> bytes:
    return synthetic_day(snapshots=1_500)


def drain(reader: Any, batch: int = 1_000) -> bytes:
    parts = []
    while part := reader.read(batch):
        parts.append(part)
    return b"".join(parts)


def refusal(call: Any, *arguments: Any) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        call(*arguments)
    return caught.value


def test_a_batch_is_a_tape_that_numpy_reads_as_it_is() -> None:
    bus = _core.Bus(SLOTS)
    reader = bus.reader()
    count = bus.publish(day())
    assert count == bus.head_seq() == reader.lag() == 3_000
    assert drain(reader) == day()
    books = records.split(day())["Book"]
    assert np.array_equal(books, np.frombuffer(books.tobytes(), dtype=records.DTYPES["Book"]))
    assert reader.read(10) == b""
    assert (reader.lag(), reader.read_seq()) == (0, 3_000)


def test_a_lapped_reader_is_told_what_it_lost_and_goes_on() -> None:
    bus = _core.Bus(64)
    slow, quick = bus.reader(), bus.reader()
    tape = day()
    bus.publish(tape)
    with pytest.raises(_core.BusOverflowError) as caught:
        slow.read(10)
    code, message, lost, from_seq, to_seq = caught.value.args
    assert code == ReasonCode.BUS_OVERFLOW
    assert (lost, from_seq, to_seq) == (3_000 - 64, 1, 3_000 - 64)
    assert "2936 records lost" in message
    assert bus.reader_lags() == [64, 3_000]
    rest = drain(slow)
    assert tape.endswith(rest)
    assert sum(part.size for part in records.split(rest).values()) == 64
    with pytest.raises(_core.BusOverflowError):
        quick.read(10)


def test_bounds_are_refused_with_a_code() -> None:
    for slot_count in (0, 3, 1 << 21):
        assert refusal(_core.Bus, slot_count).code == ReasonCode.SETTINGS_INVALID
    bus = _core.Bus(2)
    readers = [bus.reader() for _ in range(READERS_MAX)]
    assert refusal(bus.reader).code == ReasonCode.CAPACITY_REACHED
    with readers.pop():
        pass
    assert bus.reader().lag() == 0
    assert refusal(bus.publish, b"nonsense").code == ReasonCode.SCHEMA_MISMATCH
    assert bus.head_seq() == 0, "nothing of a tape that is none was published"
    reader = readers[0]
    assert refusal(reader.wait, -1.0).code == ReasonCode.SETTINGS_INVALID
    reader.close()
    assert "closed" in refusal(reader.read, 1).message


def test_a_wait_lets_other_threads_work_and_ends_with_the_bus() -> None:
    bus = _core.Bus(1 << 12)
    reader = bus.reader()
    assert reader.wait(0.0) == "timed_out"
    waited: list[str] = []
    thread = threading.Thread(target=lambda: waited.append(reader.wait(20.0)))
    thread.start()
    bus.publish(day())
    thread.join(timeout=20.0)
    assert waited == ["ready"]
    assert drain(reader) == day()
    bus.close()
    assert reader.wait(20.0) == "closed"
    assert "closed" in refusal(bus.publish, day()).message


def run(folder: Path, config: dict[str, Any], bus: Any = None) -> tuple[dict[str, Any], float]:
    session = open_session(folder, config)
    if bus is not None:
        session.publish_to(bus)
    session.feed(day())
    started = time.perf_counter()
    while not session.run(None, 10_000)["done"]:
        pass
    seconds = time.perf_counter() - started
    return session.finish(), seconds


@pytest.mark.parametrize("kind", ["taker", "maker"])
def test_a_session_publishes_what_its_logs_hold_in_the_order_it_happened(
    tmp_path: Path, kind: str
) -> None:
    bus = _core.Bus(SLOTS)
    reader = bus.reader()
    seen: list[bytes] = []

    def follow() -> None:
        while reader.wait(30.0) != "closed":
            seen.append(reader.read(100))

    thread = threading.Thread(target=follow)
    thread.start()
    run(tmp_path, engine_config(day(), kind), bus)
    thread.join(timeout=30.0)
    assert not thread.is_alive()
    followed = b"".join(seen)
    inputs, decisions = logs(tmp_path)
    parts = records.split(followed)
    assert parts["Decision"].tobytes() == decisions
    assert parts["Decision"].size > 50
    for name, rows in records.split(inputs).items():
        if name != "Decision":
            assert parts[name].tobytes() == rows.tobytes(), name
    # Every decision comes behind its cause and before the next input.
    places = {name: np.frombuffer(where, "<u4") for name, (_, where) in _indexed(followed).items()}
    order = np.empty(sum(part.size for part in parts.values()), dtype=np.int64)
    for name, part in parts.items():
        order[places[name]] = part["input_seq"]
    assert (np.diff(order) >= 0).all()


def _indexed(tape: bytes) -> dict[str, tuple[bytes, bytes]]:
    return dict(_core.index_tape(tape))


def test_a_stalled_reader_changes_no_decision_and_costs_no_time(tmp_path: Path) -> None:
    config = engine_config(day(), "maker")
    alone, stalled = [], []
    for attempt in range(3):
        quiet, seconds = run(tmp_path / f"quiet{attempt}", config)
        alone.append(seconds)
        bus = _core.Bus(64)
        reader = bus.reader()
        busy, seconds = run(tmp_path / f"busy{attempt}", config, bus)
        stalled.append(seconds)
        assert logs(tmp_path / f"busy{attempt}") == logs(tmp_path / f"quiet{attempt}")
        assert busy["order_facts"] == quiet["order_facts"]
        with pytest.raises(_core.BusOverflowError) as caught:
            reader.read(1)
        assert caught.value.args[2] == bus.head_seq() - 64
        assert bus.head_seq() > 4_000
    # The bound is loose because other work may share the machine; `cargo bench` has the figures.
    assert min(stalled) < 1.5 * min(alone) + 0.05, (alone, stalled)


def test_a_bus_has_one_publisher_and_a_session_takes_it_before_its_recording(
    tmp_path: Path,
) -> None:
    config = engine_config(day(), "taker")
    bus = _core.Bus(64)
    first = open_session(tmp_path / "first", config)
    first.publish_to(bus)
    second = open_session(tmp_path / "second", config)
    assert refusal(second.publish_to, bus).code == ReasonCode.SETTINGS_INVALID
    assert refusal(bus.publish, day()).code == ReasonCode.SETTINGS_INVALID
    second.feed(day())
    assert refusal(second.publish_to, _core.Bus(64)).code == ReasonCode.SESSION_NOT_OPEN
    first.feed(day())
    first.run(None, 100)
    assert json.dumps(bus.reader_lags()) == "[]"
