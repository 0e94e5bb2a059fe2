"""Purged and embargoed splits, walk-forward selection and combinatorial paths.

Why: a choice is judged only on what it could not have seen, in many ways rather than in one.

Invariants:
1. No label of a training row overlaps the label of a test row.
2. No training row begins within the embargo after a test label ended.
3. No group crosses a segment (a session, a contract before its roll).

Rows are ordered in time. Sources: Lopez de Prado, Advances in Financial Machine Learning (2018),
chapters 7 and 12.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Labels:
    """Rows with a label each.

    Attributes
    ----------
    row : ndarray of int64
        Index of the row in what the labels were made from.
    start, end : ndarray of int64
        A label is known from what happens in ``[start, end]``; starts ascend.
    segment : ndarray of int64
        Session or contract of the row; ascends.
    """

    row: IntArray
    start: IntArray
    end: IntArray
    segment: IntArray


@dataclass(frozen=True, slots=True)
class Split:
    """Positions within `Labels`: what may be learnt from, and what is judged."""

    train: IntArray
    test: IntArray


def cut_groups(segment: IntArray, count: int) -> IntArray:
    """Cut rows into contiguous groups of whole segments, as equal in rows as that allows.

    Parameters
    ----------
    segment : ndarray of int64
        Session or contract of each row, ascending.
    count : int
        Number of groups.

    Returns
    -------
    ndarray of int64
        Group of each row, 0 to `count` - 1; every group has at least one segment.

    Raises
    ------
    ValueError
        With fewer segments than groups.
    """
    names, sizes = np.unique(segment, return_counts=True)
    if names.size < count:
        raise ValueError(f"{names.size} segments cannot be cut into {count} groups")
    middles = np.cumsum(sizes) - sizes / 2.0
    wanted = np.minimum((middles * count / segment.size).astype(np.int64), count - 1)
    # Every group gets one: not further than one step at a time, and no later than what is left.
    made = np.empty(names.size, dtype=np.int64)
    group = 0
    for place, value in enumerate(wanted):
        latest_left = count - (names.size - place)
        group = 0 if place == 0 else min(max(int(value), group), group + 1)
        group = max(group, latest_left)
        made[place] = group
    return np.repeat(made, sizes)


def purged_train(labels: Labels, is_test: BoolArray, *, embargo: int) -> IntArray:
    """Positions that may be learnt from when some are tested.

    Parameters
    ----------
    labels : Labels
        All rows.
    is_test : ndarray of bool
        Which of them are tested.
    embargo : int
        Time after the end of a test label in which no training row begins.

    Returns
    -------
    ndarray of int64
    """
    tested = np.flatnonzero(is_test)
    if tested.size == 0:
        return np.arange(labels.start.size)
    starts = labels.start[tested]
    latest_end = np.maximum.accumulate(labels.end[tested])

    def reached(until: IntArray) -> IntArray:
        """Latest end among the test labels that begin at or before `until`."""
        index = np.searchsorted(starts, until, side="right") - 1
        none = np.iinfo(np.int64).min // 2
        return np.where(index >= 0, latest_end[np.maximum(index, 0)], none)

    overlaps = reached(labels.end) >= labels.start
    is_embargoed = reached(labels.start) + embargo >= labels.start
    return np.flatnonzero(~is_test & ~overlaps & ~is_embargoed)


def walk_forward_splits(labels: Labels, *, folds: int, embargo: int) -> Iterator[Split]:
    """Learn from everything before a group, test on it, group after group.

    Parameters
    ----------
    labels : Labels
        All rows.
    folds : int
        Number of tested groups; the rows are cut into one more.
    embargo : int
        As in `purged_train`.

    Yields
    ------
    Split
        In time order; training rows all begin before the test rows.
    """
    group = cut_groups(labels.segment, folds + 1)
    for fold in range(1, folds + 1):
        is_test = group == fold
        train = purged_train(labels, is_test, embargo=embargo)
        yield Split(train[group[train] < fold], np.flatnonzero(is_test))


def combinatorial_splits(
    labels: Labels, *, groups: int, test_groups: int, embargo: int
) -> Iterator[Split]:
    """Test every choice of `test_groups` groups on what is learnt from the others.

    Parameters
    ----------
    labels : Labels
        All rows.
    groups, test_groups : int
        N and k.
    embargo : int
        As in `purged_train`.

    Yields
    ------
    Split
        ``C(N, k)`` of them, in lexicographic order of the tested groups.
    """
    group = cut_groups(labels.segment, groups)
    for tested in itertools.combinations(range(groups), test_groups):
        is_test = np.isin(group, tested)
        yield Split(purged_train(labels, is_test, embargo=embargo), np.flatnonzero(is_test))


def path_splits(groups: int, test_groups: int) -> IntArray:
    """Which split tests a group on a path.

    Parameters
    ----------
    groups, test_groups : int
        N and k.

    Returns
    -------
    ndarray of int64, shape (paths, groups)
        Number of the split, in the order of `combinatorial_splits`; the p-th path takes a group
        from the p-th split that tests it, so every tested group of every split is used once.
    """
    chosen = np.array(list(itertools.combinations(range(groups), test_groups)), dtype=np.int64)
    columns = [np.flatnonzero((chosen == group).any(axis=1)) for group in range(groups)]
    return np.stack(columns, axis=1)


@dataclass(frozen=True, slots=True)
class Paths:
    """Sharpe ratio of every combinatorial path of a selection.

    Attributes
    ----------
    sharpe : tuple of float
        Per period, by path.
    split_count : int
        Selections made.
    distinct_choices : int
        How many different settings they chose.
    """

    sharpe: tuple[float, ...]
    split_count: int
    distinct_choices: int

    def quantile(self, share: float) -> float:
        """Smallest Sharpe ratio with at least `share` of the paths at or below it."""
        ordered = sorted(self.sharpe)
        return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


def select(nets: FloatArray, trades: FloatArray, *, trades_min: int) -> IntArray:
    """Choose a setting per row: the best net among those that trade.

    Parameters
    ----------
    nets, trades : ndarray of float64, shape (selections, settings)
        Net profit and number of round trips of each setting on what may be learnt from.
    trades_min : int
        Round trips a setting needs to be eligible; if none has them, the one that trades most is
        taken. Otherwise a setting that never trades would win among losing ones.

    Returns
    -------
    ndarray of int64, shape (selections,)
        Ties go to the first.
    """
    is_eligible = trades >= trades_min
    best = np.argmax(np.where(is_eligible, nets, -np.inf), axis=1)
    busiest = np.argmax(trades, axis=1)
    return np.where(is_eligible.any(axis=1), best, busiest).astype(np.int64)


def combinatorial_paths(
    profits: FloatArray,
    trades: FloatArray,
    *,
    groups: int,
    test_groups: int,
    embargo: int,
    trades_min: int,
) -> Paths | None:
    """Select on the training periods of every combinatorial split and follow each choice outside.

    Parameters
    ----------
    profits, trades : ndarray of float64, shape (periods, settings)
        Profit and round trips per period. A period is a segment of its own: labels end in it.
    groups, test_groups : int
        N and k.
    embargo : int
        Periods left out of training after each tested group.
    trades_min : int
        As in `select`.

    Returns
    -------
    Paths or None
        None with fewer than two periods a group.

    Notes
    -----
    The same splits as `combinatorial_splits` makes of one label per period, from group sums.
    """
    periods = profits.shape[0]
    if periods < 2 * groups:
        return None
    ranks = cut_groups(np.arange(periods, dtype=np.int64), groups)
    chosen = np.array(list(itertools.combinations(range(groups), test_groups)), dtype=np.int64)
    is_test = np.zeros((len(chosen), groups))
    np.put_along_axis(is_test, chosen, 1.0, axis=1)
    sums = np.stack([profits[ranks == g].sum(axis=0) for g in range(groups)])
    squares = np.stack([(profits[ranks == g] ** 2).sum(axis=0) for g in range(groups)])
    train_net = _train_sums(profits, ranks, is_test, embargo=embargo)
    train_trades = _train_sums(trades, ranks, is_test, embargo=embargo)
    best = select(train_net, train_trades, trades_min=trades_min)
    table = path_splits(groups, test_groups)
    taken = best[table]
    column = np.arange(groups)
    total = sums[column, taken].sum(axis=1)
    square = squares[column, taken].sum(axis=1)
    variance = np.maximum(square - total * total / periods, 0.0) / (periods - 1)
    mean = total / periods
    is_alive = variance > 1e-24 * mean * mean
    sharpe = np.where(is_alive, mean / np.sqrt(np.where(is_alive, variance, 1.0)), 0.0)
    return Paths(tuple(float(s) for s in sharpe), len(chosen), int(np.unique(best).size))


def _train_sums(
    values: FloatArray, ranks: IntArray, is_test: FloatArray, *, embargo: int
) -> FloatArray:
    """Sum over the training periods of each split: groups not tested, less what is embargoed."""
    groups = is_test.shape[1]
    total: FloatArray = np.zeros((is_test.shape[0], values.shape[1]))
    for group in range(groups):  # group after group: the same bits on every machine
        total += (1.0 - is_test[:, group, None]) * values[ranks == group].sum(axis=0)
    first = np.searchsorted(ranks, np.arange(groups))
    after = np.append(first[1:], len(ranks))
    for group in range(groups - 1):
        # Embargoed periods may reach over more than one group; each is taken out where it trains.
        end = int(after[group])
        for period in range(end, min(end + embargo, len(ranks))):
            between = range(group + 1, int(ranks[period]) + 1)
            leaves = is_test[:, group] * np.prod([1.0 - is_test[:, g] for g in between], axis=0)
            total = total - leaves[:, None] * values[period]
    return total


@dataclass(frozen=True, slots=True)
class WalkForward:
    """What a selection earned on the periods that followed it.

    Attributes
    ----------
    periods : tuple of int
        Tested periods.
    profits : tuple of float
        Profit of the choice of their fold.
    choices : tuple of int
        Setting chosen, by fold.
    """

    periods: tuple[int, ...]
    profits: tuple[float, ...]
    choices: tuple[int, ...]


def walk_forward(
    profits: FloatArray, trades: FloatArray, *, folds: int, embargo: int, trades_min: int
) -> WalkForward | None:
    """Select on the past, earn in the next fold, fold after fold.

    Parameters
    ----------
    profits, trades : ndarray of float64, shape (periods, settings)
        As in `combinatorial_paths`.
    folds : int
        Tested folds.
    embargo : int
        Periods between what is learnt from and what is tested.
    trades_min : int
        As in `select`.

    Returns
    -------
    WalkForward or None
        None with fewer than two periods a fold.

    Notes
    -----
    A fold's selection uses only periods that end before the fold begins, less the embargo before
    it: features of the fold's first rows must not have been seen in training either.
    """
    count = profits.shape[0]
    if count < 2 * (folds + 1):
        return None
    index = np.arange(count, dtype=np.int64)
    labels = Labels(index, index, index, index)
    periods: list[int] = []
    earned: list[float] = []
    choices: list[int] = []
    for split in walk_forward_splits(labels, folds=folds, embargo=embargo):
        train = split.train[split.train < split.test[0] - embargo]
        best = int(
            select(
                profits[train].sum(axis=0)[None],
                trades[train].sum(axis=0)[None],
                trades_min=trades_min,
            )[0]
        )
        choices.append(best)
        periods += [int(i) for i in split.test]
        earned += [float(v) for v in profits[split.test, best]]
    return WalkForward(tuple(periods), tuple(earned), tuple(choices))
