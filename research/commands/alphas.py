"""Alphas to look at: new, list, show, compare, pool, scorecard."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from research.commands.common import DONE, USAGE, alpha_of, print_result, user_of, workspace_of
from research.page import plain_number


def new(arguments: argparse.Namespace) -> int:
    """Start an alpha from a template."""
    from research.new_alpha import write_new_alpha

    alpha_id = arguments.alpha_id
    files = write_new_alpha(
        alpha_id, owner=user_of(arguments), folder=arguments.alphas, kind=arguments.template
    )
    print_result(
        arguments,
        {"alpha_id": alpha_id, "files": [str(path) for path in files]},
        lambda: (
            f"{' and '.join(map(str, files))}: fill them in, then\n"
            f"next: hft-research gates {alpha_id}"
        ),
    )
    return DONE


def list_alphas(arguments: argparse.Namespace) -> int:
    """Where every alpha stands."""
    from research.promotion.overview import alpha_rows

    rows = alpha_rows(workspace_of(arguments), arguments.alphas, config_dir=arguments.config_dir)
    print_result(arguments, rows, lambda: "\n".join(_row_text(row) for row in rows) or "no alphas")
    return DONE


def _row_text(row: dict[str, Any]) -> str:
    marks = {"passed": "+", "failed": "-", "insufficient_evidence": "?", "not_computed": "!"}
    gates = " ".join(
        f"{gate[-1].upper()}{marks.get(verdict, '.')}" for gate, verdict in row["verdicts"].items()
    )
    return f"{row['alpha_key']:<48} {gates}  {row['stands_at']:<14} {row['because']}"


def show(arguments: argparse.Namespace) -> int:
    """One alpha: manifest, state, verdicts, issues."""
    from research.promotion.overview import alpha_overview

    facts = alpha_overview(
        workspace_of(arguments), alpha_of(arguments), config_dir=arguments.config_dir
    )
    print_result(arguments, facts, lambda: _show_text(facts))
    return DONE


def _show_text(facts: dict[str, Any]) -> str:
    manifest = facts["manifest"]
    lines = [
        f"{facts['alpha_key']}  {facts['stands_at']}: {facts['because']}",
        f"  {manifest['hypothesis']}",
        f"  {manifest['expression'] or manifest['kernel']}"
        f"  on {', '.join(manifest['instruments'])}",
    ]
    if facts["lifecycle"]["stale"]:
        lines.append(f"  holds no longer: {facts['lifecycle']['stale']}")
    for gate, verdict in facts["verdicts"].items():
        lines.append(f"  {gate[-1].upper()} {verdict['verdict']}")
        lines += [f"      {reason['name']} ({reason['code']}): {reason['text']}"
                  for reason in verdict["reasons"][:3]]  # fmt: skip
    lines += [f"  issue {row['promotion_seq']}: {row['stage']} {row['weight_ppm'] / 1e4:g} %"
              for row in facts["issues"]]  # fmt: skip
    lines.append(f"next: {facts['lifecycle']['next_step']}")
    return "\n".join(lines)


def compare_alphas(arguments: argparse.Namespace) -> int:
    """Alphas side by side."""
    from research.pool.overview import compare
    from research.registry import find_alpha

    found = [find_alpha(alpha_id, arguments.alphas) for alpha_id in arguments.alpha_ids]
    if len({alpha.key for alpha in found}) < 2:
        sys.stderr.write("compare needs two different ids; hft-research list shows them\n")
        return USAGE
    facts = compare(workspace_of(arguments), found, config_dir=arguments.config_dir)
    print_result(arguments, facts, lambda: _compare_text(facts))
    return DONE


def _compare_text(facts: dict[str, Any]) -> str:
    rows = facts["alphas"]
    columns = [[row["alpha"] for row in rows]]
    names = [""]
    for gate in rows[0]["verdicts"]:
        names.append(f"gate {gate[-1].upper()}")
        columns.append([row["verdicts"][gate] for row in rows])
    for name in rows[0]["headline"]:
        names.append(name)
        columns.append([plain_number(row["headline"][name]) for row in rows])
    width = max(len(cell) for column in columns for cell in column) + 2
    lines = [
        f"{name:<31}" + "".join(f"{cell:>{width}}" for cell in column)
        for name, column in zip(names, columns, strict=True)
    ]
    lines += [f"{row['alpha']}: {row['because']}" for row in rows]
    return "\n".join(lines + _pair_lines(facts["pairs"]))


def pool(arguments: argparse.Namespace) -> int:
    """The pool as it trades."""
    from research.pool.overview import pool_overview

    facts = pool_overview(workspace_of(arguments), config_dir=arguments.config_dir)
    print_result(arguments, facts, lambda: _pool_text(facts))
    return DONE


def _pool_text(facts: dict[str, Any]) -> str:
    if not facts["members"]:
        return "the pool is empty: no alpha holds a canary or live permit"
    methods = sorted(facts["weights"])
    lines = [f"{'alpha':<48}" + "".join(f"{method:>18}" for method in methods) + f"{'adds':>10}"]
    for row in facts["members"]:
        key = row["alpha"]
        cells = "".join(f"{facts['weights'][method][key]:>18.1%}" for method in methods)
        added = facts["marginal"][key]["marginal_sharpe"]
        lines.append(f"{key:<48}{cells}{plain_number(added):>10}")
    lines.append(
        f"over {facts['shared_days']} shared out-of-sample days; adds: daily Sharpe ratio beside "
        "all the others, out of fold"
    )
    return "\n".join(lines + _pair_lines(facts["pairs"]))


def _pair_lines(pairs: list[dict[str, Any]]) -> list[str]:
    return [
        f"{row['left']} and {row['right']}: profit {plain_number(row['correlation'])} over "
        f"{row['shared_days']} days, positions {plain_number(row['position_correlation'])}"
        for row in pairs
    ]


def scorecard(arguments: argparse.Namespace) -> int:
    """Write an alpha's scorecard."""
    from research import scorecard as cards

    ws, alpha = workspace_of(arguments), alpha_of(arguments)
    card = cards.write(ws, alpha, config_dir=arguments.config_dir)

    def text() -> str:
        lines = [f"{alpha.key}: {card['lifecycle']['text']}: {card['lifecycle']['because']}"]
        lines += [
            f"  {name:<32} {plain_number(value)}" for name, value in cards.headline(card).items()
        ]
        lines.append(f"page: {cards.card_path(ws, alpha.key)}")
        return "\n".join(lines)

    print_result(arguments, card, text)
    return DONE
