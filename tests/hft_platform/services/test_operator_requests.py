"""What an operator asks a session for: in order, once, answered, and in the log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hft_platform import _core, cli, records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.execution.reconciliation_report import (
    FILE_NAME,
    Finding,
    FindingKind,
    ReconciliationReport,
)
from hft_platform.recorder.archive import whole_log
from hft_platform.services import operator_requests, session_runner
from hft_platform.services.operator_requests import OperatorRequest, RequestKind, ask, obey
from tests.hft_platform.services.live_workspace import SYMBOL, Live

LOT = records.SCALE


def asked(folder: Path, kind: RequestKind = RequestKind.FLATTEN, **more: Any) -> OperatorRequest:
    """Ask as a person does."""
    return ask(folder, kind, who="desk", why="test", since_ns=5, **more)


def test_requests_are_taken_once_and_in_the_order_of_asking(tmp_path: Path) -> None:
    kinds = (RequestKind.FLATTEN, RequestKind.REDUCE_ONLY, RequestKind.ADOPT, RequestKind.FLATTEN)
    rows = [asked(tmp_path, kind, instrument_id=7, argument=-3 * LOT) for kind in kinds]
    taken: list[OperatorRequest] = []

    def put(request: OperatorRequest) -> int:
        taken.append(request)
        return 100 + len(taken)

    assert obey(tmp_path, put) == 4
    assert taken == rows
    assert obey(tmp_path, put) == 0, "each of them once"
    answers = [operator_requests.answer_to(tmp_path, row) for row in rows]
    assert answers == [{"input_seq": seq, "code": 0} for seq in (101, 102, 103, 104)]
    later = asked(tmp_path)
    assert later.request_id == "0005-flatten"
    assert operator_requests.answer_to(tmp_path, later) is None


def test_a_process_that_dies_before_its_answer_takes_the_request_again(tmp_path: Path) -> None:
    request = asked(tmp_path)

    def die(_: OperatorRequest) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obey(tmp_path, die)
    assert operator_requests.pending(tmp_path) == [request]


def test_what_the_session_refuses_is_answered_with_its_code(tmp_path: Path) -> None:
    request = asked(tmp_path)

    def refuse(_: OperatorRequest) -> int:
        raise PlatformError(ReasonCode.WAL_WRITE_FAILED, "the log is full")

    assert obey(tmp_path, refuse) == 0
    answer = operator_requests.answer_to(tmp_path, request)
    assert answer == {"input_seq": 0, "code": ReasonCode.WAL_WRITE_FAILED}


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b"\xff", b'{"who":"a","why":"b"}', b"[" * 100_000,
            b'{"who":"a","why":"b","since_ns":1,"instrument_id":1e99,"argument":0}'],
)  # fmt: skip
def test_a_damaged_request_restricts_by_its_name_and_permits_nothing(
    tmp_path: Path, raw: bytes
) -> None:
    for kind in RequestKind:
        request = asked(tmp_path, kind, instrument_id=7, argument=LOT)
        (tmp_path / "requests" / f"{request.request_id}.json").write_bytes(raw)
    taken: list[OperatorRequest] = []
    obey(tmp_path, lambda request: taken.append(request) or 1)  # type: ignore[func-returns-value]
    assert [row.kind for row in taken] == [RequestKind.REDUCE_ONLY, RequestKind.FLATTEN]
    assert all(row.instrument_id == 0 for row in taken), "narrowed by nothing that is not known"
    assert operator_requests.pending(tmp_path) == []


def test_the_record_of_a_request_is_what_the_engine_takes(tmp_path: Path) -> None:
    request = asked(tmp_path, RequestKind.ADOPT, instrument_id=7, argument=-3 * LOT)
    row = records.split(request.as_record(99))["Command"][0]
    names = ("command_kind", "instrument_id", "argument", "alpha_index", "receive_time_ns")
    assert [int(row[name]) for name in names] == [8, 7, -3 * LOT, 0xFFFF_FFFF, 99]


def commands_in_log(session_dir: Path) -> list[tuple[int, int]]:
    """Kind and input of the commands in a session's order log."""
    with whole_log(session_dir / "orders") as folder:
        rows = records.split(_core.read_log(str(folder))["tape"])["Command"]
    return [(int(row["command_kind"]), int(row["input_seq"])) for row in rows]


def test_a_running_session_takes_them_from_the_command_line_and_stops_opening(
    live: Live, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_runner, "STEP_RECORDS", 100)
    done: dict[str, Any] = {}

    def hft_live(*arguments: str) -> tuple[int, Any]:
        code = cli.main([*arguments, "--json", "--workspace", str(live.ws)])
        return code, json.loads(capsys.readouterr().out)

    def at_a_third(state: dict[str, Any]) -> None:
        if done or state["records_done"] < 800:
            return
        done["asked"] = hft_live("reduce-only", "--why", "test", "--wait", "0", "--symbol", SYMBOL)
        done["flatten"] = hft_live("flatten", "--why", "test", "--wait", "0")

    outcome = live.run(live.issue(), progress=at_a_third, speed=None)
    (row,) = done["asked"][1]
    assert done["asked"][0] == 1, "nobody had answered yet"
    assert row["code"] is None
    inputs = [seq for kind, seq in commands_in_log(outcome.session_dir) if kind in (4, 5)]
    requests = [
        OperatorRequest(name, kind, "", "", None)
        for name, kind in (
            ("0001-reduce-only", RequestKind.REDUCE_ONLY), ("0002-flatten", RequestKind.FLATTEN),
        )
    ]  # fmt: skip
    answers = [operator_requests.answer_to(outcome.session_dir, one) for one in requests]
    assert answers == [{"input_seq": seq, "code": 0} for seq in inputs]
    assert outcome.parity.is_identical, "they are in the log, so the replay obeys them too"
    with whole_log(outcome.session_dir / "orders") as folder:
        rows = records.split(_core.read_log(str(folder))["tape"])["Decision"]
    entries = rows[(rows["action"] == 1) & (rows["intent_reason"] == 1) & (rows["verdict"] == 1)]
    assert entries.size > 0
    assert entries["input_seq"].max() < inputs[0], "nothing opens behind reduce-only"
    # It has ended now: nobody is left to ask.
    code, error = hft_live("flatten", "--why", "late")
    assert (code, error["error"]) == (3, "CONFIG_NOT_FOUND")


def report_of(session_dir: Path, qty: int | None) -> None:
    """A report with a drift, or with none."""
    drift = Finding(
        FindingKind.POSITION_DRIFT, SYMBOL, 10**18, "broker 3, ours 1", asked=2,
        asked_ns=10**18, symbol=SYMBOL, qty=qty or 0,
    )  # fmt: skip
    ReconciliationReport(
        time_ns=10**18, phase="startup", is_ready=False, reasons=("it drifts",),
        findings=() if qty is None else (drift,), left_out=0, resolutions=(), questions={},
        counters={},
    ).write(session_dir)  # fmt: skip


@pytest.fixture
def session_dir(tmp_path: Path) -> Path:
    """Folder of a session that runs, as far as anybody can see."""
    folder = tmp_path / "sessions" / "run"
    folder.mkdir(parents=True)
    content = {"instruments": [{"instrument_id": 7, "symbol": SYMBOL}]}
    (folder / "engine.json").write_text(json.dumps(content))
    return folder


def test_adopt_repeats_what_the_report_says_or_is_refused(
    session_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ws = str(session_dir.parent.parent)
    adopt = ["adopt", "--symbol", SYMBOL, "--why", "overnight", "--wait", "0", "--workspace", ws]
    assert cli.main([*adopt, "--qty=2"]) == 3, "there is no report yet"
    report_of(session_dir, 2 * LOT)
    assert cli.main([*adopt, "--qty=-2"]) == 3
    assert "+2" in capsys.readouterr().err
    assert operator_requests.pending(session_dir) == []
    assert cli.main([*adopt, "--qty=2"]) == 1, "nobody has answered"
    (request,) = operator_requests.pending(session_dir)
    assert (request.kind, request.instrument_id, request.argument) == (
        RequestKind.ADOPT, 7, 2 * LOT,
    )  # fmt: skip
    assert "hft-live status" in capsys.readouterr().out
    for wrong in ("0", "nan", "x", "1e-9", "1e12"):
        with pytest.raises(SystemExit):
            cli.main([*adopt, f"--qty={wrong}"])


def test_reconcile_prints_the_newest_report_and_what_to_do(
    session_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ws = str(session_dir.parent.parent)
    assert cli.main(["reconcile", "--workspace", ws]) == 3
    report_of(session_dir, 2 * LOT)
    assert cli.main(["reconcile", "--workspace", ws]) == 1
    text = capsys.readouterr().out
    for part in ("NOT READY", "POSITION_DRIFT (321) SIM_EDGE", "since:", "means:", "next:"):
        assert part in text
    assert cli.main(["reconcile", "--workspace", ws, "--json", "run"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["findings"][0]["qty"] == 2 * LOT
    report_of(session_dir, None)
    assert cli.main(["reconcile", "--workspace", ws]) == 0
    assert "nothing stands" in capsys.readouterr().out
    (session_dir / FILE_NAME).write_bytes(b"{")
    assert cli.main(["reconcile", "--workspace", ws]) == 3
