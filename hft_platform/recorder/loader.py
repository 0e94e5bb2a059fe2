"""Loader: every record of every sealed segment into the store, exactly once.

Why: the log is the truth, the store is where people ask. Loading must be safe to repeat, to
interrupt anywhere and to start again, without anyone thinking about it.

Invariants:
1. Before an insert there is a durable BEFORE, after it a durable AFTER; a BEFORE without AFTER is
   resolved by counting rows in the store (none: insert; all: done; else: set aside), never by a
   blind second insert.
2. Equal tokens mean equal rows, so the same insert twice adds nothing.
3. LOADED is written when the store's count, range and sums of sequence numbers equal the
   segment's, table by table.
4. A segment whose bytes changed since it was begun or loaded is refused.
5. A refused segment is described in the dead-letter folder and stays where it is; the others go on.

It starts no store and seals no log. Operator's page: `docs/store.md`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform import _core
from hft_platform.config.canonical import atomic_write, canonical_json, sha256_hex
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.recorder import columns, direct_ranges, segments, store_lock
from hft_platform.recorder.ledger import FileStamp, Ledger, SegmentKey
from hft_platform.recorder.segments import Digest, LoadedSegment, Part, SegmentFile
from hft_platform.recorder.small_tables import insert_rows
from hft_platform.recorder.store_errors import FAILURES

if TYPE_CHECKING:
    from hft_platform.recorder.store import Store

VERIFY_SEGMENTS = 32
"""Segments are verified in groups: one query a table for the group."""
LOCK_WAIT_SECONDS = 60.0


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
        Inserts sent, and inserts that a crashed load had already made.
    still_open : list of str
        Segments not sealed yet.
    followed : list of str
        Sealed segments that a direct writer is completing.
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
    still_open: list[str] = field(default_factory=list)
    followed: list[str] = field(default_factory=list)
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
            "still_open": self.still_open,
            "followed": self.followed,
            "refused": self.refused,
            "problems": self.problems,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class _Sent:
    """A segment whose chunks are all in the store; what is left of it after its bytes are freed."""

    file: SegmentFile
    stamp: FileStamp
    origin: columns.Origin
    sha256: str
    first_seq: int
    record_count: int
    trading_days: list[int]
    digests: dict[str, Digest]
    chunk_rows: list[tuple[int, str, int, Digest, str]]


def ledger_path(ws: Path) -> Path:
    """File of a workspace's ingestion ledger."""
    return ws / "ledger" / "ingest.jsonl"


def dead_letter_folder(ws: Path) -> Path:
    """Folder where refused segments are described, one file each."""
    return ws / "dead_letter"


def load_sealed(
    ws: Path,
    store: Store,
    *,
    session_dirs: Sequence[Path] | None = None,
    read_segment: segments.ReadSegment = _core.read_segment,
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
    found, still_open = segments.find_segments(
        segments.find_sessions(ws) if session_dirs is None else session_dirs
    )
    report.still_open = [f"{p.parent.parent.name}/{p.parent.name}/{p.name}" for p in still_open]
    lock = store_lock.held(
        ws / "ledger" / "ingest.lock", what=f"loading of {ws}", wait_s=LOCK_WAIT_SECONDS
    )
    with lock, Ledger(ledger_path(ws), store_id=store.store_id) as ledger:
        load = _Load(ws, store, ledger, report, read_segment)
        for start in range(0, len(found), VERIFY_SEGMENTS):
            load.group(found[start : start + VERIFY_SEGMENTS])
    report.seconds = time.perf_counter() - started
    return report


class _Load:
    """State of one `load_sealed` call."""

    def __init__(
        self,
        ws: Path,
        store: Store,
        ledger: Ledger,
        report: LoadReport,
        read_segment: segments.ReadSegment,
    ) -> None:
        self.ws = ws
        self.store = store
        self.ledger = ledger
        self.report = report
        self.read_segment = read_segment
        self.is_ledger_new = not ledger.knows_store

    def group(self, files: list[SegmentFile]) -> None:
        """Load a few segments, then verify them together."""
        files = [file for file in files if not self._is_known(file)]
        if not files:
            return
        present = self._present(files)
        sent: list[_Sent] = []
        for file in files:
            try:
                sent.append(self._send(file, has_rows=file.key in present))
            except direct_ranges.FollowedElsewhereError:
                self.report.followed.append(str(file.key))
            except PlatformError as error:
                self._refuse(file, error)
        self._verify(sent)

    def _present(self, files: list[SegmentFile]) -> set[SegmentKey]:
        """Segments with rows in a store that the ledger knows nothing of: it was lost."""
        if not self.is_ledger_new:
            return set()
        run_ids = sorted({file.key.run_id for file in files})
        return {key for held in self._stored(run_ids, None).values() for key in held}

    def _is_known(self, file: SegmentFile) -> bool:
        """True when the ledger has this very file as loaded."""
        state = self.ledger.state(file.key)
        if state is None or state.loaded != FileStamp.of(file.path):
            return False
        self.report.segments_known += 1
        return True

    def _send(self, file: SegmentFile, *, has_rows: bool) -> _Sent:
        stamp = FileStamp.of(file.path)
        segment = segments.read(file, read_segment=self.read_segment)
        state = self.ledger.state(file.key)
        self._check_unchanged(file.key, segment, None if state is None else state.segment_sha256)
        if has_rows and state is None:
            self._check_unchanged(file.key, segment, self._stored_sha256(file.key))
        ranges = self._send_ranges(file.key, segment)
        if ranges is not None:
            return self._sent(file, stamp, segment, ranges)
        done = set() if state is None else state.after
        begun = set() if state is None else state.before
        chunk_rows = []
        for chunk in range(segment.chunk_count):
            parts = list(segment.parts(chunk))
            if chunk not in done:
                ask = has_rows or chunk in begun
                self._send_chunk(file.key, segment, chunk, parts, ask_first=ask)
            chunk_rows += [
                (chunk, part.table, part.trading_day, Digest.of(part.seqs), part.token)
                for part in parts
            ]
        return self._sent(file, stamp, segment, chunk_rows)

    def _send_ranges(
        self, key: SegmentKey, segment: LoadedSegment
    ) -> list[tuple[int, str, int, Digest, str]] | None:
        """Complete a segment that a direct writer began; None when none did."""
        with direct_ranges.held(
            self.ws, key.run_id, key.log_kind, store_id=self.store.store_id, is_made=False
        ) as journal:
            if journal is None or not journal.ranges(key.segment_id):
                return None
            writer = direct_ranges.RangeWriter(self.store, journal, segment.origin)
            try:
                return writer.complete(segment)
            finally:
                self.report.parts_inserted += writer.parts_inserted
                self.report.parts_found += writer.parts_found
                for table, count in writer.rows.items():
                    self.report.rows[table] = self.report.rows.get(table, 0) + count

    @staticmethod
    def _sent(
        file: SegmentFile,
        stamp: FileStamp,
        segment: LoadedSegment,
        chunk_rows: list[tuple[int, str, int, Digest, str]],
    ) -> _Sent:
        return _Sent(
            file, stamp, segment.origin, segment.sha256, segment.first_seq, segment.record_count,
            segment.trading_days, segment.digests(), chunk_rows,
        )  # fmt: skip

    def _check_unchanged(
        self, key: SegmentKey, segment: LoadedSegment, known_sha256: str | None
    ) -> None:
        if known_sha256 is not None and known_sha256 != segment.sha256:
            raise PlatformError(
                ReasonCode.SEGMENT_CHANGED,
                f"{key} has sha256 {segment.sha256[:12]}, the ledger has {known_sha256[:12]}",
                facts={"was": segment.sha256, "expected": known_sha256},
            )

    def _send_chunk(
        self,
        key: SegmentKey,
        segment: LoadedSegment,
        chunk: int,
        parts: list[Part],
        *,
        ask_first: bool,
    ) -> None:
        facts = {
            "chunk": chunk,
            "wal_id": segment.origin.wal_id,
            "parts": [[part.token, part.trading_day, int(part.seqs.size)] for part in parts],
        }
        self.ledger.append("before", key, segment_sha256=segment.sha256, facts=facts)
        for part in parts:
            if ask_first and self._is_stored(segment.origin, part):
                self.report.parts_found += 1
                continue
            block = columns.encode_records(
                part.record_name, part.rows, origin=segment.origin, seqs=part.seqs
            )
            self.store.insert_native(
                part.table, columns.column_names(part.record_name), block, token=part.token
            )
            self.report.parts_inserted += 1
            rows = self.report.rows
            rows[part.table] = rows.get(part.table, 0) + int(part.seqs.size)
        self.ledger.append("after", key, segment_sha256=segment.sha256, facts={"chunk": chunk})

    def _is_stored(self, origin: columns.Origin, part: Part) -> bool:
        """Count a part's rows in the store: all or none, or the segment is set aside."""
        expected = Digest.of(part.seqs)
        row = self.store.rows(
            f"SELECT {Digest.SQL} FROM {part.table}"  # noqa: S608  # our own table names
            " WHERE trading_day = {day:UInt32} AND run_id = {run:String} AND wal_id = {wal:UInt32}"
            " AND log_kind = {kind:String} AND segment_id = {segment:UInt32}"
            " AND seq BETWEEN {low:UInt64} AND {high:UInt64}",
            {
                "day": part.trading_day, "run": origin.run_id, "wal": origin.wal_id,
                "kind": origin.log_kind, "segment": origin.segment_id,
                "low": expected.min_seq, "high": expected.max_seq,
            },
        )[0]  # fmt: skip
        stored = Digest(*(int(value) for value in row))
        if stored.count == 0:
            return False
        if stored != expected:
            raise _mismatch(f"{part.table}, chunk {part.chunk}", stored, expected)
        return True

    def _stored(
        self, run_ids: list[str], trading_days: list[int] | None
    ) -> dict[str, dict[SegmentKey, Digest]]:
        """Digests of what the tables hold of some runs, by table and segment."""
        days = "" if trading_days is None else "trading_day IN {days:Array(UInt32)} AND "
        parameters: dict[str, Any] = {"runs": run_ids}
        if trading_days is not None:
            parameters["days"] = trading_days
        sql = " UNION ALL ".join(
            f"SELECT '{table}', run_id, toString(log_kind), segment_id,"  # noqa: S608  # ours
            f" {Digest.SQL} FROM {table}"
            f" WHERE {days}run_id IN {{runs:Array(String)}} GROUP BY run_id, log_kind, segment_id"
            for table in columns.TABLES.values()
        )
        result: dict[str, dict[SegmentKey, Digest]] = {t: {} for t in columns.TABLES.values()}
        for table, run_id, log_kind, segment_id, *values in self.store.rows(sql, parameters):
            key = SegmentKey(str(run_id), str(log_kind), int(segment_id))
            result[str(table)][key] = Digest(*(int(value) for value in values))
        return result

    def _stored_sha256(self, key: SegmentKey) -> str | None:
        found = self.store.rows(
            "SELECT segment_sha256 FROM hft.ingest_segments WHERE run_id = {run:String}"
            " AND log_kind = {kind:String} AND segment_id = {segment:UInt32} LIMIT 1",
            {"run": key.run_id, "kind": key.log_kind, "segment": key.segment_id},
        )
        return str(found[0][0]) if found else None

    def _verify(self, sent: list[_Sent]) -> None:
        """Hold the store's counts against the segments, and call the equal ones loaded."""
        if not sent:
            return
        run_ids = sorted({item.file.key.run_id for item in sent})
        days = sorted({day for item in sent for day in item.trading_days})
        stored = self._stored(run_ids, days)
        nothing = Digest(0, 0, 0, 0, 0)
        complete: list[_Sent] = []
        for item in sent:
            key = item.file.key
            wrong = next(
                (
                    _mismatch(table, stored[table].get(key, nothing), expected)
                    for table, expected in item.digests.items()
                    if stored[table].get(key, nothing) != expected
                ),
                None,
            )
            if wrong is None:
                complete.append(item)
            else:
                self._refuse(item.file, wrong)
        if complete:
            self._record(complete)

    def _record(self, complete: list[_Sent]) -> None:
        _insert_ingestion_rows(self.store, complete)
        for item in complete:
            self.ledger.append(
                "loaded", item.file.key, segment_sha256=item.sha256,
                facts={
                    "record_count": item.record_count,
                    "size": item.stamp.size, "mtime_ns": item.stamp.mtime_ns,
                },
            )  # fmt: skip
            self._dead_letter(item.file.key).unlink(missing_ok=True)
            self.report.segments_loaded += 1

    def _refuse(self, file: SegmentFile, error: PlatformError) -> None:
        if error.code in FAILURES or error.code in (
            ReasonCode.WAL_WRITE_FAILED, ReasonCode.INVARIANT_BROKEN,
        ):  # fmt: skip
            raise error
        entry = {
            "segment": str(file.key),
            "code": error.code,
            "error": code_name(error.code),
            "message": error.message,
            "next": error.next_step,
        }
        self.report.refused.append(entry)
        atomic_write(self._dead_letter(file.key), canonical_json(entry) + b"\n")

    def _dead_letter(self, key: SegmentKey) -> Path:
        name = f"{key.run_id}-{key.log_kind}-{key.segment_id:08d}.json"
        return dead_letter_folder(self.ws) / name


def _mismatch(where: str, stored: Digest, expected: Digest) -> PlatformError:
    return PlatformError(
        ReasonCode.LOAD_COUNT_MISMATCH,
        f"{where} holds {stored.count} rows (sequence {stored.min_seq} to {stored.max_seq}),"
        f" the segment {expected.count} ({expected.min_seq} to {expected.max_seq})",
        next_step="hft-live wal verify the segment; remove its rows from the store by run_id and"
        " segment_id, then load again",
    )


def _insert_ingestion_rows(store: Store, complete: list[_Sent]) -> None:
    """Say in SQL what the ledger will say; first, so that LOADED means both."""
    token = sha256_hex("".join(item.sha256 for item in complete).encode())[:16]
    chunks = [
        _place(item)
        | {
            "chunk": chunk, "table_name": table, "trading_day": day, "row_count": digest.count,
            "min_seq": digest.min_seq, "max_seq": digest.max_seq, "token": part_token,
        }
        for item in complete
        for chunk, table, day, digest, part_token in item.chunk_rows
    ]  # fmt: skip
    whole = [
        _place(item)
        | {
            "wal_id": item.origin.wal_id, "segment_sha256": item.sha256,
            "record_count": item.record_count, "first_seq": item.first_seq,
            "last_seq": item.first_seq + item.record_count - 1,
        }
        for item in complete
    ]  # fmt: skip
    insert_rows(store, "hft.ingest_chunks", chunks, token=token)
    insert_rows(store, "hft.ingest_segments", whole, token=token)


def _place(item: _Sent) -> dict[str, Any]:
    key = item.file.key
    return {
        "run_id": key.run_id,
        "log_kind": columns.LOG_KINDS[key.log_kind],
        "segment_id": key.segment_id,
    }
