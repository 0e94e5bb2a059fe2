"""ExecutionRouter: which broker and account an instrument's orders go to, behind one `Broker`.

Why: whoever places, cancels and asks must not know how many brokers there are; whoever sets the
system up must be unable to leave an instrument without one, or to give it two.

Invariants:
1. Every instrument has exactly one destination, decided when the router is made; a symbol that it
   does not know is refused before any broker is called.
2. An order's names are only ever given to the broker that gave them: symbols decide, not names.
3. A question is answered only when every broker answered it; part of an answer would look like
   orders and positions that are not there.

It chooses nothing while trading. Operator's page: `docs/execution.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import Instrument
from hft_platform.order.broker import (
    AccountState,
    Broker,
    BrokerIds,
    BrokerListener,
    BrokerOrder,
    BrokerPosition,
    CallResult,
    OrderTicket,
    Outcome,
)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where orders go.

    Attributes
    ----------
    broker : str
        Name among the router's brokers.
    account : str
        Account at it, for reports and the position store.
    """

    broker: str
    account: str


class ExecutionRouter:
    """Several brokers as one.

    Parameters
    ----------
    instruments : iterable of Instrument
        Everything that is traded.
    brokers : mapping of str to Broker
        By name.
    by_venue : mapping of str to Destination
        Where a venue's instruments go.
    by_symbol : mapping of str to Destination, optional
        Exceptions.

    Raises
    ------
    PlatformError
        SETTINGS_INVALID for an instrument without a destination, a destination without a broker, or
        a name that belongs to nothing that is traded.
    """

    name = "router"

    def __init__(
        self,
        instruments: Iterable[Instrument],
        brokers: Mapping[str, Broker],
        by_venue: Mapping[str, Destination],
        by_symbol: Mapping[str, Destination] | None = None,
    ) -> None:
        rows = list(instruments)
        exceptions = dict(by_symbol or {})
        strange = sorted(set(exceptions) - {row.symbol for row in rows})
        strange += sorted(set(by_venue) - {row.venue for row in rows})
        if strange:
            raise PlatformError(
                ReasonCode.SETTINGS_INVALID, f"routes name what is not traded: {', '.join(strange)}"
            )
        self._brokers = dict(brokers)
        self._routes: dict[str, Destination] = {}
        for row in rows:
            found = exceptions.get(row.symbol) or by_venue.get(row.venue)
            if found is None or found.broker not in self._brokers:
                raise PlatformError(
                    ReasonCode.SETTINGS_INVALID,
                    f"{row.symbol} of {row.venue} has no broker: {found}; known are"
                    f" {', '.join(sorted(self._brokers))}",
                )
            self._routes[row.symbol] = found

    def destination(self, symbol: str) -> Destination:
        """Where a contract's orders go.

        Parameters
        ----------
        symbol : str
            As the instruments file names it.

        Raises
        ------
        PlatformError
            CONTRACT_UNKNOWN when it is not traded here.
        """
        found = self._routes.get(symbol)
        if found is None:
            raise PlatformError(ReasonCode.CONTRACT_UNKNOWN, f"{symbol} is routed to no broker")
        return found

    def connect(self, listener: BrokerListener) -> None:
        """Connect every broker, in the order of their names.

        Parameters
        ----------
        listener : BrokerListener
            Of all of them.
        """
        for _, broker in sorted(self._brokers.items()):
            broker.connect(listener)

    def subscribe(self, symbols: list[str]) -> None:
        """Ask each broker for the quotes of its contracts.

        Parameters
        ----------
        symbols : list of str
            As the instruments file names them.
        """
        wanted: dict[str, list[str]] = {}
        for symbol in symbols:
            wanted.setdefault(self.destination(symbol).broker, []).append(symbol)
        for name, part in sorted(wanted.items()):
            self._brokers[name].subscribe(part)

    def place(self, ticket: OrderTicket) -> CallResult:
        """Send a new order to its broker, once.

        Parameters
        ----------
        ticket : OrderTicket
            The order.
        """
        broker = self._broker_of(ticket.symbol)
        return _unrouted(ticket.symbol) if broker is None else broker.place(ticket)

    def cancel(self, ids: BrokerIds, symbol: str) -> CallResult:
        """Ask the order's broker to cancel.

        Parameters
        ----------
        ids : BrokerIds
            As that broker named it.
        symbol : str
            Of the order.
        """
        broker = self._broker_of(symbol)
        return _unrouted(symbol) if broker is None else broker.cancel(ids, symbol)

    def amend(
        self, ids: BrokerIds, symbol: str, *, price: int | None, qty: int | None
    ) -> CallResult:
        """Ask the order's broker for another price or a smaller quantity.

        Parameters
        ----------
        ids : BrokerIds
            As that broker named it.
        symbol : str
            Of the order.
        price, qty : int or None
            Wanted.
        """
        broker = self._broker_of(symbol)
        if broker is None:
            return _unrouted(symbol)
        return broker.amend(ids, symbol, price=price, qty=qty)

    def orders(self) -> list[BrokerOrder]:
        """Orders of every broker; raises when one did not answer."""
        return [row for _, broker in sorted(self._brokers.items()) for row in broker.orders()]

    def positions(self) -> list[BrokerPosition]:
        """Positions at every broker; raises when one did not answer.

        A contract that several hold is one row: their sum, of unknown average price.
        """
        sums: dict[str, list[BrokerPosition]] = {}
        for _, broker in sorted(self._brokers.items()):
            for row in broker.positions():
                sums.setdefault(row.symbol, []).append(row)
        return [_merged(symbol, rows) for symbol, rows in sorted(sums.items())]

    def account(self) -> AccountState:
        """Money of the one account; several accounts have no common answer but their margins a lot.

        Raises
        ------
        PlatformError
            As the brokers do.
        """
        answers = [broker.account() for _, broker in sorted(self._brokers.items())]
        if len(answers) == 1:
            return answers[0]
        margins: dict[str, int] = {}
        for answer in answers:
            margins |= answer.margin_per_lot or {}
        # The oldest time: an answer is as fresh as its oldest part.
        oldest_ns = min(answer.answer_time_ns for answer in answers)
        return AccountState(oldest_ns, margin_per_lot=margins or None)

    def close(self) -> None:
        """Close every broker, whatever another one does; raises the first failure at the end."""
        failures: list[PlatformError] = []
        for _, broker in sorted(self._brokers.items()):
            try:
                broker.close()
            except PlatformError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def _broker_of(self, symbol: str) -> Broker | None:
        found = self._routes.get(symbol)
        return None if found is None else self._brokers[found.broker]


def _unrouted(symbol: str) -> CallResult:
    return CallResult(
        Outcome.REJECTED,
        code=ReasonCode.CONTRACT_UNKNOWN,
        message=f"{symbol} is routed to no broker",
    )


def _merged(symbol: str, rows: list[BrokerPosition]) -> BrokerPosition:
    if len(rows) == 1:
        return rows[0]
    return BrokerPosition(symbol, sum(row.net_qty for row in rows))
