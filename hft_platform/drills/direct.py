"""Drill direct-outage: recorder mode direct through everything that can happen to it.

Why: the promise of the mode is that no outage of a store, and no death of a process, loses a row,
doubles one, or is felt by the session. Each is made here, while a session writes its logs.

The session is a process of its own with the real log writer, the store a server process, the
direct writer the child that `hft-live run` starts. Operator's page: `docs/drills/direct-outage.md`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from hft_platform import _core, records
from hft_platform.config.canonical import sha256_hex
from hft_platform.drills.drill import Claim, Drill, DrillReport
from hft_platform.drills.server_faults import Fault
from hft_platform.drills.server_process import ServerProcess
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder import columns
from hft_platform.recorder.direct_writer import DirectStatus, read_status
from hft_platform.recorder.loader import dead_letter_folder, load_sealed
from hft_platform.recorder.replay_contract import check_store
from hft_platform.recorder.session_records import session_tape
from hft_platform.recorder.store import Store, open_store
from hft_platform.services.direct_recorder import DirectRecorder

DAY = 20260302
START_NS = 1_772_412_300_000_000_000
SCALE = 100_000_000
SEGMENT_BYTES = 1 << 20
SLICE_RECORDS = 240
SLICE_SECONDS = 0.1
SLICES_MAX = 1_200
"""Longest session: two minutes, for a machine on which everything takes long."""
WAIT_SECONDS = 60.0
RUNS = ("outage", "killed")


def run_direct_outage(folder: Path, seed: int, size: int) -> DrillReport:
    """Run the drill.

    Parameters
    ----------
    folder : Path
        Empty; everything happens in it.
    seed : int
        Decides when processes are killed.
    size : int
        Rounds of outages.

    Returns
    -------
    DrillReport
    """
    draw = np.random.default_rng(seed)
    started = time.monotonic()
    ws = folder / "ws"
    facts: dict[str, Any] = {"rounds": size, "direct_writer_kills": 0, "store_kills": 0}
    with ServerProcess(folder / "server" / "store", seed=seed, is_refusing=True) as server:
        endings = _outages(ws, server, draw, size, facts)
        endings |= _killed_session(ws, server, facts)
        with open_store(ws, dsn=server.dsn) as store:
            load = load_sealed(ws, store)
            again = load_sealed(ws, store)
            contract = check_store(ws, store)
            copied = _load_later(folder, ws, store)
            claims = [
                Claim("exit status of the session that met the outages", 0, endings["outage"]),
                Claim(
                    "records that the killed session acknowledged and its log lost", 0,
                    endings["killed"],
                ),
                *(claim for run_id in RUNS for claim in _exactly_once(store, ws, run_id)),
                Claim("segments set aside", [], _dead_letters(ws)),
                Claim("rows that a second load adds", 0, again.rows_inserted),
                Claim(
                    "violations of the replay contract", [],
                    [str(violation) for violation in contract.violations],
                ),
                Claim(
                    "hash of all rows and bars, as wal_first gives them",
                    _content(store, copied), _content(store, "outage"),
                ),
            ]  # fmt: skip
    facts["rows_left_to_the_loader"] = load.rows_inserted
    facts["seconds"] = round(time.monotonic() - started, 1)
    return DrillReport("direct-outage", tuple(claims), facts)


def _outages(
    ws: Path, server: ServerProcess, draw: np.random.Generator, size: int, facts: dict[str, Any]
) -> dict[str, Any]:
    """A session with the store down at its start, and rounds of everything else in it."""
    session = _Session(ws, "outage", seed=1)
    direct = DirectRecorder(ws, "outage", variables={"HFT_STORE__DSN": server.dsn})
    session.start()
    direct.start()
    _until("the direct writer found the store down", lambda: _status(ws).store_failures > 0)
    server.refuse(False)
    _until("rows come", lambda: _writes(ws, direct))
    for _ in range(size):
        # Replies lost after the rows are in: the same range is sent again under its token.
        server.set_faults(Fault("drop_reply", table="hft.market_", times=2))
        _until("a reply was lost", lambda: server.hits("drop_reply") > 0)
        server.set_faults()
        facts["direct_writer_kills"] += _kill(direct, float(draw.uniform(0.0, 0.4)))
        _until("a new direct writer writes", lambda: _writes(ws, direct))
        # The store dies inside an insert, and is away for a while.
        fault = Fault("kill_inside", table="hft.market_", seconds=float(draw.uniform(0.0, 0.004)))
        server.set_faults(fault)
        server.wait_dead(wait_s=WAIT_SECONDS)
        server.forget_faults()
        facts["store_kills"] += 1
        facts["direct_writer_kills"] += _kill(direct, float(draw.uniform(0.0, 0.2)))
        server.start()
        _until("rows come again", lambda: _writes(ws, direct))
    session.finish()
    status = session.wait()
    outcome = direct.finish()
    facts |= {
        "restarts_of_the_direct_writer": outcome.restarts,
        "everything_loaded_by_the_direct_writer": outcome.is_complete,
    }
    return {"outage": status}


def _killed_session(ws: Path, server: ServerProcess, facts: dict[str, Any]) -> dict[str, Any]:
    """A session killed in the middle; its log is recovered, and holds what was acknowledged."""
    session = _Session(ws, "killed", seed=2)
    variables = {"HFT_STORE__DSN": server.dsn}
    direct = DirectRecorder(ws, "killed", drain_s=0.3, variables=variables)
    session.start()
    direct.start()
    _until(
        "the killed session's rows come",
        lambda: _status(ws, "killed").rows_written > 2 * SLICE_RECORDS,
    )
    session.kill()
    outcome = direct.finish()
    acknowledged = session.acknowledged()
    facts["acknowledged_by_the_killed_session"] = acknowledged
    facts["of_it_written_directly"] = outcome.status.get("rows_written")
    lost = 0
    for kind, acked in acknowledged.items():
        report = _core.recover_log(str(session.folder / kind))
        lost += max(0, acked - int(report["last_seq"]))
    return {"killed": lost}


def _kill(direct: DirectRecorder, after_s: float) -> int:
    """Kill the direct writer after some time; 1 if there was one."""
    time.sleep(after_s)
    _until("the direct writer runs", lambda: direct.pid > 0)
    with suppress(ProcessLookupError):
        os.kill(direct.pid, signal.SIGKILL)
        return 1
    return 0


def _status(ws: Path, run_id: str = "outage") -> DirectStatus:
    status = read_status(ws)
    return status if status is not None and status.run_id == run_id else DirectStatus()


def _writes(ws: Path, direct: DirectRecorder) -> bool:
    status = _status(ws)
    return status.pid == direct.pid and status.rows_written > 0


def _until(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise PlatformError(
                ReasonCode.STORE_FAILED, f"the drill waited {WAIT_SECONDS:g} s until {what}"
            )
        time.sleep(0.02)


def _exactly_once(store: Store, ws: Path, run_id: str) -> list[Claim]:
    """Hold the store against the logs of a session."""
    logs = {
        kind: _core.read_log(str(ws / "sessions" / run_id / kind)) for kind in columns.LOG_KINDS
    }
    expected: dict[str, list[int]] = {}
    for content in logs.values():
        for name, (_, positions) in _core.index_tape(content["tape"]).items():
            count = len(positions) // 4
            if count:
                expected[columns.TABLES[name]] = [count, count]
    where = {"run": run_id}
    found = {
        table: [
            int(number)
            for number in store.rows(
                f"SELECT count(), uniqExact(log_kind, seq) FROM {table}"  # noqa: S608  # ours
                " WHERE run_id = {run:String}",
                where,
            )[0]
        ]
        for table in columns.TABLES.values()
    }
    prints = store.rows(
        "SELECT (SELECT sum(trade_count) FROM hft.bars_1m WHERE run_id = {run:String}),"
        " (SELECT countIf(bitAnd(flags, 1) = 0) FROM hft.market_trades"
        " WHERE run_id = {run:String})",
        where,
    )[0]
    loaded = store.rows(
        "SELECT count() FROM hft.ingest_segments FINAL WHERE run_id = {run:String}", where
    )[0][0]
    return [
        Claim(
            f"{run_id}: rows of each table, and different ones, are the log's records",
            expected, {table: counts for table, counts in found.items() if counts[0]},
        ),
        Claim(
            f"{run_id}: the logs come back from the store byte for byte",
            {kind: sha256_hex(content["tape"]) for kind, content in logs.items()},
            {kind: sha256_hex(session_tape(store, run_id, kind)) for kind in logs},
        ),
        Claim(f"{run_id}: prints in the one-minute bars", int(prints[1]), int(prints[0])),
        Claim(
            f"{run_id}: segments called loaded",
            sum(len(content["segments"]) for content in logs.values()), int(loaded),
        ),
    ]  # fmt: skip


def _load_later(folder: Path, ws: Path, store: Store) -> str:
    """Load a copy of the first session's sealed logs as `wal_first` does; its run id."""
    run_id, other = "outage-later", folder / "later"
    shutil.copytree(ws / "sessions" / "outage", other / "sessions" / run_id)
    load_sealed(other, store)
    return run_id


def _content(store: Store, run_id: str) -> str:
    """Hash of everything that a session has in the store, without its name."""
    digest = hashlib.sha256()
    for table in columns.TABLES.values():
        data = store.raw(
            f"SELECT * EXCEPT run_id FROM {table}"  # noqa: S608  # our own table names
            " WHERE run_id = {run:String} ORDER BY log_kind, seq",
            "RowBinary",
            {"run": run_id},
        )
        digest.update(f"{table}:{len(data)}:".encode() + data)
    bars = store.raw(
        "SELECT * EXCEPT run_id FROM hft.bars_1m WHERE run_id = {run:String}"
        " ORDER BY instrument_id, minute_ns",
        "RowBinary",
        {"run": run_id},
    )
    digest.update(bars)
    return digest.hexdigest()


def _dead_letters(ws: Path) -> list[str]:
    folder = dead_letter_folder(ws)
    return sorted(path.name for path in folder.glob("*")) if folder.is_dir() else []


class _Session:
    """A process that writes the two logs of a session, as a session does."""

    def __init__(self, ws: Path, run_id: str, *, seed: int) -> None:
        self.folder = ws / "sessions" / run_id
        self._files = ws.parent / f"session-{run_id}"
        self._files.mkdir(parents=True)
        market, orders = _tapes(seed)
        (self._files / "market.tape").write_bytes(market)
        (self._files / "orders.tape").write_bytes(orders)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it writes."""
        command = [sys.executable, "-m", __name__, str(self.folder), str(self._files)]
        with (self._files / "acknowledged").open("wb") as output:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output)
        _until("the session writes", lambda: bool(self.acknowledged()))

    def finish(self) -> None:
        """Ask it to seal its logs and end."""
        (self._files / "finish").touch()

    def wait(self) -> int:
        """Exit status."""
        return -1 if self._process is None else self._process.wait(WAIT_SECONDS)

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(WAIT_SECONDS)

    def acknowledged(self) -> dict[str, int]:
        """Highest sequences that the logs acknowledged, as the process last said."""
        lines = (self._files / "acknowledged").read_bytes().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        if not whole:
            return {}
        market, orders = whole[-1].split()
        return {"market": int(market), "orders": int(orders)}


def _tapes(seed: int) -> tuple[bytes, bytes]:
    """Books, trades and timers; decisions and broker events: what a session writes."""
    draw = np.random.default_rng(seed)
    count = 20 * SLICE_RECORDS
    mid = 20_000 + np.cumsum(draw.integers(-1, 2, count))
    books = records.empty("Book", count)
    trades = records.empty("Trade", count // 4)
    timers = records.empty("Timer", count // 40)
    for level in range(5):
        books["bid_price"][:, level] = (mid - level) * SCALE
        books["ask_price"][:, level] = (mid + 1 + level) * SCALE
        books["bid_qty"][:, level] = draw.integers(1, 30, count) * SCALE
        books["ask_qty"][:, level] = draw.integers(1, 30, count) * SCALE
    trades["price"] = mid[::4][: trades.size] * SCALE
    trades["qty"] = draw.integers(1, 5, trades.size) * SCALE
    timers["timer_kind"] = 1
    decisions = records.empty("Decision", count // 8)
    decisions["decision_seq"] = np.arange(decisions.size)
    decisions["signal"] = draw.standard_normal(decisions.size)
    broker = records.empty("Broker", count // 16)
    broker["event_kind"] = 1
    broker["order_id"] = np.arange(broker.size) + 1
    broker["price"] = 20_000 * SCALE
    return _mixed([books, trades, timers], draw), _mixed([decisions, broker], draw)


def _mixed(parts: list[Any], draw: np.random.Generator) -> bytes:
    """One tape of several types in a drawn order, with rising sequence and time."""
    kinds = draw.permutation(np.repeat(np.arange(len(parts)), [part.size for part in parts]))
    for kind, part in enumerate(parts):
        places = np.flatnonzero(kinds == kind)
        part["input_seq"] = places + 1
        part["instrument_id"] = 1001
        part["exchange_time_ns"] = START_NS + places * 30_000_000
        part["sequence_time_ns"] = START_NS + places * 30_000_000 + 1
        part["trading_day"] = DAY
    rows = [iter([row.tobytes() for row in part]) for part in parts]
    return b"".join(next(rows[kind]) for kind in kinds)


class _Slices:
    """A tape in slices of whole records, again and again, with input sequences that rise."""

    def __init__(self, tape: bytes, count: int, *, first_input_seq: int) -> None:
        starts = [0]
        while starts[-1] < len(tape):
            starts.append(starts[-1] + int(struct.unpack_from("<H", tape, starts[-1])[0]))
        # Records are multiples of eight bytes, and their heads are alike.
        self._words = np.frombuffer(tape, dtype="<u8").copy()
        offset = dict(records.DTYPES["Timer"].fields or {})["input_seq"][1]
        self._places = (np.array(starts[:-1]) + offset) // 8
        self._words[self._places] += first_input_seq
        self._record_count = len(starts) - 1
        self._cuts = [starts[self._record_count * index // count] // 8 for index in range(count)]
        self._cuts.append(len(tape) // 8)
        self._index = 0

    def next(self) -> bytes:
        """The next slice."""
        if self._index == len(self._cuts) - 1:
            self._index = 0
            self._words[self._places] += self._record_count
        low, high = self._cuts[self._index : self._index + 2]
        self._index += 1
        return self._words[low:high].tobytes()


def _write_session(folder: Path, files: Path) -> int:
    """Body of the session's process: append slice by slice until asked to finish, then seal."""
    market = _Slices((files / "market.tape").read_bytes(), 25, first_input_seq=0)
    orders = _Slices((files / "orders.tape").read_bytes(), 25, first_input_seq=1 << 40)
    for kind in columns.LOG_KINDS:
        (folder / kind).mkdir(parents=True)
    with (
        _core.WalWriter(folder / "market", 1, "market", segment_bytes=SEGMENT_BYTES) as market_log,
        _core.WalWriter(folder / "orders", 1, "orders", segment_bytes=SEGMENT_BYTES) as order_log,
    ):
        for _ in range(SLICES_MAX):
            market_log.append(market.next())
            acked = order_log.append_durable(orders.next())
            sys.stdout.write(f"{market_log.durable_seq()} {acked}\n")
            sys.stdout.flush()
            if (files / "finish").exists():
                break
            time.sleep(SLICE_SECONDS)
    return 0


DRILLS = (
    Drill(
        "direct-outage",
        "recorder mode direct: store down, killed, replies lost; direct writer and session killed",
        run_direct_outage,
    ),
)

if __name__ == "__main__":
    sys.exit(_write_session(Path(sys.argv[1]), Path(sys.argv[2])))
