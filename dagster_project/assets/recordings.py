"""From recordings to datasets and registered alphas."""

import dagster as dg

from dagster_project.partitions import ALPHAS
from dagster_project.resources import Workspace
from research import loop


@dg.asset(group_name="data", kinds={"parquet"})
def recordings(workspace: Workspace) -> dg.MaterializeResult:
    """Where the market data comes from: a folder of recordings, or the market generator."""
    described = loop.describe_source(workspace.source)
    return dg.MaterializeResult(
        metadata={"source": workspace.source, "files": dg.MetadataValue.json(described)}
    )


@dg.asset(
    deps=[recordings],
    group_name="data",
    kinds={"parquet"},
    check_specs=[dg.AssetCheckSpec("quality", asset="datasets", blocking=True)],
)
def datasets(workspace: Workspace) -> dg.MaterializeResult:
    """Immutable, content-addressed Parquet sessions with their quality report."""
    made = loop.make_datasets(workspace.folder, workspace.source)
    problems = [problem for dataset in made for problem in loop.quality_problems(dataset)]
    return dg.MaterializeResult(
        metadata={
            "rows": sum(dataset.record_count for dataset in made),
            "datasets": [dataset.dataset_id for dataset in made],
            "quality": dg.MetadataValue.md(loop.quality_markdown(made)),
        },
        data_version=dg.DataVersion(loop.datasets_sha256(made)),
        check_results=[
            dg.AssetCheckResult(
                check_name="quality", passed=not problems, metadata={"problems": problems}
            )
        ],
    )


@dg.asset(deps=[datasets], group_name="research", kinds={"yaml"})
def alpha_registry(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """Alphas whose instruments are in the datasets, registered with their grids of trials."""
    keys = loop.register_alphas(workspace.folder)
    context.instance.add_dynamic_partitions(ALPHAS.name or "", keys)
    return dg.MaterializeResult(metadata={"rows": len(keys), "alphas": keys})
