"""The operator's log tools: inspect, verify, recover, load."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hft_platform import _core
from hft_platform.errors import PlatformError, ReasonCode, code_name


@dataclass(frozen=True, slots=True)
class WalReport:
    """Rows about segments, and what is wrong with them."""

    action: str
    rows: list[dict[str, Any]]
    problems: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """True when nothing is wrong."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"action": self.action, "rows": self.rows, "problems": self.problems}

    def render(self) -> str:
        """Text for a terminal."""
        lines = [", ".join(f"{key} {value}" for key, value in row.items()) for row in self.rows]
        return "\n".join([*lines, *self.problems]) or "no segment there"


def wal_command(action: str, workspace: Path, path: str | None) -> WalReport:
    """Run one of the tools on a segment, a log folder, a session or the whole workspace."""
    if action == "load":
        return _load(workspace)
    if path is None:
        raise PlatformError(
            ReasonCode.CONFIG_NOT_FOUND, f"wal {action} needs a segment, log folder or session"
        )
    logs = _log_folders(workspace, path)
    if action == "recover":
        return WalReport(action, [{"log": log.name, **_call(_core.recover_log, log)} for log in logs])
    segments = [Path(path)] if Path(path).is_file() else [
        segment for log in logs for segment in sorted(log.iterdir())
        if segment.suffix in (".seg", ".open")
    ]
    rows, problems = [], []
    for segment in segments:
        try:
            info = _call(_core.verify_segment, segment)
        except PlatformError as error:
            problems.append(f"{code_name(error.code)} ({error.code}): {error.message}")
            continue
        rows.append({"segment": f"{segment.parent.name}/{segment.name}", **info})
    return WalReport(action, rows, problems)


def _log_folders(workspace: Path, name: str) -> list[Path]:
    for base in (Path(name), workspace / "sessions" / name):
        if base.is_file():
            return [base.parent]
        if (base / "market").is_dir():
            return [base / "market", base / "orders"]
        if base.is_dir():
            return [base]
    raise PlatformError(
        ReasonCode.CONFIG_NOT_FOUND, f"no segment, log or session {name}", next_step="hft-live status"
    )


def _call(function: Any, path: Path) -> dict[str, Any]:
    try:
        return dict(function(str(path)))
    except _core.WalError as error:
        raise PlatformError(error.args[0], error.args[1]) from error


def _load(workspace: Path) -> WalReport:
    from hft_platform.recorder.governance import load_governance
    from hft_platform.recorder.loader import load_sealed
    from hft_platform.recorder.store import open_store

    with open_store(workspace) as store:
        report = load_sealed(workspace, store)
        governance = load_governance(workspace, store)
    content = report.as_dict() | {"governance": governance.rows}
    return WalReport("load", [content], [*report.problems, *governance.problems])
