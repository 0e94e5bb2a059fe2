"""`make bench`: the figures, with their spread and the machine, into build/bench.json.

Each figure says what it protects. Nothing here asserts an absolute time; docs/performance.md is
made from the JSON. Input is a real TXF day when recordings are there (HFT_DATA or ../shared/data),
otherwise the market generator; the file says which.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent.parent
RUNS = 5


def main(argv: list[str] | None = None) -> int:
    """Measure and write; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build" / "bench.json")
    parser.add_argument("--write", type=Path, help="also write this Markdown page")
    parser.add_argument("--only", help="measure only figures whose name starts with this")
    parser.add_argument("--render", type=Path, help="measure nothing: make the page of this JSON")
    arguments = parser.parse_args(argv)
    if arguments.render:
        content = json.loads(arguments.render.read_text())
    else:
        content = measure(arguments.only)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
        sys.stdout.write(f"wrote {arguments.out}\n")
    if arguments.write:
        arguments.write.write_text(page(content))
        sys.stdout.write(f"wrote {arguments.write}\n")
    return 0


def measure(only: str | None) -> dict[str, Any]:
    """All figures whose name starts with `only`."""
    from tests.bench import figures

    result: dict[str, Any] = {}
    for name, function in figures.FIGURES.items():
        if only and not name.startswith(only):
            continue
        sys.stdout.write(f"  {name} ... ")
        sys.stdout.flush()
        started = time.perf_counter()
        result |= function()
        sys.stdout.write(f"{time.perf_counter() - started:.1f} s\n")
    return {
        "commit": commit(),
        "machine": machine(),
        "input": figures.input_name(),
        "figures": result,
    }


def spread(values: list[float], unit: str, protects: str) -> dict[str, Any]:
    """A figure: median with minimum and maximum over the runs."""
    return {
        "value": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "runs": len(values),
        "unit": unit,
        "protects": protects,
    }


def repeat(function: Callable[[], float], runs: int = RUNS) -> list[float]:
    """Values of `runs` calls after one warm-up."""
    function()
    return [function() for _ in range(runs)]


def commit() -> str:
    """The checkout's commit, with a mark when it has changes."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False
        ).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + (
        "+changes" if git("status", "--porcelain") else ""
    )


def machine() -> dict[str, Any]:
    """What it ran on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def page(content: dict[str, Any]) -> str:
    """docs/performance.md from a bench file."""
    head = content["machine"]
    lines = [
        "<!-- Made by `make bench`; do not edit. -->",
        "",
        "# Performance",
        "",
        f"Commit {content['commit']}, {head['cpu']}, {head['cores']} cores,"
        f" Python {head['python']};"
        f" input: {content['input']}. Medians over the runs; on a shared machine compare ratios"
        " within one run rather than absolute times across runs.",
        "",
        "| figure | median | min | max | unit | runs | protects |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in sorted(content["figures"].items()):
        values = (f"{row[key]:,.4g}" for key in ("value", "min", "max"))
        lines.append(
            f"| `{name}` | {' | '.join(values)} | {row['unit']} | {row['runs']} |"
            f" {row['protects']} |"
        )
    return "\n".join(lines) + "\n"


def temporary_folder() -> Path:
    """A folder under build/, on the disk the platform would use."""
    base = REPOSITORY / "build"
    base.mkdir(exist_ok=True)
    return Path(tempfile.mkdtemp(dir=base, prefix="bench-"))


def remove(folder: Path) -> None:
    """Remove a temporary folder."""
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
