"""Promoted config: the only door into the runtime, and everything that keeps it shut.

Why: an alpha trades because its evidence was signed, not because a file says so.

Invariants:
1. No field is used before the signature over all of them has been verified.
2. Every byte of the file counts: a file that is not the canonical form of what was signed is
   refused, so nothing can hide in spacing, comments, anchors or doubled keys.
3. Each refusal has its own reason code; the first in the order of `load_verified` is reported.
4. A sequence below one already issued or accepted is refused, also after a restart: by the
   runtime's own signed memory, the issues in the folder and the audit chain, whichever is highest.

It makes no config (see research/promotion/sign.py). Operator's page: `docs/formats.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from hft_platform.config.approval import require_approval
from hft_platform.config.canonical import canonical_json, sha256_hex
from hft_platform.config.keys import TrustedKey
from hft_platform.config.promoted_content import Mode, PromotedContent, Sha256, Stage
from hft_platform.config.promotion_folder import (
    head_config,
    highest_issued,
    promotions_root,
    raise_seq_floor,
    reduced_weight,
    seq_floor,
    withdrawn_seq,
)
from hft_platform.errors import PlatformError, ReasonCode

__all__ = [
    "Mode",
    "PromotedConfig",
    "PromotedContent",
    "SignedIssue",
    "Stage",
    "head_config",
    "load_verified",
    "promotion_heads",
    "read_signed",
    "read_unverified",
    "render_config",
    "signed_message",
]

CONFIG_BYTES_MAX = 64 * 1024
CONFIG_DEPTH_MAX = 8
MODES_OF_STAGE: Mapping[str, tuple[str, ...]] = {
    "shadow": ("sim", "paper"),
    "canary": ("sim", "paper", "live"),
    "live": ("sim", "paper", "live"),
}
"""Which modes a stage permits; an automatic key narrows it to sim and paper, never stage live."""


class PromotedConfig(PromotedContent):
    """A verified config; only `load_verified` makes one.

    Attributes
    ----------
    weight_ppm : int
        Weight in force: the signed one or a reduction of it.
    signed_weight_ppm : int
        Weight that was signed.
    content_sha256 : str
        Hash of the canonical content without its signature.
    key_id : str
        Key that signed it.
    """

    weight_ppm: Annotated[int, Field(ge=0, le=1_000_000)]
    signed_weight_ppm: int
    content_sha256: Sha256
    key_id: str

    @classmethod
    def load_verified(
        cls,
        path: Path,
        *,
        workspace: Path,
        trusted_keys: Mapping[str, TrustedKey],
        mode: Mode,
        now_ns: int,
        symbol: str,
        code_sha256: str,
    ) -> PromotedConfig:
        """Verify a config against this runtime's memory and remember its sequence.

        Parameters
        ----------
        path : Path
            Head or issue in the workspace's promotions folder.
        workspace : Path
            Holds withdrawals and the highest sequence seen.
        trusted_keys : mapping of str to TrustedKey
            Promotion keys whose signatures count.
        mode : str
            `sim`, `paper` or `live`.
        now_ns : int
            Time at which validity is judged: record time, or wall time in live.
        symbol : str
            Instrument about to be traded.
        code_sha256 : str
            Hash of the running code.

        Returns
        -------
        PromotedConfig
            With the weight in force.
        """
        config = load_verified(
            path,
            trusted_keys=trusted_keys,
            mode=mode,
            now_ns=now_ns,
            symbol=symbol,
            seq_floor=lambda alpha_id: max(
                seq_floor(workspace, alpha_id), highest_issued(workspace, alpha_id)
            ),
            code_sha256=code_sha256,
            root=promotions_root(workspace),
        )
        _require_place(path, config.alpha_id)
        raise_seq_floor(workspace, config.alpha_id, config.promotion_seq)
        return config

    def is_withdrawn(self, workspace: Path) -> bool:
        """Tell whether this issue (or a later one) was taken back."""
        return withdrawn_seq(promotions_root(workspace), self.alpha_id) >= self.promotion_seq

    def weight_in_force(self, workspace: Path) -> int:
        """Weight now, after any reduction since the config was loaded."""
        return reduced_weight(
            promotions_root(workspace),
            self.alpha_id,
            self.promotion_seq,
            signed_ppm=self.signed_weight_ppm,
        )


def load_verified(
    path: Path,
    *,
    trusted_keys: Mapping[str, TrustedKey],
    mode: Mode,
    now_ns: int,
    symbol: str,
    seq_floor: int | Callable[[str], int],
    code_sha256: str,
    root: Path | None = None,
) -> PromotedConfig:
    """Read a promoted config and refuse it unless everything holds.

    Parameters
    ----------
    path : Path
        YAML file.
    trusted_keys : mapping of str to TrustedKey
        Promotion keys whose signatures count, by key id; with an approval key among them a stage
        above shadow needs an approval.
    mode : str
        `sim`, `paper` or `live`.
    now_ns : int
        Time at which validity is judged.
    symbol : str
        Instrument about to be traded.
    seq_floor : int or callable
        Highest sequence accepted before, or a function from alpha id to it.
    code_sha256 : str
        Hash of the running code.
    root : Path, optional
        Promotions folder with withdrawals and reductions; by default the file's grandparent.

    Returns
    -------
    PromotedConfig
        Verified, with the weight in force.

    Raises
    ------
    PlatformError
        510 not found, 508 malformed, 501 unsigned, 504 unknown key, 502 signature or bytes
        differ, 518 key may not sign this, PROMOTION_NOT_APPROVED, 511 withdrawn, 505 older
        sequence, 507 stage does not fit the mode, 506 other instrument, 520 not yet
        valid, 503 expired, 509 other code.
    """
    issue = read_signed(path, trusted_keys=trusted_keys)
    signed, key = issue.content, issue.key
    root = root if root is not None else path.parent.parent
    floor = seq_floor if isinstance(seq_floor, int) else seq_floor(signed.alpha_id)
    _require_authority(signed, key, mode)
    require_approval(signed, trusted_keys)
    _require_not_withdrawn(signed, root, floor)
    _require_scope(signed, mode, symbol)
    _require_time(signed, now_ns)
    _require_code(signed, code_sha256)
    weight = reduced_weight(
        root, signed.alpha_id, signed.promotion_seq, signed_ppm=signed.weight_ppm
    )
    return PromotedConfig.model_validate(
        issue.raw
        | {
            "weight_ppm": weight,
            "signed_weight_ppm": signed.weight_ppm,
            "content_sha256": issue.content_sha256,
            "key_id": key.key_id,
        }
    )


@dataclass(frozen=True, slots=True)
class SignedIssue:
    """An issue whose signature and schema hold; it may be expired, withdrawn or old.

    Attributes
    ----------
    content : PromotedContent
        What was signed.
    raw : dict
        The same as parsed.
    content_sha256 : str
        Hash of its canonical JSON.
    key : TrustedKey
        Key that signed it.
    """

    content: PromotedContent
    raw: dict[str, Any]
    content_sha256: str
    key: TrustedKey


def read_signed(path: Path, *, trusted_keys: Mapping[str, TrustedKey]) -> SignedIssue:
    """Read a promoted config as a document: who signed what, whether or not it may trade now.

    Parameters
    ----------
    path : Path
        YAML file.
    trusted_keys : mapping of str to TrustedKey
        Promotion keys whose signatures count.

    Returns
    -------
    SignedIssue
        Never a permission: only `load_verified` gives one.

    Raises
    ------
    PlatformError
        510, 508, 501, 504 or 502, as `load_verified`.
    """
    content, key, digest = _verify_signature(path, trusted_keys)
    try:
        signed = PromotedContent.model_validate(content)
    except ValidationError as error:
        raise _malformed(path, _first_problem(error)) from error
    return SignedIssue(signed, content, digest, key)


def read_unverified(path: Path) -> PromotedContent | None:
    """Read a config for display or for taking it back: nothing about it is proven.

    Parameters
    ----------
    path : Path
        YAML file.

    Returns
    -------
    PromotedContent or None
        None when it does not fit its schema.
    """
    try:
        content = _parse(path, _read(path))
        content.pop("signature", None)
        return PromotedContent.model_validate(content)
    except (PlatformError, ValidationError):
        return None


def render_config(content: Mapping[str, Any], *, key_id: str, signature: str) -> bytes:
    """Canonical YAML of a signed config: sorted keys, block style.

    Parameters
    ----------
    content : mapping
        What was signed.
    key_id : str
        Key that signed it.
    signature : str
        Ed25519 signature as hex.

    Returns
    -------
    bytes
        The only byte form that the reader accepts.
    """
    return _render({**content, "signature": {"key_id": key_id, "ed25519": signature}})


def signed_message(content: Mapping[str, Any]) -> bytes:
    """Bytes that are signed: a prefix naming the kind, then the canonical JSON."""
    return b"hft promoted config v1\n" + canonical_json(dict(content))


def promotion_heads(ws: Path) -> list[dict[str, Any]]:
    """List the newest issue of each alpha for display; nothing here is verified.

    Parameters
    ----------
    ws : Path
        Workspace.

    Returns
    -------
    list of dict
        alpha_id, stage, weight_ppm, promotion_seq, expires_ns, withdrawn, path; sorted by alpha.
    """
    ids = sorted({path.stem for path in promotions_root(ws).glob("[0-9]*/*.yaml")})
    return [_head_row(ws, alpha_id) for alpha_id in ids]


def _head_row(ws: Path, alpha_id: str) -> dict[str, Any]:
    root = promotions_root(ws)
    path = head_config(ws, alpha_id)
    content = read_unverified(path)
    if content is None:
        return {
            "alpha_id": alpha_id,
            "stage": "unreadable",
            "weight_ppm": 0,
            "promotion_seq": 0,
            "expires_ns": 0,
            "withdrawn": True,
            "path": str(path),
        }
    seq = content.promotion_seq
    return {
        "alpha_id": alpha_id,
        "stage": content.stage,
        "weight_ppm": reduced_weight(root, alpha_id, seq, signed_ppm=content.weight_ppm),
        "promotion_seq": seq,
        "expires_ns": content.expires_ns,
        "withdrawn": withdrawn_seq(root, alpha_id) >= seq,
        "path": str(path),
    }


def _verify_signature(
    path: Path, trusted_keys: Mapping[str, TrustedKey]
) -> tuple[dict[str, Any], TrustedKey, str]:
    raw = _read(path)
    content = _parse(path, raw)
    whole = dict(content)
    signature = content.pop("signature", None)
    if signature is None:
        raise PlatformError(ReasonCode.CONFIG_UNSIGNED, f"promoted config {path} has no signature")
    if (
        not isinstance(signature, dict)
        or set(signature) != {"key_id", "ed25519"}
        or not all(isinstance(value, str) for value in signature.values())
    ):
        raise _malformed(path, "signature is not {key_id, ed25519}")
    key = trusted_keys.get(signature["key_id"])
    if key is None or key.role != "promotion":
        known = ", ".join(sorted(trusted_keys)) or "none"
        raise PlatformError(
            ReasonCode.CONFIG_KEY_UNKNOWN,
            f"promoted config {path} is signed by key {signature['key_id']!r}; trusted: {known}",
        )
    try:
        message = signed_message(content)
        is_canonical = _render(whole) == raw
    except (PlatformError, yaml.YAMLError) as error:
        raise _malformed(path, str(error)) from error
    if not key.is_signature_of(message, signature["ed25519"]):
        raise PlatformError(
            ReasonCode.CONFIG_SIGNATURE_INVALID,
            f"promoted config {path} was changed after key {key.key_id} signed it",
        )
    if not is_canonical:
        raise PlatformError(
            ReasonCode.CONFIG_SIGNATURE_INVALID,
            f"promoted config {path} has bytes that were not signed (spacing, comments or order)",
        )
    return content, key, sha256_hex(canonical_json(content))


def _require_authority(content: PromotedContent, key: TrustedKey, mode: str) -> None:
    if key.automatic and "live" in (content.stage, mode) and content.stage != "shadow":
        raise PlatformError(
            ReasonCode.KEY_ROLE_FORBIDDEN,
            f"{_name(content)} is signed by {key.key_id}, made automatically; "
            f"stage {content.stage} in mode {mode} needs a pinned key",
            next_step="hft-research keys make --role promotion --out FILE, pin it, promote again",
        )


def _require_place(path: Path, alpha_id: str) -> None:
    # A head is found by its alpha's name; another alpha's config there would trade in its place.
    if path.parent.name.isdigit() and path.stem != alpha_id:
        raise PlatformError(
            ReasonCode.CONFIG_EVIDENCE_MISMATCH,
            f"promoted config {path} is about {alpha_id}",
            next_step="find out who put it there; hft-research promote writes the right one",
        )


def _require_not_withdrawn(content: PromotedContent, root: Path, floor: int) -> None:
    seq = content.promotion_seq
    if withdrawn_seq(root, content.alpha_id) >= seq:
        raise PlatformError(
            ReasonCode.CONFIG_WITHDRAWN, f"{_name(content)} was taken back (sequence {seq})"
        )
    if seq < floor:
        raise PlatformError(
            ReasonCode.CONFIG_REPLAYED,
            f"{_name(content)} has sequence {seq}; sequence {floor} was issued or accepted before",
            next_step=f"use the newest issue; hft-research promote {content.alpha_id} makes one",
        )


def _require_scope(content: PromotedContent, mode: str, symbol: str) -> None:
    modes = MODES_OF_STAGE[content.stage]
    if mode not in modes:
        raise PlatformError(
            ReasonCode.CONFIG_WRONG_STAGE,
            f"{_name(content)} has stage {content.stage}, which permits {' and '.join(modes)}; "
            f"mode was {mode}",
        )
    symbols = [instrument.symbol for instrument in content.instruments]
    if symbol not in symbols:
        raise PlatformError(
            ReasonCode.CONFIG_WRONG_INSTRUMENT,
            f"{_name(content)} is for {', '.join(symbols)}; the session trades {symbol}",
        )


def _require_time(content: PromotedContent, now_ns: int) -> None:
    if now_ns < content.not_before_ns:
        raise PlatformError(
            ReasonCode.CONFIG_NOT_YET_VALID,
            f"{_name(content)} is valid from {_utc(content.not_before_ns)}, "
            f"the session is at {_utc(now_ns)}",
        )
    if now_ns >= content.expires_ns:
        raise PlatformError(
            ReasonCode.CONFIG_EXPIRED,
            f"{_name(content)} expired {_utc(content.expires_ns)}, "
            f"{_ago(now_ns - content.expires_ns)} before {_utc(now_ns)}",
            next_step=f"promote again: hft-research promote {content.alpha_id}",
        )


def _require_code(content: PromotedContent, code_sha256: str) -> None:
    if content.code_sha256 != code_sha256:
        raise PlatformError(
            ReasonCode.CONFIG_EVIDENCE_MISMATCH,
            f"{_name(content)} was judged with code {content.code_sha256[:12]}, "
            f"this is {code_sha256[:12]}",
            next_step=f"hft-research gates {content.alpha_id}, then promote again",
        )


def _name(content: PromotedContent) -> str:
    return f"promoted config {content.alpha_id}"


def _utc(time_ns: int) -> str:
    moment = datetime.fromtimestamp(time_ns // 1_000_000_000, tz=UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _ago(duration_ns: int) -> str:
    minutes = duration_ns // 60_000_000_000
    days, rest = divmod(minutes, 1440)
    return f"{days} d {rest // 60} h" if days else f"{rest // 60} h {rest % 60} min"


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(CONFIG_BYTES_MAX + 1)
    except OSError as error:
        raise PlatformError(
            ReasonCode.CONFIG_NOT_FOUND,
            f"promoted config {path} cannot be read: {error.strerror}",
        ) from error
    if len(raw) > CONFIG_BYTES_MAX:
        raise _malformed(path, f"larger than {CONFIG_BYTES_MAX} bytes")
    return raw


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    # The event pass bounds nesting and forbids anchors before anything is built from the text.
    try:
        text = raw.decode("utf-8")
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                raise _malformed(path, "anchors and aliases are not allowed")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > CONFIG_DEPTH_MAX:
                raise _malformed(path, f"nested deeper than {CONFIG_DEPTH_MAX}")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _malformed(path, str(error).replace("\n", " ")) from error
    if not isinstance(content, dict):
        raise _malformed(path, f"content is a {type(content).__name__}, not a mapping")
    return content


def _render(content: Mapping[str, Any]) -> bytes:
    text = yaml.safe_dump(
        dict(content), sort_keys=True, default_flow_style=False, allow_unicode=True, width=1 << 16
    )
    return text.encode("utf-8")


def _malformed(path: Path, text: str) -> PlatformError:
    return PlatformError(ReasonCode.CONFIG_MALFORMED, f"promoted config {path}: {text}")


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"]) or "content"
    return f"{place}: {problem['msg']}, was {problem.get('input')!r:.80}"
