"""Real processes: killed while they append, out of disk space, and two at one log."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hft_platform import _core, records
from hft_platform.errors import ReasonCode
from tests.rust_core.wal_tapes import refused, trades

RECORD_BYTES = records.DTYPES["Trade"].itemsize
KILLS = 10
"""A kill a process start each; the drill `wal-kill` does 200 and more by forking."""
RECORDS_PER_LIFE = 400

APPEND_AND_PRINT = """
import sys
from pathlib import Path
from hft_platform import _core

log_dir, tape_path, record_bytes, epoch, how, count = sys.argv[1:]
tape, step = Path(tape_path).read_bytes(), int(record_bytes)
writer = _core.WalWriter(
    log_dir, 7, "market", segment_bytes=16 << 10, group_commit_ms=2, epoch=int(epoch)
)
done = writer.last_seq()
print(done, flush=True)
for done in range(done, done + int(count)):
    record = tape[done * step : (done + 1) * step]
    seq = writer.append_durable(record) if how == "append_durable" else writer.append(record)
    print(seq if how == "ack_before_sync" else writer.durable_seq(), flush=True)
print(writer.sync(), flush=True)
sys.stdin.read()
"""

FILL_THE_DISK = """
import resource, sys
from pathlib import Path
from hft_platform import _core

log_dir, tape_path, record_bytes, limit_bytes = sys.argv[1:]
tape, step = Path(tape_path).read_bytes(), int(record_bytes)
writer = _core.WalWriter(log_dir, 7, "market", segment_bytes=16 << 10, group_commit_ms=0)
acked = writer.append_durable(tape[: 50 * step])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit_bytes), resource.RLIM_INFINITY))
try:
    while True:
        acked = writer.append_durable(tape[acked * step : (acked + 1) * step])
except _core.WalError as error:
    print(acked, writer.durable_seq(), error.args[0], flush=True)
    first = error.args
for call in (writer.sync, writer.rotate, writer.last_seq, lambda: writer.append(tape[:step]),
             lambda: writer.append_durable(tape[:step]), writer.seal):
    try:
        call()
    except _core.WalError as error:
        assert error.args == first, (error.args, first)
    else:
        raise SystemExit(f"{call} answered after a failure")
"""


@pytest.fixture(scope="module")
def tape_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tape file for the child processes."""
    path = tmp_path_factory.mktemp("tape") / "trades.tape"
    path.write_bytes(trades(1, KILLS * RECORDS_PER_LIFE))
    return path


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a child that runs `program` with `arguments`."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)


def kill_while_appending(log_dir: Path, tape_path: Path, *, how: str, epoch: int) -> int:
    """Kill a child that appends, each epoch at another place; return what it acknowledged."""
    arguments = (log_dir, tape_path, RECORD_BYTES, epoch, how, RECORDS_PER_LIFE)
    with start(APPEND_AND_PRINT, *arguments) as child:
        assert child.stdout is not None
        start_seq = acked = int(child.stdout.readline())
        for line in child.stdout:
            acked = int(line)
            # Only a life with an acknowledgement counts.
            if acked > start_seq + 7 * (epoch % 10):
                break
        child.send_signal(signal.SIGKILL)
        # What it had printed before it died.
        acked = max([acked, *(int(line) for line in child.stdout if line.endswith("\n"))])
    assert child.returncode == -signal.SIGKILL
    assert acked > start_seq
    return acked


@pytest.mark.parametrize("how", ["append_durable", "append"])
def test_every_acknowledged_record_survives_a_kill(
    tmp_path: Path, tape_path: Path, how: str
) -> None:
    for epoch in range(1, KILLS + 1):
        acked = kill_while_appending(tmp_path, tape_path, how=how, epoch=epoch)
        before = _core.read_log(str(tmp_path))["tape"]
        report = _core.recover_log(str(tmp_path))
        assert (report["last_seq"] or 0) >= acked
        log = _core.read_log(str(tmp_path))
        assert log["tape"] == before == trades(1, report["last_seq"])
        assert {info["state"] for info in log["segments"]} == {"sealed"}


def test_a_writer_that_acknowledges_before_the_sync_is_caught_by_the_same_kills(
    tmp_path: Path, tape_path: Path
) -> None:
    lost = 0
    for epoch in range(1, 6):
        acked = kill_while_appending(tmp_path, tape_path, how="ack_before_sync", epoch=epoch)
        lost += (_core.recover_log(str(tmp_path))["last_seq"] or 0) < acked
    assert lost > 0


@pytest.mark.parametrize("limit_bytes", [0, 10_000, 16_300], ids=["write", "frame", "rotation"])
def test_a_full_disk_stops_the_writer_and_loses_no_acknowledged_record(
    tmp_path: Path, tape_path: Path, limit_bytes: int
) -> None:
    # The next write fails at once, or inside a frame, or when the next segment is reserved.
    with start(FILL_THE_DISK, tmp_path, tape_path, RECORD_BYTES, limit_bytes) as child:
        output, _ = child.communicate(timeout=60)
    assert child.returncode == 0, output
    acked, durable_seq, code = map(int, output.split())
    assert code == ReasonCode.WAL_WRITE_FAILED
    assert durable_seq == acked >= 50

    # Space is back: the log is recovered and goes on.
    with _core.WalWriter(str(tmp_path), 7, "market", group_commit_ms=0, epoch=2) as writer:
        last_seq = writer.last_seq()
        assert last_seq >= acked
        writer.append_durable(trades(last_seq + 1, 5))
    assert _core.read_log(str(tmp_path))["tape"] == trades(1, last_seq + 5)


def test_a_writer_that_cannot_reserve_its_first_segment_does_not_open(
    tmp_path: Path,
) -> None:
    program = """
import resource, sys
from hft_platform import _core
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
try:
    _core.WalWriter(sys.argv[1], 7, "market")
except _core.WalError as error:
    print(error.args[0], error.args[1])
"""
    with start(program, tmp_path) as child:
        output, _ = child.communicate(timeout=60)
    assert output.startswith(str(int(ReasonCode.WAL_WRITE_FAILED)))
    assert "reserving space failed" in output
    assert _core.recover_log(str(tmp_path))["segment_count"] == 0


def test_a_log_held_by_another_process_is_busy_until_that_process_is_gone(
    tmp_path: Path, tape_path: Path
) -> None:
    with start(APPEND_AND_PRINT, tmp_path, tape_path, RECORD_BYTES, 1, "append", 400) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGSTOP)
        assert refused(_core.recover_log, str(tmp_path))[0] == ReasonCode.WAL_BUSY
        # A reader needs no lock and sees whole frames only.
        tape = _core.read_log(str(tmp_path))["tape"]
        assert tape == trades(1, len(tape) // RECORD_BYTES)
        child.kill()
    assert _core.recover_log(str(tmp_path))["segment_count"] >= 0
