"""Register an alpha: check its expression and declare its whole grid in the trial ledger.

Why: trials are counted before any result exists, so the count cannot depend on what was seen.

Invariants:
1. An expression is checked by the compiler that will run it; there is no second grammar.
2. Registering twice changes nothing.

It runs no backtest. Operator's page: `docs/alphas.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform import _core
from hft_platform.config.canonical import canonical_sha256
from hft_platform.errors import PlatformError, ReasonCode
from research.experiments import Trial, TrialLedger
from research.registry.alpha import Alpha
from research.registry.roles import sessions_of

if TYPE_CHECKING:
    from hft_platform.market.instruments import Instrument
    from research.data import Dataset


def check_expression(alpha: Alpha) -> dict[str, Any]:
    """Compile an alpha's expression with its defaults.

    Parameters
    ----------
    alpha : Alpha
        Its manifest was validated; its expression was not.

    Returns
    -------
    dict
        What the compiler says: features used, size of the program and of its state.

    Raises
    ------
    PlatformError
        UNKNOWN_FEATURE or EXPRESSION_INVALID with position and suggestion.
    """
    manifest = alpha.manifest
    try:
        return dict(_core.check_expression(manifest.expression, manifest.defaults()))
    except _core.ExpressionError as error:
        code, message, position, suggestion = error.args
        hint = f"; did you mean {suggestion!r}?" if suggestion else ""
        raise PlatformError(
            code,
            f"{alpha.alpha_id}: {message} at character {position} of {manifest.expression!r}{hint}",
            next_step=f"write {suggestion!r} in field expression of the manifest"
            if suggestion
            else None,
            facts={"position": position, "suggestion": suggestion},
        ) from error


def costs_sha256(
    alpha: Alpha, instruments: Mapping[str, Instrument], latency_sha256: str
) -> str:
    """Hash of everything between a signal and money: costs, latency profile, queue model.

    Parameters
    ----------
    alpha : Alpha
        Names instruments and queue model.
    instruments : mapping of str to Instrument
        By symbol.
    latency_sha256 : str
        Content hash of the latency profile.

    Returns
    -------
    str
    """
    return canonical_sha256(
        {
            "costs": {symbol: instruments[symbol].costs_json() for symbol in sorted(instruments)},
            "latency": latency_sha256,
            "queue_model": alpha.manifest.queue_model,
        }
    )


def trials_of(alpha: Alpha, dataset: Dataset, *, costs: str) -> list[Trial]:
    """Every point of an alpha's grid as a trial."""
    window = sessions_of(alpha, dataset).window
    return [
        Trial(alpha.program_sha256, parameters, dataset.sha256, costs, window)
        for parameters in alpha.manifest.grid()
    ]


def register(
    ws: Path,
    alpha: Alpha,
    *,
    dataset: Dataset,
    instruments: Mapping[str, Instrument],
    latency_sha256: str,
) -> str:
    """Check an alpha and declare its whole grid; nothing is run.

    Parameters
    ----------
    ws : Path
        Workspace folder.
    alpha : Alpha
        To be registered.
    dataset : Dataset
        What it will be judged on.
    instruments : mapping of str to Instrument
        The alpha's instruments in that dataset, by symbol.
    latency_sha256 : str
        Content hash of its latency profile.

    Returns
    -------
    str
        The alpha's key, the name of its partition.

    Raises
    ------
    PlatformError
        UNKNOWN_FEATURE, EXPRESSION_INVALID, or UNKNOWN_INSTRUMENT when the dataset holds no
        session of it.
    """
    check_expression(alpha)
    if not instruments:
        raise PlatformError(
            ReasonCode.UNKNOWN_INSTRUMENT,
            f"{alpha.alpha_id} trades {', '.join(alpha.manifest.instruments)}; dataset "
            f"{dataset.dataset_id} holds {', '.join(dataset.symbols)}",
            next_step="ingest a recording of its instruments, or name one it has in the manifest",
        )
    costs = costs_sha256(alpha, instruments, latency_sha256)
    TrialLedger(ws).declare(trials_of(alpha, dataset, costs=costs), alpha_id=alpha.alpha_id)
    return alpha.key
