"""The drills of the order plane, at the size that every test run can afford."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hft_platform.drills.drill import find_drill
from hft_platform.drills.order_sim import SimRules, play
from hft_platform.drills.orders import RUNS, simulate

SIZE = int(os.environ.get("HFT_CHAOS_SIZE", "10"))


@pytest.mark.timeout(900)
def test_ten_thousand_simulated_runs_send_nothing_twice(tmp_path: Path) -> None:
    report = find_drill("order-chaos").run(tmp_path, 1, SIZE)
    assert report.passed, report.render()
    assert report.facts["runs"] == RUNS * SIZE


def test_a_seed_is_a_run() -> None:
    first, again = play(11), play(11)
    assert first.trace == again.trace
    assert first.facts == again.facts
    assert play(12).trace != first.trace


@pytest.mark.parametrize("control", ["forgets", "resends"])
def test_a_broken_gateway_is_found_out_and_its_seed_shows_how(control: str) -> None:
    totals = simulate(1, 60, control=control, stop_after=1)
    assert totals.failed, f"no duplicate among {totals.facts['runs']} runs"
    seed = totals.failed[0]["seed"]
    rules = SimRules(remembers=control != "forgets", resends=control == "resends")
    result = play(seed, rules=rules)
    assert any("calls to place" in problem for problem in result.problems)
    print("\n".join(result.trace[-12:]))  # the trace is what a person wants to read


@pytest.mark.timeout(600)
def test_fifty_runs_of_killed_processes_send_nothing_twice(tmp_path: Path) -> None:
    report = find_drill("gateway-chaos").run(tmp_path, 1, 1)
    assert report.passed, report.render()
    assert report.facts["runs"] == 50
