"""A leak of one record is caught; a signal of the past is not accused."""

import numpy as np
import pytest

from hft_platform import _core, records
from research.gates.look_ahead import find_look_ahead, hurried, moved, reshaped
from research.gates.record_places import record_offsets
from research.gates.stepwise import compare_stepwise

TICK = records.SCALE


def tape(count: int = 300, *, numbered: bool = False) -> bytes:
    rng = np.random.default_rng(1)
    books = records.empty("Book", count)
    times = 1_000_000_000 * (1 + np.arange(count))
    for name in ("exchange_time_ns", "receive_time_ns"):
        books[name] = times
    books["source_seq"] = np.arange(count) if numbered else 0
    mid = 20_000 + rng.integers(-1, 2, count).cumsum()
    books["bid_price"][:, 0], books["ask_price"][:, 0] = (mid - 1) * TICK, mid * TICK
    books["bid_qty"][:, 0] = rng.integers(1, 50, count) * TICK
    books["ask_qty"][:, 0] = rng.integers(1, 50, count) * TICK
    trades = records.empty("Trade", count // 3)
    for name in ("exchange_time_ns", "receive_time_ns"):
        trades[name] = times[::3] + 5
    trades["price"], trades["aggressor_side"], trades["qty"] = books["ask_price"][::3, 0], 1, TICK
    rows = sorted(
        [(int(r["receive_time_ns"]), r.tobytes()) for r in books]
        + [(int(r["receive_time_ns"]), r.tobytes()) for r in trades]
    )
    return b"".join(raw for _, raw in rows)


ROW = np.dtype([("receive_time_ns", "<i8"), ("signal", "<f8")])


def rows_of(made: bytes, signal_of_books) -> np.ndarray:
    books = records.split(made)["Book"]
    rows = np.zeros(books.size, dtype=ROW)
    rows["receive_time_ns"] = books["receive_time_ns"]
    rows["signal"] = signal_of_books(books)
    return rows


def imbalance(books) -> np.ndarray:
    bid, ask = books["bid_qty"][:, 0].astype(float), books["ask_qty"][:, 0].astype(float)
    return (bid - ask) / (bid + ask)


def mid(books) -> np.ndarray:
    return (books["bid_price"][:, 0] + books["ask_price"][:, 0]) / 2


def check(signal):
    return find_look_ahead(
        tape(),
        lambda made: rows_of(made, signal),
        cuts=16,
        price_shift=7 * TICK,
        lot_size=TICK,
    )


def check_stepwise(signal):
    """The signal of all books against the last value of the same signal of each prefix."""
    made = tape()
    ends = [*record_offsets(made)[1:].tolist(), len(made)]
    return compare_stepwise(
        made,
        lambda part: rows_of(part, signal),
        lambda part: np.array([rows_of(part[:end], signal)["signal"][-1] for end in ends]),
    )


def test_a_signal_of_the_past_does_not_change():
    found = check(imbalance)
    assert found.rows > 500
    assert (found.truncated_mismatches, found.perturbed_mismatches) == (0, 0)
    assert check_stepwise(imbalance) == (300, 0)


def leak_next_book(books):
    return np.append(mid(books)[1:], mid(books)[-1:]) - mid(books)


def leak_whole_sample_mean(books):
    return imbalance(books) - imbalance(books).mean()


def leak_centered_window(books):
    return np.convolve(imbalance(books), np.ones(5) / 5)[2:-2]


def leak_session_close(books):
    return mid(books)[-1] - mid(books)


@pytest.mark.parametrize(
    "leak", [leak_next_book, leak_whole_sample_mean, leak_centered_window, leak_session_close]
)
def test_a_leak_is_caught_when_the_future_is_cut_off_and_when_it_is_disturbed(leak):
    found = check(leak)
    assert found.truncated_mismatches > 0
    assert found.perturbed_mismatches > 0
    assert check_stepwise(leak)[1] > 0


def ahead(values: np.ndarray) -> np.ndarray:
    """The next value of each, and its own where there is none: a cut alone may not show it."""
    return np.append(values[1:], values[-1:])


def leak_next_spread(books):
    return ahead((books["ask_price"][:, 0] - books["bid_price"][:, 0]).astype(float))


def leak_next_depth(books):
    return ahead((books["bid_qty"][:, 0] + books["ask_qty"][:, 0]).astype(float))


def leak_next_imbalance(books):
    return ahead(imbalance(books))


def leak_time_to_the_next_book(books):
    times = books["receive_time_ns"].astype(float)
    return ahead(times) - times


def leak_next_return(books):
    return ahead(ahead(mid(books))) - ahead(mid(books))


@pytest.mark.parametrize(
    "leak",
    [
        leak_next_spread,
        leak_next_depth,
        leak_next_imbalance,
        leak_time_to_the_next_book,
        leak_next_return,
    ],
)
def test_whatever_of_the_future_is_known_some_disturbance_changes_it(leak):
    """Sums, shares, spreads, returns and times each pass one of the disturbances unchanged."""
    assert check(leak).perturbed_mismatches > 0


def test_a_leak_at_one_record_in_fifty_hides_from_a_few_cuts_and_not_from_all():
    def leak(books):
        here = books["source_seq"] % 50 == 25
        return np.where(here, leak_next_book(books), imbalance(books))

    made = tape(numbered=True)
    found = find_look_ahead(
        made, lambda part: rows_of(part, leak), cuts=4, price_shift=7 * TICK, lot_size=TICK
    )
    assert (found.truncated_mismatches, found.perturbed_mismatches) == (0, 0)
    ends = [*record_offsets(made)[1:].tolist(), len(made)]
    rows, mismatches = compare_stepwise(
        made,
        lambda part: rows_of(part, leak),
        lambda part: np.array([rows_of(part[:end], leak)["signal"][-1] for end in ends]),
    )
    assert rows == 300
    assert 0 < mismatches <= 6


def test_a_disturbed_tape_has_the_same_form_and_another_market():
    before = tape()
    after = moved(before, price_shift=7 * TICK)
    assert len(after) == len(before)
    old, new = records.split(before), records.split(after)
    assert (new["Book"]["bid_price"][:, 0] == old["Book"]["bid_price"][:, 0] + 7 * TICK).all()
    assert (new["Book"]["bid_price"][:, 1] == 0).all(), "an empty level stays empty"
    assert (new["Book"]["bid_qty"][:, 0] == old["Book"]["ask_qty"][:, 0]).all()
    assert (new["Trade"]["aggressor_side"] == -1).all()
    assert (new["Book"]["receive_time_ns"] == old["Book"]["receive_time_ns"]).all()
    assert int(new["Book"]["schema_version"][0]) == _core.SCHEMA_VERSION


def test_a_reshaped_tape_keeps_its_mids_and_changes_spread_and_depth():
    before = tape()
    old = records.split(before)
    new = records.split(reshaped(before, price_shift=7 * TICK, lot_size=TICK))
    assert (mid(new["Book"]) == mid(old["Book"])).all()
    spread = new["Book"]["ask_price"][:, 0] - new["Book"]["bid_price"][:, 0]
    assert (spread == 15 * TICK).all()
    assert (new["Book"]["bid_price"][:, 1] == 0).all(), "an empty level stays empty"
    assert (new["Book"]["bid_qty"][:, 0] > old["Book"]["bid_qty"][:, 0]).all()
    assert (new["Trade"]["qty"] > old["Trade"]["qty"]).all()


def test_a_hurried_tape_has_the_same_records_in_half_the_time():
    before = tape()
    old = records.split(before)["Book"]
    new = records.split(hurried(before, record_offsets(before)))["Book"]
    for name in ("exchange_time_ns", "receive_time_ns"):
        assert (np.diff(new[name]) == np.diff(old[name]) // 2).all()
    assert (new["bid_qty"] == old["bid_qty"]).all()
