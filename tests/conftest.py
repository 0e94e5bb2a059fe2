"""Shared: no broker session, no telemetry, and where the real recordings lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
os.environ.setdefault("SJ_LOG_PATH", os.devnull)

REPOSITORY = Path(__file__).resolve().parent.parent


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
