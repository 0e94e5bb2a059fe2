"""A store server in a process of its own: start, break, kill, start again.

Why: a drill ends processes; it must end its own and no other, and leave none behind.

Invariants:
1. A process is ended by the id it was started with.
2. It ends by itself when the process that started it does.
3. A restart keeps path and port.

It breaks nothing by itself. Operator's page: `docs/drills.md`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from hft_platform.drills.server_faults import Fault
from hft_platform.errors import PlatformError, ReasonCode

HOST = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 20.0


def control_file(port_file: Path) -> Path:
    """File beside the port file that holds the control port."""
    return port_file.with_name(port_file.name + ".control")


class ServerProcess:
    """The server in a process of its own, for a `with` block.

    Parameters
    ----------
    path : Path
        Folder of the store's data; kept when the server ends.
    faults : sequence of Fault, optional
        Rules in force from the start.
    seed : int, optional
        Decides what is drawn.
    is_refusing : bool, optional
        Start by refusing connections.

    Notes
    -----
    The process is ended by its own id only, and ends by itself when this one does.
    """

    _ENVIRONMENT: ClassVar[Mapping[str, str]] = {"PYTHONUNBUFFERED": "1"}

    def __init__(
        self, path: Path, *, faults: Sequence[Fault] = (), seed: int = 1, is_refusing: bool = False
    ) -> None:
        self.path = path
        self.port = 0
        self._faults = list(faults)
        self._seed = seed
        self._is_refusing = is_refusing
        self._control_port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0
        self.kills = 0

    def __enter__(self) -> ServerProcess:
        """Start and wait until it is ready."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it, whatever happened."""
        self.stop()

    @property
    def dsn(self) -> str:
        """What `open_store` takes."""
        return f"clickhouse://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """Process id, 0 when it does not run."""
        return self._process.pid if self._process is not None else 0

    @property
    def is_running(self) -> bool:
        """True while the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, wait_s: float = START_SECONDS) -> None:
        """Start the process, on the port it had before, and wait until it is ready.

        Parameters
        ----------
        wait_s : float, optional
            Longest wait.

        Raises
        ------
        PlatformError
            STORE_FAILED when it is not ready in time.
        """
        self.begin()
        self.wait_ready(wait_s=wait_s)

    def begin(self) -> None:
        """Start the process and do not wait."""
        if self.is_running:
            return
        self._started += 1
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for file in (self._port_file, control_file(self._port_file)):
            file.unlink(missing_ok=True)
        command = [
            sys.executable, "-m", "hft_platform.drills.chdb_server", "--path", str(self.path),
            "--port-file", str(self._port_file), "--port", str(self.port),
            "--seed", str(self._seed + self._started - 1), "--end-with-stdin",
            *(part for fault in self._faults for part in ("--fault", json.dumps(fault.as_dict()))),
            *(["--refuse"] if self._is_refusing else []),
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            env=os.environ | self._ENVIRONMENT,
        )  # fmt: skip

    def wait_ready(self, *, wait_s: float = START_SECONDS) -> None:
        """Wait until the process has written its port.

        Parameters
        ----------
        wait_s : float, optional
            Longest wait.
        """
        deadline = time.monotonic() + wait_s
        while not self._port_file.exists():
            if not self.is_running or time.monotonic() > deadline:
                self.kill()
                raise PlatformError(
                    ReasonCode.STORE_FAILED,
                    f"the store server of {self.path} was not ready within {wait_s:g} s",
                )
            time.sleep(0.01)
        self.port = int(self._port_file.read_text())
        self._control_port = int(control_file(self._port_file).read_text())

    def set_faults(self, *faults: Fault) -> None:
        """Put other rules in force, none for a server that works; they survive a restart.

        Parameters
        ----------
        *faults : Fault
            The rules.
        """
        self._faults = list(faults)
        self._control({"faults": [fault.as_dict() for fault in faults]})

    def forget_faults(self) -> None:
        """Start without faults next time; the running process keeps its own."""
        self._faults = []

    def refuse(self, is_refusing: bool) -> None:
        """Refuse connections, or accept them again on the same port.

        Parameters
        ----------
        is_refusing : bool
            True to refuse.
        """
        self._is_refusing = is_refusing
        self._control({"refuse": is_refusing})

    def state(self) -> dict[str, Any]:
        """Counts of statements and of faults hit since the process started."""
        return self._control(None)

    def hits(self, kind: str) -> int:
        """How often a kind of fault hit since the process started."""
        return int(self.state()["hits"].get(kind, 0))

    def kill(self) -> None:
        """End it with SIGKILL, now."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
                self.kills += 1
            self._reap()

    def wait_dead(self, *, wait_s: float = STOP_SECONDS) -> int:
        """Wait until it ended by itself.

        Parameters
        ----------
        wait_s : float, optional
            Longest wait.

        Returns
        -------
        int
            Exit status, negative for a signal.
        """
        if self._process is None:
            return 0
        status = self._process.wait(wait_s)
        self._reap()
        return status

    def pause(self) -> None:
        """Freeze the process: it holds its connections and answers nothing."""
        if self.is_running:
            os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let a frozen process go on."""
        if self.is_running:
            os.kill(self.pid, signal.SIGCONT)

    def stop(self, *, wait_s: float = STOP_SECONDS) -> None:
        """End it in order; with SIGKILL when that takes too long.

        Parameters
        ----------
        wait_s : float, optional
            Longest wait.
        """
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(wait_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._reap()

    def _reap(self) -> None:
        if self._process is not None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process.wait(STOP_SECONDS)

    @property
    def _port_file(self) -> Path:
        return self.path.with_name(self.path.name + ".port")

    def _control(self, content: dict[str, Any] | None) -> dict[str, Any]:
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"http://{HOST}:{self._control_port}/", data=data)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=STOP_SECONDS) as reply:
            answer: dict[str, Any] = json.loads(reply.read())
        return answer
