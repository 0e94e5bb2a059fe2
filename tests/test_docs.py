"""Docs point at things that exist: pages, links, make targets, commands, options, record fields."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hft_platform import _core
from hft_platform import cli as live_cli
from hft_platform.config.settings import load_settings
from hft_platform.drills.drill import drills
from hft_platform.market.instruments import load_instruments
from research import cli as research_cli

CODE = ("hft_platform", "research", "dagster_project", "rust_core/src", "docs", "config", "docker")
SUFFIXES = {".py", ".pyi", ".rs", ".yaml", ".yml", ".sql", ".md", ".sh"}
PAGE = re.compile(r"docs/[A-Za-z0-9_-]+\.md")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^ {4,}\S.*\n?)+", re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
COMMAND = re.compile(r"\b(hft-live|hft-research)\s+([a-z][a-z-]*)([^\n;|)`]*)")
OPTION = re.compile(r"(?<!\S)(--[a-z][a-z-]*)")
MAKE = re.compile(r"\bmake\s+([a-z][a-z-]*)\b")


def pages(repository: Path) -> list[Path]:
    """Every page that people read."""
    found = [*(repository / "docs").rglob("*.md"), *(repository / "config").rglob("*.md")]
    return sorted([*found, repository / "README.md"])


def sources(repository: Path) -> Iterator[Path]:
    """Files of code and docs in which pages are named."""
    for name in CODE:
        for folder, _, files in os.walk(repository / name):
            for file in files:
                path = Path(folder, file)
                if path.suffix in SUFFIXES:
                    yield path


def code_parts(text: str) -> list[str]:
    """Code of a page: fenced and indented blocks, then what stands in backticks elsewhere."""
    blocks = FENCED.findall(text)
    rest = FENCED.sub("", text)
    indented = INDENTED.findall(rest)
    return blocks + indented + INLINE.findall(INDENTED.sub("", rest))


def commands_of(parser: argparse.ArgumentParser) -> dict[str, set[str]]:
    """Options of every subcommand."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return {
                name: {option for part in command._actions for option in part.option_strings}
                for name, command in action.choices.items()
            }
    raise AssertionError("the parser has no subcommands")


def command_problems(text: str, known: dict[str, dict[str, set[str]]]) -> list[str]:
    """Subcommands and options in a page's code that do not exist."""
    problems = []
    for part in code_parts(text):
        for program, command, tail in COMMAND.findall(part):
            if command not in known[program]:
                problems.append(f"{program} {command}")
                continue
            options = OPTION.findall(tail.split("#")[0])
            problems += [
                f"{program} {command} {o}" for o in options if o not in known[program][command]
            ]
    return problems


@pytest.fixture(scope="module")
def known() -> dict[str, dict[str, set[str]]]:
    """What the two programs understand."""
    return {
        "hft-live": commands_of(live_cli._parser()),
        "hft-research": commands_of(research_cli._parser()),
    }


@pytest.fixture(scope="module")
def targets(repository: Path) -> set[str]:
    """Targets of the Makefile."""
    return set(re.findall(r"^([a-z][a-z-]*):", (repository / "Makefile").read_text(), re.MULTILINE))


def test_every_page_that_is_named_exists(repository: Path) -> None:
    missing = {
        f"{page} in {path.relative_to(repository)}"
        for path in sources(repository)
        for page in PAGE.findall(path.read_text(encoding="utf-8"))
        if not (repository / page).exists()
    }
    assert sorted(missing) == []


def test_every_relative_link_leads_somewhere(repository: Path) -> None:
    missing = []
    for page in pages(repository):
        for target in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
            if "://" in target or target.startswith(("#", "mailto:")):
                continue
            if not (page.parent / target.split("#")[0]).exists():
                missing.append(f"{target} in {page.name}")
    assert missing == []


def test_every_page_is_listed_in_the_index(repository: Path) -> None:
    index = (repository / "docs" / "README.md").read_text()
    names = {page.name for page in (repository / "docs").glob("*.md")} - {"README.md"}
    assert sorted(name for name in names if f"({name})" not in index) == []


def test_every_drill_is_listed_with_its_page(repository: Path) -> None:
    for page in ("drills.md", "README.md"):
        text = (repository / "docs" / page).read_text(encoding="utf-8")
        missing = [name for name in drills() if f"[{name}](drills/{name}.md)" not in text]
        assert missing == [], page


def test_every_make_target_in_the_docs_exists(repository: Path, targets: set[str]) -> None:
    unknown = [
        f"make {name} in {page.name}"
        for page in pages(repository)
        for part in code_parts(page.read_text(encoding="utf-8"))
        for name in MAKE.findall(part)
        if name not in targets
    ]
    assert unknown == []


def test_every_command_and_option_in_the_docs_exists(
    repository: Path, known: dict[str, dict[str, set[str]]]
) -> None:
    problems = [
        f"{problem} in {page.name}"
        for page in pages(repository)
        for problem in command_problems(page.read_text(encoding="utf-8"), known)
    ]
    assert problems == []


def test_a_command_or_option_that_does_not_exist_is_noticed(
    known: dict[str, dict[str, set[str]]],
) -> None:
    text = "Say `hft-live fly`.\n\n    hft-research gates ID --guess   # --not-looked-at\n"
    assert command_problems(text, known) == ["hft-research gates --guess", "hft-live fly"]


def test_what_the_operator_is_told_by_reason_codes_exists(
    known: dict[str, dict[str, set[str]]],
) -> None:
    advice = "\n".join(f"`{row[4]}`" for row in _core.reason_codes())
    assert command_problems(advice, known) == []


def test_the_formats_page_holds_every_record_with_code_size_and_fields(repository: Path) -> None:
    text = (repository / "docs" / "formats.md").read_text()
    missing = []
    for name, layout in _core.record_layouts().items():
        head = f"| `{name}` | {layout['code']} | {layout['bytes']} |"
        row = next((line for line in text.splitlines() if line.startswith(head)), "")
        own = [field for field, _, offset in layout["fields"] if offset >= 64]
        missing += [name] if not row else [f"{name}.{f}" for f in own if f"`{f}`" not in row]
    for field, _, offset in _core.record_layouts()["Book"]["fields"]:
        if offset < 64 and f"`{field}`" not in text:
            missing.append(field)
    assert missing == []


def overlay(repository: Path, folder: Path) -> Path:
    """A config folder with the examples in place."""
    for example in (repository / "config").rglob("*.example"):
        target = folder / example.relative_to(repository / "config").with_suffix("")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(example, target)
    return folder


def test_the_examples_in_config_are_valid(repository: Path, tmp_path: Path) -> None:
    folder = overlay(repository, tmp_path)
    assert load_settings(folder, environment={}).account_limits()["order_rate_max"] == 90
    assert load_instruments(folder).by_symbol("TMFD6").product_root == "TMF"


def test_the_examples_are_not_read_as_they_lie_there(repository: Path) -> None:
    done = subprocess.run(
        ["git", "ls-files", "config"], cwd=repository, capture_output=True, text=True, check=False
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    # Rules for Prometheus, which the platform itself does not read.
    active = [
        name
        for name in done.stdout.split()
        if name.endswith((".yaml", ".sql")) and not name.startswith("config/monitoring/")
    ]
    assert active == []


def test_code_is_told_from_prose() -> None:
    text = "We make sure.\n\n    make demo\n\nThen `make ui`.\n"
    assert code_parts(text) == ["    make demo\n", "make ui"]
