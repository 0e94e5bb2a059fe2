"""The typed stub says what the binary says: same names, same signatures, everything documented."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from hft_platform import _core


@pytest.fixture(scope="module")
def stub(repository: Path) -> ast.Module:
    """The parsed stub."""
    return ast.parse((repository / "hft_platform" / "_core.pyi").read_text())


def declared(stub: ast.Module) -> set[str]:
    """Public names that the stub declares."""
    names = set()
    for node in stub.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def test_the_stub_declares_what_the_core_exports_and_nothing_else(stub: ast.Module) -> None:
    assert declared(stub) == set(_core.__all__)


def test_every_class_of_the_stub_has_the_methods_of_the_binary(stub: ast.Module) -> None:
    for node in stub.body:
        if not isinstance(node, ast.ClassDef) or issubclass(getattr(_core, node.name), Exception):
            continue
        written = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
        exported = {name for name in vars(getattr(_core, node.name)) if not name.startswith("_")}
        assert {name for name in written if not name.startswith("_")} == exported, node.name


def test_everything_in_the_stub_is_documented(stub: ast.Module) -> None:
    missing = []
    for node in ast.walk(stub):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("__"):
            continue
        if not ast.get_docstring(node):
            missing.append(node.name)
    assert missing == []


def stubtest(module: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Hold a module's stub to its binary."""
    return subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", module, "--concise"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_stubtest_finds_no_difference_between_stub_and_binary(repository: Path) -> None:
    done = stubtest("hft_platform._core", repository)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_parameter_name_would_be_found(repository: Path, tmp_path: Path) -> None:
    package = tmp_path / "hft_platform"
    package.mkdir()
    for name in ("__init__.py", "errors.py"):
        (package / name).write_bytes((repository / "hft_platform" / name).read_bytes())
    binary = Path(str(_core.__file__))
    (package / binary.name).symlink_to(binary)
    text = (repository / "hft_platform" / "_core.pyi").read_text()
    (package / "_core.pyi").write_text(text.replace("max_records: int", "count: int"))
    done = stubtest("hft_platform._core", tmp_path)
    assert done.returncode == 1
    assert "PaperSession.run" in done.stdout
