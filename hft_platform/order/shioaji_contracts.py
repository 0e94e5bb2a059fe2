"""The broker's contracts, held against the instruments file before anything is traded.

Why: a wrong multiplier, tick or last day turns sound decisions into wrong orders. The SDK's older
contract objects answer with a multiplier of 0, so the terms come from its newer table.

Invariants:
1. A contract comes out only when every term that the broker states equals the instruments file.
2. A term that the broker does not state is named in `unchecked`, except multiplier and last trading
   day of a future or option: those must be stated.
3. Nothing here is guessed: a code the broker does not know is CONTRACT_UNKNOWN.

Operator's page: `docs/shioaji.md`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import Instrument
from hft_platform.market.sessions import DAY_NS, sessions_for, yyyymmdd
from hft_platform.market.taiwan import ODD_LOT_SUFFIX
from hft_platform.order.shioaji_api import ContractTable
from hft_platform.order.shioaji_errors import ask
from hft_platform.order.shioaji_orders import is_odd_lot, is_stock
from hft_platform.order.shioaji_values import UnreadableError, attribute, scaled
from hft_platform.records import SCALE

SECURITY_TYPES = {"future": "FUT", "option": "OPT", "stock": "STK", "fund": "STK"}
EXCHANGES = {"TAIFEX": ("TAIFEX", "TIM"), "TWSE": ("TSE",), "TPEX": ("OTC",)}
AHEAD_NS = 41 * DAY_NS
"""A contract without a session within the longest run of closed days is over."""


@dataclass(frozen=True, slots=True)
class Contract:
    """A contract of the broker that fits its instrument.

    Attributes
    ----------
    symbol : str
        Ours.
    base : object
        The SDK's contract, for orders and subscriptions.
    reference, limit_up, limit_down : int
        Scaled; 0 where the broker does not say.
    unchecked : tuple of str
        Terms the broker did not state.
    until_ns : int
        Where the next trading day begins: its limits are others.
    """

    symbol: str
    base: Any  # Any: a contract of the SDK
    reference: int
    limit_up: int
    limit_down: int
    unchecked: tuple[str, ...]
    until_ns: int

    def refuse_price(self, price: int, now_ns: int) -> None:
        """Refuse a limit price outside the broker's limits, on the day they are for.

        Raises
        ------
        PlatformError
            ORDER_FIELD_INVALID.
        """
        if now_ns >= self.until_ns:
            return
        if (self.limit_up and price > self.limit_up) or price < self.limit_down:
            raise PlatformError(
                ReasonCode.ORDER_FIELD_INVALID,
                f"price was {price}: {self.symbol} has limits {self.limit_down} and"
                f" {self.limit_up} today",
            )


def load_contract(table: ContractTable, instrument: Instrument, now_ns: int) -> Contract:
    """Look a contract up and compare its terms.

    Parameters
    ----------
    table : ContractTable
        The SDK's contracts.
    instrument : Instrument
        What the instruments file says.
    now_ns : int
        The wall clock; decides whether the contract is over.

    Returns
    -------
    Contract
        That fits.

    Raises
    ------
    PlatformError
        CONTRACT_EXPIRED, CONTRACT_UNKNOWN, CONTRACT_MISMATCH naming the terms,
        BROKER_QUERY_FAILED.
    """
    sessions = sessions_for(instrument, now_ns, now_ns + AHEAD_NS)
    if not sessions:
        raise PlatformError(
            ReasonCode.CONTRACT_EXPIRED,
            f"{instrument.symbol}: its last trading day {instrument.last_trading_day} has passed",
        )
    today = instrument.on(sessions[0].trading_day)
    base, info = _look_up(table, today)
    try:
        faults, unchecked, prices = _compare(info, today)
    except UnreadableError as error:
        raise _mismatch(today, error.message) from error
    if faults:
        raise _mismatch(today, "; ".join(faults))
    day = sessions[0].trading_day
    later = [session.start_ns for session in sessions if session.trading_day != day]
    until_ns = later[0] if later else sessions[-1].end_ns
    return Contract(today.symbol, base, *prices, tuple(unchecked), until_ns)


def _look_up(table: ContractTable, instrument: Instrument) -> tuple[Any, Any]:  # Any: of the SDK
    code = instrument.symbol.removesuffix(ODD_LOT_SUFFIX)
    kind = SECURITY_TYPES.get(instrument.kind)
    if kind is None or instrument.venue not in EXCHANGES:
        raise PlatformError(
            ReasonCode.CONTRACT_UNKNOWN,
            f"{instrument.symbol}: this broker has no {instrument.kind} at {instrument.venue}",
        )
    # `ask` refuses None, which here is an answer: no such contract.
    found = ask(f"contract {code}", lambda: (table.get(code, security_type=kind),))[0]
    if found is None:
        raise PlatformError(
            ReasonCode.CONTRACT_UNKNOWN, f"the broker knows no contract {code} ({kind})"
        )
    info = ask(f"terms of contract {code}", lambda: table.info(found))
    return found, info


Faults = list[str]


def _compare(
    info: Any, instrument: Instrument
) -> tuple[Faults, list[str], tuple[int, int, int]]:  # Any: terms of the SDK
    faults: Faults = []
    unchecked: list[str] = []

    def hold(name: str, expected: object, read: Callable[[Any], object]) -> None:
        stated = attribute(info, name)
        if stated is None or stated == "" or stated == 0:
            unchecked.append(name)
        elif read(stated) != expected:
            faults.append(f"{name} is {stated!s:.40}, the instruments file says {expected}")

    code = instrument.symbol.removesuffix(ODD_LOT_SUFFIX)
    if str(attribute(info, "code")) != code:
        faults.append(f"code is {attribute(info, 'code')!s:.40}, asked was {code}")
    exchange = attribute(info, "exchange")
    exchange = exchange if isinstance(exchange, str) else attribute(exchange, "value")
    if exchange not in EXCHANGES[instrument.venue]:
        faults.append(f"exchange is {exchange!s:.40}, the instruments file says {instrument.venue}")
    if is_stock(instrument):
        if not is_odd_lot(instrument):
            hold("unit", instrument.lot_size, lambda value: scaled(value, "unit"))
    else:
        hold("root", instrument.product_root, str)
        hold("multiplier", instrument.multiplier, lambda value: scaled(value, "multiplier"))
        hold("last_trading_date", instrument.last_trading_day, _day)
        faults += [
            f"{name} is not stated"
            for name in ("multiplier", "last_trading_date")
            if name in unchecked
        ]
        _hold_tick(info, instrument, faults, unchecked)
    return faults, unchecked, _prices(info, instrument, faults, unchecked)


def _hold_tick(
    info: Any, instrument: Instrument, faults: Faults, unchecked: list[str]
) -> None:  # Any: terms of the SDK
    stated = attribute(info, "tick")
    if stated is None or stated == 0:
        unchecked.append("tick")
        return
    steps = {step for _, step in instrument.tick_bands}
    if scaled(stated, "tick") not in steps:
        faults.append(f"tick is {stated!s:.40}, the instruments file says {sorted(steps)}")
    elif len(steps) > 1:
        # One number cannot state a ladder.
        unchecked.append("tick bands")


def _prices(
    info: Any, instrument: Instrument, faults: Faults, unchecked: list[str]
) -> tuple[int, int, int]:  # Any: terms of the SDK
    """Reference, limit-up and limit-down, held against the rule where there is one."""
    names = ("reference", "limit_up", "limit_down")
    reference, up, down = (
        scaled(attribute(info, name), name, is_zero_allowed=True) for name in names
    )
    unchecked += [
        name for name, value in zip(names, (reference, up, down), strict=True) if not value
    ]
    if reference and up and down:
        expected = instrument.daily_limits(reference)
        if expected is not None and expected != (up, down):
            faults.append(
                f"limits are {up / SCALE:g} and {down / SCALE:g}, by the instruments file"
                f" {expected[0] / SCALE:g} and {expected[1] / SCALE:g} around"
                f" {reference / SCALE:g}"
            )
    return reference, up, down


def _day(value: object) -> int:
    if not isinstance(value, dt.date):
        raise UnreadableError(
            ReasonCode.FIELD_TYPE_WRONG, f"last_trading_date was {type(value).__name__}"
        )
    return yyyymmdd(value)


def _mismatch(instrument: Instrument, why: str) -> PlatformError:
    return PlatformError(ReasonCode.CONTRACT_MISMATCH, f"{instrument.symbol}: {why}")
