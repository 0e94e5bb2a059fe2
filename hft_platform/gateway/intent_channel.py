"""The direct path of an intent into the engine, and what the engine answered.

Why: whether an intent comes from this process or over the channel from another one, it takes the
same path: it becomes a record, the engine's seven steps decide on it, and the decision is read
from the order log.

Invariants:
1. A number of an order that was decided is answered from the order log and not pushed again;
   behind that the engine's own dedup refuses it.
2. An answer is given only when its decision is durable. Without one `submit` raises: nobody then
   knows, and whoever asked must ask for the order.

`LocalIntentChannel` is the path within one process; `channel.ChannelServer` puts it behind a
socket. Operator's page: `docs/gateway.md`.
"""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from hft_platform import records
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.gateway.order_log import OrderLogFollower
from hft_platform.gateway.order_views import Answer, OrderViews

PLACE, CANCEL = 1, 2
RUNNER_SOURCE = 7
DURABLE_S = 0.5
"""Longest wait for a decision to be durable: many group commits, and below a runner's patience."""
DURABLE_LOOK_S = 0.0005
EXTERNAL_ID_MAX = (1 << 32) - 1
_INTENT = records.DTYPES["Intent"]
_FIELDS: Mapping[str, Any] = _INTENT.fields or {}
_U8, _I8, _U2 = struct.Struct("<Q"), struct.Struct("<q"), struct.Struct("<H")


class IntentSession(Protocol):
    """What the channel needs of a live session."""

    def push(self, tape: bytes) -> int:
        """Sequence, log and decide."""


class LocalIntentChannel:
    """Takes intents into the engine of this process.

    Parameters
    ----------
    session : IntentSession
        Live session.
    log : OrderLogFollower
        Of its order log.
    clock_ns : callable
        Wall clock, ns UTC.
    """

    def __init__(
        self, session: IntentSession, log: OrderLogFollower, *, clock_ns: Callable[[], int]
    ) -> None:
        self.views = OrderViews()
        self.dedup_hits = 0
        """Intents that were answered without being decided again."""
        self.refusals: Counter[str] = Counter()
        """Refused intents by reason code name."""
        self._session = session
        self._log = log
        self._clock_ns = clock_ns

    def refresh(self) -> None:
        """Take what is new in the order log."""
        tape = self._log.poll()
        if tape:
            self.views.fold(tape)

    def submit(self, record: bytes, *, age_ns: int) -> Answer:
        """Let the engine decide on one intent.

        Parameters
        ----------
        record : bytes
            `Intent` record with alpha, action, order and time to live; its cause is filled in here.
            `source_seq` is the number of its tag, `exchange_time_ns` when it was wanted: together
            they tell a repetition from another intent of that number.
        age_ns : int
            How long ago the strategy wanted it.

        Returns
        -------
        Answer
            Durable. Of a repeated number, the first one.

        Raises
        ------
        PlatformError
            ORDER_OUTCOME_UNKNOWN when the order log has no decision; the log's code when it failed.
        """
        intent = bytearray(record)
        action, alpha = _get(intent, "action", "I"), _get(intent, "alpha_index", "I")
        external_id = _get(intent, "external_id", "Q")
        if action == PLACE:
            known = self.views.alpha(alpha).answers.get(external_id)
            if known is not None:
                self.dedup_hits += 1
                return self._repeated(intent, known)
        now_ns = self._clock_ns()
        _U2.pack_into(intent, _at("source_id"), RUNNER_SOURCE)
        _U8.pack_into(intent, _at("cause_seq"), max(1, self.views.last_seq))
        _I8.pack_into(intent, _at("receive_time_ns"), now_ns)
        _I8.pack_into(intent, _at("cause_time_ns"), now_ns - max(0, age_ns))
        number = self.views.cancel_number + 1
        if action == CANCEL:
            _U8.pack_into(intent, _at("source_seq"), number)
        self._session.push(bytes(intent))
        answer = self._decided(alpha, external_id if action == PLACE else None, number)
        if answer is None:
            raise PlatformError(
                ReasonCode.ORDER_OUTCOME_UNKNOWN,
                f"intent {external_id} of alpha {alpha}: pushed, and no decision on it is durable",
            )
        if answer.code:
            self.refusals[code_name(answer.code)] += 1
            if answer.code == ReasonCode.DUPLICATE_INTENT:
                self.dedup_hits += 1
        return answer

    def _decided(self, alpha: int, external_id: int | None, cancel: int) -> Answer | None:
        """The decision, as soon as it is durable: at once, or behind the next group commit."""
        deadline = time.monotonic() + DURABLE_S
        while True:
            self.refresh()
            if external_id is not None:
                answer = self.views.alpha(alpha).answers.get(external_id)
            else:
                answer = self.views.take_cancel(cancel)
            if answer is not None or time.monotonic() > deadline:
                return answer
            time.sleep(DURABLE_LOOK_S)

    def _repeated(self, intent: bytearray, known: Answer) -> Answer:
        """The first answer, if it is the same intent; else the number was used before."""
        same = (_get(intent, "source_seq", "Q"), _get(intent, "exchange_time_ns", "q"))
        if same == (known.tag_number, known.wanted_ns):
            return known
        self.refusals[code_name(ReasonCode.DUPLICATE_INTENT)] += 1
        return Answer(0, known.decision_seq, int(ReasonCode.DUPLICATE_INTENT))


def intent_fault(record: bytes, *, alpha_index: int, instrument_ids: frozenset[int]) -> str:
    """What is wrong with an intent, as far as it can be seen without the engine.

    Parameters
    ----------
    record : bytes
        `Intent` record.
    alpha_index : int
        Of the runner that sent it.
    instrument_ids : frozenset of int
        That its alpha may trade.

    Returns
    -------
    str
        Empty when nothing is.
    """
    if _get(record, "alpha_index", "I") != alpha_index:
        return f"alpha index was {_get(record, 'alpha_index', 'I')}, the runner's is {alpha_index}"
    if _get(record, "instrument_id", "I") not in instrument_ids:
        return f"instrument {_get(record, 'instrument_id', 'I')} is not the alpha's"
    if _get(record, "ttl_ns", "q") <= 0:
        return "time to live is not positive"
    action = _get(record, "action", "I")
    if action == CANCEL:
        return "" if _get(record, "order_id", "Q") else "a cancel names no order"
    if action != PLACE:
        return f"action was {action}"
    if not 0 < _get(record, "external_id", "Q") <= EXTERNAL_ID_MAX:
        return f"number of the order was {_get(record, 'external_id', 'Q')}"
    if abs(_get(record, "side", "q")) != 1 or _get(record, "qty", "q") <= 0:
        return "side or quantity is none"
    if _get(record, "price", "q") <= 0 or not 1 <= _get(record, "time_in_force", "I") <= 3:
        return "price or time in force is none"
    return ""


def _at(name: str) -> int:
    return int(_FIELDS[name][1])


def _get(record: bytes | bytearray, name: str, kind: str) -> int:
    return int(struct.unpack_from(f"<{kind}", record, _at(name))[0])
