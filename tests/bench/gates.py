"""One alpha through gates A to E on three sessions: how long, and what Dagster adds to it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.bench.run import REPOSITORY, remove, spread, temporary_folder

SESSIONS = 3
RUNS = 3
_SETUP = """
import sys
from pathlib import Path
from dagster_project.demo import prepare_instance_folder
from research import loop
ws, source, alpha_id = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
loop.make_datasets(ws, source)
key = next(k for k in loop.register_alphas(ws) if k.startswith(alpha_id + "@"))
prepare_instance_folder(ws)
import dagster as dg
dg.DagsterInstance.get().add_dynamic_partitions("alpha", [key])
print(key)
"""
_CALL = """
import json, sys
from pathlib import Path
from research import loop
content = loop.rehearse(Path(sys.argv[1]), sys.argv[2], sessions=int(sys.argv[3]))
print(json.dumps(content["timings"]))
"""


def gates(source: str, alpha_id: str) -> dict[str, Any]:
    """Rehearse in a fresh process and through `dagster asset materialize`, in turns.

    Parameters
    ----------
    source : str
        Folder of recordings, or ``generator``.
    alpha_id : str
        Whose instruments are in it.

    Notes
    -----
    Seconds are wall time inside one process after its imports, the first run left out (it compiles
    bytecode and fills the page cache). Dagster's overhead is in CPU-seconds of process and
    children: with `dagster asset materialize`, less the same library call in a process of its own.
    """
    folder = temporary_folder()
    ws = folder / "ws"
    try:
        key = _output([sys.executable, "-c", _SETUP, str(ws), source, alpha_id], ws)[1][-1]
        call = [sys.executable, "-c", _CALL, str(ws), key, str(SESSIONS)]
        config = {"ops": {"rehearsal": {"config": {"sessions": SESSIONS}}}}
        materialize = [
            str(Path(sys.executable).with_name("dagster")), "asset", "materialize",
            "-m", "dagster_project.definitions", "--select", "rehearsal", "--partition", key,
            "--config-json", json.dumps(config),
        ]  # fmt: skip
        timings, overhead = [], []
        for attempt in range(RUNS + 1):
            alone, lines = _output(call, ws)
            with_dagster, _ = _output(materialize, ws)
            if attempt:
                timings.append(json.loads(lines[-1]))
                overhead.append(with_dagster - alone)
    finally:
        remove(folder)
    return _rows(timings, overhead)


def _rows(timings: list[dict[str, Any]], overhead: list[float]) -> dict[str, Any]:
    found = {
        "gates.seconds_three_sessions": spread(
            [row["seconds"] for row in timings], "s", "a researcher sees every statistic at once"
        ),
        "gates.cpu_seconds_three_sessions": spread(
            [row["cpu_seconds"] for row in timings], "s", "the same, whatever else the cores do"
        ),
        "gates.dagster_overhead_cpu_s": spread(
            overhead, "s", "the asset graph costs little beside the gates themselves"
        ),
    }
    for place, first in enumerate(timings[0]["steps"]):
        name = str(first["step"]).removeprefix("- ").replace(" ", "_")
        inside = "gate_c." if str(first["step"]).startswith("- ") else ""
        found[f"gates.step_s.{inside}{name}"] = spread(
            [row["steps"][place]["seconds"] for row in timings],
            "s",
            "part of gate C, added up over its workers" if inside else "step of the rehearsal",
        )
    return found


def _output(command: list[str], ws: Path) -> tuple[float, list[str]]:
    """CPU-seconds of a command and its children, and its lines."""
    environment = os.environ | {
        "HFT_WORKSPACE": str(ws),
        "DAGSTER_HOME": str(ws / "dagster_home"),
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    return used, done.stdout.strip().splitlines()
