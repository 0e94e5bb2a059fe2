"""Graduation: what a canary must have shown before a config with stage live is signed.

Why: live is what a canary earns; five gates alone are a promise that no money has tested yet.

Invariants:
1. Only the canary of this very version graduates, from the last weight it can reach, with its quota
   met there and every test passed.
2. A live config is renewed without graduating again: the same tests go on for it.

It reads no file but the reductions (see `sign`). Operator's page: `docs/promotion.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hft_platform.config.promotion_folder import promotions_root, reduced_weight
from hft_platform.errors import PlatformError, ReasonCode
from research.promotion.canary import Action, CanaryDecision, last_weight, missing_quota

if TYPE_CHECKING:
    from hft_platform.config.promoted import SignedIssue
    from research.promotion.canary import CanaryThresholds
    from research.registry import Alpha


def require_canary_of(alpha: Alpha, current: SignedIssue | None) -> SignedIssue:
    """The issue in force when it is a canary or live one of this version.

    Parameters
    ----------
    alpha : Alpha
        Who is to go live.
    current : SignedIssue or None
        Newest issue in force.

    Returns
    -------
    SignedIssue

    Raises
    ------
    PlatformError
        PROMOTION_NOT_PERMITTED saying what is in force instead.
    """
    if current is None:
        raise _not_graduated(alpha, "no canary is in force")
    content = current.content
    if content.stage == "shadow":
        raise _not_graduated(alpha, "it is in shadow")
    if content.alpha_hash != alpha.alpha_hash:
        other = f"{alpha.alpha_id}@{content.alpha_hash[:12]}"
        raise _not_graduated(alpha, f"the canary in force is of another version, {other}")
    return current


def require_graduated(
    ws: Path,
    alpha: Alpha,
    current: SignedIssue,
    decisions: Sequence[CanaryDecision],
    thresholds: CanaryThresholds,
    *,
    capacity_ppm: int,
) -> None:
    """Refuse stage live to a canary that has something left to show.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        Who is to go live.
    current : SignedIssue
        Its canary, or live config, in force.
    decisions : sequence of CanaryDecision
        What its sessions lead to; none of them rolls back.
    thresholds : CanaryThresholds
        Stages and quota.
    capacity_ppm : int
        Weight that gate D found room for.

    Raises
    ------
    PlatformError
        PROMOTION_NOT_PERMITTED saying what is missing.
    """
    content = current.content
    if content.stage == "live":
        return
    last = last_weight(thresholds, capacity_ppm)
    weight = reduced_weight(
        promotions_root(ws), alpha.alpha_id, content.promotion_seq, signed_ppm=content.weight_ppm
    )
    if weight < last:
        raise _not_graduated(
            alpha, f"its canary is at {weight / 1e4:g} %, its last stage is {last / 1e4:g} %"
        )
    for decision in decisions:
        missing = missing_quota(decision.facts, thresholds)
        if missing:
            raise _not_graduated(alpha, f"at its last stage it has {'; '.join(missing)}")
        if decision.action is not Action.HOLD:
            raise _not_graduated(alpha, f"its canary is to {decision.action} first")


def _not_graduated(alpha: Alpha, text: str) -> PlatformError:
    return PlatformError(
        ReasonCode.PROMOTION_NOT_PERMITTED,
        f"{alpha.key} has not graduated to live: {text}",
        next_step=f"hft-research canary {alpha.alpha_id}; without a canary in force "
        f"hft-research promote {alpha.alpha_id} --stage canary",
    )
