"""Run the canary study and show what it found: results for a file, a picture, the page's table.

Operator's page: `docs/canary.md`.
"""

from __future__ import annotations

import io
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from research.canary_study.lives import (
    CASES,
    HEALTHY,
    LIVES,
    ONSET_MAX,
    PROMISED_SESSIONS,
    SESSIONS,
    peeking_share,
    study,
)
from research.canary_study.sessions import POOL, SEED, pool_facts, pools
from research.canary_study.stop import Stop, measure_stop, prepare_workspace
from research.promotion.canary_thresholds import load_canary_thresholds

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results" / "canary.json"
PICTURE = ROOT / "docs" / "images" / "canary-lives.svg"
PAGE = ROOT / "docs" / "canary.md"
BEGIN, END = "<!-- canary-study: begin -->", "<!-- canary-study: end -->"
PACES = ((1.0, 10), (20.0, 20), (60.0, 10))
"""Speeds (times real time) and roll-backs at each."""
FIRST_MOMENT_S, LAST_MOMENT_S = 1.0, 6.0
NAMES = {
    "healthy": "healthy",
    "healthy_weak_edge": "healthy, edge of half a deviation",
    "healthy_at_the_bands": "healthy, every execution metric at its band or limit",
    "slippage_2_ticks": "slippage +2 ticks",
    "reject_storm": "reject storm (20 % of orders)",
    "edge_decay": "edge decay (drift gone)",
    "missing_metric": "missing metric",
    "parity_break": "parity break",
    "unknown_storm": "unknown storm (10 % of orders)",
    "fill_ratio_collapse": "fill-ratio collapse (orders arrive six times later)",
}


def run(scratch: Path, *, lives: int = LIVES, pool: int = POOL) -> dict[str, Any]:
    """Trade the pools, live the lives, measure the stop.

    Parameters
    ----------
    scratch : Path
        Folder for workspaces and logs.
    lives, pool : int, optional
        Lives of a case, sessions of a pool.

    Returns
    -------
    dict
        Content of the results file.
    """
    started = time.monotonic()
    limits, limits_sha256 = load_canary_thresholds()
    pooled = pools(scratch / "pools", count=pool)
    traded = time.monotonic()
    cases = study(pooled, limits, lives=lives)
    lived = time.monotonic()
    stops = measure_stops(scratch)
    return {
        "schema": 1,
        "command": "make canary-study",
        "seed": SEED,
        "lives": lives,
        "sessions_a_life": SESSIONS,
        "promised_sessions": PROMISED_SESSIONS,
        "onset_before_session": ONSET_MAX,
        "thresholds_sha256": limits_sha256,
        "stated_error_rate": limits.error_rate,
        "pools": {name: pool_facts(rows) for name, rows in sorted(pooled.items())},
        "cases": cases,
        "peeking_share": peeking_share(pooled["healthy"], lives=lives),
        "stops": [asdict(stop) for stop in stops],
        "seconds": {
            "pools": round(traded - started, 1),
            "lives": round(lived - traded, 1),
            "stops": round(time.monotonic() - lived, 1),
        },
        "machine": {
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "load_1m": round(os.getloadavg()[0], 1),
        },
    }


def measure_stops(scratch: Path, paces: Sequence[tuple[float, int]] = PACES) -> list[Stop]:
    """Roll back at moments drawn from the seed, at several paces."""
    rng = np.random.default_rng(SEED)
    prepared = scratch / "prepared"
    prepare_workspace(prepared)
    return [
        measure_stop(
            prepared, scratch, speed=speed, at_s=float(rng.uniform(FIRST_MOMENT_S, LAST_MOMENT_S))
        )
        for speed, count in paces
        for _ in range(count)
    ]


def markdown(results: dict[str, Any]) -> str:
    """The results as the page shows them."""
    lines = [
        f"{results['lives']:,} lives of up to {results['sessions_a_life']} sessions a case, seed"
        f" {results['seed']}; trouble begins before session {results['onset_before_session']}"
        " (its session is drawn), and sessions are counted from there.",
        "",
        "| case | rolled back | before the trouble | sessions p50 | p95 | by | at full size |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        row = results["cases"][case]
        shown = f"{row['rolled_back_share']:.1%}"
        if case in HEALTHY:
            shown += f" (at most {row['upper_95']:.1%})"
        first = sorted(row["reasons"].items(), key=lambda item: (-item[1], item[0]))[:2]
        by = ", ".join(f"{name} {count}" for name, count in first) or "-"
        p50, p95 = row["sessions_p50"] or "-", row["sessions_p95"] or "-"
        is_healthy = case in HEALTHY
        lines.append(
            f"| {NAMES[case]} | {shown} | {'-' if is_healthy else row['rolled_back_before_onset']}"
            f" | {p50} | {p95} | {by} | {row['full_weight_share']:.1%} |"
        )
    lines += [
        "",
        f"Stated: a canary that keeps its promise is rolled back by the tests with probability at"
        f" most {results['stated_error_rate']:.0%}; in brackets the one-sided 95 % bound of what"
        f" was measured. A single z-test at 5 % of slippage alone, looked at after every session,"
        f" rolls {results['peeking_share']:.0%} of the healthy lives back.",
        "",
        "From the decision to roll back, in the paper runtime, with its own logs and no Dagster"
        " (worst of the trials; milliseconds are upper bounds):",
        "",
        "| pace | trials | withdrawal on disk | obeyed by the engine | records till then"
        " | last opening order | records till then | opened after |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for speed in sorted({stop["speed"] for stop in results["stops"]}):
        rows = [stop for stop in results["stops"] if stop["speed"] == speed]
        worst = {name: max(row[name] for row in rows) for name in rows[0]}
        lines.append(
            f"| {speed:g}x | {len(rows)} | {worst['decided_ms']:.0f} ms |"
            f" {worst['obeyed_ms']:.0f} ms | {worst['obeyed_records']} |"
            f" {worst['last_opening_ms']:.0f} ms | {worst['last_opening_records']} |"
            f" {worst['openings_after_command']} |"
        )
    machine = results["machine"]
    lines += [
        "",
        f"Measured on {machine['cpus']} cores at load {machine['load_1m']} (other work ran beside"
        " it); the lives do not depend on the machine.",
    ]
    return "\n".join(lines)


def picture(results: dict[str, Any]) -> bytes:
    """Share of lives rolled back by sessions since the trouble began, one line a case."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    with mpl.rc_context({"svg.hashsalt": "canary", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = plt.subplots(figsize=(7.2, 3.6))
        for case in CASES:
            row = results["cases"][case]
            share = np.cumsum(row["detected_after"]) / row["lives"]
            style = "--" if case in HEALTHY else "-"
            axes.step(
                range(1, len(share) + 1), share, style, where="post", label=NAMES[case], lw=1.3
            )
        axes.axhline(results["stated_error_rate"], color="#6e7781", lw=0.8, ls=":")
        axes.set_xlabel("sessions (since the trouble began)")
        axes.set_ylabel("share of lives rolled back")
        axes.set_xlim(1, 20)
        axes.legend(fontsize=7, loc="center right")
        figure.tight_layout()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        plt.close(figure)
    # Matplotlib leaves blanks at the ends of lines, which the repository does not hold.
    lines = buffer.getvalue().decode().splitlines()
    return ("\n".join(line.rstrip() for line in lines) + "\n").encode()


def with_results(page: str, results: dict[str, Any]) -> str:
    """The page with its results block replaced."""
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n{markdown(results)}\n{END}{tail}"
