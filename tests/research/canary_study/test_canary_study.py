"""The canary study in small: sessions that the runtime trades, lives, and a rule that peeks."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from research.canary_study.lives import (
    CASES,
    HEALTHY,
    live,
    peeking_share,
    promise_from,
    study,
    upper_bound,
)
from research.canary_study.results import (
    BEGIN,
    END,
    PAGE,
    PICTURE,
    RESULTS,
    markdown,
    with_results,
)
from research.canary_study.sessions import EXTRA_TICKS, SPOILED, PooledSession, pools
from research.promotion.canary_thresholds import load_canary_thresholds

LIMITS, _ = load_canary_thresholds(Path("none"))
POOL, LIVES = 16, 40
Pools = dict[str, list[PooledSession]]


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Pools:
    """Sessions traded by the paper runtime, a few of each kind."""
    return pools(tmp_path_factory.mktemp("pools"), count=POOL)


def test_pools_are_what_their_names_say(pooled: Pools) -> None:
    def mean(name: str, metric: str) -> float:
        return float(np.mean([getattr(s.facts, metric) for s in pooled[name]]))

    assert {s.facts.parity_identical == s.facts.parity_total for s in pooled["healthy"]} == {True}
    assert mean("healthy", "net") > 0 > mean("edge_decay", "net")
    assert mean("healthy", "broker_rejects") == 0 < mean("reject_storm", "broker_rejects")
    assert mean("healthy", "unknown") == 0 < mean("unknown_storm", "unknown")
    assert mean("healthy", "fill_ratio") > 0.9 > 0.8 > mean("fill_ratio_collapse", "fill_ratio")
    promise = promise_from(pooled["healthy_weak_edge"])
    assert promise.mean_net / promise.std_net == pytest.approx(0.5, rel=1e-6)


def test_slipped_sessions_cost_what_two_ticks_on_every_lot_cost(pooled: Pools) -> None:
    before = pooled["healthy"][0]
    after = SPOILED["slippage_2_ticks"](before, LIMITS, np.random.default_rng(0))
    assert before.facts.net is not None
    assert after.facts.net == before.facts.net - EXTRA_TICKS * before.tick_money
    assert before.tick_money > 0
    assert before.facts.slippage_ticks is not None
    assert after.facts.slippage_ticks == before.facts.slippage_ticks + EXTRA_TICKS


def test_every_sickness_is_found_and_the_healthy_live(pooled: Pools) -> None:
    found = study(pooled, LIMITS, lives=LIVES)
    for case in CASES:
        row = found[case]
        early = row["rolled_back_before_onset"]
        if case in HEALTHY:
            # Not above the stated rate by more than chance: 99.9 % of the binomial.
            assert row["rolled_back"] <= chance_bound(LIMITS.error_rate, LIVES)
            continue
        assert row["rolled_back"] + early == LIVES
        assert early <= chance_bound(LIMITS.error_rate, LIVES)
        assert row["sessions_p95"] <= {"edge_decay": 12}.get(case, 8)
    assert found["missing_metric"]["sessions_p95"] == found["parity_break"]["sessions_p95"] == 1
    assert set(found["slippage_2_ticks"]["reasons"]) == {"slippage"}
    assert "reject_rate" in found["reject_storm"]["reasons"]
    assert "unknown_rate" in found["unknown_storm"]["reasons"]
    assert "fill_ratio" in found["fill_ratio_collapse"]["reasons"]


def chance_bound(rate: float, count: int) -> int:
    """Count that a true rate passes with probability 0.1 %."""
    from scipy.stats import binom

    return int(binom.ppf(0.999, count, rate))


def test_a_rule_that_peeks_without_correction_rolls_back_too_many(pooled: Pools) -> None:
    """Negative control: one-sided z-tests at 5 % on slippage alone, after each session."""
    peeked = peeking_share(pooled["healthy"], lives=400)
    assert 400 * peeked > 2 * chance_bound(0.05, 400)


def test_a_life_is_drawn_from_its_seed_alone(pooled: Pools) -> None:
    lived = [
        live(np.random.default_rng([5, i % 3]), "edge_decay", pooled, LIMITS) for i in range(6)
    ]
    assert lived[:3] == lived[3:]


def test_the_bound_of_a_share_is_clopper_pearsons() -> None:
    # None of n: 1 - 0.05^(1/n), the rule of three.
    assert upper_bound(0, 1_000) == pytest.approx(1 - 0.05 ** (1 / 1_000))
    assert upper_bound(3, 3) == 1.0


def test_the_page_shows_what_the_results_file_says() -> None:
    results = json.loads(RESULTS.read_bytes())
    page = PAGE.read_text()
    assert with_results(page, results) == page, "run: python -m research.canary_study --render"
    assert PICTURE.exists()
    assert page.index(BEGIN) < page.index(markdown(results)) < page.index(END)
    assert results["lives"] >= 1_000
    assert set(results["cases"]) == set(CASES)
    assert results["thresholds_sha256"] == load_canary_thresholds(Path("none"))[1]
    for case in HEALTHY:
        assert results["cases"][case]["upper_95"] <= results["stated_error_rate"]
    assert results["peeking_share"] > 4 * results["stated_error_rate"]
    for stop in results["stops"]:
        assert stop["openings_after_command"] == 0
        assert stop["obeyed_ms"] < 1_000
        assert math.isfinite(stop["last_opening_ms"])
