"""PositionStore: positions, cash, fees and profit from fills, in integers.

One accounting for backtest, paper, live and reports: whoever has fill records and book records of
an instrument gets the same numbers. Money is an integer at 1e-8 of the instrument's currency;
multiplications run in Python integers, so nothing overflows and nothing is rounded but the fees,
by the one rule of `_core.trade_cost`.
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hft_platform import _core
from hft_platform.records import SCALE

if TYPE_CHECKING:
    from hft_platform.market.costs import CostModel
    from hft_platform.market.instruments import Instrument

FILL = 3
"""`BrokerEventKind::Fill` in rust_core/src/record.rs."""

Records = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """From flat to flat (or to the other side), in the order of the fills.

    Attributes
    ----------
    open_time_ns, close_time_ns : int
        Exchange times of the first and the last fill.
    side : int
        +1 long, -1 short.
    qty : int
        Largest absolute position, scaled.
    gross : int
        Money made by prices, before fees.
    fees : int
        Commission and tax of all fills.
    mid_edge_ticks : float
        Move of the mid in our direction between entry and exit, in ticks: what the signal was
        worth before spread and fees.
    """

    open_time_ns: int
    close_time_ns: int
    side: int
    qty: int
    gross: int
    fees: int
    mid_edge_ticks: float

    @property
    def net(self) -> int:
        """Gross less fees."""
        return self.gross - self.fees


@dataclass(frozen=True, slots=True)
class SessionAccount:
    """What one session's fills came to.

    `equity_time_ns` and `equity` (int64 money, shape (n,)) mark every book to its mid, fees
    included; `position_qty` is the signed position at those times.
    """

    gross: int
    fees: int
    position_qty: int
    fill_count: int
    traded_qty: int
    round_trips: tuple[RoundTrip, ...]
    max_drawdown: int
    equity_time_ns: npt.NDArray[np.int64]
    equity: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]

    @property
    def net(self) -> int:
        """Gross less fees; an open position is marked to the last mid."""
        return self.gross - self.fees


def fills_of(broker: Records) -> Records:
    """Fill records among broker records, each `(order_id, broker_seq)` once, by exchange time."""
    fills: Records = broker[broker["event_kind"] == FILL]
    if fills.size == 0:
        return fills
    keys = np.stack([fills["order_id"], fills["broker_seq"]], axis=1)
    _, first = np.unique(keys, axis=0, return_index=True)
    fills = fills[np.sort(first)]
    ordered: Records = fills[np.lexsort((fills["order_id"], fills["exchange_time_ns"]))]
    return ordered


def mids_of(books: Records) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Exchange times and mids (scaled) of the two-sided, uncrossed books."""
    bid, ask = books["bid_price"][:, 0], books["ask_price"][:, 0]
    valid = (bid > 0) & (ask > bid)
    return books["exchange_time_ns"][valid], (bid[valid] + ask[valid]) // 2


@functools.lru_cache(maxsize=64)
def _costs_text(costs: CostModel) -> str:
    return json.dumps(costs.as_dict())


def trade_cost(instrument: Instrument, price: int, qty: int, side: int, *, is_maker: bool) -> int:
    """Commission and tax of one fill as scaled money; see rust_core/src/costs.rs."""
    return int(
        _core.trade_cost(
            _costs_text(instrument.costs), price, qty, instrument.multiplier, side, is_maker
        )
    )


_VALUE_SCALE = SCALE * SCALE


def _value(price: int, qty: int, multiplier: int) -> int:
    return price * qty * multiplier // _VALUE_SCALE


def account_session(broker: Records, books: Records, instrument: Instrument) -> SessionAccount:
    """Account for one instrument's fills of one session.

    Parameters
    ----------
    broker : ndarray of Broker records
        Broker events of the session; everything that is not a fill is ignored.
    books : ndarray of Book records
        Books of the instrument, for marking.
    instrument : Instrument
        Multiplier, tick size and cost model.

    Returns
    -------
    SessionAccount
    """
    fills = fills_of(broker)
    times, mids = mids_of(books)
    cash, position, fees_total, trips = 0, 0, 0, _TripBuilder(instrument)
    cash_steps = np.zeros(fills.size + 1, dtype=object)
    position_steps = np.zeros(fills.size + 1, dtype=np.int64)
    for index, fill in enumerate(fills):
        side, qty, price = int(fill["side"]), int(fill["qty"]), int(fill["price"])
        fee = trade_cost(instrument, price, qty, side, is_maker=bool(fill["is_maker"]))
        mid = _last_mid(times, mids, int(fill["exchange_time_ns"]), price)
        trips.add(int(fill["exchange_time_ns"]), side, qty, price, fee, mid)
        cash -= side * _value(price, qty, instrument.multiplier) + fee
        fees_total += fee
        position += side * qty
        cash_steps[index + 1], position_steps[index + 1] = cash, position
    step = np.searchsorted(fills["exchange_time_ns"], times, side="right")
    held = position_steps[step]
    equity = _equity(cash_steps, position_steps, step, mids, instrument.multiplier)
    last_mid = int(mids[-1]) if mids.size else 0
    net = cash + _value(last_mid, position, instrument.multiplier)
    peak = np.maximum.accumulate(np.maximum(equity, 0)) if equity.size else equity
    return SessionAccount(
        gross=net + fees_total,
        fees=fees_total,
        position_qty=position,
        fill_count=int(fills.size),
        traded_qty=int(fills["qty"].sum()) if fills.size else 0,
        round_trips=tuple(trips.closed),
        max_drawdown=int((peak - equity).max()) if equity.size else 0,
        equity_time_ns=times,
        equity=equity,
        position=held,
    )


def _equity(
    cash_steps: npt.NDArray[np.object_],
    position_steps: npt.NDArray[np.int64],
    step: npt.NDArray[np.int64],
    mids: npt.NDArray[np.int64],
    multiplier: int,
) -> npt.NDArray[np.int64]:
    """Cash and marked position at every book.

    Between two fills the position is one number, so its value is mid times a constant, rounded
    down. That fraction is reduced to what 64 bits hold, or computed in Python's integers.
    """
    equity = np.zeros(mids.size, dtype=np.int64)
    bounds = np.searchsorted(step, np.arange(position_steps.size + 1), side="left")
    highest = int(mids.max()) if mids.size else 0
    for index, position in enumerate(position_steps.tolist()):
        first, end = int(bounds[index]), int(bounds[index + 1])
        if first == end:
            continue
        cash = int(cash_steps[index])
        factor = math.gcd(position * multiplier, SCALE * SCALE)
        times, over = position * multiplier // factor, SCALE * SCALE // factor
        part = mids[first:end]
        if position == 0:
            equity[first:end] = cash
        elif highest * abs(times) <= _INT64_MAX:
            equity[first:end] = cash + part * times // over
        else:
            equity[first:end] = [cash + _value(int(mid), position, multiplier) for mid in part]
    return equity


_INT64_MAX = 2**63 - 1


def _last_mid(
    times: npt.NDArray[np.int64], mids: npt.NDArray[np.int64], at_ns: int, otherwise: int
) -> int:
    index = int(np.searchsorted(times, at_ns, side="right")) - 1
    return int(mids[index]) if index >= 0 else otherwise


class _TripBuilder:
    """Cuts fills into round trips; a fill through zero closes one and opens the next."""

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.closed: list[RoundTrip] = []
        self._reset()

    def _reset(self) -> None:
        self.position = 0
        self.peak_qty = 0
        self.cash = 0
        self.fees = 0
        self.mid_value = 0
        self.side = 0
        self.open_time_ns = 0

    def add(self, time_ns: int, side: int, qty: int, price: int, fee: int, mid: int) -> None:
        closing = min(qty, abs(self.position)) if side * self.position < 0 else 0
        fee_closing = fee * closing // qty
        if closing:
            self._apply(time_ns, side, closing, price, fee_closing, mid)
        if qty > closing:
            self._apply(time_ns, side, qty - closing, price, fee - fee_closing, mid)

    def _apply(self, time_ns: int, side: int, qty: int, price: int, fee: int, mid: int) -> None:
        if self.position == 0:
            self.side, self.open_time_ns = side, time_ns
        self.position += side * qty
        self.peak_qty = max(self.peak_qty, abs(self.position))
        self.cash -= side * _value(price, qty, self.instrument.multiplier)
        self.mid_value -= side * mid * qty
        self.fees += fee
        if self.position == 0:
            edge = self.mid_value / (self.peak_qty * self.instrument.tick_size)
            self.closed.append(
                RoundTrip(
                    open_time_ns=self.open_time_ns,
                    close_time_ns=time_ns,
                    side=self.side,
                    qty=self.peak_qty,
                    gross=self.cash,
                    fees=self.fees,
                    mid_edge_ticks=edge,
                )
            )
            self._reset()


def money(value: int) -> float:
    """Scaled money as a float, for people and pictures only."""
    return value / SCALE


def as_dict(account: SessionAccount) -> dict[str, Any]:
    """The account's integers, for summaries and verdicts."""
    return {
        "gross": account.gross,
        "fees": account.fees,
        "net": account.net,
        "position_qty": account.position_qty,
        "fill_count": account.fill_count,
        "traded_qty": account.traded_qty,
        "round_trip_count": len(account.round_trips),
        "max_drawdown": account.max_drawdown,
    }
