"""The halt latch of a workspace: one file that survives a restart and needs no running process.

Why: whoever sees something wrong must be able to stop trading with one command, also when the
process that trades does not answer.

Invariants:
1. While the file is there, whatever it says and even if it is damaged, trading is halted.
2. A halt keeps its first reason; a second one changes nothing.
3. Lifting it takes two steps, and the second names the very halt that the first one showed.
4. A halt in the order log of a session that did not end as it should is a halt of the workspace:
   a process killed right behind its HALT leaves no file, but it leaves its log (`halt_log`).
5. What lifts such a halt is written beside the log before the latch goes, so it halts once.

It stops nothing itself: a running session reads it between steps and turns it into a HALT record.
Operator's page: `docs/runbook.md`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from pathlib import Path
from typing import Any

from hft_platform.config.canonical import canonical_json, write_once
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.services import halt_log


def latch_path(workspace: Path) -> Path:
    """Where the latch lies."""
    return workspace / "state" / "halt.json"


def read(workspace: Path) -> dict[str, Any] | None:
    """Content of the latch (who, why, code, since_ns), or None when trading is not halted.

    A file that cannot be understood halts all the same. `adopt` comes first where a process may
    have died: this reads the file only, many times a second.
    """
    raw = _raw(workspace)
    if raw is None:
        return None
    try:
        content = json.loads(raw)
        code = int(content["code"])
        if code_name(code).startswith("CODE_"):
            raise ValueError(f"unknown code {code}")
        since_ns = content.get("since_ns")
        return {
            "who": str(content["who"]),
            "why": str(content["why"]),
            "code": code,
            "since_ns": None if since_ns is None else int(since_ns),
        }
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return {
            "who": "unknown",
            "why": f"{latch_path(workspace)} is damaged ({error})",
            "code": int(ReasonCode.KILL_SWITCH_ON),
            "since_ns": None,
        }


def adopt(workspace: Path) -> dict[str, Any] | None:
    """Content of the latch, after halts that only a dead session's log knows of became one.

    Parameters
    ----------
    workspace : Path
        Workspace folder.

    Returns
    -------
    dict or None
        As `read`.
    """
    for folder in halt_log.unfinished(workspace):
        found = halt_log.logged_halt(folder)
        if found is not None:
            halt(workspace, who=folder.name, **found)
    return read(workspace)


def halt(
    workspace: Path,
    *,
    who: str,
    why: str,
    code: int = ReasonCode.KILL_SWITCH_ON,
    since_ns: int | None = None,
) -> None:
    """Latch a halt; a second halt keeps the first one's reason."""
    # The nonce makes two halts of the same reason different, so an old token lifts no new halt.
    content = {
        "who": who,
        "why": why,
        "code": int(code),
        "since_ns": since_ns,
        "nonce": secrets.token_hex(4),
    }
    with contextlib.suppress(FileExistsError):
        write_once(latch_path(workspace), canonical_json(content) + b"\n", mode=0o644)


def resume_token(workspace: Path) -> str | None:
    """First step: the token that the second step must repeat; None when nothing is halted."""
    raw = _raw(workspace)
    return None if raw is None else hashlib.sha256(raw).hexdigest()[:8]


def resume(workspace: Path, *, token: str) -> None:
    """Second step: lift the halt when the token is the one of the present halt.

    Raises
    ------
    PlatformError
        KILL_SWITCH_ON when the token belongs to another halt.
    """
    expected = resume_token(workspace)
    if expected is None:
        return
    if token != expected:
        raise PlatformError(
            ReasonCode.KILL_SWITCH_ON,
            f"resume token was {token}, the present halt's is another",
            next_step="hft-live resume (prints the reason and the token), then confirm with it",
        )
    for folder in halt_log.unfinished(workspace):
        halt_log.lift(folder, token=token)
    latch_path(workspace).unlink(missing_ok=True)


def require_clear(workspace: Path) -> None:
    """Refuse to start while halted.

    Raises
    ------
    PlatformError
        KILL_SWITCH_ON with who halted and why.
    """
    content = adopt(workspace)
    if content is not None:
        raise PlatformError(
            ReasonCode.KILL_SWITCH_ON,
            f"trading is halted by {content['who']}: {content['why']}",
            next_step="hft-live resume",
        )


def _raw(workspace: Path) -> bytes | None:
    try:
        return latch_path(workspace).read_bytes()
    except FileNotFoundError:
        return None
