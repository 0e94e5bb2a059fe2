"""What follows from the broker's list of orders, for each of ours: a pure judgment.

Why: whether an order is adopted, doubted or given up decides about money. It must be readable in
one place, follow from facts and times alone, and be testable without a broker.

Invariants:
1. Nothing is judged twice as fast as the settings say: what ends an order must be in two answers a
   gap apart, the first of which was asked for a quarantine after the call came back.
2. An order whose call has not come back is never judged: it may still be on its way.
3. A cancel without an answer is never taken for a cancel: only the broker's word ends the order.
4. An order that changed within the guard is not judged; one of unknown outcome that is found is
   taken at once.
5. A fill that the broker does not name gets an id from the order and its cumulative quantity, so it
   is the same fill after every restart.

It asks nobody and changes nothing. Operator's page: `docs/reconciliation.md`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hft_platform.config.settings import ReconciliationSettings
from hft_platform.execution.order_ids import SYNTHETIC_PREFIX
from hft_platform.execution.reconciliation_report import Finding, FindingKind, units
from hft_platform.order.broker import (
    BrokerOrder,
    EventKind,
    FillEvent,
    OrderEvent,
    OrderStatus,
)

NS_PER_MS = 1_000_000
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ENDED = {
    OrderStatus.CANCELED: EventKind.CANCELED,
    OrderStatus.FILLED: EventKind.CANCELED,  # what is left of ours is not there any more
    OrderStatus.REJECTED: EventKind.REJECTED,
    OrderStatus.EXPIRED: EventKind.EXPIRED,
}
OPEN_STATES = ("pending_new", "working", "pending_cancel", "unknown")


@dataclass(frozen=True, slots=True)
class OurOrder:
    """An order as the engine holds it.

    Attributes
    ----------
    state : str
        As `LiveSession.orders` names it; any other text is done.
    is_called : bool
        Whether the broker call is known to have come back.
    has_synthetic : bool
        Whether a fill of it was named by us.
    """

    order_id: int
    instrument_id: int
    symbol: str
    side: int
    price: int
    qty: int
    filled_qty: int
    state: str
    tag: str
    is_called: bool = False
    has_synthetic: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it may still be filled."""
        return self.state in OPEN_STATES

    @property
    def remaining_qty(self) -> int:
        """What may still be filled."""
        return self.qty - self.filled_qty if self.is_open else 0


@dataclass(frozen=True, slots=True)
class Judgment:
    """What is to be done about an order.

    Attributes
    ----------
    events : tuple
        Events and fills that we lack, in order.
    is_doubted : bool
        It is to be held unknown.
    is_abandoned : bool
        It is to be given up.
    is_unwanted : bool
        It is open at the broker and done here: its rest is to be canceled.
    """

    events: tuple[OrderEvent | FillEvent, ...] = ()
    is_doubted: bool = False
    is_abandoned: bool = False
    is_unwanted: bool = False


NOTHING = Judgment()


@dataclass(slots=True)
class Sighting:
    """Something that must be in two answers a gap apart before it counts."""

    key: Hashable = None
    counted: int = 0
    seen: int = 0
    first_ns: int = 0
    last_ns: int = 0

    def see(self, key: Hashable, asked_ns: int, answered_ns: int, *, gap_ns: int) -> bool:
        """Note an answer; True when the same thing stood in an answer a gap before.

        Parameters
        ----------
        key : hashable
            What was seen; something else starts over.
        asked_ns, answered_ns : int
            When the question left, and when its answer was there.
        gap_ns : int
            Least time from the first answer to the second question.
        """
        if self.counted and key != self.key:
            self.clear()
        if not self.counted:
            self.key, self.first_ns = key, answered_ns
        self.seen += 1
        if not self.counted or asked_ns - self.last_ns >= gap_ns:
            self.counted += 1
            self.last_ns = answered_ns
        return self.counted > 1

    def clear(self) -> None:
        """It is not so, or no longer."""
        self.key, self.counted, self.seen, self.first_ns, self.last_ns = None, 0, 0, 0, 0


@dataclass(slots=True)
class _Watched:
    """What is remembered of an order from answer to answer.

    `since_ns` is when its state or quantity was last seen to change; `agreed_ns` when the broker
    was last asked and said the same.
    """

    ours: OurOrder
    since_ns: int
    asked: int = 0
    asked_ns: int = 0
    agreed_ns: int = 0
    missing: Sighting = field(default_factory=Sighting)
    short: Sighting = field(default_factory=Sighting)
    ahead: Sighting = field(default_factory=Sighting)
    alive: Sighting = field(default_factory=Sighting)
    ended: Sighting = field(default_factory=Sighting)

    def changed(self, ours: OurOrder, now_ns: int) -> None:
        self.ours, self.since_ns, self.asked, self.agreed_ns = ours, now_ns, 0, 0
        for sighting in (self.missing, self.short, self.ahead, self.alive, self.ended):
            sighting.clear()


@dataclass(frozen=True, slots=True)
class Known:
    """An order whose outcome is unknown no longer.

    Attributes
    ----------
    since_ns : int
        Unknown from then on, as far as was seen.
    asked : int
        Answers in that time.
    """

    order_id: int
    since_ns: int
    asked: int


class OrderCheck:
    """Judges our orders against the broker's.

    Parameters
    ----------
    settings : ReconciliationSettings
        Times.
    """

    def __init__(self, settings: ReconciliationSettings) -> None:
        self._quarantine_ns = settings.quarantine_ms * NS_PER_MS
        self._gap_ns = settings.not_found_gap_ms * NS_PER_MS
        self._guard_ns = settings.guard_ms * NS_PER_MS
        self._in_flight_ns = settings.in_flight_ms * NS_PER_MS
        self._open: dict[int, _Watched] = {}
        self._done: dict[int, _Watched] = {}
        self._changed_ns: dict[int, int] = {}

    def note(self, orders: Iterable[OurOrder], now_ns: int) -> list[Known]:
        """See where our open orders stand now; forget those that are done.

        Parameters
        ----------
        orders : iterable of OurOrder
            Every open one.
        now_ns : int
            The time.

        Returns
        -------
        list of Known
            Orders that were of unknown outcome at the last look, and are not any more.
        """
        rows = {row.order_id: row for row in orders}
        known = []
        for order_id, watched in list(self._open.items()):
            row = rows.get(order_id)
            if watched.ours.state == "unknown" and (row is None or row.state != "unknown"):
                known.append(Known(order_id, watched.since_ns, watched.asked))
            if row is None:
                del self._open[order_id]
                self._changed_ns[watched.ours.instrument_id] = now_ns
            elif _standing(row) != _standing(watched.ours):
                watched.changed(row, now_ns)
                self._changed_ns[row.instrument_id] = now_ns
            else:
                watched.ours = row
        for order_id, row in rows.items():
            if order_id not in self._open:
                self._open[order_id] = _Watched(row, now_ns)
                self._changed_ns[row.instrument_id] = now_ns
            self._done.pop(order_id, None)
        return known

    def wants_answer(self, now_ns: int) -> bool:
        """Whether some order waits for an answer longer than it should.

        Parameters
        ----------
        now_ns : int
            The time.
        """
        return any(
            watched.ours.state == "unknown"
            or watched.missing.counted
            or watched.short.counted
            or watched.ended.counted
            or (watched.ours.state != "working" and now_ns - watched.since_ns >= self._in_flight_ns)
            for watched in self._open.values()
        ) or bool(self._done)

    def judge(
        self,
        ours: OurOrder,
        found: BrokerOrder | None,
        asked_ns: int,
        answered_ns: int,
        *,
        is_idle: bool = True,
    ) -> Judgment:
        """Judge an order by an answer that was asked for after `note` saw it, and unchanged since.

        Parameters
        ----------
        ours : OurOrder
            As it stands; open ones as `note` saw them.
        found : BrokerOrder or None
            What the answer has of it; None when the answer does not name it.
        asked_ns, answered_ns : int
            When the question left, and when its answer was there.
        is_idle : bool, optional
            Whether no request waits for the dispatcher: a cancel that waits is not lost.
        """
        if not ours.is_open:
            return (
                NOTHING if found is None else self._judge_done(ours, found, asked_ns, answered_ns)
            )
        watched = self._open[ours.order_id]
        watched.asked += 1
        watched.asked_ns = asked_ns
        if found is None:
            return self._judge_missing(watched, asked_ns, answered_ns)
        watched.missing.clear()
        is_young = asked_ns - watched.since_ns < self._guard_ns
        if ours.state != "unknown" and is_young:
            return NOTHING
        if not is_idle:
            watched.alive.clear()
        return self._judge_found(watched, found, (asked_ns, answered_ns), is_idle=is_idle)

    def _judge_missing(self, watched: _Watched, asked_ns: int, answered_ns: int) -> Judgment:
        ours, age_ns = watched.ours, asked_ns - watched.since_ns
        if ours.state == "pending_new" and not ours.is_called:
            return NOTHING
        if age_ns < max(self._quarantine_ns, self._guard_ns):
            return NOTHING
        is_gone = watched.missing.see("missing", asked_ns, answered_ns, gap_ns=self._gap_ns)
        if not is_gone or ours.state == "pending_cancel":
            return NOTHING
        return Judgment(is_abandoned=True) if ours.state == "unknown" else Judgment(is_doubted=True)

    def _judge_found(
        self, watched: _Watched, found: BrokerOrder, see: tuple[int, int], *, is_idle: bool
    ) -> Judgment:
        ours, (asked_ns, answered_ns) = watched.ours, see
        lack = found.filled_qty - ours.filled_qty
        if lack < 0:
            watched.ahead.see(found.filled_qty, *see, gap_ns=self._gap_ns)
            watched.short.clear()
        else:
            watched.ahead.clear()
        events: list[OrderEvent | FillEvent] = []
        is_new = ours.state in ("unknown", "pending_new")
        is_there = found.status == OrderStatus.WORKING or (
            # At the broker and not yet at the exchange: that much is known of it.
            found.status == OrderStatus.PENDING
            and ours.state == "unknown"
            and asked_ns - watched.since_ns >= self._quarantine_ns
        )
        if is_new and (is_there or lack > 0):
            events.append(event_of(EventKind.WORKING, found, answered_ns))
        fills = self._lacking_fills(watched, ours, found, see) if lack > 0 else ()
        events += fills
        if lack <= 0:
            watched.short.clear()
        is_complete = lack <= sum(fill.qty for fill in fills)
        kind = _ENDED.get(found.status)
        if kind is not None and is_complete:
            events += self._end(watched, kind, found, see)
        elif found.status == OrderStatus.WORKING and ours.state == "pending_cancel":
            # The cancel was lost: twice the broker says that the order works.
            is_lost = (
                is_idle
                and asked_ns - watched.since_ns >= self._quarantine_ns
                and watched.alive.see("alive", *see, gap_ns=self._gap_ns)
            )
            if is_lost:
                events.append(event_of(EventKind.CANCEL_REJECTED, found, answered_ns))
        if not events and lack == 0:
            watched.agreed_ns = asked_ns
        return Judgment(events=tuple(events))

    def _end(
        self, watched: _Watched, kind: EventKind, found: BrokerOrder, see: tuple[int, int]
    ) -> list[OrderEvent | FillEvent]:
        """The end that the broker tells, as the engine can take it."""
        ours = watched.ours
        if found.status == OrderStatus.FILLED:
            if found.filled_qty >= ours.qty:
                return []
            # Filled, and less than we ordered: somebody made it smaller. Asked once more.
            if not watched.ended.see(found.filled_qty, *see, gap_ns=self._gap_ns):
                return []
        is_refused = kind == EventKind.REJECTED
        if is_refused and (found.filled_qty or ours.state not in ("unknown", "pending_new")):
            # The engine takes a refusal of an order that never worked only.
            kind = EventKind.CANCELED
        return [event_of(kind, found, see[1])]

    def _lacking_fills(
        self, watched: _Watched, ours: OurOrder, found: BrokerOrder, see: tuple[int, int]
    ) -> tuple[FillEvent, ...]:
        """Fills that we lack: as the broker names them, else by a name that follows from them."""
        key = (ours.filled_qty, found.filled_qty)
        is_confirmed = watched.short.see(key, *see, gap_ns=self._gap_ns)
        names_all = sum(fill.qty for fill in found.fills) >= found.filled_qty
        if not ours.has_synthetic and (names_all or not is_confirmed):
            return tuple(replace(fill, tag=fill.tag or found.tag) for fill in found.fills)
        if not is_confirmed:
            return ()
        missing_qty = found.filled_qty - ours.filled_qty
        return (synthetic_fill(ours, found, missing_qty, see[1]),)

    def _judge_done(
        self, ours: OurOrder, found: BrokerOrder, asked_ns: int, answered_ns: int
    ) -> Judgment:
        lack = found.filled_qty - ours.filled_qty
        is_alive = found.status in (OrderStatus.WORKING, OrderStatus.PENDING)
        if lack == 0 and not is_alive:
            self._done.pop(ours.order_id, None)
            return NOTHING
        watched = self._done.setdefault(ours.order_id, _Watched(ours, answered_ns))
        if _standing(watched.ours) != _standing(ours):
            watched.changed(ours, answered_ns)
        watched.asked += 1
        watched.asked_ns = asked_ns
        see = (asked_ns, answered_ns)
        if lack < 0:
            watched.ahead.see(found.filled_qty, *see, gap_ns=self._gap_ns)
        is_unwanted = is_alive and watched.alive.see("alive", *see, gap_ns=self._gap_ns)
        fills: tuple[FillEvent, ...] = ()
        if lack > 0:
            fills = self._lacking_fills(watched, ours, found, see)
        return Judgment(events=fills, is_unwanted=is_unwanted)

    def unverified(self, instrument_id: int) -> tuple[int, int]:
        """Buy and sell quantity of an instrument that may have been filled without our knowing.

        Parameters
        ----------
        instrument_id : int
            Which.
        """
        buy = sell = 0
        for watched in self._open.values():
            ours = watched.ours
            if ours.instrument_id != instrument_id or watched.agreed_ns > watched.since_ns:
                continue
            buy += ours.remaining_qty if ours.side > 0 else 0
            sell += ours.remaining_qty if ours.side < 0 else 0
        return buy, sell

    def last_change_ns(self, instrument_id: int) -> int:
        """When an order of an instrument was last seen to come, change or go; 0 before the first.

        Parameters
        ----------
        instrument_id : int
            Which.
        """
        return self._changed_ns.get(instrument_id, 0)

    def unknown(self) -> list[OurOrder]:
        """Orders of unknown outcome, oldest first."""
        rows = [row.ours for row in self._open.values() if row.ours.state == "unknown"]
        return sorted(rows, key=lambda row: row.order_id)

    def findings(self, now_ns: int) -> list[Finding]:
        """What stands between our orders and the broker's.

        Parameters
        ----------
        now_ns : int
            The time.
        """
        found = []
        for watched in self._open.values():
            kind = self._kind_of(watched, now_ns)
            if kind is not None:
                found.append(_finding(kind, watched))
        for watched in self._done.values():
            if watched.alive.counted > 1:
                found.append(_finding(FindingKind.ORDER_REVIVED, watched))
            elif watched.ahead.counted > 1:
                found.append(_finding(FindingKind.ORDER_AHEAD, watched))
            elif watched.short.counted:
                found.append(_finding(FindingKind.ORDER_BEHIND, watched))
        return found

    def _kind_of(self, watched: _Watched, now_ns: int) -> FindingKind | None:
        state, is_late = watched.ours.state, now_ns - watched.since_ns >= self._in_flight_ns
        if state == "unknown":
            return FindingKind.ORDER_UNKNOWN
        rows = (
            (watched.missing.counted > 0, FindingKind.ORDER_MISSING),
            (watched.ahead.counted > 1, FindingKind.ORDER_AHEAD),
            (watched.short.counted > 0, FindingKind.ORDER_BEHIND),
            (state == "pending_new" and is_late, FindingKind.ORDER_UNANSWERED),
            (state == "pending_cancel" and is_late, FindingKind.CANCEL_UNANSWERED),
        )
        return next((kind for holds, kind in rows if holds), None)


def our_order(
    row: Mapping[str, Any], symbol: str, *, is_called: bool, has_synthetic: bool
) -> OurOrder:
    """Take an order as `LiveSession.orders` gives it.

    Parameters
    ----------
    row : mapping
        From the session.
    symbol : str
        Of its instrument.
    is_called : bool
        Whether its broker call came back.
    has_synthetic : bool
        Whether we named a fill of it.
    """
    return OurOrder(
        order_id=int(row["order_id"]),
        instrument_id=int(row["instrument_id"]),
        symbol=symbol,
        side=int(row["side"]),
        price=int(row["price"]),
        qty=int(row["qty"]),
        filled_qty=int(row["filled_qty"]),
        state=str(row["state"]),
        tag=str(row["tag"]),
        is_called=is_called,
        has_synthetic=has_synthetic,
    )


def event_of(kind: EventKind, found: BrokerOrder, answered_ns: int) -> OrderEvent:
    """Make the event that the broker's answer stands for.

    Parameters
    ----------
    kind : EventKind
        What happened.
    found : BrokerOrder
        From the answer.
    answered_ns : int
        When the answer was there; when it happened is not in it.
    """
    return OrderEvent(
        kind=kind,
        ids=found.ids,
        exchange_time_ns=answered_ns,
        receive_time_ns=answered_ns,
        tag=found.tag,
        symbol=found.symbol,
        side=found.side,
        price=found.price,
        qty=found.qty,
        remaining_qty=max(0, found.qty - found.filled_qty),
        code=found.code,
        message=found.message,
    )


def synthetic_fill_id(order_id: int, cumulative_qty: int) -> str:
    """Name of a fill that the broker did not name; at most 27 characters.

    Parameters
    ----------
    order_id : int
        Ours.
    cumulative_qty : int
        Filled quantity of the order with this fill.
    """
    return f"{SYNTHETIC_PREFIX}{_base62(order_id)}.{_base62(cumulative_qty)}"


def synthetic_fill(ours: OurOrder, found: BrokerOrder, qty: int, answered_ns: int) -> FillEvent:
    """Make a fill of what the broker says was filled and does not name.

    Parameters
    ----------
    ours : OurOrder
        The order; its price is the fill's where the broker gives none.
    found : BrokerOrder
        With the filled quantity.
    qty : int
        What is missing, positive.
    answered_ns : int
        When the broker said so.
    """
    return FillEvent(
        ids=found.ids,
        fill_id=synthetic_fill_id(ours.order_id, found.filled_qty),
        symbol=ours.symbol,
        side=ours.side,
        price=found.price or ours.price,
        qty=qty,
        exchange_time_ns=answered_ns,
        receive_time_ns=answered_ns,
        tag=found.tag or ours.tag,
    )


def _base62(number: int) -> str:
    text = ""
    while True:
        number, digit = divmod(number, 62)
        text = _BASE62[digit] + text
        if not number:
            return text


def _standing(row: OurOrder) -> tuple[str, int]:
    return row.state, row.filled_qty


def _finding(kind: FindingKind, watched: _Watched) -> Finding:
    ours = watched.ours
    side = "buy" if ours.side > 0 else "sell"
    text = (
        f"{ours.symbol} {side} {units(ours.qty)} at {units(ours.price)}, tag {ours.tag},"
        f" {ours.state}, filled {units(ours.filled_qty)} as we count"
    )
    if watched.missing.counted:
        text += f"; {watched.missing.seen} answers did not name it"
    if watched.alive.counted:
        text += f"; {watched.alive.seen} answers say that it works"
    return Finding(
        kind=kind,
        subject=str(ours.order_id),
        since_ns=watched.since_ns,
        text=text,
        asked=watched.asked,
        asked_ns=watched.asked_ns,
        symbol=ours.symbol,
        qty=ours.remaining_qty,
    )
