"""ExperimentTracker: every trial that was declared, what came of it, and what they amount to."""

from research.experiments.facts import TrialFacts, independent_trials, trial_facts
from research.experiments.ledger import LedgerHead, Trial, TrialLedger
from research.experiments.outcomes import Evaluation, Outcome, OutcomeLog

__all__ = [
    "Evaluation",
    "LedgerHead",
    "Outcome",
    "OutcomeLog",
    "Trial",
    "TrialFacts",
    "TrialLedger",
    "independent_trials",
    "trial_facts",
]
