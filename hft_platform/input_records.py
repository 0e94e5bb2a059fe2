"""Input records that Python makes: what broker, operator, clock and runtime have to say, as bytes.

Why: whatever can change a decision is a record in the log. Its numbers and fields are set in one
place, so that a log reads the same whoever wrote it.

Invariants:
1. Every record says who made it: source 4 the broker, 5 the operator, 6 the runtime.
2. Text that does not fit its field is refused here, never cut: two names that were cut to the same
   one would be the same order.
3. A Broker record names our order by its id, and repeats what was ordered.
4. A trading day of 0 becomes the session's when the record is taken.

The numbers are those of rust_core/src/record.rs. It pushes nothing. Operator's page:
`docs/formats.md`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from hft_platform import records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.order.broker import BrokerIds

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from hft_platform.config.promoted import PromotedConfig

SOURCE_BROKER, SOURCE_OPERATOR, SOURCE_RUNTIME = 4, 5, 6
"""`RecordHeader::source_id`."""
ID_BYTES_MAX, FILL_ID_BYTES_MAX, TAG_BYTES = 16, 32, 6
ALL_ALPHAS = 0xFFFF_FFFF
STAGES = {"research": 0, "shadow": 1, "canary": 2, "live": 3}
ADOPTED, ABANDONED = 1, 2
"""`argument` of a Route record of the kind RESOLVED."""
MARGIN, MARGIN_PER_LOT, POSITION = 1, 2, 4
"""Bits of an Account record's `fields`: what is an answer."""


class CommandKind(IntEnum):
    """What is asked of the engine."""

    HALT = 1
    RESUME_ARM = 2
    RESUME_CONFIRM = 3
    REDUCE_ONLY = 4
    FLATTEN = 5
    WITHDRAW = 6
    SET_WEIGHT = 7
    ADOPT_EXTERNAL = 8


class TimerKind(IntEnum):
    """Why time is told."""

    FEED_SILENT = 1
    PHASE = 2
    HEARTBEAT = 3


class HealthKind(IntEnum):
    """What was measured."""

    LOOP_LAG = 1
    ORDER_RTT = 2
    DRIFT = 3
    NORMALISER_FAILURES = 4


class BrokerKind(IntEnum):
    """What became of an order."""

    WORKING = 1
    REJECTED = 2
    FILL = 3
    CANCELED = 4
    CANCEL_REJECTED = 5
    EXPIRED = 6
    UNKNOWN = 7


class RouteKind(IntEnum):
    """Which name is told, and when."""

    SENT = 1
    IDS = 2
    FILL_ID = 3
    EXTERNAL = 4
    RESOLVED = 5


def broker_record(
    kind: BrokerKind,
    *,
    order_id: int,
    instrument_id: int,
    receive_time_ns: int,
    side: int,
    price: int,
    qty: int,
    exchange_time_ns: int = 0,
    remaining_qty: int = 0,
    code: int = ReasonCode.UNSET,
    broker_seq: int = 0,
    is_maker: bool = False,
    trading_day: int = 0,
    source_id: int = SOURCE_BROKER,
) -> bytes:
    """What became of one of our orders."""
    row = _row("Broker", receive_time_ns, source_id, instrument_id)
    row["exchange_time_ns"] = exchange_time_ns or receive_time_ns
    row["trading_day"] = trading_day
    row["event_kind"], row["reason_code"] = int(kind), int(code)
    row["order_id"], row["side"], row["price"], row["qty"] = order_id, side, price, qty
    row["remaining_qty"], row["broker_seq"] = remaining_qty, broker_seq
    row["is_maker"] = int(is_maker)
    return row.tobytes()


def route_record(
    kind: RouteKind,
    *,
    order_id: int,
    receive_time_ns: int,
    epoch: int = 0,
    argument: int = 0,
    instrument_id: int = 0,
    tag: str = "",
    ids: BrokerIds | None = None,
    fill_id: str = "",
    trading_day: int = 0,
) -> bytes:
    """By which names the broker knows an order or a fill of ours.

    Raises
    ------
    PlatformError
        BROKER_ANSWER_UNREADABLE for a name that is no ASCII or too long for its field.
    """
    ids = ids or BrokerIds()
    row = _row("Route", receive_time_ns, SOURCE_RUNTIME, instrument_id)
    row["trading_day"] = trading_day
    row["route_kind"], row["epoch"], row["order_id"] = int(kind), epoch, order_id
    row["argument"] = argument
    row["tag"] = stored(tag, 8)
    row["broker_id"] = stored(ids.broker_id, ID_BYTES_MAX)
    row["seqno"] = stored(ids.seqno, ID_BYTES_MAX)
    row["ordno"] = stored(ids.ordno, ID_BYTES_MAX)
    row["fill_id"] = stored(fill_id, FILL_ID_BYTES_MAX)
    return row.tobytes()


def command_record(
    kind: CommandKind,
    receive_time_ns: int,
    *,
    source_id: int,
    instrument_id: int = 0,
    alpha_index: int = ALL_ALPHAS,
    argument: int = 0,
    reason_code: int = ReasonCode.UNSET,
) -> bytes:
    """What an operator, the signer or the runtime asks of the engine."""
    row = _row("Command", receive_time_ns, source_id, instrument_id)
    row["command_kind"], row["alpha_index"] = int(kind), alpha_index
    row["argument"], row["reason_code"] = argument, int(reason_code)
    return row.tobytes()


def timer_record(kind: TimerKind, receive_time_ns: int, *, argument: int = 0) -> bytes:
    """Time passing."""
    row = _row("Timer", receive_time_ns, SOURCE_RUNTIME)
    row["timer_kind"], row["argument"] = int(kind), argument
    return row.tobytes()


def health_record(
    kind: HealthKind, value: int, receive_time_ns: int, *, argument: int = 0, instrument_id: int = 0
) -> bytes:
    """What the runtime measured."""
    row = _row("Health", receive_time_ns, SOURCE_RUNTIME, instrument_id)
    row["health_kind"], row["value"], row["argument"] = int(kind), value, argument
    return row.tobytes()


def account_record(
    receive_time_ns: int,
    answer_time_ns: int,
    instrument_id: int,
    *,
    money: tuple[int, int] | None = None,
    margin_per_lot: int | None = None,
    position: int | None = None,
) -> bytes:
    """The broker's answer about the account; what is None was not answered, which is not 0.

    `money` is equity and free margin, scaled like the rest.
    """
    row = _row("Account", receive_time_ns, SOURCE_BROKER, instrument_id)
    row["answer_time_ns"] = answer_time_ns
    fields = 0
    if money is not None:
        fields |= MARGIN
        row["equity"], row["free_margin"] = money
    if margin_per_lot is not None:
        fields |= MARGIN_PER_LOT
        row["margin_per_lot"] = margin_per_lot
    if position is not None:
        fields |= POSITION
        row["net_position_qty"] = position
    row["fields"] = fields
    return row.tobytes()


def switch_record(
    config: PromotedConfig, receive_time_ns: int, *, instrument_id: int, alpha_index: int = 0
) -> bytes:
    """A verified config takes effect."""
    row = _row("ConfigSwitch", receive_time_ns, SOURCE_OPERATOR, instrument_id)
    row["alpha_index"], row["stage"] = alpha_index, STAGES[config.stage]
    row["weight_ppm"], row["promotion_seq"] = config.weight_ppm, config.promotion_seq
    row["expires_ns"] = config.expires_ns
    row["config_sha256"] = bytes.fromhex(config.content_sha256)
    return row.tobytes()


def halt_record(code: int, receive_time_ns: int) -> bytes:
    """The runtime halts trading, and says why."""
    return command_record(
        CommandKind.HALT, receive_time_ns, source_id=SOURCE_RUNTIME, reason_code=code
    )


def _row(
    name: str, receive_time_ns: int, source_id: int, instrument_id: int = 0
) -> npt.NDArray[np.void]:
    row = records.empty(name, 1)
    row["instrument_id"], row["source_id"] = instrument_id, source_id
    row["receive_time_ns"] = row["exchange_time_ns"] = receive_time_ns
    return row


def stored(text: str, bytes_max: int) -> bytes:
    """A name as its field holds it.

    Raises
    ------
    PlatformError
        BROKER_ANSWER_UNREADABLE when it does not fit.
    """
    if not is_storable(text, bytes_max):
        raise PlatformError(
            ReasonCode.BROKER_ANSWER_UNREADABLE,
            f"the name {text[:64]!r} is no printable ASCII of at most {bytes_max} characters",
        )
    return text.encode("ascii")


def is_storable(text: str, bytes_max: int) -> bool:
    """Whether a name fits a field of so many bytes."""
    return len(text) <= bytes_max and text.isascii() and (not text or text.isprintable())
