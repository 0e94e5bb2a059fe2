"""PositionStore: position, cost, profit, fees and tax by strategy, instrument and account.

Why: what the engine holds, what the fills in the log say and what the account's ledger says must be
one number. This store follows from fills alone, so it can be held against both.

Invariants:
1. realized + unrealized = cash + value of the position, exactly, first in first out and by average
   cost alike; the two differ only in what they call realized.
2. A fill counts once, by account, order and its number in it.
3. Whatever strategies an account has, their positions, cash, fees and taxes sum to the account's.
4. Fees and taxes are what the instrument's one cost model charges by the rules of the fill's day.

Rounding: a fill is worth `price * qty * multiplier`, rounded down once to 1e-8 of the currency.
Where a fill closes and opens, the closing part is rounded down by itself; the opening is the rest.
A part of a lot carries its share of the lot's cost, rounded down; what is left carries the rest. A
position is marked as one quantity, rounded down. So nothing is lost by rounding, only moved.

It reads no market and no log. Whether a stock's sale is taxed as within a day is its product's cost
model (`docs/costs.md`). Operator's page: `docs/execution.md`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.execution.position_store import FILL, Records
from hft_platform.market.costs import trade_cost, trade_tax
from hft_platform.records import SCALE

if TYPE_CHECKING:
    from hft_platform.market.instruments import Instrument

ORDER_COUNTER_BITS = 48
"""Bits of an order id below its alpha's index (`COUNTER_BITS` in rust_core/src/gateway/mod.rs)."""


class CostMethod(StrEnum):
    """Which cost a closed quantity had."""

    FIFO = "fifo"
    AVERAGE = "average"


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution of ours.

    Attributes
    ----------
    strategy, account : str
        Whose it is.
    instrument_id : int
        In which contract.
    side : int
        +1 buy, -1 sell.
    price, qty : int
        At 1e-8, positive.
    trading_day : int
        yyyymmdd, for the rules of the day; 0 takes the instrument as it is.
    order_id, fill_seq : int
        By which it counts once.
    """

    strategy: str
    account: str
    instrument_id: int
    side: int
    price: int
    qty: int
    trading_day: int
    order_id: int
    fill_seq: int
    is_maker: bool = False


@dataclass(frozen=True, slots=True)
class Pnl:
    """What fills came to; money at 1e-8 of the instrument's currency.

    Attributes
    ----------
    position_qty : int
        Signed.
    cost : int
        Signed cost of what is held.
    cash : int
        Money received less money paid, without fees.
    realized, unrealized : int
        Before fees.
    fees : int
        Commission and tax.
    tax : int
        The part of the fees that is tax.
    fill_count : int
        Fills counted.
    """

    position_qty: int = 0
    cost: int = 0
    cash: int = 0
    realized: int = 0
    unrealized: int = 0
    fees: int = 0
    tax: int = 0
    fill_count: int = 0

    @property
    def gross(self) -> int:
        """Made by prices."""
        return self.realized + self.unrealized

    @property
    def net(self) -> int:
        """Gross less fees."""
        return self.gross - self.fees

    def __add__(self, other: Pnl) -> Pnl:
        return Pnl(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


def value_of(price: int, qty: int, multiplier: int) -> int:
    """Money that a quantity is worth, at 1e-8, rounded down; `qty` may be signed."""
    return price * qty * multiplier // (SCALE * SCALE)


@dataclass(slots=True)
class _Lot:
    """A quantity and its cost, both signed."""

    qty: int
    cost: int


@dataclass(slots=True)
class CostBook:
    """Position in one contract with the cost of what is held.

    Attributes
    ----------
    method : CostMethod
        Which lot a closing fill takes: the oldest, or all alike.
    """

    method: CostMethod
    position_qty: int = 0
    cash: int = 0
    realized: int = 0
    _lots: deque[_Lot] = field(default_factory=deque)

    @property
    def cost(self) -> int:
        """Signed cost of what is held."""
        return sum(lot.cost for lot in self._lots)

    @property
    def lots(self) -> tuple[tuple[int, int], ...]:
        """Signed quantity and cost of every lot, oldest first."""
        return tuple((lot.qty, lot.cost) for lot in self._lots)

    def add(self, side: int, price: int, qty: int, multiplier: int) -> None:
        """Take a fill; one that goes through zero closes all and opens the rest.

        Parameters
        ----------
        side : int
            +1 buy, -1 sell.
        price, qty, multiplier : int
            At 1e-8, positive.
        """
        held = abs(self.position_qty)
        closing = min(qty, held) if side * self.position_qty < 0 else 0
        whole = value_of(price, qty, multiplier)
        closed = whole if closing == qty else value_of(price, closing, multiplier)
        if closing:
            self.realized -= side * closed + self._release(closing)
        if qty > closing:
            self._open(side * (qty - closing), side * (whole - closed))
        self.position_qty += side * qty
        self.cash -= side * whole

    def unrealized(self, mark: int, multiplier: int) -> int:
        """Value of the position at a price, less its cost.

        Parameters
        ----------
        mark, multiplier : int
            At 1e-8.
        """
        return value_of(mark, self.position_qty, multiplier) - self.cost

    def _open(self, qty: int, cost: int) -> None:
        if self.method is CostMethod.AVERAGE and self._lots:
            self._lots[0].qty += qty
            self._lots[0].cost += cost
        else:
            self._lots.append(_Lot(qty, cost))

    def _release(self, closing: int) -> int:
        """Takes a quantity out of the lots; gives its signed cost."""
        released = 0
        while closing:
            lot = self._lots[0]
            size = abs(lot.qty)
            if size <= closing:
                released += lot.cost
                closing -= size
                self._lots.popleft()
                continue
            part = lot.cost * closing // size
            released += part
            lot.cost -= part
            lot.qty -= closing if lot.qty > 0 else -closing
            closing = 0
        return released


@dataclass(slots=True)
class _Entry:
    book: CostBook
    fees: int = 0
    tax: int = 0
    fill_count: int = 0


class PositionStore:
    """Positions and results by strategy, instrument and account.

    Parameters
    ----------
    instruments : mapping of int to Instrument
        By id.
    method : CostMethod, optional
        How cost is assigned.
    """

    def __init__(
        self, instruments: Mapping[int, Instrument], *, method: CostMethod = CostMethod.FIFO
    ) -> None:
        self._instruments = dict(instruments)
        self._method = method
        self._entries: dict[tuple[str, str, int], _Entry] = {}
        self._marks: dict[int, int] = {}
        self._seen: set[tuple[str, int, int]] = set()

    def take(self, fill: Fill) -> bool:
        """Count a fill.

        Parameters
        ----------
        fill : Fill
            As the log has it.

        Returns
        -------
        bool
            False when it was counted before.

        Raises
        ------
        PlatformError
            UNKNOWN_INSTRUMENT, or ORDER_FIELD_INVALID for a side or number that no fill has.
        """
        instrument = self._instrument(fill.instrument_id)
        if fill.trading_day:
            instrument = instrument.on(fill.trading_day)
        if fill.side not in (1, -1) or fill.price <= 0 or fill.qty <= 0:
            raise PlatformError(
                ReasonCode.ORDER_FIELD_INVALID,
                f"fill of order {fill.order_id}: side {fill.side}, price {fill.price}, qty"
                f" {fill.qty}; allowed are +1 and -1, and numbers above 0",
            )
        if (fill.account, fill.order_id, fill.fill_seq) in self._seen:
            return False
        # Costs first: a fill that cannot be charged is not counted by halves.
        fee = _charge(trade_cost, instrument, fill)
        tax = _charge(trade_tax, instrument, fill)
        self._seen.add((fill.account, fill.order_id, fill.fill_seq))
        key = (fill.account, fill.strategy, fill.instrument_id)
        entry = self._entries.setdefault(key, _Entry(CostBook(self._method)))
        entry.book.add(fill.side, fill.price, fill.qty, instrument.multiplier)
        entry.fees += fee
        entry.tax += tax
        entry.fill_count += 1
        # Until somebody marks it, the last price that we traded at is the mark.
        self._marks.setdefault(fill.instrument_id, fill.price)
        return True

    def take_records(
        self, broker: Records, strategies: Mapping[int, str], *, account: str = ""
    ) -> int:
        """Count the fills among broker records, in their order.

        Parameters
        ----------
        broker : ndarray of Broker records
            From the order log.
        strategies : mapping of int to str
            Name of each alpha, by its index.
        account : str, optional
            Whose orders they were.

        Returns
        -------
        int
            Fills that were not counted before.
        """
        count = 0
        for row in broker[broker["event_kind"] == FILL]:
            order_id = int(row["order_id"])
            count += self.take(
                Fill(
                    strategy=strategies[alpha_of(order_id)],
                    account=account,
                    instrument_id=int(row["instrument_id"]),
                    side=int(row["side"]),
                    price=int(row["price"]),
                    qty=int(row["qty"]),
                    trading_day=int(row["trading_day"]),
                    order_id=order_id,
                    fill_seq=int(row["broker_seq"]),
                    is_maker=bool(row["is_maker"]),
                )
            )
        return count

    def mark(self, instrument_id: int, price: int) -> None:
        """Value positions in a contract at a price from now on.

        Parameters
        ----------
        instrument_id : int
            The contract.
        price : int
            At 1e-8, positive.
        """
        self._instrument(instrument_id)
        if price <= 0:
            raise PlatformError(ReasonCode.PRICE_NOT_POSITIVE, f"mark was {price}")
        self._marks[instrument_id] = price

    def entries(self) -> list[tuple[str, str, int]]:
        """Account, strategy and instrument of every position that ever was, sorted."""
        return sorted(self._entries)

    def pnl(self, account: str, strategy: str, instrument_id: int) -> Pnl:
        """Result of one strategy in one contract.

        Parameters
        ----------
        account, strategy : str
            Whose.
        instrument_id : int
            The contract.
        """
        entry = self._entries.get((account, strategy, instrument_id))
        if entry is None:
            return Pnl()
        book = entry.book
        multiplier = self._instrument(instrument_id).multiplier
        return Pnl(
            position_qty=book.position_qty,
            cost=book.cost,
            cash=book.cash,
            realized=book.realized,
            unrealized=book.unrealized(self._marks[instrument_id], multiplier),
            fees=entry.fees,
            tax=entry.tax,
            fill_count=entry.fill_count,
        )

    def account_pnl(self, account: str, instrument_id: int) -> Pnl:
        """Sum over the strategies of an account in one contract: contracts may differ in currency.

        Parameters
        ----------
        account : str
            Which.
        instrument_id : int
            The contract.
        """
        rows = (key for key in self.entries() if (key[0], key[2]) == (account, instrument_id))
        return sum((self.pnl(*key) for key in rows), Pnl())

    def position_qty(self, account: str, instrument_id: int) -> int:
        """Signed net position of an account.

        Parameters
        ----------
        account : str
            Which.
        instrument_id : int
            The contract.
        """
        return self.account_pnl(account, instrument_id).position_qty

    def average_price(self, account: str, strategy: str, instrument_id: int) -> int | None:
        """Cost of one unit of what is held, at 1e-8, rounded down; None when flat.

        Parameters
        ----------
        account, strategy : str
            Whose.
        instrument_id : int
            The contract.
        """
        pnl = self.pnl(account, strategy, instrument_id)
        if not pnl.position_qty:
            return None
        multiplier = self._instrument(instrument_id).multiplier
        return abs(pnl.cost) * SCALE * SCALE // (abs(pnl.position_qty) * multiplier)

    def _instrument(self, instrument_id: int) -> Instrument:
        found = self._instruments.get(instrument_id)
        if found is None:
            raise PlatformError(
                ReasonCode.UNKNOWN_INSTRUMENT, f"instrument id {instrument_id} is not in the store"
            )
        return found


def pnl_of_fills(
    fills: Iterable[Fill],
    instrument: Instrument,
    *,
    mark: int,
    method: CostMethod = CostMethod.AVERAGE,
) -> Pnl:
    """What fills of one contract came to, whoever made them.

    The check that a day's result is one number: this, from fills; the engine's, from positions; and
    the ledger's, from the account.

    Parameters
    ----------
    fills : iterable of Fill
        In their order; one that comes twice counts once.
    instrument : Instrument
        Multiplier and costs.
    mark : int
        Price of what is held at the end, at 1e-8.
    method : CostMethod, optional
        What is called realized.

    Returns
    -------
    Pnl
    """
    store = PositionStore({instrument.instrument_id: instrument}, method=method)
    accounts = set()
    for fill in fills:
        store.take(fill)
        accounts.add(fill.account)
    store.mark(instrument.instrument_id, mark)
    rows = (store.account_pnl(account, instrument.instrument_id) for account in sorted(accounts))
    return sum(rows, Pnl())


def _charge(rule: Callable[..., int], instrument: Instrument, fill: Fill) -> int:
    return rule(
        instrument.costs,
        price=fill.price,
        qty=fill.qty,
        multiplier=instrument.multiplier,
        side=fill.side,
        is_maker=fill.is_maker,
    )


def alpha_of(order_id: int) -> int:
    """Index of the alpha that an order id belongs to.

    Parameters
    ----------
    order_id : int
        Of our order, positive.
    """
    return (order_id - 1) >> ORDER_COUNTER_BITS
