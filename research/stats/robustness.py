"""What is left of a result without its luckiest part."""

from __future__ import annotations

import math
from collections.abc import Sequence


def without_best(values: Sequence[int], *, count: int) -> int:
    """Sum of the values without the `count` largest.

    Parameters
    ----------
    values : sequence of int
        Profit per day or per trade.
    count : int
        Number of best values left out.

    Returns
    -------
    int
    """
    return sum(sorted(values)[: max(0, len(values) - count)])


def without_best_share(values: Sequence[int], *, share: float) -> int:
    """Sum of the values without the largest `share` of them, rounded up to a whole number.

    Parameters
    ----------
    values : sequence of int
        Profit per trade.
    share : float
        Share left out, for instance 0.05.

    Returns
    -------
    int
    """
    return without_best(values, count=math.ceil(share * len(values)))
