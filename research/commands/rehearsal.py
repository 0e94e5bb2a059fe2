"""`hft-research gates ID --rehearse`: its options, its progress and its table of seconds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.commands.common import DONE, print_result

if TYPE_CHECKING:
    from research.registry import Alpha


def add_options(gates: argparse.ArgumentParser) -> None:
    """Options of the command `gates` that are about rehearsals."""
    gates.add_argument(
        "--rehearse", action="store_true",
        help="authorises nothing: every statistic of gates A to E on the sessions there are",
    )  # fmt: skip
    gates.add_argument(
        "--sessions", type=_count, metavar="N", help="rehearse on the alpha's first N sessions only"
    )
    gates.add_argument(
        "--keep", action="store_true", help="leave the logs of the rehearsal's shadow sessions"
    )


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"was {value}, at least 1 session")
    return value


def rehearse_gates(arguments: argparse.Namespace, ws: Path, alpha: Alpha) -> int:
    """Rehearse and report; done whatever the gates would say."""
    from research.gates.rehearsal import rehearse, report_path

    def show(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    rehearsal = rehearse(
        ws,
        alpha,
        config_dir=arguments.config_dir,
        session_count=arguments.sessions,
        keep=arguments.keep,
        progress=None if arguments.json else show,
    )
    content = rehearsal.content()
    where = report_path(ws, alpha.key)
    print_result(arguments, content, lambda: _text(content, where))
    return DONE


def _text(content: dict[str, Any], where: Path) -> str:
    lines = []
    for gate, row in content["gates"].items():
        missing = len(row["undefined"])
        lines.append(f"{gate} would say {row['would_say']}; {missing} statistics do not exist")
        lines += [f"  {item['name']} ({item['code']}): {item['text']}" for item in row["reasons"]]
    timings = content["timings"]
    lines.append(f"{'step':<28}{'seconds':>9}{'CPU':>9}{'calls':>7}")
    lines += [
        f"{r['step']:<28}{r['seconds']:>9.2f}{r['cpu_seconds']:>9.2f}{r['calls']:>7}"
        for r in timings["steps"]
    ]
    lines.append(f"{'all':<28}{timings['seconds']:>9.2f}{timings['cpu_seconds']:>9.2f}")
    lines.append(f"{content['new_trials']} new trials are in the ledger")
    lines.append(f"report: {where}; it authorises nothing")
    return "\n".join(lines)
