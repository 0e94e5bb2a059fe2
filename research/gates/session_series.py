"""What gate C leaves of each session for gates D and E: exposure through time, and volatility.

Why: two alphas can earn on different days and still hold the same position; and shadow sessions
that were all calm say nothing of a day that is not.

Invariants:
1. A series has the same number of parts whatever the session's length, so it is small and two
   alphas can be laid over each other.
2. Exposure is signed money over the largest the alpha held, so it is compared across instruments.
3. Volatility is taken from mids alone: what an alpha did cannot move its own regime.

Operator's page: `docs/gates.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from research.gates.backtests import PositionPath, RunOutput

PARTS = 16
"""Equal parts of a session, from its first to its last book."""
PER_MILLE = 1000
VOLATILITY_STEP_NS = 5_000_000_000
"""Mids are sampled this far apart: closer ones measure the bounce, not the risk."""
NS_PER_HOUR = 3_600_000_000_000
TERCILES = ("calm", "usual", "wild")
NIGHT_PART = "night"


def positions_of(outputs: Sequence[RunOutput]) -> dict[str, Any]:
    """Exposure of every session in equal parts of its time.

    Parameters
    ----------
    outputs : sequence of RunOutput
        One setting, a session each.

    Returns
    -------
    dict
        `parts`, and `sessions`: by trading day and session, time-weighted mean exposure of each
        part in thousandths of the largest exposure held. Instruments of one session are added up.
    """
    raw: dict[str, npt.NDArray[np.float64]] = {}
    largest = 0.0
    for output in outputs:
        means, most = _exposure(output.path)
        key = session_key(output.run.trading_day, output.run.session_id)
        raw[key] = raw[key] + means if key in raw else means
        largest = max(largest, most)
    scale = PER_MILLE / largest if largest > 0.0 else 0.0
    sessions = {key: [round(float(v) * scale) for v in raw[key]] for key in sorted(raw)}
    return {"parts": PARTS, "sessions": sessions}


def volatility_rows(outputs: Sequence[RunOutput], *, in_sample: int) -> dict[str, Any]:
    """Volatility of every judged session, by symbol and session.

    Parameters
    ----------
    outputs : sequence of RunOutput
        One setting, a judged session each, in-sample ones first.
    in_sample : int
        Number of in-sample sessions.

    Returns
    -------
    dict
        `in_sample` and `out_of_sample`: per mille of the mid and square root of an hour; None for
        a session too short to measure.
    """
    rows = {
        f"{o.run.symbol} {session_key(o.run.trading_day, o.run.session_id)}": volatility_of(
            o.path.mid_offset_ns, o.path.mid
        )
        for o in outputs
    }
    items = list(rows.items())
    return {"in_sample": dict(items[:in_sample]), "out_of_sample": dict(items[in_sample:])}


def session_key(trading_day: int, session_id: str) -> str:
    """Name under which two alphas' sessions are laid over each other."""
    return f"{trading_day} {session_id}"


def aligned(left: Mapping[str, Any], right: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Exposure of two alphas in the parts of the sessions that both were judged on.

    Parameters
    ----------
    left, right : mapping
        As `positions_of` makes it.

    Returns
    -------
    tuple of list of float
        Equally long; empty when they share no session or were cut into different parts.
    """
    if left.get("parts") != right.get("parts"):
        return [], []
    mine, theirs = left["sessions"], right["sessions"]
    shared = sorted(set(mine) & set(theirs))
    return (
        [float(v) for key in shared for v in mine[key]],
        [float(v) for key in shared for v in theirs[key]],
    )


def volatility_of(offset_ns: npt.NDArray[np.int64], mid: npt.NDArray[np.int64]) -> float | None:
    """Realised volatility of a session's mids.

    Parameters
    ----------
    offset_ns : ndarray of int64
        Time of each mid, ascending.
    mid : ndarray of int64
        Mids.

    Returns
    -------
    float or None
        Root of the mean squared relative change between mids 5 s apart, in per mille and scaled to
        an hour; None for fewer than three such steps, or a mid that is not above 0.
    """
    if offset_ns.size < 2:
        return None
    grid = np.arange(int(offset_ns[0]), int(offset_ns[-1]) + 1, VOLATILITY_STEP_NS)
    if grid.size < 4:
        return None
    sampled = mid[np.searchsorted(offset_ns, grid, side="right") - 1].astype(np.float64)
    if not (sampled > 0.0).all():
        return None
    changes = np.diff(sampled) / sampled[:-1]
    per_hour = NS_PER_HOUR / VOLATILITY_STEP_NS
    return float(np.sqrt(np.mean(changes * changes) * per_hour) * 1000.0)


def tercile_bounds(volatilities: Sequence[float | None]) -> tuple[float, float] | None:
    """Bounds between calm, usual and wild; None for fewer than three measured sessions."""
    known = sorted(value for value in volatilities if value is not None)
    if len(known) < len(TERCILES):
        return None
    low, high = np.quantile(np.asarray(known), [1 / 3, 2 / 3])
    return float(low), float(high)


def regime_of(volatility: float | None, bounds: tuple[float, float] | None) -> str | None:
    """Name of a session's tercile; None when it or the bounds could not be measured."""
    if volatility is None or bounds is None:
        return None
    return TERCILES[int(volatility > bounds[0]) + int(volatility > bounds[1])]


def part_of_day(session_id: str) -> str:
    """`day` or `night`, from the last word of a session's name."""
    return "night" if session_id.rsplit("/", 1)[-1] == NIGHT_PART else "day"


def _exposure(path: PositionPath) -> tuple[npt.NDArray[np.float64], float]:
    """Mean exposure of each part in money, and the largest held; zeros without a fill."""
    if path.position.size == 0 or path.mid.size < 2:
        return np.zeros(PARTS), 0.0
    unit = float(path.mid[0]) * path.multiplier
    end = float(path.mid_offset_ns[-1])
    steps = np.clip(path.step_offset_ns.astype(np.float64), 0.0, end)
    held = path.position.astype(np.float64) * unit
    # Integral of the position up to each step, then up to each edge: a step function is linear.
    area = np.concatenate([[0.0], np.cumsum(held[:-1] * np.diff(steps))])
    edges = np.linspace(0.0, end, PARTS + 1)
    at = np.searchsorted(steps, edges, side="right") - 1
    known = np.maximum(at, 0)
    until = np.where(at >= 0, area[known] + held[known] * (edges - steps[known]), 0.0)
    width = end / PARTS
    means = np.diff(until) / width if width > 0.0 else np.zeros(PARTS)
    return means, float(np.abs(held).max())
