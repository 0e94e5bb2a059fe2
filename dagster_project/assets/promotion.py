"""Permits, the sessions they allow, gate E and the canary."""

import dagster as dg

from dagster_project.assets.gates import (
    _gate_asset,
    card_metadata,
    gate_b_verdict,
    gate_d_verdict,
)
from dagster_project.partitions import ALPHAS
from dagster_project.resources import Workspace
from research import loop


@dg.asset(deps=[gate_b_verdict], partitions_def=ALPHAS, group_name="promotion", kinds={"yaml"})
def shadow_permit(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """Signed config with stage `shadow`: the paper exchange only."""
    config = loop.permit(workspace.folder, context.partition_key, "shadow")
    return dg.MaterializeResult(
        metadata=config | card_metadata(workspace, context.partition_key),
        data_version=dg.DataVersion(config["sha256"]),
    )


@dg.asset(deps=[shadow_permit], partitions_def=ALPHAS, group_name="live", kinds={"rust"})
def shadow_sessions(
    context: dg.AssetExecutionContext, workspace: Workspace
) -> dg.MaterializeResult:
    """Paper sessions of the real runtime, in its own process, on days nothing was fitted to."""
    rows = loop.run_shadow_sessions(workspace.folder, context.partition_key)
    return dg.MaterializeResult(
        metadata={"rows": len(rows), "sessions": dg.MetadataValue.md(loop.sessions_markdown(rows))}
    )


gate_e_verdict = _gate_asset("gate_e", deps=[gate_d_verdict, shadow_sessions], blocking=True)


@dg.asset(deps=[gate_e_verdict], partitions_def=ALPHAS, group_name="promotion", kinds={"yaml"})
def promoted_config(
    context: dg.AssetExecutionContext, workspace: Workspace
) -> dg.MaterializeResult:
    """Signed config with stage `canary`, at the smallest weight."""
    config = loop.permit(workspace.folder, context.partition_key, "canary")
    return dg.MaterializeResult(
        metadata=config | card_metadata(workspace, context.partition_key),
        data_version=dg.DataVersion(config["sha256"]),
    )


@dg.asset(deps=[promoted_config], partitions_def=ALPHAS, group_name="live", kinds={"rust"})
def canary_sessions(
    context: dg.AssetExecutionContext, workspace: Workspace
) -> dg.MaterializeResult:
    """The next quota of sessions under the canary config."""
    rows = loop.run_canary_sessions(workspace.folder, context.partition_key)
    return dg.MaterializeResult(
        metadata={"rows": len(rows), "sessions": dg.MetadataValue.md(loop.sessions_markdown(rows))}
    )


@dg.asset(deps=[canary_sessions], partitions_def=ALPHAS, group_name="promotion", kinds={"json"})
def canary_state(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """What the canary's evidence says: hold, more size, or roll back (the config is withdrawn)."""
    decision = loop.decide_canary(workspace.folder, context.partition_key)
    return dg.MaterializeResult(metadata=decision | card_metadata(workspace, context.partition_key))
