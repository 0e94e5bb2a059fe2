"""Stylized facts of a market: what generated and real sessions have in common, in numbers.

Why: a generated market may stand in for a real one only where its spreads, gaps, queues, signs and
volatility lie in stated bands that real sessions also lie in.

Invariants:
1. Facts are pooled over sessions; nothing is computed across a session's edge.
2. A fact that cannot be computed is NaN, and NaN lies in no band.
3. Only columns named in `Ticks` are used, so recordings and tapes are treated alike.

``python -m research.data.stylized_facts --recordings DIR --write docs/generator.md`` rewrites the
table in the docs. It judges no alpha. Operator's page: `docs/generator.md`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from hft_platform import records
from hft_platform.config.canonical import atomic_write
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import load_instruments
from research.data.generator import Band, load_generator, spec_by_name, tapes

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LEVEL_COUNT = 5
SECOND_NS = 1_000_000_000
SIGN_LAGS = 10
GENERATED_SESSIONS = 60
"""Sessions of a generated market that are compared: ten hours, however long the demo is."""
STALE_NS = 10 * SECOND_NS
"""A second whose book is older than this is left out: the feed had a hole."""
TABLE_BEGIN = "<!-- stylized facts: made by python -m research.data.stylized_facts; do not edit -->"
TABLE_END = "<!-- end of stylized facts -->"


@dataclass(frozen=True, slots=True)
class Ticks:
    """One session in ticks and lots.

    Attributes
    ----------
    book_time_ns : ndarray of int64, shape (n,)
        Exchange time of each book, not decreasing.
    bid_price, ask_price : ndarray of float64, shape (n, 5)
        Ticks, best first.
    bid_qty, ask_qty : ndarray of float64, shape (n, 5)
        Lots.
    trade_time_ns : ndarray of int64, shape (m,)
        Exchange time of each print, not decreasing.
    trade_price, trade_qty, trade_side : ndarray of float64, shape (m,)
        Ticks, lots, +1 for an aggressive buyer.
    """

    book_time_ns: IntArray
    bid_price: FloatArray
    bid_qty: FloatArray
    ask_price: FloatArray
    ask_qty: FloatArray
    trade_time_ns: IntArray
    trade_price: FloatArray
    trade_qty: FloatArray
    trade_side: FloatArray

    @property
    def mid(self) -> FloatArray:
        """Mid of each book, ticks."""
        return (self.bid_price[:, 0] + self.ask_price[:, 0]) / 2.0


@dataclass(frozen=True, slots=True)
class Fact:
    """One number that is compared.

    Attributes
    ----------
    key : str
        Name in `generator.yaml`.
    label, unit : str
        For the table.
    """

    key: str
    label: str
    unit: str


FACTS: tuple[Fact, ...] = (
    Fact("books_per_s", "books", "1/s"),
    Fact("trades_per_s", "prints", "1/s"),
    Fact("spread_p05_ticks", "spread, 5 %", "ticks"),
    Fact("spread_p50_ticks", "spread, median", "ticks"),
    Fact("spread_p95_ticks", "spread, 95 %", "ticks"),
    Fact("gap_p10_ms", "gap between books, 10 %", "ms"),
    Fact("gap_p50_ms", "gap, median", "ms"),
    Fact("gap_p90_ms", "gap, 90 %", "ms"),
    Fact("gap_p99_ms", "gap, 99 %", "ms"),
    *(
        Fact(f"sign_autocorrelation_{lag}", f"trade sign autocorrelation, lag {lag}", "")
        for lag in range(1, SIGN_LAGS + 1)
    ),
    *(
        fact
        for level in range(1, LEVEL_COUNT + 1)
        for fact in (
            Fact(f"queue_mean_l{level}_lots", f"queue, level {level}, mean", "lots"),
            Fact(f"queue_median_l{level}_lots", f"queue, level {level}, median", "lots"),
        )
    ),
    Fact("ofi_same_bin_r2_1s", "OFI R², same second", ""),
    Fact("ofi_next_bin_r2_1s", "OFI R², next second", ""),
    Fact("imbalance_next_second_correlation", "queue imbalance with next second's move", ""),
    Fact("volatility_1s_ticks", "volatility, 1 s", "ticks"),
    Fact("volatility_10s_ticks", "volatility, 10 s", "ticks"),
    Fact("move_autocorrelation_1s", "autocorrelation of 1 s moves, lag 1", ""),
    Fact("trades_outside_share", "prints outside the shown best", ""),
    Fact("print_mean_lots", "print, mean", "lots"),
)


def facts_of(sessions: Iterable[Ticks]) -> dict[str, float]:
    """Compute every fact of `FACTS`, pooled over sessions.

    Parameters
    ----------
    sessions : iterable of Ticks
        Sessions of one market.

    Returns
    -------
    dict of str to float
        By `Fact.key`; NaN where there is too little data.
    """
    rows = [session for session in sessions if session.book_time_ns.size > 1]
    if not rows:
        return {fact.key: float("nan") for fact in FACTS}
    facts = rates(rows) | spread_quantiles(rows) | gap_quantiles(rows) | sign_autocorrelation(rows)
    facts |= queue_sizes(rows) | per_second(rows)
    facts["trades_outside_share"] = trades_outside_share(rows)
    facts["print_mean_lots"] = _mean(np.concatenate([row.trade_qty for row in rows]))
    return {fact.key: facts[fact.key] for fact in FACTS}


def rates(sessions: Sequence[Ticks]) -> dict[str, float]:
    """Books and prints per second of session time."""
    seconds = sum(int(row.book_time_ns[-1] - row.book_time_ns[0]) / SECOND_NS for row in sessions)
    return {
        "books_per_s": sum(row.book_time_ns.size for row in sessions) / seconds,
        "trades_per_s": sum(row.trade_time_ns.size for row in sessions) / seconds,
    }


def spread_quantiles(sessions: Sequence[Ticks]) -> dict[str, float]:
    """Quantiles of best ask minus best bid over books, ticks."""
    spread = np.concatenate([row.ask_price[:, 0] - row.bid_price[:, 0] for row in sessions])
    return {f"spread_p{q:02}_ticks": float(np.percentile(spread, q)) for q in (5, 50, 95)}


def gap_quantiles(sessions: Sequence[Ticks]) -> dict[str, float]:
    """Quantiles of the time between books, ms."""
    gaps = np.concatenate([np.diff(row.book_time_ns) for row in sessions]) / 1e6
    return {f"gap_p{q:02}_ms": float(np.percentile(gaps, q)) for q in (10, 50, 90, 99)}


def sign_autocorrelation(sessions: Sequence[Ticks]) -> dict[str, float]:
    """Autocorrelation of the aggressor's sign over prints, lags 1 to 10."""
    found = {}
    for lag in range(1, SIGN_LAGS + 1):
        pairs = [(row.trade_side[:-lag], row.trade_side[lag:]) for row in sessions]
        found[f"sign_autocorrelation_{lag}"] = _correlation(
            np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])
        )
    return found


def queue_sizes(sessions: Sequence[Ticks]) -> dict[str, float]:
    """Mean and median quantity of each level, both sides together, lots."""
    found = {}
    for level in range(LEVEL_COUNT):
        lots = np.concatenate(
            [side[:, level] for row in sessions for side in (row.bid_qty, row.ask_qty)]
        )
        found[f"queue_mean_l{level + 1}_lots"] = float(np.mean(lots))
        found[f"queue_median_l{level + 1}_lots"] = float(np.median(lots))
    return found


def order_flow_imbalance(session: Ticks) -> FloatArray:
    """Best-level order flow imbalance of each book against the one before, lots; 0 for the first.

    Notes
    -----
    Cont, Kukanov, Stoikov (2014), J. Financial Econometrics 12(1), on snapshots: what happened
    between two snapshots is seen as one event.
    """
    bid, ask = session.bid_price[:, 0], session.ask_price[:, 0]
    bid_qty, ask_qty = session.bid_qty[:, 0], session.ask_qty[:, 0]
    up, down = np.diff(bid), np.diff(ask)
    flow = np.zeros(bid.size)
    flow[1:] += np.where(up >= 0, bid_qty[1:], 0.0) - np.where(up <= 0, bid_qty[:-1], 0.0)
    flow[1:] -= np.where(down <= 0, ask_qty[1:], 0.0) - np.where(down >= 0, ask_qty[:-1], 0.0)
    return flow


def per_second(sessions: Sequence[Ticks]) -> dict[str, float]:
    """Facts on a grid of seconds: OFI and imbalance against moves, volatility."""
    bins = [_seconds(row) for row in sessions]
    same = [(flow, move) for flow, move, _ in bins]
    following = [(flow[:-1], move[1:]) for flow, move, _ in bins]
    pressed = [(imbalance, move) for _, move, imbalance in bins]
    adjacent = [(move[:-1], move[1:]) for _, move, _ in bins]
    moves = np.concatenate([move for _, move, _ in bins])
    tens = np.concatenate([_sums_of_ten(move) for _, move, _ in bins])
    return {
        "ofi_same_bin_r2_1s": _pooled(same) ** 2,
        "ofi_next_bin_r2_1s": _pooled(following) ** 2,
        "imbalance_next_second_correlation": _pooled(pressed),
        "move_autocorrelation_1s": _pooled(adjacent),
        "volatility_1s_ticks": _deviation(moves),
        "volatility_10s_ticks": _deviation(tens),
    }


def trades_outside_share(sessions: Sequence[Ticks]) -> float:
    """Share of prints outside the best prices of the last book stamped before them."""
    outside, total = 0, 0
    for row in sessions:
        shown = np.searchsorted(row.book_time_ns, row.trade_time_ns, side="left") - 1
        known = shown >= 0
        price, book = row.trade_price[known], shown[known]
        outside += int(np.sum((price > row.ask_price[book, 0]) | (price < row.bid_price[book, 0])))
        total += int(np.sum(known))
    return outside / total if total else float("nan")


def ticks_of_tape(tape: bytes, tick_size: int, lot_size: int) -> Ticks:
    """A generated or recorded tape in ticks and lots, or clips of lots.

    Parameters
    ----------
    tape : bytes
        Records of one instrument and session.
    tick_size, lot_size : int
        Scaled, of the instrument.

    Returns
    -------
    Ticks
        Arrays in record order.
    """
    parts = records.split(tape)
    book, trade = parts["Book"], parts["Trade"]
    return Ticks(
        book_time_ns=book["exchange_time_ns"].astype(np.int64),
        bid_price=book["bid_price"] / tick_size,
        bid_qty=book["bid_qty"] / lot_size,
        ask_price=book["ask_price"] / tick_size,
        ask_qty=book["ask_qty"] / lot_size,
        trade_time_ns=trade["exchange_time_ns"].astype(np.int64),
        trade_price=trade["price"] / tick_size,
        trade_qty=trade["qty"] / lot_size,
        trade_side=trade["aggressor_side"].astype(np.float64),
    )


def ticks_of_recording(book_file: Path, trades_file: Path) -> dict[str, Ticks]:
    """Sessions of a recorded TXF day, by name; rows outside sessions and torn books are left out.

    Parameters
    ----------
    book_file, trades_file : Path
        Tidy Parquet with a ``session`` column; prices in ticks of 1, quantities in lots.

    Returns
    -------
    dict of str to Ticks
        ``day`` and ``night``, where there are any.

    Raises
    ------
    PlatformError
        SCHEMA_MISMATCH when a column is missing.
    """
    books = _read(book_file).drop_nulls().sort("ts", maintain_order=True)
    trades = _read(trades_file).drop_nulls().sort("ts", maintain_order=True)
    found = {}
    for name in ("day", "night"):
        book = books.filter(pl.col("session") == name)
        trade = trades.filter(pl.col("session") == name)
        if book.height > 1:
            found[name] = _ticks_of_frames(book, trade)
    return found


def recorded_sessions(folder: Path) -> dict[str, Ticks]:
    """Every TXF session of a recordings folder, by date and name."""
    found = {}
    for book_file in sorted(folder.rglob("TXF*_book.parquet")):
        trades_file = book_file.with_name(book_file.name.replace("_book", "_trades"))
        day = book_file.name.split("_")[1]
        for name, ticks in ticks_of_recording(book_file, trades_file).items():
            found[f"{day} {name}"] = ticks
    if not found:
        raise PlatformError(
            ReasonCode.FILE_DAMAGED,
            f"{folder} holds no TXF*_book.parquet",
            next_step="name the folder with the TXF recordings",
        )
    return found


def generated_sessions(market: str, config_dir: Path | None = None) -> list[Ticks]:
    """The first `GENERATED_SESSIONS` sessions of a market of the settings."""
    spec = spec_by_name(market, config_dir, session_count=GENERATED_SESSIONS)
    instrument = load_instruments(config_dir).by_symbol(spec.symbol)
    clip = instrument.lot_size * spec.clip_lots
    return [ticks_of_tape(tape, instrument.tick_size, clip) for _, tape in tapes(spec)]


def outside_bands(facts: Mapping[str, float], bands: Mapping[str, Band]) -> dict[str, float]:
    """Facts that lie outside their band, NaN included."""
    return {
        key: facts[key] for key, band in bands.items() if not band.low <= facts[key] <= band.high
    }


def table(columns: Mapping[str, Mapping[str, float]], bands: Mapping[str, Band]) -> str:
    """Markdown: a row a fact, a column a market, its band, and ✗ where a value is outside.

    Parameters
    ----------
    columns : mapping of str to mapping of str to float
        Heading to facts.
    bands : mapping of str to Band
        By `Fact.key`.

    Returns
    -------
    str
        Lines of the table.
    """
    lines = [
        "| fact | unit | band | " + " | ".join(columns) + " |",
        "|---|---|---|" + "---|" * len(columns),
    ]
    for fact in FACTS:
        band = bands[fact.key]
        cells = []
        for facts in columns.values():
            value = facts[fact.key]
            mark = "" if band.low <= value <= band.high else " ✗"
            cells.append(f"{_short(value)}{mark}")
        row = f"| {fact.label} | {fact.unit} | {_short(band.low)} to {_short(band.high)} | "
        lines.append(row + " | ".join(cells) + " |")
    return "\n".join(lines)


def with_table(page: str, lines: str) -> str:
    """The page with its table replaced."""
    begin, end = page.find(TABLE_BEGIN), page.find(TABLE_END)
    if begin < 0 or end < begin:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"the page has no place for the table: {TABLE_BEGIN!r} and {TABLE_END!r} are missing",
            next_step="put both lines back",
        )
    return f"{page[: begin + len(TABLE_BEGIN)]}\n\n{lines}\n\n{page[end:]}"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 all inside their bands, 1 something outside."""
    parser = argparse.ArgumentParser(prog="python -m research.data.stylized_facts")
    parser.add_argument("--recordings", type=Path, help="folder with TXF recordings")
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    arguments = parser.parse_args(argv)
    bands = load_generator().bands
    columns = {"generator": facts_of(generated_sessions("sim_null"))}
    try:
        if arguments.recordings is not None:
            for name, ticks in recorded_sessions(arguments.recordings).items():
                columns[f"TXF {name}"] = facts_of([ticks])
        lines = table(columns, bands)
        if arguments.write is not None:
            atomic_write(arguments.write, with_table(arguments.write.read_text(), lines))
        else:
            sys.stdout.write(lines + "\n")
    except PlatformError as error:
        sys.stderr.write(error.render() + "\n")
        return 1
    missed = {name: outside_bands(facts, bands) for name, facts in columns.items()}
    for name, facts in missed.items():
        for key, value in facts.items():
            band = bands[key]
            sys.stderr.write(f"{name}: {key} is {value}, band {band.low} to {band.high}\n")
    return 1 if any(missed.values()) else 0


def _seconds(session: Ticks) -> tuple[FloatArray, FloatArray, FloatArray]:
    """OFI and mid move of each second, and the imbalance at its start."""
    times = session.book_time_ns
    grid = np.arange(times[0] // SECOND_NS + 1, times[-1] // SECOND_NS + 1) * SECOND_NS
    shown = np.searchsorted(times, grid, side="right") - 1
    flow = np.diff(np.cumsum(order_flow_imbalance(session))[shown])
    move = np.diff(session.mid[shown])
    bid, ask = session.bid_qty[:, 0], session.ask_qty[:, 0]
    imbalance = ((bid - ask) / (bid + ask))[shown][:-1]
    fresh = (grid - times[shown] <= STALE_NS)[1:]
    return flow[fresh], move[fresh], imbalance[fresh]


def _sums_of_ten(moves: FloatArray) -> FloatArray:
    whole = moves.size // 10 * 10
    return np.asarray(moves[:whole].reshape(-1, 10).sum(axis=1), dtype=np.float64)


def _pooled(pairs: Sequence[tuple[FloatArray, FloatArray]]) -> float:
    return _correlation(
        np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])
    )


def _correlation(first: FloatArray, second: FloatArray) -> float:
    if first.size < 3 or np.std(first) == 0.0 or np.std(second) == 0.0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _deviation(values: FloatArray) -> float:
    return float(np.std(values)) if values.size > 1 else float("nan")


def _mean(values: FloatArray) -> float:
    return float(np.mean(values)) if values.size else float("nan")


def _read(path: Path) -> pl.DataFrame:
    frame = pl.read_parquet(path)
    wanted = {"ts", "session"}
    if missing := sorted(wanted - set(frame.columns)):
        raise PlatformError(
            ReasonCode.SCHEMA_MISMATCH,
            f"{path} lacks the columns {', '.join(missing)}",
            next_step="compare with the format in docs/formats.md",
        )
    return frame.with_columns(pl.col("session").cast(pl.String))


def _ticks_of_frames(book: pl.DataFrame, trade: pl.DataFrame) -> Ticks:
    def levels(name: str) -> FloatArray:
        columns = [f"{name}_{level}" for level in range(1, LEVEL_COUNT + 1)]
        return book.select(columns).to_numpy().astype(np.float64)

    return Ticks(
        book_time_ns=book["ts"].to_numpy().astype(np.int64),
        bid_price=levels("bid_px"),
        bid_qty=levels("bid_qty"),
        ask_price=levels("ask_px"),
        ask_qty=levels("ask_qty"),
        trade_time_ns=trade["ts"].to_numpy().astype(np.int64),
        trade_price=trade["px"].to_numpy().astype(np.float64),
        trade_qty=trade["qty"].to_numpy().astype(np.float64),
        trade_side=trade["side"].to_numpy().astype(np.float64),
    )


def _short(value: float) -> str:
    return f"{value:.4g}" if abs(value) >= 0.001 or value == 0 else f"{value:.5f}"


if __name__ == "__main__":
    sys.exit(main())
