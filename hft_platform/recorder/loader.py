"""Loader: every record of every sealed segment into the store, exactly once, by any number of
processes.

Why: the log is the truth, the store is where people ask. Loading must be safe to repeat, to
interrupt anywhere, to start again and to run beside itself, without anyone thinking about it.

Invariants:
1. Before an insert there is a durable BEFORE. A segment with a BEFORE is resolved by counting rows
   in the store and by the distance to the insert (`windows`), never by a blind second insert.
2. Equal tokens mean equal rows, so the same insert twice adds nothing, to the table and to the
   views behind it; two loaders on one segment send the same tokens and the same bytes.
3. LOADED is written when the store's count, range and sums of sequence numbers equal the
   segment's, table by table, and the segment follows the one before it (`load_verify`).
4. A segment whose bytes changed since it was begun or loaded, that does not rise in input sequence,
   or whose predecessors are missing, is refused before anything of it is sent (`replay_contract`).
5. A refused segment is described in the dead-letter folder and stays where it is; the others go on.
6. Claims share the work out; nothing above depends on them.

It starts no store and seals no log. Operator's page: `docs/store.md`.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform import _core
from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.recorder import direct_ranges, load_verify, replay_contract, segments
from hft_platform.recorder.archive import archive_folder, find_archived
from hft_platform.recorder.claims import SHARDS, FileClaimRegistry, shard_of
from hft_platform.recorder.host_claims import HostClaims
from hft_platform.recorder.ledger import FileStamp, Ledger, SegmentKey, loaded_segments
from hft_platform.recorder.load_verify import Sent
from hft_platform.recorder.segment_send import PartPlace, put_back_parts, send_segment
from hft_platform.recorder.segments import LoadedSegment, SegmentFile
from hft_platform.recorder.store_errors import FAILURES
from hft_platform.recorder.windows import Windows

if TYPE_CHECKING:
    from hft_platform.recorder.store import Store

VERIFY_SEGMENTS = 32
"""Segments are verified in groups: one query for the group."""
SHARDS_AT_ONCE = 4
"""How many shards a loader takes at a time where others may want the rest."""
LOCK_WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.05
_STOPS_LOADING = frozenset(FAILURES) | {ReasonCode.WAL_WRITE_FAILED, ReasonCode.INVARIANT_BROKEN}


@dataclass(slots=True)
class LoadReport:
    """What a load did.

    Attributes
    ----------
    segments_loaded, segments_known : int
        Completed now, and complete before.
    rows : dict of str to int
        Rows inserted now, by table.
    parts_inserted, parts_found : int
        Inserts sent, and inserts that an earlier load had already made.
    parts_restored : int
        Parts whose token the store remembered while their rows were gone (`lost_parts`).
    segments : list of dict
        One row for each segment completed now: name, rows, hash, seconds of sending.
    left_to_others : list of str
        Segments that another host, or a process that follows their log, is loading.
    still_open : list of str
        Segments not sealed yet.
    refused : list of dict
        Segment, code and message of those set aside.
    seconds : float
        Wall time.
    """

    segments_loaded: int = 0
    segments_known: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    parts_inserted: int = 0
    parts_found: int = 0
    parts_restored: int = 0
    segments: list[dict[str, Any]] = field(default_factory=list)
    left_to_others: list[str] = field(default_factory=list)
    still_open: list[str] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rows_inserted(self) -> int:
        """Rows inserted now."""
        return sum(self.rows.values())

    @property
    def problems(self) -> list[str]:
        """One line for each refused segment."""
        return [f"{r['error']} ({r['code']}): {r['segment']}: {r['message']}" for r in self.refused]

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "segments_loaded": self.segments_loaded,
            "segments_known": self.segments_known,
            "rows_inserted": self.rows_inserted,
            "rows": dict(sorted(self.rows.items())),
            "parts_inserted": self.parts_inserted,
            "parts_found": self.parts_found,
            "parts_restored": self.parts_restored,
            "segments": self.segments,
            "left_to_others": self.left_to_others,
            "still_open": self.still_open,
            "refused": self.refused,
            "problems": self.problems,
            "seconds": round(self.seconds, 3),
        }


def ledger_folder(ws: Path) -> Path:
    """Folder of a workspace's ingestion ledgers, one file a shard."""
    return ws / "ledger"


def ledger_path(ws: Path, shard: int) -> Path:
    """Ledger file of one shard."""
    return ledger_folder(ws) / f"ingest-{shard:02d}.jsonl"


def dead_letter_folder(ws: Path) -> Path:
    """Folder where refused segments are described, one file each."""
    return ws / "dead_letter"


OnSegment = Callable[[int, int, LoadReport], None]
"""Told after each segment: how many are done, of how many, and the report so far."""


def load_sealed(
    ws: Path,
    store: Store,
    *,
    session_dirs: Sequence[Path] | None = None,
    read_segment: segments.ReadSegment = _core.read_segment,
    archive: Path | None = None,
    wait_s: float = LOCK_WAIT_SECONDS,
    on_segment: OnSegment | None = None,
) -> LoadReport:
    """Load every sealed segment that is not in the store yet.

    Parameters
    ----------
    ws : Path
        Workspace: sessions, ledger and dead-letter folder.
    store : Store
        Open store.
    session_dirs : sequence of Path, optional
        Only these session folders.
    read_segment : callable, optional
        Reader of segment files.
    archive : Path, optional
        Where loaded segments went; by default ``archive`` in the workspace. A store that was
        deleted is filled from there too.
    wait_s : float, optional
        Longest wait for shards that other loaders of this host hold; what they still hold then is
        an error. With 0 it is left to them and said so in the report.
    on_segment : callable, optional
        Progress.

    Returns
    -------
    LoadReport
        Refused segments are in it, with their codes; they do not stop the others.

    Raises
    ------
    PlatformError
        STORE_FAILED, STORE_BUSY or WAL_WRITE_FAILED: nothing more can be loaded. What was loaded
        stays, and the next load goes on from there.
    """
    started = time.perf_counter()
    report = LoadReport()
    folders = segments.find_sessions(ws) if session_dirs is None else list(session_dirs)
    found, still_open = segments.find_segments(folders)
    found += _archived(archive or archive_folder(ws, None), folders, found)
    report.still_open = [f"{p.parent.parent.name}/{p.parent.name}/{p.name}" for p in still_open]
    manifests = replay_contract.LogManifests({folder.name: folder for folder in folders})
    load = _Load(ws, store, report, read_segment, found, manifests, on_segment)
    by_shard: dict[int, list[SegmentFile]] = {}
    for file in found:
        by_shard.setdefault(shard_of(file.key), []).append(file)
    claims = FileClaimRegistry(ledger_folder(ws) / "claims")
    # Loaders start at different places, so that they meet late.
    first = os.getpid() % SHARDS
    pending = sorted(by_shard, key=lambda shard: (shard - first) % SHARDS)
    deadline = time.monotonic() + wait_s
    while pending:
        taken = _load_free_shards(load, claims, pending, by_shard)
        pending = [shard for shard in pending if shard not in taken]
        if taken:
            deadline = time.monotonic() + wait_s
        elif wait_s == 0:
            load.leave([file for shard in pending for file in by_shard[shard]])
            break
        elif time.monotonic() >= deadline:
            raise _busy(ws, claims, pending[0], wait_s)
        else:
            time.sleep(_POLL_SECONDS)
    report.seconds = time.perf_counter() - started
    return report


def _archived(archive: Path, folders: list[Path], found: list[SegmentFile]) -> list[SegmentFile]:
    """Archived segments of some sessions that are not in their folders any more."""
    here = {file.key for file in found}
    runs = {folder.name for folder in folders}
    return [
        file for file in find_archived(archive) if file.key.run_id in runs and file.key not in here
    ]


def _load_free_shards(
    load: _Load,
    claims: FileClaimRegistry,
    pending: list[int],
    by_shard: dict[int, list[SegmentFile]],
) -> set[int]:
    """Claim a few free shards, load them, let go; returns which."""
    at_once = SHARDS if load.is_alone else SHARDS_AT_ONCE
    with ExitStack() as stack:
        ledgers: dict[int, Ledger] = {}
        for shard in pending:
            claim = claims.try_claim(shard)
            if claim is None:
                continue
            stack.enter_context(claim)
            ledgers[shard] = stack.enter_context(load.open_ledger(shard))
            if len(ledgers) == at_once:
                break
        files = sorted((file for shard in ledgers for file in by_shard[shard]), key=_place)
        for start in range(0, len(files), VERIFY_SEGMENTS):
            load.group(ledgers, files[start : start + VERIFY_SEGMENTS])
    return set(ledgers)


class _Load:
    """State of one `load_sealed` call."""

    def __init__(
        self,
        ws: Path,
        store: Store,
        report: LoadReport,
        read_segment: segments.ReadSegment,
        found: list[SegmentFile],
        manifests: replay_contract.LogManifests,
        on_segment: OnSegment | None,
    ) -> None:
        self.ws = ws
        self.store = store
        self.report = report
        self.read_segment = read_segment
        self.on_segment = on_segment
        # An embedded store has one process at a time: no other host, and nobody beside us.
        self.is_alone = not store.supports_many_clients
        self.windows = Windows(store)
        # Nobody fills it meanwhile, so what it did not hold it does not hold.
        self.was_empty = self.is_alone and not any(self.windows.positions().values())
        self.hosts = None if self.is_alone else HostClaims(store)
        self.manifests = manifests
        self.present = replay_contract.PresentSegments(
            [file.key for file in found], loaded_segments(ledger_folder(ws)), manifests
        )
        self.total = len(found)
        self.done = 0
        self.sent_now: dict[SegmentKey, set[PartPlace]] = {}

    def open_ledger(self, shard: int) -> Ledger:
        """Ledger of a shard that is claimed."""
        return Ledger(
            ledger_path(self.ws, shard),
            store_id=self.store.store_id, shard=shard, shard_count=SHARDS,
        )  # fmt: skip

    def group(self, ledgers: dict[int, Ledger], files: list[SegmentFile]) -> None:
        """Load a few segments, then verify them together."""
        files = [file for file in files if not self._is_known(ledgers, file)]
        if files and self.hosts is not None:
            won = self.hosts.claim([file.key for file in files])
            self.leave([file for file in files if file.key not in won])
            files = [file for file in files if file.key in won]
        if not files:
            return
        positions = self.windows.positions()
        sent: list[Sent] = []
        for file, reading in self._read_ahead(files):
            try:
                ledger = ledgers[shard_of(file.key)]
                sent.append(self._send(ledger, file, *reading.result(), positions))
            except direct_ranges.FollowedElsewhereError:
                self.report.left_to_others.append(str(file.key))
            except PlatformError as error:
                self._refuse(file, error)
            self._tell(1)
        if not sent:
            return
        complete, wrong = load_verify.verify(self.store, sent, expiring=self.windows.expiring)
        put_back = [item for item, reason in wrong if self._put_back(item, reason)]
        if put_back:
            more, still = load_verify.verify(self.store, put_back, expiring=self.windows.expiring)
            complete += more
            wrong = [pair for pair in wrong if pair[0] not in put_back] + still
        for item, reason in wrong:
            self._refuse(item.file, reason)
        if complete:
            self._record(ledgers, complete)

    def leave(self, files: list[SegmentFile]) -> None:
        """Note segments that somebody else is loading."""
        self.report.left_to_others += [str(file.key) for file in files]
        self._tell(len(files))

    def _tell(self, count: int) -> None:
        self.done += count
        if self.on_segment is not None:
            self.on_segment(self.done, self.total, self.report)

    def _is_known(self, ledgers: dict[int, Ledger], file: SegmentFile) -> bool:
        """True when the ledger has this very file as loaded."""
        state = ledgers[shard_of(file.key)].state(file.key)
        if state is None or state.loaded != FileStamp.of(file.path):
            return False
        self.report.segments_known += 1
        self._tell(1)
        return True

    def _read_ahead(self, files: list[SegmentFile]) -> Iterator[tuple[SegmentFile, _Reading]]:
        """Files with their contents; the next one is read while one is sent."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read") as pool:
            ahead: deque[tuple[SegmentFile, _Reading]] = deque()
            for file in files:
                ahead.append((file, pool.submit(self._read, file)))
                if len(ahead) > 1:
                    yield ahead.popleft()
            yield from ahead

    def _read(self, file: SegmentFile) -> tuple[FileStamp, LoadedSegment]:
        stamp = FileStamp.of(file.path)
        return stamp, segments.read(file, read_segment=self.read_segment)

    def _send(
        self,
        ledger: Ledger,
        file: SegmentFile,
        stamp: FileStamp,
        segment: LoadedSegment,
        positions: dict[str, int],
    ) -> Sent:
        started = time.perf_counter()
        state = ledger.state(file.key)
        is_new = self.was_empty or (self.is_alone and ledger.knows_store)
        may_be_there = state is None and not is_new
        in_store = None
        if may_be_there or state is not None:
            in_store = load_verify.stored_sha256(self.store, file.key)
        _require_unchanged(
            file.key, segment.sha256, in_store if state is None else state.segment_sha256
        )
        was_loaded = in_store == segment.sha256
        self.manifests.require_known(file.key, segment.sha256)
        self.present.require_before(file.key)
        replay_contract.require_order(file.key, segment)
        begun = None if was_loaded else self._complete_ranges(file.key, segment, positions)
        counts = begun.counts if begun is not None else send_segment(
            self.store, self.windows, ledger, file.key, segment,
            may_be_there=may_be_there, was_loaded=was_loaded, positions=positions,
        )  # fmt: skip
        self.sent_now[file.key] = counts.places
        self.report.parts_inserted += counts.inserted
        self.report.parts_found += counts.found
        for table, rows in counts.rows.items():
            self.report.rows[table] = self.report.rows.get(table, 0) + rows
        self.report.segments.append(
            {
                "segment": str(file.key), "records": segment.record_count,
                "rows_inserted": sum(counts.rows.values()), "sha256": segment.sha256,
                "bytes": stamp.size, "seconds": round(time.perf_counter() - started, 3),
            }
        )  # fmt: skip
        chunk_rows = None if begun is None else begun.rows_of(segment)
        return Sent.of(file, stamp, segment, was_loaded=was_loaded, chunk_rows=chunk_rows)

    def _complete_ranges(
        self, key: SegmentKey, segment: LoadedSegment, positions: dict[str, int]
    ) -> direct_ranges.RangeWriter | None:
        """Complete a segment that a direct writer began; None when none did."""
        with direct_ranges.held(
            self.ws, key.run_id, key.log_kind, store_id=self.store.store_id, is_made=False
        ) as journal:
            if journal is None or not journal.ranges(key.segment_id):
                return None
            journal.note_positions(positions)
            writer = direct_ranges.RangeWriter(self.store, self.windows, journal, segment.origin)
            writer.complete(segment)
            self.report.parts_restored += writer.restored
            return writer

    def _put_back(self, item: Sent, reason: PlatformError) -> bool:
        """Bring back parts that were sent now, acknowledged, and are not there."""
        sent_now = self.sent_now.get(item.file.key)
        if reason.code != ReasonCode.LOAD_COUNT_MISMATCH or not sent_now:
            return False
        _, segment = self._read(item.file)
        restored = put_back_parts(self.store, segment, sent_now)
        self.report.parts_restored += restored
        return restored > 0

    def _record(self, ledgers: dict[int, Ledger], complete: list[Sent]) -> None:
        load_verify.insert_ingestion_rows(self.store, complete)
        for item in complete:
            key = item.file.key
            ledgers[shard_of(key)].append(
                "loaded", key, segment_sha256=item.sha256,
                facts={
                    "record_count": item.record_count,
                    "size": item.stamp.size, "mtime_ns": item.stamp.mtime_ns,
                    "loaded_at_ns": time.time_ns(),
                },
            )  # fmt: skip
            self._dead_letter(key).unlink(missing_ok=True)
            self.report.segments_loaded += 1

    def _refuse(self, file: SegmentFile, error: PlatformError) -> None:
        if error.code in _STOPS_LOADING:
            raise error
        entry = {
            "segment": str(file.key),
            "path": str(file.path),
            "code": error.code,
            "error": code_name(error.code),
            "message": error.message,
            "next": error.next_step,
        }
        name = str(file.key)
        self.report.segments = [row for row in self.report.segments if row["segment"] != name]
        self.report.refused.append(entry)
        atomic_write(self._dead_letter(file.key), canonical_json(entry) + b"\n")

    def _dead_letter(self, key: SegmentKey) -> Path:
        name = f"{key.run_id}-{key.log_kind}-{key.segment_id:08d}.json"
        return dead_letter_folder(self.ws) / name


_Reading = Future[tuple[FileStamp, LoadedSegment]]


def _place(file: SegmentFile) -> SegmentKey:
    return file.key


def _require_unchanged(key: SegmentKey, sha256: str, known: str | None) -> None:
    if known is not None and known != sha256:
        raise PlatformError(
            ReasonCode.SEGMENT_CHANGED,
            f"{key} has sha256 {sha256[:12]}, was begun or loaded as {known[:12]}",
            facts={"was": sha256, "expected": known},
        )


def _busy(ws: Path, claims: FileClaimRegistry, shard: int, wait_s: float) -> PlatformError:
    holder = claims.holder(shard)
    return PlatformError(
        ReasonCode.STORE_BUSY,
        f"loading of {ws} (share {shard} of {SHARDS}) is held by {holder}; waited {wait_s:g} s",
        next_step=f"wait for process {holder.pid} to end, or stop it",
        facts={"pid": holder.pid, "command": holder.command, "wait_s": wait_s},
    )
