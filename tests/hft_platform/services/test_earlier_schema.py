"""Logs that a build with an earlier record schema wrote, under everything that reads logs."""

from __future__ import annotations

import hashlib
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from hft_platform import _core
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import load_instruments
from hft_platform.recorder import columns, segments
from hft_platform.recorder.ledger import SegmentKey
from hft_platform.services.explain import explain_order, list_orders
from hft_platform.services.parity import read_session, replay_session, summary_agrees
from hft_platform.services.wal_tools import wal_command
from research.data.ingest import ingest
from tests.hft_platform.services.live_workspace import Live

Copied = tuple[Live, Path]
HEADER_BYTES, FOOTER_BYTES = 128, 112
FIRST = "bfd30187"
"""Hash of the schema of the first logs, which had no Account, Health and Intent records."""


def crc32c(data: bytes) -> bytes:
    """CRC-32C, bit by bit: only headers and footers are summed here."""
    crc = 0xFFFF_FFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F6_3B78 if crc & 1 else 0)
    return struct.pack("<I", crc ^ 0xFFFF_FFFF)


def full_hash(repository: Path, start: str) -> bytes:
    """SHA-256 of a kept schema, from its file."""
    (path,) = (repository / "rust_core" / "schemas").glob(f"*-{start}.txt")
    return hashlib.sha256(path.read_bytes()).digest()


def age(path: Path, schema: bytes) -> None:
    """Make a segment what a build of another schema would have written of the same records.

    Types only came to be so far; when one changes, its records must be brought down here too.
    """
    raw = bytearray(path.read_bytes())
    raw[40:72] = schema
    raw[124:128] = crc32c(bytes(raw[:124]))
    if path.suffix == ".seg":
        footer = len(raw) - FOOTER_BYTES
        raw[footer + 72 : footer + 104] = hashlib.sha256(raw[:footer]).digest()
        raw[footer + 104 : footer + 108] = crc32c(bytes(raw[footer : footer + 104]))
    path.write_bytes(raw)


@pytest.fixture
def aged(copied: Copied, repository: Path) -> Copied:
    """A finished session whose logs are of the first schema."""
    _, session_dir = copied
    for kind in ("market", "orders"):
        for path in (session_dir / kind).glob("*.seg"):
            age(path, full_hash(repository, FIRST))
        # The build that wrote such logs kept no manifest.
        (session_dir / kind / "manifest.log").unlink()
    return copied


def test_an_old_session_is_verified_replayed_and_explained(aged: Copied) -> None:
    live, session_dir = aged
    report = wal_command("verify", live.ws, session_dir.name)
    assert report.is_sound, report.problems
    for row in wal_command("inspect", live.ws, session_dir.name).rows:
        assert row["schema_hash"].startswith(FIRST)
        assert row["is_current_schema"] is False
    parity = replay_session(session_dir, write=False)
    assert parity.is_identical
    assert parity.total > 10
    # The summary holds the records' hash, not the files': it is still the same session.
    assert summary_agrees(session_dir, parity, workspace=live.ws) is True
    order = list_orders(session_dir)[0]["order_id"]
    assert explain_order(session_dir, order).order_id == order


def test_an_old_segment_gives_the_store_the_rows_of_a_new_one(
    aged: Copied, finished: tuple[Live, object]
) -> None:
    _, session_dir = aged
    new_dir = finished[1].session_dir  # type: ignore[attr-defined]
    for kind in ("market", "orders"):
        key = SegmentKey(session_dir.name, kind, 1)
        old, new = (
            segments.read(segments.SegmentFile(folder / kind / "00000001.seg", key))
            for folder in (session_dir, new_dir)
        )
        assert (old.record_count, old.first_seq) == (new.record_count, new.first_seq)
        assert old.sha256 != new.sha256
        assert old.by_type.keys() == new.by_type.keys()
        for name, (rows, seqs) in old.by_type.items():
            assert rows.tobytes() == new.by_type[name][0].tobytes()
            assert np.array_equal(seqs, new.by_type[name][1])
            block = columns.encode_records(name, rows, origin=new.origin, seqs=seqs)
            assert block == columns.encode_records(
                name, new.by_type[name][0], origin=new.origin, seqs=seqs
            )
            assert set(rows["schema_version"]) == {_core.SCHEMA_VERSION}


def test_an_old_log_is_a_source_of_the_same_dataset(aged: Copied, tmp_path: Path) -> None:
    live, session_dir = aged
    found = ingest(session_dir, tmp_path / "again", load_instruments())
    from hft_platform.feed.recording import dataset_folders, sessions_in

    (folder,) = dataset_folders(live.ws)
    hashes = {ref.tape_sha256 for ref in sessions_in(folder)}
    assert found.sessions[0].tape_sha256 in hashes


def test_an_old_open_segment_is_sealed_as_it_is_and_the_next_is_new(
    copied: Copied, repository: Path
) -> None:
    live, session_dir = copied
    sealed = session_dir / "orders" / "00000001.seg"
    raw = sealed.read_bytes()
    before = _core.read_log(str(sealed.parent))
    sealed.unlink()
    (sealed.parent / "manifest.log").unlink()
    opened = sealed.with_suffix(".open")
    opened.write_bytes(raw[: len(raw) - FOOTER_BYTES - 20])
    age(opened, full_hash(repository, FIRST))
    assert wal_command("recover", live.ws, session_dir.name).is_sound
    again = sealed.read_bytes()
    assert again[:40] == raw[:40]
    assert again[40:72] == full_hash(repository, FIRST)
    wal_id = before["segments"][0]["wal_id"]
    kept = _core.read_log(str(sealed.parent))["tape"]
    with _core.WalWriter(str(sealed.parent), wal_id, "orders") as writer:
        writer.append(before["tape"][len(kept) :])
    log = _core.read_log(str(sealed.parent))
    assert log["tape"] == before["tape"]
    assert sealed.read_bytes() == again
    assert [row["is_current_schema"] for row in log["segments"]] == [False, True]
    assert read_session(session_dir).decisions


def test_a_schema_that_nobody_kept_is_refused_by_its_hash(aged: Copied) -> None:
    live, session_dir = aged
    path = session_dir / "market" / "00000001.seg"
    unknown = hashlib.sha256(b"record schema 9").digest()
    age(path, unknown)
    with pytest.raises(PlatformError, match=unknown.hex()) as caught:
        read_session(session_dir)
    assert caught.value.code == ReasonCode.WAL_SCHEMA_MISMATCH
    problems = wal_command("verify", live.ws, session_dir.name).problems
    assert any("WAL_SCHEMA_MISMATCH" in problem for problem in problems)
    before = path.read_bytes()
    shutil.copy(path, path.with_suffix(".kept"))
    assert not wal_command("recover", live.ws, session_dir.name).is_sound
    assert path.read_bytes() == before
