"""Real SDK quotes without a broker, look-alikes that can hold anything, and instruments for them.

`quote("TickFOPv1", close="20001.5")` decodes a wire payload into an object of the SDK's own class:
what a callback delivers. `lookalike` makes a class with the same name and attributes whose values
are ours, for what a payload cannot carry.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

# The SDK panics on some damaged payloads; with a backtrace each one takes up to 0.1 s.
os.environ["RUST_BACKTRACE"] = "0"
# Importing it leaves an empty log in the working folder otherwise.
os.environ.setdefault("SJ_LOG_PATH", os.devnull)

import shioaji as sj

from hft_platform import _core, records
from hft_platform.config.canonical import canonical_json
from hft_platform.feed import shioaji_wire
from hft_platform.feed.shioaji_normaliser import NormaliserLimits, normaliser_config
from hft_platform.market.instruments import InstrumentTable, load_instruments

CLASSES = tuple(shioaji_wire.LAYOUTS)
TAIPEI = dt.timezone(dt.timedelta(hours=8))
SCALE = 100_000_000
SECOND_NS = 1_000_000_000
LIMITS = NormaliserLimits(
    exchange_ahead_ns_max=2 * SECOND_NS,
    exchange_behind_ns_max=60 * SECOND_NS,
    on_total_mismatch="drop",
)
STOCKS = """
schema: 1
calendars:
  twse:
    kind: exchange
    utc_offset: "+08:00"
    sessions:
      day:
        {open: "09:00", close: "13:30", trading_day: same, close_only_s: 300, force_flat_s: 60,
         preopen_s: 1800, no_cancel_s: 0, close_auction_s: 0}
    last_day_close: null
    holidays: []
    without_night: []
    extra_days: []
    early_closes: {}
products:
  STK:
    venue: TWSE
    kind: stock
    currency: TWD
    tick_size: 5
    lot_size: 1000
    multiplier: 1
    calendar: twse
    costs: {kind: value_bps, maker_bps: 30.0, taker_bps: 30.0}
    price_limit_bps: 1000
    roll_rule: {kind: none, trading_days_before: 0}
    gap_ms: 60000
    order_lots_max: null
    banding_bps: null
    eligibility: full
  STK.ODD:
    venue: TWSE
    kind: stock
    currency: TWD
    tick_size: 5
    lot_size: 1
    multiplier: 1
    calendar: twse
    costs: {kind: value_bps, maker_bps: 30.0, taker_bps: 30.0}
    price_limit_bps: 1000
    roll_rule: {kind: none, trading_days_before: 0}
    gap_ms: 60000
    order_lots_max: null
    banding_bps: null
    eligibility: full
  EXF:
    venue: TAIFEX
    kind: future
    currency: TWD
    tick_size: "0.05"
    lot_size: 1
    multiplier: 4000
    calendar: taifex_index
    costs: {kind: taifex_future, tax_rate_ppb: 20000, tax_round: true, commission_per_lot: 60}
    price_limit_bps: 1000
    roll_rule: {kind: none, trading_days_before: 0}
    gap_ms: 5000
    order_lots_max: null
    banding_bps: null
    eligibility: full
instruments:
  "2330":
    {instrument_id: 5001, product: STK, last_trading_day: 0, recording_names: ["2330_*"]}
  "2330.ODD":
    {instrument_id: 5002, product: STK.ODD, last_trading_day: 0, recording_names: ["ODD_2330_*"]}
  EXFD6:
    {instrument_id: 1101, product: EXF, last_trading_day: 20260415, recording_names: ["EXFD6_*"]}
"""
SYMBOLS = ("TXFD6", "EXFD6", "2330", "2330.ODD")


def taipei_ns(text: str) -> int:
    """UTC ns of a Taipei time like ``2026-04-10 09:00:00.125``."""
    moment = dt.datetime.fromisoformat(text).replace(tzinfo=TAIPEI)
    since = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


NOW_NS = taipei_ns("2026-04-10 10:11:12.345678") + 3_000_000
"""Three ms after the time in the samples."""


def instruments_in(folder: Path) -> InstrumentTable:
    """The packaged instruments, a stock with its odd lots and a future with a tick of 0.05."""
    (folder / "instruments").mkdir(parents=True, exist_ok=True)
    (folder / "instruments" / "stocks.yaml").write_text(STOCKS)
    return load_instruments(folder)


def config_in(
    folder: Path, *, limits: NormaliserLimits = LIMITS, symbols: tuple[str, ...] = SYMBOLS
) -> dict[str, Any]:
    """Config of a normaliser for April 2026."""
    table = instruments_in(folder)
    return normaliser_config(
        [table.by_symbol(symbol) for symbol in symbols],
        first_ns=taipei_ns("2026-04-01 00:00:00"),
        last_ns=taipei_ns("2026-04-16 00:00:00"),
        limits=limits,
    )


@cache
def probes() -> tuple[Any, ...]:
    """An object of every class of the SDK."""
    return tuple(shioaji_wire.probes(sj))


def make_normaliser(
    config: dict[str, Any],
    *more: Any,
    version: str = sj.__version__,
    is_portable: bool = False,
) -> Any:
    """A normaliser that admits `more` instead of the SDK's classes of the same names."""
    replaced = {type(probe).__name__ for probe in more}
    kept = [probe for probe in probes() if type(probe).__name__ not in replaced]
    text = canonical_json(config).decode()
    return _core.Normaliser(text, version, [*kept, *more], is_portable)


def fields(class_name: str, **changes: Any) -> dict[str, Any]:
    """Wire fields of a plausible quote, with changes."""
    unknown = set(changes) - set(shioaji_wire.LAYOUTS[class_name])
    assert not unknown, f"{class_name} has no {unknown}"
    return shioaji_wire.sample(class_name) | changes


def quote(class_name: str, **changes: Any) -> Any:
    """A real object of the SDK."""
    wire = shioaji_wire.encode(class_name, fields(class_name, **changes))
    return getattr(sj, class_name).from_msgpack(wire)


def stamp(text: str) -> dict[str, str]:
    """Wire date and time of ``2026-04-10 09:00:00.125``."""
    day, _, clock = text.partition(" ")
    return {"date": day.replace("-", "/"), "time": clock}


def lookalike(class_name: str) -> type:
    """A class with the name and attributes of an SDK class; values come from a dict.

    A value of type `Raises` raises; the names that were read are kept in `_reads`.
    """
    names = [name for name in dir(getattr(sj, class_name)) if not name.startswith("_")]

    def __init__(self: Any, **changes: Any) -> None:
        real = quote(class_name)
        self._values = {name: getattr(real, name) for name in names} | changes
        self._reads = []

    def reader(name: str) -> property:
        def read(self: Any) -> Any:
            self._reads.append(name)
            value = self._values[name]
            if isinstance(value, Raises):
                raise value.error
            return value

        return property(read)

    body: dict[str, Any] = {name: reader(name) for name in names}
    return type(class_name, (), body | {"__init__": __init__})


class Raises:
    """A value of a look-alike that raises when it is read."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def parts(tape: bytes | None) -> list[np.void]:
    """Records of a tape in their order."""
    found: list[np.void] = []
    rest = tape or b""
    names = {code: name for name, code in records.TYPE_CODES.items()}
    while rest:
        size = int.from_bytes(rest[:2], "little")
        found.append(np.frombuffer(rest[:size], dtype=records.DTYPES[names[rest[2]]])[0])
        rest = rest[size:]
    return found


def dropped(normaliser: Any) -> dict[int, int]:
    """Drops by code."""
    counts: dict[int, int] = normaliser.counters()["dropped"]
    return counts


def each_class() -> Iterator[tuple[str, Any]]:
    """Every class with a real object of it."""
    for class_name in CLASSES:
        yield class_name, quote(class_name)
