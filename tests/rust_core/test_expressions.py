"""The compiled alpha language against a slow oracle, on random markets and a real TXF day."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hft_platform import _core, records
from hft_platform.errors import ReasonCode
from tests.rust_core import engine_tapes as tapes
from tests.rust_core import expression_oracle as oracle
from tests.rust_core.market_days import engine_config, txf_session

CASES = int(os.environ.get("HFT_FUZZ_CASES", "0")) // 5 or 200
"""Random trees; each has some ten nodes and is judged at every row, far slower than the core."""
REGISTRY = _core.feature_registry()
NAMES = [row["name"] for row in REGISTRY]
LEAVES = {
    "ticks": [row["name"] for row in REGISTRY if row["unit"] == "ticks"],
    "any": NAMES,
}
EXPRESSIONS = [
    "0.6 * zscore(microprice_dev, 30s) - ema(microprice_dev, 2s)",
    "mean(imbalance_l1, 10s) + std(imbalance_l1, 10s)",
    "corr(imbalance_l1, microprice_dev, 1m)",
    "where(spread_ticks <= 1, 5 * delta(imbalance_l1, 1s), 0)",
    "max(microprice_dev, 5s) - min(microprice_dev, 5s)",
    "decay(imbalance_l1, 250ms) + lag(imbalance_l1, 20ev)",
    "2 * tanh(zscore(imbalance_l1, 100ev)) + clip(k * microprice_dev, -1, 1)",
    "ema(std(microprice_dev, 3s), 50ev) * sign(imbalance_l1)",
    "mean(where(imbalance_l1 > 0 and not spread_ticks > 2, 1, 0), 30s)",
]


def columns(seed: int, rows: int) -> dict[str, Any]:
    """A random market: irregular times, ties, spells of NaN, starts."""
    draw = np.random.default_rng(seed)
    gaps = draw.choice([0, 1, 10**6, 10**8, 250_000_000, 10**9, 5 * 10**9], rows,
                       p=[0.02, 0.03, 0.2, 0.4, 0.2, 0.1, 0.05])  # fmt: skip
    times = tapes.START + np.cumsum(gaps * draw.integers(1, 4, rows))
    features = np.round(np.cumsum(draw.normal(0, 0.5, (rows, len(NAMES))), axis=0) * 4) / 4
    features[draw.random((rows, len(NAMES))) < 0.02] = np.nan
    features[draw.random(rows) < 0.03] = np.nan
    starts = np.zeros(rows, dtype=np.uint8)
    starts[[0, int(rows * 0.6)]] = 1
    return {"features": features, "times_ns": times.astype(np.int64), "starts": starts}


def values(text: str, market: dict[str, Any], **parameters: float) -> npt.NDArray[np.float64]:
    """The core's values at every row."""
    out = np.empty(market["times_ns"].size)
    _core.evaluate_expression(
        text, parameters, market["features"], market["times_ns"], market["starts"], out
    )
    return out


def node_values(node: oracle.Call, market: dict[str, Any]) -> npt.NDArray[np.float64]:
    """The core's values of a node of a tree."""
    return values(
        f"where({node.text}, 1, 0)" if node.is_condition else f"1 * ({node.text})", market
    )


def judge(node: oracle.Call, market: dict[str, Any], places: Any) -> tuple[int, int]:
    """Compare one node at some rows, on the core's own operands: rows, and numbers among them."""
    actual = node_values(node, market)
    operands = [node_values(operand, market) for operand in node.operands]
    numbers = 0
    if not node.window:
        expected = oracle.plain(node.operator, operands)
        np.testing.assert_allclose(
            actual[places], expected[places], rtol=1e-12, atol=1e-300, err_msg=node.text
        )
        return len(places), int(np.isfinite(expected[places]).sum())
    rows = oracle.Rows.of(market["times_ns"], market["starts"])
    for row in places:
        found = oracle.rolling(node.operator, node.window, operands, rows, int(row))
        if found.is_ambiguous:
            continue
        assert np.isnan(found.value) == np.isnan(actual[row]), (node.text, row, found, actual[row])
        if not np.isnan(found.value):
            numbers += 1
            error = abs(actual[row] - found.value)
            limit = 1e-10 * max(found.scale, abs(found.value))
            assert error <= limit, (node.text, row, found, actual[row])
    return len(places), numbers


def test_every_operator_matches_a_slow_oracle_on_random_trees() -> None:
    seen: dict[str, int] = {}
    for case in range(CASES):
        draw = np.random.default_rng(case)
        market = columns(case, 260)
        tree = oracle.random_call(draw, int(draw.integers(1, 4)), LEAVES)
        places = np.unique(draw.integers(0, 260, 90))
        for node in tree.nodes():
            if node.operands:
                _, numbers = judge(node, market, places)
                kind = "events" if node.window.endswith("ev") else "time" if node.window else ""
                seen[f"{node.operator} {kind}"] = seen.get(f"{node.operator} {kind}", 0) + numbers
    never = [name for name, numbers in seen.items() if numbers == 0]
    assert not never
    assert len(seen) >= 40, sorted(seen)


def test_a_wrong_oracle_is_noticed() -> None:
    """The comparison can fail: a window one bucket longer, an inclusive lag, a sample deviation."""
    market = columns(3, 260)
    places = np.arange(150, 260)
    node = oracle.Call("mean({}, 10s)", "mean", (oracle.Call("spread_ticks", "leaf"),), "10s")
    judge(node, market, places)
    for operator, window in [("mean", "11s"), ("std", "10s"), ("mean", "10ev")]:
        wrong = oracle.Call(node.form, operator, node.operands, window)
        with pytest.raises(AssertionError):
            judge(wrong, market, places)


@pytest.fixture(scope="module")
def txf_day(recordings: Path) -> tuple[bytes, dict[str, Any], dict[str, Any]]:
    """A real TXF day: its tape, the columns at every record, a config."""
    tape = txf_session(recordings)
    config = engine_config(tape, "taker")
    return tape, market_of(_core.feature_columns(tape, json.dumps(config))), config


def market_of(table: dict[str, Any]) -> dict[str, Any]:
    """Arrays over the bytes of `feature_columns`."""
    return {
        "features": np.frombuffer(table["features"]).reshape(-1, len(table["names"])),
        "times_ns": np.frombuffer(table["times_ns"], dtype=np.int64),
        "starts": np.frombuffer(table["starts"], dtype=np.uint8),
        "is_good_book": np.frombuffer(table["is_good_book"], dtype=np.uint8),
    }


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_on_a_real_day_columns_are_the_engines_values_to_the_bit(
    txf_day: tuple[bytes, dict[str, Any], dict[str, Any]], expression: str
) -> None:
    tape, market, config = txf_day
    alpha = config["alphas"][0] | {"expression": expression}
    rows = _core.evaluate(tape, json.dumps(config | {"alphas": [alpha]}))
    engine = np.frombuffer(rows, dtype=[("time", "<i8"), ("mid", "<i8"), ("signal", "<f8")])
    whole = values(expression, market, k=1.0)
    assert engine.size > 50_000
    good = market["is_good_book"] != 0
    np.testing.assert_array_equal(whole[good].view(np.int64), engine["signal"].view(np.int64))
    assert np.isfinite(whole).mean() > 0.9
    by_feature = market | {"features": np.asfortranarray(market["features"])}
    np.testing.assert_array_equal(
        values(expression, by_feature, k=1.0).view(np.int64), whole.view(np.int64)
    )


@pytest.mark.parametrize(
    ("form", "operator"),
    [
        ("mean({}, W)", "mean"),
        ("std({}, W)", "std"),
        ("2 * zscore({}, W)", "zscore"),
        ("min({}, W)", "roll min"),
        ("max({}, W)", "roll max"),
        ("lag({}, W)", "lag"),
        ("ema({}, W)", "ema"),
        ("decay({}, W)", "decay"),
        ("2 * corr({}, {}, W)", "corr"),
    ],
)
@pytest.mark.parametrize("window", ["250ms", "30s", "100ev"])
def test_over_a_whole_real_day_windows_do_not_drift(
    txf_day: tuple[bytes, dict[str, Any], dict[str, Any]], form: str, operator: str, window: str
) -> None:
    market = txf_day[1]
    leaves = [oracle.Call("microprice_dev", "leaf"), oracle.Call("imbalance_l1", "leaf")]
    operands = tuple(leaves[: form.count("{}")])
    node = oracle.Call(form.replace("W", window), operator, operands, window)
    size = market["times_ns"].size
    places = np.concatenate([np.arange(500), np.arange(0, size, 5_000), np.arange(size - 40, size)])
    _, numbers = judge(node, market, np.unique(places))
    assert numbers > 40


def test_arrays_that_do_not_fit_are_refused() -> None:
    market = columns(1, 20)
    wrong: list[dict[str, Any]] = [
        {"features": market["features"][:, :-1].copy()},
        {"features": market["features"][::2]},
        {"features": market["features"].astype(np.float32)},
        {"features": market["features"].ravel()},
        {"features": None},
        {"times_ns": market["times_ns"][:-1].copy()},
        {"times_ns": market["times_ns"].astype(np.float64)},
        {"starts": market["starts"].astype(bool)},
        {"starts": market["starts"][:5].copy()},
    ]
    for change in wrong:
        with pytest.raises(_core.TapeError) as caught:
            values("spread_ticks", market | change)
        assert caught.value.args[0] == ReasonCode.SCHEMA_MISMATCH, change
    back = market["times_ns"].copy()
    back[7] = back[5] - 1
    with pytest.raises(_core.TapeError) as caught:
        values("spread_ticks", market | {"times_ns": back})
    assert caught.value.args[0] == ReasonCode.OUT_OF_ORDER_ROW
    arguments = (market["features"], market["times_ns"], market["starts"])
    frozen = np.empty(20)
    frozen.flags.writeable = False
    flat = np.zeros((20, len(NAMES)))
    for features, out in [
        (arguments[0], frozen),
        (flat, flat.ravel()[:20]),
        (arguments[0], np.empty(19)),
    ]:
        with pytest.raises(_core.TapeError):
            _core.evaluate_expression("spread_ticks", {}, features, *arguments[1:], out)
    with pytest.raises(_core.ExpressionError):
        values("spread_tick", market)


def test_many_expressions_together_are_each_alone() -> None:
    market = columns(9, 3_000)
    texts = [
        f"k * zscore(spread_ticks, {second}s) + ema(imbalance_l1, 3s)" for second in range(1, 41)
    ]
    out = np.full((len(texts), 3_000), 7.0)
    _core.evaluate_expressions(
        [(text, {"k": float(place)}) for place, text in enumerate(texts)],
        market["features"], market["times_ns"], market["starts"], out,
    )  # fmt: skip
    for place, text in enumerate(texts):
        alone = values(text, market, k=float(place))
        np.testing.assert_array_equal(out[place].view(np.int64), alone.view(np.int64))
    assert np.isfinite(out).any(axis=1).all()
    arrays = (market["features"], market["times_ns"], market["starts"])
    for wrong in (out[1:], out.T, np.asfortranarray(out)):
        with pytest.raises(_core.TapeError):
            _core.evaluate_expressions([(text, {"k": 1.0}) for text in texts], *arrays, wrong)
    with pytest.raises(_core.ExpressionError):
        _core.evaluate_expressions([("k", {"k": np.nan})], *arrays, out[:1])
    _core.evaluate_expressions([], *arrays, np.empty((0, 3_000)))


def test_evaluation_leaves_its_operands_and_releases_the_gil() -> None:
    market = columns(2, 200_000)
    before = market["features"].copy()
    text = " + ".join(f"zscore(spread_ticks, {second}s)" for second in range(1, 30))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(values, text, market)
        turns = 0
        while not running.done():
            turns += 1
            time.sleep(0.001)
    assert turns > 5, "this thread ran while the other computed"
    np.testing.assert_array_equal(market["features"], before)
    assert running.result().size == 200_000


def test_terms_are_those_of_the_record_and_nothing_behind_it_is_read() -> None:
    expression = "0.5 * ema(imbalance_l1, 1s) - spread_ticks / k + zscore(microprice_dev, 20ev)"
    config = tapes.text(tapes.config(expression))
    tape = tapes.day(400)
    engine = np.frombuffer(
        _core.evaluate(tape, config), dtype=[("time", "<i8"), ("mid", "<i8"), ("signal", "<f8")]
    )
    stamped = []
    books = -1
    for seq, (kind, raw) in enumerate(_split(tape), start=1):
        books += kind == "Book"
        parts = _core.signal_terms(tape, config, 0, seq)
        assert parts is not None
        assert parts["input_seq"] == seq
        if kind == "Book":
            assert parts["value"] == pytest.approx(engine["signal"][books], nan_ok=True, abs=0)
        if not np.isnan(parts["value"]):
            assert sum(value for _, value in parts["terms"]) == pytest.approx(parts["value"])
        stamped.append(raw)
        if seq in {1, 57, 300}:
            cut = _core.signal_terms(b"".join(stamped), config, 0, seq)
            assert repr(cut) == repr(parts), "what is behind the record changes nothing"
    texts = [text for text, _ in parts["terms"]]
    assert sorted(texts) == [
        "-spread_ticks / k",
        "0.5 * ema(imbalance_l1, 1s)",
        "zscore(microprice_dev, 20ev)",
    ]
    assert list(parts["features"]) == ["spread_ticks", "imbalance_l1", "microprice_dev"]
    assert _core.signal_terms(tape, config, 0, 0) is None


def _split(tape: bytes) -> list[tuple[str, bytes]]:
    offset, rows = 0, []
    while offset < len(tape):
        size = int.from_bytes(tape[offset : offset + 2], "little")
        raw = tape[offset : offset + size]
        rows.append(("Book" if size == records.DTYPES["Book"].itemsize else "Trade", raw))
        offset += size
    return rows


def test_the_place_of_an_error_is_shown_by_byte_position() -> None:
    text = "2 * imbalance_l1\n + 3 * é"
    with pytest.raises(_core.ExpressionError) as caught:
        _core.check_expression(text, [])
    assert _core.expression_excerpt(text, caught.value.args[2]) == " + 3 * é\n       ^"


def test_what_an_expression_needs_is_said_beforehand() -> None:
    facts = _core.check_expression(
        "ema(mean(spread_ticks, 10s), 2s) + lag(microprice_dev, 7ev)", []
    )
    assert (facts["window_ns_max"], facts["window_events_max"]) == (10 * 10**9, 7)
    assert (facts["warm_up_ns"], facts["warm_up_events"]) == (12 * 10**9, 7)
    assert facts["unit"] == "ticks"
    small = _core.check_expression("mean(spread_ticks, 1s)", [])["memory_bytes"]
    assert small == _core.check_expression("mean(spread_ticks, 1h)", [])["memory_bytes"]
    assert small < 10_000
