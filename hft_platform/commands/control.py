"""See and stop a workspace: `hft-live status`, `halt` and `resume`."""

from __future__ import annotations

import argparse
import datetime as dt
import getpass
import io
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from hft_platform.commands.output import print_result
from hft_platform.errors import code_name


def status(arguments: argparse.Namespace) -> int:
    """Show sessions, promotions and the halt latch."""
    from hft_platform.services.status import workspace_status

    status = workspace_status(arguments.workspace)

    def text() -> str:
        names = ("run_id", "state", "stage", "orders", "net", "parity", "halted_by")
        table = Table(*(name.replace("_", " ") for name in names))
        for row in status["sessions"]:
            table.add_row(*("-" if row[name] is None else str(row[name]) for name in names))
        console = Console(file=io.StringIO(), width=120, record=True)
        console.print(table)
        halted = status["halt"]
        head = _halt_text(halted) + "\nnext: hft-live resume" if halted else "not halted"
        running = [
            f"  {row['run_id']}: "
            + ", ".join(f"{name} {_guard_text(part)}" for name, part in row["guard"].items())
            for row in status["sessions"]
            if row["guard"]
        ]
        live = [_live_text(row) for row in status["live"]]
        promoted = [
            f"  {row['alpha_id']}: {row['stage']} weight {row['weight_ppm'] / 1e4:g} %"
            f" seq {row['promotion_seq']}{' WITHDRAWN' if row['withdrawn'] else ''}"
            for row in status["promotions"]
        ]
        guards = ["unfinished sessions:", *running] if running else []
        promotions = ["promotions:", *(promoted or ["  none"])]
        return "\n".join([head, *live, *promotions, *guards, console.export_text()])

    print_result(arguments, status, text)
    return 0


def _halt_text(content: dict[str, Any]) -> str:
    code, since_ns = content["code"], content["since_ns"]
    since = "" if since_ns is None else f" since {_utc(since_ns)}"
    return f"HALTED by {content['who']}{since}, {code_name(code)} ({code}): {content['why']}"


def _live_text(row: dict[str, Any]) -> str:
    """One live process, in two lines."""
    age = "" if row["age_s"] is None else f", {row['age_s']:.0f} s ago"
    head = f"live process {row['run_id']}: {row['process']}{age}"
    if row["process"] == "unreadable":
        return head
    phases = ", ".join(f"{part['symbol']} {part['phase']}" for part in row["phases"])
    ready = "ready" if row["is_ready"] and not row["is_restricted"] else "reduce-only or not ready"
    reasons = f" ({'; '.join(row['reasons'])})" if row["reasons"] else ""
    held = ", ".join(f"{name} {qty / 1e8:g}" for name, qty in row["positions"].items() if qty)
    lines = [
        f"{head}, pid {row['pid']}, {row['mode']} at {row['broker']}, {phases}; {ready}{reasons}",
        f"  position {held or 'flat'}, open orders {row['open_orders']} (unknown"
        f" {row['unknown_orders']}), weight {row['weight_ppm'] / 1e4:g} %",
        *(f"  alarm {code_name(part['code'])}: {part['message']}" for part in row["alarms"]),
    ]
    return "\n".join(lines)


def _guard_text(part: Any) -> str:  # Any: a row of the status, or the code of a damaged log
    if isinstance(part, str):
        return part
    if part["since_ns"] is None:
        return str(part["state"])
    return f"{part['state']} since {_utc(part['since_ns'])} ({part['reason']})"


def _utc(time_ns: int) -> str:
    moment = dt.datetime.fromtimestamp(time_ns // 10**9, tz=dt.UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def halt(arguments: argparse.Namespace) -> int:
    """Latch a halt."""
    from hft_platform.services import latch

    latch.halt(
        arguments.workspace, who=getpass.getuser(), why=arguments.why, since_ns=time.time_ns()
    )
    print_result(
        arguments,
        latch.read(arguments.workspace),
        lambda: (
            "halted: running sessions take their orders back and open nothing within a second,"
            " new ones refuse\nnext: hft-live resume"
        ),
    )
    return 0


def resume(arguments: argparse.Namespace) -> int:
    """Print the token of a halt, or lift the halt with it."""
    from hft_platform.services import latch

    content = latch.adopt(arguments.workspace)
    if content is None:
        print_result(arguments, {"halted": False}, lambda: "not halted")
        return 0
    if arguments.confirm is None:
        token = latch.resume_token(arguments.workspace)
        print_result(
            arguments,
            content | {"token": token},
            lambda: (
                f"{_halt_text(content)}\nwhen the cause is gone: hft-live resume --confirm {token}"
            ),
        )
        return 0
    latch.resume(arguments.workspace, token=arguments.confirm)
    print_result(
        arguments,
        {"halted": False},
        lambda: "resumed: new sessions may start; running ones resume unless the cause remains",
    )
    return 0
