"""Every statistic against the value its source printed, to the printed digits."""

import itertools
import math

import numpy as np
import pytest

from research import stats
from research.stats.sharpe import periods_to_pass

DAYS = 250
BH_1995 = [
    0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344,
    0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0,
]  # fmt: skip


def test_deflated_sharpe_of_the_paper_example():
    """Bailey and Lopez de Prado, JPM 40(5) 2014, numerical example."""
    probability, hurdle = stats.deflated_sharpe(
        2.5 / math.sqrt(DAYS),
        count=1250,
        trials=100,
        trial_variance=0.5 / DAYS,
        skewness=-3.0,
        kurtosis=10.0,
    )
    assert probability == pytest.approx(0.9003968, abs=5e-8)
    assert hurdle == pytest.approx(0.113172, abs=5e-7)


@pytest.mark.parametrize(
    ("trials", "skewness", "kurtosis", "expected"),
    [(46, -3.0, 10.0, 0.950502), (88, 0.0, 3.0, 0.950491)],
)
def test_deflated_sharpe_variants_of_the_paper_example(trials, skewness, kurtosis, expected):
    probability, _ = stats.deflated_sharpe(
        2.5 / math.sqrt(DAYS),
        count=1250,
        trials=trials,
        trial_variance=0.5 / DAYS,
        skewness=skewness,
        kurtosis=kurtosis,
    )
    assert probability == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize(
    ("days", "trials", "needed", "hurdle"),
    [(60, 10, 6.75, 3.21), (250, 100, 4.21, 2.53), (250, 1000, 4.94, 3.26), (750, 10, 1.86, 0.91)],
)
def test_annual_sharpe_that_null_trials_ask_for(days, trials, needed, hurdle):
    """V = 1/T, Normal moments, 252 days a year: what DSR 0.95 takes, and SR0."""
    daily = needed / math.sqrt(252)
    probability, sr0 = stats.deflated_sharpe(
        daily, count=days, trials=trials, trial_variance=1.0 / days
    )
    assert probability == pytest.approx(0.95, abs=0.004)
    assert sr0 * math.sqrt(252) == pytest.approx(hurdle, abs=0.02)


def test_excess_kurtosis_in_place_of_raw_would_be_noticed():
    """The usual mistake in public code changes the paper's value in the third digit."""
    wrong, _ = stats.deflated_sharpe(
        2.5 / math.sqrt(DAYS),
        count=1250,
        trials=100,
        trial_variance=0.5 / DAYS,
        skewness=-3.0,
        kurtosis=7.0,
    )
    assert abs(wrong - 0.9003968) > 1e-4


def test_probabilistic_sharpe_of_the_hedge_fund_example():
    """The Sharpe Ratio Efficient Frontier: two years of monthly returns."""
    assert stats.probabilistic_sharpe(
        1.585 / math.sqrt(12), count=24, skewness=-2.448, kurtosis=10.164
    ) == pytest.approx(0.913234, abs=5e-7)
    assert stats.probabilistic_sharpe(
        0.458, count=24, skewness=-2.448, kurtosis=10.164
    ) == pytest.approx(0.913361, abs=5e-7)
    assert stats.probabilistic_sharpe(0.458, count=24) == pytest.approx(0.981675, abs=5e-7)


@pytest.mark.parametrize(
    ("sharpe", "target", "per_year", "skewness", "kurtosis", "years"),
    [
        (2.0, 1.0, 250, 0.0, 3.0, 2.731188),
        (2.0, 1.0, 52, 0.0, 3.0, 2.828834),
        (3.0, 2.5, 12, -0.72, 5.78, 27.352920),
    ],
)
def test_minimum_track_record_length_of_figure_8(
    sharpe, target, per_year, skewness, kurtosis, years
):
    periods = stats.min_track_record_length(
        sharpe / math.sqrt(per_year),
        benchmark=target / math.sqrt(per_year),
        skewness=skewness,
        kurtosis=kurtosis,
    )
    assert periods / per_year == pytest.approx(years, abs=5e-7)


@pytest.mark.parametrize(("annual", "years"), [(1.0, 2.71), (2.0, 0.69), (3.0, 0.31)])
def test_minimum_track_record_length_against_zero(annual, years):
    periods = stats.min_track_record_length(annual / math.sqrt(DAYS))
    assert periods / DAYS == pytest.approx(years, abs=0.005)


def test_no_track_record_length_proves_a_sharpe_ratio_below_its_target():
    assert stats.min_track_record_length(0.1, benchmark=0.1) is None


@pytest.mark.parametrize(
    ("trials", "expected"), [(10, 1.574598), (45, 2.235640), (100, 2.530603), (1000, 3.255122)]
)
def test_expected_maximum_of_normals(trials, expected):
    assert stats.expected_max_z(trials) == pytest.approx(expected, abs=5e-7)


def test_expected_maximum_of_an_effective_number_of_trials_grows_from_nothing():
    values = [stats.expected_max_z(1.0 + i / 20.0) for i in range(60)]
    assert values[0] == 0.0
    assert all(before < after for before, after in itertools.pairwise(values))


def test_minimum_backtest_length_of_figure_2():
    length, bound = stats.min_backtest_length_years(45, annual_sharpe=1.0)
    assert length == pytest.approx(4.998087, abs=5e-7)
    assert bound == pytest.approx(7.613325, abs=5e-7)


def test_benjamini_hochberg_rejects_four_of_the_fifteen():
    rejected = stats.benjamini_hochberg(BH_1995, level=0.05)
    assert rejected == [True] * 4 + [False] * 11
    assert sum(p <= 0.05 / 15 for p in BH_1995) == 3, "Bonferroni rejects three of them"
    shuffled = [BH_1995[i] for i in (7, 0, 14, 3, 1, 9, 2, 4, 5, 6, 8, 10, 11, 12, 13)]
    again = stats.benjamini_hochberg(shuffled, level=0.05)
    assert [p for p, r in zip(shuffled, again, strict=True) if r] == [
        0.0001, 0.0095, 0.0004, 0.0019,
    ]  # fmt: skip


def test_harvey_liu_bonferroni_haircut():
    sharpe, p_adjusted, haircut = stats.haircut_sharpe_bonferroni(
        1.0, periods_per_year=12, count=120, autocorrelation=0.1, tests=100
    )
    assert sharpe == pytest.approx(0.912245, abs=5e-7)
    assert p_adjusted / 100 == pytest.approx(0.0046512, abs=5e-8)
    assert p_adjusted == pytest.approx(0.465123, abs=5e-7)
    assert haircut == pytest.approx(0.231731, abs=5e-7)


def test_cscv_of_a_fully_overfit_matrix_is_one():
    """Columns demeaned over the full sample: what wins in one half loses in the other."""
    noise = np.random.default_rng(1).standard_normal((320, 20))
    result = stats.cscv(noise - noise.mean(axis=0), blocks=8)
    assert result.pbo == 1.0
    assert result.oos_loss_probability == 1.0
    assert result.split_count == math.comb(8, 4)


def test_cscv_split_count_of_sixteen_blocks_is_the_published_one():
    noise = np.random.default_rng(2).standard_normal((32, 2))
    assert stats.cscv(noise, blocks=16).split_count == 12870


def test_cscv_of_pure_noise_is_near_one_half():
    """Published .476 +- .137; the mean of 12 matrices has a standard error of 0.04."""
    values = [
        stats.cscv(np.random.default_rng(seed).standard_normal((400, 50)), blocks=10).pbo
        for seed in range(12)
    ]
    assert 0.35 < np.mean(values) < 0.65


def test_cscv_of_a_flat_plateau_of_good_settings_does_not_lose():
    rng = np.random.default_rng(3)
    shared = rng.standard_normal((250, 1)) + 0.3
    result = stats.cscv(shared + 0.1 * rng.standard_normal((250, 16)), blocks=10)
    assert result.oos_loss_probability <= 0.05


def test_cscv_without_enough_periods_or_configurations_is_undefined():
    assert stats.cscv(np.ones((7, 4)), blocks=8) is None
    assert stats.cscv(np.ones((80, 1)), blocks=8) is None
    assert stats.cscv(np.ones((80, 4)), blocks=7) is None


def test_newey_west_without_lags_is_the_plain_t_value():
    values = [0.3, -0.1, 0.5, 0.2, 0.4, -0.2]
    mean = sum(values) / 6
    plain = mean / math.sqrt(sum((v - mean) ** 2 for v in values) / 6 / 6)
    assert stats.newey_west_t(values, lag=0) == pytest.approx(plain, rel=1e-14)


def test_newey_west_by_hand_with_one_lag():
    """Series 1 2 3 4: mean 2.5, g0 = 1.25, g1 = 0.3125, S = g0 + 2 (1/2) g1 = 1.5625."""
    assert stats.newey_west_t([1.0, 2.0, 3.0, 4.0], lag=1) == pytest.approx(
        2.5 / math.sqrt(1.5625 / 4), rel=1e-14
    )


def test_newey_west_shrinks_the_t_value_of_a_persistent_series():
    rng = np.random.default_rng(4)
    series, last = [], 0.0
    for shock in rng.standard_normal(500):
        last = 0.3 * last + shock
        series.append(last + 0.1)
    assert abs(stats.newey_west_t(series)) < abs(stats.newey_west_t(series, lag=0))


def test_newey_west_rejects_a_null_near_its_nominal_rate():
    """t >= 1.645 under the null, 60 days: nominal 5 %, standard error of 2,000 draws 0.5 %."""
    rng = np.random.default_rng(5)
    rate = np.mean(
        [stats.newey_west_t(list(rng.standard_normal(60))) >= 1.645 for _ in range(2000)]
    )
    assert 0.03 < rate < 0.085


def test_block_bootstrap_covers_the_mean_at_its_nominal_rate():
    """Lower 95 % bound of 60 Normals is below the truth in about 95 of 100 samples."""
    rng = np.random.default_rng(6)
    below = [
        stats.block_bootstrap_mean(
            list(rng.standard_normal(60) + 1.0), level=0.95, draws=400, seed=seed
        ).lower
        <= 1.0
        for seed in range(300)
    ]
    assert 0.90 <= np.mean(below) <= 0.98


def test_block_bootstrap_is_the_same_for_the_same_seed_and_another_for_another():
    values = [float(i % 7) for i in range(50)]
    one = stats.block_bootstrap_mean(values, level=0.95, draws=200, seed=1, block_length=5)
    assert one == stats.block_bootstrap_mean(values, level=0.95, draws=200, seed=1, block_length=5)
    assert one != stats.block_bootstrap_mean(values, level=0.95, draws=200, seed=2, block_length=5)


def test_longer_blocks_widen_the_interval_of_a_persistent_series():
    values = [1.0 if (i // 20) % 2 else -1.0 for i in range(400)]
    short = stats.block_bootstrap_mean(values, level=0.95, draws=500, seed=1, block_length=1)
    long = stats.block_bootstrap_mean(values, level=0.95, draws=500, seed=1, block_length=20)
    assert long.upper - long.lower > 2 * (short.upper - short.lower)


def test_students_bound_by_hand():
    """Values 1 2 3: mean 2, standard error 1/sqrt(3), t(0.95, 2) = 2.919986."""
    bound = stats.student_upper_bound([1.0, 2.0, 3.0], level=0.95)
    assert bound == pytest.approx(2.0 + 2.919986 / math.sqrt(3), abs=1e-6)
    assert stats.student_upper_bound([1.0], level=0.95) is None


def test_moments_of_a_constant_series_do_not_exist():
    assert stats.moments_of([1.0, 1.0, 1.0, 1.0]) is None
    assert stats.moments_of([1.0, 2.0]) is None


def test_moments_by_hand():
    m = stats.moments_of([0.0, 0.0, 0.0, 4.0])
    assert (m.mean, m.sd) == (1.0, 2.0)
    assert m.skewness == pytest.approx(2 / math.sqrt(3))
    assert m.kurtosis == pytest.approx(7 / 3)


def test_dropping_the_best_leaves_the_rest():
    assert stats.without_best([5, -1, 3, 2], count=1) == 4
    assert stats.without_best([5], count=3) == 0
    assert stats.without_best_share([10] + [1] * 19, share=0.05) == 19


def test_periods_to_pass_meets_both_hurdles_and_one_period_less_does_not():
    arguments = {"skewness": 0.2, "kurtosis": 4.0}
    needed = periods_to_pass(0.4, trials=12, t_min=3.0, confidence=0.95, **arguments)

    def passes(count: int) -> bool:
        probability, _ = stats.deflated_sharpe(
            0.4, count=count, trials=12, trial_variance=1 / count, **arguments
        )
        return probability >= 0.95 and 0.4 * math.sqrt(count) >= 3.0

    assert passes(needed)
    assert not passes(needed - 1)
    assert periods_to_pass(-0.1, trials=12, t_min=3.0, confidence=0.95, **arguments) is None
