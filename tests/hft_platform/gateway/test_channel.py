"""Intent channel: ack and nack, bounds, dead letters, cursors, runners that misbehave."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.gateway import channel, wire
from hft_platform.gateway.channel_socket import SOCKET_FILE
from hft_platform.gateway.wire import Kind
from tests.hft_platform.gateway.channel_gateway import NS, SHA, Gateway, RawRunner, drained, intent
from tests.rust_core.market_days import SCALE, TXF_ID

WORKING, REJECTED, FILL, CANCELED, UNKNOWN = 1, 2, 3, 4, 7
CASES = int(os.environ.get("HFT_FUZZ_CASES", "400"))
Make = Callable[..., Gateway]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Gateway] = []

    def gateway(**options: Any) -> Gateway:
        made.append(Gateway(tmp_path, **options))
        return made[-1]

    yield gateway
    for one in made:
        one.close()


def kinds(messages: list[tuple[Kind, Any]]) -> list[str]:
    return [kind.name if kind is not None else "closed" for kind, _ in messages]


def only(messages: list[tuple[Kind, Any]], kind: Kind) -> Any:
    found = [body for one, body in messages if one is kind]
    assert len(found) == 1, messages
    return found[0]


def test_a_runner_is_welcomed_with_its_place_and_the_epoch(make: Make) -> None:
    gateway = make(epoch=4)
    welcome = only(RawRunner(gateway, 1).heard(), Kind.WELCOME)
    assert welcome == wire.Welcome(1, 4, 77, 0, 0)
    assert gateway.server.connected == ["runner_1"]


def test_an_intent_is_decided_once_and_acknowledged(make: Make) -> None:
    gateway = make()
    runner = RawRunner(gateway)
    runner.place(1)
    ack = only(runner.heard(), Kind.ACK)
    assert (ack.number, ack.order_id) == (1, 1)
    assert len(gateway.session.requests) == 1


def test_a_repeated_intent_is_answered_alike_and_sent_once(make: Make) -> None:
    gateway = make()
    runner = RawRunner(gateway)
    runner.place(1)
    first = only(runner.heard(), Kind.ACK)
    pushed = gateway.session.pushed
    runner.place(1)
    assert only(runner.heard(), Kind.ACK) == first
    assert (gateway.session.pushed, gateway.local.dedup_hits) == (pushed, 1)
    assert len(gateway.session.requests) == 1


def test_another_intent_under_a_used_number_is_refused(make: Make) -> None:
    gateway = make()
    runner = RawRunner(gateway)
    runner.place(1)
    runner.heard()
    runner.place(1, exchange_time_ns=999_999)
    assert only(runner.heard(), Kind.NACK).code == ReasonCode.DUPLICATE_INTENT
    assert len(gateway.session.requests) == 1


def test_the_engine_refuses_a_used_number_that_the_channel_forgot(make: Make) -> None:
    """Behind the channel's memory stands the engine's."""
    gateway = make()
    runner = RawRunner(gateway)
    runner.place(5)
    runner.heard()
    gateway.local.views.alpha(0).answers.clear()
    runner.place(5)
    assert only(runner.heard(), Kind.NACK).code == ReasonCode.DUPLICATE_INTENT
    assert gateway.local.dedup_hits == 1
    assert len(gateway.session.requests) == 1


def test_a_refused_intent_says_what_the_check_saw(make: Make) -> None:
    gateway = make()
    runner = RawRunner(gateway)
    runner.place(1, qty=500 * SCALE)
    nack = only(runner.heard(), Kind.NACK)
    assert nack.code == ReasonCode.ORDER_QTY_ABOVE_LIMIT
    assert nack.observed > nack.limit > 0
    assert gateway.local.refusals == {"ORDER_QTY_ABOVE_LIMIT": 1}
    assert gateway.session.requests == []


@pytest.mark.parametrize(
    "fields",
    [
        {"alpha_index": 1}, {"instrument_id": 9}, {"ttl_ns": 0}, {"ttl_ns": -1}, {"action": 3},
        {"external_id": 0}, {"external_id": 1 << 32}, {"side": 0}, {"side": 2}, {"qty": 0},
        {"qty": -1}, {"price": 0}, {"time_in_force": 0}, {"time_in_force": 4},
        {"action": 2, "order_id": 0},
    ],
)  # fmt: skip
def test_an_intent_that_cannot_be_one_is_refused_before_the_engine(
    make: Make, fields: dict[str, int]
) -> None:
    gateway = make()
    runner = RawRunner(gateway)
    pushed = gateway.session.pushed
    runner.place(1, **fields)
    assert only(runner.heard(), Kind.NACK).code == ReasonCode.INTENT_MALFORMED
    assert gateway.session.pushed == pushed


def test_an_intent_that_waited_too_long_is_a_dead_letter(make: Make) -> None:
    gateway = make()
    runner = RawRunner(gateway)
    runner.place(1, sent_ns=gateway.now_ns - NS - 1)
    nack = only(runner.heard(), Kind.NACK)
    assert (nack.code, nack.observed, nack.limit) == (ReasonCode.INTENT_EXPIRED, NS + 1, NS)
    assert gateway.dead_letters.counts == {"INTENT_EXPIRED": 1}
    line = json.loads(gateway.dead_letters.path.read_text())
    assert (line["reason"], line["alpha_id"]) == ("INTENT_EXPIRED", "runner_0")
    assert bytes.fromhex(line["record"]) == intent(0, 1)
    assert gateway.session.requests == []


def test_a_cancel_is_never_too_late(make: Make) -> None:
    gateway = make()
    runner = RawRunner(gateway)
    runner.place(1)
    order_id = only(runner.heard(), Kind.ACK).order_id
    gateway.session.broker(order_id, WORKING, remaining_qty=SCALE, broker_seq=1)
    runner.place(2, action=2, intent_reason=4, order_id=order_id, sent_ns=0)
    assert only(runner.heard(), Kind.ACK).order_id == order_id
    assert [row["action"] for row in gateway.session.requests] == [1, 2]


def test_an_intent_the_session_has_no_room_for_is_refused_for_good(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = make()
    runner = RawRunner(gateway)

    def full(tape: bytes) -> int:
        raise PlatformError(ReasonCode.CAPACITY_REACHED, "1,024 requests wait")

    monkeypatch.setattr(gateway.session, "push", full)
    runner.place(1)
    assert only(runner.heard(), Kind.NACK).code == ReasonCode.CAPACITY_REACHED
    monkeypatch.undo()
    runner.place(1)
    assert only(runner.heard(), Kind.ACK).order_id == 1


def test_a_cancel_of_another_runners_order_is_refused(make: Make) -> None:
    gateway = make()
    first, second = RawRunner(gateway, 0), RawRunner(gateway, 1)
    first.place(1)
    order_id = only(first.heard(), Kind.ACK).order_id
    second.place(2, action=2, intent_reason=4, order_id=order_id)
    assert only(second.heard(), Kind.NACK).code == ReasonCode.ORDER_UNKNOWN


def test_a_flood_is_refused_beyond_its_bound_and_others_are_served(make: Make) -> None:
    gateway = make()
    loud, quiet = RawRunner(gateway, 0), RawRunner(gateway, 1)
    for number in range(1, 31):
        loud.place(number)
    quiet.place(1)
    gateway.step()
    # One round: one of each was decided, and what is beyond the bound was refused at once.
    assert kinds(drained(quiet)) == ["WELCOME", "ACK"]
    answers = drained(loud)
    assert kinds(answers).count("ACK") == 1
    full = [body for kind, body in answers if kind is Kind.NACK]
    assert {body.code for body in full} == {ReasonCode.CHANNEL_FULL}
    assert {(body.observed, body.limit) for body in full} == {(8, 8)}
    gateway.step(10)
    answers += drained(loud)
    decided = [body for kind, body in answers if kind in (Kind.ACK, Kind.NACK)]
    assert sum(getattr(body, "code", 0) != ReasonCode.CHANNEL_FULL for body in decided) == 8


def test_a_runner_that_reads_nothing_holds_up_nobody(make: Make) -> None:
    gateway = make(outstanding_max=8, stall_ns=NS)
    deaf, other = RawRunner(gateway, 0), RawRunner(gateway, 1)
    for number in range(1, 100_000):
        try:
            deaf.place(number, qty=500 * SCALE)
        except BrokenPipeError:
            break
        gateway.step()
    assert gateway.server.connected == ["runner_1"]
    assert gateway.server.counts.disconnects == {"reads too slowly": 1}
    other.place(1)
    assert "ACK" in kinds(other.heard())


def test_a_runner_that_stopped_reading_is_disconnected_after_a_while(make: Make) -> None:
    gateway = make(stall_ns=NS)
    deaf = RawRunner(gateway, 0)
    while not any(runner.outbox for runner in gateway.server._runners.values()):
        deaf.place(1, qty=500 * SCALE)
        gateway.step()
    gateway.now_ns += NS
    gateway.step()
    assert gateway.server.connected == ["runner_0"]
    gateway.now_ns += 1
    gateway.step()
    assert gateway.server.connected == []
    assert gateway.server.counts.disconnects == {"stalled": 1}


def test_events_come_in_order_and_again_behind_a_cursor(make: Make) -> None:
    gateway = make()
    runner = RawRunner(gateway)
    runner.place(1)
    order_id = only(runner.heard(), Kind.ACK).order_id
    gateway.session.broker(order_id, WORKING, remaining_qty=SCALE, qty=SCALE, broker_seq=1)
    gateway.session.broker(order_id, FILL, side=1, price=29_989 * SCALE, qty=SCALE, broker_seq=2)
    events = [body for kind, body in runner.heard() if kind is Kind.EVENT]
    assert [event.external_id for event in events] == [1, 1]
    assert [event.tag_number for event in events] == [1_001, 1_001]
    assert events[0].cursor < events[1].cursor
    runner.link.close()
    again = RawRunner(gateway, cursor=events[0].cursor)
    assert [body for kind, body in again.heard() if kind is Kind.EVENT] == events[1:]
    again.link.close()
    gateway.step(2)
    fresh = RawRunner(gateway)
    assert [body for kind, body in fresh.heard() if kind is Kind.EVENT] == events


def test_a_cursor_of_another_session_is_worth_nothing(make: Make) -> None:
    gateway = make()
    runner = RawRunner(gateway)
    runner.place(1)
    order_id = only(runner.heard(), Kind.ACK).order_id
    gateway.session.broker(order_id, REJECTED, reason_code=401)
    runner.link.close()
    gateway.step(2)
    other = RawRunner(gateway, hello=False)
    other.say(wire.hello(wire.Hello("runner_0", SHA, 3, 1234, 1 << 40)))
    assert kinds(other.heard()) == ["WELCOME", "EVENT"]


def test_events_wait_for_a_runner_that_does_not_say_it_took_them(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "EVENTS_UNTAKEN_MAX", 2)
    gateway = make()
    runner = RawRunner(gateway)
    runner.place(1)
    order_id = only(runner.heard(), Kind.ACK).order_id
    for seq in range(1, 6):
        gateway.session.broker(order_id, WORKING, remaining_qty=SCALE, broker_seq=seq)
    events = [body for kind, body in runner.heard() if kind is Kind.EVENT]
    assert len(events) == 2
    runner.say(wire.taken(events[-1].cursor))
    more = [body for kind, body in runner.heard() if kind is Kind.EVENT]
    assert len(more) == 2
    assert more[0].cursor > events[-1].cursor


def test_answers_and_cursors_are_the_same_after_a_takeover(make: Make) -> None:
    gateway = make()
    runner = RawRunner(gateway)
    runner.place(1)
    ack = only(runner.heard(), Kind.ACK)
    runner.place(2, qty=500 * SCALE)
    nack = only(runner.heard(), Kind.NACK)
    gateway.session.broker(ack.order_id, WORKING, remaining_qty=SCALE, broker_seq=1)
    gateway.session.rotate()
    gateway.session.broker(
        ack.order_id, FILL, side=1, price=29_989 * SCALE, qty=SCALE, broker_seq=2
    )
    events = [body for kind, body in runner.heard() if kind is Kind.EVENT]
    gateway.close()
    next_one = make(epoch=2)
    runner = RawRunner(next_one)
    messages = runner.heard()
    welcome = only(messages, Kind.WELCOME)
    assert (welcome.epoch, welcome.session_key, welcome.last_external_id) == (2, 77, 2)
    assert [body for kind, body in messages if kind is Kind.EVENT] == events
    assert welcome.cursor == events[-1].cursor
    runner.place(1)
    assert only(runner.heard(), Kind.ACK) == ack
    runner.place(2, qty=500 * SCALE)
    # The number is 0 in it that the check saw: only the decision is in the log, and it is the same.
    assert only(runner.heard(), Kind.NACK) == nack
    assert next_one.session.requests == []


def test_orders_positions_and_money_are_answered(make: Make) -> None:
    gateway = make()
    runner = RawRunner(gateway, 1)
    runner.place(1)
    order_id = only(runner.heard(), Kind.ACK).order_id
    runner.place(2)
    runner.heard()
    for seq in (1, 2, 2):
        gateway.session.broker(
            order_id, FILL, side=1, price=29_989 * SCALE, qty=SCALE // 2, broker_seq=seq
        )
    runner.heard()
    runner.say(wire.ask(9, wire.Question.ORDERS))
    messages = runner.heard()
    rows = [body for kind, body in messages if kind is Kind.ORDER]
    assert [(row.external_id, row.tag_number, row.filled_qty, row.status) for row in rows] == [
        (1, 1_001, SCALE, 3), (2, 1_002, 0, 1),
    ]  # fmt: skip
    assert len(rows[0].fills) == 2 * wire.BROKER_BYTES
    assert only(messages, Kind.ANSWERED) == wire.Answered(9, 2)
    runner.say(wire.ask(10, wire.Question.POSITIONS))
    assert only(runner.heard(), Kind.POSITION) == wire.Position(10, TXF_ID, 2 * SCALE)
    runner.say(wire.ask(11, wire.Question.ACCOUNT))
    assert only(runner.heard(), Kind.ACCOUNT) == wire.Account(11, 5, 1, 10 * SCALE, 4 * SCALE)


def test_a_question_that_cannot_be_answered_is_not_answered_with_nothing(make: Make) -> None:
    gateway = make()
    gateway.holdings_fail = PlatformError(ReasonCode.POSITION_UNANSWERED, "the broker is silent")
    runner = RawRunner(gateway)
    runner.heard()
    runner.say(wire.ask(1, wire.Question.POSITIONS))
    assert runner.heard() == [
        (Kind.ANSWERED, wire.Answered(1, 0, int(ReasonCode.POSITION_UNANSWERED)))
    ]


def test_orders_of_a_runner_that_is_gone_are_canceled_after_the_grace(make: Make) -> None:
    gateway = make(grace_ns=5 * NS)
    runner = RawRunner(gateway)
    ids = []
    for number in (1, 2):
        runner.place(number)
        ids.append(only(runner.heard()[-1:], Kind.ACK).order_id)
    gateway.session.broker(ids[0], WORKING, remaining_qty=SCALE, broker_seq=1)
    gateway.session.broker(ids[1], WORKING, remaining_qty=SCALE, broker_seq=1)
    runner.link.close()
    gateway.step(2)
    gateway.now_ns += 5 * NS - 1
    gateway.step(2)
    assert [row["action"] for row in gateway.session.requests] == [1, 1]
    gateway.now_ns += 1
    gateway.step(5)
    canceled = [row["order_id"] for row in gateway.session.requests if row["action"] == 2]
    assert canceled == ids
    assert gateway.server.counts.orders_canceled == 2


def test_an_unknown_order_of_a_runner_that_is_gone_is_not_canceled_blindly(make: Make) -> None:
    gateway = make(grace_ns=5 * NS)
    runner = RawRunner(gateway)
    runner.place(1)
    order_id = only(runner.heard()[-1:], Kind.ACK).order_id
    gateway.session.broker(order_id, UNKNOWN)
    runner.link.close()
    gateway.step(2)
    gateway.now_ns += 6 * NS
    gateway.step(5)
    assert [row["action"] for row in gateway.session.requests] == [1]
    assert gateway.server.counts.orders_canceled == 0


def test_a_runner_that_comes_back_in_time_keeps_its_orders(make: Make) -> None:
    gateway = make(grace_ns=5 * NS)
    runner = RawRunner(gateway)
    runner.place(1)
    order_id = only(runner.heard(), Kind.ACK).order_id
    gateway.session.broker(order_id, WORKING, remaining_qty=SCALE, broker_seq=1)
    runner.link.close()
    gateway.step(2)
    gateway.now_ns += 4 * NS
    again = RawRunner(gateway)
    gateway.now_ns += 60 * NS
    again.heard()
    assert [row["action"] for row in gateway.session.requests] == [1]


def test_the_settings_may_leave_the_orders_of_a_lost_runner(make: Make) -> None:
    gateway = make(on_disconnect="keep", grace_ns=NS)
    runner = RawRunner(gateway)
    runner.place(1)
    runner.heard()
    runner.link.close()
    gateway.step(2)
    gateway.now_ns += 60 * NS
    gateway.step(3)
    assert [row["action"] for row in gateway.session.requests] == [1]


def test_what_a_runner_said_last_before_it_died_is_not_acted_on(make: Make) -> None:
    gateway = make()
    runner = RawRunner(gateway)
    for number in (1, 2, 3):
        runner.place(number)
    gateway.step()
    # One was decided; two wait and die with their connection, in a dead letter each.
    runner.link.close()
    gateway.step(5)
    assert len(gateway.session.requests) == 1
    assert gateway.dead_letters.counts == {"CHANNEL_UNREACHABLE": 2}


def test_dead_letters_do_not_fill_the_disk(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from hft_platform.gateway import dead_letters

    monkeypatch.setattr(dead_letters, "FILE_BYTES_MAX", 2_000)
    gateway = make()
    runner = RawRunner(gateway)
    for number in range(1, 20):
        runner.place(number, sent_ns=0)
        gateway.step()
    assert gateway.dead_letters.counts == {"INTENT_EXPIRED": 19}
    assert gateway.dead_letters.path.stat().st_size < 3_000


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        (wire.Hello("nobody", SHA, 3, 0, 0), ReasonCode.CONFIG_NOT_FOUND),
        (wire.Hello("runner_0", b"x" * 32, 3, 0, 0), ReasonCode.CONFIG_EVIDENCE_MISMATCH),
        (wire.Hello("runner_0", SHA, 2, 0, 0), ReasonCode.CONFIG_EVIDENCE_MISMATCH),
    ],
)
def test_a_runner_with_another_permit_is_refused(
    make: Make, hello: wire.Hello, code: ReasonCode
) -> None:
    gateway = make()
    runner = RawRunner(gateway, hello=False)
    runner.say(wire.hello(hello))
    messages = runner.heard()
    assert kinds(messages) == ["REFUSED", "closed"]
    assert messages[0][1][0] == code
    assert gateway.server.connected == []


def test_an_alpha_has_one_runner(make: Make) -> None:
    gateway = make()
    first = RawRunner(gateway)
    second = RawRunner(gateway)
    assert kinds(second.heard()) == ["REFUSED", "closed"]
    first.place(1)
    assert "ACK" in kinds(first.heard())


def test_whoever_says_no_hello_is_disconnected(make: Make) -> None:
    gateway = make()
    mute = RawRunner(gateway, hello=False)
    gateway.step()
    gateway.now_ns += channel.HELLO_NS_MAX + 1
    assert kinds(mute.heard()) == ["closed"]
    early = RawRunner(gateway, hello=False)
    early.place(1)
    assert kinds(early.heard()) == ["REFUSED", "closed"]


def test_the_socket_is_for_its_user_only(make: Make) -> None:
    gateway = make()
    mode = (gateway.folder / SOCKET_FILE).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_a_process_of_another_user_is_not_heard(make: Make) -> None:
    """Even where the file's mode lets it in: root passes every mode."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    gateway = make()
    path = gateway.folder / SOCKET_FILE
    for folder in (path, *path.parents):
        if folder == folder.parent:
            break
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    path.chmod(0o666)
    script = (
        "import os, socket, sys\n"
        "os.setuid(65534)\n"
        "link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "os.chdir(sys.argv[1])\n"
        "link.connect('channel.sock')\n"
        "print('connected', flush=True)\n"
        "said = link.recv(70000)\n"
        "print(said[6], len(link.recv(70000)), flush=True)\n"
    )
    foreign = subprocess.Popen(
        [sys.executable, "-c", script, str(gateway.folder)], stdout=subprocess.PIPE, text=True
    )
    assert foreign.stdout is not None
    assert foreign.stdout.readline() == "connected\n"
    gateway.step(3)
    assert foreign.stdout.readline().split() == [str(int(Kind.REFUSED)), "0"]
    assert foreign.wait(10) == 0
    foreign.stdout.close()
    assert gateway.server.counts.disconnects == {"refused": 1}


def test_damaged_messages_are_refused_and_change_nothing(make: Make) -> None:
    """Cut, lengthened and flipped messages: refused with a code or harmless, never an exception."""
    gateway = make()
    random = np.random.default_rng(11)
    whole = [
        wire.hello(wire.Hello("runner_1", SHA, 3, 77, 0)),
        wire.intent(wire.Intent(1, gateway.now_ns, intent(1, 1))),
        wire.taken(5),
        wire.ask(1, wire.Question.ORDERS),
        wire.subscribe([TXF_ID]),
        wire.ack(wire.Ack(1, 2, 3)),
    ]
    steady = RawRunner(gateway, 0)
    for _ in range(CASES):
        message = bytearray(whole[int(random.integers(0, len(whole)))])
        how = int(random.integers(0, 3))
        if how == 0:
            message = message[: int(random.integers(0, len(message)))]
        elif how == 1:
            message += random.bytes(int(random.integers(1, 300)))
        else:
            for _ in range(int(random.integers(1, 4))):
                message[int(random.integers(0, len(message)))] ^= 1 << int(random.integers(0, 8))
        runner = RawRunner(gateway, 1)
        if message:
            runner.say(bytes(message))
        runner.heard()
        runner.link.close()
        gateway.step()
    steady.place(1)
    assert "ACK" in kinds(steady.heard())


def test_market_records_reach_those_who_asked(make: Make) -> None:
    gateway = make()
    runner, other = RawRunner(gateway, 0), RawRunner(gateway, 1)
    runner.say(wire.subscribe([TXF_ID]))
    runner.heard()
    tape = intent(0, 1)  # any record with an instrument
    gateway.server.publish(tape * 3)
    gateway.server.publish(intent(0, 2, instrument_id=5))
    assert only(runner.heard(), Kind.MARKET) == tape * 3
    assert "MARKET" not in kinds(other.heard())


def test_market_records_are_left_out_for_a_runner_that_is_behind(make: Make) -> None:
    gateway = make(stall_ns=1_000 * NS)
    runner = RawRunner(gateway, 0)
    runner.say(wire.subscribe([TXF_ID]))
    runner.heard()
    for _ in range(3_000):
        gateway.server.publish(intent(0, 1) * 100)
        gateway.step()
    assert gateway.server.counts.market_left_out > 0
    # What matters still comes.
    runner.place(1)
    messages: list[tuple[Kind, Any]] = []
    for _ in range(2_000):
        messages += runner.heard()
    assert "ACK" in kinds(messages)
