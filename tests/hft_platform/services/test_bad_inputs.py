"""Every bad input of the order plane, one each, through the real command or the real session.

Before the logs are open a refusal leaves no session; behind that nothing is ever sent.
"""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.commands import live as live_command
from hft_platform.config.keys import make_key
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.order.broker import BrokerListener
from hft_platform.services.venues import VenueRequest
from tests.hft_platform.services.live_process import LiveProcess
from tests.hft_platform.services.live_workspace import DAYS, open_ns
from tests.hft_platform.services.test_python_strategy import external_config
from tests.rust_core.market_days import SCALE, TXF_ID, synthetic_day

TXF = {"instruments": [{"symbol": "TXFD6", "product_root": "TXF"}]}
PLACE, ENTRY, IMMEDIATE = 1, 1, 2


@pytest.fixture(autouse=True)
def _release_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "BUILD_PROFILE", "release")


def at(text: str) -> int:
    """Taipei time as ns UTC."""
    return int(dt.datetime.fromisoformat(f"{text}+08:00").timestamp()) * 10**9


# What the command refuses before anything is opened.


def test_a_symbol_that_the_config_does_not_trade(process: LiveProcess) -> None:
    content = process.refusal(process.issue(), "--symbol", "TXFX9")
    assert content["code"] == ReasonCode.CONFIG_WRONG_INSTRUMENT


def test_a_symbol_that_nobody_knows(process: LiveProcess) -> None:
    head = process.issue(instruments=[{"symbol": "TXFX9", "product_root": "TXF"}])
    content = process.refusal(head)
    assert content["code"] == ReasonCode.UNKNOWN_INSTRUMENT


def test_an_expired_contract(process: LiveProcess) -> None:
    process.now_ns = at("2026-04-15T13:30:00")
    content = process.refusal(process.issue(**TXF))
    assert content["code"] == ReasonCode.CONTRACT_EXPIRED


@pytest.mark.parametrize("now", ["2026-01-10T12:00:00", "2026-01-05T08:55:00"])
def test_a_closed_session(process: LiveProcess, now: str) -> None:
    process.now_ns = at(now)
    content = process.refusal(process.issue())
    assert content["code"] == ReasonCode.SESSION_NOT_OPEN
    assert "begins in" in content["message"]


def test_an_unsigned_config(process: LiveProcess) -> None:
    head = process.issue()
    text = head.read_text()
    head.write_text(text[: text.index("signature:")] + text[text.index("stage:") :])
    assert process.refusal(head)["code"] == ReasonCode.CONFIG_UNSIGNED


def test_a_revoked_key(process: LiveProcess, tmp_path: Path) -> None:
    head = process.issue()
    assert process.checks(head)["signature"]["passed"]
    process.pins.write_text(f"promotion {make_key(tmp_path / 'other.key').public_hex}\n")
    assert process.refusal(head)["code"] == ReasonCode.CONFIG_KEY_UNKNOWN


def test_nan_in_a_config(process: LiveProcess) -> None:
    head = process.issue()
    head.write_text(head.read_text().replace("k: 8.0", "k: .nan"))
    assert process.refusal(head)["code"] == ReasonCode.CONFIG_MALFORMED


@pytest.mark.parametrize("qty", [0, -1])
def test_quantity_0_in_a_config(process: LiveProcess, qty: int) -> None:
    head = process.issue(order_qty=qty)
    assert process.refusal(head)["code"] == ReasonCode.CONFIG_MALFORMED


def test_missing_credentials_and_a_missing_certificate(
    process: LiveProcess, tmp_path: Path
) -> None:
    process.patch.setenv("HFT_BROKER__IS_SIMULATION", "false")
    head = process.issue()
    (tmp_path / "shioaji_ca_file").unlink()
    assert process.refusal(head)["code"] == ReasonCode.CERTIFICATE_MISSING
    process.patch.delenv("SHIOAJI_CA_PASSWORD_FILE")
    assert process.refusal(head)["code"] == ReasonCode.CERTIFICATE_MISSING
    process.patch.delenv("SHIOAJI_SECRET_KEY_FILE")
    assert process.refusal(head)["code"] == ReasonCode.NO_BROKER_CREDENTIALS


# What the broker refuses at the start.


class Refusing:
    """A broker that cannot be connected, and keeps what it was asked for."""

    name = "scripted"

    def __init__(self, code: int) -> None:
        self.code = code
        self.asked: list[str] = []

    def connect(self, listener: BrokerListener) -> None:
        self.asked.append("connect")
        raise PlatformError(self.code, "as scripted")

    def close(self) -> None:
        self.asked.append("close")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was called on a broker that is not connected")


@pytest.mark.parametrize(
    "code",
    [
        ReasonCode.BROKER_UNREACHABLE,
        ReasonCode.BROKER_LOGIN_FAILED,
        ReasonCode.CERTIFICATE_EXPIRED,
        ReasonCode.CONTRACT_MISMATCH,
        ReasonCode.CONTRACT_UNKNOWN,
        ReasonCode.ACCOUNT_NOT_ALLOWED,
    ],
)
def test_a_broker_that_refuses_the_start(process: LiveProcess, code: int) -> None:
    """Unreachable, a revoked key at the broker, an expired certificate, another contract there."""
    broker = Refusing(code)

    def make(_: VenueRequest) -> Any:
        return broker

    process.patch.setattr(live_command, "make_live_broker", make)
    exit_code, content = process.run(process.issue())
    assert (exit_code, content["code"]) == (3, code)
    assert broker.asked == ["connect", "close"]
    (folder,) = (process.live.ws / "sessions").iterdir()
    assert not (folder / "summary.json").exists()
    orders = _core.read_log(str(folder / "orders"))["tape"]
    assert records.split(orders)["Decision"].size == 0
    # The same command goes on with that session: nothing has to be cleaned up.
    assert process.run(process.issue(promotion_seq=2))[1]["code"] == code
    assert list((process.live.ws / "sessions").iterdir()) == [folder]


# What the session refuses, whoever asks it.

BID, LIMIT_UP, LIMIT_DOWN = 30_000 * SCALE, 30_500 * SCALE, 29_500 * SCALE


def intent_of(now_ns: int, **changes: Any) -> bytes:
    """A buy of one lot at the ask, with changes."""
    rows = records.empty("Intent", 1)
    fields = {
        "instrument_id": TXF_ID,
        "receive_time_ns": now_ns,
        "action": PLACE,
        "intent_reason": ENTRY,
        "time_in_force": IMMEDIATE,
        "external_id": 1,
        "side": 1,
        "price": BID + SCALE,
        "qty": SCALE,
        "cause_seq": 1,
        "cause_time_ns": now_ns,
        "ttl_ns": 1_000_000_000,
        "signal": 5.0,
    }
    for name, value in (fields | changes).items():
        rows[name] = value
    return rows.tobytes()


class Asked:
    """A live session with one remote strategy and a good book."""

    def __init__(self, folder: Path) -> None:
        config = external_config(
            synthetic_day(snapshots=1_500),
            template={"kind": "remote", "slippage_ticks": 2},
        )
        config["instruments"][0] |= {"limit_up": LIMIT_UP, "limit_down": LIMIT_DOWN}
        self.phases = config["session"]["phases"]
        start = next(one["start_ns"] for one in self.phases if one["phase"] == "open")
        options = {
            "wal_id": 7,
            "epoch": 1,
            "process_id": 1,
            "opened_ns": start,
            "durable": "record",
            "segment_bytes": 1 << 20,
        }
        self.folder = folder
        self.session = _core.LiveSession(json.dumps(config), str(folder), json.dumps(options))
        self.now_ns = start + 1_000_000_000
        self.book()

    def book(self) -> None:
        self.now_ns += 1_000_000
        rows = records.empty("Book", 1)
        rows["instrument_id"], rows["source_id"] = TXF_ID, 4
        rows["exchange_time_ns"] = rows["receive_time_ns"] = self.now_ns
        for level in range(5):
            rows["bid_price"][:, level] = BID - level * SCALE
            rows["ask_price"][:, level] = BID + (1 + level) * SCALE
        rows["bid_qty"] = rows["ask_qty"] = 20 * SCALE
        self.session.push(rows.tobytes())

    def ask(self, **changes: Any) -> tuple[int, int]:
        """Verdict and code of the decision about an intent; (0, code) when it was dropped."""
        self.now_ns += 1_000_000
        before = self.session.state()["dropped"]
        self.session.push(intent_of(self.now_ns, **changes))
        request = self.session.next_request(0)
        after = self.session.state()["dropped"]
        self.session.close()
        tape = _core.read_log(str(self.folder / "orders"))["tape"]
        rows = records.split(tape)["Decision"]
        places = rows[rows["action"] == PLACE]
        if places.size == 0:
            (code,) = [code for code in after if after[code] != before.get(code, 0)]
            assert request is None
            return 0, int(code)
        assert (request is not None) == (places[-1]["verdict"] == 1)
        return int(places[-1]["verdict"]), int(places[-1]["reason_code"])


@pytest.mark.parametrize(
    ("changes", "verdict", "code"),
    [
        ({}, 1, ReasonCode.UNSET),
        ({"price": BID + SCALE // 2}, 2, ReasonCode.ORDER_PRICE_OFF_TICK),
        ({"price": LIMIT_UP + SCALE}, 2, ReasonCode.PRICE_OUTSIDE_DAILY_LIMIT),
        ({"price": LIMIT_DOWN - SCALE, "side": -1}, 2, ReasonCode.PRICE_OUTSIDE_DAILY_LIMIT),
        ({"signal": np.nan}, 2, ReasonCode.SIGNAL_NOT_FINITE),
        ({"signal": np.inf}, 2, ReasonCode.SIGNAL_NOT_FINITE),
        ({"qty": 0}, 0, ReasonCode.INTENT_MALFORMED),
        ({"qty": -SCALE}, 0, ReasonCode.INTENT_MALFORMED),
        ({"price": 0}, 0, ReasonCode.INTENT_MALFORMED),
        ({"side": 0}, 0, ReasonCode.INTENT_MALFORMED),
    ],
)
def test_an_intent_that_no_order_may_come_of(
    tmp_path: Path, changes: dict[str, Any], verdict: int, code: int
) -> None:
    """The first row is the control: the same intent without a fault is approved."""
    assert Asked(tmp_path / "run").ask(**changes) == (verdict, code)


def test_an_intent_behind_the_close(tmp_path: Path) -> None:
    asked = Asked(tmp_path / "run")
    asked.now_ns = max(one["end_ns"] for one in asked.phases)
    asked.book()
    assert asked.ask() == (2, ReasonCode.SESSION_NOT_OPEN)


def test_the_days_of_the_recorded_market_are_trading_days() -> None:
    """Control of the dates above."""
    assert open_ns(DAYS[0]) == at("2026-01-05T08:45:00")
