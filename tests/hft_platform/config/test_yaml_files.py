"""A file that replaces a packaged one: which file an error names, and what its order decides."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hft_platform.errors import PlatformError, ReasonCode
from research.gates.thresholds import load_thresholds
from research.promotion.canary_thresholds import load_canary_thresholds

FILES: list[tuple[str, Callable[[Path | None], Any], str]] = [
    ("gates.yaml", load_thresholds, "gate_a"),
    ("canary.yaml", load_canary_thresholds, "error_rate"),
]
files = pytest.mark.parametrize(("file", "load", "key"), FILES)


def packaged(file: str) -> str:
    """Text of a packaged file."""
    return (resources.files("hft_platform") / "defaults" / file).read_text()


def refusal(load: Callable[[Path | None], Any], folder: Path) -> str:
    """What loading says; always the code of settings."""
    with pytest.raises(PlatformError) as caught:
        load(folder)
    assert caught.value.code == ReasonCode.SETTINGS_INVALID
    return caught.value.message


@files
def test_an_error_names_the_file_that_was_read(
    file: str, load: Callable[[Path | None], Any], key: str, tmp_path: Path
) -> None:
    # It used to say `config/gates.yaml`, whatever folder was named.
    path = tmp_path / file
    path.write_text("schema: 1\n")
    assert refusal(load, tmp_path).startswith(f"{path}: field ")
    path.write_text("a: [1\n")
    assert refusal(load, tmp_path).startswith(f"{path}: line ")
    path.write_text(packaged(file) + "more: 1\n")
    assert refusal(load, tmp_path) == f"{path}: field more is not known (value 1)"


@files
def test_a_doubled_key_is_refused(
    file: str, load: Callable[[Path | None], Any], key: str, tmp_path: Path
) -> None:
    # The second one used to win without a word: the looser limit, at the end of a long file.
    (tmp_path / file).write_text(packaged(file) + f"{key}: {{}}\n")
    assert f"key {key!r} appears twice" in refusal(load, tmp_path)


@files
def test_the_order_of_the_lines_decides_nothing(
    file: str, load: Callable[[Path | None], Any], key: str, tmp_path: Path
) -> None:
    lines = packaged(file).splitlines(keepends=True)
    starts = [n for n, line in enumerate(lines) if line[0].isalpha()] + [len(lines)]
    blocks = ["".join(lines[a:b]) for a, b in pairwise(starts)]
    (tmp_path / file).write_text("".join(reversed(blocks)))
    assert repr(load(tmp_path)) == repr(load(tmp_path / "none"))
