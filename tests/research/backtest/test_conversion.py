"""Snapshots as the package's rows: the published-set diff keeps its invariants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from hft_platform import _core, records
from hft_platform.errors import PlatformError, ReasonCode
from research.backtest.package_handle import check_layout
from tests.rust_core.market_days import LEVELS, SCALE, TXF_ID, synthetic_day, txf_session

EVENT = np.dtype(
    [("ev", "u8"), ("exch_ts", "i8"), ("local_ts", "i8"), ("px", "f8"), ("qty", "f8"),
     ("order_id", "u8"), ("ival", "i8"), ("fval", "f8")]
)  # fmt: skip
DEPTH, TRADE, CLEAR = 1, 2, 3
EXCHANGE, BUY, SELL = 1 << 31, 1 << 29, 1 << 28


def convert(tape: bytes) -> npt.NDArray[np.void]:
    return np.frombuffer(_core.convert_session(tape, TXF_ID, SCALE, SCALE), dtype=EVENT)


def in_exchange_order(tape: bytes) -> list[tuple[int, int, np.void]]:
    """An oracle of the order: exchange time, trades first, then tape order."""
    parts = records.split(tape)
    rows = [(int(row["exchange_time_ns"]), 0, row) for row in parts["Trade"]]
    rows += [(int(row["exchange_time_ns"]), 1, row) for row in parts["Book"]]
    return sorted(rows, key=lambda row: row[:2])


class Replica:
    """A book that is told nothing but the rows."""

    def __init__(self) -> None:
        self.sides: dict[int, dict[int, float]] = {BUY: {}, SELL: {}}

    def apply(self, row: np.void) -> None:
        side = self.sides[int(row["ev"]) & (BUY | SELL)]
        price = round(float(row["px"]))
        if row["qty"] == 0:
            del side[price]
        else:
            side[price] = float(row["qty"])

    def faults(self, book: np.void) -> list[str]:
        """Invariants 1 to 3 after a snapshot; empty when they hold."""
        found = []
        for flag, name, sign in ((BUY, "bid", 1), (SELL, "ask", -1)):
            prices = book[f"{name}_price"] // SCALE
            quantities = book[f"{name}_qty"] // SCALE
            shown = {
                int(price): float(qty)
                for price, qty in zip(prices, quantities, strict=True)
                if price > 0 and qty > 0
            }
            side = self.sides[flag]
            if any(side.get(price) != qty for price, qty in shown.items()):
                found.append(f"{name}: a shown level is published with another quantity")
            best = max((sign * price for price in shown), default=None)
            worst = min((sign * price for price in shown), default=None)
            if best is None or worst is None:
                found += [f"{name}: published though the side is empty"] if side else []
                continue
            if any(sign * price > best for price in side):
                found.append(f"{name}: published better than best")
            ends_here = len(shown) < LEVELS
            inside = {price for price in side if ends_here or sign * price >= worst}
            if inside != set(shown):
                found.append(f"{name}: other ticks than shown inside the window")
        return found


def check(tape: bytes) -> int:
    rows = iter(convert(tape))
    first = next(rows)
    assert int(first["ev"]) == CLEAR | EXCHANGE
    replica, checked = Replica(), 0
    pending = next(rows, None)
    for time_ns, kind, record in in_exchange_order(tape):
        if kind == 0:
            assert pending is not None
            assert int(pending["ev"]) & 0xFF == TRADE
            assert int(pending["exch_ts"]) == time_ns
            assert round(float(pending["px"])) * SCALE == int(record["price"])
            pending = next(rows, None)
            continue
        seq = (time_ns, int(record["receive_time_ns"]))
        while (
            pending is not None
            and int(pending["ev"]) & 0xFF == DEPTH
            and (int(pending["exch_ts"]), int(pending["local_ts"])) == seq
            and replica.faults(record)
        ):
            replica.apply(pending)
            pending = next(rows, None)
        assert replica.faults(record) == []
        checked += 1
    assert pending is None, "rows are left over"
    return checked


def test_after_every_synthetic_snapshot_exactly_the_shown_levels_are_published() -> None:
    assert check(synthetic_day(snapshots=2_000)) == 2_000


@pytest.mark.recordings
def test_after_every_recorded_snapshot_exactly_the_shown_levels_are_published(
    recordings: Path,
) -> None:
    tape = txf_session(recordings)
    counts = _core.conversion_counts(tape, TXF_ID, SCALE, SCALE)
    assert counts["crossed"] == counts["malformed"] == counts["not_tradable"] == 0
    assert check(tape) == counts["snapshots_converted"] == records.split(tape)["Book"].size


def test_a_forgotten_row_is_caught_by_the_same_check() -> None:
    """Negative control: the check above goes red when one row is missing."""
    tape = synthetic_day(snapshots=50)
    rows = convert(tape)
    replica = Replica()
    books = records.split(tape)["Book"]
    first_time = int(books["exchange_time_ns"][0])
    of_first = rows[(rows["exch_ts"] == first_time) & (rows["ev"] & 0xFF == DEPTH)]
    for row in of_first[:-1]:
        replica.apply(row)
    assert replica.faults(books[0]) != []
    replica.apply(of_first[-1])
    assert replica.faults(books[0]) == []


def test_rows_are_fewer_than_a_full_snapshot_feed() -> None:
    tape = synthetic_day(snapshots=500)
    depth = convert(tape)
    depth = depth[depth["ev"] & 0xFF == DEPTH]
    assert 0 < depth.size < 500 * 2 * LEVELS * 2
    assert set((depth["ev"] & np.uint64(EXCHANGE | BUY | SELL)).tolist()) <= {
        EXCHANGE | BUY, EXCHANGE | SELL
    }  # fmt: skip


def test_another_instruments_records_give_no_rows() -> None:
    assert _core.convert_session(synthetic_day(snapshots=10), 77, SCALE, SCALE) == b""


def test_a_tick_size_of_zero_is_refused() -> None:
    with pytest.raises(PlatformError, match="tick_size") as caught:
        _core.convert_session(synthetic_day(snapshots=10), TXF_ID, 0, SCALE)
    assert caught.value.code == ReasonCode.SETTINGS_INVALID


def test_a_package_with_another_layout_is_refused() -> None:
    fields, size = _core.package_order_layout()
    names = [name for name, _ in fields]
    good = {
        "names": names,
        "formats": ["i8" if name.endswith(("tick", "timestamp", "id")) else "u1" for name in names],
        "offsets": [offset for _, offset in fields],
        "itemsize": size,
    }
    check_layout(np.dtype(good), EVENT)
    moved = good | {"offsets": [offset + (name == "status") for name, offset in fields]}
    with pytest.raises(PlatformError, match="status") as caught:
        check_layout(np.dtype(moved), EVENT)
    assert caught.value.code == ReasonCode.SCHEMA_MISMATCH
    with pytest.raises(PlatformError, match="bytes"):
        check_layout(np.dtype(good | {"itemsize": size + 8}), EVENT)
    with pytest.raises(PlatformError, match="event rows"):
        check_layout(np.dtype(good), np.dtype([("ev", "u8")]))
