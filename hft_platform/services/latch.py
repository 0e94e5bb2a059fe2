"""The halt latch of a workspace: one file that survives a restart and needs no running process.

A running session reads it between steps (within a second) and turns it into a HALT command
record; a new session refuses to start while it is there. Taking it away needs two steps.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.errors import PlatformError, ReasonCode


def latch_path(workspace: Path) -> Path:
    """Where the latch lies."""
    return workspace / "state" / "halt.json"


def read(workspace: Path) -> dict[str, Any] | None:
    """The latch's content, or None when trading is not halted."""
    path = latch_path(workspace)
    return json.loads(path.read_bytes()) if path.exists() else None


def halt(workspace: Path, *, who: str, why: str, code: int = ReasonCode.KILL_SWITCH_ON) -> None:
    """Latch a halt; a second halt keeps the first one's reason."""
    if read(workspace) is None:
        latch_path(workspace).parent.mkdir(parents=True, exist_ok=True)
        content = {"who": who, "why": why, "code": int(code)}
        atomic_write(latch_path(workspace), canonical_json(content) + b"\n")


def resume_token(workspace: Path) -> str | None:
    """First step: the token that the second step must repeat; None when nothing is halted."""
    content = read(workspace)
    return None if content is None else hashlib.sha256(canonical_json(content)).hexdigest()[:8]


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
    latch_path(workspace).unlink()


def require_clear(workspace: Path) -> None:
    """Refuse to start while halted."""
    content = read(workspace)
    if content is not None:
        raise PlatformError(
            ReasonCode.KILL_SWITCH_ON,
            f"trading is halted by {content['who']}: {content['why']}",
            next_step="hft-live resume",
        )
