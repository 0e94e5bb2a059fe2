"""OrderIds: which of our orders a broker's order is, and which fills were counted.

Why: the broker has three names for an order, tells them one by one and late, and repeats fills. A
memory that a kill -9 empties counts a repeated fill twice; this one is rebuilt from the log.

Invariants:
1. An order is called at most once, in this life or one before: `begin_call` says yes once.
2. A name belongs to the first order it was learned for; whatever contradicts that is counted and
   changes nothing. The tag is ours and decides where names disagree.
3. A fill's number grows by one with every fill of the session, so also within its order; the
   number given to a name stays with it, over restarts.
4. A fill that was counted under a name of ours (`syn.`, from the broker's total) is not counted
   again under the broker's: what is counted of an order is never more than the larger of the two.

It pushes no record and asks nobody. Operator's page: `docs/execution.md`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from hft_platform import _core, records
from hft_platform.input_records import ID_BYTES_MAX, RouteKind, is_storable
from hft_platform.order.broker import BrokerIds

SYNTHETIC_PREFIX = "syn."
"""Begins the name of a fill that reconciliation made from a total: `syn.<order>.<total>`."""
UNCERTAIN_FILLS = 16
"""Of the fills that a log names, so many of the newest may lack their record: a log is cut at its
end only, and a name is written right before its fill. Where the engine holds less than was named,
they are pushed again under their number, and the engine, which counts by number, decides."""
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_NAMES = ("broker_id", "seqno", "ordno")


class Session(Protocol):
    """What is needed of a `LiveSession` to start from."""

    def routes(self) -> bytes:
        """Route records of the logs."""

    def order_decisions(self) -> bytes:
        """Approved Place decisions of the logs."""

    def order(self, order_id: int) -> dict[str, Any] | None:
        """An order that the engine remembers."""


class PlacedOrder(Protocol):
    """What is needed of an `OrderRequest`."""

    @property
    def order_id(self) -> int:
        """Ours."""

    @property
    def tag(self) -> str:
        """Carried by the broker."""

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


@dataclass(frozen=True, slots=True)
class OrderFacts:
    """What was ordered.

    Attributes
    ----------
    order_id, instrument_id, side, price, qty : int
        As decided.
    """

    order_id: int
    instrument_id: int
    side: int
    price: int
    qty: int


@dataclass(frozen=True, slots=True)
class FillTicket:
    """What becomes of a reported fill.

    Attributes
    ----------
    seq : int
        Its number; 0 when nothing of it is to be counted.
    qty : int
        How much of it is to be counted.
    is_new : bool
        Whether its name was never seen, so that it must be written.
    """

    seq: int
    qty: int
    is_new: bool


DOUBLE = FillTicket(seq=0, qty=0, is_new=False)


@dataclass(slots=True)
class _Fills:
    """Fills of one order: `counted` is what the engine was told, `named` what the broker named."""

    seqs: dict[str, int] = field(default_factory=dict)
    counted: int = 0
    named: int = 0
    has_synthetic: bool = False


class OrderIds:
    """Names of orders and numbers of fills; any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._facts: dict[int, OrderFacts] = {}
        self._tags: dict[str, int] = {}
        self._tag_of: dict[int, str] = {}
        self._ids: dict[int, BrokerIds] = {}
        self._names: dict[tuple[str, str], int] = {}
        self._begun: set[int] = set()
        self._called: set[int] = set()
        self._fills: dict[int, _Fills] = {}
        self._fill_seq = 0
        self._uncertain: dict[tuple[int, str], FillTicket] = {}
        self._listeners: list[Callable[[], None]] = []
        self._counters: Counter[str] = Counter()

    @classmethod
    def from_session(cls, session: Session) -> OrderIds:
        """Everything that the logs of a session know.

        Parameters
        ----------
        session : Session
            New or recovered.

        Returns
        -------
        OrderIds
        """
        made = cls()
        epoch = 0
        for name, row in _rows(session.order_decisions()):
            if name == "Epoch":
                epoch = int(row["epoch"])
            elif name == "Decision":
                made._recover_decision(row, epoch, session)
        for name, row in _rows(session.routes()):
            if name == "Route":
                made._recover_route(row)
        made._settle(session)
        return made

    def on_learned(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever a name was learned, from the thread that learned it.

        Parameters
        ----------
        listener : callable
            Takes nothing; called outside this object's lock.
        """
        self._listeners.append(listener)

    # Orders

    def begin_call(self, order: PlacedOrder) -> bool:
        """Remember that a place call for this order is about to be made.

        Parameters
        ----------
        order : PlacedOrder
            A request.

        Returns
        -------
        bool
            False when one was begun before, in this life or another: it must not be made.
        """
        with self._lock:
            if order.order_id in self._begun:
                return False
            self._begun.add(order.order_id)
            self._facts[order.order_id] = OrderFacts(
                order.order_id, order.instrument_id, order.side, order.price, order.qty
            )
            self._enter_tag(order.order_id, order.tag)
            return True

    def end_call(self, order_id: int) -> None:
        """The place call came back, or failed.

        Parameters
        ----------
        order_id : int
            Ours.
        """
        with self._lock:
            self._called.add(order_id)

    def is_called(self, order_id: int) -> bool:
        """Whether the place call of an order is known to be over, so that nothing is on its way."""
        with self._lock:
            return order_id in self._called

    def learn(self, order_id: int, ids: BrokerIds) -> BrokerIds:
        """Remember names of an order.

        Parameters
        ----------
        order_id : int
            Ours.
        ids : BrokerIds
            As far as they are known; what contradicts what is known is counted and left out.

        Returns
        -------
        BrokerIds
            Those that were new; all empty when nothing was.
        """
        with self._lock:
            new = self._enter_ids(order_id, ids)
        if new != BrokerIds():
            for listener in self._listeners:
                listener()
        return new

    def unknown_names(self, order_id: int, ids: BrokerIds) -> bool:
        """Whether `ids` holds a name that `learn` would take."""
        with self._lock:
            known = self._ids.get(order_id, BrokerIds())
            return any(
                getattr(ids, name)
                and not getattr(known, name)
                and (name, getattr(ids, name)) not in self._names
                and is_storable(getattr(ids, name), ID_BYTES_MAX)
                for name in _NAMES
            )

    def find(self, ids: BrokerIds, tag: str) -> int | None:
        """Our order that a broker's order is.

        Parameters
        ----------
        ids : BrokerIds
            As far as the broker named it.
        tag : str
            Empty where it was not carried.

        Returns
        -------
        int or None
            None when it is none of ours, or when its names belong to several of ours.
        """
        with self._lock:
            if tag and tag in self._tags:
                return self._tags[tag]
            if tag:
                # The broker carries a tag that is not ours: its other names may be used again.
                return None
            found = {
                self._names[name, text]
                for name in _NAMES
                if (text := getattr(ids, name)) and (name, text) in self._names
            }
            if len(found) > 1:
                self._counters["names_of_several_orders"] += 1
                return None
            return next(iter(found), None)

    def ids_of(self, order_id: int) -> BrokerIds | None:
        """Names of an order, None while none is known."""
        with self._lock:
            return self._ids.get(order_id)

    def tag_of(self, order_id: int) -> str:
        """Tag of an order, empty when it is not known here."""
        with self._lock:
            return self._tag_of.get(order_id, "")

    def facts_of(self, order_id: int) -> OrderFacts | None:
        """What was ordered, None when it is not known here."""
        with self._lock:
            return self._facts.get(order_id)

    def has_nameless(self) -> bool:
        """Whether some order was called, or is being called, of which no name is known yet."""
        with self._lock:
            return len(self._begun) > len(self._ids)

    # Fills

    def take_fill(self, order_id: int, fill_id: str, qty: int) -> FillTicket:
        """Number a fill.

        Parameters
        ----------
        order_id : int
            Ours.
        fill_id : str
            The broker's name of it, or one that begins with `syn.`.
        qty : int
            Its quantity.

        Returns
        -------
        FillTicket
            What is to be written and counted of it.
        """
        with self._lock:
            fills = self._fills.setdefault(order_id, _Fills())
            if fill_id in fills.seqs:
                return self._uncertain.pop((order_id, fill_id), DOUBLE)
            counted = self._to_count(fills, fill_id, qty)
            if counted:
                self._fill_seq += 1
            seq = self._fill_seq if counted else 0
            self._enter_fill(fills, fill_id, seq, qty, counted)
            return FillTicket(seq, counted, is_new=True)

    def has_synthetic(self, order_id: int) -> bool:
        """Whether a fill of an order was named by us."""
        with self._lock:
            fills = self._fills.get(order_id)
            return fills is not None and fills.has_synthetic

    def filled_qty(self, order_id: int) -> int:
        """What was counted of an order."""
        with self._lock:
            fills = self._fills.get(order_id)
            return 0 if fills is None else fills.counted

    def fill_ids(self, order_id: int) -> tuple[str, ...]:
        """Names of an order's fills, in the order in which they came."""
        with self._lock:
            fills = self._fills.get(order_id)
            return () if fills is None else tuple(fills.seqs)

    def counters(self) -> dict[str, int]:
        """Contradictions so far."""
        with self._lock:
            return dict(sorted(self._counters.items()))

    # Private

    def _to_count(self, fills: _Fills, fill_id: str, qty: int) -> int:
        total = _synthetic_total(fill_id)
        if total is not None:
            # Made from the broker's total: what came under a name in the meantime is in it.
            return max(0, min(qty, total - fills.counted))
        if not fills.has_synthetic:
            return qty
        # Named fills first use up what was counted from the total.
        return max(0, min(qty, fills.named + qty - fills.counted))

    def _enter_fill(self, fills: _Fills, fill_id: str, seq: int, qty: int, counted: int) -> None:
        fills.seqs[fill_id] = seq
        fills.counted += counted
        if fill_id.startswith(SYNTHETIC_PREFIX):
            fills.has_synthetic = True
        else:
            fills.named += qty

    def _enter_tag(self, order_id: int, tag: str) -> None:
        if not tag:
            return
        if self._tags.setdefault(tag, order_id) != order_id:
            self._counters["tag_used_twice"] += 1
            return
        self._tag_of[order_id] = tag

    def _enter_ids(self, order_id: int, ids: BrokerIds) -> BrokerIds:
        known = self._ids.get(order_id, BrokerIds())
        new: dict[str, str] = {}
        for name in _NAMES:
            text = getattr(ids, name)
            if not text or text == getattr(known, name):
                continue
            if getattr(known, name) or self._names.get((name, text), order_id) != order_id:
                self._counters["name_contradicts"] += 1
                continue
            if not is_storable(text, ID_BYTES_MAX):
                self._counters["name_unstorable"] += 1
                continue
            self._names[name, text] = order_id
            new[name] = text
        if new:
            merged = {name: new.get(name) or getattr(known, name) for name in _NAMES}
            self._ids[order_id] = BrokerIds(**merged)
        return BrokerIds(**new)

    def _recover_decision(self, row: Any, epoch: int, session: Session) -> None:  # Any: numpy row
        order_id = int(row["order_id"])
        facts = (order_id, row["instrument_id"], row["side"], row["price"], row["qty"])
        self._facts[order_id] = OrderFacts(*(int(value) for value in facts))
        # The process that could have called it is gone: whatever it did is done.
        self._begun.add(order_id)
        self._called.add(order_id)
        known = session.order(order_id)
        if known is not None and known.get("tag"):
            self._enter_tag(order_id, str(known["tag"]))
        elif epoch:
            self._enter_tag(order_id, _core.order_tag(epoch, int(row["decision_seq"])))

    def _recover_route(self, row: Any) -> None:  # Any: numpy row
        kind, order_id = int(row["route_kind"]), int(row["order_id"])
        if kind in (RouteKind.SENT, RouteKind.IDS):
            self._begun.add(order_id)
            self._called.add(order_id)
            self._enter_tag(order_id, row["tag"].decode("ascii"))
            names = {name: row[name].decode("ascii") for name in _NAMES}
            self._enter_ids(order_id, BrokerIds(**names))
        elif kind == RouteKind.FILL_ID:
            seq, qty, counted = int(row["argument"]), *_quantities(row)
            fill_id = row["fill_id"].decode("ascii")
            fills = self._fills.setdefault(order_id, _Fills())
            self._enter_fill(fills, fill_id, seq, qty, counted)
            self._fill_seq = max(self._fill_seq, seq)
            if seq:
                self._uncertain[order_id, fill_id] = FillTicket(seq, counted, is_new=False)
                while len(self._uncertain) > UNCERTAIN_FILLS:
                    del self._uncertain[next(iter(self._uncertain))]

    def _settle(self, session: Session) -> None:
        """Fills of orders of which the engine holds all that was named are certain."""
        for key in list(self._uncertain):
            known = session.order(key[0])
            if known is not None and int(known["filled_qty"]) >= self._fills[key[0]].counted:
                del self._uncertain[key]


def fill_quantities(qty: int, counted: int) -> BrokerIds:
    """Quantities of a fill as its Route record holds them: hexadecimal, in `seqno` and `ordno`.

    Parameters
    ----------
    qty : int
        Of the fill.
    counted : int
        How much of it was counted.

    Returns
    -------
    BrokerIds
        To be given to `route_record`; `broker_id` is left out.
    """
    return BrokerIds(seqno=f"{qty:x}", ordno=f"{counted:x}")


def _quantities(row: Any) -> tuple[int, int]:  # Any: numpy row
    return int(row["seqno"] or b"0", 16), int(row["ordno"] or b"0", 16)


def _synthetic_total(fill_id: str) -> int | None:
    """Total that a synthetic fill was made from; None for a fill that the broker named."""
    if not fill_id.startswith(SYNTHETIC_PREFIX):
        return None
    total = 0
    for letter in fill_id.rpartition(".")[2]:
        digit = _BASE62.find(letter)
        if digit < 0:
            return None
        total = total * 62 + digit
    return total


def _rows(tape: bytes) -> Iterator[tuple[str, Any]]:  # Any: numpy row
    """Records of a tape in their order, with the name of their type."""
    offset = 0
    while offset < len(tape):
        size, code = int.from_bytes(tape[offset : offset + 2], "little"), tape[offset + 2]
        name = _NAME_OF.get(code, "")
        if name:
            yield name, records.split(tape[offset : offset + size])[name][0]
        offset += size


_NAME_OF = {code: name for name, code in records.TYPE_CODES.items()}
