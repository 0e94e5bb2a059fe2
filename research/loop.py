"""The loop as library functions: what the assets, the demo, the terminal and a notebook call.

Every function reads and writes files of one workspace and can be called again: what is already
there is not made twice. Functions take the alpha's key, ``alpha_id@<12 hex>``, as Dagster's
partitions do.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hft_platform import _core
from hft_platform.config.canonical import atomic_write, canonical_json, canonical_sha256
from hft_platform.config.code_hash import code_sha256
from hft_platform.config.keys import public_key
from hft_platform.config.promoted import SignedIssue, head_config
from hft_platform.config.promotion_folder import issued_seqs, promotions_root
from hft_platform.config.settings import load_settings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import load_instruments
from hft_platform.services.parity import read_session, replay_session
from hft_platform.services.session_summary import verify_summary
from research import registry, scorecard
from research.data import catalog
from research.data.ingest import ingest
from research.gates import run_gate as _run_gate
from research.gates.verdict import GATES, Verdict, read_verdict
from research.promotion import audit, canary_life, promote
from research.promotion import canary as canary_rules
from research.promotion.canary_thresholds import load_canary_thresholds
from research.promotion.evidence import session_summaries

SHADOW_SESSIONS = 5
"""Shadow sessions run for gate E: as many as it asks for at least."""

GATE_DESCRIPTIONS = {
    "gate_a": "Spec and data: schema, provenance, quality, features, bounds, no look-ahead.",
    "gate_b": "Code: the alpha's own tests, batch equals incremental, two processes agree.",
    "gate_c": "Evidence: out-of-sample profit from simulated fills, counted against every trial.",
    "gate_d": "Portfolio: correlation with the pool, marginal contribution, capacity.",
    "gate_e": "Shadow: signed sessions of the real runtime against the backtest.",
}

Progress = Callable[[str], None]


def describe_source(source: str) -> dict[str, Any]:
    """What a source holds: files with sizes, or the generator's specs."""
    if source == "generator":
        from research.data.generator import default_specs

        return {"generator": [spec.model_dump(mode="json") for spec in default_specs()]}
    folder = Path(source)
    if not folder.is_dir():
        raise PlatformError(
            ReasonCode.FILE_DAMAGED, f"no folder {source}", next_step="make demo DATA=<folder>"
        )
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}


def make_datasets(ws: Path, source: str, progress: Progress | None = None) -> list[catalog.Dataset]:
    """Ingest a source; a dataset that is already there is opened, not made again."""
    table = load_instruments()
    if source != "generator":
        return [ingest(Path(source), ws, table, progress=progress)]
    from research.data.generator import default_specs

    return [ingest(spec, ws, table, progress=progress) for spec in default_specs()]


def quality_problems(dataset: catalog.Dataset) -> list[str]:
    """What makes a dataset unfit: a session without records, or one crossed throughout."""
    return [
        f"{ref.symbol} {ref.session_id}: no record was kept"
        for ref in dataset.sessions
        if ref.record_count == 0
    ]


def datasets_sha256(datasets: list[catalog.Dataset]) -> str:
    """One hash over several datasets."""
    return canonical_sha256(sorted(dataset.sha256 for dataset in datasets))


def quality_rows(ws: Path) -> list[dict[str, Any]]:
    """Quality reports of all datasets, a row each session."""
    return [row for dataset in catalog.datasets(ws) for row in catalog.quality_rows(dataset)]


def quality_markdown(datasets: list[catalog.Dataset]) -> str:
    """Quality of a few sessions as a table, for Dagster."""
    return _markdown([row for dataset in datasets for row in catalog.quality_rows(dataset)][:40])


def register_alphas(ws: Path) -> list[str]:
    """Register the bundled alphas whose instruments are in the workspace's datasets."""
    symbols = {symbol for dataset in catalog.datasets(ws) for symbol in dataset.symbols}
    found = [
        alpha for alpha in registry.bundled_alphas() if symbols & set(alpha.manifest.instruments)
    ]
    for alpha in found:
        registry.register(ws, alpha)
    atomic_write(ws / "alphas.json", canonical_json([alpha.key for alpha in found]) + b"\n")
    return [alpha.key for alpha in found]


def registered_alphas(ws: Path) -> list[str]:
    """Keys of the registered alphas, in the order of their ids."""
    path = ws / "alphas.json"
    return list(json.loads(path.read_bytes())) if path.exists() else []


def alpha_of(key: str) -> registry.Alpha:
    """The bundled alpha with this key; an edited alpha has another key and is refused."""
    return registry.find_alpha(key)


def run_gate(ws: Path, key: str, gate: str) -> Verdict:
    """Judge one gate and write its verdict."""
    return _run_gate(ws, alpha_of(key), gate)


def scorecard_of(ws: Path, key: str) -> dict[str, Any]:
    """What is proven about an alpha now; see `research.scorecard`."""
    return scorecard.build(ws, alpha_of(key))


def rehearse(ws: Path, key: str, *, sessions: int | None = None) -> dict[str, Any]:
    """Compute every statistic of every gate; it authorises nothing (docs/rehearsal.md)."""
    from research.gates.rehearsal import rehearse as _rehearse

    return _rehearse(ws, alpha_of(key), session_count=sessions).content()


def steps_markdown(rows: list[dict[str, Any]]) -> str:
    """Steps with their seconds as a table, for Dagster."""
    return _markdown([row | {name: round(row[name], 2) for name in _SECONDS} for row in rows])


_SECONDS = ("seconds", "cpu_seconds")


def permit(ws: Path, key: str, stage: str) -> dict[str, Any]:
    """Have a config of `stage` signed by the signing process, unless one is in force already."""
    alpha = alpha_of(key)
    issue = _issue_in_force(ws, alpha.alpha_id)
    if (
        issue is None
        or issue.content.stage != stage
        or issue.content.alpha_hash != alpha.alpha_hash
        or issue.content.code_sha256 != code_sha256()
    ):
        promote.promote(ws, alpha, stage=stage, by="asset graph", why=f"gates for {stage} passed")
        issue = _issue_in_force(ws, alpha.alpha_id)
    if issue is None:
        raise PlatformError(ReasonCode.CONFIG_NOT_FOUND, f"nothing was signed for {key}")
    content = issue.content
    return {
        "alpha_id": content.alpha_id,
        "stage": content.stage,
        "weight_ppm": content.weight_ppm,
        "promotion_seq": content.promotion_seq,
        "sha256": issue.content_sha256,
    }


def _issue_in_force(ws: Path, alpha_id: str) -> SignedIssue | None:
    return canary_life.newest_issue(ws, alpha_id, pinned_file=load_settings().pinned_keys_path)


def run_shadow_sessions(ws: Path, key: str) -> list[dict[str, Any]]:
    """Run `hft-live` over the first frozen sessions that have no shadow summary yet."""
    frozen = frozen_sessions(ws, key)[:SHADOW_SESSIONS]
    return _run_sessions(ws, key, frozen, stage="shadow")


def run_canary_sessions(ws: Path, key: str) -> list[dict[str, Any]]:
    """Run the next quota of frozen sessions under the canary config in force."""
    return _run_sessions(ws, key, _next_canary_sessions(ws, key), stage="canary")


def frozen_sessions(ws: Path, key: str) -> list[catalog.SessionRef]:
    """Sessions that no gate before E has seen, in order."""
    alpha = alpha_of(key)
    dataset = catalog.dataset_of(ws, alpha.manifest.instruments)
    return list(registry.sessions_of(alpha, dataset).frozen)


def _next_canary_sessions(ws: Path, key: str) -> list[catalog.SessionRef]:
    thresholds, _ = load_canary_thresholds()
    done = {
        (row["symbol"], row["session_id"])
        for row in session_evidence(ws, key)
        if row["stage"] == "canary"
    }
    rest = [
        ref
        for ref in frozen_sessions(ws, key)[SHADOW_SESSIONS:]
        if (ref.symbol, ref.session_id) not in done
    ]
    return rest[: thresholds.sessions_per_stage]


def _run_sessions(
    ws: Path, key: str, sessions: list[catalog.SessionRef], *, stage: str
) -> list[dict[str, Any]]:
    alpha_id = key.split("@", maxsplit=1)[0]
    # A session of other code is no evidence for this one, so it is run again.
    have = {
        (row["symbol"], row["session_id"])
        for row in session_evidence(ws, key)
        if row["stage"] == stage and row["code_sha256"] == code_sha256()
    }
    todo = [ref for ref in sessions if (ref.symbol, ref.session_id) not in have]
    if todo:
        dataset_id = catalog.dataset_of(ws, alpha_of(key).manifest.instruments).dataset_id
        command = [
            sys.executable,
            "-m",
            "hft_platform.cli",
            "run",
            "--mode",
            "paper",
            "--speed",
            "max",
            "--workspace",
            str(ws),
            "--config",
            str(head_config(ws, alpha_id)),
            "--json",
            "--session",
            *[f"{dataset_id}:{ref.session_id}" for ref in todo],
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise _runtime_refusal(done, alpha_id)
    wanted = {(ref.symbol, ref.session_id) for ref in sessions}
    return [
        row
        for row in session_evidence(ws, key)
        if row["stage"] == stage and (row["symbol"], row["session_id"]) in wanted
    ]


def _runtime_refusal(done: subprocess.CompletedProcess[str], alpha_id: str) -> PlatformError:
    try:
        content = json.loads(done.stdout.strip().splitlines()[-1])
        return PlatformError(content["code"], content["message"], next_step=content["next"])
    except (IndexError, KeyError, TypeError, json.JSONDecodeError):
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        return PlatformError(
            ReasonCode.INVARIANT_BROKEN,
            f"hft-live run for {alpha_id} ended with {done.returncode}: {last}",
        )


def stage_lines(ws: Path, key: str) -> list[str]:
    """Stage and weight changes of one alpha, as sentences."""
    return [
        f"taken back: {row['why']}"
        if row["kind"] == "withdrawn"
        else f"{row['stage']} at {row['weight_ppm'] / 10_000:g} %: {row['why']}"
        for row in stage_changes(ws, key)
    ]


def stage_changes(ws: Path, key: str) -> list[dict[str, Any]]:
    """What was signed, raised, lowered and withdrawn for an alpha, from the audit chain."""
    alpha_id = key.split("@", maxsplit=1)[0]
    rows = []
    for entry in audit.verify_chain(ws):
        kind = entry.record["kind"]
        if not kind.startswith("issued_") and kind not in ("withdrawn", "weight_reduced"):
            continue
        facts = entry.record["facts"]
        if facts.get("alpha_id") != alpha_id:
            continue
        rows.append(
            {
                "kind": entry.record["kind"],
                "stage": facts.get("stage", "canary"),
                "weight_ppm": int(facts.get("weight_ppm", 0)),
                "promotion_seq": int(facts["promotion_seq"]),
                "who": entry.record["who"],
                "why": entry.record["why"],
            }
        )
    return rows


def session_evidence(ws: Path, key: str | None = None) -> list[dict[str, Any]]:
    """Evidence parts of the finished sessions (of one alpha), in the order they were traded."""
    rows = []
    for path in sorted((ws / "sessions").glob("*/summary.json")):
        verify_summary(path, key=public_key(ws, "session"))
        evidence = json.loads(path.read_bytes())["evidence"]
        if key is None or key == f"{evidence['alpha_id']}@{evidence['alpha_hash'][:12]}":
            rows.append(evidence)
    order = {"shadow": 0, "canary": 1, "live": 2}
    return sorted(
        rows,
        key=lambda row: (
            row["alpha_id"],
            order[row["stage"]],
            row["promotion_seq"],
            row["trading_day"],
            row["session_id"],
            row["run_id"],
        ),
    )


def canary_is_open(ws: Path, key: str) -> bool:
    """True while a canary config is in force and there are sessions left to run."""
    alpha = alpha_of(key)
    issue = _issue_in_force(ws, alpha.alpha_id)
    if (
        issue is None
        or issue.content.stage == "shadow"
        or issue.content.alpha_hash != alpha.alpha_hash
    ):
        return False
    return bool(_next_canary_sessions(ws, key))


def decide_canary(ws: Path, key: str) -> dict[str, Any]:
    """Judge the canary by its summaries and act: more size, hold, or withdraw.

    One whose alpha was edited or removed cannot be judged: it is withdrawn, and the refusal raised.
    """
    try:
        alpha = alpha_of(key)
    except PlatformError as error:
        promote.withdraw_without_alpha(ws, key, by="asset graph", error=error)
        raise
    decision = promote.run_canary(ws, alpha, by="asset graph")
    return {
        "action": str(decision.action),
        "weight_ppm": decision.weight_ppm,
        "reasons": [reason.text for reason in decision.reasons],
        "facts": decision.facts,
        "rolled_back": decision.action is canary_rules.Action.ROLL_BACK,
    }


def pending_canaries(ws: Path) -> list[tuple[str, str]]:
    """Canary and live configs in force that there is something to judge by, one run each.

    Walks what was issued, not what is registered: a canary whose alpha was edited or removed is in
    force all the same. With the hash of what is known of its sessions; a summary that is missing or
    does not verify is part of it: it is a reason to look, not to stop looking. A config that
    cannot be read is pending too, so that its run fails where people look, and the others go on.
    """
    root = promotions_root(ws)
    ids = sorted(path.name for path in root.glob("*") if issued_seqs(root, path.name))
    return [row for alpha_id in ids if (row := _pending(ws, alpha_id)) is not None]


def _pending(ws: Path, alpha_id: str) -> tuple[str, str] | None:
    try:
        issue = _issue_in_force(ws, alpha_id)
    except PlatformError as error:
        return _registered_key(ws, alpha_id), canonical_sha256(error.message)
    if issue is None or issue.content.stage not in ("canary", "live"):
        return None
    key = f"{alpha_id}@{issue.content.alpha_hash[:12]}"
    try:
        summaries = session_summaries(ws, alpha_of(key), stages=("canary", "live"))
    except PlatformError as error:
        return key, canonical_sha256(error.message)
    rows = [
        [row.run_id, row.evidence.decisions_sha256 if row.evidence else row.problem]
        for row in summaries
    ]
    return (key, canonical_sha256(rows)) if rows else None


def _registered_key(ws: Path, alpha_id: str) -> str:
    # Nothing in the config can be believed; the id alone when the alpha was never registered.
    keys = [key for key in registered_alphas(ws) if key.split("@", maxsplit=1)[0] == alpha_id]
    return keys[0] if keys else alpha_id


def load_wal(ws: Path) -> dict[str, Any]:
    """Load every sealed segment and the audit into the store, exactly once; archive the old."""
    from hft_platform.recorder.archive import Retention, archive_folder, archive_loaded
    from hft_platform.recorder.governance import load_governance
    from hft_platform.recorder.loader import load_sealed
    from hft_platform.recorder.replay_contract import check_store
    from hft_platform.recorder.store import open_configured_store, rows_by_table

    rules = load_settings().loader
    archive = archive_folder(ws, rules.archive_folder)
    retention = Retention(archive, rules.archive_after_days, rules.retention_days)
    with open_configured_store(ws) as store:
        report = load_sealed(ws, store, archive=archive).as_dict()
        governance = load_governance(ws, store).as_dict()
        contract = check_store(ws, store).as_dict()
        archived = archive_loaded(ws, store, retention, now_ns=time.time_ns()).as_dict()
        rows = rows_by_table(store)
    content = {
        "load": report, "governance": governance, "contract": contract, "archive": archived,
        "rows_by_table": rows,
    }  # fmt: skip
    (ws / "report").mkdir(parents=True, exist_ok=True)
    atomic_write(ws / "report" / "store.json", canonical_json(content) + b"\n")
    return content


def contract_breaches(report: dict[str, Any]) -> list[str]:
    """What `load_wal` refused, and where the store is not what the logs say."""
    violations = [
        f"{v['error']} ({v['code']}): {v['where']}: {v['what']}"
        for v in report["contract"]["violations"]
    ]
    return [*report["load"]["problems"], *violations]


def segments_markdown(report: dict[str, Any]) -> str:
    """Segments that `load_wal` completed, as a table, for Dagster."""
    return _markdown(
        [
            {
                "segment": row["segment"],
                "records": row["records"],
                "inserted": row["rows_inserted"],
                "bytes": row["bytes"],
                "seconds": row["seconds"],
                "sha256": row["sha256"][:12],
            }
            for row in report["load"]["segments"]
        ]
    )


def sealed_segments_sha256(ws: Path) -> str | None:
    """Hash over the names of all segments that are loaded or to load; None when there is none.

    Archived ones keep their name in it: moving a segment is nothing new to load.
    """
    from hft_platform.recorder.archive import archived_files

    logs = [path for path in (ws / "sessions").glob("*/*") if path.is_dir()]
    found = [path for log in logs for path in log.glob("*.seg")]
    for log in logs:
        # A damaged manifest is the loader's to refuse; the other logs go on.
        with contextlib.suppress(PlatformError):
            found += [log / path.name for path in archived_files(log)]
    names = sorted(str(path.relative_to(ws)) for path in found)
    return hashlib.sha256("\n".join(names).encode()).hexdigest() if names else None


def parity(ws: Path) -> dict[str, Any]:
    """Replay every session bit for bit, and hold it against the backtest of the same records.

    A session whose market segments went after their retention cannot be replayed; it is listed.
    """
    from hft_platform.recorder.archive import deleted_segments
    from research.backtest.session_agreement import agreement_of

    identical = total = 0
    agreement = []
    finished = sorted(path.parent for path in (ws / "sessions").glob("*/summary.json"))
    deleted = [path for path in finished if deleted_segments(path / "market")]
    folders = [path for path in finished if path not in deleted]
    for folder in folders:
        report = replay_session(folder)
        identical += report.identical
        total += report.total
        logs = read_session(folder)
        agreement.append({"run_id": folder.name} | agreement_of(ws, folder, logs).as_dict())
    content = {
        "sessions": len(folders),
        "identical": identical,
        "total": total,
        "share": identical / total if total else 0.0,
        "unfinished": [
            path.name
            for path in sorted((ws / "sessions").glob("*"))
            if not (path / "summary.json").exists()
        ],
        "deleted": [path.name for path in deleted],
        "agreement": agreement,
    }
    (ws / "report").mkdir(parents=True, exist_ok=True)
    atomic_write(ws / "report" / "parity.json", canonical_json(content) + b"\n")
    return content


def record_seconds(ws: Path, seconds: dict[str, float]) -> None:
    """Keep how long each step took, for the report; no decision reads it."""
    (ws / "report").mkdir(parents=True, exist_ok=True)
    atomic_write(ws / "report" / "seconds.json", json.dumps(seconds).encode())


def report_path(ws: Path) -> Path:
    """Where the report page lies."""
    return ws / "report" / "index.html"


def reasons_markdown(verdict: Verdict) -> str:
    """Reasons of a verdict as a table, for Dagster."""
    rows = [
        {"reason": r["text"], "observed": r["observed"], "limit": r["limit"]}
        for r in verdict.reasons
    ]
    return _markdown(rows) if rows else "every threshold met"


def sessions_markdown(rows: list[dict[str, Any]]) -> str:
    """Sessions of the runtime as a table, for Dagster."""
    return _markdown(
        [
            {
                "session": row["session_id"],
                "stage": row["stage"],
                "orders": row["counts"]["orders"],
                "net": row["account"]["net"] / _core.SCALE,
                "parity": f"{row['parity']['identical']}/{row['parity']['total']}",
            }
            for row in rows
        ]
    )


def verdict_rows(ws: Path, key: str) -> list[dict[str, str]]:
    """One row a gate: verdict and first reason."""
    rows = []
    for gate in GATES:
        verdict = read_verdict(ws, key, gate)
        if verdict is None:
            rows.append({"gate": gate[-1].upper(), "verdict": "not run", "reason": ""})
            continue
        reason = verdict.reasons[0]["text"] if verdict.reasons else ""
        rows.append({"gate": gate[-1].upper(), "verdict": str(verdict.verdict), "reason": reason})
    return rows


def _markdown(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "none"
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(str(row.get(name, "")) for name in names) + " |" for row in rows]
    return "\n".join(lines)
