"""Records as columns: exact both ways, and refused when they would not be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hft_platform import records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder import columns, native
from hft_platform.recorder.session_records import session_records
from hft_platform.recorder.small_tables import SMALL_TABLES
from hft_platform.recorder.store import Store
from tests.hft_platform.recorder.conftest import DAY, LIMIT

ORIGIN = columns.Origin("columns", 7, "market", 1)
COMPUTED = ("ALIAS", "DEFAULT", "MATERIALIZED")
"""Kinds of columns that the store fills by itself."""


def _insert(store: Store, name: str, rows: np.ndarray, run_id: str) -> None:
    origin = columns.Origin(run_id, 7, "market", 1)
    seqs = np.arange(1, rows.size + 1, dtype=np.uint64)
    block = columns.encode_records(name, rows, origin=origin, seqs=seqs)
    store.insert_native(columns.TABLES[name], columns.column_names(name), block, token=run_id)


def _filled(name: str, count: int) -> np.ndarray:
    """Random bytes in every field but those that have one legal value or a smaller range."""
    draw = np.random.default_rng(count)
    size = records.DTYPES[name].itemsize
    rows = np.frombuffer(draw.bytes(size * count), dtype=records.DTYPES[name]).copy()
    head = records.empty(name, count)
    for field in ("record_bytes", "record_type", "schema_version", "reserved_a", "reserved_b"):
        rows[field] = head[field]
    rows["trading_day"] = DAY
    for column in columns.COLUMNS[name]:
        if column.is_decimal:
            rows[column.field] = draw.integers(
                -LIMIT, LIMIT, rows[column.field].shape, endpoint=True
            )
    return rows


@pytest.mark.parametrize("name", list(columns.TABLES))
def test_every_record_type_comes_back_with_the_same_bytes(store: Store, name: str) -> None:
    rows = _filled(name, 50)
    columns.check_records(name, rows)
    _insert(store, name, rows, f"bytes-{name}")
    back, seqs = session_records(store, f"bytes-{name}", name)
    assert back.tobytes() == rows.tobytes()
    assert seqs.tolist() == list(range(1, 51))


def test_both_bounds_and_the_smallest_unit_are_stored_exactly(store: Store) -> None:
    rows = records.empty("Trade", 4)
    rows["price"] = [LIMIT, -LIMIT, 1, -1]
    rows["qty"] = 150_000_000
    rows["trading_day"] = DAY
    columns.check_records("Trade", rows)
    _insert(store, "Trade", rows, "bounds")
    shown = store.rows(
        "SELECT toString(price), toString(qty) FROM hft.market_trades"
        " WHERE run_id = 'bounds' ORDER BY seq"
    )
    assert shown == [
        ("9999999999.99999999", "1.5"), ("-9999999999.99999999", "1.5"),
        ("0.00000001", "1.5"), ("-0.00000001", "1.5"),
    ]  # fmt: skip


@pytest.mark.parametrize("value", [LIMIT + 1, -LIMIT - 1, (1 << 63) - 1, -(1 << 63)])
def test_a_value_beyond_the_bound_is_refused_and_named(value: int) -> None:
    rows = records.empty("Book", 3)
    rows["ask_qty"][1, 4] = value
    rows["input_seq"] = [10, 11, 12]
    with pytest.raises(PlatformError) as refused:
        columns.check_records("Book", rows)
    assert refused.value.code == ReasonCode.VALUE_OUT_OF_RANGE
    assert "Book.ask_qty" in refused.value.message
    assert "input_seq 11" in refused.value.message
    assert refused.value.facts["value"] == value


def test_a_reserved_field_in_use_is_refused_because_it_could_not_be_given_back() -> None:
    rows = records.empty("Trade", 2)
    rows["reserved_b"][1] = 1
    with pytest.raises(PlatformError) as refused:
        columns.check_records("Trade", rows)
    assert refused.value.code == ReasonCode.WAL_SCHEMA_MISMATCH


def test_the_sql_has_the_columns_that_the_records_have(store: Store) -> None:
    expected = {
        table: [*columns.ORIGIN_COLUMNS]
        + [(column.name, column.type_name) for column in columns.COLUMNS[name]]
        for name, table in columns.TABLES.items()
    } | {table: list(schema.items()) for table, schema in SMALL_TABLES.items()}
    for table, wanted in expected.items():
        described = store.rows(f"DESCRIBE TABLE {table}")
        found = [(row[0], row[1]) for row in described if row[2] not in COMPUTED]
        assert found == wanted, table


def test_every_table_that_is_inserted_into_deduplicates(store: Store) -> None:
    listed = store.rows(
        "SELECT database || '.' || name, create_table_query FROM system.tables"
        " WHERE database IN ('hft', 'audit') AND engine LIKE '%MergeTree'"
        " AND name != 'store_identity'"
    )
    # Three targets of materialized views, and the applied migrations.
    assert len(listed) == len(columns.TABLES) + len(SMALL_TABLES) + 4
    for table, sql in listed:
        assert "non_replicated_deduplication_window = 10000" in sql, table


def test_columns_of_different_length_never_become_a_block() -> None:
    with pytest.raises(PlatformError) as refused:
        native.encode_block(
            [native.constant("a", "UInt32", 1, 2), native.constant("b", "UInt32", 1, 3)]
        )
    assert refused.value.code == ReasonCode.INVARIANT_BROKEN
    with pytest.raises(PlatformError):
        native.fixed("price", "Decimal(18, 8)", np.zeros(3, dtype="<i4"))


def test_money_beyond_its_decimal_is_refused() -> None:
    assert native.money("net", [10**38 - 1, -1]).row_count == 2
    with pytest.raises(PlatformError) as refused:
        native.money("net", [10**38])
    assert refused.value.code == ReasonCode.VALUE_OUT_OF_RANGE


def test_a_failing_statement_is_a_typed_error_with_the_engine_s_reason(
    store: Store, ws: Path
) -> None:
    with pytest.raises(PlatformError) as failed:
        store.rows("SELECT no_such_column FROM hft.decisions")
    assert failed.value.code == ReasonCode.STORE_REFUSED
    assert "no_such_column" in failed.value.message
    assert store.dsn == f"chdb://{ws / 'store'}" or store.supports_many_clients
