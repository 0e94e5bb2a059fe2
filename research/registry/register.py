"""Register an alpha: check its expression and declare its whole grid in the trial ledger.

Why: trials are counted before any result exists, so the count cannot depend on what was seen.

Invariants:
1. An expression is checked by the compiler that will run it; there is no second grammar.
2. Registering twice changes nothing.

It runs no backtest. Operator's page: `docs/alphas.md`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hft_platform import _core
from hft_platform.errors import PlatformError
from research.experiments import Trial, TrialLedger
from research.registry.alpha import Alpha
from research.registry.judged import JudgedData, judged_data
from research.registry.kernel_part import check_kernel


def check_expression(alpha: Alpha) -> dict[str, Any]:
    """Compile an alpha's expression with its defaults, or its kernel.

    Parameters
    ----------
    alpha : Alpha
        Its manifest was validated; its expression was not.

    Returns
    -------
    dict
        What the compiler says; see `_core.check_expression`.

    Raises
    ------
    PlatformError
        UNKNOWN_FEATURE or EXPRESSION_INVALID with position and suggestion; for a kernel the code
        that says why it may not run in the engine.
    """
    manifest = alpha.manifest
    if manifest.kernel:
        return check_kernel(manifest)
    try:
        return dict(_core.check_expression(manifest.expression, sorted(manifest.parameters)))
    except _core.ExpressionError as error:
        code, message, position, suggestion = error.args
        hint = f"; did you mean {suggestion}?" if suggestion else ""
        raise PlatformError(
            code,
            f"{alpha.alpha_id}: expression {manifest.expression!r}: {message} "
            f"at position {position}{hint}",
            next_step=f"write {suggestion} in field expression of the manifest"
            if suggestion
            else None,
            facts={
                "position": position,
                "suggestion": suggestion,
                "excerpt": _core.expression_excerpt(manifest.expression, position),
            },
        ) from error


def expression_excerpt(alpha: Alpha) -> str | None:
    """The place in an alpha's expression that is wrong, over a caret; None when nothing is."""
    try:
        check_expression(alpha)
    except PlatformError as error:
        return str(error.facts["excerpt"])
    return None


def trials_of(alpha: Alpha, judged: JudgedData) -> list[Trial]:
    """Every point of an alpha's grid as a trial."""
    return [
        Trial(
            program=alpha.program_sha256,
            parameters=parameters,
            data=judged.dataset.sha256,
            costs=judged.costs_sha256,
            window=judged.roles.window,
        )
        for parameters in alpha.manifest.grid()
    ]


def register(ws: Path, alpha: Alpha, *, config_dir: Path | None = None) -> str:
    """Check an alpha and declare its whole grid; nothing is run.

    Parameters
    ----------
    ws : Path
        Workspace folder.
    alpha : Alpha
        To be registered.
    config_dir : Path, optional
        Folder with instruments and latency profiles of one's own.

    Returns
    -------
    str
        The alpha's key, the name of its partition.

    Raises
    ------
    PlatformError
        UNKNOWN_FEATURE, EXPRESSION_INVALID, or as `judged_data`.
    """
    check_expression(alpha)
    declare(ws, alpha, judged_data(ws, alpha, config_dir=config_dir))
    return alpha.key


def declare(ws: Path, alpha: Alpha, judged: JudgedData) -> int:
    """Declare an alpha's grid on given data; returns how many trials were new."""
    return TrialLedger(ws).declare(trials_of(alpha, judged), alpha_id=alpha.alpha_id)
