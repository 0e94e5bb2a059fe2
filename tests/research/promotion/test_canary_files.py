"""A canary's files: old summaries, promises without execution, and which canaries are looked at."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.config.keys import signing_key
from hft_platform.config.promotion_folder import promotions_root, withdrawn_path
from hft_platform.errors import ReasonCode
from hft_platform.services.session_summary import sign_summary, write_summary
from research import loop
from research.gates.promise import SessionExecution, promised_metrics
from research.promotion.canary import Action, PromisedMetric
from research.promotion.canary_life import newest_issue, promise_of
from research.promotion.promote import run_canary
from tests.research.promotion.test_promote import (
    ALPHA_ID,
    FIRST_FROZEN,
    evaluated,
    in_this_process,
    pinned,
)


def registered(bench: Any) -> None:
    """As `register_alphas` leaves it."""
    atomic_write(bench.ws / "alphas.json", canonical_json([bench.alpha.key]))


def test_a_summary_of_an_older_runtime_lacks_a_metric_and_fails(bench: Any) -> None:
    gates = bench.write_gates()
    bench.sign("canary")
    path = bench.run_session(FIRST_FROZEN)
    counts = dict(json.loads(path.read_bytes())["evidence"]["counts"])
    assert evaluated(bench, gates).action is Action.HOLD
    del counts["filled_orders"]
    bench.run_session(FIRST_FROZEN, counts=counts)
    decision = evaluated(bench, gates)
    (reason,) = decision.reasons
    assert decision.action is Action.ROLL_BACK
    assert reason.code == ReasonCode.CANARY_METRIC_MISSING
    assert "filled_orders missing; a summary of an older runtime lacks it" in reason.text


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"slippage_ticks": None}, ReasonCode.CANARY_METRIC_MISSING),
        ({"markout_ticks": {}}, ReasonCode.CANARY_METRIC_MISSING),
        ({"account": None}, ReasonCode.CANARY_METRIC_MISSING),
        ({"parity": None}, ReasonCode.CANARY_METRIC_MISSING),
        ({"parity": {"identical": 9, "total": 10}}, ReasonCode.CANARY_PARITY_BROKEN),
        ({"shed_count": 1}, ReasonCode.SESSION_SHED),
    ],
)
def test_a_signed_summary_that_lacks_or_breaks_something_withdraws_the_config(
    bench: Any, changes: dict[str, Any], code: int
) -> None:
    bench.write_gates()
    bench.sign("canary")
    bench.run_session(FIRST_FROZEN, **changes)
    decision = run_canary(bench.ws, bench.alpha, by="sensor", config_dir=bench.config_dir)
    assert [reason.code for reason in decision.reasons] == [code]
    content = json.loads(withdrawn_path(promotions_root(bench.ws), ALPHA_ID, 1).read_bytes())
    assert (content["reason_code"], content["is_rolled_back"]) == (code, True)


def test_a_verdict_without_execution_by_session_is_no_promise(bench: Any) -> None:
    gates = bench.write_gates()
    bench.sign("canary")
    del gates["gate_c"].results["promise"]["execution"]
    decision = evaluated(bench, gates)
    (reason,) = decision.reasons
    assert reason.code == ReasonCode.CANARY_METRIC_MISSING
    assert "run gate C again" in reason.text


def test_what_gate_c_measured_is_what_the_canary_is_held_to(bench: Any) -> None:
    sessions = [
        SessionExecution(10, 8, 8, 1.0, {"10s": 3.0}),
        SessionExecution(20, 20, 22, 2.0, {"10s": 5.0}),
        SessionExecution(0, 0, 0, None, {"10s": None}),
    ]
    gates = bench.write_gates()
    gate_c = gates["gate_c"]
    gate_c.results["promise"]["execution"] = promised_metrics(sessions)
    got = promise_of(gate_c).execution
    assert got["slippage_ticks"] == PromisedMetric(1.5, pytest.approx(0.5**0.5), 2, 15.0)
    assert got["markout_ticks_10s"] == PromisedMetric(4.0, pytest.approx(2**0.5), 2, 15.0)
    assert got["fill_ratio"] == PromisedMetric(0.9, pytest.approx(0.02**0.5), 2, 15.0)
    assert promised_metrics(sessions[1:])["slippage_ticks"] is None


def test_the_sensor_looks_at_each_canary_once_for_what_is_known_of_it(bench: Any) -> None:
    registered(bench)
    bench.write_gates()
    bench.sign("shadow")
    bench.run_session(FIRST_FROZEN)
    assert loop.pending_canaries(bench.ws) == []
    bench.sign("canary")
    assert loop.pending_canaries(bench.ws) == []
    path = bench.run_session(FIRST_FROZEN + 1)
    bench.run_session(FIRST_FROZEN + 2)
    first = loop.pending_canaries(bench.ws)
    assert [key for key, _ in first] == [bench.alpha.key]
    assert loop.pending_canaries(bench.ws) == first
    path.write_bytes(path.read_bytes().replace(b'"net":', b'"nett":'))
    tampered = loop.pending_canaries(bench.ws)
    assert tampered != first, "a summary that does not verify is a reason to look"
    assert len(tampered) == 1
    path.unlink()
    assert loop.pending_canaries(bench.ws) not in (first, tampered)


def test_the_same_session_of_two_instruments_is_two_and_a_repeat_is_judged(bench: Any) -> None:
    gates = bench.write_gates()
    bench.sign("canary")
    path = bench.run_session(FIRST_FROZEN)
    first = json.loads(path.read_bytes())["evidence"]
    for run_id, symbol in (
        (path.parent.name + "-2", first["symbol"]),
        (path.parent.name.replace(first["symbol"], "SIM_TWO"), "SIM_TWO"),
    ):
        evidence = first | {"run_id": run_id, "symbol": symbol}
        write_summary(
            bench.ws / "sessions" / run_id / "summary.json",
            sign_summary(evidence, {}, signing_key(bench.ws, "session")),
        )
    facts = evaluated(bench, gates).facts
    assert (facts["sessions"], facts["runs"], facts["orders"]) == (2, 3, 300)


def test_the_next_canary_session_is_looked_for_by_instrument(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = SimpleNamespace
    refs = [ref(symbol=symbol, session_id=f"{day}/day") for day in range(9) for symbol in "AB"]
    rows = [
        {"stage": "canary", "symbol": "A", "session_id": row.session_id}
        for row in refs[loop.SHADOW_SESSIONS :]
    ]
    monkeypatch.setattr(loop, "frozen_sessions", lambda *_: refs)
    monkeypatch.setattr(loop, "session_evidence", lambda *_: rows)
    found = loop._next_canary_sessions(bench.ws, bench.alpha.key)
    assert [row.symbol for row in found] == ["B"] * len(found)
    assert found


def test_a_graduated_alpha_keeps_its_guard(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned(bench, tmp_path)
    monkeypatch.setenv("HFT_PINNED_KEYS_FILE", str(tmp_path / "pins"))
    registered(bench)
    bench.graduate()
    bench.sign("live")
    bench.run_session(FIRST_FROZEN + 3)
    ((key, _),) = loop.pending_canaries(bench.ws)
    assert key == bench.alpha.key
    bench.run_session(
        FIRST_FROZEN + 4,
        counts={"records": 5, "decisions": 10, "approved": 100, "refused_by_code": {},
                "orders": 100, "broker_rejects": 40, "unknown": 0, "filled_orders": 50},
    )  # fmt: skip
    assert loop.decide_canary(bench.ws, key)["rolled_back"]
    assert loop.pending_canaries(bench.ws) == []


def test_a_canary_does_not_outgrow_the_book_that_its_gates_saw(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(bench, monkeypatch)
    bench.capacity_ppm = 150_000
    bench.write_gates()
    bench.sign("canary")
    for index in range(FIRST_FROZEN, FIRST_FROZEN + 3):
        bench.run_session(index)
    decision = run_canary(bench.ws, bench.alpha, by="sensor", config_dir=bench.config_dir)
    assert (decision.action, decision.weight_ppm) == (Action.STEP_UP, 150_000)
    issue = newest_issue(bench.ws, ALPHA_ID)
    assert issue is not None
    assert issue.content.weight_ppm == 150_000
