"""A process that forks writers of two logs and kills them, to be run on its own.

Why: a power cut can be simulated, a killed process can be had. The child opens both logs of a
session, appends, rotates, seals and opens again; it tells what was acknowledged through shared
memory, which outlives it. The parent kills it at a random moment and reads the logs.

Invariants:
1. The parent starts no thread: a fork copies one thread only. It never opens a writer itself.
2. Every record carries the life in which it was written, so a record of a lost tail that came back
   is told from its successor.
3. The seed decides every delay; what the machine makes of it decides where the kill lands.

It is started by the drill `wal-kill` (`hft_platform/drills/wal.py`).
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import shutil
import signal
import struct
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hft_platform import _core, records

LOGS = ("market", "orders")
TYPES = ("Trade", "Command")
SEGMENT_BYTES = 8 << 10
LIVES_PER_LOG = 100
"""After so many lives a new folder is used: every open verifies all sealed segments."""
STEPS, ROTATE_STEPS = 96, 24
"""Records of the market log between two seals, and between two rotations."""
OPENING_SHARE = 0.2
OPENING_S_MAX, WORKING_S_MAX = 0.005, 0.012
OPEN_S_MAX = 30.0
"""Longest wait for a life to begin, or to acknowledge its first record."""
FIRST_TIME_NS = 1_775_000_000_000_000_000
ACKED, LAST, START, PHASE = 0, 2, 4, 6
WORDS = 7
PROBLEMS = ("lost", "phantom", "out_of_order", "refused")
OPENING, APPENDING, ROTATING, SEALING = 1, 2, 3, 4


class Shared:
    """Words that the child writes and the parent reads, also after the child is dead."""

    def __init__(self) -> None:
        # Whole words: a kill between two bytes of a number would make it another one.
        self._words = memoryview(mmap.mmap(-1, 8 * WORDS)).cast("Q")

    def put(self, word: int, value: int) -> None:
        """Store a word."""
        self._words[word] = value

    def get(self, word: int) -> int:
        """Read a word."""
        return int(self._words[word])

    def acked(self, index: int) -> int:
        """Count what this life acknowledged of a log."""
        start = self.get(START + index)
        return max(self.get(ACKED + index) - (start - 1), 0) if start else 0


class Tape:
    """Makes records without numpy: numbered, with the life in `source_seq`."""

    def __init__(self, type_name: str) -> None:
        dtype = records.DTYPES[type_name]
        self._bytes = bytearray(records.empty(type_name, 1).tobytes())
        fields: Mapping[str, Any] = dtype.fields or {}
        self._at = {
            name: fields[name][1] for name in ("input_seq", "source_seq", "sequence_time_ns")
        }

    def record(self, seq: int, life: int) -> bytes:
        """The record that must stand at `seq`."""
        struct.pack_into("<Q", self._bytes, self._at["input_seq"], seq)
        struct.pack_into("<Q", self._bytes, self._at["source_seq"], life)
        struct.pack_into("<q", self._bytes, self._at["sequence_time_ns"], FIRST_TIME_NS + seq)
        return bytes(self._bytes)


def _live(folder: Path, shared: Shared, life: int, *, acks_early: bool) -> None:
    """The child: work until killed."""
    tapes = [Tape(name) for name in TYPES]
    while True:
        shared.put(PHASE, OPENING)
        writers = []
        for index, name in enumerate(LOGS):
            writer = _core.WalWriter(
                str(folder / name),
                7 + index,
                name,
                segment_bytes=SEGMENT_BYTES,
                group_commit_ms=2 if index == 0 else 0,
                epoch=life,
            )
            start = writer.last_seq()
            if shared.get(START + index) == 0:
                # One higher, for 0 says that this life never came so far.
                shared.put(START + index, start + 1)
            shared.put(LAST + index, start)
            shared.put(ACKED + index, writer.durable_seq())
            writers.append(writer)
        market, orders = writers
        for step in range(STEPS):
            shared.put(PHASE, APPENDING)
            _append(market, tapes[0], shared, 0, life, acks_early=acks_early)
            if step % 4 == 0:
                _append(orders, tapes[1], shared, 1, life, acks_early=acks_early)
            if step % ROTATE_STEPS == ROTATE_STEPS - 1:
                shared.put(PHASE, ROTATING)
                writers[step // ROTATE_STEPS % 2].rotate()
            shared.put(ACKED, max(shared.get(ACKED), market.durable_seq()))
        shared.put(PHASE, SEALING)
        for index, writer in enumerate(writers):
            shared.put(ACKED + index, writer.seal())


def _append(
    writer: Any,  # Any: a writer's class has no public protocol
    tape: Tape,
    shared: Shared,
    index: int,
    life: int,
    *,
    acks_early: bool,
) -> None:
    seq = shared.get(LAST + index) + 1
    record = tape.record(seq, life)
    # Before the append: a record may be on disk and this process dead before it can say so.
    shared.put(LAST + index, seq)
    if index == 1 and not acks_early:
        shared.put(ACKED + index, writer.append_durable(record))
        return
    writer.append(record)
    if acks_early:
        shared.put(ACKED + index, seq)


def _wait(is_so: Callable[[], bool]) -> None:
    """Wait until something is so, or for `OPEN_S_MAX`."""
    deadline = time.monotonic() + OPEN_S_MAX
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.0002)


class Lives:
    """Kills one life after the other and holds what the logs say against what was acknowledged."""

    def __init__(self, folder: Path, seed: int, *, acks_early: bool) -> None:
        self._folder = folder
        self._draw = np.random.default_rng(seed)
        self._acks_early = acks_early
        self._expected: list[Any] = []
        self._counts: list[int] = []
        self._life = 0
        self.facts: dict[str, Any] = dict.fromkeys(
            (
                "kills", "kills_with_acks", "kills_opening", "kills_rotating", "kills_sealing",
                "acked_records", "lost", "phantom", "out_of_order", "refused", "recoveries_killed",
            ),
            0,
        )  # fmt: skip

    def run(self, kills: int) -> dict[str, Any]:
        """Kill so many lives that had acknowledged something; returns the counts."""
        number = 0
        # Lives that die before their first acknowledgement prove little and do not count.
        while self.facts["kills_with_acks"] < kills and number < 4 * kills + 50:
            if number % LIVES_PER_LOG == 0:
                self._begin(number // LIVES_PER_LOG)
            before = self._problems()
            self._one()
            if self._problems() > before and "first_problem" not in self.facts:
                counts = {name: self.facts[name] for name in PROBLEMS}
                self.facts["first_problem"] = (
                    f"life {self._life} of folder {self._number}: {counts}"
                )
            number += 1
        return self.facts

    def _problems(self) -> int:
        return sum(int(self.facts[name]) for name in PROBLEMS)

    def _begin(self, number: int) -> None:
        shutil.rmtree(self._log_folder(), ignore_errors=True)
        self._number = number
        self._log_folder().mkdir(parents=True)
        self._expected = [np.zeros(0, np.uint64), np.zeros(0, np.uint64)]
        self._life = 0

    def _log_folder(self) -> Path:
        return self._folder / f"logs-{getattr(self, '_number', 0)}"

    def _one(self) -> None:
        self._life += 1
        shared = Shared()
        child = os.fork()
        if child == 0:
            try:
                _live(self._log_folder(), shared, self._life, acks_early=self._acks_early)
            finally:
                # Nothing but a kill ends a life.
                sys.stderr.write(f"life {self._life}: {sys.exception()!r}\n")
                sys.stderr.flush()
                os._exit(3)
        # Sometimes while it opens and recovers, mostly while it works.
        share = float(self._draw.random())
        # Each waits for its kind of life to be lived, however busy the machine is.
        if self._draw.random() < OPENING_SHARE:
            _wait(lambda: shared.get(PHASE) != 0)
            time.sleep(OPENING_S_MAX * share)
        else:
            _wait(lambda: shared.acked(0) + shared.acked(1) > 0)
            time.sleep(WORKING_S_MAX * share)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        self.facts["kills"] += 1
        if not os.WIFSIGNALED(status):
            self.facts["refused"] += 1
        self._note_phase(shared)
        self._hold(shared)

    def _note_phase(self, shared: Shared) -> None:
        names = {OPENING: "kills_opening", ROTATING: "kills_rotating", SEALING: "kills_sealing"}
        phase = shared.get(PHASE)
        if phase in names:
            self.facts[names[phase]] += 1
        if phase == OPENING and self._life > 1 and shared.get(START) == 0:
            self.facts["recoveries_killed"] += 1

    def _hold(self, shared: Shared) -> None:
        has_acks = False
        for index, name in enumerate(LOGS):
            start, last = shared.get(START + index), shared.get(LAST + index)
            expected = self._expected[index]
            if start:
                # This life went on behind what it found, and wrote at most up to `last`.
                ours = np.full(max(last - (start - 1), 0), self._life, np.uint64)
                expected = np.concatenate([expected[: start - 1], ours])
            acked = shared.get(ACKED + index)
            has_acks |= shared.acked(index) > 0
            self.facts["acked_records"] += shared.acked(index)
            folder = self._log_folder() / name
            if not folder.is_dir():
                self._expected[index] = expected
                continue
            try:
                tape = _core.read_log(str(folder))["tape"]
            except _core.WalError as error:
                sys.stderr.write(f"life {self._life}, {name}: {error.args}\n")
                self.facts["refused"] += 1
                continue
            rows = records.split(tape)[TYPES[index]]
            self.facts["lost"] += max(acked - rows.size, 0)
            numbers = np.arange(1, rows.size + 1, dtype=np.uint64)
            self.facts["out_of_order"] += int((rows["input_seq"] != numbers).sum())
            common = min(rows.size, expected.size)
            self.facts["phantom"] += max(rows.size - expected.size, 0)
            self.facts["phantom"] += int((rows["source_seq"][:common] != expected[:common]).sum())
            self._expected[index] = expected[:common]
        self.facts["kills_with_acks"] += has_acks


def main() -> int:
    """Run the lives and print the counts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--kills", type=int, required=True)
    parser.add_argument("--acks-early", action="store_true", help="the negative control")
    arguments = parser.parse_args()
    lives = Lives(arguments.folder, arguments.seed, acks_early=arguments.acks_early)
    sys.stdout.write(json.dumps(lives.run(arguments.kills)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
