"""Tampering: what somebody with write access might try, and what refuses it, case by case.

The table in docs/tampering.md is made of these cases; `HFT_WRITE_TAMPERING=1` writes it again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import hft_platform
import research
from hft_platform.config.canonical import canonical_json
from hft_platform.config.keys import key_folder, signing_key
from hft_platform.config.promoted import render_config, signed_message
from hft_platform.config.promotion_folder import head_config, head_path, issued_path
from hft_platform.config.wall_clock import checked_time_ns
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.services.session_summary import sign_summary, write_summary
from research import cli
from research.experiments import TrialLedger
from research.gates.verdict import GATES
from research.promotion import audit
from research.promotion.withdrawal import reduce_weight, withdraw
from tests.research.tampering.tampered_desk import (
    ALPHA_ID,
    CANARY_SESSIONS,
    OTHER_ID,
    SHADOW_SESSIONS,
    Desk,
    build,
)

Tamper = Callable[[Desk], Callable[[], Any]]
PAGE = Path("docs") / "tampering.md"
NEXT = SHADOW_SESSIONS + CANARY_SESSIONS


@dataclass(frozen=True, slots=True)
class Case:
    """What is done, what is asked for next, and the code that refuses it."""

    done: str
    asked: str
    code: ReasonCode
    tamper: Tamper


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return build(tmp_path_factory.mktemp("promoted") / "desk")


@pytest.fixture
def desk(promoted: Desk, tmp_path: Path) -> Desk:
    return promoted.copy(tmp_path / "desk")


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


# --- audit --------------------------------------------------------------------------


def _chain(desk: Desk, change: Callable[[list[bytes]], list[bytes]]) -> Callable[[], Any]:
    path = audit.chain_path(desk.ws)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))
    return desk.sign


def delete_audit_row(desk: Desk) -> Callable[[], Any]:
    return _chain(desk, lambda lines: lines[:4] + lines[5:])


def edit_audit_row(desk: Desk) -> Callable[[], Any]:
    return _chain(
        desk, lambda lines: [line.replace(b'"an author"', b'"a nobody"') for line in lines]
    )


def truncate_audit(desk: Desk) -> Callable[[], Any]:
    return _chain(desk, lambda lines: lines[:-2])


def reorder_audit(desk: Desk) -> Callable[[], Any]:
    return _chain(desk, lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]])


def delete_audit(desk: Desk) -> Callable[[], Any]:
    audit.chain_path(desk.ws).unlink()
    audit.head_path(desk.ws).unlink()
    return desk.sign


def put_old_audit_back(desk: Desk) -> Callable[[], Any]:
    old = audit.chain_path(desk.ws).read_bytes(), audit.head_path(desk.ws).read_bytes()
    withdraw(desk.ws, ALPHA_ID, by="an operator", why="a doubt")
    desk.sign()
    audit.chain_path(desk.ws).write_bytes(old[0])
    audit.head_path(desk.ws).write_bytes(old[1])
    return desk.sign


# --- permits ------------------------------------------------------------------------


def edit_config(desk: Desk) -> Callable[[], Any]:
    path = head_config(desk.ws, ALPHA_ID)
    text = path.read_text()
    weight = desk.content(path).weight_ppm
    path.write_text(text.replace(f"weight_ppm: {weight}", "weight_ppm: 1000000"))
    return desk.trade_next


def reuse_old_config(desk: Desk) -> Callable[[], Any]:
    return lambda: desk.trade(NEXT, path=desk.issues()[0])


def reuse_old_config_and_remove_newer(desk: Desk) -> Callable[[], Any]:
    old, new = desk.issues()
    content = desk.content(new)
    head_path(desk.promotions, ALPHA_ID, content.issued_trading_day).unlink()
    new.unlink()
    (desk.ws / "state" / "promotion_seq.json").unlink()
    return lambda: desk.trade(NEXT, path=old)


def roll_sequence_back(desk: Desk) -> Callable[[], Any]:
    path = desk.ws / "state" / "promotion_seq.json"
    content = json.loads(path.read_bytes())
    content["seqs"][ALPHA_ID] = 1
    path.write_bytes(canonical_json(content))
    return desk.trade_next


def _sign_by_hand(desk: Desk, ws: Path, **changes: Any) -> Path:
    """A config signed with the promotion key of `ws`, put in as the newest issue."""
    content = yaml.safe_load(head_config(desk.ws, ALPHA_ID).read_bytes())
    del content["signature"]
    content |= changes
    key = signing_key(ws, "promotion")
    raw = render_config(content, key_id=key.key_id, signature=key.sign(signed_message(content)))
    seq = content["promotion_seq"]
    issued_path(desk.promotions, ALPHA_ID, seq, "f" * 64).write_bytes(raw)
    head = head_path(desk.promotions, ALPHA_ID, content["issued_trading_day"])
    head.write_bytes(raw)
    return head


def sign_with_unpinned_key(desk: Desk) -> Callable[[], Any]:
    _sign_by_hand(desk, desk.root / "elsewhere", promotion_seq=9, weight_ppm=1_000_000)
    return desk.trade_next


def sign_live_with_automatic_key(desk: Desk) -> Callable[[], Any]:
    _sign_by_hand(desk, desk.ws, promotion_seq=9, stage="live")
    return desk.trade_next


def issue_without_record(desk: Desk) -> Callable[[], Any]:
    """The promotion key was stolen: its config is not in the chain, so nothing is signed on it."""
    _sign_by_hand(desk, desk.ws, promotion_seq=9, weight_ppm=1_000_000)
    return desk.sign


def copy_to_another_workspace(desk: Desk) -> Callable[[], Any]:
    other = Desk(desk.root / "other")
    shutil.copytree(desk.alphas, other.alphas)
    other.config_dir.mkdir()
    shutil.copytree(desk.ws / "datasets", other.ws / "datasets")
    shutil.copytree(desk.promotions, other.promotions)
    signing_key(other.ws, "promotion")
    return other.trade_next


def put_in_place_of_another_alpha(desk: Desk) -> Callable[[], Any]:
    head = head_config(desk.ws, ALPHA_ID)
    head_config(desk.ws, OTHER_ID).write_bytes(head.read_bytes())
    return lambda: desk.trade(NEXT, path=head_config(desk.ws, OTHER_ID))


def ask_for_more_weight(desk: Desk) -> Callable[[], Any]:
    return lambda: desk.sign(weight_ppm_max=1_000_000)


def remove_withdrawal(desk: Desk) -> Callable[[], Any]:
    withdraw(desk.ws, ALPHA_ID, by="an operator", why="a doubt").path.unlink()
    return desk.trade_next


def deny_a_rollback(desk: Desk) -> Callable[[], Any]:
    """The rolled-back canary's file says that nothing was wrong with the evidence."""
    done = withdraw(desk.ws, ALPHA_ID, by="the canary", why="the edge is gone", is_rolled_back=True)
    content = json.loads(done.path.read_bytes())
    done.path.chmod(0o644)
    done.path.write_bytes(canonical_json(content | {"is_rolled_back": False}))
    return desk.sign


def raise_a_lowered_weight(desk: Desk) -> Callable[[], Any]:
    """Not refused but without effect: the weight in force stays where a person put it."""
    head = desk.content(head_config(desk.ws, ALPHA_ID))
    lowered = reduce_weight(desk.ws, ALPHA_ID, weight_ppm=head.weight_ppm // 2, by="p", why="w")
    lowered.path.unlink()
    folder = desk.trade_next()
    evidence = json.loads((folder / "summary.json").read_bytes())["evidence"]
    assert evidence["weight_ppm"] == head.weight_ppm // 2
    return lambda: reduce_weight(
        desk.ws, ALPHA_ID, weight_ppm=head.weight_ppm, by="p", why="back up"
    )


def set_clock_back(desk: Desk) -> Callable[[], Any]:
    expires_ns = desk.content(head_config(desk.ws, ALPHA_ID)).expires_ns
    checked_time_ns(desk.ws, expires_ns + 1)  # the runtime saw a time behind the expiry
    return lambda: checked_time_ns(desk.ws, expires_ns - 60_000_000_000)


def edit_expiry(desk: Desk) -> Callable[[], Any]:
    path = head_config(desk.ws, ALPHA_ID)
    expires_ns = desk.content(path).expires_ns
    path.write_text(path.read_text().replace(str(expires_ns), str(expires_ns * 2)))
    return desk.trade_next


def trade_what_was_judged(desk: Desk) -> Callable[[], Any]:
    return lambda: desk.trade(0)


# --- sessions -----------------------------------------------------------------------


def edit_summary(desk: Desk) -> Callable[[], Any]:
    path = desk.summaries("canary")[0]
    content = json.loads(path.read_bytes())
    account = content["evidence"]["account"]
    account["gross"] += 10**12
    account["net"] += 10**12
    path.write_bytes(canonical_json(content) + b"\n")
    return desk.sign


def _typed_in(desk: Desk, ws: Path) -> None:
    path = desk.summaries("canary")[-1]
    evidence = json.loads(path.read_bytes())["evidence"]
    run_id = evidence["run_id"].replace(evidence["session_id"][:10], "2099-12-31")
    evidence |= {"run_id": run_id, "session_id": "2099-12-31/day", "tape_sha256": "0" * 64}
    target = path.parent.parent / run_id / "summary.json"
    write_summary(target, sign_summary(evidence, {}, signing_key(ws, "session")))


def type_in_summary(desk: Desk) -> Callable[[], Any]:
    _typed_in(desk, desk.root / "elsewhere")
    return desk.sign


def replay_summary_of_another(desk: Desk) -> Callable[[], Any]:
    other = next((desk.ws / "sessions").glob(f"*-{OTHER_ID}-shadow/summary.json"))
    shutil.copy(other, desk.summaries("canary")[0])
    return desk.sign


def count_a_session_twice(desk: Desk) -> Callable[[], Any]:
    folder = desk.summaries("canary")[0].parent
    stem, _, rest = folder.name.partition("-")
    shutil.copytree(folder, folder.parent / f"{stem}b-{rest}")
    return desk.sign


def delete_session(desk: Desk) -> Callable[[], Any]:
    shutil.rmtree(desk.summaries("canary")[-1].parent)
    return desk.sign


def cut_register(desk: Desk) -> Callable[[], Any]:
    """The session and its line in the register, which is not the last one."""
    folder = desk.summaries("canary")[-1].parent
    shutil.rmtree(folder)
    path = desk.ws / "state" / "sessions.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if folder.name.encode() not in line))
    return desk.sign


def delete_summary(desk: Desk) -> Callable[[], Any]:
    desk.summaries("canary")[0].unlink()
    return desk.sign


# --- keys ---------------------------------------------------------------------------


def open_a_key(desk: Desk) -> Callable[[], Any]:
    (key_folder(desk.ws) / "promotion.key").chmod(0o644)
    return desk.sign


R = ReasonCode
CASES = {
    "verdict edited": Case(
        "gate C's verdict file edited", "a canary permit", R.VERDICT_TAMPERED, edit_verdict
    ),
    "verdict and head edited": Case(
        "gate E's verdict written by hand, with fitting name, hash and head",
        "a canary permit", R.VERDICT_NOT_RECORDED, edit_verdict_and_head,
    ),
    "every verdict forged": Case(
        "all five verdicts written by hand, each built on the one before",
        "a canary permit", R.VERDICT_NOT_RECORDED, forge_every_verdict,
    ),
    "verdict of another alpha": Case(
        "gate B's verdict of another alpha copied in", "a canary permit", R.VERDICT_TAMPERED,
        swap_verdict,
    ),
    "old verdict put back": Case(
        "gate E's earlier pass put back after a later run did not pass", "a canary permit",
        R.VERDICT_NOT_RECORDED, put_old_verdict_back,
    ),
    "gate deleted": Case(
        "gate D's verdict removed", "a canary permit", R.UPSTREAM_VERDICT_MISSING, delete_a_gate
    ),
    "gate skipped": Case(
        "only gate D's asset selected in Dagster, gate C never run", "the asset's run",
        R.UPSTREAM_VERDICT_MISSING, select_assets,
    ),
    "thresholds loosened": Case(
        "gates.yaml asks for fewer sessions", "gate A", R.THRESHOLDS_NOT_RECORDED,
        loosen_thresholds,
    ),
    "canary thresholds loosened": Case(
        "canary.yaml allows ten times the loss", "the canary's next decision (it is withdrawn)",
        R.THRESHOLDS_NOT_RECORDED, loosen_canary,
    ),
    "code of a gate changed": Case(
        "a line of a gate changed after the verdicts", "a canary permit", R.VERDICT_STALE,
        change_a_gate,
    ),
    "code of the runtime changed": Case(
        "a line of the runtime changed after the permit", "a session",
        R.CONFIG_EVIDENCE_MISMATCH, change_the_runtime,
    ),
    "alpha edited": Case(
        "the alpha's manifest edited after its gates", "a canary permit",
        R.UPSTREAM_VERDICT_MISSING, edit_the_alpha,
    ),
    "trial deleted": Case(
        "one row removed from the trial ledger", "gate D", R.LEDGER_BEHIND_AUDIT, delete_a_trial
    ),
    "history deleted": Case(
        "the trial ledger and every verdict removed", "gate A", R.LEDGER_BEHIND_AUDIT,
        start_over_without_history,
    ),
    "alpha renamed": Case(
        "the alpha copied under a new name to start at zero trials (the count stays)",
        "a canary permit for the copy", R.UPSTREAM_VERDICT_MISSING, rename_to_reset,
    ),
    "dataset swapped": Case(
        "a session of the dataset replaced by another under the same dataset hash", "gate A",
        R.FILE_DAMAGED, swap_dataset_under_hash,
    ),
    "judged tape edited": Case(
        "the recording of a judged session replaced", "a canary permit", R.FILE_DAMAGED,
        edit_a_judged_tape,
    ),
    "next tape edited": Case(
        "the recording about to be traded replaced", "a session", R.FILE_DAMAGED,
        edit_the_next_tape,
    ),
    "audit row deleted": Case(
        "a row of the audit chain deleted", "a canary permit", R.AUDIT_BROKEN, delete_audit_row
    ),
    "audit row edited": Case(
        "who asked edited in the audit chain", "a canary permit", R.AUDIT_BROKEN, edit_audit_row
    ),
    "audit chain truncated": Case(
        "the last rows of the audit chain cut off", "a canary permit", R.AUDIT_BROKEN,
        truncate_audit,
    ),
    "audit chain reordered": Case(
        "two rows of the audit chain swapped", "a canary permit", R.AUDIT_BROKEN, reorder_audit
    ),
    "audit chain deleted": Case(
        "the audit chain and its head deleted", "a canary permit", R.AUDIT_BROKEN, delete_audit
    ),
    "old audit chain put back": Case(
        "an earlier copy of the audit chain and its head put back after another promotion",
        "a canary permit", R.AUDIT_BROKEN, put_old_audit_back,
    ),
    "config edited": Case(
        "the weight in the signed config raised", "a session", R.CONFIG_SIGNATURE_INVALID,
        edit_config,
    ),
    "expiry edited": Case(
        "the expiry in the signed config moved", "a session", R.CONFIG_SIGNATURE_INVALID,
        edit_expiry,
    ),
    "old config reused": Case(
        "an earlier signed config named on the command line", "a session", R.CONFIG_REPLAYED,
        reuse_old_config,
    ),
    "newer config removed": Case(
        "the newer issue, its head and the runtime's memory removed, the earlier config named",
        "a session", R.CONFIG_REPLAYED, reuse_old_config_and_remove_newer,
    ),
    "sequence rolled back": Case(
        "the highest sequence in the runtime's memory lowered", "a session", R.CONFIG_REPLAYED,
        roll_sequence_back,
    ),
    "unpinned key": Case(
        "a config at full weight signed with another workspace's key", "a session",
        R.CONFIG_KEY_UNKNOWN, sign_with_unpinned_key,
    ),
    "live by automatic key": Case(
        "a config with stage live signed with the automatic key", "a session",
        R.KEY_ROLE_FORBIDDEN, sign_live_with_automatic_key,
    ),
    "issue without record": Case(
        "a config signed with the right key, behind the signer's back", "the next permit",
        R.AUDIT_BROKEN, issue_without_record,
    ),
    "permit copied to another workspace": Case(
        "every permit copied to another machine's workspace", "a session there",
        R.CONFIG_KEY_UNKNOWN, copy_to_another_workspace,
    ),
    "permit in another alpha's place": Case(
        "a permit put where another alpha's is looked for", "a session of that alpha",
        R.CONFIG_EVIDENCE_MISMATCH, put_in_place_of_another_alpha,
    ),
    "more weight asked for": Case(
        "nothing but a larger number in the request", "a canary permit at full weight",
        R.PROMOTION_NOT_PERMITTED, ask_for_more_weight,
    ),
    "withdrawal removed": Case(
        "the file of a withdrawal deleted", "a session", R.CONFIG_WITHDRAWN, remove_withdrawal
    ),
    "rollback denied": Case(
        "the file of a canary's roll-back edited to say that its evidence still holds",
        "a canary permit on the same evidence", R.CONFIG_WITHDRAWN, deny_a_rollback,
    ),
    "reduction removed": Case(
        "the file that lowered a weight deleted (the weight stays lowered)",
        "the weight as it was", R.PROMOTION_NOT_PERMITTED, raise_a_lowered_weight,
    ),
    "clock set back": Case(
        "the machine's clock set back behind the expiry that it had seen", "a live start",
        R.CLOCK_WENT_BACK, set_clock_back,
    ),
    "judged session traded": Case(
        "the permit used on a session it rests on", "that session", R.CONFIG_NOT_YET_VALID,
        trade_what_was_judged,
    ),
    "summary edited": Case(
        "a profit added to a session summary", "the next canary permit",
        R.CANARY_METRIC_MISSING, edit_summary,
    ),
    "summary typed in": Case(
        "a session that never ran, written by hand", "the next canary permit",
        R.CANARY_METRIC_MISSING, type_in_summary,
    ),
    "summary of another alpha": Case(
        "another alpha's signed summary in place of a canary session's",
        "the next canary permit", R.CANARY_METRIC_MISSING, replay_summary_of_another,
    ),
    "session counted twice": Case(
        "a good session's folder copied under another name", "the next canary permit",
        R.CANARY_METRIC_MISSING, count_a_session_twice,
    ),
    "summary deleted": Case(
        "the summary of a losing session deleted", "the next canary permit",
        R.CANARY_METRIC_MISSING, delete_summary,
    ),
    "session deleted": Case(
        "the whole folder of a losing session deleted", "the next canary permit",
        R.CANARY_METRIC_MISSING, delete_session,
    ),
    "session and its line deleted": Case(
        "the folder of a losing session and its line in the register deleted",
        "the next canary permit", R.CANARY_METRIC_MISSING, cut_register,
    ),
    "key opened": Case(
        "the promotion key made readable to others", "a canary permit", R.KEY_PERMISSIONS,
        open_a_key,
    ),
}  # fmt: skip


def refusal(desk: Desk, case: Case) -> PlatformError:
    """Tamper, ask, and return the refusal."""
    ask = case.tamper(desk)
    with pytest.raises(PlatformError) as caught:
        ask()
    return caught.value


def shown(desk: Desk, text: str) -> str:
    """A message without what differs between two runs: hashes, key ids, times and places."""
    text = text.replace(str(desk.root / "other" / "ws"), "ws").replace(str(desk.ws), "ws")
    text = text.replace(str(desk.root), ".")
    return re.sub(r"(?<=owner )\d+|\b[0-9a-f]{12,64}\b", "#", text)


@pytest.mark.parametrize("name", CASES)
def test_tampering_is_refused(name: str, desk: Desk, rows: dict[str, tuple[Case, str]]) -> None:
    case = CASES[name]
    error = refusal(desk, case)
    assert error.code == case.code, error.message
    rows[name] = (case, shown(desk, error.message))


@pytest.fixture(scope="module")
def rows() -> dict[str, tuple[Case, str]]:
    """Messages as the cases met them, for the page."""
    return {}


def test_an_untouched_workspace_trades_and_keeps_its_permit(desk: Desk) -> None:
    before = desk.sign()
    assert not before.is_new
    folder = desk.trade_next()
    evidence = json.loads((folder / "summary.json").read_bytes())["evidence"]
    assert evidence["counts"]["orders"] > 0
    assert evidence["weight_ppm"] == before.weight_ppm
    assert audit.verify_chain(desk.ws)
    assert desk.canary().action in ("hold", "step_up")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("every verdict forged", "VERDICT_NOT_RECORDED"),
        ("trial deleted", "LEDGER_BEHIND_AUDIT"),
        ("issue without record", "AUDIT_BROKEN"),
        ("sequence rolled back", "CONFIG_REPLAYED"),
        ("session and its line deleted", "SUMMARY_TAMPERED"),
    ],
)
def test_audit_verify_finds_it_before_anybody_asks(
    name: str, code: str, desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["audit", "verify", "--workspace", str(desk.ws), "--json"]
    assert cli.main(command) == cli.DONE
    assert json.loads(capsys.readouterr().out)["problems"] == []
    CASES[name].tamper(desk)
    assert cli.main(command) == cli.REFUSED
    found = json.loads(capsys.readouterr().out)["problems"]
    assert any(problem.startswith(code) for problem in found), found


def test_the_canary_whose_thresholds_changed_is_withdrawn(desk: Desk) -> None:
    refusal(desk, CASES["canary thresholds loosened"])
    with pytest.raises(PlatformError) as caught:
        desk.trade_next()
    assert caught.value.code == R.CONFIG_WITHDRAWN


def test_the_page_shows_every_case(
    repository: Path, rows: dict[str, tuple[Case, str]], request: pytest.FixtureRequest
) -> None:
    if set(rows) != set(CASES):
        pytest.skip("only some of the cases ran")
    table = ["| what was done | what was asked for | refused with | message |", "|---|---|---|---|"]
    for case, message in rows.values():
        text = message.replace("|", "\\|")
        table.append(f"| {case.done} | {case.asked} | {code_name(case.code)} | {text} |")
    page = repository / PAGE
    head, _, rest = page.read_text().partition("<!-- cases -->\n")
    _, _, tail = rest.partition("<!-- end of cases -->\n")
    wanted = "\n".join(
        [head + "<!-- cases -->", f"{len(CASES)} cases:", "", *table, "<!-- end of cases -->", tail]
    )
    if os.environ.get("HFT_WRITE_TAMPERING"):
        page.write_text(wanted)
    assert page.read_text() == wanted, "HFT_WRITE_TAMPERING=1 pytest tests/research/tampering"
