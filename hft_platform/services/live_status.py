"""Status of a live process: one small file in its session folder, a second old at most.

Why: `hft-live status` must answer while the process is busy, stuck or dead.

Invariants:
1. The file appears complete or not at all; it is not synced, for nothing is decided by it.
2. It says when it was written by the machine's clock: an old one is a process that hangs or died.
3. One that cannot be read says so; it is never taken for an idle process.

Operator's page: `docs/live.md`.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.config.canonical import canonical_json

if TYPE_CHECKING:
    from hft_platform.services.hft_system import HFTSystem

FILE_NAME = "status.json"
HUNG_AFTER_S = 5.0
"""A status is written once a second."""


def write_status(system: HFTSystem, now_ns: int, *, is_running: bool) -> None:
    """Write the status of a process.

    Parameters
    ----------
    system : HFTSystem
        Running.
    now_ns : int
        The session's clock, which is the machine's in live only.
    is_running : bool
        False for the last one.
    """
    parts = system.parts
    state, orders = parts.session.state(), parts.session.orders()
    content = {
        "run_id": parts.session_dir.name,
        "pid": os.getpid(),
        "mode": parts.mode,
        "broker": parts.broker.name,
        "is_running": is_running,
        "written_ns": time.time_ns(),  # of the machine, whatever the session's is
        "session_time_ns": now_ns,
        "is_ready": system.is_ready,
        "is_restricted": system.is_restricted,
        "reasons": list(system.reasons)[:10],
        "is_connected": parts.listener.is_connected,
        "phases": [row.as_dict() for row in parts.governor.standings],
        "halted_by": int(state["halted_by"]),
        "weight_ppm": parts.control.weight_ppm,
        "promotion_seq": parts.control.config.promotion_seq,
        "open_orders": len(orders),
        "unknown_orders": sum(row["state"] == "unknown" for row in orders),
        "positions": _positions(parts),
        "last_market_ns": parts.control.last_market_ns,
        "latency": parts.session.latency(),
        "reconciliation": parts.reconciler.counters(),
        "alarms": [
            {"code": alarm.code, "symbol": alarm.symbol, "message": alarm.message}
            for alarm in parts.control.alarms
        ],
    }
    path = parts.session_dir / FILE_NAME
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(canonical_json(_plain(content)) + b"\n")
    temporary.replace(path)


def read_status(session_dir: Path, *, now_ns: int) -> dict[str, Any] | None:
    """Status of a session's process, with how it stands.

    Parameters
    ----------
    session_dir : Path
        Folder of a session.
    now_ns : int
        The machine's clock.

    Returns
    -------
    dict or None
        With ``process``: ``running``, ``ended``, ``hung or dead`` or ``unreadable``; None for a
        session that no live process wrote.
    """
    try:
        content: dict[str, Any] = json.loads((session_dir / FILE_NAME).read_bytes())
        age_s = (now_ns - int(content["written_ns"])) / 1e9
        is_running = bool(content["is_running"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return {"process": "unreadable", "age_s": None}
    fresh = "running" if age_s < HUNG_AFTER_S else "hung or dead"
    return content | {"process": fresh if is_running else "ended", "age_s": age_s}


def _positions(parts: Any) -> dict[str, int]:  # Any: SystemParts
    net: dict[str, int] = {}
    for row in parts.session.positions():
        symbol = parts.instruments[int(row["instrument_id"])].symbol
        net[symbol] = net.get(symbol, 0) + int(row["position_qty"])
    return dict(sorted(net.items()))


def _plain(value: Any) -> Any:  # Any: what counters and histograms hold
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value
