"""Thresholds of the gates: one YAML file, validated, hashed into every verdict.

Why: a threshold that can be loosened in a run's form is none.

Invariants:
1. Every threshold is written down; there are no defaults in code.
2. `config/gates.yaml` replaces the packaged file as a whole, so a merge can never loosen one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from hft_platform.config.canonical import canonical_sha256
from hft_platform.config.yaml_files import load_or_packaged

_Count = Annotated[int, Field(ge=0)]
_Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
_Level = Annotated[FiniteFloat, Field(gt=0.5, lt=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class GateAThresholds(_Strict):
    """Gate A: specification, data, look-ahead."""

    hypothesis_chars_min: _Count
    references_min: _Count
    label_horizon_s_max: FiniteFloat
    operations_max: _Count
    features_max: _Count
    program_bytes_max: _Count
    sessions_min: _Count
    session_records_min: _Count
    rejected_share_max: _Share
    crossed_share_max: _Share
    out_of_order_share_max: _Share
    duplicate_share_max: _Share
    delay_s_max: Annotated[FiniteFloat, Field(gt=0)]
    delayed_share_max: _Share
    lookahead_sessions: Annotated[int, Field(ge=1)]
    lookahead_cuts: Annotated[int, Field(ge=1, le=64)]
    lookahead_rows_min: Annotated[int, Field(ge=1)]


class GateBThresholds(_Strict):
    """Gate B: the alpha's own tests, batch against incremental, determinism."""

    tests_min: Annotated[int, Field(ge=1)]
    seconds_max: Annotated[int, Field(ge=1, le=3600)]
    memory_bytes_max: Annotated[int, Field(ge=1 << 28)]
    compared_rows_min: Annotated[int, Field(ge=1)]
    event_ns_max: Annotated[int, Field(ge=1)]


class GateCThresholds(_Strict):
    """Gate C: statistics of simulated fills."""

    latency_cells: Annotated[dict[str, _Share | None], Field(min_length=1)]
    queue_models: Annotated[
        tuple[Literal["risk_adverse", "power_prob3", "log_prob"], ...], Field(min_length=1)
    ]
    selection_round_trips_min: _Count
    days_min: Annotated[int, Field(ge=3)]
    round_trips_min: _Count
    newey_west_t_min: FiniteFloat
    deflated_sharpe_min: _Level
    confidence: _Level
    cscv_blocks: Annotated[int, Field(ge=2, le=16, multiple_of=2)]
    cscv_loss_probability_max: _Share
    embargo_days: _Count
    walk_forward_folds: Annotated[int, Field(ge=1, le=50)]
    cpcv_groups: Annotated[int, Field(ge=2, le=16)]
    cpcv_test_groups: Annotated[int, Field(ge=1, le=8)]
    cpcv_sharpe_quantile: _Share
    spa_p_max: _Share
    spa_draws: Annotated[int, Field(ge=100, le=100_000)]
    spa_seed: int
    bootstrap_draws: Annotated[int, Field(ge=100, le=100_000)]
    bootstrap_seed: int
    best_days_dropped: _Count
    best_trips_dropped_share: _Share
    placebo_t_max: FiniteFloat
    placebo_seed: int
    cost_round_trips_min: Annotated[int, Field(ge=2)]
    net_edge_ticks_min: FiniteFloat
    round_trips_per_day_max: FiniteFloat
    losing_days_min: Annotated[int, Field(ge=2)]
    days_horizon_max: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _some_group_is_left_to_learn_from(self) -> Self:
        if self.cpcv_test_groups >= self.cpcv_groups:
            raise ValueError(
                f"cpcv_test_groups is {self.cpcv_test_groups} of {self.cpcv_groups} groups; "
                "one at least must be left to learn from"
            )
        return self


class GateDThresholds(_Strict):
    """Gate D: the pool, and room in the market."""

    correlation_max: _Share
    position_correlation_max: _Share
    shared_days_min: Annotated[int, Field(ge=3)]
    folds: Annotated[int, Field(ge=2, le=50)]
    marginal_t_min: FiniteFloat
    marginal_sharpe_min: FiniteFloat
    participation_max: Annotated[FiniteFloat, Field(gt=0)]
    participation_quantile: _Level
    crowd_participation_max: Annotated[FiniteFloat, Field(gt=0)]
    pool_size_max: Annotated[int, Field(ge=1)]
    members_per_instrument_max: Annotated[int, Field(ge=1)]


class GateEThresholds(_Strict):
    """Gate E: shadow sessions of the real runtime."""

    sessions_min: Annotated[int, Field(ge=1)]
    days_min: Annotated[int, Field(ge=1)]
    fills_min: _Count
    parity_share_min: _Share
    reject_share_max: _Share
    unknown_share_max: _Share
    volatility_regimes_min: Annotated[int, Field(ge=1, le=3)]
    latency_ratio_max: Annotated[FiniteFloat, Field(ge=1)]
    slippage_ticks_difference_max: Annotated[FiniteFloat, Field(ge=0)]
    markout_ticks_difference_max: Annotated[FiniteFloat, Field(ge=0)]


class GateThresholds(_Strict):
    """All thresholds, as one file holds them."""

    schema_: Literal[1] = Field(alias="schema")
    gate_a: GateAThresholds
    gate_b: GateBThresholds
    gate_c: GateCThresholds
    gate_d: GateDThresholds
    gate_e: GateEThresholds

    def sha256_of(self, gate: str) -> str:
        """Hash of one gate's thresholds: changing another gate's does not stale its verdicts."""
        return canonical_sha256(getattr(self, gate).model_dump(mode="json"))

    def hashes(self) -> Mapping[str, str]:
        """Hash by gate."""
        names = ("gate_a", "gate_b", "gate_c", "gate_d", "gate_e")
        return {name: self.sha256_of(name) for name in names}


def load_thresholds(config_dir: Path | None = None) -> GateThresholds:
    """Load the thresholds.

    Parameters
    ----------
    config_dir : Path, optional
        Folder with an optional `gates.yaml`; by default `config` in the working folder.

    Returns
    -------
    GateThresholds

    Raises
    ------
    PlatformError
        SETTINGS_INVALID naming the file that was read and the field.
    """
    return load_or_packaged("gates.yaml", GateThresholds, config_dir=config_dir)
