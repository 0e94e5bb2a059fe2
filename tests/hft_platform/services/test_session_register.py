"""The register of sessions: what began is known, whatever becomes of its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hft_platform.config.keys import signing_key
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services.session_register import (
    BegunSession,
    begin_session,
    begun_sessions,
    register_path,
)


def begin(ws: Path, count: int = 4, *, first: int = 1) -> list[BegunSession]:
    rows = [
        BegunSession(f"run-{index}", "edge", "a" * 64, "canary", index)
        for index in range(first, first + count)
    ]
    for row in rows:
        begin_session(ws, row, signing_key(ws, "session"))
    return rows


def test_sessions_are_read_back_in_order_and_count_once(tmp_path: Path) -> None:
    assert begun_sessions(tmp_path) == []
    rows = begin(tmp_path)
    assert begun_sessions(tmp_path) == rows
    begin(tmp_path)
    assert begun_sessions(tmp_path) == rows


def test_a_flip_of_any_byte_is_found(tmp_path: Path) -> None:
    begin(tmp_path, 2)
    path = register_path(tmp_path)
    raw = path.read_bytes()
    for index in range(len(raw) - 1):
        damaged = bytearray(raw)
        damaged[index] ^= 1
        path.write_bytes(bytes(damaged))
        with pytest.raises(PlatformError) as caught:
            begun_sessions(tmp_path)
        assert caught.value.code == ReasonCode.SUMMARY_TAMPERED
    path.write_bytes(raw)
    assert len(begun_sessions(tmp_path)) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[1:],
        lambda lines: lines[:1] + lines[2:],
        lambda lines: [lines[1], lines[0], *lines[2:]],
        lambda lines: [*lines, lines[0]],
    ],
)
def test_a_line_left_out_moved_or_doubled_is_found(
    tmp_path: Path, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    begin(tmp_path)
    path = register_path(tmp_path)
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    for call in (lambda: begun_sessions(tmp_path), lambda: begin(tmp_path, 1, first=9)):
        with pytest.raises(PlatformError) as caught:
            call()
        assert caught.value.code == ReasonCode.SUMMARY_TAMPERED


def test_a_line_signed_by_another_workspace_is_found(tmp_path: Path) -> None:
    begin(tmp_path, 1)
    begin(tmp_path / "other", 2)
    foreign = register_path(tmp_path / "other").read_bytes().splitlines(keepends=True)[1]
    with register_path(tmp_path).open("ab") as file:
        file.write(foreign)
    with pytest.raises(PlatformError):
        begun_sessions(tmp_path)


def test_a_crash_at_any_byte_of_an_append_is_healed_by_the_next(tmp_path: Path) -> None:
    begin(tmp_path, 2)
    path = register_path(tmp_path)
    before = path.read_bytes()
    begin(tmp_path, 1, first=3)
    after = path.read_bytes()
    for length in range(len(before), len(after), 7):
        path.write_bytes(after[:length])
        assert len(begun_sessions(tmp_path)) == 2
        begin(tmp_path, 1, first=3)
        assert path.read_bytes() == after


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    register_path(tmp_path).mkdir(parents=True)
    with pytest.raises(PlatformError) as caught:
        begin(tmp_path, 1)
    assert caught.value.code == ReasonCode.WAL_WRITE_FAILED
