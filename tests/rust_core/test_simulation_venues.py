"""The package's exchange and our own report the same, byte for byte."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.latency import at_corner, load_latency_profile
from research.backtest.package_handle import PackageHandle
from tests.rust_core.market_days import (
    CANCEL,
    IMMEDIATE,
    PLACE,
    REST_OF_DAY,
    SCALE,
    TXF_ID,
    Tradable,
    script_of,
    synthetic_day,
    taker_and_maker_script,
    txf_session,
)

QUEUE_MODELS = ("risk_adverse", "power_prob3", "log_prob")
LATENCIES = ("none", "corner", "drawn")
WORKING, REJECTED, FILL, CANCELED, CANCEL_REJECTED, EXPIRED = 1, 2, 3, 4, 5, 6
REPORTED = ("event_kind", "order_id", "side", "price", "qty", "exchange_time_ns", "is_maker")


def latency(name: str) -> dict[str, Any]:
    measured, _ = load_latency_profile("shioaji_live_2026_04")
    if name == "none":
        point = [[0.5, 0]]
        return measured | {"pipeline_ns": 0, "place": point, "cancel": point, "response": point}
    return at_corner(measured, 0.95) if name == "corner" else measured


def run(
    tape: bytes, script: bytes, *, queue_model: str, profile: dict[str, Any], package: bool
) -> dict[str, Any]:
    arguments = (
        tape,
        script,
        [(TXF_ID, SCALE, SCALE)],
        json.dumps(profile),
        json.dumps({"queue_model": queue_model}),
    )
    if not package:
        return _core.run_script(*arguments)
    rows = _core.convert_session(tape, TXF_ID, SCALE, SCALE)
    with PackageHandle(rows, Tradable(), queue_model=queue_model) as handle:
        return _core.run_script(*arguments, handle)


def broker(result: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(result["broker"], dtype=records.DTYPES["Broker"])


def assert_equal_reports(ours: dict[str, Any], theirs: dict[str, Any]) -> np.ndarray:
    left, right = broker(ours), broker(theirs)
    for name in REPORTED:
        count = min(left.size, right.size)
        different = np.flatnonzero(left[name][:count] != right[name][:count])
        assert different.size == 0, (
            f"{name} differs first at {left[different[0]]} / {right[different[0]]}"
        )
    assert ours["inputs"] == theirs["inputs"]
    assert ours["decisions"] == theirs["decisions"]
    return left


@cache
def _synthetic() -> tuple[bytes, bytes]:
    tape = synthetic_day()
    return tape, taker_and_maker_script(tape)


@pytest.mark.parametrize("queue_model", QUEUE_MODELS)
@pytest.mark.parametrize("setting", LATENCIES)
def test_both_exchanges_report_the_same_on_a_synthetic_day(queue_model: str, setting: str) -> None:
    tape, script = _synthetic()
    ours, theirs = (
        run(tape, script, queue_model=queue_model, profile=latency(setting), package=package)
        for package in (False, True)
    )
    reports = assert_equal_reports(ours, theirs)
    fills = reports[reports["event_kind"] == FILL]
    assert (fills["is_maker"] == 1).sum() > 300
    assert (fills["is_maker"] == 0).sum() > 300
    kinds = set(reports["event_kind"].tolist())
    assert {WORKING, FILL, CANCELED, CANCEL_REJECTED, EXPIRED} <= kinds
    assert not np.any(reports["exchange_time_ns"] > reports["receive_time_ns"])


@pytest.mark.recordings
@pytest.mark.parametrize("session", ["day", "night"])
@pytest.mark.parametrize("queue_model", QUEUE_MODELS)
def test_both_exchanges_report_the_same_on_a_recorded_session(
    recordings: Path, queue_model: str, session: str
) -> None:
    tape = txf_session(recordings, session=session)
    script = taker_and_maker_script(tape, orders=4_000)
    for setting in LATENCIES:
        ours, theirs = (
            run(tape, script, queue_model=queue_model, profile=latency(setting), package=package)
            for package in (False, True)
        )
        fills = assert_equal_reports(ours, theirs)
        fills = fills[fills["event_kind"] == FILL]
        assert (fills["is_maker"] == 1).sum() > 300
        assert (fills["is_maker"] == 0).sum() > 300


def test_another_queue_model_gives_other_fills() -> None:
    """Negative control: were fills not compared at all, this would pass as equal too."""
    tape, script = _synthetic()
    profile = latency("none")
    results = {
        name: run(tape, script, queue_model=name, profile=profile, package=True)["broker"]
        for name in ("risk_adverse", "log_prob")
    }
    assert results["risk_adverse"] != results["log_prob"]
    ours = run(tape, script, queue_model="risk_adverse", profile=profile, package=False)
    with pytest.raises(AssertionError):
        assert_equal_reports(
            ours, run(tape, script, queue_model="log_prob", profile=profile, package=True)
        )


def test_the_measured_cancel_is_faster_than_the_place_and_it_changes_fills() -> None:
    tape, script = _synthetic()
    measured = latency("corner")
    facts = np.frombuffer(
        run(tape, script, queue_model="risk_adverse", profile=measured, package=True)[
            "order_facts"
        ],
        dtype=np.dtype(_core.ORDER_FACT_FIELDS),
    )
    waits = facts["exchange_arrival_ns"] - facts["decision_time_ns"]
    assert set(waits[facts["request_kind"] == PLACE]) == {394_750_000}
    assert set(waits[facts["request_kind"] == CANCEL]) == {117_650_000}
    assert np.all(facts["response_time_ns"] > facts["exchange_arrival_ns"])
    symmetric = measured | {"cancel": measured["place"]}
    slow = run(tape, script, queue_model="risk_adverse", profile=symmetric, package=True)
    fast = run(tape, script, queue_model="risk_adverse", profile=measured, package=True)
    fills = [int((broker(result)["event_kind"] == FILL).sum()) for result in (slow, fast)]
    assert fills[0] > fills[1], "a slower cancel leaves more orders to be hit"


def test_an_order_that_fills_under_its_cancel_is_filled_and_the_cancel_refused() -> None:
    tape = synthetic_day(snapshots=200)
    book = records.split(tape)["Book"][50]
    time_ns = int(book["receive_time_ns"])
    script = script_of(
        [
            (time_ns, PLACE, 1, 1, int(book["ask_price"][0]) + 5 * SCALE, REST_OF_DAY),
            (time_ns + 1, CANCEL, 1, 1, int(book["ask_price"][0]), REST_OF_DAY),
            (time_ns, PLACE, 2, 1, int(book["bid_price"][4]) - 50 * SCALE, IMMEDIATE),
        ]
    )
    for package in (False, True):
        result = run(
            tape, script, queue_model="risk_adverse", profile=latency("none"), package=package
        )
        seen = broker(result)[["order_id", "event_kind"]].tolist()
        assert (1, FILL) in seen
        assert seen.index((1, FILL)) < seen.index((1, CANCEL_REJECTED))
        assert (2, EXPIRED) in seen


def test_two_processes_give_the_same_bytes() -> None:
    program = (
        "import hashlib, sys; sys.path.insert(0, '.')\n"
        "from tests.rust_core.test_simulation_venues import _synthetic, latency, run\n"
        "tape, script = _synthetic()\n"
        "for package in (False, True):\n"
        "    result = run(tape, script, queue_model='log_prob', profile=latency('drawn'),"
        " package=package)\n"
        "    print(hashlib.sha256(result['inputs'] + result['decisions']).hexdigest())\n"
    )
    root = Path(__file__).resolve().parents[2]
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "PATH": "", "PYTHONPATH": str(root)},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    lines = outputs.pop().split()
    assert len(lines) == 2
    assert lines[0] == lines[1], "package and own exchange"


def test_a_package_run_serves_once_and_an_unknown_queue_model_is_refused() -> None:
    tape, script = synthetic_day(snapshots=50), script_of([])
    rows = _core.convert_session(tape, TXF_ID, SCALE, SCALE)
    arguments = (
        tape,
        script,
        [(TXF_ID, SCALE, SCALE)],
        json.dumps(latency("none")),
        json.dumps({"queue_model": "risk_adverse"}),
    )
    with PackageHandle(rows, Tradable(), queue_model="risk_adverse") as handle:
        _core.run_script(*arguments, handle)
        with pytest.raises(PlatformError, match="once") as caught:
            _core.run_script(*arguments, handle)
    assert caught.value.code == ReasonCode.INVARIANT_BROKEN
    with pytest.raises(PlatformError, match="power_prob3") as caught:
        PackageHandle(rows, Tradable(), queue_model="pro_rata")
    assert caught.value.code == ReasonCode.SETTINGS_INVALID
    with pytest.raises(PlatformError, match="no market data"):
        PackageHandle(b"", Tradable(), queue_model="risk_adverse")


def test_a_tape_that_is_no_market_tape_is_refused_by_code() -> None:
    script = script_of([(1, PLACE, 1, 1, SCALE, REST_OF_DAY)])
    good = synthetic_day(snapshots=10)
    cases = {
        "empty": (b"", ReasonCode.SCHEMA_MISMATCH),
        "type 16": (script, ReasonCode.SCHEMA_MISMATCH),
        "ends inside": (good[:-1], ReasonCode.SCHEMA_MISMATCH),
        "receive order": (good + good, ReasonCode.OUT_OF_ORDER_ROW),
    }
    for text, (tape, code) in cases.items():
        arguments = (
            tape, script, [(TXF_ID, SCALE, SCALE)], json.dumps(latency("none")),
            json.dumps({"queue_model": "risk_adverse"}),
        )  # fmt: skip
        with pytest.raises(PlatformError, match=text) as caught:
            _core.run_script(*arguments)
        assert caught.value.code == code


def test_a_script_or_venue_option_that_is_not_known_is_refused_by_code() -> None:
    tape = synthetic_day(snapshots=10)
    instruments = [(TXF_ID, SCALE, SCALE)]
    profile = json.dumps(latency("none"))
    venue = json.dumps({"queue_model": "risk_adverse"})
    with pytest.raises(PlatformError, match="decision records"):
        _core.run_script(tape, tape, instruments, profile, venue)
    with pytest.raises(PlatformError, match="queue_modell") as caught:
        _core.run_script(tape, b"", instruments, profile, json.dumps({"queue_modell": "log_prob"}))
    assert caught.value.code == ReasonCode.SETTINGS_INVALID
    with pytest.raises(PlatformError, match="instrument 1001") as caught:
        _core.run_script(tape, b"", [(77, SCALE, SCALE)], profile, venue)
    assert caught.value.code == ReasonCode.UNKNOWN_INSTRUMENT
