"""`make bench-peers`: the same session on NautilusTrader, side by side in one run.

NautilusTrader comes from the package index into an environment of its own under build/ and stays
out of the project's. Both platforms replay the same records of one session in turns; the run fails
unless both end with the same book and no order of theirs was denied. What differs in the work is
printed with the figures and stands in the JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from hft_platform import _core, records
from hft_platform.config.canonical import canonical_json
from tests.bench import figures, rust
from tests.bench.run import REPOSITORY, commit, machine, spread

FOLDER = REPOSITORY / "build" / "peers"
REQUIREMENT = "nautilus_trader>=1.221,<2"
TURNS = 3
RUNS_A_TURN = 2
ORDERS = 1_000
DIFFERENCES = [
    "a record of theirs is an object made before the clock starts; ours is decoded from bytes and"
    " sequenced inside it",
    "theirs: cache, message bus and a Python callback that counts and reads two prices, without"
    " feature or signal; ours: every feature, one alpha, its strategy, every check, no Python",
    "their order time is `submit_order` from a callback to the queue: risk engine, execution"
    " engine, client, cached order objects; ours is a whole record to an approved, encoded order"
    " (decode, book, features, signal and strategy included), without the log's append",
    "a snapshot is one event on both sides; inside theirs it replaces ten levels of a general book,"
    " inside ours it is copied, as the feed's book has five levels and no more",
    "our orders stay unanswered in this replay, so it has few decisions; what one costs is in the"
    " order time",
    "their venue keeps a matching book of the same snapshots; ours replays without an exchange",
]


def environment() -> Path:
    """The peer's Python, made on first use."""
    python = FOLDER / "venv" / "bin" / "python"
    if not python.exists():
        sys.stdout.write("making an environment for NautilusTrader ...\n")
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER / "venv")], check=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "-q", "--only-binary", ":all:", REQUIREMENT],
            check=True,
        )
    return python


def write_session(tape: bytes) -> Path:
    """The session as arrays of whole units, in feed order."""
    parts = records.split(tape)
    book, trade = parts["Book"], parts["Trade"]
    times = np.concatenate([book["receive_time_ns"], trade["receive_time_ns"]])
    place = np.empty(times.size, dtype=np.int64)
    place[np.argsort(times, kind="stable")] = np.arange(times.size)
    path = FOLDER / "session.npz"
    levels = {
        name: book[name] / records.SCALE
        for name in ("bid_price", "bid_qty", "ask_price", "ask_qty")
    }
    np.savez(
        path,
        book_order=place[: book.size],
        trade_order=place[book.size :],
        book_time_ns=book["receive_time_ns"],
        trade_time_ns=trade["receive_time_ns"],
        trade_price=trade["price"] / records.SCALE,
        trade_qty=trade["qty"] / records.SCALE,
        trade_side=trade["aggressor_side"],
        **levels,
    )
    return path


def theirs(python: Path, session: Path) -> dict[str, Any]:
    """One turn of the peer."""
    done = subprocess.run(
        [
            str(python),
            str(Path(__file__).with_name("nautilus_session.py")),
            str(session),
            str(RUNS_A_TURN),
            str(ORDERS),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the peer's run failed:\n{done.stderr[-4000:]}")
    row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def ours(text: str, tape: bytes, count: int, instrument_id: int) -> tuple[list[float], Any]:
    """Replays of one turn: events a second, and the book at the end."""
    rates = []
    for _ in range(RUNS_A_TURN):
        engine = _core.Engine(text)
        started = time.perf_counter()
        engine.on_tape(tape)
        rates.append(count / (time.perf_counter() - started))
    levels = engine.book(instrument_id)
    final = {
        side: [[price / records.SCALE, qty / records.SCALE] for price, qty in levels[side]]
        for side in ("bid", "ask")
    }
    return rates, final


def compare() -> dict[str, Any]:
    """Both platforms in turns; the figures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    tape, config, instrument, _ = figures._input()
    text, count = canonical_json(config).decode(), sum(p.size for p in records.split(tape).values())
    python, session = environment(), write_session(tape)
    our_rates: list[float] = []
    turns = []
    for turn in range(TURNS):
        rates, final = ours(text, tape, count, instrument.instrument_id)
        our_rates += rates
        row = theirs(python, session)
        turns.append(row)
        sys.stdout.write(
            f"  turn {turn + 1} of {TURNS}: ours {max(rates) / 1e6:.2f} M events/s,"
            f" theirs {max(row['events_per_s']) / 1e3:.0f} k events/s\n"
        )
        if row["final"] != final:
            raise RuntimeError(f"final books differ: theirs {row['final']}, ours {final}")
        if row["events"] != count or row["denied"] or row["rejected"] or row["orders"] != ORDERS:
            raise RuntimeError(
                f"work differs: {row['events']} of {count} events, {row['orders']} of {ORDERS}"
                f" orders, {row['denied']} denied, {row['rejected']} rejected"
            )
    their_rates = [rate for row in turns for rate in row["events_per_s"]]
    decision = rust.decision(tape)
    replay = spread(our_rates, "events/s", "our replay through the whole engine")
    peer = spread(their_rates, "events/s", "NautilusTrader's replay with a strategy callback")
    submit = spread(
        [float(row["submit_ns_p50"]) for row in turns], "ns", "NautilusTrader: submit_order"
    )
    ratios = [ours / theirs for ours, theirs in zip(our_rates, their_rates, strict=True)]
    orders = [row["submit_ns_p50"] / decision["engine.hot_ns.p50"]["value"] for row in turns]
    return {
        "commit": commit(),
        "machine": machine(),
        "input": figures.input_name(),
        "peer": {"name": "nautilus_trader", "version": turns[0]["version"]},
        "differences": DIFFERENCES,
        "figures": {
            "peers.replay_events_per_s": replay,
            "peers.nautilus_replay_events_per_s": peer,
            "peers.nautilus_replay_ratio": spread(ratios, "ratio", "ours over theirs, in turns"),
            "peers.nautilus_submit_ns.p50": submit,
            "peers.nautilus_order_ratio": spread(orders, "ratio", "their order time over ours"),
            "engine.hot_ns.p50": decision["engine.hot_ns.p50"],
        },
    }


def main(argv: list[str] | None = None) -> int:
    """Measure, show and write."""
    parser = argparse.ArgumentParser(prog="make bench-peers", description=__doc__)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build" / "bench-peers.json")
    arguments = parser.parse_args(argv)
    content = compare()
    arguments.out.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    table = Table(title=f"beside NautilusTrader {content['peer']['version']}, {content['input']}")
    for column in ("figure", "median", "min", "max", "unit"):
        table.add_column(column)
    for name, row in content["figures"].items():
        table.add_row(name, *(f"{row[key]:,.4g}" for key in ("value", "min", "max")), row["unit"])
    console = Console()
    console.print(table)
    console.print("equal final books, no order denied; what differs in the work:")
    for line in content["differences"]:
        console.print(f"  - {line}")
    console.print(f"wrote {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
