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
from research.gates.record_places import record_offsets

Evaluate = Callable[[bytes], npt.NDArray[np.void]]
"""Rows of a tape with fields ``receive_time_ns`` (ascending) and ``signal``."""


def find_look_ahead(tape: bytes, evaluate: Evaluate, *, cuts: int, price_shift: int) -> LookAhead:
    """Compare a signal with itself when what follows is removed or disturbed.

    Parameters
    ----------
    tape : bytes
        Records of one session.
    evaluate : callable
        Gives the signal at each good book.
    cuts : int
        Number of places at which the future begins, evenly over the tape.
    price_shift : int
        How far the disturbed future's prices are moved, scaled; whole ticks.

    Returns
    -------
    LookAhead
    """
    offsets = record_offsets(tape)
    whole = evaluate(tape)
    rows = truncated = perturbed = 0
    for cut in range(1, cuts + 1):
        place = offsets.size * cut // (cuts + 1)
        if place == 0:
            continue
        at = int(offsets[place])
        until = int.from_bytes(tape[at + 32 : at + 40], "little")
        before = whole[whole["receive_time_ns"] < until]
        rows += before.size
        truncated += _differences(before, evaluate(tape[:at]), until)
        future = disturb(tape[at:], price_shift=price_shift)
        perturbed += _differences(before, evaluate(tape[:at] + future), until)
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


def _differences(expected: npt.NDArray[np.void], found: npt.NDArray[np.void], until: int) -> int:
    found = found[found["receive_time_ns"] < until]
    if found.size != expected.size:
        return max(found.size, expected.size)
    bits = [np.ascontiguousarray(rows["signal"]).view(np.uint64) for rows in (expected, found)]
    return int(
        ((bits[0] != bits[1]) | (expected["receive_time_ns"] != found["receive_time_ns"])).sum()
    )
