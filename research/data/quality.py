"""Data-quality report: what came in, what was kept, and what a reader must know about the rest.

Why: a gate's result is worth what its data is worth; the report stands beside every dataset.

Invariants:
1. Rows in = rows out + rejected, for every session and for the whole dataset.
2. Every rejected row is counted under one reason code.
3. The report holds no clock time, path or run id: equal data, equal report.

It rejects nothing itself (see `checks`). Operator's page: `docs/recordings.md`.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from hft_platform.errors import ReasonCode, code_name
from hft_platform.feed.recording import Records
from hft_platform.market.sessions import SECOND_NS, Session
from research.data.receive_times import Ordered
from research.data.rows import Faults, Rows

REPORTED_GAP_NS = 5 * SECOND_NS
GAPS_LISTED_MAX = 200
"""The longest ones are listed; all are counted."""
OUTSIDE = "(outside)"
"""Session name under which rows outside every session are counted."""


def rejected_by_code(*faults: Faults) -> dict[str, int]:
    """Number of rejected rows by the name of their reason code."""
    counts: Counter[str] = Counter()
    for stream in faults:
        codes, numbers = np.unique(stream[stream != 0], return_counts=True)
        for code, number in zip(codes.tolist(), numbers.tolist(), strict=True):
            counts[code_name(code)] += number
    return dict(sorted(counts.items()))


def outside_report(symbol: str, rejected: dict[str, int]) -> dict[str, Any]:
    """Row of the report for what belongs to no session."""
    count = sum(rejected.values())
    return {
        "symbol": symbol,
        "session_id": OUTSIDE,
        "rows_in": count,
        "rows_out": 0,
        "rejected": rejected,
    }


def session_report(
    session: Session,
    symbol: str,
    rows: Rows,
    *,
    books: Records,
    trades: Records,
    ordered: Ordered,
) -> dict[str, Any]:
    """Report of one session.

    Parameters
    ----------
    session : Session
        Its bounds.
    symbol : str
        Its symbol.
    rows : Rows
        Everything that came in, with faults.
    books, trades : ndarray
        What was kept, in final order.
    ordered : Ordered
        How receive times were made or corrected.

    Returns
    -------
    dict
        JSON content; documented in `docs/recordings.md`.
    """
    rejected = rejected_by_code(rows.book_fault, rows.trade_fault)
    times = np.sort(np.concatenate([books["exchange_time_ns"], trades["exchange_time_ns"]]))
    report: dict[str, Any] = {
        "symbol": symbol,
        "session_id": session.session_id,
        "rows_in": len(rows),
        "rows_out": int(times.size),
        "books": len(books),
        "trades": len(trades),
        "rejected": rejected,
        "crossed": rejected.get(code_name(ReasonCode.BOOK_CROSSED), 0),
        "duplicates": rejected.get(code_name(ReasonCode.DUPLICATE_ROW), 0),
        "out_of_order": rejected.get(code_name(ReasonCode.OUT_OF_ORDER_ROW), 0),
        "simulated_matches": rejected.get(code_name(ReasonCode.SIMULATED_MATCH), 0),
        "clock_skew_offset_ns": ordered.skew_offset_ns,
        "latency_floor_clamped": ordered.clamped_count,
        "latency_median_ns": ordered.latency_median_ns,
        "receive_times_synthetic": ordered.synthetic_count,
        "receive_times_moved": ordered.moved_count,
        "trades_outside_best_share": trades_outside_best(books, trades),
        "trades_repeated_share": trades_repeated(trades),
    }
    report["gaps"] = gaps(times)
    if times.size:
        report |= {
            "first_ns": int(times[0]),
            "last_ns": int(times[-1]),
            "starts_late_s": _seconds(int(times[0]) - session.start_ns),
            "ends_early_s": _seconds(session.end_ns - int(times[-1])),
        }
    return report


def gaps(times: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Silences above `REPORTED_GAP_NS` in sorted exchange times: count, longest, and a list."""
    lengths = np.diff(times)
    places = np.flatnonzero(lengths > REPORTED_GAP_NS)
    longest = places[np.argsort(-lengths[places], kind="stable")][:GAPS_LISTED_MAX]
    return {
        "count": int(places.size),
        "longest_s": _seconds(int(lengths[longest[0]])) if places.size else 0.0,
        "list": [
            {
                "from_ns": int(times[place]),
                "to_ns": int(times[place + 1]),
                "seconds": _seconds(int(lengths[place])),
            }
            for place in np.sort(longest).tolist()
        ],
    }


def trades_outside_best(books: Records, trades: Records) -> float | None:
    """Share of trades outside the last best bid and ask before them; None without such trades."""
    place = np.searchsorted(books["receive_time_ns"], trades["receive_time_ns"]) - 1
    known = place >= 0
    if not known.any():
        return None
    last = books[place[known]]
    price = trades["price"][known]
    outside = (price < last["bid_price"][:, 0]) | (price > last["ask_price"][:, 0])
    return float(outside.mean())


def trades_repeated(trades: Records) -> float | None:
    """Share of trades equal to the one before in time, price, quantity and side; may be genuine."""
    if len(trades) < 2:
        return None
    same = np.ones(len(trades) - 1, dtype=np.bool_)
    for field in ("exchange_time_ns", "price", "qty", "aggressor_side"):
        same &= trades[field][1:] == trades[field][:-1]
    return float(same.mean())


def table_rows(quality: dict[str, Any]) -> list[dict[str, Any]]:
    """Report as flat rows for a table, one a session.

    Parameters
    ----------
    quality : dict
        Content of `quality.json`.

    Returns
    -------
    list of dict
        Plain numbers and text, the same keys in every row.
    """
    return [_table_row(row) for row in quality["sessions"]]


def _table_row(row: dict[str, Any]) -> dict[str, Any]:
    found = row.get("gaps", {"count": 0, "longest_s": 0.0})
    share = row.get("trades_outside_best_share")
    return {
        "symbol": row["symbol"],
        "session": row["session_id"],
        "rows_in": row["rows_in"],
        "rows_out": row["rows_out"],
        "rejected": ", ".join(f"{name} {count}" for name, count in row["rejected"].items()),
        "gaps_over_5s": found["count"],
        "longest_gap_s": found["longest_s"],
        "crossed": row.get("crossed", 0),
        "out_of_order": row.get("out_of_order", 0),
        "duplicates": row.get("duplicates", 0),
        "simulated_matches": row.get("simulated_matches", 0),
        "clock_offset_ms": row.get("clock_skew_offset_ns", 0) / 1e6,
        "outside_best_pct": None if share is None else 100.0 * share,
        "first": _utc(row.get("first_ns")),
        "last": _utc(row.get("last_ns")),
    }


def _seconds(nanoseconds: int) -> float:
    return round(nanoseconds / SECOND_NS, 3)


def _utc(time_ns: int | None) -> str | None:
    if time_ns is None:
        return None
    moment = dt.datetime.fromtimestamp(time_ns // SECOND_NS, tz=dt.UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{time_ns % SECOND_NS // 1_000_000:03d}"
