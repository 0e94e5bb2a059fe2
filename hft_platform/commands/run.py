"""Run a session of a promoted config: `hft-live run`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from hft_platform.commands.output import print_result
from hft_platform.errors import PlatformError, ReasonCode, code_name

if TYPE_CHECKING:
    pass

ENVIRONMENT_LIVE = "HFT_LIVE_ENABLED"


def run(arguments: argparse.Namespace) -> int:
    """Run each session that was named and print what came of it."""
    from hft_platform.config.keys import KeyRing
    from hft_platform.config.promoted import head_config, read_signed
    from hft_platform.config.settings import load_settings
    from hft_platform.execution.faults import load_fault_profile
    from hft_platform.feed.recording import find_session
    from hft_platform.market.instruments import load_instruments
    from hft_platform.services.direct_recorder import recorder_of
    from hft_platform.services.session_runner import RunRequest, run_session

    if arguments.mode == "live":
        from hft_platform.commands import live

        return live.run(arguments)
    _refuse_live_options(arguments)
    faults = None if arguments.faults is None else load_fault_profile(arguments.faults)
    settings, workspace = load_settings(), arguments.workspace
    path = arguments.config or head_config(workspace, arguments.alpha)
    ring = KeyRing.open(workspace, pinned_file=settings.pinned_keys_path)
    # Proven before anything in it is used, also to look up a session.
    read_signed(path, trusted_keys=ring.trusted())
    if not arguments.session:
        raise PlatformError(
            ReasonCode.CONFIG_NOT_FOUND,
            "sim and paper need a recorded session",
            next_step="add --session, e.g. --session 2026-04-10/day",
        )
    speed = None if arguments.mode == "sim" else arguments.speed
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console, instruments, finished = Console(stderr=True), load_instruments(), []
    for name in arguments.session:
        session = find_session(workspace, name, config_path=path, symbol=arguments.symbol)
        request = RunRequest(workspace, path, session, arguments.mode, speed, faults)
        with Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        ) as bar:
            task = bar.add_task(name, total=session.record_count)

            def show(state: dict[str, Any], bar: Progress = bar, task: TaskID = task) -> None:
                bar.update(task, completed=state["records_done"])

            with recorder_of(settings, workspace) as recorder:
                outcome = run_session(
                    request,
                    instruments=instruments,
                    settings=settings,
                    progress=show,
                    opened=recorder.opened,
                )
        drill = {key: outcome.summary[key] for key in ("faults",) if key in outcome.summary}
        finished.append(outcome.summary["evidence"] | drill | recorder.facts())
    print_result(arguments, finished, lambda: "\n".join(_run_text(row) for row in finished))
    return 0


def _run_text(evidence: dict[str, Any]) -> str:
    account, parity = evidence["account"], evidence["parity"]
    lines = [
        f"session {evidence['run_id']} ended",
        f"  records {evidence['counts']['records']}, decisions {evidence['counts']['decisions']},"
        f" orders {evidence['counts']['orders']}, fills {account['fill_count']}",
        f"  net {account['net'] / 1e8:,.0f} (fees {account['fees'] / 1e8:,.0f}),"
        f" round trips {account['round_trip_count']}",
        f"  parity {parity['identical']} of {parity['total']} decisions identical",
    ]
    if "faults" in evidence:
        lines += _faults_text(evidence["faults"])
    if "recorder" in evidence:
        lines.append(f"  {evidence['recorder']['text']}")
    if evidence["shed_count"]:
        lines.append(
            f"  {evidence['shed_count']} market records are not in the log for want of space:"
            " no evidence for a gate"
        )
    if evidence["halted_by"]:
        code = evidence["halted_by"]
        lines.append(f"  halted by {code_name(code)} ({code}); hft-live resume to lift it")
    return "\n".join(lines)


def _faults_text(faults: dict[str, Any]) -> list[str]:
    counts = {name: count for name, count in faults.items() if isinstance(count, int)}
    hit = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items() if count)
    rejects = ", ".join(
        f"{code_name(int(code))} {count}" for code, count in sorted(faults["rejects"].items())
    )
    return [
        f"  drill: {hit or 'nothing went wrong'}",
        *([f"  refused: {rejects}"] if rejects else []),
        "  a drill has no signed summary and is no evidence",
    ]


def _refuse_live_options(arguments: argparse.Namespace) -> None:
    given = [
        option
        for option, is_given in (
            ("--broker", arguments.broker != "shioaji"),
            ("--check", arguments.check),
            ("--flatten-on-stop", arguments.flatten_on_stop),
        )
        if is_given
    ]
    if given:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"{given[0]} belongs to run --mode live; mode was {arguments.mode}",
        )
