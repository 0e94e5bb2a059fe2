"""How long the store keeps market data: a TTL on the tables of the market log.

Why: books fill disks, and the logs and Parquet datasets remain. What an order log says is kept for
ever.

Invariants:
1. The time counts from the loading of a row, not from its trading day: an old recording that is
   loaded today stays as long as today's session, and nothing goes before it was verified, which
   happens in the load that inserted it.
2. Only whole parts go, so a segment's rows of a load go together.
3. Tables of the order log, bars, latencies, audit and ledger have no TTL.

It touches no log; segments have a retention of their own. Operator's page: `docs/store.md`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hft_platform.recorder.cluster_sql import for_cluster

if TYPE_CHECKING:
    from hft_platform.recorder.store import Store

RETAINED_TABLES = ("hft.market_books", "hft.market_trades", "hft.timers")
"""Tables whose rows may go; contracts stay, because fills are valued with them."""

_TTL = re.compile(r"\bTTL (.+?)(?: SETTINGS |$)")


def apply_retention(store: Store, days: int | None, *, cluster: str | None = None) -> list[str]:
    """Give the market log's tables the retention that the settings name.

    Parameters
    ----------
    store : Store
        Open store, migrated.
    days : int or None
        Days from loading until rows go; None keeps them.
    cluster : str, optional
        Cluster on which it is said.

    Returns
    -------
    list of str
        Tables that were changed; none when all have it already.
    """
    wanted = None if days is None else f"loaded_at + toIntervalDay({days})"
    changed = []
    for table in RETAINED_TABLES:
        database, name = table.split(".")
        engine = store.rows(
            "SELECT engine_full FROM system.tables"
            " WHERE database = {database:String} AND name = {name:String}",
            {"database": database, "name": name},
        )[0][0]
        found = _TTL.search(str(engine))
        if (found[1] if found else None) == wanted:
            continue
        changed.append(table)
        if wanted is None:
            statements = [f"ALTER TABLE {table} REMOVE TTL"]
        else:
            statements = [
                f"ALTER TABLE {table} MODIFY SETTING ttl_only_drop_parts = 1,"
                " materialize_ttl_recalculate_only = 1",
                f"ALTER TABLE {table} MODIFY TTL {wanted}",
            ]
        for statement in statements:
            store.command(for_cluster(statement, cluster))
    return changed
