"""Ingestion ledger: what was sent to which store, written down before and after.

Why: after a crash nobody has to guess whether a chunk arrived: it has no entry (never sent), a
BEFORE (ask the store), or an AFTER (it is there).

Invariants:
1. Entries are only appended, each made durable before the next step.
2. A line carries a checksum; only the last one may be torn, and it is cut off. Any other damaged
   line refuses.
3. An entry counts only for the store it names: a store that was deleted is loaded again.

It asks no store. Operator's page: `docs/store.md`.
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hft_platform.config.canonical import canonical_json, sync_folder
from hft_platform.errors import PlatformError, ReasonCode

Event = Literal["before", "after", "loaded"]


@dataclass(frozen=True, slots=True, order=True)
class SegmentKey:
    """A segment's name: session folder, log and number."""

    run_id: str
    log_kind: str
    segment_id: int

    def __str__(self) -> str:
        """``run/market/3``."""
        return f"{self.run_id}/{self.log_kind}/{self.segment_id}"


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What a file's name says without reading it; a difference means reading it again.

    Attributes
    ----------
    size : int
        Bytes.
    mtime_ns : int
        Last change as the file system keeps it; only ever compared for equality.
    """

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> FileStamp:
        """Stamp of a file."""
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns)


@dataclass(slots=True)
class SegmentState:
    """What the ledger knows of a segment in one store.

    Attributes
    ----------
    segment_sha256 : str
        Content hash that was loaded or begun.
    before, after : set of int
        Chunks with such an entry.
    loaded : FileStamp or None
        The file when it was complete and verified.
    """

    segment_sha256: str
    before: set[int] = field(default_factory=set)
    after: set[int] = field(default_factory=set)
    loaded: FileStamp | None = None


class Ledger:
    """The open ledger of a workspace; use it under the workspace's ingestion lock.

    Parameters
    ----------
    path : Path
        ``ledger/ingest.jsonl``; made when missing.
    store_id : str
        The store whose entries count.
    """

    def __init__(self, path: Path, *, store_id: str) -> None:
        self.path = path
        self.store_id = store_id
        self._states: dict[SegmentKey, SegmentState] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            self._read()
            sync_folder(path.parent)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Ledger:
        """Return the ledger."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close the file."""
        os.close(self._descriptor)

    @property
    def knows_store(self) -> bool:
        """True when there is an entry for this store."""
        return bool(self._states)

    def state(self, key: SegmentKey) -> SegmentState | None:
        """What is known of a segment, None when nothing is.

        Parameters
        ----------
        key : SegmentKey
            The segment.
        """
        return self._states.get(key)

    def append(
        self, event: Event, key: SegmentKey, *, segment_sha256: str, facts: dict[str, Any]
    ) -> None:
        """Append an entry and return when it is durable.

        Parameters
        ----------
        event : {"before", "after", "loaded"}
            What happens next, or has happened.
        key : SegmentKey
            The segment.
        segment_sha256 : str
            Its content hash.
        facts : dict
            ``chunk`` for before and after, ``size`` and ``mtime_ns`` for loaded; more for readers.

        Raises
        ------
        PlatformError
            WAL_WRITE_FAILED when the entry may not be durable; the load stops there.
        """
        entry = {
            "event": event,
            "store": self.store_id,
            "run_id": key.run_id,
            "log_kind": key.log_kind,
            "segment_id": key.segment_id,
            "segment_sha256": segment_sha256,
            **facts,
        }
        body = canonical_json(entry)
        line = b"%08x %s\n" % (zlib.crc32(body), body)
        try:
            written = os.write(self._descriptor, line)
            if written != len(line):
                raise OSError(f"{written} of {len(line)} bytes were written")
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise PlatformError(
                ReasonCode.WAL_WRITE_FAILED, f"the ledger {self.path} could not be written: {error}"
            ) from error
        self._apply(entry)

    def _read(self) -> None:
        size = os.fstat(self._descriptor).st_size
        raw = os.pread(self._descriptor, size, 0)
        end = 0
        for index, line in enumerate(raw.splitlines(keepends=True)):
            entry = _entry(line)
            if entry is None:
                if end + len(line) == size and not line.endswith(b"\n"):
                    # Torn by a crash: the step it announces was never taken.
                    os.ftruncate(self._descriptor, end)
                    return
                raise PlatformError(
                    ReasonCode.WAL_DAMAGED,
                    f"{self.path} line {index + 1} does not match its checksum",
                    next_step="restore the ledger from a copy; without it the store is counted:"
                    f" move {self.path.name} away and load again",
                )
            end += len(line)
            self._apply(entry)

    def _apply(self, entry: dict[str, Any]) -> None:
        if entry["store"] != self.store_id:
            return
        key = SegmentKey(entry["run_id"], entry["log_kind"], entry["segment_id"])
        state = self._states.setdefault(key, SegmentState(entry["segment_sha256"]))
        if entry["event"] == "before":
            state.before.add(entry["chunk"])
        elif entry["event"] == "after":
            state.after.add(entry["chunk"])
        else:
            state.loaded = FileStamp(entry["size"], entry["mtime_ns"])


def _entry(line: bytes) -> dict[str, Any] | None:
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(body) or not line.endswith(b"\n"):
            return None
        content = json.loads(body)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
