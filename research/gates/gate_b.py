"""Gate B: does the code do what its own tests say, the same way each time?

Why: an alpha whose value depends on how it is evaluated has no backtest.

Invariants:
1. A skipped test is a failure: there is no flag to get around one.
2. Batch and incremental evaluation agree in every bit; two processes with other hashes and other
   numbers of threads give one hash of the signal.
3. Of a time that was measured the finding holds on which side of its budget it lies, no number.

It starts no process (see `sandbox`). Operator's page: `docs/gates.md`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from hft_platform.errors import ReasonCode
from research.gates.checks import Check, at_least, at_most, finding
from research.gates.thresholds import GateBThresholds
from research.gates.verdict import Finding


@dataclass(frozen=True, slots=True)
class TestRun:
    """Outcome of the alpha's own tests in their sandbox."""

    __test__ = False  # pytest would collect a class of this name

    passed: int
    failed: int
    errors: int
    skipped: int
    ended: str
    """``finished``, ``time_limit``, ``memory_limit`` or ``crashed``."""


@dataclass(frozen=True, slots=True)
class CodeEvidence:
    """Everything gate B decides from.

    Attributes
    ----------
    tests : TestRun
        The alpha's own tests.
    compared_rows, mismatched_rows : int
        Signal values of batch against incremental evaluation, compared by their bits.
    process_hashes : tuple of str
        Hash of the signal from each of several fresh processes.
    tests_sha256 : str
        The test file that ran.
    event_ns : int
        Time of a record in batch evaluation. Judged, and no part of the finding: it differs
        from run to run, and a verdict does not.
    """

    tests: TestRun
    compared_rows: int
    mismatched_rows: int
    process_hashes: tuple[str, ...]
    tests_sha256: str
    event_ns: int


def evaluate(evidence: CodeEvidence, thresholds: GateBThresholds) -> Finding:
    """Judge code evidence.

    Parameters
    ----------
    evidence : CodeEvidence
        See its fields.
    thresholds : GateBThresholds
        See the packaged gates.yaml.

    Returns
    -------
    Finding
    """
    e, t = evidence, thresholds
    missed = int(ReasonCode.GATE_THRESHOLD_MISSED)
    distinct = sorted(set(e.process_hashes))
    checks = [
        Check(
            "tests_ended",
            e.tests.ended,
            "finished",
            e.tests.ended == "finished",
            f"the alpha's tests ended by {e.tests.ended.replace('_', ' ')}",
            int(ReasonCode.GATE_NOT_COMPUTED),
        ),
        at_least("tests_passed", e.tests.passed, t.tests_min, "number of tests that passed"),
        at_most("tests_failed", e.tests.failed, 0, "number of tests that failed"),
        at_most("tests_errors", e.tests.errors, 0, "number of tests that could not run"),
        at_most("tests_skipped", e.tests.skipped, 0, "number of tests that were skipped"),
        at_least("compared_rows", e.compared_rows, t.compared_rows_min, "rows of signal compared"),
        at_most(
            "batch_equals_incremental",
            e.mismatched_rows,
            0,
            "number of signal values that differ between batch and incremental evaluation",
        ),
        Check(
            "deterministic",
            len(distinct),
            1,
            len(e.process_hashes) >= 2 and len(distinct) == 1,
            f"{len(e.process_hashes)} processes gave {len(distinct)} different signals",
            missed,
        ),
        Check(
            "event_time",
            "within" if e.event_ns <= t.event_ns_max else "beyond",
            t.event_ns_max,
            e.event_ns <= t.event_ns_max,
            f"a record takes longer than the budget of {t.event_ns_max:,} ns",
            missed,
        ),
    ]
    results = {
        "tests": asdict(e.tests),
        "tests_sha256": e.tests_sha256,
        "compared_rows": e.compared_rows,
        "signal_sha256": distinct[0] if len(distinct) == 1 else None,
        "processes": len(e.process_hashes),
    }
    return finding(checks, results)
