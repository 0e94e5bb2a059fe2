"""Intent channel: several strategy runners hand their intents to one gateway over a Unix socket.

Why: runners come, hang and die on their own; none of them may hold up the gateway or another
runner, and none may lose sight of what became of its orders.

Invariants:
1. The socket is in the workspace with mode 0600, and only processes of the same user are heard.
2. One connection is one alpha, with the very permit the gateway runs; an alpha has one
   connection.
3. Everything a runner can make grow has a bound: intents waiting (CHANNEL_FULL), messages to it
   (market records are left out, then it is disconnected), its silence (disconnected).
4. Intents of one runner are decided in the order in which they came, one of each runner in turn.
5. An intent is either handed to the engine or given up, and a given-up one is never handed over
   later: refused with its code, or left in a dead letter when there is nobody to refuse it to.
6. What a runner is told of its orders is read from the order log behind its cursor
   (`order_views`), so a runner that comes back misses nothing, also from another gateway.
7. Orders of a runner that is gone are the gateway's: after a grace they are canceled, once each,
   or kept, as the settings say.

It decides on no intent and calls no broker. Operator's page: `docs/gateway.md`.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import structlog

from hft_platform import records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.gateway import wire
from hft_platform.gateway.channel_socket import RUNNERS_MAX, listen, user_of
from hft_platform.gateway.dead_letters import DeadLetters
from hft_platform.gateway.intent_channel import CANCEL, LocalIntentChannel, intent_fault
from hft_platform.gateway.order_log import each_record
from hft_platform.gateway.order_views import AlphaView, OrderView

log = structlog.get_logger()

NS = 1_000_000_000
READS_PER_STEP = 64
"""Messages taken from one runner before the next has its turn."""
EVENTS_UNTAKEN_MAX = 256
"""Events a runner may have before it says that it took them."""
OUTBOX_MESSAGES_MAX = 1_024
MARKET_OUTBOX_MAX = 256
"""Messages in a runner's outbox from which on market records are left out for it."""
MARKET_QUEUE_MAX = 4_096
HELLO_NS_MAX = 2 * NS
_INSTRUMENT = struct.Struct("<4xI")
"""Where a record's head names its instrument."""


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """Bounds of the channel, from the settings.

    Attributes
    ----------
    outstanding_max : int
        Intents of one runner that may wait.
    stall_ns : int
        How long a runner may leave what it was sent unread.
    grace_ns : int
        How long a runner may be gone before its orders are looked after.
    on_disconnect : {"cancel", "keep"}
        What becomes of them then.
    """

    outstanding_max: int
    stall_ns: int
    grace_ns: int
    on_disconnect: Literal["cancel", "keep"]


@dataclass(frozen=True, slots=True)
class RemoteAlpha:
    """An alpha whose intents come over the channel.

    Attributes
    ----------
    alpha_id : str
        Of its permit.
    alpha_index : int
        In the gateway's engine.
    instrument_ids : frozenset of int
        That it may trade.
    config_sha256 : bytes
        Content hash of its permit.
    promotion_seq : int
        Number of that promotion.
    ttl_ns : int
        Longest time to live of an intent.
    """

    alpha_id: str
    alpha_index: int
    instrument_ids: frozenset[int]
    config_sha256: bytes
    promotion_seq: int
    ttl_ns: int


@dataclass(frozen=True, slots=True)
class Holdings:
    """What questions about positions and money are answered from.

    Attributes
    ----------
    positions : callable
        Net positions of an alpha by instrument; PlatformError when they cannot be told.
    account : callable
        Answer time, whether money is known, equity, free margin.
    """

    positions: Callable[[int], Mapping[int, int]]
    account: Callable[[], tuple[int, bool, int, int]]


@dataclass(slots=True)
class _Runner:
    """One connection."""

    link: socket.socket
    since_ns: int
    alpha: RemoteAlpha | None = None
    inbox: deque[wire.Intent | tuple[int, wire.Question]] = field(default_factory=deque)
    waiting: int = 0
    outbox: deque[bytes] = field(default_factory=deque)
    moved_ns: int = 0
    sent_cursor: int = 0
    untaken: deque[int] = field(default_factory=deque)
    wanted: frozenset[int] = frozenset()
    is_writable_awaited: bool = False


@dataclass(slots=True)
class _Absent:
    """An alpha without a runner."""

    since_ns: int
    canceled: set[int] = field(default_factory=set)


@dataclass(slots=True)
class ChannelCounts:
    """What happened on the channel."""

    intents: int = 0
    acks: int = 0
    nacks: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    disconnects: Counter[str] = field(default_factory=Counter)
    market_left_out: int = 0
    orders_canceled: int = 0


class ChannelServer:
    """The gateway's side; whoever owns a thread calls `step`.

    Parameters
    ----------
    path : Path
        Of the socket. An old one of a dead gateway is replaced: the lease says that it is dead.
    local : LocalIntentChannel
        Into the engine.
    alphas : mapping of str to RemoteAlpha
        Whose intents are taken.
    limits : ChannelLimits
        Bounds.
    holdings : Holdings
        For questions.
    dead_letters : DeadLetters
        For intents that were given up.
    epoch : int
        That the gateway leads.
    session_key : int
        Names the session whose `input_seq` the cursors are; the same after a takeover.
    clock_ns : callable
        CLOCK_BOOTTIME, the same for every process of the host.
    """

    def __init__(
        self,
        path: Path,
        local: LocalIntentChannel,
        alphas: Mapping[str, RemoteAlpha],
        *,
        limits: ChannelLimits,
        holdings: Holdings,
        dead_letters: DeadLetters,
        epoch: int,
        session_key: int,
        clock_ns: Callable[[], int],
    ) -> None:
        self.counts = ChannelCounts()
        self._path = path
        self._local = local
        self._alphas = dict(alphas)
        self._limits = limits
        self._holdings = holdings
        self._dead_letters = dead_letters
        self._epoch = epoch
        self._session_key = session_key
        self._clock_ns = clock_ns
        self._runners: dict[int, _Runner] = {}
        self._market: deque[bytes] = deque(maxlen=MARKET_QUEUE_MAX)
        self._market_lock = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._listener = listen(path)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._epoll.register(self._wake, select.EPOLLIN)
        now_ns = clock_ns()
        # A gateway that takes over finds its runners gone; they have the grace to come back.
        self._absent = {alpha_id: _Absent(now_ns) for alpha_id in self._alphas}

    @property
    def connected(self) -> list[str]:
        """Alphas with a runner."""
        return sorted(r.alpha.alpha_id for r in self._runners.values() if r.alpha is not None)

    def wake(self) -> None:
        """Say from any thread that the order log has something new."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._wake, 1)

    def publish(self, tape: bytes) -> None:
        """Hand market records to the runners, from any thread; never waits.

        Parameters
        ----------
        tape : bytes
            Whole records.
        """
        if not any(runner.wanted for runner in list(self._runners.values())):
            return
        with self._market_lock:
            if len(self._market) == MARKET_QUEUE_MAX:
                self.counts.market_left_out += 1
            self._market.append(tape)
        self.wake()

    def step(self, timeout_s: float) -> None:
        """Wait for something to do, at most so long, and do it.

        Parameters
        ----------
        timeout_s : float
            0 does not wait.
        """
        if any(runner.inbox for runner in self._runners.values()):
            timeout_s = 0.0
        for descriptor, events in self._epoll.poll(timeout_s):
            self._on_ready(descriptor, events)
        self._local.refresh()
        self._decide_in_turn()
        self._send_market()
        now_ns = self._clock_ns()
        for runner in list(self._runners.values()):
            self._send_events(runner)
            self._flush(runner, now_ns)
            self._look_at(runner, now_ns)
        self._look_after_absent(now_ns)

    def close(self) -> None:
        """Disconnect everybody; the socket's name stays, so that the next gateway replaces it."""
        for runner in list(self._runners.values()):
            self._disconnect(runner, "gateway closed")
        self._epoll.close()
        self._listener.close()
        os.close(self._wake)

    # What comes in.

    def _on_ready(self, descriptor: int, events: int) -> None:
        if descriptor == self._listener.fileno():
            self._accept()
        elif descriptor == self._wake:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
        else:
            runner = self._runners.get(descriptor)
            if runner is None:
                return
            if events & (select.EPOLLHUP | select.EPOLLERR):
                # What it still said is not heard: it asks what became of it when it comes back.
                self._disconnect(runner, "gone")
            elif events & select.EPOLLIN:
                self._read(runner)

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("runner_not_accepted", error=str(error))
                return
            link.setblocking(False)
            uid = user_of(link)
            problem = ""
            if uid != os.geteuid():
                problem = f"a process of user {uid}"
            elif len(self._runners) >= RUNNERS_MAX:
                problem = f"more than {RUNNERS_MAX} runners"
            if problem:
                self.counts.disconnects["refused"] += 1
                log.warning("runner_refused", problem=problem)
                with contextlib.suppress(OSError):
                    link.send(wire.refused(ReasonCode.CHANNEL_PROTOCOL, problem))
                link.close()
                continue
            now_ns = self._clock_ns()
            self._runners[link.fileno()] = _Runner(link, now_ns, moved_ns=now_ns)
            self._epoll.register(link, select.EPOLLIN)

    def _read(self, runner: _Runner) -> None:
        for _ in range(READS_PER_STEP):
            try:
                message = runner.link.recv(wire.MESSAGE_BYTES_MAX + 1)
            except BlockingIOError:
                return
            except OSError as error:
                self._disconnect(runner, f"gone: {error.strerror}")
                return
            if not message:
                self._disconnect(runner, "gone")
                return
            try:
                self._on_message(runner, message)
            except PlatformError as error:
                self._refuse(runner, error.code, error.message)
                return
            if runner.link.fileno() < 0:
                return

    def _on_message(self, runner: _Runner, message: bytes) -> None:
        kind, body = wire.unpack(message)
        if isinstance(body, wire.Hello):
            self._on_hello(runner, body)
            return
        if runner.alpha is None:
            raise wire.malformed(f"first message was {kind.name}, it is HELLO")
        if isinstance(body, wire.Intent):
            self._on_intent(runner, runner.alpha, body)
        elif kind is wire.Kind.TAKEN and isinstance(body, int):
            self._on_taken(runner, body)
        elif kind is wire.Kind.ASK and isinstance(body, tuple):
            number, question = (int(word) for word in body)
            if len(runner.inbox) >= 2 * self._limits.outstanding_max:
                raise wire.malformed("more questions than a runner may ask at once")
            runner.inbox.append((number, wire.Question(question)))
        elif kind is wire.Kind.SUBSCRIBE and isinstance(body, tuple):
            runner.wanted = frozenset(number for number in body if isinstance(number, int))
        elif kind is wire.Kind.BYE:
            self._disconnect(runner, "said good bye")
        else:
            raise wire.malformed(f"a runner sends no {kind.name}")

    def _on_hello(self, runner: _Runner, hello: wire.Hello) -> None:
        if runner.alpha is not None:
            raise wire.malformed("a second HELLO")
        alpha = self._alphas.get(hello.alpha_id)
        if alpha is None:
            raise PlatformError(
                ReasonCode.CONFIG_NOT_FOUND, f"the gateway runs no alpha {hello.alpha_id}"
            )
        if (hello.config_sha256, hello.promotion_seq) != (alpha.config_sha256, alpha.promotion_seq):
            raise PlatformError(
                ReasonCode.CONFIG_EVIDENCE_MISMATCH,
                f"promotion {hello.promotion_seq} {hello.config_sha256.hex()[:12]} is not the"
                f" gateway's, {alpha.promotion_seq} {alpha.config_sha256.hex()[:12]}",
            )
        if alpha.alpha_id in self.connected:
            raise wire.malformed(f"alpha {alpha.alpha_id} has a runner already")
        runner.alpha = alpha
        # A cursor of another session says nothing about this one.
        runner.sent_cursor = hello.cursor if hello.session_key == self._session_key else 0
        self._absent.pop(alpha.alpha_id, None)
        self._local.refresh()
        view = self._view(alpha)
        runner.outbox.append(
            wire.welcome(
                wire.Welcome(
                    alpha.alpha_index, self._epoch, self._session_key, view.cursor,
                    view.last_external_id,
                )
            )
        )  # fmt: skip
        log.info("runner_connected", alpha_id=alpha.alpha_id, cursor=hello.cursor)

    def _on_intent(self, runner: _Runner, alpha: RemoteAlpha, intent: wire.Intent) -> None:
        self.counts.intents += 1
        if runner.waiting >= self._limits.outstanding_max:
            self._nack(runner, intent.number, ReasonCode.CHANNEL_FULL, runner.waiting,
                       self._limits.outstanding_max)  # fmt: skip
            return
        runner.waiting += 1
        runner.inbox.append(intent)

    def _on_taken(self, runner: _Runner, cursor: int) -> None:
        while runner.untaken and runner.untaken[0] <= cursor:
            runner.untaken.popleft()
        runner.moved_ns = self._clock_ns()

    # What becomes of it.

    def _decide_in_turn(self) -> None:
        """One of every runner, so that nobody waits for a runner in a loop."""
        for runner in list(self._runners.values()):
            if not runner.inbox or runner.alpha is None:
                continue
            first = runner.inbox.popleft()
            if isinstance(first, wire.Intent):
                runner.waiting -= 1
                self._decide(runner, runner.alpha, first)
            else:
                self._answer(runner, runner.alpha, *first)

    def _decide(self, runner: _Runner, alpha: RemoteAlpha, intent: wire.Intent) -> None:
        fault = intent_fault(
            intent.record, alpha_index=alpha.alpha_index, instrument_ids=alpha.instrument_ids
        )
        if fault:
            log.warning("intent_malformed", alpha_id=alpha.alpha_id, fault=fault)
            self._nack(runner, intent.number, ReasonCode.INTENT_MALFORMED)
            return
        row = records.split(intent.record)["Intent"][0]
        age_ns = max(0, self._clock_ns() - intent.sent_ns)
        ttl_ns = min(int(row["ttl_ns"]), alpha.ttl_ns)
        is_cancel = int(row["action"]) == CANCEL
        if age_ns > ttl_ns and not is_cancel:
            self._give_up(alpha, intent, ReasonCode.INTENT_EXPIRED)
            self._nack(runner, intent.number, ReasonCode.INTENT_EXPIRED, age_ns, ttl_ns)
            return
        if is_cancel and int(row["order_id"]) not in self._view(alpha).orders:
            self._nack(runner, intent.number, ReasonCode.ORDER_UNKNOWN)
            return
        try:
            answer = self._local.submit(intent.record, age_ns=age_ns)
        except PlatformError as error:
            if error.code != ReasonCode.ORDER_OUTCOME_UNKNOWN:
                raise
            # Neither yes nor no: the runner waits in vain and then asks, as for any lost answer.
            self.counts.unanswered += 1
            log.error("intent_unanswered", reason_code=error.code, error=error.message)
            return
        if answer.is_approved:
            self.counts.acks += 1
            self._put(
                runner, wire.ack(wire.Ack(intent.number, answer.order_id, answer.decision_seq))
            )
        else:
            self._nack(runner, intent.number, answer.code, answer.observed, answer.limit)

    def _answer(
        self, runner: _Runner, alpha: RemoteAlpha, number: int, question: wire.Question
    ) -> None:
        messages: list[bytes] = []
        count = 0
        try:
            if question is wire.Question.ORDERS:
                for order in self._view(alpha).orders.values():
                    messages += wire.order(_order_row(number, order))
                    count += 1
            elif question is wire.Question.POSITIONS:
                for instrument_id, qty in sorted(
                    self._holdings.positions(alpha.alpha_index).items()
                ):
                    messages.append(wire.position(wire.Position(number, instrument_id, qty)))
                    count += 1
            else:
                time_ns, is_known, equity, margin = self._holdings.account()
                row = wire.Account(number, time_ns, int(is_known), equity, margin)
                messages.append(wire.account(row))
                count = 1
        except PlatformError as error:
            log.warning("question_not_answered", reason_code=error.code, error=error.message)
            messages, count = [wire.answered(wire.Answered(number, 0, error.code))], 0
        else:
            messages.append(wire.answered(wire.Answered(number, count)))
        # An answer is as long as the day: it may pass the bound of the outbox, once.
        runner.outbox.extend(messages)

    def _give_up(self, alpha: RemoteAlpha, intent: wire.Intent, code: ReasonCode) -> None:
        self._dead_letters.add(
            code,
            alpha_id=alpha.alpha_id,
            number=intent.number,
            age_ns=self._clock_ns() - intent.sent_ns,
            record=intent.record,
        )

    def _nack(
        self, runner: _Runner, number: int, code: int, observed: int = 0, limit: int = 0
    ) -> None:
        self.counts.nacks[ReasonCode(code).name] += 1
        self._put(runner, wire.nack(wire.Nack(number, int(code), observed, limit)))

    # What goes out.

    def _put(self, runner: _Runner, message: bytes) -> None:
        runner.outbox.append(message)

    def _send_events(self, runner: _Runner) -> None:
        if runner.alpha is None:
            return
        room = EVENTS_UNTAKEN_MAX - len(runner.untaken)
        for cursor, order, record in self._view(runner.alpha).after(runner.sent_cursor, room):
            event = wire.Event(cursor, order.external_id, order.tag_number, record)
            self._put(runner, wire.event(event))
            runner.sent_cursor = cursor
            runner.untaken.append(cursor)

    def _send_market(self) -> None:
        with self._market_lock:
            tapes = list(self._market)
            self._market.clear()
        if not tapes:
            return
        by_instrument: dict[int, list[bytes]] = {}
        for tape in tapes:
            for _, record in each_record(tape):
                number = _INSTRUMENT.unpack_from(record)[0]
                by_instrument.setdefault(number, []).append(record)
        for runner in self._runners.values():
            for number in runner.wanted & by_instrument.keys():
                for message in _market_messages(by_instrument[number]):
                    if len(runner.outbox) >= MARKET_OUTBOX_MAX:
                        self.counts.market_left_out += 1
                    else:
                        runner.outbox.append(message)

    def _flush(self, runner: _Runner, now_ns: int) -> None:
        while runner.outbox:
            try:
                runner.link.send(runner.outbox[0])
            except BlockingIOError:
                self._await_writable(runner, is_awaited=True)
                return
            except OSError as error:
                self._disconnect(runner, f"gone: {error.strerror}")
                return
            runner.outbox.popleft()
            runner.moved_ns = now_ns
        self._await_writable(runner, is_awaited=False)

    def _await_writable(self, runner: _Runner, *, is_awaited: bool) -> None:
        if runner.is_writable_awaited != is_awaited:
            runner.is_writable_awaited = is_awaited
            self._epoll.modify(runner.link, select.EPOLLIN | (select.EPOLLOUT if is_awaited else 0))

    # Who goes.

    def _look_at(self, runner: _Runner, now_ns: int) -> None:
        if runner.link.fileno() < 0:
            return
        if runner.alpha is None:
            if now_ns - runner.since_ns > HELLO_NS_MAX:
                self._disconnect(runner, "said no hello")
            return
        is_behind = bool(runner.outbox) or len(runner.untaken) >= EVENTS_UNTAKEN_MAX
        if is_behind and now_ns - runner.moved_ns > self._limits.stall_ns:
            self._disconnect(runner, "stalled")
        elif len(runner.outbox) > OUTBOX_MESSAGES_MAX and not self._is_answering(runner):
            self._disconnect(runner, "reads too slowly")

    @staticmethod
    def _is_answering(runner: _Runner) -> bool:
        """True while the rest of an answer is what makes the outbox long."""
        kind = int.from_bytes(runner.outbox[0][6:8], "little")
        return kind in (wire.Kind.ORDER, wire.Kind.POSITION)

    def _refuse(self, runner: _Runner, code: int, text: str) -> None:
        log.warning("runner_refused", reason_code=code, problem=text)
        with contextlib.suppress(OSError):
            runner.link.send(wire.refused(code, text))
        self._disconnect(runner, "refused")

    def _disconnect(self, runner: _Runner, why: str) -> None:
        descriptor = runner.link.fileno()
        if descriptor < 0:
            return
        self.counts.disconnects[why.partition(":")[0]] += 1
        del self._runners[descriptor]
        with contextlib.suppress(OSError):
            self._epoll.unregister(descriptor)
        runner.link.close()
        if runner.alpha is None:
            return
        for waiting in runner.inbox:
            if isinstance(waiting, wire.Intent):
                self._give_up(runner.alpha, waiting, ReasonCode.CHANNEL_UNREACHABLE)
        runner.inbox.clear()
        self._absent[runner.alpha.alpha_id] = _Absent(self._clock_ns())
        log.warning("runner_disconnected", alpha_id=runner.alpha.alpha_id, why=why)

    def _look_after_absent(self, now_ns: int) -> None:
        if self._limits.on_disconnect != "cancel":
            return
        for alpha_id, absent in self._absent.items():
            if now_ns - absent.since_ns < self._limits.grace_ns:
                continue
            alpha = self._alphas[alpha_id]
            for order in list(self._view(alpha).open_orders.values()):
                is_unknown = order.code == ReasonCode.ORDER_OUTCOME_UNKNOWN
                if order.order_id in absent.canceled or is_unknown:
                    continue
                absent.canceled.add(order.order_id)
                self._cancel(alpha, order)

    def _cancel(self, alpha: RemoteAlpha, order: OrderView) -> None:
        row = records.empty("Intent", 1)
        row["instrument_id"] = order.instrument_id
        row["alpha_index"], row["action"] = alpha.alpha_index, CANCEL
        row["intent_reason"], row["order_id"] = _REQUOTE, order.order_id
        row["ttl_ns"] = alpha.ttl_ns
        try:
            answer = self._local.submit(row.tobytes(), age_ns=0)
        except PlatformError as error:
            if error.code != ReasonCode.ORDER_OUTCOME_UNKNOWN:
                raise
            self.counts.unanswered += 1
            return
        if answer.is_approved:
            self.counts.orders_canceled += 1
        log.warning(
            "absent_runner_order_canceled",
            alpha_id=alpha.alpha_id, order_id=order.order_id, reason_code=answer.code,
        )  # fmt: skip

    def _view(self, alpha: RemoteAlpha) -> AlphaView:
        return self._local.views.alpha(alpha.alpha_index)


_REQUOTE = 4


def _order_row(number: int, order: OrderView) -> wire.Order:
    return wire.Order(
        number, order.order_id, order.external_id, order.tag_number, order.instrument_id,
        order.side, order.price, order.qty, order.filled_qty, int(order.status), order.code,
        b"".join(order.fills),
    )  # fmt: skip


def _market_messages(rows: list[bytes]) -> list[bytes]:
    """Records in as few messages as they fit into."""
    messages: list[bytes] = []
    part: list[bytes] = []
    size = 0
    for row in rows:
        if part and size + len(row) > wire.MESSAGE_BYTES_MAX // 2:
            messages.append(wire.pack(wire.Kind.MARKET, b"".join(part)))
            part, size = [], 0
        part.append(row)
        size += len(row)
    messages.append(wire.pack(wire.Kind.MARKET, b"".join(part)))
    return messages
