"""Drills of the store: down, slow, killed inside an insert, replies lost.

Why: the store is the part that is most often away. Whatever it does, the log keeps the records and
the loader brings each of them in once.

Invariants:
1. The real log writer, loader, client and engine; the server is `chdb_server`.
2. What the store must hold is counted from the records that were appended (`sample_session`).
3. Every wait and every repetition has a bound.

It proves nothing about a real server's concurrency. Operator's page: `docs/drills.md`.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hft_platform.drills.chdb_server import ServerProcess
from hft_platform.drills.drill import Claim, Drill, DrillReport
from hft_platform.drills.sample_session import Appended, write_session
from hft_platform.drills.server_faults import Fault
from hft_platform.errors import PlatformError, code_name
from hft_platform.recorder import columns
from hft_platform.recorder.loader import load_sealed
from hft_platform.recorder.session_records import session_tape
from hft_platform.recorder.store import POLICY, Store, open_store
from hft_platform.recorder.store_errors import FAILURES
from hft_platform.records import SCALE, tape_sha256

if TYPE_CHECKING:
    from hft_platform.recorder.store_target import StorePolicy

HASTY = dataclasses.replace(
    POLICY, connect_timeout_s=1.0, request_timeout_s=20.0, attempts_max=3,
    breaker_failures_max=4, breaker_open_s=0.3, backoff_first_s=0.02, backoff_max_s=0.2,
)  # fmt: skip
"""The packaged policy with pauses of a rehearsal's length."""
RECORDS = 3_000
SEGMENT_BYTES = 1 << 20
LOADS_MAX = 60
WAIT_SECONDS = 30.0
BACK_SECONDS = 0.3
TIMEOUT_SECONDS, STALL_SECONDS = 0.4, 0.6
# An insert of a session's table takes about 10 ms on a quiet machine.
KILL_SECONDS = (0.001, 0.02)


class _Rehearsal:
    """One drill under way: its folder, its server, what was appended, and what loading met.

    Parameters
    ----------
    name : str
        The drill's.
    folder : Path
        Empty; the workspace.
    seed : int
        Decides everything that is drawn.
    server : ServerProcess
        Started.
    """

    def __init__(self, name: str, folder: Path, seed: int, server: ServerProcess) -> None:
        self.name = name
        self.folder = folder
        self.draw = np.random.default_rng(seed)
        self.server = server
        self.appended: list[Appended] = []
        self.codes: Counter[str] = Counter()
        self.problems: list[str] = []
        self.loads = 0
        self.sent_again = 0
        self.slowest_s = 0.0

    def append(self) -> None:
        """Write and seal one more session."""
        self.appended.append(
            write_session(
                self.folder, f"{self.name}-{len(self.appended)}", records_count=RECORDS,
                seed=int(self.draw.integers(1 << 31)), segment_bytes=SEGMENT_BYTES,
            )
        )  # fmt: skip

    def load(self, *, policy: StorePolicy = HASTY, wait_s: float = WAIT_SECONDS) -> str:
        """Open the store and load; the code with which that ended, empty when all is in."""
        self.loads += 1
        try:
            with open_store(
                self.folder, dsn=self.server.dsn, policy=policy, wait_s=wait_s
            ) as store:
                return self.load_into(store)
        except PlatformError as error:
            return self._ended(error)

    def load_into(self, store: Store) -> str:
        """Load into an open store; the code with which that ended, empty when all is in."""
        before = store.counts["sent_again"]
        try:
            self.problems += load_sealed(self.folder, store).problems
        except PlatformError as error:
            return self._ended(error)
        finally:
            self.sent_again += store.counts["sent_again"] - before
            self.slowest_s = max(self.slowest_s, store.slowest_s)
        return ""

    def load_until_done(self, *, policy: StorePolicy = HASTY) -> None:
        """Load again and again, at most `LOADS_MAX` times, as a scheduler would."""
        for _ in range(LOADS_MAX):
            if self.load(policy=policy) == "":
                return

    def _ended(self, error: PlatformError) -> str:
        if error.code not in FAILURES:
            raise error
        name = code_name(error.code)
        self.codes[name] += 1
        # The breaker says when to ask again.
        time.sleep(float(error.facts.get("wait_s", 0.0)))
        return name

    def report(self, claims: Sequence[Claim], **facts: Any) -> DrillReport:
        """The drill's claims and those that every drill of the store makes."""
        with open_store(self.folder, dsn=self.server.dsn, policy=HASTY) as store:
            again = load_sealed(self.folder, store)
            held = _held(store, self.appended)
        records = sum(session.record_count for session in self.appended)
        prints = sum(session.print_count for session in self.appended)
        volume = sum(session.print_volume for session in self.appended)
        return DrillReport(
            self.name,
            (
                *claims,
                Claim("segments refused because of the outage", [], self.problems),
                Claim("rows in the store, of the records appended", records, held["rows"]),
                Claim("different records among them", records, held["unique"]),
                Claim("logs that do not come back byte for byte", [], held["differing"]),
                Claim("prints in the bars, of those appended", prints, held["prints"]),
                Claim("volume in the bars, at 1e-8", volume, held["volume"]),
                Claim("rows that one more load inserts", 0, again.rows_inserted),
            ),
            {
                "codes": dict(sorted(self.codes.items())),
                "loads": self.loads,
                "statements_sent_again": self.sent_again,
                "slowest_statement_s": round(self.slowest_s, 3),
                **facts,
            },
        )


def store_down(folder: Path, seed: int, size: int) -> DrillReport:
    """The server is down when loading begins, and goes down again in the middle.

    Parameters
    ----------
    folder : Path
        Empty.
    seed : int
        Decides records and moments.
    size : int
        Outages in the middle.

    Returns
    -------
    DrillReport
    """
    with ServerProcess(folder / "server" / "store", seed=seed, is_refusing=True) as server:
        drill = _Rehearsal("store-down", folder, seed, server)
        drill.append()
        at_start = drill.load(wait_s=0.0)
        with _back_soon(server):
            caught_up = [drill.load()]
        in_the_middle = Counter[str]()
        for _ in range(size):
            drill.append()
            server.set_faults(Fault("refuse", skip=int(drill.draw.integers(0, 4))))
            in_the_middle[drill.load()] += 1
            in_the_middle[drill.load(wait_s=0.0)] += 1
            server.set_faults()
            with _back_soon(server):
                caught_up.append(drill.load())
        return drill.report(
            [
                Claim("a load with the server down ends with", "STORE_UNREACHABLE", at_start),
                Claim(
                    "loads into which it went down, and after",
                    {"STORE_AMBIGUOUS": size, "STORE_UNREACHABLE": size}, dict(in_the_middle),
                ),
                Claim(
                    "codes of the loads that waited for it", [""] * (size + 1), caught_up,
                ),
            ],
            outages=size + 1,
        )  # fmt: skip


def store_slow(folder: Path, seed: int, size: int) -> DrillReport:
    """The server stalls before and after applying, longer than the client waits.

    Parameters
    ----------
    folder : Path
        Empty.
    seed : int
        Decides records and which statements stall.
    size : int
        Pairs of sessions into which it stalls.

    Returns
    -------
    DrillReport
    """
    policy = dataclasses.replace(HASTY, request_timeout_s=TIMEOUT_SECONDS)
    # Per statement: its attempts, the pauses between them, and time to notice.
    bound_s = policy.attempts_max * (TIMEOUT_SECONDS + policy.backoff_max_s) + 2.0
    with ServerProcess(folder / "server" / "store", seed=seed) as server:
        drill = _Rehearsal("store-slow", folder, seed, server)
        drill.append()
        with open_store(folder, dsn=server.dsn, policy=HASTY):
            pass  # the schema is made while all is well
        with open_store(folder, dsn=server.dsn, policy=policy) as store:
            # Everything stalls, until the breaker opens and the server is left alone.
            server.set_faults(Fault("stall_before", "any", times=0, seconds=STALL_SECONDS))
            while store.breaker.opened == 0 and drill.loads < LOADS_MAX:
                drill.loads += 1
                drill.load_into(store)
            asked = server.state()["counts"]
            left_alone = _code_of(lambda: store.rows("SELECT 1"))
            is_left_alone = server.state()["counts"] == asked
        # Then single inserts, on both sides of being applied.
        for kind in ("stall_before", "stall_after") * size:
            drill.append()
            skip = int(drill.draw.integers(0, 4))
            server.set_faults(Fault(kind, times=2, skip=skip, seconds=STALL_SECONDS))
            drill.load_until_done(policy=policy)
        hits = server.state()["hits"]
        server.set_faults()
        drill.load_until_done()
        expected = {"STORE_AMBIGUOUS", "STORE_TIMEOUT", "STORE_BREAKER_OPEN", "STORE_UNREACHABLE"}
        return drill.report(
            [
                Claim("code while the breaker is open", "STORE_BREAKER_OPEN", left_alone),
                Claim("the server was left alone meanwhile", True, is_left_alone),
                Claim("codes that no slow store explains", [], sorted(set(drill.codes) - expected)),
                Claim("inserts whose reply came too late, at least two a session", True,
                      hits.get("stall_after", 0) >= 2 * size),
                Claim("statements that were given up too late", 0, int(drill.slowest_s > bound_s)),
            ],
            stalls=hits, bound_s=bound_s,
        )  # fmt: skip


def store_killed(folder: Path, seed: int, size: int) -> DrillReport:
    """The server is killed inside inserts, and started again on the same data.

    Parameters
    ----------
    folder : Path
        Empty.
    seed : int
        Decides records, and how far into an insert.
    size : int
        Three kills a unit.

    Returns
    -------
    DrillReport
    """
    tables = ("hft.market_trades", "hft.market_books", "hft.decisions")
    kills = 0
    with ServerProcess(folder / "server" / "store", seed=seed) as server:
        drill = _Rehearsal("store-killed", folder, seed, server)
        drill.append()
        drill.load_until_done()
        for number in range(len(tables) * size):
            drill.append()
            after_s = float(drill.draw.uniform(*KILL_SECONDS))
            server.set_faults(Fault("kill_inside", table=tables[number % 3], seconds=after_s))
            drill.load(wait_s=0.0)
            kills += server.wait_dead() < 0
            server.forget_faults()
            server.start()
        drill.load_until_done()
        claims = [Claim("servers killed inside an insert", len(tables) * size, kills)]
        return drill.report(claims)


def reply_lost(folder: Path, seed: int, size: int) -> DrillReport:
    """Inserts are applied and their replies lost, again and again.

    Parameters
    ----------
    folder : Path
        Empty.
    seed : int
        Decides records and which replies are lost.
    size : int
        Sessions to load.

    Returns
    -------
    DrillReport
    """
    with ServerProcess(folder / "server" / "store", seed=seed) as server:
        drill = _Rehearsal("reply-lost", folder, seed, server)
        for _ in range(size):
            drill.append()
        with open_store(folder, dsn=server.dsn, policy=HASTY):
            pass
        server.set_faults(Fault("drop_reply", times=0, probability=0.5))
        drill.load_until_done()
        lost = server.hits("drop_reply")
        server.set_faults()
        return drill.report(
            [
                Claim("three replies a session were lost, at least", True, lost >= 3 * size),
                Claim("some inserts were sent again at once", True, drill.sent_again > 0),
            ],
            replies_lost=lost,
        )


@contextmanager
def _back_soon(server: ServerProcess) -> Iterator[None]:
    """Let a server that refuses connections accept them again while something waits for it."""
    timer = threading.Timer(BACK_SECONDS, server.refuse, (False,))
    timer.start()
    try:
        yield
    finally:
        timer.join()


def _code_of(call: Callable[[], object]) -> str:
    try:
        call()
    except PlatformError as error:
        return code_name(error.code)
    return ""


def _held(store: Store, appended: Sequence[Appended]) -> dict[str, Any]:
    """What the store holds, and which logs it does not give back as they were appended."""
    every = " UNION ALL ".join(
        f"SELECT run_id, log_kind, seq FROM {table}"  # noqa: S608  # our own table names
        for table in columns.TABLES.values()
    )
    rows, unique = store.rows(f"SELECT count(), uniqExact(run_id, log_kind, seq) FROM ({every})")[0]  # noqa: S608
    # Through text: a decimal of the client is a Python object of its own scale.
    prints, volume = store.rows(
        "SELECT sum(trade_count), toString(CAST(sum(volume) AS Decimal(38, 8))) FROM hft.bars_1m"
    )[0]
    differing = [
        f"{session.run_id}/{kind}"
        for session in appended
        for kind, expected in (
            ("market", session.market_sha256), ("orders", session.orders_sha256),
        )
        if tape_sha256(session_tape(store, session.run_id, kind)) != expected
    ]  # fmt: skip
    return {
        "rows": int(rows), "unique": int(unique), "differing": differing, "prints": int(prints),
        "volume": int(Decimal(str(volume)) * SCALE),
    }  # fmt: skip


DRILLS: tuple[Drill, ...] = (
    Drill("store-down", "the store is down at the start and in the middle", store_down),
    Drill("store-slow", "the store stalls longer than anyone waits", store_slow),
    Drill("store-killed", "the store is killed inside inserts", store_killed),
    Drill("reply-lost", "inserts are applied and their replies lost", reply_lost),
)
