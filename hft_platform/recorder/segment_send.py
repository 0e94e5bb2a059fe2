"""Sending a segment: its parts in a fixed order, each asked for first where it may be there.

Why: this is where rows leave for the store, so the rules about sending twice are in one place.

Invariants:
1. The ledger's BEFORE is durable before the first part is sent.
2. Where rows may be in the store already (a BEFORE without AFTER, another host, a lost ledger) they
   are counted first, and the count is not older than `COUNT_SECONDS` when it is acted upon.
3. AFTER means acknowledged, not there: a killed server may have lost what it acknowledged
   (`lost_parts`). Until the segment is LOADED, a chunk that lacks a part is taken up again.
4. A part is encoded while the one before it is sent; at most two are in memory.

It calls nothing loaded (see `load_verify`). Operator's page: `docs/store.md`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hft_platform.recorder import columns, segments
from hft_platform.recorder.ledger import Ledger, SegmentKey
from hft_platform.recorder.lost_parts import restore_part
from hft_platform.recorder.segments import Digest, LoadedSegment, Part
from hft_platform.recorder.windows import Step, Windows

if TYPE_CHECKING:
    from hft_platform.recorder.store import Store

COUNT_SECONDS = 10.0
"""A count is good for this long: 500 inserts a second into one table would be needed to use up half
a window of 10,000 meanwhile."""

ABSENT_LOOKS = 10
ABSENT_LOOK_SECONDS = 0.25
"""A part that was acknowledged and is not there is looked for so often before it counts as lost."""

PartPlace = tuple[str, int, int]
"""Table, chunk and trading day of a part."""


@dataclass(slots=True)
class SentCounts:
    """What was sent of one segment.

    Attributes
    ----------
    rows : dict of str to int
        Rows inserted, by table.
    inserted, found : int
        Parts sent, and parts that were there.
    places : set of PartPlace
        Parts that were sent and acknowledged.
    """

    rows: dict[str, int] = field(default_factory=dict)
    inserted: int = 0
    found: int = 0
    places: set[PartPlace] = field(default_factory=set)


def send_segment(
    store: Store,
    windows: Windows,
    ledger: Ledger,
    key: SegmentKey,
    segment: LoadedSegment,
    *,
    may_be_there: bool,
    was_loaded: bool,
    positions: dict[str, int],
) -> SentCounts:
    """Send what the store lacks of a segment.

    Parameters
    ----------
    store : Store
        Open store.
    windows : Windows
        Its deduplication windows.
    ledger : Ledger
        The segment's shard.
    key : SegmentKey
        Its name.
    segment : LoadedSegment
        Verified content.
    may_be_there : bool
        Rows of it may be in the store although the ledger knows nothing of it.
    was_loaded : bool
        The store itself says that all of it was loaded and verified.
    positions : dict of str to int
        The tables' insert positions, taken before anything of it is sent.

    Returns
    -------
    SentCounts

    Raises
    ------
    PlatformError
        LOAD_COUNT_MISMATCH or VIEW_MISMATCH when what is there is neither none nor all of a part;
        STORE_FAILED, WAL_WRITE_FAILED.
    """
    state = ledger.state(key)
    done = set() if state is None else set(state.after)
    begun = {} if state is None else state.positions
    counts = SentCounts()
    if was_loaded and len(done) == segment.chunk_count:
        return counts
    if state is None:
        tables = {columns.TABLES[name] for name in segment.by_type}
        facts = {
            "wal_id": segment.origin.wal_id,
            "chunks": segment.chunk_count,
            "positions": {table: positions[table] for table in sorted(tables)},
        }
        ledger.append("before", key, segment_sha256=segment.sha256, facts=facts)
    stored = _Stored(store, segment) if may_be_there or state is not None else None
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode") as pool:
        for chunk in range(segment.chunk_count):
            if chunk in done and (stored is None or stored.is_whole(segment, chunk)):
                continue
            for part, block in _encoded(pool, segment, chunk):
                step = Step.SEND
                if stored is not None:
                    step = windows.resolve(
                        part, stored.of(part),
                        run_id=key.run_id, begun_at=begun.get(part.table), was_loaded=was_loaded,
                    )  # fmt: skip
                if step is not Step.NOTHING:
                    names = columns.column_names(part.record_name)
                    store.insert_native(part.table, names, block.result(), token=part.token)
                    counts.places.add((part.table, part.chunk, part.trading_day))
                if step is Step.SEND:
                    counts.inserted += 1
                    counts.rows[part.table] = counts.rows.get(part.table, 0) + part.seqs.size
                else:
                    counts.found += 1
            if chunk not in done:
                ledger.append("after", key, segment_sha256=segment.sha256, facts={"chunk": chunk})
    return counts


def put_back_parts(store: Store, segment: LoadedSegment, places: set[PartPlace]) -> int:
    """Put back parts that were acknowledged and are not there; returns how many.

    A server that was killed between noting a token and committing its part drops the next insert
    under it. The same is seen while somebody else's insert is between the two, hence the looks.

    Parameters
    ----------
    store : Store
        Open store.
    segment : LoadedSegment
        The segment.
    places : set of PartPlace
        Parts that were sent and acknowledged just now.
    """
    stored = _Stored(store, segment)
    for look in range(ABSENT_LOOKS):
        held = stored.count()
        if all(place in held for place in places):
            return 0
        if look < ABSENT_LOOKS - 1:
            time.sleep(ABSENT_LOOK_SECONDS)
    restored = 0
    for chunk in range(segment.chunk_count):
        for part in segment.parts(chunk):
            place = (part.table, part.chunk, part.trading_day)
            if place in places and place not in held:
                restore_part(
                    store, part.table, columns.column_names(part.record_name),
                    _encode(part, segment.origin), token=part.token,
                    trading_day=part.trading_day, row_count=part.seqs.size,
                )  # fmt: skip
                restored += 1
    return restored


def _encoded(
    pool: ThreadPoolExecutor, segment: LoadedSegment, chunk: int
) -> Iterator[tuple[Part, Future[bytes]]]:
    """Parts of a chunk with their blocks; the next block is made while one is sent."""
    ahead: deque[tuple[Part, Future[bytes]]] = deque()
    for part in segment.parts(chunk):
        ahead.append((part, pool.submit(_encode, part, segment.origin)))
        if len(ahead) > 1:
            yield ahead.popleft()
    yield from ahead


def _encode(part: Part, origin: columns.Origin) -> bytes:
    return columns.encode_records(part.record_name, part.rows, origin=origin, seqs=part.seqs)


class _Stored:
    """What the tables hold of one segment, part by part; counted again when it is old."""

    def __init__(self, store: Store, segment: LoadedSegment) -> None:
        self._store = store
        self._segment = segment
        self._counted_at = 0.0
        self._parts: dict[PartPlace, Digest] | None = None

    def of(self, part: Part) -> Digest | None:
        """Digest of a part's rows in the store, None when there is none."""
        if self._parts is None or time.monotonic() - self._counted_at > COUNT_SECONDS:
            self._counted_at = time.monotonic()
            self._parts = self.count()
        return self._parts.get((part.table, part.chunk, part.trading_day))

    def is_whole(self, segment: LoadedSegment, chunk: int) -> bool:
        """True when the store holds rows of every part of a chunk."""
        return all(self.of(part) is not None for part in segment.parts(chunk))

    def count(self) -> dict[PartPlace, Digest]:
        """Digests of all parts of which the store holds rows."""
        origin = self._segment.origin
        sql = " UNION ALL ".join(
            f"SELECT '{columns.TABLES[name]}', "  # noqa: S608  # our own table names
            f"intDiv(toInt64(seq) - {self._segment.first_seq}, {segments.CHUNK_RECORDS}),"
            f" trading_day, {Digest.SQL} FROM {columns.TABLES[name]}"
            " WHERE trading_day IN {days:Array(UInt32)} AND run_id = {run:String}"
            " AND wal_id = {wal:UInt32} AND log_kind = {kind:String}"
            " AND segment_id = {segment:UInt32} GROUP BY 2, 3"
            for name in self._segment.by_type
        )
        rows = self._store.rows(
            sql,
            {
                "days": self._segment.trading_days, "run": origin.run_id, "wal": origin.wal_id,
                "kind": origin.log_kind, "segment": origin.segment_id,
            },
        )  # fmt: skip
        return {
            (str(table), int(chunk), int(day)): Digest(*(int(value) for value in values))
            for table, chunk, day, *values in rows
        }
