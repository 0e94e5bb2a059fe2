"""The paper exchange against the package run by itself: every fill, and what a difference shows."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.errors import PlatformError, ReasonCode
from research import cli
from research.backtest import package_agreement
from research.backtest.package_agreement import (
    KINDS,
    LATENCIES_MS,
    QUEUE_MODELS,
    Cell,
    Source,
    compare_cell,
    compare_session,
    fills_of,
    generated_session,
    trading_config,
)
from research.backtest.package_handle import PackageHandle

CELLS = len(KINDS) * len(LATENCIES_MS) * len(QUEUE_MODELS)


@cache
def _generated() -> Source:
    return generated_session()


@cache
def _cells() -> tuple[Cell, ...]:
    _, tape, session, instrument = _generated()
    return tuple(compare_session(tape, session, instrument))


def cell(kind: str = "maker", latency_ms: int = 36, **changes: object) -> Cell:
    """One cell of the generated session, with a control."""
    _, tape, session, instrument = _generated()
    config = trading_config(kind, instrument, session)
    arguments = {"queue_model": "risk_adverse"} | changes
    return compare_cell(tape, config, instrument, kind=kind, latency_ms=latency_ms, **arguments)  # type: ignore[arg-type]


def test_every_fill_of_a_generated_session_is_equal_in_every_cell() -> None:
    cells = _cells()
    assert len(cells) == CELLS == 18
    for one in cells:
        assert one.agrees, one
        assert one.equal_count == one.fill_count >= 300
        assert one.outcome_equal_count == one.order_count
        assert one.maker_fill_count >= (300 if one.kind == "maker" else 0)


def test_the_cells_are_not_one_cell_many_times() -> None:
    """Negative control: a latency or queue model that was ignored would compare equal too."""
    fills = {(one.kind, one.latency_ms, one.queue_model): one.fill_count for one in _cells()}
    for kind in KINDS:
        assert fills[kind, 0, "log_prob"] > fills[kind, 200, "log_prob"]
    assert fills["maker", 0, "log_prob"] != fills["maker", 0, "risk_adverse"]


@pytest.mark.parametrize(
    "control", [{"package_queue_model": "log_prob"}, {"package_latency_ms": 35}]
)
def test_another_queue_model_or_latency_on_one_side_is_found(control: dict[str, object]) -> None:
    """Negative control: were nothing compared, these would agree."""
    found = cell(**control)
    assert not found.agrees
    assert 0 < found.equal_count < found.fill_count
    assert found.differences
    sides = {row["only"] for row in found.differences}
    assert sides <= {"paper exchange", "package"}


def test_a_cell_without_a_fill_does_not_agree() -> None:
    """Negative control: an idle strategy proves nothing."""
    _, tape, session, instrument = _generated()
    config = trading_config("maker", instrument, session)
    config["alphas"][0]["expression"] = "0.0 / 0.0"
    found = compare_cell(
        tape, config, instrument, kind="idle", latency_ms=0, queue_model="risk_adverse"
    )
    assert (found.fill_count, found.order_count) == (0, 0)
    assert not found.agrees


def test_the_package_delays_by_its_own_model() -> None:
    """A taker's fill is at least one latency behind its decision, with nothing of ours between."""
    _, tape, session, instrument = _generated()
    config = trading_config("taker", instrument, session)
    result = _core.run_backtest(
        tape,
        json.dumps(config),
        json.dumps(package_agreement.symmetric_latency(200)),
        json.dumps({"queue_model": "risk_adverse"}),
    )
    decisions = np.frombuffer(result["decisions"], dtype=records.DTYPES["Decision"])
    placed = decisions[(decisions["action"] == 1) & (decisions["verdict"] == 1)]
    rows = _core.convert_session(
        tape, instrument.instrument_id, instrument.tick_size, instrument.lot_size
    )
    handle = PackageHandle(
        rows, instrument, queue_model="risk_adverse", order_latency_ns=200_000_000
    )
    outcomes = np.frombuffer(
        _core.run_package(result["decisions"], handle),
        dtype=np.dtype(_core.PACKAGE_OUTCOME_FIELDS),
    )
    times = dict(zip(placed["order_id"].tolist(), placed["sequence_time_ns"].tolist(), strict=True))
    waits = {int(row["exchange_time_ns"]) - times[int(row["order_id"])] for row in outcomes}
    assert waits == {200_000_000}
    assert set(fills_of(outcomes))


def test_a_run_is_refused_by_code_for_a_wrong_latency_or_tape() -> None:
    _, tape, _, instrument = _generated()
    rows = _core.convert_session(
        tape, instrument.instrument_id, instrument.tick_size, instrument.lot_size
    )
    with pytest.raises(PlatformError, match="order latency was -1") as caught:
        PackageHandle(rows, instrument, queue_model="risk_adverse", order_latency_ns=-1)
    assert caught.value.code == ReasonCode.SETTINGS_INVALID
    with (
        PackageHandle(rows, instrument, queue_model="risk_adverse") as handle,
        pytest.raises(PlatformError, match="decision records"),
    ):
        _core.run_package(tape, handle)


def test_the_command_prints_the_table_and_fails_when_a_cell_differs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["agree"]) == 0
    text = capsys.readouterr().out
    assert "18 of 18 cells agree" in text
    assert "DIFFERS" not in text
    monkeypatch.setattr(
        package_agreement,
        "compare_session",
        lambda *_: [cell(package_queue_model="log_prob")],
    )
    assert cli.main(["agree", "--json"]) == 1
    (result,) = json.loads(capsys.readouterr().out)
    assert result["cells"][0]["agrees"] is False
    assert cli.main(["agree"]) == 1
    assert "DIFFERS" in capsys.readouterr().out


@pytest.mark.recordings
def test_every_fill_of_a_recorded_day_session_is_equal_in_every_cell(
    recordings: Path, tmp_path: Path
) -> None:
    (source,) = package_agreement.recorded_sessions(recordings / "taifex", tmp_path)
    name, tape, session, instrument = source
    assert name.endswith("/day")
    cells = compare_session(tape, session, instrument)
    assert len(cells) == CELLS
    for one in cells:
        assert one.agrees, one
        assert one.fill_count > 5_000
    assert sum(one.fill_count for one in cells) > 200_000
    with pytest.raises(PlatformError, match="2026-04-09/day"):
        package_agreement.recorded_sessions(recordings / "taifex", tmp_path, session_id="2020/day")
