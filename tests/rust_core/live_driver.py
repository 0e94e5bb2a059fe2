"""Drives a live session in tests: a tape record by record, and a broker that answers at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hft_platform import _core, records

PLACE, CANCEL = 1, 2
WORKING, REJECTED, FILL, CANCELED, CANCEL_REJECTED, EXPIRED, UNKNOWN = range(1, 8)
SENT, FILL_ID = 1, 3
REST_OF_DAY = 1


def open_live(
    folder: Path, config: dict[str, Any], *, epoch: int = 1, **options: Any
) -> _core.LiveSession:
    """A live session in a folder, which gets the config that a replay needs."""
    (folder / "engine.json").write_text(json.dumps(config))
    given = {"wal_id": 77, "epoch": epoch, "durable": "group"} | options
    return _core.LiveSession(json.dumps(config), str(folder), json.dumps(given))


def records_of(tape: bytes) -> Iterator[tuple[int, bytes]]:
    """Receive time and bytes of every record of a tape."""
    offset = 0
    while offset < len(tape):
        size = int.from_bytes(tape[offset : offset + 2], "little")
        yield (
            int.from_bytes(tape[offset + 32 : offset + 40], "little"),
            tape[offset : offset + size],
        )
        offset += size


def broker_event(request: _core.OrderRequest, kind: int, now_ns: int, **fields: int) -> bytes:
    """One Broker record about a request's order."""
    row = records.empty("Broker", 1)
    row["instrument_id"], row["receive_time_ns"], row["source_id"] = (
        request.instrument_id, now_ns, 4,
    )  # fmt: skip
    row["event_kind"], row["order_id"], row["side"] = kind, request.order_id, request.side
    row["price"], row["qty"], row["remaining_qty"] = request.price, request.qty, request.qty
    for name, value in fields.items():
        row[name] = value
    return bytes(row.tobytes())


def route(request: _core.OrderRequest, kind: int, now_ns: int, **fields: Any) -> bytes:
    """One Route record of a request's order."""
    row = records.empty("Route", 1)
    row["receive_time_ns"], row["source_id"] = now_ns, 4
    row["route_kind"], row["epoch"], row["order_id"] = kind, request.epoch, request.order_id
    row["tag"] = request.tag.encode()
    for name, value in fields.items():
        row[name] = value
    return bytes(row.tobytes())


@dataclass
class Broker:
    """Fills what crosses at once at its limit, lets the rest work, cancels what it is asked to."""

    broker_seq: int = 0
    requests: list[_core.OrderRequest] = field(default_factory=list)

    def answer(self, request: _core.OrderRequest, now_ns: int) -> bytes:
        """Records that follow from one request."""
        self.requests.append(request)
        if request.action == CANCEL:
            return broker_event(request, CANCELED, now_ns, remaining_qty=0)
        name = f"B{request.decision_seq:07d}".encode()
        sent = route(request, SENT, now_ns, broker_id=name)
        if request.time_in_force == REST_OF_DAY and self.broker_seq % 3 == 0:
            self.broker_seq += 1
            return sent + broker_event(request, WORKING, now_ns)
        self.broker_seq += 1
        filled = broker_event(request, FILL, now_ns, remaining_qty=0, broker_seq=self.broker_seq)
        fill = route(request, FILL_ID, now_ns, argument=self.broker_seq, fill_id=b"F" + name)
        return sent + fill + filled


def drive(session: _core.LiveSession, tape: bytes, broker: Broker) -> None:
    """Push a tape record by record, and answer every request before the next record."""
    for now_ns, record in records_of(tape):
        session.push(record)
        while (request := session.next_request(0)) is not None:
            session.push(broker.answer(request, now_ns))


def tapes(folder: Path) -> tuple[bytes, bytes]:
    """Market log and order log."""
    market, orders = (_core.read_log(str(folder / kind))["tape"] for kind in ("market", "orders"))
    return market, orders


def decisions_of(tape: bytes) -> np.ndarray:
    """Decision records of a tape."""
    return records.split(tape)["Decision"]
