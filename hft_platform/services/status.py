"""What a workspace holds: sessions, promotions, the halt latch.

It reads files only, so it answers while a session runs and when none does. A summary that does not
verify is shown as what it is, not as numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hft_platform.config.keys import TrustedKey, public_key
from hft_platform.config.promoted import promotion_heads
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.records import SCALE
from hft_platform.services import latch
from hft_platform.services.session_summary import verify_summary


def workspace_status(workspace: Path) -> dict[str, Any]:
    """Sessions with their outcome, the newest promotion of each alpha, and the latch.

    Parameters
    ----------
    workspace : Path
        Workspace folder; an empty or missing one has nothing.

    Returns
    -------
    dict
        workspace, halt (None or its content), promotions, sessions; plain JSON.
    """
    folders = sorted(path for path in (workspace / "sessions").glob("*") if path.is_dir())
    key = _session_key(workspace)
    return {
        "workspace": str(workspace),
        "halt": latch.read(workspace),
        "promotions": promotion_heads(workspace),
        "sessions": [_session_row(folder, key) for folder in folders],
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
    }
    path = folder / "summary.json"
    if not path.exists():
        return row
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
