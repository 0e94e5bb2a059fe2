"""Records that carry an order's fate into the session: what the broker said, and under which names.

Why: adapter, gateway and reconciliation write the same two records; their fields are set in one
place, so that a log reads the same whoever wrote it.

Invariants:
1. Text that does not fit its field is refused here, never cut: two names that were cut to the same
   one would be the same order.
2. A Broker record names our order by its id, and repeats what was ordered.

It pushes nothing. Operator's page: `docs/execution.md`.
"""

from __future__ import annotations

from enum import IntEnum

from hft_platform import records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.order.broker import BrokerIds

SOURCE_BROKER, SOURCE_RUNTIME = 4, 6
"""`RecordHeader::source_id` in rust_core/src/record.rs."""
ID_BYTES_MAX, FILL_ID_BYTES_MAX, TAG_BYTES = 16, 32, 6
ALL_ALPHAS = 0xFFFF_FFFF
_HALT = 1


class BrokerKind(IntEnum):
    """`BrokerEventKind` in rust_core/src/record.rs."""

    WORKING = 1
    REJECTED = 2
    FILL = 3
    CANCELED = 4
    CANCEL_REJECTED = 5
    EXPIRED = 6
    UNKNOWN = 7


class RouteKind(IntEnum):
    """`RouteKind` in rust_core/src/record.rs."""

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
    row = records.empty("Broker", 1)
    row["instrument_id"], row["source_id"] = instrument_id, source_id
    row["receive_time_ns"] = receive_time_ns
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
    row = records.empty("Route", 1)
    row["instrument_id"], row["source_id"] = instrument_id, SOURCE_RUNTIME
    row["receive_time_ns"] = row["exchange_time_ns"] = receive_time_ns
    row["trading_day"] = trading_day
    row["route_kind"], row["epoch"], row["order_id"] = int(kind), epoch, order_id
    row["argument"] = argument
    row["tag"] = stored(tag, 8)
    row["broker_id"] = stored(ids.broker_id, ID_BYTES_MAX)
    row["seqno"] = stored(ids.seqno, ID_BYTES_MAX)
    row["ordno"] = stored(ids.ordno, ID_BYTES_MAX)
    row["fill_id"] = stored(fill_id, FILL_ID_BYTES_MAX)
    return row.tobytes()


def halt_record(code: int, receive_time_ns: int) -> bytes:
    """The runtime halts trading, and says why."""
    row = records.empty("Command", 1)
    row["receive_time_ns"] = row["exchange_time_ns"] = receive_time_ns
    row["source_id"], row["command_kind"] = SOURCE_RUNTIME, _HALT
    row["alpha_index"], row["reason_code"] = ALL_ALPHAS, int(code)
    return row.tobytes()


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
