"""From a canary's roll-back to its last opening order, measured in the paper runtime.

Why: a decision stops nothing; what counts is the last order that opened a position after it.

Invariants:
1. The runtime is `session_runner.run_session` at a pace, with its own logs; the roll-back is
   `withdrawal.withdraw` from another thread, at a moment drawn from the seed. No Dagster runs.
2. What is counted comes from the session's logs. A step's end is the wall time of what it logged,
   so milliseconds are an upper bound.

Operator's page: `docs/canary.md`.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hft_platform import records
from hft_platform.config.promotion_folder import head_config, promotions_root, withdrawn_seq
from hft_platform.config.settings import load_settings
from hft_platform.errors import ReasonCode
from hft_platform.input_records import CommandKind
from hft_platform.market.instruments import load_instruments
from hft_platform.services.parity import read_session
from hft_platform.services.session_facts import APPROVED, PLACE
from hft_platform.services.session_runner import RunRequest, run_session
from research import loop
from research.canary_study.sessions import ALPHA_ID
from research.data.generator import spec_by_name
from research.data.ingest import ingest
from research.promotion.withdrawal import withdraw

ENTRY = 1
"""`IntentReason::Entry` in rust_core/src/record.rs: an order that opens a position."""
AFTER_S = 1.5
"""Wall time that a session goes on after the roll-back."""


@dataclass(frozen=True, slots=True)
class Stop:
    """One roll-back while a session was running.

    Attributes
    ----------
    speed : float
        Times real time.
    decided_ms, obeyed_ms, last_opening_ms : float
        From the decision: until the withdrawal was on disk, until the engine had obeyed it, and
        until the last opening order (0: there was none after the decision). Upper bounds.
    obeyed_records, last_opening_records : int
        The same in records that the engine took.
    openings_before, openings_after_command : int
        Orders that opened a position before the decision, and after the command: the latter is 0.
    """

    speed: float
    decided_ms: float
    obeyed_ms: float
    last_opening_ms: float
    obeyed_records: int
    last_opening_records: int
    openings_before: int
    openings_after_command: int


def prepare_workspace(ws: Path, *, sessions: int = 10) -> str:
    """Make a workspace in which the study's alpha may run: data, gates A and B, a shadow permit.

    Parameters
    ----------
    ws : Path
        New folder.
    sessions : int, optional
        Generated sessions; the last three tenths are never judged, so they may be traded.

    Returns
    -------
    str
        The alpha's key.
    """
    ingest(spec_by_name("sim_edge", session_count=sessions), ws, load_instruments())
    keys = loop.register_alphas(ws)
    key = next(one for one in keys if one.startswith(f"{ALPHA_ID}@"))
    for gate in ("gate_a", "gate_b"):
        loop.run_gate(ws, key, gate)
    loop.permit(ws, key, "shadow")
    return key


class _SeenError(Exception):
    """What had to be seen of a session was seen."""


@dataclass(slots=True)
class _Watch:
    """What the stepping thread saw, and the thread that rolls back."""

    ws: Path
    at_s: float
    started: float = 0.0
    decided: float = 0.0
    written: float = 0.0
    steps: list[tuple[float, int]] = field(default_factory=list)

    def progress(self, state: dict[str, Any]) -> None:
        now = time.perf_counter()
        self.steps.append((now, int(state["inputs"])))
        if self.written and now > self.written + AFTER_S:
            raise _SeenError

    def roll_back(self) -> None:
        time.sleep(max(0.0, self.started + self.at_s - time.perf_counter()))
        self.decided = time.perf_counter()
        withdraw(
            self.ws, ALPHA_ID, by="canary study", why="the canary was rolled back",
            code=ReasonCode.CANARY_EXECUTION_DEGRADED,
        )  # fmt: skip
        self.written = time.perf_counter()


def measure_stop(prepared: Path, scratch: Path, *, speed: float, at_s: float) -> Stop:
    """Roll back once while a session is running.

    Parameters
    ----------
    prepared : Path
        Workspace of `prepare_workspace`; it is copied, never changed.
    scratch : Path
        Folder for the copy, removed again.
    speed : float
        Pace of the session, times real time.
    at_s : float
        Wall seconds from the session's start to the roll-back.

    Returns
    -------
    Stop
    """
    ws = scratch / "stop"
    shutil.copytree(prepared, ws)
    try:
        return _stop(ws, speed=speed, at_s=at_s)
    finally:
        shutil.rmtree(ws)


def _stop(ws: Path, *, speed: float, at_s: float) -> Stop:
    key = loop.registered_alphas(ws)[0]
    session = loop.frozen_sessions(ws, key)[0]
    watch = _Watch(ws, at_s)
    thread = threading.Thread(target=watch.roll_back, daemon=True)

    def opened(_folder: Path) -> None:
        watch.started = time.perf_counter()
        thread.start()

    request = RunRequest(ws, head_config(ws, ALPHA_ID), session, "paper", speed=speed)
    # Once all is seen it is stopped: its logs are sealed, the rest is not needed.
    with contextlib.suppress(_SeenError):
        try:
            run_session(
                request,
                instruments=load_instruments(),
                settings=load_settings(),
                progress=watch.progress,
                opened=opened,
            )
        finally:
            thread.join()
    assert_withdrawn(ws)
    (folder,) = (ws / "sessions").iterdir()
    return _read(folder, watch, speed)


def assert_withdrawn(ws: Path) -> None:
    """Raise when the roll-back is not on disk."""
    if not withdrawn_seq(promotions_root(ws), ALPHA_ID):
        raise RuntimeError("the roll-back left no withdrawal")


def _read(folder: Path, watch: _Watch, speed: float) -> Stop:
    logs = read_session(folder)
    commands = records.split(logs.inputs)["Command"]
    obeyed = commands[commands["command_kind"] == int(CommandKind.WITHDRAW)]["input_seq"]
    if obeyed.size != 1:
        raise RuntimeError(f"the session took {obeyed.size} withdrawals, not one")
    decisions = np.frombuffer(logs.decisions, dtype=records.DTYPES["Decision"])
    openings = decisions[
        (decisions["action"] == PLACE)
        & (decisions["verdict"] == APPROVED)
        & (decisions["intent_reason"] == ENTRY)
    ]["input_seq"]
    # The last step that had ended before the decision: what it had taken is surely before.
    taken = max((count for at, count in watch.steps if at <= watch.decided), default=0)
    after = openings[openings > taken]

    def ms_at(seq: int) -> float:
        at = next((at for at, count in watch.steps if count >= seq), watch.steps[-1][0])
        return max(0.0, 1e3 * (at - watch.decided))

    last = int(after[-1]) if after.size else taken
    return Stop(
        speed=speed,
        decided_ms=1e3 * (watch.written - watch.decided),
        obeyed_ms=ms_at(int(obeyed[0])),
        last_opening_ms=ms_at(last) if after.size else 0.0,
        obeyed_records=int(obeyed[0]) - taken,
        last_opening_records=last - taken,
        openings_before=int((openings <= taken).sum()),
        openings_after_command=int((openings >= obeyed[0]).sum()),
    )
