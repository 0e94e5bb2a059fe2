"""A rehearsal computes what the gates compute, and nothing of it counts for anything."""

import json
import shutil

import pytest
from market import workspace

from hft_platform.config.keys import signing_key
from hft_platform.config.promotion_folder import promotions_root
from hft_platform.config.settings import load_settings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import load_instruments
from hft_platform.services.session_runner import RunRequest, run_session
from research import cli, registry
from research.experiments import TrialLedger
from research.gates import GATES, run_gate
from research.gates.context import open_context
from research.gates.rehearsal import rehearse, report_path
from research.gates.verdict import GateVerdict, read_verdict
from research.promotion.promote import promote

ALPHA = registry.find_alpha("gen_imbalance_taker")
DAYS = 8
GRID = len(ALPHA.manifest.grid())


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    """A workspace after one rehearsal whose shadow sessions were kept, and the rehearsal."""
    ws = workspace(
        tmp_path_factory.mktemp("rehearsed"), "SIM_EDGE", days=DAYS, drift_ticks_per_s=0.9
    )
    return ws, rehearse(ws, ALPHA, keep=True)


@pytest.fixture
def ws(rehearsed, tmp_path):
    shutil.copytree(rehearsed[0], tmp_path / "ws", symlinks=True)
    return tmp_path / "ws"


def kept(ws, part):
    return ws / "rehearsals" / f"{ALPHA.key}-kept" / part


def refused(code, call, *arguments, **options):
    with pytest.raises(PlatformError) as caught:
        call(*arguments, **options)
    assert caught.value.code == code, caught.value
    return caught.value


def test_no_gate_stops_the_next_one_and_each_has_its_statistics(rehearsed):
    findings = rehearsed[1].findings
    assert tuple(findings) == GATES
    # Eight days are far too few for gate C, and the gates after it were computed all the same.
    assert findings["gate_c"].verdict is not GateVerdict.PASSED
    assert all(found.verdict is not GateVerdict.NOT_COMPUTED for found in findings.values())
    corner = findings["gate_c"].results["corners"]["sampled/risk_adverse"]
    assert {"sharpe", "deflated_sharpe", "newey_west_t", "bootstrap_lower"} <= set(corner)
    assert {"marginal", "capacity", "weights"} <= set(findings["gate_d"].results)


def test_gate_e_is_measured_on_signed_sessions_of_the_real_runtime(rehearsed):
    rows = rehearsed[1].findings["gate_e"].results["sessions"]
    assert [row["session_id"] for row in rows] == [
        name.split(" ")[1] for name in rehearsed[1].sessions["frozen"]
    ]
    for row in rows:
        assert row["parity_identical"] == row["parity_total"] > 0
        assert row["fills"] == row["backtest_fills"] > 0


def missing(value):
    if isinstance(value, dict):
        return sum(missing(part) for name, part in value.items() if name != "not_computed")
    if isinstance(value, list):
        return sum(missing(part) for part in value)
    return value is None


def test_every_statistic_that_does_not_exist_says_why(ws):
    content = json.loads(report_path(ws, ALPHA.key).read_bytes())
    counts = {gate: missing(row["results"]) for gate, row in content["gates"].items()}
    assert counts["gate_c"] > 0
    for gate, row in content["gates"].items():
        assert len(row["undefined"]) == counts[gate], gate
        assert all(len(why) > 10 for why in row["undefined"].values())
    assert content["authorises"] == "nothing"


def test_what_was_rehearsed_is_what_the_gates_compute(rehearsed, ws):
    for gate in ("gate_a", "gate_b", "gate_c"):
        verdict = run_gate(ws, ALPHA, gate, workers=1)
        found = rehearsed[1].findings[gate]
        assert verdict.verdict is found.verdict
        assert verdict.reasons == found.reasons
        if gate != "gate_b":  # whose results may hold times
            assert verdict.results == json.loads(json.dumps(found.results)), gate


def test_a_rehearsal_is_a_trial_once(ws):
    assert len(TrialLedger(ws).keys()) == GRID
    assert rehearse(ws, ALPHA).new_trials == 0
    # Fewer sessions are another window: what was seen there counts as well.
    assert rehearse(ws, ALPHA, session_count=3).new_trials == GRID
    assert len(TrialLedger(ws).keys()) == 2 * GRID


def test_three_sessions_have_one_of_each_role(ws):
    sessions = rehearse(ws, ALPHA, session_count=3).sessions
    assert [len(sessions[role]) for role in ("in_sample", "out_of_sample", "frozen")] == [1, 1, 1]


def test_without_sessions_to_judge_it_says_so_and_goes_on(ws):
    findings = rehearse(ws, ALPHA, session_count=1).findings
    assert findings["gate_b"].verdict is GateVerdict.NOT_COMPUTED
    assert "no session" in findings["gate_b"].reasons[0]["text"]
    assert tuple(findings) == GATES


def test_it_leaves_nothing_in_the_workspace_that_counts(ws):
    assert sorted(path.name for path in ws.iterdir()) == ["datasets", "ledger", "rehearsals"]
    assert all(read_verdict(ws, ALPHA.key, gate) is None for gate in GATES)
    rehearse(ws, ALPHA, session_count=3)
    assert not list((ws / "rehearsals").glob(".work-*"))
    assert not list(ws.rglob("*.key"))


def test_the_next_gate_the_signer_and_the_runtime_know_nothing_of_it(ws):
    refused(ReasonCode.UPSTREAM_VERDICT_MISSING, run_gate, ws, ALPHA, "gate_b")
    refused(
        ReasonCode.UPSTREAM_VERDICT_MISSING,
        promote, ws, ALPHA, stage="shadow", by="a test", why="it was rehearsed",
    )  # fmt: skip
    assert not list(promotions_root(ws).rglob("*.yaml"))


def test_rehearsed_findings_copied_to_the_verdicts_open_no_gate_and_no_signature(ws):
    shutil.copytree(kept(ws, "desk") / "verdicts", ws / "verdicts")
    error = refused(ReasonCode.UPSTREAM_VERDICT_FAILED, run_gate, ws, ALPHA, "gate_b")
    assert "authorises nothing" in str(error)
    refused(
        ReasonCode.UPSTREAM_VERDICT_FAILED,
        promote, ws, ALPHA, stage="shadow", by="a test", why="it was rehearsed",
    )  # fmt: skip


def test_a_rehearsed_permit_copied_to_the_promotions_trades_nothing(ws):
    shutil.copytree(kept(ws, "runtime") / "promotions", ws / "promotions")
    config = next((ws / "promotions").glob("*/*.yaml"))
    session = open_context(ws, ALPHA).judged.roles.frozen[0]
    for workspace_of_run in (ws, kept(ws, "runtime")):
        refused(
            ReasonCode.CONFIG_KEY_UNKNOWN,
            run_session, RunRequest(workspace_of_run, config, session, "sim"),
            instruments=load_instruments(), settings=load_settings(),
        )  # fmt: skip


def test_rehearsed_sessions_copied_to_the_sessions_are_no_evidence(ws):
    signing_key(ws, "session")
    shutil.copytree(kept(ws, "runtime") / "sessions", ws / "sessions")
    found = gate_e_finding(ws)
    assert found.results["session_count"] == 0
    assert found.results["refused"] == {"SUMMARY_TAMPERED": 3}


def gate_e_finding(ws):
    from research.gates.run import find

    return find(open_context(ws, ALPHA), "gate_e")[0]


def test_the_real_pool_is_what_gate_d_is_rehearsed_beside(ws):
    """The desk sees the workspace's other verdicts and never its own alpha's."""
    for key in ("another_alpha@0123456789ab", ALPHA.key):
        (ws / "verdicts" / key).mkdir(parents=True)
        (ws / "verdicts" / key / "mark").touch()
    rehearse(ws, ALPHA, session_count=3, keep=True)
    assert (kept(ws, "desk") / "verdicts" / "another_alpha@0123456789ab" / "mark").exists()
    assert not (kept(ws, "desk") / "verdicts" / ALPHA.key / "mark").exists()
    assert not list((ws / "verdicts" / ALPHA.key).glob("gate_*"))


def test_seconds_are_told_by_step(rehearsed):
    steps = {row["step"]: row for row in rehearsed[1].steps}
    assert {*GATES, "open workspace", "shadow sessions", "- backtests"} <= set(steps)
    assert steps["shadow sessions"]["calls"] == 3
    outer = sum(row["seconds"] for name, row in steps.items() if not name.startswith("- "))
    assert outer <= rehearsed[1].seconds


def test_the_command_tells_steps_and_prints_the_report_as_json(ws, capsys):
    arguments = ["gates", ALPHA.alpha_id, "--rehearse", "--sessions", "3", "--workspace", str(ws)]
    assert cli.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "gate_d would say" in shown
    assert "it authorises nothing" in shown
    assert cli.main([*arguments, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content == json.loads(report_path(ws, ALPHA.key).read_bytes())
    assert list(content["gates"]) == list(GATES)
