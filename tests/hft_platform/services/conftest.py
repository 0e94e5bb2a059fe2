"""Workspaces for the runtime's tests: the market is ingested once, every test has its own copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hft_platform.services.session_runner import SessionOutcome
from tests.hft_platform.services.live_process import LiveProcess
from tests.hft_platform.services.live_workspace import Live, make_live


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Live:
    """The ingested market; nobody runs in it."""
    return make_live(tmp_path_factory.mktemp("market"))


@pytest.fixture
def live(market: Live, tmp_path: Path) -> Live:
    """A workspace of one's own, nothing signed yet."""
    shutil.copytree(market.ws / "datasets", tmp_path / "ws" / "datasets")
    return Live(tmp_path / "ws")


@pytest.fixture(scope="session")
def finished(market: Live, tmp_path_factory: pytest.TempPathFactory) -> tuple[Live, SessionOutcome]:
    """A workspace with one finished session, to be read or copied only."""
    ws = tmp_path_factory.mktemp("finished") / "ws"
    shutil.copytree(market.ws / "datasets", ws / "datasets")
    live = Live(ws)
    return live, live.run(live.issue())


@pytest.fixture
def copied(finished: tuple[Live, SessionOutcome], tmp_path: Path) -> tuple[Live, Path]:
    """The finished workspace as one's own, with its session folder."""
    live, outcome = finished
    shutil.copytree(live.ws, tmp_path / "ws")
    return Live(tmp_path / "ws"), tmp_path / "ws" / "sessions" / outcome.session_dir.name


@pytest.fixture
def process(
    live: Live,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> LiveProcess:
    """The live command in a workspace of one's own, a minute before the open."""
    return LiveProcess(live, tmp_path, monkeypatch, capsys)
