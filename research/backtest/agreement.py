"""Does a paper session agree with the backtest of the same records?

Both run the same engine and the same latency draws; the session's exchange is the platform's own
paper exchange, the backtest's is the hftbacktest package. Every decision that differs is listed
with its cause: the first broker report in which the two exchanges differ before it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hft_platform import records
from hft_platform.services.parity import compare_decisions

COMPARED = ("event_kind", "order_id", "side", "price", "qty", "remaining_qty", "exchange_time_ns")


@dataclass(frozen=True, slots=True)
class Agreement:
    """Decisions and broker reports of a session beside those of the backtest."""

    decision_total: int
    decision_identical: int
    report_total: int
    report_identical: int
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
    session_inputs: bytes, session_decisions: bytes, backtest_inputs: bytes, backtest_decisions: bytes
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
        `differences` holds one row for each differing broker report (the cause) and each decision
        that differs because of it.
    """
    ours = records.split(session_inputs)["Broker"]
    theirs = records.split(backtest_inputs)["Broker"]
    rows: list[dict[str, Any]] = []
    common = min(ours.size, theirs.size)
    same = np.ones(common, dtype=bool)
    for name in COMPARED:
        same &= ours[name][:common] == theirs[name][:common]
    for index in np.flatnonzero(~same)[:20]:
        rows.append(
            {
                "what": "broker report",
                "index": int(index),
                "cause": "the paper exchange and the package report different fills or times",
                "session": {name: int(ours[index][name]) for name in COMPARED},
                "backtest": {name: int(theirs[index][name]) for name in COMPARED},
            }
        )
    if ours.size != theirs.size:
        rows.append(
            {
                "what": "broker report count",
                "cause": "one exchange reported more",
                "session": int(ours.size),
                "backtest": int(theirs.size),
            }
        )
    identical, differences = compare_decisions(session_decisions, backtest_decisions)
    cause = "follows from the broker report above" if rows else "same reports, other decision"
    rows.extend({"what": "decision", "cause": cause} | asdict(item) for item in differences)
    width = records.DTYPES["Decision"].itemsize
    return Agreement(
        decision_total=max(len(session_decisions), len(backtest_decisions)) // width,
        decision_identical=identical,
        report_total=max(int(ours.size), int(theirs.size)),
        report_identical=int(same.sum()),
        differences=tuple(rows),
    )
