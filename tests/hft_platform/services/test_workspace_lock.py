"""One live process a workspace, and an epoch that is never used twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hft_platform.cli import main
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services.workspace_lock import WorkspaceLock, WorkspaceShare, lock_path

HOLDER = """
import os, sys, time
from pathlib import Path
from hft_platform.services.workspace_lock import WorkspaceLock
held = WorkspaceLock(Path(sys.argv[1]), pid=os.getpid())
print(held.epoch, flush=True)
sys.stdin.read()
"""


def test_a_second_holder_is_refused_and_told_who_holds_it_until_kill_9(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "1"
        for is_trial in (True, False):
            with pytest.raises(PlatformError) as caught:
                WorkspaceLock(tmp_path, pid=1, is_trial=is_trial)
            assert caught.value.code == ReasonCode.WORKSPACE_BUSY
            assert str(holder.pid) in caught.value.message
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    with WorkspaceLock(tmp_path, pid=os.getpid()) as held:
        assert held.epoch == 2


def test_the_epoch_grows_with_every_holder_and_a_trial_counts_none(tmp_path: Path) -> None:
    for wanted in (1, 2, 3):
        with WorkspaceLock(tmp_path, pid=7, is_trial=True) as trial:
            assert trial.epoch == wanted - 1
        with WorkspaceLock(tmp_path, pid=7) as held:
            assert held.epoch == wanted


@pytest.mark.parametrize("raw", [b"{", b'{"pid":1}', b'{"epoch":-1,"pid":1}', b"\0" * 128])
def test_an_epoch_that_cannot_be_read_is_refused_and_the_lock_let_go(
    tmp_path: Path, raw: bytes
) -> None:
    lock_path(tmp_path).parent.mkdir()
    lock_path(tmp_path).write_bytes(raw)
    with pytest.raises(PlatformError) as caught:
        WorkspaceLock(tmp_path, pid=1)
    assert caught.value.code == ReasonCode.FILE_DAMAGED
    lock_path(tmp_path).write_bytes(b'{"epoch": 41}')
    with WorkspaceLock(tmp_path, pid=1) as held:
        assert held.epoch == 42


def test_runners_share_a_workspace_and_a_process_that_sends_by_itself_does_not(
    tmp_path: Path,
) -> None:
    with (
        WorkspaceLock(tmp_path, pid=1, runner="alpha_a") as first,
        WorkspaceLock(tmp_path, pid=2, runner="alpha_b") as second,
    ):
        assert (first.epoch, second.epoch) == (1, 1)
        for runner in ("alpha_a", None):
            with pytest.raises(PlatformError) as busy:
                WorkspaceLock(tmp_path, pid=3, runner=runner)
            assert busy.value.code == ReasonCode.WORKSPACE_BUSY
    with WorkspaceLock(tmp_path, pid=4), pytest.raises(PlatformError) as alone:
        WorkspaceLock(tmp_path, pid=5, runner="alpha_a")
    assert alone.value.code == ReasonCode.WORKSPACE_BUSY
    with WorkspaceLock(tmp_path, pid=6, runner="alpha_a") as again:
        assert again.epoch == 2


def test_beside_a_gateway_nobody_sends_by_itself(tmp_path: Path) -> None:
    with (
        WorkspaceShare(tmp_path),
        WorkspaceShare(tmp_path),
        WorkspaceLock(tmp_path, pid=1, runner="alpha_a"),
        pytest.raises(PlatformError) as busy,
    ):
        WorkspaceLock(tmp_path, pid=2)
    assert busy.value.code == ReasonCode.WORKSPACE_BUSY
    with WorkspaceLock(tmp_path, pid=3), pytest.raises(PlatformError) as alone:
        WorkspaceShare(tmp_path)
    assert alone.value.code == ReasonCode.WORKSPACE_BUSY
    WorkspaceShare(tmp_path).release()


def test_gateway_run_is_refused_beside_a_direct_sender_and_without_the_opt_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["gateway", "run", "--workspace", str(tmp_path), "--json"]
    command += ["--alpha", "alpha_a", "--broker", "no.such:broker"]
    monkeypatch.delenv("HFT_LIVE_ENABLED", raising=False)
    with WorkspaceLock(tmp_path, pid=1):
        for opt_in, wanted in (
            (None, ReasonCode.LIVE_NOT_ENABLED),
            ("1", ReasonCode.WORKSPACE_BUSY),
        ):
            if opt_in:
                monkeypatch.setenv("HFT_LIVE_ENABLED", opt_in)
            assert main(command) != 0
            printed = capsys.readouterr()
            assert wanted.name in printed.out + printed.err
