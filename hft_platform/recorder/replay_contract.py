"""ReplayContract: what a consumer of the log may rely on, as checks that refuse.

Why: a store that is nearly complete is worse than an empty one, because nobody looks again.

The contract:
1. Ordering. In a log the sequence is contiguous from 1, over segments too; the input sequence rises
   with every input, and over both logs of a run no input sequence comes twice.
2. Deduplication. In every table a segment has as many rows as different sequences, and together
   they are the segment's records; no two inserts share a token; a view holds what its table holds.
3. Manifest. Every sealed segment is known with its hash; nothing between two segments is missing.

The loader calls nothing LOADED that breaks it (`loader`, `load_verify`); `check_store` looks at
everything that is loaded, for ``hft-live wal load --check`` and the asset check, and a violation is
a failure there. Operator's page: `docs/store.md`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hft_platform import _core
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.recorder import columns, segments
from hft_platform.recorder.ledger import SegmentKey, loaded_segments
from hft_platform.recorder.segments import LoadedSegment
from hft_platform.recorder.view_counts import VIEW_COUNTS
from hft_platform.recorder.windows import Windows

if TYPE_CHECKING:
    from hft_platform.recorder.store import Store

LOOKS, LOOK_SECONDS = 3, 0.25
"""How often, and how far apart, a store that others use is looked at before it counts as wrong."""

_SHOWN = 20
_END_NS = (1 << 63) - 1
_NOT_INPUTS = frozenset({"Decision"})
_SEALED = frozenset({"sealed", "sealed_by_recovery", "adopted"})
_AWAY = frozenset({"archived", "deleted"})


@dataclass(frozen=True, slots=True)
class Violation:
    """One way in which the store is not what the logs say.

    Attributes
    ----------
    code : int
        Member of `ReasonCode`.
    where : str
        Run, log, segment or table.
    what : str
        With the numbers.
    """

    code: int
    where: str
    what: str

    def __str__(self) -> str:
        """One line for a terminal."""
        return f"{code_name(self.code)} ({self.code}): {self.where}: {self.what}"


@dataclass(frozen=True, slots=True)
class ContractReport:
    """What the checks looked at and found.

    Attributes
    ----------
    segments, rows : int
        Loaded segments, and rows in the record tables.
    violations : tuple of Violation
        Empty when the contract holds.
    """

    segments: int
    rows: int
    violations: tuple[Violation, ...]

    @property
    def holds(self) -> bool:
        """True when nothing violates the contract."""
        return not self.violations

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "holds": self.holds,
            "segments": self.segments,
            "rows": self.rows,
            "violations": [
                {"code": v.code, "error": code_name(v.code), "where": v.where, "what": v.what}
                for v in self.violations
            ],
        }


class LogManifests:
    """The manifests of some sessions' logs, each read once, when it is asked for.

    Parameters
    ----------
    sessions : mapping of str to Path
        Session folders by run id.
    """

    def __init__(self, sessions: Mapping[str, Path]) -> None:
        self._sessions = sessions
        self._read: dict[tuple[str, str], Manifest | None] = {}

    def of(self, run_id: str, log_kind: str) -> Manifest | None:
        """Manifest of a log; None for a log that has none.

        Raises
        ------
        PlatformError
            The log reader's code when it is damaged or cannot be read.
        """
        place = (run_id, log_kind)
        if place not in self._read:
            folder = self._sessions[run_id] / log_kind
            self._read[place] = _manifest(folder) if folder.is_dir() else None
        return self._read[place]

    def require_known(self, key: SegmentKey, sha256: str) -> None:
        """Refuse a segment that its log's manifest does not know under this hash.

        Raises
        ------
        PlatformError
            MANIFEST_MISMATCH with both hashes.
        """
        manifest = self.of(key.run_id, key.log_kind)
        if manifest is None:
            return
        noted = manifest.sealed.get(key.segment_id)
        if noted is None and key.segment_id in manifest.begun:
            # Sealed a moment ago, or by a writer that died before it could note it.
            return
        if noted != sha256:
            was = "no such sealed segment" if noted is None else f"sha256 {noted[:12]}"
            raise PlatformError(
                ReasonCode.MANIFEST_MISMATCH,
                f"{key} has sha256 {sha256[:12]}; the manifest has {was}",
            )


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a log noted of its segments.

    Attributes
    ----------
    sealed : dict of int to str
        Hash of every segment that was ever sealed, by number.
    begun : frozenset of int
        Segments that were ever begun.
    away : frozenset of int
        Segments that were archived or deleted on purpose.
    """

    sealed: dict[int, str]
    begun: frozenset[int]
    away: frozenset[int]


def _manifest(log_dir: Path) -> Manifest | None:
    try:
        content = _core.read_manifest(log_dir)
    except _core.WalError as error:
        raise PlatformError(error.args[0], error.args[1], facts={"path": str(log_dir)}) from error
    if content is None:
        return None
    sealed: dict[int, str] = {}
    begun: set[int] = set()
    away: set[int] = set()
    for entry in content["entries"]:
        number = int(entry["segment_id"])
        if entry["kind"] in _SEALED:
            sealed[number] = str(entry["sha256"])
        elif entry["kind"] in _AWAY:
            away.add(number)
        elif entry["kind"] == "begun":
            begun.add(number)
    return Manifest(sealed, frozenset(begun), frozenset(away))


class PresentSegments:
    """Which segments of each log are somewhere: in a folder, loaded, or taken away on purpose.

    Parameters
    ----------
    found : iterable of SegmentKey
        Segments in folders.
    loaded : mapping of SegmentKey
        Segments that a ledger calls loaded.
    manifests : LogManifests
        What the logs noted.
    """

    def __init__(
        self,
        found: Iterable[SegmentKey],
        loaded: Mapping[SegmentKey, Any],
        manifests: LogManifests,
    ) -> None:
        self._manifests = manifests
        self._ids: dict[tuple[str, str], set[int]] = {}
        for key in (*found, *loaded):
            self._ids.setdefault((key.run_id, key.log_kind), set()).add(key.segment_id)

    def require_before(self, key: SegmentKey) -> None:
        """Refuse a segment when one before it is nowhere.

        Raises
        ------
        PlatformError
            SEGMENT_MISSING naming the first missing one.
        """
        manifest = self._manifests.of(key.run_id, key.log_kind)
        ids = self._ids.get((key.run_id, key.log_kind), set())
        if manifest is not None:
            ids = ids | manifest.away
        missing = [number for number in range(1, key.segment_id) if number not in ids]
        if missing:
            raise PlatformError(
                ReasonCode.SEGMENT_MISSING,
                f"{key.run_id}/{key.log_kind}/{missing[0]} is nowhere, and"
                f" {len(missing)} of the {key.segment_id - 1} segments before {key}",
                facts={"missing": missing[:_SHOWN]},
            )


def require_order(key: SegmentKey, segment: LoadedSegment) -> None:
    """Refuse a segment whose inputs do not rise in input sequence.

    Parameters
    ----------
    key : SegmentKey
        Its name.
    segment : LoadedSegment
        Verified content; its sequences are contiguous already.

    Raises
    ------
    PlatformError
        LOG_ORDER_BROKEN naming the first place.
    """
    order = np.zeros(segment.record_count, dtype=np.uint64)
    for name, (rows, seqs) in segment.by_type.items():
        if name not in _NOT_INPUTS:
            order[seqs - np.uint64(segment.first_seq)] = rows["input_seq"]
    # A decision has the input sequence of its cause and is no input; no input has number 0.
    places = np.flatnonzero(order)
    inputs = order[places]
    falls = np.flatnonzero(inputs[1:] <= inputs[:-1])
    if falls.size:
        at = int(falls[0])
        raise PlatformError(
            ReasonCode.LOG_ORDER_BROKEN,
            f"{key}: input_seq {int(inputs[at + 1])} at sequence"
            f" {segment.first_seq + int(places[at + 1])} comes after {int(inputs[at])}",
        )


def check_store(ws: Path, store: Store) -> ContractReport:
    """Hold everything that is loaded against the contract.

    Parameters
    ----------
    ws : Path
        Workspace, whose ledgers say what is loaded.
    store : Store
        Open store.

    Returns
    -------
    ContractReport
        On a server others insert meanwhile, so only what is still wrong when it is looked at
        again is a violation.
    """
    report = _look(ws, store)
    for _ in range(LOOKS - 1 if store.supports_many_clients else 0):
        if report.holds:
            break
        time.sleep(LOOK_SECONDS)
        again = _look(ws, store)
        before = {(v.code, v.where) for v in report.violations}
        stayed = tuple(v for v in again.violations if (v.code, v.where) in before)
        report = ContractReport(again.segments, again.rows, stayed)
    return report


def _look(ws: Path, store: Store) -> ContractReport:
    known = {
        SegmentKey(str(run_id), str(log_kind), int(segment_id)): (
            str(sha256), int(count), int(first), int(last),
        )
        for run_id, log_kind, segment_id, sha256, count, first, last in store.rows(
            "SELECT run_id, toString(log_kind), segment_id, segment_sha256, record_count,"
            " first_seq, last_seq FROM hft.ingest_segments FINAL"
            " ORDER BY run_id, log_kind, segment_id"
        )
    }  # fmt: skip
    rows = _rows_of_segments(store)
    windows = Windows(store)
    violations = [
        *_ordering(known, _away_of(ws, known)),
        *_counts(known, rows, windows.expiring),
        *_tokens(store),
        *_inputs(store),
        *_views(store, windows),
        *_ledgers(ws, store, known),
        *_manifests(ws, known),
    ]
    return ContractReport(len(known), sum(count for count, _ in rows.values()), tuple(violations))


_Known = dict[SegmentKey, tuple[str, int, int, int]]


def _away_of(ws: Path, known: _Known) -> dict[tuple[str, str], frozenset[int]]:
    """Segments that left the folder of each log on purpose."""
    sessions = {folder.name: folder for folder in segments.find_sessions(ws)}
    manifests = LogManifests(sessions)
    found = {}
    for run_id, log_kind in {(key.run_id, key.log_kind) for key in known if key.run_id in sessions}:
        # A damaged manifest excuses nothing, and is a violation itself.
        with contextlib.suppress(PlatformError):
            manifest = manifests.of(run_id, log_kind)
            found[run_id, log_kind] = frozenset() if manifest is None else manifest.away
    return found


def _ordering(known: _Known, away: Mapping[tuple[str, str], frozenset[int]]) -> list[Violation]:
    found = []
    last: dict[tuple[str, str], tuple[int, int]] = {}
    for key, (_, _, first_seq, last_seq) in known.items():
        log = (key.run_id, key.log_kind)
        number, end = last.get(log, (0, 0))
        if key.segment_id != number + 1:
            if away.get(log, frozenset()).issuperset(range(number + 1, key.segment_id)):
                # Deleted after its retention, so that a new store could not get it.
                last[log] = (key.segment_id, last_seq)
                continue
            what = f"segments {number + 1} to {key.segment_id - 1} are not loaded"
            found.append(Violation(ReasonCode.SEGMENT_MISSING, str(key), what))
        elif first_seq != end + 1:
            what = f"begins at sequence {first_seq}, the one before it ends at {end}"
            found.append(Violation(ReasonCode.LOG_ORDER_BROKEN, str(key), what))
        last[log] = (key.segment_id, last_seq)
    return found


def _rows_of_segments(store: Store) -> dict[tuple[str, SegmentKey], tuple[int, int]]:
    """Rows and different sequences, by table and segment."""
    sql = " UNION ALL ".join(
        f"SELECT '{table}', run_id, toString(log_kind), segment_id, count(),"  # noqa: S608  # ours
        f" uniqExact(seq) FROM {table} GROUP BY run_id, log_kind, segment_id"
        for table in columns.TABLES.values()
    )
    return {
        (str(table), SegmentKey(str(run_id), str(log_kind), int(segment_id))): (
            int(count), int(unique),
        )
        for table, run_id, log_kind, segment_id, count, unique in store.rows(sql)
    }  # fmt: skip


def _counts(
    known: _Known,
    rows: dict[tuple[str, SegmentKey], tuple[int, int]],
    expiring: frozenset[str],
) -> list[Violation]:
    found = []
    totals: dict[SegmentKey, int] = {}
    for (table, key), (count, unique) in sorted(rows.items()):
        totals[key] = totals.get(key, 0) + unique
        if count != unique:
            what = f"{table} holds {count} rows with {unique} sequences"
            found.append(Violation(ReasonCode.RECORD_DOUBLED, str(key), what))
    for key, (_, expected, _, _) in known.items():
        held = totals.get(key, 0)
        may_expire = bool(expiring) and key.log_kind == "market"
        if held > expected or (held < expected and not may_expire):
            what = f"the store holds {held} of its records, the segment {expected}"
            found.append(Violation(ReasonCode.LOAD_COUNT_MISMATCH, str(key), what))
    return found


def _tokens(store: Store) -> list[Violation]:
    rows = store.rows(
        "SELECT token, count() AS n FROM hft.ingest_chunks FINAL GROUP BY token HAVING n > 1"
        " ORDER BY token LIMIT 20"
    )
    return [
        Violation(ReasonCode.RECORD_DOUBLED, str(token), f"{count} inserts have this token")
        for token, count in rows
    ]


def _inputs(store: Store) -> list[Violation]:
    tables = " UNION ALL ".join(
        f"SELECT run_id, input_seq FROM {table}"  # noqa: S608  # our own table names
        for name, table in columns.TABLES.items()
        if name not in _NOT_INPUTS
    )
    rows = store.rows(
        f"SELECT run_id, count() AS n, uniqExact(input_seq) AS u FROM ({tables})"  # noqa: S608
        " GROUP BY run_id HAVING n != u ORDER BY run_id LIMIT 20"
    )
    return [
        Violation(ReasonCode.LOG_SEQUENCE_GAP, str(run_id), f"{count} inputs have {unique} numbers")
        for run_id, count, unique in rows
    ]


def _views(store: Store, windows: Windows) -> list[Violation]:
    tables = " UNION DISTINCT ".join(
        f"SELECT run_id, trading_day FROM {table}"  # noqa: S608  # our own table names
        for table in columns.TABLES.values()
    )
    # The view of a table whose rows expire holds more than the table, on purpose.
    views = [view for view in windows.lasting_views if view in VIEW_COUNTS]
    found = []
    for run_id, day in store.rows(f"SELECT * FROM ({tables}) ORDER BY 1, 2"):  # noqa: S608
        facts = {"run": run_id, "day": day, "low": 0, "high": _END_NS}
        for view in views:
            in_table, in_view = map(int, store.rows(VIEW_COUNTS[view], facts)[0])
            if in_table != in_view:
                what = f"it holds {in_view}, its table calls for {in_table}"
                found.append(Violation(ReasonCode.VIEW_MISMATCH, f"{view}, {run_id}, {day}", what))
    return found


def _ledgers(ws: Path, store: Store, known: _Known) -> list[Violation]:
    found = []
    for key, entry in sorted(loaded_segments(ws / "ledger").items()):
        if entry["store"] != store.store_id:
            continue
        stored = known.get(key)
        if stored is None:
            what = "the ledger calls it loaded, the store does not know it"
            found.append(Violation(ReasonCode.LOAD_COUNT_MISMATCH, str(key), what))
        elif stored[0] != entry["segment_sha256"]:
            what = f"loaded as {stored[0][:12]}, the ledger says {entry['segment_sha256'][:12]}"
            found.append(Violation(ReasonCode.SEGMENT_CHANGED, str(key), what))
    return found


def _manifests(ws: Path, known: _Known) -> list[Violation]:
    """What the logs noted, against what is loaded: hashes, and segments that nobody took away."""
    found = []
    sessions = {folder.name: folder for folder in segments.find_sessions(ws)}
    manifests = LogManifests(sessions)
    for run_id, folder in sessions.items():
        for log_kind in columns.LOG_KINDS:
            try:
                manifest = manifests.of(run_id, log_kind)
            except PlatformError as error:
                found.append(Violation(error.code, f"{run_id}/{log_kind}", error.message))
                continue
            for number, sha256 in sorted(manifest.sealed.items() if manifest else ()):
                key = SegmentKey(run_id, log_kind, number)
                if key in known and known[key][0] != sha256:
                    what = f"loaded as {known[key][0][:12]}, the manifest says {sha256[:12]}"
                    found.append(Violation(ReasonCode.MANIFEST_MISMATCH, str(key), what))
                is_there = (folder / log_kind / f"{number:08d}.seg").exists()
                if manifest and number not in manifest.away and not is_there:
                    what = "the manifest calls it sealed; the file is gone"
                    found.append(Violation(ReasonCode.SEGMENT_MISSING, str(key), what))
    return found
