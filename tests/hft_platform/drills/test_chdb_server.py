"""The drills' store server: the real client is answered, every fault does what it says."""

from __future__ import annotations

import gzip
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.compression import _zstd_compress
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from hft_platform.drills.chdb_server import HOST, ServerProcess
from hft_platform.drills.server_faults import Fault, FaultPlan
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder import native
from hft_platform.recorder.store import open_store

TABLE = (
    "CREATE TABLE IF NOT EXISTS t (a UInt64) ENGINE = MergeTree ORDER BY a"
    " SETTINGS non_replicated_deduplication_window = 100"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for the module; tests clear what they break."""
    with ServerProcess(tmp_path_factory.mktemp("server") / "store") as process:
        yield process


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Any]:
    """A fresh client, an empty table, a server without faults."""
    server.set_faults()
    opened = _client(server)
    opened.command("DROP TABLE IF EXISTS t SYNC")
    opened.command(TABLE)
    yield opened
    server.set_faults()
    opened.close()


def _client(server: ServerProcess, timeout: int = 30) -> Any:
    client = clickhouse_connect.get_client(
        dsn=server.dsn, dedicated_pool=True, query_retries=0, connect_timeout=2,
        send_receive_timeout=timeout, autogenerate_session_id=False,
    )  # fmt: skip
    client.http_retries = 0
    return client


def _block(*values: int) -> bytes:
    import numpy as np

    return native.encode_block([native.fixed("a", "UInt64", np.array(values, dtype="<u8"))])


def _insert(client: Any, *values: int, token: str | None = None, compression: str | None = None,
            pack: Any = bytes) -> None:  # fmt: skip
    settings = {"async_insert": 0}
    if token is not None:
        settings |= {"insert_deduplication_token": token}
    # A memoryview is sent as it is, and never a second time by the client itself.
    block = memoryview(pack(_block(*values)))
    client.raw_insert("t", ["a"], block, settings=settings, fmt="Native", compression=compression)


def _values(client: Any) -> list[int]:
    return [row[0] for row in client.query("SELECT a FROM t ORDER BY a").result_rows]


def test_the_client_s_own_inserts_and_queries_are_answered(client: Any) -> None:
    client.insert("t", [[1], [2]], column_names=["a"])
    client.raw_insert("t", ["a"], _block(3), fmt="Native")
    client.command("INSERT INTO t (a) VALUES (4)")
    client.command("INSERT INTO t SELECT 5")
    assert _values(client) == [1, 2, 3, 4, 5]
    many = {"a": [str(number) * 50 for number in range(200)]}
    assert client.query("SELECT length({a:Array(String)})", parameters=many).result_rows == [(200,)]
    assert client.query_arrow("SELECT a FROM t ORDER BY a").to_pydict() == {"a": [1, 2, 3, 4, 5]}
    assert client.query("SELECT a FROM t LIMIT 0").column_names == ("a",)


@pytest.mark.parametrize("encoding", [None, "lz4", "zstd", "gzip"])
def test_a_compressed_body_is_unpacked(client: Any, encoding: str | None) -> None:
    import lz4.frame

    pack = {None: bytes, "lz4": lz4.frame.compress, "zstd": _zstd_compress, "gzip": gzip.compress}
    _insert(client, 7, compression=encoding, pack=pack[encoding])
    assert _values(client) == [7]


def test_a_setting_stays_with_its_statement(client: Any) -> None:
    """A token set with SET leaked into the next insert, which was then dropped without a word."""
    _insert(client, 1, token="same")
    _insert(client, 2)
    client.command("INSERT INTO t (a) VALUES (3)")
    _insert(client, 9, token="same")
    assert _values(client) == [1, 2, 3]


def test_an_error_carries_the_engine_s_code(client: Any) -> None:
    with pytest.raises(DatabaseError) as failed:
        client.query("SELECT nope FROM t")
    assert (failed.value.code, failed.value.name) == (47, "UNKNOWN_IDENTIFIER")
    with pytest.raises(DatabaseError) as refused:
        client.command("DROP TABLE IF EXISTS t2", settings={"max_threads": 1})
    assert refused.value.code == 48, "a setting that could not be applied is not ignored"


def test_a_lost_reply_was_applied_and_a_lost_request_was_not(
    server: ServerProcess, client: Any
) -> None:
    server.set_faults(Fault("drop_reply"))
    with pytest.raises(OperationalError):
        _insert(client, 1, token="one")
    assert _values(client) == [1]
    _insert(client, 1, token="one")
    assert _values(client) == [1], "the same token adds nothing"
    server.set_faults(Fault("drop_before"))
    with pytest.raises(OperationalError):
        _insert(client, 2, token="two")
    assert _values(client) == [1]
    assert server.state()["hits"]["drop_reply"] == 1


def test_a_request_cut_in_the_middle_is_not_applied(server: ServerProcess, client: Any) -> None:
    cut = server.state()["counts"].get("requests_cut", 0)
    head = b"POST /?query=INSERT+INTO+t+(a)+FORMAT+Native HTTP/1.1\r\nContent-Length: 900\r\n\r\n"
    with socket.create_connection((HOST, server.port), timeout=5) as connection:
        connection.sendall(head + _block(1))
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert server.state()["counts"]["requests_cut"] == cut + 1
    assert _values(client) == []


def test_a_stalled_server_runs_into_the_client_s_timeout_and_still_applies(
    server: ServerProcess, client: Any
) -> None:
    server.set_faults(Fault("stall_before", seconds=1.2))
    hasty = _client(server, timeout=1)
    with pytest.raises(OperationalError, match="timed out"):
        _insert(hasty, 1, token="one")
    hasty.close()
    server.set_faults(Fault("slow", factor=1.5))
    _insert(client, 1, token="one")
    _insert(client, 2, token="two")
    assert _values(client) == [1, 2]


def test_an_error_on_demand_is_answered_without_applying(
    server: ServerProcess, client: Any
) -> None:
    server.set_faults(Fault("error", skip=1), Fault("error", statement="other", code=0, status=502))
    _insert(client, 1, token="one")
    with pytest.raises(DatabaseError) as too_many:
        _insert(client, 2, token="two")
    assert too_many.value.code == 252
    with pytest.raises(DatabaseError) as proxy:
        client.command("EXISTS TABLE t")
    assert proxy.value.code is None
    _insert(client, 3, token="three")
    assert _values(client) == [1, 3]


def test_a_server_that_refuses_is_back_on_the_same_port(server: ServerProcess, client: Any) -> None:
    port = server.port
    server.refuse(True)
    with pytest.raises(OperationalError):
        client.query("SELECT 1")
    server.refuse(False)
    assert server.port == port
    assert client.query("SELECT 1").result_rows == [(1,)]


@pytest.mark.parametrize("moment", ["kill_before", "kill_inside", "kill_after"])
def test_a_server_killed_around_an_insert_has_it_or_not_and_starts_again(
    server: ServerProcess, client: Any, moment: str
) -> None:
    _insert(client, 1, token="one")
    server.set_faults(Fault(moment, seconds=0.0005))
    with pytest.raises(OperationalError):
        _insert(client, *range(2, 100_000), token="two")
    assert server.wait_dead() in (-signal.SIGKILL, -signal.SIGALRM)
    server.forget_faults()
    server.start()
    survived = len(_values(client))
    assert survived in {"kill_before": (1,), "kill_after": (99_999,)}.get(moment, (1, 99_999))
    _insert(client, *range(2, 100_000), token="two")
    assert _values(client) == list(range(1, 100_000))


def test_nobody_else_opens_the_path_of_a_server(server: ServerProcess, client: Any) -> None:
    assert client.ping()
    with (
        pytest.raises(PlatformError) as busy,
        open_store(server.path.parent, dsn=f"chdb://{server.path}", wait_s=0.1),
    ):
        pass
    assert busy.value.code == ReasonCode.STORE_BUSY
    assert f"process {server.pid} (" in busy.value.message


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import sys, os; from pathlib import Path;"
        "from hft_platform.drills.chdb_server import ServerProcess;"
        "server = ServerProcess(Path(sys.argv[1])); server.begin(); server.wait_ready();"
        "print(server.pid, flush=True); os._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store")],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    pid = int(done.stdout)
    with ServerProcess(tmp_path / "store") as after:  # waits for the lock of the first
        assert after.pid != pid


def test_what_is_drawn_comes_from_the_seed_and_a_wrong_rule_is_refused() -> None:
    def hits(seed: int) -> list[int]:
        plan = FaultPlan([Fault("drop_reply", probability=0.5, times=0)], seed=seed)
        return [len(plan.next("insert", "t")) for _ in range(64)]

    assert hits(1) == hits(1) != hits(2)
    assert 0 < sum(hits(1)) < 64
    plan = FaultPlan([Fault("slow", table="hft.market_", skip=1, times=2)])
    seen = [len(plan.next("insert", table)) for table in ("hft.market_a", "x") * 4]
    assert seen == [0, 0, 1, 0, 1, 0, 0, 0]
    for wrong in (
        {"kind": "explode"},
        {"kind": "slow", "statement": "insrt"},
        {"kind": "slow", "a": 1},
    ):
        with pytest.raises(PlatformError):
            Fault.of(wrong)
