"""The exporter: what a workspace's files say, and a real Prometheus that rings on it."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hft_platform import _core, cli, records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.execution.reconciliation_report import (
    FILE_NAME,
    Finding,
    FindingKind,
    ReconciliationReport,
)
from hft_platform.observability.exporter import Clocks, WorkspaceCollector, exposition, serve
from hft_platform.observability.metric_table import METRICS, SOURCES
from hft_platform.recorder.loader import load_sealed
from hft_platform.recorder.store import open_store
from hft_platform.services import latch
from tests.hft_platform.recorder.conftest import market_tape, order_tape, write_session

NOW_NS = 1_800_000_000_000_000_000
SECOND = 1_000_000_000
Sample = dict[tuple[str, ...], float]


class Watch:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now_ns = NOW_NS

    def clocks(self) -> Clocks:
        """As the exporter takes them."""
        return Clocks(now_ns=lambda: self.now_ns, monotonic=lambda: self.now_ns / 1e9)


def scrape(collector: WorkspaceCollector) -> dict[str, Sample]:
    """Metrics by name and label values."""
    return {
        sample.name: {
            tuple(other.labels.values()): other.value
            for other in family.samples
            if other.name == sample.name
        }
        for family in text_string_to_metric_families(exposition(collector))
        for sample in family.samples
    }


def age(folder: Path, seconds: float) -> None:
    """Let every sealed segment of a session have been sealed so long before `NOW_NS`."""
    for path in folder.rglob("*.seg"):
        at_ns = NOW_NS - int(seconds * SECOND)
        os.utime(path, ns=(at_ns, at_ns))


def sealed(folder: Path) -> list[Path]:
    """Sealed segments of a session."""
    return sorted(folder.rglob("*.seg"))


def test_every_metric_of_the_table_is_given_out_and_no_other(tmp_path: Path) -> None:
    text = exposition(WorkspaceCollector(tmp_path, pressure_level=lambda _: 0))
    typed = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert typed == {metric.name: metric.kind for metric in METRICS}


def test_the_exposition_passes_prometheus_s_own_check(tmp_path: Path) -> None:
    write_session(tmp_path, "s1", market=market_tape(200))
    text = exposition(WorkspaceCollector(tmp_path, pressure_level=lambda _: 0))
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_an_empty_workspace_has_nothing_to_do_and_every_source_is_read(tmp_path: Path) -> None:
    found = scrape(WorkspaceCollector(tmp_path))
    assert found["hft_metrics_source_ok"] == {(source,): 1.0 for source in SOURCES}
    assert found["hft_drain_eta_seconds"] == {(): 0.0}
    assert found["hft_halt_latched"] == {(): 0.0}
    assert found["hft_disk_free_bytes"][()] > 0


def test_backlog_lag_and_throughput_follow_sealing_and_loading(tmp_path: Path) -> None:
    first = write_session(
        tmp_path, "s1", market=market_tape(2_000), orders=order_tape(50), segment_bytes=1 << 16
    )
    second = write_session(tmp_path, "s2", market=market_tape(100, seed=3), wal_id=78)
    age(first, 500)
    age(second, 100)
    watch = Watch()
    collector = WorkspaceCollector(tmp_path, clocks=watch.clocks())
    market = [*sealed(first / "market"), *sealed(second / "market")]
    before = scrape(collector)
    assert before["hft_backlog_segments"] == {("market",): len(market), ("orders",): 1}
    assert before["hft_backlog_bytes"][("market",)] == sum(p.stat().st_size for p in market)
    assert before["hft_replay_lag_seconds"] == {(): 500.0}
    assert before["hft_drain_eta_seconds"] == {(): math.inf}
    with open_store(tmp_path) as store:
        load_sealed(tmp_path, store, session_dirs=[first])
        watch.now_ns += 10 * SECOND
        during = scrape(collector)
        assert during["hft_backlog_segments"] == {("market",): 1, ("orders",): 0}
        assert during["hft_replay_lag_seconds"] == {(): 110.0}
        rows = during["hft_loader_rows_total"][()]
        assert rows == sum(
            int(_core.read_segment(p)["info"]["record_count"]) for p in sealed(first)
        )
        load_sealed(tmp_path, store)
    done = scrape(collector)
    assert sum(done["hft_backlog_segments"].values()) == 0
    assert (done["hft_replay_lag_seconds"], done["hft_drain_eta_seconds"]) == ({(): 0}, {(): 0})
    assert done["hft_loader_segments_total"][()] == len(sealed(first)) + 1


def entry(path: Path, key: str, *, store: str = "a", rows: int = 3000, **more: Any) -> bytes:
    """A line of the ledger about a file."""
    status = path.stat()
    run_id, log_kind, segment_id = key.split("/")
    content = {
        "event": "loaded", "store": store, "run_id": run_id, "log_kind": log_kind,
        "segment_id": int(segment_id), "segment_sha256": "", "record_count": rows,
        "size": status.st_size, "mtime_ns": status.st_mtime_ns, **more,
    }  # fmt: skip
    return b"00000000 " + json.dumps(content).encode() + b"\n"


@pytest.fixture
def one(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A workspace with one sealed segment, the segment, and a ledger to be written."""
    session = write_session(tmp_path, "s1", market=market_tape(50))
    age(session, 60)
    (tmp_path / "ledger").mkdir()
    return tmp_path, sealed(session)[0], tmp_path / "ledger" / "ingest.jsonl"


def test_throughput_is_that_of_five_minutes_and_eta_what_is_left_at_it(
    one: tuple[Path, Path, Path],
) -> None:
    ws, segment, ledger = one
    size = segment.stat().st_size
    ledger.write_bytes(entry(segment, "gone/market/1", loaded_at_ns=NOW_NS - 200 * SECOND))
    watch = Watch()
    collector = WorkspaceCollector(ws, clocks=watch.clocks())
    found = scrape(collector)
    assert found["hft_loader_rows_per_second"] == {(): 10.0}
    # One segment was loaded in 300 s and one of its size is left.
    assert found["hft_drain_eta_seconds"][()] == pytest.approx(size / (size / 300))
    watch.now_ns += 101 * SECOND
    assert scrape(collector)["hft_loader_rows_per_second"] == {(): 0.0}


def test_old_entries_without_a_time_are_no_throughput_and_new_ones_are(
    one: tuple[Path, Path, Path],
) -> None:
    ws, segment, ledger = one
    ledger.write_bytes(entry(segment, "gone/market/1"))
    collector = WorkspaceCollector(ws, clocks=Watch().clocks())
    assert scrape(collector)["hft_loader_rows_per_second"] == {(): 0.0}
    with ledger.open("ab") as file:
        file.write(entry(segment, "gone/market/2"))
    assert scrape(collector)["hft_loader_rows_per_second"] == {(): 10.0}


def test_a_line_that_is_being_written_is_left_for_the_next_time(
    one: tuple[Path, Path, Path],
) -> None:
    ws, segment, ledger = one
    line = entry(segment, "s1/market/1")
    ledger.write_bytes(line[:-30])
    collector = WorkspaceCollector(ws)
    assert scrape(collector)["hft_backlog_segments"][("market",)] == 1
    ledger.write_bytes(line)
    assert scrape(collector)["hft_backlog_segments"][("market",)] == 0


def test_a_changed_file_and_a_new_store_are_backlog_again(one: tuple[Path, Path, Path]) -> None:
    ws, segment, ledger = one
    ledger.write_bytes(entry(segment, "s1/market/1"))
    collector = WorkspaceCollector(ws)
    assert scrape(collector)["hft_backlog_segments"][("market",)] == 0
    with ledger.open("ab") as file:
        file.write(entry(segment, "other/market/1", store="b"))
    assert scrape(collector)["hft_backlog_segments"][("market",)] == 1, "the store was made anew"
    with ledger.open("ab") as file:
        file.write(entry(segment, "s1/market/1", store="b"))
    assert scrape(collector)["hft_backlog_segments"][("market",)] == 0
    segment.write_bytes(segment.read_bytes() + b"x")
    assert scrape(collector)["hft_backlog_segments"][("market",)] == 1


def test_a_ledger_that_was_replaced_is_read_again(one: tuple[Path, Path, Path]) -> None:
    ws, segment, ledger = one
    ledger.write_bytes(entry(segment, "s1/market/1") * 3)
    collector = WorkspaceCollector(ws)
    assert scrape(collector)["hft_loader_segments_total"] == {(): 3.0}
    ledger.unlink()
    assert scrape(collector)["hft_backlog_segments"][("market",)] == 1
    ledger.write_bytes(entry(segment, "s1/market/1"))
    found = scrape(collector)
    assert found["hft_backlog_segments"][("market",)] == 0
    assert found["hft_loader_segments_total"] == {(): 1.0}


def test_a_source_that_cannot_be_read_is_missing_and_said(one: tuple[Path, Path, Path]) -> None:
    ws, segment, ledger = one
    ledger.write_bytes(entry(segment, "s1/market/1") + b"00000000 {not json}\n")
    (ws / "dead_letter").mkdir()
    (ws / "dead_letter" / "s1.json").write_text("{}")
    found = scrape(WorkspaceCollector(ws))
    missing = {source for (source,), value in found["hft_metrics_source_ok"].items() if not value}
    assert missing == {"ledger", "backlog", "dead_letter"}
    for metric in METRICS:
        if metric.source in missing:
            assert metric.name not in found
    assert found["hft_halt_latched"] == {(): 0.0}, "the others go on"


def test_dead_letters_are_counted_by_code(tmp_path: Path) -> None:
    (tmp_path / "dead_letter").mkdir()
    codes = [ReasonCode.WAL_DAMAGED, ReasonCode.WAL_DAMAGED, ReasonCode.SEGMENT_CHANGED]
    for number, code in enumerate(codes):
        path = tmp_path / "dead_letter" / f"s1-market-{number}.json"
        path.write_text(json.dumps({"code": int(code)}))
    found = scrape(WorkspaceCollector(tmp_path))
    assert found["hft_dead_letter_segments"] == {("WAL_DAMAGED",): 2.0, ("SEGMENT_CHANGED",): 1.0}


def test_a_halt_is_shown_with_its_code_and_a_damaged_latch_is_a_halt(tmp_path: Path) -> None:
    collector = WorkspaceCollector(tmp_path)
    latch.halt(tmp_path, who="a test", why="it", code=ReasonCode.WAL_WRITE_FAILED)
    found = scrape(collector)
    assert found["hft_halt_latched"] == {(): 1.0}
    assert found["hft_halt_reason_code"] == {(): float(ReasonCode.WAL_WRITE_FAILED)}
    latch.latch_path(tmp_path).write_text("not json")
    assert scrape(collector)["hft_halt_latched"] == {(): 1.0}


def test_findings_of_sessions_with_an_open_log_are_shown_and_fall_to_zero(tmp_path: Path) -> None:
    folder = tmp_path / "sessions" / "run"
    (folder / "orders").mkdir(parents=True)
    opened = folder / "orders" / "0.open"
    opened.touch()
    collector = WorkspaceCollector(tmp_path, clocks=Watch().clocks(), pressure_level=lambda _: 0)

    def written(*findings: Finding) -> dict[str, Sample]:
        report = ReconciliationReport(
            time_ns=NOW_NS - 7 * SECOND, phase="running", is_ready=True, reasons=(),
            findings=findings, left_out=0, resolutions=(), questions={},
            counters={"abandoned": 3},
        )  # fmt: skip
        report.write(folder)
        return scrape(collector)

    drift = Finding(FindingKind.POSITION_DRIFT, "TXFD6", NOW_NS, "text")
    found = written(drift, drift)
    assert found["hft_reconciliation_findings"] == {("POSITION_DRIFT", "run"): 2}
    assert found["hft_reconciliation_age_seconds"] == {("run",): 7}
    assert found["hft_reconciliation_actions_total"] == {("abandoned", "run"): 3}
    assert written()["hft_reconciliation_findings"] == {("POSITION_DRIFT", "run"): 0}
    (folder / FILE_NAME).write_bytes(b"{")
    assert scrape(collector)["hft_metrics_source_ok"][("reconciliation",)] == 0
    opened.unlink()
    assert "hft_reconciliation_age_seconds" not in scrape(collector), "nobody compares any more"


def test_a_live_process_is_shown_while_its_log_is_open(tmp_path: Path) -> None:
    folder = tmp_path / "sessions" / "run"
    (folder / "orders").mkdir(parents=True)
    opened = folder / "orders" / "0.open"
    opened.touch()
    collector = WorkspaceCollector(tmp_path, clocks=Watch().clocks(), pressure_level=lambda _: 0)
    took = {"count": 1, "p50_ns": 1, "p99_ns": 2, "p999_ns": 3, "max_ns": 4}
    status = {
        "written_ns": NOW_NS - 7 * SECOND, "is_connected": False, "is_ready": True,
        "is_restricted": False, "halted_by": 605, "open_orders": 3, "unknown_orders": 1,
        "latency": {"decide": took},
    }  # fmt: skip
    (folder / "status.json").write_text(json.dumps(status))
    found = scrape(collector)
    assert found["hft_live_status_age_seconds"] == {("run",): 7}
    assert found["hft_live_connected"] == {("run",): 0}
    assert found["hft_live_halt_reason_code"] == {("run",): 605}
    assert found["hft_live_unknown_orders"] == {("run",): 1}
    assert found["hft_live_latency_ns"] == {
        ("0.5", "run", "decide"): 1, ("0.99", "run", "decide"): 2, ("0.999", "run", "decide"): 3,
    }  # fmt: skip
    (folder / "status.json").write_text("{")
    assert scrape(collector)["hft_metrics_source_ok"][("live",)] == 0
    opened.unlink()
    found = scrape(collector)
    assert found["hft_metrics_source_ok"][("live",)] == 1
    assert "hft_live_connected" not in found, "it ended"


def test_shed_records_are_those_of_the_summaries(tmp_path: Path) -> None:
    collector = WorkspaceCollector(tmp_path)
    for name, evidence in (("s1", {"shed_count": 7}), ("s2", {"shed_count": 5}), ("s3", {})):
        (tmp_path / "sessions" / name).mkdir(parents=True)
        path = tmp_path / "sessions" / name / "summary.json"
        path.write_text(json.dumps({"evidence": evidence}))
    assert scrape(collector)["hft_shed_records"] == {(): 12.0}
    write_session(tmp_path, "s4", orders=order_tape(40))
    assert scrape(collector)["hft_shed_records"] == {(): 12.0}, "an order log without SHED records"


def words(log: Path, changes: dict[int, int]) -> None:
    """Set words of a log's watermark (docs/wal-format.md), as a writer in that state has them."""
    mark = bytearray((log / "watermark").read_bytes())
    for word, value in changes.items():
        mark[8 * word : 8 * word + 8] = value.to_bytes(8, "little")
    overwrite(log / "watermark", bytes(mark))


def overwrite(path: Path, content: bytes) -> None:
    """Write in place: a mapped file that shrinks, if only for a moment, kills its writer."""
    with path.open("r+b") as file:
        file.write(content)


@pytest.mark.parametrize(("kind", "tape"), [("market", market_tape), ("orders", order_tape)])
def test_an_open_log_shows_what_is_not_durable_and_a_sealed_one_nothing(
    tmp_path: Path, kind: str, tape: Callable[[int], bytes]
) -> None:
    folder = tmp_path / "sessions" / "s1" / kind
    folder.mkdir(parents=True)
    watch = Watch()
    collector = WorkspaceCollector(tmp_path, clocks=watch.clocks())
    with _core.WalWriter(folder, 5, kind, group_commit_ms=0) as writer:
        writer.append(tape(300))
        count = writer.sync()
        synced = scrape(collector)
        for name in ("hft_durable_lag_records", "hft_durable_lag_seconds", "hft_log_failed"):
            assert synced[name] == {(kind, "s1"): 0.0}
        # As it stands while a sync of 40 records takes a minute and a half.
        watch.now_ns = time.time_ns() + 90 * SECOND
        words(folder, {2: count + 40})
        behind = scrape(collector)
        assert behind["hft_durable_lag_records"] == {(kind, "s1"): 40.0}
        assert behind["hft_durable_lag_seconds"][(kind, "s1")] == pytest.approx(90.0, abs=20)
    done = scrape(collector)
    assert "hft_durable_lag_records" not in done
    assert done["hft_metrics_source_ok"] == {(source,): 1.0 for source in SOURCES}


WRITER = """
import sys, time
from hft_platform import _core
writer = _core.WalWriter(sys.argv[1], 5, "market", group_commit_ms=0)
writer.append(open(sys.argv[2], "rb").read())
writer.sync()
print("written", flush=True)
time.sleep(60)
"""


def test_a_log_whose_writer_was_killed_in_a_sync_stays_in_the_lag_until_it_is_recovered(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "sessions" / "s1" / "market"
    folder.mkdir(parents=True)
    (tmp_path / "tape").write_bytes(market_tape(300))
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(tmp_path / "tape")],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    process.kill()
    process.communicate(timeout=10)
    words(folder, {3: 0})
    watch = Watch()
    watch.now_ns = time.time_ns() + 90 * SECOND
    collector = WorkspaceCollector(tmp_path, clocks=watch.clocks())
    behind = scrape(collector)
    assert behind["hft_durable_lag_records"][("market", "s1")] > 300
    assert behind["hft_durable_lag_seconds"][("market", "s1")] > 89
    _core.recover_log(folder)
    assert "hft_durable_lag_records" not in scrape(collector)
    assert scrape(collector)["hft_backlog_segments"][("market",)] == 1


def test_a_writer_whose_sync_failed_is_shown_as_failed(tmp_path: Path) -> None:
    folder = tmp_path / "sessions" / "s1" / "orders"
    folder.mkdir(parents=True)
    writer = _core.WalWriter(folder, 5, "orders")
    writer.append_durable(order_tape(3))
    words(folder, {6: int(ReasonCode.WAL_WRITE_FAILED) | 2 << 16 | 4 << 32})
    assert scrape(WorkspaceCollector(tmp_path))["hft_log_failed"] == {("orders", "s1"): 1.0}
    writer.close()


def test_a_watermark_that_is_none_is_a_source_that_cannot_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "sessions" / "s1" / "market"
    folder.mkdir(parents=True)
    writer = _core.WalWriter(folder, 5, "market")
    overwrite(folder / "watermark", b"no watermark, but of the right size".ljust(64))
    found = scrape(WorkspaceCollector(tmp_path))
    assert found["hft_metrics_source_ok"][("watermark",)] == 0.0
    assert "hft_durable_lag_records" not in found
    writer.close()


def test_it_asks_no_store_and_takes_no_lock(one: tuple[Path, Path, Path]) -> None:
    ws, _, _ = one
    code = (
        "import sys, fcntl; from pathlib import Path\n"
        "def no(*_): raise AssertionError('locked')\n"
        "fcntl.flock = fcntl.lockf = no\n"
        "from hft_platform.observability.exporter import WorkspaceCollector, exposition\n"
        "text = exposition(WorkspaceCollector(Path(sys.argv[1])))\n"
        "assert 'source_ok{source=\"backlog\"} 1.0' in text\n"
        "sys.exit(any(name in sys.modules for name in ('chdb', 'clickhouse_connect')))\n"
    )
    before = {path: path.stat().st_mtime_ns for path in ws.rglob("*")}
    assert subprocess.run([sys.executable, "-c", code, str(ws)], check=False).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in ws.rglob("*")} == before, "nothing is written"


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "localhost", "everywhere"])
def test_an_address_that_others_can_reach_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(PlatformError) as refused:
        serve(WorkspaceCollector(tmp_path), port=0, address=address)
    assert refused.value.code == ReasonCode.SETTINGS_INVALID
    assert address in refused.value.message


def test_a_port_in_use_and_a_missing_workspace_are_refused_with_a_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, thread = serve(WorkspaceCollector(tmp_path), port=0)
    try:
        with pytest.raises(PlatformError) as refused:
            serve(WorkspaceCollector(tmp_path), port=server.server_port)
        assert refused.value.code == ReasonCode.SETTINGS_INVALID
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
    for port in ("70000", "-1"):
        assert cli.main(["metrics", "--port", port, "--workspace", str(tmp_path)]) == 3
        assert "SETTINGS_INVALID" in capsys.readouterr().err
    assert cli.main(["metrics", "--once", "--workspace", str(tmp_path / "none")]) == 3
    assert "CONFIG_NOT_FOUND" in capsys.readouterr().err


def test_once_prints_metrics_only_and_says_elsewhere_what_could_not_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "ingest.jsonl").write_text("00000000 {not json}\n")
    assert cli.main(["metrics", "--once", "--workspace", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    families = {family.name for family in text_string_to_metric_families(printed.out)}
    assert "hft_metrics_source_ok" in families
    assert "metrics_source_failed" in printed.err


def test_shed_records_of_a_session_that_still_runs_are_those_of_its_order_log(
    tmp_path: Path,
) -> None:
    rows = records.empty("Shed", 2)
    rows["count"], rows["input_seq"] = [30, 12], [1, 2]
    folder = tmp_path / "sessions" / "s1" / "orders"
    folder.mkdir(parents=True)
    collector = WorkspaceCollector(tmp_path)
    with _core.WalWriter(folder, 5, "orders", group_commit_ms=0) as writer:
        writer.append_durable(rows[:1].tobytes())
        assert scrape(collector)["hft_shed_records"] == {(): 30.0}
        writer.append_durable(rows[1:].tobytes())
        assert scrape(collector)["hft_shed_records"] == {(): 42.0}
    assert scrape(collector)["hft_shed_records"] == {(): 42.0}


# --- a real Prometheus ---


@contextmanager
def started(command: list[str], log: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of ours, ended at the end."""
    with log.open("w") as err:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate(timeout=10)


def listening(pid: int) -> list[tuple[str, int]]:
    """Addresses on which a process listens."""
    return [
        (connection.laddr.ip, connection.laddr.port)
        for connection in psutil.Process(pid).net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]


def wait_for(what: str, look: Callable[[], Any], deadline_s: float = 60.0) -> Any:
    """Ask until there is an answer; what was seen last is said otherwise."""
    end = time.monotonic() + deadline_s
    seen: Any = None
    while time.monotonic() < end:
        try:
            seen = look()
        except OSError as error:
            seen = repr(error)
        else:
            if seen:
                return seen
        time.sleep(0.1)
    raise AssertionError(f"waited {deadline_s:g} s for {what}; last seen: {seen}")


def test_a_real_prometheus_rings_on_a_halt_and_a_backlog_and_stops_when_they_end(
    tmp_path: Path, repository: Path
) -> None:
    ws = tmp_path / "ws"
    session = write_session(ws, "s1", market=market_tape(50))
    for path in session.rglob("*.seg"):
        os.utime(path, (time.time() - 7_200, time.time() - 7_200))
    latch.halt(ws, who="a test", why="to hear it ring")
    command = [
        sys.executable,
        "-c",
        "import sys; from hft_platform.cli import main; sys.exit(main())",
    ]
    exporter = [*command, "metrics", "--port", "0", "--workspace", str(ws)]
    with started(exporter, tmp_path / "exporter.log") as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        assert {address for address, _ in listening(process.pid)} == {"127.0.0.1"}
        target = url.removeprefix("http://").removesuffix("/metrics")
        shutil.copy(repository / "config" / "monitoring" / "alerts.yaml", tmp_path)
        config = (repository / "docker" / "prometheus" / "prometheus.yml").read_text()
        assert "127.0.0.1:9108" in config
        config = config.replace("127.0.0.1:9108", target).replace("interval: 15s", "interval: 1s")
        (tmp_path / "prometheus.yml").write_text(config)
        prometheus = [
            "prometheus", f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}", "--web.listen-address=127.0.0.1:0",
        ]  # fmt: skip
        with started(prometheus, tmp_path / "prometheus.log") as server:
            port = wait_for("Prometheus", lambda: listening(server.pid))[0][1]
            assert {address for address, _ in listening(server.pid)} == {"127.0.0.1"}

            def alerts() -> dict[str, dict[str, Any]]:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/api/v1/alerts", timeout=5
                ) as answer:
                    rows = json.load(answer)["data"]["alerts"]
                return {row["labels"]["alertname"]: row for row in rows}

            def rang() -> dict[str, dict[str, Any]] | None:
                # Before the first scrape the exporter counts as missing.
                found = alerts()
                is_there = {"HftTradingHalted", "HftReplayLagHigh"} <= set(found)
                return found if is_there and "HftExporterDown" not in found else None

            rung = wait_for("both alerts, and the exporter to be there", rang)
            assert rung["HftTradingHalted"]["state"] == "firing"
            assert rung["HftReplayLagHigh"]["state"] == "pending", "it has five minutes to go"
            assert "2h 0m" in rung["HftReplayLagHigh"]["annotations"]["summary"]
            token = latch.resume_token(ws)
            assert token is not None
            latch.resume(ws, token=token)
            wait_for("the halt to end", lambda: "HftTradingHalted" not in alerts())
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == -signal.SIGTERM
            down = wait_for("the exporter to be missed", lambda: alerts().get("HftExporterDown"))
            assert down["state"] == "pending", "it has a minute to go"
