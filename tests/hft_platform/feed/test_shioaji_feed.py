"""The feed subscribes within the limit and knows silence from a closed market."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("SJ_LOG_PATH", os.devnull)

import pytest
import shioaji as sj

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.feed.shioaji_feed import ShioajiFeed
from tests.hft_platform.feed.shioaji_quotes import NOW_NS, instruments_in, quote, taipei_ns
from tests.hft_platform.order.shioaji_fake import SECOND_NS, broker_settings


class Source:
    """Keeps what was asked; fails when told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.error: PlatformError | None = None

    def subscribe_topic(self, symbol: str, topic: str) -> None:
        if self.error is not None:
            raise self.error
        self.asked.append(("on", symbol, topic))

    def unsubscribe_topic(self, symbol: str, topic: str) -> None:
        self.asked.append(("off", symbol, topic))

    def snapshots(self, symbols: list[str]) -> list[Any]:
        raise PlatformError(ReasonCode.BROKER_QUERY_FAILED, "not today")


@pytest.fixture
def tapes() -> list[bytes]:
    """What the feed passed on."""
    return []


@pytest.fixture
def feed(tmp_path: Path, tapes: list[bytes]) -> ShioajiFeed:
    """A feed of two futures."""
    table = instruments_in(tmp_path)
    rows = [table.by_symbol(symbol) for symbol in ("TXFD6", "EXFD6")]
    return ShioajiFeed(rows, broker_settings(), on_market=tapes.append, now_ns=NOW_NS, sdk=sj)


AGAIN = [
    ("off", "TXFD6", "tick"),
    ("on", "TXFD6", "tick"),
    ("off", "TXFD6", "bid_ask"),
    ("on", "TXFD6", "bid_ask"),
]


def test_silence_in_the_session_subscribes_again_once_in_each_limit(
    feed: ShioajiFeed, tapes: list[bytes]
) -> None:
    source = Source()
    feed.subscribe(["TXFD6", "TXFD6"], source, NOW_NS)
    feed.subscribe(["TXFD6"], source, NOW_NS)
    assert source.asked == [("on", "TXFD6", "tick"), ("on", "TXFD6", "bid_ask")]
    feed.on_quote(quote("TickFOPv1"), NOW_NS + 10 * SECOND_NS)
    assert len(tapes) == 1
    source.asked.clear()
    found = [
        second
        for second in range(60)
        if feed.step(source, NOW_NS + second * SECOND_NS) == ["TXFD6"]
    ]
    assert found == [25, 40, 55]
    assert source.asked == AGAIN * 3
    assert feed.silence_count == 3


def test_a_dropped_quote_is_no_sign_of_life(feed: ShioajiFeed, tapes: list[bytes]) -> None:
    source = Source()
    feed.subscribe(["TXFD6"], source, NOW_NS)
    for second in range(14):
        feed.on_quote(quote("TickFOPv1", close="0"), NOW_NS + second * SECOND_NS)
    assert tapes == []
    assert feed.step(source, NOW_NS + 15 * SECOND_NS) == ["TXFD6"]


def test_a_closed_market_is_not_silent(feed: ShioajiFeed) -> None:
    source = Source()
    feed.subscribe(["TXFD6"], source, NOW_NS)
    closed = (
        ("2026-04-10 13:45:00", []), ("2026-04-10 14:59:59", []), ("2026-04-10 15:00:10", []),
        ("2026-04-10 15:00:15", ["TXFD6"]), ("2026-04-11 05:00:00", []),
        ("2026-04-12 12:00:00", []), ("2026-04-13 08:40:00", []),
        ("2026-04-13 08:45:16", ["TXFD6"]), ("2026-04-15 13:29:59", ["TXFD6"]),
        ("2026-04-15 13:30:01", []), ("2026-04-16 10:00:00", []),
    )  # fmt: skip
    for text, expected in closed:
        assert feed.step(source, taipei_ns(text)) == expected, text


def test_a_failed_resubscription_is_tried_again_after_the_limit(feed: ShioajiFeed) -> None:
    source = Source()
    feed.subscribe(["TXFD6"], source, NOW_NS)
    source.error = PlatformError(ReasonCode.BROKER_UNREACHABLE, "down")
    found = [second for second in range(46) if feed.step(source, NOW_NS + second * SECOND_NS)]
    assert found == [15, 30, 45]


def test_more_than_the_broker_allows_is_refused_before_anything_is_subscribed(
    tmp_path: Path,
) -> None:
    one = instruments_in(tmp_path).by_symbol("TXFD6")
    rows = [replace(one, symbol=f"T{n:04d}", instrument_id=7000 + n) for n in range(101)]
    feed = ShioajiFeed(rows, broker_settings(), on_market=print, now_ns=NOW_NS, sdk=sj)
    source = Source()
    symbols = [row.symbol for row in rows]
    for wanted, code in (
        (symbols, ReasonCode.SUBSCRIPTION_LIMIT),
        ([*symbols[:3], "TXFZ6"], ReasonCode.CONTRACT_UNKNOWN),
    ):
        with pytest.raises(PlatformError) as caught:
            feed.subscribe(wanted, source, NOW_NS)
        assert caught.value.code == code
        assert source.asked == []
    feed.subscribe(symbols[:100], source, NOW_NS)
    assert len(source.asked) == 200
