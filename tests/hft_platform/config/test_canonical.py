"""Canonical bytes and atomic files."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from hft_platform.config.canonical import (
    atomic_write,
    canonical_json,
    canonical_sha256,
    write_once,
)
from hft_platform.config.code_hash import code_sha256
from hft_platform.errors import PlatformError, ReasonCode


def test_equal_content_gives_equal_bytes_whatever_the_order_of_its_keys() -> None:
    one = {"b": [1, 2.5, None, True], "a": {"y": "é", "x": 1e-05}}
    two = {"a": {"x": 1e-05, "y": "é"}, "b": (1, 2.5, None, True)}
    assert canonical_json(one) == canonical_json(two)
    assert canonical_json(one) == '{"a":{"x":1e-05,"y":"é"},"b":[1,2.5,null,true]}'.encode()
    assert canonical_sha256(one) == canonical_sha256(two)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"a": {"b": [1.0, float("nan")]}}, "$.a.b[1]"),
        ({"a": float("inf")}, "$.a"),
        ({"a": {1: 2}}, "$.a"),
        ({"a": b"bytes"}, "$.a"),
    ],
)
def test_what_cannot_be_encoded_exactly_is_refused_with_its_place(
    content: dict[str, object], place: str
) -> None:
    with pytest.raises(PlatformError) as caught:
        canonical_json(content)
    assert caught.value.code == ReasonCode.INVARIANT_BROKEN
    assert place in caught.value.message


def test_an_atomic_write_replaces_the_whole_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    atomic_write(path, "old content that is longer")
    atomic_write(path, "new", mode=0o600)
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_an_immutable_file_is_made_once_and_never_changed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert write_once(path, "a") is True
    assert write_once(path, "a") is False
    with pytest.raises(FileExistsError):
        write_once(path, "b")
    assert path.read_text() == "a"
    assert list(tmp_path.iterdir()) == [path]


def test_the_code_hash_is_stable_within_a_process_and_a_digest() -> None:
    assert code_sha256() == code_sha256()
    assert len(bytes.fromhex(code_sha256())) == 32
