"""Recorder mode direct beside a session: a child process that follows its logs, kept alive.

Why: writing to a store waits for networks and servers; a session waits for neither. So the writer
is a process of its own: no lock, no interpreter and no failure of it is the session's.

Invariants:
1. The session starts, trades and ends the same whether the child lives, dies or cannot start.
2. A child that ended without being asked is started again, after a pause that grows from a quarter
   of a second to ten; a child that refused (exit status 3) is not.
3. At the end of a session the child gets `drain_s` to bring the rest; what it does not bring is
   left to the loader, and said.
4. The child ends by itself when this process is gone: its standard input is a pipe from here.

Operator's page: `docs/recorder.md`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import structlog

from hft_platform.recorder.direct_writer import (
    DRAIN_SECONDS,
    DirectStatus,
    Stop,
    follow,
    status_path,
)
from hft_platform.recorder.recorder_mode import RecorderMode, require_server
from hft_platform.recorder.store import Store, open_store

if TYPE_CHECKING:
    from hft_platform.config.settings import Settings

log = structlog.get_logger()

REFUSED = 3
BACKOFF_SECONDS = (0.25, 10.0)
"""First and longest pause before a child is started again."""
LIVED_SECONDS = 30.0
"""A child that lived this long was no crash loop: the pause starts from its beginning."""
NICENESS = 10
"""The child yields to the session where both want the CPU."""
OPEN_SECONDS = 1.0
"""Wait for a server that is down before its failure is noted and the next try begins."""
END_SECONDS = 5.0
"""Time beyond the drain in which the child must have ended."""


def follow_command(
    ws: Path,
    settings: Settings,
    *,
    run_id: str | None,
    restarts: int | None,
    drain_s: float = DRAIN_SECONDS,
) -> DirectStatus:
    """Follow logs into the store until a signal; what `hft-live wal follow` runs.

    Parameters
    ----------
    ws : Path
        Workspace.
    settings : Settings
        Where the store is.
    run_id : str or None
        Only this session.
    restarts : int or None
        How often a session started it before: it ends with standard input, and yields the CPU.
        None: started by a person.
    drain_s : float, optional
        Longest time spent on the rest when standard input ends.

    Returns
    -------
    DirectStatus
        With what is left.

    Raises
    ------
    PlatformError
        STORE_NEEDS_SERVER on an embedded store.
    """
    require_server(settings.store.dsn)
    stop = Stop()

    def opened() -> AbstractContextManager[Store]:
        return open_store(ws, settings=settings.store, wait_s=OPEN_SECONDS)

    def ended(_number: int, _frame: FrameType | None) -> None:
        stop.now()

    signal.signal(signal.SIGTERM, ended)
    if restarts is not None:
        # Ctrl-C at the session's terminal is for the session, which then closes our input.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.nice(NICENESS)
        threading.Thread(target=_drain_with_stdin, args=(stop,), daemon=True).start()
    else:
        signal.signal(signal.SIGINT, ended)
    return follow(ws, opened, run_id=run_id, stop=stop, restarts=restarts or 0, drain_s=drain_s)


def _drain_with_stdin(stop: Stop) -> None:
    while os.read(0, 4096):
        pass
    stop.drain()


@dataclass(frozen=True, slots=True)
class DirectOutcome:
    """What became of a session's records.

    Attributes
    ----------
    is_complete : bool
        Every segment is loaded.
    restarts : int
        Times the child was started again.
    status : dict
        The child's last status, empty when it never wrote one.
    """

    is_complete: bool
    restarts: int
    status: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "mode": "direct", "is_complete": self.is_complete, "restarts": self.restarts,
            "rows_written": self.status.get("rows_written", 0),
            "longest_lag_seconds": self.status.get("longest_lag_seconds"),
            "left": self.status.get("left", []), "last_error": self.status.get("last_error"),
        }  # fmt: skip

    def render(self) -> str:
        """One line for a terminal."""
        rows = self.status.get("rows_written", 0)
        if self.is_complete:
            return f"{rows} rows are in the store, every segment is loaded"
        error = self.status.get("last_error")
        why = f" ({error['name']} {error['code']})" if error else ""
        return f"{rows} rows are in the store, the rest is in the log{why}; next: hft-live wal load"


class DirectRecorder:
    """The child of one session. `start` it when the session's logs are open, `finish` it after.

    Parameters
    ----------
    ws : Path
        Workspace.
    run_id : str
        The session.
    drain_s : float, optional
        Longest wait for the rest.
    variables : mapping of str to str, optional
        Set for the child beside this process's environment.
    """

    def __init__(
        self,
        ws: Path,
        run_id: str,
        *,
        drain_s: float = DRAIN_SECONDS,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._ws = ws
        self._run_id = run_id
        self._drain_s = drain_s
        self._environment = None if variables is None else {**os.environ, **variables}
        self.restarts = 0
        self._child: subprocess.Popen[bytes] | None = None
        self._is_ending = threading.Event()
        self._lock = threading.Lock()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    @property
    def pid(self) -> int:
        """Process id of the child, 0 when there is none."""
        with self._lock:
            return 0 if self._child is None else self._child.pid

    def start(self) -> None:
        """Start the child and watch it."""
        self._watcher.start()

    def finish(self) -> DirectOutcome:
        """Let the child bring the rest, within bounds, and say how far it came."""
        self._is_ending.set()
        with self._lock:
            child = self._child
        if child is not None:
            _close_input(child)
        self._watcher.join(self._drain_s + END_SECONDS)
        if child is not None and child.poll() is None:
            child.kill()
            child.wait()
        self._watcher.join(END_SECONDS)
        status = self._status()
        is_complete = child is not None and child.returncode == 0
        return DirectOutcome(is_complete, self.restarts, status)

    def _watch(self) -> None:
        pause = BACKOFF_SECONDS[0]
        while True:
            child = self._spawn()
            if child is None:
                return
            try:
                status = child.wait(LIVED_SECONDS)
            except subprocess.TimeoutExpired:
                pause = BACKOFF_SECONDS[0]
                status = child.wait()
            _close_input(child)
            if self._is_ending.is_set() or status == REFUSED:
                return
            log.warning("direct_writer_restarted", run_id=self._run_id, exit_status=status)
            if self._is_ending.wait(pause):
                return
            pause = min(2 * pause, BACKOFF_SECONDS[1])
            self.restarts += 1

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        """Start the child, unless the session has ended; no failure of it leaves this method."""
        command = [
            sys.executable, "-m", "hft_platform.cli", "wal", "follow", self._run_id,
            "--workspace", str(self._ws), "--child", str(self.restarts),
            "--drain-seconds", str(self._drain_s),
        ]  # fmt: skip
        path = self._ws / "ledger" / "direct.log"
        with self._lock:
            if self._is_ending.is_set():
                return None
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as output:
                    self._child = subprocess.Popen(
                        command, stdin=subprocess.PIPE, stdout=output, stderr=output,
                        env=self._environment,
                    )  # fmt: skip
            except OSError as error:
                log.error("direct_writer_not_started", run_id=self._run_id, why=str(error))
                return None
            return self._child

    def _status(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(status_path(self._ws).read_bytes())
        except (OSError, ValueError):
            return {}
        return content if content.get("run_id") == self._run_id else {}


class SessionRecorder:
    """What `recorder_of` yields: told when the session opens, asked how it went.

    Parameters
    ----------
    ws : Path
        Workspace.
    mode : RecorderMode
        ``wal_first`` does nothing here: the log is written by the session.
    drain_s : float
        Longest wait for the rest at the end.
    """

    def __init__(self, ws: Path, mode: RecorderMode, *, drain_s: float) -> None:
        self._ws = ws
        self._mode = mode
        self._drain_s = drain_s
        self._direct: DirectRecorder | None = None
        self.outcome: DirectOutcome | None = None

    def opened(self, session_dir: Path) -> None:
        """Start what the mode needs beside a session; a drill is never loaded.

        Parameters
        ----------
        session_dir : Path
            The session's folder.
        """
        if self._mode is RecorderMode.DIRECT and session_dir.parent == self._ws / "sessions":
            self._direct = DirectRecorder(self._ws, session_dir.name, drain_s=self._drain_s)
            self._direct.start()

    def finish(self) -> None:
        """Bring the rest, within bounds."""
        if self._direct is not None:
            self.outcome = self._direct.finish()

    def facts(self) -> dict[str, Any]:
        """What the command prints; nothing in ``wal_first``."""
        if self.outcome is None:
            return {}
        return {"recorder": self.outcome.as_dict() | {"text": self.outcome.render()}}


@contextmanager
def recorder_of(
    settings: Settings, ws: Path, *, drain_s: float = DRAIN_SECONDS
) -> Iterator[SessionRecorder]:
    """Wrap one session in the recorder mode of the settings.

    Parameters
    ----------
    settings : Settings
        Mode and store.
    ws : Path
        Workspace.
    drain_s : float, optional
        Longest wait for the rest at the end of the session.

    Yields
    ------
    SessionRecorder
        Its `opened` goes to `run_session`.

    Raises
    ------
    PlatformError
        STORE_NEEDS_SERVER before anything is opened.
    """
    mode = RecorderMode(settings.recorder.mode)
    if mode is RecorderMode.DIRECT:
        require_server(settings.store.dsn)
    recorder = SessionRecorder(ws, mode, drain_s=drain_s)
    try:
        yield recorder
    finally:
        recorder.finish()


def _close_input(child: subprocess.Popen[bytes]) -> None:
    if child.stdin is not None and not child.stdin.closed:
        child.stdin.close()
