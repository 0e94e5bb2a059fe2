"""Command line of the study: `python -m research.gate_study`, `make gate-study`.

Operator's page: `docs/gates.md`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from research.gate_study import page, recorded, results
from research.gate_study.running import read_rows, run
from research.gate_study.settings import FULL, SMALL
from research.gate_study.tasks import ROWS, Bench, Row, tasks_of
from research.gates.thresholds import load_thresholds


def main(arguments: list[str] | None = None) -> int:
    """Run the study, or go on with it, and say what came out."""
    options = _parser().parse_args(arguments)
    console = Console()
    settings = SMALL if options.size == "small" else FULL
    thresholds = load_thresholds()
    if options.report:
        bench = Bench(settings, thresholds)
        return _say(read_rows(options.folder, bench), bench, console, options.write)
    rows = tuple(options.rows.split(",")) if options.rows else ROWS
    cut = None
    if "recorded" in rows and settings.recorded_count:
        if (options.data / recorded.FOLDER).is_dir():
            console.print(f"cutting pseudo-sessions from {options.data / recorded.FOLDER} ...")
            cut = recorded.cut(
                options.data,
                options.folder / "ws",
                count=settings.recorded_sessions,
                seconds=settings.session_seconds,
            )
        else:
            console.print(f"no recordings at {options.data}: the row 'recorded' is left out")
            rows = tuple(row for row in rows if row != "recorded")
    bench = Bench(settings, thresholds, cut, options.folder / "runs")
    tasks = tasks_of(settings, rows)
    deadline: float = time.monotonic() + options.minutes * 60.0
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as bar:
        shown = bar.add_task("alphas", total=len(tasks))

        def tell(name: str, done: int) -> bool:
            bar.update(shown, completed=done, description=f"{name:<18}")
            return time.monotonic() < deadline

        made = run(
            tasks, bench=bench, folder=options.folder, workers=options.workers, progress=tell
        )
    return _say(made, bench, console, options.write)


def _say(rows: list[Row], bench: Bench, console: Console, write: Path | None) -> int:
    result = results.result_of(rows, settings=bench.settings, thresholds=bench.thresholds)
    console.print(page.tables(result), markup=False, soft_wrap=True)
    for path in page.write(result, write) if write is not None else ():
        console.print(f"wrote {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gate_study", description="measure the gates")
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--rows", default="", help=f"some of {','.join(ROWS)}")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument(
        "--minutes", type=float, default=120.0, help="stop after; run it again to go on"
    )
    parser.add_argument("--folder", type=Path, default=Path("build/gate_study"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="recordings")
    parser.add_argument("--report", action="store_true", help="only say what is known so far")
    parser.add_argument("--write", type=Path, help="repository to write results and page into")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
