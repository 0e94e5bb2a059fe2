"""What the chosen setting's signal foretells out of sample: rank correlation and its decay.

Why: a profit whose signal foretells nothing comes from somewhere else. Reported, not judged.

Invariant: sessions are the unit; moves never reach beyond their session.
"""

from __future__ import annotations

import math
from typing import Any

from hft_platform.config.canonical import finite
from hft_platform.config.engine_config import AlphaSpec, build_engine_config
from research.data.catalog import load_tape
from research.gates.context import GateContext
from research.gates.signals import batch_rows

SESSIONS_MAX = 60
"""The last ones out of sample; a mean over more would say the same."""


def foresight_of(context: GateContext, parameters: dict[str, float]) -> dict[str, Any]:
    """Information coefficient by horizon, over the last out-of-sample sessions.

    Parameters
    ----------
    context : GateContext
        Alpha, data and account.
    parameters : dict of str to float
        The chosen setting.

    Returns
    -------
    dict
        `ic`, its `standard_error` and `icir` (mean over spread of the sessions) by horizon;
        `half_life_s`, the first horizon at which the correlation is at most half of its largest.
        None where a number does not exist.
    """
    # On first use: signal_study itself builds on a module of the gates.
    from research.signal_study import SessionSignal, foresight

    signals = []
    for session in context.judged.roles.out_of_sample[-SESSIONS_MAX:]:
        instrument = context.instrument_of(session)
        spec = AlphaSpec.from_manifest(
            context.alpha.manifest.model_dump(mode="json"),
            parameters,
            instrument,
            weight_ppm=context.alpha.manifest.gate_weight_ppm,
        )
        config = build_engine_config(
            [spec],
            instruments=[instrument],
            session=session.session_of(instrument),
            account_limits=context.account_limits,
            storm_guard=context.storm_guard,
        )
        rows = batch_rows(load_tape(session), config)
        signals.append(
            SessionSignal(session.symbol, session.session_id, rows, instrument.tick_size)
        )
    curve = foresight(signals)
    names = [f"{horizon:g}s" for horizon in curve.horizon_s]
    icir = [
        mean / (error * math.sqrt(count)) if count > 1 and error > 0.0 else math.nan
        for mean, error, count in zip(
            curve.mean, curve.standard_error, curve.session_count, strict=True
        )
    ]
    return {
        "sessions": len(signals),
        "ic": dict(zip(names, map(finite, curve.mean), strict=True)),
        "standard_error": dict(zip(names, map(finite, curve.standard_error), strict=True)),
        "icir": dict(zip(names, map(finite, icir), strict=True)),
        "half_life_s": half_life(curve.horizon_s, curve.mean),
    }


def half_life(horizons_s: tuple[float, ...], values: tuple[float, ...]) -> float | None:
    """First horizon after the largest correlation at which at most half of it is left.

    Parameters
    ----------
    horizons_s : tuple of float
        Ascending.
    values : tuple of float
        Correlation by horizon; NaN where it is not known.

    Returns
    -------
    float or None
        None when nothing is foretold, or half of it is still there at the last horizon.
    """
    known = [(h, v) for h, v in zip(horizons_s, values, strict=True) if math.isfinite(v)]
    if not known:
        return None
    peak_at, peak = max(known, key=lambda pair: abs(pair[1]))
    for horizon, value in known:
        if horizon > peak_at and value * math.copysign(1.0, peak) <= abs(peak) / 2.0:
            return horizon
    return None
