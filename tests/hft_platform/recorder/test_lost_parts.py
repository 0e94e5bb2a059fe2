"""A token that the store remembers while the rows are gone: the rows come back, the views once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hft_platform.drills.sample_session import TRADING_DAY, write_session
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder import columns, segments
from hft_platform.recorder.lost_parts import restore_part
from hft_platform.recorder.store import Store

TABLE = "hft.market_trades"


def _state(store: Store, run_id: str) -> tuple[int, int]:
    """Rows of a run in the table, and prints of it in the bars."""
    return store.rows(
        f"SELECT (SELECT count() FROM {TABLE} WHERE run_id = {{run:String}}),"
        " (SELECT sum(trade_count) FROM hft.bars_1m WHERE run_id = {run:String})",
        {"run": run_id},
    )[0]  # type: ignore[return-value]


def test_rows_whose_token_is_taken_are_put_back_and_the_bars_count_them_once(
    store: Store, ws: Path
) -> None:
    """A server was killed between writing the token and committing the part (once in 24 kills)."""
    appended = write_session(ws, "restored", records_count=200, seed=1)
    file = segments.find_segments([ws / "sessions" / "restored"])[0][0]
    segment = segments.read(file)
    part = next(part for part in segment.parts(0) if part.table == TABLE)
    names = columns.column_names(part.record_name)
    rows = int(part.seqs.size)

    def block(run_id: str) -> bytes:
        origin = dataclasses.replace(segment.origin, run_id=run_id)
        return columns.encode_records(part.record_name, part.rows, origin=origin, seqs=part.seqs)

    # The killed insert, as the next one finds it: the token is known, the rows are not there.
    store.insert_native(TABLE, names, block("of another run"), token=part.token)
    store.insert_native(TABLE, names, block("restored"), token=part.token)
    assert _state(store, "restored") == (0, 0), "acknowledged, and nothing came"

    def restore(day: int = TRADING_DAY) -> None:
        restore_part(
            store, TABLE, names, block("restored"),
            token=part.token, trading_day=day, row_count=rows,
        )  # fmt: skip

    with pytest.raises(PlatformError) as wrong_day:
        restore(TRADING_DAY + 1)
    assert wrong_day.value.code == ReasonCode.LOAD_COUNT_MISMATCH
    restore()
    assert _state(store, "restored") == (rows, 0), "no view saw the part"
    assert store.rows("SELECT count() FROM system.tables WHERE name LIKE '%_restore_%'") == [(0,)]
    assert appended.print_count > 0
