"""Evidence: gates, the comparison of the two exchanges, prototypes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.errors import ReasonCode
from research.commands import rehearsal
from research.commands.common import (
    DONE,
    FAILED,
    REFUSED,
    USAGE,
    alpha_of,
    print_result,
    workspace_of,
)

if TYPE_CHECKING:
    from research.experiments import TrialFacts
    from research.registry import Alpha

GATES_WITHOUT_SESSIONS = ("gate_a", "gate_b", "gate_c", "gate_d")


def gates(arguments: argparse.Namespace) -> int:
    """Run gates, or explain their verdicts."""
    if clash := _clash(arguments):
        sys.stderr.write(f"{clash}; nothing was run\n")
        return USAGE
    from research.promotion.overview import explain_gates

    ws, alpha = workspace_of(arguments), alpha_of(arguments)
    if arguments.why:
        answer = explain_gates(ws, alpha, config_dir=arguments.config_dir)
        print_result(arguments, answer, lambda: str(answer["text"]))
        return DONE
    if arguments.rehearse:
        return rehearsal.rehearse_gates(arguments, ws, alpha)
    from research.gates import run_gate

    rows = []
    for gate in (arguments.gate,) if arguments.gate else GATES_WITHOUT_SESSIONS:
        verdict = run_gate(ws, alpha, gate, config_dir=arguments.config_dir)
        rows.append(verdict.content() | {"sha256": verdict.sha256})
        if not arguments.json:
            sys.stdout.write(_verdict_text(rows[-1]) + "\n" + _expression_place(rows[-1], alpha))
            sys.stdout.flush()
        if not verdict.is_passed:
            break
    if arguments.json:
        sys.stdout.write(json.dumps(rows, sort_keys=True) + "\n")
    elif rows[-1]["verdict"] != "passed":
        sys.stdout.write(f"next: hft-research gates {alpha.alpha_id} --why\n")
    return DONE if rows[-1]["verdict"] == "passed" else REFUSED


def _clash(arguments: argparse.Namespace) -> str:
    """Which options do not go together; empty when all do."""
    if arguments.why and (arguments.rehearse or arguments.gate):
        return "--why explains verdicts that are there; it takes neither --rehearse nor --gate"
    if arguments.gate and arguments.rehearse:
        return "--rehearse goes through every gate; it takes no --gate"
    if (arguments.sessions or arguments.keep) and not arguments.rehearse:
        return "--sessions and --keep belong to --rehearse"
    return ""


def _expression_place(row: dict[str, Any], alpha: Alpha) -> str:
    """Where in the expression the fault is, when a verdict is about one."""
    codes = (ReasonCode.UNKNOWN_FEATURE, ReasonCode.EXPRESSION_INVALID)
    if not any(reason["code"] in codes for reason in row["reasons"]):
        return ""
    from research.registry import expression_excerpt

    excerpt = expression_excerpt(alpha) or ""
    return "".join(f"    {line}\n" for line in excerpt.splitlines())


def _verdict_text(row: dict[str, Any]) -> str:
    lines = [f"{row['gate']} {row['verdict']} {row['sha256'][:12]}"]
    lines += [f"  {item['name']} ({item['code']}): {item['text']}" for item in row["reasons"]]
    return "\n".join(lines)


def agree(arguments: argparse.Namespace) -> int:
    """Compare the two exchanges fill by fill."""
    import tempfile

    from research.backtest import package_agreement

    with tempfile.TemporaryDirectory(prefix="hft-agree-") as folder:
        if arguments.data is None:
            sources = [package_agreement.generated_session()]
        else:
            sources = package_agreement.recorded_sessions(
                arguments.data, Path(folder), session_id=arguments.session
            )
    results: list[dict[str, Any]] = []
    for name, tape, session, instrument in sources:
        cells = package_agreement.compare_session(tape, session, instrument)
        results.append({"session": name, "cells": [cell.as_dict() for cell in cells]})
    print_result(arguments, results, lambda: "\n".join(map(_agree_text, results)))
    agrees = all(cell["agrees"] for row in results for cell in row["cells"])
    return DONE if agrees else FAILED


def _agree_text(result: dict[str, Any]) -> str:
    cells = result["cells"]
    lines = [
        f"{result['session']}: fills of the paper exchange and of the package",
        f"{'strategy':<9}{'latency':>8}  {'queue model':<13}{'orders':>8}{'fills':>8}"
        f"{'passive':>9}{'equal':>8}{'':>3}seconds",
    ]
    for cell in cells:
        mark = "" if cell["agrees"] else "  DIFFERS"
        lines.append(
            f"{cell['kind']:<9}{cell['latency_ms']:>5} ms  {cell['queue_model']:<13}"
            f"{cell['order_count']:>8}{cell['fill_count']:>8}{cell['maker_fill_count']:>9}"
            f"{cell['equal_count']:>8}{cell['seconds']:>10.2f}{mark}"
        )
    equal, fills = (sum(cell[name] for cell in cells) for name in ("equal_count", "fill_count"))
    agreeing = sum(cell["agrees"] for cell in cells)
    lines.append(
        f"{agreeing} of {len(cells)} cells agree; {equal} of {fills} fills have equal exchange"
        " time, order, price and quantity"
    )
    return "\n".join(lines)


def prototype(arguments: argparse.Namespace) -> int:
    """Run a plain Python strategy on one session."""
    from research.prototype import facts_of, run_file

    folder, outcome = run_file(
        workspace_of(arguments),
        arguments.file,
        arguments.session,
        step_records=max(arguments.step, 1),
        config_dir=arguments.config_dir,
    )
    facts = facts_of(folder, outcome)
    print_result(arguments, facts, lambda: _prototype_text(facts))
    return DONE if facts["replayed_identical"] else FAILED


def _prototype_text(facts: dict[str, Any]) -> str:
    replayed = "identical" if facts["replayed_identical"] else "DIFFERENT"
    return "\n".join(
        [
            str(facts["speed"]),
            f"  intents   {facts['intents']} of {facts['batches']} batches, "
            f"{facts['lost_records']} records lost",
            f"  orders    {facts['approved']} approved, {facts['fills']} fills, "
            f"net {facts['net']:,.0f}",
            f"  replay    {facts['decisions']} decisions without the strategy: {replayed}",
            f"  folder    {facts['folder']}",
        ]
    )


def trials(arguments: argparse.Namespace) -> int:
    """The trial ledger."""
    from research.experiments.query import BY_ALPHA, ledger_facts, query

    ws = workspace_of(arguments)
    try:
        rows = query(ws, arguments.sql or BY_ALPHA)
    except ValueError as error:
        return _refused_statement(arguments, str(error))
    if arguments.sql:
        rows = json.loads(json.dumps(rows, default=str))
        print_result(arguments, rows, lambda: "\n".join(map(_cells, rows)) or "no rows")
        return DONE
    facts = ledger_facts(ws)
    print_result(
        arguments, {"alphas": rows, "all": facts.as_dict()}, lambda: _trials_text(rows, facts)
    )
    return DONE


def _refused_statement(arguments: argparse.Namespace, text: str) -> int:
    next_step = "views are trials, outcomes and results; hft-research trials --sql "
    next_step += "'DESCRIBE results' lists the columns of one"
    if arguments.json:
        sys.stdout.write(json.dumps({"message": text, "next": next_step}, sort_keys=True) + "\n")
    sys.stderr.write(f"{text}\n  next: {next_step}\n")
    return FAILED


def _cells(row: dict[str, Any]) -> str:
    return "  ".join(f"{name} {value}" for name, value in row.items())


def _trials_text(rows: list[dict[str, Any]], facts: TrialFacts) -> str:
    lines = [
        f"{row['alpha_id']:<28} {row['trials']:>6} trials, {row['evaluated']} evaluated, "
        f"{row['failed']} failed"
        + (
            ""
            if row["best_daily_sharpe"] is None
            else f", best {row['best_daily_sharpe']:.3f} a day"
        )
        for row in rows
    ]
    lines.append(
        f"{facts.count} trials amount to {facts.effective:.1f} independent ones "
        f"({facts.evaluated} evaluated in {facts.clusters} clusters; the others count in full); "
        f"their Sharpe ratios vary {facts.spread:.2f} times as much as without skill"
    )
    return "\n".join(lines)
