"""The schema: decimals at their bounds, views that widen, materialized views under replay."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from hft_platform import records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder import columns, native
from hft_platform.recorder.small_tables import SMALL_TABLES, insert_rows
from hft_platform.recorder.store import INSERT_SETTINGS, Store
from hft_platform.recorder.view_counts import VIEW_COUNTS
from tests.hft_platform.recorder.conftest import DAY, LIMIT, START_NS

MONEY_LIMIT = 10**38 - 1
"""Largest magnitude that Decimal(38, 8) holds, at the project's scale."""
UNITS = "9999999999.99999999"
STATE_TABLES = ("hft.bars_1m_state", "hft.latency_1m_state", "hft.order_round_trip_state")


@pytest.fixture(scope="module")
def bounds(store: Store) -> Iterator[Store]:
    """A store with the largest and the smallest value in every decimal column."""
    for name in columns.TABLES:
        rows = records.empty(name, 2)
        for column in columns.COLUMNS[name]:
            if column.is_decimal:
                rows[column.field][0], rows[column.field][1] = LIMIT, -LIMIT
        rows["trading_day"] = DAY
        rows["instrument_id"] = 1
        if name == "Broker":
            rows["event_kind"], rows["broker_seq"], rows["order_id"] = 3, [1, 2], [7, 8]
        if name == "Decision":
            rows["action"], rows["verdict"], rows["order_id"] = 1, 1, [7, 8]
        send(store, name, rows, "bounds")
    for table, schema in SMALL_TABLES.items():
        both = [
            {
                column: value if kind == "Decimal(38, 8)" else "" if kind == "String" else 1
                for column, kind in schema.items()
            }
            | ({"run_id": f"bounds{value}"} if "run_id" in schema else {})
            for value in (MONEY_LIMIT, -MONEY_LIMIT)
        ]
        insert_rows(store, table, both, token="bounds")
    yield store


def send(
    store: Store, name: str, rows: np.ndarray, run_id: str, *, first_seq: int = 1, token: str = ""
) -> None:
    """Insert records of one type as the loader does."""
    columns.check_records(name, rows)
    seqs = np.arange(first_seq, first_seq + rows.size, dtype=np.uint64)
    origin = columns.Origin(run_id, 7, "market", 1)
    block = columns.encode_records(name, rows, origin=origin, seqs=seqs)
    table = columns.TABLES[name]
    store.insert_native(
        table, columns.column_names(name), block, token=token or f"{table}:{run_id}:{first_seq}"
    )


def decimal_columns(store: Store) -> list[tuple[str, str, str, str]]:
    """Table, column, type and kind of every decimal column that holds values."""
    return [
        (str(table), str(column), str(kind), str(computed))
        for table, column, kind, computed in store.rows(
            "SELECT c.database || '.' || c.table, c.name, c.type, c.default_kind"
            " FROM system.columns AS c"
            " JOIN system.tables AS t ON t.database = c.database AND t.name = c.table"
            " WHERE c.database IN ('hft', 'audit') AND t.engine LIKE '%MergeTree'"
            " AND c.type LIKE '%Decimal%' ORDER BY 1, 2"
        )
    ]


def test_every_decimal_column_of_every_table_gives_both_bounds_back(bounds: Store) -> None:
    seen = 0
    for table, column, kind, computed in decimal_columns(bounds):
        if table in STATE_TABLES or computed == "ALIAS":
            continue
        limit = {"Decimal(18, 8)": LIMIT, "Decimal(38, 8)": MONEY_LIMIT}[kind]
        # As integers at 1e-8, so no decimal point is between what went in and what is there.
        read = "reinterpretAsInt64" if limit == LIMIT else "reinterpretAsInt128"
        values = bounds.rows(
            f"SELECT toString({read}({column})) FROM {table} WHERE run_id LIKE 'bounds%'"
            f" AND {column} != 0 GROUP BY ALL ORDER BY 1"
        )
        assert values == [(str(-limit),), (str(limit),)], f"{table}.{column}"
        seen += 1
    recorded = sum(c.is_decimal for name in columns.TABLES for c in columns.COLUMNS[name])
    small = sum(kind == "Decimal(38, 8)" for s in SMALL_TABLES.values() for kind in s.values())
    assert seen == recorded + small, "each decimal column was looked at, and each is written"


def test_a_value_sent_as_units_would_be_noticed(bounds: Store) -> None:
    bounds.command("CREATE TABLE hft.as_units (price Decimal(18, 8)) ENGINE = Memory")
    try:
        bounds.command("INSERT INTO hft.as_units VALUES (35123)")
        assert bounds.rows("SELECT reinterpretAsInt64(price) FROM hft.as_units") == [
            (3_512_300_000_000,)
        ], "SQL takes a number as units: the integer in the column is not the one that was sent"
    finally:
        bounds.command("DROP TABLE hft.as_units")


def test_amounts_of_the_account_show_the_record_s_integers_as_money(store: Store) -> None:
    rows = records.empty("Account", 2)
    rows["trading_day"] = DAY
    rows["equity"] = [(1 << 63) - 1, -(1 << 63)]
    rows["free_margin"] = rows["margin_per_lot"] = [150_000_000, -1]
    send(store, "Account", rows, "amounts")
    assert store.rows(
        "SELECT toString(equity_amount), toString(free_margin_amount),"
        " toString(margin_per_lot_amount), toTypeName(equity_amount)"
        " FROM hft.account_answers WHERE run_id = 'amounts' ORDER BY seq"
    ) == [
        ("92233720368.54775807", "1.5", "1.5", "Decimal(38, 8)"),
        ("-92233720368.54775808", "-0.00000001", "-0.00000001", "Decimal(38, 8)"),
    ]


def test_every_view_answers_with_values_at_their_bounds(bounds: Store) -> None:
    views = bounds.rows(
        "SELECT database || '.' || name FROM system.tables"
        " WHERE database IN ('hft', 'audit') AND engine = 'View' ORDER BY 1"
    )
    assert len(views) >= 11
    for (view,) in views:
        bounds.raw(f"SELECT * FROM {view}", "Native")


def test_a_notional_at_the_bounds_is_exact(bounds: Store) -> None:
    exact = LIMIT * LIMIT // 10**8
    amount = LIMIT**3 // 10**16
    notional = bounds.rows(
        "SELECT toString(reinterpretAsInt128(notional)), toTypeName(notional)"
        " FROM hft.fills WHERE run_id = 'bounds' ORDER BY seq"
    )
    assert notional == [(str(exact), "Decimal(38, 8)")] * 2
    # The contract's last multiplier is the lower bound, so the money is as large as it gets.
    assert bounds.rows(
        "SELECT toString(reinterpretAsInt128(assumeNotNull(amount))) FROM hft.fill_amounts"
        " WHERE run_id = 'bounds' GROUP BY ALL"
    ) == [(str(-amount),)]
    assert bounds.rows(
        "SELECT order_id, toString(filled_qty), toString(reinterpretAsInt128(filled_notional))"
        " FROM hft.orders WHERE run_id = 'bounds' ORDER BY order_id"
    ) == [(7, UNITS, str(exact)), (8, f"-{UNITS}", str(exact))]


def test_a_plain_product_of_two_prices_overflows(bounds: Store) -> None:
    with pytest.raises(PlatformError) as failed:
        bounds.rows("SELECT price * qty FROM hft.broker_events WHERE run_id = 'bounds'")
    assert "overflow" in failed.value.message.lower()


# --- materialized views under replay ---


def states(store: Store, run_id: str) -> dict[str, list[tuple[object, ...]]]:
    """What the materialized views say of a run, finished."""
    where = f"WHERE run_id = '{run_id}' ORDER BY ALL"
    return {
        view: store.rows(f"SELECT {wanted} FROM {view} {where}")
        for view, wanted in {
            "hft.bars_1m": "minute_ns, toString(volume), trade_count, toString(open)",
            "hft.latency_1m": "step, minute_ns, sample_count, min_ns, max_ns, p50_ns, p999_ns",
            "hft.order_latency": "order_id, requested_ns, answered_ns",
        }.items()
    }


def trading(count: int = 3_000) -> dict[str, np.ndarray]:
    """Prints, books, requests and answers with times that mean something."""
    draw = np.random.default_rng(11)
    times = START_NS + np.arange(count) * 50_000_000
    made: dict[str, np.ndarray] = {}
    for name, size in (("Trade", count), ("Book", count), ("Decision", 200), ("Broker", 150)):
        rows = records.empty(name, size)
        rows["trading_day"], rows["instrument_id"] = DAY, 1001
        rows["exchange_time_ns"] = times[:size]
        rows["receive_time_ns"] = times[:size] + draw.lognormal(15, 1.5, size).astype(np.int64)
        rows["sequence_time_ns"] = rows["receive_time_ns"] + draw.integers(300, 9_000, size)
        made[name] = rows
    made["Trade"]["price"], made["Trade"]["qty"] = 3_500_000_000_000, 100_000_000
    made["Decision"]["action"] = made["Decision"]["verdict"] = 1
    made["Decision"]["order_id"] = np.arange(200) + 1
    made["Broker"]["event_kind"] = 1
    made["Broker"]["order_id"] = np.arange(150) + 1
    return made


def test_without_the_flag_for_views_the_same_tokens_would_count_twice(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    prints = trading()["Trade"]
    send(store, "Trade", prints, "unflagged")
    once = states(store, "unflagged")
    monkeypatch.setattr(
        "hft_platform.recorder.store.INSERT_SETTINGS",
        {**INSERT_SETTINGS, "deduplicate_blocks_in_dependent_materialized_views": 0},
    )
    send(store, "Trade", prints, "unflagged")
    twice = states(store, "unflagged")
    rows = store.rows("SELECT count() FROM hft.market_trades WHERE run_id = 'unflagged'")
    assert rows == [(prints.size,)], "the table itself is right"
    assert [row[2] for row in twice["hft.bars_1m"]] == [
        2 * int(str(row[2])) for row in once["hft.bars_1m"]
    ], "and its bars are not: what the flag and the targets' window are for"


def test_round_trips_stay_right_when_everything_comes_again_under_other_tokens(
    store: Store,
) -> None:
    made = trading()
    for times in range(3):
        # In every order of the two logs, and far beyond any window: new tokens every time.
        for name in ("Decision", "Broker") if times % 2 else ("Broker", "Decision"):
            send(store, name, made[name], "again", token=f"{name}:{times}")
    found = store.rows(
        "SELECT order_id, round_trip_ns FROM hft.order_latency WHERE run_id = 'again' ORDER BY 1"
    )
    request, answer = made["Decision"]["sequence_time_ns"], made["Broker"]["sequence_time_ns"]
    expected = [(n + 1, int(answer[n] - request[n]) if n < 150 else None) for n in range(200)]
    assert found == expected


def test_percentiles_are_merged_from_states_and_lie_within_one_percent(store: Store) -> None:
    books = trading(4_000)["Book"]
    for part in range(8):
        send(store, "Book", books[part::8], "merged", first_seq=1 + part * 500)
    wait = np.sort(books["receive_time_ns"] - books["exchange_time_ns"])
    ((count, p50, p99, highest),) = store.rows(
        "SELECT sample_count, p50_ns, p99_ns, max_ns FROM hft.latency_by_session"
        " WHERE run_id = 'merged' AND step = 'feed_book'"
    )
    assert (count, highest) == (4_000, int(wait[-1]))
    for found, share in ((p50, 0.5), (p99, 0.99)):
        exact = float(wait[int(share * (wait.size - 1))])
        assert abs(found / exact - 1.0) < 0.0101
    minutes = store.rows("SELECT p99_ns FROM hft.latency_1m WHERE run_id = 'merged'")
    assert len(minutes) > 2
    mean = float(np.mean([row[0] for row in minutes]))
    assert abs(mean / p99 - 1.0) > 0.02, "the mean of the minutes' percentiles is another number"


def test_made_up_times_are_no_latency(store: Store) -> None:
    books = trading(200)["Book"][:60]
    books["flags"][:20], books["flags"][20:50] = 2, 4
    send(store, "Book", books, "made_up")
    assert store.rows(
        "SELECT sum(sample_count) FROM hft.latency_1m WHERE run_id = 'made_up'"
    ) == [(10,)]  # fmt: skip


# --- views counted against their tables ---


def counted(store: Store, run_id: str) -> dict[str, tuple[int, int]]:
    """Both numbers of every view for the whole day of a run."""
    facts = {"day": DAY, "run": run_id, "low": 0, "high": (1 << 62)}
    return {
        view: (int(row[0]), int(row[1]))
        for view, sql in VIEW_COUNTS.items()
        for row in store.rows(sql, facts)
    }


def test_every_materialized_view_has_its_count(store: Store) -> None:
    listed = store.rows(
        "SELECT database || '.' || name FROM system.tables WHERE engine = 'MaterializedView'"
    )
    assert sorted(VIEW_COUNTS) == sorted(str(name) for (name,) in listed)


def test_views_that_hold_what_their_tables_hold_count_equal_and_a_lost_part_does_not(
    store: Store,
) -> None:
    made = trading()
    made["Book"]["flags"][:7], made["Trade"]["flags"][:5] = 2, 5
    health = records.empty("Health", 9)
    health["trading_day"], health["sequence_time_ns"] = DAY, START_NS
    health["health_kind"] = [1, 2, 3] * 3
    made["Health"] = health
    for name, rows in made.items():
        send(store, name, rows, "counted")
        send(store, name, rows, "counted other")
    whole = counted(store, "counted")
    assert whole == {
        "hft.bars_1m_fill": (2_995, 2_995),
        "hft.latency_1m_books": (2_993, 2_993),
        "hft.latency_1m_trades": (5_990, 5_990),
        "hft.latency_1m_reports": (150, 150),
        "hft.latency_1m_health": (6, 6),
        "hft.order_round_trip_requests": (200, 200),
        "hft.order_round_trip_answers": (150, 150),
    }
    for target in STATE_TABLES:
        store.command(
            f"ALTER TABLE {target} DELETE WHERE run_id = 'counted' SETTINGS mutations_sync = 2"
        )
    assert counted(store, "counted") == {view: (n, 0) for view, (n, _) in whole.items()}
    assert counted(store, "counted other") == whole


# --- views of a session ---


def test_risk_decisions_name_the_check_with_what_it_saw_and_its_limit(store: Store) -> None:
    decisions = records.empty("Decision", 3)
    decisions["trading_day"] = DAY
    decisions["action"] = [1, 2, 16]
    decisions["verdict"] = [2, 1, 3]
    decisions["reason_code"] = [int(ReasonCode.DAILY_LOSS_REACHED), 0, 0]
    decisions["observed"], decisions["limit"] = [-5, 0, 0], [3, 0, 0]
    send(store, "Decision", decisions, "risk")
    assert store.rows(
        "SELECT request, is_approved, check_code, observed, limit FROM hft.risk_decisions"
        " WHERE run_id = 'risk' ORDER BY seq"
    ) == [
        ("place", False, int(ReasonCode.DAILY_LOSS_REACHED), -5, 3), ("cancel", True, 0, 0, 0),
    ]  # fmt: skip


def test_an_order_has_its_answers_and_a_doubled_fill_counts_once(store: Store) -> None:
    placed = records.empty("Decision", 2)
    placed["trading_day"], placed["action"], placed["verdict"] = DAY, 1, 1
    placed["order_id"], placed["qty"] = [5, 6], 300_000_000
    placed["sequence_time_ns"] = [100, 200]
    send(store, "Decision", placed, "orders")
    events = records.empty("Broker", 4)
    events["trading_day"], events["order_id"] = DAY, 5
    events["event_kind"], events["broker_seq"] = [1, 3, 3, 4], [1, 2, 2, 3]
    events["qty"], events["price"] = 200_000_000, 3_500_000_000_000
    events["sequence_time_ns"] = [130, 140, 150, 160]
    send(store, "Broker", events, "orders")
    assert store.rows(
        "SELECT order_id, placed_ns, first_answer_ns, last_event_kind, fill_count,"
        " toString(filled_qty), toString(filled_notional)"
        " FROM hft.orders WHERE run_id = 'orders' ORDER BY order_id"
    ) == [(5, 100, 130, 4, 1, "2", "70000"), (6, 200, None, None, 0, "0", "0")]


def test_a_decimal_is_never_sent_from_another_width() -> None:
    with pytest.raises(PlatformError):
        native.fixed("price", "Decimal(38, 8)", np.zeros(3, dtype="<i8"))
