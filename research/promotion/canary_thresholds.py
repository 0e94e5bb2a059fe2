"""Thresholds of the canary: one hashed YAML file, validated, without defaults in code."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from hft_platform.config.canonical import canonical_json, canonical_sha256
from hft_platform.errors import PlatformError, ReasonCode
from research.promotion.canary import CanaryThresholds

_Weight = Annotated[int, Field(gt=0, le=1_000_000)]
_Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
_Positive = Annotated[FiniteFloat, Field(gt=0)]


class _ThresholdFile(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    weight_stages_ppm: Annotated[tuple[_Weight, ...], Field(min_length=1, max_length=16)]
    sessions_per_stage: Annotated[int, Field(ge=1, le=1000)]
    step_up_share: _Share
    edge_error_rate: Annotated[FiniteFloat, Field(gt=0, lt=1)]
    promise_standard_errors: Annotated[FiniteFloat, Field(ge=0)]
    variance_factor: Annotated[FiniteFloat, Field(ge=1)]
    shortfall_std_max: _Positive
    bets: Annotated[tuple[_Positive, ...], Field(min_length=1, max_length=16)]
    loss_budget_std: _Positive
    reject_rate_max: _Share
    reject_orders_min: Annotated[int, Field(ge=1)]
    slippage_band_ticks: Annotated[FiniteFloat, Field(ge=0)]
    slippage_fills_min: Annotated[int, Field(ge=1)]


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
    """
    path = (config_dir if config_dir is not None else Path("config")) / "canary.yaml"
    packaged = resources.files("hft_platform") / "defaults" / "canary.yaml"
    name, raw = (
        ("config/canary.yaml", path.read_bytes())
        if path.exists()
        else ("packaged canary.yaml", packaged.read_bytes())
    )
    try:
        model = _ThresholdFile.model_validate_json(canonical_json(yaml.safe_load(raw)))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"]) or "file"
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"{name}: {place}: {problem['msg']}, was {problem.get('input')!r:.80}",
        ) from error
    except yaml.YAMLError as error:
        text = " ".join(str(error).split())
        raise PlatformError(ReasonCode.SETTINGS_INVALID, f"{name} is not YAML: {text}") from error
    content = model.model_dump()
    if list(content["weight_stages_ppm"]) != sorted(set(content["weight_stages_ppm"])):
        raise PlatformError(ReasonCode.SETTINGS_INVALID, f"{name}: weight_stages_ppm do not ascend")
    return CanaryThresholds(**content), canonical_sha256(model.model_dump(mode="json"))
