"""The misbehaving broker in a process of its own, on a Unix socket.

Why: gateways and runners are killed and frozen; the broker must outlive them all, and must be the
one who counts. Every call to place is in its journal on disk before anything comes of it.

Invariants:
1. It listens on a Unix socket only, readable by its owner, and ends when its standard input does.
2. The journal has a line for every call to place, written before the order exists and before the
   reply: fate, tag, our order id, symbol, side, price, quantity.
3. A client that reads too slowly loses its connection, never the others' reports.
4. A question is answered from the same book that the reports come from, after all that is due.

Operator's page: `docs/drills/gateway-chaos.md`.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from hft_platform import records
from hft_platform.drills import broker_wire as wire
from hft_platform.drills.broker_book import BrokerBook, BrokerFaults, PlaceCall, Reply
from hft_platform.errors import PlatformError, ReasonCode

LIFE_SECONDS = 1_800.0
START_SECONDS = 30.0
STOP_SECONDS = 10.0
WAITING_BYTES_MAX = 1 << 20
QUOTE_SECONDS = 0.02
_MS = 1_000_000


class _Connection:
    """A client: what it said so far, what it is still to hear."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self.heard = b""
        self.waiting = b""
        self.takes_reports = False
        self.takes_quotes = False


class BrokerServer:
    """Serves one `BrokerBook` until its standard input ends.

    Parameters
    ----------
    socket_path : Path
        Where it listens.
    journal_path : Path
        File that gets a line for every call to place.
    seed : int
        Decides what is drawn.
    faults : BrokerFaults
        How often what goes wrong.
    quotes : sequence of dict
        What `Book` records it sends: ``instrument_id``, ``symbol``, ``bid``, ``ask``, ``tick``,
        ``trading_day``.
    clock_ns : callable, optional
        ns UTC: times of reports and quotes.
    """

    def __init__(
        self,
        socket_path: Path,
        journal_path: Path,
        *,
        seed: int,
        faults: BrokerFaults,
        quotes: Sequence[dict[str, Any]] = (),
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._clock_ns = clock_ns
        self._journal = os.open(journal_path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self.book = BrokerBook(seed, faults, journal=self._write_journal)
        self._quotes = [dict(quote) for quote in quotes]
        self._quote_seq = 0
        self._next_quote = 0.0
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, _Connection] = {}
        self._later: list[tuple[int, int, int, bytes]] = []
        self._counter = 0
        self._stalled_until_ns = 0
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(socket_path))
        socket_path.chmod(0o600)
        self._listening.listen(64)
        self._listening.setblocking(False)
        self._selector.register(self._listening, selectors.EVENT_READ)

    def serve(self, *, until: float, end_with: int | None = None) -> None:
        """Serve until the time is over.

        Parameters
        ----------
        until : float
            Monotonic clock.
        end_with : int, optional
            Descriptor whose end ends it as well.
        """
        if end_with is not None:
            self._selector.register(end_with, selectors.EVENT_READ)
        while time.monotonic() < until:
            now_ns = self._clock_ns()
            if now_ns < self._stalled_until_ns:
                time.sleep((self._stalled_until_ns - now_ns) / 1e9)
                continue
            self._report(now_ns)
            self._send_later(now_ns)
            self._send_quotes(now_ns)
            for key, mask in self._selector.select(self._patience(now_ns)):
                if key.fileobj is self._listening:
                    self._accept()
                elif key.fileobj == end_with:
                    if not os.read(key.fd, 4096):
                        return
                else:
                    self._attend(key.fd, mask)

    def close(self) -> None:
        """Close everything; the journal is whole at any time."""
        for number in list(self._connections):
            self._drop(number)
        self._listening.close()
        self._selector.close()
        os.close(self._journal)

    # ------------------------------------------------------------- sockets

    def _accept(self) -> None:
        try:
            link, _ = self._listening.accept()
        except OSError:
            return
        link.setblocking(False)
        self._connections[link.fileno()] = _Connection(link)
        self._selector.register(link, selectors.EVENT_READ)

    def _attend(self, number: int, mask: int) -> None:
        connection = self._connections.get(number)
        if connection is None:
            return
        if mask & selectors.EVENT_WRITE:
            self._flush(number)
        if not mask & selectors.EVENT_READ or number not in self._connections:
            return
        try:
            part = connection.link.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            self._drop(number)
            return
        connection.heard += part
        while number in self._connections and b"\n" in connection.heard:
            text, connection.heard = connection.heard.split(b"\n", 1)
            self._take(number, text)
        if len(connection.heard) > wire.LINE_BYTES_MAX:
            self._drop(number)

    def _drop(self, number: int) -> None:
        connection = self._connections.pop(number, None)
        if connection is not None:
            self._selector.unregister(connection.link)
            connection.link.close()

    def _send(self, number: int, data: bytes) -> None:
        connection = self._connections.get(number)
        if connection is None:
            return
        if len(connection.waiting) + len(data) > WAITING_BYTES_MAX:
            self._drop(number)
            return
        connection.waiting += data
        self._flush(number)

    def _flush(self, number: int) -> None:
        connection = self._connections[number]
        try:
            sent = connection.link.send(connection.waiting) if connection.waiting else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(number)
            return
        connection.waiting = connection.waiting[sent:]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.waiting else 0)
        self._selector.modify(connection.link, wanted)

    # -------------------------------------------------------------- orders

    def _take(self, number: int, text: bytes) -> None:
        try:
            said = wire.message(text)
            answer = self._answer(number, str(said["op"]), said)
        except (PlatformError, KeyError, TypeError, ValueError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
            said = {}
        if answer is not None:
            self._send(number, wire.line({"id": said.get("id", 0), **answer}))

    def _answer(self, number: int, op: str, said: dict[str, Any]) -> dict[str, Any] | None:
        now_ns = self._clock_ns()
        if op in ("place", "cancel", "amend"):
            return self._call(number, op, said, now_ns)
        if op in ("orders", "positions", "account"):
            if not self.book.answers():
                return {"failed": f"the drill's broker did not answer about {op}"}
            self._report(now_ns)
            if op == "account":
                return {"answer_time_ns": now_ns}
            found = self.book.orders() if op == "orders" else self.book.positions()
            return {op: [wire.write(row) for row in found]}
        if op == "listen":
            self._connections[number].takes_reports = True
            self._connections[number].takes_quotes = bool(said.get("quotes"))
            return {}
        if op == "faults":
            self.book.faults = BrokerFaults.from_dict(said["faults"])
            return {}
        if op == "settle":
            self.book.settle(now_ns)
            return {}
        if op == "state":
            return {
                "hits": self.book.hits,
                "calls": len(self.book.calls),
                "next_ns": self.book.next_ns(),
            }
        raise ValueError(f"op was {op!r}")

    def _call(
        self, number: int, op: str, said: dict[str, Any], now_ns: int
    ) -> dict[str, Any] | None:
        if op == "place":
            reply = self.book.place(wire.read_ticket(said["ticket"]), now_ns)
        elif op == "cancel":
            reply = self.book.cancel(wire.read_ids(said["ids"]), now_ns)
        else:
            ids = wire.read_ids(said["ids"])
            reply = self.book.amend(ids, said["price"], said["qty"], now_ns)
        if self.book.stalls():
            self._stalled_until_ns = now_ns + self.book.faults.stall_ms * _MS
        return self._fate(number, int(said["id"]), reply, now_ns)

    def _fate(self, number: int, call_id: int, reply: Reply, now_ns: int) -> dict[str, Any] | None:
        if reply.is_cut:
            self._drop(number)
            return None
        if reply.delay_ns is None:
            return None
        content = {"result": wire.write(reply.result)}
        if reply.delay_ns == 0:
            return content
        self._counter += 1
        text = wire.line({"id": call_id, **content})
        heapq.heappush(self._later, (now_ns + reply.delay_ns, self._counter, number, text))
        return None

    def _write_journal(self, call: PlaceCall) -> None:
        os.write(self._journal, (json.dumps(asdict(call)) + "\n").encode())

    # ---------------------------------------------------------------- time

    def _report(self, now_ns: int) -> None:
        for report in self.book.advance(now_ns):
            text = wire.line({"report": wire.write_report(report)})
            for number in [n for n, link in self._connections.items() if link.takes_reports]:
                self._send(number, text)

    def _send_later(self, now_ns: int) -> None:
        while self._later and self._later[0][0] <= now_ns:
            _, _, number, text = heapq.heappop(self._later)
            self._send(number, text)

    def _send_quotes(self, now_ns: int) -> None:
        takers = [n for n, link in self._connections.items() if link.takes_quotes]
        if not self._quotes or not takers or time.monotonic() < self._next_quote:
            return
        self._next_quote = time.monotonic() + QUOTE_SECONDS
        self._quote_seq += 1
        tape = b"".join(book_record(quote, now_ns, self._quote_seq) for quote in self._quotes)
        text = wire.line({"market": tape.hex()})
        for number in takers:
            self._send(number, text)

    def _patience(self, now_ns: int) -> float:
        times = [now_ns + 50 * _MS]
        if self._later:
            times.append(self._later[0][0])
        next_ns = self.book.next_ns()
        if next_ns is not None:
            times.append(next_ns)
        seconds = max(min(times) - now_ns, 0) / 1e9
        if self._quotes:
            seconds = min(seconds, max(self._next_quote - time.monotonic(), 0.001))
        return seconds


def book_record(quote: dict[str, Any], now_ns: int, seq: int) -> bytes:
    """A five-level book around a quote, as a record.

    Parameters
    ----------
    quote : dict
        ``instrument_id``, ``bid``, ``ask``, ``tick``, ``trading_day``.
    now_ns : int
        Both clocks.
    seq : int
        Order in its source.

    Returns
    -------
    bytes
    """
    row = records.empty("Book", 1)
    depth = np.arange(5, dtype=np.int64) * int(quote["tick"])
    row["instrument_id"], row["trading_day"] = quote["instrument_id"], quote["trading_day"]
    row["source_seq"], row["source_id"] = seq, 4
    row["exchange_time_ns"] = row["receive_time_ns"] = now_ns
    row["bid_price"], row["ask_price"] = int(quote["bid"]) - depth, int(quote["ask"]) + depth
    row["bid_qty"] = row["ask_qty"] = 10 * records.SCALE
    return row.tobytes()


class BrokerProcess:
    """The broker in a process of its own, for a `with` block; ended by its own id.

    Parameters
    ----------
    folder : Path
        Where socket and journal lie; a short path, for a socket's is limited to 107 bytes.
    seed : int
        Decides what is drawn.
    faults : BrokerFaults, optional
        How often what goes wrong.
    quotes : sequence of dict, optional
        Books that it sends; see `BrokerServer`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        faults: BrokerFaults | None = None,
        quotes: Sequence[dict[str, Any]] = (),
    ) -> None:
        self.socket_path = folder / "broker.sock"
        self.journal_path = folder / "broker.jsonl"
        self._seed = seed
        self._faults = faults or BrokerFaults()
        self._quotes = list(quotes)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> BrokerProcess:
        """Start and wait until it listens."""
        self.begin()
        self.wait_ready()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it, whatever happened."""
        self.stop()

    def begin(self) -> None:
        """Start the process and do not wait."""
        command = [
            sys.executable, "-m", __name__,
            "--socket", str(self.socket_path), "--journal", str(self.journal_path),
            "--seed", str(self._seed), "--faults", json.dumps(self._faults.as_dict()),
            "--quotes", json.dumps(self._quotes),
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def wait_ready(self) -> None:
        """Wait until it listens.

        Raises
        ------
        PlatformError
            BROKER_UNREACHABLE when it does not in time.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                probe.connect(str(self.socket_path))
            except OSError:
                pass
            else:
                return
            finally:
                probe.close()
            is_over = self._process is None or self._process.poll() is not None
            if is_over or time.monotonic() > deadline:
                self.stop()
                raise PlatformError(
                    ReasonCode.BROKER_UNREACHABLE,
                    f"the drill's broker did not listen on {self.socket_path}",
                )
            time.sleep(0.005)

    def calls(self) -> list[PlaceCall]:
        """Every call to place that is in the journal."""
        if not self.journal_path.exists():
            return []
        lines = self.journal_path.read_text().splitlines()
        return [PlaceCall(**json.loads(text)) for text in lines]

    def stop(self) -> None:
        """End it by the end of its standard input; with SIGKILL when that takes too long."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(prog=f"python -m {__name__}")
    parser.add_argument("--socket", type=Path, required=True, help="where to listen")
    parser.add_argument("--journal", type=Path, required=True, help="a line for every place call")
    parser.add_argument("--seed", type=int, default=1, help="decides what is drawn")
    parser.add_argument("--faults", default="{}", help="JSON of BrokerFaults")
    parser.add_argument("--quotes", default="[]", help="JSON of the books it sends")
    arguments = parser.parse_args(argv)
    server = BrokerServer(
        arguments.socket,
        arguments.journal,
        seed=arguments.seed,
        faults=BrokerFaults.from_dict(json.loads(arguments.faults)),
        quotes=json.loads(arguments.quotes),
    )
    try:
        server.serve(until=time.monotonic() + LIFE_SECONDS, end_with=sys.stdin.fileno())
    finally:
        server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
