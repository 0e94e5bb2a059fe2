"""Raw Binance websocket lines: rebuild the book from a REST snapshot and depth updates.

Why: what a recorder really stores is `<receive time> <json>`; a five-level record after every
depth update, and every trade, come out of it in the same form as from any other source.

Invariants:
1. Depth updates are applied only in an unbroken chain (`U`, `u`, and `pu` on futures); a break is
   counted and the book is silent until the next snapshot.
2. Prices and sizes go from decimal text to integers at 1e-8 without a float.
3. A line that is not what the format says is counted; a file cut short is counted and what could
   be read is used.

It connects to nothing. Operator's page: `docs/recordings.md`.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from bisect import insort
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hft_platform import records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.feed.recording import LEVEL_COUNT
from hft_platform.market.instruments import Instrument
from hft_platform.records import SCALE
from research.data.rows import EXCHANGE_TIME_MISSING, GAP_BEFORE, SOURCE_RECORDING, Rows, mark

LINE_BYTES_MAX = 8 << 20
"""A snapshot of a thousand levels is about 60 kB; a longer line is no line of this format."""
BUFFERED_UPDATES_MAX = 10_000
"""Updates kept while waiting for a snapshot; older ones could not be applied to it anyway."""
BOOK_TICKER = b'@bookTicker"'
STREAM_BYTES = 80
"""The stream's name stands at the start of a line."""
MICROSECOND_DIGITS = 16
NANOSECOND_DIGITS = 19
_DECIMAL = re.compile(r"(-?)(\d{1,11})(?:\.(\d{1,12}))?")


class _MalformedLineError(ValueError):
    """A line that the format does not allow."""


class _SequenceGapError(Exception):
    """An update does not continue the chain."""


def read_binance_raw(path: Path, instrument: Instrument) -> tuple[Rows, dict[str, Any]]:
    """Rebuild books and trades from one raw recording.

    Parameters
    ----------
    path : Path
        Lines of receive time and JSON, gzip-compressed.
    instrument : Instrument
        Whose market it is; lines of another symbol are malformed.

    Returns
    -------
    rows : Rows
        A book after every applied depth update, and trades; `source_seq` is the line number.
    notes : dict
        Lines by kind, malformed lines, sequence gaps, whether the file was cut short.

    Raises
    ------
    PlatformError
        FILE_DAMAGED when the file is no gzip file at all, SCHEMA_MISMATCH when no line fits.
    """
    reader = _Reader(instrument.symbol.split(".")[0])
    notes: dict[str, Any] = {"is_truncated": False}
    line_number = 0
    try:
        for line_number, line in _lines(path, notes):
            reader.line(line_number, line)
    except OSError as error:
        raise PlatformError(
            ReasonCode.FILE_DAMAGED,
            f"{path}: cannot be read as gzip: {error}",
            next_step="fetch the file again; nothing of this source was written",
            facts={"file": str(path)},
        ) from error
    if not reader.books and not reader.trades:
        raise PlatformError(
            ReasonCode.SCHEMA_MISMATCH,
            f"{path}: none of {line_number} lines gave a book or a trade of {reader.symbol};"
            f" {reader.counts['malformed_lines']} were malformed",
            facts={"file": str(path)},
        )
    notes |= {"lines": line_number, **dict(sorted(reader.counts.items()))}
    return reader.rows(), notes


def _lines(path: Path, notes: dict[str, Any]) -> Iterator[tuple[int, bytes]]:
    number = 0
    with gzip.open(path, "rb") as file:
        while True:
            try:
                line = file.readline(LINE_BYTES_MAX)
            except (EOFError, zlib.error, gzip.BadGzipFile):
                if number == 0:
                    raise OSError("no line could be decompressed") from None
                notes["is_truncated"] = True
                return
            if not line:
                return
            number += 1
            yield number, line


class _Reader:
    """State of one recording: the book, what was emitted, and counts."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.book = _Book()
        self.waiting: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter(malformed_lines=0, sequence_gaps=0)
        self.books: list[tuple[Any, ...]] = []
        self.trades: list[tuple[Any, ...]] = []
        self.gap_flag = 0

    def line(self, number: int, line: bytes) -> None:
        if BOOK_TICKER in line[:STREAM_BYTES]:  # two thirds of all lines, and not used
            self.counts["ignored_bookTicker"] += 1
            return
        try:
            receive_ns, message = _parse(line)
            if "lastUpdateId" in message:
                self._snapshot(message)
                return
            data = message["data"]
            if data["s"] != self.symbol:
                raise _MalformedLineError("another symbol")
            kind = data.get("e", "bookTicker")
            if kind == "depthUpdate":
                self._depth(number, receive_ns, data)
            elif kind == "trade":
                self._trade(number, receive_ns, data)
            else:
                self.counts[f"ignored_{kind}"] += 1
        except (_MalformedLineError, KeyError, TypeError, ValueError):
            self.counts["malformed_lines"] += 1

    def _snapshot(self, message: dict[str, Any]) -> None:
        sides = [[_level(level) for level in message[side]] for side in ("bids", "asks")]
        self.book.restart(int(message["lastUpdateId"]), *sides)
        self.counts["snapshots"] += 1
        waiting, self.waiting = self.waiting, []
        for data in waiting:
            self._apply(data)

    def _depth(self, number: int, receive_ns: int, data: dict[str, Any]) -> None:
        self.counts["depth_updates"] += 1
        update = {
            "U": int(data["U"]),
            "u": int(data["u"]),
            "pu": int(data["pu"]) if "pu" in data else None,
            "b": [_level(level) for level in data["b"]],
            "a": [_level(level) for level in data["a"]],
        }
        time_ns = _millis(data.get("T", data["E"]))
        del self.waiting[:-BUFFERED_UPDATES_MAX]
        if self._apply(update):
            self.books.append((number, receive_ns, time_ns, self.gap_flag, *self.book.top()))
            self.gap_flag = 0

    def _apply(self, update: dict[str, Any]) -> bool:
        if not self.book.is_running:
            self.waiting.append(update)
            return False
        try:
            is_applied = self.book.apply(update)
        except _SequenceGapError:
            self.counts["sequence_gaps"] += 1
            self.gap_flag = GAP_BEFORE
            self.waiting = [update]
            return False
        if not is_applied:
            self.counts["updates_before_snapshot"] += 1
        return is_applied

    def _trade(self, number: int, receive_ns: int, data: dict[str, Any]) -> None:
        fault = 0 if data.get("X", "MARKET") == "MARKET" else int(ReasonCode.NOT_BOOK_MATCH)
        side = -1 if data["m"] else 1
        self.counts["trades"] += 1
        self.trades.append(
            (
                number,
                receive_ns,
                _millis(data["T"]),
                _units(data["p"]),
                _units(data["q"]),
                int(data["t"]),
                side,
                fault,
            )
        )

    def rows(self) -> Rows:
        books = records.empty("Book", len(self.books))
        trades = records.empty("Trade", len(self.trades))
        for stream, source in ((books, self.books), (trades, self.trades)):
            stream["source_id"] = SOURCE_RECORDING
            for place, field in enumerate(("source_seq", "receive_time_ns", "exchange_time_ns")):
                stream[field] = [row[place] for row in source]
            stream["flags"][stream["exchange_time_ns"] == 0] |= EXCHANGE_TIME_MISSING
        if self.books:
            books["flags"] |= np.array([row[3] for row in self.books], dtype=np.uint32)
            levels = np.array([row[4:] for row in self.books], dtype=np.int64)
            for place, field in enumerate(("bid_price", "bid_qty", "ask_price", "ask_qty")):
                books[field] = levels[:, place * LEVEL_COUNT : (place + 1) * LEVEL_COUNT]
        for place, field in enumerate(("price", "qty", "trade_id", "aggressor_side"), start=3):
            trades[field] = [row[place] for row in self.trades]
        rows = Rows.of(books, trades)
        off_book = np.array([row[7] for row in self.trades], dtype=np.uint16)
        mark(rows.trade_fault, off_book != 0, ReasonCode.NOT_BOOK_MATCH)
        return rows


class _Book:
    """Price levels of one symbol between snapshots."""

    def __init__(self) -> None:
        self.is_running = False
        self.last_update = 0
        self.is_first = True
        self.qty: tuple[dict[int, int], dict[int, int]] = ({}, {})
        # Bids are kept under their negative price, so that both sides ascend from the best.
        self.keys: tuple[list[int], list[int]] = ([], [])

    def restart(
        self, update_id: int, bids: list[tuple[int, int]], asks: list[tuple[int, int]]
    ) -> None:
        self.qty = ({-p: q for p, q in bids if q}, {p: q for p, q in asks if q})
        self.keys = (sorted(self.qty[0]), sorted(self.qty[1]))
        self.last_update, self.is_running, self.is_first = update_id, True, True

    def apply(self, update: dict[str, Any]) -> bool:
        """Apply an update; False when it is older than the book."""
        is_futures = update["pu"] is not None
        if self.is_first:
            if update["u"] < self.last_update + (0 if is_futures else 1):
                return False
            if update["U"] > self.last_update + 1:
                self._stop()
        elif is_futures:
            if update["u"] <= self.last_update:
                return False
            if update["pu"] != self.last_update:
                self._stop()
        else:
            if update["u"] <= self.last_update:
                return False
            if update["U"] != self.last_update + 1:
                self._stop()
        for price, qty in update["b"]:
            self._set(0, -price, qty)
        for price, qty in update["a"]:
            self._set(1, price, qty)
        self.last_update, self.is_first = update["u"], False
        return True

    def _stop(self) -> None:
        self.is_running = False
        raise _SequenceGapError

    def _set(self, side: int, key: int, qty: int) -> None:
        levels = self.qty[side]
        if qty:
            if key not in levels:
                insort(self.keys[side], key)
            levels[key] = qty
        elif levels.pop(key, None) is not None:
            self.keys[side].remove(key)

    def top(self) -> list[int]:
        """Five levels as prices and sizes of bids, then of asks; absent levels are 0."""
        fields: list[int] = []
        for side, sign in ((0, -1), (1, 1)):
            keys = self.keys[side][:LEVEL_COUNT]
            rest = [0] * (LEVEL_COUNT - len(keys))
            fields += [*(sign * key for key in keys), *rest]
            fields += [*(self.qty[side][key] for key in keys), *rest]
        return fields


def _parse(line: bytes) -> tuple[int, dict[str, Any]]:
    stamp, _, text = line.partition(b" ")
    if not stamp.isdigit():
        raise _MalformedLineError("no receive time")
    if len(stamp) == MICROSECOND_DIGITS:
        receive_ns = int(stamp) * 1000
    elif len(stamp) == NANOSECOND_DIGITS:
        receive_ns = int(stamp)
    else:
        raise _MalformedLineError("receive time is neither microseconds nor nanoseconds")
    message = json.loads(text)
    if not isinstance(message, dict):
        raise _MalformedLineError("not an object")
    return receive_ns, message


def _level(level: list[str]) -> tuple[int, int]:
    return _units(level[0]), _units(level[1])


def _units(text: str) -> int:
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise _MalformedLineError("not a decimal number")
    fraction = (match[3] or "").ljust(8, "0")
    if fraction[8:].strip("0"):
        raise _MalformedLineError("more than 8 decimals")
    value = int(match[2]) * SCALE + int(fraction[:8])
    return -value if match[1] else value


def _millis(value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _MalformedLineError("time is no integer")
    return value * 1_000_000
