"""House rules that a machine can hold: what may not stand in a tracked file."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
TEXT = {".py", ".rs", ".toml", ".yaml", ".yml", ".md", ".sql", ".txt", ".sh", ".ipynb", ""}
FORBIDDEN = {
    "registry host": re.compile(
        r"files\.python[h]osted|py[p]i\.org|npm[j]s\.org|static\.crate[s]\.io"
    ),
    "machine path": re.compile(r"(?<![\w.])/(root|home/[a-z]+|work/(main|shared))/"),
    "unfinished mark": re.compile(r"\b(TO[D]O|FIX[M]E|XX[X])\b"),
    "unsafe loader": re.compile(
        r"yaml\.loa[d]\((?!.*Loader=_?Strict)|allow_pickle=Tru[e]|\bpickl[e]\.load"
    ),
}


def tracked() -> list[Path]:
    """Tracked text files of the checkout."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    paths = [REPOSITORY / name for name in listed if name]
    return [path for path in paths if path.suffix in TEXT and path.is_file()]


@pytest.mark.parametrize("rule", FORBIDDEN)
def test_no_tracked_file_holds_a_forbidden_text(rule: str) -> None:
    hits = [
        f"{path.relative_to(REPOSITORY)}:{number}"
        for path in tracked()
        if path.name not in {"LICENSE", "Cargo.lock"}
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if FORBIDDEN[rule].search(line)
    ]
    assert hits == []


def test_the_rules_would_find_what_they_forbid() -> None:
    for sample in (
        "https://files.python" + "hosted.org/x",
        "# TO" + "DO later",
        "yaml.loa" + "d(x)",
    ):
        assert any(rule.search(sample) for rule in FORBIDDEN.values()), sample


def _calls(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            target = node.func
            names.append(
                target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
            )
    return names


def test_no_code_but_the_session_of_the_live_adapter_opens_a_broker_session() -> None:
    forbidden = {"Shioaji", "ShioajiAsync", "login", "activate_ca"}
    hits = [
        str(path.relative_to(REPOSITORY))
        for path in tracked()
        if path.suffix == ".py" and forbidden & set(_calls(path))
    ]
    # Its own test holds every mention of these names to that file.
    assert hits == ["hft_platform/order/shioaji_session.py"]


def test_no_exception_is_swallowed() -> None:
    hits = []
    for path in tracked():
        if path.suffix != ".py":
            continue
        hits += [
            f"{path.relative_to(REPOSITORY)}:{node.lineno}"
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ExceptHandler)
            and all(isinstance(step, ast.Pass) for step in node.body)
        ]
    assert hits == []


def test_no_tracked_file_is_large() -> None:
    large = [str(path) for path in tracked() if path.stat().st_size > 600_000]
    assert large == []
