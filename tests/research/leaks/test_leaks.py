"""Ten kinds of leak are planted; each is caught, by the check that docs/look-ahead.md names."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from leak_bench import Bench
from leak_plants import PLANTS

KINDS = (
    "future bar", "centered window", "whole-sample scaling", "target in features", "survivorship",
    "restated data", "same-tick fill", "latency ignored", "simulated-match trades", "roll splice",
)  # fmt: skip


def table(repository: Path) -> dict[tuple[str, str], tuple[str, str, str]]:
    """Rows of the page: (leak, planted in) to (caught by, code, message)."""
    rows = {}
    for line in (repository / "docs" / "look-ahead.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[0] in KINDS:
            rows[cells[0], cells[1]] = (cells[3], cells[4].strip("`"), cells[5])
    return rows


def test_the_page_has_every_plant_and_every_kind(repository):
    assert set(table(repository)) == set(PLANTS)
    assert {leak for leak, _ in PLANTS} == set(KINDS)


@pytest.mark.parametrize(("leak", "how"), PLANTS, ids=lambda value: value.replace(" ", "_"))
def test_a_planted_leak_is_caught_by_the_check_that_the_page_names(
    leak: str, how: str, bench: Bench, repository: Path
):
    found = PLANTS[leak, how](bench)
    by, code, message = table(repository)[leak, how]
    assert (found.by, found.code) == (by, code), found.text
    # The page has N for a number.
    pattern = re.escape(message).replace("N", r"[\d,]+(\.\d+)?")
    assert re.search(pattern, found.text), found.text


def test_the_same_bench_without_a_leak_is_not_accused(bench: Bench):
    """What catches the leaks lets honest data, alpha and pipeline through."""
    bench.pipeline(lambda rows: rows["signal"])
    assert bench.gate("gate_a").is_passed
    written = bench.written(lambda books, trades: (books, trades))
    assert bench.gate("gate_a", written).is_passed
    judged = bench.gate("gate_c")
    assert "FILL_TOO_EARLY" not in {reason["name"] for reason in judged.reasons}
    assert judged.results["corners"], "gate C ran its backtests"


def test_a_recording_with_honest_receive_times_is_not_accused(bench: Bench):
    def change(name, frame):
        return frame.with_columns(ts_recv=frame["ts"] + 5_000_000)

    assert bench.gate("gate_a", bench.ingested(bench.recorded(change))).is_passed


EXCUSE = """
schema: 1
exceptions:
  - kind: {kind}
    symbol: TXFD6
    session_id: {session}
    reason: the recorder's host was moved that night
"""
EXCUSED = {
    ("survivorship", "data"): [("not_recorded", "2026-04-10/night")],
    ("restated data", "recording"): [
        ("restated", "2026-04-09/day"),
        ("restated", "2026-04-10/night"),
    ],
    ("roll splice", "data"): [("back_month", "2026-03-17/day")],
}


@pytest.mark.parametrize(("leak", "how"), EXCUSED)
def test_an_operator_may_excuse_a_session_and_the_verdict_says_so(
    leak: str, how: str, bench: Bench, tmp_path: Path
):
    by_default = PLANTS[leak, how](bench)
    config = tmp_path / "config"
    config.mkdir()
    text = EXCUSE.format(kind=EXCUSED[leak, how][0][0], session=EXCUSED[leak, how][0][1])
    for kind, session in EXCUSED[leak, how][1:]:
        text += EXCUSE.format(kind=kind, session=session).partition("exceptions:\n")[2]
    (config / "data_exceptions.yaml").write_text(text)
    ws = bench.ws if how == "recording" else bench.tmp / "other"
    verdict = bench.gate("gate_a", ws, config_dir=config)
    assert verdict.is_passed, (by_default, verdict.reasons)
    shown = [(row["kind"], row["session_id"]) for row in verdict.results["data_exceptions"]]
    assert shown == EXCUSED[leak, how]
    other = text.replace("TXFD6", "TXFE6")
    (config / "data_exceptions.yaml").write_text(other)
    assert not bench.gate("gate_a", ws, config_dir=config).is_passed


def test_a_leak_of_one_bit_at_one_record_in_a_thousand_is_caught(bench: Bench):
    """Too rare for a few cuts; the engine that has not seen the future has no such bit."""

    def leak(rows):
        here = np.arange(rows.size) % 1000 == 500
        return np.where(here, np.nextafter(rows["signal"], np.inf), rows["signal"])

    bench.pipeline(leak)
    verdict = bench.gate("gate_a")
    failed = {row["name"] for row in verdict.results["checks"] if not row["passed"]}
    assert failed == {"unseen_future"}
