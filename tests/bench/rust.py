"""Figures of the Rust benchmarks (`cargo bench`), read from what they leave or print.

The benchmarks take the same session as the Python figures, from a tape file. Criterion's samples
are read from its JSON; programs with a harness of their own print one JSON line at the end.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.bench.run import REPOSITORY, remove, spread, temporary_folder

CRATE = REPOSITORY / "rust_core"
PROGRAM_RUNS = 3
QUANTILES = {"p50": "p50", "p99": "p99", "p999": "p99.9"}


def cargo_bench(name: str, tape: bytes | None = None) -> str:
    """Run one benchmark program; returns what it printed."""
    folder = temporary_folder()
    try:
        environment = dict(os.environ) | {"HFT_BENCH_FOLDER": str(folder)}
        if tape is not None:
            path = folder / "session.tape"
            path.write_bytes(tape)
            environment["HFT_BENCH_TAPE"] = str(path)
        done = subprocess.run(
            ["cargo", "bench", "--locked", "--quiet", "--bench", name],
            cwd=CRATE,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"cargo bench --bench {name} failed:\n{done.stderr[-4000:]}")
        return done.stdout
    finally:
        remove(folder)


def printed(name: str, tape: bytes | None = None) -> dict[str, Any]:
    """The JSON line that a program with its own harness prints last."""
    row: dict[str, Any] = json.loads(cargo_bench(name, tape).strip().splitlines()[-1])
    return row


def criterion_rates(group: str) -> dict[str, list[float]]:
    """Elements a second of every sample, by benchmark of a group."""
    found = {}
    root = Path(os.environ.get("CARGO_TARGET_DIR", CRATE / "target")) / "criterion" / group
    for path in sorted(root.glob("**/new/sample.json")):
        sample = json.loads(path.read_text())
        elements = json.loads((path.parent / "benchmark.json").read_text())["throughput"]
        count = elements["Elements"]
        found[path.parent.parent.relative_to(root).as_posix()] = [
            count * n / (t * 1e-9) for t, n in zip(sample["times"], sample["iters"], strict=True)
        ]
    return found


def engine_events(tape: bytes) -> dict[str, Any]:
    """Whole engine over a session with its broker events: every feature, six terms, all checks."""
    cargo_bench("engine", tape)
    rates = criterion_rates("engine_events")
    return {
        name: spread(
            rates[f"{template}_recording"],
            "events/s",
            f"replay and research speed, one core, {template}",
        )
        for template, name in (
            ("taker", "engine.events_per_s"),
            ("maker", "engine.events_per_s_maker"),
        )
    }


def decision(tape: bytes) -> dict[str, Any]:
    """One decision beside the floor program: hot, cold cache, after 3 ms idle."""
    runs = [printed("decision", tape) for _ in range(PROGRAM_RUNS)]
    figures = {
        f"engine.{state}_p50_over_floor": spread(
            [run[state]["p50_over_floor"] for run in runs],
            "ratio",
            f"record to approved order beside the least work for it, {label}",
        )
        for state, label in (("hot", "hot"), ("cold", "cache evicted"), ("idle", "after 3 ms"))
    }
    for state in ("hot", "cold", "idle"):
        for who in ("engine", "floor"):
            for key, label in QUANTILES.items():
                figures[f"{who}.{state}_ns.{label}"] = spread(
                    [float(run[state][f"{who}_ns"][key]) for run in runs],
                    "ns",
                    "record to approved order, encoded",
                )
    return figures


def bus() -> dict[str, Any]:
    """A push and a pop in one thread, and the hop to another core in the quietest window."""
    runs = [printed("bus") for _ in range(PROGRAM_RUNS)]
    found = {}
    for name, protects in (
        ("bus.push_pop_ns_p50", "a push and a pop of a book in one thread"),
        ("bus.push_ns_p50", "what publishing costs the engine"),
        ("bus.hop_ns_p50", "to another core, quietest of ten windows"),
    ):
        # A hop needs two cores at once; a run that never had them says null.
        values = [run[name]["value"] for run in runs if run[name]["value"] is not None]
        if values:
            found[name] = spread([float(value) for value in values], "ns", protects)
    return found


def order() -> dict[str, Any]:
    """What an order costs late in a day, and every check passing."""
    runs = [printed("order_cost") for _ in range(PROGRAM_RUNS)]
    return {
        name: spread([float(run[name]) for run in runs], unit, protects)
        for name, unit, protects in (
            ("order.cost_100k_over_1k", "ratio", "order 100,000 of a day beside order 1,000"),
            ("order.cost_at_1k_ns", "ns", "book, order, answer and fill around order 1,000"),
            ("risk.evaluate_ns_p50", "ns", "every check, all passing"),
        )
    }


WAL_FIGURES = (
    (
        "append_per_s",
        "records/s",
        "128-byte records into the buffer: what an append costs",
    ),
    (
        "sustained_per_s",
        "records/s",
        "the same written, synced, sealed and hashed",
    ),
    ("group_ack_ms_p50", "ms", "append to acknowledgement, 500,000 records/s, 10 ms group commit"),
    ("group_ack_ms_p99", "ms", "the same, segment changes included"),
    ("order_append_over_fdatasync", "ratio", "a durable order beside a bare fdatasync, medians"),
    ("order_append_us_p50", "us", "a durable append to the order log"),
    ("fdatasync_us_p50", "us", "write and fdatasync of as many bytes into a zeroed file"),
    ("recovery_gb_per_s", "GB/s", "a recovery that verifies every byte, from the page cache"),
)


def wal() -> dict[str, Any]:
    """The log as deployed: append, acknowledgement, durable order, recovery."""
    runs = [printed("wal") for _ in range(PROGRAM_RUNS)]
    return {
        f"wal.{name}": spread([float(run[name]) for run in runs], unit, protects)
        for name, unit, protects in WAL_FIGURES
    }
