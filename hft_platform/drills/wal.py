"""Drill of the log: writers killed at any moment.

Why: a session is killed by an operator, the kernel or a power switch, and starts again. What was
acknowledged before must be there after, also when it is killed again while it recovers.

Operator's page: `docs/drills/wal-kill.md`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hft_platform.drills.drill import Claim, Drill, DrillReport

KILLS = 200
"""Kills of a life that had acknowledged records, for each unit of size."""
LIVES_S_MAX = 1_500


def run_lives(
    folder: Path, seed: int, kills: int, *, acks_early: bool = False
) -> tuple[dict[str, Any], str]:
    """Kill so many writers in a process of their own.

    Parameters
    ----------
    folder : Path
        Where the logs are written.
    seed : int
        Decides the delays.
    kills : int
        Lives that had acknowledged something.
    acks_early : bool, optional
        The negative control: a record counts as acknowledged when it is appended.

    Returns
    -------
    facts : dict
        Counts.
    errors : str
        What the process wrote to its error output.
    """
    command = [sys.executable, "-m", "hft_platform.drills.wal_lives"]
    command += ["--folder", str(folder), "--seed", str(seed), "--kills", str(kills)]
    # A library that starts threads when it is imported would make a fork unsafe.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [*command, *(["--acks-early"] if acks_early else [])],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        timeout=LIVES_S_MAX,
    )
    facts: dict[str, Any] = json.loads(finished.stdout)
    return facts, finished.stderr


def kill_writers(folder: Path, seed: int, size: int) -> DrillReport:
    """Kill writers of both logs of a session, 200 for each unit of size.

    Parameters
    ----------
    folder : Path
        Empty folder.
    seed : int
        Decides the delays.
    size : int
        Repetitions in units.

    Returns
    -------
    DrillReport
    """
    wanted = KILLS * size
    facts, errors = run_lives(folder, seed, wanted)
    claims = (
        Claim(
            "writers were killed after they had acknowledged records",
            wanted,
            min(facts["kills_with_acks"], wanted),
        ),
        Claim("acknowledged records that were lost", 0, facts["lost"]),
        Claim("records that nobody appended there", 0, facts["phantom"]),
        Claim("records out of order", 0, facts["out_of_order"]),
        Claim("logs that were refused", 0, facts["refused"]),
        Claim("what the writers complained of", "", errors.strip()[:500]),
        Claim("some died while they recovered", True, facts["recoveries_killed"] > 0),
        Claim("some died while they sealed or rotated", True, _sealing(facts) > 0),
    )
    return DrillReport("wal-kill", claims, facts)


def _sealing(facts: dict[str, Any]) -> int:
    return int(facts["kills_rotating"] + facts["kills_sealing"])


DRILLS: tuple[Drill, ...] = (
    Drill("wal-kill", "Kill writers of both logs at any moment and count.", kill_writers),
)
