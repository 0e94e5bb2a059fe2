"""A process that waits for the lease, leads, and says so: what tests, drill and bench kill.

Why: a lock that the kernel frees at death can only be tried with processes that die.

Invariants:
1. It prints one line an event, unbuffered: `waiting`, `leads EPOCH NS`, `fenced CODE`.
2. While it leads it appends its epoch to a file, as a gateway does to the order log, only behind
   its fence: two leaders at once would leave epochs that are not in order.

It sends nothing to a broker. Started by `python -m hft_platform.gateway.lease_process`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import structlog

from hft_platform.errors import PlatformError
from hft_platform.gateway.lease import HUNG_AFTER_NS, LeaderLease, boottime_ns

WRITE_S = 0.001


def main(arguments: list[str] | None = None) -> int:
    """Wait, lead, write until ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hung-after-ms", type=int, default=HUNG_AFTER_NS // 1_000_000)
    parser.add_argument("--unfenced", action="store_true", help="negative control")
    options = parser.parse_args(arguments)
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    lease = LeaderLease(options.folder, hung_after_ns=options.hung_after_ms * 1_000_000)
    journal = options.folder / "epochs.log"
    say("waiting")
    while lease.try_acquire(lambda: last_epoch(journal)) is None:
        lease.wait()
    say(f"leads {lease.epoch} {boottime_ns()}")
    fence = lease.fence()
    descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    while True:
        lease.heartbeat()
        try:
            if not options.unfenced:
                fence.check()
        except PlatformError as error:
            say(f"fenced {error.code}")
            return 3
        os.write(descriptor, f"{lease.epoch}\n".encode())
        time.sleep(WRITE_S)


def say(line: str) -> None:
    """Print a line for whoever started this process."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def last_epoch(journal: Path) -> int:
    """Highest epoch that was written; a torn last line is none."""
    try:
        lines = journal.read_text(encoding="ascii").split("\n")[:-1]
    except FileNotFoundError:
        return 0
    return max((int(line) for line in lines if line), default=0)


if __name__ == "__main__":
    sys.exit(main())
