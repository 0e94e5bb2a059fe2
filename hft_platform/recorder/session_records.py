"""Sessions read back from the store: as frames for people, as records for a replay.

Why: what went in must come out, bit for bit; a test holds a whole session to it.

Invariants:
1. `session_tape` gives the bytes of the log that was loaded, in the log's order.
2. Frames show prices and quantities as decimals, never as floats.

Operator's page: `docs/store.md`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hft_platform.recorder import columns

if TYPE_CHECKING:
    import polars as pl

    from hft_platform.recorder.store import Store


def session_records(
    store: Store, run_id: str, record_name: str, *, log_kind: str | None = None
) -> tuple[columns.Records, npt.NDArray[np.uint64]]:
    """Read a session's records of one type.

    Parameters
    ----------
    store : Store
        Open store.
    run_id : str
        Session folder's name.
    record_name : str
        ``Book``, ``Trade``, ``Decision`` and so on.
    log_kind : {"market", "orders"}, optional
        Only from this log.

    Returns
    -------
    rows : ndarray of the type's dtype, shape (n,)
        In the order of their log.
    seqs : ndarray of uint64, shape (n,)
        Their sequence in it.
    """
    where, parameters = "WHERE run_id = {run:String}", {"run": run_id}
    if log_kind is not None:
        where += " AND log_kind = {kind:String}"
        parameters["kind"] = log_kind
    data = store.raw(
        f"SELECT {columns.record_select(record_name)}"  # noqa: S608  # our own names
        f" FROM {columns.TABLES[record_name]}"
        f" {where} ORDER BY log_kind, seq",
        "RowBinary",
        parameters,
    )
    return columns.decode_records(record_name, data)


def session_tape(store: Store, run_id: str, log_kind: str) -> bytes:
    """Read a session's log back as the tape that was appended to it.

    Parameters
    ----------
    store : Store
        Open store.
    run_id : str
        Session folder's name.
    log_kind : {"market", "orders"}
        Which log.

    Returns
    -------
    bytes
        Records back to back.
    """
    parts = [session_records(store, run_id, name, log_kind=log_kind) for name in columns.TABLES]
    seqs = np.concatenate([part_seqs for _, part_seqs in parts])
    words = np.concatenate(
        [np.full(rows.size, rows.dtype.itemsize // 8, dtype=np.int64) for rows, _ in parts]
    )
    order = np.argsort(seqs, kind="stable")
    starts = np.empty(seqs.size, dtype=np.int64)
    starts[order] = np.cumsum(words[order]) - words[order]
    tape = np.zeros(int(words.sum()), dtype="<u8")
    offset = 0
    for rows, _ in parts:
        # Record sizes are multiples of eight bytes, so a tape is an array of words.
        width = rows.dtype.itemsize // 8
        places = starts[offset : offset + rows.size, None] + np.arange(width)
        tape[places] = rows.view("<u8").reshape(rows.size, width)
        offset += rows.size
    return tape.tobytes()


def session_fills(store: Store, run_id: str) -> pl.DataFrame:
    """Read a session's fills.

    Parameters
    ----------
    store : Store
        Open store.
    run_id : str
        Session folder's name.

    Returns
    -------
    polars.DataFrame
        One row a fill, in the order they came.
    """
    import polars as pl

    sql = "SELECT * FROM hft.fills WHERE run_id = {run:String} ORDER BY seq"
    return pl.DataFrame(store.arrow(sql, {"run": run_id}))


def session_books(store: Store, run_id: str) -> Any:
    """Read a session's books as a `pyarrow.Table` (pyarrow has no types, hence Any).

    Parameters
    ----------
    store : Store
        Open store.
    run_id : str
        Session folder's name.
    """
    sql = "SELECT * FROM hft.market_books WHERE run_id = {run:String} ORDER BY seq"
    return store.arrow(sql, {"run": run_id})
