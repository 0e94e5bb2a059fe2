"""What a gateway leads: the live session, the broker, and everything between them.

Why: the gateway is the same live process as any other; only its intents come over the channel. This
file puts the same parts together in the same order.

Invariants:
1. Making it recovers the order log under the lease's epoch and sends nothing.
2. Every call passes the halt latch and the lease, in this order, right before it is made.
3. What the broker reports becomes records first; runners are told from the order log.
4. As long as an order is of unknown outcome or the positions do not agree, nothing opens: the
   gateway serves, and its engine refuses.
5. A halt outlives every takeover, whoever raised it: only a person's resume lifts it.

It decides nothing. Operator's page: `docs/gateway.md`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from hft_platform import _core, records
from hft_platform.config.canonical import canonical_json
from hft_platform.config.settings import ReconciliationSettings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.execution.execution_gateway import ExecutionGateway
from hft_platform.execution.order_ids import OrderIds
from hft_platform.execution.reconciliation import ReconciliationService
from hft_platform.gateway.channel import Holdings, RemoteAlpha
from hft_platform.gateway.lease import LeadershipFence
from hft_platform.gateway.order_log import OrderLogFollower
from hft_platform.input_records import SOURCE_OPERATOR, SOURCE_RUNTIME, CommandKind, command_record
from hft_platform.market.instruments import Instrument
from hft_platform.order.broker import Broker, FillEvent, OrderEvent
from hft_platform.order.call_breaker import CallBreaker
from hft_platform.order.call_budget import CallBudget
from hft_platform.order.fence import Fences, LatchFence
from hft_platform.order.order_adapter import OrderAdapter
from hft_platform.services import latch
from hft_platform.services.broker_probe import daily_limits_of, look_after_broker

log = structlog.get_logger()

NS = 1_000_000_000
RESUME_TRIES = 5
_RESTRICTING = (CommandKind.HALT, CommandKind.REDUCE_ONLY, CommandKind.FLATTEN)


@dataclass(frozen=True, slots=True)
class PlaneParts:
    """What a plane is made of, the same for every epoch.

    Attributes
    ----------
    workspace : Path
        With the halt latch.
    session_dir : Path
        Of the live session.
    engine_config : mapping
        Alphas with template ``remote``.
    options : mapping
        Of the live session, without epoch, process and time of opening.
    alphas : mapping of str to RemoteAlpha
        The same alphas, as the channel knows them.
    instruments : mapping of int to Instrument
        Every instrument of the engine config, by its id.
    make_broker : callable
        Makes the broker's adapter, not connected.
    reconciliation : ReconciliationSettings
        Times.
    budget, breaker : callable
        Make a call budget and a call breaker.
    call_timeout_ns : int
        Longest a broker call can take.
    clock_ns : callable
        ns UTC.
    """

    workspace: Path
    session_dir: Path
    engine_config: Mapping[str, Any]
    options: Mapping[str, Any]
    alphas: Mapping[str, RemoteAlpha]
    instruments: Mapping[int, Instrument]
    make_broker: Callable[[], Broker]
    reconciliation: ReconciliationSettings
    budget: Callable[[], CallBudget]
    breaker: Callable[[], CallBreaker]
    call_timeout_ns: int
    clock_ns: Callable[[], int]


class LivePlane:
    """The live session of one epoch, with everything around it.

    Parameters
    ----------
    parts : PlaneParts
        What it is made of.
    epoch : int
        Of the lease.
    fence : LeadershipFence
        Of the lease.
    """

    def __init__(self, parts: PlaneParts, epoch: int, fence: LeadershipFence) -> None:
        self.orders_dir = parts.session_dir / "orders"
        self.alphas = parts.alphas
        self.call_allow_ns = parts.call_timeout_ns + NS
        self._clock_ns = parts.clock_ns
        self._workspace, self._who = parts.workspace, parts.session_dir.name
        options = dict(parts.options) | {
            "epoch": epoch, "process_id": os.getpid(), "opened_ns": parts.clock_ns(),
        }  # fmt: skip
        self.session = _core.LiveSession(
            canonical_json(dict(parts.engine_config)).decode(),
            parts.session_dir,
            canonical_json(options).decode(),
        )
        log.info("gateway_recovered", **self.session.recovered())
        fences = Fences([LatchFence(parts.workspace), fence])
        budget = parts.budget()
        order_ids = OrderIds.from_session(self.session)
        self._broker = parts.make_broker()
        self._reports = ExecutionGateway(self.session, order_ids, parts.instruments, parts.clock_ns)
        self._adapter = OrderAdapter(
            self.session, self._broker, instruments=parts.instruments, order_ids=order_ids,
            budget=budget, breaker=parts.breaker(), fence=fences, clock_ns=parts.clock_ns,
            daily_limits=self._daily_limits,
        )  # fmt: skip
        self._reconciler = ReconciliationService(
            self.session, self._broker, order_ids, self._reports, settings=parts.reconciliation,
            instruments=parts.instruments, budget=budget, fence=fence, clock_ns=parts.clock_ns,
            call_timeout_ns=parts.call_timeout_ns, folder=parts.session_dir,
        )  # fmt: skip
        self._instruments = parts.instruments
        self._is_settled = False
        self._looked_after_ns = 0
        self.market_left_out = 0
        self._owed_latch: tuple[str, int] | None = None
        self._is_halted = False
        # Before anything else looks: a halt of the log that no latch holds is latched, not lifted.
        self._latch_engine_halt()
        self._lifts = self.session.recovered()["unknown_orders"] > 0 and not _is_restricted(
            OrderLogFollower(self.orders_dir).poll()
        )
        self._market: Callable[[bytes], None] = lambda _: None
        self._event: Callable[[], None] = lambda: None

    def startup(self) -> None:
        """Connect, ask for what is in doubt, and let nothing open until it is settled."""
        self._broker.connect(self)
        readiness = self._reconciler.startup()
        if readiness.is_ready:
            self._settle()
        else:
            log.error(
                "gateway_restricted", reason_code=int(ReasonCode.SESSION_UNEXPLAINED),
                reasons=list(readiness.reasons)[:10],
            )  # fmt: skip
            if not self._lifts and not self.session.recovered()["unknown_orders"]:
                self._lifts = not _is_restricted(OrderLogFollower(self.orders_dir).poll())
            self._command(CommandKind.REDUCE_ONLY)
        self._broker.subscribe([row.symbol for row in self._instruments.values()])

    def execute(self, request: Any) -> None:  # Any: the session's request
        """Send one request, once, through the fences."""
        self._adapter.execute(request)
        self._event()

    def idle(self) -> None:
        """Send the cancels that waited."""
        self._adapter.step()

    def reconcile(self, now_ns: int) -> None:
        """Ask what is due; lift the restriction when everything is settled."""
        self._reports.step(now_ns)
        self._obey_latch()
        if now_ns - self._looked_after_ns >= NS:
            # A login may keep questions waiting; the fences keep orders in meanwhile.
            self._looked_after_ns = now_ns
            look_after_broker(self._broker, now_ns)
        if self._is_settled:
            self._reconciler.step(now_ns)
        elif self._reconciler.startup(now_ns).is_ready:
            self._settle()
        self._event()

    def holdings(self) -> Holdings:
        """Positions from the engine; money is not told over the channel."""
        return Holdings(self._positions, lambda: (self._clock_ns(), False, 0, 0))

    def report_to(self, market: Callable[[bytes], None], event: Callable[[], None]) -> None:
        """Tell of market records, and that something happened to an order."""
        self._market, self._event = market, event

    def close(self, *, is_orderly: bool) -> None:
        """Leave the broker; seal the logs, or let go of them as a crash does."""
        self._broker.close()
        if is_orderly:
            self.session.finish()
        else:
            self.session.close()

    # What the broker calls.

    def on_market(self, tape: bytes) -> None:
        """Market records: to the engine, then to the runners."""
        try:
            self._reports.on_market(tape)
        except PlatformError as error:
            # While the dispatcher is far behind nothing new is taken in, and nothing new decided.
            if error.code != ReasonCode.CAPACITY_REACHED:
                raise
            self.market_left_out += 1
            return
        self._market(tape)

    def on_order(self, event: OrderEvent) -> None:
        """Something about an order."""
        self._reports.on_order(event)
        self._event()

    def on_fill(self, event: FillEvent) -> None:
        """An execution."""
        self._reports.on_fill(event)
        self._event()

    def on_connection(self, is_up: bool, message: str) -> None:
        """The connection came or went."""
        self._reports.on_connection(is_up, message)

    def _daily_limits(self, instrument_id: int) -> tuple[int, int] | None:
        instrument = self._instruments.get(instrument_id)
        return None if instrument is None else daily_limits_of(self._broker, instrument.symbol)

    def _positions(self, alpha_index: int) -> dict[int, int]:
        return {
            int(row["instrument_id"]): int(row["position_qty"])
            for row in self.session.positions()
            if int(row["alpha_index"]) == alpha_index
        }

    def _settle(self) -> None:
        """Everything is known: lift what the takeover put on, and nothing that a person did."""
        self._is_settled = True
        if self._lifts and not self._is_halted:
            self._resume()
        log.info("gateway_settled", lifted=self._lifts)

    def _obey_latch(self) -> None:
        """A workspace halt becomes a record, and so does its end; the engine's is latched."""
        if self._owed_latch is not None:
            self._latch(*self._owed_latch)
        self._latch_engine_halt()
        if self._owed_latch is not None:
            return  # Halted; that the workspace has no latch yet is no resume.
        content = latch.read(self._workspace)
        if content is not None and not self._is_halted:
            self._command(
                CommandKind.HALT, reason_code=int(content["code"]), source=SOURCE_OPERATOR
            )
            self._is_halted = True
        elif content is None and self._is_halted:
            self._resume(source=SOURCE_OPERATOR)
            halted_by = self.session.halted_by()
            self._is_halted = bool(halted_by)
            if halted_by:
                self._latch("the gateway refused the resume: its cause is still there", halted_by)

    def _latch_engine_halt(self) -> None:
        halted_by = self.session.halted_by()
        if halted_by and not self._is_halted:
            self._is_halted = True
            self._latch("the gateway's engine halted", halted_by)

    def _latch(self, why: str, code: int) -> None:
        """Halt the workspace; on a full disk that is tried again at every step."""
        try:
            latch.halt(self._workspace, who=self._who, why=why, code=code)
        except OSError as error:
            if self._owed_latch is None:
                log.error("halt_not_latched", reason_code=code, error=str(error))
            self._owed_latch = (why, code)
            return
        self._owed_latch = None

    def _resume(self, *, source: int = SOURCE_RUNTIME) -> None:
        """Both steps; another arm between them makes a second try necessary."""
        for _ in range(RESUME_TRIES):
            refused = dict(self.session.state()["dropped"])
            armed_seq = self._command(CommandKind.RESUME_ARM, source=source)
            self._command(CommandKind.RESUME_CONFIRM, argument=armed_seq, source=source)
            if dict(self.session.state()["dropped"]) == refused:
                return
        log.warning("gateway_not_resumed", dropped=dict(self.session.state()["dropped"]))

    def _command(
        self,
        kind: CommandKind,
        *,
        source: int = SOURCE_RUNTIME,
        argument: int = 0,
        reason_code: int = ReasonCode.REDUCE_ONLY_ON,
    ) -> int:
        """Push a command for all alphas; gives its `input_seq`."""
        record = command_record(
            kind, self._clock_ns(), source_id=source, argument=argument, reason_code=reason_code
        )
        return int(self.session.push(record))


def _is_restricted(order_log: bytes) -> bool:
    """Whether a person restricted or halted trading and did not lift it since."""
    commands: Any = records.split(order_log)["Command"] if order_log else []
    is_restricted = False
    for row in commands:
        if int(row["source_id"]) == SOURCE_RUNTIME:
            continue
        if int(row["command_kind"]) in _RESTRICTING:
            is_restricted = True
        elif int(row["command_kind"]) == CommandKind.RESUME_CONFIRM:
            is_restricted = False
    return is_restricted
