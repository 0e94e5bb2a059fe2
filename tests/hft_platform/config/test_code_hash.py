"""The hash of the code that decides: what is in it, and what changes it."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

import hft_platform
import research
from hft_platform import _core
from hft_platform.config import code_hash


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Hash anew at every call."""
    monkeypatch.setattr(code_hash, "code_sha256", code_hash.code_sha256.__wrapped__)
    return monkeypatch


def test_every_source_file_of_runtime_and_research_is_part_of_it() -> None:
    hashed = {path.resolve() for _, path in code_hash._source_files()}
    for package in (hft_platform, research):
        root = Path(str(package.__file__)).parent
        wanted = {
            path.resolve()
            for path in root.rglob("*.py")
            if "alphas" not in path.relative_to(root).parts
        }
        assert wanted <= hashed, sorted(map(str, wanted - hashed))


@pytest.mark.parametrize("kind", ["source", "core", "library", "absent", "python"])
def test_what_decides_is_part_of_the_hash(kind: str, fresh: pytest.MonkeyPatch) -> None:
    before = code_hash.code_sha256()
    assert code_hash.code_sha256() == before
    if kind == "source":
        real = Path.read_bytes

        def read(path: Path) -> bytes:
            return real(path) + (b"#" if path.name == "gate_c.py" else b"")

        fresh.setattr(Path, "read_bytes", read)
    elif kind == "core":
        fresh.setattr(_core, "SOURCE_HASH", "0" * 64)
    elif kind in ("library", "absent"):
        known = importlib.metadata.version

        def version(name: str) -> str:
            if name != "numpy":
                return known(name)
            if kind == "absent":
                raise importlib.metadata.PackageNotFoundError(name)
            return "0.0.1"

        fresh.setattr(importlib.metadata, "version", version)
    else:
        fresh.setattr(code_hash.platform, "python_version_tuple", lambda: ("3", "99", "0"))
    assert code_hash.code_sha256() != before


def test_an_alpha_is_not_part_of_it(fresh: pytest.MonkeyPatch) -> None:
    names = {name for name, _ in code_hash._source_files()}
    assert not [name for name in names if name.startswith("research/alphas/")]
