"""Follows an order log from its first record on, while it is written, over rotations and takeovers.

Why: what a gateway answers its runners must be what its order log says, now and after a crash, so
both come from the log and from nowhere else.

Invariants:
1. Every record is given once, in the order of the log, and only when it is durable.
2. A sealed segment is verified as it is read; damage is raised, never skipped.

It interprets nothing. Operator's page: `docs/gateway.md`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from hft_platform import _core
from hft_platform.errors import PlatformError, ReasonCode

POLL_RECORDS = 4_096
_RECORD_HEAD = struct.Struct("<HB")


class OrderLogFollower:
    """Reader of one order log.

    Parameters
    ----------
    log_dir : Path
        ``orders`` of the session.
    """

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._follower: _core.SegmentFollower | None = None
        self._segment_id: int | None = None

    def poll(self) -> bytes:
        """Records that are new and durable, as a tape.

        Raises
        ------
        PlatformError
            The log's code when it is damaged.
        """
        try:
            return self._poll()
        except _core.WalError as error:
            raise PlatformError(error.args[0], error.args[1]) from error

    def _poll(self) -> bytes:
        parts: list[bytes] = []
        while True:
            if self._follower is None and not self._next(parts):
                return b"".join(parts)
            follower = self._follower
            if follower is None:
                continue
            # Looked at first: what was sealed by then is whole when the poll finds no more.
            is_sealed = not self._open_path(self._segment_id or 0).exists()
            found = follower.poll(POLL_RECORDS)
            parts.append(found["tape"])
            if found["record_count"]:
                continue
            if not is_sealed:
                return b"".join(parts)
            self._follower = None

    def _next(self, parts: list[bytes]) -> bool:
        """Go on to the next segment, if there is one: read it if sealed, else follow it."""
        known = self._segment_id
        numbers = sorted(
            int(path.stem)
            for path in self._log_dir.glob("*.*")
            if path.suffix in (".seg", ".open") and path.stem.isdecimal()
        )
        number = next((n for n in numbers if known is None or n > known), None)
        if number is None:
            return False
        if self._open_path(number).exists():
            try:
                self._follower = _core.SegmentFollower(str(self._log_dir), number)
            except _core.WalError as error:
                if (
                    error.args[0] == ReasonCode.WAL_TORN_TAIL
                    or not self._open_path(number).exists()
                ):
                    return False  # its header is being written, or it was sealed in between
                raise
        else:
            parts.append(_core.read_segment(self._log_dir / f"{number:08d}.seg")["tape"])
        self._segment_id = number
        return True

    def _open_path(self, number: int) -> Path:
        return self._log_dir / f"{number:08d}.open"


def last_epoch(log_dir: Path) -> int:
    """Highest epoch in which a log was written, 0 for one that is not there.

    Parameters
    ----------
    log_dir : Path
        Folder of the log.

    Raises
    ------
    PlatformError
        The log's code when it is damaged.
    """
    try:
        manifest = _core.read_manifest(log_dir) if log_dir.is_dir() else None
        mark = _core.read_watermark(log_dir) if log_dir.is_dir() else None
    except _core.WalError as error:
        raise PlatformError(error.args[0], error.args[1]) from error
    entries = manifest["entries"] if manifest is not None else []
    known = [int(entry["epoch"]) for entry in entries]
    return max([*known, int(mark["epoch"]) if mark is not None else 0])


def each_record(tape: bytes) -> Iterator[tuple[int, bytes]]:
    """Type code and bytes of every record of a tape, in its order.

    Parameters
    ----------
    tape : bytes
        Whole records of the present layouts.
    """
    at = 0
    while at < len(tape):
        size, code = _RECORD_HEAD.unpack_from(tape, at)
        yield code, tape[at : at + size]
        at += size
