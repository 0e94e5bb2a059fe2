"""hft-research prototype: a plain Python strategy in a file, run, labelled slow, replayed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hft_platform.errors import ReasonCode
from hft_platform.services.parity import replay_session
from research import cli
from tests.hft_platform.services.live_workspace import SESSIONS, make_live

TEXT = '''"""Follow the heavier side."""

from hft_platform.services.python_strategy import Place

SPEC = {
    "symbol": "SIM_EDGE", "order_qty_lots": 1, "ttl_ms": 1000, "slippage_ticks": 2,
    "limits": {"order_qty_lots_max": 1, "position_qty_lots_max": 1, "daily_loss_max": 1000000,
               "drawdown_max": 1000000, "loss_speed_max": 1000000,
               "order_rate_max": 60},
    "latency_profile": "shioaji_live_2026_04", "queue_model": "power_prob3",
    "on_withdrawal": {"action": "flatten", "deadline_ms": 5000},
}


class strategy:
    def __init__(self):
        self.position = 0

    def on_batch(self, batch):
        fills = batch.records["Broker"][batch.records["Broker"]["event_kind"] == 3]
        self.position += int((fills["side"] * fills["qty"]).sum())
        books = batch.records["Book"]
        if not books.size:
            return []
        book = books[-1]
        side = 1 if book["bid_qty"][0] > book["ask_qty"][0] else -1
        if side * self.position > 0:
            return []
        touch = book["ask_price"][0] if side > 0 else book["bid_price"][0]
        return [Place(side, int(touch), 100_000_000, signal=float(side))]
'''


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_live(tmp_path_factory.mktemp("prototype")).ws


def run(ws: Path, file: Path, *more: str) -> int:
    return cli.main(
        ["prototype", str(file), "--session", SESSIONS[0], "--workspace", str(ws), *more]
    )


def test_a_prototype_runs_says_that_it_is_slow_and_replays(
    ws: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "heavy_side.py"
    file.write_text(TEXT)
    assert run(ws, file, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["speed"].startswith("SLOW")
    assert facts["fills"] > 10
    assert facts["replayed_identical"] is True
    folder = Path(facts["folder"])
    assert folder.parent == ws / "prototypes"
    assert replay_session(folder, write=False).total == facts["decisions"]
    assert run(ws, file) == 0
    text = capsys.readouterr().out
    assert text.startswith("SLOW: plain Python")
    assert "without the strategy: identical" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("SPEC =", "OTHER ="), "defines SPEC"),
        (("class strategy", "class other"), "defines SPEC"),
        (('"ttl_ms": 1000, ', ""), "ttl_ms"),
        (('"daily_loss_max": 1000000,', ""), "limits.daily_loss_max"),
        (('"ttl_ms": 1000', '"ttl_ms": "soon"'), "ttl_ms"),
    ],
)
def test_a_file_that_lacks_something_is_refused_with_its_name(
    ws: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], said: str
) -> None:
    file = tmp_path / "wrong.py"
    assert change[0] in TEXT
    file.write_text(TEXT.replace(*change))
    assert run(ws, file, "--json") == 3
    answer = json.loads(capsys.readouterr().out)
    assert answer["code"] == ReasonCode.MANIFEST_INVALID
    assert said in answer["message"]


def test_a_file_that_is_not_there_is_refused(
    ws: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(ws, tmp_path / "none.py") == 3
    assert "is no Python file" in capsys.readouterr().err


def test_the_command_says_in_its_help_that_it_is_slow(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["prototype", "--help"])
    assert "SLOW" in capsys.readouterr().out
