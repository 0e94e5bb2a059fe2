"""Recorded sessions: the bytes that were ingested, or nothing.

Looking a session up by name is tested with the catalog, tests/research/data/test_catalog.py.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hft_platform import records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.feed.recording import (
    RecordedSession,
    dataset_folders,
    find_session,
    load_tape,
    read_records,
    records_table,
    sessions_in,
    tape_of,
)
from hft_platform.market.instruments import load_instruments
from tests.hft_platform.services.live_workspace import SESSIONS, SYMBOL, Live, make_live


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Live:
    """The ingested market; only copies of it are damaged."""
    return make_live(tmp_path_factory.mktemp("market"))


@pytest.fixture
def session(market: Live, tmp_path: Path) -> RecordedSession:
    """The first session in a workspace of one's own."""
    shutil.copytree(market.ws, tmp_path / "ws")
    return find_session(tmp_path / "ws", SESSIONS[0], symbol=SYMBOL)


def test_a_tape_is_what_was_ingested_in_the_order_of_receipt(session: RecordedSession) -> None:
    tape = load_tape(session)
    assert records.tape_sha256(tape) == session.tape_sha256
    parts = records.split(tape)
    assert parts["Book"].size + parts["Trade"].size == session.record_count
    times = np.concatenate([parts["Book"]["receive_time_ns"], parts["Trade"]["receive_time_ns"]])
    assert np.unique(times).size == times.size
    offset, last = 0, 0
    while offset < len(tape):
        time_ns = int.from_bytes(tape[offset + 32 : offset + 40], "little", signed=True)
        assert time_ns > last
        last = time_ns
        offset += int.from_bytes(tape[offset : offset + 2], "little")


def test_records_survive_the_table_bit_for_bit(session: RecordedSession) -> None:
    tape = load_tape(session)
    parts = records.split(tape)
    for name, rows in (("Book", parts["Book"]), ("Trade", parts["Trade"])):
        table = records_table(rows, name)
        assert read_records(session.path, name).tobytes() == rows.tobytes()
        assert table.num_rows == rows.size
    assert tape_of(parts["Book"], parts["Trade"]) == tape


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replaced(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        pq.write_table(change(pq.read_table(path)), path)

    return damage


def with_column(table: pa.Table, name: str, values: object) -> pa.Table:
    place = table.column_names.index(name)
    return table.set_column(place, name, pa.array(values))


DAMAGE: dict[str, Callable[[Path], None]] = {
    "truncated": cut,
    "empty": empty,
    "missing": Path.unlink,
    "a column lost": replaced(lambda t: t.drop_columns(["receive_time_ns"])),
    "a column renamed": replaced(
        lambda t: t.rename_columns([n.replace("source_seq", "seq") for n in t.column_names])
    ),
    "text in a column": replaced(
        lambda t: with_column(t, "flags", ["x"] * t.num_rows)
    ),
    "a null": replaced(
        lambda t: with_column(t, "exchange_time_ns", [None, *t["exchange_time_ns"][1:].to_pylist()])
    ),
    "one value changed": replaced(
        lambda t: with_column(t, "source_seq", [9, *t["source_seq"][1:].to_pylist()])
    ),
    "one row lost": replaced(lambda t: t.slice(1)),
    "no row left": replaced(lambda t: t.slice(0, 0)),
}  # fmt: skip


@pytest.mark.parametrize("file", ["book.parquet", "trade.parquet"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_changed_file_gives_no_tape(session: RecordedSession, file: str, damage: str) -> None:
    DAMAGE[damage](session.path / file)
    with pytest.raises(PlatformError) as caught:
        load_tape(session)
    assert caught.value.code == ReasonCode.FILE_DAMAGED
    assert "ingest again" in caught.value.next_step


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"schema":2}', b'{"schema":1}', b"\xff"])
def test_a_damaged_dataset_file_is_a_typed_error(session: RecordedSession, raw: bytes) -> None:
    folder = session.path.parents[2]
    (folder / "dataset.json").write_bytes(raw)
    with pytest.raises(PlatformError) as caught:
        sessions_in(folder)
    assert caught.value.code == ReasonCode.FILE_DAMAGED


def test_a_folder_that_is_still_being_written_is_no_dataset(session: RecordedSession) -> None:
    folder = session.path.parents[2]
    shutil.copytree(folder, folder.parent / ".partial-abc")
    assert dataset_folders(folder.parents[1]) == [folder]


def test_a_session_of_another_calendar_is_stale(session: RecordedSession) -> None:
    instrument = load_instruments().by_symbol(SYMBOL)
    assert session.session_of(instrument).session_id == SESSIONS[0]
    for changes in ({"end_ns": session.end_ns - 1}, {"session_id": "2026-01-05/night"}):
        with pytest.raises(PlatformError) as caught:
            dataclasses.replace(session, **changes).session_of(instrument)
        assert caught.value.code == ReasonCode.VERDICT_STALE
