"""One session, four processes, one hash."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.services.parity import read_session
from research import replay_identity


def test_a_generated_session_is_decided_the_same_in_four_processes(tmp_path: Path) -> None:
    result = replay_identity.check("generator", "gen_imbalance_taker", tmp_path)
    assert result["is_identical"]
    assert [row["source"] for row in result["runs"]] == ["Parquet", "log"] * 2
    assert result["runs"][0]["decisions"] > 10


def test_one_lot_more_in_the_book_behind_a_decision_changes_the_hash(tmp_path: Path) -> None:
    replay_identity.loop.make_datasets(tmp_path, "generator")
    folder = tmp_path / "session"
    logged = replay_identity.decide_parquet(tmp_path, "gen_imbalance_taker", folder)
    logs = read_session(folder)
    cause = np.frombuffer(logs.decisions, dtype=records.DTYPES["Decision"])["input_seq"][0]
    inputs, offset = bytearray(logs.inputs), 0
    head = records.DTYPES["Timer"]
    while int(np.frombuffer(inputs, head, 1, offset)["input_seq"][0]) != cause:
        offset += int(np.frombuffer(inputs, head, 1, offset)["record_bytes"][0])
    book = np.frombuffer(inputs, records.DTYPES["Book"], 1, offset).copy()
    assert book["record_type"][0] == records.TYPE_CODES["Book"]
    book["bid_qty"][0][0] += records.SCALE
    inputs[offset : offset + book.dtype.itemsize] = book.tobytes()
    config = (folder / "engine.json").read_text()
    again = replay_identity.decide_log(folder)
    assert again["sha256"] == logged["sha256"]
    assert _core.replay(config, bytes(inputs)) != logs.decisions


@pytest.mark.recordings
def test_a_txf_day_is_decided_the_same_in_four_processes(
    tmp_path: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--source", str(recordings / "taifex"), "--workspace", str(tmp_path), "--json"]
    assert replay_identity.main([*words, "--alpha", "txf_imbalance_maker"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["runs"][0]["records"] > 100_000
    assert result["runs"][0]["decisions"] > 1_000
