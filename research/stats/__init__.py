"""Statistics of profit series: small pure functions, each with its source and a published check.

Everywhere SR is the *per-period* Sharpe ratio (never annualized), skewness and kurtosis are sample
moments, and kurtosis is *raw* (3 for a Normal). A quantity that is not defined for its input is
None, never a stand-in number.
"""

from research.stats.cross_validation import (
    Paths,
    WalkForward,
    combinatorial_paths,
    combinatorial_splits,
    walk_forward,
    walk_forward_splits,
)
from research.stats.economics import capacity, square_root_impact, turnover
from research.stats.inference import (
    Bootstrap,
    benjamini_hochberg,
    block_bootstrap_mean,
    newey_west_lag,
    newey_west_t,
    student_upper_bound,
)
from research.stats.moments import Moments, moments_of
from research.stats.overfitting import Cscv, cscv
from research.stats.robustness import without_best, without_best_share
from research.stats.sharpe import (
    deflated_sharpe,
    expected_max_z,
    haircut_sharpe_bonferroni,
    min_backtest_length_years,
    min_track_record_length,
    probabilistic_sharpe,
)
from research.stats.spa import Spa, stationary_block_length, superior_predictive_ability
from research.stats.trials import EffectiveTrials, effective_trials, standardized_variance

__all__ = [
    "Bootstrap",
    "Cscv",
    "EffectiveTrials",
    "Moments",
    "Paths",
    "Spa",
    "WalkForward",
    "benjamini_hochberg",
    "block_bootstrap_mean",
    "capacity",
    "combinatorial_paths",
    "combinatorial_splits",
    "cscv",
    "deflated_sharpe",
    "effective_trials",
    "expected_max_z",
    "haircut_sharpe_bonferroni",
    "min_backtest_length_years",
    "min_track_record_length",
    "moments_of",
    "newey_west_lag",
    "newey_west_t",
    "probabilistic_sharpe",
    "square_root_impact",
    "standardized_variance",
    "stationary_block_length",
    "student_upper_bound",
    "superior_predictive_ability",
    "turnover",
    "walk_forward",
    "walk_forward_splits",
    "without_best",
    "without_best_share",
]
