"""A withdrawal is no way to have a canary's losses forgotten."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hft_platform.config.canonical import canonical_json
from hft_platform.config.promotion_folder import promotions_root
from hft_platform.errors import ReasonCode
from hft_platform.services import session_register
from research.gates.verdict import verdict_folder
from research.promotion import audit
from research.promotion.promote import run_canary
from research.promotion.withdrawal import withdraw
from tests.research.promotion.test_promote import ALPHA_ID, FIRST_FROZEN, code_of


def lived(bench: Any, *, share: float, sessions: int = 3) -> None:
    """A canary with so many sessions."""
    bench.write_gates()
    bench.sign("canary")
    for index in range(FIRST_FROZEN, FIRST_FROZEN + sessions):
        bench.run_session(index, share=share)


def rolled_back(bench: Any) -> None:
    lived(bench, share=-3.0)
    run_canary(bench.ws, bench.alpha, by="sensor", config_dir=bench.config_dir)


def test_a_loser_that_an_operator_withdrew_does_not_begin_anew(bench: Any) -> None:
    lived(bench, share=-3.0)
    withdraw(bench.ws, ALPHA_ID, by="operator", why="looks bad")
    assert code_of(bench.sign, "canary") == ReasonCode.CANARY_LOSS_BUDGET
    bench.write_gates(results={"checks": ["again"]})
    assert code_of(bench.sign, "canary") == ReasonCode.CANARY_LOSS_BUDGET
    assert bench.sign("shadow").is_new, "looking on costs nothing"
    assert code_of(bench.sign, "canary") == ReasonCode.CANARY_LOSS_BUDGET


def test_two_lives_that_each_lost_a_little_are_one_past(bench: Any) -> None:
    lived(bench, share=-1.8, sessions=2)
    withdraw(bench.ws, ALPHA_ID, by="operator", why="a pause")
    bench.sign("canary")
    bench.run_session(FIRST_FROZEN + 2, share=-1.8)
    bench.run_session(FIRST_FROZEN + 3, share=-1.8)
    withdraw(bench.ws, ALPHA_ID, by="operator", why="another pause")
    assert code_of(bench.sign, "canary") == ReasonCode.CANARY_LOSS_BUDGET


def test_who_kept_its_promise_begins_anew_at_the_first_stage(bench: Any) -> None:
    lived(bench, share=1.0)
    assert bench.sign("canary").weight_ppm == 200_000
    withdraw(bench.ws, ALPHA_ID, by="operator", why="holiday")
    assert bench.sign("canary").weight_ppm == 100_000


def test_the_sessions_of_another_version_are_not_its_past(bench: Any) -> None:
    lived(bench, share=-3.0)
    withdraw(bench.ws, ALPHA_ID, by="operator", why="looks bad")
    path = bench.alphas / ALPHA_ID / "manifest.yaml"
    path.write_text(path.read_text().replace("ttl_ms: ", "ttl_ms: 1"))
    bench.write_gates()
    assert bench.sign("canary").is_new


def test_a_session_of_an_earlier_life_that_is_gone_is_no_good_one(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lived(bench, share=1.0)
    from research.promotion import canary_life, evidence

    row = session_register.BegunSession(
        run_id="20260013_day-SIM_EDGE-gen_imbalance_taker-canary", alpha_id=ALPHA_ID,
        alpha_hash=bench.alpha.alpha_hash, stage="canary", promotion_seq=1,
    )  # fmt: skip
    for module in (canary_life, evidence):
        monkeypatch.setattr(module, "begun_sessions", lambda _: [row])
    withdraw(bench.ws, ALPHA_ID, by="operator", why="a doubt")
    assert code_of(bench.sign, "canary") == ReasonCode.CANARY_METRIC_MISSING


@pytest.mark.parametrize("stage", ["shadow", "canary"])
def test_the_same_evidence_in_new_files_is_the_same_evidence(bench: Any, stage: str) -> None:
    """Every hash changes when a line of code does; what was refuted did not."""
    rolled_back(bench)
    for gate in ("gate_a", "gate_c"):
        bench.rewrite(gate, results={"checks": ["by other code"]})
    assert code_of(bench.sign, stage) == ReasonCode.CONFIG_WITHDRAWN


def test_other_trials_are_other_evidence_and_the_past_is_still_held_to_it(bench: Any) -> None:
    rolled_back(bench)
    bench.rewrite("gate_c", inputs={"trials": "6" * 64})
    assert code_of(bench.sign, "canary") == ReasonCode.CANARY_LOSS_BUDGET


def test_a_refuted_verdict_that_was_removed_is_not_forgotten(bench: Any) -> None:
    rolled_back(bench)
    old = next(verdict_folder(bench.ws, bench.alpha.key).glob("gate_c-*.json"))
    bench.rewrite("gate_c", inputs={"trials": "6" * 64})
    old.unlink()
    assert code_of(bench.sign, "canary") == ReasonCode.CONFIG_WITHDRAWN


def test_an_older_roll_back_whose_record_failed_is_in_its_file(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chain could not be written, and a later withdrawal has other words."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    lived(bench, share=-3.0)
    with monkeypatch.context() as patch:
        patch.setattr(audit, "_append_durably", full)
        run_canary(bench.ws, bench.alpha, by="sensor", config_dir=bench.config_dir)
    folder = promotions_root(bench.ws) / ALPHA_ID
    record = json.loads((folder / "withdrawn-000001.json").read_bytes())
    later = record | {"promotion_seq": 2, "is_rolled_back": False, "why": "a pause"}
    (folder / "withdrawn-000002.json").write_bytes(canonical_json(later))
    assert code_of(bench.sign, "shadow") == ReasonCode.CONFIG_WITHDRAWN
