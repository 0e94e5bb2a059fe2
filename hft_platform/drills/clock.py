"""Clock drill: the wall clock jumps, forward and back, under a session and between two.

Why: time decides what is stale, what has ended and in which order things happened. A clock that
jumps must not bring a permit back to life, reorder a decision, or make a log that cannot be
replayed.

Invariants:
1. The jump is in the receive times of the market's records, made to grow as every adapter makes
   them (`normaliser`, invariant 3): where the clock is behind it stands still.
2. Every session is beside the same market without a jump.

Operator's page: `docs/drills/clock-jump.md`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from hft_platform import _core, records
from hft_platform.config.wall_clock import BACK_NS_MAX, checked_time_ns
from hft_platform.drills.drill import Claim, Drill, DrillReport
from hft_platform.drills.market import (
    MAKER,
    SCALE,
    make_session,
    market_records,
    market_session,
)
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.feed.recording import tape_of
from hft_platform.services.parity import SessionLogs, parity_of, read_session

SECOND_NS = 1_000_000_000
JUMP_NS = 600 * SECOND_NS
"""Ten minutes: beyond every age and grace that the engine knows."""
PIECE_BOOKS = 240
"""A minute of market before the jump, one at the other time, one behind the way back."""
PLACE, APPROVED = 1, 1


def clock_jump(folder: Path, seed: int, size: int) -> DrillReport:
    """Trade through a jump forward and back, a jump back and forward, and start behind a mark.

    Parameters
    ----------
    folder : Path
        Empty.
    seed : int
        Of the market.
    size : int
        How often, with another seed each time.

    Returns
    -------
    DrillReport
    """
    claims: list[Claim] = []
    facts: dict[str, Any] = {}
    for turn in range(size):
        own = folder / str(turn)
        forward = _session(own / "forward", seed + turn, JUMP_NS)
        back = _session(own / "back", seed + turn, -JUMP_NS)
        steady = _session(own / "steady", seed + turn, 0)
        for name, found in (("forward", forward), ("back", back)):
            claims += _orderly(name, found)
        claims += [
            Claim("without a jump orders are opened in the last minute", True,
                  steady["opened_last"] > 0),
            Claim("a permit that ended in the time jumped to opens nothing when the clock is back",
                  0, forward["opened_last"]),
            Claim("a clock that is behind stands still: no second is decided twice", True,
                  back["middle_ns"] < SECOND_NS),
            Claim("when it is right again, trading goes on", True, back["opened_last"] > 0),
        ]  # fmt: skip
        facts = {
            "inputs": forward["inputs"] + back["inputs"],
            "timers_in_the_jump": forward["timers"] - steady["timers"],
            "turns": turn + 1,
        }
    claims.append(
        Claim("a market that no adapter put in order is refused",
              int(ReasonCode.OUT_OF_ORDER_ROW), _is_refused(seed))
    )  # fmt: skip
    claims += _validity(folder)
    return DrillReport("clock-jump", tuple(claims), facts)


def _orderly(name: str, found: dict[str, Any]) -> list[Claim]:
    return [
        Claim(f"{name}: sequence times only grow", True, found["is_monotone"]),
        Claim(f"{name}: decisions keep the order of their inputs", True, found["is_ordered"]),
        Claim(f"{name}: every book is in the log", 3 * PIECE_BOOKS, found["books"]),
        Claim(f"{name}: every decision can be made again", True, found["is_identical"]),
    ]


def _session(folder: Path, seed: int, jump_ns: int) -> dict[str, Any]:
    """Three minutes of market; in the second one the receive clock is off by `jump_ns`."""
    books, trades = _market(seed)
    edges = books["exchange_time_ns"][[PIECE_BOOKS, 2 * PIECE_BOOKS]]
    rows = (books, trades)
    for part in rows:
        is_off = (part["exchange_time_ns"] >= edges[0]) & (part["exchange_time_ns"] < edges[1])
        part["receive_time_ns"][is_off] += jump_ns
    _grow(rows)
    # The permit ends while the clock is ahead.
    session, engine_config = make_session(
        folder,
        tape_of(books, trades),
        template=MAKER,
        options={"wal_id": 7, "durable": "group"},
        expires_ns=int(edges[1]) + JUMP_NS // 2,
    )
    while not session.run(None, 1 << 20)["done"]:
        pass
    session.finish()
    return _looked_at(read_session(folder), engine_config, books[2 * PIECE_BOOKS :])


def _market(seed: int) -> tuple[Any, Any]:  # Any: arrays of records
    instrument, hours = market_session()
    return market_records(
        seed,
        start_ns=hours.start_ns,
        count=3 * PIECE_BOOKS,
        instrument_id=instrument.instrument_id,
        trading_day=hours.trading_day,
    )


def _grow(rows: tuple[Any, Any]) -> None:
    """Receive times as an adapter gives them: the clock's, or one more than the one before."""
    sizes = [part.size for part in rows]
    clock = np.concatenate([part["receive_time_ns"] for part in rows])
    order = np.argsort(np.concatenate([part["exchange_time_ns"] for part in rows]), kind="stable")
    steps = np.arange(clock.size)
    clock[order] = np.maximum.accumulate(clock[order] - steps) + steps
    rows[0]["receive_time_ns"], rows[1]["receive_time_ns"] = clock[: sizes[0]], clock[sizes[0] :]


def _is_refused(seed: int) -> int:
    """Code with which a market is refused whose receive times go back."""
    books, trades = _market(seed)
    books["receive_time_ns"][PIECE_BOOKS:] -= JUMP_NS
    tape = books.tobytes() + trades.tobytes()
    try:
        _core.convert_session(tape, int(books["instrument_id"][0]), SCALE, SCALE)
    except PlatformError as error:
        return error.code
    return 0


def _looked_at(logs: SessionLogs, engine_config: dict[str, Any], last: Any) -> dict[str, Any]:
    parts = records.split(logs.inputs)
    rows = [part[["input_seq", "sequence_time_ns"]] for part in parts.values()]
    order = np.argsort(np.concatenate([part["input_seq"] for part in rows]))
    times = np.concatenate([part["sequence_time_ns"] for part in rows])[order]
    decisions = np.frombuffer(logs.decisions, dtype=records.DTYPES["Decision"])
    seen = parts["Book"][np.isin(parts["Book"]["source_seq"], last["source_seq"])]
    placed = decisions[(decisions["action"] == PLACE) & (decisions["verdict"] == APPROVED)]
    opened = placed[placed["side"] * placed["position_qty"] >= 0]
    report = parity_of(logs, engine_config)
    middle = parts["Book"]["sequence_time_ns"][PIECE_BOOKS : 2 * PIECE_BOOKS]
    return {
        "inputs": int(times.size),
        "books": int(parts["Book"].size),
        "timers": int(parts["Timer"].size),
        "is_monotone": bool((np.diff(times) > 0).all()),
        "is_ordered": bool((np.diff(decisions["input_seq"].astype(np.int64)) >= 0).all()),
        "is_identical": report.is_identical and report.total > 0,
        "opened_last": int((opened["input_seq"] >= seen["input_seq"].min()).sum()),
        "middle_ns": int(middle[-1] - middle[0]),
    }


def _validity(folder: Path) -> list[Claim]:
    """What live does with the wall clock between two starts."""
    now_ns = time.time_ns()
    checked_time_ns(folder, now_ns)
    refused = 0
    try:
        checked_time_ns(folder, now_ns - JUMP_NS)
    except PlatformError as error:
        refused = error.code
    step_ns = checked_time_ns(folder, now_ns - BACK_NS_MAX // 2)
    return [
        Claim("live: a clock set back is refused before a permit is judged by it",
              int(ReasonCode.CLOCK_WENT_BACK), refused),
        Claim("live: a step of the time service is judged by the later time", True,
              step_ns == now_ns),
    ]  # fmt: skip


DRILLS = (Drill("clock-jump", "the wall clock jumps forward and back", clock_jump),)
