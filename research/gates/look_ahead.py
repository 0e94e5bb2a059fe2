"""Does a signal know the future? Cut the future off, or change it, and compare every bit before.

Why: a leak in features, data or pipeline shows up as profit; this shows it as a leak.

Invariants:
1. Compared are bits, not values: NaN equals NaN only when it is the same NaN.
2. A disturbed future is still a well-formed market, so that validity checks do not hide a leak.

Operator's page: `docs/gates.md`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from hft_platform import records
from research.gates.gate_a import LookAhead

Evaluate = Callable[[bytes], npt.NDArray[np.float64]]
"""Signal after each record of a tape."""


def record_offsets(tape: bytes) -> npt.NDArray[np.int64]:
    """Start of each record of a tape."""
    view, offsets, at = memoryview(tape), [], 0
    end = len(tape)
    while at < end:
        offsets.append(at)
        at += view[at] | view[at + 1] << 8
    return np.array(offsets, dtype=np.int64)


def find_look_ahead(tape: bytes, evaluate: Evaluate, *, cuts: int, price_shift: int) -> LookAhead:
    """Compare a signal with itself when what follows is removed or disturbed.

    Parameters
    ----------
    tape : bytes
        Records of one session.
    evaluate : callable
        Gives the signal after each record.
    cuts : int
        Number of places at which the future begins, evenly over the tape.
    price_shift : int
        How far the disturbed future's prices are moved, scaled; whole ticks.

    Returns
    -------
    LookAhead
    """
    offsets = record_offsets(tape)
    whole = _bits(evaluate(tape))
    rows = truncated = perturbed = 0
    for cut in range(1, cuts + 1):
        count = offsets.size * cut // (cuts + 1)
        if count == 0 or count >= offsets.size:
            continue
        at = int(offsets[count])
        cut_off = _bits(evaluate(tape[:at]))
        disturbed = _bits(evaluate(tape[:at] + disturb(tape[at:], price_shift=price_shift)))
        rows += count
        truncated += _differences(whole, cut_off, count)
        perturbed += _differences(whole, disturbed, count)
    return LookAhead(rows, truncated, perturbed)


def disturb(tape: bytes, *, price_shift: int) -> bytes:
    """Change a tape's market without breaking its form: prices moved, sides exchanged.

    Parameters
    ----------
    tape : bytes
        Records back to back.
    price_shift : int
        Added to every price, scaled.

    Returns
    -------
    bytes
        Same records, same times; bid and ask quantities exchanged, trades on the other side.
    """
    raw = np.frombuffer(tape, dtype=np.uint8).copy()
    offsets = record_offsets(tape)
    types = raw[offsets + 2] if offsets.size else np.array([], dtype=np.uint8)
    for name in ("Book", "Trade"):
        dtype = records.DTYPES[name]
        mine = offsets[types == records.TYPE_CODES[name]]
        if mine.size == 0:
            continue
        places = mine[:, None] + np.arange(dtype.itemsize)
        rows = raw[places].view(dtype)[:, 0]
        if name == "Book":
            for side in ("bid_price", "ask_price"):
                rows[side] = np.where(rows[side] > 0, rows[side] + price_shift, rows[side])
            rows["bid_qty"], rows["ask_qty"] = rows["ask_qty"].copy(), rows["bid_qty"].copy()
        else:
            rows["price"] += price_shift
            rows["aggressor_side"] = -rows["aggressor_side"]
        raw[places] = rows.view(np.uint8).reshape(mine.size, dtype.itemsize)
    return raw.tobytes()


def _bits(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(values, dtype=np.float64).view(np.uint64)


def _differences(
    whole: npt.NDArray[np.uint64], part: npt.NDArray[np.uint64], count: int
) -> int:
    if part.size < count:
        return count
    return int((whole[:count] != part[:count]).sum())
