"""The study's page: tables of its results, and the files that hold them.

Invariant: every number of the section between the marks comes from the result, so that the page
cannot say what was not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.errors import PlatformError, ReasonCode
from research.gate_study import pictures
from research.gate_study.results import MARGIN
from research.gate_study.settings import GRID_POINTS
from research.gate_study.tasks import Row

PAGE = Path("docs/gates.md")
BEGIN = "<!-- gate study: made by make gate-study; do not edit -->"
END = "<!-- end of gate study -->"
RESULT = Path("docs/results/gate_study.json")
POWER = Path("docs/images/gate-study-power.svg")
PROMOTIONS = Path("docs/images/gate-study-nulls.svg")
RATE_MAX, NULLS_MIN, INSUFFICIENT_MAX, POWER_MIN = 0.01, 500, 0.10, 0.80
"""What is asked of the gates."""
_MISTAKES = {
    "none": "none",
    "costs_off": "costs off: valued from mid to mid, no fees",
    "chosen_on_judged": "the setting chosen on the sessions it is judged by",
    "trials_uncounted": "trials not counted",
    "all_three": "all three",
}
_SEARCHES = {
    "honest": "none: chosen on the sessions before, every trial counted",
    "chosen_on_judged": "chosen on the sessions it is judged by",
    "trials_uncounted": "trials not counted",
    "both": "both",
}


def write(result: Row, repository: Path) -> list[Path]:
    """Write result, pictures and section.

    Parameters
    ----------
    result : dict
        As `results.result_of` makes it.
    repository : Path
        Root of the checkout.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    PlatformError
        FILE_DAMAGED when the page has no marks.
    """
    page = repository / PAGE
    text = page.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise PlatformError(
            ReasonCode.FILE_DAMAGED,
            f"{PAGE} has no section to write into",
            next_step=f"put the lines {BEGIN} and {END} where it belongs",
        )
    head, rest = text.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    contents = {
        RESULT: canonical_json(result) + b"\n",
        POWER: pictures.power(result).encode(),
        PROMOTIONS: pictures.promotions(result).encode(),
        PAGE: f"{head}{BEGIN}\n\n{tables(result)}\n{END}{tail}".encode(),
    }
    for path, content in contents.items():
        atomic_write(repository / path, content)
    return list(contents)


def tables(result: Row) -> str:
    """Everything that was measured, as Markdown.

    Parameters
    ----------
    result : dict
        As `results.result_of` makes it.

    Returns
    -------
    str
        Markdown.
    """
    settings = result["settings"]
    parts = [
        f"{result['backtests']:,} backtests of {settings['session_seconds']} s sessions; seed "
        f"{settings['seed']}, study `{result['study_sha256'][:12]}`, latency profile "
        f"`{result['latency_profile']}`, judging code `{result['judges_sha256'][:12]}`.",
        _unfinished(result),
        "**What is asked of the gates:**",
        _table(("asked", "measured", "met"), _bars(result)),
        "**Alphas without an edge**, judged after "
        f"{max(settings['days'])} out-of-sample days (recorded: "
        f"{settings['recorded_sessions'] - settings['recorded_in_sample']}), "
        f"{result['null_trials']:,} trials counted:",
        _table(
            (
                "nulls",
                "alphas",
                "decided",
                "insufficient",
                "through C",
                "of decided",
                "95 % upper bound",
                "through D",
                "95 % upper bound",
            ),
            [_promotion_row(row["name"], row) for row in result["false_promotion"]],
        ),
        "Why nulls failed: "
        + (", ".join(f"`{c}` {n}" for c, n in result["codes"].items()) or "nothing judged yet")
        + ".",
        "**The reference system's mistakes, switched on in the harness**, on the first "
        f"{result['mistakes'][0]['null']['alphas']} generated nulls and on "
        f"{result['mistakes'][0]['eaten']['alphas']} alphas whose edge is real and below its costs "
        f"({settings['eaten_ticks']:g} ticks planted{_eaten_truth(result)}):",
        _table(
            (
                "mistake",
                "nulls through C, of decided",
                "rate",
                "95 % bounds",
                "costly edges through C, of decided",
                "rate",
                "95 % bounds",
            ),
            [_mistake_row(row) for row in result["mistakes"]],
        ),
        f"**Only the winner is shown**: {result['searches'][0]['alphas']} searches, each among "
        f"{settings['search_size']} programs in a fair game, the best one judged after "
        f"{min(settings['days'])} days (counted: {settings['search_size'] * GRID_POINTS} trials):",
        _table(
            (
                "mistake",
                "through C, of decided",
                "rate",
                "95 % bounds",
                "meet the deflated Sharpe ratio",
                "meet the t value",
            ),
            [_search_row(row) for row in result["searches"]],
        ),
        "**Each statistic alone on a fair game** (no costs, no edge, base corner):",
        _table(
            ("statistic", "nominal", "generated", "95 % interval", "recorded", "95 % interval"),
            [_statistic_row(row) for row in result["statistics"]],
        ),
        f"**Planted edges**, {result['power']['trials']} independent trials counted; truth over "
        f"{result['power']['truth_sessions']:,} sessions:",
        _table(
            (
                "planted, ticks",
                "days",
                "true Sharpe",
                "required",
                "margin, s.e.",
                "alphas",
                "through C",
                "power",
                "95 % bounds",
                "insufficient",
            ),
            [_power_row(row) for row in result["power"]["curve"]],
        ),
        _margin(result),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _unfinished(result: Row) -> str:
    """What the study has not reached; a reader must not take a part for the whole."""
    done = {row["name"]: row["alphas"] for row in result["false_promotion"]}
    done["searches"] = result["searches"][0]["alphas"]
    planned = {
        "generated, real costs": result["settings"]["null_count"],
        "recorded, permuted, real costs": result["settings"]["recorded_count"],
        "edge below its costs": result["settings"]["eaten_count"],
        "generated, fair game": result["settings"]["fair_count"],
        "searches": result["settings"]["searched_count"],
    }
    missing = [f"{name} {done[name]} of {n}" for name, n in planned.items() if done[name] < n]
    truths, wanted = result["power"]["truth_sessions"], result["settings"]["truth_sessions"]
    if truths < wanted:
        missing.append(f"truth {truths:,} of {wanted:,} sessions")
    if not missing:
        return ""
    return f"**Cut short**; the command goes on with it. Done: {', '.join(missing)}."


def _bars(result: Row) -> list[tuple[str, str, str]]:
    """The promises of the gates, each beside what was measured; nothing measured meets nothing."""
    real = [row for row in result["false_promotion"] if row["name"].endswith("real costs")]
    shares = [row["insufficient_share"] for row in real]
    power = result["power"]["at_margin"]
    found = power and power["power"]
    return [
        (
            f"false promotion through C, 95 % upper bound, at most {_percent(RATE_MAX)}",
            ", ".join(_percent(row["rate_c_upper"]) for row in real),
            _met(all(row["rate_c_upper"] <= RATE_MAX for row in real)),
        ),
        (
            f"none of {NULLS_MIN} through D",
            ", ".join(f"{row['through_d']} of {row['alphas']}" for row in real),
            _met(all(row["alphas"] >= NULLS_MIN and not row["through_d"] for row in real)),
        ),
        (
            f"insufficient evidence, at most {_percent(INSUFFICIENT_MAX)} of nulls",
            ", ".join(_percent(share) for share in shares),
            _met(all(share is not None and share <= INSUFFICIENT_MAX for share in shares)),
        ),
        (
            f"power at {MARGIN} standard errors above the required Sharpe ratio, at least "
            f"{_percent(POWER_MIN)}",
            _percent(found),
            _met(found is not None and found >= POWER_MIN),
        ),
    ]


def _met(is_met: bool) -> str:
    return "yes" if is_met else "**no**"


def _margin(result: Row) -> str:
    found = result["power"]["at_margin"]
    if found is None:
        return f"No two strengths lie around {MARGIN} standard errors at the longest horizon yet."
    return (
        f"At {MARGIN} standard errors above the required Sharpe ratio and "
        f"{max(result['settings']['days'])} days: power {_percent(found['power'])}, between "
        f"{found['below']['strength_ticks']:g} ticks ({found['below']['margin']:.2f} s.e., "
        f"{_percent(found['below']['power'])}) and {found['above']['strength_ticks']:g} ticks "
        f"({found['above']['margin']:.2f} s.e., {_percent(found['above']['power'])})."
    )


def _promotion_row(name: str, row: Row) -> tuple[str, ...]:
    share = row["insufficient_share"]
    return (
        name,
        str(row["alphas"]),
        str(row["decided"]),
        f"{row['insufficient']} ({_percent(share)})",
        str(row["through_c"]),
        _percent(row["rate_c"]),
        _percent(row["rate_c_upper"]),
        str(row["through_d"]),
        _percent(row["rate_d_upper"]),
    )


def _eaten_truth(result: Row) -> str:
    known = result["power"]["eaten_sharpe"].values()
    return f"; true daily Sharpe {min(known):.2f} to {max(known):.2f}" if known else ""


def _mistake_row(row: Row) -> tuple[str, ...]:
    cells = [_MISTAKES[row["name"]]]
    for key in ("null", "eaten"):
        found = row[key]
        cells += [
            f"{found['through_c']} of {found['decided']}",
            _percent(found["rate_c"]),
            f"{_percent(found['rate_c_lower'])} to {_percent(found['rate_c_upper'])}",
        ]
    return tuple(cells)


def _search_row(row: Row) -> tuple[str, ...]:
    return (
        _SEARCHES[row["name"]],
        f"{row['through_c']} of {row['decided']}",
        _percent(row["rate_c"]),
        f"{_percent(row['rate_c_lower'])} to {_percent(row['rate_c_upper'])}",
        str(row["met"]["deflated_sharpe"]),
        str(row["met"]["newey_west_t"]),
    )


def _statistic_row(row: Row) -> tuple[str, ...]:
    cells = [row["name"], _percent(row["nominal"]) if row["nominal"] else "none stated"]
    for key in ("fair", "recorded"):
        found = row[key]
        cells.append(f"{_percent(found['rate'])} of {found['count']}")
        cells.append(f"{_percent(found['low'])} to {_percent(found['high'])}")
    return tuple(cells)


def _power_row(row: Row) -> tuple[str, ...]:
    return (
        f"{row['strength_ticks']:g}",
        str(row["days"]),
        f"{row['true_sharpe']:.3f}",
        f"{row['required_sharpe']:.3f}",
        f"{row['margin']:+.2f}",
        str(row["alphas"]),
        str(row["passed"]),
        _percent(row["power"]),
        f"{_percent(row['power_low'])} to {_percent(row['power_high'])}",
        str(row["insufficient"]),
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100.0 * value:.2f} %"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
