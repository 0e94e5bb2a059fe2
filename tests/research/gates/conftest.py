"""A workspace whose planted alpha has passed gates A to D, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from market import workspace

from research import registry
from research.gates import Verdict, run_gate

Judged = tuple[Path, dict[str, Verdict]]


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """Workspace and verdicts of gates A to D."""
    alpha = registry.find_alpha("gen_imbalance_taker")
    ws = workspace(tmp_path_factory.mktemp("planted"), "SIM_EDGE", days=60, drift_ticks_per_s=0.9)
    registry.register(ws, alpha)
    gates = ("gate_a", "gate_b", "gate_c", "gate_d")
    return ws, {gate: run_gate(ws, alpha, gate) for gate in gates}
