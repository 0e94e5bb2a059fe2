"""A made-up market for an alpha's own tests: say what the book shows, see what the alpha says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hft_platform import records
from hft_platform.config.settings import load_settings
from hft_platform.market.instruments import load_instruments
from hft_platform.market.sessions import sessions_for
from research.gates.signals import batch_rows, signal_config
from research.registry.alpha import load_alpha

START_NS = 1_775_000_000_000_000_000
"""A moment in April 2026; the first session of the instrument after it is used."""
SEARCH_NS = 5 * 86_400_000_000_000
STEP_NS = 100_000_000
SESSION_START = 1 << 4
"""`flags::SESSION_START` in rust_core/src/record.rs."""


def signal_of(
    folder: Path,
    quantities: Sequence[tuple[int, int]],
    *,
    mids_ticks: Sequence[int] | None = None,
    spread_ticks: int = 2,
) -> npt.NDArray[np.float64]:
    """Signal of an alpha on a book given every 100 ms.

    Parameters
    ----------
    folder : Path
        Folder of the alpha, usually ``Path(__file__).parent``.
    quantities : sequence of (int, int)
        Best bid and best ask quantity in lots, one pair a book; other levels hold the same.
    mids_ticks : sequence of int, optional
        Mid of each book in ticks from a base price; by default it stays.
    spread_ticks : int
        Even distance of the best prices.

    Returns
    -------
    ndarray of float64, shape (books,)
        In ticks; NaN until the features are warm.
    """
    alpha = load_alpha(folder)
    instrument = load_instruments().by_symbol(alpha.manifest.instruments[0])
    session = sessions_for(instrument, START_NS, START_NS + SEARCH_NS)[0]
    settings = load_settings()
    config = signal_config(
        alpha.manifest,
        instrument,
        session,
        account_limits=settings.account_limits(),
        storm_guard=settings.storm_guard(),
    )
    count = len(quantities)
    books = records.empty("Book", count)
    books["instrument_id"] = instrument.instrument_id
    books["source_seq"] = 1 + np.arange(count)
    books["exchange_time_ns"] = session.start_ns + STEP_NS * (1 + np.arange(count))
    books["receive_time_ns"] = books["exchange_time_ns"] + 1_000_000
    books["trading_day"] = session.trading_day
    books["flags"][:1] = SESSION_START
    mid = 20_000 + np.asarray(mids_ticks if mids_ticks is not None else np.zeros(count, np.int64))
    for level in range(5):
        distance = spread_ticks // 2 + level
        books["bid_price"][:, level] = (mid - distance) * instrument.tick_size
        books["ask_price"][:, level] = (mid + distance) * instrument.tick_size
        for column, side in enumerate(("bid_qty", "ask_qty")):
            lots = np.array([pair[column] for pair in quantities], dtype=np.int64)
            books[side][:, level] = lots * instrument.lot_size
    rows = batch_rows(books.tobytes(), config)
    if rows.size != count:
        raise ValueError(f"{count} books gave {rows.size} values: a book of the probe is not valid")
    return np.array(rows["signal"])
