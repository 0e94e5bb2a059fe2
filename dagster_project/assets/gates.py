"""Gate verdicts, one asset a gate, partitioned by alpha.

The asset check shows the verdict and stops its own run; what the next gate trusts is the verdict
file, which `research.gates` verifies again whatever Dagster thinks.
"""

from typing import Any

import dagster as dg

from dagster_project.assets.recordings import alpha_registry
from dagster_project.partitions import ALPHAS
from dagster_project.resources import Workspace
from research import loop, scorecard

BEFORE_SESSIONS = {"dagster/priority": "1"}
"""Gates run before whatever else could run: a shadow permit then carries what gate C chose."""


def card_metadata(
    workspace: Workspace, key: str
) -> dict[str, Any]:  # Any: text, numbers and JSON, as Dagster takes them
    """The alpha's scorecard as it is now: its headline, and all of it as JSON."""
    shown = scorecard.metadata(loop.scorecard_of(workspace.folder, key))
    return shown | {"scorecard": dg.MetadataValue.json(shown["scorecard"])}


def _gate_asset(
    gate: str, *, deps: list[dg.AssetsDefinition], blocking: bool
) -> dg.AssetsDefinition:
    name = f"{gate}_verdict"

    @dg.asset(
        name=name,
        deps=deps,
        partitions_def=ALPHAS,
        group_name="gates",
        kinds={"json"},
        op_tags=BEFORE_SESSIONS,
        check_specs=[dg.AssetCheckSpec("passed", asset=name, blocking=blocking)],
        description=loop.GATE_DESCRIPTIONS[gate],
    )
    def gate_asset(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
        verdict = loop.run_gate(workspace.folder, context.partition_key, gate)
        passed = verdict.is_passed
        return dg.MaterializeResult(
            metadata={
                "verdict": str(verdict.verdict),
                "reasons": dg.MetadataValue.md(loop.reasons_markdown(verdict)),
                "sha256": verdict.sha256,
                **card_metadata(workspace, context.partition_key),
            },
            data_version=dg.DataVersion(verdict.sha256),
            check_results=[
                dg.AssetCheckResult(
                    check_name="passed",
                    passed=passed,
                    metadata={
                        "verdict": str(verdict.verdict),
                        "reasons": [reason["text"] for reason in verdict.reasons],
                    },
                )
            ],
        )

    return gate_asset


gate_a_verdict = _gate_asset("gate_a", deps=[alpha_registry], blocking=True)
gate_b_verdict = _gate_asset("gate_b", deps=[gate_a_verdict], blocking=True)
gate_c_verdict = _gate_asset("gate_c", deps=[gate_b_verdict], blocking=True)
gate_d_verdict = _gate_asset("gate_d", deps=[gate_c_verdict], blocking=True)
