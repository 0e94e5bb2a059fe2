"""Parts of a self-contained HTML page: style, text, tags, tables and inline drawings.

Everything that comes from outside passes through `text`; nothing on a page is loaded from
elsewhere. The run report and the scorecard are made of these parts; what they say is theirs.
"""

from __future__ import annotations

import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

COLORS = {
    "passed": "#1a7f37",
    "failed": "#cf222e",
    "insufficient_evidence": "#9a6700",
    "not_computed": "#8250df",
    "not_run": "#6e7781",
}
TAGGED = ("verdict", "stage", "state")
"""Columns whose values are shown as coloured words."""
STAGE_COLORS = {"research": "#6e7781", "shadow": "#0969da", "canary": "#bc4c00", "live": "#1a7f37"}


def document(title: str, body: Sequence[str]) -> str:
    """One HTML text without any outside reference."""
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        f"<meta name='viewport' content='width=device-width'><title>{text(title)}</title>"
        f"<style>{style()}</style></head><body><main>{''.join(body)}</main></body></html>"
    )


def style() -> str:
    """The style sheet of all pages."""
    return (resources.files("research") / "report.css").read_text()


def text(value: object) -> str:
    """A value as HTML text, escaped."""
    return html.escape(str(value))


def tag(verdict: str) -> str:
    """A verdict or stage as a coloured word."""
    color = COLORS.get(verdict, STAGE_COLORS.get(verdict, "#6e7781"))
    return f"<span class='tag' style='background:{color}'>{text(verdict.replace('_', ' '))}</span>"


def cards(content: Mapping[str, object]) -> str:
    """Key facts as a row of boxes."""
    inner = "".join(
        f"<div class='card'>{text(k)}<b>{text(v)}</b></div>" for k, v in content.items()
    )
    return f"<div class='cards'>{inner}</div>"


def rows_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of rows that have the same names, numbers to the right; nothing without rows."""
    if not rows:
        return ""
    names = list(rows[0])
    head = "".join(f"<th>{text(name.replace('_', ' '))}</th>" for name in names)
    lines = [
        "<tr>" + "".join(_cell(name, row.get(name)) for name in names) + "</tr>" for row in rows
    ]
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _cell(name: str, value: object) -> str:
    if name in TAGGED:
        return f"<td>{tag(str(value))}</td>"
    kind = " class='n'" if isinstance(value, int | float) or value is None else ""
    return f"<td{kind}>{number(value)}</td>"


def plot(title: str, values: npt.NDArray[np.float64], stages: list[str]) -> str:
    """A line of values by session, coloured by the stage of each; one value more than stages."""

    def draw(axes: Any) -> None:
        for index, stage in enumerate(stages):
            axes.plot(
                [index, index + 1],
                values[index : index + 2],
                lw=2,
                marker="o",
                ms=2.5,
                color=STAGE_COLORS.get(stage, "#6e7781"),
            )
        for stage in dict.fromkeys(stages):
            axes.plot([], [], color=STAGE_COLORS.get(stage, "#6e7781"), lw=2, label=stage)
        axes.set_xlabel("session")
        axes.legend(frameon=False, fontsize=8)

    return figure(title, draw)


def figure(title: str, draw: Callable[[Any], None]) -> str:
    """An inline SVG; `draw` gets the axes."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    with mpl.rc_context({"svg.hashsalt": "report", "svg.fonttype": "none", "font.size": 9}):
        drawing, axes = plt.subplots(figsize=(5.1, 2.6), layout="constrained")
        draw(axes)
        axes.axhline(0, color="#d0d7de", lw=1, zorder=0)
        axes.set_title(title, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        buffer = io.StringIO()
        drawing.savefig(buffer, format="svg", metadata={"Date": None})
        plt.close(drawing)
    drawn = buffer.getvalue()
    return drawn[drawn.index("<svg") :]


def pairs_table(left: str, right: str, pairs: dict[str, Any]) -> str:
    """A table of names and values."""
    rows = "".join(
        f"<tr><td>{text(k)}</td><td class='n'>{number(v)}</td></tr>" for k, v in pairs.items()
    )
    return f"<table><tr><th>{left}</th><th>{right}</th></tr>{rows}</table>"


def row_table(content: dict[str, Any]) -> str:
    """A table of one row; names are its head."""
    head = "".join(f"<th>{text(name.replace('_', ' '))}</th>" for name in content)
    cells = "".join(f"<td class='n'>{number(value)}</td>" for value in content.values())
    return f"<table><tr>{head}</tr><tr>{cells}</tr></table>"


def number(value: object) -> str:
    """A value as a cell shows it; a dash for what does not exist."""
    return text(plain_number(value))


def plain_number(value: object) -> str:
    """The same before it is escaped."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
