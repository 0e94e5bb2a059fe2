"""ReplayContract: each rule refuses, and the check of a whole store names what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hft_platform import records
from hft_platform.drills.loading import write_runs
from hft_platform.errors import ReasonCode
from hft_platform.recorder import replay_contract
from hft_platform.recorder.loader import load_sealed
from hft_platform.recorder.replay_contract import ContractReport, check_store
from hft_platform.recorder.store import Store
from tests.hft_platform.recorder.conftest import DAY, market_tape, write_session

RUN = "drill-3-1"


@pytest.fixture(scope="module")
def loaded(ws: Path, store: Store) -> Store:
    """A store with one run of several segments, of which the contract holds."""
    appended = write_runs(ws, runs=1, segments=4, records_each=500, seed=3)
    report = load_sealed(ws, store)
    assert report.problems == []
    assert report.segments_loaded == appended.segments == 5
    return store


def _codes(report: ContractReport) -> set[int]:
    return {violation.code for violation in report.violations}


def test_the_contract_holds_of_what_was_loaded(ws: Path, loaded: Store) -> None:
    report = check_store(ws, loaded)
    assert report.violations == ()
    assert report.holds
    assert (report.segments, report.rows) == (5, 2500)


def test_what_another_loader_completes_meanwhile_is_no_violation(
    tmp_path: Path, store: Store, store_kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_session(tmp_path, "meanwhile", market=market_tape(60))
    rows_of_segments = replay_contract._rows_of_segments

    def load_first(store: Store) -> object:
        load_sealed(tmp_path, store)
        return rows_of_segments(store)

    monkeypatch.setattr(replay_contract, "_rows_of_segments", load_first)
    found = check_store(tmp_path, store).violations
    # Beside an embedded store there is nobody: it is looked at once, and would be wrong.
    assert bool(found) is (store_kind == "embedded")


def _double(store: Store) -> None:
    store.command(
        f"INSERT INTO hft.timers SELECT * FROM hft.timers WHERE run_id = '{RUN}' LIMIT 1"
        " SETTINGS insert_deduplicate = 0, insert_deduplication_token = 'doubled'"
    )


def _lose(store: Store) -> None:
    store.command(f"DELETE FROM hft.timers WHERE run_id = '{RUN}' AND segment_id = 2")


def _lose_view(store: Store) -> None:
    store.command(f"DELETE FROM hft.bars_1m_state WHERE run_id = '{RUN}'")


def _forget_segment(store: Store) -> None:
    store.command(
        f"DELETE FROM hft.ingest_segments WHERE run_id = '{RUN}' AND log_kind = 'market'"
        " AND segment_id = 2"
    )


def _other_hash(store: Store) -> None:
    place = f"run_id = '{RUN}' AND log_kind = 'market' AND segment_id ="
    store.command(f"DELETE FROM hft.ingest_segments WHERE {place} 4")
    store.command(
        "INSERT INTO hft.ingest_segments (run_id, log_kind, segment_id, wal_id, segment_sha256,"
        " record_count, first_seq, last_seq) SELECT run_id, log_kind, 4, wal_id, 'other',"
        f" record_count, last_seq + 1, last_seq + record_count FROM hft.ingest_segments"
        f" WHERE {place} 3"
    )


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (_double, ReasonCode.RECORD_DOUBLED),
        (_double, ReasonCode.LOG_SEQUENCE_GAP),
        (_lose, ReasonCode.LOAD_COUNT_MISMATCH),
        (_lose_view, ReasonCode.VIEW_MISMATCH),
        (_forget_segment, ReasonCode.SEGMENT_MISSING),
        (_other_hash, ReasonCode.SEGMENT_CHANGED),
    ],
)
def test_each_breach_is_named(
    ws: Path, loaded: Store, damage: Callable[[Store], None], code: int
) -> None:
    """Each breaks the module's store a little more; its own code must be among the findings."""
    damage(loaded)
    assert code in _codes(check_store(ws, loaded))


def test_a_segment_whose_predecessor_is_nowhere_is_refused(tmp_path: Path, store: Store) -> None:
    folder = write_session(tmp_path, "gap", market=market_tape(9000), segment_bytes=1 << 20)
    second = folder / "market" / "00000002.seg"
    raw = second.read_bytes()
    second.unlink()
    report = load_sealed(tmp_path, store, session_dirs=[folder])
    assert report.segments_loaded == 1
    assert {row["code"] for row in report.refused} == {ReasonCode.SEGMENT_MISSING}
    second.write_bytes(raw)
    healed = load_sealed(tmp_path, store, session_dirs=[folder])
    assert healed.problems == []


def test_an_input_sequence_that_falls_is_refused(tmp_path: Path, store: Store) -> None:
    trades = records.empty("Trade", 5)
    trades["input_seq"] = [1, 2, 3, 3, 5]
    trades["trading_day"] = DAY
    folder = write_session(tmp_path, "falls", market=trades.tobytes())
    report = load_sealed(tmp_path, store, session_dirs=[folder])
    (refused,) = report.refused
    assert refused["code"] == ReasonCode.LOG_ORDER_BROKEN
    assert report.rows_inserted == 0


def test_a_segment_of_another_log_in_the_folder_is_refused(tmp_path: Path, store: Store) -> None:
    """Its own number and hash are right; only the manifest tells, or else the order."""
    ours = write_session(tmp_path, "ours", market=market_tape(9000, seed=1), segment_bytes=1 << 20)
    other = write_session(
        tmp_path, "longer", market=market_tape(20_000, seed=2), segment_bytes=2 << 20
    )
    second = ours / "market" / "00000002.seg"
    second.unlink()
    (other / "market" / "00000002.seg").rename(second)
    report = load_sealed(tmp_path, store, session_dirs=[ours])
    assert ReasonCode.MANIFEST_MISMATCH in {row["code"] for row in report.refused}
    assert ReasonCode.MANIFEST_MISMATCH not in {
        violation.code for violation in check_store(tmp_path, store).violations
    }, "it was not loaded"
    (ours / "market" / "manifest.log").unlink()
    report = load_sealed(tmp_path, store, session_dirs=[ours])
    assert ReasonCode.LOG_ORDER_BROKEN in {row["code"] for row in report.refused}
