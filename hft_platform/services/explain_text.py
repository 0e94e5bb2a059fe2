"""Numbers, sides and times of an explanation, as people read them."""

from __future__ import annotations

import datetime as dt

from hft_platform import records


def units(value: int) -> str:
    """A price, quantity or sum of money in whole units, exactly: 1999700000000 is 19997."""
    whole, part = divmod(abs(value), records.SCALE)
    text = f"{whole}.{part:08d}".rstrip("0").rstrip(".")
    return f"-{text}" if value < 0 else text


def number(value: float | None) -> str:
    """A feature or signal for people; what is no number says so."""
    return "not a number" if value is None else f"{value:.6g}"


def side_name(side: int) -> str:
    """What a side does."""
    return {1: "buy", -1: "sell"}.get(side, "no side")


def utc(time_ns: int) -> str:
    """A moment, to the microsecond."""
    moment = dt.datetime.fromtimestamp(time_ns // 10**9, tz=dt.UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{time_ns % 10**9 // 1_000:06d} UTC"


def seconds(duration_ns: int) -> str:
    """A duration in seconds."""
    return f"{duration_ns / 1e9:.6g} s"
