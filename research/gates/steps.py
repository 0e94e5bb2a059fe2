"""StepClock: where the seconds of a gate went.

Why: a program that takes a minute is made faster by what it spends the minute on.

Invariants:
1. Nobody decides by it: without an installed clock a measured step costs a look at one list.
2. Parts of several threads add up, so a part can be longer than the wall time around it.

Operator's page: `docs/rehearsal.md`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any


class StepClock:
    """Seconds, CPU-seconds and calls by step."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[str, dict[str, Any]] = {}

    def add(self, name: str, seconds: float, cpu_seconds: float) -> None:
        """Add one call of a step."""
        with self._lock:
            row = self._rows.setdefault(
                name, {"step": name, "seconds": 0.0, "cpu_seconds": 0.0, "calls": 0}
            )
            row["seconds"] += seconds
            row["cpu_seconds"] += cpu_seconds
            row["calls"] += 1

    def rows(self) -> list[dict[str, Any]]:
        """Rows by step, in the order in which steps first ended."""
        with self._lock:
            return [dict(row) for row in self._rows.values()]


_INSTALLED: list[StepClock] = []


@contextlib.contextmanager
def installed(clock: StepClock) -> Iterator[StepClock]:
    """Let every step of this process be measured by a clock, whatever its thread."""
    _INSTALLED.append(clock)
    try:
        yield clock
    finally:
        _INSTALLED.remove(clock)


def cpu_seconds() -> float:
    """CPU time of this process and of the children that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def step(name: str) -> contextlib.AbstractContextManager[None]:
    """Measure what is inside, if anybody wants to know; CPU time of process and children."""
    return _measured(name, cpu_seconds)


def part(name: str) -> contextlib.AbstractContextManager[None]:
    """Measure what is inside of a step; CPU time of this thread alone."""
    return _measured(name, time.thread_time)


@contextlib.contextmanager
def _measured(name: str, cpu: Callable[[], float]) -> Iterator[None]:
    if not _INSTALLED:
        yield
        return
    clock, started, used = _INSTALLED[-1], time.perf_counter(), cpu()
    try:
        yield
    finally:
        clock.add(name, time.perf_counter() - started, cpu() - used)
