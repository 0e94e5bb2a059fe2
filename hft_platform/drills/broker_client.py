"""The drill broker's client: `Broker` over its Unix socket.

Why: a gateway that is killed in a call must have had a real call to be killed in.

Invariants:
1. A call that left and was not answered in time is AMBIGUOUS; so is one whose connection broke. One
   that could not leave is REJECTED.
2. A reply that comes after its caller gave up is dropped with its connection, never taken for
   another call's.
3. Reports come on a connection and a thread of their own; a lost connection is reported and made
   again.

It sends nothing twice. Operator's page: `docs/drills/gateway-chaos.md`.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hft_platform.drills import broker_wire as wire
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.order.broker import (
    AccountState,
    BrokerIds,
    BrokerListener,
    BrokerOrder,
    BrokerPosition,
    CallResult,
    FillEvent,
    OrderTicket,
    Outcome,
)

AGAIN_SECONDS = 0.05
CALL_SECONDS = 0.25


class _BrokenError(Exception):
    """The connection broke, or nobody answered in time.

    Attributes
    ----------
    has_left : bool
        True when the request may have reached the broker.
    code : int
        Why.
    """

    def __init__(self, code: int, message: str, *, has_left: bool) -> None:
        super().__init__(message)
        self.code = code
        self.has_left = has_left


class _Link:
    """One connection: a request at a time, each answered under its own number."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._heard = b""
        self._number = 0

    def ask(self, content: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        self.open()
        if self._socket is None:
            raise _BrokenError(ReasonCode.BROKER_UNREACHABLE, "no connection", has_left=False)
        self._number += 1
        deadline = time.monotonic() + seconds
        try:
            self._socket.settimeout(seconds)
            self._socket.sendall(wire.line({"id": self._number, **content}))
            while True:
                answer = self.read(deadline)
                if answer.get("id") == self._number:
                    return answer
        except TimeoutError as error:
            self.close()
            raise _BrokenError(
                ReasonCode.BROKER_TIMEOUT, "no reply in time", has_left=True
            ) from error
        except OSError as error:
            self.close()
            raise _BrokenError(ReasonCode.BROKER_UNREACHABLE, str(error), has_left=True) from error
        except PlatformError as error:
            self.close()
            raise _BrokenError(error.code, error.message, has_left=True) from error

    def open(self) -> None:
        """Connect, where it is not connected."""
        if self._socket is not None:
            return
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.settimeout(CALL_SECONDS)
            link.connect(str(self._path))
        except OSError as error:
            link.close()
            raise _BrokenError(ReasonCode.BROKER_UNREACHABLE, str(error), has_left=False) from error
        self._socket, self._heard = link, b""

    def read(self, deadline: float | None) -> dict[str, Any]:
        """Read the next line; TimeoutError or OSError when there is none."""
        while b"\n" not in self._heard:
            if self._socket is None:
                raise ConnectionError("closed")
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self._socket.settimeout(left)
            part = self._socket.recv(1 << 16)
            if not part:
                raise ConnectionError("the broker closed the connection")
            self._heard += part
        text, self._heard = self._heard.split(b"\n", 1)
        return wire.message(text)

    def close(self) -> None:
        """Close it; callable twice and from another thread."""
        link, self._socket = self._socket, None
        if link is not None:
            # The other side may have been first.
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()

    def wait_forever(self) -> None:
        """Let reads wait without end."""
        if self._socket is not None:
            self._socket.settimeout(None)


class DrillBroker:
    """`Broker` over the socket of `broker_process`.

    Parameters
    ----------
    socket_path : Path
        Where it listens.
    clock_ns : callable, optional
        Receive time of reports.
    call_seconds : float, optional
        After what time a call is given up.
    """

    name = "drill"

    def __init__(
        self,
        socket_path: Path,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        call_seconds: float = CALL_SECONDS,
    ) -> None:
        self._path = socket_path
        self._clock_ns = clock_ns
        self._call_seconds = call_seconds
        self._calls = _Link(socket_path)
        self._lock = threading.Lock()
        self._reports = _Link(socket_path)
        self._listener: BrokerListener | None = None
        self._takes_quotes = False
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    def connect(self, listener: BrokerListener) -> None:
        """Begin to report.

        Raises
        ------
        PlatformError
            BROKER_UNREACHABLE when nobody listens on the socket.
        """
        self._listener = listener
        try:
            self._listen()
        except _BrokenError as error:
            raise PlatformError(
                ReasonCode.BROKER_UNREACHABLE, f"no drill broker at {self._path}: {error}"
            ) from error
        listener.on_connection(True, "")
        self._thread = threading.Thread(target=self._take_reports, name="drill-broker", daemon=True)
        self._thread.start()

    def subscribe(self, symbols: list[str]) -> None:
        """Ask for quotes; this broker sends all it has."""
        self._takes_quotes = bool(symbols)
        if self._listener is not None:
            # The thread makes the connection again and says what it takes.
            self._reports.close()

    def place(self, ticket: OrderTicket) -> CallResult:
        """Send a new order, once."""
        return self._call({"op": "place", "ticket": wire.write(ticket)})

    def cancel(self, ids: BrokerIds, symbol: str) -> CallResult:
        """Ask for the rest of an order to be canceled."""
        return self._call({"op": "cancel", "ids": wire.write(ids)})

    def amend(
        self, ids: BrokerIds, symbol: str, *, price: int | None, qty: int | None
    ) -> CallResult:
        """Ask for another price, or for a smaller quantity."""
        return self._call({"op": "amend", "ids": wire.write(ids), "price": price, "qty": qty})

    def orders(self) -> list[BrokerOrder]:
        """Every order of the broker's life."""
        return [wire.read_order(row) for row in self._question("orders")["orders"]]

    def positions(self) -> list[BrokerPosition]:
        """Net positions."""
        return [wire.read_position(row) for row in self._question("positions")["positions"]]

    def account(self) -> AccountState:
        """No money is modeled: nothing is answered but the time."""
        return AccountState(answer_time_ns=int(self._question("account")["answer_time_ns"]))

    def close(self) -> None:
        """Stop reporting; callable twice."""
        self._is_closed.set()
        self._reports.close()
        with self._lock:
            self._calls.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(1.0)

    def control(self, op: str, **content: Any) -> dict[str, Any]:
        """Speak to the drill itself: ``faults``, ``settle``, ``state``."""
        with self._lock:
            return self._calls.ask({"op": op, **content}, seconds=5.0)

    # -------------------------------------------------------------- private

    def _call(self, content: dict[str, Any]) -> CallResult:
        try:
            with self._lock:
                answer = self._calls.ask(content, seconds=self._call_seconds)
            if "error" in answer:
                return CallResult(
                    Outcome.REJECTED, code=ReasonCode.BROKER_REJECTED, message=answer["error"]
                )
            return wire.read_result(answer["result"])
        except _BrokenError as error:
            outcome = Outcome.AMBIGUOUS if error.has_left else Outcome.REJECTED
            return CallResult(outcome, code=error.code, message=str(error))
        except (KeyError, TypeError, ValueError, PlatformError) as error:
            return CallResult(
                Outcome.AMBIGUOUS, code=ReasonCode.BROKER_ANSWER_UNREADABLE, message=str(error)
            )

    def _question(self, op: str) -> dict[str, Any]:
        try:
            with self._lock:
                answer = self._calls.ask({"op": op}, seconds=self._call_seconds)
        except _BrokenError as error:
            raise PlatformError(
                ReasonCode.BROKER_QUERY_FAILED, f"{op} was not answered: {error}"
            ) from error
        if op not in answer and "answer_time_ns" not in answer:
            raise PlatformError(ReasonCode.BROKER_QUERY_FAILED, f"{op} was not answered: {answer}")
        return answer

    def _listen(self) -> None:
        quotes = self._takes_quotes
        self._reports.ask({"op": "listen", "quotes": quotes}, seconds=self._call_seconds + 5.0)
        self._reports.wait_forever()

    def _take_reports(self) -> None:
        while not self._is_closed.is_set():
            try:
                self._report(self._reports.read(None))
            except (OSError, PlatformError) as error:
                self._reports.close()
                if not self._is_closed.is_set():
                    self._connect_again(str(error))

    def _connect_again(self, why: str) -> None:
        listener = self._listener
        if listener is None:
            return
        listener.on_connection(False, why)
        while not self._is_closed.wait(AGAIN_SECONDS):
            try:
                self._listen()
            except _BrokenError:
                continue
            listener.on_connection(True, "")
            return

    def _report(self, content: dict[str, Any]) -> None:
        listener = self._listener
        if listener is None:
            return
        if "market" in content:
            listener.on_market(bytes.fromhex(content["market"]))
        elif "report" in content:
            report = wire.read_report(content["report"])
            if isinstance(report, FillEvent):
                listener.on_fill(report)
            else:
                listener.on_order(report)
