"""What a workspace holds: sessions, promotions, the halt latch.

It reads files only, so it answers while a session runs and when none does. A summary that does not
verify is shown as what it is, not as numbers.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from hft_platform.config.keys import TrustedKey, public_key
from hft_platform.config.promoted import promotion_heads
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.records import SCALE
from hft_platform.services import halt_log, latch, live_status
from hft_platform.services.session_summary import verify_summary


def workspace_status(workspace: Path, *, now_ns: int | None = None) -> dict[str, Any]:
    """Sessions with their outcome, the newest promotion of each alpha, and the latch.

    Parameters
    ----------
    workspace : Path
        Workspace folder; an empty or missing one has nothing.
    now_ns : int, optional
        The machine's clock, by which a status is old.

    Returns
    -------
    dict
        workspace, halt (None, or who, why, code, reason, since_ns and next), promotions, sessions
        (those without a summary with ``guard``: state, cause and time of policy and storm guard),
        live (the status of each live process that has not brought its session to an end); plain
        JSON.
    """
    folders = sorted(path for path in (workspace / "sessions").glob("*") if path.is_dir())
    key = _session_key(workspace)
    return {
        "workspace": str(workspace),
        "halt": _halt(workspace),
        "promotions": promotion_heads(workspace),
        "sessions": [_session_row(folder, key) for folder in folders],
        "live": _live(workspace, time.time_ns() if now_ns is None else now_ns),
    }


def _live(workspace: Path, now_ns: int) -> list[dict[str, Any]]:
    """Live processes and rehearsals whose session has no summary yet."""
    rows = []
    for base in ("sessions", "rehearsals"):
        for folder in sorted((workspace / base).glob("*")):
            if (folder / "summary.json").exists():
                continue
            status = live_status.read_status(folder, now_ns=now_ns)
            if status is not None:
                rows.append(status | {"run_id": folder.name})
    return rows


def _halt(workspace: Path) -> dict[str, Any] | None:
    content = latch.adopt(workspace)
    if content is None:
        return None
    return content | {"reason": code_name(content["code"]), "next": "hft-live resume"}


def _guard(folder: Path) -> dict[str, Any]:
    """Where the order log of a session without a summary says that policy and guard stand."""
    try:
        last = halt_log.changes(folder)
    except PlatformError as error:
        return {"unreadable": code_name(error.code)}
    return {
        name: {"state": "NORMAL", "reason": None, "since_ns": None}
        if change is None
        else {
            "state": change["state"],
            "reason": code_name(change["code"]),
            "since_ns": change["since_ns"],
        }
        for name, change in last.items()
    }


def _session_key(workspace: Path) -> TrustedKey | None:
    try:
        return public_key(workspace, "session")
    except PlatformError as error:
        if error.code != ReasonCode.KEY_MISSING:
            raise
        return None


def _session_row(folder: Path, key: TrustedKey | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "run_id": folder.name,
        "state": "unfinished",
        "stage": None,
        "orders": None,
        "net": None,
        "parity": None,
        "halted_by": None,
        "guard": None,
    }
    path = folder / "summary.json"
    if not path.exists():
        return row | {"guard": _guard(folder)}
    if key is None:
        return row | {"state": code_name(ReasonCode.KEY_MISSING)}
    try:
        evidence = verify_summary(path, key=key)
    except PlatformError as error:
        return row | {"state": code_name(error.code)}
    parity, account = evidence.parity, evidence.account
    return row | {
        "state": "finished",
        "stage": evidence.stage,
        "orders": evidence.counts.orders,
        "net": None if account is None else account.net / SCALE,
        "parity": None if parity is None else f"{parity.identical}/{parity.total}",
        "halted_by": evidence.halted_by,
    }
