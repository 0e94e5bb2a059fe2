"""An issue: a signed config on disk, its number, its record and its head.

Why: the order of the writes decides what a crash leaves behind.

Invariants:
1. Sequence numbers of an alpha only grow, also when files or the audit chain were cut.
2. The audit entry is durable before the config exists.
3. A config is written to its immutable name first, then made the head of its day.
4. What was taken away while the signer worked stays away: it is looked at right before a config
   is published and once more right after, and one that came between is taken back.

What may be issued is the signer's to decide (see `sign`). Operator's page: `docs/promotion.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.config.canonical import atomic_write, canonical_sha256, write_once
from hft_platform.config.promoted import (
    PromotedContent,
    SignedIssue,
    read_signed,
    render_config,
    signed_message,
)
from hft_platform.config.promotion_folder import (
    head_path,
    issued_path,
    issued_seqs,
    promotions_root,
    reduced_weight,
    seq_floor,
    withdrawn_seq,
)
from hft_platform.errors import PlatformError, ReasonCode
from research.promotion import audit
from research.promotion.withdrawal import take_back

if TYPE_CHECKING:
    from hft_platform.config.keys import SigningKey
    from research.promotion.request import SignRequest
    from research.registry import Alpha


FULL_PPM = 1_000_000


@dataclass(frozen=True, slots=True)
class Standing:
    """What had been taken away from an alpha at some moment.

    Attributes
    ----------
    ws : Path
        Workspace.
    alpha_id : str
        Whose.
    seq : int
        Newest issue then, 0 without one.
    withdrawn_seq : int
        Withdrawn up to here.
    weight_ppm : int
        What a reduction of the newest issue leaves of full size.
    """

    ws: Path
    alpha_id: str
    seq: int
    withdrawn_seq: int
    weight_ppm: int

    @classmethod
    def of(cls, ws: Path, alpha_id: str, *, seq: int | None = None) -> Standing:
        """As the files say now; of the newest issue, or of the one that is named."""
        root = promotions_root(ws)
        if seq is None:
            seq = max([0, *issued_seqs(root, alpha_id)])
        weight_ppm = reduced_weight(root, alpha_id, seq, signed_ppm=FULL_PPM)
        return cls(ws, alpha_id, seq, withdrawn_seq(root, alpha_id), weight_ppm)

    def require_unchanged(self) -> None:
        """Refuse when something was taken away since.

        Raises
        ------
        PlatformError
            CONFIG_WITHDRAWN after a withdrawal, PROMOTION_NOT_PERMITTED after a reduction.
        """
        now = Standing.of(self.ws, self.alpha_id, seq=self.seq)
        if now.withdrawn_seq != self.withdrawn_seq:
            raise PlatformError(
                ReasonCode.CONFIG_WITHDRAWN,
                f"{self.alpha_id} was withdrawn up to sequence {now.withdrawn_seq} while the "
                "signer worked; what it was to sign does not hold",
                next_step=f"hft-research show {self.alpha_id} says why it was withdrawn",
            )
        if now.weight_ppm != self.weight_ppm:
            raise PlatformError(
                ReasonCode.PROMOTION_NOT_PERMITTED,
                f"the weight of {self.alpha_id} was lowered to {now.weight_ppm} ppm while the "
                "signer worked; what it was to sign does not hold",
                next_step=f"hft-research show {self.alpha_id}; ask again for more weight",
            )


@dataclass(frozen=True, slots=True)
class Promotion:
    """A signed config on disk."""

    alpha_id: str
    alpha_key: str
    stage: str
    weight_ppm: int
    promotion_seq: int
    not_before_ns: int
    expires_ns: int
    sha256: str
    path: Path
    head: Path
    is_new: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON content."""
        return {
            "alpha_id": self.alpha_id,
            "alpha_key": self.alpha_key,
            "stage": self.stage,
            "weight_ppm": self.weight_ppm,
            "promotion_seq": self.promotion_seq,
            "not_before_ns": self.not_before_ns,
            "expires_ns": self.expires_ns,
            "sha256": self.sha256,
            "path": str(self.path),
            "head": str(self.head),
            "is_new": self.is_new,
        }


def issue_in_force(ws: Path, alpha: Alpha, current: SignedIssue) -> Promotion:
    """The issue that already says what was asked for, its head written again if a crash lost it.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        Whose.
    current : SignedIssue
        Verified.

    Returns
    -------
    Promotion
        With `is_new` false.
    """
    root, content = promotions_root(ws), current.content
    path = issued_path(root, alpha.alpha_id, content.promotion_seq, current.content_sha256)
    head = head_path(root, alpha.alpha_id, content.issued_trading_day)
    # A crash between the two writes of an issue leaves a config without its head.
    if not head.exists() or head.read_bytes() != path.read_bytes():
        atomic_write(head, path.read_bytes())
    return _promotion(alpha, content, current.content_sha256, path, head, is_new=False)


def write_issue(
    request: SignRequest,
    alpha: Alpha,
    content: dict[str, Any],
    key: SigningKey,
    ws: Path,
    entries: list[audit.AuditEntry],
    standing: Standing,
) -> Promotion:
    """Number, record, sign and publish a config.

    Parameters
    ----------
    request : SignRequest
        Who asks, and why.
    alpha : Alpha
        Whom.
    content : dict
        From `permit_content` (Any: validated here once more).
    key : SigningKey
        The promotion key.
    ws : Path
        Workspace.
    entries : list of AuditEntry
        Of the verified chain.
    standing : Standing
        Of the moment at which the signer began to look.

    Returns
    -------
    Promotion
        With `is_new` true.

    Raises
    ------
    PlatformError
        AUDIT_BROKEN or WAL_WRITE_FAILED: then there is no config. CONFIG_WITHDRAWN or
        PROMOTION_NOT_PERMITTED when something was taken away meanwhile: then there is none in
        force.
    """
    standing.require_unchanged()
    content = content | {"promotion_seq": _next_seq(ws, alpha.alpha_id, entries)}
    checked = PromotedContent.model_validate(content)
    digest = canonical_sha256(content)
    raw = render_config(content, key_id=key.key_id, signature=key.sign(signed_message(content)))
    audit.append(
        ws,
        kind=audit.EntryKind(f"issued_{request.stage}"),
        who=request.by,
        why=request.why,
        subject=alpha.key,
        facts={
            "alpha_id": alpha.alpha_id,
            "stage": request.stage,
            "weight_ppm": checked.weight_ppm,
            "promotion_seq": checked.promotion_seq,
            "config_sha256": digest,
            "key_id": key.key_id,
            "issued_trading_day": checked.issued_trading_day,
            "expires_ns": checked.expires_ns,
            "verdicts": dict(checked.verdicts),
            "approved_by": checked.approval.by if checked.approval else None,
        },
    )
    try:
        return _publish(alpha, checked, digest, raw, key, standing)
    except PlatformError as error:
        # Its entry is there and it may be on disk: it is taken back with the one before it.
        take_back(
            ws,
            alpha.alpha_id,
            checked.promotion_seq,
            by=request.by,
            why=f"not published: {error.message}",
        )
        raise


def _publish(
    alpha: Alpha,
    checked: PromotedContent,
    digest: str,
    raw: bytes,
    key: SigningKey,
    standing: Standing,
) -> Promotion:
    root = promotions_root(standing.ws)
    path = issued_path(root, alpha.alpha_id, checked.promotion_seq, digest)
    head = head_path(root, alpha.alpha_id, checked.issued_trading_day)
    standing.require_unchanged()
    write_once(path, raw)
    # Read back what a runtime would read, before it becomes the head.
    read_signed(path, trusted_keys={key.key_id: key.trusted})
    atomic_write(head, raw)
    standing.require_unchanged()
    return _promotion(alpha, checked, digest, path, head, is_new=True)


def require_issues_in_chain(ws: Path, alpha_id: str, entries: list[audit.AuditEntry]) -> None:
    """Refuse when an issue on disk is not in the audit chain.

    A chain deleted together with its head looks new; the issued configs say that it is not.

    Raises
    ------
    PlatformError
        AUDIT_BROKEN naming the issue.
    """
    recorded = _recorded_seqs(entries, alpha_id)
    for seq in issued_seqs(promotions_root(ws), alpha_id):
        if seq not in recorded:
            raise PlatformError(
                ReasonCode.AUDIT_BROKEN,
                f"issue {seq} of {alpha_id} is not in the audit chain {audit.chain_path(ws)}",
            )


def _recorded_seqs(entries: list[audit.AuditEntry], alpha_id: str) -> set[int]:
    return {
        int(entry.record["facts"]["promotion_seq"])
        for entry in entries
        if entry.record["kind"] in audit.ISSUES
        and entry.record["facts"].get("alpha_id") == alpha_id
    }


def _next_seq(ws: Path, alpha_id: str, entries: list[audit.AuditEntry]) -> int:
    root = promotions_root(ws)
    known = [
        0,
        withdrawn_seq(root, alpha_id),
        seq_floor(ws, alpha_id),
        *issued_seqs(root, alpha_id),
        *_recorded_seqs(entries, alpha_id),
    ]
    return max(known) + 1


def _promotion(
    alpha: Alpha, content: PromotedContent, digest: str, path: Path, head: Path, *, is_new: bool
) -> Promotion:
    return Promotion(
        alpha_id=alpha.alpha_id,
        alpha_key=alpha.key,
        stage=content.stage,
        weight_ppm=content.weight_ppm,
        promotion_seq=content.promotion_seq,
        not_before_ns=content.not_before_ns,
        expires_ns=content.expires_ns,
        sha256=digest,
        path=path,
        head=head,
        is_new=is_new,
    )
