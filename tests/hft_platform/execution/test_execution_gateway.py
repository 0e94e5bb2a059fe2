"""ExecutionGateway on a real session: conversations with a broker, and what is left of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hft_platform import _core
from hft_platform.errors import ReasonCode
from hft_platform.execution import execution_gateway
from hft_platform.execution.execution_gateway import ORPHAN_WAIT_NS
from hft_platform.execution.order_ids import OrderIds
from hft_platform.input_records import BrokerKind, RouteKind
from hft_platform.order.broker import BrokerIds, CallResult, EventKind, FillEvent, Outcome
from tests.hft_platform.order.live_world import LOT, MID, MS, TXF, World

B1 = BrokerIds("B1")
Step = tuple[Any, ...]
W, P, F, C, X, R, CR = (
    BrokerKind.WORKING, BrokerKind.REJECTED, BrokerKind.FILL, BrokerKind.CANCELED,
    BrokerKind.EXPIRED, BrokerKind.REJECTED, BrokerKind.CANCEL_REJECTED,
)  # fmt: skip

# Steps: w works, f1 a fill of one lot named d1, c canceled, r rejected, x expired, k the cancel is
# refused, K we cancel, a amended. An order of three lots; its state, the position, the records.
CONVERSATIONS: list[tuple[str, str, str, int, list[BrokerKind]]] = [
    ("accepted", "w", "working", 0, [W]),
    ("filled in parts", "w f1 f2 f3", "filled", 3, [W, F, F, F]),
    ("a deal before its order event", "f1 w f2", "working", 2, [F, F]),
    ("every callback doubled", "w w f1 f1 f2 f2 f3 f3", "filled", 3, [W, F, F, F]),
    ("rejected", "r", "rejected", 0, [R]),
    ("rejected twice", "r r", "rejected", 0, [R]),
    ("rejected after it worked is gone like canceled", "w r", "canceled", 0, [W, C]),
    ("rejected after a part", "w f1 r", "canceled", 1, [W, F, C]),
    ("canceled", "w K c", "canceled", 0, [W, C]),
    ("canceled twice", "w K c c", "canceled", 0, [W, C]),
    ("canceled by the exchange", "w c", "canceled", 0, [W, C]),
    ("canceled after a part", "w f1 K c", "canceled", 1, [W, F, C]),
    ("a fill overtakes the cancel", "w K f1 c", "canceled", 1, [W, F, C]),
    ("a fill behind the cancel is real", "w K c f1", "canceled", 1, [W, C, F]),
    ("all fills behind the cancel", "w K c f1 f2 f3", "filled", 3, [W, C, F, F, F]),
    ("the cancel is refused", "w K k", "working", 0, [W, CR]),
    ("the cancel is refused twice", "w K k k", "working", 0, [W, CR]),
    ("a refused cancel without a cancel", "w k", "working", 0, [W]),
    ("filled before the cancel came", "w K f1 f2 f3 k", "filled", 3, [W, F, F, F]),
    ("expired", "w x", "expired", 0, [W, X]),
    ("the rest expires", "f1 x", "expired", 1, [F, X]),
    ("a fill behind the expiry", "w x f1", "expired", 1, [W, X, F]),
    ("works again after it is done", "w c w", "canceled", 0, [W, C]),
    ("canceled after it was filled", "w f1 f2 f3 c", "filled", 3, [W, F, F, F]),
    ("rejected, and filled all the same", "r f1", "rejected", 1, [R, F]),
    ("amended by somebody else", "w a", "working", 0, [W]),
]


def speak(world: World, request: Any, steps: str, ids: BrokerIds = B1) -> None:
    kinds = {
        "w": EventKind.WORKING, "c": EventKind.CANCELED, "r": EventKind.REJECTED,
        "x": EventKind.EXPIRED, "k": EventKind.CANCEL_REJECTED, "a": EventKind.AMENDED,
    }  # fmt: skip
    for step in steps.split():
        if step == "K":
            world.adapter.execute(world.want_cancel(request.order_id))
        elif step.startswith("f"):
            world.fill(ids, f"d{step[1:]}")
        else:
            world.event(kinds[step], ids)


@pytest.mark.parametrize(
    ("steps", "state", "position", "written"),
    [row[1:] for row in CONVERSATIONS],
    ids=[row[0] for row in CONVERSATIONS],
)
def test_a_conversation_ends_in_its_state_with_its_records(
    tmp_path: Path, steps: str, state: str, position: int, written: list[BrokerKind]
) -> None:
    world = World(tmp_path)
    request = world.place(lots=3)
    speak(world, request, steps)
    assert (world.state(request.order_id), world.position) == (state, position)
    world.session.close()
    assert [row["event_kind"] for row in world.written("Broker")] == written
    seqs = [row["broker_seq"] for row in world.written("Broker") if row["event_kind"] == F]
    assert seqs == list(range(1, len(seqs) + 1))


def test_a_fills_name_is_written_right_before_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    request = world.place(lots=3)
    speak(world, request, "w f1")
    world.session.close()
    (name,) = [row for row in world.written("Route") if row["route_kind"] == RouteKind.FILL_ID]
    (fill,) = [row for row in world.written("Broker") if row["event_kind"] == F]
    assert (name["fill_id"], name["argument"]) == (b"d1", fill["broker_seq"])
    assert name["input_seq"] + 1 == fill["input_seq"]
    assert (fill["remaining_qty"], fill["qty"], fill["side"]) == (2 * LOT, LOT, 1)


def test_fills_of_two_orders_with_the_same_name_are_two(tmp_path: Path) -> None:
    """The engine counts by number: numbers that began anew with each order lost the second."""
    world = World(tmp_path)
    for number in (1, 2):
        world.place(price=MID - number)
        world.fill(BrokerIds(f"B{number}"), "1")
    assert world.position == 2
    assert "DUPLICATE_FILL" not in str(world.session.state())


def test_a_fill_counts_once_over_a_crash(tmp_path: Path) -> None:
    world = World(tmp_path)
    request = world.place(lots=3)
    speak(world, request, "w f1 f2")
    world = world.again()
    assert world.state(request.order_id) == "unknown"
    speak(world, request, "f1 f2 w f1 f2")
    # What is found again of an opening order is taken back at once: the engine is reduce-only.
    assert (world.position, world.state(request.order_id)) == (2, "pending_cancel")
    assert world.order_ids.filled_qty(request.order_id) == 2 * LOT
    speak(world, request, "f3 f3")
    assert (world.position, world.state(request.order_id)) == (3, "filled")
    world = world.again()
    speak(world, request, "f1 f2 f3")
    assert world.position == 3


def test_negative_control_a_memory_that_a_crash_empties_counts_twice(tmp_path: Path) -> None:
    """What the Route records are for: without them the same broker doubles the position."""
    world = World(tmp_path)
    request = world.place(lots=3)
    speak(world, request, "w f1")
    world = world.again()
    forgetful = OrderIds()
    forgetful.begin_call(request)
    forgetful.learn(request.order_id, B1)
    # As the next number of a counter that started over somewhere else.
    for _ in range(5):
        forgetful.take_fill(0, f"other{_}", LOT)
    world.gateway._order_ids = forgetful
    speak(world, request, "f1")
    assert world.position == 2, "one lot was bought"


def test_a_name_whose_fill_was_torn_off_is_counted_when_it_comes_again(tmp_path: Path) -> None:
    """The crash cut the log between a fill's name and the fill."""
    world = World(tmp_path)
    request = world.place(lots=3)
    speak(world, request, "w f1")
    push = world.session.push

    class Cut:
        """Takes the first record of a push only, and is dead from then on."""

        def __getattr__(self, name: str) -> Any:
            return getattr(world.session, name)

        def push(self, tape: bytes) -> int:
            push(tape[: int.from_bytes(tape[:2], "little")])
            raise SystemExit

    world.gateway._session = Cut()
    with pytest.raises(SystemExit):
        speak(world, request, "f2")
    world = world.again()
    assert world.position == 1
    speak(world, request, "f2 f2 f1")
    assert world.position == 2
    assert world.gateway.counters()["fills_pushed_again"] == 2, "and the engine knew the first"


def test_a_report_before_any_name_is_known_waits_and_is_taken_with_the_tag(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.broker.answers.append(CallResult(Outcome.AMBIGUOUS, code=ReasonCode.BROKER_TIMEOUT))
    request = world.place(lots=3)
    ids = BrokerIds("", "S7", "N7")
    speak(world, request, "f1 f1 f2", ids)
    assert (world.position, world.gateway.orphan_count()) == (0, 2)
    assert world.state(request.order_id) == "unknown"
    # Reconciliation found it by its tag in the broker's list.
    world.event(EventKind.WORKING, ids, tag=request.tag)
    assert (world.position, world.gateway.orphan_count()) == (2, 0)
    assert world.state(request.order_id) == "working"
    speak(world, request, "f2 f3", BrokerIds("", "", "N7"))
    assert (world.position, world.state(request.order_id)) == (3, "filled")


def test_an_order_by_hand_is_external_told_once_and_counted(tmp_path: Path) -> None:
    world = World(tmp_path)
    own = world.place(lots=1)
    hand = BrokerIds("H1", "", "N1")
    world.event(EventKind.WORKING, hand, symbol=TXF.symbol)
    world.fill(hand, "d1", side=-1, lots=2)
    world.gateway.step(world.now_ns)
    assert world.gateway.externals() == []
    world.gateway.step(world.now_ns + ORPHAN_WAIT_NS)
    world.fill(hand, "d2", side=-1)
    world.fill(hand, "d2", side=-1)
    (external,) = world.gateway.externals()
    assert (external.ids, external.filled_qty) == (hand, -3 * LOT)
    assert (world.position, world.state(own.order_id)) == (0, "pending_new")
    world.session.close()
    (row,) = [row for row in world.written("Route") if row["route_kind"] == RouteKind.EXTERNAL]
    assert (row["order_id"], row["broker_id"], row["ordno"]) == (0, b"H1", b"N1")
    assert world.written("Broker") == []


def test_what_was_told_as_external_and_is_ours_is_taken_back(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.broker.answers.append(CallResult(Outcome.AMBIGUOUS))
    request = world.place(lots=3)
    ids = BrokerIds("B7")
    speak(world, request, "f1", ids)
    world.gateway.step(world.now_ns + ORPHAN_WAIT_NS)
    assert len(world.gateway.externals()) == 1
    world.event(EventKind.WORKING, ids, tag=request.tag)
    assert (world.position, world.gateway.externals()) == (1, [])
    assert world.gateway.counters()["externals_adopted"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"side": -1},
        {"lots": 0},
        {"lots": -1},
        {"price": 0},
        {"symbol": "TXFE6"},
        {"qty": float("nan")},
    ],
)
def test_a_fill_that_contradicts_its_order_is_not_taken_and_not_lost(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    world = World(tmp_path)
    world.place(lots=3)
    fields = {"lots": 1, "side": 1, "price": MID} | change
    qty = fields.get("qty", fields["lots"] * LOT)
    world.gateway.on_fill(
        FillEvent(
            B1, "d1", fields.get("symbol", TXF.symbol), fields["side"], fields["price"] * LOT, qty,
            world.now_ns, world.now_ns,
        )
    )  # fmt: skip
    assert world.position == 0
    assert world.gateway.counters()["reports_contradicting_their_order"] == 1
    world.gateway.step(world.now_ns + ORPHAN_WAIT_NS)
    assert world.gateway.counters()["external_orders"] == 1


def test_a_full_buffer_tells_its_oldest_and_loses_nothing_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution_gateway, "ORPHAN_COUNT_MAX", 3)
    world = World(tmp_path)
    for number in range(5):
        world.fill(BrokerIds(f"H{number}"), "d1")
    assert [row.ids.broker_id for row in world.gateway.externals()] == ["H0", "H1"]
    assert world.gateway.counters()["orphans_overflowed"] == 2


def test_names_that_do_not_fit_are_left_out_and_counted(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.broker.answers.append(CallResult(Outcome.SENT, BrokerIds("x" * 17, "台", "N1")))
    request = world.place(lots=3)
    assert world.order_ids.ids_of(request.order_id) == BrokerIds("", "", "N1")
    world.fill(BrokerIds("", "", "N1"), "y" * 40)
    world.fill(BrokerIds("", "", "N1"), "y" * 40)
    world.fill(BrokerIds("", "", "N1"), "y" * 41)
    assert world.position == 2


def test_names_of_two_orders_are_nobodys(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.place(lots=3)
    world.place(lots=3, price=MID - 1)
    world.fill(BrokerIds("B1", "S2"), "d1")
    assert (world.position, world.gateway.orphan_count()) == (0, 1)
    assert world.gateway.counters()["names_of_several_orders"] >= 1


def test_a_foreign_tag_is_not_ours_even_with_a_number_that_is_used_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.broker.answers.append(CallResult(Outcome.SENT, BrokerIds("", "", "N1")))
    world.place(lots=3)
    world.fill(BrokerIds("", "", "N1"), "d1", tag="ZZZZZZ")
    assert (world.position, world.gateway.orphan_count()) == (0, 1)


def test_a_total_of_the_broker_and_its_late_deals_count_once(tmp_path: Path) -> None:
    """Reconciliation counted two lots from the total; their deals come afterwards, and one more."""
    world = World(tmp_path)
    request = world.place(lots=3)
    synthetic = f"syn.{'1'}.{_base62(2 * LOT)}"
    world.fill(B1, synthetic, lots=2)
    assert world.order_ids.has_synthetic(request.order_id)
    speak(world, request, "f1 f2")
    assert world.position == 2
    world = world.again()
    assert world.order_ids.has_synthetic(request.order_id)
    speak(world, request, "f1 f2 f3 f3")
    world.fill(B1, synthetic, lots=2)
    assert world.position == 3
    world.fill(B1, f"syn.1.{_base62(3 * LOT)}", lots=1)
    assert world.position == 3, "the deal came first, the total holds it"


def _base62(number: int) -> str:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    text = ""
    while number:
        number, digit = divmod(number, 62)
        text = digits[digit] + text
    return text


def test_a_clock_ahead_of_ours_does_not_move_the_sessions_time(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.place(lots=3)
    far = world.now_ns + 10**15
    world.gateway.on_fill(FillEvent(B1, "d1", TXF.symbol, 1, MID * LOT, LOT, far, far))
    assert world.position == 1
    assert world.session.state()["last_time_ns"] < world.now_ns + MS


def test_the_same_reports_give_the_same_records(tmp_path: Path) -> None:
    tapes = []
    for name in ("first", "second"):
        world = World(tmp_path / name)
        request = world.place(lots=3)
        speak(world, request, "f1 w f1 K f2 c k f3")
        world.fill(BrokerIds("H1"), "d1")
        world.gateway.step(world.now_ns + ORPHAN_WAIT_NS)
        world.session.close()
        tapes.append(_core.read_log(str(tmp_path / name / "orders"))["tape"])
    assert tapes[0] == tapes[1]


def test_what_went_on_is_decided_again_from_the_log(tmp_path: Path) -> None:
    """Routes change no decision: the log replays over a crash."""
    world = World(tmp_path)
    request = world.place(lots=3)
    speak(world, request, "w f1")
    world = world.again()
    speak(world, request, "f1 f2 f3")
    position = world.position
    world = world.again()
    assert world.position == position == 3
    assert world.session.recovered()["odd_records"] == 0
