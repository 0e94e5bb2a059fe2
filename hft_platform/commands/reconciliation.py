"""Compare with the broker and restrict: `hft-live reconcile`, `reduce-only`, `flatten`, `adopt`."""

from __future__ import annotations

import argparse
import getpass
import json
import time
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.commands.output import print_result
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.records import SCALE

if TYPE_CHECKING:
    from hft_platform.services.operator_requests import OperatorRequest, RequestKind

WAIT_SECONDS = 3.0
"""A session that runs looks several times a second."""
LOOK_SECONDS = 0.05

Add = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]


def add_commands(add: Add) -> None:
    """Declare the four commands.

    Parameters
    ----------
    add : callable
        Adds a subcommand of `hft-live`.
    """
    see = add("reconcile", reconcile, "Show what a session and its broker disagree about.")
    see.add_argument(
        "session", nargs="?", help="run id or session folder (default: the newest report)"
    )
    restrict = add("reduce-only", reduce_only, "Let running sessions only reduce, until resumed.")
    restrict.add_argument("--symbol", help="only alphas that trade it")
    close = add("flatten", flatten, "Let running sessions close their positions now.")
    take = add("adopt", adopt, "Take a position at the broker that is none of ours as external.")
    take.add_argument("--symbol", required=True, help="contract, as the report names it")
    take.add_argument(
        "--qty", required=True, type=_qty, help="signed quantity, as the report says: --qty=-2"
    )
    for command in (restrict, close, take):
        command.add_argument("--why", required=True, help="reason, kept with the request")
        command.add_argument(
            "--session", help="run id or session folder (default: every unfinished session)"
        )
        command.add_argument(
            "--wait",
            type=float,
            default=WAIT_SECONDS,
            metavar="SECONDS",
            help=f"how long to wait for the session's answer (default: {WAIT_SECONDS:g})",
        )


def reconcile(arguments: argparse.Namespace) -> int:
    """Print the last report; 1 when it names something that a person must look at."""
    from hft_platform.execution.reconciliation_report import ReconciliationReport

    path = _report_path(arguments)
    report = ReconciliationReport.read(path)

    def text() -> str:
        return f"session {path.parent.name}\n{report.render()}"

    print_result(arguments, report.as_dict() | {"run_id": path.parent.name}, text)
    return 1 if report.findings else 0


def reduce_only(arguments: argparse.Namespace) -> int:
    """Ask sessions to open nothing more."""
    from hft_platform.services.operator_requests import RequestKind

    return _ask(arguments, RequestKind.REDUCE_ONLY, symbol=arguments.symbol)


def flatten(arguments: argparse.Namespace) -> int:
    """Ask sessions to close what they hold."""
    from hft_platform.services.operator_requests import RequestKind

    return _ask(arguments, RequestKind.FLATTEN, symbol=None)


def adopt(arguments: argparse.Namespace) -> int:
    """Ask a session to take a drift as external, if its report still says so."""
    from hft_platform.execution.reconciliation_report import ReconciliationReport
    from hft_platform.services.operator_requests import RequestKind

    path = _report_path(arguments)
    drifts = ReconciliationReport.read(path).drifts
    if drifts.get(arguments.symbol) != arguments.qty:
        said = ", ".join(f"{name} {_units(qty)}" for name, qty in sorted(drifts.items())) or "none"
        raise PlatformError(
            ReasonCode.POSITION_DRIFT,
            f"--qty was {_units(arguments.qty)} of {arguments.symbol}; the last report of session"
            f" {path.parent.name} has drifts: {said}",
            next_step="hft-live reconcile, then repeat what it says now",
        )
    arguments.session = str(path.parent)
    return _ask(arguments, RequestKind.ADOPT, symbol=arguments.symbol, argument=arguments.qty)


def _ask(
    arguments: argparse.Namespace, kind: RequestKind, *, symbol: str | None, argument: int = 0
) -> int:
    from hft_platform.services import operator_requests

    targets = [(folder, _instrument_id(folder, symbol)) for folder in _targets(arguments)]
    asked = [
        (
            folder,
            operator_requests.ask(
                folder,
                kind,
                who=getpass.getuser(),
                why=arguments.why,
                since_ns=time.time_ns(),
                instrument_id=instrument_id,
                argument=argument,
            ),
        )
        for folder, instrument_id in targets
    ]
    rows = _answers(asked, time.monotonic() + arguments.wait)
    print_result(arguments, rows, lambda: "\n".join(map(_answer_text, rows)))
    return 0 if all(row["input_seq"] for row in rows) else 1


def _answers(asked: list[tuple[Path, OperatorRequest]], deadline_s: float) -> list[dict[str, Any]]:
    from hft_platform.services import operator_requests

    while True:
        rows = []
        for folder, request in asked:
            answer = operator_requests.answer_to(folder, request)
            rows.append(
                {"run_id": folder.name, "request": request.request_id}
                | (answer or {"input_seq": None, "code": None})
            )
        if all(row["code"] is not None for row in rows) or time.monotonic() >= deadline_s:
            return rows
        time.sleep(LOOK_SECONDS)


def _answer_text(row: dict[str, Any]) -> str:
    head = f"{row['run_id']} {row['request']}: "
    if row["code"] is None:
        return (
            head + "not taken yet: the process does not run, or it hangs; it takes the request when"
            " it looks again\n  next: hft-live status; hft-live halt if it does run"
        )
    if row["code"]:
        return head + f"refused with {code_name(row['code'])} ({row['code']})"
    return head + f"taken as input {row['input_seq']}"


def _targets(arguments: argparse.Namespace) -> list[Path]:
    from hft_platform.commands.sessions import session_dir
    from hft_platform.services import halt_log

    if arguments.session is not None:
        found = session_dir(arguments, arguments.session)
        if (found / "summary.json").exists():
            raise PlatformError(
                ReasonCode.CONFIG_NOT_FOUND,
                f"session {found.name} has ended; it takes no request",
                next_step="hft-live status",
            )
        return [found]
    folders = halt_log.unfinished(arguments.workspace)
    if not folders:
        raise PlatformError(
            ReasonCode.CONFIG_NOT_FOUND,
            f"no session in {arguments.workspace / 'sessions'} is unfinished: nobody to ask",
            next_step="hft-live halt keeps new sessions from starting",
        )
    return folders


def _report_path(arguments: argparse.Namespace) -> Path:
    from hft_platform.commands.sessions import session_dir
    from hft_platform.execution.reconciliation_report import FILE_NAME

    if arguments.session is not None:
        if (direct := Path(arguments.session) / FILE_NAME).exists():
            return direct
        path = session_dir(arguments, arguments.session) / FILE_NAME
        if path.exists():
            return path
    else:
        found: list[Path] = sorted(
            (arguments.workspace / "sessions").glob(f"*/{FILE_NAME}"),
            key=lambda path: (path.stat().st_mtime_ns, path),
        )
        if found:
            return found[-1]
    raise PlatformError(
        ReasonCode.CONFIG_NOT_FOUND,
        "no session has a reconciliation report: only sessions with a broker write one",
        next_step="hft-live status",
    )


def _instrument_id(folder: Path, symbol: str | None) -> int:
    if symbol is None:
        return 0
    rows = json.loads((folder / "engine.json").read_bytes())["instruments"]
    for row in rows:
        if row["symbol"] == symbol:
            return int(row["instrument_id"])
    names = ", ".join(row["symbol"] for row in rows)
    raise PlatformError(
        ReasonCode.UNKNOWN_INSTRUMENT,
        f"session {folder.name} trades {names}, not {symbol}",
        next_step="name one of these",
    )


def _qty(text: str) -> int:
    try:
        scaled = Decimal(text) * SCALE
    except InvalidOperation:
        scaled = Decimal(0)
    if scaled == 0 or not scaled.is_finite() or scaled != int(scaled) or abs(scaled) >= 1 << 63:
        raise argparse.ArgumentTypeError(
            f"was {text!r}; it is a number other than 0 with at most eight decimals"
        )
    return int(scaled)


def _units(qty: int) -> str:
    return f"{Decimal(qty) / SCALE:+f}"
