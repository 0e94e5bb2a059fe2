"""Schema of the instrument files, and how several files become one.

Why: a mistake in a multiplier or a calendar is refused at the door, with its field and value.

Invariants:
1. Fields are strict and complete: an unknown one is refused and no number has a default.
2. A later file replaces a calendar, product or instrument as a whole, by name.
3. References (product, calendar) and uniqueness of ids are checked after merging.

It computes no sessions. Operator's page: `docs/instruments.md`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from hft_platform import _core
from hft_platform.config.yaml_files import validated
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.costs import (
    CostModel,
    TaifexFutureCosts,
    TaifexOptionCosts,
    TaiwanStockCosts,
    ValueBpsCosts,
)
from hft_platform.market.sessions import (
    Calendar,
    ContinuousCalendar,
    ExchangeCalendar,
    SessionHours,
    date_of,
    third_wednesday,
)
from hft_platform.records import SCALE

VALUE_MAX = 10_000_000_000
"""Decimal(18, 8): every price and quantity is below this in size."""

_CODE = ReasonCode.SETTINGS_INVALID
_DAY_S = 86_400
_MONTH_CODES = "ABCDEFGHIJKL"
_EXPIRY_SLACK_DAYS = 14
"""Holidays move the third Wednesday by at most about this (TXFA3 in 2023: 12 days)."""


def _scaled(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("allowed is a decimal number above 0 with at most 8 decimals")
    try:
        number = Decimal(str(value)) * SCALE
    except InvalidOperation:
        number = Decimal(-1)
    if not number.is_finite() or not 0 < number < VALUE_MAX * SCALE or number % 1:
        raise ValueError("allowed is a decimal number above 0, below 1e10, at most 8 decimals")
    return int(number)


def _ladder(value: object) -> tuple[tuple[int, int], ...]:
    """A step, or rows of first price and step, as the core's ladder has them."""
    rows = value if isinstance(value, list) else [[0, value]]
    bands = []
    for row in rows:
        if not isinstance(row, list) or len(row) != 2:
            raise ValueError("allowed is a step, or rows of [first price, step]")
        bands.append((_scaled_or_zero(row[0]), _scaled(row[1])))
    try:
        return tuple(_core.TickLadder(bands).bands)
    except _core.ConfigError as error:
        raise ValueError(str(error.args[1])) from error


def _scaled_or_zero(value: object) -> int:
    return 0 if value in (0, "0") and not isinstance(value, bool) else _scaled(value)


def _clock(value: object) -> int:
    match = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('allowed is a quoted local time "HH:MM"')
    return int(match[1]) * 3600 + int(match[2]) * 60


def _offset(value: object) -> int:
    match = re.fullmatch(r"([+-])(0\d|1[0-4]):([0-5]\d)", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('allowed is a quoted offset from UTC such as "+08:00"')
    seconds = int(match[2]) * 3600 + int(match[3]) * 60
    return seconds if match[1] == "+" else -seconds


def _day(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("allowed is a date as yyyymmdd")
    try:
        date_of(value)
    except ValueError:
        raise ValueError("allowed is a date as yyyymmdd") from None
    return value


def _day_or_zero(value: object) -> int:
    return 0 if value == 0 and not isinstance(value, bool) else _day(value)


_Scaled = Annotated[int, BeforeValidator(_scaled)]
_Clock = Annotated[int, BeforeValidator(_clock)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{1,24}$")]
_CalendarName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
_Seconds = Annotated[int, Field(ge=0, le=_DAY_S)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


_Days = list[Annotated[int, BeforeValidator(_day)]]


class HoursModel(_Strict):
    """Hours of one daily session."""

    open: _Clock
    close: _Clock
    trading_day: Literal["same", "next"]
    close_only_s: _Seconds
    force_flat_s: _Seconds
    preopen_s: _Seconds
    no_cancel_s: _Seconds
    close_auction_s: _Seconds

    @model_validator(mode="after")
    def _phases_fit(self) -> HoursModel:
        length = (self.close - self.open) % _DAY_S or _DAY_S
        length -= self.close_auction_s
        if not self.force_flat_s <= self.close_only_s < length:
            raise ValueError(
                "allowed is force_flat_s <= close_only_s < length of the session before its closing"
                f" auction, {length} s"
            )
        if self.no_cancel_s > self.preopen_s:
            raise ValueError("allowed is no_cancel_s <= preopen_s: it ends the pre-open window")
        return self


class ExchangeModel(_Strict):
    """Calendar of a venue with daily sessions."""

    kind: Literal["exchange"]
    utc_offset: Annotated[int, BeforeValidator(_offset)]
    sessions: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,11}$")], HoursModel],
        Field(min_length=1, max_length=8),
    ]
    last_day_close: _Clock | None
    holidays: _CalendarName | _Days
    without_night: _Days
    extra_days: _Days
    early_closes: dict[Annotated[int, BeforeValidator(_day)], _Clock]

    @model_validator(mode="after")
    def _sessions_do_not_overlap(self) -> ExchangeModel:
        rows = sorted(
            (h.open, (h.close - h.open) % _DAY_S or _DAY_S, n, h) for n, h in self.sessions.items()
        )
        for (start, length, name, _), (following, _, other, hours) in zip(
            rows, [*rows[1:], (rows[0][0] + _DAY_S, *rows[0][1:])], strict=True
        ):
            if start + length > following - hours.preopen_s:
                raise ValueError(f"session {name} ends after {other} or its pre-open begins")
        return self


class ContinuousModel(_Strict):
    """Calendar of a venue that never closes."""

    kind: Literal["continuous"]
    session_minutes: Annotated[int, Field(ge=1, le=1440)]
    close_only_s: _Seconds
    force_flat_s: _Seconds

    @model_validator(mode="after")
    def _blocks_fit(self) -> ContinuousModel:
        if 1440 % self.session_minutes:
            raise ValueError("allowed session_minutes divide a day, 1440 minutes")
        if not self.force_flat_s <= self.close_only_s < self.session_minutes * 60:
            raise ValueError("allowed is force_flat_s <= close_only_s < session_minutes x 60")
        return self


class TaifexCostsModel(_Strict):
    """Costs of TAIFEX futures and options; `commission_per_lot` in whole currency."""

    kind: Literal["taifex_future", "taifex_option"]
    tax_rate_ppb: Annotated[int, Field(ge=0, le=1_000_000_000)]
    tax_round: bool
    commission_per_lot: Annotated[int, BeforeValidator(_scaled_or_zero)]

    def model(self) -> CostModel:
        """The dataclass behind it."""
        model = TaifexFutureCosts if self.kind == "taifex_future" else TaifexOptionCosts
        return model(self.tax_rate_ppb, self.tax_round, self.commission_per_lot)


class StockCostsModel(_Strict):
    """Costs of Taiwan's stocks and funds; `fee_min` in whole currency."""

    kind: Literal["taiwan_stock"]
    fee_rate_ppb: Annotated[int, Field(ge=0, le=1_000_000_000)]
    fee_share_ppm: Annotated[int, Field(ge=0, le=1_000_000)]
    fee_min: Annotated[int, BeforeValidator(_scaled_or_zero)]
    sell_tax_ppb: Annotated[int, Field(ge=0, le=1_000_000_000)]

    def model(self) -> CostModel:
        """The dataclass behind it."""
        return TaiwanStockCosts(
            self.fee_rate_ppb, self.fee_share_ppm, self.fee_min, self.sell_tax_ppb
        )


class BpsCostsModel(_Strict):
    """Costs as a share of the value."""

    kind: Literal["value_bps"]
    maker_bps: Annotated[float, Field(ge=-10_000, le=10_000, allow_inf_nan=False)]
    taker_bps: Annotated[float, Field(ge=-10_000, le=10_000, allow_inf_nan=False)]

    def model(self) -> CostModel:
        """The dataclass behind it."""
        return ValueBpsCosts(self.maker_bps, self.taker_bps)


class RollModel(_Strict):
    """What becomes of a position before the contract ends."""

    kind: Literal["none", "flatten_before_last_trading_day"]
    trading_days_before: Annotated[int, Field(ge=0, le=20)]


_Costs = Annotated[TaifexCostsModel | StockCostsModel | BpsCostsModel, Field(discriminator="kind")]
_Ladder = Annotated[tuple[tuple[int, int], ...], BeforeValidator(_ladder)]
_Bps = Annotated[int, Field(gt=0, lt=10_000)]
_Lots = Annotated[int, Field(gt=0, lt=1 << 31)]
_Eligibility = Literal["full", "no_day_trade", "disposition", "closed"]


class ChangeModel(_Strict):
    """What rules are from a trading day on; what is left out stays, null lifts a cap."""

    from_day: Annotated[int, BeforeValidator(_day)]
    tick_size: _Ladder | None = None
    lot_size: _Scaled | None = None
    multiplier: _Scaled | None = None
    costs: _Costs | None = None
    price_limit_bps: _Bps | None = None
    order_lots_max: _Lots | None = None
    banding_bps: _Bps | None = None
    eligibility: _Eligibility | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> ChangeModel:
        if not self.model_fields_set - {"from_day"}:
            raise ValueError("allowed is at least one field beside from_day")
        return self


class ProductModel(_Strict):
    """What all contracts of a product root share."""

    venue: Literal["TAIFEX", "TWSE", "TPEX", "BINANCE_USDM", "BINANCE_SPOT", "SIM"]
    kind: Literal["future", "option", "stock", "fund", "perpetual", "spot"]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3,5}$")]
    tick_size: _Ladder
    lot_size: _Scaled
    multiplier: _Scaled
    calendar: _CalendarName
    costs: _Costs
    price_limit_bps: _Bps | None
    order_lots_max: _Lots | None
    banding_bps: _Bps | None
    eligibility: _Eligibility
    roll_rule: RollModel
    gap_ms: Annotated[int, Field(gt=0, le=_DAY_S * 1000)]
    changes: Annotated[list[ChangeModel], Field(max_length=64)] = []

    @model_validator(mode="after")
    def _changes_in_order(self) -> ProductModel:
        _require_rising(self.changes)
        return self


class InstrumentModel(_Strict):
    """One contract."""

    instrument_id: Annotated[int, Field(gt=0, lt=1 << 32)]
    product: _Name
    last_trading_day: Annotated[int, BeforeValidator(_day_or_zero)]
    recording_names: list[Annotated[str, Field(min_length=2, max_length=64)]]
    changes: Annotated[list[ChangeModel], Field(max_length=64)] = []

    @model_validator(mode="after")
    def _changes_in_order(self) -> InstrumentModel:
        _require_rising(self.changes)
        return self


def _require_rising(changes: list[ChangeModel]) -> None:
    days = [change.from_day for change in changes]
    if days != sorted(set(days)):
        raise ValueError("allowed are changes in the order of their from_day, one a day")


class InstrumentFile(_Strict):
    """One file."""

    schema_: Literal[1] = Field(alias="schema")
    holiday_lists: dict[_CalendarName, _Days] = {}
    calendars: dict[
        _CalendarName, Annotated[ExchangeModel | ContinuousModel, Field(discriminator="kind")]
    ] = {}
    products: dict[_Name, ProductModel] = {}
    instruments: dict[_Name, InstrumentModel] = {}


@dataclass(frozen=True, slots=True)
class Layer:
    """A parsed file and its name, for errors."""

    content: InstrumentFile
    name: str

    @classmethod
    def parse(cls, content: dict[str, Any], name: str) -> Layer:
        """Check the content of a file."""
        return cls(validated(content, InstrumentFile, name=name), name)


@dataclass(frozen=True, slots=True)
class Merged:
    """All files as one; `closed_days` are the holidays of each calendar that has them."""

    calendars: dict[str, ExchangeModel | ContinuousModel]
    products: dict[str, ProductModel]
    instruments: dict[str, InstrumentModel]
    closed_days: dict[str, list[int]]


def merge(layers: Iterable[Layer]) -> Merged:
    """Lay files over each other and check what only holds for all of them.

    Parameters
    ----------
    layers : iterable of Layer
        Defaults first.

    Returns
    -------
    Merged
        The last definition of every name.

    Raises
    ------
    PlatformError
        SETTINGS_INVALID naming file, field, value and what is allowed.
    """
    merged = Merged({}, {}, {}, {})
    origin: dict[str, str] = {}
    holiday_lists: dict[str, list[int]] = {}
    for layer in layers:
        holiday_lists.update(layer.content.holiday_lists)
        origin |= {f"calendars.{name}": layer.name for name in layer.content.calendars}
        merged.calendars.update(layer.content.calendars)
        merged.products.update(layer.content.products)
        merged.instruments.update(layer.content.instruments)
        origin |= {f"products.{name}": layer.name for name in layer.content.products}
        origin |= {f"instruments.{name}": layer.name for name in layer.content.instruments}
    for name, calendar in sorted(merged.calendars.items()):
        if not isinstance(calendar, ExchangeModel):
            continue
        if isinstance(calendar.holidays, list):
            merged.closed_days[name] = calendar.holidays
        else:
            if calendar.holidays not in holiday_lists:
                raise _refused(
                    origin, f"calendars.{name}", "holidays", calendar.holidays,
                    ["a list of days", *sorted(holiday_lists)],
                )  # fmt: skip
            merged.closed_days[name] = holiday_lists[calendar.holidays]
    for name, product in sorted(merged.products.items()):
        if product.calendar not in merged.calendars:
            raise _refused(
                origin, f"products.{name}", "calendar", product.calendar, sorted(merged.calendars)
            )
    ids: dict[int, str] = {}
    for symbol, row in sorted(merged.instruments.items()):
        _check_instrument(symbol, row, merged, origin)
        if row.instrument_id in ids:
            raise _refused(
                origin,
                f"instruments.{symbol}",
                "instrument_id",
                row.instrument_id,
                f"an id that {ids[row.instrument_id]} does not have",
            )
        ids[row.instrument_id] = symbol
    return merged


def _check_instrument(
    symbol: str, row: InstrumentModel, merged: Merged, origin: dict[str, str]
) -> None:
    place = f"instruments.{symbol}"
    product = merged.products.get(row.product)
    if product is None:
        raise _refused(origin, place, "product", row.product, sorted(merged.products))
    ends = product.kind in ("future", "option")
    if ends != bool(row.last_trading_day) and product.venue != "SIM":
        allowed = "a date as yyyymmdd" if ends else "0: it does not end"
        raise _refused(origin, place, "last_trading_day", row.last_trading_day, allowed)
    problem = _expiry_problem(symbol, row, product)
    if problem:
        raise _refused(origin, place, "last_trading_day", row.last_trading_day, problem)


def _expiry_problem(symbol: str, row: InstrumentModel, product: ProductModel) -> str | None:
    """Compare a TAIFEX monthly contract's end with the third Wednesday of its month code."""
    match = re.fullmatch(re.escape(row.product) + r"([A-L])(\d)", symbol)
    if product.venue != "TAIFEX" or product.kind != "future" or match is None:
        return None
    last = date_of(row.last_trading_day)
    month = _MONTH_CODES.index(match[1]) + 1
    usual = third_wednesday(last.year, month)
    if last.year % 10 != int(match[2]) or abs((last - usual).days) > _EXPIRY_SLACK_DAYS:
        return (
            f"a day of 20?{match[2]} at most {_EXPIRY_SLACK_DAYS} days from the third Wednesday "
            f"of month {month}, {usual.isoformat()}"
        )
    return None


def _refused(
    origin: dict[str, str], place: str, field: str, value: object, allowed: object
) -> PlatformError:
    shown = ", ".join(map(str, allowed)) if isinstance(allowed, list) else str(allowed)
    return PlatformError(
        _CODE,
        f"{origin.get(place, 'instruments')}: field {place}.{field} was {value!r}: "
        f"allowed is {shown}",
        facts={"file": origin.get(place, ""), "field": f"{place}.{field}"},
    )


def _exchange(name: str, model: ExchangeModel, merged: Merged) -> Calendar:
    hours = tuple(
        SessionHours(
            name=label,
            open_s=row.open,
            close_s=row.close,
            is_next_trading_day=row.trading_day == "next",
            close_only_s=row.close_only_s,
            force_flat_s=row.force_flat_s,
            preopen_s=row.preopen_s,
            no_cancel_s=row.no_cancel_s,
            close_auction_s=row.close_auction_s,
        )
        for label, row in sorted(model.sessions.items(), key=lambda item: item[1].open)
    )
    return ExchangeCalendar(
        name=name,
        utc_offset_s=model.utc_offset,
        hours=hours,
        holidays=frozenset(merged.closed_days[name]),
        without_night=frozenset(model.without_night),
        last_day_close_s=model.last_day_close,
        extra_days=frozenset(model.extra_days),
        early_closes=tuple(sorted(model.early_closes.items())),
    )


def _continuous(name: str, model: ContinuousModel, _merged: Merged) -> Calendar:
    return ContinuousCalendar(
        name=name,
        session_minutes=model.session_minutes,
        close_only_s=model.close_only_s,
        force_flat_s=model.force_flat_s,
    )


CALENDAR_OF: dict[type[BaseModel], Callable[[str, Any, Merged], Calendar]] = {
    # Any: the model that is the key
    ExchangeModel: _exchange,
    ContinuousModel: _continuous,
}
