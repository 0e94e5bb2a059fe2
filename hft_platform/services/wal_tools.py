"""The operator's log tools: inspect, verify, recover, salvage, load.

Why: the log is the only thing that is always right, so an operator must be able to ask whether it
is, without a session and without a store.

Invariants:
1. inspect, verify and salvage change no byte of a log; recover changes only what
   `docs/wal-format.md` says, and a salvage is swapped in only with its token.
2. Every file is looked at: a damaged one is a problem with its code and does not hide the others.
3. verify holds every log against its manifest: a segment that is gone is a problem too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hft_platform import _core
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.services import wal_salvage
from hft_platform.services.core_calls import typed_errors

INSPECTED = (
    "state", "log_kind", "wal_id", "segment_id", "epoch", "record_count", "first_seq", "last_seq",
    "first_input_seq", "last_input_seq", "min_sequence_time_ns", "max_sequence_time_ns",
    "file_bytes", "data_bytes", "format_version", "schema_hash", "sha256",
)  # fmt: skip
"""Facts of a segment that inspect shows; verify shows whether they hold."""


@dataclass(frozen=True, slots=True)
class WalReport:
    """Rows about segments or logs, and what is wrong with them."""

    action: str
    rows: list[dict[str, Any]]
    problems: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """True when nothing is wrong."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "action": self.action,
            "is_sound": self.is_sound,
            "rows": self.rows,
            "problems": self.problems,
        }

    def render(self) -> str:
        """Text for a terminal."""
        lines = [
            ", ".join(f"{key} {value}" for key, value in row.items() if value is not None)
            for row in self.rows
        ]
        lines += [f"problem {problem}" for problem in self.problems]
        return "\n".join(lines) or "no segment there"


def wal_command(
    action: str,
    workspace: Path,
    path: str | None,
    *,
    target: Path | None = None,
    swap_in: str | None = None,
) -> WalReport:
    """Run one of the tools on a segment, a log folder, a session or the whole workspace.

    Parameters
    ----------
    action : str
        ``inspect``, ``verify``, ``recover``, ``salvage`` or ``load``.
    workspace : Path
        Workspace folder.
    path : str or None
        Segment file, log folder, session folder or run id; ``load`` takes none.
    target : Path, optional
        Folder that ``salvage`` makes.
    swap_in : str, optional
        Token of a salvage that takes the damaged log's place.

    Returns
    -------
    WalReport
        With a problem for everything that is damaged or was refused.

    Raises
    ------
    PlatformError
        CONFIG_NOT_FOUND when there is no such thing, STORE_FAILED or STORE_BUSY from ``load``.
    """
    if action == "load":
        return _load(workspace)
    if path is None:
        raise PlatformError(
            ReasonCode.CONFIG_NOT_FOUND,
            f"wal {action} needs a segment, log folder or session",
            next_step="hft-live status names the sessions",
        )
    if action == "salvage" and swap_in is not None:
        return WalReport("salvage", [wal_salvage.swap_in(Path(path), swap_in)])
    files, logs = _find(workspace, path)
    if action in ("recover", "salvage"):
        if files:
            raise PlatformError(
                ReasonCode.CONFIG_NOT_FOUND,
                f"{path} is a file; a log is taken as a whole",
                next_step=f"hft-live wal {action} {Path(path).parent}",
            )
        return _recover(logs) if action == "recover" else _salvage(logs, target)
    for log in logs:
        files += sorted(file for file in log.iterdir() if file.suffix in (".seg", ".open"))
    # Before the segments: what it says was acknowledged, they hold.
    acknowledged = {log: _acknowledged(log) for log in logs}
    report = _check(action, files)
    if action == "verify":
        report.problems.extend(_of_whole_logs(logs, report.problems))
        report.problems.extend(_below_watermark(report, acknowledged))
    return report


def _acknowledged(log: Path) -> int:
    try:
        watermark = _core.read_watermark(str(log))
    except _core.WalError:
        # Advisory: a damaged one says nothing.
        return 0
    return 0 if watermark is None else int(watermark["durable_seq"])


def _last_away(log: Path) -> int:
    """Last record of the segments that were archived or deleted on purpose."""
    try:
        manifest = _core.read_manifest(str(log))
    except _core.WalError:
        return 0
    entries = [] if manifest is None else manifest["entries"]
    return max(
        (entry["last_seq"] for entry in entries if entry["kind"] in ("archived", "deleted")),
        default=0,
    )


def _below_watermark(report: WalReport, acknowledged: dict[Path, int]) -> list[str]:
    """A log that ends before what its writer acknowledged: damage that looks like a torn write."""
    problems = []
    for log, durable_seq in acknowledged.items():
        name = log.name
        held = [row for row in report.rows if row["segment"].startswith(f"{name}/")]
        last_seq = max((row["last_valid_seq"] or 0 for row in held), default=durable_seq)
        last_seq = max(last_seq, _last_away(log))
        # Of other damage the segment's own problem says more.
        others = [
            problem
            for problem in report.problems
            if f" {name}/" in problem and not problem.startswith("WAL_TORN_TAIL")
        ]
        if last_seq < durable_seq and not others:
            text = f"{name}: records up to {durable_seq} were acknowledged, it holds {last_seq}"
            problems.append(_problem(int(ReasonCode.WAL_DAMAGED), text))
    return problems


def _salvage(logs: list[Path], target: Path | None) -> WalReport:
    if target is not None and len(logs) > 1:
        raise PlatformError(
            ReasonCode.CONFIG_NOT_FOUND,
            f"--target is for one log; the session has {len(logs)}",
            next_step=f"hft-live wal salvage {logs[0]}",
        )
    report = WalReport("salvage", [])
    for log in logs:
        row, problems = wal_salvage.salvage(log, target=target)
        report.rows.append(row)
        report.problems.extend(f"{log.name}: {problem}" for problem in problems)
    return report


def _of_whole_logs(logs: list[Path], known: list[str]) -> list[str]:
    """What no segment shows alone: one that is missing, or not the one the manifest names."""
    problems = []
    for log in logs:
        if any(f": {log.name}/" in problem for problem in known):
            continue
        try:
            with typed_errors(f"log {log.name}"):
                _core.verify_log(str(log))
        except PlatformError as error:
            problems.append(_problem(error.code, error.message))
    return problems


def _recover(logs: list[Path]) -> WalReport:
    rows, problems = [], []
    for log in logs:
        try:
            with typed_errors(f"log {log.name}"):
                report = _core.recover_log(str(log))
        except PlatformError as error:
            problems.append(_problem(error.code, error.message))
            continue
        rows.append({"log": log.name, **report})
    return WalReport("recover", rows, problems)


def _check(action: str, files: list[Path]) -> WalReport:
    rows, problems = [], []
    for file in files:
        name = f"{file.parent.name}/{file.name}"
        with typed_errors(name):
            found = _core.verify_segment(str(file))
        info = found["info"] or {}
        row: dict[str, Any] = {"segment": name}
        if action == "inspect":
            row |= {fact: info.get(fact) for fact in INSPECTED}
            row["file_bytes"] = found["file_bytes"]
        else:
            row |= {"state": info.get("state"), "is_valid": found["is_valid"]}
        row |= {"valid_frames": found["valid_frames"], "last_valid_seq": found["last_valid_seq"]}
        rows.append(row)
        if not found["is_valid"]:
            problems.append(_problem(int(found["code"]), _damage(name, found)))
    return WalReport(action, rows, problems)


def _damage(name: str, found: dict[str, Any]) -> str:
    parts = [str(found[key]) for key in ("message", "fault") if found[key]]
    # The core's message names the whole path; the fault is often a part of it.
    text = parts[0] if len(parts) == 2 and parts[1] in parts[0] else "; ".join(parts)
    place = f" at byte {found['bad_offset']}" if found["bad_offset"] is not None else ""
    return (
        f"{name}{place}: {text}; {found['valid_frames']} frames before it are valid,"
        f" {found['following_frames']} behind it"
    )


def _problem(code: int, text: str) -> str:
    return f"{code_name(code)} ({code}): {text}"


def _find(workspace: Path, name: str) -> tuple[list[Path], list[Path]]:
    """Segment files and log folders that a name means."""
    for base in (Path(name), workspace / "sessions" / name):
        if base.is_file():
            return [base], []
        logs = [base / kind for kind in ("market", "orders") if (base / kind).is_dir()]
        if logs:
            return [], logs
        if base.is_dir():
            return [], [base]
    raise PlatformError(
        ReasonCode.CONFIG_NOT_FOUND,
        f"no segment, log or session {name}",
        next_step="hft-live status names the sessions",
    )


def _load(workspace: Path) -> WalReport:
    from hft_platform.recorder.governance import load_governance
    from hft_platform.recorder.loader import load_sealed
    from hft_platform.recorder.store import open_store

    with open_store(workspace) as store:
        report = load_sealed(workspace, store)
        governance = load_governance(workspace, store)
    content = report.as_dict() | {"governance": governance.rows}
    return WalReport("load", [content], [*report.problems, *governance.problems])
