"""Does a signal know the future? Cut the future off, or change it, and compare every bit before.

Why: a leak in features, data or pipeline shows up as profit; this shows it as a leak.

Invariants:
1. Compared are bits, not values: NaN equals NaN only when it is the same NaN.
2. A disturbed future is still a well-formed market, so that validity checks do not hide a leak.
3. Between them the disturbances change every price, spread, quantity, side and time that follows.

Cutting at a few places finds what reaches far or shows often; a leak that shows at one record in a
thousand is found step by step (see `stepwise`), which is a cut at every record.
Operator's page: `docs/look-ahead.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from hft_platform import records
from research.gates.gate_a import LookAhead
from research.gates.record_places import record_offsets
from research.gates.stepwise import Evaluate

_EXCHANGE_TIME, _RECEIVE_TIME = 24, 32
"""Places of the two times in a record's header."""


def find_look_ahead(
    tape: bytes, evaluate: Evaluate, *, cuts: int, price_shift: int, lot_size: int
) -> LookAhead:
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
    lot_size : int
        Step of quantity, scaled.

    Returns
    -------
    LookAhead
        Nothing compared step by step.
    """
    offsets = record_offsets(tape)
    whole = evaluate(tape)
    disturbed = [
        moved(tape, price_shift=price_shift),
        reshaped(tape, price_shift=price_shift, lot_size=lot_size),
    ]
    rows = truncated = perturbed = 0
    for cut in range(1, cuts + 1):
        place = offsets.size * cut // (cuts + 1)
        if place == 0:
            continue
        at = int(offsets[place])
        until = int.from_bytes(tape[at + _RECEIVE_TIME : at + _RECEIVE_TIME + 8], "little")
        before = whole[whole["receive_time_ns"] < until]
        rows += before.size
        truncated += _differences(before, evaluate(tape[:at]), until)
        futures = [other[at:] for other in disturbed] + [hurried(tape[at:], offsets[place:] - at)]
        for future in futures:
            perturbed += _differences(before, evaluate(tape[:at] + future), until)
    return LookAhead(rows, truncated, perturbed, 0, 0)


def moved(tape: bytes, *, price_shift: int) -> bytes:
    """Another market of the same form: prices moved, sides exchanged.

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

    def change(rows: Mapping[str, npt.NDArray[np.void]]) -> None:
        books, trades = rows["Book"], rows["Trade"]
        for side in ("bid_price", "ask_price"):
            books[side] = np.where(books[side] > 0, books[side] + price_shift, books[side])
        books["bid_qty"], books["ask_qty"] = books["ask_qty"].copy(), books["bid_qty"].copy()
        trades["price"] += price_shift
        trades["aggressor_side"] = -trades["aggressor_side"]

    return _changed(tape, change)


def reshaped(tape: bytes, *, price_shift: int, lot_size: int) -> bytes:
    """Another market of the same form: spread and quantities changed, the mid left as it is.

    Parameters
    ----------
    tape : bytes
        Records back to back.
    price_shift : int
        How far each side moves away from the other, scaled.
    lot_size : int
        Step of quantity, scaled.

    Returns
    -------
    bytes
        Same records, same times. Quantities grow by a pattern that repeats after seven records, so
        that neither sums, differences nor shares of them stay.
    """

    def change(rows: Mapping[str, npt.NDArray[np.void]]) -> None:
        books, trades = rows["Book"], rows["Trade"]
        bids = books["bid_price"]
        has_room = ((bids == 0) | (bids > price_shift)).all(axis=1)
        wider = np.where(has_room, price_shift, 0)
        for side, sign in (("bid_price", -1), ("ask_price", 1)):
            there = books[side] > 0
            books[side] = np.where(there, books[side] + sign * wider[:, None], books[side])
        for qty, step in (("bid_qty", 1), ("ask_qty", 3)):
            more = (1 + step * np.arange(len(books)) % 7) * lot_size
            books[qty] = np.where(books[qty] > 0, 2 * books[qty] + more[:, None], books[qty])
        trades["qty"] = 2 * trades["qty"] + (1 + np.arange(len(trades)) % 7) * lot_size

    return _changed(tape, change)


def hurried(tape: bytes, offsets: npt.NDArray[np.int64]) -> bytes:
    """The same market in half the time: each record's distance from the first one is halved.

    Parameters
    ----------
    tape : bytes
        Records back to back.
    offsets : ndarray of int64
        Where they begin.

    Returns
    -------
    bytes
    """
    raw = np.frombuffer(tape, dtype=np.uint8).copy()
    if offsets.size == 0:
        return b""
    for start in (_EXCHANGE_TIME, _RECEIVE_TIME):
        places = offsets[:, None] + np.arange(start, start + 8)
        times = raw[places].copy().view("<i8")[:, 0]
        halved = times[0] + (times - times[0]) // 2
        if start == _RECEIVE_TIME:
            count = np.arange(halved.size)
            halved = np.maximum.accumulate(halved - count) + count  # stays unique
        raw[places] = halved.astype("<i8")[:, None].view(np.uint8)
    return raw.tobytes()


def _changed(tape: bytes, change: Callable[[Mapping[str, npt.NDArray[np.void]]], None]) -> bytes:
    """Tape whose books and trades `change` has changed in place."""
    raw = np.frombuffer(tape, dtype=np.uint8).copy()
    offsets = record_offsets(tape)
    types = raw[offsets + 2] if offsets.size else np.array([], dtype=np.uint8)
    places, rows = {}, {}
    for name in ("Book", "Trade"):
        dtype = records.DTYPES[name]
        mine = offsets[types == records.TYPE_CODES[name]]
        places[name] = mine[:, None] + np.arange(dtype.itemsize)
        found = raw[places[name]]
        rows[name] = found.view(dtype)[:, 0] if mine.size else records.empty(name, 0)
    change(rows)
    for name, where in places.items():
        if where.size:
            raw[where] = rows[name].view(np.uint8).reshape(where.shape)
    return raw.tobytes()


def _differences(expected: npt.NDArray[np.void], found: npt.NDArray[np.void], until: int) -> int:
    found = found[found["receive_time_ns"] < until]
    if found.size != expected.size:
        return max(found.size, expected.size)
    bits = [np.ascontiguousarray(rows["signal"]).view(np.uint64) for rows in (expected, found)]
    return int(
        ((bits[0] != bits[1]) | (expected["receive_time_ns"] != found["receive_time_ns"])).sum()
    )
