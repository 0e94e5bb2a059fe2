"""Sealed segments into ClickHouse, parity, and the page a person reads."""

import dagster as dg

from dagster_project.assets.promotion import shadow_sessions
from dagster_project.resources import Workspace
from research import loop, report_facts


@dg.asset(
    deps=[shadow_sessions],
    group_name="recorder",
    kinds={"clickhouse"},
    check_specs=[dg.AssetCheckSpec("replay_contract", asset="wal_loaded", blocking=True)],
)
def wal_loaded(workspace: Workspace) -> dg.MaterializeResult:
    """Every sealed segment in the store, exactly once."""
    report = loop.load_wal(workspace.folder)
    breaches = loop.contract_breaches(report)
    return dg.MaterializeResult(
        metadata=report | {"segments": dg.MetadataValue.md(loop.segments_markdown(report))},
        check_results=[
            dg.AssetCheckResult(
                check_name="replay_contract",
                passed=not breaches,
                metadata={"actual": len(breaches), "limit": 0, "breaches": breaches},
            )
        ],
    )


@dg.asset(
    deps=[shadow_sessions],
    group_name="live",
    kinds={"json"},
    check_specs=[dg.AssetCheckSpec("identical", asset="parity_report", blocking=True)],
)
def parity_report(workspace: Workspace) -> dg.MaterializeResult:
    """Each session replayed bit for bit, and held against the backtest of the same records."""
    report = loop.parity(workspace.folder)
    return dg.MaterializeResult(
        metadata={"sessions": report["sessions"], "share": report["share"]},
        check_results=[
            dg.AssetCheckResult(
                check_name="identical",
                passed=report["share"] == 1.0,
                metadata={"actual": report["share"], "limit": 1.0},
            )
        ],
    )


@dg.asset(deps=[parity_report, wal_loaded], group_name="reports", kinds={"html"})
def run_report(workspace: Workspace) -> dg.MaterializeResult:
    """One self-contained HTML page of the whole loop, and the same facts as JSON."""
    path = report_facts.write_report(workspace.folder)
    return dg.MaterializeResult(metadata={"report": dg.MetadataValue.path(str(path))})
