"""One session through log, store and dataset again: equal hashes, and unequal ones when not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hft_platform import records
from research import round_trip

# A process of its own: the embedded store is one path a process, and other tests have theirs.
CHECK_THEN_CHANGE_ONE_ROW = """
import json, sys
from pathlib import Path
from hft_platform import records
from hft_platform.market.instruments import load_instruments
from hft_platform.recorder.session_records import session_tape
from hft_platform.recorder.store import open_store
from research import round_trip
from research.data.ingest import ingest
from research.data.store_source import StoredSession

ws = Path(sys.argv[1])
result = round_trip.check("generator", "gen_imbalance_taker", ws)
with open_store(ws) as store:
    store.command(
        "ALTER TABLE hft.market_books UPDATE ask_qty_5 = ask_qty_5 + toDecimal64(1, 8)"
        " WHERE seq = (SELECT min(seq) + 1000 FROM hft.market_books) SETTINGS mutations_sync = 2"
    )
    changed = records.tape_sha256(session_tape(store, round_trip.RUN_ID, "market"))
    dataset = ingest(StoredSession(store, round_trip.RUN_ID), ws / "changed", load_instruments())
result["changed"] = {"tape": changed, "dataset": dataset.sessions[0].tape_sha256}
print(json.dumps(result))
"""


def test_a_generated_session_is_the_same_at_every_stage_and_one_changed_row_shows(
    tmp_path: Path, repository: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHECK_THEN_CHANGE_ONE_ROW, str(tmp_path / "ws")],
        capture_output=True, text=True, check=False, cwd=repository, timeout=170,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.strip().splitlines()[-1])
    assert result["is_identical"]
    assert result["decisions"] > 10
    hashes = require_equal_stages(result)
    assert result["changed"]["tape"] != hashes["store market"]
    assert result["changed"]["dataset"] != hashes["dataset again"]
    sizes = result["sizes"]
    assert sizes["store_bytes"] < sizes["wal_bytes"] < sizes["json_bytes"]


@pytest.mark.recordings
@pytest.mark.timeout(400)
def test_a_real_txf_session_is_the_same_at_every_stage(
    tmp_path: Path, repository: Path, recordings: Path
) -> None:
    words = ["--source", str(recordings / "taifex"), "--workspace", str(tmp_path / "ws"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "research.round_trip", *words],
        capture_output=True, text=True, check=False, cwd=repository, timeout=380,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["symbol"], result["is_identical"]) == ("TXFD6", True)
    require_equal_stages(result)
    assert result["stages"][0]["records"] > 100_000
    assert result["segments"] > 2


def require_equal_stages(result: dict[str, Any]) -> dict[str, str]:
    """Hold the stages together here too; returns their hashes by name."""
    hashes = {row["name"]: row["sha256"] for row in result["stages"]}
    assert hashes["dataset"] == hashes["log"] == hashes["dataset again"]
    for kind in round_trip.LOGS:
        assert hashes[f"log {kind}"] == hashes[f"store {kind}"]
    assert len(set(hashes.values())) == 3
    return hashes


def test_json_lines_are_counted_as_they_would_be_written() -> None:
    trades = records.empty("Trade", 2)
    trades["price"], trades["qty"] = 3_557_250_000_000, np.array([1, 2]) * records.SCALE
    line = (
        '{"type":"Trade","schema_version":1,"instrument_id":0,"input_seq":0,"source_seq":0,'
        '"exchange_time_ns":0,"receive_time_ns":0,"sequence_time_ns":0,"flags":0,"source_id":0,'
        '"trading_day":0,"price":35572.5,"qty":1.0,"trade_id":0,"aggressor_side":0}\n'
    )
    assert round_trip.json_bytes(trades.tobytes()) == 2 * len(line)
