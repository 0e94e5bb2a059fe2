"""A whole day through the live path, against the paper exchange, in one thread and virtual time.

Why: what is to be trusted with money must first bring a day with everything going wrong to an end
at which every order is explained and one result comes out, whichever way it is added up.

Invariants:
1. The parts are those of a live process: session with both logs, order adapter, order ids,
   execution gateway, reconciliation. Only the clock is the exchange's and nothing waits.
2. A record is decided on, and what was decided is sent, before time goes on.
3. The exchange's own positions are looked at by nobody but the result.
4. After the market the clock goes on until nothing is open or `SETTLE_NS_MAX` has passed.

It signs nothing and is no evidence. Operator's page: `docs/brokers.md`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hft_platform import _core, records
from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.config.settings import Settings
from hft_platform.execution.execution_gateway import ExecutionGateway
from hft_platform.execution.order_ids import OrderIds
from hft_platform.execution.position_store import FILL, account_session
from hft_platform.execution.positions import CostMethod, PositionStore, value_of
from hft_platform.execution.reconciliation import ReconciliationService
from hft_platform.kernels import kernels_of
from hft_platform.market.instruments import Instrument
from hft_platform.order.call_breaker import CallBreaker
from hft_platform.order.call_budget import CallBudget
from hft_platform.order.fence import Fences
from hft_platform.order.order_adapter import OrderAdapter
from hft_platform.order.paper_broker import PaperBroker
from hft_platform.services.parity import ParityReport, parity_of, read_session

MS, SECOND = 1_000_000, 1_000_000_000
RECONCILE_NS = 250 * MS
"""Between two looks of the reconciliation, as its thread has them."""
SETTLE_NS_MAX = 120 * SECOND
"""How long after the market something may be asked for: several times the quarantine."""
UNKNOWN = 7
"""`BrokerEventKind` in rust_core/src/record.rs."""


@dataclass(frozen=True, slots=True)
class PaperDay:
    """What is played.

    Attributes
    ----------
    engine_config : dict
        Of one alpha, or several on one contract.
    instrument : Instrument
        As it is on that day.
    trading_day : int
        yyyymmdd.
    tape : bytes
        Market records of the session.
    latency : dict
        Latency profile.
    queue_model : str
        Of the exchange.
    faults : dict or None
        As `FaultProfile.core` gives it.
    """

    engine_config: dict[str, Any]
    instrument: Instrument
    trading_day: int
    tape: bytes
    latency: Mapping[str, Any]
    queue_model: str = "power_prob3"
    faults: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class DayResult:
    """What came of it.

    Attributes
    ----------
    open_orders, orphans, externals : int
        What is not explained.
    findings : tuple of str
        What the reconciliation still has to say.
    position_qty : int
        By the engine.
    truth_qty : int
        By the exchange.
    results : dict
        Gross result at 1e-8, by the way in which it was added up.
    fees : dict
        The same for fees.
    parity : ParityReport
        Of the logs, decided again.
    facts : dict
        Counts.
    exchange : dict
        Counters of the exchange, with its faults.
    """

    open_orders: int
    orphans: int
    externals: int
    findings: tuple[str, ...]
    position_qty: int
    truth_qty: int
    results: dict[str, int]
    fees: dict[str, int]
    parity: ParityReport
    facts: dict[str, Any]
    exchange: dict[str, Any]


class _Day:
    """The parts of one live process around one folder."""

    def __init__(self, day: PaperDay, folder: Path, settings: Settings) -> None:
        self.day = day
        self.settled_ns = 0
        instrument = day.instrument
        instruments = {instrument.instrument_id: instrument}
        options = {
            "wal_id": 1,
            "epoch": 1,
            "process_id": os.getpid(),
            "durable": "record",
            "opened_ns": _first_ns(day.tape),
            "contracts": {
                str(instrument.instrument_id): {
                    "product_root": instrument.product_root,
                    "last_trading_day": instrument.last_trading_day,
                }
            },
        }
        self.session = _core.LiveSession(
            canonical_json(day.engine_config).decode(),
            str(folder),
            canonical_json(options).decode(),
            kernels_of(day.engine_config),
        )
        self.broker = PaperBroker(
            [instrument],
            latency=day.latency,
            queue_model=day.queue_model,
            trading_day=day.trading_day,
            faults=day.faults,
            on_timer=self.session.push,
        )
        self.order_ids = OrderIds.from_session(self.session)
        self.gateway = ExecutionGateway(self.session, self.order_ids, instruments, self.clock_ns)
        broker = settings.broker
        budget = CallBudget(soft_max=broker.order_calls_soft, hard_max=broker.order_calls_hard)
        self.adapter = OrderAdapter(
            self.session,
            self.broker,
            instruments=instruments,
            order_ids=self.order_ids,
            budget=budget,
            breaker=CallBreaker(
                failures_max=broker.breaker_failures_max, open_ns=broker.breaker_open_ms * MS
            ),
            fence=Fences([]),
            clock_ns=self.clock_ns,
        )
        self.reconciliation = ReconciliationService(
            self.session,
            self.broker,
            self.order_ids,
            self.gateway,
            settings=settings.reconciliation,
            instruments=instruments,
            budget=budget,
            fence=Fences([]),
            clock_ns=self.clock_ns,
            call_timeout_ns=broker.call_timeout_ms * MS,
        )

    def clock_ns(self) -> int:
        """The exchange's time, and after its end our own."""
        return max(self.broker.reached_ns, self.settled_ns)

    def play(self) -> None:
        """Let the whole market pass, and then time until nothing is open."""
        self.broker.feed(self.day.tape)
        self.broker.connect(self.gateway)
        self.broker.subscribe([self.day.instrument.symbol])
        looked_ns = 0
        while self.broker.next_event():
            self._send()
            if self.broker.reached_ns - looked_ns >= RECONCILE_NS:
                looked_ns = self.broker.reached_ns
                self._look()
        ended_ns = self.settled_ns = self.broker.now_ns
        while self.settled_ns - ended_ns < SETTLE_NS_MAX and not self._is_settled():
            self.settled_ns += SECOND
            self._look()

    def _send(self) -> None:
        while (request := self.session.next_request(0)) is not None:
            self.adapter.execute(request)
        if self.adapter.waiting_count:
            self.adapter.step()

    def _look(self) -> None:
        now_ns = self.clock_ns()
        self.gateway.step(now_ns)
        self.reconciliation.step(now_ns)
        self._send()

    def _is_settled(self) -> bool:
        waits = self.session.orders() or self.adapter.waiting_count or self.gateway.orphan_count()
        return not waits and self._held() == self._truth()

    def _held(self) -> int:
        return sum(int(row["position_qty"]) for row in self.session.positions())

    def _truth(self) -> int:
        return self.broker.truth().get(self.day.instrument.symbol, 0)

    def result(self, folder: Path) -> DayResult:
        """Seal the logs, decide again, and add everything up."""
        positions = self.session.positions()
        held, truth, open_orders = self._held(), self._truth(), len(self.session.orders())
        halted_by = int(self.session.state()["halted_by"])
        self.session.finish()
        logs = read_session(folder)
        parts = records.split(logs.inputs)
        broker, books = parts["Broker"], parts["Book"]
        results, fees = _sums(self.day.instrument, broker, books)
        results["engine"] = sum(int(row["gross_pnl"]) for row in positions)
        fees["engine"] = sum(int(row["fees"]) for row in positions)
        decisions = np.frombuffer(logs.decisions, records.DTYPES["Decision"])
        approved = decisions[decisions["verdict"] == 1]
        facts = {
            "records": sum(len(rows) for rows in parts.values()),
            "orders": int((approved["action"] == 1).sum()),
            "cancels": int((approved["action"] == 2).sum()),
            "fills": int((broker["event_kind"] == FILL).sum()),
            "unknown": int((broker["event_kind"] == UNKNOWN).sum()),
            "halted_by": halted_by,
            "calls": self.adapter.counters(),
            "gateway": self.gateway.counters(),
            "reconciliation": self.reconciliation.counters(),
        }
        return DayResult(
            open_orders=open_orders,
            orphans=self.gateway.orphan_count(),
            externals=len(self.gateway.externals()),
            findings=tuple(
                f"{row.kind} {row.subject}: {row.text}"
                for row in self.reconciliation.report().findings
            ),
            position_qty=held,
            truth_qty=truth,
            results=results,
            fees=fees,
            parity=parity_of(logs, self.day.engine_config),
            facts=facts,
            exchange=self.broker.finish(),
        )


def run_paper_day(day: PaperDay, folder: Path, settings: Settings) -> DayResult:
    """Play a day through the live path.

    Parameters
    ----------
    day : PaperDay
        What is played.
    folder : Path
        Of the session; made here.
    settings : Settings
        Of the broker and the reconciliation.

    Returns
    -------
    DayResult
    """
    folder.mkdir(parents=True)
    atomic_write(folder / "engine.json", canonical_json(day.engine_config) + b"\n")
    live = _Day(day, folder, settings)
    try:
        live.play()
        return live.result(folder)
    finally:
        live.session.close()


def _sums(
    instrument: Instrument,
    broker: Any,
    books: Any,  # Any: arrays of records
) -> tuple[dict[str, int], dict[str, int]]:
    """Gross result and fees: from fills as cash, and from positions in both methods."""
    account = account_session(broker, books, instrument)
    results, fees = {"fills": account.gross}, {"fills": account.fees}
    mark = last_mid(books)
    alphas = {int(order_id - 1) >> 48 for order_id in broker["order_id"]}
    for method in CostMethod:
        store = PositionStore({instrument.instrument_id: instrument}, method=method)
        store.take_records(broker, {index: str(index) for index in alphas}, account="paper")
        store.mark(instrument.instrument_id, mark)
        pnl = store.account_pnl("paper", instrument.instrument_id)
        results[f"positions_{method}"], fees[f"positions_{method}"] = pnl.gross, pnl.fees
    return results, fees


def last_mid(books: Any) -> int:  # Any: an array of Book records
    """Mid of the last two-sided, uncrossed book."""
    bid, ask = books["bid_price"][:, 0], books["ask_price"][:, 0]
    valid = np.flatnonzero((bid > 0) & (ask > bid))
    return int((bid[valid[-1]] + ask[valid[-1]]) // 2)


def gross_by_store(store: Any, run_id: str, instrument: Instrument, mark: int) -> int:
    """Gross result from the store's rows alone, at 1e-8.

    Parameters
    ----------
    store : Store
        With the session loaded.
    run_id : str
        Name of its folder.
    instrument : Instrument
        For the mark.
    mark : int
        Price of what is held.

    Returns
    -------
    int
    """
    ((cash,),) = store.rows(
        "SELECT toString(reinterpretAsInt128(CAST(sum(if(side > 0, -amount, amount))"
        " AS Decimal(38, 8)))) FROM hft.fill_amounts WHERE run_id = {run:String}",
        {"run": run_id},
    )
    ((held,),) = store.rows(
        "SELECT toString(reinterpretAsInt128(CAST(sum(if(side > 0, qty, -qty))"
        " AS Decimal(38, 8)))) FROM hft.fills WHERE run_id = {run:String}",
        {"run": run_id},
    )
    return int(cash) + value_of(mark, int(held), instrument.multiplier)


def _first_ns(tape: bytes) -> int:
    return int.from_bytes(tape[32:40], "little")
