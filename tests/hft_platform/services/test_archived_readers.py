"""Who reads a log finds what was archived of it: backup, verify, recover, metrics, datasets."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from hft_platform import _core, cli, records
from hft_platform.drills.loading import write_runs
from hft_platform.market.instruments import load_instruments
from hft_platform.observability.exporter import WorkspaceCollector, exposition
from hft_platform.recorder.archive import Retention, archive_loaded, whole_log
from hft_platform.recorder.loader import load_sealed
from hft_platform.recorder.store import open_store
from hft_platform.services.halt_log import changes, logged_halt
from research import loop
from research.data.tape_source import log_folder
from tests.hft_platform.services.live_workspace import Live

RUN = "drill-1-1"


def archived(ws: Path, *, folder: Path | None = None) -> tuple[Path, dict[str, bytes]]:
    """A session whose four segments are all in the archive, and the tapes of its logs."""
    write_runs(ws, runs=1, segments=3, records_each=40, seed=1)
    session = ws / "sessions" / RUN
    tapes = {kind: _core.read_log(session / kind)["tape"] for kind in ("market", "orders")}
    with open_store(ws) as store:
        load_sealed(ws, store)
        rules = Retention(folder or ws / "archive", 0, None)
        report = archive_loaded(ws, store, rules, now_ns=time.time_ns())
    assert not list((ws / "sessions").rglob("*.seg")), report.problems
    return session, tapes


@pytest.mark.parametrize("place", ["inside", "outside"])
def test_a_backup_holds_the_archived_segments_and_is_restored_with_them(
    tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ws, copy, back = tmp_path / "ws", tmp_path / "copy", tmp_path / "back"
    _, tapes = archived(ws, folder=None if place == "inside" else tmp_path / "archive")
    assert cli.main(["backup", str(copy), "--with-market", "--workspace", str(ws)]) == 0
    assert cli.main(["restore", str(copy), "--workspace", str(back)]) == 0
    for kind, tape in tapes.items():
        assert _core.read_log(back / "sessions" / RUN / kind)["tape"] == tape
    capsys.readouterr()
    assert cli.main(["wal", "load", "--workspace", str(back), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["rows_inserted"] == 160


def test_a_backup_without_an_archived_order_segment_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ws = tmp_path / "ws"
    archived(ws)
    (ws / "archive" / RUN / "orders" / "00000001.seg").unlink()
    assert cli.main(["backup", str(tmp_path / "copy"), "--workspace", str(ws)]) == 3
    assert "WAL_READ_FAILED" in capsys.readouterr().err
    assert not (tmp_path / "copy" / "backup.json").exists()


def test_verify_reads_the_archived_segments_and_names_those_that_are_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archived(tmp_path)
    verify = ["wal", "verify", RUN, "--workspace", str(tmp_path), "--json"]
    assert cli.main(verify) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["is_valid"] for row in found["rows"]] == [True] * 4
    away = tmp_path / "archive" / RUN / "market" / "00000002.seg"
    raw = away.read_bytes()
    away.chmod(0o644)
    away.write_bytes(raw[:300] + bytes([raw[300] ^ 1]) + raw[301:])
    assert cli.main(verify) == 1
    assert "market/00000002.seg" in json.loads(capsys.readouterr().out)["problems"][0]
    away.unlink()
    assert cli.main(verify) == 1
    assert "SEGMENT_MISSING" in json.loads(capsys.readouterr().out)["problems"][0]


def test_metrics_count_what_was_shed_in_an_archived_log_and_stay_readable(tmp_path: Path) -> None:
    session = tmp_path / "sessions" / "shed"
    rows = records.empty("Shed", 1)
    rows["count"], rows["input_seq"], rows["trading_day"] = 30, 1, 20260302
    (session / "orders").mkdir(parents=True)
    with _core.WalWriter(session / "orders", 5, "orders", group_commit_ms=0) as writer:
        writer.append(rows.tobytes())
    archived(tmp_path)
    assert not list(session.rglob("*.seg"))
    text = exposition(WorkspaceCollector(tmp_path))
    assert 'hft_metrics_source_ok{source="shed"} 1.0' in text
    assert "hft_shed_records 30.0" in text


@pytest.fixture
def session(copied: tuple[Live, Path]) -> Path:
    """A real session with both logs in the archive."""
    live, session_dir = copied
    with open_store(live.ws) as store:
        load_sealed(live.ws, store)
        archive_loaded(
            live.ws, store, Retention(live.ws / "archive", 0, None), now_ns=time.time_ns()
        )
    assert not list(session_dir.rglob("*.seg"))
    return session_dir


def test_recover_finds_an_archived_session_whole(
    session: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recover = ["wal", "recover", str(session), "--workspace", str(session.parent.parent)]
    assert cli.main(recover) == 0, capsys.readouterr().out
    assert not (session / "recovery.json").exists()


def test_a_dataset_is_made_from_an_archived_log(session: Path, tmp_path: Path) -> None:
    found = log_folder(session)
    assert found is not None
    (batch,) = found.batches(load_instruments())
    with whole_log(session / "market") as folder:
        by_type = _core.index_tape(_core.read_log(folder)["tape"])
    books = np.frombuffer(by_type["Book"][0], dtype=records.DTYPES["Book"])
    assert batch.rows.books.size == books.size > 0
    assert len(batch.inputs) == len(list((tmp_path / "ws" / "archive").rglob("market/*.seg")))


def test_the_status_reads_the_archived_log_of_a_session_that_never_finished(
    session: Path,
) -> None:
    assert changes(session).keys() == {"storm", "policy"}
    assert logged_halt(session) is None, "a log that cannot be read halts every new session"


def test_parity_of_all_sessions_passes_over_those_whose_records_were_deleted(
    session: Path,
) -> None:
    ws = session.parent.parent
    before = loop.parity(ws)
    assert (before["sessions"], before["share"], before["deleted"]) == (1, 1.0, [])
    with open_store(ws) as store:
        later_ns = time.time_ns() + 8 * 86_400 * 10**9
        assert archive_loaded(ws, store, Retention(ws / "archive", 0, 7), now_ns=later_ns).deleted
    after = loop.parity(ws)
    assert (after["sessions"], after["deleted"]) == (0, [session.name])


def test_archiving_is_nothing_new_to_load_for_the_sensor(tmp_path: Path) -> None:
    write_runs(tmp_path, runs=1, segments=3, records_each=40, seed=1)
    before = loop.sealed_segments_sha256(tmp_path)
    with open_store(tmp_path) as store:
        load_sealed(tmp_path, store)
        rules = Retention(tmp_path / "archive", 0, None)
        assert archive_loaded(tmp_path, store, rules, now_ns=time.time_ns()).archived
    assert loop.sealed_segments_sha256(tmp_path) == before is not None


def test_a_damaged_manifest_is_refused_with_its_code_by_all_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archived(tmp_path / "ws")
    ws = ["--workspace", str(tmp_path / "ws")]
    manifest = tmp_path / "ws" / "sessions" / RUN / "orders" / "manifest.log"
    raw = manifest.read_bytes()
    manifest.write_bytes(raw[:90] + bytes([raw[90] ^ 1]) + raw[91:])
    assert cli.main(["backup", str(tmp_path / "copy"), *ws]) == 3
    assert cli.main(["wal", "verify", RUN, *ws]) == 1
    assert "problem" in capsys.readouterr().out
    assert loop.sealed_segments_sha256(tmp_path / "ws") is not None
