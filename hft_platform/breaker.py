"""Circuit breaker: after several failures in a row, stop asking for a while.

Why: a server that is down is not helped by being asked, and whoever waits for each timeout does
nothing else meanwhile. The store's loader and the broker's order adapter have one each.

Invariants:
1. `TABLE` says for every state and event what comes next; there is nothing beside it.
2. CLOSED asks always, OPEN never, HALF_OPEN lets one statement through and waits for its outcome.
3. Time comes from the clock that is given, in its unit; it never goes back.

A refusal is an answer, so it is a success here. Operator's pages: `docs/store.md`,
`docs/execution.md`.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass


class State(enum.Enum):
    """Whether it is asked."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Event(enum.Enum):
    """A failure below or at the limit, an answer, a question within or after the pause."""

    FAILED = "failed"
    FAILED_TOO_OFTEN = "failed_too_often"
    ANSWERED = "answered"
    ASKED_TOO_EARLY = "asked_too_early"
    ASKED = "asked"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table.

    Attributes
    ----------
    after : State
        State afterwards.
    is_let_through : bool
        Whether a question may be asked; without meaning for outcomes.
    """

    after: State
    is_let_through: bool = False


TABLE: Mapping[tuple[State, Event], Row] = {
    (State.CLOSED, Event.ASKED): Row(State.CLOSED, True),
    (State.CLOSED, Event.ASKED_TOO_EARLY): Row(State.CLOSED, True),
    (State.CLOSED, Event.ANSWERED): Row(State.CLOSED),
    (State.CLOSED, Event.FAILED): Row(State.CLOSED),
    (State.CLOSED, Event.FAILED_TOO_OFTEN): Row(State.OPEN),
    (State.OPEN, Event.ASKED): Row(State.HALF_OPEN, True),
    (State.OPEN, Event.ASKED_TOO_EARLY): Row(State.OPEN, False),
    # Outcomes of what was asked before it opened.
    (State.OPEN, Event.ANSWERED): Row(State.CLOSED),
    (State.OPEN, Event.FAILED): Row(State.OPEN),
    (State.OPEN, Event.FAILED_TOO_OFTEN): Row(State.OPEN),
    # A probe is out; after another pause without its outcome (its caller died) the next may try.
    (State.HALF_OPEN, Event.ASKED): Row(State.HALF_OPEN, True),
    (State.HALF_OPEN, Event.ASKED_TOO_EARLY): Row(State.HALF_OPEN, False),
    (State.HALF_OPEN, Event.ANSWERED): Row(State.CLOSED),
    (State.HALF_OPEN, Event.FAILED): Row(State.OPEN),
    (State.HALF_OPEN, Event.FAILED_TOO_OFTEN): Row(State.OPEN),
}


class Breaker:
    """State, counts and time of one breaker. Safe to use from several threads.

    Parameters
    ----------
    failures_max : int
        Failures in a row that open it, above 0.
    pause : float
        Time before it is asked again.
    clock : callable
        Monotonic, in the unit of the pause.
    """

    def __init__(self, *, failures_max: int, pause: float, clock: Callable[[], float]) -> None:
        self._failures_max = failures_max
        self._pause = pause
        self._clock = clock
        self._lock = threading.Lock()
        self._since = clock()
        self.state = State.CLOSED
        self.failures_in_a_row = 0
        self.opened = 0
        self.refused = 0

    @property
    def is_open(self) -> bool:
        """True while it is not asked."""
        return self.state is State.OPEN

    def ask(self) -> float:
        """Ask for permission.

        Returns
        -------
        float
            0 when it may be asked, else the time until it may be.
        """
        with self._lock:
            left = self._since + self._pause - self._clock()
            row = self._step(Event.ASKED if left <= 0 else Event.ASKED_TOO_EARLY)
            if row.is_let_through:
                if self.state is State.HALF_OPEN:
                    self._since = self._clock()
                return 0.0
            self.refused += 1
            return left

    def answered(self) -> None:
        """Note an answer, be it a refusal."""
        with self._lock:
            self.failures_in_a_row = 0
            self._step(Event.ANSWERED)

    def failed(self) -> None:
        """Note that no answer came."""
        with self._lock:
            self.failures_in_a_row += 1
            is_too_often = self.failures_in_a_row >= self._failures_max
            self._step(Event.FAILED_TOO_OFTEN if is_too_often else Event.FAILED)

    def _step(self, event: Event) -> Row:
        row = TABLE[self.state, event]
        if row.after is State.OPEN and self.state is not State.OPEN:
            self._since = self._clock()
            self.opened += 1
        self.state = row.after
        return row
