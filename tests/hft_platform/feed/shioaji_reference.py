"""The normaliser once more, slowly and in plain Python: Decimal arithmetic, no tricks, no sharing.

Both read `docs/normaliser.md`. Whatever object comes, both must give the same bytes or the same
reason code.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from hft_platform import records
from hft_platform.errors import ReasonCode

SCALE = 10**8
RANGE = 10**18
SIMULATED, SIDE_UNKNOWN, SESSION_START, GAP_BEFORE, ODD_LOT = 1, 8, 16, 32, 64
TRADES = {"TickFOPv1", "TickSTKv1", "QuoteFOPv1", "QuoteSTKv1"}
BOOKS = {"BidAskFOPv1", "BidAskSTKv1", "QuoteFOPv1", "QuoteSTKv1"}


class Drop(Exception):
    """An object that is dropped, under a code."""

    def __init__(self, code: ReasonCode) -> None:
        super().__init__(code.name)
        self.code = code


def read(quote: Any, name: str) -> Any:
    """An attribute, whatever reading it does."""
    try:
        return getattr(quote, name)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise Drop(ReasonCode.FIELD_UNREADABLE) from error


def typed(value: Any, kind: type) -> Any:
    """A value of exactly one type."""
    if type(value) is not kind:
        raise Drop(ReasonCode.FIELD_TYPE_WRONG)
    return value


def price_of(value: Any) -> int:
    """Exact scaled value."""
    typed(value, Decimal)
    if not value.is_finite():
        raise Drop(ReasonCode.PRICE_NOT_EXACT)
    exact = Fraction(value) * SCALE
    if abs(exact) >= RANGE:
        raise Drop(ReasonCode.VALUE_OUT_OF_RANGE)
    if exact.denominator != 1:
        raise Drop(ReasonCode.PRICE_NOT_EXACT)
    return int(exact)


def count_of(value: Any) -> int:
    """An integer of 64 bits."""
    if not -(2**63) <= typed(value, int) < 2**63:
        raise Drop(ReasonCode.VALUE_OUT_OF_RANGE)
    return int(value)


def five(quote: Any, name: str, convert: Any) -> list[int]:
    """A side of the book."""
    values = typed(read(quote, name), list)
    if len(values) != 5:
        raise Drop(ReasonCode.LEVEL_COUNT_WRONG)
    return [convert(value) for value in values]


@dataclass(frozen=True)
class Stream:
    """What came before on an instrument."""

    session: int
    started: bool = False
    latest: int | None = None
    book_time: int | None = None
    trade_time: int | None = None
    total: int | None = None


class Reference:
    """Same config, same objects, same answers."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.rows = {
            (row["market"], row["code"], row["is_odd_lot"]): row for row in config["instruments"]
        }
        self.streams = {key: Stream(0) for key in self.rows}
        self.fed = 0
        self.last_receive = 0

    def feed(self, quote: Any, receive_time_ns: int, class_name: str) -> bytes | ReasonCode:
        """Records of an object as bytes, or the code under which it is dropped."""
        self.fed += 1
        try:
            return self._records(quote, receive_time_ns, class_name)
        except Drop as drop:
            return drop.code

    def _records(self, quote: Any, receive: int, class_name: str) -> bytes:
        is_stock = "STK" in class_name
        code = typed(read(quote, "code"), str)
        if any("\ud800" <= letter <= "\udfff" for letter in code):
            raise Drop(ReasonCode.FIELD_TYPE_WRONG)
        moment = typed(read(quote, "datetime"), dt.datetime)
        if moment.tzinfo is not None:
            raise Drop(ReasonCode.FIELD_TYPE_WRONG)
        simulated = typed(read(quote, "simtrade"), bool)
        suspended = is_stock and typed(read(quote, "suspend"), bool)
        has_odd = class_name in {"TickSTKv1", "BidAskSTKv1"}
        odd = has_odd and typed(read(quote, "intraday_odd"), bool)
        trade = self._trade_fields(quote) if class_name in TRADES else None
        book = self._book_fields(quote, class_name) if class_name in BOOKS else None
        key = ("stock" if is_stock else "futures", code, odd)
        if key not in self.rows:
            raise Drop(ReasonCode.UNKNOWN_INSTRUMENT)
        row = self.rows[key]
        exchange = self._exchange_time(moment, receive)
        session = self._session(row, exchange)
        window = row["sessions"][session]
        flags = 0
        if simulated or suspended or exchange < window["start_ns"]:
            flags |= SIMULATED
        if odd:
            flags |= ODD_LOT
        head = {
            "instrument_id": row["instrument_id"],
            "trading_day": window["trading_day"],
            "source_seq": self.fed,
            "source_id": 4,
            "exchange_time_ns": exchange,
        }
        return self._publish(key, session, head, flags, trade, book, receive)

    @staticmethod
    def _trade_fields(quote: Any) -> tuple[int, int, int, int]:
        return (
            price_of(read(quote, "close")),
            count_of(read(quote, "volume")),
            count_of(read(quote, "total_volume")),
            count_of(read(quote, "tick_type")),
        )

    @staticmethod
    def _book_fields(quote: Any, class_name: str) -> tuple[Any, ...]:
        sides = (
            five(quote, "bid_price", price_of),
            five(quote, "bid_volume", count_of),
            five(quote, "ask_price", price_of),
            five(quote, "ask_volume", count_of),
        )
        totals = None
        if class_name == "BidAskFOPv1":
            totals = (
                count_of(read(quote, "bid_total_vol")),
                count_of(read(quote, "ask_total_vol")),
            )
        return (*sides, totals)

    def _exchange_time(self, moment: dt.datetime, receive: int) -> int:
        if moment.year == 2000:
            raise Drop(ReasonCode.EXCHANGE_DATE_INVALID)
        if moment.time() == dt.time(0):
            raise Drop(ReasonCode.EXCHANGE_TIME_INVALID)
        micros = (moment - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1)
        exchange = micros * 1000 - self.config["utc_offset_s"] * 10**9
        if not -(2**63) <= micros * 1000 < 2**63 or not -(2**63) <= exchange < 2**63:
            raise Drop(ReasonCode.OUTSIDE_SESSION)
        if exchange - receive > self.config["exchange_ahead_ns_max"]:
            raise Drop(ReasonCode.EXCHANGE_TIME_AHEAD)
        if receive - exchange > self.config["exchange_behind_ns_max"]:
            raise Drop(ReasonCode.EXCHANGE_TIME_BEHIND)
        return exchange

    @staticmethod
    def _session(row: dict[str, Any], exchange: int) -> int:
        for place, window in enumerate(row["sessions"]):
            if window["preopen_ns"] <= exchange < window["end_ns"]:
                return place
        raise Drop(ReasonCode.OUTSIDE_SESSION)

    def _publish(
        self,
        key: tuple[str, str, bool],
        session: int,
        head: dict[str, int],
        flags: int,
        trade: tuple[int, int, int, int] | None,
        book: tuple[Any, ...] | None,
        receive: int,
    ) -> bytes:
        row = self.rows[key]
        book_row = self._book_row(row, book) if book is not None else None
        trade_row = self._trade_row(row, trade, is_combined=book is not None) if trade else None
        stream = self.streams[key]
        if session < stream.session:
            raise Drop(ReasonCode.OUT_OF_ORDER_ROW)
        if session > stream.session:
            stream = Stream(session)
        time = head["exchange_time_ns"]
        trade_marks: int | None = 0
        book_marks = 0
        if not flags & SIMULATED:
            if trade is not None:
                stream, trade_marks = self._take_trade(
                    stream, time, trade, row["gap_ns"], is_combined=book is not None
                )
            if book is not None:
                if stream.book_time is not None and time < stream.book_time:
                    raise Drop(ReasonCode.OUT_OF_ORDER_ROW)
                stream, book_marks = self._advance(
                    replace(stream, book_time=time), time, row["gap_ns"], lost=False
                )
        elif book is not None:
            trade_marks = None
        if trade_row is not None and trade_marks is None:
            trade_row = None
        elif trade_row is None and trade_marks is not None:
            book_marks |= trade_marks
        self.streams[key] = stream
        out = b""
        if trade_row is not None:
            side = SIDE_UNKNOWN if trade_row["aggressor_side"] == 0 else 0
            out += self._bytes("Trade", head, trade_row, flags | (trade_marks or 0) | side, receive)
        if book_row is not None:
            out += self._bytes("Book", head, book_row, flags | book_marks, receive)
        return out

    def _book_row(self, row: dict[str, Any], book: tuple[Any, ...]) -> dict[str, Any]:
        bid_price, bid_volume, ask_price, ask_volume, totals = book
        sides = {}
        quantities = [0] * 10
        for level in range(5):
            for place, volume in ((level, bid_volume[level]), (5 + level, ask_volume[level])):
                quantities[place] = volume * row["lot_size"]
                if not -(2**63) <= quantities[place] < 2**63:
                    raise Drop(ReasonCode.VALUE_OUT_OF_RANGE)
        for name, prices, qty, sign in (
            ("bid", bid_price, quantities[:5], -1),
            ("ask", ask_price, quantities[5:], 1),
        ):
            self._check_side(prices, qty, sign)
            sides |= {f"{name}_price": prices, f"{name}_qty": qty}
        if any(price % row["tick_size"] for price in [*bid_price, *ask_price]):
            raise Drop(ReasonCode.PRICE_OFF_TICK_GRID)
        if totals is not None and totals != (sum(bid_volume), sum(ask_volume)):
            assert self.config["on_total_mismatch"] == "drop"
            raise Drop(ReasonCode.BOOK_TOTAL_MISMATCH)
        return sides

    @staticmethod
    def _check_side(prices: list[int], quantities: list[int], sign: int) -> None:
        previous: int | None = None
        has_ended = False
        for price, qty in zip(prices, quantities, strict=True):
            if price == 0 and qty == 0:
                has_ended = True
                continue
            if price <= 0:
                raise Drop(ReasonCode.PRICE_NOT_POSITIVE)
            if qty <= 0:
                raise Drop(ReasonCode.QTY_NOT_POSITIVE)
            if qty >= RANGE:
                raise Drop(ReasonCode.VALUE_OUT_OF_RANGE)
            if has_ended or (previous is not None and (price - previous) * sign <= 0):
                raise Drop(ReasonCode.LEVELS_UNORDERED)
            previous = price

    @staticmethod
    def _trade_row(
        row: dict[str, Any], trade: tuple[int, int, int, int], *, is_combined: bool
    ) -> dict[str, int] | None:
        price, volume, total, tick_type = trade
        if is_combined and total < 0:
            raise Drop(ReasonCode.QTY_NOT_POSITIVE)
        if tick_type not in (0, 1, 2):
            raise Drop(ReasonCode.TICK_TYPE_INVALID)
        if is_combined and volume == 0:
            return None
        qty = volume * row["lot_size"]
        if not -(2**63) <= qty < 2**63:
            raise Drop(ReasonCode.VALUE_OUT_OF_RANGE)
        if total < 0:
            raise Drop(ReasonCode.QTY_NOT_POSITIVE)
        if price <= 0:
            raise Drop(ReasonCode.PRICE_NOT_POSITIVE)
        if qty <= 0:
            raise Drop(ReasonCode.QTY_NOT_POSITIVE)
        if qty >= RANGE:
            raise Drop(ReasonCode.VALUE_OUT_OF_RANGE)
        if price % row["tick_size"]:
            raise Drop(ReasonCode.PRICE_OFF_TICK_GRID)
        side = {0: 0, 1: 1, 2: -1}[tick_type]
        return {"price": price, "qty": qty, "trade_id": total, "aggressor_side": side}

    def _take_trade(
        self,
        stream: Stream,
        time: int,
        trade: tuple[int, int, int, int],
        gap_ns: int,
        *,
        is_combined: bool,
    ) -> tuple[Stream, int | None]:
        _, volume, total, _ = trade
        last = stream.total
        if is_combined and (last is None or total == last):
            if last is None and total < volume:
                raise Drop(ReasonCode.TOTAL_VOLUME_BROKEN)
            return replace(stream, total=total), None
        if total < volume:
            raise Drop(ReasonCode.TOTAL_VOLUME_BROKEN)
        if last is not None:
            if total == last:
                raise Drop(ReasonCode.DUPLICATE_ROW)
            if total < last:
                raise Drop(ReasonCode.OUT_OF_ORDER_ROW)
            if total < last + volume:
                raise Drop(ReasonCode.TOTAL_VOLUME_BROKEN)
        if stream.trade_time is not None and time < stream.trade_time:
            raise Drop(ReasonCode.OUT_OF_ORDER_ROW)
        lost = last is not None and total > last + volume
        return self._advance(replace(stream, total=total, trade_time=time), time, gap_ns, lost=lost)

    @staticmethod
    def _advance(stream: Stream, time: int, gap_ns: int, *, lost: bool) -> tuple[Stream, int]:
        marks = 0
        if not stream.started:
            marks = SESSION_START
        elif lost or (stream.latest is not None and time - stream.latest > gap_ns):
            marks = GAP_BEFORE
        latest = time if stream.latest is None else max(stream.latest, time)
        return replace(stream, started=True, latest=latest), marks

    def _bytes(
        self, name: str, head: dict[str, int], row: dict[str, Any], flags: int, receive: int
    ) -> bytes:
        self.last_receive = max(self.last_receive + 1, receive)
        record = records.empty(name, 1)
        for field, value in (head | row).items():
            record[field] = np.array(value, dtype=record.dtype[field].base)
        record["flags"] = flags
        record["receive_time_ns"] = self.last_receive
        return record.tobytes()
