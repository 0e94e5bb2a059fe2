"""Run a gate: collect its evidence, judge it, write the verdict, whatever it says.

Why: the graph, the command line and a notebook call this one function and get the same bytes.

Invariants:
1. A gate whose upstream verdict is missing, failed, stale or tampered is refused: it raises and
   writes nothing.
2. From then on a verdict is written always: what cannot be computed is `not_computed` with its
   reason, and its inputs.
3. Running a gate again with equal inputs writes equal bytes and adds no trial.

Operator's page: `docs/gates.md`.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import structlog

from hft_platform.config.canonical import canonical_sha256
from hft_platform.config.code_hash import code_sha256
from hft_platform.errors import PlatformError, ReasonCode
from research.data.catalog import tapes_kept
from research.experiments import TrialLedger
from research.gates import collect_a, collect_b, collect_c, collect_d, collect_e, gate_c
from research.gates.context import GateContext, open_context
from research.gates.package_backtests import PackageBacktests
from research.gates.verdict import (
    GATES,
    UPSTREAM,
    Finding,
    GateVerdict,
    Verdict,
    reason,
    require_chain,
    require_verdict,
    write_verdict,
)
from research.promotion import on_record
from research.registry import Alpha, declare, find_alpha

log = structlog.get_logger(__name__)
Collected = tuple[Finding, dict[str, Any]]


def run_gate(
    ws: Path,
    alpha: Alpha | str,
    gate: str,
    *,
    alphas_folder: Path | None = None,
    config_dir: Path | None = None,
    workers: int = 1,
) -> Verdict:
    """Judge an alpha by one gate and write the verdict.

    Parameters
    ----------
    ws : Path
        Workspace folder.
    alpha : Alpha or str
        The alpha, or its key or id.
    gate : str
        ``gate_a`` to ``gate_e``.
    alphas_folder : Path, optional
        Where a key is looked up, by default the bundled alphas.
    config_dir : Path, optional
        Configuration of one's own.
    workers : int, optional
        Backtests at a time; the verdict does not depend on it.

    Returns
    -------
    Verdict
        As written.

    Raises
    ------
    PlatformError
        UPSTREAM_VERDICT_MISSING, UPSTREAM_VERDICT_FAILED, VERDICT_TAMPERED, VERDICT_STALE,
        LEDGER_BEHIND_AUDIT, VERDICT_NOT_RECORDED, THRESHOLDS_NOT_RECORDED when they changed
        without an entry in the audit chain, AUDIT_BROKEN, or when there is nothing to judge by
        (no dataset, no profile).
    """
    if gate not in GATES:
        raise ValueError(f"gate was {gate!r}, known are {', '.join(GATES)}")
    found = find_alpha(alpha, alphas_folder) if isinstance(alpha, str) else alpha
    return judge(open_context(ws, found, config_dir=config_dir, workers=workers), gate)


def judge(context: GateContext, gate: str) -> Verdict:
    """Judge by one gate within a context; see `run_gate`."""
    ws, alpha = context.ws, context.alpha
    thresholds = context.thresholds.hashes()
    on_record.require_gate_standing(ws, thresholds)
    before = UPSTREAM[gate]
    judged_by = _judged_by(context)
    upstream = (
        require_chain(ws, alpha, before, thresholds=thresholds, judged_by=judged_by)
        if before
        else {}
    )
    if gate == "gate_d" and (admitted := _admitted(context, upstream)) is not None:
        return admitted
    declare(ws, alpha, context.judged)
    inputs: dict[str, Any] = judged_by | {
        "sessions": [session.tape_sha256 for session in context.judged.roles.judged],
        "upstream": upstream,
    }
    finding, more = find(context, gate)
    verdict = Verdict(
        gate=gate,
        alpha_id=alpha.alpha_id,
        alpha_hash=alpha.alpha_hash,
        verdict=finding.verdict,
        reasons=finding.reasons,
        thresholds_sha256=thresholds[gate],
        code_sha256=code_sha256(),
        inputs=inputs | more,
        results=finding.results,
    )
    write_verdict(ws, alpha, verdict)
    return verdict


def find(context: GateContext, gate: str) -> Collected:
    """Collect a gate's evidence and evaluate it; nothing is written.

    Parameters
    ----------
    context : GateContext
        What is judged, and by what.
    gate : str
        ``gate_a`` to ``gate_e``.

    Returns
    -------
    Finding
        What cannot be computed is `not_computed` with its reason.
    dict
        Inputs that the evidence names.

    Raises
    ------
    PlatformError
        As `run_gate`, for what a gate refuses to judge by.
    """
    try:
        with tapes_kept():
            return _COLLECT[gate](context)
    except PlatformError as error:
        if error.code in _REFUSALS:
            raise
        return _not_computed(error.code, _without_paths(error.message, context)), {}
    except Exception as error:  # noqa: BLE001  # logged; the verdict says that nothing is known
        log.error(
            "gate_crashed",
            gate=gate,
            alpha=context.alpha.key,
            reason_code=int(ReasonCode.GATE_NOT_COMPUTED),
            trace=traceback.format_exc(),
        )
        text = f"{type(error).__name__} while computing {gate}"
        return _not_computed(ReasonCode.GATE_NOT_COMPUTED, text), {}


def _admitted(context: GateContext, upstream: dict[str, str]) -> Verdict | None:
    """Gate D's verdict when the alpha trades by it and nothing about it changed.

    The pool it was admitted to is part of that evidence; members that came later do not open the
    question again. As long as it does not trade, it is judged against the pool as it is.
    """
    if context.alpha.key not in collect_d.pool_members(context.ws, pinned_keys=context.pinned_keys):
        return None
    try:
        verdict = require_verdict(
            context.ws,
            context.alpha,
            "gate_d",
            thresholds_sha256=context.thresholds.hashes()["gate_d"],
        )
    except PlatformError:
        return None  # by other code, thresholds or trials: judged below
    return verdict if verdict.inputs.get("upstream") == upstream else None


_REFUSALS = frozenset(
    int(code)
    for code in (
        ReasonCode.UPSTREAM_VERDICT_MISSING,
        ReasonCode.UPSTREAM_VERDICT_FAILED,
        ReasonCode.VERDICT_TAMPERED,
        ReasonCode.VERDICT_STALE,
        ReasonCode.LEDGER_BEHIND_AUDIT,
        ReasonCode.VERDICT_NOT_RECORDED,
        ReasonCode.AUDIT_BROKEN,
        ReasonCode.WAL_WRITE_FAILED,
    )
)


def _judged_by(context: GateContext) -> dict[str, str]:
    judged = context.judged
    return {
        "dataset": judged.dataset.sha256,
        "latency_profile": judged.latency_sha256,
        "costs": judged.costs_sha256,
    }


def _gate_a(context: GateContext) -> Collected:
    from research.gates import gate_a

    evidence = collect_a.collect(context)
    return gate_a.evaluate(evidence, context.thresholds.gate_a), {}


def _gate_b(context: GateContext) -> Collected:
    from research.gates import gate_b

    evidence = collect_b.collect(context)
    return gate_b.evaluate(evidence, context.thresholds.gate_b), {}


def _gate_c(context: GateContext) -> Collected:
    from research.gates import trials_c
    from research.gates.foresight_c import foresight_of

    ledger = TrialLedger(context.ws).head()
    roles = context.judged.roles
    with (
        trials_c.failures_recorded(context, declared=ledger.count),
        ThreadPoolExecutor(max_workers=context.workers) as pool,
    ):
        made = collect_c.collect(
            context.alpha.manifest,
            context.thresholds.gate_c,
            PackageBacktests(context),
            in_sample=len(roles.in_sample),
            out_of_sample=len(roles.out_of_sample),
            trial_count=ledger.count,
            map_sessions=map if context.workers == 1 else pool.map,
        )
    evidence, counted = trials_c.count_trials(context, made.evidence, declared=ledger.count)
    found = gate_c.evaluate(evidence, context.thresholds.gate_c)
    results = found.results | {
        "promise": made.promise,
        "displayed_share": list(made.displayed_share),
        "signal": foresight_of(context, found.results["chosen_parameters"]),
    }
    inputs = {
        "ledger": counted,
        "trials": canonical_sha256(trials_c.trial_keys(context)),
        "account_limits": canonical_sha256(context.account_limits),
        "storm_guard": canonical_sha256(context.storm_guard),
    }
    return Finding(found.verdict, found.reasons, results | made.series), inputs


def _gate_d(context: GateContext) -> Collected:
    from research.gates import gate_d

    evidence, members = collect_d.collect(context)
    return gate_d.evaluate(evidence, context.thresholds.gate_d), {"pool": members}


def _gate_e(context: GateContext) -> Collected:
    from research.gates import gate_e

    on_record.require_sessions_kept(context.ws, context.alpha, "shadow")
    evidence = collect_e.collect(context)
    summaries = [session.summary_sha256 for session in evidence.sessions]
    return gate_e.evaluate(evidence, context.thresholds.gate_e), {"summaries": summaries}


_COLLECT: dict[str, Callable[[GateContext], Collected]] = {
    "gate_a": _gate_a,
    "gate_b": _gate_b,
    "gate_c": _gate_c,
    "gate_d": _gate_d,
    "gate_e": _gate_e,
}


def _not_computed(code: int, text: str) -> Finding:
    return Finding(GateVerdict.NOT_COMPUTED, (reason(code, text),), {})


def _without_paths(text: str, context: GateContext) -> str:
    """A verdict holds no path: workspace and alpha folder are named, not located."""
    for path, name in ((context.ws, "workspace"), (context.alpha.folder, context.alpha.alpha_id)):
        for shown in {str(path), str(path.absolute())}:
            text = text.replace(shown, name)
    return text
