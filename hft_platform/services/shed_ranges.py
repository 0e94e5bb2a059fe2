"""Holes of a session's log: which of them SHED records account for, and whether by the rules.

Why: a missing record is either damage or a decision that is on record. Only the second kind may be
passed over, and only as far as the record's own numbers go.

Invariants:
1. Every missing input sequence lies in the range of a SHED record, and ranges that overlap name
   exactly as many records as are missing in them.
2. Behind every range stands a reduce-only command of its instrument, in front of its first record,
   and no resume in between.
3. A hole that no range covers is LOG_SEQUENCE_GAP; a range that does not fit is SHED_INVALID.

It reads no file (see `parity`). Operator's page: `docs/disk-pressure.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.input_records import ALL_ALPHAS, CommandKind
from hft_platform.recorder.disk_monitor import TOPICS

Parts = dict[str, npt.NDArray[np.void]]
Seqs = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class ShedRange:
    """Records that the engine saw and the log does not hold.

    Attributes
    ----------
    topic : str
        ``depth``, ``books`` or ``trades``.
    instrument_id : int
        Of which instrument.
    first_seq, last_seq : int
        Input sequences of the first and the last that is missing.
    count : int
        How many are missing in between; the others belong to other topics.
    reason_code : int
        Why.
    """

    topic: str
    instrument_id: int
    first_seq: int
    last_seq: int
    count: int
    reason_code: int


def check_sequence(parts: Parts, name: str, first_seq: int = 1) -> tuple[ShedRange, ...]:
    """Hold the input sequences of a session against its SHED records.

    Parameters
    ----------
    parts : dict of str to ndarray
        The session's inputs by record type.
    name : str
        The session's, for messages.
    first_seq : int
        Where it begins: above 1 for a process that took a live session over.

    Returns
    -------
    tuple of ShedRange
        In the order of their first record; empty for a session whose log is whole.

    Raises
    ------
    PlatformError
        LOG_SEQUENCE_GAP or SHED_INVALID; see the module's invariants.
    """
    seqs = np.sort(np.concatenate([part["input_seq"] for part in parts.values()]))
    if seqs.size == 0:
        raise PlatformError(ReasonCode.LOG_SEQUENCE_GAP, f"session {name}: its logs hold no input")
    rows = parts["Shed"]
    if rows.size == 0:
        _require_whole(seqs, name, first_seq)
        return ()
    if seqs[0] < 1 or (np.diff(seqs) == 0).any():
        doubled = int(seqs[0]) if seqs[0] < 1 else int(seqs[1:][np.diff(seqs) == 0][0])
        raise _gap(name, doubled, seqs.size)
    missing = np.setdiff1d(np.arange(first_seq, int(seqs[-1]) + 1, dtype=np.uint64), seqs)
    ranges = tuple(sorted((_range_of(row, name) for row in rows), key=lambda r: r.first_seq))
    _require_covered(missing, ranges, name, seqs.size)
    for one in ranges:
        _require_restricted(one, parts["Command"], name)
    return ranges


def _require_whole(seqs: Seqs, name: str, first_seq: int) -> None:
    expected = np.arange(first_seq, first_seq + seqs.size, dtype=np.uint64)
    if not np.array_equal(seqs, expected):
        raise _gap(name, int(expected[np.argmax(seqs != expected)]), seqs.size)


def _gap(name: str, seq: int, count: int) -> PlatformError:
    return PlatformError(
        ReasonCode.LOG_SEQUENCE_GAP,
        f"session {name}: input_seq {seq} is missing or doubled among {count} inputs",
        next_step=f"if its process died: hft-live wal recover {name}; else find the lost segment",
    )


def _range_of(row: Any, name: str) -> ShedRange:  # Any: a row of the dtype
    topic = int(row["topic"])
    first, last, count = (int(row[field]) for field in ("first_seq", "last_seq", "count"))
    is_sound = 1 <= topic <= len(TOPICS) and 1 <= first <= last < int(row["input_seq"])
    if not is_sound or not 1 <= count <= last - first + 1:
        raise _invalid(
            name, int(row["input_seq"]), f"topic {topic}, {count} records in {first} to {last}"
        )
    return ShedRange(
        TOPICS[topic - 1], int(row["instrument_id"]), first, last, count, int(row["reason_code"])
    )


def _invalid(name: str, seq: int, why: str) -> PlatformError:
    return PlatformError(
        ReasonCode.SHED_INVALID, f"session {name}: SHED record of input_seq {seq}: {why}"
    )


def _require_covered(missing: Seqs, ranges: tuple[ShedRange, ...], name: str, count: int) -> None:
    """Ranges that overlap are held together: their counts are the holes of their union."""
    covered = 0
    for group in _overlapping(ranges):
        first, last = group[0].first_seq, max(one.last_seq for one in group)
        begin, end = np.searchsorted(missing, [first, last + 1])
        named = sum(one.count for one in group)
        ends = [seq for one in group for seq in (one.first_seq, one.last_seq)]
        if named != end - begin or not np.isin(ends, missing[begin:end]).all():
            raise _invalid(
                name, first, f"names {named} records, {end - begin} are missing up to {last}"
            )
        covered += named
    if covered != missing.size:
        outside = np.ones(missing.size, dtype=bool)
        for one in ranges:
            outside &= (missing < one.first_seq) | (missing > one.last_seq)
        raise _gap(name, int(missing[outside][0]), count)


def _overlapping(ranges: tuple[ShedRange, ...]) -> list[list[ShedRange]]:
    groups: list[list[ShedRange]] = []
    end = 0
    for one in ranges:
        if not groups or one.first_seq > end:
            groups.append([])
        groups[-1].append(one)
        end = max(end, one.last_seq)
    return groups


def _require_restricted(one: ShedRange, commands: npt.NDArray[np.void], name: str) -> None:
    is_all = commands["alpha_index"] == ALL_ALPHAS
    is_meant = np.isin(commands["instrument_id"], (0, one.instrument_id))
    restricts = (commands["command_kind"] == CommandKind.REDUCE_ONLY) & is_all & is_meant
    before = commands["input_seq"][restricts & (commands["input_seq"] < one.first_seq)]
    if before.size == 0:
        raise _invalid(name, one.first_seq, "no reduce-only command of its instrument before it")
    is_resume = commands["command_kind"] == CommandKind.RESUME_CONFIRM
    lifts = is_resume & (commands["input_seq"] > before.max())
    if (commands["input_seq"][lifts] < one.last_seq).any():
        raise _invalid(name, one.first_seq, "a resume lies between its reduce-only and its end")
