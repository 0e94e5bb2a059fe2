"""Ingestion ledger: durable entries, a torn tail, damage, and entries of another store."""

from __future__ import annotations

from pathlib import Path

import pytest

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder.ledger import FileStamp, Ledger, SegmentKey

KEY = SegmentKey("run", "market", 1)
SHA = "ab" * 32


def _write(path: Path) -> bytes:
    with Ledger(path, store_id="one") as ledger:
        ledger.append("before", KEY, segment_sha256=SHA, facts={"chunk": 0})
        ledger.append("after", KEY, segment_sha256=SHA, facts={"chunk": 0})
        ledger.append("before", KEY, segment_sha256=SHA, facts={"chunk": 1})
        ledger.append("loaded", KEY, segment_sha256=SHA, facts={"size": 9, "mtime_ns": 8})
    return path.read_bytes()


def test_entries_are_there_again_after_opening(tmp_path: Path) -> None:
    _write(tmp_path / "ingest.jsonl")
    with Ledger(tmp_path / "ingest.jsonl", store_id="one") as ledger:
        state = ledger.state(KEY)
        assert state is not None
        assert (state.before, state.after) == ({0, 1}, {0})
        assert state.loaded == FileStamp(9, 8)
        assert state.segment_sha256 == SHA
        assert ledger.knows_store


def test_a_ledger_cut_anywhere_keeps_its_whole_lines_and_can_go_on(tmp_path: Path) -> None:
    path = tmp_path / "ingest.jsonl"
    whole = _write(path)
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with Ledger(path, store_id="one"):
            pass
        kept = path.read_bytes()
        assert whole.startswith(kept)
        assert kept.count(b"\n") == whole[:end].count(b"\n")
    with Ledger(path, store_id="one") as ledger:
        ledger.append("before", KEY, segment_sha256=SHA, facts={"chunk": 2})
    with Ledger(path, store_id="one") as ledger:
        state = ledger.state(KEY)
        assert state is not None
        assert 2 in state.before


def test_a_flipped_bit_before_the_last_line_is_found(tmp_path: Path) -> None:
    path = tmp_path / "ingest.jsonl"
    whole = _write(path)
    last_line = whole.rstrip(b"\n").rfind(b"\n") + 1
    for place in range(0, last_line, 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(PlatformError) as refused:
            Ledger(path, store_id="one")
        assert refused.value.code == ReasonCode.WAL_DAMAGED


def test_entries_of_another_store_do_not_count(tmp_path: Path) -> None:
    _write(tmp_path / "ingest.jsonl")
    with Ledger(tmp_path / "ingest.jsonl", store_id="two") as ledger:
        assert ledger.state(KEY) is None
        assert not ledger.knows_store
