"""Sensors look at the outside world only: sealed segments and canary summaries on disk.

A run key is a content id, so a segment or a summary starts one run, however often it is seen. A
canary whose evaluation failed is judged again, a bounded number of times.
"""

import dagster as dg

from dagster_project.assets.live_reports import parity_report, run_report, wal_loaded
from dagster_project.assets.promotion import canary_state
from dagster_project.partitions import ALPHAS
from dagster_project.resources import Workspace
from research import loop

ATTEMPTS_MAX = 60
"""Runs for one state of a canary's evidence: an hour of them, a tick of the sensor apart."""
RUN_KEY_TAG = "dagster/run_key"

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
    wanted = [(key, run_key_of(context.instance, f"{key}:{head}")) for key, head in pending]
    requests = [
        dg.RunRequest(run_key=run_key, partition_key=key)
        for key, run_key in wanted
        if run_key is not None
    ]
    for key, run_key in wanted:
        if run_key is None:
            context.log.error("%s could not be judged %s times; see its runs", key, ATTEMPTS_MAX)
    if not requests:
        return dg.SensorResult(skip_reason="no canary has new evidence")
    # A config in force may be of a version that is registered no more.
    known = set(context.instance.get_dynamic_partitions(ALPHAS.name or ""))
    missing = [key for key, _ in pending if key not in known]
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=[ALPHAS.build_add_request(missing)] if missing else [],
    )


def run_key_of(instance: dg.DagsterInstance, name: str) -> str | None:
    """Run key of an evaluation: `name`, or of its next attempt when the one before it failed.

    Parameters
    ----------
    instance : DagsterInstance
        Knows the runs that were made.
    name : str
        Content id of what there is to judge.

    Returns
    -------
    str or None
        A key that was run already when it did not fail; None when `ATTEMPTS_MAX` runs failed.
    """
    for attempt in range(ATTEMPTS_MAX):
        run_key = f"{name}:{attempt}" if attempt else name
        runs = instance.get_runs(filters=dg.RunsFilter(tags={RUN_KEY_TAG: run_key}), limit=1)
        if not runs or not runs[0].is_failure_or_canceled:
            return run_key
    return None
