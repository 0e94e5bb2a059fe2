"""Thresholds of the canary: one hashed YAML file, validated, without defaults in code."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from hft_platform.config.canonical import canonical_sha256
from hft_platform.config.yaml_files import load_or_packaged
from research.promotion.canary_model import TESTS, CanaryThresholds
from research.promotion.canary_sequential import Bet

_Weight = Annotated[int, Field(gt=0, le=1_000_000)]
_Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
_Positive = Annotated[FiniteFloat, Field(gt=0)]
_Band = Annotated[FiniteFloat, Field(ge=0)]
_Rate = Annotated[FiniteFloat, Field(gt=0, lt=1)]
_Factor = Annotated[FiniteFloat, Field(gt=1)]
_Bets = Annotated[tuple[tuple[_Positive, _Positive], ...], Field(min_length=1, max_length=16)]
_ROUNDING = 1e-12


class _ThresholdFile(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    weight_stages_ppm: Annotated[tuple[_Weight, ...], Field(min_length=1, max_length=16)]
    sessions_per_stage: Annotated[int, Field(ge=1, le=1000)]
    step_up_share: _Share
    stage_orders_min: Annotated[int, Field(ge=1)]
    stage_fills_min: Annotated[int, Field(ge=1)]
    error_rate: _Rate
    error_rates: dict[str, _Rate]
    promise_standard_errors: Annotated[FiniteFloat, Field(ge=0)]
    variance_factor: Annotated[FiniteFloat, Field(ge=1)]
    edge_bets: _Bets
    execution_bets: _Bets
    slippage_band_ticks: _Band
    slippage_std_floor_ticks: _Positive
    markout_horizon: Literal["1s", "10s"]
    markout_band_ticks: _Band
    markout_std_floor_ticks: _Positive
    fill_ratio_band: _Share
    fill_ratio_std_floor: _Positive
    reject_rate_max: _Rate
    unknown_rate_max: _Rate
    rate_factors: Annotated[tuple[_Factor, ...], Field(min_length=1, max_length=16)]
    loss_budget_std: _Positive

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if list(self.weight_stages_ppm) != sorted(set(self.weight_stages_ppm)):
            raise ValueError("weight_stages_ppm do not ascend")
        if set(self.error_rates) != set(TESTS):
            raise ValueError(f"error_rates are to name {', '.join(TESTS)}, no more and no less")
        total = math.fsum(self.error_rates.values())
        if abs(total - self.error_rate) > _ROUNDING:
            raise ValueError(
                f"error_rates add up to {total:g}, error_rate says {self.error_rate:g}"
            )
        return self


def load_canary_thresholds(config_dir: Path | None = None) -> tuple[CanaryThresholds, str]:
    """Load the canary's thresholds and their hash.

    Parameters
    ----------
    config_dir : Path, optional
        Folder with an optional `canary.yaml` that replaces the packaged file as a whole.

    Returns
    -------
    tuple of CanaryThresholds and str
        Thresholds, and the hash that goes into the audit chain.

    Raises
    ------
    PlatformError
        SETTINGS_INVALID naming the file that was read and the field.
    """
    model = load_or_packaged("canary.yaml", _ThresholdFile, config_dir=config_dir)
    content = model.model_dump() | {
        "edge_bets": tuple(Bet(*pair) for pair in model.edge_bets),
        "execution_bets": tuple(Bet(*pair) for pair in model.execution_bets),
    }
    return CanaryThresholds(**content), canonical_sha256(model.model_dump(mode="json"))
