"""Running of the study: tasks over processes, rows appended as they come, resumed where it stopped.

Invariants:
1. Rows of a task are written in one append and flushed; a torn last line is cut off on resume.
2. What a study says does not depend on the number of workers or on interruptions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from hft_platform.config.canonical import canonical_json
from research.gate_study.tasks import ROWS, Bench, Row, Task, work

ROWS_FILE = "rows.jsonl"
AHEAD = 2
"""Tasks handed to the pool for each worker, so that a stop loses little."""
_process: dict[str, Bench] = {}


def read_rows(folder: Path, bench: Bench) -> list[Row]:
    """Rows of a study that are on disk.

    Parameters
    ----------
    folder : Path
        Folder of the study.
    bench : Bench
        Settings and thresholds; rows of other ones are left out.

    Returns
    -------
    list of dict
        In the order they were written.
    """
    path = folder / ROWS_FILE
    if not path.exists():
        return []
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) != len(raw):
        path.write_bytes(whole)
    rows = [json.loads(line) for line in whole.splitlines()]
    studies = {name: bench.study_of(name) for name in ROWS}
    return [
        row for batch in rows for row in batch["rows"] if batch["study"] == studies.get(row["row"])
    ]


def run(
    tasks: Iterable[Task],
    *,
    bench: Bench,
    folder: Path,
    workers: int,
    progress: Callable[[str, int], bool] | None = None,
) -> list[Row]:
    """Do the tasks that are not done yet.

    Parameters
    ----------
    tasks : iterable of Task
        In the order of doing.
    bench : Bench
        What they are done with.
    folder : Path
        Folder of the study.
    workers : int
        Processes; with one, everything is done in this process.
    progress : callable, optional
        Called with the name of each finished task and the number of finished ones; False stops.

    Returns
    -------
    list of dict
        All rows of these tasks, in their order.
    """
    wanted = list(tasks)
    studies = {row: bench.study_of(row) for row in ROWS}
    folder.mkdir(parents=True, exist_ok=True)
    by_task: dict[str, list[Row]] = {}
    for row in read_rows(folder, bench):
        by_task.setdefault(row["task"], []).append(row)
    todo = [task for task in wanted if task.name not in by_task]
    with (folder / ROWS_FILE).open("ab") as file:

        def keep(task: Task, rows: list[Row]) -> bool:
            file.write(canonical_json({"study": studies[task.row], "rows": rows}) + b"\n")
            file.flush()
            by_task[task.name] = rows
            return progress is None or progress(task.name, len(by_task))

        if workers == 1:
            for task in todo:
                if not keep(task, work(task, bench)):
                    break
        else:
            _run_in_processes(todo, keep, bench, workers)
    return [row for task in wanted for row in by_task.get(task.name, [])]


def _run_in_processes(
    todo: list[Task],
    keep: Callable[[Task, list[Row]], bool],
    bench: Bench,
    workers: int,
) -> None:
    waiting = iter(todo)
    running: dict[Future[list[Row]], Task] = {}
    with ProcessPoolExecutor(workers, initializer=_prepare, initargs=(bench,)) as pool:

        def fill() -> None:
            while len(running) < workers * AHEAD and (task := next(waiting, None)) is not None:
                running[pool.submit(_work, task)] = task

        fill()
        is_wanted = True
        while running:
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                is_wanted = keep(running.pop(future), future.result()) and is_wanted
            if is_wanted:
                fill()


def _prepare(bench: Bench) -> None:
    _process["bench"] = bench


def _work(task: Task) -> list[Row]:
    return work(task, _process["bench"])
