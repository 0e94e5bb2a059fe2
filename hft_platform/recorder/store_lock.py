"""Lock file of an embedded store or a ledger: one process at a time, and it says who.

Why: chDB opens a path in one process only, and fails with an engine error in the second. A person
should read instead which process holds it, and a short wait should just work.

Invariants:
1. The lock file is never unlinked: "unlock, close, unlink" lets two processes hold "the" lock.
2. The kernel frees the lock when the holder dies, however it dies; there is no time to live.
3. Waiting is bounded; after the bound the error names the holder's process and command.

It guards no threads of one process from each other's mistakes: the second one waits like any
other process. Operator's page: `docs/store.md`.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from hft_platform.errors import PlatformError, ReasonCode

log = structlog.get_logger()

_POLL_SECONDS = 0.05
_COMMAND_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock.

    Attributes
    ----------
    pid : int
        Process id, 0 when not written yet.
    command : str
        Its command, shortened.
    """

    pid: int
    command: str

    def __str__(self) -> str:
        """``process 4711 (hft-live wal load)``."""
        return f"process {self.pid} ({self.command})" if self.pid else "a process just starting"


@contextmanager
def held(
    path: Path, *, what: str, wait_s: float, on_wait: Callable[[Holder], None] | None = None
) -> Iterator[None]:
    """Hold the lock of `path`, waiting for another holder at most `wait_s`.

    Parameters
    ----------
    path : Path
        Lock file; made when missing, never removed.
    what : str
        What it protects, for the message.
    wait_s : float
        Longest wait in seconds.
    on_wait : callable, optional
        Told once for whom this process waits.

    Yields
    ------
    None
        While the lock is held.

    Raises
    ------
    PlatformError
        STORE_BUSY after `wait_s`, naming process and command of the holder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _acquire(descriptor, path, what=what, wait_s=wait_s, on_wait=on_wait)
        write_holder(descriptor)
        yield
    finally:
        # Closing frees the lock; the name inside is only read while someone holds it.
        os.close(descriptor)


def _acquire(
    descriptor: int,
    path: Path,
    *,
    what: str,
    wait_s: float,
    on_wait: Callable[[Holder], None] | None,
) -> None:
    deadline = time.monotonic() + wait_s
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = read_holder(path)
            if not told:
                told = True
                log.info("lock_waited_for", what=what, pid=holder.pid, command=holder.command)
                if on_wait is not None:
                    on_wait(holder)
            if time.monotonic() >= deadline:
                raise PlatformError(
                    ReasonCode.STORE_BUSY,
                    f"{what} is held by {holder}; waited {wait_s:g} s",
                    next_step=f"wait for process {holder.pid} to end, or stop it",
                    facts={"pid": holder.pid, "command": holder.command, "wait_s": wait_s},
                ) from None
            time.sleep(_POLL_SECONDS)
            continue
        return


def read_holder(path: Path) -> Holder:
    """Read who wrote the lock file last; only meaningful while the lock is held."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Holder(int(content["pid"]), str(content["command"]))
    except (OSError, ValueError, KeyError, TypeError):
        # The holder has the lock but has not written its name yet.
        return Holder(0, "unknown")


def write_holder(descriptor: int) -> None:
    """Write this process's name into a lock file that it holds."""
    arguments = [Path(sys.argv[0] or "python").name, *sys.argv[1:]]
    content = {"pid": os.getpid(), "command": " ".join(arguments)[:_COMMAND_CHARACTERS]}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(content).encode(), 0)
