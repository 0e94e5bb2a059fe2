"""What an alpha's signal knows about the next move of the mid, for pictures and people.

No gate decides by this: it looks at out-of-sample sessions only, with default parameters, and
takes the signal as the engine computes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hft_platform.config.settings import load_settings
from hft_platform.market.instruments import load_instruments
from research.data import catalog
from research.gates.signals import SignalRows, batch_rows, signal_config
from research.registry import Alpha, sessions_of

FloatArray = npt.NDArray[np.float64]

HORIZONS_S = (1.0, 5.0, 10.0, 30.0)
SESSIONS_MAX = 12
"""The first out-of-sample sessions; a picture needs no more."""
GRID_NS = 1_000_000_000


def diagnose(ws: Path, alpha: Alpha) -> dict[str, Any]:
    """Information coefficients by horizon, spread of the signal, and how long it lasts.

    Parameters
    ----------
    ws : Path
        Workspace with the alpha's dataset.
    alpha : Alpha
        Whose signal.

    Returns
    -------
    dict
        `ic` maps a horizon in seconds to the correlation of the signal with the mid's next move
        over it, sampled once a second; `ic_by_session` has the mean and standard error over
        sessions at the manifest's horizon; a number that does not exist is None.
    """
    dataset = catalog.dataset_of(ws, alpha.manifest.instruments)
    table = load_instruments()
    limits = load_settings().account_limits()
    sampled = []
    for ref in sessions_of(alpha, dataset).out_of_sample[:SESSIONS_MAX]:
        instrument = table.by_symbol(ref.symbol)
        config = signal_config(
            alpha.manifest, instrument, ref.session_of(instrument), account_limits=limits
        )
        sampled.append(_on_grid(batch_rows(catalog.load_tape(ref), config), instrument.tick_size))
    signal = np.concatenate([row[0] for row in sampled]) if sampled else np.array([])
    horizons = {
        f"{seconds:g}s": _correlation(
            signal, np.concatenate([_forward(mid, int(seconds)) for _, mid in sampled])
        )
        for seconds in HORIZONS_S
        if sampled
    }
    main = max(1, round(alpha.manifest.label_horizon_s))
    by_session = [_correlation(values, _forward(mid, main)) for values, mid in sampled]
    known = [value for value in by_session if value is not None]
    finite = signal[np.isfinite(signal)]
    return {
        "ic": horizons,
        "ic_by_session": {
            "horizon_s": main,
            "mean": float(np.mean(known)) if known else None,
            "standard_error": float(np.std(known, ddof=1) / len(known) ** 0.5)
            if len(known) > 1
            else None,
            "sessions": len(known),
        },
        "standard_deviation_ticks": float(finite.std()) if finite.size else None,
        "share_not_computed": float(1.0 - finite.size / signal.size) if signal.size else None,
        "autocorrelation_1s": _lagged(sampled, 1),
        "autocorrelation_10s": _lagged(sampled, 10),
    }


def _on_grid(rows: SignalRows, tick_size: int) -> tuple[FloatArray, FloatArray]:
    """Signal and mid in ticks at whole seconds, each the last one known then."""
    if rows.size == 0:
        return np.array([]), np.array([])
    times = rows["receive_time_ns"]
    grid = np.arange(times[0] + GRID_NS, times[-1], GRID_NS)
    last = np.searchsorted(times, grid, side="right") - 1
    return rows["signal"][last], rows["mid"][last] / tick_size


def _forward(mid: FloatArray, seconds: int) -> FloatArray:
    """Move of the mid over the next `seconds`; NaN where the session ends before."""
    moves = np.full(mid.size, np.nan)
    if mid.size > seconds:
        moves[:-seconds] = mid[seconds:] - mid[:-seconds]
    return moves


def _correlation(left: FloatArray, right: FloatArray) -> float | None:
    good = np.isfinite(left) & np.isfinite(right)
    x, y = left[good], right[good]
    if x.size < 30 or x.std() == 0.0 or y.std() == 0.0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _lagged(sampled: list[tuple[FloatArray, FloatArray]], lag: int) -> float | None:
    pairs = [(values[:-lag], values[lag:]) for values, _ in sampled if values.size > lag]
    if not pairs:
        return None
    left, right = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return _correlation(left, right)
