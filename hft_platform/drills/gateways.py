"""Drill of the gateway: real processes killed and frozen around a broker that misbehaves.

Why: a simulation shows that the rules hold; real processes show that locks, sockets, threads and
files of a killed one do what the rules assume.

Operator's page: `docs/drills/gateway-chaos.md`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hft_platform.drills.drill import Claim, Drill, DrillReport

RUNS = 50
"""Runs for each unit of size."""
CONTROL_RUNS = 16
AT_ONCE = 4
SECONDS_MAX = 1_800
_MUST_HAPPEN = (
    "killed_gateways", "killed_runners", "frozen", "fenced", "calls", "broker_request_lost",
    "broker_reply_lost", "broker_event_lost", "broker_event_double", "broker_partial",
    "broker_query_fails", "decisions",
)  # fmt: skip


def run_processes(
    folder: Path, first_seed: int, count: int, *, at_once: int = AT_ONCE, control: str = ""
) -> dict[str, Any]:
    """Run seeds in a process that forks all others.

    Parameters
    ----------
    folder : Path
        Keeps the folders of failed runs.
    first_seed : int
        First one.
    count : int
        How many.
    at_once : int, optional
        How many overlap.
    control : {"", "forgets", "resends"}, optional
        What is broken on purpose.

    Returns
    -------
    dict
        ``facts``, ``seconds``, ``failed``.
    """
    command = [
        sys.executable, "-m", "hft_platform.drills.gateway_chaos_run", "--seed", str(first_seed),
        "--count", str(count), "--at-once", str(at_once), "--folder", str(folder),
        "--control", control,
    ]  # fmt: skip
    # A library that starts threads when it is imported would make a fork unsafe.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=SECONDS_MAX
    )
    if not finished.stdout:
        raise RuntimeError(finished.stderr[-2_000:])
    content: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return content


def gateway_chaos(folder: Path, seed: int, size: int) -> DrillReport:
    """Kill and freeze gateways and runners in 50 runs for each unit of size.

    Parameters
    ----------
    folder : Path
        Keeps the folders of failed runs.
    seed : int
        Decides the seeds of the runs.
    size : int
        Repetitions in units.

    Returns
    -------
    DrillReport
    """
    wanted = RUNS * size
    found = run_processes(folder, 1_000_000 * seed, wanted)
    facts: dict[str, int] = found["facts"]
    controls = {
        name: run_processes(folder, 1_000_000 * seed, CONTROL_RUNS, control=name)
        for name in ("forgets", "resends")
    }
    if found["failed"]:
        (folder / "failed.json").write_text(json.dumps(found["failed"], indent=1))
    shown = [f"seed {one['seed']}: {'; '.join(one['problems'])}"[:400] for one in found["failed"]]
    duplicates = {name: _duplicates(one) for name, one in controls.items()}
    claims = (
        Claim("runs", wanted, facts["runs"]),
        Claim("runs in which something was not as it must be", [], shown[:5]),
        Claim(
            "what never happened", [], [name for name in _MUST_HAPPEN if facts.get(name, 0) == 0]
        ),
        Claim("dedup in memory only is found to send twice", True, duplicates["forgets"] > 0),
        Claim("resending what was not found is found to send twice", True,
              duplicates["resends"] > 0),
    )  # fmt: skip
    shown_facts = dict(sorted(facts.items())) | {"runs_seconds": found["seconds"]}
    return DrillReport(
        "gateway-chaos", claims, shown_facts | {f"duplicates_{k}": n for k, n in duplicates.items()}
    )


def _duplicates(found: dict[str, Any]) -> int:
    return sum("calls to place" in text for one in found["failed"] for text in one["problems"])


DRILLS: tuple[Drill, ...] = (
    Drill(
        "gateway-chaos",
        "Kill and freeze real gateways and runners, and count at the broker.",
        gateway_chaos,
    ),
)
