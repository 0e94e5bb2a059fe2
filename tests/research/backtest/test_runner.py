"""The backtest on the package, and a runtime session beside it."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.config.canonical import canonical_json
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.execution.venue_options import venue_options
from hft_platform.feed.recording import load_tape
from hft_platform.market.instruments import load_instruments
from hft_platform.market.latency import at_corner, load_latency_profile, profile_sha256
from hft_platform.services import latch, session_runner
from hft_platform.services.parity import engine_config_of, read_session
from hft_platform.services.session_runner import SessionOutcome
from research.backtest.agreement import COMMANDED, EXCHANGES, FOLLOWS, UNEXPLAINED, compare
from research.backtest.runner import SessionResult, run_session, run_sessions
from research.backtest.session_agreement import agreement_of
from tests.hft_platform.services.live_workspace import (
    LATENCY,
    MAKER,
    SESSIONS,
    SYMBOL,
    Live,
    make_live,
)

Ran = tuple[Live, SessionOutcome]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A finished taker session, to be read or copied only."""
    live = make_live(tmp_path_factory.mktemp("market"))
    return live, live.run(live.issue())


def backtest(ran: Ran, **changes: object) -> SessionResult:
    """The backtest of the session's records with its own config, or with changes."""
    live, outcome = ran
    arguments = {
        "latency": load_latency_profile(LATENCY)[0],
        "queue_model": "power_prob3",
        "instrument": load_instruments().by_symbol(SYMBOL),
    } | changes
    return run_session(tape_of(live), engine_config_of(outcome.session_dir), **arguments)  # type: ignore[arg-type]


def tape_of(live: Live) -> bytes:
    """Records of the first session."""
    return load_tape(live.request(Path("none")).session)


def test_a_session_and_the_backtest_of_its_records_agree_completely(ran: Ran) -> None:
    live, outcome = ran
    found = agreement_of(live.ws, outcome.session_dir, read_session(outcome.session_dir))
    assert found.is_complete
    assert found.decision_identical == outcome.parity.total > 100
    assert found.report_identical == found.report_total > 100
    assert (found.causes, found.differences) == ({}, ())
    canonical_json(found.as_dict())


def test_not_only_the_decisions_but_every_input_is_the_same(ran: Ran) -> None:
    logs, result = read_session(ran[1].session_dir), backtest(ran)
    assert result.inputs == logs.inputs
    assert result.decisions == logs.decisions
    assert result.net_pnl == ran[1].summary["evidence"]["account"]["net"]


def test_a_maker_session_agrees_too(ran: Ran) -> None:
    """Resting orders are where two exchanges differ, if they do: the queue decides their fills."""
    live, _ = ran
    outcome = live.run(live.issue(template=MAKER, promotion_seq=2), SESSIONS[1])
    found = agreement_of(live.ws, outcome.session_dir, read_session(outcome.session_dir))
    assert found.is_complete, found.differences[:3]
    broker = records.split(read_session(outcome.session_dir).inputs)["Broker"]
    assert (broker["is_maker"][broker["event_kind"] == 3] == 1).any()


def test_a_result_names_the_latency_and_the_queue_it_was_made_with(ran: Ran) -> None:
    profile, sha256 = load_latency_profile(LATENCY)
    result = backtest(ran)
    assert (result.latency_sha256, result.queue_model) == (sha256, "power_prob3")
    assert result.session_id == SESSIONS[0]
    slow = at_corner(profile, 0.95)
    assert backtest(ran, latency=slow).latency_sha256 == profile_sha256(slow) != sha256


def test_the_same_backtest_twice_is_the_same_bytes(ran: Ran) -> None:
    one, two = backtest(ran), backtest(ran)
    assert (one.inputs, one.decisions) == (two.inputs, two.decisions)
    assert one.account.equity.tobytes() == two.account.equity.tobytes()


def test_replaying_a_backtests_inputs_gives_its_decisions(ran: Ran) -> None:
    result = backtest(ran)
    config = canonical_json(engine_config_of(ran[1].session_dir)).decode()
    assert _core.replay(config, result.inputs) == result.decisions


def test_a_slower_connection_gives_other_fills_and_worse_ones(ran: Ran) -> None:
    profile, _ = load_latency_profile(LATENCY)
    fast, slow = (backtest(ran, latency=at_corner(profile, q)) for q in (0.0, 1.0))
    assert fast.inputs != slow.inputs
    assert fast.net_pnl > slow.net_pnl


def test_many_sessions_are_runs_of_their_own(ran: Ran) -> None:
    live, outcome = ran
    config, tape = engine_config_of(outcome.session_dir), tape_of(live)
    done: list[int] = []
    results = run_sessions(
        [(tape, config), (tape, config)],
        latency=load_latency_profile(LATENCY)[0],
        queue_model="power_prob3",
        instrument=load_instruments().by_symbol(SYMBOL),
        progress=done.append,
    )
    assert done == [1, 2]
    assert results[0].inputs == results[1].inputs
    assert [trip.side for trip in results[0].account.round_trips]
    assert len(results[0].mid_edges_ticks) == len(results[0].account.round_trips)


def test_an_unknown_queue_model_or_a_broken_config_is_a_typed_error(ran: Ran) -> None:
    with pytest.raises(PlatformError) as caught:
        backtest(ran, queue_model="hopeful")
    assert caught.value.code == ReasonCode.SETTINGS_INVALID
    live, outcome = ran
    config = copy.deepcopy(engine_config_of(outcome.session_dir))
    config["alphas"][0]["expression"] = "k * imbalance_l9"
    with pytest.raises(PlatformError) as caught:
        run_session(
            tape_of(live),
            config,
            latency=load_latency_profile(LATENCY)[0],
            queue_model="power_prob3",
            instrument=load_instruments().by_symbol(SYMBOL),
        )
    assert caught.value.code == ReasonCode.UNKNOWN_FEATURE


def test_another_exchange_is_named_as_the_cause_and_the_rest_as_following(ran: Ran) -> None:
    """Negative control: the backtest with other latency stands for an exchange that differs."""
    logs = read_session(ran[1].session_dir)
    other = backtest(ran, latency=at_corner(load_latency_profile(LATENCY)[0], 0.99))
    found = compare(logs.inputs, logs.decisions, other.inputs, other.decisions)
    assert not found.is_complete
    assert found.causes[EXCHANGES] == 1
    missed = found.report_total - found.report_identical
    missed += found.decision_total - found.decision_identical
    assert found.causes[FOLLOWS] == missed - 1
    assert found.differences[0]["cause"] == EXCHANGES
    assert {row["cause"] for row in found.differences[1:]} == {FOLLOWS}
    canonical_json(found.as_dict())


def test_one_fill_at_another_price_is_a_difference_also_when_nothing_was_decided_on_it(
    ran: Ran,
) -> None:
    logs = read_session(ran[1].session_dir)
    inputs = bytearray(logs.inputs)
    fill = records.split(logs.inputs)["Broker"][-1]
    fields = records.DTYPES["Broker"].fields
    assert fields is not None
    place = inputs.rindex(fill.tobytes()) + int(fields["price"][1])
    inputs[place] ^= 1
    found = compare(logs.inputs, logs.decisions, bytes(inputs), logs.decisions)
    assert found.report_identical == found.report_total - 1
    assert not found.is_complete
    assert found.causes == {EXCHANGES: 1}
    (row,) = found.differences
    assert row["session"]["price"] == row["backtest"]["price"] ^ 1


def test_an_engine_that_decides_otherwise_on_the_same_reports_is_unexplained(ran: Ran) -> None:
    logs = read_session(ran[1].session_dir)
    decisions = np.frombuffer(logs.decisions, dtype=records.DTYPES["Decision"]).copy()
    decisions["price"][7] += 1
    found = compare(logs.inputs, logs.decisions, logs.inputs, decisions.tobytes())
    assert found.causes == {UNEXPLAINED: 1}
    assert found.differences[0]["what"] == "decision"


def test_a_halted_session_differs_because_of_the_command(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_runner, "STEP_RECORDS", 100)
    shutil.copytree(ran[0].ws / "datasets", tmp_path / "ws" / "datasets")
    live = Live(tmp_path / "ws")
    outcome = live.run(
        live.issue(),
        progress=lambda state: (
            latch.halt(live.ws, who="a", why="b") if state["records_done"] > 900 else None
        ),
    )
    found = agreement_of(live.ws, outcome.session_dir, read_session(outcome.session_dir))
    assert not found.is_complete
    assert found.causes[COMMANDED] == 1
    assert set(found.causes) == {COMMANDED, FOLLOWS}
    assert found.decision_identical > 10, "what was before the halt agrees"


def test_agreement_refuses_a_session_whose_files_were_changed(ran: Ran, tmp_path: Path) -> None:
    live, outcome = ran
    logs = read_session(outcome.session_dir)

    def changed(name: str, raw: bytes) -> int:
        folder = tmp_path / name
        shutil.copytree(outcome.session_dir, folder)
        (folder / name).write_bytes(raw)
        with pytest.raises(PlatformError) as caught:
            agreement_of(live.ws, folder, logs)
        return caught.value.code

    profile = json.loads((outcome.session_dir / "latency.json").read_bytes())
    profile["pipeline_ns"] += 1
    assert changed("latency.json", canonical_json(profile)) == ReasonCode.FILE_DAMAGED
    summary = (outcome.session_dir / "summary.json").read_bytes()
    other = summary.replace(b'"queue_model":"power_prob3"', b'"queue_model":"risk_adverse"')
    assert changed("summary.json", other) == ReasonCode.SUMMARY_TAMPERED
    assert changed("engine.json", b"{") == ReasonCode.FILE_DAMAGED


def test_the_contract_is_told_to_both_exchanges() -> None:
    txf = load_instruments().by_symbol("TXFD6")
    assert venue_options(txf, queue_model="log_prob") == {
        "queue_model": "log_prob",
        "contracts": {"1001": {"product_root": "TXF", "last_trading_day": 20260415}},
    }
