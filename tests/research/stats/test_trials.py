"""Effective number of trials and their spread, on planted truths."""

import numpy as np
import pytest

from research.stats.trials import effective_trials, standardized_variance

DAYS = 250


def series(rows: np.ndarray) -> list[dict[int, float]]:
    return [{20260101 + day: float(v) for day, v in enumerate(row)} for row in rows]


@pytest.mark.parametrize("clusters", [1, 3, 8])
def test_planted_clusters_of_near_copies_count_once_each(clusters):
    rng = np.random.default_rng(clusters)
    truths = rng.standard_normal((clusters, DAYS))
    rows = np.repeat(truths, 12, axis=0) + 0.02 * rng.standard_normal((12 * clusters, DAYS))
    found = effective_trials(series(rng.permutation(rows)))
    assert found.clusters == clusters
    assert found.effective == pytest.approx(clusters, rel=0.02)
    assert found.count == 12 * clusters


@pytest.mark.parametrize(("trials", "days"), [(100, 250), (40, 20), (300, 60)])
def test_independent_trials_count_as_many_even_over_few_days(trials, days):
    """Over 20 days two of 40 independent series correlate above one half by chance."""
    rows = np.random.default_rng(trials).standard_normal((trials, days))
    assert effective_trials(series(rows)).effective >= 0.99 * trials


def test_exact_copies_count_once_and_so_do_settings_that_never_trade():
    row = np.random.default_rng(1).standard_normal((1, DAYS))
    assert effective_trials(series(np.repeat(row, 20, axis=0))).effective == 1.0
    assert effective_trials(series(np.zeros((9, DAYS)))).effective == 1.0


def test_a_loose_family_lies_between_one_and_its_size():
    rng = np.random.default_rng(2)
    rows = 0.9 * rng.standard_normal((1, DAYS)) + 0.44 * rng.standard_normal((20, DAYS))
    assert 3.0 < effective_trials(series(rows)).effective < 8.0


def test_more_trials_never_lower_the_number_much_and_other_days_are_never_merged():
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((5, DAYS))
    other = [{day + 10_000: v for day, v in trial.items()} for trial in series(rows)]
    assert effective_trials(series(rows) + other).effective == pytest.approx(10.0)


def test_the_number_does_not_depend_on_the_order_or_the_unit():
    rng = np.random.default_rng(4)
    rows = np.repeat(rng.standard_normal((4, DAYS)), 5, axis=0)
    rows += 0.1 * rng.standard_normal(rows.shape)
    one = effective_trials(series(rows)).effective
    assert effective_trials(series(rows[::-1])).effective == pytest.approx(one)
    assert effective_trials(series(2e10 * rows)).effective == pytest.approx(one)


def test_the_spread_of_skill_less_trials_is_one_whatever_their_length():
    rng = np.random.default_rng(5)
    ratios = [
        (float(row.mean() / row.std(ddof=1)), length)
        for length in (40, 250, 1000)
        for row in rng.standard_normal((200, length))
    ]
    assert standardized_variance(ratios, trials=600) == pytest.approx(1.0, abs=0.15)


def test_spread_trials_raise_it_and_losers_do_so_only_to_a_bound():
    rng = np.random.default_rng(6)
    luck = [(float(z) / 10.0, 100) for z in rng.standard_normal(50)]
    wide = [(3.0 * ratio, count) for ratio, count in luck]
    assert standardized_variance(wide, trials=50) > 3.0
    losers = [(-5.0, 100)] * 50
    assert standardized_variance(luck + losers, trials=100) < 4.0


def test_one_strong_alpha_does_not_close_the_door_to_others():
    rng = np.random.default_rng(7)
    luck = [(float(z) / 10.0, 100) for z in rng.standard_normal(46)]
    assert standardized_variance(luck + [(2.0, 100)] * 4, trials=50) < 4.0


def test_one_trial_has_the_spread_of_no_skill():
    assert standardized_variance([(0.3, 100)], trials=1) == 1.0
    assert standardized_variance([(0.3, 100), (0.31, 100)], trials=2) == 1.0
