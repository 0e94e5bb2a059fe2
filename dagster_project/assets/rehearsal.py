"""All gates at once, without authorising anything: for looking, before there is the evidence."""

import dagster as dg

from dagster_project.assets.recordings import alpha_registry
from dagster_project.partitions import ALPHAS
from dagster_project.resources import Workspace
from research import loop


class RehearsalConfig(dg.Config):
    """How much of the data to look at; nothing that a gate decides by.

    Attributes
    ----------
    sessions : int or None
        The alpha's first sessions only; all of them by default.
    """

    sessions: int | None = None


@dg.asset(deps=[alpha_registry], partitions_def=ALPHAS, group_name="gates", kinds={"json"})
def rehearsal(
    context: dg.AssetExecutionContext, workspace: Workspace, config: RehearsalConfig
) -> dg.MaterializeResult:
    """Every statistic of gates A to E on the sessions there are; it authorises nothing."""
    content = loop.rehearse(workspace.folder, context.partition_key, sessions=config.sessions)
    return dg.MaterializeResult(
        metadata={
            "would say": {gate: row["would_say"] for gate, row in content["gates"].items()},
            "statistics that do not exist": {
                gate: len(row["undefined"]) for gate, row in content["gates"].items()
            },
            "seconds": content["timings"]["seconds"],
            "steps": dg.MetadataValue.md(loop.steps_markdown(content["timings"]["steps"])),
        }
    )
