"""Plain Python strategies for prototypes: they read the bus, their intents are records. SLOW.

Why: an idea may be tried in an afternoon; what trades for money is an expression or a kernel.

Invariants:
1. Never in the critical path: the engine publishes and goes on; a strategy that is late loses
   records and is told which.
2. Whatever a strategy wants enters the engine as an `Intent` record, goes through the seven steps
   and is in the order log, so its session is decided again without it, bit for bit.
3. An intent names the record that caused it and when it is stale; a stale one is refused with
   INTENT_EXPIRED.
4. At most shadow: the engine refuses a higher stage with EXTERNAL_NOT_PERMITTED, and there is no
   manifest, so no gate and no permit.

It judges nothing. Operator's page: `docs/python-strategies.md`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hft_platform import _core, records
from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services.parity import ParityReport, replay_session

SPEED_LABEL = "SLOW: plain Python, for prototypes; never in the critical path, at most shadow"
SLOT_COUNT = 1 << 16
"""Slots of a prototype's bus: 16 MiB, some minutes of a busy market."""
BATCH_RECORDS_MAX = 4_096
"""Records a strategy gets at once."""
INTENTS_MAX = 64
"""Intents of one batch; more is a strategy that runs wild."""
WAIT_S = 0.2
REST_OF_DAY, IMMEDIATE_OR_CANCEL, FILL_OR_KILL = 1, 2, 3
ENTRY, EXIT, QUOTE, REQUOTE = 1, 2, 3, 4
_PLACE, _CANCEL = 1, 2
_DECISION = "Decision"


@dataclass(frozen=True, slots=True)
class Place:
    """An order a strategy wants.

    Attributes
    ----------
    side : int
        +1 buy, -1 sell.
    price, qty : int
        Scaled.
    signal : float
        Ticks of expected move; an opening order without one is refused.
    time_in_force, reason : int
        Constants of this module.
    """

    side: int
    price: int
    qty: int
    signal: float
    time_in_force: int = IMMEDIATE_OR_CANCEL
    reason: int = ENTRY


@dataclass(frozen=True, slots=True)
class Cancel:
    """An order of its own that a strategy wants back."""

    order_id: int
    reason: int = REQUOTE


@dataclass(frozen=True, slots=True)
class Batch:
    """What happened since the last batch.

    Attributes
    ----------
    records : mapping of str to ndarray
        Inputs and decisions by type name, read only.
    lost : int
        Records that are gone because the strategy was late; what follows is a new beginning.
    cause_seq, cause_time_ns : int
        Last input of the batch, which any intent of it names as its cause.
    """

    records: Mapping[str, npt.NDArray[np.void]]
    lost: int
    cause_seq: int
    cause_time_ns: int


class PythonStrategy(Protocol):
    """What a prototype implements."""

    def on_batch(self, batch: Batch) -> Iterable[Place | Cancel]:
        """Look at what happened and say what is wanted.

        Parameters
        ----------
        batch : Batch
            Since the last call.

        Returns
        -------
        iterable of Place or Cancel
            At most `INTENTS_MAX`.
        """
        ...


@dataclass(slots=True)
class StrategyCounts:
    """What a strategy's runner counted."""

    batches: int = 0
    records: int = 0
    lost: int = 0
    intents: int = 0


@dataclass(slots=True)
class StrategyRunner:
    """Reads the bus for one strategy and turns what it wants into intent records.

    Attributes
    ----------
    strategy : PythonStrategy
        Called with every batch.
    reader : BusReader
        Of the session's bus.
    alpha : mapping
        The strategy's alpha in the engine config; its template is ``external``.
    counts : StrategyCounts
        So far.
    """

    strategy: PythonStrategy
    reader: _core.BusReader
    alpha: Mapping[str, Any]
    counts: StrategyCounts = field(default_factory=StrategyCounts)
    _next_id: int = 1
    _lost: int = 0

    def poll(self) -> bytes:
        """Take what is on the bus, ask the strategy, and give its intents as a tape.

        Returns
        -------
        bytes
            `Intent` records; empty when nothing is new or nothing is wanted.

        Raises
        ------
        PlatformError
            CAPACITY_REACHED for more intents than a batch may have.
        """
        intents = []
        while tape := self._read():
            batch = self._batch(tape)
            if batch is not None:
                wanted = list(self.strategy.on_batch(batch))
                intents.append(self._intents(wanted, batch))
        return b"".join(intents)

    def _read(self) -> bytes:
        while True:
            try:
                return self.reader.read(BATCH_RECORDS_MAX)
            except _core.BusOverflowError as overflow:
                self._lost += int(overflow.args[2])

    def _batch(self, tape: bytes) -> Batch | None:
        parts = records.split(tape)
        inputs = [rows for name, rows in parts.items() if name != _DECISION and rows.size]
        self.counts.records += sum(int(rows.size) for rows in parts.values())
        if not inputs:
            return None
        last = max((rows[-1] for rows in inputs), key=lambda row: int(row["input_seq"]))
        lost, self._lost = self._lost, 0
        self.counts.batches += 1
        self.counts.lost += lost
        return Batch(parts, lost, int(last["input_seq"]), int(last["sequence_time_ns"]))

    def _intents(self, wanted: list[Place | Cancel], batch: Batch) -> bytes:
        if len(wanted) > INTENTS_MAX:
            raise PlatformError(
                ReasonCode.CAPACITY_REACHED,
                f"{self.alpha['alpha_id']} wants {len(wanted)} orders of one batch, at most"
                f" {INTENTS_MAX}",
            )
        rows = records.empty("Intent", len(wanted))
        rows["instrument_id"] = self.alpha["instrument_id"]
        rows["alpha_index"] = self.alpha["alpha_index"]
        rows["cause_seq"] = batch.cause_seq
        rows["cause_time_ns"] = batch.cause_time_ns
        rows["ttl_ns"] = self.alpha["ttl_ns"]
        for row, one in zip(rows, wanted, strict=True):
            row["intent_reason"] = one.reason
            if isinstance(one, Cancel):
                row["action"], row["order_id"] = _CANCEL, one.order_id
                continue
            row["action"], row["external_id"] = _PLACE, self._next_id
            row["side"], row["price"], row["qty"] = one.side, one.price, one.qty
            row["time_in_force"], row["signal"] = one.time_in_force, one.signal
            self._next_id += 1
        self.counts.intents += len(wanted)
        return rows.tobytes()


@dataclass(frozen=True, slots=True)
class Prototype:
    """A session of a plain Python strategy.

    Attributes
    ----------
    session_dir : Path
        Where its logs and ``engine.json`` go.
    engine_config : mapping
        One alpha, template ``external``, stage research or shadow.
    tape : bytes
        The recording that plays the market.
    latency, venue : mapping
        As a paper session takes them.
    step_records : int
        Inputs between two looks at the strategy's intents: 1 asks it after every record.
    is_lockstep : bool
        The engine waits for the strategy after every step, in virtual time; else the strategy
        runs on a thread beside it and may be late.
    slot_count : int
        Slots of the bus.
    """

    session_dir: Path
    engine_config: Mapping[str, Any]
    tape: bytes
    latency: Mapping[str, Any]
    venue: Mapping[str, Any]
    step_records: int = 1
    is_lockstep: bool = True
    slot_count: int = SLOT_COUNT


@dataclass(frozen=True, slots=True)
class PrototypeOutcome:
    """What came of it, and whether it was decided again without the strategy."""

    finished: dict[str, Any]
    counts: StrategyCounts
    parity: ParityReport
    speed_label: str = SPEED_LABEL


def run_prototype(prototype: Prototype, strategy: PythonStrategy) -> PrototypeOutcome:
    """Run a session of a plain Python strategy to its end and replay it.

    Parameters
    ----------
    prototype : Prototype
        What to run, on which recording.
    strategy : PythonStrategy
        Who decides.

    Returns
    -------
    PrototypeOutcome

    Raises
    ------
    PlatformError
        EXTERNAL_NOT_PERMITTED for a stage above shadow or another template, and what the session
        refuses. An error of the strategy itself ends the session, sealed, and is raised.
    """
    alpha = _external_alpha(prototype.engine_config)
    text = canonical_json(dict(prototype.engine_config)).decode()
    prototype.session_dir.mkdir(parents=True, exist_ok=True)
    atomic_write(prototype.session_dir / "engine.json", text.encode() + b"\n")
    bus = _core.Bus(prototype.slot_count)
    paper = _core.PaperSession(
        text,
        canonical_json(dict(prototype.latency)).decode(),
        canonical_json(dict(prototype.venue)).decode(),
        str(prototype.session_dir),
        canonical_json({"wal_id": 1, "durable": "group"}).decode(),
    )
    with bus.reader() as reader:
        paper.publish_to(bus)
        paper.feed(prototype.tape)
        runner = StrategyRunner(strategy, reader, alpha)
        try:
            if prototype.is_lockstep:
                _lockstep(paper, runner, prototype.step_records)
            else:
                _beside(paper, runner, prototype.step_records)
        finally:
            finished = paper.finish()
    return PrototypeOutcome(finished, runner.counts, replay_session(prototype.session_dir))


def _external_alpha(config: Mapping[str, Any]) -> Mapping[str, Any]:
    alphas = config["alphas"]
    if len(alphas) != 1 or alphas[0]["template"].get("kind") != "external":
        raise PlatformError(
            ReasonCode.EXTERNAL_NOT_PERMITTED,
            "a prototype's engine config has one alpha, with template external",
        )
    alpha: Mapping[str, Any] = alphas[0]
    return alpha


def _lockstep(paper: _core.PaperSession, runner: StrategyRunner, step_records: int) -> None:
    while not paper.run(None, step_records)["done"]:
        if tape := runner.poll():
            paper.intents(tape)


def _beside(paper: _core.PaperSession, runner: StrategyRunner, step_records: int) -> None:
    """Run the strategy on a thread of its own; its error is raised here, after the session."""
    failed: list[BaseException] = []
    is_over = threading.Event()

    def follow() -> None:
        while not is_over.is_set():
            if runner.reader.wait(WAIT_S) != "ready":
                continue
            try:
                tape = runner.poll()
                if tape and not is_over.is_set():
                    paper.intents(tape)
            except Exception as error:  # noqa: BLE001  # the strategy's own; raised below
                failed.append(error)
                return

    thread = threading.Thread(target=follow, name="python-strategy", daemon=True)
    thread.start()
    try:
        while not paper.run(None, step_records)["done"] and not failed:
            continue
    finally:
        is_over.set()
        thread.join()
    if failed and not _came_too_late(failed[0]):
        raise failed[0]


def _came_too_late(error: BaseException) -> bool:
    """Tell an intent that came behind the last record from an error of the strategy."""
    return isinstance(error, PlatformError) and error.code == ReasonCode.SESSION_NOT_OPEN
