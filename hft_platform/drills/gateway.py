"""Drill of the gateway: leaders are killed and stopped under runners that keep sending.

Why: a takeover is trusted when it has been had, many times, with orders on their way.

Invariants:
1. Processes are ended by the ids with which they were started.
2. The broker's file is written by the gateways only; what it holds is counted, never corrected.

Operator's page: `docs/drills/gateway-takeover.md`.
"""

from __future__ import annotations

import itertools
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hft_platform import _core
from hft_platform.drills.drill import Claim, Drill, DrillReport
from hft_platform.drills.gateway_session import (
    ALPHAS,
    CALLS_FILE,
    CONFIG_SHA256,
    INTENT_TTL_NS,
    PRICE,
    PROMOTION_SEQ,
    SCALE,
    drill_engine_config,
    read_calls,
)
from hft_platform.drills.market import SYMBOL
from hft_platform.errors import ReasonCode, code_name
from hft_platform.gateway.channel_client import new_hello
from hft_platform.gateway.channel_socket import SOCKET_FILE
from hft_platform.gateway.lease import boottime_ns
from hft_platform.gateway.order_views import OrderViews
from hft_platform.gateway.wire import tag_text
from hft_platform.order.broker import FillEvent, OrderEvent, OrderTicket, Outcome, TimeInForce
from hft_platform.order.gateway_broker import GatewayBroker

NAME = "gateway-takeover"
KILLS_PER_SIZE = 6
STOP_EVERY = 3
"""Every third leader is stopped instead of killed, and must be found hanging."""
WAIT_S = 30.0
CALL_MS = 10.0
"""How long a broker call takes after the order arrived: most kills land in one."""
PLACE_EVERY_S = 0.06
KILL_DELAY_S_MAX = 0.06
ANSWER_S = 2.0
_MS = 1_000_000


class GatewayUnderTest:
    """One gateway process and what it says.

    Parameters
    ----------
    folder : Path
        Of the drill.
    *options : str
        Of the process.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        with (folder / "gateways.log").open("ab") as errors:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "hft_platform.drills.gateway_process",
                    str(folder),
                    *options,
                ],
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._rest = b""

    def until(self, state: str) -> tuple[int, int, int]:
        """Epoch, CLOCK_BOOTTIME, and when the log was recovered, of the moment it says a state.

        Parameters
        ----------
        state : str
            As the process says it.

        Raises
        ------
        TimeoutError
            When it does not in time, or ends.
        """
        deadline = time.monotonic() + WAIT_S
        while True:
            line, found, rest = self._rest.partition(b"\n")
            if found:
                self._rest = rest
                words = line.decode().split()
                if words[0] == state:
                    return int(words[1]), int(words[2]), int(words[3])
                continue
            self._more(state, deadline)

    def send(self, number: int) -> None:
        """Send a signal to this very process."""
        os.kill(self.process.pid, number)

    def end(self, number: int = signal.SIGKILL) -> int:
        """End it if it lives; returns how it ended."""
        if self.process.poll() is None:
            self.send(number)
            if number != signal.SIGKILL:
                self.send(signal.SIGCONT)
        try:
            return self.process.wait(WAIT_S)
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()

    def _more(self, state: str, deadline: float) -> None:
        stdout = self.process.stdout
        if stdout is None:
            raise TimeoutError("the gateway process has no output")
        left = deadline - time.monotonic()
        ready, _, _ = select.select([stdout], [], [], max(0.0, left))
        more = os.read(stdout.fileno(), 4096) if ready else b""
        if not more:
            raise TimeoutError(f"a gateway did not say {state!r} within {WAIT_S} s, or ended")
        self._rest += more


@dataclass(slots=True)
class Runner:
    """A strategy runner that places one order after the other, through whichever gateway leads."""

    index: int
    broker: GatewayBroker
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    codes: Counter[int] = field(default_factory=Counter)
    ended: set[str] = field(default_factory=set)
    connections: int = 0
    number: int = 0

    def on_market(self, tape: bytes) -> None:
        """Nothing: this runner does not look."""

    def on_order(self, event: OrderEvent) -> None:
        """Note which order ended."""
        self.ended.add(event.tag)

    def on_fill(self, event: FillEvent) -> None:
        """A fill of one lot ends an order of one lot."""
        self.ended.add(event.tag)

    def on_connection(self, is_up: bool, message: str) -> None:
        """Count how often a gateway was found."""
        self.connections += is_up

    def place(self) -> Outcome:
        """Place the next order, once, whatever comes of it."""
        self.number += 1
        result = self.broker.place(
            OrderTicket(
                self.number, self.tag(self.number), SYMBOL, 1, PRICE - self.number % 50 * SCALE,
                SCALE, TimeInForce.IOC,
            )
        )  # fmt: skip
        self.outcomes[self.number] = result.outcome
        self.codes[result.code] += 1
        return result.outcome

    def tag(self, number: int) -> str:
        """The tag of its order, unique over runners."""
        return tag_text((self.index + 1 << 23) + number)


@dataclass(slots=True)
class Takeovers:
    """What the takeovers of a drill cost, in ms from the kill."""

    lease: list[float] = field(default_factory=list)
    recovered: list[float] = field(default_factory=list)
    serving: list[float] = field(default_factory=list)
    hung: list[float] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)

    def quantile(self, name: str, share: float) -> float:
        """A quantile in ms; 0 without any."""
        values = getattr(self, name)
        return round(float(np.quantile(values, share)), 1) if values else 0.0


def gateway_takeover(folder: Path, seed: int, size: int, *options: str) -> DrillReport:
    """Kill and stop leaders under two runners.

    Parameters
    ----------
    folder : Path
        Where it works.
    seed : int
        When leaders are killed.
    size : int
        Times `KILLS_PER_SIZE` takeovers.
    *options : str
        Of the gateway processes, for negative controls.
    """
    kills = KILLS_PER_SIZE * size
    takeovers, runners = take_over(folder, seed, kills, STOP_EVERY, *options)
    return DrillReport(NAME, _claims(folder, kills, takeovers, runners), _facts(takeovers, runners))


def take_over(
    folder: Path, seed: int, kills: int, stop_every: int, *options: str
) -> tuple[Takeovers, list[Runner]]:
    """Let leaders be killed under two runners, then stop the last one in order.

    Parameters
    ----------
    folder : Path
        Where it works.
    seed : int
        When leaders are killed.
    kills : int
        How many.
    stop_every : int
        Every so many-th is stopped with SIGSTOP instead; 0 never.
    *options : str
        Of the gateway processes.
    """
    draw = np.random.default_rng(seed)
    arguments = ("--call-ms", str(CALL_MS), *options)
    found = Takeovers()
    gateways = [GatewayUnderTest(folder, *arguments)]
    stop = threading.Event()
    runners: list[Runner] = []
    threads: list[threading.Thread] = []
    try:
        gateways[0].until("serving")
        gateways.append(GatewayUnderTest(folder, *arguments))
        runners = _runners(folder)
        threads = [threading.Thread(target=_work, args=(one, stop)) for one in runners]
        for thread in threads:
            thread.start()
        for number in range(1, kills + 1):
            gateways[-1].until("standby")
            _wait_for_order(runners)
            time.sleep(KILL_DELAY_S_MAX * float(draw.random()))
            is_stop = stop_every > 0 and number % stop_every == 0
            _one(found, gateways[-2], gateways[-1], is_stop=is_stop)
            gateways.append(GatewayUnderTest(folder, *arguments))
        _wait_for_order(runners)
        stop.set()
        for thread in threads:
            thread.join(WAIT_S)
        gateways[-1].until("standby")
        gateways[-1].end(signal.SIGTERM)
        _wait_for_ends(runners)
        found.ended.append(gateways[-2].end(signal.SIGTERM))
    finally:
        stop.set()
        for thread in threads:
            thread.join(WAIT_S)
        for one in runners:
            one.broker.close()
        for gateway in gateways:
            gateway.end()
    return found, runners


def _one(
    found: Takeovers, leader: GatewayUnderTest, standby: GatewayUnderTest, *, is_stop: bool
) -> None:
    killed_ns = boottime_ns()
    leader.send(signal.SIGSTOP if is_stop else signal.SIGKILL)
    _, led_ns, _ = standby.until("leads")
    _, serving_ns, recovered_ns = standby.until("serving")
    if is_stop:
        found.hung.append((serving_ns - killed_ns) / _MS)
        # Woken after the takeover it would send; it was ended before the standby could lead.
        found.ended.append(leader.end(signal.SIGTERM))
        return
    leader.end()
    found.lease.append((led_ns - killed_ns) / _MS)
    found.recovered.append((recovered_ns - killed_ns) / _MS)
    found.serving.append((serving_ns - killed_ns) / _MS)


def _runners(folder: Path) -> list[Runner]:
    _, instrument_id, _ = drill_engine_config(folder)
    runners = []
    for index, alpha_id in enumerate(ALPHAS):
        broker = GatewayBroker(
            folder / "gateway" / SOCKET_FILE, new_hello(alpha_id, CONFIG_SHA256, PROMOTION_SEQ),
            {instrument_id: SYMBOL}, intent_ttl_ns=INTENT_TTL_NS, answer_s=ANSWER_S,
            connect_s=WAIT_S,
        )  # fmt: skip
        runners.append(Runner(index, broker))
        broker.connect(runners[-1])
    return runners


def _work(runner: Runner, stop: threading.Event) -> None:
    while not stop.wait(PLACE_EVERY_S):
        runner.place()


def _wait_for_order(runners: list[Runner]) -> None:
    """Wait until each runner has an order sent from now on: the leader really works."""
    before = [sum(o is Outcome.SENT for o in list(one.outcomes.values())) for one in runners]
    deadline = time.monotonic() + WAIT_S
    while any(
        sum(o is Outcome.SENT for o in list(one.outcomes.values())) <= count
        for one, count in zip(runners, before, strict=True)
    ):
        if time.monotonic() > deadline:
            codes = [dict(one.codes) for one in runners]
            raise TimeoutError(f"no order was taken for {WAIT_S} s; codes so far {codes}")
        time.sleep(0.001)


def _wait_for_ends(runners: list[Runner]) -> None:
    """Wait until every runner heard the end of each order that it holds for sent."""
    deadline = time.monotonic() + WAIT_S
    while any(_without_end(one) for one in runners) and time.monotonic() < deadline:
        time.sleep(0.01)


def _without_end(runner: Runner) -> int:
    return sum(
        outcome is Outcome.SENT and runner.tag(number) not in runner.ended
        for number, outcome in runner.outcomes.items()
    )


def _claims(folder: Path, kills: int, found: Takeovers, runners: list[Runner]) -> tuple[Claim, ...]:
    calls = read_calls(folder / CALLS_FILE)
    views = OrderViews()
    views.fold(_core.read_log(str(folder / "session" / "orders"))["tape"])
    per_order = Counter(order_id for _, order_id in calls)
    epochs = [epoch for epoch, _ in calls]
    refused = 0
    for one in runners:
        view = views.alpha(one.index)
        reached = {order.external_id for order in view.orders.values() if per_order[order.order_id]}
        refused += sum(
            outcome is Outcome.REJECTED and number in reached
            for number, outcome in one.outcomes.items()
        )
    abandoned = [
        order.order_id
        for view in views.alphas.values()
        for order in view.orders.values()
        if order.code == ReasonCode.INTENT_ABANDONED
    ]
    return (
        Claim("takeovers", kills, len(found.lease) + len(found.hung)),
        Claim("orders that reached the broker more than once", 0,
              sum(count > 1 for count in per_order.values())),
        Claim("calls of an earlier leader behind a later one's", 0,
              sum(later < earlier for earlier, later in itertools.pairwise(epochs))),
        Claim("orders left without an end", 0,
              sum(len(view.open_orders) for view in views.alphas.values())),
        Claim("orders given up that reached the broker", 0,
              sum(per_order[order_id] > 0 for order_id in abandoned)),
        Claim("orders refused to their runner that reached the broker", 0, refused),
        Claim("orders whose runner never heard their end", 0, sum(map(_without_end, runners))),
        Claim("stopped leaders that were ended before they could wake", len(found.hung),
              sum(status == -signal.SIGKILL for status in found.ended)),
    )  # fmt: skip


def _facts(found: Takeovers, runners: list[Runner]) -> dict[str, Any]:
    outcomes = Counter(o.value for one in runners for o in one.outcomes.values())
    return {
        "kills": len(found.lease),
        "stops": len(found.hung),
        "orders": sum(outcomes.values()),
        **{f"orders_{name}": count for name, count in sorted(outcomes.items())},
        "refused_with": {
            code_name(code): count
            for code, count in sorted(sum((one.codes for one in runners), Counter()).items())
            if code
        },
        "gateways_found": sum(one.connections for one in runners),
        "lease_ms_p50": found.quantile("lease", 0.5),
        "lease_ms_p99": found.quantile("lease", 0.99),
        "recovered_ms_p50": found.quantile("recovered", 0.5),
        "recovered_ms_p99": found.quantile("recovered", 0.99),
        "serving_ms_p50": found.quantile("serving", 0.5),
        "serving_ms_p99": found.quantile("serving", 0.99),
        "hung_serving_ms_p50": found.quantile("hung", 0.5),
    }


DRILLS = (Drill(NAME, "leaders of the gateway are killed and stopped", gateway_takeover),)
