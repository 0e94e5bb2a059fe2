"""What a canary decision is made from, and what it is made of: thresholds, promise, sessions.

Why: the rule, its tests and the files that feed them share these and nothing else.

Invariants:
1. None means that a metric is missing; nothing here has a good value by default.

It decides nothing. Operator's page: `docs/canary.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from hft_platform.errors import code_name
from research.promotion.canary_sequential import Bet

TESTS = ("edge", "slippage", "markout", "fill_ratio", "reject_rate", "unknown_rate")
"""Metrics with a sequential test; each has its own share of the error rate."""


class Action(StrEnum):
    """What becomes of a canary after a session."""

    HOLD = "hold"
    STEP_UP = "step_up"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True)
class CanaryThresholds:
    """Content of canary.yaml; the packaged file explains each field."""

    weight_stages_ppm: tuple[int, ...]
    sessions_per_stage: int
    step_up_share: float
    stage_orders_min: int
    stage_fills_min: int
    error_rate: float
    error_rates: Mapping[str, float]
    promise_standard_errors: float
    variance_factor: float
    edge_bets: tuple[Bet, ...]
    execution_bets: tuple[Bet, ...]
    slippage_band_ticks: float
    slippage_std_floor_ticks: float
    markout_horizon: str
    markout_band_ticks: float
    markout_std_floor_ticks: float
    fill_ratio_band: float
    fill_ratio_std_floor: float
    reject_rate_max: float
    unknown_rate_max: float
    rate_factors: tuple[float, ...]
    loss_budget_std: float


@dataclass(frozen=True, slots=True)
class PromisedMetric:
    """An execution metric by session, as gate C's backtests had it out of sample.

    Attributes
    ----------
    mean, std : float
        Over sessions that had the metric.
    session_count : int
        Those sessions.
    size_mean : float
        Mean number of fills (of orders for the fill ratio) that a session's value is a mean of.
    """

    mean: float
    std: float
    session_count: int
    size_mean: float


@dataclass(frozen=True, slots=True)
class Promise:
    """What gate C measured out of sample, by session, at the weight it judged.

    Attributes
    ----------
    mean_net, std_net : float
        Net result of a session, scaled money.
    session_count : int
        Sessions behind mean and deviation.
    weight_ppm : int
        Weight of those backtests.
    execution : mapping of str to PromisedMetric
        ``slippage_ticks``, ``markout_ticks_<horizon>`` and ``fill_ratio``; one that was not
        measured is not in it.
    """

    mean_net: float
    std_net: float
    session_count: int
    weight_ppm: int
    execution: Mapping[str, PromisedMetric]


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """One run of a canary session; None means the metric is missing.

    Attributes
    ----------
    session_id : str
        Which session of `symbol`; more runs of it are evidence, and no more quota to climb by.
    weight_ppm : int
        Weight it ran at.
    net : int or None
        Net result, scaled money.
    parity_identical, parity_total : int or None
        Decisions that a replay of its log reproduced, and all of them.
    orders, broker_rejects, unknown, fills, filled_orders : int or None
        Counts: orders sent, refusals, orders without an answer, fills, orders with a fill.
    slippage_ticks : float or None
        Mean slippage of a fill; may be None only without fills.
    markout_ticks : mapping of str to float or None
        By horizon, mean move in our favour after a fill; may be None only without fills.
    halted_by : int
        Reason code of a halt, 0 if none.
    shed_count : int
        Market records that its log lacks for want of space.
    problem : str
        Why the session could not be read at all; empty if it could.
    symbol : str
        Instrument it traded.
    """

    session_id: str
    weight_ppm: int
    net: int | None
    parity_identical: int | None
    parity_total: int | None
    orders: int | None
    broker_rejects: int | None
    unknown: int | None
    fills: int | None
    filled_orders: int | None
    slippage_ticks: float | None
    markout_ticks: Mapping[str, float | None] = field(default_factory=dict)
    halted_by: int = 0
    problem: str = ""
    shed_count: int = 0
    symbol: str = ""

    @classmethod
    def unreadable(cls, session_id: str, problem: str) -> SessionFacts:
        """A session whose summary is missing or does not verify."""
        return cls(
            session_id, 0, None, None, None, None, None, None, None, None, None, problem=problem
        )

    @property
    def name(self) -> str:
        """For a person: instrument and session."""
        return f"{self.symbol} {self.session_id}".strip()

    @property
    def fill_ratio(self) -> float | None:
        """Share of orders that had a fill; None without orders."""
        return (self.filled_orders or 0) / self.orders if self.orders else None


@dataclass(frozen=True, slots=True)
class CanaryReason:
    """Why: code, sentence, what was measured, what was allowed."""

    code: int
    text: str
    observed: float | str | None
    limit: float | str | None

    def as_dict(self) -> dict[str, Any]:
        """JSON content."""
        return asdict(self) | {"name": code_name(self.code)}


Facts = dict[str, float | int | None]


@dataclass(frozen=True, slots=True)
class CanaryDecision:
    """What to do, why, and the numbers behind it."""

    action: Action
    weight_ppm: int
    reasons: tuple[CanaryReason, ...]
    facts: Facts

    def as_dict(self) -> dict[str, Any]:
        """JSON content, the same for equal inputs."""
        return {
            "action": str(self.action),
            "weight_ppm": self.weight_ppm,
            "reasons": [reason.as_dict() for reason in self.reasons],
            "facts": self.facts,
        }
