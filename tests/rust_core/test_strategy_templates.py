"""Templates over whole sessions: queue places kept, costs covered, decisions replayed."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hft_platform import _core, records
from research.backtest.package_handle import PackageHandle
from tests.rust_core.market_days import (
    SCALE,
    TXF_ID,
    Tradable,
    engine_config,
    synthetic_day,
    txf_session,
)
from tests.rust_core.test_simulation_venues import latency

QUEUE_MODEL = "power_prob3"
PLACE, CANCEL, APPROVED = 1, 2, 1
ENTRY = 1
QUOTES = {
    "half_spread_ticks": 1.0,
    "requote_ticks": 1.0,
    "signal_skew": 0.5,
    "inventory_skew_ticks": 0.5,
}
PLACE_VALUE = {"requote_gain_ticks": 0.1, "queue_lots": 10.0, "edge_ticks_min": 0.25}
FOLLOW = {"signal_skew": 0.5, "requote_ticks": 1.0} | PLACE_VALUE
SIGMA = {"sigma_source": "measured", "sigma_ticks": 0.1}
TAKER = {
    "entry_ticks": 0.5,
    "exit_ticks": 0.0,
    "hold_ns": 20_000_000_000,
    "slippage_ticks": 2,
}
TEMPLATES: dict[str, dict[str, Any]] = {
    "taker": TAKER,
    "cost_taker": TAKER | {"cost_margin_ticks": 0.0},
    "maker": QUOTES,
    "queue_maker": QUOTES | PLACE_VALUE,
    "avellaneda_stoikov_maker": FOLLOW
    | SIGMA
    | {"gamma": 0.05, "k": 0.5, "horizon": "session_end", "horizon_ns": 10_000_000_000},
    "glft_maker": FOLLOW | SIGMA | {"gamma": 0.05, "k": 0.5, "fills_per_s": 0.5},
    "target": {
        "ticks_per_clip": 0.3,
        "dead_band_ticks": 0.4,
        "clips_max": 3.0,
        "trade_clips_min": 1.0,
        "patience_ns": 2_000_000_000,
        "requote_ticks": 1.0,
        "slippage_ticks": 2,
    },
}


@cache
def day() -> bytes:
    return synthetic_day(snapshots=2_000)


def config_of(tape: bytes, kind: str, *, k: float = 1.0) -> str:
    config = engine_config(tape, "maker")
    alpha = config["alphas"][0]
    alpha["template"] = {"kind": kind} | TEMPLATES[kind]
    alpha["parameters"] = {"k": k}
    return json.dumps(config)


def run(
    tape: bytes, kind: str, *, k: float = 1.0, setting: str = "drawn", handle: Any = None
) -> dict[str, Any]:
    return _core.run_backtest(
        tape,
        config_of(tape, kind, k=k),
        json.dumps(latency(setting)),
        json.dumps({"queue_model": QUEUE_MODEL}),
        handle,
    )


def approved(result: dict[str, Any], action: int) -> np.ndarray:
    made = np.frombuffer(result["decisions"], dtype=records.DTYPES["Decision"])
    return made[(made["verdict"] == APPROVED) & (made["action"] == action)]


def fill_count(result: dict[str, Any]) -> int:
    return int(result["counters"]["alphas"][0]["fill_count"])


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_session_of_every_template_replays_and_ends_flat(kind: str) -> None:
    k = 8.0 if kind == "cost_taker" else 1.0
    result = run(day(), kind, k=k)
    assert fill_count(result) > 20
    assert result["counters"]["halted_by"] == 0
    assert result["counters"]["alphas"][0]["position_qty"] == 0
    assert _core.replay(config_of(day(), kind, k=k), result["inputs"]) == result["decisions"]


@pytest.mark.recordings
@pytest.mark.parametrize("kind", [kind for kind in TEMPLATES if kind not in ("taker", "maker")])
def test_a_recorded_session_is_the_same_on_the_package_and_in_a_replay(
    recordings: Path, kind: str
) -> None:
    """The two old kinds are compared in test_simulation_session.py."""
    tape, k = txf_session(recordings), 8.0 if kind == "cost_taker" else 1.0
    ours = run(tape, kind, k=k)
    rows = _core.convert_session(tape, TXF_ID, SCALE, SCALE)
    with PackageHandle(rows, Tradable(), queue_model=QUEUE_MODEL) as handle:
        theirs = run(tape, kind, k=k, handle=handle)
    assert fill_count(ours) > 1_000
    for part in ("inputs", "broker", "decisions"):
        assert ours[part] == theirs[part], part
    assert _core.replay(config_of(tape, kind, k=k), ours["inputs"]) == ours["decisions"]


def compare_requotes(tape: bytes) -> tuple[float, float]:
    """Cancels of `queue_maker` per cancel of `maker`, and the same for fills per order placed."""
    plain, careful = run(tape, "maker"), run(tape, "queue_maker")
    cancels = approved(careful, CANCEL).size / approved(plain, CANCEL).size
    yields = [fill_count(result) / approved(result, PLACE).size for result in (plain, careful)]
    return cancels, yields[1] / yields[0]


def test_valuing_the_queue_place_saves_cancels_and_fills_more_of_what_is_placed() -> None:
    cancels, fills_per_order = compare_requotes(day())
    assert cancels < 0.6
    assert fills_per_order > 1.2


@pytest.mark.recordings
def test_valuing_the_queue_place_saves_cancels_on_a_recorded_session(recordings: Path) -> None:
    cancels, fills_per_order = compare_requotes(txf_session(recordings))
    assert cancels < 0.4
    assert fills_per_order > 1.8


def round_trip_ticks(tape: bytes, entries: np.ndarray) -> np.ndarray:
    """Spread, fees and tax in ticks at the books that the entries were based on."""
    books = records.split(tape)["Book"]
    costs = json.dumps(engine_config(tape, "taker")["instruments"][0]["costs"])
    ticks = []
    for entry in entries:
        # Inputs of the backtest are the books up to the cause, which may be a print behind one.
        place = np.searchsorted(books["input_seq"], entry["input_seq"], side="right") - 1
        bid, ask = int(books["bid_price"][place][0]), int(books["ask_price"][place][0])
        fees = sum(_core.trade_cost(costs, price, SCALE, 200 * SCALE, 1) for price in (bid, ask))
        ticks.append((ask - bid) / SCALE + fees / (200 * SCALE))
    return np.array(ticks)


@pytest.mark.recordings
def test_a_cost_aware_taker_does_not_trade_what_cannot_pay_for_itself(recordings: Path) -> None:
    """One tick of expected move at most: less than a spread and 1.7 points of fees and tax."""
    tape = txf_session(recordings)
    assert fill_count(run(tape, "taker")) > 1_000
    careful = run(tape, "cost_taker")
    assert fill_count(careful) == 0
    assert len(careful["decisions"]) == 0


@pytest.mark.recordings
def test_what_a_cost_aware_taker_enters_pays_for_the_round_trip(recordings: Path) -> None:
    result = run(txf_session(recordings), "cost_taker", k=8.0)
    placed = approved(result, PLACE)
    entries = placed[placed["intent_reason"] == ENTRY]
    assert entries.size > 500
    costs = round_trip_ticks(result["inputs"], entries)
    assert np.all(np.abs(entries["signal"]) >= costs - 1e-9)
    assert costs.min() > 2.5
    # The plain taker enters below its cost most of the time, so the comparison says something.
    plain = run(txf_session(recordings), "taker", k=8.0)
    rash = approved(plain, PLACE)
    rash = rash[rash["intent_reason"] == ENTRY]
    assert np.mean(np.abs(rash["signal"]) < round_trip_ticks(plain["inputs"], rash)) > 0.3


def mirrored(tape: bytes, twice_center: int) -> bytes:
    """The tape with every price reflected and the sides exchanged."""
    parts = {name: np.array(rows) for name, rows in records.split(tape).items()}
    book, trade = parts["Book"], parts["Trade"]
    flip = {}
    for side, other in (("bid", "ask"), ("ask", "bid")):
        price = book[f"{other}_price"]
        flip[f"{side}_price"] = np.where(price > 0, twice_center - price, 0)
        flip[f"{side}_qty"] = book[f"{other}_qty"].copy()
    for name, values in flip.items():
        book[name] = values
    trade["price"] = twice_center - trade["price"]
    trade["aggressor_side"] = -trade["aggressor_side"]
    return _core.merge_tapes([book.tobytes(), trade.tobytes()])


MIRRORED = ("action", "verdict", "intent_reason", "time_in_force", "qty")


def by_microsecond(rows: np.ndarray, sign: int) -> list[tuple[int, ...]]:
    """What was decided, as seen from this side of the mirror.

    Answers about both sides arrive at one instant, in the order of ids, so their inputs are some
    nanoseconds apart and exchanged behind the mirror.
    """
    columns = [rows["sequence_time_ns"] // 1_000, rows["side"] * sign, rows["price"] * sign]
    columns += [rows[name] for name in MIRRORED]
    return sorted(tuple(map(int, row)) for row in zip(*columns, strict=True))


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_mirrored_market_gives_mirrored_decisions(kind: str) -> None:
    twice_center = 60_000 * SCALE
    k = 8.0 if kind == "cost_taker" else 1.0
    # Drawn latencies go by order id, which the mirror exchanges between the sides.
    seen = run(day(), kind, k=k, setting="corner")
    image = run(mirrored(day(), twice_center), kind, k=k, setting="corner")
    for action in (PLACE, CANCEL):
        left, right = approved(seen, action).copy(), approved(image, action).copy()
        right["price"] -= twice_center
        assert left.size > 100 or action == CANCEL
        assert by_microsecond(left, 1) == by_microsecond(right, -1)
