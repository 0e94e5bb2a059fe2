"""`make demo` on input it cannot use: says what is wrong, writes nothing half, exits 1."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_recording_that_is_no_parquet_ends_the_demo_with_its_name(
    tmp_path: Path, repository: Path
) -> None:
    data, workspace = tmp_path / "data", tmp_path / "ws"
    data.mkdir()
    (data / "TXFD6_2026-04-09_book.parquet").write_bytes(b"PAR1 cut off")
    arguments = ["--data", str(data), "--workspace", str(workspace)]
    done = subprocess.run(
        [sys.executable, "-m", "dagster_project.demo", *arguments],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "TXFD6_2026-04-09_book.parquet" in done.stdout.replace("\n", "")
    assert "report:" not in done.stdout
    assert not list((workspace / "datasets").glob("*"))
    assert not (workspace / "verdicts").exists()
