"""Evidence for gate A: what the compiler, the dataset and the signal itself say."""

from __future__ import annotations

from hft_platform.errors import PlatformError, ReasonCode
from research.data import catalog
from research.gates.context import GateContext
from research.gates.gate_a import LookAhead, SpecEvidence
from research.gates.look_ahead import find_look_ahead
from research.gates.record_places import head_of
from research.gates.signals import batch_rows, signal_config
from research.registry import JudgedData, check_expression

LOOK_AHEAD_RECORDS_MAX = 50_000
"""Records of a session on which look-ahead is searched: a leak shows early or not at all."""
PRICE_SHIFT_TICKS = 7
"""How far a disturbed future's prices are moved."""


def collect(context: GateContext) -> SpecEvidence:
    """Check every judged tape, ask the compiler, cut off and disturb the future.

    Parameters
    ----------
    context : GateContext
        What is judged, and by what.

    Returns
    -------
    SpecEvidence
    """
    manifest, judged = context.alpha.manifest, context.judged
    sessions = judged.roles.judged
    return SpecEvidence(
        hypothesis_chars=len(manifest.hypothesis),
        reference_count=len(manifest.references),
        label_horizon_s=manifest.label_horizon_s,
        program=check_expression(context.alpha),
        session_records={f"{s.symbol} {s.session_id}": s.record_count for s in sessions},
        damaged_sessions=tuple(f"{s.symbol} {s.session_id}" for s in sessions if _is_damaged(s)),
        quality=_quality_shares(judged),
        look_ahead=_look_ahead(context),
    )


EXPECTED_REJECTIONS = ("SIMULATED_MATCH", "OUTSIDE_SESSION")
"""Rows that a good recording holds too: trial matches, and what lies outside trading hours."""


def _quality_shares(judged: JudgedData) -> dict[str, float]:
    """Shares of faulty rows over the judged sessions, as the ingestion counted them."""
    wanted = {(s.symbol, s.session_id) for s in judged.roles.judged}
    rows = [
        row
        for row in catalog.quality_report(judged.dataset)["sessions"]
        if (row["symbol"], row["session_id"]) in wanted
    ]
    total = sum(int(row["rows_in"]) for row in rows)
    if total == 0 or len(rows) != len(wanted):
        raise PlatformError(
            ReasonCode.GATE_NOT_COMPUTED,
            f"the quality report of {judged.dataset.dataset_id} covers {len(rows)} of "
            f"{len(wanted)} judged sessions with {total} rows",
        )
    rejected = sum(
        int(count)
        for row in rows
        for name, count in row["rejected"].items()
        if name not in EXPECTED_REJECTIONS
    )
    counted = {"crossed": "crossed", "out_of_order": "out_of_order", "duplicate": "duplicates"}
    return {"rejected": rejected / total} | {
        kind: sum(int(row[field]) for row in rows) / total for kind, field in counted.items()
    }


def _is_damaged(session: catalog.SessionRef) -> bool:
    try:
        catalog.load_tape(session)
    except PlatformError as error:
        if error.code in (ReasonCode.VERDICT_STALE, ReasonCode.FILE_DAMAGED):
            return True
        raise
    return False


def _look_ahead(context: GateContext) -> LookAhead:
    thresholds = context.thresholds.gate_a
    rows = truncated = perturbed = 0
    for session in context.judged.roles.judged[: thresholds.lookahead_sessions]:
        instrument = context.instrument_of(session)
        config = signal_config(
            context.alpha.manifest,
            instrument,
            session.session_of(instrument),
            account_limits=context.account_limits,
            storm_guard=context.storm_guard,
        )
        tape = head_of(catalog.load_tape(session), LOOK_AHEAD_RECORDS_MAX)
        found = find_look_ahead(
            tape,
            lambda part, config=config: batch_rows(part, config),  # type: ignore[misc]
            cuts=thresholds.lookahead_cuts,
            price_shift=PRICE_SHIFT_TICKS * instrument.tick_size,
        )
        rows += found.rows
        truncated += found.truncated_mismatches
        perturbed += found.perturbed_mismatches
    return LookAhead(rows, truncated, perturbed)
