"""Sessions for drills: drawn records, written with the real log writer, and what was appended.

Why: a drill compares what a store holds with what was appended, record by record; so it must know.

Invariants:
1. Equal seeds give equal bytes.
2. `Appended` is counted from the records themselves, never read back from a log or a store.

The records are no market: prices are drawn. Operator's page: `docs/drills.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hft_platform import _core, records

TRADING_DAY = 20260302
START_NS = 1_772_412_300_000_000_000
STEP_NS = 50_000_000
INSTRUMENT_ID = 1001
WAL_ID = 77
_SIMULATED_MATCH = 1


@dataclass(frozen=True, slots=True)
class Appended:
    """What was appended to the logs of one session.

    Attributes
    ----------
    run_id : str
        Name of the session.
    record_count : int
        Records of both logs.
    market_sha256, orders_sha256 : str
        Hashes of the records' bytes, in order.
    print_count, print_volume : int
        Trades that are no trial matches, and their quantity at 1e-8: what the bars must add up to.
    """

    run_id: str
    record_count: int
    market_sha256: str
    orders_sha256: str
    print_count: int
    print_volume: int


def write_session(
    ws: Path, run_id: str, *, records_count: int, seed: int, segment_bytes: int = 4 << 20
) -> Appended:
    """Write and seal both logs of a session.

    Parameters
    ----------
    ws : Path
        Workspace.
    run_id : str
        Name of the session.
    records_count : int
        Books; trades, timers and decisions come on top.
    seed : int
        Decides every value.
    segment_bytes : int, optional
        Size at which a segment is sealed.

    Returns
    -------
    Appended
    """
    draw = np.random.default_rng(seed)
    trades = _trades(records_count // 2, draw)
    market = _mixed([_books(records_count, draw), trades, _timers(records_count // 50 + 1)], draw)
    orders = _mixed([_decisions(max(records_count // 20, 4), draw)], draw)
    folder = ws / "sessions" / run_id
    for kind, tape in (("market", market), ("orders", orders)):
        (folder / kind).mkdir(parents=True)
        with _core.WalWriter(
            str(folder / kind), WAL_ID, kind, segment_bytes=segment_bytes
        ) as writer:
            writer.append(tape)
    prints = trades[trades["flags"] & _SIMULATED_MATCH == 0]
    count = sum(part.size for tape in (market, orders) for part in records.split(tape).values())
    return Appended(
        run_id, count, records.tape_sha256(market), records.tape_sha256(orders),
        int(prints.size), sum(int(qty) for qty in prints["qty"]),
    )  # fmt: skip


def _books(count: int, draw: np.random.Generator) -> npt.NDArray[np.void]:
    rows = records.empty("Book", count)
    for field in ("bid_price", "bid_qty", "ask_price", "ask_qty"):
        rows[field] = draw.integers(1, 10**14, (count, 5))
    return rows


def _trades(count: int, draw: np.random.Generator) -> npt.NDArray[np.void]:
    rows = records.empty("Trade", count)
    rows["price"] = draw.integers(10**12, 10**13, count)
    rows["qty"] = draw.integers(1, 50, count) * records.SCALE
    rows["trade_id"] = np.arange(count)
    rows["flags"] = draw.integers(0, 100, count) == 0
    return rows


def _timers(count: int) -> npt.NDArray[np.void]:
    rows = records.empty("Timer", count)
    rows["timer_kind"] = 1
    return rows


def _decisions(count: int, draw: np.random.Generator) -> npt.NDArray[np.void]:
    rows = records.empty("Decision", count)
    rows["decision_seq"] = np.arange(count)
    rows["signal"] = draw.standard_normal(count)
    return rows


def _mixed(parts: Sequence[npt.NDArray[np.void]], draw: np.random.Generator) -> bytes:
    """Put records of several types into one order with rising sequence and time."""
    kinds = draw.permutation(np.repeat(np.arange(len(parts)), [part.size for part in parts]))
    for kind, part in enumerate(parts):
        places = np.flatnonzero(kinds == kind)
        part["input_seq"] = places + 1
        part["instrument_id"] = INSTRUMENT_ID
        for field in ("exchange_time_ns", "receive_time_ns", "sequence_time_ns"):
            part[field] = START_NS + places * STEP_NS
        part["trading_day"] = TRADING_DAY
    rows = [iter([row.tobytes() for row in part]) for part in parts]
    return b"".join(next(rows[kind]) for kind in kinds)
