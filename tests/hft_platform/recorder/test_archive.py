"""Archive and retention: what goes where, when, and that every reader still finds it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hft_platform import _core
from hft_platform.drills.loading import Appended, exactly_once, write_runs
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder import archive
from hft_platform.recorder.archive import Retention, archive_loaded, find_archived, whole_log
from hft_platform.recorder.ledger import loaded_segments
from hft_platform.recorder.loader import load_sealed
from hft_platform.recorder.replay_contract import check_store
from hft_platform.recorder.session_recovery import list_lost
from hft_platform.recorder.store import Store, open_store
from hft_platform.services import halt_log, latch
from hft_platform.services.backup import backup, restore
from hft_platform.services.parity import read_session

DAY_NS = 86_400 * 10**9
RUN = "drill-1-1"


def _load(ws: Path, store: Store) -> tuple[Appended, int]:
    """A loaded run, and the moment when its last segment was loaded."""
    appended = write_runs(ws, runs=1, segments=3, records_each=40, seed=1)
    assert load_sealed(ws, store).segments_loaded == 4
    entries = loaded_segments(ws / "ledger").values()
    return appended, max(entry["loaded_at_ns"] for entry in entries)


def _seg(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.seg"))


def test_a_loaded_segment_is_archived_later_deleted_much_later_and_read_until_then(
    tmp_path: Path,
) -> None:
    rules = Retention(tmp_path / "archive", 3, 7)
    session = tmp_path / "sessions" / RUN
    with open_store(tmp_path) as store:
        appended, loaded_ns = _load(tmp_path, store)
        before = read_session(session)
        early = archive_loaded(tmp_path, store, rules, now_ns=loaded_ns + 3 * DAY_NS - 10**10)
        assert (early.archived, early.problems) == ([], [])
        report = archive_loaded(tmp_path, store, rules, now_ns=loaded_ns + 3 * DAY_NS)
        assert (len(report.archived), report.deleted, report.problems) == (4, [], [])
        assert _seg(session) == []
        assert len(find_archived(rules.folder)) == 4
        after = read_session(session)
        assert (after.inputs, after.decisions) == (before.inputs, before.decisions)
        assert {str(Path(info["path"]).parent.parent.parent) for info in after.segments} == {
            str(rules.folder)
        }
        again = load_sealed(tmp_path, store)
        assert (again.segments_known, again.segments_loaded, again.problems) == (4, 0, [])
        assert all(claim.holds for claim in exactly_once(tmp_path, store, appended))
        late = archive_loaded(tmp_path, store, rules, now_ns=loaded_ns + 7 * DAY_NS)
        assert sorted(late.deleted) == [f"{RUN}/market/{number}" for number in (1, 2, 3)]
        assert _seg(rules.folder) == [f"{RUN}/orders/00000001.seg"], "orders are never deleted"
        last = load_sealed(tmp_path, store)
        assert last.problems == []
        assert all(claim.holds for claim in exactly_once(tmp_path, store, appended))
    with pytest.raises(PlatformError) as refused:
        read_session(session)
    assert 600 < refused.value.code < 700


def test_an_archived_log_of_a_dead_session_halts_nobody_and_is_recovered_and_backed_up(
    tmp_path: Path,
) -> None:
    """Who asks a log what happened must not take an archive for damage."""
    ws = tmp_path / "ws"
    session = ws / "sessions" / RUN
    rules = Retention(ws / "archive", 0, 7)
    with open_store(ws) as store:
        _, loaded_ns = _load(ws, store)
        assert not (session / "summary.json").exists()
        before, lost = read_session(session), list_lost(session)
        changes = halt_log.changes(session)
        assert (latch.adopt(ws), lost is not None) == (None, True)
        assert len(archive_loaded(ws, store, rules, now_ns=loaded_ns).archived) == 4
        assert _seg(session) == []
        assert halt_log.changes(session) == changes
        assert latch.adopt(ws) is None
        assert list_lost(session) == lost
        report = backup(ws, tmp_path / "copy", with_market=True)
        assert restore(tmp_path / "copy", tmp_path / "back").logs == report.logs
        again = read_session(tmp_path / "back" / "sessions" / RUN)
        assert (again.inputs, again.decisions) == (before.inputs, before.decisions)
        # Market segments that were deleted are not there; the log still ends where it did.
        late = archive_loaded(ws, store, rules, now_ns=loaded_ns + 7 * DAY_NS)
        assert len(late.deleted) == 3
        last = backup(ws, tmp_path / "last", with_market=True)
        assert last.logs == report.logs
        assert restore(tmp_path / "last", tmp_path / "over").logs == report.logs
        with whole_log(tmp_path / "over" / "sessions" / RUN / "orders") as folder:
            orders = _core.read_log(folder)["tape"]
        with whole_log(session / "orders") as folder:
            assert _core.read_log(folder)["tape"] == orders


def test_a_deleted_store_is_filled_from_the_archive(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        appended, loaded_ns = _load(tmp_path, store)
        rules = Retention(tmp_path / "archive", 0, None)
        assert len(archive_loaded(tmp_path, store, rules, now_ns=loaded_ns).archived) == 4
    shutil.rmtree(tmp_path / "store")
    with open_store(tmp_path) as store:
        # Nothing is deleted on the word of a ledger about another store.
        nothing = archive_loaded(
            tmp_path, store, Retention(tmp_path / "archive", 0, 7), now_ns=loaded_ns + 99 * DAY_NS
        )
        assert (nothing.archived, nothing.deleted) == ([], [])
        assert load_sealed(tmp_path, store).rows_inserted == appended.records
        assert all(claim.holds for claim in exactly_once(tmp_path, store, appended))


def test_a_new_store_without_what_was_deleted_before_keeps_the_contract(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        _, loaded_ns = _load(tmp_path, store)
        rules = Retention(tmp_path / "archive", 0, None)
        archive_loaded(tmp_path, store, rules, now_ns=loaded_ns)
    log = tmp_path / "sessions" / RUN / "market"
    _core.manifest_append_deleted(log, [1, 2])
    for number in (1, 2):
        (tmp_path / "archive" / RUN / "market" / f"{number:08d}.seg").unlink()
    shutil.rmtree(tmp_path / "store")
    with open_store(tmp_path) as store:
        assert load_sealed(tmp_path, store).segments_loaded == 2
        assert check_store(tmp_path, store).violations == ()
        # One that nobody deleted is missed all the same.
        (log / "manifest.log").unlink()
        codes = {violation.code for violation in check_store(tmp_path, store).violations}
        assert codes == {ReasonCode.SEGMENT_MISSING}


@pytest.mark.parametrize("moment", ["copied", "noted"])
def test_a_crash_while_archiving_loses_nothing_and_the_next_run_goes_on(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = Retention(tmp_path / "archive", 0, None)
    session = tmp_path / "sessions" / RUN
    with open_store(tmp_path) as store:
        _, loaded_ns = _load(tmp_path, store)
        before = read_session(session)
        name = {"copied": "manifest_append_archived", "noted": None}[moment]

        def crash(*_arguments: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            if name is None:
                patch.setattr(Path, "unlink", crash)
            else:
                patch.setattr(_core, name, crash)
            archive_loaded(tmp_path, store, rules, now_ns=loaded_ns)
        assert len(_seg(session)) == 4
        assert read_session(session).inputs == before.inputs
        assert load_sealed(tmp_path, store).problems == []
        report = archive_loaded(tmp_path, store, rules, now_ns=loaded_ns)
        assert (len(report.archived), report.problems) == (4, [])
        assert read_session(session).inputs == before.inputs


def test_across_file_systems_a_segment_is_copied_and_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_arguments: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(archive.os, "link", refused)
    session = tmp_path / "sessions" / RUN
    with open_store(tmp_path) as store:
        _, loaded_ns = _load(tmp_path, store)
        before = read_session(session)
        rules = Retention(tmp_path / "archive", 0, None)
        report = archive_loaded(tmp_path, store, rules, now_ns=loaded_ns)
        assert (len(report.archived), report.problems) == (4, [])
        assert load_sealed(tmp_path, store).segments_known == 4, "the time of change was kept"
    assert read_session(session).inputs == before.inputs


def test_a_segment_that_is_damaged_on_disk_is_not_archived(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        _, loaded_ns = _load(tmp_path, store)
        second = tmp_path / "sessions" / RUN / "market" / "00000002.seg"
        raw = second.read_bytes()
        second.chmod(0o644)
        second.write_bytes(raw[:100] + bytes([raw[100] ^ 1]) + raw[101:])
        rules = Retention(tmp_path / "archive", 0, None)
        report = archive_loaded(tmp_path, store, rules, now_ns=loaded_ns)
        assert report.archived == [f"{RUN}/orders/1"]
        assert "SEGMENT_CHANGED" in report.problems[0]


def test_a_log_that_is_still_written_stays_where_it_is(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        folder = tmp_path / "sessions" / "live" / "market"
        folder.mkdir(parents=True)
        market = (write_runs(tmp_path, runs=1, segments=1, records_each=5, seed=1)).tapes
        with _core.WalWriter(str(folder), 5, "market") as writer:
            writer.append(market[RUN, "market"])
            writer.rotate()
            writer.append(market[RUN, "market"])
            writer.sync()
            assert load_sealed(tmp_path, store).still_open == ["live/market/00000002.open"]
            rules = Retention(tmp_path / "archive", 0, None)
            report = archive_loaded(tmp_path, store, rules, now_ns=2**62)
            assert not [name for name in report.archived if name.startswith("live")]


def test_less_than_a_week_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as refused:
        Retention(tmp_path, 0, 6)
    assert refused.value.code == ReasonCode.SETTINGS_INVALID


def test_a_log_without_archived_segments_is_read_where_it_is(tmp_path: Path) -> None:
    write_runs(tmp_path, runs=1, segments=2, records_each=5, seed=1)
    log_dir = tmp_path / "sessions" / RUN / "market"
    with whole_log(log_dir) as folder:
        assert folder == log_dir
