"""Splits that leak nothing, the published counts, and paths equal to a naive computation."""

import itertools
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.stats.cross_validation import (
    Labels,
    combinatorial_paths,
    combinatorial_splits,
    cut_groups,
    path_splits,
    purged_train,
    select,
    walk_forward,
    walk_forward_splits,
)

CASES = int(os.environ.get("HFT_FUZZ_CASES", "40"))


def label_intervals(times: np.ndarray, *, horizon: int, segment: np.ndarray) -> Labels:
    """Labels over ``[t, t + horizon]``, of the rows whose label ends within their own segment."""
    ends = times + horizon
    last = times[np.searchsorted(segment, segment, side="right") - 1]
    kept = np.flatnonzero(ends <= last)
    return Labels(kept, times[kept], ends[kept], segment[kept])


@st.composite
def labeled(draw):
    """Irregular ticks in several sessions, with a horizon that may span many of them."""
    sessions = draw(st.integers(6, 12))
    times, segment, now = [], [], 0
    for number in range(sessions):
        for _ in range(draw(st.integers(2, 8))):
            now += draw(st.integers(1, 9))
            times.append(now)
            segment.append(number)
        now += draw(st.integers(0, 30))
    horizon = draw(st.integers(0, 6))
    made = label_intervals(np.array(times), horizon=horizon, segment=np.array(segment))
    return made, np.array(times), np.array(segment), draw(st.integers(0, 25))


@settings(max_examples=CASES, deadline=None, derandomize=True)
@given(labeled())
def test_no_training_label_overlaps_a_test_label_or_begins_in_its_embargo(case):
    labels, _, _, embargo = case
    count = np.unique(labels.segment).size
    splits = (
        list(combinatorial_splits(labels, groups=min(6, count), test_groups=2, embargo=embargo))
        if count >= 3
        else []
    )
    if count >= 4:
        splits += list(walk_forward_splits(labels, folds=3, embargo=embargo))
    for split in splits:
        assert not set(split.train) & set(split.test)
        for i in split.train:
            for j in split.test:
                is_apart = labels.end[i] < labels.start[j] or labels.start[i] > labels.end[j]
                assert is_apart
                assert not labels.end[j] < labels.start[i] <= labels.end[j] + embargo


@settings(max_examples=CASES, deadline=None, derandomize=True)
@given(labeled())
def test_labels_and_groups_stay_within_their_session(case):
    labels, times, segment, _ = case
    for start, end, own in zip(labels.start, labels.end, labels.segment, strict=True):
        inside = segment[(times >= start) & (times <= end)]
        assert set(inside) == {own}
    names = np.unique(labels.segment)
    for groups in range(1, names.size + 1):
        group = cut_groups(labels.segment, groups)
        assert list(np.unique(group)) == list(range(groups))
        assert np.all(np.diff(group) >= 0)
        for name in names:
            assert np.unique(group[labels.segment == name]).size == 1


def test_without_purging_the_property_would_fail():
    """Negative control: plain complements of the test rows do overlap."""
    times = np.arange(60)
    labels = label_intervals(times, horizon=5, segment=np.zeros(60, dtype=np.int64))
    is_test = (labels.start >= 20) & (labels.start < 30)
    naive = np.flatnonzero(~is_test)
    kept = purged_train(labels, is_test, embargo=0)
    assert set(naive) - set(kept) == set(range(15, 20)) | set(range(30, 35))
    assert set(kept) - set(purged_train(labels, is_test, embargo=8)) == set(range(35, 43))


@pytest.mark.parametrize(
    ("groups", "tested", "splits", "paths"), [(6, 2, 15, 5), (10, 2, 45, 9), (16, 8, 12870, 6435)]
)
def test_published_numbers_of_splits_and_paths(groups, tested, splits, paths):
    table = path_splits(groups, tested)
    assert table.shape == (paths, groups)
    assert np.unique(table).size == splits
    made = combinatorial_paths(
        np.random.default_rng(1).standard_normal((64, 3)),
        np.ones((64, 3)),
        groups=groups,
        test_groups=tested,
        embargo=0,
        trades_min=0,
    )
    assert (made.split_count, len(made.sharpe)) == (splits, paths)


def test_every_tested_group_of_every_split_is_used_on_exactly_one_path():
    table = path_splits(6, 2)
    used = [(int(split), g) for row in table for g, split in enumerate(row)]
    expected = [
        (number, g)
        for number, groups in enumerate(itertools.combinations(range(6), 2))
        for g in groups
    ]
    assert sorted(used) == sorted(expected)


@pytest.mark.parametrize("embargo", [0, 1, 3, 9])
def test_paths_equal_a_naive_computation_from_the_splits(embargo):
    rng = np.random.default_rng(2)
    profits, trades = rng.standard_normal((50, 4)), rng.integers(0, 3, (50, 4)).astype(float)
    made = combinatorial_paths(
        profits, trades, groups=10, test_groups=2, embargo=embargo, trades_min=30
    )
    days = np.arange(50)
    labels = Labels(days, days, days, days)
    group = cut_groups(days, 10)
    chosen = []
    for split in combinatorial_splits(labels, groups=10, test_groups=2, embargo=embargo):
        net, count = profits[split.train].sum(axis=0), trades[split.train].sum(axis=0)
        chosen.append(int(select(net[None], count[None], trades_min=30)[0]))
    naive = []
    for row in path_splits(10, 2):
        path = np.concatenate([profits[group == g, chosen[s]] for g, s in enumerate(row)])
        naive.append(path.mean() / path.std(ddof=1))
    assert made.sharpe == pytest.approx(naive, rel=1e-9)
    assert made.distinct_choices == len(set(chosen))


def test_the_fifth_percentile_of_nine_paths_is_the_worst_of_them():
    rng = np.random.default_rng(3)
    made = combinatorial_paths(
        rng.standard_normal((60, 8)),
        np.ones((60, 8)),
        groups=10,
        test_groups=2,
        embargo=1,
        trades_min=0,
    )
    assert made.quantile(0.05) == min(made.sharpe)
    assert made.quantile(1.0) == max(made.sharpe)


def test_walk_forward_learns_only_from_what_ended_before_the_embargo():
    """The setting that is best in the future only is never chosen before it is."""
    profits = np.zeros((60, 2))
    profits[:, 0] = 0.1
    profits[:30, 1], profits[30:, 1] = -1.0, 5.0
    made = walk_forward(profits, np.ones((60, 2)), folds=5, embargo=1, trades_min=0)
    assert made.choices[:2] == (0, 0)
    assert made.choices[-1] == 1
    assert made.periods == tuple(range(10, 60))
    assert made.profits[:20] == (0.1,) * 20


def test_too_few_periods_give_no_paths():
    ones = np.ones((19, 2))
    assert (
        combinatorial_paths(ones, ones, groups=10, test_groups=2, embargo=0, trades_min=0) is None
    )
    assert walk_forward(ones[:7], ones[:7], folds=3, embargo=0, trades_min=0) is None
    with pytest.raises(ValueError, match="3 segments cannot be cut into 4 groups"):
        cut_groups(np.array([0, 1, 2]), 4)
