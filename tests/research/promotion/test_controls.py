"""The control checklist: every place that it names is there, and so is every test."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

COLUMNS = 5
PARTLY, NOT_MET = "In part: ", "Not met: "


def rows(page: str) -> list[list[str]]:
    """Cells of the table's rows, without its two header lines."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def names(cell: str) -> list[str]:
    """What a cell names between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def missing(repository: Path, name: str) -> str:
    """Why a place or a test cannot be found, empty when it is there."""
    if "::" in name:
        path, _, function = name.partition("::")
        if not (repository / path).is_file():
            return f"no file {path}"
        tree = ast.parse((repository / path).read_text())
        found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        return "" if function in found else f"no test {function} in {path}"
    place, _, symbol = name.rpartition(":")
    if place.endswith(".rs"):
        path = repository / place
        text = path.read_text() if path.is_file() else ""
        pattern = rf'\b(fn|struct|enum|const)\s+{re.escape(symbol)}\b|"{re.escape(symbol)}"'
        return "" if re.search(pattern, text) else f"no {symbol} in {place}"
    try:
        getattr(importlib.import_module(place), symbol)
    except (ImportError, AttributeError, ValueError) as error:
        return str(error)
    return ""


def problems(repository: Path, page: str) -> list[str]:
    """Everything in a checklist that does not hold."""
    found = []
    for cells in rows(page):
        if len(cells) != COLUMNS:
            found.append(f"{cells[0]}: {len(cells)} cells")
            continue
        rule, _, ours, where, shown_by = cells
        if ours.startswith(NOT_MET):
            if names(where) or names(shown_by):
                found.append(f"{rule}: not met, and names a place")
            continue
        if not names(where) or not names(shown_by):
            found.append(f"{rule}: {ours[:40]}: names no place or no test")
        if any("::" not in name and not name.endswith(name.rpartition(".rs:")[2])
               for name in names(shown_by)):  # fmt: skip
            found.append(f"{rule}: names a test that is none")
        found += [
            f"{rule}: {text}"
            for name in names(where) + names(shown_by)
            if (text := missing(repository, name))
        ]
    return found


def test_every_place_and_every_test_exists(repository: Path) -> None:
    page = (repository / "docs" / "controls.md").read_text()
    assert len(rows(page)) >= 35
    assert problems(repository, page) == []


def test_what_is_not_met_says_so(repository: Path) -> None:
    page = (repository / "docs" / "controls.md").read_text()
    said = [cells[2] for cells in rows(page)]
    assert any(text.startswith(NOT_MET) for text in said)
    assert any(text.startswith(PARTLY) for text in said)


@pytest.mark.parametrize(
    ("where", "shown_by"),
    [
        ("`research.promotion.sign:sign_requests`", "`tests/test_docs.py::test_nothing`"),
        ("`research.promotion.nowhere:x`", "`rust_core/src/risk/tests.rs:price_collar`"),
        ("`rust_core/src/risk/checks/price.rs:no_such_check`", "`tests/test_none.py::test_x`"),
        ("-", "-"),
        ("`research.promotion.sign:sign_request`", "-"),
    ],
)
def test_a_wrong_place_or_test_is_found(repository: Path, where: str, shown_by: str) -> None:
    page = f"| a | b | c | d | e |\n|---|---|---|---|---|\n| r | x | ours | {where} | {shown_by} |"
    assert problems(repository, page)
