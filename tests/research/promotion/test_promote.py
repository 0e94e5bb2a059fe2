"""From verdicts to signed configs and back: what the signer signs, and all it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hft_platform.config.canonical import atomic_write
from hft_platform.config.code_hash import code_sha256
from hft_platform.config.keys import make_key, trusted_keys
from hft_platform.config.promoted import PromotedConfig, load_verified
from hft_platform.config.promotion_folder import promotions_root, raise_seq_floor, withdrawn_path
from hft_platform.config.settings import load_settings
from hft_platform.errors import PlatformError, ReasonCode
from research.gates.verdict import GATES, GateVerdict, Verdict
from research.promotion import audit
from research.promotion.canary import Action, CanaryDecision
from research.promotion.canary_life import (
    canary_history,
    decide_issue,
    issue_of_canary,
    newest_issue,
)
from research.promotion.canary_thresholds import load_canary_thresholds
from research.promotion.promote import promote, run_canary
from research.promotion.sign import SignerContext, read_request, sign_request
from research.promotion.withdrawal import reduce_weight, withdraw

ALPHA_ID = "gen_imbalance_taker"
FIRST_FROZEN = 10


def code_of(call: Any, *arguments: Any, **named: Any) -> int:
    """Reason code of a call that must be refused."""
    with pytest.raises(PlatformError) as caught:
        call(*arguments, **named)
    assert caught.value.next_step
    return caught.value.code


def verified(bench: Any, path: Path, **changes: Any) -> PromotedConfig:
    """What a paper runtime makes of a config at the first session it may trade."""
    content = {
        "trusted_keys": trusted_keys(bench.ws), "mode": "paper", "symbol": "SIM_EDGE",
        "now_ns": bench.start_ns(FIRST_FROZEN), "seq_floor": 0, "code_sha256": code_sha256(),
    } | changes  # fmt: skip
    return load_verified(path, **content)


def in_this_process(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `promote` call the signer without starting a process."""
    from research.promotion import promote as module

    def run(ws: Path, request: Path, **_: Any) -> dict[str, Any]:
        return sign_request(read_request(request), bench.context).as_dict()

    monkeypatch.setattr(module, "_run_signer", run)


def evaluated(bench: Any, gates: dict[str, Verdict]) -> CanaryDecision:
    """What the canary's sessions lead to."""
    issue = issue_of_canary(bench.ws, ALPHA_ID)
    thresholds, _ = load_canary_thresholds(bench.config_dir)
    return decide_issue(
        bench.ws, bench.alpha, issue, thresholds, gate_c=gates["gate_c"], gate_d=gates["gate_d"]
    )


def acts(bench: Any) -> list[str]:
    """Kinds of the audit entries that are not about what gates found."""
    kinds = [entry.record["kind"] for entry in audit.verify_chain(bench.ws)]
    return [kind for kind in kinds if kind not in ("verdict", "thresholds")]


def test_gates_a_and_b_give_a_shadow_permit_that_the_runtime_accepts(bench: Any) -> None:
    bench.write_gates(GATES[:2])
    done = bench.sign("shadow")
    config = verified(bench, done.head)
    manifest = bench.alpha.manifest
    assert done.path.read_bytes() == done.head.read_bytes()
    assert (config.stage, config.promotion_seq) == ("shadow", 1)
    assert config.weight_ppm == manifest.gate_weight_ppm
    assert config.parameters == manifest.defaults()
    assert set(config.verdicts) == {"gate_a", "gate_b"}
    last_end = bench.start_ns(FIRST_FROZEN - 1) + 600_000_000_000
    assert config.not_before_ns == last_end
    assert config.expires_ns == last_end + 30 * 86_400_000_000_000
    assert config.issued_trading_day == 20_260_110
    assert done.head.parent.name == "20260110"


def test_a_permit_does_not_trade_the_sessions_it_was_judged_on(bench: Any) -> None:
    bench.write_gates(GATES[:2])
    head = bench.sign("shadow").head
    now_ns = bench.start_ns(FIRST_FROZEN - 1)
    assert code_of(verified, bench, head, now_ns=now_ns) == ReasonCode.CONFIG_NOT_YET_VALID


def test_all_five_gates_give_a_canary_at_the_first_weight_with_the_chosen_parameters(
    bench: Any,
) -> None:
    bench.write_gates()
    done = bench.sign("canary")
    config = verified(bench, done.head)
    assert (config.stage, config.weight_ppm) == ("canary", 100_000)
    assert config.parameters == bench.alpha.manifest.grid()[-1]
    assert set(config.verdicts) == set(GATES)


@pytest.mark.parametrize("stage", ["shadow", "canary", "live"])
def test_without_verdicts_nothing_is_signed(bench: Any, tmp_path: Path, stage: str) -> None:
    pinned(bench, tmp_path)
    assert code_of(bench.sign, stage) == ReasonCode.UPSTREAM_VERDICT_MISSING
    bench.write_gates(GATES[:1])
    assert code_of(bench.sign, stage) == ReasonCode.UPSTREAM_VERDICT_MISSING
    assert not list(promotions_root(bench.ws).glob("*/*.yaml"))


@pytest.mark.parametrize("missing", GATES[2:])
def test_a_canary_needs_every_gate(bench: Any, missing: str) -> None:
    bench.write_gates(GATES[: GATES.index(missing)])
    assert code_of(bench.sign, "canary") == ReasonCode.UPSTREAM_VERDICT_MISSING


@pytest.mark.parametrize("gate", GATES)
def test_a_failed_gate_refuses(bench: Any, gate: str) -> None:
    bench.fail(gate)
    assert code_of(bench.sign, "canary") == ReasonCode.UPSTREAM_VERDICT_FAILED


@pytest.mark.parametrize(
    "verdict",
    [GateVerdict.FAILED, GateVerdict.INSUFFICIENT_EVIDENCE, GateVerdict.NOT_COMPUTED],
)
def test_only_passed_opens_the_door(bench: Any, verdict: GateVerdict) -> None:
    bench.write_gates(verdict=verdict)
    assert code_of(bench.sign, "canary") == ReasonCode.UPSTREAM_VERDICT_FAILED


def test_an_edited_verdict_refuses(bench: Any) -> None:
    bench.fail("gate_b")
    (path,) = (bench.ws / "verdicts" / bench.alpha.key).glob("gate_b-*.json")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b'"failed"', b'"passed"'))
    assert code_of(bench.sign, "shadow") == ReasonCode.VERDICT_TAMPERED


def test_verdicts_of_other_code_or_thresholds_refuse(bench: Any) -> None:
    bench.write_gates(GATES[:2], code_sha256="0" * 64)
    assert code_of(bench.sign, "shadow") == ReasonCode.VERDICT_STALE
    bench.write_gates(GATES[:2], thresholds_sha256="0" * 64)
    assert code_of(bench.sign, "shadow") == ReasonCode.VERDICT_STALE


def test_a_verdict_built_on_another_verdict_refuses(bench: Any) -> None:
    made = bench.write_gates(GATES[:2])
    inputs = made["gate_b"].inputs | {"upstream": {"gate_a": "0" * 64}}
    bench.write_gates(GATES[:2], inputs=inputs)
    assert code_of(bench.sign, "shadow") == ReasonCode.VERDICT_STALE


def test_an_edited_alpha_inherits_nothing(bench: Any) -> None:
    bench.write_gates(GATES[:2])
    request = bench.request()
    path = bench.alphas / ALPHA_ID / "manifest.yaml"
    path.write_text(path.read_text().replace("ttl_ms: ", "ttl_ms: 1"))
    assert code_of(sign_request, request, bench.context) == ReasonCode.VERDICT_STALE
    assert code_of(bench.sign, "shadow") == ReasonCode.UPSTREAM_VERDICT_MISSING


def test_lost_recordings_refuse(bench: Any) -> None:
    bench.write_gates(GATES[:2])
    next((bench.ws / "datasets").glob("*/dataset.json")).unlink()
    assert code_of(bench.sign, "shadow") == ReasonCode.CONFIG_EVIDENCE_MISMATCH


def test_another_latency_profile_than_gate_c_judged_refuses(bench: Any) -> None:
    made = bench.write_gates(GATES[:3])
    inputs = made["gate_c"].inputs | {"latency_profile": "0" * 64}
    verdict = bench.write_gates(GATES[:3], inputs=inputs)["gate_c"]
    upstream = verdict.inputs["upstream"] | {"gate_c": verdict.sha256}
    _chain_on(bench, verdict, upstream)
    assert code_of(bench.sign, "canary") == ReasonCode.CONFIG_EVIDENCE_MISMATCH


def _chain_on(bench: Any, verdict: Any, upstream: dict[str, str]) -> None:
    import dataclasses

    from research.gates.thresholds import load_thresholds
    from research.gates.verdict import write_verdict

    for gate in GATES[3:]:
        hashes = load_thresholds(bench.config_dir).hashes()
        made = dataclasses.replace(
            verdict, gate=gate, thresholds_sha256=hashes[gate],
            inputs=verdict.inputs | {"upstream": dict(upstream)},
        )  # fmt: skip
        write_verdict(bench.ws, bench.alpha, made)
        upstream[gate] = made.sha256


def test_more_weight_than_the_evidence_carries_refuses_and_less_is_given(bench: Any) -> None:
    bench.write_gates()
    code = code_of(bench.sign, "canary", weight_ppm_max=200_000)
    assert code == ReasonCode.PROMOTION_NOT_PERMITTED
    assert bench.sign("canary", weight_ppm_max=50_000).weight_ppm == 50_000


def test_an_instrument_that_was_not_judged_refuses(bench: Any) -> None:
    bench.write_gates(GATES[:2])
    assert code_of(bench.sign, symbol="TXFD6") == ReasonCode.CONFIG_WRONG_INSTRUMENT


def test_asking_again_changes_nothing(bench: Any) -> None:
    bench.write_gates()
    first = bench.sign("shadow")
    again = bench.sign("shadow")
    assert (first.is_new, again.is_new) == (True, False)
    assert first.path == again.path
    canary = bench.sign("canary")
    assert bench.sign("canary").path == canary.path
    assert bench.sign("shadow").path == canary.path
    assert acts(bench) == ["issued_shadow", "issued_canary"]


def test_a_head_lost_in_a_crash_is_written_again(bench: Any) -> None:
    bench.write_gates(GATES[:2])
    first = bench.sign("shadow")
    first.head.unlink()
    assert bench.sign("shadow").head.read_bytes() == first.path.read_bytes()


def test_sequence_numbers_only_grow_also_after_files_were_deleted(bench: Any) -> None:
    bench.write_gates()
    assert bench.sign("shadow").promotion_seq == 1
    canary = bench.sign("canary")
    assert canary.promotion_seq == 2
    canary.path.unlink()
    canary.head.unlink()
    assert bench.sign("canary").promotion_seq == 3
    raise_seq_floor(bench.ws, ALPHA_ID, 17)
    withdraw(bench.ws, ALPHA_ID, by="tester", why="test")
    assert bench.sign("canary").promotion_seq == 18


def test_the_audit_entry_is_there_before_the_config(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from research.promotion import issue

    bench.write_gates(GATES[:2])

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(issue, "write_once", stop)
    with pytest.raises(KeyboardInterrupt):
        bench.sign("shadow")
    assert acts(bench) == ["issued_shadow"]
    assert not list(promotions_root(bench.ws).glob("*/*.yaml"))
    monkeypatch.undo()
    assert bench.sign("shadow").promotion_seq == 2


def test_a_failed_audit_write_blocks_a_promotion_and_never_a_withdrawal(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write_gates()
    bench.sign("shadow")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audit, "_append_durably", full)
    assert code_of(bench.sign, "canary") == ReasonCode.WAL_WRITE_FAILED
    assert len(list((promotions_root(bench.ws) / ALPHA_ID).glob("*.yaml"))) == 1
    done = withdraw(bench.ws, ALPHA_ID, by="tester", why="test")
    assert done.is_new
    assert "No space left" in done.audit_problem
    assert withdrawn_path(promotions_root(bench.ws), ALPHA_ID, 1).exists()


def test_a_broken_chain_blocks_promotions_and_never_a_withdrawal(bench: Any) -> None:
    bench.write_gates()
    head = bench.sign("shadow").head
    path = audit.chain_path(bench.ws)
    path.write_bytes(path.read_bytes().replace(b'"why":"test"', b'"why":"tess"'))
    assert code_of(bench.sign, "canary") == ReasonCode.AUDIT_BROKEN
    withdraw(bench.ws, ALPHA_ID, by="tester", why="test")
    assert code_of(verified, bench, head) == ReasonCode.CONFIG_WITHDRAWN


def test_a_chain_deleted_with_its_head_blocks_promotions(bench: Any) -> None:
    bench.write_gates()
    bench.sign("shadow")
    audit.chain_path(bench.ws).unlink()
    audit.head_path(bench.ws).unlink()
    assert code_of(bench.sign, "canary") == ReasonCode.AUDIT_BROKEN


def pinned(bench: Any, root: Path) -> None:
    """Configure a hand-made key and pin it."""
    made = make_key(root / "hand" / "promotion.key")
    (root / "pins").write_text(f"promotion {made.public_hex}\n")
    settings = load_settings(
        bench.config_dir,
        environment={
            "HFT_PROMOTION_KEY_FILE": str(root / "hand" / "promotion.key"),
            "HFT_PINNED_KEYS_FILE": str(root / "pins"),
        },
    )
    bench.context = SignerContext(bench.ws, settings, bench.alphas, bench.config_dir)


def test_live_needs_a_key_made_by_hand_and_pinned(bench: Any, tmp_path: Path) -> None:
    bench.graduate()
    assert code_of(bench.sign, "live") == ReasonCode.KEY_ROLE_FORBIDDEN
    pinned(bench, tmp_path)
    done = bench.sign("live")
    keys = trusted_keys(bench.ws, pinned_file=tmp_path / "pins")
    now_ns = bench.start_ns(FIRST_FROZEN + 3)
    live = verified(bench, done.head, trusted_keys=keys, mode="live", now_ns=now_ns)
    assert live.stage == "live"
    (tmp_path / "pins").write_text("")
    assert code_of(bench.sign, "live") == ReasonCode.KEY_ROLE_FORBIDDEN


def test_a_withdrawal_is_immediate_idempotent_and_recorded(bench: Any) -> None:
    bench.write_gates()
    assert code_of(withdraw, bench.ws, ALPHA_ID, by="t", why="w") == ReasonCode.CONFIG_NOT_FOUND
    head = bench.sign("canary").head
    config = verified(bench, head)
    first = withdraw(bench.ws, ALPHA_ID, by="tester", why="a doubt")
    again = withdraw(bench.ws, ALPHA_ID, by="someone", why="another doubt")
    assert (first.is_new, again.is_new) == (True, False)
    assert config.is_withdrawn(bench.ws)
    entries = audit.verify_chain(bench.ws)
    assert acts(bench) == ["issued_canary", "withdrawn"]
    assert entries[-1].record["why"] == "a doubt"
    assert bench.sign("canary").promotion_seq == 2


def test_a_reduction_lowers_only_and_more_needs_the_signer(bench: Any) -> None:
    bench.write_gates()
    head = bench.sign("canary").head
    done = reduce_weight(bench.ws, ALPHA_ID, weight_ppm=40_000, by="t", why="w")
    assert done.weight_ppm == verified(bench, head).weight_ppm == 40_000
    for weight in (40_000, 100_000, -1):
        code = code_of(reduce_weight, bench.ws, ALPHA_ID, weight_ppm=weight, by="t", why="w")
        assert code == ReasonCode.PROMOTION_NOT_PERMITTED
    assert audit.verify_chain(bench.ws)[-1].record["kind"] == "weight_reduced"


def test_a_healthy_canary_climbs_through_the_signer_to_full_weight(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(bench, monkeypatch)
    bench.write_gates()
    bench.sign("canary")
    weights = []
    for index in range(FIRST_FROZEN, FIRST_FROZEN + 10):
        bench.run_session(index)
        decision = run_canary(bench.ws, bench.alpha, by="sensor", config_dir=bench.config_dir)
        weights.append(decision.weight_ppm)
    assert weights == [100_000] * 2 + [200_000] * 3 + [400_000] * 3 + [1_000_000] * 2
    issue = newest_issue(bench.ws, ALPHA_ID)
    assert issue is not None
    assert (issue.content.weight_ppm, issue.content.promotion_seq) == (1_000_000, 4)
    assert acts(bench) == ["issued_canary", *["canary_step", "issued_canary"] * 3]


def test_the_signer_gives_no_step_up_that_the_sessions_have_not_earned(bench: Any) -> None:
    bench.write_gates()
    bench.sign("canary")
    for index in range(FIRST_FROZEN, FIRST_FROZEN + 2):
        bench.run_session(index)
    code = code_of(bench.sign, "canary", weight_ppm_max=200_000)
    assert code == ReasonCode.PROMOTION_NOT_PERMITTED
    bench.run_session(FIRST_FROZEN + 2)
    assert bench.sign("canary", weight_ppm_max=200_000).weight_ppm == 200_000


def test_a_dead_edge_is_rolled_back_and_the_same_evidence_promotes_no_more(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(bench, monkeypatch)
    bench.write_gates()
    bench.sign("canary")
    action = Action.HOLD
    for index in range(FIRST_FROZEN, FIRST_FROZEN + 8):
        bench.run_session(index, share=-1.5)
        action = run_canary(bench.ws, bench.alpha, by="sensor", config_dir=bench.config_dir).action
        if action is Action.ROLL_BACK:
            break
    assert action is Action.ROLL_BACK
    assert newest_issue(bench.ws, ALPHA_ID) is None
    for stage in ("canary", "shadow"):
        assert code_of(bench.sign, stage) == ReasonCode.CONFIG_WITHDRAWN
    entry = audit.verify_chain(bench.ws)[-1]
    assert entry.record["kind"] == "withdrawn"
    assert entry.record["facts"]["decision"]["action"] == "roll_back"
    results = {"checks": ["newer data"], **bench.write_gates()["gate_e"].results}
    bench.write_gates(results=results)
    assert code_of(bench.sign, "shadow") == ReasonCode.CONFIG_WITHDRAWN


def test_a_lost_or_tampered_summary_rolls_the_canary_back(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(bench, monkeypatch)
    gates = bench.write_gates()
    bench.sign("canary")
    paths = [bench.run_session(index) for index in range(FIRST_FROZEN, FIRST_FROZEN + 2)]
    assert evaluated(bench, gates).action is Action.HOLD
    raw = paths[0].read_bytes()
    paths[0].write_bytes(raw.replace(b'"net":', b'"nett":'))
    decision = evaluated(bench, gates)
    assert [r.code for r in decision.reasons] == [ReasonCode.CANARY_METRIC_MISSING]
    paths[0].unlink()
    decision = run_canary(bench.ws, bench.alpha, by="sensor", config_dir=bench.config_dir)
    assert [r.code for r in decision.reasons] == [ReasonCode.CANARY_METRIC_MISSING]
    assert newest_issue(bench.ws, ALPHA_ID) is None


def test_a_session_that_still_runs_is_not_missing_yet(bench: Any) -> None:
    gates = bench.write_gates()
    bench.sign("canary")
    bench.run_session(FIRST_FROZEN)
    bench.run_session(FIRST_FROZEN + 1).unlink()
    assert evaluated(bench, gates).action is Action.HOLD


def test_a_new_life_forgets_the_sessions_before_the_withdrawal(bench: Any) -> None:
    gates = bench.write_gates()
    bench.sign("canary")
    for index in range(FIRST_FROZEN, FIRST_FROZEN + 3):
        bench.run_session(index)
    withdraw(bench.ws, ALPHA_ID, by="operator", why="holiday")
    bench.sign("canary")
    assert canary_history(bench.ws, bench.alpha) == []
    decision = evaluated(bench, gates)
    assert (decision.action, decision.weight_ppm) == (Action.HOLD, 100_000)


def test_a_weight_that_a_person_lowered_is_not_raised_by_the_canary(bench: Any) -> None:
    gates = bench.write_gates()
    bench.sign("canary")
    for index in range(FIRST_FROZEN, FIRST_FROZEN + 3):
        bench.run_session(index)
    reduce_weight(bench.ws, ALPHA_ID, weight_ppm=30_000, by="operator", why="nervous")
    decision = evaluated(bench, gates)
    assert (decision.action, decision.weight_ppm) == (Action.HOLD, 30_000)


def test_a_promise_that_cannot_be_read_rolls_back(bench: Any) -> None:
    bench.write_gates()
    bench.sign("canary")
    (path,) = (bench.ws / "verdicts" / bench.alpha.key).glob("gate_c-*.json")
    path.unlink()
    code = code_of(run_canary, bench.ws, bench.alpha, by="s", config_dir=bench.config_dir)
    assert code == ReasonCode.VERDICT_TAMPERED
    assert newest_issue(bench.ws, ALPHA_ID) is None


def test_without_a_canary_there_is_nothing_to_evaluate(bench: Any) -> None:
    gates = bench.write_gates()
    bench.sign("shadow")
    code = code_of(evaluated, bench, gates)
    assert code == ReasonCode.CONFIG_NOT_FOUND


@pytest.mark.parametrize(
    "changes",
    [{"stage": "gold"}, {"weight_ppm_max": "1"}, {"extra": 1}, {"alpha_key": "a"}, {"why": ""}],
)
def test_a_request_outside_its_schema_is_malformed(bench: Any, changes: dict[str, Any]) -> None:
    content = json.loads(bench.request().model_dump_json(by_alias=True)) | changes
    path = bench.ws / "request.json"
    atomic_write(path, json.dumps(content))
    assert code_of(read_request, path) == ReasonCode.CONFIG_MALFORMED
    assert code_of(read_request, bench.ws / "none.json") == ReasonCode.CONFIG_NOT_FOUND


def test_the_signer_is_its_own_process_and_its_refusal_comes_back_typed(bench: Any) -> None:
    # The signer hashes the code it finds now, this process hashed it when it first asked.
    code_sha256.cache_clear()
    arguments = {"by": "tester", "why": "test", "config_dir": bench.config_dir}
    with pytest.raises(PlatformError) as caught:
        promote(bench.ws, bench.alpha, stage="shadow", **arguments)
    assert caught.value.code == ReasonCode.UPSTREAM_VERDICT_MISSING
    bench.write_gates(GATES[:2])
    done = promote(bench.ws, bench.alpha, stage="shadow", **arguments)
    assert verified(bench, done.head).content_sha256 == done.sha256
