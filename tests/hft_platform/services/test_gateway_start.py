"""From permits to a gateway and to a runner's way to it, and the commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hft_platform import cli
from hft_platform.config.code_hash import code_sha256
from hft_platform.config.keys import KeyRing
from hft_platform.config.promoted import PromotedConfig
from hft_platform.config.promotion_folder import head_config
from hft_platform.config.settings import Settings, load_settings
from hft_platform.drills.gateway_session import FileBroker, book_record
from hft_platform.drills.market import ALPHA_ID, SYMBOL, TAKER, make_workspace, market_session
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.execution.order_ids import OrderIds
from hft_platform.gateway.gateway_service import GatewayClocks, GatewayService
from hft_platform.gateway.lease import LeaderLease, boottime_ns
from hft_platform.gateway.redis_lease import RedisLease
from hft_platform.market.instruments import load_instruments
from hft_platform.order.broker import OrderTicket, Outcome
from hft_platform.services import gateway_start
from hft_platform.services.gateway_plane import LivePlane, PlaneParts
from hft_platform.services.gateway_start import (
    broker_factory,
    channel_limits,
    gateway_broker,
    gateway_lease,
    gateway_parts,
    runner_broker,
)
from tests.hft_platform.gateway.channel_gateway import until
from tests.hft_platform.order.test_gateway_broker import Heard

NS = 1_000_000_000
PRICE = 2_000_000_000_000


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gateway") / "ws"
    make_workspace(folder, 1, book_count=20, template=TAKER)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(tmp_path, environment={})


class Clock:
    """Ten seconds into the drill's session, going."""

    def __init__(self) -> None:
        self.now_ns = market_session()[1].start_ns + 10 * NS

    def __call__(self) -> int:
        self.now_ns += 1_000
        return self.now_ns


def parts_of(workspace: Path, settings: Settings, clock: Clock, **changes: Any) -> PlaneParts:
    return gateway_parts(
        workspace, changes.pop("alphas", [ALPHA_ID]), settings,
        make_broker=lambda _: FileBroker(workspace, 1, clock_ns=clock, call_s=0.0),
        mode="paper", clock_ns=clock, **changes,
    )  # fmt: skip


def test_a_permit_becomes_a_remote_alpha(workspace: Path, settings: Settings) -> None:
    parts = parts_of(workspace, settings, Clock())
    (alpha,) = parts.engine_config["alphas"]
    assert alpha["template"] == {"kind": "remote", "slippage_ticks": 2}
    assert "expression" not in alpha
    served = parts.alphas[ALPHA_ID]
    assert served.config_sha256.hex() == alpha["config_sha256"]
    assert parts.session_dir.name == "2026-01-05_day-gateway"
    # The same files give the same gateway, whoever starts it.
    again = parts_of(workspace, settings, Clock())
    assert again.engine_config == parts.engine_config
    assert again.alphas == parts.alphas


def test_an_alpha_without_a_permit_and_a_permit_that_ran_out_are_refused(
    workspace: Path, settings: Settings, tmp_path: Path
) -> None:
    workspace = shutil.copytree(workspace, tmp_path / "ws")
    with pytest.raises(PlatformError) as raised:
        parts_of(workspace, settings, Clock(), alphas=["nobody"])
    assert raised.value.code == ReasonCode.CONFIG_NOT_FOUND
    later = Clock()
    later.now_ns += 40 * 86_400 * NS
    with pytest.raises(PlatformError) as raised:
        parts_of(workspace, settings, later)
    assert raised.value.code == ReasonCode.CONFIG_EXPIRED
    # A clock that is set back makes no permit valid again.
    with pytest.raises(PlatformError) as raised:
        parts_of(workspace, settings, Clock())
    assert raised.value.code == ReasonCode.CLOCK_WENT_BACK


def test_a_session_that_began_with_other_alphas_is_not_continued(
    workspace: Path, settings: Settings
) -> None:
    parts = parts_of(workspace, settings, Clock())
    path = parts.session_dir / "engine.json"
    content = json.loads(path.read_bytes())
    content["alphas"][0]["alpha_id"] = "another"
    path.chmod(0o644)
    path.write_text(json.dumps(content))
    try:
        with pytest.raises(PlatformError) as raised:
            parts_of(workspace, settings, Clock())
        assert raised.value.code == ReasonCode.SETTINGS_INVALID
    finally:
        path.unlink()


class Serving:
    """A gateway of the workspace, stepped from a thread."""

    def __init__(self, workspace: Path, settings: Settings) -> None:
        self.clock = Clock()
        parts = parts_of(workspace, settings, self.clock)
        self.planes: list[LivePlane] = []

        def make(epoch: int, fence: Any) -> LivePlane:
            self.planes.append(LivePlane(parts, epoch, fence))
            return self.planes[-1]

        folder = workspace / "gateway"
        self.service = GatewayService(
            folder, LeaderLease(folder), last_epoch=lambda: 0, make_plane=make,
            limits=channel_limits(settings), clocks=GatewayClocks(self.clock, boottime_ns),
        )  # fmt: skip
        assert self.service.stand_by(0.0)
        self.service.take_over()
        number = next(iter(parts.instruments))
        self.planes[0].on_market(book_record(number, self.clock(), PRICE))
        self.parts = parts
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.service.step_channel(0.005)
            self.service.step_dispatch(0)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.service.close(is_orderly=True)


@pytest.fixture
def serving(workspace: Path, settings: Settings) -> Iterator[Serving]:
    made = Serving(workspace, settings)
    yield made
    made.close()


def test_a_runner_with_the_same_permit_trades_through_the_gateway(
    workspace: Path, settings: Settings, serving: Serving
) -> None:
    config = PromotedConfig.load_verified(
        head_config(workspace, ALPHA_ID), workspace=workspace,
        trusted_keys=KeyRing.open(workspace).trusted(), mode="paper", now_ns=serving.clock(),
        symbol=SYMBOL, code_sha256=code_sha256(),
    )  # fmt: skip
    section = settings.gateway.model_copy(update={"enabled": True})
    enabled = settings.model_copy(update={"gateway": section})
    instruments = serving.parts.instruments

    def own() -> FileBroker:
        return FileBroker(workspace, 9, clock_ns=serving.clock, call_s=0.0)

    assert runner_broker(workspace, config, instruments, settings, make_broker=own).name == "file"
    broker = runner_broker(workspace, config, instruments, enabled, make_broker=own)
    heard = Heard()
    broker.connect(heard)
    try:
        result = broker.place(OrderTicket(1, "000001", SYMBOL, 1, PRICE, 100_000_000))
        assert result.outcome is Outcome.SENT, result
        until(lambda: bool(heard.fills or heard.orders), "the order's end")
        assert [order.tag for order in broker.orders()] == ["000001"]
        # The gateway's own names: by them the broker's answers find the order after a crash.
        ids = OrderIds.from_session(serving.planes[0].session)
        assert ids is not None
    finally:
        broker.close()
    other = gateway_broker(workspace, replace_hash(config), serving.parts.instruments, settings)
    other._connect_s = 1.0
    with pytest.raises(PlatformError) as raised:
        other.connect(Heard())
    assert raised.value.code == ReasonCode.CONFIG_EVIDENCE_MISMATCH


def replace_hash(config: PromotedConfig) -> PromotedConfig:
    return config.model_copy(update={"promotion_seq": config.promotion_seq + 1})


def test_the_lease_is_of_one_host_unless_a_redis_is_named(
    tmp_path: Path, settings: Settings
) -> None:
    assert isinstance(gateway_lease(tmp_path, settings), LeaderLease)
    secret = tmp_path / "password"
    secret.write_text("word\n")
    secret.chmod(0o600)
    section = settings.gateway.model_copy(
        update={"redis": "localhost:1", "redis_password_file": str(secret)}
    )
    both = settings.model_copy(update={"gateway": section})
    lease = gateway_lease(tmp_path, both)
    assert isinstance(lease, RedisLease)
    assert lease.try_acquire(lambda: 0) is None, "a Redis that is not there gives no lease"
    lease.release()
    secret.chmod(0o644)
    with pytest.raises(PlatformError) as raised:
        gateway_lease(tmp_path, both)
    assert raised.value.code == ReasonCode.KEY_PERMISSIONS


@pytest.mark.parametrize(
    "name", ["", "nothing", "no.such:function", "json:nothing", "json:decoder"]
)
def test_a_broker_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(PlatformError) as raised:
        broker_factory(name)
    assert raised.value.code == ReasonCode.SETTINGS_INVALID
    assert broker_factory("json:loads") is json.loads


def test_the_switch_has_its_own_variable(tmp_path: Path) -> None:
    for text, expected in (("1", True), ("0", False), ("true", True)):
        found = load_settings(tmp_path, environment={"HFT_GATEWAY_ENABLED": text})
        assert found.gateway.enabled is expected
    with pytest.raises(PlatformError):
        load_settings(tmp_path, environment={"HFT_GATEWAY_ENABLED": "2"})


def test_status_says_who_leads_and_that_nobody_does(
    workspace: Path, settings: Settings, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["gateway", "status", "--workspace", str(tmp_path)]) == 0
    assert "no gateway ever led here" in capsys.readouterr().out
    made = Serving(workspace, settings)
    try:
        assert cli.main(["gateway", "status", "--workspace", str(workspace)]) == 0
        assert f"process {os.getpid()} leads epoch" in capsys.readouterr().out
    finally:
        made.close()
    capsys.readouterr()
    assert cli.main(["gateway", "status", "--workspace", str(workspace), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["lease"]["pid"] == 0
    assert content["gateway"]["state"] == "ended"


def test_run_refuses_what_it_cannot_lead(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = ["gateway", "run", "--workspace", str(workspace)]
    assert cli.main(base) == 3
    assert "needs the alphas it serves" in capsys.readouterr().err
    arguments = [*base, "--alpha", ALPHA_ID, "--broker", "json:loads"]
    assert cli.main(arguments) == 3
    assert "LIVE_NOT_ENABLED" in capsys.readouterr().err
    monkeypatch.setenv("HFT_LIVE_ENABLED", "1")
    # The permit of this workspace is for the paper exchange, and for January 2026.
    assert cli.main(arguments) == 3
    assert "CONFIG_" in capsys.readouterr().err


def test_products_of_other_hours_do_not_share_a_gateway() -> None:
    table, day_ns = load_instruments(), 1_775_781_900_000_000_000
    futures, stock = table.by_symbol("TXFD6"), table.by_symbol("2330")
    assert gateway_start._session([futures, futures], day_ns).session_id.endswith("/day")
    with pytest.raises(PlatformError) as refused:
        gateway_start._session([futures, stock], day_ns)
    assert refused.value.code == ReasonCode.SETTINGS_INVALID
    assert "2330" in refused.value.message


def test_the_drills_gateway_ends_in_order_on_sigterm(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "hft_platform.drills.gateway_process", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    said = [process.stdout.readline().split()[0] for _ in range(3)]
    assert said == ["standby", "leads", "serving"]
    process.terminate()
    assert process.stdout.readline().split()[0] == "ended"
    assert process.wait(20) == 0
    process.stdout.close()
    assert not list((tmp_path / "session" / "orders").glob("*.open")), "the log is sealed"
