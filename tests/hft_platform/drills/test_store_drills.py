"""Drills of the store: they pass, and each way of getting it wrong makes them fail."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from hft_platform.drills import store as store_drills
from hft_platform.drills.drill import DrillReport, run_drill
from hft_platform.drills.sample_session import write_session
from hft_platform.recorder import load_verify
from hft_platform.recorder.store import Store
from hft_platform.recorder.store_errors import Statement


@pytest.mark.parametrize("drill", store_drills.DRILLS, ids=lambda drill: drill.name)
def test_every_claim_of_the_drill_holds(drill: Any, tmp_path: Path) -> None:
    report = run_drill(drill, tmp_path / drill.name, seed=1, size=1)
    assert report.passed, report.render()


def _reply_lost(tmp_path: Path) -> DrillReport:
    return run_drill(store_drills.DRILLS[3], tmp_path / "lost", seed=1, size=1)


def _failed(report: DrillReport) -> set[str]:
    return {claim.text for claim in report.claims if not claim.holds}


def test_a_new_token_for_every_attempt_doubles_rows_and_the_drill_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = itertools.count()
    ask = Store._ask

    def fresh(self: Store, doing: str, statement: Statement, call: Any, **names: Any) -> Any:
        if statement is not Statement.INSERT:
            return ask(self, doing, statement, call, **names)
        insert = self._client.raw_insert

        def under_a_new_token(*arguments: Any, settings: dict[str, Any], **rest: Any) -> Any:
            token = f"{settings['insert_deduplication_token']}:{next(number)}"
            return insert(
                *arguments, settings=settings | {"insert_deduplication_token": token}, **rest
            )

        self._client.raw_insert = under_a_new_token
        try:
            return ask(self, doing, statement, call, **names)
        finally:
            self._client.raw_insert = insert

    monkeypatch.setattr(Store, "_ask", fresh)
    failed = _failed(_reply_lost(tmp_path))
    assert "rows in the store, of the records appended" in failed


def test_a_part_that_was_never_sent_makes_the_drill_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drill must notice a missing part, not only a doubled one.

    A loader that counts puts the part back, so this one believes what it sent.
    """
    insert = Store.insert_native
    skipped: list[str] = []

    def forgetful(self: Store, table: str, names: Any, block: bytes, *, token: str) -> None:
        if table == "hft.timers" and not skipped:
            skipped.append(token)
            return
        insert(self, table, names, block, token=token)

    monkeypatch.setattr(Store, "insert_native", forgetful)
    monkeypatch.setattr(load_verify, "verify", lambda _store, sent, **_: (sent, []))
    report = _reply_lost(tmp_path)
    assert skipped
    assert "rows in the store, of the records appended" in _failed(report)


def test_a_sample_session_is_a_function_of_its_seed(tmp_path: Path) -> None:
    def write(name: str, seed: int) -> Any:
        return write_session(tmp_path / name, "run", records_count=200, seed=seed)

    assert write("a", 1) == write("b", 1) != write("c", 2)
    assert write("d", 1).print_count > 50
