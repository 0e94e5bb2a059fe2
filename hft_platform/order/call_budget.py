"""CallBudget: how many broker calls a window has left, and for whom.

Why: a broker that is called too often suspends the account for a minute, cancels included. What
opens must never use up what closes.

Invariants:
1. Within any window no more than `hard_max` calls are given out, of whatever kind.
2. Openings stop at `soft_max`, questions half way between soft and hard; exits and cancels may use
   all of it. So a storm of questions leaves half of the reserve to cancels.
3. What was refused costs nothing; a clock that goes back gives nothing back early.

It knows no broker and has no clock. Operator's page: `docs/execution.md`.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from enum import StrEnum

from hft_platform.errors import PlatformError, ReasonCode

ORDER_WINDOW_NS = 10_000_000_000


class CallKind(StrEnum):
    """Whom a call is for."""

    OPENING = "opening"
    EXIT = "exit"
    CANCEL = "cancel"
    QUESTION = "question"


class CallBudget:
    """Calls of a sliding window; any thread may take.

    Parameters
    ----------
    soft_max : int
        Calls after which nothing opens any more.
    hard_max : int
        Calls in all, above `soft_max`: the difference is the reserve.
    window_ns : int, optional
        Length of the window.

    Raises
    ------
    PlatformError
        SETTINGS_INVALID when the numbers leave no reserve.
    """

    def __init__(self, *, soft_max: int, hard_max: int, window_ns: int = ORDER_WINDOW_NS) -> None:
        if not 0 < soft_max < hard_max or window_ns <= 0:
            raise PlatformError(
                ReasonCode.SETTINGS_INVALID,
                f"call budget: soft {soft_max}, hard {hard_max}, window {window_ns} ns; allowed is"
                " 0 < soft < hard, and a window above 0",
            )
        self._max = {
            CallKind.OPENING: soft_max,
            CallKind.QUESTION: (soft_max + hard_max + 1) // 2,
            CallKind.EXIT: hard_max,
            CallKind.CANCEL: hard_max,
        }
        self._window_ns = window_ns
        self._times: deque[int] = deque(maxlen=hard_max)
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    def take(self, kind: CallKind, now_ns: int) -> bool:
        """Spend one call.

        Parameters
        ----------
        kind : CallKind
            Whom it is for.
        now_ns : int
            The time.

        Returns
        -------
        bool
            False when nothing is left for this kind; then the call must not be made.
        """
        with self._lock:
            self._forget(now_ns)
            if len(self._times) >= self._max[kind]:
                self._taken[f"{kind}_refused"] += 1
                return False
            # A clock that went back makes this call as old as the newest before it, not older.
            self._times.append(max(now_ns, self._times[-1]) if self._times else now_ns)
            self._taken[kind] += 1
            return True

    def take_question(self, now_ns: int) -> bool:
        """Spend one call on a question.

        Parameters
        ----------
        now_ns : int
            The time.
        """
        return self.take(CallKind.QUESTION, now_ns)

    def used(self, now_ns: int) -> int:
        """Calls of the window that ends now.

        Parameters
        ----------
        now_ns : int
            The time.
        """
        with self._lock:
            self._forget(now_ns)
            return len(self._times)

    def counters(self) -> dict[str, int]:
        """Calls given out and refused so far, by kind."""
        with self._lock:
            return dict(sorted(self._taken.items()))

    def _forget(self, now_ns: int) -> None:
        while self._times and now_ns - self._times[0] >= self._window_ns:
            self._times.popleft()
