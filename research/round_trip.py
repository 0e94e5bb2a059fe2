"""Round trip: one session from Parquet into the log, the store, Parquet again: the same records.

Why: "nothing lost, nothing changed" is a claim about every stage, so every stage is hashed, and the
hashes must be equal.

Invariants:
1. The log is written by the runtime's own writer in a paper session, loaded by the loader, and the
   last dataset goes through the same ingestion as any recording.
2. Each stage is read back from where it lies; no stage is handed the bytes of another.
3. Both logs come back from the store whole. A dataset has their books and trades, without the two
   fields that the sequencer fills in; that one step is undone and named.

It judges no alpha. Operator's page: `docs/store.md`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from hft_platform import _core, records
from hft_platform.feed.recording import tape_of
from hft_platform.market.instruments import load_instruments
from hft_platform.recorder import columns
from hft_platform.recorder.loader import load_sealed
from hft_platform.recorder.session_records import session_tape
from hft_platform.recorder.store import open_store
from research import loop, replay_identity
from research.data import catalog
from research.data.ingest import ingest
from research.data.store_source import StoredSession

if TYPE_CHECKING:
    from hft_platform.recorder.store import Store

RUN_ID = "round_trip"
LOGS = ("market", "orders")
SEGMENT_BYTES = 20 << 20
"""So small that a day has several, so large that a chunk of the loader ends within one."""


def check(source: str, alpha_id: str, workspace: Path) -> dict[str, Any]:
    """Send one session through every stage and hash it at each.

    Parameters
    ----------
    source : str
        Folder of recordings, or ``generator``.
    alpha_id : str
        A bundled alpha; its first instrument's largest session is taken.
    workspace : Path
        New folder for datasets, logs and store.

    Returns
    -------
    dict
        ``is_identical``, ``symbol``, ``session_id``, ``stages`` (``name``, ``what``, ``records``,
        ``sha256``, and ``expected``, the stage whose hash it must have) and ``sizes``.
    """
    loop.make_datasets(workspace, source)
    session_dir = workspace / "sessions" / RUN_ID
    ran = replay_identity.decide_parquet(
        workspace, alpha_id, session_dir, segment_bytes=SEGMENT_BYTES
    )
    first = _session(workspace, ran["symbol"], ran["session_id"])
    stages = [_stage("dataset", "books and trades", catalog.load_tape(first), None)]
    logged = {kind: _core.read_log(str(session_dir / kind))["tape"] for kind in LOGS}
    stages.append(_stage("log", "books and trades", _market_rows(logged["market"]), "dataset"))
    stages += [_stage(f"log {kind}", "every record", logged[kind], None) for kind in LOGS]
    again = workspace / "again"
    with open_store(workspace) as store:
        report = load_sealed(workspace, store)
        if report.problems:
            return {"is_identical": False, "problems": report.problems, "stages": stages}
        stages += [
            _stage(
                f"store {kind}", "every record", session_tape(store, RUN_ID, kind), f"log {kind}"
            )
            for kind in LOGS
        ]
        ingest(StoredSession(store, RUN_ID), again, load_instruments())
        stored_bytes = _stored_bytes(store)
    last = _session(again, ran["symbol"], ran["session_id"])
    stages.append(_stage("dataset again", "books and trades", catalog.load_tape(last), "dataset"))
    by_name = {row["name"]: row["sha256"] for row in stages}
    return {
        "is_identical": ran["records"] > 0
        and all(
            row["sha256"] == by_name[row["expected"]]
            for row in stages
            if row["expected"] is not None
        ),
        "symbol": ran["symbol"],
        "session_id": ran["session_id"],
        "decisions": ran["decisions"],
        "stages": stages,
        "segments": report.segments_loaded,
        "sizes": _sizes(session_dir, logged, stored_bytes),
    }


def _session(workspace: Path, symbol: str, session_id: str) -> catalog.SessionRef:
    return next(
        ref
        for ref in catalog.dataset_of(workspace, [symbol]).sessions
        if (ref.symbol, ref.session_id) == (symbol, session_id)
    )


def _stage(name: str, what: str, tape: bytes, expected: str | None) -> dict[str, Any]:
    count = sum(int(part.size) for part in records.split(tape).values())
    sha256 = records.tape_sha256(tape)
    return {
        "name": name, "what": what, "records": count, "sha256": sha256, "expected": expected,
    }  # fmt: skip


def _market_rows(tape: bytes) -> bytes:
    """Books and trades of a market log as a dataset has them: not sequenced."""
    parts = records.split(tape)
    books, trades = parts["Book"].copy(), parts["Trade"].copy()
    for rows in (books, trades):
        rows["input_seq"] = 0
        rows["sequence_time_ns"] = 0
    return tape_of(books, trades)


def _stored_bytes(store: Store) -> int:
    """Bytes of the record tables on disk, every partition merged into one part."""
    for table in columns.TABLES.values():
        store.command(f"OPTIMIZE TABLE {table} FINAL")
    names = ", ".join(f"'{table.removeprefix('hft.')}'" for table in columns.TABLES.values())
    found = store.rows(
        "SELECT sum(bytes_on_disk) FROM system.parts"  # noqa: S608  # our own table names
        f" WHERE active AND database = 'hft' AND table IN ({names})"
    )
    return int(found[0][0])


def _sizes(session_dir: Path, logged: dict[str, bytes], stored_bytes: int) -> dict[str, Any]:
    """Bytes of the session as log files, as JSON lines and in the store."""
    wal_bytes = sum(
        path.stat().st_size for kind in LOGS for path in (session_dir / kind).glob("*.seg")
    )
    counts = [part.size for tape in logged.values() for part in records.split(tape).values()]
    count = int(sum(counts))
    return {
        "records": count,
        "wal_bytes": wal_bytes,
        "json_bytes": sum(json_bytes(tape) for tape in logged.values()),
        "store_bytes": stored_bytes,
        "wal_bytes_per_record": wal_bytes / count,
    }


def json_bytes(tape: bytes) -> int:
    """Size of a tape as JSON lines: an object a record, compact, prices and quantities in units.

    Parameters
    ----------
    tape : bytes
        Records of any types.

    Returns
    -------
    int
        Bytes, line ends included.
    """
    total = 0
    for name, rows in records.split(tape).items():
        if not rows.size:
            continue
        scaled = {column.field for column in columns.COLUMNS[name] if column.is_decimal}
        fields = [
            field for field in rows.dtype.names or ()
            if field not in ("record_bytes", "record_type", "reserved_a", "reserved_b")
        ]  # fmt: skip
        values = [_json_values(rows[field], is_scaled=field in scaled) for field in fields]
        for row in zip(*values, strict=True):
            line = {"type": name, **dict(zip(fields, row, strict=True))}
            total += len(json.dumps(line, separators=(",", ":"))) + 1
    return total


def _json_values(column: npt.NDArray[Any], *, is_scaled: bool) -> list[Any]:
    if column.dtype.kind == "V":
        return [bytes(value).hex() for value in column]
    if column.dtype.kind == "S":
        return [value.decode("ascii", "replace") for value in column]
    found: list[Any] = (column / records.SCALE if is_scaled else column).tolist()
    return found


def main(argv: list[str] | None = None) -> int:
    """Check one session; 0 when every stage has the hash it must have."""
    parser = argparse.ArgumentParser(prog="make round-trip", description=__doc__)
    parser.add_argument("--source", default="generator", help="folder of recordings, or generator")
    parser.add_argument("--alpha", help="bundled alpha that trades the session")
    parser.add_argument("--workspace", type=Path, default=Path("build") / "round-trip")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    arguments = parser.parse_args(argv)
    alpha_id = arguments.alpha or (
        "gen_imbalance_taker" if arguments.source == "generator" else "txf_ofi_taker"
    )
    result = check(arguments.source, alpha_id, arguments.workspace)
    if arguments.json:
        sys.stdout.write(json.dumps(result, indent=1) + "\n")
    else:
        _show(result)
    return 0 if result["is_identical"] else 1


def _show(result: dict[str, Any]) -> None:
    console = Console()
    table = Table(title=f"{result.get('symbol')} {result.get('session_id')}")
    for column in ("stage", "holds", "records", "SHA-256 (first half)", "must equal"):
        table.add_column(column)
    for row in result["stages"]:
        table.add_row(
            row["name"], row["what"], f"{row['records']:,}", row["sha256"][:32],
            row["expected"] or "",
        )  # fmt: skip
    console.print(table)
    for problem in result.get("problems", []):
        console.print(problem)
    if sizes := result.get("sizes"):
        wal = sizes["wal_bytes"]
        console.print(
            f"log {wal / 1e6:.1f} MB, {sizes['wal_bytes_per_record']:.0f} bytes a record;"
            f" as JSON lines {sizes['json_bytes'] / wal:.2f} times that,"
            f" in the store {wal / sizes['store_bytes']:.1f} times less"
        )
    console.print("identical" if result["is_identical"] else "NOT identical")


if __name__ == "__main__":
    sys.exit(main())
