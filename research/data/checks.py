"""Row checks: which rows of a source never become records of a dataset, and why.

Why: one crossed book or negative price can make an edge out of nothing.

Invariants:
1. Every rejected row has exactly one reason: the first in the order of the checks below.
2. Order of kept rows is the source's; a check never moves a row.
3. Time going back rejects the fewest rows that leave the rest in order.

Prices and sizes arrive as integers at 1e-8. Operator's page: `docs/recordings.md`.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
import numpy.typing as npt

from hft_platform.errors import ReasonCode
from hft_platform.feed.recording import Records
from hft_platform.market.instruments import Instrument
from hft_platform.records import SCALE
from research.data.rows import SIDE_UNKNOWN, SIMULATED_MATCH, Faults, Mask, Rows, mark

VALUE_LIMIT = 10_000_000_000 * SCALE
"""Decimal(18, 8): |x| < 1e10."""

Ints = npt.NDArray[np.int64]


def check_times(rows: Rows) -> None:
    """Refuse rows whose time is not positive."""
    for stream, faults in rows.streams():
        mark(faults, stream["exchange_time_ns"] <= 0, ReasonCode.VALUE_OUT_OF_RANGE)
        mark(faults, stream["receive_time_ns"] < 0, ReasonCode.VALUE_OUT_OF_RANGE)


def check_session(faults: Faults, stream: Records, *, outside: Mask, preopen: Mask) -> None:
    """Refuse rows outside sessions, and trial matches before or inside them."""
    is_trial = (stream["flags"] & SIMULATED_MATCH) != 0
    mark(faults, preopen | (is_trial & ~outside), ReasonCode.SIMULATED_MATCH)
    mark(faults, outside, ReasonCode.OUTSIDE_SESSION)


def check_books(books: Records, faults: Faults, instrument: Instrument) -> None:
    """Refuse books that no market could show."""
    bid_p, bid_q = books["bid_price"], books["bid_qty"]
    ask_p, ask_q = books["ask_price"], books["ask_qty"]
    no_bid, no_ask = (bid_p == 0) & (bid_q == 0), (ask_p == 0) & (ask_q == 0)
    both_p, both_q = np.hstack([bid_p, ask_p]), np.hstack([bid_q, ask_q])
    there = ~np.hstack([no_bid, no_ask])
    _check_values(faults, both_p, both_q, there, instrument)
    mark(faults, no_bid[:, 0] | no_ask[:, 0], ReasonCode.BOOK_SIDE_EMPTY)
    hole = (no_bid[:, :-1] & ~no_bid[:, 1:]) | (no_ask[:, :-1] & ~no_ask[:, 1:])
    bid_wrong = (bid_p[:, 1:] >= bid_p[:, :-1]) & ~no_bid[:, 1:]
    ask_wrong = (ask_p[:, 1:] <= ask_p[:, :-1]) & ~no_ask[:, 1:]
    mark(faults, (hole | bid_wrong | ask_wrong).any(axis=1), ReasonCode.LEVELS_UNORDERED)
    mark(faults, bid_p[:, 0] >= ask_p[:, 0], ReasonCode.BOOK_CROSSED)


def check_trades(trades: Records, faults: Faults, instrument: Instrument) -> None:
    """Refuse prints that no market could make; flag those without an aggressor."""
    price, qty = trades["price"][:, None], trades["qty"][:, None]
    _check_values(faults, price, qty, np.ones(price.shape, dtype=np.bool_), instrument)
    side = trades["aggressor_side"]
    unknown = (side != 1) & (side != -1)
    trades["aggressor_side"][unknown] = 0
    trades["flags"][unknown] |= SIDE_UNKNOWN


def _check_values(
    faults: Faults, price: Ints, qty: Ints, there: Mask, instrument: Instrument
) -> None:
    too_large = _beyond(price) | _beyond(qty)
    tick, lot = instrument.tick_size, instrument.lot_size
    for wrong, code in (
        (too_large, ReasonCode.VALUE_OUT_OF_RANGE),
        (there & (price <= 0), ReasonCode.PRICE_NOT_POSITIVE),
        (there & (qty <= 0), ReasonCode.QTY_NOT_POSITIVE),
        (price % tick != 0, ReasonCode.PRICE_OFF_TICK_GRID),
        (qty % lot != 0, ReasonCode.QTY_OFF_LOT_GRID),
    ):
        row: Mask = np.any(wrong, axis=1)
        mark(faults, row, code)


def _beyond(values: Ints) -> Mask:
    return (values >= VALUE_LIMIT) | (values <= -VALUE_LIMIT)


def check_duplicates(stream: Records, faults: Faults) -> None:
    """Refuse the second and later rows of one `source_seq`, or of one trade id."""
    seq = stream["source_seq"]
    mark(faults, _repeats(seq), ReasonCode.DUPLICATE_ROW)
    if stream.dtype.names is not None and "trade_id" in stream.dtype.names:
        trade_id = stream["trade_id"]
        mark(faults, _repeats(trade_id) & (trade_id != 0), ReasonCode.DUPLICATE_ROW)


def _repeats(values: npt.NDArray[np.uint64]) -> Mask:
    """Whether an equal value stands before, for each place."""
    if values.size == 0 or bool((values[1:] > values[:-1]).all()):
        return np.zeros(values.shape, dtype=np.bool_)
    _, first = np.unique(values, return_index=True)
    repeated = np.ones(values.shape, dtype=np.bool_)
    repeated[first] = False
    return repeated


def check_order(stream: Records, faults: Faults) -> None:
    """Refuse the fewest rows so that exchange time never goes back among those kept."""
    kept = np.flatnonzero(faults == 0)
    times = stream["exchange_time_ns"][kept]
    if bool((times[1:] >= times[:-1]).all()):
        return
    out_of_order = np.ones(kept.size, dtype=np.bool_)
    out_of_order[_longest_in_order(times)] = False
    faults[kept[out_of_order]] = ReasonCode.OUT_OF_ORDER_ROW


def _longest_in_order(times: Ints) -> Ints:
    """Places of a longest subsequence that never goes back (patience sorting)."""
    # Row by row in Python: runs only on a source whose time does go back.
    tails: list[int] = []
    tail_places: list[int] = []
    before = np.full(times.size, -1, dtype=np.int64)
    for place, time_ns in enumerate(times.tolist()):
        pile = bisect_right(tails, time_ns)
        if pile == len(tails):
            tails.append(time_ns)
            tail_places.append(place)
        else:
            tails[pile] = time_ns
            tail_places[pile] = place
        before[place] = tail_places[pile - 1] if pile else -1
    chain: list[int] = []
    place = tail_places[-1]
    while place >= 0:
        chain.append(place)
        place = int(before[place])
    return np.array(chain[::-1], dtype=np.int64)
