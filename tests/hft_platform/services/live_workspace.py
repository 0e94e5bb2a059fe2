"""A workspace as the runtime finds it: a small market with an edge, and a signed permit."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hft_platform.config.canonical import atomic_write, canonical_sha256
from hft_platform.config.code_hash import code_sha256
from hft_platform.config.keys import SigningKey, signing_key
from hft_platform.config.promoted import render_config, signed_message
from hft_platform.config.promotion_folder import head_path, issued_path, promotions_root
from hft_platform.config.settings import load_settings
from hft_platform.feed.recording import find_session
from hft_platform.market.instruments import load_instruments
from hft_platform.market.latency import load_latency_profile
from hft_platform.services.session_runner import Clock, RunRequest, SessionOutcome, run_session
from research.data.ingest import ingest

SYMBOL = "SIM_EDGE"
ALPHA_ID = "test_imbalance_taker"
DAYS = (dt.date(2026, 1, 5), dt.date(2026, 1, 6))
SESSIONS = tuple(f"{day}/day" for day in DAYS)
SCALE = 100_000_000
DAY_NS = 86_400_000_000_000
STEP_MS = 250
SESSION_S = 599
LATENCY = "shioaji_live_2026_04"


def open_ns(day: dt.date) -> int:
    """08:45 Taipei."""
    return int(dt.datetime.combine(day, dt.time(0, 45), dt.UTC).timestamp()) * 10**9


def record(folder: Path, *, seed: int = 5) -> None:
    """Recordings in which the heavier side of the book tells where the mid goes next."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    count = SESSION_S * 1000 // STEP_MS
    for day in DAYS:
        ts = open_ns(day) + (1 + np.arange(count)) * STEP_MS * 1_000_000
        turns = random.random(count) < STEP_MS / 1000 / 12.0
        state = np.where(np.cumsum(turns) % 2 == 0, 1, -1)
        moves = 0.7 * STEP_MS / 1000 * state + random.normal(0, 0.4, count)
        bid = 20_000 + np.floor(np.cumsum(moves)).astype(np.int64)
        heavy, light = random.integers(20, 30, count), random.integers(6, 12, count)
        frame: dict[str, np.ndarray] = {"ts": ts, "seq": 2 * np.arange(count)}
        for level in range(1, 6):
            frame[f"bid_px_{level}"] = (bid - level + 1).astype(float)
            frame[f"ask_px_{level}"] = (bid + level).astype(float)
            frame[f"bid_qty_{level}"] = np.where(state > 0, heavy, light).astype(float)
            frame[f"ask_qty_{level}"] = np.where(state > 0, light, heavy).astype(float)
        pl.DataFrame(frame).write_parquet(folder / f"{SYMBOL}_{day}_book.parquet")
        some = slice(None, None, 4)
        trades = {
            "ts": ts[some] + 1_000_000,
            "seq": 2 * np.arange(count)[some] + 1,
            "px": (bid + 1)[some].astype(float),
            "qty": np.ones(count)[some],
            "side": np.ones(count, dtype=np.int64)[some],
        }
        pl.DataFrame(trades).write_parquet(folder / f"{SYMBOL}_{day}_trades.parquet")


def content_of(**changes: Any) -> dict[str, Any]:
    """Content of a shadow permit for the recorded days, with changes."""
    return {
        "schema": 1,
        "alpha_id": ALPHA_ID,
        "alpha_hash": "a" * 64,
        "stage": "shadow",
        "expression": "k * imbalance_ema_2s",
        "parameters": {"k": 8.0},
        "template": {
            "kind": "taker",
            "entry_ticks": 2.5,
            "exit_ticks": 0.0,
            "hold_ns": 8_000_000_000,
            "slippage_ticks": 1,
        },
        "order_qty": 2 * SCALE,
        "ttl_ns": 1_000_000_000,
        "limits": {
            "order_qty_max": 2 * SCALE,
            "position_qty_max": 2 * SCALE,
            "daily_loss_max": 1_000_000 * SCALE,
            "drawdown_max": 1_000_000 * SCALE,
            "loss_speed_max": 1_000_000 * SCALE,
            "order_rate_max": 60,
        },
        "weight_ppm": 500_000,
        "instruments": [{"symbol": SYMBOL, "product_root": "SIM"}],
        "roll_rule": {"kind": "none", "trading_days_before": 0},
        "latency_profile": LATENCY,
        "latency_profile_sha256": load_latency_profile(LATENCY)[1],
        "queue_model": "power_prob3",
        "on_withdrawal": {"action": "flatten", "deadline_ns": 5_000_000_000},
        "issued_trading_day": 20_260_102,
        "not_before_ns": open_ns(DAYS[0]) - DAY_NS,
        "expires_ns": open_ns(DAYS[0]) + 30 * DAY_NS,
        "promotion_seq": 1,
        "code_sha256": code_sha256(),
        "data_sha256": "e" * 64,
        "verdicts": {"gate_a": "1" * 64, "gate_b": "2" * 64},
    } | changes


class Live:
    """A workspace and the way to run in it."""

    def __init__(self, ws: Path) -> None:
        self.ws = ws

    def issue(self, key: SigningKey | None = None, **changes: Any) -> Path:
        """Sign and publish a config as the signer does; returns its head."""
        signer = key or signing_key(self.ws, "promotion")
        content = content_of(**changes)
        raw = render_config(
            content, key_id=signer.key_id, signature=signer.sign(signed_message(content))
        )
        root, alpha_id = promotions_root(self.ws), content["alpha_id"]
        seq, digest = content["promotion_seq"], canonical_sha256(content)
        atomic_write(issued_path(root, alpha_id, seq, digest), raw)
        head = head_path(root, alpha_id, content["issued_trading_day"])
        atomic_write(head, raw)
        return head

    def request(
        self, config: Path, session: str = SESSIONS[0], *, mode: str = "paper", **changes: Any
    ) -> RunRequest:
        """What `hft-live run` asks for."""
        recorded = find_session(self.ws, session, symbol=SYMBOL)
        return RunRequest(self.ws, config, recorded, mode, **changes)

    def run(
        self,
        config: Path,
        session: str = SESSIONS[0],
        *,
        mode: str = "paper",
        speed: float | None = None,
        progress: Any = None,
        clock: Clock | None = None,
    ) -> SessionOutcome:
        """Run one session."""
        return run_session(
            self.request(config, session, mode=mode, speed=speed),
            instruments=load_instruments(),
            settings=load_settings(self.ws / "no-config", environment={}),
            progress=progress,
            clock=clock,
        )


def make_live(root: Path) -> Live:
    """A fresh workspace with the dataset."""
    record(root / "recordings")
    ingest(root / "recordings", root / "ws", load_instruments())
    return Live(root / "ws")


MAKER = {
    "kind": "maker",
    "half_spread_ticks": 1.0,
    "requote_ticks": 1.0,
    "signal_skew": 0.25,
    "inventory_skew_ticks": 0.5,
}
"""A template that keeps orders resting, so that there is something to cancel."""


def fake_clock() -> Clock:
    """Time that passes only when somebody sleeps."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return Clock(monotonic=lambda: now[0], sleep=sleep)
