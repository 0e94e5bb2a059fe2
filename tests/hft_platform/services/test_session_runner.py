"""Running a session: what is traded, what stops it, and what a refusal or a failure leaves."""

from __future__ import annotations

import dataclasses
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hft_platform import records
from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.config.keys import public_key
from hft_platform.config.promotion_folder import (
    promotions_root,
    weight_path,
    withdrawn_path,
)
from hft_platform.config.settings import load_settings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import load_instruments
from hft_platform.services import latch, session_runner
from hft_platform.services.parity import read_session, replay_session
from hft_platform.services.session_runner import SessionOutcome, require_before_roll, run_session
from hft_platform.services.session_summary import verify_summary
from tests.hft_platform.services.live_workspace import (
    ALPHA_ID,
    DAYS,
    MAKER,
    SCALE,
    SESSIONS,
    Live,
    content_of,
    fake_clock,
    open_ns,
)

PLACE, CANCEL, APPROVED = 1, 2, 1
NEVER_NS = 3_600_000_000_000
Read = tuple[dict[str, np.ndarray], np.ndarray]


def read(session_dir: Path) -> Read:
    """Inputs by type, and decisions."""
    logs = read_session(session_dir)
    return records.split(logs.inputs), np.frombuffer(
        logs.decisions, dtype=records.DTYPES["Decision"]
    )


def position_after(inputs: dict[str, np.ndarray], input_seq: int) -> int:
    """Position from the fills up to an input."""
    broker = inputs["Broker"]
    fills = broker[(broker["event_kind"] == 3) & (broker["input_seq"] <= input_seq)]
    return int((fills["side"] * fills["qty"]).sum())


def at_share(share: float, act: Callable[[], None]) -> Callable[[dict[str, Any]], None]:
    """A progress callback that acts once, when that share of the recording is done."""
    done: list[bool] = []

    def progress(state: dict[str, Any]) -> None:
        if not done and state["records_done"] >= share * state["records_total"]:
            done.append(True)
            act()

    return progress


def withdraw(live: Live, seq: int = 1) -> None:
    """Take the permit back, as signer, canary or a person with an editor would."""
    atomic_write(withdrawn_path(promotions_root(live.ws), ALPHA_ID, seq), b"{}\n")


@pytest.fixture
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at latch and withdrawals every 100 records: the recording has some 3,000."""
    monkeypatch.setattr(session_runner, "STEP_RECORDS", 100)


def test_a_session_trades_ends_flat_and_replays_bit_for_bit(
    finished: tuple[Live, SessionOutcome],
) -> None:
    live, outcome = finished
    evidence = outcome.summary["evidence"]
    assert evidence["counts"]["orders"] > 50
    assert evidence["account"]["round_trip_count"] > 20
    assert evidence["account"]["position_qty"] == 0
    assert outcome.parity.is_identical
    assert evidence["parity"] == {"identical": outcome.parity.total, "total": outcome.parity.total}
    assert outcome.parity.total > 100
    read_back = verify_summary(
        outcome.session_dir / "summary.json", key=public_key(live.ws, "session")
    )
    assert read_back.run_id == outcome.session_dir.name
    files = sorted(path.name for path in outcome.session_dir.rglob("*") if path.is_file())
    assert files == [
        "00000001.seg", "00000001.seg", "config.yaml", "engine.json", "latency.json",
        "lock", "lock", "manifest.lock", "manifest.lock", "manifest.log", "manifest.log",
        "parity.json", "summary.json", "watermark", "watermark",
    ]  # fmt: skip


def test_the_weight_in_force_sizes_the_orders(finished: tuple[Live, SessionOutcome]) -> None:
    _, decisions = read(finished[1].session_dir)
    placed = decisions[(decisions["action"] == PLACE) & (decisions["verdict"] == APPROVED)]
    assert set(placed["qty"].tolist()) == {SCALE}, "half of two lots"


def test_the_resolved_contract_is_in_the_log(finished: tuple[Live, SessionOutcome]) -> None:
    inputs, _ = read(finished[1].session_dir)
    assert inputs["Instrument"]["symbol"].tolist() == [b"SIM_EDGE"]
    assert inputs["Instrument"]["product_root"].tolist() == [b"SIM"]


def test_the_same_session_run_again_has_the_same_evidence_under_a_new_name(live: Live) -> None:
    head = live.issue()
    first, second = live.run(head), live.run(head)
    assert second.session_dir.name == f"{first.session_dir.name}-2"
    one, two = (dict(run.summary["evidence"]) for run in (first, second))
    for row in (one, two):
        del row["run_id"]
    assert one == two


def test_sim_and_paced_paper_decide_the_same(live: Live) -> None:
    head = live.issue()
    runs = [
        live.run(head),
        live.run(head, mode="sim"),
        live.run(head, speed=100.0, clock=fake_clock()),
        live.run(head, speed=1e6, clock=fake_clock()),
    ]
    assert len({run.summary["evidence"]["decisions_sha256"] for run in runs}) == 1
    assert len({run.summary["evidence"]["inputs_sha256"] for run in runs}) == 1


@pytest.mark.usefixtures("short_steps")
def test_a_halt_cancels_what_rests_and_places_nothing_more(live: Live) -> None:
    head = live.issue(
        template=MAKER, on_withdrawal={"action": "hold_to_close", "deadline_ns": NEVER_NS}
    )
    outcome = live.run(
        head,
        progress=at_share(0.4, lambda: latch.halt(live.ws, who="tester", why="test")),
    )
    inputs, decisions = read(outcome.session_dir)
    (command,) = inputs["Command"]
    before = decisions[decisions["input_seq"] < command["input_seq"]]
    after = decisions[decisions["input_seq"] >= command["input_seq"]]
    assert ((before["action"] == PLACE) & (before["verdict"] == APPROVED)).sum() > 10
    # The end of the session closes the position: the last ten seconds are force-flat.
    held = after[after["sequence_time_ns"] < open_ns_of(outcome) + 590 * 10**9]
    assert not ((held["action"] == PLACE) & (held["verdict"] == APPROVED)).any()
    assert (after["action"] == CANCEL).any()
    assert outcome.summary["evidence"]["halted_by"] == ReasonCode.KILL_SWITCH_ON
    assert outcome.parity.is_identical, "the halt is in the log, so the replay obeys it too"
    with pytest.raises(PlatformError, match="halted by tester") as caught:
        live.run(head, SESSIONS[1])
    assert caught.value.code == ReasonCode.KILL_SWITCH_ON


def open_ns_of(outcome: SessionOutcome) -> int:
    """Start of the session that was run."""
    return open_ns(DAYS[SESSIONS.index(outcome.summary["evidence"]["session_id"])])


def quiet_long_input(session_dir: Path) -> int:
    """An input while a position is open and nothing is on its way: 20 inputs around it are free."""
    inputs, decisions = read(session_dir)
    busy = np.concatenate([decisions["input_seq"], inputs["Broker"]["input_seq"]])
    for seq in range(600, 3_000):
        if position_after(inputs, seq) and not ((busy > seq - 10) & (busy < seq + 10)).any():
            return seq
    raise AssertionError("the session never holds a position for a while")


@pytest.mark.parametrize("action", ["flatten", "reduce_only", "hold_to_close"])
def test_a_withdrawal_treats_the_open_position_as_the_permit_says(
    live: Live,
    finished: tuple[Live, SessionOutcome],
    monkeypatch: pytest.MonkeyPatch,
    action: str,
) -> None:
    monkeypatch.setattr(session_runner, "STEP_RECORDS", 1)
    target = quiet_long_input(finished[1].session_dir)
    # The taker exits by itself after 8 s; held to close it waits for the deadline instead.
    head = live.issue(on_withdrawal={"action": action, "deadline_ns": 60_000_000_000})
    outcome = live.run(
        head, progress=lambda state: withdraw(live) if state["inputs"] == target else None
    )
    inputs, decisions = read(outcome.session_dir)
    (command,) = inputs["Command"]
    seq, since_ns = int(command["input_seq"]), int(command["sequence_time_ns"])
    assert seq == target + 1
    assert position_after(inputs, seq) != 0
    after = decisions[(decisions["input_seq"] >= seq) & (decisions["verdict"] == APPROVED)]
    placed = after[after["action"] == PLACE]
    assert placed.size > 0
    assert (placed["side"] * placed["position_qty"] < 0).all(), "only orders that reduce"
    waited_s = (int(placed["sequence_time_ns"][0]) - since_ns) / 1e9
    if action == "flatten":
        assert waited_s < 1
    elif action == "reduce_only":
        assert 1 < waited_s < 8, "closed by the strategy's own exit"
    else:
        assert 60 <= waited_s < 61, "held until the deadline, then closed"
    assert outcome.summary["evidence"]["account"]["position_qty"] == 0
    assert outcome.summary["evidence"]["withdrawn"]
    assert outcome.parity.is_identical


@pytest.mark.usefixtures("short_steps")
def test_a_withdrawn_permit_opens_no_other_session(live: Live) -> None:
    head = live.issue()
    withdraw(live)
    with pytest.raises(PlatformError) as caught:
        live.run(head)
    assert caught.value.code == ReasonCode.CONFIG_WITHDRAWN
    assert not (live.ws / "sessions").exists()


@pytest.mark.usefixtures("short_steps")
def test_a_lowered_weight_acts_within_the_session_and_is_in_the_log(live: Live) -> None:
    head = live.issue(weight_ppm=1_000_000)

    def lower() -> None:
        path = weight_path(promotions_root(live.ws), ALPHA_ID, 1)
        atomic_write(path, canonical_json({"weight_ppm": 500_000}))

    outcome = live.run(head, progress=at_share(0.4, lower))
    inputs, decisions = read(outcome.session_dir)
    (command,) = inputs["Command"]
    assert int(command["argument"]) == 500_000
    opening = decisions[
        (decisions["action"] == PLACE)
        & (decisions["verdict"] == APPROVED)
        & (decisions["intent_reason"] == 1)
    ]
    is_after = opening["input_seq"] > command["input_seq"]
    assert set(opening[~is_after]["qty"].tolist()) == {2 * SCALE}
    assert set(opening[is_after]["qty"].tolist()) == {SCALE}


def test_a_paced_session_obeys_a_halt_within_a_second(live: Live) -> None:
    """Wall time from writing the latch to the command in the session, at 60 times real time."""
    moments: dict[str, float] = {}

    def progress(state: dict[str, Any]) -> None:
        if "halted" not in moments and state["records_done"] > 200:
            latch.halt(live.ws, who="tester", why="test")
            moments["halted"] = time.monotonic()
        elif "halted" in moments and "obeyed" not in moments and state["halted_by"]:
            moments["obeyed"] = time.monotonic()
            raise KeyboardInterrupt  # what had to be seen was seen

    with pytest.raises(KeyboardInterrupt):
        live.run(live.issue(), speed=60.0, progress=progress)
    assert moments["obeyed"] - moments["halted"] < 1.0


def test_an_interrupted_session_seals_its_logs_replays_and_proves_nothing(live: Live) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        live.run(live.issue(), speed=60.0, clock=fake_clock(), progress=at_share(0.3, stop))
    (session_dir,) = (live.ws / "sessions").iterdir()
    assert not list(session_dir.rglob("*.open"))
    assert not (session_dir / "summary.json").exists()
    report = replay_session(session_dir)
    assert report.is_identical
    assert report.total > 0


@pytest.mark.usefixtures("short_steps")
def test_a_log_that_fails_halts_the_workspace_and_gives_no_evidence(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody looks: where the guard sees that a segment was refused, it halts before the log fails.
    monkeypatch.setattr(session_runner.DiskGuard, "look", lambda *_, **__: False)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    def progress(state: dict[str, Any]) -> None:
        limit(131_072)  # until the end: the log is written by a thread, some time later

    try:
        with pytest.raises(PlatformError) as caught:
            live.run(live.issue(), progress=progress)
    finally:
        limit(before[0])
    assert caught.value.code == ReasonCode.WAL_WRITE_FAILED
    content = latch.read(live.ws)
    assert content is not None
    assert content["code"] == ReasonCode.WAL_WRITE_FAILED
    assert not list(live.ws.rglob("summary.json"))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"expires_ns": open_ns(DAYS[0]) - 1}, ReasonCode.CONFIG_EXPIRED),
        ({"not_before_ns": open_ns(DAYS[0]) + 1}, ReasonCode.CONFIG_NOT_YET_VALID),
        ({"code_sha256": "0" * 64}, ReasonCode.CONFIG_EVIDENCE_MISMATCH),
        ({"latency_profile_sha256": "0" * 64}, ReasonCode.CONFIG_EVIDENCE_MISMATCH),
        (
            {"instruments": [{"symbol": "SIM_NULL", "product_root": "SIM"}]},
            ReasonCode.CONFIG_WRONG_INSTRUMENT,
        ),
        ({"expression": "k * imbalance_l9"}, ReasonCode.UNKNOWN_FEATURE),
    ],
)
def test_a_refused_config_leaves_no_session(live: Live, changes: dict[str, Any], code: int) -> None:
    with pytest.raises(PlatformError) as caught:
        live.run(live.issue(**changes))
    assert caught.value.code == code
    assert not list((live.ws / "sessions").glob("*"))


def test_the_runner_trades_no_recording_as_live(live: Live) -> None:
    with pytest.raises(PlatformError) as caught:
        live.run(live.issue(), mode="live")
    assert caught.value.code == ReasonCode.NO_BROKER_CREDENTIALS
    assert not (live.ws / "sessions").exists()


def test_a_recording_that_was_changed_is_not_traded(live: Live) -> None:
    request = live.request(live.issue())
    other = dataclasses.replace(request, session=live.request(live.issue(), SESSIONS[1]).session)
    swapped = dataclasses.replace(request.session, path=other.session.path)
    with pytest.raises(PlatformError) as caught:
        run_session(
            dataclasses.replace(request, session=swapped),
            instruments=load_instruments(),
            settings=load_settings(live.ws / "no-config", environment={}),
        )
    assert caught.value.code == ReasonCode.FILE_DAMAGED
    assert not list((live.ws / "sessions").glob("*"))


@pytest.mark.parametrize(
    ("trading_day", "is_allowed"),
    [(20260410, True), (20260414, True), (20260415, False), (20260416, False)],
)
def test_no_session_is_opened_in_the_days_before_a_roll(
    trading_day: int, *, is_allowed: bool
) -> None:
    """TXFD6 ends on Wednesday 2026-04-15; its rule is to be flat one trading day before."""
    from hft_platform.config.promoted import PromotedConfig

    rule = {"kind": "flatten_before_last_trading_day", "trading_days_before": 1}
    config = PromotedConfig.model_validate(
        content_of(roll_rule=rule)
        | {"signed_weight_ppm": 1, "content_sha256": "0" * 64, "key_id": "0" * 16}
    )
    txf = load_instruments().by_symbol("TXFD6")
    if is_allowed:
        require_before_roll(config, txf, trading_day)
        return
    with pytest.raises(PlatformError) as caught:
        require_before_roll(config, txf, trading_day)
    assert caught.value.code == ReasonCode.ROLL_NOT_PERMITTED
