"""Leader lease: one leader, known to be alone; death, hanging, tampering and time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.gateway import lease as lease_module
from hft_platform.gateway.lease import LEASE_BYTES, LeaderLease, boottime_ns, read_lease
from hft_platform.gateway.lease_process import last_epoch

MS = 1_000_000
WAIT_S = 20.0


class Contender:
    """A process that wants to lead."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hft_platform.gateway.lease_process", str(folder), *options],
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> list[str]:
        """Next line it says; empty when it ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def until_waiting(self) -> None:
        """Return when it stands by."""
        assert self.line() == ["waiting"]

    def until_leading(self) -> tuple[int, int]:
        """Epoch and CLOCK_BOOTTIME when it leads."""
        words = self.line()
        assert words[0] == "leads", words
        return int(words[1]), int(words[2])

    def signal(self, number: int) -> None:
        """Send a signal to exactly this process."""
        os.kill(self.process.pid, number)

    def end(self) -> None:
        """End it, however it stands."""
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
        self.process.wait(WAIT_S)
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def contenders(tmp_path: Path) -> Iterator[list[Contender]]:
    started: list[Contender] = []
    yield started
    for one in started:
        one.end()


def start(contenders: list[Contender], folder: Path, *options: str) -> Contender:
    contenders.append(Contender(folder, *options))
    contenders[-1].until_waiting()
    return contenders[-1]


def wait_for(path: Path, epoch: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while last_epoch(path) < epoch:
        assert time.monotonic() < deadline, f"epoch {epoch} was not written within {WAIT_S} s"
        time.sleep(0.002)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000_000

    def __call__(self) -> int:
        return self.now_ns


def test_the_first_leads_and_the_second_does_not(tmp_path: Path) -> None:
    first, second = LeaderLease(tmp_path), LeaderLease(tmp_path)
    assert first.try_acquire(lambda: 0) == 1
    assert second.try_acquire(lambda: 0) is None
    assert (first.epoch, second.epoch) == (1, 0)
    with pytest.raises(PlatformError) as raised:
        second.fence()
    assert raised.value.code == ReasonCode.GATEWAY_NOT_LEADER
    first.release()
    assert second.try_acquire(lambda: 0) == 2


def test_an_epoch_is_above_the_order_logs_and_the_leases_last(tmp_path: Path) -> None:
    lease = LeaderLease(tmp_path)
    assert lease.try_acquire(lambda: 41) == 42
    lease.release()
    assert lease.try_acquire(lambda: 7) == 43
    lease.release()
    # A lease file that is gone takes no epoch with it: the order log knows.
    lease.path.unlink()
    assert lease.try_acquire(lambda: 43) == 44


def test_a_failed_look_at_the_order_log_leaves_nobody_leading(tmp_path: Path) -> None:
    def damaged() -> int:
        raise PlatformError(ReasonCode.WAL_DAMAGED, "damaged")

    lease = LeaderLease(tmp_path)
    with pytest.raises(PlatformError):
        lease.try_acquire(damaged)
    assert lease.epoch == 0
    assert LeaderLease(tmp_path).try_acquire(lambda: 0) == 1


def test_the_fence_passes_while_the_lease_is_held_and_not_afterwards(tmp_path: Path) -> None:
    lease = LeaderLease(tmp_path)
    lease.try_acquire(lambda: 0)
    fence = lease.fence()
    fence.check()
    lease.release()
    with pytest.raises(PlatformError) as raised:
        fence.check()
    assert raised.value.code == ReasonCode.GATEWAY_NOT_LEADER


def unlink(path: Path) -> None:
    path.unlink()


def replace_by_another(path: Path) -> None:
    other = path.with_suffix(".other")
    other.write_bytes(path.read_bytes())
    other.rename(path)


def write_another_epoch(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(8)
        file.write((99).to_bytes(8, "little"))


def truncate(path: Path) -> None:
    os.truncate(path, 0)


def move_the_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.mkdir()


@pytest.mark.parametrize(
    "damage", [unlink, replace_by_another, write_another_epoch, truncate, move_the_folder]
)
def test_the_fence_refuses_when_somebody_touched_the_lease_file(tmp_path: Path, damage) -> None:
    lease = LeaderLease(tmp_path / "gateway")
    lease.try_acquire(lambda: 0)
    fence = lease.fence()
    fence.check()
    damage(lease.path)
    with pytest.raises(PlatformError) as raised:
        fence.check()
    assert raised.value.code == ReasonCode.GATEWAY_FENCED
    if damage is truncate:
        # What a leader's next heartbeat would meet: it ends the process, which fences as well.
        os.truncate(lease.path, LEASE_BYTES)
    lease.release()


def test_a_removed_lease_file_does_not_let_a_second_leader_in(tmp_path: Path) -> None:
    first, second = LeaderLease(tmp_path), LeaderLease(tmp_path)
    first.try_acquire(lambda: 0)
    first.path.unlink()
    assert second.try_acquire(lambda: 0) is None
    first.release()
    assert second.try_acquire(lambda: 1) == 2


def test_a_lock_taken_away_through_the_same_descriptor_is_noticed(tmp_path: Path) -> None:
    import fcntl

    lease = LeaderLease(tmp_path)
    lease.try_acquire(lambda: 0)
    fence = lease.fence()
    assert lease._held is not None
    fcntl.flock(lease._held._descriptor, fcntl.LOCK_UN)
    other = os.open(lease.path, os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(PlatformError) as raised:
        fence.check()
    assert raised.value.code == ReasonCode.GATEWAY_FENCED
    os.close(other)


def test_a_forked_child_neither_leads_nor_keeps_the_lock(tmp_path: Path) -> None:
    lease = LeaderLease(tmp_path)
    lease.try_acquire(lambda: 0)
    fence = lease.fence()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            fence.check()
            os._exit(0)
        except PlatformError as error:
            os.write(write, str(error.code).encode())
            os.read(read, 0)
            signal.pause()
        os._exit(1)
    try:
        # A child that lives on must not hold what its parent lets go of.
        assert int(os.read(read, 16)) == ReasonCode.GATEWAY_NOT_LEADER
        fence.check()
        lease.release()
        assert LeaderLease(tmp_path).try_acquire(lambda: 0) == 2
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)


def test_the_heartbeat_stops_when_a_watched_loop_does(tmp_path: Path) -> None:
    clock = Clock()
    lease = LeaderLease(tmp_path, clock_ns=clock)
    lease.try_acquire(lambda: 0)
    dispatcher = lease.watch("dispatcher", 100 * MS)
    for _ in range(5):
        clock.now_ns += 90 * MS
        dispatcher.beat()
        assert lease.heartbeat()
    clock.now_ns += 101 * MS
    assert not lease.heartbeat()
    assert lease.late() == ["dispatcher"]
    # A call that may take long is announced: the leader does not hang, it waits for the broker.
    dispatcher.beat(5_000 * MS)
    clock.now_ns += 4_000 * MS
    assert lease.heartbeat()
    state = read_lease(lease.path)
    assert state is not None
    assert (state.heartbeat_ns, state.beats) == (clock.now_ns, 6)


def test_a_heartbeat_is_judged_only_by_a_standby_that_kept_looking(tmp_path: Path) -> None:
    """After a suspended machine every heartbeat is old: nobody is ended for that."""
    clock = Clock()
    leader = LeaderLease(tmp_path, clock_ns=clock)
    leader.try_acquire(lambda: 0)
    standby = LeaderLease(tmp_path, clock_ns=clock)
    state = read_lease(leader.path)
    assert state is not None
    clock.now_ns += 3_600_000 * MS
    assert not standby._is_hung(state, clock.now_ns)
    clock.now_ns += 20 * MS
    assert not standby._is_hung(state, clock.now_ns)
    clock.now_ns += 20 * MS
    assert standby._is_hung(state, clock.now_ns)


def test_a_process_that_only_has_the_leaders_number_is_not_ended(tmp_path: Path) -> None:
    """The words name a process that is gone, and its number was given to another one."""
    leader = LeaderLease(tmp_path)
    leader.try_acquire(lambda: 0)
    bystander = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        assert leader._held is not None
        leader._held.words[lease_module._PID] = bystander.pid
        leader._held.words[lease_module._BEAT] = 1
        standby = LeaderLease(tmp_path)
        for _ in range(6):
            assert standby.try_acquire(lambda: 0) is None
        assert standby.ended == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_no_wall_clock_moves_the_lease(tmp_path: Path) -> None:
    """Nothing of it reads a clock that somebody can set."""
    text = Path(lease_module.__file__).read_text(encoding="utf-8")
    assert "time.time" not in text
    assert "datetime" not in text
    assert boottime_ns() == pytest.approx(time.clock_gettime_ns(time.CLOCK_BOOTTIME), abs=10**9)


def test_leaders_that_are_killed_one_after_the_other_are_replaced(
    tmp_path: Path, contenders: list[Contender]
) -> None:
    leader = start(contenders, tmp_path)
    assert leader.until_leading()[0] == 1
    standby = start(contenders, tmp_path)
    for epoch in range(2, 6):
        wait_for(tmp_path / "epochs.log", epoch - 1)
        leader.signal(signal.SIGKILL)
        # How fast is measured by `make bench` (gateway.takeover_ms), not on a machine under load.
        assert standby.until_leading()[0] == epoch
        leader = standby
        standby = start(contenders, tmp_path)
    wait_for(tmp_path / "epochs.log", 5)
    assert written(tmp_path) == sorted(written(tmp_path))


def test_a_stopped_leader_is_ended_and_never_wakes(
    tmp_path: Path, contenders: list[Contender]
) -> None:
    leader = start(contenders, tmp_path, "--hung-after-ms", "150")
    leader.until_leading()
    standby = start(contenders, tmp_path, "--hung-after-ms", "150")
    wait_for(tmp_path / "epochs.log", 1)
    stopped_ns = boottime_ns()
    leader.signal(signal.SIGSTOP)
    epoch, led_ns = standby.until_leading()
    assert epoch == 2
    assert led_ns - stopped_ns >= 140 * MS
    # Waking it is too late: it was ended before the standby could have the lock.
    leader.process.wait(WAIT_S)
    assert leader.process.returncode == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        leader.signal(signal.SIGCONT)
    wait_for(tmp_path / "epochs.log", 2)
    assert written(tmp_path) == sorted(written(tmp_path))


def test_a_leader_whose_file_is_removed_ends_itself_and_the_standby_goes_on(
    tmp_path: Path, contenders: list[Contender]
) -> None:
    leader = start(contenders, tmp_path)
    leader.until_leading()
    standby = start(contenders, tmp_path)
    wait_for(tmp_path / "epochs.log", 1)
    (tmp_path / lease_module.LEASE_FILE).unlink()
    assert leader.line() == ["fenced", str(int(ReasonCode.GATEWAY_FENCED))]
    assert standby.until_leading()[0] == 2


def test_without_locks_two_leaders_would_write_at_once(
    tmp_path: Path, contenders: list[Contender]
) -> None:
    """Negative control: the folder moved away and no fence, and epochs get out of order."""
    folder = tmp_path / "gateway"
    leader = start(contenders, folder, "--unfenced")
    leader.until_leading()
    wait_for(folder / "epochs.log", 1)
    journal = folder / "epochs.log"
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    folder.mkdir()
    os.link(moved / "epochs.log", journal)
    standby = start(contenders, folder, "--unfenced")
    standby.until_leading()
    wait_for(journal, 2)
    deadline = time.monotonic() + WAIT_S
    while written(folder) == sorted(written(folder)):
        assert time.monotonic() < deadline, "two leaders without a fence did not meet"
        time.sleep(0.01)


def written(folder: Path) -> list[int]:
    lines = (folder / "epochs.log").read_text(encoding="ascii").split("\n")[:-1]
    return [int(line) for line in lines]
