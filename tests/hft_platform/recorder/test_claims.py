"""Claims: one holder a shard, freed by death, sound under stress; the broken way is not."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hft_platform.recorder.claims import SHARDS, FileClaimRegistry, shard_of
from hft_platform.recorder.ledger import SegmentKey

CLAIMS = 300
"""Claims of each process in the stress."""
GOLDEN = 9
"""Segments move between ledgers when this changes; then every store is counted again."""
# Claims and lets go as fast as it can; while it holds the claim it marks a shared byte, and counts
# how often it found the mark of another process there.
STRESS = """
import fcntl, json, mmap, os, sys, time
from pathlib import Path
from hft_platform.recorder.claims import FileClaimRegistry

how, folder, wanted, me = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
with (folder / "mark").open("r+b") as file:
    mark = mmap.mmap(file.fileno(), 1)

def used():
    overlaps = mark[0] != 0
    mark[0] = me
    time.sleep(0)
    overlaps |= mark[0] != me
    mark[0] = 0
    return overlaps

def sound():
    claim = FileClaimRegistry(folder).try_claim(0)
    if claim is None:
        return None
    with claim:
        return used()

def unlinking():
    path = folder / "00.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        overlaps = used()
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)
    path.unlink(missing_ok=True)
    return overlaps

# All begin together.
(folder / f"ready-{me}").touch()
while len(list(folder.glob("ready-*"))) < 3:
    time.sleep(0.001)
claims = overlaps = 0
end = time.monotonic() + 50
while claims < wanted and time.monotonic() < end:
    found = sound() if how == "sound" else unlinking()
    if found is not None:
        claims += 1
        overlaps += found
print(json.dumps([claims, overlaps]))
"""


def _stress(how: str, folder: Path) -> tuple[int, int]:
    (folder / "mark").write_bytes(b"\0")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", STRESS, how, str(folder), str(CLAIMS), str(me)],
            stdout=subprocess.PIPE,
        )
        for me in (1, 2, 3)
    ]
    counts = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert all(process.returncode == 0 for process in processes)
    return sum(claims for claims, _ in counts), sum(overlaps for _, overlaps in counts)


def test_three_processes_never_hold_a_claim_together(tmp_path: Path) -> None:
    claims, overlaps = _stress("sound", tmp_path)
    assert (claims, overlaps) == (3 * CLAIMS, 0)


def test_unlock_close_unlink_lets_two_hold_the_claim(tmp_path: Path) -> None:
    """Negative control: the harness sees what the sound way prevents."""
    claims, overlaps = _stress("unlinking", tmp_path)
    assert claims == 3 * CLAIMS
    assert overlaps > 0


def test_a_claim_is_held_once_named_and_free_again_after_it_is_let_go(tmp_path: Path) -> None:
    registry = FileClaimRegistry(tmp_path)
    claim = registry.try_claim(3)
    assert claim is not None
    with claim:
        assert registry.try_claim(3) is None
        assert registry.holder(3).pid > 0
        with registry.try_claim(4) or pytest.fail("shards are claimed one by one"):
            pass
    again = registry.try_claim(3)
    assert again is not None
    with again:
        assert registry.path(3).exists(), "the lock file stays"


def test_a_holder_that_is_killed_leaves_the_claim_free(tmp_path: Path) -> None:
    hold = (
        "import sys, time; from pathlib import Path\n"
        "from hft_platform.recorder.claims import FileClaimRegistry\n"
        "claim = FileClaimRegistry(Path(sys.argv[1])).try_claim(0)\n"
        "print('held', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    registry = FileClaimRegistry(tmp_path)
    assert registry.try_claim(0) is None
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    claim = registry.try_claim(0)
    while claim is None and time.monotonic() < deadline:
        claim = registry.try_claim(0)
    assert claim is not None
    with claim:
        pass


def test_a_lock_file_that_was_replaced_is_no_claim(tmp_path: Path) -> None:
    registry = FileClaimRegistry(tmp_path)
    first = registry.try_claim(0)
    assert first is not None
    with first:
        registry.path(0).unlink()
        second = registry.try_claim(0)
        assert second is not None, "the name is another file now"
        with second:
            assert registry.try_claim(0) is None


def test_the_shard_of_a_segment_never_changes() -> None:
    shards = [shard_of(SegmentKey("2026-03-02-day", "market", number)) for number in range(1, 400)]
    assert set(shards) == set(range(SHARDS))
    assert shard_of(SegmentKey("run", "orders", 1)) == GOLDEN
