"""A real TXF morning, dressed as broker quotes, comes out of the normaliser as it was recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import polars as pl
import pytest
import shioaji as sj

from hft_platform import records
from tests.bench import normaliser as bench
from tests.hft_platform.feed.shioaji_quotes import (
    SCALE,
    SECOND_NS,
    config_in,
    make_normaliser,
    taipei_ns,
)

OPEN_NS = taipei_ns("2026-04-10 08:45:00")
ROWS = 40_000
SESSION_START, GAP_BEFORE = 16, 32


def morning(folder: Path) -> tuple[list[dict[str, Any]], pl.DataFrame, pl.DataFrame]:
    """Rows in the order they came, and the books and trades among them."""
    frames = []
    for kind in ("book", "trades"):
        path = folder / "taifex" / f"TXFD6_2026-04-10_{kind}.parquet"
        frame = pl.read_parquet(path).filter(
            (pl.col("ts") >= OPEN_NS) & (pl.col("ts") < OPEN_NS + 5 * 3600 * SECOND_NS)
        )
        frames.append(frame.sort("ts", "seq").fill_null(0))  # a level that was not there
    rows = [(row["ts"], row["seq"], row) for frame in frames for row in frame.iter_rows(named=True)]
    rows.sort(key=lambda row: row[:2])
    rows = rows[:ROWS]
    ts, seq = rows[-1][:2]
    is_kept = (pl.col("ts") < ts) | ((pl.col("ts") == ts) & (pl.col("seq") <= seq))
    kept = [frame.filter(is_kept) for frame in frames]
    return [row[2] for row in rows], kept[0], kept[1]


def as_quote(row: dict[str, Any], total_volume: int) -> Any:
    """The SDK object that a broker would deliver for a recorded row."""
    micros = row["ts"] // 1000 + 8 * 3600 * 1_000_000
    moment = np.datetime64(micros, "us").item()
    head = ["TXFD6", moment.strftime("%Y/%m/%d"), moment.strftime("%H:%M:%S.%f")]
    if "px" in row:
        mark = {1: 1, -1: 2}.get(row["side"], 0)
        numbers = ["1", "1", 0, 0, "1", str(row["px"]), "1", "1", "1", "1", row["qty"]]
        wire = [*head, *numbers, total_volume, mark, 2, "0", "0", 0]
        return sj.TickFOPv1.from_msgpack(msgpack.packb(wire))
    sides = []
    for side in ("bid", "ask"):
        sides.append([str(row[f"{side}_px_{level}"]) for level in range(1, 6)])
        sides.append([row[f"{side}_qty_{level}"] for level in range(1, 6)])
        sides.append([0] * 5)
    totals = [sum(sides[1]), sum(sides[4])]
    wire = [*head, *totals, *sides, "0", "0", 0, 0, "0", 0]
    return sj.BidAskFOPv1.from_msgpack(msgpack.packb(wire))


@pytest.mark.recordings
def test_a_recorded_morning_comes_out_as_it_was_recorded(recordings: Path, tmp_path: Path) -> None:
    rows, books, trades = morning(recordings)
    total, quotes, times = 0, [], []
    for place, row in enumerate(rows):
        total += row.get("qty", 0)
        quotes.append(as_quote(row, total))
        times.append(row["ts"] + 2_000_000 + place)
    normaliser = make_normaliser(config_in(tmp_path))
    made = records.split(normaliser.on_objects(quotes, np.array(times, "<i8").tobytes()))
    counters = normaliser.counters()
    assert counters["dropped"] == {}
    assert (counters["published"], counters["noted"]) == (len(rows), {})
    assert made["Trade"].size == trades.height > 5_000
    assert made["Book"].size == books.height > 20_000
    assert made["Trade"]["price"].tolist() == (trades["px"].cast(pl.Int64) * SCALE).to_list()
    assert made["Trade"]["qty"].tolist() == (trades["qty"].cast(pl.Int64) * SCALE).to_list()
    assert made["Trade"]["aggressor_side"].tolist() == trades["side"].to_list()
    assert made["Trade"]["trade_id"].tolist() == trades["qty"].cum_sum().to_list()
    for side in ("bid", "ask"):
        for field, column in (("price", "px"), ("qty", "qty")):
            names = [f"{side}_{column}_{level}" for level in range(1, 6)]
            expected = books.select(names).to_numpy().astype(np.int64) * SCALE
            assert np.array_equal(made["Book"][f"{side}_{field}"], expected)
    for name, frame in (("Book", books), ("Trade", trades)):
        assert made[name]["exchange_time_ns"].tolist() == frame["ts"].to_list()
        assert set(made[name]["trading_day"].tolist()) == {20260410}
    flags = np.concatenate([made["Book"]["flags"], made["Trade"]["flags"]])
    seqs = np.concatenate([made["Book"]["source_seq"], made["Trade"]["source_seq"]])
    in_order = flags[np.argsort(seqs)]
    silent = np.diff(np.array([row["ts"] for row in rows])) > 5 * SECOND_NS
    assert in_order[0] == SESSION_START
    assert np.array_equal(in_order[1:] & GAP_BEFORE != 0, silent)


def test_the_benchmark_times_equal_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_in(tmp_path)
    bench.check_plain_python(config)
    monkeypatch.setattr(bench, "BATCHES", 3)
    for class_name in bench.HEADLINE:
        row = bench.measure(class_name, config)
        assert 0 < row["read"] < row["convert"]
