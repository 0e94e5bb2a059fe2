"""One comparison of a gate: what was observed, what was asked for, and the sentence about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hft_platform.errors import ReasonCode
from research.gates.verdict import Finding, GateVerdict, reason

Number = float | int


@dataclass(frozen=True, slots=True)
class Check:
    """A threshold and whether it was met; a value that does not exist never meets one."""

    name: str
    observed: Number | str | None
    limit: Number | str
    passed: bool
    text: str
    code: int = int(ReasonCode.GATE_THRESHOLD_MISSED)

    def row(self) -> dict[str, Any]:
        """Row of a verdict's results."""
        return {
            "name": self.name,
            "observed": self.observed,
            "limit": self.limit,
            "passed": self.passed,
        }

    def as_reason(self) -> dict[str, Any]:
        """Reason of a verdict."""
        return reason(self.code, self.text, observed=self.observed, limit=self.limit)


def at_least(
    name: str,
    value: Number | None,
    limit: Number,
    what: str,
    *,
    code: int = ReasonCode.GATE_THRESHOLD_MISSED,
) -> Check:
    """Require `value >= limit`."""
    text = f"{what} is {_shown(value)}, required is at least {_shown(limit)}"
    return Check(name, value, limit, value is not None and value >= limit, text, int(code))


def above(
    name: str,
    value: Number | None,
    limit: Number,
    what: str,
    *,
    code: int = ReasonCode.GATE_THRESHOLD_MISSED,
) -> Check:
    """Require `value > limit`."""
    text = f"{what} is {_shown(value)}, required is above {_shown(limit)}"
    return Check(name, value, limit, value is not None and value > limit, text, int(code))


def at_most(
    name: str,
    value: Number | None,
    limit: Number,
    what: str,
    *,
    code: int = ReasonCode.GATE_THRESHOLD_MISSED,
) -> Check:
    """Require `value <= limit`."""
    text = f"{what} is {_shown(value)}, allowed is at most {_shown(limit)}"
    return Check(name, value, limit, value is not None and value <= limit, text, int(code))


def finding(
    checks: Sequence[Check],
    results: dict[str, Any],
    *,
    missing: Sequence[dict[str, Any]] = (),
) -> Finding:
    """Passed when every check was met; failed with one reason for each that was not.

    With something `missing` (reasons) it is insufficient evidence instead: what was computed so
    far stands in the results, and decides nothing.
    """
    rows = results | {"checks": [check.row() for check in checks]}
    if missing:
        return Finding(GateVerdict.INSUFFICIENT_EVIDENCE, tuple(missing), rows)
    missed = [check.as_reason() for check in checks if not check.passed]
    verdict = GateVerdict.FAILED if missed else GateVerdict.PASSED
    return Finding(verdict, tuple(missed), rows)


def _shown(value: Number | None) -> str:
    if value is None:
        return "not defined"
    return str(value) if isinstance(value, int) else f"{value:.6g}"
