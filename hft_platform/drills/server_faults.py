"""Faults of the store server used by drills: which statement they hit, when, and how often.

Why: an outage is only rehearsed when it hits the statement that matters, at the moment that
matters, and can be made again.

Invariants:
1. A fault hits only statements that match it, after `skip` of them, at most `times` times.
2. What is drawn comes from the seed and the order of statements.
3. Every hit is counted under the fault's kind.

It breaks nothing itself (see `chdb_server`). Operator's page: `docs/drills.md`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from hft_platform.errors import PlatformError, ReasonCode

KINDS = (
    "stall_before", "stall_after", "drop_before", "drop_reply", "kill_before", "kill_inside",
    "kill_at_token", "kill_after", "error", "slow", "refuse",
)  # fmt: skip
"""Stall before or after applying; drop the connection before applying, or after it in place of the
reply; end the process before, inside, at the moment the insert's token is written, or after
applying; answer an error without applying; take `factor` times as long; go down before applying:
connections are cut and refused from then on."""
STATEMENTS = ("insert", "select", "other", "any")
TOO_MANY_PARTS = (252, "Too many parts (3000) in all partitions in total. (TOO_MANY_PARTS)")


@dataclass(frozen=True, slots=True)
class Fault:
    """One rule.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    statement : str
        ``insert`` (with data or SELECT), ``select``, ``other`` (DDL, DESCRIBE, SHOW) or ``any``.
    table : str
        Only statements whose target starts with it; empty means every target.
    skip : int
        Matching statements that are let through first.
    times : int
        How often it hits; 0 means until it is cleared.
    probability : float
        Chance of each matching statement, drawn from the seed.
    seconds : float
        Length of a stall; for ``kill_inside`` the time after which the process ends.
    factor : float
        How many times as long a ``slow`` statement takes.
    code, status : int
        Error code of ClickHouse and HTTP status of an ``error``; code 0 sends none, as a proxy.
    message : str
        Text of an ``error``; empty means that of "too many parts".
    """

    kind: str
    statement: str = "insert"
    table: str = ""
    skip: int = 0
    times: int = 1
    probability: float = 1.0
    seconds: float = 0.0
    factor: float = 1.0
    code: int = TOO_MANY_PARTS[0]
    status: int = 500
    message: str = ""

    def __post_init__(self) -> None:
        """Refuse a rule that would silently never hit."""
        if self.kind not in KINDS or self.statement not in STATEMENTS:
            raise PlatformError(
                ReasonCode.SETTINGS_INVALID,
                f"fault was {self.kind!r} on {self.statement!r}; kinds: {', '.join(KINDS)};"
                f" statements: {', '.join(STATEMENTS)}",
            )

    @staticmethod
    def of(content: Mapping[str, Any]) -> Fault:
        """Make a rule of JSON.

        Parameters
        ----------
        content : mapping
            Fields of a rule; an unknown one is refused.

        Returns
        -------
        Fault
        """
        unknown = sorted(set(content) - {field.name for field in fields(Fault)})
        if unknown or "kind" not in content:
            raise PlatformError(
                ReasonCode.SETTINGS_INVALID, f"fault has unknown fields {unknown} or no kind"
            )
        return Fault(**content)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    def matches(self, statement: str, table: str) -> bool:
        """True when the rule is about such a statement."""
        return self.statement in ("any", statement) and table.startswith(self.table)


class FaultPlan:
    """The rules in force and what they hit. Safe to use from several threads.

    Parameters
    ----------
    faults : sequence of Fault
        The rules.
    seed : int
        Decides what is drawn.
    """

    def __init__(self, faults: Sequence[Fault] = (), *, seed: int = 1) -> None:
        self._lock = threading.Lock()
        self._draw = np.random.default_rng(seed)
        self.hits: Counter[str] = Counter()
        self.replace(faults)

    def replace(self, faults: Sequence[Fault]) -> None:
        """Put other rules in force; counts of hits stay.

        Parameters
        ----------
        faults : sequence of Fault
            The rules; none means that nothing goes wrong.
        """
        with self._lock:
            self._faults = list(faults)
            self._seen = [0] * len(self._faults)
            self._left = [fault.times or -1 for fault in self._faults]

    def next(self, statement: str, table: str) -> list[Fault]:
        """Rules that hit this statement.

        Parameters
        ----------
        statement : str
            Its kind.
        table : str
            Its target, empty when it has none.

        Returns
        -------
        list of Fault
            In the order of the plan.
        """
        hit = []
        with self._lock:
            for place, fault in enumerate(self._faults):
                if not fault.matches(statement, table):
                    continue
                self._seen[place] += 1
                if self._seen[place] <= fault.skip or self._left[place] == 0:
                    continue
                if fault.probability < 1.0 and self._draw.random() >= fault.probability:
                    continue
                self._left[place] -= 1
                self.hits[fault.kind] += 1
                hit.append(fault)
        return hit
