"""The schema on a cluster: made from the same files, understood by the engine's own parser.

Not run here: the embedded engine has no replicated tables and no Keeper.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder import migrations
from hft_platform.recorder.cluster_sql import for_cluster
from hft_platform.recorder.migrations import load_migrations, migrate
from hft_platform.recorder.store import Store

STATEMENTS = [
    (migration.name, statement)
    for migration in load_migrations()
    for statement in migration.statements
]
ALL = [("bootstrap", statement) for statement in migrations._BOOTSTRAP] + STATEMENTS


def shown(store: Store, statement: str) -> str:
    """The statement as the engine's parser understands it, in its own layout."""
    return str(store.rows("SELECT formatQuery({q:String})", {"q": statement})[0][0])


def plain(sql: str) -> str:
    """A cluster's statement without what makes it one."""
    sql = re.sub(r" ON CLUSTER \S+", "", sql)
    sql = re.sub(
        r"Replicated(\w*MergeTree)\('[^']*', '\{replica\}'(?:, )?([^)]*)\)", r"\1(\2)", sql
    )
    sql = re.sub(r", replicated_deduplication_window_seconds = \d+", "", sql)
    return sql.replace("MergeTree()", "MergeTree").replace(" replicated_ded", " non_replicated_ded")


def test_without_a_cluster_a_statement_is_what_its_file_says() -> None:
    assert [for_cluster(statement, None) for _, statement in ALL] == [s for _, s in ALL]


def test_every_statement_of_the_schema_has_a_form_that_the_engine_parses(store: Store) -> None:
    paths: list[str] = []
    for name, statement in ALL:
        made = for_cluster(statement, "prod")
        parsed = shown(store, made)
        if statement.startswith("INSERT"):
            assert made == statement
            continue
        assert " ON CLUSTER prod" in parsed, (name, parsed[:80])
        assert plain(parsed) == shown(store, statement), name
        if statement.startswith("CREATE TABLE"):
            table = statement.split()[5]
            path = f"/clickhouse/tables/{{shard}}/{table.replace('.', '/')}"
            assert f"MergeTree('{path}', '{{replica}}')" in parsed
            assert "non_replicated" not in parsed
            paths.append(path)
    assert len(paths) == len(set(paths)) > 20, "no two tables share a path in Keeper"


def test_every_window_of_tokens_has_its_count_and_a_week_on_a_cluster() -> None:
    windows = 0
    for name, statement in ALL:
        plain_count = statement.count("non_replicated_deduplication_window = 10000")
        made = for_cluster(statement, "prod")
        assert made.count(
            " replicated_deduplication_window = 10000,"
            " replicated_deduplication_window_seconds = 604800"
        ) == plain_count, name  # fmt: skip
        windows += plain_count
    assert windows > 20


def test_an_engine_with_arguments_keeps_them_behind_path_and_replica(store: Store) -> None:
    made = for_cluster(
        "CREATE TABLE IF NOT EXISTS hft.x (a UInt8, v UInt8)\n"
        "ENGINE = ReplacingMergeTree(v) ORDER BY a", "prod",
    )  # fmt: skip
    assert (
        "ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/hft/x', '{replica}', v)" in made
    )
    assert "ON CLUSTER prod" in shown(store, made)


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE hft.market_books",
        "RENAME TABLE hft.x TO hft.y",
        "CREATE TABLE hft.x (a UInt8) ENGINE = MergeTree ORDER BY a",
        "CREATE TABLE IF NOT EXISTS hft.x (a UInt8) ENGINE = Memory",
        "CREATE TABLE IF NOT EXISTS hft.x AS hft.y",
        "CREATE TABLE IF NOT EXISTS hft.x (a UInt8)"
        " ENGINE = ReplicatedMergeTree('/x', '{replica}') ORDER BY a",
        "SYSTEM RELOAD CONFIG",
    ],
)
def test_a_statement_that_would_reach_one_host_only_is_refused(statement: str) -> None:
    with pytest.raises(PlatformError) as refused:
        for_cluster(statement, "prod")
    assert refused.value.code == ReasonCode.SETTINGS_INVALID
    assert statement[:20] in refused.value.message


def test_the_embedded_store_is_refused_as_a_cluster(store: Store) -> None:
    with pytest.raises(PlatformError) as refused:
        migrate(store, load_migrations(), cluster="prod")
    assert refused.value.code == ReasonCode.SETTINGS_INVALID
    is_embedded = store.dsn.startswith("chdb:")
    said = "no replicas" if is_embedded else "do not change their kind"
    assert said in refused.value.message


@pytest.mark.parametrize(
    ("engine", "cluster"), [("ReplacingMergeTree", "prod"), ("ReplicatedReplacingMergeTree", None)]
)
def test_a_store_does_not_change_its_kind(engine: str, cluster: str | None) -> None:
    class Server:
        dsn = "clickhouse://host"

        def rows(self, _sql: str, _parameters: object = None) -> list[tuple[str]]:
            return [(engine,)]

    with pytest.raises(PlatformError) as refused:
        migrate(Server(), load_migrations(), cluster=cluster)  # type: ignore[arg-type]
    assert refused.value.code == ReasonCode.SETTINGS_INVALID
    assert engine in refused.value.message


def test_a_cluster_gets_the_whole_schema_in_its_form(tmp_path: Path) -> None:
    """What a server is sent, in order: the form of every statement, and the history beside it."""

    class Server:
        dsn = "clickhouse://host"

        def __init__(self) -> None:
            self.sent: list[str] = []
            self.tokens: list[str] = []

        def command(self, sql: str) -> None:
            self.sent.append(sql)

        def rows(self, _sql: str, _parameters: object = None) -> list[tuple[object, ...]]:
            return []

        def insert_native(self, *_arguments: object, token: str) -> None:
            self.tokens.append(token)

    server = Server()
    wanted = load_migrations(tmp_path)
    migrate(server, wanted, cluster="prod")  # type: ignore[arg-type]
    assert server.sent == [for_cluster(statement, "prod") for _, statement in ALL]
    assert server.tokens == [f"migration:{m.version}:{m.sha256}" for m in wanted], (
        "the files' own hash"
    )
