"""Request for a promotion: what may be asked for, and reading it from a file.

Why: a request is the only thing that reaches the signer from outside, so it can say little.

Invariants:
1. It names whom, how far, at most how much, who asks and why; nothing of it is evidence.
2. An unknown field, a wrong type or a large file is refused with the field's name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hft_platform.errors import PlatformError, ReasonCode

REQUEST_BYTES_MAX = 16 * 1024


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
    climbs_from: Annotated[int, Field(gt=0)] | None = None
    """Sequence that the canary's step up was decided about; nothing is signed on another."""


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
