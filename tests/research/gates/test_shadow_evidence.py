"""Gate E on signed sessions of the real runtime, and on summaries that are none."""

import json
import shutil
from importlib import resources

import pytest
from market import SHADOW_SESSIONS

from hft_platform.config.keys import signing_key
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services.session_register import register_path
from hft_platform.services.session_summary import sign_summary, write_summary
from research import registry
from research.gates import collect_e, gate_e, run_gate
from research.gates.context import open_context
from research.gates.verdict import GateVerdict, read_verdict
from research.promotion.withdrawal import withdraw

ALPHA = registry.find_alpha("gen_imbalance_taker")
SESSIONS = SHADOW_SESSIONS


@pytest.fixture
def ws(traded, tmp_path):
    shutil.copytree(traded, tmp_path / "ws")
    return tmp_path / "ws"


def summaries(ws):
    return sorted((ws / "sessions").glob("*/summary.json"))


def test_signed_shadow_sessions_that_match_their_backtests_pass_gate_e(ws):
    verdict = run_gate(ws, ALPHA, "gate_e")
    assert verdict.verdict is GateVerdict.PASSED, verdict.reasons
    for row in verdict.results["sessions"]:
        assert row["fills"] == row["backtest_fills"] > 0
        assert row["net"] == row["backtest_net"]
        assert row["parity_identical"] == row["parity_total"] > 0
        assert row["order_latency_ms"] == row["backtest_order_latency_ms"]
        assert row["order_latency_ms"]["p95"] > 0
        assert row["regime"] in ("calm", "usual", "wild")
    gate_c = read_verdict(ws, ALPHA.key, "gate_c")
    assert verdict.results["latency_profile_sha256"] == gate_c.inputs["latency_profile"]
    assert sum(verdict.results["regimes"].values()) == SESSIONS


def test_gate_e_again_gives_the_same_bytes(ws):
    assert run_gate(ws, ALPHA, "gate_e").to_bytes() == run_gate(ws, ALPHA, "gate_e").to_bytes()


def edit(path, **changes):
    content = json.loads(path.read_bytes())
    content["evidence"] |= changes
    path.chmod(0o644)
    path.write_text(json.dumps(content))


def spoiled(ws, text):
    """Gate E of a workspace in which a session began that is no evidence any more."""
    verdict = run_gate(ws, ALPHA, "gate_e")
    assert verdict.verdict is GateVerdict.NOT_COMPUTED
    (reason,) = verdict.reasons
    assert reason["code"] == ReasonCode.SUMMARY_TAMPERED
    assert text in reason["text"]


def test_an_edited_summary_blocks_the_others(ws):
    edit(summaries(ws)[0], halted_by=0, slippage_ticks=-9.0)
    spoiled(ws, "1 shadow sessions of")


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda path: path.unlink(), "it has no summary"),
        (lambda path: shutil.rmtree(path.parent), "its folder is gone"),
        (
            lambda path: path.write_bytes(summaries(path.parents[2])[1].read_bytes()),
            "it holds the summary of another session",
        ),
    ],
)
def test_a_bad_session_cannot_be_left_out(ws, spoil, text):
    path = summaries(ws)[0]
    path.chmod(0o644)
    spoil(path)
    spoiled(ws, text)


def test_a_withdrawn_shadow_permit_starts_over(ws):
    assert run_gate(ws, ALPHA, "gate_e").is_passed
    summaries(ws)[0].unlink()
    withdraw(ws, ALPHA.alpha_id, by="tester", why="a session is lost")
    verdict = run_gate(ws, ALPHA, "gate_e")
    assert verdict.verdict is GateVerdict.INSUFFICIENT_EVIDENCE
    assert verdict.results["session_count"] == 0
    why = "a session of a withdrawn permit, or one that never began"
    assert verdict.results["refused"] == {why: SESSIONS - 1}


def test_a_session_that_shed_market_data_fails_the_others(ws):
    path = summaries(ws)[0]
    content = json.loads(path.read_bytes())
    assert content["evidence"]["shed_count"] == 0
    evidence = content["evidence"] | {"shed_count": 3}
    write_summary(path, sign_summary(evidence, content["timings"], signing_key(ws, "session")))
    verdict = run_gate(ws, ALPHA, "gate_e")
    assert not verdict.is_passed
    assert verdict.results["refused"] == {"SESSION_SHED": 1}
    context = open_context(ws, ALPHA)
    found = gate_e.evaluate(collect_e.collect(context), one_less(context.thresholds.gate_e))
    assert found.verdict is GateVerdict.FAILED
    assert [row["text"].split(" is ")[0] for row in found.reasons] == [
        "number of sessions that shed records or have no parity or account"
    ]


def one_less(thresholds):
    """As if fewer sessions were asked for than there are: leaving one out would leave enough."""
    return thresholds.model_copy(
        update={
            "sessions_min": SESSIONS - 1, "days_min": 1, "fills_min": 1,
            "volatility_regimes_min": 1,
        }
    )  # fmt: skip


def test_a_session_counts_once_however_often_its_summary_is_copied(ws):
    first = summaries(ws)[0].parent
    shutil.copytree(first, first.with_name(first.name + "-2"))
    verdict = run_gate(ws, ALPHA, "gate_e")
    assert verdict.results["session_count"] == SESSIONS


def test_shadow_sessions_of_other_parameters_than_gate_c_chose_do_not_count(ws, monkeypatch):
    context = open_context(ws, ALPHA)
    honest = collect_e.collect(context)
    assert len(honest.sessions) == SESSIONS
    chosen = read_verdict(ws, ALPHA.key, "gate_c").results["chosen_parameters"]
    other = {name: value + 1.0 for name, value in chosen.items()}
    monkeypatch.setattr(collect_e, "_said_by_gate_c", lambda _: {"chosen_parameters": other})
    found = collect_e.collect(context)
    assert found.refused == {"other parameters than gate C chose": SESSIONS}


def test_markouts_that_nobody_measured_fail(ws):
    for path in summaries(ws):
        resign(ws, path, markout_ticks={})
    verdict = run_gate(ws, ALPHA, "gate_e")
    assert verdict.verdict is GateVerdict.FAILED
    texts = [row["text"] for row in verdict.reasons]
    assert any(text.startswith("markout after 1s") for text in texts), texts


def test_sessions_signed_by_another_workspace_do_not_count(ws):
    register_path(ws).unlink()  # signed with the same key; with it nothing is computed
    for name in ("session.key", "session.pub"):
        (ws / "keys" / name).unlink()
    path = ws / "keys" / "session.pub"
    path.write_text("ab" * 32 + "\n")
    verdict = run_gate(ws, ALPHA, "gate_e")
    assert verdict.verdict is GateVerdict.INSUFFICIENT_EVIDENCE
    assert verdict.results["refused"] == {"SUMMARY_TAMPERED": SESSIONS}


def resign(ws, path, **changes):
    """The runtime's own key signs a summary that says something else."""
    content = json.loads(path.read_bytes())
    evidence = content["evidence"] | changes
    write_summary(path, sign_summary(evidence, content["timings"], signing_key(ws, "session")))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"latency_profile_sha256": "0" * 64}, "another latency profile"),
        ({"code_sha256": "0" * 64}, "other code"),
        ({"alpha_hash": "0" * 64}, "another version of the alpha"),
        ({"queue_model": "log_prob"}, "another queue model"),
        ({"tape_sha256": "0" * 64}, "a session that is not in the dataset"),
        ({"parity": None}, "no parity or no account"),
    ],
)
def test_a_signed_session_of_something_else_does_not_count(ws, change, why):
    resign(ws, summaries(ws)[0], **change)
    verdict = run_gate(ws, ALPHA, "gate_e")
    assert verdict.verdict is GateVerdict.INSUFFICIENT_EVIDENCE
    assert verdict.results["refused"] == {why: 1}
    assert verdict.results["session_count"] == SESSIONS - 1


def test_a_session_that_gate_c_has_judged_does_not_count_in_shadow(ws):
    judged = open_context(ws, ALPHA).judged.roles.out_of_sample[0]
    resign(
        ws, summaries(ws)[0], session_id=judged.session_id, trading_day=judged.trading_day,
        tape_sha256=judged.tape_sha256,
    )  # fmt: skip
    verdict = run_gate(ws, ALPHA, "gate_e")
    assert verdict.results["refused"] == {"a session that gate C has seen": 1}


def test_numbers_typed_into_a_file_are_no_session(ws):
    """What gate E of an earlier system took from its command line."""
    first = summaries(ws)[0]
    content = json.loads(first.read_bytes())
    typed = {"evidence": content["evidence"], "slippage_ticks": 0.0, "reject_share": 0.0}
    unsigned = {key: value for key, value in content.items() if key != "signature"}
    for index, text in enumerate((typed, unsigned, ["passed"], "passed")):
        path = summaries(ws)[index]
        path.chmod(0o644)
        path.write_text(json.dumps(text))
    spoiled(ws, "4 shadow sessions of")


def test_a_slow_runtime_fails_although_its_key_signed_it(ws):
    for path in summaries(ws):
        latency = json.loads(path.read_bytes())["evidence"]["order_latency_ms"]
        resign(ws, path, order_latency_ms={name: 2 * value for name, value in latency.items()})
    verdict = run_gate(ws, ALPHA, "gate_e")
    assert verdict.verdict is GateVerdict.FAILED
    assert {row["name"] for row in verdict.results["checks"] if not row["passed"]} == {
        "latency_ratio_p50",
        "latency_ratio_p95",
    }


def test_a_changed_latency_profile_closes_gate_e_until_gate_c_judged_under_it(ws, tmp_path):
    source = resources.files("hft_platform") / "defaults" / "latency"
    name = ALPHA.manifest.latency_profile
    text = (source / f"{name}.yaml").read_text()
    changed = text.replace("pipeline_us: ", "pipeline_us: 1", 1)
    assert changed != text
    folder = tmp_path / "config" / "latency"
    folder.mkdir(parents=True)
    (folder / f"{name}.yaml").write_text(changed)
    with pytest.raises(PlatformError) as refused:
        run_gate(ws, ALPHA, "gate_e", config_dir=tmp_path / "config")
    assert refused.value.code == ReasonCode.VERDICT_STALE
    assert "latency profile" in refused.value.message
