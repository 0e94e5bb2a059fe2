"""How much a materialized view must hold: its rows counted against the table they came from.

Why: an insert that was cut short can leave its rows in the table and nothing in a view. While the
store remembers the token the insert can be repeated; later only counting tells whether a view is
whole.

Invariants:
1. Every materialized view of the schema has an entry; a test holds the two together.
2. An entry gives two equal numbers when the view holds what its table holds, and only then; rows of
   other runs and days do not enter.

It decides nothing about what to do then (see the loader). Operator's page: `docs/store.md`.
"""

from __future__ import annotations

from collections.abc import Mapping


def _latency(table: str, steps: str, *, per_row: int = 1) -> str:
    """Samples of a step by the exchange's minutes; a row of the table gives `per_row` of them."""
    return (
        f"SELECT (SELECT {per_row} * countIf(bitAnd(flags, 6) = 0) FROM {table}"  # noqa: S608  # ours
        " WHERE trading_day = {day:UInt32} AND run_id = {run:String}"
        " AND exchange_time_ns >= {low:Int64} AND exchange_time_ns < {high:Int64}),"
        " (SELECT sum(sample_count) FROM hft.latency_1m_state"
        f" WHERE trading_day = {{day:UInt32}} AND run_id = {{run:String}} AND step IN ({steps})"
        " AND minute_ns >= {low:Int64} AND minute_ns < {high:Int64})"
    )


def _round_trips(table: str, side: str, condition: str) -> str:
    """Orders with a time on one side; a run's, for its state knows no other place."""
    return (
        f"SELECT (SELECT uniqExact(order_id) FROM {table}"  # noqa: S608  # ours
        f" WHERE run_id = {{run:String}} AND {condition}),"
        " (SELECT uniqExact(order_id) FROM hft.order_round_trip_state"
        f" WHERE run_id = {{run:String}} AND {side} IS NOT NULL)"
    )


VIEW_COUNTS: Mapping[str, str] = {
    "hft.bars_1m_fill": (
        "SELECT (SELECT countIf(bitAnd(flags, 1) = 0) FROM hft.market_trades"
        " WHERE trading_day = {day:UInt32} AND run_id = {run:String}"
        " AND exchange_time_ns >= {low:Int64} AND exchange_time_ns < {high:Int64}),"
        " (SELECT sum(trade_count) FROM hft.bars_1m_state"
        " WHERE trading_day = {day:UInt32} AND run_id = {run:String}"
        " AND minute_ns >= {low:Int64} AND minute_ns < {high:Int64})"
    ),
    "hft.latency_1m_books": _latency("hft.market_books", "'feed_book'"),
    "hft.latency_1m_trades": _latency("hft.market_trades", "'feed_trade', 'sequence'", per_row=2),
    "hft.latency_1m_reports": _latency("hft.broker_events", "'report'"),
    "hft.latency_1m_health": (
        "SELECT (SELECT countIf(health_kind IN (1, 2)) FROM hft.health_reports"
        " WHERE trading_day = {day:UInt32} AND run_id = {run:String}),"
        " (SELECT sum(sample_count) FROM hft.latency_1m_state"
        " WHERE trading_day = {day:UInt32} AND run_id = {run:String} AND step IN ('loop', 'order'))"
    ),
    "hft.order_round_trip_requests": _round_trips(
        "hft.decisions", "requested_ns", "action = 1 AND verdict = 1"
    ),
    "hft.order_round_trip_answers": _round_trips("hft.broker_events", "answered_ns", "1"),
}
"""Queries by view. Each gives a pair: what the table calls for, what the view holds. ``day`` and
``run`` are those of the rows, ``low`` and ``high`` whole minutes around their exchange times."""
