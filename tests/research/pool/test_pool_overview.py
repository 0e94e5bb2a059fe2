"""What trades, and alphas side by side: from gate C's verdicts alone, and equal to gate D's."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from hft_platform.config.code_hash import code_sha256
from hft_platform.errors import PlatformError, ReasonCode
from research import cli, pool
from research.gates import collect_d
from research.gates.gate_d import PoolEvidence, evaluate
from research.gates.session_series import PARTS
from research.gates.thresholds import load_thresholds
from research.gates.verdict import GateVerdict, Verdict, write_verdict
from research.pool import overview
from research.pool.weights import METHODS
from research.registry import Alpha, bundled_folder, load_alpha

NAMES = ("gen_dying_taker", "gen_imbalance_taker", "gen_null_taker")
DAYS = 60


def judge(ws: Path, alpha: Alpha, *, seed: int) -> None:
    """A gate C verdict with what gate D takes of it."""
    rng = np.random.default_rng(seed)
    days = [20260101 + d for d in range(DAYS)]
    nets = [int(value) for value in rng.normal(30, 90, DAYS)]
    results = {
        "worst_corner": "sampled/risk_adverse",
        "corners": {"sampled/risk_adverse": {"days": DAYS, "newey_west_t": 4.5 + seed}},
        "chosen_parameters": {}, "trial_count": 5, "checks": [],
        "daily_net": {str(day): net for day, net in zip(days, nets, strict=True)},
        "positions": {"parts": PARTS, "sessions": {
            f"{day} d": rng.integers(-1000, 1000, PARTS).tolist() for day in days}},
        "displayed_share": [0.1] * 20,
        "out_of_sample": [{"symbol": "SIM_EDGE"}],
    }  # fmt: skip
    verdict = Verdict(
        gate="gate_c", alpha_id=alpha.alpha_id, alpha_hash=alpha.alpha_hash,
        verdict=GateVerdict.PASSED, reasons=(), thresholds_sha256="0" * 64,
        code_sha256=code_sha256(), inputs={}, results=results,
    )  # fmt: skip
    write_verdict(ws, alpha, verdict)


@pytest.fixture
def alphas(tmp_path: Path) -> list[Alpha]:
    for name in NAMES:
        shutil.copytree(bundled_folder() / name, tmp_path / "alphas" / name)
    found = [load_alpha(tmp_path / "alphas" / name) for name in NAMES]
    for seed, alpha in enumerate(found):
        judge(tmp_path / "ws", alpha, seed=seed)
    return found


@pytest.fixture
def members(alphas: list[Alpha], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All three hold a permit; who holds one is tested with real ones in `tests/research/gates`."""
    keys = sorted(alpha.key for alpha in alphas)
    monkeypatch.setattr(overview, "pool_members", lambda ws, **_: keys)
    return keys


def test_weights_risk_and_margins_are_the_functions_of_gate_d(
    alphas: list[Alpha], members: list[str], tmp_path: Path
) -> None:
    ws = tmp_path / "ws"
    facts = overview.pool_overview(ws, config_dir=tmp_path)
    assert [row["alpha"] for row in facts["members"]] == members
    assert set(facts["weights"]) == set(METHODS)
    for method, weights in facts["weights"].items():
        assert sum(weights.values()) == pytest.approx(1.0)
        assert sum(facts["risk_shares"][method].values()) == pytest.approx(1.0)
    shares = facts["risk_shares"]["equal_risk"].values()
    assert list(shares) == pytest.approx([1 / 3] * 3, abs=1e-8)
    assert len(facts["pairs"]) == 3
    parts = {key: collect_d.pool_alpha(collect_d.gate_c_of(ws, key)) for key in members}
    own, others = members[0], members[1:]
    thresholds = load_thresholds(tmp_path).gate_d
    evidence = PoolEvidence(parts[own], {key: parts[key] for key in others}, 100_000)
    judged = evaluate(evidence, thresholds).results
    assert facts["marginal"][own] == judged["marginal"]
    renamed = {key if key != own else "self": w for key, w in facts["weights"]["hrp"].items()}
    assert judged["weights"]["hrp"] == pytest.approx(renamed)
    by_pair = {(row["left"], row["right"]): row for row in facts["pairs"]}
    for row in judged["correlations"]:
        pair = by_pair[own, row["alpha"]]
        assert pair["correlation"] == row["correlation"]
        assert pair["position_correlation"] == row["position_correlation"]
        assert row["shared_parts"] == DAYS * PARTS


def test_the_margin_of_a_member_is_measured_without_itself(
    alphas: list[Alpha], members: list[str], tmp_path: Path
) -> None:
    facts = overview.pool_overview(tmp_path / "ws", config_dir=tmp_path)
    profits = [
        collect_d.pool_alpha(collect_d.gate_c_of(tmp_path / "ws", key)).daily_net for key in members
    ]
    folds = load_thresholds(tmp_path).gate_d.folds
    alone = pool.out_of_fold(profits[0], profits[1:], folds=folds)
    assert facts["marginal"][members[0]] == alone.as_dict()


def test_pool_and_compare_print_what_the_functions_say(
    alphas: list[Alpha], members: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--workspace", str(tmp_path / "ws"), "--alphas", str(tmp_path / "alphas"),
             "--config-dir", str(tmp_path)]  # fmt: skip
    assert cli.main(["pool", *place]) == 0
    text = capsys.readouterr().out
    facts = overview.pool_overview(tmp_path / "ws", config_dir=tmp_path)
    for key in members:
        assert f"{facts['weights']['hrp'][key]:.1%}" in text
    assert text.count(" and ") == 3
    assert cli.main(["compare", *NAMES[:2], *place]) == 0
    text = capsys.readouterr().out
    assert "4.5" in text
    assert "5.5" in text
    assert "profit 0." in text or "profit -0." in text


def test_a_member_without_its_verdict_is_no_member_to_be_passed_over(
    alphas: list[Alpha], members: list[str], tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "ws" / "verdicts" / members[1])
    with pytest.raises(PlatformError) as refused:
        overview.pool_overview(tmp_path / "ws", config_dir=tmp_path)
    assert refused.value.code == ReasonCode.UPSTREAM_VERDICT_MISSING
