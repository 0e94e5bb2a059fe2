"""Runs of real processes: two gateways, three runners and a broker, killed and frozen by seed.

Why: what a simulation cannot have is had here: kernels that free locks, sockets that lose what was
on them, threads that are cut anywhere, files as a killed process leaves them.

Invariants:
1. What was sent is counted from the broker's journal, which no gateway can touch.
2. Processes are ended by the ids of their forks; this one starts no thread, so that it may fork.
3. The seed decides who is killed or frozen, and when; what the machine makes of it decides where.

To look at one run: ``python -m hft_platform.drills.gateway_chaos_run --seed 7 --folder /tmp/x``.
Operator's page: `docs/drills/gateway-chaos.md`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from hft_platform.drills.broker_book import BrokerFaults, PlaceCall
from hft_platform.drills.broker_client import DrillBroker
from hft_platform.drills.gateway_roles import (
    LIFE_SECONDS,
    RUNNERS,
    WANTS,
    Place,
    broker_role,
    gateway_role,
    runner_role,
    want_of,
)
from hft_platform.drills.order_life import START_NS, parity_of_folder
from hft_platform.drills.process_tree import Child, ProcessTree

WORK_SECONDS = 1.0
SETTLE_SECONDS, CONTROL_SECONDS = 12.0, 1.5
AGAIN_SECONDS = (0.01, 0.12)
"""A killed process is forked again after a time from here."""
FROZEN_SECONDS = (0.03, 0.5)
_PROBABILITIES = (0.0, 0.05, 0.2)
POLL_S = 0.005


@dataclass(slots=True)
class ProcessResult:
    """What came of one run.

    Attributes
    ----------
    seed : int
        Decides it.
    problems : list of str
        What must not be so.
    trace : list of str
        Who was killed and frozen when.
    facts : Counter
        How much happened.
    """

    seed: int
    problems: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    facts: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "seed": self.seed,
            "problems": self.problems,
            "trace": self.trace,
            "facts": dict(self.facts),
        }


class ProcessRun:
    """One run of real processes.

    Parameters
    ----------
    seed : int
        Decides who dies when, and what the broker does wrong.
    folder : Path
        Empty folder with a short path.
    control : str, optional
        What is broken on purpose (`Place.control`).
    """

    def __init__(self, seed: int, folder: Path, control: str = "") -> None:
        self.result = ProcessResult(seed)
        self._draw = Random(seed)  # noqa: S311  # a drill's dice
        self._place = Place(folder, START_NS - time.time_ns(), seed, control)
        self._children: dict[str, Child] = {}
        self._lives: Counter[str] = Counter()
        self._started = time.monotonic()

    def play(self) -> ProcessResult:
        """Run it to its end and look at what must hold."""
        with ProcessTree() as tree:
            self._tree = tree
            self._fork("broker")
            self._wait_for(self._place.broker_socket)
            for name in ("gateway-a", "gateway-b", *(f"runner-{n}" for n in range(RUNNERS))):
                self._fork(name)
            self._chaos()
            self._settle()
            self._judge()
        return self.result

    # ---------------------------------------------------------------- chaos

    def _chaos(self) -> None:
        """Kill and freeze until the time is over."""
        until = time.monotonic() + WORK_SECONDS
        agenda: list[tuple[float, str, str]] = []
        deaths = 12 if self._place.control == "forgets" else self._draw.randint(3, 8)
        for _ in range(deaths):
            at = time.monotonic() + self._draw.uniform(0.05, WORK_SECONDS)
            kind = self._draw.choice(("kill", "kill", "freeze"))
            names = ["gateway-a", "gateway-b"] * 3 + [f"runner-{n}" for n in range(RUNNERS)]
            agenda.append((at, kind, self._draw.choice(names)))
        while agenda or time.monotonic() < until:
            agenda.sort()
            if not agenda or agenda[0][0] > time.monotonic():
                time.sleep(POLL_S)
                self._note_deaths(agenda)
                continue
            _, kind, name = agenda.pop(0)
            self._act(kind, name, agenda)
        for child in self._children.values():
            if child.is_frozen:
                child.thaw()
        self._note_deaths([])

    def _act(self, kind: str, name: str, agenda: list[tuple[float, str, str]]) -> None:
        child = self._children[name]
        if kind == "fork":
            if not child.is_running:
                self._fork(name)
        elif kind == "thaw":
            if child.is_frozen and child.thaw():
                self._note(f"{name} goes on")
        elif kind == "freeze":
            if not child.is_frozen and child.freeze():
                self._note(f"{name} is frozen")
                self.result.facts["frozen"] += 1
                later = time.monotonic() + self._draw.uniform(*FROZEN_SECONDS)
                agenda.append((later, "thaw", name))
        elif child.kill():
            self._note(f"{name} is killed")
            self.result.facts["killed_gateways" if "gateway" in name else "killed_runners"] += 1

    def _note_deaths(self, agenda: list[tuple[float, str, str]]) -> None:
        """Fork again who is gone, also who was fenced by the other gateway."""
        due = {name for _, kind, name in agenda if kind == "fork"}
        for name, child in self._children.items():
            if name in due or child.is_running or child.exit_code == 0:
                continue
            if child.exit_code not in (-9, None):
                self._note(f"{name} ended with {child.exit_code}")
                self.result.facts["ended_by_themselves"] += 1
            elif child.is_frozen:
                self._note(f"{name} was fenced")
                self.result.facts["fenced"] += 1
            later = time.monotonic() + self._draw.uniform(*AGAIN_SECONDS)
            agenda.append((later, "fork", name))

    def _fork(self, name: str) -> None:
        self._lives[name] += 1
        life, place = self._lives[name], self._place
        if name == "broker":
            faults = self._faults()
            work = lambda: broker_role(place, faults)  # noqa: E731  # one of three
        elif name.startswith("gateway"):
            work = lambda: gateway_role(place)  # noqa: E731
        else:
            work = lambda: runner_role(place, int(name[-1]), life)  # noqa: E731
        self._children[name] = self._tree.fork(name, work, place.folder / f"{name}.err")
        self._note(f"{name} starts, life {life}")

    def _faults(self) -> BrokerFaults:
        if self._place.control == "resends":
            # What is sent again must have been lost before.
            return BrokerFaults(request_lost=0.5, reply_lost=0.1)
        names = (
            "request_lost", "request_late", "reply_lost", "reply_late", "ids_late", "event_lost",
            "event_double", "event_late", "deal_first", "rests", "query_fails", "cut",
        )  # fmt: skip
        chances = {name: self._chance() for name in names}
        return BrokerFaults(
            **chances,
            refused=self._chance() / 2,
            partial=2 * self._chance(),
            stall=self._chance() / 4,
            carries_tags=self._draw.random() < 0.3,
            late_ms=300,
            stall_ms=200,
            work_ms=20,
        )

    # ------------------------------------------------------------------ end

    def _settle(self) -> None:
        """The faults end; whoever is gone comes back; runners finish, then gateways."""
        self._note("the faults end")
        control = DrillBroker(self._place.broker_socket)
        control.control("settle")
        self._place.tell("finish")
        runners = [f"runner-{n}" for n in range(RUNNERS)]
        self._finish(runners, keep=("gateway-a", "gateway-b"))
        self._place.tell("finish-gateway")
        self._finish(["gateway-a", "gateway-b"], keep=())
        state = control.control("state")
        self.result.facts.update({f"broker_{name}": n for name, n in state["hits"].items()})
        self._orders = control.orders()
        self._positions = control.positions()
        control.close()

    def _finish(self, names: Sequence[str], *, keep: Sequence[str]) -> None:
        seconds = CONTROL_SECONDS if self._place.control else SETTLE_SECONDS
        deadline = time.monotonic() + seconds
        while any(self._children[name].exit_code != 0 for name in names):
            for name in (*names, *keep):
                child = self._children[name]
                if not child.is_running and child.exit_code != 0:
                    self._fork(name)
            if time.monotonic() > deadline:
                late = [name for name in names if self._children[name].exit_code != 0]
                self.result.problems.append(f"did not come to rest: {', '.join(late)}")
                return
            time.sleep(POLL_S)

    def _judge(self) -> None:
        result, folder = self.result, self._place.folder
        lines = self._place.journal.read_text().splitlines()
        calls = [PlaceCall(**json.loads(line)) for line in lines]
        result.facts["calls"] = len(calls)
        for name in ("price", "tag"):
            counts = Counter(getattr(call, name) for call in calls)
            result.problems += [
                f"{count} calls to place the intent with {name} {value}"
                for value, count in sorted(counts.items())
                if count > 1
            ]
        prices = {
            want_of(self._place.seed, runner, number).price
            for runner in range(RUNNERS)
            for number in range(WANTS)
        }
        result.problems += [
            f"a call at {call.price} that no runner wanted"
            for call in calls
            if call.price not in prices
        ]
        result.facts["gateway_lives"] = self._lives["gateway-a"] + self._lives["gateway-b"]
        if result.problems or self._place.control:
            return
        self._judge_positions(folder)
        if not result.problems:
            self._judge_parity(folder)

    def _judge_positions(self, folder: Path) -> None:
        problems = self.result.problems
        said = self._said("gateway")
        ours = {int(index): qty for index, qty in said["positions"].items()}
        total = sum(row.net_qty for row in self._positions)
        if sum(ours.values()) != total:
            problems.append(f"the gateway holds {sum(ours.values())}, the broker {total}")
        for index in range(RUNNERS):
            runner = self._said(f"runner-{index}")
            held = sum(runner["positions"].values())
            if held != ours.get(index, 0):
                problems.append(
                    f"runner {index} holds {held}, the gateway for it {ours.get(index, 0)}"
                )
            self.result.facts["runner_lives"] += int(runner["epoch"])
        open_orders = [order.tag for order in self._orders if order.filled_qty < order.qty]
        self.result.facts["orders_with_a_rest"] += len(open_orders)
        self.result.facts["epochs"] += int(said["epoch"])

    def _judge_parity(self, folder: Path) -> None:
        for name in ("gateway", *(f"runner-{n}" for n in range(RUNNERS))):
            report = parity_of_folder(folder / name, (folder / name / "engine.json").read_text())
            self.result.facts["decisions"] += report.identical
            self.result.facts["lives_decided_again"] += report.lives
            if not report.is_identical:
                self.result.problems.append(
                    f"{name}: {report.identical} of {report.total} decisions come out again"
                )

    def _said(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self._place.result(name).read_text())
        return content

    def _wait_for(self, path: Path) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def _chance(self) -> float:
        """How often one kind of fault is to happen in this run."""
        return self._draw.choice(_PROBABILITIES)

    def _note(self, text: str) -> None:
        self.result.trace.append(f"{time.monotonic() - self._started:6.3f} s  {text}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run seeds, some at a time, and print the counts as JSON."""
    parser = argparse.ArgumentParser(prog=f"python -m {__name__}")
    parser.add_argument("--seed", type=int, default=1, help="first seed")
    parser.add_argument("--count", type=int, default=1, help="how many")
    parser.add_argument("--at-once", type=int, default=3, help="how many overlap")
    parser.add_argument("--control", choices=("", "forgets", "resends"), default="")
    parser.add_argument("--folder", type=Path, help="keeps the folders of failed runs here")
    arguments = parser.parse_args(argv)
    memory = Path("/dev/shm")  # noqa: S108  # a folder of its own is made in it
    base = Path(tempfile.mkdtemp(prefix="hft-g-", dir=memory if memory.is_dir() else None))
    started = time.perf_counter()
    results = _run_all(
        range(arguments.seed, arguments.seed + arguments.count),
        base,
        arguments.at_once,
        arguments.control,
    )
    failed = [one for one in results if one["problems"]]
    if arguments.folder is not None and not arguments.control:
        for one in failed:
            shutil.copytree(
                base / str(one["seed"]), arguments.folder / str(one["seed"]),
                ignore=shutil.ignore_patterns("*.sock"), dirs_exist_ok=True,
            )  # fmt: skip
    shutil.rmtree(base, ignore_errors=True)
    facts: Counter[str] = Counter(runs=len(results))
    for one in results:
        facts.update(one["facts"])
    seconds = round(time.perf_counter() - started, 1)
    sys.stdout.write(
        json.dumps({"facts": dict(facts), "seconds": seconds, "failed": failed}) + "\n"
    )
    return 1 if failed else 0


def _run_all(seeds: range, base: Path, at_once: int, control: str) -> list[dict[str, Any]]:
    """Every run in a process of its own, so many at a time."""
    waiting = list(seeds)
    running: dict[int, tuple[Child, float]] = {}
    results: list[dict[str, Any]] = []
    with ProcessTree() as tree:
        while waiting or running:
            while waiting and len(running) < at_once:
                seed = waiting.pop(0)
                folder = base / str(seed)
                folder.mkdir()
                work = partial(_drive, seed, folder, control)
                driver = tree.fork(str(seed), work, folder / "err")
                running[seed] = (driver, time.monotonic() + LIFE_SECONDS)
            for seed, (driver, deadline) in list(running.items()):
                if driver.is_running and time.monotonic() < deadline:
                    continue
                driver.kill()
                del running[seed]
                results.append(_result_of(seed, base / str(seed)))
                if not results[-1]["problems"]:
                    shutil.rmtree(base / str(seed), ignore_errors=True)
            time.sleep(POLL_S)
    return results


def _drive(seed: int, folder: Path, control: str) -> None:
    result = ProcessRun(seed, folder, control).play()
    (folder / "result.json").write_text(json.dumps(result.as_dict()))


def _result_of(seed: int, folder: Path) -> dict[str, Any]:
    path = folder / "result.json"
    if path.exists():
        content: dict[str, Any] = json.loads(path.read_text())
        if content["problems"]:
            content["errors"] = {
                one.name: one.read_text(errors="replace")[-1_500:]
                for one in sorted(folder.glob("*.err"))
                if one.stat().st_size
            }
        return content
    text = (folder / "err").read_text(errors="replace")[-1_500:]
    return {"seed": seed, "problems": [f"the run ended: {text}"], "trace": [], "facts": {}}


if __name__ == "__main__":
    sys.exit(main())
