"""Shared: no broker session, no telemetry, and where the real recordings lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
os.environ.setdefault("SJ_LOG_PATH", os.devnull)

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _no_broker_session() -> Iterator[None]:
    """The SDK's session classes raise when they are made: they open network connections."""
    import shioaji

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a test made a broker session")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("Shioaji", "ShioajiAsync"):
            # The classes stay reachable for tests of their signatures.
            patch.setattr(shioaji, f"real_{name}", getattr(shioaji, name), raising=False)
            patch.setattr(shioaji, name, refuse)
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def recordings() -> Path:
    """Folder with real recordings; the test is skipped where there is none."""
    folder = Path(os.environ.get("HFT_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no recordings at {folder}; set HFT_DATA to run this test")
    return folder
