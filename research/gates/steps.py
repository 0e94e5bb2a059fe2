"""StepClock: where the seconds of a gate went.

Why: a program that takes a minute is made faster by what it spends the minute on.

Invariants:
1. Nobody decides by it: without an installed clock a measured step costs a look at one name.
2. Steps of several threads add up, so a step can be longer than the wall time around it.

Operator's page: `docs/rehearsal.md`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator


class StepClock:
    """Seconds and calls by step."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}
        self._calls: dict[str, int] = {}

    def add(self, step: str, seconds: float) -> None:
        """Add one call of a step."""
        with self._lock:
            self._seconds[step] = self._seconds.get(step, 0.0) + seconds
            self._calls[step] = self._calls.get(step, 0) + 1

    def rows(self) -> list[dict[str, float | int | str]]:
        """Rows of step, seconds and calls, in the order in which steps first ended."""
        with self._lock:
            return [
                {"step": step, "seconds": seconds, "calls": self._calls[step]}
                for step, seconds in self._seconds.items()
            ]


_installed: StepClock | None = None


@contextlib.contextmanager
def installed(clock: StepClock) -> Iterator[StepClock]:
    """Let every step of this process be measured by a clock, whatever its thread."""
    global _installed
    before, _installed = _installed, clock
    try:
        yield clock
    finally:
        _installed = before


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Measure what is inside, if anybody wants to know."""
    clock = _installed
    if clock is None:
        yield
        return
    started = time.perf_counter()
    try:
        yield
    finally:
        clock.add(name, time.perf_counter() - started)
