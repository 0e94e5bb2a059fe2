"""Explain: for any order, the chain that caused it, read from the session's logs alone.

Market record → features → signal → strategy → checks → intent → requests → fills.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hft_platform import _core, records
from hft_platform.config.canonical import canonical_json
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.services.parity import read_session

EVENT_NAMES = {
    1: "working", 2: "rejected", 3: "fill", 4: "canceled", 5: "cancel_rejected", 6: "expired",
    7: "unknown",
}
INTENT_REASONS = {1: "entry", 2: "exit", 3: "quote", 4: "requote", 5: "flatten", 6: "halt_cancel"}
ACTIONS = {1: "place", 2: "cancel"}


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything the logs hold about one order."""

    order_id: int
    alpha_id: str
    symbol: str
    cause: dict[str, Any]
    features: dict[str, float]
    expression: str
    decisions: list[dict[str, Any]]
    broker_events: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def render(self) -> str:
        """The chain as text, top down."""
        lines = [
            f"order {self.order_id} of {self.alpha_id} on {self.symbol}",
            f"  market    {self.cause['kind']} input_seq {self.cause['input_seq']}"
            f" exchange {self.cause['exchange_time_ns']} {self.cause['summary']}",
            "  features  " + ", ".join(f"{k}={v:.4g}" for k, v in self.features.items()),
            f"  signal    {self.expression} = {self.decisions[0]['signal']:.6g} ticks",
        ]
        for row in self.decisions:
            text = f"  decision  {row['action']} ({row['intent_reason']}) {row['verdict']}"
            if row["verdict"] == "refused":
                text += f" {row['reason']}: was {row['observed']}, limit {row['limit']}"
            lines.append(
                f"{text} side {row['side']:+d} qty {row['qty']} price {row['price']}"
                f" position {row['position_qty']} intent {row['intent_id']}"
            )
        lines.extend(
            f"  broker    {row['event']} qty {row['qty']} price {row['price']}"
            f" remaining {row['remaining_qty']} exchange {row['exchange_time_ns']}"
            for row in self.broker_events
        )
        return "\n".join(lines)


def explain_order(session_dir: Path, order_id: int) -> Explanation:
    """Explain one order of a recorded session.

    Raises
    ------
    PlatformError
        ORDER_UNKNOWN when no decision of the session names the order.
    """
    logs = read_session(session_dir)
    config = json.loads((session_dir / "engine.json").read_bytes())
    all_decisions = np.frombuffer(logs.decisions, dtype=records.DTYPES["Decision"])
    mine = all_decisions[all_decisions["order_id"] == order_id]
    if mine.size == 0:
        ids = sorted({int(i) for i in all_decisions["order_id"] if i})
        shown = ", ".join(str(i) for i in ids[:5])
        raise PlatformError(
            ReasonCode.ORDER_UNKNOWN,
            f"session {session_dir.name} has no order {order_id}; it has {len(ids)}: {shown} ...",
            next_step=f"hft-live explain --session {session_dir.name} --list",
        )
    first = mine[0]
    alpha = config["alphas"][int(first["alpha_index"])]
    parts = records.split(logs.inputs)
    broker = parts["Broker"]
    instrument = next(
        row for row in config["instruments"] if row["instrument_id"] == alpha["instrument_id"]
    )
    return Explanation(
        order_id=order_id,
        alpha_id=alpha["alpha_id"],
        symbol=instrument["symbol"],
        cause=_cause(parts, int(first["input_seq"])),
        features=_features(logs.inputs, config, first),
        expression=alpha["expression"],
        decisions=[_decision_row(row) for row in mine],
        broker_events=[_broker_row(row) for row in broker[broker["order_id"] == order_id]],
    )


def list_orders(session_dir: Path) -> list[dict[str, Any]]:
    """One row for each placed order of a session."""
    logs = read_session(session_dir)
    rows = np.frombuffer(logs.decisions, dtype=records.DTYPES["Decision"])
    placed = rows[(rows["action"] == 1) & (rows["verdict"] == 1)]
    return [_decision_row(row) for row in placed]


def _cause(parts: dict[str, Any], input_seq: int) -> dict[str, Any]:
    for kind, rows in parts.items():
        hit = rows[rows["input_seq"] == input_seq]
        if hit.size:
            row = hit[0]
            summary = ""
            if kind == "Book":
                summary = (
                    f"bid {row['bid_price'][0]} x {row['bid_qty'][0]},"
                    f" ask {row['ask_price'][0]} x {row['ask_qty'][0]}"
                )
            elif kind == "Trade":
                summary = f"{row['qty']} at {row['price']} side {row['aggressor_side']}"
            return {
                "kind": kind,
                "input_seq": input_seq,
                "source_seq": int(row["source_seq"]),
                "exchange_time_ns": int(row["exchange_time_ns"]),
                "receive_time_ns": int(row["receive_time_ns"]),
                "summary": summary,
            }
    return {
        "kind": "missing", "input_seq": input_seq, "source_seq": 0, "exchange_time_ns": 0,
        "receive_time_ns": 0, "summary": "",
    }


def _features(inputs: bytes, config: dict[str, Any], decision: np.void) -> dict[str, float]:
    """Feature values at the cause, from the same incremental code the engine ran."""
    before = b"".join(_records_up_to(inputs, int(decision["input_seq"])))
    names, data, times = _core.evaluate_features(
        before, canonical_json(config).decode(), int(decision["alpha_index"])
    )
    matrix = np.frombuffer(data, dtype="<f8").reshape(-1, len(names))
    if matrix.shape[0] == 0 or len(times) == 0:
        return {}
    wanted = config["alphas"][int(decision["alpha_index"])]["expression"]
    return {
        name: float(value) for name, value in zip(names, matrix[-1], strict=True) if name in wanted
    }


def _records_up_to(inputs: bytes, input_seq: int) -> list[bytes]:
    out, offset = [], 0
    while offset < len(inputs):
        size = int.from_bytes(inputs[offset : offset + 2], "little")
        if int.from_bytes(inputs[offset + 8 : offset + 16], "little") > input_seq:
            break
        out.append(inputs[offset : offset + size])
        offset += size
    return out


def _decision_row(row: np.void) -> dict[str, Any]:
    code = int(row["reason_code"])
    return {
        "decision_seq": int(row["decision_seq"]),
        "input_seq": int(row["input_seq"]),
        "sequence_time_ns": int(row["sequence_time_ns"]),
        "intent_id": int(row["intent_id"]),
        "order_id": int(row["order_id"]),
        "action": ACTIONS.get(int(row["action"]), "none"),
        "intent_reason": INTENT_REASONS.get(int(row["intent_reason"]), "none"),
        "verdict": "approved" if int(row["verdict"]) == 1 else "refused",
        "reason": code_name(code) if code else "",
        "observed": int(row["observed"]),
        "limit": int(row["limit"]),
        "side": int(row["side"]),
        "price": int(row["price"]),
        "qty": int(row["qty"]),
        "signal": float(row["signal"]),
        "position_qty": int(row["position_qty"]),
    }


def _broker_row(row: np.void) -> dict[str, Any]:
    return {
        "input_seq": int(row["input_seq"]),
        "event": EVENT_NAMES.get(int(row["event_kind"]), "unknown"),
        "qty": int(row["qty"]),
        "price": int(row["price"]),
        "remaining_qty": int(row["remaining_qty"]),
        "exchange_time_ns": int(row["exchange_time_ns"]),
        "receive_time_ns": int(row["receive_time_ns"]),
    }
