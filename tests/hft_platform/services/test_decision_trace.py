"""What a replay tells about a decision: strategy state and checks, held against the log."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.config.canonical import canonical_json
from hft_platform.errors import ReasonCode
from hft_platform.services.decision_trace import CANCEL, PLACE, DecisionTrace, trace_decisions
from hft_platform.services.explain import (
    Explanation,
    explain_order,
    list_orders,
    list_refusals,
)
from hft_platform.services.parity import engine_config_of, read_session
from hft_platform.services.session_runner import SessionOutcome
from tests.hft_platform.services.live_workspace import ALPHA_ID, MAKER, Live
from tests.rust_core.market_days import SCALE, engine_config, synthetic_day, txf_session

Finished = tuple[Live, SessionOutcome]
HALT, LOOP_LAG, ALL = 1, 1, (1 << 32) - 1
LATENCY = {
    "profile_id": "test",
    "seed": 11,
    "pipeline_ns": 250_000,
    "place": [[0.5, 20_000_000], [0.95, 90_000_000]],
    "cancel": [[0.5, 10_000_000], [0.95, 60_000_000]],
    "response": [[0.5, 5_000_000], [0.95, 60_000_000]],
    "corner": None,
}

FIRST_ENTRY = """\
order 1 of test_imbalance_taker on SIM_EDGE
  market    Book 13 at 2026-01-05 00:45:02.250000 UTC bid 19997 x 22, ask 19998 x 10
  features  imbalance_ema_2s=0.46193
  signal    k * imbalance_ema_2s = 3.69544 ticks
  decision  place (entry) approved buy 1 at 19999, position 0, intent ID
    mode      normal: session open
    strategy  position 0 (at most 1), clip 1, net 0, no open order
    wanted    taker enters when the signal's size reaches 2.5 ticks (is 3.69544)
    checks    40 of 43 passed, 3 not for an opening order; near a limit: position 1, limit 1
    guard     NORMAL, policy NORMAL
  broker    fill 1 at 19998, 0 left, 2026-01-05 00:45:02.563362 UTC"""


def decisions_of(session_dir: Path) -> np.ndarray[Any, np.dtype[np.void]]:
    """Places and cancels of a session's log."""
    logs = read_session(session_dir)
    rows = np.frombuffer(logs.decisions, dtype=records.DTYPES["Decision"])
    return rows[np.isin(rows["action"], (PLACE, CANCEL))]


def hold_against_log(session_dir: Path, *, step: int = 1) -> list[DecisionTrace]:
    """Trace decisions; every number that the log has too is the log's."""
    rows = decisions_of(session_dir)
    places = np.arange(rows.size)
    rows = rows[(places % step == 0) | (places >= rows.size - 20)]
    inputs = read_session(session_dir).inputs
    traces = trace_decisions(inputs, engine_config_of(session_dir), rows)
    assert len(traces) == rows.size > 20
    for row, trace in zip(rows, traces, strict=True):
        assert trace.disagreement == ""
        assert trace.input_seq == row["input_seq"]
        assert trace.strategy is not None
        assert trace.strategy["position_qty"] == row["position_qty"]
        signal = float(row["signal"])
        assert trace.strategy["signal"] == (signal if np.isfinite(signal) else None)
        check = trace.refusing()
        assert (row["verdict"] == 2) == (check is not None)
        if check:
            assert ReasonCode[check["code"]] == row["reason_code"]
            assert (check["observed"], check["limit"]) == (row["observed"], row["limit"])
            assert check["numbers"] == (row["observed"], row["limit"])
            assert check["code"] in check["codes"]
        canonical_json(trace.as_dict())
    return traces


def test_the_first_entry_reads_as_an_operator_needs_it(finished: Finished) -> None:
    text = explain_order(finished[1].session_dir, 1).render()
    assert re.sub(r"intent \d+", "intent ID", text) == FIRST_ENTRY


def test_every_number_of_a_takers_session_is_the_logs(finished: Finished) -> None:
    traces = hold_against_log(finished[1].session_dir)
    results = {row["result"] for trace in traces for row in trace.checks}
    assert results == {"passed", "not_for_this", "refused"}
    assert {len(trace.checks) for trace in traces} == {len(traces[0].checks)}


def test_every_number_of_a_makers_session_is_the_logs(live: Live) -> None:
    outcome = live.run(live.issue(template=MAKER))
    traces = hold_against_log(outcome.session_dir)
    rows = decisions_of(outcome.session_dir)
    moved = 0
    for row, trace in zip(rows, traces, strict=True):
        assert trace.strategy is not None
        wanted = trace.strategy["wanted"]
        price = wanted["bid" if row["side"] > 0 else "ask"] if wanted else None
        if row["action"] == CANCEL and wanted:
            own = [o for o in trace.strategy["orders"] if o["order_id"] == row["order_id"]]
            assert own[0]["price"] == row["price"]
            moved += price not in (None, int(row["price"]))
        elif row["intent_reason"] == 3:
            assert price == row["price"]
    assert moved > 100
    canceled = next(int(row["order_id"]) for row in rows if row["intent_reason"] == 4)
    lines = explain_order(outcome.session_dir, canceled).render().splitlines()
    because = [line for line in lines if line.startswith("    because   ")]
    assert len(because) == 1
    assert any("its place is no longer wanted; maker wants bid" in line for line in lines)


def test_a_refused_intent_is_explained_by_its_own_id(finished: Finished) -> None:
    session_dir = finished[1].session_dir
    refused = list_refusals(session_dir)[0]
    found = explain_order(session_dir, refused["intent_id"])
    assert (found.order_id, found.intent_id) == (0, refused["intent_id"])
    assert (found.decisions, found.broker_events) == ([refused], [])
    lines = found.render().splitlines()
    assert lines[0] == f"refused intent {refused['intent_id']} of {ALPHA_ID} on SIM_EDGE"
    assert "    mode      reduce_only: session takes only exits" in lines
    assert (
        "    check     session_phase refused SESSION_NOT_OPEN [session.phases]"
        " (does the session take this order now?)"
    ) in lines
    placed = list_orders(session_dir)[0]
    by_intent = explain_order(session_dir, placed["intent_id"])
    assert by_intent == explain_order(session_dir, placed["order_id"])


def test_all_checks_are_printed_in_the_tables_order_when_asked(finished: Finished) -> None:
    found = explain_order(finished[1].session_dir, 1)
    names = [row["name"] for row in found.traces[0].checks]
    lines = found.render(all_checks=True).splitlines()
    assert [line.split()[1] for line in lines if line.startswith("    check ")] == names
    assert names[0] == "kill_switch"
    assert names[-1] == "capacity"
    shown = "\n".join(lines)
    assert "account_order_rate passed: 1, limit 180 [account_limits.order_rate_max" in shown
    assert "exit_collar is for exits only" in shown


def doctored(folder: Path, to: Path, change: Any) -> Path:
    """Copy a session whose config says something else than it did."""
    shutil.copytree(folder, to)
    config = engine_config_of(to)
    change(config)
    (to / "engine.json").write_bytes(canonical_json(config))
    return to


def test_a_doctored_config_is_told_as_a_broken_parity(finished: Finished, tmp_path: Path) -> None:
    def forbid(config: dict[str, Any]) -> None:
        config["account_limits"]["gross_notional_max"] = 5 * SCALE

    session_dir = doctored(finished[1].session_dir, tmp_path / "s", forbid)
    lines = explain_order(session_dir, 1).render().splitlines()
    (line,) = [line for line in lines if line.startswith("    differs ")]
    assert "replay and log disagree: " in line
    assert "verdict 1 logged, 2 replayed" in line
    assert "parity is broken" in line
    assert any("gross_notional refused NOTIONAL_ABOVE_LIMIT: 399980, limit 5" in s for s in lines)
    assert lines[4].startswith("  decision  place (entry) approved"), "the log's own word stays"

    def deafen(config: dict[str, Any]) -> None:
        config["alphas"][0]["template"]["entry_ticks"] = 1e6

    deaf = explain_order(doctored(finished[1].session_dir, tmp_path / "t", deafen), 1)
    assert deaf.traces[0].strategy is None
    assert "the replay has no such intent at input" in deaf.render()


def paper(
    folder: Path, tape: bytes, config: dict[str, Any], at: float, then: Callable[[Any], object]
) -> Path:
    """A paper session in which something happens when a share of the books is through."""
    session = _core.PaperSession(
        json.dumps(config),
        json.dumps(LATENCY),
        json.dumps({"queue_model": "power_prob3"}),
        str(folder),
        json.dumps({"wal_id": 5, "durable": "group"}),
    )
    session.feed(tape)
    books = records.split(tape)["Book"]
    until_ns = int(books["receive_time_ns"][int(at * books.size)])
    session.run(until_ns, 10_000_000)
    then(session)
    while not session.run(None, 5_000)["done"]:
        pass
    session.finish()
    (folder / "engine.json").write_bytes(canonical_json(config))
    return folder


def halt(session: Any) -> None:
    """An operator's halt of everything."""
    session.command(HALT, ALL, 0, int(ReasonCode.KILL_SWITCH_ON))


def last_of(session_dir: Path, reason: str) -> Explanation:
    """The last decision written for a reason."""
    rows = [r for r in decisions_of(session_dir) if _reason(r) == reason]
    return explain_order(session_dir, int(rows[-1]["intent_id"]))


def _reason(row: np.void) -> str:
    names = ["", "entry", "exit", "quote", "requote", "flatten", "halt_cancel", "clear_exit"]
    return names[int(row["intent_reason"])]


@pytest.mark.parametrize("kind", ["taker", "maker"])
def test_a_halt_is_the_cause_of_what_follows_it(tmp_path: Path, kind: str) -> None:
    tape = synthetic_day(snapshots=600)
    session_dir = paper(tmp_path / "s", tape, engine_config(tape, kind), 0.6, halt)
    hold_against_log(session_dir)
    if kind == "maker":
        text = last_of(session_dir, "halt_cancel").render()
        assert "    wanted    a halt takes orders back\n" in text
        assert "UTC halt because of KILL_SWITCH_ON" in text
    else:
        text = last_of(session_dir, "entry").render()
        assert "check     kill_switch refused KILL_SWITCH_ON" in text
    assert re.search(
        r"mode      (hold|flatten): session .*account halted \(KILL_SWITCH_ON\) since", text
    )
    assert "policy HALT since" in text


def test_a_storm_is_named_with_what_brought_it(tmp_path: Path) -> None:
    tape = synthetic_day(snapshots=600)
    config = engine_config(tape, "maker")
    lag = {"storm_in": 20_000_000, "storm_out": 10_000_000}
    config["storm_guard"] = config["storm_guard"] | {
        "loop_lag_ns": config["storm_guard"]["loop_lag_ns"] | lag
    }
    late = 50_000_000
    session_dir = paper(
        tmp_path / "s", tape, config, 0.5, lambda session: session.health(LOOP_LAG, late)
    )
    traces = hold_against_log(session_dir)
    stormy = [trace for trace in traces if trace.storm["state"] == "STORM"]
    assert stormy
    for trace in stormy:
        assert trace.storm["inputs"]["STORM_LOOP_LAG"]["value"] == late
    text = "\n".join(
        explain_order(session_dir, int(row["order_id"])).render()
        for row, trace in zip(decisions_of(session_dir), traces, strict=True)
        if trace in stormy[:3]
    )
    assert "storm guard in STORM (STORM_LOOP_LAG) since" in text
    assert re.search("wanted +(mode reduce_only lets nothing open|its place is no longer)", text)
    assert "guard     STORM since" in text


@pytest.mark.recordings
@pytest.mark.parametrize("kind", ["taker", "maker"])
def test_a_recorded_day_is_explained_decision_by_decision(
    recordings: Path, tmp_path: Path, kind: str
) -> None:
    tape = txf_session(recordings)
    session_dir = paper(tmp_path / "s", tape, engine_config(tape, kind), 0.9, halt)
    traces = hold_against_log(session_dir, step=29)
    modes = {trace.strategy["mode"] for trace in traces if trace.strategy}
    assert "normal" in modes
    assert len(modes) > 1
