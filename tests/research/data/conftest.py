"""Small recordings made for tests: a quiet TXF book, written as tidy Parquet or raw lines."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from hft_platform.market.instruments import InstrumentTable, load_instruments

OPEN_NS = int(dt.datetime(2026, 4, 9, 0, 45, tzinfo=dt.UTC).timestamp()) * 1_000_000_000
STEP_NS = 125_000_000
CRYPTO_NS = int(dt.datetime(2023, 4, 4, 23, 58, tzinfo=dt.UTC).timestamp()) * 1_000_000_000


@pytest.fixture
def instruments(tmp_path: Path) -> InstrumentTable:
    return load_instruments(tmp_path / "no-config")


def book_frame(count: int = 40, *, start_ns: int = OPEN_NS) -> pl.DataFrame:
    """`count` five-level books around 35,000, every 125 ms, with odd `seq`."""
    rows = []
    for index in range(count):
        bid = 35_000 + index % 3
        row: dict[str, int] = {"ts": start_ns + index * STEP_NS, "seq": 2 * index + 1}
        for level in range(5):
            row |= {
                f"bid_px_{level + 1}": bid - level,
                f"bid_qty_{level + 1}": 3 + level,
                f"ask_px_{level + 1}": bid + 2 + level,
                f"ask_qty_{level + 1}": 4 + level,
            }
        rows.append(row)
    return pl.DataFrame(rows)


def trade_frame(count: int = 20, *, start_ns: int = OPEN_NS) -> pl.DataFrame:
    """`count` trades at every second book's time, with even `seq`."""
    return pl.DataFrame(
        {
            "ts": [start_ns + 2 * index * STEP_NS for index in range(count)],
            "seq": [4 * index + 2 for index in range(count)],
            "px": [35_000 + index % 3 for index in range(count)],
            "qty": [1 + index % 2 for index in range(count)],
            "side": [1 if index % 2 else -1 for index in range(count)],
        },
        schema_overrides={"side": pl.Int8},
    )


Recorder = Callable[..., Path]


@pytest.fixture
def record(tmp_path: Path) -> Recorder:
    """Write a recording folder from frames and return it."""

    def write(
        books: pl.DataFrame | None = None,
        trades: pl.DataFrame | None = None,
        *,
        stem: str = "TXFD6_2026-04-09",
        folder: str = "recording",
    ) -> Path:
        target = tmp_path / folder
        target.mkdir(exist_ok=True)
        (book_frame() if books is None else books).write_parquet(target / f"{stem}_book.parquet")
        (trade_frame() if trades is None else trades).write_parquet(
            target / f"{stem}_trades.parquet"
        )
        return target

    return write


def raw_lines(*, recv_digits: int = 16) -> list[str]:
    """A snapshot, four futures depth updates in a chain, two trades, a ticker."""
    scale = 1000 if recv_digits == 16 else 1

    def at(millis: int, message: dict) -> str:
        return f"{(CRYPTO_NS + millis * 1_000_000 + 5_000_000) // scale} {json.dumps(message)}"

    def depth(millis: int, first: int, last: int, before: int, bids: list, asks: list) -> str:
        time_ms = CRYPTO_NS // 1_000_000 + millis
        data = {
            "e": "depthUpdate",
            "E": time_ms,
            "T": time_ms,
            "s": "BTCUSDT",
            "U": first,
            "u": last,
            "pu": before,
            "b": bids,
            "a": asks,
        }
        return at(millis, {"stream": "btcusdt@depth@0ms", "data": data})

    def trade(millis: int, number: int, kind: str = "MARKET") -> str:
        time_ms = CRYPTO_NS // 1_000_000 + millis
        data = {
            "e": "trade",
            "E": time_ms,
            "T": time_ms,
            "s": "BTCUSDT",
            "t": number,
            "p": "28000.10",
            "q": "0.250",
            "X": kind,
            "m": True,
        }
        return at(millis, {"stream": "btcusdt@trade", "data": data})

    snapshot = {
        "lastUpdateId": 100,
        "bids": [[f"{28000 - level}.00", "1.000"] for level in range(8)],
        "asks": [[f"{28001 + level}.00", "2.000"] for level in range(8)],
    }
    ticker = {"e": "bookTicker", "u": 1, "s": "BTCUSDT"}
    return [
        at(0, {"stream": "btcusdt@bookTicker", "data": ticker}),
        depth(1, 90, 95, 89, [["1.00", "1"]], []),
        at(2, snapshot),
        depth(3, 96, 101, 95, [["28000.50", "0.500"]], []),
        trade(4, 1),
        depth(5, 102, 103, 101, [["28000.50", "0.000"]], [["28001.00", "0"]]),
        trade(6, 2, "INSURANCE_FUND"),
        depth(7, 104, 104, 103, [], [["28000.90", "0.125"]]),
        depth(8, 105, 106, 104, [["27999.00", "7.5"]], []),
    ]


@pytest.fixture
def record_raw(tmp_path: Path) -> Callable[..., Path]:
    """Write raw lines as a gz recording and return its folder."""

    def write(lines: list[str], *, cut: int = 0, stem: str = "usdm__btcusdt_20230404") -> Path:
        target = tmp_path / "raw"
        target.mkdir(exist_ok=True)
        content = gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0)
        (target / f"{stem}.gz").write_bytes(content[: len(content) - cut] if cut else content)
        return target

    return write
