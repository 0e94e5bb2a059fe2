"""Scorecard: everything that was proven about one alpha, built once and shown three ways.

Why: three pages that each compute a number disagree one day, and the wrong one is believed.

Invariants:
1. `build` is the only function that reads evidence; JSON, HTML and asset metadata are made of
   what it returns, and of nothing else.
2. It is a function of verdicts, the audit chain, promotions and signed sessions: no clock, no path.
3. A number that was not measured is null in JSON and a dash on the page, never 0.

It judges nothing. Operator's page: `docs/alphas.md`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hft_platform.config.canonical import atomic_write, canonical_json, canonical_sha256
from hft_platform.records import SCALE
from research import page
from research.gates.verdict import GATES, GateVerdict, Verdict, read_verdict
from research.promotion import audit
from research.promotion.evidence import session_summaries
from research.promotion.lifecycle import lifecycle_of
from research.promotion.overview import nearest_miss

if TYPE_CHECKING:
    from hft_platform.services.session_summary import SessionEvidence
    from research.registry import Alpha

SCHEMA = 1
STAGES = ("shadow", "canary", "live")
QUESTIONS: Mapping[str, str] = {
    "gate_a": "Is the idea declared, is the data sound, does the signal see only the past?",
    "gate_b": "Does the code do what its own tests say, the same way each time?",
    "gate_c": "Is there money in it after costs, counted against every trial?",
    "gate_d": "Does it add something to what trades, and is there room for it?",
    "gate_e": "Does the runtime do what the backtest said?",
}
_DECLARED = (
    "hypothesis", "references", "expected_sign", "instruments", "label_horizon_s", "expression",
    "kernel", "latency_profile", "queue_model", "gate_weight_ppm", "owner",
)  # fmt: skip
_SCALED = (
    "net", "gross", "fees", "max_drawdown", "mean_daily_net", "bootstrap_lower", "bootstrap_upper",
    "net_without_best_days", "net_without_best_trips",
)  # fmt: skip
"""Statistics in scaled money."""
_INPUTS = ("dataset", "costs", "latency_profile")


def build(ws: Path, alpha: Alpha, *, config_dir: Path | None = None) -> dict[str, Any]:
    """Collect everything that the files of a workspace prove about an alpha.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        As its folder says now.
    config_dir : Path, optional
        Folder with an overriding `gates.yaml`.

    Returns
    -------
    dict
        JSON content; `sha256` is over all the rest.

    Raises
    ------
    PlatformError
        VERDICT_TAMPERED or AUDIT_BROKEN: a card of damaged evidence is not made.
    """
    entries = audit.verify_chain(ws)
    verdicts = {
        gate: verdict
        for gate in GATES
        if (verdict := read_verdict(ws, alpha.key, gate)) is not None
    }
    life = lifecycle_of(ws, alpha, entries=entries, config_dir=config_dir)
    declared = alpha.manifest.model_dump(mode="json")
    summaries = session_summaries(ws, alpha, stages=STAGES)
    card: dict[str, Any] = {
        "schema": SCHEMA,
        "money_scale": SCALE,
        "alpha": {
            "alpha_id": alpha.alpha_id,
            "alpha_key": alpha.key,
            "alpha_hash": alpha.alpha_hash,
            "template": declared["template"]["kind"],
            **{name: declared[name] for name in _DECLARED},
        },
        "lifecycle": life.as_dict() | {"text": life.text, "because": life.because},
        "gates": [_gate(gate, verdicts.get(gate)) for gate in GATES],
        "evidence": _evidence(verdicts.get("gate_c")),
        "portfolio": _portfolio(verdicts.get("gate_d")),
        "shadow": _shadow(verdicts.get("gate_e")),
        "sessions": [_session(row.evidence) for row in summaries if row.evidence is not None],
        "unreadable_sessions": [
            {"run_id": row.run_id, "problem": row.problem}
            for row in summaries
            if row.evidence is None
        ],
        "acts": [
            _act(entry)
            for entry in entries
            # Verdicts have a section of their own.
            if entry.record["kind"] != audit.EntryKind.VERDICT
            and (
                entry.record["facts"].get("alpha_id") == alpha.alpha_id
                or entry.record["subject"] == alpha.key
            )
        ],
        "audit_head": entries[-1].hash if entries else "",
    }
    # Through JSON once: what is shown is what was written.
    plain: dict[str, Any] = json.loads(canonical_json(card))
    return plain | {"sha256": canonical_sha256(plain)}


def headline(card: Mapping[str, Any]) -> dict[str, Any]:
    """The few numbers that a person asks for first.

    Parameters
    ----------
    card : mapping
        Of `build`.

    Returns
    -------
    dict
        Text, numbers, or None for what was not measured; the same on the page and in the graph.
    """
    evidence, portfolio, shadow = card["evidence"], card["portfolio"], card["shadow"]
    parity = [session["parity"] for session in card["sessions"]]
    total = sum(row["total"] for row in parity if row)
    identical = sum(row["identical"] for row in parity if row)
    return {
        "state": card["lifecycle"]["text"],
        "gates passed": f"{len(card['lifecycle']['gates_passed'])} of {len(GATES)}",
        "out-of-sample days": evidence.get("days"),
        "net": _money(evidence.get("net")),
        "Newey-West t": evidence.get("newey_west_t"),
        "deflated Sharpe": evidence.get("deflated_sharpe"),
        "trials": evidence.get("trial_count"),
        "Sharpe added to the pool": portfolio.get("marginal_sharpe"),
        "weight with room": _percent(portfolio.get("weight_ppm_max")),
        "shadow sessions": shadow.get("session_count"),
        "runtime sessions": len(card["sessions"]),
        "decisions replayed identically": f"{identical} of {total}" if total else None,
    }


def metadata(card: Mapping[str, Any]) -> dict[str, Any]:
    """What an asset shows: the headline without what was not measured, and the whole card.

    Parameters
    ----------
    card : mapping
        Of `build`.

    Returns
    -------
    dict
        Plain values; `scorecard` is the card itself.
    """
    shown = {name: value for name, value in headline(card).items() if value is not None}
    return shown | {"because": card["lifecycle"]["because"], "scorecard": dict(card)}


def card_path(ws: Path, alpha_key: str, suffix: str = "html") -> Path:
    """Where a card lies."""
    return ws / "report" / "scorecards" / f"{alpha_key}.{suffix}"


def write(ws: Path, alpha: Alpha, *, config_dir: Path | None = None) -> dict[str, Any]:
    """Build a card and write it as JSON and as a page; returns its content."""
    card = build(ws, alpha, config_dir=config_dir)
    card_path(ws, alpha.key).parent.mkdir(parents=True, exist_ok=True)
    atomic_write(card_path(ws, alpha.key, "json"), canonical_json(card) + b"\n")
    atomic_write(card_path(ws, alpha.key), render(card).encode())
    return card


def render(card: Mapping[str, Any]) -> str:
    """The card as one HTML text without any outside reference.

    Parameters
    ----------
    card : mapping
        Of `build`.

    Returns
    -------
    str
        The card's JSON stands in it as well, for scripts.
    """
    alpha, life = card["alpha"], card["lifecycle"]
    body = [
        f"<h1>{page.text(alpha['alpha_id'])} {page.tag(life['state'])}</h1>",
        f"<p class='dim'><code>{page.text(alpha['alpha_key'])}</code> · "
        f"{page.text(life['because'])}<br>next: <code>{page.text(life['next_step'])}</code></p>",
        f"<p>holds no longer: {page.text(life['stale'])}</p>" if life["stale"] else "",
        page.cards({name: page.plain_number(value) for name, value in headline(card).items()}),
        _idea_section(alpha),
        "<h2>Gates</h2>",
        _gates_table(card["gates"]),
        *[_gate_section(gate) for gate in card["gates"] if gate["checks"] or gate["reasons"]],
        "<h2>Profit</h2>",
        _profit_section(card),
        "<h2>Beside the pool</h2>",
        _portfolio_section(card["portfolio"]),
        "<h2>Sessions of the runtime</h2>",
        _sessions_section(card),
        "<h2>Acts</h2>",
        page.rows_table(card["acts"]) or "<p class='dim'>nothing was promoted or withdrawn</p>",
        "<h2>Made from</h2>",
        page.rows_table(_hashes(card)),
        _embedded(card),
    ]
    return page.document(f"Scorecard {alpha['alpha_id']}", body)


def _gate(gate: str, verdict: Verdict | None) -> dict[str, Any]:
    if verdict is None:
        return {
            "gate": gate, "question": QUESTIONS[gate], "verdict": "not_run", "sha256": "",
            "reasons": [], "checks": [], "nearest": None, "days_missing": None, "inputs": {},
        }  # fmt: skip
    is_open = verdict.verdict is not GateVerdict.PASSED
    return {
        "gate": gate,
        "question": QUESTIONS[gate],
        "verdict": str(verdict.verdict),
        "sha256": verdict.sha256,
        "reasons": list(verdict.reasons),
        "checks": list(verdict.results.get("checks") or []),
        "nearest": nearest_miss(verdict) if is_open else None,
        "days_missing": verdict.results.get("days_missing"),
        "inputs": {
            "code": verdict.code_sha256,
            "thresholds": verdict.thresholds_sha256,
            **{name: verdict.inputs[name] for name in _INPUTS if name in verdict.inputs},
            **({"ledger": verdict.inputs["ledger"]} if "ledger" in verdict.inputs else {}),
        },
    }


def _evidence(verdict: Verdict | None) -> dict[str, Any]:
    """Statistics at the corner that decided, and the profit of its sessions."""
    if verdict is None or "worst_corner" not in verdict.results:
        return {}
    results = verdict.results
    corner = results["corners"][results["worst_corner"]]
    return {
        "worst_corner": results["worst_corner"],
        "chosen_parameters": results["chosen_parameters"],
        "trial_count": results["trial_count"],
        # Whatever gate C measured at that corner, so that a new statistic needs no second list.
        **{name: v for name, v in corner.items() if v is None or isinstance(v, int | float)},
        "promise": results.get("promise", {}),
        "daily_net": results.get("daily_net", {}),
        "corners": [
            {
                "corner": name,
                **{key: row.get(key) for key in ("net", "newey_west_t", "deflated_sharpe")},
            }
            for name, row in sorted(results["corners"].items())
        ],
    }


def _portfolio(verdict: Verdict | None) -> dict[str, Any]:
    if verdict is None or "marginal" not in verdict.results:
        return {}
    results = verdict.results
    return {
        "members": len(results["correlations"]),
        "correlations": results["correlations"],
        "marginal_sharpe": results["marginal"].get("marginal_sharpe"),
        "marginal": results["marginal"],
        "participation": results["capacity"]["participation"],
        "weight_ppm_max": results["capacity"]["weight_ppm_max"],
        "weights": results["weights"],
    }


def _shadow(verdict: Verdict | None) -> dict[str, Any]:
    if verdict is None:
        return {}
    names = ("session_count", "refused", "regimes", "parts_of_day", "sessions")
    return {name: verdict.results[name] for name in names if name in verdict.results}


def _session(evidence: SessionEvidence) -> dict[str, Any]:
    account, parity = evidence.account, evidence.parity
    return {
        "session_id": evidence.session_id,
        "trading_day": evidence.trading_day,
        "stage": evidence.stage,
        "weight_ppm": evidence.weight_ppm,
        "orders": evidence.counts.orders,
        "rejects": evidence.counts.broker_rejects,
        "unknown": evidence.counts.unknown,
        "fills": account.fill_count if account else None,
        "net": account.net if account else None,
        "slippage_ticks": evidence.slippage_ticks,
        "markout_ticks": dict(evidence.markout_ticks),
        "order_latency_ms": dict(evidence.order_latency_ms),
        "parity": {"identical": parity.identical, "total": parity.total} if parity else None,
        "halted_by": evidence.halted_by,
    }


def _act(entry: audit.AuditEntry) -> dict[str, Any]:
    record = entry.record
    facts = record["facts"]
    return {
        "entry": entry.seq,
        "kind": record["kind"],
        "who": record["who"],
        "why": record["why"],
        "weight_ppm": facts.get("weight_ppm"),
        "promotion_seq": facts.get("promotion_seq"),
    }


def _idea_section(alpha: Mapping[str, Any]) -> str:
    return (
        f"<section><p>{page.text(alpha['hypothesis'])}</p>"
        f"<p><code>{page.text(alpha['expression'] or alpha['kernel'])}</code></p>"
        f"<p class='dim'>{page.text(', '.join(alpha['instruments']))} · "
        f"{page.text(alpha['template'])} · {alpha['label_horizon_s']:g} s · "
        f"{page.text(alpha['latency_profile'])} · {page.text(alpha['queue_model'])} · "
        f"{page.text(alpha['owner'])}</p></section>"
    )


def _gates_table(gates: list[dict[str, Any]]) -> str:
    rows = [
        {
            "gate": gate["gate"][-1].upper(),
            "question": gate["question"],
            "verdict": gate["verdict"],
            "checks met": f"{sum(c['passed'] for c in gate['checks'])} of {len(gate['checks'])}"
            if gate["checks"]
            else None,
            "file": gate["sha256"][:12],
        }
        for gate in gates
    ]
    return page.rows_table(rows)


def _gate_section(gate: Mapping[str, Any]) -> str:
    rows = [
        {
            "check": check["name"],
            "observed": check["observed"],
            "limit": check["limit"],
            "verdict": "passed" if check["passed"] else "failed",
        }
        for check in gate["checks"]
    ]
    texts = "".join(f"<li>{page.text(reason['text'])}</li>" for reason in gate["reasons"])
    return (
        f"<details{'' if gate['verdict'] == 'passed' else ' open'}><summary>Gate "
        f"{gate['gate'][-1].upper()}: {len(rows)} checks</summary>"
        f"{f'<ul>{texts}</ul>' if texts else ''}{page.rows_table(rows)}</details>"
    )


def _profit_section(card: Mapping[str, Any]) -> str:
    evidence = card["evidence"]
    nets = [(int(value) / SCALE, "research") for value in evidence.get("daily_net", {}).values()]
    nets += [
        (row["net"] / SCALE, row["stage"]) for row in card["sessions"] if row["net"] is not None
    ]
    if not nets:
        return "<p class='dim'>no session was traded</p>"
    equity = np.concatenate([[0.0], np.cumsum([net for net, _ in nets])])
    stages = [stage for _, stage in nets]
    title = "Net by out-of-sample day, then by runtime session (money)"
    corners = [row | {"net": _money(row["net"])} for row in evidence.get("corners", [])]
    chart = page.plot(title, equity, stages)
    return f"<div class='charts'>{chart}</div>{page.rows_table(corners)}{_statistics(evidence)}"


def _statistics(evidence: Mapping[str, Any]) -> str:
    if not evidence:
        return ""
    measured = {
        name: _money(value) if name in _SCALED else value
        for name, value in evidence.items()
        if value is None or isinstance(value, int | float)
    }
    return (
        f"<details><summary>At the corner that decided: {page.text(evidence['worst_corner'])}"
        f"</summary>{page.pairs_table('statistic', 'value', measured)}</details>"
    )


def _portfolio_section(portfolio: Mapping[str, Any]) -> str:
    if not portfolio:
        return "<p class='dim'>gate D has not computed it</p>"
    weights, marginal = portfolio["weights"], portfolio["marginal"]
    names = sorted({name for row in weights.values() for name in row})
    by_alpha = [
        {"alpha": name, **{method: row.get(name) for method, row in sorted(weights.items())}}
        for name in names
    ]
    return (
        (page.rows_table(portfolio["correlations"]) or "<p class='dim'>the pool is empty</p>")
        + page.row_table(marginal | {"intercept": _money(marginal["intercept"])})
        + page.rows_table(by_alpha)
    )


def _sessions_section(card: Mapping[str, Any]) -> str:
    rows = [
        {
            "session": row["session_id"],
            "stage": row["stage"],
            "weight": _percent(row["weight_ppm"]),
            "orders": row["orders"],
            "fills": row["fills"],
            "net": _money(row["net"]),
            "slippage ticks": row["slippage_ticks"],
            "latency p95 ms": row["order_latency_ms"].get("p95"),
            "parity": f"{row['parity']['identical']}/{row['parity']['total']}"
            if row["parity"]
            else None,
        }
        for row in card["sessions"]
    ]
    bad = page.rows_table(card["unreadable_sessions"])
    return (page.rows_table(rows) or "<p class='dim'>none yet</p>") + bad


def _hashes(card: Mapping[str, Any]) -> list[dict[str, str]]:
    """What the card was made from: one row a hash, with the gates that name it."""
    gates_of: dict[tuple[str, str], list[str]] = {}
    for gate in card["gates"]:
        for name, value in gate["inputs"].items():
            if isinstance(value, str):
                gates_of.setdefault((name, value), []).append(gate["gate"][-1].upper())
    rows = [("alpha", "", card["alpha"]["alpha_hash"])]
    rows += [(name, " ".join(gates), value) for (name, value), gates in sorted(gates_of.items())]
    rows += [("audit head", "", card["audit_head"]), ("this card", "", card["sha256"])]
    return [{"what": what, "gates": gates, "hash": value} for what, gates, value in rows]


def _embedded(card: Mapping[str, Any]) -> str:
    # A browser looks for markup inside a script block, also in quotes; JSON can spell it otherwise.
    content = canonical_json(dict(card)).decode().replace("<", "\\u003c")
    return f"<script type='application/json' id='scorecard'>{content}</script>"


def _money(value: float | None) -> float | None:
    return None if value is None else value / SCALE


def _percent(weight_ppm: int | None) -> str | None:
    return None if weight_ppm is None else f"{weight_ppm / 1e4:g} %"
