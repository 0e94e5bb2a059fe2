"""`make demo`: the whole loop once, through the asset graph, in one process, with progress.

Every step materializes assets on a persistent Dagster instance inside the workspace, so that
`make ui` shows afterwards what was done. A rerun in the same workspace changes no verdict of an
alpha that trades.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from dagster_shared.error import SerializableErrorInfo
from rich.console import Console
from rich.table import Table

from hft_platform.errors import PlatformError

DAGSTER_YAML = """\
# Written by dagster_project.demo; one run at a time, because one process may hold the store.
telemetry: {enabled: false}
nux: {enabled: false}
run_coordinator:
  module: dagster._core.run_coordinator.queued_run_coordinator
  class: QueuedRunCoordinator
  config: {max_concurrent_runs: 1, dequeue_interval_seconds: 1}
"""
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
ERRORS = PlatformError.__module__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the loop; prints ``report: <path>`` last."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--data", help="folder with recordings (default: the market generator)")
    parser.add_argument("--workspace", type=Path, help="default: build/demo/<name of the source>")
    parser.add_argument(
        "--prepare", action="store_true", help="only make the folder of the Dagster instance"
    )
    arguments = parser.parse_args(argv)
    name = Path(arguments.data).resolve().name if arguments.data else "generator"
    workspace = (arguments.workspace or Path("build") / "demo" / name).absolute()
    if arguments.data and not Path(arguments.data).is_dir():
        sys.stderr.write(f"no folder {arguments.data}; DATA names a folder with recordings\n")
        return 2
    source = str(Path(arguments.data).absolute()) if arguments.data else "generator"
    prepare_instance_folder(workspace)
    if arguments.prepare:
        return 0
    try:
        return Demo(workspace, source, Console()).run()
    except PlatformError as error:
        sys.stderr.write(error.render() + "\n")
        return 3


def prepare_instance_folder(workspace: Path) -> Path:
    """Make the folder of the Dagster instance, with telemetry off, and point Dagster at it."""
    home = workspace / "dagster_home"
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_text(DAGSTER_YAML)
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
    return home


class Demo:
    """Walks the graph and tells a person what happens."""

    def __init__(self, workspace: Path, source: str, console: Console) -> None:
        warnings.filterwarnings("ignore", module="dagster")
        import dagster as dg

        from dagster_project import definitions
        from dagster_project.resources import Workspace
        from research import loop

        self.dg, self.loop = dg, loop
        self.assets = [a for a in definitions.ASSETS if isinstance(a, dg.AssetsDefinition)]
        self.workspace, self.console = workspace, console
        self.resources = {"workspace": Workspace(path=str(workspace), source=source)}
        self.instance = dg.DagsterInstance.get()
        self.seconds: dict[str, float] = {}
        self.problems: list[str] = []

    def run(self) -> int:
        """The loop, in order; returns the exit code.

        That an alpha is refused is a result. A step that breaks for another reason is shown, the
        other alphas and the report still run, and the exit code is 1.
        """
        started = time.perf_counter()
        self.must("recordings and datasets", "recordings", "datasets", "alpha_registry")
        if self.problems:
            return 1
        for key in self.loop.registered_alphas(self.workspace):
            self.walk(key)
            self.show_alpha(key)
        self.must("log into ClickHouse", "wal_loaded")
        self.must("parity", "parity_report")
        self.seconds["total"] = time.perf_counter() - started
        self.loop.record_seconds(self.workspace, self.seconds)
        self.must("report", "run_report")
        self.console.print(
            f"[dim]{self.seconds['total']:.0f} s; open it with a browser; "
            "make ui shows the asset graph of this run[/dim]"
        )
        for problem in self.problems:
            self.console.print(f"[red]broken: {problem}[/red]")
        self.console.print(f"report: {self.loop.report_path(self.workspace)}", soft_wrap=True)
        return 1 if self.problems else 0

    def walk(self, key: str) -> None:
        """One alpha from gate A to the end of its canary, as far as it gets."""
        alpha_id = key.split("@", maxsplit=1)[0]

        def step(title: str, *names: str) -> bool:
            return self.step(f"{alpha_id}: {title}", *names, partition=key)

        if not step("gates A and B", "gate_a_verdict", "gate_b_verdict"):
            return
        # A shadow permit needs no more; behind gate C it carries the setting that was chosen.
        is_admitted = step("gates C and D", "gate_c_verdict", "gate_d_verdict")
        step("shadow permit and sessions", "shadow_permit", "shadow_sessions")
        if is_admitted:
            step("gate E and canary permit", "gate_e_verdict", "promoted_config")
        while self.loop.canary_is_open(self.workspace, key):
            title = f"{alpha_id}: canary sessions and decision"
            if not self.step(title, "canary_sessions", "canary_state", partition=key):
                return

    def must(self, title: str, *names: str) -> None:
        """A step without which there is nothing to show."""
        if not self.step(title, *names):
            self.problems.append(f"{title} did not complete")

    def step(self, title: str, *names: str, partition: str | None = None) -> bool:
        """Materialize assets in one run; a line on the screen says how it went."""
        begun = time.perf_counter()
        with self.console.status(title):
            result = self.dg.materialize(
                self.assets,
                selection=list(names),
                partition_key=partition,
                resources=self.resources,
                instance=self.instance,
                raise_on_error=False,
                run_config=QUIET,
            )
        seconds = time.perf_counter() - begun
        self.seconds[title] = self.seconds.get(title, 0.0) + seconds
        self.console.print(f"  {title} [dim]{seconds:.1f} s[/dim]")
        for event in result.filter_events(lambda event: event.is_step_failure):
            self.explain(title, event.step_failure_data.error)
        return bool(result.success)

    def explain(self, title: str, error: SerializableErrorInfo | None) -> None:
        """Show why a step failed; a missed check is told by its verdict."""
        while error is not None and error.cls_name == "DagsterExecutionStepExecutionError":
            error = error.cause
        if error is None or error.cls_name == "DagsterAssetCheckFailedError":
            return
        text = error.message.strip().splitlines()[-1].removeprefix(f"{ERRORS}.{error.cls_name}: ")
        self.console.print(f"    refused: {text}", markup=False)
        if error.cls_name != "PlatformError":
            self.problems.append(f"{title}: {text}")

    def show_alpha(self, key: str) -> None:
        """Verdicts and stage of one alpha."""
        self.console.print(f"\n[bold]{key}[/bold]")
        table = Table(show_edge=False, pad_edge=True)
        for column in ("gate", "verdict", "reason"):
            table.add_column(column)
        for row in self.loop.verdict_rows(self.workspace, key):
            table.add_row(row["gate"], row["verdict"], row["reason"])
        self.console.print(table)
        for line in self.loop.stage_lines(self.workspace, key):
            self.console.print(f"  {line}")


def summary(workspace: Path) -> dict[str, object]:
    """The run's `summary.json`."""
    content: dict[str, object] = json.loads((workspace / "report" / "summary.json").read_bytes())
    return content


if __name__ == "__main__":
    sys.exit(main())
