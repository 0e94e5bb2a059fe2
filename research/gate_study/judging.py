"""Judging of the study: exactly the functions that judge in a workspace, and what is kept of them.

Why: a study of a copy of the gates would measure the copy.

Invariants:
1. Evidence comes from `collect_c.collect`, verdicts from `gate_c.evaluate` and `gate_d.evaluate`.
2. A mistake is switched on around these functions, never inside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hft_platform.errors import code_name
from research.gate_study.backtests import ChosenOnTheJudged, MarketBacktests, WithoutCosts
from research.gate_study.markets import Market
from research.gates import collect_c, gate_c, gate_d
from research.gates.backtests import RunBacktests
from research.gates.thresholds import GateThresholds
from research.gates.verdict import Finding, GateVerdict
from research.registry import AlphaManifest

MISTAKES: Mapping[str, frozenset[str]] = {
    "costs_off": frozenset({"costs"}),
    "chosen_on_judged": frozenset({"selection"}),
    "trials_uncounted": frozenset({"trials"}),
    "all_three": frozenset({"costs", "selection", "trials"}),
}
"""The reference system's mistakes, alone and together."""
SEARCHES: Mapping[str, frozenset[str]] = {
    "honest": frozenset({"costs"}),
    "chosen_on_judged": frozenset({"costs", "selection"}),
    "trials_uncounted": frozenset({"costs", "trials"}),
    "both": frozenset({"costs", "selection", "trials"}),
}
"""Ways to show the winner of a search in a fair game, which has no costs to begin with."""
_STATISTICS = (
    "mean_daily_net",
    "sharpe",
    "skewness",
    "kurtosis",
    "newey_west_t",
    "psr",
    "deflated_sharpe",
    "sharpe_hurdle",
    "min_track_record_days",
    "bootstrap_lower",
    "round_trips",
    "net_edge_ticks",
)
_SELECTION = ("oos_loss_probability", "pbo", "spa_p", "cpcv_sharpe_quantile")


class Judge:
    """Judges one alpha on one market, under as many views as are asked for.

    Parameters
    ----------
    manifest : AlphaManifest
        The alpha.
    market : Market
        Its sessions.
    thresholds : GateThresholds
        As every alpha is judged by.
    in_sample : int
        Sessions on which the setting is chosen.
    kept : Path, optional
        File of runs made before, if there is one; `keep` writes it.
    """

    def __init__(
        self,
        manifest: AlphaManifest,
        market: Market,
        *,
        thresholds: GateThresholds,
        in_sample: int,
        kept: Path | None = None,
    ) -> None:
        self._manifest = manifest
        self._market = market
        self._thresholds = thresholds
        self._in_sample = in_sample
        self._honest = MarketBacktests(manifest, market)
        self._kept = kept
        if kept is not None and kept.exists():
            self._honest.load(kept)

    @property
    def run_count(self) -> int:
        """Different backtests asked for so far."""
        return self._honest.run_count

    def keep(self) -> None:
        """Write the runs down if there are new ones."""
        if self._kept is not None and self._honest.has_new:
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            self._honest.save(self._kept)

    def verdict(
        self, *, days: int, trials: int, mistakes: frozenset[str] = frozenset()
    ) -> dict[str, Any]:
        """Judge by gate C, and by gate D where C passes.

        Parameters
        ----------
        days : int
            Out-of-sample sessions.
        trials : int
            Trials in the ledger.
        mistakes : frozenset of str
            ``costs``, ``selection``, ``trials``: which to make.

        Returns
        -------
        dict
            Row of the study.
        """
        backtest: RunBacktests = self._honest
        in_sample = self._in_sample
        if "costs" in mistakes:
            backtest = WithoutCosts(backtest, self._market.instrument)
        if "selection" in mistakes:
            backtest = ChosenOnTheJudged(backtest, in_sample=in_sample, out_of_sample=days)
            in_sample = days
        made = collect_c.collect(
            self._manifest,
            self._thresholds.gate_c,
            backtest,
            in_sample=in_sample,
            out_of_sample=days,
            trial_count=1 if "trials" in mistakes else trials,
        )
        found = gate_c.evaluate(made.evidence, self._thresholds.gate_c)
        row = _row(found)
        if found.verdict is GateVerdict.PASSED:
            row["gate_d"] = str(self._beside_an_empty_pool(found, made.displayed_share).verdict)
        return row | {"days": days, "promoted_d": row.get("gate_d") == "passed"}

    def _beside_an_empty_pool(self, found: Finding, displayed_share: tuple[float, ...]) -> Finding:
        evidence = gate_d.PoolEvidence(
            alpha=gate_d.PoolAlpha(
                daily_net={int(day): value for day, value in found.results["daily_net"].items()},
                displayed_share=displayed_share,
            ),
            members={},
            gate_weight_ppm=self._manifest.gate_weight_ppm,
        )
        return gate_d.evaluate(evidence, self._thresholds.gate_d)


def _row(found: Finding) -> dict[str, Any]:
    results = found.results
    base = next(iter(results["corners"]))
    return {
        "verdict": str(found.verdict),
        "codes": sorted({code_name(r["code"]) for r in found.reasons}),
        "chosen": results["chosen_parameters"],
        "worst_corner": results["worst_corner"],
        "base": _numbers(results["corners"][base]),
        "worst": _numbers(results["corners"][results["worst_corner"]]),
        "checks": {row["name"]: row["passed"] for row in results["checks"]},
        "placebo_t": results["placebo_t"],
        "selection": {name: results["selection"].get(name) for name in _SELECTION},
    }


def _numbers(corner: Mapping[str, Any]) -> dict[str, Any]:
    return {name: corner[name] for name in _STATISTICS if name in corner}
