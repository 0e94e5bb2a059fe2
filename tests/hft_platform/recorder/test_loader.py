"""Loader: whole sessions, twice, with damage, with a lost ledger."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.errors import ReasonCode
from hft_platform.recorder import columns, segments
from hft_platform.recorder.loader import dead_letter_folder, ledger_folder, load_sealed
from hft_platform.recorder.session_records import session_books, session_fills, session_tape
from hft_platform.recorder.store import Store, rows_by_table
from tests.hft_platform.recorder.conftest import (
    DAY,
    market_tape,
    order_tape,
    write_session,
)


def _rows_of(store: Store, run_id: str) -> int:
    return sum(
        int(store.rows(f"SELECT count() FROM {table} WHERE run_id = '{run_id}'")[0][0])
        for table in columns.TABLES.values()
    )


def _only(report: object) -> dict[str, object]:
    (entry,) = report.refused  # type: ignore[attr-defined]
    return entry


def test_a_session_comes_back_from_the_store_byte_for_byte(ws: Path, store: Store) -> None:
    market, orders = market_tape(9000, days=(DAY, DAY + 1)), order_tape(400)
    folder = write_session(ws, "whole", market=market, orders=orders, segment_bytes=1 << 20)
    report = load_sealed(ws, store, session_dirs=[folder])
    assert report.problems == []
    assert report.segments_loaded > 2
    assert report.rows_inserted == sum(
        part.size for tape in (market, orders) for part in records.split(tape).values()
    )
    assert session_tape(store, "whole", "market") == market
    assert session_tape(store, "whole", "orders") == orders


def test_a_second_load_adds_nothing_and_reads_no_segment(ws: Path, store: Store) -> None:
    folder = write_session(ws, "twice", market=market_tape(600), orders=order_tape(50))
    first = load_sealed(ws, store, session_dirs=[folder])
    before = rows_by_table(store)

    def unread(path: str) -> dict[str, object]:
        raise AssertionError(path)

    second = load_sealed(ws, store, session_dirs=[folder], read_segment=unread)
    assert (first.segments_loaded, first.segments_known) == (2, 0)
    assert (second.segments_loaded, second.segments_known) == (0, 2)
    assert second.rows_inserted == 0
    assert rows_by_table(store) == before


def test_a_touched_but_equal_segment_is_read_again_and_adds_nothing(ws: Path, store: Store) -> None:
    folder = write_session(ws, "touched", market=market_tape(300))
    load_sealed(ws, store, session_dirs=[folder])
    before = rows_by_table(store)
    (segment,) = folder.glob("market/*.seg")
    raw = segment.read_bytes()
    segment.unlink()
    segment.write_bytes(raw)
    report = load_sealed(ws, store, session_dirs=[folder])
    assert report.problems == []
    assert report.rows_inserted == 0
    assert rows_by_table(store) == before


def test_a_lost_ledger_is_made_again_by_counting_and_adds_nothing(ws: Path, store: Store) -> None:
    folder = write_session(ws, "lost-ledger", market=market_tape(5000), segment_bytes=1 << 20)
    first = load_sealed(ws, store, session_dirs=[folder])
    before = rows_by_table(store)
    for ledger in ledger_folder(ws).glob("ingest-*.jsonl"):
        ledger.unlink()
    again = load_sealed(ws, store, session_dirs=[folder])
    assert again.problems == []
    assert (again.parts_inserted, again.parts_found) == (0, first.parts_inserted)
    assert rows_by_table(store) == before


def test_the_same_part_sent_twice_reaches_table_and_view_once(ws: Path, store: Store) -> None:
    folder = write_session(ws, "token", market=market_tape(900))
    (file,), _ = segments.find_segments([folder])
    segment = segments.read(file)
    part = next(part for part in segment.parts(0) if part.record_name == "Trade")
    block = columns.encode_records("Trade", part.rows, origin=segment.origin, seqs=part.seqs)
    names = columns.column_names("Trade")
    counted = "SELECT sum(trade_count) FROM hft.bars_1m WHERE run_id = 'token'"
    for _ in range(2):
        store.insert_native(part.table, names, block, token=part.token)
        assert _rows_of(store, "token") == part.seqs.size
        shown = int(store.rows(counted)[0][0])
        assert shown == int((part.rows["flags"] % 2 == 0).sum())
    # Negative control: without the token's protection the same rows arrive twice.
    store.insert_native(part.table, names, block, token=part.token + "-other")
    assert _rows_of(store, "token") == 2 * part.seqs.size


def test_equal_logs_of_two_runs_are_both_there(ws: Path, store: Store) -> None:
    """Went wrong once: the token did not name the run, so the second run's rows vanished."""
    tape = order_tape(20)
    folders = [write_session(ws, name, orders=tape) for name in ("equal-a", "equal-b")]
    assert load_sealed(ws, store, session_dirs=folders).problems == []
    assert _rows_of(store, "equal-a") == _rows_of(store, "equal-b") > 20


def test_a_one_minute_bar_is_what_its_prints_say(ws: Path, store: Store) -> None:
    market = market_tape(3000, seed=5)
    load_sealed(ws, store, session_dirs=[write_session(ws, "bars", market=market)])
    trades = records.split(market)["Trade"]
    trades = trades[trades["flags"] % 2 == 0]
    minute = int(trades["exchange_time_ns"][0]) // 60_000_000_000 * 60_000_000_000
    prices = trades["price"][
        trades["exchange_time_ns"] // 60_000_000_000 * 60_000_000_000 == minute
    ]
    shown = store.rows(
        "SELECT reinterpretAsInt64(open), reinterpretAsInt64(high), reinterpretAsInt64(low),"
        " reinterpretAsInt64(close), trade_count FROM hft.bars_1m"
        f" WHERE run_id = 'bars' AND minute_ns = {minute}"
    )
    assert shown == [
        (int(prices[0]), int(prices.max()), int(prices.min()), int(prices[-1]), prices.size)
    ]


def test_fills_and_books_come_as_frames(ws: Path, store: Store) -> None:
    orders = order_tape(40)
    folder = write_session(ws, "frames", market=market_tape(30), orders=orders)
    load_sealed(ws, store, session_dirs=[folder])
    broker = records.split(orders)["Broker"]
    fills = session_fills(store, "frames")
    assert fills["order_id"].to_list() == broker["order_id"][broker["event_kind"] == 3].tolist()
    books = session_books(store, "frames")
    assert books.num_rows == 30
    assert str(books.schema.field("bid_price_1").type) == "decimal128(18, 8)"


def _flip(raw: bytes) -> bytes:
    return raw[: len(raw) // 2] + bytes([raw[len(raw) // 2] ^ 1]) + raw[len(raw) // 2 + 1 :]


@pytest.mark.parametrize(
    ("name", "damage"),
    [("flipped", _flip), ("cut", lambda raw: raw[:-100]), ("empty", lambda _: b"")],
)
def test_a_damaged_segment_is_set_aside_with_a_code_and_loads_once_it_is_restored(
    ws: Path, store: Store, name: str, damage: Callable[[bytes], bytes]
) -> None:
    folder = write_session(ws, name, market=market_tape(200), orders=order_tape(20))
    (segment,) = folder.glob("market/*.seg")
    sound = segment.read_bytes()
    segment.chmod(0o644)
    segment.write_bytes(damage(sound))
    report = load_sealed(ws, store, session_dirs=[folder])
    entry = _only(report)
    assert 600 < entry["code"] < 700
    assert report.segments_loaded == 1, "the order log is sound and goes on"
    assert store.rows(f"SELECT count() FROM hft.market_books WHERE run_id = '{name}'") == [(0,)]
    letter = dead_letter_folder(ws) / f"{name}-market-00000001.json"
    assert json.loads(letter.read_text())["code"] == entry["code"]
    segment.write_bytes(sound)
    healed = load_sealed(ws, store, session_dirs=[folder])
    assert healed.problems == []
    assert healed.segments_loaded == 1
    assert not letter.exists()


def test_a_segment_with_other_bytes_than_were_loaded_is_refused(ws: Path, store: Store) -> None:
    folder = write_session(ws, "changed", market=market_tape(100, seed=1))
    load_sealed(ws, store, session_dirs=[folder])
    other = write_session(ws, "other", market=market_tape(100, seed=2))
    (segment,) = folder.glob("market/*.seg")
    segment.unlink()
    next(other.glob("market/*.seg")).rename(segment)
    report = load_sealed(ws, store, session_dirs=[folder])
    assert _only(report)["code"] == ReasonCode.SEGMENT_CHANGED
    assert report.rows_inserted == 0


def test_rows_that_the_segment_does_not_have_are_found_before_it_counts_as_loaded(
    ws: Path, store: Store
) -> None:
    folder = write_session(ws, "stray", market=market_tape(100))
    stray = records.empty("Trade", 1)
    stray["trading_day"] = DAY
    block = columns.encode_records(
        "Trade", stray, origin=columns.Origin("stray", 77, "market", 1),
        seqs=np.array([1], dtype=np.uint64),
    )  # fmt: skip
    store.insert_native("hft.market_trades", columns.column_names("Trade"), block, token="stray")
    report = load_sealed(ws, store, session_dirs=[folder])
    assert _only(report)["code"] == ReasonCode.LOAD_COUNT_MISMATCH
    assert report.segments_loaded == 0
    again = load_sealed(ws, store, session_dirs=[folder])
    assert _only(again)["code"] == ReasonCode.LOAD_COUNT_MISMATCH
    assert again.rows_inserted == 0


def test_a_value_that_does_not_fit_keeps_its_whole_segment_out(ws: Path, store: Store) -> None:
    trades = records.empty("Trade", 2)
    trades["price"] = [100, 10**18]
    trades["input_seq"] = [1, 2]
    folder = write_session(ws, "huge", market=trades.tobytes())
    report = load_sealed(ws, store, session_dirs=[folder])
    assert _only(report)["code"] == ReasonCode.VALUE_OUT_OF_RANGE
    assert _rows_of(store, "huge") == 0


def test_a_segment_under_another_number_or_log_is_refused(ws: Path, store: Store) -> None:
    folder = write_session(ws, "renamed", market=market_tape(50))
    (segment,) = folder.glob("market/*.seg")
    segment.rename(segment.with_name("00000009.seg"))
    assert 600 < _only(load_sealed(ws, store, session_dirs=[folder]))["code"] < 700


def test_an_open_segment_is_left_alone_and_reported(ws: Path, store: Store) -> None:
    folder = ws / "sessions" / "open"
    (folder / "market").mkdir(parents=True)
    writer = _core.WalWriter(str(folder / "market"), 5, "market")
    writer.append_durable(market_tape(10))
    report = load_sealed(ws, store, session_dirs=[folder])
    assert report.still_open == ["open/market/00000001.open"]
    assert report.rows_inserted == 0
    writer.seal()
    assert load_sealed(ws, store, session_dirs=[folder]).segments_loaded == 1


def test_chunks_are_cut_by_record_count_and_their_tokens_follow_from_the_segment(
    ws: Path,
) -> None:
    count = segments.CHUNK_RECORDS + 10
    trades = records.empty("Trade", count)
    trades["input_seq"] = np.arange(1, count + 1)
    trades["trading_day"] = DAY
    folder = write_session(ws, "chunks", market=trades.tobytes())
    (file,), _ = segments.find_segments([folder])
    first, second = segments.read(file), segments.read(file)
    assert first.chunk_count == 2
    cut = [[(p.seqs[0], p.seqs.size, p.token) for p in first.parts(k)] for k in (0, 1)]
    assert cut == [[(p.seqs[0], p.seqs.size, p.token) for p in second.parts(k)] for k in (0, 1)]
    assert [(rows[0][0], rows[0][1]) for rows in cut] == [(1, 65_536), (65_537, 10)]
    assert cut[0][0][2].startswith("hft.market_trades:77:1:0:")


def test_the_ingestion_tables_say_what_was_loaded(ws: Path, store: Store) -> None:
    folder = write_session(ws, "said", market=market_tape(120))
    load_sealed(ws, store, session_dirs=[folder])
    (file,), _ = segments.find_segments([folder])
    segment = segments.read(file)
    assert store.rows(
        "SELECT segment_sha256, record_count, first_seq, last_seq FROM hft.ingest_segments FINAL"
        " WHERE run_id = 'said'"
    ) == [(segment.sha256, segment.record_count, 1, segment.record_count)]
    assert store.rows(
        "SELECT sum(row_count) FROM hft.ingest_chunks FINAL WHERE run_id = 'said'"
    ) == [(segment.record_count,)]
