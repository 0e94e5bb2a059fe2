"""The state of an alpha follows from what was proven and done; nobody can write it."""

from __future__ import annotations

import json
import re
from functools import partial
from importlib import resources

import pytest

from hft_platform.config.promotion_folder import promotions_root, withdrawn_path
from hft_platform.errors import PlatformError, ReasonCode
from research.gates.verdict import GATES, GateVerdict, verdict_folder
from research.promotion import audit
from research.promotion.lifecycle import NEXT_STEP, State, lifecycle_of
from research.promotion.overview import explain_gates
from research.promotion.retire import retire
from research.promotion.withdrawal import reduce_weight, withdraw


def state(bench) -> State:
    return life(bench).state


def life(bench):
    return lifecycle_of(bench.ws, bench.alpha, config_dir=bench.config_dir)


def test_every_state_names_the_command_that_leads_on():
    assert set(NEXT_STEP) == set(State)


def test_a_new_alpha_is_a_draft_and_each_gate_moves_it_on(bench):
    assert (state(bench), life(bench).why) == (State.DRAFT, "gate_a was not run yet")
    for gate in GATES:
        bench.write_gates(GATES[: GATES.index(gate) + 1])
        assert state(bench) is State(f"gated_{gate[-1]}")
    assert life(bench).gates_passed == GATES
    assert life(bench).why == "every gate passed"


def test_a_failed_gate_stops_the_count_and_says_why(bench):
    bench.write_gates()
    bench.fail("gate_c")
    found = life(bench)
    assert found.state is State.GATED_B
    assert found.why == "gate_c says failed: too small"


def test_a_later_gate_without_the_one_before_counts_for_nothing(bench):
    bench.write_gates()
    for path in verdict_folder(bench.ws, bench.alpha.key).glob("gate_b*"):
        path.unlink()
    assert state(bench) is State.GATED_A


def test_verdicts_of_other_thresholds_or_edited_ones_do_not_count_and_are_named(bench):
    bench.write_gates()
    bench.write_gates(thresholds_sha256="0" * 64)
    found = life(bench)
    assert found.state is State.GATED_D
    assert "other thresholds" in found.stale
    (path,) = verdict_folder(bench.ws, bench.alpha.key).glob("gate_b-*.json")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b'"passed"', b'"failed"'))
    found = life(bench)
    assert found.state is State.GATED_A
    assert "gate_b" in found.stale


def test_why_says_first_that_verdicts_do_not_hold_any_more(bench):
    bench.write_gates()
    explain = partial(explain_gates, bench.ws, bench.alpha, config_dir=bench.config_dir)
    assert explain()["verdict"] == "passed"
    packaged = resources.files("hft_platform") / "defaults" / "gates.yaml"
    changed = packaged.read_text().replace("fills_min: ", "fills_min: 1", 1)
    (bench.config_dir / "gates.yaml").write_text(changed)
    found = explain()
    assert (found["gate"], found["verdict"]) == ("gate_e", "stale")
    # It used to say that every gate passed, and to name the promotion as what comes next.
    assert "other thresholds" in found["text"]
    assert found["text"].endswith(f"next: hft-research gates {bench.alpha.alpha_id}")


def test_why_names_the_sessions_that_gate_e_did_not_count(bench):
    refused = {"other parameters than gate C chose": 5}
    bench.write_gates(
        verdict=GateVerdict.INSUFFICIENT_EVIDENCE, results={"checks": [], "refused": refused}
    )
    text = explain_gates(bench.ws, bench.alpha, config_dir=bench.config_dir)["text"]
    assert "sessions not counted: 5 for other parameters than gate C chose" in text


def test_shadow_canary_and_withdrawn_follow_from_the_audit_chain(bench):
    bench.write_gates()
    for stage in ("shadow", "canary"):
        issued = bench.sign(stage)
        found = life(bench)
        assert (found.state, found.stage) == (State(stage), stage)
        assert found.weight_ppm == issued.weight_ppm
        assert found.promotion_seq == issued.promotion_seq
        assert found.why == "test (tester)"
    reduce_weight(bench.ws, bench.alpha.alpha_id, weight_ppm=7, by="me", why="less")
    assert (state(bench), life(bench).weight_ppm) == (State.CANARY, 7)
    withdraw(bench.ws, bench.alpha.alpha_id, by="me", why="enough")
    found = life(bench)
    assert (found.state, found.why, found.stage) == (State.WITHDRAWN, "enough (me)", "")
    assert found.text == "withdrawn"


def test_what_the_canary_took_back_reads_as_rolled_back(bench):
    bench.write_gates()
    bench.sign("canary")
    withdraw(bench.ws, bench.alpha.alpha_id, by="canary", why="lost", is_rolled_back=True)
    assert (life(bench).is_rolled_back, life(bench).text) == (True, "rolled back")


def test_a_withdrawal_counts_although_the_chain_never_heard_of_it(bench):
    bench.write_gates()
    issued = bench.sign("canary")
    path = withdrawn_path(promotions_root(bench.ws), bench.alpha.alpha_id, issued.promotion_seq)
    path.write_text("{}")
    assert state(bench) is State.WITHDRAWN


def test_a_config_file_without_its_audit_entry_is_no_state(bench):
    """Writing a file into the promotions folder moves nothing."""
    bench.write_gates()
    folder = promotions_root(bench.ws) / bench.alpha.alpha_id
    folder.mkdir(parents=True)
    (folder / "000009-0123456789ab.yaml").write_text("stage: live\n")
    assert state(bench) is State.GATED_E


def test_an_edited_alpha_starts_again_and_the_old_permit_is_not_its_own(bench):
    bench.write_gates()
    bench.sign("canary")
    path = bench.alpha.folder / "manifest.yaml"
    path.write_text(path.read_text().replace("owner: ", "owner: another "))
    assert state(bench) is State.DRAFT


def test_a_broken_chain_tells_no_state(bench):
    bench.write_gates()
    bench.sign("shadow")
    chain = audit.chain_path(bench.ws)
    chain.write_bytes(chain.read_bytes().replace(b'"who":"tester"', b'"who":"nobody"'))
    with pytest.raises(PlatformError) as refused:
        state(bench)
    assert refused.value.code == ReasonCode.AUDIT_BROKEN


def test_retiring_withdraws_closes_and_is_written_down_once(bench):
    bench.write_gates()
    issued = bench.sign("canary")
    done = retire(bench.ws, bench.alpha, by="me", why="the idea is spent")
    assert (done.is_new, done.state_before) == (True, "canary")
    assert withdrawn_path(
        promotions_root(bench.ws), bench.alpha.alpha_id, issued.promotion_seq
    ).exists()
    kinds = [entry.record["kind"] for entry in audit.verify_chain(bench.ws)]
    assert kinds[-2:] == ["withdrawn", "retired"]
    again = retire(bench.ws, bench.alpha, by="you", why="again")
    assert (again.is_new, again.audit_entry, again.state_before) == (False, len(kinds), "canary")
    assert len(audit.verify_chain(bench.ws)) == len(kinds)
    assert (state(bench), life(bench).why) == (State.RETIRED, "the idea is spent (me)")


@pytest.mark.parametrize("stage", ["shadow", "canary"])
def test_a_retired_alpha_is_never_promoted_again(bench, stage):
    bench.write_gates()
    retire(bench.ws, bench.alpha, by="me", why="the idea is spent")
    with pytest.raises(PlatformError) as refused:
        bench.sign(stage)
    assert refused.value.code == ReasonCode.PROMOTION_NOT_PERMITTED
    assert re.search(
        r"was retired by me \(audit entry \d+\): the idea is spent", str(refused.value)
    )
    assert "under another id" in refused.value.next_step


def test_an_edit_of_a_retired_alpha_is_no_way_back(bench):
    bench.write_gates()
    retire(bench.ws, bench.alpha, by="me", why="the idea is spent")
    path = bench.alpha.folder / "manifest.yaml"
    path.write_text(path.read_text().replace("owner: ", "owner: another "))
    bench.write_gates()
    assert state(bench) is State.RETIRED
    with pytest.raises(PlatformError) as refused:
        bench.sign("shadow")
    assert refused.value.code == ReasonCode.PROMOTION_NOT_PERMITTED


def test_a_draft_can_be_retired_and_the_chain_need_not_exist(bench):
    done = retire(bench.ws, bench.alpha, by="me", why="no time")
    assert (done.withdrawn_seq, done.state_before) == (0, "draft")
    assert state(bench) is State.RETIRED


def test_retiring_takes_the_permit_back_even_when_the_chain_is_broken(bench):
    bench.write_gates()
    issued = bench.sign("canary")
    chain = audit.chain_path(bench.ws)
    chain.write_bytes(chain.read_bytes().replace(b'"who":"tester"', b'"who":"nobody"'))
    with pytest.raises(PlatformError) as refused:
        retire(bench.ws, bench.alpha, by="me", why="spent")
    assert refused.value.code == ReasonCode.AUDIT_BROKEN
    assert withdrawn_path(
        promotions_root(bench.ws), bench.alpha.alpha_id, issued.promotion_seq
    ).exists()


def test_the_state_is_stored_nowhere(bench):
    """Deriving it writes nothing, and no file of the workspace spells it."""
    bench.write_gates()
    bench.sign("shadow")
    before = {path: path.read_bytes() for path in bench.ws.rglob("*") if path.is_file()}
    assert json.dumps(life(bench).as_dict())
    after = {path: path.read_bytes() for path in bench.ws.rglob("*") if path.is_file()}
    assert before == after


def test_a_manifest_has_no_field_for_the_state(bench):
    """An earlier system promoted by rewriting `status` in the source."""
    path = bench.alpha.folder / "manifest.yaml"
    path.write_text(path.read_text() + "\nstatus: live\n")
    with pytest.raises(PlatformError) as refused:
        state(bench)
    assert refused.value.code == ReasonCode.MANIFEST_INVALID
    assert "status" in refused.value.message
