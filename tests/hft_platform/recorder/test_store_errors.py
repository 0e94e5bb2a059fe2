"""Codes of a failing store: what may have been applied, and what is sent again."""

from __future__ import annotations

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError, ProgrammingError
from urllib3.exceptions import (
    ConnectTimeoutError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder.store_errors import FAILURES, Statement, classify

READ, INSERT, ONCE = Statement.READ, Statement.INSERT, Statement.ONCE
UNREACHABLE, TIMEOUT = ReasonCode.STORE_UNREACHABLE, ReasonCode.STORE_TIMEOUT
AMBIGUOUS, REFUSED = ReasonCode.STORE_AMBIGUOUS, ReasonCode.STORE_REFUSED
OVERLOADED, FAILED = ReasonCode.STORE_OVERLOADED, ReasonCode.STORE_FAILED


def _transport(cause: Exception) -> OperationalError:
    error = OperationalError(f"Error {cause} executing HTTP request attempt 1")
    error.__cause__ = cause
    return error


def _inside(reason: Exception) -> MaxRetryError:
    return MaxRetryError(None, "/", reason)  # type: ignore[arg-type]


def _reset() -> ProtocolError:
    error = ProtocolError("Connection aborted.")
    error.__cause__ = ConnectionResetError(104, "reset")
    return error


CASES = [
    # What the client raises, and the codes of a read, an insert and anything else.
    ("refused", _transport(_inside(NewConnectionError(None, "refused"))), (UNREACHABLE,) * 3),
    ("no route", _transport(_inside(ConnectTimeoutError("late"))), (UNREACHABLE,) * 3),
    ("no answer", _transport(ReadTimeoutError(None, "/", "timed out")),
     (TIMEOUT, AMBIGUOUS, AMBIGUOUS)),
    ("reset", _transport(_reset()), (UNREACHABLE, AMBIGUOUS, AMBIGUOUS)),
    ("too many parts", DatabaseError("x", code=252), (OVERLOADED,) * 3),
    ("memory", DatabaseError("x", code=241), (OVERLOADED,) * 3),
    ("given up", DatabaseError("x", code=159), (TIMEOUT, AMBIGUOUS, AMBIGUOUS)),
    ("unknown insert", DatabaseError("x", code=319), (TIMEOUT, AMBIGUOUS, AMBIGUOUS)),
    ("no such column", DatabaseError("x", code=47), (REFUSED,) * 3),
    ("wrong password", DatabaseError("x", code=516), (REFUSED,) * 3),
    ("bad gateway", DatabaseError("HTTP driver received HTTP status 502"),
     (UNREACHABLE, AMBIGUOUS, AMBIGUOUS)),
    ("busy proxy", OperationalError("HTTP driver received HTTP status 503"), (OVERLOADED,) * 3),
    ("not found", DatabaseError("HTTP driver received HTTP status 404"), (REFUSED,) * 3),
    ("engine", RuntimeError("Error initializing EmbeddedServer"), (FAILED,) * 3),
    ("client", ProgrammingError("The client has been closed"), (FAILED,) * 3),
]  # fmt: skip


@pytest.mark.parametrize(("name", "error", "codes"), CASES, ids=[case[0] for case in CASES])
def test_every_failure_has_its_code(
    name: str, error: Exception, codes: tuple[ReasonCode, ...]
) -> None:
    assert tuple(classify(error, kind) for kind in (READ, INSERT, ONCE)) == codes, name


def test_nothing_without_a_token_is_sent_again_when_it_may_have_arrived() -> None:
    for code, failure in FAILURES.items():
        if ONCE in failure.retried:
            assert code == UNREACHABLE, "only what never arrived"
        if failure.may_be_applied:
            assert ONCE not in failure.retried
        assert failure.is_passing or not failure.retried
    assert not FAILURES[REFUSED].is_unhealthy, "a server that refuses is there"


def test_every_code_of_the_table_tells_the_operator_what_to_do() -> None:
    for code in FAILURES:
        error = PlatformError(code, "x")
        assert error.why
        assert error.next_step
