"""Tampering with what a promotion rests on: verdicts, thresholds, code, trials, recordings.

Each function changes something and returns what somebody honest does next.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

import hft_platform
import research
from hft_platform.config.canonical import canonical_json
from hft_platform.errors import PlatformError
from research.experiments import TrialLedger
from research.gates.verdict import GATES
from research.promotion.withdrawal import withdraw
from tests.research.tampering.tampered_desk import (
    ALPHA_ID,
    OTHER_ID,
    Desk,
)

# --- verdicts -----------------------------------------------------------------------


def edit_verdict(desk: Desk) -> Callable[[], Any]:
    path = desk.verdict_file("gate_c")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b'"slippage_ticks":0', b'"slippage_ticks":9'))
    return desk.sign


def edit_verdict_and_head(desk: Desk) -> Callable[[], Any]:
    desk.forge_verdict("gate_e", results={"checks": []})
    return desk.sign


def forge_every_verdict(desk: Desk) -> Callable[[], Any]:
    upstream: dict[str, str] = {}
    for gate in GATES:
        content = json.loads(desk.verdict_file(gate).read_bytes())
        inputs = content["inputs"] | {"upstream": dict(upstream)}
        results = content["results"] | {"forged": True}
        upstream[gate] = desk.forge_verdict(gate, inputs=inputs, results=results)
    return desk.sign


def swap_verdict(desk: Desk) -> Callable[[], Any]:
    for name in ("gate_b.head", desk.verdict_file("gate_b", OTHER_ID).name):
        source = desk.verdict_file("gate_b", OTHER_ID).parent / name
        shutil.copy(source, desk.verdict_file("gate_a").parent / name)
    return desk.sign


def forge_a_verdict_of_the_pool(desk: Desk) -> Callable[[], Any]:
    """The member's profits changed sign: a newcomer just like it looks like its opposite."""
    content = json.loads(desk.verdict_file("gate_c").read_bytes())
    results = content["results"]
    turned = {day: -net for day, net in results["daily_net"].items()}
    desk.forge_verdict("gate_c", results=results | {"daily_net": turned})
    assert desk.gate("gate_c", OTHER_ID).is_passed
    return lambda: desk.gate("gate_d", OTHER_ID)


def choose_the_shadow_sessions(desk: Desk) -> Callable[[], Any]:
    """A bad shadow session deleted before gate E looks: the verdict is not a pass."""
    shutil.rmtree(desk.summaries("shadow")[1].parent)
    verdict = desk.gate("gate_e")
    assert verdict.reasons[0]["name"] == "SUMMARY_TAMPERED"
    return desk.sign


def put_old_verdict_back(desk: Desk) -> Callable[[], Any]:
    head = desk.verdict_file("gate_e").parent / "gate_e.head"
    passed = head.read_bytes()
    shutil.rmtree(desk.summaries("shadow")[0].parent)
    assert not desk.gate("gate_e").is_passed
    head.write_bytes(passed)
    return desk.sign


# --- gates, thresholds, code --------------------------------------------------------


def select_assets(desk: Desk) -> Callable[[], Any]:
    import dagster as dg

    from dagster_project import definitions
    from dagster_project.partitions import ALPHAS
    from dagster_project.resources import Workspace

    for path in desk.verdict_file("gate_c").parent.glob("gate_[cde]*"):
        path.unlink()

    def materialize() -> None:
        with dg.instance_for_test() as instance:
            instance.add_dynamic_partitions(ALPHAS.name or "", [desk.alpha().key])
            dg.materialize(
                definitions.ASSETS,
                selection=["gate_d_verdict"],
                partition_key=desk.alpha().key,
                instance=instance,
                resources={"workspace": Workspace(path=str(desk.ws))},
            )

    return materialize


def delete_a_gate(desk: Desk) -> Callable[[], Any]:
    for path in desk.verdict_file("gate_d").parent.glob("gate_d*"):
        path.unlink()
    return desk.sign


def loosen_thresholds(desk: Desk) -> Callable[[], Any]:
    packaged = Path(str(hft_platform.__file__)).parent / "defaults" / "gates.yaml"
    content = yaml.safe_load(packaged.read_text())
    content["gate_e"]["sessions_min"] = 1
    (desk.config_dir / "gates.yaml").write_text(yaml.safe_dump(content))
    return lambda: desk.gate("gate_a")


def loosen_canary(desk: Desk) -> Callable[[], Any]:
    packaged = Path(str(hft_platform.__file__)).parent / "defaults" / "canary.yaml"
    content = yaml.safe_load(packaged.read_text())
    content["loss_budget_std"] = content["loss_budget_std"] * 10
    (desk.config_dir / "canary.yaml").write_text(yaml.safe_dump(content))
    return desk.canary


def change_code(desk: Desk, module: str, old: str, new: str) -> Callable[[list[str]], None]:
    """A copy of the code with one line changed, run as a process of its own."""
    tree = desk.root / "tree"
    core = "_core.abi3.so"
    ignore = shutil.ignore_patterns("__pycache__", core)
    for package in (hft_platform, research):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, tree / source.name, ignore=ignore)
    found = next(Path(str(hft_platform.__file__)).parent.glob("_core*.so"))
    (tree / "hft_platform" / found.name).symlink_to(found)
    path = tree / module
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))

    def run(arguments: list[str]) -> None:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=desk.root,
            env=os.environ | {"PYTHONPATH": str(tree)},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 3, done.stderr.decode()
        answer = json.loads(done.stdout.strip().splitlines()[-1])
        raise PlatformError(answer["code"], answer["message"])

    return run


def change_a_gate(desk: Desk) -> Callable[[], Any]:
    run = change_code(desk, "research/gates/gate_e.py", '"""', '"""Changed. ')
    arguments = ["--workspace", str(desk.ws), "--alphas", str(desk.alphas), "--json"]
    return lambda: run(
        ["research.cli", "promote", ALPHA_ID, "--stage", "canary", *arguments]
    )  # fmt: skip


def change_the_runtime(desk: Desk) -> Callable[[], Any]:
    run = change_code(
        desk, "hft_platform/services/session_runner.py", "Check everything", "Check hardly anything"
    )
    session = json.loads(next((desk.ws / "datasets").glob("*/dataset.json")).read_bytes())
    name = session["sessions"][-1]["session_id"]
    return lambda: run(
        ["hft_platform.cli", "run", "--mode", "sim", "--workspace", str(desk.ws), "--json",
         "--alpha", ALPHA_ID, "--session", name]
    )  # fmt: skip


def edit_the_alpha(desk: Desk) -> Callable[[], Any]:
    path = desk.alphas / ALPHA_ID / "manifest.yaml"
    path.write_text(path.read_text().replace("ttl_ms: ", "ttl_ms: 1"))
    return desk.sign


# --- trials -------------------------------------------------------------------------


def _trials(desk: Desk) -> Path:
    return desk.ws / "ledger" / "trials.jsonl"


def delete_a_trial(desk: Desk) -> Callable[[], Any]:
    lines = _trials(desk).read_bytes().splitlines(keepends=True)
    _trials(desk).write_bytes(b"".join(lines[:2] + lines[3:]))
    return lambda: desk.gate("gate_d")


def start_over_without_history(desk: Desk) -> Callable[[], Any]:
    """Every verdict and the whole ledger removed: the chain still knows the count."""
    _trials(desk).unlink()
    shutil.rmtree(desk.ws / "verdicts")
    return lambda: desk.gate("gate_a")


def delete_the_outcomes(desk: Desk) -> Callable[[], Any]:
    """What came of the trials removed, so that luck seems to spread less."""
    (desk.ws / "ledger" / "outcomes.jsonl").unlink()
    return lambda: desk.gate("gate_a", OTHER_ID)


def rename_to_reset(desk: Desk) -> Callable[[], Any]:
    before = TrialLedger(desk.ws).head().count
    new = desk.alphas / "gen_fresh_taker"
    shutil.copytree(desk.alphas / ALPHA_ID, new)
    path = new / "manifest.yaml"
    path.write_text(path.read_text().replace(ALPHA_ID, new.name))
    assert desk.gate("gate_a", new.name).is_passed
    assert TrialLedger(desk.ws).head().count == before  # the same trials, whatever their name
    return lambda: desk.sign("canary", new.name)


# --- data ---------------------------------------------------------------------------


def _dataset(desk: Desk) -> Path:
    return next((desk.ws / "datasets").glob("*/dataset.json"))


def swap_dataset_under_hash(desk: Desk) -> Callable[[], Any]:
    path = _dataset(desk)
    content = json.loads(path.read_bytes())
    rows = content["sessions"]
    rows[3] |= {name: rows[9][name] for name in ("path", "tape_sha256", "record_count")}
    path.chmod(0o644)
    path.write_bytes(canonical_json(content))
    return lambda: desk.gate("gate_a")


def _swap_tape(desk: Desk, index: int, other: int) -> None:
    folders = [row["path"] for row in json.loads(_dataset(desk).read_bytes())["sessions"]]
    target = _dataset(desk).parent / folders[index] / "book.parquet"
    target.chmod(0o644)
    target.write_bytes((_dataset(desk).parent / folders[other] / "book.parquet").read_bytes())


def edit_a_judged_tape(desk: Desk) -> Callable[[], Any]:
    withdraw(desk.ws, ALPHA_ID, by="an operator", why="to promote it anew")
    _swap_tape(desk, 4, 5)
    return desk.sign


def edit_the_next_tape(desk: Desk) -> Callable[[], Any]:
    count = len(json.loads(_dataset(desk).read_bytes())["sessions"])
    for index in range(count - 30, count - 1):
        _swap_tape(desk, index, count - 1)
    return desk.trade_next
