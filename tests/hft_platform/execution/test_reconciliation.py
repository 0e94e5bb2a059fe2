"""Reconciliation from outside: what the broker holds, what was lost, and what comes of it."""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.execution.order_check import synthetic_fill_id
from hft_platform.execution.order_ids import SYNTHETIC_PREFIX
from hft_platform.execution.reconciliation import ReconciliationService
from hft_platform.execution.reconciliation_report import (
    ADVICE,
    FILE_NAME,
    FindingKind,
    ReconciliationReport,
)
from hft_platform.order.broker import OrderStatus, OrderTicket
from tests.hft_platform.execution.reconciliation_model import (
    INSTRUMENT_ID,
    LOT,
    OPEN,
    SECOND,
    SYMBOL,
    World,
    seeds,
    settings,
)

CASES = int(os.environ.get("HFT_FUZZ_CASES", "60"))


# Unknown outcomes


def test_an_order_that_arrived_although_its_call_failed_is_adopted_with_its_fills() -> None:
    world = World()
    assert world.ready()
    ticket = world.place("cut")
    world.fill(ticket, is_told=False)
    world.run(4)
    assert world.state(ticket) == "working"
    assert world.session.position == LOT
    assert world.session.fill_ids == ["Xt00001-0"], "the broker's own name of the fill"
    resolved = world.service.report().resolutions
    assert [(row.order_id, row.outcome) for row in resolved] == [(1, "adopted")]
    routes = [(row["route_kind"], row["argument"]) for row in world.session.rows("Route")]
    assert routes == [(5, 1)]
    assert world.broker.arrived == {"t00001": 1}


@pytest.mark.parametrize(
    ("status", "state"),
    [("canceled", "canceled"), ("rejected", "rejected"), ("expired", "expired")],
)
def test_an_unknown_order_that_ended_at_the_broker_ends_here(status: str, state: str) -> None:
    world = World()
    assert world.ready()
    ticket = world.place("cut")
    world.broker.set(ticket.tag, status=OrderStatus(status))
    world.run(4)
    assert world.state(ticket) == state


def test_a_filled_order_whose_every_event_was_lost_is_filled() -> None:
    world = World()
    assert world.ready()
    ticket = world.place("cut", side=-1)
    world.fill(ticket, is_told=False)
    world.fill(ticket, is_told=False)
    world.run(4)
    assert world.state(ticket) == "filled"
    assert world.session.position == -2 * LOT
    assert not world.session.odd["over_fill"]


def test_a_lost_order_is_given_up_only_after_the_quarantine_and_a_second_answer() -> None:
    world = World()
    assert world.ready()
    ticket = world.place("lost")
    called_ns = world.clock()
    while world.state(ticket) == "unknown":
        asked = world.broker.asked["positions"]
        world.run(1)
        assert world.clock() - called_ns < 60 * SECOND
    # 10 s after the call the first answer counts, the second one 5 s later.
    assert world.clock() - called_ns >= 15 * SECOND
    assert world.state(ticket) == "rejected"
    (row,) = world.session.rows("Broker")[1:]
    assert (row["event_kind"], row["reason_code"]) == (2, ReasonCode.INTENT_ABANDONED)
    assert [(row["route_kind"], row["argument"]) for row in world.session.rows("Route")] == [(5, 2)]
    assert world.broker.arrived == {}, "it was never sent again"
    assert world.broker.asked["positions"] > asked, "the positions tell whether that was right"
    assert [row.outcome for row in world.service.report().resolutions] == ["abandoned"]


def test_a_request_that_arrives_late_within_the_quarantine_is_adopted() -> None:
    world = World()
    assert world.ready()
    ticket = world.place("late:9")
    world.run(30)
    assert world.state(ticket) == "working"
    assert world.broker.arrived == {ticket.tag: 1}


def test_a_failed_question_is_not_not_found() -> None:
    world = World()
    assert world.ready()
    ticket = world.place("lost")
    world.broker.failing["orders"] = 10**6
    world.run(120)
    assert world.state(ticket) == "unknown", "nobody has said that it is not there"
    assert "orders_unanswered" in world.kinds()
    world.broker.failing.clear()
    world.run(4)
    assert world.state(ticket) == "unknown", "one answer is not two"
    world.run(6)
    assert world.state(ticket) == "rejected"


def test_an_order_still_in_our_queue_is_never_given_up() -> None:
    world = World()
    assert world.ready()
    ticket = world.decide()
    world.run(300)
    assert world.state(ticket) == "pending_new"
    assert world.kinds() == ["order_unanswered"]
    # Were it given up now, this call would place an order that nobody counts.
    world.send(ticket)
    world.run(30)
    assert world.state(ticket) == "working"


def test_an_order_sent_and_never_heard_of_again_is_doubted_before_it_is_given_up() -> None:
    world = World()
    assert world.ready()
    ticket = world.place("silent")
    world.broker.hidden.add(ticket.tag)
    world.run(18)
    assert world.state(ticket) == "unknown"
    world.run(20)
    assert world.state(ticket) == "rejected"
    # It was there all the time, and the broker names it again.
    world.broker.hidden.clear()
    world.run(30)
    assert world.broker.canceled == ["B00000"], "nobody wants it any more"
    assert world.service.counters()["cancels_of_done"] == 1


def test_an_order_at_the_broker_and_not_at_the_exchange_counts_as_there() -> None:
    world = World()
    assert world.ready()
    ticket = world.place("cut")
    world.broker.set(ticket.tag, status=OrderStatus.PENDING)
    world.run(8)
    assert world.state(ticket) == "unknown"
    world.run(8)
    assert world.state(ticket) == "working"


# Cancels


def place_and_cancel(world: World) -> OrderTicket:
    """An order whose cancel is on its way."""
    assert world.ready()
    ticket = world.place()
    world.run(20)
    world.session.cancel(ticket.order_id)
    assert world.state(ticket) == "pending_cancel"
    return ticket


def test_a_cancel_without_answer_ends_with_the_brokers_word_only() -> None:
    world = World()
    ticket = place_and_cancel(world)
    world.broker.hidden.add(ticket.tag)
    world.run(300)
    assert world.state(ticket) == "pending_cancel", "never guessed"
    assert world.session.rows("Broker") == [], "nor doubted"
    assert set(world.kinds()) <= {"order_missing", "cancel_unanswered"}
    world.broker.hidden.clear()
    world.broker.set(ticket.tag, status=OrderStatus.CANCELED)
    world.run(20)
    assert world.state(ticket) == "canceled"


def test_a_fill_that_overtook_the_cancel_is_found() -> None:
    world = World()
    ticket = place_and_cancel(world)
    world.fill(ticket, is_told=False)
    world.broker.set(ticket.tag, status=OrderStatus.CANCELED)
    world.run(20)
    assert world.state(ticket) == "canceled"
    assert world.session.position == LOT


def test_a_lost_cancel_may_be_asked_for_again_once_the_order_is_seen_to_work() -> None:
    world = World()
    ticket = place_and_cancel(world)
    world.run(9)
    assert world.state(ticket) == "pending_cancel"
    world.run(12)
    assert world.state(ticket) == "working"
    assert world.broker.canceled == [], "the engine decides it, not reconciliation"


def test_a_cancel_that_still_waits_for_the_dispatcher_is_not_lost() -> None:
    world = World()
    ticket = place_and_cancel(world)
    world.session.queued = 1
    world.run(60)
    assert world.state(ticket) == "pending_cancel"
    world.session.queued = 0
    world.run(30)
    assert world.state(ticket) == "working"


# Open orders


def test_lost_fills_and_ends_are_found_by_the_poll() -> None:
    world = World()
    assert world.ready()
    tickets = [world.place() for _ in range(3)]
    world.run(10)
    world.fill(tickets[0], is_told=False)
    world.broker.set(tickets[1].tag, status=OrderStatus.CANCELED)
    world.broker.set(tickets[2].tag, status=OrderStatus.REJECTED, code=401)
    world.run(20)
    assert [world.state(row) for row in tickets] == ["working", "canceled", "canceled"]
    assert world.session.position == LOT
    assert world.kinds() == []


def test_a_lost_fill_of_an_order_that_is_done_here_is_found() -> None:
    world = World()
    assert world.ready()
    ticket = world.place()
    world.run(10)
    world.fill(ticket, is_told=False)
    world.session.event(ticket.order_id, "canceled")
    world.broker.set(ticket.tag, status=OrderStatus.CANCELED)
    world.run(20)
    assert world.session.position == LOT


def test_what_changed_within_the_guard_is_not_judged() -> None:
    world = World()
    assert world.ready()
    world.run(14)
    ticket = world.place("silent")
    world.run(4)
    assert world.broker.asked["orders"] > 1, "it was asked, and could have been judged"
    assert world.state(ticket) == "pending_new", "its callback may be on its way"
    world.run(6)
    assert world.state(ticket) == "working"


def test_what_moves_while_the_broker_is_asked_is_judged_by_the_next_answer() -> None:
    world = World()
    assert world.ready()
    ticket = world.place()
    world.run(10)

    def overtake(name: str) -> None:
        # The answer is made; then the order is filled, and its callback is faster than the answer.
        if name == "orders" and not world.broker.book[ticket.tag].fills:
            world.fill(ticket)

    world.broker.on_answer = overtake
    world.run(40)
    assert world.session.fill_ids == ["Xt00001-0"]
    assert world.kinds() == []


def test_fills_that_the_broker_does_not_name_get_one_name_for_ever() -> None:
    names = []
    for crashes in (False, True):
        world = World()
        world.broker.names_fills = False
        assert world.ready()
        ticket = world.place(qty=5 * LOT)
        world.run(10)
        world.fill(ticket, is_told=False)
        world.run(30)
        if crashes:
            world.crash()
            assert world.ready()
        world.fill(ticket, 2 * LOT, is_told=False)
        world.run(30)
        assert world.session.position == 3 * LOT
        names.append(world.session.fill_ids)
    expected = [synthetic_fill_id(1, LOT), synthetic_fill_id(1, 3 * LOT)]
    assert names == [expected, expected]


def test_an_execution_that_we_named_is_not_counted_again_under_its_own_name() -> None:
    world = World()
    world.broker.names_fills = False
    assert world.ready()
    ticket = world.place(qty=5 * LOT)
    world.run(10)
    world.fill(ticket, is_told=False)
    world.run(30)
    assert world.session.fill_ids == [synthetic_fill_id(1, LOT)]
    # Now the broker names both; which of them is ours cannot be told.
    world.broker.names_fills = True
    world.fill(ticket, is_told=False)
    world.run(30)
    assert world.session.fill_ids == [synthetic_fill_id(1, LOT), synthetic_fill_id(1, 2 * LOT)]
    assert world.session.position == 2 * LOT


def test_an_end_comes_behind_the_fills_before_it_also_where_they_have_no_names() -> None:
    world = World()
    world.broker.names_fills = False
    assert world.ready()
    ticket = world.place()
    world.run(10)
    world.fill(ticket, is_told=False)
    world.broker.set(ticket.tag, status=OrderStatus.CANCELED)
    world.run(40)
    events = [row["event"] for kind, row in world.session.log if kind == "event"]
    assert events == ["working", "fill", "canceled"]


def test_an_order_that_one_answer_forgets_now_and_then_is_not_doubted() -> None:
    world = World()
    assert world.ready()
    ticket = world.place()
    world.run(20)

    def blink(name: str) -> None:
        if name == "orders":
            world.broker.hidden ^= {ticket.tag}

    world.broker.on_answer = blink
    world.run(120)
    assert world.broker.asked["orders"] > 10
    assert world.session.rows("Broker") == []
    assert world.state(ticket) == "working"


def test_what_cannot_be_canceled_is_left_to_a_person_after_three_requests() -> None:
    world = World()
    assert world.ready()
    ticket = world.place()
    world.run(10)
    world.session.event(ticket.order_id, "canceled")
    cancel, asked = world.broker.cancel, []

    def deaf(*arguments: Any) -> Any:
        asked.append(world.clock())
        status = world.broker.book[ticket.tag].status
        result = cancel(*arguments)
        world.broker.set(ticket.tag, status=status)
        return result

    world.broker.cancel = deaf  # type: ignore[method-assign]
    world.run(120)
    assert len(asked) == 3
    assert min(late - soon for soon, late in itertools.pairwise(asked)) >= 10 * SECOND
    assert world.kinds() == ["order_revived"]
    assert "by hand" in world.service.report().render()


def test_names_of_fills_are_distinct_and_fit_the_record() -> None:
    generator = random.Random(5)
    pairs = {(generator.getrandbits(64), generator.getrandbits(63)) for _ in range(2_000)}
    pairs |= {(2**64 - 1, 2**63 - 1), (0, 0), (1, 62), (62, 1)}
    names = {synthetic_fill_id(*pair) for pair in pairs}
    assert len(names) == len(pairs)
    assert all(len(name) <= 32 and name.isascii() for name in names)


def test_a_fill_that_is_only_late_is_not_named_by_us() -> None:
    world = World()
    assert world.ready()
    ticket = world.place()
    world.run(16)
    world.broker.names_fills = False
    world.fill(ticket, is_told=False)
    world.run(4)
    assert world.session.fill_ids == []
    world.broker.names_fills = True
    world.run(20)
    assert world.session.fill_ids == ["Xt00001-0"]


def test_the_broker_that_counts_less_than_we_do_changes_nothing_and_is_reported() -> None:
    world = World()
    assert world.ready()
    ticket = world.place()
    world.fill(ticket)
    world.run(10)
    world.broker.set(ticket.tag, filled_qty=0, fills=())
    world.run(40)
    assert world.session.position == LOT
    assert "order_ahead" in world.kinds()


def test_an_order_made_smaller_at_the_broker_ends_when_it_is_filled() -> None:
    world = World()
    assert world.ready()
    ticket = world.place()
    world.run(10)
    world.fill(ticket)
    world.broker.set(ticket.tag, qty=LOT, status=OrderStatus.FILLED)
    world.run(60)
    assert world.state(ticket) == "canceled"
    assert world.session.position == LOT


# Orders that are none of ours


def test_an_external_order_is_reported_and_left_alone() -> None:
    world = World()
    assert world.ready()
    world.broker.arrive(OrderTicket(0, "", SYMBOL, 1, 1, 4 * LOT))
    world.run(40)
    (row,) = world.service.report().findings
    assert (row.kind, row.qty) == (FindingKind.ORDER_EXTERNAL, 4 * LOT)
    assert [row.ids.broker_id for row in world.gateway.strangers] == ["B00000"], "told once"
    assert world.broker.canceled == []
    world.broker.set("", status=OrderStatus.CANCELED)
    world.run(20)
    assert world.kinds() == []


def test_a_second_order_under_one_tag_is_shown_and_changes_nothing_of_ours() -> None:
    world = World()
    assert world.ready()
    ticket = world.place()
    world.broker.arrive(ticket)
    world.run(40)
    (row,) = world.service.report().findings
    assert row.kind == FindingKind.ORDER_EXTERNAL
    assert f"tag {ticket.tag}" in row.text
    assert world.state(ticket) == "working"
    assert world.gateway.strangers == []


@pytest.mark.parametrize("question", ["orders", "positions", "account"])
def test_an_adapter_that_breaks_has_not_answered(question: str) -> None:
    world = World()
    assert world.ready()
    ticket = world.place("lost")

    def broken() -> Any:
        raise KeyError("deal_quantity")

    setattr(world.broker, question, broken)
    world.run(60)
    assert f"{question}_unanswered" in world.kinds()
    assert "deal_quantity" in world.service.report().render()
    assert (world.state(ticket) == "unknown") == (question == "orders")


# Positions


def test_a_manual_trade_degrades_then_halts_and_is_gone_when_adopted() -> None:
    world = World()
    assert world.ready()
    world.broker.manual[SYMBOL] = 3 * LOT
    world.run(40)
    assert world.drifts()[-1:] == [(3 * LOT, 0)], "the first one restricts"
    assert world.drifts().count((3 * LOT, 0)) == 1, "a person has a minute until the third"
    world.run(60)
    assert world.drifts()[-3:] == [(3 * LOT, 0)] * 3, "the third in a row halts"
    answers = [
        row["net_position_qty"] for row in world.session.rows("Account") if row["fields"] == 4
    ]
    assert answers[-1] == 3 * LOT, "the engine needs it to take an adopt"
    (row,) = world.service.report().findings
    assert row.kind == FindingKind.POSITION_DRIFT
    assert "hft-live adopt" in row.next_step
    world.session.external = 3 * LOT
    world.run(10)
    assert world.kinds() == []
    assert world.drifts()[-1] == (0, 0)


def test_one_answer_with_another_position_is_no_drift() -> None:
    world = World()
    assert world.ready()
    world.run(28)
    world.broker.manual[SYMBOL] = LOT
    world.run(4)
    assert world.kinds() == ["position_drift"], "said, as seen once"
    world.broker.manual.clear()
    world.run(60)
    assert world.drifts()
    assert set(world.drifts()) == {(0, 0)}


def test_a_difference_that_an_unknown_order_explains_waits_for_the_order() -> None:
    world = World()
    assert world.ready()
    ticket = world.place("cut")
    world.fill(ticket, 2 * LOT, is_told=False)
    world.broker.hidden.add(ticket.tag)
    world.run(9)
    assert world.drifts() == [] or set(world.drifts()) == {(0, 0)}
    world.broker.hidden.clear()
    world.run(60)
    assert world.session.position == 2 * LOT
    assert set(world.drifts()) == {(0, 0)}


def test_a_difference_that_uncertain_orders_explain_is_no_drift_however_long_that_takes() -> None:
    world = World()
    assert world.ready()
    ticket = world.place("cut")
    world.fill(ticket, 2 * LOT, is_told=False)
    world.broker.failing["orders"] = 10**6
    world.run(120)
    assert "position_drift" not in world.kinds()
    assert set(world.drifts()) <= {(0, 0)}
    # More than the order can explain is a drift all the same.
    world.broker.manual[SYMBOL] = LOT
    world.run(40)
    assert (3 * LOT, 0) in world.drifts()


@pytest.mark.parametrize("qty", [LOT, 2 * LOT])
def test_positions_that_lag_behind_our_fills_are_not_suspected(qty: int) -> None:
    world = World()
    assert world.ready()
    ticket = world.place()
    world.run(27)
    asked = world.broker.asked["positions"]
    world.fill(ticket, qty)
    world.broker.manual[SYMBOL] = -qty
    world.run(4)
    assert world.broker.asked["positions"] > asked
    assert world.kinds() == []


def test_the_age_of_an_answer_counts_from_its_question() -> None:
    world = World()
    assert world.ready()
    world.run(20)

    def slow(name: str) -> None:
        world.clock.now_ns += 3 * SECOND * (name == "positions")

    world.broker.on_answer = slow
    world.run(40)
    # A fill that came while the broker thought about it may be missing in its answer.
    row = [row for row in world.session.rows("Account") if row["fields"] == 4][-1]
    assert row["receive_time_ns"] - row["answer_time_ns"] == 3 * SECOND


def test_an_open_order_that_was_verified_explains_no_difference() -> None:
    world = World()
    assert world.ready()
    world.place()
    world.run(20)
    world.broker.manual[SYMBOL] = LOT
    world.run(120)
    assert (LOT, 0) in world.drifts(), "the broker says of our order that nothing was filled"


def test_a_position_that_cannot_be_asked_for_is_not_flat() -> None:
    world = World()
    assert world.ready()
    ticket = world.place()
    world.fill(ticket)
    world.run(60)
    told = len(world.drifts())
    world.broker.failing["positions"] = 10**6
    world.run(120)
    assert set(world.drifts()[told:]) == {(0, 1)}
    assert "positions_unanswered" in world.kinds()
    world.broker.failing.clear()
    world.run(30)
    assert world.drifts()[-1] == (0, 0)
    assert world.kinds() == []


def test_a_single_failed_question_about_positions_degrades_nothing() -> None:
    world = World()
    assert world.ready()
    world.broker.failing["positions"] = 1
    world.run(120)
    assert (0, 1) not in world.drifts()


def test_positions_in_other_contracts_are_named_and_limit_nothing() -> None:
    world = World()
    world.broker.manual["MXFD6"] = LOT
    assert world.ready()
    assert world.kinds() == ["position_elsewhere"]


def test_money_and_margin_reach_the_engine_at_their_interval() -> None:
    world = World()
    assert world.ready()
    world.run(61)
    money = [row for row in world.session.rows("Account") if row["fields"] == 1]
    assert len(money) in (3, 4)
    assert money[-1]["equity"] == 5_000_000 * LOT
    assert money[-1]["answer_time_ns"] <= money[-1]["receive_time_ns"]
    margins = [row for row in world.session.rows("Account") if row["fields"] == 2]
    assert (margins[-1]["instrument_id"], margins[-1]["margin_per_lot"]) == (
        INSTRUMENT_ID, 200_000 * LOT,
    )  # fmt: skip
    world.broker.equity = None
    count = len(money)
    world.run(60)
    assert len([r for r in world.session.rows("Account") if r["fields"] == 1]) == count


# Startup


def test_a_new_session_that_agrees_is_ready_at_once() -> None:
    world = World()
    readiness = world.service.startup(world.clock())
    assert readiness.is_ready
    assert readiness.reasons == ()


def test_after_a_crash_it_is_ready_only_when_every_order_is_resolved() -> None:
    world = World()
    assert world.ready()
    arrived, lost = world.place("cut"), world.place("lost")
    world.fill(arrived, is_told=False)
    world.crash()
    readiness = world.service.startup(world.clock())
    assert not readiness.is_ready
    assert "order 2" in readiness.reasons[0]
    assert world.state(arrived) == "working", "found at the first answer"
    started_ns = world.clock()
    assert world.ready()
    assert 15 * SECOND <= world.clock() - started_ns <= 25 * SECOND
    assert world.state(lost) == "rejected"
    assert world.session.position == LOT


def test_it_does_not_start_while_the_position_drifts_until_that_is_adopted() -> None:
    world = World()
    world.broker.manual[SYMBOL] = -2 * LOT
    assert not world.ready(within_s=120)
    assert "TXFD6" in world.service.startup(world.clock()).reasons[0]
    assert set(world.drifts()) <= {(0, 0)}, "nothing trades, so there is nothing to halt"
    assert world.service.report().drifts == {SYMBOL: -2 * LOT}
    world.session.external = -2 * LOT
    assert world.ready(within_s=5)


@pytest.mark.parametrize("question", ["orders", "positions"])
def test_it_does_not_start_while_the_broker_does_not_answer(question: str) -> None:
    world = World()
    world.broker.failing[question] = 10**6
    assert not world.ready(within_s=120)
    assert "the script says no" in world.service.startup(world.clock()).reasons[0]
    world.broker.failing.clear()
    assert world.ready(within_s=10)


# Questions


def test_no_question_is_asked_beyond_the_budget_or_faster_than_its_gap() -> None:
    world = World()
    world.budget.left = 7
    for _ in range(5):
        world.place("lost")
    for _ in range(600):
        world.clock.now_ns += SECOND // 10
        world.service.step(world.clock())
    assert sum(world.broker.asked.values()) == 7
    assert world.service.counters()["budget_spent"] > 0
    world.budget.left = 10**6
    before = world.broker.asked.copy()
    for _ in range(600):
        world.clock.now_ns += SECOND // 10
        world.service.step(world.clock())
    spent = world.broker.asked - before
    assert spent["orders"] <= 31
    assert spent["positions"] <= 31


def test_who_is_not_the_leader_asks_nothing_and_resolves_nothing() -> None:
    world = World()
    assert world.ready()
    ticket = world.place("lost")
    asked = world.broker.asked.total()
    world.gate.code = ReasonCode.GATEWAY_FENCED
    world.run(60)
    assert world.broker.asked.total() == asked
    assert world.state(ticket) == "unknown"
    # A halt keeps orders in, not questions.
    world.gate.code = ReasonCode.KILL_SWITCH_ON
    world.run(60)
    assert world.state(ticket) == "rejected"


def test_a_quarantine_below_twice_the_call_timeout_is_refused() -> None:
    world = World()
    for timeout_ns, is_refused in ((5 * SECOND, False), (5 * SECOND + 1, True)):
        arguments: dict[str, Any] = {
            "settings": settings(), "instruments": {},
            "budget": world.budget, "fence": world.gate, "clock_ns": world.clock,
            "call_timeout_ns": timeout_ns,
        }  # fmt: skip
        parts = (world.session, world.broker, world.names, world.gateway)
        if not is_refused:
            ReconciliationService(*parts, **arguments)  # type: ignore[arg-type]
            continue
        with pytest.raises(PlatformError) as caught:
            ReconciliationService(*parts, **arguments)  # type: ignore[arg-type]
        assert caught.value.code == ReasonCode.SETTINGS_INVALID


# Report


def test_the_report_in_the_folder_is_what_stands_and_survives_the_process(tmp_path: Path) -> None:
    world = World()
    world.folder = tmp_path
    world._begin()
    assert world.ready()
    world.place("lost")
    world.broker.manual[SYMBOL] = 3 * LOT
    world.run(9)
    report = ReconciliationReport.read(tmp_path / FILE_NAME)
    assert {row.kind for row in report.findings} == set(map(FindingKind, world.kinds()))
    text = report.render()
    for part in ("ORDER_OUTCOME_UNKNOWN (305) 1", "tag t00001", "asked", "means:", "next:"):
        assert part in text
    world.run(60)
    report = ReconciliationReport.read(tmp_path / FILE_NAME)
    assert "order 1 abandoned" in report.render()
    assert report.counters["abandoned"] == 1
    assert report.as_dict()["findings"][0]["next_step"].startswith("find the cause")


def test_a_report_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    world = World()
    world.folder = tmp_path / "no folder"
    world.folder.write_text("but a file")
    world._begin()
    assert world.ready()
    ticket = world.place("lost")
    world.run(30)
    assert world.state(ticket) == "rejected"
    assert world.service.counters()["reports_not_written"] > 0


def test_every_kind_of_finding_says_what_it_means_and_what_is_next() -> None:
    assert set(ADVICE) == set(FindingKind)
    assert all(row.meaning and row.next_step and int(row.code) for row in ADVICE.values())


# Negative controls: the same worlds with the two classic mistakes


class ResendsWhatIsNotFound(ReconciliationService):
    """The mistake: what is not found is sent again."""

    resend: Any = None

    def _abandon(self, ours: Any, now_ns: int) -> None:
        super()._abandon(ours, now_ns)
        ticket = OrderTicket(ours.order_id, ours.tag, ours.symbol, ours.side, ours.price, ours.qty)
        self._broker.place(ticket)


class TakesSilenceForFlat(ReconciliationService):
    """The mistake: positions that could not be asked for are none."""

    def _ask(self, name: str, question: Any, now_ns: int) -> Any:
        answer = super()._ask(name, question, now_ns)
        return [] if answer is None and name == "positions" else answer


@pytest.mark.parametrize(
    ("service_type", "most"), [(ReconciliationService, 1), (ResendsWhatIsNotFound, 2)]
)
def test_sending_again_what_was_not_found_makes_two_orders(
    service_type: type[ReconciliationService], most: int
) -> None:
    # The request hangs in the network for longer than anybody would wait.
    world = World(service_type=service_type)
    assert world.ready()
    world.place("late:40")
    world.run(120)
    assert max(world.broker.arrived.values()) == most
    assert world.broker.canceled or most == 2, "what came after all is taken back"


@pytest.mark.parametrize("service_type", [ReconciliationService, TakesSilenceForFlat])
def test_taking_silence_for_flat_makes_a_drift_of_nothing(
    service_type: type[ReconciliationService],
) -> None:
    world = World(service_type=service_type)
    assert world.ready()
    world.fill(world.place(), 2 * LOT)
    world.run(60)
    world.broker.failing["positions"] = 10
    world.run(120)
    has_drifted = (-2 * LOT, 0) in world.drifts()
    assert has_drifted == (service_type is TakesSilenceForFlat)


# Property: whatever is lost, an answering broker ends it


def live_through(generator: random.Random, world: World) -> None:
    """A morning of losses: calls cut, callbacks lost, questions failed, processes killed."""
    tickets: list[OrderTicket] = []
    for _ in range(generator.randrange(5, 30)):
        dice = generator.random()
        told = generator.random() < 0.5
        working = [
            row for row in tickets
            if row.tag in world.broker.book
            and world.broker.book[row.tag].status == OrderStatus.WORKING
        ]  # fmt: skip
        if dice < 0.35:
            how = generator.choice(["told", "silent", "cut", "lost", "late:3", "late:60"])
            side, qty = generator.choice([1, -1]), generator.randrange(1, 4) * LOT
            tickets.append(world.place(how, side=side, qty=qty))
        elif dice < 0.60 and working:
            row = generator.choice(working)
            world.fill(row, LOT, is_told=told)
        elif dice < 0.72 and working:
            row = generator.choice(working)
            if world.state(row) == "working":
                world.session.cancel(row.order_id)
            if told:
                ends = [OrderStatus.CANCELED, OrderStatus.EXPIRED, OrderStatus.REJECTED]
                world.broker.set(row.tag, status=generator.choice(ends))
        elif dice < 0.80:
            world.broker.failing[generator.choice(["orders", "positions"])] += 3
        elif dice < 0.86:
            world.crash()
        world.run(generator.choice([0, 1, 1, 2, 7, 20]))
    world.broker.failing.clear()


@pytest.mark.parametrize("names_fills", [True, False])
def test_with_an_answering_broker_nothing_stays_unknown_and_positions_are_equal(
    names_fills: bool,
) -> None:
    seen: Counter[str] = Counter()
    for generator in seeds(CASES):
        world = World()
        world.broker.names_fills = names_fills
        live_through(generator, world)
        world.run(200)
        rows = [world.session.order(number) or {} for number in range(1, world.count + 1)]
        assert [row for row in rows if row["state"] == "unknown"] == []
        assert world.session.position == world.broker.net()[SYMBOL]
        assert not world.session.odd["over_fill"]
        assert all(count == 1 for count in world.broker.arrived.values()), "at most one dispatch"
        open_there = {
            row.tag for row in world.broker.book.values() if row.status == OrderStatus.WORKING
        }
        open_here = {row["tag"] for row in rows if row["state"] in OPEN}
        assert open_here == open_there, "and nothing rests there that we do not know of"
        assert len(set(world.session.fill_ids)) == len(world.session.fill_ids)
        assert world.service.report().is_ready
        seen.update(row.outcome for row in world.service.report().resolutions)
        seen["synthetic"] += sum(
            name.startswith(SYNTHETIC_PREFIX) for name in world.session.fill_ids
        )
    assert seen["adopted"]
    assert seen["abandoned"]
    assert (seen["synthetic"] > 0) == (not names_fills)


def test_ids_are_the_same_whether_the_process_was_restarted_or_not() -> None:
    for generator in seeds(max(10, CASES // 4)):
        state = generator.getstate()
        outcomes = []
        for crashes in (0, 3):
            generator.setstate(state)
            world = World()
            world.broker.names_fills = False
            assert world.ready()
            ticket = world.place(qty=9 * LOT)
            for number in range(6):
                world.fill(ticket, generator.randrange(1, 3) * LOT // 2, is_told=False)
                world.run(40)
                if number in (1, 3, 4)[:crashes]:
                    world.crash()
                    assert world.ready()
            outcomes.append((world.session.fill_ids, world.session.position))
        assert outcomes[0] == outcomes[1]
