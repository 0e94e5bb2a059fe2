"""Circuit breaker: every state and event, and the sequences that matter, on a clock of ours."""

from __future__ import annotations

import itertools
import random

import pytest

from hft_platform.breaker import TABLE, Breaker, Event, State

FAILURES_MAX = 3
PAUSE = 10.0


class Clock:
    """Seconds that move when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _breaker(clock: Clock) -> Breaker:
    return Breaker(failures_max=FAILURES_MAX, pause=PAUSE, clock=clock)


def test_the_table_says_what_follows_from_every_state_and_event() -> None:
    assert set(TABLE) == set(itertools.product(State, Event))
    asked = {Event.ASKED, Event.ASKED_TOO_EARLY}
    for (state, event), row in TABLE.items():
        if event is Event.ANSWERED:
            assert row.after is State.CLOSED, "an answer always closes"
        if event is Event.FAILED_TOO_OFTEN:
            assert row.after is State.OPEN
        if event in asked:
            assert row.is_let_through == (event is Event.ASKED or state is State.CLOSED)
        if state is State.CLOSED and event in asked:
            assert row.after is State.CLOSED


def test_it_opens_at_the_limit_asks_once_after_the_pause_and_closes_on_an_answer() -> None:
    clock = Clock()
    breaker = _breaker(clock)
    for _ in range(FAILURES_MAX - 1):
        assert breaker.ask() == 0.0
        breaker.failed()
    breaker.answered()
    for _ in range(FAILURES_MAX):
        assert breaker.ask() == 0.0, "an answer in between starts the count again"
        breaker.failed()
    assert breaker.state is State.OPEN
    assert breaker.ask() == PAUSE
    clock.now += PAUSE - 1.0
    assert breaker.ask() == pytest.approx(1.0)
    clock.now += 1.0
    assert breaker.ask() == 0.0
    assert breaker.ask() == PAUSE, "one probe at a time"
    breaker.failed()
    assert breaker.state is State.OPEN
    assert breaker.ask() == PAUSE, "a failed probe starts the pause again"
    clock.now += PAUSE
    assert breaker.ask() == 0.0
    breaker.answered()
    assert (breaker.state, breaker.ask(), breaker.opened) == (State.CLOSED, 0.0, 2)
    assert breaker.refused == 4


def test_a_probe_whose_outcome_never_came_does_not_keep_it_half_open() -> None:
    clock = Clock()
    breaker = _breaker(clock)
    for _ in range(FAILURES_MAX):
        breaker.failed()
    clock.now += PAUSE
    assert breaker.ask() == 0.0
    clock.now += PAUSE
    assert breaker.ask() == 0.0


def test_whatever_happens_it_asks_again_within_a_pause_and_never_twice_while_open() -> None:
    draw = random.Random(1)
    for _ in range(200):
        clock = Clock()
        breaker = _breaker(clock)
        for _ in range(60):
            draw.choice((breaker.ask, breaker.answered, breaker.failed))()
            clock.now += draw.choice((0.0, 1.0, PAUSE / 2))
            left = breaker.ask()
            assert 0.0 <= left <= PAUSE
            if left:
                clock.now += left
                assert breaker.ask() == 0.0
