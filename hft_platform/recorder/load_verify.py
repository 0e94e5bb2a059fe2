"""Verification: what the store holds of a segment against its footer, and only then LOADED.

Why: an acknowledged insert is a promise; counting is knowing.

Invariants:
1. LOADED needs, table by table: count, first, last, sum and xor of sequence numbers equal to the
   segment's, and as many different sequences as rows.
2. It needs the neighbours too: a segment that is loaded begins where the one before it ended.
3. The store's own ingestion tables say so first, then the ledger.

It sends no record. Operator's page: `docs/store.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hft_platform.config.canonical import sha256_hex
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder import columns
from hft_platform.recorder.ledger import FileStamp, SegmentKey
from hft_platform.recorder.segments import Digest, LoadedSegment, SegmentFile
from hft_platform.recorder.small_tables import insert_rows
from hft_platform.recorder.windows import mismatch

if TYPE_CHECKING:
    from hft_platform.recorder.store import Store

ChunkRow = tuple[int, str, int, Digest, str]
"""Chunk or range number, table, trading day, digest and token of a part."""
_NOTHING = Digest(0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Sent:
    """A segment whose chunks are all in the store; what is left of it after its bytes are freed."""

    file: SegmentFile
    stamp: FileStamp
    origin: columns.Origin
    sha256: str
    first_seq: int
    record_count: int
    trading_days: list[int]
    digests: dict[str, Digest]
    chunk_rows: list[ChunkRow]
    was_loaded: bool

    @classmethod
    def of(
        cls,
        file: SegmentFile,
        stamp: FileStamp,
        segment: LoadedSegment,
        *,
        was_loaded: bool,
        chunk_rows: list[ChunkRow] | None = None,
    ) -> Sent:
        """Keep of a segment what verification needs; `chunk_rows` if it was not cut by count."""
        chunk_rows = chunk_rows or [
            (chunk, part.table, part.trading_day, Digest.of(part.seqs), part.token)
            for chunk in range(segment.chunk_count)
            for part in segment.parts(chunk)
        ]
        return cls(
            file, stamp, segment.origin, segment.sha256, segment.first_seq, segment.record_count,
            segment.trading_days, segment.digests(), chunk_rows, was_loaded,
        )  # fmt: skip

    @property
    def last_seq(self) -> int:
        """Last sequence of the segment; before the first when it is empty."""
        return self.first_seq + self.record_count - 1


def verify(
    store: Store, sent: list[Sent], *, expiring: frozenset[str]
) -> tuple[list[Sent], list[tuple[Sent, PlatformError]]]:
    """Hold the store against segments that were sent.

    Parameters
    ----------
    store : Store
        Open store.
    sent : list of Sent
        At least one.
    expiring : frozenset of str
        Tables that may hold nothing of a segment that was loaded and verified before.

    Returns
    -------
    complete : list of Sent
    wrong : list of (Sent, PlatformError)
        LOAD_COUNT_MISMATCH, RECORD_DOUBLED, LOG_ORDER_BROKEN.
    """
    held = _held(store, sent)
    neighbours = _neighbours(store, sent)
    complete, wrong = [], []
    for item in sent:
        error = _count_error(item, held, expiring) or _order_error(item, neighbours)
        if error is None:
            complete.append(item)
        else:
            wrong.append((item, error))
    return complete, wrong


def insert_ingestion_rows(store: Store, complete: list[Sent]) -> None:
    """Say in SQL what the ledger will say; first, so that LOADED means both."""
    # The name belongs to it: equal logs of two runs have one hash.
    named = ",".join(f"{item.file.key}:{item.sha256}" for item in complete)
    token = sha256_hex(named.encode())[:16]
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
            "last_seq": item.last_seq,
        }
        for item in complete
    ]  # fmt: skip
    insert_rows(store, "hft.ingest_chunks", chunks, token=token)
    insert_rows(store, "hft.ingest_segments", whole, token=token)


def stored_sha256(store: Store, key: SegmentKey) -> str | None:
    """Hash under which a segment is loaded in the store, None when it is not."""
    found = store.rows(
        "SELECT segment_sha256 FROM hft.ingest_segments WHERE run_id = {run:String}"
        " AND log_kind = {kind:String} AND segment_id = {segment:UInt32} LIMIT 1",
        {"run": key.run_id, "kind": key.log_kind, "segment": key.segment_id},
    )
    return str(found[0][0]) if found else None


def _held(store: Store, sent: list[Sent]) -> dict[tuple[str, SegmentKey], tuple[Digest, int]]:
    """Digest and number of different sequences, by table and segment."""
    tables = sorted({table for item in sent for table in item.digests})
    if not tables:
        return {}
    sql = " UNION ALL ".join(
        f"SELECT '{table}', run_id, toString(log_kind), segment_id,"  # noqa: S608  # ours
        f" {Digest.SQL}, uniqExact(seq) FROM {table}"
        " WHERE trading_day IN {days:Array(UInt32)} AND run_id IN {runs:Array(String)}"
        " AND segment_id IN {segments:Array(UInt32)} GROUP BY run_id, log_kind, segment_id"
        for table in tables
    )
    parameters = {
        "days": sorted({day for item in sent for day in item.trading_days}),
        "runs": sorted({item.file.key.run_id for item in sent}),
        "segments": sorted({item.file.key.segment_id for item in sent}),
    }
    found = {}
    for table, run_id, log_kind, segment_id, *values, unique in store.rows(sql, parameters):
        key = SegmentKey(str(run_id), str(log_kind), int(segment_id))
        found[str(table), key] = (Digest(*(int(value) for value in values)), int(unique))
    return found


def _count_error(
    item: Sent,
    held: dict[tuple[str, SegmentKey], tuple[Digest, int]],
    expiring: frozenset[str],
) -> PlatformError | None:
    for table, expected in item.digests.items():
        stored, unique = held.get((table, item.file.key), (_NOTHING, 0))
        if item.was_loaded and table in expiring and stored.count == 0:
            continue
        if stored.count != unique:
            return PlatformError(
                ReasonCode.RECORD_DOUBLED,
                f"{table} holds {stored.count} rows with {unique} sequences of {item.file.key}",
            )
        if stored != expected:
            return mismatch(table, stored, expected)
    return None


def _neighbours(store: Store, sent: list[Sent]) -> dict[SegmentKey, tuple[int, int]]:
    """First and last sequence of loaded segments beside the given ones, and of those themselves."""
    keys = [item.file.key for item in sent]
    ids = {key.segment_id + step for key in keys for step in (-1, 1)}
    rows = store.rows(
        "SELECT run_id, toString(log_kind), segment_id, first_seq, last_seq"
        " FROM hft.ingest_segments FINAL WHERE run_id IN {runs:Array(String)}"
        " AND segment_id IN {ids:Array(UInt32)}",
        {"runs": sorted({key.run_id for key in keys}), "ids": sorted(ids)},
    )
    found = {
        SegmentKey(str(run_id), str(log_kind), int(segment_id)): (int(first), int(last))
        for run_id, log_kind, segment_id, first, last in rows
    }
    return found | {item.file.key: (item.first_seq, item.last_seq) for item in sent}


def _order_error(item: Sent, neighbours: dict[SegmentKey, tuple[int, int]]) -> PlatformError | None:
    key = item.file.key
    before = neighbours.get(SegmentKey(key.run_id, key.log_kind, key.segment_id - 1))
    after = neighbours.get(SegmentKey(key.run_id, key.log_kind, key.segment_id + 1))
    if before is not None and before[1] + 1 != item.first_seq:
        what = f"begins at sequence {item.first_seq}, the segment before it ends at {before[1]}"
    elif after is not None and item.last_seq + 1 != after[0]:
        what = f"ends at sequence {item.last_seq}, the segment behind it begins at {after[0]}"
    else:
        return None
    return PlatformError(ReasonCode.LOG_ORDER_BROKEN, f"{key} {what}")


def _place(item: Sent) -> dict[str, Any]:
    key = item.file.key
    return {
        "run_id": key.run_id,
        "log_kind": columns.LOG_KINDS[key.log_kind],
        "segment_id": key.segment_id,
    }
