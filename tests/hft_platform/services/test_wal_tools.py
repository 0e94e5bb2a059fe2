"""Log tools: damage is a problem with its code, recovery is exact, looking changes nothing.

The format itself is proven in `rust_core/src/wal` and `tests/rust_core/test_wal*.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hft_platform import _core, records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services.wal_tools import INSPECTED, wal_command
from tests.hft_platform.services.live_workspace import Live

Copied = tuple[Live, Path]


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Everything below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("action", ["inspect", "verify"])
def test_a_sound_session_has_a_row_for_each_segment_and_no_problem(
    copied: Copied, action: str
) -> None:
    live, session_dir = copied
    before = bytes_of(session_dir)
    for name in (session_dir.name, str(session_dir)):
        report = wal_command(action, live.ws, name)
        assert report.is_sound
        assert [row["segment"] for row in report.rows] == [
            "market/00000001.seg", "orders/00000001.seg"
        ]  # fmt: skip
    assert bytes_of(session_dir) == before
    json.dumps(report.as_dict(), allow_nan=False)
    assert report.render().count("\n") == 1


def test_inspect_shows_the_facts_of_header_and_footer(copied: Copied) -> None:
    live, session_dir = copied
    market, orders = wal_command("inspect", live.ws, session_dir.name).rows
    assert set(INSPECTED) < set(market)
    assert (market["log_kind"], orders["log_kind"]) == ("market", "orders")
    assert market["wal_id"] == orders["wal_id"]
    assert market["record_count"] == market["last_seq"] == market["valid_frames"]
    assert market["first_input_seq"] == 1
    assert market["schema_hash"] == _core.SCHEMA_HASH


@pytest.mark.parametrize("action", ["inspect", "verify"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.98, 1.0])
def test_a_flipped_bit_anywhere_is_a_problem_with_its_code(
    copied: Copied, share: float, action: str
) -> None:
    """A draft ignored what verify_segment reports, because it raises nothing."""
    live, session_dir = copied
    segment = session_dir / "orders" / "00000001.seg"
    raw = bytearray(segment.read_bytes())
    raw[int(share * (len(raw) - 1))] ^= 4
    segment.write_bytes(raw)
    report = wal_command(action, live.ws, session_dir.name)
    assert not report.is_sound
    (problem,) = report.problems
    assert problem.startswith("WAL_"), problem
    assert "orders/00000001.seg" in problem
    assert len(report.rows) == 2, "the other segment is still shown"
    assert "problem WAL_" in report.render()


def test_one_segment_file_can_be_verified_alone(copied: Copied) -> None:
    live, session_dir = copied
    segment = session_dir / "market" / "00000001.seg"
    assert wal_command("verify", live.ws, str(segment)).is_sound
    segment.write_bytes(segment.read_bytes()[:-1])
    assert not wal_command("verify", live.ws, str(segment)).is_sound
    with pytest.raises(PlatformError, match="as a whole"):
        wal_command("recover", live.ws, str(segment))


def test_recover_seals_what_a_crash_left_and_says_what_was_cut(copied: Copied) -> None:
    live, session_dir = copied
    sealed = session_dir / "orders" / "00000001.seg"
    raw = sealed.read_bytes()
    tape = _core.read_log(str(sealed.parent))["tape"]
    sealed.unlink()
    gone = wal_command("verify", live.ws, session_dir.name)
    assert gone.problems[0].startswith("LOG_SEQUENCE_GAP (610)")
    assert "the manifest says it was sealed" in gone.problems[0]
    sealed.with_name("manifest.log").unlink()
    sealed.with_suffix(".open").write_bytes(raw[: len(raw) // 2])
    torn = wal_command("verify", live.ws, session_dir.name)
    assert "WAL_TORN_TAIL (601)" in torn.problems[0]
    market, orders, lost = wal_command("recover", live.ws, session_dir.name).rows[:3]
    assert (market["action"], orders["action"]) == ("nothing", "cut")
    assert orders["code"] == ReasonCode.WAL_TORN_TAIL
    assert tape.startswith(_core.read_log(str(sealed.parent))["tape"])
    # This test took acknowledged records away; a real crash does not, and the watermark knows.
    (problem,) = wal_command("verify", live.ws, session_dir.name).problems
    assert "were acknowledged, it holds" in problem
    (sealed.parent / "watermark").unlink()
    assert wal_command("verify", live.ws, session_dir.name).is_sound
    again = wal_command("recover", live.ws, session_dir.name)
    assert [row["action"] for row in again.rows[:2]] == ["nothing", "nothing"]
    # Half of the order log is gone: what it decided is held against the market up to there only.
    assert (lost["session"], lost["lost_tail"]) == (session_dir.name, "orders")
    assert again.rows[2] == lost


def test_recover_refuses_damage_changes_nothing_and_still_does_the_other_log(
    copied: Copied,
) -> None:
    live, session_dir = copied
    market = session_dir / "market" / "00000001.seg"
    raw = bytearray(market.read_bytes())
    raw[len(raw) // 2] ^= 1
    market.write_bytes(raw)
    report = wal_command("recover", live.ws, session_dir.name)
    assert [row["log"] for row in report.rows] == ["orders"]
    assert report.problems[0].startswith("WAL_SEGMENT_MISMATCH (603)")
    assert market.read_bytes() == raw


def test_a_log_that_is_being_written_is_not_recovered_under_its_writer(tmp_path: Path) -> None:
    with _core.WalWriter(str(tmp_path / "market"), 1, "market"):
        report = wal_command("recover", tmp_path, str(tmp_path / "market"))
        assert report.problems[0].startswith("WAL_BUSY (611)")


@pytest.mark.parametrize("action", ["inspect", "verify", "recover"])
def test_nothing_there_is_a_typed_error(live: Live, action: str) -> None:
    for name in (None, "no-such-session"):
        with pytest.raises(PlatformError) as caught:
            wal_command(action, live.ws, name)
        assert caught.value.code == ReasonCode.CONFIG_NOT_FOUND


def test_a_damaged_last_commit_stands_out_against_the_watermark(tmp_path: Path) -> None:
    """The log alone takes it for a torn write: nothing was written after it that says otherwise."""
    log = tmp_path / "market"
    writer = _core.WalWriter(str(log), 7, "market", segment_bytes=16 << 10, group_commit_ms=0)
    writer.append_durable(records.empty("Trade", 5).tobytes())
    writer.close()
    assert wal_command("verify", tmp_path, str(log)).is_sound
    segment = log / "00000001.open"
    raw = bytearray(segment.read_bytes())
    raw[128 + 5 * (40 + records.DTYPES["Trade"].itemsize) - 1] ^= 1
    segment.write_bytes(raw)
    torn, problem = wal_command("verify", tmp_path, str(log)).problems
    assert torn.startswith("WAL_TORN_TAIL")
    assert "records up to 5 were acknowledged, it holds 4" in problem
