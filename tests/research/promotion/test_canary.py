"""Canary lives: how often the healthy are rolled back, how soon the dead are."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hft_platform.errors import PlatformError, ReasonCode
from research.promotion.canary import (
    Action,
    CanaryDecision,
    CanaryThresholds,
    Promise,
    PromisedMetric,
    SessionFacts,
    decide,
    edge_log_evidence,
    first_weight,
)
from research.promotion.canary_metrics import loss_budget_error_bound
from research.promotion.canary_thresholds import load_canary_thresholds

LIVES = 150
SESSIONS = 40
UNIT = 1e12


@pytest.fixture(scope="module")
def limits() -> CanaryThresholds:
    """The packaged thresholds."""
    return load_canary_thresholds(Path("none"))[0]


def promise(**changes: Any) -> Promise:
    """One promised deviation a session, at ten per cent of full size."""
    return Promise(**({"mean_net": UNIT, "std_net": UNIT, "session_count": 30,
                       "weight_ppm": 100_000, "execution": execution()} | changes))  # fmt: skip


def execution(**changes: PromisedMetric | None) -> dict[str, PromisedMetric]:
    """Execution as promised; None leaves one out."""
    said = {
        "slippage_ticks": PromisedMetric(0.5, 0.3, 30, 50.0),
        "markout_ticks_10s": PromisedMetric(2.0, 0.5, 30, 50.0),
        "fill_ratio": PromisedMetric(0.9, 0.05, 30, 100.0),
    } | changes
    return {name: row for name, row in said.items() if row is not None}


def session(
    index: int, result: float = UNIT, weight: int = 100_000, **changes: Any
) -> SessionFacts:
    """A clean session with `result` at the promise's weight."""
    facts: dict[str, Any] = {
        "session_id": f"s{index:03}", "weight_ppm": weight, "net": round(result * weight / 100_000),
        "parity_identical": 10, "parity_total": 10, "orders": 100, "broker_rejects": 0,
        "unknown": 0, "fills": 90, "filled_orders": 90, "slippage_ticks": 0.5,
        "markout_ticks": {"10s": 2.0}, "halted_by": 0,
    }  # fmt: skip
    return SessionFacts(**(facts | changes))


def live(
    nets: np.ndarray, limits: CanaryThresholds, promised: Promise, *, spoiled_at: int = -1,
    spoiled_from: int = SESSIONS, **spoil: Any,
) -> tuple[int | None, CanaryDecision | None, int]:  # fmt: skip
    """Live until rolled back: sessions lived, the decision, the weight reached."""
    history: list[SessionFacts] = []
    weight = first_weight(limits, promised.weight_ppm)
    for index, net in enumerate(nets):
        changes = spoil if index == spoiled_at or index >= spoiled_from else {}
        history.append(session(index, float(net), weight, **changes))
        decision = decide(history, limits, promised, weight_ppm=weight)
        if decision.action is Action.ROLL_BACK:
            return index + 1, decision, weight
        weight = decision.weight_ppm
    return None, None, weight


def lives(
    limits: CanaryThresholds, *, promised: float, real: float, heavy: bool = False, seed: int = 7
) -> tuple[float, float, float]:
    """Share rolled back, median session of it, share that reached full size."""
    rng = np.random.default_rng(seed)

    def draw(count: int, mean: float) -> np.ndarray:
        noise = rng.standard_t(4, count) / math.sqrt(2) if heavy else rng.standard_normal(count)
        return (mean + noise) * UNIT

    ends, full, total = [], 0, 0
    while total < LIVES:
        judged = draw(30, promised)
        if judged.mean() <= 0:
            continue
        total += 1
        said = promise(mean_net=float(judged.mean()), std_net=float(judged.std(ddof=1)))
        end, _, weight = live(draw(SESSIONS, real), limits, said)
        ends += [end] if end else []
        full += weight == limits.weight_stages_ppm[-1]
    return len(ends) / total, float(np.median(ends)) if ends else math.inf, full / total


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("edge", [0.5, 1.0, 2.0])
def test_a_healthy_canary_is_rolled_back_within_the_stated_error_rate(
    limits: CanaryThresholds, edge: float, heavy: bool
) -> None:
    rolled_back, _, full = lives(limits, promised=edge, real=edge, heavy=heavy)
    error = math.sqrt(limits.error_rate * (1 - limits.error_rate) / LIVES)
    assert rolled_back <= limits.error_rate + 2.33 * error
    assert full >= 0.75


def test_a_canary_on_the_edge_of_its_promise_stays_within_the_edge_tests_error_rate(
    limits: CanaryThresholds,
) -> None:
    # The least favorable truth of the null: the mean is the promised lower bound, no more.
    rng = np.random.default_rng(11)
    said = promise()
    bound = 1.0 - limits.promise_standard_errors / math.sqrt(said.session_count)
    limit = -math.log(limits.error_rates["edge"])
    rejected = 0
    for _ in range(1000):
        nets = (bound + rng.standard_normal(SESSIONS)) * UNIT
        history = [session(i, float(net)) for i, net in enumerate(nets)]
        rejected += edge_log_evidence(history, limits, said) >= limit
    assert rejected / 1000 <= limits.error_rates["edge"]


@pytest.mark.parametrize(
    ("edge", "real", "share", "sessions"),
    [(1.0, -0.5, 0.97, 12), (1.0, -1.5, 0.99, 6), (2.0, 0.0, 0.97, 10), (2.0, -2.0, 0.99, 5)],
)
def test_a_dead_edge_is_rolled_back_soon(
    limits: CanaryThresholds, edge: float, real: float, share: float, sessions: int
) -> None:
    rolled_back, median, full = lives(limits, promised=edge, real=real)
    assert rolled_back >= share
    assert median <= sessions
    assert full <= 0.05


def test_an_edge_that_dies_after_the_canary_climbed_is_rolled_back(
    limits: CanaryThresholds,
) -> None:
    rng = np.random.default_rng(3)
    late = 0
    for _ in range(200):
        nets = np.concatenate([1.5 + rng.standard_normal(12), -1.5 + rng.standard_normal(28)])
        end, decision, _ = live(nets * UNIT, limits, promise(mean_net=1.5 * UNIT))
        assert end is not None
        assert decision is not None
        codes = {reason.code for reason in decision.reasons}
        assert codes <= {ReasonCode.CANARY_EDGE_LOST, ReasonCode.CANARY_LOSS_BUDGET}
        late += end <= 12 + 16
    assert late >= 190


MISSING = [
    {"net": None}, {"parity_identical": None}, {"parity_total": None}, {"orders": None},
    {"broker_rejects": None}, {"unknown": None}, {"fills": None}, {"filled_orders": None},
    {"slippage_ticks": None}, {"slippage_ticks": math.nan}, {"markout_ticks": {}},
    {"markout_ticks": {"10s": None}}, {"markout_ticks": {"10s": math.inf}},
    {"problem": "summary does not match its signature"},
]  # fmt: skip


@pytest.mark.parametrize("spoil", MISSING)
def test_a_missing_metric_rolls_back_at_once_in_every_life(
    limits: CanaryThresholds, spoil: dict[str, Any]
) -> None:
    rng = np.random.default_rng(5)
    for at in rng.integers(0, 8, 200 // len(MISSING) + 1):
        nets = np.full(SESSIONS, 1.5 * UNIT)
        end, decision, _ = live(nets, limits, promise(), spoiled_at=int(at), **spoil)
        assert end == at + 1
        assert decision is not None
        assert {r.code for r in decision.reasons} == {ReasonCode.CANARY_METRIC_MISSING}
        assert decision.weight_ppm == 0


def test_a_session_that_does_not_replay_rolls_back_at_once_in_every_life(
    limits: CanaryThresholds,
) -> None:
    for at in range(200):
        index = at % 10
        end, decision, _ = live(
            np.full(SESSIONS, UNIT), limits, promise(), spoiled_at=index, parity_identical=9
        )
        assert end == index + 1
        assert decision is not None
        assert decision.reasons[0].code == ReasonCode.CANARY_PARITY_BROKEN


def test_a_session_whose_log_is_thin_rolls_back_and_is_no_evidence_to_climb(
    limits: CanaryThresholds,
) -> None:
    end, decision, _ = live(np.full(SESSIONS, UNIT), limits, promise(), spoiled_at=4, shed_count=1)
    assert end == 5
    assert decision is not None
    assert [reason.code for reason in decision.reasons] == [ReasonCode.SESSION_SHED]


@pytest.mark.parametrize(
    ("changes", "sessions"),
    [
        ({"broker_rejects": 30}, 1),
        ({"broker_rejects": 8}, 2),
        ({"unknown": 10}, 1),
        ({"unknown": 3}, 5),
        ({"slippage_ticks": 2.5}, 5),
        ({"slippage_ticks": 9.0}, 3),
        ({"markout_ticks": {"10s": -2.0}}, 5),
        ({"filled_orders": 50}, 5),
        ({"filled_orders": 0, "fills": 0, "slippage_ticks": None, "markout_ticks": {}}, 4),
    ],
)
def test_degraded_execution_alone_rolls_back_within_few_sessions(
    limits: CanaryThresholds, changes: dict[str, Any], sessions: int
) -> None:
    end, decision, _ = live(np.full(SESSIONS, UNIT), limits, promise(), spoiled_from=3, **changes)
    assert end is not None
    assert end <= 3 + sessions
    assert decision is not None
    assert {r.code for r in decision.reasons} == {ReasonCode.CANARY_EXECUTION_DEGRADED}


@pytest.mark.parametrize(
    "changes",
    [
        {"broker_rejects": 2},
        {"unknown": 0, "broker_rejects": 1},
        {"slippage_ticks": 1.0},
        {"markout_ticks": {"10s": 1.5}},
        {"filled_orders": 85},
        {"orders": 0, "fills": 0, "filled_orders": 0, "slippage_ticks": None,
         "markout_ticks": {}},
    ],
)  # fmt: skip
def test_execution_within_its_band_is_never_rolled_back(
    limits: CanaryThresholds, changes: dict[str, Any]
) -> None:
    end, _, _ = live(np.full(SESSIONS, UNIT), limits, promise(), spoiled_from=0, **changes)
    assert end is None


@pytest.mark.parametrize("name", ["slippage_ticks", "markout_ticks_10s", "fill_ratio"])
def test_an_execution_metric_that_gate_c_did_not_promise_fails(
    limits: CanaryThresholds, name: str
) -> None:
    for said in (None, PromisedMetric(0.5, 0.3, 1, 50.0), PromisedMetric(0.5, 0.3, 30, 0.0)):
        promised = promise(execution=execution(**{name: said}))
        decision = decide([session(0)], limits, promised, weight_ppm=100_000)
        (reason,) = decision.reasons
        assert reason.code == ReasonCode.CANARY_METRIC_MISSING
        assert name in reason.text
        assert "run gate C again" in reason.text


def test_a_mean_of_few_fills_counts_for_less(limits: CanaryThresholds) -> None:
    many = [session(i, slippage_ticks=2.0) for i in range(3)]
    few = [session(i, slippage_ticks=2.0, fills=1, filled_orders=1) for i in range(3)]
    evidence = [
        decide(rows, limits, promise(), weight_ppm=100_000).facts["slippage_log_evidence"]
        for rows in (many, few)
    ]
    assert evidence[0] > 1.5
    assert evidence[1] < 0.1


@pytest.mark.parametrize(
    "lack",
    [
        {"orders": 6, "filled_orders": 6, "fills": 90},
        {"fills": 6, "filled_orders": 6, "orders": 7},
    ],
)
def test_without_enough_orders_and_fills_there_is_no_step_up(
    limits: CanaryThresholds, lack: dict[str, int]
) -> None:
    history = [session(i, **lack) for i in range(limits.sessions_per_stage)]
    assert decide(history, limits, promise(), weight_ppm=100_000).action is Action.HOLD
    history = [session(i) for i in range(limits.sessions_per_stage)]
    assert decide(history, limits, promise(), weight_ppm=100_000).action is Action.STEP_UP


def test_the_guard_stays_after_the_last_stage(limits: CanaryThresholds) -> None:
    history = [session(i, weight=1_000_000) for i in range(30)]
    assert decide(history, limits, promise(), weight_ppm=1_000_000).action is Action.HOLD
    storm = session(30, weight=1_000_000, broker_rejects=40)
    decision = decide([*history, storm], limits, promise(), weight_ppm=1_000_000)
    assert decision.action is Action.ROLL_BACK


def test_the_chance_of_the_loss_budget_is_in_every_decision(limits: CanaryThresholds) -> None:
    facts = decide([session(0)], limits, promise(), weight_ppm=100_000).facts
    bound = loss_budget_error_bound(limits, promise())
    assert facts["loss_budget_error_bound"] == bound
    assert 0 < bound < 0.1
    assert loss_budget_error_bound(limits, promise(mean_net=0.1 * UNIT)) == 1.0
    rng = np.random.default_rng(23)
    drift = 1.0 - limits.promise_standard_errors / math.sqrt(30)
    paths = np.cumsum(drift + rng.standard_normal((20_000, SESSIONS)), axis=1)
    assert (paths.min(axis=1) <= -limits.loss_budget_std).mean() <= bound


@pytest.mark.parametrize("changes", [{"std_net": 0.0}, {"mean_net": 0.0}, {"session_count": 1},
                                     {"mean_net": math.nan}])  # fmt: skip
def test_without_a_promise_there_is_no_canary(
    limits: CanaryThresholds, changes: dict[str, Any]
) -> None:
    decision = decide([session(0)], limits, promise(**changes), weight_ppm=100_000)
    assert decision.action is Action.ROLL_BACK
    assert decision.reasons[0].code == ReasonCode.CANARY_METRIC_MISSING


def test_weight_climbs_one_stage_for_each_quota_of_sessions_at_it(
    limits: CanaryThresholds,
) -> None:
    history: list[SessionFacts] = []
    weight, seen = 100_000, []
    for index in range(14):
        history.append(session(index, weight=weight))
        weight = decide(history, limits, promise(), weight_ppm=weight).weight_ppm
        seen.append(weight)
    quota = limits.sessions_per_stage
    assert seen[: 3 * quota] == [100_000] * 2 + [200_000] * 3 + [400_000] * 3 + [1_000_000]
    assert set(seen[3 * quota - 1 :]) == {1_000_000}


def test_no_stage_goes_beyond_the_room_that_gate_d_found(limits: CanaryThresholds) -> None:
    history: list[SessionFacts] = []
    weight, seen = 100_000, set()
    for index in range(14):
        history.append(session(index, weight=weight))
        decision = decide(history, limits, promise(), weight_ppm=weight, capacity_ppm=250_000)
        weight = decision.weight_ppm
        seen.add(weight)
    assert seen == {100_000, 200_000, 250_000}
    assert decision.action is Action.HOLD


def test_deciding_again_without_new_sessions_does_not_climb_again(
    limits: CanaryThresholds,
) -> None:
    history = [session(i) for i in range(3)]
    up = decide(history, limits, promise(), weight_ppm=100_000)
    assert (up.action, up.weight_ppm) == (Action.STEP_UP, 200_000)
    again = decide(history, limits, promise(), weight_ppm=200_000)
    assert (again.action, again.weight_ppm) == (Action.HOLD, 200_000)


@pytest.mark.parametrize(
    "history",
    [
        [session(0), session(0), session(0)],
        [session(0), session(1), session(2, halted_by=211)],
        [session(0), session(1), session(2, parity_identical=0, parity_total=0)],
        [session(0), session(1), session(2, weight=200_000)],
        [session(i, 0.3 * UNIT) for i in range(3)],
    ],
)
def test_repeated_halted_empty_foreign_or_poor_sessions_are_no_quota(
    limits: CanaryThresholds, history: list[SessionFacts]
) -> None:
    assert decide(history, limits, promise(), weight_ppm=100_000).action is Action.HOLD


def test_a_session_of_another_instrument_is_another_session(limits: CanaryThresholds) -> None:
    """A permit of two instruments: both trade `2026-04-10/day`."""
    good = [session(i, symbol="A") for i in range(3)]
    lost = [session(i, -8 * UNIT, symbol="B") for i in range(3)]
    decision = decide([*good, *lost], limits, promise(), weight_ppm=100_000)
    assert ReasonCode.CANARY_LOSS_BUDGET in {reason.code for reason in decision.reasons}
    both = [session(i, symbol=symbol) for i in range(2) for symbol in "AB"]
    decision = decide(both, limits, promise(), weight_ppm=100_000)
    assert (decision.action, decision.facts["sessions"]) == (Action.STEP_UP, 4)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"result": -9 * UNIT}, ReasonCode.CANARY_LOSS_BUDGET),
        ({"parity_identical": 9}, ReasonCode.CANARY_PARITY_BROKEN),
        ({"broker_rejects": 60}, ReasonCode.CANARY_EXECUTION_DEGRADED),
    ],
)
def test_a_session_that_is_run_again_counts_against_it_and_not_for_it(
    limits: CanaryThresholds, changes: dict[str, Any], code: int
) -> None:
    good = [session(0), session(1)]
    again = decide([*good, session(1)], limits, promise(), weight_ppm=100_000)
    assert again.action is Action.HOLD
    assert (again.facts["sessions"], again.facts["runs"]) == (2, 3)
    assert again.facts["net_std"] == pytest.approx(2.0)
    decision = decide([*good, session(1, **changes)], limits, promise(), weight_ppm=100_000)
    assert code in {reason.code for reason in decision.reasons}


def test_a_decision_is_pure_and_a_rejection_stays_one(limits: CanaryThresholds) -> None:
    nets = [-UNIT, -UNIT, -2 * UNIT, -2 * UNIT, -UNIT, *[3 * UNIT] * 20]
    history = [session(i, net) for i, net in enumerate(nets)]
    one = decide(history, limits, promise(), weight_ppm=100_000)
    two = decide(history, limits, promise(), weight_ppm=100_000)
    assert one.as_dict() == two.as_dict()
    early = edge_log_evidence(history[:5], limits, promise())
    assert edge_log_evidence(history, limits, promise()) >= early


def test_results_at_a_larger_weight_count_by_the_promised_size(limits: CanaryThresholds) -> None:
    small = [session(i, weight=100_000) for i in range(4)]
    large = [session(i, weight=400_000) for i in range(4)]
    assert edge_log_evidence(small, limits, promise()) == pytest.approx(
        edge_log_evidence(large, limits, promise())
    )


def test_a_new_canary_starts_at_the_first_stage_and_never_above_the_judged_weight(
    limits: CanaryThresholds,
) -> None:
    assert first_weight(limits, 1_000_000) == 100_000
    assert first_weight(limits, 50_000) == 50_000


def test_every_roll_back_reason_has_been_seen(limits: CanaryThresholds) -> None:
    loss = decide([session(0, -7 * UNIT)], limits, promise(), weight_ppm=100_000)
    assert ReasonCode.CANARY_LOSS_BUDGET in {r.code for r in loss.reasons}
    dead = [session(i, 0.0) for i in range(12)]
    lost = decide(dead, limits, promise(mean_net=2 * UNIT), weight_ppm=100_000)
    assert [r.code for r in lost.reasons] == [ReasonCode.CANARY_EDGE_LOST]
    assert lost.as_dict()["reasons"][0]["name"] == "CANARY_EDGE_LOST"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("sessions_per_stage: 3\n", "", "sessions_per_stage"),
        ("error_rate: 0.05", "error_rate: [", "line 18, column 7"),
        ("[100000, 200000", "[200000, 100000", "ascend"),
        ("  slippage: 0.005\n", "", "error_rates are to name"),
        ("  edge: 0.03\n", "  edge: 0.3\n", "error_rates add up to"),
        ("markout_horizon: 10s", "markout_horizon: 7s", "markout_horizon"),
        ("rate_factors: [2.0", "rate_factors: [1.0", "rate_factors"),
    ],
)
def test_wrong_thresholds_are_refused(tmp_path: Path, before: str, after: str, said: str) -> None:
    from importlib import resources

    packaged = (resources.files("hft_platform") / "defaults" / "canary.yaml").read_text()
    assert before in packaged
    (tmp_path / "canary.yaml").write_text(packaged.replace(before, after))
    with pytest.raises(PlatformError) as caught:
        load_canary_thresholds(tmp_path)
    assert caught.value.code == ReasonCode.SETTINGS_INVALID
    assert said in caught.value.message


def test_thresholds_are_hashed_by_what_they_say(tmp_path: Path) -> None:
    from importlib import resources

    packaged = (resources.files("hft_platform") / "defaults" / "canary.yaml").read_text()
    same, hash_packaged = load_canary_thresholds(Path("none"))
    (tmp_path / "canary.yaml").write_text("# a comment\n" + packaged)
    assert load_canary_thresholds(tmp_path) == (same, hash_packaged)
    (tmp_path / "canary.yaml").write_text(
        packaged.replace("loss_budget_std: 6.0", "loss_budget_std: 7.0")
    )
    other, hash_other = load_canary_thresholds(tmp_path)
    assert other == dataclasses.replace(same, loss_budget_std=7.0)
    assert hash_other != hash_packaged
