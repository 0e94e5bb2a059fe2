"""Checks a request once more, right before the broker is called: a pure judgment.

Why: the engine checked the order by what it knew when it decided. A contract that expired, a
session that closed or a number that was damaged in between must not reach the broker.

Invariants:
1. Every number is an integer in range; anything else, a NaN among it, is refused and not converted.
2. Of several faults the first in the order of the code below is told.
3. What is not known (daily limits) is not checked here: the engine refuses without a reference.

It calls nothing. Operator's page: `docs/execution.md`.
"""

from __future__ import annotations

from typing import Protocol

from hft_platform.errors import ReasonCode
from hft_platform.order.market_hours import Hours

PLACE, CANCEL = 1, 2
"""`ActionKind` in rust_core/src/record.rs."""
TAG_LENGTH = 6
VALUE_MAX = 10**18
_TIMES_IN_FORCE = (1, 2, 3)


class Request(Protocol):
    """What is needed of an `OrderRequest`."""

    @property
    def order_id(self) -> int:
        """Ours."""

    @property
    def action(self) -> int:
        """1 place, 2 cancel."""

    @property
    def instrument_id(self) -> int:
        """From the engine config."""

    @property
    def side(self) -> int:
        """+1 buy, -1 sell."""

    @property
    def price(self) -> int:
        """Limit price."""

    @property
    def qty(self) -> int:
        """Quantity."""

    @property
    def time_in_force(self) -> int:
        """1 rest of day, 2 immediate or cancel, 3 fill or kill."""

    @property
    def tag(self) -> str:
        """Carried by the broker."""


def check_place(
    request: Request, hours: Hours | None, daily_limits: tuple[int, int] | None
) -> ReasonCode | None:
    """Judge a request to place.

    Parameters
    ----------
    request : Request
        From the session.
    hours : Hours or None
        What holds now for its instrument; None for an unknown one.
    daily_limits : tuple of int, or None
        Limit-up and limit-down of the day, None where they are not known.

    Returns
    -------
    ReasonCode or None
        Why it must not be sent, None when it may.
    """
    if hours is None:
        return ReasonCode.UNKNOWN_INSTRUMENT
    return (
        _check_fields(request)
        or _check_hours(hours)
        or _check_qty(request, hours)
        or _check_price(request, hours, daily_limits)
    )


def check_cancel(request: Request, hours: Hours | None) -> ReasonCode | None:
    """Judge a request to cancel.

    Parameters
    ----------
    request : Request
        From the session.
    hours : Hours or None
        What holds now for its instrument; None for an unknown one.
    """
    if hours is None:
        return ReasonCode.UNKNOWN_INSTRUMENT
    return None if hours.takes_cancels else ReasonCode.CANCEL_NOT_ALLOWED


def _check_fields(request: Request) -> ReasonCode | None:
    numbers = (request.order_id, request.side, request.price, request.qty)
    if any(type(number) is not int for number in numbers):
        return ReasonCode.ORDER_FIELD_INVALID
    tag = request.tag
    is_tag = len(tag) == TAG_LENGTH and tag.isascii() and tag.isalnum()
    if request.side not in (1, -1) or request.time_in_force not in _TIMES_IN_FORCE or not is_tag:
        return ReasonCode.ORDER_FIELD_INVALID
    if request.qty <= 0:
        return ReasonCode.QTY_NOT_POSITIVE
    if request.price <= 0:
        return ReasonCode.PRICE_NOT_POSITIVE
    if request.qty >= VALUE_MAX or request.price >= VALUE_MAX:
        return ReasonCode.VALUE_OUT_OF_RANGE
    return None


def _check_hours(hours: Hours) -> ReasonCode | None:
    if hours.is_expired:
        return ReasonCode.CONTRACT_EXPIRED
    if not hours.takes_orders:
        return ReasonCode.SESSION_NOT_OPEN
    return ReasonCode.INSTRUMENT_CLOSED if hours.instrument.eligibility == "closed" else None


def _check_qty(request: Request, hours: Hours) -> ReasonCode | None:
    instrument = hours.instrument
    if request.qty % instrument.lot_size:
        return ReasonCode.QTY_OFF_LOT_GRID
    if instrument.order_qty_max is not None and request.qty > instrument.order_qty_max:
        return ReasonCode.ORDER_QTY_ABOVE_EXCHANGE_CAP
    return None


def _check_price(
    request: Request, hours: Hours, daily_limits: tuple[int, int] | None
) -> ReasonCode | None:
    if not hours.instrument.ticks.is_on_grid(request.price):
        return ReasonCode.ORDER_PRICE_OFF_TICK
    if daily_limits is not None:
        limit_up, limit_down = daily_limits
        if not limit_down <= request.price <= limit_up:
            return ReasonCode.PRICE_OUTSIDE_DAILY_LIMIT
    return None
