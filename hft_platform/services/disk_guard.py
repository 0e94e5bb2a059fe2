"""DiskGuard: turns the level of disk pressure into records of a running session.

Why: the monitor only knows how much space is left. What follows from it must be in the log, in an
order that a replay can hold against the rules: restricted first, then thinned, halted before full.

Invariants:
1. It looks at the disk once a second, and at once when a log was refused its next segment; between
   two steps, never inside one.
2. Nothing is left out before its instrument is reduce-only, durably; the core holds this by itself
   (rust_core/src/shed.rs) and refuses otherwise.
3. Lifting is explicit: thinning ends with the level, reduce-only only with an operator's resume or
   the session.
4. Every change of level, start and end of thinning, and halt is logged once, with its code.

It latches nothing in the workspace: the runner does that with what `look` gives back. Operator's
page: `docs/disk-pressure.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.input_records import ALL_ALPHAS, CommandKind
from hft_platform.recorder.disk_monitor import (
    DiskPressureMonitor,
    Level,
    shed_policy,
    shed_up_to,
)

if TYPE_CHECKING:
    from hft_platform.config.settings import DiskPressure

LOOK_SECONDS = 1.0
"""Time between two looks at the disk."""
CODES = {
    Level.WARN: ReasonCode.DISK_SPACE_WARN,
    Level.CRITICAL: ReasonCode.DISK_SPACE_CRITICAL,
    Level.HALT: ReasonCode.DISK_SPACE_HALT,
}

log = structlog.get_logger()


def require_space(settings: DiskPressure, path: Path) -> None:
    """Refuse to start a session whose log has no room.

    Parameters
    ----------
    settings : DiskPressure
        Thresholds.
    path : Path
        Something on the disk of the logs.

    Raises
    ------
    PlatformError
        DISK_SPACE_HALT when the disk stands at HALT already.
    """
    monitor = DiskPressureMonitor(settings, path)
    if monitor.look(0.0, written_bytes=None) == Level.HALT:
        raise PlatformError(
            ReasonCode.DISK_SPACE_HALT,
            f"{path} has {monitor.last.free_bytes} bytes left, a session starts from"
            f" {settings.halt.free_bytes_in} on",
            next_step="free space, then hft-live run",
        )


class DiskGuard:
    """Watches the disk for one session.

    Parameters
    ----------
    paper : PaperSession
        The session; it has its recording.
    settings : DiskPressure
        Thresholds and policy.
    path : Path
        Folder of the session.
    run_id : str
        Its name, for the log.
    monotonic : callable
        Seconds since some moment.
    is_paced : bool
        Whether the logs grow as fast as the market; otherwise their growth is not judged.
    free : callable, optional
        Free bytes of a path; the operating system's by default.
    """

    def __init__(
        self,
        paper: Any,  # Any: a PaperSession, or a test's
        settings: DiskPressure,
        path: Path,
        *,
        run_id: str,
        monotonic: Callable[[], float],
        is_paced: bool,
        free: Callable[[Path], int] | None = None,
    ) -> None:
        self._paper = paper
        self._policy = shed_policy(settings)
        self._monitor = DiskPressureMonitor(settings, path, free=free)
        self._monotonic = monotonic
        self._is_paced = is_paced
        self._log = log.bind(run_id=run_id)
        self._looked_s: float | None = None
        self._shed: tuple[str | None, Level] = (None, Level.OK)
        self.level_changes = 0

    @property
    def level(self) -> Level:
        """As the last look found it."""
        return self._monitor.level

    def look(self, *, is_halted: bool) -> bool:
        """Look at the disk if it is time, and put what follows into the session.

        Parameters
        ----------
        is_halted : bool
            Whether the session is halted already, whatever for.

        Returns
        -------
        bool
            True when this look halted it: the workspace is to be latched with DISK_SPACE_HALT.
        """
        now_s = self._monotonic()
        state = self._paper.logs()
        is_due = self._looked_s is None or now_s - self._looked_s >= LOOK_SECONDS
        if not is_due and state["space_ahead"]:
            return False
        self._looked_s = now_s
        written = state["market_bytes"] + state["orders_bytes"] if self._is_paced else None
        before = self._monitor.level
        level = self._monitor.look(
            now_s, written_bytes=written, is_space_ahead=state["space_ahead"]
        )
        if level != before:
            self._note_level(before, level)
        must_halt = level == Level.HALT and not is_halted
        if must_halt:
            self._paper.command(CommandKind.HALT, ALL_ALPHAS, 0, int(ReasonCode.DISK_SPACE_HALT))
            self._log.error("session_halted", reason_code=int(ReasonCode.DISK_SPACE_HALT))
        self._follow(level)
        return must_halt

    def _follow(self, level: Level) -> None:
        """Begin, change or end what is left out of the log."""
        topic = shed_up_to(level, self._policy)
        state = self._paper.logs()
        # A resume in between has ended it: it begins again, behind a reduce-only of its own.
        is_ended = self._shed[0] is not None and not state["shedding_count"]
        wanted = (topic, level if topic else Level.OK)
        if wanted == self._shed and not is_ended:
            return
        code = int(CODES.get(level, ReasonCode.DISK_SPACE_CRITICAL))
        self._paper.shed(topic, int(wanted[1]), code)
        self._shed = wanted
        facts = {"up_to": topic, "reason_code": code, "shed_counts": state["shed"]}
        self._log.warning("shedding_ended" if topic is None else "shedding_started", **facts)

    def _note_level(self, before: Level, level: Level) -> None:
        self.level_changes += 1
        seconds = self._monitor.last.seconds_to_full
        facts = {
            "before": before.name,
            "level": level.name,
            "free_bytes": self._monitor.last.free_bytes,
            "seconds_to_full": None if seconds == float("inf") else round(seconds),
            "reason_code": int(CODES[level]) if level else 0,
        }
        if level > before:
            self._log.warning("disk_pressure_rose", **facts)
        else:
            self._log.info("disk_pressure_fell", **facts)
