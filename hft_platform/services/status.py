"""What a workspace holds: sessions, promotions, the halt latch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hft_platform.config.promoted import promotion_heads
from hft_platform.services import latch


def workspace_status(workspace: Path) -> dict[str, Any]:
    """Sessions with their outcome, the newest promotion of each alpha, and the latch."""
    sessions = []
    for path in sorted((workspace / "sessions").glob("*")):
        summary = path / "summary.json"
        if not summary.exists():
            sessions.append(
                {"run_id": path.name, "stage": "unfinished", "orders": "-", "net": "-",
                 "parity": "-", "halted_by": "-"}
            )
            continue
        evidence = json.loads(summary.read_bytes())["evidence"]
        parity = evidence["parity"]
        sessions.append(
            {
                "run_id": path.name,
                "stage": evidence["stage"],
                "orders": evidence["counts"]["orders"],
                "net": evidence["account"]["net"] // 100_000_000,
                "parity": f"{parity['identical']}/{parity['total']}",
                "halted_by": evidence["halted_by"],
            }
        )
    return {
        "workspace": str(workspace),
        "halt": latch.read(workspace),
        "promotions": promotion_heads(workspace),
        "sessions": sessions,
    }
