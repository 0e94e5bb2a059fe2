"""Decision trace: the state a strategy wished in, and what every check said to the wish.

Why: the log holds what was decided and the one check that refused. The engine is deterministic, so
a replay of the session's inputs tells the rest, and the live engine writes and computes no more.

Invariants:
1. A trace is the replay's; where replay and log differ about the decision it says so.
2. Checks are in their order of precedence, and all of them are there.

It judges nothing. Operator's page: `docs/live.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hft_platform import _core, records
from hft_platform.config.canonical import canonical_json, finite
from hft_platform.errors import code_name
from hft_platform.kernels import kernels_of
from hft_platform.services.core_calls import typed_errors
from hft_platform.services.explain_text import number, seconds, side_name, units, utc

PLACE, CANCEL = 1, 2
NEAR_LIMIT = 0.8
"""A passed check at this share of its limit is worth a word."""
LEVELS = ("clear", "warm", "storm", "halt")

_SCALED = frozenset(
    {
        *("reduce_only", "reconciliation", "tick_grid", "daily_limit", "order_qty"),
        *("exchange_qty", "position", "account_position", "gross_notional", "net_notional"),
        *("margin", "self_trade", "exit_way", "daily_loss", "drawdown", "loss_speed"),
        *("account_daily_loss", "account_drawdown", "account_loss_speed", "weight"),
    }
)
_DURATIONS = frozenset({"book", "clock_skew", "repeated_execution"})
_BPS = frozenset({"price_band", "price_collar", "exit_collar"})
_CODES = frozenset({"kill_switch", "storm_guard"})
_COUNTS = frozenset(
    {
        *("alpha_order_rate", "account_order_rate", "repeated_order", "order_to_trade"),
        *("reject_rate", "unknown_rate", "cancel_rate"),
    }
)
_AT_LEAST = frozenset({"weight", "margin"})
"""Checks whose limit is the least, so that being above it is no nearness."""
_CANCEL_WHY = {
    "halt_cancel": "a halt takes orders back",
    "clear_exit": "it stood in the way of an exit of ours",
}


@dataclass(frozen=True, slots=True)
class DecisionTrace:
    """What a replay tells about one decision of the log."""

    input_seq: int
    disagreement: str
    """Empty when the replayed decision is the logged one, bit for bit."""
    strategy: dict[str, Any] | None
    """None when the replay has no such intent."""
    is_reducing: bool
    checks: list[dict[str, Any]]
    storm: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def render(
        self, decision: dict[str, Any], template: dict[str, Any], *, all_checks: bool
    ) -> list[str]:
        """The state and the checks as lines, below the line of the decision."""
        lines = [f"    differs   {self.disagreement}"] if self.disagreement else []
        if self.strategy is None:
            return lines
        lines += [
            f"    mode      {_mode_text(self.strategy)}",
            f"    strategy  {_strategy_text(self.strategy)}",
            f"    wanted    {_wanted_text(template, self.strategy, decision)}",
        ]
        shown = [row for row in self.checks if all_checks or row["result"] == "refused"]
        lines += [f"    check     {_check_text(row)}" for row in shown]
        lines += [
            f"    checks    {self._count_text()}",
            f"    guard     {_storm_text(self.storm)}",
        ]
        return lines

    def refusing(self) -> dict[str, Any] | None:
        """The check that refused, if one did."""
        return next((row for row in self.checks if row["result"] == "refused"), None)

    def _count_text(self) -> str:
        results = [row["result"] for row in self.checks]
        text = f"{results.count('passed')} of {len(results)} passed"
        if others := results.count("not_for_this"):
            kind = "exit" if self.is_reducing else "opening order"
            text += f", {others} not for an {kind}"
        near = [f"{row['name']} {_numbers_text(row)}" for row in self.checks if _is_near_limit(row)]
        return text + (f"; near a limit: {', '.join(near)}" if near else "")


def trace_decisions(
    inputs: bytes,
    config: dict[str, Any],
    decisions: np.ndarray[Any, np.dtype[np.void]],
    *,
    order_log: bytes = b"",
) -> list[DecisionTrace]:
    """Decide a session's inputs again and tell about some of its decisions.

    Parameters
    ----------
    inputs : bytes
        All sequenced inputs of the session.
    config : dict
        Engine config to decide by.
    decisions : ndarray of the decision dtype
        Decisions of the log to tell about.
    order_log : bytes
        Order log of the processes before, from which the engine recovers first.

    Returns
    -------
    list of DecisionTrace
        One a decision, in the given order.
    """
    input_seqs = sorted({int(seq) for seq in decisions["input_seq"]})
    with typed_errors("replay"):
        intents = _core.explain_decisions(
            inputs,
            canonical_json(config).decode(),
            input_seqs,
            kernels_of(config),
            order_log=order_log,
        )
    by_seq: dict[int, list[dict[str, Any]]] = {seq: [] for seq in input_seqs}
    for intent in intents:
        by_seq[intent["input_seq"]].append(intent)
    return [_trace_of(row, by_seq[int(row["input_seq"])]) for row in decisions]


def _trace_of(row: np.void, intents: list[dict[str, Any]]) -> DecisionTrace:
    mine = [intent for intent in intents if _is_same(row, intent)]
    intent = next((it for it in mine if it["decision"] == row.tobytes()), mine[0] if mine else None)
    seq = int(row["input_seq"])
    if intent is None:
        text = f"replay and log disagree: the replay has no such intent at input {seq}"
        return DecisionTrace(seq, f"{text}; parity is broken", None, False, [], {})
    strategy = intent["strategy"] | {
        "signal": finite(intent["strategy"]["signal"]),
        "book_fault": _name(intent["strategy"]["book_fault"]),
        "causes": [_named(cause) for cause in intent["strategy"]["causes"]],
    }
    checks = [
        _named(check) | {"codes": [code_name(code) for code in check["codes"]]}
        for check in intent["checks"]
    ]
    return DecisionTrace(
        input_seq=seq,
        disagreement=_disagreement(row, intent["decision"]),
        strategy=strategy,
        is_reducing=intent["is_reducing"],
        checks=checks,
        storm=_storm(intent["storm"]),
    )


def _is_same(row: np.void, intent: dict[str, Any]) -> bool:
    key = "intent_id" if int(row["action"]) == PLACE else "order_id"
    return all(int(row[name]) == intent[name] for name in ("action", key))


def _disagreement(row: np.void, replayed: bytes | None) -> str:
    if replayed == row.tobytes():
        return ""
    if replayed is None:
        what = "the replay wrote no decision about it"
    else:
        other = np.frombuffer(replayed, dtype=records.DTYPES["Decision"])[0]
        names = [n for n in row.dtype.names or () if row[n].tobytes() != other[n].tobytes()]
        what = ", ".join(f"{name} {row[name]} logged, {other[name]} replayed" for name in names)
    return f"replay and log disagree: {what}; parity is broken, what follows is the replay's"


def _name(code: int) -> str:
    return code_name(code) if code else ""


def _named(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"code": _name(row["code"])}


def _storm(report: dict[str, Any]) -> dict[str, Any]:
    inputs = {
        code_name(code): {"level": LEVELS[level], "value": value}
        for code, (level, value) in report["inputs"].items()
    }
    return report | {
        "cause": _name(report["cause"]),
        "policy_code": _name(report["policy_code"]),
        "inputs": inputs,
    }


def _mode_text(strategy: dict[str, Any]) -> str:
    causes = []
    for row in strategy["causes"]:
        # The phase is always there; what asks for less than the mode is not why it is in force.
        text = row["what"] + (f" ({row['code']})" if row["code"] else "")
        if row["since_ns"]:
            text += f" since {utc(row['since_ns'])}"
        if row["asks"] != strategy["mode"]:
            text += f" asks {row['asks']}"
        causes.append(text)
    return f"{strategy['mode']}: {'; '.join(causes)}"


def _strategy_text(strategy: dict[str, Any]) -> str:
    most = units(strategy["position_qty_max"])
    text = f"position {units(strategy['position_qty'])} (at most {most})"
    if strategy["held_ns"] is not None:
        text += f" held {seconds(strategy['held_ns'])}"
    text += f", clip {units(strategy['clip_qty'])}, net {units(strategy['net_pnl'])}"
    if strategy["book_fault"]:
        text += f", book {strategy['book_fault']}"
    orders = [
        f"{row['order_id']} {side_name(row['side'])} {units(row['remaining_qty'])}"
        f" at {units(row['price'])} {row['state'].replace('_', ' ')}"
        for row in strategy["orders"]
    ]
    return text + ", " + (f"open orders {', '.join(orders)}" if orders else "no open order")


def _wanted_text(
    template: dict[str, Any], strategy: dict[str, Any], decision: dict[str, Any]
) -> str:
    reason, mode = decision["intent_reason"], strategy["mode"]
    rule = "" if strategy["wanted"] is None else _rule_text(template, strategy, decision)
    if reason == "flatten" and decision["action"] == "place":
        return f"the position is closed because the mode is {mode}"
    is_outside = template["kind"] in {"external", "remote"}
    if is_outside and reason in {"entry", "exit", "quote", "requote"}:
        return f"what the strategy outside the engine asked for, as {reason}"
    if decision["action"] == "cancel":
        return _cancel_text(rule, strategy, decision)
    return rule


def _cancel_text(rule: str, strategy: dict[str, Any], decision: dict[str, Any]) -> str:
    reason, mode = decision["intent_reason"], strategy["mode"]
    if reason == "requote":
        return f"its place is no longer wanted; {rule}"
    if reason == "flatten" and mode == "reduce_only" and rule:
        # The template still moves what leaves the position, and takes back what would enlarge it.
        if decision["side"] * strategy["position_qty"] >= 0:
            return "mode reduce_only lets nothing open"
        return f"its place is no longer wanted; {rule}"
    # In a stricter mode the rule is not asked.
    return _CANCEL_WHY.get(reason, f"mode {mode} takes orders back")


def _rule_text(template: dict[str, Any], strategy: dict[str, Any], decision: dict[str, Any]) -> str:
    kind, wanted, signal = template["kind"], strategy["wanted"], strategy["signal"]
    if kind in {"taker", "cost_taker"}:
        if decision["intent_reason"] == "exit":
            held = 0 if strategy["held_ns"] is None else strategy["held_ns"]
            side = 1 if strategy["position_qty"] > 0 else -1
            toward = None if signal is None else signal * side
            return (
                f"{kind} leaves when signal times side falls to {template['exit_ticks']:g}"
                f" (is {number(toward)}) or after {seconds(template['hold_ns'])}"
                f" (held {seconds(held)})"
            )
        size = None if signal is None else abs(signal)
        text = (
            f"{kind} enters when the signal's size reaches {template['entry_ticks']:g} ticks"
            f" (is {number(size)})"
        )
        if kind == "cost_taker":
            cost = wanted["round_trip_ticks"]
            text += (
                f" and pays for the round trip of {number(cost)} ticks"
                f" with {template['cost_margin_ticks']:g} to spare"
            )
        return text
    if kind == "target":
        qty = wanted["position_qty"]
        return f"target {'asks for nothing' if qty is None else f'position {units(qty)}'}"
    quotes = [
        f"{name} {units(wanted[name])}" if wanted[name] is not None else f"no {name}"
        for name in ("bid", "ask")
    ]
    return f"{kind} wants {', '.join(quotes)}; moves a quote at {template['requote_ticks']:g} ticks"


def _check_text(row: dict[str, Any]) -> str:
    text = f"{row['name']} {row['result'].replace('_', ' ')}"
    if row["result"] == "not_for_this":
        return f"{row['name']} is for {row['applies']} only"
    if row["result"] == "refused":
        text += f" {row['code']}"
    shown = _numbers_text(row)
    if shown:
        text += f": {shown}"
    where = "" if row["limit_key"] == "-" else f" [{row['limit_key']}]"
    return f"{text}{where} ({row['asks']}?)"


def _numbers_text(row: dict[str, Any]) -> str:
    """Value and limit of a check, empty for one that asks yes or no."""
    if row["numbers"] is None:
        return ""
    value, limit = row["numbers"]
    return check_numbers(row["name"], row["code"], value, limit)


def check_numbers(name: str, code: str, value: int, limit: int) -> str:
    """Render what a check held against what, in the check's unit; empty for a yes or no."""
    if name in _CODES:
        return "" if _name(value) == code else f"by {_name(value)}"
    if code == "MARGIN_UNKNOWN":
        return f"answer is {seconds(value)} old"
    if name in _SCALED:
        return f"{units(value)}, limit {units(limit)}"
    if name in _DURATIONS:
        return f"{seconds(value)}, limit {seconds(limit)}"
    if name in _BPS:
        return f"{value} bps, limit {limit} bps"
    return f"{value}, limit {limit}" if name in _COUNTS else ""


def _is_near_limit(row: dict[str, Any]) -> bool:
    if row["result"] != "passed" or row["numbers"] is None or row["name"] in _AT_LEAST:
        return False
    value, limit = row["numbers"]
    return bool(limit > 0 and value >= NEAR_LIMIT * limit)


def _storm_text(storm: dict[str, Any]) -> str:
    text = f"{storm['state']}"
    if storm["cause"] and storm["state"] != "NORMAL":
        text += f" since {utc(storm['since_ns'])} by {storm['cause']}"
    text += f", policy {storm['policy']}"
    if storm["policy"] != "NORMAL":
        text += f" since {utc(storm['policy_since_ns'])} by {storm['policy_code']}"
    loud = [
        f"{name} {row['level']} at {row['value']}"
        for name, row in storm["inputs"].items()
        if row["level"] != "clear"
    ]
    return text + (f"; {', '.join(loud)}" if loud else "")
