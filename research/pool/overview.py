"""The pool as it trades, and alphas side by side: what gate D judges by, for people to read.

Why: a weight means nothing without the others, and an alpha is refused because of one it is like.

Everything comes from verified gate C verdicts and signed promotions; it judges nothing and sets no
weight. Operator's page: `docs/gates.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.config.settings import load_settings
from research import scorecard
from research.gates.collect_d import member_verdicts, pool_alpha, pool_members
from research.gates.gate_d import PoolAlpha, correlation_rows, weights_of
from research.gates.thresholds import load_thresholds
from research.gates.verdict import read_verdict
from research.pool.margin import out_of_fold
from research.pool.weights import covariance_of, risk_shares

if TYPE_CHECKING:
    from research.registry import Alpha


def pool_overview(ws: Path, *, config_dir: Path | None = None) -> dict[str, Any]:
    """Members, weights by each method, correlations, and what each adds to the others.

    Parameters
    ----------
    ws : Path
        Workspace.
    config_dir : Path, optional
        Folder with overriding settings and `gates.yaml`.

    Returns
    -------
    dict
        members, weights (by method, then alpha), risk_shares (the same), pairs, marginal (by
        alpha, against all the others, out of fold), shared_days.
    """
    folds = load_thresholds(config_dir).gate_d.folds
    keys = pool_members(ws, pinned_keys=load_settings(config_dir).pinned_keys_path)
    members = {key: pool_alpha(verdict) for key, verdict in member_verdicts(ws, keys).items()}
    profits = {key: member.daily_net for key, member in members.items()}
    weights = weights_of(profits)
    return {
        "members": [
            {
                "alpha": key,
                "instruments": list(member.instruments),
                "days": len(member.daily_net),
                "net": sum(member.daily_net.values()),
            }
            for key, member in sorted(members.items())
        ],
        "shared_days": len(set.intersection(*map(set, profits.values()))) if profits else 0,
        "weights": weights,
        "risk_shares": {method: _risk(profits, row) for method, row in weights.items()},
        "pairs": pair_rows(members),
        "marginal": {
            key: out_of_fold(
                days, [other for name, other in profits.items() if name != key], folds=folds
            ).as_dict()
            for key, days in sorted(profits.items())
        },
    }


def compare(ws: Path, alphas: Sequence[Alpha], *, config_dir: Path | None = None) -> dict[str, Any]:
    """Two or more alphas side by side.

    Parameters
    ----------
    ws : Path
        Workspace.
    alphas : sequence of Alpha
        At least two different ones.
    config_dir : Path, optional
        Folder with an overriding `gates.yaml`.

    Returns
    -------
    dict
        alphas (key, verdicts, headline of the scorecard), pairs (correlation of profit and of
        positions of those that gate C has judged).

    """
    cards = [scorecard.build(ws, alpha, config_dir=config_dir) for alpha in alphas]
    judged = {
        alpha.key: pool_alpha(verdict)
        for alpha in alphas
        if (verdict := read_verdict(ws, alpha.key, "gate_c")) is not None
        and verdict.results.get("daily_net")
    }
    return {
        "alphas": [
            {
                "alpha": card["alpha"]["alpha_key"],
                "verdicts": {gate["gate"]: gate["verdict"] for gate in card["gates"]},
                "headline": scorecard.headline(card),
                "because": card["lifecycle"]["because"],
            }
            for card in cards
        ],
        "pairs": pair_rows(judged),
    }


def pair_rows(alphas: Mapping[str, PoolAlpha]) -> list[dict[str, Any]]:
    """Correlation of profit and positions of every pair, by key.

    Parameters
    ----------
    alphas : mapping of str to PoolAlpha
        By key.

    Returns
    -------
    list of dict
        left, right, and what `gate_d.correlation_rows` says.
    """
    rows = []
    for left, right in combinations(sorted(alphas), 2):
        (row,) = correlation_rows(alphas[left], {right: alphas[right]})
        rows.append({"left": left, "right": right} | {k: v for k, v in row.items() if k != "alpha"})
    return rows


def _risk(profits: Mapping[str, Mapping[int, int]], weights: Mapping[str, float]) -> dict[str, Any]:
    names = sorted(profits)
    shared = sorted(set.intersection(*(set(profits[name]) for name in names)))
    covariance = covariance_of([[float(profits[name][day]) for name in names] for day in shared])
    if covariance is None:
        return {}
    shares = risk_shares(covariance, [weights[name] for name in names])
    return dict(zip(names, shares, strict=True))
