"""A signal from a whole tape against one from something that is given a record at a time.

Why: an engine that has not seen the future cannot use it, so every value that a whole evaluation
has and it has not is either a leak or an alpha with two meanings.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from hft_platform import records
from research.gates.record_places import record_offsets

Evaluate = Callable[[bytes], npt.NDArray[np.void]]
"""Rows of a tape with fields ``receive_time_ns`` (ascending) and ``signal``."""
Stepwise = Callable[[bytes], npt.NDArray[np.float64]]
"""Signal after each record of a tape, by something that is given one record at a time."""

_RECEIVE_TIME = 32
"""Place of the receive time in a record's header."""


def compare_stepwise(tape: bytes, evaluate: Evaluate, stepwise: Stepwise) -> tuple[int, int]:
    """Compare, bit by bit, a whole evaluation with one that is given a record at a time.

    Parameters
    ----------
    tape : bytes
        Records of one session.
    evaluate : callable
        Gives the signal at each good book, from the whole tape.
    stepwise : callable
        Gives the signal after each record.

    Returns
    -------
    rows, mismatches : int
        Values compared, and how many differ.
    """
    rows = evaluate(tape)
    offsets = record_offsets(tape)
    raw = np.frombuffer(tape, dtype=np.uint8)
    places = offsets[:, None] + np.arange(_RECEIVE_TIME, _RECEIVE_TIME + 8)
    times = raw[places].copy().view("<i8")[:, 0]
    at = np.flatnonzero(raw[offsets + 2] == records.TYPE_CODES["Book"])
    index = at[np.searchsorted(times[at], rows["receive_time_ns"])]
    values = stepwise(tape)[index]
    same = values.view(np.uint64) == np.ascontiguousarray(rows["signal"]).view(np.uint64)
    same |= np.isnan(values) & np.isnan(rows["signal"])
    return int(rows.size), int((~same).sum())
