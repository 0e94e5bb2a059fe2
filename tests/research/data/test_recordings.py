"""The real recordings: facts that their description states, found by the ingestion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hft_platform import records
from hft_platform.market.instruments import load_instruments
from research.data import catalog
from research.data.binance_source import read_binance_raw
from research.data.ingest import ingest
from research.data.parquet_source import read_parquet_pair

pytestmark = pytest.mark.recordings

NO_CONFIG = Path("no-such-folder")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ws")


@pytest.fixture(scope="module")
def taifex(recordings: Path, workspace: Path) -> catalog.Dataset:
    if not (recordings / "taifex").is_dir():
        pytest.skip("no TAIFEX recordings")
    return ingest(recordings / "taifex", workspace, load_instruments(NO_CONFIG))


@pytest.fixture(scope="module")
def binance(recordings: Path, workspace: Path) -> catalog.Dataset:
    if not (recordings / "binance").is_dir():
        pytest.skip("no Binance recordings")
    return ingest(recordings / "binance", workspace, load_instruments(NO_CONFIG))


def test_two_calendar_days_of_txf_are_four_sessions_of_the_exchange(
    taifex: catalog.Dataset,
) -> None:
    assert [session.session_id for session in taifex.sessions] == [
        "2026-04-09/day",
        "2026-04-10/night",
        "2026-04-10/day",
        "2026-04-13/night",
    ]


def test_the_known_gaps_and_shares_are_in_the_report(taifex: catalog.Dataset) -> None:
    report = catalog.quality_report(taifex)
    by_session = {row["session_id"]: row for row in report["sessions"]}
    assert by_session["2026-04-10/night"]["gaps"]["longest_s"] == pytest.approx(745, abs=1)
    assert by_session["2026-04-13/night"]["gaps"]["longest_s"] == pytest.approx(808, abs=1)
    rejected = report["totals"]["rejected"]
    assert set(rejected) == {"BOOK_SIDE_EMPTY", "OUTSIDE_SESSION", "SIMULATED_MATCH"}
    assert rejected["SIMULATED_MATCH"] + rejected["OUTSIDE_SESSION"] == 229 + 290 + 191 + 285
    for row in report["sessions"]:
        assert row["rows_in"] == row["rows_out"] + sum(row["rejected"].values())
        if row["session_id"] != "(outside)":
            assert row["crossed"] == 0
            assert 0.15 < row["trades_outside_best_share"] < 0.26


def test_a_txf_tape_is_ordered_and_loads_as_it_was_written(taifex: catalog.Dataset) -> None:
    for session in taifex.sessions:
        parts = records.split(catalog.load_tape(session))
        assert len(parts["Book"]) + len(parts["Trade"]) == session.record_count
        for stream in (parts["Book"], parts["Trade"]):
            assert (np.diff(stream["receive_time_ns"]) > 0).all()
            assert (np.diff(stream["exchange_time_ns"]) >= 0).all()


def test_the_recorder_clock_of_2024_is_found_behind_and_corrected(
    binance: catalog.Dataset,
) -> None:
    rows = catalog.quality_report(binance)["sessions"]
    for row in rows:
        assert row["crossed"] == 0
        assert row["out_of_order"] == 0
        if row["session_id"].startswith("2024") and row["rows_out"] > 100:
            assert 1.25e9 < row["clock_skew_offset_ns"] < 1.54e9
    for session in binance.sessions:
        parts = records.split(catalog.load_tape(session))
        for stream in (parts["Book"], parts["Trade"]):
            assert (stream["receive_time_ns"] - stream["exchange_time_ns"] >= 500_000).all()


def test_parquet_is_used_before_raw_lines_and_raw_lines_where_it_is_absent(
    binance: catalog.Dataset,
) -> None:
    skipped = {row["file"]: row["reason"] for row in catalog.quality_report(binance)["skipped"]}
    assert "duplicate source" in skipped["spot__btcusdt_20240808.gz"]
    assert "duplicate source" in skipped["usdm__btcusdt_20230404.dat.gz"]
    assert "usdm__btcusdt_20240718.gz" not in skipped
    days = {s.trading_day for s in binance.sessions if s.symbol == "BTCUSDT.USDM"}
    assert days == {20230404, 20230405, 20240718, 20240719}


@pytest.mark.parametrize(
    ("raw", "stem", "symbol"),
    [
        ("spot__btcusdt_20240808.gz", "spot_btcusdt_20240808", "BTCUSDT.SPOT"),
        ("usdm__btcusdt_20230404.dat.gz", "usdm_btcusdt_20230404", "BTCUSDT.USDM"),
    ],
)
def test_the_book_rebuilt_from_raw_lines_equals_the_parquet_book(
    recordings: Path, raw: str, stem: str, symbol: str
) -> None:
    folder = recordings / "binance"
    if not (folder / raw).is_file():
        pytest.skip(f"no {raw}")
    instrument = load_instruments(NO_CONFIG).by_symbol(symbol)
    rebuilt, notes = read_binance_raw(folder / raw, instrument)
    tidy, _ = read_parquet_pair(
        folder / f"{stem}_book.parquet", folder / f"{stem}_trades.parquet", instrument
    )
    assert notes["sequence_gaps"] == 0
    for field in (
        "source_seq",
        "exchange_time_ns",
        "receive_time_ns",
        "bid_price",
        "bid_qty",
        "ask_price",
        "ask_qty",
    ):
        count = len(rebuilt.books)
        assert (rebuilt.books[field] == tidy.books[field][:count]).all(), field
    for field in ("source_seq", "exchange_time_ns", "price", "qty", "aggressor_side"):
        count = len(rebuilt.trades)
        assert (rebuilt.trades[field] == tidy.trades[field][:count]).all(), field
