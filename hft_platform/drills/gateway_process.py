"""A gateway process of a drill: standby or leader over a drill's session, killed by whoever wants.

Invariants:
1. It prints one line at each state, unbuffered: state, epoch, CLOCK_BOOTTIME of now and of when the
   log was recovered.

It is started by the drill `gateway-takeover` (`hft_platform/drills/gateway.py`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import structlog

from hft_platform.drills.gateway_session import (
    DrillPlane,
    drill_engine_config,
    session_clock,
)
from hft_platform.gateway.channel import ChannelLimits
from hft_platform.gateway.gateway_service import GatewayClocks, GatewayService
from hft_platform.gateway.lease import HUNG_AFTER_NS, LeaderLease, LeadershipFence, boottime_ns
from hft_platform.gateway.order_log import last_epoch
from hft_platform.gateway.process import GatewayProcess, stop_on_signals

NS = 1_000_000_000


def main(arguments: list[str] | None = None) -> int:
    """Run one gateway to its end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hung-after-ms", type=int, default=HUNG_AFTER_NS // 1_000_000)
    parser.add_argument("--call-ms", type=float, default=0.0)
    parser.add_argument("--forgetful", action="store_true", help="negative control")
    options = parser.parse_args(arguments)
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    config, _, start_ns = drill_engine_config(options.folder)
    clock_ns = session_clock(options.folder, start_ns)

    def make(epoch: int, fence: LeadershipFence) -> DrillPlane:
        return DrillPlane(
            options.folder, epoch, fence, config=config, clock_ns=clock_ns,
            call_s=options.call_ms / 1000, is_forgetful=options.forgetful,
        )  # fmt: skip

    folder = options.folder / "gateway"
    lease = LeaderLease(folder, hung_after_ns=options.hung_after_ms * 1_000_000)
    service = GatewayService(
        folder,
        lease,
        last_epoch=lambda: last_epoch(options.folder / "session" / "orders"),
        make_plane=make,
        limits=ChannelLimits(64, 5 * NS, 5 * NS, "cancel"),
        clocks=GatewayClocks(clock_ns, boottime_ns),
    )
    process = GatewayProcess(service, on_state=_say)
    return 0 if process.run(stop_on_signals()) else 3


def _say(state: str, service: GatewayService) -> None:
    facts = service.facts()
    recovered_ns = facts["moments_ns"].get("reconciling", 0)
    sys.stdout.write(f"{state} {facts['epoch']} {boottime_ns()} {recovered_ns}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
