"""What stops a canary: the withdrawal, also where Dagster is not even installed, and the runtime's
own guards, without any file being written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hft_platform import records
from hft_platform.config.promotion_folder import promotions_root, withdrawn_seq
from hft_platform.config.settings import load_settings
from hft_platform.errors import ReasonCode
from hft_platform.execution.faults import FaultProfile
from hft_platform.market.instruments import load_instruments
from hft_platform.services.parity import read_session
from hft_platform.services.session_runner import run_session
from research.promotion.withdrawal import withdraw
from tests.hft_platform.services.live_workspace import (
    ALPHA_ID,
    DAYS,
    SCALE,
    SESSIONS,
    Live,
    content_of,
    open_ns,
)

PLACE, APPROVED, REFUSED, ENTRY, WITHDRAW = 1, 1, 2, 1, 6
FILLED = 3
SECOND = 1_000_000_000
DEADLINE_S = 60.0


class Seen:
    """What a session's logs say about the orders that opened a position."""

    def __init__(self, session_dir: Path) -> None:
        logs = read_session(session_dir)
        self.inputs = records.split(logs.inputs)
        self.decisions = np.frombuffer(logs.decisions, dtype=records.DTYPES["Decision"])
        d = self.decisions
        is_entry = (d["action"] == PLACE) & (d["intent_reason"] == ENTRY)
        self.openings = d[is_entry & (d["verdict"] == APPROVED)]
        self.refused = d[is_entry & (d["verdict"] == REFUSED)]

    def fills(self) -> Any:
        """Fills of ours."""
        broker = self.inputs["Broker"]
        return broker[broker["event_kind"] == FILLED]

    def position(self) -> int:
        """Position at the end."""
        fills = self.fills()
        return int((fills["side"] * fills["qty"]).sum())


def canary(live: Live, **changes: Any) -> Path:
    """A canary's permit."""
    verdicts = {f"gate_{letter}": str(i) * 64 for i, letter in enumerate("abcde", start=1)}
    return live.issue(stage="canary", verdicts=verdicts, **changes)


def limits(**changes: int) -> dict[str, int]:
    """The permit's limits with changes."""
    return dict(content_of()["limits"]) | changes


def wait_for(what: str, condition: Any) -> None:
    """Poll until true, or say what did not happen."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"waited {DEADLINE_S} s for {what}"
        time.sleep(0.02)


def without_dagster(folder: Path) -> dict[str, str]:
    """An environment in which importing Dagster fails."""
    (folder / "dagster").mkdir(parents=True)
    (folder / "dagster" / "__init__.py").write_text("raise ImportError('Dagster is down')\n")
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def test_a_roll_back_stops_a_running_session_in_a_process_without_dagster(
    live: Live, unguarded: Seen, tmp_path: Path
) -> None:
    head = canary(live)
    (dataset,) = (path.parent.name for path in (live.ws / "datasets").glob("*/dataset.json"))
    environment = without_dagster(tmp_path / "no_dagster")
    probe = subprocess.run(
        [sys.executable, "-c", "import dagster"], env=environment, capture_output=True, check=False
    )
    assert probe.returncode != 0
    process = subprocess.Popen(
        [
            sys.executable, "-m", "hft_platform.cli", "run", "--mode", "paper", "--speed", "60",
            "--workspace", str(live.ws), "--config", str(head), "--json",
            "--session", f"{dataset}:{SESSIONS[0]}",
        ],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        logs = live.ws / "sessions"
        wait_for("the session to send orders", lambda: _logged(logs) > 4_000)
        assert process.poll() is None
        done = withdraw(live.ws, ALPHA_ID, by="canary", why="rolled back", is_rolled_back=True)
        out, err = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    assert process.returncode == 0, out + err
    assert done.is_new
    (folder,) = logs.iterdir()
    seen = Seen(folder)
    (command,) = seen.inputs["Command"]
    assert command["command_kind"] == WITHDRAW
    before = seen.openings[seen.openings["input_seq"] < command["input_seq"]]
    assert before.size > 0
    assert before.size == seen.openings.size, "opened after the withdrawal"
    later = unguarded.openings["sequence_time_ns"] > command["sequence_time_ns"]
    assert later.any(), "it would have opened more"
    assert seen.position() == 0
    evidence = json.loads((folder / "summary.json").read_bytes())["evidence"]
    assert evidence["withdrawn"]
    filled = {int(row["order_id"]) for row in seen.fills()}
    assert evidence["counts"]["filled_orders"] == len(filled) > 0
    assert evidence["parity"]["identical"] == evidence["parity"]["total"]


def _logged(sessions: Path) -> int:
    """Bytes of decisions that are on disk; an open segment is zero beyond them."""
    segments = [*sessions.glob("*/orders/*.seg"), *sessions.glob("*/orders/*.open")]
    return sum(len(path.read_bytes().rstrip(b"\0")) for path in segments)


def nothing_was_withdrawn(live: Live) -> bool:
    """No file of the signer's side stopped it."""
    return withdrawn_seq(promotions_root(live.ws), ALPHA_ID) == 0


@pytest.fixture(scope="module")
def unguarded(market: Live, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """The same session with nothing to stop it: it opens positions to its end."""
    import shutil

    ws = tmp_path_factory.mktemp("unguarded") / "ws"
    shutil.copytree(market.ws / "datasets", ws / "datasets")
    live = Live(ws)
    seen = Seen(live.run(canary(live)).session_dir)
    assert int(seen.openings["sequence_time_ns"][-1]) > open_ns(DAYS[0]) + 500 * SECOND
    return seen


def test_a_config_that_expires_in_the_session_opens_nothing_more(
    live: Live, unguarded: Seen
) -> None:
    expires_ns = open_ns(DAYS[0]) + 300 * SECOND
    seen = Seen(live.run(canary(live, expires_ns=expires_ns)).session_dir)
    assert seen.openings.size > 0
    assert (seen.openings["sequence_time_ns"] < expires_ns).all()
    assert (unguarded.openings["sequence_time_ns"] > expires_ns).any()
    assert seen.position() == 0
    assert nothing_was_withdrawn(live)


@pytest.mark.parametrize("limit", ["daily_loss_max", "drawdown_max", "loss_speed_max"])
def test_a_losing_canary_is_stopped_by_its_own_limits(live: Live, limit: str) -> None:
    losing = {"expression": "-k * imbalance_ema_2s"}
    free = Seen(live.run(canary(live, **losing)).session_dir)
    head = canary(live, promotion_seq=2, **losing, limits=limits(**{limit: 400 * SCALE}))
    seen = Seen(live.run(head).session_dir)
    assert 0 < seen.openings.size < free.openings.size / 2
    assert nothing_was_withdrawn(live)


def storm(**changes: Any) -> FaultProfile:
    """One fault of the paper exchange."""
    off = dict.fromkeys(set(FaultProfile.model_fields) - {"profile_id", "description", "seed"})
    named = {"profile_id": "storm", "description": "one fault", "seed": 1}
    return FaultProfile.model_validate(off | named | changes)


@pytest.mark.parametrize(
    ("faults", "setting"),
    [
        ({"rejects": [{"reason": "BROKER_REJECTED", "rate_ppm": 1_000_000}]}, "reject_rate_max"),
        (
            {
                "lost_reply": {"rate_ppm": 1_000_000},
                "timeout": {"after_ms": 1_000, "resolve_ms": None},
            },
            "unknown_rate_max",
        ),
    ],
)
def test_a_storm_of_refusals_or_silence_is_stopped_within_the_session(
    live: Live, unguarded: Seen, faults: dict[str, Any], setting: str
) -> None:
    settings = load_settings(live.ws / "no-config", environment={})
    outcome = run_session(
        live.request(canary(live), faults=storm(**faults)),
        instruments=load_instruments(),
        settings=settings,
    )
    seen = Seen(outcome.session_dir)
    allowed = int(settings.account_limits()[setting])
    times = seen.openings["sequence_time_ns"]
    # In no minute more openings than the limit lets pass, and one that was on its way.
    for start in times:
        assert ((times >= start) & (times < start + 60 * SECOND)).sum() <= allowed + 2
    assert seen.openings.size < unguarded.openings.size
    if setting == "reject_rate_max":
        codes = set(seen.refused["reason_code"].tolist())
        assert codes & {ReasonCode.REJECT_RATE_ABOVE_LIMIT, ReasonCode.STORM_GUARD_ON}
    else:
        assert seen.openings.size == 1, "an order without an answer is exposure: nothing on top"
    assert not (outcome.session_dir / "summary.json").exists(), "a drill is no evidence"
    assert nothing_was_withdrawn(live)


def test_no_fill_is_worse_than_the_price_that_was_decided(unguarded: Seen) -> None:
    placed = unguarded.decisions[
        (unguarded.decisions["action"] == PLACE) & (unguarded.decisions["verdict"] == APPROVED)
    ]
    limit = {int(row["order_id"]): row for row in placed}
    fills = unguarded.fills()
    assert fills.size > 50
    for fill in fills:
        order = limit[int(fill["order_id"])]
        assert order["side"] * (int(fill["price"]) - int(order["price"])) <= 0


def test_a_rolled_back_canary_starts_no_other_session(live: Live) -> None:
    from hft_platform.errors import PlatformError

    head = canary(live)
    withdraw(live.ws, ALPHA_ID, by="canary", why="rolled back", is_rolled_back=True)
    with pytest.raises(PlatformError) as caught:
        live.run(head)
    assert caught.value.code == ReasonCode.CONFIG_WITHDRAWN
