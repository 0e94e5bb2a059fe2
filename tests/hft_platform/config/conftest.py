"""A small signed config and the place it lies in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hft_platform.config.canonical import atomic_write, canonical_sha256
from hft_platform.config.keys import SigningKey, signing_key
from hft_platform.config.promoted import render_config, signed_message
from hft_platform.config.promotion_folder import head_path, issued_path, promotions_root

CODE = "c" * 64
START_NS = 1_770_000_000_000_000_000
DAY_NS = 86_400_000_000_000


def content_of(**changes: Any) -> dict[str, Any]:
    """Content of a shadow permit, with changes."""
    return {
        "schema": 1,
        "alpha_id": "sim_edge_taker",
        "alpha_hash": "a" * 64,
        "stage": "shadow",
        "expression": "k * imbalance_l1",
        "parameters": {"k": 2.0},
        "template": {
            "kind": "taker",
            "entry_ticks": 2.5,
            "exit_ticks": 0.0,
            "hold_ns": 10_000_000_000,
            "slippage_ticks": 1,
        },
        "order_qty": 1_000_000_000,
        "ttl_ns": 500_000_000,
        "limits": {
            "order_qty_max": 1_000_000_000,
            "position_qty_max": 2_000_000_000,
            "daily_loss_max": 20_000_000_000_000,
            "drawdown_max": 20_000_000_000_000,
            "loss_speed_max": 10_000_000_000_000,
            "order_rate_max": 60,
        },
        "weight_ppm": 100_000,
        "instruments": [{"symbol": "SIM_EDGE", "product_root": "SIM"}],
        "roll_rule": {"kind": "none", "trading_days_before": 0},
        "latency_profile": "shioaji_live_2026_04",
        "latency_profile_sha256": "d" * 64,
        "queue_model": "power_prob3",
        "on_withdrawal": {"action": "flatten", "deadline_ns": 10_000_000_000},
        "issued_trading_day": 20_260_202,
        "not_before_ns": START_NS,
        "expires_ns": START_NS + 30 * DAY_NS,
        "promotion_seq": 3,
        "code_sha256": CODE,
        "data_sha256": "e" * 64,
        "verdicts": {"gate_a": "1" * 64, "gate_b": "2" * 64},
    } | changes


class Desk:
    """Signs contents into a workspace, as the signer would."""

    def __init__(self, ws: Path) -> None:
        self.ws = ws

    def issue(self, key: SigningKey | None = None, **changes: Any) -> Path:
        """Write an issue and its head; returns the head."""
        signer = key or signing_key(self.ws, "promotion")
        content = content_of(**changes)
        raw = render_config(
            content, key_id=signer.key_id, signature=signer.sign(signed_message(content))
        )
        root = promotions_root(self.ws)
        seq = content["promotion_seq"]
        atomic_write(issued_path(root, content["alpha_id"], seq, canonical_sha256(content)), raw)
        head = head_path(root, content["alpha_id"], content["issued_trading_day"])
        atomic_write(head, raw)
        return head


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fresh workspace with a signer."""
    return Desk(tmp_path / "ws")


@pytest.fixture
def content() -> Callable[..., dict[str, Any]]:
    """Maker of contents."""
    return content_of
