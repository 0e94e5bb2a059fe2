"""Configs and tapes for the engine's tests."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from hft_platform import records

SCALE = records.SCALE
SECOND = 1_000_000_000
START = 1_775_000_000 * SECOND
INSTRUMENT_ID = 1001
TAKER = {
    "kind": "taker",
    "entry_ticks": 1.0,
    "exit_ticks": 0.0,
    "hold_ns": 5 * SECOND,
    "slippage_ticks": 1,
}
MAKER = {
    "kind": "maker",
    "half_spread_ticks": 0.5,
    "requote_ticks": 1.0,
    "signal_skew": 1.0,
    "inventory_skew_ticks": 0.5,
}
ACCOUNT_LIMITS = {
    "gross_notional_max": 1_000_000_000 * SCALE,
    "net_notional_max": 1_000_000_000 * SCALE,
    "position_lots_max": 1_000,
    "daily_loss_max": 1_000_000_000 * SCALE,
    "drawdown_max": 1_000_000_000 * SCALE,
    "loss_speed_max": 1_000_000_000 * SCALE,
    "free_margin_min": None,
    "account_age_ns_max": 60 * SECOND,
    "order_rate_max": 180,
    "cancel_reserve": 60,
    "order_to_trade_max": 1_000,
    "reject_rate_max": 5,
    "unknown_rate_max": 5,
    "one_side_fill_max": 1_000,
    "price_collar_bps": 50,
    "exit_collar_bps": 100,
    "quote_age_ns_max": 2 * SECOND,
    "clock_skew_ns_max": None,
    "repeated_order_max": 20,
}
COSTS = {
    "kind": "taifex_future",
    "tax_rate_ppb": 20_000,
    "tax_round": True,
    "commission_per_lot": 60 * SCALE,
}

NEVER: dict[str, int | None] = dict.fromkeys(
    ("warm_in", "warm_out", "storm_in", "storm_out", "halt_in", "halt_out")
)
CALM: dict[str, Any] = {
    "risk_capital": 1_000_000 * SCALE,
    "drawdown_bps": NEVER,
    "feed_gap_ns": NEVER,
    "loop_lag_ns": NEVER,
    "order_rtt_ns": NEVER,
    "reject_count": NEVER,
    "drift_reports": NEVER,
    "feature_failures": NEVER,
    "normaliser_failures": NEVER,
    "open_grace_ns": 60 * SECOND,
    "failure_window_ns": 60 * SECOND,
    "clears": 5,
    "cool_down_warm_ns": 30 * SECOND,
    "cool_down_storm_ns": 30 * SECOND,
    "hold_warm_ns": 300 * SECOND,
    "hold_storm_ns": 120 * SECOND,
    "resume_window_ns": 60 * SECOND,
}
"""A storm guard that never speaks: no threshold."""


def config(
    expression: str, template: dict[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    """An engine config of one alpha on one TXF-like contract."""
    alpha = {
        "alpha_index": 0,
        "alpha_id": "test_alpha",
        "instrument_id": INSTRUMENT_ID,
        "expression": expression,
        "parameters": {"k": 2.0},
        "template": template or TAKER,
        "order_qty": SCALE,
        "ttl_ns": SECOND,
        "limits": {
            "order_qty_max": 2 * SCALE,
            "position_qty_max": 3 * SCALE,
            "daily_loss_max": 1_000_000 * SCALE,
            "drawdown_max": 1_000_000 * SCALE,
            "loss_speed_max": 1_000_000 * SCALE,
            "order_rate_max": 100,
        },
        "stage": "research",
        "weight_ppm": 1_000_000,
        "expires_ns": (1 << 63) - 1,
        "promotion_seq": 0,
        "config_sha256": "",
        "on_withdrawal": {"action": "flatten", "deadline_ns": 0},
    }
    return {
        "schema": 1,
        "session": {
            "session_id": "2026-04-10/day",
            "trading_day": 20260410,
            "phases": [{"start_ns": START, "end_ns": START + 86_400 * SECOND, "phase": "open"}],
        },
        "instruments": [
            {
                "instrument_id": INSTRUMENT_ID,
                "symbol": "TXFD6",
                "tick_size": SCALE,
                "lot_size": SCALE,
                "multiplier": 200 * SCALE,
                "limit_up": 38_000 * SCALE,
                "limit_down": 32_000 * SCALE,
                "order_qty_max": None,
                "banding_bps": None,
                "eligibility": "full",
                "costs": COSTS,
            }
        ],
        "alphas": [alpha | changes],
        "account_limits": ACCOUNT_LIMITS,
        "storm_guard": CALM,
    }


def text(content: dict[str, Any]) -> str:
    """Canonical JSON."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def books(count: int, seed: int = 7) -> np.ndarray:
    """A random walk of good five-level books, some tens of ms apart."""
    draw = np.random.default_rng(seed)
    rows = records.empty("Book", count)
    rows["instrument_id"] = INSTRUMENT_ID
    rows["source_seq"] = np.arange(count)
    rows["receive_time_ns"] = START + np.cumsum(draw.integers(1_000_000, 60_000_000, count))
    bid = 35_000 + np.cumsum(draw.integers(-1, 2, count))
    ask = bid + draw.integers(1, 4, count)
    depth = np.arange(5)
    rows["bid_price"] = (bid[:, None] - depth) * SCALE
    rows["ask_price"] = (ask[:, None] + depth) * SCALE
    rows["bid_qty"] = draw.integers(1, 30, (count, 5)) * SCALE
    rows["ask_qty"] = draw.integers(1, 30, (count, 5)) * SCALE
    rows["flags"][0] = 16
    return rows


def day(count: int, seed: int = 7) -> bytes:
    """Books with a print of either side behind every third one."""
    draw = np.random.default_rng(seed + 1)
    parts = []
    for place, row in enumerate(books(count, seed)):
        parts.append(row.tobytes())
        if place % 3 == 0:
            trade = records.empty("Trade", 1)
            trade["instrument_id"] = INSTRUMENT_ID
            trade["receive_time_ns"] = row["receive_time_ns"] + 1_000
            trade["price"] = row["bid_price"][0]
            trade["qty"] = int(draw.integers(1, 5)) * SCALE
            trade["aggressor_side"] = int(draw.choice([-1, 0, 1]))
            parts.append(trade.tobytes())
    return b"".join(parts)
