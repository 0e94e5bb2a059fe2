"""A log in the store while it grows: about a second behind, once each, whoever dies in between."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from hft_platform import _core
from hft_platform.drills.server_faults import Fault
from hft_platform.drills.server_process import ServerProcess
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder import columns, direct_ranges
from hft_platform.recorder.direct_ranges import FollowedElsewhereError, RangeWriter
from hft_platform.recorder.direct_writer import (
    DirectStatus,
    DirectWriter,
    Stop,
    follow,
    read_status,
)
from hft_platform.recorder.loader import dead_letter_folder, load_sealed
from hft_platform.recorder.recorder_mode import RecorderMode, require_server
from hft_platform.recorder.session_records import session_tape
from hft_platform.recorder.store import Store, open_store
from tests.hft_platform.recorder.conftest import market_tape, order_tape

# Kills its own process around the n-th insert into a table of a given prefix: when the BEFORE is
# written and nothing was sent, or when the rows are in and the AFTER is missing.
CHILD = """
import os, signal, sys
from pathlib import Path
from hft_platform.recorder.direct_writer import DirectStatus, DirectWriter
from hft_platform.recorder.store import Store, open_store

ws, dsn, moment, prefix, n = Path(sys.argv[1]), *sys.argv[2:5], int(sys.argv[5])
insert, count = Store.insert_native, 0

def dying(self, table, *arguments, **keywords):
    global count
    count += table.startswith(prefix)
    last = count == n and table.startswith(prefix)
    if last and moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    insert(self, table, *arguments, **keywords)
    if last and moment == "after":
        os.kill(os.getpid(), signal.SIGKILL)

with open_store(ws, dsn=dsn) as store, DirectWriter(ws, store, status=DirectStatus()) as writer:
    Store.insert_native = dying
    while True:
        writer.step()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for the module; every test has a workspace and a run of its own."""
    with ServerProcess(tmp_path_factory.mktemp("server") / "store") as process:
        yield process


@pytest.fixture
def store(server: ServerProcess, tmp_path: Path) -> Iterator[Store]:
    """The server, without faults."""
    server.set_faults()
    with open_store(tmp_path, dsn=server.dsn) as opened:
        yield opened


class Session:
    """A market log that the test writes, record by record."""

    def __init__(self, ws: Path, run_id: str, tape: bytes, *, segment_bytes: int = 1 << 20) -> None:
        self.ws, self.run_id = ws, run_id
        self.folder = ws / "sessions" / run_id / "market"
        self.folder.mkdir(parents=True)
        ends = [0]
        while ends[-1] < len(tape):
            ends.append(ends[-1] + int.from_bytes(tape[ends[-1] : ends[-1] + 2], "little"))
        self._tape, self._ends = tape, ends
        self.count = len(ends) - 1
        self.written = 0
        self.writer = _core.WalWriter(
            self.folder, 7, "market", segment_bytes=segment_bytes, group_commit_ms=0
        )

    def write(self, count: int) -> None:
        """Append records and make them durable."""
        end = min(self.count, self.written + count)
        self.writer.append(self._tape[self._ends[self.written] : self._ends[end]])
        self.writer.sync()
        self.written = end

    @property
    def tape(self) -> bytes:
        """What was written."""
        return self._tape[: self._ends[self.written]]

    def rows(self, store: Store) -> tuple[int, int]:
        """Rows in the store, and how many of them are different."""
        found = [
            store.rows(
                f"SELECT count(), uniqExact(log_kind, seq) FROM {table}"
                " WHERE run_id = {run:String}",
                {"run": self.run_id},
            )[0]
            for table in columns.TABLES.values()
        ]
        return sum(int(row[0]) for row in found), sum(int(row[1]) for row in found)


def bars_agree(store: Store, run_id: str) -> bool:
    """The view holds every print once."""
    in_view, in_table = store.rows(
        "SELECT (SELECT sum(trade_count) FROM hft.bars_1m WHERE run_id = {run:String}),"
        " (SELECT countIf(bitAnd(flags, 1) = 0) FROM hft.market_trades"
        " WHERE run_id = {run:String})",
        {"run": run_id},
    )[0]
    return bool(in_view == in_table and in_table > 0)


def writer_of(session: Session, store: Store) -> DirectWriter:
    """A direct writer that follows one session in this process."""
    return DirectWriter(session.ws, store, status=DirectStatus(), run_id=session.run_id)


def wait_until(what: str, holds: Callable[[], bool], *, wait_s: float = 20.0) -> None:
    """Poll a condition with a deadline that says what it waited for."""
    deadline = time.monotonic() + wait_s
    while not holds():
        assert time.monotonic() < deadline, f"waited {wait_s} s until {what}"
        time.sleep(0.01)


def steps(writer: DirectWriter, until: Callable[[], bool]) -> None:
    """Step a writer until something holds."""
    deadline = time.monotonic() + 20.0
    while not until():
        writer.step()
        assert time.monotonic() < deadline, writer.status
        time.sleep(0.02)


def opener(ws: Path, server: ServerProcess) -> Callable[[], AbstractContextManager[Store]]:
    """What `follow` opens again and again."""
    return lambda: open_store(ws, dsn=server.dsn, wait_s=0.3)


def test_durable_records_are_in_the_store_while_their_segment_grows(
    store: Store, tmp_path: Path
) -> None:
    session = Session(tmp_path, "grows", market_tape(3_000))
    with writer_of(session, store) as writer:
        for count in (1, 400, 1_000):
            session.write(count)
            steps(writer, lambda: session.rows(store)[0] == session.written)
        assert list(session.folder.glob("*.seg")) == [], "it is still open"
        session.write(session.count)
        session.writer.seal()
        steps(writer, lambda: not writer.waiting())
        assert writer.status.segments_loaded == len(list(session.folder.glob("*.seg"))) >= 1
    assert session.rows(store) == (session.count, session.count)
    assert session_tape(store, "grows", "market") == session.tape
    assert bars_agree(store, "grows")
    assert load_sealed(tmp_path, store).rows_inserted == 0, "the loader knows them as loaded"


@pytest.mark.parametrize(
    ("moment", "table", "n"),
    [
        ("before", "hft.market_books", 1),  # a BEFORE, nothing sent
        ("before", "hft.timers", 1),  # two of three tables sent
        ("after", "hft.market_trades", 2),  # rows and view are in, the rest is not
        ("after", "hft.timers", 2),  # everything sent, no AFTER
    ],
)
def test_a_direct_writer_killed_anywhere_leaves_a_range_that_is_settled_once(
    server: ServerProcess, store: Store, tmp_path: Path, moment: str, table: str, n: int
) -> None:
    run_id = f"killed-{moment}-{table[4:]}-{n}"
    session = Session(tmp_path, run_id, market_tape(2_400), segment_bytes=4 << 20)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path), server.dsn, moment, table, str(n)],
        stderr=subprocess.PIPE,
    )
    while child.poll() is None and session.written < session.count:
        session.write(120)
        time.sleep(0.1)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL, errors.decode()
    with direct_ranges.held(
        tmp_path, run_id, "market", store_id=store.store_id, is_made=False
    ) as journal:
        assert journal is not None
        assert [known.is_done for known in journal.ranges(1)].count(False) == 1, "one in doubt"
    with writer_of(session, store) as writer:
        session.write(session.count)
        session.writer.seal()
        steps(writer, lambda: not writer.waiting())
    assert session.rows(store) == (session.count, session.count)
    assert session_tape(store, run_id, "market") == session.tape
    assert bars_agree(store, run_id)


def test_the_loader_completes_what_a_direct_writer_began(
    server: ServerProcess, store: Store, tmp_path: Path
) -> None:
    session = Session(tmp_path, "handed-over", market_tape(3_000), segment_bytes=8 << 20)
    with writer_of(session, store) as writer:
        session.write(700)
        steps(writer, lambda: session.rows(store)[0] > 0)
        written = session.rows(store)[0]
        session.write(session.count)
        session.writer.seal()
        # A loader that comes while the log is followed leaves it alone.
        assert load_sealed(tmp_path, store).left_to_others == ["handed-over/market/1"]
        assert session.rows(store)[0] == written
    report = load_sealed(tmp_path, store)
    assert report.problems == []
    assert report.segments_loaded == 1
    assert report.rows_inserted == session.count - written
    assert session.rows(store) == (session.count, session.count)
    assert session_tape(store, "handed-over", "market") == session.tape
    assert bars_agree(store, "handed-over")
    chunks = store.rows(
        "SELECT sum(row_count), count() = uniqExact(token) FROM hft.ingest_chunks FINAL"
        " WHERE run_id = 'handed-over'"
    )[0]
    assert (int(chunks[0]), int(chunks[1])) == (session.count, 1)


def test_a_sealed_segment_that_nobody_began_is_the_loaders_alone(
    store: Store, tmp_path: Path
) -> None:
    session = Session(tmp_path, "after-an-outage", market_tape(2_000), segment_bytes=256 << 10)
    session.write(session.count - 1)
    assert len(list(session.folder.glob("*.seg"))) > 1
    with writer_of(session, store) as writer:
        steps(writer, lambda: session.rows(store)[0] == session.count - 1)
        with direct_ranges.held(
            tmp_path, "nobody", "market", store_id=store.store_id, is_made=False
        ) as journal:
            assert journal is None
        session.write(1)
        session.writer.seal()
        steps(writer, lambda: not writer.waiting())
    path = direct_ranges.journal_path(tmp_path, "after-an-outage", "market")
    begun = {
        json.loads(line.partition(b" ")[2])["segment_id"]
        for line in path.read_bytes().splitlines()
        if b'"before"' in line
    }
    assert begun == {len(list(session.folder.glob("*.seg")))}, "only the one that was open"
    assert session_tape(store, "after-an-outage", "market") == session.tape
    assert session.rows(store) == (session.count, session.count)


def test_a_range_in_doubt_is_resolved_by_counting_and_this_test_can_fail(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: a retry under another token, without counting, doubles the rows."""
    for run_id, is_broken in (("sound", False), ("broken", True)):
        session = Session(tmp_path, run_id, market_tape(600), segment_bytes=4 << 20)
        session.write(500)

        def lose_after(_journal: Any, _done: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, writer_of(session, store) as writer:
            patch.setattr(direct_ranges.RangeJournal, "finish", lose_after)
            with pytest.raises(KeyboardInterrupt):
                writer.step()
        assert session.rows(store) == (500, 500)
        with monkeypatch.context() as patch, writer_of(session, store) as writer:
            if is_broken:
                patch.setattr(RangeWriter, "_token", lambda *_: "another token")
                patch.setattr(
                    RangeWriter, "_stored", lambda *_: direct_ranges.Digest(0, 0, 0, 0, 0)
                )
            writer.step()
        assert session.rows(store) == ((1_000, 500) if is_broken else (500, 500))
        session.writer.close()


def test_a_log_that_is_not_what_was_sent_is_refused(store: Store, tmp_path: Path) -> None:
    session = Session(tmp_path, "exchanged", market_tape(800), segment_bytes=4 << 20)
    session.write(500)
    with writer_of(session, store) as writer:
        writer.step()
    assert session.rows(store)[0] == 500
    session.writer.close()
    (session.folder / "00000001.open").unlink()
    for name in ("manifest.log", "watermark"):
        (session.folder / name).unlink(missing_ok=True)
    other = market_tape(800, seed=9)
    with _core.WalWriter(session.folder, 7, "market", segment_bytes=4 << 20) as log:
        log.append(other)
    report = load_sealed(tmp_path, store)
    assert [row["code"] for row in report.refused] == [ReasonCode.SEGMENT_CHANGED]
    assert session.rows(store) == (500, 500)
    assert len(list(dead_letter_folder(tmp_path).iterdir())) == 1


def test_a_part_that_a_killed_server_acknowledged_and_lost_is_put_back(
    store: Store, tmp_path: Path
) -> None:
    session = Session(tmp_path, "put-back", market_tape(900), segment_bytes=4 << 20)
    with writer_of(session, store) as writer:
        session.write(500)
        writer.step()
    # The token stays behind, as after a kill between token and part; the view keeps its rows.
    store.command(
        "ALTER TABLE hft.market_trades DELETE WHERE run_id = 'put-back' SETTINGS mutations_sync = 2"
    )
    session.write(session.count)
    session.writer.seal()
    report = load_sealed(tmp_path, store)
    assert report.problems == []
    assert session.rows(store) == (session.count, session.count)
    assert session_tape(store, "put-back", "market") == session.tape
    assert bars_agree(store, "put-back")


def test_a_lost_journal_is_found_out_before_a_row_is_doubled(store: Store, tmp_path: Path) -> None:
    session = Session(tmp_path, "forgotten", market_tape(600), segment_bytes=4 << 20)
    session.write(300)
    with writer_of(session, store) as writer:
        writer.step()
    direct_ranges.journal_path(tmp_path, "forgotten", "market").unlink()
    session.write(300)
    with writer_of(session, store) as writer:
        steps(writer, lambda: writer.status.last_error is not None)
        assert writer.status.last_error is not None
        assert writer.status.last_error["code"] == ReasonCode.LOAD_COUNT_MISMATCH
    assert session.rows(store) == (300, 300)
    session.writer.close()


@pytest.mark.parametrize("is_verified", [True, False])
def test_without_any_ledger_a_sealed_segment_is_found_in_the_store_not_sent_again(
    store: Store, tmp_path: Path, is_verified: bool
) -> None:
    """The rows came under the tokens of ranges; those of chunks are others."""
    run_id = f"no-ledger-{is_verified}"
    session = Session(tmp_path, run_id, market_tape(900), segment_bytes=4 << 20)
    with writer_of(session, store) as writer:
        session.write(session.count)
        steps(writer, lambda: session.rows(store)[0] == session.count)
        session.writer.seal()
        if is_verified:
            steps(writer, lambda: not writer.waiting())
    shutil.rmtree(tmp_path / "ledger")
    report = load_sealed(tmp_path, store)
    assert session.rows(store) == (session.count, session.count)
    assert bars_agree(store, run_id)
    assert (report.problems, report.segments_loaded, report.rows_inserted) == ([], 1, 0)


@pytest.mark.parametrize("is_verified", [True, False])
def test_a_journal_from_a_backup_doubles_nothing(
    store: Store, tmp_path: Path, is_verified: bool
) -> None:
    run_id = f"from-backup-{is_verified}"
    session = Session(tmp_path, run_id, market_tape(900), segment_bytes=4 << 20)
    journal = direct_ranges.journal_path(tmp_path, run_id, "market")
    with writer_of(session, store) as writer:
        session.write(300)
        writer.step()
        old = journal.read_bytes()
        for count in (300, session.count):
            session.write(count)
            steps(writer, lambda: session.rows(store)[0] == session.written)
        session.writer.seal()
        if is_verified:
            steps(writer, lambda: not writer.waiting())
    for path in (tmp_path / "ledger").glob("ingest-*.jsonl"):
        path.unlink()
    journal.write_bytes(old)
    report = load_sealed(tmp_path, store)
    assert session.rows(store) == (session.count, session.count)
    assert bars_agree(store, run_id)
    assert (report.problems, report.segments_loaded, report.rows_inserted) == ([], 1, 0)


def test_a_value_that_does_not_fit_stops_its_log_and_not_the_other(
    store: Store, tmp_path: Path
) -> None:
    tape = market_tape(600)
    session = Session(tmp_path, "too-large", tape)
    orders = tmp_path / "sessions" / "too-large" / "orders"
    orders.mkdir()
    bad = bytearray(tape[: session._ends[1]])
    offset = int(_price_offset(bad))
    bad[offset : offset + 8] = (1 << 62).to_bytes(8, "little")
    session.writer.append(bytes(bad))
    session.writer.sync()
    session.write(10)
    written = order_tape(100)
    with (
        _core.WalWriter(orders, 8, "orders", group_commit_ms=0) as log,
        writer_of(session, store) as writer,
    ):
        log.append_durable(written)
        steps(writer, lambda: session.rows(store)[0] >= 150)
        assert writer.status.last_error is not None
        assert writer.status.last_error["code"] == ReasonCode.VALUE_OUT_OF_RANGE
    session.writer.close()


def _price_offset(record: bytearray) -> int:
    from hft_platform import records

    code = record[records.DTYPES["Timer"].fields["record_type"][1]]  # type: ignore[index]
    name = next(name for name, known in records.TYPE_CODES.items() if known == code)
    field = {"Book": "bid_price", "Trade": "price"}[name]
    return int(records.DTYPES[name].fields[field][1])  # type: ignore[index]


def test_a_journal_has_one_holder_and_only_its_last_line_may_be_torn(tmp_path: Path) -> None:
    def hold(store_id: str = "a") -> AbstractContextManager[direct_ranges.RangeJournal | None]:
        return direct_ranges.held(tmp_path, "run", "market", store_id=store_id, is_made=True)

    with hold() as journal:
        assert journal is not None
        journal.note_positions({"hft.market_books": 12})
        begun = journal.begin(1, 1, 10, sha256="c" * 64)
        journal.finish(begun)
        journal.begin(1, 11, 20, sha256="d" * 64)
        with pytest.raises(FollowedElsewhereError), hold():
            pytest.fail("two holders")
    path = direct_ranges.journal_path(tmp_path, "run", "market")
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'0badc0de {"event":"bef')
    with hold() as journal:
        assert journal is not None
        ranges = journal.ranges(1)
        assert [(r.first_seq, r.last_seq, r.is_done) for r in ranges] == [
            (1, 10, True),
            (11, 20, False),
        ]
        assert ranges[0].positions == {"hft.market_books": 12}
    assert path.read_bytes() == whole
    with hold("another store") as journal:
        assert journal is not None
        assert journal.ranges(1) == []
    lines = whole.splitlines(keepends=True)
    for damaged in (
        whole.replace(b'"last_seq":10', b'"last_seq":11'),
        b"".join(lines[:2] + lines[3:]),
        b"".join([lines[0], lines[2], lines[1], *lines[3:]]),
    ):
        path.write_bytes(damaged)
        with pytest.raises(PlatformError) as refused, hold():
            pytest.fail("damage was read")
        assert refused.value.code == ReasonCode.WAL_DAMAGED


def test_follow_outlives_its_store_and_catches_up_by_itself(
    server: ServerProcess, tmp_path: Path
) -> None:
    session = Session(tmp_path, "outlived", market_tape(6_000), segment_bytes=1 << 20)
    server.set_faults()
    server.refuse(True)
    stop, found = Stop(), {}

    def run() -> None:
        found["status"] = follow(tmp_path, opener(tmp_path, server), stop=stop)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        session.write(1_000)
        wait_until("the outage is seen", lambda: _said(tmp_path).state == "store_down")
        session.write(2_000)
        server.refuse(False)
        wait_until("it caught up", lambda: _said(tmp_path).rows_written == 3_000)
        # A reply that is lost after the rows are in.
        server.set_faults(Fault("drop_reply", table="hft.market_", times=2))
        while server.hits("drop_reply") < 2:
            session.write(100)
            time.sleep(0.1)
        server.set_faults()
        session.write(session.count)
        session.writer.seal()
    finally:
        server.refuse(False)
        stop.drain()
        thread.join(30)
    status = found["status"]
    assert (status.state, status.left) == ("ended", [])
    assert status.store_failures >= 1
    assert status.last_error["code"] == ReasonCode.STORE_UNREACHABLE
    with open_store(tmp_path, dsn=server.dsn) as store:
        assert session.rows(store) == (session.count, session.count)
        assert session_tape(store, "outlived", "market") == session.tape
        assert bars_agree(store, "outlived")


def test_follow_ends_with_what_trying_again_cannot_help(tmp_path: Path) -> None:
    def opened() -> AbstractContextManager[Store]:
        return open_store(tmp_path, dsn="ftp://127.0.0.1/store")

    with pytest.raises(PlatformError) as refused:
        follow(tmp_path, opened, stop=Stop())
    assert refused.value.code == ReasonCode.SETTINGS_INVALID
    assert _said(tmp_path).last_error is not None


def _said(ws: Path) -> DirectStatus:
    return read_status(ws) or DirectStatus()


def test_direct_on_an_embedded_store_is_refused() -> None:
    assert require_server("clickhouse://127.0.0.1:8123") == "clickhouse://127.0.0.1:8123"
    for dsn in (None, "chdb:///somewhere/store"):
        with pytest.raises(PlatformError) as refused:
            require_server(dsn)
        assert refused.value.code == ReasonCode.STORE_NEEDS_SERVER
    assert {mode.value for mode in RecorderMode} == {"wal_first", "direct"}
