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

from typing import TYPE_CHECKING

from hft_platform.execution.position_store import Records, SessionAccount, fills_of
from hft_platform.execution.positions import CostBook, CostMethod
from hft_platform.market.costs import trade_tax

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
    tax, book = 0, CostBook(CostMethod.AVERAGE)
    for fill in fills_of(broker):
        side, qty, price = int(fill["side"]), int(fill["qty"]), int(fill["price"])
        tax += trade_tax(
            instrument.costs,
            price=price, qty=qty, multiplier=instrument.multiplier, side=side,
            is_maker=bool(fill["is_maker"]),
        )  # fmt: skip
        book.add(side, price, qty, instrument.multiplier)
    return {
        "position_qty": book.position_qty,
        "realized": book.realized,
        "unrealized": account.gross - book.realized,
        "fees": account.fees,
        "tax": tax,
        "net": account.net,
    }
