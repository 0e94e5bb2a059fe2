"""What Dagster loads: no network, no secret and no data is touched at import."""

from __future__ import annotations

import dagster as dg

from dagster_project import sensors
from dagster_project.assets import gates, live_reports, promotion, recordings, rehearsal
from dagster_project.resources import Workspace

ASSETS = dg.load_assets_from_modules([recordings, gates, rehearsal, promotion, live_reports])


def build_definitions(workspace: Workspace) -> dg.Definitions:
    """The whole graph over one workspace; one process by default."""
    return dg.Definitions(
        assets=ASSETS,
        jobs=[sensors.load_sealed_segments, sensors.evaluate_canary],
        sensors=[sensors.wal_sensor, sensors.canary_sensor],
        resources={"workspace": workspace},
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The graph over the workspace that `HFT_WORKSPACE` and `HFT_SOURCE` name."""
    from hft_platform.config.settings import load_settings

    settings = load_settings()
    workspace = Workspace(path=str(settings.workspace_path), source=settings.source)
    return build_definitions(workspace)
