"""The operator's log tools: inspect, verify, recover, salvage. Loading: `wal_load`.

Why: the log is the only thing that is always right, so an operator must be able to ask whether it
is, without a session and without a store.

Invariants:
1. inspect, verify and salvage change no byte of a log; recover changes only what
   `docs/wal-format.md` says, and a salvage is swapped in only with its token.
2. Every file is looked at: a damaged one is a problem with its code and does not hide the others.
3. verify holds every log against its manifest: a segment that is gone is a problem too.
4. Recovering a session lists every decision whose cause was lost, and every order of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hft_platform import _core
from hft_platform.errors import PlatformError, ReasonCode, code_line
from hft_platform.recorder import session_recovery
from hft_platform.recorder.archive import archived_files, whole_log
from hft_platform.services import wal_salvage
from hft_platform.services.core_calls import typed_errors
from hft_platform.services.explain import ACTIONS, EVENT_NAMES
from hft_platform.services.explain_text import units

INSPECTED = (
    "state", "log_kind", "wal_id", "segment_id", "epoch", "record_count", "first_seq", "last_seq",
    "first_input_seq", "last_input_seq", "min_sequence_time_ns", "max_sequence_time_ns",
    "file_bytes", "data_bytes", "format_version", "record_schema_version", "schema_hash",
    "is_current_schema", "sha256",
)  # fmt: skip
"""Facts of a segment that inspect shows; verify shows whether they hold."""
VERDICTS = {1: "approved", 2: "refused", 3: "noted"}
"""Of a decision, as in rust_core/src/record.rs."""


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
        ``inspect``, ``verify``, ``recover`` or ``salvage``.
    workspace : Path
        Workspace folder.
    path : str or None
        Segment file, log folder, session folder or run id.
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
        CONFIG_NOT_FOUND when there is no such thing.
    """
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
    missing: list[str] = []
    for log in logs:
        files += sorted(file for file in log.iterdir() if file.suffix in (".seg", ".open"))
        away, lost = _archived(log)
        files += away
        missing += lost
    # Before the segments: what it says was acknowledged, they hold.
    acknowledged = {log: _acknowledged(log) for log in logs}
    report = _check(action, files)
    report.problems.extend(missing)
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


def _archived(log: Path) -> tuple[list[Path], list[str]]:
    """Segments of a log that are in an archive, and a problem for each that should be."""
    try:
        away = archived_files(log)
    except PlatformError:
        # The log as a whole says what is wrong with its manifest.
        return [], []
    lost = [
        code_line(
            int(ReasonCode.SEGMENT_MISSING),
            f"{log.name}/{path.name}: the manifest says that it is at {path}, where it is not",
        )
        for path in away
        if not path.exists()
    ]
    return [path for path in away if path.exists()], lost


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
            problems.append(code_line(int(ReasonCode.WAL_DAMAGED), text))
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
            with typed_errors(f"log {log.name}"), whole_log(log) as folder:
                _core.verify_log(str(folder))
        except PlatformError as error:
            problems.append(code_line(error.code, error.message))
    return problems


def _recover(logs: list[Path]) -> WalReport:
    rows, problems = [], []
    for log in logs:
        try:
            with typed_errors(f"log {log.name}"):
                report = _core.recover_log(str(log))
        except PlatformError as error:
            problems.append(code_line(error.code, error.message))
            continue
        rows.append({"log": log.name, **report})
    session_dir = logs[0].parent
    if not problems and len(logs) > 1 and session_recovery.is_session(session_dir):
        try:
            content = session_recovery.list_lost(session_dir)
        except PlatformError as error:
            problems.append(code_line(error.code, error.message))
        else:
            rows += [] if content is None else _lost_rows(content)
    return WalReport("recover", rows, problems)


def _lost_rows(content: dict[str, Any]) -> list[dict[str, Any]]:
    """One row on where parity ends, and one for each order decided behind it."""
    lost = content["not_replayable"]
    head = {
        "session": content["run_id"],
        "parity_ends_at_input_seq": content["parity_ends_at_input_seq"],
        "lost_tail": content["lost_tail"],
        "market_last_input_seq": content["market_last_input_seq"],
        "orders_last_input_seq": content["orders_last_input_seq"],
        "not_replayable_decisions": lost["decisions"],
        "not_replayable_inputs": sum(lost["inputs"].values()),
        "listed_in": session_recovery.FILE_NAME,
    }
    rows: list[dict[str, Any]] = [head]
    for order in content["orders"]:
        first = order["decisions"][0]
        events = [EVENT_NAMES.get(row["event_kind"], "unknown") for row in order["broker_events"]]
        rows.append(
            {
                "order_without_cause": order["order_id"],
                "decided_at_input_seq": first["input_seq"],
                "action": ACTIONS.get(first["action"], "none"),
                "verdict": VERDICTS.get(first["verdict"], "none"),
                "side": first["side"],
                "price": units(first["price"]),
                "qty": units(first["qty"]),
                "broker_said": " ".join(events) or "nothing",
            }
        )
    return rows


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
            problems.append(code_line(int(found["code"]), _damage(name, found)))
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
