"""Ingestion ledger: what was sent to which store, written down before and after.

Why: after a crash nobody has to guess whether a segment arrived: it has no entry (never sent from
here), a BEFORE (ask the store), or an AFTER for a chunk (it is there).

Invariants:
1. One file a shard, appended to only by the holder of the shard's claim. Its first line says which
   shard it is of how many.
2. A BEFORE is durable before the first row of its segment is sent, a LOADED before anyone is told.
   An AFTER that was lost costs a count, nothing else, so it waits for the next durable entry.
3. Every line's checksum covers the line and the checksum before it: a line that was changed, lost,
   doubled or moved is found. Only the last line may be torn, and it is cut off; anything else
   refuses.
4. An entry counts only for the store it names: a store that was deleted is loaded again.

It asks no store. Operator's page: `docs/store.md`.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hft_platform.config.canonical import canonical_json, sync_folder
from hft_platform.errors import PlatformError, ReasonCode

Event = Literal["before", "after", "loaded"]
_FORMAT = 2


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
    """What a ledger knows of a segment in one store.

    Attributes
    ----------
    segment_sha256 : str
        Content hash that was loaded or begun.
    positions : dict of str to int
        Insert position of each table when the segment was first begun (`windows`).
    after : set of int
        Chunks that were acknowledged.
    loaded : FileStamp or None
        The file when it was complete and verified.
    """

    segment_sha256: str
    positions: dict[str, int] = field(default_factory=dict)
    after: set[int] = field(default_factory=set)
    loaded: FileStamp | None = None


class Ledger:
    """The open ledger of one shard; use it under the shard's claim.

    Parameters
    ----------
    path : Path
        ``ledger/ingest-NN.jsonl``; made when missing.
    store_id : str
        The store whose entries count.
    shard, shard_count : int
        Which share of the segments it is about.
    """

    def __init__(self, path: Path, *, store_id: str, shard: int, shard_count: int) -> None:
        self.path = path
        self.store_id = store_id
        self._states: dict[SegmentKey, SegmentState] = {}
        self._chain = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            self._read({"format": _FORMAT, "shard": shard, "shard_count": shard_count})
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
        """Append an entry; a BEFORE or a LOADED is durable on return.

        Parameters
        ----------
        event : {"before", "after", "loaded"}
            What happens next, or has happened.
        key : SegmentKey
            The segment.
        segment_sha256 : str
            Its content hash.
        facts : dict
            ``positions`` for before, ``chunk`` for after, ``size`` and ``mtime_ns`` for loaded;
            more for readers.

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
        self._write(entry, is_durable=event != "after")
        _apply(self._states, entry, self.store_id)

    def _write(self, entry: dict[str, Any], *, is_durable: bool) -> None:
        body = canonical_json(entry)
        chain = zlib.crc32(body, self._chain)
        line = b"%08x %s\n" % (chain, body)
        try:
            written = os.write(self._descriptor, line)
            if written != len(line):
                raise OSError(f"{written} of {len(line)} bytes were written")
            if is_durable:
                os.fdatasync(self._descriptor)
        except OSError as error:
            raise PlatformError(
                ReasonCode.WAL_WRITE_FAILED, f"the ledger {self.path} could not be written: {error}"
            ) from error
        self._chain = chain

    def _read(self, head: dict[str, Any]) -> None:
        size = os.fstat(self._descriptor).st_size
        raw = os.pread(self._descriptor, size, 0)
        end = 0
        for index, (entry, chain, length) in enumerate(_entries(raw)):
            if entry is None:
                if end + length == size and not raw.endswith(b"\n"):
                    # Torn by a crash: the step it announces was never taken.
                    os.ftruncate(self._descriptor, end)
                    break
                raise _damaged(self.path, f"line {index + 1} does not follow from the one before")
            if index == 0 and entry != head:
                raise _damaged(self.path, f"its first line is {entry}, expected {head}")
            end += length
            self._chain = chain
            if index:
                _apply(self._states, entry, self.store_id)
        if end == 0:
            self._write(head, is_durable=True)


def loaded_segments(folder: Path) -> dict[SegmentKey, dict[str, Any]]:
    """What the ledgers of a folder call loaded, in any store: newest entry of each segment.

    It takes no claim: a line that is being written is not seen. Use it to show and to decide what
    is old enough to archive, never to decide what to send.

    Parameters
    ----------
    folder : Path
        ``ledger`` of a workspace.

    Returns
    -------
    dict
        Ledger entries (Any: JSON) by segment, with ``store``, ``segment_sha256``, ``record_count``,
        ``size``, ``mtime_ns`` and ``loaded_at_ns``.
    """
    found: dict[SegmentKey, dict[str, Any]] = {}
    for path in sorted(folder.glob("ingest-*.jsonl")):
        for entry, _, _ in _entries(path.read_bytes()):
            if entry is None:
                break
            if entry.get("event") == "loaded":
                found[_key(entry)] = entry
    return found


def _apply(states: dict[SegmentKey, SegmentState], entry: dict[str, Any], store_id: str) -> None:
    if entry["store"] != store_id:
        return
    state = states.setdefault(_key(entry), SegmentState(entry["segment_sha256"]))
    if entry["event"] == "before":
        # The oldest BEFORE counts: rows may have been sent ever since.
        state.positions = dict(entry["positions"]) | state.positions
    elif entry["event"] == "after":
        state.after.add(entry["chunk"])
    else:
        state.loaded = FileStamp(entry["size"], entry["mtime_ns"])


def _key(entry: dict[str, Any]) -> SegmentKey:
    return SegmentKey(entry["run_id"], entry["log_kind"], entry["segment_id"])


def _entries(raw: bytes) -> Iterator[tuple[dict[str, Any] | None, int, int]]:
    """Entry, chain and length of each line; a line that does not hold is None and the last."""
    chain = 0
    for line in raw.splitlines(keepends=True):
        stated, _, body = line.rstrip(b"\n").partition(b" ")
        chain = zlib.crc32(body, chain)
        entry = None
        try:
            if int(stated, 16) == chain and line.endswith(b"\n"):
                entry = json.loads(body)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            yield None, 0, len(line)
            return
        yield entry, chain, len(line)


def _damaged(path: Path, what: str) -> PlatformError:
    return PlatformError(
        ReasonCode.WAL_DAMAGED,
        f"the ledger {path}: {what}",
        next_step="restore the ledger from a copy; without it the store is counted:"
        f" move {path.name} away and load again",
    )
