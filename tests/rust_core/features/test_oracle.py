"""Every feature against the slow oracle, on generated days and on the real recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hft_platform import _core, records
from research.data.generator import spec_by_name
from research.data.generator import tapes as generated_tapes
from tests.rust_core import engine_tapes as tapes
from tests.rust_core import market_days
from tests.rust_core.engine_tapes import SECOND
from tests.rust_core.features import oracle
from tests.rust_core.features.oracle import Market

# Of a feature's value or of its unit, whichever is larger. The engine multiplies one exponential
# step by step, the oracle sums exponentials of the whole age.
TOLERANCE = 1e-9
WARM_UP_NS = {row["name"]: row["warm_up_ns"] for row in _core.feature_registry()}


def values_of(tape: bytes) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Features by name at every good book, and the receive times of the books."""
    content = tapes.config("k")
    instrument = int(np.frombuffer(tape[4:8], dtype="<u4")[0])
    content["instruments"][0]["instrument_id"] = instrument
    content["alphas"][0]["instrument_id"] = instrument
    names, values, times = _core.evaluate_features(tape, tapes.text(content), 0)
    table = np.frombuffer(values, dtype="<f8").reshape(-1, len(names))
    return dict(zip(names, table.T, strict=True)), np.frombuffer(times, dtype="<i8")


def compare(actual: dict[str, np.ndarray], market: Market, rows: np.ndarray, offset: int) -> None:
    """All features at good books `rows` of a market whose first one is row `offset` of `actual`."""
    expected = oracle.features(market, rows)
    assert set(expected) == set(WARM_UP_NS) == set(actual)
    age = market.when[rows] - market.when[0]
    for name, wanted in expected.items():
        found = actual[name][rows + offset]
        warm = age >= WARM_UP_NS[name]
        assert np.isnan(found[~warm]).all(), name
        assert warm.any(), name
        np.testing.assert_allclose(
            found[warm], wanted[warm], rtol=TOLERANCE, atol=TOLERANCE, err_msg=name
        )


def market_of(tape: bytes) -> Market:
    return Market(*oracle.records_in_order(tape))


def test_the_registry_is_complete_and_ids_are_places() -> None:
    rows = _core.feature_registry()
    assert [row["id"] for row in rows] == list(range(len(rows)))
    assert len({row["name"] for row in rows}) == len(rows)
    for row in rows:
        assert set(row) == {"id", "name", "unit", "formula", "warm_up_ns", "source", "reset"}
        assert all(row[key] for key in ("name", "unit", "formula", "source", "reset"))
        assert row["unit"] in {"ticks", "ratio", "ms", "1/s", "ticks/lot"}


def test_features_of_a_random_walk_follow_their_formulas_at_every_book() -> None:
    tape = tapes.day(4_000)
    market = market_of(tape)
    actual, _ = values_of(tape)
    compare(actual, market, np.arange(len(market.when)), 0)


def test_features_of_a_generated_session_follow_their_formulas() -> None:
    spec = spec_by_name("sim_edge", session_count=1)
    [(_, tape)] = list(generated_tapes(spec))
    market = market_of(tape)
    actual, _ = values_of(tape)
    rows = np.unique(np.linspace(0, len(market.when) - 1, 400).astype(int))
    compare(actual, market, np.union1d(rows, np.arange(300)), 0)


@pytest.mark.recordings
@pytest.mark.parametrize("session", ["day", "night"])
def test_features_of_a_recorded_txf_session_follow_their_formulas(
    recordings: Path, session: str
) -> None:
    tape = market_days.txf_session(recordings, session=session)
    market = market_of(tape)
    actual, _ = values_of(tape)
    rows = np.unique(np.linspace(0, len(market.when) - 1, 400).astype(int))
    compare(actual, market, np.union1d(rows, np.arange(300)), 0)


def test_a_gap_starts_over_and_an_invalid_book_breaks_only_the_order_flow() -> None:
    tape = tapes.day(6_000)
    books = records.split(tape)["Book"]
    gap_ns, bad_ns = (int(books["receive_time_ns"][place]) for place in (3_000, 4_000))
    # A crossed book in the second half, a gap in the middle: done on the bytes.
    damaged = bytearray(tape)
    offset, split = 0, 0
    while offset < len(tape):
        row = np.frombuffer(damaged, dtype=records.DTYPES["Book"], count=1, offset=offset)
        if row["record_type"][0] == 1 and row["receive_time_ns"][0] in (gap_ns, bad_ns):
            row = row.copy()
            if row["receive_time_ns"][0] == gap_ns:
                row["flags"], split = 32, offset
            else:
                row["bid_price"][0, 0] = row["ask_price"][0, 0] + tapes.SCALE
            damaged[offset : offset + row.nbytes] = row.tobytes()
        offset += int(row["record_bytes"][0])
    actual, times = values_of(bytes(damaged))
    assert len(times) == 5_999
    before, after = market_of(bytes(damaged[:split])), market_of(bytes(damaged[split:]))
    compare(actual, before, np.arange(0, len(before.when), 7), 0)
    compare(actual, after, np.arange(0, len(after.when), 7), len(before.when))
    # Nothing of what was before the gap is left: the second half alone gives the same bits.
    alone, _ = values_of(bytes(damaged[split:]))
    for name, column in alone.items():
        assert column.tobytes() == actual[name][len(before.when) :].tobytes(), name


def test_the_oracle_is_close_enough_to_see_a_wrong_time_constant() -> None:
    tape = tapes.day(2_000)
    market = market_of(tape)
    rows = np.arange(1_500, 2_000)
    right = oracle.faded(market.when, market.moves, market.when[rows], 10)
    wrong = oracle.faded(market.when, market.moves, market.when[rows], 10.00001)
    actual, _ = values_of(tape)
    assert market.when[rows[0]] - market.when[0] > 10 * SECOND
    assert np.abs(actual["return_10s"][rows] - right).max() < TOLERANCE
    assert np.abs(actual["return_10s"][rows] - wrong).max() > 100 * TOLERANCE
