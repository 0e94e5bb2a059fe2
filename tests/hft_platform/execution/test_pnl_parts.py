"""Profit taken apart: the parts are the account's own numbers, however the fills came."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hft_platform.execution.pnl_parts import pnl_parts
from hft_platform.execution.position_store import account_session, trade_cost
from hft_platform.market.costs import ValueBpsCosts
from hft_platform.market.instruments import Instrument, load_instruments
from hft_platform.records import SCALE
from tests.hft_platform.execution.test_position_store import MARKET, fill

TXF = load_instruments().by_symbol("TXFD6")


def parts_of(broker: np.ndarray, instrument: Instrument = TXF) -> dict[str, int]:
    """Parts of the profit of some fills."""
    return pnl_parts(broker, account_session(broker, MARKET, instrument), instrument)


def test_a_closed_lot_is_realized_by_average_cost_and_the_open_one_is_marked() -> None:
    # Bought at 20,002 and 20,006, mean 20,004; one sold at 20,010; the last mid is 20,001.
    broker = np.concatenate(
        [fill(1, 1, 1, 20_002, 1, 1), fill(2, 1, 1, 20_006, 2, 2), fill(3, -1, 1, 20_010, 3, 3)]
    )
    parts = parts_of(broker)
    assert parts["position_qty"] == SCALE
    assert parts["realized"] == 6 * 200 * SCALE
    assert parts["unrealized"] == -3 * 200 * SCALE


def test_the_tax_is_the_cost_without_the_commission() -> None:
    parts = parts_of(fill(1, 1, 3, 20_002, 1, 1))
    assert parts["tax"] == 3 * 80 * SCALE, "20,002 * 200 * 2e-5 is 80.008 a contract, rounded"
    commission = TXF.costs_json()["commission_per_lot"]
    assert parts["fees"] - parts["tax"] == 3 * commission
    assert parts["fees"] == trade_cost(TXF, 20_002 * SCALE, 3 * SCALE, 1, is_maker=False)


def test_a_model_by_value_has_fees_and_no_tax() -> None:
    crypto = dataclasses.replace(TXF, costs=ValueBpsCosts(maker_bps=1.0, taker_bps=5.0))
    parts = parts_of(fill(1, 1, 1, 20_002, 1, 1), crypto)
    assert parts["tax"] == 0
    assert parts["fees"] > 0


FILLS = st.lists(
    st.tuples(st.sampled_from([-1, 1]), st.integers(1, 5), st.integers(19_000, 21_000)), max_size=12
)


@given(FILLS)
def test_parts_add_up_to_the_account_and_a_flat_end_has_nothing_unrealized(
    drawn: list[tuple[int, int, int]],
) -> None:
    rows = [fill(2, side, lots, price, n + 1, n + 1) for n, (side, lots, price) in enumerate(drawn)]
    broker = np.concatenate([fill(1, 1, 1, 20_000, 0, 0)[:0], *rows])
    account = account_session(broker, MARKET, TXF)
    parts = parts_of(broker)
    assert parts["realized"] + parts["unrealized"] == account.gross
    assert parts["net"] == account.net == parts["realized"] + parts["unrealized"] - parts["fees"]
    assert parts["position_qty"] == account.position_qty
    assert 0 <= parts["tax"] <= parts["fees"]
    if account.position_qty == 0:
        assert parts["unrealized"] == 0


def test_without_a_fill_everything_is_zero() -> None:
    assert set(parts_of(fill(1, 1, 1, 20_000, 0, 0)[:0]).values()) == {0}


@pytest.mark.parametrize("side", [1, -1])
def test_a_doubled_report_counts_once(side: int) -> None:
    once = fill(1, side, 2, 20_002, 1, 1)
    assert parts_of(np.concatenate([once, once])) == parts_of(once)
