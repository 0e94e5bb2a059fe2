"""hft-live: run, replay, explain, status, halt, resume, reconcile, wal, backup, metrics and more.

Exit codes: 0 done, 1 failed (a replay that differs, a log that is damaged), 2 usage, 3 refused with
a reason code. Every command has ``--json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import structlog

from hft_platform.commands import control, logs, operations, reconciliation, sessions
from hft_platform.commands import gateway as gateway_command
from hft_platform.commands import run as run_command
from hft_platform.errors import PlatformError, ReasonCode

REFUSED = 3
SPEED_MAX = 1e6


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = _parser().parse_args(argv)
    configured = structlog.get_config()
    # Standard output is for the answer alone, which a script reads.
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    try:
        return int(arguments.run(arguments))
    except PlatformError as error:
        return _refuse(arguments, error)
    except OSError as error:
        if error.filename is None:
            raise
        return _refuse(arguments, _of_the_machine(error))
    except KeyboardInterrupt:
        sys.stderr.write("stopped by the operator; the logs were written up to here\n")
        return 1
    finally:
        structlog.configure(**configured)


def _refuse(arguments: argparse.Namespace, error: PlatformError) -> int:
    if getattr(arguments, "json", False):
        sys.stdout.write(json.dumps(error.as_dict(), sort_keys=True) + "\n")
    sys.stderr.write(error.render() + "\n")
    return REFUSED


def _of_the_machine(error: OSError) -> PlatformError:
    """A path that cannot be had: no folder, no right, no space."""
    return PlatformError(
        ReasonCode.WAL_READ_FAILED,
        f"{error.filename}: {error.strerror}",
        next_step="look at the path, its rights and the space on its disk",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hft-live",
        description="The live runtime. It trades nothing but promoted configs that verify.",
        epilog="example: hft-live run --mode paper --alpha txf_ofi_taker --session 2026-04-10/day",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def add(
        name: str, run: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "--workspace",
            type=Path,
            default=Path("build/workspace"),
            help="folder with keys, promotions, datasets and sessions (default: build/workspace)",
        )
        command.add_argument("--json", action="store_true", help="print JSON for scripts")
        command.set_defaults(run=run)
        return command

    run = add("run", run_command.run, "Run one session of a promoted config.")
    run.add_argument(
        "--mode",
        choices=["sim", "paper", "live"],
        required=True,
        help="sim: virtual time; paper: paper exchange, paced; live: the broker",
    )
    which = run.add_mutually_exclusive_group(required=True)
    which.add_argument("--alpha", help="alpha id: its newest promoted config is used")
    which.add_argument("--config", type=Path, help="a promoted config's YAML")
    run.add_argument(
        "--session",
        nargs="+",
        default=[],
        help="recorded sessions, e.g. 2026-04-10/day, or their folders, run in order",
    )
    run.add_argument("--symbol", help="instrument, when config or datasets leave a choice")
    run.add_argument(
        "--speed", type=_speed, default=1.0, help="paper: times real time, or max (default: 1)"
    )

    run.add_argument(
        "--faults",
        metavar="FILE",
        help="drill: let things go wrong at the paper exchange, by a fault profile's YAML or name "
        "(drill); the run goes to drills/, has no signed summary and is no evidence",
    )

    run.add_argument(
        "--broker",
        choices=["shioaji", "paper"],
        default="shioaji",
        help="live: who takes the orders; paper rehearses the whole live process over one recorded"
        " --session, without credentials (default: shioaji)",
    )
    run.add_argument(
        "--check", action="store_true", help="live: run the pre-market checks only, open nothing"
    )
    run.add_argument(
        "--flatten-on-stop",
        action="store_true",
        help="live: close the position when stopped before the session's end",
    )

    replay = add(
        "replay", sessions.replay, "Decide a session again from its logs and compare bit for bit."
    )
    replay.add_argument("session", help="run id or session folder")

    explain = add("explain", sessions.explain, "Show what caused an order, from the logs alone.")
    explain.add_argument(
        "order", nargs="?", type=int, help="order id or intent id (leave out to list orders)"
    )
    explain.add_argument("--session", required=True, help="run id or session folder")
    explain.add_argument(
        "--checks", action="store_true", help="print every check, not only refusals"
    )
    explain.add_argument(
        "--refused", action="store_true", help="list refused intents instead of orders"
    )

    add("status", control.status, "Show sessions, promotions and the halt latch of a workspace.")

    halt = add(
        "halt", control.halt, "Latch a halt: running sessions cancel and stop, new ones refuse."
    )
    halt.add_argument("--why", required=True, help="reason, kept with the latch")

    resume = add(
        "resume", control.resume, "Lift a halt in two steps: read the token, then confirm it."
    )
    resume.add_argument("--confirm", metavar="TOKEN", help="the token that the first step printed")

    reconciliation.add_commands(add)

    wal = add(
        "wal", logs.wal, "Inspect, verify, recover, salvage, load or follow write-ahead logs."
    )
    actions = ["inspect", "verify", "recover", "salvage", "load", "follow"]
    wal.add_argument("action", choices=actions)
    wal.add_argument("path", nargs="?", help="segment file, log folder, run id or session folder")
    # Given by `run` to its own child: how often it was started before, and its time for the rest.
    wal.add_argument("--child", type=int, help=argparse.SUPPRESS)
    wal.add_argument("--drain-seconds", type=float, default=15.0, help=argparse.SUPPRESS)
    wal.add_argument(
        "--follow", action="store_true", help="load: go on whenever a segment is sealed, until ^C"
    )
    wal.add_argument(
        "--check", action="store_true", help="load: hold all that is loaded against the contract"
    )
    wal.add_argument(
        "--target", type=Path, help="salvage: folder to make (default: beside the log)"
    )
    wal.add_argument(
        "--swap-in", metavar="TOKEN", help="salvage: put what was salvaged in the log's place"
    )

    metrics = add(
        "metrics", operations.metrics, "Give a workspace's metrics to Prometheus (docs/metrics.md)."
    )
    metrics.add_argument("--port", type=int, default=9108, help="to listen on (default: 9108)")
    metrics.add_argument(
        "--address", default="127.0.0.1", help="to listen on (default: 127.0.0.1, this machine)"
    )
    metrics.add_argument(
        "--allow-remote", action="store_true", help="with an address that others can reach"
    )
    metrics.add_argument("--once", action="store_true", help="print the metrics and end")

    copy = add(
        "backup",
        operations.backup,
        "Copy logs, ledgers, audit chain and promotions of a workspace.",
    )
    copy.add_argument("target", type=Path, help="new or empty folder")
    copy.add_argument("--with-keys", action="store_true", help="take the private keys as well")
    copy.add_argument("--with-market", action="store_true", help="take the market logs as well")

    back = add(
        "restore", operations.restore, "Verify a backup and make a workspace of it (--workspace)."
    )
    back.add_argument("source", type=Path, help="folder that backup made")

    gateway = add(
        "gateway",
        gateway_command.gateway,
        "Lead or stand by for strategy runners; or say who does.",
    )
    gateway.add_argument("action", choices=["run", "status"])
    gateway.add_argument(
        "--alpha", action="append", default=[], help="run: an alpha whose runner is served; repeat"
    )
    gateway.add_argument(
        "--broker",
        metavar="MODULE:FUNCTION",
        help="run: what makes another broker's adapter (default: Shioaji)",
    )

    drill = add(
        "drill", operations.drill, "Rehearse an outage in a folder of its own (docs/drills.md)."
    )
    drill.add_argument("name", help="a drill, all, or list")
    drill.add_argument("--seed", type=int, default=1, help="decides what is drawn (default: 1)")
    drill.add_argument("--size", type=int, default=1, help="repetitions, in units (default: 1)")
    drill.add_argument(
        "--folder", type=Path, help="where it works, empty or new (default: a temporary one)"
    )
    return parser


def _speed(text: str) -> float | None:
    """Times real time; None for max."""
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = -1.0
    if not 0.0 < speed <= SPEED_MAX:
        raise argparse.ArgumentTypeError(
            f"was {text!r}; it is a number above 0 up to {SPEED_MAX:g}, or max"
        )
    return speed


if __name__ == "__main__":
    sys.exit(main())
