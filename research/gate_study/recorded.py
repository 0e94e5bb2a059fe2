"""Pseudo-sessions cut from recordings, with the signal's source permuted between them.

Why: a generated market may be kinder to a statistic than a real one. Here prices, spreads, times
and prints are real; only what a signal of queue lengths sees belongs to another moment.

Invariants:
1. Recordings are read in place; nothing of them is written outside the study's build folder.
2. A permuted session keeps its own prices; the quantities of all five levels come from a block of
   another session, so a signal of quantities knows nothing of the prices it is traded at.
3. Sessions are booked on days of their own. They share two recorded days, so verdicts of alphas
   on them are not independent; the row is reported apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hft_platform.market.sessions import SECOND_NS
from hft_platform.records import DTYPES, TYPE_CODES
from research.data import catalog
from research.data.ingest import ingest
from research.gate_study.markets import Market, StudySession, generated, instruments, shortened

SYMBOL = "TXFD6"
FOLDER = "taifex"
_QUANTITIES = ("bid_qty", "ask_qty")
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Cut:
    """Recorded pseudo-sessions and, for each, where its books lie in its tape."""

    market: Market
    book_offsets: tuple[npt.NDArray[np.int64], ...]


def cut(data: Path, ws: Path, *, count: int, seconds: int) -> Cut:
    """Cut pseudo-sessions from the recorded days, evenly spread.

    Parameters
    ----------
    data : Path
        Folder with recordings.
    ws : Path
        Workspace below the study's build folder, for the ingested tapes.
    count : int
        Pseudo-sessions.
    seconds : int
        Length of each.

    Returns
    -------
    Cut
        In time order; quiet stretches with fewer than one book a second are passed over.
    """
    dataset = ingest(data / FOLDER, ws, instruments())
    instrument = instruments().by_symbol(SYMBOL)
    parts: list[tuple[StudySession, npt.NDArray[np.int64]]] = []
    for ref in dataset.sessions:
        if ref.symbol != SYMBOL:
            continue
        tape = catalog.load_tape(ref)
        session = ref.session_of(instrument)
        offsets, times = _records(tape)
        start_ns = session.start_ns
        while start_ns + seconds * SECOND_NS <= session.end_ns:
            low, high = np.searchsorted(times, (start_ns, start_ns + seconds * SECOND_NS))
            part = bytes(tape[offsets[low] : offsets[high]])
            books = _books(part)
            if books.size >= seconds:
                parts.append(
                    (
                        StudySession(
                            tape=part,
                            session=shortened(
                                session,
                                start_ns=start_ns,
                                seconds=seconds,
                                session_id=session.session_id,
                            ),
                            trading_day=0,
                        ),
                        books,
                    )
                )
            start_ns += seconds * SECOND_NS
    picked = np.linspace(0, len(parts) - 1, count).astype(int)
    days = [s.trading_day for s in generated(seed=0, count=count, seconds=1).sessions]
    return Cut(
        Market(
            instrument,
            tuple(
                replace(parts[i][0], trading_day=day) for i, day in zip(picked, days, strict=True)
            ),
        ),
        tuple(parts[i][1] for i in picked),
    )


def permuted(cut: Cut, *, seed: int) -> Market:
    """Give every pseudo-session the quantities of another one.

    Parameters
    ----------
    cut : Cut
        Recorded pseudo-sessions.
    seed : int
        Of the permutation.

    Returns
    -------
    Market
        The same prices, times and prints.
    """
    rng = np.random.default_rng([seed, 2])
    count = len(cut.market.sessions)
    order = rng.permutation(count)
    donors = np.empty(count, dtype=np.int64)
    donors[order] = np.roll(order, 1)  # one cycle: no session is its own donor
    sessions = tuple(
        replace(host, tape=_with_quantities(cut, index, int(donors[index])))
        for index, host in enumerate(cut.market.sessions)
    )
    return replace(cut.market, sessions=sessions)


def _with_quantities(cut: Cut, host: int, donor: int) -> bytes:
    raw, at = _rows(cut, host)
    books = raw[at].view(DTYPES["Book"])[:, 0]
    other_raw, other_at = _rows(cut, donor)
    others = other_raw[other_at].view(DTYPES["Book"])[:, 0]
    whole = np.flatnonzero((others["bid_qty"] > 0).all(1) & (others["ask_qty"] > 0).all(1))
    taken = others[whole[np.arange(books.size) % whole.size]]
    for name in _QUANTITIES:
        books[name] = np.where(books[name] > 0, taken[name], books[name])
    raw[at] = books.view(np.uint8).reshape(at.shape)
    return raw.tobytes()


def _rows(cut: Cut, index: int) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """A copy of a tape's bytes, and for every book the places of its bytes."""
    raw = np.frombuffer(cut.market.sessions[index].tape, dtype=np.uint8).copy()
    width = DTYPES["Book"].itemsize
    return raw, cut.book_offsets[index][:, None] + np.arange(width)


def _records(tape: bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Offset of every record and of the end, and the receive time of every record."""
    view = memoryview(tape)
    size_at = DTYPES["Book"].fields["record_bytes"][1]  # type: ignore[index]  # named fields
    time_at = DTYPES["Book"].fields["receive_time_ns"][1]  # type: ignore[index]  # named fields
    offsets, position = [], 0
    while position < len(tape):
        offsets.append(position)
        position += int.from_bytes(view[position + size_at : position + size_at + 2], "little")
    at = np.array(offsets, dtype=np.int64)
    raw = np.frombuffer(tape, dtype=np.uint8)
    times = raw[at[:, None] + time_at + np.arange(8)].view("<i8")[:, 0]
    return np.append(at, len(tape)), times


def _books(tape: bytes) -> npt.NDArray[np.int64]:
    offsets = _records(tape)[0][:-1] if tape else np.empty(0, dtype=np.int64)
    type_at = DTYPES["Book"].fields["record_type"][1]  # type: ignore[index]  # named fields
    width = DTYPES["Book"].fields["record_type"][0].itemsize  # type: ignore[index]  # named fields
    raw = np.frombuffer(tape, dtype=np.uint8)
    if not offsets.size:
        return offsets
    codes = raw[offsets[:, None] + type_at + np.arange(width)].view(f"<u{width}")[:, 0]
    is_book: npt.NDArray[np.bool_] = codes == TYPE_CODES["Book"]
    return offsets[is_book]
