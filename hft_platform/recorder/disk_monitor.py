"""DiskPressureMonitor: how short of space the log's disk is, and what that asks for.

Why: a full disk stops the log, and a log that stops stops trading in the middle of a position. Seen
early enough, it costs depth of the market data first, and a halt with an order log last.

Invariants:
1. Every state and every sample has one next state: `next_level` is a pure function, and its test
   goes through all of it.
2. A level is entered at its `in` and left at its `out`, one for free bytes and one for the time
   until the disk is full; the stricter of the two decides.
3. What is not known is not judged: without a growth rate the time counts as endless, a disk that
   cannot be asked is HALT.
4. A topic is left out at the level that its policy names, never before a topic that comes earlier.

It changes nothing by itself (see `services/disk_guard.py`). Operator's page:
`docs/disk-pressure.md`.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hft_platform.config.settings import DiskPressure

TOPICS = ("depth", "books", "trades")
"""`shed::Topic` in rust_core/src/shed.rs, in the order in which they are left out."""


class Level(IntEnum):
    """How short of space the disk is; the number is the one in a SHED record."""

    OK = 0
    WARN = 1
    CRITICAL = 2
    HALT = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the disk.

    Attributes
    ----------
    free_bytes : int
        What an ordinary process may still write; -1 when the disk could not be asked.
    growth_bytes_per_s : float or None
        What the logs take; None when that says nothing (virtual time) or is not known yet.
    is_space_ahead : bool
        False when the log could not reserve its next segment.
    """

    free_bytes: int
    growth_bytes_per_s: float | None = None
    is_space_ahead: bool = True

    @property
    def seconds_to_full(self) -> float:
        """Time until nothing is left at this rate; endless without one."""
        if self.growth_bytes_per_s is None or self.growth_bytes_per_s <= 0:
            return math.inf
        return max(self.free_bytes, 0) / self.growth_bytes_per_s


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a level begins and ends: it is entered below `*_in` and left from `*_out` on."""

    free_bytes_in: int
    free_bytes_out: int
    seconds_in: float
    seconds_out: float

    def holds(self, sample: Sample, *, is_entered: bool) -> bool:
        """Whether the level is called for by a sample."""
        free = self.free_bytes_out if is_entered else self.free_bytes_in
        seconds = self.seconds_out if is_entered else self.seconds_in
        return sample.free_bytes < free or sample.seconds_to_full < seconds


def bounds_of(settings: DiskPressure) -> dict[Level, Bounds]:
    """Thresholds of WARN, CRITICAL and HALT as the settings say."""
    return {
        level: Bounds(**getattr(settings, level.name.lower()).model_dump())
        for level in Level
        if level > Level.OK
    }


def shed_policy(settings: DiskPressure) -> dict[str, Level | None]:
    """Level from which on each topic is left out; None is never."""
    named = settings.shed_at.model_dump()
    return {topic: at and Level[at.upper()] for topic, at in named.items()}


def next_level(level: Level, sample: Sample, bounds: dict[Level, Bounds]) -> Level:
    """Level after a sample.

    Parameters
    ----------
    level : Level
        Before it.
    sample : Sample
        What was seen.
    bounds : dict of Level to Bounds
        Of WARN, CRITICAL and HALT.

    Returns
    -------
    Level
        The highest that the sample calls for; levels up to the present one are held by their
        `out`, those above it are entered by their `in`.
    """
    if sample.free_bytes < 0 or not sample.is_space_ahead:
        return Level.HALT
    called = [one for one, bound in bounds.items() if bound.holds(sample, is_entered=one <= level)]
    return max(called, default=Level.OK)


def shed_up_to(level: Level, policy: dict[str, Level | None]) -> str | None:
    """Last topic that is left out at a level; all before it are too. None when nothing is.

    Parameters
    ----------
    level : Level
        How short of space the disk is.
    policy : dict of str to Level or None
        From which level on a topic is left out; None is never.
    """
    shed = [topic for topic in TOPICS if (at := policy[topic]) is not None and level >= at]
    return shed[-1] if shed else None


def free_bytes(path: Path) -> int:
    """What an ordinary process may still write where `path` lies; -1 when it cannot be asked."""
    try:
        status = os.statvfs(path)
    except OSError:
        return -1
    return status.f_bavail * status.f_frsize


class DiskPressureMonitor:
    """Keeps the level of one disk from one look to the next.

    Parameters
    ----------
    settings : DiskPressure
        Thresholds and window.
    path : Path
        Something on the disk.
    free : callable, optional
        Free bytes of a path; the operating system's by default.
    """

    def __init__(
        self,
        settings: DiskPressure,
        path: Path,
        *,
        free: Callable[[Path], int] | None = None,
    ) -> None:
        self._bounds = bounds_of(settings)
        self._window_s = settings.growth_window_s
        self._path = path
        self._free = free or free_bytes
        self._written: deque[tuple[float, int]] = deque()
        self.level = Level.OK
        self.last = Sample(0)

    def look(
        self, now_s: float, *, written_bytes: int | None, is_space_ahead: bool = True
    ) -> Level:
        """Take a sample and follow it.

        Parameters
        ----------
        now_s : float
            Monotonic time.
        written_bytes : int or None
            What the logs hold by now; None when their growth says nothing about the future.
        is_space_ahead : bool, optional
            False when a log could not reserve its next segment.

        Returns
        -------
        Level
            From now on.
        """
        rate = None if written_bytes is None else self._rate(now_s, written_bytes)
        self.last = Sample(self._free(self._path), rate, is_space_ahead)
        self.level = next_level(self.level, self.last, self._bounds)
        return self.level

    def _rate(self, now_s: float, written_bytes: int) -> float | None:
        """Bytes per second over the window; None until half of it has passed."""
        rows = self._written
        rows.append((now_s, written_bytes))
        while len(rows) > 2 and rows[1][0] <= now_s - self._window_s:
            rows.popleft()
        passed_s = now_s - rows[0][0]
        if passed_s < self._window_s / 2:
            return None
        return (written_bytes - rows[0][1]) / passed_s
