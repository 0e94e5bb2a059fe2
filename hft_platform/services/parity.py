"""Parity: replay a session's logs through the engine and hold every decision against the log.

Why: a session is evidence only if its decisions follow from what was logged, and from nothing else.

Invariants:
1. Inputs are decided in the order of the one global input sequence, which has no hole but those
   that SHED records name (`shed_ranges`). Parity is shown up to the first of them; what was decided
   behind it is counted apart, never as identical.
2. Decisions are compared byte for byte; a decision too many or too few is a difference.
3. A log that cannot be read to its end, or is empty, is an error and never a parity of 100 %.
4. Of a live session every process is decided again for itself, behind a recovery from the order log
   before its Epoch record, as it did; what was lost between two of them is counted apart.
5. A session that `hft-live wal recover` brought back is decided again up to where an input is
   missing; what lies behind is counted beside the share, which is of what can be decided.

It does not ask why they differ (see `research/backtest/agreement.py` for sessions and backtests).
Operator's page: `docs/runbook.md`.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hft_platform import _core, records
from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.config.keys import public_key
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.kernels import kernels_of
from hft_platform.recorder import session_recovery
from hft_platform.recorder.archive import whole_log
from hft_platform.recorder.session_recovery import Life, SessionExtent
from hft_platform.services.core_calls import typed_errors
from hft_platform.services.session_summary import verify_summary
from hft_platform.services.shed_ranges import ShedRange, check_sequence
from hft_platform.services.wal_salvage import require_unsalvaged

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
    """How many decisions of a session came out identical when decided again.

    `total`, `logged` and `replayed` end at the first hole, if there is one: `shed` lists the holes.
    """

    total: int
    identical: int
    logged: int
    replayed: int
    decisions_sha256: str
    inputs_sha256: str
    differences: tuple[Difference, ...]
    shed: tuple[ShedRange, ...] = ()
    ends_at_input_seq: int | None = None
    """Of a recovered session: the last input that could be decided again."""
    not_replayable: int = 0
    """Decisions whose cause lies behind it or behind the first hole; in no other count."""
    unlogged: int = 0
    """Decisions of the replay that the order log lost with its tail; nor are these."""
    lives: int = 1
    """Processes that held the session, one after the other."""

    @property
    def is_identical(self) -> bool:
        """True when every decision that can be made again came out the same, in every bit."""
        return self.identical == self.total and self.logged == self.replayed

    @property
    def share(self) -> float:
        """Identical decisions over all; 1.0 for a session that decided nothing, both times."""
        return 1.0 if self.total == 0 else self.identical / self.total

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self) | {"is_identical": self.is_identical, "share": self.share}

    @property
    def extent_text(self) -> str:
        """One line on where parity ends, empty for a whole session."""
        if self.ends_at_input_seq is None:
            return (
                ""
                if self.lives == 1
                else (
                    f"held by {self.lives} processes, each decided again from its recovery;"
                    f" {self.not_replayable} decisions lost their cause between them,"
                    f" {self.unlogged} decisions of the replay were lost with an order log's tail"
                )
            )
        return (
            f"not replayable from input {self.ends_at_input_seq + 1} on:"
            f" {self.not_replayable} decisions; {self.unlogged} decisions of the replay were lost"
            " with the order log's tail; a recovered session is no evidence for a gate"
        )


@dataclass(frozen=True, slots=True)
class SessionLogs:
    """A session's inputs in decision order, its decisions, and the segments they came from."""

    inputs: bytes
    decisions: bytes
    segments: tuple[dict[str, Any], ...]
    shed: tuple[ShedRange, ...] = ()
    extent: SessionExtent | None = None
    """Of a recovered session, which may end before its logs do."""
    lives: tuple[Life, ...] = ()
    """Of a live session, one a process; `inputs` and `decisions` are theirs, back to back."""

    def life_of(self, input_seq: int) -> tuple[bytes, bytes]:
        """Inputs to decide again for one of them, and the order log to recover from first.

        Parameters
        ----------
        input_seq : int
            Which input.

        Returns
        -------
        (bytes, bytes)
            Of a session that one process held: all inputs, and nothing.
        """
        for life in reversed(self.lives):
            if life.first_seq <= input_seq:
                return life.extent.inputs, life.order_log
        return self.inputs, b""


def read_session(session_dir: Path) -> SessionLogs:
    """Read and merge the market log and the order log of a session, archived segments included.

    Raises
    ------
    PlatformError
        WAL damage with its code; WAL_SALVAGED for a log put together after damage;
        LOG_SEQUENCE_GAP when the merged logs do not hold every input sequence from 1 on exactly
        once, SHED_INVALID when SHED records do not fit what is missing. Of a recovered session they
        must do so up to where one log lost its tail, and what lies behind is left out.
    """
    tapes, segments = [], []
    for kind in ("market", "orders"):
        require_unsalvaged(session_dir / kind)
        with typed_errors(f"{session_dir.name}/{kind}"), whole_log(session_dir / kind) as folder:
            log = _core.read_log(str(folder))
            if folder != session_dir / kind:
                for info in log["segments"]:
                    info["path"] = str(Path(info["path"]).resolve())
        tapes.append(log["tape"])
        segments.extend(log["segments"])
    if lives := session_recovery.lives_of(tapes[0], tapes[1], where=session_dir.name):
        return _live_logs(session_dir, lives, tuple(segments))
    if session_recovery.is_recovered(session_dir):
        extent = session_recovery.extent_of(tapes[0], tapes[1], where=session_dir.name)
        shed = check_sequence(records.split(extent.inputs), session_dir.name)
        return SessionLogs(extent.inputs, extent.decisions, tuple(segments), shed, extent)
    with typed_errors(session_dir.name):
        merged, decisions = _core.merge_logs(tapes[0], tapes[1])
    shed = check_sequence(records.split(merged), session_dir.name)
    return SessionLogs(inputs=merged, decisions=decisions, segments=tuple(segments), shed=shed)


def _live_logs(
    session_dir: Path, lives: tuple[Life, ...], segments: tuple[dict[str, Any], ...]
) -> SessionLogs:
    """Logs of a live session; only its last process must have left both whole."""
    last = lives[-1].extent
    is_recovered = session_recovery.is_recovered(session_dir)
    if last.lost_tail is not None and not is_recovered:
        raise PlatformError(
            ReasonCode.LOG_SEQUENCE_GAP,
            f"session {session_dir.name}: input_seq {last.ends_at_input_seq + 1} is missing: the"
            f" {last.lost_tail} log lost its tail",
            next_step=f"hft-live wal recover {session_dir.name}, or start the session again",
        )
    shed: tuple[ShedRange, ...] = ()
    for life in lives:
        parts = records.split(life.extent.inputs)
        shed += check_sequence(parts, session_dir.name, life.first_seq)
    return SessionLogs(
        inputs=b"".join(life.extent.inputs for life in lives),
        decisions=b"".join(life.extent.decisions for life in lives),
        segments=segments,
        shed=shed,
        extent=last if is_recovered else None,
        lives=lives,
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
        name: (_plain(logged[name]), _plain(replayed[name]))
        for name in logged.dtype.names or ()
        if logged[name].tobytes() != replayed[name].tobytes()
    }
    return Difference(
        index, int(logged["input_seq"]), fields, "decided otherwise: " + ", ".join(fields)
    )


def _plain(value: Any) -> Any:  # Any: a field's own type
    # A report is canonical JSON, which has no NaN; a signal may well be one.
    item = value.item()
    return str(item) if isinstance(item, float) and not math.isfinite(item) else item


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
    report = parity_of(logs, engine_config or engine_config_of(session_dir))
    if write:
        write_report(session_dir, report)
    return report


def parity_of(logs: SessionLogs, engine_config: dict[str, Any]) -> ParityReport:
    """Decide a session's inputs again and compare with its decisions.

    Parameters
    ----------
    logs : SessionLogs
        As `read_session` gave them.
    engine_config : dict
        Config to decide by.

    Returns
    -------
    ParityReport

    Raises
    ------
    PlatformError
        KERNEL_MISMATCH when a kernel compiled here is not the one the session ran with.
    """
    logged, replayed, unlogged = b"", b"", 0
    for inputs, order_log, made, extent in _parts(logs):
        with typed_errors("replay"):
            again = _core.replay(
                canonical_json(engine_config).decode(),
                inputs,
                kernels_of(engine_config),
                order_log=order_log,
            )
        lost = 0 if extent is None else extent.unlogged(again)
        unlogged += lost
        logged += made
        replayed += again[: len(made)] if lost else again
    identical, differences = compare_decisions(logged, replayed)
    past = [life.extent for life in logs.lives] or [e for e in (logs.extent,) if e is not None]
    width = records.DTYPES["Decision"].itemsize
    return ParityReport(
        total=max(len(logged), len(replayed)) // width,
        identical=identical,
        logged=len(logged) // width,
        replayed=len(replayed) // width,
        decisions_sha256=hashlib.sha256(logs.decisions).hexdigest(),
        inputs_sha256=hashlib.sha256(logs.inputs).hexdigest(),
        differences=differences,
        shed=logs.shed,
        ends_at_input_seq=None if logs.extent is None else logs.extent.ends_at_input_seq,
        not_replayable=(len(logs.decisions) - len(logged)) // width
        + sum(int(extent.not_replayable.size) for extent in past),
        unlogged=unlogged,
        lives=max(1, len(logs.lives)),
    )


def _parts(logs: SessionLogs) -> list[tuple[bytes, bytes, bytes, SessionExtent | None]]:
    """What is decided again in one piece: inputs, order log before them, decisions, extent."""
    if not logs.lives:
        inputs, made = _up_to_first_hole(logs.inputs, logs.decisions, logs.shed)
        return [(inputs, b"", made, logs.extent)]
    found: list[tuple[bytes, bytes, bytes, SessionExtent | None]] = []
    for life in logs.lives:
        extent = life.extent
        shed = tuple(
            one for one in logs.shed if life.first_seq <= one.first_seq <= extent.ends_at_input_seq
        )
        inputs, made = _up_to_first_hole(extent.inputs, extent.decisions, shed)
        found.append((inputs, life.order_log, made, extent))
    return found


def _up_to_first_hole(
    inputs: bytes, made: bytes, shed: tuple[ShedRange, ...]
) -> tuple[bytes, bytes]:
    """Inputs and decisions before the first record that is missing."""
    if not shed:
        return inputs, made
    first_seq = min(one.first_seq for one in shed)
    parts = records.split(inputs)
    size = sum(
        int((part["input_seq"] < first_seq).sum()) * part.dtype.itemsize for part in parts.values()
    )
    decisions = np.frombuffer(made, dtype=records.DTYPES["Decision"])
    # Both are in the order of their input, so what comes before is a beginning.
    count = int((decisions["input_seq"] < first_seq).sum())
    return inputs[:size], made[: count * decisions.dtype.itemsize]


def write_report(session_dir: Path, report: ParityReport) -> None:
    """Write ``parity.json`` beside the logs."""
    atomic_write(session_dir / "parity.json", canonical_json(report.as_dict()) + b"\n")


def engine_config_of(session_dir: Path) -> dict[str, Any]:
    """Engine config that a session was run with.

    Raises
    ------
    PlatformError
        FILE_DAMAGED when it is missing or no JSON.
    """
    path = session_dir / "engine.json"
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PlatformError(
            ReasonCode.FILE_DAMAGED,
            f"{path}: cannot be read: {error}",
            next_step="restore it from a copy; without it the session cannot be replayed",
        ) from error
    if not isinstance(content, dict):
        raise PlatformError(ReasonCode.FILE_DAMAGED, f"{path}: is no JSON object")
    return content


def summary_agrees(session_dir: Path, report: ParityReport, *, workspace: Path) -> bool | None:
    """Tell whether the logs are still those that the session's signed summary was made of.

    Parameters
    ----------
    session_dir : Path
        Folder of the session.
    report : ParityReport
        Of its logs as they are now.
    workspace : Path
        Holds the session key.

    Returns
    -------
    bool or None
        None when there is no summary, or no key to verify it with.

    Raises
    ------
    PlatformError
        SUMMARY_TAMPERED when the summary does not verify.
    """
    path = session_dir / "summary.json"
    if not path.exists():
        return None
    try:
        key = public_key(workspace, "session")
    except PlatformError as error:
        if error.code != ReasonCode.KEY_MISSING:
            raise
        return None
    evidence = verify_summary(path, key=key)
    return (
        evidence.inputs_sha256 == report.inputs_sha256
        and evidence.decisions_sha256 == report.decisions_sha256
    )
