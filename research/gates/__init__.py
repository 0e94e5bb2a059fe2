"""The gates: pure functions from evidence to a verdict, and what collects the evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from research.gates.verdict import GATES, GateVerdict, Verdict, read_verdict, require_verdict

if TYPE_CHECKING:
    from research.gates.run import run_gate

__all__ = ["GATES", "GateVerdict", "Verdict", "read_verdict", "require_verdict", "run_gate"]


def __getattr__(name: str) -> Any:  # Any: a module's attribute
    # Reading a verdict needs neither backtest nor datasets: they load with the first gate run.
    if name == "run_gate":
        from research.gates.run import run_gate

        return run_gate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
