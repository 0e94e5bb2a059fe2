"""Store: ClickHouse through clickhouse-connect, embedded (chDB) by default, a server by DSN.

Why: everything the loop recorded can be asked for with SQL, with nothing to install or start.

Invariants:
1. Opened inside a command or a run only, never by an import; the schema is migrated on opening.
2. An embedded store belongs to one process at a time; others wait for its lock and are told for
   whom.
3. Every insert carries a token, goes synchronously, and reaches materialized views once.
4. Whatever the engine or the network does becomes STORE_FAILED, never a traceback.

It decides nothing about segments (see `loader`). Operator's page: `docs/store.md`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder import migrations, store_lock

WAIT_SECONDS = 60.0
"""How long a command waits for another one that holds the embedded store."""

INSERT_SETTINGS: Mapping[str, Any] = {
    "async_insert": 0,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "max_insert_block_size": 1 << 20,
    "wait_end_of_query": 1,
}
_SCHEME = "chdb://"
_PASSWORD = re.compile(r"(//[^:/@]*:)[^@]*(@)")


class Store:
    """An open store. Use `open_store`, which also closes it.

    Parameters
    ----------
    client : Any
        Client of clickhouse-connect, which is untyped for both kinds of connection.
    dsn : str
        Where it is, without a password.
    """

    def __init__(self, client: Any, *, dsn: str) -> None:  # Any: see above
        self._client = client
        self.dsn = dsn
        self.store_id = ""

    def command(self, sql: str) -> None:
        """Run a statement without a result.

        Parameters
        ----------
        sql : str
            One statement.
        """
        with self._failures(sql):
            self._client.command(sql)

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a query and return its rows: for counts and small tables.

        Parameters
        ----------
        sql : str
            Query with ``{name:Type}`` placeholders.
        parameters : mapping, optional
            Their values.

        Returns
        -------
        list of tuple
        """
        with self._failures(sql):
            result = self._client.query(sql, parameters=parameters)
            return [tuple(row) for row in result.result_rows]

    def raw(self, sql: str, format_name: str, parameters: Mapping[str, Any] | None = None) -> bytes:
        """Run a query and return its answer in one of ClickHouse's formats.

        Parameters
        ----------
        sql : str
            Query without a FORMAT clause.
        format_name : str
            ``RowBinary`` for example.
        parameters : mapping, optional
            Values of the placeholders.

        Returns
        -------
        bytes
        """
        with self._failures(sql):
            return bytes(self._client.raw_query(sql, parameters=parameters, fmt=format_name))

    def arrow(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """Run a query and return a `pyarrow.Table` (pyarrow has no types, hence Any).

        Parameters
        ----------
        sql : str
            Query with ``{name:Type}`` placeholders.
        parameters : mapping, optional
            Their values.
        """
        with self._failures(sql):
            return self._client.query_arrow(sql, parameters=parameters, use_strings=True)

    def insert_native(
        self, table: str, column_names: Sequence[str], block: bytes, *, token: str
    ) -> None:
        """Insert one Native block under a deduplication token.

        Parameters
        ----------
        table : str
            Target.
        column_names : sequence of str
            Columns of the block, in its order.
        block : bytes
            From `native.encode_block`.
        token : str
            Equal tokens must mean equal rows: the second insert adds nothing.
        """
        settings = {**INSERT_SETTINGS, "insert_deduplication_token": token}
        with self._failures(f"insert into {table}"):
            self._client.raw_insert(table, column_names, block, settings=settings, fmt="Native")

    def close(self) -> None:
        """Close the connection; an embedded engine stops."""
        self._client.close()

    @contextmanager
    def _failures(self, doing: str) -> Iterator[None]:
        with _failures(self.dsn, doing):
            yield


def default_dsn(ws: Path) -> str:
    """DSN of a workspace's embedded store.

    Parameters
    ----------
    ws : Path
        Workspace.

    Returns
    -------
    str
        ``chdb:///absolute/path/store``.
    """
    return f"{_SCHEME}{ws.absolute() / 'store'}"


@contextmanager
def open_store(
    ws: Path,
    *,
    dsn: str | None = None,
    wait_s: float = WAIT_SECONDS,
    config_dir: Path | None = None,
    on_wait: Callable[[store_lock.Holder], None] | None = None,
) -> Iterator[Store]:
    """Open a workspace's store, migrate it, and close it at the end.

    Parameters
    ----------
    ws : Path
        Workspace; its embedded store is the default.
    dsn : str, optional
        A server (``clickhouse://user:password@host:8123``) or another ``chdb:///`` path.
    wait_s : float, optional
        Longest wait for another process that holds an embedded store.
    config_dir : Path, optional
        Folder whose `clickhouse/*.sql` override the packaged migrations; by default `config` in
        the working folder.
    on_wait : callable, optional
        Told once for whom this process waits.

    Yields
    ------
    Store
        Migrated and ready.

    Raises
    ------
    PlatformError
        STORE_BUSY, STORE_FAILED, MIGRATION_CHANGED.
    """
    target = dsn or default_dsn(ws)
    shown = _PASSWORD.sub(r"\1***\2", target)
    with ExitStack() as stack:
        if target.startswith(_SCHEME):
            path = Path(target[len(_SCHEME) :])
            lock = path.with_name(path.name + ".lock")
            stack.enter_context(
                store_lock.held(lock, what=f"the store {path}", wait_s=wait_s, on_wait=on_wait)
            )
        # Slow to import and never needed by a process that opens no store.
        import clickhouse_connect

        with _failures(shown, "opening the store"):
            client = clickhouse_connect.get_client(dsn=target)
        store = Store(client, dsn=shown)
        stack.callback(store.close)
        migrations.prepare(store, config_dir)
        store.store_id = _store_id(store)
        yield store


def rows_by_table(store: Store) -> dict[str, int]:
    """Count the rows of every table that holds data.

    Parameters
    ----------
    store : Store
        Open store.

    Returns
    -------
    dict of str to int
        Rows by ``database.table``; rows that a table will merge count once.
    """
    listed = store.rows(
        "SELECT database || '.' || name, engine FROM system.tables"
        " WHERE database IN ('hft', 'audit') AND engine LIKE '%MergeTree'"
        " AND name NOT IN ('schema_migrations', 'store_identity') ORDER BY 1"
    )
    counts = " UNION ALL ".join(
        f"SELECT '{name}' AS name, count() AS row_count FROM {name}"  # noqa: S608  # from system.tables
        f"{'' if engine in ('MergeTree', 'ReplicatedMergeTree') else ' FINAL'}"
        for name, engine in listed
    )
    return {str(name): int(count) for name, count in sorted(store.rows(counts))}


def _store_id(store: Store) -> str:
    """Identity of the data, so that a ledger never vouches for a store that was deleted."""
    found = store.rows("SELECT toString(store_id) FROM hft.store_identity ORDER BY 1 LIMIT 1")
    if not found:
        store.command("INSERT INTO hft.store_identity (store_id) SELECT generateUUIDv4()")
        return _store_id(store)
    return str(found[0][0])


@contextmanager
def _failures(dsn: str, doing: str) -> Iterator[None]:
    try:
        yield
    except PlatformError:
        raise
    except Exception as error:
        # The client raises its own tree, chdb RuntimeError, the network OSError: all mean that
        # the store did not do it. A bug of ours is told apart by its type.
        if isinstance(error, AssertionError | AttributeError | NameError | TypeError):
            raise
        first_line = str(error).strip().splitlines()[:1]
        raise PlatformError(
            ReasonCode.STORE_FAILED,
            f"{dsn}: {doing[:200]}: {''.join(first_line)[:600] or type(error).__name__}",
            facts={"error": type(error).__name__},
        ) from error
