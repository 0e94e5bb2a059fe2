"""Gates A, B, D and E: sound evidence passes, and each kind of flaw is named by its own check."""

import dataclasses

import numpy as np
import pytest

from hft_platform.errors import ReasonCode
from research.gates import gate_a, gate_b, gate_d, gate_e
from research.gates.data_facts import FAULTS, NO_FAULTS, DataFacts
from research.gates.thresholds import load_thresholds
from research.gates.verdict import GateVerdict


@pytest.fixture(scope="module")
def thresholds(tmp_path_factory):
    return load_thresholds(tmp_path_factory.mktemp("no_config"))


def fault(name: str) -> DataFacts:
    return DataFacts(NO_FAULTS.faults | {name: ("TXFD6 2026-04-10/day",)})


SPEC = gate_a.SpecEvidence(
    hypothesis_chars=200,
    reference_count=1,
    label_horizon_s=2.0,
    program={"features": ["imbalance_ema_2s"], "operations": 3, "memory_bytes": 512},
    session_records={"d1": 5000, "d2": 6000},
    data=NO_FAULTS,
    quality={"rejected": 0.0, "crossed": 0.0, "out_of_order": 0.0, "duplicate": 0.0},
    coverage={"d1": 0.99, "d2": 0.4},
    look_ahead=gate_a.LookAhead(
        rows=1000,
        truncated_mismatches=0,
        perturbed_mismatches=0,
        stepwise_rows=1000,
        stepwise_mismatches=0,
    ),
)
CODE = gate_b.CodeEvidence(
    tests=gate_b.TestRun(passed=3, failed=0, errors=0, skipped=0, ended="finished"),
    compared_rows=1000,
    mismatched_rows=0,
    process_hashes=("a" * 64, "a" * 64),
    tests_sha256="b" * 64,
    event_ns=300,
)


def missed(found) -> set[str]:
    return {row["name"] for row in found.results["checks"] if not row["passed"]}


def test_a_sound_specification_passes_gate_a(thresholds):
    assert gate_a.evaluate(SPEC, thresholds.gate_a).verdict is GateVerdict.PASSED


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"hypothesis_chars": 5}, "hypothesis_chars"),
        ({"reference_count": 0}, "references"),
        ({"label_horizon_s": 1e9}, "label_horizon_s"),
        ({"session_records": {"d1": 5000, "d2": 3}}, "session_records"),
        ({"session_records": {"d1": 5000}}, "sessions"),
        *(({"data": fault(name)}, name) for name in FAULTS),
        ({"data": DataFacts({})}, set(FAULTS)),
        ({"quality": SPEC.quality | {"crossed": 0.01}}, "crossed_share"),
        ({"quality": {"rejected": 0.0, "crossed": 0.0, "duplicate": 0.0}}, "out_of_order_share"),
        ({"program": SPEC.program | {"operations": 10_000}}, "operations"),
        ({"program": SPEC.program | {"memory_bytes": 1 << 30}}, "memory_bytes"),
    ],
)
def test_each_flaw_of_specification_or_data_has_its_own_check(thresholds, change, check):
    found = gate_a.evaluate(dataclasses.replace(SPEC, **change), thresholds.gate_a)
    assert found.verdict is GateVerdict.FAILED
    assert missed(found) == ({check} if isinstance(check, str) else check)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_data_is_told_with_its_code_and_sessions(thresholds, name):
    evidence = dataclasses.replace(SPEC, data=fault(name))
    reason = gate_a.evaluate(evidence, thresholds.gate_a).reasons[0]
    assert reason["code"] == FAULTS[name][0]
    assert "TXFD6 2026-04-10/day" in reason["text"]


@pytest.mark.parametrize(
    "leak",
    [{"truncated_mismatches": 1}, {"perturbed_mismatches": 1}, {"stepwise_mismatches": 1}],
)
def test_one_signal_value_that_knows_the_future_fails_gate_a(thresholds, leak):
    evidence = dataclasses.replace(SPEC, look_ahead=dataclasses.replace(SPEC.look_ahead, **leak))
    found = gate_a.evaluate(evidence, thresholds.gate_a)
    assert found.verdict is GateVerdict.FAILED
    assert found.reasons[0]["code"] == ReasonCode.LOOK_AHEAD_FOUND


def test_a_look_ahead_check_without_rows_is_no_check(thresholds):
    evidence = dataclasses.replace(SPEC, look_ahead=gate_a.NOTHING_COMPARED)
    found = gate_a.evaluate(evidence, thresholds.gate_a)
    assert missed(found) == {"look_ahead_rows", "stepwise_rows"}


def test_sound_code_passes_gate_b(thresholds):
    assert gate_b.evaluate(CODE, thresholds.gate_b).verdict is GateVerdict.PASSED


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"tests": dataclasses.replace(CODE.tests, failed=1)}, "tests_failed"),
        ({"tests": dataclasses.replace(CODE.tests, skipped=1)}, "tests_skipped"),
        ({"tests": dataclasses.replace(CODE.tests, errors=1)}, "tests_errors"),
        ({"tests": dataclasses.replace(CODE.tests, passed=0)}, "tests_passed"),
        ({"tests": dataclasses.replace(CODE.tests, ended="time_limit")}, "tests_ended"),
        ({"mismatched_rows": 1}, "batch_equals_incremental"),
        ({"compared_rows": 0}, "compared_rows"),
        ({"process_hashes": ("a" * 64, "c" * 64)}, "deterministic"),
        ({"process_hashes": ("a" * 64,)}, "deterministic"),
        ({"event_ns": 10_000_000}, "event_time"),
    ],
)
def test_each_flaw_of_the_code_has_its_own_check(thresholds, change, check):
    found = gate_b.evaluate(dataclasses.replace(CODE, **change), thresholds.gate_b)
    assert found.verdict is GateVerdict.FAILED
    assert missed(found) == {check}


def test_a_measured_time_is_judged_and_is_no_part_of_the_finding(thresholds):
    """Two runs never take the same time; their verdicts have the same bytes all the same."""
    for pair in ((300, 4_000), (900_000, 10_000_000)):
        found = [
            gate_b.evaluate(dataclasses.replace(CODE, event_ns=ns), thresholds.gate_b)
            for ns in pair
        ]
        assert found[0] == found[1]
    assert found[0].verdict is GateVerdict.FAILED


def profits(seed: int, *, mean: float = 80.0, days: int = 30) -> dict[int, int]:
    rng = np.random.default_rng(seed)
    return {20260101 + d: int(v) for d, v in enumerate(rng.normal(mean, 100, days))}


def pool_alpha(daily, *, share=0.1, positions=None, instruments=("SIM_EDGE",)):
    sessions = {f"{day} d": row for day, row in (positions or {}).items()}
    return gate_d.PoolAlpha(daily, {"parts": 4, "sessions": sessions}, (share,) * 20, instruments)


def pool_evidence(daily, members, **own):
    return gate_d.PoolEvidence(
        pool_alpha(daily, **own),
        {
            key: m if isinstance(m, gate_d.PoolAlpha) else pool_alpha(m)
            for key, m in members.items()
        },
        100_000,
    )


def exposure(seed: int, days: int = 30) -> dict[int, list[int]]:
    rng = np.random.default_rng(seed)
    return {20260101 + d: rng.integers(-1000, 1000, 4).tolist() for d in range(days)}


def test_the_first_alpha_joins_an_empty_pool(thresholds):
    found = gate_d.evaluate(pool_evidence(profits(1), {}), thresholds.gate_d)
    assert found.verdict is GateVerdict.PASSED, found.reasons
    assert found.results["capacity"]["weight_ppm_max"] == 1_000_000


def test_an_independent_alpha_joins_the_pool(thresholds):
    found = gate_d.evaluate(pool_evidence(profits(1), {"x@1": profits(2)}), thresholds.gate_d)
    assert found.verdict is GateVerdict.PASSED, found.reasons
    assert set(found.results["weights"]) == {"hrp", "equal_risk", "minimum_variance"}
    for weights in found.results["weights"].values():
        assert set(weights) == {"self", "x@1"}
        assert sum(weights.values()) == pytest.approx(1.0)


def test_a_copy_of_a_pool_member_is_refused(thresholds):
    mine = profits(1)
    found = gate_d.evaluate(
        pool_evidence(mine, {"x@1": {d: 2 * v for d, v in mine.items()}}), thresholds.gate_d
    )
    assert found.verdict is GateVerdict.FAILED
    assert ReasonCode.CORRELATION_ABOVE_LIMIT in {r["code"] for r in found.reasons}
    assert {"marginal_t", "marginal_sharpe"} <= missed(found)


def test_the_same_positions_are_refused_although_profits_differ(thresholds):
    """Two alphas that earn on other days and hold the same lots are one bet."""
    held = exposure(1)
    mine = {"positions": held}
    other = pool_alpha(profits(2), positions={d: [2 * v for v in row] for d, row in held.items()})
    found = gate_d.evaluate(pool_evidence(profits(1), {"x@1": other}, **mine), thresholds.gate_d)
    assert missed(found) == {"position_correlation_x@1"}
    apart = pool_alpha(profits(2), positions=exposure(2))
    found = gate_d.evaluate(pool_evidence(profits(1), {"x@1": apart}, **mine), thresholds.gate_d)
    assert found.verdict is GateVerdict.PASSED, found.reasons


def test_a_member_that_held_nothing_in_shared_sessions_has_no_position_correlation(thresholds):
    flat = pool_alpha(profits(2), positions={day: [0] * 4 for day in exposure(1)})
    evidence = pool_evidence(profits(1), {"x@1": flat}, positions=exposure(1))
    assert missed(gate_d.evaluate(evidence, thresholds.gate_d)) == {"position_correlation_x@1"}


def test_an_edge_that_is_only_the_pools_own_is_refused(thresholds):
    """Its profit is real, its t value alone is large, and the pool has it already."""
    member = profits(2, mean=100, days=200)
    noise = np.random.default_rng(9).normal(0, 100, 200)
    mine = {d: int(0.9 * v + e) for (d, v), e in zip(member.items(), noise, strict=True)}
    assert gate_d.evaluate(pool_evidence(mine, {}), thresholds.gate_d).verdict is GateVerdict.PASSED
    found = gate_d.evaluate(pool_evidence(mine, {"x@1": member}), thresholds.gate_d)
    assert "marginal_t" in missed(found)
    assert found.results["marginal"]["folds"] == thresholds.gate_d.folds


def test_a_crowd_on_one_instrument_is_refused_where_each_alone_would_fit(thresholds):
    members = {f"m{i}@1": pool_alpha(profits(10 + i), share=0.8) for i in range(3)}
    found = gate_d.evaluate(pool_evidence(profits(1), members, share=0.8), thresholds.gate_d)
    assert "crowd_participation" in missed(found)
    apart = {
        key: dataclasses.replace(member, instruments=("OTHER",)) for key, member in members.items()
    }
    found = gate_d.evaluate(pool_evidence(profits(1), apart, share=0.8), thresholds.gate_d)
    assert "crowd_participation" not in missed(found)
    assert found.results["capacity"]["crowd_participation"] == 0.8


def test_the_pool_has_a_size_and_an_instrument_holds_so_many_members(thresholds):
    limits = thresholds.gate_d.model_copy(
        update={"pool_size_max": 2, "members_per_instrument_max": 1}
    )
    members = {f"m{i}@1": profits(20 + i, days=200) for i in range(3)}
    found = gate_d.evaluate(pool_evidence(profits(1, days=200), members), limits)
    assert {"pool_size", "members_per_instrument"} <= missed(found)


def test_too_few_shared_days_are_missing_evidence_and_not_independence(thresholds):
    other = {day + 10_000: value for day, value in profits(2).items()}
    found = gate_d.evaluate(pool_evidence(profits(1), {"x@1": other}), thresholds.gate_d)
    assert found.verdict is GateVerdict.INSUFFICIENT_EVIDENCE
    assert "15 more would decide" in found.reasons[0]["text"]
    assert found.results["capacity"]["fills"] == 20
    assert "marginal_t" in missed(found)


def test_what_was_computed_so_far_stands_beside_missing_evidence_and_decides_nothing(thresholds):
    found = gate_e.evaluate(shadow_evidence(3, rejects=20), thresholds.gate_e)
    assert found.verdict is GateVerdict.INSUFFICIENT_EVIDENCE
    assert missed(found) == {"reject_share"}
    assert "reject_share" not in str(found.reasons)
    nothing = gate_e.evaluate(evidence_of([]), thresholds.gate_e)
    assert nothing.verdict is GateVerdict.INSUFFICIENT_EVIDENCE
    assert "slippage_difference" in missed(nothing)


def test_orders_larger_than_what_is_displayed_are_refused(thresholds):
    found = gate_d.evaluate(pool_evidence(profits(1), {}, share=1.5), thresholds.gate_d)
    assert missed(found) == {"participation"}
    assert found.results["capacity"]["weight_ppm_max"] == int(100_000 / 1.5)


def test_an_alpha_without_fills_has_no_capacity(thresholds):
    evidence = gate_d.PoolEvidence(gate_d.PoolAlpha(profits(1)), {}, 100_000)
    found = gate_d.evaluate(evidence, thresholds.gate_d)
    assert missed(found) == {"participation", "crowd_participation"}


LATENCY = {"p50": 200.0, "p95": 400.0}
QUALITY = gate_e.ExecutionQuality(10, 0.5, {"1s": 0.2, "10s": 0.1}, LATENCY)


def shadow(day: int, **changes) -> gate_e.ShadowSession:
    quality = QUALITY
    fields = {
        "session_id": f"s{day}",
        "trading_day": 20260101 + day,
        "summary_sha256": f"{day:064d}",
        "parity_identical": 100,
        "parity_total": 100,
        "orders": 20,
        "rejects": 0,
        "unknown": 0,
        "halted_by": 0,
        "session": quality,
        "backtest": quality,
        "net": 5,
        "backtest_net": 5,
        "volatility": 1.0 + day,
        "regime": ("calm", "usual", "wild")[day % 3],
        "part_of_day": "day",
    }
    return gate_e.ShadowSession(**(fields | changes))


def shadow_evidence(count: int = 5, **changes) -> gate_e.ShadowEvidence:
    last = [shadow(count - 1, **changes)]
    return evidence_of([shadow(d) for d in range(count - 1)] + last)


def evidence_of(sessions, parts=("day",)) -> gate_e.ShadowEvidence:
    return gate_e.ShadowEvidence(tuple(sessions), {}, parts, "f" * 64)


def test_five_clean_shadow_sessions_pass_gate_e(thresholds):
    found = gate_e.evaluate(shadow_evidence(), thresholds.gate_e)
    assert found.verdict is GateVerdict.PASSED, found.reasons


def test_four_shadow_sessions_are_too_few(thresholds):
    found = gate_e.evaluate(shadow_evidence(4), thresholds.gate_e)
    assert found.verdict is GateVerdict.INSUFFICIENT_EVIDENCE
    assert found.reasons[0]["code"] == ReasonCode.SHADOW_SESSIONS_TOO_FEW


def test_five_sessions_of_one_day_are_too_few_days(thresholds):
    sessions = [shadow(d, trading_day=20260101) for d in range(5)]
    found = gate_e.evaluate(evidence_of(sessions), thresholds.gate_e)
    assert found.verdict is GateVerdict.INSUFFICIENT_EVIDENCE


@pytest.mark.parametrize("regimes", [["calm"], [None], ["calm", None]])
def test_sessions_of_one_kind_of_day_are_missing_evidence_of_the_others(thresholds, regimes):
    sessions = [shadow(d, regime=regimes[d % len(regimes)]) for d in range(8)]
    found = gate_e.evaluate(evidence_of(sessions), thresholds.gate_e)
    assert found.verdict is GateVerdict.INSUFFICIENT_EVIDENCE
    assert "volatility regimes in shadow" in found.reasons[0]["text"]


def test_an_alpha_judged_by_day_and_night_is_shadowed_by_day_and_night(thresholds):
    by_day = [shadow(d) for d in range(6)]
    found = gate_e.evaluate(evidence_of(by_day, ("day", "night")), thresholds.gate_e)
    assert found.verdict is GateVerdict.INSUFFICIENT_EVIDENCE
    assert [row["text"][:27] for row in found.reasons] == ["no night session in shadow,"]
    both = evidence_of([*by_day, shadow(6, part_of_day="night")], ("day", "night"))
    assert gate_e.evaluate(both, thresholds.gate_e).verdict is GateVerdict.PASSED


def test_one_decision_that_replays_otherwise_fails_at_once(thresholds):
    found = gate_e.evaluate(shadow_evidence(2, parity_identical=99), thresholds.gate_e)
    assert found.verdict is GateVerdict.FAILED
    assert found.reasons[0]["code"] == ReasonCode.PARITY_BROKEN


WORSE = dataclasses.replace(QUALITY, slippage_ticks=3.0)
MISSING = dataclasses.replace(QUALITY, slippage_ticks=None)
FADED = dataclasses.replace(QUALITY, markout_ticks={"1s": 0.2, "10s": -9.0})
SLOW = dataclasses.replace(QUALITY, order_latency_ms={"p50": 200.0, "p95": 2_000.0})
UNTIMED = dataclasses.replace(QUALITY, order_latency_ms={"p50": 200.0, "p95": None})


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"rejects": 10}, "reject_share"),
        ({"unknown": 1}, "unknown_share"),
        ({"halted_by": 211}, "halted_sessions"),
        ({"session": WORSE}, "slippage_difference"),
        ({"session": MISSING}, "slippage_difference"),
        ({"session": FADED}, "markout_difference_10s"),
        ({"session": SLOW}, "latency_ratio_p95"),
        ({"session": UNTIMED}, "latency_ratio_p95"),
    ],
)
def test_each_degradation_of_execution_has_its_own_check(thresholds, change, check):
    found = gate_e.evaluate(shadow_evidence(5, **change), thresholds.gate_e)
    assert found.verdict is GateVerdict.FAILED
    assert missed(found) == {check}
