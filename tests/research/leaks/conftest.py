"""A short piece of the real TXF recordings, ingested and judged once; or made, if there is none."""

from __future__ import annotations

import datetime as dt
import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from leak_bench import ALPHA, NO_CONFIG, Bench

from hft_platform.market.instruments import load_instruments
from research import registry
from research.data.ingest import ingest
from research.gates import run_gate

DAYS = (dt.date(2026, 4, 9), dt.date(2026, 4, 10))
WINDOWS_UTC = (((0, 30), (1, 0)), ((6, 50), (7, 30)))
"""Half an hour of the day session and of the night session, trial matches before them included."""
STEP_NS = 250_000_000


def windows(day: dt.date) -> list[tuple[int, int]]:
    """Nanoseconds UTC of the pieces of a day."""

    def at(hour: int, minute: int) -> int:
        moment = dt.datetime.combine(day, dt.time(hour, minute), dt.UTC)
        return int(moment.timestamp()) * 1_000_000_000

    return [(at(*first), at(*last)) for first, last in WINDOWS_UTC]


def cut(source: Path, target: Path) -> None:
    """Pieces of the real recordings."""
    for day in DAYS:
        inside = pl.any_horizontal(
            pl.col("ts").is_between(first, last, closed="left") for first, last in windows(day)
        )
        for kind in ("book", "trades"):
            name = f"TXFD6_{day}_{kind}.parquet"
            pl.read_parquet(source / name).filter(inside).write_parquet(target / name)


def make(target: Path) -> None:
    """A random walk in the same form, for a checkout without recordings."""
    rng = np.random.default_rng(11)
    for day in DAYS:
        ts = np.concatenate([np.arange(*window, STEP_NS) for window in windows(day)])
        bid = 35_000 + rng.integers(-1, 2, ts.size).cumsum()
        frame: dict[str, np.ndarray] = {"ts": ts, "seq": 2 * np.arange(ts.size) + 1}
        for level in range(1, 6):
            frame |= {
                f"bid_px_{level}": bid - level + 1,
                f"bid_qty_{level}": rng.integers(1, 30, ts.size),
                f"ask_px_{level}": bid + level + 1,
                f"ask_qty_{level}": rng.integers(1, 30, ts.size),
            }
        pl.DataFrame(frame).write_parquet(target / f"TXFD6_{day}_book.parquet")
        some = slice(None, None, 2)
        side = rng.choice([-1, 1], ts.size)[some]
        trades = {
            "ts": ts[some] + 1_000_000,
            "seq": 2 * np.arange(ts.size)[some] + 2,
            "px": np.where(side > 0, bid[some] + 2, bid[some]),
            "qty": rng.integers(1, 5, ts.size)[some],
            "side": side,
        }
        pl.DataFrame(trades).write_parquet(target / f"TXFD6_{day}_trades.parquet")


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """Folder with short recordings of two days of TXFD6: real ones where there are any."""
    folder = tmp_path_factory.mktemp("leaks") / "recordings"
    folder.mkdir()
    data = Path(os.environ.get("HFT_DATA", repository.parent / "shared" / "data")) / "taifex"
    if data.is_dir():
        cut(data, folder)
    else:
        make(folder)
    return folder


@pytest.fixture(scope="session")
def honest(recording: Path) -> Path:
    """Workspace without a leak, in which the alpha has passed gates A and B."""
    ws = recording.parent / "honest"
    ingest(recording, ws, load_instruments(NO_CONFIG))
    for gate in ("gate_a", "gate_b"):
        verdict = run_gate(ws, registry.find_alpha(ALPHA), gate, config_dir=NO_CONFIG)
        assert verdict.is_passed, verdict.reasons
    return ws


@pytest.fixture
def bench(recording: Path, honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """What a leak is planted with; everything it touches is its own copy."""
    ws = tmp_path / "ws"
    shutil.copytree(honest, ws)
    return Bench(recording, ws, tmp_path, monkeypatch)
