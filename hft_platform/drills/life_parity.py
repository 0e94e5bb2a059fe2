"""Parity over deaths: every life of a session folder, decided again from what it began with.

Why: a session that was killed and went on is evidence only if each life follows from the order log
that it found and from its own inputs.

Invariants:
1. A life begins with its Epoch record: its engine recovers from the order log before it.
2. Decisions are compared byte for byte, up to the life's first missing input: what a killed process
   had not written yet was never acted on, and nothing behind it can be decided again.

Operator's page: `docs/drills/order-chaos.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hft_platform import _core, records

_CODES = records.TYPE_CODES
_EPOCH, _DECISION = _CODES["Epoch"], _CODES["Decision"]


@dataclass(frozen=True, slots=True)
class LifeParity:
    """How the decisions of all lives came out again.

    Attributes
    ----------
    lives : int
        Epochs of the log.
    decisions : int
        Decisions that can be made again.
    differing : tuple of str
        Lives whose decisions came out otherwise.
    """

    lives: int
    decisions: int
    differing: tuple[str, ...]


@dataclass(slots=True)
class _Life:
    """One life: the order log before it, its inputs by `input_seq`, its decisions in order."""

    epoch: int
    before: bytes
    inputs: dict[int, bytes]
    decisions: list[tuple[int, bytes]]


def life_parity(folder: Path, engine_config: str) -> LifeParity:
    """Decide every life of a session folder again.

    Parameters
    ----------
    folder : Path
        Of the session; nobody writes to it.
    engine_config : str
        It ran with.

    Returns
    -------
    LifeParity
    """
    lives = _lives(folder)
    total, differing = 0, []
    for life in lives:
        logged, replayed = _replay(life, engine_config)
        total += len(logged)
        if b"".join(logged) != replayed:
            differing.append(f"epoch {life.epoch}: {_first(logged, replayed)}")
    return LifeParity(len(lives), total, tuple(differing))


def _lives(folder: Path) -> list[_Life]:
    orders = list(_each(_core.read_log(str(folder / "orders"))["tape"]))
    lives: list[_Life] = []
    head: dict[int, bytes] = {}
    before = b""
    for code, seq, record in orders:
        if code == _EPOCH:
            epoch = int.from_bytes(record[64:72], "little")
            # What a new session writes before its first epoch belongs to its first life.
            lives.append(_Life(epoch, before if lives else b"", dict(head), []))
            head = {}
        if code == _DECISION:
            if lives:
                lives[-1].decisions.append((seq, record))
        elif lives:
            lives[-1].inputs[seq] = record
        else:
            head[seq] = record
        before += record
    starts = [min(life.inputs) for life in lives]
    for _, seq, record in _each(_core.read_log(str(folder / "market"))["tape"]):
        index = max((place for place, start in enumerate(starts) if start <= seq), default=0)
        lives[index].inputs[seq] = record
    return lives


def _replay(life: _Life, engine_config: str) -> tuple[list[bytes], bytes]:
    engine = _core.Engine(engine_config)
    if life.before:
        engine.recover(life.before)
    seq = min(life.inputs)
    tape = []
    while seq in life.inputs:
        tape.append(life.inputs[seq])
        seq += 1
    return [record for at, record in life.decisions if at < seq], engine.on_tape(b"".join(tape))


def _first(logged: list[bytes], replayed: bytes) -> str:
    """Which decision differs first, and in what."""
    width = records.DTYPES["Decision"].itemsize
    for place, record in enumerate(logged):
        other = replayed[place * width : (place + 1) * width]
        if other == record:
            continue
        ours = records.split(record)["Decision"][0]
        if not other:
            return f"input {ours['input_seq']}: not decided again"
        theirs = records.split(other)["Decision"][0]
        names = [n for n in ours.dtype.names or () if ours[n].tobytes() != theirs[n].tobytes()]
        return f"input {ours['input_seq']}: {', '.join(names)}"
    return f"{len(replayed) // width - len(logged)} decisions only in the replay"


def _each(tape: bytes) -> list[tuple[int, int, bytes]]:
    """Code, `input_seq` and bytes of every record."""
    rows, at = [], 0
    while at < len(tape):
        size = int.from_bytes(tape[at : at + 2], "little")
        record = tape[at : at + size]
        rows.append((record[2], int.from_bytes(record[8:16], "little"), record))
        at += size
    return rows
