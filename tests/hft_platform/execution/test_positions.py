"""PositionStore: conservation, costs by hand, and the account that a session's fills make."""

from __future__ import annotations

import dataclasses
import os
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hft_platform import records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.execution.pnl_parts import pnl_parts
from hft_platform.execution.position_store import account_session, fills_of
from hft_platform.execution.positions import (
    CostBook,
    CostMethod,
    Fill,
    Pnl,
    PositionStore,
    alpha_of,
    pnl_of_fills,
    value_of,
)
from hft_platform.market.costs import TaiwanStockCosts, trade_cost, trade_tax
from hft_platform.market.instruments import Instrument, load_instruments
from hft_platform.records import SCALE
from tests.hft_platform.execution.test_position_store import MARKET, fill

CASES = int(os.environ.get("HFT_FUZZ_CASES", "80"))
TXF = load_instruments().by_symbol("TXFD6")
# A contract whose values do not come out even: every rounding rule is used.
ODD = dataclasses.replace(TXF, instrument_id=2, multiplier=1_234_567, lot_size=1)
METHODS = list(CostMethod)


def one(
    side: int, lots: int, price: int, seq: int, *, strategy: str = "a", account: str = "x",
    instrument: Instrument = TXF,
) -> Fill:  # fmt: skip
    return Fill(strategy, account, instrument.instrument_id, side, price, lots, 20260410, 1, seq)


def lots_at(*rows: tuple[int, int, int]) -> list[Fill]:
    return [one(side, n * SCALE, price * SCALE, seq) for seq, (side, n, price) in enumerate(rows)]


# Side, lots and price of each fill, the mark; position, realized first in first out and by average
# cost, unrealized both ways: worked out by hand, in points times lots (200 NTD each).
BY_HAND = [
    ("flat", [], 100, (0, 0, 0, 0, 0)),
    ("held", [(1, 2, 100)], 103, (2, 0, 0, 6, 6)),
    ("short", [(-1, 2, 100)], 103, (-2, 0, 0, -6, -6)),
    ("closed", [(1, 1, 100), (-1, 1, 105)], 103, (0, 5, 5, 0, 0)),
    ("oldest first", [(1, 1, 100), (1, 1, 110), (-1, 1, 108)], 120, (1, 8, 3, 10, 15)),
    ("part of a lot", [(1, 3, 100), (-1, 1, 104)], 102, (2, 4, 4, 4, 4)),
    ("through zero", [(1, 1, 100), (-1, 3, 90)], 95, (-2, -10, -10, -10, -10)),
    ("and back", [(1, 1, 100), (-1, 3, 90), (1, 2, 80)], 1, (0, 10, 10, 0, 0)),
    ("two shorts", [(-1, 1, 100), (-1, 1, 90), (1, 1, 95)], 95, (-1, 5, 0, -5, 0)),
]


@pytest.mark.parametrize(
    ("rows", "mark", "expected"), [row[1:] for row in BY_HAND], ids=[row[0] for row in BY_HAND]
)
def test_results_by_hand(
    rows: list[tuple[int, int, int]], mark: int, expected: tuple[int, int, int, int, int]
) -> None:
    qty, fifo, average, open_fifo, open_average = expected
    for method, realized, unrealized in (
        (CostMethod.FIFO, fifo, open_fifo), (CostMethod.AVERAGE, average, open_average),
    ):  # fmt: skip
        pnl = pnl_of_fills(lots_at(*rows), TXF, mark=mark * SCALE, method=method)
        assert pnl.position_qty == qty * SCALE
        assert (pnl.realized, pnl.unrealized) == (
            realized * 200 * SCALE, unrealized * 200 * SCALE,
        )  # fmt: skip


FILLS = st.lists(
    st.tuples(
        st.sampled_from([-1, 1]),
        st.integers(1, 3 * SCALE),
        st.integers(1, 30_000 * SCALE),
        st.sampled_from("abc"),
    ),
    max_size=25,
)


@settings(max_examples=CASES, deadline=None)
@given(FILLS, st.integers(1, 30_000 * SCALE), st.sampled_from(METHODS))
def test_nothing_is_lost_by_rounding(
    drawn: list[tuple[int, int, int, str]], mark: int, method: CostMethod
) -> None:
    """Invariants 1 and 3, on a contract where nothing comes out even."""
    store = PositionStore({2: ODD}, method=method)
    whole = PositionStore({2: ODD}, method=method)
    for seq, (side, qty, price, strategy) in enumerate(drawn):
        fill_of = one(side, qty, price, seq, strategy=strategy, instrument=ODD)
        assert store.take(fill_of)
        assert not store.take(fill_of), "counted twice"
        assert whole.take(dataclasses.replace(fill_of, strategy="all"))
    store.mark(2, mark)
    whole.mark(2, mark)
    for key in store.entries():
        pnl = store.pnl(*key)
        value = value_of(mark, pnl.position_qty, ODD.multiplier)
        assert pnl.realized + pnl.unrealized == pnl.cash + value
    total, account = store.account_pnl("x", 2), whole.account_pnl("x", 2)
    for name in ("position_qty", "cash", "fees", "tax", "fill_count"):
        assert getattr(total, name) == getattr(account, name), name
    # Each position is rounded down once, so parts may be worth less by one unit each.
    assert 0 <= account.gross - total.gross <= max(0, len(store.entries()) - 1)


@settings(max_examples=CASES, deadline=None)
@given(FILLS)
def test_the_methods_agree_on_everything_but_what_is_realized(
    drawn: list[tuple[int, int, int, str]],
) -> None:
    books = {method: CostBook(method) for method in METHODS}
    for side, qty, price, _ in drawn:
        for book in books.values():
            book.add(side, price, qty, ODD.multiplier)
        fifo, average = books[CostMethod.FIFO], books[CostMethod.AVERAGE]
        assert (fifo.position_qty, fifo.cash) == (average.position_qty, average.cash)
        assert fifo.realized - fifo.cost == average.realized - average.cost
        for book in books.values():
            assert sum(qty for qty, _ in book.lots) == book.position_qty
            assert all(lot[0] * book.position_qty > 0 for lot in book.lots)
            if book.position_qty == 0:
                assert (book.cost, book.realized) == (0, book.cash)


@settings(max_examples=CASES, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([-1, 1]), st.integers(1, 5), st.integers(19_000, 21_000)),
        max_size=12,
    )
)
def test_fills_make_the_sessions_account_to_the_unit(drawn: list[tuple[int, int, int]]) -> None:
    """Two implementations of one account: this, and the arrays that research uses."""
    rows = [fill(2, side, lots, price, n + 1, n + 1) for n, (side, lots, price) in enumerate(drawn)]
    broker = np.concatenate([fill(1, 1, 1, 20_000, 0, 0)[:0], *rows])
    account = account_session(broker, MARKET, TXF)
    store = PositionStore({0: TXF, TXF.instrument_id: TXF}, method=CostMethod.AVERAGE)
    assert store.take_records(fills_of(broker), {0: "a"}) == len(drawn)
    assert store.take_records(broker, {0: "a"}) == 0
    if not drawn:
        return
    (key,) = store.entries()
    mid = (int(MARKET["bid_price"][-1, 0]) + int(MARKET["ask_price"][-1, 0])) // 2
    store.mark(key[2], mid)
    pnl = store.pnl(*key)
    parts = pnl_parts(broker, account, TXF)
    assert (pnl.net, pnl.gross, pnl.fees) == (account.net, account.gross, account.fees)
    assert (pnl.realized, pnl.unrealized, pnl.tax) == (
        parts["realized"], parts["unrealized"], parts["tax"],
    )  # fmt: skip


def test_a_fill_costs_by_the_rules_of_its_day() -> None:
    later = dataclasses.replace(TXF.costs, commission_per_lot=30 * SCALE)
    changing = dataclasses.replace(TXF, changes=((20260411, {"costs": later}),))
    store = PositionStore({TXF.instrument_id: changing})
    before = one(1, SCALE, 20_000 * SCALE, 1)
    store.take(before)
    store.take(dataclasses.replace(before, side=-1, fill_seq=2, trading_day=20260411))
    pnl = store.account_pnl("x", TXF.instrument_id)
    assert pnl.tax == 2 * 80 * SCALE
    assert pnl.fees - pnl.tax == (60 + 30) * SCALE


def test_a_stock_pays_tax_on_its_sale_only_and_the_fee_is_none() -> None:
    costs = TaiwanStockCosts(1_425_000, 1_000_000, 20 * SCALE, 3_000_000)
    trade = {"price": 100 * SCALE, "qty": 1_000 * SCALE, "multiplier": SCALE, "is_maker": False}
    assert trade_tax(costs, side=1, **trade) == 0
    assert trade_tax(costs, side=-1, **trade) == 300 * SCALE
    assert trade_cost(costs, side=-1, **trade) == (300 + 142) * SCALE


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"instrument_id": 9}, ReasonCode.UNKNOWN_INSTRUMENT),
        ({"side": 0}, ReasonCode.ORDER_FIELD_INVALID),
        ({"price": 0}, ReasonCode.ORDER_FIELD_INVALID),
        ({"qty": -1}, ReasonCode.ORDER_FIELD_INVALID),
        ({"price": 10**18, "qty": 10**18}, ReasonCode.ARITHMETIC_OVERFLOW),
    ],
)
def test_a_fill_that_is_none_changes_nothing(change: dict[str, int], code: ReasonCode) -> None:
    store = PositionStore({TXF.instrument_id: TXF})
    bad = dataclasses.replace(one(1, SCALE, SCALE, 1), **change)
    with pytest.raises(PlatformError) as refused:
        store.take(bad)
    assert refused.value.code == code
    assert store.entries() == []
    assert store.take(one(1, SCALE, SCALE, 1))


def test_accounts_and_strategies_are_kept_apart() -> None:
    store = PositionStore({TXF.instrument_id: TXF})
    for account, strategy, side in (("x", "a", 1), ("x", "b", -1), ("y", "a", 1)):
        store.take(one(side, SCALE, 20_000 * SCALE, 1 if side > 0 else 2,
                       strategy=strategy, account=account))  # fmt: skip
    assert store.position_qty("x", TXF.instrument_id) == 0
    assert store.position_qty("y", TXF.instrument_id) == SCALE
    assert store.average_price("x", "b", TXF.instrument_id) == 20_000 * SCALE
    assert store.average_price("z", "b", TXF.instrument_id) is None
    assert store.pnl("z", "a", TXF.instrument_id) == Pnl()


def test_the_alpha_of_an_order_is_in_its_id() -> None:
    assert [alpha_of(number) for number in (1, 1 << 48, (1 << 48) + 1, 3 << 48)] == [0, 0, 1, 2]
    ids = [alpha_of((index << 48) + 1) for index in range(5)]
    assert all(b - a == 1 for a, b in pairwise(ids))
    assert records.SCALE == SCALE
