"""How often this host may log in at the broker: back-off and budget, which survive a restart.

Why: logins during a suspension prolong it, and a process that crashes in a loop logs in each time.

Invariants:
1. An attempt is on disk before it is made, so a crash inside it counts.
2. Between two attempts lies the back-off at least; it doubles with every failure in a row, 16 times
   at most, and the jitter comes from an explicit seed.
3. Within any 24 hours no more attempts are made than the budget.
4. A file that cannot be read permits nothing.

It waits for nothing: it says how long. Operator's page: `docs/shioaji.md`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.errors import PlatformError, ReasonCode

DAY_NS = 86_400_000_000_000
DOUBLINGS_MAX = 4


class LoginBudget:
    """Attempts of the last day, in a file of the workspace.

    Parameters
    ----------
    workspace : Path
        Workspace folder.
    back_off_ns : int
        Least pause between two attempts.
    per_day_max : int
        Attempts within 24 hours.
    seed : int
        Of the jitter.
    """

    def __init__(self, workspace: Path, *, back_off_ns: int, per_day_max: int, seed: int) -> None:
        self._path = workspace / "state" / "broker_logins.json"
        self._back_off_ns = back_off_ns
        self._per_day_max = per_day_max
        self._seed = seed

    @property
    def path(self) -> Path:
        """Where the attempts are kept."""
        return self._path

    def wait_ns(self, now_ns: int) -> int:
        """How long until the next attempt is allowed; 0 when it is now.

        Raises
        ------
        PlatformError
            BROKER_LOGIN_SPENT when the file cannot be read.
        """
        attempts, failures = self._read()
        return self._wait_ns(attempts, failures, now_ns)

    def take(self, now_ns: int) -> None:
        """Write an attempt down that is about to be made.

        Raises
        ------
        PlatformError
            BROKER_LOGIN_FAILED when it is too early, BROKER_LOGIN_SPENT when the day's budget is
            used up; the facts say how long to wait.
        """
        with self._locked():
            attempts, failures = self._read()
            recent = [at for at in attempts if at > now_ns - DAY_NS]
            wait_ns = self._wait_ns(recent, failures, now_ns)
            if wait_ns:
                raise PlatformError(
                    ReasonCode.BROKER_LOGIN_FAILED,
                    f"the last login was tried {(now_ns - max(recent)) / 1e9:.0f} s ago after"
                    f" {failures} failures; the next one may be tried in {wait_ns / 1e9:.0f} s",
                    facts={"wait_ns": wait_ns},
                )
            if len(recent) >= self._per_day_max:
                raise PlatformError(
                    ReasonCode.BROKER_LOGIN_SPENT,
                    f"{len(recent)} logins within 24 hours, allowed are {self._per_day_max}"
                    " (broker.logins_per_day_max)",
                    facts={"wait_ns": min(recent) + DAY_NS - now_ns},
                )
            # Counted as a failure until it is known to be none.
            self._write([*recent, now_ns], failures + 1)

    def succeeded(self) -> None:
        """Forget the failures in a row; the attempts stay."""
        with self._locked():
            attempts, _ = self._read()
            self._write(attempts, 0)

    def _wait_ns(self, attempts: list[int], failures: int, now_ns: int) -> int:
        if not attempts:
            return 0
        pause_ns = self._back_off_ns << min(max(failures - 1, 0), DOUBLINGS_MAX)
        word = hashlib.sha256(f"{self._seed}/{len(attempts)}/{attempts[-1]}".encode()).digest()
        jitter_ns = pause_ns // 4 * int.from_bytes(word[:2], "big") // 65_535
        return max(0, max(attempts) + pause_ns + jitter_ns - now_ns)

    def _read(self) -> tuple[list[int], int]:
        try:
            content = json.loads(self._path.read_bytes())
            attempts = [int(at) for at in content["attempts_ns"]]
            return attempts, int(content["failures"])
        except FileNotFoundError:
            return [], 0
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PlatformError(
                ReasonCode.BROKER_LOGIN_SPENT,
                f"{self._path} cannot be read ({error}), so the logins of today are not known",
                next_step=f"make sure that nothing logs in in a loop, then remove {self._path}",
            ) from error

    def _write(self, attempts: list[int], failures: int) -> None:
        content = {"attempts_ns": attempts, "failures": failures}
        atomic_write(self._path, canonical_json(content) + b"\n")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = self._path.with_suffix(".lock")
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
