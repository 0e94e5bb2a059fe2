"""Evidence for gate E: the runtime's signed summaries beside backtests of the same records."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform import records
from hft_platform.config.canonical import canonical_sha256
from hft_platform.config.code_hash import code_sha256
from hft_platform.config.engine_config import AlphaSpec, spec_content
from hft_platform.config.keys import KeyRing, TrustedKey, key_folder, public_key
from hft_platform.config.promoted import SignedIssue, read_signed
from hft_platform.config.promotion_folder import issued_path, promotions_root
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.execution.position_store import mids_of
from hft_platform.services.session_summary import SessionEvidence, verify_summary
from research.data.catalog import load_tape
from research.gates.context import GateContext
from research.gates.execution import quality_of
from research.gates.gate_e import ExecutionQuality, ShadowEvidence, ShadowSession
from research.gates.package_backtests import backtest
from research.gates.session_series import part_of_day, regime_of, tercile_bounds, volatility_of
from research.gates.verdict import read_verdict
from research.promotion import on_record

if TYPE_CHECKING:
    from research.backtest.runner import SessionResult
    from research.data.catalog import SessionRef


def collect(context: GateContext) -> ShadowEvidence:
    """Verify every shadow summary of the alpha and backtest the same sessions.

    Parameters
    ----------
    context : GateContext
        Its alpha's earlier verdicts have been verified.

    Returns
    -------
    ShadowEvidence
        Sessions in the order of their days; a session that was run twice counts once, its first
        run (the run with the lowest number).
    """
    refused: Counter[str] = Counter()
    unsound = 0
    chosen: dict[tuple[int, str, str], tuple[SessionEvidence, str]] = {}
    by_id = {(s.symbol, s.session_id): s for s in context.judged.dataset.sessions}
    registered = {
        row.run_id for row in on_record.sessions_since(context.ws, context.alpha, "shadow")
    }
    said = _said_by_gate_c(context)
    for path in _summaries(context.ws, context.alpha.alpha_id):
        try:
            evidence = verify_summary(path, key=public_key(context.ws, "session"))
            why = _refusal(evidence, context, by_id, registered, said)
        except PlatformError as error:
            refused[code_name(error.code)] += 1
            continue
        if why is not None:
            refused[why] += 1
            continue
        fault = _fault(evidence)
        if fault is not None:
            refused[fault] += 1
            unsound += 1
            continue
        place = (evidence.trading_day, evidence.session_id, evidence.symbol)
        chosen.setdefault(place, (evidence, evidence_sha256(evidence)))
    judged = said.get("volatility", {})
    sessions = [
        _shadow_session(
            evidence, sha, context, by_id[(evidence.symbol, evidence.session_id)], judged
        )
        for _, (evidence, sha) in sorted(chosen.items(), key=lambda row: row[0])
    ]
    return ShadowEvidence(
        tuple(sessions),
        dict(sorted(refused.items())),
        parts_of_day=tuple(
            sorted({part_of_day(name) for rows in judged.values() for name in rows})
        ),
        latency_profile_sha256=context.judged.latency_sha256,
        unsound=unsound,
    )


def _said_by_gate_c(context: GateContext) -> Mapping[str, Any]:
    """Results of gate C's verified verdict: what it chose, and how volatile its sessions were."""
    verdict = read_verdict(context.ws, context.alpha.key, "gate_c")
    return {} if verdict is None else verdict.results


def _regime(volatility: float | None, symbol: str, judged: Mapping[str, Any]) -> str | None:
    """Tercile among in-sample sessions of the same instrument."""
    rows = judged.get("in_sample", {})
    mine = [value for name, value in rows.items() if name.split(" ", 1)[0] == symbol]
    return regime_of(volatility, tercile_bounds(mine))


def _summaries(ws: Path, alpha_id: str) -> list[Path]:
    """Summaries in folders of this alpha's shadow sessions; a first run before its repetitions."""
    if not (key_folder(ws) / "session.pub").exists():
        return []
    name = re.compile(rf".*-{re.escape(alpha_id)}-shadow(-\d+)?")
    found = [p for p in (ws / "sessions").glob("*/summary.json") if name.fullmatch(p.parent.name)]
    return sorted(found, key=lambda path: (len(path.parent.name), path.parent.name))


def evidence_sha256(evidence: SessionEvidence) -> str:
    """Hash of the fields that the schema of a summary declares.

    What a runtime adds for reports (hashes of log segments, whose frames say when they were
    synced) differs between two runs of the same session, and no verdict may.
    """
    declared = set(type(evidence).model_fields)
    return canonical_sha256(evidence.model_dump(mode="json", include=declared))


def _refusal(
    evidence: SessionEvidence,
    context: GateContext,
    by_id: Mapping[tuple[str, str], SessionRef],
    registered: Collection[str],
    said: Mapping[str, Any],
) -> str | None:
    """Why a verified summary is about something else than what is judged, or None."""
    session = by_id.get((evidence.symbol, evidence.session_id))
    if evidence.alpha_id != context.alpha.alpha_id or evidence.stage != "shadow":
        return "another alpha or stage"
    if evidence.alpha_hash != context.alpha.alpha_hash:
        return "another version of the alpha"
    if evidence.code_sha256 != code_sha256():
        return "other code"
    if evidence.latency_profile_sha256 != context.judged.latency_sha256:
        return "another latency profile"
    if evidence.queue_model != context.alpha.manifest.queue_model:
        return "another queue model"
    if session is None or session.tape_sha256 != evidence.tape_sha256:
        return "a session that is not in the dataset"
    if session in context.judged.roles.judged:
        return "a session that gate C has seen"
    if evidence.run_id not in registered:
        return "a session of a withdrawn permit, or one that never began"
    chosen = said.get("chosen_parameters")
    if chosen is not None and _signed(evidence, context).content.parameters != chosen:
        return "other parameters than gate C chose"
    return None


def _fault(evidence: SessionEvidence) -> str | None:
    """Why a session that was to be judged cannot be, or None."""
    if evidence.parity is None or evidence.account is None:
        return "no parity or no account"
    if evidence.shed_count:
        return code_name(ReasonCode.SESSION_SHED)
    return None


def _shadow_session(
    evidence: SessionEvidence,
    sha256: str,
    context: GateContext,
    session: SessionRef,
    judged: Mapping[str, Any],
) -> ShadowSession:
    if evidence.parity is None or evidence.account is None:
        raise PlatformError(ReasonCode.INVARIANT_BROKEN, "a summary without parity was counted")
    result = _backtest_of(evidence, context, session)
    volatility = volatility_of(*mids_of(records.split(result.inputs)["Book"]))
    return ShadowSession(
        session_id=evidence.session_id,
        trading_day=evidence.trading_day,
        summary_sha256=sha256,
        parity_identical=evidence.parity.identical,
        parity_total=evidence.parity.total,
        orders=evidence.counts.orders,
        rejects=evidence.counts.broker_rejects,
        unknown=evidence.counts.unknown,
        halted_by=evidence.halted_by,
        session=ExecutionQuality(
            fills=evidence.account.fill_count,
            slippage_ticks=evidence.slippage_ticks,
            markout_ticks=dict(evidence.markout_ticks),
            order_latency_ms=dict(evidence.order_latency_ms),
        ),
        backtest=quality_of(result, context.instrument_of(session)),
        net=evidence.account.net,
        backtest_net=result.net_pnl,
        volatility=volatility,
        regime=_regime(volatility, evidence.symbol, judged),
        part_of_day=part_of_day(evidence.session_id),
    )


def _backtest_of(
    evidence: SessionEvidence, context: GateContext, session: SessionRef
) -> SessionResult:
    """Backtest a session with exactly what was signed for it."""
    spec = AlphaSpec(
        symbol=session.symbol,
        weight_ppm=evidence.weight_ppm,
        **spec_content(_signed(evidence, context).content),
    )
    return backtest(
        context,
        spec,
        session,
        load_tape(session),
        latency_corner=None,
        queue_model=evidence.queue_model,
    )


def _signed(evidence: SessionEvidence, context: GateContext) -> SignedIssue:
    """The issue that a session traded under."""
    path = issued_path(
        promotions_root(context.ws),
        evidence.alpha_id,
        evidence.promotion_seq,
        evidence.config_sha256,
    )
    signed = read_signed(path, trusted_keys=_trusted(context))
    if signed.content_sha256 != evidence.config_sha256:
        raise PlatformError(
            ReasonCode.CONFIG_EVIDENCE_MISMATCH,
            f"session {evidence.session_id} names another config than issue "
            f"{evidence.promotion_seq} of {evidence.alpha_id}",
        )
    return signed


def _trusted(context: GateContext) -> Mapping[str, TrustedKey]:
    return KeyRing.open(context.ws, pinned_file=context.pinned_keys).trusted()
