"""hft-live drill: what it prints, and when it fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hft_platform import cli
from hft_platform.drills import drill as drill_module
from hft_platform.drills.drill import Claim, Drill, DrillReport, drills


def _holds(_folder: Path, seed: int, size: int) -> DrillReport:
    return DrillReport("holds", (Claim("size times seed", 6, size * seed),), {"tries": size})


def _fails(_folder: Path, _seed: int, _size: int) -> DrillReport:
    return DrillReport("fails", (Claim("rows", 5, 4), Claim("found", True, True)), {})


def _breaks(folder: Path, _seed: int, _size: int) -> DrillReport:
    (folder / "left").write_text("behind")
    raise RuntimeError("the server would not start")


@pytest.fixture
def _three_drills(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [Drill("holds", "nothing breaks", _holds), Drill("fails", "a row is lost", _fails),
            Drill("breaks", "it cannot be run", _breaks)]  # fmt: skip
    monkeypatch.setattr(drill_module, "drills", lambda: {drill.name: drill for drill in made})


def test_one_drill_prints_its_claims(
    _three_drills: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["drill", "holds", "--seed", "3", "--size", "2"]) == 0
    printed = capsys.readouterr()
    assert "ok   size times seed: 6" in printed.out
    assert "1 of 1  holds: nothing breaks ... passed" in printed.err
    assert cli.main(["drill", "fails"]) == 1
    assert "expected 5" in capsys.readouterr().out


def test_all_drills_are_run_and_one_that_fails_or_breaks_fails_the_command(
    _three_drills: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["drill", "all", "--seed", "3", "--size", "2", "--json"]) == 1
    content = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {name: row["passed"] for name, row in content.items()} == {
        "holds": True, "fails": False, "breaks": False,
    }  # fmt: skip
    assert content["breaks"]["claims"][0]["found"] == "RuntimeError: the server would not start"
    assert cli.main(["drill", "all"]) == 1
    text = capsys.readouterr().out
    assert "fails: FAILED" in text
    assert "1 of 2" in text
    assert "holds: FAILED" in text, "size times seed is 1 now"


def test_a_drill_works_in_an_empty_folder_only(
    _three_drills: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["drill", "breaks", "--folder", str(tmp_path)]) == 1
    assert (tmp_path / "breaks" / "left").exists(), "a named folder is kept"
    assert cli.main(["drill", "breaks", "--folder", str(tmp_path)]) == cli.REFUSED
    (tmp_path / "file").write_text("")
    assert cli.main(["drill", "holds", "--folder", str(tmp_path / "file")]) == cli.REFUSED
    assert cli.main(["drill", "holds", "--size", "0"]) == cli.REFUSED
    assert cli.main(["drill", "holds", "--seed", "-1"]) == cli.REFUSED
    assert cli.main(["drill", "hold"]) == cli.REFUSED
    assert "hft-live drill list" in capsys.readouterr().err


def test_every_drill_has_a_name_a_page_and_a_line(repository: Path) -> None:
    listed = drills()
    assert {"store-down", "store-slow", "store-killed", "reply-lost"} <= set(listed)
    for name, drill in listed.items():
        assert name == drill.name
        page = (repository / "docs" / "drills" / f"{name}.md").read_text()
        assert f"hft-live drill {name}" in page
