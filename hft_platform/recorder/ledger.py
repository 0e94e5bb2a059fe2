"""Ingestion ledger: what was sent to which store, written down before and after.

Why: after a crash nobody has to guess whether a segment arrived: it has no entry (never sent from
here), a BEFORE (ask the store), or an AFTER for a chunk (it is there).

Invariants:
1. One file a shard, appended to only by the holder of the shard's claim. Its first line says which
   shard it is of how many.
2. A BEFORE is durable before the first row of its segment is sent, a LOADED before anyone is told.
   An AFTER that was lost costs a count, nothing else, so it waits for the next durable entry.
3. Lines are chained (`chained_lines`): what was changed is found, and a torn last one is cut off.
4. An entry counts only for the store it names: a store that was deleted is loaded again.

It asks no store. Operator's page: `docs/store.md`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hft_platform.config.canonical import sync_folder
from hft_platform.recorder.chained_lines import ChainedLines, read_lines

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
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            self._lines = ChainedLines(
                self._descriptor,
                path,
                name="ledger",
                head={"format": _FORMAT, "shard": shard, "shard_count": shard_count},
                on_entry=self._apply,
                next_step="restore the ledger from a copy; without it the store is counted:"
                f" move {path.name} away and load again",
            )
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
        self._lines.append(entry, is_durable=event != "after")

    def _apply(self, entry: dict[str, Any]) -> None:
        if entry["store"] != self.store_id:
            return
        state = self._states.setdefault(_key(entry), SegmentState(entry["segment_sha256"]))
        if entry["event"] == "before":
            # The oldest BEFORE counts: rows may have been sent ever since.
            state.positions = dict(entry["positions"]) | state.positions
        elif entry["event"] == "after":
            state.after.add(entry["chunk"])
        else:
            state.loaded = FileStamp(entry["size"], entry["mtime_ns"])


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
        for entry, _, _ in read_lines(path.read_bytes()):
            if entry is None:
                break
            if entry.get("event") == "loaded":
                found[_key(entry)] = entry
    return found


def _key(entry: dict[str, Any]) -> SegmentKey:
    return SegmentKey(entry["run_id"], entry["log_kind"], entry["segment_id"])
