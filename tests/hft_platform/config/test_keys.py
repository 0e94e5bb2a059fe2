"""Keys by role: who may read them, who makes them, which signatures count."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hft_platform.config.keys import (
    KeyRing,
    load_signing_key,
    make_key,
    public_key,
    signing_key,
    trusted_keys,
)
from hft_platform.errors import PlatformError, ReasonCode


def test_a_key_is_made_on_first_use_readable_by_its_owner_only(tmp_path: Path) -> None:
    key = signing_key(tmp_path, "session")
    path = tmp_path / "keys" / "session.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key.trusted.automatic
    assert signing_key(tmp_path, "session").key_id == key.key_id
    assert public_key(tmp_path, "session") == key.trusted
    assert path.read_text().strip() not in repr(key)


def test_a_signature_holds_for_its_message_and_no_other(tmp_path: Path) -> None:
    key = signing_key(tmp_path, "audit")
    signature = key.sign(b"message")
    assert key.trusted.is_signature_of(b"message", signature)
    assert not key.trusted.is_signature_of(b"messagf", signature)
    flipped = f"{int(signature[0], 16) ^ 1:x}{signature[1:]}"
    assert not key.trusted.is_signature_of(b"message", flipped)
    assert not key.trusted.is_signature_of(b"message", signature[:-2] + "AF")
    assert not key.trusted.is_signature_of(b"message", "zz" * 64)
    other = signing_key(tmp_path, "session")
    assert not other.trusted.is_signature_of(b"message", signature)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o601])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    signing_key(tmp_path, "promotion")
    (tmp_path / "keys" / "promotion.key").chmod(mode)
    with pytest.raises(PlatformError) as caught:
        signing_key(tmp_path, "promotion")
    assert caught.value.code == ReasonCode.KEY_PERMISSIONS
    assert "chmod 600" in caught.value.next_step


@pytest.mark.parametrize("content", [b"", b"ab" * 31, b"zz" * 32, b"\xff" * 64, b"ab" * 400])
def test_a_damaged_key_file_is_refused(tmp_path: Path, content: bytes) -> None:
    signing_key(tmp_path, "session")
    path = tmp_path / "keys" / "session.key"
    path.write_bytes(content)
    with pytest.raises(PlatformError) as caught:
        signing_key(tmp_path, "session")
    assert caught.value.code == ReasonCode.KEY_MISSING


def test_a_lost_private_key_is_not_replaced_behind_the_back_of_its_public_half(
    tmp_path: Path,
) -> None:
    signing_key(tmp_path, "audit")
    (tmp_path / "keys" / "audit.key").unlink()
    with pytest.raises(PlatformError) as caught:
        signing_key(tmp_path, "audit")
    assert caught.value.code == ReasonCode.KEY_MISSING


def test_a_foreign_public_half_is_noticed(tmp_path: Path) -> None:
    signing_key(tmp_path, "audit")
    other = signing_key(tmp_path / "other", "audit")
    (tmp_path / "keys" / "audit.pub").write_text(other.trusted.public_hex)
    with pytest.raises(PlatformError) as caught:
        signing_key(tmp_path, "audit")
    assert caught.value.code == ReasonCode.KEY_MISSING


def test_many_first_uses_at_once_make_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: signing_key(tmp_path, "promotion").key_id, range(16)))
    assert len(set(keys)) == 1


def test_a_key_made_by_hand_is_trusted_only_when_it_is_pinned(tmp_path: Path) -> None:
    ws = tmp_path / "ws"
    automatic = signing_key(ws, "promotion")
    made = make_key(tmp_path / "hand" / "promotion.key")
    assert set(trusted_keys(ws)) == {automatic.key_id}
    pins = tmp_path / "pins"
    pins.write_text(f"# live\npromotion {made.public_hex}\n")
    keys = KeyRing.open(ws, pinned_file=pins).trusted()
    assert not keys[made.key_id].automatic
    assert keys[automatic.key_id].automatic
    path = tmp_path / "hand" / "promotion.key"
    loaded = load_signing_key(path, role="promotion", automatic=False)
    assert loaded.key_id == made.key_id


def test_pinning_the_automatic_key_does_not_make_it_fit_for_live(tmp_path: Path) -> None:
    automatic = signing_key(tmp_path, "promotion").trusted
    pins = tmp_path / "pins"
    pins.write_text(f"promotion {automatic.public_hex}\n")
    assert trusted_keys(tmp_path, pinned_file=pins)[automatic.key_id].automatic


@pytest.mark.parametrize("line", ["promotion", "session " + "ab" * 32, "promotion " + "xy" * 32])
def test_a_pin_file_with_a_line_that_is_no_pin_is_refused(tmp_path: Path, line: str) -> None:
    pins = tmp_path / "pins"
    pins.write_text(line + "\n")
    with pytest.raises(PlatformError) as caught:
        trusted_keys(tmp_path, pinned_file=pins)
    assert caught.value.code == ReasonCode.KEY_MISSING


def test_a_pin_file_that_others_can_change_is_refused(tmp_path: Path) -> None:
    pins = tmp_path / "pins"
    pins.write_text("")
    pins.chmod(0o666)
    with pytest.raises(PlatformError) as caught:
        trusted_keys(tmp_path, pinned_file=pins)
    assert caught.value.code == ReasonCode.KEY_PERMISSIONS


def test_keys_and_pins_inside_a_tracked_tree_are_refused(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    with pytest.raises(PlatformError) as caught:
        make_key(tmp_path / "deep" / "promotion.key")
    assert caught.value.code == ReasonCode.KEY_ROLE_FORBIDDEN
    pins = tmp_path / "pins"
    pins.write_text("")
    with pytest.raises(PlatformError) as caught:
        trusted_keys(tmp_path, pinned_file=pins)
    assert caught.value.code == ReasonCode.KEY_ROLE_FORBIDDEN


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    make_key(tmp_path / "promotion.key")
    with pytest.raises(PlatformError) as caught:
        make_key(tmp_path / "promotion.key")
    assert caught.value.code == ReasonCode.KEY_ROLE_FORBIDDEN
