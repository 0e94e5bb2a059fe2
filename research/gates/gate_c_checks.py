"""The conditions of gate C, in the order in which their reasons are given.

Invariant: a value that does not exist meets no condition.
"""

from __future__ import annotations

from typing import Any

from hft_platform.errors import ReasonCode
from research.gates.checks import Check, above, at_least, at_most
from research.gates.thresholds import GateCThresholds

PLACEBOS = ("days_shuffled", "sign_flipped", "time_shifted")
"""Runs without the idea; one that was not made is missed."""
POWER_CHECKS = frozenset({"newey_west_t", "deflated_sharpe", "min_track_record_days", "spa_p"})
"""Misses of these alone can mean too few days rather than no edge.

They compare an estimate with its own error, which shrinks with days. The others ask for a sign (of
combinatorial paths, of a result without its luckiest part, of a choice repeated elsewhere): an edge
worth waiting for has it already.
"""


def checks_of(
    corner: dict[str, Any],
    worst: str,
    selection: dict[str, Any],
    placebos: dict[str, float | None],
    t: GateCThresholds,
) -> list[Check]:
    """Compare everything with its threshold.

    Parameters
    ----------
    corner : dict
        Statistics of one corner.
    worst : str
        Its name.
    selection : dict
        Statistics of the choice.
    placebos : dict of str to float or None
        t value by placebo.
    t : GateCThresholds
        The thresholds.

    Returns
    -------
    list of Check
    """
    rows = (
        (at_least, "newey_west_t", t.newey_west_t_min, "Newey-West t of the mean daily net"),
        (at_least, "deflated_sharpe", t.deflated_sharpe_min, "deflated Sharpe ratio"),
        (at_most, "min_track_record_days", corner["days"], "minimum track record in days"),
        (above, "bootstrap_lower", 0.0, "bootstrap lower bound of the mean daily net"),
        (above, "net_without_best_days", 0, "net profit without its best day"),
        (above, "net_without_best_trips", 0, "net profit without its best trades"),
        (above, "net_edge_ticks", t.net_edge_ticks_min, "net edge of a round trip in ticks"),
        (at_most, "round_trips_per_day", t.round_trips_per_day_max, "number of round trips a day"),
    )
    checks = [
        compare(name, corner[name], limit, f"{what} ({worst})")
        for compare, name, limit, what in rows
    ]
    checks.append(
        at_most(
            "spa_p",
            selection["spa_p"],
            t.spa_p_max,
            f"p value of superior predictive ability over {selection['settings']} settings",
        )
    )
    checks.append(
        above(
            "cpcv_sharpe_quantile",
            selection["cpcv_sharpe_quantile"],
            0.0,
            f"daily Sharpe ratio at quantile {t.cpcv_sharpe_quantile:g} of "
            f"{selection['cpcv_paths']} combinatorial paths",
        )
    )
    if selection["settings"] > 1:
        checks.append(
            at_most(
                "oos_loss_probability",
                selection["oos_loss_probability"],
                t.cscv_loss_probability_max,
                "probability that the chosen setting loses out of sample (CSCV)",
            )
        )
    for name in PLACEBOS:
        value = placebos.get(name)
        # A placebo whose profit never changes made nothing, which is what it should make.
        made_nothing = value is None and name in placebos
        checks.append(
            at_most(
                f"placebo_{name}",
                0.0 if made_nothing else value,
                t.placebo_t_max,
                f"t value of the placebo {name.replace('_', ' ')}",
                code=ReasonCode.PLACEBO_PASSED,
            )
        )
    return checks
