"""The schema on a cluster: our SQL files, said for replicated tables.

Why: one set of files describes the schema; a copy for clusters would drift from it. What differs is
mechanical: the engine, where a statement runs, and the names of the deduplication settings.

Invariants:
1. Without a cluster a statement is sent as it stands in its file.
2. On a cluster every table is replicated, every definition runs on all hosts, and the replicated
   deduplication window has the same count and lasts a week (the server's own default is an hour).
3. A statement that is not known to translate is refused, never sent to one host only.

It runs nothing. One shard with replicas is meant; rows are not spread over shards. Operator's page:
`docs/store.md`.
"""

from __future__ import annotations

import re

from hft_platform.errors import PlatformError, ReasonCode

_DEFINITION = re.compile(
    r"(?:CREATE DATABASE IF NOT EXISTS"
    r"|CREATE TABLE IF NOT EXISTS"
    r"|CREATE OR REPLACE VIEW"
    r"|CREATE(?: MATERIALIZED)? VIEW IF NOT EXISTS"
    r"|ALTER TABLE"
    r"|TRUNCATE TABLE IF EXISTS)\s+(?P<name>[A-Za-z_][\w.]*)"
)
_ROWS = re.compile(r"(?:INSERT INTO|SELECT)\b")
_ENGINE = re.compile(r"\bENGINE\s*=\s*(?P<kind>\w+)(?:\((?P<arguments>[^)]*)\))?")
_WINDOW = re.compile(r"\bnon_replicated_deduplication_window\b\s*=\s*(\d+)")
WINDOW_SECONDS = 604_800
"""How long a cluster remembers tokens; the count of the window is the file's."""


def for_cluster(statement: str, cluster: str | None) -> str:
    """Say a statement of the schema for a cluster.

    Parameters
    ----------
    statement : str
        One statement of a migration, without comments in front.
    cluster : str or None
        The cluster's name; None leaves the statement as it is.

    Returns
    -------
    str
        What is sent.

    Raises
    ------
    PlatformError
        SETTINGS_INVALID when the statement, or its table engine, has no form for a cluster.
    """
    if cluster is None or _ROWS.match(statement):
        return statement
    head = _DEFINITION.match(statement)
    if head is None:
        raise _unknown(statement, "runs on one host only")
    rest = statement[head.end() :]
    if statement.startswith("CREATE TABLE"):
        rest = _replicated(rest, head["name"], statement)
    return f"{head.group()} ON CLUSTER '{cluster}'{rest}"


def _replicated(rest: str, table: str, statement: str) -> str:
    engine = _ENGINE.search(rest)
    if engine is None or not engine["kind"].endswith("MergeTree"):
        raise _unknown(statement, "has a table engine that is not replicated")
    if engine["kind"].startswith("Replicated"):
        raise _unknown(statement, "names a replicated engine; write the plain one")
    # {shard} and {replica} are macros of the server; the database keeps equal names apart.
    path = f"/clickhouse/tables/{{shard}}/{table.replace('.', '/')}"
    arguments = f", {engine['arguments']}" if engine["arguments"] else ""
    made = f"ENGINE = Replicated{engine['kind']}('{path}', '{{replica}}'{arguments})"
    rest = rest[: engine.start()] + made + rest[engine.end() :]
    window = (
        rf"replicated_deduplication_window = \1,"
        f" replicated_deduplication_window_seconds = {WINDOW_SECONDS}"
    )
    return _WINDOW.sub(window, rest)


def _unknown(statement: str, why: str) -> PlatformError:
    return PlatformError(
        ReasonCode.SETTINGS_INVALID,
        f"store.cluster is set, and a migration's statement {why}: {statement[:80]!r}",
        next_step="write it as CREATE ... IF NOT EXISTS, CREATE OR REPLACE VIEW, ALTER TABLE,"
        " TRUNCATE TABLE IF EXISTS or INSERT, with an engine of the MergeTree family",
    )
