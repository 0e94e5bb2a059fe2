"""Deduplication windows: an insert cut short between a table and its view, near and long ago."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder import columns, load_verify, segment_send, segments, windows
from hft_platform.recorder.loader import load_sealed
from hft_platform.recorder.segments import Part
from hft_platform.recorder.store import Store
from tests.hft_platform.recorder.conftest import market_tape, write_session

HENCE = "fromUnixTimestamp(toUInt32(trading_day % 1)) + INTERVAL 100 YEAR"
"""A rule that lets no row go while the tests run."""
TABLES = ("hft.market_trades", "hft.bars_1m_state")


def _send_trades(store: Store, folder: Path) -> Part:
    """The trades of a session's first segment, as a loader would send them."""
    (file, *_), _ = segments.find_segments([folder])
    segment = segments.read(file)
    part = next(part for part in segment.parts(0) if part.record_name == "Trade")
    block = columns.encode_records("Trade", part.rows, origin=segment.origin, seqs=part.seqs)
    store.insert_native(part.table, columns.column_names("Trade"), block, token=part.token)
    return part


def _cut_short(store: Store, folder: Path) -> Part:
    """Rows reach the table and not the view, as when the server dies in between."""
    store.command("DETACH TABLE hft.bars_1m_fill")
    try:
        return _send_trades(store, folder)
    finally:
        store.command("ATTACH TABLE hft.bars_1m_fill")


def _bars(store: Store, run_id: str) -> int:
    counted = f"SELECT sum(trade_count) FROM hft.bars_1m WHERE run_id = '{run_id}'"
    return int(store.rows(counted)[0][0])


def _trades(store: Store, run_id: str) -> int:
    counted = f"SELECT count() FROM hft.market_trades WHERE run_id = '{run_id}'"
    return int(store.rows(counted)[0][0])


def _prints(part: Part) -> int:
    return int((part.rows["flags"] % 2 == 0).sum())


@contextmanager
def _window(store: Store, size: int) -> Iterator[None]:
    setting = "non_replicated_deduplication_window"
    for table in TABLES:
        store.command(f"ALTER TABLE {table} MODIFY SETTING {setting} = {size}")
    try:
        yield
    finally:
        for table in TABLES:
            store.command(f"ALTER TABLE {table} MODIFY SETTING {setting} = 10000")


def test_a_view_that_an_insert_cut_short_left_behind_is_filled(ws: Path, store: Store) -> None:
    folder = write_session(ws, "cut-short", market=market_tape(300))
    part = _cut_short(store, folder)
    assert (_trades(store, "cut-short"), _bars(store, "cut-short")) == (part.seqs.size, 0)
    report = load_sealed(ws, store, session_dirs=[folder])
    assert report.problems == []
    assert report.parts_found == 1
    assert _trades(store, "cut-short") == part.seqs.size
    assert _bars(store, "cut-short") == _prints(part) > 0


def test_counting_the_table_alone_would_leave_the_view_behind(
    ws: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: what the rule "all rows are there, so it is done" does."""
    folder = write_session(ws, "count-only", market=market_tape(300))
    part = _cut_short(store, folder)
    monkeypatch.setattr(windows.Windows, "resolve", _by_count_only)
    load_sealed(ws, store, session_dirs=[folder])
    assert _trades(store, "count-only") == part.seqs.size
    assert _bars(store, "count-only") == 0


def _by_count_only(_: object, part: Part, stored: object, **_more: object) -> windows.Step:
    return windows.Step.SEND if stored is None else windows.Step.NOTHING


def _others(ws: Path, store: Store, name: str) -> None:
    """Enough inserts of others that the store forgets."""
    for index in range(4):
        _send_trades(store, write_session(ws, f"{name}-{index}", market=market_tape(30)))


def test_beyond_the_window_a_view_left_behind_is_refused_and_nothing_is_doubled(
    ws: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "VIEW_LOOKS", 1)
    folder = write_session(ws, "long-ago", market=market_tape(300))
    with _window(store, 3):
        part = _cut_short(store, folder)
        _others(ws, store, "long-ago-other")
        (refused,) = load_sealed(ws, store, session_dirs=[folder]).refused
    assert refused["code"] == ReasonCode.VIEW_MISMATCH
    assert _trades(store, "long-ago") == part.seqs.size


def test_beyond_the_window_a_whole_part_is_found_and_not_sent_again(ws: Path, store: Store) -> None:
    folder = write_session(ws, "whole-long-ago", market=market_tape(300))
    with _window(store, 3):
        part = _send_trades(store, folder)
        _others(ws, store, "whole-long-ago-other")
        report = load_sealed(ws, store, session_dirs=[folder])
        assert report.problems == []
        assert _trades(store, "whole-long-ago") == part.seqs.size
        assert _bars(store, "whole-long-ago") == _prints(part)
        _send_trades(store, folder)
        doubled = _trades(store, "whole-long-ago")
    assert doubled == 2 * part.seqs.size, "the store had forgotten: a blind insert doubles"


@pytest.mark.parametrize("position", [lambda now: now + 1, lambda now: now - 5001])
def test_a_position_that_went_back_or_is_far_counts_the_views(
    ws: Path, store: Store, position: Callable[[int], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of which the table holds nothing, begun at a position that proves nothing."""
    folder = write_session(ws, f"far-{position(0)}", market=market_tape(60))
    (file,), _ = segments.find_segments([folder])
    part = next(p for p in segments.read(file).parts(0) if p.record_name == "Trade")
    found = windows.Windows(store)
    looked = []
    monkeypatch.setattr(found, "_require_views", lambda part, run_id: looked.append(run_id))
    now = found.positions()["hft.market_trades"]
    assert found.resolve(part, None, run_id="far", begun_at=now) is windows.Step.SEND
    assert looked == []
    step = found.resolve(part, None, run_id="far", begun_at=position(now))
    assert step is windows.Step.SEND
    assert looked == ["far"]


def test_a_part_whose_token_outlived_its_rows_is_put_back(
    ws: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server killed between noting a token and committing its part drops the next insert."""
    monkeypatch.setattr(segment_send, "ABSENT_LOOKS", 1)
    folder = write_session(ws, "outlived", market=market_tape(300))
    (file,), _ = segments.find_segments([folder])
    segment = segments.read(file)
    part = next(p for p in segment.parts(0) if p.record_name == "Trade")
    elsewhere = dataclasses.replace(segment.origin, run_id="outlived-elsewhere")
    block = columns.encode_records("Trade", part.rows, origin=elsewhere, seqs=part.seqs)
    store.insert_native(part.table, columns.column_names("Trade"), block, token=part.token)
    report = load_sealed(ws, store, session_dirs=[folder])
    assert report.problems == []
    assert (report.segments_loaded, report.parts_restored) == (1, 1)
    assert _trades(store, "outlived") == part.seqs.size


def test_a_part_that_was_acknowledged_and_lost_is_put_back_by_a_later_load(
    ws: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store goes away between the acknowledgement and the verification."""
    monkeypatch.setattr(segment_send, "ABSENT_LOOKS", 1)
    folder = write_session(ws, "later", market=market_tape(300))
    (file,), _ = segments.find_segments([folder])
    segment = segments.read(file)
    part = next(p for p in segment.parts(0) if p.record_name == "Trade")
    elsewhere = dataclasses.replace(segment.origin, run_id="later-elsewhere")
    block = columns.encode_records("Trade", part.rows, origin=elsewhere, seqs=part.seqs)
    store.insert_native(part.table, columns.column_names("Trade"), block, token=part.token)

    def gone(*_: object, **__: object) -> None:
        raise PlatformError(ReasonCode.STORE_UNREACHABLE, "it is gone")

    with monkeypatch.context() as outage:
        outage.setattr(load_verify, "verify", gone)
        with pytest.raises(PlatformError):
            load_sealed(ws, store, session_dirs=[folder])
    assert _trades(store, "later") == 0, "its chunk is AFTER, and its rows are not there"
    report = load_sealed(ws, store, session_dirs=[folder])
    assert report.problems == []
    assert (report.segments_loaded, report.parts_restored) == (1, 1)
    assert _trades(store, "later") == part.seqs.size


def test_rows_that_expired_are_not_sent_again_when_the_ledger_is_lost(
    tmp_path: Path, store: Store
) -> None:
    """The bars keep what the prints were: sent again, they would count twice."""
    folder = write_session(tmp_path, "expired", market=market_tape(300))
    load_sealed(tmp_path, store, session_dirs=[folder])
    bars = _bars(store, "expired")
    store.command("DELETE FROM hft.market_trades WHERE run_id = 'expired'")
    store.command(f"ALTER TABLE hft.market_trades MODIFY TTL {HENCE}")
    try:
        # A file with another time of change, as from a backup, is read and verified again.
        os.utime(folder / "market" / "00000001.seg")
        touched = load_sealed(tmp_path, store, session_dirs=[folder])
        assert (touched.problems, touched.segments_loaded) == ([], 1)
        for ledger in (tmp_path / "ledger").glob("ingest-*.jsonl"):
            ledger.unlink()
        report = load_sealed(tmp_path, store, session_dirs=[folder])
        assert (report.problems, report.segments_loaded, report.rows_inserted) == ([], 1, 0)
        assert (_trades(store, "expired"), _bars(store, "expired")) == (0, bars)
    finally:
        store.command("ALTER TABLE hft.market_trades REMOVE TTL")
    for ledger in (tmp_path / "ledger").glob("ingest-*.jsonl"):
        ledger.unlink()
    # Where rows do not expire, somebody removed them: they come back, and the bars stay right.
    again = load_sealed(tmp_path, store, session_dirs=[folder])
    assert (again.problems, again.parts_restored) == ([], 1)
    assert (_trades(store, "expired"), _bars(store, "expired")) == (100, bars)


def test_a_table_that_remembers_nothing_is_not_loaded_into(ws: Path, store: Store) -> None:
    with _window(store, 0), pytest.raises(PlatformError) as refused:
        load_sealed(ws, store, session_dirs=[])
    assert refused.value.code == ReasonCode.DEDUPLICATION_OFF
