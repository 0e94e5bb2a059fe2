"""Sensors look at the outside world only: sealed segments and canary summaries on disk.

A run key is a content id, so a segment or a summary starts one run, however often it is seen.
"""

import dagster as dg

from dagster_project.assets.live_reports import parity_report, run_report, wal_loaded
from dagster_project.assets.promotion import canary_state
from dagster_project.resources import Workspace
from research import loop

load_sealed_segments = dg.define_asset_job(
    "load_sealed_segments",
    selection=dg.AssetSelection.assets(wal_loaded, parity_report, run_report),
)
evaluate_canary = dg.define_asset_job(
    "evaluate_canary", selection=dg.AssetSelection.assets(canary_state)
)


@dg.sensor(job=load_sealed_segments, minimum_interval_seconds=15)
def wal_sensor(context: dg.SensorEvaluationContext, workspace: Workspace) -> dg.SensorResult:
    """Load when segments were sealed since the last tick."""
    head = loop.sealed_segments_sha256(workspace.folder)
    if head is None or head == context.cursor:
        return dg.SensorResult(skip_reason="no new sealed segment")
    return dg.SensorResult(run_requests=[dg.RunRequest(run_key=head)], cursor=head)


@dg.sensor(job=evaluate_canary, minimum_interval_seconds=60)
def canary_sensor(context: dg.SensorEvaluationContext, workspace: Workspace) -> dg.SensorResult:
    """Evaluate each canary that has summaries it was not judged by yet."""
    pending = loop.pending_canaries(workspace.folder)
    if not pending:
        return dg.SensorResult(skip_reason="no canary has new evidence")
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(run_key=f"{key}:{head}", partition_key=key) for key, head in pending
        ]
    )
