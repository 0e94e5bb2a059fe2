"""The run report: self-contained, escaped, and the same facts as summary.json."""

from __future__ import annotations

import json
import re
from pathlib import Path

from research import report
from research.report import AlphaFacts, RunFacts

EVIL = "<script>alert(1)</script>"


def verdict(outcome: str, *reasons: str) -> dict[str, object]:
    return {
        "verdict": outcome,
        "reasons": [{"text": text, "observed": 1.5, "limit": 2} for text in reasons],
        "results": {"out_of_sample": [{"net": 5, "gross": 7, "fees": 2, "round_trips": 1}]},
    }


def session(stage: str, net: int) -> dict[str, object]:
    return {
        "run_id": f"one-{stage}",
        "session_id": "2026-01-05/day",
        "stage": stage,
        "weight_ppm": 100_000,
        "trading_day": 20260105,
        "counts": {"orders": 4},
        "account": {"net": net, "gross": net, "fees": 0, "fill_count": 4, "round_trip_count": 2},
        "slippage_ticks": None,
        "markout_ticks": {"10s": 1.25},
        "order_latency_ms": {"p50": 250.0, "p95": 400.0},
        "parity": {"identical": 9, "total": 9},
    }


def facts() -> RunFacts:
    manifest = {"alpha_id": "demo", "hypothesis": EVIL, "expression": "a < b"}
    changes = [
        {"kind": "issued_canary", "stage": "canary", "weight_ppm": 100_000, "why": "gates passed"},
        {"kind": "withdrawn", "stage": "canary", "weight_ppm": 0, "why": "the edge died"},
    ]
    promoted = AlphaFacts(
        key="demo@0123456789ab",
        manifest=manifest,
        verdicts={"gate_a": verdict("passed"), "gate_c": verdict("passed")},
        sessions=[session("shadow", 3), session("canary", -9)],
        changes=changes,
        lifecycle={"text": "rolled back", "because": "the edge died"},
        signal={
            "ic": {"1s": 0.25, "30s": None},
            "ic_standard_error": {"1s": 0.01, "30s": None},
            "standard_deviation_ticks": 2.5,
        },
    )
    refused = AlphaFacts(
        key="null@0123456789ab",
        manifest=manifest | {"alpha_id": "null"},
        verdicts={"gate_a": verdict("passed"), "gate_c": verdict("failed", "costs too much")},
        sessions=[],
        changes=[],
        lifecycle={"text": "gated_b", "because": EVIL},
    )
    parity = {"sessions": 2, "identical": 18, "total": 18, "share": 1.0, "agreement": []}
    return RunFacts("sim", [promoted, refused], [{"session": EVIL}], parity, {"fills": 8})


def test_the_page_loads_nothing_from_outside_and_escapes_what_it_shows() -> None:
    page = report.render(facts())
    assert EVIL not in page
    assert not re.search(r"(src|href)=['\"]https?:", page)
    assert page.count("<svg") == 5


def test_the_page_says_where_each_alpha_stands_and_why() -> None:
    page = report.render(facts())
    assert "<td>rolled back</td><td>the edge died</td>" in page
    assert "<td>gated_b</td>" in page


def test_summary_holds_the_same_facts_and_equal_facts_give_equal_pages(tmp_path: Path) -> None:
    path = report.write(facts(), tmp_path)
    content = json.loads((tmp_path / "summary.json").read_bytes())
    assert content["verdicts"]["null@0123456789ab"]["gate_c"]["verdict"] == "failed"
    assert content["stage_changes"]["demo@0123456789ab"][-1]["why"] == "the edge died"
    assert content["parity"]["share"] == 1.0
    assert content["rows_by_table"] == {"fills": 8}
    assert path.read_text() == report.render(facts())
