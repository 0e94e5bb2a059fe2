"""Receive times: correct a recorder's clock, make stamps where there are none, make all unique.

Why: the engine's order is receive order. A recording without it, or with equal stamps, needs an
order that anyone can make again; a recorder whose clock is behind would see the future.

Invariants:
1. Receive times of a session increase strictly, and each is after its exchange time.
2. The same rows, symbol, session and seed give the same times on every machine.
3. The method's text and seed are hashed into the dataset (`method`).

It draws from no random generator: the jitter is a hash. Operator's page: `docs/recordings.md`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hft_platform.config.canonical import canonical_sha256
from research.data.rows import Rows, lacks_receive_time

BASE_NS = 3_000_000
JITTER_NS = 2_000_000
LATENCY_FLOOR_NS = 500_000
LOW_RANK_SHARE = 1000
LOW_RANK_MIN = 2
DEFAULT_SEED = 20_260_401

METHOD_TEXT = (
    "missing: receive = exchange + 3 ms + jitter, where the jitter of row i (from 0, kept rows in "
    "the order exchange time, trades before books, source_seq) is output i of splitmix64, seeded "
    "with the first 8 bytes (little-endian) of sha256('<seed>|<symbol>|<session_id>'), mod 2 ms. "
    "given: the low rank max(2, n // 1000) of receive - exchange in the session must be at least "
    "0.5 ms; if it is less, the difference is added to every receive time of the session; a row "
    "still below exchange + 0.5 ms is set to it. "
    "both: in the order (receive, trades before books, source_seq), receive = max(previous + 1 ns, "
    "receive); where no row has a receive time the order is (exchange time, trades before books, "
    "source_seq)."
)

Ints = npt.NDArray[np.int64]


def method(seed: int) -> dict[str, Any]:
    """Description, seed and hash of the method, for `dataset.json`."""
    return {
        "text": METHOD_TEXT,
        "seed": seed,
        "sha256": canonical_sha256({"text": METHOD_TEXT, "seed": seed}),
    }


@dataclass(frozen=True, slots=True)
class Ordered:
    """Final order and receive times of a session's kept rows.

    Attributes
    ----------
    order : ndarray of int64
        Places in (books, then trades) in the final order.
    receive_time_ns : ndarray of int64
        In that order; strictly increasing.
    skew_offset_ns : int
        What was added to the recorder's clock.
    clamped_count : int
        Rows that were still below the latency floor.
    synthetic_count : int
        Rows whose receive time was made.
    moved_count : int
        Rows pushed by 1 ns or more to be unique.
    latency_median_ns : int or None
        Of given receive times after correction; None when there are none.
    """

    order: Ints
    receive_time_ns: Ints
    skew_offset_ns: int
    clamped_count: int
    synthetic_count: int
    moved_count: int
    latency_median_ns: int | None


def clock_offset(latency: Ints) -> int:
    """What to add to a recorder's clock so that its low latencies reach the floor; 0 if they do."""
    if latency.size == 0:
        return 0
    rank = min(max(LOW_RANK_MIN, latency.size // LOW_RANK_SHARE), latency.size - 1)
    return max(0, LATENCY_FLOOR_NS - int(np.partition(latency, rank)[rank]))


def order_rows(rows: Rows, *, symbol: str, session_id: str, seed: int) -> Ordered:
    """Order a session's kept rows by receive time, after correcting or making it.

    Parameters
    ----------
    rows : Rows
        Kept rows only.
    symbol, session_id : str
        Enter the jitter's key.
    seed : int
        Enters the jitter's key.

    Returns
    -------
    Ordered
        Order, times and what was done.
    """
    exchange = _join(rows, "exchange_time_ns")
    receive = _join(rows, "receive_time_ns")
    seq = np.concatenate([rows.books["source_seq"], rows.trades["source_seq"]])
    is_book = np.arange(len(rows)) < len(rows.books)
    is_missing = np.concatenate([lacks_receive_time(stream) for stream, _ in rows.streams()])
    by_exchange = np.lexsort((seq, is_book, exchange))
    offset = clock_offset((receive - exchange)[~is_missing])
    given = receive + offset
    floor = exchange + LATENCY_FLOOR_NS
    is_clamped = ~is_missing & (given < floor)
    given = np.maximum(given, floor)
    jitter = np.empty(len(rows), dtype=np.int64)
    jitter[by_exchange] = _jitter(len(rows), f"{seed}|{symbol}|{session_id}")
    times = np.where(is_missing, exchange + BASE_NS + jitter, given)
    all_missing = bool(is_missing.all())
    order = by_exchange if all_missing else np.lexsort((seq, is_book, times))
    place = np.arange(len(rows), dtype=np.int64)
    unique = np.maximum.accumulate(times[order] - place) + place if len(rows) else times
    return Ordered(
        order=order,
        receive_time_ns=unique,
        skew_offset_ns=offset,
        clamped_count=int(is_clamped.sum()),
        synthetic_count=int(is_missing.sum()),
        moved_count=int((unique != times[order]).sum()),
        latency_median_ns=None if all_missing else int(np.median((given - exchange)[~is_missing])),
    )


def _join(rows: Rows, field: str) -> npt.NDArray[Any]:  # Any: the field's own dtype
    return np.concatenate([rows.books[field], rows.trades[field]])


def _jitter(count: int, key: str) -> Ints:
    start = np.frombuffer(hashlib.sha256(key.encode()).digest()[:8], dtype="<u8")[0]
    with np.errstate(over="ignore"):
        z = start + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed = z ^ (z >> np.uint64(31))
    jitter: Ints = (mixed % np.uint64(JITTER_NS)).astype(np.int64)
    return jitter
