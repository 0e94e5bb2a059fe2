"""Records that the runtime itself puts into a live session: timers, commands, health, switches.

Why: whatever can change a decision is a record in the log, also what an operator or a clock says.

Invariants:
1. Every record says who made it: source 5 the operator, 6 the runtime.
2. Its receive time is the caller's clock; the session gives it its place among the inputs.

It pushes nothing. Operator's page: `docs/live.md`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from hft_platform import records
from hft_platform.market.sessions import date_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from hft_platform.config.promoted import PromotedConfig

SOURCE_OPERATOR, SOURCE_RUNTIME = 5, 6
"""`RecordHeader::source_id` in rust_core/src/record.rs."""
ALL_ALPHAS = 0xFFFF_FFFF
STAGES = {"research": 0, "shadow": 1, "canary": 2, "live": 3}


class TimerKind(IntEnum):
    """`TimerRecord::timer_kind` in rust_core/src/record.rs."""

    FEED_SILENT = 1
    PHASE = 2
    HEARTBEAT = 3


class CommandKind(IntEnum):
    """`CommandKind` in rust_core/src/record.rs."""

    HALT = 1
    RESUME_ARM = 2
    RESUME_CONFIRM = 3
    REDUCE_ONLY = 4
    FLATTEN = 5
    WITHDRAW = 6
    SET_WEIGHT = 7


class HealthKind(IntEnum):
    """`HealthKind` in rust_core/src/record.rs; what reconciliation reports is not here."""

    LOOP_LAG = 1
    ORDER_RTT = 2
    NORMALISER_FAILURES = 4


class LiveRecords:
    """Makes the runtime's records of one session.

    Parameters
    ----------
    trading_day : int
        yyyymmdd, of every record.
    """

    def __init__(self, trading_day: int) -> None:
        date_of(trading_day)
        self._trading_day = trading_day

    def timer(self, kind: TimerKind, now_ns: int, *, argument: int = 0) -> bytes:
        """Time passing."""
        row = self._row("Timer", now_ns, SOURCE_RUNTIME)
        row["timer_kind"], row["argument"] = int(kind), argument
        return row.tobytes()

    def command(
        self,
        kind: CommandKind,
        now_ns: int,
        *,
        alpha_index: int = ALL_ALPHAS,
        argument: int = 0,
        reason_code: int = 0,
    ) -> bytes:
        """What an operator, the signer or the runtime asks of the engine."""
        row = self._row("Command", now_ns, SOURCE_OPERATOR)
        row["command_kind"], row["alpha_index"] = int(kind), alpha_index
        row["argument"], row["reason_code"] = argument, int(reason_code)
        return row.tobytes()

    def health(self, kind: HealthKind, value: int, now_ns: int, *, argument: int = 0) -> bytes:
        """What the runtime measured."""
        row = self._row("Health", now_ns, SOURCE_RUNTIME)
        row["health_kind"], row["value"], row["argument"] = int(kind), value, argument
        return row.tobytes()

    def switch(
        self, config: PromotedConfig, now_ns: int, *, instrument_id: int, alpha_index: int = 0
    ) -> bytes:
        """A verified config takes effect."""
        row = self._row("ConfigSwitch", now_ns, SOURCE_OPERATOR)
        row["instrument_id"], row["alpha_index"] = instrument_id, alpha_index
        row["stage"] = STAGES[config.stage]
        row["weight_ppm"], row["promotion_seq"] = config.weight_ppm, config.promotion_seq
        row["expires_ns"] = config.expires_ns
        row["config_sha256"] = bytes.fromhex(config.content_sha256)
        return row.tobytes()

    def _row(self, name: str, now_ns: int, source_id: int) -> npt.NDArray[np.void]:
        row = records.empty(name, 1)
        row["exchange_time_ns"] = row["receive_time_ns"] = now_ns
        row["source_id"], row["trading_day"] = source_id, self._trading_day
        return row
