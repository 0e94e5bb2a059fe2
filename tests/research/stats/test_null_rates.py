"""How often every statistic of gate C calls pure noise skill, against the rate it states.

Seeds are fixed. A rate is held against the interval that its stated one leaves with probability
0.999 over the draws made (binomial); where a statistic is known to be off in small samples, the
stated rate is an interval itself, and the test says so.
"""

import numpy as np
import pytest
from scipy.stats import binom

from research import stats
from research.gates.backtests import PositionPath, RunOutput
from research.gates.evidence import SessionRun
from research.gates.placebo import shifted_time, shuffled_days

DAYS = 60


def normal(rng) -> np.ndarray:
    return rng.standard_normal(DAYS)


def fat_tailed(rng) -> np.ndarray:
    return rng.standard_t(4, DAYS)


def clustered(rng) -> np.ndarray:
    """Volatility that persists: quiet weeks and loud weeks, no drift."""
    level = np.empty(DAYS)
    level[0] = 0.0
    for i in range(1, DAYS):
        level[i] = 0.9 * level[i - 1] + 0.3 * rng.standard_normal()
    return np.exp(level) * rng.standard_normal(DAYS)


NULLS = [normal, fat_tailed, clustered]


def assert_rate(hits: list[bool], low: float, high: float) -> None:
    """Hits as often as some rate between `low` and `high` explains."""
    count, found = len(hits), sum(hits)
    least, most = binom.ppf(0.0005, count, low), binom.ppf(0.9995, count, high)
    assert least <= found <= most, f"{found} of {count}, allowed {least:.0f} to {most:.0f}"


@pytest.mark.parametrize("null", NULLS)
def test_newey_west_t(null):
    """t >= 1.645: 5 % stated; with its lags estimated from 60 days it is 5 to 7 %."""
    rng = np.random.default_rng(101)
    assert_rate([stats.newey_west_t(list(null(rng))) >= 1.645 for _ in range(600)], 0.045, 0.075)


@pytest.mark.parametrize("null", NULLS)
def test_newey_west_t_at_the_gate(null):
    """t >= 3: 0.13 % stated; Student's tails and estimated lags make it up to 0.6 %."""
    rng = np.random.default_rng(102)
    assert_rate([stats.newey_west_t(list(null(rng))) >= 3.0 for _ in range(600)], 0.0, 0.006)


@pytest.mark.parametrize("null", NULLS)
def test_probabilistic_sharpe(null):
    rng = np.random.default_rng(103)
    hits = []
    for _ in range(600):
        m = stats.moments_of(list(null(rng)))
        hits.append(
            stats.probabilistic_sharpe(
                m.sharpe, count=m.count, skewness=m.skewness, kurtosis=m.kurtosis
            )
            >= 0.95
        )
    assert_rate(hits, 0.045, 0.06)


@pytest.mark.parametrize("trials", [1, 5, 20])
def test_deflated_sharpe_of_the_best_of_many(trials):
    """At most 5 %, and far less for many trials: it asks for luck beyond the expected luck."""
    rng = np.random.default_rng(104)
    hits = []
    for _ in range(400):
        moments = [stats.moments_of(row) for row in rng.standard_normal((trials, DAYS)).tolist()]
        best = max(moments, key=lambda m: m.sharpe)
        probability, _ = stats.deflated_sharpe(
            best.sharpe,
            count=DAYS,
            trials=trials,
            trial_variance=1.0 / DAYS,
            skewness=best.skewness,
            kurtosis=best.kurtosis,
        )
        hits.append(probability >= 0.95)
    assert_rate(hits, 0.0, 0.055)
    uncounted = [
        stats.probabilistic_sharpe(
            max(stats.moments_of(row).sharpe for row in rng.standard_normal((20, DAYS)).tolist()),
            count=DAYS,
        )
        >= 0.95
        for _ in range(100)
    ]
    assert np.mean(uncounted) > 0.5, "without counting trials most searches find something"


@pytest.mark.parametrize("null", NULLS)
def test_block_bootstrap(null):
    """Lower bound above zero: 5 % stated; resampled days vary too little, so up to 8 %."""
    rng = np.random.default_rng(105)
    hits = []
    for seed in range(400):
        days = null(rng)
        bound = stats.block_bootstrap_mean(
            list(days),
            level=0.95,
            draws=400,
            seed=seed,
            block_length=stats.stationary_block_length(days),
        )
        hits.append(bound.lower > 0.0)
    assert_rate(hits, 0.045, 0.08)


@pytest.mark.parametrize("settings", [1, 8])
def test_superior_predictive_ability(settings):
    """Consistent p <= 0.05: over 800 draws of 60 days it is 7 to 8 %, of 250 days 6.5 %."""
    rng = np.random.default_rng(106)
    hits = [
        stats.superior_predictive_ability(
            rng.standard_normal((DAYS, settings)), draws=200, seed=seed
        ).consistent
        <= 0.05
        for seed in range(250)
    ]
    assert_rate(hits, 0.045, 0.08)


@pytest.mark.parametrize(("settings", "low", "high"), [(1, 0.47, 0.53), (16, 0.02, 0.30)])
def test_worst_combinatorial_path(settings, low, high):
    """One setting: the sign of its mean, a half. Many: all nine paths must earn, which is rarer."""
    rng = np.random.default_rng(107)
    hits = []
    for _ in range(400):
        made = stats.combinatorial_paths(
            rng.standard_normal((250, settings)),
            np.ones((250, settings)),
            groups=10,
            test_groups=2,
            embargo=1,
            trades_min=0,
        )
        hits.append(made.quantile(0.05) > 0.0)
    assert_rate(hits, low, high)


def test_loss_probability_out_of_sample():
    """P(loss) <= 0.05 over 16 settings and 250 days: 4 % of nulls (published figure)."""
    rng = np.random.default_rng(108)
    hits = [
        stats.cscv(rng.standard_normal((250, 16)), blocks=10).oos_loss_probability <= 0.05
        for _ in range(250)
    ]
    assert_rate(hits, 0.01, 0.05)


def sessions(rng, count: int, *, drift: float = 0.0) -> list[RunOutput]:
    """Positions that know nothing of a market that walks at random, or drifts."""
    made = []
    for number in range(count):
        steps = np.sort(rng.integers(0, 300, 20))
        position = rng.choice([-1, 0, 1], 20).astype(np.int64) if drift == 0.0 else np.ones(20, int)
        position[-1] = 0
        moves = rng.integers(-1, 2, 300) + (rng.random(300) < drift)
        run = SessionRun(
            f"s{number}", "SIM", 20260101 + number, gross=0, fees=0, fill_count=20, traded_qty=20,
            max_drawdown=0, trips=(),
        )  # fmt: skip
        path = PositionPath(
            steps * 10**9,
            position.astype(np.int64) * 10**8,
            np.arange(300, dtype=np.int64) * 10**9,
            np.cumsum(moves).astype(np.int64) * 10**8,
            10**8,
        )
        made.append(RunOutput(run, path, None))
    return made


@pytest.mark.parametrize("placebo", ["days_shuffled", "time_shifted"])
def test_placebos_of_positions_that_know_nothing(placebo):
    """t > 1.645 in about 5 % of alphas; at the gate's 3 in far fewer."""
    rng = np.random.default_rng(109)
    values = []
    for seed in range(200):
        outputs = sessions(rng, 40)
        profits = (
            shuffled_days(outputs, seed=seed)
            if placebo == "days_shuffled"
            else shifted_time(outputs)
        )
        values.append(stats.newey_west_t([float(p) for p in profits]))
    assert_rate([v > 1.645 for v in values], 0.04, 0.08)
    assert_rate([v > 3.0 for v in values], 0.0, 0.006)


@pytest.mark.parametrize("placebo", ["days_shuffled", "time_shifted"])
def test_a_position_that_only_rides_a_drift_is_caught_by_every_placebo(placebo):
    """Negative control: always long in a rising market earns in any day's market."""
    outputs = sessions(np.random.default_rng(110), 40, drift=0.3)
    profits = (
        shuffled_days(outputs, seed=1) if placebo == "days_shuffled" else shifted_time(outputs)
    )
    assert stats.newey_west_t([float(p) for p in profits]) > 3.0


def long_all_day(symbol: str, rise: int) -> RunOutput:
    """Always long one lot in a market that rises by `rise`."""
    path = PositionPath(
        np.array([0]),
        np.array([10**8]),
        np.array([0, 10**9]),
        np.array([0, rise * 10**8]),
        10**8,
    )
    return RunOutput(SessionRun("s", symbol, 20260101, 0, 0, 1, 1, 0, ()), path, None)


def test_shuffled_days_pair_no_session_with_itself_and_only_with_its_own_instrument():
    outputs = [long_all_day("A" if rise < 5 else "B", rise) for rise in range(1, 10)]
    seen = set()
    for seed in range(20):
        markets = [profit // 10**8 for profit in shuffled_days(outputs, seed=seed)]
        assert sorted(markets) == list(range(1, 10))
        assert all(market != own for own, market in enumerate(markets, 1))
        assert sorted(markets[:4]) == [1, 2, 3, 4]
        seen.add(tuple(markets))
    assert len(seen) > 10


def test_a_rotation_keeps_what_is_held_across_the_end():
    """Long in the second half of a session is long in the first half of the rotated one."""
    path = PositionPath(
        np.array([50, 99]) * 10**9,
        np.array([1, 0]) * 10**8,
        np.arange(100, dtype=np.int64) * 10**9,
        np.concatenate([np.arange(50), np.full(50, 49)]).astype(np.int64) * 10**8,
        10**8,
    )
    run = SessionRun("s", "SIM", 20260101, 0, 0, 2, 2, 0, ())
    # Long over seconds 0 to 49 of a market that rises by one each second until 49.
    assert shifted_time([RunOutput(run, path, None)]) == [49 * 10**8]
