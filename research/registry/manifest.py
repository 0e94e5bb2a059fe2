"""AlphaManifest: the schema of `research/alphas/<alpha_id>/manifest.yaml`.

Why: an alpha is its text; whatever decides about it starts from the same validated content.

Invariants:
1. Nothing is guessed: an unknown field, a missing limit or a wrong type is an error naming it.
2. Equal content has an equal hash, whatever the YAML's order, spacing or comments.
3. The grid holds the default, and the product of all grids is bounded.

It evaluates nothing. Operator's page: `docs/alphas.md`.
"""

from __future__ import annotations

import itertools
import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, field_validator, model_validator

GRID_POINTS_MAX = 64
"""A larger search belongs into a search with its own trial count, not into a manifest."""

_Text = Annotated[str, Field(min_length=20, max_length=2000)]
_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
_Reference = Annotated[str, Field(pattern=r"^\$[a-z][a-z0-9_]{0,63}$")]
_Number = FiniteFloat | _Reference
_Positive = Annotated[int, Field(gt=0, lt=1 << 40)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class TakerTemplate(_Strict):
    """Crosses the spread when the signal is worth it; values in ticks, or ``$parameter``."""

    kind: Literal["taker"]
    entry_ticks: _Number
    exit_ticks: _Number
    hold_ns: Annotated[int, Field(gt=0)] | _Reference
    slippage_ticks: Annotated[int, Field(ge=0)] | _Reference


class MakerTemplate(_Strict):
    """Quotes both sides around a skewed reference; values in ticks, or ``$parameter``."""

    kind: Literal["maker"]
    half_spread_ticks: _Number
    requote_ticks: _Number
    signal_skew: _Number
    inventory_skew_ticks: _Number


class CostTakerTemplate(_Strict):
    """Crosses the spread when the signal pays for the round trip; ticks, or ``$parameter``."""

    kind: Literal["cost_taker"]
    entry_ticks: _Number
    exit_ticks: _Number
    hold_ns: Annotated[int, Field(gt=0)] | _Reference
    slippage_ticks: Annotated[int, Field(ge=0)] | _Reference
    cost_margin_ticks: _Number


class QueueMakerTemplate(_Strict):
    """The quotes of `maker`, moved only when that is worth the queue place."""

    kind: Literal["queue_maker"]
    half_spread_ticks: _Number
    inventory_skew_ticks: _Number
    signal_skew: _Number
    requote_ticks: _Number
    requote_gain_ticks: _Number
    queue_lots: _Number
    edge_ticks_min: _Number


class AvellanedaStoikovMakerTemplate(_Strict):
    """Quotes around the reservation price of Avellaneda and Stoikov (2008)."""

    kind: Literal["avellaneda_stoikov_maker"]
    gamma: _Number
    k: _Number
    sigma_source: Literal["stated", "measured"]
    sigma_ticks: _Number
    horizon: Literal["rolling", "session_end"]
    horizon_ns: Annotated[int, Field(gt=0)] | _Reference
    signal_skew: _Number
    requote_ticks: _Number
    requote_gain_ticks: _Number
    queue_lots: _Number
    edge_ticks_min: _Number


class GlftMakerTemplate(_Strict):
    """Asymptotic quotes of Guéant, Lehalle and Fernandez-Tapia (2013)."""

    kind: Literal["glft_maker"]
    gamma: _Number
    k: _Number
    fills_per_s: _Number
    sigma_source: Literal["stated", "measured"]
    sigma_ticks: _Number
    signal_skew: _Number
    requote_ticks: _Number
    requote_gain_ticks: _Number
    queue_lots: _Number
    edge_ticks_min: _Number


class TargetTemplate(_Strict):
    """Holds the position that the signal asks for; clips and ticks, or ``$parameter``."""

    kind: Literal["target"]
    ticks_per_clip: _Number
    dead_band_ticks: _Number
    clips_max: _Number
    trade_clips_min: _Number
    patience_ns: Annotated[int, Field(ge=0)] | _Reference
    requote_ticks: _Number
    slippage_ticks: Annotated[int, Field(ge=0)] | _Reference


Template = (
    TakerTemplate
    | MakerTemplate
    | CostTakerTemplate
    | QueueMakerTemplate
    | AvellanedaStoikovMakerTemplate
    | GlftMakerTemplate
    | TargetTemplate
)


class Parameter(_Strict):
    """Default value and every value that is tried; the grid is what the trial ledger counts."""

    default: FiniteFloat
    grid: Annotated[tuple[FiniteFloat, ...], Field(min_length=1, max_length=GRID_POINTS_MAX)]

    @model_validator(mode="after")
    def _grid_holds_the_default_once(self) -> Self:
        if len(set(self.grid)) != len(self.grid):
            raise ValueError("grid holds a value twice")
        if self.default not in self.grid:
            raise ValueError(f"default {self.default} is not in the grid {list(self.grid)}")
        return self


class ManifestLimits(_Strict):
    """Limits at full weight; quantities in lots, money in whole units of the currency."""

    order_qty_lots_max: _Positive
    position_qty_lots_max: _Positive
    daily_loss_max: _Positive
    drawdown_max: _Positive
    loss_speed_max: _Positive
    order_rate_max: Annotated[int, Field(gt=0, le=10_000)]


class DataRoles(_Strict):
    """Shares of the sessions by role, in chronological order; they sum to 1.

    Parameters are chosen on `in_sample`, judged on `out_of_sample`; `frozen` sessions are seen by
    no gate before E: they are what shadow and canary run on.
    """

    in_sample: Annotated[FiniteFloat, Field(gt=0, lt=1)]
    out_of_sample: Annotated[FiniteFloat, Field(gt=0, lt=1)]
    frozen: Annotated[FiniteFloat, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> Self:
        total = self.in_sample + self.out_of_sample + self.frozen
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"shares sum to {total}; they must sum to 1")
        return self


class OnWithdrawal(_Strict):
    """What happens to an open position when a permit is taken back."""

    action: Literal["flatten", "reduce_only", "hold_to_close"]
    deadline_ms: Annotated[int, Field(ge=0)]


class AlphaManifest(_Strict):
    """What a researcher declares about an alpha; see the module for what is checked.

    `kernel` names the function of `kernel.py` that computes the signal where no expression does;
    its text becomes `kernel_source` when the folder is read, and is never written by hand.
    """

    alpha_id: _Name
    owner: Annotated[str, Field(min_length=1, max_length=100)]
    hypothesis: _Text
    references: Annotated[tuple[str, ...], Field(min_length=1, max_length=20)]
    expected_sign: Literal[-1, 1]
    instruments: Annotated[tuple[str, ...], Field(min_length=1, max_length=16)]
    label_horizon_s: Annotated[FiniteFloat, Field(gt=0)]
    expression: Annotated[str, Field(max_length=4096)] = ""
    kernel: Annotated[str, Field(pattern=r"^([a-z][a-z0-9_]{0,63})?$")] = ""
    kernel_source: Annotated[str, Field(max_length=16_384)] = ""
    parameters: dict[_Name, Parameter]
    template: Annotated[Template, Field(discriminator="kind")]
    order_qty_lots: _Positive
    ttl_ms: Annotated[int, Field(gt=0)]
    limits: ManifestLimits
    gate_weight_ppm: Annotated[int, Field(gt=0, le=1_000_000)]
    latency_profile: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{1,64}$")]
    queue_model: Literal["risk_adverse", "power_prob3", "log_prob"]
    data_roles: DataRoles
    on_withdrawal: OnWithdrawal

    @field_validator("instruments", "references")
    @classmethod
    def _no_doubles(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(values)) != len(values):
            raise ValueError("an entry is listed twice")
        return values

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        count = 1
        for parameter in self.parameters.values():
            count *= len(parameter.grid)
        if count > GRID_POINTS_MAX:
            raise ValueError(f"the grid has {count} points; at most {GRID_POINTS_MAX} are allowed")
        for name in self._references():
            if name not in self.parameters:
                raise ValueError(f"template names ${name}, which is not among the parameters")
        if bool(self.expression) == bool(self.kernel):
            raise ValueError("an alpha has an expression or a kernel: one of them, not both")
        used = set(self._references()) | set(re.findall(r"\b[A-Za-z_]\w*", self.expression))
        unused = sorted(set(self.parameters) - used)
        # What a kernel reads is known once its text is (see `kernel_part`).
        if unused and not self.kernel:
            raise ValueError(f"parameter {unused[0]} is used nowhere; it would count as a trial")
        if self.limits.order_qty_lots_max < self.order_qty_lots:
            raise ValueError("order_qty_lots is above limits.order_qty_lots_max")
        if self.order_qty_lots * self.gate_weight_ppm < 1_000_000:
            raise ValueError("order_qty_lots times gate_weight_ppm is below one lot")
        return self

    def _references(self) -> list[str]:
        values = self.template.model_dump().values()
        return [v[1:] for v in values if isinstance(v, str) and v.startswith("$")]

    def grid(self) -> list[dict[str, float]]:
        """Every combination of parameter values, in a fixed order (names sorted, last fastest)."""
        names = sorted(self.parameters)
        values = [self.parameters[name].grid for name in names]
        return [dict(zip(names, point, strict=True)) for point in itertools.product(*values)]

    def defaults(self) -> dict[str, float]:
        """The default value of every parameter."""
        return {name: self.parameters[name].default for name in sorted(self.parameters)}
