"""Approval: the second person's signature under a promotion that they did not ask for.

Why: one stolen key, or one tired author, must not be enough for an alpha to trade.

Invariants:
1. It is required as soon as an approval key is pinned, for every stage above shadow; the runtime
   checks it as well, so the promotion key alone opens nothing.
2. It is about one version of an alpha, one stage and one set of verdicts, up to a weight; other
   evidence, more weight or a withdrawal since need another one.
3. An approval key is never a promotion key (see `keys`).

Who may approve whom is the signer's to check. Operator's page: `docs/promotion.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from hft_platform.config.canonical import canonical_json
from hft_platform.errors import PlatformError, ReasonCode

if TYPE_CHECKING:
    from hft_platform.config.keys import TrustedKey
    from hft_platform.config.promoted_content import PromotedContent


class Approval(BaseModel):
    """Who approved up to which weight, after which withdrawal, signed with which key."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    by: Annotated[str, Field(min_length=1, max_length=200)]
    weight_ppm_max: Annotated[int, Field(gt=0, le=1_000_000)]
    after_seq: Annotated[int, Field(ge=0, lt=1_000_000_000)]
    key_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    ed25519: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


def approval_message(
    *,
    alpha_id: str,
    alpha_hash: str,
    stage: str,
    verdicts: Mapping[str, str],
    by: str,
    weight_ppm_max: int,
    after_seq: int,
) -> bytes:
    """Bytes that the second person signs: what they saw, and how far they go."""
    content = {
        "alpha_id": alpha_id,
        "alpha_hash": alpha_hash,
        "stage": stage,
        "verdicts": dict(verdicts),
        "by": by,
        "weight_ppm_max": weight_ppm_max,
        "after_seq": after_seq,
    }
    return b"hft promotion approval v1\n" + canonical_json(content)


def approvers(keys: Mapping[str, TrustedKey]) -> dict[str, TrustedKey]:
    """The approval keys among trusted keys; none means that one person is enough."""
    return {key_id: key for key_id, key in keys.items() if key.role == "approval"}


def require_approval(content: PromotedContent, keys: Mapping[str, TrustedKey]) -> None:
    """Refuse a config above shadow that the second person did not sign, where one is required.

    Parameters
    ----------
    content : PromotedContent
        Verified to be as the promotion key signed it.
    keys : mapping of str to TrustedKey
        Trusted keys, approval keys among them.

    Raises
    ------
    PlatformError
        PROMOTION_NOT_APPROVED.
    """
    allowed = approvers(keys)
    if not allowed or content.stage == "shadow":
        return
    approval = content.approval
    if approval is None:
        raise not_approved(f"{content.alpha_id} {content.stage} carries no approval")
    message = approval_message(
        alpha_id=content.alpha_id,
        alpha_hash=content.alpha_hash,
        stage=content.stage,
        verdicts=content.verdicts,
        by=approval.by,
        weight_ppm_max=approval.weight_ppm_max,
        after_seq=approval.after_seq,
    )
    key = allowed.get(approval.key_id)
    if key is None or not key.is_signature_of(message, approval.ed25519):
        raise not_approved(
            f"the approval of {content.alpha_id} {content.stage} by {approval.by} is about other "
            f"evidence, or not signed by a pinned approval key"
        )
    if content.weight_ppm > approval.weight_ppm_max or content.promotion_seq <= approval.after_seq:
        raise not_approved(
            f"{approval.by} approved {content.alpha_id} {content.stage} up to "
            f"{approval.weight_ppm_max} ppm after sequence {approval.after_seq}; this is "
            f"{content.weight_ppm} ppm with sequence {content.promotion_seq}"
        )


def not_approved(text: str) -> PlatformError:
    """The refusal, with what to do next."""
    return PlatformError(
        ReasonCode.PROMOTION_NOT_APPROVED,
        text,
        next_step="a second person: hft-research approve ID --stage STAGE --key FILE --why ...",
    )
