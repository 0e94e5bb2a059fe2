"""Outcomes of trials: appended once, chained, counted whether they failed or not."""

import json

import numpy as np
import pytest

from hft_platform.errors import PlatformError, ReasonCode
from research import cli
from research.experiments import Outcome, OutcomeLog, Trial, TrialLedger, trial_facts
from research.experiments.query import query

DAYS = [20260105 + i for i in range(60)]


def outcome(key: str, seed: int, *, edge: float = 0.0) -> Outcome:
    nets = np.random.default_rng(seed).normal(edge, 1.0, len(DAYS))
    return Outcome(key, {day: round(1e9 * net) for day, net in zip(DAYS, nets, strict=True)})


def log_file(ws):
    return ws / "ledger" / "outcomes.jsonl"


def test_an_evaluation_is_recorded_once_and_keeps_its_place(tmp_path):
    log = OutcomeLog(tmp_path)
    first = log.record([outcome("a", 1), outcome("b", 2)], alpha_id="x", declared=2)
    log.record([outcome("c", 3)], alpha_id="y", declared=9)
    before = log_file(tmp_path).read_bytes()
    again = log.record([outcome("b", 2), outcome("a", 1)], alpha_id="renamed", declared=9)
    assert again == first
    assert (again.declared, again.rows, again.others) == (2, 2, {})
    assert log_file(tmp_path).read_bytes() == before


def test_other_results_of_the_same_trials_are_another_evaluation_that_sees_more(tmp_path):
    log = OutcomeLog(tmp_path)
    log.record([outcome("a", 1)], alpha_id="x", declared=1)
    log.record([outcome("c", 3)], alpha_id="y", declared=2)
    again = log.record([outcome("a", 99)], alpha_id="x", declared=2)
    assert (again.declared, again.rows, set(again.others)) == (2, 3, {"c"})
    assert log.newest()["a"] == outcome("a", 99)


def test_the_log_is_the_same_bytes_in_any_workspace(tmp_path):
    for name in ("one", "two"):
        log = OutcomeLog(tmp_path / name)
        log.record([outcome("b", 2), outcome("a", 1)], alpha_id="x", declared=2)
    assert log_file(tmp_path / "one").read_bytes() == log_file(tmp_path / "two").read_bytes()


@pytest.mark.parametrize("damage", ["remove", "edit", "swap"])
def test_a_removed_edited_or_moved_row_is_caught(tmp_path, damage):
    log = OutcomeLog(tmp_path)
    log.record([outcome(k, n) for n, k in enumerate("abc")], alpha_id="x", declared=3)
    lines = log_file(tmp_path).read_bytes().splitlines(keepends=True)
    if damage == "remove":
        lines = [lines[0], lines[2]]
    elif damage == "swap":
        lines = [lines[0], lines[2], lines[1]]
    else:
        lines[1] = lines[1].replace(b'"alpha_id":"x"', b'"alpha_id":"y"')
    log_file(tmp_path).write_bytes(b"".join(lines))
    with pytest.raises(PlatformError) as caught:
        log.rows()
    assert caught.value.code == ReasonCode.LEDGER_BEHIND_AUDIT


def test_outcomes_that_a_verdict_counted_cannot_be_taken_back(tmp_path):
    log = OutcomeLog(tmp_path)
    made = log.record([outcome("a", 1), outcome("b", 2)], alpha_id="x", declared=2)
    recorded = {"outcomes": made.rows, "outcomes_head": made.head}
    log.record([outcome("c", 3)], alpha_id="y", declared=3)
    log.require_superset(recorded)
    log_file(tmp_path).write_bytes(log_file(tmp_path).read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(PlatformError) as caught:
        log.require_superset(recorded)
    assert caught.value.code == ReasonCode.LEDGER_BEHIND_AUDIT
    # An edited last row still follows the one before it; only the head gives it away.
    log_file(tmp_path).unlink()
    log.record([outcome("a", 1), outcome("b", 77)], alpha_id="x", declared=2)
    with pytest.raises(PlatformError):
        TrialLedger(tmp_path).require_superset(
            {"count": 0, "head": TrialLedger(tmp_path).head(0).head} | recorded
        )


def test_an_interrupted_append_is_cut_and_written_again(tmp_path):
    log = OutcomeLog(tmp_path)
    log.record([outcome("a", 1)], alpha_id="x", declared=1)
    whole = log_file(tmp_path).read_bytes()
    log.record([outcome("b", 2), outcome("c", 3)], alpha_id="x", declared=3)
    both = log_file(tmp_path).read_bytes()
    log_file(tmp_path).write_bytes(both[:-20])
    log.record([outcome("b", 2), outcome("c", 3)], alpha_id="x", declared=3)
    after = log_file(tmp_path).read_bytes()
    assert after.startswith(whole)
    assert set(log.newest()) == {"a", "b", "c"}
    log.record([outcome("b", 2), outcome("c", 3)], alpha_id="x", declared=3)
    assert log_file(tmp_path).read_bytes() == after


def test_facts_count_what_failed_and_what_was_never_run():
    copies = [outcome("a", 1), Outcome("b", outcome("a", 1).daily), outcome("c", 2)]
    failed = Outcome("d", None, "GATE_NOT_COMPUTED: crashed")
    facts = trial_facts([*copies, failed], declared=10)
    assert (facts.count, facts.evaluated, facts.failed, facts.clusters) == (10, 3, 1, 2)
    assert facts.effective == pytest.approx(2 + 7)
    assert trial_facts([], declared=10).effective == 10.0


def test_facts_do_not_depend_on_the_order():
    rows = [outcome(k, n) for n, k in enumerate("abcdef")]
    assert trial_facts(rows, declared=6) == trial_facts(rows[::-1], declared=6)


def test_the_ledger_is_a_table(tmp_path):
    made = [
        Trial(program="p", parameters={"entry": float(n)}, data="d", costs="c", window="w")
        for n in range(3)
    ]
    TrialLedger(tmp_path).declare(made, alpha_id="x")
    assert query(tmp_path)[0]["evaluated"] == 0
    evaluated = outcome(made[0].key, 1, edge=0.5)
    OutcomeLog(tmp_path).record(
        [evaluated, Outcome(made[1].key, None, "crashed")], alpha_id="x", declared=3
    )
    row = query(tmp_path)[0]
    assert (row["alpha_id"], row["trials"], row["evaluated"], row["failed"]) == ("x", 3, 1, 1)
    nets = np.array(list(evaluated.daily.values()), dtype=float)
    assert row["best_daily_sharpe"] == pytest.approx(nets.mean() / nets.std(ddof=1))
    rows = query(tmp_path, "SELECT key, parameters['entry'] AS entry FROM trials ORDER BY row_id")
    assert [r["entry"] for r in rows] == [0.0, 1.0, 2.0]
    assert json.dumps(rows)


def test_a_query_sees_the_ledger_and_nothing_of_the_machine(tmp_path):
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with pytest.raises(ValueError, match=r"(?i)disabled|permission"):
        query(tmp_path, f"SELECT * FROM read_csv('{tmp_path}/secret.csv')")


def test_an_edited_ledger_is_not_queried(tmp_path):
    OutcomeLog(tmp_path).record([outcome("a", 1)], alpha_id="x", declared=1)
    path = log_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"previous":"0', b'"previous":"1'))
    with pytest.raises(PlatformError):
        query(tmp_path)


def test_the_command_shows_what_was_tried_and_answers_sql(tmp_path, capsys):
    made = [
        Trial(program="p", parameters={"entry": float(n)}, data="d", costs="c", window="w")
        for n in range(3)
    ]
    TrialLedger(tmp_path).declare(made, alpha_id="x")
    OutcomeLog(tmp_path).record([outcome(made[0].key, 1)], alpha_id="x", declared=3)
    at = ["--workspace", str(tmp_path)]
    assert cli.main(["trials", *at]) == 0
    assert "3 trials amount to 3.0 independent ones" in capsys.readouterr().out
    assert cli.main(["trials", *at, "--json", "--sql", "SELECT sum(net) AS n FROM results"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["n"] is not None
    assert cli.main(["trials", *at, "--sql", "SELECT nothing"]) == 1
    said = capsys.readouterr().err
    assert "refused" in said
    # It used to end with DuckDB's own words, and to print no JSON.
    assert "next: views are trials, outcomes and results" in said
    assert cli.main(["trials", *at, "--json", "--sql", "SELECT nothing"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert "refused" in answer["message"]
    assert "'DESCRIBE results'" in answer["next"]
    assert cli.main(["trials", *at, "--json", "--sql", "DESCRIBE results"]) == 0
    named = {row["column_name"] for row in json.loads(capsys.readouterr().out)}
    assert {"alpha_id", "days", "sharpe", "failure"} <= named
