"""LiveControl: what operator, signer, canary, calendar and machine say, as records of a session.

Why: a halt, a withdrawal, a smaller weight or a silent feed must reach the engine while nothing
else comes, and a replay must find it in the log.

Invariants:
1. A step takes what stands in the workspace at that moment: latch, operator's requests, withdrawal,
   weight, a newer config. Stepped five times a second, everything that takes risk away acts within
   one; a weight that rises waits for a flat position, which the engine holds (docs/risk.md).
2. A newer config changes weight, stage and expiry only; one that would decide otherwise needs a
   session of its own and is reported, not applied.
3. A halt of the engine, or a disk that runs full, latches the workspace.
4. Without market records for `SILENT_NS` there is a timer record a second, and one at each change
   of phase.
5. It has no thread and no clock: the caller gives the time.

It dispatches nothing. Operator's page: `docs/live.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import structlog

from hft_platform.config.engine_config import spec_content
from hft_platform.config.promoted import PromotedConfig
from hft_platform.config.promotion_folder import head_config, issued_seqs, promotions_root
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.input_records import (
    SOURCE_OPERATOR,
    CommandKind,
    HealthKind,
    TimerKind,
    command_record,
    health_record,
    switch_record,
    timer_record,
)
from hft_platform.recorder.disk_monitor import DiskPressureMonitor, Level
from hft_platform.services import latch
from hft_platform.services.session_governor import Alarm, SessionGovernor

STEP_NS = 200_000_000
"""Between two steps: a fifth of the second in which a halt must act."""
SILENT_NS = 800_000_000
SLOW_LOOK_NS = 1_000_000_000
"""Between two looks at the disk, and for a newer config."""
RECENT_ALARMS_MAX = 20

log = structlog.get_logger()


class ControlledSession(Protocol):
    """What is needed of a `LiveSession`."""

    def push(self, tape: bytes) -> int:
        """Take records; gives the last `input_seq`."""

    def state(self) -> dict[str, Any]:
        """Counters and latches."""

    def halted_by(self) -> int:
        """Code of what stops the session; 0 if nothing does."""


@dataclass(slots=True)
class Measured:
    """What threads measured since the last report; the worst of each.

    Attributes
    ----------
    loop_lag_ns : int
        How late a loop woke.
    order_rtt_ns, order_id : int
        From a call to the first answer, and whose.
    normaliser_failures : int
        Payloads that could not be read.
    """

    loop_lag_ns: int = 0
    order_rtt_ns: int = 0
    order_id: int = 0
    normaliser_failures: int = 0


@dataclass(frozen=True, slots=True)
class ControlledBy:
    """Where a session is controlled from.

    Attributes
    ----------
    workspace : Path
        Latch and promotions.
    session_dir : Path
        Its folder.
    load : callable
        Verifies a config file as the start did.
    disk : DiskPressureMonitor
        Of the logs' disk.
    requests : callable
        Passes an operator's requests to `push`, in order; see `operator_requests`.
    """

    workspace: Path
    session_dir: Path
    load: Callable[[Path], PromotedConfig]
    disk: DiskPressureMonitor
    requests: Callable[[int], None] = field(default=lambda _now_ns: None)


class LiveControl:
    """Steps the control of one session.

    Parameters
    ----------
    session : ControlledSession
        Takes the records.
    config : PromotedConfig
        In force at the start.
    governor : SessionGovernor
        Of the products traded.
    where : ControlledBy
        Files that are looked at.
    instrument_id : int
        Traded by the alpha.
    """

    def __init__(  # its collaborators, each once
        self,
        session: ControlledSession,
        config: PromotedConfig,
        governor: SessionGovernor,
        where: ControlledBy,
        *,
        instrument_id: int,
    ) -> None:
        self.measured = Measured()
        self.alarms: list[Alarm] = []
        self.is_halted = False
        self.is_withdrawn = False
        self.last_market_ns = 0
        self._session, self._config, self._governor = session, config, governor
        self._where, self._instrument_id = where, instrument_id
        self._weight_ppm = config.weight_ppm
        self._refused_seq = 0
        self._timer_ns = 0
        self._slow_ns = 0
        self._owed_latch: tuple[str, int] | None = None
        self._disk_level = Level.OK

    @property
    def config(self) -> PromotedConfig:
        """The config in force."""
        return self._config

    @property
    def weight_ppm(self) -> int:
        """Weight that was asked of the engine last."""
        return self._weight_ppm

    def step(self, now_ns: int) -> None:
        """Look at everything once, and push what follows.

        Parameters
        ----------
        now_ns : int
            The session's clock.
        """
        self._obey_latch(now_ns)
        self._where.requests(now_ns)
        self._obey_signer(now_ns)
        self._follow_calendar(now_ns)
        self._tell_time(now_ns)
        if now_ns - self._slow_ns >= SLOW_LOOK_NS:
            self._slow_ns = now_ns
            self._look_for_newer_config(now_ns)
            self._report_health(now_ns)
            self._watch_disk(now_ns)

    def command(self, kind: CommandKind, now_ns: int, **fields: int) -> int:
        """Push one command; gives its `input_seq`."""
        return self._session.push(command_record(kind, now_ns, source_id=SOURCE_OPERATOR, **fields))

    def latch(self, why: str, code: int) -> None:
        """Halt the workspace; on a full disk that is tried again at every step."""
        try:
            latch.halt(self._where.workspace, who=self._where.session_dir.name, why=why, code=code)
        except OSError as error:
            if self._owed_latch is None:
                log.error("halt_not_latched", reason_code=code, error=str(error))
            self._owed_latch = (why, code)
            return
        self._owed_latch = None

    def raise_alarm(self, alarm: Alarm) -> None:
        """Keep an alarm for the status and say it."""
        self.alarms = [*self.alarms, alarm][-RECENT_ALARMS_MAX:]
        log.error("live_alarm", reason_code=alarm.code, symbol=alarm.symbol, message=alarm.message)

    def _obey_latch(self, now_ns: int) -> None:
        if self._owed_latch is not None:
            self.latch(*self._owed_latch)
        halted_by = self._session.halted_by()
        if halted_by and not self.is_halted:
            self.is_halted = True
            self.latch("the engine halted", halted_by)
        content = latch.read(self._where.workspace)
        if self._owed_latch is not None:
            return  # Halted; that the workspace has no latch yet is no resume.
        if content is not None and not self.is_halted:
            self.command(CommandKind.HALT, now_ns, reason_code=content["code"])
            self.is_halted = True
        elif content is None and self.is_halted:
            self._resume(now_ns)

    def _resume(self, now_ns: int) -> None:
        """Pass an operator's resume on, in the engine's own two steps; it may refuse."""
        armed_seq = self.command(CommandKind.RESUME_ARM, now_ns)
        self.command(CommandKind.RESUME_CONFIRM, now_ns, argument=armed_seq)
        halted_by = self._session.halted_by()
        if halted_by:
            self.latch("the session refused the resume: what halted it is still there", halted_by)
            return
        self.is_halted = False

    def _obey_signer(self, now_ns: int) -> None:
        if not self.is_withdrawn and self._config.is_withdrawn(self._where.workspace):
            code = int(ReasonCode.CONFIG_WITHDRAWN)
            self.command(CommandKind.WITHDRAW, now_ns, alpha_index=0, reason_code=code)
            self.is_withdrawn = True
            log.warning("promotion_withdrawn", alpha_id=self._config.alpha_id)
        weight_ppm = self._config.weight_in_force(self._where.workspace)
        if weight_ppm < self._weight_ppm:
            self.command(CommandKind.SET_WEIGHT, now_ns, alpha_index=0, argument=weight_ppm)
            log.warning("weight_reduced", before=self._weight_ppm, weight_ppm=weight_ppm)
            self._weight_ppm = weight_ppm

    def _look_for_newer_config(self, now_ns: int) -> None:
        """Take a newer issue over; a higher weight waits in the engine for a flat position."""
        alpha_id, seq = self._config.alpha_id, self._config.promotion_seq
        seqs = issued_seqs(promotions_root(self._where.workspace), alpha_id)
        if not seqs or seqs[-1] <= max(seq, self._refused_seq):
            return
        try:
            newer = self._where.load(head_config(self._where.workspace, alpha_id))
        except PlatformError as error:
            self._refuse_newer(seqs[-1], error.message, error.code)
            return
        if newer.promotion_seq <= max(seq, self._refused_seq):
            return
        if spec_content(newer) != spec_content(self._config):
            text = f"{alpha_id} sequence {newer.promotion_seq} decides otherwise than this session"
            self._refuse_newer(newer.promotion_seq, text, ReasonCode.CONFIG_EVIDENCE_MISMATCH)
            return
        tape = switch_record(newer, now_ns, instrument_id=self._instrument_id)
        self._session.push(tape)
        self._config, self._weight_ppm = newer, newer.weight_ppm
        self.is_withdrawn = False
        log.info("config_switched", promotion_seq=newer.promotion_seq, weight_ppm=newer.weight_ppm)

    def _refuse_newer(self, seq: int, message: str, code: int) -> None:
        self._refused_seq = seq
        log.warning("config_not_taken", promotion_seq=seq, reason_code=int(code), message=message)

    def _follow_calendar(self, now_ns: int) -> None:
        changed = self._governor.look(now_ns)
        if not changed:
            return
        for standing in changed:
            log.info("phase_changed", **standing.as_dict())
        self._session.push(timer_record(TimerKind.PHASE, now_ns))
        self._timer_ns = now_ns

    def _tell_time(self, now_ns: int) -> None:
        since_ns = now_ns - max(self.last_market_ns, self._timer_ns)
        if since_ns < SILENT_NS:
            return
        silent_ns = now_ns - self.last_market_ns if self.last_market_ns else 0
        self._session.push(timer_record(TimerKind.FEED_SILENT, now_ns, argument=silent_ns))
        self._timer_ns = now_ns

    def _report_health(self, now_ns: int) -> None:
        worst, self.measured = self.measured, Measured()
        rows = (
            (HealthKind.LOOP_LAG, worst.loop_lag_ns, 0),
            (HealthKind.ORDER_RTT, worst.order_rtt_ns, worst.order_id),
            (HealthKind.NORMALISER_FAILURES, worst.normaliser_failures, 0),
        )
        tape = b"".join(
            health_record(kind, value, now_ns, argument=argument)
            for kind, value, argument in rows
            if value > 0
        )
        if tape:
            self._session.push(tape)

    def _watch_disk(self, now_ns: int) -> None:
        """Live logs leave nothing out: short of space they open nothing more, then halt."""
        level = self._where.disk.look(now_ns / 1e9, written_bytes=None)
        if level == self._disk_level:
            return
        facts = {"level": level.name, "free_bytes": self._where.disk.last.free_bytes}
        log.warning("disk_pressure_changed", **facts)
        if level >= Level.CRITICAL and level > self._disk_level:
            code = int(ReasonCode.DISK_SPACE_CRITICAL)
            self.command(CommandKind.REDUCE_ONLY, now_ns, reason_code=code)
        self._disk_level = level
        if level == Level.HALT and not self.is_halted:
            code = int(ReasonCode.DISK_SPACE_HALT)
            self.command(CommandKind.HALT, now_ns, reason_code=code)
            self.is_halted = True
            self.latch(f"no space is left for the log ({code_name(code)})", code)
