"""What stands in the audit chain: verdicts, thresholds and trials, and the commands for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import hft_platform
from hft_platform.config.keys import signing_key
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services.session_register import BegunSession, begin_session
from research import cli
from research.commands import common
from research.experiments import Outcome, OutcomeLog, Trial, TrialLedger
from research.gates.thresholds import load_thresholds
from research.gates.verdict import GATES, require_chain, verdict_folder, write_verdict
from research.promotion import audit, on_record
from research.promotion.issue import Promotion
from research.promotion.promote import run_canary
from research.promotion.withdrawal import withdraw

DEFAULTS = Path(str(hft_platform.__file__)).parent / "defaults"


def refused(call: Any, *arguments: Any, **named: Any) -> int:
    with pytest.raises(PlatformError) as caught:
        call(*arguments, **named)
    return caught.value.code


def place(bench: Any) -> list[str]:
    return ["--workspace", str(bench.ws), "--alphas", str(bench.alphas),
            "--config-dir", str(bench.config_dir)]  # fmt: skip


def entries(bench: Any, kind: str) -> list[dict[str, Any]]:
    return [
        dict(entry.record) for entry in audit.verify_chain(bench.ws) if entry.record["kind"] == kind
    ]


def loosen(bench: Any, file: str, **changes: Any) -> None:
    content = yaml.safe_load((DEFAULTS / file).read_text())
    for name, value in changes.items():
        if isinstance(value, dict):
            content[name] |= value
        else:
            content[name] = value
    (bench.config_dir / file).write_text(yaml.safe_dump(content))


def test_every_verdict_is_on_record_with_who_why_and_the_ledgers_head(bench: Any) -> None:
    TrialLedger(bench.ws).declare(
        [Trial("p", {"x": 1.0}, "d", "c", "w")], alpha_id=bench.alpha.alpha_id
    )
    made = bench.write_gates(GATES[:2])
    first, second = entries(bench, "verdict")
    assert first["subject"] == bench.alpha.key
    assert first["who"]
    assert "gate_a says passed" in first["why"]
    assert second["facts"]["verdict_sha256"] == made["gate_b"].sha256
    assert second["facts"]["ledger"] == (
        TrialLedger(bench.ws).head().as_dict() | OutcomeLog(bench.ws).head()
    )
    bench.write_gates(GATES[:2])
    assert len(entries(bench, "verdict")) == 2  # an equal verdict is no news


def test_a_verdict_that_was_replaced_and_comes_back_is_recorded_again(bench: Any) -> None:
    made = bench.write_gates(GATES[:1])["gate_a"]
    bench.fail("gate_a")
    write_verdict(bench.ws, bench.alpha, made)
    assert [row["facts"]["verdict"] for row in entries(bench, "verdict")] == [
        "passed", "failed", "passed",
    ]  # fmt: skip
    hashes = load_thresholds(bench.config_dir).hashes()
    assert require_chain(bench.ws, bench.alpha, "gate_a", thresholds=hashes)


def test_verdicts_without_their_chain_open_nothing(bench: Any) -> None:
    bench.write_gates(GATES[:2])
    shutil.rmtree(bench.ws / "audit")
    assert refused(bench.sign, "shadow") == ReasonCode.VERDICT_NOT_RECORDED


def test_a_changed_threshold_is_refused_until_somebody_says_why(
    bench: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.write_gates()
    assert bench.sign("shadow").is_new
    assert [row["why"] for row in entries(bench, "thresholds")] == [on_record.FIRST_USE] * 2
    loosen(bench, "canary.yaml", loss_budget_std=50.0)
    assert refused(bench.sign, "canary") == ReasonCode.THRESHOLDS_NOT_RECORDED
    command = ["audit", "thresholds", *place(bench)]
    assert cli.main(command) == common.USAGE  # without a reason there is no record
    assert cli.main([*command, "--why", "a wider budget", "--by", "risk"]) == common.DONE
    assert "canary.yaml: recorded" in capsys.readouterr().out
    newest = entries(bench, "thresholds")[-1]
    assert (newest["who"], newest["why"]) == ("risk", "a wider budget")
    assert newest["facts"]["sha256_before"] == entries(bench, "thresholds")[-2]["facts"]["sha256"]
    assert bench.sign("canary").is_new
    assert cli.main([*command, "--why", "again", "--json"]) == common.DONE
    assert json.loads(capsys.readouterr().out) == {"canary.yaml": False, "gates.yaml": False}


def test_gates_refuse_changed_thresholds_before_they_judge(bench: Any) -> None:
    bench.write_gates()
    bench.sign("shadow")
    loosen(bench, "gates.yaml", gate_e={"sessions_min": 1})
    hashes = load_thresholds(bench.config_dir).hashes()
    code = refused(on_record.require_gate_standing, bench.ws, hashes)
    assert code == ReasonCode.THRESHOLDS_NOT_RECORDED
    assert on_record.record_all_thresholds(
        bench.ws, by="risk", why="fewer", config_dir=bench.config_dir
    ) == {"gates.yaml": True, "canary.yaml": False}
    on_record.require_gate_standing(bench.ws, hashes)
    assert refused(bench.sign, "canary") == ReasonCode.VERDICT_STALE  # and the gates run again


def test_putting_the_file_back_needs_no_record(bench: Any) -> None:
    bench.write_gates()
    bench.sign("shadow")
    loosen(bench, "canary.yaml", loss_budget_std=50.0)
    assert refused(bench.sign, "canary") == ReasonCode.THRESHOLDS_NOT_RECORDED
    (bench.config_dir / "canary.yaml").unlink()
    assert bench.sign("canary").is_new


def test_a_canary_judged_by_unrecorded_thresholds_is_withdrawn(bench: Any) -> None:
    bench.write_gates()
    done = bench.sign("canary")
    loosen(bench, "canary.yaml", loss_budget_std=50.0)
    code = refused(run_canary, bench.ws, bench.alpha, by="sensor", config_dir=bench.config_dir)
    assert code == ReasonCode.THRESHOLDS_NOT_RECORDED
    assert entries(bench, "withdrawn")[-1]["facts"]["promotion_seq"] == done.promotion_seq


def test_a_ledger_that_lost_a_trial_is_found_without_any_verdict_file(bench: Any) -> None:
    trials = [Trial("p", {"x": float(i)}, "d", "c", "w") for i in range(3)]
    TrialLedger(bench.ws).declare(trials, alpha_id="x")
    bench.write_gates(GATES[:1])
    shutil.rmtree(bench.ws / "verdicts")
    (bench.ws / "ledger" / "trials.jsonl").unlink()
    TrialLedger(bench.ws).declare(trials[:2], alpha_id="renamed")
    hashes = load_thresholds(bench.config_dir).hashes()
    code = refused(on_record.require_gate_standing, bench.ws, hashes)
    assert code == ReasonCode.LEDGER_BEHIND_AUDIT
    TrialLedger(bench.ws).declare(trials, alpha_id="renamed")
    on_record.require_gate_standing(bench.ws, hashes)


def test_outcomes_that_are_gone_lower_nobodys_hurdle(bench: Any) -> None:
    trials = [Trial("p", {"x": float(i)}, "d", "c", "w") for i in range(3)]
    TrialLedger(bench.ws).declare(trials, alpha_id="x")
    log = OutcomeLog(bench.ws)
    log.record([Outcome(t.key, {20260105: 1}) for t in trials], alpha_id="x", declared=3)
    bench.write_gates(GATES[:1])
    shutil.rmtree(bench.ws / "verdicts")
    kept = (bench.ws / "ledger" / "outcomes.jsonl").read_bytes()
    hashes = load_thresholds(bench.config_dir).hashes()
    for damaged in (b"", kept[: kept.index(b"\n") + 1]):
        (bench.ws / "ledger" / "outcomes.jsonl").write_bytes(damaged)
        code = refused(on_record.require_gate_standing, bench.ws, hashes)
        assert code == ReasonCode.LEDGER_BEHIND_AUDIT
    (bench.ws / "ledger" / "outcomes.jsonl").write_bytes(kept)
    on_record.require_gate_standing(bench.ws, hashes)


def test_an_override_is_recorded_and_opens_nothing(
    bench: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(bench.sign, "shadow") == ReasonCode.UPSTREAM_VERDICT_MISSING
    command = ["audit", "override", *place(bench), "--why", "restored from tape"]
    assert cli.main(command) == common.USAGE
    assert cli.main([*command, "--subject", "ledger", "--by", "an operator"]) == common.DONE
    assert "opens nothing" in capsys.readouterr().out
    (row,) = entries(bench, "override")
    assert (row["who"], row["subject"], row["why"]) == (
        "an operator", "ledger", "restored from tape",
    )  # fmt: skip
    assert refused(bench.sign, "shadow") == ReasonCode.UPSTREAM_VERDICT_MISSING


def test_shadow_carries_what_gate_c_chose_and_an_edited_choice_is_refused(bench: Any) -> None:
    bench.write_gates(GATES[:2])
    defaults = bench.alpha.manifest.defaults()
    assert parameters_of(bench.sign("shadow")) == defaults
    made = bench.write_gates()
    chosen = dict(made["gate_c"].results["chosen_parameters"])
    assert chosen != defaults
    assert parameters_of(bench.sign("shadow")) == chosen
    head = verdict_folder(bench.ws, bench.alpha.key) / "gate_c.head"
    path = head.with_name(f"gate_c-{head.read_text()[:12]}.json")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b" ")
    assert refused(bench.sign, "shadow") == ReasonCode.VERDICT_TAMPERED


def parameters_of(done: Promotion) -> dict[str, float]:
    """What a config trades with."""
    return dict(yaml.safe_load(done.path.read_text())["parameters"])


def test_a_withdrawn_canary_does_not_undo_what_was_shown_in_shadow(bench: Any) -> None:
    bench.write_gates()
    shadow = bench.sign("shadow")
    begun = BegunSession(
        "run", bench.alpha.alpha_id, bench.alpha.alpha_hash, "shadow", shadow.promotion_seq
    )
    begin_session(bench.ws, begun, signing_key(bench.ws, "session"))
    bench.sign("canary")
    withdraw(bench.ws, bench.alpha.alpha_id, by="tester", why="enough")
    assert on_record.sessions_since(bench.ws, bench.alpha, "shadow") == [begun]
    bench.write_gates(GATES[:2])
    bench.sign("shadow")
    withdraw(bench.ws, bench.alpha.alpha_id, by="tester", why="a session is lost")
    assert on_record.sessions_since(bench.ws, bench.alpha, "shadow") == []
