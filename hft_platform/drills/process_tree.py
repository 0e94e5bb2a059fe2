"""Processes of a drill that are forked, frozen, killed and forked again, each by its own id.

Why: a run with six processes must cost what they do, not six interpreters that import the same
modules: one process imports everything, starts no thread, and forks the rest.

Invariants:
1. A process is ended by the id that its fork gave, and was not reaped yet: no other can have it.
2. None outlives the process that forked it (the kernel sees to it), nor a `with` block.
3. A child never returns into its parent's code.

Operator's page: `docs/drills/gateway-chaos.md`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

_PR_SET_PDEATHSIG = 1
POLL_S = 0.002


class Child:
    """One forked process.

    Parameters
    ----------
    name : str
        For messages.
    work : callable
        What it does; its end is the process's.
    errors : Path
        File that gets what it writes to its standard error.
    """

    def __init__(self, name: str, work: Callable[[], None], errors: Path) -> None:
        self.name = name
        self.is_frozen = False
        self.status: int | None = None
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _live(work, errors, parent)

    @property
    def is_running(self) -> bool:
        """True while it was not seen to end."""
        if self.status is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self.status = status
        return self.status is None

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return None if self.status is None else os.waitstatus_to_exitcode(self.status)

    def signal(self, number: int) -> bool:
        """Send a signal; True when it was alive.

        Parameters
        ----------
        number : int
            Which.
        """
        if not self.is_running:
            return False
        os.kill(self.pid, number)
        return True

    def kill(self) -> bool:
        """End it with SIGKILL and wait; True when it was alive."""
        was_running = self.signal(signal.SIGKILL)
        if was_running:
            _, self.status = os.waitpid(self.pid, 0)
        return was_running

    def freeze(self) -> bool:
        """Stop it where it is."""
        self.is_frozen = self.signal(signal.SIGSTOP)
        return self.is_frozen

    def thaw(self) -> bool:
        """Let it go on, if nobody killed it meanwhile."""
        self.is_frozen = False
        return self.signal(signal.SIGCONT)

    def wait(self, seconds: float) -> bool:
        """Wait for its end; True when it ended in time.

        Parameters
        ----------
        seconds : float
            Longest wait.
        """
        deadline = time.monotonic() + seconds
        while self.is_running:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True


class ProcessTree:
    """Every child of a run, for a `with` block that leaves none behind."""

    def __init__(self) -> None:
        self.children: list[Child] = []

    def __enter__(self) -> ProcessTree:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End every child, frozen ones too."""
        for child in self.children:
            child.kill()

    def fork(self, name: str, work: Callable[[], None], errors: Path) -> Child:
        """Start a child.

        Parameters
        ----------
        name : str
            For messages.
        work : callable
            What it does.
        errors : Path
            File for its standard error.

        Returns
        -------
        Child
        """
        child = Child(name, work, errors)
        self.children.append(child)
        return child


def _live(work: Callable[[], None], errors: Path, parent: int) -> None:
    """The child: never returns."""
    code = 70
    try:
        _die_with(parent)
        descriptor = os.open(errors, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        work()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001  # a child tells why it died, and dies
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _die_with(parent: int) -> None:
    """Be killed when the parent is."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        os._exit(71)
