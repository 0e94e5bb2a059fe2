"""Market tapes for tests of the simulation: a synthetic day and a real TXF session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hft_platform import _core, records
from tests.rust_core.engine_tapes import CALM

SCALE = records.SCALE
TXF_ID = 1001
DAY_OPEN_NS = 1_775_781_900_000_000_000
"""2026-04-10 08:45 Taipei."""
LEVELS = 5


@dataclass(frozen=True, slots=True)
class Tradable:
    """The three facts that a venue needs of an instrument."""

    instrument_id: int = TXF_ID
    tick_size: int = SCALE
    lot_size: int = SCALE


def _head(rows: npt.NDArray[np.void], exchange_ns: npt.NDArray[np.int64], delay_ns: int) -> None:
    rows["instrument_id"] = TXF_ID
    rows["exchange_time_ns"] = exchange_ns
    rows["receive_time_ns"] = exchange_ns + delay_ns
    rows["source_id"] = 1
    rows["trading_day"] = 20260410


def synthetic_day(*, seed: int = 7, snapshots: int = 4_000) -> bytes:
    """A wandering five-level book, four snapshots a second, with trades between them."""
    random = np.random.default_rng(seed)
    times = DAY_OPEN_NS + np.cumsum(random.integers(1, 500, snapshots)) * 1_000_000
    mid = 30_000 + np.cumsum(random.integers(-1, 2, snapshots))
    books = records.empty("Book", snapshots)
    _head(books, times, 3_000_000)
    offsets = np.arange(LEVELS)
    spread = random.integers(1, 3, snapshots)
    books["bid_price"] = (mid[:, None] - offsets) * SCALE
    books["ask_price"] = ((mid + spread)[:, None] + offsets) * SCALE
    for side in ("bid_qty", "ask_qty"):
        books[side] = random.integers(1, 30, (snapshots, LEVELS)) * SCALE
    books["source_seq"] = 2 * np.arange(snapshots)
    trades = records.empty("Trade", snapshots)
    # Every third trade has the time of the next snapshot: trades must go first.
    between = times + np.where(np.arange(snapshots) % 3 == 0, 0, 400_000)
    _head(trades, between, 3_000_000)
    trades["aggressor_side"] = random.choice([-1, 1], snapshots)
    reach = random.integers(0, 2, snapshots)
    trades["price"] = (
        np.where(trades["aggressor_side"] > 0, mid + spread + reach, mid - reach) * SCALE
    )
    trades["qty"] = random.integers(1, 12, snapshots) * SCALE
    trades["source_seq"] = 2 * np.arange(snapshots) + 1
    return _core.merge_tapes([books.tobytes(), trades.tobytes()])


def txf_session(folder: Path, *, day: str = "2026-04-10", session: str = "day") -> bytes:
    """One recorded TXF session in receive order; receive times are exchange time + 3 ms."""
    import polars as pl

    stem = folder / "taifex" / f"TXFD6_{day}"
    book = pl.read_parquet(f"{stem}_book.parquet").filter(pl.col("session") == session)
    print_ = pl.read_parquet(f"{stem}_trades.parquet").filter(pl.col("session") == session)
    books = records.empty("Book", book.height)
    _head(books, book["ts"].to_numpy(), 3_000_000)
    books["source_seq"] = book["seq"].to_numpy()
    for side in ("bid", "ask"):
        for what, field in (("px", "price"), ("qty", "qty")):
            for level in range(LEVELS):
                column = book[f"{side}_{what}_{level + 1}"].fill_null(0).to_numpy()
                books[f"{side}_{field}"][:, level] = column.astype(np.int64) * SCALE
    trades = records.empty("Trade", print_.height)
    _head(trades, print_["ts"].to_numpy(), 3_000_000)
    trades["source_seq"] = print_["seq"].to_numpy()
    trades["price"] = print_["px"].to_numpy().astype(np.int64) * SCALE
    trades["qty"] = print_["qty"].to_numpy().astype(np.int64) * SCALE
    trades["aggressor_side"] = print_["side"].to_numpy()
    return _core.merge_tapes([books.tobytes(), trades.tobytes()])


def script_of(rows: list[tuple[int, int, int, int, int, int]]) -> bytes:
    """Decisions from ``(time_ns, action, order_id, side, price, time_in_force)``, one lot each."""
    decisions = records.empty("Decision", len(rows))
    for index, (time_ns, action, order_id, side, price, life) in enumerate(rows):
        row = decisions[index : index + 1]
        row["sequence_time_ns"] = time_ns
        row["instrument_id"] = TXF_ID
        row["decision_seq"] = index + 1
        row["action"] = action
        row["order_id"] = order_id
        row["verdict"] = 1
        row["side"] = side
        row["price"] = price
        row["qty"] = SCALE
        row["time_in_force"] = life
    return decisions.tobytes()


PLACE, CANCEL = 1, 2
REST_OF_DAY, IMMEDIATE, FILL_OR_KILL = 1, 2, 3


def taker_and_maker_script(tape: bytes, *, seed: int = 3, orders: int = 1_500) -> bytes:
    """Orders all over the session: takers through the touch, makers in the shown levels with a
    cancel some time later, immediate orders that miss, cancels of what has filled."""
    random = np.random.default_rng(seed)
    books = records.split(tape)["Book"]
    shown = books[(books["bid_price"][:, 0] > 0) & (books["ask_price"][:, 0] > 0)]
    picks = np.sort(random.choice(shown.size, size=min(orders, shown.size), replace=False))
    rows: list[tuple[int, int, int, int, int, int]] = []
    for order_id, pick in enumerate(picks, start=1):
        book = shown[pick]
        side = int(random.choice([-1, 1]))
        best = int(book["bid_price"][0] if side > 0 else book["ask_price"][0])
        far = int(book["ask_price"][0] if side > 0 else book["bid_price"][0])
        time_ns = int(book["receive_time_ns"])
        kind = int(random.integers(0, 4))
        if kind == 0:
            rows.append((time_ns, PLACE, order_id, side, far + side * SCALE, IMMEDIATE))
        elif kind == 1:
            rows.append((time_ns, PLACE, order_id, side, best, int(random.choice([2, 3]))))
        else:
            behind = int(random.integers(0, 3)) * SCALE
            rows.append((time_ns, PLACE, order_id, side, best - side * behind, REST_OF_DAY))
            wait = int(random.integers(1, 20_000)) * 1_000_000
            rows.append((time_ns + wait, CANCEL, order_id, side, best, REST_OF_DAY))
    rows.sort()
    return script_of(rows)


def engine_config(tape: bytes, kind: str) -> dict[str, Any]:
    """A taker or a maker on the queue imbalance, open over the whole tape, flat at its end."""
    parts = records.split(tape)
    times = np.concatenate([parts["Book"]["receive_time_ns"], parts["Trade"]["receive_time_ns"]])
    first, last = int(times.min()), int(times.max())
    flat = last - 20_000_000_000
    templates: dict[str, dict[str, Any]] = {
        "taker": {
            "kind": "taker",
            "entry_ticks": 0.5,
            "exit_ticks": 0.0,
            "hold_ns": 20_000_000_000,
            "slippage_ticks": 2,
        },
        "maker": {
            "kind": "maker",
            "half_spread_ticks": 0.5,
            "requote_ticks": 1.0,
            "signal_skew": 0.5,
            "inventory_skew_ticks": 0.5,
        },
    }
    alpha = {
        "alpha_index": 0,
        "alpha_id": f"test_{kind}",
        "instrument_id": TXF_ID,
        "expression": "k * imbalance_l1",
        "parameters": {"k": 1.0},
        "template": templates[kind],
        "order_qty": SCALE,
        "ttl_ns": 5_000_000_000,
        "limits": {
            "order_qty_max": SCALE,
            "position_qty_max": 3 * SCALE,
            "daily_loss_max": 10_000_000 * SCALE,
            "drawdown_max": 10_000_000 * SCALE,
            "loss_speed_max": 10_000_000 * SCALE,
            "order_rate_max": 100,
        },
        "stage": "shadow",
        "weight_ppm": 1_000_000,
        "expires_ns": (1 << 63) - 1,
        "promotion_seq": 1,
        "config_sha256": "ab" * 32,
        "on_withdrawal": {"action": "flatten", "deadline_ns": 1_000_000_000},
    }
    return {
        "schema": 1,
        "session": {
            "session_id": "2026-04-10/day",
            "trading_day": 20260410,
            "phases": [
                {"start_ns": first - 1, "end_ns": flat, "phase": "open"},
                {"start_ns": flat, "end_ns": last + 1, "phase": "force_flat"},
            ],
        },
        "instruments": [
            {
                "instrument_id": TXF_ID,
                "symbol": "TXFD6",
                "tick_size": SCALE,
                "lot_size": SCALE,
                "multiplier": 200 * SCALE,
                "limit_up": None,
                "limit_down": None,
                "order_qty_max": None,
                "banding_bps": None,
                "eligibility": "full",
                "costs": {
                    "kind": "taifex_future",
                    "tax_rate_ppb": 20000,
                    "tax_round": True,
                    "commission_per_lot": 20 * SCALE,
                },
            }
        ],
        "alphas": [alpha],
        "account_limits": {
            "gross_notional_max": 90_000_000_000 * SCALE // 100,
            "net_notional_max": 90_000_000_000 * SCALE // 100,
            "position_lots_max": 1_000,
            "daily_loss_max": 90_000_000_000 * SCALE // 100,
            "drawdown_max": 90_000_000_000 * SCALE // 100,
            "loss_speed_max": 90_000_000_000 * SCALE // 100,
            "free_margin_min": None,
            "account_age_ns_max": 60_000_000_000,
            "order_rate_max": 180,
            "cancel_reserve": 60,
            "order_to_trade_max": 1_000_000,
            "reject_rate_max": 5,
            "unknown_rate_max": 5,
            "one_side_fill_max": 1_000,
            "price_collar_bps": 50,
            "exit_collar_bps": 100,
            "quote_age_ns_max": 5_000_000_000,
            "clock_skew_ns_max": None,
            "repeated_order_max": 50,
        },
        "storm_guard": CALM,
    }
