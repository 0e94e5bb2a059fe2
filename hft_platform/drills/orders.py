"""Drills of the order plane: at most once, counted at the broker, in simulated runs.

Why: "never sent twice" is a sentence until gateways die at the worst moments ten thousand times,
and the same counting finds the duplicates of a gateway that forgets and of one that resends.

Invariants:
1. What was sent is counted from the broker's journal, by intent and by tag.
2. A run that fails is named with its seed: the same seed gives the same run.
3. The controls go through the same harness, and a control without a duplicate fails the drill.

Operator's page: `docs/drills/order-chaos.md`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hft_platform.drills.drill import Claim, Drill, DrillReport
from hft_platform.drills.takeover_model import Rules, check

RUNS = 1_000
"""Simulated runs for each unit of size."""
CONTROL_RUNS = 60
SECONDS_MAX = 1_500
_MUST_HAPPEN = (
    "crash_now", "crash_popped", "crash_before_place", "crash_after_place", "crash_torn",
    "crash_paused", "takeovers", "ambiguous", "adopted", "abandoned", "came_late", "fenced_calls",
    "broker_request_lost", "broker_request_late", "broker_reply_lost", "broker_reply_late",
    "broker_event_lost", "broker_event_double", "broker_event_late", "broker_deal_first",
    "broker_partial", "broker_query_fails", "parity_runs",
)  # fmt: skip


@dataclass(slots=True)
class SimTotals:
    """What many runs came to."""

    facts: Counter[str] = field(default_factory=Counter)
    failed: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


def simulate(first_seed: int, count: int, *, control: str = "", stop_after: int = 5) -> SimTotals:
    """Run seeds in as many processes as there are processors.

    Parameters
    ----------
    first_seed : int
        First one.
    count : int
        How many.
    control : {"", "forgets", "resends"}, optional
        What is broken on purpose.
    stop_after : int, optional
        Failed runs after which a process stops.

    Returns
    -------
    SimTotals
    """
    workers = min(os.cpu_count() or 1, count)
    share = -(-count // workers)
    starts = range(first_seed, first_seed + count, share)
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [
                sys.executable, "-m", "hft_platform.drills.order_sim", "--seed", str(start),
                "--count", str(min(share, first_seed + count - start)),
                "--stop-after", str(stop_after), "--json",
                *([f"--{control}"] if control else []),
            ],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
        )
        for start in starts
    ]  # fmt: skip
    totals = SimTotals()
    for process in processes:
        try:
            said, complaint = process.communicate(timeout=SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            said, complaint = process.communicate()
        if process.returncode not in (0, 1) or not said:
            text = complaint.decode(errors="replace")[-2_000:]
            totals.failed.append(
                {"seed": -1, "problems": [f"a process ended: {text}"], "trace": []}
            )
            continue
        content = json.loads(said)
        totals.facts.update(content["facts"])
        totals.failed += content["failed"]
        totals.seconds = max(totals.seconds, float(content["seconds"]))
    return totals


def order_chaos(folder: Path, seed: int, size: int) -> DrillReport:
    """Simulate 1,000 runs for each unit of size, the controls, and check the protocol's model.

    Parameters
    ----------
    folder : Path
        Where failed runs are described.
    seed : int
        Decides the seeds of the runs.
    size : int
        Repetitions in units.

    Returns
    -------
    DrillReport
    """
    first_seed, wanted = 1_000_000 * seed, RUNS * size
    totals = simulate(first_seed, wanted)
    forgets = simulate(first_seed, CONTROL_RUNS, control="forgets")
    resends = simulate(first_seed, CONTROL_RUNS, control="resends")
    if totals.failed:
        (folder / "failed.json").write_text(json.dumps(totals.failed, indent=1))
    missing = sorted(name for name in _MUST_HAPPEN if totals.facts[name] == 0)
    model = check(Rules())
    claims = (
        Claim("runs", wanted, totals.facts["runs"]),
        Claim("runs in which something was not as it must be", [], _shown(totals)),
        Claim("faults that never happened", [], missing),
        Claim("dedup in memory only is found to send twice", True, _has_duplicates(forgets)),
        Claim("resending what was not found is found to send twice", True,
              _has_duplicates(resends)),
        Claim("schedules of the protocol's model that send twice", [], list(model.duplicate)),
        Claim("states of the model from which nothing is resolved", [], list(model.stuck)),
    )  # fmt: skip
    facts = dict(sorted(totals.facts.items())) | {
        "simulated_seconds": totals.seconds,
        "duplicates_when_forgetting": _duplicates(forgets),
        "duplicates_when_resending": _duplicates(resends),
        "model_states": model.states,
    }
    return DrillReport("order-chaos", claims, facts)


def _shown(totals: SimTotals) -> list[str]:
    return [f"seed {one['seed']}: {'; '.join(one['problems'])}"[:400] for one in totals.failed][:5]


def _duplicates(totals: SimTotals) -> int:
    return sum("calls to place" in text for one in totals.failed for text in one["problems"])


def _has_duplicates(totals: SimTotals) -> bool:
    return _duplicates(totals) > 0


DRILLS: tuple[Drill, ...] = (
    Drill(
        "order-chaos",
        "Kill, freeze and replace simulated gateways and count at the broker.",
        order_chaos,
    ),
)
