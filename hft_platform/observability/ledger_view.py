"""What the ingestion ledger says is loaded, followed without its lock.

Why: the exporter must know what is in the store without asking the store, while loaders write.

Invariants:
1. Only whole lines are read, each once; a file that shrank or was replaced is read again.
2. A segment counts as loaded by the newest entry for it in the store that was loaded into last, and
   only while its file is the one that the entry names.

It checks no checksum: the loader does, and refuses. A line that is no entry is an error here too.
Operator's page: `docs/metrics.md`.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from hft_platform.recorder.ledger import FileStamp, SegmentKey

WINDOW_SECONDS = 300
"""Throughput is the mean over this time."""


@dataclass(slots=True)
class _File:
    """How far one ledger file was read."""

    inode: int = 0
    offset: int = 0
    store: str = ""


@dataclass(frozen=True, slots=True)
class Throughput:
    """Loaded per second over the window."""

    rows: float
    payload_bytes: float


@dataclass(slots=True)
class LedgerView:
    """Follows the ledger files of a workspace.

    Attributes
    ----------
    folder : Path
        ``ledger`` of the workspace.
    row_count, segment_count : int
        Of all LOADED entries seen.
    """

    folder: Path
    row_count: int = 0
    segment_count: int = 0
    _files: dict[str, _File] = field(default_factory=dict)
    _loaded: dict[str, dict[SegmentKey, FileStamp]] = field(default_factory=dict)
    _recent: deque[tuple[int, int, int]] = field(default_factory=deque)
    _is_first: bool = True

    def follow(self, now_ns: int) -> None:
        """Read what was appended since the last time.

        Parameters
        ----------
        now_ns : int
            Wall clock: when an entry that carries no time was seen.

        Raises
        ------
        OSError, ValueError
            When a ledger cannot be read or holds a line that is no entry.
        """
        paths = sorted(self.folder.glob("ingest*.jsonl")) if self.folder.is_dir() else []
        if any(self._is_replaced(path) for path in paths) or set(self._files) - {
            path.name for path in paths
        }:
            self._forget()
        for path in paths:
            self._read(path, now_ns)
        self._is_first = False

    def is_loaded(self, key: SegmentKey, stamp: FileStamp) -> bool:
        """True when this very file is in the store that was loaded into last."""
        return self._loaded.get(self._newest_store(), {}).get(key) == stamp

    def throughput(self, now_ns: int) -> Throughput:
        """Loaded per second over the last `WINDOW_SECONDS`."""
        begin = now_ns - WINDOW_SECONDS * 1_000_000_000
        while self._recent and self._recent[0][0] < begin:
            self._recent.popleft()
        rows = sum(entry[1] for entry in self._recent)
        payload = sum(entry[2] for entry in self._recent)
        return Throughput(rows / WINDOW_SECONDS, payload / WINDOW_SECONDS)

    def _newest_store(self) -> str:
        named = [
            ((self.folder / name).stat().st_mtime_ns, file.store)
            for name, file in self._files.items()
            if file.store
        ]
        return max(named)[1] if named else ""

    def _is_replaced(self, path: Path) -> bool:
        known, status = self._files.get(path.name), path.stat()
        return known is not None and (known.inode != status.st_ino or status.st_size < known.offset)

    def _forget(self) -> None:
        self.row_count = self.segment_count = 0
        self._files, self._loaded, self._is_first = {}, {}, True
        self._recent.clear()

    def _read(self, path: Path, now_ns: int) -> None:
        known = self._files.setdefault(path.name, _File(path.stat().st_ino))
        with path.open("rb") as file:
            file.seek(known.offset)
            raw = file.read()
        whole = raw[: raw.rfind(b"\n") + 1]
        for line in whole.splitlines():
            entry = json.loads(line.partition(b" ")[2])
            # A ledger's first line may say what the file is.
            if "store" in entry:
                known.store = str(entry["store"])
                if entry["event"] == "loaded":
                    self._add(entry, now_ns)
        known.offset += len(whole)

    def _add(self, entry: dict[str, object], now_ns: int) -> None:
        key = SegmentKey(
            str(entry["run_id"]), str(entry["log_kind"]), int(str(entry["segment_id"]))
        )
        stamp = FileStamp(int(str(entry["size"])), int(str(entry["mtime_ns"])))
        rows = int(str(entry["record_count"]))
        self._loaded.setdefault(str(entry["store"]), {})[key] = stamp
        self.row_count += rows
        self.segment_count += 1
        # What was there when the exporter started and says no time may be years old.
        at_ns = entry.get("loaded_at_ns", None if self._is_first else now_ns)
        if at_ns is not None:
            self._recent.append((int(str(at_ns)), rows, stamp.size))
            if len(self._recent) > 1 and self._recent[-1][0] < self._recent[-2][0]:
                self._recent = deque(sorted(self._recent))
