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

import datetime as dt
import importlib.resources
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

from hft_platform import _core
from hft_platform.config.canonical import canonical_sha256
from hft_platform.config.yaml_files import parse_yaml, read_yaml
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.costs import CostModel
from hft_platform.market.instrument_files import (
    CALENDAR_OF,
    ChangeModel,
    Layer,
    Merged,
    ProductModel,
    merge,
)
from hft_platform.market.sessions import (
    Calendar,
    ExchangeCalendar,
    date_of,
    third_wednesday,
    yyyymmdd,
)

ALIASES = ("R1", "R2", "C0", "C1")
"""Endings of a product root that stand for a contract (see `InstrumentTable.contract`)."""


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
    tick_bands : tuple of (int, int)
        First price and step of each band of the tick ladder, scaled.
    lot_size, multiplier : int
        Scaled; `multiplier` is money per 1.0 of price and 1.0 of quantity.
    last_trading_day : int
        yyyymmdd, 0 when the contract does not end.
    calendar : str
        Name of its calendar.
    calendar_rule : ExchangeCalendar or ContinuousCalendar
        The calendar itself.
    costs : CostModel
        What a trade costs.
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
    changes : tuple of (int, dict)
        What becomes of fields from a trading day on, in order; `on` applies them.
    """

    instrument_id: int
    symbol: str
    product_root: str
    venue: str
    kind: str
    currency: str
    tick_bands: tuple[tuple[int, int], ...]
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
    changes: tuple[tuple[int, Mapping[str, Any]], ...] = ()

    @property
    def ticks(self) -> _core.TickLadder:
        """The prices that orders may have."""
        return _core.TickLadder(list(self.tick_bands))

    @property
    def tick_size(self) -> int:
        """Step of price, scaled; of a ladder the finest."""
        return self.tick_bands[0][1]

    def on(self, trading_day: int) -> Instrument:
        """The instrument by the rules of a trading day, yyyymmdd."""
        fields: dict[str, Any] = {}
        for from_day, change in self.changes:
            if from_day <= trading_day:
                fields |= change
        return replace(self, changes=(), **fields)

    def bands_json(self) -> dict[str, Any]:
        """``tick_bands`` as the core parses them; nothing where one step holds at every price."""
        if len(self.tick_bands) == 1:
            return {}
        return {"tick_bands": [{"from": start, "tick": tick} for start, tick in self.tick_bands]}

    def costs_json(self) -> dict[str, Any]:
        """Cost model as the core parses it."""
        return self.costs.as_dict()

    def daily_limits(self, reference_price: int) -> tuple[int, int] | None:
        """Limit-up and limit-down prices around a reference, rounded inward to the tick."""
        if self.price_limit_bps is None:
            return None
        limits = self.ticks.daily_limits(reference_price, self.price_limit_bps)
        if limits is None:
            raise PlatformError(
                ReasonCode.VALUE_OUT_OF_RANGE,
                f"{self.symbol}: a reference price of {reference_price} has no daily limits",
            )
        down, up = limits
        return up, down

    def as_dict(self) -> dict[str, Any]:
        """Everything that changes what ingestion makes of a row, for content hashes."""
        rule = asdict(self.calendar_rule)
        plain = {k: sorted(v) if isinstance(v, frozenset) else v for k, v in rule.items()}
        changes = [
            {"from_day": day} | {key: _plain(value) for key, value in change.items()}
            for day, change in self.changes
        ]
        return {
            "instrument_id": self.instrument_id,
            "symbol": self.symbol,
            "product_root": self.product_root,
            "venue": self.venue,
            "kind": self.kind,
            "currency": self.currency,
            "tick_bands": self.tick_bands,
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
            "changes": changes,
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

    def contract(self, name: str, trading_day: int) -> Instrument:
        """The contract that a symbol or an alias stands for on a trading day.

        ``TXFR1`` and ``TXFR2`` are the contracts that end next and after that, the last trading day
        included. ``TXFC0`` and ``TXFC1`` are the one to trade by the product's roll rule and the
        one after it: they move on as many trading days before the end as the rule says.

        Parameters
        ----------
        name : str
            A symbol, or a product root with ``R1``, ``R2``, ``C0`` or ``C1``.
        trading_day : int
            yyyymmdd.

        Returns
        -------
        Instrument
            By the rules of that day.

        Raises
        ------
        PlatformError
            UNKNOWN_INSTRUMENT for an unknown name, or an alias beyond the known contracts;
            ROLL_NOT_PERMITTED for a symbol whose contract has ended.
        """
        alias = re.fullmatch(r"([A-Z0-9]{3})(R1|R2|C0|C1)", name)
        if alias is None or name in self._by_symbol:
            found = self.by_symbol(name)
            if found.last_trading_day and trading_day > found.last_trading_day:
                raise PlatformError(
                    ReasonCode.ROLL_NOT_PERMITTED,
                    f"{name} ended on {found.last_trading_day}; the trading day is {trading_day}",
                )
            return found.on(trading_day)
        root, place = alias[1], alias[2]
        last_day = roll_day if place.startswith("C") else _last_day
        listed = sorted(
            (last_day(row), row.symbol)
            for row in self
            if row.product_root == root and row.last_trading_day
        )
        ahead = [symbol for day, symbol in listed if day >= trading_day]
        index = ALIASES.index(place) % 2
        if index >= len(ahead):
            raise self._unknown(
                f"{name} on {trading_day}: {len(ahead)} known contracts of {root} are not over",
                f"{root}?",
                f"{root}*",
            )
        return self._by_symbol[ahead[index]].on(trading_day)

    def _unknown(self, message: str, hint: str, pattern: str) -> PlatformError:
        yaml_text = _advice(self._products, hint, pattern, max(self._by_id, default=0) + 1)
        return PlatformError(
            ReasonCode.UNKNOWN_INSTRUMENT,
            f"{message}; known are {', '.join(self.symbols)}",
            next_step=f"add to config/instruments/local.yaml (correct it first):\n{yaml_text}",
            facts={"yaml": yaml_text, "hint": hint},
        )


def _last_day(instrument: Instrument) -> int:
    return instrument.last_trading_day


class RollTerms(Protocol):
    """A roll rule, of a product or of a signed config."""

    @property
    def kind(self) -> str:
        """``none`` or ``flatten_before_last_trading_day``."""

    @property
    def trading_days_before(self) -> int:
        """How many trading days before the last one."""


def roll_day(instrument: Instrument, rule: RollTerms | None = None) -> int:
    """Last trading day on which a contract may be opened.

    Parameters
    ----------
    instrument : Instrument
        With its calendar and last trading day.
    rule : RollTerms, optional
        The product's by default.

    Returns
    -------
    int
        yyyymmdd, 0 when the contract does not end.
    """
    rule, calendar = rule or instrument.roll_rule, instrument.calendar_rule
    if not instrument.last_trading_day or rule.kind == "none":
        return instrument.last_trading_day
    if not isinstance(calendar, ExchangeCalendar):
        return instrument.last_trading_day
    day = date_of(instrument.last_trading_day)
    for _ in range(rule.trading_days_before):
        day = calendar.previous_trading_day(day)
    return yyyymmdd(day)


def front_days(instrument: Instrument, listed: Iterable[Instrument] = ()) -> tuple[int, int]:
    """Trading days on which a contract is the one to trade by its product's roll rule.

    Parameters
    ----------
    instrument : Instrument
        With its calendar, last trading day and roll rule.
    listed : iterable of Instrument
        Known contracts; those of the same product that end earlier hand over to this one.

    Returns
    -------
    tuple of (int, int)
        First and last day, yyyymmdd; 0 where there is no such bound. Where the contract before is
        not among the listed ones, a monthly TAIFEX future is taken to follow the one that ended on
        the third Wednesday of the month before.
    """
    rule = instrument.roll_rule
    if not instrument.last_trading_day or rule.kind == "none":
        return 0, roll_day(instrument)
    before = [
        roll_day(row)
        for row in listed
        if row.product_root == instrument.product_root
        and 0 < row.last_trading_day < instrument.last_trading_day
    ]
    calendar = instrument.calendar_rule
    if not isinstance(calendar, ExchangeCalendar):
        return 0, roll_day(instrument)
    if instrument.venue == "TAIFEX" and instrument.kind == "future":
        last_month = date_of(instrument.last_trading_day).replace(day=1) - dt.timedelta(days=1)
        ended = third_wednesday(last_month.year, last_month.month)
        if not calendar.is_trading_day(ended):
            ended = calendar.next_trading_day(ended)
        before.append(roll_day(replace(instrument, last_trading_day=yyyymmdd(ended))))
    if not before:
        return 0, roll_day(instrument)
    first = calendar.next_trading_day(date_of(max(before)))
    return yyyymmdd(first), roll_day(instrument)


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
        tick_bands=product.tick_size,
        lot_size=product.lot_size,
        multiplier=product.multiplier,
        last_trading_day=row.last_trading_day,
        calendar=product.calendar,
        calendar_rule=CALENDAR_OF[type(calendar)](product.calendar, calendar, merged),
        costs=product.costs.model(),
        price_limit_bps=product.price_limit_bps,
        order_qty_max=_lots(product.order_lots_max, product.lot_size),
        banding_bps=product.banding_bps,
        eligibility=product.eligibility,
        roll_rule=RollRule(product.roll_rule.kind, product.roll_rule.trading_days_before),
        gap_ns=product.gap_ms * 1_000_000,
        recording_names=tuple(row.recording_names),
        changes=_changes(product, [*product.changes, *row.changes]),
    )


def _changes(
    product: ProductModel, changes: list[ChangeModel]
) -> tuple[tuple[int, Mapping[str, Any]], ...]:
    """Rows of `Instrument.changes`; at one day the contract's own come after the product's."""
    result = []
    lot_size, lots_max = product.lot_size, product.order_lots_max
    for change in sorted(changes, key=lambda change: change.from_day):
        # What is named is changed, also to null: a cap that is lifted.
        named = {key: getattr(change, key) for key in change.model_fields_set - {"from_day"}}
        lot_size = named.get("lot_size", lot_size)
        lots_max = named.pop("order_lots_max", lots_max)
        if "tick_size" in named:
            named["tick_bands"] = named.pop("tick_size")
        if "costs" in named:
            named["costs"] = named["costs"].model()
        result.append((change.from_day, named | {"order_qty_max": _lots(lots_max, lot_size)}))
    return tuple(result)


def _lots(count: int | None, lot_size: int) -> int | None:
    return None if count is None else count * lot_size


def _plain(value: Any) -> Any:  # Any: a field of an instrument, and its JSON
    as_dict = getattr(value, "as_dict", None)
    return value if as_dict is None else as_dict()


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
    venue: TAIFEX            # TAIFEX, TWSE, TPEX, BINANCE_USDM, BINANCE_SPOT or SIM
    kind: future             # future, option, stock, fund, perpetual or spot
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
