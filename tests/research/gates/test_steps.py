"""Seconds by step: what is measured, and that nobody pays when nobody asks."""

import threading

import pytest

from research.gates.steps import StepClock, installed, part, step


def test_a_step_counts_calls_and_adds_up_over_threads():
    clock = StepClock()

    def work():
        with part("- inside"):
            sum(range(1000))

    with installed(clock), step("outside"):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    rows = {row["step"]: row for row in clock.rows()}
    assert rows["- inside"]["calls"] == 4
    assert rows["outside"]["calls"] == 1
    assert rows["outside"]["seconds"] > 0
    assert list(rows) == ["- inside", "outside"]


def test_a_step_that_raises_is_measured_and_still_raises():
    clock = StepClock()
    with pytest.raises(ValueError, match="broken"), installed(clock), step("broken"):
        raise ValueError("broken")
    assert clock.rows()[0]["calls"] == 1
    with step("after"):
        pass
    assert len(clock.rows()) == 1


def test_without_a_clock_nothing_is_kept():
    clock = StepClock()
    with installed(clock):
        pass
    with step("unseen"):
        pass
    assert clock.rows() == []
