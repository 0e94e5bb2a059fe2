"""A slow second implementation of every feature, by its formula and nothing else.

Nothing here runs a recursion over records: a decayed sum is summed over all events of its last 40
time constants with ``exp(-age / tau)``, a mean is the integral of what was in force. Only the
places where Kyle's intervals end are found in order, as the definition says.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hft_platform import records

SCALE = records.SCALE
SECOND = 1_000_000_000
# What is older weighs less than exp(-40) = 4e-18.
REACH = 40
LEVELS = 5

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def sequence_times(receive_ns: Ints) -> Ints:
    """The engine's time: at least one nanosecond behind the record before."""
    place = np.arange(len(receive_ns))
    return np.maximum.accumulate(receive_ns - place) + place


def records_in_order(tape: bytes) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void], Ints, Ints]:
    """Books and trades with the engine's time of each."""
    sizes = {1: records.DTYPES["Book"].itemsize, 2: records.DTYPES["Trade"].itemsize}
    kinds, offset = [], 0
    while offset < len(tape):
        kinds.append(tape[offset + 2])
        offset += sizes[kinds[-1]]
    parts = records.split(tape)
    kind = np.array(kinds)
    receive = np.empty(len(kind), dtype=np.int64)
    receive[kind == 1] = parts["Book"]["receive_time_ns"]
    receive[kind == 2] = parts["Trade"]["receive_time_ns"]
    when = sequence_times(receive)
    return parts["Book"], parts["Trade"], when[kind == 1], when[kind == 2]


@dataclass
class Market:
    """Records since one start, with what the formulas are made of."""

    books: npt.NDArray[np.void]
    trades: npt.NDArray[np.void]
    book_ns: Ints
    trade_ns: Ints
    tick: float = SCALE
    lot: float = SCALE
    good: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        bid, ask = self.books["bid_price"][:, 0], self.books["ask_price"][:, 0]
        self.good = (bid > 0) & (ask > bid) & (self.books["flags"] & 1 == 0)
        rows = self.books[self.good]
        self.when = self.book_ns[self.good]
        self.first_ns = min(self.book_ns[0], *self.trade_ns[:1])
        self.bid, self.ask = rows["bid_price"], rows["ask_price"]
        self.bid_qty = rows["bid_qty"].astype(float)
        self.ask_qty = rows["ask_qty"].astype(float)
        self.mid = (self.bid[:, 0] + self.ask[:, 0]) / (2 * self.tick)
        self.moves = np.diff(self.mid, prepend=self.mid[0])
        # Order flow is the difference of two good books with no bad one between them.
        index = np.flatnonzero(self.good)
        self.follows = np.diff(index, prepend=-2) == 1
        side = self.trades["aggressor_side"].astype(float)
        known = side != 0
        self.print_ns, self.sign = self.trade_ns[known], side[known]
        self.lots = self.trades["qty"][known] / self.lot

    def flow(self, level: int) -> Floats:
        """Order flow imbalance of one level at every good book."""
        far = np.iinfo(np.int64).max
        bid, bid_qty = self.bid[:, level], self.bid_qty[:, level]
        ask = np.where(self.ask[:, level] == 0, far, self.ask[:, level])
        ask_qty = self.ask_qty[:, level]
        flow = np.zeros(len(bid))
        flow[1:] = (
            np.where(bid[1:] >= bid[:-1], bid_qty[1:], 0)
            - np.where(bid[1:] <= bid[:-1], bid_qty[:-1], 0)
            - np.where(ask[1:] <= ask[:-1], ask_qty[1:], 0)
            + np.where(ask[1:] >= ask[:-1], ask_qty[:-1], 0)
        )
        return np.where(self.follows, flow, 0.0)

    def depleted(self, price: Ints, qty: Floats, worse: int) -> Floats:
        """Quantity that left a best queue at every good book."""
        step = np.diff(price) * worse
        gone = np.zeros(len(price))
        left = np.maximum(qty[:-1] - qty[1:], 0)
        gone[1:] = np.where(step > 0, qty[:-1], np.where(step == 0, left, 0))
        return np.where(self.follows, gone, 0.0)


def faded(when: Ints, amounts: Floats, at: Ints, tau_s: float) -> Floats:
    """Sum of `amounts` up to each of `at`, each weighted ``exp(-age / tau)``."""
    tau = tau_s * SECOND
    low = np.searchsorted(when, at - int(REACH * tau), "right")
    high = np.searchsorted(when, at, "right")
    return np.array(
        [
            np.sum(amounts[a:b] * np.exp(-(t - when[a:b]) / tau))
            for t, a, b in zip(at, low, high, strict=True)
        ]
    )


def held_mean(when: Ints, values: Floats, at: Ints, tau_s: float) -> Floats:
    """Mean weighted ``exp(-age / tau)`` over time of a value that holds until the next one."""
    tau = tau_s * SECOND
    means = []
    for t in at:
        high = int(np.searchsorted(when, t, "right"))
        low = max(int(np.searchsorted(when, t - int(REACH * tau), "right")) - 1, 0)
        edges = np.append(when[low:high], t)
        weight = np.exp(-(t - edges) / tau)
        # Before its first value the mean is that value.
        means.append(values[low] * weight[0] + np.sum(values[low:high] * np.diff(weight)))
    return np.array(means)


def kyle(market: Market) -> tuple[Ints, Floats]:
    """Ends of the intervals and the slope at each."""
    signed = market.sign * market.lots
    total = np.concatenate([[0.0], np.cumsum(signed)])
    end, last, last_mid = int(market.when[0]), int(market.when[0]), market.mid[0]
    ends, lots, moves = [], [], []
    for now, mid in zip(market.when.tolist(), market.mid, strict=True):
        if now - end < SECOND:
            continue
        before, until = np.searchsorted(market.print_ns, [last, now], "right")
        ends.append(now)
        lots.append(total[until] - total[before])
        moves.append(mid - last_mid)
        end = last = now
        last_mid = mid
    when = np.array(ends, dtype=np.int64)
    x, y = np.array(lots), np.array(moves)
    slope = faded(when, x * y, when, 60) / (faded(when, x * x, when, 60) + 1)
    return when, slope


def step_at(when: Ints, values: Floats, at: Ints) -> Floats:
    """The last of `values` at or before each of `at`, zero before the first."""
    place = np.searchsorted(when, at, "right")
    return np.concatenate([[0.0], values])[place]


def seen(first_ns: int, at: Ints, tau_s: float) -> Floats:
    """Integral of ``exp(-age / tau)`` from the first record, s."""
    seconds = tau_s * (1 - np.exp(-(at - first_ns) / (tau_s * SECOND)))
    # At the first record there is no time yet, and no feature is warm.
    return np.where(at > first_ns, seconds, np.nan)


def features(market: Market, rows: Ints) -> dict[str, Floats]:
    """Every feature at the given good books, without warm-up."""
    m, at = market, market.when[rows]
    best = m.bid_qty[:, 0] + m.ask_qty[:, 0]
    imbalance = (m.bid_qty[:, 0] - m.ask_qty[:, 0]) / best
    bid_deep, ask_deep = m.bid_qty[:, 1:].sum(axis=1), m.ask_qty[:, 1:].sum(axis=1)
    with np.errstate(invalid="ignore"):
        deep = (bid_deep - ask_deep) / (bid_deep + ask_deep)
    shown = np.nan_to_num(deep)
    spread = (m.ask[:, 0] - m.bid[:, 0]) / m.tick
    weighted = m.ask[:, 0] * m.bid_qty[:, 0] + m.bid[:, 0] * m.ask_qty[:, 0]
    depth_l1 = held_mean(m.when, best / 2, at, 10)
    depth_l5 = held_mean(m.when, (bid_deep + ask_deep + best) / 10, at, 10)
    flow = [m.flow(level) for level in range(LEVELS)]
    top = np.stack([m.bid[:, 0], m.bid_qty[:, 0], m.ask[:, 0], m.ask_qty[:, 0]])
    is_new = ~m.follows | np.append(True, (np.diff(top) != 0).any(axis=0))
    changed = m.when[is_new]
    price_changed = m.follows & np.append(False, (np.diff(top[[0, 2]]) != 0).any(axis=0))
    moved = m.moves != 0
    move_ns, moves = m.when[moved], m.moves[moved]
    square_10 = faded(move_ns, moves**2, at, 10)
    lambda_ns, slope = kyle(m)
    signed = m.sign * m.lots
    expected = step_at(lambda_ns, slope, m.print_ns) * signed
    # Prints before the first good book meet no slope and no interval.
    values = {
        "spread_ticks": spread[rows],
        "imbalance_l1": imbalance[rows],
        "imbalance_l2_5": deep[rows],
        "microprice_dev": (weighted / best / m.tick - m.mid)[rows],
        "ofi_l1_1s": faded(m.when, flow[0], at, 1) / depth_l1,
        "ofi_l1_5s": faded(m.when, flow[0], at, 5) / depth_l1,
        "ofi_l1_30s": faded(m.when, flow[0], at, 30) / depth_l1,
        "ofi_l5_5s": faded(m.when, np.sum(flow, axis=0), at, 5) / depth_l5,
        "ofi_integrated": faded(m.when, np.mean(flow, axis=0), at, 1) / depth_l5,
        "return_1s": m.mid[rows] - held_mean(m.when, m.mid, at, 1),
        "return_10s": m.mid[rows] - held_mean(m.when, m.mid, at, 10),
        "volatility_10s": np.sqrt(square_10),
        "volatility_60s": np.sqrt(faded(move_ns, moves**2, at, 60)),
        "imbalance_ema_2s": held_mean(m.when, imbalance, at, 2),
        "spread_ema_30s": held_mean(m.when, spread, at, 30),
        "deep_momentum_5s": shown[rows] - held_mean(m.when, shown, at, 5),
        "quote_age_ms": (at - changed[np.searchsorted(changed, at, "right") - 1]) / 1e6,
        "top_change_rate_10s": faded(m.when, price_changed.astype(float), at, 10)
        / seen(m.first_ns, at, 10),
        "return_autocorr_10s": faded(move_ns, moves * np.append(0.0, moves[:-1]), at, 10)
        / (square_10 + 1),
        "kyle_lambda_60s": step_at(lambda_ns, slope, at),
        "impact_surprise_5s": faded(m.when, m.moves, at, 5) - faded(m.print_ns, expected, at, 5),
    }
    for level in range(LEVELS):
        values[f"ofi_l{level + 1}"] = faded(m.when, flow[level], at, 1) / depth_l5
    for name, price, qty, worse in (
        ("bid", m.bid[:, 0], m.bid_qty[:, 0], -1),
        ("ask", m.ask[:, 0], m.ask_qty[:, 0], 1),
    ):
        gone = m.depleted(price, qty, worse)
        values[f"queue_depletion_{name}"] = faded(m.when, gone, at, 1) / depth_l1
    return values | trade_features(m, at)


def trade_features(m: Market, at: Ints) -> dict[str, Floats]:
    """The part of `features` that looks at prints alone."""
    values = {}

    def imbalance(when: Ints, tau_s: float) -> Floats:
        net = faded(m.print_ns, m.sign * m.lots, when, tau_s)
        return np.asarray(net / (faded(m.print_ns, m.lots, when, tau_s) + 1))

    for tau in (1, 5, 30):
        values[f"trade_imbalance_{tau}s"] = imbalance(at, tau)
    ones = np.ones(len(m.sign))
    values["trade_sign_ema_5s"] = faded(m.print_ns, m.sign, at, 5) / (
        faded(m.print_ns, ones, at, 5) + 1
    )
    one_sided = np.abs(imbalance(m.print_ns, 1))
    values["toxicity_30s"] = faded(m.print_ns, m.lots * one_sided, at, 30) / (
        faded(m.print_ns, m.lots, at, 30) + 1
    )
    for name, side in (("buy", 1), ("sell", -1)):
        when = m.print_ns[m.sign == side]
        one = np.ones(len(when))
        rate = faded(when, one, at, 60) / seen(m.first_ns, at, 60)
        values[f"hawkes_{name}"] = 0.5 * rate + 0.8 * faded(when, one, at, 1 / 1.6)
    return values
