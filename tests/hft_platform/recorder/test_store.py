"""Store: migrations in order and unchanged, one process at a time, never opened by an import."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder import migrations, store_lock
from hft_platform.recorder.migrations import Migration, load_migrations, migrate
from hft_platform.recorder.store import Store, open_store

HOLDER = """
import sys
from pathlib import Path
from hft_platform.recorder import store_lock
with store_lock.held(Path(sys.argv[1]), what="it", wait_s=5):
    print("held", flush=True)
    sys.stdin.read()
"""


def _holder(lock: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def _let_go(holder: subprocess.Popen[str]) -> None:
    holder.communicate(timeout=30)


def test_a_second_process_waits_its_bound_and_reads_who_holds_the_store(tmp_path: Path) -> None:
    holder = _holder(tmp_path / "store.lock")
    waited_for: list[store_lock.Holder] = []
    try:
        with (
            pytest.raises(PlatformError) as refused,
            open_store(tmp_path, wait_s=0.2, on_wait=waited_for.append),
        ):
            pass
    finally:
        _let_go(holder)
    assert refused.value.code == ReasonCode.STORE_BUSY
    assert f"process {holder.pid} (" in refused.value.message
    assert [held.pid for held in waited_for] == [holder.pid]
    assert not (tmp_path / "store").exists(), "nothing was opened"


def test_a_lock_is_taken_when_its_holder_lets_go_or_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "store.lock"
    holder = _holder(lock)
    with store_lock.held(lock, what="it", wait_s=30, on_wait=lambda _: _let_go(holder)):
        inode = lock.stat().st_ino
    killed = _holder(lock)
    killed.kill()
    killed.communicate(timeout=30)
    with store_lock.held(lock, what="it", wait_s=5):
        assert lock.stat().st_ino == inode, "the lock file is never replaced"


def test_importing_the_recorder_imports_no_engine() -> None:
    code = (
        "import sys, hft_platform.recorder.loader, hft_platform.recorder.store;"
        "sys.exit(any(name in sys.modules for name in ('chdb', 'clickhouse_connect')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_migrations_are_applied_once_and_again_on_opening_change_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        first_id = store.store_id
        applied = store.rows("SELECT version, sha256 FROM hft.schema_migrations ORDER BY version")
        assert applied == [(m.version, m.sha256) for m in load_migrations()]
    with open_store(tmp_path) as store:
        assert migrate(store, load_migrations()) == []
        assert store.store_id == first_id
        assert store.rows("SELECT count() FROM hft.schema_migrations") == [(len(applied),)]


def test_a_changed_removed_or_late_migration_is_refused_and_nothing_is_applied(
    tmp_path: Path,
) -> None:
    wanted = load_migrations()
    edited = dataclasses.replace(wanted[1], sql=wanted[1].sql + "\n-- one more word\n")
    late = Migration(0, "0000_late.sql", "CREATE TABLE hft.late (a UInt8) ENGINE = Memory;")
    with open_store(tmp_path) as store:
        for files in ([wanted[0], edited, *wanted[2:]], wanted[1:], [late, *wanted]):
            with pytest.raises(PlatformError) as refused:
                migrate(store, files)
            assert refused.value.code == ReasonCode.MIGRATION_CHANGED
        assert store.rows("EXISTS TABLE hft.late") == [(0,)]


def test_an_operator_s_migration_is_applied_after_ours_and_is_missed_when_it_is_gone(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "config" / "clickhouse"
    folder.mkdir(parents=True)
    (folder / "0900_notes.sql").write_text(
        "-- a semicolon; in a comment\n"
        "CREATE TABLE IF NOT EXISTS hft.notes (note String DEFAULT ';')\n"
        "ENGINE = MergeTree ORDER BY note;\n"
        "INSERT INTO hft.notes VALUES ('a;b');\n"
    )
    with open_store(tmp_path, config_dir=tmp_path / "config") as store:
        assert store.rows("SELECT note FROM hft.notes") == [("a;b",)]
    with pytest.raises(PlatformError) as refused, open_store(tmp_path):
        pass
    assert refused.value.code == ReasonCode.MIGRATION_CHANGED
    assert "0900_notes.sql" in refused.value.message


def test_a_crash_inside_a_migration_is_healed_by_the_next_opening(tmp_path: Path) -> None:
    wanted = load_migrations()
    broken = Migration(901, "0901_x.sql", "CREATE TABLE IF NOT EXISTS hft.x (a UInt8) "
                       "ENGINE = Memory;\nSELECT no_such_thing;\n")  # fmt: skip
    whole = dataclasses.replace(broken, sql=broken.sql.replace("no_such_thing", "1"))
    with open_store(tmp_path) as store:
        with pytest.raises(PlatformError) as failed:
            migrate(store, [*wanted, broken])
        assert failed.value.code == ReasonCode.STORE_REFUSED
        assert migrate(store, [*wanted, whole]) == [whole]


@pytest.mark.parametrize("name", ["7_x.sql", "0007-x.sql", "0001_twice.sql", "0007_empty.sql"])
def test_a_misnamed_doubled_or_empty_migration_file_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "clickhouse"
    folder.mkdir()
    (folder / name).write_text("" if "empty" in name else "SELECT 1;\n")
    with pytest.raises(PlatformError) as refused:
        load_migrations(tmp_path)
    assert refused.value.code == ReasonCode.SETTINGS_INVALID
    assert migrations.load_migrations(tmp_path / "nowhere")


def test_a_store_that_cannot_be_reached_is_a_typed_error_without_the_password(
    tmp_path: Path,
) -> None:
    with (
        pytest.raises(PlatformError) as failed,
        open_store(tmp_path, dsn="clickhouse://someone:hunter2@127.0.0.1:1/hft", wait_s=0.2),
    ):
        pass
    assert failed.value.code == ReasonCode.STORE_UNREACHABLE
    assert "hunter2" not in failed.value.message


def test_a_bug_of_ours_is_not_dressed_up_as_a_failing_store() -> None:
    class Client:
        def query(self, _sql: str, *, parameters: object) -> object:
            raise TypeError("a bug")

    with pytest.raises(TypeError):
        Store(Client(), dsn="none").rows("SELECT 1")
