"""Gate A: is the idea declared, is the data sound, does the signal see only the past?

Why: statistics cannot repair a leak, a broken recording or an idea made up afterwards.

Invariants:
1. Quality is judged on every dataset the alpha will be judged on, as the ingestion counted it;
   every tape is read again, and held against the calendar, the roll rule and its own history.
2. The signal up to a record is bit-identical when what follows is cut off, and when it is changed.
3. A kind of fault that was not looked for is a fault.

It reads no file (see `collect`). Operator's page: `docs/gates.md`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hft_platform.errors import ReasonCode
from research.gates.checks import Check, at_least, at_most, finding
from research.gates.data_facts import FAULTS, DataFacts
from research.gates.thresholds import GateAThresholds
from research.gates.verdict import Finding


@dataclass(frozen=True, slots=True)
class LookAhead:
    """Rows of signal compared after the future was cut off or changed.

    Attributes
    ----------
    rows : int
        Rows before the cuts; each was compared once for every cut.
    truncated_mismatches, perturbed_mismatches : int
        Values that differed when what follows was cut off, and when it was changed.
    stepwise_rows, stepwise_mismatches : int
        Rows compared with what an engine said that had seen nothing later, and how many differed:
        a cut at every record.
    """

    rows: int
    truncated_mismatches: int
    perturbed_mismatches: int
    stepwise_rows: int
    stepwise_mismatches: int

    def __add__(self, other: LookAhead) -> LookAhead:
        """What was found in two sessions."""
        return LookAhead(
            self.rows + other.rows,
            self.truncated_mismatches + other.truncated_mismatches,
            self.perturbed_mismatches + other.perturbed_mismatches,
            self.stepwise_rows + other.stepwise_rows,
            self.stepwise_mismatches + other.stepwise_mismatches,
        )


NOTHING_COMPARED = LookAhead(0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class SpecEvidence:
    """Everything gate A decides from.

    Attributes
    ----------
    hypothesis_chars, reference_count : int
        Of the manifest, which its schema validated.
    label_horizon_s : float
        Declared horizon.
    program : dict
        What the compiler says about the expression: ``operations``, ``features``, ``memory_bytes``.
    session_records : dict of str to int
        Records by session that will be judged.
    data : DataFacts
        What was found in tapes, calendar, contracts and history.
    quality : dict of str to float
        Shares over the dataset, by kind.
    coverage : dict of str to float
        Share of each judged session's hours that was recorded; shown, not judged.
    look_ahead : LookAhead
        Of the signal on real sessions.
    """

    hypothesis_chars: int
    reference_count: int
    label_horizon_s: float
    program: dict[str, Any]
    session_records: dict[str, int]
    data: DataFacts
    quality: dict[str, float]
    coverage: dict[str, float]
    look_ahead: LookAhead


SESSIONS_SHOWN = 5
"""Sessions that a reason names; the rest is counted."""
QUALITY_LIMITS = {
    "rejected": "share of rows that were refused",
    "crossed": "share of books that were crossed",
    "out_of_order": "share of rows that were out of order",
    "duplicate": "share of rows that came twice",
}


def evaluate(evidence: SpecEvidence, thresholds: GateAThresholds) -> Finding:
    """Judge specification, data and look-ahead.

    Parameters
    ----------
    evidence : SpecEvidence
        See its fields.
    thresholds : GateAThresholds
        See the packaged gates.yaml.

    Returns
    -------
    Finding
    """
    t, e = thresholds, evidence
    features = list(e.program["features"])
    checks = [
        at_least(
            "hypothesis_chars",
            e.hypothesis_chars,
            t.hypothesis_chars_min,
            "hypothesis in characters",
        ),
        at_least("references", e.reference_count, t.references_min, "number of references"),
        at_most("label_horizon_s", e.label_horizon_s, t.label_horizon_s_max, "label horizon in s"),
        at_most(
            "operations",
            int(e.program["operations"]),
            t.operations_max,
            "number of operations a book",
        ),
        at_most("features", len(features), t.features_max, "number of features"),
        at_most(
            "memory_bytes",
            int(e.program["memory_bytes"]),
            t.program_bytes_max,
            "memory of the program in bytes",
        ),
        at_least("sessions", len(e.session_records), t.sessions_min, "number of judged sessions"),
        _records(e, t),
        *(_no_fault(name, e.data) for name in FAULTS),
        *(
            at_most(f"{kind}_share", e.quality.get(kind), getattr(t, f"{kind}_share_max"), what)
            for kind, what in QUALITY_LIMITS.items()
        ),
        *_look_ahead(e.look_ahead, t),
    ]
    results = {
        "program": {
            "features": features,
            "operations": int(e.program["operations"]),
            "memory_bytes": int(e.program["memory_bytes"]),
        },
        "sessions": e.session_records,
        "quality": dict(sorted(e.quality.items())),
        "coverage": e.coverage,
        "look_ahead": asdict(e.look_ahead),
        "data_exceptions": list(e.data.excused),
    }
    return finding(checks, results)


def _records(e: SpecEvidence, t: GateAThresholds) -> Check:
    fewest = min(e.session_records.items(), key=lambda row: (row[1], row[0]), default=("none", 0))
    return at_least(
        "session_records", fewest[1], t.session_records_min, f"records of session {fewest[0]}"
    )


def _no_fault(name: str, data: DataFacts) -> Check:
    code, what = FAULTS[name]
    sessions = data.faults.get(name)
    if sessions is None:
        return Check(name, None, 0, False, f"nobody looked whether {what}", int(code))
    shown = ", ".join(sessions[:SESSIONS_SHOWN])
    more = len(sessions) - SESSIONS_SHOWN
    text = f"{what}: {shown}{f' and {more} more' if more > 0 else ''}"
    return Check(name, len(sessions), 0, not sessions, text, int(code))


def _look_ahead(found: LookAhead, t: GateAThresholds) -> list[Check]:
    code = ReasonCode.LOOK_AHEAD_FOUND
    return [
        at_least("look_ahead_rows", found.rows, t.lookahead_rows_min, "rows of signal compared"),
        at_most(
            "truncated_future",
            found.truncated_mismatches,
            0,
            "number of signal values that change when the future is cut off",
            code=code,
        ),
        at_most(
            "perturbed_future",
            found.perturbed_mismatches,
            0,
            "number of signal values that change when the future is disturbed",
            code=code,
        ),
        at_least(
            "stepwise_rows", found.stepwise_rows, t.lookahead_rows_min, "rows compared step by step"
        ),
        at_most(
            "unseen_future",
            found.stepwise_mismatches,
            0,
            "number of signal values that an engine which has not seen the future does not have",
            code=code,
        ),
    ]
