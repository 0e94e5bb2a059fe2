"""Session facts: what a finished session's own logs say it did.

Why: gate E, the canary and the report read these numbers; they come from the records that the
engine saw and decided, never from counters that a process kept beside them.

Invariants:
1. Everything is a function of the logs, the config and the recording: no clock, no path.
2. What cannot be measured is None, never 0.
3. Money and quantities are integers at 1e-8; ticks and milliseconds are floats for people.

It signs nothing (see `session_summary`). Operator's page: `docs/formats.md`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hft_platform import records
from hft_platform.config.code_hash import code_sha256
from hft_platform.execution import position_store
from hft_platform.execution.pnl_parts import pnl_parts

if TYPE_CHECKING:
    from hft_platform.config.promoted import PromotedConfig
    from hft_platform.feed.recording import RecordedSession
    from hft_platform.market.instruments import Instrument
    from hft_platform.services.parity import ParityReport, SessionLogs

MARKOUT_NS = {"1s": 1_000_000_000, "10s": 10_000_000_000}
REJECTED, UNKNOWN = 2, 7
"""`BrokerEventKind` in rust_core/src/record.rs."""
PLACE, APPROVED, REFUSED = 1, 1, 2
"""`ActionKind` and verdicts of a decision."""


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What was run, and what it left.

    Attributes
    ----------
    run_id : str
        Name of the session's folder.
    config : PromotedConfig
        Verified.
    session : RecordedSession
        The recording that played the market.
    instrument : Instrument
        The one traded.
    mode : str
        ``sim`` or ``paper``.
    weight_ppm : int
        Weight at the start.
    latency_sha256 : str
        Hash of the latency profile.
    logs : SessionLogs
        Inputs and decisions as logged.
    parity : ParityReport
        Of the replay.
    halted_by : int
        Reason code, 0 if nothing halted it.
    is_withdrawn : bool
        Whether the permit was taken back while it ran.
    """

    run_id: str
    config: PromotedConfig
    session: RecordedSession
    instrument: Instrument
    mode: str
    weight_ppm: int
    latency_sha256: str
    logs: SessionLogs
    parity: ParityReport
    halted_by: int
    is_withdrawn: bool


def evidence_of(facts: SessionFacts) -> dict[str, Any]:
    """Evidence part of the session's summary; see `session_summary.SessionEvidence`.

    Parameters
    ----------
    facts : SessionFacts
        A finished session.

    Returns
    -------
    dict
        Canonical JSON content.
    """
    config, instrument = facts.config, facts.instrument
    parts = records.split(facts.logs.inputs)
    decisions = np.frombuffer(facts.logs.decisions, dtype=records.DTYPES["Decision"])
    broker, books = parts["Broker"], parts["Book"]
    account = position_store.account_session(broker, books, instrument)
    fills = position_store.fills_of(broker)
    return {
        "schema": 1,
        "run_id": facts.run_id,
        "alpha_id": config.alpha_id,
        "alpha_hash": config.alpha_hash,
        "config_sha256": config.content_sha256,
        "promotion_seq": config.promotion_seq,
        "stage": config.stage,
        "weight_ppm": facts.weight_ppm,
        "mode": facts.mode,
        "symbol": instrument.symbol,
        "session_id": facts.session.session_id,
        "trading_day": facts.session.trading_day,
        "tape_sha256": facts.session.tape_sha256,
        "latency_profile_sha256": facts.latency_sha256,
        "queue_model": config.queue_model,
        "code_sha256": code_sha256(),
        "counts": counts_of(parts, decisions) | {"filled_orders": filled_orders(fills, decisions)},
        "decisions_sha256": facts.parity.decisions_sha256,
        "inputs_sha256": facts.parity.inputs_sha256,
        "parity": {"identical": facts.parity.identical, "total": facts.parity.total},
        "account": position_store.as_dict(account),
        "pnl": [
            {
                "instrument_id": instrument.instrument_id,
                "symbol": instrument.symbol,
                "snapshot_time_ns": _last_time_ns(parts),
                **pnl_parts(broker, account, instrument),
            }
        ],
        "order_latency_ms": order_latency_ms(decisions, broker),
        "slippage_ticks": slippage_ticks(fills, decisions, instrument.tick_size),
        "markout_ticks": {
            name: markout_ticks(fills, books, horizon, instrument.tick_size)
            for name, horizon in MARKOUT_NS.items()
        },
        "shed_count": sum(one.count for one in facts.logs.shed),
        "shed": [asdict(one) for one in facts.logs.shed],
        "not_replayable": facts.parity.not_replayable,
        "halted_by": facts.halted_by,
        "withdrawn": facts.is_withdrawn,
    }


def _last_time_ns(parts: dict[str, position_store.Records]) -> int:
    return max(int(part["sequence_time_ns"][-1]) for part in parts.values() if part.size)


def counts_of(
    parts: dict[str, position_store.Records], decisions: position_store.Records
) -> dict[str, Any]:
    """Counts of a session's inputs by type and of its decisions; see `session_summary.Counts`."""
    refused = decisions[decisions["verdict"] == REFUSED]
    codes, counts = np.unique(refused["reason_code"], return_counts=True)
    kinds = parts["Broker"]["event_kind"]
    approved = decisions["verdict"] == APPROVED
    return {
        "records": int(sum(part.size for part in parts.values())),
        "decisions": int(decisions.size),
        "approved": int(approved.sum()),
        "refused_by_code": {
            str(int(code)): int(count) for code, count in zip(codes, counts, strict=True)
        },
        "orders": int((approved & (decisions["action"] == PLACE)).sum()),
        "broker_rejects": int((kinds == REJECTED).sum()),
        "unknown": int((kinds == UNKNOWN).sum()),
    }


def order_latency_ms(
    decisions: position_store.Records, broker: position_store.Records
) -> dict[str, float | None]:
    """Median and 95th percentile of decision to first broker report, in record time."""
    placed = _placed(decisions)
    if placed.size == 0 or broker.size == 0:
        return {"p50": None, "p95": None}
    ids, first = np.unique(broker["order_id"], return_index=True)
    position = np.minimum(np.searchsorted(ids, placed["order_id"]), ids.size - 1)
    known = ids[position] == placed["order_id"]
    waits = (
        broker["sequence_time_ns"][first[position[known]]] - placed["sequence_time_ns"][known]
    ) / 1e6
    if waits.size == 0:
        return {"p50": None, "p95": None}
    return {"p50": float(np.quantile(waits, 0.5)), "p95": float(np.quantile(waits, 0.95))}


def filled_orders(fills: position_store.Records, decisions: position_store.Records) -> int:
    """Number of orders sent that had at least one fill."""
    return int(np.isin(_placed(decisions)["order_id"], fills["order_id"]).sum())


def slippage_ticks(
    fills: position_store.Records, decisions: position_store.Records, tick_size: int
) -> float | None:
    """Mean cost of a fill against the mid at its decision, in ticks; positive is worse."""
    placed = _placed(decisions)
    reference = dict(
        zip(placed["order_id"].tolist(), placed["reference_price"].tolist(), strict=True)
    )
    costs = [
        int(fill["side"]) * (int(fill["price"]) - reference[int(fill["order_id"])]) / tick_size
        for fill in fills
        if int(fill["order_id"]) in reference
    ]
    return float(np.mean(costs)) if costs else None


def markout_ticks(
    fills: position_store.Records,
    books: position_store.Records,
    horizon_ns: int,
    tick_size: int,
) -> float | None:
    """Mean move of the mid in our direction `horizon_ns` after a fill, from the fill price."""
    times, mids = position_store.mids_of(books)
    if fills.size == 0 or times.size == 0:
        return None
    index = np.searchsorted(times, fills["exchange_time_ns"] + horizon_ns, side="right") - 1
    moves = fills["side"] * (mids[np.maximum(index, 0)] - fills["price"]) / tick_size
    return float(np.mean(moves))


def _placed(decisions: position_store.Records) -> position_store.Records:
    is_placed = (decisions["action"] == PLACE) & (decisions["verdict"] == APPROVED)
    placed: position_store.Records = decisions[is_placed]
    return placed
