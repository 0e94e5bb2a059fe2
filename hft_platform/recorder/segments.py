"""Sealed segments of a workspace: finding them, reading them whole, cutting them into parts.

Why: the unit of loading is a sealed, immutable file, cut by record count only, so that every try
sends the same rows under the same token.

Invariants:
1. Chunk k holds records [k * 65,536, (k + 1) * 65,536) of its segment, whenever and by whomever
   it is cut.
2. A part is the rows of one chunk for one table and one trading day: one block, one partition,
   so the store holds all of it or nothing.
3. Part tokens are a function of the run, the segment's SHA-256 and the part's place in it.
4. A segment that does not verify, or whose records do not fit the columns, yields no part.

It sends nothing. Operator's page: `docs/store.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hft_platform import _core, records
from hft_platform.config.canonical import sha256_hex
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder import columns
from hft_platform.recorder.ledger import SegmentKey

CHUNK_RECORDS = 65_536
ByType = dict[str, tuple[columns.Records, npt.NDArray[np.uint64]]]
"""Record name to records and their sequences, both in the log's order."""
ReadSegment = Callable[[str], dict[str, Any]]
"""`_core.read_segment`: the verified info and records of one file."""


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """One ``.seg`` file of a session.

    Attributes
    ----------
    path : Path
        The file.
    key : SegmentKey
        Session, log and number, from its place.
    """

    path: Path
    key: SegmentKey


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that go into one table in one insert.

    Attributes
    ----------
    record_name : str
        Record type.
    trading_day : int
        Partition.
    chunk : int
        Chunk of the segment.
    rows : ndarray
        Records.
    seqs : ndarray of uint64
        Their sequence in the log.
    token : str
        Deduplication token.
    """

    record_name: str
    trading_day: int
    chunk: int
    rows: columns.Records
    seqs: npt.NDArray[np.uint64]
    token: str

    @property
    def table(self) -> str:
        """Target table."""
        return columns.TABLES[self.record_name]


@dataclass(frozen=True, slots=True)
class Digest:
    """Count and sums over sequence numbers; equal digests of a range mean equal sets of rows.

    Attributes
    ----------
    count, min_seq, max_seq : int
        As named; 0 when there is no row.
    sum_seq, xor_seq : int
        Modulo 2^64; a lost row hidden by a doubled one shows here.
    """

    count: int
    min_seq: int
    max_seq: int
    sum_seq: int
    xor_seq: int

    SQL = "count(), min(seq), max(seq), sum(seq), groupBitXor(seq)"

    @classmethod
    def of(cls, seqs: npt.NDArray[np.uint64]) -> Digest:
        """Digest of sequence numbers."""
        if seqs.size == 0:
            return cls(0, 0, 0, 0, 0)
        return cls(
            int(seqs.size), int(seqs.min()), int(seqs.max()),
            int(seqs.sum(dtype=np.uint64)), int(np.bitwise_xor.reduce(seqs)),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LoadedSegment:
    """A verified segment in memory, split by type.

    Attributes
    ----------
    origin : Origin
        What every row carries.
    sha256 : str
        Content hash from the footer, verified on reading.
    first_seq, record_count : int
        From the footer, checked against the records.
    by_type : dict
        Record name to records and their sequences.
    """

    origin: columns.Origin
    sha256: str
    first_seq: int
    record_count: int
    by_type: ByType

    @property
    def chunk_count(self) -> int:
        """How many chunks it is cut into."""
        return -(-self.record_count // CHUNK_RECORDS)

    @property
    def trading_days(self) -> list[int]:
        """Partitions it goes to."""
        days = [np.unique(rows["trading_day"]) for rows, _ in self.by_type.values()]
        return [int(day) for day in np.unique(np.concatenate(days))] if days else []

    def digests(self) -> dict[str, Digest]:
        """What each table must hold of it in the end."""
        return {columns.TABLES[name]: Digest.of(seqs) for name, (_, seqs) in self.by_type.items()}

    def parts(self, chunk: int) -> Iterator[Part]:
        """Cut one chunk into parts, in a fixed order.

        Parameters
        ----------
        chunk : int
            From 0.

        Yields
        ------
        Part
        """
        first = self.first_seq + chunk * CHUNK_RECORDS
        for name, day, rows, seqs in cut(self.by_type, first, first + CHUNK_RECORDS):
            token = self._token(columns.TABLES[name], chunk, day)
            yield Part(name, day, chunk, rows, seqs, token)

    def _token(self, table: str, chunk: int, day: int) -> str:
        # The run belongs to it: equal logs of two runs with one wal_id are still two sets of rows.
        origin = self.origin
        log = f"{origin.run_id}:{origin.log_kind}:{self.sha256}"
        place = f"{log}:{table}:{chunk}:{CHUNK_RECORDS}:{day}"
        return (
            f"{table}:{origin.wal_id}:{origin.segment_id}:{chunk}:{sha256_hex(place.encode())[:16]}"
        )


def cut(
    by_type: ByType, first_seq: int, end_seq: int
) -> Iterator[tuple[str, int, columns.Records, npt.NDArray[np.uint64]]]:
    """Cut a span of sequences by table and trading day, in a fixed order.

    Parameters
    ----------
    by_type : dict
        Records by type.
    first_seq, end_seq : int
        The span; its end is excluded.

    Yields
    ------
    name : str
        Record type.
    day : int
        Trading day.
    rows : ndarray
    seqs : ndarray of uint64
    """
    for name in columns.TABLES:
        if name not in by_type:
            continue
        rows, seqs = by_type[name]
        low, high = np.searchsorted(seqs, [first_seq, end_seq])
        if low == high:
            continue
        days = rows["trading_day"][low:high]
        for day in np.unique(days):
            chosen = days == day
            whole = bool(chosen.all())
            yield (
                name, int(day),
                rows[low:high] if whole else rows[low:high][chosen],
                seqs[low:high] if whole else seqs[low:high][chosen],
            )  # fmt: skip


def split_records(tape: bytes, first_seq: int) -> ByType:
    """Split a tape by type and check that the store can hold its records.

    Parameters
    ----------
    tape : bytes
        Records of one log.
    first_seq : int
        Sequence of the first.

    Raises
    ------
    PlatformError
        VALUE_OUT_OF_RANGE and WAL_SCHEMA_MISMATCH from the column check.
    """
    by_type: ByType = {}
    for name, (raw, positions) in _core.index_tape(tape).items():
        if not raw:
            continue
        rows = np.frombuffer(raw, dtype=records.DTYPES[name])
        seqs = np.frombuffer(positions, dtype="<u4").astype(np.uint64) + np.uint64(first_seq)
        columns.check_records(name, rows)
        by_type[name] = (rows, seqs)
    return by_type


def find_sessions(ws: Path) -> list[Path]:
    """Session folders of a workspace, in order of their names."""
    base = ws / "sessions"
    return sorted(path for path in base.iterdir() if path.is_dir()) if base.is_dir() else []


def find_segments(session_dirs: Iterable[Path]) -> tuple[list[SegmentFile], list[Path]]:
    """List sealed segments, and the open ones that a loader leaves alone.

    Parameters
    ----------
    session_dirs : iterable of Path
        Session folders; the folder's name is the run id.

    Returns
    -------
    sealed : list of SegmentFile
    still_open : list of Path
    """
    sealed: list[SegmentFile] = []
    still_open: list[Path] = []
    for folder in session_dirs:
        for log_kind in columns.LOG_KINDS:
            for path in sorted((folder / log_kind).glob("*")):
                if path.suffix == ".open":
                    still_open.append(path)
                elif path.suffix == ".seg" and path.stem.isdecimal():
                    key = SegmentKey(folder.name, log_kind, int(path.stem))
                    sealed.append(SegmentFile(path, key))
    return sealed, still_open


def read(segment: SegmentFile, *, read_segment: ReadSegment = _core.read_segment) -> LoadedSegment:
    """Read and verify one sealed segment, and check that the store can hold its records.

    Parameters
    ----------
    segment : SegmentFile
        The file.
    read_segment : callable, optional
        Reader of segment files.

    Returns
    -------
    LoadedSegment

    Raises
    ------
    PlatformError
        The log reader's code for damage; WAL_SEGMENT_MISMATCH when footer, name and records
        disagree; VALUE_OUT_OF_RANGE and WAL_SCHEMA_MISMATCH from the column check.
    """
    try:
        content = read_segment(str(segment.path))
    except _core.WalError as error:
        facts = {"path": str(segment.path)}
        raise PlatformError(error.args[0], error.args[1], facts=facts) from error
    info, tape = content["info"], content["tape"]
    first_seq = int(info["first_seq"])
    by_type = split_records(tape, first_seq)
    count = sum(rows.size for rows, _ in by_type.values())
    _check_footer(segment, info, count)
    origin = columns.Origin(
        segment.key.run_id, int(info["wal_id"]), segment.key.log_kind, segment.key.segment_id
    )
    return LoadedSegment(origin, str(info["sha256"]), first_seq, count, by_type)


def _check_footer(segment: SegmentFile, info: dict[str, Any], count: int) -> None:
    last_seq = info["last_seq"] if info["last_seq"] is not None else int(info["first_seq"]) - 1
    stated_and_found = (
        ("state", info["state"], "sealed"),
        ("log kind", info["log_kind"], segment.key.log_kind),
        ("segment id", int(info["segment_id"]), segment.key.segment_id),
        ("record count", int(info["record_count"]), count),
        ("last sequence", int(last_seq), int(info["first_seq"]) + count - 1),
    )
    for what, stated, found in stated_and_found:
        if stated != found:
            raise PlatformError(
                ReasonCode.WAL_SEGMENT_MISMATCH,
                f"{segment.path.parent.name}/{segment.path.name}: {what} is stated as {stated},"
                f" was {found}",
                facts={"path": str(segment.path)},
            )
