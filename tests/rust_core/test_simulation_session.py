"""A paper session: logged, replayed bit for bit, and equal to the backtest of the same records."""

from __future__ import annotations

import itertools
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
from research.backtest.package_handle import PackageHandle
from tests.rust_core.market_days import (
    SCALE,
    TXF_ID,
    Tradable,
    engine_config,
    synthetic_day,
    txf_session,
)
from tests.rust_core.test_simulation_venues import LATENCIES, latency

KINDS = ("taker", "maker")
QUEUE_MODELS = ("risk_adverse", "power_prob3")
HALT, ALL_ALPHAS = 1, 0xFFFF_FFFF
PLACE, APPROVED, FILL = 1, 1, 3


def backtest(
    tape: bytes, config: dict[str, Any], *, queue_model: str, setting: str, package: bool
) -> dict[str, Any]:
    arguments = (
        tape,
        json.dumps(config),
        json.dumps(latency(setting)),
        json.dumps({"queue_model": queue_model}),
    )
    if not package:
        return _core.run_backtest(*arguments)
    rows = _core.convert_session(tape, TXF_ID, SCALE, SCALE)
    with PackageHandle(rows, Tradable(), queue_model=queue_model) as handle:
        return _core.run_backtest(*arguments, handle)


def open_session(
    folder: Path,
    config: dict[str, Any],
    *,
    queue_model: str = "power_prob3",
    setting: str = "drawn",
    **options: Any,
) -> Any:
    return _core.PaperSession(
        json.dumps(config),
        json.dumps(latency(setting)),
        json.dumps({"queue_model": queue_model}),
        str(folder),
        json.dumps({"wal_id": 77, "durable": "group"} | options),
    )


def logs(folder: Path) -> tuple[bytes, bytes]:
    market, orders = (_core.read_log(str(folder / name))["tape"] for name in ("market", "orders"))
    inputs, decisions = _core.merge_logs(market, orders)
    parts = records.split(inputs)
    seqs = np.sort(np.concatenate([part["input_seq"] for part in parts.values()]))
    assert np.array_equal(seqs, np.arange(1, seqs.size + 1)), "every input once"
    return inputs, decisions


def decisions_of(tape: bytes) -> np.ndarray:
    return np.frombuffer(tape, dtype=records.DTYPES["Decision"])


@cache
def day() -> bytes:
    return synthetic_day(snapshots=1_500)


@pytest.mark.parametrize("kind", KINDS)
def test_session_backtest_on_the_package_and_replay_decide_the_same(
    tmp_path: Path, kind: str
) -> None:
    config = engine_config(day(), kind)
    session = open_session(tmp_path, config)
    session.feed(day())
    while not session.run(None, 500)["done"]:
        pass
    finished = session.finish()
    assert finished["halted_by"] == 0
    inputs, decisions = logs(tmp_path)
    for package in (False, True):
        result = backtest(
            day(), config, queue_model="power_prob3", setting="drawn", package=package
        )
        assert result["inputs"] == inputs
        assert result["decisions"] == decisions
        assert result["order_facts"] == finished["order_facts"]
    assert _core.replay(json.dumps(config), inputs) == decisions
    fills = records.split(inputs)["Broker"]
    assert (fills["event_kind"] == FILL).sum() > 50
    assert set(fills[fills["event_kind"] == FILL]["is_maker"].tolist()) >= {int(kind == "maker")}
    assert finished["counters"]["alphas"][0]["position_qty"] == 0, "flat at the end"


def test_replay_with_one_other_parameter_or_one_flipped_bit_differs() -> None:
    """Negative control of the replay comparison."""
    config = engine_config(day(), "maker")
    result = backtest(day(), config, queue_model="log_prob", setting="drawn", package=False)
    config["alphas"][0]["parameters"]["k"] = 1.25
    assert _core.replay(json.dumps(config), result["inputs"]) != result["decisions"]
    config["alphas"][0]["parameters"]["k"] = 1.0
    assert _core.replay(json.dumps(config), result["inputs"]) == result["decisions"]
    flipped = bytearray(result["inputs"])
    book = flipped.find(records.split(result["inputs"])["Book"][400].tobytes())
    flipped[book + 64 + 40] ^= 0xFF  # lowest byte of the best bid's quantity
    flipped[book + 64 + 44] ^= 0x01
    assert _core.replay(json.dumps(config), bytes(flipped)) != result["decisions"]


@pytest.mark.recordings
@pytest.mark.parametrize("setting", LATENCIES)
@pytest.mark.parametrize("queue_model", QUEUE_MODELS)
@pytest.mark.parametrize("kind", KINDS)
def test_engine_fills_are_the_same_on_both_exchanges_over_a_recorded_session(
    recordings: Path, kind: str, queue_model: str, setting: str
) -> None:
    tape = txf_session(recordings)
    config = engine_config(tape, kind)
    ours, theirs = (
        backtest(tape, config, queue_model=queue_model, setting=setting, package=package)
        for package in (False, True)
    )
    broker = np.frombuffer(ours["broker"], dtype=records.DTYPES["Broker"])
    assert (broker["event_kind"] == FILL).sum() > 1_000
    assert ours["broker"] == theirs["broker"]
    assert ours["inputs"] == theirs["inputs"]
    assert ours["decisions"] == theirs["decisions"]
    assert _core.replay(json.dumps(config), ours["inputs"]) == ours["decisions"]


def test_pacing_changes_nothing(tmp_path: Path) -> None:
    config = engine_config(day(), "taker")
    tapes = []
    for name, step_ns in (("fast", None), ("paced", 7_000_000_000)):
        session = open_session(tmp_path / name, config)
        session.feed(day())
        until_ns = int(records.split(day())["Trade"]["receive_time_ns"][0])
        while not session.run(None if step_ns is None else until_ns, 1 << 62)["done"]:
            until_ns += step_ns or 0
        session.finish()
        tapes.append(logs(tmp_path / name))
    assert tapes[0] == tapes[1]


def records_in_order(tape: bytes) -> list[tuple[int, bytes]]:
    """Earliest time and bytes of every record of a tape, in its order."""
    by_place = {}
    for name, (rows, places) in _core.index_tape(tape).items():
        parts = np.frombuffer(rows, dtype=records.DTYPES[name])
        for place, row in zip(np.frombuffer(places, dtype="<u4").tolist(), parts, strict=True):
            first_ns = min(int(row["exchange_time_ns"]), int(row["receive_time_ns"]))
            by_place[place] = (first_ns, row.tobytes())
    ordered = [by_place[place] for place in sorted(by_place)]
    assert b"".join(row[1] for row in ordered) == tape
    return ordered


@pytest.mark.parametrize("pieces", [2, 7, 400])
def test_a_market_pushed_in_pieces_is_the_same_session(tmp_path: Path, pieces: int) -> None:
    """How a live feed comes; pieces of any size and faults: simulation/tests/push.rs."""
    config = engine_config(day(), "maker")
    whole = open_session(tmp_path / "whole", config)
    whole.feed(day())
    whole.run(None, 1 << 62)
    whole.finish()
    rows = records_in_order(day())
    session = open_session(tmp_path / "pushed", config)
    bounds = np.linspace(0, len(rows), pieces + 1).astype(int).tolist()
    for first, last in itertools.pairwise(bounds):
        more = last < len(rows)
        session.feed(b"".join(row[1] for row in rows[first:last]), more=more)
        if more:
            with pytest.raises(PlatformError, match="more of the market may come"):
                session.run(None, 1)
            known_ns = min(row[0] for row in rows[last:]) - 1
            assert not session.run(known_ns, 1 << 62)["done"]
    assert session.run(None, 1 << 62)["done"]
    session.finish()
    assert logs(tmp_path / "pushed") == logs(tmp_path / "whole")
    with pytest.raises(PlatformError, match="is over"):
        session.feed(day())


def test_a_halt_stops_new_orders_and_replays_from_the_log(tmp_path: Path) -> None:
    config = engine_config(day(), "taker")
    session = open_session(tmp_path, config)
    session.feed(day())
    state = session.run(None, 1_500)
    assert not state["done"]
    session.command(HALT, ALL_ALPHAS, 0, int(ReasonCode.KILL_SWITCH_ON))
    finished = session.finish()
    inputs, decisions = logs(tmp_path)
    command = records.split(inputs)["Command"]
    assert command.size == 1
    made = decisions_of(decisions)
    places = made[(made["action"] == PLACE) & (made["verdict"] == APPROVED)]
    assert places.size > 0
    assert places["input_seq"].max() < command["input_seq"][0]
    assert finished["halted_by"] == ReasonCode.KILL_SWITCH_ON
    assert _core.replay(json.dumps(config), inputs) == decisions


def test_finishing_early_closes_the_market_and_seals_the_logs(tmp_path: Path) -> None:
    config = engine_config(day(), "maker")
    session = open_session(tmp_path, config)
    session.feed(day())
    session.run(None, 1_000)
    assert session.counters()["records"][1] > 0
    finished = session.finish()
    for name in ("market", "orders"):
        segments = _core.read_log(str(tmp_path / name))["segments"]
        assert segments
        assert all(Path(row["path"]).suffix == ".seg" for row in segments)
    assert finished["counters"]["open_orders"] == 0
    facts = np.frombuffer(finished["order_facts"], dtype=np.dtype(_core.ORDER_FACT_FIELDS))
    assert facts.size > 0
    assert np.all(facts["response_time_ns"] > 0), "every request was answered"


def test_a_config_switch_is_an_input_and_lowers_the_weight(tmp_path: Path) -> None:
    config = engine_config(day(), "taker")
    session = open_session(tmp_path, config)
    session.feed(day())
    session.run(None, 1_000)
    session.config_switch(
        0, stage=2, weight_ppm=1, promotion_seq=2, expires_ns=(1 << 63) - 1, config_sha256="cd" * 32
    )
    session.finish()
    inputs, decisions = logs(tmp_path)
    switches = records.split(inputs)["ConfigSwitch"]
    assert switches["weight_ppm"].tolist() == [1_000_000, 1]
    assert bytes(switches[1]["config_sha256"]) == b"\xcd" * 32
    assert _core.replay(json.dumps(config), inputs) == decisions


def test_contracts_are_logged_before_the_market(tmp_path: Path) -> None:
    session = _core.PaperSession(
        json.dumps(engine_config(day(), "taker")),
        json.dumps(latency("none")),
        json.dumps(
            {
                "queue_model": "log_prob",
                "contracts": {str(TXF_ID): {"product_root": "TXF", "last_trading_day": 20260415}},
            }
        ),
        str(tmp_path),
        json.dumps({"wal_id": 1, "durable": "group"}),
    )
    session.feed(day())
    session.finish()
    parts = records.split(logs(tmp_path)[0])
    contract = parts["Instrument"][0]
    assert contract["symbol"] == b"TXFD6"
    assert contract["product_root"] == b"TXF"
    assert int(contract["last_trading_day"]) == 20260415
    assert int(contract["input_seq"]) == 1
    assert int(parts["ConfigSwitch"]["input_seq"][0]) == 2


def test_a_log_that_cannot_be_written_halts_with_its_code_and_nothing_leaves_after_it(
    tmp_path: Path,
) -> None:
    program = f"""
import json, resource, sys
from pathlib import Path
from tests.rust_core.test_simulation_session import open_session
from tests.rust_core.market_days import engine_config, synthetic_day
tape = synthetic_day(snapshots=1_500)
session = open_session(Path({str(tmp_path)!r}), engine_config(tape, "maker"))
session.feed(tape)
session.run(None, 200)
resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, resource.RLIM_INFINITY))
while not (state := session.run(None, 200))["done"]:
    pass
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
finished = session.finish()
print(json.dumps([finished["halted_by"], finished["message"], state["records_done"],
                  state["records_total"], finished["counters"]["simulation"]["requests"]]))
"""
    root = Path(__file__).resolve().parents[2]
    output = subprocess.run(
        [sys.executable, "-c", program],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(root), "PATH": ""},
    ).stdout
    halted_by, message, done, total, requests = json.loads(output)
    assert halted_by == ReasonCode.WAL_WRITE_FAILED
    assert message
    assert done < total, "the session stopped where the log failed"
    whole = backtest(
        synthetic_day(snapshots=1_500),
        engine_config(synthetic_day(snapshots=1_500), "maker"),
        queue_model="power_prob3",
        setting="drawn",
        package=False,
    )
    assert requests < whole["counters"]["simulation"]["requests"]


def test_a_session_used_out_of_order_or_with_wrong_options_is_refused(tmp_path: Path) -> None:
    config = engine_config(day(), "taker")
    session = open_session(tmp_path / "a", config)
    for misuse in (
        lambda: session.run(None, 1),
        lambda: session.command(HALT, 0, 0, 0),
        session.counters,
        session.finish,
    ):
        with pytest.raises(PlatformError, match="no recording") as caught:
            misuse()
        assert caught.value.code == ReasonCode.SESSION_NOT_OPEN
    session.feed(day())
    with pytest.raises(PlatformError, match="has its recording"):
        session.feed(day())
    broken = open_session(tmp_path / "b", config)
    with pytest.raises(PlatformError, match="empty") as caught:
        broken.feed(b"")
    assert caught.value.code == ReasonCode.SCHEMA_MISMATCH
    config["alphas"][0]["expression"] = "no_such_feature"
    with pytest.raises(PlatformError, match="no_such_feature"):
        open_session(tmp_path / "c", config)
    with pytest.raises(PlatformError, match="wal_id"):
        _core.PaperSession(
            "{}", json.dumps(latency("none")), '{"queue_model":"log_prob"}', "x", "{}"
        )
