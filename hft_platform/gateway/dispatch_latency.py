"""Histogram of the time from a decision to the broker call, in fixed buckets.

Why: a mean hides the slow one that mattered, and an exporter needs buckets that never change.

Operator's page: `docs/metrics.md`.
"""

from __future__ import annotations

import bisect

BOUNDS_NS: tuple[int, ...] = (
    50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000,
    50_000_000, 100_000_000, 250_000_000, 500_000_000, 1_000_000_000, 5_000_000_000,
)  # fmt: skip


class DispatchLatency:
    """Counts of one process."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_NS) + 1)
        self.sum_ns = 0

    def observe(self, latency_ns: int) -> None:
        """Count one.

        Parameters
        ----------
        latency_ns : int
            A negative one, of a clock that was set back, counts as 0.
        """
        latency_ns = max(0, latency_ns)
        self.counts[bisect.bisect_left(BOUNDS_NS, latency_ns)] += 1
        self.sum_ns += latency_ns

    def as_dict(self) -> dict[str, object]:
        """JSON form: bounds, counts of each bucket and beyond, sum."""
        return {"bounds_ns": list(BOUNDS_NS), "counts": list(self.counts), "sum_ns": self.sum_ns}
