"""One look at a workspace's files: backlog, watermarks, dead letters, shed records, disk, halt.

Why: an alarm must ring when loader, store or Dagster hang, so it may depend on none of them.

Invariants:
1. Nothing is written, locked or opened in a store.
2. What cannot be read raises; nothing is taken for 0.

Operator's page: `docs/metrics.md`.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hft_platform import _core, records
from hft_platform.errors import code_name
from hft_platform.execution.reconciliation_report import FILE_NAME, ReconciliationReport
from hft_platform.gateway.gateway_service import FOLDER, STATUS_FILE
from hft_platform.gateway.lease import LEASE_FILE, boot_id, boottime_ns, read_lease
from hft_platform.recorder import segments
from hft_platform.recorder.archive import whole_log
from hft_platform.recorder.columns import LOG_KINDS
from hft_platform.recorder.ledger import FileStamp
from hft_platform.services import latch, live_status

if TYPE_CHECKING:
    from hft_platform.observability.ledger_view import LedgerView

NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Backlog:
    """Sealed segments that are not loaded, and the age of the oldest."""

    segments: dict[str, int]
    payload_bytes: dict[str, int]
    lag_s: float


@dataclass(frozen=True, slots=True)
class LogLag:
    """How far an open log is from being durable."""

    run_id: str
    log_kind: str
    records: int
    seconds: float
    is_failed: bool


@dataclass(frozen=True, slots=True)
class Disk:
    """Space of the workspace's disk."""

    free_bytes: int
    size_bytes: int


@dataclass(slots=True)
class ShedCounts:
    """Shed records by session; a session is read again only when its files changed."""

    _known: dict[str, tuple[tuple[int, ...], int]] = field(default_factory=dict)

    def total(self, ws: Path) -> int:
        """Records left out of the logs of all sessions.

        Parameters
        ----------
        ws : Path
            Workspace.
        """
        found: dict[str, tuple[tuple[int, ...], int]] = {}
        for folder in segments.find_sessions(ws):
            summary = folder / "summary.json"
            files = [summary] if summary.exists() else sorted((folder / "orders").glob("*.*"))
            stamp = tuple(
                number
                for status in (path.stat() for path in files)
                for number in (status.st_size, status.st_mtime_ns)
            )
            known = self._known.get(folder.name)
            if known is not None and known[0] == stamp:
                found[folder.name] = known
            elif summary.exists():
                found[folder.name] = (stamp, _shed_of_summary(summary))
            else:
                found[folder.name] = (stamp, _shed_of_log(folder / "orders"))
        self._known = found
        return sum(count for _, count in found.values())


def backlog(ws: Path, ledger: LedgerView, now_ns: int) -> Backlog:
    """Compare sealed segments with the ledger.

    Parameters
    ----------
    ws : Path
        Workspace.
    ledger : LedgerView
        Followed up to now.
    now_ns : int
        Wall clock.
    """
    counts, sizes, oldest_ns = dict.fromkeys(LOG_KINDS, 0), dict.fromkeys(LOG_KINDS, 0), now_ns
    sealed, _ = segments.find_segments(segments.find_sessions(ws))
    for file in sealed:
        try:
            stamp = FileStamp.of(file.path)
        except FileNotFoundError:
            continue  # loaded and archived between the two looks
        if ledger.is_loaded(file.key, stamp):
            continue
        counts[file.key.log_kind] += 1
        sizes[file.key.log_kind] += stamp.size
        oldest_ns = min(oldest_ns, stamp.mtime_ns)
    return Backlog(counts, sizes, max(0, now_ns - oldest_ns) / NS)


def open_logs(ws: Path, now_ns: int) -> list[LogLag]:
    """Watermarks of the logs that have an open segment.

    Parameters
    ----------
    ws : Path
        Workspace.
    now_ns : int
        Wall clock.
    """
    found = []
    for folder in segments.find_sessions(ws):
        for log_kind in LOG_KINDS:
            log = folder / log_kind
            if not any(log.glob("*.open")):
                continue
            mark = _core.read_watermark(log)
            if mark is None:
                continue  # a log of before watermarks, or one just being made
            behind = max(0, int(mark["last_seq"]) - int(mark["durable_seq"]))
            since_ns = int(mark["sync_time_ns"]) or (log / "watermark").stat().st_mtime_ns
            seconds = max(0, now_ns - since_ns) / NS if behind else 0.0
            found.append(LogLag(folder.name, log_kind, behind, seconds, mark["phase"] == "failed"))
    return found


def reconciliations(ws: Path) -> dict[str, ReconciliationReport]:
    """Last reconciliation report of each session that has one and an open log, by run id.

    Parameters
    ----------
    ws : Path
        Workspace.
    """
    return {
        folder.name: ReconciliationReport.read(folder / FILE_NAME)
        for folder in segments.find_sessions(ws)
        if (folder / FILE_NAME).exists() and _is_open(folder)
    }


def live_processes(ws: Path) -> dict[str, dict[str, Any]]:
    """Last status of each session that a live process writes or left open, by run id.

    Parameters
    ----------
    ws : Path
        Workspace.
    """
    return {
        folder.name: json.loads((folder / live_status.FILE_NAME).read_bytes())
        for folder in segments.find_sessions(ws)
        if (folder / live_status.FILE_NAME).exists() and _is_open(folder)
    }


def _is_open(session_dir: Path) -> bool:
    return any((session_dir / "orders").glob("*.open"))


def dead_letters(ws: Path) -> Counter[str]:
    """Segments that were set aside, by reason code name.

    Parameters
    ----------
    ws : Path
        Workspace.
    """
    found: Counter[str] = Counter()
    for path in sorted((ws / "dead_letter").glob("*.json")):
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            continue  # loaded after all, between the two looks
        found[code_name(int(content["code"]))] += 1
    return found


def disk(ws: Path) -> Disk:
    """Space of the workspace's disk.

    Parameters
    ----------
    ws : Path
        Workspace, which exists.
    """
    status = os.statvfs(ws)
    return Disk(status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize)


def halt_code(ws: Path) -> int | None:
    """Reason code of the halt, None when nothing is halted.

    Parameters
    ----------
    ws : Path
        Workspace.
    """
    content = latch.read(ws)
    return None if content is None else int(content["code"])


@dataclass(frozen=True, slots=True)
class Gateway:
    """What lease and status of a gateway say; nothing is known where none ever led."""

    epoch: int | None = None
    heartbeat_age_s: float | None = None
    is_known: bool = False
    runners: int = 0
    dedup_hits: int = 0
    rejects: dict[str, int] = field(default_factory=dict)
    dead_letters: dict[str, int] = field(default_factory=dict)
    bounds_ns: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()
    sum_ns: int = 0


def gateway(ws: Path) -> Gateway:
    """Read lease and status of the workspace's gateway.

    Parameters
    ----------
    ws : Path
        Workspace.
    """
    folder = ws / FOLDER
    lease = read_lease(folder / LEASE_FILE)
    epoch, age_s = None, None
    if lease is not None and lease.pid:
        epoch = lease.epoch
        age_ns = max(0, boottime_ns() - lease.heartbeat_ns)
        age_s = age_ns / NS if lease.boot == boot_id() else math.inf
    try:
        content = json.loads((folder / STATUS_FILE).read_bytes())
    except FileNotFoundError:
        return Gateway(epoch, age_s)
    latency = content["dispatch_latency"]
    return Gateway(
        epoch, age_s, True, len(content["runners"]), int(content["dedup_hits"]),
        dict(content["rejects"]), dict(content["dead_letters"]), tuple(latency["bounds_ns"]),
        tuple(latency["counts"]), int(latency["sum_ns"]),
    )  # fmt: skip


def _shed_of_summary(path: Path) -> int:
    content: dict[str, Any] = json.loads(path.read_bytes())
    return int(content["evidence"].get("shed_count", 0))


def _shed_of_log(log: Path) -> int:
    """Sum of the counts of the SHED records in an order log, also while it is being written."""
    if not any(log.glob("*.*")):
        return 0
    with whole_log(log) as folder:
        by_type = _core.index_tape(_core.read_log(folder)["tape"])
    if "Shed" not in by_type:
        return 0
    rows = np.frombuffer(by_type["Shed"][0], dtype=records.DTYPES["Shed"])
    return int(rows["count"].sum())
