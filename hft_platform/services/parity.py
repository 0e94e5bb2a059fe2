"""Parity: replay a session's logs through the engine and hold every decision against the log.

The two logs of a session carry one global input sequence. Merged by it (decisions left out) they
are the engine's input, in the order in which it was decided. The engine is deterministic, so the
decisions it makes again must be the logged ones, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hft_platform import _core, records
from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.errors import PlatformError, ReasonCode

DIFFERENCES_SHOWN = 20
"""More than this many differing decisions are counted, not listed."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One decision that came out otherwise, with the first fields that differ."""

    decision_index: int
    input_seq: int
    fields: dict[str, tuple[Any, Any]]
    cause: str


@dataclass(frozen=True, slots=True)
class ParityReport:
    """How many decisions of a session came out identical when decided again."""

    total: int
    identical: int
    logged: int
    replayed: int
    decisions_sha256: str
    inputs_sha256: str
    differences: tuple[Difference, ...]

    @property
    def is_identical(self) -> bool:
        """True when every decision, in number and in every bit, came out the same."""
        return self.identical == self.total and self.logged == self.replayed

    @property
    def share(self) -> float:
        """Identical decisions over all; 1.0 for a session that decided nothing, both times."""
        return 1.0 if self.total == 0 else self.identical / self.total

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self) | {"is_identical": self.is_identical, "share": self.share}


@dataclass(frozen=True, slots=True)
class SessionLogs:
    """A session's inputs in decision order, its decisions, and the segments they came from."""

    inputs: bytes
    decisions: bytes
    segments: tuple[dict[str, Any], ...]


def read_session(session_dir: Path) -> SessionLogs:
    """Read and merge the market log and the order log of a session.

    Raises
    ------
    PlatformError
        WAL damage with its code; LOG_SEQUENCE_GAP when the merged logs do not hold every input
        sequence from 1 on exactly once.
    """
    tapes, segments = [], []
    for kind in ("market", "orders"):
        try:
            log = _core.read_log(str(session_dir / kind))
        except _core.WalError as error:
            raise PlatformError(error.args[0], f"{session_dir.name}/{kind}: {error.args[1]}") from error
        tapes.append(log["tape"])
        segments.extend(log["segments"])
    merged, decisions = _core.merge_logs(tapes[0], tapes[1])
    _require_contiguous(merged, session_dir)
    return SessionLogs(inputs=merged, decisions=decisions, segments=tuple(segments))


def _require_contiguous(inputs: bytes, session_dir: Path) -> None:
    parts = records.split(inputs)
    seqs = np.sort(np.concatenate([part["input_seq"] for part in parts.values()] or [np.array([])]))
    expected = np.arange(1, seqs.size + 1)
    if seqs.size and not np.array_equal(seqs, expected):
        first = int(expected[np.argmax(seqs != expected)])
        raise PlatformError(
            ReasonCode.LOG_SEQUENCE_GAP,
            f"session {session_dir.name}: input_seq {first} is missing or doubled among {seqs.size} inputs",
        )


def compare_decisions(logged: bytes, replayed: bytes) -> tuple[int, tuple[Difference, ...]]:
    """Number of byte-identical decisions at the same place, and the first differences."""
    ours = np.frombuffer(logged, dtype=records.DTYPES["Decision"])
    theirs = np.frombuffer(replayed, dtype=records.DTYPES["Decision"])
    common = min(ours.size, theirs.size)
    width = records.DTYPES["Decision"].itemsize
    left = np.frombuffer(logged[: common * width], dtype=np.uint8).reshape(common, width)
    right = np.frombuffer(replayed[: common * width], dtype=np.uint8).reshape(common, width)
    same = (left == right).all(axis=1)
    differences = [
        _difference(int(index), ours[index], theirs[index])
        for index in np.flatnonzero(~same)[:DIFFERENCES_SHOWN]
    ]
    for index in range(common, min(max(ours.size, theirs.size), common + DIFFERENCES_SHOWN)):
        only = ours if ours.size > common else theirs
        cause = "only in the log" if ours.size > common else "only in the replay"
        differences.append(Difference(index, int(only[index]["input_seq"]), {}, cause))
    return int(same.sum()), tuple(differences[:DIFFERENCES_SHOWN])


def _difference(index: int, logged: np.void, replayed: np.void) -> Difference:
    fields = {
        name: (logged[name].item(), replayed[name].item())
        for name in logged.dtype.names or ()
        if logged[name].tobytes() != replayed[name].tobytes()
    }
    return Difference(
        index, int(logged["input_seq"]), fields, "decided otherwise: " + ", ".join(fields)
    )


def replay_session(
    session_dir: Path, *, engine_config: dict[str, Any] | None = None, write: bool = True
) -> ParityReport:
    """Decide a recorded session again and compare.

    Parameters
    ----------
    session_dir : Path
        Folder with ``engine.json``, ``market/`` and ``orders/``.
    engine_config : dict, optional
        Another config than the recorded one, to see what would have been different.
    write : bool
        Write ``parity.json`` beside the logs.

    Returns
    -------
    ParityReport
    """
    logs = read_session(session_dir)
    config = engine_config or json.loads((session_dir / "engine.json").read_bytes())
    replayed = _core.replay(canonical_json(config).decode(), logs.inputs)
    identical, differences = compare_decisions(logs.decisions, replayed)
    width = records.DTYPES["Decision"].itemsize
    report = ParityReport(
        total=max(len(logs.decisions), len(replayed)) // width,
        identical=identical,
        logged=len(logs.decisions) // width,
        replayed=len(replayed) // width,
        decisions_sha256=hashlib.sha256(logs.decisions).hexdigest(),
        inputs_sha256=hashlib.sha256(logs.inputs).hexdigest(),
        differences=differences,
    )
    if write:
        atomic_write(session_dir / "parity.json", canonical_json(report.as_dict()) + b"\n")
    return report
