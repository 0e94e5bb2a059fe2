"""Random conversations: lost, doubled, shuffled, cut by crashes; every fill counts once."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from hft_platform.errors import ReasonCode
from hft_platform.order.broker import (
    BrokerIds,
    CallResult,
    EventKind,
    FillEvent,
    OrderEvent,
    Outcome,
)
from tests.hft_platform.order.live_world import LOT, MID, MS, SECOND, TXF, World

CASES = int(os.environ.get("HFT_FUZZ_CASES", "0")) // 20 or 40
Report = OrderEvent | FillEvent


@dataclass(frozen=True)
class Truth:
    """An order as it is at the broker, whatever anybody was told."""

    order_id: int
    tag: str
    ids: BrokerIds
    side: int
    reports: tuple[Report, ...]

    @property
    def filled(self) -> int:
        """Lots."""
        return sum(one.qty // LOT for one in self.reports if isinstance(one, FillEvent))


def draw_truth(draw: Random, world: World, number: int) -> tuple[Truth, Any]:
    """Want an order and draw what becomes of it; half of the calls are of unknown outcome."""
    side, lots = draw.choice((1, -1)), draw.randint(1, 4)
    ids = BrokerIds(f"B{number}", f"S{number}", f"N{number}")
    if draw.random() < 0.5:
        world.broker.answers.append(CallResult(Outcome.AMBIGUOUS, code=ReasonCode.BROKER_TIMEOUT))
    else:
        world.broker.answers.append(CallResult(Outcome.SENT, replace(ids, ordno="")))
    request = world.want(side, lots, MID - number if side > 0 else MID + 1 + number)
    facts = {"symbol": TXF.symbol, "side": side}
    reports: list[Report] = [OrderEvent(EventKind.WORKING, ids, 0, 0, **facts)]
    left = lots
    while left and draw.random() < 0.8:
        part = draw.randint(1, left)
        left -= part
        # Two fills of different orders may well have the same name.
        name = f"{len(reports)}"
        price = request.price
        reports.append(FillEvent(ids, name, TXF.symbol, side, price, part * LOT, 0, 0))
    if left:
        kind = draw.choice((EventKind.CANCELED, EventKind.EXPIRED))
        reports.append(OrderEvent(kind, ids, 0, 0, **facts))
    return Truth(request.order_id, request.tag, ids, side, tuple(reports)), request


def tell(world: World, report: Report, tag: str) -> None:
    """The broker reports, with the tag or without."""
    world.now_ns += MS
    report = replace(report, tag=tag, exchange_time_ns=world.now_ns, receive_time_ns=world.now_ns)
    if isinstance(report, FillEvent):
        world.gateway.on_fill(report)
    else:
        world.gateway.on_order(report)


@pytest.mark.parametrize("seed", range(CASES))
def test_no_fill_counts_twice_and_after_the_brokers_truth_the_position_is_its(
    tmp_path: Path, seed: int
) -> None:
    draw = Random(seed)
    world = World(tmp_path, failures_max=100)
    drawn = [draw_truth(draw, world, number + 1) for number in range(draw.randint(1, 4))]
    truths = [truth for truth, _ in drawn]
    for _, request in drawn:  # All are wanted before the first call: behind an unknown none is.
        world.adapter.execute(request)
    noise = [
        (truth, report)
        for truth in truths
        for report in truth.reports
        for _ in range(draw.choice((0, 1, 1, 2, 3)))
    ]
    draw.shuffle(noise)
    for truth, report in noise:
        # Futures events carry no tag; a partial set of names comes first.
        ids = draw.choice(
            (report.ids, replace(report.ids, seqno=""), replace(report.ids, ordno=""))
        )
        tell(world, replace(report, ids=ids), truth.tag if draw.random() < 0.2 else "")
        if draw.random() < 0.05:
            world.gateway.step(world.now_ns + 60 * SECOND)
        if draw.random() < 0.1:
            world = world.again()
        for one in truths:
            order = world.session.order(one.order_id)
            assert order is not None
            assert order["filled_qty"] // LOT <= one.filled, "a fill was counted twice"
    # Reconciliation reads the broker's list: every order with its tag, names and fills.
    for truth in draw.sample(truths, len(truths)):
        for report in truth.reports:
            tell(world, report, truth.tag)
    expected = sum(truth.side * truth.filled for truth in truths)
    for life in range(2):
        assert world.position == expected, f"life {life}"
        assert world.session.orders() == []
        assert world.gateway.orphan_count() == 0
        for truth in truths:
            order = world.session.order(truth.order_id)
            assert order is not None
            assert order["filled_qty"] == truth.filled * LOT
        world = world.again()
    world.session.close()
    fills = [row for row in world.written("Broker") if row["event_kind"] == 3]
    seqs = {row["broker_seq"] for row in fills}
    assert len(seqs) == sum(isinstance(one, FillEvent) for t in truths for one in t.reports)
