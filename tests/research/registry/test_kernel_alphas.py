"""Alphas with a kernel: their folder, their identity, and that the gates take them as they are."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml

from hft_platform.config.canonical import sha256_hex
from hft_platform.config.engine_config import AlphaSpec, build_engine_config
from hft_platform.config.settings import load_settings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import load_instruments
from hft_platform.market.sessions import sessions_for
from research import registry
from research.gates.look_ahead import find_look_ahead
from research.gates.sandbox import USUAL, run_alpha_tests, signal_in_process
from research.gates.signals import (
    batch_rows,
    compare_batch_with_incremental,
    signal_config,
    signal_sha256,
)
from research.gates.thresholds import load_thresholds
from tests.rust_core.market_days import DAY_OPEN_NS, SCALE, synthetic_day

FOLDER = registry.bundled_folder() / "txf_online_taker"


@cache
def day() -> bytes:
    return synthetic_day(snapshots=2_000)


def edited(tmp_path: Path, *, swap: tuple[str, str] | None = None, **fields: object) -> Path:
    """A copy of the bundled alpha with changed fields; None takes one out."""
    folder = tmp_path / "txf_online_taker"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    content = yaml.safe_load((folder / "manifest.yaml").read_text())
    for name, value in fields.items():
        if value is None:
            del content[name]
        else:
            content[name] = value
    (folder / "manifest.yaml").write_text(yaml.safe_dump(content))
    if swap is not None:
        text = (folder / "kernel.py").read_text()
        assert swap[0] in text
        (folder / "kernel.py").write_text(text.replace(*swap))
    return folder


def refusal(folder: Path) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        registry.check_expression(registry.load_alpha(folder))
    return caught.value


def config_of(alpha: registry.Alpha) -> dict[str, object]:
    instrument = load_instruments().by_symbol("TXFD6")
    session = sessions_for(instrument, DAY_OPEN_NS, DAY_OPEN_NS + 3_600_000_000_000)[0]
    settings = load_settings()
    return signal_config(
        alpha.manifest,
        instrument,
        session,
        account_limits=settings.account_limits(),
        storm_guard=settings.storm_guard(),
    )


def test_the_bundled_kernel_says_what_it_reads_and_needs():
    found = registry.check_expression(registry.load_alpha(FOLDER))
    assert found["features"] == ["ofi_l1_1s", "imbalance_l1", "return_10s"]
    assert found["memory_bytes"] == 8 * (3 + 1 + 28)
    assert found["operations"] > 20


def test_the_alphas_hash_covers_the_kernels_text_compiler_and_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from hft_platform import kernels
    from hft_platform.kernels import compiled

    before = registry.load_alpha(FOLDER)
    assert registry.load_alpha(edited(tmp_path / "same")).key == before.key
    changed = registry.load_alpha(edited(tmp_path / "text", swap=("0.25 *", "0.26 *")))
    assert changed.alpha_hash != before.alpha_hash
    assert changed.program_sha256 != before.program_sha256
    machine = {**compiled.compiler(), "cpu": "another"}
    monkeypatch.setattr(compiled, "compiler", lambda: machine)
    kernels.kernel_of_source.cache_clear()
    assert registry.load_alpha(FOLDER).alpha_hash != before.alpha_hash
    monkeypatch.undo()
    kernels.kernel_of_source.cache_clear()
    assert registry.load_alpha(FOLDER).alpha_hash == before.alpha_hash


@pytest.mark.parametrize(
    ("fields", "swap", "code", "said"),
    [
        ({"kernel": None}, None, ReasonCode.MANIFEST_INVALID, "an expression or a kernel"),
        ({"expression": "1.0"}, None, ReasonCode.MANIFEST_INVALID, "an expression or a kernel"),
        ({"kernel": "other"}, None, ReasonCode.MANIFEST_INVALID, "kernel.py has online_flow"),
        ({"kernel_source": "x = 1"}, None, ReasonCode.MANIFEST_INVALID, "read from kernel.py"),
        ({}, ('("rate",)', '("speed",)'), ReasonCode.MANIFEST_INVALID, "no parameter speed"),
        ({}, ('("rate",)', "()"), ReasonCode.MANIFEST_INVALID, "rate is used nowhere"),
        ({}, ("now_s = ", "while True: "), ReasonCode.KERNEL_MALFORMED, "while loop"),
        ({}, ('"imbalance_l1"', '"imbalance_l9"'), ReasonCode.UNKNOWN_FEATURE, "imbalance_l9"),
        ({}, ("return 1", "raise ValueError"), ReasonCode.KERNEL_CAN_RAISE, "raises"),
        ({}, ("state[COUNT] += 1.0", "state[99] += 1.0"), ReasonCode.KERNEL_CAN_RAISE, "raises"),
    ],
)
def test_a_folder_that_does_not_hold_together_is_refused(
    tmp_path: Path, fields: dict, swap: tuple[str, str] | None, code: ReasonCode, said: str
):
    error = refusal(edited(tmp_path, swap=swap, **fields))
    assert error.code == code, error.message
    assert said in error.message


def test_a_kernel_file_that_no_manifest_names_is_refused(tmp_path: Path):
    folder = tmp_path / "txf_ofi_taker"
    shutil.copytree(registry.bundled_folder() / "txf_ofi_taker", folder)
    (folder / "kernel.py").write_text("GAIN = 1.0\n")
    error = refusal(folder)
    assert error.code == ReasonCode.MANIFEST_INVALID
    assert "name its function" in error.message
    (tmp_path / "missing").mkdir()
    gone = edited(tmp_path / "missing")
    (gone / "kernel.py").unlink()
    assert "kernel.py" in refusal(gone).message


def test_gate_a_finds_no_look_ahead_and_batch_equals_record_by_record():
    config = config_of(registry.load_alpha(FOLDER))
    found = find_look_ahead(
        day(),
        lambda part: batch_rows(part, config),
        cuts=5,
        price_shift=7 * SCALE,
        lot_size=SCALE,
    )
    assert found.rows > 1_000
    assert (found.truncated_mismatches, found.perturbed_mismatches) == (0, 0)
    rows, mismatches = compare_batch_with_incremental(day(), config)
    assert (rows, mismatches) == (2_000, 0)
    assert np.isfinite(batch_rows(day(), config)["signal"]).mean() > 0.5


def test_gate_b_runs_its_tests_and_computes_its_signal_in_another_process(tmp_path: Path):
    alpha, limits = registry.load_alpha(FOLDER), load_thresholds().gate_b
    run, _ = run_alpha_tests(alpha, limits)
    assert (run.passed, run.failed, run.errors, run.ended) == (5, 0, 0, "finished")
    config = config_of(alpha)
    fresh = signal_in_process(alpha, day(), limits, engine_config=config, surroundings=USUAL).sha256
    expected = f"{alpha.alpha_hash}{signal_sha256(day(), config)}"
    assert fresh == sha256_hex(expected.encode())


def test_the_placebo_of_gate_c_is_the_exact_opposite():
    manifest = registry.load_alpha(FOLDER).manifest
    instrument = load_instruments().by_symbol("TXFD6")
    session = sessions_for(instrument, DAY_OPEN_NS, DAY_OPEN_NS + 3_600_000_000_000)[0]
    content = manifest.model_dump(mode="json")
    signals = []
    for sign in (1, -1):
        spec = AlphaSpec.from_manifest(
            {**content, "kernel_sign": sign}, manifest.defaults(), instrument
        )
        config = build_engine_config(
            [spec],
            instruments=[instrument],
            session=session,
            account_limits=load_settings().account_limits(),
            storm_guard=load_settings().storm_guard(),
        )
        signals.append(batch_rows(day(), config)["signal"])
    np.testing.assert_array_equal(signals[0], -signals[1])
    assert (signals[0][np.isfinite(signals[0])] != 0.0).any()
