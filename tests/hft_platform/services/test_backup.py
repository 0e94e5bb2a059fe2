"""Backup and restore of a real session's workspace; the drill does it under writing."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from hft_platform import _core, cli
from hft_platform.config.canonical import atomic_write
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.feed.recording import dataset_folders
from hft_platform.services.backup import LISTING, backup, restore
from hft_platform.services.parity import replay_session
from research.data import ingestions
from research.promotion import audit
from tests.hft_platform.services.live_workspace import Live

Copied = tuple[Live, Path]


def code_of(source: Path, workspace: Path) -> int:
    """Code with which a restore is refused."""
    with pytest.raises(PlatformError) as caught:
        restore(source, workspace)
    assert not workspace.exists()
    return caught.value.code


def test_a_restored_session_replays_as_the_one_that_was_backed_up(
    copied: Copied, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live, session_dir = copied
    ours = ["--workspace", str(live.ws), "--json"]
    assert cli.main(["backup", str(tmp_path / "copy"), "--with-market", "--with-keys", *ours]) == 0
    report = json.loads(capsys.readouterr().out)
    assert f"sessions/{session_dir.name}/orders" in report["logs"]
    place = tmp_path / "back"
    assert cli.main(["restore", str(tmp_path / "copy"), "--workspace", str(place)]) == 0
    assert "hft-research audit verify" in capsys.readouterr().out
    again = replay_session(place / "sessions" / session_dir.name, write=False)
    assert again.is_identical
    assert again.total == replay_session(session_dir, write=False).total
    for key in (place / "keys").glob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_restored_audit_chain_verifies_with_its_own_tool(tmp_path: Path) -> None:
    ws = tmp_path / "ws"
    for number in range(3):
        audit.append(
            ws, kind=audit.EntryKind.WITHDRAWN, who="test", why="x", subject=str(number), facts={}
        )
    backup(ws, tmp_path / "copy", with_keys=True)
    restore(tmp_path / "copy", tmp_path / "back")
    assert len(audit.verify_chain(tmp_path / "back")) == 3


def test_a_file_that_is_replaced_meanwhile_is_taken_and_its_temporary_name_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A direct writer replaces its status twice a second."""
    ws = tmp_path / "ws"
    status, passing = ws / "ledger" / "direct_status.json", ws / "ledger" / ".direct_status.json.x"
    gone = ws / "ledger" / "gone.json"
    for path in (status, passing, gone):
        atomic_write(path, "{}\n")
    read_bytes = Path.read_bytes

    def vanishing(self: Path) -> bytes:
        if self in (passing, gone):
            self.unlink(missing_ok=True)
        return read_bytes(self)

    monkeypatch.setattr(Path, "read_bytes", vanishing)
    backup(ws, tmp_path / "copy")
    taken = sorted(path.name for path in (tmp_path / "copy" / "ledger").iterdir())
    assert taken == ["direct_status.json"]


def test_what_was_first_ingested_is_known_after_a_restore(tmp_path: Path) -> None:
    """Without the book, a recording revised since would be taken for the first one."""
    ws = tmp_path / "ws"
    first = ingestions.Ingestion("TXFD6", "2026-04-10/day", "1" * 64, "a" * 64)
    (ws / "datasets").mkdir(parents=True)
    ingestions.enter(ws / "datasets", [first])
    backup(ws, tmp_path / "copy")
    restore(tmp_path / "copy", tmp_path / "back")
    datasets = tmp_path / "back" / "datasets"
    datasets.mkdir(exist_ok=True)
    ingestions.enter(datasets, [replace(first, tape_sha256="b" * 64)])
    assert set(ingestions.first_tapes(ingestions.entries(datasets)).values()) == {"a" * 64}
    assert dataset_folders(tmp_path / "back") == []


@pytest.mark.parametrize("name", ["ledger/ingest.jsonl", LISTING])
def test_one_changed_byte_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    ws = tmp_path / "ws"
    (ws / "ledger").mkdir(parents=True)
    (ws / "ledger" / "ingest.jsonl").write_text('{"a":1}\n')
    backup(ws, tmp_path / "copy")
    path = tmp_path / "copy" / name
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert code_of(tmp_path / "copy", tmp_path / "back") == ReasonCode.BACKUP_MISMATCH
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        assert code_of(tmp_path / "copy", tmp_path / "back") == ReasonCode.BACKUP_MISMATCH
    path.write_bytes(whole)
    (tmp_path / "copy" / "more").write_text("")
    assert code_of(tmp_path / "copy", tmp_path / "back") == ReasonCode.BACKUP_MISMATCH
    (tmp_path / "copy" / "more").unlink()
    restore(tmp_path / "copy", tmp_path / "back")


@pytest.mark.parametrize("place", ["../out", "/tmp/out", "a/../../out"])
def test_a_listing_cannot_write_outside_the_workspace(tmp_path: Path, place: str) -> None:
    from hft_platform.services import backup as module

    listing = {
        "version": 1,
        "with_keys": False,
        "with_market": False,
        "logs": [],
        "files": [{"path": place, "bytes": 0, "mode": 0o644, "sha256": "0" * 64}],
    }
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / LISTING).write_bytes(module._sealed(listing))
    assert code_of(tmp_path / "copy", tmp_path / "back") == ReasonCode.BACKUP_MISMATCH


def test_of_an_open_segment_only_what_is_durable_is_taken(tmp_path: Path) -> None:
    from tests.rust_core.wal_tapes import trades

    log = tmp_path / "ws" / "sessions" / "run" / "market"
    log.parent.mkdir(parents=True)
    writer = _core.WalWriter(str(log), 7, "market", segment_bytes=16 << 10, group_commit_ms=0)
    writer.append_durable(trades(1, 200))
    # Written by another process's kill, so to say: whole frames that no sync has reached.
    writer.append(trades(201, 5))
    report = backup(tmp_path / "ws", tmp_path / "copy", with_market=True)
    assert report.logs == {"sessions/run/market": 200}
    writer.append_durable(trades(206, 100))
    writer.close()
    restored = restore(tmp_path / "copy", tmp_path / "back")
    assert restored.logs == {"sessions/run/market": 200}
    tape = _core.read_log(str(tmp_path / "back" / "sessions" / "run" / "market"))["tape"]
    assert tape == trades(1, 200)


def test_a_damaged_log_is_not_backed_up_as_if_it_were_sound(copied: Copied, tmp_path: Path) -> None:
    live, session_dir = copied
    segment = session_dir / "orders" / "00000001.seg"
    raw = bytearray(segment.read_bytes())
    raw[len(raw) // 2] ^= 1
    segment.write_bytes(raw)
    with pytest.raises(PlatformError) as caught:
        backup(live.ws, tmp_path / "copy")
    assert caught.value.code == ReasonCode.WAL_SEGMENT_MISMATCH
    assert not (tmp_path / "copy" / LISTING).exists()
