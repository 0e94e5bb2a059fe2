"""Live is what a canary earns: what it needs, and what each refusal says is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hft_platform.errors import PlatformError, ReasonCode
from research import cli
from research.commands import common
from research.promotion.withdrawal import reduce_weight, withdraw
from tests.research.promotion.test_on_record import place
from tests.research.promotion.test_promote import (
    ALPHA_ID,
    FIRST_FROZEN,
    in_this_process,
    pinned,
)


def refused(bench: Any) -> tuple[int, str]:
    with pytest.raises(PlatformError) as caught:
        bench.sign("live")
    assert caught.value.next_step
    return caught.value.code, caught.value.message


def gates_only(bench: Any) -> None:
    bench.write_gates()


def shadow(bench: Any) -> None:
    bench.write_gates()
    bench.sign("shadow")


def withdrawn(bench: Any) -> None:
    bench.graduate()
    withdraw(bench.ws, ALPHA_ID, by="operator", why="a doubt")


def first_stage(bench: Any) -> None:
    bench.graduate()
    bench.capacity_ppm = 1_000_000
    bench.write_gates()


def lowered(bench: Any) -> None:
    bench.graduate()
    reduce_weight(bench.ws, ALPHA_ID, weight_ppm=50_000, by="operator", why="nervous")


def few_sessions(bench: Any) -> None:
    bench.capacity_ppm = 100_000
    bench.write_gates()
    bench.sign("canary")
    for index in range(FIRST_FROZEN, FIRST_FROZEN + 2):
        bench.run_session(index)


def poor_sessions(bench: Any) -> None:
    few_sessions(bench)
    bench.run_session(FIRST_FROZEN + 2, share=-0.9)


@pytest.mark.parametrize(
    ("begin", "text"),
    [
        (gates_only, "no canary is in force"),
        (shadow, "it is in shadow"),
        (withdrawn, "no canary is in force"),
        (first_stage, "its canary is at 10 %, its last stage is 100 %"),
        (lowered, "its canary is at 5 %, its last stage is 10 %"),
        (few_sessions, "sessions_at_weight 2 of 3"),
        (poor_sessions, "share_at_weight 0.3667 of 0.5"),
    ],
)
def test_live_says_what_the_canary_has_not_shown(
    bench: Any, tmp_path: Path, begin: Callable[[Any], None], text: str
) -> None:
    begin(bench)
    pinned(bench, tmp_path)
    code, message = refused(bench)
    assert code == ReasonCode.PROMOTION_NOT_PERMITTED
    assert text in message


def test_a_canary_that_fails_does_not_go_live(bench: Any, tmp_path: Path) -> None:
    bench.graduate()
    bench.run_session(FIRST_FROZEN + 3, share=-12.0)
    pinned(bench, tmp_path)
    assert refused(bench)[0] == ReasonCode.CANARY_LOSS_BUDGET


def test_the_canary_of_another_version_does_not_graduate_this_one(
    bench: Any, tmp_path: Path
) -> None:
    bench.graduate()
    path = bench.alphas / ALPHA_ID / "manifest.yaml"
    path.write_text(path.read_text().replace("ttl_ms: ", "ttl_ms: 1"))
    bench.write_gates()
    pinned(bench, tmp_path)
    code, message = refused(bench)
    assert code == ReasonCode.PROMOTION_NOT_PERMITTED
    assert "of another version" in message


def test_what_graduated_is_live_at_its_weight_and_renewed_without_a_new_canary(
    bench: Any, tmp_path: Path
) -> None:
    bench.graduate()
    pinned(bench, tmp_path)
    first = bench.sign("live")
    assert (first.stage, first.weight_ppm, first.is_new) == ("live", 100_000, True)
    assert not bench.sign("live").is_new
    for index in range(FIRST_FROZEN + 3, FIRST_FROZEN + 21):
        bench.run_session(index)
    renewed = bench.sign("live")
    assert renewed.is_new
    assert renewed.expires_ns > first.expires_ns


def test_after_live_the_next_step_is_the_live_check(
    bench: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    in_this_process(bench, monkeypatch)
    bench.graduate()
    pinned(bench, tmp_path)
    command = ["promote", ALPHA_ID, "--why", "it graduated", *place(bench)]
    assert cli.main([*command, "--stage", "live"]) == common.DONE
    assert f"next: hft-live run --mode live --alpha {ALPHA_ID} --check" in capsys.readouterr().out
