"""CallBreaker: stops sending what opens while the broker fails.

Why: every order whose call fails is exposure that nobody knows about. After a few of them the next
one must not be sent, but what reduces risk must still be tried.

Invariants:
1. It opens after `failures_max` failures in a row and never blocks an exit or a cancel: whoever
   asks decides that by not asking.
2. A refusal by the broker is an answer, so it is a success here; a call of unknown outcome, and
   one that could not reach the broker, are failures.

When it opens and tries again is `hft_platform/breaker.py`'s. It has no clock. Operator's page:
`docs/execution.md`.
"""

from __future__ import annotations

import threading

from hft_platform.breaker import Breaker, State
from hft_platform.errors import ReasonCode
from hft_platform.order.broker import CallResult, Outcome

_FAILURES = frozenset(
    {
        ReasonCode.BROKER_UNREACHABLE,
        ReasonCode.BROKER_TIMEOUT,
        ReasonCode.BROKER_ANSWER_UNREADABLE,
        ReasonCode.CHANNEL_UNREACHABLE,
    }
)


class CallBreaker:
    """The circuit breaker of a broker's calls; any thread may ask.

    Parameters
    ----------
    failures_max : int
        Failures in a row that open it.
    open_ns : int
        How long it stays open before it tries again.
    """

    def __init__(self, *, failures_max: int, open_ns: int) -> None:
        self._lock = threading.Lock()
        self._now_ns = 0
        self._breaker = Breaker(
            failures_max=failures_max, pause=open_ns, clock=lambda: self._now_ns
        )

    def allows(self, now_ns: int) -> bool:
        """Whether something that opens may be sent; the one call that tries again counts as sent.

        Parameters
        ----------
        now_ns : int
            The time.
        """
        with self._lock:
            self._now_ns = now_ns
            return self._breaker.ask() == 0

    def note(self, result: CallResult, now_ns: int) -> None:
        """Take what a call came to.

        Parameters
        ----------
        result : CallResult
            Of a call that was made.
        now_ns : int
            The time.
        """
        is_failure = result.outcome is Outcome.AMBIGUOUS or (
            result.outcome is Outcome.REJECTED and result.code in _FAILURES
        )
        with self._lock:
            self._now_ns = now_ns
            if is_failure:
                self._breaker.failed()
            else:
                self._breaker.answered()

    @property
    def is_open(self) -> bool:
        """Whether it opened and nothing has succeeded since."""
        return self._breaker.state is not State.CLOSED

    def counters(self) -> dict[str, int]:
        """Failures in a row, and how often it opened."""
        breaker = self._breaker
        return {"failures_in_a_row": breaker.failures_in_a_row, "opened": breaker.opened}
