"""A file of JSON lines that is appended to only, each line bound to the one before.

Why: what was sent to a store is written down before and after, by the ledger and by the journals of
followed logs; both must notice every change of what they once said.

Invariants:
1. A line is eight hex digits, a space and canonical JSON. The digits are the CRC-32 of the JSON,
   continued from the line before: a line that was changed, lost, doubled or moved is found.
2. Only the last line may be torn, and it is cut off: the step that it announces was never taken.
   Anything else refuses.
3. The first line is the head that its owner states.
4. A line that was appended durably is on disk on return.

It takes no lock: one holder at a time is the owner's business. Operator's page: `docs/store.md`.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hft_platform.config.canonical import canonical_json
from hft_platform.errors import PlatformError, ReasonCode

Entry = dict[str, Any]
"""One line's JSON."""


class ChainedLines:
    """The open file.

    Parameters
    ----------
    descriptor : int
        Opened for reading and appending; it stays the caller's to close.
    path : Path
        The file.
    name : str
        What the owner calls it, for messages.
    head : dict
        The first line; written into an empty file.
    on_entry : callable
        Told every entry behind the head, those of the file and each that is appended.
    next_step : str
        What to do when the file is damaged.

    Raises
    ------
    PlatformError
        WAL_DAMAGED naming the line, WAL_WRITE_FAILED when the head cannot be written.
    """

    def __init__(
        self,
        descriptor: int,
        path: Path,
        *,
        name: str,
        head: Entry,
        on_entry: Callable[[Entry], None],
        next_step: str,
    ) -> None:
        self._descriptor = descriptor
        self._what = f"the {name} {path}"
        self._on_entry = on_entry
        self._next_step = next_step
        self._chain = 0
        self._read(head)

    def append(self, entry: Entry, *, is_durable: bool) -> None:
        """Append an entry, and tell the owner of it.

        Parameters
        ----------
        entry : dict
            JSON.
        is_durable : bool
            Return when it is on disk; otherwise the next durable one takes it along.

        Raises
        ------
        PlatformError
            WAL_WRITE_FAILED when it may not be there.
        """
        self._write(entry, is_durable=is_durable)
        self._on_entry(entry)

    def _write(self, entry: Entry, *, is_durable: bool) -> None:
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
                ReasonCode.WAL_WRITE_FAILED, f"{self._what} could not be written: {error}"
            ) from error
        self._chain = chain

    def _read(self, head: Entry) -> None:
        size = os.fstat(self._descriptor).st_size
        raw = os.pread(self._descriptor, size, 0)
        end = 0
        for index, (entry, chain, length) in enumerate(read_lines(raw)):
            if entry is None:
                if end + length == size and not raw.endswith(b"\n"):
                    os.ftruncate(self._descriptor, end)
                    break
                raise self._damaged(f"line {index + 1} does not follow from the one before")
            if index == 0 and entry != head:
                raise self._damaged(f"its first line is {entry}, expected {head}")
            end += length
            self._chain = chain
            if index:
                self._on_entry(entry)
        if end == 0:
            self._write(head, is_durable=True)

    def _damaged(self, why: str) -> PlatformError:
        return PlatformError(
            ReasonCode.WAL_DAMAGED, f"{self._what}: {why}", next_step=self._next_step
        )


def read_lines(raw: bytes) -> Iterator[tuple[Entry | None, int, int]]:
    """Entry, chain and length of each line of a file.

    Parameters
    ----------
    raw : bytes
        Its content.

    Yields
    ------
    tuple
        A line that does not hold has no entry and is the last one given.
    """
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
