"""Gate A: is the idea declared, is the data sound, does the signal see only the past?

Why: statistics cannot repair a leak, a broken recording or an idea made up afterwards.

Invariants:
1. Quality is judged on every dataset the alpha will be judged on, as the ingestion counted it.
2. The signal up to a record is bit-identical when what follows is cut off, and when it is changed.

It reads no file (see `collect`). Operator's page: `docs/gates.md`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hft_platform.errors import ReasonCode
from research.gates.checks import Check, at_least, at_most, finding
from research.gates.thresholds import GateAThresholds
from research.gates.verdict import Finding


@dataclass(frozen=True, slots=True)
class LookAhead:
    """Rows of signal compared after the future was cut off (`truncated`) or changed."""

    rows: int
    truncated_mismatches: int
    perturbed_mismatches: int


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
    damaged_sessions : tuple of str
        Sessions whose tape no longer matches its hash.
    quality : dict of str to float
        Shares over the dataset, by kind.
    look_ahead : LookAhead
        Of the signal on real sessions.
    """

    hypothesis_chars: int
    reference_count: int
    label_horizon_s: float
    program: dict[str, Any]
    session_records: dict[str, int]
    damaged_sessions: tuple[str, ...]
    quality: dict[str, float]
    look_ahead: LookAhead


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
        Check(
            "tape_hashes",
            len(e.damaged_sessions),
            0,
            not e.damaged_sessions,
            f"sessions whose tape does not match its hash: {', '.join(e.damaged_sessions)}",
            int(ReasonCode.FILE_DAMAGED),
        ),
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
        "look_ahead": asdict(e.look_ahead),
    }
    return finding(checks, results)


def _records(e: SpecEvidence, t: GateAThresholds) -> Check:
    fewest = min(e.session_records.items(), key=lambda row: (row[1], row[0]), default=("none", 0))
    return at_least(
        "session_records", fewest[1], t.session_records_min, f"records of session {fewest[0]}"
    )


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
    ]
