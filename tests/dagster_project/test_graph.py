"""The asset graph: what Dagster loads, and that a passing step is no evidence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from dagster_project import definitions, sensors
from dagster_project.partitions import ALPHAS
from dagster_project.resources import Workspace
from hft_platform.drills.loading import write_runs
from hft_platform.recorder.store import open_store
from research import loop

GRAPH = {
    "recordings": [],
    "datasets": ["recordings"],
    "alpha_registry": ["datasets"],
    "gate_a_verdict": ["alpha_registry"],
    "gate_b_verdict": ["gate_a_verdict"],
    "shadow_permit": ["gate_b_verdict"],
    "shadow_sessions": ["shadow_permit"],
    "gate_c_verdict": ["gate_b_verdict"],
    "gate_d_verdict": ["gate_c_verdict"],
    "gate_e_verdict": ["gate_d_verdict", "shadow_sessions"],
    "promoted_config": ["gate_e_verdict"],
    "canary_sessions": ["promoted_config"],
    "canary_state": ["canary_sessions"],
    "wal_loaded": ["shadow_sessions"],
    "parity_report": ["shadow_sessions"],
    "run_report": ["parity_report", "wal_loaded"],
    "rehearsal": ["alpha_registry"],
}
BY_ALPHA = {
    "gate_a_verdict",
    "gate_b_verdict",
    "gate_c_verdict",
    "gate_d_verdict",
    "gate_e_verdict",
    "shadow_permit",
    "shadow_sessions",
    "promoted_config",
    "canary_sessions",
    "canary_state",
    "rehearsal",
}
BLOCKING = {
    "datasets",
    "gate_a_verdict",
    "gate_b_verdict",
    "gate_c_verdict",
    "gate_d_verdict",
    "gate_e_verdict",
    "parity_report",
    "wal_loaded",
}


@pytest.fixture(scope="module")
def graph() -> dg.Definitions:
    return definitions.build_definitions(Workspace(path="build/none"))


def test_the_graph_is_the_one_in_the_docs(graph: dg.Definitions) -> None:
    nodes = graph.resolve_asset_graph()
    found = {
        key.to_user_string(): sorted(
            parent.to_user_string() for parent in nodes.get(key).parent_keys
        )
        for key in nodes.get_all_asset_keys()
    }
    assert found == {name: sorted(parents) for name, parents in GRAPH.items()}


def test_alphas_are_partitions_and_what_money_depends_on_blocks(graph: dg.Definitions) -> None:
    nodes = graph.resolve_asset_graph()
    partitioned = {
        key.to_user_string()
        for key in nodes.get_all_asset_keys()
        if nodes.get(key).partitions_def is not None
    }
    blocking = {
        key.asset_key.to_user_string() for key in nodes.asset_check_keys if nodes.get(key).blocking
    }
    assert partitioned == BY_ALPHA
    assert blocking == BLOCKING


def test_definitions_load_without_network_secret_or_data(tmp_path: Path, repository: Path) -> None:
    script = "import dagster_project.definitions as d; d.defs()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(repository), "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "build").exists()


def test_domain_code_does_not_import_dagster(repository: Path) -> None:
    script = "import sys, research.loop, hft_platform.cli; sys.exit('dagster' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, check=False)
    assert done.returncode == 0


def test_the_wal_sensor_asks_once_for_the_same_segments(tmp_path: Path) -> None:
    workspace = Workspace(path=str(tmp_path))
    with dg.instance_for_test() as instance:
        first = sensors.wal_sensor(dg.build_sensor_context(instance=instance), workspace=workspace)
        assert first.run_requests == []
        segment = tmp_path / "sessions" / "one" / "market" / "00000001.seg"
        segment.parent.mkdir(parents=True)
        segment.write_bytes(b"sealed")
        second = sensors.wal_sensor(dg.build_sensor_context(instance=instance), workspace=workspace)
        assert len(second.run_requests) == 1
        third = sensors.wal_sensor(
            dg.build_sensor_context(instance=instance, cursor=second.cursor), workspace=workspace
        )
        assert third.run_requests == []


def test_a_failed_evaluation_is_repeated_and_a_good_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, outcome = Workspace(path=str(tmp_path)), {"fails": True}
    pending = [("one@0123456789ab", "head"), ("two@0123456789ab", "head")]
    monkeypatch.setattr(loop, "pending_canaries", lambda _: pending)

    @dg.op
    def evaluate() -> None:
        if outcome["fails"]:
            raise ValueError("no space")

    @dg.job
    def evaluation() -> None:
        evaluate()

    with dg.instance_for_test() as instance:

        def tick() -> list[str]:
            context = dg.build_sensor_context(instance=instance)
            done = sensors.canary_sensor(context, workspace=workspace)
            assert done.dynamic_partitions_requests[0].partition_keys == [key for key, _ in pending]
            return [request.run_key for request in done.run_requests]

        def run(run_key: str) -> None:
            evaluation.execute_in_process(
                instance=instance, tags={sensors.RUN_KEY_TAG: run_key}, raise_on_error=False
            )

        names = [f"{key}:{head}" for key, head in pending]
        assert tick() == names
        run(names[0])
        assert tick() == [f"{names[0]}:1", names[1]]
        assert tick() == [f"{names[0]}:1", names[1]]
        outcome["fails"] = False
        run(f"{names[0]}:1")
        assert tick() == [f"{names[0]}:1", names[1]], "a key that ran well is not run again"
        outcome["fails"] = True
        monkeypatch.setattr(sensors, "ATTEMPTS_MAX", 2)
        run(names[1])
        run(f"{names[1]}:1")
        assert tick() == [f"{names[0]}:1"], "not forever"


@pytest.mark.parametrize("damage", ["none", "segment", "store"])
def test_the_replay_contract_goes_red_for_a_refused_segment_and_for_a_lost_row(
    tmp_path: Path, damage: str
) -> None:
    appended = write_runs(tmp_path, runs=1, segments=2, records_each=40, seed=1)
    if damage == "segment":
        (segment,) = tmp_path.glob("sessions/*/market/00000002.seg")
        segment.chmod(0o644)
        segment.write_bytes(segment.read_bytes()[:-1])
    if damage == "store":
        loop.load_wal(tmp_path)
        with open_store(tmp_path) as store:
            store.command("DELETE FROM hft.market_books WHERE seq < 10")
    with dg.instance_for_test() as instance:
        result = dg.materialize(
            [*definitions.ASSETS],
            selection=["wal_loaded"],
            instance=instance,
            resources={"workspace": Workspace(path=str(tmp_path))},
            raise_on_error=False,
        )
    (evaluation,) = result.get_asset_check_evaluations()
    assert evaluation.passed is (damage == "none")
    (materialization,) = result.asset_materializations_for_node("wal_loaded")
    shown = materialization.metadata["segments"].value
    assert (
        shown.count("drill-1-1/") == {"none": appended.segments, "segment": 2, "store": 0}[damage]
    )


def test_an_unknown_alpha_is_refused_by_the_partition(
    tmp_path: Path, graph: dg.Definitions
) -> None:
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions(ALPHAS.name or "", ["known@0123456789ab"])
        with pytest.raises((dg.DagsterInvariantViolationError, dg.DagsterUnknownPartitionError)):
            dg.materialize(
                definitions.ASSETS,
                selection=["gate_a_verdict"],
                partition_key="unknown@0",
                instance=instance,
                resources={"workspace": Workspace(path=str(tmp_path))},
            )
