"""The takeover protocol, in every state that it can reach, and broken ones beside it."""

from __future__ import annotations

from functools import lru_cache

import pytest

from hft_platform.drills.takeover_model import Found, Rules, World, check, steps

PLATFORM = (
    Rules(),
    Rules(is_delay_bounded=True),
    Rules(lock="lease"),
    Rules(lock="lease", is_delay_bounded=True),
)


@lru_cache
def _check(rules: Rules) -> Found:
    return check(rules)


def _print(title: str, trace: tuple[str, ...]) -> None:
    print(f"\n{title}:")  # the trace is what a person wants to read
    for number, step in enumerate(trace, 1):
        print(f"  {number:2} {step}")


@pytest.mark.parametrize("rules", PLATFORM, ids=str)
def test_no_schedule_sends_an_intent_twice(rules: Rules) -> None:
    found = _check(rules)
    assert found.duplicate == ()
    assert found.double_order == ()
    assert found.states > 1_000, "crashes, pauses and drops were looked at"


@pytest.mark.parametrize("rules", PLATFORM, ids=str)
def test_what_is_open_can_always_be_resolved(rules: Rules) -> None:
    assert _check(rules).stuck == ()


def test_with_a_file_lock_and_the_wait_only_its_holder_sends_and_no_abandoned_order_lives() -> None:
    found = _check(Rules(is_delay_bounded=True))
    assert found.usurper == ()
    assert found.lost_order == ()


def test_a_request_later_than_the_wait_makes_an_order_of_an_abandoned_intent() -> None:
    """Why the open-order check never ends: such an order is found later and adopted (`stuck`)."""
    found = _check(Rules())
    assert found.lost_order != ()
    assert "arrives" not in found.lost_order[-1]
    assert found.stuck == ()


def test_a_lease_leaves_the_pause_between_check_and_call() -> None:
    """The residual risk of two hosts: a late call, never a second one."""
    found = _check(Rules(lock="lease", is_delay_bounded=True))
    assert found.usurper != ()
    assert any("the lease" in step and "ends" in step for step in found.usurper)
    assert found.duplicate == ()


@pytest.mark.parametrize(
    "rules",
    [
        Rules(remembers_in_journal=False),
        Rules(resends=True),
        Rules(writes_first=False),
        Rules(lock="lease", checks_fence=False, is_journal_fenced=False),
    ],
    ids=["memory-only dedup", "resend on not found", "send before the journal", "no fence at all"],
)
def test_a_broken_protocol_is_caught(rules: Rules) -> None:
    found = _check(rules)
    _print(f"duplicate under {rules}", found.double_order)
    assert found.duplicate != ()
    assert found.double_order != ()
    # A trace is a path of the model, not a story.
    world = World(submissions=rules.submissions)
    for step in found.double_order:
        world = dict(steps(world, rules))[step]
    assert world.orders == 2


@pytest.mark.parametrize(
    "rules",
    [
        Rules(lock="lease", checks_fence=False),
        Rules(lock="lease", is_journal_fenced=False),
    ],
    ids=["fenced journal alone", "check before the call alone"],
)
def test_each_of_the_two_fences_of_a_lease_is_enough(rules: Rules) -> None:
    assert _check(rules).duplicate == ()


def test_resending_needs_no_late_request_to_send_twice() -> None:
    """A lost request is sent again; that it was not at the broker is luck."""
    found = _check(Rules(resends=True, is_delay_bounded=True))
    assert found.duplicate != ()
    assert found.double_order == ()


def test_silence_taken_for_an_answer_loses_an_order() -> None:
    """A failed question is not "there is nothing"."""
    found = _check(Rules(is_delay_bounded=True, takes_silence_for_none=True))
    _print("order of an abandoned intent", found.lost_order)
    assert found.lost_order != ()
