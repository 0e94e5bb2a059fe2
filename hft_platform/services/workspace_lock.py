"""One live process a workspace, or one an alpha behind a gateway: a lock and the epoch it counts.

Why: two live processes on one workspace would decide by two states and send twice.

Invariants:
1. The lock is the operating system's (flock): it goes with the process, however that ends, and its
   file is never removed.
2. The epoch grows by one with every holder and is durable before it is used; a file that cannot be
   read is refused, because an epoch that was used before would give two orders one tag.
3. Whoever is refused is told who holds it.
4. A runner of an alpha shares the workspace with other runners and with nobody else: who sends to
   the broker is the gateway's lease to say (docs/gateway.md), and a process that sends by itself
   holds the workspace alone: a gateway, leading or not, shares it too.

Operator's page: `docs/live.md`.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hft_platform.config.canonical import canonical_json
from hft_platform.errors import PlatformError, ReasonCode

EPOCH_MAX = 1 << 62
_BYTES_MAX = 4_096


def lock_path(workspace: Path, runner: str | None = None) -> Path:
    """Where the lock lies, of the workspace or of a runner's alpha."""
    return workspace / "state" / ("live.lock" if runner is None else f"live-{runner}.lock")


class WorkspaceShare:
    """A gateway's hold, leader or standby: beside runners and gateways, beside no direct sender.

    Parameters
    ----------
    workspace : Path
        Workspace folder.

    Raises
    ------
    PlatformError
        WORKSPACE_BUSY when a process holds it that sends to the broker by itself.
    """

    def __init__(self, workspace: Path) -> None:
        path = lock_path(workspace)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _shared(path)

    def release(self) -> None:
        """Let go; callable twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.release()


class WorkspaceLock:
    """Held from here to `release`, or to the end of the process.

    Parameters
    ----------
    workspace : Path
        Workspace folder.
    pid : int
        Of this process, for whoever is refused.
    is_trial : bool
        Only tell whether it could be had: no epoch is counted.
    runner : str, optional
        Alpha of a process whose orders go through the gateway.

    Raises
    ------
    PlatformError
        WORKSPACE_BUSY when another process holds it, FILE_DAMAGED when the epoch cannot be read.
    """

    def __init__(
        self, workspace: Path, *, pid: int, is_trial: bool = False, runner: str | None = None
    ) -> None:
        path = lock_path(workspace, runner)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._shared = -1
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._path = lock_path(workspace)
        try:
            if runner is not None:
                self._shared = _shared(self._path)
            self._path = path
            self.epoch = self._take(pid, is_trial=is_trial)
        except BaseException:
            self.release()
            raise

    def _take(self, pid: int, *, is_trial: bool) -> int:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PlatformError(
                ReasonCode.WORKSPACE_BUSY,
                f"{self._path} is held by process {self._holder()}",
            ) from error
        epoch = self._read_epoch()
        if is_trial:
            return epoch
        # In place, below a page and synced: a torn write is unreadable, which refuses.
        raw = canonical_json({"epoch": epoch + 1, "pid": pid}).ljust(128) + b"\n"
        os.pwrite(self._file, raw, 0)
        os.ftruncate(self._file, len(raw))
        os.fsync(self._file)
        return epoch + 1

    def _holder(self) -> Any:  # Any: what the file says
        try:
            return json.loads(os.pread(self._file, _BYTES_MAX, 0))["pid"]
        except (ValueError, KeyError, TypeError):
            return "unknown"

    def _read_epoch(self) -> int:
        raw = os.pread(self._file, _BYTES_MAX, 0)
        if not raw:
            return 0
        try:
            content: Mapping[str, Any] = json.loads(raw)
            epoch = int(content["epoch"])
            if not 0 <= epoch < EPOCH_MAX:
                raise ValueError(f"epoch was {epoch}")
        except (ValueError, KeyError, TypeError) as error:
            raise PlatformError(
                ReasonCode.FILE_DAMAGED,
                f"{self._path}: the epoch cannot be read: {error}",
                next_step='write {"epoch": N} with N above every epoch of the order logs'
                " (hft-live wal inspect), then start again",
            ) from error
        return epoch

    def release(self) -> None:
        """Let go; callable twice."""
        for file in (self._file, self._shared):
            if file >= 0:
                os.close(file)
        self._file = self._shared = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.release()


def _shared(path: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file)
        raise PlatformError(
            ReasonCode.WORKSPACE_BUSY,
            f"{path} is held by a process that sends to the broker by itself",
        ) from error
    return file
