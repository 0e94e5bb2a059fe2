"""The signer: the one process that holds the promotion key and turns evidence into a permit.

Why: whoever asks for a promotion must not be able to decide what is signed.

Invariants:
1. A request names an alpha and a stage; everything that is signed is derived here, from the
   alpha's manifest, its verdicts, datasets and signed sessions, each verified again from disk.
2. Verdicts, thresholds and trials are those of the audit chain; a broken chain, and one that
   cannot be written, block every promotion.
3. Where an approval key is pinned, a second person signed for the same evidence, and is neither
   the alpha's owner nor who asks.

It runs no gate and writes no file itself (see `issue`). Operator's page: `docs/promotion.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.config.code_hash import code_sha256
from hft_platform.config.keys import SigningKey, load_signing_key, signing_key, trusted_keys
from hft_platform.config.promotion_folder import (
    locked,
    promotions_root,
)
from hft_platform.errors import PlatformError, ReasonCode
from research.promotion import audit, on_record
from research.promotion.approve import approval_of
from research.promotion.canary import Action, CanaryDecision, first_weight
from research.promotion.canary_judge import signed_verdict
from research.promotion.canary_life import capacity_of, decide_issue, newest_issue
from research.promotion.canary_thresholds import load_canary_thresholds
from research.promotion.earlier_lives import (
    require_earlier_life_kept_promise,
    require_not_refuted,
)
from research.promotion.evidence import (
    passed_verdicts,
    require_same_pool,
    require_tapes_unchanged,
)
from research.promotion.graduation import require_canary_of, require_graduated
from research.promotion.issue import (
    Promotion,
    Standing,
    issue_in_force,
    require_issues_in_chain,
    write_issue,
)
from research.promotion.lifecycle import require_not_retired
from research.promotion.permit import DAY_NS, permit_content
from research.promotion.request import SignRequest, read_request
from research.registry import Alpha, find_alpha

if TYPE_CHECKING:
    from hft_platform.config.approval import Approval
    from hft_platform.config.promoted import SignedIssue
    from hft_platform.config.settings import Settings
    from research.gates.verdict import Verdict

__all__ = ["Promotion", "SignRequest", "SignerContext", "read_request", "sign_request"]

_TIME_FIELDS = ("promotion_seq", "issued_trading_day", "not_before_ns", "expires_ns")


@dataclass(frozen=True, slots=True)
class SignerContext:
    """Where the signer works and what it is configured with.

    Attributes
    ----------
    workspace : Path
        Verdicts, datasets, sessions, keys and promotions.
    settings : Settings
        Key files and validity.
    alphas_folder : Path or None
        Folder of the alphas, the bundled ones by default.
    config_dir : Path or None
        Folder with overriding thresholds and instruments.
    """

    workspace: Path
    settings: Settings
    alphas_folder: Path | None = None
    config_dir: Path | None = None


def sign_request(request: SignRequest, context: SignerContext) -> Promotion:
    """Verify all evidence for a request, then sign, record and publish the config.

    Parameters
    ----------
    request : SignRequest
        Whom to promote to which stage.
    context : SignerContext
        Workspace and settings.

    Returns
    -------
    Promotion
        The new issue; or the one in force when it already says the same and is not about to
        expire.

    Raises
    ------
    PlatformError
        AUDIT_BROKEN, 705 to 711 for the verdicts, VERDICT_NOT_RECORDED, THRESHOLDS_NOT_RECORDED,
        FILE_DAMAGED for a tape that changed, PROMOTION_NOT_PERMITTED, PROMOTION_NOT_APPROVED,
        CONFIG_WITHDRAWN for evidence that was rolled back, KEY_ROLE_FORBIDDEN, 713 to 717 when
        the canary fails.
    """
    ws = context.workspace
    alpha = find_alpha(request.alpha_key, context.alphas_folder)
    with locked(promotions_root(ws)):
        standing = Standing.of(ws, alpha.alpha_id)
        key = _key_for(request.stage, context)
        entries = audit.verify_chain(ws)
        require_not_retired(entries, alpha)
        require_issues_in_chain(ws, alpha.alpha_id, entries)
        verdicts = passed_verdicts(ws, alpha, request.stage, config_dir=context.config_dir)
        thresholds, canary_sha256 = load_canary_thresholds(context.config_dir)
        on_record.require_thresholds_on_record(ws, {on_record.CANARY_FILE: canary_sha256})
        hashes = {gate: verdict.sha256 for gate, verdict in verdicts.items()}
        require_not_refuted(ws, alpha, verdicts, entries)
        current = newest_issue(ws, alpha.alpha_id, pinned_file=context.settings.pinned_keys_path)
        _require_climbs_from(request, current)
        if current is not None and _includes_shadow(current, alpha, request.stage):
            return issue_in_force(ws, alpha, current)
        if current is None or current.content.verdicts.get("gate_a") != hashes["gate_a"]:
            require_tapes_unchanged(ws, alpha, verdicts["gate_a"])
        if request.stage != "shadow" and not _is_canary_of(current, alpha):
            pinned = context.settings.pinned_keys_path
            require_same_pool(ws, alpha, verdicts["gate_d"], pinned_file=pinned)
            require_earlier_life_kept_promise(ws, alpha, verdicts["gate_c"], thresholds)
        approval = approval_of(
            ws, alpha, request, hashes, pinned_file=context.settings.pinned_keys_path
        )
        content = permit_content(
            ws,
            alpha,
            request.stage,
            verdicts,
            weight_ppm=_weight(request, alpha, verdicts, context, approval),
            symbol=request.symbol,
            validity_days=context.settings.promotion_validity_days,
            config_dir=context.config_dir,
        )
        if approval is not None:
            content["approval"] = approval.model_dump()
        if current is not None and _says_the_same(current, content, key, context.settings):
            return issue_in_force(ws, alpha, current)
        return write_issue(request, alpha, content, key, ws, audit.verify_chain(ws), standing)


def _require_climbs_from(request: SignRequest, current: SignedIssue | None) -> None:
    # A step up was decided about one issue; where that was taken back since, nothing is earned.
    seq = current.content.promotion_seq if current is not None else 0
    if request.climbs_from not in (None, seq):
        raise PlatformError(
            ReasonCode.PROMOTION_NOT_PERMITTED,
            f"{request.alpha_key} was to climb from sequence {request.climbs_from}, which is not "
            f"in force any more ({f'sequence {seq} is' if seq else 'it was withdrawn'})",
            next_step="hft-research canary says what its sessions lead to now",
        )


def _key_for(stage: str, context: SignerContext) -> SigningKey:
    path = context.settings.promotion_key_path
    if path is None:
        if stage == "live":
            raise PlatformError(
                ReasonCode.KEY_ROLE_FORBIDDEN,
                "stage live needs a promotion key made by hand; only the automatic key is there",
                next_step="hft-research keys make --role promotion --out FILE, pin it, "
                "and set promotion_key_file",
            )
        return signing_key(context.workspace, "promotion")
    key = load_signing_key(path, role="promotion", automatic=False)
    trusted = trusted_keys(context.workspace, pinned_file=context.settings.pinned_keys_path).get(
        key.key_id
    )
    if trusted is None or trusted.automatic or trusted.role != "promotion":
        state = "not pinned"
        if trusted is not None:
            state = "the workspace's automatic key" if trusted.automatic else "an approval key"
        raise PlatformError(
            ReasonCode.KEY_ROLE_FORBIDDEN,
            f"promotion key {key.key_id} from {path} is {state}",
            next_step=f"add the line 'promotion {key.trusted.public_hex}' to pinned_keys_file",
        )
    return key


def _weight(
    request: SignRequest,
    alpha: Alpha,
    verdicts: Mapping[str, Verdict],
    context: SignerContext,
    approval: Approval | None,
) -> int:
    if request.stage == "shadow":
        allowed = alpha.manifest.gate_weight_ppm
    else:
        allowed = _canary_weight(request.stage, alpha, verdicts, context)
    if approval is not None:
        allowed = min(allowed, approval.weight_ppm_max)
    if request.weight_ppm_max is None:
        return allowed
    if request.weight_ppm_max > allowed:
        raise PlatformError(
            ReasonCode.PROMOTION_NOT_PERMITTED,
            f"{alpha.key} asks for weight {request.weight_ppm_max} ppm; "
            f"its evidence carries {allowed} ppm",
        )
    return request.weight_ppm_max


def _canary_weight(
    stage: str, alpha: Alpha, verdicts: Mapping[str, Verdict], context: SignerContext
) -> int:
    thresholds, _ = load_canary_thresholds(context.config_dir)
    pinned = context.settings.pinned_keys_path
    current = newest_issue(context.workspace, alpha.alpha_id, pinned_file=pinned)
    if stage == "live":
        current = require_canary_of(alpha, current)
    elif current is None or not _is_canary_of(current, alpha):
        return first_weight(thresholds, alpha.manifest.gate_weight_ppm)
    decisions = _canary_decisions(alpha, verdicts, context, current)
    if stage == "live":
        capacity_ppm = capacity_of(verdicts["gate_d"])
        require_graduated(
            context.workspace, alpha, current, decisions, thresholds, capacity_ppm=capacity_ppm
        )
    return min(decision.weight_ppm for decision in decisions)


def _canary_decisions(
    alpha: Alpha, verdicts: Mapping[str, Verdict], context: SignerContext, current: SignedIssue
) -> list[CanaryDecision]:
    """By the promise that was signed, and by the one to be signed: a new one excuses nothing."""
    ws = context.workspace
    thresholds, _ = load_canary_thresholds(context.config_dir)
    entries = audit.verify_chain(ws)
    signed = {
        gate: signed_verdict(ws, alpha, gate, current, entries) for gate in ("gate_c", "gate_d")
    }
    decisions = [
        decide_issue(ws, alpha, current, thresholds, gate_c=by["gate_c"], gate_d=by["gate_d"])
        for by in (signed, verdicts)
    ]
    for decision in decisions:
        if decision.action is Action.ROLL_BACK:
            first = decision.reasons[0]
            raise PlatformError(
                first.code,
                f"{alpha.key} fails its canary: {first.text}; nothing was signed",
                next_step=f"hft-research canary {alpha.alpha_id} --apply rolls it back",
            )
    return decisions


def _is_canary_of(current: SignedIssue | None, alpha: Alpha) -> bool:
    return (
        current is not None
        and current.content.stage != "shadow"
        and current.content.alpha_hash == alpha.alpha_hash
    )


def _includes_shadow(current: SignedIssue, alpha: Alpha, stage: str) -> bool:
    # A canary or live permit covers what a shadow permit allows; asking again takes nothing back.
    content = current.content
    return (
        stage == "shadow"
        and content.stage != "shadow"
        and content.alpha_hash == alpha.alpha_hash
        and content.code_sha256 == code_sha256()
    )


def _says_the_same(
    current: SignedIssue, content: dict[str, Any], key: SigningKey, settings: Settings
) -> bool:
    left = {k: v for k, v in current.raw.items() if k not in _TIME_FIELDS}
    right = {k: v for k, v in content.items() if k not in _TIME_FIELDS}
    renew_at = current.content.expires_ns - settings.promotion_validity_days * DAY_NS // 2
    return (
        left == right and current.key.key_id == key.key_id and content["not_before_ns"] < renew_at
    )
