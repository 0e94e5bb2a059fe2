"""Fault profiles: what goes wrong at the paper exchange in a drill, as a file.

Why: an engine is worth trust when it has met lost, late and doubled messages, and what it met can
be met again: a profile is a file with a seed.

Invariants:
1. Every fault is stated; null is off, and a missing or unknown field is an error.
2. Same file, same session, same faults: rates and delays are all that it holds.

It decides nothing about an order: `rust_core/src/faults.rs` does. Operator's page:
`docs/backtest.md`.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hft_platform.config.yaml_files import parse_yaml, read_yaml, validated
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.records import SCALE

_NS_PER_MS = 1_000_000
_DELAY_MS_MAX = 60_000

Ppm = Annotated[int, Field(ge=0, le=1_000_000)]
Milliseconds = Annotated[int, Field(ge=1, le=_DELAY_MS_MAX)]
Bps = Annotated[int, Field(ge=1, le=10_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class _Rate(_Strict):
    rate_ppm: Ppm


class _Delayed(_Rate):
    delay_ms: Milliseconds

    def core(self) -> dict[str, int]:
        return {"rate_ppm": self.rate_ppm, "delay_ns": self.delay_ms * _NS_PER_MS}


class _Reject(_Strict):
    reason: str
    rate_ppm: Ppm

    @field_validator("reason")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in ReasonCode.__members__:
            raise ValueError("is no name of a reason code (docs/reason-codes.md)")
        return name

    def core(self) -> dict[str, int]:
        return {"reason_code": int(ReasonCode[self.reason]), "rate_ppm": self.rate_ppm}


class _PriceLimit(_Strict):
    reference_price: Annotated[float, Field(gt=0, lt=1e10, strict=False)] | None
    bps: Bps

    def core(self) -> dict[str, int | None]:
        price = self.reference_price
        return {
            "reference_price": None if price is None else round(price * SCALE),
            "bps": self.bps,
        }


class _PriceBand(_Strict):
    bps: Bps


class _SessionEnd(_Strict):
    early_ms: Annotated[int, Field(ge=0, le=86_400_000)]


class _Timeout(_Strict):
    after_ms: Milliseconds
    resolve_ms: Milliseconds | None

    def core(self) -> dict[str, int | None]:
        resolve = None if self.resolve_ms is None else self.resolve_ms * _NS_PER_MS
        return {"after_ns": self.after_ms * _NS_PER_MS, "resolve_ns": resolve}


class FaultProfile(_Strict):
    """A fault profile's file; see ``hft_platform/defaults/faults/drill.yaml`` for the meanings."""

    profile_id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    description: str
    seed: Annotated[int, Field(ge=0, lt=1 << 63)]
    partial_fill: _Delayed | None
    rejects: Annotated[list[_Reject], Field(max_length=16)] | None
    price_limit: _PriceLimit | None
    price_band: _PriceBand | None
    session_end: _SessionEnd | None
    lost_request: _Rate | None
    lost_reply: _Rate | None
    timeout: _Timeout | None
    duplicate: _Delayed | None
    late: _Delayed | None
    fill_before_ack: _Delayed | None

    @model_validator(mode="after")
    def _loss_needs_a_timeout(self) -> FaultProfile:
        if self.timeout is None and (self.lost_request or self.lost_reply):
            raise ValueError("timeout was null; lost requests or replies need one")
        if sum(reject.rate_ppm for reject in self.rejects or ()) > 1_000_000:
            raise ValueError("rejects: the rates add up to more than 1,000,000")
        return self

    def core(self, session_end_ns: int) -> dict[str, Any]:
        """What the paper exchange takes.

        Parameters
        ----------
        session_end_ns : int
            End of the session by the calendar.

        Returns
        -------
        dict
            Content of ``faults`` in the core's venue JSON.
        """
        end = self.session_end
        return {
            "profile_id": self.profile_id,
            "seed": self.seed,
            "session_end_ns": None if end is None else session_end_ns - end.early_ms * _NS_PER_MS,
            "rejects": None if self.rejects is None else [one.core() for one in self.rejects],
            "price_band": None if self.price_band is None else self.price_band.model_dump(),
            "lost_request": None if self.lost_request is None else self.lost_request.model_dump(),
            "lost_reply": None if self.lost_reply is None else self.lost_reply.model_dump(),
        } | {
            name: None if part is None else part.core()
            for name, part in (
                ("partial_fill", self.partial_fill),
                ("price_limit", self.price_limit),
                ("timeout", self.timeout),
                ("duplicate", self.duplicate),
                ("late", self.late),
                ("fill_before_ack", self.fill_before_ack),
            )
        }


def load_fault_profile(name: str) -> FaultProfile:
    """Load a fault profile.

    Parameters
    ----------
    name : str
        Path of a YAML file, or the name of a packaged profile (``drill``).

    Returns
    -------
    FaultProfile

    Raises
    ------
    PlatformError
        SETTINGS_INVALID when there is none, or naming field, value and what is allowed.
    """
    folder = resources.files("hft_platform") / "defaults" / "faults"
    packaged = {
        entry.name.removesuffix(".yaml"): entry
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    }
    if name in packaged:
        where = f"packaged faults/{name}.yaml"
        return validated(
            parse_yaml(packaged[name].read_bytes(), name=where), FaultProfile, name=where
        )
    if not Path(name).is_file():
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"there is no fault profile {name!r}; packaged are {', '.join(sorted(packaged))}",
            next_step="name one of them, or a file after the model of docs/backtest.md",
        )
    return validated(read_yaml(Path(name)), FaultProfile, name=name)
