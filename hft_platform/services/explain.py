"""Explain: for any order, the chain that caused it, read from the session's logs alone.

Market record → features → signal and its terms → strategy → checks → intent → requests → fills.

Why: "why did it do that" must have an answer that needs no process, no store and no memory.

Invariants:
1. Features and terms come from the same incremental code that the engine ran, over the same inputs.
2. Strategy state and checks come from a replay; where it differs from the log, that is said.
3. Nothing is looked up outside the session's folder.

It judges nothing. Operator's page: `docs/runbook.md`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hft_platform import _core, records
from hft_platform.config.canonical import canonical_json, finite
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.kernels import kernels_of
from hft_platform.recorder import session_recovery
from hft_platform.services.core_calls import typed_errors
from hft_platform.services.decision_trace import (
    CANCEL,
    PLACE,
    DecisionTrace,
    check_numbers,
    trace_decisions,
)
from hft_platform.services.explain_text import number, side_name, units, utc
from hft_platform.services.parity import SessionLogs, engine_config_of, read_session

EVENT_NAMES = {
    1: "working",
    2: "rejected",
    3: "fill",
    4: "canceled",
    5: "cancel_rejected",
    6: "expired",
    7: "unknown",
}
INTENT_REASONS = {
    1: "entry",
    2: "exit",
    3: "quote",
    4: "requote",
    5: "flatten",
    6: "halt_cancel",
    7: "clear_exit",
}
ACTIONS = {1: "place", 2: "cancel", 16: "storm_change", 17: "policy_change", 18: "loss_latch"}
COMMANDS = {
    1: "halt",
    2: "resume_arm",
    3: "resume_confirm",
    4: "reduce_only",
    5: "flatten",
    6: "withdraw",
    7: "set_weight",
    8: "adopt_external",
}
HEALTH_NAMES = {1: "loop lag ns", 2: "order round trip ns", 3: "drift", 4: "unreadable payloads"}


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything the logs hold about one order, or about an intent that no order came of."""

    order_id: int
    intent_id: int
    alpha_id: str
    symbol: str
    cause: dict[str, Any]
    features: dict[str, float | None]
    terms: list[dict[str, Any]]
    expression: str
    template: dict[str, Any]
    decisions: list[dict[str, Any]]
    traces: list[DecisionTrace]
    """One a decision: strategy state and checks, by a replay."""
    causes: list[dict[str, Any]]
    """One a decision: the input that caused it."""
    broker_events: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        content = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return content | {"traces": [trace.as_dict() for trace in self.traces]}

    def render(self, *, all_checks: bool = False) -> str:
        """The chain as text, top down; the checks that refused, or all of them."""
        what = f"order {self.order_id}" if self.order_id else f"refused intent {self.intent_id}"
        lines = [
            f"{what} of {self.alpha_id} on {self.symbol}",
            f"  market    {_cause_text(self.cause)}",
            "  features  " + ", ".join(f"{k}={number(v)}" for k, v in self.features.items()),
            f"  signal    {self.expression} = {number(self.decisions[0]['signal'])} ticks",
        ]
        # A signal of one term is that term.
        if len(self.terms) > 1:
            lines.extend(
                f"  term      {row['text']} = {number(row['value'])}" for row in self.terms
            )
        for row, trace, cause in zip(self.decisions, self.traces, self.causes, strict=True):
            lines.append(f"  decision  {_decision_text(row, trace)}")
            if cause["input_seq"] != self.cause["input_seq"]:
                lines.append(f"    because   {_cause_text(cause)}")
            lines.extend(trace.render(row, self.template, all_checks=all_checks))
        lines.extend(
            f"  broker    {row['event']} {units(row['qty'])} at {units(row['price'])},"
            f" {units(row['remaining_qty'])} left, {utc(row['exchange_time_ns'])}"
            for row in self.broker_events
        )
        return "\n".join(lines)


def _cause_text(cause: dict[str, Any]) -> str:
    text = f"{cause['kind']} {cause['input_seq']} at {utc(cause['exchange_time_ns'])}"
    return f"{text} {cause['summary']}".rstrip()


def _decision_text(row: dict[str, Any], trace: DecisionTrace) -> str:
    text = f"{row['action']} ({row['intent_reason']}) {row['verdict']}"
    if row["verdict"] == "refused":
        check = trace.refusing()
        name = check["name"] if check and check["code"] == row["reason"] else ""
        numbers = check_numbers(name, row["reason"], row["observed"], row["limit"])
        text += f" {row['reason']}" + (f" ({numbers})" if numbers else "") + ","
    return (
        f"{text} {side_name(row['side'])} {units(row['qty'])} at {units(row['price'])},"
        f" position {units(row['position_qty'])}, intent {row['intent_id']}"
    )


def explain_order(session_dir: Path, order_id: int) -> Explanation:
    """Explain one order of a recorded session, or an intent by its id, refused ones included.

    Raises
    ------
    PlatformError
        ORDER_UNKNOWN when no decision of the session names the order or intent, SESSION_SHED when
        it was decided behind market records that the log lacks.
    """
    logs = read_session(session_dir)
    config = engine_config_of(session_dir)
    all_decisions = np.frombuffer(logs.decisions, dtype=records.DTYPES["Decision"])
    intents = all_decisions[np.isin(all_decisions["action"], (PLACE, CANCEL))]
    mine = intents[(intents["order_id"] == order_id) & (intents["order_id"] != 0)]
    if mine.size == 0:
        mine = intents[(intents["intent_id"] == order_id) & (intents["intent_id"] != 0)]
        order_id = order_id if mine.size == 0 else int(mine["order_id"].max())
    if mine.size == 0:
        ids = sorted({int(i) for i in all_decisions["order_id"] if i})
        shown = ", ".join(str(i) for i in ids[:5]) + (", ..." if len(ids) > 5 else "")
        _require_no_lost_cause(logs, order_id, session_dir)
        raise PlatformError(
            ReasonCode.ORDER_UNKNOWN,
            f"session {session_dir.name} has no order {order_id}; it has {len(ids)}"
            + (f": {shown}" if ids else ""),
            next_step=f"hft-live explain --session {session_dir.name}",
        )
    _require_replayable(logs, mine, session_dir.name)
    first = mine[0]
    alpha = config["alphas"][int(first["alpha_index"])]
    parts = records.split(logs.inputs)
    broker = parts["Broker"]
    instrument = next(
        row for row in config["instruments"] if row["instrument_id"] == alpha["instrument_id"]
    )
    inputs, _ = logs.life_of(int(first["input_seq"]))
    parts_of_signal = _signal_terms(inputs, config, first)
    causes = [_cause(parts, int(row["input_seq"])) for row in mine]
    return Explanation(
        order_id=order_id,
        intent_id=int(first["intent_id"]),
        alpha_id=alpha["alpha_id"],
        symbol=instrument["symbol"],
        cause=causes[0],
        features={name: finite(value) for name, value in parts_of_signal["features"].items()},
        terms=[{"text": text, "value": finite(value)} for text, value in parts_of_signal["terms"]],
        expression=_signal_name(alpha),
        template=alpha["template"],
        decisions=[_decision_row(row) for row in mine],
        traces=_traces(logs, config, mine),
        causes=causes,
        broker_events=[
            _broker_row(row) for row in broker[broker["order_id"] == order_id] if order_id
        ],
    )


def _traces(
    logs: SessionLogs,
    config: dict[str, Any],
    mine: Any,  # Any: decisions
) -> list[DecisionTrace]:
    """Traces in order; decisions of different processes are told from their own replays."""
    found: list[DecisionTrace] = []
    for row_index in range(mine.size):
        row = mine[row_index : row_index + 1]
        inputs, order_log = logs.life_of(int(row["input_seq"][0]))
        if not logs.lives:
            return trace_decisions(inputs, config, mine)
        found += trace_decisions(inputs, config, row, order_log=order_log)
    return found


def _require_replayable(logs: SessionLogs, mine: Any, name: str) -> None:  # Any: decisions
    """Refuse to tell why of a decision that depends on records which the log lacks."""
    holes = [one.first_seq for one in logs.shed]
    if holes and int(mine["input_seq"].max()) > min(holes):
        raise PlatformError(
            ReasonCode.SESSION_SHED,
            f"session {name}: input {min(holes)} and others are not in the log, so what was decided"
            " behind it cannot be decided again",
            next_step="hft-live replay lists the ranges; orders before the first can be explained",
        )


def _require_no_lost_cause(logs: SessionLogs, order_id: int, session_dir: Path) -> None:
    """Say of an order that is there, but was decided on lost records, that this is so."""
    if logs.extent is None:
        return
    past = logs.extent.not_replayable
    mine = past[(past["order_id"] == order_id) | (past["intent_id"] == order_id)]
    if mine.size and order_id:
        raise PlatformError(
            ReasonCode.LOG_SEQUENCE_GAP,
            f"order {order_id} was decided at input {int(mine[0]['input_seq'])}; the logs of"
            f" {session_dir.name} are whole up to input {logs.extent.ends_at_input_seq} only",
            next_step=f"see it in {session_dir.name}/{session_recovery.FILE_NAME}, and ask the"
            " broker what became of it",
        )


def list_orders(session_dir: Path) -> list[dict[str, Any]]:
    """One row for each placed order of a session."""
    logs = read_session(session_dir)
    rows = np.frombuffer(logs.decisions, dtype=records.DTYPES["Decision"])
    placed = rows[(rows["action"] == 1) & (rows["verdict"] == 1)]
    return [_decision_row(row) for row in placed]


def list_refusals(session_dir: Path) -> list[dict[str, Any]]:
    """One row for each refused intent that a session wrote out."""
    logs = read_session(session_dir)
    rows = np.frombuffer(logs.decisions, dtype=records.DTYPES["Decision"])
    refused = rows[(rows["action"] == 1) & (rows["verdict"] == 2)]
    return [_decision_row(row) for row in refused]


def _cause(parts: dict[str, Any], input_seq: int) -> dict[str, Any]:
    for kind, rows in parts.items():
        hit = rows[rows["input_seq"] == input_seq]
        if hit.size:
            row = hit[0]
            return {
                "kind": kind,
                "input_seq": input_seq,
                "source_seq": int(row["source_seq"]),
                "exchange_time_ns": int(row["exchange_time_ns"]),
                "receive_time_ns": int(row["receive_time_ns"]),
                "summary": _summary(kind, row),
            }
    raise PlatformError(
        ReasonCode.LOG_SEQUENCE_GAP, f"the logs hold no input {input_seq}, which a decision names"
    )


def _summary(kind: str, row: np.void) -> str:
    if kind == "Book":
        return (
            f"bid {units(int(row['bid_price'][0]))} x {units(int(row['bid_qty'][0]))},"
            f" ask {units(int(row['ask_price'][0]))} x {units(int(row['ask_qty'][0]))}"
        )
    if kind == "Trade":
        side = side_name(int(row["aggressor_side"]))
        return f"{side} {units(int(row['qty']))} at {units(int(row['price']))}"
    if kind == "Broker":
        event = EVENT_NAMES.get(int(row["event_kind"]), "unknown")
        return (
            f"{event} of order {row['order_id']}:"
            f" {units(int(row['qty']))} at {units(int(row['price']))}"
        )
    if kind == "Intent":
        return (
            f"of a Python strategy: {side_name(int(row['side']))} {units(int(row['qty']))}"
            f" at {units(int(row['price']))} because of input {row['cause_seq']}"
        )
    if kind == "Command":
        code = int(row["reason_code"])
        kind = COMMANDS.get(int(row["command_kind"]), "unknown")
        return f"{kind} because of {code_name(code)} ({code})"
    if kind == "Health":
        return f"{HEALTH_NAMES.get(int(row['health_kind']), 'unknown')} {row['value']}"
    if kind == "Epoch":
        return f"process {row['process_id']} took the session over under epoch {row['epoch']}"
    return ""


def _signal_terms(inputs: bytes, config: dict[str, Any], decision: np.void) -> dict[str, Any]:
    """Features and terms behind a decision, from the same compiled program over the same inputs.

    They are those of the last market record up to the cause: a timer or a fill decides on the
    signal that stands. A kernel has no terms, and an alpha outside the engine has no features.
    """
    if not config["alphas"][int(decision["alpha_index"])].get("expression"):
        return {"features": _features(inputs, config, decision), "terms": [], "value": math.nan}
    with typed_errors("signal"):
        parts = _core.signal_terms(
            inputs,
            canonical_json(config).decode(),
            int(decision["alpha_index"]),
            int(decision["input_seq"]),
        )
    return parts or {"features": {}, "terms": [], "value": math.nan}


def _features(inputs: bytes, config: dict[str, Any], decision: np.void) -> dict[str, float]:
    """Feature values at the cause, from the same incremental code the engine ran."""
    alpha_index = int(decision["alpha_index"])
    alpha = config["alphas"][alpha_index]
    before = _records_up_to(inputs, int(decision["input_seq"]))
    kernels = kernels_of(config)
    with typed_errors("features"):
        names, values, _ = _core.evaluate_features(
            before, canonical_json(config).decode(), alpha_index, kernels
        )
        read = _features_read(alpha)
    matrix = np.frombuffer(values, dtype="<f8").reshape(-1, len(names))
    if matrix.shape[0] == 0:
        return {}
    last = dict(zip(names, matrix[-1].tolist(), strict=True))
    return {name: last[name] for name in read}


def _signal_name(alpha: dict[str, Any]) -> str:
    if "kernel" in alpha:
        return f"kernel {alpha['kernel']['id']}"
    return str(alpha.get("expression") or "the strategy's own value")


def _features_read(alpha: dict[str, Any]) -> list[str]:
    if alpha["template"]["kind"] in {"external", "remote"}:
        return []
    if "kernel" in alpha:
        return list(alpha["kernel"]["features"])
    checked = _core.check_expression(alpha["expression"], list(alpha["parameters"]))
    return list(checked["features"])


def _records_up_to(inputs: bytes, input_seq: int) -> bytes:
    """The inputs up to and including one; they are in the order of their sequence."""
    offset = 0
    while offset < len(inputs):
        if int.from_bytes(inputs[offset + 8 : offset + 16], "little") > input_seq:
            break
        offset += int.from_bytes(inputs[offset : offset + 2], "little")
    return inputs[:offset]


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
        "signal": finite(float(row["signal"])),
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
