"""Placebos: runs in which the idea is destroyed and everything else is kept. They must not earn.

Why: what earns in another day's market, or at another time of the day, earns from something that
is not the signal: a drift that the position holds, or a mistake of the simulation.

Invariants:
1. A position path is moved whole: how often it trades and how long it holds stay the same.
2. Profits are mid to mid, without costs: a placebo gets every chance to earn.
3. The same seed pairs the same days.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hft_platform.records import SCALE
from research.gates.backtests import PositionPath, RunOutput, shifted_profit


def shuffled_days(outputs: Sequence[RunOutput], *, seed: int) -> list[int]:
    """Trade each session's positions in the market of another session of the same instrument.

    Parameters
    ----------
    outputs : sequence of RunOutput
        The chosen setting out of sample, in time order.
    seed : int
        Of the pairing, one random cycle an instrument, so that no session keeps its own market.

    Returns
    -------
    list of int
        Profit by session; an instrument's only session is shifted within itself.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    profits = [0] * len(outputs)
    for symbol in sorted({output.run.symbol for output in outputs}):
        places = [i for i, output in enumerate(outputs) if output.run.symbol == symbol]
        if len(places) == 1:
            profits[places[0]] = rotated_profit(outputs[places[0]].path)
            continue
        cycle = [places[i] for i in generator.permutation(len(places))]
        for own, other in zip(cycle, cycle[1:] + cycle[:1], strict=True):
            profits[own] = shifted_profit(outputs[own].path, outputs[other].path)
    return profits


def shifted_time(outputs: Sequence[RunOutput]) -> list[int]:
    """Trade each session's positions half a session later; what falls behind its end comes first.

    Parameters
    ----------
    outputs : sequence of RunOutput
        The chosen setting out of sample.

    Returns
    -------
    list of int
        Profit by session.
    """
    return [rotated_profit(output.path) for output in outputs]


def rotated_profit(path: PositionPath) -> int:
    """Profit, mid to mid, of positions that are rotated by half a session.

    Parameters
    ----------
    path : PositionPath
        Positions and mids of one session.

    Returns
    -------
    int
        Scaled money.
    """
    if path.position.size == 0 or path.mid.size == 0:
        return 0
    length = int(path.mid_offset_ns[-1]) + 1
    half = length // 2
    moved = (path.step_offset_ns + half) % length
    order = np.argsort(moved, kind="stable")
    # The session begins with what was held half a session before its end.
    held = int(np.searchsorted(path.step_offset_ns, length - half, side="left")) - 1
    first = int(path.position[held]) if held >= 0 else 0
    positions = [first] + [int(p) for p in path.position[order]]
    at = np.searchsorted(path.mid_offset_ns, moved[order], side="right") - 1
    marks = [int(path.mid[0])] + [int(m) for m in path.mid[np.maximum(at, 0)]]
    marks.append(int(path.mid[-1]))
    total = sum(
        p * (after - before)
        for p, before, after in zip(positions, marks[:-1], marks[1:], strict=True)
    )
    return total * path.multiplier // (SCALE * SCALE)
