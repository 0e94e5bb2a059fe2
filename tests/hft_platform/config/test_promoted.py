"""The door: every way a promoted config may be wrong, and the code it is refused with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hft_platform.config.canonical import atomic_write
from hft_platform.config.keys import load_signing_key, make_key, signing_key, trusted_keys
from hft_platform.config.promoted import (
    PromotedConfig,
    PromotedContent,
    head_config,
    load_verified,
    promotion_heads,
)
from hft_platform.config.promotion_folder import (
    promotions_root,
    raise_seq_floor,
    seq_floor,
    weight_path,
    withdrawn_path,
)
from hft_platform.errors import PlatformError, ReasonCode

CODE = "c" * 64
START_NS = 1_770_000_000_000_000_000
DAY_NS = 86_400_000_000_000


def load(path: Path, ws: Path, **changes: Any) -> PromotedConfig:
    """Verify with arguments that fit, or changed ones."""
    arguments: dict[str, Any] = {
        "trusted_keys": trusted_keys(ws),
        "mode": "paper",
        "now_ns": START_NS + DAY_NS,
        "symbol": "SIM_EDGE",
        "seq_floor": 0,
        "code_sha256": CODE,
    }
    return load_verified(path, **(arguments | changes))


def refusal(path: Path, ws: Path, **changes: Any) -> PlatformError:
    """The error of a load that must not succeed."""
    with pytest.raises(PlatformError) as caught:
        load(path, ws, **changes)
    assert caught.value.message
    assert caught.value.next_step
    return caught.value


def test_a_signed_config_that_fits_is_accepted(desk: Any) -> None:
    config = load(desk.issue(), desk.ws)
    assert (config.stage, config.weight_ppm, config.promotion_seq) == ("shadow", 100_000, 3)
    assert config.template.kind == "taker"
    assert len(config.content_sha256) == 64


def test_a_flip_of_any_single_byte_is_refused(desk: Any) -> None:
    path = desk.issue()
    raw = path.read_bytes()
    codes = set()
    for index in range(len(raw)):
        for bit in (1, 0x20, 0x80) if index % 7 == 0 else (1,):
            damaged = bytearray(raw)
            damaged[index] ^= bit
            path.write_bytes(bytes(damaged))
            codes.add(refusal(path, desk.ws).code)
    assert codes <= {501, 502, 504, 508}
    assert codes >= {502, 504, 508}
    path.write_bytes(raw)
    load(path, desk.ws)


def test_a_cut_at_any_byte_and_an_added_byte_are_refused(desk: Any) -> None:
    path = desk.issue()
    raw = path.read_bytes()
    for length in range(0, len(raw), 5):
        path.write_bytes(raw[:length])
        assert refusal(path, desk.ws).code in {501, 502, 504, 508}
    for added in (b"\n", b"# comment\n", b"extra: 1\n", b" "):
        path.write_bytes(raw + added)
        assert refusal(path, desk.ws).code in {502, 508}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weight_ppm", 1_000_000),
        ("stage", "live"),
        ("expires_ns", START_NS + 300 * DAY_NS),
        ("promotion_seq", 99),
        ("expression", "-k * imbalance_l1"),
    ],
)
def test_an_edited_field_is_refused_as_tampered(desk: Any, field: str, value: Any) -> None:
    path = desk.issue()
    whole = yaml.safe_load(path.read_bytes())
    whole[field] = value
    path.write_text(yaml.safe_dump(whole, sort_keys=True, default_flow_style=False))
    assert refusal(path, desk.ws).code == ReasonCode.CONFIG_SIGNATURE_INVALID


def test_a_file_that_says_the_same_in_other_bytes_is_refused(desk: Any) -> None:
    path = desk.issue()
    whole = yaml.safe_load(path.read_bytes())
    path.write_text(json.dumps(whole))
    assert refusal(path, desk.ws).code == ReasonCode.CONFIG_SIGNATURE_INVALID


def test_an_unsigned_config_is_refused(desk: Any) -> None:
    path = desk.issue()
    whole = yaml.safe_load(path.read_bytes())
    del whole["signature"]
    path.write_text(yaml.safe_dump(whole))
    assert refusal(path, desk.ws).code == ReasonCode.CONFIG_UNSIGNED


def test_another_workspaces_key_is_refused(desk: Any, tmp_path: Path) -> None:
    signing_key(desk.ws, "promotion")
    path = desk.issue(signing_key(tmp_path / "other", "promotion"))
    assert refusal(path, desk.ws).code == ReasonCode.CONFIG_KEY_UNKNOWN


def test_a_session_key_signs_no_config(desk: Any) -> None:
    key = signing_key(desk.ws, "session")
    path = desk.issue(key)
    trusted = {key.key_id: key.trusted}
    assert refusal(path, desk.ws, trusted_keys=trusted).code == ReasonCode.CONFIG_KEY_UNKNOWN


def test_a_config_is_refused_from_its_expiry_on_and_not_before(desk: Any) -> None:
    path = desk.issue()
    end = START_NS + 30 * DAY_NS
    load(path, desk.ws, now_ns=end - 1)
    error = refusal(path, desk.ws, now_ns=end + 26_000 * 10**9)
    assert error.code == ReasonCode.CONFIG_EXPIRED
    assert "7 h 13 min" in error.message
    assert refusal(path, desk.ws, now_ns=end).code == ReasonCode.CONFIG_EXPIRED


def test_a_config_is_refused_before_its_first_nanosecond(desk: Any) -> None:
    path = desk.issue()
    load(path, desk.ws, now_ns=START_NS)
    error = refusal(path, desk.ws, now_ns=START_NS - 1)
    assert error.code == ReasonCode.CONFIG_NOT_YET_VALID


def test_an_older_sequence_is_refused_also_after_a_restart(desk: Any) -> None:
    def accept(path: Path) -> PromotedConfig:
        return PromotedConfig.load_verified(
            path, workspace=desk.ws, trusted_keys=trusted_keys(desk.ws), mode="sim",
            now_ns=START_NS, symbol="SIM_EDGE", code_sha256=CODE,
        )  # fmt: skip

    old = desk.issue(promotion_seq=3).read_bytes()
    new = desk.issue(promotion_seq=4)
    accept(new)
    accept(new)
    assert seq_floor(desk.ws, "sim_edge_taker") == 4
    new.write_bytes(old)
    with pytest.raises(PlatformError) as caught:
        accept(new)
    assert caught.value.code == ReasonCode.CONFIG_REPLAYED


def test_a_refused_config_does_not_raise_the_highest_sequence(desk: Any) -> None:
    path = desk.issue(promotion_seq=9)
    with pytest.raises(PlatformError):
        PromotedConfig.load_verified(
            path, workspace=desk.ws, trusted_keys=trusted_keys(desk.ws), mode="sim",
            now_ns=START_NS, symbol="OTHER", code_sha256=CODE,
        )  # fmt: skip
    assert seq_floor(desk.ws, "sim_edge_taker") == 0


@pytest.mark.parametrize("content", [b"", b"[]", b'{"sim_edge_taker": "4"}', b"{", b'{"a": -1}'])
def test_a_lost_memory_of_sequences_refuses(desk: Any, content: bytes) -> None:
    raise_seq_floor(desk.ws, "sim_edge_taker", 4)
    (desk.ws / "state" / "promotion_seq.json").write_bytes(content)
    with pytest.raises(PlatformError) as caught:
        seq_floor(desk.ws, "sim_edge_taker")
    assert caught.value.code == ReasonCode.CONFIG_REPLAYED


def test_the_highest_sequence_never_goes_down(desk: Any) -> None:
    for seq in (4, 2, 5, 1):
        raise_seq_floor(desk.ws, "a", seq)
    raise_seq_floor(desk.ws, "b", 1)
    assert (seq_floor(desk.ws, "a"), seq_floor(desk.ws, "b")) == (5, 1)


def test_a_config_for_another_instrument_is_refused(desk: Any) -> None:
    error = refusal(desk.issue(), desk.ws, symbol="TXFD6")
    assert error.code == ReasonCode.CONFIG_WRONG_INSTRUMENT


@pytest.mark.parametrize(
    ("stage", "mode", "is_pinned", "code"),
    [
        ("shadow", "sim", False, None),
        ("shadow", "paper", False, None),
        ("shadow", "live", False, ReasonCode.CONFIG_WRONG_STAGE),
        ("shadow", "sim", True, None),
        ("shadow", "paper", True, None),
        ("shadow", "live", True, ReasonCode.CONFIG_WRONG_STAGE),
        ("canary", "sim", False, None),
        ("canary", "paper", False, None),
        ("canary", "live", False, ReasonCode.KEY_ROLE_FORBIDDEN),
        ("canary", "sim", True, None),
        ("canary", "paper", True, None),
        ("canary", "live", True, None),
        ("live", "sim", False, ReasonCode.KEY_ROLE_FORBIDDEN),
        ("live", "paper", False, ReasonCode.KEY_ROLE_FORBIDDEN),
        ("live", "live", False, ReasonCode.KEY_ROLE_FORBIDDEN),
        ("live", "sim", True, None),
        ("live", "paper", True, None),
        ("live", "live", True, None),
    ],
)
def test_stage_mode_and_key_permit_what_the_table_says(
    desk: Any, tmp_path: Path, stage: str, mode: str, is_pinned: bool, code: int | None
) -> None:
    pins = tmp_path / "pins"
    made = make_key(tmp_path / "hand.key")
    pins.write_text(f"promotion {made.public_hex}\n")
    hand = load_signing_key(tmp_path / "hand.key", role="promotion", automatic=False)
    path = desk.issue(hand if is_pinned else None, stage=stage)
    keys = trusted_keys(desk.ws, pinned_file=pins)
    if code is None:
        assert load(path, desk.ws, trusted_keys=keys, mode=mode).stage == stage
    else:
        assert refusal(path, desk.ws, trusted_keys=keys, mode=mode).code == code


def test_other_code_than_was_judged_is_refused(desk: Any) -> None:
    error = refusal(desk.issue(), desk.ws, code_sha256="0" * 64)
    assert error.code == ReasonCode.CONFIG_EVIDENCE_MISMATCH


def test_a_missing_config_is_said_to_be_missing(desk: Any) -> None:
    desk.issue()
    assert refusal(desk.ws / "nothing.yaml", desk.ws).code == ReasonCode.CONFIG_NOT_FOUND
    with pytest.raises(PlatformError) as caught:
        head_config(desk.ws, "no_such_alpha")
    assert caught.value.code == ReasonCode.CONFIG_NOT_FOUND


@pytest.mark.parametrize(
    "changes",
    [
        {"weight_ppm": 0},
        {"weight_ppm": 1_000_001},
        {"weight_ppm": True},
        {"order_qty": "10"},
        {"stage": "research"},
        {"expires_ns": START_NS},
        {"extra": 1},
        {"verdicts": {}},
        {"template": {"kind": "taker", "entry_ticks": 1.0}},
        {"instruments": []},
        {"alpha_id": "../../etc"},
        {"promotion_seq": 0},
    ],
)
def test_a_signed_config_outside_its_schema_is_refused(desk: Any, changes: dict[str, Any]) -> None:
    path = desk.issue()
    key = signing_key(desk.ws, "promotion")
    from hft_platform.config.promoted import render_config, signed_message

    whole = yaml.safe_load(path.read_bytes())
    del whole["signature"]
    whole |= changes
    raw = render_config(whole, key_id=key.key_id, signature=key.sign(signed_message(whole)))
    path.write_bytes(raw)
    assert refusal(path, desk.ws).code == ReasonCode.CONFIG_MALFORMED


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x\n",
        "a: " + "[" * 50 + "]" * 50,
        "a: " + "[" * 20_000,
        "- 1\n",
        "a: !!python/object:os.system {}\n",
        "\x00",
        "a: 2026-01-01\nsignature: {key_id: x, ed25519: y}\n",
        "x" * 70_000,
        "signature: 1\n",
    ],
)
def test_hostile_yaml_is_malformed_and_nothing_else(desk: Any, text: str) -> None:
    path = desk.issue()
    path.write_text(text)
    assert refusal(path, desk.ws).code in {504, 508}


def test_a_withdrawal_holds_for_its_sequence_and_all_before_it(desk: Any) -> None:
    path = desk.issue(promotion_seq=3)
    config = load(path, desk.ws)
    assert not config.is_withdrawn(desk.ws)
    atomic_write(withdrawn_path(promotions_root(desk.ws), "sim_edge_taker", 3), "not even JSON")
    assert refusal(path, desk.ws).code == ReasonCode.CONFIG_WITHDRAWN
    assert config.is_withdrawn(desk.ws)
    load(desk.issue(promotion_seq=4), desk.ws)


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        ('{"weight_ppm": 50000}', 50_000),
        ('{"weight_ppm": 900000}', 100_000),
        ('{"weight_ppm": 0}', 0),
        ('{"weight_ppm": -5}', 0),
        ('{"weight_ppm": true}', 0),
        ('{"weight_ppm": "50000"}', 0),
        ("[]", 0),
        ("{", 0),
        ("", 0),
    ],
)
def test_an_unsigned_weight_can_only_lower_and_a_damaged_one_is_zero(
    desk: Any, text: str, weight: int
) -> None:
    path = desk.issue()
    atomic_write(weight_path(promotions_root(desk.ws), "sim_edge_taker", 3), text)
    config = load(path, desk.ws)
    assert (config.weight_ppm, config.signed_weight_ppm) == (weight, 100_000)
    assert config.weight_in_force(desk.ws) == weight


def test_the_head_in_force_is_the_highest_sequence_up_to_a_day(desk: Any) -> None:
    first = desk.issue(promotion_seq=3, issued_trading_day=20_260_202)
    second = desk.issue(promotion_seq=4, issued_trading_day=20_260_209)
    assert head_config(desk.ws, "sim_edge_taker") == second
    assert head_config(desk.ws, "sim_edge_taker", 20_260_208) == first
    desk.issue(promotion_seq=5, issued_trading_day=20_260_202)
    assert head_config(desk.ws, "sim_edge_taker") == first


def test_heads_are_listed_and_an_unreadable_one_is_called_so(desk: Any) -> None:
    path = desk.issue()
    (row,) = promotion_heads(desk.ws)
    assert (row["stage"], row["weight_ppm"], row["withdrawn"]) == ("shadow", 100_000, False)
    path.write_text("a: [")
    (row,) = promotion_heads(desk.ws)
    assert (row["stage"], row["weight_ppm"]) == ("unreadable", 0)


def test_every_field_of_the_content_is_required(content: Callable[..., dict[str, Any]]) -> None:
    for field in content():
        short = {key: value for key, value in content().items() if key != field}
        with pytest.raises(ValueError, match="Field required"):
            PromotedContent.model_validate(short)
