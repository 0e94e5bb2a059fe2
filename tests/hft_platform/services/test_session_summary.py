"""Session summaries: evidence counts only with its hash, signature and schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hft_platform.config.keys import signing_key
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services.session_summary import sign_summary, verify_summary, write_summary


def evidence(**changes: Any) -> dict[str, Any]:
    """Evidence of a small session."""
    sha = "a" * 64
    return {
        "schema": 1, "run_id": "r", "alpha_id": "a", "alpha_hash": sha, "config_sha256": sha,
        "promotion_seq": 1, "stage": "shadow", "weight_ppm": 100_000, "mode": "paper",
        "symbol": "SIM_EDGE", "session_id": "2026-02-02/day", "trading_day": 20_260_202,
        "tape_sha256": sha, "latency_profile_sha256": sha, "queue_model": "power_prob3",
        "code_sha256": sha, "decisions_sha256": sha, "inputs_sha256": sha,
        "counts": {"records": 5, "decisions": 3, "approved": 2, "refused_by_code": {"213": 1},
                   "orders": 1, "broker_rejects": 0, "unknown": 0},
        "parity": {"identical": 3, "total": 3},
        "account": {"gross": 10, "fees": 4, "net": 6, "fill_count": 2, "round_trip_count": 1,
                    "max_drawdown": 0},
        "slippage_ticks": 0.5, "markout_ticks": {"1s": 0.1}, "order_latency_ms": {"p50": 36.0},
        "halted_by": 0,
    } | changes  # fmt: skip


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A signed summary on disk."""
    path = tmp_path / "summary.json"
    summary = sign_summary(evidence(), {"run_seconds": 1.5}, signing_key(tmp_path, "session"))
    write_summary(path, summary)
    return path


def test_a_signed_summary_is_read_back(written: Path, tmp_path: Path) -> None:
    read = verify_summary(written, key=signing_key(tmp_path, "session").trusted)
    assert (read.account is not None and read.account.net) == 6
    assert read.counts.refused_by_code == {"213": 1}


def test_a_flip_of_any_byte_of_evidence_hash_or_signature_is_refused(
    written: Path, tmp_path: Path
) -> None:
    key = signing_key(tmp_path, "session").trusted
    raw = written.read_bytes()
    timings = raw.index(b'"timings"')
    for index in range(0, timings, 3):
        damaged = bytearray(raw)
        damaged[index] ^= 1
        written.write_bytes(bytes(damaged))
        with pytest.raises(PlatformError) as caught:
            verify_summary(written, key=key)
        assert caught.value.code == ReasonCode.SUMMARY_TAMPERED


def test_wall_clock_timings_are_no_evidence(tmp_path: Path) -> None:
    key = signing_key(tmp_path, "session")
    one, two = (sign_summary(evidence(), {"run_seconds": s}, key) for s in (1.0, 2.0))
    assert one["evidence_sha256"] == two["evidence_sha256"]
    assert one["signature"] == two["signature"]


def test_a_better_result_typed_in_is_refused_even_with_a_fresh_hash(
    written: Path, tmp_path: Path
) -> None:
    from hft_platform.config.canonical import canonical_sha256

    summary = json.loads(written.read_bytes())
    summary["evidence"]["account"] |= {"gross": 1004, "net": 1000}
    summary["evidence_sha256"] = canonical_sha256(summary["evidence"])
    write_summary(written, summary)
    with pytest.raises(PlatformError) as caught:
        verify_summary(written, key=signing_key(tmp_path, "session").trusted)
    assert "signature" in caught.value.message


def test_another_key_and_another_role_are_refused(written: Path, tmp_path: Path) -> None:
    for key in (signing_key(tmp_path / "other", "session"), signing_key(tmp_path, "audit")):
        with pytest.raises(PlatformError) as caught:
            verify_summary(written, key=key.trusted)
        assert caught.value.code == ReasonCode.SUMMARY_TAMPERED
    with pytest.raises(PlatformError) as caught:
        sign_summary(evidence(), {}, signing_key(tmp_path, "promotion"))
    assert caught.value.code == ReasonCode.KEY_ROLE_FORBIDDEN


@pytest.mark.parametrize(
    "changes",
    [
        {"stage": "gold"},
        {"counts": {}},
        {"trading_day": "20260202"},
        {"slippage_ticks": float("nan")},
        {"account": {"gross": 10, "fees": 4, "net": 7, "fill_count": 0, "round_trip_count": 0,
                     "max_drawdown": 0}},
    ],
)  # fmt: skip
def test_evidence_outside_its_schema_is_not_signed(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(PlatformError) as caught:
        sign_summary(evidence(**changes), {}, signing_key(tmp_path, "session"))
    assert caught.value.code == ReasonCode.INVARIANT_BROKEN


def test_what_could_not_be_measured_is_null_and_not_zero(tmp_path: Path) -> None:
    key = signing_key(tmp_path, "session")
    write_summary(
        tmp_path / "s.json",
        sign_summary(evidence(slippage_ticks=None, account=None, parity=None), {}, key),
    )
    read = verify_summary(tmp_path / "s.json", key=key.trusted)
    assert (read.slippage_ticks, read.account, read.parity) == (None, None, None)
