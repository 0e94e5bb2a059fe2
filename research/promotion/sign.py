"""The signer: the one process that holds the promotion key and turns evidence into a permit.

Why: whoever asks for a promotion must not be able to decide what is signed.

Invariants:
1. A request names an alpha and a stage; everything that is signed is derived here, from the
   alpha's manifest, its verdicts, datasets and signed sessions, each verified again from disk.
2. Sequence numbers of an alpha only grow, also when files or the audit chain were cut.
3. The audit entry is durable before the config exists; a broken chain blocks every promotion.
4. A config is written to its immutable name first, then made the head of its day.

It runs no gate. Operator's page: `docs/promotion.md`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hft_platform.config.canonical import (
    atomic_write,
    canonical_sha256,
    write_once,
)
from hft_platform.config.code_hash import code_sha256
from hft_platform.config.keys import SigningKey, load_signing_key, signing_key, trusted_keys
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
    locked,
    promotions_root,
    seq_floor,
    withdrawn_path,
    withdrawn_seq,
)
from hft_platform.errors import PlatformError, ReasonCode
from research.promotion import audit
from research.promotion.canary import Action, first_weight
from research.promotion.canary_thresholds import load_canary_thresholds
from research.promotion.evidence import (
    passed_verdicts,
)
from research.promotion.lifecycle import require_not_retired
from research.promotion.lineage import evaluate_canary, newest_issue
from research.promotion.permit import DAY_NS, permit_content
from research.registry import Alpha, find_alpha

if TYPE_CHECKING:
    from hft_platform.config.settings import Settings
    from research.gates.verdict import Verdict

REQUEST_BYTES_MAX = 16 * 1024
_TIME_FIELDS = ("promotion_seq", "issued_trading_day", "not_before_ns", "expires_ns")


class SignRequest(BaseModel):
    """What may be asked for: whom, how far, at most how much, who asks and why."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    schema_: Literal[1] = Field(alias="schema")
    alpha_key: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}@[0-9a-f]{12}$")]
    stage: Literal["shadow", "canary", "live"]
    symbol: str | None
    weight_ppm_max: Annotated[int, Field(gt=0, le=1_000_000)] | None
    by: Annotated[str, Field(min_length=1, max_length=200)]
    why: Annotated[str, Field(min_length=1, max_length=2000)]


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


def read_request(path: Path) -> SignRequest:
    """Read and check a request file.

    Parameters
    ----------
    path : Path
        JSON, as `promote` writes it.

    Returns
    -------
    SignRequest
        Valid; nothing of it is evidence.

    Raises
    ------
    PlatformError
        CONFIG_MALFORMED naming the field, CONFIG_NOT_FOUND when there is no such file.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(REQUEST_BYTES_MAX + 1)
    except OSError as error:
        raise PlatformError(
            ReasonCode.CONFIG_NOT_FOUND, f"request {path} cannot be read: {error.strerror}"
        ) from error
    if len(raw) > REQUEST_BYTES_MAX:
        raise PlatformError(
            ReasonCode.CONFIG_MALFORMED, f"request {path} is larger than {REQUEST_BYTES_MAX} bytes"
        )
    try:
        return SignRequest.model_validate_json(raw)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"]) or "request"
        raise PlatformError(
            ReasonCode.CONFIG_MALFORMED,
            f"request {path}: {place}: {problem['msg']}, was {problem.get('input')!r:.80}",
            next_step="hft-research promote writes requests; do not edit them by hand",
        ) from error


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
        AUDIT_BROKEN, 705 to 711 for the verdicts, PROMOTION_NOT_PERMITTED, CONFIG_WITHDRAWN for
        evidence that was rolled back, KEY_ROLE_FORBIDDEN, 713 to 717 when the canary fails.
    """
    ws = context.workspace
    alpha = find_alpha(request.alpha_key, context.alphas_folder)
    with locked(promotions_root(ws)):
        key = _key_for(request.stage, context)
        entries = audit.verify_chain(ws)
        require_not_retired(entries, alpha)
        _require_issues_in_chain(ws, alpha.alpha_id, entries)
        verdicts = passed_verdicts(ws, alpha, request.stage, config_dir=context.config_dir)
        hashes = {gate: verdict.sha256 for gate, verdict in verdicts.items()}
        _require_not_rolled_back(ws, alpha, hashes)
        current = newest_issue(ws, alpha.alpha_id, pinned_file=context.settings.pinned_keys_path)
        if current is not None and _includes_shadow(current, alpha, request.stage):
            return _existing(ws, alpha, current)
        weight = _weight(request, alpha, verdicts, context)
        content = permit_content(
            ws,
            alpha,
            request.stage,
            verdicts,
            weight_ppm=weight,
            symbol=request.symbol,
            validity_days=context.settings.promotion_validity_days,
            config_dir=context.config_dir,
        )
        if current is not None and _says_the_same(current, content, key, context.settings):
            return _existing(ws, alpha, current)
        return _issue(request, alpha, content, key, ws, entries)


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
    if trusted is None or trusted.automatic:
        state = "the workspace's automatic key" if trusted else "not pinned"
        raise PlatformError(
            ReasonCode.KEY_ROLE_FORBIDDEN,
            f"promotion key {key.key_id} from {path} is {state}",
            next_step=f"add the line 'promotion {key.trusted.public_hex}' to pinned_keys_file",
        )
    return key


def _require_issues_in_chain(ws: Path, alpha_id: str, entries: list[audit.AuditEntry]) -> None:
    # A chain deleted together with its head looks new; the issued configs say that it is not.
    recorded = {
        entry.record["facts"].get("promotion_seq")
        for entry in entries
        if entry.record["kind"].startswith("issued_")
        and entry.record["facts"].get("alpha_id") == alpha_id
    }
    for seq in issued_seqs(promotions_root(ws), alpha_id):
        if seq not in recorded:
            raise PlatformError(
                ReasonCode.AUDIT_BROKEN,
                f"issue {seq} of {alpha_id} is not in the audit chain {audit.chain_path(ws)}",
            )


def _require_not_rolled_back(ws: Path, alpha: Alpha, hashes: Mapping[str, str]) -> None:
    root = promotions_root(ws)
    seq = withdrawn_seq(root, alpha.alpha_id)
    if seq == 0:
        return
    path = withdrawn_path(root, alpha.alpha_id, seq)
    try:
        record = json.loads(path.read_bytes())
        is_rolled_back = bool(record["is_rolled_back"])
        is_same = all(record["verdicts"].get(gate) == sha for gate, sha in hashes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PlatformError(
            ReasonCode.CONFIG_WITHDRAWN,
            f"{alpha.key} was withdrawn up to sequence {seq}, and {path} does not say why",
            next_step="hft-research audit verify; restore the file from a copy",
        ) from error
    if is_rolled_back and is_same:
        raise PlatformError(
            ReasonCode.CONFIG_WITHDRAWN,
            f"{alpha.key} was rolled back on the evidence that it is to be promoted by again",
            next_step="run the gates on newer data, or change the alpha",
        )


def _weight(
    request: SignRequest, alpha: Alpha, verdicts: Mapping[str, Verdict], context: SignerContext
) -> int:
    gate_weight = alpha.manifest.gate_weight_ppm
    if request.stage == "shadow":
        allowed = gate_weight
    else:
        allowed = _canary_weight(alpha, verdicts["gate_c"], context, gate_weight)
    if request.weight_ppm_max is None:
        return allowed
    if request.weight_ppm_max > allowed:
        raise PlatformError(
            ReasonCode.PROMOTION_NOT_PERMITTED,
            f"{alpha.key} asks for weight {request.weight_ppm_max} ppm; "
            f"its evidence carries {allowed} ppm",
        )
    return request.weight_ppm_max


def _canary_weight(alpha: Alpha, gate_c: Verdict, context: SignerContext, gate_weight: int) -> int:
    thresholds, _ = load_canary_thresholds(context.config_dir)
    pinned = context.settings.pinned_keys_path
    current = newest_issue(context.workspace, alpha.alpha_id, pinned_file=pinned)
    if (
        current is None
        or current.content.stage == "shadow"
        or current.content.alpha_hash != alpha.alpha_hash
    ):
        return first_weight(thresholds, gate_weight)
    decision = evaluate_canary(
        context.workspace,
        alpha,
        gate_c=gate_c,
        config_dir=context.config_dir,
        pinned_file=pinned,
    )
    if decision.action is Action.ROLL_BACK:
        first = decision.reasons[0]
        raise PlatformError(
            first.code,
            f"{alpha.key} fails its canary: {first.text}; nothing was signed",
            next_step=f"hft-research canary {alpha.alpha_id} --apply rolls it back",
        )
    return decision.weight_ppm


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


def _existing(ws: Path, alpha: Alpha, current: SignedIssue) -> Promotion:
    root, content = promotions_root(ws), current.content
    path = issued_path(root, alpha.alpha_id, content.promotion_seq, current.content_sha256)
    head = head_path(root, alpha.alpha_id, content.issued_trading_day)
    # A crash between the two writes of an issue leaves a config without its head.
    if not head.exists() or head.read_bytes() != path.read_bytes():
        atomic_write(head, path.read_bytes())
    return _promotion(alpha, content, current.content_sha256, path, head, is_new=False)


def _issue(
    request: SignRequest,
    alpha: Alpha,
    content: dict[str, Any],
    key: SigningKey,
    ws: Path,
    entries: list[audit.AuditEntry],
) -> Promotion:
    root = promotions_root(ws)
    content = content | {"promotion_seq": _next_seq(ws, alpha.alpha_id, entries)}
    checked = PromotedContent.model_validate(content)
    digest = canonical_sha256(content)
    raw = render_config(content, key_id=key.key_id, signature=key.sign(signed_message(content)))
    audit.append(
        ws,
        kind=f"issued_{request.stage}",
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
        },
    )
    path = issued_path(root, alpha.alpha_id, checked.promotion_seq, digest)
    head = head_path(root, alpha.alpha_id, checked.issued_trading_day)
    write_once(path, raw)
    # Read back what a runtime would read, before it becomes the head.
    read_signed(path, trusted_keys={key.key_id: key.trusted})
    atomic_write(head, raw)
    return _promotion(alpha, checked, digest, path, head, is_new=True)


def _next_seq(ws: Path, alpha_id: str, entries: list[audit.AuditEntry]) -> int:
    root = promotions_root(ws)
    recorded = [
        int(entry.record["facts"]["promotion_seq"])
        for entry in entries
        if entry.record["kind"].startswith("issued_")
        and entry.record["facts"].get("alpha_id") == alpha_id
    ]
    known = [
        0,
        withdrawn_seq(root, alpha_id),
        seq_floor(ws, alpha_id),
        *issued_seqs(root, alpha_id),
        *recorded,
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
