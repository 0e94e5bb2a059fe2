"""Run an alpha's own code in a process of its own, with limits on time, memory and reach.

Why: gate B executes code that somebody dropped into a folder.

Invariants:
1. The child sees no variable of this process's environment but the path, and no key.
2. A child that does not answer within its limits is an outcome, not a hang.

Operator's page: `docs/gates.md`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hft_platform.config.canonical import sha256_hex
from hft_platform.errors import PlatformError, ReasonCode
from research.gates.gate_b import TestRun
from research.gates.thresholds import GateBThresholds
from research.registry.alpha import KERNEL_FILE, MANIFEST_FILE, TEST_FILE, Alpha

_ANSWER = "answer.json"
_MEMORY_EXIT = 71
"""`MEMORY_EXIT` of the child, which is not imported here."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What differs between processes that must come to the same signal.

    Attributes
    ----------
    hash_seed : int
        Of Python's hashes: it decides the order of sets of strings.
    threads : int
        Threads that numeric libraries may use.
    """

    hash_seed: int
    threads: int


USUAL = Surroundings(hash_seed=0, threads=1)
"""One thread for numeric libraries: results and limits do not depend on the machine's cores."""


@dataclass(frozen=True, slots=True)
class ProcessSignal:
    """What a fresh process made of a tape.

    Attributes
    ----------
    sha256 : str
        Hash of the alpha and of every bit of its signal.
    event_ns : int
        Time of a record, in the fastest of several evaluations.
    """

    sha256: str
    event_ns: int


def run_alpha_tests(alpha: Alpha, thresholds: GateBThresholds) -> tuple[TestRun, str]:
    """Run `test_alpha.py` of an alpha.

    Parameters
    ----------
    alpha : Alpha
        Its folder is copied; the tests cannot write to the original.
    thresholds : GateBThresholds
        Limits of time and memory.

    Returns
    -------
    TestRun
        Counts, and how the process ended.
    str
        SHA-256 of the test file.
    """
    source = alpha.folder / TEST_FILE
    if not source.is_file():
        return TestRun(0, 0, 0, 0, "finished"), sha256_hex(b"")
    with tempfile.TemporaryDirectory(prefix="alpha-tests-") as name:
        folder = Path(name)
        inside = _copy(alpha, folder)
        # An empty settings file keeps the settings of whatever folder this runs in out of it.
        (folder / "pytest.ini").write_text("[pytest]\n")
        request = {"what": "tests", "test_file": str(Path(inside.name) / TEST_FILE)}
        answer, ended = _run_child(folder, request, thresholds, USUAL)
        counts = answer or {"passed": 0, "failed": 0, "errors": 0, "skipped": 0}
        return TestRun(ended=ended, **counts), sha256_hex(source.read_bytes())


def signal_in_process(
    alpha: Alpha,
    tape: bytes,
    thresholds: GateBThresholds,
    *,
    engine_config: dict[str, Any],
    surroundings: Surroundings,
) -> ProcessSignal:
    """Signal of an alpha over a tape, computed by a fresh process.

    Parameters
    ----------
    alpha : Alpha
        To be evaluated with its default parameters.
    tape : bytes
        Records of one session.
    thresholds : GateBThresholds
        Limits of time and memory.
    engine_config : dict
        Of the alpha with its default parameters.
    surroundings : Surroundings
        Of that process.

    Returns
    -------
    ProcessSignal

    Raises
    ------
    PlatformError
        GATE_NOT_COMPUTED when the process did not answer.
    """
    with tempfile.TemporaryDirectory(prefix="alpha-signal-") as name:
        folder = Path(name)
        inside = _copy(alpha, folder)
        (folder / "tape.bin").write_bytes(tape)
        request = {
            "what": "signal",
            "alpha_folder": str(inside),
            "tape": str(folder / "tape.bin"),
            "engine_config": engine_config,
        }
        answer, ended = _run_child(folder, request, thresholds, surroundings)
    if answer is None:
        raise PlatformError(
            ReasonCode.GATE_NOT_COMPUTED,
            f"the process that evaluates {alpha.alpha_id} ended by {ended.replace('_', ' ')}",
        )
    return ProcessSignal(str(answer["signal_sha256"]), int(answer["event_ns"]))


def _copy(alpha: Alpha, folder: Path) -> Path:
    inside = folder / alpha.alpha_id
    inside.mkdir()
    for name in (MANIFEST_FILE, TEST_FILE, KERNEL_FILE):
        if (alpha.folder / name).is_file():
            shutil.copyfile(alpha.folder / name, inside / name)
    return inside


def _run_child(
    folder: Path,
    request: dict[str, Any],
    thresholds: GateBThresholds,
    surroundings: Surroundings,
) -> tuple[dict[str, Any] | None, str]:
    full = request | {
        "answer_file": _ANSWER,
        "seconds_max": thresholds.seconds_max,
        "memory_bytes_max": thresholds.memory_bytes_max,
    }
    child = subprocess.Popen(
        [sys.executable, "-m", "research.gates.sandbox_child"],
        cwd=folder,
        env=_environment(folder, surroundings),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        child.communicate(json.dumps(full).encode(), timeout=thresholds.seconds_max)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return None, "time_limit"
    if child.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return None, "time_limit"
    if child.returncode == _MEMORY_EXIT:
        return None, "memory_limit"
    path = folder / _ANSWER
    if child.returncode != 0 or not path.is_file():
        return None, "crashed"
    return json.loads(path.read_bytes()), "finished"


def _environment(folder: Path, surroundings: Surroundings) -> dict[str, str]:
    names = (
        "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS",
        "NUMBA_NUM_THREADS",
    )  # fmt: skip
    return {
        "PATH": os.defpath,
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "PYTHONHASHSEED": str(surroundings.hash_seed),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LC_ALL": "C.UTF-8",
    } | dict.fromkeys(names, str(surroundings.threads))
