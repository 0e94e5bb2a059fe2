"""Fitted weights of integrated order flow: a planted direction is found, and the core reads it."""

import numpy as np
import pytest

from hft_platform import _core
from research.stats.order_flow import (
    LEVELS,
    integrated_ofi_expression,
    integrated_ofi_weights,
)

PLANTED = np.array([0.30, 0.25, 0.20, 0.15, 0.10])


def day(seed: int, *, level: float = 0.0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    common = draw.normal(0, 3, 20_000)
    return (
        level + common[:, None] * PLANTED / np.linalg.norm(PLANTED) + draw.normal(0, 1, (20_000, 5))
    )


def test_the_planted_direction_is_found_whatever_its_sign_and_the_level_of_a_day():
    weights = integrated_ofi_weights([day(1), day(2, level=50.0), -day(3)])
    np.testing.assert_allclose(weights, PLANTED, atol=0.005)
    assert np.abs(weights).sum() == pytest.approx(1.0)


def test_levels_that_vary_and_correlate_alike_get_the_weights_of_the_engine():
    draw = np.random.default_rng(4)
    alike = draw.normal(size=(50_000, 1)) + draw.normal(size=(50_000, 5))
    np.testing.assert_allclose(integrated_ofi_weights([alike]), 0.2, atol=0.003)


def test_rows_that_are_not_warm_are_left_out():
    rows = day(1)
    holed = rows.copy()
    holed[:100] = np.nan
    np.testing.assert_array_equal(
        integrated_ofi_weights([holed]), integrated_ofi_weights([rows[100:]])
    )


def test_a_day_of_another_shape_or_without_variance_is_refused():
    with pytest.raises(ValueError, match=r"\(10, 4\)"):
        integrated_ofi_weights([np.zeros((10, 4))])
    for days in ([], [np.zeros((10, 5))], [np.full((10, 5), np.nan)]):
        with pytest.raises(ValueError, match="no variance"):
            integrated_ofi_weights(days)


def test_the_engine_reads_the_expression():
    text = integrated_ofi_expression(np.array([0.5, -0.2, 0.1, 0.1, 0.1]))
    assert text.startswith("0.5000 * ofi_l1 - 0.2000 * ofi_l2 +")
    assert _core.check_expression(text, [])["features"] == list(LEVELS)
