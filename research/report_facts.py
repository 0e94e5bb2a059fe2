"""Collect what the run report shows from the files of a workspace, and write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hft_platform.config.code_hash import code_sha256
from research import loop, report, scorecard
from research.data import catalog
from research.gates.verdict import GATES, read_verdict
from research.promotion.lifecycle import lifecycle_of
from research.report import AlphaFacts, RunFacts
from research.signal_study import diagnose


def write_report(ws: Path) -> Path:
    """Write page, summary.json and every alpha's scorecard; returns the page's path."""
    for key in loop.registered_alphas(ws):
        scorecard.write(ws, loop.alpha_of(key))
    return report.write(collect(ws), ws / "report")


def collect(ws: Path) -> RunFacts:
    """Facts of a workspace; what was not made yet is empty, never invented."""
    store = _read(ws / "report" / "store.json", {"rows_by_table": {}})
    return RunFacts(
        source=", ".join(sorted({dataset.dataset_id for dataset in catalog.datasets(ws)})),
        alphas=[_alpha(ws, key) for key in loop.registered_alphas(ws)],
        quality=loop.quality_rows(ws),
        parity=_read(ws / "report" / "parity.json", {}),
        rows_by_table=store["rows_by_table"],
        seconds_by_step=_read(ws / "report" / "seconds.json", {}),
        code_sha256=code_sha256(),
    )


def _alpha(ws: Path, key: str) -> AlphaFacts:
    alpha = loop.alpha_of(key)
    life = lifecycle_of(ws, alpha)
    verdicts = {gate: read_verdict(ws, key, gate) for gate in GATES}
    return AlphaFacts(
        key=key,
        manifest=alpha.manifest.model_dump(mode="json"),
        verdicts={gate: verdict.content() for gate, verdict in verdicts.items() if verdict},
        sessions=loop.session_evidence(ws, key),
        changes=loop.stage_changes(ws, key),
        lifecycle=life.as_dict() | {"text": life.text, "because": life.because},
        signal=diagnose(ws, key),
    )


def _read(path: Path, otherwise: dict[str, Any]) -> dict[str, Any]:
    return json.loads(path.read_bytes()) if path.exists() else otherwise
