"""The drill broker's words on a socket: one JSON object a line, and back to the protocol's facts.

Why: what crosses the process boundary is exactly what `order/broker.py` names, no more.

Invariants:
1. `read_x(write_x(value)) == value` for every fact that crosses.
2. What cannot be read is an error (BROKER_ANSWER_UNREADABLE), never a default.

It opens no connection. Operator's page: `docs/drills/gateway-chaos.md`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, TypeVar

from hft_platform.drills.broker_book import Report
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.order.broker import (
    BrokerIds,
    BrokerOrder,
    BrokerPosition,
    CallResult,
    EventKind,
    FillEvent,
    OrderEvent,
    OrderStatus,
    OrderTicket,
    Outcome,
    PriceType,
    TimeInForce,
)

LINE_BYTES_MAX = 1 << 20
_Fact = TypeVar("_Fact")


def line(content: dict[str, Any]) -> bytes:
    """One message as it goes over the socket."""
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def message(text: bytes) -> dict[str, Any]:
    """One message as it came.

    Raises
    ------
    PlatformError
        BROKER_ANSWER_UNREADABLE when it is no JSON object.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise _unreadable(str(error)) from error
    if not isinstance(content, dict):
        raise _unreadable(f"a {type(content).__name__}")
    return content


def write(value: Any) -> dict[str, Any]:  # Any: one of the frozen facts of the protocol
    """A fact as JSON values."""
    return asdict(value)


def read_ticket(content: dict[str, Any]) -> OrderTicket:
    """Read an order to place."""
    return _read(
        OrderTicket,
        content,
        time_in_force=TimeInForce(content["time_in_force"]),
        price_type=PriceType(content["price_type"]),
    )


def read_ids(content: dict[str, Any]) -> BrokerIds:
    """Read what the broker calls an order."""
    return _read(BrokerIds, content)


def read_result(content: dict[str, Any]) -> CallResult:
    """Read what a call came to."""
    return _read(
        CallResult,
        content,
        outcome=Outcome(content["outcome"]),
        ids=read_ids(content["ids"]),
    )


def write_report(report: Report) -> dict[str, Any]:
    """Write an event or an execution, told apart by ``what``."""
    return {"what": "fill" if isinstance(report, FillEvent) else "order", **asdict(report)}


def read_report(content: dict[str, Any]) -> Report:
    """Read an event or an execution."""
    facts = {name: value for name, value in content.items() if name != "what"}
    facts["ids"] = read_ids(facts["ids"])
    if content["what"] == "fill":
        return FillEvent(**facts)
    return OrderEvent(**facts | {"kind": EventKind(facts["kind"])})


def read_order(content: dict[str, Any]) -> BrokerOrder:
    """Read an order with its executions."""
    fills = tuple(FillEvent(**fill | {"ids": read_ids(fill["ids"])}) for fill in content["fills"])
    return _read(
        BrokerOrder,
        content,
        ids=read_ids(content["ids"]),
        status=OrderStatus(content["status"]),
        fills=fills,
    )


def read_position(content: dict[str, Any]) -> BrokerPosition:
    """Read a net position."""
    return _read(BrokerPosition, content)


def _read(kind: type[_Fact], content: dict[str, Any], **changed: Any) -> _Fact:
    try:
        return kind(**content | changed)
    except (TypeError, ValueError, KeyError) as error:
        raise _unreadable(f"{kind.__name__}: {error}") from error


def _unreadable(what: str) -> PlatformError:
    return PlatformError(
        ReasonCode.BROKER_ANSWER_UNREADABLE, f"the drill's broker said {what:.200}"
    )
