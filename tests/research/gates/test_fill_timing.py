"""A fill is possible from the moment its order can be at the exchange, not a nanosecond before."""

import dataclasses
import json

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.execution.position_store import FILL
from hft_platform.market.latency import load_latency_profile, profile_sha256
from hft_platform.services.session_facts import APPROVED, PLACE, REFUSED
from research.backtest.runner import SessionResult
from research.gates.fill_timing import require_reachable_fills

DECIDED_NS = 1_775_000_000_000_000_000
ORDERS = 200
PROFILE, _ = load_latency_profile("shioaji_live_2026_04")


def run(corner: float | None, **changes: object) -> tuple[SessionResult, dict]:
    """A run whose fills come at the first possible moment, and its profile."""
    latency = PROFILE | {"corner": corner}
    text = json.dumps(latency, sort_keys=True)
    decisions = records.empty("Decision", ORDERS)
    decisions["order_id"] = 1 + np.arange(ORDERS)
    decisions["sequence_time_ns"] = DECIDED_NS + 1_000_000_000 * np.arange(ORDERS)
    decisions["action"], decisions["verdict"] = PLACE, APPROVED
    fills = records.empty("Broker", ORDERS)
    fills["event_kind"], fills["order_id"] = FILL, decisions["order_id"]
    for index, row in enumerate(decisions):
        order = int(row["order_id"])
        arrives = int(row["sequence_time_ns"]) + _core.sample_latency(text, order, 1)
        fills["exchange_time_ns"][index] = arrives
        fills["receive_time_ns"][index] = arrives + _core.sample_latency(text, order, 3)
    made = SessionResult(
        session_id="2026-04-10/day",
        account=None,
        fills=fills,
        inputs=b"",
        decisions=decisions.tobytes(),
        counters={},
        latency_sha256=profile_sha256(latency),
        queue_model="risk_adverse",
    )
    return dataclasses.replace(made, **changes), latency


def refusal(result: SessionResult, latency: dict) -> str:
    with pytest.raises(PlatformError) as caught:
        require_reachable_fills(result, latency)
    assert caught.value.code == ReasonCode.FILL_TOO_EARLY
    return caught.value.message


@pytest.mark.parametrize("corner", [None, 0.5, 0.95])
def test_a_fill_at_the_first_possible_moment_is_one(corner):
    require_reachable_fills(*run(corner))
    require_reachable_fills(*run(corner, fills=records.empty("Broker", 0)))


@pytest.mark.parametrize("corner", [None, 0.95])
@pytest.mark.parametrize("index", [0, 117, ORDERS - 1])
def test_one_nanosecond_earlier_is_too_early(corner, index):
    result, latency = run(corner)
    result.fills["exchange_time_ns"][index] -= 1
    assert f"order {index + 1} was filled before it was at the exchange, by 1 ns" in refusal(
        result, latency
    )


def test_a_report_before_it_can_have_come_is_too_early():
    result, latency = run(None)
    result.fills["receive_time_ns"][3] -= 1
    assert "order 4 was known to be filled before its report came" in refusal(result, latency)


@pytest.mark.parametrize(
    ("field", "value"), [("verdict", REFUSED), ("action", PLACE + 1), ("order_id", 999)]
)
def test_a_fill_of_an_order_that_nobody_placed_is_none(field, value):
    result, latency = run(None)
    decisions = np.frombuffer(result.decisions, dtype=records.DTYPES["Decision"]).copy()
    decisions[field][7] = value
    changed = dataclasses.replace(result, decisions=decisions.tobytes())
    assert "order 8 was filled and no decision placed it" in refusal(changed, latency)


def test_delays_of_another_profile_or_corner_are_not_these():
    result, latency = run(0.5)
    assert "judged by" in refusal(result, latency | {"corner": 0.95})
    signed = dataclasses.replace(result, latency_sha256=profile_sha256(latency | {"corner": 0.95}))
    assert f"so were {ORDERS} of {ORDERS} fills" in refusal(signed, latency | {"corner": 0.95})
