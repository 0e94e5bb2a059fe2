"""Run a session of a promoted config: `hft-live run`."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
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
    from hft_platform.config.keys import KeyRing

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
        if arguments.faults is not None:
            raise PlatformError(
                ReasonCode.SETTINGS_INVALID,
                "--faults is for the paper exchange; mode was live, allowed is sim or paper",
            )
        _require_live_opt_in()
    faults = None if arguments.faults is None else load_fault_profile(arguments.faults)
    settings, workspace = load_settings(), arguments.workspace
    path = arguments.config or head_config(workspace, arguments.alpha)
    ring = KeyRing.open(workspace, pinned_file=settings.pinned_keys_path)
    # Proven before anything in it is used, also to look up a session.
    signed = read_signed(path, trusted_keys=ring.trusted()).content
    symbols = [instrument.symbol for instrument in signed.instruments]
    if arguments.mode == "live":
        return _run_live(arguments, path, ring, arguments.symbol or symbols[0])
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


def _require_live_opt_in() -> None:
    if os.environ.get(ENVIRONMENT_LIVE) != "1":
        raise PlatformError(
            ReasonCode.LIVE_NOT_ENABLED,
            f"{ENVIRONMENT_LIVE} is not 1; no session was opened",
        )


def _run_live(arguments: argparse.Namespace, path: Path, ring: KeyRing, symbol: str) -> int:
    """Verify the config for live, then ask for credentials; no broker session is opened."""
    from hft_platform.config.code_hash import code_sha256
    from hft_platform.config.promoted import PromotedConfig
    from hft_platform.config.wall_clock import checked_time_ns
    from hft_platform.services import latch

    latch.require_clear(arguments.workspace)
    PromotedConfig.load_verified(
        path,
        workspace=arguments.workspace,
        trusted_keys=ring.trusted(),
        mode="live",
        now_ns=checked_time_ns(arguments.workspace, time.time_ns()),
        symbol=symbol,
        code_sha256=code_sha256(),
    )
    missing = [
        name
        for name in ("SHIOAJI_API_KEY_FILE", "SHIOAJI_SECRET_KEY_FILE")
        if not os.environ.get(name)
    ]
    if missing:
        raise PlatformError(
            ReasonCode.NO_BROKER_CREDENTIALS,
            f"no broker credentials: {', '.join(missing)} not set; no session was opened",
        )
    raise PlatformError(
        ReasonCode.NO_BROKER_CREDENTIALS,
        "the live order plane is not part of this version; no session was opened",
        next_step="hft-live run --mode paper",
    )
