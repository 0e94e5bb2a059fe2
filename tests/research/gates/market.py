"""A made-up market on disk: tidy recordings, with or without a planted edge, and ingested."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import polars as pl

from hft_platform.market.instruments import load_instruments
from research.data.ingest import ingest

STEP_MS = 500
SESSION_S = 300
STATE_S = 12.0
SHADOW_SESSIONS = 5


def weekdays(count: int) -> list[dt.date]:
    day, found = dt.date(2026, 1, 5), []
    while len(found) < count:
        if day.weekday() < 5:
            found.append(day)
        day += dt.timedelta(days=1)
    return found


def record(
    folder: Path, symbol: str, *, days: int, drift_ticks_per_s: float, seed: int = 1
) -> None:
    """Write recordings of a hidden state that tilts queues and, if it drifts, moves the mid."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    count = SESSION_S * 1000 // STEP_MS - 2
    for day in weekdays(days):
        opening = dt.datetime.combine(day, dt.time(0, 45), dt.UTC)
        ts = int(opening.timestamp()) * 10**9 + (1 + np.arange(count)) * STEP_MS * 1_000_000
        turns = rng.random(count) < STEP_MS / 1000 / STATE_S
        state = np.where(np.cumsum(turns) % 2 == 0, 1, -1) * rng.choice([-1, 1])
        moves = drift_ticks_per_s * STEP_MS / 1000 * state + rng.normal(0, 0.5, count)
        bid = 20_000 + np.floor(np.cumsum(moves)).astype(np.int64)
        heavy, light = rng.integers(20, 30, count), rng.integers(6, 12, count)
        frame: dict[str, np.ndarray] = {"ts": ts, "seq": 2 * np.arange(count)}
        for level in range(1, 6):
            frame[f"bid_px_{level}"] = (bid - level + 1).astype(float)
            frame[f"ask_px_{level}"] = (bid + level).astype(float)
            frame[f"bid_qty_{level}"] = np.where(state > 0, heavy, light).astype(float)
            frame[f"ask_qty_{level}"] = np.where(state > 0, light, heavy).astype(float)
        pl.DataFrame(frame).write_parquet(folder / f"{symbol}_{day}_book.parquet")
        every = slice(None, None, 8)
        trades = {
            "ts": ts[every] + 1_000_000,
            "seq": 2 * np.arange(count)[every] + 1,
            "px": (bid + 1)[every].astype(float),
            "qty": np.ones(count)[every],
            "side": np.ones(count, dtype=np.int64)[every],
        }
        pl.DataFrame(trades).write_parquet(folder / f"{symbol}_{day}_trades.parquet")


def workspace(root: Path, symbol: str, *, days: int, drift_ticks_per_s: float) -> Path:
    """A workspace with one ingested dataset."""
    record(root / "recordings", symbol, days=days, drift_ticks_per_s=drift_ticks_per_s)
    ingest(root / "recordings", root / "ws", load_instruments())
    return root / "ws"
