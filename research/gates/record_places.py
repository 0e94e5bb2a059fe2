"""Where the records of a tape begin."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def record_offsets(tape: bytes) -> npt.NDArray[np.int64]:
    """Start of each record of a tape; a record's first two bytes are its length."""
    view, offsets, at = memoryview(tape), [], 0
    end = len(tape)
    while at < end:
        offsets.append(at)
        at += view[at] | view[at + 1] << 8
    return np.array(offsets, dtype=np.int64)


def head_of(tape: bytes, count: int) -> bytes:
    """First `count` records of a tape."""
    offsets = record_offsets(tape)
    return tape if count >= offsets.size else tape[: int(offsets[count])]
