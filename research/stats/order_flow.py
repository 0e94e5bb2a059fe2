"""Weights of integrated order flow, fitted on training days.

The engine's ``ofi_integrated`` weighs five levels alike and is fitted on nothing. Weights that
were fitted belong to an alpha: they are written into its expression, so that they are part of what
its hash covers and of what the gates judge.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

LEVELS = ("ofi_l1", "ofi_l2", "ofi_l3", "ofi_l4", "ofi_l5")
"""Features that are weighed, best level first."""


def integrated_ofi_weights(
    days: Sequence[npt.NDArray[np.float64]],
) -> npt.NDArray[np.float64]:
    """Weigh levels of order flow by their first principal component.

    Parameters
    ----------
    days : sequence of ndarray of float64, shape (n, 5)
        Columns `LEVELS` of one training day each; rows with NaN are left out. Give in-sample
        days only: a weight that saw the days it is judged on has looked ahead.

    Returns
    -------
    ndarray of float64, shape (5,)
        Weights whose absolute values sum to 1 and whose sum is positive.

    Raises
    ------
    ValueError
        If a day has other columns, or there is no variance to explain.

    Notes
    -----
    Cont, Cucuringu, Zhang (2023), Quantitative Finance 23(10): the first eigenvector of the
    covariance of depth-scaled order flows, divided by its l1 norm. Every day is centered by
    itself, so that a difference between days is no variance. The last bits depend on the linear
    algebra library; `integrated_ofi_expression` rounds them away.
    """
    covariance = np.zeros((len(LEVELS), len(LEVELS)))
    for day in days:
        if day.ndim != 2 or day.shape[1] != len(LEVELS):
            raise ValueError(f"a day has shape {day.shape}, expected (n, {len(LEVELS)})")
        rows = day[np.isfinite(day).all(axis=1)]
        if len(rows):
            centered = rows - rows.mean(axis=0)
            covariance += centered.T @ centered
    if not np.trace(covariance) > 0:
        raise ValueError("order flow has no variance on the training days")
    _, vectors = np.linalg.eigh(covariance)
    first = vectors[:, -1]
    weights: npt.NDArray[np.float64] = first / np.abs(first).sum()
    return weights if weights.sum() >= 0 else -weights


def integrated_ofi_expression(weights: npt.NDArray[np.float64]) -> str:
    """Write weights as the text of an alpha's expression.

    Parameters
    ----------
    weights : ndarray of float64, shape (5,)
        As `integrated_ofi_weights` gives them.

    Returns
    -------
    str
        For example ``0.1810 * ofi_l1 + 0.2140 * ofi_l2 ...``, four decimals each.
    """
    terms = [f"{weight:.4f} * {name}" for weight, name in zip(weights, LEVELS, strict=True)]
    return " + ".join(terms).replace("+ -", "- ")
