"""Schema of a promoted config: every field that is signed, its range, no defaults.

Why: signer, runtime and engine config must mean the same by every field.

Invariants:
1. A missing or unknown field, a wrong type or a number out of range is an error.
2. Quantities and money are integers at 1e-8, times are ns UTC.

It verifies no signature (see `promoted`). Operator's page: `docs/promotion.md`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from hft_platform.config.approval import Approval

Stage = Literal["shadow", "canary", "live"]
Mode = Literal["sim", "paper", "live"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{1,64}$")]
_AlphaId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
_Positive = Annotated[int, Field(gt=0, lt=1 << 63)]
_Time = Annotated[int, Field(ge=0, lt=1 << 63)]
_Day = Annotated[int, Field(ge=19_000_101, le=99_991_231)]
_NotNegative = Annotated[FiniteFloat, Field(ge=0)]
_AboveZero = Annotated[FiniteFloat, Field(gt=0)]
_Slippage = Annotated[int, Field(ge=0, le=1000)]
_WithinDay = Annotated[int, Field(ge=0, le=86_400_000_000_000)]
_Gamma = Annotated[FiniteFloat, Field(ge=1e-6, le=1e3)]
_Decay = Annotated[FiniteFloat, Field(ge=1e-4, le=1e4)]
_Sigma = Annotated[FiniteFloat, Field(ge=0, le=1e6)]
_SigmaSource = Literal["stated", "measured"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


def _require_sigma(source: str, ticks: float) -> None:
    """Refuse a stated volatility of zero; a measured one needs no floor."""
    if source == "stated" and ticks < 1e-6:
        raise ValueError("sigma_ticks is at least 0.000001 when sigma_source is stated")


class TakerTemplate(_Strict):
    """Crosses the spread when the signal is worth it."""

    kind: Literal["taker"]
    entry_ticks: _NotNegative
    exit_ticks: FiniteFloat
    hold_ns: _Positive
    slippage_ticks: Annotated[int, Field(ge=0, le=1000)]


class MakerTemplate(_Strict):
    """Quotes both sides around a skewed reference."""

    kind: Literal["maker"]
    half_spread_ticks: _NotNegative
    requote_ticks: _NotNegative
    signal_skew: FiniteFloat
    inventory_skew_ticks: FiniteFloat


class CostTakerTemplate(_Strict):
    """Crosses the spread when the signal pays for the round trip."""

    kind: Literal["cost_taker"]
    entry_ticks: _NotNegative
    exit_ticks: FiniteFloat
    hold_ns: _Positive
    slippage_ticks: _Slippage
    cost_margin_ticks: _NotNegative


class QueueMakerTemplate(_Strict):
    """The quotes of `maker`, moved only when that is worth the queue place."""

    kind: Literal["queue_maker"]
    half_spread_ticks: _NotNegative
    inventory_skew_ticks: _NotNegative
    signal_skew: FiniteFloat
    requote_ticks: _AboveZero
    requote_gain_ticks: _NotNegative
    queue_lots: _AboveZero
    edge_ticks_min: _NotNegative


class AvellanedaStoikovMakerTemplate(_Strict):
    """Quotes around the reservation price of Avellaneda and Stoikov (2008)."""

    kind: Literal["avellaneda_stoikov_maker"]
    gamma: _Gamma
    k: _Decay
    sigma_source: _SigmaSource
    sigma_ticks: _Sigma
    horizon: Literal["rolling", "session_end"]
    horizon_ns: Annotated[int, Field(ge=1, le=86_400_000_000_000)]
    signal_skew: FiniteFloat
    requote_ticks: _AboveZero
    requote_gain_ticks: _NotNegative
    queue_lots: _AboveZero
    edge_ticks_min: _NotNegative

    @model_validator(mode="after")
    def _sigma_is_stated(self) -> Self:
        _require_sigma(self.sigma_source, self.sigma_ticks)
        return self


class GlftMakerTemplate(_Strict):
    """Asymptotic quotes of Guéant, Lehalle and Fernandez-Tapia (2013)."""

    kind: Literal["glft_maker"]
    gamma: _Gamma
    k: _Decay
    fills_per_s: Annotated[FiniteFloat, Field(ge=1e-6, le=1e6)]
    sigma_source: _SigmaSource
    sigma_ticks: _Sigma
    signal_skew: FiniteFloat
    requote_ticks: _AboveZero
    requote_gain_ticks: _NotNegative
    queue_lots: _AboveZero
    edge_ticks_min: _NotNegative

    @model_validator(mode="after")
    def _sigma_is_stated(self) -> Self:
        _require_sigma(self.sigma_source, self.sigma_ticks)
        return self


class TargetTemplate(_Strict):
    """Holds the position that the signal asks for."""

    kind: Literal["target"]
    ticks_per_clip: _AboveZero
    dead_band_ticks: _NotNegative
    clips_max: Annotated[FiniteFloat, Field(ge=1, le=1e6)]
    trade_clips_min: Annotated[FiniteFloat, Field(ge=0, le=1e6)]
    patience_ns: _WithinDay
    requote_ticks: _AboveZero
    slippage_ticks: _Slippage


Template = (
    TakerTemplate
    | MakerTemplate
    | CostTakerTemplate
    | QueueMakerTemplate
    | AvellanedaStoikovMakerTemplate
    | GlftMakerTemplate
    | TargetTemplate
)


class PromotedLimits(_Strict):
    """Limits of one alpha at full weight; none has a default."""

    order_qty_max: _Positive
    position_qty_max: _Positive
    daily_loss_max: _Positive
    drawdown_max: _Positive
    loss_speed_max: _Positive
    order_rate_max: Annotated[int, Field(gt=0, le=10_000)]


class PromotedInstrument(_Strict):
    """Contract and the product root it belongs to."""

    symbol: _Name
    product_root: _Name


class RollRule(_Strict):
    """What happens before the contract ends; a position is never carried over silently."""

    kind: Literal["none", "flatten_before_last_trading_day"]
    trading_days_before: Annotated[int, Field(ge=0, le=20)]


class OnWithdrawal(_Strict):
    """What happens to an open position when the permit is taken back."""

    action: Literal["flatten", "reduce_only", "hold_to_close"]
    deadline_ns: _Time


class PromotedKernel(_Strict):
    """A kernel with its text, and the hash of text, sizes, compiler and CPU target."""

    id: _AlphaId
    sha256: Sha256
    features: Annotated[list[_Name], Field(min_length=1, max_length=256)]
    parameters: Annotated[list[_Name], Field(max_length=64)]
    state_count: Annotated[int, Field(ge=0, le=4096)]
    sign: Literal[1]
    source: Annotated[str, Field(min_length=1, max_length=16_384)]
    compiler: Annotated[str, Field(min_length=1, max_length=256)]


class PromotedContent(_Strict):
    """What is signed: every field, no defaults; an alpha is an expression or a kernel."""

    schema_: Literal[1] = Field(alias="schema")
    alpha_id: _AlphaId
    alpha_hash: Sha256
    stage: Stage
    expression: Annotated[str, Field(max_length=4096)]
    kernel: PromotedKernel | None = None
    parameters: dict[_Name, FiniteFloat]
    template: Annotated[Template, Field(discriminator="kind")]
    order_qty: _Positive
    ttl_ns: _Positive
    limits: PromotedLimits
    weight_ppm: Annotated[int, Field(gt=0, le=1_000_000)]
    instruments: Annotated[list[PromotedInstrument], Field(min_length=1, max_length=64)]
    roll_rule: RollRule
    latency_profile: _Name
    latency_profile_sha256: Sha256
    queue_model: Literal["risk_adverse", "power_prob3", "log_prob"]
    on_withdrawal: OnWithdrawal
    issued_trading_day: _Day
    not_before_ns: _Time
    expires_ns: _Time
    promotion_seq: Annotated[int, Field(gt=0, lt=1_000_000_000)]
    code_sha256: Sha256
    data_sha256: Sha256
    verdicts: Annotated[dict[_Name, Sha256], Field(min_length=2, max_length=5)]
    approval: Approval | None = None

    @model_validator(mode="after")
    def _window_is_not_empty(self) -> Self:
        if self.expires_ns <= self.not_before_ns:
            raise ValueError("expires_ns is not after not_before_ns")
        return self

    @model_validator(mode="after")
    def _has_one_signal(self) -> Self:
        if bool(self.expression) == (self.kernel is not None):
            raise ValueError("an alpha has an expression or a kernel: one of them, not both")
        return self
