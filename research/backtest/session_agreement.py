"""Backtest of the very records a runtime session saw, and the comparison of the two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from hft_platform.market.instruments import load_instruments
from research.backtest.agreement import Agreement, compare
from research.backtest.runner import run_session
from research.data import catalog

if TYPE_CHECKING:
    from hft_platform.services.parity import SessionLogs


def agreement_of(ws: Path, session_dir: Path, logs: SessionLogs) -> Agreement:
    """Backtest a finished session with its own engine config, latency and queue model; compare.

    Parameters
    ----------
    ws : Path
        Workspace that holds the session's dataset.
    session_dir : Path
        Folder of the session.
    logs : SessionLogs
        As `read_session` gave them.

    Returns
    -------
    Agreement
    """
    evidence = json.loads((session_dir / "summary.json").read_bytes())["evidence"]
    tape = catalog.load_tape(catalog.session_of_tape(ws, evidence["tape_sha256"]))
    result = run_session(
        tape,
        json.loads((session_dir / "engine.json").read_bytes()),
        latency=json.loads((session_dir / "latency.json").read_bytes()),
        queue_model=evidence["queue_model"],
        instrument=load_instruments().by_symbol(evidence["symbol"]),
    )
    return compare(logs.inputs, logs.decisions, result.inputs, result.decisions)

