"""ReconciliationService: asks the broker, and resolves what is not known.

Why: a broker without idempotent orders cannot be trusted to tell everything, once and in time. What
was lost is found by asking, and what cannot be found is never sent again.

Invariants:
1. It sends no order. It asks, passes on what the broker says through the ExecutionGateway, and
   cancels only what is done here and twice found open at the broker.
2. A question that failed changes nothing: it is neither "not found" nor "flat"; it is reported.
3. Every question is taken from the broker's call budget, at most one of each kind in a step, and
   not sooner than the settings say.
4. `startup` and `step`, which one thread calls, never wait: they do what is due at the time given,
   and return. `report` and `counters` are for any thread.
5. The same answers give the same records and the same ids, before and after a restart.
6. Nobody is asked while the fence is closed: what a former leader would resolve is not its own.

It decides nothing about strategy: whether an adopted order is still wanted is up to the engine.
Operator's page: `docs/reconciliation.md`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import structlog

from hft_platform.config.settings import ReconciliationSettings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.execution.order_check import (
    NS_PER_MS,
    Judgment,
    Known,
    OrderCheck,
    OurOrder,
    Sighting,
    event_of,
    our_order,
)
from hft_platform.execution.position_check import Agreement, Held, PositionCheck
from hft_platform.execution.reconciliation_report import (
    Finding,
    FindingKind,
    ReconciliationReport,
    Resolution,
    units,
)
from hft_platform.input_records import (
    ABANDONED,
    ADOPTED,
    SOURCE_RUNTIME,
    BrokerKind,
    HealthKind,
    RouteKind,
    account_record,
    broker_record,
    health_record,
    route_record,
)
from hft_platform.order.broker import (
    AccountState,
    Broker,
    BrokerIds,
    BrokerOrder,
    BrokerPosition,
    EventKind,
    FillEvent,
    OrderEvent,
    OrderStatus,
    Outcome,
)
from hft_platform.order.call_budget import CallKind

FINDING_COUNT_MAX = 200
RESOLUTION_COUNT_MAX = 50
FAILURES_IN_A_ROW = 3
"""So many failed questions in a row make a broker that cannot be asked."""
CANCELS_MAX = 3
"""Requests to cancel one order that is done here; then it is a person's."""
MESSAGE_CHARS_MAX = 200
REPORT_EVERY_NS = 10_000_000_000
"""An unchanged report is written again so often, so that its age says whether anybody looks."""

log = structlog.get_logger()


class Session(Protocol):
    """What is needed of a `LiveSession`."""

    def push(self, tape: bytes) -> int:
        """Take records."""

    def orders(self) -> list[dict[str, Any]]:
        """Open orders."""

    def order(self, order_id: int) -> dict[str, Any] | None:
        """One order, also a recently done one."""

    def positions(self) -> list[dict[str, Any]]:
        """Positions of the alphas."""

    def pending(self) -> int:
        """Requests that wait for the dispatcher."""

    def adopted(self) -> dict[int, int]:
        """What was adopted as external, by instrument."""


class OrderNames(Protocol):
    """What is needed of the mapping between our orders and the broker's."""

    def find(self, ids: BrokerIds, tag: str) -> int | None:
        """Our order that a broker's order is, None when it is none of ours."""

    def is_called(self, order_id: int) -> bool:
        """Whether the broker call of an order is known to have come back."""

    def has_synthetic(self, order_id: int) -> bool:
        """Whether a fill of an order was named by us."""


class Events(Protocol):
    """What is needed of the ExecutionGateway."""

    def on_order(self, event: OrderEvent) -> None:
        """Take an event."""

    def on_fill(self, event: FillEvent) -> None:
        """Take a fill."""


class Calls(Protocol):
    """What is needed of the call budget."""

    def take(self, kind: CallKind, now_ns: int) -> bool:
        """Spend one call; False when none is left for this kind."""


class FenceCheck(Protocol):
    """What is needed of a fence."""

    def check(self) -> None:
        """Raise when nothing may be sent."""


class Tradable(Protocol):
    """What is needed of an instrument."""

    @property
    def symbol(self) -> str:
        """As the broker's adapter names it."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether trading may start.

    Attributes
    ----------
    is_ready : bool
        No order is of unknown outcome, and the positions agree or were adopted.
    reasons : tuple of str
        Why not.
    """

    is_ready: bool
    reasons: tuple[str, ...]


@dataclass(slots=True)
class _Question:
    """How one kind of question stands."""

    asked: int = 0
    asked_ns: int = 0
    answered_ns: int = 0
    failed: int = 0
    failed_in_a_row: int = 0
    failed_since_ns: int = 0
    message: str = ""
    is_due: bool = True

    def as_dict(self) -> dict[str, int]:
        names = ("asked", "asked_ns", "answered_ns", "failed", "failed_in_a_row")
        return {name: getattr(self, name) for name in names}


@dataclass(slots=True)
class _External:
    """An order at the broker that is none of ours."""

    order: BrokerOrder
    sighting: Sighting = field(default_factory=Sighting)
    asked_ns: int = 0
    is_written: bool = False


class ReconciliationService:
    """Compares a session with its broker, at start and from then on.

    Parameters
    ----------
    session : Session
        A `LiveSession`.
    broker : Broker
        Which is asked.
    order_ids : OrderNames
        Between our orders and the broker's.
    gateway : Events
        The ExecutionGateway; what was missed goes through it.
    settings : ReconciliationSettings
        Times.
    instruments : mapping of int to Tradable
        Every instrument of the engine config, by its id.
    budget : Calls
        The broker's call budget.
    fence : FenceCheck
        Says whether this process may speak to the broker.
    clock_ns : callable
        ns UTC.
    call_timeout_ns : int, optional
        Longest a broker call can take; the quarantine must be twice as long.
    folder : Path, optional
        Session folder, where the report is written.

    Raises
    ------
    PlatformError
        SETTINGS_INVALID when the quarantine is too short for the timeout.
    """

    def __init__(
        self,
        session: Session,
        broker: Broker,
        order_ids: OrderNames,
        gateway: Events,
        *,
        settings: ReconciliationSettings,
        instruments: Mapping[int, Tradable],
        budget: Calls,
        fence: FenceCheck,
        clock_ns: Callable[[], int],
        call_timeout_ns: int = 0,
        folder: Path | None = None,
    ) -> None:
        if settings.quarantine_ms * NS_PER_MS < 2 * call_timeout_ns:
            raise PlatformError(
                ReasonCode.SETTINGS_INVALID,
                f"reconciliation.quarantine_ms is {settings.quarantine_ms}, a call may take"
                f" {call_timeout_ns // NS_PER_MS} ms: a late request could arrive after its order"
                " was given up",
                next_step="set it to at least twice the broker's call timeout",
            )
        self._session, self._broker = session, broker
        self._order_ids, self._gateway = order_ids, gateway
        self._settings, self._budget, self._fence = settings, budget, fence
        self._symbols = {key: row.symbol for key, row in sorted(instruments.items())}
        self._clock_ns = clock_ns
        self._folder = folder
        self._orders, self._positions = OrderCheck(settings), PositionCheck(settings)
        self._questions = {name: _Question() for name in ("orders", "positions", "account")}
        self._gap_ns = settings.question_gap_ms * NS_PER_MS
        self._externals: dict[tuple[str, str, str, str], _External] = {}
        self._elsewhere: dict[str, BrokerPosition] = {}
        self._cancels: dict[int, tuple[int, int]] = {}
        self._given_up: dict[int, int] = {}
        self._drift_reported_ns: dict[int, int] = {}
        self._resolutions: deque[Resolution] = deque(maxlen=RESOLUTION_COUNT_MAX)
        self._counters: Counter[str] = Counter()
        self._started_ns: int | None = None
        self._is_ready = False
        self._reasons: tuple[str, ...] = ("the broker has not been asked yet",)
        self._written: tuple[Any, int] = (None, 0)
        self._latest = self._report(0)

    def startup(self, now_ns: int | None = None) -> Readiness:
        """Do what is due before trading may start; call it again until it is ready.

        Parameters
        ----------
        now_ns : int, optional
            The time, by default the clock's.

        Returns
        -------
        Readiness
        """
        self.step(now_ns)
        return Readiness(self._is_ready, self._reasons)

    def step(self, now_ns: int | None = None) -> None:
        """Ask what is due, and act on the answers.

        Parameters
        ----------
        now_ns : int, optional
            The time, by default the clock's.
        """
        now_ns = self._clock_ns() if now_ns is None else now_ns
        if self._started_ns is None:
            self._started_ns = now_ns
        self._note(now_ns)
        if self._may_ask():
            if self._is_due("orders", self._settings.orders_interval_ms, now_ns):
                self._ask_orders(now_ns)
            if self._is_due("positions", self._settings.positions_interval_ms, now_ns):
                self._ask_positions(now_ns)
            if self._is_due("account", self._settings.account_interval_ms, now_ns):
                self._ask_account(now_ns)
        if not self._is_ready:
            self._reasons = tuple(self._missing_for_start())
            self._is_ready = not self._reasons
        self._publish(now_ns)

    def report(self) -> ReconciliationReport:
        """Everything that stood at the end of the last step; any thread may ask."""
        return self._latest

    def counters(self) -> dict[str, int]:
        """What was asked and done up to the last step; any thread may ask."""
        return dict(self._latest.counters)

    def _counts(self) -> dict[str, int]:
        asked = {f"asked_{name}": row.asked for name, row in self._questions.items()}
        failed = {f"failed_{name}": row.failed for name, row in self._questions.items()}
        return {**asked, **failed, **dict(sorted(self._counters.items()))}

    # What is due

    def _may_ask(self) -> bool:
        try:
            self._fence.check()
        except PlatformError as error:
            # A halt keeps orders in, not questions: only who is not the leader must be silent.
            is_leader = error.code not in (
                ReasonCode.GATEWAY_NOT_LEADER,
                ReasonCode.GATEWAY_FENCED,
            )
            self._counters["fenced"] += not is_leader
            return is_leader
        return True

    def _is_due(self, name: str, interval_ms: int, now_ns: int) -> bool:
        question = self._questions[name]
        since_ns = now_ns - question.asked_ns
        if question.asked and since_ns < self._gap_ns:
            return False
        is_wanted = (
            question.is_due
            or question.failed_in_a_row > 0
            or not question.asked
            or since_ns >= interval_ms * NS_PER_MS
            or (name == "orders" and self._wants_orders(now_ns))
            or (name == "positions" and self._wants_positions(now_ns))
        )
        if not is_wanted:
            return False
        if self._budget.take(CallKind.QUESTION, now_ns):
            return True
        self._counters["budget_spent"] += 1
        return False

    def _wants_orders(self, now_ns: int) -> bool:
        waits = any(row.sighting.counted == 1 for row in self._externals.values())
        return waits or self._orders.wants_answer(now_ns)

    def _wants_positions(self, now_ns: int) -> bool:
        if not self._is_ready:
            return not self._orders.unknown() and bool(self._positions.disagreeing(self._symbols))
        since_ns = now_ns - self._questions["positions"].asked_ns
        gap_ns = self._settings.not_found_gap_ms * NS_PER_MS
        return since_ns >= gap_ns and bool(self._positions.findings())

    def _missing_for_start(self) -> list[str]:
        orders, positions = self._questions["orders"], self._questions["positions"]
        if not orders.answered_ns:
            return [f"orders: no answer yet {orders.message}".rstrip()]
        if unknown := self._orders.unknown():
            return [
                f"order {row.order_id} ({row.symbol} {units(row.qty)}) is of unknown outcome"
                for row in unknown
            ]
        if not positions.answered_ns or positions.failed_in_a_row:
            return [f"positions: no answer yet {positions.message}".rstrip()]
        return [
            f"position of {self._symbols[instrument_id]} does not agree with the broker's"
            for instrument_id in self._positions.disagreeing(self._symbols)
        ]

    # Orders

    def _note(self, now_ns: int) -> dict[int, OurOrder]:
        """See where our orders stand, and which of them are unknown no longer."""
        ours = {int(row["order_id"]): self._ours(row) for row in self._session.orders()}
        for known in self._orders.note(ours.values(), now_ns):
            self._resolve(known, now_ns)
        return ours

    def _ours(self, row: Mapping[str, Any]) -> OurOrder:
        order_id = int(row["order_id"])
        return our_order(
            row,
            self._symbols.get(int(row["instrument_id"]), ""),
            is_called=self._order_ids.is_called(order_id),
            has_synthetic=self._order_ids.has_synthetic(order_id),
        )

    def _resolve(self, known: Known, now_ns: int) -> None:
        how = self._given_up.pop(known.order_id, 0)
        outcome = {ABANDONED: "abandoned", ADOPTED: "adopted"}.get(how, "answered")
        self._counters[outcome] += 1
        row = Resolution(known.order_id, outcome, known.since_ns, now_ns, known.asked)
        self._resolutions.append(row)
        if how != ABANDONED:
            self._session.push(_resolved_record(known.order_id, ADOPTED, now_ns))
        # Whatever it was, the positions tell whether it was right.
        self._questions["positions"].is_due = True
        facts = {"order_id": known.order_id, "asked": known.asked}
        log.warning("order_resolved", outcome=outcome, **facts)

    def _ask_orders(self, now_ns: int) -> None:
        is_idle = not self._session.pending()
        before = self._note(now_ns)
        answer = self._ask("orders", self._broker.orders, now_ns)
        if answer is None:
            return
        answered_ns = max(now_ns, self._clock_ns())
        after = self._note(answered_ns)
        found: dict[int, BrokerOrder] = {}
        strangers = []
        for order in answer:
            order_id = self._order_ids.find(order.ids, order.tag)
            if order_id is None or order_id in found:
                # A second order under one tag is not ours: each intent is sent once.
                strangers.append(order)
            else:
                found[order_id] = order
        for order_id, ours in after.items():
            # What moved while the broker was asked is judged by the next answer.
            if before.get(order_id) == ours:
                judgment = self._orders.judge(
                    ours, found.get(order_id), now_ns, answered_ns, is_idle=is_idle
                )
                self._act(ours, found.get(order_id), judgment, answered_ns)
        for order_id in sorted(set(found) - set(after)):
            row = self._session.order(order_id)
            if row is not None and order_id not in before:
                ours = self._ours(row)
                judgment = self._orders.judge(ours, found[order_id], now_ns, answered_ns)
                self._act(ours, found[order_id], judgment, answered_ns)
        self._note_strangers(strangers, now_ns, answered_ns)
        self._note(max(answered_ns, self._clock_ns()))

    def _act(
        self, ours: OurOrder, found: BrokerOrder | None, judgment: Judgment, now_ns: int
    ) -> None:
        if judgment.events and ours.state == "unknown":
            self._given_up[ours.order_id] = ADOPTED
        for event in judgment.events:
            if isinstance(event, FillEvent):
                self._gateway.on_fill(event)
            else:
                self._gateway.on_order(event)
                self._counters["replayed_events"] += 1
        if judgment.events:
            row = self._session.order(ours.order_id)
            filled = 0 if row is None else int(row["filled_qty"]) - ours.filled_qty
            self._counters["replayed_fills"] += filled > 0
        if judgment.is_doubted:
            code = ReasonCode.ORDER_NOT_FOUND
            self._session.push(_broker_record(ours, BrokerKind.UNKNOWN, code, now_ns))
            self._counters["doubted"] += 1
        if judgment.is_abandoned:
            self._abandon(ours, now_ns)
        if judgment.is_unwanted and found is not None:
            self._cancel(ours, found, now_ns)

    def _abandon(self, ours: OurOrder, now_ns: int) -> None:
        """Give an order up: twice not found, long after its call. It is never sent again."""
        self._given_up[ours.order_id] = ABANDONED
        self._session.push(
            _broker_record(ours, BrokerKind.REJECTED, ReasonCode.INTENT_ABANDONED, now_ns)
            + _resolved_record(ours.order_id, ABANDONED, now_ns)
        )

    def _cancel(self, ours: OurOrder, found: BrokerOrder, now_ns: int) -> None:
        """Take back what is open at the broker and done here; a cancel adds no risk."""
        count, last_ns = self._cancels.get(ours.order_id, (0, 0))
        gap_ns = self._settings.quarantine_ms * NS_PER_MS
        if count >= CANCELS_MAX or (count and now_ns - last_ns < gap_ns):
            return
        try:
            self._fence.check()
        except PlatformError as error:
            if error.code in (ReasonCode.GATEWAY_NOT_LEADER, ReasonCode.GATEWAY_FENCED):
                return
        if not self._budget.take(CallKind.CANCEL, now_ns):
            return
        self._cancels[ours.order_id] = (count + 1, now_ns)
        result = self._broker.cancel(found.ids, found.symbol)
        self._counters["cancels_of_done"] += 1
        facts = {"order_id": ours.order_id, "outcome": result.outcome.value}
        log.warning("done_order_canceled", **facts)
        if result.outcome != Outcome.SENT:
            self._counters["cancels_not_sent"] += 1

    def _note_strangers(self, rows: list[BrokerOrder], asked_ns: int, answered_ns: int) -> None:
        present = set()
        for order in rows:
            key = (order.ids.broker_id, order.ids.seqno, order.ids.ordno, order.tag)
            present.add(key)
            row = self._externals.setdefault(key, _External(order))
            row.order, row.asked_ns = order, asked_ns
            gap_ns = self._settings.not_found_gap_ms * NS_PER_MS
            is_certain = row.sighting.see("there", asked_ns, answered_ns, gap_ns=gap_ns)
            if is_certain and not row.is_written:
                # Ours could have been named late; now it is nobody's.
                row.is_written = True
                self._counters["external_orders"] += 1
                if self._order_ids.find(order.ids, order.tag) is None:
                    # The gateway has its reports too, and writes that it is external, once.
                    self._gateway.on_order(event_of(EventKind.WORKING, order, answered_ns))
        for key in set(self._externals) - present:
            del self._externals[key]

    # Positions and money

    def _held(self) -> dict[int, Held]:
        sums, adopted = dict.fromkeys(self._symbols, 0), self._session.adopted()
        for row in self._session.positions():
            sums[int(row["instrument_id"])] += int(row["position_qty"])
        return {
            instrument_id: Held(
                instrument_id,
                self._symbols[instrument_id],
                qty + adopted.get(instrument_id, 0),
                *self._orders.unverified(instrument_id),
                self._orders.last_change_ns(instrument_id),
            )
            for instrument_id, qty in sums.items()
        }

    def _ask_positions(self, now_ns: int) -> None:
        before = self._held()
        answer = self._ask("positions", self._broker.positions, now_ns)
        if answer is None:
            self._report_unasked(now_ns)
            return
        answered_ns = max(now_ns, self._clock_ns())
        self._note(answered_ns)
        after = self._held()
        broker_qty = {row.symbol: row.net_qty for row in answer}
        known = set(self._symbols.values())
        self._elsewhere = {
            row.symbol: row for row in answer if row.symbol not in known and row.net_qty
        }
        tape = b""
        for instrument_id, held in after.items():
            if before[instrument_id] != held:
                continue
            qty = broker_qty.get(held.symbol, 0)
            agreement = self._positions.judge(held, qty, now_ns, answered_ns)
            if agreement in (Agreement.AGREES, Agreement.DRIFTS):
                tape += account_record(answered_ns, now_ns, instrument_id, position=qty)
                tape += self._drift_record(instrument_id, agreement, qty - held.qty, answered_ns)
        if tape:
            self._session.push(tape)

    def _drift_record(
        self, instrument_id: int, agreement: Agreement, drift: int, now_ns: int
    ) -> bytes:
        if agreement == Agreement.DRIFTS:
            interval_ns = self._settings.positions_interval_ms * NS_PER_MS
            last_ns = self._drift_reported_ns.get(instrument_id)
            is_early = last_ns is not None and now_ns - last_ns < interval_ns
            if is_early or not self._is_ready:
                # The first report restricts and the third halts: in between a person can act. And
                # before the start nothing trades that would have to be halted.
                return b""
            self._drift_reported_ns[instrument_id] = now_ns
            self._counters["drift_reports"] += 1
        else:
            self._drift_reported_ns.pop(instrument_id, None)
        return health_record(HealthKind.DRIFT, drift, now_ns, instrument_id=instrument_id)

    def _report_unasked(self, now_ns: int) -> None:
        """Tell the engine that nobody knows, once it is not just one lost answer."""
        if self._questions["positions"].failed_in_a_row < FAILURES_IN_A_ROW or not self._is_ready:
            return
        self._counters["unasked_reports"] += 1
        rows = (
            health_record(HealthKind.DRIFT, 0, now_ns, argument=1, instrument_id=instrument_id)
            for instrument_id in self._symbols
        )
        self._session.push(b"".join(rows))

    def _ask_account(self, now_ns: int) -> None:
        answer = self._ask("account", self._broker.account, now_ns)
        if answer is not None:
            answered_ns = max(now_ns, self._clock_ns())
            tape = self._account_tape(answer, answered_ns)
            if tape:
                self._session.push(tape)

    def _account_tape(self, answer: AccountState, now_ns: int) -> bytes:
        # An answer from a clock ahead of ours would be refused as a whole.
        time_ns = min(answer.answer_time_ns, now_ns)
        tape = b""
        if answer.equity is not None and answer.free_margin is not None:
            money = (answer.equity, answer.free_margin)
            tape += account_record(now_ns, time_ns, 0, money=money)
        margins = answer.margin_per_lot or {}
        for instrument_id, symbol in self._symbols.items():
            if margins.get(symbol, 0) > 0:
                tape += account_record(
                    now_ns, time_ns, instrument_id, margin_per_lot=margins[symbol]
                )
        return tape

    def _ask(self, name: str, question: Callable[[], Any], now_ns: int) -> Any:
        """Ask; None when it failed, which is not an empty answer."""
        row = self._questions[name]
        row.asked += 1
        row.asked_ns = now_ns
        row.is_due = False
        try:
            answer = question()
        except PlatformError as error:
            return self._failed(name, int(error.code), error.message, now_ns)
        except Exception as error:  # noqa: BLE001  # an adapter's bug is no answer either
            code = ReasonCode.BROKER_ANSWER_UNREADABLE
            return self._failed(name, int(code), f"{type(error).__name__}: {error}", now_ns)
        row.answered_ns = max(now_ns, self._clock_ns())
        row.failed_in_a_row, row.failed_since_ns, row.message = 0, 0, ""
        return answer

    def _failed(self, name: str, code: int, message: str, now_ns: int) -> None:
        row = self._questions[name]
        row.failed_since_ns = row.failed_since_ns or now_ns
        row.failed += 1
        row.failed_in_a_row += 1
        row.message = f"({message[:MESSAGE_CHARS_MAX]})"
        log.warning("broker_question_failed", question=name, reason_code=code)

    # Report

    def _findings(self, now_ns: int) -> list[Finding]:
        found = self._orders.findings(now_ns) + self._positions.findings()
        for row in self._externals.values():
            if row.order.status in (OrderStatus.WORKING, OrderStatus.PENDING):
                found.append(_external_finding(row))
        for symbol, position in self._elsewhere.items():
            text = f"{units(position.net_qty)} at the broker"
            asked_ns = self._questions["positions"].answered_ns
            found.append(
                Finding(
                    FindingKind.POSITION_ELSEWHERE, symbol, asked_ns, text,
                    asked=1, asked_ns=asked_ns, symbol=symbol, qty=position.net_qty,
                )
            )  # fmt: skip
        kinds = {
            "orders": FindingKind.ORDERS_UNANSWERED,
            "positions": FindingKind.POSITIONS_UNANSWERED,
            "account": FindingKind.ACCOUNT_UNANSWERED,
        }
        for name, question in self._questions.items():
            if question.failed_in_a_row:
                count = question.failed_in_a_row
                text = f"{count} questions in a row failed {question.message}"
                found.append(
                    Finding(
                        kinds[name], name, question.failed_since_ns, text,
                        asked=count, asked_ns=question.asked_ns,
                    )
                )  # fmt: skip
        return sorted(found, key=lambda row: (row.since_ns, row.kind.value, row.subject))

    def _report(self, now_ns: int) -> ReconciliationReport:
        found = self._findings(now_ns)
        return ReconciliationReport(
            time_ns=now_ns,
            phase="running" if self._is_ready else "startup",
            is_ready=self._is_ready,
            reasons=self._reasons,
            findings=tuple(found[:FINDING_COUNT_MAX]),
            left_out=max(0, len(found) - FINDING_COUNT_MAX),
            resolutions=tuple(self._resolutions),
            questions={name: row.as_dict() for name, row in self._questions.items()},
            counters=self._counts(),
        )

    def _publish(self, now_ns: int) -> None:
        # One assignment: whoever asks from another thread sees this report or the one before.
        self._latest = report = self._report(now_ns)
        if self._folder is None:
            return
        # Counts of questions alone are no news.
        news = (
            report.is_ready, report.reasons, tuple(row.key for row in report.findings),
            report.drifts, report.resolutions,
        )  # fmt: skip
        if news == self._written[0] and now_ns - self._written[1] < REPORT_EVERY_NS:
            return
        try:
            report.write(self._folder)
        except OSError as error:
            # Resolving orders matters more than telling; the old report's age tells that.
            self._counters["reports_not_written"] += 1
            log.warning("reconciliation_report_not_written", error=str(error))
            return
        self._written = (news, now_ns)


def _external_finding(row: _External) -> Finding:
    order = row.order
    side = "buy" if order.side > 0 else "sell"
    names = "/".join(filter(None, (order.ids.broker_id, order.ids.seqno, order.ids.ordno)))
    tag = f", tag {order.tag} (another session of ours?)" if order.tag else ""
    return Finding(
        kind=FindingKind.ORDER_EXTERNAL,
        subject=names or order.tag,
        since_ns=row.sighting.first_ns,
        text=f"{order.symbol} {side} {units(order.qty)} at {units(order.price)},"
        f" filled {units(order.filled_qty)}{tag}",
        asked=row.sighting.seen,
        asked_ns=row.asked_ns,
        symbol=order.symbol,
        qty=order.qty - order.filled_qty,
    )


def _broker_record(ours: OurOrder, kind: BrokerKind, code: int, now_ns: int) -> bytes:
    return broker_record(
        kind,
        order_id=ours.order_id,
        instrument_id=ours.instrument_id,
        receive_time_ns=now_ns,
        side=ours.side,
        price=ours.price,
        qty=ours.qty,
        remaining_qty=ours.remaining_qty if kind == BrokerKind.UNKNOWN else 0,
        code=int(code),
        source_id=SOURCE_RUNTIME,
    )


def _resolved_record(order_id: int, how: int, now_ns: int) -> bytes:
    return route_record(RouteKind.RESOLVED, order_id=order_id, receive_time_ns=now_ns, argument=how)
