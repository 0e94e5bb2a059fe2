"""`make demo`: the whole loop once, through the asset graph, in one process, with progress.

Every step materializes assets on a persistent Dagster instance inside the workspace, so that
`make ui` shows afterwards what was done. A rerun in the same workspace changes no verdict.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

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
ALPHA_STEPS = (
    ("gates A and B", ("gate_a_verdict", "gate_b_verdict")),
    ("shadow permit and sessions", ("shadow_permit", "shadow_sessions")),
    ("gates C and D", ("gate_c_verdict", "gate_d_verdict")),
    ("gate E and canary permit", ("gate_e_verdict", "promoted_config")),
)


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
    Demo(workspace, source, Console()).run()
    return 0


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
        self.assets = definitions.ASSETS
        self.workspace, self.console = workspace, console
        self.resources = {"workspace": Workspace(path=str(workspace), source=source)}
        self.instance = dg.DagsterInstance.get()
        self.seconds: dict[str, float] = {}

    def run(self) -> None:
        """The loop, in order; a refusal of an alpha is a result, not an error."""
        started = time.perf_counter()
        with self.step("recordings and datasets"):
            self.materialize("recordings", "datasets", "alpha_registry", must_succeed=True)
        keys = self.loop.registered_alphas(self.workspace)
        for key in keys:
            for title, names in ALPHA_STEPS:
                with self.step(f"{key.split('@')[0]}: {title}"):
                    if not self.materialize(*names, partition=key) and names[0] != "shadow_permit":
                        break
            self.canary(key)
            self.show_alpha(key)
        with self.step("log into ClickHouse"):
            self.materialize("wal_loaded", must_succeed=True)
        with self.step("parity"):
            self.materialize("parity_report", must_succeed=True)
        self.seconds["total"] = time.perf_counter() - started
        self.loop.record_seconds(self.workspace, self.seconds)
        self.materialize("run_report", must_succeed=True)
        self.console.print(
            f"[dim]{self.seconds['total']:.0f} s; open it with a browser; "
            "make ui shows the asset graph of this run[/dim]"
        )
        self.console.print(f"report: {self.loop.report_path(self.workspace)}", soft_wrap=True)

    def canary(self, key: str) -> None:
        """Canary sessions and decisions until it is rolled back or out of sessions."""
        while self.loop.canary_is_open(self.workspace, key):
            with self.step(f"{key.split('@')[0]}: canary sessions and decision"):
                self.materialize(
                    "canary_sessions", "canary_state", partition=key, must_succeed=True
                )

    def materialize(
        self, *names: str, partition: str | None = None, must_succeed: bool = False
    ) -> bool:
        """Materialize assets in one run of the persistent instance."""
        result = self.dg.materialize(
            self.assets,
            selection=list(names),
            partition_key=partition,
            resources=self.resources,
            instance=self.instance,
            raise_on_error=must_succeed,
            run_config=QUIET,
        )
        return bool(result.success)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One line on the screen: what runs, then how long it took."""
        begun = time.perf_counter()
        with self.console.status(title):
            yield
        seconds = time.perf_counter() - begun
        self.seconds[title] = self.seconds.get(title, 0.0) + seconds
        self.console.print(f"  {title} [dim]{seconds:.1f} s[/dim]")

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
