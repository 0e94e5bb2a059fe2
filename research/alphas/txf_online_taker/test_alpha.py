"""What the manifest claims, on books made by hand."""

from pathlib import Path

import numpy as np

from research.gates.probe import signal_of

FOLDER = Path(__file__).parent
SECONDS = 10  # books a second


def led_market(*, side: int, sign: int = 1, minutes: int = 3) -> tuple[list, list]:
    """Books whose mid goes a tick to the heavier side every half a second."""
    count = minutes * 60 * SECONDS
    heavier = [1 if (index // 40) % 2 else -1 for index in range(count)]
    books = [(30, 10) if side * one > 0 else (10, 30) for one in heavier]
    steps = np.where(np.arange(count) % 5 == 0, heavier, 0)
    return books, [int(mid) for mid in side * sign * np.cumsum(steps)]


def signal(books: list, mids: list | None = None) -> np.ndarray:
    return signal_of(FOLDER, books, mids_ticks=mids)


def test_it_learns_that_the_price_follows_the_heavier_side():
    books, mids = led_market(side=1)
    values = signal(books, mids)
    heavy_bid = np.array([bid > ask for bid, ask in books])
    late = np.arange(len(books)) > len(books) // 2
    assert np.nanmean(values[late & heavy_bid]) > 0.1
    assert np.nanmean(values[late & ~heavy_bid]) < -0.1


def test_it_learns_the_opposite_from_the_opposite():
    books, mids = led_market(side=1, sign=-1)
    heavy_bid = np.array([bid > ask for bid, ask in books])
    values = signal(books, mids)[len(books) // 2 :]
    assert np.nanmean(values[heavy_bid[len(books) // 2 :]]) < -0.1


def test_the_mirrored_market_gives_the_mirrored_signal():
    up, down = signal(*led_market(side=1)), signal(*led_market(side=-1))
    warm = np.isfinite(up)
    assert warm.sum() > 1000
    np.testing.assert_array_equal(up[warm], -down[warm])


def test_a_market_that_never_moves_teaches_nothing():
    assert signal([(30, 10)] * (60 * SECONDS))[-1] == 0.0


def test_there_is_no_signal_before_the_first_second_behind_the_warm_up():
    values = signal([(30, 10)] * (14 * SECONDS))
    assert np.isnan(values[: 10 * SECONDS]).all()
    assert np.isfinite(values[-1])
