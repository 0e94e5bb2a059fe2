"""CallBreaker: stops sending what opens while the broker fails.

Why: every order whose call fails is exposure that nobody knows about. After a few of them the next
one must not be sent, but what reduces risk must still be tried.

Invariants:
1. It opens after `failures_max` failures in a row and never blocks an exit or a cancel: whoever
   asks decides that by not asking.
2. An open breaker lets one call through once `open_ns` have passed; its failure opens it again for
   as long, its success closes it.
3. A refusal by the broker is an answer, so it is a success here; a call of unknown outcome, and
   one that could not reach the broker, are failures.

It has no clock. Operator's page: `docs/execution.md`.
"""

from __future__ import annotations

import threading

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
    """Counts failures in a row; any thread may ask.

    Parameters
    ----------
    failures_max : int
        Failures in a row that open it.
    open_ns : int
        How long it stays open before it tries again.
    """

    def __init__(self, *, failures_max: int, open_ns: int) -> None:
        self._failures_max = failures_max
        self._open_ns = open_ns
        self._lock = threading.Lock()
        self._failures = 0
        self._opened_ns: int | None = None
        self._probe_ns: int | None = None
        self._opened_count = 0

    def allows(self, now_ns: int) -> bool:
        """Whether something that opens may be sent; the one call that tries again counts as sent.

        Parameters
        ----------
        now_ns : int
            The time.
        """
        with self._lock:
            if self._opened_ns is None:
                return True
            since_ns = self._opened_ns if self._probe_ns is None else self._probe_ns
            if now_ns - since_ns < self._open_ns:
                return False
            self._probe_ns = now_ns
            return True

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
            if not is_failure:
                self._failures, self._opened_ns, self._probe_ns = 0, None, None
                return
            self._failures += 1
            if self._opened_ns is not None or self._failures >= self._failures_max:
                self._opened_count += self._opened_ns is None
                self._opened_ns, self._probe_ns = now_ns, None

    @property
    def is_open(self) -> bool:
        """Whether it opened and nothing has succeeded since."""
        with self._lock:
            return self._opened_ns is not None

    def counters(self) -> dict[str, int]:
        """Failures in a row, and how often it opened."""
        with self._lock:
            return {"failures_in_a_row": self._failures, "opened": self._opened_count}
