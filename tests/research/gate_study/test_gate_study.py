"""The study of the gates, small: nulls stop, an edge passes, mistakes show; it can be resumed."""

import dataclasses
import json

import numpy as np
import pytest

from hft_platform import records
from research import stats
from research.gate_study import markets, page, programs, recorded, results, running, tasks
from research.gate_study.backtests import ChosenOnTheJudged, MarketBacktests, WithoutCosts
from research.gate_study.searching import Search, t_values
from research.gate_study.settings import FULL, SMALL
from research.gate_study.truth import required_sharpe
from research.gates.backtests import RunSpec
from research.gates.thresholds import load_thresholds


@pytest.fixture(scope="module")
def thresholds(tmp_path_factory):
    return load_thresholds(tmp_path_factory.mktemp("no_config"))


@pytest.fixture(scope="module")
def study(tmp_path_factory, thresholds):
    """The small study, stopped after two tasks and gone on with after a torn write."""
    folder = tmp_path_factory.mktemp("gate_study")
    bench = tasks.Bench(SMALL, thresholds, runs=folder / "runs")
    queue = tasks.tasks_of(SMALL)
    started = running.run(
        queue, bench=bench, folder=folder, workers=1, progress=lambda _, done: done < 2
    )
    file = folder / running.ROWS_FILE
    file.write_bytes(file.read_bytes() + b'{"study": "torn')
    rows = running.run(queue, bench=bench, folder=folder, workers=1)
    return folder, bench, queue, started, rows


@pytest.fixture(scope="module")
def result(study, thresholds):
    return results.result_of(study[4], settings=SMALL, thresholds=thresholds)


def without_time(rows):
    return [{k: v for k, v in row.items() if k != "cpu_s"} for row in rows]


def test_nulls_and_edges_below_their_costs_are_not_promoted(result):
    by_name = {row["name"]: row for row in result["false_promotion"]}
    for name, count in (("generated, real costs", 2), ("edge below its costs", 1)):
        assert by_name[name]["decided"] == count
        assert by_name[name]["through_c"] == by_name[name]["through_d"] == 0


def test_a_planted_edge_passes_c_and_d_and_its_truth_is_above_what_is_required(result):
    (point,) = result["power"]["curve"]
    assert point["passed"] == point["passed_d"] == point["alphas"] == 1
    assert point["true_sharpe"] > point["required_sharpe"] > 0.4
    assert result["power"]["truth_sessions"] == SMALL.truth_sessions


def test_the_study_sees_it_when_costs_are_off(result):
    rates = {row["name"]: row["eaten"]["through_c"] for row in result["mistakes"]}
    assert rates["none"] == 0
    assert rates["costs_off"] == rates["all_three"] == 1
    assert max(result["power"]["eaten_sharpe"].values()) < 0.0


def test_a_search_shows_its_best_program_honestly_and_not(study, result):
    rows = {row["view"]: row for row in study[4] if row["row"] == "searched"}
    assert list(rows) == [row["name"] for row in result["searches"]]
    t = {view: row["base"]["newey_west_t"] for view, row in rows.items()}
    assert t["both"] == t["chosen_on_judged"] >= t["honest"] == t["trials_uncounted"]
    deflated = {view: row["base"]["deflated_sharpe"] for view, row in rows.items()}
    assert deflated["both"] > deflated["chosen_on_judged"], "a trial that is counted costs"
    assert {row["through_c"] for row in result["searches"]} == {0}, "four programs make no luck"


def test_the_winner_of_a_search_is_the_best_where_the_searcher_looks(tmp_path):
    market = markets.generated(seed=3, count=12, seconds=FULL.session_seconds, is_fair=True)
    file = tmp_path / "runs" / "search"
    search = Search(seed=3, size=5, market=market, kept=file)
    nets = np.array(json.loads(file.read_bytes()))
    assert nets.shape == (5, 12)
    assert search.run_count == 60
    alphas = [search.winner(slice(i, i + 4)) for i in range(0, 12, 4)]
    assert len({alpha.expression for alpha in alphas}) > 1
    again = Search(seed=3, size=5, market=market, kept=file)
    assert [again.winner(slice(i, i + 4)) for i in range(0, 12, 4)] == alphas
    found = t_values(nets[:, 4:8])
    for row, value in zip(nets[:, 4:8], found, strict=True):
        assert value == pytest.approx(row.mean() / (row.std(ddof=1) / 2.0))
    assert t_values([[0, 0, 0], [1, 2, 3]]).tolist() == [-np.inf, pytest.approx(12**0.5)]


def test_a_study_that_was_stopped_goes_on_where_it_was(study):
    folder, _, queue, started, rows = study
    assert {row["task"] for row in started} == {task.name for task in queue[:2]}
    assert without_time(rows[: len(started)]) == without_time(started)
    assert {row["task"] for row in rows} == {task.name for task in queue}
    lines = (folder / running.ROWS_FILE).read_bytes().splitlines()
    assert len(lines) == len(queue) == len([json.loads(line) for line in lines])


def test_processes_and_kept_runs_give_the_same_rows(study):
    folder, bench, queue, _, rows = study
    wanted = [task for task in queue if task.row in ("null", "eaten")]
    again = running.run(wanted, bench=bench, folder=folder / "again", workers=2)
    names = {task.name for task in wanted}
    assert without_time(again) == without_time([r for r in rows if r["task"] in names])
    assert all(bench.kept(task).exists() for task in wanted)


def test_other_thresholds_take_up_no_rows_but_judge_the_kept_runs(study):
    folder, bench, queue, *_ = study
    loose = bench.thresholds.gate_c.model_copy(update={"newey_west_t_min": 1e9})
    other = dataclasses.replace(
        bench, thresholds=bench.thresholds.model_copy(update={"gate_c": loose})
    )
    assert {row["row"] for row in running.read_rows(folder, other)} == {"truth"}
    planted = next(task for task in queue if task.row == "planted")
    stamp = bench.kept(planted).stat().st_mtime_ns
    (row,) = tasks.work(planted, other)
    assert row["verdict"] != "passed"
    assert not row["checks"]["newey_west_t"]
    assert bench.kept(planted).stat().st_mtime_ns == stamp


def test_exact_bounds_have_their_published_values():
    """Clopper and Pearson 1934: 0 of n gives 1 - 0.05^(1/n); 1 of 10, two-sided, .0025 to .4450."""
    assert results.upper_bound(0, 500) == pytest.approx(1.0 - 0.05 ** (1 / 500), abs=1e-12)
    assert results.upper_bound(0, 298) > 0.01 > results.upper_bound(0, 299)
    assert results.lower_bound(1, 10, level=0.975) == pytest.approx(0.0025, abs=5e-5)
    assert results.upper_bound(1, 10, level=0.975) == pytest.approx(0.4450, abs=5e-5)
    assert results.upper_bound(0, 0) == 1.0


def test_the_required_sharpe_ratio_just_meets_the_thresholds(thresholds):
    shape = {"skewness": 0.3, "kurtosis": 4.0}
    for days in (60, 250):
        found = required_sharpe(thresholds.gate_c, days=days, trials=100, **shape)
        deflated, _ = stats.deflated_sharpe(
            found, count=days, trials=100, trial_variance=1.0 / days, **shape
        )
        assert deflated == pytest.approx(0.95, abs=1e-6)
        assert found * days**0.5 > thresholds.gate_c.newey_west_t_min


def test_random_alphas_are_real_programs_and_all_different():
    made = [programs.random_alpha(seed, symbol="SIM_NULL") for seed in range(200)]
    assert len({alpha.expression for alpha in made}) > 195
    assert {alpha.template.kind for alpha in made} == {"taker"}
    assert {len(alpha.grid()) for alpha in made} == {3}
    assert programs.random_alpha(7, symbol="SIM_NULL") == made[7]
    shaped = programs.random_alpha(7, symbol="SIM_NULL", features=programs.BOOK_SHAPE)
    assert any(name in shaped.expression for name in programs.BOOK_SHAPE)


@pytest.fixture(scope="module")
def market():
    return markets.generated(seed=5, count=4, seconds=FULL.session_seconds, strength_ticks=20.0)


@pytest.fixture(scope="module")
def alpha(market):
    return programs.planted_alpha(symbol=market.instrument.symbol)


def test_a_session_is_flat_before_it_ends(market, alpha):
    backtest = MarketBacktests(alpha, market)
    for index in range(4):
        path = backtest(index, [RunSpec(index, {"entry": 10.0}, None, "risk_adverse")])[0].path
        assert path.position.size >= 2
        assert path.position[-1] == 0


def test_a_taker_makes_the_same_run_under_every_queue_model(market, alpha):
    assert alpha.template.kind == "taker"
    spec = RunSpec(0, {"entry": 10.0}, 0.95, "power_prob3")
    # A manifest of the other queue model makes its own run instead of taking the kept one.
    other = alpha.model_copy(update={"queue_model": "power_prob3"})
    mine, theirs = (MarketBacktests(a, market)(0, [spec])[0] for a in (alpha, other))
    assert mine.run == theirs.run
    assert mine.run.fill_count > 0


def test_without_costs_a_run_is_worth_what_its_positions_move(market, alpha):
    spec = RunSpec(0, {"entry": 10.0}, None, "risk_adverse")
    backtest = MarketBacktests(alpha, market)
    paid, free = (
        b(0, [spec])[0].run for b in (backtest, WithoutCosts(backtest, market.instrument))
    )
    assert free.fees == 0
    assert free.net > paid.net
    multiplier = market.instrument.multiplier
    edge_money = sum(trip.mid_edge_ticks for trip in paid.trips) * multiplier
    assert free.net == pytest.approx(edge_money, rel=1e-9)
    assert sum(trip.net for trip in free.trips) == pytest.approx(free.net, rel=1e-9)


def test_the_selection_mistake_shows_the_judged_sessions_twice(market, alpha):
    honest = MarketBacktests(alpha, market)
    mistaken = ChosenOnTheJudged(honest, in_sample=1, out_of_sample=3)

    def run_of(backtest, index):
        return backtest(index, [RunSpec(index, {"entry": 10.0}, None, "risk_adverse")])[0].run

    for index in range(3):
        judged, earlier = run_of(mistaken, 3 + index), run_of(mistaken, index)
        assert judged == run_of(honest, 1 + index)
        assert earlier.net == judged.net
        assert earlier.trading_day < judged.trading_day


def test_a_fair_market_foretells_nothing_and_the_packaged_one_a_little():
    def correlation(is_fair):
        made = markets.generated(seed=9, count=40, seconds=150, is_fair=is_fair)
        x, y = [], []
        for session in made.sessions:
            books = records.split(session.tape)["Book"]
            bid, ask = books["bid_qty"][:, 0], books["ask_qty"][:, 0]
            mid = (books["bid_price"][:, 0] + books["ask_price"][:, 0]) / 2.0
            x.append(((bid - ask) / (bid + ask))[:-1])
            y.append(np.diff(mid))
        return np.corrcoef(np.concatenate(x), np.concatenate(y))[0, 1]

    assert abs(correlation(True)) < 0.03  # about four standard errors
    assert correlation(False) > 0.04


def test_a_permuted_session_keeps_its_prices_and_sees_the_queues_of_another(market):
    cut = recorded.Cut(market, tuple(recorded._books(s.tape) for s in market.sessions))
    made = recorded.permuted(cut, seed=3)
    own = [records.split(s.tape) for s in market.sessions]
    for host, session in zip(own, made.sessions, strict=True):
        parts = records.split(session.tape)
        assert (parts["Trade"] == host["Trade"]).all()
        same = ("bid_price", "ask_price", "exchange_time_ns", "receive_time_ns", "input_seq")
        for name in same:
            assert (parts["Book"][name] == host["Book"][name]).all()
        donors = [
            i
            for i, other in enumerate(own)
            if (parts["Book"]["bid_qty"][:100] == other["Book"]["bid_qty"][:100]).all()
        ]
        assert len(donors) == 1
        assert own[donors[0]] is not host
    assert recorded.permuted(cut, seed=3) == made
    assert recorded.permuted(cut, seed=4) != made


@pytest.mark.recordings
def test_real_days_are_cut_into_pseudo_sessions(recordings, tmp_path):
    if not (recordings / recorded.FOLDER).is_dir():
        pytest.skip("no TXF recordings")
    cut = recorded.cut(recordings, tmp_path, count=60, seconds=150)
    assert len(cut.market.sessions) == len({s.trading_day for s in cut.market.sessions}) == 60
    for session, offsets in zip(cut.market.sessions, cut.book_offsets, strict=True):
        times = records.split(session.tape)["Book"]["receive_time_ns"]
        assert offsets.size == times.size >= 150
        assert session.session.start_ns <= times[0] <= times[-1] < session.session.end_ns


def test_the_page_says_what_was_measured_and_nothing_else_changes(result, tmp_path):
    (tmp_path / "docs").mkdir()
    target = tmp_path / page.PAGE
    target.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    written = page.write(result, tmp_path)
    text = target.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| costs off: valued from mid to mid, no fees | 0 of 2 |" in text
    assert json.loads((tmp_path / page.RESULT).read_text()) == json.loads(json.dumps(result))
    first = {path: (tmp_path / path).read_bytes() for path in written}
    page.write(result, tmp_path)
    assert {path: (tmp_path / path).read_bytes() for path in written} == first
    target.write_text("no marks")
    with pytest.raises(page.PlatformError, match="no section"):
        page.write(result, tmp_path)
