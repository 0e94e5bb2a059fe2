"""Look after write-ahead logs: `hft-live wal`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from hft_platform.commands.output import print_result
from hft_platform.errors import PlatformError, ReasonCode

if TYPE_CHECKING:
    from hft_platform.recorder.loader import LoadReport


def wal(arguments: argparse.Namespace) -> int:
    """Run one of the log tools."""
    from hft_platform.services.wal_tools import wal_command

    for action, names in (("load", ("follow", "check")), ("salvage", ("target", "swap_in"))):
        given = [name for name in names if getattr(arguments, name)]
        if given and arguments.action != action:
            raise PlatformError(
                ReasonCode.SETTINGS_INVALID,
                f"--{given[0].replace('_', '-')} belongs to wal {action};"
                f" action was {arguments.action}",
            )
    if arguments.action == "follow":
        return _follow(arguments)
    if arguments.action == "load":
        return _wal_load(arguments)
    report = wal_command(
        arguments.action,
        arguments.workspace,
        arguments.path,
        target=arguments.target,
        swap_in=arguments.swap_in,
    )
    print_result(arguments, report.as_dict(), report.render)
    return 0 if report.is_sound else 1


def _follow(arguments: argparse.Namespace) -> int:
    from hft_platform.config.settings import load_settings
    from hft_platform.services.direct_recorder import follow_command

    run_id = None if arguments.path is None else Path(arguments.path).name
    status = follow_command(
        arguments.workspace,
        load_settings(),
        run_id=run_id,
        restarts=arguments.child,
        drain_s=arguments.drain_seconds,
    )
    print_result(arguments, status.as_dict(), status.render)
    return 1 if status.left else 0


def _wal_load(arguments: argparse.Namespace) -> int:
    from hft_platform.services import wal_load

    if arguments.path is not None:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"wal load takes the whole workspace; a path was given: {arguments.path}",
        )
    if arguments.follow:
        for report in wal_load.follow(arguments.workspace, is_checked=arguments.check):
            print_result(arguments, report.as_dict(), report.render)
            sys.stdout.flush()
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("segments", total=None)

        def show(done: int, total: int, so_far: LoadReport) -> None:
            rows = f"segments, {so_far.rows_inserted:,} rows"
            bar.update(task, completed=done, total=total, description=rows)

        report = wal_load.load_once(
            arguments.workspace, is_checked=arguments.check, on_segment=show
        )
    print_result(arguments, report.as_dict(), report.render)
    return 0 if report.is_sound else 1
