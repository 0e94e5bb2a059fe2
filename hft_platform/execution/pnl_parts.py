"""Profit taken apart: realized, unrealized, fees and the tax in them, by session and instrument.

Why: a session that ends with a position earned two different things, and a tax is owed to another
than a commission. The parts add up to the account's own numbers (`position_store`), exactly.

Invariants:
1. realized + unrealized is the account's gross, net is gross less fees, tax is a part of fees.
2. Realized is by average cost, in integers; a flat end has nothing unrealized.
3. The tax is what the cost model charges without its commission; no rate is written here.

It marks nothing: the account did, to the last mid. Operator's page: `docs/formats.md`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from hft_platform.execution.position_store import Records, SessionAccount, fills_of
from hft_platform.market.costs import TaifexFutureCosts, trade_cost
from hft_platform.records import SCALE

if TYPE_CHECKING:
    from hft_platform.market.instruments import Instrument


def pnl_parts(broker: Records, account: SessionAccount, instrument: Instrument) -> dict[str, int]:
    """Take a session's profit on one instrument apart.

    Parameters
    ----------
    broker : ndarray of Broker records
        Broker events of the session, as `account_session` took them.
    account : SessionAccount
        Their account.
    instrument : Instrument
        Multiplier and cost model.

    Returns
    -------
    dict of str to int
        ``position_qty``, ``realized``, ``unrealized``, ``fees``, ``tax`` and ``net``, at 1e-8.
    """
    realized = tax = position = basis = 0
    for fill in fills_of(broker):
        side, qty, price = int(fill["side"]), int(fill["qty"]), int(fill["price"])
        tax += _tax(instrument, price, qty, side, is_maker=bool(fill["is_maker"]))
        closing = min(qty, abs(position)) if side * position < 0 else 0
        whole = _value(price, qty, instrument.multiplier)
        closed = whole if closing == qty else _value(price, closing, instrument.multiplier)
        if closing:
            released = basis * closing // abs(position)
            realized -= side * closed + released
            basis -= released
        basis += side * (whole - closed)
        position += side * qty
    return {
        "position_qty": position,
        "realized": realized,
        "unrealized": account.gross - realized,
        "fees": account.fees,
        "tax": tax,
        "net": account.net,
    }


def _value(price: int, qty: int, multiplier: int) -> int:
    return price * qty * multiplier // (SCALE * SCALE)


def _tax(instrument: Instrument, price: int, qty: int, side: int, *, is_maker: bool) -> int:
    """What the model charges without its commission; a model by value knows no tax."""
    costs = instrument.costs
    if not isinstance(costs, TaifexFutureCosts):
        return 0
    return trade_cost(
        dataclasses.replace(costs, commission_per_lot=0),
        price=price, qty=qty, multiplier=instrument.multiplier, side=side, is_maker=is_maker,
    )  # fmt: skip
