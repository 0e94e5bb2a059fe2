"""What stands in the audit chain: verdicts, thresholds, trials; and what to refuse that does not.

Why: a content-addressed file proves that it was not edited, not that a gate made it. Only the
chain is signed, so a verdict, a threshold and a count of trials hold when the chain says so.

Invariants:
1. A gate's verdict counts when the newest entry about that gate of that alpha names its hash.
2. Thresholds count when the newest entry about their file names their hash; the first use in a
   workspace is an entry too, so there is no unrecorded state.
3. Every session that the runtime registered is still there: none is left out of the evidence.
4. The trial ledger holds at least what any verdict was recorded with, also when every verdict
   file was removed.
5. What is on record is written before it has an effect, and never twice in a row.

It judges nothing and signs nothing itself. Operator's page: `docs/audit.md`.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.config.canonical import canonical_sha256
from hft_platform.config.keys import public_key
from hft_platform.config.promotion_folder import promotions_root, withdrawn_seqs
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services.session_register import BegunSession, begun_sessions
from hft_platform.services.session_summary import verify_summary
from research.experiments import OutcomeLog, TrialLedger
from research.promotion import audit

if TYPE_CHECKING:
    from research.gates.verdict import Verdict
    from research.registry import Alpha

GATE_FILE, CANARY_FILE = "gates.yaml", "canary.yaml"
FIRST_USE = "first use in this workspace"


def actor() -> str:
    """Who runs this process, for entries that no person asked for by name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        return f"uid {os.getuid()}"


def record_verdict(ws: Path, alpha_key: str, verdict: Verdict, *, by: str, why: str) -> None:
    """Put a verdict on record, unless it is the newest one there already.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha_key : str
        ``<alpha_id>@<12 hex>``.
    verdict : Verdict
        Whatever it says.
    by, why : str
        For the chain.

    Raises
    ------
    PlatformError
        AUDIT_BROKEN or WAL_WRITE_FAILED: the verdict must not become its gate's newest.
    """
    known = newest_verdicts(audit.verify_chain(ws), alpha_key)
    if known.get(verdict.gate) == verdict.sha256:
        return
    audit.append(
        ws,
        kind=audit.EntryKind.VERDICT,
        who=by,
        why=why,
        subject=alpha_key,
        facts={
            "alpha_id": verdict.alpha_id,
            "gate": verdict.gate,
            "verdict": str(verdict.verdict),
            "verdict_sha256": verdict.sha256,
            "reasons": [item["name"] for item in verdict.reasons],
            "thresholds_sha256": verdict.thresholds_sha256,
            "code_sha256": verdict.code_sha256,
            "ledger": TrialLedger(ws).head().as_dict() | OutcomeLog(ws).head(),
        },
    )


def newest_verdicts(entries: Sequence[audit.AuditEntry], alpha_key: str) -> dict[str, str]:
    """Hash of the newest recorded verdict of each gate of an alpha."""
    return {
        str(entry.record["facts"]["gate"]): str(entry.record["facts"]["verdict_sha256"])
        for entry in entries
        if entry.record["kind"] == audit.EntryKind.VERDICT and entry.record["subject"] == alpha_key
    }


def require_verdicts_on_record(ws: Path, alpha_key: str, hashes: Mapping[str, str]) -> None:
    """Refuse verdicts that no gate of this workspace made, and a ledger that lost trials.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha_key : str
        Whose verdicts.
    hashes : mapping of str to str
        Verdict hash by gate, as the files say.

    Raises
    ------
    PlatformError
        AUDIT_BROKEN for a chain that does not verify, VERDICT_NOT_RECORDED naming the gate,
        LEDGER_BEHIND_AUDIT.
    """
    entries = audit.verify_chain(ws)
    require_newest(entries, alpha_key, hashes)
    require_ledger_on_record(ws, entries)


def require_newest(
    entries: Sequence[audit.AuditEntry], alpha_key: str, hashes: Mapping[str, str]
) -> None:
    """Refuse verdicts that are not the newest that the chain knows of their gates.

    Parameters
    ----------
    entries : sequence of AuditEntry
        Verified chain.
    alpha_key : str
        Whose verdicts.
    hashes : mapping of str to str
        Verdict hash by gate, as the files say.

    Raises
    ------
    PlatformError
        VERDICT_NOT_RECORDED naming the gate.
    """
    known = newest_verdicts(entries, alpha_key)
    for gate, sha256 in hashes.items():
        if known.get(gate) != sha256:
            held = known.get(gate)
            raise PlatformError(
                ReasonCode.VERDICT_NOT_RECORDED,
                f"verdict {gate} of {alpha_key} has hash {sha256[:12]}; the audit chain holds "
                f"{held[:12] if held else 'none'}",
                next_step=f"hft-research gates {alpha_key.split('@')[0]} runs its gates again",
            )


def require_ledger_on_record(ws: Path, entries: Sequence[audit.AuditEntry]) -> None:
    """Refuse a trial ledger that holds less than the chain says it held.

    Parameters
    ----------
    ws : Path
        Workspace.
    entries : sequence of AuditEntry
        Of its verified chain.

    Raises
    ------
    PlatformError
        LEDGER_BEHIND_AUDIT.
    """
    heads = [
        entry.record["facts"]["ledger"]
        for entry in entries
        if entry.record["kind"] == audit.EntryKind.VERDICT
    ]
    if heads:
        # Both files only grow: whatever any entry counted, the largest of each holds.
        for name in ("count", "outcomes"):
            TrialLedger(ws).require_superset(max(heads, key=lambda head: int(head[name])))


def require_sessions_kept(ws: Path, alpha: Alpha, stage: str) -> None:
    """Refuse evidence from which a session was left out: it began, and has no sound summary.

    A session that failed, was deleted or was spoiled must not make the others look better.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        Sessions of this version of it are looked for, since a permit of the stage was withdrawn.
    stage : str
        Stage of the sessions.

    Raises
    ------
    PlatformError
        SUMMARY_TAMPERED naming the first one, or for a register that does not hold.
    """
    lost = {
        row.run_id: problem
        for row in sessions_since(ws, alpha, stage)
        if (problem := _problem_of(ws, row)) is not None
    }
    if lost:
        run_id, problem = next(iter(lost.items()))
        raise PlatformError(
            ReasonCode.SUMMARY_TAMPERED,
            f"{len(lost)} {stage} sessions of {alpha.key} began and are no evidence, "
            f"{run_id} first: {problem}",
            next_step="wait for its end or restore it from a copy; otherwise start over: "
            f"hft-research withdraw {alpha.alpha_id}, then promote it to {stage} again",
        )


def sessions_since(ws: Path, alpha: Alpha, stage: str) -> list[BegunSession]:
    """Registered sessions of a stage since a permit of that stage was last withdrawn.

    A withdrawn canary does not undo what the alpha showed in shadow.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        This version of it.
    stage : str
        Stage of sessions and permits.

    Returns
    -------
    list of BegunSession

    Raises
    ------
    PlatformError
        SUMMARY_TAMPERED for a register that does not hold, AUDIT_BROKEN.
    """
    mine = [
        row
        for row in begun_sessions(ws)
        if (row.alpha_id, row.alpha_hash, row.stage) == (alpha.alpha_id, alpha.alpha_hash, stage)
    ]
    permits = {
        int(entry.record["facts"]["promotion_seq"])
        for entry in audit.verify_chain(ws)
        if entry.record["kind"] == audit.EntryKind(f"issued_{stage}")
        and entry.record["facts"]["alpha_id"] == alpha.alpha_id
    }
    withdrawn = withdrawn_seqs(promotions_root(ws), alpha.alpha_id)
    floor = max(permits & withdrawn, default=0)
    return [row for row in mine if row.promotion_seq > floor]


def _problem_of(ws: Path, session: BegunSession) -> str | None:
    """Why a session that began is no evidence, or None."""
    folder = ws / "sessions" / session.run_id
    if not folder.is_dir():
        return "its folder is gone"
    path = folder / "summary.json"
    if not path.exists():
        return "it has no summary: it still runs, or did not end"
    try:
        evidence = verify_summary(path, key=public_key(ws, "session"))
    except PlatformError as error:
        return error.message
    if evidence.run_id != session.run_id:
        return f"it holds the summary of another session, {evidence.run_id}"
    return None


def thresholds_on_record(entries: Sequence[audit.AuditEntry], file: str) -> str | None:
    """Hash of a threshold file as it was recorded last, None when it never was."""
    found: str | None = None
    for entry in entries:
        if entry.record["kind"] == audit.EntryKind.THRESHOLDS and entry.record["subject"] == file:
            found = str(entry.record["facts"]["sha256"])
    return found


def record_thresholds(ws: Path, file: str, sha256: str, *, by: str, why: str) -> bool:
    """Put a threshold file on record; the entry says what it was before.

    Parameters
    ----------
    ws : Path
        Workspace.
    file : str
        `gates.yaml` or `canary.yaml`.
    sha256 : str
        Hash of its validated content.
    by, why : str
        Who changed it, and why.

    Returns
    -------
    bool
        False when the chain holds it already.
    """
    before = thresholds_on_record(audit.verify_chain(ws), file)
    if before == sha256:
        return False
    audit.append(
        ws,
        kind=audit.EntryKind.THRESHOLDS,
        who=by,
        why=why,
        subject=file,
        facts={"file": file, "sha256": sha256, "sha256_before": before},
    )
    return True


def record_all_thresholds(
    ws: Path, *, by: str, why: str, config_dir: Path | None = None
) -> dict[str, bool]:
    """Put every threshold file on record as it is now.

    Parameters
    ----------
    ws : Path
        Workspace.
    by, why : str
        Who changed them, and why.
    config_dir : Path, optional
        Folder with files of one's own.

    Returns
    -------
    dict of str to bool
        By file, whether an entry was made.
    """
    # Loaded on first use: the gates load this module.
    from research.gates.thresholds import load_thresholds
    from research.promotion.canary_thresholds import load_canary_thresholds

    gates = gate_thresholds_sha256(load_thresholds(config_dir).hashes())
    _, canary = load_canary_thresholds(config_dir)
    return {
        file: record_thresholds(ws, file, sha256, by=by, why=why)
        for file, sha256 in ((GATE_FILE, gates), (CANARY_FILE, canary))
    }


def require_thresholds_on_record(ws: Path, hashes: Mapping[str, str]) -> None:
    """Refuse thresholds that changed without an entry; the first use makes one.

    Parameters
    ----------
    ws : Path
        Workspace.
    hashes : mapping of str to str
        Hash now, by file.

    Raises
    ------
    PlatformError
        THRESHOLDS_NOT_RECORDED naming the file; AUDIT_BROKEN or WAL_WRITE_FAILED.
    """
    entries = audit.verify_chain(ws)
    for file, sha256 in hashes.items():
        held = thresholds_on_record(entries, file)
        if held is None:
            record_thresholds(ws, file, sha256, by=actor(), why=FIRST_USE)
        elif held != sha256:
            raise PlatformError(
                ReasonCode.THRESHOLDS_NOT_RECORDED,
                f"{file} has hash {sha256[:12]}; the audit chain holds {held[:12]}, and nobody "
                "recorded a change",
                next_step='hft-research audit thresholds --why "...", or put the file back',
                facts={"file": file},
            )


def require_gate_standing(ws: Path, hashes: Mapping[str, str]) -> None:
    """What must hold before any gate judges: thresholds on record, and no trial lost.

    Parameters
    ----------
    ws : Path
        Workspace.
    hashes : mapping of str to str
        Hash of the thresholds of each gate.

    Raises
    ------
    PlatformError
        THRESHOLDS_NOT_RECORDED, LEDGER_BEHIND_AUDIT, AUDIT_BROKEN or WAL_WRITE_FAILED.
    """
    require_thresholds_on_record(ws, {GATE_FILE: gate_thresholds_sha256(hashes)})
    require_ledger_on_record(ws, audit.verify_chain(ws))


def gate_thresholds_sha256(hashes: Mapping[str, str]) -> str:
    """One hash over the hashes of all gates' thresholds."""
    return canonical_sha256(dict(sorted(hashes.items())))


def record_override(ws: Path, *, subject: str, by: str, why: str, facts: Mapping[str, Any]) -> None:
    """Put on record what a person did outside the program: a file restored, a rule set aside.

    Parameters
    ----------
    ws : Path
        Workspace.
    subject : str
        What it is about.
    by, why : str
        Who, and why.
    facts : mapping
        JSON content (Any: whatever describes it). It opens nothing: no check reads it.
    """
    audit.append(ws, kind=audit.EntryKind.OVERRIDE, who=by, why=why, subject=subject, facts=facts)
