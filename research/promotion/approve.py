"""Approve a promotion as the second person, and find that approval when the signer needs it.

Why: approver is not the author (docs/controls.md); the check belongs into the signer, not into a
habit.

Invariants:
1. An approval names the verdicts that the approver could read when signing; other verdicts need
   another approval, and so does a withdrawal since.
2. Who approves is neither the alpha's owner nor who asks for the promotion.
3. It is in the audit chain before it exists.

Operator's page: `docs/promotion.md`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from hft_platform.config.approval import Approval, approval_message, approvers, not_approved
from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.config.keys import load_signing_key, trusted_keys
from hft_platform.config.promotion_folder import promotions_root, withdrawn_seq
from hft_platform.errors import PlatformError, ReasonCode
from research.promotion import audit
from research.promotion.evidence import passed_verdicts

if TYPE_CHECKING:
    from research.promotion.request import SignRequest
    from research.registry import Alpha


def approval_path(ws: Path, alpha_key: str, stage: str) -> Path:
    """File of the newest approval of one version of an alpha for a stage."""
    return promotions_root(ws) / "approvals" / f"{alpha_key}-{stage}.json"


def approve(
    ws: Path,
    alpha: Alpha,
    *,
    stage: str,
    key_file: Path,
    weight_ppm_max: int,
    by: str,
    why: str,
    pinned_file: Path | None,
    config_dir: Path | None = None,
) -> Approval:
    """Approve an alpha's evidence for a stage.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        As it is now.
    stage : str
        `canary` or `live`; shadow needs nobody.
    key_file : Path
        The second person's private key.
    weight_ppm_max : int
        Weight up to which the canary may climb without asking again.
    by, why : str
        Who approves, and why.
    pinned_file : Path or None
        File of pinned keys.
    config_dir : Path, optional
        Folder with overriding thresholds.

    Returns
    -------
    Approval
        As it will be in the signed config.

    Raises
    ------
    PlatformError
        What the verdicts deserve; KEY_ROLE_FORBIDDEN for a key that is not pinned for approvals;
        PROMOTION_NOT_APPROVED when the owner approves.
    """
    key = load_signing_key(key_file, role="approval", automatic=False)
    if key.key_id not in approvers(trusted_keys(ws, pinned_file=pinned_file)):
        raise PlatformError(
            ReasonCode.KEY_ROLE_FORBIDDEN,
            f"approval key {key.key_id} from {key_file} is not pinned for approvals",
            next_step=f"add the line 'approval {key.trusted.public_hex}' to pinned_keys_file",
        )
    _require_second_person(alpha, by)
    verdicts = passed_verdicts(ws, alpha, stage, config_dir=config_dir)
    hashes = {gate: verdict.sha256 for gate, verdict in verdicts.items()}
    after_seq = withdrawn_seq(promotions_root(ws), alpha.alpha_id)
    message = approval_message(
        alpha_id=alpha.alpha_id,
        alpha_hash=alpha.alpha_hash,
        stage=stage,
        verdicts=hashes,
        by=by,
        weight_ppm_max=weight_ppm_max,
        after_seq=after_seq,
    )
    approval = Approval(
        by=by,
        weight_ppm_max=weight_ppm_max,
        after_seq=after_seq,
        key_id=key.key_id,
        ed25519=key.sign(message),
    )
    audit.append(
        ws,
        kind=audit.EntryKind.APPROVED,
        who=by,
        why=why,
        subject=alpha.key,
        facts=approval.model_dump() | {"stage": stage, "verdicts": hashes},
    )
    path = approval_path(ws, alpha.key, stage)
    atomic_write(path, canonical_json(approval.model_dump()) + b"\n")
    return approval


def approval_of(
    ws: Path,
    alpha: Alpha,
    request: SignRequest,
    hashes: Mapping[str, str],
    *,
    pinned_file: Path | None,
) -> Approval | None:
    """The approval that a request needs, verified; None when one person is enough.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        Whom the request is about.
    request : SignRequest
        Its author must not be the approver.
    hashes : mapping of str to str
        Verdicts that the promotion rests on.
    pinned_file : Path or None
        File of pinned keys.

    Returns
    -------
    Approval or None

    Raises
    ------
    PlatformError
        PROMOTION_NOT_APPROVED.
    """
    allowed = approvers(trusted_keys(ws, pinned_file=pinned_file))
    if not allowed or request.stage == "shadow":
        return None
    path = approval_path(ws, alpha.key, request.stage)
    name = f"{alpha.key} for stage {request.stage}"
    try:
        approval = Approval.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise not_approved(f"nobody approved {name}") from error
    except (OSError, ValueError, ValidationError, RecursionError) as error:
        raise not_approved(f"the approval of {name} cannot be read: {path}") from error
    message = approval_message(
        alpha_id=alpha.alpha_id,
        alpha_hash=alpha.alpha_hash,
        stage=request.stage,
        verdicts=hashes,
        by=approval.by,
        weight_ppm_max=approval.weight_ppm_max,
        after_seq=approval.after_seq,
    )
    key = allowed.get(approval.key_id)
    if key is None or not key.is_signature_of(message, approval.ed25519):
        raise not_approved(
            f"the approval of {name} by {approval.by} is about other evidence, or not signed by a "
            "pinned approval key"
        )
    if approval.after_seq != withdrawn_seq(promotions_root(ws), alpha.alpha_id):
        raise not_approved(f"{name} was withdrawn since {approval.by} approved it")
    _require_second_person(alpha, approval.by)
    if approval.by == request.by:
        raise not_approved(f"{approval.by} asks for {name} and approved it")
    return approval


def _require_second_person(alpha: Alpha, by: str) -> None:
    if by == alpha.manifest.owner:
        raise not_approved(f"{by} owns {alpha.key}; its author cannot approve it")
