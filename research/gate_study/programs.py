"""Alphas of the study: random programs without an idea, and the one whose idea is planted.

Why: nulls must be real programs of the alpha language with grids, so that a setting is chosen and
trials are counted as for any alpha; a null drawn as a row of random profits measures a formula.

Invariants:
1. A seed decides the program; one that the compiler refuses is drawn again.
2. Nulls take liquidity. A maker earns the spread in a market without information, so it is no
   null, whatever its signal.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hft_platform import _core
from research.gate_study.settings import GRID_POINTS, LATENCY_PROFILE
from research.registry import AlphaManifest

WARM_UP_NS_MAX = 10_000_000_000
"""A compressed session has no time for slower features."""
WINDOWS = ("500ms", "1s", "2s", "5s")
SCALES = ("10s", "20s", "30s")
HOLDS_S = (2, 5, 10, 20)
BOOK_SHAPE = (
    "imbalance_l1",
    "imbalance_l2_5",
    "imbalance_ema_2s",
    "microprice_dev",
    "deep_momentum_5s",
)
"""Features of queue lengths alone: what a permuted block of quantities decides."""
_NOT_DIRECTED = ("quote_age_ms", "spread_ticks", "top_change_rate_10s", "volatility_10s")
PLANTED_ENTRIES = (10.0, 12.0, 14.0)


def feature_names() -> list[str]:
    """Features that are warm early enough and have a direction."""
    return [
        row["name"]
        for row in _core.feature_registry()
        if row["warm_up_ns"] <= WARM_UP_NS_MAX and row["name"] not in _NOT_DIRECTED
    ]


def random_alpha(
    seed: int, *, symbol: str, features: tuple[str, ...] | None = None
) -> AlphaManifest:
    """Draw an alpha that has no idea.

    Parameters
    ----------
    seed : int
        Of every draw.
    symbol : str
        Instrument.
    features : tuple of str, optional
        What it may name, by default every early feature with a direction.

    Returns
    -------
    AlphaManifest
        A taker with three settings of its entry.
    """
    rng = np.random.default_rng([seed, 1])
    names = list(features) if features is not None else feature_names()
    while True:
        expression, size = _expression(rng, names)
        try:
            _core.check_expression(expression, [])
        except ValueError:
            continue
        break
    low = float(rng.choice((0.8, 1.2, 1.6)))
    hold_s = int(rng.choice(HOLDS_S))
    return _manifest(
        f"null_{seed}",
        symbol=symbol,
        expression=expression,
        entries=tuple(round(size * (low + 0.4 * step), 4) for step in range(GRID_POINTS)),
        exit_ticks=-round(size * float(rng.choice((0.0, 0.5, 1.0))), 4),
        hold_ns=hold_s * 1_000_000_000,
        horizon_s=float(hold_s),
    )


def planted_alpha(*, symbol: str) -> AlphaManifest:
    """The alpha that looks where the planted state shows: the queues."""
    return _manifest(
        "planted",
        symbol=symbol,
        expression="25.0 * imbalance_ema_2s",
        entries=PLANTED_ENTRIES,
        exit_ticks=-4.0,
        hold_ns=20_000_000_000,
        horizon_s=15.0,
    )


def _expression(rng: np.random.Generator, names: list[str]) -> tuple[str, float]:
    count = int(rng.integers(1, 4))
    weights = [
        round(float(w), 3) for w in rng.uniform(0.5, 2.0, count) * rng.choice((-1, 1), count)
    ]
    chosen = rng.choice(len(names), size=count, replace=False)
    terms = [
        f"{weight} * zscore({_term(rng, names[int(i)])}, {rng.choice(SCALES)})"
        for weight, i in zip(weights, chosen, strict=True)
    ]
    return " + ".join(terms), float(np.sqrt(np.sum(np.square(weights))))


def _term(rng: np.random.Generator, name: str) -> str:
    kind = int(rng.integers(4))
    window = rng.choice(WINDOWS)
    return (name, f"ema({name}, {window})", f"mean({name}, {window})", f"delta({name}, {window})")[
        kind
    ]


def _manifest(
    alpha_id: str,
    *,
    symbol: str,
    expression: str,
    entries: tuple[float, ...],
    exit_ticks: float,
    hold_ns: int,
    horizon_s: float,
) -> AlphaManifest:
    content: dict[str, Any] = {
        "alpha_id": alpha_id,
        "owner": "gate_study",
        "hypothesis": "Made by the study of the gates: whether it has an edge is known.",
        "references": ("docs/gates.md",),
        "expected_sign": 1,
        "instruments": (symbol,),
        "label_horizon_s": horizon_s,
        "expression": expression,
        "parameters": {"entry": {"default": entries[0], "grid": entries}},
        "template": {
            "kind": "taker",
            "entry_ticks": "$entry",
            "exit_ticks": exit_ticks,
            "hold_ns": hold_ns,
            "slippage_ticks": 2,
        },
        "order_qty_lots": 10,
        "ttl_ms": 1000,
        "limits": {
            "order_qty_lots_max": 10,
            "position_qty_lots_max": 10,
            "daily_loss_max": 300_000,
            "drawdown_max": 300_000,
            "loss_speed_max": 150_000,
            "order_rate_max": 60,
        },
        "gate_weight_ppm": 100_000,
        "latency_profile": LATENCY_PROFILE,
        "queue_model": "risk_adverse",
        "data_roles": {"in_sample": 0.5, "out_of_sample": 0.5, "frozen": 0.0},
        "on_withdrawal": {"action": "flatten", "deadline_ms": 5000},
    }
    return AlphaManifest.model_validate(content)
