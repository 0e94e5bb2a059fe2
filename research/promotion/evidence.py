"""What a promotion rests on: verified verdicts, the data they saw, and signed sessions.

Why: the signer must find the evidence itself; a request can only name whom it is about.

Invariants:
1. Nothing here is taken from a request: verdicts, datasets and summaries are read from disk and
   verified again.
2. A summary that does not verify is reported, never skipped in silence.

It decides nothing. Operator's page: `docs/promotion.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hft_platform.config.keys import public_key
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.feed.recording import (
    RecordedSession,
    dataset_folders,
    load_tape,
    sessions_in,
)
from hft_platform.services.session_register import begun_sessions
from hft_platform.services.session_summary import SessionEvidence, verify_summary
from research.data import catalog
from research.gates.thresholds import load_thresholds
from research.gates.verdict import GATES, Verdict, read_verdict, require_chain
from research.promotion import on_record

if TYPE_CHECKING:
    from research.registry import Alpha

STAGE_GATES: Mapping[str, tuple[str, ...]] = {
    "shadow": GATES[:2],
    "canary": GATES,
    "live": GATES,
}
"""Gates that must have passed for a stage: shadow A and B, canary and live all five."""
_NOT_PASSED = frozenset(
    {
        int(ReasonCode.UPSTREAM_VERDICT_MISSING),
        int(ReasonCode.UPSTREAM_VERDICT_FAILED),
        int(ReasonCode.VERDICT_STALE),
    }
)


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """One session folder of an alpha: verified evidence, or why there is none."""

    run_id: str
    evidence: SessionEvidence | None
    problem: str
    promotion_seq: int | None = None
    """Of a session without evidence, as the runtime registered it; None when nothing says."""


def passed_verdicts(
    ws: Path, alpha: Alpha, stage: str, *, config_dir: Path | None = None
) -> dict[str, Verdict]:
    """Verify every gate that a stage needs.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        The alpha as it is now.
    stage : str
        `shadow`, `canary` or `live`.
    config_dir : Path, optional
        Folder with an overriding `gates.yaml`.

    Returns
    -------
    dict of str to Verdict
        By gate.

    Raises
    ------
    PlatformError
        705 to 708, 711 or VERDICT_NOT_RECORDED as the verdicts deserve, THRESHOLDS_NOT_RECORDED,
        AUDIT_BROKEN.
    """
    last = STAGE_GATES[stage][-1]
    thresholds = load_thresholds(config_dir).hashes()
    if stage == "shadow" and _holds(ws, alpha, "gate_c", thresholds):
        last = "gate_c"  # so that the runtime shows the setting that is to be promoted
    hashes = require_chain(ws, alpha, last, thresholds=thresholds)
    on_record.require_thresholds_on_record(
        ws, {on_record.GATE_FILE: on_record.gate_thresholds_sha256(thresholds)}
    )
    verdicts: dict[str, Verdict] = {}
    for gate, sha in hashes.items():
        verdict = read_verdict(ws, alpha.key, gate)
        if verdict is None or verdict.sha256 != sha:
            raise PlatformError(
                ReasonCode.VERDICT_TAMPERED, f"verdict {gate} of {alpha.key} changed while read"
            )
        verdicts[gate] = verdict
    return verdicts


def _holds(ws: Path, alpha: Alpha, gate: str, thresholds: Mapping[str, str]) -> bool:
    """Whether a gate and those before it passed, and nothing changed since.

    A verdict that was edited, or that no gate recorded, is refused as for any other stage.
    """
    try:
        require_chain(ws, alpha, gate, thresholds=thresholds)
    except PlatformError as error:
        if error.code in _NOT_PASSED:
            return False
        raise
    return True


def recorded_sessions(ws: Path) -> dict[str, RecordedSession]:
    """Sessions of every dataset of the workspace, by the hash of their tape."""
    return {
        session.tape_sha256: session
        for folder in dataset_folders(ws)
        for session in sessions_in(folder)
    }


def judged_sessions(ws: Path, alpha: Alpha, verdict: Verdict) -> list[RecordedSession]:
    """Sessions that a verdict was allowed to learn from or judge on, in time order.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        For messages.
    verdict : Verdict
        Verified; names the tapes by hash.

    Returns
    -------
    list of RecordedSession
        A config is valid from the end of the last one on, so it never trades what it was fitted
        to.

    Raises
    ------
    PlatformError
        CONFIG_EVIDENCE_MISMATCH when the workspace does not hold every one of them.
    """
    recorded = recorded_sessions(ws)
    tapes = [str(tape) for tape in verdict.inputs["sessions"]]
    missing = [tape for tape in tapes if tape not in recorded]
    if missing or not tapes:
        raise PlatformError(
            ReasonCode.CONFIG_EVIDENCE_MISMATCH,
            f"{verdict.gate} of {alpha.key} judged {len(tapes)} sessions; "
            f"{len(missing)} of them are in no dataset of {ws / 'datasets'}",
            next_step="ingest the recordings again, then run the gates again",
        )
    return sorted((recorded[tape] for tape in tapes), key=lambda s: (s.end_ns, s.symbol))


def require_tapes_unchanged(ws: Path, alpha: Alpha, verdict: Verdict) -> None:
    """Read every judged tape again and hold it against the hash that the verdict names.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        For messages.
    verdict : Verdict
        Of gate A.

    Raises
    ------
    PlatformError
        FILE_DAMAGED for a tape or a dataset that is not what its hash says, and
        CONFIG_EVIDENCE_MISMATCH when the verdict's dataset is gone.
    """
    held = {dataset.sha256 for dataset in catalog.datasets(ws)}
    if verdict.inputs["dataset"] not in held:
        raise PlatformError(
            ReasonCode.CONFIG_EVIDENCE_MISMATCH,
            f"{verdict.gate} of {alpha.key} judged dataset {str(verdict.inputs['dataset'])[:12]}, "
            f"which is not in {ws / 'datasets'}",
            next_step="ingest the recordings again, then run the gates again",
        )
    for session in judged_sessions(ws, alpha, verdict):
        load_tape(session)


def require_same_pool(
    ws: Path, alpha: Alpha, gate_d: Verdict, *, pinned_file: Path | None = None
) -> None:
    """Refuse an alpha that gate D judged beside another pool than it would trade beside.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        Before its first canary; later members do not open the question again.
    gate_d : Verdict
        Verified; names the members it was judged beside.
    pinned_file : Path, optional
        File of pinned promotion keys.

    Raises
    ------
    PlatformError
        VERDICT_STALE naming who came and who left.
    """
    # Loaded on first use: the gates load this module.
    from research.gates.collect_d import pool_members

    judged = set(gate_d.inputs.get("pool") or ())
    now = {
        key
        for key in pool_members(ws, pinned_keys=pinned_file)
        if not key.startswith(f"{alpha.alpha_id}@")
    }
    if now == judged:
        return
    came, left = ", ".join(sorted(now - judged)), ", ".join(sorted(judged - now))
    raise PlatformError(
        ReasonCode.VERDICT_STALE,
        f"gate_d judged {alpha.key} beside another pool; "
        f"since then came {came or 'nobody'} and left {left or 'nobody'}",
        next_step=f"hft-research gates {alpha.alpha_id} --gate gate_d",
    )


def session_summaries(ws: Path, alpha: Alpha, *, stages: tuple[str, ...]) -> list[SessionSummary]:
    """Read and verify an alpha's session summaries of some stages, in the order of their days.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        Sessions of an earlier version of it are left out: they are about another alpha.
    stages : tuple of str
        Stages to look for.

    Returns
    -------
    list of SessionSummary
        Verified ones, and those that should have one: a folder whose summary does not verify, or
        is missing although a later session has ended; a session that the runtime registered and
        whose folder is gone. A register that does not hold is the only row.
    """
    try:
        begun = {row.run_id: row for row in begun_sessions(ws) if row.alpha_id == alpha.alpha_id}
    except PlatformError as error:
        return [SessionSummary("register", None, error.message)]
    suffixes = tuple(f"-{alpha.alpha_id}-{stage}" for stage in stages)
    rows: list[SessionSummary] = []
    for folder in sorted((ws / "sessions").glob("*")):
        stem = folder.name.rstrip("0123456789").removesuffix("-")
        if not folder.is_dir() or not (folder.name.endswith(suffixes) or stem.endswith(suffixes)):
            continue
        path = folder / "summary.json"
        if not path.exists():
            rows.append(SessionSummary(folder.name, None, "the session did not end"))
            continue
        try:
            evidence = verify_summary(path, key=public_key(ws, "session"))
        except PlatformError as error:
            rows.append(SessionSummary(folder.name, None, error.message))
            continue
        if evidence.run_id != folder.name or evidence.alpha_id != alpha.alpha_id:
            problem = f"it holds the summary of another session, {evidence.run_id}"
            rows.append(SessionSummary(folder.name, None, problem))
            continue
        if evidence.alpha_hash == alpha.alpha_hash and evidence.stage in stages:
            rows.append(SessionSummary(folder.name, evidence, ""))
    rows = [
        replace(row, promotion_seq=begun[row.run_id].promotion_seq) if row.run_id in begun else row
        for row in rows
    ]
    # A session still running has no summary yet: only gaps before a finished one are missing.
    while rows and rows[-1].evidence is None and rows[-1].problem == "the session did not end":
        rows.pop()
    gone = [
        SessionSummary(row.run_id, None, "it began and its folder is gone", row.promotion_seq)
        for row in begun.values()
        if row.alpha_hash == alpha.alpha_hash
        and row.stage in stages
        and not (ws / "sessions" / row.run_id).is_dir()
    ]
    return sorted(rows + gone, key=lambda row: row.run_id)
