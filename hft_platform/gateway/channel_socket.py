"""The socket of the intent channel: where it lies, and who is at its other end.

Why: a channel that anybody can open, or that is there for a moment with a wider mode, is none.

Invariants:
1. It is never there under its name with another mode than 0600, and never without a listener.
2. Who connected is what the kernel says, not what the peer says.

Operator's page: `docs/gateway.md`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

SOCKET_FILE = "channel.sock"
RUNNERS_MAX = 32
_PEERCRED = struct.Struct("3i")


def listen(path: Path) -> socket.socket:
    """A listening socket under this name; whoever holds the lease may take the name.

    Parameters
    ----------
    path : Path
        Of the socket.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        # Made under another name with its mode, then renamed: it is never there with a wider one.
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        with address_of(fresh) as address:
            listener.bind(address)
        fresh.chmod(0o600)
        listener.listen(RUNNERS_MAX)
        fresh.rename(path)
    except BaseException:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def address_of(path: Path) -> Iterator[str]:
    """Address of a socket in a folder whose name may be longer than the 107 bytes of an address.

    Parameters
    ----------
    path : Path
        Of the socket.
    """
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def user_of(link: socket.socket) -> int:
    """User id of the process at the other end.

    Parameters
    ----------
    link : socket
        Accepted connection.
    """
    credentials = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
    return int(_PEERCRED.unpack(credentials)[1])
