"""Results of the study: rates with their bounds, from the rows, as one small JSON.

Why: page, pictures and tests must say the same numbers, and anyone must be able to recompute them.

Invariants:
1. A rate comes with the number it was counted in and an exact one-sided 95 % bound.
2. Insufficient evidence is no decision: it is counted apart, in neither numerator nor denominator.
3. Nothing is left out: verdicts that could not be computed have a column.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict

from scipy import stats as distributions

from research.gate_study.judging import MISTAKES, SEARCHES
from research.gate_study.settings import LATENCY_PROFILE, StudySettings, judges_sha256
from research.gate_study.tasks import Row
from research.gate_study.truth import Truth, required_sharpe, truth_of
from research.gates.thresholds import GateThresholds

LEVEL = 0.95
MARGIN = 1.5
"""Standard errors above the required Sharpe ratio at which power is asked for."""
PASSED, INSUFFICIENT = "passed", "insufficient_evidence"
T_FIVE_PERCENT = 1.6448536269514722
T_GATE = 3.0


def upper_bound(events: int, count: int, *, level: float = LEVEL) -> float:
    """Exact one-sided upper bound of a rate (Clopper and Pearson, Biometrika 26, 1934).

    Parameters
    ----------
    events, count : int
        What was counted, in how many.
    level : float, optional
        Confidence.

    Returns
    -------
    float
        1 when nothing was counted.
    """
    if events >= count:
        return 1.0
    return float(distributions.beta.ppf(level, events + 1, count - events))


def lower_bound(events: int, count: int, *, level: float = LEVEL) -> float:
    """Exact one-sided lower bound of a rate; 0 when nothing was counted."""
    if events == 0:
        return 0.0
    return float(distributions.beta.ppf(1.0 - level, events, count - events + 1))


def result_of(rows: Sequence[Row], *, settings: StudySettings, thresholds: GateThresholds) -> Row:
    """Sum the rows up.

    Parameters
    ----------
    rows : sequence of dict
        As `running.run` gives them; a study that was cut short has fewer.
    settings : StudySettings
        What was asked for.
    thresholds : GateThresholds
        What was judged by.

    Returns
    -------
    dict
        JSON content.
    """
    nulls = _of(rows, "null", "honest")
    return {
        "schema": 1,
        "study_sha256": settings.sha256(thresholds),
        "settings": {
            k: list(v) if isinstance(v, tuple) else v for k, v in asdict(settings).items()
        },
        "null_trials": settings.null_trials,
        "thresholds": {gate: thresholds.sha256_of(gate) for gate in ("gate_c", "gate_d")},
        "latency_profile": LATENCY_PROFILE,
        "judges_sha256": judges_sha256(),
        "runs_sha256": settings.runs_sha256(),
        "backtests": sum(row.get("runs", 0) for row in rows if row["row"] != "mistaken"),
        "false_promotion": [
            {"name": "generated, real costs"} | _promotion(nulls),
            {"name": "recorded, permuted, real costs"}
            | _promotion(_of(rows, "recorded", "honest")),
            {"name": "edge below its costs"} | _promotion(_of(rows, "eaten", "honest")),
            {"name": "generated, fair game"} | _promotion(_of(rows, "fair", "mid_to_mid")),
            {"name": "recorded, permuted, fair game"}
            | _promotion(_of(rows, "recorded", "mid_to_mid")),
        ],
        "mistakes": _mistakes(rows),
        "searches": _searches(rows),
        "codes": _codes(nulls),
        "statistics": _statistics(rows),
        "power": _power(rows, settings, thresholds),
    }


def _of(rows: Iterable[Row], row: str, view: str) -> list[Row]:
    return [r for r in rows if r["row"] == row and r["view"] == view]


def _promotion(rows: Sequence[Row]) -> Row:
    verdicts = Counter(row["verdict"] for row in rows)
    decided = verdicts[PASSED] + verdicts["failed"]
    through_d = sum(row["promoted_d"] for row in rows)
    return {
        "alphas": len(rows),
        "decided": decided,
        "insufficient": verdicts[INSUFFICIENT],
        "not_computed": verdicts["not_computed"],
        "insufficient_share": verdicts[INSUFFICIENT] / len(rows) if rows else None,
        "through_c": verdicts[PASSED],
        "rate_c": verdicts[PASSED] / decided if decided else None,
        "rate_c_upper": upper_bound(verdicts[PASSED], decided),
        "rate_c_lower": lower_bound(verdicts[PASSED], decided),
        "through_d": through_d,
        "rate_d_upper": upper_bound(through_d, len(rows)),
    }


def _mistakes(rows: Sequence[Row]) -> list[Row]:
    """Each mistake on nulls and on edges below their costs, on the alphas that have every view."""
    again = {row["task"].replace("mistaken", "null") for row in _of(rows, "mistaken", "all_three")}
    honest = [row for row in _of(rows, "null", "honest") if row["task"] in again]
    made = [_mistake("none", honest, _of(rows, "eaten", "honest"))]
    made += [
        _mistake(view, _of(rows, "mistaken", view), _of(rows, "eaten", view)) for view in MISTAKES
    ]
    return made


def _mistake(name: str, nulls: Sequence[Row], eaten: Sequence[Row]) -> Row:
    return {"name": name, "null": _promotion(nulls), "eaten": _promotion(eaten)}


def _searches(rows: Sequence[Row]) -> list[Row]:
    """Winners of searches, with what the two checks on luck alone say of them."""
    made = []
    for view in SEARCHES:
        judged = _of(rows, "searched", view)
        met = {
            name: sum(row["checks"].get(name, False) for row in judged)
            for name in ("deflated_sharpe", "newey_west_t")
        }
        made.append({"name": view, "met": met} | _promotion(judged))
    return made


def _codes(rows: Sequence[Row]) -> dict[str, int]:
    return dict(sorted(Counter(code for row in rows for code in row["codes"]).items()))


_Test = tuple[str, float | None, Callable[[Row], float | None], Callable[[float], bool]]


def _tests() -> list[_Test]:
    def base(name: str) -> Callable[[Row], float | None]:
        return lambda row: row["base"].get(name)

    def selection(name: str) -> Callable[[Row], float | None]:
        return lambda row: row["selection"].get(name)

    def placebo(name: str) -> Callable[[Row], float | None]:
        return lambda row: row["placebo_t"].get(name)

    beyond = float(distributions.norm.sf(T_GATE))
    return [
        ("Newey-West t at 1.645", 0.05, base("newey_west_t"), lambda v: v >= T_FIVE_PERCENT),
        ("Newey-West t at 3", beyond, base("newey_west_t"), lambda v: v >= T_GATE),
        ("probabilistic Sharpe ratio at 0.95", 0.05, base("psr"), lambda v: v >= LEVEL),
        ("deflated Sharpe ratio at 0.95", None, base("deflated_sharpe"), lambda v: v >= LEVEL),
        ("bootstrap lower bound above 0", 0.05, base("bootstrap_lower"), lambda v: v > 0.0),
        ("SPA p at 0.05", 0.05, selection("spa_p"), lambda v: v <= 0.05),
        ("CPCV 5 % quantile above 0", None, selection("cpcv_sharpe_quantile"), lambda v: v > 0.0),
        (
            "P(OOS loss) at 0.05",
            None,
            selection("oos_loss_probability"),
            lambda v: v <= 0.05,
        ),
        (
            "placebo, days shuffled, t at 1.645",
            0.05,
            placebo("days_shuffled"),
            lambda v: v >= T_FIVE_PERCENT,
        ),
        (
            "placebo, time shifted, t at 1.645",
            0.05,
            placebo("time_shifted"),
            lambda v: v >= T_FIVE_PERCENT,
        ),
    ]


def _statistics(rows: Sequence[Row]) -> list[Row]:
    """How often each statistic alone takes a fair game for an edge."""
    made = []
    for name, nominal, value_of, rejects in _tests():
        row: Row = {"name": name, "nominal": nominal}
        for key in ("fair", "recorded"):
            values = [value_of(r) for r in _of(rows, key, "mid_to_mid")]
            known = [v for v in values if v is not None]
            events = sum(rejects(v) for v in known)
            row[key] = {
                "count": len(known),
                "rejected": events,
                "rate": events / len(known) if known else None,
                "low": lower_bound(events, len(known), level=0.975),
                "high": upper_bound(events, len(known), level=0.975),
            }
        made.append(row)
    return made


def _power(rows: Sequence[Row], settings: StudySettings, thresholds: GateThresholds) -> Row:
    truths = _truths(rows)
    curve = []
    for strength in settings.strengths_ticks:
        for days in sorted(settings.days):
            judged = [
                r
                for r in _of(rows, "planted", "honest")
                if r["strength_ticks"] == strength and r["days"] == days
            ]
            known = [truths[key] for r in judged if (key := _held_to(r)) in truths]
            if not judged or len(known) < len(judged):
                continue
            curve.append(_point(judged, known, strength, days, settings, thresholds))
    wanted = [p for p in curve if p["days"] == settings.days_max]
    return {
        "trials": settings.power_trials,
        "truth_sessions": min((t.sessions for t in truths.values()), default=0),
        "curve": curve,
        "eaten_sharpe": {
            f"{cell}, entry {entry}": truth.sharpe
            for (strength, cell, entry), truth in sorted(truths.items())
            if strength == settings.eaten_ticks
        },
        "at_margin": _interpolated(wanted),
    }


def _point(
    judged: Sequence[Row],
    known: Sequence[Truth],
    strength: float,
    days: int,
    settings: StudySettings,
    thresholds: GateThresholds,
) -> Row:
    sharpe = math.fsum(t.sharpe for t in known) / len(known)
    error = math.fsum(t.standard_error(days) for t in known) / len(known)
    required = math.fsum(
        required_sharpe(
            thresholds.gate_c,
            days=days,
            trials=settings.power_trials,
            skewness=t.skewness,
            kurtosis=t.kurtosis,
        )
        for t in set(known)
        for _ in range(known.count(t))
    ) / len(known)
    row = _promotion(judged)
    return {
        "strength_ticks": strength,
        "days": days,
        "true_sharpe": sharpe,
        "required_sharpe": required,
        "standard_error": error,
        "margin": (sharpe - required) / error,
        "alphas": row["alphas"],
        "passed": row["through_c"],
        "passed_d": row["through_d"],
        "insufficient": row["insufficient"],
        "power": row["through_c"] / row["alphas"],
        "power_low": lower_bound(row["through_c"], row["alphas"]),
        "power_high": upper_bound(row["through_c"], row["alphas"]),
        "missed": dict(
            sorted(Counter(n for r in judged for n, ok in r["checks"].items() if not ok).items())
        ),
    }


def _truths(rows: Sequence[Row]) -> dict[tuple[float, str, str], Truth]:
    nets: dict[tuple[float, str, str], list[float]] = {}
    for row in _of(rows, "truth", "truth"):
        for cell, by_entry in row["nets"].items():
            for entry, values in by_entry.items():
                nets.setdefault((row["strength_ticks"], cell, entry), []).extend(values)
    return {key: truth_of(values) for key, values in nets.items()}


def _held_to(row: Row) -> tuple[float, str, str]:
    cell = row["worst_corner"].split("/")[0]
    return (row["strength_ticks"], cell, repr(float(row["chosen"]["entry"])))


def _interpolated(points: Sequence[Row]) -> Row | None:
    """Power at `MARGIN`, linear between the strengths around it."""
    ordered = sorted(points, key=lambda p: p["margin"])
    for below, above in itertools.pairwise(ordered):
        if below["margin"] <= MARGIN <= above["margin"]:
            share = (MARGIN - below["margin"]) / (above["margin"] - below["margin"])
            return {
                "margin": MARGIN,
                "power": below["power"] + share * (above["power"] - below["power"]),
                "below": {k: below[k] for k in ("strength_ticks", "margin", "power", "power_low")},
                "above": {k: above[k] for k in ("strength_ticks", "margin", "power", "power_low")},
            }
    return None
