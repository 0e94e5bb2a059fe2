"""Gate B on a real workspace: two unlike processes, and a time that no verdict holds."""

import json
import shutil
from importlib import resources

import pytest

from research import registry
from research.gates import collect_b, run_gate, sandbox
from research.gates.verdict import GateVerdict
from research.promotion import on_record

EDGE = registry.find_alpha("gen_imbalance_taker")


@pytest.fixture
def strict(tmp_path):
    """Thresholds under which no code is fast enough."""
    packaged = (resources.files("hft_platform") / "defaults" / "gates.yaml").read_text()
    folder = tmp_path / "config"
    folder.mkdir()
    assert "event_ns_max: 5000" in packaged
    (folder / "gates.yaml").write_text(packaged.replace("event_ns_max: 5000", "event_ns_max: 1"))
    return folder


def test_code_beyond_its_budget_fails_and_the_time_is_told_outside_the_verdict(
    planted, tmp_path, strict, monkeypatch
):
    ws = tmp_path / "ws"
    shutil.copytree(planted[0], ws)
    seen = []
    start = sandbox.signal_in_process

    def spy(*arguments, surroundings, **others):
        seen.append(surroundings)
        return start(*arguments, surroundings=surroundings, **others)

    monkeypatch.setattr(collect_b, "signal_in_process", spy)
    on_record.record_all_thresholds(
        ws, by="a test", why="nothing is fast enough", config_dir=strict
    )
    run_gate(ws, EDGE, "gate_a", config_dir=strict)
    verdict = run_gate(ws, EDGE, "gate_b", config_dir=strict)
    assert verdict.verdict is GateVerdict.FAILED
    failed = [row for row in verdict.results["checks"] if not row["passed"]]
    assert [row["name"] for row in failed] == ["event_time"]
    assert failed[0]["observed"] == "beyond"
    row = json.loads((ws / "measured" / f"{EDGE.key}-gate_b.json").read_bytes())
    assert row["event_ns"] > 1
    assert 'event_ns":' not in verdict.to_bytes().decode()
    first, second = sorted(seen, key=lambda found: found.hash_seed)
    assert first.hash_seed != second.hash_seed
    assert first.threads != second.threads
