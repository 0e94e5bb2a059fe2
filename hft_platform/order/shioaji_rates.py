"""Counts the SDK's calls against the broker's published rates, as the last door before each call.

Why: beyond its rates the broker suspends the account for a minute, cancels included. The budget in
front of the adapter plans; but one question can be several calls, which only the adapter knows.

Invariants:
1. Within any window no more calls are let through than its limit.
2. A refused call counts nothing and was not made.

It waits for nothing and has no clock. Operator's page: `docs/shioaji.md`.
"""

from __future__ import annotations

import threading
from collections import deque

from hft_platform.errors import PlatformError, ReasonCode

ORDER_WINDOW_NS = 10_000_000_000
ACCOUNT_WINDOW_NS = 5_000_000_000


class CallRate:
    """A limit of calls within a sliding window; any thread may ask.

    Parameters
    ----------
    call_count_max : int
        Calls within the window.
    window_ns : int
        Its length.
    """

    def __init__(self, call_count_max: int, window_ns: int) -> None:
        self._lock = threading.Lock()
        self._times: deque[int] = deque(maxlen=call_count_max)
        self._window_ns = window_ns

    def take(self, now_ns: int) -> None:
        """Count a call that is about to be made.

        Raises
        ------
        PlatformError
            BROKER_RATE_SPENT; the call must not be made.
        """
        with self._lock:
            full = len(self._times) == self._times.maxlen
            if full and now_ns - self._times[0] < self._window_ns:
                raise PlatformError(
                    ReasonCode.BROKER_RATE_SPENT,
                    f"{self._times.maxlen} calls within {self._window_ns // 1_000_000_000} s",
                )
            self._times.append(now_ns)
