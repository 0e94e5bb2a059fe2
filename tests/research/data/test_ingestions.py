"""The book of ingestions: what was seen first stays first."""

import json

import pytest

from hft_platform.errors import PlatformError, ReasonCode
from research.data import catalog
from research.data.ingest import ingest
from research.data.ingestions import BOOK_FILE, Ingestion, enter, entries, first_tapes


def row(tape: str, *, way: str = "w", session: str = "d1") -> Ingestion:
    return Ingestion("TXFD6", session, way, tape)


def test_a_row_is_entered_once_and_the_first_tape_stays_the_first(tmp_path):
    enter(tmp_path, [row("a"), row("b", session="d2")])
    enter(tmp_path, [row("c"), row("a")])
    enter(tmp_path, [row("c"), row("z", way="other")])
    assert entries(tmp_path) == [row("a"), row("b", session="d2"), row("c"), row("z", way="other")]
    assert first_tapes(entries(tmp_path)) == {
        ("TXFD6", "d1", "w"): "a",
        ("TXFD6", "d2", "w"): "b",
        ("TXFD6", "d1", "other"): "z",
    }


def test_a_line_that_is_no_ingestion_is_refused(tmp_path):
    enter(tmp_path, [row("a")])
    with (tmp_path / BOOK_FILE).open("ab") as file:
        file.write(b'{"symbol": "TXFD6"}\n')
    with pytest.raises(PlatformError, match="line 2") as caught:
        entries(tmp_path)
    assert caught.value.code == ReasonCode.FILE_DAMAGED


def test_ingesting_again_adds_nothing_and_another_seed_is_another_way(
    record, tmp_path, instruments
):
    folder = record()
    dataset = ingest(folder, tmp_path, instruments)
    home = dataset.path.parent
    first = entries(home)
    assert [(r.symbol, r.session_id, r.tape_sha256) for r in first] == [
        (s.symbol, s.session_id, s.tape_sha256) for s in dataset.sessions
    ]
    ingest(folder, tmp_path, instruments)
    assert entries(home) == first
    ingest(folder, tmp_path, instruments, seed=7)
    (again,) = entries(home)[len(first) :]
    assert again.way != first[0].way
    assert first_tapes(entries(home))[again.symbol, again.session_id, first[0].way] == (
        first[0].tape_sha256
    )


def test_a_dataset_whose_tape_hash_was_edited_is_refused(record, tmp_path, instruments):
    """The hash of a dataset follows from what it says of its tapes, not from its name."""
    dataset = ingest(record(), tmp_path, instruments)
    content = catalog.description(dataset)
    content["sessions"][0]["tape_sha256"] = "0" * 64
    (dataset.path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(PlatformError, match="is not what its hash"):
        catalog.datasets(tmp_path)
