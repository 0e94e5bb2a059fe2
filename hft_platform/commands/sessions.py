"""Ask a finished session: `hft-live replay` and `hft-live explain`."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

from hft_platform.commands.output import print_result
from hft_platform.errors import PlatformError, ReasonCode, code_name


def session_dir(arguments: argparse.Namespace, name: str) -> Path:
    """Folder of a session.

    Parameters
    ----------
    arguments : Namespace
        With `workspace`.
    name : str
        Run id, or the folder itself.
    """
    workspace = Path(arguments.workspace)
    for path in (Path(name), workspace / "sessions" / name, workspace / "drills" / name):
        if (path / "engine.json").exists():
            return path
    raise PlatformError(
        ReasonCode.CONFIG_NOT_FOUND,
        f"no session {name} in {workspace / 'sessions'}",
        next_step="hft-live status",
    )


def replay(arguments: argparse.Namespace) -> int:
    """Decide a session again and compare; 1 when it differs."""
    from hft_platform.services.parity import replay_session, summary_agrees

    folder = session_dir(arguments, arguments.session)
    report = replay_session(folder, write=False)
    agrees = summary_agrees(folder, report, workspace=arguments.workspace)

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

    print_result(arguments, report.as_dict() | {"summary_agrees": agrees}, text)
    return 0 if report.is_identical and agrees is not False else 1


def explain(arguments: argparse.Namespace) -> int:
    """Show what caused an order, or list orders."""
    from hft_platform.services.explain import explain_order, list_orders, list_refusals

    folder = session_dir(arguments, arguments.session)
    if arguments.order is None:
        rows = list_refusals(folder) if arguments.refused else list_orders(folder)
        none = "no intent was refused" if arguments.refused else "no order was placed"
        print_result(arguments, rows, lambda: "\n".join(map(_order_text, rows)) or none)
        return 0
    explanation = explain_order(folder, arguments.order)
    text = functools.partial(explanation.render, all_checks=arguments.checks)
    print_result(arguments, explanation.as_dict(), text)
    return 0


def _order_text(row: dict[str, Any]) -> str:
    from hft_platform.services.explain_text import number, units

    side = "buy" if row["side"] > 0 else "sell"
    refused = f", refused {row['reason']}" if row["reason"] else ""
    return (
        f"{row['order_id'] or row['intent_id']} {row['intent_reason']} {side} {units(row['qty'])}"
        f" at {units(row['price'])}, signal {number(row['signal'])} ticks{refused}"
    )
