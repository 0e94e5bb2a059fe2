"""What each error of the broker's SDK means: nothing was sent, nobody knows, or a question failed.

Why: an order whose fate is misread is sent twice or forgotten. The SDK has thirty error classes,
and some of its failures are no `Exception` at all.

Invariants:
1. An order call that failed is REJECTED only where the SDK or the broker refused before anything
   could reach the exchange; every other failure, known or not, is AMBIGUOUS.
2. A question that failed is BROKER_QUERY_FAILED, and so is one that was answered with None.
3. `attempt` is the only place that catches everything; KeyboardInterrupt and SystemExit pass.
4. Every error class of the SDK has a row (a test enumerates them).

It imports no SDK. Operator's page: `docs/shioaji.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.order.broker import Outcome

T = TypeVar("T")

MESSAGE_LENGTH_MAX = 200
"""A broker's text is cut here: it goes into records and logs."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an error says about the call that raised it.

    Attributes
    ----------
    outcome : Outcome
        Of an order call: REJECTED or AMBIGUOUS.
    code : int
        Why an order call failed.
    login_code : int
        Why a login failed, were it raised there.
    """

    outcome: Outcome
    code: int
    login_code: int


def _refused(code: int, login_code: int = ReasonCode.BROKER_LOGIN_FAILED) -> Meaning:
    return Meaning(Outcome.REJECTED, code, login_code)


def _unclear(code: int, login_code: int = ReasonCode.BROKER_UNREACHABLE) -> Meaning:
    return Meaning(Outcome.AMBIGUOUS, code, login_code)


_UNREADABLE = _unclear(ReasonCode.BROKER_ANSWER_UNREADABLE)

MEANINGS: Mapping[str, Meaning] = {
    # Refused before anything was sent: no session, no account, no signature, a request that the
    # broker's own door did not take (HTTP 400, 401, 422).
    "AuthError": _refused(ReasonCode.BROKER_LOGIN_FAILED),
    "TokenError": _refused(ReasonCode.BROKER_LOGIN_FAILED),
    "AccountNotSignError": _refused(ReasonCode.ACCOUNT_NOT_ALLOWED),
    "AccountNotProvideError": _refused(ReasonCode.ACCOUNT_NOT_ALLOWED),
    "CaError": _refused(ReasonCode.CERTIFICATE_MISSING, ReasonCode.CERTIFICATE_MISSING),
    "CaExpiredError": _refused(ReasonCode.CERTIFICATE_EXPIRED, ReasonCode.CERTIFICATE_EXPIRED),
    "CaPasswordError": _refused(ReasonCode.CERTIFICATE_MISSING, ReasonCode.CERTIFICATE_MISSING),
    "ValidationError": _refused(ReasonCode.ORDER_FIELD_INVALID),
    "BadRequestError": _refused(ReasonCode.BROKER_REJECTED),
    # Anything may have happened. Maintenance is among them: HTTP 503 comes from whoever stands
    # before the order server, and that one may have taken the order.
    "SystemMaintenance": _unclear(ReasonCode.BROKER_UNREACHABLE),
    "ServerError": _unclear(ReasonCode.BROKER_ANSWER_UNREADABLE),
    "ShioajiConnectionError": _unclear(ReasonCode.BROKER_UNREACHABLE),
    "ShioajiTimeoutError": _unclear(ReasonCode.BROKER_TIMEOUT),
    "ResponseError": _UNREADABLE,
    "OrderOutcomeUnknownError": _unclear(ReasonCode.ORDER_OUTCOME_UNKNOWN),
    "DecodeError": _UNREADABLE,
    "ResponseMsgError": _UNREADABLE,
    "ResponseRecvError": _UNREADABLE,
    # The SDK raises these for arguments, but also where an answer does not decode. Arguments were
    # checked before the call, so what is left is the answer.
    "ShioajiValueError": _UNREADABLE,
    "ShioajiTypeError": _UNREADABLE,
    "ShioajiPermissionError": _UNREADABLE,
    "ShioajiError": _UNREADABLE,
    # No order call is known to raise these.
    "SubscribeError": _UNREADABLE,
    "UnsubscribeError": _UNREADABLE,
    "MarketDataQueryError": _UNREADABLE,
    "MarketDataQueryUsageLimitError": _UNREADABLE,
    "MarketDataQueryUnavailableError": _UNREADABLE,
    "MarketDataQueryTimeoutError": _unclear(ReasonCode.BROKER_TIMEOUT),
    "MarketDataQueryProtocolError": _UNREADABLE,
    "MarketDataQueryRejectedError": _UNREADABLE,
}
"""By name of the class; a class without a row has the meaning of its nearest ancestor."""


@dataclass(frozen=True, slots=True)
class Attempt(Generic[T]):
    """What came of a call: its value, or what it raised."""

    value: T | None
    error: BaseException | None


def attempt(call: Callable[[], T]) -> Attempt[T]:
    """Make a call of the SDK and catch whatever it raises, panics of its core included."""
    try:
        return Attempt(call(), None)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a panic of the SDK is no `Exception`
        return Attempt(None, error)


def meaning_of(error: BaseException) -> Meaning:
    """What an error says about the order call that raised it."""
    for kind in type(error).__mro__:
        # By module as well: other packages have a `ValidationError`, too.
        if kind.__module__.partition(".")[0] == "shioaji" and kind.__name__ in MEANINGS:
            return MEANINGS[kind.__name__]
    if isinstance(error, TimeoutError):
        return _unclear(ReasonCode.BROKER_TIMEOUT)
    if isinstance(error, OSError):
        return _unclear(ReasonCode.BROKER_UNREACHABLE)
    return _UNREADABLE


def describe(error: BaseException) -> str:
    """Class and text of an error on one line, bounded; never raises."""
    text = attempt(lambda: str(error)).value
    return short(f"{type(error).__name__}: {'no text' if text is None else text}")


def short(text: str) -> str:
    """A foreign text on one line, printable and bounded."""
    line = "".join(sign if sign.isprintable() else " " for sign in text)
    return line if len(line) <= MESSAGE_LENGTH_MAX else line[: MESSAGE_LENGTH_MAX - 3] + "..."


def query_failed(what: str, why: str) -> PlatformError:
    """The error of a question that was not answered."""
    return PlatformError(
        ReasonCode.BROKER_QUERY_FAILED,
        f"the broker was asked for {what} and did not answer: {why}",
        facts={"what": what},
    )


def ask(what: str, call: Callable[[], T | None]) -> T:
    """Ask the broker something.

    Parameters
    ----------
    what : str
        For the message.
    call : callable
        The question.

    Returns
    -------
    object
        The answer; never None.

    Raises
    ------
    PlatformError
        BROKER_QUERY_FAILED when it raised, or answered None.
    """
    done = attempt(call)
    if done.error is not None:
        if isinstance(done.error, PlatformError):
            raise done.error
        cause = code_name(meaning_of(done.error).code)
        raise query_failed(what, f"{describe(done.error)} ({cause})") from done.error
    if done.value is None:
        raise query_failed(what, "it said nothing (None)")
    return done.value
