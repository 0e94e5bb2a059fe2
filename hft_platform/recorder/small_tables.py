"""Tables that are filled row by row: the ingestion ledger's copy, the audit, session results.

Why: they hold tens of rows where the record tables hold millions; their columns are listed once,
here, and sent the same way.

Invariants:
1. Equal tokens mean equal rows, as everywhere.
2. The list equals the SQL; a test holds them together.

Operator's page: `docs/store.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hft_platform.recorder import native

if TYPE_CHECKING:
    from hft_platform.recorder.store import Store

_NUMPY = {"UInt8": "u1", "UInt16": "<u2", "UInt32": "<u4", "UInt64": "<u8", "Int64": "<i8"}

SMALL_TABLES: Mapping[str, Mapping[str, str]] = {
    "hft.ingest_segments": {
        "run_id": "String", "log_kind": native.LOG_KIND_TYPE, "segment_id": "UInt32",
        "wal_id": "UInt32", "segment_sha256": "String", "record_count": "UInt64",
        "first_seq": "UInt64", "last_seq": "UInt64",
    },
    "hft.ingest_chunks": {
        "run_id": "String", "log_kind": native.LOG_KIND_TYPE, "segment_id": "UInt32",
        "chunk": "UInt32", "table_name": "String", "trading_day": "UInt32", "row_count": "UInt64",
        "min_seq": "UInt64", "max_seq": "UInt64", "token": "String",
    },
    "hft.ingest_claims": {
        "run_id": "String", "log_kind": native.LOG_KIND_TYPE, "segment_id": "UInt32",
        "owner": "String", "epoch": "UInt64", "ttl_s": "UInt32",
    },
    "hft.session_pnl": {
        "run_id": "String", "evidence_sha256": "String", "alpha_id": "String",
        "alpha_hash": "String", "stage": "String", "mode": "String", "symbol": "String",
        "session_id": "String", "trading_day": "UInt32", "weight_ppm": "UInt64",
        "gross": "Decimal(38, 8)", "fees": "Decimal(38, 8)", "net": "Decimal(38, 8)",
        "max_drawdown": "Decimal(38, 8)", "fill_count": "UInt64", "round_trip_count": "UInt64",
        "halted_by": "UInt32",
    },
    "hft.pnl_snapshots": {
        "run_id": "String", "evidence_sha256": "String", "alpha_id": "String", "mode": "String",
        "trading_day": "UInt32", "instrument_id": "UInt32", "symbol": "String",
        "snapshot_time_ns": "Int64", "position_qty": "Decimal(38, 8)",
        "realized": "Decimal(38, 8)", "unrealized": "Decimal(38, 8)", "fees": "Decimal(38, 8)",
        "tax": "Decimal(38, 8)", "net": "Decimal(38, 8)",
    },
    "hft.session_latency": {
        "run_id": "String", "evidence_sha256": "String", "trading_day": "UInt32",
        "step": "String", "sample_count": "UInt64", "p50_ns": "Int64", "p99_ns": "Int64",
        "p999_ns": "Int64", "max_ns": "Int64",
    },
    "audit.chain": {
        "seq": "UInt64", "prev": "String", "hash": "String", "kind": "String", "who": "String",
        "why": "String", "subject": "String", "facts": "String", "logged_at_ns": "Int64",
        "signature": "String",
    },
    "audit.alpha_verdicts": {
        "alpha_id": "String", "alpha_hash": "String", "gate": "String", "verdict": "String",
        "reasons": "String", "verdict_sha256": "String", "content": "String",
    },
}  # fmt: skip
"""Columns that are sent, by table; columns with a default in SQL are not among them."""


def insert_rows(store: Store, table: str, rows: Sequence[Mapping[str, Any]], *, token: str) -> None:
    """Insert rows of a small table in one block.

    Parameters
    ----------
    store : Store
        Open store.
    table : str
        One of `SMALL_TABLES`.
    rows : sequence of mapping
        Column to text or integer (Any: checked by the encoding); nothing is sent when empty.
    token : str
        Names the content; the table's name is put in front.
    """
    if not rows:
        return
    schema = SMALL_TABLES[table]
    block = native.encode_block(
        [_column(name, kind, [row[name] for row in rows]) for name, kind in schema.items()]
    )
    store.insert_native(table, list(schema), block, token=f"{table}:{token}")


def _column(name: str, type_name: str, values: list[Any]) -> native.Column:
    if type_name == "String":
        return native.texts(name, values)
    if type_name == "Decimal(38, 8)":
        return native.money(name, values)
    kind = "u1" if type_name == native.LOG_KIND_TYPE else _NUMPY[type_name]
    return native.fixed(name, type_name, np.array(values, dtype=kind))
