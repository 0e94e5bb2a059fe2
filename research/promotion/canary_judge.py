"""Judge a canary in force: by the promise that was signed, and thresholds on record.

Why: the sensor, the terminal and the signer must hold a canary to one promise, and a gate that runs
again while it trades must not move it.

Invariants:
1. Promise and capacity are those of the verdicts that the issue in force names, not whatever
   verdict is the newest now; a verdict that no gate recorded is no promise.
2. Thresholds are those on record.
3. A canary in force that cannot be judged is told apart from a workspace without one: who acts on
   it withdraws it.

It changes nothing (see `promote`). Operator's page: `docs/canary.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hft_platform.config.settings import load_settings
from hft_platform.errors import PlatformError, ReasonCode
from research.gates.verdict import Verdict, read_by_hash, read_verdict, require_verdict
from research.promotion import audit, on_record
from research.promotion.canary_life import decide_issue, issue_of_canary
from research.promotion.canary_thresholds import load_canary_thresholds

if TYPE_CHECKING:
    from hft_platform.config.promoted import SignedIssue
    from research.promotion.canary import CanaryDecision
    from research.registry import Alpha


class UnjudgedCanaryError(PlatformError):
    """A canary is in force and its promise, thresholds or evidence cannot be read or trusted."""


def judge_canary(ws: Path, alpha: Alpha, *, config_dir: Path | None = None) -> CanaryDecision:
    """Decide about the canary or live config in force; changes nothing.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        As its folder says now.
    config_dir : Path, optional
        Folder with overriding settings and thresholds.

    Returns
    -------
    CanaryDecision
        The same for the same files.

    Raises
    ------
    PlatformError
        CONFIG_NOT_FOUND when no canary or live config is in force, or why it cannot be read.
    UnjudgedCanaryError
        When one is in force and cannot be judged; with the code of what is wrong.
    """
    pinned = load_settings(config_dir).pinned_keys_path
    issue = issue_of_canary(ws, alpha.alpha_id, pinned_file=pinned)
    try:
        _require_same_alpha(alpha, issue)
        thresholds, sha256 = load_canary_thresholds(config_dir)
        on_record.require_thresholds_on_record(ws, {on_record.CANARY_FILE: sha256})
        entries = audit.verify_chain(ws)
        on_record.require_ledger_on_record(ws, entries)
        gate_c, gate_d = (
            signed_verdict(ws, alpha, gate, issue, entries) for gate in ("gate_c", "gate_d")
        )
        return decide_issue(ws, alpha, issue, thresholds, gate_c=gate_c, gate_d=gate_d)
    except PlatformError as error:
        raise UnjudgedCanaryError(
            error.code, error.message, next_step=error.next_step, facts=error.facts
        ) from error


def signed_verdict(
    ws: Path,
    alpha: Alpha,
    gate: str,
    issue: SignedIssue,
    entries: Sequence[audit.AuditEntry],
) -> Verdict:
    """The verdict that an issue was signed on, also when its gate ran again since.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        Whose; the version that the issue is about.
    gate : str
        ``gate_c`` or ``gate_d``.
    issue : SignedIssue
        In force; names the verdict by hash.
    entries : sequence of AuditEntry
        The verified chain.

    Returns
    -------
    Verdict

    Raises
    ------
    PlatformError
        As `require_verdict`; VERDICT_TAMPERED when the signed verdict is gone or was edited,
        VERDICT_NOT_RECORDED when no gate of this workspace made it.
    """
    sha256 = str(issue.content.verdicts.get(gate, ""))
    newest = read_verdict(ws, alpha.key, gate)
    if newest is None or newest.sha256 == sha256:
        verdict = require_verdict(ws, alpha, gate)
    else:
        # The gate ran again; its file by hash is left alone.
        verdict = read_by_hash(ws, alpha.key, gate, sha256)
    _require_recorded(entries, alpha, gate, sha256)
    return verdict


def _require_same_alpha(alpha: Alpha, issue: SignedIssue) -> None:
    if issue.content.alpha_hash != alpha.alpha_hash:
        signed = f"{alpha.alpha_id}@{issue.content.alpha_hash[:12]}"
        raise PlatformError(
            ReasonCode.VERDICT_STALE,
            f"{signed} is in force and the alpha was edited: it is {alpha.key} now",
            next_step="put the alpha back as it was signed, or gate and promote what it is now",
        )


def _require_recorded(
    entries: Sequence[audit.AuditEntry], alpha: Alpha, gate: str, sha256: str
) -> None:
    # At any time, not as the newest: the gate may have run again, or be running now.
    for entry in entries:
        record = entry.record
        if (
            record["kind"] == audit.EntryKind.VERDICT
            and record["subject"] == alpha.key
            and record["facts"].get("gate") == gate
            and record["facts"].get("verdict_sha256") == sha256
        ):
            return
    raise PlatformError(
        ReasonCode.VERDICT_NOT_RECORDED,
        f"the canary of {alpha.key} was signed on verdict {sha256[:12]} of {gate}, which is not in "
        "the audit chain",
    )
