"""Evidence for gate A: what the compiler, the dataset and the signal itself say."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from hft_platform.errors import PlatformError, ReasonCode
from research.data import catalog
from research.gates.context import GateContext
from research.gates.data_audit import audit_data
from research.gates.data_facts import DataFacts
from research.gates.gate_a import NOTHING_COMPARED, LookAhead, SpecEvidence
from research.gates.look_ahead import find_look_ahead
from research.gates.record_places import head_of
from research.gates.signals import SignalRows, batch_rows, incremental_signal, signal_config
from research.gates.stepwise import compare_stepwise
from research.registry import JudgedData, check_expression

if TYPE_CHECKING:
    from research.data.catalog import SessionRef

LOOK_AHEAD_RECORDS_MAX = 40_000
"""Records of a session on which the future is cut off: how far a leak reaches does not matter."""
STEPWISE_RECORDS_MAX = 8_000
"""Records of a session that an engine is given one by one."""
NS_PER_S = 1_000_000_000
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
    data = _data(context)
    return SpecEvidence(
        hypothesis_chars=len(manifest.hypothesis),
        reference_count=len(manifest.references),
        label_horizon_s=manifest.label_horizon_s,
        program=check_expression(context.alpha),
        session_records={f"{s.symbol} {s.session_id}": s.record_count for s in sessions},
        data=data,
        quality=_quality_shares(judged),
        coverage=_coverage(judged),
        # Nothing can be said about the signal on a tape that is not the one that was ingested.
        look_ahead=NOTHING_COMPARED if data.faults["tape_hashes"] else _look_ahead(context),
    )


EXPECTED_REJECTIONS = ("SIMULATED_MATCH", "OUTSIDE_SESSION")
"""Rows that a good recording holds too: trial matches, and what lies outside trading hours."""


def _quality_shares(judged: JudgedData) -> dict[str, float]:
    """Shares of faulty rows over the judged sessions, as the ingestion counted them."""
    rows = _quality_rows(judged)
    wanted = judged.roles.judged
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


def _quality_rows(judged: JudgedData) -> list[dict[str, Any]]:  # Any: JSON
    wanted = {(s.symbol, s.session_id) for s in judged.roles.judged}
    return [
        row
        for row in catalog.quality_report(judged.dataset)["sessions"]
        if (row["symbol"], row["session_id"]) in wanted
    ]


def _coverage(judged: JudgedData) -> dict[str, float]:
    """Share of each judged session's hours in which the recording is not silent."""
    lengths = {
        (s.symbol, s.session_id): (s.end_ns - s.start_ns) / NS_PER_S for s in judged.roles.judged
    }
    covered = {}
    for row in _quality_rows(judged):
        hours = lengths[row["symbol"], row["session_id"]]
        silent = row["starts_late_s"] + row["ends_early_s"]
        silent += sum(gap["seconds"] for gap in row["gaps"]["list"])
        covered[f"{row['symbol']} {row['session_id']}"] = round(max(0.0, 1 - silent / hours), 6)
    return dict(sorted(covered.items()))


def _data(context: GateContext) -> DataFacts:
    judged, thresholds = context.judged, context.thresholds.gate_a
    return audit_data(
        judged.dataset,
        judged.roles.judged,
        judged.instruments,
        contracts=context.contracts,
        exceptions=context.exceptions,
        delay_s_max=thresholds.delay_s_max,
        delayed_share_max=thresholds.delayed_share_max,
    )


def _look_ahead(context: GateContext) -> LookAhead:
    thresholds, sessions = context.thresholds.gate_a, context.judged.roles.judged
    found = NOTHING_COMPARED
    for session in _spread(sessions, thresholds.lookahead_sessions):
        instrument = context.instrument_of(session)
        config = signal_config(
            context.alpha.manifest,
            instrument,
            session.session_of(instrument),
            account_limits=context.account_limits,
            storm_guard=context.storm_guard,
        )
        evaluate = partial(_evaluate, config=config)
        tape = head_of(catalog.load_tape(session), LOOK_AHEAD_RECORDS_MAX)
        found += find_look_ahead(
            tape,
            evaluate,
            cuts=thresholds.lookahead_cuts,
            price_shift=PRICE_SHIFT_TICKS * instrument.tick_size,
            lot_size=instrument.lot_size,
        )
        stepped, mismatches = compare_stepwise(
            head_of(tape, STEPWISE_RECORDS_MAX),
            evaluate,
            partial(incremental_signal, config=config),
        )
        found += LookAhead(0, 0, 0, stepped, mismatches)
    return found


def _evaluate(tape: bytes, config: dict[str, Any]) -> SignalRows:
    return batch_rows(tape, config)


def _spread(sessions: Sequence[SessionRef], count: int) -> list[SessionRef]:
    """`count` sessions from the first to the last, evenly."""
    if count >= len(sessions):
        return list(sessions)
    if count == 1:
        return [sessions[0]]
    return [sessions[i * (len(sessions) - 1) // (count - 1)] for i in range(count)]
