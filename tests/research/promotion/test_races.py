"""A stop while a signer is at work: whoever takes risk away wins, whatever the order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from hft_platform.config.promotion_folder import promotions_root, reduced_weight, withdrawn_seq
from hft_platform.errors import PlatformError, ReasonCode
from research.promotion import audit, issue, promote, sign, withdrawal
from research.promotion.canary_life import newest_issue
from research.promotion.retire import retire
from research.promotion.withdrawal import Withdrawal, reduce_weight, withdraw
from tests.research.promotion.test_promote import ALPHA_ID, FIRST_FROZEN, code_of

WAIT_S = 20.0
MOMENTS = pytest.mark.parametrize(
    ("module", "name"),
    [
        (sign, "permit_content"),  # evidence is verified, nothing is recorded
        (issue, "write_once"),  # recorded, not published
        (issue, "read_signed"),  # published, not the head yet
    ],
)


class Stop:
    """A stop by another thread, which is at its file before the signer goes on."""

    def __init__(self, act: Callable[[], Withdrawal], is_there: Callable[[], bool]) -> None:
        self.act, self.is_there = act, is_there
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.done: Withdrawal | None = None

    def run(self) -> None:
        """In its thread: it may have to wait for the signer before it ends."""
        self.done = self.act()

    def begin(self) -> None:
        """Start and wait for the file only."""
        self.thread.start()
        until = time.monotonic() + WAIT_S
        while not self.is_there() and time.monotonic() < until:
            time.sleep(0.01)
        assert self.is_there(), "the stop waited for the signer"

    def end(self) -> Withdrawal:
        """What it did."""
        self.thread.join(WAIT_S)
        assert self.done is not None
        return self.done


def before(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, act: Callable[[], Any]) -> None:
    """Act once, right before a function is called."""
    real, acted = getattr(module, name), []

    def acting(*arguments: Any, **named: Any) -> Any:
        if not acted:
            acted.append(True)
            act()
        return real(*arguments, **named)

    monkeypatch.setattr(module, name, acting)


@pytest.fixture
def climber(bench: Any) -> Any:
    """A canary that has earned its second stage."""
    bench.write_gates()
    bench.sign("canary")
    for index in range(FIRST_FROZEN, FIRST_FROZEN + 3):
        bench.run_session(index)
    return bench


def test_without_a_stop_the_climber_climbs(climber: Any) -> None:
    assert climber.sign("canary").weight_ppm == 200_000


@MOMENTS
def test_a_withdrawal_while_the_signer_works_holds(
    climber: Any, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    root = promotions_root(climber.ws)
    stop = Stop(
        lambda: withdraw(climber.ws, ALPHA_ID, by="operator", why="a doubt"),
        lambda: withdrawn_seq(root, ALPHA_ID) > 0,
    )
    before(monkeypatch, module, name, stop.begin)
    assert code_of(climber.sign, "canary") == ReasonCode.CONFIG_WITHDRAWN
    stop.end()
    assert newest_issue(climber.ws, ALPHA_ID) is None
    whys = [entry.record["why"] for entry in audit.verify_chain(climber.ws)]
    assert "a doubt" in whys


@MOMENTS
def test_a_reduction_while_the_signer_works_holds(
    climber: Any, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    root = promotions_root(climber.ws)
    stop = Stop(
        lambda: reduce_weight(climber.ws, ALPHA_ID, weight_ppm=30_000, by="operator", why="w"),
        lambda: any((root / ALPHA_ID).glob("weight-*.json")),
    )
    before(monkeypatch, module, name, stop.begin)
    try:
        climber.sign("canary")
    except PlatformError as error:
        assert error.code == ReasonCode.PROMOTION_NOT_PERMITTED
    stop.end()
    found = newest_issue(climber.ws, ALPHA_ID)
    if found is not None:
        seq, signed = found.content.promotion_seq, found.content.weight_ppm
        assert reduced_weight(root, ALPHA_ID, seq, signed_ppm=signed) == 30_000


@pytest.mark.parametrize("kind", ["withdraw", "reduce"])
def test_a_stop_that_the_signer_overtakes_is_repeated_for_its_issue(
    climber: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The stop has looked up the newest issue; a whole climb comes in before its file."""
    before(monkeypatch, withdrawal, "withdrawn_seq", lambda: climber.sign("canary"))
    if kind == "withdraw":
        assert withdraw(climber.ws, ALPHA_ID, by="operator", why="w").promotion_seq == 2
        assert newest_issue(climber.ws, ALPHA_ID) is None
    else:
        done = reduce_weight(climber.ws, ALPHA_ID, weight_ppm=30_000, by="operator", why="w")
        assert (done.promotion_seq, done.weight_ppm) == (2, 30_000)
        root = promotions_root(climber.ws)
        assert reduced_weight(root, ALPHA_ID, 2, signed_ppm=200_000) == 30_000


def test_a_stop_of_a_first_issue_waits_for_what_there_is_to_take_back(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write_gates()
    stop = Stop(lambda: withdraw(bench.ws, ALPHA_ID, by="operator", why="w"), lambda: True)
    before(monkeypatch, sign, "permit_content", stop.begin)
    bench.sign("canary")
    assert stop.end().promotion_seq == 1
    assert newest_issue(bench.ws, ALPHA_ID) is None


def test_a_climb_decided_before_a_withdrawal_promotes_nothing_anew(
    climber: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sensor decides, an operator withdraws, then the signer starts."""

    def run(_ws: Any, request: Any, **_: Any) -> dict[str, Any]:
        withdraw(climber.ws, ALPHA_ID, by="operator", why="a doubt")
        return sign.sign_request(sign.read_request(request), climber.context).as_dict()

    monkeypatch.setattr(promote, "_run_signer", run)
    code = code_of(
        promote.run_canary, climber.ws, climber.alpha, by="sensor", config_dir=climber.config_dir
    )
    assert code == ReasonCode.PROMOTION_NOT_PERMITTED
    assert newest_issue(climber.ws, ALPHA_ID) is None


def test_a_withdrawal_whose_record_failed_is_recorded_when_it_is_asked_for_again(
    climber: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(audit, "_append_durably", full)
        first = withdraw(climber.ws, ALPHA_ID, by="operator", why="a doubt", is_rolled_back=True)
        assert (first.is_new, bool(first.audit_problem)) == (True, True)
        again = withdraw(climber.ws, ALPHA_ID, by="somebody", why="is it?")
        assert (again.is_new, bool(again.audit_problem)) == (False, True)
    before_it = len(audit.verify_chain(climber.ws))
    for _ in range(2):
        again = withdraw(climber.ws, ALPHA_ID, by="somebody", why="is it?")
        assert (again.is_new, again.audit_problem) == (False, "")
    entries = audit.verify_chain(climber.ws)
    assert len(entries) == before_it + 1
    record = entries[-1].record
    assert (record["kind"], record["who"], record["why"]) == ("withdrawn", "operator", "a doubt")
    assert record["facts"]["is_rolled_back"]


def test_who_may_not_open_the_signers_lock_stops_all_the_same(
    climber: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock file is the signing user's; an operator is another one."""
    root, real = promotions_root(climber.ws), withdrawal.locked

    def refusing(folder: Any) -> Any:
        if folder == root:
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(withdrawal, "locked", refusing)
    lowered = reduce_weight(climber.ws, ALPHA_ID, weight_ppm=30_000, by="operator", why="w")
    assert lowered.weight_ppm == 30_000
    assert withdraw(climber.ws, ALPHA_ID, by="operator", why="w").is_new
    assert newest_issue(climber.ws, ALPHA_ID) is None


def test_a_stop_where_nothing_was_ever_issued_makes_nothing(bench: Any) -> None:
    code = code_of(withdraw, bench.ws / "elsewhere", ALPHA_ID, by="operator", why="w")
    assert code == ReasonCode.CONFIG_NOT_FOUND
    assert not (bench.ws / "elsewhere").exists()


def test_retiring_under_the_signers_lock_does_not_wait_for_itself(climber: Any) -> None:
    thread = threading.Thread(
        target=retire,
        args=(climber.ws, climber.alpha),
        kwargs={"by": "t", "why": "w", "config_dir": climber.config_dir},
        daemon=True,
    )
    thread.start()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert withdrawn_seq(promotions_root(climber.ws), ALPHA_ID) == 1
