"""Generated tapes: deterministic, valid, continuous, and refused by name when out of range."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from hft_platform import _core, records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import load_instruments
from hft_platform.market.sessions import session_of
from research.data.generator import (
    GeneratorSpec,
    default_specs,
    generate_session,
    load_generator,
    params_json,
    session_hours,
    spec_by_name,
    tapes,
)

SESSION_START = 1 << 4
IN_ANOTHER_PROCESS = """
import hashlib
from research.data.generator import spec_by_name, tapes
spec = spec_by_name("sim_edge", session_count=3)
print(hashlib.sha256(b"".join(tape for _, tape in tapes(spec))).hexdigest())
"""


@pytest.fixture(scope="module")
def spec() -> GeneratorSpec:
    return spec_by_name("sim_edge", session_count=3)


@pytest.fixture(scope="module")
def generated(spec: GeneratorSpec) -> list[bytes]:
    return [tape for _, tape in tapes(spec)]


def test_two_processes_make_the_same_bytes(generated: list[bytes]) -> None:
    there = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS], capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == hashlib.sha256(b"".join(generated)).hexdigest()


def test_another_seed_edge_or_calibration_makes_other_bytes(
    spec: GeneratorSpec, generated: list[bytes]
) -> None:
    model = spec.model.model_dump(mode="json")
    for changed in (
        {"seed": spec.seed + 1},
        {"edge": {"kind": "none"}},
        {"activity": 1.5},
        {"model": model | {"queue_step": 0.4}},
    ):
        other = spec_by_name("sim_edge", session_count=1, **changed)
        assert other.sha256 != spec.sha256
        assert next(tapes(other))[1] != generated[0]


def test_sessions_are_the_same_in_any_order_and_without_the_ones_before(
    spec: GeneratorSpec, generated: list[bytes]
) -> None:
    params = params_json(spec)
    for index in (2, 0, 1):
        assert generate_session(params, index) == generated[index]


def test_more_sessions_leave_the_first_ones_unchanged(generated: list[bytes]) -> None:
    longer = spec_by_name("sim_edge", session_count=5)
    assert [tape for _, tape in tapes(longer)][:3] == generated


@pytest.mark.parametrize("name", [spec.name for spec in default_specs()])
def test_every_book_is_valid_and_every_record_in_its_session(name: str) -> None:
    market = spec_by_name(name, session_count=3)
    instrument = load_instruments().by_symbol(market.symbol)
    for _, tape in tapes(market):
        book, trade = records.split(tape)["Book"], records.split(tape)["Trade"]
        bid, ask = book["bid_price"], book["ask_price"]
        assert (bid[:, 0] < ask[:, 0]).all()
        assert (np.diff(bid, axis=1) < 0).all()
        assert (np.diff(ask, axis=1) > 0).all()
        assert bid.min() > 0
        for column in ("bid_qty", "ask_qty"):
            assert book[column].min() > 0
            assert not (book[column] % instrument.lot_size).any()
        for prices in (bid, ask, trade["price"]):
            assert not (prices % instrument.tick_size).any()
        assert trade["qty"].min() > 0
        assert set(np.unique(trade["aggressor_side"]).tolist()) == {-1, 1}
        first = session_of(instrument, int(book["exchange_time_ns"][0]))
        assert first is not None
        last_ns = max(int(part["receive_time_ns"][-1]) for part in (book, trade))
        assert first.start_ns <= int(book["exchange_time_ns"][0])
        assert last_ns < first.end_ns
        assert set(np.unique(book["trading_day"]).tolist()) == {first.trading_day}


def test_receive_times_and_numbers_are_unique_and_only_the_first_record_starts_the_session(
    generated: list[bytes],
) -> None:
    for tape in generated:
        parts = records.split(tape)
        numbers = np.concatenate([parts[name]["source_seq"] for name in ("Book", "Trade")])
        times = np.concatenate([parts[name]["receive_time_ns"] for name in ("Book", "Trade")])
        flags = np.concatenate([parts[name]["flags"] for name in ("Book", "Trade")])
        order = np.argsort(times)
        assert (np.diff(times[order]) > 0).all()
        assert (numbers[order] == np.arange(1, numbers.size + 1)).all()
        assert flags[order][0] == SESSION_START
        assert not flags[order][1:].any()


def test_trades_of_a_millisecond_come_before_its_book(generated: list[bytes]) -> None:
    ties = 0
    for tape in generated:
        book, trade = records.split(tape)["Book"], records.split(tape)["Trade"]
        at = np.searchsorted(book["exchange_time_ns"], trade["exchange_time_ns"])
        same = book["exchange_time_ns"][np.minimum(at, book.size - 1)] == trade["exchange_time_ns"]
        ties += int(same.sum())
        assert (book["source_seq"][at[same]] > trade["source_seq"][same]).all()
    assert ties > 0


def test_a_session_opens_where_the_last_one_closed(generated: list[bytes]) -> None:
    books = [records.split(tape)["Book"] for tape in generated]
    for before, after in itertools.pairwise(books):
        close = int(before["bid_price"][-1, 0] + before["ask_price"][-1, 0])
        opened = int(after["bid_price"][0, 0] + after["ask_price"][0, 0])
        assert abs(opened - close) <= records.SCALE


def test_there_is_one_session_a_trading_day_and_weekends_are_skipped() -> None:
    market = spec_by_name("sim_null", session_count=400, first_day=20260102)
    hours = session_hours(market, load_instruments().by_symbol("SIM_NULL"))
    days = [session.trading_day for session in hours]
    assert days[:3] == [20260102, 20260105, 20260106]
    assert len(set(days)) == 400
    assert all(session.end_ns - session.start_ns == 600 * 10**9 for session in hours)


def test_activity_and_session_length_scale_what_is_published() -> None:
    def books(**changes: object) -> int:
        market = spec_by_name("sim_null", session_count=2, **changes)
        return sum(records.split(tape)["Book"].size for _, tape in tapes(market))

    usual = books()
    assert books(activity=3.0) > 1.4 * usual
    assert books(activity=0.3) < 0.6 * usual
    assert 0.2 * usual < books(session_seconds=200) < 0.5 * usual


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"activity": 0.0}, ReasonCode.SETTINGS_INVALID, "activity is 0"),
        ({"edge": {"kind": "sometimes"}}, ReasonCode.SETTINGS_INVALID, "edge"),
        (
            {"edge": {"kind": "planted", "strength_ticks": 500.0, "horizon_s": 15.0}},
            ReasonCode.SETTINGS_INVALID,
            "strength_ticks",
        ),
        ({"seed": -1}, ReasonCode.SETTINGS_INVALID, "seed"),
        ({"first_day": 20260231}, ReasonCode.SETTINGS_INVALID, "20260231"),
        ({"session_seconds": 601}, ReasonCode.SETTINGS_INVALID, "lasts 600 s"),
        ({"symbol": "NOBODY"}, ReasonCode.UNKNOWN_INSTRUMENT, "NOBODY"),
        ({"colour": "red"}, ReasonCode.SETTINGS_INVALID, "colour"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name(
    changes: dict[str, object], code: int, words: str
) -> None:
    with pytest.raises(PlatformError) as caught:
        next(tapes(spec_by_name("sim_edge", **changes)))
    assert caught.value.code == code
    assert words in caught.value.message


def test_a_session_that_is_not_there_is_refused(spec: GeneratorSpec) -> None:
    with pytest.raises(PlatformError) as caught:
        generate_session(params_json(spec), 3)
    assert caught.value.code == ReasonCode.VALUE_OUT_OF_RANGE
    with pytest.raises(_core.GeneratorError) as raw:
        _core.generate_session("{}", 0)
    assert raw.value.args[0] == ReasonCode.SETTINGS_INVALID


def test_an_unknown_market_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PlatformError, match="sim_dying, sim_edge, sim_null"):
        spec_by_name("sim_other")


def test_a_config_folder_replaces_the_packaged_markets(tmp_path: Path) -> None:
    content = load_generator().model_dump(mode="json", by_alias=True)
    content["markets"] = [content["markets"][1] | {"name": "mine", "session_count": 2}]
    (tmp_path / "generator.yaml").write_text(yaml.safe_dump(content))
    assert [spec.name for spec in default_specs(tmp_path)] == ["mine"]
    content["model"]["spread_change"] = "often"
    (tmp_path / "generator.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(PlatformError, match="spread_change"):
        default_specs(tmp_path)
