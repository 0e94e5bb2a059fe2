"""The few words of Redis's protocol that a lease needs, over one socket.

Why: a lease is four commands; a client library of ten thousand lines would be more to trust.

Invariants:
1. Every wait is bounded by the timeout; after any failure the connection is gone, and the next
   command makes a new one. A command is never sent twice: whether it was done is then not known.
2. An error answer raises `RespError`, and a broken connection `OSError`; neither is an answer.

Operator's page: `docs/gateway.md`.
"""

from __future__ import annotations

import socket
from types import TracebackType

Answer = int | bytes | None | list["Answer"]
_READ_BYTES = 4096
_ANSWER_BYTES_MAX = 64 * 1024


class RespError(Exception):
    """The server's refusal."""


class RespClient:
    """One connection, made when it is needed.

    Parameters
    ----------
    host : str
        Name or address.
    port : int
        Of the server.
    timeout_s : float
        Longest wait for a connection, and for each part of an answer.
    password : str, optional
        Sent with AUTH on every new connection.
    """

    def __init__(
        self, host: str, port: int, *, timeout_s: float, password: str | None = None
    ) -> None:
        self._address = (host, port)
        self._timeout_s = timeout_s
        self._password = password
        self._socket: socket.socket | None = None
        self._rest = b""

    def __enter__(self) -> RespClient:
        """Return the client."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self.close()

    def command(self, *words: str | int) -> Answer:
        """Send a command and give its answer.

        Parameters
        ----------
        *words : str or int
            Command and arguments.

        Returns
        -------
        int, bytes, list or None

        Raises
        ------
        RespError
            The server refused it.
        OSError
            No answer: it may have been done or not.
        """
        try:
            if self._socket is None:
                self._connect()
            return self._exchange(words)
        except (OSError, ValueError) as error:
            self.close()
            if isinstance(error, OSError):
                raise
            raise OSError(f"answer of the Redis server could not be read: {error}") from error

    def close(self) -> None:
        """Close the connection; the next command opens one again."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._rest = None, b""

    def _connect(self) -> None:
        self._socket = socket.create_connection(self._address, self._timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._password is not None:
            self._exchange(("AUTH", self._password))

    def _exchange(self, words: tuple[str | int, ...]) -> Answer:
        parts = [f"*{len(words)}\r\n".encode()]
        for word in words:
            raw = str(word).encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(raw), raw))
        self._live_socket().sendall(b"".join(parts))
        return self._answer()

    def _answer(self) -> Answer:
        line = self._line()
        kind, text = line[:1], line[1:]
        if kind == b"+":
            return text
        if kind == b":":
            return int(text)
        if kind == b"-":
            raise RespError(text.decode(errors="replace"))
        if kind == b"$":
            return None if int(text) < 0 else self._take(int(text) + 2)[:-2]
        if kind == b"*":
            return None if int(text) < 0 else [self._answer() for _ in range(int(text))]
        raise ValueError(f"kind of answer was {kind!r}")

    def _line(self) -> bytes:
        while b"\r\n" not in self._rest:
            self._read()
        line, _, self._rest = self._rest.partition(b"\r\n")
        return line

    def _take(self, count: int) -> bytes:
        while len(self._rest) < count:
            self._read()
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def _read(self) -> None:
        if len(self._rest) > _ANSWER_BYTES_MAX:
            raise ValueError(f"answer is longer than {_ANSWER_BYTES_MAX} bytes")
        more = self._live_socket().recv(_READ_BYTES)
        if not more:
            raise ConnectionResetError("the Redis server closed the connection")
        self._rest += more

    def _live_socket(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionResetError("not connected")
        return self._socket
