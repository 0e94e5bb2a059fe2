"""RecorderMode: whether the store is filled while a session runs, or when its segments are sealed.

Why: a desk that watches its session in SQL wants rows within a second; a desk that wants nothing
beside the session wants none. Both get the same rows in the end.

Invariants:
1. The log is written first, by the session alone, in both modes; no mode lets the store be asked
   before a record is durable, and no failure of a store reaches a session.
2. ``direct`` needs a server: one process at a time opens an embedded store.

Operator's page: `docs/recorder.md`.
"""

from __future__ import annotations

from enum import StrEnum

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder.store_target import parse_dsn


class RecorderMode(StrEnum):
    """How records reach the store."""

    WAL_FIRST = "wal_first"
    DIRECT = "direct"


def require_server(dsn: str | None) -> str:
    """Refuse ``direct`` on an embedded store.

    Parameters
    ----------
    dsn : str or None
        Where the store is; None is the workspace's embedded one.

    Returns
    -------
    str
        The server's DSN.

    Raises
    ------
    PlatformError
        STORE_NEEDS_SERVER.
    """
    if dsn is None or parse_dsn(dsn).is_embedded:
        raise PlatformError(
            ReasonCode.STORE_NEEDS_SERVER,
            "recorder mode direct needs a server, the store is the embedded one"
            f" ({dsn or 'store.dsn is not set'})",
        )
    return dsn
