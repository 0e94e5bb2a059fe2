"""A part whose token the store remembers while its rows are gone: put back past the token.

Why: a table that is not replicated writes a token into its deduplication log before the part it
belongs to becomes part of the table. A server killed between the two drops every later insert of
these rows under this token without a word: the insert is acknowledged, and the rows are not there.

Invariants:
1. Nothing is put back while the table holds a row of the part; the caller counted none, after an
   acknowledged insert under the token, so views have what the insert brings them.
2. The rows reach the table as one part that no view sees: all of them, or none.
3. A crash at any step leaves all or none, and at most an empty or left-over staging table, which
   the next time begins by dropping.

It decides nothing (see the loader). Operator's page: `docs/store-server.md`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from hft_platform.errors import PlatformError, ReasonCode

if TYPE_CHECKING:
    from hft_platform.recorder.store import Store

log = structlog.get_logger()


def restore_part(
    store: Store,
    table: str,
    column_names: Sequence[str],
    block: bytes,
    *,
    token: str,
    trading_day: int,
    row_count: int,
) -> None:
    """Put a part's rows into its table although its token is taken.

    Parameters
    ----------
    store : Store
        Open store.
    table : str
        Target, partitioned by trading day.
    column_names : sequence of str
        Columns of the block.
    block : bytes
        Its rows, all of one trading day.
    token : str
        The token under which they were refused.
    trading_day : int
        The partition.
    row_count : int
        Rows of the block.

    Raises
    ------
    PlatformError
        LOAD_COUNT_MISMATCH when the staging table does not hold exactly the block; a code of
        `store_errors.FAILURES`.
    """
    staging = f"{table}_restore_{hashlib.sha256(token.encode()).hexdigest()[:16]}"
    store.command(f"DROP TABLE IF EXISTS {staging} SYNC")
    store.command(f"CREATE TABLE {staging} AS {table}")
    store.insert_native(staging, column_names, block, token=token)
    found = store.rows(
        f"SELECT count(), uniqExact(trading_day), min(trading_day) FROM {staging}"  # noqa: S608
    )[0]
    if found != (row_count, 1, trading_day):
        raise PlatformError(
            ReasonCode.LOAD_COUNT_MISMATCH,
            f"{staging} holds {found[0]} rows of {found[1]} days, the part {row_count} of one",
            next_step="load again; if it stays, drop that table and see what the store logs",
        )
    store.command(f"ALTER TABLE {table} ATTACH PARTITION {int(trading_day)} FROM {staging}")
    store.command(f"DROP TABLE IF EXISTS {staging} SYNC")
    log.warning(
        "part_restored", table=table, rows=row_count, trading_day=trading_day, token=token,
        reason_code=int(ReasonCode.LOAD_COUNT_MISMATCH),
    )  # fmt: skip
