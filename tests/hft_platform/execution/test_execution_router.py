"""ExecutionRouter: one destination for every instrument, and no half answers."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.execution.execution_router import Destination, ExecutionRouter
from hft_platform.market.instruments import load_instruments
from hft_platform.order.broker import (
    AccountState,
    BrokerIds,
    BrokerPosition,
    CallResult,
    OrderTicket,
    Outcome,
)
from tests.hft_platform.order.live_world import ToldBroker

TABLE = load_instruments()
TXF = TABLE.by_symbol("TXFD6")
TMF = dataclasses.replace(TXF, symbol="TMFD6", instrument_id=1_002)
COIN = next(row for row in TABLE if row.venue != TXF.venue)
BY_VENUE = {TXF.venue: Destination("tw", "F1"), COIN.venue: Destination("coin", "C1")}


class Answering(ToldBroker):
    """Answers questions, or fails to."""

    def __init__(self, rows: list[BrokerPosition], account: AccountState) -> None:
        super().__init__()
        self.rows, self.state, self.is_down = rows, account, False

    def positions(self) -> list[BrokerPosition]:
        if self.is_down:
            raise PlatformError(ReasonCode.BROKER_QUERY_FAILED, "down")
        return self.rows

    def account(self) -> AccountState:
        return self.state


def two() -> tuple[Answering, Answering, ExecutionRouter]:
    tw = Answering([BrokerPosition("TXFD6", 3, 7)], AccountState(5, 1, 2, {"TXFD6": 9}))
    coin = Answering([], AccountState(4, 1, 2, {COIN.symbol: 8}))
    return tw, coin, ExecutionRouter([TXF, TMF, COIN], {"tw": tw, "coin": coin}, BY_VENUE)


def ticket(symbol: str) -> OrderTicket:
    return OrderTicket(1, "AAAAAA", symbol, 1, 1, 1)


def test_each_order_goes_to_its_broker_and_an_unknown_one_to_none() -> None:
    tw, coin, router = two()
    assert router.place(ticket("TXFD6")).outcome is Outcome.SENT
    assert router.place(ticket(COIN.symbol)).outcome is Outcome.SENT
    router.cancel(BrokerIds("B1"), COIN.symbol)
    assert ([row.symbol for row in tw.placed], [row.symbol for row in coin.placed]) == (
        ["TXFD6"], [COIN.symbol],
    )  # fmt: skip
    assert (tw.canceled, coin.canceled) == ([], [BrokerIds("B1")])
    for refused in (router.place(ticket("NONE")), router.cancel(BrokerIds(), "NONE"),
                    router.amend(BrokerIds(), "NONE", price=1, qty=None)):  # fmt: skip
        assert refused == CallResult(
            Outcome.REJECTED, code=ReasonCode.CONTRACT_UNKNOWN, message=refused.message
        )
    assert router.destination("TMFD6") == Destination("tw", "F1")
    with pytest.raises(PlatformError):
        router.destination("NONE")


def test_an_exception_for_a_symbol_goes_before_its_venue() -> None:
    tw, coin = ToldBroker(), ToldBroker()
    router = ExecutionRouter(
        [TXF, TMF], {"tw": tw, "coin": coin}, {TXF.venue: Destination("tw", "F1")},
        {"TMFD6": Destination("coin", "C1")},
    )  # fmt: skip
    router.place(ticket("TMFD6"))
    assert (len(tw.placed), len(coin.placed)) == (0, 1)


def test_part_of_an_answer_is_none() -> None:
    _, coin, router = two()
    assert router.positions() == [BrokerPosition("TXFD6", 3, 7)]
    coin.rows = [BrokerPosition("TXFD6", -1, 9)]
    assert router.positions() == [BrokerPosition("TXFD6", 2)]
    coin.is_down = True
    with pytest.raises(PlatformError):
        router.positions()


def test_money_of_two_accounts_is_not_added() -> None:
    _, _, router = two()
    assert router.account() == AccountState(4, None, None, {"TXFD6": 9, COIN.symbol: 8})


@pytest.mark.parametrize(
    ("by_venue", "by_symbol"),
    [
        ({TXF.venue: BY_VENUE[TXF.venue]}, {}),
        (BY_VENUE | {"NOWHERE": Destination("tw", "F1")}, {}),
        (BY_VENUE, {"NONE": Destination("tw", "F1")}),
        (BY_VENUE, {"TXFD6": Destination("nobody", "F1")}),
    ],
)
def test_an_instrument_without_a_broker_and_a_route_without_an_instrument_are_refused(
    by_venue: dict[str, Destination], by_symbol: dict[str, Destination]
) -> None:
    brokers: dict[str, Any] = {"tw": ToldBroker(), "coin": ToldBroker()}
    with pytest.raises(PlatformError) as refused:
        ExecutionRouter([TXF, COIN], brokers, by_venue, by_symbol)
    assert refused.value.code == ReasonCode.SETTINGS_INVALID
