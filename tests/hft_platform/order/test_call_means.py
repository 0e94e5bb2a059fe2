"""Budget, breaker and fences: what closes always finds means that what opens cannot use up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.order.broker import CallResult, Outcome
from hft_platform.order.call_breaker import CallBreaker
from hft_platform.order.call_budget import ORDER_WINDOW_NS, CallBudget, CallKind
from hft_platform.order.fence import Fences, LatchFence
from hft_platform.services import latch

CASES = int(os.environ.get("HFT_FUZZ_CASES", "60"))
SECOND = 1_000_000_000


def taken(budget: CallBudget, kind: CallKind, now_ns: int = 0) -> int:
    count = 0
    while budget.take(kind, now_ns):
        count += 1
    return count


def test_openings_leave_a_reserve_and_questions_leave_half_of_it() -> None:
    budget = CallBudget(soft_max=180, hard_max=240)
    assert taken(budget, CallKind.OPENING) == 180
    assert taken(budget, CallKind.QUESTION) == 30
    assert taken(budget, CallKind.EXIT) == 30
    assert not budget.take(CallKind.CANCEL, 0)
    assert budget.counters()["cancel_refused"] == 1
    assert not budget.take(CallKind.CANCEL, ORDER_WINDOW_NS - 1)
    assert taken(budget, CallKind.CANCEL, ORDER_WINDOW_NS) == 240


@pytest.mark.parametrize(("soft", "hard"), [(0, 10), (10, 10), (11, 10), (-1, 5)])
def test_a_budget_without_a_reserve_is_refused(soft: int, hard: int) -> None:
    with pytest.raises(PlatformError) as refused:
        CallBudget(soft_max=soft, hard_max=hard)
    assert refused.value.code == ReasonCode.SETTINGS_INVALID


@settings(max_examples=CASES, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(CallKind)), st.integers(-3, 20)), max_size=120))
def test_no_window_ever_holds_more_than_the_hard_limit(steps: list[tuple[CallKind, int]]) -> None:
    """Invariants 1 and 3, with a clock that also goes back."""
    budget = CallBudget(soft_max=5, hard_max=8, window_ns=10)
    now_ns, given_out = 100, []
    for kind, step in steps:
        now_ns += step
        if budget.take(kind, now_ns):
            given_out.append(max(now_ns, given_out[-1]) if given_out else now_ns)
    for first, time_ns in enumerate(given_out):
        assert sum(time_ns <= other < time_ns + 10 for other in given_out[first:]) <= 8


def failed(code: ReasonCode = ReasonCode.BROKER_TIMEOUT) -> CallResult:
    return CallResult(Outcome.AMBIGUOUS, code=code)


def test_a_breaker_opens_tries_one_call_and_closes_by_its_success() -> None:
    breaker = CallBreaker(failures_max=3, open_ns=60)
    for now_ns in (1, 2):
        breaker.note(failed(), now_ns)
        assert breaker.allows(now_ns)
    breaker.note(CallResult(Outcome.REJECTED, code=ReasonCode.BROKER_UNREACHABLE), 3)
    assert not breaker.allows(62)
    assert breaker.allows(63), "one call tries again"
    assert not breaker.allows(64), "and only one"
    breaker.note(failed(), 65)
    assert not breaker.allows(124)
    assert breaker.allows(125)
    breaker.note(CallResult(Outcome.SENT), 126)
    assert breaker.allows(127)
    assert not breaker.is_open
    assert breaker.counters() == {"failures_in_a_row": 0, "opened": 2}


def test_a_refusal_by_the_broker_is_an_answer() -> None:
    breaker = CallBreaker(failures_max=2, open_ns=60)
    breaker.note(failed(), 1)
    breaker.note(CallResult(Outcome.REJECTED, code=ReasonCode.BROKER_REJECTED), 2)
    breaker.note(failed(), 3)
    assert not breaker.is_open


class Refusing:
    def __init__(self, code: ReasonCode) -> None:
        self._code = code

    def check(self) -> None:
        raise PlatformError(self._code, "no")


def test_of_several_refusals_the_one_that_forbids_most_is_told(tmp_path: Path) -> None:
    halt, fenced = LatchFence(tmp_path), Refusing(ReasonCode.GATEWAY_FENCED)
    Fences([halt]).check()
    latch.halt(tmp_path, who="test", why="a test")
    for fences, code in [
        ([halt], ReasonCode.KILL_SWITCH_ON),
        ([halt, fenced], ReasonCode.GATEWAY_FENCED),
        ([fenced, halt], ReasonCode.GATEWAY_FENCED),
    ]:
        with pytest.raises(PlatformError) as refused:
            Fences(fences).check()
        assert refused.value.code == code
    latch.latch_path(tmp_path).write_text("damaged")
    with pytest.raises(PlatformError):
        halt.check()
