"""One kernel, everywhere the same bits: research loop, batch, record by record, session, replay."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hft_platform import _core, kernels, records
from hft_platform.config.canonical import canonical_json
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services.parity import parity_of, read_session, replay_session
from research.gates.signals import batch_rows, compare_batch_with_incremental
from tests.hft_platform.kernels.sources import FINE, around
from tests.rust_core.market_days import DAY_OPEN_NS, engine_config, synthetic_day
from tests.rust_core.test_simulation_venues import latency

PARAMETERS = {"gain": 3.0, "rate": 0.05}
GAP_BEFORE = 1 << 5


@cache
def fine() -> kernels.Kernel:
    return kernels.kernel_of_source(FINE)


@cache
def day() -> bytes:
    """A day with a gap in its middle, a crossed book and a print without a price."""
    parts = records.split(synthetic_day(snapshots=1_200))
    books, trades = parts["Book"].copy(), parts["Trade"].copy()
    books["flags"][700] |= GAP_BEFORE
    books["bid_price"][300, 0] = books["ask_price"][300, 0]
    trades["price"][400] = 0
    return _core.merge_tapes([books.tobytes(), trades.tobytes()])


def config_with(
    kernel: kernels.Kernel, *, kind: str = "taker", sign: int = 1, tape: bytes | None = None
) -> dict[str, Any]:
    config = engine_config(tape or day(), kind)
    alpha = config["alphas"][0]
    del alpha["expression"]
    alpha["kernel"] = kernels.kernel_config(kernel, sign=sign)
    alpha["parameters"] = dict(PARAMETERS)
    return config


def as_text(config: dict[str, Any]) -> str:
    return canonical_json(config).decode()


def calls_of(config: dict[str, Any]) -> tuple[np.ndarray, ...]:
    raw = _core.kernel_calls(day(), as_text(config), kernels=kernels.kernels_of(config))
    now_ns = np.frombuffer(raw[1], "<i8")
    return (
        np.frombuffer(raw[0], "<f8").reshape(now_ns.size, -1),
        now_ns,
        np.frombuffer(raw[2], "u1"),
        np.frombuffer(raw[3], "u1"),
    )


def test_the_research_loop_the_batch_and_the_engine_give_the_same_bits():
    config = config_with(fine())
    features, now_ns, is_reset, is_row = calls_of(config)
    assert is_reset.sum() == 2, "the start and the gap"
    assert is_row.sum() < is_row.size, "bad books and prints move the state too"
    values = fine().run(features, PARAMETERS, now_ns=now_ns, is_reset=is_reset)
    rows = batch_rows(day(), config)["signal"]
    assert np.isfinite(rows).sum() > 800
    assert values[is_row == 1].tobytes() == np.ascontiguousarray(rows).tobytes()
    compared, mismatches = compare_batch_with_incremental(day(), config)
    assert (compared, mismatches) == (rows.size, 0)


def test_a_kernel_called_with_anything_else_would_differ():
    config = config_with(fine())
    features, now_ns, _, is_row = calls_of(config)
    rows = batch_rows(day(), config)["signal"]
    without_gap = fine().run(features, PARAMETERS, now_ns=now_ns)
    assert (without_gap[is_row == 1] != rows).any(), "the reset matters"
    books_only = fine().run(features[is_row == 1], PARAMETERS, now_ns=now_ns[is_row == 1])
    assert (books_only != rows).any(), "calls between books matter"


def test_plain_python_computes_what_the_machine_code_computes():
    features, now_ns, is_reset, _ = calls_of(config_with(fine()))
    parameters = np.array([PARAMETERS["gain"], PARAMETERS["rate"]])
    state, out, values = np.zeros(2), np.zeros(1), np.full(now_ns.size, np.nan)
    for row in range(now_ns.size):
        if is_reset[row]:
            state[:] = 0.0
        if fine().function(features[row], parameters, state, out, now_ns[row], is_reset[row]) == 0:
            values[row] = out[0]
    machine = fine().run(features, PARAMETERS, now_ns=now_ns, is_reset=is_reset)
    assert values.tobytes() == machine.tobytes()


def run_session(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    (folder / "engine.json").write_bytes(canonical_json(config))
    session = _core.PaperSession(
        as_text(config),
        json.dumps(latency("drawn")),
        json.dumps({"queue_model": "power_prob3"}),
        str(folder),
        json.dumps({"wal_id": 77, "durable": "group"}),
        kernels.kernels_of(config),
    )
    session.feed(day())
    while not session.run(None, 5_000)["done"]:
        pass
    return session.finish()


@pytest.mark.parametrize("kind", ["taker", "maker"])
def test_a_session_is_decided_again_in_another_process(tmp_path: Path, kind: str):
    config = config_with(fine(), kind=kind)
    finished = run_session(tmp_path / "s", config)
    assert finished["counters"]["fills"] > 50
    backtest = _core.run_backtest(
        day(),
        as_text(config),
        json.dumps(latency("drawn")),
        json.dumps({"queue_model": "power_prob3"}),
        kernels=kernels.kernels_of(config),
    )
    logs = read_session(tmp_path / "s")
    assert backtest["decisions"] == logs.decisions
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from hft_platform.services.parity import replay_session\n"
        "report = replay_session(Path(sys.argv[1]))\n"
        "print(report.total, report.is_identical, report.decisions_sha256)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s")],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    here = parity_of(logs, config)
    assert done.stdout.split() == [str(here.total), "True", here.decisions_sha256]
    assert here.total > 100


def test_another_text_another_cpu_and_no_text_are_refused(tmp_path: Path):
    config = config_with(fine())
    run_session(tmp_path / "s", config)
    edited = json.loads(as_text(config))
    named = edited["alphas"][0]["kernel"]
    named["source"] = named["source"].replace("1e-3", "2e-3")
    with pytest.raises(PlatformError, match="its text was changed") as caught:
        replay_session(tmp_path / "s", engine_config=edited, write=False)
    assert caught.value.code == ReasonCode.KERNEL_MISMATCH
    moved = json.loads(as_text(config))
    moved["alphas"][0]["kernel"]["sha256"] = "0" * 64
    moved["alphas"][0]["kernel"]["compiler"] = "numba 0.1, a CPU of last year"
    with pytest.raises(PlatformError, match="a CPU of last year") as caught:
        replay_session(tmp_path / "s", engine_config=moved, write=False)
    assert caught.value.code == ReasonCode.KERNEL_MISMATCH
    bare = json.loads(as_text(config))
    del bare["alphas"][0]["kernel"]["source"]
    with pytest.raises(PlatformError, match="carries no text") as caught:
        replay_session(tmp_path / "s", engine_config=bare, write=False)
    assert caught.value.code == ReasonCode.KERNEL_MISSING


def test_the_hash_covers_text_sizes_compiler_and_cpu(monkeypatch: pytest.MonkeyPatch):
    from hft_platform.kernels import compiled

    before = fine().sha256
    text = FINE.replace("1e-3", "2e-3")
    assert kernels.kernel_of_source(text).sha256 != before
    for part in ("numba", "llvmlite", "cpu", "cpu_features"):
        changed = {**compiled.compiler(), part: "other"}
        monkeypatch.setattr(compiled, "compiler", lambda changed=changed: changed)
        kernels.kernel_of_source.cache_clear()
        assert kernels.kernel_of_source(FINE).sha256 != before, part
        monkeypatch.undo()
    kernels.kernel_of_source.cache_clear()
    assert kernels.kernel_of_source(FINE).sha256 == before


def engine_refusal(config: dict[str, Any], given: list[Any]) -> tuple[int, str]:
    with pytest.raises(_core.ConfigError) as caught:
        _core.Engine(as_text(config), given)
    code, message = caught.value.args
    return code, message


def test_an_engine_is_not_made_without_the_kernel_its_config_names():
    config = config_with(fine())
    assert engine_refusal(config, [])[0] == ReasonCode.KERNEL_MISSING
    handle = fine().handle
    other = _core.KernelHandle(
        "squashed", "0" * 64, 1, features=["imbalance_l1"], parameters=[], state_count=0
    )
    code, message = engine_refusal(config, [other])
    assert code == ReasonCode.KERNEL_MISMATCH
    assert handle.sha256 in message
    for change in ({"state_count": 1}, {"features": ["return_1s"]}, {"parameters": ["gain"]}):
        wrong = json.loads(as_text(config))
        wrong["alphas"][0]["kernel"] |= change
        assert engine_refusal(wrong, [handle])[0] == ReasonCode.KERNEL_MALFORMED
    for change in ({"sign": 2}, {"features": []}, {"parameters": ["absent"]}, {"id": ""}):
        wrong = json.loads(as_text(config))
        wrong["alphas"][0]["kernel"] |= change
        assert engine_refusal(wrong, [handle])[0] == ReasonCode.CONFIG_MALFORMED
    for change in ({"expression": "1.0"}, {"kernel": None}):
        wrong = json.loads(as_text(config))
        wrong["alphas"][0] |= change
        code, message = engine_refusal(wrong, [handle])
        assert code == ReasonCode.CONFIG_MALFORMED
        assert "one of expression and kernel" in message


def test_a_config_holds_no_address_and_is_the_same_in_every_process():
    text = as_text(config_with(fine()))
    assert str(fine().compiled.address) not in text
    code = (
        "from hft_platform import kernels\n"
        "from hft_platform.config.canonical import canonical_json\n"
        f"kernel = kernels.kernel_of_source({FINE!r})\n"
        "print(canonical_json(kernels.kernel_config(kernel)).decode())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() in text


def test_the_placebo_is_the_exact_opposite():
    rows = batch_rows(day(), config_with(fine()))["signal"]
    flipped = batch_rows(day(), config_with(fine(), sign=-1))["signal"]
    np.testing.assert_array_equal(rows, -flipped)


def faults(source: str) -> tuple[dict[int, int], np.ndarray, int]:
    kernel = kernels.kernel_of_source(source)
    config = config_with(kernel)
    engine = _core.Engine(as_text(config), kernels.kernels_of(config))
    engine.on_tape(day())
    counters = engine.counters()
    return counters["signal_faults"], batch_rows(day(), config)["signal"], counters["nan_signals"]


def test_a_status_and_a_value_that_is_not_finite_become_nan_with_their_codes():
    counted, rows, nans = faults(around("out[0] = 1.0\nif features[0] > 0.0:\n    return 7"))
    status = int(ReasonCode.KERNEL_STATUS)
    assert set(counted) == {status}
    assert 100 < counted[status] == nans
    assert set(rows[np.isfinite(rows)]) == {1.0}
    assert np.isnan(rows).any()
    counted, rows, nans = faults(around("out[0] = 1.0 / 0.0 * features[0]", name="infinite"))
    assert set(counted) == {int(ReasonCode.KERNEL_NOT_FINITE)}
    assert np.isnan(rows).all()
    counted, rows, _ = faults(around("state[0] = features[0]", name="silent"))
    assert set(counted) == {int(ReasonCode.KERNEL_NOT_FINITE)}, "it wrote no value"
    assert np.isnan(rows).all()


def test_a_nan_never_becomes_an_order(tmp_path: Path):
    config = config_with(kernels.kernel_of_source(around("out[0] = features[0] / 0.0")))
    finished = run_session(tmp_path / "s", config)
    assert finished["counters"]["approved"] == 0
    assert finished["counters"]["signal_faults"]


def test_time_and_reset_reach_the_kernel_as_the_record_says():
    body = (
        "if is_reset == 1:\n    state[0] = float(now_ns - 1775781900000000000)\nout[0] = state[0]"
    )
    config = config_with(kernels.kernel_of_source(around(body, name="since")))
    rows = batch_rows(day(), config)
    first = float(calls_of(config)[1][0] - DAY_OPEN_NS)
    assert set(rows["signal"][:600]) == {first}
    assert rows["signal"][-1] > first, "from the gap on it is the gap's time"
