"""Ingestion of made-up recordings: what is kept, what is refused, what is never half-written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hft_platform import _core, records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import InstrumentTable
from hft_platform.records import SCALE
from research.data import catalog
from research.data.ingest import ingest
from research.data.rows import GAP_BEFORE, RECEIVE_TIME_SYNTHETIC, SESSION_START
from tests.research.data.conftest import OPEN_NS, STEP_NS, Recorder, book_frame, trade_frame


def totals(ws: Path) -> dict:
    (dataset,) = catalog.datasets(ws)
    return catalog.quality_report(dataset)["totals"]


def set_value(frame: pl.DataFrame, row: int, **values: object) -> pl.DataFrame:
    here = pl.int_range(pl.len()) == row
    return frame.with_columns(
        pl.when(here).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)
        for name, value in values.items()
    )


def test_a_clean_recording_becomes_one_session_of_records(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    dataset = ingest(record(), tmp_path, instruments)
    (session,) = dataset.sessions
    assert (session.symbol, session.session_id, session.trading_day) == (
        "TXFD6",
        "2026-04-09/day",
        20260409,
    )
    parts = records.split(catalog.load_tape(session))
    books, trades = parts["Book"], parts["Trade"]
    assert (len(books), len(trades), session.record_count) == (40, 20, 60)
    assert books["bid_price"][0].tolist() == [(35_000 - k) * SCALE for k in range(5)]
    assert books["ask_qty"][0].tolist() == [(4 + k) * SCALE for k in range(5)]
    assert trades["aggressor_side"][:2].tolist() == [-1, 1]
    assert set(books["instrument_id"].tolist()) == {1001}
    assert set(books["trading_day"].tolist()) == {20260409}
    assert totals(tmp_path) == {"rows_in": 60, "rows_out": 60, "rejected": {}}


def test_receive_times_are_made_unique_and_trades_come_first_at_equal_exchange_time(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    (session,) = ingest(record(), tmp_path, instruments).sessions
    parts = records.split(catalog.load_tape(session))
    books, trades = parts["Book"], parts["Trade"]
    receive = np.sort(np.concatenate([books["receive_time_ns"], trades["receive_time_ns"]]))
    assert (np.diff(receive) > 0).all()
    for stream in (books, trades):
        delay = stream["receive_time_ns"] - stream["exchange_time_ns"]
        assert ((delay >= 3_000_000) & (delay < 5_000_001)).all()
        assert ((stream["flags"] & RECEIVE_TIME_SYNTHETIC) != 0).all()
    assert (trades["receive_time_ns"] < books["receive_time_ns"][::2]).all()
    assert trades["flags"][0] & SESSION_START
    assert not books["flags"][0] & SESSION_START


def test_the_same_input_gives_the_same_dataset_and_another_seed_another(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    first = ingest(record(), tmp_path / "a", instruments)
    assert ingest(record(), tmp_path / "a", instruments) == first
    elsewhere = ingest(record(), tmp_path / "b", instruments)
    assert elsewhere.dataset_id == first.dataset_id
    assert (elsewhere.path / "dataset.json").read_bytes() == (
        first.path / "dataset.json"
    ).read_bytes()
    assert (elsewhere.path / "quality.json").read_bytes() == (
        first.path / "quality.json"
    ).read_bytes()
    other = ingest(record(), tmp_path / "b", instruments, seed=7)
    assert other.dataset_id != first.dataset_id
    method = json.loads((other.path / "dataset.json").read_bytes())["receive_times"]
    assert method["seed"] == 7
    assert "splitmix64" in method["text"]


def test_a_gap_is_reported_and_marked_on_the_record_after_it(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    books = book_frame().with_columns(
        pl.when(pl.col("seq") > 41).then(pl.col("ts") + 6_000_000_000).otherwise(pl.col("ts"))
    )
    trades = trade_frame().filter(pl.col("seq") < 41)
    (session,) = ingest(record(books, trades), tmp_path, instruments).sessions
    parts = records.split(catalog.load_tape(session))
    (after,) = np.flatnonzero(parts["Book"]["flags"] & GAP_BEFORE)
    assert after == 21
    report = catalog.quality_report(catalog.datasets(tmp_path)[0])["sessions"][0]
    assert report["gaps"]["count"] == 1
    assert report["gaps"]["longest_s"] == pytest.approx(6.125)
    assert report["gaps"]["list"][0]["from_ns"] == OPEN_NS + 20 * STEP_NS


BAD_BOOKS = [
    ({"bid_px_1": 35_010}, "BOOK_CROSSED"),
    (
        {
            "bid_px_1": None,
            "bid_qty_1": None,
            "bid_px_2": None,
            "bid_px_3": None,
            "bid_px_4": None,
            "bid_px_5": None,
        },
        "BOOK_SIDE_EMPTY",
    ),
    ({"ask_px_3": -35_004}, "PRICE_NOT_POSITIVE"),
    ({"ask_qty_2": 0}, "QTY_NOT_POSITIVE"),
    ({"ask_qty_2": -1}, "QTY_NOT_POSITIVE"),
    ({"bid_px_2": 34_000}, "LEVELS_UNORDERED"),
    ({"bid_px_3": None}, "LEVELS_UNORDERED"),
    ({"bid_px_1": 20_000_000_000}, "VALUE_OUT_OF_RANGE"),
    ({"ts": -5}, "VALUE_OUT_OF_RANGE"),
    ({"ts": OPEN_NS - 3_600_000_000_000}, "OUTSIDE_SESSION"),
    ({"ts": OPEN_NS - 60_000_000_000}, "SIMULATED_MATCH"),
    ({"seq": 9}, "DUPLICATE_ROW"),
    ({"ts": OPEN_NS + 60_000_000_000}, "OUT_OF_ORDER_ROW"),
    ({"ts": OPEN_NS}, "OUT_OF_ORDER_ROW"),
]


@pytest.mark.parametrize(("values", "code"), BAD_BOOKS)
def test_a_bad_book_is_rejected_alone_and_counted_under_its_code(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable, values: dict, code: str
) -> None:
    dataset = ingest(record(set_value(book_frame(), 7, **values)), tmp_path, instruments)
    assert totals(tmp_path) == {"rows_in": 60, "rows_out": 59, "rejected": {code: 1}}
    parts = records.split(catalog.load_tape(dataset.sessions[0]))
    kept = [2 * index + 1 for index in range(40) if index != 7]
    assert parts["Book"]["source_seq"].tolist() == kept


BAD_TRADES = [
    ({"px": 0}, "PRICE_NOT_POSITIVE"),
    ({"px": -35_000}, "PRICE_NOT_POSITIVE"),
    ({"qty": 0}, "QTY_NOT_POSITIVE"),
    ({"qty": -2}, "QTY_NOT_POSITIVE"),
    ({"px": 10_000_000_000}, "VALUE_OUT_OF_RANGE"),
]


@pytest.mark.parametrize(("values", "code"), BAD_TRADES)
def test_a_bad_trade_is_rejected_alone_and_counted_under_its_code(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable, values: dict, code: str
) -> None:
    ingest(record(trades=set_value(trade_frame(), 7, **values)), tmp_path, instruments)
    assert totals(tmp_path) == {"rows_in": 60, "rows_out": 59, "rejected": {code: 1}}


@pytest.mark.parametrize(
    ("price", "code"),
    [
        (35_000.5, "PRICE_OFF_TICK_GRID"),
        (float("inf"), "VALUE_OUT_OF_RANGE"),
        (float("nan"), "PRICE_NOT_POSITIVE"),
        (35_000.000001, "PRICE_OFF_TICK_GRID"),
    ],
)
def test_a_float_price_is_a_tick_or_a_counted_fault(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable, price: float, code: str
) -> None:
    floats = trade_frame().with_columns(pl.col("px", "qty").cast(pl.Float64))
    ingest(record(trades=set_value(floats, 3, px=price)), tmp_path, instruments)
    assert totals(tmp_path)["rejected"] == {code: 1}


def test_a_fraction_of_a_lot_is_rejected(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    floats = trade_frame().with_columns(pl.col("qty").cast(pl.Float64))
    ingest(record(trades=set_value(floats, 3, qty=1.5)), tmp_path, instruments)
    assert totals(tmp_path)["rejected"] == {"QTY_OFF_LOT_GRID": 1}


def test_every_tick_up_to_the_largest_price_survives_the_way_through_a_float(
    instruments: InstrumentTable,
) -> None:
    from research.data.parquet_source import _scaled

    rng = np.random.Generator(np.random.PCG64(5))
    for step in (1_000, 1_000_000, 10_000_000, 5_000_000):
        ticks = rng.integers(1, 2_000_000_000 // max(1, step // 1000), 4000)
        faults = np.zeros(ticks.size, dtype=np.uint16)
        floats = pl.Series([float(f"{int(t) * step / SCALE:.8f}") for t in ticks])
        assert (_scaled(floats, step, faults, is_price=True) == ticks * step).all()
        assert not faults.any()


def test_a_shuffled_file_is_put_in_the_order_of_seq_without_a_loss(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    plain = ingest(record(), tmp_path / "plain", instruments)
    shuffled = ingest(
        record(book_frame().sample(fraction=1.0, shuffle=True, seed=3)),
        tmp_path / "shuffled",
        instruments,
    )
    assert shuffled.sessions[0].tape_sha256 == plain.sessions[0].tape_sha256
    notes = json.loads((shuffled.path / "dataset.json").read_bytes())["inputs"][0]["notes"]
    assert notes["reordered_rows"] > 0


def test_a_recording_joined_twice_counts_every_copy_as_a_duplicate(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    plain = ingest(record(), tmp_path / "plain", instruments)
    twice = ingest(record(pl.concat([book_frame(), book_frame()])), tmp_path / "twice", instruments)
    assert totals(tmp_path / "twice")["rejected"] == {"DUPLICATE_ROW": 40}
    assert twice.sessions[0].tape_sha256 == plain.sessions[0].tape_sha256


def test_rows_that_the_source_calls_off_session_are_simulated_matches(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    label = pl.when(pl.int_range(pl.len()) < 4).then(pl.lit("off")).otherwise(pl.lit("day"))
    books = book_frame().with_columns(label.cast(pl.Categorical).alias("session"))
    ingest(record(books), tmp_path, instruments)
    assert totals(tmp_path)["rejected"] == {"SIMULATED_MATCH": 4}


def test_a_session_in_two_files_is_one_session_and_source_order_goes_on(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    night = OPEN_NS + 20 * 3_600_000_000_000  # 04:45 Taipei
    late = OPEN_NS + 8 * 3_600_000_000_000
    record(book_frame(start_ns=late), trade_frame(start_ns=late))
    second = book_frame(start_ns=night), trade_frame(start_ns=night)
    folder = record(*second, stem="TXFD6_2026-04-10")
    (session,) = ingest(folder, tmp_path, instruments).sessions
    assert session.session_id == "2026-04-10/night"
    parts = records.split(catalog.load_tape(session))
    assert len(parts["Book"]) == 80
    assert (np.diff(parts["Book"]["source_seq"].astype(np.int64)) > 0).all()


BREAKS = {
    "a column is missing": (lambda f: f.drop("ask_px_3"), ReasonCode.SCHEMA_MISMATCH, "ask_px_3"),
    "a column is renamed": (
        lambda f: f.rename({"bid_px_1": "bid_price_1"}),
        ReasonCode.SCHEMA_MISMATCH,
        "bid_price_1",
    ),
    "a price is text": (
        lambda f: f.with_columns(pl.col("bid_px_1").cast(pl.String)),
        ReasonCode.SCHEMA_MISMATCH,
        "bid_px_1",
    ),
    "a price is float32": (
        lambda f: f.with_columns(pl.col("bid_px_1").cast(pl.Float32)),
        ReasonCode.SCHEMA_MISMATCH,
        "float",
    ),
    "a time is a date": (
        lambda f: f.with_columns(pl.from_epoch("ts", time_unit="ns")),
        ReasonCode.SCHEMA_MISMATCH,
        "ts",
    ),
    "seq has a null": (lambda f: set_value(f, 3, seq=None), ReasonCode.SCHEMA_MISMATCH, "seq"),
    "every book is crossed": (
        lambda f: f.with_columns(bid_px_1=pl.lit(99_999)),
        None,
        "BOOK_CROSSED",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_file_of_another_form_is_refused_by_name_and_leaves_nothing(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable, name: str
) -> None:
    change, code, said = BREAKS[name]
    folder = record(change(book_frame()), trade_frame())
    if code is None:  # rows are counted, the trades are kept
        ingest(folder, tmp_path, instruments)
        assert totals(tmp_path)["rejected"] == {said: 40}
        return
    with pytest.raises(PlatformError) as caught:
        ingest(folder, tmp_path, instruments)
    assert caught.value.code == code
    assert said in caught.value.message
    assert "_book.parquet" in caught.value.message
    assert list((tmp_path / "datasets").iterdir()) == []


def test_a_parquet_file_cut_anywhere_is_refused_and_leaves_nothing(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    folder = record()
    path = folder / "TXFD6_2026-04-09_trades.parquet"
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(PlatformError) as caught:
            ingest(folder, tmp_path, instruments)
        assert caught.value.code == ReasonCode.FILE_DAMAGED
        assert list((tmp_path / "datasets").iterdir()) == []
    path.write_bytes(whole)
    assert ingest(folder, tmp_path, instruments).record_count == 60


def test_a_source_without_a_single_good_row_is_refused_with_the_reasons(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    saturday = OPEN_NS + 2 * 86_400_000_000_000
    folder = record(book_frame(start_ns=saturday), trade_frame(start_ns=saturday))
    with pytest.raises(PlatformError) as caught:
        ingest(folder, tmp_path, instruments)
    assert caught.value.code == ReasonCode.OUTSIDE_SESSION
    assert "OUTSIDE_SESSION 60" in caught.value.message
    assert list((tmp_path / "datasets").iterdir()) == []


@pytest.mark.parametrize(
    ("stem", "code"),
    [
        ("ABCX9_2026-04-09", ReasonCode.UNKNOWN_INSTRUMENT),
        ("TXFD6_day", ReasonCode.SCHEMA_MISMATCH),
        ("TXFD6_2026-13-09", ReasonCode.SCHEMA_MISMATCH),
    ],
)
def test_a_file_name_that_says_nothing_is_refused(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable, stem: str, code: int
) -> None:
    with pytest.raises(PlatformError) as caught:
        ingest(record(stem=stem), tmp_path, instruments)
    assert caught.value.code == code
    assert not (tmp_path / "datasets").exists()


def test_odd_folders_are_refused_and_odd_files_are_named(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for source, code in (
        (empty, ReasonCode.SCHEMA_MISMATCH),
        (tmp_path / "nowhere", ReasonCode.FILE_DAMAGED),
    ):
        with pytest.raises(PlatformError) as caught:
            ingest(source, tmp_path, instruments)
        assert caught.value.code == code
    folder = record()
    (folder / "notes.txt").write_text("hello")
    book_frame().write_parquet(folder / "TXFD6_2026-04-09_bbo.parquet")
    skipped = catalog.quality_report(ingest(folder, tmp_path, instruments))["skipped"]
    assert [row["file"] for row in skipped] == ["TXFD6_2026-04-09_bbo.parquet", "notes.txt"]
    book_frame().write_parquet(folder / "whatever.parquet")
    with pytest.raises(PlatformError, match="name does not end"):
        ingest(folder, tmp_path, instruments)


def test_a_write_that_fails_leaves_no_dataset_behind(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from research.data import datasets

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(datasets, "_sync_file", fail)
    with pytest.raises(OSError, match="disk full"):
        ingest(record(), tmp_path, instruments)
    assert list((tmp_path / "datasets").iterdir()) == []
    monkeypatch.undo()
    assert ingest(record(), tmp_path, instruments).record_count == 60


def test_receive_times_that_only_copy_the_exchange_times_are_made_again(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    plain = ingest(record(), tmp_path / "plain", instruments)
    copied = ingest(
        record(
            book_frame().with_columns(ts_recv=pl.col("ts")),
            trade_frame().with_columns(ts_recv=pl.col("ts")),
        ),
        tmp_path / "copied",
        instruments,
    )
    assert copied.sessions[0].tape_sha256 == plain.sessions[0].tape_sha256


def test_a_clock_that_is_behind_is_corrected_and_the_offset_is_reported(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    late = [2_000_000 + 10_000 * (index % 7) - 1_300_000_000 for index in range(40)]
    books = book_frame().with_columns(ts_recv=pl.col("ts") + pl.Series(late))
    trades = trade_frame().with_columns(ts_recv=pl.col("ts") + late[0] + 500_000)
    (session,) = ingest(record(books, trades), tmp_path, instruments).sessions
    report = catalog.quality_report(catalog.datasets(tmp_path)[0])["sessions"][0]
    assert report["clock_skew_offset_ns"] == 1_300_000_000 - 1_500_000
    parts = records.split(catalog.load_tape(session))
    for stream in (parts["Book"], parts["Trade"]):
        assert (stream["receive_time_ns"] - stream["exchange_time_ns"] >= 500_000).all()
        assert not (stream["flags"] & RECEIVE_TIME_SYNTHETIC).any()


def test_rows_without_an_exchange_time_get_the_corrected_receive_time(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    books = book_frame().with_columns(ts_recv=pl.col("ts") + 4_000_000)
    books = set_value(books, 5, ts=None)
    trades = trade_frame().with_columns(ts_recv=pl.col("ts") + 4_000_000)
    (session,) = ingest(record(books, trades), tmp_path, instruments).sessions
    book = records.split(catalog.load_tape(session))["Book"][5]
    assert book["exchange_time_ns"] == OPEN_NS + 5 * STEP_NS + 4_000_000
    assert book["flags"] & 2


def test_a_damaged_dataset_gives_no_tape(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    (session,) = ingest(record(), tmp_path, instruments).sessions
    path = session.path / "trade.parquet"
    table = pl.read_parquet(path)
    table.with_columns(pl.col("price") + 1).write_parquet(path)
    with pytest.raises(PlatformError) as caught:
        catalog.load_tape(session)
    assert caught.value.code == ReasonCode.FILE_DAMAGED
    assert "tape hash" in caught.value.message
    path.write_bytes(b"PAR1")
    with pytest.raises(PlatformError, match="cannot be read"):
        catalog.load_tape(session)
    path.unlink()
    with pytest.raises(PlatformError, match="cannot be read"):
        catalog.load_tape(session)


def test_a_log_of_a_session_becomes_the_same_records_again(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    (session,) = ingest(record(), tmp_path, instruments).sessions
    log = tmp_path / "session" / "market"
    with _core.WalWriter(str(log), 7, "market") as writer:
        writer.append(catalog.load_tape(session))
    again = ingest(tmp_path / "session", tmp_path / "other", instruments)
    assert again.sessions[0].tape_sha256 == session.tape_sha256
    (segment,) = log.glob("*.seg")
    damaged = bytearray(segment.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    segment.write_bytes(damaged)
    with pytest.raises(PlatformError) as caught:
        ingest(tmp_path / "session", tmp_path / "third", instruments)
    assert 600 < caught.value.code < 700
    assert not list((tmp_path / "third" / "datasets").iterdir())
