"""What a log says about itself, through the binding: manifest, archive and watermark."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hft_platform import _core, records
from hft_platform.errors import ReasonCode
from tests.rust_core.test_wal import market_log
from tests.rust_core.wal_tapes import refused, trades

ARCHIVE_FIRST = """
import sys
from hft_platform import _core
_core.manifest_append_archived(sys.argv[1], [1], "cold/market")
"""


def test_another_process_archives_while_the_writer_goes_on(tmp_path: Path) -> None:
    log, cold = tmp_path / "log", tmp_path / "cold"
    cold.mkdir()
    writer = market_log(log)
    for first in (1, 3, 5):
        writer.append_durable(trades(first, 2))
        writer.rotate()
    done = subprocess.run([sys.executable, "-c", ARCHIVE_FIRST, str(log)], check=False)
    assert done.returncode == 0
    moved = shutil.move(log / "00000001.seg", cold)
    writer.append(trades(7, 2))
    writer.seal()

    assert _core.verify_log(str(log)) == {
        "segment_count": 3, "away_count": 1, "has_manifest": True,
    }  # fmt: skip
    code, message = refused(_core.read_log, str(log))
    assert code == ReasonCode.LOG_SEQUENCE_GAP
    assert message.endswith("it was archived to cold/market")
    manifest = _core.read_manifest(str(log))
    assert manifest is not None
    sealed, archived = (
        next(row for row in manifest["entries"] if (row["kind"], row["segment_id"]) == (kind, 1))
        for kind in ("sealed", "archived")
    )
    assert archived == sealed | {"kind": "archived", "place": "cold/market"}
    assert sealed["sha256"] == _core.read_segment(moved)["info"]["sha256"]
    # The log goes on behind what is away, and is whole again once it is back.
    with market_log(log, epoch=2) as writer:
        assert writer.append(trades(9, 1)) == 9
    shutil.move(moved, log)
    assert _core.read_log(str(log))["tape"] == trades(1, 9)


def test_a_segment_that_is_still_written_cannot_be_archived(tmp_path: Path) -> None:
    with market_log(tmp_path) as writer:
        writer.append(trades(1, 2))
        code, message = refused(_core.manifest_append_archived, str(tmp_path), [1])
        assert code == ReasonCode.SETTINGS_INVALID
        assert "1, which is begun" in message
    assert refused(_core.manifest_append_deleted, str(tmp_path / "none"), [1])[0] == (
        ReasonCode.WAL_READ_FAILED
    )
    _core.manifest_append_deleted(str(tmp_path), [1])
    (tmp_path / "00000001.seg").unlink()
    assert _core.recover_log(str(tmp_path))["last_seq"] == 2


def test_the_watermark_is_read_from_another_process_and_outlives_a_kill(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from hft_platform import _core
writer = _core.WalWriter(sys.argv[1], 7, "market", segment_bytes=16 << 10, epoch=4)
writer.append_durable(Path(sys.argv[2]).read_bytes())
os.kill(os.getpid(), signal.SIGKILL)
"""
    tape = tmp_path / "tape"
    tape.write_bytes(trades(1, 200))
    log = tmp_path / "log"
    assert _core.read_watermark(str(tmp_path)) is None
    subprocess.run([sys.executable, "-c", program, str(log), str(tape)], check=False)
    mark = _core.read_watermark(str(log))
    assert mark is not None
    assert (mark["wal_id"], mark["log_kind"], mark["epoch"]) == (7, "market", 4)
    assert mark["durable_seq"] == mark["last_seq"] == 200
    assert (mark["phase"], mark["failure_code"], mark["segment_id"]) == ("open", 0, 2)
    # Advisory: a recovery does not look at it, however wrong it is.
    (log / "watermark").write_bytes(bytes(64))
    assert _core.recover_log(str(log))["last_seq"] == 200
    assert refused(_core.read_watermark, str(log))[0] == ReasonCode.WAL_READ_FAILED


@pytest.mark.parametrize("log_kind", ["market", "orders"])
def test_a_change_of_trading_day_begins_a_segment(tmp_path: Path, log_kind: str) -> None:
    name = "Trade" if log_kind == "market" else "Decision"
    rows = records.empty(name, 6)
    rows["trading_day"] = [20260410, 20260410, 20260413, 20260413, 20260413, 20260414]
    with _core.WalWriter(str(tmp_path), 7, log_kind, group_commit_ms=0) as writer:
        writer.append(rows.tobytes())
    log = _core.read_log(str(tmp_path))
    assert [info["record_count"] for info in log["segments"]] == [2, 3, 1]
    assert log["tape"] == rows.tobytes()
