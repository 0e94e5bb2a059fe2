"""Recovery of a session: what its two recovered logs still prove together.

Why: the two logs become durable each for itself. After a power cut the order log may hold decisions
whose cause the market log lost: they are real, an order of theirs may be at the exchange, and they
cannot be decided again. An operator must get them as a list, not as a surprise.

Invariants:
1. The listing follows from the two recovered logs alone: recovering again writes the same bytes.
2. Every decision whose cause lies past the parity end is listed, and every order of theirs.
3. What was lost in the middle of the logs is an error, never a shorter session.

It recovers no log (`hft-live wal recover` does, then calls this) and asks no broker. Operator's
page: `docs/runbook.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hft_platform import _core, records
from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder.archive import whole_log

FILE_NAME = "recovery.json"
"""Beside the logs of a session that did not end by itself."""
LOG_KINDS = ("market", "orders")
PLACE, APPROVED = 1, 1
"""`ActionKind` and verdict in rust_core/src/record.rs."""

Records = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class SessionExtent:
    """What the two logs of a session hold together.

    Attributes
    ----------
    ends_at_input_seq : int
        Highest input up to which none is missing, left out by SHED records or lost; parity ends
        there.
    lost_tail : str or None
        ``market`` or ``orders``: the log whose tail is missing behind it; ``shed``: records were
        left out that no SHED record names, for the process died before.
    market_last_seq, orders_last_seq : int
        ``input_seq`` of each log's last record, 0 without one.
    inputs, decisions : bytes
        Tapes up to the parity end.
    inputs_past, decisions_past : bytes
        Tapes of what lies behind it.
    """

    ends_at_input_seq: int
    lost_tail: str | None
    market_last_seq: int
    orders_last_seq: int
    inputs: bytes
    decisions: bytes
    inputs_past: bytes
    decisions_past: bytes

    @property
    def not_replayable(self) -> Records:
        """Decisions whose cause lies past the parity end."""
        return np.frombuffer(self.decisions_past, dtype=records.DTYPES["Decision"])

    def unlogged(self, replayed: bytes) -> int:
        """Count decisions of a replay that the order log's lost tail would have held.

        Parameters
        ----------
        replayed : bytes
            Decisions of a replay of `inputs`.

        Returns
        -------
        int
            How many stand behind the last logged one; 0 when one of them was caused by an input
            whose decisions are all in the log, for then it is a difference.
        """
        extra = np.frombuffer(replayed[len(self.decisions) :], dtype=records.DTYPES["Decision"])
        is_lost = bool((extra["input_seq"] >= self.orders_last_seq).all())
        return int(extra.size) if is_lost else 0


def extent_of(market: bytes, orders: bytes, *, where: str) -> SessionExtent:
    """Take the tapes of two recovered logs as one session.

    Parameters
    ----------
    market, orders : bytes
        What `_core.read_log` gave.
    where : str
        Named in errors.

    Returns
    -------
    SessionExtent

    Raises
    ------
    PlatformError
        LOG_SEQUENCE_GAP when what is missing is not the tail of one log.
    """
    try:
        found = _core.session_extent(market, orders)
    except _core.WalError as error:
        raise PlatformError(error.args[0], f"session {where}: {error.args[1]}") from error
    except ValueError as error:
        raise PlatformError(ReasonCode.FILE_DAMAGED, f"session {where}: {error}") from error
    return SessionExtent(ends_at_input_seq=int(found.pop("ends_at")), **found)


@dataclass(frozen=True, slots=True)
class Life:
    """What one process of a live session left.

    Attributes
    ----------
    epoch : int
        Of its Epoch record.
    first_seq : int
        Input sequence of that.
    order_log : bytes
        The order log before it, from which its engine recovered.
    extent : SessionExtent
        How far it can be decided again from there.
    """

    epoch: int
    first_seq: int
    order_log: bytes
    extent: SessionExtent


def lives_of(market: bytes, orders: bytes, *, where: str) -> tuple[Life, ...]:
    """Take the tapes of two logs as a live session.

    Parameters
    ----------
    market, orders : bytes
        What `_core.read_log` gave.
    where : str
        Named in errors.

    Returns
    -------
    tuple of Life
        One a process; empty for a session without Epoch records.

    Raises
    ------
    PlatformError
        LOG_SEQUENCE_GAP when what is missing in a life is not the tail of one log.
    """
    try:
        found = _core.session_lives(market, orders)
    except _core.WalError as error:
        raise PlatformError(error.args[0], f"session {where}: {error.args[1]}") from error
    except ValueError as error:
        raise PlatformError(ReasonCode.FILE_DAMAGED, f"session {where}: {error}") from error
    lives = []
    for row in found:
        epoch, first_seq, order_log = (row.pop(key) for key in ("epoch", "first_seq", "order_log"))
        extent = SessionExtent(ends_at_input_seq=int(row.pop("ends_at")), **row)
        lives.append(Life(int(epoch), int(first_seq), order_log, extent))
    return tuple(lives)


def is_session(folder: Path) -> bool:
    """True for a folder with a session's config and both of its logs."""
    return (folder / "engine.json").is_file() and all(
        (folder / kind).is_dir() for kind in LOG_KINDS
    )


def is_recovered(session_dir: Path) -> bool:
    """True when the session was recovered: it may end before its logs do."""
    return (session_dir / FILE_NAME).exists()


def list_lost(session_dir: Path) -> dict[str, Any] | None:
    """List what of a session cannot be decided again, and write it beside its recovered logs.

    A session that ended by itself has a summary; nothing of it was lost and nothing is written,
    unless its logs have lost records since.

    Parameters
    ----------
    session_dir : Path
        Folder with ``engine.json``, ``market/`` and ``orders/``, both recovered.

    Returns
    -------
    dict or None
        Content of ``recovery.json``; None for a session that ended by itself and is whole, or
        that died before its first record.

    Raises
    ------
    PlatformError
        The log's code when one cannot be read; LOG_SEQUENCE_GAP when what is missing is not a
        lost tail.
    """
    tapes = []
    for kind in LOG_KINDS:
        try:
            with whole_log(session_dir / kind) as folder:
                tapes.append(_core.read_log(str(folder))["tape"])
        except _core.WalError as error:
            text = f"{session_dir.name}/{kind}: {error.args[1]}"
            raise PlatformError(error.args[0], text) from error
    if not any(tapes):
        return None
    if lives := lives_of(tapes[0], tapes[1], where=session_dir.name):
        extent = lives[-1].extent
    else:
        extent = extent_of(tapes[0], tapes[1], where=session_dir.name)
    if extent.lost_tail is None and (session_dir / "summary.json").exists():
        return None
    content = listing(session_dir.name, extent)
    atomic_write(session_dir / FILE_NAME, canonical_json(content) + b"\n")
    return content


def listing(run_id: str, extent: SessionExtent) -> dict[str, Any]:
    """List what lies past the parity end.

    Parameters
    ----------
    run_id : str
        Name of the session's folder.
    extent : SessionExtent
        Of its recovered logs.

    Returns
    -------
    dict
        Content of ``recovery.json``.
    """
    decisions = extent.not_replayable
    past = records.split(extent.inputs_past)
    broker = past["Broker"]
    placed = (decisions["action"] == PLACE) & (decisions["verdict"] == APPROVED)
    order_ids = sorted({int(i) for i in decisions["order_id"] if i})
    return {
        "schema": 1,
        "run_id": run_id,
        "parity_ends_at_input_seq": extent.ends_at_input_seq,
        "lost_tail": extent.lost_tail,
        "market_last_input_seq": extent.market_last_seq,
        "orders_last_input_seq": extent.orders_last_seq,
        "replayable": {
            "inputs": sum(int(part.size) for part in records.split(extent.inputs).values()),
            "decisions": len(extent.decisions) // records.DTYPES["Decision"].itemsize,
        },
        "not_replayable": {
            "inputs": {name: int(part.size) for name, part in past.items() if part.size},
            "decisions": int(decisions.size),
            "approved_orders": int(placed.sum()),
        },
        "orders": [
            {
                "order_id": order_id,
                "decisions": [
                    _decision(row) for row in decisions[decisions["order_id"] == order_id]
                ],
                "broker_events": [_broker(row) for row in broker[broker["order_id"] == order_id]],
            }
            for order_id in order_ids
        ],
        "other_decisions": [_decision(row) for row in decisions[decisions["order_id"] == 0]],
    }


def _decision(row: np.void) -> dict[str, Any]:
    names = (
        "decision_seq", "input_seq", "sequence_time_ns", "instrument_id", "intent_id",
        "alpha_index", "action", "verdict", "reason_code", "side", "price", "qty", "position_qty",
    )  # fmt: skip
    return {name: int(row[name]) for name in names}


def _broker(row: np.void) -> dict[str, Any]:
    names = ("input_seq", "event_kind", "side", "price", "qty", "remaining_qty")
    return {name: int(row[name]) for name in names}
