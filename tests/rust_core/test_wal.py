"""The log through its Python binding: tapes in, tapes and reports out, errors with codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hft_platform import _core, records
from hft_platform.errors import ReasonCode
from tests.rust_core.wal_tapes import FIRST_TIME_NS, refused, trades

SEGMENT_BYTES_MIN = 8 << 10


def market_log(log_dir: Path, **options: int) -> _core.WalWriter:
    """Writer of a market log with small segments and no thread."""
    defaults = {"segment_bytes": SEGMENT_BYTES_MIN, "group_commit_ms": 0}
    return _core.WalWriter(str(log_dir), 7, "market", **(defaults | options))


def test_a_sealed_log_gives_back_its_tape_and_describes_its_segments(tmp_path: Path) -> None:
    tape = trades(1, 300)
    writer = market_log(tmp_path)
    assert writer.append(tape) == 300
    assert writer.durable_seq() < 300
    assert writer.sync() == writer.durable_seq() == 300
    assert writer.seal() == 300

    log = _core.read_log(str(tmp_path))
    assert log["tape"] == tape
    assert log["torn"] is None
    assert [info["segment_id"] for info in log["segments"]] == [1, 2, 3, 4, 5, 6]
    assert sum(info["record_count"] for info in log["segments"]) == 300
    first, last = log["segments"][0], log["segments"][-1]
    assert first["state"] == "sealed"
    assert (first["wal_id"], first["log_kind"], first["epoch"]) == (7, "market", 1)
    assert (first["first_seq"], last["last_seq"]) == (1, 300)
    assert (first["first_input_seq"], last["last_input_seq"]) == (1, 300)
    assert first["min_sequence_time_ns"] == FIRST_TIME_NS + 1
    assert last["max_sequence_time_ns"] == FIRST_TIME_NS + 300
    assert first["schema_hash"] == _core.SCHEMA_HASH
    assert len(first["sha256"]) == 64

    parts = [_core.read_segment(info["path"])["tape"] for info in log["segments"]]
    assert b"".join(parts) == tape


def test_append_durable_moves_the_watermark_before_it_returns(tmp_path: Path) -> None:
    with market_log(tmp_path) as writer:
        assert writer.append(trades(1, 2)) == 2
        assert writer.durable_seq() == 0
        assert writer.append_durable(trades(3, 1)) == 3
        assert writer.durable_seq() == writer.last_seq() == 3
    assert _core.read_log(str(tmp_path))["tape"] == trades(1, 3)


def test_an_exception_inside_the_writer_block_leaves_a_log_the_next_open_recovers(
    tmp_path: Path,
) -> None:
    with pytest.raises(ZeroDivisionError), market_log(tmp_path) as writer:
        writer.append(trades(1, 5))
        raise ZeroDivisionError
    assert [path.suffix for path in sorted(tmp_path.glob("0*"))] == [".open"]
    with market_log(tmp_path, epoch=2) as writer:
        report = writer.recovery()
        assert (report["action"], report["code"], report["last_seq"]) == ("sealed", 0, 5)
        assert writer.append(trades(6, 5)) == 10
    assert _core.read_log(str(tmp_path))["tape"] == trades(1, 10)


def test_orders_and_market_records_have_their_own_logs(tmp_path: Path) -> None:
    decisions = records.empty("Decision", 3).tobytes()
    code, message = refused(market_log(tmp_path / "market").append, decisions)
    assert code == ReasonCode.INVARIANT_BROKEN
    assert "record type 16 does not belong into the market log" in message
    with _core.WalWriter(str(tmp_path / "orders"), 8, "orders") as writer:
        assert writer.append_durable(decisions) == 3
    assert _core.read_log(str(tmp_path / "orders"))["tape"] == decisions
    assert refused(_core.WalWriter, str(tmp_path), 1, "trades")[0] == ReasonCode.SETTINGS_INVALID


def test_a_log_has_one_writer_at_a_time(tmp_path: Path) -> None:
    writer = market_log(tmp_path)
    assert refused(market_log, tmp_path)[0] == ReasonCode.WAL_BUSY
    assert refused(_core.recover_log, str(tmp_path))[0] == ReasonCode.WAL_BUSY
    assert writer.close() == 0
    assert refused(writer.append, trades(1, 1))[0] == ReasonCode.INVARIANT_BROKEN
    market_log(tmp_path, epoch=4).seal()


def test_a_torn_tail_is_cut_and_the_frame_before_it_survives(tmp_path: Path) -> None:
    market_log(tmp_path).append_durable(trades(1, 3))
    segment = tmp_path / "00000001.open"
    frame_bytes = 40 + records.DTYPES["Trade"].itemsize
    segment.write_bytes(segment.read_bytes()[: 128 + 3 * frame_bytes - 1])

    assert _core.read_log(str(tmp_path))["torn"]["seq"] == 3
    check = _core.verify_segment(str(segment))
    assert (check["is_valid"], check["code"]) == (False, ReasonCode.WAL_TORN_TAIL)
    assert (check["valid_frames"], check["bad_offset"]) == (2, 128 + 2 * frame_bytes)

    report = _core.recover_log(str(tmp_path))
    assert (report["action"], report["code"]) == ("cut", ReasonCode.WAL_TORN_TAIL)
    assert (report["cut_offset"], report["cut_seq"]) == (128 + 2 * frame_bytes, 3)
    assert (report["last_seq"], report["segment_count"]) == (2, 1)
    assert _core.read_log(str(tmp_path))["tape"] == trades(1, 2)
    assert _core.recover_log(str(tmp_path))["action"] == "nothing"


def test_damage_before_a_later_durable_frame_is_refused_with_file_byte_and_checksum(
    tmp_path: Path,
) -> None:
    writer = market_log(tmp_path)
    for number in range(1, 5):
        writer.append_durable(trades(number, 1))
    writer.close()
    segment = tmp_path / "00000001.open"
    damaged = bytearray(segment.read_bytes())
    damaged[128 + 100] ^= 0x10
    segment.write_bytes(damaged)

    for call in (_core.recover_log, _core.read_log):
        code, message = refused(call, str(tmp_path))
        assert code == ReasonCode.WAL_DAMAGED
        assert "00000001.open: byte 128: frame checksum was 0x" in message
        assert "expected 0x" in message
        assert "3 valid frames follow" in message
    assert segment.read_bytes() == damaged
    check = _core.verify_segment(str(segment))
    assert (check["code"], check["following_frames"]) == (ReasonCode.WAL_DAMAGED, 3)
    assert check["following_durable_seq"] == 3


def test_a_sealed_segment_that_was_edited_does_not_match(tmp_path: Path) -> None:
    with market_log(tmp_path) as writer:
        writer.append(trades(1, 5))
    segment = tmp_path / "00000001.seg"
    edited = bytearray(segment.read_bytes())
    edited[-20] ^= 1
    segment.write_bytes(edited)
    for call, argument in ((_core.read_segment, segment), (_core.recover_log, tmp_path)):
        assert refused(call, str(argument))[0] == ReasonCode.WAL_SEGMENT_MISMATCH
    check = _core.verify_segment(str(segment))
    assert (check["is_valid"], check["valid_frames"]) == (False, 5)
    assert "footer checksum was" in check["fault"]


def test_a_log_that_is_not_there_is_an_error_and_not_empty(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    for call in (_core.read_log, _core.recover_log):
        code, message = refused(call, missing)
        assert code == ReasonCode.WAL_READ_FAILED
        assert missing in message
    code, _ = refused(_core.verify_segment, str(tmp_path / "00000001.seg"))
    assert code == ReasonCode.WAL_READ_FAILED
    assert refused(_core.read_segment, str(tmp_path / "x.bin"))[0] == ReasonCode.SETTINGS_INVALID
