"""Gate E on signed sessions of the real runtime, and on summaries that are none."""

import json
import shutil

import pytest

from hft_platform.config.keys import signing_key
from hft_platform.config.promotion_folder import head_config
from hft_platform.config.settings import load_settings
from hft_platform.errors import ReasonCode
from hft_platform.market.instruments import load_instruments
from hft_platform.services.session_register import register_path
from hft_platform.services.session_runner import RunRequest, run_session
from hft_platform.services.session_summary import sign_summary, write_summary
from research import registry
from research.gates import run_gate
from research.gates.context import open_context
from research.gates.verdict import GateVerdict
from research.promotion.promote import promote

ALPHA = registry.find_alpha("gen_imbalance_taker")
SESSIONS = 5


@pytest.fixture(scope="module")
def traded(planted, tmp_path_factory):
    """The planted workspace after five shadow sessions on frozen days."""
    ws = tmp_path_factory.mktemp("traded") / "ws"
    shutil.copytree(planted[0], ws)
    promote(ws, ALPHA, stage="shadow", by="a test", why="gates A and B passed")
    for session in open_context(ws, ALPHA).judged.roles.frozen[:SESSIONS]:
        request = RunRequest(ws, head_config(ws, ALPHA.alpha_id), session, "sim")
        run_session(request, instruments=load_instruments(), settings=load_settings())
    return ws


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


def test_gate_e_again_gives_the_same_bytes(ws):
    assert run_gate(ws, ALPHA, "gate_e").to_bytes() == run_gate(ws, ALPHA, "gate_e").to_bytes()


def edit(path, **changes):
    content = json.loads(path.read_bytes())
    content["evidence"] |= changes
    path.chmod(0o644)
    path.write_text(json.dumps(content))


def test_an_edited_summary_is_no_session(ws):
    edit(summaries(ws)[0], halted_by=0, slippage_ticks=-9.0)
    verdict = run_gate(ws, ALPHA, "gate_e")
    assert verdict.verdict is GateVerdict.INSUFFICIENT_EVIDENCE
    assert verdict.reasons[0]["code"] == ReasonCode.SHADOW_SESSIONS_TOO_FEW
    assert verdict.results["refused"] == {"SUMMARY_TAMPERED": 1}


def test_a_session_that_shed_market_data_is_no_session(ws):
    path = summaries(ws)[0]
    content = json.loads(path.read_bytes())
    assert content["evidence"]["shed_count"] == 0
    evidence = content["evidence"] | {"shed_count": 3}
    write_summary(path, sign_summary(evidence, content["timings"], signing_key(ws, "session")))
    verdict = run_gate(ws, ALPHA, "gate_e")
    assert verdict.verdict is GateVerdict.INSUFFICIENT_EVIDENCE
    assert verdict.results["refused"] == {"SESSION_SHED": 1}


def test_a_session_counts_once_however_often_its_summary_is_copied(ws):
    first = summaries(ws)[0].parent
    summaries(ws)[-1].unlink()
    shutil.copytree(first, first.with_name(first.name + "-2"))
    verdict = run_gate(ws, ALPHA, "gate_e")
    assert verdict.results["session_count"] == SESSIONS - 1
    assert verdict.verdict is GateVerdict.INSUFFICIENT_EVIDENCE


def test_a_session_that_was_deleted_is_missed(ws):
    shutil.rmtree(summaries(ws)[-1].parent)
    verdict = run_gate(ws, ALPHA, "gate_e")
    assert verdict.verdict is GateVerdict.NOT_COMPUTED
    assert verdict.reasons[0]["code"] == ReasonCode.SUMMARY_TAMPERED


def test_sessions_signed_by_another_workspace_do_not_count(ws):
    register_path(ws).unlink()  # signed with the same key; with it nothing is computed
    for name in ("session.key", "session.pub"):
        (ws / "keys" / name).unlink()
    path = ws / "keys" / "session.pub"
    path.write_text("ab" * 32 + "\n")
    verdict = run_gate(ws, ALPHA, "gate_e")
    assert verdict.verdict is GateVerdict.INSUFFICIENT_EVIDENCE
    assert verdict.results["refused"] == {"SUMMARY_TAMPERED": SESSIONS}
