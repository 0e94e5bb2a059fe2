"""Operate a workspace: `hft-live metrics`, `backup`, `restore` and `drill`."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from rich.console import Console
from rich.table import Table

from hft_platform.commands.output import print_result
from hft_platform.errors import PlatformError, ReasonCode

if TYPE_CHECKING:
    from hft_platform.drills.drill import DrillReport


def metrics(arguments: argparse.Namespace) -> int:
    """Print the metrics once, or serve them."""
    from hft_platform.observability.exporter import WorkspaceCollector, exposition, serve

    if not arguments.workspace.is_dir():
        raise PlatformError(
            ReasonCode.CONFIG_NOT_FOUND,
            f"there is no workspace {arguments.workspace}",
            next_step="hft-live metrics --workspace FOLDER",
        )
    collector = WorkspaceCollector(arguments.workspace)
    if arguments.once:
        # What is printed belongs to Prometheus; what is logged meanwhile does not.
        with contextlib.redirect_stdout(sys.stderr):
            text = exposition(collector)
        sys.stdout.write(text)
        return 0
    server, thread = serve(
        collector,
        port=arguments.port,
        address=arguments.address,
        is_remote=arguments.allow_remote,
    )
    url = f"http://{arguments.address}:{server.server_port}/metrics"
    print_result(arguments, {"url": url}, lambda: url)
    sys.stdout.flush()
    thread.join()
    return 0


def backup(arguments: argparse.Namespace) -> int:
    """Copy a workspace."""
    from hft_platform.services.backup import backup

    report = backup(
        arguments.workspace,
        arguments.target,
        with_keys=arguments.with_keys,
        with_market=arguments.with_market,
    )
    print_result(
        arguments,
        report.as_dict(),
        lambda: (
            f"{report.files} files, {report.size_bytes} bytes, {len(report.logs)} logs"
            f" in {report.folder}\nnext: keep it on another disk; hft-live restore"
        ),
    )
    return 0


def restore(arguments: argparse.Namespace) -> int:
    """Make a workspace of a backup."""
    from hft_platform.services.backup import restore

    report = restore(arguments.source, arguments.workspace)
    logs = "\n".join(f"  {path}: records up to {seq}" for path, seq in report.logs.items())
    print_result(
        arguments,
        report.as_dict(),
        lambda: (
            f"{report.files} files restored to {report.folder}, logs verified\n{logs}\n"
            f"next: hft-research audit verify --workspace {report.folder}"
        ),
    )
    return 0


def drill(arguments: argparse.Namespace) -> int:
    """Run drills and print what they showed."""
    import logging
    import tempfile

    from hft_platform.drills.drill import drills, find_drill, run_drill

    if arguments.name == "list":
        listed = [{"name": drill.name, "text": drill.text} for drill in drills().values()]
        print_result(
            arguments, listed, lambda: "\n".join(f"{row['name']}: {row['text']}" for row in listed)
        )
        return 0
    # What goes wrong is what the drill makes go wrong; its report says it.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    chosen = list(drills().values()) if arguments.name == "all" else [find_drill(arguments.name)]
    reports = []
    for number, drill in enumerate(chosen, start=1):
        sys.stderr.write(f"{number} of {len(chosen)}  {drill.name}: {drill.text} ... ")
        sys.stderr.flush()
        with tempfile.TemporaryDirectory(prefix="hft-drill-") as temporary:
            folder = (arguments.folder or Path(temporary)) / drill.name
            report = run_drill(drill, folder, seed=arguments.seed, size=arguments.size)
        sys.stderr.write(
            f"{'passed' if report.passed else 'FAILED'} ({report.facts['seconds']} s)\n"
        )
        reports.append(report)
    print_result(arguments, [report.as_dict() for report in reports], lambda: _drills_text(reports))
    return 0 if all(report.passed for report in reports) else 1


def _drills_text(reports: list[DrillReport]) -> str:
    """The report of one drill; of several those that failed, and a table of all."""
    if len(reports) == 1:
        return reports[0].render()
    table = Table("drill", "result", "claims that hold", "seconds")
    for report in reports:
        table.add_row(
            report.name, "passed" if report.passed else "FAILED",
            f"{report.held_count} of {len(report.claims)}", str(report.facts["seconds"]),
        )  # fmt: skip
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(table)
    failed = [report.render() for report in reports if not report.passed]
    return "\n".join([*failed, console.export_text()])
