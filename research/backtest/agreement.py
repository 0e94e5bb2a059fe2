"""Does a paper session agree with the backtest of the same records?

Why: a gate's backtest says something about the runtime only if the runtime would have done the
same on the same records.

Invariants:
1. Both run the same engine and the same latency draws; they differ in whose exchange matched, and
   in what an operator did to the session. Any other difference is a bug, and named as one.
2. Every difference is counted under its cause; the first of each kind are shown in full.

It judges nothing. Operator's page: `docs/backtest.md`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hft_platform import records
from hft_platform.services.parity import compare_decisions

COMPARED = ("event_kind", "order_id", "side", "price", "qty", "remaining_qty", "exchange_time_ns")
SHOWN = 20
"""More than this many differing broker reports are counted, not listed."""
COMMANDED = "an operator's command or a withdrawal changed the session; a backtest has none"
EXCHANGES = "the paper exchange and the package report different fills or times"
FOLLOWS = "follows from the first difference"
UNEXPLAINED = "same reports, other decision: the engine was not the same"

Records = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Decisions and broker reports of a session beside those of the backtest.

    Attributes
    ----------
    decision_total, decision_identical : int
        Decisions of the longer side, and those that are byte for byte the same.
    report_total, report_identical : int
        The same for broker reports, by the fields in `COMPARED`.
    causes : dict of str to int
        Every difference, counted by cause.
    differences : tuple of dict
        The first ones in full.
    """

    decision_total: int
    decision_identical: int
    report_total: int
    report_identical: int
    causes: dict[str, int]
    differences: tuple[dict[str, Any], ...]

    @property
    def is_complete(self) -> bool:
        """True when nothing differs."""
        return (
            self.decision_identical == self.decision_total
            and self.report_identical == self.report_total
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self) | {"is_complete": self.is_complete}


def compare(
    session_inputs: bytes,
    session_decisions: bytes,
    backtest_inputs: bytes,
    backtest_decisions: bytes,
) -> Agreement:
    """Compare a session with a backtest of the same tape under the same latency profile.

    Parameters
    ----------
    session_inputs, session_decisions : bytes
        Tapes as `hft_platform.services.parity.read_session` gives them.
    backtest_inputs, backtest_decisions : bytes
        Tapes of a `research.backtest.runner.SessionResult`.

    Returns
    -------
    Agreement
        Complete, or with every difference under its cause.
    """
    parts = records.split(session_inputs)
    ours, theirs = parts["Broker"], records.split(backtest_inputs)["Broker"]
    same = _same_reports(ours, theirs)
    identical, differing = compare_decisions(session_decisions, backtest_decisions)
    width = records.DTYPES["Decision"].itemsize
    decision_total = max(len(session_decisions), len(backtest_decisions)) // width
    report_total = max(int(ours.size), int(theirs.size))
    places = np.flatnonzero(~same).tolist() + list(range(same.size, report_total))
    seqs = [int(ours[index]["input_seq"]) for index in places[:1] if index < ours.size]
    seqs += [item.input_seq for item in differing[:1]]
    first = _first_cause(parts["Command"], bool(places), min(seqs, default=None))
    missed = len(places) + decision_total - identical
    causes = {first: 1, FOLLOWS: missed - 1} if first != UNEXPLAINED else {UNEXPLAINED: missed}
    rows = _report_rows(ours, theirs, places[:SHOWN])
    rows += [{"what": "decision"} | asdict(item) for item in differing]
    for number, row in enumerate(rows):
        row["cause"] = FOLLOWS if number and first != UNEXPLAINED else first
    return Agreement(
        decision_total=decision_total,
        decision_identical=identical,
        report_total=report_total,
        report_identical=int(same.sum()),
        causes={cause: count for cause, count in causes.items() if count > 0 and missed},
        differences=tuple(rows),
    )


def _same_reports(ours: Records, theirs: Records) -> npt.NDArray[np.bool_]:
    common = min(ours.size, theirs.size)
    same = np.ones(common, dtype=bool)
    for name in COMPARED:
        same &= ours[name][:common] == theirs[name][:common]
    return same


def _first_cause(commands: Records, reports_differ: bool, first_seq: int | None) -> str:
    """Cause of the first difference; `first_seq` is where the session shows it, None behind all."""
    if commands.size and (first_seq is None or int(commands["input_seq"][0]) <= first_seq):
        return COMMANDED
    return EXCHANGES if reports_differ else UNEXPLAINED


def _report_rows(ours: Records, theirs: Records, places: list[int]) -> list[dict[str, Any]]:
    return [
        {
            "what": "broker report",
            "index": index,
            "session": _plain(ours, index),
            "backtest": _plain(theirs, index),
        }
        for index in places
    ]


def _plain(rows: Records, index: int) -> dict[str, int] | None:
    if index >= rows.size:
        return None
    return {name: int(rows[index][name]) for name in COMPARED}
