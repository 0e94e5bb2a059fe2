"""Sessions in which everything goes wrong at once: the engine stays right, or knows it is not.

The exchange knows what happened, the engine what it was told; at the end of a session both agree,
or the difference is an order that the engine calls unknown.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.execution.position_store import fills_of
from tests.rust_core.market_days import (
    SCALE,
    TXF_ID,
    engine_config,
    synthetic_day,
    txf_session,
)
from tests.rust_core.test_simulation_session import logs

SESSIONS = int(os.environ.get("HFT_FUZZ_CASES", "400"))
MS = 1_000_000
ALL = 1_000_000
WORKING, REJECTED, FILL, CANCELED, CANCEL_REJECTED, EXPIRED, UNKNOWN = range(1, 8)
LATENCY = {
    "profile_id": "test",
    "seed": 11,
    "pipeline_ns": 250_000,
    "place": [[0.5, 20 * MS], [0.95, 90 * MS], [1.0, 900 * MS]],
    "cancel": [[0.5, 10 * MS], [0.95, 60 * MS]],
    "response": [[0.5, 5 * MS], [0.95, 60 * MS]],
    "corner": None,
}
OFF: dict[str, Any] = dict.fromkeys(
    (
        "partial_fill",
        "rejects",
        "price_limit",
        "price_band",
        "session_end_ns",
        "lost_request",
        "lost_reply",
        "timeout",
        "duplicate",
        "late",
        "fill_before_ack",
    )
)


def faults(seed: int, **changes: Any) -> dict[str, Any]:
    """A profile with the named faults on."""
    return {"profile_id": "test", "seed": seed} | OFF | changes


def all_on(seed: int, tape: bytes, *, resolve_ms: int | None = 3_000) -> dict[str, Any]:
    """Everything at once; the session ends before its tape, with and without time to get flat."""
    before_ns = (5_000 if seed % 3 else 30_000) * MS
    end_ns = int(records.split(tape)["Book"]["exchange_time_ns"].max()) - before_ns
    return faults(
        seed,
        partial_fill={"rate_ppm": 500_000, "delay_ns": 200 * MS},
        rejects=[
            {"reason_code": int(ReasonCode.BROKER_REJECTED), "rate_ppm": 20_000},
            {"reason_code": int(ReasonCode.ORDER_RATE_ABOVE_LIMIT), "rate_ppm": 10_000},
        ],
        price_limit={"reference_price": None, "bps": 4},
        price_band={"bps": 1},
        session_end_ns=end_ns,
        lost_request={"rate_ppm": 50_000},
        lost_reply={"rate_ppm": 50_000},
        timeout={
            "after_ns": 1_000 * MS,
            "resolve_ns": None if resolve_ms is None else resolve_ms * MS,
        },
        duplicate={"rate_ppm": 100_000, "delay_ns": 700 * MS},
        late={"rate_ppm": 100_000, "delay_ns": 400 * MS},
        fill_before_ack={"rate_ppm": 100_000, "delay_ns": 500 * MS},
    )


def lots_config(tape: bytes, kind: str) -> dict[str, Any]:
    """Orders of three lots, so that they can be filled in parts."""
    config = engine_config(tape, kind)
    alpha = config["alphas"][0]
    alpha["order_qty"] = 3 * SCALE
    alpha["limits"]["order_qty_max"] = 3 * SCALE
    alpha["limits"]["position_qty_max"] = 9 * SCALE
    return config


@cache
def market(seed: int, snapshots: int = 400) -> bytes:
    return synthetic_day(seed=seed, snapshots=snapshots)


def run(tape: bytes, kind: str, profile: dict[str, Any] | None) -> dict[str, Any]:
    venue = {"queue_model": "power_prob3"} | ({} if profile is None else {"faults": profile})
    return _core.run_backtest(
        tape, json.dumps(lots_config(tape, kind)), json.dumps(LATENCY), json.dumps(venue)
    )


def broker_of(result: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(result["broker"], dtype=records.DTYPES["Broker"])


def position_of(result: dict[str, Any]) -> int:
    return int(result["counters"]["alphas"][0]["position_qty"])


def summed(broker: np.ndarray) -> int:
    fills = fills_of(broker)
    return int((fills["side"] * fills["qty"]).sum())


def test_everything_at_once_over_many_seeds_ends_with_one_truth() -> None:
    """The engine asserts its exposure at every event; its end is held against the exchange's."""
    totals: dict[str, int] = {}
    for seed in range(SESSIONS):
        kind = ("maker", "taker")[seed % 2]
        tape = market(seed % 5)
        result = run(tape, kind, all_on(seed, tape))
        found = result["faults"]
        where = f"seed {seed} {kind}: {found}"
        assert found["unresolved"] == 0, where
        assert result["counters"]["open_orders"] == 0, where
        assert result["counters"]["simulation"]["undispatched"] == 0, where
        venue = found["positions"].get(TXF_ID, 0)
        assert position_of(result) == venue == summed(broker_of(result)), where
        replayed = _core.replay(json.dumps(lots_config(tape, kind)), result["inputs"])
        assert replayed == result["decisions"], where
        for name, count in found.items():
            if isinstance(count, int):
                totals[name] = totals.get(name, 0) + count
        for code, count in found["rejects"].items():
            totals[f"reject {code}"] = totals.get(f"reject {code}", 0) + count
    never = {"unresolved"}
    if SESSIONS >= 200:
        assert {name for name, count in totals.items() if count == 0} == never, totals
        assert totals[f"reject {int(ReasonCode.ORDER_RATE_ABOVE_LIMIT)}"] > 0


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not() -> None:
    tape = market(1)
    one, two, other = (run(tape, "maker", all_on(seed, tape)) for seed in (3, 3, 4))
    assert one["inputs"] == two["inputs"]
    assert one["decisions"] == two["decisions"]
    assert one["faults"] == two["faults"]
    assert one["inputs"] != other["inputs"]


@pytest.mark.parametrize("kind", ["maker", "taker"])
def test_no_faults_object_a_null_one_and_one_with_everything_off_decide_the_same(kind: str) -> None:
    tape = market(2)
    plain = run(tape, kind, None)
    null = _core.run_backtest(
        tape,
        json.dumps(lots_config(tape, kind)),
        json.dumps(LATENCY),
        json.dumps({"queue_model": "power_prob3", "faults": None}),
    )
    assert "faults" not in plain
    assert null["inputs"] == plain["inputs"]
    off = run(tape, kind, faults(1))
    assert off["decisions"] == plain["decisions"]
    assert off["order_facts"] == plain["order_facts"]
    ours, theirs = (records.split(side["inputs"])["Broker"].copy() for side in (off, plain))
    ours["broker_seq"] = theirs["broker_seq"] = 0
    assert np.array_equal(ours, theirs), "only the numbering of reports differs"


def test_an_order_that_stays_unknown_is_exposure_and_exactly_what_the_engine_lacks() -> None:
    """Negative control of the first test: with answers withheld for ever the two do differ."""
    differing = 0
    for seed in range(20):
        tape = market(seed % 5)
        result = run(tape, "taker", all_on(seed, tape, resolve_ms=None))
        found = result["faults"]
        assert result["counters"]["open_orders"] == found["unresolved"]
        assert position_of(result) == summed(broker_of(result))
        differing += position_of(result) != found["positions"].get(TXF_ID, 0)
    assert differing > 0


def test_unknown_counts_as_exposure_until_it_is_resolved() -> None:
    tape = market(1)
    result = run(
        tape,
        "taker",
        faults(
            5,
            lost_reply={"rate_ppm": ALL},
            timeout={"after_ns": 500 * MS, "resolve_ns": 2_000 * MS},
        ),
    )
    decisions = np.frombuffer(result["decisions"], dtype=records.DTYPES["Decision"])
    broker = broker_of(result)
    unknown = broker[broker["event_kind"] == UNKNOWN]
    assert unknown.size > 3
    assert result["faults"]["timeouts"] == unknown.size
    assert set(unknown["reason_code"].tolist()) == {int(ReasonCode.ORDER_OUTCOME_UNKNOWN)}
    for row in unknown:
        first = decisions[decisions["order_id"] == row["order_id"]][0]
        waited = int(row["receive_time_ns"]) - int(first["sequence_time_ns"])
        assert waited == 500 * MS
        answers = broker[
            (broker["order_id"] == row["order_id"]) & (broker["event_kind"] != UNKNOWN)
        ]
        assert int(answers["receive_time_ns"][0]) == int(row["receive_time_ns"]) + 2_000 * MS
    assert int(result["counters"]["broker_events"][int(ReasonCode.ORDER_OUTCOME_UNKNOWN)]) > 0


def test_a_doubled_fill_counts_once_and_a_late_one_counts() -> None:
    tape = market(3)
    result = run(
        tape,
        "maker",
        faults(
            9,
            duplicate={"rate_ppm": ALL, "delay_ns": 300 * MS},
            late={"rate_ppm": 300_000, "delay_ns": 900 * MS},
        ),
    )
    broker = broker_of(result)
    fills = broker[broker["event_kind"] == FILL]
    assert fills.size == 2 * fills_of(broker).size > 20
    assert position_of(result) == result["faults"]["positions"][TXF_ID]
    dropped = result["counters"]["dropped"]
    assert dropped[int(ReasonCode.DUPLICATE_FILL)] == fills.size // 2
    assert result["counters"]["halted_by"] in (0, None)


@pytest.mark.recordings
@pytest.mark.parametrize("kind", ["maker", "taker"])
def test_a_recorded_day_of_faults_ends_with_one_truth(recordings: Path, kind: str) -> None:
    """Thousands of orders: tables wrap around, windows forget, and nothing is counted twice."""
    tape = txf_session(recordings)
    wide = {
        "price_limit": {"reference_price": None, "bps": 1_000},
        "price_band": {"bps": 5},
    }
    result = run(tape, kind, all_on(7, tape) | wide)
    found = result["faults"]
    assert result["counters"]["simulation"]["requests"] > 5_000
    assert found["timeouts"] > 500
    assert found["duplicated"] > 500
    assert (found["unresolved"], result["counters"]["open_orders"]) == (0, 0)
    assert result["counters"]["simulation"]["undispatched"] == 0
    assert position_of(result) == found["positions"][TXF_ID] == summed(broker_of(result))
    config = json.dumps(lots_config(tape, kind))
    assert _core.replay(config, result["inputs"]) == result["decisions"]


def test_a_paper_session_with_faults_replays_from_its_log(tmp_path: Path) -> None:
    tape = market(4, 900)
    config = lots_config(tape, "maker")
    session = _core.PaperSession(
        json.dumps(config),
        json.dumps(LATENCY),
        json.dumps({"queue_model": "power_prob3", "faults": all_on(17, tape)}),
        str(tmp_path),
        json.dumps({"wal_id": 5, "durable": "group"}),
    )
    session.feed(tape)
    while not session.run(None, 300)["done"]:
        pass
    finished = session.finish()
    inputs, decisions = logs(tmp_path)
    assert _core.replay(json.dumps(config), inputs) == decisions
    found = finished["faults"]
    assert found["timeouts"] > 0
    broker = records.split(inputs)["Broker"]
    assert summed(broker) == found["positions"].get(TXF_ID, 0)
    assert summed(broker) == finished["counters"]["alphas"][0]["position_qty"]
    backtest = run(tape, "maker", all_on(17, tape))
    assert backtest["inputs"] == inputs, "backtest and session draw the same faults"


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"late": {"rate_ppm": 1_000_001, "delay_ns": 1}}, "late.rate_ppm was 1000001"),
        ({"duplicate": {"rate_ppm": 1, "delay_ns": 0}}, "duplicate.delay_ns was 0"),
        ({"lost_reply": {"rate_ppm": 1}}, "timeout was null"),
        ({"price_band": {"bps": 0}}, "price_band.bps was 0"),
        ({"rejects": [{"reason_code": 999, "rate_ppm": 1}]}, "rejects.reason_code was 999"),
        ({"storm": True}, "storm"),
    ],
)
def test_a_profile_that_is_not_allowed_names_field_value_and_what_is(
    tmp_path: Path, changes: dict[str, Any], names: str
) -> None:
    tape = market(0)
    with pytest.raises(PlatformError, match=names) as caught:
        run(tape, "taker", faults(1, **changes))
    assert caught.value.code == ReasonCode.SETTINGS_INVALID
    with pytest.raises(PlatformError, match=names) as caught:
        session = _core.PaperSession(
            json.dumps(lots_config(tape, "taker")),
            json.dumps(LATENCY),
            json.dumps({"queue_model": "log_prob", "faults": faults(1, **changes)}),
            str(tmp_path / "session"),
            json.dumps({"wal_id": 5}),
        )
        session.feed(tape)
    assert caught.value.code == ReasonCode.SETTINGS_INVALID
    assert not (tmp_path / "session").exists(), "a refused session leaves no log"
