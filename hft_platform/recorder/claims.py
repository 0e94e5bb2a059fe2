"""Claims: which loader of a host works on which share of the segments (FileClaimRegistry).

Why: several loaders side by side should not do the same work, and two of them must never append to
one ledger file.

Invariants:
1. The claim on a shard is a `flock` on its own lock file, which nobody ever unlinks; the kernel
   frees it when the holder dies, however it dies. There is no time to live and nothing to renew.
2. After locking, the file locked and the file of that name are compared: a lock on a file that
   somebody removed is no claim.
3. A claim is about efficiency and about the ledger file. That every record is in the store once
   does not depend on it (`loader`).

"Unlock, close, unlink" lets two processes hold "the" lock; `tests/hft_platform/recorder/
test_claims.py` shows it. Claims between hosts: `host_claims`. Operator's page: `docs/store.md`.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from pathlib import Path

from hft_platform.recorder import store_lock
from hft_platform.recorder.ledger import SegmentKey

SHARDS = 16
"""Shares of the segments. It is part of every ledger file's first line: changing it means new
ledgers, which are made again by counting."""


def shard_of(key: SegmentKey) -> int:
    """Share that a segment belongs to: the same for every loader, host and start."""
    return zlib.crc32(str(key).encode()) % SHARDS


class FileClaim:
    """A held claim; closing it lets go.

    Parameters
    ----------
    descriptor : int
        Open, locked lock file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> FileClaim:
        """Return the claim."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Let go."""
        os.close(self._descriptor)


class FileClaimRegistry:
    """The claims of a workspace, one lock file a shard.

    Parameters
    ----------
    folder : Path
        ``ledger/claims`` of the workspace; made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, shard: int) -> Path:
        """Lock file of a shard."""
        return self.folder / f"{shard:02d}.lock"

    def holder(self, shard: int) -> store_lock.Holder:
        """Who holds a shard; only meaningful right after it could not be claimed."""
        return store_lock.read_holder(self.path(shard))

    def try_claim(self, shard: int) -> FileClaim | None:
        """Claim a shard without waiting; None when another loader has it.

        Parameters
        ----------
        shard : int
            From 0 to `SHARDS` - 1.
        """
        path = self.path(shard)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except OSError:
                os.close(descriptor)
                raise
            if _is_still_named(descriptor, path):
                store_lock.write_holder(descriptor)
                return FileClaim(descriptor)
            # Somebody removed the file between opening and locking it: ask for the new one.
            os.close(descriptor)


def _is_still_named(descriptor: int, path: Path) -> bool:
    ours = os.fstat(descriptor)
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)
