"""hft-live: run, replay, explain, status, halt, resume, wal, backup, restore, metrics, drill.

Exit codes: 0 done, 1 failed (a replay that differs, a log that is damaged), 2 usage, 3 refused with
a reason code. Every command has ``--json``.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import functools
import getpass
import io
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from hft_platform.errors import PlatformError, ReasonCode, code_name

if TYPE_CHECKING:
    from hft_platform.config.keys import KeyRing
    from hft_platform.drills.drill import DrillReport
    from hft_platform.recorder.loader import LoadReport

REFUSED = 3
ENVIRONMENT_LIVE = "HFT_LIVE_ENABLED"
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

    run = add("run", _run, "Run one session of a promoted config.")
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

    replay = add("replay", _replay, "Decide a session again from its logs and compare bit for bit.")
    replay.add_argument("session", help="run id or session folder")

    explain = add("explain", _explain, "Show what caused an order, from the logs alone.")
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

    add("status", _status, "Show sessions, promotions and the halt latch of a workspace.")

    halt = add("halt", _halt, "Latch a halt: running sessions cancel and stop, new ones refuse.")
    halt.add_argument("--why", required=True, help="reason, kept with the latch")

    resume = add("resume", _resume, "Lift a halt in two steps: read the token, then confirm it.")
    resume.add_argument("--confirm", metavar="TOKEN", help="the token that the first step printed")

    wal = add("wal", _wal, "Inspect, verify, recover, salvage, load or follow write-ahead logs.")
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
        "metrics", _metrics, "Give a workspace's metrics to Prometheus (docs/metrics.md)."
    )
    metrics.add_argument("--port", type=int, default=9108, help="to listen on (default: 9108)")
    metrics.add_argument(
        "--address", default="127.0.0.1", help="to listen on (default: 127.0.0.1, this machine)"
    )
    metrics.add_argument(
        "--allow-remote", action="store_true", help="with an address that others can reach"
    )
    metrics.add_argument("--once", action="store_true", help="print the metrics and end")

    copy = add("backup", _backup, "Copy logs, ledgers, audit chain and promotions of a workspace.")
    copy.add_argument("target", type=Path, help="new or empty folder")
    copy.add_argument("--with-keys", action="store_true", help="take the private keys as well")
    copy.add_argument("--with-market", action="store_true", help="take the market logs as well")

    back = add("restore", _restore, "Verify a backup and make a workspace of it (--workspace).")
    back.add_argument("source", type=Path, help="folder that backup made")

    drill = add("drill", _drill, "Rehearse an outage in a folder of its own (docs/drills.md).")
    drill.add_argument("name", help="a drill, all, or list")
    drill.add_argument("--seed", type=int, default=1, help="decides what is drawn (default: 1)")
    drill.add_argument("--size", type=int, default=1, help="repetitions, in units (default: 1)")
    drill.add_argument(
        "--folder", type=Path, help="where it works, empty or new (default: a temporary one)"
    )
    return parser


def _run(arguments: argparse.Namespace) -> int:
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
    _print(arguments, finished, lambda: "\n".join(_run_text(row) for row in finished))
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


def _session_dir(arguments: argparse.Namespace, name: str) -> Path:
    workspace = Path(arguments.workspace)
    for path in (Path(name), workspace / "sessions" / name, workspace / "drills" / name):
        if (path / "engine.json").exists():
            return path
    raise PlatformError(
        ReasonCode.CONFIG_NOT_FOUND,
        f"no session {name} in {workspace / 'sessions'}",
        next_step="hft-live status",
    )


def _replay(arguments: argparse.Namespace) -> int:
    from hft_platform.services.parity import replay_session, summary_agrees

    session_dir = _session_dir(arguments, arguments.session)
    report = replay_session(session_dir, write=False)
    agrees = summary_agrees(session_dir, report, workspace=arguments.workspace)

    def text() -> str:
        lines = [
            f"parity {report.identical} of {report.total} decisions identical ({report.share:.2%})"
        ]
        lines += [
            f"  decision {d.decision_index} at input {d.input_seq}: {d.cause}"
            for d in report.differences
        ]
        said = {
            True: "the logs are those of the signed summary",
            False: "the logs are NOT those of the signed summary",
            None: "there is no signed summary to hold the logs against",
        }
        lines += [
            f"  not in the log: {one.count} of {one.topic} from input {one.first_seq} to"
            f" {one.last_seq} ({code_name(one.reason_code)})"
            for one in report.shed
        ]
        if report.shed:
            lines.append(f"  {report.not_replayable} decisions behind the first cannot be replayed")
        lines += [report.extent_text] if report.extent_text else []
        return "\n".join([*lines, said[agrees]])

    _print(arguments, report.as_dict() | {"summary_agrees": agrees}, text)
    return 0 if report.is_identical and agrees is not False else 1


def _explain(arguments: argparse.Namespace) -> int:
    from hft_platform.services.explain import explain_order, list_orders, list_refusals

    session_dir = _session_dir(arguments, arguments.session)
    if arguments.order is None:
        rows = list_refusals(session_dir) if arguments.refused else list_orders(session_dir)
        none = "no intent was refused" if arguments.refused else "no order was placed"
        _print(arguments, rows, lambda: "\n".join(map(_order_text, rows)) or none)
        return 0
    explanation = explain_order(session_dir, arguments.order)
    text = functools.partial(explanation.render, all_checks=arguments.checks)
    _print(arguments, explanation.as_dict(), text)
    return 0


def _order_text(row: dict[str, Any]) -> str:
    from hft_platform.services.explain_text import number, units

    side = "buy" if row["side"] > 0 else "sell"
    refused = f", refused {row['reason']}" if row["reason"] else ""
    return (
        f"{row['order_id'] or row['intent_id']} {row['intent_reason']} {side} {units(row['qty'])}"
        f" at {units(row['price'])}, signal {number(row['signal'])} ticks{refused}"
    )


def _status(arguments: argparse.Namespace) -> int:
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
        promoted = [
            f"  {row['alpha_id']}: {row['stage']} weight {row['weight_ppm'] / 1e4:g} %"
            f" seq {row['promotion_seq']}{' WITHDRAWN' if row['withdrawn'] else ''}"
            for row in status["promotions"]
        ]
        guards = ["unfinished sessions:", *running] if running else []
        promotions = ["promotions:", *(promoted or ["  none"])]
        return "\n".join([head, *promotions, *guards, console.export_text()])

    _print(arguments, status, text)
    return 0


def _halt_text(content: dict[str, Any]) -> str:
    code, since_ns = content["code"], content["since_ns"]
    since = "" if since_ns is None else f" since {_utc(since_ns)}"
    return f"HALTED by {content['who']}{since}, {code_name(code)} ({code}): {content['why']}"


def _guard_text(part: Any) -> str:  # Any: a row of the status, or the code of a damaged log
    if isinstance(part, str):
        return part
    if part["since_ns"] is None:
        return str(part["state"])
    return f"{part['state']} since {_utc(part['since_ns'])} ({part['reason']})"


def _utc(time_ns: int) -> str:
    moment = dt.datetime.fromtimestamp(time_ns // 10**9, tz=dt.UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _halt(arguments: argparse.Namespace) -> int:
    from hft_platform.services import latch

    latch.halt(
        arguments.workspace, who=getpass.getuser(), why=arguments.why, since_ns=time.time_ns()
    )
    _print(
        arguments,
        latch.read(arguments.workspace),
        lambda: (
            "halted: running sessions take their orders back and open nothing within a second,"
            " new ones refuse\nnext: hft-live resume"
        ),
    )
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    from hft_platform.services import latch

    content = latch.adopt(arguments.workspace)
    if content is None:
        _print(arguments, {"halted": False}, lambda: "not halted")
        return 0
    if arguments.confirm is None:
        token = latch.resume_token(arguments.workspace)
        _print(
            arguments,
            content | {"token": token},
            lambda: (
                f"{_halt_text(content)}\nwhen the cause is gone: hft-live resume --confirm {token}"
            ),
        )
        return 0
    latch.resume(arguments.workspace, token=arguments.confirm)
    _print(
        arguments,
        {"halted": False},
        lambda: "resumed: new sessions may start; running ones resume unless the cause remains",
    )
    return 0


def _wal(arguments: argparse.Namespace) -> int:
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
    _print(arguments, report.as_dict(), report.render)
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
    _print(arguments, status.as_dict(), status.render)
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
            _print(arguments, report.as_dict(), report.render)
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
    _print(arguments, report.as_dict(), report.render)
    return 0 if report.is_sound else 1


def _metrics(arguments: argparse.Namespace) -> int:
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
    _print(arguments, {"url": url}, lambda: url)
    sys.stdout.flush()
    thread.join()
    return 0


def _backup(arguments: argparse.Namespace) -> int:
    from hft_platform.services.backup import backup

    report = backup(
        arguments.workspace,
        arguments.target,
        with_keys=arguments.with_keys,
        with_market=arguments.with_market,
    )
    _print(
        arguments,
        report.as_dict(),
        lambda: (
            f"{report.files} files, {report.size_bytes} bytes, {len(report.logs)} logs"
            f" in {report.folder}\nnext: keep it on another disk; hft-live restore"
        ),
    )
    return 0


def _restore(arguments: argparse.Namespace) -> int:
    from hft_platform.services.backup import restore

    report = restore(arguments.source, arguments.workspace)
    logs = "\n".join(f"  {path}: records up to {seq}" for path, seq in report.logs.items())
    _print(
        arguments,
        report.as_dict(),
        lambda: (
            f"{report.files} files restored to {report.folder}, logs verified\n{logs}\n"
            f"next: hft-research audit verify --workspace {report.folder}"
        ),
    )
    return 0


def _drill(arguments: argparse.Namespace) -> int:
    import logging
    import tempfile

    from hft_platform.drills.drill import drills, find_drill, run_drill

    if arguments.name == "list":
        listed = [{"name": drill.name, "text": drill.text} for drill in drills().values()]
        _print(
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
    _print(arguments, [report.as_dict() for report in reports], lambda: _drills_text(reports))
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


def _print(arguments: argparse.Namespace, content: Any, text: Callable[[], str]) -> None:
    if arguments.json:
        sys.stdout.write(json.dumps(content, sort_keys=True, allow_nan=False) + "\n")
    else:
        sys.stdout.write(text() + "\n")


if __name__ == "__main__":
    sys.exit(main())
