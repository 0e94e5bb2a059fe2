"""Backtest of the very records a runtime session saw, and the comparison of the two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from hft_platform.config.keys import public_key
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import load_instruments
from hft_platform.market.latency import profile_sha256
from hft_platform.services.parity import engine_config_of
from hft_platform.services.session_summary import verify_summary
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

    Raises
    ------
    PlatformError
        SUMMARY_TAMPERED when the session's summary does not verify, FILE_DAMAGED when its latency
        profile is not the one that the summary names, VERDICT_STALE when no dataset holds its
        records.
    """
    summary = session_dir / "summary.json"
    evidence = verify_summary(summary, key=public_key(ws, "session"))
    try:
        latency = json.loads((session_dir / "latency.json").read_bytes())
        is_same = profile_sha256(latency) == evidence.latency_profile_sha256
    except (OSError, ValueError) as error:
        raise PlatformError(
            ReasonCode.FILE_DAMAGED, f"{session_dir / 'latency.json'}: cannot be read: {error}"
        ) from error
    if not is_same:
        raise PlatformError(
            ReasonCode.FILE_DAMAGED,
            f"{session_dir / 'latency.json'}: is not the profile that the summary names",
        )
    result = run_session(
        catalog.load_tape(catalog.session_of_tape(ws, evidence.tape_sha256)),
        engine_config_of(session_dir),
        latency=latency,
        queue_model=evidence.queue_model,
        instrument=load_instruments().by_symbol(evidence.symbol),
    )
    return compare(logs.inputs, logs.decisions, result.inputs, result.decisions)
