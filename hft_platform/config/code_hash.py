"""Hash of the code that decides: runtime, research, the compiled core, and what computes for them.

Why: a verdict and a signed config say which code made them; other code means stale evidence.

Invariants:
1. The same files give the same hash from a checkout and from an installed wheel.
2. Alphas are left out: each has its own hash, so editing one does not stale the others.
3. A statistic, a fill or a kernel that another version of a library would give makes other code:
   the versions of what computes are part of the hash, absent ones as absent.

It does not hash configuration (thresholds, instruments: see their own hashes), nor the asset
graph, which computes nothing: what it produces is verified again by the code that is hashed. The
core is hashed by its sources, as its build saw them.
Operator's page: `docs/formats.md`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import platform
from collections.abc import Iterator
from pathlib import Path

from hft_platform import _core

_PACKAGES = ("hft_platform", "research")
_LEFT_OUT = ("research/alphas/",)
COMPUTING = (
    "arch", "duckdb", "hftbacktest", "llvmlite", "numba", "numpy", "polars", "pyarrow", "scipy",
)  # fmt: skip
"""Libraries whose version can change a number that a verdict or a decision rests on."""


@functools.cache
def code_sha256() -> str:
    """Return the SHA-256 over all code that can change a verdict or a decision.

    Returns
    -------
    str
        Hex digest over the sorted (relative path, file hash) of every ``*.py`` in
        `hft_platform` and `research` except `research/alphas`, the core's source hash, and the
        versions of Python and of the libraries that compute.
        Computed once a process: code loaded at start is the code that runs.
    """
    digest = hashlib.sha256()
    for name, path in sorted(_source_files()):
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    digest.update(f"_core\0{_core.SOURCE_HASH}\n".encode())
    for name in COMPUTING:
        digest.update(f"{name}\0{_version(name)}\n".encode())
    digest.update(f"python\0{'.'.join(platform.python_version_tuple()[:2])}\n".encode())
    return digest.hexdigest()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _source_files() -> Iterator[tuple[str, Path]]:
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None:  # a runtime installed without research has another hash, on purpose
            continue
        for root in map(Path, spec.submodule_search_locations or ()):
            for path in root.rglob("*.py"):
                name = f"{package}/{path.relative_to(root).as_posix()}"
                if not name.startswith(_LEFT_OUT):
                    yield name, path
