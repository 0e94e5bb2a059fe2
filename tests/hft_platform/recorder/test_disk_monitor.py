"""Disk pressure: every state and sample, growth, policy, settings."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest

from hft_platform.config.settings import DiskPressure, load_settings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder.disk_monitor import (
    TOPICS,
    DiskPressureMonitor,
    Level,
    Sample,
    bounds_of,
    free_bytes,
    next_level,
    shed_up_to,
)

ABOVE_OK = (Level.WARN, Level.CRITICAL, Level.HALT)


@pytest.fixture
def settings(tmp_path: Path) -> DiskPressure:
    """As packaged."""
    return load_settings(tmp_path, environment={}).disk_pressure


def around(bounds: set[float]) -> list[float]:
    """Values at, just below and just above each bound."""
    return sorted({bound + step for bound in bounds for step in (-1, 0, 1)})


def test_every_state_and_every_sample_has_the_level_of_its_bounds(settings: DiskPressure) -> None:
    """The whole table: between entering and leaving a level is kept, else the bounds decide."""
    bounds = bounds_of(settings)
    frees = around({b for one in bounds.values() for b in (one.free_bytes_in, one.free_bytes_out)})
    seconds = around({b for one in bounds.values() for b in (one.seconds_in, one.seconds_out)})
    rows = 0
    for level, free, left_s, is_ahead in itertools.product(
        Level, frees, [*seconds, math.inf], (True, False)
    ):
        rate = None if math.isinf(left_s) else free / left_s
        sample = Sample(int(free), rate, is_ahead)
        if rate is not None and sample.seconds_to_full != left_s:
            continue  # The quotient does not come out even; its neighbours do.
        breached_in = [
            one for one, b in bounds.items() if free < b.free_bytes_in or left_s < b.seconds_in
        ]
        breached_out = [
            one for one, b in bounds.items() if free < b.free_bytes_out or left_s < b.seconds_out
        ]
        least, most = max(breached_in, default=Level.OK), max(breached_out, default=Level.OK)
        expected = min(max(level, least), most) if is_ahead else Level.HALT
        assert next_level(level, sample, bounds) == expected, (level, free, left_s, is_ahead)
        rows += 1
    assert rows > 1_000


def test_a_disk_that_cannot_be_asked_halts(settings: DiskPressure, tmp_path: Path) -> None:
    assert free_bytes(tmp_path) > 0
    assert free_bytes(tmp_path / "missing") == -1
    monitor = DiskPressureMonitor(settings, tmp_path / "missing")
    assert monitor.look(0.0, written_bytes=0) == Level.HALT


def test_growth_is_judged_over_the_window_and_only_when_it_says_something(
    settings: DiskPressure, tmp_path: Path
) -> None:
    free = 100 << 30
    monitor = DiskPressureMonitor(settings, tmp_path, free=lambda _: free)
    # 100 GB and 1 GB/s: 107 s to full is CRITICAL (600), not HALT (60).
    levels = [monitor.look(float(s), written_bytes=s << 30) for s in range(60)]
    window = settings.growth_window_s
    assert set(levels[: window // 2]) == {Level.OK}
    assert levels[window // 2 + 1] == Level.CRITICAL
    assert monitor.last.growth_bytes_per_s == 1 << 30
    # Nothing grows any more: the window empties, and the level falls by its own bound.
    still = [monitor.look(60.0 + s, written_bytes=60 << 30) for s in range(60)]
    assert still[-1] == Level.OK
    unpaced = DiskPressureMonitor(settings, tmp_path, free=lambda _: free)
    assert {unpaced.look(float(s), written_bytes=None) for s in range(60)} == {Level.OK}


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ((None, None, None), (None, None, None, None)),
        ((2, 3, 3), (None, None, "depth", "trades")),
        ((2, 2, 3), (None, None, "books", "trades")),
        ((3, None, None), (None, None, None, "depth")),
    ],
)
def test_topics_are_left_out_from_their_level_on(levels: Any, expected: Any) -> None:
    policy = {topic: at and Level(at) for topic, at in zip(TOPICS, levels, strict=True)}
    assert tuple(shed_up_to(level, policy) for level in Level) == expected


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "HFT_DISK_PRESSURE__SHED_AT",
            "{depth: halt, books: critical, trades: halt}",
            "order|first",
        ),
        ("HFT_DISK_PRESSURE__SHED_AT", "{depth: warn, books: halt, trades: halt}", "critical"),
        (
            "HFT_DISK_PRESSURE__HALT",
            "{free_bytes_in: 1000, free_bytes_out: 10, seconds_in: 1, seconds_out: 2}",
            "below its _in",
        ),
        (
            "HFT_DISK_PRESSURE__CRITICAL",
            "{free_bytes_in: 99999999999, free_bytes_out: 99999999999, seconds_in: 1,"
            " seconds_out: 9000}",
            "milder",
        ),
        ("HFT_DISK_PRESSURE__SEGMENT_BYTES", "1", "segment_bytes"),
    ],
)
def test_thresholds_that_contradict_each_other_are_refused(
    tmp_path: Path, name: str, value: str, said: str
) -> None:
    with pytest.raises(PlatformError, match=said) as caught:
        load_settings(tmp_path, environment={name: value})
    assert caught.value.code == ReasonCode.SETTINGS_INVALID
