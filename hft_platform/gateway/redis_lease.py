"""Lease between two hosts, in Redis: who of them may send orders.

Why: a lock file fences by death on one host only. Between hosts nobody can see that the other one
is dead, so the lease runs out by time, and both sides keep away from the edges of that time.

Invariants:
1. On each host the lease file comes first: of one host, one process asks Redis.
2. The leader sends until one second before its last renewal runs out, counted on CLOCK_BOOTTIME
   from before the renewal was asked for. A renewal whose answer got lost did not happen.
3. A standby takes over when it has seen no renewal for the time to live and two seconds more, on
   its own CLOCK_BOOTTIME; no clock is compared with another host's.
4. Taking the lease and counting the epoch are one transaction; an epoch is used once as long as
   Redis keeps what it acknowledged, and is above every epoch in the order log in any case.
5. A leader that finds another's name in Redis never sends again.
6. A host whose order log ends before the last epoch led has no journal of what the other one
   sent: it says so (`lacks_journal`), and trades reduce-only until a person confirms.

What remains: a leader that stops for more than the margin between its last check and the call (a
paused virtual machine) may still send one order after the takeover, and a Redis that forgets what
it acknowledged (failover to a replica, no append-only file) may name two leaders. With one host
use the lease file alone. It sends nothing itself. Operator's page: `docs/gateway.md`.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.gateway.lease import LeaderLease, LeadershipFence, Pulse, boottime_ns

log = structlog.get_logger()

NS = 1_000_000_000
TTL_NS = 5 * NS
SEND_MARGIN_NS = NS
STANDBY_MARGIN_NS = 2 * NS
RENEWALS_PER_TTL = 3
_KEYS = ("hft:gateway:leader", "hft:gateway:last")

# The holder's name and a counter of its renewals; the last epoch, its host, and whether it let go.
_ACQUIRE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local last = tonumber(redis.call('HGET', KEYS[2], 'epoch') or '0')
local epoch = math.max(last, tonumber(ARGV[3])) + 1
redis.call('HSET', KEYS[2], 'epoch', epoch, 'host', ARGV[4], 'is_over', '0')
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'beat', 0)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {epoch, last}
"""
_RENEW = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HINCRBY', KEYS[1], 'beat', 1)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
_RELEASE = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[2], 'is_over', '1')
return 1
"""
_LOOK = """
return {redis.call('HGET', KEYS[1], 'token'), redis.call('HGET', KEYS[1], 'beat'),
        redis.call('HGET', KEYS[2], 'epoch'), redis.call('HGET', KEYS[2], 'is_over')}
"""


@dataclass(slots=True)
class _Led:
    """What the fence looks at."""

    epoch: int
    renewed_ns: int
    is_over: bool = False
    problem: str = ""


def redis_client(host: str, port: int, *, timeout_s: float, password: str | None = None) -> Redis:
    """A client that sends a command once: whether one without an answer was done is not known.

    Parameters
    ----------
    host : str
        Name or address.
    port : int
        Of the server.
    timeout_s : float
        Longest wait for a connection, and for an answer.
    password : str, optional
        Sent on every new connection.
    """
    return Redis(
        host=host,
        port=port,
        password=password,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
    )


class RedisLease:
    """The lease of two hosts.

    Parameters
    ----------
    local : LeaderLease
        Of this host; taken first.
    client : Redis
        To the Redis server both hosts use; its timeout is well below a third of the time to live.
    ttl_ns : int, optional
        Time to live of the lease.
    clock_ns : callable, optional
        CLOCK_BOOTTIME.
    host : str, optional
        Name of this host, for people.
    """

    def __init__(
        self,
        local: LeaderLease,
        client: Redis,
        *,
        ttl_ns: int = TTL_NS,
        clock_ns: Callable[[], int] = boottime_ns,
        host: str | None = None,
    ) -> None:
        if ttl_ns <= SEND_MARGIN_NS:
            raise PlatformError(
                ReasonCode.SETTINGS_INVALID,
                f"time to live of the lease was {ttl_ns} ns, it is above {SEND_MARGIN_NS} ns",
            )
        self.lacks_journal = False
        """True when the last leader's orders are not in this host's order log."""
        self._local = local
        self._client = client
        self._ttl_ns = ttl_ns
        self._clock_ns = clock_ns
        self._host = host or socket.gethostname()
        self._token = f"{self._host}:{os.getpid()}:{secrets.token_hex(8)}"
        self._led: _Led | None = None
        self._seen: tuple[object, int] | None = None

    @property
    def epoch(self) -> int:
        """Epoch that is led, 0 without the lease."""
        return self._led.epoch if self._led is not None else 0

    def try_acquire(self, last_epoch: Callable[[], int]) -> int | None:
        """Take the lease when the other host gave no sign of life for long enough.

        Parameters
        ----------
        last_epoch : callable
            Highest epoch in the order log of this host.

        Returns
        -------
        int or None
            Epoch that is led from now on; None while another process leads, or Redis is silent.
        """
        if self._led is not None:
            return self._led.epoch
        if self._local.try_acquire(last_epoch) is None:
            return None
        try:
            return self._take(last_epoch()) if self._may_take() else None
        except RedisError as error:
            # A lost answer may have made us leader in Redis: our own token then runs out like any.
            self._seen = None
            log.warning("lease_redis_silent", error=str(error))
            return None

    def wait(self, seconds: float = 0.25) -> None:
        """Wait until the next look.

        Parameters
        ----------
        seconds : float, optional
            How long.
        """
        if self._local.epoch:
            time.sleep(seconds)
        else:
            self._local.wait(seconds)

    def watch(self, name: str, allow_ns: int) -> Pulse:
        """Make the heartbeat depend on a loop, as `LeaderLease.watch`.

        Parameters
        ----------
        name : str
            Of the loop.
        allow_ns : int
            Longest time between two of its signs of life.
        """
        return self._local.watch(name, allow_ns)

    def heartbeat(self) -> bool:
        """Renew when a third of the time to live has passed, if every watched loop goes on.

        Returns
        -------
        bool
            False when this process cannot be sure to lead.
        """
        led = self._led
        if led is None or led.is_over or not self._local.heartbeat():
            return False
        asked_ns = self._clock_ns()
        if asked_ns - led.renewed_ns < self._ttl_ns // RENEWALS_PER_TTL:
            return True
        try:
            is_ours = self._script(_RENEW, self._token, self._ttl_ns // 1_000_000) == 1
        except RedisError as error:
            log.warning("lease_not_renewed", error=str(error))
            return self._clock_ns() < self._sends_until(led)
        if is_ours:
            led.renewed_ns = asked_ns
        else:
            led.is_over, led.problem = True, "is another's in Redis, or ran out there"
            log.error("lease_lost", reason_code=int(ReasonCode.GATEWAY_FENCED), epoch=led.epoch)
        return is_ours

    def fence(self) -> LeadershipFence:
        """What is checked before every call.

        Raises
        ------
        PlatformError
            GATEWAY_NOT_LEADER without the lease.
        """
        if self._led is None:
            raise PlatformError(ReasonCode.GATEWAY_NOT_LEADER, "the lease in Redis is not held")
        return _RedisFence(self, self._led, self._local.fence())

    def release(self) -> None:
        """Let go, in Redis and on this host; the other one leads at its next look."""
        if self._led is not None and not self._led.is_over:
            # First: whoever reads in Redis that it is over may take it at once.
            self._led.is_over, self._led.problem = True, ""
            try:
                self._script(_RELEASE, self._token)
            except RedisError as error:
                log.warning("lease_not_released", error=str(error))
        self._led = None
        self._client.close()
        self._local.release()

    def _may_take(self) -> bool:
        answer = self._script(_LOOK)
        if not isinstance(answer, list):
            raise RedisError(f"a look at the lease was answered {answer!r}")
        token, _, epoch, is_over = answer
        look, now_ns = tuple(map(str, answer)), self._clock_ns()
        if self._seen is None or self._seen[0] != look:
            # Counted from here on: the renewal was before it was seen.
            self._seen = (look, now_ns)
        if token is not None:
            return False
        if epoch is not None and is_over == b"1":
            return True
        return now_ns - self._seen[1] >= self._ttl_ns + STANDBY_MARGIN_NS

    def _take(self, last_epoch: int) -> int | None:
        asked_ns = self._clock_ns()
        answer = self._script(
            _ACQUIRE, self._token, self._ttl_ns // 1_000_000, last_epoch, self._host
        )
        if not isinstance(answer, list):
            return None
        epoch, last = (int(word) for word in answer if isinstance(word, int))
        self.lacks_journal = last_epoch < last
        self._led, self._seen = _Led(epoch, asked_ns), None
        log.info("lease_acquired", epoch=epoch, lacks_journal=self.lacks_journal)
        return epoch

    def _sends_until(self, led: _Led) -> int:
        return led.renewed_ns + self._ttl_ns - SEND_MARGIN_NS

    def _script(self, script: str, *arguments: str | int) -> object:
        return self._client.eval(script, len(_KEYS), *_KEYS, *map(str, arguments))


class _RedisFence:
    """Lease file and lease in Redis."""

    def __init__(self, lease: RedisLease, led: _Led, local: LeadershipFence) -> None:
        self._lease = lease
        self._led = led
        self._local = local

    def check(self) -> None:
        """Refuse when the lease is not surely ours for a second more."""
        if self._led.is_over:
            code = ReasonCode.GATEWAY_FENCED if self._led.problem else ReasonCode.GATEWAY_NOT_LEADER
            raise PlatformError(code, f"the lease {self._led.problem or 'was let go'}")
        self._local.check()
        late_ns = self._lease._clock_ns() - self._lease._sends_until(self._led)
        if late_ns >= 0:
            raise PlatformError(
                ReasonCode.GATEWAY_NOT_LEADER,
                f"the lease in Redis was not renewed in time, {late_ns} ns too late to send",
            )
