"""The wall clock of a workspace, with the highest time it has seen.

Why: in live a permit ends by the wall clock. Whoever sets the clock back would bring one back to
life that has ended; so a time below one already seen refuses.

Invariants:
1. The mark only grows, and it outlives the process.
2. A clock behind the mark by more than `BACK_NS_MAX` (what a time service corrects) is refused.
3. A mark that cannot be read is refused as well: it says nothing about the time.

Sim and paper judge validity in record time and do not come here. Operator's page:
`docs/drills/clock-jump.md`.
"""

from __future__ import annotations

import json
from pathlib import Path

from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.errors import PlatformError, ReasonCode

BACK_NS_MAX = 1_000_000_000
"""A second: steps of a time service are below it, a clock set by hand is above."""


def mark_path(workspace: Path) -> Path:
    """Where the highest time seen lies."""
    return workspace / "state" / "clock.json"


def checked_time_ns(workspace: Path, now_ns: int) -> int:
    """Hold the wall clock against the highest time seen, and remember it.

    Parameters
    ----------
    workspace : Path
        Workspace folder.
    now_ns : int
        What the clock says.

    Returns
    -------
    int
        The later of the two: the time by which validity is judged.

    Raises
    ------
    PlatformError
        CLOCK_WENT_BACK when the clock is behind, or the mark cannot be read.
    """
    path = mark_path(workspace)
    try:
        mark_ns = int(json.loads(path.read_bytes())["highest_ns"])
    except FileNotFoundError:
        mark_ns = now_ns
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PlatformError(
            ReasonCode.CLOCK_WENT_BACK,
            f"{path}: cannot be read: {error}",
            next_step="check the clock, then remove the file",
        ) from error
    if now_ns < mark_ns - BACK_NS_MAX:
        raise PlatformError(
            ReasonCode.CLOCK_WENT_BACK,
            f"the clock says {now_ns} ns, {(mark_ns - now_ns) / 1e9:.1f} s before a time already"
            f" seen here ({mark_ns})",
            next_step=f"set the clock; if that time was wrong, remove {path}",
        )
    highest_ns = max(now_ns, mark_ns)
    atomic_write(path, canonical_json({"highest_ns": highest_ns}) + b"\n")
    return highest_ns
