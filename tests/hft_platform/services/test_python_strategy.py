"""Plain Python strategies: through the bus, as records, by the seven steps, decided again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.config.canonical import canonical_json
from hft_platform.config.engine_config import resolve_template
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services import python_strategy
from hft_platform.services.decision_trace import trace_decisions
from hft_platform.services.explain import explain_order, list_orders
from hft_platform.services.parity import engine_config_of, read_session, replay_session
from hft_platform.services.python_strategy import (
    Batch,
    Cancel,
    Place,
    Prototype,
    StrategyRunner,
    run_prototype,
)
from research.registry.alpha import parse_manifest
from tests.rust_core.market_days import SCALE, TXF_ID, engine_config, synthetic_day
from tests.rust_core.test_simulation_venues import latency

APPROVED, REFUSED = 1, 2
PLACE, CANCEL = 1, 2


@cache
def day() -> bytes:
    return synthetic_day(snapshots=600)


def external_config(tape: bytes | None = None, **changes: Any) -> dict[str, Any]:
    config = engine_config(tape or day(), "taker")
    alpha = config["alphas"][0]
    del alpha["expression"]
    alpha |= {"template": {"kind": "external", "slippage_ticks": 2}, "ttl_ns": 2_000_000_000}
    alpha |= changes
    return config


class Imbalance:
    """Buys a heavy bid, sells a heavy ask, with one order on the way at a time."""

    def __init__(self) -> None:
        self.position = 0
        self.batches: list[Batch] = []

    def on_batch(self, batch: Batch) -> list[Place | Cancel]:
        self.batches.append(batch)
        broker = batch.records["Broker"]
        fills = broker[broker["event_kind"] == 3]
        self.position += int((fills["side"] * fills["qty"]).sum())
        books = batch.records["Book"]
        if not books.size:
            return []
        book = books[-1]
        bid, ask = int(book["bid_qty"][0]), int(book["ask_qty"][0])
        side = 1 if bid > 3 * ask else -1 if ask > 3 * bid else 0
        if side == 0 or side * self.position > 0:
            return []
        touch = book["ask_price"][0] if side > 0 else book["bid_price"][0]
        return [Place(side, int(touch) + side * SCALE, SCALE, signal=float(side))]


class Quoter:
    """Quotes one bid and takes it back when the market has moved away."""

    def __init__(self) -> None:
        self.order_id = 0
        self.price = 0

    def on_batch(self, batch: Batch) -> list[Place | Cancel]:
        for row in batch.records["Decision"]:
            if row["verdict"] == APPROVED and row["action"] == PLACE:
                self.order_id, self.price = int(row["order_id"]), int(row["price"])
        for row in batch.records["Broker"]:
            if row["event_kind"] in (2, 4, 6) or row["remaining_qty"] == 0:
                self.order_id = 0
        books = batch.records["Book"]
        if not books.size:
            return []
        bid = int(books[-1]["bid_price"][0])
        if self.order_id and bid - self.price > SCALE:
            order_id, self.order_id = self.order_id, 0
            return [Cancel(order_id)]
        if not self.order_id:
            life = python_strategy.REST_OF_DAY
            return [Place(1, bid - SCALE, SCALE, 0.1, life, python_strategy.QUOTE)]
        return []


def prototype(folder: Path, **changes: Any) -> Prototype:
    return Prototype(
        session_dir=folder,
        engine_config=changes.pop("engine_config", None) or external_config(),
        tape=day(),
        latency=latency("drawn"),
        venue={"queue_model": "power_prob3"},
        **changes,
    )


def decisions_of(folder: Path) -> np.ndarray:
    logs = read_session(folder)
    return np.frombuffer(logs.decisions, dtype=records.DTYPES["Decision"])


@pytest.mark.parametrize("make", [Imbalance, Quoter])
def test_a_strategy_trades_and_its_session_is_decided_again_without_it(
    tmp_path: Path, make: Callable[[], Any]
) -> None:
    outcome = run_prototype(prototype(tmp_path / "s"), make())
    assert outcome.parity.is_identical
    assert outcome.parity.total > 30
    assert outcome.finished["counters"]["fills"] > 5
    assert outcome.counts.lost == 0
    assert outcome.finished["counters"]["alphas"][0]["position_qty"] == 0, "force-flat closed it"
    logs = read_session(tmp_path / "s")
    intents = records.split(logs.inputs)["Intent"]
    assert intents.size == outcome.counts.intents > 20
    assert set(intents["source_id"]) == {7}
    made = decisions_of(tmp_path / "s")
    answered = made[np.isin(made["input_seq"], intents["input_seq"])]
    assert answered.size == intents.size, "one decision for each intent"
    assert (intents["cause_seq"] < intents["input_seq"]).all()
    if make is Quoter:
        assert (answered["action"] == CANCEL).sum() >= 2
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from hft_platform.services.parity import replay_session\n"
        "print(replay_session(Path(sys.argv[1]), write=False).decisions_sha256)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s")],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.strip() == outcome.parity.decisions_sha256


def test_an_order_is_explained_back_to_the_record_the_strategy_saw(tmp_path: Path) -> None:
    run_prototype(prototype(tmp_path / "s"), Imbalance())
    order_id = next(
        r["order_id"] for r in list_orders(tmp_path / "s") if r["intent_reason"] != "flatten"
    )
    text = explain_order(tmp_path / "s", order_id).render()
    assert "of a Python strategy" in text
    assert "because of input" in text
    assert "the strategy's own value = " in text
    assert "    wanted    what the strategy outside the engine asked for, as entry" in text
    assert "    differs" not in text


def test_a_cancel_and_every_answer_of_a_strategy_outside_has_its_trace(tmp_path: Path) -> None:
    run_prototype(prototype(tmp_path / "s"), Quoter())
    made = decisions_of(tmp_path / "s")
    rows = made[np.isin(made["action"], (PLACE, CANCEL))]
    config = engine_config_of(tmp_path / "s")
    traces = trace_decisions(read_session(tmp_path / "s").inputs, config, rows)
    assert {trace.disagreement for trace in traces} == {""}
    assert {len(trace.checks) for trace in traces} == {3, len(traces[0].checks)}
    order_id = int(rows[rows["action"] == CANCEL][0]["order_id"])
    lines = explain_order(tmp_path / "s", order_id).render().splitlines()
    cancel = next(place for place, line in enumerate(lines) if "  decision  cancel" in line)
    assert lines[cancel + 1].startswith("    because   Intent ")
    assert "    wanted    what the strategy outside the engine asked for, as requote" in lines


def test_in_lockstep_the_same_strategy_gives_the_same_session(tmp_path: Path) -> None:
    first = run_prototype(prototype(tmp_path / "a"), Imbalance())
    second = run_prototype(prototype(tmp_path / "b"), Imbalance())
    assert first.parity.decisions_sha256 == second.parity.decisions_sha256
    coarse = run_prototype(prototype(tmp_path / "c", step_records=50), Imbalance())
    assert coarse.parity.decisions_sha256 != first.parity.decisions_sha256
    assert coarse.parity.is_identical


def test_a_strategy_on_its_own_thread_may_be_late_and_its_session_still_replays(
    tmp_path: Path,
) -> None:
    outcome = run_prototype(
        prototype(tmp_path / "s", is_lockstep=False, step_records=20), Imbalance()
    )
    assert outcome.parity.is_identical
    assert outcome.counts.batches > 0
    assert (
        records.split(read_session(tmp_path / "s").inputs)["Intent"].size <= outcome.counts.intents
    )


def test_a_strategy_that_is_lapped_is_told_how_much_it_lost(tmp_path: Path) -> None:
    strategy = Imbalance()
    outcome = run_prototype(prototype(tmp_path / "s", step_records=200, slot_count=64), strategy)
    assert outcome.counts.lost > 500
    assert sum(batch.lost for batch in strategy.batches) == outcome.counts.lost
    assert max(sum(rows.size for rows in b.records.values()) for b in strategy.batches) <= 64
    assert outcome.parity.is_identical


def test_intents_that_were_held_back_too_long_are_refused_as_expired(tmp_path: Path) -> None:
    config = external_config()
    bus = _core.Bus(1 << 12)
    paper = _core.PaperSession(
        canonical_json(config).decode(),
        json.dumps(latency("drawn")),
        json.dumps({"queue_model": "power_prob3"}),
        str(tmp_path),
        json.dumps({"wal_id": 1, "durable": "group"}),
    )
    runner = StrategyRunner(Imbalance(), bus.reader(), config["alphas"][0])
    paper.publish_to(bus)
    paper.feed(day())
    held = b""
    while not held:
        paper.run(None, 1)
        held = runner.poll()
    paper.run(None, 50)  # some six seconds of the market
    paper.intents(held)
    paper.finish()
    (tmp_path / "engine.json").write_bytes(canonical_json(config))
    (made,) = [row for row in decisions_of(tmp_path) if row["intent_reason"] == 1]
    assert made["reason_code"] == ReasonCode.INTENT_EXPIRED
    assert made["observed"] > made["limit"] == 2_000_000_000
    assert replay_session(tmp_path, write=False).is_identical


class Broken:
    """Fails in the middle."""

    def on_batch(self, batch: Batch) -> list[Place | Cancel]:
        if batch.cause_seq > 200:
            raise ZeroDivisionError("a mistake of the strategy")
        return []


@pytest.mark.parametrize("is_lockstep", [True, False])
def test_an_error_of_the_strategy_ends_the_session_sealed(
    tmp_path: Path, is_lockstep: bool
) -> None:
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        run_prototype(prototype(tmp_path / "s", is_lockstep=is_lockstep, step_records=5), Broken())
    assert replay_session(tmp_path / "s", write=False).is_identical


class Flood:
    """Wants far too much."""

    def on_batch(self, batch: Batch) -> list[Place | Cancel]:
        return [Cancel(1)] * 65


def test_a_strategy_that_runs_wild_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as caught:
        run_prototype(prototype(tmp_path / "s"), Flood())
    assert caught.value.code == ReasonCode.CAPACITY_REACHED


# The engine alone.


def warm_engine(config: dict[str, Any]) -> tuple[Any, int, int, np.void]:
    """An engine that has seen some of the day; its next input number and time, and the book."""
    engine = _core.Engine(canonical_json(config).decode())
    tape = day()
    books = records.split(tape)["Book"]
    head = _core.merge_tapes([books[:40].tobytes()])
    engine.on_tape(head)
    last = books[39]
    return engine, 41, int(last["receive_time_ns"]) + 1_000, last


def intent(seq: int, time_ns: int, **fields: Any) -> bytes:
    row = records.empty("Intent", 1)
    defaults = {
        "instrument_id": TXF_ID, "input_seq": seq, "sequence_time_ns": time_ns, "action": PLACE,
        "external_id": 1, "intent_reason": 1, "time_in_force": 1, "side": 1, "qty": SCALE,
        "cause_seq": seq - 1, "cause_time_ns": time_ns - 500, "ttl_ns": 1_000, "signal": 1.0,
    }  # fmt: skip
    for name, value in (defaults | fields).items():
        row[name] = value
    return row.tobytes()


def decide(engine: Any, tape: bytes) -> np.void:
    made = np.frombuffer(engine.on_tape(tape), dtype=records.DTYPES["Decision"])
    assert made.size == 1
    return made[0]


def test_an_intent_goes_through_the_steps_and_names_its_record() -> None:
    engine, seq, now, book = warm_engine(external_config())
    price = int(book["bid_price"][0])
    first = decide(engine, intent(seq, now, price=price))
    assert (first["verdict"], first["input_seq"], first["price"]) == (APPROVED, seq, price)
    assert first["ttl_ns"] == 1_000
    again = decide(engine, intent(seq + 1, now + 10, price=price, cause_time_ns=now))
    assert again["reason_code"] == ReasonCode.DUPLICATE_INTENT
    assert again["intent_id"] == first["intent_id"]
    far = decide(
        engine,
        intent(seq + 2, now + 20, price=price * 2, external_id=2, cause_time_ns=now),
    )
    assert far["reason_code"] == ReasonCode.PRICE_OUTSIDE_COLLAR
    blind = decide(
        engine,
        intent(seq + 3, now + 30, price=price, external_id=3, cause_time_ns=now, signal=np.nan),
    )
    assert blind["reason_code"] == ReasonCode.SIGNAL_NOT_FINITE
    large = decide(
        engine,
        intent(seq + 4, now + 40, price=price, external_id=4, cause_time_ns=now, qty=2 * SCALE),
    )
    assert large["reason_code"] == ReasonCode.ORDER_QTY_ABOVE_LIMIT


@pytest.mark.parametrize(("age_ns", "verdict"), [(1_000, APPROVED), (1_001, REFUSED)])
def test_the_time_to_live_counts_from_the_cause(age_ns: int, verdict: int) -> None:
    engine, seq, now, book = warm_engine(external_config())
    made = decide(
        engine, intent(seq, now, price=int(book["bid_price"][0]), cause_time_ns=now - age_ns)
    )
    assert made["verdict"] == verdict
    if verdict == REFUSED:
        assert made["reason_code"] == ReasonCode.INTENT_EXPIRED
        assert (made["observed"], made["limit"]) == (1_001, 1_000)


def test_the_alphas_own_time_to_live_bounds_the_intents() -> None:
    engine, seq, now, book = warm_engine(external_config(ttl_ns=100))
    made = decide(engine, intent(seq, now, price=int(book["bid_price"][0]), ttl_ns=1 << 60))
    assert (made["reason_code"], made["limit"]) == (ReasonCode.INTENT_EXPIRED, 100)


@pytest.mark.parametrize(
    "fields",
    [
        {"alpha_index": 1}, {"instrument_id": 7}, {"side": 2}, {"qty": 0}, {"qty": -SCALE},
        {"price": 0}, {"price": 1 << 62}, {"time_in_force": 0}, {"time_in_force": 4},
        {"action": 3}, {"intent_reason": 5}, {"intent_reason": 0}, {"external_id": 0},
        {"external_id": 1 << 32}, {"cause_seq": 0}, {"cause_seq": 41}, {"ttl_ns": 0},
        {"ttl_ns": -5}, {"cause_time_ns": (1 << 63) - 1},
    ],
)  # fmt: skip
def test_an_intent_that_is_none_is_dropped_and_counted(fields: dict[str, int]) -> None:
    engine, seq, now, book = warm_engine(external_config())
    made = engine.on_tape(intent(seq, now, **({"price": int(book["bid_price"][0])} | fields)))
    assert made == b""
    assert engine.counters()["dropped"] == {int(ReasonCode.INTENT_MALFORMED): 1}


def test_a_cancel_is_never_too_late_and_always_answered() -> None:
    engine, seq, now, book = warm_engine(external_config())
    placed = decide(engine, intent(seq, now, price=int(book["bid_price"][0]) - SCALE))
    order_id = int(placed["order_id"])
    working = records.empty("Broker", 1)
    working["instrument_id"], working["order_id"], working["event_kind"] = TXF_ID, order_id, 1
    working["input_seq"], working["sequence_time_ns"] = seq + 1, now + 1
    working["side"], working["qty"], working["remaining_qty"] = 1, SCALE, SCALE
    engine.on_tape(working.tobytes())
    unknown = decide(engine, intent(seq + 2, now + 2, action=CANCEL, order_id=99))
    assert (unknown["verdict"], unknown["reason_code"]) == (REFUSED, ReasonCode.ORDER_UNKNOWN)
    stale = intent(seq + 3, now + 10**6, action=CANCEL, order_id=order_id)
    canceled = decide(engine, stale)
    assert (canceled["verdict"], canceled["action"]) == (APPROVED, CANCEL)
    twice = decide(engine, intent(seq + 4, now + 10**6 + 1, action=CANCEL, order_id=order_id))
    assert twice["reason_code"] == ReasonCode.ORDER_STATE_INVALID


def test_only_an_external_alpha_takes_intents() -> None:
    config = engine_config(day(), "taker")
    engine, seq, now, book = warm_engine(config)
    assert engine.on_tape(intent(seq, now, price=int(book["bid_price"][0]))) == b""
    assert engine.counters()["dropped"] == {int(ReasonCode.EXTERNAL_NOT_PERMITTED): 1}


@pytest.mark.parametrize("stage", ["canary", "live"])
def test_a_stage_above_shadow_is_refused(stage: str) -> None:
    with pytest.raises(_core.ConfigError) as caught:
        _core.Engine(canonical_json(external_config(stage=stage)).decode())
    assert caught.value.args[0] == ReasonCode.EXTERNAL_NOT_PERMITTED


def test_a_switch_to_a_stage_above_shadow_is_refused_too() -> None:
    engine, seq, now, _ = warm_engine(external_config())
    switch = records.empty("ConfigSwitch", 1)
    switch["input_seq"], switch["sequence_time_ns"] = seq, now
    switch["stage"], switch["weight_ppm"], switch["promotion_seq"] = 2, 1_000_000, 9
    switch["expires_ns"] = (1 << 63) - 1
    engine.on_tape(switch.tobytes())
    assert engine.counters()["dropped"] == {int(ReasonCode.EXTERNAL_NOT_PERMITTED): 1}
    assert engine.counters()["alphas"][0]["stage"] == 1


def test_there_is_no_manifest_no_template_and_no_config_for_it(tmp_path: Path) -> None:
    template = {"kind": "external", "slippage_ticks": 1}
    for call in (
        lambda: resolve_template("mine", template, {}),
        lambda: parse_manifest(json.dumps({"template": template}).encode(), name="mine"),
        lambda: run_prototype(
            prototype(tmp_path, engine_config=engine_config(day(), "taker")), Imbalance()
        ),
    ):
        with pytest.raises(PlatformError) as caught:
            call()
        assert caught.value.code == ReasonCode.EXTERNAL_NOT_PERMITTED
    assert python_strategy.SPEED_LABEL.startswith("SLOW")
    both = external_config() | {}
    both["alphas"][0]["expression"] = "1.0"
    with pytest.raises(_core.ConfigError) as refused:
        _core.Engine(canonical_json(both).decode())
    assert refused.value.args[0] == ReasonCode.CONFIG_MALFORMED
