"""Post-market check: whether a session's end is explained, and its signed summary.

Why: a day is over when the broker's orders and positions are ours, and somebody signed for it.

Invariants:
1. What could not be asked is a problem, not an agreement.
2. A session with a problem is not summed up: it stays unfinished, and the same command asks again.
3. `summary.json` is written for a session that reached its end; one that was stopped before has
   `stopped.json`, of the same form, and may go on. Neither is written over.
4. A rehearsal lies apart and says so in its mode: no gate and no canary reads it.

It resolves nothing (reconciliation does). Operator's page: `docs/live.md`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hft_platform import records
from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.config.keys import KeyRing
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.feed.recording import RecordedSession
from hft_platform.market.instruments import Instrument
from hft_platform.services import session_summary
from hft_platform.services.hft_system import HFTSystem, StopCause, SystemParts
from hft_platform.services.parity import ParityReport, SessionLogs, parity_of, read_session
from hft_platform.services.parity import write_report as write_parity
from hft_platform.services.session_facts import SessionFacts, evidence_of

REPORT_FILE = "report.json"
SUMMARY_FILE, STOPPED_FILE = "summary.json", "stopped.json"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not explained."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class PostMarket:
    """What the check found.

    Attributes
    ----------
    problems : tuple of Problem
        Empty when everything is explained.
    positions : mapping of str to int
        Ours, by symbol, scaled.
    """

    problems: tuple[Problem, ...]
    positions: Mapping[str, int]

    @property
    def is_flat(self) -> bool:
        """Whether nothing is held."""
        return not any(self.positions.values())


def post_market(parts: SystemParts) -> PostMarket:
    """Hold the session's orders and positions against the broker's.

    Parameters
    ----------
    parts : SystemParts
        Stopped, with the broker still connected.

    Returns
    -------
    PostMarket
    """
    problems = [
        Problem(
            int(
                ReasonCode.ORDER_OUTCOME_UNKNOWN
                if row["state"] == "unknown"
                else ReasonCode.SESSION_UNEXPLAINED
            ),
            f"order {row['order_id']} is {row['state']}:"
            f" {row['qty'] / 1e8:g} at {row['price'] / 1e8:g}",
        )
        for row in parts.session.orders()
    ]
    ours = positions_of(parts)
    try:
        theirs = {row.symbol: row.net_qty for row in parts.broker.positions()}
    except PlatformError as error:
        text = f"the broker could not be asked for its positions: {error.message}"
        problems.append(Problem(int(ReasonCode.POSITION_UNANSWERED), text))
        return PostMarket(tuple(problems), ours)
    external = external_qty(parts)
    for symbol in sorted(ours):
        drift = theirs.get(symbol, 0) - ours[symbol] - external.get(symbol, 0)
        if drift:
            text = (
                f"{symbol}: the broker has {theirs.get(symbol, 0) / 1e8:g},"
                f" we have {ours[symbol] / 1e8:g}"
            )
            problems.append(Problem(int(ReasonCode.POSITION_DRIFT), text))
    return PostMarket(tuple(problems), ours)


def positions_of(parts: SystemParts) -> dict[str, int]:
    """Our net position by symbol, every traded one named."""
    net = dict.fromkeys((row.symbol for row in parts.instruments.values()), 0)
    for row in parts.session.positions():
        net[parts.instruments[int(row["instrument_id"])].symbol] += int(row["position_qty"])
    return net


def external_qty(parts: SystemParts) -> dict[str, int]:
    """What an operator adopted, by symbol."""
    return {
        instrument.symbol: parts.external_qty(instrument_id)
        for instrument_id, instrument in parts.instruments.items()
    }


@dataclass(frozen=True, slots=True)
class Concluded:
    """How a session ended.

    Attributes
    ----------
    summary : dict
        Signed.
    parity : ParityReport
        Of its replay.
    report : dict
        Content of `report.json`.
    """

    summary: dict[str, Any]
    parity: ParityReport
    report: dict[str, Any]


def conclude(
    system: HFTSystem,
    cause: StopCause,
    found: PostMarket,
    *,
    engine_config: dict[str, Any],
    ring: KeyRing,
    finished: Mapping[str, Any],
) -> Concluded:
    """Report, and if everything is explained replay, sum up and sign.

    Parameters
    ----------
    system : HFTSystem
        Stopped, its logs sealed.
    cause : StopCause
        Why it ended.
    found : PostMarket
        Of the check.
    engine_config : dict
        What it decided by.
    ring : KeyRing
        Holds the session key.
    finished : mapping
        What the session said when it was sealed.

    Returns
    -------
    Concluded

    Raises
    ------
    PlatformError
        SESSION_UNEXPLAINED with what is not explained.
    """
    parts = system.parts
    report = {
        "run_id": parts.session_dir.name,
        "mode": parts.mode,
        "cause": str(cause),
        "is_explained": not found.problems,
        "is_flat": found.is_flat,
        "positions": dict(sorted(found.positions.items())),
        "problems": [
            {"code": row.code, "reason": code_name(row.code), "text": row.text}
            for row in found.problems
        ],
        "alarms": [
            {"code": alarm.code, "reason": code_name(alarm.code), "text": alarm.message}
            for alarm in parts.control.alarms
        ],
    }
    atomic_write(parts.session_dir / REPORT_FILE, canonical_json(report) + b"\n")
    if found.problems:
        raise PlatformError(
            ReasonCode.SESSION_UNEXPLAINED,
            f"session {parts.session_dir.name}: "
            + "; ".join(row.text for row in found.problems[:5]),
            next_step="hft-live reconcile; run the same command again, it asks the broker first",
            facts=report,
        )
    logs = read_session(parts.session_dir)
    parity = parity_of(logs, engine_config)
    write_parity(parts.session_dir, parity)
    facts = SessionFacts(
        run_id=parts.session_dir.name,
        config=parts.control.config,
        session=_as_logged(parts, logs),
        instrument=_only(parts.instruments),
        mode=parts.mode,
        weight_ppm=int(engine_config["alphas"][0]["weight_ppm"]),
        latency_sha256=parts.control.config.latency_profile_sha256,
        logs=logs,
        parity=parity,
        halted_by=int(parts.session.state()["halted_by"]),
        is_withdrawn=parts.control.is_withdrawn,
    )
    timings = {
        "latency": finished.get("latency", {}),
        "segments": [row["sha256"] for row in logs.segments],
    }
    evidence = evidence_of(facts) | {"stopped_early": cause != StopCause.SESSION_END}
    summary = session_summary.sign_summary(evidence, timings, ring.session_key())
    name = SUMMARY_FILE if cause == StopCause.SESSION_END else STOPPED_FILE
    session_summary.write_summary(parts.session_dir / name, summary)
    return Concluded(summary, parity, report)


def _as_logged(parts: SystemParts, logs: SessionLogs) -> RecordedSession:
    """The market as this session saw it: no recording, its own log."""
    market = records.split(logs.inputs)
    digest = hashlib.sha256()
    for name in ("Book", "Trade"):
        digest.update(market[name].tobytes())
    return RecordedSession(
        symbol=_only(parts.instruments).symbol,
        session_id=parts.traded.session_id,
        trading_day=parts.traded.trading_day,
        start_ns=parts.traded.start_ns,
        end_ns=parts.traded.end_ns,
        path=parts.session_dir,
        tape_sha256=digest.hexdigest(),
        record_count=int(market["Book"].size + market["Trade"].size),
    )


def _only(instruments: Mapping[int, Instrument]) -> Instrument:
    (instrument,) = instruments.values()
    return instrument
