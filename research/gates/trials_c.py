"""Gate C's trials: recorded in the ledger as they come out, and counted with all the others.

Why: an alpha is judged against everything that was tried, itself among it, failures too.

Invariants:
1. Outcomes are in the ledger before anything is judged by them; a crash is an outcome.
2. A rerun with equal outcomes counts the trials that were counted the first time, so it gives the
   same verdict however many alphas were tried since.

Operator's page: `docs/formats.md`, trial ledger.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from hft_platform.errors import PlatformError, ReasonCode, code_name
from research.experiments import Outcome, OutcomeLog, TrialLedger, trial_facts
from research.gates.context import GateContext
from research.gates.evidence import BacktestEvidence, daily_net
from research.registry import trials_of


def trial_keys(context: GateContext) -> list[str]:
    """Keys of the alpha's own trials, sorted."""
    return sorted(trial.key for trial in trials_of(context.alpha, context.judged))


@contextlib.contextmanager
def failures_recorded(context: GateContext, *, declared: int) -> Iterator[None]:
    """Record every own trial as failed when what is inside raises, and let it raise."""
    try:
        yield
    except Exception as error:
        code = error.code if isinstance(error, PlatformError) else ReasonCode.GATE_NOT_COMPUTED
        failure = f"{code_name(code)}: {type(error).__name__}"
        OutcomeLog(context.ws).record(
            [Outcome(key, None, failure) for key in trial_keys(context)],
            alpha_id=context.alpha.alpha_id,
            declared=declared,
        )
        raise


def count_trials(
    context: GateContext, evidence: BacktestEvidence, *, declared: int
) -> tuple[BacktestEvidence, dict[str, Any]]:
    """Record what came of the grid, and put into the evidence what all trials amount to.

    Parameters
    ----------
    context : GateContext
        Workspace and alpha.
    evidence : BacktestEvidence
        Its grid is in the order of the manifest.
    declared : int
        Trials in the ledger now.

    Returns
    -------
    BacktestEvidence
        With the facts of the ledger.
    dict
        The ledger's head for the verdict's inputs: trials and outcomes counted, each with a hash.
    """
    trials = trials_of(context.alpha, context.judged)
    outcomes = [
        Outcome(trial.key, daily_net(point.in_sample + point.out_of_sample))
        for trial, point in zip(trials, evidence.grid, strict=True)
    ]
    made = OutcomeLog(context.ws).record(
        outcomes, alpha_id=context.alpha.alpha_id, declared=declared
    )
    facts = trial_facts([*outcomes, *made.others.values()], declared=made.declared)
    head = TrialLedger(context.ws).head(made.declared).as_dict()
    return (
        dataclasses.replace(evidence, trial_count=made.declared, trials=facts),
        head | {"outcomes": made.rows, "outcomes_head": made.head},
    )
