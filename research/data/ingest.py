"""Ingestion: the one way from any source of market data to a dataset.

Why: recordings, raw lines, logs and generated markets must be judged by the same rules, or a gate
compares what cannot be compared.

Invariants:
1. Every row of the source is in a session of the dataset or counted under a reason code.
2. The order of kept rows is (receive time, trades before books, source order); times are unique.
3. The same source and seed give the same dataset; an error leaves no dataset behind.

It computes no features. Operator's page: `docs/recordings.md`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.feed.recording import Records
from hft_platform.market.instruments import Instrument, InstrumentTable
from hft_platform.market.sessions import Session, assign_sessions
from research.data import checks, quality, receive_times
from research.data.datasets import Dataset, DatasetWriter
from research.data.rows import (
    GAP_BEFORE,
    SESSION_START,
    Batch,
    Rows,
    Source,
    concatenate,
    lacks_exchange_time,
    lacks_receive_time,
)
from research.data.sources import open_folder
from research.data.store_source import StoredSession
from research.data.tape_source import GeneratedTapes, log_folder

if TYPE_CHECKING:
    from research.data.generator import GeneratorSpec

Progress = Callable[[str], None]


@dataclass(slots=True)
class _Collected:
    """What is known while sources are read."""

    reports: list[dict[str, Any]] = field(default_factory=list)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    outside: dict[str, Counter[str]] = field(default_factory=dict)
    malformed_lines: int = 0


@dataclass(slots=True)
class _Pending:
    """Rows of a session that the next batch of its symbol may go on with."""

    session: Session
    parts: list[Rows]


def ingest(
    source: Path | GeneratorSpec | StoredSession,
    ws: Path,
    instruments: InstrumentTable,
    *,
    seed: int = receive_times.DEFAULT_SEED,
    progress: Progress | None = None,
) -> Dataset:
    """Turn a source of market data into a dataset.

    Parameters
    ----------
    source : Path, GeneratorSpec or StoredSession
        Folder of recordings (tidy Parquet, raw Binance lines), folder of a log, a market to
        generate, or a session in the store.
    ws : Path
        Workspace folder; the dataset goes to ``datasets/<dataset_id>``.
    instruments : InstrumentTable
        Resolves names, sessions and grids.
    seed : int, optional
        Of the receive times that are made where a source has none.
    progress : callable, optional
        Called with a line of text at every step.

    Returns
    -------
    Dataset
        Complete; the one that was there if the source was ingested before.

    Raises
    ------
    PlatformError
        UNKNOWN_INSTRUMENT, SCHEMA_MISMATCH, FILE_DAMAGED or the log's own codes; or the most
        frequent reason when no row at all was kept.
    """
    tell = progress or _silent
    opened = open_source(source, instruments)
    collected = _Collected()
    pending: dict[str, _Pending] = {}
    with DatasetWriter(ws, opened.name) as writer:
        for number, batch in enumerate(opened.batches(instruments), start=1):
            tell(
                f"{opened.name}: {number} of {opened.batch_count}: {batch.symbol} {batch.name},"
                f" {len(batch.rows):,} rows"
            )
            _note_inputs(batch, collected)
            instrument = instruments.by_symbol(batch.symbol)
            for session, rows in _sessions_of(batch, instrument, collected):
                last = pending.pop(batch.symbol, None)
                if last is not None and last.session.session_id == session.session_id:
                    last.parts.append(rows)
                    pending[batch.symbol] = last
                    continue
                if last is not None:
                    _close(last, instrument, writer, collected, seed)
                pending[batch.symbol] = _Pending(session, [rows])
        for symbol, last in sorted(pending.items()):
            _close(last, instruments.by_symbol(symbol), writer, collected, seed)
        report = _report(opened, collected)
        if not writer.session_count:
            raise _nothing_kept(opened.name, report)
        tell(f"{opened.name}: writing {writer.session_count} sessions")
        symbols = sorted({row["symbol"] for row in collected.reports})
        return writer.finish(
            inputs=collected.inputs,
            method=receive_times.method(seed),
            instruments={symbol: instruments.by_symbol(symbol).as_dict() for symbol in symbols},
            quality=report,
        )


def open_source(
    source: Path | GeneratorSpec | StoredSession, instruments: InstrumentTable
) -> Source:
    """Find out what a source is.

    Raises
    ------
    PlatformError
        FILE_DAMAGED when there is no such folder; see `open_folder` for the rest.
    """
    if isinstance(source, StoredSession):
        return source
    if not isinstance(source, Path):
        return GeneratedTapes(source)
    if not source.is_dir():
        raise PlatformError(
            ReasonCode.FILE_DAMAGED,
            f"{source} is no folder",
            next_step="make demo DATA=<folder with recordings>",
        )
    return log_folder(source) or open_folder(source, instruments)


def _sessions_of(
    batch: Batch, instrument: Instrument, collected: _Collected
) -> list[tuple[Session, Rows]]:
    """Check a batch's rows and split it by session; rows outside every session are counted."""
    rows = batch.rows
    _fill_exchange_times(rows)
    checks.check_times(rows)
    times = np.concatenate([rows.books["exchange_time_ns"], rows.trades["exchange_time_ns"]])
    faults = np.concatenate([rows.book_fault, rows.trade_fault])
    # A time out of range would ask for sessions of another century.
    sane = np.where(faults == ReasonCode.VALUE_OUT_OF_RANGE, np.median(times), times)
    sessions, index, preopen = assign_sessions(instrument, sane.astype(np.int64))
    index[times <= 0] = -1
    cut = len(rows.books)
    book_index, trade_index = index[:cut], index[cut:]
    checks.check_session(rows.book_fault, rows.books, outside=book_index < 0, preopen=preopen[:cut])
    checks.check_session(
        rows.trade_fault, rows.trades, outside=trade_index < 0, preopen=preopen[cut:]
    )
    checks.check_books(rows.books, rows.book_fault, instrument)
    checks.check_trades(rows.trades, rows.trade_fault, instrument)
    for stream, stream_faults in rows.streams():
        checks.check_duplicates(stream, stream_faults)
        stream["instrument_id"] = instrument.instrument_id
    lost = rows.select(book_index < 0, trade_index < 0)
    collected.outside.setdefault(batch.symbol, Counter()).update(
        quality.rejected_by_code(lost.book_fault, lost.trade_fault)
    )
    split = []
    for place, session in enumerate(sessions):
        part = rows.select(book_index == place, trade_index == place)
        for stream, _ in part.streams():
            stream["trading_day"] = session.trading_day
        split.append((session, part))
    return split


def _fill_exchange_times(rows: Rows) -> None:
    """Give rows without an exchange time the receive time, moved by the recorder's clock error."""
    missing = [lacks_exchange_time(stream) for stream, _ in rows.streams()]
    if not any(mask.any() for mask in missing):
        return
    both = [
        (stream["receive_time_ns"] - stream["exchange_time_ns"])[
            ~mask & ~lacks_receive_time(stream)
        ]
        for (stream, _), mask in zip(rows.streams(), missing, strict=True)
    ]
    offset = receive_times.clock_offset(np.concatenate(both))
    for (stream, _), mask in zip(rows.streams(), missing, strict=True):
        stream["exchange_time_ns"][mask] = stream["receive_time_ns"][mask] + offset


def _close(
    pending: _Pending,
    instrument: Instrument,
    writer: DatasetWriter,
    collected: _Collected,
    seed: int,
) -> None:
    """Order a complete session, report on it and write what was kept."""
    session, rows = pending.session, concatenate(pending.parts)
    for stream, faults in rows.streams():
        checks.check_order(stream, faults)
    kept = rows.select(rows.book_fault == 0, rows.trade_fault == 0)
    ordered = receive_times.order_rows(
        kept, symbol=instrument.symbol, session_id=session.session_id, seed=seed
    )
    books, trades = _stamped(kept, ordered, instrument.gap_ns)
    report = quality.session_report(
        session, instrument.symbol, rows, books=books, trades=trades, ordered=ordered
    )
    collected.reports.append(report)
    if len(kept):
        writer.add(session, instrument.symbol, books, trades, report)


def _stamped(kept: Rows, ordered: receive_times.Ordered, gap_ns: int) -> tuple[Records, Records]:
    """Books and trades in final order, with receive times and the marks of starts and gaps."""
    count, cut = len(kept), len(kept.books)
    times = np.concatenate([kept.books["exchange_time_ns"], kept.trades["exchange_time_ns"]])
    marks = np.zeros(count, dtype=np.uint32)
    if count:
        latest = np.maximum.accumulate(times[ordered.order])
        marks[1:][np.diff(latest) > gap_ns] = GAP_BEFORE
        marks[0] |= SESSION_START
    receive = np.empty(count, dtype=np.int64)
    flags = np.empty(count, dtype=np.uint32)
    receive[ordered.order], flags[ordered.order] = ordered.receive_time_ns, marks
    parts = []
    for stream, place in ((kept.books, slice(0, cut)), (kept.trades, slice(cut, count))):
        stream["receive_time_ns"] = receive[place]
        stream["flags"] |= flags[place]
        parts.append(stream[np.argsort(receive[place], kind="stable")])
    return parts[0], parts[1]


def _note_inputs(batch: Batch, collected: _Collected) -> None:
    collected.malformed_lines += int(batch.notes.get("malformed_lines", 0))
    known = {(row["symbol"], row["sha256"]) for row in collected.inputs}
    for row in batch.inputs:
        if (batch.symbol, row["sha256"]) not in known:
            collected.inputs.append(
                {**row, "symbol": batch.symbol, "kind": batch.kind, "notes": batch.notes}
            )


def _report(opened: Source, collected: _Collected) -> dict[str, Any]:
    sessions = sorted(
        collected.reports,
        key=lambda row: (row["symbol"], row.get("first_ns", 0), row["session_id"]),
    )
    outside = [
        quality.outside_report(symbol, dict(sorted(counts.items())))
        for symbol, counts in sorted(collected.outside.items())
        if counts
    ]
    rows = [*sessions, *outside]
    rejected: Counter[str] = Counter()
    for row in rows:
        rejected.update(row["rejected"])
    if collected.malformed_lines:
        rejected[code_name(ReasonCode.MALFORMED_LINE)] += collected.malformed_lines
    return {
        "name": opened.name,
        "sessions": rows,
        "skipped": opened.skipped,
        "totals": {
            "rows_in": sum(row["rows_in"] for row in rows) + collected.malformed_lines,
            "rows_out": sum(row["rows_out"] for row in rows),
            "rejected": dict(sorted(rejected.items())),
        },
    }


def _nothing_kept(name: str, report: dict[str, Any]) -> PlatformError:
    rejected = report["totals"]["rejected"]
    worst = max(sorted(rejected), key=lambda code: rejected[code], default="SCHEMA_MISMATCH")
    shown = ", ".join(f"{code} {count}" for code, count in rejected.items()) or "no rows at all"
    return PlatformError(
        ReasonCode[worst],
        f"{name}: none of {report['totals']['rows_in']} rows could be kept: {shown}",
        next_step="check the instrument's tick, lot and calendar in config/instruments",
        facts=report["totals"],
    )


def _silent(line: str) -> None:
    """Take a progress line and do nothing with it."""
