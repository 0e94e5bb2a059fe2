"""Instruments: ticks, lots, multipliers, sessions, costs and contract ends, defined once.

Why: gates, runtime, risk and cost analysis must not each know their own multiplier.

Invariants:
1. Symbol and instrument id are unique; an id never changes its meaning between versions.
2. Every quantity is an integer at 1e-8; a value that does not fit exactly is refused.
3. An unknown symbol or file name is an error that says which YAML to add; nothing is guessed.
4. `config/instruments/*.yaml` adds to the packaged defaults, or replaces them by name.

It asks no broker: dates come from the contract, the third Wednesday is only a check.
Operator's page: `docs/instruments.md`.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hft_platform.config.canonical import canonical_sha256
from hft_platform.config.yaml_files import parse_yaml, read_yaml
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.costs import CostModel
from hft_platform.market.instrument_files import CALENDAR_OF, Layer, Merged, ProductModel, merge
from hft_platform.market.sessions import Calendar, third_wednesday, yyyymmdd


@dataclass(frozen=True, slots=True)
class RollRule:
    """What becomes of a position before its contract ends.

    Attributes
    ----------
    kind : str
        ``none`` or ``flatten_before_last_trading_day``.
    trading_days_before : int
        How many trading days before the last one; 0 is the last day itself.
    """

    kind: str
    trading_days_before: int


@dataclass(frozen=True, slots=True)
class Instrument:
    """One tradable contract.

    Attributes
    ----------
    instrument_id : int
        Stable number in records, from YAML.
    symbol, product_root, venue, kind, currency : str
        ``TXFD6``, ``TXF``, ``TAIFEX``, ``future``, ``TWD``.
    tick_size, lot_size, multiplier : int
        Scaled; `multiplier` is money per 1.0 of price and 1.0 of quantity.
    last_trading_day : int
        yyyymmdd, 0 when the contract does not end.
    calendar : str
        Name of its calendar.
    calendar_rule : ExchangeCalendar or ContinuousCalendar
        The calendar itself.
    costs : TaifexFutureCosts or ValueBpsCosts
        The cost model.
    price_limit_bps : int or None
        Daily limit around the reference price.
    order_qty_max : int or None
        Largest quantity the exchange takes in one order, scaled; None where it has no cap.
    banding_bps : int or None
        Width of the exchange's dynamic price band around the last print; None where there is none.
    eligibility : str
        ``full``, ``no_day_trade``, ``disposition`` or ``closed``.
    roll_rule : RollRule
        What becomes of a position before the contract ends.
    gap_ns : int
        Silence after which time windows start over.
    recording_names : tuple of str
        Patterns of recording file names, as in ``TXFD6_*``.
    """

    instrument_id: int
    symbol: str
    product_root: str
    venue: str
    kind: str
    currency: str
    tick_size: int
    lot_size: int
    multiplier: int
    last_trading_day: int
    calendar: str
    calendar_rule: Calendar
    costs: CostModel
    price_limit_bps: int | None
    order_qty_max: int | None
    banding_bps: int | None
    eligibility: str
    roll_rule: RollRule
    gap_ns: int
    recording_names: tuple[str, ...]

    def costs_json(self) -> dict[str, Any]:
        """Cost model as the core parses it."""
        return self.costs.as_dict()

    def daily_limits(self, reference_price: int) -> tuple[int, int] | None:
        """Limit-up and limit-down prices around a reference, rounded inward to the tick."""
        if self.price_limit_bps is None:
            return None
        band, tick = reference_price * self.price_limit_bps, self.tick_size
        up = (reference_price * 10_000 + band) // 10_000 // tick * tick
        down = -((-(reference_price * 10_000 - band) // 10_000) // tick) * tick
        return up, down

    def as_dict(self) -> dict[str, Any]:
        """Everything that changes what ingestion makes of a row, for content hashes."""
        rule = asdict(self.calendar_rule)
        plain = {k: sorted(v) if isinstance(v, frozenset) else v for k, v in rule.items()}
        return {
            "instrument_id": self.instrument_id,
            "symbol": self.symbol,
            "product_root": self.product_root,
            "venue": self.venue,
            "kind": self.kind,
            "currency": self.currency,
            "tick_size": self.tick_size,
            "lot_size": self.lot_size,
            "multiplier": self.multiplier,
            "last_trading_day": self.last_trading_day,
            "calendar": plain,
            "costs": self.costs.as_dict(),
            "price_limit_bps": self.price_limit_bps,
            "order_qty_max": self.order_qty_max,
            "banding_bps": self.banding_bps,
            "eligibility": self.eligibility,
            "roll_rule": asdict(self.roll_rule),
            "gap_ns": self.gap_ns,
        }


class InstrumentTable:
    """All instruments of a configuration, looked up by symbol, id or recording name.

    Parameters
    ----------
    instruments : mapping of str to Instrument
        By symbol.
    products : mapping of str to ProductModel, optional
        Known product roots, for the advice in errors.
    """

    __slots__ = ("_by_id", "_by_symbol", "_products")

    def __init__(
        self,
        instruments: Mapping[str, Instrument],
        products: Mapping[str, ProductModel] | None = None,
    ) -> None:
        self._by_symbol = dict(sorted(instruments.items()))
        self._by_id = {row.instrument_id: row for row in self._by_symbol.values()}
        self._products = dict(products or {})

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._by_symbol.values())

    def __len__(self) -> int:
        return len(self._by_symbol)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._by_symbol

    @property
    def symbols(self) -> tuple[str, ...]:
        """Known symbols, sorted."""
        return tuple(self._by_symbol)

    @property
    def sha256(self) -> str:
        """Content hash of every instrument."""
        return canonical_sha256([row.as_dict() for row in self])

    def by_symbol(self, symbol: str) -> Instrument:
        """Find an instrument by its symbol.

        Raises
        ------
        PlatformError
            UNKNOWN_INSTRUMENT with the YAML to add.
        """
        found = self._by_symbol.get(symbol)
        if found is None:
            raise self._unknown(f"symbol {symbol} is in no instruments file", symbol, f"{symbol}_*")
        return found

    def by_id(self, instrument_id: int) -> Instrument:
        """Find an instrument by its number.

        Raises
        ------
        PlatformError
            UNKNOWN_INSTRUMENT.
        """
        found = self._by_id.get(instrument_id)
        if found is None:
            raise PlatformError(
                ReasonCode.UNKNOWN_INSTRUMENT,
                f"instrument id {instrument_id} is in no instruments file",
                next_step=f"add an instrument with `instrument_id: {instrument_id}` to"
                " config/instruments/*.yaml; config/instruments/README.md has an example",
            )
        return found

    def by_recording_name(self, name: str) -> Instrument:
        """Find the instrument whose `recording_names` match a file name.

        Raises
        ------
        PlatformError
            UNKNOWN_INSTRUMENT when none or more than one matches.
        """
        found = [
            row
            for row in self
            if any(fnmatchcase(name, pattern) for pattern in row.recording_names)
        ]
        if len(found) > 1:
            raise PlatformError(
                ReasonCode.UNKNOWN_INSTRUMENT,
                f"file name {name} matches {', '.join(row.symbol for row in found)}",
                next_step="make their `recording_names` in config/instruments narrower",
            )
        if not found:
            stem = name.split("_20")[0].split(".")[0].rstrip("_")
            raise self._unknown(
                f"no instrument has a recording name that matches {name}", stem, f"{stem}_*"
            )
        return found[0]

    def _unknown(self, message: str, hint: str, pattern: str) -> PlatformError:
        yaml_text = _advice(self._products, hint, pattern, max(self._by_id, default=0) + 1)
        return PlatformError(
            ReasonCode.UNKNOWN_INSTRUMENT,
            f"{message}; known are {', '.join(self.symbols)}",
            next_step=f"add to config/instruments/local.yaml (correct it first):\n{yaml_text}",
            facts={"yaml": yaml_text, "hint": hint},
        )


def load_instruments(config_dir: Path | None = None) -> InstrumentTable:
    """Read the packaged instruments and those of a configuration folder.

    Parameters
    ----------
    config_dir : Path, optional
        Folder that holds ``instruments/*.yaml``; by default ``config`` in the working folder.
        A folder without instruments leaves the packaged ones.

    Returns
    -------
    InstrumentTable
        Every instrument, checked.

    Raises
    ------
    PlatformError
        SETTINGS_INVALID naming file, field, value and what is allowed.
    """
    layers = [*_packaged_layers()]
    folder = (config_dir if config_dir is not None else Path("config")) / "instruments"
    if folder.is_dir():
        paths = sorted(folder.glob("*.yaml"))
        layers += [Layer.parse(read_yaml(path), str(path)) for path in paths]
    merged = merge(layers)
    return InstrumentTable(
        {symbol: _instrument(symbol, merged) for symbol in merged.instruments}, merged.products
    )


def _packaged_layers() -> Iterator[Layer]:
    folder = importlib.resources.files("hft_platform") / "defaults" / "instruments"
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.name.endswith(".yaml"):
            name = f"hft_platform/defaults/instruments/{item.name}"
            yield Layer.parse(parse_yaml(item.read_bytes(), name=name), name)


def _instrument(symbol: str, merged: Merged) -> Instrument:
    row = merged.instruments[symbol]
    product = merged.products[row.product]
    calendar = merged.calendars[product.calendar]
    return Instrument(
        instrument_id=row.instrument_id,
        symbol=symbol,
        product_root=row.product,
        venue=product.venue,
        kind=product.kind,
        currency=product.currency,
        tick_size=product.tick_size,
        lot_size=product.lot_size,
        multiplier=product.multiplier,
        last_trading_day=row.last_trading_day,
        calendar=product.calendar,
        calendar_rule=CALENDAR_OF[type(calendar)](product.calendar, calendar),
        costs=product.costs.model(),
        price_limit_bps=product.price_limit_bps,
        order_qty_max=product.order_lots_max and product.order_lots_max * product.lot_size,
        banding_bps=product.banding_bps,
        eligibility=product.eligibility,
        roll_rule=RollRule(product.roll_rule.kind, product.roll_rule.trading_days_before),
        gap_ns=product.gap_ms * 1_000_000,
        recording_names=tuple(row.recording_names),
    )


def _advice(
    products: Mapping[str, ProductModel], hint: str, pattern: str, instrument_id: int
) -> str:
    """YAML block for an unknown name, filled in as far as the name allows."""
    crypto = re.fullmatch(r"(usdm|spot)_+([a-z0-9]+)", hint)
    if crypto is not None:
        symbol = f"{crypto[2].upper()}.{crypto[1].upper()}"
        head, root, day = (
            _CRYPTO_PRODUCT.format(
                root=symbol,
                venue=f"BINANCE_{crypto[1].upper()}",
                kind="perpetual" if crypto[1] == "usdm" else "spot",
            ),
            symbol,
            "0   # does not end",
        )
        pattern = f'{crypto[1]}_{crypto[2]}_*", "{crypto[1]}__{crypto[2]}_*'
    else:
        symbol = hint.upper()
        known = max((name for name in products if symbol.startswith(name)), key=len, default=None)
        head, root = ("", known) if known else (_FUTURE_PRODUCT, "NEW_PRODUCT")
        day = _usual_last_day(symbol)
    return (
        f"schema: 1\n{head}instruments:\n"
        f"  {symbol}:\n"
        f"    instrument_id: {instrument_id}\n"
        f"    product: {root}\n"
        f"    last_trading_day: {day}\n"
        f'    recording_names: ["{pattern}"]\n'
    )


def _usual_last_day(symbol: str) -> str:
    month = re.fullmatch(r"[A-Z]{3}([A-L])(\d)", symbol)
    if month is None:
        return "20261231   # yyyymmdd, from the contract; 0 when it does not end"
    day = third_wednesday(2020 + int(month[2]), "ABCDEFGHIJKL".index(month[1]) + 1)
    return f"{yyyymmdd(day)}   # third Wednesday: compare with the contract"


_FUTURE_PRODUCT = """\
products:
  NEW_PRODUCT:
    venue: TAIFEX            # TAIFEX, BINANCE_USDM, BINANCE_SPOT or SIM
    kind: future             # future, perpetual or spot
    currency: TWD
    tick_size: 1
    lot_size: 1
    multiplier: 200          # money per 1.0 of price and 1.0 of quantity
    calendar: taifex_index   # a name under `calendars`
    costs: {kind: taifex_future, tax_rate_ppb: 20000, tax_round: true, commission_per_lot: 60}
    price_limit_bps: 1000
    order_lots_max: 100      # lots the exchange takes in one order, or null
    banding_bps: 100         # dynamic price band around the last print, or null
    eligibility: full        # full, no_day_trade, disposition or closed
    roll_rule: {kind: flatten_before_last_trading_day, trading_days_before: 1}
    gap_ms: 5000
"""

_CRYPTO_PRODUCT = """\
products:
  {root}:
    venue: {venue}
    kind: {kind}
    currency: USDT
    tick_size: "0.01"        # from the venue's contract list
    lot_size: "0.001"        # from the venue's contract list
    multiplier: 1
    calendar: continuous_utc
    costs: {{kind: value_bps, maker_bps: 2.0, taker_bps: 5.0}}
    price_limit_bps: null
    order_lots_max: null     # from the venue's contract list
    banding_bps: null
    eligibility: full
    roll_rule: {{kind: none, trading_days_before: 0}}
    gap_ms: 5000
"""
