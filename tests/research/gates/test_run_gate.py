"""Gates on ingested markets: a planted edge passes, noise does not, no step can be skipped."""

import json
import shutil
from pathlib import Path

import pytest
from market import workspace

from hft_platform.errors import PlatformError, ReasonCode
from research import registry
from research.experiments import Outcome, OutcomeLog, Trial, TrialLedger
from research.experiments.query import query
from research.gates import collect_c, collect_d, run_gate
from research.gates.verdict import GateVerdict, verdict_folder

DAYS = 60
EDGE = registry.find_alpha("gen_imbalance_taker")
NULL = registry.find_alpha("gen_null_taker")


def bare(source: Path, target: Path) -> Path:
    """A workspace with the same dataset and nothing judged yet."""
    shutil.copytree(source / "datasets", target / "datasets")
    return target


def files_of(ws: Path) -> dict[str, bytes]:
    """Everything the gates wrote, by name."""
    found = [p for name in ("verdicts", "ledger") for p in (ws / name).rglob("*") if p.is_file()]
    return {str(p.relative_to(ws)): p.read_bytes() for p in found}


def test_a_planted_edge_passes_gates_a_to_d(planted):
    _, verdicts = planted
    for gate, verdict in verdicts.items():
        assert verdict.verdict is GateVerdict.PASSED, (gate, verdict.reasons)


def test_each_verdict_names_the_ones_it_was_built_on(planted):
    _, verdicts = planted
    assert verdicts["gate_d"].inputs["upstream"] == {
        gate: verdicts[gate].sha256 for gate in ("gate_a", "gate_b", "gate_c")
    }


def test_the_whole_grid_was_declared_before_anything_ran_and_counts_once(planted):
    ws, verdicts = planted
    assert TrialLedger(ws).head().count == len(EDGE.manifest.grid())
    assert verdicts["gate_c"].results["trial_count"] == len(EDGE.manifest.grid())


def test_running_a_gate_again_changes_no_byte(planted):
    ws, verdicts = planted
    before = files_of(ws)
    assert run_gate(ws, EDGE, "gate_c", workers=2).sha256 == verdicts["gate_c"].sha256
    assert files_of(ws) == before


def other_trials(count: int) -> list[Trial]:
    return [
        Trial(program="another", parameters={"x": float(n)}, data="d", costs="c", window="w")
        for n in range(count)
    ]


def test_a_rerun_counts_the_trials_that_were_counted_the_first_time(planted, tmp_path):
    ws, verdicts = planted
    shutil.copytree(ws, tmp_path / "ws")
    trials = other_trials(500)
    TrialLedger(tmp_path / "ws").declare(trials, alpha_id="later")
    OutcomeLog(tmp_path / "ws").record(
        [Outcome(t.key, {20260105 + d: d * n for d in range(9)}) for n, t in enumerate(trials)],
        alpha_id="later",
        declared=504,
    )
    assert run_gate(tmp_path / "ws", EDGE, "gate_c").sha256 == verdicts["gate_c"].sha256
    assert len(OutcomeLog(tmp_path / "ws").rows()) == 504


def test_trials_that_came_before_raise_the_hurdle_whatever_came_of_them(planted, tmp_path):
    ws, verdicts = planted
    fresh = bare(ws, tmp_path / "ws")
    trials = other_trials(30)
    TrialLedger(fresh).declare(trials, alpha_id="earlier")
    OutcomeLog(fresh).record(
        [Outcome(t.key, None, "GATE_NOT_COMPUTED: ValueError") for t in trials[:10]],
        alpha_id="earlier",
        declared=30,
    )
    for gate in ("gate_a", "gate_b"):
        run_gate(fresh, EDGE, gate)
    counted = run_gate(fresh, EDGE, "gate_c").results["trials"]
    alone = verdicts["gate_c"].results["trials"]
    assert (counted["count"], counted["failed"]) == (alone["count"] + 30, 10)
    assert counted["effective"] == pytest.approx(alone["effective"] + 30)


def test_what_came_of_the_grid_is_in_the_ledger_and_in_the_head_of_the_verdict(planted):
    ws, verdicts = planted
    head = verdicts["gate_c"].inputs["ledger"]
    rows = OutcomeLog(ws).rows()
    assert (head["outcomes"], head["outcomes_head"]) == (len(rows), rows[-1]["hash"])
    assert {row["key"] for row in rows} == set(TrialLedger(ws).keys())
    chosen = verdicts["gate_c"].results["chosen_parameters"]
    assert any(row["days"] == 42 for row in query(ws, "SELECT days FROM results"))
    assert chosen in [dict(r["parameters"]) for r in query(ws, "SELECT parameters FROM results")]


def test_a_planted_signal_foretells_and_its_market_has_a_size(planted):
    results = planted[1]["gate_c"].results
    signal = results["signal"]
    assert signal["sessions"] == 21
    assert signal["ic"]["5s"] > 5 * signal["standard_error"]["5s"] > 0.0
    assert signal["ic"]["60s"] < signal["ic"]["5s"], "the hidden state lives for twelve seconds"
    corner = results["corners"][results["worst_corner"]]
    assert corner["market_lots_per_session"] == 75.0, "one lot every four seconds of five minutes"
    assert corner["turnover_lots_per_day"] * 21 == pytest.approx(corner["fills"])
    assert corner["capacity_lots"] > 0.0
    assert corner["volatility_ticks_per_session"] > 0.0
    assert results["selection"]["walk_forward"]["folds"] == 5


def test_outcomes_that_were_taken_out_block_the_next_gate(planted, tmp_path):
    ws = tmp_path / "ws"
    shutil.copytree(planted[0], ws)
    (ws / "ledger" / "outcomes.jsonl").write_bytes(b"")
    with pytest.raises(PlatformError) as caught:
        run_gate(ws, EDGE, "gate_d")
    assert caught.value.code == ReasonCode.LEDGER_BEHIND_AUDIT


def test_an_admitted_alpha_is_not_judged_against_members_that_came_later(planted, monkeypatch):
    """A rerun after promotions judged gate D against another pool and wrote another verdict."""
    ws, verdicts = planted
    before = files_of(ws)
    monkeypatch.setattr(collect_d, "pool_members", lambda _, **__: [EDGE.key, NULL.key])
    assert run_gate(ws, EDGE, "gate_d").sha256 == verdicts["gate_d"].sha256
    assert files_of(ws) == before


def test_an_alpha_that_does_not_trade_yet_is_judged_against_the_pool_as_it_is(
    planted, tmp_path, monkeypatch
):
    """Two copies of one alpha were both admitted, each before the other traded."""
    ws = tmp_path / "ws"
    shutil.copytree(planted[0], ws)
    copy = "gen_copy@0123456789ab"
    monkeypatch.setattr(collect_d, "pool_members", lambda _, **__: [copy])
    monkeypatch.setattr(
        collect_d, "member_verdicts", lambda ws, keys: {keys[0]: collect_d.gate_c_of(ws, EDGE.key)}
    )
    verdict = run_gate(ws, EDGE, "gate_d")
    assert verdict.verdict is GateVerdict.FAILED
    missed = [row["name"] for row in verdict.results["checks"] if not row["passed"]]
    assert f"correlation_{copy}" in missed
    assert verdict.inputs["pool"] == {copy: planted[1]["gate_c"].sha256}


def test_a_fresh_workspace_gives_the_same_bytes(planted, tmp_path):
    ws, _ = planted
    fresh = bare(ws, tmp_path / "other")
    for gate in ("gate_a", "gate_b", "gate_c", "gate_d"):
        run_gate(fresh, EDGE.key, gate)
    assert files_of(fresh) == files_of(ws)


def test_a_verdict_holds_no_path(planted):
    ws, _ = planted
    for name, raw in files_of(ws).items():
        assert str(ws).encode() not in raw, name
        assert b"/tmp" not in raw, name


@pytest.mark.parametrize("gate", ["gate_b", "gate_c", "gate_d", "gate_e"])
def test_a_gate_whose_upstream_was_not_run_is_refused_and_writes_nothing(planted, tmp_path, gate):
    ws = bare(planted[0], tmp_path / "ws")
    with pytest.raises(PlatformError) as caught:
        run_gate(ws, EDGE, gate)
    assert caught.value.code == ReasonCode.UPSTREAM_VERDICT_MISSING
    assert not verdict_folder(ws, EDGE.key).exists()


def test_gate_e_without_a_shadow_session_is_missing_evidence(planted):
    verdict = run_gate(planted[0], EDGE, "gate_e")
    assert verdict.verdict is GateVerdict.INSUFFICIENT_EVIDENCE
    assert verdict.reasons[0]["code"] == ReasonCode.SHADOW_SESSIONS_TOO_FEW
    for path in verdict_folder(planted[0], EDGE.key).glob("gate_e*"):
        path.unlink()


def test_a_deleted_ledger_blocks_the_next_gate(planted, tmp_path):
    ws = tmp_path / "ws"
    shutil.copytree(planted[0], ws)
    (ws / "ledger" / "trials.jsonl").write_bytes(b"")
    with pytest.raises(PlatformError) as caught:
        run_gate(ws, EDGE, "gate_d")
    assert caught.value.code == ReasonCode.LEDGER_BEHIND_AUDIT


def test_a_crash_is_a_verdict_that_opens_nothing(planted, tmp_path, monkeypatch):
    ws = tmp_path / "ws"
    shutil.copytree(planted[0], ws)

    def crash(*_, **__):
        raise ZeroDivisionError(f"at {ws}")

    monkeypatch.setattr(collect_c, "collect", crash)
    verdict = run_gate(ws, EDGE, "gate_c")
    assert verdict.verdict is GateVerdict.NOT_COMPUTED
    assert verdict.reasons[0]["code"] == ReasonCode.GATE_NOT_COMPUTED
    assert str(tmp_path).encode() not in verdict.to_bytes()
    newest = OutcomeLog(ws).newest().values()
    assert {o.failure for o in newest} == {"GATE_NOT_COMPUTED: ZeroDivisionError"}
    with pytest.raises(PlatformError) as caught:
        run_gate(ws, EDGE, "gate_d")
    assert caught.value.code == ReasonCode.UPSTREAM_VERDICT_FAILED


def test_a_changed_recording_is_noticed(planted, tmp_path):
    ws = bare(planted[0], tmp_path / "ws")
    path = sorted(ws.rglob("book.parquet"))[3]
    path.chmod(0o644)
    other = sorted(ws.rglob("book.parquet"))[4]
    path.write_bytes(other.read_bytes())
    verdict = run_gate(ws, EDGE, "gate_a")
    assert verdict.verdict is GateVerdict.FAILED
    assert ReasonCode.FILE_DAMAGED in {item["code"] for item in verdict.reasons}


def test_noise_is_rejected_with_its_reason(tmp_path_factory):
    ws = workspace(tmp_path_factory.mktemp("null"), "SIM_NULL", days=DAYS, drift_ticks_per_s=0.0)
    for gate in ("gate_a", "gate_b"):
        assert run_gate(ws, NULL, gate).is_passed
    verdict = run_gate(ws, NULL, "gate_c")
    assert verdict.verdict is GateVerdict.FAILED
    assert verdict.reasons[0]["code"] == ReasonCode.COST_EXCEEDS_EDGE
    with pytest.raises(PlatformError) as caught:
        run_gate(ws, NULL, "gate_d")
    assert caught.value.code == ReasonCode.UPSTREAM_VERDICT_FAILED


def test_a_verdict_file_is_canonical_json_that_a_script_can_read(planted):
    ws, verdicts = planted
    sha = verdicts["gate_c"].sha256
    raw = (verdict_folder(ws, EDGE.key) / f"gate_c-{sha[:12]}.json").read_bytes()
    content = json.loads(raw)
    assert content["verdict"] == "passed"
    assert content["results"]["promise"]["session_count"] == 21
    execution = content["results"]["promise"]["execution"]
    assert set(execution) == {
        "slippage_ticks", "markout_ticks_1s", "markout_ticks_10s", "fill_ratio",
    }  # fmt: skip
    assert all(row["session_count"] >= 20 for row in execution.values())
    assert execution["slippage_ticks"]["std"] > 0
    assert 0 < execution["fill_ratio"]["mean"] <= 1
    assert set(content["results"]["corners"]) == {
        "sampled/risk_adverse",
        "sampled/power_prob3",
        "p95/risk_adverse",
        "p95/power_prob3",
    }
