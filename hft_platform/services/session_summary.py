"""Session summary: what a runtime session proves, hashed and signed by hft-live.

Why: gate E and the canary read evidence from the runtime itself, never numbers typed in.

Invariants:
1. `evidence` holds no clock and no path: the same session gives the same evidence bytes.
2. A summary counts only if its hash, its signature and its schema all hold, and its session was
   not recovered from lost records since.
3. Wall-clock measurements live in `timings`, which no decision reads.

It does not judge the session (see gate E and the canary). Operator's page: `docs/formats.md`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from hft_platform.config.canonical import atomic_write, canonical_json, sha256_hex
from hft_platform.config.keys import SigningKey, TrustedKey
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder import session_recovery

_SUMMARY_BYTES_MAX = 4 << 20
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Counts(BaseModel):
    """Counters of a session; more of them may be added, these must be there."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")

    records: Count
    decisions: Count
    approved: Count
    refused_by_code: dict[str, Count]
    orders: Count
    broker_rejects: Count
    unknown: Count
    filled_orders: Count | None = None
    """Orders with a fill; a summary from before it was counted says nothing."""


class ParityCount(_Strict):
    """How many decisions a replay of the session's log reproduced."""

    identical: Count
    total: Count


class Account(BaseModel):
    """What the fills came to, in integers at 1e-8 (hft_platform/execution/position_store.py)."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")

    gross: int
    fees: int
    net: int
    fill_count: Count
    round_trip_count: Count
    max_drawdown: int

    @model_validator(mode="after")
    def _net_is_gross_less_fees(self) -> Self:
        if self.net != self.gross - self.fees:
            raise ValueError("net is not gross less fees")
        return self


class SessionEvidence(_Strict):
    """The deterministic part of a session summary; None means it could not be measured.

    Facts for reports only (segment hashes, a fuller account) may be added.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")

    schema_: Literal[1] = Field(alias="schema")
    run_id: str
    alpha_id: str
    alpha_hash: Sha256
    config_sha256: Sha256
    promotion_seq: Count
    stage: Literal["research", "shadow", "canary", "live"]
    weight_ppm: Annotated[int, Field(ge=0, le=1_000_000)]
    mode: Literal["sim", "paper", "live", "rehearsal"]
    symbol: str
    session_id: str
    trading_day: Annotated[int, Field(ge=19_000_101, le=99_991_231)]
    tape_sha256: Sha256
    latency_profile_sha256: Sha256
    queue_model: str
    code_sha256: Sha256
    counts: Counts
    decisions_sha256: Sha256
    inputs_sha256: Sha256
    parity: ParityCount | None
    account: Account | None
    slippage_ticks: FiniteFloat | None
    markout_ticks: dict[str, FiniteFloat | None]
    order_latency_ms: dict[str, FiniteFloat | None]
    halted_by: Count
    shed_count: Count = 0
    """Market records that the log lacks; a summary from before there were any says nothing."""


class _Signature(_Strict):
    key_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    ed25519: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


class _Summary(_Strict):
    evidence: SessionEvidence
    evidence_sha256: Sha256
    signature: _Signature
    timings: dict[str, Any]


def sign_summary(
    evidence: dict[str, Any], timings: dict[str, Any], key: SigningKey
) -> dict[str, Any]:
    """Wrap a session's evidence with its hash and signature.

    Parameters
    ----------
    evidence : dict
        Fields of `SessionEvidence`.
    timings : dict
        Wall-clock measurements for the report; never evidence.
    key : SigningKey
        The session key.

    Returns
    -------
    dict
        Content of `summary.json`.

    Raises
    ------
    PlatformError
        INVARIANT_BROKEN when the evidence does not fit its schema, KEY_ROLE_FORBIDDEN for a
        key of another role.
    """
    if key.trusted.role != "session":
        raise PlatformError(
            ReasonCode.KEY_ROLE_FORBIDDEN,
            f"a {key.trusted.role} key may not sign session summaries",
        )
    try:
        SessionEvidence.model_validate(evidence)
    except ValidationError as error:
        raise PlatformError(
            ReasonCode.INVARIANT_BROKEN,
            f"session evidence does not fit its schema: {first_problem(error)}",
        ) from error
    raw = canonical_json(evidence)
    return {
        "evidence": evidence,
        "evidence_sha256": sha256_hex(raw),
        "signature": {"key_id": key.key_id, "ed25519": key.sign(_message(raw))},
        "timings": timings,
    }


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write `summary.json` atomically."""
    atomic_write(path, canonical_json(summary) + b"\n")


def verify_summary(path: Path, *, key: TrustedKey) -> SessionEvidence:
    """Read a session summary and prove who wrote it.

    Parameters
    ----------
    path : Path
        `summary.json` of a session folder.
    key : TrustedKey
        Public half of the session key.

    Returns
    -------
    SessionEvidence
        Evidence that may be counted.

    Raises
    ------
    PlatformError
        SUMMARY_TAMPERED when hash, signature or schema do not hold, CONFIG_NOT_FOUND when the
        file is missing.
    """
    if session_recovery.is_recovered(path.parent):
        raise _tampered(
            path,
            f"has {session_recovery.FILE_NAME} beside it: its logs lost records since",
        )
    try:
        with path.open("rb") as file:
            raw = file.read(_SUMMARY_BYTES_MAX + 1)
    except OSError as error:
        raise PlatformError(
            ReasonCode.CONFIG_NOT_FOUND,
            f"session summary {path} cannot be read: {error.strerror}",
            next_step="finish the session with hft-live run, then try again",
        ) from error
    if len(raw) > _SUMMARY_BYTES_MAX:
        raise _tampered(path, f"is larger than {_SUMMARY_BYTES_MAX} bytes")
    try:
        summary = json.loads(raw)
        model = _Summary.model_validate(summary)
        message = canonical_json(summary["evidence"])
    except ValidationError as error:
        raise _tampered(path, f"does not fit its schema: {first_problem(error)}") from error
    except (ValueError, RecursionError, PlatformError) as error:
        raise _tampered(path, f"is not canonical JSON: {error}") from error
    if sha256_hex(message) != model.evidence_sha256:
        raise _tampered(path, "does not match its evidence_sha256")
    if key.role != "session" or key.key_id != model.signature.key_id:
        raise _tampered(path, f"is signed by {model.signature.key_id}, trusted is {key.key_id}")
    if not key.is_signature_of(_message(message), model.signature.ed25519):
        raise _tampered(path, "does not match its signature")
    return model.evidence


def first_problem(error: ValidationError) -> str:
    """First validation problem as one line: field, what is wrong, value."""
    problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"]) or "content"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place}: {problem['msg']}, was {problem.get('input')!r:.80}{more}"


def _message(evidence: bytes) -> bytes:
    # The prefix keeps a signature of one kind of content from being used for another.
    return b"hft session summary v1\n" + evidence


def _tampered(path: Path, text: str) -> PlatformError:
    return PlatformError(ReasonCode.SUMMARY_TAMPERED, f"session summary {path} {text}")
