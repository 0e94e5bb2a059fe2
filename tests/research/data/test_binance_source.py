"""Raw Binance lines: the chain of updates, exact numbers, damage."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from hft_platform import records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import InstrumentTable
from hft_platform.records import SCALE
from research.data import catalog
from research.data.binance_source import read_binance_raw
from research.data.ingest import ingest
from research.data.rows import GAP_BEFORE
from tests.research.data.conftest import CRYPTO_NS, raw_lines

Writer = Callable[..., Path]


def read(folder: Path, instruments: InstrumentTable) -> tuple:
    (path,) = folder.glob("*.gz")
    return read_binance_raw(path, instruments.by_symbol("BTCUSDT.USDM"))


@pytest.mark.parametrize("digits", [16, 19])
def test_the_book_is_rebuilt_after_every_update_in_the_chain(
    record_raw: Writer, instruments: InstrumentTable, digits: int
) -> None:
    rows, notes = read(record_raw(raw_lines(recv_digits=digits)), instruments)
    assert rows.books["source_seq"].tolist() == [4, 6, 8, 9]
    assert (rows.books["bid_price"][:, 0] / SCALE).tolist() == [28000.5, 28000.0, 28000.0, 28000.0]
    assert (rows.books["ask_price"][:, 0] / SCALE).tolist() == [28001.0, 28002.0, 28000.9, 28000.9]
    assert rows.books["bid_qty"][3].tolist()[:2] == [SCALE, int(7.5 * SCALE)]
    assert rows.books["receive_time_ns"][0] == CRYPTO_NS + 8_000_000
    assert rows.trades["trade_id"].tolist() == [1, 2]
    assert rows.trades["aggressor_side"].tolist() == [-1, -1]
    assert rows.trade_fault.tolist() == [0, ReasonCode.NOT_BOOK_MATCH]
    assert (notes["sequence_gaps"], notes["malformed_lines"], notes["snapshots"]) == (0, 0, 1)


def test_a_lost_update_silences_the_book_until_the_next_snapshot(
    record_raw: Writer, instruments: InstrumentTable
) -> None:
    lines = raw_lines()
    del lines[5]
    rows, notes = read(record_raw(lines), instruments)
    assert notes["sequence_gaps"] == 1
    assert rows.books["source_seq"].tolist() == [4]
    again = raw_lines()
    again[2] = again[2].replace('"lastUpdateId": 100', '"lastUpdateId": 104')
    following = again[8].replace('"U": 105, "u": 106, "pu": 104', '"U": 107, "u": 107, "pu": 106')
    rows, notes = read(record_raw([*lines, again[2], following]), instruments)
    assert rows.books["source_seq"].tolist() == [4, 10]
    assert rows.books["flags"].tolist() == [0, GAP_BEFORE]


def test_spot_updates_chain_without_a_previous_id(
    record_raw: Writer, instruments: InstrumentTable
) -> None:
    import re

    spot = [re.sub(r' "pu": \d+,', "", line) for line in raw_lines()]
    folder = record_raw(spot, stem="spot__btcusdt_20230404")
    path = folder / "spot__btcusdt_20230404.gz"
    rows, notes = read_binance_raw(path, instruments.by_symbol("BTCUSDT.SPOT"))
    assert (len(rows.books), notes["sequence_gaps"]) == (4, 0)
    del spot[5]
    record_raw(spot, stem="spot__btcusdt_20230404")
    rows, notes = read_binance_raw(path, instruments.by_symbol("BTCUSDT.SPOT"))
    assert (len(rows.books), notes["sequence_gaps"]) == (1, 1)


HEAD = '1680652680005000 {"stream":"x","data":{"e":"trade","s":'
MALFORMED = [
    "",
    "hello",
    "1680652680005000",
    "1680652680005000 {",
    "1680652680005000 []",
    "168065268000500 {}",
    HEAD + '"BTCUSDT"}}',
    HEAD + '"ETHUSDT","T":1,"t":1,"p":"1","q":"1","m":true}}',
    HEAD + '"BTCUSDT","T":1.5,"t":1,"p":"1","q":"1","m":true}}',
    HEAD + '"BTCUSDT","T":1,"t":1,"p":"1e3","q":"1","m":true}}',
    HEAD + '"BTCUSDT","T":1,"t":1,"p":"0.000000001","q":"1","m":true}}',
    '1680652680005000 {"lastUpdateId": 1}',
]


def test_malformed_lines_are_counted_and_the_rest_is_kept(
    record_raw: Writer, tmp_path: Path, instruments: InstrumentTable
) -> None:
    folder = record_raw([*raw_lines(), *MALFORMED])
    dataset = ingest(folder, tmp_path, instruments)
    totals = catalog.quality_report(dataset)["totals"]
    assert totals["rejected"] == {"MALFORMED_LINE": len(MALFORMED), "NOT_BOOK_MATCH": 1}
    assert totals["rows_out"] == 5
    assert totals["rows_in"] == totals["rows_out"] + sum(totals["rejected"].values())


def test_a_gz_cut_short_is_counted_and_what_could_be_read_is_kept(
    record_raw: Writer, instruments: InstrumentTable
) -> None:
    whole, _ = read(record_raw(raw_lines()), instruments)
    cut, notes = read(record_raw(raw_lines(), cut=9), instruments)
    assert notes["is_truncated"]
    assert 0 < len(cut) <= len(whole)
    assert (cut.books == whole.books[: len(cut.books)]).all()


def test_a_file_that_is_no_gzip_or_holds_no_row_is_refused(
    record_raw: Writer, tmp_path: Path, instruments: InstrumentTable
) -> None:
    folder = record_raw(raw_lines())
    path = folder / "usdm__btcusdt_20230404.gz"
    for content, code in (
        (b"", ReasonCode.SCHEMA_MISMATCH),
        (b"plain text", ReasonCode.FILE_DAMAGED),
        (path.read_bytes()[:12], ReasonCode.FILE_DAMAGED),
        (gzip.compress(b"hello\n" * 5), ReasonCode.SCHEMA_MISMATCH),
    ):
        path.write_bytes(content)
        with pytest.raises(PlatformError) as caught:
            ingest(folder, tmp_path, instruments)
        assert caught.value.code == code
        assert path.name in caught.value.message
        assert list((tmp_path / "datasets").iterdir()) == []


def test_a_raw_dataset_is_the_same_every_time(
    record_raw: Writer, tmp_path: Path, instruments: InstrumentTable
) -> None:
    first = ingest(record_raw(raw_lines()), tmp_path / "a", instruments)
    second = ingest(record_raw(raw_lines()), tmp_path / "b", instruments)
    assert first.dataset_id == second.dataset_id
    tape = records.split(catalog.load_tape(first.sessions[0]))
    assert len(tape["Book"]) == 4
