"""Who may log in, how often, with which account and certificate; what a question may say."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
import shioaji as sj

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.order.broker import OrderStatus
from hft_platform.order.shioaji_credentials import read_credentials
from hft_platform.order.shioaji_logins import LoginBudget
from hft_platform.services.shioaji_factory import make_shioaji
from tests.hft_platform.feed.shioaji_quotes import NOW_NS, taipei_ns
from tests.hft_platform.order.shioaji_fake import (
    FUTURES,
    FUTURES_KEY,
    SCALE,
    SECOND_NS,
    TAIPEI,
    AccountBalance,
    Deal,
    Desk,
    Event,
    FuturePosition,
    Session,
    StockPosition,
    futures_deal_event,
    futures_info,
    margin,
    stock_info,
    trade_of,
    write_secrets,
)

DAY_NS = 86_400 * SECOND_NS


def code_of(call: Any, *args: Any, **kwargs: Any) -> ReasonCode:
    """Reason code of the refusal that a call raises."""
    with pytest.raises(PlatformError) as caught:
        call(*args, **kwargs)
    return ReasonCode(caught.value.code)


def test_live_trading_that_was_not_enabled_makes_no_session(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    made: list[bool] = []
    broker = make_shioaji(
        desk.settings,
        instruments=desk.instruments,
        workspace=tmp_path / "w",
        environment=write_secrets(tmp_path / "s"),
        clock_ns=desk.clock,
        seed=1,
        is_live_enabled=False,
        make_api=lambda sdk, simulation: made.append(simulation),
    )
    assert code_of(broker.connect, desk.listener) == ReasonCode.LIVE_NOT_ENABLED
    assert made == []
    assert not (tmp_path / "w/state/broker_logins.json").exists()


def test_credentials_are_files_of_their_owner(tmp_path: Path) -> None:
    good = write_secrets(tmp_path)
    read = read_credentials(good, needs_certificate=True)
    assert read.certificate is not None
    assert "secret" not in repr(read).replace("secret_key_file", "")
    for name, code in (
        ("SHIOAJI_API_KEY_FILE", ReasonCode.NO_BROKER_CREDENTIALS),
        ("SHIOAJI_SECRET_KEY_FILE", ReasonCode.NO_BROKER_CREDENTIALS),
        ("SHIOAJI_CA_FILE", ReasonCode.CERTIFICATE_MISSING),
        ("SHIOAJI_CA_PASSWORD_FILE", ReasonCode.CERTIFICATE_MISSING),
    ):
        for value in ("", str(tmp_path / "none"), str(tmp_path)):
            assert code_of(read_credentials, good | {name: value}, needs_certificate=True) == code
        Path(good[name]).chmod(0o640)
        refused = code_of(read_credentials, good, needs_certificate=True)
        assert refused == ReasonCode.KEY_PERMISSIONS
        Path(good[name]).chmod(0o600)
    Path(good["SHIOAJI_API_KEY_FILE"]).write_bytes(b"\xff\x00")
    refused = code_of(read_credentials, good, needs_certificate=False)
    assert refused == ReasonCode.NO_BROKER_CREDENTIALS
    (tmp_path / ".git").mkdir()
    refused = code_of(read_credentials, good, needs_certificate=True)
    assert refused == ReasonCode.KEY_ROLE_FORBIDDEN


def budget(folder: Path, **changes: int) -> LoginBudget:
    """A budget of three logins a day."""
    content = {"back_off_ns": 60 * SECOND_NS, "per_day_max": 3, "seed": 1} | changes
    return LoginBudget(folder, **content)


def test_the_login_budget_outlives_the_process(tmp_path: Path) -> None:
    now_ns = NOW_NS
    for _ in range(3):
        budget(tmp_path).take(now_ns)
        assert code_of(budget(tmp_path).take, now_ns + SECOND_NS) == ReasonCode.BROKER_LOGIN_FAILED
        budget(tmp_path).succeeded()
        now_ns += 3600 * SECOND_NS
    assert code_of(budget(tmp_path).take, now_ns) == ReasonCode.BROKER_LOGIN_SPENT
    budget(tmp_path).take(NOW_NS + DAY_NS)
    budget(tmp_path).path.write_text("{")
    assert code_of(budget(tmp_path).take, now_ns + 9 * DAY_NS) == ReasonCode.BROKER_LOGIN_SPENT


def test_the_jitter_is_the_seeds_and_at_most_a_quarter(tmp_path: Path) -> None:
    waits = []
    for seed in range(40):
        made = budget(tmp_path / str(seed), seed=seed)
        made.take(NOW_NS)
        waits.append(made.wait_ns(NOW_NS))
        assert waits[-1] == budget(tmp_path / str(seed), seed=seed).wait_ns(NOW_NS)
    assert min(waits) >= 60 * SECOND_NS
    assert max(waits) <= 75 * SECOND_NS
    assert len(set(waits)) > 30


def account(**changes: Any) -> Any:
    """A futures account with changes."""
    content = {
        "account_type": sj.AccountType.Future, "person_id": "A", "broker_id": "F002000",
        "account_id": "1234567", "signed": True, "username": "x",
    }  # fmt: skip
    return sj.Account(**(content | changes))


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ([], ReasonCode.ACCOUNT_NOT_ALLOWED),
        ([account(account_id="9999999")], ReasonCode.ACCOUNT_NOT_ALLOWED),
        ([account(), account()], ReasonCode.ACCOUNT_NOT_ALLOWED),
        ([account(signed=False)], ReasonCode.BROKER_LOGIN_FAILED),
        (None, ReasonCode.BROKER_LOGIN_FAILED),
        ([object()], ReasonCode.BROKER_LOGIN_FAILED),
    ],
)
def test_only_a_signed_allowed_account_opens_a_session(
    tmp_path: Path, answer: Any, code: ReasonCode
) -> None:
    desk = Desk(tmp_path, symbols=("TXFD6",), is_simulation=False)
    desk.prepare = lambda session: session.returns.update(login=answer)
    assert code_of(desk.connect) == code
    assert desk.sessions[0].calls == ["login", "logout"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"is_ca_active": False}, ReasonCode.CERTIFICATE_MISSING),
        ({"certificate_end": dt.datetime(2026, 4, 9)}, ReasonCode.CERTIFICATE_EXPIRED),
        ({"certificate_end": "2027"}, ReasonCode.CERTIFICATE_MISSING),
        ({"failures": {"activate_ca": sj.CaPasswordError("x")}}, ReasonCode.CERTIFICATE_MISSING),
        ({"failures": {"activate_ca": sj.CaExpiredError("x")}}, ReasonCode.CERTIFICATE_EXPIRED),
        ({"failures": {"login": sj.TokenError("revoked")}}, ReasonCode.BROKER_LOGIN_FAILED),
        ({"failures": {"login": sj.ShioajiConnectionError("x")}}, ReasonCode.BROKER_UNREACHABLE),
        ({"failures": {"login": BaseException("panic")}}, ReasonCode.BROKER_UNREACHABLE),
        ({"returns": {"subscribe_trade": False}}, ReasonCode.BROKER_LOGIN_FAILED),
    ],
)
def test_what_stops_a_start_is_said_and_logged_out(
    tmp_path: Path, change: dict[str, Any], code: ReasonCode
) -> None:
    desk = Desk(tmp_path, symbols=("TXFD6",), is_simulation=False)
    desk.prepare = lambda session: session.__dict__.update(change)
    assert code_of(desk.connect) == code
    assert desk.sessions[0].calls[-1] == "logout"


def test_a_certificate_that_ends_soon_is_told(tmp_path: Path) -> None:
    desk = Desk(tmp_path, symbols=("TXFD6",), is_simulation=False)
    session = desk.connect()
    assert session.credentials[-1] == FUTURES.person_id
    end_ns = taipei_ns("2027-01-01 00:00:00")
    assert not desk.broker.is_certificate_ending(end_ns - 15 * DAY_NS)
    assert desk.broker.is_certificate_ending(end_ns - 13 * DAY_NS)
    assert code_of(desk.broker.is_certificate_ending, end_ns) == ReasonCode.CERTIFICATE_EXPIRED
    assert session.certificate_end == dt.datetime(2027, 1, 1, tzinfo=TAIPEI)


@pytest.mark.parametrize(
    "changes",
    [
        {"multiplier": 50.0}, {"multiplier": None}, {"multiplier": 0}, {"multiplier": "200"},
        {"tick": 5.0}, {"last_trading_date": dt.date(2026, 4, 16)}, {"last_trading_date": None},
        {"last_trading_date": "2026/04/15"}, {"limit_up": 21999.0}, {"limit_down": float("nan")},
        {"root": "MXF"}, {"code": "TXFE6"}, {"exchange": "TSE"},
    ],
)  # fmt: skip
def test_a_contract_that_differs_from_its_file_starts_nothing(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    desk = Desk(tmp_path)
    desk.prepare = lambda session: session.contracts.infos.update(TXFD6=futures_info(**changes))
    assert code_of(desk.connect) == ReasonCode.CONTRACT_MISMATCH
    assert desk.sessions[0].calls[-1] == "logout"


def test_unknown_and_ended_contracts_start_nothing(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "a")
    desk.prepare = lambda session: session.contracts.infos.pop("TXFD6")
    assert code_of(desk.connect) == ReasonCode.CONTRACT_UNKNOWN
    desk = Desk(tmp_path / "b", symbols=("2330",))
    desk.prepare = lambda session: session.contracts.infos.update({"2330": stock_info(unit=100.0)})
    assert code_of(desk.connect) == ReasonCode.CONTRACT_MISMATCH
    desk = Desk(tmp_path / "c", symbols=("TXFD6", "2330"))
    desk.connect()
    desk.clock.now_ns = taipei_ns("2026-04-15 13:30:01")
    desk.broker.step(desk.clock.now_ns)
    assert desk.counts[int(ReasonCode.CONTRACT_EXPIRED)] == 1


def test_terms_that_are_not_stated_are_named(tmp_path: Path) -> None:
    desk = Desk(tmp_path, symbols=("TXFD6",))
    desk.prepare = lambda session: session.contracts.infos.update(TXFD6=futures_info(tick=None))
    desk.connect()
    assert desk.broker.state()["unchecked_terms"] == {"TXFD6": ["tick"]}


def position(code: str, side: str, quantity: Any, price: float = 20000.0) -> FuturePosition:
    """A row of positions."""
    return FuturePosition(
        code=code, direction=sj.Action(side), id=0, last_price=0.0, pnl=0.0, price=price,
        quantity=quantity,
    )  # fmt: skip


def test_positions_are_netted_and_no_answer_is_not_flat(tmp_path: Path) -> None:
    desk = Desk(tmp_path, symbols=("TXFD6",), account_calls_max=25)
    session = desk.connect()
    assert desk.broker.positions() == []
    session.returns["list_positions"] = [
        position("TXFD6", "Buy", 3),
        position("TXFD6", "Buy", 1, 20004.0),
        position("MXFD6", "Sell", 2),
    ]
    found = {row.symbol: (row.net_qty, row.average_price) for row in desk.broker.positions()}
    assert found == {"TXFD6": (4 * SCALE, 20001 * SCALE), "MXFD6": (-2 * SCALE, 20000 * SCALE)}
    for answer in (
        None,
        5,
        [None],
        [position("TXFD6", "Buy", "3")],
        [position("TXFD6", "Buy", -1)],
    ):
        desk.clock.now_ns += 60 * SECOND_NS
        session.returns["list_positions"] = answer
        assert code_of(desk.broker.positions) == ReasonCode.BROKER_QUERY_FAILED
    session.returns["list_positions"] = []
    session.remaining_bytes = 0
    assert code_of(desk.broker.positions) == ReasonCode.BROKER_QUERY_FAILED
    session.failures["list_positions"] = BaseException("panic")
    assert code_of(desk.broker.positions) == ReasonCode.BROKER_QUERY_FAILED


def test_stock_positions_are_in_shares(tmp_path: Path) -> None:
    desk = Desk(tmp_path, symbols=("2330",))
    session = desk.connect()
    content = dict.fromkeys(StockPosition.FIELDS, 0) | {
        "code": "2330", "direction": sj.Action.Buy, "quantity": 1037, "price": 2200.5,
    }  # fmt: skip
    session.returns["list_positions"] = [StockPosition(**content)]
    (row,) = desk.broker.positions()
    assert (row.symbol, row.net_qty) == ("2330", 1037 * SCALE)
    assert desk.broker.account().free_margin == 12345 * SCALE
    assert desk.broker.settlements()[0].amount == -1000 * SCALE
    assert desk.broker.trading_limits()["trading_available"] == 7 * SCALE
    session.returns["account_balance"] = AccountBalance(
        acc_balance=0.0, date="", errmsg="try later", status=sj.FetchStatus.Fetched
    )
    assert code_of(desk.broker.account) == ReasonCode.BROKER_QUERY_FAILED


def test_margin_is_told_or_refused(tmp_path: Path) -> None:
    desk = Desk(tmp_path, symbols=("TXFD6",))
    session = desk.connect()
    state = desk.broker.account()
    assert (state.equity, state.free_margin) == (1_000_000 * SCALE, 60_000_050_000_000)
    for changes in (
        {"status": sj.FetchStatus.Fetching}, {"equity": None}, {"available_margin": float("nan")},
    ):  # fmt: skip
        session.returns["margin"] = margin(**changes)
        assert code_of(desk.broker.account) == ReasonCode.BROKER_QUERY_FAILED
    assert code_of(desk.broker.settlements) == ReasonCode.ACCOUNT_NOT_ALLOWED


def order_desk(folder: Path, status: str, **changes: Any) -> tuple[Desk, Session]:
    """A desk whose broker lists one order of three lots."""
    desk = Desk(folder, symbols=("TXFD6",))
    session = desk.connect()
    order = sj.FuturesOrder(
        action="Buy", price=20000.0, quantity=3, price_type="LMT", time_in_force="ROD",
        octype="Auto", custom_field="0a1B2c", account=FUTURES,
    )  # fmt: skip
    contract = sj.BaseContract("FUT", "TAIFEX", "TXFD6")
    session.trades = [trade_of(contract, order, status, **changes)]
    return desk, session


def test_fills_of_an_order_are_named_as_in_their_events_or_not_at_all(tmp_path: Path) -> None:
    deals = [Deal(datetime=None, price=20000.0, quantity=1, seq=s, ts=1775787073.5) for s in "ab"]
    desk, session = order_desk(tmp_path, "PartFilled", deal_quantity=2, deals=deals)
    names = {f.fill_id for f in desk.broker.orders()[0].fills}
    assert names == {"7c4e6e46/a", "7c4e6e46/b"}
    # One came as an event with the same number: one fill, not two.
    session.callbacks["order"](
        sj.OrderState.FuturesDeal, Event(futures_deal_event(exchange_seq="a"))
    )
    assert desk.broker.orders()[0].filled_qty == 2 * SCALE
    # An event with another number than its deal: it would be counted twice, so nothing is said.
    desk, session = order_desk(tmp_path / "2", "PartFilled", deal_quantity=2, deals=deals)
    other = Event(futures_deal_event(exchange_seq="x"))
    session.records = [(sj.OrderState.FuturesDeal, other)]
    assert code_of(desk.broker.orders) == ReasonCode.BROKER_QUERY_FAILED


@pytest.mark.parametrize(
    ("status", "changes", "expected"),
    [
        ("PendingSubmit", {}, OrderStatus.PENDING),
        ("Submitted", {}, OrderStatus.WORKING),
        ("Cancelled", {"cancel_quantity": 3}, OrderStatus.CANCELED),
        ("PartFilled", {"cancel_quantity": 3}, OrderStatus.CANCELED),
        ("Failed", {"ordno": ""}, OrderStatus.REJECTED),
    ],
)
def test_where_an_order_is(
    tmp_path: Path, status: str, changes: dict[str, Any], expected: OrderStatus
) -> None:
    desk, _ = order_desk(tmp_path, status, **changes)
    (found,) = desk.broker.orders()
    assert (found.status, found.tag, found.qty) == (expected, "0a1B2c", 3 * SCALE)


@pytest.mark.parametrize("place", ["id", "seqno", "quantity", "price", "action", "custom_field"])
def test_one_order_that_cannot_be_read_leaves_the_question_unanswered(
    tmp_path: Path, place: str
) -> None:
    desk, session = order_desk(tmp_path, "Submitted")
    for value in (object(), b"x", float("nan"), [], -1):
        desk.clock.now_ns += 60 * SECOND_NS
        session.trades[0].order.__dict__[place] = value
        assert code_of(desk.broker.orders) == ReasonCode.BROKER_QUERY_FAILED


def test_the_attempt_is_on_disk_before_the_session_is_made(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    seen = []
    path = tmp_path / "workspace/state/broker_logins.json"
    desk.prepare = lambda _: seen.append(json.loads(path.read_text())["failures"])
    desk.connect()
    assert seen == [1]
    assert json.loads(path.read_text())["failures"] == 0
    assert FUTURES_KEY in desk.settings.accounts
