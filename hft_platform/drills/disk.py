"""Disk drills: the disk of the log runs full, or takes its time.

Why: a full disk is the most ordinary outage there is, and the one in which a log loses what it has
acknowledged, or a halt cannot be written down. It is rehearsed on a real file system that is really
full, with a real session process on it.

Invariants:
1. The full disk is a tmpfs of a few MiB in a mount namespace of its own: nothing outside can see
   it, and it goes with the process.
2. What was acknowledged is taken from the log's own watermark while the disk is full, and looked
   for afterwards.
3. The slow disk is slow by a parameter that nothing but this drill sets.

Operator's pages: `docs/drills/disk-full.md`, `docs/drills/disk-slow.md`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from hft_platform import records
from hft_platform.drills.drill import Claim, Drill, DrillReport
from hft_platform.drills.market import MAKER, make_session, market_session, market_tape
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services.parity import SessionLogs, parity_of, read_session

DISK_MIB = 12
INSIDE_SECONDS_MAX = 120
LOOP_LAG = 1
"""`HealthKind` in rust_core/src/record.rs."""
STORM_CHANGE, STORM = 16, 2
"""`ActionKind`, and the state from which on nothing opens."""
APPROVED, PLACE = 1, 1
SLOW_MS = (50, 300)
STEP_NS = 1_000_000_000


def why_no_mount() -> str | None:
    """Why no file system can be mounted in a namespace of one's own here; None when it can."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return "unshare (util-linux) is not installed"
    done = subprocess.run([unshare, "-rm", "true"], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"user namespaces are forbidden: {done.stderr.strip()}"


def disk_full(folder: Path, seed: int, size: int) -> DrillReport:
    """Fill the disk under a session, look at what it leaves, make room, and trade again.

    Parameters
    ----------
    folder : Path
        Empty.
    seed : int
        Of the market.
    size : int
        How often.

    Returns
    -------
    DrillReport

    Raises
    ------
    PlatformError
        SETTINGS_INVALID where no disk can be mounted.
    """
    why = why_no_mount()
    if why is not None:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"drill disk-full needs a mount namespace: {why}",
            next_step="run it where `unshare -rm true` works",
        )
    claims: list[Claim] = []
    facts: dict[str, Any] = {}
    for turn in range(size):
        found = _on_small_disk(folder / str(turn), seed + turn)
        claims += [Claim(**row) for row in found["claims"]]
        facts = found["facts"] | {"turns": turn + 1}
    return DrillReport("disk-full", tuple(claims), facts)


def _on_small_disk(folder: Path, seed: int) -> dict[str, Any]:
    """Run `disk_full_inside` on a tmpfs of its own."""
    disk, report = folder / "disk", folder / "report.json"
    disk.mkdir(parents=True)
    mount = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'
    inside = [sys.executable, "-m", "hft_platform.drills.disk_full_inside"]
    command = ["unshare", "-rm", "sh", "-c", mount, "sh", f"{DISK_MIB}m", str(disk), *inside]
    done = subprocess.run(
        [*command, str(disk), str(report), str(seed)],
        capture_output=True,
        text=True,
        timeout=INSIDE_SECONDS_MAX,
        check=False,
    )
    if not report.exists():
        claim = {"text": "the drill ran to its end", "expected": "", "found": done.stderr[-2_000:]}
        return {"claims": [claim], "facts": {}}
    content: dict[str, Any] = json.loads(report.read_bytes())
    return content


def disk_slow(folder: Path, seed: int, size: int) -> DrillReport:
    """Trade on a disk whose syncs take 50 to 300 ms, beside the same session on the plain one.

    Parameters
    ----------
    folder : Path
        Empty.
    seed : int
        Of the market and the delays.
    size : int
        Minutes of market.

    Returns
    -------
    DrillReport
    """
    return slowed(folder, seed, size, sync_ms=SLOW_MS)


def slowed(folder: Path, seed: int, size: int, *, sync_ms: tuple[int, int]) -> DrillReport:
    """As `disk_slow`, with the shortest and longest time of a sync given."""
    tape = market_tape(seed, book_count=240 * size)
    delay = {"min_ms": sync_ms[0], "max_ms": sync_ms[1], "seed": seed}
    plain = _timed(folder / "plain", tape, None)
    slow = _timed(folder / "slow", tape, delay)
    logs = read_session(folder / "slow")
    report = parity_of(logs, slow["engine_config"])
    degraded = _degraded(logs)
    claims = (
        Claim("every sync waited: the median acknowledgement takes the shortest delay or more",
              True, slow["ack_ms_p50"] >= SLOW_MS[0]),
        Claim("nothing is lost: the logs hold every input", slow["inputs"], _held(logs)),
        Claim("every decision can be made again", (report.total, 0),
              (report.identical, report.not_replayable)),
        Claim("the storm guard degraded trading for the loop's lag",
              int(ReasonCode.STORM_LOOP_LAG), degraded["code"]),
        Claim("no order that opens was approved while it was", 0, degraded["opened"]),
        Claim("the session was halted by nothing", 0, slow["halted_by"]),
    )  # fmt: skip
    facts = {
        "sync_ms": f"{sync_ms[0]} to {sync_ms[1]}",
        "ack_ms_p50_slow": slow["ack_ms_p50"],
        "ack_ms_p50_plain": plain["ack_ms_p50"],
        "acknowledgements": slow["acks"],
        "orders": degraded["orders"],
    }
    return DrillReport("disk-slow", claims, facts)


def _timed(folder: Path, tape: bytes, delay: dict[str, int] | None) -> dict[str, Any]:
    """Run a session second by second, as a paced one; the slow one reports its lag."""
    options: dict[str, Any] = {"wal_id": 7, "durable": "record"}
    if delay is not None:
        options["drill_sync_delay"] = delay
    session, engine_config = make_session(folder, tape, template=MAKER, options=options)
    acks_ms: list[float] = []
    now_ns, state = market_session()[1].start_ns, {"done": False, "requests": 0}
    while not state["done"]:
        before = state["requests"]
        started = time.monotonic()
        state = session.run(now_ns, 1 << 20)
        took_ms = (time.monotonic() - started) * 1e3
        if state["requests"] > before:
            acks_ms.append(took_ms)
        if delay is not None and not state["done"]:
            session.health(LOOP_LAG, int(took_ms * 1e6))
        now_ns += STEP_NS
    inputs = state["inputs"]
    finished = session.finish()
    return {
        "ack_ms_p50": round(sorted(acks_ms)[len(acks_ms) // 2], 1) if acks_ms else 0.0,
        "acks": len(acks_ms),
        "inputs": inputs,
        "halted_by": finished["halted_by"],
        "engine_config": engine_config,
    }


def _held(logs: SessionLogs) -> int:
    return int(sum(part.size for part in records.split(logs.inputs).values()))


def _degraded(logs: SessionLogs) -> dict[str, int]:
    """What the storm guard changed for, and opening orders approved while it had."""
    rows = np.frombuffer(logs.decisions, dtype=records.DTYPES["Decision"])
    changes = rows[rows["action"] == STORM_CHANGE]
    placed = rows[(rows["action"] == PLACE) & (rows["verdict"] == APPROVED)]
    reduces = placed["side"] * placed["position_qty"] < 0
    opening = placed[~reduces]["decision_seq"]
    opened = 0
    bounds = [*changes["decision_seq"].tolist(), int(rows["decision_seq"].max()) + 1]
    for change, first, last in zip(changes, bounds, bounds[1:], strict=False):
        if change["intent_reason"] >= STORM:
            opened += int(((opening > first) & (opening < last)).sum())
    storms = changes[changes["intent_reason"] >= STORM]
    code = int(storms["reason_code"][0]) if storms.size else 0
    return {"code": code, "opened": opened, "orders": int(placed.size)}


DRILLS = (
    Drill("disk-full", "the disk of the log runs full under a session", disk_full),
    Drill("disk-slow", "syncs of the log take 50 to 300 ms", disk_slow),
)
