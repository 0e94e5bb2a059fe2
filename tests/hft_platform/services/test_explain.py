"""Explain: for any order, the chain from the market record to the fills, from the logs alone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.config.canonical import canonical_json
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services.explain import explain_order, list_orders
from hft_platform.services.explain_text import units
from hft_platform.services.parity import read_session
from hft_platform.services.session_runner import SessionOutcome
from tests.hft_platform.services.live_workspace import ALPHA_ID, MAKER, Live

Finished = tuple[Live, SessionOutcome]


def test_every_order_of_a_session_has_its_chain(finished: Finished) -> None:
    session_dir = finished[1].session_dir
    orders = list_orders(session_dir)
    assert len(orders) == finished[1].summary["evidence"]["counts"]["orders"]
    for order in orders[:5] + orders[-5:]:
        found = explain_order(session_dir, order["order_id"])
        assert found.alpha_id == ALPHA_ID
        assert found.symbol == "SIM_EDGE"
        assert found.cause["input_seq"] == order["input_seq"]
        assert found.decisions[0] == order
        assert found.broker_events
        assert found.broker_events[0]["receive_time_ns"] > found.cause["receive_time_ns"]
        json.loads(canonical_json(found.as_dict()))


def test_the_features_shown_give_the_signal_that_was_decided_on(finished: Finished) -> None:
    session_dir = finished[1].session_dir
    for order in list_orders(session_dir)[:20]:
        found = explain_order(session_dir, order["order_id"])
        assert list(found.features) == ["imbalance_ema_2s"]
        value = found.features["imbalance_ema_2s"]
        assert value is not None
        assert order["signal"] == pytest.approx(8.0 * value, rel=1e-12)


def test_the_terms_of_a_signal_add_up_to_what_was_decided_on(live: Live) -> None:
    expression = "k * ema(imbalance_l1, 2s) + 0.5 * delta(microprice_dev, 1s)"
    outcome = live.run(live.issue(expression=expression))
    orders = list_orders(outcome.session_dir)
    assert len(orders) > 5
    for order in orders[:10]:
        found = explain_order(outcome.session_dir, order["order_id"])
        texts = [row["text"] for row in found.terms]
        assert texts == ["0.5 * delta(microprice_dev, 1s)", "k * ema(imbalance_l1, 2s)"]
        # The sum is what the engine adds up, in its order, so it is equal and not only near.
        assert found.terms[0]["value"] + found.terms[1]["value"] == order["signal"]
        assert list(found.features) == ["imbalance_l1", "microprice_dev"]
    lines = found.render().splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("  signal"))
    assert [line.split()[0] for line in lines[place + 1 : place + 3]] == ["term", "term"]
    assert "k * ema(imbalance_l1, 2s) = " in lines[place + 2]


def test_the_text_goes_from_the_market_to_the_fill(finished: Finished) -> None:
    session_dir = finished[1].session_dir
    entry = list_orders(session_dir)[0]
    lines = explain_order(session_dir, entry["order_id"]).render().splitlines()
    kinds = [line.split()[0] for line in lines]
    assert kinds[:5] == ["order", "market", "features", "signal", "decision"]
    assert kinds[5:10] == ["mode", "strategy", "wanted", "checks", "guard"]
    assert set(kinds[10:]) == {"broker"}
    assert re.search(
        r"2026-01-05 00:45:\d\d\.\d{6} UTC bid \d+ x \d\d?, ask \d+ x \d\d?$", lines[1]
    )
    assert "k * imbalance_ema_2s = " in lines[3]
    assert re.search(r"place \(entry\) approved (buy|sell) 1 at \d{5}, position 0", lines[4])
    assert "fill" in lines[-1]


def test_a_canceled_quote_shows_both_decisions(live: Live) -> None:
    outcome = live.run(live.issue(template=MAKER))
    decisions = np.frombuffer(
        read_session(outcome.session_dir).decisions, dtype=records.DTYPES["Decision"]
    )
    canceled = int(decisions[decisions["action"] == 2][0]["order_id"])
    found = explain_order(outcome.session_dir, canceled)
    assert found.decisions[0]["action"] == "place"
    assert "cancel" in [row["action"] for row in found.decisions]
    assert found.broker_events[0]["event"] == "working"


@pytest.mark.parametrize("order_id", [0, 10**12, (1 << 64) - 1])
def test_an_unknown_order_is_refused_and_the_known_ones_are_named(
    finished: Finished, order_id: int
) -> None:
    with pytest.raises(PlatformError, match=f"has no order {order_id}") as caught:
        explain_order(finished[1].session_dir, order_id)
    assert caught.value.code == ReasonCode.ORDER_UNKNOWN
    assert "hft-live explain" in caught.value.next_step


def test_nothing_but_the_sessions_folder_is_read(finished: Finished, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(finished[1].session_dir, moved)
    order_id = list_orders(moved)[0]["order_id"]
    assert explain_order(moved, order_id) == explain_order(finished[1].session_dir, order_id)


def test_a_signal_that_is_no_number_is_none_and_says_so(finished: Finished, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(finished[1].session_dir, moved)
    tape = bytearray(_core.read_log(str(moved / "orders"))["tape"])
    order = list_orders(moved)[0]
    raw = np.float64(order["signal"]).tobytes()
    tape[tape.find(raw) : tape.find(raw) + 8] = np.float64(np.nan).tobytes()
    wal_id = _core.read_log(str(moved / "orders"))["segments"][0]["wal_id"]
    shutil.rmtree(moved / "orders")
    with _core.WalWriter(str(moved / "orders"), wal_id, "orders") as writer:
        writer.append(bytes(tape))
    found = explain_order(moved, order["order_id"])
    assert found.decisions[0]["signal"] is None
    assert "= not a number ticks" in found.render()
    canonical_json(found.as_dict())


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1_999_700_000_000, "19997"), (-150_000_000, "-1.5"), (1, "0.00000001"),
     ((1 << 63) - 1, "92233720368.54775807")],
)  # fmt: skip
def test_units_are_exact(value: int, text: str) -> None:
    assert units(value) == text
