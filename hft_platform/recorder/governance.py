"""Verdicts, audit chain and session results as tables, from the workspace's own files.

Why: who asks the store how a session earned its money should find beside it why it was allowed.

Invariants:
1. Rows are copies of content-addressed content; loading twice adds nothing.
2. A file that does not match its own hash is reported and not loaded.
3. Chain entries go in order without a gap; the first that does not link ends the load. A file
   that no longer holds what was copied out of it is reported: the copy is a second witness.

It verifies links and content hashes, not signatures: `hft-research audit verify` does. Operator's
page: `docs/store.md`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.config.canonical import canonical_json, canonical_sha256, sha256_hex
from hft_platform.errors import ReasonCode, code_line
from hft_platform.recorder.small_tables import insert_rows

if TYPE_CHECKING:
    from hft_platform.recorder.store import Store


@dataclass(slots=True)
class GovernanceReport:
    """Rows added by table, and files that were refused."""

    rows: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"rows": dict(sorted(self.rows.items())), "problems": self.problems}


def load_governance(ws: Path, store: Store) -> GovernanceReport:
    """Copy what is new of verdicts, audit chain and session summaries into the store.

    Parameters
    ----------
    ws : Path
        Workspace.
    store : Store
        Open store.

    Returns
    -------
    GovernanceReport
    """
    report = GovernanceReport()
    for table, rows in (
        ("audit.chain", _new_chain(ws, store, report)),
        ("audit.alpha_verdicts", _new_verdicts(ws, store, report)),
        ("hft.session_pnl", _new_results(ws, store, report)),
        ("hft.pnl_snapshots", _new_snapshots(ws, store)),
        ("hft.session_latency", _new_latencies(ws, store)),
    ):
        insert_rows(store, table, rows, token=canonical_sha256(rows)[:16])
        report.rows[table] = len(rows)
    return report


def _new_chain(ws: Path, store: Store, report: GovernanceReport) -> list[dict[str, Any]]:
    newest = store.rows("SELECT seq, hash FROM audit.chain FINAL ORDER BY seq DESC LIMIT 1") or [
        (0, "0" * 64)
    ]
    seq, previous = int(newest[0][0]), str(newest[0][1])
    path = ws / "audit" / "chain.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    rows: list[dict[str, Any]] = []
    if seq and _hash_at(lines, seq) != previous:
        text = f"the store holds audit entry {seq}, {previous[:12]}; the file does not"
        report.problems.append(code_line(ReasonCode.AUDIT_BROKEN, text))
        return rows
    for line in lines[seq:]:
        entry = _json(line)
        if not line.endswith(b"\n"):
            break  # being written right now
        if entry is None or entry["seq"] != seq + 1 or entry["prev"] != previous:
            report.problems.append(
                code_line(ReasonCode.AUDIT_BROKEN, f"audit entry {seq + 1} does not follow {seq}")
            )
            break
        record = entry["record"]
        rows.append(
            {name: entry[name] for name in ("seq", "prev", "hash", "logged_at_ns", "signature")}
            | {name: record[name] for name in ("kind", "who", "why", "subject")}
            | {"facts": canonical_json(record["facts"]).decode()}
        )
        seq, previous = entry["seq"], entry["hash"]
    return rows


def _hash_at(lines: list[bytes], seq: int) -> str | None:
    entry = _json(lines[seq - 1]) if len(lines) >= seq else None
    return str(entry.get("hash")) if entry is not None else None


def _new_verdicts(ws: Path, store: Store, report: GovernanceReport) -> list[dict[str, Any]]:
    known = {str(row[0]) for row in store.rows("SELECT verdict_sha256 FROM audit.alpha_verdicts")}
    rows = []
    for path in sorted((ws / "verdicts").glob("*/*.json")):
        raw = path.read_bytes()
        sha256, content = sha256_hex(raw), _json(raw)
        if sha256 in known:
            continue
        if content is None or not path.stem.endswith(f"-{sha256[:12]}"):
            report.problems.append(
                code_line(ReasonCode.VERDICT_TAMPERED, f"{path.parent.name}/{path.name}")
            )
            continue
        rows.append(
            {name: content[name] for name in ("alpha_id", "alpha_hash", "gate", "verdict")}
            | {
                "reasons": ", ".join(reason["name"] for reason in content["reasons"]),
                "verdict_sha256": sha256,
                "content": raw.decode(),
            }
        )
    return rows


def _new_results(ws: Path, store: Store, report: GovernanceReport) -> list[dict[str, Any]]:
    known = {str(row[0]) for row in store.rows("SELECT evidence_sha256 FROM hft.session_pnl")}
    rows = []
    for evidence, sha256, _ in _summaries(ws, report):
        account = evidence["account"]
        if sha256 in known or account is None:
            continue
        names = (
            "run_id", "alpha_id", "alpha_hash", "stage", "mode", "symbol", "session_id",
            "trading_day", "weight_ppm", "halted_by",
        )  # fmt: skip
        money = ("gross", "fees", "net", "max_drawdown", "fill_count", "round_trip_count")
        rows.append(
            {name: evidence[name] for name in names}
            | {name: account[name] for name in money}
            | {"evidence_sha256": sha256}
        )
    return rows


def _new_snapshots(ws: Path, store: Store) -> list[dict[str, Any]]:
    """Profit by instrument; a summary of an earlier version, which does not say it, has none."""
    known = {str(row[0]) for row in store.rows("SELECT evidence_sha256 FROM hft.pnl_snapshots")}
    names = ("run_id", "alpha_id", "mode", "trading_day")
    return [
        {name: evidence[name] for name in names} | snapshot | {"evidence_sha256": sha256}
        # A summary that was tampered with is reported once, where results are read.
        for evidence, sha256, _ in _summaries(ws, GovernanceReport())
        if sha256 not in known
        for snapshot in evidence.get("pnl", [])
    ]


def _new_latencies(ws: Path, store: Store) -> list[dict[str, Any]]:
    """How long the engine took, which the process measured with its own clock."""
    known = {str(row[0]) for row in store.rows("SELECT evidence_sha256 FROM hft.session_latency")}
    rows = []
    for evidence, sha256, timings in _summaries(ws, GovernanceReport()):
        times = timings.get("decide_ns")
        if sha256 in known or times is None:
            continue
        rows.append(
            {"run_id": evidence["run_id"], "trading_day": evidence["trading_day"]}
            | {"evidence_sha256": sha256, "step": "decide", "sample_count": times["count"]}
            | {f"{name}_ns": times[name] for name in ("p50", "p99", "p999", "max")}
        )
    return rows


def _summaries(
    ws: Path, report: GovernanceReport
) -> Iterator[tuple[dict[str, Any], str, dict[str, Any]]]:
    """Evidence, its hash, and the timings, of every summary whose hash holds."""
    for path in sorted((ws / "sessions").glob("*/summary.json")):
        content = _json(path.read_bytes())
        if content is None or canonical_sha256(content["evidence"]) != content["evidence_sha256"]:
            report.problems.append(code_line(ReasonCode.SUMMARY_TAMPERED, path.parent.name))
            continue
        yield content["evidence"], content["evidence_sha256"], content.get("timings", {})


def _json(raw: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(raw)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
