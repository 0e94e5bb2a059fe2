"""What the gateway tells its runners of their orders: a fold over the order log, nothing else.

Why: a runner that comes back, and a gateway that takes over, must both find what was told before.

Invariants:
1. State follows from the records of the order log alone, in its order: folded again after a
   crash, it is the same, cursors included.
2. An event's cursor is the `input_seq` of its `Broker` record: it grows, and means the same
   before and after a takeover.
3. A fill counts once, by its `broker_seq` within its order.
4. A runner's number of an order is answered the same however often it comes: the first decision
   on it stands.

It decides nothing; the engine has decided. Operator's page: `docs/gateway.md`.
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from hft_platform import records
from hft_platform.errors import ReasonCode
from hft_platform.gateway.order_log import each_record
from hft_platform.input_records import BrokerKind


class Status(IntEnum):
    """Where an order is, as far as the gateway knows."""

    PENDING = 1
    WORKING = 2
    FILLED = 3
    CANCELED = 4
    REJECTED = 5
    EXPIRED = 6


_PLACE, _CANCEL = 1, 2
_APPROVED = 1
_EXTERNAL_MASK = (1 << 32) - 1
_DONE = frozenset({Status.FILLED, Status.CANCELED, Status.REJECTED, Status.EXPIRED})


def _reader(name: str, *fields: str) -> tuple[struct.Struct, int]:
    """One struct over the fields of a layout, and the record's type code; the gaps are skipped."""
    layout = records.DTYPES[name]
    formats = {"<u8": "Q", "<i8": "q", "<u4": "I", "<i4": "i", "<f8": "d"}
    table: Mapping[str, Any] = layout.fields or {}
    text, at = "<", 0
    for one in fields:
        kind, offset = table[one][0], table[one][1]
        text += f"{offset - at}x{formats[kind.str]}"
        at = offset + kind.itemsize
    return struct.Struct(text), records.TYPE_CODES[name]


_INTENT, _INTENT_CODE = _reader(
    "Intent", "input_seq", "source_seq", "exchange_time_ns", "alpha_index", "action", "external_id"
)
_DECISION, _DECISION_CODE = _reader(
    "Decision", "instrument_id", "input_seq", "decision_seq", "intent_id", "order_id",
    "alpha_index", "action", "verdict", "reason_code", "side", "price", "qty", "observed", "limit",
)  # fmt: skip
_BROKER, _BROKER_CODE = _reader(
    "Broker", "input_seq", "event_kind", "reason_code", "order_id", "qty", "broker_seq"
)
_EPOCH_CODE = records.TYPE_CODES.get("Epoch")


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an intent.

    Attributes
    ----------
    order_id : int
        The gateway's, 0 when it was refused.
    decision_seq : int
        Of the decision.
    code : int
        Why it was refused; 0 when it was approved.
    observed, limit : int
        What the refusing check saw.
    tag_number, wanted_ns : int
        Of the intent that was decided: they tell a repetition from another order of that number.
    """

    order_id: int
    decision_seq: int
    code: int
    observed: int = 0
    limit: int = 0
    tag_number: int = 0
    wanted_ns: int = 0

    @property
    def is_approved(self) -> bool:
        """True when the order is on its way to the broker, or the cancel is."""
        return self.code == 0


@dataclass(slots=True)
class OrderView:
    """One order of an alpha."""

    order_id: int
    external_id: int
    tag_number: int
    instrument_id: int
    side: int
    price: int
    qty: int
    status: Status = Status.PENDING
    code: int = 0
    filled_qty: int = 0
    fills: list[bytes] = field(default_factory=list)
    fill_seqs: set[int] = field(default_factory=set)

    @property
    def is_done(self) -> bool:
        """True when nothing more of it can happen."""
        return self.status in _DONE


@dataclass(slots=True)
class AlphaView:
    """Orders, answers and events of one alpha."""

    orders: dict[int, OrderView] = field(default_factory=dict)
    open_orders: dict[int, OrderView] = field(default_factory=dict)
    """Those of which something can still happen."""
    answers: dict[int, Answer] = field(default_factory=dict)
    """By the runner's number of the order."""
    cursors: list[int] = field(default_factory=list)
    events: list[tuple[OrderView, bytes]] = field(default_factory=list)
    last_external_id: int = 0

    @property
    def cursor(self) -> int:
        """Newest event, 0 without one."""
        return self.cursors[-1] if self.cursors else 0

    def after(self, cursor: int, count_max: int) -> list[tuple[int, OrderView, bytes]]:
        """Events behind a cursor.

        Parameters
        ----------
        cursor : int
            Last one that is known.
        count_max : int
            At most so many.
        """
        first = bisect.bisect_right(self.cursors, cursor)
        last = min(first + count_max, len(self.cursors))
        return [(self.cursors[at], *self.events[at]) for at in range(first, last)]


class OrderViews:
    """Everything that a session's order log says of its alphas' orders."""

    def __init__(self) -> None:
        self.alphas: dict[int, AlphaView] = {}
        self.last_seq = 0
        """Highest `input_seq` seen."""
        self._of_order: dict[int, int] = {}
        self.cancel_number = 0
        """Highest number that the channel gave to a cancel."""
        # The last intent, and answers to cancels by the channel's number.
        self._asked: tuple[int, int, int, int, int, int] | None = None
        self._canceled: dict[int, Answer] = {}

    def alpha(self, index: int) -> AlphaView:
        """View of an alpha; empty when nothing happened yet."""
        return self.alphas.setdefault(index, AlphaView())

    def take_cancel(self, number: int) -> Answer | None:
        """Answer to a cancel, once; None when none was decided.

        Parameters
        ----------
        number : int
            That the channel gave it, as `source_seq`.
        """
        answer = self._canceled.pop(number, None)
        if answer is not None:
            self._canceled.clear()
        return answer

    def fold(self, tape: bytes) -> None:
        """Take what is new in the order log.

        Parameters
        ----------
        tape : bytes
            Records in the order of the log.
        """
        for code, record in each_record(tape):
            if code == _BROKER_CODE:
                self._on_broker(record)
            elif code == _DECISION_CODE:
                self._on_decision(record)
            elif code == _INTENT_CODE:
                asked = _INTENT.unpack_from(record)
                self.last_seq = max(self.last_seq, asked[0])
                # Its decision is the next one of the log that is about an intent.
                self._asked = asked
                if asked[4] == _CANCEL:
                    self.cancel_number = max(self.cancel_number, asked[1])
            elif code == _EPOCH_CODE:
                # What was asked before a crash and not decided never will be.
                self._asked = None

    def _on_decision(self, record: bytes) -> None:
        (instrument, seq, decision_seq, intent_id, order_id, alpha_index, action, verdict, code,
         side, price, qty, observed, limit) = _DECISION.unpack_from(record)  # fmt: skip
        self.last_seq = max(self.last_seq, seq)
        if action not in (_PLACE, _CANCEL):
            return
        approved = verdict == _APPROVED
        tag, external = 0, 0
        if self._asked is not None and self._asked[0] == seq:
            _, asked_tag, wanted_ns, asked_alpha, asked_action, asked_external = self._asked
            answer = Answer(
                order_id if approved else 0, decision_seq, 0 if approved else code, observed,
                limit, asked_tag, wanted_ns,
            )  # fmt: skip
            is_it = (asked_alpha, asked_action) == (alpha_index, action)
            if is_it and action == _CANCEL:
                self._canceled[asked_tag] = answer
            elif is_it and asked_external == intent_id & _EXTERNAL_MASK:
                tag, external = asked_tag, asked_external
                view = self.alpha(alpha_index)
                view.answers.setdefault(external, answer)
                view.last_external_id = max(view.last_external_id, external)
        if action == _PLACE and approved:
            order = OrderView(order_id, external, tag, instrument, side, price, qty)
            view = self.alpha(alpha_index)
            view.orders[order_id] = view.open_orders[order_id] = order
            self._of_order[order_id] = alpha_index

    def _on_broker(self, record: bytes) -> None:
        seq, kind, code, order_id, qty, broker_seq = _BROKER.unpack_from(record)
        self.last_seq = max(self.last_seq, seq)
        alpha_index = self._of_order.get(order_id)
        if alpha_index is None:
            return
        view = self.alphas[alpha_index]
        order = view.orders[order_id]
        if kind == BrokerKind.FILL and broker_seq in order.fill_seqs:
            return
        _advance(order, kind, code, qty, broker_seq, record)
        if order.is_done:
            view.open_orders.pop(order_id, None)
        view.cursors.append(seq)
        view.events.append((order, record))


def _advance(
    order: OrderView, kind: int, code: int, qty: int, broker_seq: int, record: bytes
) -> None:
    """Next status of an order; a late fill still counts on one that is done."""
    if kind == BrokerKind.FILL:
        order.fill_seqs.add(broker_seq)
        order.fills.append(record)
        order.filled_qty += qty
        if order.filled_qty >= order.qty:
            order.status = Status.FILLED
        elif order.status == Status.PENDING:
            order.status = Status.WORKING
        order.code = 0 if order.code == ReasonCode.ORDER_OUTCOME_UNKNOWN else order.code
        return
    if order.is_done:
        return
    if kind == BrokerKind.WORKING:
        order.status, order.code = Status.WORKING, 0
    elif kind == BrokerKind.REJECTED:
        order.status, order.code = Status.REJECTED, code
    elif kind == BrokerKind.CANCELED:
        order.status, order.code = Status.CANCELED, code
    elif kind == BrokerKind.EXPIRED:
        order.status, order.code = Status.EXPIRED, code
    elif kind == BrokerKind.UNKNOWN:
        order.code = int(ReasonCode.ORDER_OUTCOME_UNKNOWN)
