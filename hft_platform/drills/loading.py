"""Drills of loading: loaders killed and restarted, three of them at once, replays without end.

Why: "exactly once" is a sentence until loaders and server die at the worst moments and the counts
still agree.

Invariants:
1. Loaders and server are real processes, ended with SIGKILL; the log and the store are real.
2. What must be there is counted from what was appended, never from the store.
3. The last look is at a server without faults.

Operator's pages: `docs/drills/loader-killed.md`, `docs/drills/two-loaders.md`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hft_platform import _core, records
from hft_platform.config.canonical import sha256_hex
from hft_platform.drills.drill import Claim, Drill, DrillReport
from hft_platform.drills.loader_process import LoaderProcess
from hft_platform.drills.server_faults import Fault
from hft_platform.drills.server_process import ServerProcess

if TYPE_CHECKING:
    from hft_platform.recorder.store import Store

_DAY = 20260302
_START_NS = 1_772_412_300_000_000_000
_WAL_ID = 77
_FAULTS = (
    Fault("drop_reply", table="hft.", probability=0.08, times=0),
    Fault("drop_before", table="hft.", probability=0.04, times=0),
    Fault("stall_after", table="hft.", probability=0.15, seconds=0.12, times=0),
    Fault("stall_before", table="hft.", probability=0.05, seconds=0.12, times=0),
)
_PATIENCE_SECONDS = 240.0
_SMALL_WINDOW = 4


@dataclass(frozen=True, slots=True)
class Appended:
    """What was appended to the logs of a workspace.

    Attributes
    ----------
    tapes : dict
        Bytes by run and log.
    segments : int
        Sealed segments.
    """

    tapes: dict[tuple[str, str], bytes]
    segments: int

    @property
    def records(self) -> int:
        """How many records."""
        return sum(
            part.size for tape in self.tapes.values() for part in records.split(tape).values()
        )

    @property
    def prints(self) -> int:
        """How many trades that a bar counts."""
        return sum(
            int((records.split(tape)["Trade"]["flags"] % 2 == 0).sum())
            for (_, log_kind), tape in self.tapes.items()
            if log_kind == "market"
        )


def write_runs(ws: Path, *, runs: int, segments: int, records_each: int, seed: int) -> Appended:
    """Append runs of a market and an order log with the real writer, and seal them.

    Parameters
    ----------
    ws : Path
        Workspace.
    runs : int
        Sessions.
    segments : int
        Segments of each market log; an order log has a third of it, at least one.
    records_each : int
        Records of a segment.
    seed : int
        Decides the values.

    Returns
    -------
    Appended
    """
    draw = np.random.default_rng(seed)
    tapes: dict[tuple[str, str], bytes] = {}
    sealed = 0
    for run in range(runs):
        run_id = f"drill-{seed}-{run + 1}"
        next_input = 1
        for log_kind in ("market", "orders"):
            folder = ws / "sessions" / run_id / log_kind
            folder.mkdir(parents=True)
            count = segments if log_kind == "market" else max(segments // 3, 1)
            tape = b""
            with _core.WalWriter(str(folder), _WAL_ID + run, log_kind) as writer:
                for index in range(count):
                    make = _market if log_kind == "market" else _orders
                    part, next_input = make(draw, records_each, next_input)
                    writer.append(part)
                    tape += part
                    if index < count - 1:
                        writer.rotate()
            tapes[run_id, log_kind] = tape
            sealed += count
    return Appended(tapes, sealed)


def _market(draw: np.random.Generator, count: int, first_input: int) -> tuple[bytes, int]:
    kinds = draw.choice(["Book", "Trade", "Timer"], size=count, p=[0.6, 0.35, 0.05])
    return _mixed(draw, kinds, first_input)


def _orders(draw: np.random.Generator, count: int, first_input: int) -> tuple[bytes, int]:
    return _mixed(draw, draw.choice(["Decision", "Broker"], size=count), first_input)


def _mixed(draw: np.random.Generator, kinds: Any, first_input: int) -> tuple[bytes, int]:
    """Records of these types, and the next input's number; a decision has that of its cause."""
    numbers = first_input - 1 + np.cumsum(kinds != "Decision")
    rows: list[bytes] = [b""] * kinds.size
    for name in np.unique(kinds):
        places = np.flatnonzero(kinds == name)
        part = records.empty(str(name), places.size)
        part["input_seq"] = numbers[places]
        part["instrument_id"] = 1001
        part["trading_day"] = _DAY
        for field in ("exchange_time_ns", "receive_time_ns", "sequence_time_ns"):
            part[field] = _START_NS + (places + first_input) * 1_000_000
        for field in set(part.dtype.names or ()) & {"price", "qty", "bid_price", "ask_price"}:
            part[field] = draw.integers(1, 10**15, part[field].shape)
        for place, row in zip(places, part, strict=True):
            rows[place] = row.tobytes()
    return b"".join(rows), int(numbers[-1]) + 1


def exactly_once(ws: Path, store: Store, appended: Appended) -> list[Claim]:
    """What must hold of a store when everything is loaded.

    Parameters
    ----------
    ws : Path
        Workspace.
    store : Store
        On a server without faults.
    appended : Appended
        What must be in it.

    Returns
    -------
    list of Claim
    """
    from hft_platform.recorder.columns import TABLES
    from hft_platform.recorder.replay_contract import check_store
    from hft_platform.recorder.session_records import session_tape

    every = " UNION ALL ".join(
        f"SELECT run_id, wal_id, log_kind, seq FROM {table}"  # noqa: S608  # our own table names
        for table in TABLES.values()
    )
    count, unique = store.rows(
        f"SELECT count(), uniqExact(run_id, wal_id, log_kind, seq) FROM ({every})"  # noqa: S608
    )[0]
    (in_bars,) = store.rows("SELECT sum(trade_count) FROM hft.bars_1m")[0]
    contract = check_store(ws, store)
    return [
        Claim("rows in the store are the records appended", appended.records, int(count)),
        Claim("no record is there twice", appended.records, int(unique)),
        Claim("prints in the one-minute bars", appended.prints, int(in_bars)),
        Claim("segments loaded and verified", appended.segments, contract.segments),
        Claim("violations of the replay contract", [], [str(v) for v in contract.violations]),
        Claim(
            "logs that come back from the store with the bytes appended",
            len(appended.tapes),
            sum(
                sha256_hex(session_tape(store, run_id, log_kind)) == sha256_hex(tape)
                for (run_id, log_kind), tape in appended.tapes.items()
            ),
        ),
    ]  # fmt: skip


def run_loaders(
    folder: Path,
    *,
    loaders: int,
    kills: int,
    server_kills: int,
    segments: int,
    seed: int,
    records_each: int = 400,
    faults: tuple[Fault, ...] = _FAULTS,
    prelude: str = "",
) -> tuple[Path, ServerProcess, Appended, dict[str, Any]]:
    """Load with loaders that are killed, through a server that fails and is killed.

    Parameters
    ----------
    folder : Path
        Empty folder; the workspace and the store lie in it.
    loaders : int
        Loaders at a time; one that was killed is started again.
    kills, server_kills : int
        How often a loader and the server are ended with SIGKILL.
    segments : int
        Segments of each of two market logs.
    seed : int
        Decides everything that is drawn.
    records_each : int, optional
        Records of a segment.
    faults : tuple of Fault, optional
        What the server does wrong besides.
    prelude : str, optional
        See `LoaderProcess`.

    Returns
    -------
    ws : Path
    server : ServerProcess
        Running, without faults; the caller stops it.
    appended : Appended
    facts : dict
    """
    started = time.monotonic()
    draw = np.random.default_rng(seed)
    ws = folder / "workspace"
    appended = write_runs(ws, runs=2, segments=segments, records_each=records_each, seed=seed)
    server = ServerProcess(folder / "store" / "data", faults=faults, seed=seed)
    server.start()
    facts: dict[str, Any] = {"loader_kills": 0, "server_kills": 0, "records": appended.records}
    hits: dict[str, int] = {}
    running = [LoaderProcess(ws, server.dsn, prelude=prelude) for _ in range(loaders)]
    try:
        # Kills are spread over the inserts that the load needs, about four for each segment.
        expected = 4 * appended.segments
        at = np.sort(draw.integers(2, max(expected - 4, 3), kills + server_kills))
        is_server = draw.permutation([True] * server_kills + [False] * kills)
        applied = 0
        for moment, kill_server in zip(at, is_server, strict=True):
            _wait_for_inserts(server, running, int(moment) - applied)
            if kill_server:
                applied += _applied(server)
                _add(hits, server.state()["hits"])
                server.kill()
                facts["server_kills"] += 1
                server.start()
            else:
                victim = int(draw.integers(0, len(running)))
                facts["loader_kills"] += running[victim].kill()
                running[victim] = LoaderProcess(ws, server.dsn, prelude=prelude)
        _wait_for_inserts(server, running, expected)
        _add(hits, server.state()["hits"])
        server.set_faults()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        ended = [loader.wait(max(deadline - time.monotonic(), 1.0)) for loader in running]
        facts["loaders_that_ended_well"] = sum(bool(counts) for counts in ended)
        facts |= {
            f"complaint_{index + 1}": loader.complaint
            for index, loader in enumerate(running)
            if loader.complaint
        }
        facts["failed_tries"] = sum(counts.get("failures", 0) for counts in ended)
    except BaseException:
        server.stop()
        raise
    finally:
        for loader in running:
            loader.kill()
    facts |= {f"hits_{kind}": count for kind, count in sorted(hits.items())}
    facts["seconds"] = round(time.monotonic() - started, 1)
    return ws, server, appended, facts


def _applied(server: ServerProcess) -> int:
    return int(server.state()["counts"].get("applied_insert", 0))


def _wait_for_inserts(server: ServerProcess, running: list[LoaderProcess], count: int) -> None:
    """Until the server applied so many, or no loader is left that could send one."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if _applied(server) >= count or not any(loader.is_running for loader in running):
            return
        time.sleep(0.003)


def _add(hits: dict[str, int], more: dict[str, int]) -> None:
    for kind, count in more.items():
        hits[kind] = hits.get(kind, 0) + count


def two_loaders(folder: Path, seed: int, size: int) -> DrillReport:
    """Three loaders, killed and restarted, on one server that loses replies, stalls and dies."""
    from hft_platform.recorder.store import open_store

    ws, server, appended, facts = run_loaders(
        folder, loaders=3, kills=3 * size, server_kills=max(size // 3, 1), segments=6 * size,
        seed=seed,
    )  # fmt: skip
    try:
        with open_store(ws, dsn=server.dsn) as store:
            claims = exactly_once(ws, store, appended)
    finally:
        server.stop()
    claims.append(Claim("loaders that ended by themselves", 3, facts["loaders_that_ended_well"]))
    return DrillReport("two-loaders", tuple(claims), facts)


def loader_killed(folder: Path, seed: int, size: int) -> DrillReport:
    """One loader, killed and restarted; then replays whose inserts the store has forgotten."""
    from hft_platform.recorder.store import open_store

    ws, server, appended, facts = run_loaders(
        folder, loaders=1, kills=2 * size, server_kills=1, segments=6 * size, seed=seed
    )
    try:
        with open_store(ws, dsn=server.dsn) as store:
            claims = exactly_once(ws, store, appended)
            facts["replays_beyond_the_window"] = 5 * size
            added = _replay_beyond_window(ws, store, seed=seed, replays=5 * size)
            claims.append(Claim("rows that replays beyond the window added", 0, added))
            claims += exactly_once(ws, store, appended)
            doubled = _blind_inserts_that_double(ws, store)
            facts["trades_doubled_by_blind_inserts"] = doubled
            claims.append(Claim("blind inserts in their place double trades", True, doubled > 0))
    finally:
        server.stop()
    return DrillReport("loader-killed", tuple(claims), facts)


def _replay_beyond_window(ws: Path, store: Store, *, seed: int, replays: int) -> int:
    """Load again and again from ledgers cut at a line, in a store that remembers little.

    A ledger cut behind any line is what a crash at that moment leaves. Returns rows added.
    """
    from hft_platform.recorder.columns import TABLES
    from hft_platform.recorder.loader import ledger_folder, load_sealed

    for table in [*TABLES.values(), "hft.bars_1m_state"]:
        store.command(
            f"ALTER TABLE {table} MODIFY SETTING"
            f" non_replicated_deduplication_window = {_SMALL_WINDOW}"
        )
    draw = np.random.default_rng(seed)
    whole = {path: path.read_bytes() for path in ledger_folder(ws).glob("ingest-*.jsonl")}
    added = 0
    for _ in range(replays):
        for path, raw in sorted(whole.items()):
            lines = raw.splitlines(keepends=True)
            path.write_bytes(b"".join(lines[: int(draw.integers(0, len(lines) + 1))]))
        added += load_sealed(ws, store).rows_inserted
    return added


def _blind_inserts_that_double(ws: Path, store: Store) -> int:
    """How many trades of the logs come twice when sent under their token without asking."""
    from hft_platform.recorder import columns, segments

    files, _ = segments.find_segments(segments.find_sessions(ws))
    count = "SELECT count() FROM hft.market_trades"
    before = int(store.rows(count)[0][0])
    for file in files:
        segment = segments.read(file)
        for part in segment.parts(0):
            if part.record_name == "Trade":
                block = columns.encode_records(
                    "Trade", part.rows, origin=segment.origin, seqs=part.seqs
                )
                names = columns.column_names("Trade")
                store.insert_native(part.table, names, block, token=part.token)
    return int(store.rows(count)[0][0]) - before


DRILLS = (
    Drill(
        "loader-killed", "a loader dies again and again, and loads what it loaded", loader_killed
    ),
    Drill("two-loaders", "three loaders at once, and a server that fails and dies", two_loaders),
)
