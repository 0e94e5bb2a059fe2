"""The run report: one self-contained HTML page, and the same facts as `summary.json`.

Everything on the page is read from the workspace's files (verdicts, audit, promotions, signed
session summaries, parity reports, quality reports); the report computes no statistic of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.records import SCALE
from research import page


@dataclass(frozen=True, slots=True)
class AlphaFacts:
    """What the workspace holds about one alpha.

    `verdicts` maps a gate to its verdict file's content; `sessions` are evidence parts of session
    summaries in the order of their sessions; `changes` are stage and weight changes with reasons;
    `signal` is what `research.signal_study.diagnose` found, `lifecycle` what
    `research.promotion.lifecycle` derives, with its `text` and `because`.
    """

    key: str
    manifest: dict[str, Any]
    verdicts: dict[str, dict[str, Any]]
    sessions: list[dict[str, Any]]
    changes: list[dict[str, Any]]
    lifecycle: dict[str, Any]
    signal: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Everything the page shows."""

    source: str
    alphas: list[AlphaFacts]
    quality: list[dict[str, Any]]
    parity: dict[str, Any]
    rows_by_table: dict[str, int]
    seconds_by_step: dict[str, float] = field(default_factory=dict)
    code_sha256: str = ""


def summary(facts: RunFacts) -> dict[str, Any]:
    """The facts for scripts."""
    return {
        "source": facts.source,
        "verdicts": {
            alpha.key: {
                gate: {"verdict": verdict["verdict"], "reasons": verdict["reasons"]}
                for gate, verdict in alpha.verdicts.items()
            }
            for alpha in facts.alphas
        },
        "lifecycle": {alpha.key: alpha.lifecycle for alpha in facts.alphas},
        "signal": {alpha.key: alpha.signal for alpha in facts.alphas},
        "stage_changes": {alpha.key: alpha.changes for alpha in facts.alphas},
        "sessions": {
            alpha.key: [
                {name: row[name] for name in ("run_id", "stage", "weight_ppm", "trading_day")}
                | {"net": row["account"]["net"], "fills": row["account"]["fill_count"]}
                for row in alpha.sessions
            ]
            for alpha in facts.alphas
        },
        "parity": facts.parity,
        "rows_by_table": facts.rows_by_table,
        "seconds_by_step": facts.seconds_by_step,
        "quality": facts.quality,
        "code_sha256": facts.code_sha256,
    }


def write(facts: RunFacts, folder: Path) -> Path:
    """Write `index.html` and `summary.json`; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "summary.json", canonical_json(summary(facts)) + b"\n")
    atomic_write(folder / "index.html", render(facts).encode())
    return folder / "index.html"


def render(facts: RunFacts) -> str:
    """The page as one HTML text without any outside reference."""
    body = [
        "<h1>Run report</h1>",
        f"<p class='dim'>{page.text(facts.source)} · code {facts.code_sha256[:12]}</p>",
        _headline(facts),
        "<h2>Verdicts</h2>",
        _verdict_table(facts),
        *[_alpha_section(alpha) for alpha in facts.alphas],
        "<h2>Parity</h2>",
        _parity_section(facts.parity),
        "<h2>Data quality</h2>",
        _quality_table(facts.quality),
        "<h2>Store</h2>",
        page.pairs_table("table", "rows", facts.rows_by_table),
        "<h2>Time</h2>",
        page.pairs_table(
            "step", "seconds", {k: round(v, 2) for k, v in facts.seconds_by_step.items()}
        ),
    ]
    return page.document("Run report", body)


def _headline(facts: RunFacts) -> str:
    stages = [str(alpha.lifecycle["text"]) for alpha in facts.alphas]
    cards = {
        "alphas judged": len(facts.alphas),
        "promoted now": sum(stage.startswith("canary") for stage in stages),
        "rolled back": sum(stage == "rolled back" for stage in stages),
        "live-runtime sessions": facts.parity.get("sessions", 0),
        "decisions replayed identically": f"{facts.parity.get('share', 0.0):.0%}",
        "rows in the store": f"{sum(facts.rows_by_table.values()):,}",
    }
    return page.cards(cards)


def _verdict_table(facts: RunFacts) -> str:
    gates = ("gate_a", "gate_b", "gate_c", "gate_d", "gate_e")
    rows = [
        "<table><tr><th>alpha</th>"
        + "".join(f"<th>{gate[-1].upper()}</th>" for gate in gates)
        + "<th>stands at</th><th>because</th></tr>"
    ]
    for alpha in facts.alphas:
        verdicts = [alpha.verdicts.get(gate, {}).get("verdict", "not_run") for gate in gates]
        cells = "".join(f"<td>{page.tag(verdict)}</td>" for verdict in verdicts)
        rows.append(
            f"<tr><td><a href='scorecards/{page.text(alpha.key)}.html'><code>"
            f"{page.text(alpha.key)}</code></a></td>{cells}"
            f"<td>{page.text(alpha.lifecycle['text'])}</td><td>{page.text(alpha.lifecycle['because'])}</td></tr>"
        )
    return "".join(rows) + "</table>"


def _alpha_section(alpha: AlphaFacts) -> str:
    manifest = alpha.manifest
    parts = [
        f"<section id='{page.text(alpha.key)}'><h3>{page.text(manifest['alpha_id'])}</h3>",
        f"<p>{page.text(manifest['hypothesis'])}<br><code>"
        f"{page.text(manifest['expression'] or manifest['kernel'])}</code></p>",
        "<div class='charts'>",
        _equity_chart(alpha),
        _drawdown_chart(alpha),
        _signal_chart(alpha),
        "</div>",
        _cost_table(alpha),
        _signal_table(alpha),
        _execution_table(alpha),
        _reasons_table(alpha),
        _changes_table(alpha),
        "</section>",
    ]
    return "".join(parts)


def research_sessions(alpha: AlphaFacts) -> list[dict[str, Any]]:
    """Out-of-sample sessions of gate C as rows with net, gross, fees (scaled money)."""
    verdict = alpha.verdicts.get("gate_c")
    return list(verdict["results"].get("out_of_sample", [])) if verdict else []


def _curve(alpha: AlphaFacts) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Net per session at full size's gate weight, research first, then what the runtime traded."""
    rows = [(row["net"] / SCALE, "research") for row in research_sessions(alpha)]
    rows += [(row["account"]["net"] / SCALE, row["stage"]) for row in alpha.sessions]
    return np.array([net for net, _ in rows]), [stage for _, stage in rows]


def _equity_chart(alpha: AlphaFacts) -> str:
    nets, stages = _curve(alpha)
    if nets.size == 0:
        return "<p class='dim'>no session was traded</p>"
    equity = np.concatenate([[0.0], nets.cumsum()])
    return page.plot("Equity by session (money, after costs)", equity, stages)


def _drawdown_chart(alpha: AlphaFacts) -> str:
    nets, stages = _curve(alpha)
    if nets.size == 0:
        return ""
    equity = np.concatenate([[0.0], nets.cumsum()])
    return page.plot("Drawdown (money)", equity - np.maximum.accumulate(equity), stages)


def _cost_table(alpha: AlphaFacts) -> str:
    groups: dict[str, list[tuple[int, int, int]]] = {}
    for row in research_sessions(alpha):
        groups.setdefault("research, out of sample", []).append(
            (row["gross"], row["fees"], row["round_trips"])
        )
    for row in alpha.sessions:
        account = row["account"]
        groups.setdefault(row["stage"], []).append(
            (account["gross"], account["fees"], account["round_trip_count"])
        )
    lines = [
        "<h4>Costs</h4><table><tr><th>where</th><th>sessions</th><th>round trips</th>"
        "<th>gross</th><th>fees and tax</th><th>net</th><th>net a round trip</th></tr>"
    ]
    for name, rows in groups.items():
        gross, fees, trips = (sum(row[i] for row in rows) for i in range(3))
        each = (gross - fees) / trips / SCALE if trips else 0.0
        lines.append(
            f"<tr><td>{page.text(name)}</td><td class='n'>{len(rows)}</td>"
            f"<td class='n'>{trips}</td>"
            f"<td class='n'>{gross / SCALE:,.0f}</td><td class='n'>{fees / SCALE:,.0f}</td>"
            f"<td class='n'>{(gross - fees) / SCALE:,.0f}</td><td class='n'>{each:,.1f}</td></tr>"
        )
    return "".join(lines) + "</table>"


def _signal_table(alpha: AlphaFacts) -> str:
    if not alpha.signal:
        return ""
    facts = {name: value for name, value in alpha.signal.items() if not isinstance(value, dict)}
    errors = alpha.signal["ic_standard_error"]
    curve = {
        f"IC {name}": f"{page.number(mean)} ± {page.number(errors[name])}"
        for name, mean in alpha.signal["ic"].items()
    }
    return "<h4>Signal, out of sample</h4>" + page.row_table(curve) + page.row_table(facts)


def _signal_chart(alpha: AlphaFacts) -> str:
    values = {name: ic for name, ic in alpha.signal.get("ic", {}).items() if ic is not None}
    if not values:
        return ""

    def draw(axes: Any) -> None:
        axes.bar(
            list(values), list(values.values()), color=page.STAGE_COLORS["research"], width=0.6
        )
        axes.set_xlabel("horizon")

    return page.figure("Rank correlation of signal and next move of the mid", draw)


def _execution_table(alpha: AlphaFacts) -> str:
    if not alpha.sessions:
        return ""
    lines = [
        "<h4>Sessions of the runtime</h4><table><tr><th>session</th><th>stage</th><th>weight</th>"
        "<th>orders</th><th>fills</th><th>net</th><th>slippage</th><th>markout 10 s</th>"
        "<th>order latency p50 / p95 ms</th><th>parity</th></tr>"
    ]
    for row in alpha.sessions:
        latency, parity = row["order_latency_ms"], row["parity"]
        lines.append(
            f"<tr><td>{page.text(row['session_id'])}</td><td>{page.tag(row['stage'])}</td>"
            f"<td class='n'>{row['weight_ppm'] / 10_000:g} %</td>"
            f"<td class='n'>{row['counts']['orders']}</td>"
            f"<td class='n'>{row['account']['fill_count']}</td>"
            f"<td class='n'>{row['account']['net'] / SCALE:,.0f}</td>"
            f"<td class='n'>{page.number(row['slippage_ticks'])}</td>"
            f"<td class='n'>{page.number(row['markout_ticks']['10s'])}</td>"
            f"<td class='n'>{page.number(latency['p50'])} / {page.number(latency['p95'])}</td>"
            f"<td class='n'>{parity['identical']}/{parity['total']}</td></tr>"
        )
    return "".join(lines) + "</table>"


def _reasons_table(alpha: AlphaFacts) -> str:
    lines = [
        "<h4>Reasons</h4><table><tr><th>gate</th><th>verdict</th><th>reason</th>"
        "<th>observed</th><th>limit</th></tr>"
    ]
    met = [{"text": "every threshold met", "observed": None, "limit": None}]
    lines += [
        f"<tr><td>{gate[-1].upper()}</td><td>{page.tag(verdict['verdict'])}</td>"
        f"<td>{page.text(reason['text'])}</td><td class='n'>{page.number(reason['observed'])}</td>"
        f"<td class='n'>{page.number(reason['limit'])}</td></tr>"
        for gate, verdict in alpha.verdicts.items()
        for reason in verdict["reasons"] or met
    ]
    return "".join(lines) + "</table>"


def _changes_table(alpha: AlphaFacts) -> str:
    if not alpha.changes:
        return "<p class='dim'>Never promoted.</p>"
    lines = [
        "<h4>Promotions and roll-backs</h4><table><tr><th>what</th><th>stage</th><th>weight</th>"
        "<th>why</th></tr>"
    ]
    lines += [
        f"<tr><td>{page.text(row['kind'].replace('_', ' '))}</td><td>{page.tag(row['stage'])}</td>"
        f"<td class='n'>{row['weight_ppm'] / 10_000:g} %</td><td>{page.text(row['why'])}</td></tr>"
        for row in alpha.changes
    ]
    return "".join(lines) + "</table>"


def _parity_section(parity: dict[str, Any]) -> str:
    lines = [
        f"<p>{parity.get('identical', 0):,} of {parity.get('total', 0):,} decisions of"
        f" {parity.get('sessions', 0)} sessions came out identical when replayed from the log.</p>"
    ]
    agreement = parity.get("agreement", [])
    if agreement:
        lines.append(
            "<table><tr><th>session</th><th>decisions equal to the backtest</th>"
            "<th>broker reports equal</th><th>differences and their cause</th></tr>"
        )
        for row in agreement:
            causes = (
                "; ".join(sorted({str(item["cause"]) for item in row["differences"]})) or "none"
            )
            lines.append(
                f"<tr><td>{page.text(row['run_id'])}</td>"
                f"<td class='n'>{row['decision_identical']}/{row['decision_total']}</td>"
                f"<td class='n'>{row['report_identical']}/{row['report_total']}</td>"
                f"<td>{page.text(causes)}</td></tr>"
            )
        lines.append("</table>")
    return "".join(lines)


def _quality_table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "<p class='dim'>no dataset</p>"
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [
        "<table><tr>"
        + "".join(f"<th>{page.text(n.replace('_', ' '))}</th>" for n in names)
        + "</tr>"
    ]
    lines += [
        "<tr>" + "".join(f"<td>{page.number(row.get(name))}</td>" for name in names) + "</tr>"
        for row in rows[:60]
    ]
    if len(rows) > 60:
        lines.append(
            f"<tr><td colspan='{len(names)}' class='dim'>{len(rows) - 60} more sessions"
            " in summary.json</td></tr>"
        )
    return "".join(lines) + "</table>"
