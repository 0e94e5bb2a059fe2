"""Ten kinds of leak, each planted in the ways that it comes in practice."""

from __future__ import annotations

import dataclasses
import datetime as dt
import shutil
from collections.abc import Callable

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from leak_bench import Bench, Caught, refused

from hft_platform.config.canonical import canonical_json
from hft_platform.feed.recording import read_records, records_table, tape_of
from hft_platform.market.instruments import load_instruments
from hft_platform.market.latency import profile_sha256
from hft_platform.records import tape_sha256
from research import registry
from research.data import catalog
from research.data.ingest import ingest
from research.data.rows import SIMULATED_MATCH
from research.gates import package_backtests

SECOND_NS = 1_000_000_000
DAY_NS = 86_400 * SECOND_NS

Plant = Callable[[Bench], Caught]
PLANTS: dict[tuple[str, str], Plant] = {}
"""By leak and by how it is planted, as docs/look-ahead.md names them."""


def plant(leak: str, how: str) -> Callable[[Plant], Plant]:
    """Enter a way to plant a leak."""

    def enter(function: Plant) -> Plant:
        PLANTS[leak, how] = function
        return function

    return enter


def expression(text: str) -> Plant:
    """An alpha that asks for the future in words."""
    return lambda bench: bench.by_gate("gate_a", alpha=bench.edited(expression=text))


def pipeline(leak: Callable[[np.ndarray], np.ndarray]) -> Plant:
    """A research pipeline that adds the future to a signal."""

    def act(bench: Bench) -> Caught:
        bench.pipeline(leak)
        return bench.by_gate("gate_a")

    return act


def next_mid(rows: np.ndarray) -> np.ndarray:
    """Mid of the next book, in ticks; its own at the end."""
    mid = rows["mid"] / 1e8
    return np.append(mid[1:], mid[-1:])


def next_bar(rows: np.ndarray) -> np.ndarray:
    return rows["signal"] + next_mid(rows) - rows["mid"] / 1e8


def centered(rows: np.ndarray) -> np.ndarray:
    filled = np.nan_to_num(rows["signal"])
    return np.convolve(filled, np.ones(5) / 5)[2:-2]


def scaled(rows: np.ndarray) -> np.ndarray:
    return (rows["signal"] - np.nanmean(rows["signal"])) / np.nanstd(rows["signal"])


def with_target(rows: np.ndarray) -> np.ndarray:
    """The move of the next second, which is the label, among the features."""
    times, mid = rows["receive_time_ns"], rows["mid"] / 1e8
    later = np.minimum(np.searchsorted(times, times + SECOND_NS), mid.size - 1)
    return rows["signal"] + mid[later] - mid


PLANTS |= {
    ("future bar", "alpha"): expression("lead(imbalance_l1, 1ev)"),
    ("future bar", "pipeline"): pipeline(next_bar),
    ("centered window", "alpha"): expression("ema(imbalance_l1, -2s)"),
    ("centered window", "pipeline"): pipeline(centered),
    ("whole-sample scaling", "alpha"): expression("zscore(ofi_l1_1s)"),
    ("whole-sample scaling", "pipeline"): pipeline(scaled),
    ("target in features", "alpha"): expression("mid_move_next_1s"),
    ("target in features", "pipeline"): pipeline(with_target),
}


@plant("future bar", "data")
def stamped_with_the_start_of_the_bar(bench: Bench) -> Caught:
    """Each record is dated as received at the start of the second in which it happened."""

    def change(books, trades):
        order = np.argsort(np.concatenate([books["receive_time_ns"], trades["receive_time_ns"]]))
        times = np.concatenate([books["exchange_time_ns"], trades["exchange_time_ns"]])[order]
        bars = times // SECOND_NS * SECOND_NS - times[0] % SECOND_NS
        unique = np.maximum.accumulate(bars - np.arange(bars.size)) + np.arange(bars.size)
        placed = np.empty_like(unique)
        placed[order] = unique
        books["receive_time_ns"] = placed[: len(books)]
        trades["receive_time_ns"] = placed[len(books) :]
        return books, trades

    return bench.by_gate("gate_a", bench.written(change))


def kernel(bench: Bench, old: str, new: str) -> registry.Alpha:
    """The bundled kernel with a line changed."""
    folder = bench.tmp / "txf_online_taker"
    shutil.copytree(registry.bundled_folder() / folder.name, folder)
    path = folder / "kernel.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    return registry.load_alpha(folder)


@plant("future bar", "kernel")
def reads_behind_its_features(bench: Bench) -> Caught:
    """A kernel reads on behind the features of now, for what may lie there."""
    leaky = kernel(bench, "imbalance = features[1]", "imbalance = features[3]")
    return bench.by_gate("gate_a", alpha=leaky)


@plant("target in features", "kernel")
def loads_its_labels(bench: Bench) -> Caught:
    """A kernel loads the labels from a file."""
    imports = "from hft_platform.kernels import kernel, math"
    loads = f'import numpy as np\n{imports}\n\nLABELS = np.load("labels.npy")'
    return refused("registration", lambda: kernel(bench, imports, loads))


@plant("survivorship", "data")
def the_bad_night_left_out(bench: Bench) -> Caught:
    """The night session of the first day went badly and is not in the recordings."""
    night = int(dt.datetime(2026, 4, 9, 6, tzinfo=dt.UTC).timestamp()) * SECOND_NS

    def change(name: str, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.filter(pl.col("ts") < night) if "2026-04-09" in name else frame

    return bench.by_gate("gate_a", bench.ingested(bench.recorded(change)))


@plant("restated data", "file")
def a_stored_price_corrected(bench: Bench) -> Caught:
    """Somebody corrects a price in the stored file."""
    _correct(bench)
    return bench.by_gate("gate_a")


@plant("restated data", "file and hash")
def a_stored_price_and_its_hash_corrected(bench: Bench) -> Caught:
    """Somebody corrects a price in the stored file, and the hash of the tape beside it."""
    session = _correct(bench)
    dataset = catalog.dataset_of(bench.ws, ["TXFD6"])
    content = catalog.description(dataset)
    tape = tape_of(*(read_records(session.path, name) for name in ("Book", "Trade")))
    for row in content["sessions"]:
        if row["session_id"] == session.session_id:
            row["tape_sha256"] = tape_sha256(tape)
    (dataset.path / "dataset.json").write_bytes(canonical_json(content))
    return refused("catalog", lambda: bench.gate("gate_a"))


def _correct(bench: Bench):
    session = catalog.dataset_of(bench.ws, ["TXFD6"]).sessions[1]
    trades = read_records(session.path, "Trade")
    trades["price"][100] += SECOND_NS // 10
    pq.write_table(records_table(trades, "Trade"), session.path / "trade.parquet")
    return session


@plant("restated data", "recording")
def a_revised_recording(bench: Bench) -> Caught:
    """The vendor revises a day; the old dataset makes room for the new one."""

    def change(name: str, frame: pl.DataFrame) -> pl.DataFrame:
        if not name.endswith("09_trades.parquet"):
            return frame
        revised = (pl.int_range(pl.len()) % 100 == 50).cast(pl.Int64)
        return frame.with_columns(px=(pl.col("px") + revised).cast(frame.schema["px"]))

    revised = bench.recorded(change)
    shutil.rmtree(catalog.dataset_of(bench.ws, ["TXFD6"]).path)
    return bench.by_gate("gate_a", bench.ingested(revised, bench.ws))


@plant("restated data", "rows filled in")
def rows_filled_in_later(bench: Bench) -> Caught:
    """A gap was filled the next morning, from another source; the receive times say so."""

    def change(name: str, frame: pl.DataFrame) -> pl.DataFrame:
        received = pl.col("ts") + 5_000_000
        late = (pl.int_range(pl.len()) % 50 == 7).cast(pl.Int64) * 8 * 3600 * SECOND_NS
        return frame.with_columns(ts_recv=received + late)

    return bench.by_gate("gate_a", bench.ingested(bench.recorded(change)))


@plant("same-tick fill", "pipeline")
def filled_on_the_tick(bench: Bench) -> Caught:
    """The backtest fills an order on the record that caused it, and signs for the delays."""
    return _without_latency(bench, lambda result, asked: profile_sha256(asked))


@plant("latency ignored", "pipeline")
def latency_left_out(bench: Bench) -> Caught:
    """The backtest runs under no latency, and says so."""
    return _without_latency(bench, lambda result, asked: result.latency_sha256)


@plant("latency ignored", "alpha")
def a_profile_without_delays(bench: Bench) -> Caught:
    """The manifest names a latency profile that does not exist."""
    alpha = bench.edited(latency_profile="none")
    return refused("registration", lambda: bench.gate("gate_a", alpha=alpha))


def _without_latency(bench: Bench, claimed) -> Caught:
    honest = package_backtests.run_session

    def instant(tape, config, *, latency, **others):
        none = {"place": [[0.5, 0]], "cancel": [[0.5, 0]], "response": [[0.5, 0]]}
        result = honest(tape, config, latency=latency | none | {"pipeline_ns": 0}, **others)
        return dataclasses.replace(result, latency_sha256=claimed(result, latency))

    bench.monkeypatch.setattr(package_backtests, "run_session", instant)
    return bench.by_gate("gate_c")


@plant("simulated-match trades", "recording")
def trial_matches_recorded(bench: Bench) -> Caught:
    """Prints of the quarter of an hour before the open are in the recording, and do not get in."""
    ws = bench.ingested(bench.recording)
    report = catalog.quality_report(catalog.dataset_of(ws, ["TXFD6"]))
    name, count = "SIMULATED_MATCH", report["totals"]["rejected"]["SIMULATED_MATCH"]
    assert count > 100
    return Caught("ingestion", name, f"{count} rows refused as {name}")


@plant("simulated-match trades", "data")
def trial_matches_kept(bench: Bench) -> Caught:
    """A pipeline of somebody's own keeps marked trial matches."""

    def change(books, trades):
        trades["flags"][10:13] |= SIMULATED_MATCH
        return books, trades

    return bench.by_gate("gate_a", bench.written(change))


@plant("simulated-match trades", "unmarked data")
def trial_matches_unmarked(bench: Bench) -> Caught:
    """A pipeline of somebody's own keeps prints from before the open, without their mark."""

    def change(books, trades):
        for name in ("exchange_time_ns", "receive_time_ns"):
            trades[name][:5] -= 600 * SECOND_NS
        return books, trades

    return bench.by_gate("gate_a", bench.written(change))


@plant("roll splice", "recording")
def a_continuous_series(bench: Bench) -> Caught:
    """A vendor's continuous series under its own name."""
    folder = bench.tmp / "continuous"
    folder.mkdir()
    for path in bench.recording.glob("*.parquet"):
        shutil.copyfile(path, folder / path.name.replace("TXFD6", "TXFR1"))
    return refused(
        "ingestion", lambda: ingest(folder, bench.tmp / "other", load_instruments(bench.tmp))
    )


@plant("roll splice", "data")
def a_continuous_series_under_a_contract(bench: Bench) -> Caught:
    """A continuous series under the name of the contract that it ends with.

    Its days lie around the roll of March 2026: on the 17th the contract to trade was TXFC6.
    """
    folder = bench.tmp / "spliced"
    folder.mkdir()
    for path in bench.recording.glob("*.parquet"):
        day = dt.date.fromisoformat(path.name.split("_")[1]) - dt.timedelta(days=23)
        frame = pl.read_parquet(path).with_columns(pl.col("ts") - 23 * DAY_NS)
        frame.write_parquet(folder / f"TXFD6_{day}_{path.name.rpartition('_')[2]}")
    return bench.by_gate("gate_a", bench.ingested(folder))


@plant("roll splice", "two contracts in a tape")
def two_contracts_in_a_tape(bench: Bench) -> Caught:
    """In the middle of a session the records of the next contract begin."""

    def change(books, trades):
        books["instrument_id"][len(books) // 2 :] += 1
        return books, trades

    return bench.by_gate("gate_a", bench.written(change))
