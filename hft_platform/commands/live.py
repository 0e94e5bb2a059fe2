"""Trade a session at the broker: `hft-live run --mode live`, its checks and its rehearsal."""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from hft_platform.commands.output import print_result
from hft_platform.errors import PlatformError, ReasonCode, code_name

if TYPE_CHECKING:
    from hft_platform.config.settings import Settings
    from hft_platform.market.instruments import Instrument
    from hft_platform.order.broker import Broker
    from hft_platform.services.live_report import Concluded
    from hft_platform.services.premarket import CheckRow, PreMarket
    from hft_platform.services.venues import VenueFactory, VenueRequest

FAILED, REFUSED = 1, 3
wall_clock_ns = time.time_ns
"""The only clock of a live process; tests put another in its place."""


def run(arguments: argparse.Namespace) -> int:
    """Check, or check and trade."""
    before = _premarket(arguments)
    if arguments.check:
        return _print_checks(arguments, before.report())
    ended = trade(before, _venue(before))
    content = ended.summary["evidence"] | {"report": ended.report}
    print_result(arguments, content, lambda: _ended_text(ended))
    return 0 if not ended.report["alarms"] else FAILED


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
        clock_ns=wall_clock_ns,
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


def trade(before: PreMarket, make_venue: VenueFactory) -> Concluded:
    """Start, run to the end, hold against the broker, seal and sign.

    Parameters
    ----------
    before : PreMarket
        Not run yet.
    make_venue : callable
        Broker, clock and pace.

    Returns
    -------
    Concluded
        Of a session whose end is explained.

    Raises
    ------
    PlatformError
        The refusal of the start, what ended a part of the process, or SESSION_UNEXPLAINED.
    """
    from hft_platform.services.bootstrap import SystemBootstrapper
    from hft_platform.services.hft_system import signals_stop
    from hft_platform.services.live_report import conclude, post_market

    with (
        SystemBootstrapper(before, make_venue=make_venue).open() as opened,
        signals_stop(opened.system),
    ):
        cause = opened.system.run()
        found = post_market(opened.system.parts)
        opened.system.parts.broker.close()
        finished = opened.session.finish()
        return conclude(
            opened.system,
            cause,
            found,
            engine_config=opened.engine_config,
            ring=before.ring,
            finished=finished,
        )


def _venue(before: PreMarket) -> VenueFactory:
    from hft_platform.services.venues import live_venue

    request = before.request
    if request.recorded is not None:
        from hft_platform.services.rehearsal import rehearsal_venue

        return rehearsal_venue(request.recorded, request.speed)
    return live_venue(make_live_broker, wall_clock_ns)


def make_live_broker(request: VenueRequest) -> Broker:
    """The workspace's gateway where `gateway.enabled` says so, else the broker, not connected.

    Parameters
    ----------
    request : VenueRequest
        What it is wanted for.

    Returns
    -------
    Broker
    """
    from hft_platform.services.gateway_start import runner_broker

    return runner_broker(
        request.workspace,
        request.config,
        request.instruments,
        request.settings,
        make_broker=lambda: shioaji_broker(
            request.settings, request.instruments, request.workspace
        ),
    )


def shioaji_broker(
    settings: Settings, instruments: Mapping[int, Instrument], workspace: Path
) -> Broker:
    """Shioaji with the operator's credentials, not connected; whoever calls checked the opt-in.

    Parameters
    ----------
    settings : Settings
        Section ``broker``.
    instruments : mapping of int to Instrument
        What is traded, by its id.
    workspace : Path
        Where logins are counted.

    Returns
    -------
    Broker
    """
    from hft_platform.services.shioaji_factory import make_shioaji

    return make_shioaji(
        settings.broker,
        instruments=instruments.values(),
        workspace=workspace,
        environment=os.environ,
        clock_ns=wall_clock_ns,
        seed=os.getpid(),
        is_live_enabled=True,
    )


def _ended_text(ended: Concluded) -> str:
    evidence, report = ended.summary["evidence"], ended.report
    account, parity = evidence["account"], evidence["parity"]
    held = ", ".join(f"{name} {qty / 1e8:g}" for name, qty in report["positions"].items() if qty)
    lines = [
        f"session {evidence['run_id']} {'stopped' if evidence['stopped_early'] else 'ended'},"
        f" explained, {f'position {held}' if held else 'flat'}",
        f"  records {evidence['counts']['records']}, decisions {evidence['counts']['decisions']},"
        f" orders {evidence['counts']['orders']}, fills {account['fill_count']}",
        f"  net {account['net'] / 1e8:,.0f} (fees {account['fees'] / 1e8:,.0f}),"
        f" round trips {account['round_trip_count']}",
        f"  parity {parity['identical']} of {parity['total']} decisions identical",
        *(f"  alarm {row['reason']} ({row['code']}): {row['text']}" for row in report["alarms"]),
    ]
    if evidence["stopped_early"]:
        lines.append("  the same command goes on with it until its session ends")
    return "\n".join(lines)
