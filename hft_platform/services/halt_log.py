"""Halts in order logs: what a session's log says of the gateway's policy.

Why: HALT is latched in the order log, durable before anything else happens; whoever starts next
must find it there, whatever became of the process that wrote it.

Invariants:
1. A log whose last policy change leads to HALT is halted; one that cannot be read is as well.
2. A halt that was lifted is named in `resumed.json` beside the log; a later one in the same log is
   another halt.
3. Sessions with a summary ended as they should: their halt was latched before it was written.

It changes no log. Operator's page: `docs/storm-guard.md`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hft_platform import _core, records
from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.recorder.archive import whole_log
from hft_platform.services.core_calls import typed_errors

STORM_CHANGE, POLICY_CHANGE = 16, 17
"""`ActionKind` in rust_core/src/record.rs."""
STORM_STATES = ("NORMAL", "WARM", "STORM", "HALT")
POLICY_STATES = ("NORMAL", "DEGRADED", "HALT")


def unfinished(workspace: Path) -> list[Path]:
    """Session folders without a summary, running or dead, in name order."""
    folders = sorted((workspace / "sessions").glob("*"))
    return [path for path in folders if path.is_dir() and not (path / "summary.json").exists()]


def changes(session_dir: Path) -> dict[str, dict[str, Any] | None]:
    """Last change of the storm guard and of the policy in a session's order log.

    Parameters
    ----------
    session_dir : Path
        Folder of a session, running or not.

    Returns
    -------
    dict
        ``storm`` and ``policy``: None before the first change, else ``state``, ``code``,
        ``since_ns`` and ``decision_seq``.

    Raises
    ------
    PlatformError
        The log's code when it cannot be read.
    """
    log_dir = session_dir / "orders"
    nothing: dict[str, dict[str, Any] | None] = {"storm": None, "policy": None}
    if not log_dir.is_dir():
        return nothing
    with typed_errors(f"{session_dir.name}/orders"), whole_log(log_dir) as folder:
        tape = _core.read_log(str(folder))["tape"]
    rows = records.split(tape)["Decision"]
    return {
        "storm": _last(rows[rows["action"] == STORM_CHANGE], STORM_STATES),
        "policy": _last(rows[rows["action"] == POLICY_CHANGE], POLICY_STATES),
    }


def _last(rows: Any, states: tuple[str, ...]) -> dict[str, Any] | None:  # Any: rows of a dtype
    if rows.size == 0:
        return None
    row = rows[-1]
    place = int(row["intent_reason"])
    # A state of a later version is not one to trade in.
    state = states[place] if place < len(states) else states[-1]
    return {
        "state": state,
        "code": int(row["reason_code"]),
        "since_ns": int(row["sequence_time_ns"]),
        "decision_seq": int(row["decision_seq"]),
    }


def logged_halt(session_dir: Path) -> dict[str, Any] | None:
    """Why, code and since_ns of a halt that stands in a session's log and was not lifted.

    Parameters
    ----------
    session_dir : Path
        Folder of a session without a summary.

    Returns
    -------
    dict or None
    """
    try:
        policy = changes(session_dir)["policy"]
    except PlatformError as error:
        if _lifted(session_dir) is not None:
            return None
        why = f"its order log cannot be read: {error}"
        return {"why": why, "code": int(error.code), "since_ns": None}
    if policy is None or policy["state"] != "HALT":
        return None
    if (_lifted(session_dir) or 0) >= policy["decision_seq"]:
        return None
    why = f"its order log ends in HALT because of {code_name(policy['code'])}"
    code = policy["code"] or int(ReasonCode.KILL_SWITCH_ON)
    return {"why": why, "code": code, "since_ns": policy["since_ns"]}


def lift(session_dir: Path, *, token: str) -> None:
    """Note beside the log that its halt was lifted; nothing is written when there is none.

    Parameters
    ----------
    session_dir : Path
        Folder of a session without a summary.
    token : str
        Of the resume that lifted it.
    """
    if logged_halt(session_dir) is None:
        return
    try:
        policy = changes(session_dir)["policy"]
    except PlatformError:
        policy = None
    content = {"decision_seq": policy["decision_seq"] if policy else 0, "token": token}
    atomic_write(session_dir / "resumed.json", canonical_json(content) + b"\n")


def _lifted(session_dir: Path) -> int | None:
    """Decision of the halt that was lifted last; None when none was."""
    try:
        return int(json.loads((session_dir / "resumed.json").read_bytes())["decision_seq"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
