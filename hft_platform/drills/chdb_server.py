"""Store server for tests and drills: a real engine (chDB) behind HTTP, in a process of its own.

Why: retries, timeouts, lost replies and killed servers can only be rehearsed against something
that listens, applies and dies. The client, the SQL, the inserts and the data on disk are real.

Invariants:
1. One process owns the path (its lock file), one connection, one lock: statements run one by one.
2. Settings go with their statement as a SETTINGS clause; nothing of a statement stays behind.
3. A request is applied when all of its bytes arrived, whether or not its sender still waits.
4. It listens on 127.0.0.1 only, and ends with the process that started it.

Not real: authentication, TLS, concurrency inside the server, server limits, `query_log`, the
details of ClickHouse's HTTP envelope. Operator's page: `docs/drills.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from hft_platform.config.canonical import atomic_write
from hft_platform.drills.chdb_engine import (
    Engine,
    EngineError,
    decompressed,
    form_values,
    kind_of,
    split,
)
from hft_platform.drills.server_faults import TOO_MANY_PARTS, Fault, FaultPlan
from hft_platform.drills.server_process import HOST, START_SECONDS, ServerProcess, control_file

__all__ = ["HOST", "Fault", "ServerProcess", "main"]

LIFE_SECONDS = 1800.0
_BODY_BYTES_MAX = 1 << 30
# What the HTTP layer of a server takes for itself; everything else of a URL is a setting.
_TRANSPORT = frozenset(
    {
        "query", "database", "user", "password", "buffer_size", "session_id", "session_timeout",
        "session_check", "query_id", "quota_key", "compress", "decompress", "wait_end_of_query",
        "client_protocol_version", "role", "send_progress_in_http_headers",
        "http_headers_progress_interval_ms", "enable_http_compression", "default_format",
    }
)  # fmt: skip
_TRAILING_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.I)
_STATUS_OF_CODE = {
    **dict.fromkeys((62, 27, 6, 53, 38, 41, 26), 400),
    **dict.fromkeys((46, 47, 50, 60, 81, 115), 404),
    48: 501, 159: 408, 202: 503,
}  # fmt: skip


class StoreServer:
    """Listener, engine and faults of the process.

    Parameters
    ----------
    engine : Engine
        Opened.
    plan : FaultPlan
        What goes wrong.
    port : int
        0 for a free one.
    """

    def __init__(self, engine: Engine, plan: FaultPlan, *, port: int = 0) -> None:
        self.engine = engine
        self.plan = plan
        self.counts: Counter[str] = Counter()
        self.counts_lock = threading.Lock()
        self._change = threading.Lock()
        self._listener: _Listener | None = None
        self.port = port
        self.listen()

    def listen(self) -> None:
        """Accept connections (again, on the same port)."""
        with self._change:
            if self._listener is None:
                self._listener = _Listener((HOST, self.port), _Handler, self)
                self.port = int(self._listener.server_address[1])
                threading.Thread(
                    target=self._listener.serve_forever, args=(0.02,), daemon=True
                ).start()

    def refuse(self) -> None:
        """Refuse connections, as a server that is not running."""
        with self._change:
            if self._listener is not None:
                self._listener.shutdown()
                self._listener.server_close()
                self._listener.cut()
                self._listener = None

    def count(self, name: str) -> None:
        """Count something that happened."""
        with self.counts_lock:
            self.counts[name] += 1

    def state(self) -> dict[str, Any]:
        """Counts, hits and whether it listens, for the control port."""
        with self.counts_lock:
            counts = dict(self.counts)
        return {
            "counts": counts, "hits": dict(self.plan.hits), "port": self.port,
            "is_listening": self._listener is not None, "pid": os.getpid(),
        }  # fmt: skip


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: Any, owner: Any) -> None:
        self.owner = owner
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        """Cut the connections that are open."""
        with self._open_lock:
            sockets = list(self._open)
        for connection in sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Count a client that went away in the middle; anything else is printed."""
        error = sys.exception()
        if isinstance(error, ConnectionError):
            self.owner.count("clients_gone")
            return
        super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener
    timeout = 300
    # One write for head and body: no wait for a delayed acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Write no access log."""

    def do_GET(self) -> None:
        """Answer a ping or a statement in the URL."""
        if urllib.parse.urlsplit(self.path).path == "/ping":
            self._reply(200, b"Ok.\n", {})
            return
        self._statement()

    def do_POST(self) -> None:
        """Run a statement."""
        self._statement()

    def _statement(self) -> None:
        owner: StoreServer = self.server.owner
        body = self._body()
        if body is None:
            owner.count("requests_cut")
            self.close_connection = True
            return
        pairs = urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query, True)
        values = dict(pairs)
        kind = self.headers.get("Content-Type", "")
        if kind.startswith("multipart/form-data"):
            values |= form_values(kind, body)
            body = b""
        try:
            self._run(owner, values, decompressed(body, self.headers.get("Content-Encoding")))
        except EngineError as error:
            owner.count("errors")
            self._refuse(error.code, _STATUS_OF_CODE.get(error.code, 500), str(error))

    def _run(self, owner: StoreServer, values: dict[str, str], body: bytes) -> None:
        sql, data = split(values.get("query", ""), body)
        kind, table = kind_of(sql)
        owner.count(f"statements_{kind}")
        hit = {fault.kind: fault for fault in owner.plan.next(kind, table)}
        if "error" in hit:
            fault = hit["error"]
            self._refuse(fault.code, fault.status, _error_text(fault))
            return
        if "kill_before" in hit:
            os.kill(os.getpid(), signal.SIGKILL)
        if "stall_before" in hit:
            time.sleep(hit["stall_before"].seconds)
        if "refuse" in hit:
            owner.refuse()
        if "drop_before" in hit or "refuse" in hit:
            self._drop()
            return
        started = time.monotonic()
        inside = _dying(owner.engine, hit, table)
        answer, headers = owner.engine.run(
            sql,
            settings={
                name: value
                for name, value in values.items()
                if name not in _TRANSPORT and not name.startswith("param_")
            },
            parameters={
                name[len("param_") :]: value
                for name, value in values.items()
                if name.startswith("param_")
            },
            database=values.get("database") or "default",
            data=data,
            inside=inside or (lambda: None),
        )
        owner.count(f"applied_{kind}")
        if "slow" in hit:
            time.sleep((hit["slow"].factor - 1.0) * (time.monotonic() - started))
        if "kill_after" in hit or inside is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        if "stall_after" in hit:
            time.sleep(hit["stall_after"].seconds)
        if "drop_reply" in hit:
            self._drop()
            return
        named = _TRAILING_FORMAT.search(sql)
        if kind == "select" or answer:
            headers["X-ClickHouse-Format"] = "TabSeparated" if named is None else named.group(1)
        headers["X-ClickHouse-Query-Id"] = values.get("query_id", "")
        self._reply(200, answer, headers)

    def _body(self) -> bytes | None:
        """All bytes of the request; None when the client went away before."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self._chunks()
        length = int(self.headers.get("Content-Length") or 0)
        if length > _BODY_BYTES_MAX:
            return None
        body = self.rfile.read(length)
        return body if len(body) == length else None

    def _chunks(self) -> bytes | None:
        parts: list[bytes] = []
        total = 0
        while True:
            head = self.rfile.readline(64)
            if not head.endswith(b"\n"):
                return None
            size = int(head.split(b";")[0], 16)
            part = self.rfile.read(size)
            total += size
            if len(part) != size or self.rfile.readline(8).strip() or total > _BODY_BYTES_MAX:
                return None
            if size == 0:
                return b"".join(parts)
            parts.append(part)

    def _refuse(self, code: int, status: int, text: str) -> None:
        head = {"X-ClickHouse-Exception-Code": str(code)} if code else {}
        self._reply(status, text.encode() + b"\n", head)

    def _drop(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("X-ClickHouse-Server-Display-Name", "chdb-server")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def _error_text(fault: Fault) -> str:
    text = fault.message or TOO_MANY_PARTS[1]
    return f"Code: {fault.code}. DB::Exception: {text}" if fault.code else text


def _dying(engine: Engine, hit: Mapping[str, Fault], table: str) -> Callable[[], None] | None:
    """What ends this process inside a statement, if anything shall."""
    if "kill_inside" in hit:
        seconds = hit["kill_inside"].seconds
        return lambda: _die_in(seconds)
    if "kill_at_token" in hit:
        folders = [path / "deduplication_logs" for path in engine.data_paths(table)]
        return lambda: _die_at_growth(folders)
    return None


def _die_at_growth(folders: Sequence[Path]) -> None:
    """End this process as soon as a file in a folder grows: the token is on disk, the part is not.

    The engine works without Python's lock, so the watching thread runs beside it.
    """

    def sizes() -> list[int]:
        return [entry.stat().st_size for folder in folders for entry in os.scandir(folder)]

    before = sizes()

    def watch() -> None:
        while sizes() == before:
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _die_in(seconds: float) -> None:
    """End this process after some time whatever it does then, by the kernel's timer."""
    # The default action of SIGALRM ends the process without running anything of it.
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))


class _Control(BaseHTTPRequestHandler):
    """The control port: read counts, change faults, refuse connections."""

    server: _Listener
    timeout = 30

    def log_message(self, format: str, *args: Any) -> None:
        """Write no access log."""

    def do_GET(self) -> None:
        """Say what happened until now."""
        self._say(self.server.owner.state())

    def do_POST(self) -> None:
        """Change what goes wrong."""
        owner: StoreServer = self.server.owner
        content = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        if "faults" in content:
            owner.plan.replace([Fault.of(fault) for fault in content["faults"]])
        if content.get("refuse") is True:
            owner.refuse()
        if content.get("refuse") is False:
            owner.listen()
        self._say(owner.state())

    def _say(self, content: dict[str, Any]) -> None:
        raw = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal, the end of standard input, or the longest life.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; by default those of the process.

    Returns
    -------
    int
        0 when it was asked to end.
    """
    parser = argparse.ArgumentParser(
        prog="python -m hft_platform.drills.chdb_server",
        description="Serve an embedded store over HTTP on 127.0.0.1, for tests and drills.",
    )
    parser.add_argument("--path", type=Path, required=True, help="folder of the store's data")
    parser.add_argument(
        "--port-file", type=Path, required=True,
        help="written when ready: the port; beside it <file>.control: the control port",
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=0, help="port to take (default: a free one)")
    parser.add_argument(
        "--fault", action="append", default=[], metavar="JSON",
        help='a rule, e.g. {"kind": "drop_reply", "table": "hft.market_", "times": 2}; repeatable',
    )  # fmt: skip
    parser.add_argument("--refuse", action="store_true", help="start by refusing connections")
    parser.add_argument("--seed", type=int, default=1, help="decides what is drawn (default: 1)")
    parser.add_argument(
        "--life-seconds", type=float, default=LIFE_SECONDS, help="ends by itself after this long"
    )
    parser.add_argument(
        "--end-with-stdin", action="store_true", help="end when standard input is closed"
    )
    arguments = parser.parse_args(argv)
    from hft_platform.recorder import store_lock

    plan = FaultPlan([Fault.of(json.loads(text)) for text in arguments.fault], seed=arguments.seed)
    path = arguments.path.absolute()
    lock = store_lock.held(
        path.with_name(path.name + ".lock"), what=f"the store {path}", wait_s=START_SECONDS
    )
    with lock:
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        engine = Engine(path)
        server = StoreServer(engine, plan, port=arguments.port)
        if arguments.refuse:
            server.refuse()
        control = _Listener((HOST, 0), _Control, server)
        threading.Thread(target=control.serve_forever, args=(0.02,), daemon=True).start()
        if arguments.end_with_stdin:
            threading.Thread(target=_until_stdin_ends, args=(ended,), daemon=True).start()
        port_file = arguments.port_file
        control_port = int(control.server_address[1])
        atomic_write(control_file(port_file), f"{control_port}\n".encode())
        atomic_write(port_file, f"{server.port}\n".encode())
        ended.wait(arguments.life_seconds)
        server.refuse()
        engine.close()
    return 0


def _until_stdin_ends(ended: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    ended.set()


if __name__ == "__main__":
    sys.exit(main())
