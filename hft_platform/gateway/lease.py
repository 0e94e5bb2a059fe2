"""Leader lease of one host: who may send orders, held by a lock that only death takes away.

Why: two gateways share one broker that cannot tell a leader from its predecessor, so a leader
must be known to be gone before the next one sends.

Invariants:
1. The leader is the process that holds `flock` on the lease file and on its folder. The kernel
   frees both when the process is gone, so whoever has them knows that no predecessor lives. There
   is no time to live, and no clock decides who leads.
2. The lease file is never unlinked, truncated or replaced. Its words are mapped: they are written
   in place, eight bytes at a time. After locking, the file locked and the file of that name are
   compared.
3. An epoch is used once: it is one above the highest that the lease file or the order log knows.
4. The heartbeat is written only while every watched loop has said in time that it goes on: a
   leader that does nothing any more does not look alive because some other thread still turns.
5. A leader whose heartbeat is old is ended by SIGKILL through a pidfd, after its start time was
   compared, and by nothing else; the standby then waits for the locks like for any other death.
6. A fence is checked before every call: process, lock, file and epoch are still those of this
   leader.

The second lock, on the folder, holds where somebody removes the file by hand: the standby then
waits behind a leader that is fenced, instead of leading beside it. It sends nothing itself.
Operator's page: `docs/gateway.md`.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import select
import signal
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from hft_platform.errors import PlatformError, ReasonCode

log = structlog.get_logger()

NS = 1_000_000_000
LEASE_BYTES = 64
LEASE_FILE = "leader.lease"
HUNG_AFTER_NS = 500_000_000
POLL_S = 0.02
"""Between two looks of a standby; the death of the leader ends it at once."""
DEAD_PAUSE_S = 0.0005
LOOKS_MIN = 3
"""A standby sees the same old heartbeat so often, without a pause of its own, before it acts."""
_MAGIC, _EPOCH, _PID, _STARTED, _BEAT, _BEATS, _BOOT, _SINCE = range(8)
_NEVER_NS = (1 << 63) - 1
_MAGIC_WORD = int.from_bytes(b"HFTLEAS1", "little")


def boottime_ns() -> int:
    """CLOCK_BOOTTIME: nothing sets it, and it goes on while the machine is suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class LeaseState:
    """What the words of a lease file say.

    Attributes
    ----------
    epoch : int
        Highest epoch ever led under this file.
    pid : int
        Leader, 0 when the last one let go.
    started : int
        Its start time, in the kernel's ticks since boot.
    boot : int
        Names the boot in which this was written.
    heartbeat_ns : int
        Last heartbeat, CLOCK_BOOTTIME.
    beats : int
        Heartbeats of this epoch.
    since_ns : int
        When it began to lead, CLOCK_BOOTTIME.
    """

    epoch: int
    pid: int
    started: int
    boot: int
    heartbeat_ns: int
    beats: int
    since_ns: int


class LeadershipFence(Protocol):
    """Stands before every broker call (the same shape as `order.fence.Fence`)."""

    def check(self) -> None:
        """Refuse when this process may not send.

        Raises
        ------
        PlatformError
            GATEWAY_NOT_LEADER or GATEWAY_FENCED.
        """


class Lease(Protocol):
    """What a gateway needs of a lease, whichever way it is held."""

    @property
    def epoch(self) -> int:
        """Epoch that is led, 0 without the lease."""

    def try_acquire(self, last_epoch: Callable[[], int]) -> int | None:
        """Take the lease if it is free, and give its epoch."""

    def wait(self, seconds: float) -> None:
        """Wait for the lease to become free, at most so long."""

    def watch(self, name: str, allow_ns: int) -> Pulse:
        """Make the heartbeat depend on a loop."""

    def heartbeat(self) -> bool:
        """Say that this leader lives, if all its loops do."""

    def fence(self) -> LeadershipFence:
        """What is checked before a call."""

    def release(self) -> None:
        """Let go, in an orderly stop."""


class Pulse:
    """Sign of life of one loop: each sign says how long the next may take.

    Parameters
    ----------
    name : str
        Of the loop, for the message.
    allow_ns : int
        Longest time between two signs, unless one says otherwise.
    clock_ns : callable
        CLOCK_BOOTTIME.
    """

    def __init__(self, name: str, allow_ns: int, clock_ns: Callable[[], int]) -> None:
        self.name = name
        self._allow_ns = allow_ns
        self._clock_ns = clock_ns
        self._until_ns = clock_ns() + allow_ns

    def beat(self, allow_ns: int | None = None) -> None:
        """Go on; before a long call the loop says how long it may take.

        Parameters
        ----------
        allow_ns : int, optional
            Until the next sign of life; the loop's own by default.
        """
        self._until_ns = self._clock_ns() + (self._allow_ns if allow_ns is None else allow_ns)

    def end(self) -> None:
        """Say that the loop is over: nothing more is expected of it."""
        self._until_ns = _NEVER_NS

    def is_late(self, now_ns: int) -> bool:
        """True when the loop did not go on in time."""
        return now_ns > self._until_ns


class LeaderLease:
    """The lease of one host.

    Parameters
    ----------
    folder : Path
        Of the gateway in the workspace; made when missing.
    hung_after_ns : int, optional
        Age of a heartbeat from which a leader counts as hung.
    clock_ns : callable, optional
        CLOCK_BOOTTIME, which alone judges the heartbeat.
    """

    def __init__(
        self,
        folder: Path,
        *,
        hung_after_ns: int = HUNG_AFTER_NS,
        clock_ns: Callable[[], int] = boottime_ns,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / LEASE_FILE
        self.ended: list[int] = []
        """Epochs of hung leaders that this process ended."""
        self._folder = folder
        self._hung_after_ns = hung_after_ns
        self._clock_ns = clock_ns
        self._held: _Held | None = None
        self._pulses: list[Pulse] = []
        self._seen: tuple[LeaseState, int, int] | None = None

    @property
    def epoch(self) -> int:
        """Epoch that is led, 0 without the lease."""
        return self._held.epoch if self._held is not None else 0

    def try_acquire(self, last_epoch: Callable[[], int]) -> int | None:
        """Take the lease if it is free; end a leader that hangs, and come back.

        Parameters
        ----------
        last_epoch : callable
            Highest epoch in the order log; asked once the locks are held, so it cannot grow.

        Returns
        -------
        int or None
            Epoch that is led from now on; None while another process leads.
        """
        if self._held is not None:
            return self._held.epoch
        held = _lock(self.path, self._folder)
        if held is None:
            self._end_hung_leader()
            return None
        try:
            held.begin(max(held.words[_EPOCH], last_epoch()) + 1, self._clock_ns())
        except BaseException:
            held.close()
            raise
        self._held, self._seen = held, None
        log.info("lease_acquired", epoch=held.epoch, pid=os.getpid())
        return held.epoch

    def wait(self, seconds: float = POLL_S) -> None:
        """Wait for the leader's death, at most so long.

        Parameters
        ----------
        seconds : float, optional
            Until the next look is due in any case.
        """
        state = read_lease(self.path)
        descriptor = None if state is None else _open_leader(state)
        if descriptor is None:
            time.sleep(seconds)
            return
        try:
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            if poller.poll(seconds * 1000):
                # A dead leader that nobody reaped yet is ready for ever: do not look busily.
                time.sleep(DEAD_PAUSE_S)
        finally:
            os.close(descriptor)

    def watch(self, name: str, allow_ns: int) -> Pulse:
        """Make the heartbeat depend on a loop.

        Parameters
        ----------
        name : str
            Of the loop.
        allow_ns : int
            Longest time between two of its signs of life.
        """
        pulse = Pulse(name, allow_ns, self._clock_ns)
        self._pulses.append(pulse)
        return pulse

    def late(self) -> list[str]:
        """Names of the loops that did not go on in time."""
        now_ns = self._clock_ns()
        return [pulse.name for pulse in self._pulses if pulse.is_late(now_ns)]

    def heartbeat(self) -> bool:
        """Write the heartbeat, if the lease is held and every watched loop goes on.

        Returns
        -------
        bool
            False when nothing was written.
        """
        held = self._held
        if held is None or self.late():
            return False
        held.words[_BEAT] = self._clock_ns()
        held.words[_BEATS] += 1
        return True

    def fence(self) -> LeaseFence:
        """What is checked before every call.

        Raises
        ------
        PlatformError
            GATEWAY_NOT_LEADER without the lease.
        """
        if self._held is None:
            raise PlatformError(ReasonCode.GATEWAY_NOT_LEADER, f"{self.path} is not held")
        return LeaseFence(self._held)

    def release(self) -> None:
        """Let go; the standby leads at once."""
        if self._held is not None:
            self._held.close()
            self._held = None
        self._pulses.clear()

    def _end_hung_leader(self) -> None:
        state, now_ns = read_lease(self.path), self._clock_ns()
        if state is None or not self._is_hung(state, now_ns):
            return
        descriptor = _open_leader(state)
        if descriptor is None:
            return
        try:
            # Between the looks it may have come back, let go, or died and made room for another.
            if read_lease(self.path) != state:
                return
            log.error(
                "lease_leader_hung", reason_code=int(ReasonCode.GATEWAY_HUNG), pid=state.pid,
                epoch=state.epoch, heartbeat_age_ns=now_ns - state.heartbeat_ns,
            )  # fmt: skip
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            self.ended.append(state.epoch)
        except ProcessLookupError:
            return
        finally:
            os.close(descriptor)
        self._seen = None

    def _is_hung(self, state: LeaseState, now_ns: int) -> bool:
        """The same old heartbeat at several looks, none of which came late itself.

        After a suspended machine, or a stopped standby, everybody's heartbeat is old.
        """
        seen, looks, last_ns = self._seen or (state, 0, now_ns)
        looks = looks + 1 if seen == state and now_ns - last_ns < self._hung_after_ns else 1
        self._seen = (state, looks, now_ns)
        return now_ns - state.heartbeat_ns > self._hung_after_ns and looks >= LOOKS_MIN


class LeaseFence:
    """Refuses every call of a process that does not lead any more.

    Parameters
    ----------
    held : _Held
        The lease as it was taken.
    """

    def __init__(self, held: _Held) -> None:
        self._held = held

    def check(self) -> None:
        """Look at process, lock, file and epoch.

        Raises
        ------
        PlatformError
            GATEWAY_NOT_LEADER after the lease was let go, GATEWAY_FENCED when it is not ours
            although we did not let go.
        """
        held = self._held
        if held.is_closed:
            raise PlatformError(ReasonCode.GATEWAY_NOT_LEADER, f"{held.path} was let go")
        problem = held.problem()
        if problem:
            raise PlatformError(
                ReasonCode.GATEWAY_FENCED, f"{held.path} {problem}; nothing is sent"
            )


def read_lease(path: Path) -> LeaseState | None:
    """Words of a lease file; None where there is none, or nobody ever led.

    Parameters
    ----------
    path : Path
        Lease file.
    """
    try:
        raw = path.read_bytes()[:LEASE_BYTES]
    except FileNotFoundError:
        return None
    if len(raw) < LEASE_BYTES:
        return None
    words = memoryview(raw).cast("Q")
    if words[_MAGIC] != _MAGIC_WORD:
        return None
    return LeaseState(
        words[_EPOCH], words[_PID], words[_STARTED], words[_BOOT], words[_BEAT], words[_BEATS],
        words[_SINCE],
    )  # fmt: skip


class _Held:
    """Locked descriptors and mapped words of a lease."""

    def __init__(self, path: Path, descriptor: int, folder: int, mapped: mmap.mmap) -> None:
        self.path = path
        self.epoch = 0
        self.is_closed = False
        self.words = memoryview(mapped).cast("Q")
        self._name = os.fspath(path)
        self._mapped = mapped
        self._descriptor = descriptor
        self._folder = folder
        status = os.fstat(descriptor)
        self._inode = (status.st_dev, status.st_ino)
        self._pid = os.getpid()
        _HELD.add(self)

    def begin(self, epoch: int, now_ns: int) -> None:
        """Write who leads; the process id comes last, for it makes the rest count."""
        words = self.words
        words[_MAGIC] = _MAGIC_WORD
        words[_EPOCH] = epoch
        words[_STARTED] = _start_time(self._pid) or 0
        words[_BOOT] = boot_id()
        words[_BEATS] = 0
        words[_SINCE] = now_ns
        words[_BEAT] = now_ns
        words[_PID] = self._pid
        self._mapped.flush()
        self.epoch = epoch

    def problem(self) -> str:
        """Why this process does not lead any more; empty when it does."""
        if os.getpid() != self._pid:
            return "is held by the process that this one was forked from"
        try:
            status = os.stat(self._name)  # noqa: PTH116  # half of Path.stat's time
        except OSError as error:
            return f"cannot be looked at: {error.strerror}"
        if (status.st_dev, status.st_ino) != self._inode:
            return "was replaced: it is another file now"
        if status.st_size < LEASE_BYTES:
            return "was truncated"
        if self.words[_EPOCH] != self.epoch or self.words[_PID] != self._pid:
            return f"says epoch {self.words[_EPOCH]} of process {self.words[_PID]}"
        try:
            # Locking what is held is free of effect; it fails when somebody unlocked and took it.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return f"is not locked by us: {error.strerror}"
        return ""

    def close(self) -> None:
        """Say that nobody leads, then let go."""
        if self.is_closed:
            return
        self.is_closed = True
        with contextlib.suppress(OSError):
            # A file cut short by hand would end this process at the next word.
            if os.fstat(self._descriptor).st_size >= LEASE_BYTES:
                self.words[_PID] = 0
        self.drop()

    def drop(self) -> None:
        """Close what this process has open, without a word in the file."""
        self.is_closed = True
        self.words.release()
        self._mapped.close()
        os.close(self._folder)
        os.close(self._descriptor)


_HELD: weakref.WeakSet[_Held] = weakref.WeakSet()


def _let_go_in_child() -> None:
    """A forked child shares the locks: it must not keep them when its parent dies."""
    for held in list(_HELD):
        if not held.is_closed:
            held.drop()


os.register_at_fork(after_in_child=_let_go_in_child)


def _lock(path: Path, folder: Path) -> _Held | None:
    """Both locks, or None when another process has one of them."""
    descriptors: list[int] = []
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        descriptors.append(descriptor)
        if not _try_lock(descriptor):
            _close(descriptors)
            return None
        status = os.fstat(descriptor)
        try:
            named = path.stat()
        except FileNotFoundError:
            _close(descriptors)
            return None
        if (status.st_dev, status.st_ino) != (named.st_dev, named.st_ino):
            _close(descriptors)
            return None
        descriptors.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        if not _try_lock(descriptors[1]):
            _close(descriptors)
            return None
        if status.st_size < LEASE_BYTES:
            # Only ever longer: a mapped file that becomes shorter kills who writes to it.
            os.ftruncate(descriptor, LEASE_BYTES)
        # The map keeps a descriptor: of another opening, so that it does not hold the lock.
        mapping = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
        try:
            mapped = mmap.mmap(mapping, LEASE_BYTES)
        finally:
            os.close(mapping)
        return _Held(path, descriptor, descriptors[1], mapped)
    except BaseException:
        _close(descriptors)
        raise


def _close(descriptors: list[int]) -> None:
    for descriptor in reversed(descriptors):
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_leader(state: LeaseState) -> int | None:
    """Descriptor of the very process that leads; None when it is gone or nobody does."""
    if state.pid in (0, os.getpid()) or state.boot != boot_id():
        return None
    try:
        descriptor = os.pidfd_open(state.pid)
    except ProcessLookupError:
        return None
    # The descriptor names one process for good; if that one started when the leader did, it is it.
    if _start_time(state.pid) == state.started:
        return descriptor
    os.close(descriptor)
    return None


def _start_time(pid: int) -> int | None:
    """Start of a process in ticks since boot, None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command in brackets, which may hold anything.
    return int(text.rpartition(")")[2].split()[19])


def boot_id() -> int:
    """Number that names the machine's present boot."""
    text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    return int(text.replace("-", "")[:15], 16)
