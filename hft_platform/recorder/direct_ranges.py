"""Ranges of a log that go into the store while their segment is still growing, exactly once.

Why: what is written within a second is cut by time, so nobody can work out later where the cuts
were. Each range is therefore written down, durably, before its rows are sent.

Invariants:
1. Before an insert there is a durable BEFORE with the range's first and last sequence and the hash
   of its content; the token is a function of these. A repetition is of that very range and bytes.
2. A BEFORE follows the AFTER of the range before it: at most the last range of a log is in doubt,
   and it is counted in the store, part by part, and resolved by the rules of `windows`.
3. One holder of a journal at a time, by a lock on the journal itself, which nobody unlinks. Who
   begins a segment holds it and has seen the segment open: a sealed segment without a range is the
   loader's alone.
4. A sealed segment with ranges is completed range by range: what they do not cover is sent as
   further ranges, the content of every range is held against the sealed bytes, and a part that a
   killed server acknowledged and lost is put back.
5. Entries count only for the store they name, as in the ledger.

It does not verify a segment or call it loaded: `loader` does, for both. Operator's page:
`docs/recorder.md`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.config.canonical import sha256_hex, sync_folder
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder import columns, segments
from hft_platform.recorder.chained_lines import ChainedLines
from hft_platform.recorder.load_verify import ChunkRow
from hft_platform.recorder.lost_parts import restore_part
from hft_platform.recorder.segment_send import SentCounts
from hft_platform.recorder.segments import ByType, Digest, LoadedSegment
from hft_platform.recorder.windows import Step, Windows

if TYPE_CHECKING:
    from hft_platform.recorder.store import Store

RANGE_RECORDS = 65_536
"""Most records of a range: each of its inserts is one block, which the store takes whole or not."""
_FORMAT = 1


@dataclass(slots=True)
class Range:
    """Records of one segment that are sent together.

    Attributes
    ----------
    segment_id : int
        Segment of the log.
    first_seq, last_seq : int
        Sequences, both included.
    sha256 : str
        Hash of the content, see `content_sha256`.
    at_ns : int
        When it was begun, for the operator.
    positions : dict of str to int
        Insert positions of the tables at some time before (`windows`).
    is_done : bool
        True when all of its rows were acknowledged.
    """

    segment_id: int
    first_seq: int
    last_seq: int
    sha256: str
    at_ns: int
    positions: dict[str, int]
    is_done: bool = False


class FollowedElsewhereError(Exception):
    """Another process holds the journal of this log and will complete its segments."""


class RangeJournal:
    """The open journal of one log; use `held`, which also takes its lock.

    Parameters
    ----------
    descriptor : int
        Open, locked file.
    path : Path
        The file.
    store_id : str
        The store whose entries count.
    """

    def __init__(self, descriptor: int, path: Path, *, store_id: str) -> None:
        self.path = path
        self._store_id = store_id
        self._positions: dict[str, int] = {}
        self._ranges: dict[int, list[Range]] = {}
        self._lines = ChainedLines(
            descriptor,
            path,
            name="journal",
            head={"format": _FORMAT},
            on_entry=self._apply,
            next_step="restore it from a copy; without it remove the rows of that run and log from"
            " the store, move the journal away and load again",
        )

    def ranges(self, segment_id: int) -> list[Range]:
        """Ranges of a segment in the order of their sequences."""
        return list(self._ranges.get(segment_id, ()))

    def note_positions(self, positions: dict[str, int]) -> None:
        """Write down how many inserts the tables have had, for ranges begun from now on."""
        entry = {"event": "positions", "store": self._store_id, "positions": positions}
        self._lines.append(entry, is_durable=False)

    def begin(self, segment_id: int, first_seq: int, last_seq: int, *, sha256: str) -> Range:
        """Write down a range that will be sent; it is durable on return.

        Parameters
        ----------
        segment_id, first_seq, last_seq : int
            Which records.
        sha256 : str
            Hash of their content.

        Raises
        ------
        PlatformError
            WAL_WRITE_FAILED when it may not be durable: nothing may be sent.
        """
        entry = {
            "event": "before", "store": self._store_id, "segment_id": segment_id,
            "first_seq": first_seq, "last_seq": last_seq, "sha256": sha256,
            "at_ns": time.time_ns(),
        }  # fmt: skip
        self._lines.append(entry, is_durable=True)
        return self._ranges[segment_id][-1]

    def finish(self, done: Range) -> None:
        """Write down that all rows of a range were acknowledged; a lost entry costs a count."""
        entry = {
            "event": "after", "store": self._store_id, "segment_id": done.segment_id,
            "first_seq": done.first_seq,
        }  # fmt: skip
        self._lines.append(entry, is_durable=False)

    def _apply(self, entry: dict[str, Any]) -> None:
        if entry["store"] != self._store_id:
            return
        if entry["event"] == "positions":
            self._positions = dict(entry["positions"])
            return
        ranges = self._ranges.setdefault(entry["segment_id"], [])
        if entry["event"] == "before":
            names = ("segment_id", "first_seq", "last_seq", "sha256", "at_ns")
            known = {name: entry[name] for name in names}
            ranges.append(Range(**known, positions=self._positions))
        else:
            ranges[-1].is_done = True


def journal_path(ws: Path, run_id: str, log_kind: str) -> Path:
    """Journal of a log of a session."""
    return ws / "ledger" / "direct" / f"{run_id}.{log_kind}.jsonl"


@contextmanager
def held(
    ws: Path, run_id: str, log_kind: str, *, store_id: str, is_made: bool
) -> Iterator[RangeJournal | None]:
    """Hold the journal of a log without waiting.

    Parameters
    ----------
    ws : Path
        Workspace.
    run_id, log_kind : str
        The log.
    store_id : str
        The store whose entries count.
    is_made : bool
        Make a missing journal; otherwise it is None.

    Yields
    ------
    RangeJournal or None
        None when there is none: nothing of the log was sent while it grew.

    Raises
    ------
    FollowedElsewhereError
        When another process holds it.
    """
    path = journal_path(ws, run_id, log_kind)
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
    if is_made:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags |= os.O_CREAT
    try:
        descriptor = os.open(path, flags, 0o644)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FollowedElsewhereError from None
        if is_made:
            sync_folder(path.parent)
            sync_folder(path.parent.parent)
        yield RangeJournal(descriptor, path, store_id=store_id)
    finally:
        os.close(descriptor)


def content_sha256(by_type: ByType, first_seq: int, last_seq: int) -> str:
    """Hash of the records of a range: type, day, bytes and sequences of each part."""
    digest = hashlib.sha256()
    for name, day, rows, seqs in segments.cut(by_type, first_seq, last_seq + 1):
        digest.update(f"{name}:{day}:{rows.size}:".encode())
        digest.update(rows.tobytes())
        digest.update(seqs.tobytes())
    return digest.hexdigest()


@dataclass(slots=True)
class RangeWriter:
    """Sends ranges of one log.

    Attributes
    ----------
    store : Store
        Open store.
    windows : Windows
        Its deduplication windows.
    journal : RangeJournal
        Held.
    origin : Origin
        What every row carries.
    counts : SentCounts
        What was sent and what an earlier try had sent.
    restored : int
        Parts put back.
    is_at_end : bool
        The store was seen to hold nothing behind what was sent.
    """

    store: Store
    windows: Windows
    journal: RangeJournal
    origin: columns.Origin
    counts: SentCounts = field(default_factory=SentCounts)
    restored: int = 0
    is_at_end: bool = False

    def send(self, by_type: ByType, first_seq: int, last_seq: int) -> None:
        """Send a new range; the first that this process sends is counted before, see the note.

        Parameters
        ----------
        by_type : dict
            Records that hold the range; checked.
        first_seq, last_seq : int
            Sequences, both included, at most `RANGE_RECORDS`.

        Notes
        -----
        A journal that was lost or came back from a backup, or a second workspace with the same run,
        would send rows that are there already. Ranges are sent in order, so counting until nothing
        is found finds them all: they are refused, not doubled.
        """
        sha256 = content_sha256(by_type, first_seq, last_seq)
        begun = self.journal.begin(self.origin.segment_id, first_seq, last_seq, sha256=sha256)
        if not self.is_at_end:
            found = self.counts.found
            self.settle(begun, by_type)
            self.is_at_end = self.counts.found == found
            return
        for part in self._parts(begun, by_type):
            self._insert(part)
        self.journal.finish(begun)

    def settle(self, begun: Range, by_type: ByType) -> None:
        """Bring a range in doubt to its end: count what is there, send what is not.

        Parameters
        ----------
        begun : Range
            With a BEFORE and no AFTER.
        by_type : dict
            Records that hold the range.

        Raises
        ------
        PlatformError
            SEGMENT_CHANGED when the log holds other bytes now; LOAD_COUNT_MISMATCH or VIEW_MISMATCH
            when the store has a share of a part.
        """
        self.check(begun, by_type)
        for part in self._parts(begun, by_type):
            step = self.windows.resolve(
                part, self._stored(part),
                run_id=self.origin.run_id, begun_at=begun.positions.get(part.table),
            )  # fmt: skip
            if step is Step.SEND:
                self._insert(part)
                continue
            self.counts.found += 1
            if step is Step.SEND_AGAIN:
                self._send(part)
        self.journal.finish(begun)

    def check(self, begun: Range, by_type: ByType) -> None:
        """Hold a range's content against the log."""
        sha256 = content_sha256(by_type, begun.first_seq, begun.last_seq)
        if sha256 != begun.sha256:
            raise PlatformError(
                ReasonCode.SEGMENT_CHANGED,
                f"{self.origin.run_id}/{self.origin.log_kind}/{self.origin.segment_id}: sequences"
                f" {begun.first_seq} to {begun.last_seq} have hash {sha256[:12]}, they were sent"
                f" with {begun.sha256[:12]}",
            )

    def complete(self, segment: LoadedSegment) -> None:
        """Send what is missing of a sealed segment that was begun while it grew.

        Parameters
        ----------
        segment : LoadedSegment
            Verified against its footer.
        """
        next_seq, end_seq = segment.first_seq, segment.first_seq + segment.record_count
        for known in self.journal.ranges(self.origin.segment_id):
            if known.first_seq != next_seq or known.last_seq >= end_seq:
                raise PlatformError(
                    ReasonCode.SEGMENT_CHANGED,
                    f"{self.journal.path.name}: sequences {known.first_seq} to {known.last_seq}"
                    f" were sent of segment {known.segment_id}, which holds {next_seq} to"
                    f" {end_seq - 1} behind what was sent before",
                )
            if known.is_done:
                self.check(known, segment.by_type)
            else:
                self.settle(known, segment.by_type)
            next_seq = known.last_seq + 1
        while next_seq < end_seq:
            last_seq = min(next_seq + RANGE_RECORDS, end_seq) - 1
            self.send(segment.by_type, next_seq, last_seq)
            next_seq = last_seq + 1
        self._restore_lost(segment)

    def _restore_lost(self, segment: LoadedSegment) -> None:
        """Put back parts that were acknowledged and are gone: a killed server's (`lost_parts`)."""
        stored = self._stored_tables(segment)
        wrong = {t for t, expected in segment.digests().items() if stored.get(t) != expected}
        if not wrong:
            return
        for known in self.journal.ranges(self.origin.segment_id):
            for part in self._parts(known, segment.by_type):
                if part.table in wrong and self._stored(part).count == 0:
                    names = columns.column_names(part.record_name)
                    restore_part(
                        self.store, part.table, names, self._encode(part), token=part.token,
                        trading_day=part.trading_day, row_count=int(part.seqs.size),
                    )  # fmt: skip
                    self.restored += 1

    def rows_of(self, segment: LoadedSegment) -> list[ChunkRow]:
        """Range number, table, day, digest and token of every part of a complete segment."""
        return [
            (index, part.table, part.trading_day, Digest.of(part.seqs), part.token)
            for index, known in enumerate(self.journal.ranges(self.origin.segment_id))
            for part in self._parts(known, segment.by_type)
        ]

    def _parts(self, known: Range, by_type: ByType) -> Iterator[segments.Part]:
        for name, day, rows, seqs in segments.cut(by_type, known.first_seq, known.last_seq + 1):
            yield segments.Part(name, day, 0, rows, seqs, self._token(known, name, day))

    def _token(self, known: Range, record_name: str, day: int) -> str:
        origin, table = self.origin, columns.TABLES[record_name]
        log = f"{origin.run_id}:{origin.log_kind}:{origin.wal_id}:{origin.segment_id}"
        place = f"{log}:{known.first_seq}:{known.last_seq}:{known.sha256}:{table}:{day}"
        span = f"{known.first_seq}-{known.last_seq}"
        return (
            f"{table}:{origin.wal_id}:{origin.segment_id}:{span}:{sha256_hex(place.encode())[:16]}"
        )

    def _insert(self, part: segments.Part) -> None:
        self._send(part)
        self.counts.inserted += 1
        rows = self.counts.rows
        rows[part.table] = rows.get(part.table, 0) + int(part.seqs.size)

    def _send(self, part: segments.Part) -> None:
        names = columns.column_names(part.record_name)
        self.store.insert_native(part.table, names, self._encode(part), token=part.token)

    def _encode(self, part: segments.Part) -> bytes:
        return columns.encode_records(
            part.record_name, part.rows, origin=self.origin, seqs=part.seqs
        )

    def _stored_tables(self, segment: LoadedSegment) -> dict[str, Digest]:
        origin = self.origin
        rows = self.store.rows(
            " UNION ALL ".join(
                f"SELECT '{columns.TABLES[name]}', {Digest.SQL}"  # noqa: S608  # our own names
                f" FROM {columns.TABLES[name]} WHERE trading_day IN {{days:Array(UInt32)}}"
                " AND run_id = {run:String} AND log_kind = {kind:String}"
                " AND segment_id = {segment:UInt32}"
                for name in segment.by_type
            ),
            {
                "days": segment.trading_days, "run": origin.run_id, "kind": origin.log_kind,
                "segment": origin.segment_id,
            },
        )  # fmt: skip
        return {str(table): Digest(*(int(value) for value in values)) for table, *values in rows}

    def _stored(self, part: segments.Part) -> Digest:
        origin, expected = self.origin, Digest.of(part.seqs)
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
        return Digest(*(int(value) for value in row))
