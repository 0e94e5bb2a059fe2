"""Sessions written with the real log writer, and stores opened once a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.drills.chdb_server import ServerProcess
from hft_platform.recorder.store import Store, open_store

DAY = 20260302
START_NS = 1_772_412_300_000_000_000
LIMIT = 10**18 - 1
"""Largest magnitude that Decimal(18, 8) holds, at the project's scale."""

MakeSession = Callable[..., dict[str, bytes]]


def market_tape(count: int, *, seed: int = 1, days: tuple[int, ...] = (DAY,)) -> bytes:
    """Books, trades and timers in one order, with every field set to something."""
    draw = np.random.default_rng(seed)
    books = records.empty("Book", count)
    trades = records.empty("Trade", count // 3)
    timers = records.empty("Timer", count // 50 + 1)
    for field in ("bid_price", "bid_qty", "ask_price", "ask_qty"):
        books[field] = draw.integers(-LIMIT, LIMIT, (count, 5), endpoint=True)
    for field in ("price", "qty"):
        trades[field] = draw.integers(1, LIMIT, trades.size, endpoint=True)
    trades["trade_id"] = draw.integers(0, 1 << 62, trades.size)
    trades["aggressor_side"] = draw.integers(-1, 1, trades.size, endpoint=True)
    timers["timer_kind"] = 1
    timers["argument"] = draw.integers(-(1 << 62), 1 << 62, timers.size)
    return sequenced([books, trades, timers], draw, days)


def order_tape(count: int, *, seed: int = 2) -> bytes:
    """One of each order record at least, decisions with NaN signals among them."""
    draw = np.random.default_rng(seed)
    decisions = records.empty("Decision", count)
    decisions["decision_seq"] = np.arange(count)
    decisions["signal"] = draw.standard_normal(count)
    decisions["signal"][::7] = np.nan
    decisions["limit"] = draw.integers(-(1 << 63), (1 << 63) - 1, count)
    decisions["position_qty"] = draw.integers(-LIMIT, LIMIT, count, endpoint=True)
    broker = records.empty("Broker", count // 2)
    broker["event_kind"] = np.where(np.arange(broker.size) % 2 == 0, 3, 1)
    broker["order_id"] = np.arange(broker.size) + (1 << 48)
    broker["price"] = draw.integers(1, LIMIT, broker.size)
    broker["qty"] = 100_000_000
    commands = records.empty("Command", 2)
    commands["argument"] = [-1, 1 << 62]
    switches = records.empty("ConfigSwitch", 2)
    switches["config_sha256"] = [np.void(bytes(range(32))), np.void(b"\xff" * 31 + b"\0")]
    return sequenced([decisions, broker, commands, switches], draw, (DAY,))


def sequenced(parts: list[np.ndarray], draw: np.random.Generator, days: tuple[int, ...]) -> bytes:
    """Mix records of several types into one tape with rising input sequence and time."""
    kinds = draw.permutation(np.repeat(np.arange(len(parts)), [part.size for part in parts]))
    day_of = np.array(days)[np.arange(kinds.size) * len(days) // kinds.size]
    for kind, part in enumerate(parts):
        places = np.flatnonzero(kinds == kind)
        part["input_seq"] = places + 1
        part["source_seq"] = draw.integers(0, 1 << 60, part.size)
        part["instrument_id"] = 1001
        part["exchange_time_ns"] = START_NS + places * 1_000_000
        part["receive_time_ns"] = START_NS + places * 1_000_000 + 3_000_000
        part["sequence_time_ns"] = START_NS + places * 1_000_000 + 3_000_001
        part["flags"] = draw.integers(0, 128, part.size)
        part["source_id"] = 2
        part["trading_day"] = day_of[places]
    rows = [iter([row.tobytes() for row in part]) for part in parts]
    return b"".join(next(rows[kind]) for kind in kinds)


def write_session(
    ws: Path,
    run_id: str,
    *,
    market: bytes = b"",
    orders: bytes = b"",
    segment_bytes: int = 64 << 20,
    wal_id: int = 77,
) -> Path:
    """Write and seal the logs of one session."""
    folder = ws / "sessions" / run_id
    for kind, tape in (("market", market), ("orders", orders)):
        if tape:
            (folder / kind).mkdir(parents=True)
            with _core.WalWriter(
                str(folder / kind), wal_id, kind, segment_bytes=segment_bytes
            ) as writer:
                writer.append(tape)
    return folder


@pytest.fixture(scope="module", params=["embedded", "server"])
def store_kind(request: pytest.FixtureRequest) -> str:
    """Where the store is: what uses it runs once on each."""
    return str(request.param)


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory, store_kind: str) -> Path:
    """A workspace for the module."""
    return tmp_path_factory.mktemp(f"workspace-{store_kind}")


@pytest.fixture(scope="module")
def store(ws: Path, store_kind: str) -> Iterator[Store]:
    """The workspace's store, opened once: embedded, or a server's over HTTP."""
    if store_kind == "embedded":
        with open_store(ws) as opened:
            yield opened
        return
    with ServerProcess(ws / "store") as server, open_store(ws, dsn=server.dsn) as opened:
        yield opened
