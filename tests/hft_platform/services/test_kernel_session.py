"""A signed config with a kernel: traded, watched over the bus, explained, replayed, refused."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from hft_platform import _core, kernels
from hft_platform.config.canonical import canonical_json
from hft_platform.config.settings import load_settings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import load_instruments
from hft_platform.services.bus_monitor import BusMonitor
from hft_platform.services.explain import explain_order, list_orders
from hft_platform.services.parity import replay_session
from hft_platform.services.session_runner import run_session
from tests.hft_platform.services.live_workspace import Live, make_live

SOURCE = '''"""A squashed mean of the imbalance."""

from hft_platform.kernels import kernel, math


@kernel(features=("imbalance_ema_2s",), parameters=("k",), state_count=1)
def squashed(features, parameters, state, out, now_ns, is_reset):
    if features[0] - features[0] != 0.0:
        return 1
    state[0] += 1.0
    out[0] = parameters[0] * math.tanh(2.0 * features[0])
    return 0
'''


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Live:
    return make_live(tmp_path_factory.mktemp("kernel_session"))


def named() -> dict[str, object]:
    return kernels.kernel_config(kernels.kernel_of_source(SOURCE))


@pytest.fixture(scope="module")
def traded(live: Live) -> tuple[Path, BusMonitor]:
    """A session of a signed kernel, watched by a monitor on a thread of its own."""
    config = live.issue(expression="", kernel=named())
    bus = _core.Bus(1 << 14)
    monitor = BusMonitor(bus.reader())

    def follow() -> None:
        while monitor.follow(30.0):
            continue

    watching = threading.Thread(target=follow)
    watching.start()
    outcome = run_session(
        live.request(config),
        instruments=load_instruments(),
        settings=load_settings(live.ws / "no-config", environment={}),
        bus=bus,
    )
    watching.join(timeout=30.0)
    assert not watching.is_alive()
    assert outcome.parity.is_identical
    return outcome.session_dir, monitor


def test_a_signed_kernel_trades_and_its_folder_replays(traded: tuple[Path, BusMonitor]):
    session_dir, _ = traded
    report = replay_session(session_dir, write=False)
    assert report.is_identical
    assert report.total > 20
    config = json.loads((session_dir / "engine.json").read_bytes())
    assert config["alphas"][0]["kernel"]["source"] == SOURCE
    assert "expression" not in config["alphas"][0]


def test_a_monitor_counts_what_the_session_logged(traded: tuple[Path, BusMonitor]):
    session_dir, monitor = traded
    report = replay_session(session_dir, write=False)
    assert monitor.lost == 0
    assert monitor.by_type["Decision"] == report.total
    assert monitor.approved + sum(monitor.refusals.values()) == report.total
    assert monitor.fills > 10
    assert monitor.by_type["Book"] > 2_000
    inputs = sum(count for name, count in monitor.by_type.items() if name != "Decision")
    assert monitor.last_input_seq == inputs


def test_a_monitor_that_slept_says_what_it_missed():
    bus = _core.Bus(64)
    monitor = BusMonitor(bus.reader())
    from tests.rust_core.market_days import synthetic_day

    bus.publish(synthetic_day(snapshots=200))
    assert monitor.poll() == 64
    assert monitor.lost == 400 - 64


def test_an_order_of_a_kernel_is_explained(traded: tuple[Path, BusMonitor]):
    session_dir, _ = traded
    order = list_orders(session_dir)[0]["order_id"]
    explained = explain_order(session_dir, order)
    assert list(explained.features) == ["imbalance_ema_2s"]
    text = explained.render()
    assert "kernel squashed = " in text
    assert "    wanted    taker enters when" in text
    assert "    differs" not in text


def test_a_config_signed_for_another_machine_leaves_no_session(live: Live):
    before = sorted((live.ws / "sessions").glob("*"))
    elsewhere = named() | {"sha256": "5" * 64, "compiler": "numba of another machine"}
    config = live.issue(expression="", kernel=elsewhere, promotion_seq=2)
    with pytest.raises(PlatformError, match="numba of another machine") as caught:
        live.run(config)
    assert caught.value.code == ReasonCode.KERNEL_MISMATCH
    assert sorted((live.ws / "sessions").glob("*")) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"expression": "k * imbalance_l1", "kernel": None, "template": {"kind": "external"}},
        {"expression": "", "kernel": None},
        {"expression": "1.0", "kernel": "named"},
        {"expression": "", "kernel": {"id": "squashed"}},
    ],
)
def test_a_config_without_one_signal_is_malformed(live: Live, changes: dict[str, object]):
    if changes["kernel"] == "named":
        changes = changes | {"kernel": named()}
    config = live.issue(promotion_seq=3, **changes)
    with pytest.raises(PlatformError) as caught:
        live.run(config)
    assert caught.value.code == ReasonCode.CONFIG_MALFORMED


def test_an_edited_kernel_in_the_session_folder_is_refused(traded: tuple[Path, BusMonitor]):
    session_dir, _ = traded
    config = json.loads((session_dir / "engine.json").read_bytes())
    config["alphas"][0]["kernel"]["source"] = SOURCE.replace("2.0 *", "2.1 *")
    with pytest.raises(PlatformError) as caught:
        replay_session(session_dir, engine_config=json.loads(canonical_json(config)), write=False)
    assert caught.value.code == ReasonCode.KERNEL_MISMATCH
