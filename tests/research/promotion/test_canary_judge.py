"""Which promise a canary is held to, and what becomes of one that cannot be judged."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.config.promotion_folder import promotions_root, withdrawn_seq
from hft_platform.errors import PlatformError, ReasonCode
from research import cli, loop, registry
from research.commands import common
from research.gates.verdict import GATES, read_verdict, verdict_folder
from research.promotion import audit
from research.promotion.canary import Action
from research.promotion.canary_judge import UnjudgedCanaryError, judge_canary, signed_verdict
from research.promotion.canary_life import newest_issue
from research.promotion.promote import run_canary
from tests.research.promotion.conftest import UNIT
from tests.research.promotion.test_on_record import place
from tests.research.promotion.test_promote import ALPHA_ID, FIRST_FROZEN, code_of


def gate_c_again(bench: Any) -> None:
    """Gate C ran again and promises less: ten times the deviation, so that no loss is much."""
    gate_c = read_verdict(bench.ws, bench.alpha.key, "gate_c")
    bench.rewrite(
        "gate_c", results={"promise": gate_c.results["promise"] | {"std_net": 10.0 * UNIT}}
    )
    assert read_verdict(bench.ws, bench.alpha.key, "gate_c").sha256 != gate_c.sha256


@pytest.fixture
def loser(bench: Any) -> Any:
    """A canary that lost more than its signed promise allows."""
    bench.write_gates()
    bench.sign("canary")
    for index in range(FIRST_FROZEN, FIRST_FROZEN + 3):
        bench.run_session(index, share=-3.0)
    return bench


def is_withdrawn(bench: Any) -> bool:
    return newest_issue(bench.ws, ALPHA_ID) is None


def test_a_gate_that_runs_again_does_not_move_the_promise(loser: Any) -> None:
    before = judge_canary(loser.ws, loser.alpha, config_dir=loser.config_dir)
    gate_c_again(loser)
    after = judge_canary(loser.ws, loser.alpha, config_dir=loser.config_dir)
    assert before.action is Action.ROLL_BACK
    assert after.as_dict() == before.as_dict()
    run_canary(loser.ws, loser.alpha, by="sensor", config_dir=loser.config_dir)
    assert is_withdrawn(loser)


def test_a_verdict_put_in_place_by_hand_does_not_move_it_either(loser: Any) -> None:
    chain = audit.chain_path(loser.ws).read_bytes(), audit.head_path(loser.ws).read_bytes()
    gate_c_again(loser)
    audit.chain_path(loser.ws).write_bytes(chain[0])
    audit.head_path(loser.ws).write_bytes(chain[1])
    decision = run_canary(loser.ws, loser.alpha, by="sensor", config_dir=loser.config_dir)
    assert decision.action is Action.ROLL_BACK
    assert is_withdrawn(loser)


def test_a_new_promise_does_not_excuse_a_canary_before_the_signer(loser: Any) -> None:
    gate_c_again(loser)
    assert code_of(loser.sign, "canary") == ReasonCode.CANARY_LOSS_BUDGET


@pytest.mark.parametrize("gate", ["gate_c", "gate_d"])
@pytest.mark.parametrize("damage", ["gone", "edited"])
def test_a_signed_verdict_that_cannot_be_read_any_more_rolls_back(
    bench: Any, gate: str, damage: str
) -> None:
    made = bench.write_gates()
    bench.sign("canary")
    bench.run_session(FIRST_FROZEN)
    name = f"{gate}-{made[gate].sha256[:12]}.json"
    path = verdict_folder(bench.ws, bench.alpha.key) / name
    bench.write_gates(GATES[: GATES.index(gate) + 1], results=made[gate].results | {"again": 1})
    assert judge_canary(bench.ws, bench.alpha, config_dir=bench.config_dir)
    path.chmod(0o644)
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes().replace(b'"passed"', b'"Passed"'))
    code = code_of(run_canary, bench.ws, bench.alpha, by="s", config_dir=bench.config_dir)
    assert code == ReasonCode.VERDICT_TAMPERED
    assert is_withdrawn(bench)


def test_a_signed_verdict_that_no_gate_recorded_is_no_promise(bench: Any) -> None:
    bench.write_gates()
    bench.sign("canary")
    issue = newest_issue(bench.ws, ALPHA_ID)
    entries = audit.verify_chain(bench.ws)
    assert signed_verdict(bench.ws, bench.alpha, "gate_c", issue, entries).is_passed
    code = code_of(signed_verdict, bench.ws, bench.alpha, "gate_c", issue, [])
    assert code == ReasonCode.VERDICT_NOT_RECORDED


def test_the_dry_run_says_what_apply_would_do(
    bench: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    made = bench.write_gates()
    bench.sign("canary")
    bench.run_session(FIRST_FROZEN)
    command = ["canary", ALPHA_ID, *place(bench)]
    assert cli.main(command) == common.DONE
    assert "--apply" not in capsys.readouterr().out
    path = bench.run_session(FIRST_FROZEN + 1, share=-9.0)
    assert cli.main(command) == common.DONE
    assert "roll_back at 0 %; --apply would withdraw it" in capsys.readouterr().out
    path.unlink()
    path.parent.rmdir()
    name = f"gate_c-{made['gate_c'].sha256[:12]}.json"
    (verdict_folder(bench.ws, bench.alpha.key) / name).unlink()
    assert cli.main(command) == common.REFUSED
    assert "--apply would withdraw it" in capsys.readouterr().err
    assert not is_withdrawn(bench)
    assert cli.main([*command, "--apply"]) == common.REFUSED
    assert "it was withdrawn" in capsys.readouterr().err
    assert is_withdrawn(bench)


def test_an_error_outside_the_canary_withdraws_nothing(bench: Any) -> None:
    bench.write_gates()
    bench.sign("shadow")
    for call in (judge_canary, run_canary):
        named = {"by": "s"} if call is run_canary else {}
        with pytest.raises(PlatformError) as caught:
            call(bench.ws, bench.alpha, config_dir=bench.config_dir, **named)
        assert caught.value.code == ReasonCode.CONFIG_NOT_FOUND
        assert not isinstance(caught.value, UnjudgedCanaryError)
    assert withdrawn_seq(promotions_root(bench.ws), ALPHA_ID) == 0


def edit(bench: Any) -> None:
    """Another version of the alpha lies in its folder."""
    path = bench.alphas / ALPHA_ID / "manifest.yaml"
    path.write_text(path.read_text().replace("ttl_ms: ", "ttl_ms: 1"))


def in_alphas_of(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The asset graph looks for alphas in the bench's folder."""
    monkeypatch.setattr(loop, "alpha_of", lambda key: registry.find_alpha(key, bench.alphas))


@pytest.mark.parametrize(
    ("how", "code"),
    [("edited", ReasonCode.VERDICT_STALE), ("removed", ReasonCode.MANIFEST_INVALID)],
)
def test_a_canary_whose_alpha_is_not_the_one_that_was_signed_is_withdrawn_by_the_graph(
    bench: Any, monkeypatch: pytest.MonkeyPatch, how: str, code: int
) -> None:
    in_alphas_of(bench, monkeypatch)
    bench.write_gates()
    bench.sign("canary")
    key = bench.alpha.key
    if how == "edited":
        edit(bench)
        atomic_write(bench.ws / "alphas.json", canonical_json([bench.alpha.key]))
    else:
        shutil.rmtree(bench.alphas / ALPHA_ID)
        atomic_write(bench.ws / "alphas.json", b"[]")
    assert [pending for pending, _ in loop.pending_canaries(bench.ws)] == [key]
    assert code_of(loop.decide_canary, bench.ws, key) == code
    assert is_withdrawn(bench)
    assert loop.pending_canaries(bench.ws) == []
    record = audit.verify_chain(bench.ws)[-1].record
    assert (record["kind"], record["facts"]["reason_code"]) == ("withdrawn", code)


def test_another_version_that_is_gone_takes_nothing_back(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_alphas_of(bench, monkeypatch)
    bench.write_gates()
    bench.sign("canary")
    code = code_of(loop.decide_canary, bench.ws, f"{ALPHA_ID}@{'0' * 12}")
    assert code == ReasonCode.VERDICT_STALE
    assert not is_withdrawn(bench)


def test_an_edited_alpha_is_withdrawn_from_the_terminal_as_well(
    bench: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.write_gates()
    bench.sign("canary")
    edit(bench)
    command = ["canary", ALPHA_ID, *place(bench)]
    assert cli.main(command) == common.REFUSED
    assert "--apply would withdraw it" in capsys.readouterr().err
    assert cli.main([*command, "--apply"]) == common.REFUSED
    assert is_withdrawn(bench)


def test_thresholds_that_do_not_load_withdraw_the_canary(bench: Any) -> None:
    bench.write_gates()
    bench.sign("canary")
    (bench.config_dir / "canary.yaml").write_text("weight_stages_ppm: many\n")
    code = code_of(run_canary, bench.ws, bench.alpha, by="s", config_dir=bench.config_dir)
    assert code == ReasonCode.SETTINGS_INVALID
    assert is_withdrawn(bench)


def test_one_bad_config_does_not_hide_the_other_canaries(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_alphas_of(bench, monkeypatch)
    bench.write_gates()
    bench.sign("canary")
    bench.run_session(FIRST_FROZEN)
    bad = promotions_root(bench.ws) / "a_broken_one" / "000001-0123456789ab.yaml"
    atomic_write(bad, b"no config")
    pending = loop.pending_canaries(bench.ws)
    assert [key for key, _ in pending] == ["a_broken_one", bench.alpha.key]
    assert not loop.decide_canary(bench.ws, bench.alpha.key)["rolled_back"]
    assert code_of(loop.decide_canary, bench.ws, "a_broken_one")
