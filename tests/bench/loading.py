"""Loading beside clickhouse-connect's own inserts of the same rows, in the same process and run.

`loader.over_native` is our rows per second, from sealed segments on disk to verified rows in the
store, over those of `client.insert` with the same columns as numpy arrays, made before the clock
starts. Its tables have Int64 where ours have Decimal: the client encodes a decimal value by value
through Python objects, so anything else would be a comparison with that. No views hang on them.
`loader.over_raw` is over `client.raw_insert` of our own blocks, made before: the engine's own rate.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from hft_platform import _core
from hft_platform.recorder import columns, segments
from hft_platform.recorder.loader import load_sealed
from hft_platform.recorder.segments import LoadedSegment, Part
from hft_platform.recorder.store import Store, open_store

RUNS = 3
_INSERT = {"async_insert": 0}


def main() -> int:
    """Measure in a fresh workspace: ``python -m tests.bench.loading TAPE WORKSPACE``."""
    tape, ws = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
    for run in range(RUNS):
        folder = ws / "sessions" / f"bench-{run}" / "market"
        folder.mkdir(parents=True)
        with _core.WalWriter(str(folder), 7, "market") as writer:
            writer.append(tape)
    files, _ = segments.find_segments(segments.find_sessions(ws))
    with open_store(ws) as store:
        # The engine's first inserts are slower; nobody is charged for them.
        for rate in (_native, _raw):
            rate(store, segments.read(files[0]), "warm")
        native = sum(_native(store, segments.read(file), "n") for file in files)
        raw = sum(_raw(store, segments.read(file), "r") for file in files)
        started = time.perf_counter()
        report = load_sealed(ws, store)
        seconds = time.perf_counter() - started
    rows = report.rows_inserted
    sys.stdout.write(
        json.dumps(
            {"rows": rows, "ours": rows / seconds, "native": rows / native, "raw": rows / raw}
        )
        + "\n"
    )
    return 0


def _parts(segment: LoadedSegment) -> list[Part]:
    return [part for chunk in range(segment.chunk_count) for part in segment.parts(chunk)]


def _native(store: Store, segment: LoadedSegment, name: str) -> float:
    client, seconds = store._client, 0.0
    for part in _parts(segment):
        table = _copy(store, part.record_name, name, is_decimal=False)
        data: list[Any] = [
            [segment.origin.run_id] * part.seqs.size,
            np.full(part.seqs.size, segment.origin.wal_id, "<u4"),
            [segment.origin.log_kind] * part.seqs.size,
            np.full(part.seqs.size, segment.origin.segment_id, "<u4"),
            part.seqs,
        ]
        for column in columns.COLUMNS[part.record_name]:
            values = part.rows[column.field]
            if column.level_index is not None:
                values = values[:, column.level_index]
            data.append(np.ascontiguousarray(values))
        names = columns.column_names(part.record_name)
        started = time.perf_counter()
        client.insert(table, data, column_names=names, column_oriented=True, settings=_INSERT)
        seconds += time.perf_counter() - started
    return seconds


def _raw(store: Store, segment: LoadedSegment, name: str) -> float:
    client, seconds = store._client, 0.0
    for part in _parts(segment):
        table = _copy(store, part.record_name, name, is_decimal=True)
        block = columns.encode_records(
            part.record_name, part.rows, origin=segment.origin, seqs=part.seqs
        )
        names = columns.column_names(part.record_name)
        started = time.perf_counter()
        client.raw_insert(table, names, block, settings=_INSERT, fmt="Native")
        seconds += time.perf_counter() - started
    return seconds


def _copy(store: Store, record_name: str, name: str, *, is_decimal: bool) -> str:
    """A table as ours, made once; with integers in the place of decimals for the client."""
    ours = columns.TABLES[record_name]
    table = f"bench.{ours.partition('.')[2]}_{name}"
    store.command("CREATE DATABASE IF NOT EXISTS bench")
    if is_decimal:
        store.command(f"CREATE TABLE IF NOT EXISTS {table} AS {ours}")
    else:
        ((statement,),) = store.rows(
            "SELECT create_table_query FROM system.tables WHERE database || '.' || name ="
            " {table:String}",
            {"table": ours},
        )
        head = f"CREATE TABLE IF NOT EXISTS {table} "
        store.command(
            str(statement)
            .replace(f"CREATE TABLE {ours} ", head, 1)
            .replace("Decimal(18, 8)", "Int64")
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
