"""Canary lives: how often a healthy canary is rolled back, and how soon a sick one.

Why: an error rate that is only stated is a hope; here the rule that runs is run a thousand times on
sessions that the paper runtime traded.

Invariants:
1. The rule is `canary.decide` with the thresholds it is given; a life knows nothing else.
2. Everything is drawn from the seed.

It trades nothing (see `sessions`). Operator's page: `docs/canary.md`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from research.canary_study.sessions import SEED, SPOILED, PooledSession
from research.gates.promise import promised_metrics
from research.promotion.canary import (
    Action,
    CanaryThresholds,
    Promise,
    PromisedMetric,
    SessionFacts,
    decide,
    first_weight,
)

LIVES, SESSIONS, PROMISED_SESSIONS, ONSET_MAX = 1_000, 40, 30, 10
GATE_C_T = 3.0
"""A promise is drawn until its t statistic passes, as gate C's does: winners are lucky."""
CASES = (
    "healthy", "healthy_weak_edge", "healthy_at_the_bands", "slippage_2_ticks", "reject_storm",
    "edge_decay", "missing_metric", "parity_break", "unknown_storm", "fill_ratio_collapse",
)  # fmt: skip
HEALTHY = ("healthy", "healthy_weak_edge", "healthy_at_the_bands")


@dataclass(frozen=True, slots=True)
class Life:
    """How one canary fared: sessions until it was rolled back (None: never), why, weight reached.

    `onset` is the session that the trouble began at; in a healthy life, none.
    """

    ended_after: int | None
    onset: int | None
    reasons: tuple[str, ...]
    weight_ppm: int


def promise_from(sessions: Sequence[PooledSession]) -> Promise:
    """The promise that gate C would have made of these sessions."""
    nets = np.array([s.facts.net for s in sessions], dtype=np.float64)
    rows = promised_metrics([s.execution for s in sessions])
    return Promise(
        mean_net=float(nets.mean()),
        std_net=float(nets.std(ddof=1)),
        session_count=len(sessions),
        weight_ppm=sessions[0].facts.weight_ppm,
        execution={name: PromisedMetric(**row) for name, row in rows.items() if row is not None},
    )


def live(
    rng: np.random.Generator,
    case: str,
    pooled: Mapping[str, Sequence[PooledSession]],
    limits: CanaryThresholds,
) -> Life:
    """Live one life of a case, judged after every session.

    Parameters
    ----------
    rng : Generator
        Source of every draw.
    case : str
        One of `CASES`.
    pooled : mapping of str to sequence of PooledSession
        As `pools` gives them.
    limits : CanaryThresholds
        The rule's.

    Returns
    -------
    Life
    """
    base = pooled["healthy_weak_edge" if case == "healthy_weak_edge" else "healthy"]
    promise = _promise(rng, base)
    onset = None if case in HEALTHY else int(rng.integers(0, ONSET_MAX))
    history: list[SessionFacts] = []
    weight = first_weight(limits, promise.weight_ppm)
    for index in range(SESSIONS):
        is_sick = onset is not None and index >= onset
        source = pooled.get(case, base) if is_sick else base
        session = source[int(rng.integers(len(source)))]
        if case in SPOILED and (is_sick or case in HEALTHY):
            session = SPOILED[case](session, limits, rng)
        net = round((session.facts.net or 0) * weight / promise.weight_ppm)
        history.append(
            replace(session.facts, session_id=f"{index:03d}", weight_ppm=weight, net=net)
        )
        decision = decide(history, limits, promise, weight_ppm=weight)
        if decision.action is Action.ROLL_BACK:
            return Life(index + 1, onset, _names(decision), weight)
        weight = decision.weight_ppm
    return Life(None, onset, (), weight)


def _promise(rng: np.random.Generator, base: Sequence[PooledSession]) -> Promise:
    while True:
        picked = rng.integers(len(base), size=PROMISED_SESSIONS)
        promise = promise_from([base[int(i)] for i in picked])
        t = promise.mean_net / promise.std_net * math.sqrt(PROMISED_SESSIONS)
        if t >= GATE_C_T:
            return promise


def _names(decision: Any) -> tuple[str, ...]:
    texts = {
        "the promised edge": "edge", "promised slippage": "slippage", "markout": "markout",
        "fill ratio": "fill_ratio", "reject rate": "reject_rate", "unknown rate": "unknown_rate",
    }  # fmt: skip
    names = set()
    for reason in decision.reasons:
        found = [name for text, name in texts.items() if text in reason.text]
        names.add(found[0] if found else str(reason.as_dict()["name"]).lower())
    return tuple(sorted(names))


def study(
    pooled: Mapping[str, Sequence[PooledSession]],
    limits: CanaryThresholds,
    *,
    lives: int = LIVES,
    seed: int = SEED,
) -> dict[str, Any]:
    """Live many lives of every case.

    Parameters
    ----------
    pooled : mapping of str to sequence of PooledSession
        As `pools` gives them.
    limits : CanaryThresholds
        The rule's.
    lives : int, optional
        Of each case.
    seed : int, optional
        Of every draw.

    Returns
    -------
    dict
        By case: share rolled back with a one-sided 95 % bound, sessions to detection, reasons.
    """
    return {
        case: _row(
            [
                live(np.random.default_rng([seed, number, i]), case, pooled, limits)
                for i in range(lives)
            ],
            limits,
        )
        for number, case in enumerate(CASES)
    }


def _row(lived: Sequence[Life], limits: CanaryThresholds) -> dict[str, Any]:
    count = len(lived)
    # A sick life that was rolled back before its trouble began was a false alarm.
    early = [one for one in lived if one.ended_after and one.onset and one.ended_after <= one.onset]
    ended = [one for one in lived if one.ended_after and one not in early]
    waits = [(one.ended_after or 0) - (one.onset or 0) for one in ended]
    reasons = Counter(name for one in ended for name in one.reasons)
    grown = sum(one.weight_ppm == limits.weight_stages_ppm[-1] for one in lived)
    return {
        "lives": count,
        "rolled_back": len(ended),
        "rolled_back_share": len(ended) / count,
        "upper_95": upper_bound(len(ended), count),
        "rolled_back_before_onset": len(early),
        "sessions_p50": _quantile(waits, 0.5),
        "sessions_p95": _quantile(waits, 0.95),
        "full_weight_share": grown / count,
        "reasons": dict(sorted(reasons.items())),
        "detected_after": [waits.count(n) for n in range(1, SESSIONS + 1)],
    }


def _quantile(waits: Sequence[int], share: float) -> int | None:
    return int(np.quantile(waits, share, method="higher")) if waits else None


def peeking_share(
    sessions: Sequence[PooledSession], *, lives: int = LIVES, seed: int = SEED, rate: float = 0.05
) -> float:
    """Share of healthy lives that a fixed-sample test looked at after each session rolls back.

    Negative control of the study: one one-sided z-test at `rate` of slippage alone, against the
    promise of the life.
    """
    from scipy.stats import norm

    known = [s for s in sessions if s.facts.slippage_ticks is not None]
    values = np.array([s.facts.slippage_ticks for s in known], dtype=np.float64)
    counts = np.arange(1, SESSIONS + 1)
    limit = float(norm.ppf(1 - rate))
    rolled_back = 0
    for index in range(lives):
        rng = np.random.default_rng([seed, len(CASES), index])
        promised = values[rng.integers(len(values), size=PROMISED_SESSIONS)]
        lived = values[rng.integers(len(values), size=SESSIONS)]
        scores = np.cumsum(lived - promised.mean()) / np.sqrt(counts) / promised.std(ddof=1)
        rolled_back += bool((scores > limit).any())
    return rolled_back / lives


def upper_bound(bad: int, count: int, *, confidence: float = 0.95) -> float:
    """One-sided Clopper-Pearson upper bound of a share."""
    from scipy.stats import beta

    return 1.0 if bad >= count else float(beta.ppf(confidence, bad + 1, count - bad))
