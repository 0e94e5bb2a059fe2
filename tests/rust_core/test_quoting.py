"""The makers' formulas against published values and against the exact quotes of a matrix."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hft_platform import _core

QUIET = {"gamma": 0.01, "k": 0.3, "fills_per_s": 0.9, "sigma": 0.3}
FAST = QUIET | {"fills_per_s": 0.2, "sigma": 1.0}


def exact_bid_distances(
    *, gamma: float, k: float, fills_per_s: float, sigma: float, inventory_max: int = 30
) -> dict[int, float]:
    """Optimal bid distances far from the end, by inventory: Guéant, Lehalle, Fernandez-Tapia 2013.

    The value function is the eigenvector of the smallest eigenvalue of a tridiagonal matrix:
    squared inventory on the diagonal, the rate of fills beside it. The matrix exponential says the
    same and overflows for long horizons.
    """
    inventory = np.arange(-inventory_max, inventory_max + 1)
    risk = k * gamma * sigma**2 / 2.0
    reach = fills_per_s * (1.0 + gamma / k) ** -(1.0 + k / gamma)
    beside = np.full(inventory.size - 1, -reach)
    matrix = np.diag(risk * inventory**2.0) + np.diag(beside, 1) + np.diag(beside, -1)
    _, vectors = np.linalg.eigh(matrix)
    value = np.abs(vectors[:, 0])
    base = math.log1p(gamma / k) / gamma
    return {
        int(q): base + math.log(value[i] / value[i + 1]) / k for i, q in enumerate(inventory[:-1])
    }


@pytest.mark.parametrize(
    ("market", "inventory", "asymptotic", "exact"),
    [
        (QUIET, 0, 3.3129, 3.3130),
        (QUIET, 5, 3.6522, 3.6535),
        (QUIET, 10, 3.9916, 3.9929),
        (FAST, 0, 3.5189, 3.5257),
        (FAST, 10, 8.3178, 8.0227),
    ],
)
def test_glft_distances_and_the_exact_ones_are_the_worked_values(
    market: dict[str, float], inventory: int, asymptotic: float, exact: float
) -> None:
    bid, _ = _core.glft_distances(inventory, **market)
    assert bid == pytest.approx(asymptotic, abs=5e-5)
    assert exact_bid_distances(**market)[inventory] == pytest.approx(exact, abs=5e-5)


def test_the_closed_form_is_near_the_exact_quotes_where_inventory_costs_little() -> None:
    exact = exact_bid_distances(**QUIET)
    for inventory in range(-10, 11):
        bid, ask = _core.glft_distances(inventory, **QUIET)
        assert bid == pytest.approx(exact[inventory], abs=2e-3)
        assert ask == pytest.approx(exact[-inventory], abs=2e-3)


def test_where_inventory_is_costly_the_closed_form_is_some_percent_off() -> None:
    """Four per cent at ten units: what the closed form costs, so that nobody is surprised."""
    exact = exact_bid_distances(**FAST)
    bid, _ = _core.glft_distances(10, **FAST)
    assert 0.03 < bid / exact[10] - 1.0 < 0.04


@pytest.mark.parametrize(("gamma", "spread"), [(0.1, 1.492), (0.01, 1.349), (1.0, 3.032)])
def test_the_mean_spread_of_avellaneda_and_stoikov_comes_out(gamma: float, spread: float) -> None:
    """Tables 1 to 3 of the paper print 1.49, 1.35 and 3.02."""
    widths = []
    for step in range(200):
        bid, ask = _core.avellaneda_stoikov_quotes(
            100.0, 0.0, gamma=gamma, sigma=2.0, k=1.5, time_left=1.0 - 0.005 * step
        )
        widths.append(ask - bid)
    assert np.mean(widths) == pytest.approx(spread, abs=5e-4)


def test_a_formula_refuses_what_it_is_not_defined_for() -> None:
    for name in ("gamma", "sigma", "k", "fills_per_s"):
        for value in (0.0, -1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match=name):
                _core.glft_distances(0.0, **(QUIET | {name: value}))
    with pytest.raises(ValueError, match="gamma"):
        _core.avellaneda_stoikov_quotes(100.0, 0.0, gamma=0.0, sigma=2.0, k=1.5, time_left=1.0)
