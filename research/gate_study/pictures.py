"""Pictures of the study: who is promoted, and how power grows with the true Sharpe ratio."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from research.gate_study.tasks import Row

COLORS = ("#0969da", "#8250df", "#bc4c00", "#1a7f37", "#cf222e")


def power(result: Row) -> str:
    """Share of planted alphas that pass, over their true daily Sharpe ratio.

    Parameters
    ----------
    result : dict
        As `results.result_of` makes it.

    Returns
    -------
    str
        SVG.
    """
    curve = result["power"]["curve"]

    def draw(axes: Any) -> None:
        for color, days in zip(COLORS, sorted({p["days"] for p in curve}), strict=False):
            points = sorted((p for p in curve if p["days"] == days), key=lambda p: p["true_sharpe"])
            x = [p["true_sharpe"] for p in points]
            y = [100.0 * p["power"] for p in points]
            low = [100.0 * (p["power"] - p["power_low"]) for p in points]
            high = [100.0 * (p["power_high"] - p["power"]) for p in points]
            axes.errorbar(
                x, y, yerr=[low, high], color=color, marker="o", ms=4, lw=1.5, elinewidth=0.8,
                capsize=2, label=f"{days} days",
            )  # fmt: skip
            required = sum(p["required_sharpe"] for p in points) / len(points)
            axes.axvline(required, color=color, lw=0.8, ls=":")
        axes.axhline(80, color="#8c959f", lw=0.8, ls="--")
        axes.set_xlabel("true net Sharpe ratio of a day (dotted: required)")
        axes.set_ylabel("promoted through gate C, %")
        axes.set_ylim(-3, 103)
        if curve:
            axes.legend(frameon=False, fontsize=8, loc="lower right")

    return _figure("Planted edges: power", draw)


def promotions(result: Row) -> str:
    """Share of nulls that pass, honestly and with each mistake.

    Parameters
    ----------
    result : dict
        As `results.result_of` makes it.

    Returns
    -------
    str
        SVG.
    """
    bars = [(row["name"], row) for row in result["false_promotion"] if row["alphas"]]
    bars += [
        (f"mistake, {name}: {row['name'].replace('_', ' ')}", row[key])
        for row in result["mistakes"]
        if row["name"] != "none"
        for key, name in (("null", "no edge"), ("eaten", "costly edge"))
        if row[key]["alphas"]
    ]
    bars += [
        (f"{'best' if row['name'] == 'honest' else 'mistake, best'} of a search: {shown}", row)
        for row in result["searches"]
        if row["alphas"] and (shown := row["name"].replace("_", " "))
    ]

    def draw(axes: Any) -> None:
        for place, (name, row) in enumerate(reversed(bars)):
            rate = 100.0 * (row["rate_c"] or 0.0)
            color = COLORS[4] if name.startswith("mistake") else COLORS[0]
            axes.barh(place, rate, color=color, height=0.55)
            axes.plot([rate, 100.0 * row["rate_c_upper"]], [place, place], color=color, lw=1)
            axes.text(
                100.0 * row["rate_c_upper"] + 0.5,
                place,
                f"{row['through_c']} of {row['decided']}",
                va="center",
                fontsize=8,
            )
        axes.set_yticks(range(len(bars)), [name for name, _ in reversed(bars)])
        axes.axvline(1.0, color="#8c959f", lw=0.8, ls="--")
        axes.set_xlabel("through gate C, %; line to the 95 % upper bound")
        widest = max((100.0 * row["rate_c_upper"] for _, row in bars), default=1.0)
        axes.set_xlim(0, 1.2 * widest)

    return _figure("Alphas without an edge", draw)


def _figure(title: str, draw: Callable[[Any], None]) -> str:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    with mpl.rc_context(
        {
            "svg.hashsalt": "gate_study",
            "svg.fonttype": "none",
            "font.size": 9,
            "savefig.facecolor": "white",
        }
    ):
        figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
        draw(axes)
        axes.set_title(title, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        plt.close(figure)
    lines = buffer.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"
