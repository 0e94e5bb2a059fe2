"""Catalog: finding datasets and sessions, the SQL lens, and what counts as no dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.feed.recording import find_session
from hft_platform.market.instruments import InstrumentTable
from research.data import catalog
from research.data.ingest import ingest
from tests.research.data.conftest import Recorder


def test_datasets_and_sessions_are_found_by_what_they_hold(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    assert catalog.datasets(tmp_path) == []
    dataset = ingest(record(), tmp_path, instruments)
    (session,) = dataset.sessions
    assert catalog.datasets(tmp_path) == [dataset]
    assert catalog.dataset_of(tmp_path, ["TXFD6", "OTHER"]) == dataset
    assert catalog.session_of_tape(tmp_path, session.tape_sha256) == session
    assert session.session_of(instruments.by_symbol("TXFD6")).session_id == "2026-04-09/day"
    for failing, code in (
        (lambda: catalog.dataset_of(tmp_path, ["OTHER"]), ReasonCode.UNKNOWN_INSTRUMENT),
        (lambda: catalog.session_of_tape(tmp_path, "0"), ReasonCode.VERDICT_STALE),
    ):
        with pytest.raises(PlatformError) as caught:
            failing()
        assert caught.value.code == code


def test_a_session_is_found_by_name_symbol_and_config(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    dataset = ingest(record(), tmp_path, instruments)
    config = tmp_path / "config.yaml"
    config.write_text("instruments: [{symbol: TXFD6, product_root: TXF}]\n")
    found = find_session(tmp_path, "2026-04-09/day", config_path=config)
    assert found == dataset.sessions[0]
    assert find_session(tmp_path, f"{dataset.dataset_id}:2026-04-09/day") == found
    for name, symbol in (("2026-04-10/day", None), ("2026-04-09/day", "SIM_EDGE")):
        with pytest.raises(PlatformError) as caught:
            find_session(tmp_path, name, symbol=symbol)
        assert caught.value.code == ReasonCode.CONFIG_NOT_FOUND


def test_a_session_in_two_datasets_must_be_named_with_its_dataset(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    first = ingest(record(), tmp_path, instruments)
    ingest(record(), tmp_path, instruments, seed=2)
    with pytest.raises(PlatformError, match="several places") as caught:
        find_session(tmp_path, "2026-04-09/day")
    assert ":2026-04-09/day" in caught.value.next_step
    name = f"{first.dataset_id}:2026-04-09/day"
    assert find_session(tmp_path, name) == first.sessions[0]


def test_the_sql_lens_sees_every_record_and_an_empty_workspace_has_empty_tables(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    with catalog.connect(tmp_path) as lens:
        assert lens.execute("SELECT count(*) FROM books").fetchone() == (0,)
        columns = lens.sql("SELECT * FROM trades").columns
    dataset = ingest(record(), tmp_path, instruments)
    with catalog.connect(tmp_path) as lens:
        assert lens.sql("SELECT * FROM trades").columns == columns
        found = lens.sql(
            "SELECT dataset_id, symbol, session_id, count(*), min(bid_price_1)"
            " FROM books GROUP BY ALL"
        ).fetchall()
        assert found == [(dataset.dataset_id, "TXFD6", "2026-04-09/day", 40, 35_000 * 10**8)]
        assert lens.execute("SELECT record_count FROM sessions").fetchone() == (60,)


def test_a_dataset_whose_hash_was_edited_is_refused(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    dataset = ingest(record(), tmp_path, instruments)
    path = dataset.path / "dataset.json"
    content = json.loads(path.read_bytes())
    path.write_text(json.dumps(content | {"sha256": "0" * 64}))
    with pytest.raises(PlatformError, match="content hash"):
        catalog.datasets(tmp_path)
    moved = [row | {"trading_day": row["trading_day"] + 1} for row in content["sessions"]]
    path.write_text(json.dumps(content | {"sessions": moved}))
    with pytest.raises(PlatformError, match="is not what its hash"):
        catalog.datasets(tmp_path)
    path.write_text(json.dumps(content | {"sessions": [{}]}))
    with pytest.raises(PlatformError, match="is not a dataset"):
        catalog.datasets(tmp_path)
    path.unlink()
    assert catalog.datasets(tmp_path) == []


def test_quality_rows_have_one_form_for_every_session(
    record: Recorder, tmp_path: Path, instruments: InstrumentTable
) -> None:
    rows = catalog.quality_rows(ingest(record(), tmp_path, instruments))
    assert len({tuple(row) for row in rows}) == 1
    assert rows[0]["session"] == "2026-04-09/day"
    assert rows[0]["first"] == "2026-04-09 00:45:00.000"
