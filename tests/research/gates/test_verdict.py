"""Verdict files: content-addressed, verified again, and refused by reason when anything is off."""

import dataclasses
import json

import pytest

from hft_platform.config.code_hash import code_sha256
from hft_platform.errors import PlatformError, ReasonCode
from research import registry
from research.experiments import OutcomeLog, Trial, TrialLedger
from research.gates.thresholds import load_thresholds
from research.gates.verdict import (
    GATES,
    GateVerdict,
    Verdict,
    read_verdict,
    reason,
    require_chain,
    require_verdict,
    verdict_folder,
    write_verdict,
)

ALPHA = registry.load_alpha(registry.bundled_folder() / "txf_ofi_taker")
HASHES = load_thresholds().hashes()


def verdict(gate="gate_a", outcome=GateVerdict.PASSED, **changes) -> Verdict:
    fields = {
        "gate": gate,
        "alpha_id": ALPHA.alpha_id,
        "alpha_hash": ALPHA.alpha_hash,
        "verdict": outcome,
        "reasons": (reason(ReasonCode.GATE_THRESHOLD_MISSED, "too small", observed=1.0, limit=2.0),)
        if outcome is not GateVerdict.PASSED
        else (),
        "thresholds_sha256": HASHES[gate],
        "code_sha256": code_sha256(),
        "inputs": {"upstream": {}},
        "results": {"x": 0.1, "missing": None},
    }
    return Verdict(**(fields | changes))


def chain(ws, *, until="gate_e") -> dict[str, str]:
    upstream: dict[str, str] = {}
    for gate in GATES[: GATES.index(until) + 1]:
        made = verdict(gate, inputs={"upstream": dict(upstream)})
        write_verdict(ws, ALPHA, made)
        upstream[gate] = made.sha256
    return upstream


def refusal(call, *arguments, **named) -> int:
    with pytest.raises(PlatformError) as caught:
        call(*arguments, **named)
    return caught.value.code


def test_a_verdict_reads_back_as_it_was_written(tmp_path):
    made = verdict()
    path = write_verdict(tmp_path, ALPHA, made)
    assert read_verdict(tmp_path, ALPHA.key, "gate_a") == made
    assert path.name == f"gate_a-{made.sha256[:12]}.json"
    assert json.loads(path.read_bytes())["schema"] == 1


def test_writing_the_same_verdict_again_changes_no_byte(tmp_path):
    path = write_verdict(tmp_path, ALPHA, verdict())
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in path.parent.iterdir()}
    write_verdict(tmp_path, ALPHA, verdict())
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in path.parent.iterdir()} == before


def test_a_gate_that_was_not_run_is_missing(tmp_path):
    assert (
        refusal(require_verdict, tmp_path, ALPHA, "gate_a") == ReasonCode.UPSTREAM_VERDICT_MISSING
    )


@pytest.mark.parametrize(
    "outcome",
    [GateVerdict.FAILED, GateVerdict.INSUFFICIENT_EVIDENCE, GateVerdict.NOT_COMPUTED],
)
def test_only_passed_opens_the_next_gate(tmp_path, outcome):
    write_verdict(tmp_path, ALPHA, verdict(outcome=outcome))
    assert refusal(require_verdict, tmp_path, ALPHA, "gate_a") == ReasonCode.UPSTREAM_VERDICT_FAILED


def test_an_edited_verdict_is_caught_and_set_aside_by_the_next_run(tmp_path):
    made = verdict(outcome=GateVerdict.FAILED)
    path = write_verdict(tmp_path, ALPHA, made)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b'"failed"', b'"passed"'))
    assert refusal(require_verdict, tmp_path, ALPHA, "gate_a") == ReasonCode.VERDICT_TAMPERED
    write_verdict(tmp_path, ALPHA, made)
    assert read_verdict(tmp_path, ALPHA.key, "gate_a") == made
    assert path.with_suffix(".tampered").exists()


def test_a_deleted_verdict_whose_head_is_left_is_caught(tmp_path):
    write_verdict(tmp_path, ALPHA, verdict()).unlink()
    assert refusal(require_verdict, tmp_path, ALPHA, "gate_a") == ReasonCode.VERDICT_TAMPERED


def test_a_hand_written_verdict_with_a_fitting_hash_still_needs_its_upstream(tmp_path):
    """Content addressing alone is no proof: the chain below it must be there as well."""
    write_verdict(tmp_path, ALPHA, verdict("gate_c"))
    code = refusal(require_chain, tmp_path, ALPHA, "gate_c", thresholds=HASHES)
    assert code == ReasonCode.UPSTREAM_VERDICT_MISSING


def test_a_verdict_copied_from_another_alpha_is_caught(tmp_path):
    other = verdict(alpha_hash="0" * 64)
    write_verdict(tmp_path, ALPHA, other)
    assert refusal(require_verdict, tmp_path, ALPHA, "gate_a") == ReasonCode.VERDICT_TAMPERED


def test_a_verdict_of_other_code_is_stale(tmp_path):
    write_verdict(tmp_path, ALPHA, verdict(code_sha256="0" * 64))
    assert refusal(require_verdict, tmp_path, ALPHA, "gate_a") == ReasonCode.VERDICT_STALE


def test_a_verdict_of_other_thresholds_is_stale(tmp_path):
    write_verdict(tmp_path, ALPHA, verdict())
    code = refusal(require_verdict, tmp_path, ALPHA, "gate_a", thresholds_sha256="0" * 64)
    assert code == ReasonCode.VERDICT_STALE


def test_a_verdict_that_counted_trials_which_are_gone_is_refused(tmp_path):
    ledger = TrialLedger(tmp_path)
    ledger.declare([Trial("p", {"a": 1.0}, "d", "c", "w")], alpha_id="x")
    made = verdict(
        "gate_c",
        inputs={"upstream": {}, "ledger": ledger.head().as_dict() | OutcomeLog(tmp_path).head()},
    )
    write_verdict(tmp_path, ALPHA, made)
    assert require_verdict(tmp_path, ALPHA, "gate_c") == made
    (tmp_path / "ledger" / "trials.jsonl").unlink()
    assert refusal(require_verdict, tmp_path, ALPHA, "gate_c") == ReasonCode.LEDGER_BEHIND_AUDIT


def test_a_whole_chain_holds(tmp_path):
    hashes = chain(tmp_path)
    assert require_chain(tmp_path, ALPHA, "gate_e", thresholds=HASHES) == hashes


def test_a_gate_built_on_another_upstream_verdict_is_stale(tmp_path):
    chain(tmp_path)
    write_verdict(tmp_path, ALPHA, verdict("gate_b", inputs={"upstream": {}}, results={"x": 2}))
    with pytest.raises(PlatformError):
        require_chain(tmp_path, ALPHA, "gate_e", thresholds=HASHES)
    rebuilt = read_verdict(tmp_path, ALPHA.key, "gate_a")
    replaced = verdict("gate_b", inputs={"upstream": {"gate_a": rebuilt.sha256}}, results={"x": 2})
    write_verdict(tmp_path, ALPHA, replaced)
    code = refusal(require_chain, tmp_path, ALPHA, "gate_e", thresholds=HASHES)
    assert code == ReasonCode.VERDICT_STALE


def test_a_failed_gate_in_the_middle_blocks_everything_after_it(tmp_path):
    chain(tmp_path)
    upstream = {"gate_a": "x", "gate_b": "y"}
    failed = verdict("gate_c", GateVerdict.FAILED, inputs={"upstream": upstream})
    write_verdict(tmp_path, ALPHA, failed)
    code = refusal(require_chain, tmp_path, ALPHA, "gate_d", thresholds=HASHES)
    assert code == ReasonCode.UPSTREAM_VERDICT_FAILED


def test_a_verdict_holds_no_number_that_is_not_one():
    with pytest.raises(PlatformError) as caught:
        verdict(results={"t": float("nan")}).to_bytes()
    assert "finite" in caught.value.message


def test_the_folder_of_an_edited_alpha_is_another_one(tmp_path):
    write_verdict(tmp_path, ALPHA, verdict())
    edited = dataclasses.replace(ALPHA, alpha_hash="f" * 64)
    assert verdict_folder(tmp_path, edited.key) != verdict_folder(tmp_path, ALPHA.key)
    assert refusal(require_verdict, tmp_path, edited, "gate_a") == (
        ReasonCode.UPSTREAM_VERDICT_MISSING
    )


def test_a_verdict_about_another_dataset_is_stale(tmp_path):
    made = verdict(inputs={"upstream": {}, "dataset": "d" * 64})
    write_verdict(tmp_path, ALPHA, made)
    judged_by = {"dataset": "d" * 64}
    require_chain(tmp_path, ALPHA, "gate_a", thresholds=HASHES, judged_by=judged_by)
    code = refusal(
        require_chain,
        tmp_path,
        ALPHA,
        "gate_a",
        thresholds=HASHES,
        judged_by={"dataset": "e" * 64},
    )
    assert code == ReasonCode.VERDICT_STALE
