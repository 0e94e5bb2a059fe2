"""What must hold for every feature, whatever the market does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hft_platform import _core, records
from tests.rust_core import engine_tapes as tapes
from tests.rust_core import market_days
from tests.rust_core.engine_tapes import SCALE, SECOND
from tests.rust_core.features.test_oracle import market_of, values_of

NAMES = [row["name"] for row in _core.feature_registry()]
CASES = int(os.environ.get("HFT_FUZZ_CASES", "20"))
# Turned over by a mirror: up is down and buyers are sellers. The rest stays, but for the pairs.
SIGNED = {
    "imbalance_l1", "imbalance_l2_5", "microprice_dev", "ofi_l1_1s", "ofi_l5_5s", "ofi_l1",
    "ofi_l2", "ofi_l3", "ofi_l4", "ofi_l5", "ofi_integrated", "ofi_l1_5s", "ofi_l1_30s",
    "trade_imbalance_1s", "trade_imbalance_5s", "trade_imbalance_30s", "trade_sign_ema_5s",
    "return_1s", "return_10s", "imbalance_ema_2s", "impact_surprise_5s", "deep_momentum_5s",
}  # fmt: skip
PAIRS = {"hawkes_buy": "hawkes_sell", "queue_depletion_bid": "queue_depletion_ask"}
# An interval of Kyle's slope ends at a snapshot, so one more snapshot may end it earlier.
BY_SNAPSHOT = {"kyle_lambda_60s", "impact_surprise_5s"}


def changed(
    tape: bytes,
    book: Callable[[np.ndarray], None],
    trade: Callable[[np.ndarray], None],
) -> bytes:
    """The tape with every record changed in place; order and times between records stay."""
    data, offset = bytearray(tape), 0
    while offset < len(data):
        name, change = ("Book", book) if data[offset + 2] == 1 else ("Trade", trade)
        row = np.frombuffer(data, dtype=records.DTYPES[name], count=1, offset=offset)
        change(row)
        offset += row.nbytes
    return bytes(data)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal to the bit, all NaN alike and the two zeros alike."""
    return bool(np.all((a == b) | (np.isnan(a) & np.isnan(b))))


def mirror_book(row: np.ndarray) -> None:
    high = 80_000 * SCALE
    bid, ask = row["bid_price"].copy(), row["ask_price"].copy()
    row["bid_price"], row["ask_price"] = high - ask, high - bid
    bid_qty = row["bid_qty"].copy()
    row["bid_qty"], row["ask_qty"] = row["ask_qty"], bid_qty


def mirror_trade(row: np.ndarray) -> None:
    row["price"], row["aggressor_side"] = 80_000 * SCALE - row["price"], -row["aggressor_side"]


def test_a_mirrored_market_turns_the_signed_features_over_to_the_bit() -> None:
    tape = tapes.day(3_000)
    there, _ = values_of(tape)
    back, _ = values_of(changed(tape, mirror_book, mirror_trade))
    pairs = PAIRS | {sell: buy for buy, sell in PAIRS.items()}
    for name in NAMES:
        assert np.isfinite(there[name][-1_000:]).all(), name
        expected = -there[name] if name in SIGNED else there[pairs.get(name, name)]
        assert same_bits(back[name], expected), name
        if name in SIGNED:
            assert not same_bits(back[name], there[name]), name


def test_only_elapsed_time_counts() -> None:
    tape = tapes.day(3_000)
    shift = 12_345_678_901

    def later(row: np.ndarray) -> None:
        row["receive_time_ns"] += shift

    there, _ = values_of(tape)
    then, _ = values_of(changed(tape, later, later))
    assert all(same_bits(there[name], then[name]) for name in NAMES)


@pytest.mark.parametrize("factor", [4, 32])
def test_lots_and_ticks_of_another_size_change_nothing(factor: int) -> None:
    tape = tapes.day(3_000)

    def bigger_book(row: np.ndarray) -> None:
        for name in ("bid_price", "ask_price", "bid_qty", "ask_qty"):
            row[name] *= factor

    def bigger_trade(row: np.ndarray) -> None:
        row["price"], row["qty"] = row["price"] * factor, row["qty"] * factor

    there, _ = values_of(tape)
    content = tapes.config("k")
    instrument = content["instruments"][0]
    for name in ("tick_size", "lot_size", "limit_up", "limit_down"):
        instrument[name] *= factor
    limits = content["alphas"][0]["limits"]
    for name in ("order_qty_max", "position_qty_max"):
        limits[name] *= factor
    content["alphas"][0]["order_qty"] *= factor
    scaled = changed(tape, bigger_book, bigger_trade)
    names, values, _ = _core.evaluate_features(scaled, tapes.text(content), 0)
    table = np.frombuffer(values, dtype="<f8").reshape(-1, len(names))
    # The factor is a power of two, so not one rounding differs.
    assert all(same_bits(there[name], table[:, place]) for place, name in enumerate(names))


def test_a_snapshot_that_repeats_the_last_one_changes_nothing_later() -> None:
    """Decay is in time: more snapshots of the same market are not more events."""
    rows = tapes.books(3_000)
    rows["receive_time_ns"] = tapes.START + np.arange(3_000) * 30_000_000
    there, _ = values_of(rows.tobytes())
    again = np.repeat(rows, 2)
    again["receive_time_ns"][1::2] += 11_000_003
    again["flags"][1::2] = 0
    denser, _ = values_of(again.tobytes())
    for name in set(NAMES) - BY_SNAPSHOT:
        np.testing.assert_allclose(
            denser[name][::2], there[name], rtol=1e-11, atol=1e-11, err_msg=name
        )


def test_slow_features_see_a_slower_market_as_fast_ones_see_a_fast_one() -> None:
    """Times five, time constants times five: the same values."""
    slow, fast = tapes.day(3_000), tapes.day(3_000)
    start = tapes.START

    def stretched(row: np.ndarray) -> None:
        row["receive_time_ns"] = start + (row["receive_time_ns"] - start) * 5

    there, _ = values_of(fast)
    then, _ = values_of(changed(slow, stretched, stretched))
    for quick, calm in (
        ("trade_imbalance_1s", "trade_imbalance_5s"),
        ("ofi_l1_1s", "ofi_l1_5s"),
    ):
        a, b = there[quick], then[calm]
        if quick.startswith("ofi"):
            # The mean depth keeps its 10 s: compare the direction alone.
            a, b = np.sign(a), np.sign(b)
        warm = np.isfinite(a) & np.isfinite(b)
        assert warm.sum() > 2_000
        np.testing.assert_allclose(a[warm], b[warm], rtol=1e-9, atol=1e-12)


def event_by_event(tape: bytes) -> np.ndarray:
    """Every feature as the live engine sees it: an alpha each, a record a call."""
    content = tapes.config("k")
    first_ns = int(np.frombuffer(tape, dtype=records.DTYPES["Book"], count=1)["receive_time_ns"][0])
    content["session"]["phases"][0] |= {"start_ns": first_ns, "end_ns": first_ns + 86_400 * SECOND}
    one = content["alphas"][0]
    content["alphas"] = [
        one
        | {
            "alpha_index": place,
            "alpha_id": f"a{place}",
            "expression": f"1.0 * {name}",
            "parameters": {},
        }
        for place, name in enumerate(NAMES)
    ]
    engine = _core.Engine(tapes.text(content))
    rows, offset = [], 0
    while offset < len(tape):
        size = int.from_bytes(tape[offset : offset + 2], "little")
        engine.on_tape(tape[offset : offset + size])
        if tape[offset + 2] == 1:
            rows.append([row["signal"] for row in engine.counters()["alphas"]])
        offset += size
    return np.array(rows)


def test_event_by_event_and_over_the_whole_tape_are_the_same_bits() -> None:
    tape = tapes.day(2_500)
    batch, _ = values_of(tape)
    live = event_by_event(tape)
    assert np.isfinite(live[-300:]).all()
    for place, name in enumerate(NAMES):
        assert live[:, place].tobytes() == batch[name].tobytes(), name


@pytest.mark.recordings
def test_event_by_event_and_batch_agree_on_a_recorded_session(recordings: Path) -> None:
    tape = market_days.txf_session(recordings)
    # A fortieth of it, ending on a record.
    offset = 0
    while offset < len(tape) // 40:
        offset += int.from_bytes(tape[offset : offset + 2], "little")
    part = tape[:offset]
    batch, _ = values_of(part)
    live = event_by_event(part)
    # The recording opens with one-sided books: no row in the batch, all NaN in the engine.
    good = market_of(part).good
    assert not good.all()
    assert np.isnan(live[~good]).all()
    for place, name in enumerate(NAMES):
        assert live[good, place].tobytes() == batch[name].tobytes(), name


def test_the_rows_so_far_do_not_depend_on_what_comes() -> None:
    rows = tapes.books(2_000)
    whole, _ = values_of(rows.tobytes())
    part, _ = values_of(rows[:1_200].tobytes())
    for name in NAMES:
        assert part[name].tobytes() == whole[name][:1_200].tobytes(), name


def test_a_resolved_contract_starts_every_feature_over() -> None:
    """At a roll, and at the start of a session: the feed says which contract it is."""
    rows = tapes.books(4_000)
    contract = records.empty("Instrument", 1)
    instrument = tapes.config("k")["instruments"][0]
    contract["instrument_id"] = tapes.INSTRUMENT_ID
    contract["receive_time_ns"] = rows["receive_time_ns"][3_000]
    contract["symbol"] = instrument["symbol"].encode()
    contract["tick_size"], contract["multiplier"] = SCALE, instrument["multiplier"]
    before, after = rows[:3_000].tobytes(), rows[3_000:].tobytes()
    rolled, _ = values_of(before + contract.tobytes() + after)
    straight, _ = values_of(before + after)
    alone, _ = values_of(after)
    for name in NAMES:
        np.testing.assert_array_equal(rolled[name][:3_000], straight[name][:3_000], name)
        # A nanosecond later than alone, because the contract has a stamp of its own.
        np.testing.assert_allclose(
            rolled[name][3_000:], alone[name], rtol=1e-6, atol=1e-6, err_msg=name
        )
    assert np.isfinite(straight["volatility_60s"][3_000])
    assert np.isnan(rolled["volatility_60s"][3_000])


def test_an_invalid_book_makes_every_feature_nan() -> None:
    tape = tapes.day(2_000)
    last = np.frombuffer(tape, dtype=records.DTYPES["Book"], count=1).copy()
    last["receive_time_ns"] = tapes.START + 200 * SECOND
    last["flags"] = 0
    last["bid_price"][0, 0] = last["ask_price"][0, 0] + SCALE
    live = event_by_event(tape + last.tobytes())
    assert np.isfinite(live[-2]).all()
    assert np.isnan(live[-1]).all()


@pytest.mark.parametrize("seed", range(CASES))
def test_extreme_records_give_finite_values_or_nan(seed: int) -> None:
    draw = np.random.default_rng(seed)
    top = 999_999_999_999_999_999
    rows = tapes.books(400, seed)
    rows["receive_time_ns"] = tapes.START + np.cumsum(
        draw.choice([0, 1, 1_000, SECOND, 3_600 * SECOND], 400, p=[0.1, 0.2, 0.3, 0.38, 0.02])
    )
    rows["bid_qty"] = draw.choice([1, SCALE, top], (400, 5))
    rows["ask_qty"] = draw.choice([1, SCALE, top], (400, 5))
    huge = draw.uniform(size=400) < 0.3
    rows["ask_price"][huge] = top - 4 + np.arange(5)
    rows["bid_price"][draw.uniform(size=400) < 0.3] = np.arange(5, 0, -1)
    shallow = draw.uniform(size=400) < 0.2
    for name in ("bid_price", "ask_price", "bid_qty", "ask_qty"):
        rows[name][shallow, 1:] = 0
    trades = records.empty("Trade", 400)
    trades["instrument_id"] = tapes.INSTRUMENT_ID
    trades["receive_time_ns"] = rows["receive_time_ns"]
    trades["price"] = draw.choice([1, 35_000 * SCALE, top], 400)
    trades["qty"] = draw.choice([1, SCALE, top], 400)
    trades["aggressor_side"] = draw.choice([-1, 0, 1], 400)
    values, times = values_of(_core.merge_tapes([rows.tobytes(), trades.tobytes()]))
    assert len(times) > 300
    for name in NAMES:
        assert not np.isinf(values[name]).any(), name
        assert np.isfinite(values[name]).any(), name
