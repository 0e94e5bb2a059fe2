"""What went wrong with a store: one code for each kind of failure, and what may be done about it.

Why: "the server is down" is waited for, "no such column" is not, and "no answer" may mean that the
rows are in. Whoever retries must know which it is.

Invariants:
1. `FAILURES` says for every code whether the statement may have been applied, whether it is
   retried by itself, and whether it speaks against the store's health.
2. A statement that changes something and whose answer was lost is AMBIGUOUS, whatever the cause.
3. An error that is not known is STORE_FAILED and is not retried.

It retries nothing itself (see `store`). Operator's page: `docs/store.md`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass

from hft_platform.errors import ReasonCode


class Statement(enum.Enum):
    """What a second sending would do."""

    READ = "read"
    """Changes nothing: may always be sent again."""
    INSERT = "insert"
    """Carries a token: the very same bytes sent again add nothing."""
    ONCE = "once"
    """Anything else: sent again only when it surely never arrived."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a code means for the next step.

    Attributes
    ----------
    retried : frozenset of Statement
        Kinds of statement that are sent again by themselves.
    is_unhealthy : bool
        Whether it counts for the circuit breaker.
    may_be_applied : bool
        Whether a changing statement may have been applied.
    is_passing : bool
        Whether trying later, without changing anything, can help.
    """

    retried: frozenset[Statement]
    is_unhealthy: bool
    may_be_applied: bool
    is_passing: bool


_ALL = frozenset(Statement)
_SAFE_TWICE = frozenset({Statement.READ, Statement.INSERT})
_NONE: frozenset[Statement] = frozenset()

FAILURES: Mapping[int, Failure] = {
    ReasonCode.STORE_UNREACHABLE: Failure(_ALL, True, False, True),
    ReasonCode.STORE_TIMEOUT: Failure(_SAFE_TWICE, True, False, True),
    ReasonCode.STORE_AMBIGUOUS: Failure(_SAFE_TWICE, True, True, True),
    ReasonCode.STORE_OVERLOADED: Failure(_SAFE_TWICE, True, False, True),
    ReasonCode.STORE_BREAKER_OPEN: Failure(_NONE, False, False, True),
    ReasonCode.STORE_BUSY: Failure(_NONE, False, False, True),
    ReasonCode.STORE_REFUSED: Failure(_NONE, False, False, False),
    ReasonCode.STORE_FAILED: Failure(_NONE, False, True, False),
    ReasonCode.STORE_NEEDS_SERVER: Failure(_NONE, False, False, False),
}
"""Every code a store fails with. A loader stops at them; they say nothing about a segment."""

# Codes of ClickHouse. The statement was not begun, or was undone as a whole:
_OVERLOADED = frozenset({
    202,  # TOO_MANY_SIMULTANEOUS_QUERIES
    203,  # NO_FREE_CONNECTION
    241,  # MEMORY_LIMIT_EXCEEDED
    252,  # TOO_MANY_PARTS
    439,  # CANNOT_SCHEDULE_TASK
    745,  # SERVER_OVERLOADED
})  # fmt: skip
# It was begun and given up, or its state is not known to the server itself:
_UNKNOWN_OUTCOME = frozenset({
    159,  # TIMEOUT_EXCEEDED
    209,  # SOCKET_TIMEOUT
    210,  # NETWORK_ERROR
    236,  # ABORTED
    242,  # TABLE_IS_READ_ONLY
    319,  # UNKNOWN_STATUS_OF_INSERT
    394,  # QUERY_WAS_CANCELLED
    999,  # KEEPER_EXCEPTION
})  # fmt: skip
_HTTP_STATUS = re.compile(r"HTTP status (\d{3})")
# Statuses of a proxy or a server that took nothing: try later.
_HTTP_BUSY = frozenset({429, 503})
# Names of urllib3's errors; the connection did not come about, so nothing was sent.
_NOT_CONNECTED = frozenset({
    "ConnectTimeoutError", "NameResolutionError", "NewConnectionError", "ProxyError", "SSLError",
})  # fmt: skip


def classify(error: Exception, statement: Statement) -> ReasonCode:
    """Give a failure of the client its code.

    Parameters
    ----------
    error : Exception
        Raised by clickhouse-connect, with its cause.
    statement : Statement
        What was asked.

    Returns
    -------
    ReasonCode
        One of `FAILURES`.
    """
    lost = ReasonCode.STORE_UNREACHABLE if statement is Statement.READ else (
        ReasonCode.STORE_AMBIGUOUS
    )  # fmt: skip
    late = ReasonCode.STORE_TIMEOUT if statement is Statement.READ else ReasonCode.STORE_AMBIGUOUS
    code = getattr(error, "code", None)
    if isinstance(code, int):
        if code in _OVERLOADED:
            return ReasonCode.STORE_OVERLOADED
        return late if code in _UNKNOWN_OUTCOME else ReasonCode.STORE_REFUSED
    causes = _causes(error)
    names = {type(cause).__name__ for cause in causes}
    # The client's own "connection closed before the headers" is one of urllib3's by its bases.
    kinds = {kind for cause in causes for kind in type(cause).__mro__}
    modules = {kind.__module__.partition(".")[0] for kind in kinds}
    if names & _NOT_CONNECTED:
        return ReasonCode.STORE_UNREACHABLE
    if "ReadTimeoutError" in names:
        return late
    status = _HTTP_STATUS.search(str(error))
    if status is not None:
        number = int(status.group(1))
        if number in _HTTP_BUSY:
            return ReasonCode.STORE_OVERLOADED
        return lost if number >= 500 else ReasonCode.STORE_REFUSED
    if "urllib3" in modules or any(isinstance(cause, ConnectionError) for cause in causes):
        return lost
    if "clickhouse_connect" in modules and "StreamFailureError" in names:
        return lost
    return ReasonCode.STORE_FAILED


def _causes(error: BaseException) -> list[BaseException]:
    """The error, what caused it, and urllib3's `reason` inside, at most ten of them."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting and len(found) < 10:
        cause = waiting.pop(0)
        if cause is None or any(cause is known for known in found):
            continue
        found.append(cause)
        reason = getattr(cause, "reason", None)
        waiting.append(reason if isinstance(reason, BaseException) else None)
        waiting.append(cause.__cause__)
    return found
