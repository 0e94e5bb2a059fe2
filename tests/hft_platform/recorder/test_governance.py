"""Verdicts, audit chain and results beside the data: once, in order, and never an edited file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hft_platform.config.canonical import canonical_json, canonical_sha256
from hft_platform.recorder.governance import load_governance
from hft_platform.recorder.store import Store, rows_by_table


def _chain(ws: Path, count: int) -> Path:
    path = ws / "audit" / "chain.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    previous, lines = "0" * 64, []
    kinds = [
        "issued_shadow", "canary_step", "weight_reduced", "withdrawn", "verdict", "thresholds",
        "override", "approved",
    ]  # fmt: skip
    for seq in range(1, count + 1):
        facts = {"stage": "shadow", "weight_ppm": 1000 * seq, "promotion_seq": seq}
        if seq == 4:
            facts["is_rolled_back"] = True
        record = {
            "kind": kinds[(seq - 1) % 8], "who": "a person", "why": "a \"reason\"",
            "subject": "edge@0123", "facts": facts,
        }  # fmt: skip
        digest = hashlib.sha256(previous.encode() + canonical_json(record)).hexdigest()
        lines.append(
            canonical_json(
                {
                    "seq": seq, "prev": previous, "record": record, "logged_at_ns": seq,
                    "hash": digest, "signature": "00",
                }
            )
        )  # fmt: skip
        previous = digest
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def _verdict(ws: Path, gate: str) -> Path:
    content: dict[str, Any] = {
        "gate": gate, "alpha_id": "edge", "alpha_hash": "ab", "verdict": "failed",
        "reasons": [{"name": "COST_EXCEEDS_EDGE"}, {"name": "GATE_THRESHOLD_MISSED"}],
    }  # fmt: skip
    raw = canonical_json(content)
    path = ws / "verdicts" / "edge@ab" / f"{gate}-{hashlib.sha256(raw).hexdigest()[:12]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return path


def _summary(ws: Path, run_id: str, net: int) -> Path:
    evidence = {
        "run_id": run_id, "alpha_id": "edge", "alpha_hash": "ab", "stage": "shadow",
        "mode": "paper", "symbol": "TXFD6", "session_id": "2026-03-02/day",
        "trading_day": 20260302, "weight_ppm": 0, "halted_by": 0,
        "account": {
            "gross": net + 3, "fees": 3, "net": net, "max_drawdown": 10**20, "fill_count": 4,
            "round_trip_count": 2,
        },
        "pnl": [
            {
                "instrument_id": 1001, "symbol": "TXFD6", "snapshot_time_ns": 7,
                "position_qty": -(10**8), "realized": net, "unrealized": 3, "fees": 3, "tax": 2,
                "net": net,
            }
        ],
    }  # fmt: skip
    path = ws / "sessions" / run_id / "summary.json"
    path.parent.mkdir(parents=True)
    content = {"evidence": evidence, "evidence_sha256": canonical_sha256(evidence)}
    content["timings"] = {
        "decide_ns": {"count": 9, "p50": 170, "p99": 340, "p999": 400, "max": 900}
    }
    path.write_bytes(canonical_json(content))
    return path


def test_governance_is_copied_once_and_new_entries_follow(ws: Path, store: Store) -> None:
    _chain(ws, 3)
    _verdict(ws, "gate_a")
    _summary(ws, "s1", -(10**19))
    first = load_governance(ws, store)
    assert first.problems == []
    assert first.rows == {
        "audit.chain": 3, "audit.alpha_verdicts": 1, "hft.session_pnl": 1,
        "hft.pnl_snapshots": 1, "hft.session_latency": 1,
    }  # fmt: skip
    before = rows_by_table(store)
    assert sum(load_governance(ws, store).rows.values()) == 0
    assert rows_by_table(store) == before
    _chain(ws, 4)
    _verdict(ws, "gate_b")
    assert load_governance(ws, store).rows["audit.chain"] == 1
    assert store.rows("SELECT toString(net) FROM hft.session_pnl") == [("-100000000000",)]
    assert store.rows(
        "SELECT toString(realized), toString(unrealized), toString(tax), toString(position_qty)"
        " FROM hft.pnl_snapshots"
    ) == [("-100000000000", "0.00000003", "0.00000002", "-1")]
    assert store.rows(
        "SELECT trading_day, mode, session_count, toString(net) FROM hft.pnl_by_day"
    ) == [(20260302, "paper", 1, "-100000000000")]
    assert store.rows("SELECT step, sample_count, p50_ns, max_ns FROM hft.session_latency") == [
        ("decide", 9, 170, 900)
    ]
    assert store.rows("SELECT seq, weight_ppm FROM audit.alpha_promotions ORDER BY seq") == [
        (1, 1000), (3, 3000), (4, 4000),
    ]  # fmt: skip
    assert store.rows("SELECT seq, alpha_id FROM audit.alpha_canary ORDER BY seq") == [
        (2, "edge"), (4, "edge"),
    ]  # fmt: skip
    _chain(ws, 8)
    assert load_governance(ws, store).rows["audit.chain"] == 4
    for view, seqs in (
        ("gate_runs", [5]), ("thresholds", [6]), ("decisions", [7, 8]), ("promotions", [1, 3, 4]),
    ):  # fmt: skip
        rows = store.rows(f"SELECT seq, who, why FROM audit.alpha_{view} ORDER BY seq")
        assert rows == [(seq, "a person", 'a "reason"') for seq in seqs], view
    assert store.rows("SELECT DISTINCT reasons FROM audit.alpha_verdicts") == [
        ("COST_EXCEEDS_EDGE, GATE_THRESHOLD_MISSED",)
    ]


def test_a_chain_that_lost_what_was_copied_is_reported(ws: Path, store: Store) -> None:
    _chain(ws, 8)
    load_governance(ws, store)
    _chain(ws, 3)
    report = load_governance(ws, store)
    assert report.rows["audit.chain"] == 0
    assert report.problems[0].startswith("AUDIT_BROKEN")
    assert "the store holds audit entry 8" in report.problems[0]


def test_edited_files_are_reported_and_not_loaded(tmp_path: Path) -> None:
    chain = _chain(tmp_path, 4)
    lines = chain.read_bytes().splitlines(keepends=True)
    chain.write_bytes(b"".join([lines[0], lines[2], lines[3]]))
    verdict = _verdict(tmp_path, "gate_a")
    verdict.write_bytes(verdict.read_bytes().replace(b"failed", b"passed"))
    summary = _summary(tmp_path, "s1", 5)
    content = json.loads(summary.read_bytes())
    content["evidence"]["account"]["net"] = 500
    summary.write_text(json.dumps(content))
    store = _Empty()
    report = load_governance(tmp_path, store)  # type: ignore[arg-type]
    assert {table: count for table, count in report.rows.items() if count} == {"audit.chain": 1}
    assert [problem.split(" ", maxsplit=1)[0] for problem in report.problems] == [
        "AUDIT_BROKEN", "VERDICT_TAMPERED", "SUMMARY_TAMPERED",
    ]  # fmt: skip


class _Empty:
    """A store without rows that takes every insert."""

    def rows(self, _sql: str) -> list[tuple[object, ...]]:
        return []

    def insert_native(self, *_arguments: object, **_keywords: object) -> None:
        return None


def test_a_summary_of_an_earlier_version_has_no_parts_of_profit_and_is_no_problem(
    tmp_path: Path,
) -> None:
    path = _summary(tmp_path, "s1", 5)
    content = json.loads(path.read_bytes())
    del content["evidence"]["pnl"], content["timings"]
    content["evidence_sha256"] = canonical_sha256(content["evidence"])
    path.write_bytes(canonical_json(content))
    report = load_governance(tmp_path, _Empty())  # type: ignore[arg-type]
    assert report.problems == []
    assert report.rows["hft.session_pnl"] == 1
    assert report.rows["hft.pnl_snapshots"] == report.rows["hft.session_latency"] == 0
