"""Whatever a quote holds, the core answers as the slow reference does, and counts add up.

`HFT_FUZZ_CASES` sets how many random cases each test runs; the default is small.
"""

from __future__ import annotations

import datetime as dt
import gc
import os
import random
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgpack
import pytest
import shioaji as sj

from hft_platform.errors import ReasonCode
from hft_platform.feed import shioaji_wire
from tests.hft_platform.feed.shioaji_quotes import (
    CLASSES,
    NOW_NS,
    SECOND_NS,
    Raises,
    config_in,
    fields,
    lookalike,
    make_normaliser,
    quote,
    taipei_ns,
)
from tests.hft_platform.feed.shioaji_reference import Reference

CASES = int(os.environ.get("HFT_FUZZ_CASES", "1500"))
STREAM_LENGTH = 150
BAD_WIRE: tuple[Any, ...] = (
    None, True, False, 0, 1, 2, 3, 127, 128, 2**16, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, -1,
    -300, -(2**31), -(2**63), 1.5, float("nan"), float("inf"), "", "0", "-1", "abc", "NaN", "1e3",
    "1E-8", "20001.5", "9999999999.99999999", "10000000000", "1.123456789", "TXFD6", "x" * 70_000,
    b"\xff\x00", [], [1], ["1"] * 5, [1] * 5, [None] * 5, ["0"] * 5, [0] * 5, ["abc"] * 5,
    [2**40] * 5, ["1"] * 70, {}, {"a": 1}, "2026/04/10", "2026/02/30", "9999/12/31", "00:00:00",
    "24:00:00", "10:11:12", "10:11:12.3456789",
)  # fmt: skip
BAD_VALUES: tuple[Any, ...] = (
    None, True, 0, 1, -1, 3, 2**62, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**40, 1.5,
    float("nan"), "", "TXFD6", "2330", "\ud800", "x" * 1000, b"", Decimal(0), Decimal("-1"),
    Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("1E-8"), Decimal("1E-9"),
    Decimal("9999999999.99999999"), Decimal("1E+10"), Decimal("1E+999999"), Decimal("1E-999999"),
    Decimal("0E-50"), Decimal("20001.5"), Decimal("123456789012345678901234567890.1"),
    Decimal("0.1234567890123456789012345"), Decimal("2E+4"), dt.datetime.min, dt.datetime.max,
    dt.datetime(2000, 1, 1), dt.datetime(2000, 12, 31, 23), dt.datetime(2026, 4, 10),
    dt.datetime(2026, 4, 10, 10, 11, 11), dt.datetime(2026, 4, 10, 2, tzinfo=dt.UTC),
    dt.datetime(1969, 12, 31, 23, 59, 59, 999999), dt.date(2026, 4, 10), [], [1] * 5,
    [Decimal(5)] * 5, [Decimal(0)] * 5, [0] * 5, [Decimal(5 - n) for n in range(5)],
    [Decimal(5 + n) for n in range(5)], [2**63] * 5, [2**40] * 5, [Decimal(1)] * 4, [None] * 5,
    (1,) * 5, object(), Raises(ValueError("no")), Raises(BaseException("no")),
    Raises(MemoryError()), Raises(RecursionError()), Raises(StopIteration()),
)  # fmt: skip


class Int(int):
    """An integer that is none."""


class Text(str):
    """A text that is none."""


class Price(Decimal):
    """A decimal that is none, and whose text lies."""

    def __str__(self) -> str:
        return "20001"


SUBCLASSES: tuple[Any, ...] = (Int(3), Text("TXFD6"), Price("20001"))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Config of the test instruments."""
    return config_in(tmp_path_factory.mktemp("config"))


@pytest.fixture(autouse=True)
def _quiet_panics() -> Iterator[None]:
    """The SDK writes a line to stderr for each of its panics: millions of them are no log."""
    sys.stderr.flush()
    kept = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    yield
    os.dup2(kept, 2)
    os.close(sink)
    os.close(kept)


class Pair:
    """The core and the reference, fed the same."""

    def __init__(self, config: dict[str, Any], *more: Any, is_portable: bool = False) -> None:
        self.core = make_normaliser(config, *more, is_portable=is_portable)
        assert self.core.is_portable == is_portable
        self.reference = Reference(config)
        self.codes: dict[int, int] = {}
        self.published = 0

    def feed(self, one: Any, now_ns: int, class_name: str, what: object = "") -> bytes | None:
        """Feed both and compare."""
        tape = self.core.on_object(one, now_ns)
        expected = self.reference.feed(one, now_ns, class_name)
        if isinstance(expected, ReasonCode):
            assert tape is None, f"{what}: published, expected {expected.name}"
            self.codes[int(expected)] = self.codes.get(int(expected), 0) + 1
        else:
            assert tape == expected, what
            self.published += 1
        return tape

    def check_counts(self) -> None:
        """Published and dropped add up to fed, code by code as the reference says."""
        counters = self.core.counters()
        assert counters["dropped"] == self.codes
        assert counters["published"] == self.published
        assert counters["fed"] == self.published + sum(self.codes.values())


def test_every_wire_field_by_every_bad_value(config: dict[str, Any]) -> None:
    pair = Pair(config)
    undecodable = 0
    for class_name in CLASSES:
        for name in shioaji_wire.LAYOUTS[class_name]:
            for value in BAD_WIRE:
                try:
                    one = quote(class_name, **{name: value})
                except sj.ShioajiValueError:
                    undecodable += 1
                    continue
                pair.feed(one, NOW_NS, class_name, (class_name, name, value))
    pair.check_counts()
    assert undecodable > 0
    for code in (
        ReasonCode.FIELD_UNREADABLE,
        ReasonCode.EXCHANGE_DATE_INVALID,
        ReasonCode.EXCHANGE_TIME_INVALID,
        ReasonCode.PRICE_NOT_POSITIVE,
        ReasonCode.VALUE_OUT_OF_RANGE,
        ReasonCode.UNKNOWN_INSTRUMENT,
    ):
        assert pair.codes[code] > 0, code


def test_every_attribute_by_every_bad_value(config: dict[str, Any]) -> None:
    for class_name in CLASSES:
        kind = lookalike(class_name)
        pair = Pair(config, kind())
        assert pair.core.schema_faults == []
        for name in [name for name in dir(kind) if not name.startswith("_")]:
            for value in (*BAD_VALUES, *SUBCLASSES):
                pair.feed(kind(**{name: value}), NOW_NS, class_name, (class_name, name, value))
        pair.check_counts()


def mutated(rng: random.Random, class_name: str) -> Any:
    """A real quote with a few wire fields damaged, or None when the SDK cannot decode it."""
    names = shioaji_wire.LAYOUTS[class_name]
    wire = fields(class_name)
    for _ in range(rng.randint(0, 3)):
        name = rng.choice(names)
        if isinstance(wire[name], list) and wire[name] and rng.random() < 0.7:
            side = list(wire[name])
            side[rng.randrange(len(side))] = rng.choice(BAD_WIRE)
            wire[name] = side
        else:
            wire[name] = rng.choice(BAD_WIRE)
    packed = bytearray(msgpack.packb([wire[name] for name in names]))
    if rng.random() < 0.3:
        packed[rng.randrange(1, len(packed))] = rng.randrange(256)
    try:
        return getattr(sj, class_name).from_msgpack(bytes(packed))
    except BaseException as error:  # noqa: BLE001 - the SDK's own panics are not of `Exception`
        assert not isinstance(error, KeyboardInterrupt | SystemExit)
        return None


def test_random_damage_to_payloads(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # For text that is no UTF-8 the SDK reports to this hook before it panics.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    rng = random.Random(20260410)
    pair = Pair(config)
    for case in range(CASES):
        class_name = rng.choice(CLASSES)
        one = mutated(rng, class_name)
        if one is not None:
            pair.feed(one, NOW_NS + rng.randrange(-5, 65) * SECOND_NS, class_name, case)
    pair.check_counts()
    assert pair.published > 0
    assert pair.codes


@pytest.mark.parametrize("is_portable", [False, True])
def test_random_values_in_several_attributes(config: dict[str, Any], is_portable: bool) -> None:
    rng = random.Random(7)
    kinds = {class_name: lookalike(class_name) for class_name in CLASSES}
    pair = Pair(config, *(kind() for kind in kinds.values()), is_portable=is_portable)
    assert pair.core.schema_faults == []
    read = ("code", "datetime", "close", "volume", "total_volume", "tick_type", "bid_price",
            "bid_volume", "ask_price", "ask_volume", "bid_total_vol", "simtrade")  # fmt: skip
    for case in range(CASES):
        class_name = rng.choice(CLASSES)
        names = [name for name in read if hasattr(kinds[class_name], name)]
        chosen = rng.sample(names, rng.randint(0, 2))
        changes = {name: rng.choice(BAD_VALUES) for name in chosen}
        pair.feed(kinds[class_name](**changes), NOW_NS, class_name, (case, class_name, changes))
    pair.check_counts()


@pytest.mark.parametrize("is_portable", [False, True])
def test_any_moment_is_read_as_the_reference_reads_it(
    config: dict[str, Any], is_portable: bool
) -> None:
    rng = random.Random(11)
    kind = lookalike("BidAskSTKv1")
    pair = Pair(config, kind(), is_portable=is_portable)
    span = (dt.datetime.max - dt.datetime.min) // dt.timedelta(microseconds=1)
    near = dt.datetime(2026, 4, 10, 8, 30)
    zones = (None, None, None, dt.UTC, dt.timezone(dt.timedelta(hours=8)))
    for case in range(CASES):
        if rng.random() < 0.3:
            moment = dt.datetime.min + dt.timedelta(microseconds=rng.randrange(span))
        else:
            moment = near + dt.timedelta(microseconds=rng.randrange(6 * 3600 * 1_000_000))
        moment = moment.replace(tzinfo=rng.choice(zones), fold=rng.randrange(2))
        wall = (moment.replace(tzinfo=None) - dt.datetime(1970, 1, 1)) // dt.timedelta(
            microseconds=1
        )
        now_ns = wall * 1000 - 28_800 * SECOND_NS + rng.randrange(SECOND_NS)
        now_ns = max(-(2**63), min(now_ns, 2**63 - 1))
        pair.feed(kind(datetime=moment), now_ns, "BidAskSTKv1", (case, moment))
    pair.check_counts()
    assert pair.published > 0


def stream_quote(rng: random.Random, at_ns: int, totals: dict[str, int]) -> tuple[str, Any]:
    """A quote of a market that is mostly as it should be."""
    class_name = rng.choice(CLASSES)
    is_stock = "STK" in class_name
    code = "2330" if is_stock else rng.choice(("TXFD6", "EXFD6"))
    tick = Decimal({"2330": "5", "TXFD6": "1", "EXFD6": "0.05"}[code])
    wall = at_ns // 1000 * 1000 - rng.choice((0, 0, 0, 1_000_000_000, 61_000_000_000))
    moment = dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=wall // 1000, hours=8)
    changes: dict[str, Any] = {
        "code": code,
        "date": moment.strftime("%Y/%m/%d"),
        "time": moment.strftime("%H:%M:%S.%f"),
        "simtrade": int(rng.random() < 0.05),
    }
    mid = rng.randint(400, 40_000)
    if "close" in shioaji_wire.LAYOUTS[class_name]:
        volume = rng.choice((0, 1, 1, 2, 3, 17))
        total = totals.get(code, 0) + rng.choice((volume, volume, volume, volume, 0, -1, 5, 25))
        total = max(total, 0)
        totals[code] = max(total, totals.get(code, 0))
        changes |= {
            "close": str(mid * tick),
            "volume": volume,
            "total_volume": total,
            "tick_type": rng.choice((0, 1, 2)),
        }
    if "bid_price" in shioaji_wire.LAYOUTS[class_name]:
        shown = rng.choice((5, 5, 5, 3, 0))
        for side, sign in (("bid", -1), ("ask", 1)):
            offsets = sorted(rng.sample(range(1, 12), shown))
            prices = [str((mid + sign * offset) * tick) for offset in offsets]
            volumes = [rng.randint(1, 500) for _ in offsets]
            changes[f"{side}_price"] = prices + ["0"] * (5 - shown)
            changes[f"{side}_volume"] = volumes + [0] * (5 - shown)
            if class_name == "BidAskFOPv1":
                changes[f"{side}_total_vol"] = sum(volumes)
    return class_name, quote(class_name, **changes)


@pytest.mark.parametrize(
    "opening",
    [
        "2026-04-09 14:58:30",  # pre-open, then night
        "2026-04-09 23:58:30",  # across midnight
        "2026-04-10 04:57:30",  # into the close
        "2026-04-10 08:43:30",  # pre-open, then day
        "2026-04-10 08:58:30",  # the stock's open
        "2026-04-10 13:28:00",  # the stock closes, the future goes on
        "2026-04-10 23:58:30",  # the night that is Monday's
    ],
)
def test_random_streams_of_all_classes(config: dict[str, Any], opening: str) -> None:
    rng = random.Random(opening)
    published, codes = 0, set()
    for run in range(1 + CASES // STREAM_LENGTH):
        pair, totals = Pair(config), {}
        at_ns = taipei_ns(opening)
        for case in range(STREAM_LENGTH):
            at_ns += rng.choice((0, 1, 250_000, 125_000_000, 2 * SECOND_NS, 7 * SECOND_NS))
            class_name, one = stream_quote(rng, at_ns, totals)
            now_ns = at_ns + rng.choice((3_000_000, 0, -1_000_000, 3 * SECOND_NS))
            pair.feed(one, now_ns, class_name, (opening, run, case))
        pair.check_counts()
        published += pair.published
        codes |= set(pair.codes)
    assert published > CASES // 10
    assert codes >= {
        ReasonCode.DUPLICATE_ROW,
        ReasonCode.OUT_OF_ORDER_ROW,
        ReasonCode.TOTAL_VOLUME_BROKEN,
        ReasonCode.EXCHANGE_TIME_BEHIND,
        ReasonCode.QTY_NOT_POSITIVE,
    }


def test_nothing_is_kept_of_the_objects_that_went_through(config: dict[str, Any]) -> None:
    kind = lookalike("QuoteSTKv1")
    normaliser = make_normaliser(config, kind())
    good, bad = quote("BidAskFOPv1"), quote("TickFOPv1", volume=-300)
    odd = kind(close=Raises(ValueError("no")))

    def feed(count: int) -> int:
        for _ in range(count):
            for one in (good, bad, odd, None):
                normaliser.on_object(one, NOW_NS)
            odd._reads.clear()
        gc.collect()
        return sys.getallocatedblocks()

    feed(100)
    before = feed(100)
    after = feed(3_000)
    assert after - before < 500, f"{after - before} blocks more after 12,000 objects"


def test_the_reference_and_the_core_would_be_told_apart(config: dict[str, Any]) -> None:
    """The comparison sees a reference that differs by one rule."""
    lax = config | {"exchange_behind_ns_max": config["exchange_behind_ns_max"] + SECOND_NS}
    pair = Pair(config)
    pair.reference = Reference(lax)
    late = NOW_NS + config["exchange_behind_ns_max"]
    with pytest.raises(AssertionError):
        pair.feed(quote("TickFOPv1"), late, "TickFOPv1")
