"""DirectWriter: follows the logs of running sessions into a server, about a second behind them.

Why: recorder mode ``direct``. It reads what the session has made durable, in a process of its own,
so that nothing it does or suffers can reach the session, and an outage of the store is nothing but
a log that is read later.

Invariants:
1. It sends only what is durable in the log: a crash never leaves rows of records that are gone.
2. An open segment is sent as ranges (`direct_ranges`), a sealed one as the loader does it, by the
   loader's own code, which also verifies it and calls it loaded. Neither sends what the other did.
3. Nothing is kept in memory that cannot be read again: after a failure everything is read from the
   log, the journal and the store, as after a kill.
4. What one log cannot give (damage, a value that does not fit) stops that log only, with its code.

It seals and recovers no log. Operator's page: `docs/recorder.md`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import structlog

from hft_platform import _core
from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.recorder import columns, direct_ranges, segments
from hft_platform.recorder.direct_ranges import RANGE_RECORDS, FollowedElsewhereError, RangeWriter
from hft_platform.recorder.ledger import SegmentKey, loaded_segments
from hft_platform.recorder.loader import LoadReport, ledger_folder, load_sealed
from hft_platform.recorder.store import Store
from hft_platform.recorder.store_errors import FAILURES
from hft_platform.recorder.windows import Windows

log = structlog.get_logger()

OpenStore = Callable[[], AbstractContextManager[Store]]
"""Opens the server's store; called again after every failure."""
POLL_SECONDS = 0.1
FLUSH_SECONDS = 0.5
"""Least time between two ranges of a log: a range is one insert a table, and servers like few."""
LOAD_AGAIN_SECONDS = 1.0
"""Wait before a sealed segment that could not be completed is tried again."""
POSITIONS_SECONDS = 300.0
"""How old the tables' insert positions in the journal may be; older ones only ask for more care."""
STATUS_SECONDS = 0.5
BACKOFF_SECONDS = (0.2, 5.0)
"""First and longest wait after a failure of the store."""
DRAIN_SECONDS = 15.0
"""Longest time spent on the rest when asked to end."""
_OF_A_LOG = frozenset(
    {
        ReasonCode.VALUE_OUT_OF_RANGE, ReasonCode.SEGMENT_CHANGED, ReasonCode.LOAD_COUNT_MISMATCH,
        ReasonCode.WAL_TORN_TAIL, ReasonCode.WAL_DAMAGED, ReasonCode.WAL_SEGMENT_MISMATCH,
        ReasonCode.WAL_SCHEMA_MISMATCH, ReasonCode.LOG_SEQUENCE_GAP, ReasonCode.WAL_READ_FAILED,
        ReasonCode.VIEW_MISMATCH,
    }
)  # fmt: skip
"""Refusals that say something about one log; every other one is about the store."""


def status_path(ws: Path) -> Path:
    """File in which the direct writer of a workspace says how it is doing."""
    return ws / "ledger" / "direct_status.json"


def read_status(ws: Path) -> DirectStatus | None:
    """The last status of a workspace's direct writer, None when there is none."""
    try:
        content = json.loads(status_path(ws).read_bytes())
    except (OSError, ValueError):
        return None
    names = {item.name for item in fields(DirectStatus)}
    return DirectStatus(**{name: value for name, value in content.items() if name in names})


@dataclass(slots=True)
class DirectStatus:
    """What a direct writer did, for people and metrics; written to `status_path`.

    Attributes
    ----------
    run_id : str or None
        The session it follows; None: every session of the workspace.
    pid : int
        Its process.
    state : str
        ``starting``, ``following``, ``store_down``, ``draining`` or ``ended``.
    rows_written, ranges_written, segments_loaded : int
        Since the process started; rows of completed segments are among them.
    store_failures : int
        Times the store did not do it.
    restarts : int
        How often the supervisor started the process again.
    lag_seconds : float
        At most how old the oldest durable record is that is not in the store; 0 when all are.
    lag_records : int
        How many durable records are not in the store.
    longest_lag_seconds : float
        The longest that a record was on its way, since the process started.
    clear_at : dict of str to float
        For each log, the last look that left nothing behind (monotonic seconds).
    left : list of str
        Logs and segments that are not in the store yet.
    last_error : dict or None
        Code, name and message of the last failure.
    """

    run_id: str | None = None
    pid: int = field(default_factory=os.getpid)
    restarts: int = 0
    state: str = "starting"
    rows_written: int = 0
    ranges_written: int = 0
    segments_loaded: int = 0
    store_failures: int = 0
    lag_seconds: float = 0.0
    lag_records: int = 0
    longest_lag_seconds: float = 0.0
    left: list[str] = field(default_factory=list)
    last_error: dict[str, Any] | None = None
    clear_at: dict[str, float] = field(default_factory=dict)

    def behind(self, now: float) -> float:
        """Seconds since the log furthest behind was clear."""
        return now - min(self.clear_at.values(), default=now)

    def arrived(self, log_name: str, looked_at: float) -> None:
        """Everything of a log that was durable at `looked_at` is in the store now."""
        before = self.clear_at.get(log_name, looked_at)
        self.longest_lag_seconds = max(self.longest_lag_seconds, time.monotonic() - before)
        self.clear_at[log_name] = looked_at

    def note(self, error: PlatformError) -> None:
        """Keep the last failure."""
        self.last_error = {
            "code": error.code, "name": code_name(error.code), "message": error.message
        }  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "pid": self.pid, "run_id": self.run_id, "state": self.state,
            "restarts": self.restarts,
            "rows_written": self.rows_written, "ranges_written": self.ranges_written,
            "segments_loaded": self.segments_loaded, "store_failures": self.store_failures,
            "lag_seconds": round(self.lag_seconds, 3), "lag_records": self.lag_records,
            "longest_lag_seconds": round(self.longest_lag_seconds, 3),
            "left": sorted(self.left), "last_error": self.last_error,
            "updated_at_ns": time.time_ns(),
        }  # fmt: skip

    def render(self) -> str:
        """Text for a terminal."""
        lines = [
            f"{self.state}: {self.rows_written} rows written, {self.segments_loaded} segments"
            f" loaded, longest lag {self.longest_lag_seconds:.1f} s, {self.store_failures} failures"
            " of the store"
        ]
        lines += [f"  left to the loader: {name}" for name in sorted(self.left)]
        if self.last_error is not None:
            lines.append("  last error {name} ({code}): {message}".format(**self.last_error))
        return "\n".join(lines)


class _FollowedLog:
    """One log of a session: its open segment, sent range by range."""

    def __init__(self, ws: Path, folder: Path) -> None:
        self.ws = ws
        self.folder = folder
        self.run_id, self.log_kind = folder.parent.name, folder.name
        self.is_given_up = False
        self.lag_records = 0
        self._held = ExitStack()
        self._journal: direct_ranges.RangeJournal | None = None
        self._follower: _core.SegmentFollower | None = None
        self._writer: RangeWriter | None = None
        self._segment_id = 0
        self._next_at = self._noted_at = 0.0

    @property
    def name(self) -> str:
        """``run/market``."""
        return f"{self.run_id}/{self.log_kind}"

    def close(self) -> None:
        """Let go of the journal; what is sent next is read again."""
        self._held.close()
        self._journal = self._follower = self._writer = None

    def open_segment(self) -> int | None:
        """Number of the segment that grows, None when none does."""
        numbers = [int(path.stem) for path in self.folder.glob("*.open") if path.stem.isdecimal()]
        return max(numbers, default=None)

    def step(self, store: Store, windows: Windows, status: DirectStatus) -> bool:
        """Send what is new; True when a whole range was, so that more may wait."""
        now = time.monotonic()
        if self.is_given_up or now < self._next_at:
            return False
        segment_id = self.open_segment()
        if segment_id is None:
            self.lag_records = 0
            status.clear_at.pop(self.name, None)
            return False
        status.clear_at.setdefault(self.name, now)
        if (self._follower is None or segment_id != self._segment_id) and not self._begin(
            store, windows, segment_id
        ):
            return False
        found = self._poll(RANGE_RECORDS)
        count, first_seq = int(found["record_count"]), int(found["first_seq"])
        self.lag_records = max(count, int(found["durable_seq"]) + 1 - first_seq)
        if not self.lag_records:
            status.clear_at[self.name] = now
        if not count or self._writer is None:
            return False
        if now - self._noted_at > POSITIONS_SECONDS:
            self._note_positions(windows)
        by_type = segments.split_records(found["tape"], first_seq)
        self._writer.send(by_type, first_seq, first_seq + count - 1)
        status.rows_written += count
        status.ranges_written += 1
        self.lag_records -= count
        if count == RANGE_RECORDS:
            return True
        status.arrived(self.name, now)
        self._next_at = now + FLUSH_SECONDS
        return False

    def _poll(self, records_max: int, durable_seq: int = 0) -> dict[str, Any]:
        if self._follower is None:
            return {"first_seq": 1, "record_count": 0, "tape": b"", "durable_seq": 0}
        try:
            return self._follower.poll(records_max, durable_seq)
        except _core.WalError as error:
            raise PlatformError(error.args[0], error.args[1]) from error

    def _begin(self, store: Store, windows: Windows, segment_id: int) -> bool:
        """Stand behind what was sent of the segment; False when another process follows it."""
        if self._journal is None:
            try:
                self._journal = self._held.enter_context(
                    direct_ranges.held(
                        self.ws, self.run_id, self.log_kind, store_id=store.store_id, is_made=True
                    )
                )
            except FollowedElsewhereError:
                return False
        if self._journal is None:
            return False
        try:
            follower = _core.SegmentFollower(str(self.folder), segment_id)
        except _core.WalError as error:
            is_gone = not (self.folder / f"{segment_id:08d}.open").exists()
            if error.args[0] == ReasonCode.WAL_TORN_TAIL or is_gone:
                return False  # its header is being written, or it was empty and removed
            raise PlatformError(error.args[0], error.args[1]) from error
        # Under the journal's lock, see invariant 3 of `direct_ranges`: only an open one is begun.
        ranges = self._journal.ranges(segment_id)
        if not ranges and not (self.folder / f"{segment_id:08d}.open").exists():
            return False
        self._follower, self._segment_id = follower, segment_id
        origin = columns.Origin(self.run_id, follower.wal_id, self.log_kind, segment_id)
        self._note_positions(windows)
        self._writer = RangeWriter(store, windows, self._journal, origin)
        for known in ranges:
            self._resume(known, self._writer)
        return True

    def _note_positions(self, windows: Windows) -> None:
        self._noted_at = time.monotonic()
        if self._journal is not None:
            self._journal.note_positions(windows.positions())

    def _resume(self, known: direct_ranges.Range, writer: RangeWriter) -> None:
        """Read a range again, exactly; bring it to its end if it is in doubt."""
        count = known.last_seq + 1 - known.first_seq
        found = self._poll(count, known.last_seq)
        if (found["first_seq"], found["record_count"]) != (known.first_seq, count):
            raise PlatformError(
                ReasonCode.SEGMENT_CHANGED,
                f"{self.name}/{self._segment_id}: {found['record_count']} records from"
                f" {found['first_seq']}, sent were {known.first_seq} to {known.last_seq}",
            )
        by_type = segments.split_records(found["tape"], known.first_seq)
        if known.is_done:
            writer.check(known, by_type)
        else:
            writer.settle(known, by_type)


class DirectWriter:
    """Follows the sessions of a workspace into an open store.

    Parameters
    ----------
    ws : Path
        Workspace.
    store : Store
        Open store on a server.
    status : DirectStatus
        Told what happens.
    run_id : str, optional
        Only this session; by default every one, those that start later too.
    on_progress : callable, optional
        Called after each segment of a long load, with the status up to date.
    """

    def __init__(
        self,
        ws: Path,
        store: Store,
        *,
        status: DirectStatus,
        run_id: str | None = None,
        on_progress: Callable[[], None] | None = None,
    ) -> None:
        self.ws = ws
        self.store = store
        self._on_progress = on_progress
        self.windows = Windows(store)
        self.status = status
        self._run_id = run_id
        self._logs: dict[Path, _FollowedLog] = {}
        self._settled: set[SegmentKey] = set()
        self._load_at = 0.0

    def __enter__(self) -> DirectWriter:
        """Return the writer."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Let go of all journals."""
        for followed in self._logs.values():
            followed.close()

    def step(self) -> bool:
        """Send what is new of every log; True when more is known to wait.

        Raises
        ------
        PlatformError
            The store's code when the store did not do it: open it again, and a new writer on it.
        """
        is_busy = False
        sessions = self._sessions()
        self._load_sealed(sessions)
        for session_dir in sessions:
            for log_kind in columns.LOG_KINDS:
                folder = session_dir / log_kind
                if folder.is_dir():
                    is_busy |= self._step_log(folder)
        self._measure()
        return is_busy

    def waiting(self) -> list[str]:
        """Segments that grow, and sealed ones that are neither loaded nor refused."""
        sealed, still_open = segments.find_segments(self._sessions())
        return [f"{p.parent.parent.name}/{p.parent.name}/{int(p.stem)}" for p in still_open] + [
            str(file.key) for file in sealed if file.key not in self._settled
        ]

    def _sessions(self) -> list[Path]:
        found = segments.find_sessions(self.ws)
        return [path for path in found if self._run_id in (None, path.name)]

    def _log(self, folder: Path) -> _FollowedLog:
        if folder not in self._logs:
            self._logs[folder] = _FollowedLog(self.ws, folder)
        return self._logs[folder]

    def _step_log(self, folder: Path) -> bool:
        followed = self._log(folder)
        try:
            return followed.step(self.store, self.windows, self.status)
        except PlatformError as error:
            if error.code not in _OF_A_LOG:
                raise
            # The loader will refuse the segment with the same code and set it aside.
            followed.close()
            followed.is_given_up = True
            self.status.note(error)
            log.error("direct_log_given_up", log=followed.name, reason_code=error.code)
            return False

    def _load_sealed(self, sessions: list[Path]) -> None:
        """Complete, verify and call loaded what was sealed; by the loader, which knows how."""
        sealed, _ = segments.find_segments(sessions)
        waiting = [file for file in sealed if file.key not in self._settled]
        if not waiting or time.monotonic() < self._load_at:
            return
        for file in waiting:
            self._log(file.path.parent).close()
        folders = sorted({file.path.parent.parent for file in waiting})
        rows, loaded = self.status.rows_written, self.status.segments_loaded

        def tell(_done: int, _total: int, so_far: LoadReport) -> None:
            self.status.rows_written = rows + so_far.rows_inserted
            self.status.segments_loaded = loaded + so_far.segments_loaded
            if self._on_progress is not None:
                self._on_progress()

        report = load_sealed(self.ws, self.store, session_dirs=folders, wait_s=0.0, on_segment=tell)
        tell(0, 0, report)
        for refused in report.refused:
            self.status.last_error = {
                "code": refused["code"], "name": refused["error"], "message": refused["message"]
            }  # fmt: skip
        for file in waiting:
            if str(file.key) in report.left_to_others:
                self._load_at = time.monotonic() + LOAD_AGAIN_SECONDS
            else:
                self._settled.add(file.key)

    def _measure(self) -> None:
        self.status.lag_records = sum(entry.lag_records for entry in self._logs.values())
        is_behind = self.status.lag_records > 0
        self.status.lag_seconds = self.status.behind(time.monotonic()) if is_behind else 0.0


def _left(ws: Path, run_id: str | None) -> list[str]:
    """Segments that no ledger calls loaded; needs no store."""
    sessions = [path for path in segments.find_sessions(ws) if run_id in (None, path.name)]
    sealed, still_open = segments.find_segments(sessions)
    loaded = loaded_segments(ledger_folder(ws))
    return [str(file.key) for file in sealed if file.key not in loaded] + [
        f"{p.parent.parent.name}/{p.parent.name}/{int(p.stem)}" for p in still_open
    ]


class Stop:
    """Asked to end: at once, or when everything that is durable is in the store."""

    def __init__(self) -> None:
        self.is_draining = False
        self.is_now = False

    def drain(self) -> None:
        """End when everything is in the store, after `DRAIN_SECONDS` at the latest."""
        self.is_draining = True

    def now(self) -> None:
        """End between two statements."""
        self.is_now = True


def follow(
    ws: Path,
    open_store: OpenStore,
    *,
    run_id: str | None = None,
    stop: Stop,
    restarts: int = 0,
    drain_s: float = DRAIN_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> DirectStatus:
    """Follow sessions into the store until asked to end, whatever the store does.

    Parameters
    ----------
    ws : Path
        Workspace.
    open_store : callable
        Opens the store; it waits a second or two at most for a server that is down.
    run_id : str, optional
        Only this session.
    stop : Stop
        Looked at between statements.
    restarts : int, optional
        For the status.
    drain_s : float, optional
        Longest time spent on the rest.
    sleep : callable, optional
        Waits that many seconds.

    Returns
    -------
    DirectStatus
        ``left`` names what the loader has to bring.

    Raises
    ------
    PlatformError
        What trying again cannot help: WAL_WRITE_FAILED when the journal could not be written,
        SETTINGS_INVALID, MIGRATION_CHANGED, DEDUPLICATION_OFF, STORE_REFUSED by a server that never
        let it in.
    """
    run = _Run(ws, run_id, stop, DirectStatus(run_id=run_id, restarts=restarts), drain_s, sleep)
    backoff = BACKOFF_SECONDS[0]
    while not run.is_over():
        try:
            with (
                open_store() as store,
                DirectWriter(
                    ws, store, status=run.status, run_id=run_id, on_progress=run.loading
                ) as writer,
            ):
                backoff = run.until_over(writer, backoff)
        except PlatformError as error:
            run.failed(error)
            if error.code not in FAILURES or (
                error.code == ReasonCode.STORE_REFUSED and not run.was_open
            ):
                raise
            run.wait(backoff)
            backoff = min(2 * backoff, BACKOFF_SECONDS[1])
    run.end()
    return run.status


class _Run:
    """State of one `follow` call."""

    def __init__(
        self,
        ws: Path,
        run_id: str | None,
        stop: Stop,
        status: DirectStatus,
        drain_s: float,
        sleep: Callable[[float], None],
    ) -> None:
        self.ws = ws
        self.status = status
        self._run_id = run_id
        self._stop = stop
        self._drain_s = drain_s
        self._sleep = sleep
        self.was_open = False
        self._drain_until: float | None = None
        self._is_complete = False
        self._status_at = 0.0

    def until_over(self, writer: DirectWriter, backoff: float) -> float:
        """Follow; returns the wait after the next failure, the first one again after a success."""
        self.was_open = True
        while not self.is_over():
            is_busy = writer.step()
            backoff = BACKOFF_SECONDS[0]
            self.status.state = "draining" if self._stop.is_draining else "following"
            if self._stop.is_draining:
                self._is_complete = not writer.waiting()
            self._say()
            if not is_busy:
                self._sleep(POLL_SECONDS)
        return backoff

    def loading(self) -> None:
        """Say how a long load goes."""
        self.status.state = "draining" if self._stop.is_draining else "following"
        self._say()

    def is_over(self) -> bool:
        """Whether to end now."""
        if self._stop.is_now or self._is_complete:
            return True
        if not self._stop.is_draining:
            return False
        now = time.monotonic()
        self._drain_until = self._drain_until or now + self._drain_s
        return now >= self._drain_until

    def failed(self, error: PlatformError) -> None:
        """Note a failure of the store; the log goes on without it."""
        self.status.state = "store_down"
        self.status.store_failures += 1
        self.status.note(error)
        self.status.lag_seconds = self.status.behind(time.monotonic())
        log.warning("direct_store_failed", reason_code=error.code, message=error.message[:300])
        self._say(is_forced=True)

    def wait(self, seconds: float) -> None:
        """Wait, but not when asked to end."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.is_over():
            self._sleep(POLL_SECONDS)

    def end(self) -> None:
        """Say what is left."""
        self.status.state = "ended"
        self.status.left = _left(self.ws, self._run_id)
        self._say(is_forced=True)

    def _say(self, *, is_forced: bool = False) -> None:
        now = time.monotonic()
        if is_forced or now >= self._status_at:
            self._status_at = now + STATUS_SECONDS
            content = canonical_json(self.status.as_dict()) + b"\n"
            atomic_write(status_path(self.ws), content)
