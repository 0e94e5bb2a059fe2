"""What a reconciliation found, for a person to act on: what, since when, what was asked, next.

Why: at three in the morning nobody derives from a log which order is meant and what to do about it.

Invariants:
1. Every finding names its subject, since when it stands, how often and when the broker was asked,
   what it means and the next command.
2. The file in the session folder is an old report or a complete new one.
3. What cannot be read is no report: it is refused, never taken for "nothing found".

It judges nothing. Operator's page: `docs/reconciliation.md`.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any

from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.records import SCALE

FILE_NAME = "reconciliation.json"
SCHEMA = 1


class FindingKind(StrEnum):
    """What can stand between us and the broker."""

    ORDER_UNKNOWN = "order_unknown"
    ORDER_UNANSWERED = "order_unanswered"
    CANCEL_UNANSWERED = "cancel_unanswered"
    ORDER_MISSING = "order_missing"
    ORDER_BEHIND = "order_behind"
    ORDER_AHEAD = "order_ahead"
    ORDER_REVIVED = "order_revived"
    ORDER_EXTERNAL = "order_external"
    POSITION_DRIFT = "position_drift"
    POSITION_ELSEWHERE = "position_elsewhere"
    ORDERS_UNANSWERED = "orders_unanswered"
    POSITIONS_UNANSWERED = "positions_unanswered"
    ACCOUNT_UNANSWERED = "account_unanswered"


@dataclass(frozen=True, slots=True)
class Advice:
    """What a kind of finding means, and what to do.

    Attributes
    ----------
    code : int
        Reason code.
    meaning : str
        What it means for what may be traded.
    next_step : str
        What a person does.
    needs_person : bool
        False where it usually resolves itself.
    """

    code: int
    meaning: str
    next_step: str
    needs_person: bool


ADVICE: dict[FindingKind, Advice] = {
    FindingKind.ORDER_UNKNOWN: Advice(
        ReasonCode.ORDER_OUTCOME_UNKNOWN,
        "it may or may not be at the broker; it counts in full, it is never sent again",
        "wait: the broker is being asked; if the broker cannot be reached, look at its own list",
        needs_person=False,
    ),
    FindingKind.ORDER_UNANSWERED: Advice(
        ReasonCode.BROKER_TIMEOUT,
        "it was handed to the broker and nothing was heard of it; it counts in full",
        "wait: the broker is being asked; if it stays, hft-live halt",
        needs_person=False,
    ),
    FindingKind.CANCEL_UNANSWERED: Advice(
        ReasonCode.BROKER_TIMEOUT,
        "a cancel was not answered; the order may still be filled and counts in full",
        "wait: only the broker's word ends it; if it stays, look at the broker's own list",
        needs_person=False,
    ),
    FindingKind.ORDER_MISSING: Advice(
        ReasonCode.ORDER_NOT_FOUND,
        "it was at the broker, and the broker's answer no longer names it; it counts in full",
        "look at the broker's own list; a later answer or the positions decide",
        needs_person=True,
    ),
    FindingKind.ORDER_BEHIND: Advice(
        ReasonCode.ORDER_STATE_INVALID,
        "the broker knows more of it than we do: events or fills were lost",
        "nothing: they are taken from the broker's answer; if it stays, hft-live explain the order",
        needs_person=False,
    ),
    FindingKind.ORDER_AHEAD: Advice(
        ReasonCode.ORDER_STATE_INVALID,
        "we count more fills of it than the broker does; nothing of ours is taken back",
        "compare the fills with the broker's statement: hft-live explain the order",
        needs_person=True,
    ),
    FindingKind.ORDER_REVIVED: Advice(
        ReasonCode.ORDER_STATE_INVALID,
        "we hold it done and the broker holds it open; its rest is asked to be canceled",
        "if it stays open: cancel it at the broker by hand",
        needs_person=True,
    ),
    FindingKind.ORDER_EXTERNAL: Advice(
        ReasonCode.ORDER_EXTERNAL,
        "an open order that is none of this session's; it is left alone, its fills become drift",
        "cancel it at the broker if nobody wants it",
        needs_person=True,
    ),
    FindingKind.POSITION_DRIFT: Advice(
        ReasonCode.POSITION_DRIFT,
        "the broker holds another position than we do: reduce-only, and HALT if it stays",
        "find the cause (a manual order, a lost fill); then correct it at the broker, or adopt it",
        needs_person=True,
    ),
    FindingKind.POSITION_ELSEWHERE: Advice(
        ReasonCode.POSITION_DRIFT,
        "a position in a contract that this session does not trade; it limits nothing here",
        "know whose it is",
        needs_person=False,
    ),
    FindingKind.ORDERS_UNANSWERED: Advice(
        ReasonCode.BROKER_QUERY_FAILED,
        "the broker could not be asked for its orders; none is taken as missing",
        "look at the connection if it lasts",
        needs_person=False,
    ),
    FindingKind.POSITIONS_UNANSWERED: Advice(
        ReasonCode.POSITION_UNANSWERED,
        "the broker could not be asked for its positions; that does not mean flat",
        "look at the connection if it lasts: nothing opens until it answers",
        needs_person=False,
    ),
    FindingKind.ACCOUNT_UNANSWERED: Advice(
        ReasonCode.BROKER_QUERY_FAILED,
        "the broker could not be asked for money and margin; opening orders wait if it lasts",
        "look at the connection if it lasts",
        needs_person=False,
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that stands.

    Attributes
    ----------
    kind : FindingKind
        What it is.
    subject : str
        Order id, or broker's ids, or symbol, or the question.
    since_ns : int
        When it was first seen.
    text : str
        The facts, for people.
    asked : int
        Answers since then that confirmed it, or questions that failed.
    asked_ns : int
        When the broker was asked last; 0 before the first time.
    next_step : str
        The next command.
    symbol : str
        Contract, where it concerns one.
    qty : int
        Drift, missing or open quantity at 1e-8; signed in a drift.
    """

    kind: FindingKind
    subject: str
    since_ns: int
    text: str
    asked: int = 0
    asked_ns: int = 0
    next_step: str = ""
    symbol: str = ""
    qty: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the same finding as before."""
        return (self.kind.value, self.subject)

    @property
    def advice(self) -> Advice:
        """What its kind means."""
        return ADVICE[self.kind]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, with meaning and next step."""
        advice = self.advice
        return asdict(self) | {
            "kind": self.kind.value,
            "code": int(advice.code),
            "reason": code_name(advice.code),
            "meaning": advice.meaning,
            "next_step": self.next_step or advice.next_step,
            "needs_person": advice.needs_person,
        }


@dataclass(frozen=True, slots=True)
class Resolution:
    """One order of unknown outcome that is unknown no longer.

    Attributes
    ----------
    order_id : int
        Which.
    outcome : str
        ``adopted`` or ``abandoned``, or ``answered`` when the broker spoke by itself.
    since_ns, time_ns : int
        Unknown from, and until.
    asked : int
        Answers that this took.
    """

    order_id: int
    outcome: str
    since_ns: int
    time_ns: int
    asked: int


@dataclass(frozen=True, slots=True)
class ReconciliationReport:
    """Everything that stands, what was resolved, and when the broker was asked.

    Attributes
    ----------
    time_ns : int
        When it was made.
    phase : str
        ``startup`` or ``running``.
    is_ready : bool
        Whether the startup was once found in order.
    reasons : tuple of str
        Why it is not ready.
    findings : tuple of Finding
        Those that stand, oldest first.
    left_out : int
        Findings beyond the bound.
    resolutions : tuple of Resolution
        The newest ones.
    questions : mapping
        By name of the question: asked_ns, answered_ns, asked, failed, failed_in_a_row.
    counters : mapping of str to int
        What was done.
    """

    time_ns: int
    phase: str
    is_ready: bool
    reasons: tuple[str, ...]
    findings: tuple[Finding, ...]
    left_out: int
    resolutions: tuple[Resolution, ...]
    questions: Mapping[str, Mapping[str, int]]
    counters: Mapping[str, int]

    @property
    def drifts(self) -> dict[str, int]:
        """Drift of each symbol that has one, at 1e-8."""
        return {
            row.symbol: row.qty for row in self.findings if row.kind == FindingKind.POSITION_DRIFT
        }

    @property
    def needs_person(self) -> bool:
        """Whether something stands that does not resolve itself."""
        return any(row.advice.needs_person for row in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "schema": SCHEMA,
            "time_ns": self.time_ns,
            "phase": self.phase,
            "is_ready": self.is_ready,
            "reasons": list(self.reasons),
            "findings": [row.as_dict() for row in self.findings],
            "left_out": self.left_out,
            "resolutions": [asdict(row) for row in self.resolutions],
            "questions": {name: dict(row) for name, row in self.questions.items()},
            "counters": dict(self.counters),
        }

    def write(self, folder: Path) -> None:
        """Put it into a session's folder.

        Parameters
        ----------
        folder : Path
            Of the session.
        """
        atomic_write(folder / FILE_NAME, canonical_json(self.as_dict()) + b"\n")

    @classmethod
    def read(cls, path: Path) -> ReconciliationReport:
        """Read a report back.

        Parameters
        ----------
        path : Path
            The file.

        Raises
        ------
        PlatformError
            FILE_DAMAGED when it is none.
        """
        try:
            content = json.loads(path.read_bytes())
            if content["schema"] != SCHEMA:
                raise ValueError(f"schema was {content['schema']!r}")
            return cls(
                time_ns=int(content["time_ns"]),
                phase=str(content["phase"]),
                is_ready=bool(content["is_ready"]),
                reasons=tuple(map(str, content["reasons"])),
                findings=tuple(map(_finding, content["findings"])),
                left_out=int(content["left_out"]),
                resolutions=tuple(Resolution(**row) for row in content["resolutions"]),
                questions=content["questions"],
                counters=content["counters"],
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise PlatformError(
                ReasonCode.FILE_DAMAGED,
                f"{path} is no reconciliation report: {error}",
                next_step="a running session writes it anew within seconds",
            ) from error

    def render(self) -> str:
        """Lines for a terminal."""
        state = "ready" if self.is_ready else "NOT READY"
        lines = [f"{_utc(self.time_ns)}: {self.phase}, {state}"]
        lines += [f"  not ready: {reason}" for reason in self.reasons]
        for row in self.findings:
            lines += self._finding_lines(row)
        if self.left_out:
            lines.append(f"and {self.left_out} more")
        if not self.findings:
            lines.append("nothing stands between us and the broker")
        for name, question in self.questions.items():
            lines.append(
                f"asked for {name} {question['asked']} times, last {_utc(question['asked_ns'])};"
                f" {question['failed']} failed, {question['failed_in_a_row']} of them just now"
            )
        lines += [
            f"order {row.order_id} {row.outcome} {_utc(row.time_ns)}, unknown for"
            f" {(row.time_ns - row.since_ns) / 1e9:.1f} s, asked {row.asked} times"
            for row in self.resolutions
        ]
        return "\n".join(lines)

    def _finding_lines(self, row: Finding) -> list[str]:
        advice = row.advice
        asked = (
            f"asked {row.asked} times, last {_utc(row.asked_ns)}" if row.asked_ns else "not asked"
        )
        seconds = (self.time_ns - row.since_ns) / 1e9
        return [
            f"{code_name(advice.code)} ({int(advice.code)}) {row.subject}: {row.text}",
            f"  since: {_utc(row.since_ns)} ({seconds:.1f} s), {asked}",
            f"  means: {advice.meaning}",
            f"  next:  {row.next_step or advice.next_step}",
        ]


def units(qty: int) -> str:
    """Quantity at 1e-8 as people write it.

    Parameters
    ----------
    qty : int
        Scaled.
    """
    return f"{Decimal(qty) / SCALE:f}"


def _finding(row: Mapping[str, Any]) -> Finding:
    names = ("subject", "since_ns", "text", "asked", "asked_ns", "next_step", "symbol", "qty")
    return Finding(kind=FindingKind(row["kind"]), **{name: row[name] for name in names})


def _utc(time_ns: int) -> str:
    if time_ns == 0:
        return "never"
    moment = dt.datetime.fromtimestamp(time_ns // 10**9, tz=dt.UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
