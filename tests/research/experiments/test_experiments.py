"""The trial ledger: counts once, cannot be reset, and says when something is missing."""

import itertools

import pytest

from hft_platform.errors import PlatformError, ReasonCode
from research.experiments import OutcomeLog, Trial, TrialLedger


def trial(value: float, **changes: str) -> Trial:
    fields = {"program": "p" * 64, "data": "d" * 64, "costs": "c" * 64, "window": "a..b"} | changes
    return Trial(parameters={"entry": value}, **fields)


def ledger_file(ws):
    return ws / "ledger" / "trials.jsonl"


def test_a_trial_counts_once_however_often_it_is_declared(tmp_path):
    ledger = TrialLedger(tmp_path)
    assert ledger.declare([trial(1.0), trial(2.0), trial(1.0)], alpha_id="a") == 2
    before = ledger_file(tmp_path).read_bytes()
    assert ledger.declare([trial(2.0)], alpha_id="a") == 0
    assert ledger_file(tmp_path).read_bytes() == before


def test_renaming_an_alpha_neither_adds_nor_resets_trials(tmp_path):
    ledger = TrialLedger(tmp_path)
    ledger.declare([trial(1.0)], alpha_id="a")
    assert ledger.declare([trial(1.0)], alpha_id="renamed") == 0


@pytest.mark.parametrize("field", ["program", "data", "costs", "window"])
def test_other_program_data_costs_or_window_is_another_trial(tmp_path, field):
    ledger = TrialLedger(tmp_path)
    ledger.declare([trial(1.0)], alpha_id="a")
    assert ledger.declare([trial(1.0, **{field: "other"})], alpha_id="a") == 1


def test_the_head_does_not_depend_on_the_order_of_declaration(tmp_path):
    heads = set()
    for n, order in enumerate(itertools.permutations([1.0, 2.0, 3.0])):
        ledger = TrialLedger(tmp_path / str(n))
        for value in order:
            ledger.declare([trial(value)], alpha_id="a")
        heads.add(ledger.head())
    assert len(heads) == 1


def test_a_ledger_that_grew_still_covers_an_old_verdict(tmp_path):
    ledger = TrialLedger(tmp_path)
    ledger.declare([trial(1.0), trial(2.0)], alpha_id="a")
    recorded = ledger.head().as_dict() | OutcomeLog(tmp_path).head()
    ledger.declare([trial(3.0)], alpha_id="b")
    ledger.require_superset(recorded)


def test_a_deleted_ledger_is_caught(tmp_path):
    ledger = TrialLedger(tmp_path)
    ledger.declare([trial(1.0)], alpha_id="a")
    recorded = ledger.head().as_dict() | OutcomeLog(tmp_path).head()
    ledger_file(tmp_path).unlink()
    with pytest.raises(PlatformError) as caught:
        ledger.require_superset(recorded)
    assert caught.value.code == ReasonCode.LEDGER_BEHIND_AUDIT


def test_a_removed_line_is_caught_even_when_others_were_added(tmp_path):
    ledger = TrialLedger(tmp_path)
    ledger.declare([trial(1.0), trial(2.0)], alpha_id="a")
    recorded = ledger.head().as_dict() | OutcomeLog(tmp_path).head()
    path = ledger_file(tmp_path)
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[1])
    ledger.declare([trial(3.0), trial(4.0)], alpha_id="b")
    with pytest.raises(PlatformError) as caught:
        ledger.require_superset(recorded)
    assert caught.value.code == ReasonCode.LEDGER_BEHIND_AUDIT


def test_an_edited_line_is_caught(tmp_path):
    ledger = TrialLedger(tmp_path)
    ledger.declare([trial(1.0)], alpha_id="a")
    path = ledger_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"entry":1.0', b'"entry":9.0'))
    with pytest.raises(PlatformError) as caught:
        ledger.keys()
    assert caught.value.code == ReasonCode.LEDGER_BEHIND_AUDIT


def test_an_interrupted_append_is_cut_and_the_lines_before_it_survive(tmp_path):
    ledger = TrialLedger(tmp_path)
    ledger.declare([trial(1.0)], alpha_id="a")
    path = ledger_file(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    assert len(ledger.keys()) == 1
    ledger.declare([trial(2.0)], alpha_id="a")
    assert len(ledger.keys()) == 2
