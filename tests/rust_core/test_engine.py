"""The engine through its Python binding."""

from __future__ import annotations

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.errors import ReasonCode
from tests.rust_core import engine_tapes as tapes
from tests.rust_core.engine_tapes import SCALE, SECOND, START

SIGNAL_ROW = np.dtype([("receive_time_ns", "<i8"), ("mid", "<i8"), ("signal", "<f8")])


def decisions_of(tape: bytes) -> np.ndarray:
    return np.frombuffer(tape, dtype=records.DTYPES["Decision"])


def strong_book(**changes: int) -> bytes:
    row = tapes.books(1)
    row["bid_qty"][0][0] = 30 * SCALE
    row["ask_qty"][0][0] = SCALE
    for name, value in changes.items():
        row[name] = value
    return bytes(row.tobytes())


def test_a_signal_becomes_an_approved_immediate_order_with_its_cause() -> None:
    engine = _core.Engine(tapes.text(tapes.config("k * imbalance_l1")))
    (decision,) = decisions_of(engine.on_tape(strong_book()))
    assert (decision["verdict"], decision["action"], decision["time_in_force"]) == (1, 1, 2)
    assert (decision["order_id"], decision["side"], decision["qty"]) == (1, 1, SCALE)
    assert decision["input_seq"] == 1
    assert decision["reason_code"] == 0
    assert decision["trading_day"] == 20260410
    counters = engine.counters()
    assert counters["records"] == {1: 1}
    assert counters["approved"] == 1
    assert counters["alphas"][0]["position_qty"] == 0
    assert counters["open_orders"] == 1


def test_a_fill_becomes_position_fees_and_result() -> None:
    engine = _core.Engine(tapes.text(tapes.config("k * imbalance_l1")))
    (decision,) = decisions_of(engine.on_tape(strong_book()))
    fill = records.empty("Broker", 1)
    fill["receive_time_ns"] = START + SECOND
    fill["event_kind"] = 3
    fill["order_id"] = decision["order_id"]
    fill["side"] = 1
    fill["price"] = 35_000 * SCALE
    fill["qty"] = SCALE
    fill["broker_seq"] = 1
    engine.on_tape(fill.tobytes())
    result = engine.counters()["alphas"][0]
    assert result["position_qty"] == SCALE
    assert result["fees"] == 200 * SCALE
    assert result["net_pnl"] == result["gross_pnl"] - result["fees"]
    engine.on_tape(fill.tobytes())
    assert engine.counters()["broker_events"] == {ReasonCode.DUPLICATE_FILL: 1}


def test_an_expired_permit_is_refused_with_its_code() -> None:
    content = tapes.config("k * imbalance_l1", expires_ns=START - 1)
    (decision,) = decisions_of(_core.Engine(tapes.text(content)).on_tape(strong_book()))
    assert decision["verdict"] == 2
    assert decision["reason_code"] == ReasonCode.CONFIG_EXPIRED
    assert decision["order_id"] == 0


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        ({"schema": 2}, ReasonCode.CONFIG_MALFORMED),
        ({"alphas": [{}]}, ReasonCode.CONFIG_MALFORMED),
        ({"surplus": 1}, ReasonCode.CONFIG_MALFORMED),
        (tapes.config("imbalance_11"), ReasonCode.UNKNOWN_FEATURE),
        (tapes.config("k *"), ReasonCode.EXPRESSION_INVALID),
    ],
)
def test_a_wrong_config_is_refused_with_code_and_text(
    damage: dict[str, object], code: ReasonCode
) -> None:
    with pytest.raises(_core.ConfigError) as caught:
        _core.Engine(tapes.text(tapes.config("k * imbalance_l1") | damage))
    assert caught.value.args[0] == code
    assert caught.value.args[1]


@pytest.mark.parametrize("template", [tapes.TAKER, tapes.MAKER])
def test_a_replay_of_the_sequenced_tape_is_identical(template: dict[str, object]) -> None:
    content = tapes.text(tapes.config("k * imbalance_l1", template))
    tape = tapes.day(2_000)
    sequenced = bytearray(tape)
    offset, previous = 0, 0
    seq = 0
    while offset < len(tape):
        size = int.from_bytes(tape[offset : offset + 2], "little")
        receive = int.from_bytes(tape[offset + 32 : offset + 40], "little")
        seq, previous = seq + 1, max(previous + 1, receive)
        sequenced[offset + 8 : offset + 16] = seq.to_bytes(8, "little")
        sequenced[offset + 40 : offset + 48] = previous.to_bytes(8, "little")
        offset += size
    decided = _core.Engine(content).on_tape(tape)
    assert decided
    assert _core.replay(content, bytes(sequenced)) == decided
    # Decisions in the tape are skipped, so a merged log can be given as it is.
    assert _core.replay(content, bytes(sequenced) + decided) == decided
    other = tapes.text(tapes.config("k * imbalance_l1", template, parameters={"k": 1.5}))
    assert _core.replay(other, bytes(sequenced)) != decided


def test_a_replay_refuses_an_unsequenced_a_holed_and_a_torn_tape() -> None:
    content = tapes.text(tapes.config("k * imbalance_l1"))
    rows = tapes.books(10)
    rows["input_seq"] = np.arange(1, 11)
    rows["sequence_time_ns"] = rows["receive_time_ns"]
    assert _core.replay(content, rows.tobytes()) is not None
    for tape, code in [
        (tapes.books(10).tobytes(), ReasonCode.LOG_SEQUENCE_GAP),
        (np.delete(rows, 4).tobytes(), ReasonCode.LOG_SEQUENCE_GAP),
        (rows.tobytes()[:-1], ReasonCode.FILE_DAMAGED),
    ]:
        with pytest.raises(_core.TapeError) as caught:
            _core.replay(content, tape)
        assert caught.value.args[0] == code


def test_batch_signals_equal_a_fold_over_single_records() -> None:
    content = tapes.text(tapes.config("ofi_l5_5s - return_1s / volatility_10s + imbalance_ema_2s"))
    tape = tapes.day(600)
    batch = np.frombuffer(_core.evaluate(tape, content, 0), dtype=SIGNAL_ROW)
    engine = _core.Engine(content)
    single = []
    offset = 0
    while offset < len(tape):
        size = int.from_bytes(tape[offset : offset + 2], "little")
        record = tape[offset : offset + size]
        engine.on_tape(record)
        if record[2] == 1:
            single.append(engine.counters()["alphas"][0]["signal"])
        offset += size
    assert np.array(single).tobytes() == batch["signal"].tobytes()
    assert np.isfinite(batch["signal"]).sum() > 200


def test_cutting_the_future_changes_no_feature() -> None:
    content = tapes.text(tapes.config("k"))
    rows = tapes.books(400)
    names, values, times = _core.evaluate_features(rows.tobytes(), content, 0)
    _, part, part_times = _core.evaluate_features(rows[:150].tobytes(), content, 0)
    assert values[: len(part)] == part
    assert times[: len(part_times)] == part_times
    assert len(values) == 8 * 400 * len(names)


def test_an_unknown_alpha_index_and_a_torn_tape_are_typed_errors() -> None:
    content = tapes.text(tapes.config("k"))
    with pytest.raises(_core.ConfigError):
        _core.evaluate(tapes.day(5), content, 3)
    with pytest.raises(_core.TapeError):
        _core.evaluate(tapes.day(5)[:-3], content, 0)


def test_an_expression_error_carries_code_position_and_suggestion() -> None:
    with pytest.raises(_core.ExpressionError) as caught:
        _core.check_expression("2 * imbalance_11", [])
    code, message, position, suggestion = caught.value.args
    assert (code, position, suggestion) == (ReasonCode.UNKNOWN_FEATURE, 4, "imbalance_l1")
    assert "imbalance_11" in message
    facts = _core.check_expression("a*imbalance_l1 + 1", ["a"])
    assert facts["features"] == ["imbalance_l1"]
    assert facts["canonical"] == "1.0 + a * imbalance_l1"
    assert facts["memory_bytes"] > 0
    assert facts["operations"] == 1
    assert (facts["unit"], facts["warm_up_ns"], facts["window_events_max"]) == ("free", 0, 0)


@pytest.mark.parametrize(
    ("multiplier", "commission", "round_trips"),
    [(200, 60, (304, 400, 420)), (50, 30, (106, 130, 136)), (10, 13, (36, 40, 42))],
)
def test_futures_round_trips_match_the_worked_rows(
    multiplier: int, commission: int, round_trips: tuple[int, ...]
) -> None:
    costs = tapes.text(tapes.COSTS | {"commission_per_lot": commission * SCALE})
    for index, money in zip((23_000, 35_000, 37_600), round_trips, strict=True):
        legs = [
            _core.trade_cost(costs, index * SCALE, SCALE, multiplier * SCALE, side)
            for side in (1, -1)
        ]
        assert sum(legs) == money * SCALE


def test_a_cost_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(_core.ConfigError):
        _core.trade_cost(tapes.text(tapes.COSTS), 0, SCALE, SCALE, 1)
    with pytest.raises(_core.ConfigError):
        _core.trade_cost('{"kind":"free"}', SCALE, SCALE, SCALE, 1)
    with pytest.raises(_core.ConfigError):
        _core.trade_cost('{"kind":"value_bps","maker_bps":1,"taker_bps":1e9}', 1, 1, 1, 1)
