"""Store: ClickHouse through clickhouse-connect, embedded (chDB) by default, a server by DSN.

Why: everything the loop recorded can be asked for with SQL, with nothing to install or start, and
with a server the same way.

Invariants:
1. Opened inside a command or a run only, never by an import; the schema is migrated on opening.
2. An embedded store belongs to one process at a time; others wait for its lock and are told for
   whom. A server is shared.
3. Every insert carries a token, goes synchronously, and reaches materialized views once.
4. A statement is sent again only where that is safe (`store_errors.FAILURES`): reads, inserts with
   the very same token and bytes at once, anything that surely never arrived. The client library
   sends nothing again by itself.
5. Whatever the engine or the network does becomes a code of `store_errors.FAILURES`, never a
   traceback; every wait is bounded.

It decides nothing about segments (see `loader`). Operator's page: `docs/store.md`.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from hft_platform.breaker import Breaker
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.recorder import migrations, store_lock
from hft_platform.recorder.store_errors import FAILURES, Statement, classify
from hft_platform.recorder.store_target import StorePolicy, StoreTarget, parse_dsn, read_password

if TYPE_CHECKING:
    from hft_platform.config.settings import StoreSettings

log = structlog.get_logger()

WAIT_SECONDS = 60.0
"""How long a command waits for another one that holds the embedded store, or for a server."""
POLICY = StorePolicy(
    connect_timeout_s=3.0, request_timeout_s=60.0, attempts_max=5, breaker_failures_max=5,
    breaker_open_s=10.0,
)  # fmt: skip
"""Of a store that is opened without settings; a test holds it equal to the packaged ones."""

INSERT_SETTINGS: Mapping[str, Any] = {
    "async_insert": 0,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "max_insert_block_size": 1 << 20,
    "wait_end_of_query": 1,
}
_SCHEME = "chdb://"
_Result = TypeVar("_Result")


class Store:
    """An open store. Use `open_store`, which also closes it.

    Parameters
    ----------
    client : Any
        Client of clickhouse-connect, which is untyped for both kinds of connection.
    dsn : str
        Where it is, without a password.
    policy : StorePolicy, optional
        How patiently it is asked.
    is_embedded : bool, optional
        Whether the engine is inside this process.
    clock, sleep : callable, optional
        Monotonic seconds, and how a pause is made.
    """

    def __init__(
        self,
        client: Any,  # Any: see above
        *,
        dsn: str,
        policy: StorePolicy = POLICY,
        is_embedded: bool = True,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._policy = policy
        self._sleep = sleep
        self._is_embedded = is_embedded
        self.dsn = dsn
        self.store_id = ""
        self.breaker = Breaker(
            failures_max=policy.breaker_failures_max, pause=policy.breaker_open_s, clock=clock
        )
        self._clock = clock
        self._last_code: int | None = None
        self.counts: Counter[str] = Counter()
        """Statements sent, sent again, and failed by code name."""
        self.slowest_s = 0.0
        """Longest statement so far, with everything that was sent again for it."""

    @property
    def supports_many_clients(self) -> bool:
        """True for a server; an embedded store serves this process alone."""
        return not self._is_embedded

    def require_many_clients(self, what: str) -> None:
        """Refuse an embedded store for something that needs a shared one.

        Parameters
        ----------
        what : str
            What needs it, for the message: ``recorder mode direct``.

        Raises
        ------
        PlatformError
            STORE_NEEDS_SERVER.
        """
        if self._is_embedded:
            raise PlatformError(
                ReasonCode.STORE_NEEDS_SERVER,
                f"{what} needs a store that several processes can use; {self.dsn} is embedded",
            )

    def command(self, sql: str) -> None:
        """Run a statement without a result; it is sent again only when it surely never arrived.

        Parameters
        ----------
        sql : str
            One statement.
        """
        self._ask(sql, Statement.ONCE, lambda: self._client.command(sql))

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

        def read() -> list[tuple[Any, ...]]:
            result = self._client.query(sql, parameters=parameters)
            return [tuple(row) for row in result.result_rows]

        return self._ask(sql, Statement.READ, read)

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

        def read() -> bytes:
            return bytes(self._client.raw_query(sql, parameters=parameters, fmt=format_name))

        return self._ask(sql, Statement.READ, read)

    def arrow(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """Run a query and return a `pyarrow.Table` (pyarrow has no types, hence Any).

        Parameters
        ----------
        sql : str
            Query with ``{name:Type}`` placeholders.
        parameters : mapping, optional
            Their values.
        """

        def read() -> Any:  # Any: see above
            return self._client.query_arrow(sql, parameters=parameters, use_strings=True)

        return self._ask(sql, Statement.READ, read)

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
        # As a view the block is sent as it is, without a copy behind the statement, and the client
        # library does not send it a second time by itself. No DESCRIBE goes before it.
        view = memoryview(block)

        def insert() -> None:
            self._client.raw_insert(table, column_names, view, settings=settings, fmt="Native")

        self._ask(f"insert into {table}", Statement.INSERT, insert, seed=token)

    def close(self) -> None:
        """Close the connection; an embedded engine stops."""
        self._client.close()

    def stats(self) -> dict[str, Any]:
        """Counts for metrics: statements, retries, failures by code, state of the breaker."""
        return {
            **dict(sorted(self.counts.items())),
            "slowest_ms": round(self.slowest_s * 1e3),
            "breaker": self.breaker.state.value,
            "breaker_opened": self.breaker.opened,
            "breaker_refused": self.breaker.refused,
        }

    def _ask(
        self,
        doing: str,
        statement: Statement,
        call: Callable[[], _Result],
        *,
        seed: str | None = None,
    ) -> _Result:
        """Send a statement, again where that is safe, within the policy's bounds."""
        started = self._clock()
        try:
            return self._ask_again(doing, statement, call, seed=seed or doing)
        finally:
            self.slowest_s = max(self.slowest_s, self._clock() - started)

    def _ask_again(
        self, doing: str, statement: Statement, call: Callable[[], _Result], *, seed: str
    ) -> _Result:
        attempt = 0
        is_unknown = False
        while True:
            attempt += 1
            try:
                self._require_closed_breaker(doing)
                self.counts["sent"] += 1
                result = call()
            except PlatformError as error:
                raise (_still_unknown(error) if is_unknown else error) from None
            except Exception as error:
                # The client raises its own tree, chdb RuntimeError, the network OSError: all mean
                # that the store did not do it. A bug of ours is told apart by its type.
                if isinstance(error, AssertionError | AttributeError | NameError | TypeError):
                    raise
                failed = _failure(self.dsn, doing, statement, error, attempt=attempt)
                if not self._may_go_on(failed, statement, attempt):
                    raise (_still_unknown(failed) if is_unknown else failed) from error
                is_unknown = is_unknown or failed.code == ReasonCode.STORE_AMBIGUOUS
                self.counts["sent_again"] += 1
                log.info("store_asked_again", code=failed.code, attempt=attempt, doing=doing[:80])
                self._sleep(self._policy.pause_s(attempt, seed))
            else:
                self.breaker.answered()
                return result

    def _may_go_on(self, failed: PlatformError, statement: Statement, attempt: int) -> bool:
        """Count a failure, tell the breaker, and say whether to send the statement again."""
        failure = FAILURES[failed.code]
        self.counts[code_name(failed.code).lower()] += 1
        if failure.is_unhealthy:
            self._last_code = failed.code
            self.breaker.failed()
        else:
            self.breaker.answered()
        return (
            statement in failure.retried
            and attempt < self._policy.attempts_max
            and not self.breaker.is_open
        )

    def _require_closed_breaker(self, doing: str) -> None:
        wait_s = self.breaker.ask()
        if wait_s > 0.0:
            self.counts["store_breaker_open"] += 1
            last = "" if self._last_code is None else f", last with {code_name(self._last_code)}"
            raise PlatformError(
                ReasonCode.STORE_BREAKER_OPEN,
                f"{self.dsn}: {doing[:200]}: not asked, it failed"
                f" {self.breaker.failures_in_a_row} times in a row{last};"
                f" asked again in {wait_s:.1f} s",
                facts={"wait_s": round(wait_s, 3), "last_code": self._last_code},
            )


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
    settings: StoreSettings | None = None,
    policy: StorePolicy | None = None,
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
        A server (``clickhouse://user:password@host:8123``) or another ``chdb:///`` path; wins over
        the settings.
    settings : StoreSettings, optional
        Section `store` of the settings: DSN, password file, timeouts.
    policy : StorePolicy, optional
        How patiently it is asked; by default as the settings say.
    wait_s : float, optional
        Longest wait for another process that holds an embedded store, or for a server that cannot
        be reached.
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
        STORE_BUSY, a code of `store_errors.FAILURES`, SETTINGS_INVALID, MIGRATION_CHANGED.
    """
    target = _target(ws, dsn, settings)
    if policy is None:
        policy = POLICY if settings is None else StorePolicy.of(settings, seed=os.getpid())
    with ExitStack() as stack:
        if target.path is not None:
            lock = target.path.with_name(target.path.name + ".lock")
            what = f"the store {target.path}"
            stack.enter_context(store_lock.held(lock, what=what, wait_s=wait_s, on_wait=on_wait))
        client = _connected(target, policy, wait_s)
        stack.callback(client.close)
        store = Store(client, dsn=target.shown, policy=policy, is_embedded=target.is_embedded)
        migrations.prepare(store, config_dir, layout=settings)
        store.store_id = _store_id(store)
        yield store


@contextmanager
def open_configured_store(
    ws: Path,
    *,
    config_dir: Path | None = None,
    on_wait: Callable[[store_lock.Holder], None] | None = None,
) -> Iterator[Store]:
    """Open the store that the settings name: what every command and asset uses.

    Parameters
    ----------
    ws : Path
        Workspace.
    config_dir : Path, optional
        Folder of the settings and the operator's SQL; by default `config` in the working folder.
    on_wait : callable, optional
        Told once for whom this process waits.

    Yields
    ------
    Store
        Migrated and ready.
    """
    from hft_platform.config.settings import load_settings

    settings = load_settings(config_dir).store
    with open_store(ws, settings=settings, config_dir=config_dir, on_wait=on_wait) as store:
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
    found = store.rows(
        "SELECT toString(store_id) FROM hft.store_identity ORDER BY created_at, 1 LIMIT 1"
    )
    if not found:
        store.command("INSERT INTO hft.store_identity (store_id) SELECT generateUUIDv4()")
        return _store_id(store)
    return str(found[0][0])


def _target(ws: Path, dsn: str | None, settings: StoreSettings | None) -> StoreTarget:
    if dsn is not None:
        return parse_dsn(dsn)
    if settings is None or settings.dsn is None:
        return parse_dsn(default_dsn(ws))
    file = settings.password_file
    password = None if file is None else read_password(Path(file).expanduser())
    return parse_dsn(settings.dsn, password=password)


def _connected(target: StoreTarget, policy: StorePolicy, wait_s: float) -> Any:  # Any: untyped
    """Make the client; a server that cannot be reached is waited for."""
    deadline = time.monotonic() + wait_s
    attempt = 0
    while True:
        attempt += 1
        try:
            return _client(target, policy)
        except Exception as error:
            if isinstance(error, AssertionError | AttributeError | NameError | TypeError):
                raise
            # Opening asks what the server is; it changes nothing.
            failed = _failure(
                target.shown, "opening the store", Statement.READ, error, attempt=attempt
            )
            pause_s = policy.pause_s(attempt, target.shown)
            is_over = time.monotonic() + pause_s >= deadline
            if is_over or Statement.READ not in FAILURES[failed.code].retried:
                raise failed from error
            if attempt == 1:
                log.info("store_waited_for", store=target.shown, code=failed.code, wait_s=wait_s)
            time.sleep(pause_s)


def _client(target: StoreTarget, policy: StorePolicy) -> Any:  # Any: untyped
    # Slow to import and never needed by a process that opens no store.
    import clickhouse_connect

    if target.path is not None:
        return clickhouse_connect.get_client(dsn=f"{_SCHEME}{target.path}")
    from urllib3 import Timeout

    # What it would warn of is said with a code here.
    logging.getLogger("clickhouse_connect").setLevel(logging.ERROR)
    client: Any = clickhouse_connect.get_client(
        **target.connection,
        # Whole seconds only; the exact ones are set below.
        connect_timeout=math.ceil(policy.connect_timeout_s),
        send_receive_timeout=math.ceil(policy.request_timeout_s),
        # What is sent again is decided here, not there.
        query_retries=0,
        # A session would be locked by a statement that runs on after its client gave up.
        autogenerate_session_id=False,
        dedicated_pool=True,
        client_name="hft-platform",
    )
    client.http_retries = 0
    client.timeout = Timeout(connect=policy.connect_timeout_s, read=policy.request_timeout_s)
    return client


def _failure(
    dsn: str, doing: str, statement: Statement, error: Exception, *, attempt: int
) -> PlatformError:
    code = classify(error, statement)
    first_line = "".join(str(error).strip().splitlines()[:1])[:600] or type(error).__name__
    tried = f" ({attempt} attempts)" if attempt > 1 else ""
    return PlatformError(
        code,
        f"{dsn}: {doing[:200]}: {first_line}{tried}",
        facts={
            "error": type(error).__name__,
            "attempts": attempt,
            "engine_code": getattr(error, "code", None),
        },
    )


def _still_unknown(failed: PlatformError) -> PlatformError:
    """The last attempt's failure, when an earlier one was sent and never answered."""
    if failed.code == ReasonCode.STORE_AMBIGUOUS:
        return failed
    return PlatformError(
        ReasonCode.STORE_AMBIGUOUS,
        f"{failed.message}; an earlier attempt was sent and not answered",
        facts=failed.facts | {"last_code": failed.code},
    )
