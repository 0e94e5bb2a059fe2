"""Simulated runs of the order plane: the real components, one thread, virtual time, one seed each.

Why: money is lost in schedules that nobody thought of. Runs draw thousands of them: a gateway dies
between decision and call, in the call, behind it, before its result is noted, in the middle of a
write; another one takes over; replies are lost or late, reports come twice, in the wrong order or
never. What must hold is counted at the broker, which knows no idempotency.

Invariants:
1. A seed decides everything; the same seed gives the same trace and the same end.
2. An intent is told by its price, which no other intent of the run has: what the broker was called
   with is counted without asking the platform anything.
3. Nothing of the platform is replaced but clock, wire and death: session, adapter, ids, gateway and
   reconciliation are those of `hft-live`.

To look at one run: ``python -m hft_platform.drills.order_sim --seed 7``.
Operator's page: `docs/drills/order-chaos.md`.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import structlog

from hft_platform.drills.broker_book import BrokerBook, BrokerFaults
from hft_platform.drills.order_life import (
    MS,
    SECOND,
    START_NS,
    Death,
    Life,
    Want,
    World,
    log_image,
    tear,
)
from hft_platform.order.broker import Outcome

RUNNERS = 3
STEPS = 30
WANTS_MAX = 9
SETTLE_STEPS = 90
"""Virtual seconds in which everything must come to rest once the faults are over."""
_CRASHES = ("now", "popped", "before_place", "after_place", "torn", "paused")
_PROBABILITIES = (0.0, 0.0, 0.1, 0.3)


@dataclass(frozen=True, slots=True)
class SimRules:
    """What a restarted gateway does; the defaults are the platform's, the others are controls.

    Attributes
    ----------
    remembers : bool
        False: dedup lives in memory only, a restart begins with empty logs.
    resends : bool
        True: an order that was not found is sent again.
    """

    remembers: bool = True
    resends: bool = False


@dataclass(slots=True)
class SimResult:
    """What came of one run.

    Attributes
    ----------
    seed : int
        Decides it.
    problems : list of str
        What must not be so; empty in a good run.
    trace : list of str
        What happened, step by step.
    facts : Counter
        How much of it.
    """

    seed: int
    problems: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    facts: Counter[str] = field(default_factory=Counter)


class Run:
    """One simulated run.

    Parameters
    ----------
    seed : int
        Decides everything.
    folder : Path
        Empty folder for the logs.
    rules : SimRules, optional
        The platform's, or a control's.
    """

    def __init__(self, seed: int, folder: Path, rules: SimRules | None = None) -> None:
        self.result = SimResult(seed)
        self._rules = rules or SimRules()
        self._draw = Random(seed)  # noqa: S311  # a drill's dice
        self._folder = folder
        self._world = World(BrokerBook(seed, self._faults()), START_NS)
        self._wants: list[Want] = []
        self._life: Life | None = None
        self._old: list[Life] = []
        self._lives = 0
        self._next_ids = [0] * RUNNERS
        self._resent: set[str] = set()

    # ----------------------------------------------------------------- play

    def play(self, *, checks_parity: bool = False) -> SimResult:
        """Run it to its end and look at what must hold."""
        try:
            for _ in range(STEPS):
                self._survive(self._step)
            self._settle()
            self._judge()
            if checks_parity and not self.result.problems and self._rules.remembers:
                self._check_parity()
        finally:
            for life in (*self._old, *([self._life] if self._life else [])):
                life.close()
        self.result.facts.update({f"broker_{name}": n for name, n in self._world.book.hits.items()})
        self.result.facts["calls"] = len(self._world.book.calls)
        return self.result

    def _faults(self) -> BrokerFaults:
        return BrokerFaults(
            refused=self._chance() / 2,
            request_lost=self._chance(),
            request_late=self._chance(),
            reply_lost=self._chance(),
            reply_late=self._chance(),
            ids_late=self._chance(),
            event_lost=self._chance(),
            event_double=self._chance(),
            event_late=self._chance(),
            deal_first=self._chance(),
            partial=2 * self._chance(),
            rests=self._chance(),
            query_fails=self._chance(),
            carries_tags=self._draw.random() < 0.3,
            # Mostly within the wait before an order counts as not found, and now and then beyond.
            late_ms=self._draw.choice((2_000, 6_000, 6_000, 25_000)),
            work_ms=self._draw.choice((5, 50, 400)),
        )

    def _chance(self) -> float:
        """How often one kind of fault is to happen in this run."""
        return self._draw.choice(_PROBABILITIES)

    def _note(self, text: str) -> None:
        at_ms = (self._world.now_ns - START_NS) // MS
        self.result.trace.append(f"{at_ms:7} ms  {text}")

    # ---------------------------------------------------------------- steps

    def _survive(self, step: object) -> None:
        """Take a step; whoever dies in it is dead."""
        if self._life is None:
            self._start()
        if self._life is None:
            return
        try:
            step()  # type: ignore[operator]  # a bound method of this class
        except Death as death:
            self._die(str(death))

    def _step(self) -> None:
        life = self._alive()
        action = self._draw.choices(
            ("want", "again", "dispatch", "wait", "cancel", "reconcile", "crash"),
            weights=(22, 8, 34, 20, 6, 8, 7),
        )[0]
        if action == "want" and len(self._wants) < WANTS_MAX:
            self._want()
        elif action == "again" and self._wants:
            self._submit(self._draw.choice(self._wants))
        elif action == "dispatch":
            self._dispatch()
        elif action == "cancel":
            life.cancel_one(self._draw, self._note)
        elif action == "reconcile":
            life.reconcile()
        elif action == "crash":
            self._crash(self._draw.choice(_CRASHES))
        else:
            self._wait(self._draw.choice((1, 20, 300, 1_000, 4_000)) * MS)

    def _want(self) -> None:
        runner = self._draw.randrange(RUNNERS)
        self._next_ids[runner] += 1
        want = Want(
            runner=runner,
            external_id=self._next_ids[runner],
            rank=len(self._wants),
            side=self._draw.choice((1, -1)),
            lots=self._draw.randint(1, 3),
            time_in_force=self._draw.choice((1, 1, 1, 2, 3)),
        )
        self._wants.append(want)
        self._submit(want)

    def _submit(self, want: Want) -> None:
        life = self._alive()
        self._note(f"runner {want.runner} sends intent {want.external_id} at {want.price_text}")
        life.quote()
        life.submit(want)
        want.is_answered = True

    def _dispatch(self) -> None:
        outcome = self._alive().dispatch()
        if outcome is not None:
            request, result = outcome
            self._note(f"call of order {request.order_id}: {result.outcome} {result.message}")
            self.result.facts[str(result.outcome)] += 1
            if result.outcome == Outcome.AMBIGUOUS and request.action == 1:
                self._world.ambiguous[request.tag] = request

    def _wait(self, duration_ns: int) -> None:
        self._world.now_ns += duration_ns
        life = self._alive()
        life.deliver()
        if duration_ns >= 300 * MS:
            life.reconcile()

    def _crash(self, kind: str) -> None:
        life = self._alive()
        self.result.facts[f"crash_{kind}"] += 1
        if kind == "now":
            raise Death("it is killed")
        if kind == "popped":
            if life.pop() is not None:
                raise Death("it is killed with a request in its hands")
        elif kind in ("before_place", "after_place"):
            life.dies_at = kind
        elif kind == "torn":
            self._torn_write()
        else:
            self._pause()

    def _torn_write(self) -> None:
        """Die in the middle of a write: the logs end anywhere between before and after."""
        if len(self._wants) >= WANTS_MAX or not self._rules.remembers:
            raise Death("it is killed")
        self._alive().quote()
        before = log_image(self._life_folder())
        self._want()
        # Nobody heard an answer.
        self._wants[-1].is_answered = False
        life = self._alive()
        life.close()
        share = self._draw.random()
        tear(before, self._life_folder(), share)
        raise Death(f"it is killed in a write, {share:.0%} of which is there")

    def _pause(self) -> None:
        """Freeze it with a request in its hands; the next life fences it."""
        life = self._alive()
        life.pop()
        self._note(f"gateway {life.number} is frozen")
        life.close()
        self._old.append(life)
        self._life = None
        self._start()
        if self._life is not None:
            self._wake_old()

    def _wake_old(self) -> None:
        for old in self._old:
            before = len(self._world.book.calls)
            tried = old.resume()
            self.result.facts["fenced_calls"] += tried
            if len(self._world.book.calls) != before:
                self.result.problems.append("a gateway that was replaced called the broker")
        self._old.clear()

    # ---------------------------------------------------------------- lives

    def _alive(self) -> Life:
        if self._life is None:
            raise Death("nobody is alive")
        return self._life

    def _life_folder(self) -> Path:
        return self._folder / ("run" if self._rules.remembers else f"run-{self._lives}")

    def _start(self) -> None:
        self._lives += 1
        self._world.epoch += 1
        self.result.facts["takeovers"] += self._lives > 1
        life = Life(self._lives, self._life_folder(), self._world)
        self._life = life
        self._note(f"gateway {life.number} starts with epoch {self._world.epoch}: {life.found}")
        self.result.facts["unknown_at_start"] += life.found.get("unknown_orders", 0)
        try:
            life.begin(self._draw.choice((1, 4, 40)))
        except Death as death:
            self._die(str(death))
            return
        # Runners that heard no answer ask again, with the same number.
        for want in self._wants:
            if not want.is_answered or not self._rules.remembers:
                life.quote()
                life.submit(want)
                want.is_answered = True

    def _die(self, why: str) -> None:
        if self._life is not None:
            self._note(f"gateway {self._life.number}: {why}")
            self.result.facts["deaths"] += 1
            self._life.close()
            self._life = None

    # ------------------------------------------------------------------ end

    def _settle(self) -> None:
        """No more faults: everything must come to rest by itself."""
        self._note("the faults end")
        self._world.book.settle(self._world.now_ns)
        for _ in range(SETTLE_STEPS):
            self._survive(self._rest)
            if self._life is not None and self._life.is_quiet():
                return
        self.result.problems.append("it did not come to rest")

    def _rest(self) -> None:
        life = self._alive()
        life.dies_at = ""
        self._world.now_ns += SECOND
        life.deliver()
        while True:
            before = len(self._world.book.calls)
            self._dispatch()
            if len(self._world.book.calls) == before and not life.has_requests():
                break
        life.reconcile()
        if self._rules.resends:
            self._resend(life)

    def _resend(self, life: Life) -> None:
        """The control: what was abandoned is sent again."""
        for tag, request in sorted(self._world.ambiguous.items()):
            if tag not in self._resent and life.is_rejected(request.order_id):
                self._resent.add(tag)
                self._note(f"order {request.order_id} is sent again")
                life.send_again(request)

    def _judge(self) -> None:
        problems = self.result.problems
        book = self._world.book
        for name in ("price", "tag"):
            counts = Counter(getattr(call, name) for call in book.calls)
            problems += [
                f"{count} calls to place the intent with {name} {value}"
                for value, count in sorted(counts.items())
                if count > 1
            ]
        if not self._rules.remembers or self._rules.resends or self._life is None:
            return
        problems += self._life.differences(self._wants)
        self.result.facts.update(self._life.resolutions())

    def _check_parity(self) -> None:
        report = self._alive().parity()
        self._life = None
        self.result.facts["parity_runs"] += 1
        self.result.facts["parity_decisions"] += report.identical
        if not report.is_identical:
            self.result.problems.append(
                f"{report.identical} of {report.total} decisions come out again from the logs"
            )


def play(seed: int, *, rules: SimRules | None = None, checks_parity: bool = False) -> SimResult:
    """Run one seed in a folder of its own, in memory where there is one.

    Parameters
    ----------
    seed : int
        Decides everything.
    rules : SimRules, optional
        The platform's, or a control's.
    checks_parity : bool, optional
        Decide the whole session again from its logs.

    Returns
    -------
    SimResult
    """
    memory = Path("/dev/shm")  # noqa: S108  # a folder of its own is made in it
    folder = Path(tempfile.mkdtemp(prefix="hft-sim-", dir=memory if memory.is_dir() else None))
    try:
        return Run(seed, folder, rules).play(checks_parity=checks_parity)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run seeds; print the trace of one, or the counts of many as JSON."""
    parser = argparse.ArgumentParser(prog=f"python -m {__name__}")
    parser.add_argument("--seed", type=int, default=1, help="first seed")
    parser.add_argument("--count", type=int, default=1, help="how many; one prints its trace")
    parser.add_argument("--parity-every", type=int, default=50, help="decide every n-th again")
    parser.add_argument("--forgets", action="store_true", help="control: dedup in memory only")
    parser.add_argument("--resends", action="store_true", help="control: resend on not found")
    parser.add_argument("--json", action="store_true", help="print counts, also of one run")
    parser.add_argument("--stop-after", type=int, default=5, help="failed runs after which to stop")
    arguments = parser.parse_args(argv)
    # Warnings are what a run is made of; its own trace and counts are the output.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    rules = SimRules(remembers=not arguments.forgets, resends=arguments.resends)
    facts: Counter[str] = Counter()
    failed: list[SimResult] = []
    started = time.perf_counter()
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        result = play(seed, rules=rules, checks_parity=seed % arguments.parity_every == 0)
        facts.update(result.facts)
        facts["runs"] += 1
        if result.problems:
            failed.append(result)
            if len(failed) >= arguments.stop_after:
                break
    if arguments.count == 1 and not arguments.json:
        sys.stdout.write("\n".join([*result.trace, *(f"PROBLEM {p}" for p in result.problems)]))
        sys.stdout.write(f"\n{dict(facts)}\n")
    else:
        content = {
            "facts": dict(facts),
            "seconds": round(time.perf_counter() - started, 2),
            "failed": [
                {"seed": one.seed, "problems": one.problems, "trace": one.trace} for one in failed
            ],
        }
        sys.stdout.write(json.dumps(content) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
