"""The figures: one function each, returning rows by dotted name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from hft_platform import _core
from hft_platform.config.canonical import canonical_json
from hft_platform.config.engine_config import AlphaSpec, build_engine_config
from hft_platform.config.settings import load_settings
from hft_platform.market.instruments import Instrument, load_instruments
from hft_platform.market.latency import load_latency_profile
from research import loop, registry
from research.backtest.runner import run_session
from research.data import catalog
from tests.bench import rust
from tests.bench.gates import gates
from tests.bench.live import tick_to_call
from tests.bench.normaliser import normaliser
from tests.bench.run import REPOSITORY, RUNS, remove, repeat, spread, temporary_folder
from tests.bench.storage import storage
from tests.bench.takeover import takeover

RECORDINGS = Path(os.environ.get("HFT_DATA", REPOSITORY.parent / "shared" / "data")) / "taifex"


def input_name() -> str:
    """What the tapes are."""
    return "real TXF day session" if RECORDINGS.is_dir() else "generated sessions"


@cache
def _input() -> tuple[bytes, dict[str, Any], Instrument, str]:
    """Tape, engine config, instrument and latency profile of one session."""
    source = str(RECORDINGS) if RECORDINGS.is_dir() else "generator"
    symbol, alpha_id = (
        ("TXFD6", "txf_ofi_taker") if RECORDINGS.is_dir() else ("SIM_EDGE", "gen_imbalance_taker")
    )
    folder = temporary_folder()
    try:
        loop.make_datasets(folder, source)
        refs = catalog.dataset_of(folder, [symbol]).sessions
        ref = max((r for r in refs if r.symbol == symbol), key=lambda r: r.record_count)
        tape = catalog.load_tape(ref)
    finally:
        remove(folder)
    instrument = load_instruments().by_symbol(symbol)
    alpha = next(a for a in registry.bundled_alphas() if a.alpha_id == alpha_id)
    config = build_engine_config(
        [
            AlphaSpec.from_manifest(
                alpha.manifest.model_dump(mode="json"),
                alpha.manifest.defaults(),
                instrument,
                weight_ppm=alpha.manifest.gate_weight_ppm,
            )
        ],
        instruments=[instrument],
        session=ref.session_of(instrument),
        account_limits=load_settings().account_limits(),
        storm_guard=load_settings().storm_guard(),
    )
    return tape, config, instrument, alpha.manifest.latency_profile


def engine() -> dict[str, Any]:
    """Whole engine over a session; one decision beside the floor; a decision in a session."""
    tape, config, _, profile = _input()
    text = canonical_json(config).decode()
    timed = [_decide_times(text, tape, profile) for _ in range(RUNS)]
    in_session = {
        f"engine.decide_ns.{key}": spread(
            [float(row[key]) for row in timed], "ns", "record to decision in a paper session"
        )
        for key in ("p50", "p99")
    }
    return rust.engine_events(tape) | rust.decision(tape) | in_session


def _decide_times(text: str, tape: bytes, profile: str) -> dict[str, int]:
    """Time of the engine's step by record, inside a paper session with both logs."""
    latency, _ = load_latency_profile(profile)
    folder = temporary_folder()
    try:
        session = _core.PaperSession(
            text,
            canonical_json(latency).decode(),
            canonical_json({"queue_model": "risk_adverse"}).decode(),
            str(folder),
            canonical_json({"wal_id": 7, "durable": "group"}).decode(),
        )
        session.feed(tape)
        while not session.run(None, 1 << 20)["done"]:
            continue
        times: dict[str, int] = session.finish()["decide_ns"]
        return times
    finally:
        remove(folder)


def loader() -> dict[str, Any]:
    """Sealed segments into the embedded store, verified, beside the client's own inserts."""
    tape, _, _, _ = _input()
    rows: list[dict[str, float]] = []
    for _ in range(RUNS):
        folder = temporary_folder()
        try:
            (folder / "tape").write_bytes(tape)
            done = subprocess.run(
                [sys.executable, "-m", "tests.bench.loading", str(folder / "tape"), str(folder)],
                capture_output=True,
                text=True,
                check=True,
                cwd=REPOSITORY,
            )
            rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
        finally:
            remove(folder)
    return {
        "loader.rows_per_s": spread(
            [row["ours"] for row in rows], "rows/s", "a session is in the store soon after it ends"
        ),
        "loader.over_native": spread(
            [row["ours"] / row["native"] for row in rows],
            "x",
            "reading, ledger and verification cost little beside clickhouse-connect's own insert",
        ),
        "loader.over_raw": spread(
            [row["ours"] / row["raw"] for row in rows], "x", "the same beside the bare engine"
        ),
    }


def backtest() -> dict[str, Any]:
    """One session on the hftbacktest package: conversion, run, accounting."""
    tape, config, instrument, profile = _input()
    latency, _ = load_latency_profile(profile)

    def seconds() -> float:
        started = time.perf_counter()
        run_session(
            tape, config, latency=latency, queue_model="risk_adverse", instrument=instrument
        )
        return time.perf_counter() - started

    return {
        "backtest.seconds_per_session": spread(
            repeat(seconds, 3), "s", "sweeps of gate C stay cheap"
        )
    }


def demo() -> dict[str, Any]:
    """`make demo` on the generator in a fresh workspace, built before."""
    seconds = []
    folder = temporary_folder()
    try:
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "dagster_project.demo", "--workspace", str(folder / "ws")],
            check=True,
            capture_output=True,
            cwd=REPOSITORY,
        )
        seconds.append(time.perf_counter() - started)
    finally:
        remove(folder)
    return {"demo.seconds": spread(seconds, "s", "a newcomer sees the whole loop in minutes")}


FIGURES: dict[str, Callable[[], dict[str, Any]]] = {
    "engine": engine,
    "bus": rust.bus,
    "order": rust.order,
    "order_to_call": tick_to_call,
    "normaliser": normaliser,
    "gateway": takeover,
    "wal": rust.wal,
    "loader": loader,
    "storage": lambda: storage(str(RECORDINGS) if RECORDINGS.is_dir() else "generator"),
    "backtest": backtest,
    "gates": lambda: (
        gates(str(RECORDINGS), "txf_ofi_taker")
        if RECORDINGS.is_dir()
        else gates("generator", "gen_imbalance_taker")
    ),
    "demo": demo,
}
