"""An order of unknown outcome: nothing opens in its contract until it is resolved, exits pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hft_platform.errors import ReasonCode
from hft_platform.input_records import BrokerKind, broker_record
from hft_platform.order.broker import BrokerIds, CallResult, EventKind, Outcome
from tests.hft_platform.order.live_world import LOT, TXF, World

AMBIGUOUS = CallResult(Outcome.AMBIGUOUS, code=ReasonCode.BROKER_TIMEOUT)
PLACE, APPROVED = 1, 1


def refused(world: World, side: int = 1, *, alpha: int = 0) -> int:
    """Want an order that the engine refuses; gives its code, 0 when it was let out."""
    world.external[alpha] = max(world.external[alpha] + 1, world.epoch << 16)
    world._intent(alpha, 1, side, 1, 20_000, world.external[alpha], 0)
    if world.session.next_request(0) is not None:
        return 0
    world.session.routes()  # Has the log synced.
    row: dict[str, Any] = world.written("Decision")[-1]
    assert (row["action"], row["verdict"] == APPROVED) == (PLACE, False)
    return int(row["reason_code"])


@pytest.mark.parametrize("how", ["working", "abandoned"])
def test_nothing_opens_in_a_contract_with_an_unknown_order(tmp_path: Path, how: str) -> None:
    world = World(tmp_path)
    held = world.place()
    world.fill(BrokerIds("B1", "S1", ""), "f1")
    assert world.position == 1
    world.broker.answers.append(AMBIGUOUS)
    unknown = world.place()
    assert world.state(unknown.order_id) == "unknown"
    for alpha in (0, 1):
        assert refused(world, alpha=alpha) == ReasonCode.REDUCE_ONLY_ON
    # The position can be left meanwhile, and nothing was latched that a person must lift.
    assert world.place(side=-1).side == -1
    world.fill(BrokerIds("B3", "S3", ""), "f2", side=-1)
    assert world.position == 0
    assert world.state(held.order_id) == "filled"
    assert not world.session.state()["halted_by"]
    if how == "working":
        world.event(EventKind.WORKING, BrokerIds("B2", "S2", ""), tag=unknown.tag)
    else:
        world.session.push(
            broker_record(
                BrokerKind.REJECTED, order_id=unknown.order_id, instrument_id=TXF.instrument_id,
                receive_time_ns=world.now_ns, side=1, price=unknown.price, qty=LOT,
                remaining_qty=0, code=int(ReasonCode.INTENT_ABANDONED),
            )
        )  # fmt: skip
    assert world.state(unknown.order_id) != "unknown"
    for alpha in (0, 1):
        assert refused(world, alpha=alpha) == 0, "it is lifted by itself"


def test_a_cancel_of_unknown_outcome_restricts_as_well(tmp_path: Path) -> None:
    world = World(tmp_path)
    order = world.place()
    world.event(EventKind.WORKING, BrokerIds("B1", "S1", ""))
    request = world.want_cancel(order.order_id)
    world.broker.answers.append(AMBIGUOUS)
    world.adapter.execute(request)
    assert world.state(order.order_id) == "unknown"
    assert refused(world, alpha=1) == ReasonCode.REDUCE_ONLY_ON
    world.event(EventKind.CANCELED, BrokerIds("B1", "S1", ""))
    assert refused(world, alpha=1) == 0
