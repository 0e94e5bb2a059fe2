"""Notebooks run from top to bottom, and were committed as they ran."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SECONDS_MAX = 180
"""A minute on two idle cores; a machine that runs tests beside it is slower."""
OUTPUT_BYTES_MAX = 400_000
MACHINE_PATH = re.compile(r"(?<![\w.])/(home|root|work|tmp|Users|var|opt|mnt)/")


@pytest.fixture(autouse=True)
def kernel_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel imports this checkout."""
    paths = [str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))


def read(path: Path) -> Any:  # Any: nbformat has no types
    """A notebook in format 4."""
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    """Cells that run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def with_workspace(notebook: Any, workspace: Path) -> Any:
    """Set the parameter WORKSPACE, which stands in the first code cell."""
    cell = code_cells(notebook)[0]
    cell.source, count = re.subn(
        r'^WORKSPACE = ".*?"', f'WORKSPACE = "{workspace}"', cell.source, flags=re.MULTILINE
    )
    assert count == 1, "the first code cell sets WORKSPACE"
    return notebook


def execute(notebook: Any) -> None:
    """Run every cell in a fresh kernel."""
    client = NotebookClient(
        notebook,
        timeout=SECONDS_MAX,
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute()


def text_of(cell: Any) -> str:
    """Everything a reader sees of a cell's output, without pictures."""
    parts = []
    for output in cell.outputs:
        parts.append(str(output.get("text", "")))
        for kind, data in output.get("data", {}).items():
            if not kind.startswith("image/"):
                parts.append(str(data))
    return "\n".join(parts)


def test_there_is_a_notebook_that_walks_the_loop() -> None:
    assert "the_loop.ipynb" in [path.name for path in NOTEBOOKS]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_last_cell_holds(path: Path, tmp_path: Path) -> None:
    notebook = with_workspace(read(path), tmp_path / "workspace")
    started = time.perf_counter()
    execute(notebook)
    assert time.perf_counter() - started < SECONDS_MAX
    assert text_of(code_cells(notebook)[-1]).strip() == "everything above holds"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_as_it_ran(path: Path) -> None:
    cells = code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert "parameters" in cells[0].metadata.get("tags", [])
    assert "assert " in cells[-1].source
    assert "everything above holds" in text_of(cells[-1])
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert "error" not in kinds
    assert path.stat().st_size < OUTPUT_BYTES_MAX


def test_the_loop_shows_its_pictures() -> None:
    outputs = [o for cell in code_cells(read(FOLDER / "the_loop.ipynb")) for o in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_holds_a_path_of_a_machine(path: Path) -> None:
    found = [
        match.group()
        for cell in code_cells(read(path))
        for match in MACHINE_PATH.finditer(text_of(cell) + cell.source)
    ]
    assert found == []


def test_a_claim_that_does_not_hold_stops_the_notebook() -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("assert 1 == 2")])
    with pytest.raises(CellExecutionError):
        execute(notebook)
