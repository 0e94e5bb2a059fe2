"""An audit chain that cannot be written: nothing adds risk, everything that takes it away works."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hft_platform.config.canonical import atomic_write
from hft_platform.config.keys import make_key
from hft_platform.config.promotion_folder import promotions_root, withdrawn_seq
from hft_platform.config.settings import load_settings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services import latch
from research.gates.verdict import GATES, GateVerdict, reason, verdict_folder
from research.promotion import audit, on_record
from research.promotion.approve import approval_path, approve
from research.promotion.promote import run_canary
from research.promotion.sign import SignerContext
from research.promotion.withdrawal import reduce_weight, withdraw

Broken = Callable[[Any], Any]


@contextmanager
def quota_reached(bench: Any) -> Iterator[None]:
    """A real limit of file size, which the next entry crosses in its middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = audit.chain_path(bench.ws).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def read_only(bench: Any) -> Iterator[None]:
    """The chain's file cannot be opened for writing."""
    real = os.open

    def refusing(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if str(path) == str(audit.chain_path(bench.ws)) and flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *more, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", refusing)
        yield


@contextmanager
def sync_fails(bench: Any) -> Iterator[None]:
    """The bytes are taken, the disk does not acknowledge them."""
    real = os.fsync

    def refusing(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink() == audit.chain_path(bench.ws).resolve():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", refusing)
        yield


@contextmanager
def key_gone(bench: Any) -> Iterator[None]:
    """The private audit key was lost; its public half is there."""
    path = bench.ws / "keys" / "audit.key"
    kept = path.read_bytes()
    path.unlink()
    try:
        yield
    finally:
        path.write_bytes(kept)
        path.chmod(0o600)


@contextmanager
def head_fails(bench: Any) -> Iterator[None]:
    """The entry is on disk; there is no space for the head."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "atomic_write", full)
        yield


FAILURES = pytest.mark.parametrize(
    "broken", [quota_reached, read_only, sync_fails, key_gone, head_fails]
)
CODES = {ReasonCode.WAL_WRITE_FAILED, ReasonCode.KEY_MISSING}


def code_of(call: Any, *arguments: Any, **named: Any) -> int:
    with pytest.raises(PlatformError) as caught:
        call(*arguments, **named)
    return caught.value.code


@pytest.fixture
def canary(bench: Any) -> Any:
    """A bench with a canary in force."""
    bench.write_gates()
    bench.sign("canary")
    return bench


@FAILURES
def test_a_promotion_waits_for_its_record(canary: Any, broken: Broken, tmp_path: Path) -> None:
    before = audit.verify_chain(canary.ws)
    withdraw(canary.ws, canary.alpha.alpha_id, by="t", why="so that a new issue is due")
    issues = sorted(promotions_root(canary.ws).rglob("*.yaml"))
    with broken(canary):
        assert code_of(canary.sign, "canary") in CODES
        assert sorted(promotions_root(canary.ws).rglob("*.yaml")) == issues
    # What could not be written left nothing behind, and the next one goes through.
    assert len(audit.verify_chain(canary.ws)) == len(before) + 1
    done = canary.sign("canary")
    assert done.is_new
    assert audit.verify_chain(canary.ws)[-1].record["facts"]["config_sha256"] == done.sha256


@FAILURES
def test_a_stop_goes_through_whatever_the_audit_chain_cannot_do(
    canary: Any, broken: Broken
) -> None:
    alpha_id = canary.alpha.alpha_id
    with broken(canary):
        lowered = reduce_weight(canary.ws, alpha_id, weight_ppm=10_000, by="t", why="w")
        assert (lowered.weight_ppm, bool(lowered.audit_problem)) == (10_000, True)
        done = withdraw(canary.ws, alpha_id, by="t", why="w")
        assert done.is_new
        assert done.audit_problem
        assert withdrawn_seq(promotions_root(canary.ws), alpha_id) == done.promotion_seq
        latch.halt(canary.ws, who="t", why="w")
        assert latch.read(canary.ws) is not None
    assert audit.verify_chain(canary.ws)


@FAILURES
def test_a_canary_that_fails_is_rolled_back_without_a_record(canary: Any, broken: Broken) -> None:
    for index in range(10, 14):
        canary.run_session(index, share=-3.0)
    with broken(canary):
        run_canary(canary.ws, canary.alpha, by="sensor", config_dir=canary.config_dir)
        assert withdrawn_seq(promotions_root(canary.ws), canary.alpha.alpha_id) == 1


@FAILURES
def test_a_verdict_without_its_record_is_not_its_gates_newest(bench: Any, broken: Broken) -> None:
    bench.write_gates(GATES[:1])
    # Longer than a verdict, so that a limit of file size stops the chain and not the verdict.
    on_record.record_override(bench.ws, subject="s", by="t", why="w" * 8000, facts={})
    head = verdict_folder(bench.ws, bench.alpha.key) / "gate_a.head"
    kept = head.read_bytes()
    with broken(bench):
        changes = {
            "verdict": GateVerdict.FAILED, "reasons": (reason(701, "too small"),),
        }  # fmt: skip
        assert code_of(bench.write_gates, GATES[:1], **changes) in CODES
    assert head.read_bytes() == kept
    assert len(audit.verify_chain(bench.ws)) == 2


@FAILURES
def test_thresholds_and_approvals_wait_for_their_record(
    bench: Any, broken: Broken, tmp_path: Path
) -> None:
    bench.write_gates()
    bench.sign("shadow")
    key = make_key(tmp_path / "second" / "approval.key", role="approval")
    (tmp_path / "pins").write_text(f"approval {key.public_hex}\n")
    settings = load_settings(
        bench.config_dir, environment={"HFT_PINNED_KEYS_FILE": str(tmp_path / "pins")}
    )
    bench.context = SignerContext(bench.ws, settings, bench.alphas, bench.config_dir)
    with broken(bench):
        code = code_of(
            on_record.record_thresholds, bench.ws, "gates.yaml", "0" * 64, by="t", why="w"
        )
        assert code in CODES
        code = code_of(
            approve, bench.ws, bench.alpha, stage="canary", by="second", why="w",
            key_file=tmp_path / "second" / "approval.key", weight_ppm_max=1_000_000,
            pinned_file=tmp_path / "pins", config_dir=bench.config_dir,
        )  # fmt: skip
        assert code in CODES
    assert not approval_path(bench.ws, bench.alpha.key, "canary").exists()
    assert code_of(bench.sign, "canary") == ReasonCode.PROMOTION_NOT_APPROVED


def test_an_entry_whose_head_is_in_place_stays_whatever_fails_after_it(
    canary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taking the entry off would leave a head that names nothing."""
    before = len(audit.verify_chain(canary.ws))

    def late(path: Path, content: bytes) -> None:
        atomic_write(path, content)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(audit, "atomic_write", late)
        code = code_of(on_record.record_override, canary.ws, subject="s", by="t", why="w", facts={})
    assert code == ReasonCode.WAL_WRITE_FAILED
    assert len(audit.verify_chain(canary.ws)) == before + 1


def test_a_withdrawal_on_a_disk_without_a_byte_left_is_an_empty_file(
    canary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from research.promotion import withdrawal

    def full(*_: Any, **__: Any) -> bool:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(withdrawal, "write_once", full)
    done = withdraw(canary.ws, canary.alpha.alpha_id, by="t", why="w")
    assert done.path.read_bytes() == b""
    assert withdrawn_seq(promotions_root(canary.ws), canary.alpha.alpha_id) == 1
    assert code_of(canary.sign, "canary") == ReasonCode.CONFIG_WITHDRAWN
