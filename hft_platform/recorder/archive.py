"""Archive and retention: loaded segments leave the session folders, and much later the disk.

Why: logs are kept for as long as an operator wants, not for as long as a disk lasts; and no file
goes before it is certain that its records are in the store.

Invariants:
1. Only a segment that this store holds under this very hash, verified again on disk, is archived,
   and only of a log that nobody writes.
2. The copy is durable, then the log's manifest says where it is, then the file goes: a crash
   anywhere leaves the segment in at least one place, and the next run goes on.
3. Order logs are never deleted. Market segments are, `retention_days` after they were loaded, never
   under `RETENTION_DAYS_MIN`: until then the segment is the copy that survives a power cut of a
   server that does not sync.
4. Who reads a log finds its archived segments (`whole_log`).

It loads nothing. Operator's page: `docs/store.md`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform import _core
from hft_platform.config.canonical import sync_folder
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.recorder import columns, segments
from hft_platform.recorder.claims import SHARDS, FileClaimRegistry
from hft_platform.recorder.ledger import SegmentKey, loaded_segments
from hft_platform.recorder.segments import SegmentFile

if TYPE_CHECKING:
    from hft_platform.recorder.store import Store

RETENTION_DAYS_MIN = 7
_DAY_NS = 86_400 * 1_000_000_000
_ARCHIVE_CLAIM = SHARDS
"""One process archives at a time; its claim lies beside those of the shards."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What an operator decided about loaded segments.

    Attributes
    ----------
    folder : Path
        Archive, best on the file system of the workspace: then nothing is copied.
    archive_after_days, retention_days : int or None
        Days since a segment was loaded; None is never.
    """

    folder: Path
    archive_after_days: int | None
    retention_days: int | None

    def __post_init__(self) -> None:
        """Refuse to delete what may still be the only durable copy."""
        if self.retention_days is not None and self.retention_days < RETENTION_DAYS_MIN:
            raise PlatformError(
                ReasonCode.SETTINGS_INVALID,
                f"loader.retention_days was {self.retention_days}; at least {RETENTION_DAYS_MIN}",
            )


@dataclass(slots=True)
class ArchiveReport:
    """What left a folder.

    Attributes
    ----------
    archived, deleted : list of str
        Segments.
    problems : list of str
        Segments that stay where they are, with their codes.
    """

    archived: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"archived": self.archived, "deleted": self.deleted, "problems": self.problems}


def archive_folder(ws: Path, configured: str | None) -> Path:
    """Archive of a workspace: the configured folder, or ``archive`` in it."""
    return ws / "archive" if configured is None else Path(configured).expanduser()


def find_archived(folder: Path) -> list[SegmentFile]:
    """Segments of an archive, in order.

    Parameters
    ----------
    folder : Path
        The archive; may be missing.

    Returns
    -------
    list of SegmentFile
    """
    if not folder.is_dir():
        return []
    runs = sorted(path for path in folder.iterdir() if path.is_dir())
    return segments.find_segments(runs)[0]


def archived_files(log_dir: Path) -> list[Path]:
    """Where the segments are that left a log's folder and were not deleted, in order.

    Parameters
    ----------
    log_dir : Path
        The log.

    Returns
    -------
    list of Path
        From the manifest: a file that is not there was lost.
    """
    deleted = deleted_segments(log_dir)
    return [
        path
        for segment_id, path in sorted(_places(log_dir).items())
        if segment_id not in deleted and not (log_dir / path.name).exists()
    ]


@contextmanager
def whole_log(log_dir: Path) -> Iterator[Path]:
    """Give a folder that holds a log with its archived segments.

    Parameters
    ----------
    log_dir : Path
        The log.

    Yields
    ------
    Path
        `log_dir` itself when nothing of it is archived; else a temporary folder of links.
    """
    away = [path for path in archived_files(log_dir) if path.exists()]
    if not away:
        yield log_dir
        return
    with tempfile.TemporaryDirectory(prefix="hft-log-") as name:
        folder = Path(name) / log_dir.name
        folder.mkdir()
        for path in (*log_dir.iterdir(), *away):
            (folder / path.name).symlink_to(path.resolve())
        yield folder


def deleted_segments(log_dir: Path) -> frozenset[int]:
    """Segments of a log that were deleted after their retention: it is not whole any more.

    Parameters
    ----------
    log_dir : Path
        The log.

    Returns
    -------
    frozenset of int
    """
    entries = _entries(log_dir)
    return frozenset(int(entry["segment_id"]) for entry in entries if entry["kind"] == "deleted")


def archive_loaded(ws: Path, store: Store, rules: Retention, *, now_ns: int) -> ArchiveReport:
    """Archive what was loaded long enough ago, and delete what was archived long enough.

    Parameters
    ----------
    ws : Path
        Workspace.
    store : Store
        The store that must hold the records.
    rules : Retention
        How long is long enough.
    now_ns : int
        Wall time, UTC ns.

    Returns
    -------
    ArchiveReport
        Nothing when another process is at it.
    """
    report = ArchiveReport()
    if rules.archive_after_days is None and rules.retention_days is None:
        return report
    claim = FileClaimRegistry(ws / "ledger" / "claims").try_claim(_ARCHIVE_CLAIM)
    if claim is None:
        return report
    with claim:
        loaded = _loaded_at(ws, store)
        for session in segments.find_sessions(ws):
            for log_kind in columns.LOG_KINDS:
                log_dir = session / log_kind
                try:
                    _archive_log(log_dir, loaded, rules, now_ns, report)
                    _delete_archived(log_dir, loaded, rules, now_ns, report)
                except (PlatformError, _core.WalError, OSError) as error:
                    report.problems.append(_problem(log_dir, error))
    return report


def _loaded_at(ws: Path, store: Store) -> dict[SegmentKey, tuple[str, int]]:
    """Hash and time of what ledger and store both call loaded."""
    stored = {
        SegmentKey(str(run_id), str(log_kind), int(segment_id)): str(sha256)
        for run_id, log_kind, segment_id, sha256 in store.rows(
            "SELECT run_id, toString(log_kind), segment_id, segment_sha256"
            " FROM hft.ingest_segments FINAL"
        )
    }
    return {
        key: (entry["segment_sha256"], entry["loaded_at_ns"])
        for key, entry in loaded_segments(ws / "ledger").items()
        if entry["store"] == store.store_id and stored.get(key) == entry["segment_sha256"]
    }


def _archive_log(
    log_dir: Path,
    loaded: dict[SegmentKey, tuple[str, int]],
    rules: Retention,
    now_ns: int,
    report: ArchiveReport,
) -> None:
    if rules.archive_after_days is None or not log_dir.is_dir():
        return
    files, still_open = segments.find_segments([log_dir.parent])
    if any(path.parent == log_dir for path in still_open):
        return
    target = rules.folder / log_dir.parent.name / log_dir.name
    due = [
        file
        for file in files
        if file.path.parent == log_dir
        and _is_due(loaded.get(file.key), now_ns, rules.archive_after_days)
    ]
    if not due:
        return
    target.mkdir(parents=True, exist_ok=True)
    for file in due:
        _require_sound(file.path, loaded[file.key][0])
        _copy(file.path, target / file.path.name, loaded[file.key][0])
    sync_folder(target)
    inside = target.resolve().is_relative_to(log_dir.parent.parent.parent.resolve())
    place = os.path.relpath(target.resolve(), log_dir.resolve()) if inside else str(target)
    _core.manifest_append_archived(log_dir, [file.key.segment_id for file in due], place)
    for file in due:
        file.path.unlink()
        report.archived.append(str(file.key))
    sync_folder(log_dir)


def _delete_archived(
    log_dir: Path,
    loaded: dict[SegmentKey, tuple[str, int]],
    rules: Retention,
    now_ns: int,
    report: ArchiveReport,
) -> None:
    if rules.retention_days is None or log_dir.name == "orders" or not log_dir.is_dir():
        return
    keys = {
        SegmentKey(log_dir.parent.name, log_dir.name, segment_id): path
        for segment_id, path in _places(log_dir).items()
    }
    due = {
        key: path
        for key, path in keys.items()
        if path.exists() and _is_due(loaded.get(key), now_ns, rules.retention_days)
    }
    if not due:
        return
    _core.manifest_append_deleted(log_dir, [key.segment_id for key in due])
    for key, path in due.items():
        path.unlink()
        report.deleted.append(str(key))
    sync_folder(next(iter(due.values())).parent)


def _is_due(loaded: tuple[str, int] | None, now_ns: int, days: int) -> bool:
    return loaded is not None and now_ns - loaded[1] >= days * _DAY_NS


def _places(log_dir: Path) -> dict[int, Path]:
    """Where the manifest says that archived segments are."""
    return {
        int(entry["segment_id"]): log_dir / entry["place"] / f"{entry['segment_id']:08d}.seg"
        for entry in _entries(log_dir)
        if entry["kind"] == "archived"
    }


def _entries(log_dir: Path) -> list[dict[str, Any]]:
    """What a log's manifest says; nothing for a log without one."""
    try:
        manifest = _core.read_manifest(log_dir) if log_dir.is_dir() else None
    except _core.WalError as error:
        raise PlatformError(error.args[0], error.args[1], facts={"path": str(log_dir)}) from error
    return [] if manifest is None else list(manifest["entries"])


def _copy(source: Path, target: Path, sha256: str) -> None:
    """Make a durable second name or copy, with the same time of change."""
    if target.exists():
        _require_sound(target, sha256)
        return
    try:
        os.link(source, target)
    except OSError:
        # Another file system: copy, prove, and only then give it its name.
        incoming = target.parent / "incoming"
        incoming.mkdir(exist_ok=True)
        partial = incoming / target.name
        shutil.copy2(source, partial)
        _require_sound(partial, sha256)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.rename(target)


def _require_sound(path: Path, sha256: str) -> None:
    found = _core.verify_segment(path)
    info = found["info"] or {}
    if not found["is_valid"] or info.get("sha256") != sha256:
        raise PlatformError(
            ReasonCode.SEGMENT_CHANGED,
            f"{path} is not the segment that was loaded (sha256 {sha256[:12]})",
        )


def _problem(log_dir: Path, error: Exception) -> str:
    code = int(error.code) if isinstance(error, PlatformError) else ReasonCode.WAL_READ_FAILED
    if isinstance(error, _core.WalError):
        code = int(error.args[0])
    return f"{code_name(code)} ({code}): {log_dir.parent.name}/{log_dir.name}: {error}"
