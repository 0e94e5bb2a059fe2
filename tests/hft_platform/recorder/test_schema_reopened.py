"""Stores that are closed and opened again: replays, retention, rows of an older schema."""

from __future__ import annotations

from pathlib import Path

import pytest

from hft_platform.recorder import columns, migrations
from hft_platform.recorder.loader import load_sealed
from hft_platform.recorder.migrations import load_migrations
from hft_platform.recorder.store import Store, open_store
from tests.hft_platform.recorder.conftest import market_tape, order_tape, write_session
from tests.hft_platform.recorder.test_schema import counted, send, states, trading


def test_the_same_tokens_twice_change_no_state_and_neither_does_a_reopened_store(
    tmp_path: Path,
) -> None:
    made = trading()
    with open_store(tmp_path) as store:
        for name, rows in made.items():
            send(store, name, rows, "twice")
        first = states(store, "twice")
        for name, rows in made.items():
            send(store, name, rows, "twice")
        assert states(store, "twice") == first
    with open_store(tmp_path) as store:
        for name, rows in made.items():
            send(store, name, rows, "twice")
        assert states(store, "twice") == first
    assert sum(int(str(row[2])) for row in first["hft.bars_1m"]) == 3_000
    assert len(first["hft.order_latency"]) == 200


def test_a_store_of_version_eight_is_upgraded_with_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trading(200)
    orders = made["Decision"].tobytes() + made["Broker"].tobytes()
    session = write_session(tmp_path, "s1", market=market_tape(300), orders=orders)
    with monkeypatch.context() as older:
        older.setattr(
            migrations, "load_migrations", lambda _: [m for m in load_migrations() if m.version < 9]
        )
        with open_store(tmp_path) as store:
            assert store.rows("EXISTS TABLE hft.orders") == [(0,)]
            assert load_sealed(tmp_path, store).refused == []
    config = retained(tmp_path / "config", "30")
    with open_store(tmp_path, config_dir=config) as store:
        for table in ("market_books", "market_trades", "timers"):
            store.command(f"OPTIMIZE TABLE hft.{table} FINAL")
            ((count, newest),) = store.rows(
                f"SELECT count(), max(dateDiff('day', loaded_at, now('UTC'))) FROM hft.{table}"
            )
            assert count > 0, "the time of rows from before counts from the upgrade"
            assert newest == 0
        assert store.rows("SELECT count(), count(round_trip_ns) FROM hft.order_latency") == [
            (200, 150)
        ]
        again = load_sealed(tmp_path, store, session_dirs=[session])
        assert (again.segments_known, again.rows) == (2, {})
        first = {view: pair for view, pair in counted(store, "s1").items() if any(pair)}
        assert len(first) == 6, "all but health reports, which the log has none of"
        assert all(in_table == in_view for in_table, in_view in first.values())
        finished = states(store, "s1")
        (views,) = [m for m in load_migrations() if m.name == "0010_trading_views.sql"]
        for _ in range(2):  # a crash in the middle is healed by running all of it again
            for statement in views.statements:
                store.command(statement)
        assert {view: counted(store, "s1")[view] for view in first} == first
        assert states(store, "s1") == finished


def retained(folder: Path, days: str) -> Path:
    """A config folder that sets the retention."""
    folder.mkdir(exist_ok=True)
    (folder / "settings.yaml").write_text(f"store: {{market_retention_days: {days}}}\n")
    return folder


LOADED_AT = "ALTER TABLE hft.{} MODIFY COLUMN loaded_at DateTime('UTC') MATERIALIZED now('UTC')"


def test_market_rows_go_by_the_day_they_were_loaded_and_the_order_log_stays(
    tmp_path: Path,
) -> None:
    old = write_session(tmp_path, "old", market=market_tape(300, days=(20190102,)), wal_id=1)
    write_session(
        tmp_path, "new", market=market_tape(300, days=(20190103,)), orders=order_tape(100), wal_id=2
    )
    tables = ("market_books", "market_trades", "timers")
    with open_store(tmp_path, config_dir=tmp_path / "none") as store:
        for table in tables:  # as if this session had been loaded forty days ago
            store.command(LOADED_AT.format(table) + " - toIntervalDay(40)")
        assert load_sealed(tmp_path, store, session_dirs=[old]).refused == []
        for table in tables:
            store.command(LOADED_AT.format(table))
    with open_store(tmp_path, config_dir=retained(tmp_path / "config", "30")) as store:
        report = load_sealed(tmp_path, store)
        assert (report.refused, report.segments_loaded) == ([], 2), "loaded and verified"
        kept = store.rows("SELECT count() FROM hft.decisions")
        for table in tables:
            store.command(f"OPTIMIZE TABLE hft.{table} FINAL")
            left = store.rows(f"SELECT DISTINCT run_id FROM hft.{table}")
            assert left == [("new",)], f"{table}: by loading, for both trading days are years old"
        assert store.rows("SELECT count() FROM hft.decisions") == kept != [(0,)]
        assert store.rows("SELECT count() > 0 FROM hft.bars_1m WHERE run_id = 'old'") == [(1,)]
        again = load_sealed(tmp_path, store)
        assert (again.segments_known, again.rows) == (3, {}), "what went is not loaded again"


def test_a_changed_retention_is_applied_and_null_takes_it_away(tmp_path: Path) -> None:
    def ttls(store: Store) -> set[str]:
        found = store.rows(
            "SELECT name, extract(engine_full, 'TTL ([^ ]+ . [^ ]+)') FROM system.tables"
            " WHERE database = 'hft' AND engine LIKE '%MergeTree'"
        )
        of_logs = {table.removeprefix("hft.") for table in columns.TABLES.values()}
        return {f"{name}: {ttl}" for name, ttl in found if ttl and name in of_logs}

    config = tmp_path / "config"
    names = ("market_books", "market_trades", "timers")
    for days in ("30", "30", "90"):
        with open_store(tmp_path, config_dir=retained(config, days)) as store:
            assert ttls(store) == {f"{n}: loaded_at + toIntervalDay({days})" for n in names}
    with open_store(tmp_path, config_dir=retained(config, "null")) as store:
        assert ttls(store) == set()
