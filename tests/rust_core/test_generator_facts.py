"""Stylized facts: hand-made cases, and generated and recorded sessions inside the same bands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hft_platform.errors import PlatformError, ReasonCode
from research.data import stylized_facts as facts
from research.data.generator import Band, load_generator
from research.data.stylized_facts import FACTS, Ticks

SECOND_NS = 10**9


def market(
    bid: list[float],
    ask: list[float],
    bid_qty: list[float] | None = None,
    ask_qty: list[float] | None = None,
    *,
    step_ns: int = SECOND_NS,
    trades: list[tuple[int, float, float]] | None = None,
) -> Ticks:
    """Books at equal steps from second 1 on; trades are (time, price, side)."""
    count = len(bid)
    outward = np.arange(5)
    rows = trades or []
    return Ticks(
        book_time_ns=SECOND_NS + np.arange(count) * step_ns,
        bid_price=np.array(bid)[:, None] - outward,
        bid_qty=np.array(bid_qty or [1.0] * count)[:, None] + outward,
        ask_price=np.array(ask)[:, None] + outward,
        ask_qty=np.array(ask_qty or [1.0] * count)[:, None] + outward,
        trade_time_ns=np.array([row[0] for row in rows], dtype=np.int64),
        trade_price=np.array([row[1] for row in rows]),
        trade_qty=np.ones(len(rows)),
        trade_side=np.array([row[2] for row in rows]),
    )


@pytest.fixture(scope="module")
def generated() -> dict[str, float]:
    return facts.facts_of(facts.generated_sessions("sim_null"))


def test_the_market_without_an_edge_lies_inside_every_band(generated: dict[str, float]) -> None:
    assert facts.outside_bands(generated, load_generator().bands) == {}


def test_the_bands_would_catch_a_market_that_order_flow_predicts() -> None:
    planted = facts.facts_of(facts.generated_sessions("sim_edge"))
    assert "ofi_next_bin_r2_1s" in facts.outside_bands(planted, load_generator().bands)


@pytest.mark.recordings
def test_recorded_txf_sessions_lie_inside_every_band(recordings: Path) -> None:
    bands = load_generator().bands
    recorded = facts.recorded_sessions(recordings / "taifex")
    assert len(recorded) == 4
    missed = {
        name: facts.outside_bands(facts.facts_of([ticks]), bands)
        for name, ticks in recorded.items()
    }
    assert missed == {name: {} for name in recorded}


def test_every_fact_has_a_band_and_every_band_a_fact() -> None:
    bands = load_generator().bands
    assert set(bands) == {fact.key for fact in FACTS}
    assert all(band.low < band.high for band in bands.values())


def test_a_value_outside_its_band_or_unknown_is_reported(generated: dict[str, float]) -> None:
    bands = {"spread_p50_ticks": Band(low=3.0, high=5.0)}
    assert facts.outside_bands(generated | {"spread_p50_ticks": 6.0}, bands)
    assert facts.outside_bands(generated | {"spread_p50_ticks": float("nan")}, bands)


def test_the_table_in_the_docs_is_the_one_the_generator_gives(
    generated: dict[str, float], repository: Path
) -> None:
    lines = facts.table({"generator": generated}, load_generator().bands).splitlines()
    page = (repository / "docs" / "generator.md").read_text().splitlines()
    cells = {tuple(line.split(" | ")[:4]) for line in page if line.startswith("| ")}
    for line in lines[2:]:
        assert tuple(line.removesuffix(" |").split(" | ")) in cells, line


def test_order_flow_imbalance_counts_added_and_moved_queues_by_hand() -> None:
    ticks = market([10, 10, 11, 11], [12, 12, 12, 11.5], [3, 5, 4, 4], [2, 2, 2, 7])
    # +2 lots bid; a new best bid of 4; a new best ask of 7 in front
    assert facts.order_flow_imbalance(ticks).tolist() == [0.0, 2.0, 4.0, -7.0]


def test_spread_gap_and_rate_are_those_of_the_books() -> None:
    ticks = market([10, 10, 10], [12, 13, 14], step_ns=125_000_000)
    assert facts.spread_quantiles([ticks])["spread_p50_ticks"] == 3.0
    assert facts.gap_quantiles([ticks])["gap_p50_ms"] == 125.0
    assert facts.rates([ticks])["books_per_s"] == 3 / 0.25


def test_signs_that_alternate_have_autocorrelation_minus_one() -> None:
    trades = [(SECOND_NS + row, 12.0, 1.0 if row % 2 else -1.0) for row in range(1, 41)]
    found = facts.sign_autocorrelation([market([10, 10], [12, 12], trades=trades)])
    assert found["sign_autocorrelation_1"] == pytest.approx(-1.0)
    assert found["sign_autocorrelation_2"] == pytest.approx(1.0)


def test_prints_are_outside_only_beyond_the_book_stamped_before_them() -> None:
    trades = [
        (SECOND_NS, 99.0, 1.0),  # no book before it: left out
        (SECOND_NS + 1, 12.0, 1.0),
        (SECOND_NS + 2, 13.0, 1.0),
        (2 * SECOND_NS, 13.0, 1.0),  # stamped like the second book: the first one counts
        (2 * SECOND_NS + 1, 13.0, 1.0),
    ]
    ticks = market([10, 10], [12, 13], trades=trades)
    assert facts.trades_outside_share([ticks]) == pytest.approx(2 / 4)


def test_seconds_behind_a_silent_feed_are_left_out() -> None:
    moving = market([10, 11] * 20, [12, 13] * 20)
    silent = market([10, 11], [12, 13], step_ns=60 * SECOND_NS)
    alone = facts.per_second([moving])["volatility_1s_ticks"]
    both = facts.per_second([moving, silent])["volatility_1s_ticks"]
    assert alone == pytest.approx(1.0, abs=0.01)
    assert both > 0.85 * alone  # the 60 s hole adds ten calm seconds and its jump, not sixty


def test_nothing_to_compute_from_gives_nan_for_everything() -> None:
    assert all(np.isnan(value) for value in facts.facts_of([]).values())


def test_the_table_marks_what_is_outside_and_the_page_keeps_its_text(
    generated: dict[str, float],
) -> None:
    bands = load_generator().bands
    lines = facts.table({"a": generated, "b": generated | {"print_mean_lots": 9.0}}, bands)
    assert lines.count("✗") == 1
    page = f"before\n{facts.TABLE_BEGIN}\nold\n{facts.TABLE_END}\nafter\n"
    made = facts.with_table(page, lines)
    assert made.startswith("before\n")
    assert made.endswith(f"{facts.TABLE_END}\nafter\n")
    assert "old" not in made
    assert facts.with_table(made, lines) == made
    with pytest.raises(PlatformError) as caught:
        facts.with_table("a page without a place", lines)
    assert caught.value.code == ReasonCode.SETTINGS_INVALID


def test_the_command_names_a_folder_without_recordings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert facts.main(["--recordings", str(tmp_path)]) == 1
    assert "holds no TXF" in capsys.readouterr().err
