"""Evidence for gate E: the runtime's signed summaries beside backtests of the same records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.config.code_hash import code_sha256
from hft_platform.config.engine_config import AlphaSpec, build_engine_config
from hft_platform.config.keys import key_folder, public_key
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services.session_summary import SessionEvidence, verify_summary
from research.backtest.runner import SessionResult, run_session
from research.data import load_tape
from research.gates.context import GateContext
from research.gates.execution import quality_of
from research.gates.gate_e import ExecutionQuality, ShadowEvidence, ShadowSession
from research.gates.verdict import read_verdict

if TYPE_CHECKING:
    from research.data import SessionRef


def collect(context: GateContext) -> ShadowEvidence:
    """Verify every shadow summary of the alpha and backtest the same sessions.

    Parameters
    ----------
    context : GateContext
        Gate C's verdict of the alpha has been verified: its parameters are used.

    Returns
    -------
    ShadowEvidence
        Sessions in the order of their days; a session that was run twice counts once, its first
        run (the run with the lowest number).
    """
    refused: list[str] = []
    chosen: dict[str, tuple[str, SessionEvidence, str]] = {}
    by_id = {(s.symbol, s.session_id): s for s in context.dataset.sessions}
    for path in sorted(_summaries(context.ws), key=lambda p: (len(p.parent.name), p.parent.name)):
        try:
            evidence = verify_summary(path, key=public_key(context.ws, "session"))
        except PlatformError as error:
            refused.append(f"{path.parent.name}: {error.code}")
            continue
        if evidence.alpha_id != context.alpha.alpha_id or evidence.stage != "shadow":
            continue
        why = _refusal(evidence, context, by_id)
        if why is not None:
            refused.append(f"{path.parent.name}: {why}")
            continue
        chosen.setdefault(
            f"{evidence.trading_day}/{evidence.session_id}/{evidence.symbol}",
            (path.parent.name, evidence, _summary_sha256(path)),
        )
    sessions = [
        _shadow_session(evidence, sha, context, by_id[(evidence.symbol, evidence.session_id)])
        for _, (_, evidence, sha) in sorted(chosen.items())
    ]
    return ShadowEvidence(tuple(sessions), tuple(refused))


def _summaries(ws: Path) -> list[Path]:
    if not (key_folder(ws) / "session.pub").exists():
        return []
    return sorted((ws / "sessions").glob("*/summary.json"))


def _summary_sha256(path: Path) -> str:
    import json

    return str(json.loads(path.read_bytes())["evidence_sha256"])


def _refusal(
    evidence: SessionEvidence,
    context: GateContext,
    by_id: Mapping[tuple[str, str], SessionRef],
) -> str | None:
    """Why a verified summary is no evidence for this alpha, or None."""
    session = by_id.get((evidence.symbol, evidence.session_id))
    if evidence.alpha_hash != context.alpha.alpha_hash:
        return "another version of the alpha"
    if evidence.code_sha256 != code_sha256():
        return "other code"
    if evidence.latency_profile_sha256 != context.latency_sha256:
        return "another latency profile"
    if evidence.queue_model != context.alpha.manifest.queue_model:
        return "another queue model"
    if session is None or session.tape_sha256 != evidence.tape_sha256:
        return "a session that is not in the dataset"
    if session in context.roles.judged:
        return "a session that gate C has seen"
    if evidence.parity is None or evidence.account is None:
        return "no parity or no account"
    return None


def _shadow_session(
    evidence: SessionEvidence, sha256: str, context: GateContext, session: SessionRef
) -> ShadowSession:
    if evidence.parity is None or evidence.account is None:
        raise PlatformError(ReasonCode.INVARIANT_BROKEN, "a summary without parity was counted")
    result = backtest_of(context, session, weight_ppm=evidence.weight_ppm)
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
        ),
        backtest=quality_of(result, context.instruments[session.symbol]),
        net=evidence.account.net,
        backtest_net=result.net_pnl,
    )


def backtest_of(context: GateContext, session: SessionRef, *, weight_ppm: int) -> SessionResult:
    """Backtest a session with the parameters that gate C chose and a session's weight.

    Parameters
    ----------
    context : GateContext
        Of an alpha that has a verdict of gate C.
    session : SessionRef
        Any session of the dataset.
    weight_ppm : int
        Size as the session had it.

    Returns
    -------
    SessionResult
    """
    verdict = read_verdict(context.ws, context.alpha.key, "gate_c")
    if verdict is None:
        raise PlatformError(
            ReasonCode.UPSTREAM_VERDICT_MISSING, f"{context.alpha.key} has no verdict of gate_c"
        )
    parameters: dict[str, Any] = verdict.results["chosen_parameters"]
    instrument = context.instruments[session.symbol]
    spec = AlphaSpec.from_manifest(
        context.alpha.manifest.model_dump(mode="json"),
        parameters,
        instrument,
        weight_ppm=weight_ppm,
    )
    config = build_engine_config(
        [spec],
        instruments=[instrument],
        session=session.session_of(instrument),
        account_limits=context.account_limits,
    )
    return run_session(
        load_tape(session),
        config,
        latency=context.latency,
        queue_model=context.alpha.manifest.queue_model,
        instrument=instrument,
    )
