"""What a takeover of the gateway costs: leaders killed with SIGKILL, one after the other.

The drill `gateway-takeover` does the killing: real processes, engine, order log (segments of 1 MiB)
and channel, two runners sending, a standby that is ready. Times are from before the kill, by
CLOCK_BOOTTIME, to what the standby says; the kill lands anywhere, mostly in a broker call.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from hft_platform.drills.gateway import take_over
from hft_platform.gateway.lease import LeaderLease
from tests.bench.run import RUNS, remove, repeat, spread, temporary_folder

KILLS = 66
CHECKS = 20_000


def takeover() -> dict[str, Any]:
    """Kill to lease, to recovered log, to serving; and what a fence costs before every call."""
    folder = temporary_folder()
    try:
        found, _ = take_over(folder, 1, KILLS, 0)
    finally:
        remove(folder)
    figures: dict[str, Any] = {}
    for name, values, protects in (
        ("lease_ms", found.lease, "a dead leader is replaced at once"),
        ("recovered_ms", found.recovered, "nothing is sent before the log was read"),
        ("takeover_ms", found.serving, "runners are served again within a second"),
    ):
        for key, share in (("p50", 0.5), ("p99", 0.99)):
            figures[f"gateway.{name}_{key}"] = {
                "value": float(np.quantile(values, share)),
                "min": min(values),
                "max": max(values),
                "runs": len(values),
                "unit": "ms",
                "protects": protects,
            }
    return figures | {"gateway.fence_us": _fence()}


def _fence() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        lease = LeaderLease(Path(folder))
        lease.try_acquire(lambda: 0)
        fence = lease.fence()

        def one() -> float:
            started = time.perf_counter_ns()
            for _ in range(CHECKS):
                fence.check()
            return (time.perf_counter_ns() - started) / CHECKS / 1_000

        values = repeat(one, RUNS)
        lease.release()
    return spread(values, "us", "the lease is looked at before every broker call")
