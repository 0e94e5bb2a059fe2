"""The runner's side of the intent channel: it connects by itself, again and again, and asks.

Why: a takeover must cost a runner nothing but time: it finds the new leader, says how far it got,
and takes what it missed.

Invariants:
1. A message that could not be put on the socket was not sent, and the caller is told so. One that
   was put there and not answered is in doubt, and the caller is told that: it is never sent
   again.
2. Events are given in the order of their cursors, each at least once; a cursor is said to be
   taken only after the event was given.
3. Every wait has a bound.

It knows no broker and no order: `order.gateway_broker` does. Operator's page: `docs/gateway.md`.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import structlog

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.gateway import wire
from hft_platform.gateway.channel_socket import address_of
from hft_platform.gateway.lease import boottime_ns

log = structlog.get_logger()

RECONNECT_S = 0.02
ANSWER_ROWS_MAX = 1_000_000
_READS_PER_STEP = 256


class ChannelListener(Protocol):
    """What a runner is told, from the channel's thread."""

    def on_event(self, event: wire.Event) -> None:
        """Something about an order."""

    def on_market(self, tape: bytes) -> None:
        """Market records."""

    def on_channel(self, is_up: bool, message: str) -> None:
        """The gateway was found, or lost."""


@dataclass(slots=True)
class _Request:
    """Something that waits for its answer."""

    done: threading.Event = field(default_factory=threading.Event)
    answer: wire.Ack | wire.Nack | wire.Answered | None = None
    rows: list[wire.Order | wire.Position | wire.Account] = field(default_factory=list)


class ChannelClient:
    """One runner's connection to whichever gateway leads.

    Parameters
    ----------
    path : Path
        Of the socket.
    hello : Hello
        Who this runner is; session and cursor are kept here.
    listener : ChannelListener
        Told what happens.
    answer_s : float
        Longest wait for an answer.
    """

    def __init__(
        self, path: Path, hello: wire.Hello, listener: ChannelListener, *, answer_s: float
    ) -> None:
        self.welcome: wire.Welcome | None = None
        """Of the gateway that is connected."""
        self.refusal: PlatformError | None = None
        """Why the last gateway did not want this runner."""
        self._path = path
        self._hello = hello
        self._listener = listener
        self._answer_s = answer_s
        self._link: socket.socket | None = None
        self._lock = threading.Lock()
        self._number = 0
        self._requests: dict[int, _Request] = {}
        self._wanted: list[int] = []
        self._is_welcome = threading.Event()

    @property
    def cursor(self) -> int:
        """Last event that was given."""
        return self._hello.cursor

    def wait_welcome(self, seconds: float) -> bool:
        """Wait for a gateway to take this runner.

        Parameters
        ----------
        seconds : float
            Longest wait.
        """
        return self._is_welcome.wait(seconds)

    def run(self, stop: threading.Event) -> None:
        """Stay connected until told to stop; what the owner's thread calls.

        Parameters
        ----------
        stop : threading.Event
            Ends it within a tenth of a second.
        """
        while not stop.is_set():
            if not self.step(0.1):
                stop.wait(RECONNECT_S)
        self.close()

    def step(self, timeout_s: float) -> bool:
        """Connect if need be, wait for messages at most so long, and take them.

        Parameters
        ----------
        timeout_s : float
            0 does not wait.

        Returns
        -------
        bool
            False when there is no gateway to talk to.
        """
        link = self._link
        if link is None:
            link = self._connect()
            if link is None:
                return False
        poller = select.poll()
        poller.register(link, select.POLLIN)
        if poller.poll(timeout_s * 1000):
            self._read(link)
        return self._link is not None

    def request(
        self, message_of: Callable[[int], bytes]
    ) -> tuple[
        wire.Ack | wire.Nack | wire.Answered, list[wire.Order | wire.Position | wire.Account]
    ]:
        """Send a request and wait for its answer.

        Parameters
        ----------
        message_of : callable
            Makes the message for the request's number.

        Returns
        -------
        answer, rows

        Raises
        ------
        PlatformError
            CHANNEL_UNREACHABLE or CHANNEL_FULL when it was not sent; ORDER_OUTCOME_UNKNOWN when it
            was sent and not answered.
        """
        request = _Request()
        with self._lock:
            self._number += 1
            number = self._number
            self._requests[number] = request
            try:
                self._send(message_of(number))
            except PlatformError:
                del self._requests[number]
                raise
        is_done = request.done.wait(self._answer_s)
        with self._lock:
            self._requests.pop(number, None)
        if not is_done or request.answer is None:
            raise PlatformError(
                ReasonCode.ORDER_OUTCOME_UNKNOWN,
                f"request {number} was sent to the gateway and not answered "
                + ("before it was lost" if is_done else f"within {self._answer_s} s"),
            )
        return request.answer, request.rows

    def subscribe(self, instrument_ids: list[int]) -> None:
        """Ask for market records, now and after every connection.

        Parameters
        ----------
        instrument_ids : list of int
            Of these instruments.
        """
        with self._lock:
            self._wanted = instrument_ids
            if self._is_welcome.is_set():
                self._send(wire.subscribe(instrument_ids))

    def close(self) -> None:
        """Leave in order: the gateway looks after the orders that are open."""
        with self._lock:
            if self._link is not None:
                try:
                    self._send(wire.pack(wire.Kind.BYE))
                except PlatformError as error:
                    log.info("channel_closed_without_bye", error=error.message)
        self._lose("closed")

    def _connect(self) -> socket.socket | None:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with address_of(self._path) as address:
                link.connect(address)
            link.setblocking(False)
            link.send(wire.hello(self._hello))
        except OSError:
            link.close()
            return None
        with self._lock:
            self._link = link
        return link

    def _send(self, message: bytes) -> None:
        """Put a message on the socket, or raise and leave nothing there."""
        link = self._link
        if link is None or not (self._is_welcome.is_set()):
            raise PlatformError(
                ReasonCode.CHANNEL_UNREACHABLE, f"no gateway takes intents at {self._path}"
            )
        try:
            link.send(message)
        except BlockingIOError as error:
            raise PlatformError(
                ReasonCode.CHANNEL_FULL, f"the gateway does not read {self._path}"
            ) from error
        except OSError as error:
            raise PlatformError(
                ReasonCode.CHANNEL_UNREACHABLE, f"{self._path}: {error.strerror}"
            ) from error

    def _read(self, link: socket.socket) -> None:
        before = self._hello.cursor
        for _ in range(_READS_PER_STEP):
            try:
                message = link.recv(wire.MESSAGE_BYTES_MAX + 1)
            except BlockingIOError:
                break
            except OSError as error:
                self._lose(str(error.strerror))
                return
            if not message:
                self._lose("the gateway is gone")
                return
            try:
                self._on_message(message)
            except PlatformError as error:
                log.error("channel_message_refused", reason_code=error.code, error=error.message)
                self._lose(error.message)
                return
            if self._link is None:
                return
        if self._hello.cursor > before:
            self._say_taken()

    def _say_taken(self) -> None:
        with self._lock:
            try:
                self._send(wire.taken(self._hello.cursor))
            except PlatformError as error:
                # It is said again with the next event; without one the gateway disconnects us.
                log.info("cursor_not_said", error=error.message)

    def _on_message(self, message: bytes) -> None:
        kind, body = wire.unpack(message)
        if isinstance(body, wire.Event):
            self._listener.on_event(body)
            self._hello = replace(self._hello, cursor=body.cursor)
        elif kind is wire.Kind.MARKET and isinstance(body, bytes):
            self._listener.on_market(body)
        elif isinstance(body, wire.Ack | wire.Nack | wire.Answered):
            request = self._requests.get(body.number)
            if request is not None:
                request.answer = body
                request.done.set()
        elif isinstance(body, wire.Order | wire.Position | wire.Account):
            request = self._requests.get(body.number)
            if request is not None and len(request.rows) < ANSWER_ROWS_MAX:
                request.rows.append(body)
        elif isinstance(body, wire.Welcome):
            self._on_welcome(body)
        elif kind is wire.Kind.REFUSED and isinstance(body, tuple):
            self.refusal = PlatformError(int(body[0]), f"the gateway refused: {body[1]}")
            self._lose(f"refused: {body[1]}")
        else:
            raise wire.malformed(f"a gateway sends no {kind.name}")

    def _on_welcome(self, welcome: wire.Welcome) -> None:
        if welcome.session_key != self._hello.session_key:
            self._hello = replace(self._hello, session_key=welcome.session_key, cursor=0)
        self.welcome, self.refusal = welcome, None
        with self._lock:
            self._is_welcome.set()
            if self._wanted:
                self._send(wire.subscribe(self._wanted))
        self._listener.on_channel(True, f"gateway of epoch {welcome.epoch}")

    def _lose(self, why: str) -> None:
        """Forget the connection; whoever waits for an answer will not get it."""
        with self._lock:
            link, self._link = self._link, None
            was_welcome = self._is_welcome.is_set()
            self._is_welcome.clear()
            waiting = list(self._requests.values())
        if link is not None:
            link.close()
        for request in waiting:
            request.done.set()
        if was_welcome:
            self._listener.on_channel(False, why)


def new_hello(alpha_id: str, config_sha256: bytes, promotion_seq: int) -> wire.Hello:
    """Hello of a runner that knows no gateway yet.

    Parameters
    ----------
    alpha_id : str
        Of its permit.
    config_sha256 : bytes
        Content hash of its permit.
    promotion_seq : int
        Number of that promotion.
    """
    return wire.Hello(alpha_id, config_sha256, promotion_seq, 0, 0)


def sent_now_ns() -> int:
    """Clock of an intent's time to live: the same for every process of the host."""
    return boottime_ns()
