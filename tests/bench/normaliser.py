"""What it costs to make a record of a broker quote, beside merely reading its attributes.

Both are done in Rust, on the same SDK objects, in batches that alternate within one run:
`read_attributes` reads the same names once and does nothing else, `on_objects` makes the records.
The objects are built offline and touched once before they are timed, as the object of a callback
has just been built. ``python -m tests.bench.normaliser`` prints the figures as JSON.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.run import RUNS, machine, spread

BATCH = 100
BATCHES = 120
HEADLINE = ("TickFOPv1", "BidAskFOPv1")
EPOCH = dt.datetime(1970, 1, 1)
MICROSECOND = dt.timedelta(microseconds=1)
TRADE = struct.Struct("<HBBIQQqqqIHHIIqqQq")
BOOK = struct.Struct("<HBBIQQqqqIHHII20q")
HEADROOM = {"TickFOPv1": TRADE.size, "BidAskFOPv1": BOOK.size}


def quotes(class_name: str, count: int) -> tuple[list[Any], list[int]]:
    """Objects of one class, eight a second, each with the next total volume, and their times."""
    from hft_platform.feed import shioaji_wire
    from tests.hft_platform.feed.shioaji_quotes import quote, taipei_ns

    is_stock = "STK" in class_name
    layout = shioaji_wire.LAYOUTS[class_name]
    opening_ns = taipei_ns("2026-04-10 09:00:00.000123")
    objects, times = [], []
    for place in range(count):
        at = dt.datetime(2026, 4, 10, 9, 0, 0, 123) + dt.timedelta(milliseconds=125 * place)
        changes: dict[str, Any] = {"time": at.strftime("%H:%M:%S.%f")}
        if "close" in layout:
            price = 2200 + 5 * (place % 9) if is_stock else 20_000 + place % 9
            changes |= {"close": str(price), "total_volume": 4321 + 3 * place}
        objects.append(quote(class_name, **changes))
        times.append(opening_ns + 125_000_000 * place + 1_000_000)
    return objects, times


def plain_python(one: Any, now_ns: int) -> bytes:
    """What a careful Python adapter does with a futures quote: exact decimals, one record."""
    micros = (one.datetime - EPOCH) // MICROSECOND
    head = (1, 1001, 0, 1, micros * 1000 - 28_800_000_000_000, now_ns, 0)
    flags = 1 if one.simtrade else 0
    tail = (flags, 4, 0, 20260410 if one.code == "TXFD6" else 0, 0)
    if type(one).__name__ == "TickFOPv1":
        price = int(one.close.scaleb(8))
        side = {1: 1, 2: -1}.get(one.tick_type, 0)
        body = (price, one.volume * 100_000_000, one.total_volume, side)
        return TRADE.pack(TRADE.size, 2, *head, *tail, *body)
    levels: list[int] = []
    for prices, volumes in (
        (one.bid_price, one.bid_volume),
        (one.ask_price, one.ask_volume),
    ):
        levels += [int(price.scaleb(8)) for price in prices]
        levels += [volume * 100_000_000 for volume in volumes]
    return BOOK.pack(BOOK.size, 1, *head, *tail, *levels)


def timed(function: Callable[..., Any], *arguments: Any) -> float:
    """Nanoseconds an object."""
    started = time.perf_counter_ns()
    function(*arguments)
    return (time.perf_counter_ns() - started) / BATCH


def measure(class_name: str, config: dict[str, Any]) -> dict[str, float]:
    """Medians of one run: ns to read, ns to convert, and their ratio batch by batch."""
    from tests.hft_platform.feed.shioaji_quotes import make_normaliser

    normaliser = make_normaliser(config)
    objects, times = quotes(class_name, BATCH * BATCHES)
    read, convert, ratio, python = [], [], [], []
    for place in range(BATCHES):
        part = slice(place * BATCH, (place + 1) * BATCH)
        batch, now = objects[part], times[part]
        packed = struct.pack(f"<{BATCH}q", *now)
        normaliser.read_attributes(batch)
        if place % 2:
            read_ns = timed(normaliser.read_attributes, batch)
            convert_ns = timed(normaliser.on_objects, batch, packed)
        else:
            convert_ns = timed(normaliser.on_objects, batch, packed)
            read_ns = timed(normaliser.read_attributes, batch)
        read.append(read_ns)
        convert.append(convert_ns)
        ratio.append(convert_ns / read_ns)
        if class_name in HEADLINE:
            python.append(timed(lambda: [plain_python(*pair) for pair in zip(batch, now)]))  # noqa: B023, B905
    counters = normaliser.counters()
    # What was timed did make records.
    if counters["published"] != BATCH * BATCHES:
        raise RuntimeError(f"{class_name}: not every quote was converted: {counters}")
    return {
        "read": statistics.median(read),
        "convert": statistics.median(convert),
        "ratio": statistics.median(ratio),
        "python": statistics.median(python) if python else 0.0,
    }


def check_plain_python(config: dict[str, Any]) -> None:
    """The Python adapter makes the same record, so the comparison is of equal work."""
    from tests.hft_platform.feed.shioaji_quotes import make_normaliser

    for class_name in HEADLINE:
        (one,), (now_ns,) = quotes(class_name, 1)
        made = bytearray(make_normaliser(config).on_object(one, now_ns) or b"")
        ours, theirs = made[: HEADROOM[class_name]], plain_python(one, now_ns)
        # It knows no sequence and no session: these fields are ours alone.
        for field in (slice(16, 24), slice(48, 52)):
            ours[field] = theirs[field]
        if bytes(ours) != theirs:
            raise RuntimeError(f"{class_name}: the Python adapter makes another record")


def normaliser() -> dict[str, Any]:
    """Figures of the normaliser."""
    os.environ.setdefault("SJ_LOG_PATH", os.devnull)
    from tests.hft_platform.feed.shioaji_quotes import CLASSES, config_in

    with tempfile.TemporaryDirectory() as folder:
        config = config_in(Path(folder))
    check_plain_python(config)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in CLASSES}
    for _ in range(RUNS):
        for class_name in CLASSES:
            rows[class_name].append(measure(class_name, config))
    worst = max(HEADLINE, key=lambda name: statistics.median(r["ratio"] for r in rows[name]))
    figures = {
        "normaliser.over_attribute_read": spread(
            [row["ratio"] for row in rows[worst]],
            f"ratio ({worst})",
            "a record costs at most 1.6 times the SDK's own attribute reads",
        )
    }
    for class_name, measured in rows.items():
        name = f"normaliser.{class_name}"
        for key, unit, protects in (
            ("ratio", "ratio", "the same for this class"),
            ("read", "ns", "the floor: reading the same attributes from Rust"),
            ("convert", "ns", "callback to record"),
        ):
            figures[f"{name}.{key}"] = spread([row[key] for row in measured], unit, protects)
        if class_name in HEADLINE:
            figures[f"{name}.python_over_core"] = spread(
                [row["python"] / row["convert"] for row in measured],
                "ratio",
                "what the core saves against a Python adapter",
            )
    return figures


def main() -> int:
    """Print the figures as JSON."""
    content = {"machine": machine(), "load": os.getloadavg(), "figures": normaliser()}
    sys.stdout.write(json.dumps(content, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
