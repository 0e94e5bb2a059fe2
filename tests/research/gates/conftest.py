"""A workspace whose planted alpha has passed gates A to D, and traded in shadow; made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from market import SHADOW_SESSIONS, workspace

from hft_platform.config.promotion_folder import head_config
from hft_platform.config.settings import load_settings
from hft_platform.market.instruments import load_instruments
from hft_platform.services.session_runner import RunRequest, run_session
from research import registry
from research.gates import Verdict, run_gate
from research.gates.context import open_context
from research.promotion.promote import promote

Judged = tuple[Path, dict[str, Verdict]]


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """Workspace and verdicts of gates A to D."""
    alpha = registry.find_alpha("gen_imbalance_taker")
    ws = workspace(tmp_path_factory.mktemp("planted"), "SIM_EDGE", days=60, drift_ticks_per_s=0.9)
    registry.register(ws, alpha)
    gates = ("gate_a", "gate_b", "gate_c", "gate_d")
    return ws, {gate: run_gate(ws, alpha, gate) for gate in gates}


@pytest.fixture(scope="session")
def traded(planted: Judged, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted workspace after five shadow sessions on frozen days."""
    ws = tmp_path_factory.mktemp("traded") / "ws"
    shutil.copytree(planted[0], ws)
    alpha = registry.find_alpha("gen_imbalance_taker")
    promote(ws, alpha, stage="shadow", by="a test", why="gates A and B passed")
    for session in open_context(ws, alpha).judged.roles.frozen[:SHADOW_SESSIONS]:
        request = RunRequest(ws, head_config(ws, alpha.alpha_id), session, "sim")
        run_session(request, instruments=load_instruments(), settings=load_settings())
    return ws
