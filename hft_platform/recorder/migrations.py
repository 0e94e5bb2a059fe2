"""Schema migrations: numbered SQL files, applied once each, in order, when a store is opened.

Why: an operator upgrades by starting the new version, and two stores with equal histories have
equal schemas.

Invariants:
1. `hft.schema_migrations` holds number, name and SHA-256 of every applied file; a file that was
   changed, removed or inserted before an applied one is refused.
2. Every statement can run again: a crash in the middle of a file is healed by the next opening.
3. Numbers are unique; files of the operator's `config/clickhouse` replace packaged files of the
   same name and may add new ones.
4. On a cluster the same files say the same with replicated tables (`cluster_sql`); a store made
   for one kind is refused as the other.

It never drops anything. Operator's page: `docs/store.md`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from hft_platform.config.canonical import sha256_hex
from hft_platform.config.settings import load_settings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder import native
from hft_platform.recorder.cluster_sql import for_cluster
from hft_platform.recorder.retention import apply_retention

if TYPE_CHECKING:
    from hft_platform.config.settings import StoreSettings
    from hft_platform.recorder.store import Store

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_BOOTSTRAP = (
    "CREATE DATABASE IF NOT EXISTS hft",
    "CREATE TABLE IF NOT EXISTS hft.schema_migrations (version UInt16, name String,"
    " sha256 String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'))"
    " ENGINE = ReplacingMergeTree ORDER BY version"
    " SETTINGS non_replicated_deduplication_window = 10000",
)


@dataclass(frozen=True, slots=True)
class Migration:
    """One SQL file.

    Attributes
    ----------
    version : int
        Number in front of its name.
    name : str
        File name.
    sql : str
        Content.
    """

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Hash of the content."""
        return sha256_hex(self.sql.encode("utf-8"))

    @property
    def statements(self) -> list[str]:
        """Statements without comments; each ends with a semicolon at the end of a line."""
        lines = [line for line in self.sql.splitlines() if not line.lstrip().startswith("--")]
        parts = re.split(r";\s*(?:\n|$)", "\n".join(lines))
        return [part.strip() for part in parts if part.strip()]


def load_migrations(config_dir: Path | None = None) -> list[Migration]:
    """Read the packaged migrations and the operator's.

    Parameters
    ----------
    config_dir : Path, optional
        Folder with an optional `clickhouse` folder; by default `config` in the working folder.

    Returns
    -------
    list of Migration
        In order of their numbers.

    Raises
    ------
    PlatformError
        SETTINGS_INVALID for a wrong name, a number used twice or an empty file.
    """
    packaged = resources.files("hft_platform") / "defaults" / "clickhouse"
    texts = {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in packaged.iterdir()
        if entry.name.endswith(".sql")
    }
    folder = (config_dir if config_dir is not None else Path("config")) / "clickhouse"
    if folder.is_dir():
        texts |= {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.sql")}
    found = [_migration(name, texts[name]) for name in sorted(texts)]
    versions = [migration.version for migration in found]
    twice = sorted({version for version in versions if versions.count(version) > 1})
    if twice:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"migration number {twice[0]:04d} is used by"
            f" {[m.name for m in found if m.version == twice[0]]}",
            next_step=f"renumber the file in {folder}",
        )
    return found


def prepare(
    store: Store, config_dir: Path | None = None, *, layout: StoreSettings | None = None
) -> None:
    """Bring a store to the newest schema, with the layout and retention of the settings.

    Parameters
    ----------
    store : Store
        Open store.
    config_dir : Path, optional
        Folder of settings and own migrations; by default `config` in the working folder.
    layout : StoreSettings, optional
        Cluster and retention; those of the settings by default.

    Raises
    ------
    PlatformError
        MIGRATION_CHANGED, and SETTINGS_INVALID when `store.cluster` does not fit the store.
    """
    layout = layout or load_settings(config_dir).store
    migrate(store, load_migrations(config_dir), cluster=layout.cluster)
    apply_retention(store, layout.market_retention_days, cluster=layout.cluster)


def migrate(
    store: Store, wanted: list[Migration], *, cluster: str | None = None
) -> list[Migration]:
    """Bring a store to the newest schema.

    Parameters
    ----------
    store : Store
        Open store.
    wanted : list of Migration
        From `load_migrations`.
    cluster : str, optional
        Cluster whose hosts all get it; None is one server or the embedded engine.

    Returns
    -------
    list of Migration
        Those applied now.

    Raises
    ------
    PlatformError
        MIGRATION_CHANGED when history differs from the files; nothing is applied then.
        SETTINGS_INVALID when the store cannot be, or was not made as, what `cluster` says.
    """
    _check_layout(store, cluster)
    for statement in _BOOTSTRAP:
        store.command(for_cluster(statement, cluster))
    applied = {
        int(version): (str(name), str(sha256))
        for version, name, sha256 in store.rows(
            "SELECT version, name, sha256 FROM hft.schema_migrations FINAL ORDER BY version"
        )
    }
    pending = [migration for migration in wanted if migration.version not in applied]
    _check_history(applied, wanted, pending)
    for migration in pending:
        for statement in [for_cluster(text, cluster) for text in migration.statements]:
            store.command(statement)
        _record(store, migration)
    return pending


def _migration(name: str, sql: str) -> Migration:
    match = _NAME.fullmatch(name)
    if match is None or not sql.strip():
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"migration {name} is empty or not named like 0007_what_it_does.sql",
        )
    return Migration(int(match.group(1)), name, sql)


def _check_layout(store: Store, cluster: str | None) -> None:
    if cluster is not None and store.dsn.startswith("chdb:"):
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"store.cluster was {cluster!r}; the embedded store {store.dsn} has no replicas",
            next_step="set store.cluster to null, or give a server's DSN",
        )
    found = store.rows(
        "SELECT engine FROM system.tables WHERE database = 'hft' AND name = 'schema_migrations'"
    )
    if found and str(found[0][0]).startswith("Replicated") != (cluster is not None):
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"store.cluster was {cluster!r}; {store.dsn} was made with"
            f" {found[0][0]} tables, and tables do not change their kind",
            next_step="restore the setting it was made with, or load into a new server",
        )


def _check_history(
    applied: dict[int, tuple[str, str]], wanted: list[Migration], pending: list[Migration]
) -> None:
    known = {migration.version: migration for migration in wanted}
    for version, (name, sha256) in applied.items():
        migration = known.get(version)
        if migration is None:
            raise PlatformError(
                ReasonCode.MIGRATION_CHANGED,
                f"the store has migration {name}, which is in no file here",
                next_step="use the version that wrote the store, or restore the file",
            )
        if migration.sha256 != sha256:
            raise PlatformError(
                ReasonCode.MIGRATION_CHANGED,
                f"{migration.name} has sha256 {migration.sha256[:12]},"
                f" applied was {name} with {sha256[:12]}",
            )
    newest = max(applied, default=0)
    for migration in pending:
        if migration.version < newest:
            raise PlatformError(
                ReasonCode.MIGRATION_CHANGED,
                f"{migration.name} comes before {newest:04d}, which is applied already",
                next_step=f"give it a number above {newest:04d}",
            )


def _record(store: Store, migration: Migration) -> None:
    columns = [
        native.constant("version", "UInt16", migration.version, 1),
        native.texts("name", [migration.name]),
        native.texts("sha256", [migration.sha256]),
    ]
    store.insert_native(
        "hft.schema_migrations",
        [column.name for column in columns],
        native.encode_block(columns),
        token=f"migration:{migration.version}:{migration.sha256}",
    )
