"""Published identities and planted values: features find what was put into a market."""

from __future__ import annotations

import numpy as np
import pytest

from hft_platform import _core, records
from tests.rust_core import engine_tapes as tapes
from tests.rust_core.engine_tapes import SCALE, SECOND, START
from tests.rust_core.features.test_oracle import values_of

LEVELS = np.arange(5)
TICK = SCALE


def book_rows(when_ns: np.ndarray, bid: np.ndarray, ask: np.ndarray) -> np.ndarray:
    """Books with these best prices (scaled), five levels, ten lots each."""
    rows = records.empty("Book", len(when_ns))
    rows["instrument_id"] = tapes.INSTRUMENT_ID
    rows["receive_time_ns"] = when_ns
    rows["bid_price"] = bid[:, None] - LEVELS * TICK
    rows["ask_price"] = ask[:, None] + LEVELS * TICK
    rows["bid_qty"] = rows["ask_qty"] = 10 * SCALE
    return rows


def trade_rows(when_ns: np.ndarray, lots: np.ndarray) -> np.ndarray:
    """Prints of signed lots; the sign is the aggressor's."""
    rows = records.empty("Trade", len(when_ns))
    rows["instrument_id"] = tapes.INSTRUMENT_ID
    rows["receive_time_ns"] = when_ns
    rows["price"] = 35_000 * SCALE
    rows["qty"] = np.abs(lots) * SCALE
    rows["aggressor_side"] = np.sign(lots)
    return rows


def merged(books: np.ndarray, trades: np.ndarray) -> bytes:
    return _core.merge_tapes([books.tobytes(), trades.tobytes()])


def slope(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.cov(x, y)[0, 1] / np.var(x, ddof=1))


def out_of_sample_r2(x: np.ndarray, y: np.ndarray) -> float:
    """Fit on the first half, judge on the second."""
    half = len(y) // 2
    design = np.column_stack([np.ones(len(y)), x])
    weights, *_ = np.linalg.lstsq(design[:half], y[:half], rcond=None)
    error = y[half:] - design[half:] @ weights
    return float(1 - error.var() / y[half:].var())


@pytest.mark.parametrize(("depth", "published"), [(5, 0.0998), (10, 0.0502), (50, 0.0103)])
def test_unit_orders_on_constant_depth_move_the_mid_by_half_the_flow_over_depth(
    depth: int, published: float
) -> None:
    """Cont, Kukanov and Stoikov 2014: dMid = OFI / (2 D) + eps with abs(eps) < 1 tick, exactly."""
    draw = np.random.default_rng(depth)
    count = 120_000
    # Every level holds `depth` lots, and unit orders come and go at the best of either side.
    is_bid = draw.integers(2, size=count).astype(bool)
    unit = draw.choice([-1, 1], count)
    bid_lots = 30_000 * depth + np.cumsum(np.where(is_bid, unit, 0))
    ask_lots = 30_000 * depth + np.cumsum(np.where(is_bid, 0, unit))
    rows = records.empty("Book", count)
    rows["instrument_id"] = tapes.INSTRUMENT_ID
    rows["receive_time_ns"] = START + 20 * SECOND + np.arange(count) * 1_000
    rows["bid_price"][:, 0] = (bid_lots - 1) // depth * SCALE
    rows["bid_qty"][:, 0] = ((bid_lots - 1) % depth + 1) * SCALE
    rows["ask_price"][:, 0] = (70_000 - (ask_lots - 1) // depth) * SCALE
    rows["ask_qty"][:, 0] = ((ask_lots - 1) % depth + 1) * SCALE
    first = rows[:1].copy()
    first["receive_time_ns"] = START - 20 * SECOND
    values, _ = values_of(first.tobytes() + rows.tobytes())
    mid = (rows["bid_price"][:, 0] + rows["ask_price"][:, 0]) / (2 * SCALE)
    # Within 0.12 s a sum over 30 s is the plain sum (to 0.4 %), over the first book's depth.
    held = (rows["bid_qty"][0, 0] + rows["ask_qty"][0, 0]) / (2 * SCALE)
    change = np.diff(mid, prepend=mid[0])
    flow = np.cumsum(np.where(is_bid, unit, -unit)[1:], dtype=float)
    np.testing.assert_allclose(
        values["ofi_l1_30s"][2:] * held, flow, rtol=0.02, atol=2.0 + 0.01 * np.abs(flow).max()
    )
    assert np.abs(mid[1:] - mid[0] - flow / (2 * depth)).max() < 1
    # Slopes over blocks of a thousand orders, from the feature.
    block = slice(None, None, 1_000)
    sums = np.diff(values["ofi_l1_30s"][1:][block] * held)
    moves = np.diff(np.cumsum(change)[block])
    assert slope(sums, moves) == pytest.approx(published, rel=0.05)


def test_each_level_of_order_flow_adds_to_what_the_first_ones_explain() -> None:
    """Xu, Gould and Howison 2019: the fit out of sample improves with every level."""
    draw = np.random.default_rng(3)
    count = 20_000
    flow = draw.integers(-4, 5, (count, 5))
    rows = book_rows(
        START + np.arange(count) * 5 * SECOND,
        np.full(count, 35_000 * SCALE),
        np.full(count, 35_001 * SCALE),
    )
    # Flow comes to the bid queue, never below one lot.
    queue = np.cumsum(flow, axis=0)
    rows["bid_qty"] = (queue - queue.min(axis=0) + 1) * SCALE
    values, _ = values_of(rows.tobytes())
    label = flow @ np.array([1.0, 0.8, 0.6, 0.5, 0.4]) + draw.normal(0, 3, count)
    # One over the mean quantity scales all levels alike: undo it to compare with the label.
    levels = np.column_stack([values[f"ofi_l{level}"] for level in range(1, 6)])
    depth = (rows["bid_qty"] + rows["ask_qty"]).mean(axis=1) / 2 / SCALE
    scaled = np.nan_to_num(levels[1:] * depth[1:, None])
    fits = [out_of_sample_r2(scaled[:, :used], label[1:]) for used in range(1, 6)]
    assert np.diff(fits).min() > 0.01, fits
    together = np.nan_to_num(values["ofi_integrated"][1:] * depth[1:])
    assert out_of_sample_r2(together[:, None], label[1:]) > fits[0]


def test_kyles_lambda_of_two_hundredths_is_found() -> None:
    """Planted .02 ticks a lot; the sheet's sample gave .01989."""
    draw = np.random.default_rng(11)
    count = 40_000
    lots = draw.integers(1, 40, count) * draw.choice([-1, 1], count)
    step = np.round((0.02 * lots + draw.normal(0, 0.2, count)) * SCALE).astype(np.int64)
    when = START + np.arange(count) * SECOND
    bid = 35_000 * SCALE + np.cumsum(step)
    books = book_rows(when + 1_000, bid, bid + SCALE)
    values, _ = values_of(merged(books, trade_rows(when, lots)))
    slopes = values["kyle_lambda_60s"][120::120]
    error = slopes.std(ddof=1) / np.sqrt(len(slopes))
    assert error < 0.0001
    assert abs(slopes.mean() - 0.02) < 4 * error + 0.02 * 1e-4
    # What trades explain is gone from the surprise: it is the noise, whose sum over 5 s has
    # variance 0.04 / (1 - exp(-2 / 5)).
    left = values["impact_surprise_5s"][120::30]
    assert left.std() == pytest.approx(np.sqrt(0.04 / (1 - np.exp(-0.4))), rel=0.06)
    assert abs(np.corrcoef(left, values["trade_imbalance_5s"][120::30])[0, 1]) < 0.1


def hawkes_times(mu: float, a: float, b: float, seconds: float, seed: int) -> np.ndarray:
    """Events of a Hawkes process as a branching tree: immigrants and their offspring, s."""
    draw = np.random.default_rng(seed)
    generation = draw.uniform(0, seconds, draw.poisson(mu * seconds))
    born = [generation]
    while len(generation):
        children = draw.poisson(a / b, len(generation))
        generation = np.repeat(generation, children) + draw.exponential(1 / b, children.sum())
        born.append(generation)
    times = np.concatenate(born)
    return np.sort(times[times < seconds])


def test_hawkes_intensities_match_their_definition_and_foretell_planted_events() -> None:
    """(mu, a, b) = (1, .8, 1.6): mean rate 2; E[events in h] follows from the intensity."""
    seconds, horizon = 10_000.0, 0.25
    buys, sells = (hawkes_times(1.0, 0.8, 1.6, seconds, seed) for seed in (1, 2))
    # The variance of a count is rate / (1 - a / b)^2 a second.
    assert len(buys) / seconds == pytest.approx(2.0, abs=4 * np.sqrt(8 / seconds))
    stamps = [START + np.round(times * SECOND).astype(np.int64) for times in (buys, sells)]
    lots = np.concatenate([np.ones(len(buys)), -np.ones(len(sells))])
    when = np.concatenate(stamps)
    order = np.argsort(when, kind="stable")
    grid = START + np.arange(int(seconds / horizon)) * int(horizon * SECOND) + 1
    level = np.full(len(grid), 35_000 * SCALE)
    tape = merged(
        book_rows(grid, level, level + SCALE), trade_rows(when[order], lots[order].astype(int))
    )
    values, times = values_of(tape)
    late = times > START + 120 * SECOND
    at = times[late]
    for name, stamp in zip(("hawkes_buy", "hawkes_sell"), stamps, strict=True):
        intensity = values[name][late]
        assert intensity.mean() == pytest.approx(2.0, rel=0.05)
        # The true intensity is 1 + the same excitation; the feature's baseline is half its rate.
        upto = np.searchsorted(stamp, at, "right")
        sums = np.array(
            [
                np.exp(-1.6 * (t - stamp[max(0, i - 200) : i]) / SECOND).sum()
                for t, i in zip(at, upto, strict=True)
            ]
        )
        true = 1.0 + 0.8 * sums
        assert np.corrcoef(true, intensity)[0, 1] > 0.95
        assert np.abs(intensity - true).mean() < 0.25
        # E[N(t, t + h)] = 2 h + (intensity - 2) (1 - exp(-(b - a) h)) / (b - a).
        events = np.searchsorted(stamp, at + int(horizon * SECOND)) - upto
        foretold = (1 - np.exp(-0.8 * horizon)) / 0.8
        assert slope(true, events) == pytest.approx(foretold, rel=0.05)
        assert slope(intensity, events) == pytest.approx(foretold, rel=0.1)


def test_realised_variance_of_a_brownian_mid_is_its_variance() -> None:
    draw = np.random.default_rng(5)
    sigma, per_second, seconds = 3.0, 10, 12_000
    count = per_second * seconds
    step = draw.normal(0, sigma / np.sqrt(per_second), count)
    bid = 300_000 * SCALE + np.round(np.cumsum(step) * SCALE).astype(np.int64)
    when = START + np.arange(count) * (SECOND // per_second)
    values, _ = values_of(book_rows(when, bid, bid + SCALE).tobytes())
    for name, tau in (("volatility_10s", 10), ("volatility_60s", 60)):
        variance = values[name][per_second * 600 :: per_second * tau] ** 2 / tau
        error = variance.std(ddof=1) / np.sqrt(len(variance))
        # The sum of exp(-k dt / tau) from k = 0 is half a step above tau / dt.
        expected = sigma**2 * (1 + 0.5 / (per_second * tau))
        assert abs(variance.mean() - expected) < 4 * error
        assert error < 0.05 * sigma**2


def test_a_planted_effect_of_the_queue_imbalance_is_recovered() -> None:
    """Gould and Bonart: P(next move is up) = 1 / (1 + exp(-beta I)), beta planted at 1.5."""
    draw = np.random.default_rng(8)
    count, beta = 40_000, 1.5
    bid_qty, ask_qty = draw.integers(1, 30, count), draw.integers(1, 30, count)
    truth = (bid_qty - ask_qty) / (bid_qty + ask_qty)
    ups = draw.uniform(size=count) < 1 / (1 + np.exp(-beta * truth))
    step = np.where(ups, 1, -1)
    # The move that a book foretells is seen in the next book.
    bid = (40_000 + np.concatenate([[0], np.cumsum(step)[:-1]])) * SCALE
    rows = book_rows(START + np.arange(count) * 100_000_000, bid, bid + SCALE)
    rows["bid_qty"][:, 0], rows["ask_qty"][:, 0] = bid_qty * SCALE, ask_qty * SCALE
    values, _ = values_of(rows.tobytes())
    x = values["imbalance_l1"][:-1]
    went_up = np.diff(rows["bid_price"][:, 0]) > 0
    fitted = 0.0
    for _ in range(20):
        chance = 1 / (1 + np.exp(-fitted * x))
        information = np.sum(x**2 * chance * (1 - chance))
        fitted += np.sum(x * (went_up - chance)) / information
    assert abs(fitted - beta) < 4 / np.sqrt(information)


def race_for_the_queue(count: int) -> np.ndarray:
    """A market in which the weighted mid is a martingale.

    Lots wander between bid and ask queue one at a time, fairly, 20 in all. When one queue is gone
    the spread opens to two ticks with even queues; then a fair coin closes it from either side.
    By gambler's ruin the chance that the ask goes first is bid / (bid + ask).
    """
    draw = np.random.default_rng(13)
    coins = draw.choice([-1, 1], count)
    bid, ask, lots = 35_000, 35_001, 10
    rows = book_rows(
        START + np.arange(count) * 1_000_000, np.zeros(count, "i8"), np.zeros(count, "i8")
    )
    for row, coin in zip(rows, coins.tolist(), strict=True):
        if ask - bid == 2:
            bid, ask = (bid + 1, ask) if coin > 0 else (bid, ask - 1)
            lots = 10
        else:
            lots += coin
            if lots in (0, 20):
                bid, ask = (bid, ask + 1) if lots == 20 else (bid - 1, ask)
                lots = 10
        row["bid_price"], row["ask_price"] = (bid - LEVELS) * SCALE, (ask + LEVELS) * SCALE
        row["bid_qty"][0], row["ask_qty"][0] = lots * SCALE, (20 - lots) * SCALE
    return rows


def test_the_weighted_mid_is_a_martingale_where_queues_race_fairly_and_the_mid_is_not() -> None:
    """Stoikov 2018 asks for a martingale; a weighted mid is one in this market only."""
    rows = race_for_the_queue(200_000)
    values, _ = values_of(rows.tobytes())
    mid = (rows["bid_price"][:, 0] + rows["ask_price"][:, 0]) / (2 * SCALE)
    fair = mid + values["microprice_dev"]
    ahead = 25
    for start in (0, 7):
        at = np.arange(start, len(mid) - ahead, ahead)
        dev = values["microprice_dev"][at]
        gain, mid_gain = fair[at + ahead] - fair[at], mid[at + ahead] - mid[at]
        for low, high in ((-0.5, -0.25), (-0.25, 0.0), (0.0, 0.25), (0.25, 0.5)):
            inside = (dev > low) & (dev < high)
            error = gain[inside].std() / np.sqrt(inside.sum())
            assert abs(gain[inside].mean()) < 4 * error
        outer = np.abs(dev) > 0.25
        pull = mid_gain[outer] * np.sign(dev[outer])
        assert pull.mean() > 6 * pull.std() / np.sqrt(outer.sum())


@pytest.mark.parametrize("go_on", [0.2, 0.5, 0.8])
def test_autocorrelation_is_that_of_moves_that_go_on_or_bounce(go_on: float) -> None:
    """Signs that repeat with chance p have correlation 2 p - 1; Roll's bounce is the negative."""
    draw = np.random.default_rng(21)
    count = 60_000
    sign = np.cumprod(np.where(draw.uniform(size=count) < go_on, 1, -1))
    bid = 200_000 * SCALE + np.cumsum(sign) * SCALE
    values, _ = values_of(
        book_rows(START + np.arange(count) * 20_000_000, bid, bid + SCALE).tobytes()
    )
    sample = values["return_autocorr_10s"][1_000::1_000]
    error = sample.std(ddof=1) / np.sqrt(len(sample))
    # 500 squared moves in the denominator, and one squared tick.
    assert abs(sample.mean() - (2 * go_on - 1) * 500 / 501) < 4 * error
    assert error < 0.02


def test_the_rate_of_top_changes_is_the_planted_rate() -> None:
    draw = np.random.default_rng(34)
    count, rate, per_second = 100_000, 2.0, 20
    step = np.where(draw.uniform(size=count) < rate / per_second, draw.choice([-1, 1], count), 0)
    bid = 200_000 * SCALE + np.cumsum(step) * SCALE
    when = START + np.arange(count) * (SECOND // per_second)
    values, _ = values_of(book_rows(when, bid, bid + SCALE).tobytes())
    sample = values["top_change_rate_10s"][200::200]
    error = sample.std(ddof=1) / np.sqrt(len(sample))
    assert abs(sample.mean() - rate * (1 + 0.5 / (10 * per_second))) < 4 * error
    # Right from the end of the warm-up, when only 10 s were seen.
    assert values["top_change_rate_10s"][201] == pytest.approx(rate, rel=0.6)


def test_flow_from_one_side_is_toxic_and_balanced_flow_is_not() -> None:
    draw = np.random.default_rng(55)
    when = START + np.arange(6_000) * (SECOND // 50)
    grid = START + np.arange(1_200) * (SECOND // 10) + 1
    level = np.full(len(grid), 35_000 * SCALE)
    books = book_rows(grid, level, level + SCALE)
    toxicity = {}
    for name, side in (("one", np.ones(6_000)), ("both", draw.choice([-1.0, 1.0], 6_000))):
        tape = merged(books, trade_rows(when, (2 * side).astype(int)))
        toxicity[name] = values_of(tape)[0]["toxicity_30s"][600:]
    assert toxicity["one"].min() > 0.95
    assert toxicity["both"].max() < 0.35
    assert all(((v >= 0) & (v <= 1)).all() for v in toxicity.values())


def test_a_queue_that_is_eaten_is_depleted_and_one_that_grows_is_not() -> None:
    count = 200
    level = np.full(count, 35_000 * SCALE)
    rows = book_rows(START + np.arange(count) * 50_000_000, level, level + SCALE)
    # The bid loses a lot a book and is filled up at once every tenth; the ask stays.
    rows["bid_qty"][:, 0] = (20 - np.arange(count) % 10) * SCALE
    values, _ = values_of(rows.tobytes())
    warm = slice(40, None)
    assert (values["queue_depletion_ask"][warm] == 0).all()
    # 18 lots a second leave a queue pair whose mean is about (15.5 + 10) / 2.
    assert values["queue_depletion_bid"][warm].mean() == pytest.approx(18 / 12.75, rel=0.1)
    assert np.abs(values["ofi_l1_1s"][warm]).max() < values["queue_depletion_bid"][warm].min()
