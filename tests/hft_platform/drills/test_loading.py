"""Drills of loading: they hold, and the harness sees a loader that does not keep the rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from hft_platform.drills.drill import find_drill
from hft_platform.drills.loading import exactly_once, run_loaders
from hft_platform.drills.server_faults import Fault
from hft_platform.recorder.store import open_store

# A loader that sends whatever its ledger does not call done, under tokens that name nothing.
CARELESS = """
import os, time
from clickhouse_connect.driver.httpclient import HttpClient
from hft_platform.recorder import windows

raw_insert = HttpClient.raw_insert
def careless_insert(self, *arguments, settings, **keywords):
    token = f"{os.getpid()}:{time.monotonic_ns()}"
    settings = {**settings, "insert_deduplication_token": token}
    return raw_insert(self, *arguments, settings=settings, **keywords)

HttpClient.raw_insert = careless_insert
windows.Windows.resolve = lambda *arguments, **keywords: windows.Step.SEND
"""
LOST_REPLIES = (Fault("drop_reply", table="hft.market_", times=3),)


@pytest.mark.parametrize("name", ["loader-killed", "two-loaders"])
def test_every_record_is_there_once_whoever_was_killed(tmp_path: Path, name: str) -> None:
    report = find_drill(name).run(tmp_path, 1, 1)
    assert report.passed, report.render()
    assert report.facts["loader_kills"] > 0
    assert report.facts["server_kills"] > 0
    assert report.facts["hits_drop_reply"] > 0


def test_a_loader_without_tokens_and_without_counting_is_seen_to_double(tmp_path: Path) -> None:
    """Negative control: the same harness, the same kills, and the claims go red.

    Which insert loses its reply is a race of the processes, so a run may get away with it.
    """
    for attempt in range(8):
        ws, server, appended, _ = run_loaders(
            tmp_path / str(attempt), loaders=2, kills=1, server_kills=0, segments=3, seed=1,
            faults=LOST_REPLIES, prelude=CARELESS,
        )  # fmt: skip
        try:
            with open_store(ws, dsn=server.dsn) as store:
                claims = exactly_once(ws, store, appended)
        finally:
            server.stop()
        rows = claims[0]
        assert rows.text == "rows in the store are the records appended"
        if rows.found > rows.expected:
            break
    assert rows.found > rows.expected
    assert not claims[4].holds, "the replay contract sees it too"
