"""A log that fails in a real `hft-live run`: its exit code, the latch, and what is left."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hft_platform import _core
from hft_platform.errors import ReasonCode
from hft_platform.services import latch
from tests.hft_platform.services.live_workspace import SESSIONS, Live, make_live

FILE_BYTES = 4096
"""More than a latch or a message needs, less than a log holds after its first commits."""


def wait_for_records(process: subprocess.Popen[str], workspace: Path) -> Path:
    """Wait until the running session's market log has durable records beyond the limit."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        for log in workspace.glob("sessions/*/market"):
            mark = _core.read_watermark(str(log)) if (log / "watermark").exists() else None
            if mark is not None and mark["durable_seq"] > FILE_BYTES // 136:
                return log
        time.sleep(0.02)
    raise AssertionError(f"no durable record within 60 s: {process.communicate()}")


def test_a_failed_write_ends_the_process_with_its_code_and_halts_the_workspace(
    tmp_path: Path,
) -> None:
    live: Live = make_live(tmp_path)
    config = live.issue()
    command = [
        sys.executable, "-m", "hft_platform.cli", "run", "--workspace", str(live.ws),
        "--mode", "paper", "--speed", "30", "--config", str(config), "--session", SESSIONS[0],
        "--json",
    ]  # fmt: skip
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        market = wait_for_records(process, live.ws)
        # As on a full disk: from now on no file of the process may grow.
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    assert "Traceback" not in errors
    content = json.loads(output.strip().splitlines()[-1])
    assert content["code"] == ReasonCode.WAL_WRITE_FAILED

    halted = latch.read(live.ws)
    assert halted is not None
    assert halted["code"] == ReasonCode.WAL_WRITE_FAILED
    assert not list(live.ws.rglob("summary.json")), "a failed session is no evidence"
    marks = [_core.read_watermark(str(market.parent / kind)) for kind in ("market", "orders")]
    failed = [mark for mark in marks if mark is not None and mark["phase"] == "failed"]
    assert [mark["failure_code"] for mark in failed] == [ReasonCode.WAL_WRITE_FAILED]

    # Nothing that was acknowledged is gone, and the next session starts only after a resume.
    acked = {mark["log_kind"]: mark["durable_seq"] for mark in marks if mark is not None}
    for kind, durable_seq in acked.items():
        report = _core.recover_log(str(market.parent / kind))
        assert (report["last_seq"] or 0) >= durable_seq, kind
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert again.returncode == 3
    assert json.loads(again.stdout.strip().splitlines()[-1])["error"] == "KILL_SWITCH_ON"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a file system of its own")
def test_a_full_file_system_stops_the_writer_one_segment_after_it_showed(tmp_path: Path) -> None:
    """A tmpfs of a few MB in a mount namespace of its own: real ENOSPC, from the kernel."""
    program = """
import sys
from hft_platform import _core, records
log = sys.argv[1]
writer = _core.WalWriter(log, 7, "market", segment_bytes=1 << 20, group_commit_ms=0)
tape = records.empty("Trade", 500).tobytes()
acked, warned_at = 0, None
try:
    while True:
        acked = writer.append_durable(tape)
        if warned_at is None and not writer.has_space_ahead():
            warned_at = acked
except _core.WalError as error:
    code = error.args[0]
mark = _core.read_watermark(log)
print(acked, warned_at, code, writer.durable_seq(), mark["phase"], mark["failure_code"])
del writer
print(_core.recover_log(log)["last_seq"])
"""
    mount = tmp_path / "small"
    mount.mkdir()
    script = 'mount -t tmpfs -o size=4m none "$0" && exec "$1" -c "$2" "$0/log"'
    command = ["unshare", "--mount", "sh", "-c", script, str(mount), sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.strip().splitlines()
    acked, warned_at, code, durable_seq, phase, failure = first.split()
    assert (int(code), phase, int(failure)) == (605, "failed", 605)
    assert code == str(int(ReasonCode.WAL_WRITE_FAILED))
    # Of the tape that failed, a part may have become durable with the segment it filled.
    assert int(acked) <= int(durable_seq) < int(acked) + 500
    frames_per_segment = (1 << 20) // 136
    assert 0 < int(acked) - int(warned_at) <= frames_per_segment
    assert int(second) >= int(acked)
