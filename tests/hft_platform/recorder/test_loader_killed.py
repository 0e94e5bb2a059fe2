"""A loader killed at the worst moments, and a store that was deleted: still exactly once."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

from hft_platform.recorder import columns
from hft_platform.recorder.loader import ledger_folder, load_sealed
from hft_platform.recorder.session_records import session_tape
from hft_platform.recorder.store import open_store, rows_by_table
from tests.hft_platform.recorder.conftest import market_tape, order_tape, write_session

# Kills its own process around the n-th insert into a table of a given prefix: either when the
# BEFORE is written and nothing was sent, or when the rows are in and the AFTER is missing.
CHILD = """
import os, signal, sys
from pathlib import Path
from hft_platform.recorder.loader import load_sealed
from hft_platform.recorder.store import Store, open_store

ws, moment, prefix, n = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
insert, count = Store.insert_native, 0

def dying(self, table, *arguments, **keywords):
    global count
    count += table.startswith(prefix)
    last = count == n and table.startswith(prefix)
    if last and moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    insert(self, table, *arguments, **keywords)
    if last and moment == "after":
        os.kill(os.getpid(), signal.SIGKILL)

with open_store(ws) as store:
    Store.insert_native = dying
    load_sealed(ws, store)
"""


def _run_until_killed(ws: Path, moment: str, prefix: str, n: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(ws), moment, prefix, str(n)],
        timeout=120, check=False, capture_output=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def test_a_loader_killed_between_any_two_steps_loads_everything_once_in_the_end(
    tmp_path: Path,
) -> None:
    market, orders = market_tape(12_000), order_tape(300)
    write_session(tmp_path, "killed", market=market, orders=orders, segment_bytes=1 << 20)
    _run_until_killed(tmp_path, "before", "hft.market_", 1)
    _run_until_killed(tmp_path, "after", "hft.market_trades", 1)
    _run_until_killed(tmp_path, "after", "hft.market_books", 2)
    _run_until_killed(tmp_path, "before", "hft.ingest_segments", 1)
    for ledger in ledger_folder(tmp_path).glob("ingest-*.jsonl"):
        with ledger.open("ab") as file:
            file.write(b'00000000 {"event":"bef')  # and a torn last line
    with open_store(tmp_path) as store:
        report = load_sealed(tmp_path, store)
        assert report.problems == []
        assert report.segments_loaded > 2
        assert report.rows_inserted == 0, "all rows were in before the last kill"
        for table in columns.TABLES.values():
            count, unique = store.rows(f"SELECT count(), uniqExact(log_kind, seq) FROM {table}")[0]
            assert count == unique, table
        assert session_tape(store, "killed", "market") == market
        assert session_tape(store, "killed", "orders") == orders
        in_view, in_table = store.rows(
            "SELECT (SELECT sum(trade_count) FROM hft.bars_1m),"
            " (SELECT countIf(bitAnd(flags, 1) = 0) FROM hft.market_trades)"
        )[0]
        assert in_view == in_table


def test_a_deleted_store_is_filled_again_whatever_the_ledger_says(tmp_path: Path) -> None:
    write_session(tmp_path, "deleted", market=market_tape(500))
    with open_store(tmp_path) as store:
        first = load_sealed(tmp_path, store)
        before = rows_by_table(store)
    shutil.rmtree(tmp_path / "store")
    with open_store(tmp_path) as store:
        again = load_sealed(tmp_path, store)
        assert again.rows == first.rows
        assert rows_by_table(store) == before
