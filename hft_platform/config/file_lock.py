"""The lock of a folder: one process at a time reads, changes and writes what lies in it.

Why: two writers of one file that both read before they write lose what one of them wrote.

Invariants:
1. The lock file is never removed: unlinking it would let two holders in.
2. The system lets a lock go when its process ends, however it ends.

It waits as long as it takes; a lock that is only tried is its owner's (see `workspace_lock`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(folder: Path, *, name: str = ".lock", is_private: bool = False) -> Iterator[None]:
    """Hold a folder's lock for a read-change-write.

    Parameters
    ----------
    folder : Path
        Made when missing.
    name : str, optional
        Of the lock file.
    is_private : bool, optional
        Folder and lock file are for their owner only.

    Yields
    ------
    None
        While this process alone holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700 if is_private else 0o777)
    mode = 0o600 if is_private else 0o644
    descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
