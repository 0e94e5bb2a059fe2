"""Tasks of the study: one alpha, or one market of the truth, each on its own.

Why: a study of an hour must be stoppable, resumable and free of the order it ran in.

Invariants:
1. A task's seed follows from the study's seed, its row and its number: no task knows another.
2. Its rows are written together, so a task is done or is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from research.gate_study import markets, programs, recorded, truth
from research.gate_study.judging import MISTAKES, SEARCHES, Judge
from research.gate_study.searching import Search
from research.gate_study.settings import StudySettings
from research.gates.thresholds import GateThresholds

Row = dict[str, Any]
ROWS = ("null", "truth", "planted", "recorded", "fair", "eaten", "mistaken", "searched")
_EAGERNESS = {
    "null": 0.5,
    "eaten": 0.9,
    "truth": 0.9,
    "planted": 0.9,
    "recorded": 1.0,
    "mistaken": 1.0,
    "searched": 1.2,
    "fair": 1.3,
}
"""Where a task of a row stands in the queue: a study cut short still says something of each row."""
_NUMBER = {row: number for number, row in enumerate(ROWS)}


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of work.

    Attributes
    ----------
    row : str
        One of `ROWS`.
    index : int
        Number within row and strength.
    strength_ticks : float
        What is planted; 0 for nulls.
    """

    row: str
    index: int
    strength_ticks: float = 0.0

    @property
    def name(self) -> str:
        """For instance ``planted/7.5/12``."""
        middle = f"/{self.strength_ticks:g}" if self.strength_ticks else ""
        return f"{self.row}{middle}/{self.index}"

    def seed(self, settings: StudySettings) -> int:
        """Seed of its market and program."""
        parts = [settings.seed, _NUMBER[self.row], round(self.strength_ticks * 1000), self.index]
        return int(np.random.SeedSequence(parts).generate_state(1, np.uint32)[0])


def tasks_of(settings: StudySettings, rows: tuple[str, ...] = ROWS) -> list[Task]:
    """Every task, ordered so that rows advance side by side.

    Parameters
    ----------
    settings : StudySettings
        Sizes.
    rows : tuple of str, optional
        Which rows.

    Returns
    -------
    list of Task
    """
    queued = [
        (_EAGERNESS[task.row] * (task.index + 1) / count, task.name, task)
        for task, count in _all(settings)
        if task.row in rows
    ]
    return [task for _, _, task in sorted(queued, key=lambda entry: entry[:2])]


def _all(settings: StudySettings) -> Iterator[tuple[Task, int]]:
    counts = {
        "null": settings.null_count,
        "fair": settings.fair_count,
        "recorded": settings.recorded_count,
        "mistaken": settings.mistakes_count,
        "searched": settings.searched_count,
    }
    for row, count in counts.items():
        for index in range(count):
            yield Task(row, index), count
    chunks = settings.truth_sessions // settings.truth_chunk
    for index in range(settings.eaten_count):
        yield Task("eaten", index, settings.eaten_ticks), settings.eaten_count
    planted = settings.strengths_ticks
    for strength in (*planted, settings.eaten_ticks) if settings.eaten_count else planted:
        for index in range(chunks):
            yield Task("truth", index, strength), chunks
    for strength in planted:
        for index in range(settings.planted_count):
            yield Task("planted", index, strength), settings.planted_count


@dataclass(frozen=True, slots=True)
class Bench:
    """What every task is done with.

    Attributes
    ----------
    settings : StudySettings
        Sizes and seeds.
    thresholds : GateThresholds
        What is judged by.
    cut : Cut, optional
        Recorded pseudo-sessions, for the row ``recorded``.
    runs : Path, optional
        Folder in which backtests are kept, so that other gates can judge them again.
    """

    settings: StudySettings
    thresholds: GateThresholds
    cut: recorded.Cut | None = None
    runs: Path | None = None

    def study_of(self, row: str) -> str:
        """Hash under which rows are written: the truth outlives a change of the gates."""
        if row == "truth":
            return self.settings.truth_sha256(self.thresholds)
        return self.settings.sha256(self.thresholds)

    def kept(self, task: Task) -> Path | None:
        """File of a task's runs."""
        if self.runs is None:
            return None
        name = task.name.replace("/", "_")
        return self.runs / self.settings.runs_sha256()[:12] / f"{name}.json.z"


def work(task: Task, bench: Bench) -> list[Row]:
    """Do one task.

    Parameters
    ----------
    task : Task
        What to do.
    bench : Bench
        With what.

    Returns
    -------
    list of dict
        Rows of the study: one for every view the alpha was judged under.
    """
    # Process time is measured, never judged by.
    started = time.process_time()
    made = _WORK[task.row](task, bench)
    spent = time.process_time() - started
    common = {
        "task": task.name,
        "row": task.row,
        "strength_ticks": task.strength_ticks,
    }
    rows = [common | row for row in made]
    rows[0]["cpu_s"] = round(spent, 3)
    return rows


def _null(task: Task, bench: Bench) -> list[Row]:
    s = bench.settings
    judge = _random_judge(task, bench, is_fair=False)
    row = judge.verdict(days=s.days_max, trials=s.null_trials)
    return _finished([{"view": "honest"} | row], judge)


def _mistaken(task: Task, bench: Bench) -> list[Row]:
    """The null of the same number, with each mistake."""
    s = bench.settings
    judge = _random_judge(Task("null", task.index), bench, is_fair=False)
    return _finished(_with_mistakes(judge, days=s.days_max, trials=s.null_trials), judge)


def _eaten(task: Task, bench: Bench) -> list[Row]:
    s = bench.settings
    judge = _planted_judge(task, bench)
    rows = [{"view": "honest"} | judge.verdict(days=s.days_max, trials=s.power_trials)]
    rows += _with_mistakes(judge, days=s.days_max, trials=s.power_trials)
    return _finished(rows, judge)


def _with_mistakes(judge: Judge, *, days: int, trials: int) -> list[Row]:
    return [
        {"view": view} | judge.verdict(days=days, trials=trials, mistakes=mistakes)
        for view, mistakes in MISTAKES.items()
    ]


def _fair(task: Task, bench: Bench) -> list[Row]:
    s = bench.settings
    judge = _random_judge(task, bench, is_fair=True)
    row = judge.verdict(days=s.days_max, trials=s.null_trials, mistakes=frozenset({"costs"}))
    return _finished([{"view": "mid_to_mid"} | row], judge)


def _searched(task: Task, bench: Bench) -> list[Row]:
    """The winner of a search, found before the judged sessions or on them."""
    s, seed = bench.settings, task.seed(bench.settings)
    days = min(s.days)
    market = markets.generated(
        seed=seed, count=s.in_sample + days, seconds=s.session_seconds, is_fair=True
    )
    kept = bench.kept(task)
    search = Search(
        seed=seed,
        size=s.search_size,
        market=market,
        kept=None if kept is None else kept.with_suffix(f".{s.search_size}"),
    )
    sessions = {False: slice(s.in_sample), True: slice(s.in_sample, None)}
    judges = {
        is_peeking: Judge(
            search.winner(seen), market, thresholds=bench.thresholds, in_sample=s.in_sample
        )
        for is_peeking, seen in sessions.items()
    }
    rows = [
        {"view": view}
        | judges["selection" in mistakes].verdict(
            days=days, trials=s.search_trials, mistakes=mistakes
        )
        for view, mistakes in SEARCHES.items()
    ]
    rows[0]["runs"] = search.run_count + sum(judge.run_count for judge in judges.values())
    return rows


def _random_judge(task: Task, bench: Bench, *, is_fair: bool) -> Judge:
    s, seed = bench.settings, task.seed(bench.settings)
    market = markets.generated(
        seed=seed, count=s.in_sample + s.days_max, seconds=s.session_seconds, is_fair=is_fair
    )
    alpha = programs.random_alpha(seed, symbol=market.instrument.symbol)
    return Judge(
        alpha,
        market,
        thresholds=bench.thresholds,
        in_sample=s.in_sample,
        kept=bench.kept(task),
    )


def _recorded(task: Task, bench: Bench) -> list[Row]:
    if bench.cut is None:
        raise ValueError("the row 'recorded' needs recordings")
    s, seed = bench.settings, task.seed(bench.settings)
    market = recorded.permuted(bench.cut, seed=seed)
    alpha = programs.random_alpha(
        seed, symbol=market.instrument.symbol, features=programs.BOOK_SHAPE
    )
    judge = Judge(
        alpha,
        market,
        thresholds=bench.thresholds,
        in_sample=s.recorded_in_sample,
        kept=bench.kept(task),
    )
    days = s.recorded_sessions - s.recorded_in_sample
    honest = judge.verdict(days=days, trials=s.null_trials)
    free = judge.verdict(days=days, trials=s.null_trials, mistakes=frozenset({"costs"}))
    return _finished([{"view": "honest"} | honest, {"view": "mid_to_mid"} | free], judge)


def _planted(task: Task, bench: Bench) -> list[Row]:
    s = bench.settings
    judge = _planted_judge(task, bench)
    rows = [
        {"view": "honest"} | judge.verdict(days=days, trials=s.power_trials)
        for days in sorted(s.days, reverse=True)
    ]
    return _finished(rows, judge)


def _planted_judge(task: Task, bench: Bench) -> Judge:
    s = bench.settings
    market = markets.generated(
        seed=task.seed(s),
        count=s.in_sample + s.days_max,
        seconds=s.session_seconds,
        strength_ticks=task.strength_ticks,
        horizon_s=s.horizon_s,
    )
    return Judge(
        programs.planted_alpha(symbol=market.instrument.symbol),
        market,
        thresholds=bench.thresholds,
        in_sample=s.in_sample,
        kept=bench.kept(task),
    )


def _finished(rows: list[Row], judge: Judge) -> list[Row]:
    judge.keep()
    rows[0]["runs"] = judge.run_count
    return rows


def _truth(task: Task, bench: Bench) -> list[Row]:
    nets = truth.true_nets(
        bench.settings,
        bench.thresholds.gate_c,
        strength_ticks=task.strength_ticks,
        seed=task.seed(bench.settings),
    )
    return [{"view": "truth", "nets": nets}]


_WORK: dict[str, Callable[[Task, Bench], list[Row]]] = {
    "null": _null,
    "fair": _fair,
    "recorded": _recorded,
    "planted": _planted,
    "eaten": _eaten,
    "mistaken": _mistaken,
    "searched": _searched,
    "truth": _truth,
}
