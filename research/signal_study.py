"""What a signal looks like before any money is put on it: its course, and what it foretells.

Why: a researcher wants to see a signal before gates judge it; this is the picture, not a verdict.

Invariants:
1. A researcher is shown in-sample sessions only; out-of-sample ones are for the report that is
   written after the gates.
2. A move is taken between a book and the last book at most a horizon later, within one session.
3. Sessions are the unit: the correlation is computed in each, and its error is their spread.

No gate reads it. Operator's page: `docs/alphas.md`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from hft_platform.config.canonical import finite
from hft_platform.config.settings import load_settings
from hft_platform.market.instruments import load_instruments
from hft_platform.market.sessions import SECOND_NS
from research import registry
from research.data import catalog
from research.gates.signals import SignalRows, batch_rows, signal_config

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FloatArray = npt.NDArray[np.float64]

HORIZONS_S = (1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0)
REPORT_SESSIONS_MAX = 12
"""A report's picture needs no more."""
ROWS_MIN = 100
"""Sessions with fewer pairs of signal and move are left out."""


@dataclass(frozen=True, slots=True)
class SessionSignal:
    """Signal of one in-sample session.

    Attributes
    ----------
    symbol, session_id : str
        Which session.
    rows : ndarray of SIGNAL_DTYPE
        Receive time, mid and signal at every good book.
    tick_size : int
        Of the instrument, scaled.
    """

    symbol: str
    session_id: str
    rows: SignalRows
    tick_size: int


@dataclass(frozen=True, slots=True)
class Foresight:
    """Rank correlation of a signal with the move that follows, by horizon.

    Attributes
    ----------
    horizon_s : tuple of float
        How far ahead.
    mean : tuple of float
        Mean over sessions; NaN where no session could be used.
    standard_error : tuple of float
        Of that mean, from the spread of the sessions.
    session_count : tuple of int
        Sessions that could be used.
    """

    horizon_s: tuple[float, ...]
    mean: tuple[float, ...]
    standard_error: tuple[float, ...]
    session_count: tuple[int, ...]

    def at(self, horizon_s: float) -> tuple[float, float]:
        """Mean and its standard error at one of the horizons."""
        index = self.horizon_s.index(horizon_s)
        return self.mean[index], self.standard_error[index]


def in_sample_signals(ws: Path, key: str, *, count: int | None = None) -> list[SessionSignal]:
    """Signals of the sessions a researcher may look at; see `session_signals`."""
    return session_signals(ws, key, role="in_sample", count=count)


def session_signals(
    ws: Path, key: str, *, role: str, count: int | None = None
) -> list[SessionSignal]:
    """Evaluate an alpha with its default parameters over its first sessions of a role.

    Parameters
    ----------
    ws : Path
        Workspace folder.
    key : str
        Key or id of the alpha.
    role : str
        ``in_sample``; ``out_of_sample`` is for reports written after the gates.
    count : int, optional
        At most that many sessions.

    Returns
    -------
    list of SessionSignal
        In time order.
    """
    alpha, table = registry.find_alpha(key), load_instruments()
    dataset = catalog.dataset_of(ws, alpha.manifest.instruments)
    settings = load_settings()
    signals = []
    for session in getattr(registry.sessions_of(alpha, dataset), role)[:count]:
        instrument = table.by_symbol(session.symbol)
        config = signal_config(
            alpha.manifest,
            instrument,
            session.session_of(instrument),
            account_limits=settings.account_limits(),
            storm_guard=settings.storm_guard(),
        )
        rows = batch_rows(catalog.load_tape(session), config)
        signals.append(
            SessionSignal(session.symbol, session.session_id, rows, instrument.tick_size)
        )
    return signals


def diagnose(ws: Path, key: str) -> dict[str, Any]:
    """Numbers of a signal for the run report, over its first out-of-sample sessions.

    Parameters
    ----------
    ws : Path
        Workspace folder.
    key : str
        Key or id of the alpha.

    Returns
    -------
    dict
        `ic` and `ic_standard_error` by horizon, from `foresight`; the signal's standard deviation
        in ticks; the share of books at which it could not be computed. None where no number exists.
    """
    signals = session_signals(ws, key, role="out_of_sample", count=REPORT_SESSIONS_MAX)
    curve = foresight(signals)
    values = np.concatenate([signal.rows["signal"] for signal in signals] or [np.empty(0)])
    computed = values[np.isfinite(values)]
    names = [f"{horizon:g}s" for horizon in curve.horizon_s]
    return {
        "sessions": len(signals),
        "ic": dict(zip(names, map(finite, curve.mean), strict=True)),
        "ic_standard_error": dict(zip(names, map(finite, curve.standard_error), strict=True)),
        "standard_deviation_ticks": float(computed.std()) if computed.size else None,
        "share_not_computed": 1.0 - computed.size / values.size if values.size else None,
    }


def moves_ticks(signal: SessionSignal, *, horizon_s: float) -> FloatArray:
    """Move of the mid from every book on.

    Parameters
    ----------
    signal : SessionSignal
        One session.
    horizon_s : float
        How far ahead, above 0.

    Returns
    -------
    ndarray of float64, shape (n,)
        Ticks; NaN where the session ends earlier.
    """
    times, mids = signal.rows["receive_time_ns"], signal.rows["mid"]
    if times.size == 0:
        return np.empty(0)
    until = times + round(horizon_s * SECOND_NS)
    last = np.searchsorted(times, until, side="right") - 1
    moves = (mids[last] - mids) / float(signal.tick_size)
    return np.where(until <= times[-1], moves, np.nan)


def foresight(
    signals: Sequence[SessionSignal], horizons_s: Sequence[float] = HORIZONS_S
) -> Foresight:
    """Rank correlation (information coefficient) of signal and following move.

    Parameters
    ----------
    signals : sequence of SessionSignal
        Several sessions.
    horizons_s : sequence of float, optional
        Horizons.

    Returns
    -------
    Foresight

    Notes
    -----
    Moves from neighboring books overlap, so the rows of a session are not independent; sessions
    are. Hence the mean and standard error over sessions.
    """
    means, errors, counts = [], [], []
    for horizon_s in horizons_s:
        values = [
            value
            for signal in signals
            if (value := _rank_correlation(signal, horizon_s)) is not None
        ]
        mean = math.fsum(values) / len(values) if values else math.nan
        spread = math.fsum((value - mean) ** 2 for value in values)
        count = len(values)
        means.append(mean)
        errors.append(math.sqrt(spread / (count - 1) / count) if count > 1 else math.nan)
        counts.append(count)
    return Foresight(tuple(horizons_s), tuple(means), tuple(errors), tuple(counts))


def _rank_correlation(signal: SessionSignal, horizon_s: float) -> float | None:
    moves = moves_ticks(signal, horizon_s=horizon_s)
    usable = np.isfinite(moves) & np.isfinite(signal.rows["signal"])
    if int(usable.sum()) < ROWS_MIN:
        return None
    left, right = rankdata(signal.rows["signal"][usable]), rankdata(moves[usable])
    if np.ptp(left) == 0.0 or np.ptp(right) == 0.0:
        return None
    return float(np.corrcoef(left, right)[0, 1])


def signal_picture(signal: SessionSignal, *, minutes: float = 3.0) -> Figure:
    """Draw mid and signal over the first minutes of a session.

    Parameters
    ----------
    signal : SessionSignal
        One session.
    minutes : float, optional
        How much of it.

    Returns
    -------
    Figure
    """
    from matplotlib.figure import Figure

    seconds = (signal.rows["receive_time_ns"] - signal.rows["receive_time_ns"][0]) / SECOND_NS
    shown = seconds <= 60.0 * minutes
    figure = Figure(figsize=(8.0, 3.6), dpi=72, layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    top.plot(seconds[shown], signal.rows["mid"][shown] / signal.tick_size, lw=0.9, color="#1f4e79")
    top.set_ylabel("mid, ticks")
    top.set_title(f"{signal.symbol} {signal.session_id}", fontsize=10)
    bottom.plot(seconds[shown], signal.rows["signal"][shown], lw=0.9, color="#b45f06")
    bottom.axhline(0.0, lw=0.6, color="#888888")
    bottom.set_ylabel("signal, ticks")
    bottom.set_xlabel("seconds into the session")
    return figure


def foresight_picture(curves: dict[str, Foresight]) -> Figure:
    """Draw rank correlations by horizon, with two standard errors.

    Parameters
    ----------
    curves : dict of str to Foresight
        By label.

    Returns
    -------
    Figure
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 3.2), dpi=72, layout="constrained")
    axes = figure.subplots()
    for (label, curve), color in zip(
        curves.items(), ("#1f4e79", "#b45f06", "#38761d", "#741b47"), strict=False
    ):
        error = [2.0 * value for value in curve.standard_error]
        axes.errorbar(
            curve.horizon_s, curve.mean, yerr=error, marker="o", ms=4, lw=1.2, capsize=3,
            color=color, label=label,
        )  # fmt: skip
    axes.axhline(0.0, lw=0.6, color="#888888")
    axes.set_xscale("log")
    axes.set_xticks(list(next(iter(curves.values())).horizon_s))
    axes.set_xticklabels([f"{h:g}" for h in next(iter(curves.values())).horizon_s])
    axes.set_xlabel("horizon, s")
    axes.set_ylabel("rank correlation")
    axes.legend(frameon=False)
    return figure
