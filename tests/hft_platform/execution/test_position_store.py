"""PositionStore: one accounting, in integers."""

from __future__ import annotations

import numpy as np
import pytest

from hft_platform import records
from hft_platform.execution.position_store import account_session, fills_of, trade_cost
from hft_platform.market.instruments import load_instruments
from hft_platform.records import SCALE

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def txf():
    return load_instruments().by_symbol("TXFD6")


def books(prices: list[tuple[int, int, int]]) -> np.ndarray:
    rows = records.empty("Book", len(prices))
    for row, (second, bid, ask) in zip(rows, prices, strict=True):
        row["exchange_time_ns"] = second * SECOND
        row["bid_price"][0], row["ask_price"][0] = bid * SCALE, ask * SCALE
        row["bid_qty"][0] = row["ask_qty"][0] = SCALE
    return rows


def fill(second: int, side: int, lots: int, price: int, order: int, seq: int) -> np.ndarray:
    rows = records.empty("Broker", 1)
    rows["event_kind"], rows["order_id"], rows["broker_seq"] = 3, order, seq
    rows["exchange_time_ns"], rows["side"] = second * SECOND, side
    rows["qty"], rows["price"] = lots * SCALE, price * SCALE
    return rows


MARKET = books([(1, 20_000, 20_002), (2, 20_004, 20_006), (3, 20_010, 20_012), (9, 20_000, 20_002)])


def test_a_round_trip_earns_points_times_multiplier_less_both_sides_costs(txf) -> None:
    broker = np.concatenate([fill(1, 1, 1, 20_002, 1, 1), fill(3, -1, 1, 20_010, 2, 2)])
    account = account_session(broker, MARKET, txf)
    assert account.gross == 8 * 200 * SCALE
    assert account.fees == trade_cost(txf, 20_002 * SCALE, SCALE, 1, is_maker=False) + trade_cost(
        txf, 20_010 * SCALE, SCALE, -1, is_maker=False
    )
    assert account.net == account.gross - account.fees
    (trip,) = account.round_trips
    assert (trip.side, trip.qty, trip.gross) == (1, SCALE, account.gross)
    assert trip.mid_edge_ticks == pytest.approx(10.0)


def test_a_fill_through_zero_closes_one_round_trip_and_opens_the_next(txf) -> None:
    broker = np.concatenate(
        [fill(1, 1, 1, 20_002, 1, 1), fill(2, -1, 2, 20_004, 2, 2), fill(3, 1, 1, 20_012, 3, 3)]
    )
    account = account_session(broker, MARKET, txf)
    assert [trip.side for trip in account.round_trips] == [1, -1]
    assert sum(trip.gross for trip in account.round_trips) == account.gross == (2 - 8) * 200 * SCALE
    assert sum(trip.fees for trip in account.round_trips) == account.fees
    assert account.position_qty == 0


def test_an_open_position_is_marked_to_the_last_mid(txf) -> None:
    account = account_session(fill(1, 1, 1, 20_002, 1, 1), MARKET, txf)
    assert account.gross == (20_001 - 20_002) * 200 * SCALE
    assert account.position_qty == SCALE
    assert account.equity[-1] == account.net
    assert account.max_drawdown >= 9 * 200 * SCALE


def test_a_fill_reported_twice_counts_once(txf) -> None:
    broker = np.concatenate([fill(1, 1, 1, 20_002, 1, 1), fill(1, 1, 1, 20_002, 1, 1)])
    assert fills_of(broker).size == 1
    assert account_session(broker, MARKET, txf).position_qty == SCALE


def test_a_session_without_fills_is_flat(txf) -> None:
    account = account_session(records.empty("Broker", 0), MARKET, txf)
    assert (account.net, account.fill_count, account.max_drawdown) == (0, 0, 0)
