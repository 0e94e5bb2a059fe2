"""The same loop three ways, each in a fresh workspace, gives the same verdict files.

`make demo`'s own program, `dagster asset materialize` by hand, and runs launched through the
GraphQL endpoint of `dagster dev`, which is what the UI's button calls.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

MODULE = "dagster_project.definitions"
SETUP = ["recordings", "datasets", "alpha_registry"]
GATES = [
    "gate_a_verdict",
    "gate_b_verdict",
    "gate_c_verdict",
    "gate_d_verdict",
    "shadow_permit",
    "shadow_sessions",
    "gate_e_verdict",
    "promoted_config",
]
END = ["wal_loaded", "parity_report", "run_report"]
LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on InvalidSubsetError { message }
  }
}
"""
STATUS = "query Status($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
DONE = {"SUCCESS", "FAILURE", "CANCELED"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def environment(workspace: Path) -> dict[str, str]:
    return os.environ | {
        "HFT_WORKSPACE": str(workspace),
        "HFT_SOURCE": "generator",
        "DAGSTER_HOME": str(workspace / "dagster_home"),
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }


def verdicts(workspace: Path) -> dict[str, bytes]:
    """Verdict files by path below the workspace, with their bytes."""
    folder = workspace / "verdicts"
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.json"))
    }


def run(arguments: list[str], workspace: Path, repository: Path) -> int:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=repository,
        env=environment(workspace),
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ).returncode


def keys_of(workspace: Path) -> list[str]:
    return json.loads((workspace / "alphas.json").read_bytes())


def canary_is_open(workspace: Path, key: str, repository: Path) -> bool:
    script = (
        "import sys; from pathlib import Path; from research import loop;"
        "sys.exit(0 if loop.canary_is_open(Path(sys.argv[1]), sys.argv[2]) else 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(workspace), key], cwd=repository, check=False
    )
    return done.returncode == 0


def by_demo(workspace: Path, repository: Path) -> None:
    assert run(["dagster_project.demo", "--workspace", str(workspace)], workspace, repository) == 0


def prepare(workspace: Path, repository: Path) -> None:
    arguments = ["dagster_project.demo", "--prepare", "--workspace", str(workspace)]
    assert run(arguments, workspace, repository) == 0


def by_hand(workspace: Path, repository: Path) -> None:
    def materialize(names: list[str], key: str | None = None) -> int:
        words = ["dagster", "asset", "materialize", "-m", MODULE, "--select", ",".join(names)]
        return run([*words, *(["--partition", key] if key else [])], workspace, repository)

    prepare(workspace, repository)
    assert materialize(SETUP) == 0
    for key in keys_of(workspace):
        materialize(GATES, key)
        while canary_is_open(workspace, key, repository):
            assert materialize(["canary_sessions", "canary_state"], key) == 0
    assert materialize(END) == 0


@contextmanager
def web_server(workspace: Path, repository: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster", "dev", "-m", MODULE, "-h", "127.0.0.1", "-p", str(port)],
        cwd=repository,
        env=environment(workspace),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                with urllib.request.urlopen(f"{url}/server_info", timeout=5):
                    break
            except OSError:
                assert time.monotonic() < deadline, "the web server did not answer within 90 s"
                time.sleep(0.5)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def graphql(url: str, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{url}/graphql",
        data=json.dumps({"query": query, "variables": variables}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        answer = json.load(response)
    assert "errors" not in answer, answer["errors"]
    return answer["data"]


def by_ui(workspace: Path, repository: Path) -> None:
    prepare(workspace, repository)
    with web_server(workspace, repository) as url:

        def launch(names: list[str], key: str | None = None) -> str:
            tags = [{"key": "dagster/partition", "value": key}] if key else []
            params = {
                "mode": "default",
                "executionMetadata": {"tags": tags},
                "runConfigData": "{}",
                "selector": {
                    "repositoryLocationName": MODULE,
                    "repositoryName": "__repository__",
                    "pipelineName": "__ASSET_JOB",
                    "assetSelection": [{"path": [name]} for name in names],
                },
            }
            launched = graphql(url, LAUNCH, {"params": params})["launchPipelineExecution"]
            assert launched["__typename"] == "LaunchRunSuccess", launched
            run_id = launched["run"]["runId"]
            deadline = time.monotonic() + 600
            while True:
                status = graphql(url, STATUS, {"id": run_id})["runOrError"]["status"]
                if status in DONE:
                    return status
                assert time.monotonic() < deadline, f"run of {names} still {status} after 600 s"
                time.sleep(0.3)

        assert launch(SETUP) == "SUCCESS"
        for key in keys_of(workspace):
            launch(GATES, key)
            while canary_is_open(workspace, key, repository):
                assert launch(["canary_sessions", "canary_state"], key) == "SUCCESS"
        assert launch(END) == "SUCCESS"


@pytest.fixture(scope="module")
def demo_workspace(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    workspace = tmp_path_factory.mktemp("demo")
    by_demo(workspace, repository)
    return workspace


def test_the_demo_promotes_rejects_and_rolls_back(demo_workspace: Path) -> None:
    summary = json.loads((demo_workspace / "report" / "summary.json").read_bytes())
    by_id = {key.split("@")[0]: key for key in summary["verdicts"]}
    changes = {name: summary["stage_changes"][key] for name, key in by_id.items()}
    weights = [
        row["weight_ppm"] for row in changes["gen_imbalance_taker"] if row["stage"] == "canary"
    ]
    assert len(weights) > 1
    assert weights == sorted(weights)
    null = summary["verdicts"][by_id["gen_null_taker"]]["gate_c"]
    assert null["verdict"] == "failed"
    assert null["reasons"]
    assert changes["gen_dying_taker"][-1]["kind"] == "withdrawn"
    assert summary["parity"]["share"] == 1.0
    assert summary["parity"]["total"] > 0
    assert sum(summary["rows_by_table"].values()) > 0


def test_the_reports_signal_sees_the_planted_edge_and_nothing_in_the_null(
    demo_workspace: Path,
) -> None:
    summary = json.loads((demo_workspace / "report" / "summary.json").read_bytes())
    by_id = {key.split("@")[0]: row for key, row in summary["signal"].items()}
    mean, error = (
        {name: row[kind]["15s"] for name, row in by_id.items()}
        for kind in ("ic", "ic_standard_error")
    )
    assert mean["gen_imbalance_taker"] > 5 * error["gen_imbalance_taker"]
    assert abs(mean["gen_null_taker"]) < 4 * error["gen_null_taker"]


def test_by_hand_gives_the_demos_verdict_files_byte_for_byte(
    demo_workspace: Path, tmp_path: Path, repository: Path
) -> None:
    by_hand(tmp_path, repository)
    assert verdicts(tmp_path) == verdicts(demo_workspace)


def test_the_uis_endpoint_gives_the_demos_verdict_files_byte_for_byte(
    demo_workspace: Path, tmp_path: Path, repository: Path
) -> None:
    by_ui(tmp_path, repository)
    assert verdicts(tmp_path) == verdicts(demo_workspace)


def test_a_rerun_in_the_same_workspace_changes_no_verdict_and_counts_no_trial_twice(
    demo_workspace: Path, repository: Path
) -> None:
    before = verdicts(demo_workspace)
    trials = (demo_workspace / "ledger" / "trials.jsonl").read_bytes()
    by_demo(demo_workspace, repository)
    after = verdicts(demo_workspace)
    assert {name: after[name] for name in before} == before
    # What was rolled back does not trade: gate D looks at it beside those that do now.
    added = {(name.split("@")[0], name.split("/")[1][:6]) for name in after if name not in before}
    assert added == {("gen_dying_taker", "gate_d"), ("gen_dying_taker", "gate_e")}
    assert (demo_workspace / "ledger" / "trials.jsonl").read_bytes() == trials
