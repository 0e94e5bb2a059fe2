"""The store on a server that stalls, loses replies and goes away."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from hft_platform.breaker import State
from hft_platform.drills.chdb_server import ServerProcess
from hft_platform.drills.sample_session import write_session
from hft_platform.drills.server_faults import Fault
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder import native
from hft_platform.recorder.store import POLICY, Store, open_store
from hft_platform.services.wal_load import load_once
from research.loop import load_wal

HASTY = dataclasses.replace(
    POLICY, connect_timeout_s=1.0, request_timeout_s=0.3, attempts_max=3, breaker_failures_max=9,
    breaker_open_s=0.2, backoff_first_s=0.01,
)  # fmt: skip
ONE_ATTEMPT = dataclasses.replace(HASTY, attempts_max=1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for the module, its schema made."""
    folder = tmp_path_factory.mktemp("server")
    with ServerProcess(folder / "store") as process:
        with open_store(folder, dsn=process.dsn) as store:
            store.command(
                "CREATE TABLE hft.numbers (a UInt64) ENGINE = MergeTree ORDER BY a"
                " SETTINGS non_replicated_deduplication_window = 100"
            )
        yield process


@pytest.fixture(autouse=True)
def _works_again(server: ServerProcess) -> Iterator[None]:
    yield
    server.set_faults()
    server.refuse(False)


def _opened(server: ServerProcess, policy: object = HASTY) -> AbstractContextManager[Store]:
    return open_store(server.path.parent, dsn=server.dsn, policy=policy)  # type: ignore[arg-type]


def _insert(store: Store, values: list[int], token: str) -> None:
    block = native.encode_block([native.fixed("a", "UInt64", np.array(values, dtype="<u8"))])
    store.insert_native("hft.numbers", ["a"], block, token=token)


def _count(store: Store, low: int) -> int:
    where = "SELECT count() FROM hft.numbers WHERE a BETWEEN {low:UInt64} AND {low:UInt64} + 999"
    return int(store.rows(where, {"low": low})[0][0])


def _inserts(server: ServerProcess) -> int:
    return int(server.state()["counts"]["statements_insert"])


def test_an_insert_is_one_request_with_nothing_before_it(server: ServerProcess) -> None:
    with _opened(server) as store:
        before = server.state()["counts"]
        _insert(store, [1000, 1001], "one request")
        after = server.state()["counts"]
        changed = {name: after[name] - before.get(name, 0) for name in after}
        assert {name: count for name, count in changed.items() if count} == {
            "statements_insert": 1, "applied_insert": 1,
        }  # fmt: skip


@pytest.mark.parametrize("kind", ["drop_reply", "drop_before"])
def test_an_insert_without_an_answer_is_sent_again_and_is_there_once(
    server: ServerProcess, kind: str
) -> None:
    low = {"drop_reply": 2000, "drop_before": 3000}[kind]
    with _opened(server) as store:
        server.set_faults(Fault(kind, times=2))
        before = _inserts(server)
        _insert(store, [low, low + 1], kind)
        assert _inserts(server) == before + 3
        assert _count(store, low) == 2
        assert (store.counts["store_ambiguous"], store.counts["sent_again"]) == (2, 2)


def test_with_no_attempt_left_the_code_says_that_the_outcome_is_not_known(
    server: ServerProcess,
) -> None:
    with _opened(server, ONE_ATTEMPT) as store:
        server.set_faults(Fault("drop_reply"))
        with pytest.raises(PlatformError) as unknown:
            _insert(store, [4000], "unknown")
        assert unknown.value.code == ReasonCode.STORE_AMBIGUOUS
        assert _count(store, 4000) == 1


def test_an_outcome_stays_unknown_when_the_server_is_gone_at_the_next_attempt(
    server: ServerProcess,
) -> None:
    """It was called unreachable, as if nothing had been sent; the rows were in."""
    with _opened(server) as store:
        server.set_faults(Fault("drop_reply"), Fault("refuse", skip=1))
        with pytest.raises(PlatformError) as unknown:
            _insert(store, [9000], "gone")
        assert unknown.value.code == ReasonCode.STORE_AMBIGUOUS
        assert unknown.value.facts["last_code"] == ReasonCode.STORE_UNREACHABLE
        server.set_faults()
        server.refuse(False)
        assert _count(store, 9000) == 1


def test_a_statement_without_a_token_is_never_sent_again_once_it_was_sent(
    server: ServerProcess,
) -> None:
    # Patient: on a loaded machine the server is refused longer than three hasty attempts take.
    patient = dataclasses.replace(HASTY, attempts_max=40, breaker_failures_max=99)
    with _opened(server, patient) as store:
        for kind in ("drop_reply", "drop_before", "stall_after"):
            server.set_faults(Fault(kind, times=5, seconds=0.5))
            before = _inserts(server)
            with pytest.raises(PlatformError) as unknown:
                store.command("INSERT INTO hft.numbers SELECT 5000")
            assert unknown.value.code == ReasonCode.STORE_AMBIGUOUS
            assert _inserts(server) == before + 1, kind
        server.set_faults()
        server.refuse(True)
        back = threading.Timer(0.02, server.refuse, (False,))
        back.start()
        store.command("INSERT INTO hft.numbers SELECT 5001")  # never arrived, so it is sent again
        back.join()
        assert store.counts["store_unreachable"] >= 1


def test_an_overloaded_server_is_asked_again_and_one_that_refuses_is_not(
    server: ServerProcess,
) -> None:
    with _opened(server) as store:
        server.set_faults(Fault("error", times=2))
        _insert(store, [6000], "overloaded")
        assert _count(store, 6000) == 1
        assert store.counts["store_overloaded"] == 2
        before = store.counts["sent"]
        for _ in range(HASTY.breaker_failures_max + 1):
            with pytest.raises(PlatformError) as refused:
                store.rows("SELECT nope")
            assert refused.value.code == ReasonCode.STORE_REFUSED
            assert refused.value.facts["engine_code"] == 47
        assert store.counts["sent"] == before + HASTY.breaker_failures_max + 1
        assert store.breaker.state is State.CLOSED, "an answer is an answer"


def test_a_stalled_server_opens_the_breaker_and_is_left_alone_until_it_may_be_asked(
    server: ServerProcess,
) -> None:
    policy = dataclasses.replace(HASTY, breaker_failures_max=3, breaker_open_s=1.0)
    with _opened(server, policy) as store:
        server.set_faults(Fault("stall_before", "select", times=0, seconds=0.6))
        started = time.monotonic()
        with pytest.raises(PlatformError) as late:
            store.rows("SELECT 1")
        assert late.value.code == ReasonCode.STORE_TIMEOUT
        assert late.value.facts["attempts"] == 3
        assert time.monotonic() - started < 3.0
        server.set_faults()
        before = server.state()["counts"]["statements_select"]
        with pytest.raises(PlatformError) as left_alone:
            store.rows("SELECT 2")
        assert left_alone.value.code == ReasonCode.STORE_BREAKER_OPEN
        assert 0.0 < left_alone.value.facts["wait_s"] <= 1.0
        assert "STORE_TIMEOUT" in left_alone.value.message
        assert server.state()["counts"]["statements_select"] == before, "it was not asked"
        time.sleep(left_alone.value.facts["wait_s"])
        assert store.rows("SELECT 3") == [(3,)]
        assert store.stats()["breaker"] == "closed"


def test_an_insert_that_outlived_its_timeout_is_there_once(server: ServerProcess) -> None:
    with _opened(server) as store:
        server.set_faults(Fault("stall_before", seconds=0.5), Fault("stall_after", seconds=0.5))
        _insert(store, [7000, 7001], "outlived")
        assert _count(store, 7000) == 2


def test_a_frozen_server_is_a_timeout_and_goes_on_where_it_was(server: ServerProcess) -> None:
    with _opened(server, ONE_ATTEMPT) as store:
        server.pause()
        try:
            with pytest.raises(PlatformError) as late:
                store.rows("SELECT 1")
        finally:
            server.go_on()
        assert late.value.code == ReasonCode.STORE_TIMEOUT
        assert store.rows("SELECT 1") == [(1,)]


def test_opening_waits_for_a_server_and_says_so_in_the_end(server: ServerProcess) -> None:
    server.refuse(True)
    with pytest.raises(PlatformError) as away:
        _opened_within(server, 0.1)
    assert away.value.code == ReasonCode.STORE_UNREACHABLE
    back = threading.Timer(0.3, server.refuse, (False,))
    back.start()
    _opened_within(server, 30.0)
    back.join()


def _opened_within(server: ServerProcess, wait_s: float) -> None:
    with open_store(server.path.parent, dsn=server.dsn, policy=HASTY, wait_s=wait_s):
        pass


def test_what_needs_several_clients_is_refused_on_an_embedded_store(
    server: ServerProcess, tmp_path: Path
) -> None:
    with _opened(server) as shared:
        assert shared.supports_many_clients
        shared.require_many_clients("recorder mode direct")
    embedded = Store(None, dsn="chdb:///x")
    assert not embedded.supports_many_clients
    with pytest.raises(PlatformError) as refused:
        embedded.require_many_clients("recorder mode direct")
    assert refused.value.code == ReasonCode.STORE_NEEDS_SERVER
    assert "recorder mode direct" in refused.value.message


def test_two_clients_use_a_server_at_once_and_agree_on_what_it_is(server: ServerProcess) -> None:
    with _opened(server) as one, _opened(server) as two:
        assert one.store_id == two.store_id
        _insert(one, [8000], "the same")
        _insert(two, [8000], "the same")
        assert _count(two, 8000) == 1


def test_commands_and_assets_use_the_store_of_the_settings(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    appended = write_session(tmp_path, "by-settings", records_count=100, seed=1)
    monkeypatch.setenv("HFT_STORE__DSN", server.dsn)
    report = load_once(tmp_path)
    assert report.rows[0]["rows_inserted"] == appended.record_count
    again = load_wal(tmp_path)
    assert again["load"]["rows_inserted"] == 0
    assert again["rows_by_table"]["hft.market_books"] >= 100
    assert not (tmp_path / "store").exists(), "nothing embedded was made"
