"""Ingestion ledger: durable entries, a torn tail, damage, and entries of another store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder.ledger import FileStamp, Ledger, SegmentKey, loaded_segments

KEY = SegmentKey("run", "market", 1)
SHA = "ab" * 32
FACTS = {"positions": {"hft.market_books": 7}}


def _open(path: Path, store_id: str = "one") -> Ledger:
    return Ledger(path, store_id=store_id, shard=3, shard_count=16)


def _write(path: Path) -> bytes:
    with _open(path) as ledger:
        ledger.append("before", KEY, segment_sha256=SHA, facts=FACTS)
        ledger.append("after", KEY, segment_sha256=SHA, facts={"chunk": 0})
        ledger.append("after", KEY, segment_sha256=SHA, facts={"chunk": 1})
        ledger.append("loaded", KEY, segment_sha256=SHA, facts={"size": 9, "mtime_ns": 8})
    return path.read_bytes()


def test_entries_are_there_again_after_opening(tmp_path: Path) -> None:
    _write(tmp_path / "ingest.jsonl")
    with _open(tmp_path / "ingest.jsonl") as ledger:
        state = ledger.state(KEY)
        assert state is not None
        assert (state.positions, state.after) == ({"hft.market_books": 7}, {0, 1})
        assert state.loaded == FileStamp(9, 8)
        assert state.segment_sha256 == SHA
        assert ledger.knows_store


def test_a_ledger_cut_anywhere_keeps_its_whole_lines_and_can_go_on(tmp_path: Path) -> None:
    path = tmp_path / "ingest.jsonl"
    whole = _write(path)
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with _open(path):
            pass
        kept = path.read_bytes()
        assert whole.startswith(kept)
        # At least the first line is written again.
        assert kept.count(b"\n") == max(whole[:end].count(b"\n"), 1)
    with _open(path) as ledger:
        ledger.append("after", KEY, segment_sha256=SHA, facts={"chunk": 2})
    with _open(path) as ledger:
        state = ledger.state(KEY)
        assert state is not None
        assert 2 in state.after


def test_a_flipped_bit_before_the_last_line_is_found(tmp_path: Path) -> None:
    path = tmp_path / "ingest.jsonl"
    whole = _write(path)
    last_line = whole.rstrip(b"\n").rfind(b"\n") + 1
    for place in range(0, last_line, 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(PlatformError) as refused:
            _open(path)
        assert refused.value.code == ReasonCode.WAL_DAMAGED


def test_entries_of_another_store_do_not_count(tmp_path: Path) -> None:
    _write(tmp_path / "ingest.jsonl")
    with _open(tmp_path / "ingest.jsonl", "two") as ledger:
        assert ledger.state(KEY) is None
        assert not ledger.knows_store


def _lost(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], *lines[3:]]


def _doubled(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], lines[2], *lines[3:]]


def _moved(lines: list[bytes]) -> list[bytes]:
    return [*lines[:1], lines[2], lines[1], *lines[3:]]


@pytest.mark.parametrize("damage", [_lost, _doubled, _moved])
def test_a_line_that_was_lost_doubled_or_moved_is_found(
    tmp_path: Path, damage: Callable[[list[bytes]], list[bytes]]
) -> None:
    path = tmp_path / "ingest.jsonl"
    lines = _write(path).splitlines(keepends=True)
    path.write_bytes(b"".join(damage(lines)))
    with pytest.raises(PlatformError) as refused:
        _open(path)
    assert refused.value.code == ReasonCode.WAL_DAMAGED


def test_a_ledger_of_another_shard_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ingest.jsonl"
    _write(path)
    with pytest.raises(PlatformError) as refused:
        Ledger(path, store_id="one", shard=4, shard_count=16)
    assert refused.value.code == ReasonCode.WAL_DAMAGED


def test_the_oldest_position_of_a_segment_counts(tmp_path: Path) -> None:
    path = tmp_path / "ingest.jsonl"
    with _open(path) as ledger:
        for position in (5, 9):
            facts = {"positions": {"hft.timers": position}}
            ledger.append("before", KEY, segment_sha256=SHA, facts=facts)
    with _open(path) as ledger:
        state = ledger.state(KEY)
        assert state is not None
        assert state.positions == {"hft.timers": 5}


def test_what_is_loaded_is_read_without_a_claim_up_to_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "ingest-03.jsonl"
    with _open(path):
        whole = _write(path)
    path.write_bytes(whole + b'00000000 {"event":"loa')
    assert loaded_segments(tmp_path)[KEY]["size"] == 9
    path.write_bytes(whole[:-1])
    assert loaded_segments(tmp_path) == {}
