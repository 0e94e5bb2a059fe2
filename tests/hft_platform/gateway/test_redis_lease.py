"""The lease of two hosts, on a real Redis server."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis, RedisError

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.gateway.lease import LeaderLease
from hft_platform.gateway.redis_lease import STANDBY_MARGIN_NS, TTL_NS, RedisLease, redis_client

NS = 1_000_000_000
WAIT_S = 20.0


class Server:
    """A Redis server of its own, on a free loopback port."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen(
            [*command, "--dir", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                with self.client() as client:
                    assert client.ping()
                return
            except RedisError:
                assert time.monotonic() < deadline, "redis-server did not answer"
                time.sleep(0.01)

    def client(self, timeout_s: float = 2.0) -> Redis:
        return redis_client("127.0.0.1", self.port, timeout_s=timeout_s)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(WAIT_S)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server; scripts/install-debian.sh installs it")
    server = Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def server(running: Server) -> Server:
    with running.client() as client:
        client.execute_command("FLUSHALL")
    return running


class Clock:
    """CLOCK_BOOTTIME as a test sets it; Redis keeps its own time."""

    def __init__(self) -> None:
        self.now_ns = 5_000 * NS

    def __call__(self) -> int:
        return self.now_ns


class Host:
    """One of two hosts."""

    def __init__(self, name: str, folder: Path, server: Server, log_epoch: int = 0) -> None:
        self.clock = Clock()
        self.log_epoch = log_epoch
        local = LeaderLease(folder / name, clock_ns=self.clock)
        self.lease = RedisLease(local, server.client(), clock_ns=self.clock, host=name)

    def try_acquire(self) -> int | None:
        return self.lease.try_acquire(lambda: self.log_epoch)

    def lead(self) -> int:
        """Wait as long as a standby must, on its own clock."""
        assert self.try_acquire() is None
        self.clock.now_ns += TTL_NS + STANDBY_MARGIN_NS
        epoch = self.try_acquire()
        assert epoch is not None
        return epoch

    def refused(self) -> int:
        """Code of the fence, 0 when it passes."""
        try:
            self.lease.fence().check()
        except PlatformError as error:
            return error.code
        return 0


def expire(server: Server) -> None:
    """The time to live ran out in Redis."""
    with server.client() as client:
        client.execute_command("DEL", "hft:gateway:leader")


def test_a_standby_waits_the_time_to_live_and_two_seconds_more(
    tmp_path: Path, server: Server
) -> None:
    host = Host("a", tmp_path, server)
    assert host.try_acquire() is None
    host.clock.now_ns += TTL_NS + STANDBY_MARGIN_NS - 1
    assert host.try_acquire() is None
    host.clock.now_ns += 1
    assert host.try_acquire() == 1
    assert host.refused() == 0


def test_one_of_two_hosts_leads_and_epochs_grow(tmp_path: Path, server: Server) -> None:
    first, second = Host("a", tmp_path, server), Host("b", tmp_path, server)
    assert first.lead() == 1
    second.clock.now_ns += 100 * NS
    assert second.try_acquire() is None
    expire(server)
    assert second.lead() == 2
    # The first one may send no more by its own clock, and learns the reason at its next renewal.
    first.clock.now_ns += TTL_NS - NS - 1
    assert first.refused() == 0
    first.clock.now_ns += 1
    assert first.refused() == ReasonCode.GATEWAY_NOT_LEADER
    assert not first.lease.heartbeat()
    assert first.refused() == ReasonCode.GATEWAY_FENCED


def test_a_renewal_keeps_the_leader_sending_and_the_standby_waiting(
    tmp_path: Path, server: Server
) -> None:
    first, second = Host("a", tmp_path, server), Host("b", tmp_path, server)
    first.lead()
    for _ in range(12):
        first.clock.now_ns += TTL_NS // 3
        second.clock.now_ns += TTL_NS // 3
        assert first.lease.heartbeat()
        assert first.refused() == 0
        assert second.try_acquire() is None
    with server.client() as client:
        ttl_ms = client.execute_command("PTTL", "hft:gateway:leader")
        assert isinstance(ttl_ms, int)
        assert 0 < ttl_ms <= TTL_NS // 1_000_000
        assert client.execute_command("HGET", "hft:gateway:leader", "beat") == b"12"


def test_a_lease_that_was_let_go_is_taken_at_once(tmp_path: Path, server: Server) -> None:
    first, second = Host("a", tmp_path, server), Host("b", tmp_path, server, log_epoch=1)
    first.lead()
    fence = first.lease.fence()
    assert second.try_acquire() is None
    first.lease.release()
    assert second.try_acquire() == 2
    assert not second.lease.lacks_journal
    with pytest.raises(PlatformError) as raised:
        fence.check()
    assert raised.value.code == ReasonCode.GATEWAY_NOT_LEADER


def test_a_silent_redis_ends_the_right_to_send_and_gives_it_to_nobody(
    tmp_path: Path, server: Server
) -> None:
    other = Server(tmp_path)
    try:
        host = Host("a", tmp_path, other)
        host.lead()
        other.stop()
        host.clock.now_ns += TTL_NS // 3
        assert host.lease.heartbeat()  # not renewed, and still surely the leader
        assert host.refused() == 0
        host.clock.now_ns += TTL_NS
        assert not host.lease.heartbeat()
        assert host.refused() == ReasonCode.GATEWAY_NOT_LEADER
        standby = Host("b", tmp_path, other)
        assert standby.try_acquire() is None
        standby.clock.now_ns += 100 * NS
        assert standby.try_acquire() is None
    finally:
        other.stop()


def test_an_epoch_is_above_the_order_logs_even_if_redis_forgot(
    tmp_path: Path, server: Server
) -> None:
    host = Host("a", tmp_path, server, log_epoch=17)
    assert host.lead() == 18
    assert not host.lease.lacks_journal


def test_a_host_without_the_last_leaders_journal_says_so(tmp_path: Path, server: Server) -> None:
    first, second = Host("a", tmp_path, server), Host("b", tmp_path, server)
    first.lead()
    first.log_epoch = 1
    first.lease.release()
    assert second.try_acquire() == 2
    assert second.lease.lacks_journal


def test_of_one_host_only_one_process_asks(tmp_path: Path, server: Server) -> None:
    first, second = Host("a", tmp_path, server), Host("a", tmp_path, server)
    first.lead()
    expire(server)
    second.clock.now_ns += 100 * NS
    assert second.try_acquire() is None


def test_a_clock_of_the_other_host_does_not_matter(tmp_path: Path, server: Server) -> None:
    """Each host counts on its own clock, however far they are apart."""
    first, second = Host("a", tmp_path, server), Host("b", tmp_path, server)
    second.clock.now_ns = 9_999_999 * NS
    first.lead()
    assert second.try_acquire() is None
    expire(server)
    assert second.try_acquire() is None


def test_a_command_without_an_answer_is_not_sent_again() -> None:
    """Sent twice, a renewal that was done would look like one that was refused."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.3)
    connections = 0

    def serve() -> None:
        nonlocal connections
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            connections += 1
            link.close()

    thread = threading.Thread(target=serve)
    thread.start()
    with listener, redis_client("127.0.0.1", listener.getsockname()[1], timeout_s=2.0) as client:
        with pytest.raises(RedisError):
            client.ping()
        thread.join(WAIT_S)
    assert connections == 1
