"""Lead for strategy runners: `hft-live gateway run` and `status`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hft_platform.commands.output import print_result
from hft_platform.errors import PlatformError, ReasonCode

if TYPE_CHECKING:
    from hft_platform.gateway.gateway_service import GatewayService
    from hft_platform.market.instruments import Instrument
    from hft_platform.order.broker import Broker


def gateway(arguments: argparse.Namespace) -> int:
    """Run a gateway, or say who leads."""
    return _run(arguments) if arguments.action == "run" else _status(arguments)


def _run(arguments: argparse.Namespace) -> int:
    from hft_platform.services.premarket import require_live_enabled, require_release_build
    from hft_platform.services.workspace_lock import WorkspaceShare

    if not arguments.alpha:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            "a gateway needs the alphas it serves",
            next_step="hft-live gateway run --alpha ID [--alpha ID]",
        )
    require_live_enabled(os.environ)
    require_release_build()
    with WorkspaceShare(arguments.workspace):
        return _lead(arguments)


def _lead(arguments: argparse.Namespace) -> int:
    import time

    from hft_platform.commands.live import shioaji_broker
    from hft_platform.config.settings import load_settings
    from hft_platform.gateway.gateway_service import FOLDER, GatewayClocks, GatewayService
    from hft_platform.gateway.lease import boottime_ns
    from hft_platform.gateway.order_log import last_epoch
    from hft_platform.gateway.process import GatewayProcess, stop_on_signals
    from hft_platform.services import latch
    from hft_platform.services.gateway_plane import LivePlane
    from hft_platform.services.gateway_start import (
        broker_factory,
        channel_limits,
        gateway_lease,
        gateway_parts,
    )

    latch.require_clear(arguments.workspace)
    settings = load_settings()

    def shioaji(instruments: Mapping[int, Instrument]) -> Broker:
        return shioaji_broker(settings, instruments, arguments.workspace)

    parts = gateway_parts(
        arguments.workspace,
        arguments.alpha,
        settings,
        make_broker=broker_factory(arguments.broker) if arguments.broker else shioaji,
        mode="live",
        clock_ns=time.time_ns,
    )
    service = GatewayService(
        arguments.workspace / FOLDER,
        gateway_lease(arguments.workspace, settings),
        last_epoch=lambda: last_epoch(parts.session_dir / "orders"),
        make_plane=lambda epoch, fence: LivePlane(parts, epoch, fence),
        limits=channel_limits(settings),
        clocks=GatewayClocks(time.time_ns, boottime_ns),
    )

    def say(state: str, service: GatewayService) -> None:
        content = {"state": state, "epoch": service.facts()["epoch"]}
        print_result(arguments, content, lambda: f"{state}, epoch {content['epoch']}")
        sys.stdout.flush()

    process = GatewayProcess(service, on_state=say)
    if process.run(stop_on_signals()):
        return 0
    if isinstance(process.failure, PlatformError):
        raise process.failure
    raise PlatformError(
        ReasonCode.INVARIANT_BROKEN, f"a loop of the gateway failed: {process.failure!r:.300}"
    )


def _status(arguments: argparse.Namespace) -> int:
    import json

    from hft_platform.gateway.gateway_service import FOLDER, STATUS_FILE
    from hft_platform.gateway.lease import LEASE_FILE, boot_id, boottime_ns, read_lease

    folder = arguments.workspace / FOLDER
    lease = read_lease(folder / LEASE_FILE)
    content: dict[str, Any] = {"lease": None, "gateway": None}
    if lease is not None:
        is_led = lease.pid != 0 and lease.boot == boot_id()
        content["lease"] = {
            "epoch": lease.epoch,
            "pid": lease.pid,
            "heartbeat_age_ms": (boottime_ns() - lease.heartbeat_ns) // 1_000_000
            if is_led
            else None,
            "beats": lease.beats,
        }
    try:
        content["gateway"] = json.loads((folder / STATUS_FILE).read_bytes())
    except FileNotFoundError:
        content["gateway"] = None

    def text() -> str:
        if content["lease"] is None:
            return "no gateway ever led here\nnext: hft-live gateway run"
        row, told = content["lease"], content["gateway"]
        if row["pid"] == 0:
            head = f"nobody leads; the last epoch was {row['epoch']}\nnext: hft-live gateway run"
        elif row["heartbeat_age_ms"] is None:
            head = (
                f"nobody leads: process {row['pid']} of epoch {row['epoch']} ended with the machine"
            )
        else:
            head = (
                f"process {row['pid']} leads epoch {row['epoch']},"
                f" last sign of life {row['heartbeat_age_ms']} ms ago"
            )
        if told is None:
            return head
        rejects = ", ".join(f"{name} {count}" for name, count in told["rejects"].items())
        return "\n".join(
            [
                head,
                f"  {told['state']}; runners: {', '.join(told['runners']) or 'none'}",
                f"  intents {told['intents']}, taken {told['acks']}, repeated {told['dedup_hits']}",
                f"  refused: {rejects or 'none'}",
                f"  dead letters: {sum(told['dead_letters'].values())},"
                f" orders canceled for absent runners: {told['orders_canceled']}",
            ]
        )

    print_result(arguments, content, text)
    return 0
