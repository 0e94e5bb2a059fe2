"""The halt latch: survives, keeps its first reason, and is lifted in two steps or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services import latch


def test_without_a_latch_trading_is_clear(tmp_path: Path) -> None:
    assert latch.read(tmp_path) is None
    assert latch.resume_token(tmp_path) is None
    latch.require_clear(tmp_path)
    latch.resume(tmp_path, token="whatever")


def test_a_halt_refuses_with_who_and_why(tmp_path: Path) -> None:
    latch.halt(tmp_path, who="night desk", why="quotes look wrong")
    with pytest.raises(PlatformError, match="night desk: quotes look wrong") as caught:
        latch.require_clear(tmp_path)
    assert caught.value.code == ReasonCode.KILL_SWITCH_ON
    assert "hft-live resume" in caught.value.render()


def test_a_second_halt_keeps_the_first_reason(tmp_path: Path) -> None:
    latch.halt(tmp_path, who="engine", why="overflow", code=ReasonCode.ARITHMETIC_OVERFLOW)
    latch.halt(tmp_path, who="somebody", why="something else")
    assert latch.read(tmp_path) == {
        "who": "engine", "why": "overflow", "code": ReasonCode.ARITHMETIC_OVERFLOW,
        "since_ns": None,
    }  # fmt: skip


def test_resuming_takes_the_token_of_this_very_halt(tmp_path: Path) -> None:
    latch.halt(tmp_path, who="a", why="b")
    token = latch.resume_token(tmp_path)
    assert token is not None
    with pytest.raises(PlatformError) as caught:
        latch.resume(tmp_path, token="00000000")
    assert caught.value.code == ReasonCode.KILL_SWITCH_ON
    assert latch.read(tmp_path) is not None
    latch.resume(tmp_path, token=token)
    latch.require_clear(tmp_path)
    # The same person halts for the same reason again: the old token is worth nothing.
    latch.halt(tmp_path, who="a", why="b")
    with pytest.raises(PlatformError):
        latch.resume(tmp_path, token=token)
    assert latch.read(tmp_path) is not None


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"who":"a","why":"b"}',
     b'{"who":"a","why":"b","code":9999}', b"[" * 100_000],
)  # fmt: skip
def test_a_damaged_latch_halts_all_the_same_and_can_be_lifted(tmp_path: Path, raw: bytes) -> None:
    path = latch.latch_path(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(raw)
    with pytest.raises(PlatformError, match="damaged") as caught:
        latch.require_clear(tmp_path)
    assert caught.value.code == ReasonCode.KILL_SWITCH_ON
    token = latch.resume_token(tmp_path)
    assert token is not None
    latch.resume(tmp_path, token=token)
    latch.require_clear(tmp_path)
