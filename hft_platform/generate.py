"""Files made from tables in code: reason codes as an enum and as a page, features, metrics.

``python -m hft_platform.generate`` writes them, ``--check`` fails when one is out of date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from hft_platform import _core
from hft_platform.observability.metric_table import metrics_page

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = {
    1: "Market data",
    2: "Risk",
    3: "Orders and gateway",
    4: "Broker",
    5: "Config and promotion",
    6: "Storage",
    7: "Research gates",
    9: "Our own bugs",
}
HEAD = "<!-- Made by `make generate`; do not edit. -->\n\n"


def constant_name(camel: str) -> str:
    """``PriceNotPositive`` as ``PRICE_NOT_POSITIVE``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", camel).upper()


def reason_codes_module() -> str:
    """Python source of the enum."""
    lines = [
        '"""Reason codes of rust_core/src/reason.rs. Made by `make generate`; do not edit."""',
        "",
        "import enum",
        "",
        "",
        "class ReasonCode(enum.IntEnum):",
        '    """One number for everything that is refused, dropped, halted or damaged."""',
        "",
        "    UNSET = 0",
    ]
    lines += [f"    {constant_name(row[1])} = {row[0]}" for row in _core.reason_codes()]
    return "\n".join(lines) + "\n"


def reason_codes_page() -> str:
    """Markdown of every reason code, by family."""
    lines = [HEAD + "# Reason codes", "", "Every refusal, drop, halt and damage has one number."]
    family = 0
    for code, name, meaning, seen, does in _core.reason_codes():
        if code // 100 != family:
            family = code // 100
            lines += [
                "",
                f"## {FAMILIES[family]}",
                "",
                "| code | name | meaning | seen when | operator does |",
                "|---|---|---|---|---|",
            ]
        lines.append(f"| {code} | {constant_name(name)} | {meaning} | {seen} | {does} |")
    return "\n".join(lines) + "\n"


UNITS = {
    "ticks": "the instrument's tick size",
    "ratio": "no unit",
    "ms": "milliseconds",
    "1/s": "events a second",
    "ticks/lot": "ticks of move a lot bought more than sold",
}
FEATURES_INTRO = """\
What an alpha may name. Why these, what was left out and how they are tested:
[feature set](feature-set.md).

- Computed at every book and print of the instrument by one implementation; evaluating a whole tape
  runs the same code record by record, so both give the same bits.
- A decayed sum weighs an event of age `a` with `exp(-a / tau)`, a mean weighs time the same way.
  Age is the engine's time; the number of records does not matter.
- Lots are quantity / lot size, ticks are price / tick size; `mid` is the middle of the best prices.
- NaN until the warm-up has passed since the first good book behind a reset, and all NaN while the
  book is invalid. A value is finite or NaN.
"""


def features_page() -> str:
    """Markdown of the feature registry."""
    rows = _core.feature_registry()
    used = dict.fromkeys(row["unit"] for row in rows)
    lines = [HEAD + "# Features", "", FEATURES_INTRO, "| unit | is | features |", "|---|---|---|"]
    lines += [
        f"| {unit} | {UNITS[unit]} | {sum(row['unit'] == unit for row in rows)} |" for unit in used
    ]
    lines += [
        "",
        "| id | name | unit | formula | warm-up ms | reset | source |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        "| {id} | `{name}` | {unit} | {formula} | {warm_up_ms} | {reset} | {source} |".format(
            **{key: str(value).replace("|", "\\|") for key, value in row.items()},
            warm_up_ms=row["warm_up_ns"] // 1_000_000,
        )
        for row in rows
    ]
    return "\n".join(lines) + "\n"


LANGUAGE_PAGE = "docs/alpha-language.md"
WRONG_EXPRESSIONS = (
    "0.6 * zscor(imbalance_l1, 30s)",
    "2 * imbalance_11",
    "ema(microprice_dev)",
    "mean(microprice_dev, 30)",
    "lag(microprice_dev, -1s)",
    "0.5 * (imbalance_l1",
    "imbalance_l1 + spread_ticks",
    "where(spread_ticks < quote_age_ms, 1, 0)",
    "exp(spread_ticks)",
    "where(imbalance_l1, 1, 0)",
    "imbalance_l1 > 0.5",
    "0 < imbalance_l1 < 1",
    "quote_age_ms",
)
"""One for each kind of mistake, shown on the page as the compiler answers it."""


def operators_table() -> str:
    """Markdown of every sign and function of the alpha language."""
    lines = ["| written | gives | unit |", "|---|---|---|"]
    for _, _, form, meaning, unit in _core.expression_language():
        written = "`" + form.replace(", a ", "`, `a ").replace(" or min", "` or `min") + "`"
        written = written.replace(" or max", "` or `max")
        lines.append("| {} | {} | {} |".format(*(_cell(text) for text in (written, meaning, unit))))
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def errors_by_example() -> str:
    """Wrong expressions with the compiler's answers."""
    lines: list[str] = []
    for text in WRONG_EXPRESSIONS:
        try:
            _core.check_expression(text, [])
        except _core.ExpressionError as error:
            _, message, position, suggestion = error.args
            hint = f"; did you mean {suggestion}?" if suggestion else ""
            excerpt = _core.expression_excerpt(text, position).splitlines()
            lines += ["", *(f"    {line}" for line in [*excerpt, f"{message}{hint}"])]
        else:
            raise AssertionError(f"{text} compiles; it is no example of an error")
    return "\n".join(lines[1:])


def language_page() -> str:
    """The page as it is, with the parts between its marks made anew."""
    page = (ROOT / LANGUAGE_PAGE).read_text()
    for mark, content in (("operators", operators_table()), ("errors", errors_by_example())):
        head, found_start, rest = page.partition(f"<!-- {mark}: ")
        comment, _, rest = rest.partition("\n")
        _, found_end, tail = rest.partition(f"<!-- end of {mark} -->")
        if not (found_start and found_end):
            raise ValueError(f"{LANGUAGE_PAGE} has no place for {mark}")
        page = f"{head}{found_start}{comment}\n\n{content}\n\n{found_end}{tail}"
    return page


PAGES = {
    LANGUAGE_PAGE: language_page,
    "docs/reason-codes.md": reason_codes_page,
    "docs/features.md": features_page,
    "docs/metrics.md": metrics_page,
    "hft_platform/generated/reason_codes.py": reason_codes_module,
}


def main(arguments: list[str]) -> int:
    """Write the pages, or with ``--check`` name those that differ; returns the exit code."""
    stale = []
    for name, page in PAGES.items():
        path, text = ROOT / name, page()
        if "--check" in arguments:
            if not path.exists() or path.read_text() != text:
                stale.append(name)
        else:
            path.write_text(text)
    if stale:
        sys.stderr.write(f"out of date: {', '.join(stale)}; run make generate\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
