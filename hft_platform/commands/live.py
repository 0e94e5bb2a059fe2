"""Trade a session at the broker: `hft-live run --mode live`, its checks and its rehearsal."""

from __future__ import annotations

import argparse
import io
import os
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from hft_platform.commands.output import print_result
from hft_platform.errors import PlatformError, ReasonCode, code_name

if TYPE_CHECKING:
    from hft_platform.services.premarket import CheckRow, PreMarket

REFUSED = 3
wall_clock_ns = time.time_ns
"""The only clock of a live process; tests put another in its place."""


def run(arguments: argparse.Namespace) -> int:
    """Check, or check and trade."""
    before = _premarket(arguments)
    if arguments.check:
        return _print_checks(arguments, before.report())
    before.require_all()
    raise PlatformError(
        ReasonCode.NO_BROKER_CREDENTIALS,
        "the live order plane is not part of this version; no session was opened",
        next_step="hft-live run --mode paper",
    )


def _premarket(arguments: argparse.Namespace) -> PreMarket:
    """What a session needs to be checked; the arguments of sim and paper are refused."""
    from hft_platform.config.promoted import head_config
    from hft_platform.config.settings import load_settings
    from hft_platform.feed.recording import find_session
    from hft_platform.market.instruments import load_instruments
    from hft_platform.services.premarket import LiveRequest, PreMarket

    if arguments.faults is not None:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            "--faults is for the paper exchange; mode was live, allowed is sim or paper",
        )
    is_rehearsal = arguments.broker == "paper"
    if is_rehearsal != (len(arguments.session) == 1):
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"--session was given {len(arguments.session)} times; a rehearsal (--broker paper)"
            " plays one recorded session, the broker plays its own",
            next_step="hft-live run --mode live --broker paper --session 2026-04-10/day",
        )
    workspace = arguments.workspace
    path = arguments.config or head_config(workspace, arguments.alpha)
    recorded = None
    if is_rehearsal:
        recorded = find_session(
            workspace, arguments.session[0], config_path=path, symbol=arguments.symbol
        )
    request = LiveRequest(
        workspace=workspace,
        config_path=path,
        symbol=arguments.symbol,
        broker=arguments.broker,
        recorded=recorded,
        speed=arguments.speed,
        flatten_on_stop=arguments.flatten_on_stop,
    )
    return PreMarket(
        request,
        settings=load_settings(),
        instruments=load_instruments(),
        now_ns=wall_clock_ns(),
        environment=os.environ,
        pid=os.getpid(),
    )


def _print_checks(arguments: argparse.Namespace, rows: list[CheckRow]) -> int:
    refused = [row for row in rows if row.code]

    def text() -> str:
        table = Table("check", "", "what was seen")
        for row in rows:
            verdict = f"{code_name(row.code)} ({row.code})" if row.code else "ok"
            table.add_row(row.name, verdict, row.text)
        console = Console(file=io.StringIO(), width=120, record=True)
        console.print(table)
        advice = [f"{row.name}: {row.next_step}" for row in refused if row.next_step]
        head = "nothing refuses the start" if not refused else f"{len(refused)} checks refuse"
        return "\n".join([console.export_text().rstrip(), head, *advice])

    content: dict[str, Any] = {
        "passed": not refused,
        "checks": [row.as_dict() for row in rows],
    }
    print_result(arguments, content, text)
    return REFUSED if refused else 0
