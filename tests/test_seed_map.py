"""The seed map tells the truth: every place it names exists."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
ROW = re.compile(r"^\| (?P<name>[^|]+) \| (?P<where>[^|]+) \| (?P<test>[^|]+) \|", re.MULTILINE)
SEED = [
    "RingBufferBus",
    "MarketDataService",
    "StrategyRunner",
    "RiskEngine",
    "StormGuard",
    "LocalIntentChannel",
    "ExposureStore",
    "IdempotencyStore",
    "GatewayPolicy",
    "GatewayService",
    "OrderAdapter",
    "ExecutionGateway",
    "ExecutionRouter",
    "PositionStore",
    "ReconciliationService",
    "RecorderService",
    "WALFirstWriter",
    "DiskPressureMonitor",
    "FileClaimRegistry",
    "ReplayContract",
    "AlphaRegistry",
    "ResearchBacktestRunner",
    "Scorecard",
    "search",
    "RL",
    "pool",
    "promotion",
    "canary",
    "ExperimentTracker",
    "audit",
    "monitor",
    "Redis",
    "HFTSystem",
    "SystemBootstrapper",
    "WAL loader",
]


def rows() -> list[tuple[str, str, str]]:
    text = (REPOSITORY / "docs" / "seed-map.md").read_text()
    found = [(m["name"].strip(), m["where"].strip(), m["test"].strip()) for m in ROW.finditer(text)]
    return [row for row in found if row[0] not in {"component", "---"}]


def test_every_seed_component_has_a_row() -> None:
    assert set(SEED) - {name for name, _, _ in rows()} == set()
    assert sum("queue" in name for name, _, _ in rows()) == 5


@pytest.mark.parametrize(("name", "where", "test"), rows(), ids=[row[0] for row in rows()])
def test_the_place_and_the_test_exist(name: str, where: str, test: str) -> None:
    if where == "later":
        assert test == "later"
        return
    place = where.strip("`")
    if "/" in place:
        assert (REPOSITORY / place).is_file(), f"{name}: no file {place}"
    else:
        assert importlib.util.find_spec(place) is not None, f"{name}: cannot import {place}"
    assert (REPOSITORY / test.strip("`")).is_file(), f"{name}: no test {test}"
