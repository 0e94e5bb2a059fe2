"""Child process of gate B: limits itself, then runs an alpha's code. Started by `sandbox`.

Not imported by anything: ``python -m research.gates.sandbox_child`` with the request as JSON on
standard input; the answer is one JSON line in the file that the request names.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_REFUSED = frozenset(
    {
        "socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo",
        "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork",
        "os.forkpty", "os.kill", "os.killpg", "signal.pthread_kill", "resource.setrlimit",
        "resource.prlimit",
    }
)  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGING = {
    "os.remove": 1, "os.rmdir": 1, "os.mkdir": 1, "os.truncate": 1, "os.chmod": 1, "os.chown": 1,
    "os.utime": 1, "os.setxattr": 1, "os.removexattr": 1, "shutil.rmtree": 1, "os.rename": 2,
    "os.link": 2, "os.symlink": 2,
}  # fmt: skip
"""Events that change files, and how many of their first arguments are paths."""
MEMORY_EXIT = 71
"""Exit status of a child that ran out of memory."""
TIMED_RUNS = 7
"""Evaluations of a tape; the fastest one is what the code needs, the rest is the machine's."""


def limit(seconds: int, memory_bytes: int) -> None:
    """Bound the CPU time, memory and file size of this process."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, 64 << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def confine(folder: Path) -> None:
    """Refuse network, other processes, and writing outside a folder.

    Parameters
    ----------
    folder : Path
        The only place that may be written to.

    Notes
    -----
    An audit hook cannot be removed by the code it watches. It stops mistakes and shortcuts; it is
    no boundary against native code written to break out.
    """
    root = f"{folder.resolve()}{os.sep}"

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _REFUSED:
            raise PermissionError(f"an alpha's tests may not use {event}")
        if event == "open":
            path, mode, flags = (*arguments, None, None)[:3]
            is_writing = (isinstance(mode, str) and any(c in mode for c in "wax+")) or (
                isinstance(flags, int) and flags & _WRITING
            )
            if _is_inside(path, root):
                return
            if is_writing:
                raise PermissionError("an alpha's tests may write to their own folder only")
            # Through a folder's descriptor a file in it can be named without saying where it is.
            if mode is None and Path(os.fsdecode(path)).is_dir():
                raise PermissionError("an alpha's tests may open their own folders only")
        elif event in _CHANGING:
            paths = arguments[: _CHANGING[event]]
            if not all(_is_inside(path, root) for path in paths):
                raise PermissionError("an alpha's tests may change their own folder only")

    sys.addaudithook(hook)


def _is_inside(path: Any, root: str) -> bool:  # Any: open takes str, bytes, PathLike or int
    if isinstance(path, int) or path is None:
        return True
    text = os.fsdecode(path)
    return text == os.devnull or f"{os.path.realpath(text)}{os.sep}".startswith(root)


def run_tests(request: Mapping[str, Any]) -> dict[str, Any]:
    """Run the alpha's test file with pytest and count outcomes."""
    import pytest

    counts = {"passed": 0, "failed": 0, "errors": 0, "skipped": 0}

    class Counter:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.skipped:
                counts["skipped"] += 1
            elif report.failed:
                counts["failed" if report.when == "call" else "errors"] += 1
            elif report.when == "call":
                counts["passed"] += 1

        def pytest_collectreport(self, report: pytest.CollectReport) -> None:
            if report.skipped:
                counts["skipped"] += 1
            elif report.failed:
                counts["errors"] += 1

        def pytest_exception_interact(self, call: pytest.CallInfo[Any]) -> None:
            if call.excinfo is not None and isinstance(call.excinfo.value, MemoryError):
                os._exit(MEMORY_EXIT)

        def pytest_deselected(self, items: list[pytest.Item]) -> None:
            counts["skipped"] += len(items)

    arguments = [
        "-q",
        "-c",
        "pytest.ini",
        "--rootdir=.",
        "--basetemp=tmp",
        "-p",
        "no:cacheprovider",
    ]
    pytest.main([*arguments, request["test_file"]], plugins=[Counter()])
    return counts


def run_signal(request: Mapping[str, Any]) -> dict[str, Any]:
    """Load the alpha again, evaluate it over a tape, hash every bit of its signal and time it."""
    from hft_platform.config.canonical import sha256_hex
    from research.gates.record_places import record_offsets
    from research.gates.signals import batch_rows, signal_sha256
    from research.registry.alpha import load_alpha

    alpha = load_alpha(Path(request["alpha_folder"]))
    tape, config = Path(request["tape"]).read_bytes(), request["engine_config"]
    signal = signal_sha256(tape, config)
    times = []
    for _ in range(TIMED_RUNS):
        started = time.perf_counter_ns()
        batch_rows(tape, config)
        times.append(time.perf_counter_ns() - started)
    return {
        "signal_sha256": sha256_hex(f"{alpha.alpha_hash}{signal}".encode()),
        "event_ns": min(times) // max(1, record_offsets(tape).size),
    }


def main() -> None:
    """Read the request, confine this process, answer."""
    request = json.load(sys.stdin)
    folder = Path.cwd()
    limit(request["seconds_max"], request["memory_bytes_max"])
    confine(folder)
    try:
        answer = {"tests": run_tests, "signal": run_signal}[request["what"]](request)
    except MemoryError:
        os._exit(MEMORY_EXIT)
    (folder / request["answer_file"]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
